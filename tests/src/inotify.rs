//! A user who uses all of inotify that the kernel gives.

use std::{ffi::CString, fs, io, os::unix::ffi::OsStrExt as _};

use crate::pace::{paced, say_numbers};

/// `inotify-all UID DIRECTORY`: becomes that user, opens instances and watches files of the
/// directory until the kernel refuses either, says `INSTANCES WATCHES`, and holds them.
pub fn use_up(uid: u32, directory: &str) {
    paced(|| {
        let files: Vec<_> = fs::read_dir(directory)
            .expect("a directory")
            .map(|entry| entry.expect("a file").path())
            .collect();
        // SAFETY: touches no memory.
        let set = unsafe { libc::setresuid(uid, uid, uid) };
        assert_eq!(set, 0, "{}", io::Error::last_os_error());
        let mut instances = Vec::new();
        let refused = loop {
            // SAFETY: touches no memory.
            match unsafe { libc::inotify_init1(libc::IN_CLOEXEC) } {
                -1 => break io::Error::last_os_error(),
                instance => instances.push(instance),
            }
        };
        assert_eq!(refused.raw_os_error(), Some(libc::EMFILE), "{refused}");
        let instance = *instances.first().expect("one instance at least");
        let watch = |path: &std::path::PathBuf| {
            let path = CString::new(path.as_os_str().as_bytes()).expect("no zero");
            // SAFETY: the path ends with a zero, and lives until the call is over.
            unsafe { libc::inotify_add_watch(instance, path.as_ptr(), libc::IN_MODIFY) >= 0 }
        };
        let watches = files.iter().take_while(|path| watch(path)).count();
        let refused = io::Error::last_os_error();
        assert!(watches < files.len(), "there are not files enough");
        assert_eq!(refused.raw_os_error(), Some(libc::ENOSPC), "{refused}");
        say_numbers([instances.len() as u64, watches as u64]);
    });
}
