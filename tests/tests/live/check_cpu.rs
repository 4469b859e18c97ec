//! `tracer check` of CPUs, processes and files: beside mpstat(1) and vmstat(8), and with
//! trouble that is made on purpose.

use std::{
    fs::{self, File},
    io,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
};

use tests::{
    assert_near,
    cgroup::Cgroup,
    check::Look,
    provoke::Workload,
    skip,
    time::{NS, eventually, let_pass, wall_ns},
};

/// Both look at the same 5 s, but tracer's begin once it has started, some 100 ms apart.
/// In those a CPU can be all busy or all idle at each end, so this much of a CPU's time
/// can differ; and a tick is 10 ms.
const APART: f64 = 0.08;

/// A child that is killed and reaped when the test ends, also when it fails.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The output of a program, or why it is not there.
fn output(mut command: Command) -> io::Result<String> {
    let output = command.env("LC_ALL", "C").output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The CPUs that this machine has online.
fn cpus() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Each CPU's parts are those of mpstat.
#[test]
fn cpus_are_those_of_mpstat() {
    let beside = thread::spawn(|| {
        let mut mpstat = Command::new("mpstat");
        mpstat.args(["-P", "ALL", "5", "1"]);
        output(mpstat)
    });
    let look = Look::now(&["--only", "cpu", "--sample", "5s"]);
    let Ok(text) = beside.join().expect("a thread") else {
        skip!("cpus_are_those_of_mpstat", "mpstat is not here");
    };
    let lines: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| line.starts_with("Average:"))
        .map(|line| line.split_whitespace().skip(1).collect())
        .collect();
    let (head, rows) = lines.split_first().expect("averages");
    assert_eq!(rows.len(), cpus() + 1, "{text}");
    for row in rows {
        let percent = |name: &str| -> f64 {
            let at = head.iter().position(|word| *word == name).expect(name);
            row[at].parse::<f64>().expect("a number") / 100.0
        };
        let of = match row[0] {
            "all" => String::new(),
            number => format!("cpu{number}"),
        };
        for (figure, names) in [
            ("cpu_user_ratio", &["%usr", "%guest"][..]),
            ("cpu_nice_ratio", &["%nice", "%gnice"]),
            ("cpu_system_ratio", &["%sys"]),
            ("cpu_iowait_ratio", &["%iowait"]),
            ("cpu_irq_ratio", &["%irq"]),
            ("cpu_softirq_ratio", &["%soft"]),
            ("cpu_steal_ratio", &["%steal"]),
            ("cpu_idle_ratio", &["%idle"]),
        ] {
            let expected = names.iter().map(|name| percent(name)).sum();
            let what = format!("{figure} of {:?}", row[0]);
            assert_near(&what, look.figure("cpu", figure, &of), expected, APART);
        }
    }
}

/// All CPUs together are those of vmstat, which has whole percents.
#[test]
fn all_cpus_are_those_of_vmstat() {
    let beside = thread::spawn(|| {
        let mut vmstat = Command::new("vmstat");
        vmstat.args(["5", "2"]);
        output(vmstat)
    });
    let look = Look::now(&["--only", "cpu", "--sample", "5s"]);
    let Ok(text) = beside.join().expect("a thread") else {
        skip!("all_cpus_are_those_of_vmstat", "vmstat is not here");
    };
    let lines: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let head = lines.get(1).expect("a head");
    let last = lines.last().expect("a line");
    let percent = |name: &str| -> f64 {
        let at = head.iter().rposition(|word| *word == name).expect(name);
        last[at].parse::<f64>().expect("a number") / 100.0
    };
    let figure = |name| look.figure("cpu", name, "");
    let near = |what, figure, name| assert_near(what, figure, percent(name), APART + 0.01);
    near(
        "user and nice",
        figure("cpu_user_ratio") + figure("cpu_nice_ratio"),
        "us",
    );
    near(
        "system and interrupts",
        figure("cpu_system_ratio") + figure("cpu_irq_ratio") + figure("cpu_softirq_ratio"),
        "sy",
    );
    near("idle", figure("cpu_idle_ratio"), "id");
    near("iowait", figure("cpu_iowait_ratio"), "wa");
    near("steal", figure("cpu_steal_ratio"), "st");
}

