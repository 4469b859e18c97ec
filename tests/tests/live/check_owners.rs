//! Who `tracer check` names, where the obvious answer is a wrong one: by evidence from
//! reports of others.

use std::{env, net::TcpStream, process};

use tests::{check::Look, lanes::Test, provoke::Workload, test};

pub(crate) const TESTS: &[Test] =
    &[test!(a_process_without_its_first_thread_is_named)
        .host("no kernel makes a difference to it")];

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
