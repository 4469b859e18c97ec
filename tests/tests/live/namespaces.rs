//! Network namespaces that come and go while tracer looks into them.

use std::{fs, mem, net::TcpListener};

use tests::{
    lanes::Test,
    tcp::{
        netns::{Joined, Netns},
        seen,
    },
    test,
    time::eventually,
    tracer::Tracer,
};

pub(crate) const TESTS: &[Test] = &[test!(a_namespace_ends_though_tracer_knows_it)];

/// How long the kernel may take to end a namespace, in s. It takes milliseconds, on a busy
/// guest seconds. tracer looks for namespaces every 30 readings, which is after a minute here.
const ENDS_WITHIN_S: f64 = 20.0;
/// How long tracer may be inside of one, in s: it takes microseconds.
const INSIDE_S: f64 = 5.0;

/// A namespace that something holds keeps its devices: the other end of its cable goes when
/// it ends (`cleanup_net`, net/core/net_namespace.c).
fn a_namespace_ends_though_tracer_knows_it() {
    let mut tracer = Tracer::start(&["--interval", "2s"]);
    let mut joined = Joined::new().expect("two namespaces");
    let name = format!("tracer-ends-{}", std::process::id());
    joined.ends[1].give_name(&name).expect("a name");
    let inode = joined.ends[1].inode().expect("a number");
    let listener = joined.ends[1].within(|| TcpListener::bind("127.0.0.1:0"));
    let listener = listener.expect("a listener");
    let knows = |tracer: &mut Tracer| {
        let snapshot = tracer.snapshot();
        let listens = seen::states_within(&snapshot, inode).get("LISTEN").copied();
        listens == Some(1)
    };
    assert!((0..15).any(|_| knows(&mut tracer)), "tracer knows it");
    assert!(eventually(INSIDE_S, || !holds_one(tracer.pid())));

    drop(listener);
    let another = Netns::new().expect("another namespace");
    drop(mem::replace(&mut joined.ends[1], another));
    let is_there = || {
        let index = joined.ends[0].within(|| {
            // SAFETY: the name ends with a zero.
            Ok(unsafe { libc::if_nametoindex(c"cable0".as_ptr()) })
        });
        index.expect("the first end is still there") != 0
    };
    assert!(eventually(ENDS_WITHIN_S, || !is_there()), "it is held");
    tracer.finish();
}

/// Whether a descriptor of a process is a network namespace.
fn holds_one(pid: u32) -> bool {
    let all = fs::read_dir(format!("/proc/{pid}/fd")).expect("tracer runs");
    let mut links = all.filter_map(|one| fs::read_link(one.ok()?.path()).ok());
    links.any(|link| link.as_os_str().as_encoded_bytes().starts_with(b"net:["))
}
