//! The budgets: what tracer may cost, and how far below its peers it must stay.
//!
//! A figure that is over its budget fails the run. A budget is kept or not by
//! medians alone; the spread is for the reader. A goal is a limit that tracer does
//! not keep yet: it is shown beside the budgets, and fails nothing. The budget on
//! the same figure keeps it from getting worse.

use super::{
    contenders::{FLOOR_OF_TASKS, WALKER},
    crowds, document,
    document::{Document, Quantity, TRACER, Verdict},
    events, slowdown, starts, statistics,
};

struct Budget {
    name: &'static str,
    subject: Subject,
    limit: Limit,
    reason: &'static str,
}

/// What is limited.
enum Subject {
    /// tracer's own figure.
    Own(&'static str, &'static Quantity),
    /// A peer's figure as a multiple of tracer's, which counts as the last number
    /// at least.
    Peer(&'static str, &'static str, &'static Quantity, f64),
    /// tracer's figure as a multiple of another's.
    Over(&'static str, &'static str, &'static Quantity),
}

enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

use Limit::{AtLeast, AtMost};
use Subject::{Over, Own, Peer};

const BUDGETS: [Budget; 15] = [
    Budget {
        name: "a context switch, net of the floor",
        subject: Own(events::SWITCHES, &events::HOOK_NET),
        limit: AtMost(10.0),
        reason: "the hot hook does one load and one test",
    },
    Budget {
        name: "the same beside runqlat",
        subject: Peer("runqlat", events::SWITCHES, &events::HOOK_NET, 1.0),
        limit: AtLeast(30.0),
        reason: "no look-up at a switch; tracer's net counts as 1 ns at least",
    },
    Budget {
        name: "the same beside offcputime",
        subject: Peer("offcputime", events::SWITCHES, &events::HOOK_NET, 1.0),
        limit: AtLeast(200.0),
        reason: "no stack at a switch; tracer's net counts as 1 ns at least",
    },
    Budget {
        name: "throughput of pipe round trips lost",
        subject: Own(slowdown::ROUND_TRIPS, &slowdown::LOST),
        limit: AtMost(8.0),
        reason: "empty programs on both hooks lose 3 to 5 %, and the machine is noisy",
    },
    Budget {
        name: "a transition of a TCP socket",
        subject: Own(events::CONNECTIONS, &events::TRANSITION),
        limit: AtMost(150.0),
        reason: "no look-up in a hash; the kernel's own measurement of two programs is most of it",
    },
    Budget {
        name: "throughput of TCP connections lost",
        subject: Own(slowdown::CONNECTIONS, &slowdown::LOST),
        limit: AtMost(15.0),
        reason: "the same, and the context switches of both ends; a connection takes 13 us in all",
    },
    Budget {
        name: "a snapshot of 10,000 processes beside an empty task iterator",
        subject: Over(FLOOR_OF_TASKS, crowds::MANY, &crowds::A_SNAPSHOT),
        limit: AtMost(2.0),
        reason: "the kernel's own walk over the tasks is most of it, on any machine",
    },
    Budget {
        name: "a snapshot of 10,000 threads beside an empty task iterator",
        subject: Over(FLOOR_OF_TASKS, crowds::THREADS, &crowds::A_SNAPSHOT),
        limit: AtMost(2.0),
        reason: "the same",
    },
    Budget {
        name: "a snapshot of 10,000 processes beside the schedstat walker",
        subject: Peer(WALKER, crowds::MANY, &crowds::A_SNAPSHOT, 0.0),
        limit: AtLeast(6.0),
        reason: "an iterator opens no files; how many times depends on what opening one costs: 17 \
                 on an AMD machine, 9 on an Intel one",
    },
    Budget {
        name: "a snapshot of 10,000 threads beside the schedstat walker",
        subject: Peer(WALKER, crowds::THREADS, &crowds::A_SNAPSHOT, 0.0),
        limit: AtLeast(3.0),
        reason: "the same, where the walker lists one folder only: 12 and 4",
    },
    Budget {
        name: "CPU among 100 processes",
        subject: Own(crowds::FEW, &crowds::CPU),
        limit: AtMost(0.5),
        reason: "a host with little to see pays next to nothing",
    },
    Budget {
        name: "CPU among 10,000 processes",
        subject: Own(crowds::MANY, &crowds::CPU),
        limit: AtMost(2.0),
        reason: "the cost of a crowd stays in proportion",
    },
    Budget {
        name: "resident memory among 10,000 processes",
        subject: Own(crowds::MANY, &crowds::RSS),
        limit: AtMost(40.0),
        reason: "memory is bounded",
    },
    Budget {
        name: "resident memory among 10,000 threads",
        subject: Own(crowds::THREADS, &crowds::RSS),
        limit: AtMost(40.0),
        reason: "memory is bounded",
    },
    Budget {
        name: "from exec to the first figures, interval of 1 s",
        subject: Own(starts::STARTS, &starts::TIME),
        limit: AtMost(1300.0),
        reason: "0.3 s beside the interval",
    },
];

const GOALS: [Budget; 3] = [
    Budget {
        name: "throughput of TCP connections lost",
        subject: Own(slowdown::CONNECTIONS, &slowdown::LOST),
        limit: AtMost(3.0),
        reason: "two empty programs alone lose 3 to 5 %, and with one program no count is exact",
    },
    Budget {
        name: "throughput of pipe round trips lost",
        subject: Own(slowdown::ROUND_TRIPS, &slowdown::LOST),
        limit: AtMost(2.0),
        reason: "not even empty programs keep it on the machine that was measured",
    },
    Budget {
        name: "a snapshot of 10,000 processes beside the schedstat walker",
        subject: Peer(WALKER, crowds::MANY, &crowds::A_SNAPSHOT, 0.0),
        limit: AtLeast(30.0),
        reason: "half of a snapshot is the kernel's own walk over the tasks",
    },
];

/// Holds every budget and every goal against a finished document.
pub fn judge(document: &Document) -> Vec<Verdict> {
    let budgets = BUDGETS.iter().map(|budget| budget.judge(document));
    let goals = GOALS.iter().map(|goal| Verdict {
        is_goal: true,
        ..goal.judge(document)
    });
    budgets.chain(goals).collect()
}

/// The budgets that are not kept.
pub fn broken(document: &Document) -> impl Iterator<Item = &Verdict> {
    let verdicts = document.verdicts.iter();
    verdicts.filter(|verdict| !verdict.is_goal && verdict.kept == Some(false))
}

impl Budget {
    fn judge(&self, document: &Document) -> Verdict {
        let found = self.subject.find(document);
        let unit = self.subject.unit();
        let (word, limit, kept) = match self.limit {
            AtMost(limit) => ("at most", limit, found.map(|found| found <= limit)),
            AtLeast(limit) => ("at least", limit, found.map(|found| found >= limit)),
        };
        Verdict {
            name: self.name.to_owned(),
            limit: format!("{word} {limit}"),
            found,
            unit: unit.to_owned(),
            kept,
            reason: self.reason.to_owned(),
            is_goal: false,
        }
    }
}

impl Subject {
    fn find(&self, document: &Document) -> Option<f64> {
        let median = |workload, contender, quantity: &Quantity| {
            let figure: Option<&document::Figure> =
                document.figure(workload, contender, quantity.name);
            Some(figure?.median)
        };
        match *self {
            Own(workload, quantity) => median(workload, TRACER, quantity),
            Peer(peer, workload, quantity, at_least) => statistics::ratio(
                median(workload, peer, quantity)?,
                median(workload, TRACER, quantity)?,
                at_least,
            ),
            Over(floor, workload, quantity) => statistics::ratio(
                median(workload, TRACER, quantity)?,
                median(workload, floor, quantity)?,
                0.0,
            ),
        }
    }

    fn unit(&self) -> &'static str {
        match self {
            Own(_, quantity) => quantity.unit,
            Peer(..) => "times tracer's",
            Over(..) => "times that",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::document::tests::empty;

    fn verdict<'a>(verdicts: &'a [Verdict], name: &str) -> &'a Verdict {
        verdicts.iter().find(|v| v.name == name).unwrap()
    }

    #[test]
    fn a_budget_is_kept_broken_or_not_measured() {
        let mut document = empty();
        for ns in [4.0, 5.0, 30.0] {
            document.note(events::SWITCHES, TRACER, &events::HOOK_NET, ns);
        }
        document.note(events::SWITCHES, "runqlat", &events::HOOK_NET, 140.0);
        document.finish();
        document.verdicts = judge(&document);
        let own = verdict(&document.verdicts, "a context switch, net of the floor");
        assert_eq!((own.found, own.kept), (Some(5.0), Some(true)));
        let peer = verdict(&document.verdicts, "the same beside runqlat");
        assert_eq!((peer.found, peer.kept), (Some(28.0), Some(false)));
        let unknown = verdict(&document.verdicts, "the same beside offcputime");
        assert_eq!((unknown.found, unknown.kept), (None, None));
        let names: Vec<_> = broken(&document).map(|v| v.name.as_str()).collect();
        assert_eq!(names, ["the same beside runqlat"]);
    }

    #[test]
    fn a_goal_that_is_missed_breaks_nothing() {
        let mut document = empty();
        document.note(slowdown::ROUND_TRIPS, TRACER, &slowdown::LOST, 3.0);
        document.finish();
        document.verdicts = judge(&document);
        let missed = document.verdicts.iter().filter(|v| v.kept == Some(false));
        assert!(missed.clone().all(|verdict| verdict.is_goal));
        assert_eq!(missed.count(), 1);
        assert_eq!(broken(&document).count(), 0);
    }

    #[test]
    fn a_net_cost_below_the_noise_counts_as_one_ns() {
        let mut document = empty();
        document.note(events::SWITCHES, TRACER, &events::HOOK_NET, -2.0);
        document.note(events::SWITCHES, "runqlat", &events::HOOK_NET, 440.0);
        document.finish();
        let verdicts = judge(&document);
        assert_eq!(
            verdict(&verdicts, "the same beside runqlat").found,
            Some(440.0)
        );
    }
}
