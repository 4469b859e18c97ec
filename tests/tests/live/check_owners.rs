//! Who `tracer check` names, where the obvious answer is a wrong one: by evidence from
//! reports of others.

use std::{
    env, fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process,
};

use tests::{
    check::Look,
    lanes::Test,
    provoke::Workload,
    tcp::{netns::Netns, socket},
    test,
};

pub(crate) const TESTS: &[Test] = &[
    test!(a_process_without_its_first_thread_is_named).host("no kernel makes a difference to it"),
    test!(who_holds_the_ports_of_a_destination_is_named).contract(),
    test!(ports_that_are_bound_before_connect_are_found).contract(),
];

/// Local ports of the namespaces here.
const RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// Blocks of 4 KiB: more than 100 MiB, from where on a deleted file is worth a warning.
const BLOCKS: &str = "26000";

/// The first thread of a process ended, and others go on: what they hold is theirs.
fn a_process_without_its_first_thread_is_named() {
    let path = env::temp_dir().join(format!("tracer-deleted-{}", process::id()));
    let path = path.to_str().expect("UTF-8");
    let holder = Workload::ready(&["first-thread-ends", "deleted", path, BLOCKS]);
    let mut server = Workload::ready(&["first-thread-ends", "tcp-listen", "v4", "5", "sleeps"]);
    server.go();
    let port: u16 = server.line().parse().expect("a port");
    let connect = |_| TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    let clients: Vec<_> = (0..6).map(connect).collect();

    let look = Look::now(&["--only", "sockets,deleted", "--sample", "200ms"]);
    let who = format!("[{}] fd", holder.pid());
    assert_eq!(look.found("deleted", &[&who, path]), "warning");
    let who = format!("[{}] does not accept", server.pid());
    let at = format!("0.0.0.0:{port}");
    assert_eq!(look.found("sockets", &[&at, &who]), "critical");
    drop(clients);
}

/// A namespace with 100 local ports, and what `work` made there; a process keeps it.
fn with_few_ports<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> (Netns, Workload, T) {
    let netns = Netns::new().expect("a namespace");
    let inside = || Ok(Workload::ready(&["sleepers", "0"]));
    let inside = netns.within(inside).expect("a process");
    let made = netns.within(|| {
        fs::write(RANGE, "20000 20099")?;
        work()
    });
    (netns, inside, made.expect("connections"))
}

fn own_name() -> String {
    let comm = fs::read_to_string("/proc/self/comm").expect("a name");
    format!("{}[{}]", comm.trim_end(), process::id())
}

/// Evidence 54: connections of one process take all ports, and nothing is in TIME_WAIT. A
/// process elsewhere closes connections first.
fn who_holds_the_ports_of_a_destination_is_named() {
    let mut innocent = Workload::ready(&["tcp-closers", "client", "20"]);
    innocent.go();
    let (netns, _inside, _held) = with_few_ports(|| {
        let server = TcpListener::bind("127.0.0.1:9000")?;
        let connect = |_| Ok((TcpStream::connect("127.0.0.1:9000")?, server.accept()?));
        let held: io::Result<Vec<_>> = (0..95).map(connect).collect();
        Ok((held?, server))
    });
    let look = Look::now(&["--only", "sockets", "--sample", "500ms"]);
    let at = format!("@net:[{}]", netns.inode().expect("a number"));
    let what = format!("95 of 100 local ports are in use towards 127.0.0.1:9000{at}");
    let finding = look.finding("sockets", &[&what]);
    let finding = finding.unwrap_or_else(|| panic!("{}", look.row("sockets")));
    println!("{finding}");
    assert_eq!(finding["who"][0], format!("{} holds 95", own_name()));
    assert_eq!(finding["who"].as_array().map(Vec::len), Some(1));
    assert!(!finding.to_string().contains("TIME_WAIT"));
}

/// Evidence 55: each connection goes elsewhere, and no port is left all the same.
fn ports_that_are_bound_before_connect_are_found() {
    const DESTINATIONS: u8 = 10;
    let (netns, _inside, _held) = with_few_ports(|| {
        let address = |end| IpAddr::from(Ipv4Addr::new(127, 0, 1, end));
        let listen = |end| TcpListener::bind((address(end), 80));
        let servers: io::Result<Vec<_>> = (1..=DESTINATIONS).map(listen).collect();
        let servers = servers?;
        let from = IpAddr::from(Ipv4Addr::LOCALHOST);
        let to = |i: usize| SocketAddr::new(address(1 + (i % 10) as u8), 80);
        let connect = |i| socket::bind_and_connect(from, to(i));
        let held: io::Result<Vec<_>> = (0..100).map(connect).collect();
        let held = held?;
        let refused = connect(100).expect_err("no port is left");
        assert_eq!(refused.raw_os_error(), Some(libc::EADDRINUSE));
        Ok((held, servers))
    });
    let look = Look::now(&["--only", "sockets", "--sample", "200ms"]);
    let at = format!("@net:[{}]", netns.inode().expect("a number"));
    let what = format!("100 of 100 local ports are bound on 127.0.0.1{at}");
    let who = format!("{} holds 100", own_name());
    assert_eq!(
        look.found("sockets", &[&what, &who, "EADDRINUSE"]),
        "critical"
    );
}
