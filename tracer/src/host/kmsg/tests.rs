//! Reports as kernels write them, put together by hand from the formats of their
//! sources and from what 6.18 wrote.

use proptest::prelude::{any, prop, proptest};

use super::{Constraint, LoggedKill, Parser};

/// Records of 100 us each, as the kernel would write them.
fn kills(messages: &[&str]) -> Vec<LoggedKill> {
    let mut parser = Parser::default();
    let record = |(i, message): (usize, &&str)| {
        let record = format!("4,{i},{},-;{message}\n", 5_000_000 + i * 100);
        parser.record(record.as_bytes())
    };
    messages.iter().enumerate().filter_map(record).collect()
}

const KILLED: &str = "Out of memory: Killed process 771 (java) total-vm:9000kB, anon-rss:4000kB, \
                      file-rss:12kB, shmem-rss:8kB, UID:1000 pgtables:44kB oom_score_adj:-17";

const MEMCG: [&str; 19] = [
    "api invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=2, oom_score_adj=300",
    "CPU: 1 UID: 0 PID: 20500 Comm: api Not tainted 6.18.44 #1 PREEMPT(voluntary)",
    "Hardware name: none",
    "Call Trace:",
    " <TASK>",
    " dump_header+0x43/0x1c0",
    " oom_kill_process.cold+0x8/0x8a",
    " ? srso_alias_return_thunk+0x5/0xfbef5",
    " try_charge_memcg+0x422/0x6f0",
    "RIP: 0033:0x7fe9b9b820ba",
    "memory: usage 65536kB, limit 65540kB, failcnt 354",
    "swap: usage 0kB, limit 9007199254740988kB, failcnt 0",
    "Tasks state (memory values in pages):",
    "[  pid  ]   uid  tgid total_vm      rss rss_anon rss_file rss_shmem pgtables_bytes swapents oom_score_adj name",
    "[  20500]     0 20500    18790    17890    16288     1602         0   192512        3          -998 a b] c",
    "[  20501]     0 20501    18790    17892    16288     1602         0   192512        0             0 java",
    "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/api,1,task_memcg=/api,1/x,task=java,pid=771,uid=0",
    "Memory cgroup out of memory: Killed process 771 (java) total-vm:75160kB, anon-rss:65152kB, file-rss:6408kB, shmem-rss:0kB, UID:0 pgtables:188kB oom_score_adj:0",
    "oom_reaper: reaped process 771 (java), now anon-rss:0kB, file-rss:0kB, shmem-rss:0kB",
];

#[test]
fn a_report_of_a_cgroup() {
    let kills = kills(&MEMCG);
    let [kill] = kills.as_slice() else {
        panic!("{kills:?}");
    };
    assert_eq!((kill.pid, kill.comm.as_str()), (771, "java"));
    assert_eq!(kill.constraint, Some(Constraint::Memcg));
    let paths = [&kill.oom_memcg, &kill.task_memcg].map(|path| path.as_ref().map(|p| p.as_str()));
    assert_eq!(paths, [Some("/api,1"), Some("/api,1/x")]);
    let (usage, limit) = (kill.usage_bytes, kill.limit_bytes);
    assert_eq!((usage, limit), (Some(65536 << 10), Some(65540 << 10)));
    let trigger = kill.trigger.as_ref().expect("a trigger");
    assert_eq!(
        (trigger.comm.as_str(), trigger.pid, trigger.order),
        ("api", Some(20500), 2)
    );
    let stack: Vec<_> = trigger.stack.iter().map(|frame| frame.as_str()).collect();
    assert_eq!(
        stack,
        ["dump_header", "oom_kill_process.cold", "try_charge_memcg"]
    );
    let all = kill.tasks.as_ref().expect("the table is whole");
    let tasks: Vec<_> = all
        .iter()
        .map(|t| (t.pid, t.comm.as_str(), t.rss_pages))
        .collect();
    assert_eq!(tasks, [(20500, "a b] c", 17890), (20501, "java", 17892)]);
    assert_eq!(
        (all[0].swap_pages, all[0].oom_score_adj, all[0].uid),
        (3, -998, Some(0))
    );
    assert_eq!((all[0].anon_pages, all[0].file_pages), (16288, 1602));
    assert_eq!(kill.anon_rss_bytes, 65152 << 10);
    assert!(!kill.is_sysrq());
}

