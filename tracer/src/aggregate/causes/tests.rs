//! Stacks known from the kernel's sources, innermost first; tracer/tests/stacks.rs
//! holds the recorded ones.

use std::collections::HashSet;

use super::{Cause, find, rules};

/// Cause, file system, operation, and the frame that tells.
type Expected = (
    Cause,
    Option<&'static str>,
    Option<&'static str>,
    Option<usize>,
);

#[track_caller]
fn assert_found(stack: &str, expected: Expected) {
    let frames: Vec<&str> = stack.split_whitespace().collect();
    let finding = find(&frames);
    assert_eq!(
        (
            finding.cause,
            finding.file_system,
            finding.operation,
            finding.frame
        ),
        expected,
        "{stack}"
    );
}

#[track_caller]
fn assert_cause(stack: &str, expected: Cause) {
    let frames: Vec<&str> = stack.split_whitespace().collect();
    assert_eq!(find(&frames).cause, expected, "{stack}");
}

#[test]
fn nothing_known() {
    assert_eq!(find::<&str>(&[]), super::Finding::default());
    assert_found("? ?", (Cause::Unknown, None, None, None));
    assert_found(
        "schedule frobnicate do_syscall_64",
        (Cause::Unknown, None, None, Some(1)),
    );
}

#[test]
fn disk_under_every_name() {
    let read = Some("read");
    // 5.14, pages.
    assert_found(
        "io_schedule wait_on_page_bit_common filemap_get_pages filemap_read ext4_file_read_iter \
         new_sync_read vfs_read ksys_read do_syscall_64",
        (Cause::Disk, Some("ext4"), read, Some(1)),
    );
    // 5.16, folios; arm64 shows the switch.
    assert_found(
        "__switch_to folio_wait_bit_common filemap_get_pages filemap_read vfs_read ksys_read \
         __arm64_sys_read invoke_syscall el0_svc_common do_el0_svc el0_svc",
        (Cause::Disk, None, read, Some(1)),
    );
    // 7.2, the wait moved.
    assert_cause(
        "bio_await submit_bio_wait blkdev_issue_flush xfs_file_fsync do_fsync __x64_sys_fsync",
        Cause::Disk,
    );
    assert_found(
        "__blkdev_direct_IO_simple.llvm.123 blkdev_write_iter vfs_write ksys_write",
        (Cause::Disk, None, Some("write"), Some(0)),
    );
    assert_cause("blk_io_schedule __blkdev_direct_IO_simple", Cause::Disk);
    assert_cause("blk_mq_freeze_queue_wait elevator_switch", Cause::Disk);
    // A file system nobody has heard of, but the scheduler was told that it is I/O.
    assert_cause("io_schedule newfs_read_block do_syscall_64", Cause::Disk);
    // A buffer: the frame of `__wait_on_buffer` is gone by a tail call.
    assert_cause("__ext4_find_entry ext4_lookup __lookup_slow", Cause::Disk);
    assert_cause("zio_wait dmu_buf_hold_array_by_dnode zfs_read", Cause::Disk);
}

#[test]
fn a_page_on_whose_behalf() {
    let wait = |outer: &str| format!("folio_wait_bit_common {outer}");
    let swap_in = wait("__folio_lock_or_retry do_swap_page __handle_mm_fault handle_mm_fault");
    assert_found(&swap_in, (Cause::SwapIn, None, Some("page fault"), Some(0)));
    assert_cause(
        "swap_readpage swap_cluster_readahead do_swap_page",
        Cause::SwapIn,
    );
    assert_cause(
        &wait("shmem_swapin_folio shmem_get_folio_gfp"),
        Cause::SwapIn,
    );
    assert_cause(
        &wait("shrink_folio_list shrink_lruvec shrink_node try_to_free_pages do_swap_page"),
        Cause::Reclaim,
    );
    assert_cause(&wait("nfs_wb_folio nfs_release_folio"), Cause::NetworkFs);
    assert_cause(&wait("fuse_readahead read_pages"), Cause::Fuse);
    assert_cause(
        &wait("write_cache_pages ext4_writepages do_writepages writeback_sb_inodes wb_workfn"),
        Cause::Writeback,
    );
    assert_cause(
        &wait("jbd2_journal_commit_transaction kjournald2"),
        Cause::Journal,
    );
    assert_cause(&wait("migrate_pages_batch migrate_pages"), Cause::Migration);
    assert_cause(
        "migration_entry_wait_on_locked do_swap_page",
        Cause::Migration,
    );
}

