//! What else a stack says: the file system, and what the task was doing.

use super::{
    functions::{SMB_SERVER, SMB2},
    rules::is_among,
};

/// File systems, by their functions. jbd2 is the journal of ext4 and ocfs2, and hardly
/// ever the latter's.
const FILE_SYSTEMS: &[(&str, &str)] = &[
    ("ext4_* __ext4_* jbd2_* __jbd2_* kjournald2", "ext4"),
    ("xfs_* __xfs_* xlog_* xfsaild*", "xfs"),
    ("btrfs_* __btrfs_*", "btrfs"),
    ("f2fs_* __f2fs_*", "f2fs"),
    ("nfs_* nfs3_* nfs4_* _nfs4_*", "nfs"),
    ("cifs_* smb2_* SMB2_* smb3_*", "cifs"),
    ("ceph_* __ceph_*", "ceph"),
    ("v9fs_* p9_*", "9p"),
    ("virtio_fs_*", "virtiofs"),
    ("fuse_* __fuse_* request_wait_answer", "fuse"),
    (
        "zfs_* zpl_* zil_* txg_* zio_* spa_* dmu_* dbuf_* dsl_* arc_* rrw_* rrm_*",
        "zfs",
    ),
    ("ovl_*", "overlay"),
    ("shmem_*", "tmpfs"),
    ("gfs2_*", "gfs2"),
    ("ocfs2_* __ocfs2_*", "ocfs2"),
    ("afs_*", "afs"),
    (
        "ll_* mdc_* lmv_* lov_* osc_* llog_* mgc_* class_config_* ptlrpc_* ldlm_* ofd_* mdt_* \
             ost_* osd_* tgt_*",
        "lustre",
    ),
    ("gpfs_*", "gpfs"),
    ("FhgfsOps*", "beegfs"),
    ("orangefs_*", "orangefs"),
    ("coda_*", "coda"),
    ("autofs_* autofs4_*", "autofs"),
    ("nilfs_*", "nilfs2"),
    ("ubifs_*", "ubifs"),
    ("jfs_*", "jfs"),
    ("reiserfs_*", "reiserfs"),
    ("hfsplus_*", "hfsplus"),
    ("ldiskfs_*", "ldiskfs"),
    ("bch2_*", "bcachefs"),
    ("erofs_* z_erofs_*", "erofs"),
    ("squashfs_*", "squashfs"),
    ("fat_* vfat_* msdos_*", "vfat"),
    ("exfat_*", "exfat"),
    ("ntfs_* ni_*", "ntfs3"),
    ("udf_*", "udf"),
    ("isofs_*", "iso9660"),
    ("hugetlbfs_*", "hugetlbfs"),
    ("kernfs_* sysfs_*", "sysfs"),
];

/// User processes that decide or do something, by the functions that wait for them.
pub(super) const SUPERVISORS: &[(&str, &str)] = &[
    (
        "fanotify_handle_event fanotify_get_response",
        "fanotify listener",
    ),
    (
        "autofs_wait autofs4_wait autofs_expire_wait autofs4_expire_wait",
        "autofs daemon",
    ),
    (
        "seccomp_do_user_notification __seccomp_filter",
        "seccomp supervisor",
    ),
    ("audit_log_start wait_for_auditd", "audit daemon"),
    ("tomoyo_supervisor", "tomoyo-queryd"),
    ("wait_for_key_construction", "request-key"),
    (
        "dm_consult_userspace userspace_do_request",
        "device mapper log daemon",
    ),
    ("nfsd4_cld_* cld_pipe_upcall __cld_pipe_upcall", "nfsdcld"),
    ("bl_resolve_deviceid", "blkmapd"),
    ("ipc_msg_send_request", "ksmbd.mountd"),
    ("vduse_dev_msg_sync", "VDUSE device"),
    ("cachefiles_ondemand_send_req", "cachefilesd"),
    ("uinput_request_submit", "uinput device"),
    (
        "fw_load_sysfs_fallback fw_load_from_user_helper",
        "firmware loader",
    ),
];

/// What a task is about, of which the operations are parts: these win wherever they
/// are on the stack.
const ERRANDS: &[(&str, &str)] = &[
    ("do_coredump vfs_coredump", "core dump"),
    ("bprm_execve do_execveat_common kernel_execve", "exec"),
    ("*_sys_swapoff try_to_unuse", "swapoff"),
];