/// A process that may run on one CPU only keeps that one busy, and the other is idle.
#[test]
fn a_pinned_hog_is_named_with_its_cpu() {
    if cpus() < 2 {
        skip!("a_pinned_hog_is_named_with_its_cpu", "there is one CPU");
    }
    let mut hog = Workload::ready(&["hog", "1", "9000"]);
    // SAFETY: plain old data of ours, which the kernel reads.
    unsafe {
        let mut cpus: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(1, &mut cpus);
        let pid = hog.pid() as i32;
        assert_eq!(
            libc::sched_setaffinity(pid, size_of_val(&cpus), &raw const cpus),
            0
        );
    }
    hog.go();
    let look = Look::now(&["--only", "cpu", "--sample", "5s"]);
    assert!(look.figure("cpu", "cpu_busy_ratio", "cpu1") > 0.95);
    if look.figure("cpu", "cpu_imbalance_ratio", "") < 0.8 {
        skip!(
            "a_pinned_hog_is_named_with_its_cpu",
            "another program keeps the other CPU busy"
        );
    }
    let name = format!("provoke[{}]", hog.pid());
    let words = ["cpu1 is", &name, "one busy thread, may run only on CPU 1"];
    assert_eq!(look.found("cpu", &words), "warning");
}

/// A cgroup that wants a CPU and has a fifth of one.
#[test]
fn a_throttled_cgroup_is_named_with_its_process() {
    let cgroup = match Cgroup::new("check-throttled") {
        Ok(cgroup) => cgroup,
        Err(error) => skip!("a_throttled_cgroup_is_named_with_its_process", "{error}"),
    };
    if let Err(error) = cgroup.limit(20_000) {
        skip!("a_throttled_cgroup_is_named_with_its_process", "{error}");
    }
    let mut hog = Workload::ready_in(&["hog", "1", "9000"], &cgroup.directories());
    hog.go();
    let before = cgroup.throttled_ns();
    let look = Look::now(&["--only", "cpu", "--sample", "3s"]);
    assert!(cgroup.throttled_ns() > before);
    let name = format!("provoke[{}]", hog.pid());
    assert_eq!(look.found("cpu", &[&cgroup.name, &name]), "critical");
    let ratio = look.figure("cpu", "cgroup_throttled_ratio", &cgroup.name);
    // It wants all of each period, and the first and the last are cut.
    assert_near("throttled periods", ratio, 1.0, 0.1);
}

/// Children that nobody waits for are put on their parent.
#[test]
fn zombies_are_put_on_their_parent() {
    // `exec` replaces the shell by a program that waits for nobody.
    let script = "for i in $(seq 20); do true & done; exec sleep 60";
    let parent = Command::new("sh").args(["-c", script]).spawn();
    let parent = Killed(parent.expect("a shell"));
    let children = || {
        let path = format!("/proc/{0}/task/{0}/children", parent.0.id());
        let text = fs::read_to_string(path).unwrap_or_default();
        let is_zombie = |pid: &&str| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
            stat.is_ok_and(|stat| stat.contains(") Z "))
        };
        text.split_whitespace().filter(is_zombie).count()
    };
    assert!(eventually(5.0, || children() == 20), "{}", children());
    let look = Look::now(&["--only", "processes", "--sample", "1s"]);
    let words = format!("sleep[{}] has 20 zombies", parent.0.id());
    assert_eq!(look.found("processes", &[&words]), "warning");
    assert!(look.figure("processes", "zombies", "") >= 20.0);
}

/// Limits of a test, in a file that goes with it.
struct Config(PathBuf);

impl Config {
    fn new(text: &str) -> Self {
        let name = format!("tracer-check-cpu-{}.toml", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, text).expect("a file");
        Self(path)
    }
}

