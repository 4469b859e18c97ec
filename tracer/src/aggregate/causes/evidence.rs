//! Stacks of public reports and of runs outside of this project, innermost first, and
//! their like. Where a frame of `.sched.text` decides it is given too.

use super::{Cause, LockWait, decide, find, find_told};

#[track_caller]
fn found(stack: &str) -> (Cause, Option<&'static str>, Option<&'static str>) {
    let frames: Vec<&str> = stack.split_whitespace().collect();
    let finding = find(&frames);
    (finding.cause, finding.file_system, finding.operation)
}

#[track_caller]
fn all_are(cause: Cause, stacks: &[&str]) {
    for stack in stacks {
        assert_eq!(found(stack).0, cause, "{stack}");
    }
}

/// What a stack says when the kernel says that it is a lock.
fn told(stack: &str, lock: LockWait) -> Cause {
    let frames: Vec<&str> = stack.split_whitespace().collect();
    find_told(&frames, lock).cause
}

/// Moby 22289, CoreOS 254: containers that hang at their start.
#[test]
fn rtnl_and_its_like() {
    let outer = "create_new_namespaces copy_namespaces copy_process kernel_clone";
    for taker in [
        "copy_net_ns",
        "cleanup_net",
        "default_device_exit_batch",
        "linkwatch_event",
        "addrconf_verify_work",
        "dev_ioctl",
        "register_netdevice_notifier",
        "genl_rcv",
        "nfnetlink_rcv_batch",
        "register_nexthop_notifier",
        "rtnl_dumpit",
        "__tun_chr_ioctl",
        "tun_chr_close",
    ] {
        let seen = format!("schedule_preempt_disabled __mutex_lock mutex_lock {taker} {outer}");
        all_are(Cause::Lock, &[&seen, &format!("{taker} {outer}")]);
    }
}

/// liburing 1289: all threads of a process.
#[test]
fn the_lock_of_a_ring() {
    let enter = "__do_sys_io_uring_enter do_syscall_64";
    all_are(
        Cause::Lock,
        &[
            &format!("schedule_preempt_disabled __mutex_lock mutex_lock {enter}"),
            "io_uring_del_tctx_node io_uring_clean_tctx do_exit",
        ],
    );
    // It waits for completions too: only the kernel tells which.
    assert_eq!(told(enter, LockWait::Lock), Cause::Lock);
    all_are(Cause::Unknown, &[enter]);
}

/// All functions of a 6.18 kernel, of others, and of modules, that take a lock that
/// sleeps.
#[test]
fn whoever_takes_a_lock_waits_for_one() {
    let is_lock = |cause: Cause| cause.is_lock() || cause == Cause::FrozenFs;
    for (i, line) in include_str!("lock_takers.txt").lines().enumerate() {
        let (name, also) = line.split_once(' ').unwrap_or((line, ""));
        let (told, _) = decide(&[name], LockWait::Lock);
        assert!(is_lock(told), "{name}: {told:?}");
        // Without that word, of one in ten: all of them take a while.
        if also.is_empty() && i % 10 == 0 {
            let (cause, _) = decide(&[name], LockWait::Untold);
            // Of a lock that is held for one thing only, that.
            let is_better = matches!(
                cause,
                Cause::Journal | Cause::Reclaim | Cause::MemcgReclaim | Cause::MemcgOom
            );
            assert!(is_lock(cause) || is_better, "{name}: {cause:?}");
        }
    }
    for name in [
        "sync_inodes_sb",
        "kthread",
        "fuse_iomap_begin",
        "del_gendisk",
    ] {
        let (seen, _) = decide(&["down_write", name, "ksys_sync"], LockWait::Untold);
        assert!(is_lock(seen), "{name}: {seen:?}");
    }
}

/// A contention that was over before the task slept: what it does sleep in is known.
#[test]
fn a_known_wait_is_not_overruled() {
    let read = "folio_wait_bit_common filemap_get_pages filemap_read vfs_read";
    assert_eq!(told(read, LockWait::Lock), Cause::Disk);
    assert_eq!(told(read, LockWait::InodeLock), Cause::Disk);
    assert_eq!(told("frob do_syscall_64", LockWait::Untold), Cause::Unknown);
    assert_eq!(told("frob do_syscall_64", LockWait::Lock), Cause::Lock);
    assert_eq!(told("frob do_fault", LockWait::MmapLock), Cause::MmapLock);
    assert_eq!(told("frob f", LockWait::InodeLock), Cause::InodeLock);
    assert_eq!(told("frob f", LockWait::FreezeLock), Cause::FrozenFs);
    assert_eq!(told("", LockWait::MmapLock), Cause::MmapLock);
}

