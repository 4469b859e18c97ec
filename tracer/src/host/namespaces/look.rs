//! The look for namespaces.
//!
//! Of the processes that were there at the last look only some are asked again,
//! by turns: to ask takes 5 us, and hosts have tens of thousands of processes.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    io,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use super::{Namespace, NamespaceError, OWN, has_vanished, inode, number, of_process};
use crate::{host::living, text::Text};

const PROCESSES: &str = "/proc";
/// Where ip-netns(8) puts names; mostly the second is a link to the first.
const NAMED: [&str; 2] = ["/run/netns", "/var/run/netns"];
/// No more than this are known: any user can make namespaces, and each costs time at every
/// look.
const MOST_NAMESPACES: usize = 512;
/// In so many looks each process is asked once.
const TURNS: u32 = 4;

/// The namespaces of the host, tracer's own first.
#[derive(Debug)]
pub struct Namespaces {
    found: Vec<Namespace>,
    /// The device of the file system that all namespaces are files of.
    device: u64,
    /// Processes of the last look, ascending.
    processes: Vec<u32>,
    turn: u32,
    unreadable: HashSet<u32>,
    unopened: u64,
}

/// What a look found changed.
#[derive(Debug, Default)]
pub struct Changes {
    /// Numbers of those that are new.
    pub new: Vec<u32>,
    /// Those that have neither a process nor a name any more, or whose number is
    /// another's now.
    pub gone: Vec<Namespace>,
}

/// Which processes a look asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Every one.
    All,
    /// New ones, and a part of the others.
    ByTurns,
}

impl Namespaces {
    /// Opens tracer's own and looks for all others.
    ///
    /// # Errors
    /// tracer's own cannot be opened, or /proc not be listed. Any other namespace
    /// that cannot be opened is left out, and counted in `unopened` unless it has
    /// just vanished.
    pub fn find() -> Result<Self, NamespaceError> {
        let own = |source| NamespaceError::Own { source };
        let metadata = fs::metadata(OWN).map_err(own)?;
        let mut namespaces = Self {
            found: vec![Namespace {
                is_own: true,
                ..Namespace::new(inode(&metadata).map_err(own)?, None, PathBuf::from(OWN))
            }],
            device: metadata.dev(),
            processes: Vec::new(),
            turn: 0,
            unreadable: HashSet::new(),
            unopened: 0,
        };
        namespaces.refresh(Ask::All)?;
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
    pub(in super::super) fn get_mut(&mut self, inode: u32) -> Option<&mut Namespace> {
        self.found.iter_mut().find(|known| known.inode == inode)
    }

    /// Processes whose namespace tracer may not ask for: without CAP_SYS_PTRACE,
    /// those of other users.
    pub fn unreadable_processes(&self) -> u64 {
        self.unreadable.len() as u64
    }

    /// Namespaces that the last look saw and could not open: no right, no
    /// descriptor left, or more of them than are known.
    pub fn unopened(&self) -> u64 {
        self.unopened
    }

    /// Looks anew. When processes are asked by turns, a namespace that comes with a new
    /// process is found at once, one that a process from before the last look goes to
    /// within four looks.
    ///
    /// # Errors
    /// /proc or the names cannot be listed; then nothing has changed.
    pub fn refresh(&mut self, ask: Ask) -> Result<Changes, NamespaceError> {
        let processes = processes()?;
        let mut names = self.names()?;
        let mut look = Look::default();
        let is_another = |known: &mut Namespace| *known.is_replaced.get_mut();
        let mut gone: Vec<_> = self.found.extract_if(.., is_another).collect();
        // Whose processes are there, but not new.
        let ask = if gone.is_empty() { ask } else { Ask::All };
        for known in &mut self.found {
            known.pid = known
                .pid
                .filter(|&pid| of_process(pid) == Some(known.inode));
            if known.pid.is_some() {
                look.seen.insert(known.inode);
            }
        }
        self.turn = (self.turn + 1) % TURNS;
        let is_due = |pid: &u32| {
            let is_new = self.processes.binary_search(pid).is_err();
            // What could not be opened must be counted anew.
            ask == Ask::All || is_new || self.unopened > 0 || pid % TURNS == self.turn
        };
        let (due, others): (Vec<u32>, Vec<u32>) = processes.iter().partition(|pid| is_due(pid));
        self.ask(&mut look, &due);
        for (&inode, (_, path)) in &names {
            if !look.seen.contains(&inode) {
                self.see(&mut look, inode, None, path);
            }
        }
        // One that seems gone may have processes whose turn it is not.
        let is_missed = |known: &Namespace| !known.is_own && !look.seen.contains(&known.inode);
        if self.found.iter().any(is_missed) {
            self.ask(&mut look, &others);
        }
        for known in &mut self.found {
            known.name = names.remove(&known.inode).map(|(name, _)| name);
        }
        self.unopened = look.refused.difference(&look.seen).count() as u64;
        let is_there = |pid: &u32| processes.binary_search(pid).is_ok();
        self.unreadable.retain(is_there);
        self.processes = processes;
        let is_gone = |known: &mut Namespace| !known.is_own && !look.seen.contains(&known.inode);
        gone.extend(self.found.extract_if(.., is_gone));
        Ok(Changes {
            new: look.new,
            gone,
        })
    }

    /// Asks processes for their namespaces.
    fn ask(&mut self, look: &mut Look, processes: &[u32]) {
        for &pid in processes {
            match living::read_link(pid, "ns/net") {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    self.unreadable.insert(pid);
                    continue;
                }
                Ok((path, link)) => {
                    let inode = number(link.as_os_str().as_bytes());
                    if let Some(inode) = inode.filter(|inode| !look.seen.contains(inode)) {
                        self.see(look, inode, Some(pid), &path);
                    }
                }
                // Gone.
                Err(_) => {}
            }
            self.unreadable.remove(&pid);
        }
    }

