//! The kernel's functions by what a task waits for in them, 5.14 to 7.2. `rules.rs`
//! says how each list is read; symbols stand in one string, with spaces between, and a
//! `*` at an end is anything.

/// The end of a read or write, on a page, a buffer, a bio or a request, or a place in
/// the queue for it. The page calls were renamed to folio_* in 5.16, `submit_bio_wait`
/// waits in `bio_await` from 7.2 on.
pub(super) const IO: &str = "folio_wait_bit* folio_wait_writeback* folio_wait_locked* folio_wait_stable \
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
     swap_readpage __block_write_begin_int mmb_sync mmb_fsync* hib_wait_io \
     __block_write_full_* block_read_full_* block_invalidate_* block_truncate_page \
     clean_bdev_aliases ext4_block_write_begin ext4_getblk ext4_commit_super ext4_update_super";

/// File systems that read a buffer and leave no other frame, or wait for their own I/O.
pub(super) const FILE_SYSTEM_IO: &str = "__ext4_find_entry ext4_find_entry ext4_bread* \
     __ext4_read_dirblock ext4_read_bh* __ext4_sb_bread_gfp ext4_wait_block_bitmap \
     ext4_read_block_bitmap* ext4_read_inode_bitmap* __ext4_get_inode_loc* \
     __read_extent_tree_block ext4_get_branch ext4_inode_block_unlocked_dio xfs_buf_iowait \
     xfs_buf_submit* xfs_bwrite xfs_buf_read* xfs_wait_buftarg read_extent_buffer_pages* \
     btrfs_read_extent_buffer* wait_on_extent_buffer_writeback btrfs_wait_ordered_* \
     btrfs_start_ordered_extent* btrfs_wait_block_group_* wait_eb_writebacks wait_dev_supers \
     handle_reserve_ticket wait_reserve_ticket __reserve_bytes f2fs_wait_on_* f2fs_issue_flush \
     f2fs_get_node_* f2fs_get_meta_* f2fs_get_read_data_* f2fs_get_lock_data_* \
     f2fs_issue_discard* zio_wait vdev_* arc_read dbuf_read* dmu_buf_* md_super_wait \
     md_write_start md_handle_request md_make_request md_flush_request md_do_sync raid5_* \
     raid10_* raid1_* wait_barrier* dm_wait_for_* dm_submit_bio __split_and_process_bio \
     closure_sync* __closure_sync* bch_* drbd_* _drbd_* wait_until_done_or_force_detached \
     ocfs2_read_blocks* ocfs2_write_block ocfs2_write_super_or_backup o2hb_do_disk_heartbeat \
     gfs2_meta_wait gfs2_meta_read gfs2_meta_new jfsIOWait __get_metapage grab_metapage \
     nilfs_wait_on_logs squashfs_cache_get xfs_buftarg_* f2fs_write_cache_pages \
     f2fs_flush_device_cache rbd_* nbd_* dmz_get_mblock dmz_write_dirty_mblocks sync_io \
     writecache_wait_for_ios writecache_wait_on_freelist integrity_commit \
     dm_integrity_map_continue wait_and_add_new_range __journal_read_write";

/// Waits until I/O under way has ended, or until that of others has, which keeps this
/// one out: bitmaps of md, snapshots, scrubs, rings that are closed.
pub(super) const DRAIN: &str = "btrfs_rm_dev_replace_blocked btrfs_bio_counter_inc_blocked \
     btrfs_scrub_pause* btrfs_scrub_cancel* __scrub_blocked_if_needed flush_scrub_stripes \
     wait_scrub_stripe_io submit_read_wait_bio_list btrfs_wait_nocow_writers *_sys_io_destroy \
     exit_aio io_uring_cancel_files io_uring_cancel_generic io_uring_cancel_task_requests \
     __io_uring_cancel __io_uring_files_cancel __io_uring_task_cancel io_rsrc_ref_quiesce \
     mddev_suspend* md_bitmap_unplug* md_bitmap_wait_* bitmap_unplug bitmap_wait_* \
     bitmap_start_write bitmap_cond_end_sync md_wait_for_blocked_rdev new_read __bufio_new \
     dm_bufio_* __make_buffer_clean __write_dirty_buffer __get_unclaimed_buffer \
     __wait_for_free_buffer wait_for_in_progress __check_for_conflicting_io account_start_copy";