/// Btrfs: a fault on a page against fsync.
#[test]
fn a_range_of_a_btrfs_file() {
    assert_eq!(
        found(
            "__schedule schedule wait_extent_bit lock_extent btrfs_page_mkwrite do_page_mkwrite \
             do_wp_page __handle_mm_fault handle_mm_fault do_user_addr_fault exc_page_fault"
        ),
        (Cause::Lock, Some("btrfs"), Some("page fault"))
    );
    all_are(
        Cause::Lock,
        &[
            "lock_extent_bits lock_and_cleanup_extent_if_need btrfs_buffered_write vfs_write",
            "btrfs_lock_extent_bits btrfs_direct_read",
            "btrfs_drew_read_lock btrfs_buffered_write",
        ],
    );
}

/// hotsos 594, clamav 245: an antivirus that does not answer. A batch daemon under autofs.
#[test]
fn a_user_process_that_must_answer() {
    let opens = "fsnotify do_dentry_open path_openat do_filp_open do_sys_openat2";
    let cases = [
        (
            format!("__schedule schedule fanotify_handle_event {opens}"),
            "fanotify listener",
        ),
        (
            format!("fanotify_get_response fanotify_handle_event {opens}"),
            "fanotify listener",
        ),
        (
            "schedule autofs_wait autofs_mount_wait autofs_d_automount __traverse_mounts step_into \
             path_lookupat filename_lookup"
                .to_owned(),
            "autofs daemon",
        ),
        (
            "seccomp_do_user_notification.isra.0 __seccomp_filter syscall_trace_enter".to_owned(),
            "seccomp supervisor",
        ),
        (
            "audit_log_start audit_log_exit __audit_syscall_exit".to_owned(),
            "audit daemon",
        ),
        (
            "wait_for_key_construction request_key_and_link request_key_tag".to_owned(),
            "request-key",
        ),
        (
            "dm_consult_userspace userspace_flush dm_rh_update_states".to_owned(),
            "device mapper log daemon",
        ),
        (
            "nfsd4_cld_create nfsd4_client_record_create nfsd4_open_confirm nfsd".to_owned(),
            "nfsdcld",
        ),
    ];
    for (stack, who) in cases {
        let frames: Vec<&str> = stack.split_whitespace().collect();
        let finding = find(&frames);
        assert_eq!(finding.cause, Cause::UserProcess, "{stack}");
        assert_eq!(finding.supervisor, Some(who), "{stack}");
    }
    let stat = "autofs_wait autofs_mount_wait autofs_d_automount filename_lookup vfs_statx";
    assert_eq!(
        found(stat),
        (Cause::UserProcess, Some("autofs"), Some("stat"))
    );
    // Its own mutex is none of the daemon's.
    assert_eq!(told(stat, LockWait::Lock), Cause::Lock);
    all_are(
        Cause::Userfault,
        &["userfaultfd_event_wait_completion dup_userfaultfd_complete dup_mmap"],
    );
}

#[test]
fn each_supervisor_has_a_rule() {
    let functions = super::functions::SUPERVISED.split_ascii_whitespace();
    for function in functions {
        let name = function.trim_end_matches('*');
        assert!(super::names::supervisor(name).is_some(), "{function}");
    }
    for (functions, who) in super::names::SUPERVISORS {
        for function in functions.split_ascii_whitespace() {
            let name = function.trim_end_matches('*');
            let finding = find(&[name]);
            assert_eq!(finding.supervisor, Some(*who), "{function}");
        }
    }
}

