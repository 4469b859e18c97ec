//! Network namespaces: which ones the host has, and how to read inside one.
//!
//! A namespace is found through a process that is in it (/proc/PID/ns/net), or by
//! the name that ip-netns(8) gave it. Each is opened once and held open, so that
//! neither the end of its processes nor a number that comes again can put another
//! one in its place.
//!
//! One that is held by nothing but a thread other than the first of its process,
//! a socket, or a mount elsewhere than in /run/netns, is not found.

use std::{
    collections::{HashMap, HashSet},
    fmt::Write as _,
    fs::{self, File},
    io, mem,
    os::{
        fd::AsRawFd as _,
        unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    },
    panic,
    path::{Path, PathBuf},
    thread,
};

use thiserror::Error;

use crate::text::Text;

/// tracer's own.
const OWN: &str = "/proc/self/ns/net";
/// Where ip-netns(8) puts names; mostly the second is a link to the first.
const NAMED: [&str; 2] = ["/run/netns", "/var/run/netns"];
/// No more than this are held open: each takes a descriptor, of which a process
/// may have 1024 by default. Any user can make namespaces.
const MOST_NAMESPACES: usize = 512;

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
    /// A thread to go there with cannot be started.
    #[error("cannot start a thread for network namespace {inode}: {source}")]
    Thread {
        /// Which namespace.
        inode: u32,
        /// Why.
        source: io::Error,
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

/// A network namespace (`struct net`, include/net/net_namespace.h), held open.
#[derive(Debug)]
pub struct Namespace {
    /// Its inode number, `N` of `net:[N]` (`net->ns.inum`). It comes again once
    /// the namespace is gone.
    pub inode: u32,
    /// What ip-netns(8) calls it.
    pub name: Option<Text>,
    /// The first process that is in it, as of the last look. By now it may be
    /// gone, and its number that of another.
    pub pid: Option<u32>,
    /// Whether tracer itself is in it.
    pub is_own: bool,
    file: File,
}

/// The namespaces of the host, tracer's own first.
#[derive(Debug)]
pub struct Namespaces {
    found: Vec<Namespace>,
    /// The device of the file system that all namespaces are files of.
    device: u64,
    unreadable_processes: u64,
    unopened: u64,
}

/// What a look found changed.
#[derive(Debug, Default)]
pub struct Changes {
    /// Numbers of those that are new.
    pub new: Vec<u32>,
    /// Those that have neither a process nor a name any more. The kernel takes
    /// them down when these are dropped.
    pub gone: Vec<Namespace>,
}

impl Namespaces {
    /// Opens tracer's own and looks for all others.
    ///
    /// # Errors
    /// tracer's own cannot be opened. Any other that cannot is left out, and
    /// counted in `unopened` unless it has just vanished.
    pub fn find() -> Result<Self, NamespaceError> {
        let own = |source| NamespaceError::Own { source };
        let file = File::open(OWN).map_err(own)?;
        let metadata = file.metadata().map_err(own)?;
        let mut namespaces = Self {
            found: vec![Namespace {
                inode: inode(&metadata).map_err(own)?,
                name: None,
                pid: None,
                is_own: true,
                file,
            }],
            device: metadata.dev(),
            unreadable_processes: 0,
            unopened: 0,
        };
        namespaces.refresh();
        Ok(namespaces)
    }

    /// All that are known, tracer's own first, the others as they were found.
    pub fn all(&self) -> &[Namespace] {
        &self.found
    }

    /// The one of this number.
    pub fn get(&self, inode: u32) -> Option<&Namespace> {
        self.found.iter().find(|known| known.inode == inode)
    }

    #[cfg(test)]
    pub(super) fn get_mut(&mut self, inode: u32) -> Option<&mut Namespace> {
        self.found.iter_mut().find(|known| known.inode == inode)
    }

    /// Processes that the last look was not allowed to ask for theirs: without
    /// CAP_SYS_PTRACE, those of other users.
    pub fn unreadable_processes(&self) -> u64 {
        self.unreadable_processes
    }

    /// Namespaces that the last look saw and could not open: no right, no
    /// descriptor left, or more of them than are held.
    pub fn unopened(&self) -> u64 {
        self.unopened
    }

    /// Looks anew: a readlink(2) a process, about 3 us each.
    pub fn refresh(&mut self) -> Changes {
        self.unreadable_processes = 0;
        let mut look = Look::default();
        let mut names = self.names();
        let mut link = String::new();
        for pid in processes() {
            link.clear();
            // Writing to a String cannot fail.
            let _ = write!(link, "/proc/{pid}/ns/net");
            match linked(Path::new(&link)) {
                Ok(Some(inode)) if !look.seen.contains(&inode) => {
                    self.see(&mut look, inode, Some(pid), Path::new(&link));
                }
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    self.unreadable_processes += 1;
                }
                // Seen before, or gone.
                _ => {}
            }
        }
        for (&inode, (_, path)) in &names {
            if !look.seen.contains(&inode) {
                self.see(&mut look, inode, None, path);
            }
        }
        for known in &mut self.found {
            known.name = names.remove(&known.inode).map(|(name, _)| name);
        }
        self.unopened = look.refused.difference(&look.seen).count() as u64;
        let (found, gone) = mem::take(&mut self.found)
            .into_iter()
            .partition(|known| known.is_own || look.seen.contains(&known.inode));
        self.found = found;
        Changes {
            new: look.new,
            gone,
        }
    }

    /// Takes note of a namespace that is there, and opens it if it is new.
    fn see(&mut self, look: &mut Look, inode: u32, pid: Option<u32>, path: &Path) {
        if let Some(known) = self.found.iter_mut().find(|known| known.inode == inode) {
            known.pid = pid;
            look.seen.insert(inode);
            return;
        }
        if self.found.len() >= MOST_NAMESPACES {
            look.refused.insert(inode);
            return;
        }
        match self.open(path) {
            // Between the link and the open a process can have gone elsewhere.
            Ok((opened, file)) if opened == inode => {
                look.seen.insert(inode);
                look.new.push(inode);
                self.found.push(Namespace {
                    inode,
                    name: None,
                    pid,
                    is_own: false,
                    file,
                });
            }
            Ok(_) => {}
            Err(error) if has_vanished(&error) => {}
            Err(error) => {
                log::debug!("network namespace {inode} at {}: {error}", path.display());
                look.refused.insert(inode);
            }
        }
    }

    fn open(&self, path: &Path) -> io::Result<(u32, File)> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if metadata.dev() != self.device {
            return Err(io::Error::other("not a namespace"));
        }
        Ok((inode(&metadata)?, file))
    }

    /// Names and their files by number. Only what is on the file system of
    /// namespaces counts: a name whose mount is gone is an empty file.
    fn names(&self) -> HashMap<u32, (Text, PathBuf)> {
        let mut names = HashMap::new();
        let entries = NAMED.iter().flat_map(fs::read_dir).flatten();
        for entry in entries.filter_map(Result::ok) {
            let path = entry.path();
            let Ok(metadata) = fs::metadata(&path) else {
                continue;
            };
            if metadata.dev() == self.device
                && let Ok(inode) = inode(&metadata)
            {
                let name = Text::from_bytes(entry.file_name().as_bytes());
                names.entry(inode).or_insert((name, path));
            }
        }
        names
    }
}

