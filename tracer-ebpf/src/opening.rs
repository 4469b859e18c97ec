//! Where a process opens connections: its user stack in accept(2) and connect(2).
//!
//! Both hooks are on functions that run for a connection and for nothing else, so that
//! other system calls cost nothing, and at whose beginning the socket has its ports. Where
//! functions cannot be hooked, the end of every system call is, for a short time. User
//! space says which processes are suspected of a leak, and how many openings it wants.
//! The stack is brought back as bytes: most programs keep no frame pointers, so user
//! space unwinds it by the tables in their files.

use aya_ebpf::{
    bindings::BPF_RB_NO_WAKEUP,
    helpers::generated::{
        bpf_get_current_pid_tgid, bpf_get_current_task_btf, bpf_ktime_get_ns, bpf_probe_read_user,
        bpf_task_pt_regs,
    },
    macros::{btf_tracepoint, fentry, kprobe},
    programs::{BtfTracePointContext, FEntryContext, ProbeContext},
};
use tracer_common::{
    lost,
    tcp::{OPENING_STACK, OPENING_STACK_PART, OpeningRecord},
};

use crate::{
    field::{
        FILE_PRIVATE, Object, REGS_FP, REGS_PC, REGS_SP, SOCK_LOCAL_PORT, SOCK_PROTOCOL,
        SOCK_REMOTE_PORT, SOCKET_SOCK, SYSCALL_ACCEPT, SYSCALL_ACCEPT4, SYSCALL_CONNECT,
        TASK_EXECS, TASK_LEADER, TASK_START, field, has, read,
    },
    file::{file_of, system_call},
    maps::{OPENINGS, SUSPECTS, count},
    tcp::IPPROTO_TCP,
};

/// include/uapi/asm-generic/errno.h.
const EINPROGRESS: i64 = 115;

/// `security_sock_graft(sk, socket)`, security/security.c: an accepted connection gets its
/// `struct socket`. It does not wait, as the functions around it do: a process that stays
/// in accept(2) holds no trampoline.
#[fentry(function = "security_sock_graft")]
pub(crate) fn security_sock_graft(ctx: FEntryContext) -> i32 {
    opened(ctx.arg(0));
    0
}

/// The same where there are no trampolines.
#[kprobe]
pub(crate) fn security_sock_graft_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(sk) = ctx.arg(0) {
        opened(sk);
    }
    0
}

/// `tcp_connect(sk)`, net/ipv4/tcp_output.c: the SYN is about to be sent.
#[fentry(function = "tcp_connect")]
pub(crate) fn tcp_connect(ctx: FEntryContext) -> i32 {
    opened(ctx.arg(0));
    0
}

/// See [`security_sock_graft_kprobe`].
#[kprobe]
pub(crate) fn tcp_connect_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(sk) = ctx.arg(0) {
        opened(sk);
    }
    0
}

/// `sys_exit(regs, ret)`.
#[btf_tracepoint(function = "sys_exit")]
pub(crate) fn sys_exit(ctx: BtfTracePointContext) -> i32 {
    let result: u64 = ctx.arg(1);
    opening(|call, first| descriptor(call, first, result as i64).and_then(socket));
    0
}

/// A hook on a function has the socket.
#[inline(always)]
fn opened(sk: u64) {
    // io_uring accepts and connects within any system call.
    opening(|call, _| (is_accept(call) || call == SYSCALL_CONNECT.load()).then_some(sk));
}

/// Reports the TCP socket that a system call with this number and first argument has
/// opened, if it is one of a suspected process.
#[inline(always)]
fn opening(socket: impl FnOnce(u32, u64) -> Option<u64>) {
    // SAFETY: the helper has no preconditions.
    let tgid = (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32;
    let Some(wanted) = SUSPECTS.get_ptr_mut(tgid) else {
        return;
    };
    // SAFETY: a map value. Threads that come at once take one too many at most.
    unsafe {
        if *wanted == 0 || !has(&REGS_FP) {
            return;
        }
        let task: Object = bpf_get_current_task_btf().cast_const().cast();
        let Some(sk) = system_call(task).and_then(|(call, first)| socket(call, first)) else {
            return;
        };
        // A 32-bit program's calls have other numbers: then this is no socket.
        let protocol: u16 = read(sk + u64::from(SOCK_PROTOCOL.load()));
        if protocol == IPPROTO_TCP {
            *wanted -= 1;
            report(tgid, sk);
        }
    }
}

#[inline(always)]
fn is_accept(call: u32) -> bool {
    call == SYSCALL_ACCEPT.load() || call == SYSCALL_ACCEPT4.load()
}

/// What a system call that ends so has opened.
#[inline(always)]
fn descriptor(call: u32, first: u64, result: i64) -> Option<u64> {
    if is_accept(call) && result >= 0 {
        Some(result as u64)
    } else if call == SYSCALL_CONNECT.load() && (result == 0 || result == -EINPROGRESS) {
        Some(first)
    } else {
        None
    }
}

/// The `struct sock` behind a descriptor of the running task.
#[inline(always)]
fn socket(descriptor: u64) -> Option<u64> {
    // SAFETY: the helper has no preconditions.
    let task: Object = unsafe { bpf_get_current_task_btf() }.cast_const().cast();
    let file = file_of(task, descriptor)?;
    let socket: u64 = read(file + u64::from(FILE_PRIVATE.load()));
    Some(read(socket + u64::from(SOCKET_SOCK.load())))
}

#[inline(always)]
fn report(tgid: u32, sk: u64) {
    let Some(mut room) = OPENINGS.reserve(0) else {
        count(lost::OPENING_RING);
        return;
    };
    let record: *mut OpeningRecord = room.as_mut_ptr();
    // SAFETY: reserved room, of which each part is written before it goes out but the
    // end of the stack, which `length` leaves out; the running task and its pt_regs.
    unsafe {
        let task = bpf_get_current_task_btf();
        let regs = bpf_task_pt_regs(task) as Object;
        let sp: u64 = field(regs, &REGS_SP);
        (*record).socket = sk;
        (*record).at_ns = bpf_ktime_get_ns();
        (*record).pc = field(regs, &REGS_PC);
        (*record).sp = sp;
        (*record).fp = field(regs, &REGS_FP);
        let process: Object = field(task.cast_const().cast(), &TASK_LEADER);
        (*record).start_ns = field(process, &TASK_START);
        (*record).execs = field(process, &TASK_EXECS);
        (*record).tgid = tgid;
        (*record).local_port = read(sk + u64::from(SOCK_LOCAL_PORT.load()));
        (*record).remote_port = u16::from_be(read(sk + u64::from(SOCK_REMOTE_PORT.load())));
        let stack: *mut u8 = (&raw mut (*record).stack).cast();
        let mut length = 0;
        while length < OPENING_STACK {
            let from = (sp + length as u64) as *const _;
            let to = stack.add(length).cast();
            if bpf_probe_read_user(to, OPENING_STACK_PART as u32, from) != 0 {
                break;
            }
            length += OPENING_STACK_PART;
        }
        (*record).length = length as u64;
    }
    room.submit(u64::from(BPF_RB_NO_WAKEUP));
}
