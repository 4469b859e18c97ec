//! Causes: why tasks are blocked, and by whom, where that is known for certain.

use std::{fs, io, sync::mpsc, thread};

use tests::{
    assert_near,
    filesystem::FileSystem,
    kernel,
    known::{Known, assert_cause, assert_chain, assert_kept, beside, named, numbers},
    lanes::{GUEST_CPUS, Test},
    provoke::Workload,
    skip, test,
    time::{NS, host_or_guest, wall_ns},
    tracer::{Snapshot, Tracer, number},
};

pub(crate) const TESTS: &[Test] = &[
    test!(a_parent_waits_for_the_child_of_its_vfork).contract(),
    test!(a_page_of_a_userfaultfd_is_waited_for),
    test!(a_frozen_file_system_is_named),
    test!(a_frozen_file_system_of_a_path_is_named),
    test!(the_process_behind_fuse_is_waited_for).contract(),
    test!(the_holder_of_a_lock_is_named).contract(),
    test!(a_queue_is_behind_its_root).contract(),
    test!(a_chain_is_followed_to_its_root),
    test!(who_forks_holds_the_mmap_lock).needs(&[GUEST_CPUS]),
    test!(a_core_dump_waits_for_the_threads),
];

/// How long a workload that is looked at is blocked: not to its end in any test.
const LONG_MS: &str = "60000";

/// So many snapshots of tasks that were blocked already when the first of them began.
fn full(tracer: &mut Tracer, n: usize) -> Vec<Snapshot> {
    let mut snapshots = vec![tracer.snapshot_after(wall_ns())];
    snapshots.extend(tracer.snapshots(n - 1));
    snapshots
}

/// As many as most tests look at.
fn looks(tracer: &mut Tracer) -> Vec<Snapshot> {
    full(tracer, host_or_guest(3, 2))
}

/// Parents of vfork, one of them since before tracer.
fn a_parent_waits_for_the_child_of_its_vfork() {
    let vfork = || {
        let mut workload = Workload::ready(&["vfork", LONG_MS]);
        workload.go();
        workload.line();
        workload
    };
    let early = vfork();
    let mut tracer = beside(&["--interval", "1s"]);
    named(&mut tracer);
    let late = vfork();
    for snapshot in full(&mut tracer, host_or_guest(6, 3)) {
        for parent in [&early, &late] {
            let pid = parent.pid();
            // The interval is exact, and the block lasts through it.
            let share = snapshot.of_cause(pid, |cause| cause == "vfork");
            assert_near("blocked by vfork", share, 1.0, 0.02);
            let blocked = snapshot.blocked(pid).expect("it is blocked");
            assert_cause(blocked, "vfork", &[]);
            assert_chain(blocked, "child", &[child(pid)]);
        }
    }
    assert_kept(&tracer.finish().1);
}

/// The only child of a process.
fn child(pid: u32) -> u32 {
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_child = |child: &u32| {
        let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        // The parent is the second field after the name, which is in parentheses.
        let fields = stat.rsplit(')').next().unwrap_or_default();
        fields.split_whitespace().nth(1) == Some(&pid.to_string())
    };
    pids.find(is_child).expect("a child")
}

/// A read of a page that nobody fills.
fn a_page_of_a_userfaultfd_is_waited_for() {
    let mut tracer = Tracer::shared();
    named(&mut tracer);
    let reader = match Known::blocked(&["userfault", LONG_MS]) {
        Ok(reader) => reader,
        Err(e) => skip!(
            "a_page_of_a_userfaultfd_is_waited_for",
            "no userfaultfd: {e}"
        ),
    };
    for snapshot in looks(&mut tracer) {
        assert_cause(reader.all_in(&snapshot)[0], "userfault", &[]);
        // As long as the interval: what is put on the cause is all of it.
        let share = snapshot.of_cause(reader.tid(0), |cause| cause == "userfault");
        assert_near("blocked by userfault", share, 1.0, 0.02);
    }
}