    /// Takes note of a namespace that is there, and opens it if it is new.
    fn see(&mut self, look: &mut Look, inode: u32, pid: Option<u32>, path: &Path) {
        if let Some(known) = self.found.iter_mut().find(|known| known.inode == inode) {
            known.pid = pid;
            known.path = path.to_path_buf();
            look.seen.insert(inode);
            return;
        }
        if self.found.len() >= MOST_NAMESPACES {
            look.refused.insert(inode);
            return;
        }
        match self.open(path) {
            // Between the link and the open a process can have gone elsewhere.
            Ok(opened) if opened == inode => {
                look.seen.insert(inode);
                look.new.push(inode);
                let path = path.to_path_buf();
                self.found.push(Namespace::new(inode, pid, path));
            }
            Ok(_) => {}
            Err(error) if has_vanished(&error) => {}
            Err(error) => {
                log::debug!("network namespace {inode} at {}: {error}", path.display());
                look.refused.insert(inode);
            }
        }
    }

    /// Opens one, and its number: whoever may do this may enter it too, with CAP_SYS_ADMIN.
    fn open(&self, path: &Path) -> io::Result<u32> {
        let metadata = File::open(path)?.metadata()?;
        if metadata.dev() != self.device {
            return Err(io::Error::other("not a namespace"));
        }
        inode(&metadata)
    }

