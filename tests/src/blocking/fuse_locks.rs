//! What waits for a FUSE answer, and who waits for the locks of those who do.
//!
//! The answer comes so many ms after the last task has blocked.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read as _, Write as _},
};

use crate::pace::{paced, say_numbers};

use super::{
    fuse::{Fuse, Held},
    mounts::{self, MOUNT_POINT},
    must, sleep_ms,
    victim::Victim,
};

const WAITERS: usize = 5;

/// A read of a page that is not there yet: `folio_wait_bit_common`, in iowait.
pub fn read(ms: u64) {
    must("a mount namespace", mounts::unshare());
    let mut victim = Victim::fork(|| {
        let _ = File::open(path("file")).and_then(|mut file| file.read(&mut [0; 4096]));
    });
    let fuse = must("FUSE", Fuse::mount(Held::Reads));
    paced(|| {
        victim.block();
        fuse.until_one_is_held();
        say_numbers([&[0], &victim.begun()[..]].concat());
        sleep_ms(ms);
        fuse.answer();
        say_numbers([victim.took_ns()]);
    });
}

/// A mount that never answers statfs(2), until the process ends; nobody asks it here.
pub fn statfs() {
    must("a mount namespace", mounts::unshare());
    let fuse = must("FUSE", Fuse::mount(Held::StatFs));
    paced(|| fuse.until_one_is_held());
}

/// A look-up that waits for the directory's mutex (`fuse_lock_inode`), whose
/// holder waits, interruptibly, for the answer to its own.
pub fn mutex(ms: u64) {
    let look_up = |name| move || drop(fs::metadata(path(name)));
    held(ms, Held::LookUps, look_up("slow1"), look_up("slow2"));
}

/// A write that waits for the inode's rwsem (`fuse_file_write_iter`), whose holder
/// waits, interruptibly, for the answer to its own write.
pub fn rwsem(ms: u64) {
    held(ms, Held::Writes, write, write);
}

fn held(ms: u64, what: Held, first: impl FnOnce(), second: impl FnOnce()) {
    must("a mount namespace", mounts::unshare());
    let (mut holder, mut victim) = (Victim::fork(first), Victim::fork(second));
    let fuse = must("FUSE", Fuse::mount(what));
    paced(|| {
        holder.go();
        fuse.until_one_is_held();
        victim.block();
        say_numbers([&[holder.pid()], &victim.begun()[..]].concat());
        sleep_ms(ms);
        fuse.answer();
        say_numbers([victim.took_ns()]);
    });
}

/// A write that waits for its answer, in D, and five that wait for its rwsem. The
/// holder is the first of the tasks that are blocked.
pub fn chain(ms: u64) {
    let root = root();
    let waiters = (0..WAITERS).map(|_| Victim::fork(write));
    wait_in_line(ms, [root].into_iter().chain(waiters).collect());
}

/// Four, of which each waits for the one before: for an answer, for the rwsem of a
/// file, for the rwsem of a directory, for the mutex of renames. The holder is the
/// first of the tasks that are blocked.
pub fn deep_chain(ms: u64) {
    let root = root();
    // The rwsem of d1 is held while that of the file is waited for.
    let remove = Victim::fork(|| drop(fs::remove_file(path("d1/file"))));
    // The mutex of the file system's renames is held while that of d1 is waited for.
    let rename = Victim::fork(|| drop(fs::rename(path("d2/a"), path("d1/b"))));
    let other = Victim::fork(|| drop(fs::rename(path("d2/c"), path("d3/e"))));
    wait_in_line(ms, vec![root, remove, rename, other]);
}

/// A writer that is in D until its answer comes.
fn root() -> Victim {
    must("a mount namespace", mounts::unshare());
    Victim::fork(|| {
        extern "C" fn nothing(_: i32) {}
        let handler: extern "C" fn(i32) = nothing;
        // SAFETY: the handler does nothing.
        unsafe { libc::signal(libc::SIGUSR1, handler as libc::sighandler_t) };
        write();
    })
}

/// The first waits for its answer, the others for those before them.
fn wait_in_line(ms: u64, mut all: Vec<Victim>) {
    let fuse = must("FUSE", Fuse::mount(Held::Writes));
    paced(|| {
        let mut waiters = all.iter_mut();
        if let Some(root) = waiters.next() {
            root.go();
            fuse.until_one_is_held();
            // A FUSE request that a signal came to can only be killed from then on.
            root.signal(libc::SIGUSR1);
            root.until_blocked();
        }
        waiters.for_each(Victim::block);
        let holder = all.first().map(Victim::pid);
        let begun = all.iter().flat_map(Victim::begun);
        say_numbers(holder.into_iter().chain(begun));
        sleep_ms(ms);
        fuse.answer();
        say_numbers(all.iter_mut().map(Victim::took_ns));
    });
}

fn write() {
    let file = OpenOptions::new().write(true).open(path("d1/file"));
    let _ = file.and_then(|mut file| file.write(b"x"));
}

fn path(name: &str) -> String {
    format!("{MOUNT_POINT}/{name}")
}
