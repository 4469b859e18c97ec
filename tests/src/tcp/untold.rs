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

/// Notes transitions while a thread of process 1 is current, until it is dropped.
pub struct Untold {
    tracefs: PathBuf,
    instance: PathBuf,
}

impl Untold {
    /// Notes them from now on.
    pub fn watch() -> Self {
        let word = RandomState::new().build_hasher().finish();
        let tracefs = std::env::temp_dir().join(format!("tracefs-{word:x}"));
        must("a folder", fs::create_dir(&tracefs));
        must("tracefs", mount(&tracefs));
        let instance = tracefs.join(format!("instances/untold-{word:x}"));
        must("an instance of tracefs", fs::create_dir(&instance));
        let all = Self { tracefs, instance };
        let threads = must("threads", fs::read_dir("/proc/1/task"));
        let is_current = |entry: io::Result<fs::DirEntry>| {
            let id = entry.ok()?.file_name();
            Some(format!("common_pid == {}", id.to_string_lossy()))
        };
        let filter: Vec<String> = threads.filter_map(is_current).collect();
        all.write(&format!("{EVENT}/filter"), &filter.join(" || "));
        all.write(&format!("{EVENT}/enable"), "1");
        all
    }

    /// Those since the last call.
    pub fn take(&self) -> Transitions {
        let trace = must("a trace", fs::read_to_string(self.instance.join("trace")));
        self.write("trace", "");
        let mut all = Transitions::default();
        for line in trace.lines().filter(|line| line.contains("IPPROTO_TCP")) {
            if let (Some(from), Some(to)) = (state(line, "oldstate="), state(line, "newstate=")) {
                all.way(&[from, to], 1);
            }
        }
        all
    }

    fn write(&self, file: &str, text: &str) {
        must(file, fs::write(self.instance.join(file), text));
    }
}

impl Drop for Untold {
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
    let (_, rest) = line.split_once(key)?;
    rest.split_whitespace().next()?.strip_prefix("TCP_")
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
    }
}
