//! Hierarchies of v1 and v2 made of plain directories and files.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use super::{HostMemory, MemoryCgroup, MemoryCgroups, hierarchy::Hierarchy, host, meminfo};
use crate::kernel::fields::CgroupVersion;

const MIB: u64 = 1 << 20;
const V1_NO_LIMIT: &str = "9223372036854771712\n";

/// A directory that stands for a mounted hierarchy, until it is dropped.
struct Fake {
    root: PathBuf,
    version: CgroupVersion,
    events_add_up: bool,
}

impl Fake {
    fn new(test: &str, version: CgroupVersion) -> Self {
        let name = format!("tracer-memory-{test}-{}", std::process::id());
        let root = std::env::temp_dir().join(name);
        fs::create_dir_all(&root).unwrap();
        let events_add_up = version == CgroupVersion::V2;
        Self {
            root,
            version,
            events_add_up,
        }
    }

    fn at_most(&self, most: usize) -> MemoryCgroups {
        let hierarchy = Hierarchy {
            root: self.root.clone(),
            version: self.version,
            events_add_up: self.events_add_up,
        };
        MemoryCgroups::of(Some(hierarchy), most)
    }

    fn cgroups(&self) -> MemoryCgroups {
        self.at_most(100)
    }

    fn put(&self, cgroup: impl AsRef<Path>, files: &[(&str, &str)]) -> u64 {
        let directory = self.root.join(cgroup);
        fs::create_dir_all(&directory).unwrap();
        for (name, text) in files {
            fs::write(directory.join(name), text).unwrap();
        }
        fs::metadata(directory).unwrap().ino()
    }

    /// With a limit, or `None`, and kills in it and below.
    fn v2(&self, cgroup: impl AsRef<Path>, limit: Option<u64>, kills: u64) -> u64 {
        let limit = limit.map_or("max\n".into(), |limit| format!("{limit}\n"));
        let events = format!("low 0\nmax 9\noom 9\noom_kill {kills}\noom_group_kill 2\n");
        let files = [
            ("memory.max", limit.as_str()),
            ("memory.current", "4096\n"),
            ("memory.events", &events),
        ];
        self.put(cgroup, &files)
    }

    fn v1(&self, cgroup: impl AsRef<Path>, limit: Option<u64>, kills: u64) -> u64 {
        let limit = limit.map_or(V1_NO_LIMIT.into(), |limit| format!("{limit}\n"));
        let control = format!("oom_kill_disable 0\nunder_oom 0\noom_kill {kills}\n");
        let files = [
            ("memory.limit_in_bytes", limit.as_str()),
            ("memory.usage_in_bytes", "4096\n"),
            ("memory.oom_control", &control),
        ];
        self.put(cgroup, &files)
    }

    fn remove(&self, cgroup: &str) {
        fs::remove_dir_all(self.root.join(cgroup)).unwrap();
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

fn paths(reading: &[MemoryCgroup]) -> Vec<&str> {
    let mut paths: Vec<_> = reading.iter().map(|cgroup| cgroup.path.as_str()).collect();
    paths.sort_unstable();
    paths
}

fn walked(cgroups: &mut MemoryCgroups) -> Vec<String> {
    let reading = cgroups.walk(true);
    paths(&reading).into_iter().map(str::to_owned).collect()
}

fn find<'a>(reading: &'a [MemoryCgroup], path: &str) -> &'a MemoryCgroup {
    let mut of_path = reading.iter().filter(|cgroup| cgroup.path.as_str() == path);
    of_path.next().unwrap()
}

