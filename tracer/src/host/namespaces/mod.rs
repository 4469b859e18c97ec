//! Network namespaces: which ones the host has, and how to read inside one.
//!
//! A namespace is found through a process that is in it (/proc/PID/ns/net), or by
//! the name that ip-netns(8) gave it. None is held open, since a namespace that is
//! held keeps its devices and addresses: it is opened each time it is entered, and
//! known again by a number that the kernel gives to no other one.
//!
//! One that is held by nothing but a thread other than the first of its process,
//! a socket, or a mount elsewhere than in /run/netns, is not found.

mod look;

use std::{
    fs::{self, File},
    io, mem,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    },
    panic,
    path::PathBuf,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use thiserror::Error;

pub use self::look::{Ask, Changes, Namespaces};
use super::living;
use crate::text::Text;

/// include/uapi/asm-generic/socket.h.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// tracer's own.
const OWN: &str = "/proc/self/ns/net";

/// Why a namespace cannot be had.
#[derive(Debug, Error)]
pub enum NamespaceError {
    /// tracer's own cannot be opened.
    #[error(
        "cannot open tracer's network namespace at {OWN}: {source}; \
         it takes a kernel with CONFIG_NET_NS, and /proc mounted"
    )]
    Own {
        /// Why.
        source: io::Error,
    },
    /// The others cannot be looked for.
    #[error("cannot look for network namespaces in {path}: {source}; /proc must be mounted")]
    Look {
        /// Where.
        path: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A thread to go there with cannot be started.
    #[error("cannot start a thread for network namespace {inode}: {source}")]
    Thread {
        /// Which namespace.
        inode: u32,
        /// Why.
        source: io::Error,
    },
    /// It is no longer where it was seen last.
    #[error("network namespace {inode} has gone, or what tracer entered it through")]
    Gone {
        /// Which namespace.
        inode: u32,
    },
    /// It cannot be entered.
    #[error(
        "cannot enter network namespace {inode}: {source}; \
         run tracer as root, or give the binary CAP_SYS_ADMIN"
    )]
    Enter {
        /// Which namespace.
        inode: u32,
        /// Why.
        source: io::Error,
    },
}

/// A network namespace (`struct net`, include/net/net_namespace.h).
#[derive(Debug)]
pub struct Namespace {
    /// Its inode number, `N` of `net:[N]` (`net->ns.inum`). It comes again once
    /// the namespace is gone.
    pub inode: u32,
    /// What ip-netns(8) calls it.
    pub name: Option<Text>,
    /// A process that is in it, as of the last look. By now it may be gone, and
    /// its number that of another.
    pub pid: Option<u32>,
    /// Whether tracer itself is in it.
    pub is_own: bool,
    /// What it was seen through last: a link of /proc, or a file of ip-netns(8).
    path: PathBuf,
    /// `net->net_cookie`, once it was entered.
    cookie: OnceLock<u64>,
    /// Whether another one was found under its number.
    is_replaced: AtomicBool,
}

impl Namespace {
    fn new(inode: u32, pid: Option<u32>, path: PathBuf) -> Self {
        Self {
            inode,
            name: None,
            pid,
            is_own: false,
            path,
            cookie: OnceLock::new(),
            is_replaced: AtomicBool::new(false),
        }
    }

    /// Moves the calling thread there.
    fn enter(&self) -> Result<(), NamespaceError> {
        let inode = self.inode;
        let refused = |source| NamespaceError::Enter { inode, source };
        let gone = || NamespaceError::Gone { inode };
        let file = match File::open(&self.path) {
            Err(error) if has_vanished(&error) => return Err(gone()),
            file => file.map_err(refused)?,
        };
        if self::inode(&file.metadata().map_err(refused)?).ok() != Some(inode) {
            return Err(gone());
        }
        // SAFETY: no memory is touched; the descriptor is open as long as the file.
        if unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
            return Err(refused(io::Error::last_os_error()));
        }
        drop(file);
        let cookie = cookie_here().map_err(refused)?;
        if *self.cookie.get_or_init(|| cookie) != cookie {
            self.is_replaced.store(true, Ordering::Relaxed);
            return Err(gone());
        }
        Ok(())
    }
}

