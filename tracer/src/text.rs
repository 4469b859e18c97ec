//! The one sanitiser of foreign text. A process may name itself with escape
//! codes, a mount can carry any bytes and megabytes of them: what does not come
//! through here does not reach an output.

use std::{fmt, fs, io, path::Path, sync::Arc};

/// Bytes of a text, the mark included. Longer than any path of a cgroup or a mount that
/// is in use.
const MOST_BYTES: usize = 1024;
/// Stands at the end of a text that was cut.
const MARK: char = '…';

/// Text that is safe to print: valid UTF-8, without control characters (C0, DEL,
/// C1), line and paragraph separators, bidirectional and other invisible
/// formatting, private-use or unassigned-by-design code points.
///
/// Every offending byte or character became one U+FFFD. At most 1,024 bytes: one that was
/// longer is cut, and ends with `…`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text(Arc<str>);

impl Text {
    /// Makes foreign bytes safe. A kernel string's terminating zero and what
    /// follows are cut off.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        // No byte becomes less than one, so no more of them are looked at.
        let first = bytes.get(..=MOST_BYTES).unwrap_or(bytes);
        let bytes = first.split(|&b| b == 0).next().unwrap_or_default();
        if bytes.len() <= MOST_BYTES && bytes.iter().all(|b| (0x20..0x7f).contains(b)) {
            return Self(String::from_utf8_lossy(bytes).into());
        }
        let safe = |c| {
            if is_safe(c) {
                c
            } else {
                char::REPLACEMENT_CHARACTER
            }
        };
        let all: String = String::from_utf8_lossy(bytes).chars().map(safe).collect();
        Self(cut(all).into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Reads a file of /proc or /sys. Names of tasks, mounts and cgroups in it can be any bytes:
/// those that are no UTF-8 become U+FFFD, and the rest stays. It is not safe to print yet.
///
/// # Errors
/// It cannot be read.
pub fn read(path: impl AsRef<Path>) -> io::Result<String> {
    let bytes = fs::read(path)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Foreign text of several lines: each becomes safe, the ends of lines stay.
pub fn lines(text: &str) -> String {
    let lines: Vec<Text> = text.lines().map(Text::from).collect();
    let lines: Vec<&str> = lines.iter().map(Text::as_str).collect();
    lines.join("\n")
}

/// At most so many bytes, whole characters, with the mark where some are missing.
fn cut(mut text: String) -> String {
    if text.len() > MOST_BYTES {
        text.truncate(text.floor_char_boundary(MOST_BYTES - MARK.len_utf8()));
        text.push(MARK);
    }
    text
}

fn is_safe(c: char) -> bool {
    !c.is_control()
        && !matches!(c,
            '\u{00ad}'                  // soft hyphen
            | '\u{034f}'                // combining grapheme joiner
            | '\u{061c}'                // Arabic letter mark (bidi)
            | '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}' // Hangul fillers: blank
            | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}'   // Mongolian selectors and vowel separator
            | '\u{200b}'..='\u{200f}'   // zero width, LRM, RLM
            | '\u{2028}'..='\u{202e}'   // separators, bidi embeddings and overrides
            | '\u{2060}'..='\u{206f}'   // invisible operators, bidi isolates
            | '\u{e000}'..='\u{f8ff}'   // private use
            | '\u{fe00}'..='\u{fe0f}'   // variation selectors
            | '\u{feff}'                // byte order mark
            | '\u{fff0}'..='\u{fffb}'   // specials, interlinear annotation
            | '\u{fffe}' | '\u{ffff}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{10ffff}' // tags, selectors, private use
        )
}

impl Default for Text {
    fn default() -> Self {
        Self(Arc::from(""))
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self::from_bytes(text.as_bytes())
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        path::{Path, PathBuf},
    };

    use proptest::prelude::{any, prop, proptest};

    use super::{MOST_BYTES, Text, is_safe, lines, read};

    /// Sources of tracer below a directory, without those of tests.
    fn sources(directory: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
        let (directories, files): (Vec<PathBuf>, Vec<PathBuf>) = entries
            .map(|entry| entry.path())
            .partition(|path| path.is_dir());
        let below = directories.iter().flat_map(|directory| sources(directory));
        let is_source = |path: &PathBuf| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.ends_with(".rs") && !name.contains("tests") && name != "stranger.rs"
        };
        files.into_iter().filter(is_source).chain(below).collect()
    }

    /// One name that is no UTF-8 would make all of such a file unreadable.
    #[test]
    fn no_file_of_the_kernel_is_read_as_utf8() {
        // A user's own file, in which it is an error.
        const OWN_FILES: [&str; 1] = ["check/limits.rs"];
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut count = 0;
        for path in sources(&root) {
            let all = fs::read_to_string(&path).unwrap();
            let code = all.split("#[cfg(test)]\nmod tests {").next().unwrap();
            let is_own = OWN_FILES.iter().any(|file| path.ends_with(file));
            assert!(is_own || !code.contains("read_to_string("), "{path:?}");
            count += 1;
        }
        assert!(count > 100, "{count} sources");
    }

    #[test]
    fn a_name_that_is_no_utf8_hides_nothing_else() {
        let path = std::env::temp_dir().join(format!("tracer-text-{}", std::process::id()));
        fs::write(
            &path,
            b"tmpfs /caf\xe9 tmpfs\ncgroup2 /sys/fs/cgroup cgroup2\n",
        )
        .unwrap();
        let text = read(&path).unwrap();
        fs::remove_file(path).unwrap();
        assert_eq!(
            text,
            "tmpfs /caf\u{fffd} tmpfs\ncgroup2 /sys/fs/cgroup cgroup2\n"
        );
    }

    #[test]
    fn hostile_corpus() {
        for (hostile, safe) in [
            (&b"bash"[..], "bash"),
            (b"mysqld\0\0rest", "mysqld"),
            (b"\x1b[31mred\x1b[0m", "\u{fffd}[31mred\u{fffd}[0m"),
            (b"a\nb\tc\rd", "a\u{fffd}b\u{fffd}c\u{fffd}d"),
            (b"bell\x07del\x7f", "bell\u{fffd}del\u{fffd}"),
            ("c1\u{9b}31m".as_bytes(), "c1\u{fffd}31m"),
            (b"c1\x9b31m", "c1\u{fffd}31m"),
            ("\u{202e}drowssap".as_bytes(), "\u{fffd}drowssap"),
            ("a\u{2066}b\u{2069}".as_bytes(), "a\u{fffd}b\u{fffd}"),
            ("zero\u{200b}width".as_bytes(), "zero\u{fffd}width"),
            ("line\u{2028}sep".as_bytes(), "line\u{fffd}sep"),
            ("tag\u{e0041}".as_bytes(), "tag\u{fffd}"),
            (b"\xff\xfe\xc3\x28", "\u{fffd}\u{fffd}\u{fffd}("),
            (b"cut\xe2\x82", "cut\u{fffd}"),
            (
                "\"quoted\" 'name' \\ ünï 漢字".as_bytes(),
                "\"quoted\" 'name' \\ ünï 漢字",
            ),
        ] {
            assert_eq!(Text::from_bytes(hostile).as_str(), safe);
        }
    }

    #[test]
    fn long_text_is_cut_with_a_mark() {
        let whole = "x".repeat(MOST_BYTES);
        assert_eq!(Text::from(whole.as_str()).as_str(), whole);
        let cut = format!("{}…", "x".repeat(MOST_BYTES - 3));
        assert_eq!(Text::from(format!("{whole}y").as_str()).as_str(), cut);
        assert_eq!(Text::from_bytes(&vec![b'x'; 20 << 20]).as_str(), cut);
        // Each byte of these becomes three.
        let worse = Text::from_bytes(&vec![0xff; MOST_BYTES]);
        assert!(worse.as_str().len() <= MOST_BYTES && worse.as_str().ends_with('…'));
        // Not within a character.
        let wide = Text::from("漢".repeat(500).as_str());
        assert_eq!(wide.as_str(), format!("{}…", "漢".repeat(340)));
    }

    #[test]
    fn lines_stay_apart() {
        let hostile = "at line 1\n1 | \u{1b}]0;x\u{7}\u{9b}31m\u{202e}\r\nunknown\rfield\n";
        let safe = "at line 1\n1 | \u{fffd}]0;x\u{fffd}\u{fffd}31m\u{fffd}\nunknown\u{fffd}field";
        assert_eq!(lines(hostile), safe);
    }

    proptest! {
        #[test]
        fn nothing_unsafe_comes_through(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
            let text = Text::from_bytes(&bytes);
            assert!(text.as_str().len() <= MOST_BYTES);
            assert!(text.as_str().chars().all(|c| is_safe(c) || c == char::REPLACEMENT_CHARACTER));
        }
    }
}
