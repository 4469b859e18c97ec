//! The iterators over sockets in CLOSE_WAIT, and over the descriptors that hold them
//! or a listener.

use core::{ffi::c_void, mem, ptr};

use aya_ebpf::{
    Global,
    helpers::generated::{bpf_jiffies64, bpf_seq_write, bpf_sock_from_file},
};
use tracer_common::{
    lost,
    tcp::{
        CLOSE_WAIT, CONNECTED, HolderRecord, LISTEN, TIMER_KEEPALIVE, TIMER_OFF, TIMER_RETRANSMIT,
        TIMER_WINDOW_PROBE, Waiting, WaitingRecord,
    },
};

use crate::{
    field::{
        BIND_BUCKET, BUCKET_REUSE, CGROUP_NODE, NET_INODE, NODE_ID, Object, SOCK_CGROUP,
        SOCK_FAMILY, SOCK_LOCAL_PORT, SOCK_LOCAL_V4, SOCK_LOCAL_V6, SOCK_NET, SOCK_PROTOCOL,
        SOCK_REMOTE_PORT, SOCK_REMOTE_V4, SOCK_REMOTE_V6, SOCK_SOCKET, SOCK_STATE, SOCK_TIMER_DUE,
        SOCK_TIMER_PENDING, SOCKET_SOCK, TASK_COMM, TASK_START, TASK_TGID, TCP_COPIED,
        TCP_LAST_ACK, TCP_RECEIVED, TIMER_DUE, TIMER_PENDING, TIMER_PROBES, TIMER_RETRANSMITS,
        field, has, read,
    },
    maps::{WAITING, count},
    syn,
    task::IterMeta,
    tcp::{IPPROTO_TCP, is_known, netns},
};

/// include/linux/socket.h.
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// `ICSK_TIME_*` of include/net/inet_connection_sock.h.
const ICSK_TIME_RETRANS: u8 = 1;
const ICSK_TIME_PROBE0: u8 = 3;
const ICSK_TIME_LOSS_PROBE: u8 = 5;
const ICSK_TIME_REO_TIMEOUT: u8 = 6;

/// `struct bpf_iter__bpf_map_elem`, kernel/bpf/map_iter.c.
#[repr(C)]
struct IterElement {
    meta: *mut IterMeta,
    map: *mut c_void,
    key: *const c_void,
    value: *const Waiting,
}

/// Visits one element of WAITING or WAITING_SLOTS. The verifier knows no type for an address out of a
/// map, so each field is read by the helper. The hook takes an element away before
/// its socket goes.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_map_elem")]
extern "C" fn each_waiting(ctx: *mut IterElement) -> i32 {
    // SAFETY: the kernel passes a valid context; the value is NULL at the end.
    let (value, meta) = unsafe { ((*ctx).value, (*ctx).meta) };
    if value.is_null() {
        return 0;
    }
    // SAFETY: a value of these maps.
    let waiting = unsafe { *value };
    if waiting.socket == 0 {
        return 0;
    }
    let mut record = WaitingRecord::default();
    // SAFETY: the iterator's own seq.
    unsafe {
        record.socket = waiting.socket;
        record.since_ns = waiting.since_ns;
        fill(&mut record);
        bpf_seq_write(
            (*meta).seq.cast(),
            ptr::from_mut(&mut record).cast(),
            mem::size_of::<WaitingRecord>() as u32,
        );
    }
    0
}

/// Reads a field of an object at an address.
#[inline(always)]
fn at<T: Copy + Default>(address: u64, offset: &Global<u32>) -> T {
    read(address + u64::from(offset.load()))
}

#[inline(always)]
fn fill(r: &mut WaitingRecord) {
    let sk = r.socket;
    r.state = at(sk, &SOCK_STATE);
    let net: u64 = at(sk, &SOCK_NET);
    r.netns = at(net, &NET_INODE);
    r.family = at(sk, &SOCK_FAMILY);
    r.local_port = at(sk, &SOCK_LOCAL_PORT);
    r.remote_port = u16::from_be(at(sk, &SOCK_REMOTE_PORT));
    if r.family == AF_INET6 && has(&SOCK_LOCAL_V6) {
        r.local = at(sk, &SOCK_LOCAL_V6);
        r.remote = at(sk, &SOCK_REMOTE_V6);
    } else {
        r.local[..4].copy_from_slice(&at::<[u8; 4]>(sk, &SOCK_LOCAL_V4));
        r.remote[..4].copy_from_slice(&at::<[u8; 4]>(sk, &SOCK_REMOTE_V4));
    }
    r.has_file = u8::from(at::<u64>(sk, &SOCK_SOCKET) != 0);
    if has(&SOCK_CGROUP) {
        let cgroup: u64 = at(sk, &SOCK_CGROUP);
        let node: u64 = at(cgroup, &CGROUP_NODE);
        r.cgroup = at(node, &NODE_ID);
    }
    // See `side` of tcp.rs.
    let bucket: u64 = at(sk, &BIND_BUCKET);
    if at::<i8>(bucket, &BUCKET_REUSE) < 0 {
        r.side = CONNECTED as u8;
    }
    let (received, copied): (u32, u32) = (at(sk, &TCP_RECEIVED), at(sk, &TCP_COPIED));
    // The FIN takes a number of its own, and is read last.
    r.unread_bytes = received.wrapping_sub(copied).saturating_sub(1);
    // SAFETY: the helper has no preconditions.
    r.idle_jiffies = (unsafe { bpf_jiffies64() } as u32).wrapping_sub(at(sk, &TCP_LAST_ACK));
    timer(r);
}

