//! A FUSE file system in this process, over /dev/fuse itself: it answers at once,
//! but for the requests that it holds back until it is told to.
//!
//! Every name exists: a directory if it begins with `d`, else a file of 1 MiB. The
//! records are those of the kernel's include/uapi/linux/fuse.h, version 7.31.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    mem,
    os::fd::AsRawFd as _,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::Duration,
};

use super::mounts;

const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const UNLINK: u32 = 10;
const RENAME: u32 = 12;
const OPEN: u32 = 14;
const READ: u32 = 15;
const WRITE: u32 = 16;
const STATFS: u32 = 17;
const RELEASE: u32 = 18;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;
const RENAME2: u32 = 45;

const HEADER: usize = 40;
const ROOT: u64 = 1;
const VALID_S: u64 = 1000;
const FILE_BYTES: u64 = 1 << 20;
const FOPEN_KEEP_CACHE: u32 = 2;
const FUSE_ASYNC_READ: u32 = 1;
const FUSE_BIG_WRITES: u32 = 1 << 5;
const FUSE_PARALLEL_DIROPS: u32 = 1 << 18;

/// Which requests are held back.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Held {
    /// Reads of a file.
    Reads,
    /// Writes to a file.
    Writes,
    /// Look-ups of names that begin with `slow`. They come one at a time, each
    /// under the directory's mutex.
    LookUps,
    /// What statfs(2) asks.
    StatFs,
    /// Whatever is asked.
    All,
}

/// A file system at the mount point, until the process ends.
pub(super) struct Fuse {
    state: Arc<Mutex<State>>,
    arrivals: Receiver<()>,
    device: File,
}

struct State {
    held: Held,
    waiting: Vec<Request>,
    is_open: bool,
}

impl Fuse {
    /// Mounts it, in a mount namespace that must be this process's own by now.
    /// Whoever is forked later has a copy of its device, and its requests would
    /// outlive this process: fork before, and unshare before that.
    pub(super) fn mount(held: Held) -> io::Result<Self> {
        let device = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/fuse")?;
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0",
            device.as_raw_fd()
        );
        mounts::mount("provoke", "fuse", &options)?;
        let state = Arc::new(Mutex::new(State {
            held,
            waiting: Vec::new(),
            is_open: false,
        }));
        let (sender, arrivals) = mpsc::channel();
        let (at, of) = (device.try_clone()?, Arc::clone(&state));
        thread::spawn(move || serve(at, &of, &sender));
        Ok(Self {
            state,
            arrivals,
            device,
        })
    }

    /// Waits until a request has come that is held back.
    pub(super) fn until_one_is_held(&self) {
        let arrived = self.arrivals.recv_timeout(Duration::from_secs(10));
        arrived.expect("the request that is to be held back");
    }

    /// Holds requests back again.
    pub(super) fn hold(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.is_open = false;
    }

    /// Answers what was held back, and holds nothing back from now on.
    pub(super) fn answer(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.is_open = true;
        for request in mem::take(&mut state.waiting) {
            let _ = request.answer(&self.device, state.held);
        }
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        self.answer();
    }
}

fn serve(mut device: File, state: &Mutex<State>, arrivals: &Sender<()>) {
    let mut bytes = vec![0; 1 << 20];
    loop {
        let length = match device.read(&mut bytes) {
            Ok(length) => length,
            // A request that was taken back, or a signal.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) => {
                continue;
            }
            Err(_) => return,
        };
        let Some(request) = bytes.get(..length).and_then(Request::parse) else {
            continue;
        };
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.is_open && request.is(state.held) {
            state.waiting.push(request);
            let _ = arrivals.send(());
        } else {
            let _ = request.answer(&device, state.held);
        }
    }
}

struct Request {
    code: u32,
    unique: u64,
    node: u64,
    body: Vec<u8>,
}

