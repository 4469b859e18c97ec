//! One guest: QEMU without KVM, from its start to its exit status.
//!
//! The guest leaves through the device isa-debug-exit, which ends QEMU with
//! `(value << 1) | 1`; the guest adds 32 to its status. So a pass is 65: a
//! panic ends QEMU with 0 and an error of QEMU's with 1, and neither can be
//! taken for one. Console and results come over a serial line each.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::vm::emulator::Emulator;
use crate::vm::turns::{self, Turns, lock};
use crate::{clock, process};

/// The initramfs in a guest's folder.
pub(super) const INITRD: &str = "initrd";
/// What `leave` (tests/src/bin/leave.rs) adds to a status.
const LEAVE_BASE: i32 = 32;

/// Memory of the two nodes. The first has all CPUs; the second is soon used up.
/// Tests run side by side in the first one.
const NODES_MIB: [u32; 2] = [1024, 128];
const CPUS: u32 = 2;
/// Either disk: large enough to swap to, small enough to make at once.
const DISK_BYTES: u64 = 160 << 20;
/// What the kernel is told. `tsc=reliable`: with an emulated CPU it would not trust that the
/// counters of two agree, and read the HPET instead: an exit to QEMU, under its one lock,
/// for each look at a clock.
const COMMAND_LINE: &str = "console=ttyS0 panic=-1 oops=panic quiet mitigations=off \
                            delayacct numa_balancing=disable tsc=reliable";
/// Reads and writes a second of the throttled disk.
const DISK_IOPS: u32 = 4;
/// A guest that says nothing for so long hangs. What a test wrote comes when it ends: it
/// has `limit_s` of `live` for it, and is killed then; and the guest had to boot first.
const SILENCE_S: u64 = 360;
/// Whatever it says: twice what all tests take on a slow machine, one by one.
pub(super) const LIMIT_S: u64 = 3600;

/// How a guest ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Its job ended, with this status.
    Left(i32),
    /// It was killed: it ran, or was silent, for more than so many seconds; or QEMU fell.
    TimedOut(u64),
    /// Neither: a panic, a reset, or QEMU failed.
    Died(ExitStatus),
}

/// What a guest runs from, and where it leaves what it says.
pub(super) struct Guest<'a> {
    pub(super) emulator: &'a Emulator,
    pub(super) vmlinuz: &'a Path,
    /// Has the initramfs, and gets the console's log, QEMU's own messages and the disks.
    pub(super) folder: &'a Path,
    /// The socket where QEMU takes commands.
    pub(super) monitor: &'a Path,
    /// It is killed after so many seconds.
    pub(super) limit_s: u64,
}

impl Guest<'_> {
    /// Boots the kernel, and hands over what the job says by line.
    pub(super) fn run(&self, turns: &Turns, mut line: impl FnMut(&str)) -> Result<End> {
        let mut qemu = self.command()?;
        let heard = Mutex::new(clock::now());
        thread::scope(|scope| {
            let (over, is_over) = mpsc::channel::<()>();
            let watch = scope.spawn(|| self.quit_if_silent(&heard, is_over, turns));
            let status = process::stream(&mut qemu, |said| {
                *lock(&heard) = clock::now();
                line(said)
            });
            drop(over);
            let was_silent = watch.join().unwrap_or(false);
            let status = status?;
            Ok(match was_silent {
                true => End::TimedOut(SILENCE_S),
                false => end(status, self.limit_s),
            })
        })
    }

    /// Ends a guest that says nothing for too long; whether it did. One that is stopped
    /// cannot say anything.
    fn quit_if_silent(&self, heard: &Mutex<Instant>, is_over: Receiver<()>, turns: &Turns) -> bool {
        while is_over.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout) {
            if turns.is_stopped(self.monitor) {
                *lock(heard) = clock::now();
            }
            if lock(heard).elapsed().as_secs() > SILENCE_S {
                // It hangs up instead of answering; one that does neither comes to its limit.
                let _ = turns::say(self.monitor, "quit");
                return true;
            }
        }
        false
    }

    fn command(&self) -> Result<Command> {
        let folder = self.folder;
        let disk = |name: &str| -> Result<String> {
            let path = folder.join(name);
            // Sparse: the file takes no room until it is written to.
            File::create(&path)?.set_len(DISK_BYTES)?;
            Ok(format!("file={},format=raw,if=virtio", path.display()))
        };
        // QEMU opens it late: what stands there must not be of the guest before.
        File::create(folder.join("console"))?;
        // `timeout` kills QEMU even when xtask itself was killed; in the foreground,
        // Ctrl-C gets to QEMU too.
        let mut qemu = Command::new("timeout");
        qemu.args(["--foreground", "--kill-after=5", &self.limit_s.to_string()])
            .args(self.emulator.words())
            .args(["-nodefaults", "-no-user-config", "-no-reboot"])
            .args(["-display", "none", "-M", "pc,accel=tcg"])
            // An old one: what later ones have (five levels of page tables, wide vectors, keys
            // of pages) costs an emulator a sixth of its time, and no test needs it.
            .args(["-cpu", "Nehalem"])
            .args(memory())
            .args(["-smp", &CPUS.to_string()])
            .arg("-kernel")
            .arg(self.vmlinuz)
            .arg("-initrd")
            .arg(folder.join(INITRD))
            .arg("-serial")
            .arg(format!("file:{}", folder.join("console").display()))
            .args(["-serial", "stdio"])
            .arg("-monitor")
            .arg(format!(
                "unix:{},server=on,wait=off",
                self.monitor.display()
            ))
            .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"])
            .args([
                "-drive",
                &format!("{},throttling.iops-total={DISK_IOPS}", disk("slow")?),
            ])
            .args(["-drive", &disk("plain")?])
            .args(["-append", COMMAND_LINE])
            .stderr(File::create(folder.join("qemu"))?);
        Ok(qemu)
    }
}

