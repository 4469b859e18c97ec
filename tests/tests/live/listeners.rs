//! Servers with a namespace of their own, and what tracers say of them.

use std::{
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use serde_json::Value;
use tests::{
    provoke::Workload,
    tcp::{counters::Counters, netns::Joined, seen::list},
    time::{NS, eventually, host_or_guest, monotonic_ns, wall_ns},
    tracer::{Snapshot, Tracer, number},
};

/// The backlog of the listeners.
pub(crate) const BACKLOG: u32 = 64;

/// A listener in a namespace, and another namespace from which it is reached.
pub(crate) struct Server {
    /// Ends before its namespaces do.
    pub(crate) workload: Workload,
    pub(crate) joined: Arc<Joined>,
    pub(crate) to: SocketAddr,
}

impl Server {
    pub(crate) fn new(is_v6: bool, who: &str) -> Self {
        Self::with(&[], is_v6, who)
    }

    /// One whose namespace has settings (/proc/sys/net/ipv4) from before it begins: tracer
    /// reads them now and then only.
    pub(crate) fn with(settings: &[(&str, &str)], is_v6: bool, who: &str) -> Self {
        let joined = Joined::new().expect("two namespaces and a cable");
        joined.knows_strangers(1).expect("routes");
        let set = || {
            let path = |name: &str| format!("/proc/sys/net/ipv4/{name}");
            let mut all = settings.iter();
            all.try_for_each(|(name, value)| std::fs::write(path(name), value))
        };
        joined.ends[1].within(set).expect("settings");
        Self::beside(Arc::new(joined), is_v6, who)
    }

    /// One in the same namespaces.
    pub(crate) fn beside(joined: Arc<Joined>, is_v6: bool, who: &str) -> Self {
        let family = if is_v6 { "v6" } else { "v4" };
        let args = ["tcp-listen", family, &BACKLOG.to_string(), who];
        let ready = || Ok(Workload::ready(&args));
        let mut workload = joined.ends[1].within(ready).expect("a server");
        workload.go();
        let port: u16 = workload.line().parse().expect("a port");
        let to = (Joined::address(1, is_v6), port).into();
        let server = Self {
            joined,
            workload,
            to,
        };
        // The cable may need a moment, and each end the other's address.
        let connect = || server.within(|| TcpStream::connect(to).is_ok());
        assert!(eventually(10.0, connect), "no connection");
        server
    }

    /// Does something where the clients are.
    pub(crate) fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let done = self.joined.ends[0].within(|| Ok(work()));
        done.expect("a namespace")
    }

    /// The same before what else this machine does: clients that answer in time.
    pub(crate) fn within_promptly<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.within(|| {
            // SAFETY: touches no memory; on Linux this is the thread's own.
            unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -10) };
            work()
        })
    }

    pub(crate) fn counters(&self) -> Counters {
        Counters::of_process(self.workload.pid()).expect("counters")
    }

    /// Reads until a tracer has its row and its namespace: a number of a namespace that has
    /// come again is looked for a while later.
    pub(crate) fn is_known_to(&self, tracer: &mut Tracer) {
        let inode = self.joined.ends[1].inode().expect("its number");
        let began_ns = monotonic_ns();
        loop {
            let snapshot = tracer.snapshot();
            let namespaces = list(&snapshot.0["syn"]["namespaces"]);
            let has_it = namespaces.iter().any(|one| one["netns"]["inode"] == inode);
            if has_it && self.find(&snapshot).is_some() {
                return;
            }
            let waited = (monotonic_ns() - began_ns) as f64 / NS;
            let most = host_or_guest(20.0, 60.0);
            assert!(waited < most, "no {inode} after {waited} s: {namespaces:?}");
        }
    }

    fn find<'a>(&self, snapshot: &'a Snapshot) -> Option<&'a Value> {
        let rows = list(&snapshot.0["syn"]["listeners"]);
        rows.iter().find(|row| row["pid"] == self.workload.pid())
    }

    /// Its row.
    pub(crate) fn row<'a>(&self, snapshot: &'a Snapshot) -> &'a Value {
        let rows = &snapshot.0["syn"]["listeners"];
        let row = self.find(snapshot);
        row.unwrap_or_else(|| panic!("no row of {}: {rows}", self.workload.pid()))
    }

    pub(crate) fn verdict<'a>(&self, snapshot: &'a Snapshot) -> &'a str {
        self.row(snapshot)["verdict"].as_str().expect("a verdict")
    }

    /// Sum of a figure over the intervals, where it is known.
    pub(crate) fn sum(&self, snapshots: &[Snapshot], figure: &str) -> f64 {
        let figures = snapshots.iter().map(|snapshot| &self.row(snapshot)[figure]);
        figures.filter(|f| f.is_number()).map(number).sum()
    }
}

/// Does something, and has several tracers read meanwhile: what it came to, and of each the
/// snapshots up to one whose interval began after it.
pub(crate) fn watch<T>(
    tracers: &mut [Tracer],
    work: impl FnOnce() -> T,
) -> (T, Vec<Vec<Snapshot>>) {
    /// Ends the reading, also where the work panics.
    struct Over<'a>(&'a AtomicU64);
    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(wall_ns(), Ordering::Release);
        }
    }
    let over_ns = AtomicU64::new(u64::MAX);
    let read = |tracer: &mut Tracer| {
        let mut snapshots = Vec::new();
        loop {
            let snapshot = tracer.snapshot();
            let is_last = snapshot.began_ns() >= over_ns.load(Ordering::Acquire);
            snapshots.push(snapshot);
            if is_last {
                return snapshots;
            }
        }
    };
    thread::scope(|scope| {
        let readers: Vec<_> = tracers
            .iter_mut()
            .map(|tracer| scope.spawn(move || read(tracer)))
            .collect();
        let over = Over(&over_ns);
        let came_to = work();
        drop(over);
        let read = readers.into_iter().map(|reader| reader.join());
        let all = read.map(|all| all.unwrap_or_else(|e| std::panic::resume_unwind(e)));
        (came_to, all.collect())
    })
}