impl Request {
    fn parse(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            code: u32_at(bytes, 4)?,
            unique: u64_at(bytes, 8)?,
            node: u64_at(bytes, 16)?,
            body: bytes.get(HEADER..)?.to_vec(),
        })
    }

    fn is(&self, held: Held) -> bool {
        match held {
            Held::Reads => self.code == READ,
            Held::Writes => self.code == WRITE,
            Held::StatFs => self.code == STATFS,
            Held::All => !matches!(self.code, INIT | FORGET | BATCH_FORGET | INTERRUPT),
            Held::LookUps => self.code == LOOKUP && self.body.starts_with(b"slow"),
        }
    }

    fn answer(&self, mut device: &File, held: Held) -> io::Result<()> {
        let (error, body) = match self.code {
            // Answers to nobody.
            FORGET | BATCH_FORGET | INTERRUPT => return Ok(()),
            INIT => (0, init(u32_at(&self.body, 8).unwrap_or(0), held)),
            LOOKUP => (0, entry(&self.body, held)),
            GETATTR => (0, [words(&[VALID_S, 0]), attributes(self.node)].concat()),
            OPEN => (0, words(&[1, u64::from(FOPEN_KEEP_CACHE)])),
            READ => (0, vec![0; u32_at(&self.body, 16).unwrap_or(0) as usize]),
            WRITE => (0, words(&[u64::from(u32_at(&self.body, 16).unwrap_or(0))])),
            UNLINK | RENAME | RENAME2 | RELEASE | FLUSH => (0, Vec::new()),
            _ => (-libc::ENOSYS, Vec::new()),
        };
        let length = (16 + body.len()) as u32;
        let header = [
            &length.to_ne_bytes()[..],
            &error.to_ne_bytes(),
            &self.unique.to_ne_bytes(),
        ];
        device.write_all(&[&header.concat()[..], &body].concat())
    }
}

/// `fuse_init_out`.
fn init(max_readahead: u32, held: Held) -> Vec<u8> {
    // Without the flag the kernel looks names up one at a time.
    let parallel = if held == Held::LookUps {
        0
    } else {
        FUSE_PARALLEL_DIROPS
    };
    let flags = FUSE_ASYNC_READ | FUSE_BIG_WRITES | parallel;
    let background = 16 | 12 << 16;
    let max_write = 1 << 16;
    let mut out = vec![7, 31, max_readahead, flags, background, max_write];
    out.resize(16, 0);
    out.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// `fuse_entry_out` of a name that ends with a zero.
fn entry(name: &[u8], held: Held) -> Vec<u8> {
    let name: Vec<u8> = name.iter().copied().take_while(|byte| *byte != 0).collect();
    // The name is the number of its node, with a bit for directories.
    let letters = name.iter().take(7).fold(0, |n, c| n << 8 | u64::from(*c));
    let node = letters << 1 | u64::from(name.starts_with(b"d"));
    // A name that is held back once is so each time.
    let valid_s = if held == Held::LookUps { 0 } else { VALID_S };
    let head = words(&[node, 0, valid_s, VALID_S, 0]);
    [head, attributes(node)].concat()
}

/// `fuse_attr`.
fn attributes(node: u64) -> Vec<u8> {
    let (mode, bytes) = if node & 1 == ROOT {
        (libc::S_IFDIR | 0o755, 0)
    } else {
        (libc::S_IFREG | 0o666, FILE_BYTES)
    };
    let head = words(&[node, bytes, 0, 0, 0, 0]);
    let (links, block) = (1, 4096);
    let tail = [0, 0, 0, mode, links, 0, 0, 0, block, 0];
    let tail = tail.iter().flat_map(|word: &u32| word.to_ne_bytes());
    head.into_iter().chain(tail).collect()
}

fn words(of: &[u64]) -> Vec<u8> {
    of.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    bytes.try_into().ok().map(u32::from_ne_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at + 8)?;
    bytes.try_into().ok().map(u64::from_ne_bytes)
}
