//! One look: attach, watch for a while, and the snapshot of that.

use std::{path::PathBuf, thread, time::Duration};

use super::{
    cost::CostMeter,
    nanoseconds,
    source::{Source, Wants},
};
use crate::{
    aggregate::{LoadAggregate, Options, tcp::TcpAges},
    cli::{HowFunctions, WatchArgs},
    clock,
    host::users::Users,
    kernel::probes::PROBES,
    snapshot::{GroupBy, HookState, Snapshot},
};

/// Rows that are kept.
const TOP: usize = 20;
/// The defaults of `tracer run`.
const MIN_BLOCK: Duration = Duration::from_millis(1);
const LEAK_AGE: Duration = Duration::from_secs(10);
/// A look is over before.
const AFTER_A_LOOK: Duration = Duration::from_secs(3600);
/// Time that is watched at least, also where attaching takes as long as the sample: 20
/// ticks of 10 ms say how long a jiffy is (`aggregate/tcp/hertz.rs`), and without it sockets
/// from before have no age.
const LEAST: Duration = Duration::from_millis(300);

/// What the kernel's events said.
#[derive(Debug)]
pub struct Watched {
    /// Everything, over the time that was watched.
    pub snapshot: Snapshot,
    /// Each probe, and whether it is in force.
    pub hooks: Vec<HookState>,
    /// What could not be given up once everything was attached.
    pub kept_right: Option<String>,
}

/// Watches for so long, the time to attach included, or a little longer where that takes
/// most of it, and shows nothing.
///
/// # Errors
/// The kernel side cannot be brought up or read.
pub fn sample(time: Duration, btf: Option<PathBuf>) -> anyhow::Result<Watched> {
    let until = clock::monotonic() + nanoseconds(time);
    let args = WatchArgs {
        duration: None,
        min_block: MIN_BLOCK,
        leak_age: LEAK_AGE,
        dead_peer_age: AFTER_A_LOOK,
        recount_after: AFTER_A_LOOK,
        stacks: false,
        btf,
        function_hooks: HowFunctions::Auto,
        verbose: false,
    };
    let (mut source, hooks) = Source::attach(&args, None)?;
    source.leave_unlocked();
    source.load_symbols();
    let first = source.read_first()?;
    let until = until.max(first.clock.now + nanoseconds(LEAST));
    let options = Options {
        by: GroupBy::Process,
        top: TOP,
        pid: None,
        min_block_ns: nanoseconds(MIN_BLOCK),
        leaks: TcpAges {
            leak_age_ns: nanoseconds(LEAK_AGE),
            dead_peer_ns: nanoseconds(AFTER_A_LOOK),
        },
        users: Users::read(),
    };
    let mut aggregate = LoadAggregate::new(options, &first);
    let mut cost = CostMeter::new(&source, first.clock.now);
    loop {
        let due = aggregate.next_sample_due();
        let wake = due.filter(|due| *due < until).unwrap_or(until);
        thread::sleep(Duration::from_nanos(wake.since_ns(clock::monotonic())));
        let reading = source.read(Wants {
            every_task: aggregate.wants_complete(),
            holders: true,
        })?;
        aggregate.observe(&reading);
        let now = reading.clock.now;
        cost.watch(&source, now);
        if now >= until {
            // Nobody is told of kills, and the snapshot has those that were.
            aggregate.kills(now);
            let in_force = (source.hooks_in_force(), PROBES.len());
            let snapshot = aggregate.snapshot(cost.interval(now), in_force);
            let kept_right = source.kept_right().map(str::to_owned);
            return Ok(Watched {
                snapshot,
                hooks,
                kept_right,
            });
        }
    }
}
