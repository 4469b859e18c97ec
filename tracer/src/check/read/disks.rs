//! Which mounts there are, what statfs(2) says of each, and which files grow.
//!
//! Mounts are those of tracer's own namespace, those of process 1, and file systems that
//! only other mount namespaces have, such as /dev/shm of a container. No mount is asked for
//! anything outside of a process that may hang.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsString,
    fs, io,
    os::unix::ffi::OsStringExt as _,
    path::PathBuf,
    thread,
    time::Duration,
};

use super::{
    descriptors::Descriptors,
    statfs::{self, Asked},
};
use crate::{
    check::rows::disks::{Answer, Errors, Growing, Mount},
    clock::WallNs,
    host::{
        living,
        mountinfo::{Line, unescape},
    },
    text::{self, Text},
};

/// A mount answers within this.
const PATIENCE: Duration = Duration::from_secs(1);
/// So many are asked at once.
const AT_ONCE: usize = 64;
/// More file systems than this are not asked: each batch may take [`PATIENCE`].
const MOST: usize = 8 * AT_ONCE;
/// Mount namespaces that are looked at besides tracer's and that of process 1.
const MOST_NAMESPACES: usize = 512;
/// Descriptors that grow, at most.
const MOST_GROWING: usize = 1000;
const MINOR_BITS: u32 = 20;

/// File systems that have no space of their own; autofs would mount when asked.
const WITHOUT_SPACE: [&[u8]; 23] = [
    b"autofs",
    b"binfmt_misc",
    b"bpf",
    b"cgroup",
    b"cgroup2",
    b"configfs",
    b"debugfs",
    b"devpts",
    b"efivarfs",
    b"fusectl",
    b"hugetlbfs",
    b"mqueue",
    b"nsfs",
    b"nfsd",
    b"proc",
    b"pstore",
    b"ramfs",
    b"rpc_pipefs",
    b"securityfs",
    b"selinuxfs",
    b"sysfs",
    b"tracefs",
    b"resctrl",
];
/// Images, always full.
const IMAGES: [&[u8]; 5] = [b"squashfs", b"iso9660", b"erofs", b"cramfs", b"romfs"];

/// Mounts that can fill.
#[derive(Debug, Default)]
pub(in crate::check) struct List {
    mounts: Vec<Listed>,
    points: HashSet<PathBuf>,
}

#[derive(Debug)]
struct Listed {
    mount: Mount,
    /// Each place where it is mounted, with the number of that mount; the best first.
    places: Vec<(PathBuf, u64)>,
    /// Of another mount namespace: it may refuse to be asked.
    is_of_others: bool,
}

impl List {
    /// Where a file system can be walked: a place that no other mount hides. It must be
    /// one that answers.
    pub(in crate::check) fn path(&self, device: (u32, u32)) -> Option<PathBuf> {
        let listed = self.mounts.iter().find(|l| l.mount.device == device)?;
        let mut places = listed.places.iter();
        let place = places.find(|(path, id)| statfs::mount_id(path).is_ok_and(|now| now == *id))?;
        Some(place.0.clone())
    }

    /// Every mount point, of file systems without space too.
    pub(in crate::check) fn points(&self) -> HashSet<PathBuf> {
        self.points.clone()
    }

    /// Takes the mounts of a namespace in, whose root is `root`.
    fn add(&mut self, mountinfo: &[u8], root: &[u8], fstab: &[u8]) {
        self.add_of(mountinfo, root, fstab, None);
    }

