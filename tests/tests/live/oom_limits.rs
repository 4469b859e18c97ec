//! Limits of memory that tracer itself is under, and processes that the kernel has already
//! done with.

use std::{fs, io, ptr};

use serde_json::Value;
use tests::{
    lanes::Test,
    memory::MemoryCgroup,
    provoke::Workload,
    skip,
    tcp::seen::list,
    test,
    time::eventually,
    tracer::{command, output, run},
};

use crate::oom::MUCH_MEMORY;

pub(crate) const TESTS: &[Test] = &[
    test!(a_limit_that_is_too_small_is_an_error).contract(),
    test!(who_has_no_memory_left_to_free_is_not_next).needs(&[MUCH_MEMORY]),
];

/// tracer says why it cannot start, and how much it needs; the kernel kills nothing.
fn a_limit_that_is_too_small_is_an_error() {
    let cgroup = match MemoryCgroup::new("tracer-small", 48) {
        Ok(cgroup) => cgroup,
        Err(e) => skip!("a_limit_that_is_too_small_is_an_error", "{e}"),
    };
    for args in [&["run", "--count", "1"][..], &["doctor"]] {
        let mut tracer = command();
        cgroup.contain(tracer.args(args));
        let (status, stdout, stderr) = output(&mut tracer);
        println!("{args:?}: {status}: {stderr}");
        assert_eq!(status.code(), Some(1), "{args:?}");
        let said = format!("{stdout}{stderr}");
        assert!(
            said.contains(&cgroup.name) && said.contains("48 MiB"),
            "{said}"
        );
    }
    // A row that needs no hooks is still looked at.
    let mut check = command();
    cgroup.contain(check.args(["check", "--sample", "1s", "--format", "json"]));
    let (status, stdout, _) = output(&mut check);
    assert!(status.code().is_some(), "{status}");
    assert!(stdout.contains(&cgroup.name), "{stdout}");
    assert_eq!(cgroup.oom_kills(), 0);
    drop(cgroup);
    let cgroup = MemoryCgroup::new("tracer-enough", 96).expect("a cgroup");
    let mut tracer = command();
    cgroup.contain(tracer.args(["run", "--count", "1", "--interval", "200ms"]));
    let (status, _, stderr) = output(&mut tracer);
    assert!(status.success(), "{status}: {stderr}");
    assert_eq!(cgroup.oom_kills(), 0);
}

/// A victim that stops on its way out: the kernel has freed its memory (`MMF_OOM_SKIP`),
/// its score is 0, and it passes it over.
fn who_has_no_memory_left_to_free_is_not_next() {
    let cgroup = match MemoryCgroup::new("tracer-freed", 64) {
        Ok(cgroup) => cgroup,
        Err(e) => skip!("who_has_no_memory_left_to_free_is_not_next", "{e}"),
    };
    let victim = cgroup.holder(40, 1000);
    let beside = cgroup.holder(4, 500);
    let held = Held::at_its_end(&victim).expect("it can be traced");
    let mut trigger = cgroup.workload(&["eat", "36"]);
    trigger.go();
    let is_freed = || score(&victim) == Some(0);
    assert!(
        eventually(30.0, is_freed),
        "its score is {:?}",
        score(&victim)
    );
    let statm = fs::read_to_string(format!("/proc/{}/statm", victim.pid())).expect("it is there");
    assert!(!statm.starts_with("0 "), "it still has its memory: {statm}");
    let (status, text, stderr) = run(&["oom", "--next", "--format", "json", "--top", "1000"]);
    assert!(status.success(), "{stderr}");
    let mut lines = text
        .lines()
        .map(|l| serde_json::from_str::<Value>(l).expect("JSON"));
    let snapshot = lines
        .find(|line| line["type"] == "snapshot")
        .expect("a snapshot");
    let next = list(&snapshot["oom"]["next"]);
    let is_next = |of: &Workload| next.iter().any(|row| row["pid"] == of.pid());
    assert!(is_next(&beside), "it is listed: {next:?}");
    assert!(!is_next(&victim), "the kernel passes it over: {next:?}");
    drop(held);
}

/// Its score, as the kernel computes it.
fn score(process: &Workload) -> Option<i32> {
    let file = format!("/proc/{}/oom_score", process.pid());
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// A process that stops when it has been killed, before it gives its memory back.
struct Held(i32);

impl Held {
    fn at_its_end(process: &Workload) -> io::Result<Self> {
        let pid = process.pid().cast_signed();
        let options =
            ptr::without_provenance_mut::<libc::c_void>(libc::PTRACE_O_TRACEEXIT as usize);
        // SAFETY: touches no memory of this process.
        match unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, 0, options) } {
            0 => Ok(Self(pid)),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: waits for a stop without taking an end, and lets the process go on.
        unsafe {
            libc::waitpid(self.0, ptr::null_mut(), libc::WUNTRACED | libc::WNOHANG);
            libc::ptrace(libc::PTRACE_DETACH, self.0, 0, 0);
        }
    }
}