/// Four writers to a file system that is frozen.
fn a_frozen_file_system_is_named() {
    let file_system = match FileSystem::new() {
        Ok(file_system) => file_system,
        Err(e) => skip!(
            "a_frozen_file_system_is_named",
            "no loop device or no ext4: {e}"
        ),
    };
    let directory = file_system.directory().to_str().expect("UTF-8").to_owned();
    // Of its own: names of mounts are kept for five seconds, and loop devices of tests before
    // had the same number.
    let mut tracer = beside(&["--interval", "500ms"]);
    named(&mut tracer);
    let workload = Workload::ready(&["frozen", &directory, "4"]);
    file_system.freeze().expect("it can be frozen");
    let mut writers = Known::begin(workload).expect("writers");
    assert_eq!(writers.tasks.len(), 4);
    for snapshot in looks(&mut tracer) {
        for writer in writers.all_in(&snapshot) {
            assert_cause(writer, "frozen fs", &["ext4", "/mnt"]);
        }
    }
    file_system.thaw().expect("it was frozen");
    assert_eq!(writers.numbers().len(), 4);
    let last = tracer.snapshot_after(wall_ns());
    for (tid, _) in &writers.tasks {
        assert!(last.blocked(*tid).is_none(), "{tid} goes on");
    }
    assert_kept(&tracer.finish().1);
}

/// Calls on a path, which have no descriptor: the lock that they wait for tells the file
/// system.
fn a_frozen_file_system_of_a_path_is_named() {
    let file_system = match FileSystem::new() {
        Ok(file_system) => file_system,
        Err(e) => skip!(
            "a_frozen_file_system_of_a_path_is_named",
            "no loop device or no ext4: {e}"
        ),
    };
    let at = |name| file_system.directory().join(name);
    fs::write(at("old"), "").expect("a file");
    let mut tracer = beside(&["--interval", "500ms"]);
    named(&mut tracer);
    file_system.freeze().expect("it can be frozen");
    let (made, old, new) = (at("made"), at("old"), at("new"));
    let calls: [(&str, Call); 2] = [
        ("open", Box::new(move || fs::File::create(made).map(drop))),
        ("rename", Box::new(move || fs::rename(old, new))),
    ];
    let calls = calls.map(|(operation, call)| {
        let (sender, receiver) = mpsc::channel();
        let thread = thread::spawn(move || {
            // SAFETY: no preconditions.
            let tid = unsafe { libc::gettid() };
            sender.send(tid).expect("the test listens");
            call()
        });
        let tid = receiver.recv().expect("its thread id");
        (operation, u32::try_from(tid).expect("a thread id"), thread)
    });
    let device = file_system.device().file_name().expect("a name");
    let device = device.to_str().expect("UTF-8");
    // Those that were there when the interval began.
    let snapshot = full(&mut tracer, 2).pop().expect("two");
    for (operation, tid, _) in &calls {
        let blocked = snapshot.blocked(*tid).expect("it is blocked");
        // The mount is in no namespace that they or tracer see.
        assert_cause(blocked, "frozen fs", &[device, operation]);
    }
    file_system.thaw().expect("it was frozen");
    for (operation, _, thread) in calls {
        thread.join().expect("it ends").expect(operation);
    }
    assert_kept(&tracer.finish().1);
}

/// A system call that can fail.
type Call = Box<dyn FnOnce() -> io::Result<()> + Send>;

/// A read of a page, by io_schedule, that the file system's process does not answer.
fn the_process_behind_fuse_is_waited_for() {
    let mut tracer = Tracer::shared();
    named(&mut tracer);
    let reader = match Known::blocked(&["fuse-read", LONG_MS]) {
        Ok(reader) => reader,
        Err(e) => skip!("the_process_behind_fuse_is_waited_for", "no FUSE: {e}"),
    };
    for snapshot in looks(&mut tracer) {
        assert_cause(reader.all_in(&snapshot)[0], "fuse", &["read", "/mnt"]);
        let share = snapshot.of_cause(reader.tid(0), |cause| cause == "fuse");
        assert_near("blocked by fuse", share, 1.0, 0.02);
    }
}

