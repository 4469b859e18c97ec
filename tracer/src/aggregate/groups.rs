//! Accounts by process, name, cgroup or user.

use std::collections::HashMap;

use super::{
    Spent, TaskIdentity, Used, load,
    processes::{Process, ProcessId},
    why::{Place, Why},
};
use crate::{snapshot::GroupBy, text::Text};

/// Parts of an average below this are not kept as a row of their own: a
/// hundred of them are not yet seen at two decimals.
const FADED: f64 = 0.000_05;

/// What an account is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum GroupKey {
    /// A living process.
    Process(ProcessId),
    /// All processes of a name that ended.
    Exited(Text),
    /// All tasks of a name.
    Comm(Text),
    /// All tasks of a cgroup.
    Cgroup(u64),
    /// All tasks of a user.
    User(u32),
    /// Exited tasks of which no more than the name is known, in another grouping.
    NameOnly,
}

/// An account.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// Since the last snapshot.
    pub interval: Spent,
    /// Since the start.
    pub total: Spent,
    /// Its part of load1, load5, load15.
    pub load: [f64; 3],
    /// What the blocked time was for: since the last snapshot, and since the start.
    pub causes: Causes,
    /// Tasks that exited since the last snapshot.
    pub exited: u64,
    /// Tasks that exited since the start.
    pub exited_total: u64,
    /// Who made the processes that ended since the last snapshot, and the time on a CPU and
    /// waiting for one of those, in ns.
    pub makers: HashMap<(u32, Text), u64>,
    /// Of the task that opened the account.
    pub identity: TaskIdentity,
}

/// Most different reasons that one account tells apart.
const MOST_REASONS: usize = 256;

/// Most makers that one account tells apart.
const MOST_MAKERS: usize = 64;

impl Group {
    /// Who made the most of what ended within the interval: at least half of its time.
    pub fn maker(&self) -> Option<(u32, Text)> {
        let (maker, most) = self
            .makers
            .iter()
            .max_by_key(|(maker, ns)| (**ns, *maker))?;
        let busy_ns = self.interval.run_ns + self.interval.wait_ns;
        (most.saturating_mul(2) >= busy_ns).then(|| maker.clone())
    }
}

/// Blocked time by reason, in ns.
#[derive(Clone, Debug, Default)]
pub struct Causes {
    /// Since the last snapshot.
    pub interval: HashMap<Why, u64>,
    /// Since the start.
    pub total: HashMap<Why, u64>,
}

impl Causes {
    fn credit(&mut self, blame: &[(Why, u64)]) {
        for (why, ns) in blame.iter().filter(|(_, ns)| *ns > 0) {
            for sums in [&mut self.interval, &mut self.total] {
                add(sums, why, *ns);
            }
        }
    }

    fn merge(&mut self, other: Self) {
        let pairs = [
            (&mut self.interval, other.interval),
            (&mut self.total, other.total),
        ];
        for (sums, others) in pairs {
            others.iter().for_each(|(why, ns)| add(sums, why, *ns));
        }
    }
}

/// With too many reasons only the stack is told apart, of which there is a bounded
/// number.
fn add(sums: &mut HashMap<Why, u64>, why: &Why, ns: u64) {
    if sums.len() >= MOST_REASONS
        && let Why::At(place) = why
        && !sums.contains_key(why)
    {
        let why = Why::At(Place {
            stack: place.stack,
            ..Place::default()
        });
        *sums.entry(why).or_default() += ns;
        return;
    }
    *sums.entry(why.clone()).or_default() += ns;
}

/// All accounts.
#[derive(Debug)]
pub struct Groups {
    by: GroupBy,
    groups: HashMap<GroupKey, Group>,
    /// All tasks together since the last snapshot, and since the start.
    interval: Spent,
    total: Spent,
    /// Parts of the averages that faded from accounts no longer kept.
    faded: [f64; 3],
}

impl Groups {
    /// No accounts yet.
    pub fn new(by: GroupBy) -> Self {
        Self {
            by,
            groups: HashMap::new(),
            interval: Spent::default(),
            total: Spent::default(),
            faded: [0.0; 3],
        }
    }

    /// The account of a task.
    pub fn key(&self, task: &TaskIdentity) -> GroupKey {
        match self.by {
            GroupBy::Process => GroupKey::Process(task.process),
            GroupBy::Comm => GroupKey::Comm(task.comm.clone()),
            GroupBy::Cgroup => GroupKey::Cgroup(task.cgroup),
            GroupBy::User => GroupKey::User(task.uid),
        }
    }

    /// Puts used time on its account.
    pub fn credit(&mut self, used: &Used) {
        self.interval += used.time;
        self.total += used.time;
        let key = self.key(&used.key);
        let group = self.groups.entry(key).or_insert_with(|| Group {
            identity: used.key.clone(),
            ..Group::default()
        });
        group.interval += used.time;
        group.total += used.time;
        group.causes.credit(&used.blame);
        group.exited += u64::from(used.has_exited);
        group.exited_total += u64::from(used.has_exited);
    }

