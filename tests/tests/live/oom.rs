//! Kills for memory, held against the kernel's own counters.

use std::{collections::HashMap, fs, io, process};

use serde_json::Value;
use tests::{
    assert_near,
    lanes::{OOM_TABLE, Test},
    memory::{MemoryCgroup, reports, table},
    provoke::Workload,
    skip,
    tcp::seen::list,
    test,
    time::{eventually, host_or_guest, parse_utc, wall_ns},
    tracer::{Tracer, number, run},
};

pub(crate) const TESTS: &[Test] = &[
    test!(who_is_next_is_who_is_killed).needs(&[OOM_TABLE, MUCH_MEMORY]),
    test!(victim_and_trigger_are_told_apart)
        .streams(&["kprobe", "off"])
        .needs(&[OOM_TABLE, MUCH_MEMORY])
        .contract(),
    test!(what_others_had_at_a_kill_is_the_kernels_table).needs(&[OOM_TABLE, MUCH_MEMORY]),
    test!(a_process_of_many_threads_is_one_kill),
    test!(who_shares_the_memory_dies_with_it),
    test!(a_cgroup_is_killed_whole).contract(),
    test!(a_sigkill_is_put_on_who_sent_it).contract(),
    test!(past_kills_are_marked).needs(&[OOM_TABLE]).contract(),
    test!(scores_are_the_kernels).needs(&[MUCH_MEMORY]),
];

/// A hundred MiB, of which a guest has no more than six.
pub(crate) const MUCH_MEMORY: &str = "much of a guest's memory";

const MIB: f64 = (1 << 20) as f64;
/// A kill is told within so many ms; the CPUs of guests are emulated, several at once.
const LATEST_MS: (f64, f64) = (100.0, 2_000.0);
/// Kills of which most are told so soon: at one of them tracer may be at a snapshot of all
/// that runs beside.
const KILLS: usize = 5;
/// Snapshots within which an event must come, on a host and in a guest.
const SOON: (usize, usize) = (20, 60);

/// The next kill of a kind for which something holds, and how long after it it was told,
/// in ms.
fn kill(tracer: &mut Tracer, kind: &str, is_it: impl Fn(&Value) -> bool) -> (Value, f64) {
    // Tracer does not wait for a CPU, and so does not who asks when it spoke.
    let nice = |value: i32| {
        // SAFETY: touches no memory; on Linux this is the thread's own.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, value) };
    };
    nice(-20);
    let event = tracer.event_of(kind, host_or_guest(SOON.0, SOON.1), is_it);
    let (read_ns, written_ns) = (wall_ns(), tracer.written_ns());
    nice(0);
    let told_ns = written_ns.min(read_ns);
    println!(
        "written {} ms before it was read",
        (read_ns - told_ns) / 1_000_000
    );
    let at_ns = parse_utc(event["time"].as_str().expect("a time")).expect("UTC");
    (event, told_ns.saturating_sub(at_ns) as f64 / 1e6)
}

fn assert_told_soon(mut told_ms: Vec<f64>) {
    let (on_host, in_guest) = LATEST_MS;
    let latest = host_or_guest(on_host, in_guest);
    told_ms.sort_by(f64::total_cmp);
    println!("told {told_ms:.1?} ms after the kills");
    assert!(told_ms[told_ms.len() / 2] <= latest, "{told_ms:?}");
}

fn anon_mib(process: &Value) -> f64 {
    number(&process["anon_rss_bytes"]) / MIB
}

fn pids(named: &Value) -> Vec<u64> {
    let pid = |one: &Value| one["pid"].as_u64().expect("a pid");
    list(named).iter().map(pid).collect()
}

/// Whether a kill is one of now, in a cgroup.
fn is_in(cgroup: &MemoryCgroup) -> impl Fn(&Value) -> bool {
    |event| event["cgroup"] == cgroup.name && event["past"] == false
}

/// Who died, with all of a cgroup that is killed whole, in kills that were told and in
/// those that are still to come.
fn deaths(tracer: &mut Tracer, cgroup: &MemoryCgroup, told: &[Value]) -> usize {
    let (more, _) = tracer.events_until(wall_ns(), "oom_kill", is_in(cgroup));
    let kills = told.iter().chain(&more);
    kills.map(|kill| 1 + list(&kill["group"]).len()).sum()
}

/// Holds what tracer told of a cgroup's kills against the cgroup's own count. Those of the
/// whole host are counted where the whole stream is.
fn assert_counted(tracer: &mut Tracer, cgroup: &MemoryCgroup, told: &[Value]) {
    let killed = deaths(tracer, cgroup, told);
    assert_near("kills", killed as f64, cgroup.oom_kills() as f64, 0.0);
}

