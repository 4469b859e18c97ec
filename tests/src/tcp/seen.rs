//! What tracer says of TCP, from its lines of JSON.

use serde_json::Value;

use super::states::{States, Transitions};
use crate::tracer::Snapshot;

/// The transitions of all these intervals together.
pub fn transitions<'a>(snapshots: impl IntoIterator<Item = &'a Snapshot>) -> Transitions {
    let mut all = Transitions::default();
    for snapshot in snapshots {
        all.extend(&Transitions::of(&snapshot.0["tcp"]["transitions"]));
    }
    all
}

/// A counter over all these intervals.
pub fn counter<'a>(snapshots: impl IntoIterator<Item = &'a Snapshot>, name: &str) -> u64 {
    let count = |snapshot: &Snapshot| {
        let count = snapshot.0["tcp"]["counters"][name].as_u64();
        count.unwrap_or_else(|| panic!("a counter {name}"))
    };
    snapshots.into_iter().map(count).sum()
}

/// Sockets by state, those without one left out.
pub fn states(json: &Value) -> States {
    let states = json.as_object().expect("states").iter();
    states
        .map(|(name, count)| (name.clone(), count.as_u64().expect("a count")))
        .filter(|(_, count)| *count > 0)
        .collect()
}

/// Those of a namespace, by its inode number; none when tracer does not have it.
pub fn states_within(snapshot: &Snapshot, inode: u64) -> States {
    let namespaces = list(&snapshot.0["tcp"]["namespaces"]).iter();
    let mut of_it = namespaces.filter(|one| one["netns"]["inode"] == inode);
    of_it
        .next()
        .map_or_else(States::new, |one| states(&one["states"]))
}

/// The row of a process with sockets in CLOSE_WAIT.
pub fn close_wait(snapshot: &Snapshot, pid: u32) -> Option<&Value> {
    let rows = list(&snapshot.0["tcp"]["close_wait"]).iter();
    let mut of_pid = rows.filter(|row| row["pid"] == pid);
    of_pid.next()
}

/// Whether a process is said to leak.
pub fn leaks(snapshot: &Snapshot, pid: u32) -> bool {
    close_wait(snapshot, pid).is_some_and(|row| row["leak"] == true)
}

/// The rows of a process that has sockets in TIME_WAIT.
pub fn time_wait(snapshot: &Snapshot, pid: u32) -> Vec<&Value> {
    let rows = list(&snapshot.0["tcp"]["time_wait"]).iter();
    rows.filter(|row| row["pid"] == pid).collect()
}

/// Sum of a figure over the rows of a list and over intervals, of the rows that are wanted.
pub fn sum<'a>(
    snapshots: impl IntoIterator<Item = &'a Snapshot>,
    rows: &str,
    figure: &str,
    is_wanted: impl Fn(&Value) -> bool,
) -> u64 {
    let rows = snapshots
        .into_iter()
        .flat_map(|snapshot| list(&snapshot.0["tcp"][rows]));
    rows.filter(|row| is_wanted(row))
        .map(|row| row[figure].as_u64().expect("a count"))
        .sum()
}

/// A list of JSON.
#[track_caller]
pub fn list(json: &Value) -> &[Value] {
    json.as_array().expect("a list")
}
