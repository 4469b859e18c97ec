//! THE table of causes: functions of the kernel, 5.14 to 7.2, and what a task that
//! is blocked in one waits for. `mod.rs` says how it is read.
//!
//! Symbols stand in one string, with spaces between; a `*` at an end is anything.

use super::{
    Cause,
    functions::{
        BEGINS_TO_WRITE, COMMITTING, DRAIN, FILE_SYSTEM_IO, FILE_SYSTEMS, FLUSHER, FREEZE_LOCK,
        FUSE, INODE_LOCK, IO, JOURNAL, LOCAL, LOCK, MEMCG_RECLAIM, MEMORY_RETRY, MIGRATION,
        MMAP_LOCK, NETWORK, OTHER_PERCPU, RANGE_LOCKS, RECLAIM, SMB_SERVER, SMB2, SUPERVISED,
        SWAP_IN, SYNC_OF_ALL,
    },
};

/// Where in the stack a rule looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// At the frame that called the scheduler.
    Waiting,
    /// At every frame, the innermost first.
    Any,
}

/// A rule: these functions, and any of those further out, mean this.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) place: Place,
    pub(super) functions: &'static str,
    /// Empty: whatever is further out.
    pub(super) inside: &'static str,
    /// With one of these further out it does not hold; not even inside of `inside`, if
    /// this one is nearer.
    pub(super) unless: &'static str,
    pub(super) cause: Cause,
}

impl Rule {
    /// Whether it says something of this frame, given those further out.
    pub(super) fn fits(&self, symbol: &str, outer: &[&str]) -> bool {
        if !is_among(symbol, self.functions) {
            return false;
        }
        if self.inside.is_empty() {
            return !outer.iter().any(|o| is_among(o, self.unless));
        }
        let nearest = outer
            .iter()
            .find(|o| is_among(o, self.inside) || is_among(o, self.unless));
        nearest.is_some_and(|o| !is_among(o, self.unless))
    }

    /// Whether it names the function by all of its name, or as one of those that wait for
    /// I/O: so it knows what it does.
    pub(super) fn knows(&self, symbol: &str) -> bool {
        let mut patterns = self.functions.split_ascii_whitespace();
        patterns.any(|pattern| pattern.trim_end_matches('*') == symbol)
            || (self.functions == IO && is_among(symbol, IO))
    }

    /// Whether it is about a lock. A frozen file system is one too
    /// (`s_writers.rw_sem`, a `percpu_rw_semaphore`).
    pub(super) fn is_of_lock(&self) -> bool {
        self.cause.is_lock() || self.cause == Cause::FrozenFs
    }
}

/// Whether the symbol is one of the list, or begins or ends as one of it says.
pub(super) fn is_among(symbol: &str, list: &str) -> bool {
    list.split_ascii_whitespace().any(|pattern| {
        match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
            (None, None) => symbol == pattern,
            (None, Some(beginning)) => symbol.starts_with(beginning),
            (Some(end), None) => symbol.ends_with(end),
            (Some(_), Some(_)) => symbol.contains(pattern.trim_matches('*')),
        }
    })
}

/// What the functions of the scheduler tell of the one that called them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hint {
    /// Nothing.
    None,
    /// It takes a lock.
    Lock,
    /// It counts as waiting for I/O (`in_iowait`).
    Io,
    /// It lets time pass.
    Sleep,
}

/// What a function of the scheduler tells; `None` of all others.
pub(super) fn scheduling(symbol: &str) -> Option<Hint> {
    SCHEDULING
        .iter()
        .find(|(functions, _)| is_among(symbol, functions))
        .map(|(_, hint)| *hint)
}

/// Functions of `.sched.text` and what stands below them (kernel/sched/core.c,
/// completion.c, wait_bit.c, kernel/locking/*, kernel/time/*).
const SCHEDULING: &[(&str, Hint)] = &[
    (
        "? __switch_to* context_switch __schedule schedule schedule_timeout \
             schedule_preempt_disabled schedule_hrtimeout* schedule_timeout_killable \
             preempt_schedule* wait_for_completion wait_for_completion_killable* \
             wait_for_completion_state wait_for_completion_timeout wait_for_common \
             __wait_for_common do_wait_for_common bit_wait bit_wait_timeout __wait_on_bit \
             __wait_on_bit_lock out_of_line_wait_on_bit* rcuwait_wait_event cv_wait_common \
             __cv_wait __cv_wait_sig __cv_wait_idle __cv_timedwait*",
        Hint::None,
    ),
    (
        "mutex_lock* __mutex_lock* ww_mutex_lock* __ww_mutex_lock* rwsem_down_* down_read* \
             down_write* __down_read* __down_write* down down_killable down_interruptible \
             down_timeout __down __down_common __down_killable __down_timeout rt_mutex_* \
             __rt_mutex_* rtlock_* rt_spin_lock* rt_read_lock* rt_write_lock* rwbase_* \
             task_blocks_on_rt_mutex percpu_down_write __percpu_down_read ldsem_down_*",
        Hint::Lock,
    ),
    (
        "io_schedule io_schedule_timeout __cv_wait_io* bit_wait_io bit_wait_io_timeout \
             wait_for_completion_io* wait_for_common_io",
        Hint::Io,
    ),
    (
        "msleep usleep_range* fsleep schedule_timeout_uninterruptible do_nanosleep",
        Hint::Sleep,
    ),
];

