//! The memory controller on a hierarchy of cgroup v1, where a host has it on the
//! unified one.

use std::{ffi::CString, fs, io, path::Path};

use crate::time::eventually;

const V1: &str = "/sys/fs/cgroup/memory";
const SUBTREE: &str = "/sys/fs/cgroup/cgroup.subtree_control";
/// Cgroups that are removed stay until the last page charged to them goes.
const DROP_CACHES: &str = "/proc/sys/vm/drop_caches";
/// Until then the controller cannot move (`rebind_subsystems`, kernel/cgroup/cgroup.c).
const LONGEST_S: f64 = 10.0;

/// The controller on v1; back on the unified hierarchy when dropped.
pub struct MemoryOnV1(());

impl MemoryOnV1 {
    /// Moves it. No cgroup may have it.
    ///
    /// # Errors
    /// Why it cannot be moved: the kernel has none of v1, or cgroups are in the way.
    pub fn new() -> io::Result<Self> {
        // The io controller wants that of memory, and takes it unasked.
        fs::write(SUBTREE, "-io -memory")?;
        // From here on it is moved back.
        let moved = Self(());
        fs::create_dir(V1)?;
        let mut why = io::Error::other("not tried");
        let is_mounted = || {
            let _ = fs::write(DROP_CACHES, "3");
            why = match mount() {
                Ok(()) => return true,
                Err(e) => e,
            };
            // Anything else does not pass.
            why.raw_os_error() != Some(libc::EBUSY)
        };
        eventually(LONGEST_S, is_mounted);
        match Path::new(V1).join("memory.limit_in_bytes").exists() {
            true => Ok(moved),
            false => Err(why),
        }
    }
}

impl Drop for MemoryOnV1 {
    fn drop(&mut self) {
        unmount();
        let _ = fs::remove_dir(V1);
        let is_back = || {
            let _ = fs::write(DROP_CACHES, "3");
            fs::write(SUBTREE, "+memory +io").is_ok()
        };
        if !eventually(LONGEST_S, is_back) {
            println!("the memory controller cannot be moved back to the unified hierarchy");
        }
    }
}

fn mount() -> io::Result<()> {
    let [kind, place, options] =
        ["cgroup", V1, "memory"].map(|word| CString::new(word).expect("no zero in it"));
    // SAFETY: three strings that end with a zero, and live as long as the call.
    let result = unsafe {
        libc::mount(
            kind.as_ptr(),
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

fn unmount() {
    let place = CString::new(V1).expect("no zero in it");
    // SAFETY: a string that ends with a zero.
    unsafe { libc::umount2(place.as_ptr(), libc::MNT_DETACH) };
}
