//! Mounts by the device of their file system, from mountinfo
//! (`show_mountinfo`, fs/proc_namespace.c).
//!
//! A mount belongs to a namespace, and each process sees its own. What only a
//! container has mounted is found through one of its processes.

use std::{collections::HashMap, fs, io};

use super::{
    living,
    mountinfo::{Line, unescape},
};
use crate::text::Text;

/// The mounts of a namespace, one for each file system.
#[derive(Debug, Default)]
pub struct Mounts(HashMap<u32, Mount>);

/// A mount. The names are as mountinfo has them, octal escapes undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Type of the file system: `ext4`, `nfs4`, `fuse.sshfs`.
    pub kind: Text,
    /// What is mounted: `/dev/vda1`, `server:/export`, or any word.
    pub source: Text,
    /// Where, from the root of the process asked.
    pub point: Text,
}

impl Mount {
    /// The kernel's own name of the type: `fuse` of `fuse.sshfs`.
    pub fn base(&self) -> &str {
        let kind = self.kind.as_str();
        kind.split_once('.').map_or(kind, |(base, _)| base)
    }
}

impl Mounts {
    /// The mounts of process 1, or where that cannot be read (hidepid) of tracer
    /// itself. All tasks of the host are traced, so its own mounts are what is
    /// wanted: a tracer in a container that shares the host's processes sees them
    /// this way only. In any other container process 1 is the container's own.
    pub fn read() -> io::Result<Self> {
        Self::of_process(1).or_else(|_| Self::of("/proc/self/mountinfo"))
    }

    /// The mounts that a process sees: the second chance for a device that
    /// `read` does not have. `pid` is as of tracer's own pid namespace.
    pub fn of_process(pid: u32) -> io::Result<Self> {
        Self::of(&living::path(pid, "mountinfo"))
    }

    /// A mount of the file system whose `s_dev` is `device`: major << 20 | minor.
    /// One that shows all of it is preferred, then the shortest mount point.
    ///
    /// File systems without a block device, btrfs too, have an anonymous number
    /// with major 0. It is the superblock's: on btrfs stat(2) gives another for
    /// each subvolume, which is not found here.
    pub fn find(&self, device: u32) -> Option<&Mount> {
        self.0.get(&device)
    }

    /// The mount of a file system of these types, when there is exactly one.
    pub fn only(&self, is_of_type: impl Fn(&str) -> bool) -> Option<&Mount> {
        let mut of_type = self.0.values().filter(|mount| is_of_type(mount.base()));
        let first = of_type.next();
        first.filter(|_| of_type.next().is_none())
    }

    fn of(mountinfo: &str) -> io::Result<Self> {
        fs::read(mountinfo).map(|bytes| Self::parse(&bytes))
    }

    fn parse(bytes: &[u8]) -> Self {
        let mut best: HashMap<u32, Line<'_>> = HashMap::new();
        for line in Line::all(bytes) {
            // Of equals the first one stays.
            let known = best.get(&line.device);
            if known.is_none_or(|known| rank(&line) < rank(known)) {
                best.insert(line.device, line);
            }
        }
        Self(best.iter().map(|(&d, line)| (d, line.into())).collect())
    }
}

/// The least is the best.
fn rank(line: &Line<'_>) -> (bool, usize) {
    (line.root != b"/", line.point.len())
}

impl From<&Line<'_>> for Mount {
    fn from(line: &Line<'_>) -> Self {
        let text = |escaped| Text::from_bytes(&unescape(escaped));
        Self {
            kind: text(line.kind),
            source: text(line.source),
            point: text(line.point),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, proptest};

    use super::{Line, Mounts, unescape};

    const MOUNTINFO: &[u8] = b"\
        22 27 0:21 / /proc rw,relatime - proc proc rw\n\
        30 27 254:0 /var/lib/x /a rw - ext4 /dev/vda rw\n\
        27 1 254:0 / /root/deep rw,relatime shared:1 master:2 - ext4 /dev/vda rw,discard\n\
        28 1 254:0 / /root rw,relatime shared:1 - ext4 /dev/vda rw,discard\n\
        29 1 254:0 / /toor rw,relatime - ext4 /dev/other rw\n\
        31 27 0:45 /@home /home rw - btrfs /dev/sdb1 rw,subvol=/@home\n\
        32 27 0:50 / /mnt/my\\040disk\\134\\011\\012\\033 rw - nfs4 server:/ex\\040port rw\n\
        33 27 0:51 / /empty rw -   rw\n\
        34 27 0:52 / /short rw - tmpfs\n\
        35 27 0 / /x rw - tmpfs x rw\n\
        36 27 9999:0 / /x rw - tmpfs x rw\n\
        \n";

    fn found(device: u32) -> Option<[String; 3]> {
        let mounts = Mounts::parse(MOUNTINFO);
        let mount = mounts.find(device)?;
        Some([&mount.kind, &mount.source, &mount.point].map(ToString::to_string))
    }

    #[test]
    fn a_whole_file_system_at_its_shortest_point_is_preferred() {
        let found = |device| found(device).unwrap();
        assert_eq!(found(254 << 20), ["ext4", "/dev/vda", "/root"]);
        assert_eq!(found(45), ["btrfs", "/dev/sdb1", "/home"]);
    }

    #[test]
    fn escapes_are_undone_and_what_they_hide_made_safe() {
        assert_eq!(
            found(50).unwrap(),
            [
                "nfs4",
                "server:/ex port",
                "/mnt/my disk\\\u{fffd}\u{fffd}\u{fffd}"
            ]
        );
        assert_eq!(
            unescape(b"\\040\\011\\012\\134\\043"),
            b" \t\n\\#".as_slice()
        );
        assert_eq!(unescape(b"\\134040"), b"\\040".as_slice());
        for other in [&b"\\"[..], b"\\04", b"\\048", b"\\400", b"a\\b"] {
            assert_eq!(unescape(other), other);
        }
    }

    #[test]
    fn rubbish_is_passed_over() {
        assert_eq!(found(51).unwrap(), ["", "", "/empty"]);
        assert_eq!(found(52), None);
        assert_eq!(found(0), None);
        assert_eq!(Mounts::parse(MOUNTINFO).0.len(), 5);
    }

    #[test]
    fn every_process_has_mounts() {
        let own = Mounts::of_process(std::process::id()).unwrap();
        assert!(!own.0.is_empty());
        assert!(!Mounts::read().unwrap().0.is_empty());
        assert!(Mounts::of_process(u32::MAX).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_parsed(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            Mounts::parse(&bytes);
            assert!(unescape(&bytes).len() <= bytes.len());
        }

        #[test]
        fn any_line_can_be_parsed(line in "[0-9]{1,3} [0-9] [0-9]{1,11}:[0-9]{1,11}( [-/a-z\\\\0-9:,]{0,6}){0,9}") {
            if let Some(line) = Line::parse(line.as_bytes()) {
                let _ = super::Mount::from(&line);
            }
        }
    }
}
