//! `tracer check`: the rows of the network, the kernel, and kills for memory, with trouble
//! that is made on purpose.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    os::unix::fs::OpenOptionsExt as _,
    process::{self, Child, Stdio},
    thread,
    time::Duration,
};

use tests::{
    assert_near,
    check::Look,
    lanes::Test,
    memory::MemoryCgroup,
    skip,
    tcp::netns::{Joined, Netns},
    test,
    time::{NS, eventually, host_or_guest},
    tracer::{command, number},
};

pub(crate) const TESTS: &[Test] = &[
    test!(segments_sent_again_are_found_in_their_namespace),
    test!(datagrams_that_find_no_room_are_found),
    test!(a_kill_for_memory_is_found).serial("a row names the latest kills of the host"),
    test!(a_forged_message_is_not_believed),
];

/// The length of a sample, in seconds: what is provoked must be over at its end.
fn sample_s() -> f64 {
    host_or_guest(3.0, 6.0)
}

/// So long somebody connects to nowhere: a SYN is sent again after 1 s, and from 6.5 on once
/// more each second (`tcp_syn_linear_timeouts`).
const CONNECT_MS: u64 = 1_800;
/// Connections to nowhere.
const CONNECTIONS: u64 = 30;

/// A look that goes on; killed when dropped.
struct Running(Option<Child>);

impl Running {
    /// Starts it, and waits until it has read the counters of all namespaces.
    fn start(row: &str) -> Self {
        let sample = format!("{}s", sample_s());
        let child = command()
            .args(["check", "--format", "json", "--only", row])
            .args(["--sample", &sample])
            .stdout(Stdio::piped())
            .spawn()
            .expect("tracer starts");
        let pid = child.id();
        let running = Self(Some(child));
        // It reads the first counters of every namespace, and then sleeps for the length of
        // the sample.
        let is_asleep = |task: fs::DirEntry| {
            let call = fs::read_to_string(task.path().join("syscall")).unwrap_or_default();
            call.split(' ').next() == Some(&libc::SYS_clock_nanosleep.to_string())
        };
        let sleeps = || {
            let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it lives");
            tasks.flatten().any(is_asleep)
        };
        assert!(eventually(60.0, sleeps), "it watches");
        running
    }

    fn is_over(&mut self) -> bool {
        let child = self.0.as_mut().expect("it was not ended yet");
        child.try_wait().expect("a child").is_some()
    }