    /// The same; `whose` is a process of another namespace, whose mounts these are.
    fn add_of(&mut self, mountinfo: &[u8], root: &[u8], fstab: &[u8], whose: Option<&str>) {
        let path = |point: &[u8]| {
            let path = [root, &unescape(point)].concat();
            PathBuf::from(OsString::from_vec(path))
        };
        let mut by_device: HashMap<u32, Vec<Line<'_>>> = HashMap::new();
        for line in Line::all(mountinfo) {
            self.points.insert(path(line.point));
            // The space of a container's overlay is that of what is below it.
            let is_wanted = !WITHOUT_SPACE.contains(&line.kind)
                && !IMAGES.contains(&line.kind)
                && (whose.is_none() || line.kind != b"overlay");
            if is_wanted {
                by_device.entry(line.device).or_default().push(line);
            }
        }
        let mut devices: Vec<_> = by_device.into_iter().collect();
        // Those of a device first: of the others a host of containers has hundreds.
        devices.sort_unstable_by_key(|(device, _)| (numbers(*device).0 == 0, *device));
        for (number, mut lines) in devices {
            let device = numbers(number);
            if self.mounts.iter().any(|l| l.mount.device == device) {
                continue;
            }
            // One that can be written is better than one that cannot (/sysroot beside /var),
            // all of it better than a part, a short name better than a long one.
            lines.sort_by_key(|line| (is_read_only(line), line.root != b"/", line.point.len()));
            let places: Vec<_> = lines.iter().map(|l| (path(l.point), l.id)).collect();
            if let Some(line) = lines.first() {
                let mut mount = mount(line, device, fstab);
                if let Some(whose) = whose {
                    let point = format!("{} of {whose}", mount.point);
                    mount.point = Text::from(point.as_str());
                }
                let is_of_others = whose.is_some();
                self.mounts.push(Listed {
                    mount,
                    places,
                    is_of_others,
                });
            }
        }
    }
}

fn numbers(device: u32) -> (u32, u32) {
    (device >> MINOR_BITS, device & ((1 << MINOR_BITS) - 1))
}

fn mount(line: &Line<'_>, device: (u32, u32), fstab: &[u8]) -> Mount {
    let text = |escaped| Text::from_bytes(&unescape(escaped));
    let has_given_up = line.has_option(b"emergency_ro") || line.has_option(b"shutdown");
    Mount {
        kind: text(line.kind),
        source: text(line.source),
        point: text(line.point),
        device,
        stat_device: device,
        is_read_only: is_read_only(line),
        is_super_read_only: line.has_option(b"ro"),
        has_given_up,
        is_read_only_after_errors: line.has_option(b"errors=remount-ro"),
        is_to_be_written: is_to_be_written(fstab, &unescape(line.point)),
        errors: None,
        answer: Answer::default(),
    }
}

fn is_read_only(line: &Line<'_>) -> bool {
    line.flags.split(|&b| b == b',').any(|flag| flag == b"ro")
}

/// Whether fstab(5) has a mount point, and without `ro`.
fn is_to_be_written(fstab: &[u8], point: &[u8]) -> bool {
    fstab.split(|&b| b == b'\n').any(|line| {
        let mut words = line
            .split(u8::is_ascii_whitespace)
            .filter(|w| !w.is_empty());
        let (Some(what), Some(at)) = (words.next(), words.next()) else {
            return false;
        };
        let options = words.nth(1).unwrap_or_default();
        !what.starts_with(b"#")
            && unescape(at) == point
            && !options.split(|&b| b == b',').any(|option| option == b"ro")
    })
}

/// Reads the mounts.
pub(in crate::check) fn list() -> List {
    let mut list = List::default();
    let fstab = fs::read("/etc/fstab").unwrap_or_default();
    list.add(
        &fs::read("/proc/self/mountinfo").unwrap_or_default(),
        b"",
        &fstab,
    );
    let own = fs::read_link("/proc/self/ns/mnt").ok();
    if fs::read_link(living::path(1, "ns/mnt")).ok() != own {
        let others = fs::read("/proc/1/mountinfo").unwrap_or_default();
        list.add(&others, b"/proc/1/root", b"");
    }
    for (pid, name) in others() {
        let mountinfo = fs::read(living::path(pid, "mountinfo")).unwrap_or_default();
        let root = living::path(pid, "root");
        list.add_of(&mountinfo, root.as_bytes(), b"", Some(&name));
    }
    list
}

/// A process of each mount namespace that is neither tracer's nor process 1's, the one with
/// the least id, and its name.
fn others() -> Vec<(u32, String)> {
    let link = |pid| living::read_link(pid, "ns/mnt").ok().map(|(_, link)| link);
    let own = fs::read_link("/proc/self/ns/mnt").ok();
    let mut seen: HashSet<PathBuf> = own.into_iter().chain(link(1)).collect();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut pids: Vec<u32> = pids.collect();
    pids.sort_unstable();
    let mut others = Vec::new();
    for pid in pids {
        if others.len() == MOST_NAMESPACES {
            break;
        }
        if link(pid).is_some_and(|link| seen.insert(link)) {
            let comm = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
            let comm = Text::from_bytes(comm.trim_ascii_end());
            others.push((pid, format!("{comm}[{pid}]")));
        }
    }
    others
}

