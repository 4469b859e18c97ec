//! Disks and deleted files as `tracer check` sees them, beside df(1) and lsof(8), and with
//! trouble that is made on purpose.

use std::{
    fs::{self, File},
    io::Write as _,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use serde_json::Value;
use tests::{
    assert_near,
    check::Look,
    kernel,
    lanes::Test,
    provoke::Workload,
    skip, test,
    time::{host_or_guest, monotonic_ns},
    tracer::{command, output},
};

/// The file system that is the fullest of all.
const FULLEST: &str = "the fullest file system";
const NO_KERNEL: &str = "no kernel makes a difference to it";
pub(crate) const TESTS: &[Test] = &[
    test!(a_mount_that_does_not_answer_is_found_and_nothing_hangs),
    test!(a_mount_whose_server_is_gone_is_dead),
    test!(inodes_run_out_and_errors_are_kept),
    test!(space_and_inodes_are_those_of_df).host(NO_KERNEL),
    test!(a_full_file_system_is_found_with_who_fills_it).needs(&[FULLEST]),
    test!(the_largest_directory_is_found).needs(&[FULLEST]),
    test!(what_a_deleted_file_holds_is_found).host(NO_KERNEL),
    test!(what_a_disk_does_is_what_the_kernel_counts)
        .host("disks of guests are files of the host")
        .serial("others write to the disk too"),
];

const MIB: u64 = 1 << 20;
const BOTH: [&str; 4] = ["--only", "disks,deleted", "--sample", "1s"];

/// A directory of its own, with what is mounted on it; both go when it is dropped.
struct Place {
    path: PathBuf,
    is_mounted: bool,
}

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tracer-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory");
        Self {
            path,
            is_mounted: false,
        }
    }

    /// Mounts something there.
    fn mount(mut self, args: &[&str]) -> Result<Self, String> {
        run(Command::new("mount").args(args).arg(&self.path))?;
        self.is_mounted = true;
        Ok(self)
    }

    fn tmpfs(name: &str, options: &str) -> Self {
        let place = Self::new(name).mount(&["-t", "tmpfs", "-o", options, "tracer-test"]);
        place.expect("a tmpfs")
    }

    fn name(&self) -> &str {
        self.path.to_str().expect("UTF-8")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_mounted {
            let _ = Command::new("umount").arg("-l").arg(&self.path).status();
        }
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| error.to_string())?;
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr))
    }
}

/// The numbers of df(1) for a mount: total, used, left.
fn df(option: &str, mount: &str) -> Vec<f64> {
    let text = run(Command::new("df").args([option, mount])).expect("df");
    let line = text.lines().nth(1).expect("a line");
    let words = line.split_whitespace().skip(1).take(3);
    words.map(|word| word.parse().expect("a number")).collect()
}

/// Holds a mount's figures against df(1). Busybox's, which guests have, is another one.
fn assert_as_df(look: &Look, mount: &str, bytes: f64, inodes: f64) {
    if host_or_guest(false, true) {
        println!("df is busybox's: not compared");
        return;
    }
    let space = df("-B1", mount);
    for (at, name) in ["disk_total_bytes", "disk_used_bytes", "disk_left_bytes"]
        .into_iter()
        .enumerate()
    {
        let changed = if at == 0 { 0.0 } else { bytes };
        assert_near(name, look.figure("disks", name, mount), space[at], changed);
    }
    let used = space[1] / (space[1] + space[2]);
    let ratio = look.figure("disks", "disk_used_ratio", mount);
    assert_near("disk_used_ratio", ratio, used, bytes / space[0] + 1e-6);
    let counts = df("-i", mount);
    // btrfs and others have none.
    if counts[0] > 0.0 {
        for (at, name) in ["inodes_total", "inodes_used"].into_iter().enumerate() {
            let changed = if at == 0 { 0.0 } else { inodes };
            assert_near(name, look.figure("disks", name, mount), counts[at], changed);
        }
    }
}

/// Space and inodes are what df(1) says.
fn space_and_inodes_are_those_of_df() {
    let place = Place::tmpfs("df", "size=64m,nr_inodes=500");
    fs::write(place.path.join("file"), vec![1; 5 << 20]).expect("room");
    let look = Look::now(&BOTH);
    assert_as_df(&look, place.name(), 0.0, 0.0);
    let used = look.figure("disks", "disk_used_bytes", place.name());
    assert_near("5 MiB are used", used, 5.0 * MIB as f64, 0.0);
    // Others write to / meanwhile: builds, logs.
    assert_as_df(&look, "/", 256.0 * MIB as f64, 5000.0);
}

