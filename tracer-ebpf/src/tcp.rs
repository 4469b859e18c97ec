//! TCP sockets: every transition counted, and what follows from some of them.
//!
//! `current` is the one who acts when a socket goes to SYN_SENT or FIN_WAIT1; for
//! the others it is whoever the packet interrupted, so nothing is taken from it.
//! Nothing is kept of a socket but while its peer has closed and it is not closed here.

use core::arch::asm;

use aya_ebpf::{
    bindings::{BPF_NOEXIST, BPF_RB_NO_WAKEUP},
    helpers::generated::{
        bpf_get_current_task_btf, bpf_get_socket_cookie, bpf_ktime_get_ns, bpf_skc_to_tcp_sock,
    },
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use tracer_common::{
    COMM_BYTES, lost,
    tcp::{
        self, ACCEPTED, CLOSE, CLOSE_WAIT, CONNECTED, Counted, ESTABLISHED, FIN_WAIT1, LISTEN,
        PAIRS, PortTotals, STATES, SYN_RECV, SYN_SENT, SeedRecord, TIME_BUCKETS, Waiting,
    },
};

use crate::{
    atomic::{add_one, add_one_short},
    field::{
        BIND_BUCKET, BUCKET_REUSE, NET_INODE, OWN_NETNS, Object, SOCK_HASH, SOCK_LOCAL_PORT,
        SOCK_NET, SOCK_PROTOCOL, SOCK_REMOTE_PORT, SOCK_STATE, TASK_COMM, TASK_EXECS, TASK_LEADER,
        TASK_START, TASK_TGID, TCP_SRTT, field, read,
    },
    maps::{
        ACTORS, POPULATIONS, PORTS, SEEDS, TCP_CONTROL, TRANSITIONS, WAITING, WAITING_SLOTS, count,
    },
    syn, table,
};

/// include/uapi/linux/in.h.
pub(crate) const IPPROTO_TCP: u16 = 6;

/// `tcp_sock.srtt_us` is eight times the time (include/linux/tcp.h).
const SRTT_SHIFT: u32 = 3;

/// `inet_sock_set_state(sk, oldstate, newstate)`. It never fires for NEW_SYN_RECV
/// and TIME_WAIT, which are not of `struct sock`.
///
/// A process that connects or closes can be interrupted in here, and the interrupt can
/// have a hundred packets to deliver. From 6.0 the kernel does not run a program that
/// runs on this CPU already (`__bpf_trace_run`, kernel/trace/bpf_trace.c). So there
/// are two: this one says whose transition it takes, and the second takes what this
/// one did not.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub(crate) fn inet_sock_set_state(ctx: BtfTracePointContext) -> i32 {
    let Some(here) = TRANSITIONS.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: the slot of this CPU, and the arguments of the tracepoint.
    unsafe {
        let taken = (&raw const (*here).taken).read_volatile();
        if taken != 0 && is_under_way(taken, (*here).taken_from) {
            (&raw mut (*here).taken_inside).write_volatile(ctx.arg(0));
        } else {
            (&raw mut (*here).taken_from).write_volatile(ctx.arg(1));
            (&raw mut (*here).taken_inside).write_volatile(0);
            (&raw mut (*here).taken).write_volatile(ctx.arg(0));
        }
        transition(&ctx, here);
    }
    0
}

/// Takes the transitions that the first program was not run for.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub(crate) fn inet_sock_set_state_nested(ctx: BtfTracePointContext) -> i32 {
    let Some(here) = TRANSITIONS.get_ptr_mut(0) else {
        return 0;
    };
    let sk: u64 = ctx.arg(0);
    // SAFETY: as above.
    unsafe {
        for taken in [&raw mut (*here).taken, &raw mut (*here).taken_inside] {
            if taken.read_volatile() == sk {
                taken.write_volatile(0);
                return 0;
            }
        }
        add_one(&raw mut (*here).nested);
        transition(&ctx, here);
    }
    0
}

/// Whether the second program is still to see this transition. It is not run where an
/// interrupt comes into it, and then what was taken there is never seen off. A socket
/// changes its state right after the tracepoint (`inet_sk_state_store`,
/// net/ipv4/af_inet.c).
#[inline(always)]
fn is_under_way(sk: u64, from: u64) -> bool {
    let state: u8 = read(sk + u64::from(SOCK_STATE.load()));
    u64::from(state) == from
}

