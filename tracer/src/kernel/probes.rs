//! THE table of probes. Loading, `tracer doctor`, the `hooks` of every output
//! and docs/hooks.md are all made from it; nothing else names a hook.

/// Where a program is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// A raw tracepoint with typed arguments (`tp_btf`).
    Tracepoint(&'static str),
    /// The same, attached only while it is wanted.
    OnDemand(&'static str),
    /// The beginning of a function: by a trampoline (`fentry`), else by a breakpoint,
    /// which is a program of its own, the name followed by `_kprobe`.
    Function(&'static str),
    /// The end of a function, with what it was called with and what it answers: by a
    /// trampoline (`fexit`), else by breakpoints at both ends, which are programs of their
    /// own, the name followed by `_kprobe` and `_kretprobe`.
    FunctionEnd(&'static str),
    /// An iterator that user space reads.
    Iterator(&'static str),
}

impl Hook {
    /// The kind, as the outputs name it.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Tracepoint(_) | Self::OnDemand(_) => "tp_btf",
            Self::Function(_) => FENTRY,
            Self::FunctionEnd(_) => FEXIT,
            Self::Iterator(_) => "iter",
        }
    }

    /// The kernel's name for the place.
    pub fn target(self) -> &'static str {
        match self {
            Self::Tracepoint(name)
            | Self::OnDemand(name)
            | Self::Function(name)
            | Self::FunctionEnd(name)
            | Self::Iterator(name) => name,
        }
    }
}

/// Hooks on functions, as the outputs name them.
pub const FENTRY: &str = "fentry";
/// See [`FENTRY`].
pub const FEXIT: &str = "fexit";
/// See [`FENTRY`].
pub const KPROBE: &str = "kprobe";
/// See [`FENTRY`].
pub const KRETPROBE: &str = "kretprobe";

/// One probe.
#[derive(Debug)]
pub struct Probe {
    /// Name of the program, and of the probe in every output.
    pub name: &'static str,
    /// Where it goes.
    pub hook: Hook,
    /// What it is for.
    pub purpose: &'static str,
    /// The least kernel that has it.
    pub since: &'static str,
    /// Whether tracer can do without it.
    pub required: bool,
    /// What does its work instead.
    pub fallback: &'static str,
    /// What is lost without it, fallback or not.
    pub without: &'static str,
}

/// The task iterator, which the reader opens.
pub const TASK_ITERATOR: &str = "each_task";
/// The iterator over sockets in CLOSE_WAIT.
pub const WAITING_ITERATOR: &str = "each_waiting";
/// The iterator over descriptors.
pub const DESCRIPTOR_ITERATOR: &str = "each_descriptor";
/// The iterator over the memory of processes.
pub const MEMORY_ITERATOR: &str = "each_memory";
/// The iterator over listeners.
pub const LISTENER_ITERATOR: &str = "each_listener";
/// The hooks on connections that suspected processes accept and make.
pub const OPENINGS: [&str; 2] = ["security_sock_graft", "tcp_connect"];
/// What does their work where one of them cannot be had.
pub const SYSTEM_CALLS: &str = "sys_exit";
/// The hook on resets.
pub const RESETS: &str = "tcp_send_reset";
/// The hook on transitions of TCP sockets.
pub const TCP_STATES: &str = "inet_sock_set_state";

/// The hooks on SYN cookies: all of them, or none is of use.
pub const COOKIES: [&str; 5] = [
    "cookie_v4_check",
    "cookie_v6_check",
    "cookie_v4_init_sequence",
    "cookie_v6_init_sequence",
    "tcp_conn_request",
];

const fn cookie(
    name: &'static str,
    hook: Hook,
    purpose: &'static str,
    without: &'static str,
) -> Probe {
    Probe {
        name,
        hook,
        purpose,
        since: "5.5 by trampoline, any by breakpoint",
        required: false,
        fallback: "the counters of the namespace (/proc/net/netstat), and the SYN queue (sock_diag)",
        without,
    }
}

const NO_ANSWERS: &str = "whose cookies came back, where several listeners of a namespace are full; what a connection by cookie has lost, and its MSS";
const NO_COOKIES: &str = "whose cookies were sent, where several listeners of a namespace are full; how many addresses a flood comes from";

/// Every probe, in the order in which they are attached: an end without its
/// begin is harmless, a begin without its end is not.
pub const PROBES: &[Probe] = &[
    Probe {
        name: TASK_ITERATOR,
        hook: Hook::Iterator("task"),
        purpose: "run, wait and blocked time of every task at each snapshot",
        since: "5.8",
        required: true,
        fallback: "none",
        without: "everything",
    },
    Probe {
        name: "block_bio_queue",
        hook: Hook::Tracepoint("block_bio_queue"),
        purpose: "the block device that a task submitted I/O to last",
        since: "5.11",
        required: false,
        fallback: "the file that the blocked system call is at",
        without: "the device of page faults and of kernel threads that are blocked",
    },
    Probe {
        name: "contention_begin",
        hook: Hook::Tracepoint("contention_begin"),
        purpose: "the lock that a task is about to sleep for",
        since: "5.19",
        required: false,
        fallback: "the function that the task sleeps in; who woke it",
        without: "who holds the lock that a task waits for, and the file system of a path call \
                  that waits for a lock of it",
    },
    Probe {
        name: "sched_waking",
        hook: Hook::Tracepoint("sched_waking"),
        purpose: "ends a blocked episode",
        since: "5.5, with task storage from 5.12",
        required: true,
        fallback: "none",
        without: "blocked time",
    },
    Probe {
        name: "sched_switch",
        hook: Hook::Tracepoint("sched_switch"),
        purpose: "begins a blocked episode; takes the final totals of an exiting task",
        since: "5.5, with task storage from 5.12",
        required: true,
        fallback: "none",
        without: "blocked time, and processes that live shorter than an interval",
    },
    Probe {
        name: "hrtimer_expire_exit",
        hook: Hook::Tracepoint("hrtimer_expire_exit"),
        purpose: "names the runnable tasks at the tick at which the kernel takes its load sample",
        since: "5.5",
        required: false,
        fallback: "the next snapshot, with the time since when each task is runnable",
        without: "names of tasks that stopped running between the kernel's sample and the next snapshot",
    },
    Probe {
        name: WAITING_ITERATOR,
        hook: Hook::Iterator("bpf_map_elem"),
        purpose: "sockets that the peer has closed and the process has not (CLOSE_WAIT)",
        since: "5.9",
        required: false,
        fallback: "none",
        without: "which sockets are in CLOSE_WAIT, and so leaks",
    },
    Probe {
        name: DESCRIPTOR_ITERATOR,
        hook: Hook::Iterator("task_file"),
        purpose: "the processes and descriptors that hold a socket in CLOSE_WAIT or LISTEN",
        since: "5.11",
        required: false,
        fallback: "none",
        without: "who holds a socket in CLOSE_WAIT, and such sockets from before the start; who listens",
    },
    Probe {
        name: LISTENER_ITERATOR,
        hook: Hook::Iterator("bpf_map_elem"),
        purpose: "SYN queue and accept queue of each listener",
        since: "5.9",
        required: false,
        fallback: "none",
        without: "SYN floods, bursts, and servers that are slow to accept",
    },
    Probe {
        name: TCP_STATES,
        hook: Hook::Tracepoint("inet_sock_set_state"),
        purpose: "transitions of TCP sockets; who opens and who closes connections; handshakes",
        since: "5.11",
        required: false,
        fallback: "none",
        without: "everything about TCP sockets but the kernel's own counters",
    },
    Probe {
        name: "inet_sock_set_state_nested",
        hook: Hook::Tracepoint("inet_sock_set_state"),
        purpose: "transitions that an interrupt makes while the hook before runs on its CPU",
        since: "5.11",
        required: false,
        fallback: "none",
        without: "those transitions: a hundred at a time, every few seconds on a busy host",
    },
    Probe {
        name: RESETS,
        hook: Hook::Tracepoint("tcp_send_reset"),
        purpose: "why the kernel sends resets",
        since: "6.10",
        required: false,
        fallback: "the kernel's counters, without a reason",
        without: "why resets are sent",
    },
    Probe {
        name: MEMORY_ITERATOR,
        hook: Hook::Iterator("task"),
        purpose: "the memory of every process: who the out-of-memory killer would take next",
        since: "5.8",
        required: false,
        fallback: "none",
        without: "who is next, and who else was big when a process was killed",
    },
    Probe {
        name: "signal_generate",
        hook: Hook::Tracepoint("signal_generate"),
        purpose: "SIGKILL: by whom it is sent; tells a kill from a process that was on its way out",
        since: "5.5",
        required: false,
        fallback: "none",
        without: "kills by processes such as systemd-oomd, and processes that die with one that shares their memory",
    },
    Probe {
        name: "oom_kill_process",
        hook: Hook::Function("oom_kill_process"),
        purpose: "the cgroup at its limit, and the order of the request, of every kill",
        since: "5.5 by fentry, any by kprobe",
        required: false,
        fallback: "the kernel's log (/dev/kmsg), which leaves out reports when there are many",
        without: "whose limit was reached, where the log leaves it out",
    },
    Probe {
        name: "mark_victim",
        hook: Hook::Tracepoint("mark_victim"),
        purpose: "victims of the out-of-memory killer, and whose wish for memory triggered it",
        since: "6.8, and stable series of 2024",
        required: false,
        fallback: "the kernel's log (/dev/kmsg)",
        without: "kills within 100 ms, and those that the kernel's log leaves out",
    },
    cookie(
        COOKIES[0],
        Hook::FunctionEnd("cookie_v4_check"),
        "SYN cookies of IPv4 that came back, and what their connections have lost",
        NO_ANSWERS,
    ),
    cookie(
        COOKIES[1],
        Hook::FunctionEnd("cookie_v6_check"),
        "SYN cookies of IPv6 that came back, and what their connections have lost",
        NO_ANSWERS,
    ),
    cookie(
        COOKIES[2],
        Hook::Function("cookie_v4_init_sequence"),
        "SYN cookies of IPv4 that are sent, and to whom",
        NO_COOKIES,
    ),
    cookie(
        COOKIES[3],
        Hook::Function("cookie_v6_init_sequence"),
        "SYN cookies of IPv6 that are sent, and to whom",
        NO_COOKIES,
    ),
    cookie(
        COOKIES[4],
        Hook::Function("tcp_conn_request"),
        "the listener that a SYN is for",
        NO_COOKIES,
    ),
    Probe {
        name: OPENINGS[0],
        hook: Hook::Function("security_sock_graft"),
        purpose: "the user stack at which a process that may leak sockets accepts",
        since: "5.15, with CONFIG_SECURITY_NETWORK",
        required: false,
        fallback: "sys_exit, 10 s in 10 minutes at most",
        without: "where the sockets of a leak were accepted, most of the time",
    },
    Probe {
        name: OPENINGS[1],
        hook: Hook::Function("tcp_connect"),
        purpose: "the user stack at which a process that may leak sockets connects",
        since: "5.15",
        required: false,
        fallback: "sys_exit, 10 s in 10 minutes at most",
        without: "where the sockets of a leak were connected, most of the time",
    },
    Probe {
        name: SYSTEM_CALLS,
        hook: Hook::OnDemand("sys_exit"),
        purpose: "the same where one of those two is refused; attached for a quarter of a second at a time",
        since: "5.15",
        required: false,
        fallback: "none",
        without: "nothing where functions can be hooked; else where the sockets of a leak were opened",
    },
];
