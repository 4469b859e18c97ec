//! Who `tracer check` names, where the obvious answer is a wrong one: by evidence from
//! reports of others.

use std::{
    env,
    fs::{self, File},
    io::{self, Read as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{self, Command, Stdio},
};

use tests::{
    check::Look,
    lanes::Test,
    provoke::Workload,
    tcp::{netns::Netns, socket},
    test,
    time::eventually,
};

pub(crate) const TESTS: &[Test] = &[
    test!(a_process_without_its_first_thread_is_named).host("no kernel makes a difference to it"),
    test!(who_holds_the_ports_of_a_destination_is_named).contract(),
    test!(ports_that_are_bound_before_connect_are_found).contract(),
    test!(a_stopped_process_is_why_nobody_accepts),
    test!(a_cgroup_at_its_limit_of_tasks_is_found),
    test!(a_full_file_system_of_another_namespace_is_found).host("busybox has another unshare"),
    test!(a_deleted_image_is_held_by_its_loop_device).host("guests have no loop devices"),
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

/// A server that was stopped: that is said, and how it goes on.
fn a_stopped_process_is_why_nobody_accepts() {
    let mut server = Workload::ready(&["tcp-listen", "v4", "5", "accepts"]);
    server.go();
    let port: u16 = server.line().parse().expect("a port");
    let pid = server.pid();
    // SAFETY: touches no memory.
    unsafe { libc::kill(pid as i32, libc::SIGSTOP) };
    // Until it has stopped it accepts.
    let is_stopped = || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
        stat.is_ok_and(|stat| stat.contains(") T "))
    };
    assert!(eventually(10.0, is_stopped), "it is stopped");
    let connect = |_| TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    let clients: Vec<_> = (0..6).map(connect).collect();
    let at = format!("0.0.0.0:{port}");
    let who = format!("[{pid}] is stopped (state T): `kill -CONT {pid}`");
    // Beside other tests a look once knew the process behind no socket; why is not known.
    let is_found = || {
        let look = Look::now(&["--only", "sockets", "--sample", "200ms"]);
        look.finding("sockets", &[&at, &who]).is_some()
    };
    assert!(eventually(20.0, is_found), "{at} {who}");
    drop(clients);
}

/// Where the hierarchy with the pids controller is.
fn pids_hierarchy() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").ok()?;
    let mount = |kind: &str, option: &str| {
        mounts.lines().find_map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let [_, point, its, options, ..] = words[..] else {
                return None;
            };
            let has = option.is_empty() || options.split(',').any(|one| one == option);
            (its == kind && has).then(|| PathBuf::from(point))
        })
    };
    mount("cgroup", "pids").or_else(|| mount("cgroup2", ""))
}

/// As many tasks as pids.max says: the next fork fails.
fn a_cgroup_at_its_limit_of_tasks_is_found() {
    const NAME: &str = "a_cgroup_at_its_limit_of_tasks_is_found";
    let name = format!("tracer-pids-{}", process::id());
    let Some(cgroup) = pids_hierarchy().map(|root| root.join(&name)) else {
        return println!("SKIPPED {NAME}: no pids controller");
    };
    fs::create_dir(&cgroup).expect("a cgroup");
    if fs::write(cgroup.join("pids.max"), "9").is_err() {
        fs::remove_dir(&cgroup).expect("an empty cgroup");
        return println!("SKIPPED {NAME}: no pids controller is on");
    }
    let mut crowd = Workload::ready_in(&["crowd", "8"], &[]);
    fs::write(cgroup.join("cgroup.procs"), crowd.pid().to_string()).expect("it can be moved");
    for pid in tests::processes::descendants(crowd.pid()) {
        fs::write(cgroup.join("cgroup.procs"), pid.to_string()).expect("it can be moved");
    }
    let look = Look::now(&["--only", "processes", "--sample", "200ms"]);
    let what = format!("cgroup /{name} has 9 tasks of the 9 it may (pids.max)");
    let verdict = look
        .found("processes", &[&what, "provoke: 9 processes"])
        .to_owned();
    crowd.go();
    crowd.end();
    let is_gone = || fs::remove_dir(&cgroup).is_ok();
    assert!(eventually(10.0, is_gone), "the cgroup is empty");
    assert_eq!(verdict, "critical");
}

/// Evidence 56: a tmpfs that no other namespace has.
fn a_full_file_system_of_another_namespace_is_found() {
    let place = env::temp_dir().join(format!("tracer-shm-{}", process::id()));
    fs::create_dir_all(&place).expect("a directory");
    let script = "mount --make-rprivate / && mount -t tmpfs -o size=4m shm \"$1\" \
        && { dd if=/dev/zero of=\"$1/full\" bs=1M 2>/dev/null; echo full; exec sleep 60; }";
    let mut inside = Command::new("unshare")
        .args(["-m", "sh", "-c", script, "sh"])
        .arg(&place)
        .stdout(Stdio::piped())
        .spawn()
        .expect("unshare runs");
    let mut said = [0; 5];
    inside
        .stdout
        .as_mut()
        .expect("a pipe")
        .read_exact(&mut said)
        .expect("it is full");
    let look = Look::now(&["--only", "disks", "--sample", "200ms"]);
    let whose = format!("{} of sleep[{}] is full", place.display(), inside.id());
    let whose_sh = whose.replace("sleep[", "sh[");
    let finding = look
        .finding("disks", &[&whose])
        .or(look.finding("disks", &[&whose_sh]));
    let finding = finding
        .unwrap_or_else(|| panic!("{}", look.row("disks")))
        .clone();
    inside.kill().expect("it can be ended");
    inside.wait().expect("it ends");
    fs::remove_dir_all(&place).expect("the directory goes");
    assert_eq!(finding["verdict"], "critical");
}

/// Evidence 51: the image is deleted, and the kernel has it open.
fn a_deleted_image_is_held_by_its_loop_device() {
    const NAME: &str = "a_deleted_image_is_held_by_its_loop_device";
    let image = env::temp_dir().join(format!("tracer-image-{}", process::id()));
    let file = File::create(&image).expect("an image");
    file.set_len(200 << 20).expect("its length");
    let losetup = |args: &[&str]| Command::new("losetup").args(args).output();
    let path = image.to_str().expect("UTF-8");
    let attached = losetup(&["-f", "--show", path]).expect("losetup runs");
    fs::remove_file(&image).expect("it can be deleted");
    if !attached.status.success() {
        let why = String::from_utf8_lossy(&attached.stderr).into_owned();
        return println!("SKIPPED {NAME}: {why}");
    }
    let device = String::from_utf8(attached.stdout).expect("text");
    let device = device.trim();
    let look = Look::now(&["--only", "deleted", "--sample", "200ms"]);
    losetup(&["-d", device]).expect("losetup runs");
    let name = device.trim_start_matches("/dev/");
    let who = format!("{name} holds up to 200.0 MiB, without a process: deleted {path}");
    assert_eq!(look.found("deleted", &[&who]), "warning");
}