/// The pair of states, by its number: less than the size of a socket, so that the
/// address and the pair make one number.
#[inline(always)]
fn pair(ctx: &BtfTracePointContext) -> u64 {
    u64::from(state(ctx.arg(1))) * STATES as u64 + u64::from(state(ctx.arg(2)))
}

/// # Safety
///
/// The arguments of the tracepoint, and the slot of this CPU.
#[inline(always)]
unsafe fn transition(ctx: &BtfTracePointContext, here: *mut Counted) {
    let sk: Object = ctx.arg(0);
    // SAFETY: the argument is a sock.
    let protocol: u16 = unsafe { field(sk, &SOCK_PROTOCOL) };
    // The tracepoint is for MPTCP, SCTP and DCCP too.
    if protocol != IPPROTO_TCP {
        return;
    }
    let (from, to) = (state(ctx.arg(1)), state(ctx.arg(2)));
    let netns = netns(sk);
    let pair = bounded::<{ PAIRS as u64 }>(pair(ctx));
    // SAFETY: the index is within the slot. A softirq may come in between on this CPU,
    // so the addition is one instruction.
    unsafe {
        if netns == OWN_NETNS.load() {
            add_one((&raw mut (*here).own[0]).add(pair));
        } else {
            add_one((&raw mut (*here).others[0]).add(pair));
            count_population(netns, from, to);
        }
    }
    if TCP_CONTROL
        .get(0)
        .is_some_and(|control| control.is_seeded == 0)
    {
        report(sk, netns, from, to);
    }
    if to == ESTABLISHED {
        let side = if from == SYN_RECV {
            ACCEPTED
        } else {
            CONNECTED
        };
        established(sk, netns, side);
    } else if to == SYN_SENT {
        act(sk, CONNECTED, true);
    } else if from == ESTABLISHED && to == FIN_WAIT1 {
        act(sk, side(sk), false);
    } else if to == CLOSE_WAIT {
        begin_wait(sk);
    } else if from == CLOSE_WAIT {
        end_wait(sk, netns, to);
    } else if to == LISTEN {
        syn::begins(sk);
    } else if from == LISTEN && to == CLOSE {
        syn::forget(sk);
    }
}

/// All numbers of states are below [`STATES`]; the mask is what the verifier wants.
#[inline(always)]
fn state(argument: u64) -> u32 {
    argument as u32 & (STATES as u32 - 1)
}

/// An index below `LENGTH`, a power of two, in a form that the compiler does not
/// rearrange: the verifier forgets the bound of what it shifted and added.
#[inline(always)]
fn bounded<const LENGTH: u64>(mut index: u64) -> usize {
    // SAFETY: a register is changed.
    unsafe { asm!("{index} &= {mask}", index = inout(reg) index, mask = const LENGTH - 1) };
    index as usize
}

#[inline(always)]
pub(crate) fn netns(sk: Object) -> u32 {
    // SAFETY: the caller's sock.
    unsafe {
        let net: Object = field(sk, &SOCK_NET);
        field(net, &NET_INODE)
    }
}

#[inline(always)]
fn count_population(netns: u32, from: u32, to: u32) {
    let moves = match POPULATIONS.get_ptr_mut(netns) {
        Some(moves) => moves,
        None => {
            let _ = POPULATIONS.insert(netns, [0; 2 * STATES], u64::from(BPF_NOEXIST));
            match POPULATIONS.get_ptr_mut(netns) {
                Some(moves) => moves,
                None => {
                    count(lost::NAMESPACES);
                    return;
                }
            }
        }
    };
    // SAFETY: a per-CPU slot; both numbers are below `STATES`.
    unsafe {
        let moves: *mut u32 = &raw mut (*moves)[0];
        add_one_short(moves.add(bounded::<{ STATES as u64 }>(to.into())));
        // An accepted child begins as a copy of its listener, which stays.
        if from != LISTEN || to != SYN_RECV {
            add_one_short(moves.add(STATES + bounded::<{ STATES as u64 }>(from.into())));
        }
    }
}