/// lore linux-fsdevel 2020: md, kernfs and reclaim of a cgroup.
#[test]
fn a_log_is_waited_for() {
    all_are(
        Cause::Journal,
        &[
            "__schedule schedule io_schedule __xfs_iunpin_wait xfs_iunpin_wait xfs_reclaim_inode \
             xfs_reclaim_inodes_ag xfs_reclaim_inodes_nr xfs_fs_free_cached_objects \
             super_cache_scan shrink_slab shrink_node do_try_to_free_pages \
             try_to_free_mem_cgroup_pages try_charge_memcg kernfs_iop_lookup",
            "__xfs_iunpin_wait xfs_iflush xfs_inode_item_push xfsaild",
            "xfs_buf_wait_unpin xfs_buf_submit xfs_bwrite",
            "xfs_qm_dqunpin_wait xfs_qm_dqflush",
            "xfs_extent_busy_flush xfs_alloc_ag_vextent_size",
            "xfs_ail_push_all_sync xfs_unmount_flush_inodes xfs_unmountfs",
            "xlog_grant_head_wait xlog_grant_head_check xfs_log_reserve",
            "xlog_wait_on_iclog xfs_log_force xfs_fsync",
            "ext4_fc_commit ext4_sync_file vfs_fsync_range",
            "ext4_fc_wait_committing_inode ext4_fc_start_update ext4_setattr",
            "jbd2_fc_begin_commit ext4_fc_commit ext4_sync_file",
            "jbd2_log_wait_commit jbd2_complete_transaction ext4_sync_file",
            "log_flush_wait gfs2_log_flush gfs2_fsync",
            "__gfs2_log_reserve __gfs2_trans_begin gfs2_trans_begin",
            "f2fs_issue_checkpoint f2fs_sync_fs",
            "txBegin jfs_create lookup_open",
            "cv_wait_common __cv_wait txg_wait_open dmu_tx_wait zfs_write",
            "cv_wait_common __cv_wait_io zil_commit_waiter zil_commit zfs_fsync",
            "wait_log_commit btrfs_sync_log btrfs_sync_file",
        ],
    );
}

/// A local disk below a server, cachefiles, or a FUSE file system that passes on.
#[test]
fn the_disk_of_a_server_is_a_disk() {
    let wait = "io_schedule folio_wait_bit_common filemap_get_pages filemap_read";
    let nfsd =
        "nfsd_read nfsd3_proc_read nfsd_dispatch svc_process_common svc_process nfsd kthread";
    assert_eq!(
        found(&format!(
            "{wait} ext4_file_read_iter vfs_iter_read nfsd_readv {nfsd}"
        )),
        (Cause::Disk, Some("ext4"), Some("read"))
    );
    for stack in [
        // The frame of the file system can be gone by a tail call.
        format!("{wait} vfs_iter_read nfsd_readv {nfsd}"),
        format!("{wait} xfs_file_read_iter nfsd_iter_read nfsd4_read nfsd4_proc_compound {nfsd}"),
        format!("submit_bio_wait blkdev_issue_flush xfs_file_fsync nfsd_vfs_write {nfsd}"),
        format!("{wait} ext4_file_read_iter cachefiles_read netfs_read_from_cache nfs_readahead"),
        format!("{wait} ext4_file_read_iter ksmbd_vfs_read smb2_read handle_ksmbd_work"),
        format!("{wait} ksmbd_vfs_read smb2_read handle_ksmbd_work process_one_work"),
        format!("{wait} ext4_file_read_iter backing_file_read_iter fuse_passthrough_read_iter"),
        format!("{wait} backing_file_read_iter fuse_passthrough_read_iter vfs_read"),
        format!("{wait} ldiskfs_file_read osd_read ofd_preprw tgt_brw_read ptlrpc_main"),
        "__wait_on_buffer ocfs2_read_blocks ocfs2_read_inode_block ocfs2_file_open".to_owned(),
        "gfs2_meta_wait gfs2_meta_read gfs2_inode_lookup".to_owned(),
    ] {
        assert_eq!(found(&stack).0, Cause::Disk, "{stack}");
    }
    let of_smb = format!("{wait} ksmbd_vfs_read smb2_read handle_ksmbd_work");
    assert_eq!(found(&of_smb), (Cause::Disk, None, Some("read")));
    all_are(
        Cause::InodeLock,
        &[
            "down_write nfsd_create_locked nfsd_create nfsd3_proc_create nfsd_dispatch",
            "nfsd_unlink nfsd4_remove nfsd4_proc_compound nfsd_dispatch",
            "path_openat do_filp_open filp_open ksmbd_vfs_create smb2_open handle_ksmbd_work",
        ],
    );
    // What serves can be a client too, and a client remains one.
    all_are(
        Cause::NetworkFs,
        &[
            "rpc_wait_bit_killable nfs4_do_close nfs_file_read vfs_iter_read nfsd_readv nfsd_read",
            "folio_wait_bit_common filemap_read nfs_file_read ovl_read_iter vfs_read",
            "wait_for_response compound_send_recv smb2_query_path_info cifs_get_inode_info",
            "smb2_wait_mtu_credits smb2_async_readv cifs_issue_read",
            "ocfs2_wait_for_mask __ocfs2_cluster_lock ocfs2_inode_lock_full_nested",
            "gfs2_glock_wait gfs2_glock_nq gfs2_permission",
            "wait_on_commit __nfs_commit_inode nfs_wb_all",
            "pnfs_update_layout filelayout_pg_init_read nfs_readahead",
            "service_operation orangefs_inode_getattr",
            "ceph_mdsc_wait_request ceph_mdsc_do_request ceph_lookup",
        ],
    );
}