/// The number of the calling thread's namespace, which the kernel gives to no other one
/// (SO_NETNS_COOKIE, net/core/sock.c, from 5.14).
fn cookie_here() -> io::Result<u64> {
    // Any would do; this kind tracer needs anyway.
    let (family, kind) = (libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC);
    // SAFETY: takes no memory.
    let socket = unsafe { libc::socket(family, kind, NETLINK_SOCK_DIAG as libc::c_int) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it has just been opened, and belongs to nothing else.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let mut cookie = 0_u64;
    let mut length = mem::size_of_val(&cookie) as libc::socklen_t;
    // SAFETY: the descriptor is open, and the buffer as long as it says.
    let status = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    match status {
        0 => Ok(cookie),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Inode number of tracer's own.
///
/// # Errors
/// /proc does not show it.
pub fn own_inode() -> Result<u32, NamespaceError> {
    let own = |source| NamespaceError::Own { source };
    inode(&fs::metadata(OWN).map_err(own)?).map_err(own)
}

/// Runs `f` inside a namespace and returns what it returns. For another
/// namespace than tracer's own that is on a thread of its own, which ends with
/// `f`: the namespace of the calling thread is never changed.
///
/// A socket that `f` opens stays in the namespace. Of /proc, `f` must read
/// `/proc/thread-self/net`, since `/proc/self` is the first thread's.
///
/// # Errors
/// No thread can be started, the namespace is no longer where it was seen, or setns(2) is
/// refused.
pub fn within<T: Send>(
    namespace: &Namespace,
    f: impl FnOnce() -> T + Send,
) -> Result<T, NamespaceError> {
    if namespace.is_own {
        return Ok(f());
    }
    let inode = namespace.inode;
    let inside = || namespace.enter().map(|()| f());
    thread::scope(|scope| {
        thread::Builder::new()
            .name("netns".into())
            .spawn_scoped(scope, inside)
            .map_err(|source| NamespaceError::Thread { inode, source })?
            .join()
            .unwrap_or_else(|panic| panic::resume_unwind(panic))
    })
}

/// The number of a process's namespace now; `None` when that cannot be told.
pub(crate) fn of_process(pid: u32) -> Option<u32> {
    let (_, link) = living::read_link(pid, "ns/net").ok()?;
    number(link.as_os_str().as_bytes())
}

/// `N` of `net:[N]` (`ns_get_name`, fs/nsfs.c).
fn number(link: &[u8]) -> Option<u32> {
    let digits = link.strip_prefix(b"net:[")?.strip_suffix(b"]")?;
    str::from_utf8(digits).ok()?.parse().ok()
}

/// Whether a process or a name was gone before it could be opened.
fn has_vanished(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

fn inode(metadata: &fs::Metadata) -> io::Result<u32> {
    u32::try_from(metadata.ino()).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use std::io;

    use proptest::prelude::{any, prop, proptest};

    use super::{NamespaceError, Namespaces, number, of_process, within};
    use crate::host::stranger::Stranger;

    /// Which namespace the calling thread is in.
    fn here() -> Option<u32> {
        let link = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        number(link.as_os_str().as_encoded_bytes())
    }

    #[test]
    fn links() {
        assert_eq!(number(b"net:[4026531840]"), Some(4_026_531_840));
        for other in [
            &b"net:[]"[..],
            b"net:[4294967296]",
            b"mnt:[4026531840]",
            b"net:[1",
            b"",
        ] {
            assert_eq!(number(other), None);
        }
    }

    #[test]
    fn another_namespace_is_entered_on_another_thread() {
        const NAME: &str = "another_namespace_is_entered_on_another_thread";
        let stranger = match Stranger::start() {
            Ok(stranger) => stranger,
            Err(error) => return println!("SKIPPED {NAME}: {error}"),
        };
        let namespaces = Namespaces::find().unwrap();
        let before = here();
        let other = namespaces.get(of_process(stranger.pid()).unwrap()).unwrap();
        match within(other, here) {
            Ok(inside) => assert_eq!(inside, Some(other.inode)),
            Err(NamespaceError::Enter { source, .. })
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                println!("SKIPPED {NAME}: {source}");
            }
            Err(error) => panic!("{error}"),
        }
        assert_eq!(here(), before);
    }

    proptest! {
        #[test]
        fn any_link_can_be_parsed(bytes in prop::collection::vec(any::<u8>(), 0..32)) {
            number(&bytes);
        }
    }
}