/// Tells user space, which counts the sockets from before the start meanwhile.
#[inline(always)]
fn report(sk: Object, netns: u32, from: u32, to: u32) {
    count(lost::SEEDS_SEEN);
    let Some(mut record) = SEEDS.reserve(0) else {
        count(lost::SEED_RING);
        return;
    };
    let is_child = from == LISTEN && to == SYN_RECV;
    record.write(SeedRecord {
        cookie: if is_child {
            0
        } else {
            // SAFETY: the argument is a sock.
            unsafe { bpf_get_socket_cookie(sk.cast_mut()) }
        },
        socket: sk as u64,
        netns,
        from: from as u16,
        to: to as u16,
    });
    record.submit(u64::from(BPF_RB_NO_WAKEUP));
}

/// Whether a connection was made or accepted: one that was made has a local port
/// that `__inet_hash_connect` chose, and its bucket can be bound by nobody else
/// (`fastreuse` is -1). One that was bound before it was made counts as accepted: it
/// is known by its local port all the same.
#[inline(always)]
fn side(sk: Object) -> u16 {
    // SAFETY: the caller's sock; the helper answers with the same, or NULL.
    unsafe {
        let tcp: Object = bpf_skc_to_tcp_sock(sk.cast_mut()).cast_const().cast();
        if tcp.is_null() {
            return ACCEPTED;
        }
        let bucket: Object = field(tcp, &BIND_BUCKET);
        if field::<i8>(bucket, &BUCKET_REUSE) < 0 {
            CONNECTED
        } else {
            ACCEPTED
        }
    }
}

/// The port that a connection is known by.
#[inline(always)]
fn port(sk: Object, side: u16) -> u16 {
    // SAFETY: the caller's sock.
    unsafe {
        if side == ACCEPTED {
            field(sk, &SOCK_LOCAL_PORT)
        } else {
            u16::from_be(field(sk, &SOCK_REMOTE_PORT))
        }
    }
}

/// The current process opens or closes a connection.
#[inline(always)]
fn act(sk: Object, side: u16, opens: bool) {
    // SAFETY: current is a task_struct, and so is the first thread of its process, whose
    // number can be another's before it and after it.
    let (tgid, start_ns, execs, comm) = unsafe {
        let current: Object = bpf_get_current_task_btf().cast_const().cast();
        let process: Object = field(current, &TASK_LEADER);
        let tgid: u32 = field(current, &TASK_TGID);
        let (start_ns, execs): (u64, u64) =
            (field(process, &TASK_START), field(process, &TASK_EXECS));
        // By words: byte by byte it would cost as much as all the rest.
        let comm: Comm = field(process, &TASK_COMM);
        (tgid, start_ns, execs, comm)
    };
    let key = key(tgid, port(sk, side), side) | life(start_ns, execs) << LIFE_SHIFT;
    let Some(slot) = table::find(&ACTORS, key).or_else(|| table::take(&ACTORS, key)) else {
        count(lost::ACTORS);
        return;
    };
    // SAFETY: a map value; other CPUs add too.
    unsafe {
        let totals = &raw mut (*slot).value;
        let there = ((*totals).start_ns, (*totals).execs);
        if there.0 == 0 {
            (*totals).execs = execs;
            (*totals).start_ns = start_ns;
        } else if there != (start_ns, execs) {
            // Another process with the same hash: better without a name than with a wrong one.
            count(lost::ACTORS);
            return;
        }
        (&raw mut (*totals).comm).cast::<Comm>().write(comm);
        if opens {
            add_one(&raw mut (*totals).opened);
        } else {
            add_one(&raw mut (*totals).closed_first);
        }
    }
}

/// A name as words; that of a slot stands at a whole word.
type Comm = [u64; COMM_BYTES / size_of::<u64>()];

/// Where `life` begins in a key.
const LIFE_SHIFT: u32 = 49;

/// Tells apart processes that have the same number one after the other, and the programs
/// that one process runs one after the other: 15 bits.
#[inline(always)]
fn life(start_ns: u64, execs: u64) -> u64 {
    (start_ns ^ execs.rotate_left(32)).wrapping_mul(table::SPREAD) >> LIFE_SHIFT
}

/// See [`tracer_common::tcp::Slot`].
#[inline(always)]
fn key(id: u32, port: u16, side: u16) -> u64 {
    u64::from(id) | u64::from(port) << 32 | u64::from(side) << 48
}

