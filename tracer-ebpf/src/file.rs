//! The file that a blocked system call is at.
//!
//! Most system calls that block have a file descriptor for their first argument.
//! User space knows which; here the file is looked up in any case.

use aya_ebpf::helpers::generated::bpf_task_pt_regs;
use tracer_common::{
    block::{NO_SYSCALL, WaitsFor},
    task::PF_KTHREAD,
};

use crate::field::{
    FILE_INODE, FILES_TABLE, INODE_MODE, INODE_RDEV, INODE_SUPER, Object, REGS_FIRST, REGS_SYSCALL,
    SUPER_DEV, TABLE_FILES, TABLE_MOST, TASK_FILES, TASK_FLAGS, field, has, read,
};

/// `S_IFMT` and `S_IFBLK`, include/uapi/linux/stat.h.
const KIND_OF_FILE: u16 = 0o170_000;
const BLOCK_DEVICE: u16 = 0o060_000;

/// The system call that a task is in, and its first argument.
#[inline(always)]
pub(crate) fn system_call(task: Object) -> Option<(u32, u64)> {
    if !has(&REGS_SYSCALL) {
        return None;
    }
    // SAFETY: the task is a task_struct; the helper answers with its pt_regs.
    unsafe {
        let regs = bpf_task_pt_regs(task.cast_mut().cast()) as Object;
        if regs.is_null() {
            return None;
        }
        let number: u64 = field(regs, &REGS_SYSCALL);
        // An exception or an interrupt has -1 there; arm64's is an int.
        if number as i32 == -1 {
            return None;
        }
        Some((number as u32, field(regs, &REGS_FIRST)))
    }
}

/// Notes the system call and the file it is at.
#[inline(always)]
pub(crate) fn note_file(task: Object, waits: &mut WaitsFor) {
    waits.syscall = NO_SYSCALL;
    waits.file_system = 0;
    waits.file_device = 0;
    // SAFETY: the caller's task is a task_struct.
    let flags: u32 = unsafe { field(task, &TASK_FLAGS) };
    if flags & PF_KTHREAD != 0 {
        return;
    }
    let Some((syscall, first)) = system_call(task) else {
        return;
    };
    waits.syscall = syscall;
    let Some(file) = file_of(task, first) else {
        return;
    };
    let inode: u64 = read(file + u64::from(FILE_INODE.load()));
    let super_block: u64 = read(inode + u64::from(INODE_SUPER.load()));
    waits.file_system = read(super_block + u64::from(SUPER_DEV.load()));
    let mode: u16 = read(inode + u64::from(INODE_MODE.load()));
    if mode & KIND_OF_FILE == BLOCK_DEVICE {
        waits.file_device = read(inode + u64::from(INODE_RDEV.load()));
    }
}

/// The address of the file behind a descriptor of a task.
#[inline(always)]
pub(crate) fn file_of(task: Object, descriptor: u64) -> Option<u64> {
    // SAFETY: the caller's task is a task_struct; a NULL on the way reads as 0.
    let (most, files): (u32, u64) = unsafe {
        let files: Object = field(task, &TASK_FILES);
        let table: Object = field(files, &FILES_TABLE);
        (field(table, &TABLE_MOST), field(table, &TABLE_FILES))
    };
    if descriptor >= u64::from(most) {
        return None;
    }
    let file: u64 = read(files + descriptor * size_of::<u64>() as u64);
    (file != 0).then_some(file)
}
