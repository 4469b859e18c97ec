//! THE table of causes: functions of the kernel, 5.14 to 7.2, and what a task that
//! is blocked in one waits for. `mod.rs` says how it is read.
//!
//! Symbols stand in one string, with spaces between; a `*` at an end is anything.

use super::Cause;

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
    pub(super) cause: Cause,
}

impl Rule {
    /// Whether it says something of this frame, given those further out.
    pub(super) fn fits(&self, symbol: &str, outer: &[&str]) -> bool {
        is_among(symbol, self.functions)
            && (self.inside.is_empty() || outer.iter().any(|o| is_among(o, self.inside)))
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
             __wait_on_bit_lock out_of_line_wait_on_bit* rcuwait_wait_event",
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
        "io_schedule io_schedule_timeout bit_wait_io bit_wait_io_timeout \
             wait_for_completion_io* wait_for_common_io",
        Hint::Io,
    ),
    (
        "msleep usleep_range* fsleep schedule_timeout_uninterruptible do_nanosleep",
        Hint::Sleep,
    ),
];

/// The end of a read or write, on a page, a buffer, a bio or a request, or a place in
/// the queue for it. The page calls were renamed to folio_* in 5.16, `submit_bio_wait`
/// waits in `bio_await` from 7.2 on.
const IO: &str = "folio_wait_bit* folio_wait_writeback* folio_wait_locked* folio_wait_stable \
     folio_lock __folio_lock* folio_put_wait_locked wait_on_page_* put_and_wait_on_page_locked \
     __lock_page* lock_page wait_for_stable_page blk_io_schedule submit_bio_wait bio_await \
     blk_wait_io __iomap_dio_rw iomap_dio_rw __blockdev_direct_IO do_blockdev_direct_IO dio_* \
     blkdev_direct_IO __blkdev_direct_IO* blkdev_issue_* __blkdev_issue_* __wait_on_buffer \
     __bread_gfp __bread_slow bdev_getblk bh_read* __bh_read* __sync_dirty_buffer \
     sync_dirty_buffer write_dirty_buffer fsync_buffers_list sync_mapping_buffers \
     blk_mq_get_tag __blk_mq_alloc_request* blk_mq_submit_bio blk_mq_alloc_request* \
     __bio_queue_enter blk_queue_enter blk_mq_freeze_queue* blk_execute_rq* blk_crypto_* \
     rq_qos_wait __rq_qos_throttle wbt_wait mempool_alloc* bio_alloc_bioset \
     __filemap_get_folio* pagecache_get_page filemap_get_pages filemap_update_page \
     filemap_read generic_file_buffered_read filemap_fault __filemap_fdatawait_range \
     inode_dio_wait* __inode_dio_wait do_read_cache_* truncate_inode_p* \
     invalidate_inode_pages2_range write_cache_pages writeback_iter \
     mpage_prepare_extent_to_map lock_delalloc_folios extent_write_cache_pages swap_read_folio \
     swap_readpage __block_write_begin_int mmb_sync mmb_fsync*";

/// File systems that read a buffer and leave no other frame, or wait for their own I/O.
const FILE_SYSTEM_IO: &str = "__ext4_find_entry ext4_find_entry ext4_bread* \
     __ext4_read_dirblock ext4_read_bh* __ext4_sb_bread_gfp ext4_wait_block_bitmap \
     ext4_read_block_bitmap* ext4_read_inode_bitmap* __ext4_get_inode_loc* \
     __read_extent_tree_block ext4_get_branch ext4_inode_block_unlocked_dio xfs_buf_iowait \
     xfs_buf_submit* xfs_bwrite xfs_buf_read* xfs_wait_buftarg read_extent_buffer_pages* \
     btrfs_read_extent_buffer* wait_on_extent_buffer_writeback btrfs_wait_ordered_* \
     btrfs_start_ordered_extent* btrfs_wait_block_group_* wait_dev_supers \
     handle_reserve_ticket wait_reserve_ticket __reserve_bytes f2fs_wait_on_* f2fs_issue_flush \
     f2fs_get_node_* f2fs_get_meta_* f2fs_get_read_data_* f2fs_get_lock_data_* \
     f2fs_issue_discard* zio_wait vdev_* arc_read md_super_wait md_write_start \
     md_handle_request md_make_request md_flush_request md_do_sync raid5_* raid10_* raid1_* \
     wait_barrier* dm_wait_for_* dm_submit_bio __split_and_process_bio closure_sync* \
     __closure_sync* bch_* loop_* lo_*";