const fn waiting(functions: &'static str, cause: Cause) -> Rule {
    Rule {
        place: Place::Waiting,
        functions,
        inside: "",
        unless: "",
        cause,
    }
}

const fn any(functions: &'static str, cause: Cause) -> Rule {
    Rule {
        place: Place::Any,
        functions,
        inside: "",
        unless: "",
        cause,
    }
}

const fn inside(functions: &'static str, inside: &'static str, cause: Cause) -> Rule {
    Rule {
        place: Place::Any,
        functions,
        inside,
        unless: "",
        cause,
    }
}

const fn nearest(
    functions: &'static str,
    inside: &'static str,
    unless: &'static str,
    cause: Cause,
) -> Rule {
    Rule {
        place: Place::Any,
        functions,
        inside,
        unless,
        cause,
    }
}

/// Every rule; for one frame the first that fits decides.
pub(super) const RULES: &[Rule] = &[
    // Named by their one function.
    any(
        "handle_userfault userfaultfd_event_wait_completion",
        Cause::Userfault,
    ),
    any(SUPERVISED, Cause::UserProcess),
    any("kvm_async_pf_task_wait*", Cause::HostPaging),
    any(
        "page_reporting_process virtballoon_* balloon_process vmballoon_* hv_balloon_*",
        Cause::Balloon,
    ),
    waiting(
        "kernel_clone wait_for_vfork_done complete_vfork_done",
        Cause::Vfork,
    ),
    waiting("de_thread begin_new_exec", Cause::Exec),
    waiting(
        "coredump_wait do_coredump vfs_coredump coredump_task_exit zap_threads dump_emit",
        Cause::Coredump,
    ),
    waiting(
        "ptrace_stop ptrace_attach ptrace_check_attach ptrace_signal wait_task_inactive",
        Cause::Ptrace,
    ),
    any("__refrigerator refrigerator", Cause::Freezer),
    any(
        "synchronize_rcu* synchronize_srcu* __synchronize_srcu synchronize_net rcu_barrier* \
             srcu_barrier __wait_rcu_gp wait_rcu_gp* exp_funnel_lock rcu_sync_* \
             kvfree_rcu_barrier* rcu_exp_* synchronize_sched* cond_synchronize_rcu*",
        Cause::Rcu,
    ),
    // Semaphores of many CPUs: those of the file systems freeze them.
    inside("percpu_rwsem_wait", OTHER_PERCPU, Cause::Lock),
    inside("percpu_rwsem_wait", BEGINS_TO_WRITE, Cause::FrozenFs),
    any("percpu_rwsem_wait", Cause::Lock),
    waiting(FREEZE_LOCK, Cause::FrozenFs),
    // Work that another thread does; of a file system it is the journal's or a disk's.
    inside(
        "__flush_work* flush_work*",
        "xlog_* xfs_log_*",
        Cause::Journal,
    ),
    inside("__flush_work* flush_work*", RECLAIM, Cause::Reclaim),
    any(
        "__flush_work* flush_work* drain_workqueue destroy_workqueue __cancel_work* \
             cancel_work* cancel_delayed_work* flush_delayed_work kthread_stop* kthread_park \
             kthread_flush_work* kthread_cancel_* __kthread_create_on_node kthread_create_* \
             __lru_add_drain_all lru_add_drain_all stop_one_cpu stop_machine* stop_two_cpus \
             __stop_cpus stop_cpus affine_move_task cpuhp_* smpboot_* call_usermodehelper_exec \
             __request_module async_synchronize_* io_wq_put_and_exit io_ring_exit_work \
             work_on_cpu* schedule_on_each_cpu workqueue_*",
        Cause::Worker,
    ),
    any("taskq_wait* __taskq_wait*", Cause::Worker),
    // A new kernel thread, until its maker lets it begin.
    waiting("kthread", Cause::Worker),
    // Locks of a file system's own making.
    any(RANGE_LOCKS, Cause::Lock),
    // Out of memory.
    any(MEMORY_RETRY, Cause::Reclaim),
    any(
        "mem_cgroup_oom_synchronize mem_cgroup_out_of_memory mem_cgroup_oom",
        Cause::MemcgOom,
    ),
    waiting("try_charge_memcg try_charge", Cause::MemcgOom),
    waiting(
        "out_of_memory __alloc_pages_may_oom __alloc_pages_slowpath",
        Cause::Reclaim,
    ),
    // I/O, on whose behalf?
    inside(IO, MEMCG_RECLAIM, Cause::MemcgReclaim),
    inside(IO, RECLAIM, Cause::Reclaim),
    inside(FILE_SYSTEM_IO, MEMCG_RECLAIM, Cause::MemcgReclaim),
    inside(FILE_SYSTEM_IO, RECLAIM, Cause::Reclaim),
    inside(IO, MIGRATION, Cause::Migration),
    inside(IO, SWAP_IN, Cause::SwapIn),
    inside(
        "rq_qos_wait",
        "blkcg_iolatency_throttle ioc_rqos_*",
        Cause::IoLimit,
    ),
    any(
        "blkcg_maybe_throttle_* ioc_rqos_throttle iocg_* blkcg_iolatency_throttle \
             __blk_throtl_bio blk_cgroup_*",
        Cause::IoLimit,
    ),
    any(
        "rq_qos_wait __rq_qos_throttle wbt_wait balance_dirty_pages*",
        Cause::WritebackThrottle,
    ),
    inside(IO, COMMITTING, Cause::Journal),
    inside(FILE_SYSTEM_IO, COMMITTING, Cause::Journal),
    inside(IO, FLUSHER, Cause::Writeback),
    inside(FILE_SYSTEM_IO, FLUSHER, Cause::Writeback),
    // Locks that are told by who takes them.
    waiting(MMAP_LOCK, Cause::MmapLock),
    waiting(INODE_LOCK, Cause::InodeLock),
    // Servers.
    nearest(IO, NETWORK, LOCAL, Cause::NetworkFs),
    any(NETWORK, Cause::NetworkFs),
    Rule {
        place: Place::Any,
        functions: SMB2,
        inside: "",
        unless: SMB_SERVER,
        cause: Cause::NetworkFs,
    },
    nearest(IO, FUSE, LOCAL, Cause::Fuse),
    any(FUSE, Cause::Fuse),
    // The journal, the flusher, and the disk itself.
    any(JOURNAL, Cause::Journal),
    any(
        "wb_wait_for_completion inode_wait_for_writeback __inode_wait_for_writeback \
             inode_sleep_on_writeback",
        Cause::Writeback,
    ),
    nearest(IO, SYNC_OF_ALL, LOCAL, Cause::Writeback),
    any(IO, Cause::Disk),
    any(FILE_SYSTEM_IO, Cause::Disk),
    any(DRAIN, Cause::Disk),
    // Whatever else takes a lock.
    waiting(LOCK, Cause::Lock),
    waiting(FILE_SYSTEMS, Cause::Lock),
    // No known wait: what the task was in says most.
    inside(RECLAIM, MEMCG_RECLAIM, Cause::MemcgReclaim),
    any(MEMCG_RECLAIM, Cause::MemcgReclaim),
    any(RECLAIM, Cause::Reclaim),
    any(SWAP_IN, Cause::SwapIn),
    any(MIGRATION, Cause::Migration),
    any(FLUSHER, Cause::Writeback),
    any(
        "usb_* hub_* scsi_* sd_* sr_* ata_* nvme_* ahci_* mmc_* dma_fence_* drm_* ttm_* i915_* \
             amdgpu_* nouveau_* xe_* nvidia_* nv_* virtio_* virtnet_* vp_* tpm_* i2c_* spi_* \
             acpi_* pci_* pcie_* mlx5_* mlx4_* ib_* rdma_* ixgbe_* i40e_* ice_* igb_* e1000* \
             bnxt_* netdev_wait_allrefs* netdev_run_todo request_firmware* _request_firmware \
             wait_for_device_probe wait_for_random_bytes vfio_* ipmi_* mmap_reset_* device_* \
             driver_* __device_* regulator_* thermal_* rtc_* watchdog_* xenbus_* hv_* vmbus_* \
             qla2xxx_* mpt3sas_* megasas_* hpsa_* blk_mq_quiesce_* elevator_* del_gendisk \
             disk_*",
        Cause::Driver,
    ),
];