/// A tmpfs that is full, and the file that fills it.
fn a_full_file_system_is_found_with_who_fills_it() {
    let place = Place::tmpfs("full", "size=64m");
    fs::write(place.path.join("most"), vec![1; 60 << 20]).expect("room");
    let mut file = File::create(place.path.join("grows")).expect("a file");
    let look = thread::scope(|scope| {
        let looks = scope.spawn(|| Look::now(&BOTH));
        let mut left = 3 << 20;
        while !looks.is_finished() {
            // It grows all the while the look is under way, and leaves some room.
            let piece = [1; 4 << 10];
            if left > piece.len() {
                file.write_all(&piece).expect("room");
                left -= piece.len();
            }
            thread::sleep(Duration::from_millis(10));
        }
        looks.join().expect("a look")
    });
    let full = format!("{} is full to 9", place.name());
    let fd = format!("[{}] fd {} grows", std::process::id(), file.as_raw_fd());
    let grows = place.path.join("grows").display().to_string();
    assert_eq!(look.found("disks", &[&full, &fd, &grows]), "warning");
    // And to the last byte.
    fs::write(place.path.join("more"), vec![1; 4 << 20]).expect_err("no room");
    let full = format!("{} is full to 100.0 %", place.name());
    assert_eq!(Look::now(&BOTH).found("disks", &[&full]), "critical");
}

/// Makes a file system with 64 inodes, or with 128: busybox, which guests have, takes bytes
/// for each, and rounds up.
fn make_with_few_inodes(image: &Path) -> Result<String, String> {
    let on_host = ("mkfs.ext4", ["-q", "-F", "-N", "64"]);
    let in_guest = ("mke2fs", ["-F", "-b1024", "-i", "1048576"]);
    let (program, args) = host_or_guest(on_host, in_guest);
    run(Command::new(program).args(args).arg(image))
}

/// The device of a mount, without its folder.
fn device_of(mount: &str) -> String {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
    let of_it = |line: &&str| line.split_whitespace().nth(1) == Some(mount);
    let line = mounts.lines().find(of_it).expect("it is mounted");
    let device = line.split_whitespace().next().expect("a device");
    device.trim_start_matches("/dev/").to_owned()
}

/// An ext4 without inodes, and one that met an error; both on loop devices.
fn inodes_run_out_and_errors_are_kept() {
    let images = Place::new("images");
    let image = images.path.join("image");
    let file = File::create(&image).expect("an image");
    file.set_len(64 * MIB).expect("room");
    if let Err(error) = make_with_few_inodes(&image) {
        skip!("inodes_run_out_and_errors_are_kept", "no mke2fs: {error}");
    }
    let image = image.to_str().expect("UTF-8");
    let place = Place::new("inodes");
    let place = match place.mount(&["-t", "ext4", "-o", "loop,errors=remount-ro", image]) {
        Ok(place) => place,
        Err(e) => skip!("inodes_run_out_and_errors_are_kept", "no loop devices: {e}"),
    };
    let made = (0..1000).take_while(|i| File::create(place.path.join(i.to_string())).is_ok());
    assert!(made.count() < 128, "the inodes are used up");
    let look = Look::now(&BOTH);
    assert_as_df(&look, place.name(), 0.0, 0.0);
    let inodes = look.figure("disks", "inodes_total", place.name());
    assert_near("inodes", inodes, host_or_guest(64.0, 128.0), 0.0);
    let none = format!("{} has 0 of {inodes} inodes left", place.name());
    assert_eq!(look.found("disks", &[&none]), "critical");
    assert!(
        look.finding("disks", &[place.name(), "read-only"])
            .is_none()
    );

    let device = device_of(place.name());
    let trigger = format!("/sys/fs/ext4/{device}/trigger_fs_error");
    fs::write(trigger, "1").expect("an error can be made");
    let look = Look::now(&BOTH);
    let kept = format!("{} keeps 1 error in its superblock", place.name());
    assert_eq!(look.found("disks", &[&kept]), "warning");
    let write = || {
        let mut file = File::create(place.path.join("0"))?;
        file.write_all(b"x")?;
        file.sync_all()
    };
    let refused = write().expect_err("writes are refused");
    println!("a write: {refused}");
    let turned = format!("{} has been made read-only by the kernel", place.name());
    // Kernels before 6.15 may refuse writes and show it nowhere.
    if kernel::version() >= (6, 15) || look.finding("disks", &[&turned]).is_some() {
        assert_eq!(look.found("disks", &[&turned]), "critical");
    } else {
        look.found("disks", &[&kept, "errors=remount-ro", "writes fail"]);
    }
}

