//! Memory cgroups: which have a limit, how much of it is in use, and how often the
//! OOM killer came.
//!
//! A host can have thousands, and most have no limit. A reading asks of each
//! whether its directory has changed, and for its limit: two looks. Directories are
//! listed again only when they have changed. The rest is read where there is a
//! limit, or where the OOM killer was. The identity of a cgroup is the inode number
//! of its directory.

use std::{
    collections::{HashMap, VecDeque},
    ffi::OsString,
    fs::{self, Metadata},
    io, mem,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use super::{
    files::{Cache, Files, Kills, is_gone},
    hierarchy::Hierarchy,
    host_oom_kills,
};
use crate::{kernel::fields::CgroupVersion, text::Text};

/// No more cgroups than this are looked at. They are taken level by level, so that
/// what is left out is deepest down, and limits above it are seen.
pub const MOST_CGROUPS: usize = 10_000;
/// No more names than this are kept, of cgroups that have gone among them.
const MOST_NAMES: usize = 65_536;
/// kernfs counts two links and one for each directory below
/// (`kernfs_refresh_inode`, fs/kernfs/inode.c). Less says nothing.
const LEAST_LINKS: u64 = 2;

/// A memory cgroup that has a limit, or in which the OOM killer was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryCgroup {
    /// The inode number of its directory (`cgroup_id`, include/linux/cgroup.h; of
    /// the memory controller's hierarchy).
    pub id: u64,
    /// Its path from the root of the mounted hierarchy, which is `/`.
    pub path: Text,
    /// v2 `memory.max`, v1 `memory.limit_in_bytes`. `None`: no limit of its own.
    /// Those of the cgroups above hold for it, too.
    pub limit_bytes: Option<u64>,
    /// Memory in use, page cache and all below it included: v2 `memory.current`,
    /// v1 `memory.usage_in_bytes`.
    pub usage_bytes: u64,
    /// v2 `memory.swap.max`. v1 limits memory and swap together: what
    /// `memory.memsw.limit_in_bytes` has beyond the limit of memory. `None`: no
    /// limit, or swap is not accounted.
    pub swap_limit_bytes: Option<u64>,
    /// Swap in use: v2 `memory.swap.current`, v1 what `memory.memsw.usage_in_bytes`
    /// has beyond the memory. `None`: swap is not accounted.
    pub swap_usage_bytes: Option<u64>,
    /// Processes killed by the OOM killer, whatever they were killed for: v2
    /// `oom_kill` of `memory.events`, which has those of all cgroups below, also of
    /// those that have gone (unless mounted with `memory_localevents`); v1
    /// `oom_kill` of `memory.oom_control`, which has its own only.
    pub oom_kills: Option<u64>,
    /// Of these, those that were in this very cgroup: v2 `oom_kill` of
    /// `memory.events.local`.
    pub own_oom_kills: Option<u64>,
    /// How often all of a cgroup was killed as one: v2 `oom_group_kill` of
    /// `memory.events` (from 5.17).
    pub oom_group_kills: Option<u64>,
    /// Whether all its processes are killed when one is: v2 `memory.oom.group`.
    pub oom_group: bool,
    /// The nearest cgroup above that is in the same reading. Those in between have
    /// no limit, and had no kill.
    pub parent: Option<u64>,
}

/// The memory cgroups of the host.
#[derive(Debug)]
pub struct MemoryCgroups {
    hierarchy: Option<Hierarchy>,
    most: usize,
    known: HashMap<u64, Directory>,
    names: HashMap<u64, Text>,
    left_out: usize,
    unreadable: usize,
    has_looked_again: bool,
}

/// A cgroup as the last reading found it.
#[derive(Debug, Default)]
struct Directory {
    links: u64,
    below: Vec<OsString>,
    /// The cgroup itself if it was in the reading, else the nearest above.
    listed: Option<u64>,
}

/// A cgroup to look at, and what is known of those above it.
struct Visit {
    place: PathBuf,
    /// The one right above; the root has none.
    above: Option<u64>,
    /// The nearest above that is in the reading.
    listed: Option<u64>,
    can_have_kills: bool,
}

/// A walk in progress: what the one before found, and what is still to be looked at.
struct Walk {
    hierarchy: Hierarchy,
    before: HashMap<u64, Directory>,
    open: VecDeque<Visit>,
}

impl MemoryCgroups {
    /// Finds the hierarchy that has the memory controller, among the mounts.
    pub fn new() -> Self {
        Self::of(Hierarchy::find(), MOST_CGROUPS)
    }

