//! A server in Python that forgets to close what its peers have closed, in threads.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    net::TcpStream,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use super::LEAK_PY;
use crate::time::wall_ns;

/// It runs until this is dropped.
pub struct Server {
    child: Child,
    _stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    port: u16,
}

impl Server {
    /// Starts it.
    ///
    /// # Errors
    /// There is no python3, or it ended at once.
    pub fn start() -> io::Result<Self> {
        let mut child = Command::new("python3")
            .args(["-c", LEAK_PY])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take().expect("it was asked for");
        let stdout = BufReader::new(child.stdout.take().expect("it was asked for"));
        let mut server = Self {
            child,
            _stdin: stdin,
            stdout,
            port: 0,
        };
        server.port = server.line()?.parse().map_err(io::Error::other)?;
        Ok(server)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stdout.read_line(&mut line)? == 0 {
            return Err(io::Error::other("it has ended"));
        }
        Ok(line.trim_end().to_owned())
    }

    /// Connects so many times, so many a second, sends some bytes each time that the
    /// server does not read, and closes: what `tcp-leak` says of them.
    pub fn leak(&mut self, count: u64, rate: u64, unread: usize) -> Value {
        let sockets: Vec<Value> = (0..count)
            .map(|_| {
                thread::sleep(Duration::from_secs(1) / rate as u32);
                self.leak_one(unread).expect("a connection")
            })
            .collect();
        json!({"pid": self.child.id(), "comm": "python3", "sockets": sockets})
    }

    fn leak_one(&mut self, unread: usize) -> io::Result<Value> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.write_all(b"r")?;
        // It has read that byte, and reads no more.
        let line = self.line()?;
        let fd: u32 = line
            .split(' ')
            .nth(1)
            .and_then(|word| word.parse().ok())
            .expect("a descriptor");
        stream.write_all(&vec![b'x'; unread])?;
        let (local, remote) = (stream.peer_addr()?, stream.local_addr()?);
        let closed_ns = wall_ns();
        drop(stream);
        let over_ns = wall_ns();
        Ok(json!({
            "fd": fd,
            "local": local.to_string(),
            "remote": remote.to_string(),
            "closed_ns": closed_ns,
            "over_ns": over_ns,
        }))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
