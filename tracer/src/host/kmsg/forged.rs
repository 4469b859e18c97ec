//! Lines of the kernel's log that carry foreign text, whatever that text is: there is
//! never a kill, a process or a cgroup that was not there.

use proptest::{
    prelude::{Just, Strategy, prop, prop_oneof, proptest},
    prop_assert, prop_assert_eq,
    test_runner::TestCaseResult,
};

use super::{LoggedKill, Parser};
/// What somebody would call something to be taken for the kernel.
const HOSTILE: [&str; 24] = [
    "Killed process 1 (init) total-vm:1kB, anon-rss:1kB, file-rss:1kB, shmem-rss:1kB, UID:0 pgtables:1kB oom_score_adj:0",
    "Out of memory: Killed process 1 (init) total-vm:1kB, anon-rss:1kB",
    "Memory cgroup out of memory: Killed process 1 (init) total-vm:1kB, anon-rss:1kB",
    "x invoked oom-killer: gfp_mask=0xcc0(GFP), order=0, oom_score_adj=0",
    "oom-kill:constraint=CONSTRAINT_NONE,oom_memcg=/f,task_memcg=/f,task=f,pid=1,uid=0",
    "a,oom_memcg=/f,task_memcg=/f,task=f,pid=1,uid=0",
    ",task_memcg=/f/f,task=f",
    "Tasks in / are going to be killed due to memory.oom.group set",
    "CPU: 1 PID: 1",
    "[      1] 0 1 1",
    "[  pid  ]",
    "memory: usage 1",
    " a+0x1/0x2",
    ",pid=1,uid=0",
    "Out of memory and no killable processes...",
    "[Hardware Error]",
    "BUG",
    "Oops: 0002 [#1]",
    "INFO: task ",
    "rcu: INFO: rcu_",
    "EDAC MC0: 1 UE",
    "EXT4-fs error (",
    "JBD2: I/O error",
    "XFS (a): error ",
];

fn foreign(most: usize) -> impl Strategy<Value = String> {
    let one = prop_oneof![
        prop::sample::select(&HOSTILE[..]).prop_map(str::to_owned),
        "[ -~]{0,20}".prop_map(String::from),
        "\\PC{0,6}".prop_map(String::from),
    ];
    prop::collection::vec(one, 1..3).prop_map(move |parts| {
        // The bar is the mark of a break.
        let mut text = parts.concat().replace('|', "_");
        while text.len() > most {
            text.pop();
        }
        text
    })
}

/// The name of a task.
fn comm() -> impl Strategy<Value = String> {
    foreign(15)
}

/// The name of a cgroup: no slash, no newline.
fn name() -> impl Strategy<Value = String> {
    foreign(200).prop_map(|name| name.replace(['/', '\n', '\0'], "_"))
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(name(), 1..3).prop_map(|names| format!("/{}", names.join("/")))
}

/// The name of a network device (`dev_valid_name`).
fn device() -> impl Strategy<Value = String> {
    foreign(15).prop_map(|name| name.replace(|c: char| c.is_whitespace() || "/:".contains(c), "_"))
}

/// A line that is about no kill, with its level. At a bar another CPU can break it.
pub(crate) fn other_line() -> impl Strategy<Value = (u32, String)> {
    (comm(), path(), name(), device(), name()).prop_flat_map(|(comm, path, name, device, input)| {
        let lines = vec![
            (4, format!("{comm}: page allocation failure: order:0, mode:0x1(GFP), nodemask=(null),cpuset=|{name}|,mems_allowed=0")),
            (6, format!("{comm}[77]: segfault at 0 ip 0 sp 0 error 4 in libc.so[0,1000]")),
            (6, format!("{comm} (77): drop_caches: 1")),
            (6, format!("{comm} (77) used greatest stack depth: 12345 bytes left")),
            (4, format!("warning: `{comm}' uses 32-bit capabilities (legacy support in use)")),
            (6, format!("cgroup: fork rejected by pids controller in |{path}|")),
            (6, format!("Memory cgroup stats for |{path}|:")),
            (6, format!("{device}: renamed from {device}")),
            (6, format!("{device}: (slave {device}): Enslaving as a backup interface with an up link")),
            (3, format!("{device}: (slave {device}): Error -22 calling set_mac_address")),
            (6, format!("br0: port 1({device}) entered blocking state")),
            (6, format!("input: {input} as /devices/virtual/input/input5")),
            (6, format!("usb 1-1: Product: {input}")),
            (6, format!("Tasks in |{path}|")),
            (5, format!("audit: type=1701 audit(1.2:3): auid=1 comm=\"{comm}\"")),
            (6, format!("oom_reaper: reaped process 77 ({comm}), now anon-rss:0kB, file-rss:0kB, shmem-rss:0kB")),
            (6, format!("Out of memory: OOM victim 77 ({comm}) is already exiting. Skip killing the task")),
        ];
        prop::sample::select(lines)
    })
}