/// openzfs 4362.
#[test]
fn locks_of_zfs_are_condition_variables() {
    assert_eq!(
        found(
            "schedule cv_wait_common __cv_wait zfs_range_lock zfs_write zpl_write_common zpl_write \
             do_readv_writev vfs_writev nfsd_vfs_write nfsd_write nfsd3_proc_write nfsd_dispatch"
        ),
        (Cause::Lock, Some("zfs"), Some("write"))
    );
    let wait = "cv_wait_common __cv_wait";
    all_are(
        Cause::Lock,
        &[
            &format!("{wait} zfs_rangelock_enter_reader zfs_read zpl_iter_read"),
            &format!("{wait} spa_config_enter zio_vdev_io_start"),
            &format!("{wait} rrw_enter_read zfs_getattr"),
        ],
    );
    all_are(
        Cause::Reclaim,
        &[&format!("{wait} arc_wait_for_eviction arc_get_data_impl")],
    );
    all_are(
        Cause::Disk,
        &[
            "cv_wait_common __cv_wait_io zio_wait dmu_buf_hold_array_by_dnode",
            &format!("{wait} dbuf_read dmu_buf_hold"),
        ],
    );
}

/// lore linux-nfs 2019-05-20: one that syncs waits for pages of all file systems.
#[test]
fn sync_is_no_disk() {
    let outer = "sync_inodes_sb iterate_supers ksys_sync";
    all_are(
        Cause::Writeback,
        &[
            &format!(
                "io_schedule wait_on_page_bit_common __filemap_fdatawait_range \
                 filemap_fdatawait_keep_errors {outer}"
            ),
            "folio_wait_writeback __filemap_fdatawait_range filemap_fdatawait_keep_errors \
             sync_bdevs ksys_sync",
        ],
    );
    all_are(Cause::Lock, &[&format!("mutex_lock {outer}"), outer]);
    // What the file system does itself is its own.
    all_are(
        Cause::Disk,
        &["submit_bio_wait blkdev_issue_flush ext4_sync_fs iterate_supers ksys_sync"],
    );
}

/// lore linux-btrfs 2021-11-30, liburing 294: until what is under way has ended.
#[test]
fn drains_are_disks() {
    all_are(
        Cause::Disk,
        &[
            "schedule btrfs_rm_dev_replace_blocked btrfs_dev_replace_finishing \
             btrfs_dev_replace_by_ioctl btrfs_ioctl",
            "__do_sys_io_destroy do_syscall_64",
            "__x64_sys_io_destroy do_syscall_64",
            "exit_aio __mmput do_exit",
            "io_uring_cancel_generic __io_uring_cancel do_exit",
            "io_uring_cancel_files io_uring_flush",
            "mddev_suspend suspend_lo_store md_attr_store",
            "md_bitmap_unplug raid1_unplug blk_finish_plug",
            "md_bitmap_wait_writes md_update_sb",
            "new_read dm_bufio_read dm_bm_read_lock",
            "wait_for_in_progress snapshot_map dm_submit_bio",
            "drbd_suspend_io drbd_adm_attach genl_family_rcv_msg",
            "drbd_al_begin_io_commit do_submit process_one_work",
            "btrfs_scrub_pause btrfs_commit_transaction.part.0",
        ],
    );
}

/// ext4: no memory for a page to encrypt into.
#[test]
fn a_retry_for_memory_is_reclaim() {
    let outer = "mpage_submit_folio mpage_process_page_bufs ext4_do_writepages ext4_writepages \
                 do_writepages __writeback_single_inode writeback_sb_inodes wb_workfn";
    all_are(
        Cause::Reclaim,
        &[
            &format!("io_schedule_timeout ext4_bio_write_folio {outer}"),
            &format!("ext4_bio_write_page {outer}"),
            "xfs_buf_alloc xfs_buf_get_map xfs_buf_read_map",
            "btrfs_alloc_page_array alloc_extent_buffer",
        ],
    );
}