    pub(super) fn of(hierarchy: Option<Hierarchy>, most: usize) -> Self {
        Self {
            hierarchy,
            most,
            known: HashMap::new(),
            names: HashMap::new(),
            left_out: 0,
            unreadable: 0,
            has_looked_again: false,
        }
    }

    /// The version of that hierarchy. `None`: none is mounted, or the controller is
    /// off (`cgroup_disable=memory`). Then readings are empty.
    pub fn version(&self) -> Option<CgroupVersion> {
        Some(self.hierarchy.as_ref()?.version)
    }

    /// How many cgroups the last reading left out, as there were more than
    /// `MOST_CGROUPS`. What is below them was not counted: there are at least so
    /// many.
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// How many cgroups the last reading could not read, though they are there.
    /// What is below them was not looked at. The debug log has the reasons.
    pub fn unreadable(&self) -> usize {
        self.unreadable
    }

    /// Reads the cgroups that have a limit or had a kill, those above before those
    /// below. One that goes meanwhile is passed over. One that takes the place of
    /// another can be found a reading late.
    pub fn read(&mut self) -> Vec<MemoryCgroup> {
        self.has_looked_again = false;
        // The host counts a kill before the cgroup does (`__oom_kill_process`).
        self.walk(host_oom_kills() != Some(0))
    }

    /// The path of a memory cgroup, with a limit or without, also of one that has
    /// gone since it was seen. For an unknown one the cgroups are read anew, once
    /// between two readings.
    pub fn by_id(&mut self, id: u64) -> Option<Text> {
        if !self.names.contains_key(&id) && !self.has_looked_again {
            self.read();
            self.has_looked_again = true;
        }
        self.names.get(&id).cloned()
    }

    /// Whether all of it dies when one of it is chosen: it or one above has
    /// `memory.oom.group` (`mem_cgroup_get_oom_group`, mm/memcontrol.c). One above the
    /// cgroup that is out of memory does not count, and nobody knows here which that is.
    pub fn is_killed_whole(&mut self, id: u64) -> bool {
        let (Some(path), Some(hierarchy)) = (self.by_id(id), &self.hierarchy) else {
            return false;
        };
        let levels = Path::new(path.as_str().trim_start_matches('/')).ancestors();
        levels.map(|level| hierarchy.root.join(level)).any(|place| {
            let files = Files {
                directory: &place,
                version: hierarchy.version,
            };
            files.is_oom_group()
        })
    }

    /// The cgroup of the last reading that this one is, or else is in: the one whose
    /// limit holds for a cgroup without. `None` where there is no such, or the
    /// cgroup was not there.
    pub fn listed(&self, id: u64) -> Option<u64> {
        self.known.get(&id)?.listed
    }

    /// Of a cgroup's memory the cache of files, with all below it, as its usage is.
    pub fn cache(&self, cgroup: &MemoryCgroup) -> Option<Cache> {
        self.within(cgroup, |files| files.cache())?
    }

    /// The processes in a cgroup, not those below it.
    pub fn processes(&self, cgroup: &MemoryCgroup) -> Vec<u32> {
        let processes = self.within(cgroup, |files| files.processes());
        processes.unwrap_or_default()
    }