/// A sleep until there may be memory again (`memalloc_retry_wait`, inlined): the only
/// sleep of these functions.
pub(super) const MEMORY_RETRY: &str = "ext4_bio_write_folio ext4_bio_write_page ext4_ext_truncate \
     xfs_buf_alloc xfs_buf_alloc_pages xfs_buf_alloc_backing_mem kmem_alloc kmem_alloc_large \
     kmem_realloc kmem_zone_alloc btrfs_alloc_page_array btrfs_alloc_folio_array \
     f2fs_encrypt_one_page f2fs_iget_retry f2fs_quota_read f2fs_quota_write \
     f2fs_write_compressed_pages f2fs_recover_inode_page f2fs_recover_fsync_data \
     __vmalloc_node_range* arc_wait_for_eviction";

/// A range of a file or a tree that another uses, on locks of the file system's own
/// making.
pub(super) const RANGE_LOCKS: &str = "wait_extent_bit lock_extent lock_extent_bits __lock_extent \
     btrfs_lock_extent* btrfs_drew_* btrfs_tree_lock* btrfs_tree_read_lock* \
     zfs_range_lock* zfs_rangelock_* spa_config_enter* spa_config_lock rrw_enter* rrm_enter* \
     zfs_dirent_lock netlink_table_grab bd_prepare_to_claim bd_start_claiming";

/// Waits for what a user process decides or does; `SUPERVISORS` in names.rs says which.
pub(super) const SUPERVISED: &str = "fanotify_handle_event fanotify_get_response autofs_wait \
     autofs4_wait autofs_expire_wait autofs4_expire_wait seccomp_do_user_notification \
     __seccomp_filter audit_log_start wait_for_auditd tomoyo_supervisor \
     wait_for_key_construction dm_consult_userspace userspace_do_request nfsd4_cld_* \
     cld_pipe_upcall __cld_pipe_upcall bl_resolve_deviceid ipc_msg_send_request \
     vduse_dev_msg_sync cachefiles_ondemand_send_req uinput_request_submit \
     fw_load_sysfs_fallback fw_load_from_user_helper";

pub(super) const JOURNAL: &str = "jbd2_* __jbd2_* kjournald2 wait_transaction_* add_transaction_credits \
     start_this_handle do_get_write_access xlog_* xfs_log_* xfs_ail_push* xfsaild* \
     xfs_trans_reserve xfs_trans_alloc wait_current_trans wait_for_commit wait_log_commit \
     start_transaction join_transaction btrfs_commit_transaction* btrfs_wait_for_commit \
     btrfs_sync_log btrfs_wait_tree_log_extents btrfs_write_and_wait_transaction \
     write_all_supers btrfs_transaction_* f2fs_issue_checkpoint f2fs_write_checkpoint \
     gfs2_log_* __gfs2_log_* log_flush_wait gfs2_ail* gfs2_trans_begin* txg_* spa_sync zil_* \
     dsl_pool_sync dmu_tx_* bch2_journal_* nilfs_segctor_* ocfs2_start_trans ocfs2_commit_* \
     __xfs_iunpin_wait xfs_iunpin* xfs_buf_wait_unpin xfs_qm_dqunpin_wait xfs_extent_busy_* \
     ext4_fc_* f2fs_stop_ckpt_thread f2fs_flush_ckpt_thread f2fs_enable_checkpoint txBegin \
     txBeginAnon txLock txLockAlloc lmGroupCommit lbmIOWait lbmAllocate jfs_flush_journal r5l_* \
     reiserfs_wait_on_write_block queue_log_writer flush_commit_list";

/// Threads that commit: their I/O is the journal's.
pub(super) const COMMITTING: &str = "jbd2_journal_commit_transaction kjournald2 xlog_cil_push_work \
     xfsaild btrfs_commit_transaction btrfs_sync_log transaction_kthread f2fs_write_checkpoint \
     spa_sync txg_sync_thread zil_commit*";

pub(super) const MEMCG_RECLAIM: &str = "try_to_free_mem_cgroup_pages mem_cgroup_handle_over_high \
     __mem_cgroup_handle_over_high reclaim_high mem_cgroup_resize_max memory_high_write \
     memory_max_write memory_reclaim user_proactive_reclaim";