/// A mutex and a rwsem, whose holders sleep interruptibly.
fn the_holder_of_a_lock_is_named() {
    let modes = ["fuse-mutex", "fuse-rwsem"];
    let early = match modes.map(|mode| Known::blocked(&[mode, LONG_MS])) {
        [Ok(mutex), Ok(rwsem)] => [mutex, rwsem],
        [Err(e), _] | [_, Err(e)] => skip!("the_holder_of_a_lock_is_named", "no FUSE: {e}"),
    };
    let mut tracer = beside(&["--interval", "500ms"]);
    named(&mut tracer);
    let late = modes.map(|mode| Known::blocked(&[mode, LONG_MS]).expect("as before"));
    for snapshot in looks(&mut tracer) {
        for (waiters, has_holder) in [(&early, kernel::notes_blockers()), (&late, true)] {
            for waiter in waiters {
                let blocked = waiter.all_in(&snapshot)[0];
                assert_lock(blocked);
                let holder = [waiter.holder];
                assert_chain(blocked, "holder", if has_holder { &holder } else { &[] });
            }
        }
    }
    assert_kept(&tracer.finish().1);
}

/// Two causes are locks: that of an inode is told from the others by its stack.
fn assert_lock(blocked: &serde_json::Value) {
    let cause = blocked["cause"].as_str().expect("a cause");
    println!("{} {cause}: {}", blocked["comm"], blocked["detail"]);
    assert!(["inode lock", "lock"].contains(&cause), "{blocked}");
}

/// Five behind one, who waits for the file system's process.
fn a_queue_is_behind_its_root() {
    let mut tracer = Tracer::shared();
    named(&mut tracer);
    let all = match Known::blocked(&["chain", LONG_MS]) {
        Ok(all) => all,
        Err(e) => skip!("a_queue_is_behind_its_root", "no FUSE: {e}"),
    };
    for snapshot in looks(&mut tracer) {
        let blocked = all.all_in(&snapshot);
        let (root, waiters) = blocked.split_first().expect("six");
        assert_cause(root, "fuse", &["write", "/mnt"]);
        assert_chain(root, "holder", &[]);
        for waiter in waiters {
            assert_lock(waiter);
            assert_chain(waiter, "holder", &[all.holder]);
        }
        let queues = snapshot.0["queues"].as_array().expect("queues");
        let queue = queues
            .iter()
            .find(|queue| queue["root"]["tid"] == all.holder);
        let queue = queue.expect("a queue behind the root");
        assert_eq!(queue["waiting"], 5, "{queue}");
        assert_eq!(queue["root"]["cause"], "fuse", "{queue}");
    }
}

/// Each waits for the one before.
fn a_chain_is_followed_to_its_root() {
    let mut tracer = Tracer::shared();
    named(&mut tracer);
    let all = match Known::blocked(&["deep-chain", LONG_MS]) {
        Ok(all) => all,
        Err(e) => skip!("a_chain_is_followed_to_its_root", "no FUSE: {e}"),
    };
    let mut before: Vec<u32> = Vec::new();
    let mut looks = looks(&mut tracer);
    let snapshot = looks.pop().expect("some");
    for (blocked, (tid, _)) in all.all_in(&snapshot).into_iter().zip(&all.tasks) {
        assert_chain(blocked, "holder", &before);
        before.insert(0, *tid);
        if before.len() > 1 {
            assert_lock(blocked);
        } else {
            assert_cause(blocked, "fuse", &["write", "/mnt"]);
        }
    }
    let queues = snapshot.0["queues"].as_array().expect("queues");
    let queue = queues
        .iter()
        .find(|queue| queue["root"]["tid"] == all.holder);
    assert_eq!(queue.expect("a queue behind the root")["waiting"], 3);
}

