//! Messages of the kernel's log that say that something is wrong (read in 5.15, 6.1, 6.12
//! and 6.18). Kills for memory have a row of their own.
//!
//! A message can hold foreign text, such as the name of a task, which may read like any
//! message. So each is known by how it begins and by its level.

/// What a message tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::check) enum Kind {
    /// The kernel went wrong (`oops_enter`, `BUG`), or reports that it found a bug of its own.
    Oops,
    /// The hardware reports an error (machine check, APEI, EDAC).
    MachineCheck,
    /// A CPU ran for long without letting others run.
    Lockup,
    /// A CPU did not come to rest (kernel/rcu/tree_stall.h).
    RcuStall,
    /// A task was blocked for long (kernel/hung_task.c).
    HungTask,
    /// A device or a file system failed.
    Io,
    /// A cgroup was not let have another task (`pids_can_fork`, kernel/cgroup/pids.c).
    ForkRefused,
}

impl Kind {
    /// What is counted, in the plural where there are several.
    pub(in crate::check) fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Oops => ("oops or BUG message", "oops or BUG messages"),
            Self::MachineCheck => ("hardware error", "hardware errors"),
            Self::Lockup => ("lockup of a CPU", "lockups of CPUs"),
            Self::RcuStall => ("RCU stall", "RCU stalls"),
            Self::HungTask => ("hung task", "hung tasks"),
            Self::Io => ("I/O error", "I/O errors"),
            Self::ForkRefused => ("fork refused to a cgroup", "forks refused to cgroups"),
        }
    }

    /// The name of its figure.
    pub(in crate::check) fn figure(self) -> &'static str {
        match self {
            Self::Oops => "kernel_oops_messages",
            Self::MachineCheck => "kernel_hardware_error_messages",
            Self::Lockup => "kernel_lockup_messages",
            Self::RcuStall => "kernel_rcu_stall_messages",
            Self::HungTask => "kernel_hung_task_messages",
            Self::Io => "kernel_io_error_messages",
            Self::ForkRefused => "kernel_fork_refused_messages",
        }
    }

    /// Why it is bad.
    pub(in crate::check) fn why(self) -> &'static str {
        match self {
            Self::Oops => "the kernel went on with what it had: locks may be held for ever",
            Self::MachineCheck => "memory, a CPU or a bus gives wrong data, or soon will",
            Self::Lockup => "nothing else could run on that CPU",
            Self::RcuStall => "memory is not freed while a CPU does not come to rest",
            Self::HungTask => "a device, a server or a lock did not answer for minutes",
            Self::Io => "data could not be read or written; a disk that begins so often ends",
            Self::ForkRefused => {
                "a cgroup is at its pids.max: its programs can make no process and no thread"
            }
        }
    }

    /// The next command.
    pub(in crate::check) fn next(self) -> &'static str {
        match self {
            Self::HungTask => "sudo tracer run --by cause",
            Self::Lockup | Self::RcuStall => "sudo tracer check --only cpu",
            Self::Io => "sudo tracer check --only disks",
            Self::ForkRefused => "sudo dmesg | grep pids",
            Self::Oops | Self::MachineCheck => "sudo dmesg --level=emerg,alert,crit,err,warn",
        }
    }
}

/// All kinds, the worst first.
pub(in crate::check) const KINDS: [Kind; 7] = [
    Kind::Oops,
    Kind::MachineCheck,
    Kind::Lockup,
    Kind::RcuStall,
    Kind::HungTask,
    Kind::Io,
    Kind::ForkRefused,
];

/// `KERN_ERR`.
const ERROR: u32 = 3;
/// `KERN_WARNING`, which is also what a message without a level has.
const WARNING: u32 = 4;
/// The prefix of hardware errors (`HW_ERR`, include/linux/printk.h).
const HARDWARE: &str = "[Hardware Error]";
/// What can stand before it; APEI has `{N}`.
const BEFORE_HARDWARE: [&str; 5] = ["", "mce: ", "MCE: ", "BERT: ", "GHES: "];
/// What follows the name of a task at the begin of a warning (`dump_header`, `warn_alloc`).
const AFTER_A_NAME: [&str; 2] = [" invoked oom-killer: ", ": page allocation "];
/// The longest name of a task (`TASK_COMM_LEN`, less its end).
const COMM_CHARS: usize = 15;