/// A deleted file of 200 MiB: who holds it, and what lsof(8) says of it.
fn what_a_deleted_file_holds_is_found() {
    let place = Place::tmpfs("deleted", "size=256m");
    let path = place.path.join("gone");
    let mut file = File::create(&path).expect("a file");
    file.write_all(&vec![1; 200 << 20]).expect("room");
    let still_there = Look::now(&BOTH);
    assert!(still_there.finding("deleted", &[place.name()]).is_none());
    fs::remove_file(&path).expect("it can be deleted");
    // Its memory is no file system's.
    let memfd = memfd(150 << 20);
    let look = Look::now(&BOTH);
    let (pid, fd) = (std::process::id(), file.as_raw_fd());
    let who = format!("[{pid}] fd {fd} holds 200.0 MiB: {}", path.display());
    assert_eq!(look.found("deleted", &[place.name(), &who]), "warning");
    assert!(look.finding("deleted", &["memfd"]).is_none());
    let of = place.name();
    let held = look.figure("deleted", "deleted_open_bytes", of);
    assert_near("held", held, 200.0 * MIB as f64, 0.0);
    assert_near(
        "files",
        look.figure("deleted", "deleted_open_files", of),
        1.0,
        0.0,
    );
    if let Some(size) = lsof(pid, fd, &path) {
        assert_near("as lsof", held, size, 0.0);
    }
    let next = look.finding("deleted", &[&who]).expect("found")["next"].clone();
    let next = next.as_str().expect("a command");
    let frees = format!(": > /proc/{pid}/fd/{fd}");
    assert!(next.contains(&frees), "{next}");
    // What it says frees the space while the file is still open.
    run(Command::new("sh").args(["-c", &frees])).expect("it is freed");
    let after = Look::now(&BOTH);
    assert_near(
        "held",
        after.figure("deleted", "deleted_open_bytes", of),
        0.0,
        0.0,
    );
    drop((file, memfd));
}

fn memfd(bytes: u64) -> File {
    use std::os::fd::FromRawFd as _;
    // SAFETY: the name ends with a zero; the descriptor is new and nobody else's.
    let file = unsafe { File::from_raw_fd(libc::memfd_create(c"tracer-test".as_ptr(), 0)) };
    (&file).write_all(&vec![1; bytes as usize]).expect("memory");
    file
}

/// The size that lsof(8) has for a deleted file, where it is installed.
fn lsof(pid: u32, fd: i32, path: &Path) -> Option<f64> {
    let pid = pid.to_string();
    let text = run(Command::new("lsof").args(["-nP", "+L1", "-a", "-p", &pid])).ok()?;
    println!("{text}");
    let line = text
        .lines()
        .find(|line| line.contains(path.to_str().expect("UTF-8")));
    let words: Vec<&str> = line.expect("lsof has it").split_whitespace().collect();
    assert_eq!(
        words[3].trim_end_matches(char::is_alphabetic),
        fd.to_string()
    );
    words[6].parse().ok()
}

/// A FUSE mount whose server has read the question and says nothing. Tracer looks from
/// inside the mount namespace of the server, and must end.
fn a_mount_that_does_not_answer_is_found_and_nothing_hangs() {
    const NAME: &str = "a_mount_that_does_not_answer_is_found_and_nothing_hangs";
    let mut server = match Workload::try_ready(&["fuse-statfs"]) {
        Ok(server) => server,
        Err(e) => skip!(
            "a_mount_that_does_not_answer_is_found_and_nothing_hangs",
            "no FUSE: {e}"
        ),
    };
    server.go();
    let tracer = command().get_program().to_owned();
    // From outside it is a mount of another namespace: a busy machine lets both wait.
    let usual = thread::spawn(|| {
        let began_ns = monotonic_ns();
        Look::now(&BOTH);
        Duration::from_nanos(monotonic_ns() - began_ns)
    });
    let began_ns = monotonic_ns();
    let (status, stdout, stderr) = output(
        Command::new("nsenter")
            .args(["-m", "-t", &server.pid().to_string(), "--"])
            .arg(tracer)
            .args(["check", "--format", "json"])
            .args(BOTH),
    );
    let took = Duration::from_nanos(monotonic_ns() - began_ns);
    assert!(status.success(), "{status}: {stderr}");
    let json: Value = serde_json::from_str(&stdout).expect("one JSON object");
    let look = Look(json);
    let words = ["FUSE mount /mnt does not answer"];
    assert_eq!(look.found("disks", &words), "critical");
    // The others are seen all the same.
    assert!(look.figure("disks", "disk_total_bytes", "/") > 0.0);
    // 1 s of patience, and the rest for chance.
    let usual = usual.join().expect("a look");
    println!("{NAME}: {took:?}, usually {usual:?}");
    assert!(took < usual + Duration::from_secs(5), "{took:?}");
    assert_eq!(server.line(), "done", "it was asked");
}