#[test]
fn memory_of_v2_is_read() {
    let fake = Fake::new("v2", CgroupVersion::V2);
    // The root has none of the files.
    let root = fake.put("", &[("cgroup.controllers", "memory\n")]);
    let slice = fake.v2("a.slice", Some(100 * MIB), 3);
    let plain = fake.v2("a.slice/plain", None, 0);
    let inner = fake.v2("a.slice/plain/inner", Some(0), 0);
    let swap = [
        ("memory.swap.max", "1048576\n"),
        ("memory.swap.current", "8192\n"),
        ("memory.oom.group", "1\n"),
        ("memory.events.local", "oom 1\noom_kill 1\n"),
    ];
    fake.put("a.slice", &swap);
    fake.put("a.slice/plain/inner", &[("memory.swap.max", "max\n")]);
    let mut cgroups = fake.cgroups();
    let reading = cgroups.walk(true);
    assert_eq!(paths(&reading), ["/a.slice", "/a.slice/plain/inner"]);
    let expected = MemoryCgroup {
        id: slice,
        path: "/a.slice".into(),
        limit_bytes: Some(100 * MIB),
        usage_bytes: 4096,
        swap_limit_bytes: Some(MIB),
        swap_usage_bytes: Some(8192),
        oom_kills: Some(3),
        own_oom_kills: Some(1),
        oom_group_kills: Some(2),
        oom_group: true,
        parent: None,
    };
    assert_eq!(*find(&reading, "/a.slice"), expected);
    let expected = MemoryCgroup {
        id: inner,
        path: "/a.slice/plain/inner".into(),
        limit_bytes: Some(0),
        swap_limit_bytes: None,
        swap_usage_bytes: None,
        oom_kills: Some(0),
        own_oom_kills: Some(0),
        oom_group: false,
        parent: Some(slice),
        ..expected
    };
    assert_eq!(*find(&reading, "/a.slice/plain/inner"), expected);
    assert_eq!(
        [root, slice, plain, inner, 1].map(|id| cgroups.listed(id)),
        [None, Some(slice), Some(slice), Some(inner), None]
    );
    assert_eq!(cgroups.by_id(plain).unwrap().as_str(), "/a.slice/plain");
    assert_eq!(cgroups.by_id(root).unwrap().as_str(), "/");
    // The group of one above is that of all below it.
    assert_eq!(
        [root, slice, plain, inner, 1].map(|id| cgroups.is_killed_whole(id)),
        [false, true, true, true, false]
    );
    assert_eq!((cgroups.left_out(), cgroups.unreadable()), (0, 0));
}

#[test]
fn memory_of_v1_is_read() {
    let fake = Fake::new("v1", CgroupVersion::V1);
    fake.v1("", None, 0);
    let docker = fake.v1("docker", None, 0);
    let limited = fake.v1("docker/limited", Some(64 * MIB), 0);
    let killed = fake.v1("docker/limited/killed", None, 5);
    let both = [
        ("memory.memsw.limit_in_bytes", "100663296\n"),
        ("memory.memsw.usage_in_bytes", "12288\n"),
    ];
    fake.put("docker/limited", &both);
    let both = [("memory.memsw.limit_in_bytes", V1_NO_LIMIT)];
    fake.put("docker/limited/killed", &both);
    let mut cgroups = fake.cgroups();
    let reading = cgroups.walk(true);
    let expected = MemoryCgroup {
        id: limited,
        path: "/docker/limited".into(),
        limit_bytes: Some(64 * MIB),
        usage_bytes: 4096,
        swap_limit_bytes: Some(32 * MIB),
        swap_usage_bytes: Some(8192),
        oom_kills: Some(0),
        own_oom_kills: Some(0),
        oom_group_kills: None,
        oom_group: false,
        parent: None,
    };
    let below = MemoryCgroup {
        id: killed,
        path: "/docker/limited/killed".into(),
        limit_bytes: None,
        swap_limit_bytes: None,
        swap_usage_bytes: None,
        oom_kills: Some(5),
        own_oom_kills: Some(5),
        parent: Some(limited),
        ..expected.clone()
    };
    assert_eq!(reading, [expected, below]);
    assert_eq!(cgroups.by_id(docker).unwrap().as_str(), "/docker");
    // Where the host had no kill nobody is asked for them.
    assert_eq!(paths(&cgroups.walk(false)), ["/docker/limited"]);
}

#[test]
fn memory_kills_are_looked_for_where_they_can_be() {
    let mut fake = Fake::new("kills", CgroupVersion::V2);
    fake.v2("quiet", None, 0);
    // This cannot be: what is above has counted none.
    fake.v2("quiet/never", None, 1);
    fake.v2("killed", None, 1);
    fake.v2("killed/deep", None, 1);
    let walked = |fake: &Fake| walked(&mut fake.cgroups());
    assert_eq!(walked(&fake), ["/killed", "/killed/deep"]);
    fake.events_add_up = false;
    assert_eq!(walked(&fake), ["/killed", "/killed/deep", "/quiet/never"]);
}

#[test]
fn memory_cgroups_come_and_go() {
    let fake = Fake::new("change", CgroupVersion::V2);
    let mut cgroups = fake.cgroups();
    assert!(cgroups.walk(true).is_empty());
    let a = fake.v2("a", Some(MIB), 0);
    assert_eq!(walked(&mut cgroups), ["/a"]);
    fake.v2("a/b", Some(MIB), 0);
    assert_eq!(walked(&mut cgroups), ["/a", "/a/b"]);
    fake.remove("a");
    assert!(cgroups.walk(true).is_empty());
    assert_eq!(cgroups.listed(a), None);
    assert_eq!(cgroups.by_id(a).unwrap().as_str(), "/a");
    assert_eq!(cgroups.unreadable(), 0);

    // As many as before: found through the one that has gone.
    fake.v2("c", Some(MIB), 0);
    assert_eq!(walked(&mut cgroups), ["/c"]);
    fake.v2("d", Some(MIB), 0);
    fake.remove("c");
    cgroups.walk(true);
    assert_eq!(walked(&mut cgroups), ["/d"]);

    // A limit that is set later.
    fake.v2("d", None, 0);
    assert!(cgroups.walk(true).is_empty());
    fake.v2("d", Some(0), 0);
    assert_eq!(walked(&mut cgroups), ["/d"]);
}