    fn within<T>(&self, cgroup: &MemoryCgroup, read: impl Fn(&Files<'_>) -> T) -> Option<T> {
        let hierarchy = self.hierarchy.as_ref()?;
        let path = cgroup.path.as_str().trim_start_matches('/');
        Some(read(&Files {
            directory: &hierarchy.root.join(path),
            version: hierarchy.version,
        }))
    }

    pub(super) fn walk(&mut self, can_have_kills: bool) -> Vec<MemoryCgroup> {
        let Some(hierarchy) = self.hierarchy.clone() else {
            return Vec::new();
        };
        (self.left_out, self.unreadable) = (0, 0);
        let root = Visit {
            place: hierarchy.root.clone(),
            above: None,
            listed: None,
            can_have_kills,
        };
        let mut walk = Walk {
            hierarchy,
            before: mem::take(&mut self.known),
            open: VecDeque::from([root]),
        };
        let mut reading = Vec::new();
        while let Some(visit) = walk.open.pop_front() {
            match self.visit(&mut walk, &visit) {
                Ok(cgroup) => reading.extend(cgroup),
                Err(error) => self.note(&visit.place, &error),
            }
        }
        if self.names.len() > MOST_NAMES {
            self.names.retain(|id, _| self.known.contains_key(id));
        }
        reading
    }

    /// Looks at a cgroup, and opens those below it.
    fn visit(&mut self, walk: &mut Walk, visit: &Visit) -> io::Result<Option<MemoryCgroup>> {
        let meta = fs::symlink_metadata(&visit.place).inspect_err(|_| self.list_anew(visit))?;
        let id = meta.ino();
        let files = Files {
            directory: &visit.place,
            version: walk.hierarchy.version,
        };
        let limit_bytes = match files.limit() {
            // The root of v2 has no limit to be read.
            Err(error) if is_gone(&error) && visit.above.is_none() => None,
            // Gone, or without the controller, which then is not in force below.
            limit => limit?,
        };
        let path = path_of(&walk.hierarchy.root, &visit.place);
        self.names.insert(id, path.clone());
        let kills = match limit_bytes.is_some() || visit.can_have_kills {
            true => files.kills(),
            false => Kills::default(),
        };
        let is_listed = limit_bytes.is_some() || kills.all.is_some_and(|kills| kills > 0);
        let cgroup = match is_listed {
            true => Some(listed(id, path, visit, &files, limit_bytes, kills)?),
            false => None,
        };
        let below = Visit {
            place: visit.place.clone(),
            above: Some(id),
            listed: if is_listed { Some(id) } else { visit.listed },
            can_have_kills: visit.can_have_kills
                && !(walk.hierarchy.events_add_up && kills.all == Some(0)),
        };
        self.open(walk, &meta, below);
        Ok(cgroup)
    }

    /// Opens what is below a cgroup. `visit` is as for those, but for their names.
    fn open(&mut self, walk: &mut Walk, meta: &Metadata, visit: Visit) {
        let id = meta.ino();
        let links = meta.nlink();
        let below = match walk.before.remove(&id) {
            Some(before) if before.links == links && links >= LEAST_LINKS => before.below,
            _ if links == LEAST_LINKS => Vec::new(),
            _ => self.list(&visit.place),
        };
        for name in &below {
            // This one is not among the known yet.
            if self.known.len() + 1 + walk.open.len() >= self.most {
                self.left_out += 1;
            } else {
                walk.open.push_back(Visit {
                    place: visit.place.join(name),
                    ..visit
                });
            }
        }
        let directory = Directory {
            links,
            below,
            listed: visit.listed,
        };
        self.known.insert(id, directory);
    }

    fn list(&mut self, place: &Path) -> Vec<OsString> {
        let entries = match fs::read_dir(place) {
            Ok(entries) => entries,
            Err(error) => {
                self.note(place, &error);
                return Vec::new();
            }
        };
        let directories = entries
            .filter_map(Result::ok)
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        directories.map(|entry| entry.file_name()).collect()
    }

    /// Where one has gone another can have come, and the number is the same.
    fn list_anew(&mut self, gone: &Visit) {
        let above = gone.above.and_then(|id| self.known.get_mut(&id));
        if let Some(directory) = above {
            directory.links = 0;
        }
    }

    /// Counts a cgroup that cannot be read, unless it has gone.
    fn note(&mut self, place: &Path, error: &io::Error) {
        if !is_gone(error) {
            self.unreadable += 1;
            let place = Text::from_bytes(place.as_os_str().as_bytes());
            log::debug!("cannot read memory cgroup {place}: {error}");
        }
    }
}

impl Default for MemoryCgroups {
    fn default() -> Self {
        Self::new()
    }
}

/// Reads the rest of a cgroup that comes into the reading.
fn listed(
    id: u64,
    path: Text,
    visit: &Visit,
    files: &Files<'_>,
    limit_bytes: Option<u64>,
    kills: Kills,
) -> io::Result<MemoryCgroup> {
    let usage = files.usage(limit_bytes)?;
    Ok(MemoryCgroup {
        id,
        path,
        limit_bytes,
        usage_bytes: usage.bytes,
        swap_limit_bytes: usage.swap_limit_bytes,
        swap_usage_bytes: usage.swap_bytes,
        oom_kills: kills.all,
        own_oom_kills: kills.own,
        oom_group_kills: kills.of_groups,
        oom_group: files.is_oom_group(),
        parent: visit.listed,
    })
}

fn path_of(root: &Path, place: &Path) -> Text {
    let below = place.strip_prefix(root).unwrap_or(place).as_os_str();
    Text::from_bytes(&[b"/", below.as_bytes()].concat())
}
