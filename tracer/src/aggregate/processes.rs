//! Processes: thread groups, told apart although their ids come again.

use std::collections::{BTreeMap, HashMap};

use super::TaskIdentity;
use crate::{clock::MonotonicNs, decode::task::TaskReading, text::Text};

/// A process for good: the id alone is given out again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcessId {
    /// `task_struct.tgid`.
    pub pid: u32,
    /// Fork time of its first task, or of the task that was seen first.
    pub since: MonotonicNs,
}

/// The tasks of one thread group.
#[derive(Clone, Debug)]
pub struct Process {
    /// Which.
    pub id: ProcessId,
    /// Name, cgroup and user: of its first task, else of the one seen first.
    pub identity: TaskIdentity,
    /// Who made it, as it was seen first: when that ends, another takes it over.
    pub parent: u32,
    /// A kernel thread.
    pub is_kernel: bool,
    /// Tasks alive.
    pub threads: u64,
    leader_start: Option<MonotonicNs>,
}

impl Process {
    fn has(&self, task: &TaskReading) -> bool {
        self.id.pid == task.pid
            && if is_leader(task) {
                match self.leader_start {
                    Some(start) => start == task.start,
                    None => self.id.since >= task.start,
                }
            } else {
                self.id.since <= task.start
            }
    }
}

fn is_leader(task: &TaskReading) -> bool {
    task.tid == task.pid
}

/// The living, and those that ended within this reading.
#[derive(Debug, Default)]
pub struct Processes {
    living: HashMap<u32, Process>,
    /// By id, which can come again within one reading.
    ended: BTreeMap<u32, Vec<Process>>,
}

impl Processes {
    /// The process that has the id.
    pub fn get(&self, id: ProcessId) -> Option<&Process> {
        let living = self.living.get(&id.pid).filter(|process| process.id == id);
        living.or_else(|| self.ended(id.pid).find(|process| process.id == id))
    }

    /// The process of a task that was read.
    pub fn find(&self, task: &TaskReading) -> Option<&Process> {
        let living = self
            .living
            .get(&task.pid)
            .filter(|process| process.has(task));
        living.or_else(|| self.ended(task.pid).rev().find(|process| process.has(task)))
    }

    fn ended(&self, pid: u32) -> impl DoubleEndedIterator<Item = &Process> {
        self.ended.get(&pid).into_iter().flatten()
    }

    fn end(&mut self, process: Process) {
        self.ended.entry(process.id.pid).or_default().push(process);
    }

    /// A living task is one of its process's, new or known.
    pub fn join(&mut self, task: &TaskReading, is_new: bool) -> ProcessId {
        if !self
            .living
            .get(&task.pid)
            .is_some_and(|process| process.has(task))
            && let Some(former) = self.living.insert(task.pid, new(task))
        {
            self.end(former);
        }
        let Some(process) = self.living.get_mut(&task.pid) else {
            return new(task).id;
        };
        process.threads += u64::from(is_new);
        if is_leader(task) {
            process.leader_start = Some(task.start);
            process.is_kernel = task.is_kernel;
            process.identity = TaskIdentity::of(task, process.id);
        }
        process.id
    }

    /// A task that was counted is gone.
    pub fn leave(&mut self, id: ProcessId) {
        let Some(process) = self
            .living
            .get_mut(&id.pid)
            .filter(|process| process.id == id)
        else {
            return;
        };
        process.threads = process.threads.saturating_sub(1);
        if process.threads == 0
            && let Some(process) = self.living.remove(&id.pid)
        {
            self.end(process);
        }
    }

    /// The process of a task that is dead already, made up when none is known:
    /// it began and ended since the last reading.
    pub fn of_dead(&mut self, task: &TaskReading) -> ProcessId {
        if let Some(id) = self.find(task).map(|process| process.id) {
            if is_leader(task)
                && let Some(process) = self
                    .ended
                    .get_mut(&id.pid)
                    .and_then(|ended| ended.iter_mut().find(|process| process.id == id))
            {
                // Another of its tasks may have come first; this one has the name.
                process.identity = TaskIdentity::of(task, id);
            }
            return id;
        }
        let process = new(task);
        let id = process.id;
        self.end(process);
        id
    }

    /// Who made a process, of those that were there at `since`: what made it and came later
    /// (a shell, a compiler's driver) is passed over, however long that chain is up to 16.
    /// `ended` are processes that ended with this reading.
    pub fn maker(
        &self,
        process: &Process,
        since: MonotonicNs,
        ended: &HashMap<u32, &Process>,
    ) -> Option<(u32, Text)> {
        let mut parent = process.parent;
        for _ in 0..16 {
            let maker = self.living.get(&parent).or(ended.get(&parent).copied())?;
            if maker.id.since <= since {
                return Some((maker.id.pid, maker.identity.comm.clone()));
            }
            parent = maker.parent;
        }
        None
    }

    /// Those that ended since the last call.
    pub fn take_ended(&mut self) -> Vec<Process> {
        std::mem::take(&mut self.ended)
            .into_values()
            .flatten()
            .collect()
    }
}

fn new(task: &TaskReading) -> Process {
    let id = ProcessId {
        pid: task.pid,
        since: task.start,
    };
    Process {
        id,
        identity: TaskIdentity::of(task, id),
        parent: task.parent,
        is_kernel: task.is_kernel,
        threads: 0,
        leader_start: is_leader(task).then_some(task.start),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::Processes;
    use crate::{clock::MonotonicNs, decode::task::TaskReading};

    fn task(pid: u32, parent: u32, start: u64) -> TaskReading {
        TaskReading {
            pid,
            tid: pid,
            parent,
            start: MonotonicNs(start),
            comm: format!("p{pid}").as_str().into(),
            ..TaskReading::default()
        }
    }

    /// make, a shell that it starts, a compiler of that: the first of them was there before.
    #[test]
    fn who_made_a_process_was_there_before() {
        let mut processes = Processes::default();
        processes.join(&task(10, 1, 50), true);
        for (pid, parent) in [(12, 11), (11, 10)] {
            processes.of_dead(&task(pid, parent, 200));
        }
        let ended = processes.take_ended();
        let by_pid: HashMap<_, _> = ended.iter().map(|p| (p.id.pid, p)).collect();
        let maker = |pid| processes.maker(by_pid[&pid], MonotonicNs(100), &by_pid);
        assert_eq!(maker(12), Some((10, "p10".into())));
        assert_eq!(maker(11), Some((10, "p10".into())));
        // Its parent is not known.
        processes.of_dead(&task(20, 19, 200));
        let ended = processes.take_ended();
        assert_eq!(
            processes.maker(&ended[0], MonotonicNs(100), &HashMap::new()),
            None
        );
    }
}