/// As 5.15 and 6.1 have it: fewer columns, and no cgroup.
#[test]
fn a_report_of_the_host() {
    let kills = kills(&[
        "tail invoked oom-killer: gfp_mask=0x140dca(GFP_HIGHUSER_MOVABLE|__GFP_ZERO), order=0, oom_score_adj=0",
        "CPU: 0 PID: 42 Comm: tail Not tainted 5.15.0 #1",
        "[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name",
        "[    772]  1000   771     2250     1000    45056        0           -17 java",
        "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg=/a,task=java,pid=771,uid=1000",
        KILLED,
    ]);
    let [kill] = kills.as_slice() else {
        panic!("{kills:?}");
    };
    assert_eq!(kill.constraint, Some(Constraint::None));
    assert_eq!(kill.oom_memcg, None);
    assert_eq!((kill.oom_score_adj, kill.page_table_bytes), (-17, 44 << 10));
    assert_eq!(
        (kill.file_rss_bytes, kill.shmem_rss_bytes),
        (12 << 10, 8 << 10)
    );
    assert_eq!(kill.trigger.as_ref().and_then(|t| t.pid), Some(42));
    let tasks = kill.tasks.as_ref().expect("the table is whole");
    let [task] = tasks.as_slice() else {
        panic!("{tasks:?}");
    };
    // The first thread has ended; kinds of memory are not told apart.
    assert_eq!((task.tid, task.pid, task.anon_pages), (772, 771, 1000));
}

#[test]
fn only_the_last_line_is_needed() {
    let kills = kills(&[KILLED]);
    assert_eq!(kills.len(), 1);
    assert_eq!((kills[0].at_us, kills[0].pid), (5_000_000, 771));
    assert_eq!((&kills[0].trigger, kills[0].constraint), (&None, None));
}

/// `memory.oom.group`: further lines of the same report.
#[test]
fn all_of_a_group_are_told() {
    let group = "Tasks in /api are going to be killed due to memory.oom.group set";
    let other = KILLED.replace("771 (java)", "772 (helper)");
    let kills = kills(&[MEMCG[0], MEMCG[16], KILLED, group, &other]);
    let pids: Vec<_> = kills.iter().map(|kill| kill.pid).collect();
    assert_eq!(pids, [771, 772]);
    assert!(
        kills
            .iter()
            .all(|kill| kill.constraint == Some(Constraint::Memcg))
    );
}

/// Another CPU writes between the pieces of a line (`pr_cont`): the rest has the flag `c`.
#[test]
fn a_line_in_pieces_is_put_together() {
    let of = |pid: u32, name: &str| {
        let victim = KILLED.replace("771 (java)", &format!("{pid} ({name})"));
        victim.replace("Out of memory", "Memory cgroup out of memory")
    };
    let (first, second) = (of(51, "api"), of(52, "helper"));
    let records = [
        (4, '-', MEMCG[0]),
        (
            6,
            '-',
            "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null)",
        ),
        (
            4,
            '-',
            "TCP: request_sock_TCP: Possible SYN flooding on port 0.0.0.0:80.",
        ),
        (6, 'c', ",cpuset=c1,mems_allowed=0"),
        (
            6,
            'c',
            ",oom_memcg=/pods/pod1,task_memcg=/pods/pod1/c1,task=api,pid=51,uid=0",
        ),
        (3, '-', first.as_str()),
        (6, '-', "Tasks in /pods/pod1"),
        (
            4,
            '-',
            "IPv6: ADDRCONF(NETDEV_CHANGE): veth1: link becomes ready",
        ),
        (
            6,
            'c',
            " are going to be killed due to memory.oom.group set",
        ),
        (3, '-', second.as_str()),
    ];
    let mut parser = Parser::default();
    let record = |(level, flag, text): &(u32, char, &str)| {
        parser.record(format!("{level},7,5000000,{flag};{text}\n").as_bytes())
    };
    let kills: Vec<_> = records.iter().filter_map(record).collect();
    let pids: Vec<_> = kills.iter().map(|kill| kill.pid).collect();
    assert_eq!(pids, [51, 52]);
    for kill in &kills {
        let paths =
            [&kill.oom_memcg, &kill.task_memcg].map(|path| path.as_ref().map(|p| p.as_str()));
        assert_eq!(paths, [Some("/pods/pod1"), Some("/pods/pod1/c1")]);
    }
}

