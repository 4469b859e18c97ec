//! Names as the linker has them, made into those of the source, and cut.

use super::NAME_BYTES;

/// Stands where a name was cut.
const MARK: &str = "…";

/// The name of a function of Rust or C++, or of any other, as it is.
pub(super) fn name(raw: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(raw).ok();
    let rust = text.and_then(|text| rustc_demangle::try_demangle(text).ok());
    if let Some(name) = rust {
        return cut(format!("{name:#}").into_bytes());
    }
    let is_cpp = raw.starts_with(b"_Z");
    let symbol = is_cpp
        .then(|| cpp_demangle::Symbol::new(raw).ok())
        .flatten();
    match symbol.and_then(|symbol| symbol.demangle().ok()) {
        Some(name) => cut(name.into_bytes()),
        None => cut(raw.to_vec()),
    }
}

/// At most so many bytes, with the mark where some are missing.
pub(super) fn cut(mut name: Vec<u8>) -> Vec<u8> {
    if name.len() > NAME_BYTES {
        name.truncate(NAME_BYTES - MARK.len());
        // Not within a character.
        if let Err(error) = std::str::from_utf8(&name)
            && error.error_len().is_none()
        {
            name.truncate(error.valid_up_to());
        }
        name.extend(MARK.as_bytes());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::{cut, name};

    #[test]
    fn names_are_those_of_the_source() {
        for (raw, readable) in [
            ("main", "main"),
            (
                "_ZN4core9panicking9panic_fmt17h5f1a6fd39197ad62E",
                "core::panicking::panic_fmt",
            ),
            ("_RNvCs123_5crate4main", "crate::main"),
            ("_ZN5space3fooEi", "space::foo(int)"),
            ("_Z", "_Z"),
        ] {
            assert_eq!(
                String::from_utf8(name(raw.as_bytes())).expect("UTF-8"),
                readable
            );
        }
    }

    #[test]
    fn long_names_are_cut_with_a_mark() {
        assert_eq!(cut(vec![b'x'; 256]), vec![b'x'; 256]);
        let long = String::from_utf8(cut(vec![b'x'; 257])).expect("UTF-8");
        assert_eq!(long, format!("{}…", "x".repeat(253)));
        let wide = "ü".repeat(200).into_bytes();
        let wide = String::from_utf8(cut(wide)).expect("UTF-8");
        assert_eq!(wide, format!("{}…", "ü".repeat(126)));
        assert_eq!(cut(vec![0xff; 300]).len(), 256);
    }
}
