//! `tracer check`: the rows of the network, the kernel, and kills for memory, with trouble
//! that is made on purpose.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    process::{self, Child, Stdio},
    thread,
    time::Duration,
};

use tests::{
    assert_near,
    check::Look,
    memory::MemoryCgroup,
    skip,
    tcp::netns::{Joined, Netns},
    time::{eventually, let_pass},
    tracer::command,
};

/// The length of a sample, in seconds: a SYN is sent again after 1 s, and from 6.5 on once
/// more each second (`tcp_syn_linear_timeouts`), which would be after its end.
const SAMPLE_S: f64 = 2.0;
/// Connections to nowhere.
const CONNECTIONS: u64 = 30;

/// A look that goes on; killed when dropped.
struct Running(Option<Child>);

impl Running {
    /// Starts it, and waits until it has read the counters of a namespace.
    fn start(row: &str, netns: &Netns) -> Self {
        let sample = format!("{SAMPLE_S}s");
        let child = command()
            .args(["check", "--format", "json", "--only", row])
            .args(["--sample", &sample])
            .stdout(Stdio::piped())
            .spawn()
            .expect("tracer starts");
        let inode = netns.inode().expect("its number");
        let pid = child.id();
        let running = Self(Some(child));
        // It holds every namespace open, and then reads the first counters.
        let has_it = || {
            let links = fs::read_dir(format!("/proc/{pid}/fd")).expect("it lives");
            let mut files = links
                .flatten()
                .filter_map(|link| fs::metadata(link.path()).ok());
            files.any(|file| file.ino() == inode)
        };
        assert!(eventually(5.0, has_it), "it opens namespace {inode}");
        let_pass(0.2);
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
    let text = netns.within(|| fs::read_to_string("/proc/thread-self/net/snmp"));
    let text = text.expect("snmp");
    names.map(|(prefix, name)| {
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(prefix));
        let mut words = || lines.next().expect(prefix).split_whitespace();
        let at = words().position(|word| word == name).expect(name);
        let number = words().nth(at).expect("a number");
        number.parse().expect("a number")
    })
}

/// Holds what a row says was added against the namespace's own counters. The row divides
/// by the seconds between its readings, which begin a little after the sample and end a
/// little after it: for that the figure may be off by a twentieth.
fn assert_added(look: &Look, name: &str, of: &str, expected: f64) {
    let added = look.figure("network", name, of) * SAMPLE_S;
    assert_near(name, added, expected, expected * 0.05);
}

/// SYNs that nobody answers are sent again. It is found in the namespace where that is,
/// with the counts of its own counters.
#[test]
fn segments_sent_again_are_found_in_their_namespace() {
    const TEST: &str = "segments_sent_again_are_found_in_their_namespace";
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
    let mut running = Running::start("network", near);
    let connect = |n: u64| {
        let to = SocketAddr::from((Ipv4Addr::new(198, 18, 0, n as u8 + 1), 9));
        TcpStream::connect_timeout(&to, Duration::from_millis(1_500))
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
    let (now, timed_out) = thread::scope(|scope| {
        let connections = scope.spawn(|| near.within(all));
        let sent_again = || counters(near, NAMES)[1] - before[1] >= CONNECTIONS as f64;
        assert!(eventually(5.0, sent_again), "{TEST}: SYNs are sent again");
        let now = counters(near, NAMES);
        let timed_out = connections.join().expect("no panic").expect("connections");
        (now, timed_out)
    });
    assert_eq!(timed_out, CONNECTIONS, "nobody answers");
    assert!(!running.is_over(), "the sample is long enough");
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
#[test]
fn datagrams_that_find_no_room_are_found() {
    const NAMES: [(&str, &str); 1] = [("Udp:", "RcvbufErrors")];
    let netns = match Netns::new() {
        Ok(netns) => netns,
        Err(e) => skip!("datagrams_that_find_no_room_are_found", "{e}"),
    };
    let name = format!("tracer-check-udp-{}", process::id());
    let netns = netns.named(&name).expect("a name");
    let before = counters(&netns, NAMES);
    let mut running = Running::start("network", &netns);
    let send = || {
        let deaf = UdpSocket::bind("127.0.0.1:0")?;
        let to = deaf.local_addr()?;
        let sender = UdpSocket::bind("127.0.0.1:0")?;
        // Whatever its buffer is, up to 8 MiB.
        for _ in 0..20_000 {
            sender.send_to(&[0; 1024], to)?;
        }
        Ok(())
    };
    netns.within(send).expect("datagrams");
    assert!(!running.is_over(), "the sample is long enough");
    let lost = counters(&netns, NAMES)[0] - before[0];
    assert!(lost > 0.0);
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
#[test]
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
#[test]
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