#[test]
fn a_page_of_a_file_system_known_from_elsewhere() {
    assert_eq!(Cause::Disk.on("fuse"), Cause::Fuse);
    assert_eq!(Cause::Disk.on("nfs4"), Cause::NetworkFs);
    assert_eq!(Cause::Disk.on("ext4"), Cause::Disk);
    assert_eq!(Cause::Reclaim.on("nfs4"), Cause::Reclaim);
}

#[test]
fn locks_that_cannot_be_seen() {
    assert_found(
        "do_user_addr_fault exc_page_fault asm_exc_page_fault",
        (Cause::MmapLock, None, Some("page fault"), Some(0)),
    );
    for taker in [
        "do_page_fault do_translation_fault do_mem_abort el0_da",
        "do_mprotect_pkey __x64_sys_mprotect",
        "__do_sys_brk do_syscall_64",
        "__arm64_sys_brk invoke_syscall",
        "m_start seq_read_iter vfs_read",
        "__access_remote_vm proc_pid_cmdline_read vfs_read",
        "exit_mmap __mmput do_exit",
        "dup_mmap dup_mm copy_process kernel_clone",
        "khugepaged kthread",
    ] {
        assert_cause(taker, Cause::MmapLock);
    }
    assert_cause("path_openat do_filp_open do_sys_openat2", Cause::InodeLock);
    assert_cause("ext4_map_blocks ext4_writepages wb_workfn", Cause::Lock);
    assert_cause("rtnetlink_rcv_msg netlink_rcv_skb", Cause::Lock);
}

#[test]
fn a_rename_under_its_names() {
    // 6.12: the mutex of renames, `lock_rename`; 7.2 has it in a helper.
    for of in ["do_renameat2", "__start_renaming filename_renameat2"] {
        assert_found(
            &format!("{of} __x64_sys_rename do_syscall_64"),
            (Cause::InodeLock, None, Some("rename"), Some(0)),
        );
    }
}

#[test]
fn functions_that_came_with_7_2() {
    // The mutex of the concurrency ids of an address space (kernel/sched/core.c).
    assert_cause("sched_mm_cid_fork copy_process kernel_clone", Cause::Lock);
    // The metadata of a file, `sync_mapping_buffers` before (fs/buffer.c).
    assert_cause("mmb_sync ext4_sync_file do_fsync", Cause::Disk);
}

#[test]
fn a_buffer_that_is_read_to_be_written_in_part() {
    // 6.1, of /dev/vdb; the wait for the buffer ends in a tail call.
    assert_found(
        "__block_write_begin_int block_write_begin generic_perform_write \
         __generic_file_write_iter blkdev_write_iter vfs_write ksys_write do_syscall_64",
        (Cause::Disk, None, Some("write"), Some(0)),
    );
}

#[test]
fn locks_that_can_be_seen_decide() {
    // 5.14: not yet part of .sched.text.
    assert_found(
        "rwsem_down_read_slowpath do_user_addr_fault exc_page_fault",
        (Cause::MmapLock, None, Some("page fault"), Some(1)),
    );
    assert_cause(
        "rwsem_down_write_slowpath path_openat do_filp_open",
        Cause::InodeLock,
    );
    assert_found(
        "schedule schedule_preempt_disabled __mutex_lock.constprop.0 jbd2_log_do_checkpoint \
         __jbd2_log_wait_for_space balance_dirty_pages vfs_write",
        (Cause::Lock, Some("ext4"), Some("write"), Some(2)),
    );
    assert_cause("io_schedule mutex_lock_io jbd2_journal_flush", Cause::Lock);
    assert_cause("rt_mutex_slowlock i915_gem_do_execbuffer", Cause::Lock);
    // Nothing further out may overrule it.
    assert_cause(
        "down_read super_cache_scan shrink_slab try_to_free_pages",
        Cause::Lock,
    );
}