    fn end(mut self) -> Look {
        let child = self.0.take().expect("it was not ended yet");
        let output = child.wait_with_output().expect("its output");
        assert!(output.status.success(), "{}", output.status);
        Look(serde_json::from_slice(&output.stdout).expect("one JSON object"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Counters of a namespace, as its own /proc/net/snmp has them.
fn counters<const N: usize>(netns: &Netns, names: [(&str, &str); N]) -> [f64; N] {
    let text = netns.within(|| fs::read_to_string(SNMP));
    of_snmp(&text.expect("snmp"), names)
}

/// Counters of the namespace that the thread is in.
const SNMP: &str = "/proc/thread-self/net/snmp";

fn of_snmp<const N: usize>(text: &str, names: [(&str, &str); N]) -> [f64; N] {
    names.map(|(prefix, name)| {
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(prefix));
        let mut words = || lines.next().expect(prefix).split_whitespace();
        let at = words().position(|word| word == name).expect(name);
        let number = words().nth(at).expect("a number");
        number.parse().expect("a number")
    })
}

/// Holds what a row says was added against the namespace's own counters. The row divides
/// by the seconds between its readings: those are at least the sample's, and at most all
/// that the look took.
fn assert_added(look: &Look, name: &str, of: &str, expected: f64) {
    let a_second = look.figure("network", name, of);
    let [sample_s, took_s] = ["sample_ns", "took_ns"].map(|name| number(&look.0[name]) / NS);
    let seconds = expected / a_second;
    println!("{name}: {expected} within {seconds:.3} s, of {sample_s:.3} to {took_s:.3}");
    // The sample began a little before the first reading.
    assert!(
        (sample_s * 0.95..=took_s).contains(&seconds),
        "{name}: {a_second} a second are not {expected} within {sample_s} to {took_s} s"
    );
}

/// SYNs that nobody answers are sent again. It is found in the namespace where that is,
/// with the counts of its own counters.
fn segments_sent_again_are_found_in_their_namespace() {
    const NAMES: [(&str, &str); 2] = [("Tcp:", "OutSegs"), ("Tcp:", "RetransSegs")];
    let mut joined = match Joined::new() {
        Ok(joined) => joined,
        Err(e) => skip!("segments_sent_again_are_found_in_their_namespace", "{e}"),
    };
    joined.knows_strangers(0).expect("a route");
    let forwards = "/proc/sys/net/ipv4/ip_forward";
    let name = format!("tracer-check-{}", process::id());
    let other = format!("{name}-far");
    for (end, name) in joined.ends.iter_mut().zip([&name, &other]) {
        end.give_name(name).expect("a name");
    }
    let [near, far] = &joined.ends;
    far.within(|| fs::write(forwards, "0")).expect("a setting");

    let before = counters(near, NAMES);
    let mut running = Running::start("network");
    let connect = |n: u64| {
        let to = SocketAddr::from((Ipv4Addr::new(198, 18, 0, n as u8 + 1), 9));
        TcpStream::connect_timeout(&to, Duration::from_millis(CONNECT_MS))
    };
    let all = || {
        let refused = thread::scope(|scope| {
            let threads: Vec<_> = (0..CONNECTIONS)
                .map(|n| scope.spawn(move || connect(n)))
                .collect();
            let ends = threads.into_iter().map(|one| one.join().expect("no panic"));
            ends.filter(|end| {
                end.as_ref()
                    .is_err_and(|e| e.kind() == io::ErrorKind::TimedOut)
            })
            .count() as u64
        });
        Ok(refused)
    };
    let timed_out = near.within(all).expect("connections");
    assert_eq!(timed_out, CONNECTIONS, "nobody answers");
    // Nobody tries any more.
    let now = counters(near, NAMES);
    assert!(!running.is_over(), "the sample is long enough");
    let sent_again = now[1] - before[1];
    assert!(sent_again >= CONNECTIONS as f64, "SYNs are sent again");
    let look = running.end();

    let (out, again) = (now[0] - before[0], now[1] - before[1]);
    assert_added(&look, "tcp_out_segments_per_s", &name, out);
    assert_added(&look, "tcp_retransmits_per_s", &name, again);
    // Of the same two readings, so the seconds do not matter.
    let ratio = look.figure("network", "tcp_retransmits_ratio", &name);
    assert_near("ratio", ratio, (again / out).min(1.0), 1e-9);
    let again = format!("{again} TCP segments were sent again beside {out} new ones");
    let whose = format!("network namespace {name}");
    assert_eq!(look.found("network", &[&again, &whose]), "critical");
    // Nobody sends from there.
    let ratio = look.figure("network", "tcp_retransmits_ratio", &other);
    assert_near("at the other end", ratio, 0.0, 0.0);
}

/// Datagrams that a process does not read are found.
fn datagrams_that_find_no_room_are_found() {
    const NAMES: [(&str, &str); 1] = [("Udp:", "RcvbufErrors")];
    const LOST: f64 = 1_000.0;
    let netns = match Netns::new() {
        Ok(netns) => netns,
        Err(e) => skip!("datagrams_that_find_no_room_are_found", "{e}"),
    };
    let name = format!("tracer-check-udp-{}", process::id());
    let netns = netns.named(&name).expect("a name");
    let before = counters(&netns, NAMES);
    let mut running = Running::start("network");
    let send = || {
        let deaf = UdpSocket::bind("127.0.0.1:0")?;
        let to = deaf.local_addr()?;
        let sender = UdpSocket::bind("127.0.0.1:0")?;
        // Until its buffer is full, whatever its size.
        let mut lost = 0.0;
        while lost < LOST {
            for _ in 0..100 {
                sender.send_to(&[0; 1024], to)?;
            }
            let [now] = of_snmp(&fs::read_to_string(SNMP)?, NAMES);
            lost = now - before[0];
        }
        Ok(lost)
    };
    let lost = netns.within(send).expect("datagrams");
    assert!(!running.is_over(), "the sample is long enough");
    let look = running.end();
    assert_added(&look, "udp_receive_drops_per_s", &name, lost);
    let verdict = look.found("network", &["found no room", &name]);
    assert_eq!(verdict, "warning");
}

/// `oom_kill` of /proc/vmstat.
fn kills_since_boot() -> Option<f64> {
    let text = fs::read_to_string("/proc/vmstat").expect("vmstat");
    let mut lines = text.lines();
    lines.find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok())
}

/// A real kill from before the look is found: who, and which cgroup was at its limit.
fn a_kill_for_memory_is_found() {
    let cgroup = match MemoryCgroup::new("tracer-check-oom", 32) {
        Ok(cgroup) => cgroup,
        Err(e) => skip!(
            "a_kill_for_memory_is_found",
            "no cgroup with a limit of memory: {e}"
        ),
    };
    let mut eater = cgroup.workload(&["eat", "200"]);
    eater.go();
    assert_eq!(eater.line(), "", "it is killed");
    assert!(eventually(5.0, || cgroup.oom_kills() == 1));
    let before = kills_since_boot();
    let look = Look::now(&["--only", "oom", "--sample", "500ms"]);
    let after = kills_since_boot();
    let who = format!("provoke[{}]", eater.pid());
    let where_ = format!("in {} at its limit of 32.0 MiB", cgroup.name);
    assert_eq!(look.found("oom", &[&who, &where_, " ago: "]), "critical");
    let age_s = look.figure("oom", "oom_kill_age_s", "");
    assert!((0.0..60.0).contains(&age_s), "{age_s}");
    let kills = look.figure("oom", "oom_kills", "");
    if let (Some(before), Some(after)) = (before, after) {
        // Others may be killed meanwhile.
        assert!((before..=after).contains(&kills), "{kills}");
    }
}

/// Whether a process's message is in the kernel's log, with its priority.
fn logged(text: &str) -> io::Result<Option<String>> {
    let mut options = OpenOptions::new();
    let mut log = options
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/kmsg")?;
    let mut buffer = vec![0; 8192];
    loop {
        match log.read(&mut buffer) {
            Ok(n) => {
                let record = String::from_utf8_lossy(&buffer[..n]);
                if record.contains(text) {
                    return Ok(record.split(',').next().map(str::to_owned));
                }
            }
            Err(e) if e.raw_os_error() == Some(libc::EPIPE) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(e) => return Err(e),
        }
    }
}

/// What a process writes to the kernel's log is not the kernel's.
fn a_forged_message_is_not_believed() {
    let token = format!("tracer-check:{}", process::id());
    let text = format!("INFO: task {token} blocked for more than 120 seconds.");
    let hung = |look: &Look| look.figure("kernel", "kernel_hung_task_messages", "");
    let before = Look::now(&["--only", "kernel", "--sample", "100ms"]);
    let log = OpenOptions::new().write(true).open("/dev/kmsg");
    let written = log.and_then(|mut log| log.write_all(format!("<3>{text}\n").as_bytes()));
    if let Err(e) = written {
        skip!("a_forged_message_is_not_believed", "/dev/kmsg: {e}");
    }
    let priority = logged(&text).expect("the log");
    // LOG_USER (1) and KERN_ERR (3).
    assert_eq!(priority.as_deref(), Some("11"));
    let after = Look::now(&["--only", "kernel", "--sample", "100ms"]);
    assert!(after.finding("kernel", &[&token]).is_none());
    // A task that really hangs meanwhile would be another one's.
    assert_near("hung tasks", hung(&after), hung(&before), 0.0);
    let unseen = after.row("kernel")["unseen"].as_array().expect("a list");
    assert!(unseen.is_empty(), "the log was read: {unseen:?}");
}