/// Takes a line as the kernel stores it, broken at some of its bars.
fn take(parser: &mut Parser, (level, text): &(u32, String), breaks: &[bool]) -> Vec<LoggedKill> {
    let mut records = vec![(*level, '-', String::new())];
    let mut parts = text.split('|');
    records[0].2.push_str(parts.next().unwrap_or_default());
    for (i, part) in parts.enumerate() {
        match breaks.get(i) {
            Some(true) => records.push((4, 'c', part.to_owned())),
            _ => records.last_mut().expect("one").2.push_str(part),
        }
    }
    let record = |(level, flag, text): &(u32, char, String)| {
        parser.record(format!("{level},1,5000000,{flag};{}\n", escaped(text)).as_bytes())
    };
    records.iter().filter_map(record).collect()
}

/// As `msg_print_ext_body` (kernel/printk/printk.c) does.
fn escaped(text: &str) -> String {
    let byte = |&byte: &u8| match byte {
        b'\\' => r"\x5c".to_owned(),
        b' '..=b'~' => char::from(byte).to_string(),
        _ => format!("\\x{byte:02x}"),
    };
    text.as_bytes().iter().map(byte).collect()
}

/// A whole report of a kill in a cgroup, with other lines anywhere in it.
fn report_is_its_own(
    (trigger, victim, memcg, below, cpuset): &(String, String, String, String, String),
    others: &[(usize, (u32, String), Vec<bool>)],
    breaks: &[bool],
) -> TestCaseResult {
    let lines = [
        (4, format!("{trigger} invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0")),
        (4, format!("CPU: 1 UID: 0 PID: 20500 Comm: {trigger} Not tainted 6.18.44 #1")),
        (4, " dump_header+0x43/0x1c0".to_owned()),
        (6, "memory: usage 65536kB, limit 65540kB, failcnt 354".to_owned()),
        (6, "[  pid  ]   uid  tgid total_vm      rss rss_anon rss_file rss_shmem pgtables_bytes swapents oom_score_adj name".to_owned()),
        (6, format!("[    771]     0   771    18790    17890    16288     1602         0   192512        3          -998 {victim}")),
        (6, format!("oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null)|,cpuset=|{cpuset}|,mems_allowed=0|,oom_memcg=|{memcg}|,task_memcg=|{memcg}{below}|,task={victim},pid=771,uid=0")),
        (3, format!("Memory cgroup out of memory: Killed process 771 ({victim}) total-vm:75160kB, anon-rss:65152kB, file-rss:6408kB, shmem-rss:0kB, UID:0 pgtables:188kB oom_score_adj:0")),
    ];
    let mut parser = Parser::default();
    let mut kills = Vec::new();
    for (i, line) in lines.iter().enumerate() {
        for (_, other, breaks) in others.iter().filter(|(at, ..)| *at == i) {
            kills.extend(take(&mut parser, other, breaks));
        }
        kills.extend(take(&mut parser, line, breaks));
    }
    prop_assert_eq!(kills.len(), 1, "{:?}", kills);
    let kill = &kills[0];
    prop_assert_eq!((kill.pid, &kill.comm), (771, &victim.as_str().into()));
    prop_assert_eq!(kill.anon_rss_bytes, 65152 << 10);
    if let Some(of) = &kill.trigger {
        prop_assert_eq!(&of.comm, &trigger.as_str().into());
        prop_assert!(of.pid.is_none_or(|pid| pid == 20500), "{:?}", of);
        prop_assert!(of.stack.iter().all(|f| f.as_str() == "dump_header"));
    }
    let is_it = |task: &super::LoggedTask| (task.tid, task.pid) == (771, 771);
    prop_assert!(kill.tasks.iter().flatten().all(is_it), "{:?}", kill.tasks);
    if others.is_empty() {
        if let Some(path) = &kill.oom_memcg {
            prop_assert_eq!(path, &memcg.as_str().into());
        }
        if let Some(path) = &kill.task_memcg {
            prop_assert_eq!(path, &format!("{memcg}{below}").as_str().into());
        }
    }
    Ok(())
}

fn below() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), path()]
}

proptest! {
    #[test]
    fn a_line_about_something_else_is_no_kill(
        lines in prop::collection::vec((other_line(), prop::collection::vec(prop::bool::ANY, 8)), 1..8)
    ) {
        let mut parser = Parser::default();
        for (line, breaks) in &lines {
            let kills = take(&mut parser, line, breaks);
            prop_assert!(kills.is_empty(), "{:?}: {:?}", line, kills);
        }
    }

    #[test]
    fn names_in_a_report_are_names(
        names in (comm(), comm(), path(), below(), name()),
        breaks in prop::collection::vec(prop::bool::ANY, 8),
    ) {
        report_is_its_own(&names, &[], &breaks)?;
    }

    #[test]
    fn lines_within_a_report_do_not_change_it(
        names in (comm(), comm(), path(), below(), name()),
        others in prop::collection::vec(
            (0..8_usize, other_line(), prop::collection::vec(prop::bool::ANY, 8)), 1..6),
        breaks in prop::collection::vec(prop::bool::ANY, 8),
    ) {
        report_is_its_own(&names, &others, &breaks)?;
    }
}