/// What a message of the kernel tells of, if that is something bad.
pub(in crate::check) fn classify(level: u32, text: &str) -> Option<Kind> {
    if begins_with_a_name(text) {
        return None;
    }
    // Told as information once the error has been corrected or logged.
    if is_hardware(text) {
        return Some(Kind::MachineCheck);
    }
    // Told as information, once for each cgroup until its limit is changed.
    if text.starts_with("cgroup: fork rejected by pids controller in ") {
        return Some(Kind::ForkRefused);
    }
    if level > WARNING {
        return None;
    }
    let begins = |with: &[&str]| with.iter().any(|with| text.starts_with(with));
    let without = text
        .strip_prefix("NMI watchdog: ")
        .or_else(|| text.strip_prefix("watchdog: "))
        .unwrap_or(text);
    let is_lockup = [
        "BUG: soft lockup",
        "BUG: workqueue lockup",
        "Watchdog detected hard LOCKUP",
    ]
    .iter()
    .any(|lockup| without.starts_with(lockup));
    match () {
        () if is_lockup => Some(Kind::Lockup),
        () if level <= ERROR && is_hung(text) => Some(Kind::HungTask),
        () if level <= ERROR && is_stall(text) => Some(Kind::RcuStall),
        () if is_oops(level, text) => Some(Kind::Oops),
        // Corrected errors are left to the counters in /sys.
        () if begins(&["EDAC MC"]) && text.contains(" UE ") => Some(Kind::MachineCheck),
        // A page of memory was given up (mm/memory-failure.c).
        () if begins(&["Memory failure: 0x"]) => Some(Kind::MachineCheck),
        () if is_io(text) => Some(Kind::Io),
        () => None,
    }
}

/// Whether it is one of the warnings that begin with the name of a task, which can be
/// anything.
fn begins_with_a_name(text: &str) -> bool {
    AFTER_A_NAME.iter().any(|after| {
        let mut found = text.match_indices(after);
        found.any(|(at, _)| {
            let name = text.get(..at).unwrap_or_default();
            name.chars().count() <= COMM_CHARS
        })
    })
}

fn is_hardware(text: &str) -> bool {
    let Some((before, _)) = text.split_once(HARDWARE) else {
        return false;
    };
    let number = before.strip_prefix('{').and_then(|n| n.strip_suffix('}'));
    BEFORE_HARDWARE.contains(&before) || number.is_some_and(|n| n.parse::<u64>().is_ok())
}

/// `INFO: task NAME:PID blocked for more than N seconds.` (`hung_task_info`,
/// kernel/hung_task.c). Of a lock that somebody holds it says more, in a further line.
fn is_hung(text: &str) -> bool {
    let parts = || {
        let rest = text.strip_prefix("INFO: task ")?;
        let (task, after) = rest.rsplit_once(" blocked ")?;
        let (name, pid) = task.rsplit_once(':')?;
        let is_task = name.chars().count() <= COMM_CHARS && pid.parse::<u32>().is_ok();
        let is_long =
            after.starts_with("for more than ") || after.starts_with("in I/O wait for more than ");
        Some(is_task && is_long)
    };
    parts().unwrap_or(false)
}

/// `rcu: INFO: rcu_preempt detected stalls on ..` (kernel/rcu/tree_stall.h, tree_exp.h).
fn is_stall(text: &str) -> bool {
    let text = text.strip_prefix("rcu: ").unwrap_or(text);
    let rest = text.strip_prefix("INFO: rcu_");
    let after = rest.and_then(|rest| rest.split_once(' '));
    after.is_some_and(|(flavour, after)| {
        let is_word = |c: char| c.is_ascii_lowercase() || c == '_';
        flavour.chars().all(is_word)
            && [
                "self-detected stall",
                "detected stall",
                "detected expedited stall",
            ]
            .iter()
            .any(|stall| after.starts_with(stall))
    })
}

