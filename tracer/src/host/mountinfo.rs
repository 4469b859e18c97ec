//! The lines of mountinfo (`show_mountinfo`, fs/proc_namespace.c).

use super::devices::device_number;

/// A line, still escaped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line<'a> {
    /// Number of the mount (`STATX_MNT_ID`).
    pub(crate) id: u64,
    /// `s_dev` of the file system: major << 20 | minor.
    pub(crate) device: u32,
    /// What of the file system is mounted.
    pub(crate) root: &'a [u8],
    /// Where.
    pub(crate) point: &'a [u8],
    /// Options of the mount, with commas: `ro` is its own, not the file system's.
    pub(crate) flags: &'a [u8],
    /// Type of the file system.
    pub(crate) kind: &'a [u8],
    /// What is mounted; can be empty.
    pub(crate) source: &'a [u8],
    /// Options of the file system, with commas; none where the line is cut.
    pub(crate) options: &'a [u8],
}

impl<'a> Line<'a> {
    /// Those of a file that are one.
    pub(crate) fn all(bytes: &'a [u8]) -> impl Iterator<Item = Self> {
        bytes.split(|&b| b == b'\n').filter_map(Self::parse)
    }

    /// `27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw`: any number of
    /// optional fields stand before the dash.
    pub(crate) fn parse(line: &'a [u8]) -> Option<Self> {
        let mut words = line.split(|&b| b == b' ');
        let number =
            |digits: &[u8]| -> Option<u32> { std::str::from_utf8(digits).ok()?.parse().ok() };
        let id = words.next().and_then(number)?.into();
        let mut device = words.nth(1)?.split(|&b| b == b':');
        let device = device_number(number(device.next()?)?, number(device.next()?)?)?;
        let (root, point) = (words.next()?, words.next()?);
        let flags = words.next()?;
        let mut words = words.skip_while(|word| *word != b"-").skip(1);
        Some(Self {
            id,
            device,
            root,
            point,
            flags,
            kind: words.next()?,
            source: words.next()?,
            options: words.next().unwrap_or_default(),
        })
    }

    /// Whether the file system has an option.
    pub(crate) fn has_option(&self, name: &[u8]) -> bool {
        self.options.split(|&b| b == b',').any(|o| o == name)
    }
}

/// Undoes the kernel's escapes: a backslash and three octal digits for a byte
/// (`mangle_path`, fs/seq_file.c). Anything else stays as it is.
pub(crate) fn unescape(escaped: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(escaped.len());
    let mut rest = escaped;
    loop {
        match rest {
            [
                b'\\',
                a @ b'0'..=b'3',
                b @ b'0'..=b'7',
                c @ b'0'..=b'7',
                tail @ ..,
            ] => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = tail;
            }
            [byte, tail @ ..] => {
                bytes.push(*byte);
                rest = tail;
            }
            [] => return bytes,
        }
    }
}