#[test]
fn semaphores_of_many_cpus() {
    let write = "vfs_write ksys_write do_syscall_64";
    assert_found(
        &format!("percpu_rwsem_wait __percpu_down_read {write}"),
        (Cause::FrozenFs, None, Some("write"), Some(0)),
    );
    assert_cause(
        "percpu_rwsem_wait ext4_page_mkwrite do_page_mkwrite",
        Cause::FrozenFs,
    );
    assert_cause("freeze_super.part.0 __x64_sys_ioctl", Cause::FrozenFs);
    assert_cause(
        &format!("percpu_rwsem_wait cgroup_attach_lock cgroup_procs_write {write}"),
        Cause::Lock,
    );
    assert_cause("percpu_rwsem_wait copy_process kernel_clone", Cause::Lock);
    assert_cause(
        "percpu_rwsem_wait cpus_read_lock static_key_slow_inc",
        Cause::Lock,
    );
}

#[test]
fn memory() {
    assert_cause(
        "rq_qos_wait wbt_wait __rq_qos_throttle blk_mq_submit_bio __swap_writepage pageout \
         shrink_folio_list shrink_lruvec shrink_node do_try_to_free_pages \
         try_to_free_mem_cgroup_pages try_charge_memcg filemap_fault",
        Cause::MemcgReclaim,
    );
    assert_cause(
        "reclaim_throttle shrink_node try_to_free_mem_cgroup_pages",
        Cause::MemcgReclaim,
    );
    assert_cause(
        "__mem_cgroup_handle_over_high exit_to_user_mode_loop",
        Cause::MemcgReclaim,
    );
    assert_cause(
        "throttle_direct_reclaim try_to_free_pages __alloc_pages_slowpath",
        Cause::Reclaim,
    );
    assert_cause("congestion_wait shrink_inactive_list", Cause::Reclaim);
    assert_cause(
        "compact_zone compact_zone_order try_to_compact_pages",
        Cause::Reclaim,
    );
    assert_cause(
        "mem_cgroup_oom_synchronize pagefault_out_of_memory",
        Cause::MemcgOom,
    );
    assert_cause("mem_cgroup_out_of_memory try_charge_memcg", Cause::MemcgOom);
    assert_cause(
        "kvm_async_pf_task_wait_schedule __kvm_handle_async_pf",
        Cause::HostPaging,
    );
}

#[test]
fn held_back() {
    assert_found(
        "io_schedule_timeout balance_dirty_pages balance_dirty_pages_ratelimited_flags \
         generic_perform_write ext4_buffered_write_iter vfs_write",
        (
            Cause::WritebackThrottle,
            Some("ext4"),
            Some("write"),
            Some(1),
        ),
    );
    assert_cause(
        "rq_qos_wait wbt_wait __rq_qos_throttle ext4_io_submit",
        Cause::WritebackThrottle,
    );
    assert_cause(
        "rq_qos_wait blkcg_iolatency_throttle __rq_qos_throttle",
        Cause::IoLimit,
    );
    assert_cause(
        "io_schedule ioc_rqos_throttle __rq_qos_throttle",
        Cause::IoLimit,
    );
    assert_cause(
        "io_schedule blkcg_maybe_throttle_current exit_to_user_mode_loop",
        Cause::IoLimit,
    );
}

#[test]
fn servers() {
    assert_found(
        "rpc_wait_bit_killable __rpc_execute rpc_execute nfs3_rpc_wrapper nfs3_proc_lookup \
         nfs_lookup path_openat do_filp_open do_sys_openat2",
        (Cause::NetworkFs, Some("nfs"), Some("open"), Some(0)),
    );
    assert_cause(
        "wait_for_response compound_send_recv smb2_query_info",
        Cause::NetworkFs,
    );
    assert_cause(
        "wait_on_page_writeback cifs_writepages do_writepages",
        Cause::NetworkFs,
    );
    assert_cause(
        "ceph_mdsc_wait_request ceph_mdsc_do_request",
        Cause::NetworkFs,
    );
    assert_cause(
        "p9_client_rpc p9_client_walk v9fs_vfs_lookup",
        Cause::NetworkFs,
    );
    assert_cause(
        "nfs_start_io_write nfs_file_write vfs_write",
        Cause::InodeLock,
    );
    assert_cause(
        "request_wait_answer __fuse_request_send fuse_simple_request",
        Cause::Fuse,
    );
    assert_cause("fuse_wait_aborted fuse_abort_conn", Cause::Fuse);
}