    /// Names and their files by number. Only what is on the file system of
    /// namespaces counts: a name whose mount is gone is an empty file.
    fn names(&self) -> Result<HashMap<u32, (Text, PathBuf)>, NamespaceError> {
        let mut names = HashMap::new();
        for directory in NAMED {
            let entries = match fs::read_dir(directory) {
                Ok(entries) => entries,
                // ip-netns(8) was never used, or is nothing for this user.
                Err(error) if is_none(&error) => continue,
                Err(source) => return Err(failed(directory)(source)),
            };
            for entry in entries {
                let entry = entry.map_err(failed(directory))?;
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
        }
        Ok(names)
    }
}

/// What a look has come upon.
#[derive(Default)]
struct Look {
    seen: HashSet<u32>,
    refused: HashSet<u32>,
    new: Vec<u32>,
}

/// Ids of the processes, ascending.
fn processes() -> Result<Vec<u32>, NamespaceError> {
    let mut processes = Vec::new();
    for entry in fs::read_dir(PROCESSES).map_err(failed(PROCESSES))? {
        let name = entry.map_err(failed(PROCESSES))?.file_name();
        processes.extend(name.to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    processes.sort_unstable();
    Ok(processes)
}

fn failed(path: &'static str) -> impl Fn(io::Error) -> NamespaceError {
    move |source| NamespaceError::Look { path, source }
}

fn is_none(error: &io::Error) -> bool {
    use io::ErrorKind::{NotFound, PermissionDenied};
    matches!(error.kind(), NotFound | PermissionDenied)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::{Ask, Namespaces, TURNS};
    use crate::host::{
        namespaces::{NamespaceError, of_process, within},
        stranger::Stranger,
    };

    #[test]
    fn the_own_namespace_is_first_and_read_directly() {
        let mut namespaces = Namespaces::find().unwrap();
        let own = &namespaces.all()[0];
        assert!(own.is_own);
        assert_eq!(Some(own.inode), of_process(std::process::id()));
        let caller = thread::current().id();
        assert_eq!(within(own, || thread::current().id()).unwrap(), caller);
        let inode = own.inode;
        assert!(
            !namespaces
                .refresh(Ask::ByTurns)
                .unwrap()
                .new
                .contains(&inode)
        );
        assert_eq!(namespaces.all()[0].inode, inode);
        assert_eq!(namespaces.all().iter().filter(|n| n.is_own).count(), 1);
    }

    #[test]
    fn another_namespace_with_the_same_number_is_a_new_one() {
        const NAME: &str = "another_namespace_with_the_same_number_is_a_new_one";
        let stranger = match Stranger::start() {
            Ok(stranger) => stranger,
            Err(error) => return println!("SKIPPED {NAME}: {error}"),
        };
        let inode = of_process(stranger.pid()).unwrap();
        let mut namespaces = Namespaces::find().unwrap();
        let enter = |namespaces: &Namespaces| within(namespaces.get(inode).unwrap(), || ());
        match enter(&namespaces) {
            Err(NamespaceError::Enter { source, .. }) => {
                return println!("SKIPPED {NAME}: {source}");
            }
            entered => entered.unwrap(),
        }
        // As if it had been another one before; the kernel never gives this number.
        namespaces.get_mut(inode).unwrap().cookie = u64::MAX.into();
        let gone = enter(&namespaces).unwrap_err();
        assert!(matches!(gone, NamespaceError::Gone { .. }), "{gone}");
        let changes = namespaces.refresh(Ask::ByTurns).unwrap();
        assert!(changes.gone.iter().any(|gone| gone.inode == inode));
        assert!(changes.new.contains(&inode));
        enter(&namespaces).unwrap();
        stranger.end();
        let gone = enter(&namespaces).unwrap_err();
        assert!(matches!(gone, NamespaceError::Gone { .. }), "{gone}");
    }

    #[test]
    fn a_namespace_comes_and_goes_with_its_process() {
        const NAME: &str = "a_namespace_comes_and_goes_with_its_process";
        let mut namespaces = Namespaces::find().unwrap();
        let stranger = match Stranger::start() {
            Ok(stranger) => stranger,
            Err(error) => return println!("SKIPPED {NAME}: {error}"),
        };
        let inode = of_process(stranger.pid()).unwrap();
        assert!(namespaces.get(inode).is_none());
        assert!(
            namespaces
                .refresh(Ask::ByTurns)
                .unwrap()
                .new
                .contains(&inode)
        );
        // Whether or not it is the process's turn, and is known to be its.
        for forget in [false, true].repeat(TURNS as usize) {
            let found = namespaces.get_mut(inode).unwrap();
            assert_eq!((found.pid, found.is_own), (Some(stranger.pid()), false));
            if forget {
                found.pid = None;
            }
            let changes = namespaces.refresh(Ask::ByTurns).unwrap();
            assert!(!changes.new.contains(&inode));
            assert!(changes.gone.iter().all(|gone| gone.inode != inode));
        }

        stranger.end();
        let gone = namespaces.refresh(Ask::ByTurns).unwrap().gone;
        assert!(gone.iter().any(|namespace| namespace.inode == inode));
        assert!(namespaces.get(inode).is_none());
    }
}