/// Asks every mount, side by side; and says which could not be asked.
pub(in crate::check) fn ask(list: &List) -> (Vec<Mount>, Vec<String>) {
    let mut mounts = Vec::new();
    let mut unseen = Vec::new();
    let asked = list.mounts.get(..MOST).unwrap_or(&list.mounts);
    for batch in asked.chunks(AT_ONCE) {
        let answers: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = batch
                .iter()
                .map(|listed| scope.spawn(|| one(listed)))
                .collect();
            threads.into_iter().filter_map(|t| t.join().ok()).collect()
        });
        for answer in answers {
            match answer {
                Ok(mount) => mounts.extend(mount),
                Err(words) => unseen.push(words),
            }
        }
    }
    let more = list.mounts.len() - asked.len();
    if more > 0 {
        unseen.push(format!("{more} more file systems: only {MOST} are asked"));
    }
    (mounts, unseen)
}

/// Asks at the places of a file system until one is not hidden by another mount.
fn one(listed: &Listed) -> Result<Option<Mount>, String> {
    let mut mount = listed.mount.clone();
    mount.errors = errors(mount.device);
    for (path, id) in &listed.places {
        mount.answer = match statfs::ask(path, PATIENCE) {
            Asked::Space { mount_id, .. } if mount_id != *id => continue,
            Asked::Space { device, space, .. } => {
                mount.stat_device = device;
                Answer::Space(space)
            }
            Asked::Silent => Answer::Silent,
            Asked::Error(error) => match error.raw_os_error() {
                // It was unmounted meanwhile, or its place went.
                Some(libc::ENOENT | libc::ENOTDIR) => continue,
                Some(
                    libc::ENOTCONN
                    | libc::ECONNABORTED
                    | libc::ESTALE
                    | libc::EIO
                    | libc::EHOSTDOWN
                    | libc::ENODEV,
                ) => Answer::Dead(words(&error)),
                _ if listed.is_of_others => return Ok(None),
                _ => return Err(format!("the space of {}: {}", mount.point, words(&error))),
            },
        };
        return Ok(Some(mount));
    }
    Ok(None)
}

/// Without the number.
fn words(error: &io::Error) -> String {
    let words = error.to_string();
    let text = words.split_once(" (os error").map(|(text, _)| text);
    text.map_or_else(|| words.clone(), str::to_lowercase)
}

/// What an ext4 file system keeps of its errors.
fn errors(device: (u32, u32)) -> Option<Errors> {
    let link = fs::read_link(format!("/sys/dev/block/{}:{}", device.0, device.1)).ok()?;
    let directory = PathBuf::from("/sys/fs/ext4").join(link.file_name()?);
    let read = |name: &str| fs::read(directory.join(name)).ok();
    let number = |name: &str| -> Option<u64> {
        let bytes = read(name)?;
        str::from_utf8(bytes.trim_ascii()).ok()?.parse().ok()
    };
    let function = read("last_error_func").unwrap_or_default();
    Some(Errors {
        count: number("errors_count")?,
        function: Text::from_bytes(function.trim_ascii()),
        last: WallNs(
            number("last_error_time")
                .unwrap_or(0)
                .saturating_mul(1_000_000_000),
        ),
    })
}

/// Files that grew, each once, the fastest first; by who can write to it.
pub(in crate::check) fn growing(descriptors: &Descriptors, seconds: f64) -> Vec<Growing> {
    let sizes = descriptors.files.iter().zip(&descriptors.sizes_at_end);
    let mut growing: Vec<_> = sizes
        .filter_map(|(file, now)| {
            let more = now.as_ref()?.checked_sub(file.size_bytes)?;
            (more > 0).then_some((more, file))
        })
        .collect();
    growing.sort_by_key(|(more, file)| (std::cmp::Reverse(*more), file.pid, file.fd));
    growing.truncate(MOST_GROWING);
    growing.retain(|(_, file)| is_writer(file.pid, file.fd));
    let mut seen = HashSet::new();
    growing.retain(|(_, file)| seen.insert((file.device, file.inode)));
    let named = growing.into_iter().map(|(more, file)| Growing {
        device: file.device,
        pid: file.pid,
        comm: file.comm.clone(),
        fd: file.fd,
        path: file.path.clone(),
        bytes_per_s: more as f64 / seconds.max(0.001),
    });
    named.collect()
}

