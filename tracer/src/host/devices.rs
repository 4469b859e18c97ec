//! Names of block devices by the kernel's number, from sysfs.
//!
//! Loop and device mapper devices come and go, and their numbers come again: the
//! caller says when names are to be looked up anew.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use crate::text::Text;

/// No more names than this are kept; beyond it they are forgotten at once.
const MOST_NAMES: usize = 4096;

/// Minor numbers take this many bits (`MINORBITS`, include/linux/kdev_t.h).
const MINOR_BITS: u32 = 20;

/// Names by number, each looked up once until they are forgotten.
#[derive(Debug, Default)]
pub struct Devices {
    names: HashMap<u32, Text>,
}

impl Devices {
    /// Knows none yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The device's name: `vda1`, and for the device mapper the name it was given
    /// (`vg-root`), not `dm-0`. One that sysfs does not have goes by its numbers,
    /// `8:0`. `device` is the kernel's own `dev_t`: major << 20 | minor.
    pub fn name(&mut self, device: u32) -> Text {
        self.cached(device, look_up)
    }

    /// Forgets all names, so that they are looked up anew.
    pub fn forget(&mut self) {
        self.names.clear();
    }

    fn cached(&mut self, device: u32, look_up: impl FnOnce(u32) -> Text) -> Text {
        if let Some(name) = self.names.get(&device) {
            return name.clone();
        }
        if self.names.len() >= MOST_NAMES {
            self.names.clear();
        }
        let name = look_up(device);
        self.names.insert(device, name.clone());
        name
    }
}

/// Joins major and minor number as the kernel does (`MKDEV`), if both fit.
pub(super) fn device_number(major: u32, minor: u32) -> Option<u32> {
    let fits = major < 1 << (u32::BITS - MINOR_BITS) && minor < 1 << MINOR_BITS;
    fits.then_some(major << MINOR_BITS | minor)
}

fn look_up(device: u32) -> Text {
    let numbers = numbers(device);
    let entry = Path::new("/sys/dev/block").join(&numbers);
    let link = fs::read_link(&entry).ok();
    let mapped = fs::read(entry.join("dm/name")).ok();
    choose(&numbers, link, mapped.as_deref())
}

/// As sysfs and mountinfo have it: `8:0`.
fn numbers(device: u32) -> String {
    let (major, minor) = (device >> MINOR_BITS, device & ((1 << MINOR_BITS) - 1));
    format!("{major}:{minor}")
}

fn choose(numbers: &str, link: Option<PathBuf>, mapped: Option<&[u8]>) -> Text {
    let mapped = mapped.map(<[u8]>::trim_ascii).filter(|n| !n.is_empty());
    if let Some(name) = mapped {
        return Text::from_bytes(name);
    }
    let link = link.as_deref().and_then(Path::file_name);
    // A slash in a name is an exclamation mark in sysfs (`cciss!c0d0`).
    let slashes = |name: &OsStr| -> Vec<u8> {
        let bytes = name.as_encoded_bytes().iter();
        bytes.map(|&b| if b == b'!' { b'/' } else { b }).collect()
    };
    link.map_or_else(
        || Text::from(numbers),
        |name| Text::from_bytes(&slashes(name)),
    )
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{Devices, MOST_NAMES, choose, device_number, numbers};
    use crate::text::Text;

    #[test]
    fn numbers_are_the_kernels() {
        assert_eq!(numbers(8 << 20 | 1), "8:1");
        assert_eq!(numbers(259 << 20 | 70_000), "259:70000");
        assert_eq!(device_number(259, 70_000), Some(259 << 20 | 70_000));
        assert_eq!(numbers(u32::MAX), "4095:1048575");
        assert_eq!(device_number(4095, 1_048_575), Some(u32::MAX));
        assert_eq!(device_number(4096, 0), None);
        assert_eq!(device_number(0, 1 << 20), None);
    }

    #[test]
    fn names_are_those_people_know() {
        let name = |link: Option<&str>, mapped: Option<&[u8]>| {
            let name = choose("8:0", link.map(PathBuf::from), mapped);
            name.as_str().to_owned()
        };
        let dm = Some("../../devices/virtual/block/dm-0");
        assert_eq!(name(Some("../../devices/x/block/sda/sda1"), None), "sda1");
        assert_eq!(name(dm, Some(b"vg-root\n")), "vg-root");
        assert_eq!(name(dm, Some(b"a\x1bb\n")), "a\u{fffd}b");
        assert_eq!(name(dm, Some(b"\n")), "dm-0");
        assert_eq!(name(Some("../../cciss!c0d0"), None), "cciss/c0d0");
        assert_eq!(name(Some(".."), None), "8:0");
        assert_eq!(name(None, None), "8:0");
    }

    #[test]
    fn a_name_is_looked_up_once_until_forgotten() {
        let mut devices = Devices::new();
        assert_eq!(devices.cached(1, |_| Text::from("old")).as_str(), "old");
        assert_eq!(devices.cached(1, |_| Text::from("new")).as_str(), "old");
        devices.forget();
        assert_eq!(devices.cached(1, |_| Text::from("new")).as_str(), "new");
    }

    #[test]
    fn the_names_are_bounded() {
        let mut devices = Devices::new();
        for device in 0..3 * MOST_NAMES as u32 {
            devices.cached(device, |_| Text::default());
            assert!(devices.names.len() <= MOST_NAMES);
        }
    }
}