const JOURNAL: &str = "jbd2_* __jbd2_* kjournald2 wait_transaction_* add_transaction_credits \
     start_this_handle do_get_write_access xlog_* xfs_log_* xfs_ail_push* xfsaild* \
     xfs_trans_reserve xfs_trans_alloc wait_current_trans wait_for_commit wait_log_commit \
     start_transaction join_transaction btrfs_commit_transaction* btrfs_wait_for_commit \
     btrfs_sync_log btrfs_wait_tree_log_extents btrfs_write_and_wait_transaction \
     write_all_supers btrfs_transaction_* f2fs_issue_checkpoint f2fs_write_checkpoint \
     gfs2_log_* txg_* spa_sync zil_* dsl_pool_sync dmu_tx_* bch2_journal_* nilfs_segctor_* \
     ocfs2_start_trans";

/// Threads that commit: their I/O is the journal's.
const COMMITTING: &str = "jbd2_journal_commit_transaction kjournald2 xlog_cil_push_work \
     xfsaild btrfs_commit_transaction btrfs_sync_log transaction_kthread f2fs_write_checkpoint \
     spa_sync txg_sync_thread zil_commit*";

const MEMCG_RECLAIM: &str = "try_to_free_mem_cgroup_pages mem_cgroup_handle_over_high \
     __mem_cgroup_handle_over_high reclaim_high mem_cgroup_resize_max memory_high_write \
     memory_max_write memory_reclaim user_proactive_reclaim";

const RECLAIM: &str = "try_to_free_pages do_try_to_free_pages __alloc_pages_direct_reclaim \
     __perform_reclaim shrink_node* shrink_lruvec shrink_inactive_list shrink_folio_list \
     shrink_page_list evict_folios shrink_slab* do_shrink_slab reclaim_throttle \
     throttle_direct_reclaim congestion_wait wait_iff_congested balance_pgdat kswapd \
     node_reclaim __node_reclaim too_many_isolated __alloc_pages_direct_compact \
     try_to_compact_pages compact_zone* isolate_migratepages* kcompactd* reclaim_pages \
     reclaim_folio_list pageout";

const SWAP_IN: &str = "do_swap_page swapin_readahead swapin_folio swap_cluster_readahead \
     read_swap_cache_async __read_swap_cache_async swap_cache_alloc_folio shmem_swapin* \
     swap_read_folio swap_readpage unuse_*";

const MIGRATION: &str = "migration_entry_wait* pmd_migration_entry_wait softleaf_entry_wait_* \
     __migration_entry_wait* migrate_pages* migrate_folio* __unmap_and_move unmap_and_move";

const FLUSHER: &str = "wb_workfn wb_do_writeback wb_writeback writeback_sb_inodes";

const NETWORK: &str = "nfs_* nfs3_* nfs4_* _nfs4_* nfsd_* rpc_* rpcauth_* xprt_* __rpc_* \
     nlmclnt_* cifs_* smb2_* SMB2_* smb_* smb3_* wait_for_response compound_send_recv ceph_* \
     __ceph_* v9fs_* p9_* netfs_* afs_* rxrpc_* ll_* mdc_* osc_* lmv_* ptlrpc_* \
     cl_sync_io_wait* gfs2_glock_* dlm_* ocfs2_* __ocfs2_* orangefs_* coda_* fscache_* \
     cachefiles_*";

const FUSE: &str = "request_wait_answer fuse_* __fuse_* virtio_fs_* cuse_*";