/// As `inet_sk_diag_fill` tells it, net/ipv4/inet_diag.c.
#[inline(always)]
fn timer(r: &mut WaitingRecord) {
    let sk = r.socket;
    let pending: u8 = at(sk, &TIMER_PENDING);
    let keepalive: u64 = at(sk, &SOCK_TIMER_PENDING);
    r.retransmits = at(sk, &TIMER_RETRANSMITS);
    r.probes = at(sk, &TIMER_PROBES);
    r.due_jiffies = at(sk, &TIMER_DUE);
    r.timer = if pending == ICSK_TIME_RETRANS
        || pending == ICSK_TIME_LOSS_PROBE
        || pending == ICSK_TIME_REO_TIMEOUT
    {
        TIMER_RETRANSMIT
    } else if pending == ICSK_TIME_PROBE0 {
        TIMER_WINDOW_PROBE
    } else if keepalive != 0 {
        r.due_jiffies = at(sk, &SOCK_TIMER_DUE);
        TIMER_KEEPALIVE
    } else {
        TIMER_OFF
    };
}

/// `struct bpf_iter__task_file`, kernel/bpf/task_iter.c.
#[repr(C)]
struct IterFile {
    meta: *mut IterMeta,
    task: *mut c_void,
    fd: u32,
    reserved: u32,
    file: *mut c_void,
}

/// Visits one descriptor of one process. A socket that was in CLOSE_WAIT before
/// tracer's start gets its element here.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
extern "C" fn each_descriptor(ctx: *mut IterFile) -> i32 {
    // SAFETY: the kernel passes a valid context; both are NULL at the end.
    let (task, file, meta) = unsafe { ((*ctx).task as Object, (*ctx).file, (*ctx).meta) };
    if task.is_null() || file.is_null() {
        return 0;
    }
    // SAFETY: the file is a struct file; the answer is its socket, or NULL.
    let sk: Object = unsafe {
        let socket: Object = bpf_sock_from_file(file.cast()).cast_const().cast();
        if socket.is_null() {
            return 0;
        }
        field(socket, &SOCKET_SOCK)
    };
    if sk.is_null() {
        return 0;
    }
    let Some(state) = held_state(sk) else {
        return 0;
    };
    let new = Waiting {
        socket: sk as u64,
        since_ns: 0,
    };
    if state == CLOSE_WAIT && !is_known(sk) && WAITING.insert(new.socket, new, 0).is_err() {
        count(lost::WAITING);
        return 0;
    }
    if state == LISTEN {
        // SAFETY: task is a task_struct.
        unsafe { syn::is_held_by(sk, task) };
    }
    // SAFETY: task is a task_struct, seq the iterator's own.
    unsafe {
        let mut record = HolderRecord {
            socket: sk as u64,
            start_ns: field(task, &TASK_START),
            tgid: field(task, &TASK_TGID),
            fd: (*ctx).fd,
            netns: netns(sk),
            port: field(sk, &SOCK_LOCAL_PORT),
            state: state as u16,
            comm: field(task, &TASK_COMM),
        };
        bpf_seq_write(
            (*meta).seq.cast(),
            ptr::from_mut(&mut record).cast(),
            mem::size_of::<HolderRecord>() as u32,
        );
    }
    0
}

/// The state of a TCP socket, of those whose holders are of interest.
#[inline(always)]
fn held_state(sk: Object) -> Option<u32> {
    // SAFETY: the caller's sock.
    unsafe {
        let (protocol, family): (u16, u16) = (field(sk, &SOCK_PROTOCOL), field(sk, &SOCK_FAMILY));
        let state = u32::from(field::<u8>(sk, &SOCK_STATE));
        let is_held = protocol == IPPROTO_TCP
            && (family == AF_INET || family == AF_INET6)
            && (state == CLOSE_WAIT || state == LISTEN);
        is_held.then_some(state)
    }
}
