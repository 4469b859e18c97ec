//! Connections of processes that have the same id one after the other, of a process before
//! and after execve, and of so many ports that no table holds them all.

use std::{
    io, mem,
    net::{TcpListener, TcpStream},
    process::{self, Command},
    thread,
    time::Duration,
};

use serde_json::json;

use super::{
    checked, must, name,
    socket::{self, Family},
};
use crate::pace::{paced, say};

/// Connections of the first process, and of the second.
pub const FIRST: u64 = 1;
/// See [`FIRST`].
pub const SECOND: u64 = 7;
/// Names of the first process and the second.
pub const HONEST: &str = "honest-first";
/// See [`HONEST`].
pub const INTRUDER: &str = "intruder-next";
/// Ids that are tried: another process may take one that was just free.
const TRIES: usize = 50;
/// Time between two connections of a service.
const PAUSE: Duration = Duration::from_millis(100);

/// `tcp-reused`: a process connects once and ends, and another one with its id connects
/// seven times. Says `{"pid","port"}`.
pub fn reused() {
    let listener = must("a listener", socket::listen(Family::V4));
    let port = must("its address", listener.local_addr()).port();
    paced(|| {
        let pid = (0..TRIES).find_map(|_| {
            let first = must("a process", fork(0, || connect(HONEST, port, FIRST)));
            reap(first);
            match fork(first, || connect(INTRUDER, port, SECOND)) {
                Ok(second) => {
                    reap(second);
                    Some(second)
                }
                Err(e) if e.raw_os_error() == Some(libc::EEXIST) => None,
                Err(e) => panic!("a process with the id {first}: {e}"),
            }
        });
        let pid = pid.expect("an id that nothing else took");
        say(&json!({"pid": pid, "port": port}).to_string());
    });
}

/// `tcp-exec`: a process connects once, runs another program, and connects seven times.
/// Says `{"pid","port"}`.
pub fn exec() {
    let listener = must("a listener", socket::listen(Family::V4));
    let port = must("its address", listener.local_addr()).port();
    let program = must("its program", std::env::current_exe());
    paced(|| {
        let pid = fork(0, || {
            connect(HONEST, port, FIRST)?;
            let (port, count) = (port.to_string(), SECOND.to_string());
            let mut command = Command::new(&program);
            let args = ["tcp-connect", INTRUDER, &port, &count];
            Err(std::os::unix::process::CommandExt::exec(command.args(args)))
        });
        let pid = must("a process", pid);
        reap(pid);
        say(&json!({"pid": pid, "port": port}).to_string());
    });
}

/// `tcp-connect NAME PORT COUNT`: connects so often, and ends.
pub fn connect_only(of_name: &str, port: u16, count: u64) {
    must("connections", connect(of_name, port, count));
}

/// `tcp-ports COUNT`: a connection to each of so many ports, then says `{"connections"}`.
pub fn ports(count: u64) {
    paced(|| {
        for _ in 0..count {
            let listener = must("a listener", socket::listen(Family::V4));
            let port = must("its address", listener.local_addr()).port();
            drop(must(
                "a connection",
                TcpStream::connect(("127.0.0.1", port)),
            ));
        }
        say(&json!({"connections": count}).to_string());
    });
}

/// `tcp-listeners COUNT`: so many sockets that listen, and a connection to the last of them,
/// until the input is closed. Says `{"pid","port"}` of that one.
pub fn listeners(count: u64) {
    must("descriptors", socket::allow_descriptors(count + 100));
    paced(|| {
        let all: Vec<TcpListener> = (0..count)
            .map(|_| must("a listener", socket::listen(Family::V4)))
            .collect();
        let last = all.last().expect("one at least");
        let port = must("its address", last.local_addr()).port();
        drop(must(
            "a connection",
            TcpStream::connect(("127.0.0.1", port)),
        ));
        drop(must("its other end", last.accept()));
        say(&json!({"pid": process::id(), "port": port}).to_string());
        // For as long as the process lives.
        mem::forget(all);
    });
}

/// `tcp-service NAME`: says `{"pid","port"}`, then connects ten times a second, until it is
/// killed.
pub fn service(of_name: &str) {
    name(of_name);
    let listener: TcpListener = must("a listener", socket::listen(Family::V4));
    let port = must("its address", listener.local_addr()).port();
    paced(|| {
        say(&json!({"pid": process::id(), "port": port}).to_string());
        loop {
            drop(must(
                "a connection",
                TcpStream::connect(("127.0.0.1", port)),
            ));
            drop(must("its other end", listener.accept()));
            thread::sleep(PAUSE);
        }
    });
}

fn connect(of_name: &str, port: u16, count: u64) -> io::Result<()> {
    name(of_name);
    for _ in 0..count {
        TcpStream::connect(("127.0.0.1", port))?;
    }
    Ok(())
}

/// A child that does this and ends; with an id of choice, or any where that is 0
/// (`clone3` with `set_tid`, from 5.5).
fn fork(id: i32, work: impl FnOnce() -> io::Result<()>) -> io::Result<i32> {
    // SAFETY: all zeros is a valid struct of integers.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.exit_signal = libc::SIGCHLD as u64;
    if id != 0 {
        args.set_tid = (&raw const id) as u64;
        args.set_tid_size = 1;
    }
    // SAFETY: without flags it is fork(2), and there is one thread; the kernel reads the
    // arguments before it returns.
    let pid = checked(unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw mut args,
            size_of::<libc::clone_args>(),
        ) as i32
    })?;
    if pid == 0 {
        let code = i32::from(work().is_err());
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(code) };
    }
    Ok(pid)
}

/// Waits until its id is free.
fn reap(pid: i32) {
    let mut status = 0;
    // SAFETY: the kernel writes the status.
    must(
        "its end",
        checked(unsafe { libc::waitpid(pid, &raw mut status, 0) }),
    );
    assert_eq!(status, 0, "process {pid} failed");
}