/// Two ways to read it: a cgroup is not named rather than named wrongly.
#[test]
fn a_path_that_is_ambiguous_is_not_believed() {
    let summary = |full: &str, its: &str| {
        format!(
            "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,\
             oom_memcg={full},task_memcg={its},task=java,pid=771,uid=0"
        )
    };
    let paths = |full: &str, its: &str| {
        let kills = kills(&[MEMCG[0], &summary(full, its), KILLED]);
        kills[0]
            .oom_memcg
            .as_ref()
            .map(|path| path.as_str().to_owned())
    };
    assert_eq!(paths("/a", "/a/b").as_deref(), Some("/a"));
    assert_eq!(
        paths("/a,task_memcg=", "/a,task_memcg=/c").as_deref(),
        Some("/a,task_memcg=")
    );
    let both = "/a,task_memcg=/a/b";
    assert_eq!(paths(both, both), None);
}

/// Of ten reports in 5 s the kernel leaves the next out, but for their last lines.
#[test]
fn a_report_is_not_taken_for_that_of_the_next_kill() {
    let other = KILLED.replace("771 (java)", "772 (helper)");
    let kills = kills(&[MEMCG[0], MEMCG[13], MEMCG[15], MEMCG[16], KILLED, &other]);
    assert_eq!(kills[0].tasks.as_ref().map(Vec::len), Some(1));
    assert_eq!(kills[0].constraint, Some(Constraint::Memcg));
    let nothing = (&kills[1].trigger, kills[1].constraint, &kills[1].tasks);
    assert_eq!(nothing, (&None, None, &None));
}

/// Nobody was killed after it (`__oom_kill_process`, `out_of_memory`).
#[test]
fn a_report_without_a_kill_is_not_taken_for_that_of_the_next() {
    for without in [
        "Out of memory and no killable processes...",
        "oom_kill_process: OOM victim 771 (java) is already exiting. Skip killing the task",
    ] {
        let kills = kills(&[MEMCG[0], MEMCG[16], without, KILLED]);
        assert_eq!((&kills[0].trigger, kills[0].constraint), (&None, None));
    }
}

/// A table is taken as a whole or not at all.
#[test]
fn a_table_with_a_gap_is_none() {
    let rows = [MEMCG[0], MEMCG[13], MEMCG[14], MEMCG[15], MEMCG[16], KILLED];
    let kill_without = |lost: &[usize], by_process: Option<usize>| {
        let mut parser = Parser::default();
        let mut kill = None;
        for (i, row) in rows.iter().enumerate() {
            if !lost.contains(&i) {
                let priority = if by_process == Some(i) { 12 } else { 6 };
                let record = format!("{priority},{},5000000,-;{row}\n", 90 + i);
                kill = parser.record(record.as_bytes()).or(kill);
            }
        }
        kill.expect("a kill")
    };
    let tasks = |kill: LoggedKill| kill.tasks.map(|tasks| tasks.len());
    assert_eq!(tasks(kill_without(&[], None)), Some(2));
    for lost in [1, 2, 3, 4] {
        let kill = kill_without(&[lost], None);
        assert!(kill.trigger.is_some(), "the rest is known");
        assert_eq!(tasks(kill), None, "without row {lost}");
    }
    // A process writes a record of its own in between: it has a number too.
    assert_eq!(tasks(kill_without(&[], Some(3))), Some(1));
    // `vm.oom_dump_tasks` is 0.
    let kills = kills(&[MEMCG[0], MEMCG[16], KILLED]);
    assert_eq!(tasks(kills[0].clone()), None);
}

#[test]
fn a_kill_that_was_asked_for() {
    let invoked =
        "kworker/0:1 invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=-1, oom_score_adj=0";
    let kills = kills(&[invoked, KILLED]);
    assert!(kills[0].is_sysrq());
}