impl Drop for Config {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A task that was blocked before tracer came is found with its true age and its child.
#[test]
fn a_task_that_is_blocked_long_is_named_with_its_true_age() {
    let config = Config::new("[blocked_age_s]\nwarning = 1.0\n");
    let mut blocked = Workload::ready(&["vfork", "9000"]);
    blocked.go();
    // It says when it blocks.
    let began_ns: u64 = blocked.line().parse().expect("a time");
    let blocked_s = || (wall_ns() - began_ns) as f64 / NS;
    let_pass(3.0);
    let path = config.0.to_str().expect("UTF-8");
    let args = ["--only", "processes", "--sample", "2s", "--config", path];
    let before_s = blocked_s();
    let look = Look::now(&args);
    let after_s = blocked_s();
    let name = format!("provoke[{}]", blocked.pid());
    let words = [&name, "vfork", "waits for its child"];
    assert_eq!(look.found("processes", &words), "warning");
    let finding = look.finding("processes", &words).expect("found above");
    let who = finding["who"].as_array().expect("who").iter();
    let who = who
        .filter_map(|line| line.as_str())
        .find(|line| line.contains(&name));
    let who = who.expect("its line");
    let age = who
        .split(" for ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    let age: f64 = age.and_then(|s| s.parse().ok()).expect("seconds");
    println!("{age} s, blocked for {before_s:.2} s before the look, {after_s:.2} s after it");
    // 2 s of sample are in between, and the age has a digit behind its point.
    assert!(
        (before_s + 2.0 - 0.1..after_s + 0.1).contains(&age),
        "{age}"
    );
    assert!(look.figure("processes", "blocked_tasks", "") >= 1.0);
}

/// A process at 95 % of its descriptors.
#[test]
fn a_process_near_its_limit_of_descriptors_is_named() {
    const LIMIT: libc::rlim_t = 200;
    let mut command = Command::new("sleep");
    command.arg("60").stdin(Stdio::null());
    let null = File::open("/dev/null").expect("/dev/null");
    let lower_and_open = move || {
        use std::os::fd::AsRawFd as _;
        let limit = libc::rlimit {
            rlim_cur: LIMIT,
            rlim_max: LIMIT,
        };
        // SAFETY: plain old data of ours; these calls are safe between fork and exec.
        unsafe {
            if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) != 0 {
                return Err(io::Error::last_os_error());
            }
            // Three are open already: 190 in all. What dup makes outlives exec.
            for fd in 3..190 {
                if fd != null.as_raw_fd() && libc::dup2(null.as_raw_fd(), fd) < 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            libc::fcntl(null.as_raw_fd(), libc::F_SETFD, 0);
        }
        Ok(())
    };
    // SAFETY: the closure makes system calls only, and allocates nothing.
    unsafe { command.pre_exec(lower_and_open) };
    let full = Killed(command.spawn().expect("sleep"));
    let pid = full.0.id();
    // Until it sleeps it is a copy of this process, or loads its library.
    let sleeps = || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
        stat.is_ok_and(|stat| stat.contains("(sleep) S "))
    };
    assert!(eventually(5.0, sleeps));
    // What this process has inherited without knowing is among them.
    let count = fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors");
    let count = count.count();
    let look = Look::now(&["--only", "files", "--sample", "100ms"]);
    let name = format!("sleep[{pid}]");
    let words = format!("{name} {count} of {LIMIT} descriptors");
    assert_eq!(look.found("files", &[&words]), "critical");
    assert_near(
        "descriptors",
        look.figure("files", "descriptors_used_ratio", &name),
        count as f64 / LIMIT as f64,
        1e-9,
    );
    let open = fs::read_to_string("/proc/sys/fs/file-nr").expect("file-nr");
    let open: f64 = open
        .split_whitespace()
        .next()
        .expect("a number")
        .parse()
        .expect("one");
    // Other programs open and close meanwhile, tracer itself most of all.
    assert_near("file_nr", look.figure("files", "file_nr", ""), open, 1000.0);
}
