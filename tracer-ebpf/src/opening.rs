//! Where a process opens connections: its user stack at the end of accept(2) and of
//! connect(2).
//!
//! The hook runs at the end of every system call of the host, so it is attached only
//! while user space suspects a process of a leak, and takes only as many as it wants.
//! The stack is brought back as bytes: most programs keep no frame pointers, so user
//! space unwinds it by the tables in their files.

use aya_ebpf::{
    bindings::BPF_RB_NO_WAKEUP,
    helpers::generated::{
        bpf_get_current_pid_tgid, bpf_get_current_task_btf, bpf_ktime_get_ns, bpf_probe_read_user,
    },
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use tracer_common::{
    lost,
    tcp::{OPENING_STACK, OPENING_STACK_PART, OpeningRecord},
};

use crate::{
    field::{
        FILE_PRIVATE, Object, REGS_FIRST, REGS_FP, REGS_PC, REGS_SP, REGS_SYSCALL, SOCK_LOCAL_PORT,
        SOCK_PROTOCOL, SOCK_REMOTE_PORT, SOCKET_SOCK, SYSCALL_ACCEPT, SYSCALL_ACCEPT4,
        SYSCALL_CONNECT, TASK_EXECS, TASK_LEADER, TASK_START, field, has, read,
    },
    file::file_of,
    maps::{OPENINGS, SUSPECTS, count},
    tcp::IPPROTO_TCP,
};

/// include/uapi/asm-generic/errno.h.
const EINPROGRESS: i64 = 115;

/// `sys_exit(regs, ret)`.
#[btf_tracepoint(function = "sys_exit")]
pub(crate) fn sys_exit(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: the helper has no preconditions.
    let tgid = (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32;
    let Some(wanted) = SUSPECTS.get_ptr_mut(tgid) else {
        return 0;
    };
    // SAFETY: a map value. Threads that come at once take one too many at most.
    unsafe {
        if *wanted == 0 {
            return 0;
        }
        if let Some(sk) = opened(&ctx) {
            *wanted -= 1;
            report(&ctx, tgid, sk);
        }
    }
    0
}

/// The TCP socket that this system call has opened.
///
/// # Safety
///
/// The arguments of the tracepoint.
#[inline(always)]
unsafe fn opened(ctx: &BtfTracePointContext) -> Option<u64> {
    if !has(&REGS_SYSCALL) || !has(&REGS_FP) {
        return None;
    }
    let (regs, result): (Object, u64) = (ctx.arg(0), ctx.arg(1));
    let result = result as i64;
    // SAFETY: a pt_regs, and the running task.
    let (call, first, task): (u64, u64, Object) = unsafe {
        (
            field(regs, &REGS_SYSCALL),
            field(regs, &REGS_FIRST),
            bpf_get_current_task_btf().cast_const().cast(),
        )
    };
    let call = call as u32;
    let descriptor = if call == SYSCALL_ACCEPT.load() || call == SYSCALL_ACCEPT4.load() {
        if result < 0 {
            return None;
        }
        result as u64
    } else if call == SYSCALL_CONNECT.load() && (result == 0 || result == -EINPROGRESS) {
        first
    } else {
        return None;
    };
    let file = file_of(task, descriptor)?;
    let socket: u64 = read(file + u64::from(FILE_PRIVATE.load()));
    let sk: u64 = read(socket + u64::from(SOCKET_SOCK.load()));
    let protocol: u16 = read(sk + u64::from(SOCK_PROTOCOL.load()));
    // A 32-bit program's calls have other numbers: then this is no socket.
    (protocol == IPPROTO_TCP).then_some(sk)
}

/// # Safety
///
/// The arguments of the tracepoint.
#[inline(always)]
unsafe fn report(ctx: &BtfTracePointContext, tgid: u32, sk: u64) {
    let Some(mut room) = OPENINGS.reserve(0) else {
        count(lost::OPENING_RING);
        return;
    };
    let record: *mut OpeningRecord = room.as_mut_ptr();
    let regs: Object = ctx.arg(0);
    // SAFETY: reserved room, of which each part is written before it goes out but the
    // end of the stack, which `length` leaves out; a pt_regs.
    unsafe {
        let sp: u64 = field(regs, &REGS_SP);
        (*record).socket = sk;
        (*record).at_ns = bpf_ktime_get_ns();
        (*record).pc = field(regs, &REGS_PC);
        (*record).sp = sp;
        (*record).fp = field(regs, &REGS_FP);
        let task: Object = bpf_get_current_task_btf().cast_const().cast();
        let process: Object = field(task, &TASK_LEADER);
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
