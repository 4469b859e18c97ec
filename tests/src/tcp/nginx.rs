//! An nginx with a short `keepalive_timeout`.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use crate::time::eventually;

/// Requests are answered and connections kept, for a second.
const CONFIGURATION: &str = "
daemon off;
worker_processes 2;
user root;
pid @/pid;
error_log stderr crit;
events {}
http {
    access_log off;
    keepalive_timeout 1s;
    client_body_temp_path @/body;
    proxy_temp_path @/proxy;
    fastcgi_temp_path @/fastcgi;
    uwsgi_temp_path @/uwsgi;
    scgi_temp_path @/scgi;
    server {
        listen 127.0.0.1:PORT backlog=4096;
        location / { return 200 ok; }
    }
}
";
/// What it answers ends so.
const END: &[u8] = b"\r\n\r\nok";

/// It runs until this is dropped.
pub struct Nginx {
    child: Child,
    folder: PathBuf,
    port: u16,
}

impl Nginx {
    /// Starts it.
    ///
    /// # Errors
    /// There is none on this machine.
    pub fn start() -> io::Result<Self> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, "TRACER_NGINX names none");
        let program = std::env::var_os("TRACER_NGINX").ok_or_else(missing)?;
        let folder = std::env::temp_dir().join(format!("tracer-nginx-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        // Free a moment ago.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let configuration = folder.join("nginx.conf");
        let text = CONFIGURATION
            .replace('@', &folder.display().to_string())
            .replace("PORT", &port.to_string());
        fs::write(&configuration, text)?;
        let child = Command::new(program)
            .arg("-p")
            .arg(&folder)
            .arg("-c")
            .arg(&configuration)
            .stdin(Stdio::null())
            .spawn()?;
        let nginx = Self {
            child,
            folder,
            port,
        };
        let answers = || nginx.workers().len() == 2 && nginx.connect().is_ok();
        assert!(eventually(10.0, answers), "nginx does not answer");
        Ok(nginx)
    }

    /// Process id of the one that listens first.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Process ids of those that accept.
    pub fn workers(&self) -> Vec<u32> {
        let path = format!("/proc/{0}/task/{0}/children", self.pid());
        let children = fs::read_to_string(path).unwrap_or_default();
        let pids = children.split_whitespace();
        pids.filter_map(|pid| pid.parse().ok()).collect()
    }

    /// A connection on which a request was answered.
    ///
    /// # Errors
    /// It does not answer.
    pub fn connect(&self) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
        let mut answer = Vec::new();
        while !answer.ends_with(END) {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            answer.extend(byte);
        }
        Ok(stream)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let pid = self.child.id().cast_signed();
        // SAFETY: touches no memory; the child has not been waited for.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}