/// Semaphores of the same kind as the file systems', of other things.
const OTHER_PERCPU: &str = "cgroup_* cgroup1_* __cgroup* cpus_read_lock get_online_* \
     mem_hotplug_begin copy_process exit_signals de_thread dup_mm dup_mmap uprobe_* \
     register_for_each_vma cpu_hotplug_* cpus_write_lock _cpu_* perf_* flock_* posix_lock_* \
     fcntl_* *_lease";

/// Places that begin to change a file system (`sb_start_write`, `sb_start_pagefault`,
/// `sb_start_intwrite`, inlined).
const BEGINS_TO_WRITE: &str = "mnt_want_write* sb_start_* __sb_start_write freeze_super \
     file_start_write kiocb_start_write vfs_write vfs_writev vfs_iter_write \
     vfs_iocb_iter_write do_iter_write do_iter_readv_writev do_splice* splice_file_to_pipe \
     do_sendfile vfs_copy_file_range vfs_clone_file_range do_clone_file_range vfs_fallocate \
     aio_write io_write io_submit_one do_truncate do_ftruncate vfs_truncate do_sys_ftruncate \
     path_openat *_page_mkwrite filemap_page_mkwrite do_page_mkwrite __xfs_filemap_fault \
     xfs_trans_alloc* *_evict_inode evict ext4_journal_check_start __ext4_journal_start* \
     start_transaction touch_atime file_update_time* do_renameat2 do_unlinkat filename_create \
     vfs_dedupe_*";

const MMAP_LOCK: &str = "do_user_addr_fault exc_page_fault lock_mm_and_find_vma do_page_fault \
     do_mem_abort handle_page_fault __do_page_fault vm_mmap_pgoff ksys_mmap_pgoff __vm_munmap \
     vm_munmap do_mprotect_pkey do_madvise madvise_lock __do_sys_brk *_sys_brk __do_sys_mremap \
     do_mremap *_sys_mremap __do_sys_munmap *_sys_munmap __mm_populate populate_vma_page_range \
     do_mlock mlock_fixup *_sys_mlock* *_sys_munlock* __do_sys_msync *_sys_msync *_sys_mincore \
     __do_sys_mincore do_mbind do_shmat exit_mm exit_mmap __mmput dup_mmap dup_mm copy_process \
     exec_mmap setup_arg_pages prctl_set_mm* __do_sys_prctl __access_remote_vm \
     access_remote_vm access_process_vm get_user_pages_* pin_user_pages_* __get_user_pages_* \
     __gup_longterm_locked internal_get_user_pages_fast gup_fast_fallback process_vm_rw_* \
     fixup_user_fault m_start m_next proc_get_vma* show_smaps_rollup clear_refs_write \
     pagemap_read do_procmap_query mm_access collapse_huge_page khugepaged* hpage_collapse_* \
     collapse_scan_* madvise_collapse __khugepaged_enter ksm_* scan_get_next_rmap_item \
     userfaultfd_* mfill_* move_pages* task_numa_work change_prot_numa mmap_* __mmap_lock_* \
     vma_start_* __vma_start_* __vma_enter_locked* lock_vma_under_rcu mm_take_all_locks \
     io_uring_mmap aio_setup_ring expand_stack* kvm_faultin_pfn* hva_to_pfn* async_pf_execute";

const INODE_LOCK: &str = "path_openat open_last_lookups lookup_open walk_component lookup_slow \
     __lookup_slow lookup_one* lookup_noperm* __start_dirop start_dirop start_creating* \
     start_removing* start_renaming* __start_renaming do_unlinkat filename_unlinkat do_rmdir \
     filename_rmdir filename_create filename_linkat do_renameat2 filename_renameat2 \
     lock_rename* lock_two_* do_mkdirat do_linkat vfs_unlink vfs_rmdir vfs_rename vfs_link vfs_mkdir iterate_dir \
     wrap_directory_iterator do_truncate notify_change chmod_common chown_common vfs_utimes \
     vfs_setxattr vfs_removexattr vfs_getattr generic_file_write_iter *_file_write_iter \
     *_buffered_write_iter *_cache_write_iter *_dio_write_iter *_direct_write_iter \
     generic_file_llseek* *_llseek dcache_dir_lseek d_alloc_parallel d_wait_lookup find_inode* \
     __wait_on_freeing_inode wait_on_new_inode iget_locked iget5_locked ilookup* \
     page_cache_ra_unbounded filemap_invalidate_* *_inode_lock *_ilock *_ilock_* \
     xfs_lock_two_inodes xfs_lock_inodes fuse_lock_inode nfs_start_io_* \
     netfs_start_io_* ceph_start_io_* blkdev_write_iter swap_activate";