/// What follows `BUG: ` where the kernel found a bug of its own. A network device can be
/// called `BUG` too, and its messages begin with its name.
const BUGS: [&str; 28] = [
    "kernel NULL pointer",
    "unable to handle ",
    "Bad page ",
    "Bad rss-counter ",
    "non-zero pgtables_bytes",
    "scheduling while atomic",
    "sleeping function called",
    "spinlock ",
    "rwlock ",
    "KASAN: ",
    "KCSAN: ",
    "KFENCE: ",
    "KMSAN: ",
    "using smp_processor_id",
    "using __this_cpu",
    "workqueue leaked",
    "stack guard page",
    "IRQ stack guard page",
    "TASK stack guard page",
    "Dentry ",
    "MAX_LOCKDEP_",
    "MAX_STACK_TRACE",
    "key ",
    "looking up invalid subclass",
    "recent printk recursion",
    "atomic counter underflow",
    "memory leak",
    "stack ",
];

/// The begin of an oops (`__die_header`, `report_bug`, `bad_page`, arm64's
/// `die_kernel_fault`).
fn is_oops(level: u32, text: &str) -> bool {
    let begins = |with: &[&str]| with.iter().any(|with| text.starts_with(with));
    let of_bug = text.strip_prefix("BUG: ");
    let is_bug = of_bug.is_some_and(|rest| BUGS.iter().any(|bug| rest.starts_with(bug)))
        || begins(&[
            "kernel BUG at ",
            "Unable to handle kernel ",
            "Internal error: ",
            "Kernel panic - not syncing",
        ]);
    // Before 6.10 without the first word (`die_addr`, arch/x86/kernel/dumpstack.c).
    let is_oops = begins(&[
        "Oops: ",
        "general protection fault",
        "divide error: ",
        "invalid opcode: ",
        "stack segment: ",
        "double fault: ",
    ]);
    level <= ERROR && is_bug || is_oops && is_numbered(text)
}

/// Whether an oops has its number: `.. 0002 [#1] PREEMPT SMP`, or `.., sig: 11 [#1]` of
/// powerpc.
fn is_numbered(text: &str) -> bool {
    let Some((before, after)) = text.rsplit_once(" [#") else {
        return false;
    };
    let Some((number, flags)) = after.split_once(']') else {
        return false;
    };
    let code = before.rsplit(' ').next().unwrap_or_default();
    let is_code = !code.is_empty() && code.chars().all(|c| c.is_ascii_hexdigit());
    let mut flags = flags.split_whitespace();
    is_code
        && number.parse::<u32>().is_ok()
        && flags.all(|flag| flag.starts_with(|c: char| c.is_ascii_uppercase()))
}

/// What stands before ` error, dev ` where data was not read or written (`blk_errors`,
/// block/blk-core.c, of 5.15 to 6.18). Not here is what is tried again, and what a device
/// need not know, such as to discard.
const BLOCK_ERRORS: [&str; 11] = [
    "I/O",
    "timeout",
    "critical space allocation",
    "recoverable transport",
    "critical target",
    "critical nexus",
    "reservation conflict",
    "critical medium",
    "protection",
    "device offline",
    "duration limit exceeded",
];

/// Lost data and dead devices, by how the message begins and what follows the name of the
/// device; the second is empty where the begin says all.
const IO: [(&str, &str); 21] = [
    // `ext4_handle_error`, fs/ext4/super.c; `ext4_end_bio`, fs/ext4/page-io.c; fs/jbd2.
    ("EXT4-fs error (device ", ""),
    ("EXT3-fs error (device ", ""),
    ("EXT2-fs error (device ", ""),
    ("JBD2: I/O error", ""),
    ("JBD2: Detected IO errors while flushing file data on ", ""),
    ("Aborting journal on device ", ""),
    // `btrfs_printk` and `__btrfs_handle_fs_error`, fs/btrfs/messages.c.
    ("BTRFS error (device ", ""),
    ("BTRFS critical (device ", ""),
    ("BTRFS: error (device ", ""),
    ("F2FS-fs error (", ""),
    ("FAT-fs error (", ""),
    // drivers/md/raid1.c, raid10.c, raid5.c; `super_written`, md.c.
    ("md/raid", ": Disk failure on "),
    ("md: super_written gets error=", ""),
    // `fail_path`, drivers/md/dm-mpath.c; `set_pool_mode`, dm-thin.c.
    ("device-mapper: multipath: ", ": Failing path "),
    ("device-mapper: thin: ", ": switching pool to read-only "),
    (
        "device-mapper: thin: ",
        ": switching pool to out-of-data-space ",
    ),
    ("device-mapper: thin: ", ": switching pool to fail "),
    // `end_swap_bio_write`, `end_swap_bio_read`, mm/page_io.c.
    ("Write-error on swap-device (", ""),
    ("Read-error on swap-device (", ""),
    // `nvme_timeout`, drivers/nvme/host/pci.c.
    ("nvme nvme", " timeout, "),
    ("nvme nvme", ": controller is down; will reset"),
];