#[test]
fn journals() {
    let cases = [
        (
            "jbd2_log_wait_commit jbd2_complete_transaction ext4_sync_file",
            "ext4",
        ),
        (
            "wait_transaction_locked add_transaction_credits jbd2__journal_start",
            "ext4",
        ),
        (
            "xlog_grant_head_wait xlog_grant_head_check xfs_log_reserve",
            "xfs",
        ),
        (
            "__flush_work xlog_cil_force_lsn xfs_log_force xfs_log_worker",
            "xfs",
        ),
        ("wait_current_trans start_transaction btrfs_create", "btrfs"),
        (
            "cv_wait_common txg_wait_synced_impl zil_commit zpl_fsync",
            "zfs",
        ),
        ("f2fs_issue_checkpoint f2fs_sync_fs", "f2fs"),
    ];
    for (stack, file_system) in cases {
        assert_cause(stack, Cause::Journal);
        let frames: Vec<&str> = stack.split_whitespace().collect();
        assert_eq!(find(&frames).file_system, Some(file_system));
    }
}

#[test]
fn tasks_that_wait_for_tasks() {
    let cases = [
        (
            "wait_for_completion_killable kernel_clone __do_sys_vfork",
            Cause::Vfork,
        ),
        ("wait_for_vfork_done kernel_clone", Cause::Vfork),
        ("de_thread begin_new_exec load_elf_binary", Cause::Exec),
        ("coredump_task_exit do_exit do_group_exit", Cause::Coredump),
        (
            "coredump_wait.isra.0 do_coredump get_signal",
            Cause::Coredump,
        ),
        ("ptrace_check_attach __x64_sys_ptrace", Cause::Ptrace),
        ("__refrigerator get_signal", Cause::Freezer),
        ("handle_userfault do_anonymous_page", Cause::Userfault),
        ("__wait_rcu_gp synchronize_rcu namespace_unlock", Cause::Rcu),
        ("__synchronize_srcu kvm_vm_ioctl", Cause::Rcu),
        ("rcu_barrier deactivate_locked_super", Cause::Rcu),
        (
            "__flush_work __cancel_work_timer xfs_stop_block_reaping",
            Cause::Worker,
        ),
        ("affine_move_task __set_cpus_allowed_ptr", Cause::Worker),
        (
            "virtballoon_free_page_report page_reporting_process",
            Cause::Balloon,
        ),
    ];
    for (stack, cause) in cases {
        assert_cause(stack, cause);
    }
}

#[test]
fn a_core_being_written() {
    assert_found(
        "folio_wait_bit_common ext4_da_write_begin generic_perform_write __kernel_write_iter \
         dump_user_range elf_core_dump do_coredump get_signal",
        (Cause::Disk, Some("ext4"), Some("core dump"), Some(0)),
    );
}

#[test]
fn drivers() {
    assert_cause("msleep frob_reset_device frob_ioctl", Cause::Driver);
    assert_cause(
        "dma_fence_default_wait dma_fence_wait_timeout",
        Cause::Driver,
    );
    assert_cause(
        "wait_for_completion_timeout usb_start_wait_urb usb_control_msg",
        Cause::Driver,
    );
}

#[test]
fn words_are_different() {
    let causes = rules::RULES.iter().map(|rule| rule.cause);
    let causes: HashSet<_> = causes
        .chain([Cause::Brief, Cause::Lost, Cause::Unknown])
        .collect();
    let words: HashSet<_> = causes.iter().map(|cause| cause.word()).collect();
    assert_eq!(words.len(), causes.len());
}

#[test]
fn patterns_have_stars_at_their_ends_only() {
    for rule in rules::RULES {
        for pattern in [rule.functions, rule.inside]
            .iter()
            .flat_map(|list| list.split_ascii_whitespace())
        {
            let inner = pattern.trim_matches('*');
            assert!(inner.len() > 1 && !inner.contains(['*', '.']), "{pattern}");
        }
    }
}