const LOCK: &str = "sched_mm_cid_* rtnl_lock* rtnetlink_rcv_msg rtnl_newlink netlink_dump lock_sock* \
     __lock_sock* cgroup_* cgroup1_* proc_cgroup_show kernfs_* sysfs_* device_lock bus_* \
     super_lock grab_super* __iterate_supers iterate_supers* ksys_sync thaw_super \
     deactivate_super user_get_super bdev_open blkdev_get_* bdev_release namespace_lock \
     lock_mount* namespace_unlock pipe_* folio_lock_anon_vma_read page_lock_anon_vma_read \
     rmap_walk* unlink_anon_vmas unlink_file_vma* anon_vma_* __anon_vma_prepare vma_link* \
     i_mmap_* hugetlb_fault hugetlb_wp fdget_pos __fdget_pos ep_* do_epoll_* tty_* n_tty_* \
     ptmx_open drop_caches_* register_shrinker* unregister_shrinker* prealloc_shrinker bpf_* \
     tracing_* perf_* bprm_execve lock_trace proc_pid_* xfs_buf_lock xfs_buf_find* \
     down_trylock rdt_* crypto_* static_key_* jump_label_* text_poke_* module_* do_init_module \
     snd_* uart_* cpus_write_lock _cpu_up _cpu_down cpu_up cpu_down console_lock \
     __console_lock vt_* fb_* input_* evdev_*";

/// File systems whose other functions, where they call the scheduler, take a lock.
const FILE_SYSTEMS: &str = "ext4_* __ext4_* xfs_* __xfs_* btrfs_* __btrfs_* f2fs_* __f2fs_* \
     ovl_* fat_* vfat_* exfat_* ntfs_* ni_* udf_* isofs_* erofs_* z_erofs_* squashfs_* hfs_* \
     hfsplus_* jfs_* nilfs_* ubifs_* bch2_* zfs_* zpl_* shmem_* hugetlbfs_* ext2_* minix_* \
     tracefs_* debugfs_* simple_* bcachefs_*";

const fn waiting(functions: &'static str, cause: Cause) -> Rule {
    Rule {
        place: Place::Waiting,
        functions,
        inside: "",
        cause,
    }
}

const fn any(functions: &'static str, cause: Cause) -> Rule {
    Rule {
        place: Place::Any,
        functions,
        inside: "",
        cause,
    }
}

const fn inside(functions: &'static str, inside: &'static str, cause: Cause) -> Rule {
    Rule {
        place: Place::Any,
        functions,
        inside,
        cause,
    }
}

/// Every rule; for one frame the first that fits decides.
pub(super) const RULES: &[Rule] = &[
    // Named by their one function.
    any("handle_userfault", Cause::Userfault),
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
    waiting(
        "mnt_want_write* sb_start_* __sb_start_write sb_wait_write freeze_super",
        Cause::FrozenFs,
    ),
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
    // Out of memory.
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
    inside(IO, NETWORK, Cause::NetworkFs),
    any(NETWORK, Cause::NetworkFs),
    inside(IO, FUSE, Cause::Fuse),
    any(FUSE, Cause::Fuse),
    // The journal, the flusher, and the disk itself.
    any(JOURNAL, Cause::Journal),
    any(
        "wb_wait_for_completion inode_wait_for_writeback __inode_wait_for_writeback \
             inode_sleep_on_writeback",
        Cause::Writeback,
    ),
    any(IO, Cause::Disk),
    any(FILE_SYSTEM_IO, Cause::Disk),
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