/// What follows `sd 0:0:0:0: ` (drivers/scsi/scsi_lib.c, scsi_error.c).
const SCSI: [&str; 2] = [
    "rejecting I/O to offline device",
    "timing out command, waited ",
];

/// Errors of block devices, file systems and what is made of them (`blk_print_req_error`,
/// `buffer_io_error`, `xfs_buf_ioerror_alert`; [`IO`]).
fn is_io(text: &str) -> bool {
    let at = |prefix: &str| text.strip_prefix(prefix);
    let of_block_layer = || {
        let begin = ["blk_update_request: ", "print_req_error: "];
        let rest = begin.into_iter().find_map(at).unwrap_or(text);
        let (error, device) = rest.split_once(" error, dev ")?;
        BLOCK_ERRORS.contains(&error).then_some(device)
    };
    if let Some(device) = at("Buffer I/O error on dev ").or_else(of_block_layer) {
        // A drive without a medium in it says so of every look at it.
        return !["fd", "sr"].iter().any(|drive| device.starts_with(drive));
    }
    // `XFS (DEV): ..`: a device's name has neither a space nor a bracket.
    let of_file_system = |prefix: &str| {
        let (device, message) = at(prefix)?.split_once("): ")?;
        (!device.contains([' ', '(', ')'])).then_some(message)
    };
    let xfs = of_file_system("XFS (").is_some_and(|message| {
        ["I/O error", "corruption detected", "Corruption", " error "]
            .iter()
            .any(|word| message.contains(word))
    });
    let is_error = |message: &str| message.contains("I/O error");
    xfs || of_file_system("EXT4-fs (").is_some_and(is_error)
        || of_file_system("EXT4-fs warning (device ").is_some_and(is_error)
        || scsi(text).is_some_and(|rest| SCSI.iter().any(|with| rest.starts_with(with)))
        || IO
            .iter()
            .any(|(begin, after)| at(begin).is_some_and(|rest| rest.contains(after)))
}

