//! The memory controller on a hierarchy of cgroup v1, in a guest that has it on the
//! unified one.

use std::{ffi::CString, fs, io, path::Path};

use super::{V1, V2};
use crate::time::eventually;

const SUBTREE: &str = "/sys/fs/cgroup/cgroup.subtree_control";
/// Cgroups that are removed stay until the last page charged to them goes.
const DROP_CACHES: &str = "/proc/sys/vm/drop_caches";
/// Until then the controller cannot move (`rebind_subsystems`, kernel/cgroup/cgroup.c).
const LONGEST_S: f64 = 60.0;

/// Moves it, for as long as the guest lives. No cgroup may have it.
///
/// # Errors
/// EINVAL: the kernel has none of v1. EBUSY: cgroups are in the way.
pub fn move_to_v1() -> io::Result<()> {
    if Path::new(V1).exists() {
        return Ok(());
    }
    // The io controller wants that of memory, and takes it unasked.
    fs::write(SUBTREE, "-io -memory")?;
    fs::create_dir(V1)?;
    let mut mounted = Ok(());
    eventually(LONGEST_S, || {
        let _ = fs::write(DROP_CACHES, "3");
        remove_empty();
        mounted = mount();
        // Anything else does not pass.
        !matches!(&mounted, Err(e) if e.raw_os_error() == Some(libc::EBUSY))
    });
    if mounted.is_err() {
        fs::remove_dir(V1)?;
        fs::write(SUBTREE, "+memory +io")?;
    }
    mounted
}

/// A test that took too long to see its last task reaped has left its cgroup.
fn remove_empty() {
    let cgroups = fs::read_dir(V2).into_iter().flatten().flatten();
    for path in cgroups.map(|cgroup| cgroup.path()) {
        // One that is in use stays; what is no cgroup cannot be removed like this.
        if path != Path::new(V1) {
            let _ = fs::remove_dir(path);
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