macro_rules! cgroup {
    ($test:literal, $mib:expr) => {
        match MemoryCgroup::new("tracer-oom", $mib) {
            Ok(cgroup) => cgroup,
            Err(e) => skip!($test, "no cgroup with a limit of memory: {e}"),
        }
    };
}

/// A large process that does nothing is the victim, a small one that wants memory the
/// trigger. Every way to hook functions is there at once, and sees the same kill.
fn victim_and_trigger_are_told_apart() {
    let cgroup = cgroup!("victim_and_trigger_are_told_apart", 96);
    reports::await_room();
    // A host hooks no functions: all ways are one there.
    let ways = host_or_guest(&["auto"][..], &["auto", "kprobe", "off"]).iter();
    let mut tracers: Vec<_> = ways.map(|way| (*way, Tracer::shared_by(way))).collect();
    for (way, tracer) in &mut tracers {
        let mut hooks = list(&tracer.start["hooks"]).iter();
        let hook = hooks.find(|hook| hook["name"] == "oom_kill_process");
        let hook = hook.expect("a row of it");
        println!("{way}: {}, {}", hook["via"], hook["state"]);
        if *way == "kprobe" {
            assert_eq!(hook["via"], "kprobe oom_kill_process");
        }
        tracer.snapshot();
    }
    let victim = cgroup.holder(64, 0);
    let mut trigger = cgroup.workload(&["eat", "50"]);
    trigger.go();
    // Mostly it gets its memory then; 7.2 was seen to kill it too. Both are counted.
    let lives = trigger.line() == "done";
    println!("the trigger lives: {lives}");
    for (way, tracer) in &mut tracers {
        let (event, told_ms) = kill(tracer, "oom_kill", is_in(&cgroup));
        println!("{way}: told {told_ms:.1} ms after the kill, {event}");
        assert_told_apart(&event, &cgroup, (&victim, &trigger), lives);
        assert_counted(tracer, &cgroup, &[event]);
    }
}

fn assert_told_apart(
    event: &Value,
    cgroup: &MemoryCgroup,
    (victim, trigger): (&Workload, &Workload),
    lives: bool,
) {
    assert_eq!(event["pid"], victim.pid());
    assert_eq!(event["comm"], "provoke");
    assert_eq!(event["cgroup"], cgroup.name);
    assert_eq!(event["trigger"]["pid"], trigger.pid());
    assert_eq!(event["trigger"]["cgroup"], cgroup.name);
    assert_eq!(
        (&event["scope"], &event["past"]),
        (&"memcg".into(), &false.into())
    );
    assert_eq!(event["memcg"], cgroup.name);
    assert_eq!(event["order"], 0);
    assert_near(
        "limit in MiB",
        number(&event["limit_bytes"]) / MIB,
        96.0,
        0.0,
    );
    // What the program has besides; each CPU keeps up to 32 pages of the count.
    assert_near("anonymous MiB", anon_mib(event), 64.0, 2.0);
    // (1000 + 1000 * 65/96) * 2/3, with its pages of files and tables.
    assert_near("points", number(&event["points"]), 1_115.0, 30.0);
    let functions = list(&event["stack"]);
    assert!(
        functions.contains(&"mem_cgroup_out_of_memory".into()),
        "{functions:?}"
    );
    if lives {
        assert_eq!(pids(&event["others"]), [u64::from(trigger.pid())]);
    }
}

/// Who else was big is the kernel's own table, the state at the kill: the one that wants
/// memory has not got it yet. Without the table it is what tracer reads afterwards.
fn what_others_had_at_a_kill_is_the_kernels_table() {
    let cgroup = cgroup!("what_others_had_at_a_kill_is_the_kernels_table", 96);
    let mut tracer = Tracer::shared();
    tracer.snapshot();
    for is_dumped in [true, false] {
        let _dumped = table::Dumped::set(is_dumped).expect("vm.oom_dump_tasks");
        let victim = cgroup.holder(44, 0);
        let small = cgroup.holder(16, 0);
        let mut trigger = cgroup.workload(&["eat", "60"]);
        reports::await_room();
        trigger.go();
        // The round before may have had a second victim.
        let (event, _) = kill(&mut tracer, "oom_kill", |kill| kill["pid"] == victim.pid());
        let lives = trigger.line() == "done";
        println!("the trigger lives: {lives}; {}", event["others"]);
        assert_eq!(event["others_from_log"], is_dumped);
        if !is_dumped {
            assert!(table::row(small.pid()).is_none(), "there is no table");
            assert!(pids(&event["others"]).contains(&small.pid().into()));
            continue;
        }
        let both = [&trigger, &small].map(|one| u64::from(one.pid()));
        assert_eq!(pids(&event["others"]), both, "the largest first");
        for other in list(&event["others"]) {
            let pid = other["pid"].as_u64().expect("a pid") as u32;
            let row = table::row(pid).expect("its row");
            println!("{row:?}");
            assert_is_row(other, &row);
        }
        // It gets the rest of its 60 MiB only when the victim is gone.
        assert!(anon_mib(&event["others"][0]) < 44.0);
    }
}