    /// Puts the time of exited tasks on the account of their name.
    pub fn credit_exited(&mut self, comm: &Text, exits: u64, time: Spent) {
        self.interval += time;
        self.total += time;
        let key = match self.by {
            GroupBy::Process => GroupKey::Exited(comm.clone()),
            GroupBy::Comm => GroupKey::Comm(comm.clone()),
            GroupBy::Cgroup | GroupBy::User => GroupKey::NameOnly,
        };
        let group = self.groups.entry(key).or_insert_with(|| Group {
            identity: TaskIdentity {
                comm: comm.clone(),
                ..TaskIdentity::default()
            },
            ..Group::default()
        });
        group.interval += time;
        group.total += time;
        // Its records came in, but nobody knows whose they are.
        group.causes.credit(&[(Why::Lost, time.blocked_ns)]);
        group.exited += exits;
        group.exited_total += exits;
    }

    /// Adds a sampled part of the averages.
    pub fn add_load(&mut self, key: &GroupKey, identity: Option<&TaskIdentity>, part: [f64; 3]) {
        let group = self.groups.entry(key.clone()).or_insert_with(|| Group {
            identity: identity.cloned().unwrap_or_default(),
            ..Group::default()
        });
        group
            .load
            .iter_mut()
            .zip(part)
            .for_each(|(load, part)| *load += part);
    }

    /// Puts an ended process together with the others of its name; gives its new key.
    pub fn retire(&mut self, process: &Process, maker: Option<(u32, Text)>) -> Option<GroupKey> {
        let group = self.groups.remove(&GroupKey::Process(process.id))?;
        let identity = &process.identity;
        let key = GroupKey::Exited(identity.comm.clone());
        let exited = self.groups.entry(key.clone()).or_insert_with(|| Group {
            identity: identity.clone(),
            ..Group::default()
        });
        let is_known = |maker: &(u32, Text)| exited.makers.contains_key(maker);
        let maker = maker.filter(|m| exited.makers.len() < MOST_MAKERS || is_known(m));
        if let Some(maker) = maker {
            let busy_ns = group.interval.run_ns + group.interval.wait_ns;
            *exited.makers.entry(maker).or_default() += busy_ns;
        }
        exited.interval += group.interval;
        exited.total += group.total;
        exited.causes.merge(group.causes);
        exited.exited += group.exited;
        exited.exited_total += group.exited_total;
        exited
            .load
            .iter_mut()
            .zip(group.load)
            .for_each(|(load, more)| *load += more);
        Some(key)
    }

    /// Multiplies every part of the averages, the faded ones too.
    pub fn scale_load(&mut self, factors: [f64; 3]) {
        let loads = self.groups.values_mut().map(|group| &mut group.load);
        for load in loads.chain([&mut self.faded]) {
            load.iter_mut()
                .zip(factors)
                .for_each(|(load, factor)| *load *= factor);
        }
    }

    /// Moves every part of the averages up by a share of its size.
    pub fn stretch_load(&mut self, shares: [f64; 3]) {
        let loads = self.groups.values_mut().map(|group| &mut group.load);
        for load in loads.chain([&mut self.faded]) {
            load::stretch(load, shares);
        }
    }

    /// All parts of the averages together, and their sizes together.
    pub fn sum_load(&self) -> ([f64; 3], [f64; 3]) {
        let (mut sum, mut size) = ([0.0; 3], [0.0; 3]);
        let loads = self.groups.values().map(|group| group.load);
        for load in loads.chain([self.faded]) {
            for i in 0..3 {
                sum[i] += load[i];
                size[i] += load[i].abs();
            }
        }
        (sum, size)
    }

    /// An account.
    pub fn get(&self, key: &GroupKey) -> Option<&Group> {
        self.groups.get(key)
    }

    /// Every account.
    pub fn iter(&self) -> impl Iterator<Item = (&GroupKey, &Group)> {
        self.groups.iter()
    }

    /// All tasks together: since the last snapshot, and since the start.
    pub fn all(&self) -> (Spent, Spent) {
        (self.interval, self.total)
    }

    /// Parts of accounts that are no longer kept.
    pub fn faded(&self) -> [f64; 3] {
        self.faded
    }

    /// Begins a new interval. Accounts that faded are closed, but for those of
    /// living processes and those that `keep` says are among the largest of the run.
    pub fn begin_interval(&mut self, keep: impl Fn(&Group) -> bool) {
        self.interval = Spent::default();
        let faded = &mut self.faded;
        self.groups.retain(|key, group| {
            group.interval = Spent::default();
            group.causes.interval.clear();
            group.makers.clear();
            group.exited = 0;
            let has_faded = group.load.iter().all(|load| load.abs() < FADED);
            if has_faded && !matches!(key, GroupKey::Process(_)) && !keep(group) {
                faded
                    .iter_mut()
                    .zip(group.load)
                    .for_each(|(sum, load)| *sum += load);
                return false;
            }
            true
        });
    }
}
