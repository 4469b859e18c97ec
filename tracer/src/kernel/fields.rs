//! THE table of kernel fields: what the kernel side reads, and where each
//! kernel keeps it. Offsets are resolved from BTF at start and frozen into the
//! object as read-only data, so one object serves all kernels.

use tracer_common::{NO_FIELD, oom::PAGE_KINDS};

use super::btf::Btf;
use crate::error::KernelError;

/// A path to a field, from a struct down through embedded structs.
type FieldPath = (&'static str, &'static [&'static str]);

/// A field of a kernel object.
#[derive(Debug)]
pub struct Field {
    /// The constant of this name in tracer-ebpf/src/field.rs.
    pub name: &'static str,
    /// Where it is, the newest kernels first.
    pub paths: &'static [FieldPath],
    /// What is lost on a kernel that has none of them; `None`: nothing works then.
    pub without: Option<&'static str>,
}

const fn needed(name: &'static str, paths: &'static [FieldPath]) -> Field {
    Field {
        name,
        paths,
        without: None,
    }
}

const fn optional(name: &'static str, paths: &'static [FieldPath], without: &'static str) -> Field {
    Field {
        name,
        paths,
        without: Some(without),
    }
}

const NO_DELAYED: &str = "nothing: before 6.12 no sleeping task stays queued";
const NO_OPENINGS: &str = "where sockets of a leak were opened (another architecture than x86-64)";
const NO_LIMITS: &str = "throttled is counted as waiting (a kernel without CONFIG_CFS_BANDWIDTH)";

/// Every field but those that `resolve` adds: the cgroup's, and the counters of pages.
pub const FIELDS: &[Field] = &[
    // 5.14 renamed `state`.
    needed(
        "TASK_STATE",
        &[("task_struct", &["__state"]), ("task_struct", &["state"])],
    ),
    needed("TASK_FLAGS", &[("task_struct", &["flags"])]),
    needed("TASK_TID", &[("task_struct", &["pid"])]),
    needed("TASK_TGID", &[("task_struct", &["tgid"])]),
    needed("TASK_COMM", &[("task_struct", &["comm"])]),
    // 5.16 moved it, and each architecture had its own place before.
    needed(
        "TASK_CPU",
        &[
            ("task_struct", &["thread_info", "cpu"]),
            ("task_struct", &["cpu"]),
        ],
    ),
    needed("TASK_ON_CPU", &[("task_struct", &["on_cpu"])]),
    needed("TASK_ON_RQ", &[("task_struct", &["on_rq"])]),
    needed("TASK_START", &[("task_struct", &["start_time"])]),
    needed("TASK_RUN", &[("task_struct", &["se", "sum_exec_runtime"])]),
    needed("TASK_EXEC_START", &[("task_struct", &["se", "exec_start"])]),
    optional(
        "TASK_DELAYED",
        &[("task_struct", &["se", "sched_delayed"])],
        NO_DELAYED,
    ),
    optional(
        "TASK_THROTTLED",
        &[("task_struct", &["throttled"])],
        "nothing: before 6.18 the queue's throttle_count says it",
    ),
    needed("TASK_GROUP_NODE", &[("task_struct", &["se", "group_node"])]),
    // Both are there with CONFIG_FAIR_GROUP_SCHED, which autogroup and cgroups need.
    needed("TASK_CFS_RQ", &[("task_struct", &["se", "cfs_rq"])]),
    needed(
        "TASK_RUN_DELAY",
        &[("task_struct", &["sched_info", "run_delay"])],
    ),
    needed(
        "TASK_LAST_QUEUED",
        &[("task_struct", &["sched_info", "last_queued"])],
    ),
    needed(
        "TASK_LAST_ARRIVAL",
        &[("task_struct", &["sched_info", "last_arrival"])],
    ),
    needed("TASK_CRED", &[("task_struct", &["cred"])]),
    needed("TASK_CGROUPS", &[("task_struct", &["cgroups"])]),
    optional(
        "TASK_GROUP",
        &[("task_struct", &["sched_task_group"])],
        NO_LIMITS,
    ),
    needed("CRED_UID", &[("cred", &["uid"])]),
    needed("CGROUP_NODE", &[("cgroup", &["kn"])]),
    needed("NODE_ID", &[("kernfs_node", &["id"])]),
    optional(
        "GROUP_CGROUP",
        &[("task_group", &["css", "cgroup"])],
        NO_LIMITS,
    ),
    optional("GROUP_PARENT", &[("task_group", &["parent"])], NO_LIMITS),
    optional(
        "GROUP_THROTTLED_TIME",
        &[("task_group", &["cfs_bandwidth", "throttled_time"])],
        NO_LIMITS,
    ),
    needed("CFS_RQ_RQ", &[("cfs_rq", &["rq"])]),
    optional(
        "CFS_RQ_THROTTLE_COUNT",
        &[("cfs_rq", &["throttle_count"])],
        NO_LIMITS,
    ),
    needed("RQ_NR_UNINTERRUPTIBLE", &[("rq", &["nr_uninterruptible"])]),
    needed("RQ_CALC_LOAD_UPDATE", &[("rq", &["calc_load_update"])]),
    needed("RQ_CALC_LOAD_ACTIVE", &[("rq", &["calc_load_active"])]),
    needed("RQ_CFS_TASKS", &[("rq", &["cfs_tasks"])]),
    optional(
        "TASK_BLOCKER",
        &[("task_struct", &["blocker"])],
        "who holds the lock of a task that waits since before tracer's start (from 6.16)",
    ),
    needed("TASK_STACK", &[("task_struct", &["stack"])]),
    needed("TASK_FILES", &[("task_struct", &["files"])]),
    needed("TASK_CHILDREN", &[("task_struct", &["children"])]),
    needed("TASK_SIBLING", &[("task_struct", &["sibling"])]),
    // Both have a field `counter`, of which the address is the same.
    needed("MUTEX_OWNER", &[("mutex", &["owner"])]),
    optional(
        "SEMAPHORE_HOLDER",
        &[("semaphore", &["last_holder"])],
        "the holder of a semaphore (from 6.16)",
    ),
    // None with CONFIG_PREEMPT_RT, where it is an rt_mutex.
    optional(
        "RWSEM_OWNER",
        &[("rw_semaphore", &["owner"])],
        "the holder of a read-write semaphore",
    ),
    needed("TASK_SLEEPS", &[("task_struct", &["nvcsw"])]),
    needed("MM_LOCK", &[("mm_struct", &["mmap_lock"])]),
    needed("INODE_LOCK", &[("inode", &["i_rwsem"])]),
    needed(
        "SUPER_FREEZE_LOCK",
        &[("super_block", &["s_writers", "rw_sem"])],
    ),
    needed("SUPER_ROOT", &[("super_block", &["s_root"])]),
    needed("DENTRY_SUPER", &[("dentry", &["d_sb"])]),
    needed("FILES_TABLE", &[("files_struct", &["fdt"])]),
    needed("TABLE_MOST", &[("fdtable", &["max_fds"])]),
    needed("TABLE_FILES", &[("fdtable", &["fd"])]),
    needed("FILE_INODE", &[("file", &["f_inode"])]),
    needed("INODE_MODE", &[("inode", &["i_mode"])]),
    needed("INODE_RDEV", &[("inode", &["i_rdev"])]),
    needed("INODE_SUPER", &[("inode", &["i_sb"])]),
    needed("SUPER_DEV", &[("super_block", &["s_dev"])]),
    needed("BIO_DEVICE", &[("bio", &["bi_bdev"])]),
    needed("BIO_OPERATION", &[("bio", &["bi_opf"])]),
    needed("DEVICE_NUMBER", &[("block_device", &["bd_dev"])]),
    // x86-64, then arm64.
    optional(
        "REGS_SYSCALL",
        &[("pt_regs", &["orig_ax"]), ("pt_regs", &["syscallno"])],
        "the file system that a blocked system call is at (another architecture)",
    ),
    optional(
        "REGS_FIRST",
        &[("pt_regs", &["di"]), ("pt_regs", &["orig_x0"])],
        "the file system that a blocked system call is at (another architecture)",
    ),
    optional("REGS_PC", &[("pt_regs", &["ip"])], NO_OPENINGS),
    optional("REGS_SP", &[("pt_regs", &["sp"])], NO_OPENINGS),
    optional("REGS_FP", &[("pt_regs", &["bp"])], NO_OPENINGS),
    needed("TASK_MM", &[("task_struct", &["mm"])]),
    needed("TASK_LEADER", &[("task_struct", &["group_leader"])]),
    needed("TASK_EXECS", &[("task_struct", &["self_exec_id"])]),
    needed("TASK_PARENT", &[("task_struct", &["real_parent"])]),
    needed("TASK_SIGNAL", &[("task_struct", &["signal"])]),
    needed("TASK_VFORK_DONE", &[("task_struct", &["vfork_done"])]),
    needed("SIGNAL_SCORE_ADJ", &[("signal_struct", &["oom_score_adj"])]),
    needed("SIGINFO_CODE", &[("kernel_siginfo", &["si_code"])]),
    needed("MM_PAGE_TABLES", &[("mm_struct", &["pgtables_bytes"])]),
    needed("MM_TOTAL", &[("mm_struct", &["total_vm"])]),
    // 6.18 made it an array of words, of which the first has the same bits.
    optional(
        "MM_FLAGS",
        &[("mm_struct", &["flags"]), ("mm_struct", &["_flags"])],
        "processes that the out-of-memory killer passes over, as it has freed their memory",
    ),
    needed("SUBSYSTEM_CGROUP", &[("cgroup_subsys_state", &["cgroup"])]),
    optional(
        "MEMCG_CGROUP",
        &[("mem_cgroup", &["css", "cgroup"])],
        "nothing: a kernel without CONFIG_MEMCG",
    ),
    needed("OOM_MEMCG", &[("oom_control", &["memcg"])]),
    needed("OOM_ORDER", &[("oom_control", &["order"])]),
    needed("OOM_TOTAL", &[("oom_control", &["totalpages"])]),
    needed("OOM_CONSTRAINT", &[("oom_control", &["constraint"])]),
    needed("FILE_PRIVATE", &[("file", &["private_data"])]),
    needed("SOCKET_SOCK", &[("socket", &["sk"])]),
    needed("SOCK_FAMILY", &[("sock", &["__sk_common", "skc_family"])]),
    needed("SOCK_STATE", &[("sock", &["__sk_common", "skc_state"])]),
    needed("SOCK_HASH", &[("sock", &["__sk_common", "skc_hash"])]),
    needed("SOCK_LOCAL_PORT", &[("sock", &["__sk_common", "skc_num"])]),
    needed(
        "SOCK_REMOTE_PORT",
        &[("sock", &["__sk_common", "skc_dport"])],
    ),
    needed(
        "SOCK_LOCAL_V4",
        &[("sock", &["__sk_common", "skc_rcv_saddr"])],
    ),
    needed("SOCK_REMOTE_V4", &[("sock", &["__sk_common", "skc_daddr"])]),
    optional(
        "SOCK_LOCAL_V6",
        &[("sock", &["__sk_common", "skc_v6_rcv_saddr"])],
        NO_IPV6,
    ),
    optional(
        "SOCK_REMOTE_V6",
        &[("sock", &["__sk_common", "skc_v6_daddr"])],
        NO_IPV6,
    ),
    needed(
        "QUEUE_REQUESTS",
        &[("inet_connection_sock", &["icsk_accept_queue", "qlen"])],
    ),
    needed(
        "QUEUE_YOUNG",
        &[("inet_connection_sock", &["icsk_accept_queue", "young"])],
    ),
    needed("ACCEPT_QUEUE", &[("sock", &["sk_ack_backlog"])]),
    needed("SOCK_BACKLOG", &[("sock", &["sk_max_ack_backlog"])]),
    optional(
        "SOCK_DROPS",
        &[("sock", &["sk_drops"])],
        "how much a listener drops",
    ),
    needed("SOCK_NET", &[("sock", &["__sk_common", "skc_net", "net"])]),
    needed("NET_INODE", &[("net", &["ns", "inum"])]),
    needed("SOCK_PROTOCOL", &[("sock", &["sk_protocol"])]),
    needed("SOCK_SOCKET", &[("sock", &["sk_socket"])]),
    optional(
        "SOCK_CGROUP",
        &[("sock", &["sk_cgrp_data", "cgroup"])],
        "the cgroup of a socket (from 5.16)",
    ),
    needed("SOCK_TIMER_DUE", &[("sock", &["sk_timer", "expires"])]),
    needed(
        "SOCK_TIMER_PENDING",
        &[("sock", &["sk_timer", "entry", "pprev"])],
    ),
    needed(
        "BIND_BUCKET",
        &[("inet_connection_sock", &["icsk_bind_hash"])],
    ),
    needed("BUCKET_REUSE", &[("inet_bind_bucket", &["fastreuse"])]),
    needed(
        "TIMER_PENDING",
        &[("inet_connection_sock", &["icsk_pending"])],
    ),
    // 6.19 moved it.
    needed(
        "TIMER_DUE",
        &[
            ("sock", &["tcp_retransmit_timer", "expires"]),
            (
                "inet_connection_sock",
                &["icsk_retransmit_timer", "expires"],
            ),
        ],
    ),
    needed(
        "TIMER_RETRANSMITS",
        &[("inet_connection_sock", &["icsk_retransmits"])],
    ),
    needed(
        "TIMER_PROBES",
        &[("inet_connection_sock", &["icsk_probes_out"])],
    ),
    needed("TCP_RECEIVED", &[("tcp_sock", &["rcv_nxt"])]),
    needed("TCP_COPIED", &[("tcp_sock", &["copied_seq"])]),
    needed("TCP_LAST_ACK", &[("tcp_sock", &["rcv_tstamp"])]),
    needed("TCP_SRTT", &[("tcp_sock", &["srtt_us"])]),
    // The first of its bits.
    needed("TCP_OPTIONS", &[("tcp_sock", &["rx_opt", "saw_tstamp"])]),
    needed("TCP_MSS", &[("tcp_sock", &["rx_opt", "mss_clamp"])]),
    optional(
        "TCP_ECN",
        &[("tcp_sock", &["ecn_flags"])],
        "which connections by SYN cookie have ECN",
    ),
    needed("SKB_HEAD", &[("sk_buff", &["head"])]),
    needed("SKB_NETWORK", &[("sk_buff", &["network_header"])]),
    needed("SKB_TRANSPORT", &[("sk_buff", &["transport_header"])]),
];

const NO_IPV6: &str = "nothing: a kernel without IPv6";

/// The structs that the fields are in.
pub const STRUCTS: &[&str] = &[
    "task_struct",
    "cred",
    "css_set",
    "cgroup_subsys_state",
    "signal_struct",
    "kernel_siginfo",
    "mm_struct",
    "percpu_counter",
    "mem_cgroup",
    "oom_control",
    "cgroup",
    "kernfs_node",
    "task_group",
    "cfs_rq",
    "rq",
    "mutex",
    "semaphore",
    "rw_semaphore",
    "files_struct",
    "fdtable",
    "file",
    "inode",
    "super_block",
    "dentry",
    "percpu_rw_semaphore",
    "bio",
    "block_device",
    "pt_regs",
    "sock",
    "net",
    "socket",
    "inet_connection_sock",
    "inet_bind_bucket",
    "tcp_sock",
    "sk_buff",
];

/// Which hierarchy names a task's cgroup: the one that has the cpu controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupVersion {
    /// The unified hierarchy.
    V2,
    /// The cpu controller's own hierarchy.
    V1,
}

/// Offsets by name, as the loader freezes them.
///
/// # Errors
/// A field that nothing works without is not in this kernel's BTF.
pub fn resolve(btf: &Btf, version: CgroupVersion) -> Result<Vec<(&'static str, u32)>, KernelError> {
    let mut offsets = Vec::with_capacity(FIELDS.len() + 2);
    for field in FIELDS {
        let found = field
            .paths
            .iter()
            .find_map(|(root, path)| btf.offset(root, path));
        let offset = match (found, field.without) {
            (Some(offset), _) => offset,
            (None, Some(_)) => NO_FIELD,
            (None, None) => {
                return Err(KernelError::Field {
                    paths: describe(field.paths),
                });
            }
        };
        offsets.push((field.name, offset));
    }
    offsets.extend(cgroup_fields(btf, version)?);
    offsets.extend(page_counters(btf)?);
    let freeze_lock = btf.size("percpu_rw_semaphore");
    let freeze_lock = freeze_lock.ok_or_else(|| KernelError::Field {
        paths: "struct percpu_rw_semaphore".into(),
    })?;
    offsets.push(("FREEZE_LOCK_BYTES", freeze_lock));
    let memory = subsystem(btf, "memory_cgrp_id");
    offsets.push(("CSS_SET_MEMORY", memory.unwrap_or(NO_FIELD)));
    Ok(offsets)
}

/// Counters of pages, in the kernel's order (include/linux/mm_types_task.h).
const PAGE_COUNTERS: [&str; PAGE_KINDS] = [
    "MM_FILE_PAGES",
    "MM_ANON_PAGES",
    "MM_SWAP_ENTRIES",
    "MM_SHMEM_PAGES",
];

/// `mm_struct.rss_stat`: plain numbers up to 6.1, from 6.2 on counters of which each CPU
/// keeps a part for itself.
fn page_counters(btf: &Btf) -> Result<[(&'static str, u32); PAGE_KINDS], KernelError> {
    let plain = || Some((btf.offset("mm_struct", &["rss_stat", "count"])?, WORD));
    let by_cpu = || {
        let first = btf.offset("mm_struct", &["rss_stat"])?;
        let count = btf.offset("percpu_counter", &["count"])?;
        Some((first + count, btf.size("percpu_counter")?))
    };
    let (first, stride) = plain().or_else(by_cpu).ok_or_else(|| KernelError::Field {
        paths: describe(&[("mm_struct", &["rss_stat"])]),
    })?;
    let mut at = first;
    Ok(PAGE_COUNTERS.map(|name| {
        let counter = (name, at);
        at += stride;
        counter
    }))
}

/// Size of a pointer and of a long.
const WORD: u32 = size_of::<u64>() as u32;

/// Where a task's `css_set` has its place in the hierarchy of a controller.
fn subsystem(btf: &Btf, id: &str) -> Option<u32> {
    let index = btf.enum_value("cgroup_subsys_id", id)?;
    Some(btf.offset("css_set", &["subsys"])? + index * WORD)
}

/// The way from a task's `css_set` to its cgroup.
fn cgroup_fields(
    btf: &Btf,
    version: CgroupVersion,
) -> Result<[(&'static str, u32); 2], KernelError> {
    let need = |root: &'static str, path: &'static [&'static str]| {
        btf.offset(root, path).ok_or_else(|| KernelError::Field {
            paths: describe(&[(root, path)]),
        })
    };
    let (first, then) = match version {
        CgroupVersion::V2 => (need("css_set", &["dfl_cgrp"])?, NO_FIELD),
        CgroupVersion::V1 => {
            let state = subsystem(btf, "cpu_cgrp_id").ok_or_else(|| KernelError::Field {
                paths: "css_set.subsys, enum cgroup_subsys_id: cpu_cgrp_id".into(),
            })?;
            (state, need("cgroup_subsys_state", &["cgroup"])?)
        }
    };
    Ok([("CSS_SET_CGROUP", first), ("CSS_CGROUP", then)])
}

fn describe(paths: &[FieldPath]) -> String {
    let one = |(root, path): &FieldPath| format!("{root}.{}", path.join("."));
    paths.iter().map(one).collect::<Vec<_>>().join(" or ")
}
