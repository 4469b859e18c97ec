//! The filter of system calls of each process.
//!
//! The reader has a list of what it may do. The others have lists of what they may not:
//! which calls a C library makes differs from one version to the next, and one that is
//! refused by mistake would lose readings. Calls that are newer than this file are not
//! known to anybody here, and answered as by a kernel without them.

use super::seccomp::{ALLOW, END, Filter, REFUSE, UNKNOWN};

/// The newest call of the lists below (6.10).
const NEWEST: libc::c_long = libc::SYS_mseal;

/// What changes the host, or another process, or is a way around the other lists.
const CONTROL: &[libc::c_long] = &[
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_process_mrelease,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
    // Mounts and roots.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    libc::SYS_unshare,
    // The kernel.
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_vhangup,
    // Large and rarely used parts of it.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_setup,
    libc::SYS_fanotify_init,
    libc::SYS_personality,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

/// Requests of ioctl(2) that type into a terminal (TIOCSTI, TIOCLINUX), and that have
/// signals sent to others (FIOSETOWN, SIOCSPGRP).
const REQUESTS: [u32; 4] = [0x5412, 0x541c, 0x8901, 0x8902];
/// Commands of fcntl(2) that do the latter: F_SETOWN, F_SETSIG, F_SETOWN_EX.
const OWNERS: [u32; 3] = [8, 10, 15];

/// libc has it for x86-64 alone; the number is the same everywhere.
const FCHMODAT2: libc::c_long = 452;

/// What changes a file by its path, but for open(2).
const CHANGES: &[libc::c_long] = &[
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_truncate,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    FCHMODAT2,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    libc::SYS_utimensat,
    libc::SYS_mq_open,
    libc::SYS_mq_unlink,
    #[cfg(target_arch = "aarch64")]
    38, // renameat
    #[cfg(target_arch = "x86_64")]
    libc::SYS_renameat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_creat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mkdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mknod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rmdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_link,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_symlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lchown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_utime,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_utimes,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_futimesat,
];

/// Flags of open(2) that ask for more than to read.
const TO_CHANGE: u32 = (libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC) as u32;

const PROGRAMS: &[libc::c_long] = &[libc::SYS_execve, libc::SYS_execveat];

/// Signals to others. tgkill(2) is how a process ends itself by abort(3).
const SIGNALS: &[libc::c_long] = &[
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_pidfd_send_signal,
];

/// What a user may do to its own processes and their memory: root's are many.
const NEIGHBOURS: &[libc::c_long] = &[
    libc::SYS_setpriority,
    libc::SYS_ioprio_set,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setattr,
    libc::SYS_sched_setaffinity,
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_semget,
    libc::SYS_semctl,
    libc::SYS_msgget,
    libc::SYS_msgctl,
];

/// To speak with others. A pair of sockets, netlink and what is open are not.
const CONNECTIONS: &[libc::c_long] = &[
    libc::SYS_connect,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
];

/// To become another user again.
const USERS: &[libc::c_long] = &[
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
];

/// To write to what is open, packets left out.
const WRITES: &[libc::c_long] = &[
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_sendfile,
    libc::SYS_splice,
    libc::SYS_tee,
    libc::SYS_vmsplice,
    libc::SYS_copy_file_range,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
];

/// Commands of bpf(2) on what there is already (include/uapi/linux/bpf.h).
const BPF_IN_USE: &[u32] = &[
    1,  // BPF_MAP_LOOKUP_ELEM
    2,  // BPF_MAP_UPDATE_ELEM
    3,  // BPF_MAP_DELETE_ELEM
    4,  // BPF_MAP_GET_NEXT_KEY
    15, // BPF_OBJ_GET_INFO_BY_FD
    17, // BPF_RAW_TRACEPOINT_OPEN: `sys_exit`, while a process is suspected
    21, // BPF_MAP_LOOKUP_AND_DELETE_ELEM
    24, // BPF_MAP_LOOKUP_BATCH
    25, // BPF_MAP_LOOKUP_AND_DELETE_BATCH
    28, // BPF_LINK_CREATE: an iterator
    32, // BPF_ENABLE_STATS
    33, // BPF_ITER_CREATE
    34, // BPF_LINK_DETACH
];

/// The reader's: packets, descriptors that it was sent, its own memory, its timer, and its
/// end.
const OF_READER: &[libc::c_long] = &[
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_pread64,
    libc::SYS_close,
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_setitimer,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Of these, memory without a file, and none of it is code.
    libc::SYS_mmap,
    libc::SYS_mprotect,
];

pub(super) fn watch() -> Filter {
    let newnet = libc::CLONE_NEWNET as u32;
    alone(reads_only(control())).unless(libc::SYS_setns, 1, &[newnet], REFUSE)
}

pub(super) fn check() -> Filter {
    let newnet = libc::CLONE_NEWNET as u32;
    reads_only(control()).unless(libc::SYS_setns, 1, &[newnet], REFUSE)
}

pub(super) fn check_files() -> Filter {
    let bpf = [libc::SYS_bpf, libc::SYS_perf_event_open, libc::SYS_setns];
    reads_only(control()).calls(&bpf, REFUSE)
}

pub(super) fn doctor() -> Filter {
    alone(reads_only(control())).calls(&[libc::SYS_setns], REFUSE)
}

/// What it runs has this too, so what they do at their start is allowed.
pub(super) fn launcher() -> Filter {
    let others = [
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_setns,
        libc::SYS_socket,
        libc::SYS_bind,
    ];
    control().calls(&others, REFUSE).calls(CONNECTIONS, REFUSE)
}

/// On top of the launcher's. openat2(2) has its flags in memory, so it is the user, and
/// that nothing can be written, that stand in the way there.
pub(super) fn opener() -> Filter {
    let filter = opens_to_read(Filter::of_all_threads())
        .unless(libc::SYS_prlimit64, 0, &[0], REFUSE)
        .calls(NEIGHBOURS, REFUSE)
        .calls(CHANGES, REFUSE)
        .calls(PROGRAMS, REFUSE)
        .calls(USERS, REFUSE)
        .calls(WRITES, REFUSE);
    alone(filter)
}

pub(super) fn reader() -> Filter {
    let exec = libc::PROT_EXEC as u32;
    Filter::of_one_thread(END)
        .unless(libc::SYS_mmap, 4, &[u32::MAX], END)
        .with(libc::SYS_mmap, 2, exec, END)
        .with(libc::SYS_mprotect, 2, exec, END)
        .calls(OF_READER, ALLOW)
}

/// On top of those above, once everything is attached.
pub(super) fn attached() -> Filter {
    Filter::of_all_threads()
        .unless(libc::SYS_bpf, 0, BPF_IN_USE, REFUSE)
        .calls(&[libc::SYS_perf_event_open], REFUSE)
}

/// What nothing of tracer needs.
fn control() -> Filter {
    let filter = Filter::of_all_threads().above(NEWEST, UNKNOWN);
    let filter = REQUESTS.into_iter().fold(filter, |filter, request| {
        filter.is(libc::SYS_ioctl, 1, request, REFUSE)
    });
    let filter = OWNERS.into_iter().fold(filter, |filter, command| {
        filter.is(libc::SYS_fcntl, 1, command, REFUSE)
    });
    filter.calls(CONTROL, REFUSE)
}

/// Runs no program, opens files to read them, and speaks with the kernel alone.
fn reads_only(filter: Filter) -> Filter {
    opens_to_read(filter)
        .calls(&[libc::SYS_openat2], UNKNOWN)
        .unless(libc::SYS_socket, 0, &[libc::AF_NETLINK as u32], REFUSE)
        .unless(libc::SYS_prlimit64, 0, &[0], REFUSE)
        .calls(NEIGHBOURS, REFUSE)
        .calls(CHANGES, REFUSE)
        .calls(PROGRAMS, REFUSE)
        .calls(USERS, REFUSE)
        .calls(CONNECTIONS, REFUSE)
}

fn opens_to_read(filter: Filter) -> Filter {
    #[cfg(target_arch = "x86_64")]
    let filter = filter.with(libc::SYS_open, 1, TO_CHANGE, REFUSE);
    filter.with(libc::SYS_openat, 2, TO_CHANGE, REFUSE)
}

/// Starts threads, but no processes, and sends signals to itself alone.
fn alone(filter: Filter) -> Filter {
    let own = std::process::id();
    #[cfg(target_arch = "x86_64")]
    let filter = filter.calls(&[libc::SYS_fork, libc::SYS_vfork], REFUSE);
    filter
        // Its flags are in memory; the C library takes clone(2) instead.
        .calls(&[libc::SYS_clone3], UNKNOWN)
        .without(libc::SYS_clone, 0, libc::CLONE_THREAD as u32, REFUSE)
        .unless(libc::SYS_tgkill, 0, &[own], REFUSE)
        .calls(SIGNALS, REFUSE)
}