/// What a look has come upon.
#[derive(Default)]
struct Look {
    seen: HashSet<u32>,
    refused: HashSet<u32>,
    new: Vec<u32>,
}

/// Runs `f` inside a namespace and returns what it returns. For another
/// namespace than tracer's own that is on a thread of its own, which ends with
/// `f`: the namespace of the calling thread is never changed.
///
/// A socket that `f` opens stays in the namespace. Of /proc, `f` must read
/// `/proc/thread-self/net`, since `/proc/self` is the first thread's.
///
/// # Errors
/// No thread can be started, or setns(2) is refused.
pub fn within<T: Send>(
    namespace: &Namespace,
    f: impl FnOnce() -> T + Send,
) -> Result<T, NamespaceError> {
    if namespace.is_own {
        return Ok(f());
    }
    let inode = namespace.inode;
    let inside = || {
        // SAFETY: no memory is touched; the descriptor is open as long as the file.
        let status = unsafe { libc::setns(namespace.file.as_raw_fd(), libc::CLONE_NEWNET) };
        if status != 0 {
            let source = io::Error::last_os_error();
            return Err(NamespaceError::Enter { inode, source });
        }
        Ok(f())
    };
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
pub(super) fn of_process(pid: u32) -> Option<u32> {
    linked(Path::new(&format!("/proc/{pid}/ns/net"))).ok()?
}

/// Ids of the processes, ascending, as /proc lists them.
fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn linked(path: &Path) -> io::Result<Option<u32>> {
    fs::read_link(path).map(|link| number(link.as_os_str().as_bytes()))
}

/// `N` of `net:[N]` (`ns_get_name`, fs/nsfs.c).
fn number(link: &[u8]) -> Option<u32> {
    let digits = link.strip_prefix(b"net:[")?.strip_suffix(b"]")?;
    str::from_utf8(digits).ok()?.parse().ok()
}

fn inode(metadata: &fs::Metadata) -> io::Result<u32> {
    u32::try_from(metadata.ino()).map_err(io::Error::other)
}

/// Whether a process or a name was gone before it could be opened.
fn has_vanished(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

#[cfg(test)]
mod tests {
    use std::{io, thread};

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
    fn the_own_namespace_is_first_and_read_directly() {
        let mut namespaces = Namespaces::find().unwrap();
        let own = &namespaces.all()[0];
        assert!(own.is_own);
        assert_eq!(Some(own.inode), of_process(std::process::id()));
        let caller = thread::current().id();
        assert_eq!(within(own, || thread::current().id()).unwrap(), caller);
        let inode = own.inode;
        assert!(!namespaces.refresh().new.contains(&inode));
        assert_eq!(namespaces.all()[0].inode, inode);
        assert_eq!(namespaces.all().iter().filter(|n| n.is_own).count(), 1);
    }

    #[test]
    fn a_namespace_comes_and_goes_with_its_process() {
        let mut namespaces = Namespaces::find().unwrap();
        let stranger = match Stranger::start() {
            Ok(stranger) => stranger,
            Err(error) => {
                println!("SKIPPED a_namespace_comes_and_goes_with_its_process: {error}");
                return;
            }
        };
        let inode = of_process(stranger.pid()).unwrap();
        assert!(namespaces.get(inode).is_none());
        assert!(namespaces.refresh().new.contains(&inode));
        let found = namespaces.get(inode).unwrap();
        assert_eq!((found.pid, found.is_own), (Some(stranger.pid()), false));
        assert!(!namespaces.refresh().new.contains(&inode));

        stranger.end();
        let gone = namespaces.refresh().gone;
        assert!(gone.iter().any(|namespace| namespace.inode == inode));
        assert!(namespaces.get(inode).is_none());
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