/// A FUSE mount whose server was killed: a shell stays in its mount namespace.
fn a_mount_whose_server_is_gone_is_dead() {
    let server = match Workload::try_ready(&["fuse-statfs"]) {
        Ok(server) => server,
        Err(e) => skip!("a_mount_whose_server_is_gone_is_dead", "no FUSE: {e}"),
    };
    let pid = server.pid().to_string();
    // Its end is asynchronous: the device is closed when statfs fails.
    let script = "kill -9 $1; until ! stat -f /mnt >/dev/null 2>&1; do sleep 0.1; done; \
        exec \"$2\" check --format json --only disks --sample 100ms";
    let tracer = command().get_program().to_owned();
    let (status, stdout, stderr) = output(
        Command::new("nsenter")
            .args(["-m", "-t", &pid, "--", "sh", "-c", script, "sh", &pid])
            .arg(tracer),
    );
    assert!(status.success(), "{status}: {stderr}");
    let look = Look(serde_json::from_str(&stdout).expect("one JSON object"));
    assert_eq!(look.found("disks", &["FUSE mount /mnt is dead"]), "warning");
}

/// Rates of a disk are those of its own counters, while it is written to all the time.
fn what_a_disk_does_is_what_the_kernel_counts() {
    // Not on /tmp, which can be memory.
    let path = PathBuf::from(format!("/var/tmp/tracer-rates-{}", std::process::id()));
    let _removed = Removed(path.clone());
    let file = File::create(&path).expect("a file");
    let is_over = AtomicBool::new(false);
    let (look, before, after, seconds) = thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Relaxed) {
                let _ = (&file).write_all(&[1; 64 << 10]);
                let _ = file.sync_data();
                let _ = file.set_len(0);
            }
        });
        let (before, began_ns) = (writes(), monotonic_ns());
        let look = Look::now(&["--only", "disks", "--sample", "2s"]);
        let seconds = (monotonic_ns() - began_ns) as f64 / 1e9;
        let after = writes();
        is_over.store(true, Relaxed);
        (look, before, after, seconds)
    });
    let of = |(name, after): &(String, f64)| {
        let before = before.iter().find(|(other, _)| other == name);
        (
            name.clone(),
            (after - before.map_or(0.0, |b| b.1)) / seconds,
        )
    };
    let rates = after.iter().map(of);
    let Some((name, per_s)) = rates.max_by(|(_, a), (_, b)| a.total_cmp(b)) else {
        skip!("what_a_disk_does_is_what_the_kernel_counts", "no disk");
    };
    if per_s < 10.0 {
        skip!(
            "what_a_disk_does_is_what_the_kernel_counts",
            "/var/tmp is on no disk"
        );
    }
    let figure = look.figure("disks", "device_writes_per_s", &name);
    // The test's counters are read before the program starts and after it ended, and a
    // disk is not equally fast all the time.
    assert_near("writes a second", figure, per_s, per_s * 0.5);
    let busy = look.figure("disks", "device_busy_ratio", &name);
    assert!(busy > 0.05 && busy <= 1.0, "{busy}");
    let wait = look.figure("disks", "device_wait_ms", &name);
    println!("{name}: busy {busy}, {wait} ms a request");
}

struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Writes since boot of each disk that is no part of another (/sys/block/NAME/stat).
fn writes() -> Vec<(String, f64)> {
    let disks = fs::read_dir("/sys/block").expect("sysfs").flatten();
    let one = |disk: fs::DirEntry| {
        let name = disk.file_name().into_string().ok()?;
        let is_made_of_others = fs::read_dir(disk.path().join("slaves"))
            .is_ok_and(|mut others| others.next().is_some());
        if is_made_of_others || ["loop", "zram", "ram"].iter().any(|w| name.starts_with(w)) {
            return None;
        }
        let stat = fs::read_to_string(disk.path().join("stat")).ok()?;
        let writes = stat.split_whitespace().nth(4)?.parse().ok()?;
        Some((name, writes))
    };
    disks.filter_map(one).collect()
}

/// The largest directory of the fullest file system is looked for when it is asked for.
fn the_largest_directory_is_found() {
    let place = Place::tmpfs("du", "size=64m");
    for (name, mib) in [("small/a", 2), ("large/deep/b", 50), ("large/c", 1)] {
        let path = place.path.join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(path, vec![1; mib << 20]).expect("room");
    }
    // Fuller than any other: all but what the directories take.
    fs::write(place.path.join("rest"), vec![1; 11 << 20]).expect("room");
    let look = Look::now(&["--only", "disks", "--sample", "100ms", "--du"]);
    let deep = format!("50.0 MiB in {}/large/deep", place.name());
    let small = format!("2.0 MiB in {}/small", place.name());
    assert_eq!(
        look.found("disks", &["is full to 100.0 %", &deep, &small]),
        "critical"
    );
}