/// A process as the kernel's table has it; older kernels tell no kinds of memory apart.
fn assert_is_row(process: &Value, row: &HashMap<String, String>) {
    let page_bytes = 4096.0;
    let cell = |name: &str| {
        row.get(name)
            .map(|cell| cell.parse::<f64>().expect("a number"))
    };
    let bytes = |name: &str| cell(name).map(|pages| pages * page_bytes);
    let kinds = ["anon_rss_bytes", "file_rss_bytes", "shmem_rss_bytes"];
    let all: f64 = kinds.iter().map(|kind| number(&process[kind])).sum();
    assert_near("resident", all, bytes("rss").expect("a column"), 0.0);
    if let Some(anon) = bytes("rss_anon") {
        assert_near("anonymous", number(&process["anon_rss_bytes"]), anon, 0.0);
    }
    for (figure, value) in [
        ("swap_bytes", bytes("swapents")),
        ("page_table_bytes", cell("pgtables_bytes")),
        ("oom_score_adj", cell("oom_score_adj")),
    ] {
        assert_near(
            figure,
            number(&process[figure]),
            value.expect("a column"),
            0.0,
        );
    }
    assert_eq!(process["user"], "root");
}

/// One that needs more than there is, of one thread and of many: one kill, of itself.
fn a_process_of_many_threads_is_one_kill() {
    let cgroup = cgroup!("a_process_of_many_threads_is_one_kill", 48);
    let mut tracer = Tracer::shared();
    tracer.snapshot();
    let (mut told, mut told_ms) = (Vec::new(), Vec::new());
    for mode in ["eat", "eat-threads"].iter().cycle().take(KILLS) {
        let mut eater = cgroup.workload(&[mode, "200"]);
        eater.go();
        let (event, after_ms) = kill(&mut tracer, "oom_kill", is_in(&cgroup));
        told_ms.push(after_ms);
        assert_eq!(
            (&event["pid"], &event["trigger"]["pid"]),
            (&eater.pid().into(), &eater.pid().into())
        );
        assert_eq!(eater.line(), "", "it is killed, and says no more");
        assert_eq!(pids(&event["group"]), [] as [u64; 0]);
        assert_eq!(pids(&event["sharing"]), [] as [u64; 0]);
        told.push(event);
    }
    assert_told_soon(told_ms);
    assert_counted(&mut tracer, &cgroup, &told);
}

/// A second process that shares the victim's memory dies with it; no event of the
/// kernel's says so.
fn who_shares_the_memory_dies_with_it() {
    let cgroup = cgroup!("who_shares_the_memory_dies_with_it", 48);
    let mut tracer = Tracer::shared();
    tracer.snapshot();
    let mut eater = cgroup.workload(&["eat-shared", "200"]);
    eater.go();
    let twin: u64 = eater.line().parse().expect("a pid");
    let (event, _) = kill(&mut tracer, "oom_kill", is_in(&cgroup));
    let both = [u64::from(eater.pid()), twin];
    let victim = event["pid"].as_u64().expect("a pid");
    // They are worth the same.
    assert!(both.contains(&victim), "{event}");
    let other: Vec<u64> = both.into_iter().filter(|pid| *pid != victim).collect();
    assert_eq!(pids(&event["sharing"]), other);
    assert_counted(&mut tracer, &cgroup, &[event]);
}

