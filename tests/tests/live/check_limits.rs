//! Limits of the kernel that are used up, as `tracer check` sees them.

use std::{
    fs::{self, File},
    path::PathBuf,
};

use tests::{
    assert_near,
    check::{Config, Look},
    known::numbers,
    lanes::{Test, VDB},
    limits::Limited,
    provoke::Workload,
    skip,
    sysctl::Sysctl,
    tcp::{netns::Netns, tracked::track},
    test,
    time::{NS, eventually, monotonic_ns},
};

pub(crate) const TESTS: &[Test] = &[
    test!(a_table_of_connections_that_is_nearly_full_is_found),
    // Nobody else asks for inotify meanwhile.
    test!(inotify_that_is_used_up_is_found),
    test!(a_page_cache_that_is_too_small_is_found)
        .host("a guest has no disk that is quick enough")
        // Beside another that writes much, lines of the shared tracer were dropped once.
        .needs(&[VDB]),
];

/// Nobody's, so that nobody else uses up its share.
const UID: u32 = 54_321;

/// A directory with so many empty files; it goes when it is dropped.
struct Files(PathBuf);

impl Files {
    fn new(count: usize) -> Self {
        let path = std::env::temp_dir().join(format!("tracer-watched-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory");
        for n in 0..count {
            File::create(path.join(n.to_string())).expect("a file");
        }
        Self(path)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A user who has as many instances and watches of inotify as the kernel gives.
fn inotify_that_is_used_up_is_found() {
    const INSTANCES: f64 = 24.0;
    const WATCHES: f64 = 60.0;
    let files = Files::new(100);
    let directory = files.0.to_str().expect("UTF-8");
    let mut user = Workload::ready(&["inotify-all", &UID.to_string(), directory]);
    let _instances = Sysctl::set("fs.inotify.max_user_instances", INSTANCES).expect("a limit");
    let _watches = Sysctl::set("fs.inotify.max_user_watches", WATCHES).expect("a limit");
    user.go();
    // It says how many it had when the kernel refused the next.
    assert_eq!(numbers(&user.line()), [INSTANCES as u64, WATCHES as u64]);
    let look = Look::now(&["--only", "files", "--sample", "100ms"]);
    let of = UID.to_string();
    for (name, noun, most) in [
        ("inotify_instances", "instances", INSTANCES),
        ("inotify_watches", "watches", WATCHES),
    ] {
        // Nobody else is this user, so it is exact.
        assert_near(name, look.figure("files", name, &of), most, 0.0);
        let what = format!("user {of} has {most} of {most} inotify {noun}");
        let who = format!("provoke[{}] {most} {noun}", user.pid());
        assert_eq!(look.found("files", &[&what, &who]), "critical");
    }
}

/// A namespace with as many tracked connections as the table hardly holds. The limit is the
/// host's own: one that is lowered would have others' packets dropped.
fn a_table_of_connections_that_is_nearly_full_is_found() {
    let number = |name: &str| -> Option<u32> {
        let path = format!("/proc/sys/net/netfilter/nf_conntrack_{name}");
        fs::read_to_string(path).ok()?.trim().parse().ok()
    };
    let Some(most) = number("max") else {
        skip!(
            "a_table_of_connections_that_is_nearly_full_is_found",
            "this kernel has no nf_conntrack"
        );
    };
    if most > 1_000_000 {
        skip!(
            "a_table_of_connections_that_is_nearly_full_is_found",
            "{most} connections take too long to make"
        );
    }
    let netns = Netns::new().expect("a namespace");
    let name = format!("tracer-check-{}", std::process::id());
    let netns = netns.named(&name).expect("a name");
    let tracked = netns.within(|| {
        track(most / 100 * 85)?;
        number("count").ok_or_else(|| std::io::Error::other("no count"))
    });
    let tracked = match tracked {
        Ok(tracked) => tracked,
        Err(e) => skip!(
            "a_table_of_connections_that_is_nearly_full_is_found",
            "no entries by netlink: {e}"
        ),
    };
    let look = Look::now(&["--only", "sockets", "--sample", "200ms"]);
    let at = format!("@{name}");
    let ratio = look.figure("sockets", "conntrack_used_ratio", &at);
    // Nobody else is in the namespace, and no entry ends meanwhile.
    let expected = f64::from(tracked) / f64::from(most);
    assert_near("connections", ratio, expected, 1e-9);
    let what = format!("tracked connections{at}");
    assert_eq!(look.found("sockets", &[&what]), "warning");
}

/// A file is read again and again in a cgroup that has room for a half of it.
fn a_page_cache_that_is_too_small_is_found() {
    let cgroup = match Limited::memory("tracer-cache", 32 << 20) {
        Ok(cgroup) => cgroup,
        Err(error) => skip!("a_page_cache_that_is_too_small_is_found", "{error}"),
    };
    let refaulted = || {
        let stat = fs::read_to_string(cgroup.directory().join("memory.stat")).ok()?;
        let mut lines = stat.lines();
        let count = lines.find_map(|line| {
            line.trim_start_matches("total_")
                .strip_prefix("workingset_refault_file ")
        });
        count?.parse::<u64>().ok()
    };
    let Some(_) = refaulted() else {
        skip!(
            "a_page_cache_that_is_too_small_is_found",
            "the kernel does not count them"
        );
    };
    let args = ["reclaim", "12000", "64", "/var/tmp"];
    let mut reader = Workload::ready_in(&args, &[cgroup.directory()]);
    reader.go();
    // The file is written first.
    let is_read_again = || refaulted().is_some_and(|pages| pages > 0);
    assert!(eventually(8.0, is_read_again), "nothing was read again");
    let (before, began) = (refaulted(), monotonic_ns());
    // A tenth of what any disk of a host reads, so that it is found on a busy one too.
    let config = Config::of("[cgroup_refault_pages_per_s]\nwarning = 200\n");
    let look = Look::now(&[
        "--only",
        "memory",
        "--sample",
        "2s",
        "--config",
        config.path(),
    ]);
    let seconds = (monotonic_ns() - began) as f64 / NS;
    let count = refaulted()
        .zip(before)
        .map_or(0, |(now, before)| now - before);
    let name = cgroup.directory().file_name().expect("a name");
    let path = format!("/{}", name.to_string_lossy());
    let per_s = look.figure("memory", "cgroup_refault_pages_per_s", &path);
    println!("{count} pages in {seconds:.2} s by the kernel's count");
    // It was counted around the look, which is longer than the sample.
    assert!(per_s > 0.0 && per_s * 2.0 <= count as f64 * 1.05);
    let name = format!("provoke[{}]", reader.pid());
    let words = [&*path, "again and again", "32.0 MiB", &name];
    assert_eq!(look.found("memory", &words), "warning");
}