pub(super) const RECLAIM: &str = "try_to_free_pages do_try_to_free_pages __alloc_pages_direct_reclaim \
     __perform_reclaim shrink_node* shrink_lruvec shrink_inactive_list shrink_folio_list \
     shrink_page_list evict_folios shrink_slab* do_shrink_slab reclaim_throttle \
     throttle_direct_reclaim congestion_wait wait_iff_congested balance_pgdat kswapd \
     node_reclaim __node_reclaim too_many_isolated __alloc_pages_direct_compact \
     try_to_compact_pages compact_zone compact_zone_* isolate_migratepages* kcompactd* reclaim_pages \
     reclaim_folio_list pageout";

pub(super) const SWAP_IN: &str = "do_swap_page swapin_readahead swapin_folio swap_cluster_readahead \
     read_swap_cache_async __read_swap_cache_async swap_cache_alloc_folio shmem_swapin* \
     swap_read_folio swap_readpage unuse_*";

pub(super) const MIGRATION: &str = "migration_entry_wait* pmd_migration_entry_wait softleaf_entry_wait_* \
     __migration_entry_wait* migrate_pages* migrate_folio* __unmap_and_move unmap_and_move";

pub(super) const FLUSHER: &str = "wb_workfn wb_do_writeback wb_writeback writeback_sb_inodes";

/// `sync(2)` and its like, which wait for pages of all files of a file system or the host.
pub(super) const SYNC_OF_ALL: &str = "ksys_sync iterate_supers __iterate_supers sync_inodes_sb \
     sync_inodes_one_sb wait_sb_inodes sync_bdevs iterate_bdevs";

/// Clients of network file systems, and members of cluster file systems.
pub(super) const NETWORK: &str = "nfs_* nfs3_* nfs4_* _nfs4_* pnfs_* _pnfs_* wait_on_commit rpc_* \
     rpcauth_* xprt_* __rpc_* nlmclnt_* cifs_* SMB2_* smb_* smb3_* wait_for_response \
     wait_for_free_credits wait_for_compound_request compound_send_recv SendReceive* ceph_* \
     __ceph_* v9fs_* p9_* netfs_* afs_* rxrpc_* ll_* mdc_* osc_* lmv_* lov_* mgc_* llog_* \
     class_config_* ldlm_* cl_sync_io_wait* cl_io_* cl_lock_* ptlrpc_queue_wait \
     ptlrpc_set_wait ptlrpc_request_* ptlrpc_connect* ptlrpc_import* ptlrpc_disconnect* \
     ptlrpc_send* ptlrpc_free* ptlrpcd* gfs2_glock_* find_insert_glock gdlm_* dlm_* __dlm_* user_dlm_* \
     ocfs2_cluster_* __ocfs2_cluster_* ocfs2_inode_lock* ocfs2_rw_lock* ocfs2_open_lock* \
     ocfs2_drop_lock ocfs2_wait_for_* __ocfs2_wait_on_mount ocfs2_mark_lockres_freeing \
     ocfs2_file_lock ocfs2_file_unlock ocfs2_flock_handle_signal o2net_* orangefs_* \
     service_operation wait_for_matching_downcall coda_* fscache_* gpfs_* cxiWaitEventWait \
     _ZN6ThCond* FhgfsOps* MessagingTk_*";

/// Names that client and server of SMB share.
pub(super) const SMB2: &str = "smb2_*";

/// Who serves SMB.
pub(super) const SMB_SERVER: &str = "ksmbd_* handle_ksmbd_work";

/// Who reads and writes here: file systems on devices of this host, and servers that pass
/// on what others ask for. The wait of a page below is not that of a network further out.
pub(super) const LOCAL: &str = "ext4_* __ext4_* ext2_* xfs_* __xfs_* btrfs_* __btrfs_* f2fs_* \
     __f2fs_* fat_* exfat_* ntfs_* ni_* udf_* isofs_* erofs_* z_erofs_* squashfs_* hfsplus_* \
     jfs_* nilfs_* ubifs_* bch2_* zfs_* zpl_* shmem_* ocfs2_* __ocfs2_* gfs2_* ldiskfs_* \
     blkdev_* nfsd_* nfsd3_* nfsd4_* ksmbd_* ofd_* ost_* mdt_* mdd_* osd_* lod_* tgt_* \
     cachefiles_* backing_file_* ovl_*";

pub(super) const FUSE: &str = "request_wait_answer fuse_* __fuse_* virtio_fs_* cuse_*";

