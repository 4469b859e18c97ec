//! Transitions of which a host does not tell BPF programs.
//!
//! A host of 6.18 was seen to run no program at all while a thread of process 1, its
//! provider's agent there, is current: also not for a packet that an interrupt brings
//! meanwhile, and without counting it (`recursion_misses` in the program's fdinfo). The
//! kernel's own trace event of the same tracepoint is written all the same, so it says
//! which transitions those are. Where process 1 is like any other, programs see them too.

use std::{
    collections::hash_map::RandomState,
    ffi::CString,
    fs,
    hash::{BuildHasher as _, Hasher as _},
    io,
    path::{Path, PathBuf},
    ptr,
};

use super::{must, states::Transitions};

const EVENT: &str = "events/sock/inet_sock_set_state";
/// Room for what a test makes, for each CPU, in KiB: an event takes less than 100 bytes.
const ROOM_KB: &str = "32768";

/// Notes transitions while a thread of process 1 is current, until it is dropped.
pub struct Untold(Trace);

impl Untold {
    /// Notes them from now on.
    pub fn watch() -> Self {
        let threads = must("threads", fs::read_dir("/proc/1/task"));
        let is_current = |entry: io::Result<fs::DirEntry>| {
            let id = entry.ok()?.file_name();
            Some(format!("common_pid == {}", id.to_string_lossy()))
        };
        let filter: Vec<String> = threads.filter_map(is_current).collect();
        Self(Trace::begin(Some(&filter.join(" || "))))
    }

    /// Those since the last call.
    pub fn take(&self) -> Transitions {
        self.0.take(|_| true).0
    }
}

/// Notes all transitions, until it is dropped: others than the test's own make some too.
pub struct All(Trace);

impl All {
    /// Notes them from now on.
    pub fn watch() -> Self {
        Self(Trace::begin(None))
    }

    /// Those of sockets that have to do with one of these ports, and those of all others.
    pub fn of(&self, ports: &[u16]) -> (Transitions, Transitions) {
        self.0.take(|line| {
            let port = |key| word(line, key).and_then(|port| port.parse().ok());
            let mut ends = ["sport=", "dport="].into_iter().filter_map(port);
            ends.any(|port| ports.contains(&port))
        })
    }
}

/// The kernel's trace of the event.
struct Trace {
    tracefs: PathBuf,
    instance: PathBuf,
}

impl Trace {
    fn begin(filter: Option<&str>) -> Self {
        let word = RandomState::new().build_hasher().finish();
        let tracefs = std::env::temp_dir().join(format!("tracefs-{word:x}"));
        must("a folder", fs::create_dir(&tracefs));
        must("tracefs", mount(&tracefs));
        let instance = tracefs.join(format!("instances/untold-{word:x}"));
        must("an instance of tracefs", fs::create_dir(&instance));
        let trace = Self { tracefs, instance };
        match filter {
            Some(filter) => trace.write(&format!("{EVENT}/filter"), filter),
            None => trace.write("buffer_size_kb", ROOM_KB),
        }
        trace.write(&format!("{EVENT}/enable"), "1");
        trace
    }

    /// Transitions since the last call: of the lines that are wanted, and of the others.
    fn take(&self, is_wanted: impl Fn(&str) -> bool) -> (Transitions, Transitions) {
        let trace = must("a trace", fs::read_to_string(self.instance.join("trace")));
        self.write("trace", "");
        let counts = trace.lines().find_map(|line| {
            let (_, counts) = line.split_once("entries-in-buffer/entries-written: ")?;
            counts.split_whitespace().next()?.split_once('/')
        });
        let (kept, written) = counts.expect("a trace says how much of it there is");
        assert_eq!(kept, written, "the trace had no room");
        let (mut wanted, mut others) = (Transitions::default(), Transitions::default());
        for line in trace.lines().filter(|line| line.contains("IPPROTO_TCP")) {
            if let (Some(from), Some(to)) = (state(line, "oldstate="), state(line, "newstate=")) {
                let all = if is_wanted(line) {
                    &mut wanted
                } else {
                    &mut others
                };
                all.way(&[from, to], 1);
            }
        }
        (wanted, others)
    }

    fn write(&self, file: &str, text: &str) {
        must(file, fs::write(self.instance.join(file), text));
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // What is left of it does no harm.
        let _ = fs::write(self.instance.join(format!("{EVENT}/enable")), "0");
        let _ = fs::remove_dir(&self.instance);
        if let Ok(path) = CString::new(self.tracefs.as_os_str().as_encoded_bytes()) {
            // SAFETY: a text that ends with a zero and outlives the call.
            unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
        }
        let _ = fs::remove_dir(&self.tracefs);
    }
}

/// The state of `oldstate=TCP_FIN_WAIT1 newstate=TCP_FIN_WAIT2`, without its prefix.
fn state<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    word(line, key)?.strip_prefix("TCP_")
}

fn word<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(key)?;
    rest.split_whitespace().next()
}

fn mount(at: &Path) -> io::Result<()> {
    let at = CString::new(at.as_os_str().as_encoded_bytes())?;
    // SAFETY: the texts end with a zero and outlive the call.
    let done = unsafe {
        libc::mount(
            c"nodev".as_ptr(),
            at.as_ptr(),
            c"tracefs".as_ptr(),
            0,
            ptr::null(),
        )
    };
    match done {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_read_from_the_kernels_line() {
        let line = "tokio-75 [000] ..s1. 1.0: inet_sock_set_state: family=AF_INET \
                    protocol=IPPROTO_TCP sport=1 oldstate=TCP_FIN_WAIT1 newstate=TCP_FIN_WAIT2";
        assert_eq!(state(line, "oldstate="), Some("FIN_WAIT1"));
        assert_eq!(state(line, "newstate="), Some("FIN_WAIT2"));
        assert_eq!(state("", "newstate="), None);
        assert_eq!(word(line, "sport="), Some("1"));
    }
}