#[inline(always)]
fn totals(sk: Object, netns: u32, side: u16) -> Option<*mut PortTotals> {
    let key = key(netns, port(sk, side), side);
    let slot = table::find(&PORTS, key).or_else(|| table::take(&PORTS, key));
    if slot.is_none() {
        count(lost::PORTS);
    }
    // SAFETY: a map value.
    slot.map(|slot| unsafe { &raw mut (*slot).value })
}

/// A connection is there. How long its handshake took is the kernel's first
/// measure of the round trip: from the SYN to the SYN-ACK, or from the SYN-ACK to
/// the ACK (`tcp_rcv_synsent_state_process`, `tcp_synack_rtt_meas`).
#[inline(always)]
fn established(sk: Object, netns: u32, side: u16) {
    let Some(totals) = totals(sk, netns, side) else {
        return;
    };
    // SAFETY: the caller's sock; a map value that is never deleted.
    unsafe {
        let tcp: Object = bpf_skc_to_tcp_sock(sk.cast_mut()).cast_const().cast();
        if tcp.is_null() {
            return;
        }
        let us = field::<u32>(tcp, &TCP_SRTT) >> SRTT_SHIFT;
        if us == 0 {
            add_one(&raw mut (*totals).unmeasured);
        } else {
            let times: *mut u64 = &raw mut (*totals).handshakes[0];
            add_one(times.add(bucket(us.into())));
        }
    }
}

/// The bucket of a time in us.
#[inline(always)]
fn bucket(us: u64) -> usize {
    bounded::<{ TIME_BUCKETS as u64 }>(63 - u64::from((us | 1).leading_zeros()))
}

/// The slot of a socket, by the hash of its addresses and ports.
#[inline(always)]
fn slot(sk: Object) -> Option<*mut Waiting> {
    // SAFETY: the caller's sock.
    let hash: u32 = unsafe { field(sk, &SOCK_HASH) };
    WAITING_SLOTS.get_ptr_mut(hash & (tcp::WAITING_SLOTS - 1))
}

/// The peer has closed.
#[inline(always)]
fn begin_wait(sk: Object) {
    // SAFETY: the helper has no preconditions.
    let since_ns = unsafe { bpf_ktime_get_ns() };
    let socket = sk as u64;
    if let Some(slot) = slot(sk) {
        // SAFETY: a map value. Two CPUs that take a free slot at one moment leave it to
        // the latter; the other socket is found by the next walk over descriptors.
        unsafe {
            if (*slot).socket == 0 || (*slot).socket == socket {
                (*slot).since_ns = since_ns;
                (*slot).socket = socket;
                return;
            }
        }
    }
    if WAITING
        .insert(socket, Waiting { socket, since_ns }, 0)
        .is_err()
    {
        count(lost::WAITING);
    }
}

/// Whether a socket in CLOSE_WAIT is known.
#[inline(always)]
pub(crate) fn is_known(sk: Object) -> bool {
    // SAFETY: map values, only looked at.
    unsafe {
        slot(sk).is_some_and(|slot| (*slot).socket == sk as u64) || WAITING.get(sk as u64).is_some()
    }
}

/// When the peer closed, of a socket that is known; it no longer is.
#[inline(always)]
fn forget(sk: Object) -> Option<u64> {
    let socket = sk as u64;
    // SAFETY: map values; only the transitions of this socket change what is there.
    unsafe {
        if let Some(slot) = slot(sk)
            && (*slot).socket == socket
        {
            let since_ns = (*slot).since_ns;
            (*slot).socket = 0;
            return Some(since_ns);
        }
        let since_ns = WAITING.get(socket)?.since_ns;
        let _ = WAITING.remove(socket);
        Some(since_ns)
    }
}

/// It is closed here too, or gone: one that was reset has given its port back by now
/// (`tcp_set_state`), so it is not known whose time that was.
#[inline(always)]
fn end_wait(sk: Object, netns: u32, to: u32) {
    let Some(since_ns) = forget(sk) else {
        return;
    };
    if since_ns == 0 || to == CLOSE {
        return;
    }
    // SAFETY: the helper has no preconditions.
    let held_ns = unsafe { bpf_ktime_get_ns() }.saturating_sub(since_ns);
    if let Some(totals) = totals(sk, netns, side(sk)) {
        // SAFETY: a map value that is never deleted, and the index is within the array.
        unsafe {
            let times: *mut u64 = &raw mut (*totals).held[0];
            add_one(times.add(bucket(held_ns / 1000)));
        }
    }
}
