//! `tracer check` on CPUs, processes and descriptors: beside mpstat(1) and vmstat(8) over the
//! same seconds, and with trouble that is made on purpose.

use std::{
    fs::File,
    io, mem,
    process::{Child, Command},
    thread,
};

use tests::{
    assert_near,
    cgroup::Cgroup,
    check::{Config, Look},
    provoke::Workload,
    skip,
};

/// What a program says, run beside a look.
fn beside(program: &str, args: &[&str], look: &[&str]) -> (String, Look) {
    thread::scope(|scope| {
        let theirs = scope.spawn(|| Command::new(program).args(args).env("LC_ALL", "C").output());
        let look = Look::now(look);
        let theirs = theirs.join().expect("a thread").expect("it runs");
        (String::from_utf8(theirs.stdout).expect("text"), look)
    })
}

/// A process on one CPU alone.
fn pinned(cpu: usize, ms: u64) -> io::Result<Workload> {
    let mut hog = Workload::ready(&["hog", "1", &ms.to_string()]);
    // SAFETY: a set of CPUs is an array of integers, for which zeros are valid.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: the set is ours, and has room for all CPUs.
    let done = unsafe {
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(
            hog.pid() as i32,
            size_of::<libc::cpu_set_t>(),
            &raw const set,
        )
    };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    hog.go();
    Ok(hog)
}

/// Each CPU's time is what mpstat says of the same seconds.
#[test]
fn cpu_time_is_that_of_mpstat() {
    let _hog = match pinned(1, 5_000) {
        Ok(hog) => hog,
        Err(e) => skip!("cpu_time_is_that_of_mpstat", "there is no second CPU: {e}"),
    };
    let (mpstat, look) = beside(
        "mpstat",
        &["-P", "0,1", "2", "1"],
        &["--only", "cpu", "--sample", "2s"],
    );
    for cpu in ["0", "1"] {
        let average = mpstat
            .lines()
            .filter_map(|line| line.strip_prefix("Average:"));
        let words = average.map(|line| line.split_whitespace().collect::<Vec<_>>());
        let words = words.clone().find(|words| words.first() == Some(&cpu));
        let words = words.unwrap_or_else(|| panic!("no CPU {cpu}: {mpstat}"));
        // %usr, %sys, %idle; the two begin some ms apart.
        for (at, name) in [
            (1, "cpu_user_ratio"),
            (3, "cpu_system_ratio"),
            (10, "cpu_idle_ratio"),
        ] {
            let theirs = words[at].parse::<f64>().expect("a number") / 100.0;
            let ours = look.figure("cpu", name, &format!("cpu{cpu}"));
            assert_near(&format!("{name} of {cpu}"), ours, theirs, 0.1);
        }
    }
}

/// r is what vmstat says of the same seconds.
#[test]
fn runnable_tasks_are_those_of_vmstat() {
    let mut hogs = Workload::ready(&["hog", "6", "5000"]);
    hogs.go();
    let (vmstat, look) = beside("vmstat", &["1", "4"], &["--only", "load", "--sample", "3s"]);
    // The first line is of another time; each other one is of one moment, and counts
    // vmstat itself.
    let rows = vmstat.lines().skip(3);
    let r: Vec<f64> = rows
        .filter_map(|line| line.split_whitespace().next()?.parse().ok())
        .collect();
    let mean = r.iter().sum::<f64>() / r.len() as f64;
    let ours = look.figure("load", "procs_running_mean", "");
    assert_near("r", ours, mean, 2.0);
    assert!(ours >= 5.0);
}

/// One CPU at its end, another idle: who may run on it alone is named.
#[test]
fn a_pinned_process_is_found() {
    let hog = match pinned(1, 5_000) {
        Ok(hog) => hog,
        Err(e) => skip!("a_pinned_process_is_found", "there is no second CPU: {e}"),
    };
    let look = Look::now(&["--only", "cpu", "--sample", "2s"]);
    let who = format!("provoke[{}]", hog.pid());
    let words = ["CPU 1 is", &who, "may run on 1 only"];
    assert_eq!(look.found("cpu", &words), "warning");
}

/// A cgroup that wants more than its limit.
#[test]
fn a_throttled_cgroup_is_found() {
    let cgroup = match Cgroup::new("tracer-checked") {
        Ok(cgroup) => cgroup,
        Err(e) => skip!("a_throttled_cgroup_is_found", "no cpu cgroup: {e}"),
    };
    cgroup.limit(20_000).expect("a limit");
    let mut hog = Workload::ready_in(&["hog", "1", "4000"], &cgroup.directories());
    hog.go();
    let look = Look::now(&["--only", "cpu", "--sample", "2s"]);
    let words = ["tracer-checked", "held by its CPU limit"];
    assert_eq!(look.found("cpu", &words), "critical");
}

struct Zombies(Vec<Child>);

impl Drop for Zombies {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.wait();
        }
    }
}

/// Children that nobody waits for are their parent's.
#[test]
fn zombies_are_found_with_their_parent() {
    let children = (0..20).map(|_| Command::new("true").spawn().expect("a child"));
    let _zombies = Zombies(children.collect());
    let look = Look::now(&["--only", "processes", "--sample", "500ms"]);
    let who = format!("[{}] has 20 zombies", std::process::id());
    assert_eq!(look.found("processes", &[&who]), "warning");
}

/// A task that is blocked, with what for and since when.
#[test]
fn a_blocked_task_is_found() {
    let mut blocked = Workload::ready(&["vfork", "4000"]);
    blocked.go();
    let config =
        Config::of("[blocked_age_s]\nwarning = 0.5\n[blocked_tasks_mean]\nwarning = 0.9\n");
    let args = [
        "--only",
        "processes,load",
        "--sample",
        "2s",
        "--config",
        config.path(),
    ];
    let look = Look::now(&args);
    let who = format!("provoke[{}]", blocked.pid());
    assert_eq!(look.found("processes", &[&who, "vfork"]), "warning");
    assert_eq!(
        look.found("load", &[&who, "blocked 1.00 on vfork"]),
        "warning"
    );
}

/// Gives the limit back at its end.
struct Descriptors(libc::rlimit, Vec<File>);

impl Descriptors {
    fn limited(to: u64, open: usize) -> io::Result<Self> {
        let mut before = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: the kernel fills in the struct, which is ours.
        unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut before) };
        let files = (0..open).map(|_| File::open("/dev/null"));
        let files = files.collect::<io::Result<_>>()?;
        let limit = libc::rlimit {
            rlim_cur: to,
            ..before
        };
        // SAFETY: the struct is ours.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
        Ok(Self(before, files))
    }
}

impl Drop for Descriptors {
    fn drop(&mut self) {
        // SAFETY: the struct is ours.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const self.0) };
        self.1.clear();
    }
}

/// A process that can hardly open another file.
#[test]
fn a_process_near_its_limit_of_descriptors_is_found() {
    let full = Descriptors::limited(512, 490).expect("files");
    let look = Look::now(&["--only", "files", "--sample", "100ms"]);
    drop(full);
    let who = format!("[{}] 49", std::process::id());
    assert_eq!(
        look.found("files", &[&who, "of 512 descriptors"]),
        "critical"
    );
    let file_nr = std::fs::read_to_string("/proc/sys/fs/file-nr").expect("file-nr");
    let now: f64 = file_nr
        .split_whitespace()
        .next()
        .expect("a word")
        .parse()
        .expect("a number");
    // The 490 have gone; others come and go.
    assert_near(
        "file-nr",
        look.figure("files", "file_nr", ""),
        now + 490.0,
        400.0,
    );
}