/// What follows the address of a disk, `sd 0:0:0:0: `, its name and the command's number.
fn scsi(text: &str) -> Option<&str> {
    let (address, mut rest) = text.strip_prefix("sd ")?.split_once(": ")?;
    let is_address = address.split(':').count() == 4;
    let digits = |c: char| c.is_ascii_digit() || c == ':';
    if !is_address || !address.chars().all(digits) {
        return None;
    }
    if let Some((_, after)) = rest
        .strip_prefix('[')
        .and_then(|rest| rest.split_once("] "))
    {
        rest = after;
    }
    if let Some((_, after)) = rest
        .strip_prefix("tag#")
        .and_then(|rest| rest.split_once(' '))
    {
        rest = after;
    }
    Some(rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::{Kind, classify};

    #[test]
    fn messages_as_kernels_write_them() {
        for (level, text, kind) in [
            (
                3,
                "INFO: task kworker/u8:2:91 blocked for more than 120 seconds.",
                Kind::HungTask,
            ),
            (
                3,
                "INFO: task dd:456 blocked in I/O wait for more than 122 seconds.",
                Kind::HungTask,
            ),
            (
                4,
                "general protection fault, probably for non-canonical address \
                 0xdead000000000100: 0000 [#1] PREEMPT SMP NOPTI",
                Kind::Oops,
            ),
            (
                0,
                "watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [x:9]",
                Kind::Lockup,
            ),
            (
                0,
                "watchdog: Watchdog detected hard LOCKUP on cpu 3",
                Kind::Lockup,
            ),
            (
                0,
                "BUG: workqueue lockup - pool cpus=0 node=0 stuck for 30s!",
                Kind::Lockup,
            ),
            (
                3,
                "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
                Kind::RcuStall,
            ),
            (
                3,
                "rcu: INFO: rcu_sched self-detected stall on CPU",
                Kind::RcuStall,
            ),
            (
                1,
                "BUG: kernel NULL pointer dereference, address: 0000000000000008",
                Kind::Oops,
            ),
            (4, "Oops: 0002 [#1] SMP PTI", Kind::Oops),
            (2, "kernel BUG at mm/slub.c:449!", Kind::Oops),
            (
                0,
                "mce: [Hardware Error]: CPU 0: Machine Check: 0 Bank 4",
                Kind::MachineCheck,
            ),
            (
                6,
                "mce: [Hardware Error]: Machine check events logged",
                Kind::MachineCheck,
            ),
            (
                4,
                "{1}[Hardware Error]: Hardware error from APEI Generic",
                Kind::MachineCheck,
            ),
            (
                0,
                "EDAC MC0: 1 UE memory read error on CPU_SrcID#0",
                Kind::MachineCheck,
            ),
            (3, "I/O error, dev sda, sector 2048 op 0x0:(READ)", Kind::Io),
            (
                3,
                "blk_update_request: I/O error, dev sdb, sector 0",
                Kind::Io,
            ),
            (
                3,
                "Buffer I/O error on dev dm-0, logical block 0, async page read",
                Kind::Io,
            ),
            (
                2,
                "EXT4-fs error (device vda1): ext4_lookup:1785: inode #2: comm ls",
                Kind::Io,
            ),
            (
                1,
                "XFS (dm-1): metadata I/O error in \"xfs_da_read_buf+0x9\" at daddr",
                Kind::Io,
            ),
            (
                3,
                "BTRFS error (device sda2): bdev /dev/sda2 errs: wr 1",
                Kind::Io,
            ),
            (
                3,
                "Memory failure: 0x10b8f2: recovery action for dirty LRU page: Recovered",
                Kind::MachineCheck,
            ),
            (
                6,
                "cgroup: fork rejected by pids controller in /user.slice/user-1000.slice",
                Kind::ForkRefused,
            ),
        ] {
            assert_eq!(classify(level, text), Some(kind), "{text}");
        }
    }

    #[test]
    fn lost_data_and_dead_devices() {
        for (level, text) in [
            (
                3,
                "device offline error, dev sdb, sector 8472 op 0x1:(WRITE) flags 0x4800",
            ),
            (
                3,
                "timeout error, dev nvme0n1, sector 8472 op 0x1:(WRITE) flags 0x4800",
            ),
            (
                3,
                "recoverable transport error, dev sdc, sector 123 op 0x0:(READ) flags 0x4000",
            ),
            (
                3,
                "critical space allocation error, dev sdb, sector 128 op 0x1:(WRITE)",
            ),
            (
                3,
                "critical target error, dev sdb, sector 128 op 0x1:(WRITE) flags 0x800",
            ),
            (
                3,
                "reservation conflict error, dev sdb, sector 128 op 0x1:(WRITE) flags 0x800",
            ),
            (
                3,
                "protection error, dev nvme0n1, sector 128 op 0x0:(READ) flags 0x800",
            ),
            (
                3,
                "blk_update_request: critical nexus error, dev sdb, sector 128",
            ),
            (
                2,
                "BTRFS: error (device dm-0) in btrfs_commit_transaction:2332: errno=-5 IO failure",
            ),
            (
                2,
                "BTRFS: error (device nvme0n1p3 state A) in btrfs_create_new_inode:6670: errno=-17",
            ),
            (2, "md/raid1:md0: Disk failure on sdb1, disabling device."),
            (3, "md: super_written gets error=-5"),
            (4, "device-mapper: multipath: 253:3: Failing path 8:16."),
            (
                4,
                "EXT4-fs warning (device dm-5): ext4_end_bio:347: I/O error 3 writing to inode 378",
            ),
            (
                4,
                "JBD2: Detected IO errors while flushing file data on dm-1-8",
            ),
            (
                4,
                "device-mapper: thin: 253:4: switching pool to out-of-data-space (error IO) mode",
            ),
            (
                3,
                "device-mapper: thin: 253:4: switching pool to read-only mode",
            ),
            (1, "Write-error on swap-device (253:0:1234)"),
            (
                4,
                "nvme nvme0: I/O tag 23 (1017) opcode 0x2 (I/O Cmd) QID 2 timeout, aborting req_op",
            ),
            (
                4,
                "nvme nvme1: controller is down; will reset: CSTS=0xffffffff",
            ),
            (3, "sd 2:0:0:0: rejecting I/O to offline device"),
            (
                3,
                "sd 2:0:0:0: [sdb] tag#23 timing out command, waited 180s",
            ),
        ] {
            assert_eq!(classify(level, text), Some(Kind::Io), "{text}");
        }
        for (level, text) in [
            (
                3,
                "operation not supported error, dev sdb, sector 128 op 0x3:(DISCARD)",
            ),
            (3, "nonblocking retry error, dev sdb, sector 128"),
            (
                4,
                "device-mapper: thin: 253:4: switching pool to write mode",
            ),
            (3, "sd x:0:0:0: rejecting I/O to offline device"),
            (3, "sd 2:0:0:0: [sdb] Attached SCSI disk"),
            (4, "nvme nvme0: 2/0/0 default/read/poll queues"),
            (4, "md/raid1:md0: active with 2 out of 2 mirrors"),
        ] {
            assert_eq!(classify(level, text), None, "{text}");
        }
    }

    #[test]
    fn others() {
        for (level, text) in [
            (
                6,
                "EXT4-fs (vda): mounted filesystem with ordered data mode",
            ),
            (6, "EDAC MC: Ver: 3.0.0"),
            (
                3,
                "INFO: task for more than :12 is blocked on a mutex likely owned by task x:9.",
            ),
            (4, "EDAC MC0: 1 CE memory read error on CPU_SrcID#0"),
            (3, "Out of memory: Killed process 9 (x) total-vm:1kB"),
            (3, "blk_update_request: I/O error, dev fd0, sector 0"),
            (3, "Buffer I/O error on dev sr0, logical block 0"),
            (6, "rcu: INFO: something else"),
            (6, "XFS (dm-1): Mounting V5 Filesystem"),
            (6, "mce: CPU supports 10 MCE banks"),
            (4, "WARNING: CPU: 1 PID: 2 at kernel/x.c:3"),
            // Names of tasks and devices that read like messages.
            (
                4,
                "Oops: 0002 [#1] invoked oom-killer: gfp_mask=0x1(GFP), order=0",
            ),
            (3, "BUG: (slave eth0): Error -22 calling set_mac_address"),
            (4, "Oops: (slave [#1]): Error -22 calling set_mac_address"),
            (
                6,
                "input: [Hardware Error] as /devices/virtual/input/input5",
            ),
            (6, "Tasks in /[Hardware Error]"),
            (
                4,
                "EDAC MC0: 1 UE invoked oom-killer: gfp_mask=0x1(GFP), order=0",
            ),
            (
                4,
                "INFO: task : page allocation failure: order:0,cpuset=a:1 blocked for more than 1",
            ),
            (6, "BUG: x[12]: segfault at 0 ip 0 sp 0 error 4"),
            (4, "BUG: x: page allocation failure: order:0"),
            (4, "Oops: 1 [#1: page allocation failure: order:0"),
            (
                6,
                "oom-kill:constraint=CONSTRAINT_NONE,task_memcg=/[Hardware Error],task=x",
            ),
            (4, "watchdog: BUG: s: page allocation failure: order:0"),
        ] {
            assert_eq!(classify(level, text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_can_be_looked_at(level in any::<u32>(), text in any::<String>()) {
            classify(level, &text);
        }
    }
}
