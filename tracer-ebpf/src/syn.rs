//! What waits at listeners: their SYN queues and accept queues.
//!
//! The kernel keeps the lengths in the listener, so that there is nothing to count: a
//! flood costs nothing here. User space looks once a reading.

use core::{ffi::c_void, mem, ptr};

use aya_ebpf::{
    Global,
    helpers::generated::{bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_seq_write},
};
use tracer_common::{
    lost,
    syn::{ListenerRecord, Listening},
};

use crate::{
    field::{
        ACCEPT_QUEUE, NET_INODE, Object, QUEUE_REQUESTS, QUEUE_YOUNG, SOCK_BACKLOG, SOCK_DROPS,
        SOCK_FAMILY, SOCK_LOCAL_PORT, SOCK_LOCAL_V4, SOCK_LOCAL_V6, SOCK_NET, SOCK_STATE,
        TASK_COMM, TASK_TGID, field, has, read,
    },
    maps::{COOKIES, LISTENERS, count},
    task::IterMeta,
};

/// include/linux/socket.h.
const AF_INET6: u16 = 10;

/// A socket listens from now on: the current task has called listen(2).
#[inline(always)]
pub(crate) fn begins(sk: Object) {
    let mut who = Listening {
        // SAFETY: the helper has no preconditions.
        tgid: (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32,
        ..Listening::default()
    };
    // SAFETY: the buffer is as long as it says.
    unsafe { bpf_get_current_comm((&raw mut who.comm).cast(), who.comm.len() as u32) };
    if LISTENERS.insert(sk as u64, who, 0).is_err() {
        count(lost::LISTENERS);
    }
    // What another one at this address had.
    let _ = COOKIES.remove(sk as u64);
}

/// One from before tracer's start was found.
///
/// # Safety
///
/// `task` must come to the verifier as a task_struct.
#[inline(always)]
pub(crate) unsafe fn is_held_by(sk: Object, task: Object) {
    // SAFETY: a map value, only looked at.
    if unsafe { LISTENERS.get(sk as u64) }.is_some() {
        return;
    }
    // SAFETY: the caller's word.
    let who = unsafe {
        Listening {
            tgid: field(task, &TASK_TGID),
            reserved: 0,
            comm: field(task, &TASK_COMM),
        }
    };
    // Each walk comes by again, so user space counts those that there is no room for.
    let _ = LISTENERS.insert(sk as u64, who, 0);
}

/// It listens no more.
#[inline(always)]
pub(crate) fn forget(sk: Object) {
    let _ = LISTENERS.remove(sk as u64);
}

/// `struct bpf_iter__bpf_map_elem`, kernel/bpf/map_iter.c.
#[repr(C)]
struct IterElement {
    meta: *mut IterMeta,
    map: *mut c_void,
    key: *const u64,
    value: *const Listening,
}

/// Visits one element of LISTENERS. As with sockets in CLOSE_WAIT the verifier knows no
/// type for the address, so each field is read by the helper.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_map_elem")]
extern "C" fn each_listener(ctx: *mut IterElement) -> i32 {
    // SAFETY: the kernel passes a valid context; the key is NULL at the end.
    let (key, value, meta) = unsafe { ((*ctx).key, (*ctx).value, (*ctx).meta) };
    if key.is_null() || value.is_null() {
        return 0;
    }
    let mut record = ListenerRecord::default();
    // SAFETY: an element of this map, and the iterator's own seq.
    unsafe {
        record.socket = *key;
        record.who = *value;
        fill(&mut record);
        bpf_seq_write(
            (*meta).seq.cast(),
            ptr::from_mut(&mut record).cast(),
            mem::size_of::<ListenerRecord>() as u32,
        );
    }
    0
}

#[inline(always)]
fn fill(r: &mut ListenerRecord) {
    let sk = r.socket;
    let at = |offset: &Global<u32>| sk + u64::from(offset.load());
    r.state = u32::from(read::<u8>(at(&SOCK_STATE)));
    let net: u64 = read(at(&SOCK_NET));
    r.netns = read(net + u64::from(NET_INODE.load()));
    r.family = read(at(&SOCK_FAMILY));
    r.port = read(at(&SOCK_LOCAL_PORT));
    if r.family == AF_INET6 && has(&SOCK_LOCAL_V6) {
        r.local = read(at(&SOCK_LOCAL_V6));
    } else {
        r.local[..4].copy_from_slice(&read::<[u8; 4]>(at(&SOCK_LOCAL_V4)));
    }
    r.requests = read(at(&QUEUE_REQUESTS));
    r.young = read(at(&QUEUE_YOUNG));
    r.accept_queue = read(at(&ACCEPT_QUEUE));
    r.backlog = read(at(&SOCK_BACKLOG));
    if has(&SOCK_DROPS) {
        r.drops = read(at(&SOCK_DROPS));
    }
}