/// A process forks, and holds its mmap_lock meanwhile; another thread wants it.
fn who_forks_holds_the_mmap_lock() {
    let ms = host_or_guest("8000", "5000");
    let mib = host_or_guest("8192", "2048");
    let mut tracer = Tracer::shared();
    named(&mut tracer);
    let workload = Workload::nicely(&["mmap-lock", ms, mib]);
    let pid = workload.pid();
    let mut known = Known::begin(workload).expect("a thread that maps");
    let (line, snapshots) = tracer.during(|| known.workload.line());
    let numbers = numbers(&line);
    let [
        mapper_ns,
        long,
        long_ns,
        forks,
        fork_ns,
        forker_ns,
        waited_ns,
    ] = numbers[..]
    else {
        panic!("seven numbers: {line}");
    };
    let (mapper_s, forker_s) = (mapper_ns as f64 / NS, forker_ns as f64 / NS);
    println!(
        "by its clock blocked for {mapper_s:.3} s, {long} calls for more than 1 ms, in sum \
         {:.3} s; {forks} forks took {:.3} s, of which {forker_s:.3} s off the CPU",
        long_ns as f64 / NS,
        fork_ns as f64 / NS
    );
    let sum = |of: &dyn Fn(&Snapshot) -> f64| -> f64 {
        snapshots.iter().map(|s| of(s) * s.seconds()).sum()
    };
    let lock = sum(&|s| s.of_cause(pid, |cause| cause == "mmap_lock"));
    let brief = sum(&|s| s.of_cause(pid, |cause| cause == "brief"));
    let all_s = sum(&|s| s.of_pid(pid, "blocked"));
    println!("blocked {all_s:.3} s, of which brief {brief:.3} s");
    // What the threads were off the CPU and did not wait for one is the lock's, of which
    // each waits for the other. Waits below the threshold are `brief`. An emulated CPU
    // takes a while from a waking to what it calls run delay, and forks take long there.
    let blocked_s = mapper_s + forker_s;
    let fork_s = fork_ns as f64 / NS;
    let tolerance = host_or_guest(blocked_s * 0.05, blocked_s * 0.1 + fork_s * 0.25) + brief;
    // From 6.12 the kernel may call a part of the sleep a wait for a CPU. Then it is still
    // no longer than the forks, in which the lock is held.
    let waited_s = waited_ns as f64 / NS;
    let longer = match kernel::delays_dequeue() {
        true => waited_s.min((fork_s - mapper_s).max(0.0)),
        false => 0.0,
    };
    println!("s blocked by mmap_lock: {lock:.4}, expected {blocked_s:.4} to {longer:.4} more");
    assert!(
        lock >= blocked_s - tolerance,
        "{lock} s, less than {blocked_s}"
    );
    assert!(
        lock <= blocked_s + longer + tolerance,
        "{lock} s, more than {blocked_s}"
    );
    let held_by = format!("held by provoke[{pid}]");
    let (mut all, mut held) = (0.0, 0.0);
    for snapshot in &snapshots {
        for group in snapshot.0["load"]["groups"].as_array().expect("groups") {
            for share in group["causes"].as_array().expect("causes") {
                if group["pid"] == pid && share["cause"] == "mmap_lock" {
                    let s = number(&share["blocked"]) * snapshot.seconds();
                    let detail = share["detail"].as_str().unwrap_or("");
                    all += s;
                    held += if detail.contains(&held_by) { s } else { 0.0 };
                }
            }
        }
    }
    // An owner can be between giving it up and being gone when it is asked for. A guest
    // has so few waits that one of them, of a CPU that stands still, is as much.
    let tolerance = host_or_guest(0.05, 0.15);
    assert_near("share with its holder", held / all, 1.0, tolerance);
}

/// A process dies with a core dump, and waits for a thread that cannot stop.
fn a_core_dump_waits_for_the_threads() {
    let mut tracer = Tracer::shared();
    named(&mut tracer);
    let dump = match Known::blocked(&["core-dump", LONG_MS]) {
        Ok(dump) => dump,
        Err(e) => skip!("a_core_dump_waits_for_the_threads", "no FUSE: {e}"),
    };
    for snapshot in looks(&mut tracer) {
        assert_cause(dump.all_in(&snapshot)[0], "coredump", &[]);
        // It waits for a mutex of FUSE.
        assert_lock(snapshot.blocked(dump.holder).expect("its thread"));
    }
}