/// Two nodes: the memory of one can run out while the host has some left.
fn memory() -> Vec<String> {
    let mib: u32 = NODES_MIB.iter().sum();
    let mut options = vec!["-m".to_owned(), mib.to_string()];
    let all_cpus = format!(",cpus=0-{}", CPUS - 1);
    for (node, mib) in NODES_MIB.iter().enumerate() {
        let cpus = if node == 0 { all_cpus.as_str() } else { "" };
        options.push("-object".to_owned());
        options.push(format!("memory-backend-ram,id=memory{node},size={mib}M"));
        options.push("-numa".to_owned());
        options.push(format!("node,nodeid={node},memdev=memory{node}{cpus}"));
    }
    options
}

/// What the status of `timeout qemu` means.
fn end(status: ExitStatus, limit_s: u64) -> End {
    match status.code() {
        Some(124 | 137) | None => End::TimedOut(limit_s),
        Some(code) if code & 1 == 1 && code >> 1 >= LEAVE_BASE => {
            End::Left((code >> 1) - LEAVE_BASE)
        }
        Some(_) => End::Died(status),
    }
}

/// Whether a guest died of QEMU, and not of its kernel.
///
/// To patch its code, the kernel puts a breakpoint there, waits until every CPU
/// has seen it, writes the new code, and waits again. An old QEMU was seen to run the
/// breakpoint after that, from a translation that was made meanwhile (see `emulator`).
pub(super) fn ran_stale_code(end: &End, folder: &Path) -> Result<bool> {
    let console = fs::read(folder.join("console"))?;
    let panicked = matches!(end, End::Died(_));
    Ok(panicked && String::from_utf8_lossy(&console).contains("Oops: int3:"))
}

/// The last lines of the console and of QEMU's messages.
pub(super) fn last_words(folder: &Path, lines: usize) -> Result<String> {
    let mut words = String::new();
    for name in ["console", "qemu"] {
        let bytes = fs::read(folder.join(name)).with_context(|| format!("no log {name}"))?;
        let text = String::from_utf8_lossy(&bytes);
        let all: Vec<&str> = text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .collect();
        for line in &all[all.len().saturating_sub(lines)..] {
            let shown: String = line.chars().filter(|c| !c.is_control()).collect();
            words += &format!("{name}: {shown}\n");
        }
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn only_the_guest_itself_can_say_that_it_passed() {
        let ended = |code: i32| end(ExitStatus::from_raw(code << 8), LIMIT_S);
        assert_eq!(ended(65), End::Left(0));
        assert_eq!(ended(67), End::Left(1));
        assert!(matches!(ended(0), End::Died(_)), "a panic");
        assert!(matches!(ended(1), End::Died(_)), "an error of QEMU's");
        assert_eq!(ended(124), End::TimedOut(LIMIT_S));
        assert_eq!(ended(137), End::TimedOut(LIMIT_S));
    }
}