/// Whether a descriptor can write: who follows a log does not make it grow.
fn is_writer(pid: u32, fd: u32) -> bool {
    let Ok(text) = text::read(living::path(pid, &format!("fdinfo/{fd}"))) else {
        return true;
    };
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|octal| i32::from_str_radix(octal.trim(), 8).ok());
    flags.is_none_or(|flags| flags & libc::O_ACCMODE != libc::O_RDONLY)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{List, is_to_be_written};

    const MOUNTINFO: &[u8] = b"\
        22 27 0:21 / /proc rw,relatime - proc proc rw\n\
        27 1 254:0 / / rw,relatime - ext4 /dev/vda ro,errors=remount-ro\n\
        28 1 254:0 /a /very/b rw - ext4 /dev/vda ro\n\
        29 1 7:0 / /snap ro - squashfs /dev/loop0 ro\n\
        30 27 0:50 / /mnt/my\\040disk ro,nosuid shared:3 - fuse.sshfs h: rw,emergency_ro\n";

    #[test]
    fn mounts_that_can_fill_each_once() {
        let mut list = List::default();
        list.add(MOUNTINFO, b"", b"");
        list.add(MOUNTINFO, b"/proc/1/root", b"");
        let [root, far] = &list.mounts[..] else {
            panic!("{list:?}");
        };
        assert_eq!(root.mount.point.as_str(), "/");
        assert_eq!(root.mount.device, (254, 0));
        assert!(root.mount.is_super_read_only && !root.mount.is_read_only);
        let places = [(PathBuf::from("/"), 27), (PathBuf::from("/very/b"), 28)];
        assert_eq!(root.places, places);
        assert_eq!(far.places[0].0, PathBuf::from("/mnt/my disk"));
        assert!(far.mount.is_read_only && far.mount.has_given_up);
        assert!(list.points().contains(&PathBuf::from("/snap")));
    }

    /// Evidence 56: a tmpfs that only a container has.
    #[test]
    fn file_systems_of_other_namespaces_have_the_process_that_is_there() {
        let mut list = List::default();
        list.add(MOUNTINFO, b"", b"");
        let theirs = b"\
            90 27 0:77 / / rw - overlay overlay rw\n\
            91 90 254:0 /etc/hosts /etc/hosts rw - ext4 /dev/vda rw\n\
            92 90 0:78 / /dev/shm rw - tmpfs shm rw,size=65536k\n";
        list.add_of(theirs, b"/proc/123/root", b"", Some("postgres[123]"));
        let [_, _, shm] = &list.mounts[..] else {
            panic!("{list:?}");
        };
        assert_eq!(shm.mount.point.as_str(), "/dev/shm of postgres[123]");
        assert_eq!(shm.places[0].0, PathBuf::from("/proc/123/root/dev/shm"));
    }

    /// As an image-based system has it: all of the disk is there, but not to be written.
    #[test]
    fn where_a_file_system_can_be_written_is_the_best_place() {
        let mut list = List::default();
        let mounts = b"\
            27 1 254:0 / /sysroot ro - xfs /dev/vda rw\n\
            28 1 254:0 /deploy/var /var rw - xfs /dev/vda rw\n";
        list.add(mounts, b"", b"");
        assert_eq!(list.mounts[0].mount.point.as_str(), "/var");
        assert!(!list.mounts[0].mount.is_read_only);
    }

    #[test]
    fn fstab_says_what_is_to_be_written() {
        let fstab = b"# /dev/sdc /c ext4 rw\n\
            UUID=1 / ext4 errors=remount-ro 0 1\n\
            /dev/sdb\t/my\\040b ext4\tdefaults 0 0\n/dev/sr0 /cd iso9660 ro,user 0 0\n/x\n";
        for (point, expected) in [
            (&b"/"[..], true),
            (b"/my b", true),
            (b"/cd", false),
            (b"/c", false),
        ] {
            assert_eq!(is_to_be_written(fstab, point), expected, "{point:?}");
        }
    }
}