#[test]
fn memory_cgroups_are_looked_for_once_between_readings() {
    let fake = Fake::new("once", CgroupVersion::V1);
    fake.v1("", None, 0);
    let mut cgroups = fake.cgroups();
    cgroups.read();
    let a = fake.v1("a", None, 0);
    assert_eq!(cgroups.by_id(a).unwrap().as_str(), "/a");
    let b = fake.v1("b", None, 0);
    assert_eq!(cgroups.by_id(b), None);
    cgroups.read();
    assert_eq!(cgroups.by_id(b).unwrap().as_str(), "/b");
}

#[test]
fn memory_cgroups_beyond_the_most_are_counted() {
    let fake = Fake::new("most", CgroupVersion::V1);
    fake.v1("", None, 0);
    for name in ["a", "b", "c", "d", "a/deep", "b/deep"] {
        fake.v1(name, Some(MIB), 0);
    }
    let read = |most| {
        let mut cgroups = fake.at_most(most);
        (walked(&mut cgroups).len(), cgroups.left_out())
    };
    // The root, too, is one of them.
    assert_eq!(read(7), (6, 0));
    assert_eq!(read(6), (5, 1));
    assert_eq!(read(5), (4, 2));
    // Whether those left out have others below nobody has looked.
    let (listed, left_out) = read(3);
    assert_eq!(listed, 2);
    assert!(left_out >= 2, "{left_out}");
}

#[test]
fn memory_cgroups_that_cannot_be_read_are_counted() {
    let fake = Fake::new("unreadable", CgroupVersion::V2);
    fake.v2("good", Some(MIB), 0);
    fake.put("rubbish", &[("memory.max", "\u{1b}[2J")]);
    fake.put("no-bytes", &[("memory.max", "")]);
    fake.v2("strange", Some(MIB), 0);
    fake.put("strange", &[("memory.current", "many\n")]);
    fs::create_dir_all(fake.root.join("directory/memory.max")).unwrap();
    // Without the controller, which is nothing strange.
    fake.put("no-controller/below", &[("cgroup.procs", "")]);
    let mut cgroups = fake.cgroups();
    assert_eq!(walked(&mut cgroups), ["/good"]);
    assert_eq!(cgroups.unreadable(), 4);
}

#[test]
fn memory_cgroup_names_come_out_clean() {
    let fake = Fake::new("names", CgroupVersion::V2);
    let name = OsStr::from_bytes(b"a\x1b[31m\xff\n b");
    let id = fake.v2(name, Some(MIB), 0);
    let mut cgroups = fake.cgroups();
    let clean = "/a\u{fffd}[31m\u{fffd}\u{fffd} b";
    assert_eq!(walked(&mut cgroups), [clean]);
    assert_eq!(cgroups.by_id(id).unwrap().as_str(), clean);
}

#[test]
fn memory_cgroups_may_be_nowhere() {
    let mut cgroups = MemoryCgroups::of(None, 100);
    assert!(cgroups.version().is_none() && cgroups.read().is_empty());
    assert_eq!(cgroups.by_id(1), None);
}

#[test]
fn memory_amounts_are_in_bytes() {
    let text = "MemTotal:       24684084 kB\nMemFree:  21 kB\nMemAvailable: 22 kB\n\
                Buffers:  6216 kB\nSwapTotal:  10 kB\nSwapFree:  9 kB\n";
    let expected = HostMemory {
        total_bytes: 24_684_084 * 1024,
        available_bytes: 22 * 1024,
        free_bytes: 21 * 1024,
        swap_total_bytes: 10 * 1024,
        swap_free_bytes: 9 * 1024,
        oom_kills: None,
    };
    assert_eq!(meminfo(text), Ok(expected));
    assert_eq!(meminfo(""), Err("MemTotal:"));
    let rubbish = text.replace("10 kB", "18446744073709551615 kB");
    assert_eq!(meminfo(&rubbish), Err("SwapTotal:"));
    assert_eq!(meminfo(&text.replace(" 9 kB", "")), Err("SwapFree:"));
}

#[test]
fn memory_of_this_host_is_read() {
    let memory = host().unwrap();
    assert!(memory.total_bytes > MIB);
    assert!(memory.available_bytes <= memory.total_bytes);
    assert!(memory.free_bytes <= memory.total_bytes);
    assert!(memory.swap_free_bytes <= memory.swap_total_bytes);
}
