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
        }
    }

    /// The next command.
    pub(in crate::check) fn next(self) -> &'static str {
        match self {
            Self::HungTask => "sudo tracer run --by cause",
            Self::Lockup | Self::RcuStall => "sudo tracer check --only cpu",
            Self::Io => "sudo tracer check --only disks",
            Self::Oops | Self::MachineCheck => "sudo dmesg --level=emerg,alert,crit,err,warn",
        }
    }
}

/// All kinds, the worst first.
pub(in crate::check) const KINDS: [Kind; 6] = [
    Kind::Oops,
    Kind::MachineCheck,
    Kind::Lockup,
    Kind::RcuStall,
    Kind::HungTask,
    Kind::Io,
];

/// `KERN_ERR`.
const ERROR: u32 = 3;
/// `KERN_WARNING`, which is also what a message without a level has.
const WARNING: u32 = 4;
/// The prefix of hardware errors (`HW_ERR`, include/linux/printk.h).
const HARDWARE: &str = "[Hardware Error]";
/// `HW_ERR` stands within so many bytes; a task's name does not have room for it.
const HARDWARE_WITHIN: usize = 16;

/// What a message of the kernel tells of, if that is something bad.
pub(in crate::check) fn classify(level: u32, text: &str) -> Option<Kind> {
    // Told as information once the error has been corrected or logged.
    if text.find(HARDWARE).is_some_and(|at| at <= HARDWARE_WITHIN) {
        return Some(Kind::MachineCheck);
    }
    if level > WARNING {
        return None;
    }
    let begins = |with: &[&str]| with.iter().any(|with| text.starts_with(with));
    let has = |word: &str| text.contains(word);
    let is_lockup = begins(&[
        "watchdog: ",
        "NMI watchdog: ",
        "Watchdog detected hard LOCKUP",
    ]) && (has("BUG: soft lockup") || has("hard LOCKUP"))
        || begins(&["BUG: soft lockup", "BUG: workqueue lockup"]);
    match () {
        () if is_lockup => Some(Kind::Lockup),
        () if begins(&["INFO: task "]) && has(" blocked ") => {
            is_hung(text).then_some(Kind::HungTask)
        }
        () if begins(&["rcu: INFO: ", "INFO: rcu_"]) && has(" stall") => Some(Kind::RcuStall),
        () if is_oops(level, text) => Some(Kind::Oops),
        // Corrected errors are left to the counters in /sys.
        () if begins(&["EDAC "]) && has(" UE ") => Some(Kind::MachineCheck),
        () if is_io(text) => Some(Kind::Io),
        () => None,
    }
}

/// `hung_task_info`, kernel/hung_task.c. Of a lock that somebody holds it says more, in a
/// further line.
fn is_hung(text: &str) -> bool {
    let after = text.rsplit_once(" blocked ").map(|(_, after)| after);
    after.is_some_and(|after| {
        after.starts_with("for more than ") || after.starts_with("in I/O wait for more than ")
    })
}

/// The begin of an oops (`__die_header`, `report_bug`, `bad_page`, arm64's
/// `die_kernel_fault`).
fn is_oops(level: u32, text: &str) -> bool {
    let begins = |with: &[&str]| with.iter().any(|with| text.starts_with(with));
    // A warning may begin with the name of a task (`warn_alloc`).
    let is_bug = level <= ERROR
        && begins(&[
            "BUG: ",
            "kernel BUG at ",
            "Unable to handle kernel ",
            "Internal error: ",
            "Kernel panic - ",
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
    is_bug || is_oops && text.contains(" [#") && !text.contains(": page ")
}

/// Errors of block devices and file systems (`blk_print_req_error`, `buffer_io_error`,
/// `ext4_handle_error`, `xfs_buf_ioerror_alert`, `btrfs_printk`).
fn is_io(text: &str) -> bool {
    let at = |prefix: &str| text.strip_prefix(prefix);
    let device = ["I/O error, dev ", "Buffer I/O error on dev "]
        .into_iter()
        .chain([
            "blk_update_request: I/O error, dev ",
            "print_req_error: I/O error, dev ",
            "critical medium error, dev ",
            "blk_update_request: critical medium error, dev ",
        ])
        .find_map(at);
    if let Some(device) = device {
        // A drive without a medium in it says so of every look at it.
        return !["fd", "sr"].iter().any(|drive| device.starts_with(drive));
    }
    let xfs = at("XFS (").is_some_and(|rest| {
        ["I/O error", "corruption detected", "Corruption", " error "]
            .iter()
            .any(|word| rest.contains(word))
    });
    xfs || [
        "EXT4-fs error (",
        "EXT3-fs error (",
        "EXT2-fs error (",
        "JBD2: I/O error",
        "Aborting journal on device ",
        "BTRFS error (",
        "BTRFS critical (",
        "F2FS-fs error (",
        "FAT-fs error (",
    ]
    .iter()
    .any(|with| text.starts_with(with))
        || at("EXT4-fs (").is_some_and(|rest| rest.contains("I/O error"))
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
        ] {
            assert_eq!(classify(level, text), Some(kind), "{text}");
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
            // Names of tasks that read like messages.
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