/// Semaphores of the same kind as the file systems', of other things.
pub(super) const OTHER_PERCPU: &str = "cgroup_* cgroup1_* __cgroup* cpus_read_lock get_online_* \
     mem_hotplug_begin copy_process exit_signals de_thread dup_mm dup_mmap uprobe_* \
     register_for_each_vma cpu_hotplug_* cpus_write_lock _cpu_* perf_* flock_* posix_lock_* \
     fcntl_* *_lease";

/// Places that begin to change a file system (`sb_start_write`, `sb_start_pagefault`,
/// `sb_start_intwrite`, inlined).
pub(super) const BEGINS_TO_WRITE: &str = "mnt_want_write* sb_start_* __sb_start_write freeze_super \
     lo_rw_aio lo_write_bvec lo_write_simple fh_want_write nfsd_* cachefiles_* \
     ksmbd_vfs_* ovl_* file_start_write kiocb_start_write vfs_write vfs_writev vfs_iter_write \
     vfs_iocb_iter_write do_iter_write do_iter_readv_writev do_splice* splice_file_to_pipe \
     do_sendfile vfs_copy_file_range vfs_clone_file_range do_clone_file_range vfs_fallocate \
     aio_write io_write io_submit_one do_truncate do_ftruncate vfs_truncate do_sys_ftruncate \
     path_openat *_page_mkwrite filemap_page_mkwrite do_page_mkwrite __xfs_filemap_fault \
     xfs_trans_alloc* *_evict_inode evict ext4_journal_check_start __ext4_journal_start* \
     start_transaction touch_atime file_update_time* do_renameat2 do_unlinkat filename_create \
     vfs_dedupe_*";

/// What takes no lock but that of a file system that may be frozen.
pub(super) const FREEZE_LOCK: &str = "mnt_want_write* sb_start_* __sb_start_write sb_wait_write \
     freeze_super lo_rw_aio lo_write_bvec ovl_start_write acct_write_process aio_write \
     backing_file_splice_write btrfs_ioctl_encoded_write btrfs_uring_encoded_write \
     direct_splice_actor do_ftruncate ext4_evict_inode ext4_release_dquot f2fs_drop_inode \
     filemap_page_mkwrite gfs2_page_mkwrite netfs_page_mkwrite nilfs_page_mkwrite io_write \
     kernel_write start_transaction touch_atime vfs_clone_file_range vfs_copy_file_range \
     vfs_fallocate vfs_iocb_iter_write vfs_iter_write vfs_write vfs_writev write_mmp_block \
     xfs_exchange_range xfs_trans_alloc";

pub(super) const MMAP_LOCK: &str = "do_user_addr_fault exc_page_fault lock_mm_and_find_vma do_page_fault \
     do_mem_abort handle_page_fault __do_page_fault vm_mmap_pgoff ksys_mmap_pgoff __vm_munmap \
     vm_munmap do_mprotect_pkey do_madvise madvise_lock madvise_do_behavior madvise_vma_behavior __do_sys_brk *_sys_brk __do_sys_mremap \
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

pub(super) const INODE_LOCK: &str = "path_openat open_last_lookups lookup_open walk_component lookup_slow \
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
     vfs_fileattr_set nfsd_create* nfsd_unlink nfsd_rename nfsd_link nfsd_symlink \
     nfsd_setattr nfsd4_create_file nfsd_lookup_dentry insert_inode_locked* inode_insert5 \
     xfs_lock_two_inodes xfs_lock_inodes fuse_lock_inode nfs_start_io_* \
     netfs_start_io_* ceph_start_io_* blkdev_write_iter swap_activate";

pub(super) const LOCK: &str = "sched_mm_cid_* dqget dquot_* rtnl_lock* rtnetlink_rcv_msg rtnl_newlink netlink_dump lock_sock* \
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
pub(super) const FILE_SYSTEMS: &str = "ext4_* __ext4_* xfs_* __xfs_* btrfs_* __btrfs_* f2fs_* __f2fs_* \
     ovl_* fat_* vfat_* exfat_* ntfs_* ni_* udf_* isofs_* erofs_* z_erofs_* squashfs_* hfs_* \
     hfsplus_* jfs_* nilfs_* ubifs_* bch2_* zfs_* zpl_* shmem_* hugetlbfs_* ext2_* minix_* \
     tracefs_* debugfs_* simple_* bcachefs_*";
