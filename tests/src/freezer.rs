//! A cgroup of v1 that freezes its tasks: from 6.1 they are in the state TASK_FROZEN
//! (kernel/freezer.c), which procfs shows as D, and which the load does not count.

use std::{
    ffi::CString,
    fs, io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    ptr,
};

use crate::time::eventually;

/// The file of a cgroup's processes.
const PROCESSES: &str = "cgroup.procs";

/// One, in a hierarchy that is mounted for it; both go when this is dropped.
pub struct Freezer {
    mount: PathBuf,
    directory: PathBuf,
}

impl Freezer {
    /// An empty one.
    ///
    /// # Errors
    /// The kernel has no freezer of v1.
    pub fn new() -> io::Result<Self> {
        let mount = std::env::temp_dir().join(format!("tracer-freezer-{}", std::process::id()));
        fs::create_dir(&mount)?;
        let freezer = Self {
            directory: mount.join("tracer-frozen"),
            mount,
        };
        mount_at(&freezer.mount)?;
        fs::create_dir(&freezer.directory)?;
        Ok(freezer)
    }

    /// Takes a process in.
    ///
    /// # Errors
    /// It has ended.
    pub fn take(&self, pid: u32) -> io::Result<()> {
        fs::write(self.directory.join(PROCESSES), pid.to_string())
    }

    /// Freezes its tasks, and waits until all are.
    pub fn freeze(&self) {
        let state = self.directory.join("freezer.state");
        let is_frozen = eventually(10.0, || {
            // A task that could not be frozen is tried again by the next write.
            fs::write(&state, "FROZEN").expect("it freezes");
            fs::read_to_string(&state).is_ok_and(|state| state.trim() == "FROZEN")
        });
        assert!(is_frozen, "not frozen");
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        // What is frozen cannot even be killed.
        let _ = fs::write(self.directory.join("freezer.state"), "THAWED");
        let tasks = fs::read_to_string(self.directory.join(PROCESSES)).unwrap_or_default();
        for pid in tasks.lines() {
            let _ = fs::write(self.mount.join(PROCESSES), pid);
        }
        let _ = fs::remove_dir(&self.directory);
        let mount = CString::new(self.mount.as_os_str().as_bytes()).expect("no zero in it");
        // SAFETY: a string that ends with a zero.
        unsafe { libc::umount2(mount.as_ptr(), libc::MNT_DETACH) };
        let _ = fs::remove_dir(&self.mount);
    }
}

fn mount_at(place: &Path) -> io::Result<()> {
    let place = CString::new(place.as_os_str().as_bytes())?;
    let (kind, options) = (c"cgroup", c"freezer");
    // SAFETY: strings that end with a zero, and live as long as the call.
    let result = unsafe {
        libc::mount(
            ptr::null(),
            place.as_ptr(),
            kind.as_ptr(),
            0,
            options.as_ptr().cast(),
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