/// With `memory.oom.group` all of a cgroup die, as one kill.
fn a_cgroup_is_killed_whole() {
    let cgroup = cgroup!("a_cgroup_is_killed_whole", 64);
    if let Err(e) = cgroup.kill_whole() {
        skip!("a_cgroup_is_killed_whole", "{e}");
    }
    let mut tracer = Tracer::shared();
    tracer.snapshot();
    let mut others = [cgroup.holder(4, 0), cgroup.holder(8, 0)];
    let mut eater = cgroup.workload(&["eat", "200"]);
    eater.go();
    let (event, _) = kill(&mut tracer, "oom_kill", is_in(&cgroup));
    assert_eq!(event["pid"], eater.pid());
    let mut expected: Vec<u64> = others.iter().map(|other| other.pid().into()).collect();
    let mut group = pids(&event["group"]);
    group.sort_unstable();
    expected.sort_unstable();
    assert_eq!(group, expected);
    for other in &mut others {
        assert_eq!(other.line(), "", "it is killed");
    }
    let killed = deaths(&mut tracer, &cgroup, &[event]);
    println!("{killed} killed, the cgroup counts {}", cgroup.oom_kills());
    // The kernel visits the first one once more with the others, and counts it again if
    // its memory is still there (`oom_kill_memcg_member`, mm/oom_kill.c).
    assert_near("kills", killed as f64, 3.0, 0.0);
    assert!((3..=4).contains(&cgroup.oom_kills()));
}

/// A SIGKILL of another process is no kill of the kernel's; one to oneself is none.
fn a_sigkill_is_put_on_who_sent_it() {
    let mut tracer = Tracer::shared();
    tracer.snapshot();
    let (mut pids, mut told_ms) = (Vec::new(), Vec::new());
    for _ in 0..KILLS {
        let victim = Workload::ready(&["eat", "8"]);
        let pid = victim.pid();
        // Its end is a SIGKILL.
        drop(victim);
        let (event, after_ms) = kill(&mut tracer, "sigkill", |kill| kill["pid"] == pid);
        told_ms.push(after_ms);
        assert_eq!(
            (&event["pid"], &event["trigger"]["pid"]),
            (&pid.into(), &process::id().into())
        );
        assert_eq!(event["scope"], Value::Null);
        pids.push(Value::from(pid));
    }
    assert_told_soon(told_ms);
    let is_one = |kill: &Value| pids.contains(&kill["pid"]);
    let (for_memory, _) = tracer.events_until(wall_ns(), "oom_kill", is_one);
    assert!(for_memory.is_empty(), "{for_memory:?}");
}

/// Kills from before the start are in the kernel's log.
fn past_kills_are_marked() {
    let cgroup = cgroup!("past_kills_are_marked", 32);
    let before_ns = wall_ns();
    let mut eater = cgroup.workload(&["eat", "200"]);
    let pid = eater.pid();
    reports::await_room();
    eater.go();
    assert_eq!(eater.line(), "", "it is killed");
    let after_ns = wall_ns();
    assert!(eventually(5.0, || cgroup.oom_kills() == 1));
    let mut tracer = Tracer::start(&["--interval", "500ms"]);
    let snapshot = tracer.snapshot();
    let kills = list(&snapshot.0["oom"]["kills"]);
    let is_it = |kill: &&Value| kill["pid"] == pid;
    let kill = kills.iter().rfind(is_it).expect("it is in the log");
    // Of now there are those of others.
    let told = tracer.events_until(wall_ns(), "oom_kill", |kill| kill["pid"] == pid);
    assert_eq!(
        (&kill["past"], &kill["from_log"]),
        (&true.into(), &true.into())
    );
    assert_eq!(
        (&kill["memcg"], &kill["scope"]),
        (&cgroup.name.as_str().into(), &"memcg".into())
    );
    let at_ns = parse_utc(kill["time"].as_str().expect("a time")).expect("UTC");
    // The log has a clock of its own.
    let slack = 2_000_000_000;
    assert!(
        (before_ns - slack..after_ns + slack).contains(&at_ns),
        "{kill}"
    );
    assert_near("anonymous MiB", anon_mib(kill), 31.0, 2.0);
    assert_eq!(told.0, [] as [Value; 0], "not since the start");
    let again = list(&told.1.0["oom"]["kills"]).iter().find(is_it);
    assert_eq!(again, None, "told once");
}