/// Syzkaller: a mount behind a freeze, and the locks of block devices.
#[test]
fn locks_of_block_devices() {
    let outer = "blkdev_close __fput task_work_run";
    all_are(
        Cause::Lock,
        &[
            &format!("mutex_lock blkdev_put {outer}"),
            "mutex_lock mount_bdev legacy_get_tree vfs_get_tree",
            "loop_control_ioctl __x64_sys_ioctl do_syscall_64",
            "lo_release blkdev_put_whole bdev_release",
            "bd_prepare_to_claim bd_init_fs_context",
        ],
    );
}

/// sched-ext 131.
#[test]
fn the_lock_of_the_kernels_text() {
    let outer = "__jump_label_update jump_label_update static_key_slow_dec nf_static_key_dec";
    let taker = "arch_jump_label_transform_queue";
    all_are(
        Cause::Lock,
        &[
            &format!("mutex_lock {taker} {outer}"),
            &format!("{taker} {outer}"),
        ],
    );
}

/// A mirror of lustre-release, 329, and others that are not part of the kernel.
#[test]
fn network_file_systems_out_of_tree() {
    assert_eq!(
        found(
            "schedule_timeout wait_for_completion llog_process_or_fork llog_process \
             class_config_parse_llog mgc_process_cfg_log mgc_process_log"
        ),
        (Cause::NetworkFs, Some("lustre"), None)
    );
    all_are(
        Cause::NetworkFs,
        &[
            "ptlrpc_set_wait ptlrpc_queue_wait mdc_getattr ll_lookup_it",
            "ldlm_completion_ast ldlm_cli_enqueue_fini mdc_enqueue_base",
            "cxiWaitEventWait _ZN6ThCond12internalWaitEP16KernelSynchStatejPv gpfs_f_read vfs_read",
            "MessagingTk_requestResponse FhgfsOpsRemoting_readfile FhgfsOps_read",
        ],
    );
}

/// OpenSearch 20933 on 6.18: threads that end while another forks.
#[test]
fn mmap_lock_under_new_names() {
    for taker in ["madvise_do_behavior", "madvise_vma_behavior"] {
        assert_eq!(
            found(&format!("{taker} do_madvise __x64_sys_madvise")),
            (Cause::MmapLock, None, Some("madvise"))
        );
    }
    all_are(
        Cause::InodeLock,
        &["vfs_fileattr_set ioctl_setflags do_vfs_ioctl"],
    );
    all_are(
        Cause::Lock,
        &[
            "vma_prepare __split_vma vms_gather_munmap_vmas do_vmi_align_munmap",
            "__x64_sys_sethostname do_syscall_64",
            "__do_sys_newuname do_syscall_64",
            "sync_inodes_sb __iterate_supers ksys_sync",
            "sync_bdevs ksys_sync",
        ],
    );
}

/// A loop device whose image is on a frozen file system.
#[test]
fn a_loop_device_on_a_frozen_file_system() {
    let outer = "loop_process_work process_one_work worker_thread";
    for wait in [
        "",
        "percpu_rwsem_wait",
        "percpu_rwsem_wait __percpu_down_read",
    ] {
        let stack = format!("{wait} lo_rw_aio.isra.0 {outer}");
        assert_eq!(found(&stack).0, Cause::FrozenFs, "{stack}");
        assert_eq!(found(&stack).2, Some("loop device"), "{stack}");
    }
    let disk = format!("folio_wait_bit_common filemap_read ext4_file_read_iter lo_rw_aio {outer}");
    assert_eq!(found(&disk).0, Cause::Disk);
    all_are(
        Cause::FrozenFs,
        &["percpu_rwsem_wait ovl_want_write ovl_create_object path_openat"],
    );
}

/// stress-ng's file systems on 6.18: the lock of a buffer that is being written, taken in
/// a tail call, and a kernel thread that was just made.
#[test]
fn what_stress_ng_left_unknown() {
    all_are(
        Cause::Disk,
        &["__block_write_full_folio blkdev_writepages do_writepages filemap_fdatawrite_wbc"],
    );
    all_are(Cause::Worker, &["kthread ret_from_fork ret_from_fork_asm"]);
    all_are(
        Cause::Lock,
        &["netlink_table_grab.part.0 netlink_release __sock_release"],
    );
    assert_eq!(told("kthread ret_from_fork", LockWait::Lock), Cause::Lock);
}

#[test]
fn held_back_by_what_is_being_written() {
    all_are(
        Cause::WritebackThrottle,
        &["rq_qos_wait wbt_wait __rq_qos_throttle blk_mq_submit_bio ext4_io_submit"],
    );
    all_are(
        Cause::IoLimit,
        &["rq_qos_wait blkcg_iolatency_throttle __rq_qos_throttle blk_mq_submit_bio"],
    );
}
