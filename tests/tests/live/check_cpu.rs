//! `tracer check` of CPUs, processes and files: beside mpstat(1) and vmstat(8), and with
//! trouble that is made on purpose.

use std::{
    fs::{self, File},
    io,
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
    thread,
};

use tests::{
    assert_near,
    cgroup::Cgroup,
    check::{Config, Look},
    lanes::Test,
    provoke::Workload,
    schedstat, skip, test,
    time::{NS, eventually, let_pass, monotonic_ns, wall_ns},
};

const FEW_NAMED: &str = "a row names the first few of the host";
pub(crate) const TESTS: &[Test] = &[
    test!(cpus_are_those_of_mpstat_and_vmstat)
        .host("guests have neither")
        .serial("it is of the CPUs of the host"),
    test!(a_pinned_hog_is_named_with_its_cpu)
        .host("the host under a guest has no CPU to spare")
        .serial("the other CPU is idle"),
    test!(a_throttled_cgroup_is_named_with_its_process),
    test!(zombies_are_put_on_their_parent).host("no kernel makes a difference to it"),
    test!(a_task_that_is_blocked_long_is_named_with_its_true_age).serial(FEW_NAMED),
    test!(a_process_near_its_limit_of_descriptors_is_named)
        .host("no kernel makes a difference to it")
        .serial("it counts the open files of the host"),
];

/// So much of a CPU's time the other program may see differently, at most: more are two
/// looks that began too far apart.
const MOST_APART: f64 = 0.08;
/// Times that the CPUs are looked at, until two looks begin close enough.
const LOOKS: usize = 5;

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

/// A look of 5 s, with what mpstat and vmstat say of 5 s of the same time, and how far
/// apart they can be.
///
/// All three begin and end within a time that is measured. Of it each leaves out what is
/// over 5 s, in which a CPU may have been all busy or all idle; and a tick is 10 ms.
fn looks() -> (Look, io::Result<String>, io::Result<String>, f64) {
    const SAMPLE_S: f64 = 5.0;
    let beside = |program: &str, args: &[&str]| {
        let mut command = Command::new(program);
        command.args(args);
        thread::spawn(|| output(command))
    };
    let began_ns = monotonic_ns();
    let mpstat = beside("mpstat", &["-P", "ALL", "5", "1"]);
    let vmstat = beside("vmstat", &["5", "2"]);
    let look = Look::now(&["--only", "cpu", "--sample", "5s"]);
    let [mpstat, vmstat] = [mpstat, vmstat].map(|one| one.join().expect("a thread"));
    let within_s = (monotonic_ns() - began_ns) as f64 / NS;
    let apart = (within_s - SAMPLE_S) / SAMPLE_S + 0.01;
    println!("looked within {within_s:.3} s: {apart:.3} apart at most");
    (look, mpstat, vmstat, apart)
}

/// Each CPU's parts are those of mpstat, and all together those of vmstat, which look at the
/// same seconds.
fn cpus_are_those_of_mpstat_and_vmstat() {
    let mut seen = looks();
    for _ in 1..LOOKS {
        if seen.3 <= MOST_APART {
            break;
        }
        seen = looks();
    }
    let (look, mpstat, vmstat, apart) = seen;
    if mpstat.is_err() && vmstat.is_err() {
        skip!(
            "cpus_are_those_of_mpstat_and_vmstat",
            "neither mpstat nor vmstat is here"
        );
    }
    match mpstat {
        Ok(text) => assert_as_mpstat(&look, &text, apart),
        Err(error) => println!("no mpstat: {error}"),
    }
    match vmstat {
        Ok(text) => assert_as_vmstat(&look, &text, apart),
        Err(error) => println!("no vmstat: {error}"),
    }
}

fn assert_as_mpstat(look: &Look, text: &str, apart: f64) {
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
            assert_near(&what, look.figure("cpu", figure, &of), expected, apart);
        }
    }
}

/// It has whole percents.
fn assert_as_vmstat(look: &Look, text: &str, apart: f64) {
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
    let near = |what, figure, name| assert_near(what, figure, percent(name), apart + 0.01);
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
fn a_pinned_hog_is_named_with_its_cpu() {
    if cpus() < 2 {
        skip!("a_pinned_hog_is_named_with_its_cpu", "there is one CPU");
    }
    let mut hog = Workload::ready(&["hog", "1", "9000"]);
    hog.go();
    // Before it spins it gives itself all CPUs.
    let spins = || schedstat::of_process(hog.pid()).0 > 50_000_000;
    assert!(eventually(5.0, spins), "it spins");
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
    let look = Look::now(&["--only", "cpu", "--sample", "3s"]);
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

/// A cgroup that wants a CPU and has a tenth of one: less than it gets beside others.
fn a_throttled_cgroup_is_named_with_its_process() {
    let cgroup = match Cgroup::new("check-throttled") {
        Ok(cgroup) => cgroup,
        Err(error) => skip!("a_throttled_cgroup_is_named_with_its_process", "{error}"),
    };
    if let Err(error) = cgroup.limit(10_000) {
        skip!("a_throttled_cgroup_is_named_with_its_process", "{error}");
    }
    let mut hog = Workload::ready_in(&["hog", "1", "60000"], &cgroup.directories());
    hog.go();
    let before = (cgroup.throttled_ns(), cgroup.periods());
    let look = Look::now(&["--only", "cpu", "--sample", "3s"]);
    let after = (cgroup.throttled_ns(), cgroup.periods());
    assert!(after.0 > before.0);
    let name = format!("provoke[{}]", hog.pid());
    let words = [&*cgroup.name, "its CPU limit of 0.10 CPUs", &name];
    assert_eq!(look.found("cpu", &words), "critical");
    let ratio = look.figure("cpu", "cgroup_throttled_ratio", &cgroup.name);
    // It wants all of each period, and the first and the last are cut. Where others want
    // the CPUs too it may not get its tenth in each: the kernel says in how many it did.
    let [all, throttled] = [0, 1].map(|i| (after.1[i] - before.1[i]) as f64);
    println!("throttled in {throttled} of {all} periods by the kernel's count");
    assert_near("throttled periods", ratio, throttled / all, 0.1);
}

/// Children that nobody waits for are put on their parent.
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

/// A task that was blocked before tracer came is found with its true age and its child.
fn a_task_that_is_blocked_long_is_named_with_its_true_age() {
    let config = Config::of("[blocked_age_s]\nwarning = 1.0\n");
    let mut blocked = Workload::ready(&["vfork", "60000"]);
    blocked.go();
    // It says when it blocks.
    let began_ns: u64 = blocked.line().parse().expect("a time");
    let blocked_s = || (wall_ns() - began_ns) as f64 / NS;
    // Tracer comes late.
    let_pass(1.5);
    let path = config.path();
    let args = ["--only", "processes", "--sample", "1s", "--config", path];
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
    // 1 s of sample is in between, and the age has a digit behind its point.
    assert!(
        (before_s + 1.0 - 0.1..after_s + 0.1).contains(&age),
        "{age}"
    );
    assert!(look.figure("processes", "blocked_tasks", "") >= 1.0);
}

/// A process at 95 % of its descriptors.
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