/// A name can look like what comes after it; what is not printable comes escaped.
#[test]
fn a_hostile_name_is_a_name() {
    let name = "x) total-vm:1kB,";
    let kills = kills(&[
        &KILLED.replace("java", name),
        &KILLED.replace("java", "\\x1b[2J\\x5c"),
    ]);
    assert_eq!(
        (kills[0].comm.as_str(), kills[0].anon_rss_bytes),
        (name, 4000 << 10)
    );
    assert_eq!(kills[1].comm.as_str(), "\u{fffd}[2J\\");
}

/// What the kernel says of a process that calls itself `Killed process ` ends no report.
#[test]
fn a_process_can_be_called_like_a_kill() {
    let mut lines = MEMCG.to_vec();
    lines.insert(
        5,
        "Killed process [77]: segfault at 0 ip 0 sp 0 error 4 in libc.so",
    );
    assert_eq!(kills(&lines)[0].tasks, kills(&MEMCG)[0].tasks);
    assert_eq!(kills(&lines)[0].constraint, Some(Constraint::Memcg));
}

#[test]
fn what_a_process_writes_is_not_believed() {
    let mut parser = Parser::default();
    let record = format!("12,1,5000000,-;{KILLED}\n");
    assert_eq!(parser.record(record.as_bytes()), None);
}

/// Evidence 20: a table of 3,000 tasks takes 24 s on a console of 115,200 baud.
#[test]
fn a_report_lasts_as_long_as_the_console_is_slow() {
    let mut parser = Parser::default();
    let (mut sequence, mut at_us) = (0, 1_000_000_000);
    let mut record = |step_us: u64, text: &str| {
        sequence += 1;
        at_us += step_us;
        parser.record(format!("4,{sequence},{at_us},-;{text}\n").as_bytes())
    };
    let before = [
        "java invoked oom-killer: gfp_mask=0x140cca(GFP_HIGHUSER_MOVABLE|__GFP_COMP), order=0, oom_score_adj=0",
        "Tasks state (memory values in pages):",
        "[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name",
    ];
    for text in before {
        assert_eq!(record(200_000, text), None);
    }
    for pid in 100..3_100 {
        let row = format!(
            "[{pid:>7}]  1000 {pid:>5}   100000 {:>8}    45056        0             0 worker",
            pid - 100
        );
        assert_eq!(record(8_000, &row), None);
    }
    let end = "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg=/a,task=worker,pid=3099,uid=1000";
    assert_eq!(record(8_000, end), None);
    let killed = "Out of memory: Killed process 3099 (worker) total-vm:400000kB, anon-rss:11996kB, file-rss:0kB, shmem-rss:0kB, UID:1000 pgtables:44kB oom_score_adj:0";
    let kill = record(10_000, killed).expect("a kill");
    let trigger = kill.trigger.expect("a trigger");
    assert_eq!((kill.pid, trigger.comm.as_str()), (3099, "java"));
    assert_eq!(kill.constraint, Some(Constraint::None));
    let largest = &kill.tasks.expect("the table is whole")[0];
    assert_eq!((largest.pid, largest.rss_pages), (3099, 2_999));
}

/// Records were lost, the end of the report perhaps among them.
#[test]
fn an_old_report_is_not_taken_for_that_of_a_new_kill() {
    let mut parser = Parser::default();
    let mut record = |us: u64, message| parser.record(format!("4,1,{us},-;{message}\n").as_bytes());
    assert_eq!(record(1, MEMCG[0]), None);
    let kill = record(60_000_000, KILLED).expect("a kill");
    assert_eq!(kill.trigger, None);
}

proptest! {
    #[test]
    fn any_records_are_read(records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..20)) {
        let mut parser = Parser::default();
        for record in &records {
            parser.record(record);
        }
    }

    #[test]
    fn any_order_of_lines_is_read(order in prop::collection::vec((0..MEMCG.len(), 0..200_usize, ".{0,5}"), 0..60)) {
        let mut parser = Parser::default();
        for (line, cut, more) in order {
            let message: String = MEMCG[line].chars().take(cut).collect();
            parser.record(format!("4,1,1,-;{message}{more}\n").as_bytes());
        }
    }
}
