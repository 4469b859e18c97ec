//! `tracer check` beside the kernel's own figures, and with trouble that is made on purpose.
//! Rows have files of their own: check_disks.rs and so on.

use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    net::{TcpListener, TcpStream},
    os::unix::process::CommandExt as _,
    process::Command,
};

use serde_json::Value;
use tests::{
    assert_near,
    check::{Config, Look},
    lanes::Test,
    memory::MemoryCgroup,
    provoke::Workload,
    skip,
    tcp::netns::Netns,
    test,
    tracer::{output, run},
};

pub(crate) const TESTS: &[Test] = &[
    test!(memory_is_that_of_free)
        .host("busybox has another free")
        .serial("it is of the host's memory"),
    test!(sockets_are_those_of_ss)
        .host("busybox has no ss")
        .serial("it counts the sockets of the host"),
    test!(forgotten_sockets_are_found),
    test!(a_full_listen_queue_is_found).contract(),
    test!(ports_that_are_used_up_are_found),
    test!(a_cgroup_near_its_limit_is_found),
    test!(the_status_is_what_was_asked_for).host("no kernel makes a difference to it"),
    test!(without_rights_it_does_what_it_can),
];

/// The numbers after a line's first word.
fn numbers(text: &str, word: &str) -> Vec<f64> {
    let mut lines = text.lines();
    let line = lines.find_map(|line| line.trim_start().strip_prefix(word));
    let line = line.unwrap_or_else(|| panic!("no {word}: {text}"));
    line.split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect()
}

/// Memory is what free(1) says.
fn memory_is_that_of_free() {
    let free = || {
        let output = Command::new("free").arg("-b").output().expect("free runs");
        String::from_utf8(output.stdout).expect("text")
    };
    let look = Look::now(&["--only", "memory", "--sample", "100ms"]);
    let free = numbers(&free(), "Mem:");
    for (at, name) in [
        (0, "memory_total_bytes"),
        (2, "memory_free_bytes"),
        (4, "memory_buff_cache_bytes"),
        (5, "memory_available_bytes"),
    ] {
        // What the processes in between take.
        let changed = if at == 0 { 0.0 } else { 64.0 * 1024.0 * 1024.0 };
        assert_near(name, look.figure("memory", name, ""), free[at], changed);
    }
}

/// Sockets by state are those of ss(8).
fn sockets_are_those_of_ss() {
    let _idle = Workload::ready(&["tcp-idle", "100"]);
    let ss = || -> BTreeMap<String, f64> {
        let output = Command::new("ss").args(["-Htan"]).output();
        let output = output.expect("ss runs");
        let text = String::from_utf8(output.stdout).expect("text");
        let mut states = BTreeMap::new();
        for line in text.lines() {
            let state = line.split_whitespace().next().expect("a state");
            *states.entry(state.to_owned()).or_default() += 1.0;
        }
        states
    };
    let look = Look::now(&["--only", "sockets", "--sample", "200ms"]);
    let ss = ss();
    for (theirs, ours) in [("ESTAB", "ESTABLISHED"), ("LISTEN", "LISTEN")] {
        let figure = look.figure("sockets", "tcp_sockets_of_netns", ours);
        // Other programs of the host connect and close in between.
        assert_near(ours, figure, ss[theirs], 4.0);
        assert!(theirs != "ESTAB" || figure >= 200.0);
    }
}

/// Sockets that were forgotten before anybody looked.
fn forgotten_sockets_are_found() {
    let mut leak = Workload::ready(&["tcp-leak", "before", "50", "200", "0"]);
    leak.go();
    let said: Value = serde_json::from_str(&leak.line()).expect("JSON");
    let config = Config::of("[close_wait_age_s]\nwarning = 0.2\n");
    let look = Look::now(&[
        "--only",
        "sockets",
        "--sample",
        "2s",
        "--config",
        config.path(),
    ]);
    let who = format!("leaker[{}]", said["pid"]);
    let verdict = look.found("sockets", &[&who, "50 sockets in CLOSE_WAIT", "fd "]);
    assert_eq!(verdict, "warning");
}

/// A process that accepts nobody.
fn a_full_listen_queue_is_found() {
    let mut server = Workload::ready(&["tcp-listen", "v4", "5", "sleeps"]);
    server.go();
    let port: u16 = server.line().parse().expect("a port");
    let clients: Vec<_> = (0..6)
        .map(|_| TcpStream::connect(("127.0.0.1", port)).expect("a connection"))
        .collect();
    let look = Look::now(&["--only", "sockets,syn", "--sample", "1s"]);
    let at = format!("0.0.0.0:{port}");
    let who = format!("[{}] does not accept", server.pid());
    let words = ["6 connections wait for accept", &at, &who];
    assert_eq!(look.found("sockets", &words), "critical");
    let who = format!("[{}]", server.pid());
    assert_eq!(look.found("syn", &["slow accept", &at, &who]), "warning");
    drop(clients);
}