/// The score is that of /proc/PID/oom_score. Those of the test are the first ones of the
/// host, and change no more: others come and go.
fn scores_are_the_kernels() {
    let own: Vec<(Workload, f64)> = [(8, 1000), (64, 960), (24, 940)]
        .map(|(mib, adj)| {
            let mut one = Workload::ready(&["eat", &mib.to_string()]);
            one.go();
            assert_eq!(one.line(), "done");
            let file = |name: &str| format!("/proc/{}/{name}", one.pid());
            fs::write(file("oom_score_adj"), adj.to_string()).expect("its score can be raised");
            let score = fs::read_to_string(file("oom_score")).expect("it lives");
            let score = score.trim().parse().expect("a number");
            (one, score)
        })
        .into();
    let snapshot = next();
    let listed = list(&snapshot["oom"]["next"]);
    let mut places = Vec::new();
    for (one, score) in &own {
        let place = listed.iter().position(|row| row["pid"] == one.pid());
        let place = place.expect("it is among the first");
        // The kernel counts pages of each CPU apart, up to 64 of them.
        let ours = number(&listed[place]["oom_score"]);
        assert_near(&one.pid().to_string(), ours, *score, 1.0);
        places.push((place, *score));
    }
    places.sort_by_key(|(place, _)| *place);
    assert!(places.is_sorted_by(|a, b| a.1 >= b.1), "{places:?}");
}

/// What `tracer oom --next` says now.
fn next() -> Value {
    let (status, text, _) = run(&["oom", "--next", "--format", "json"]);
    assert!(status.success());
    let mut lines = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    lines
        .find(|line| line["type"] == "snapshot")
        .expect("a snapshot")
}

/// The one that is named next is the one that the kernel then kills.
fn who_is_next_is_who_is_killed() {
    let cases: Vec<u32> = (0..host_or_guest(20, 5)).collect();
    let mut tracer = Tracer::shared();
    tracer.snapshot();
    let mut right = 0;
    // Some at once, as far as there is memory for them.
    for at_once in cases.chunks(host_or_guest(5, 1)) {
        let crowds = || -> io::Result<Vec<Crowd>> { at_once.iter().map(Crowd::new).collect() };
        let ((crowds, snapshot), _) = tracer.during(|| (crowds(), next()));
        let crowds = match crowds {
            Ok(crowds) => crowds,
            Err(e) => skip!("who_is_next_is_who_is_killed", "no memory cgroup: {e}"),
        };
        let named = crowds.iter().map(|crowd| crowd.next_in(&snapshot));
        let named: Vec<u64> = named.collect();
        let triggers = crowds.iter().map(|crowd| {
            let mut trigger = crowd.cgroup.workload(&["eat", "40"]);
            trigger.go();
            trigger
        });
        let mut triggers: Vec<Workload> = triggers.collect();
        for trigger in &mut triggers {
            println!("a trigger lives: {}", trigger.line() == "done");
        }
        let is_ours = |kill: &Value| crowds.iter().any(|crowd| is_in(&crowd.cgroup)(kill));
        let (kills, _) = tracer.events_until(wall_ns(), "oom_kill", is_ours);
        for ((crowd, trigger), named) in crowds.iter().zip(&triggers).zip(named) {
            let is_it = |kill: &&Value| kill["trigger"]["pid"] == trigger.pid();
            let kill = kills.iter().find(is_it).expect("a kill");
            let is_right = kill["pid"] == named;
            println!("{}: next {named}, {is_right}", crowd.what);
            right += usize::from(is_right);
        }
    }
    println!("{right} of {}", cases.len());
    assert!(right + 1 >= cases.len(), "{right} of {}", cases.len());
}

/// Three processes in a cgroup, some to be killed for their size, some for their score:
/// both in an order that changes from case to case.
struct Crowd {
    what: String,
    // They end before their cgroup does.
    _holders: Vec<Workload>,
    cgroup: MemoryCgroup,
}

impl Crowd {
    fn new(case: &u32) -> io::Result<Self> {
        let cgroup = MemoryCgroup::new(&format!("tracer-oom-{case}"), 96)?;
        let case = u64::from(*case);
        let (a, b) = (case % 5, case % 3);
        let sizes = [12 + 5 * a, 20 + 4 * b, 44 - 5 * a - 4 * b];
        let scores = [(case * 137) % 400, (case * 61) % 300, (case * 29) % 500];
        let sizes_and_scores = sizes.into_iter().zip(scores);
        let holders: Vec<Workload> = sizes_and_scores
            .map(|(mib, adj)| cgroup.holder(mib, adj as i32))
            .collect();
        let pids: Vec<u32> = holders.iter().map(Workload::pid).collect();
        Ok(Self {
            what: format!("{case}: {pids:?}, {sizes:?} MiB, {scores:?}"),
            _holders: holders,
            cgroup,
        })
    }

    /// Who is next in it.
    fn next_in(&self, snapshot: &Value) -> u64 {
        let is_it = |row: &&Value| row["path"] == self.cgroup.name;
        let row = list(&snapshot["oom"]["cgroups"]).iter().find(is_it);
        let pid = row.expect("the cgroup")["next"]["pid"].as_u64();
        pid.expect("somebody is next")
    }
}