/// Operations, by the functions of the system call or the kernel thread; the innermost
/// on the stack wins, so a write that must be on disk before it returns is a sync.
const OPERATIONS: &[(&str, &str)] = &[
    (
        "handle_mm_fault __handle_mm_fault filemap_fault do_user_addr_fault exc_page_fault \
             do_page_fault asm_exc_page_fault do_mem_abort lock_mm_and_find_vma faultin_page",
        "page fault",
    ),
    (
        "*_sync_file *_file_fsync *_fsync do_fsync vfs_fsync* ksys_sync sync_filesystem \
             __do_sys_msync *_sys_msync ksys_sync_file_range __do_sys_syncfs *_sys_syncfs",
        "sync",
    ),
    ("wb_workfn wb_writeback writeback_sb_inodes", "writeback"),
    (
        "kjournald2 xlog_cil_push_work xfsaild transaction_kthread txg_sync_thread",
        "commit",
    ),
    ("kswapd balance_pgdat kcompactd", "reclaim"),
    ("loop_process_work loop_workfn lo_rw_aio", "loop device"),
    (
        "page_cache_ra_* force_page_cache_* ksys_readahead generic_fadvise read_pages",
        "readahead",
    ),
    (
        "vfs_write vfs_writev vfs_iter_write vfs_iocb_iter_write do_iter_write ksys_write \
             ksys_pwrite64 generic_perform_write io_write aio_write *_write_iter *_sys_write \
             *_sys_pwrite64",
        "write",
    ),
    (
        "vfs_read vfs_readv vfs_iter_read do_iter_read ksys_read ksys_pread64 filemap_read \
             io_read aio_read *_read_iter *_sys_read *_sys_pread64 kernel_read __kernel_read",
        "read",
    ),
    ("do_sendfile do_splice* splice_direct_to_actor", "splice"),
    (
        "vfs_copy_file_range vfs_clone_file_range do_clone_file_range",
        "copy",
    ),
    (
        "do_sys_openat2 do_sys_open *_sys_open *_sys_openat io_openat*",
        "open",
    ),
    ("do_unlinkat filename_unlinkat vfs_unlink", "unlink"),
    ("do_rmdir filename_rmdir vfs_rmdir", "rmdir"),
    ("do_mkdirat filename_mkdirat vfs_mkdir", "mkdir"),
    ("do_renameat2 filename_renameat2 vfs_rename", "rename"),
    ("do_linkat filename_linkat vfs_link do_symlinkat", "link"),
    (
        "vfs_statx vfs_fstatat vfs_fstat vfs_getattr do_statx *_sys_newfstatat *_sys_statx \
             *_sys_newstat",
        "stat",
    ),
    ("do_faccessat", "access"),
    ("iterate_dir *_sys_getdents64 *_sys_getdents", "readdir"),
    (
        "do_truncate do_ftruncate vfs_truncate do_sys_ftruncate",
        "truncate",
    ),
    ("vfs_fallocate ksys_fallocate", "fallocate"),
    ("chmod_common chown_common vfs_utimes", "setattr"),
    (
        "vfs_getxattr vfs_setxattr vfs_listxattr vfs_removexattr",
        "xattr",
    ),
    ("freeze_super", "freeze"),
    ("thaw_super", "thaw"),
    ("path_umount cleanup_mnt deactivate_locked_super", "unmount"),
    ("path_mount do_mount vfs_get_tree", "mount"),
    ("vm_mmap_pgoff ksys_mmap_pgoff", "mmap"),
    ("__vm_munmap *_sys_munmap", "munmap"),
    ("do_mprotect_pkey", "mprotect"),
    ("do_madvise madvise_lock", "madvise"),
    ("*_sys_brk", "brk"),
    ("*_sys_mremap do_mremap", "mremap"),
    ("__fput filp_close", "close"),
    ("kernel_clone", "clone"),
    ("exit_mmap do_exit", "exit"),
    ("do_vfs_ioctl *_sys_ioctl", "ioctl"),
    (
        "process_vm_rw* m_start proc_pid_* proc_reg_read mem_rw",
        "peek",
    ),
];

/// Parts of many operations: for a stack that was cut off before it told which.
const STEPS: &[(&str, &str)] = &[("filename_lookup path_lookupat path_openat", "path lookup")];

/// The user process that a function waits for.
pub(super) fn supervisor(symbol: &str) -> Option<&'static str> {
    named(SUPERVISORS, symbol)
}

/// The innermost file system among the symbols of a stack.
pub(super) fn file_system(symbols: &[&str]) -> Option<&'static str> {
    // The server of SMB has functions of the same names as the client.
    let serves_smb = symbols.iter().any(|symbol| is_among(symbol, SMB_SERVER));
    let mut symbols = symbols.iter();
    symbols.find_map(|symbol| {
        let is_other = serves_smb && is_among(symbol, SMB2);
        named(FILE_SYSTEMS, symbol).filter(|_| !is_other)
    })
}

/// What the task was doing, from the symbols of its stack, innermost first.
pub(super) fn operation(symbols: &[&str]) -> Option<&'static str> {
    let first = |table| symbols.iter().find_map(|symbol| named(table, symbol));
    first(ERRANDS)
        .or_else(|| first(OPERATIONS))
        .or_else(|| first(STEPS))
}

fn named(table: &[(&str, &'static str)], symbol: &str) -> Option<&'static str> {
    table
        .iter()
        .find(|(functions, _)| is_among(symbol, functions))
        .map(|(_, name)| *name)
}