/// A small range of ports in a namespace, nearly all of it in TIME_WAIT.
fn ports_that_are_used_up_are_found() {
    const PORTS: usize = 100;
    let netns = Netns::new().expect("a namespace");
    // A namespace is found by a process in it.
    let inside = || Ok(Workload::ready(&["sleepers", "0"]));
    let _inside = netns.within(inside).expect("a process");
    let use_up = || {
        fs::write("/proc/sys/net/ipv4/ip_local_port_range", "20000 20099")?;
        fs::write("/proc/sys/net/ipv4/tcp_tw_reuse", "0")?;
        let server = TcpListener::bind("127.0.0.1:9000")?;
        for _ in 0..PORTS * 95 / 100 {
            let client = TcpStream::connect("127.0.0.1:9000")?;
            let (accepted, _) = server.accept()?;
            drop(client);
            // Until the peer's FIN is here.
            assert_eq!((&accepted).read(&mut [0])?, 0);
        }
        Ok(server)
    };
    let _server = netns.within(use_up).expect("connections");
    let look = Look::now(&["--only", "sockets", "--sample", "200ms"]);
    let at = format!("@net:[{}]", netns.inode().expect("a number"));
    let ratio = look.figure("sockets", "local_ports_used_ratio", &at);
    assert_near("ports in use", ratio, 0.95, 0.0);
    let words = ["95 of 100 local ports", "127.0.0.1:9000", &at];
    assert_eq!(look.found("sockets", &words), "critical");
}

/// A cgroup that has nearly all that it may.
fn a_cgroup_near_its_limit_is_found() {
    let cgroup = match MemoryCgroup::new("tracer-check", 64) {
        Ok(cgroup) => cgroup,
        Err(e) => skip!("a_cgroup_near_its_limit_is_found", "no memory cgroup: {e}"),
    };
    // Its program and page tables take another MiB or two.
    let _holder = cgroup.holder(58, 0);
    println!("{} bytes in use", cgroup.usage_bytes());
    let look = Look::now(&["--only", "memory", "--sample", "200ms"]);
    let words = ["is at 9", "of its limit", &cgroup.name];
    assert_eq!(look.found("memory", &words), "warning");
}

/// What the command says by its status, and the limits as a file.
fn the_status_is_what_was_asked_for() {
    // However much load there is, it is worth a warning, and no more.
    let config = Config::of("[load1_per_cpu]\nwarning = 0.0\ncritical = 1e9\n");
    let args = ["check", "--only", "load", "--sample", "100ms", "--config"];
    let args = [&args[..], &[config.path()]].concat();
    for (fail_on, status) in [(None, 0), (Some("warning"), 1), (Some("critical"), 0)] {
        let mut args = args.clone();
        args.extend(fail_on.iter().flat_map(|fail_on| ["--fail-on", fail_on]));
        assert_eq!(run(&args).0.code(), Some(status), "{fail_on:?}");
    }
    let printed = run(&["check", "--print-config"]).1;
    let config = Config::of(&printed);
    assert_eq!(
        run(&["check", "--print-config", "--config", config.path()]).1,
        printed
    );
    let wrong = Config::of("[load_per_cpu]\nwarning = 1.0\n");
    let (status, _, stderr) = run(&["check", "--config", wrong.path()]);
    assert_eq!(status.code(), Some(1));
    assert!(
        stderr.contains("there is no limit \"load_per_cpu\""),
        "{stderr}"
    );
    assert_eq!(run(&["check", "--only", "memori"]).0.code(), Some(2));
}

/// Without rights it looks at what it may, and says what it could not see.
fn without_rights_it_does_what_it_can() {
    const NOBODY: u32 = 65534;
    let path = std::env::var_os("TRACER_BIN").expect("TRACER_BIN");
    // nobody cannot look into the build's folder: the program is handed over open.
    let copy = std::env::temp_dir().join(format!("tracer-check-{}", std::process::id()));
    fs::copy(path, &copy).expect("a copy");
    let mut command = Command::new(&copy);
    command.args(["check", "--sample", "200ms", "--format", "json"]);
    command.uid(NOBODY).gid(NOBODY).current_dir("/");
    let (status, stdout, stderr) = output(&mut command);
    fs::remove_file(&copy).expect("the copy goes");
    assert_eq!(status.code(), Some(0), "{stderr}");
    let look = Look(serde_json::from_str(&stdout).expect("JSON"));
    for row in ["load", "oom", "sockets", "syn"] {
        let unseen = look.row(row)["unseen"].to_string();
        assert!(unseen.contains("not enough rights"), "{row}: {unseen}");
    }
    assert!(look.figure("memory", "memory_total_bytes", "") > 0.0);
    assert!(look.figure("load", "load1", "") >= 0.0);
}
