//! Workloads with a known outcome, each in a process of its own.
//!
//! Says `ready` when it is set up, begins at the first line of its standard
//! input, says `done` at its end and lives on until its input is closed, so that
//! nothing of its beginning or end falls into what is measured.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    sync::{
        Arc, Barrier,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use tests::{
    affinity,
    blocking::{self, Blocked, block, block_and_measure},
    inotify,
    memory::workloads as memory,
    pace::{paced, say, say_numbers},
    schedstat, tcp, throughput,
    time::{clock_ns, monotonic_ns, wall_ns},
};

const NS_PER_MS: u64 = 1_000_000;
const CHILD_STACK: usize = 64 << 10;
/// CPU time that shows in an interval, be it one of 2 s.
const LAST_MS: u64 = 20;
/// A page, and a block of a disk.
const BLOCK: usize = 4096;

fn main() {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == "first-thread-ends") {
        args.remove(0);
        thread::spawn(move || {
            work(&args);
            std::process::exit(0);
        });
        // SAFETY: ends this thread alone; the other has all that it needs.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
    } else {
        work(&args);
    }
}

/// Does what the words say.
fn work(args: &[String]) {
    let word = |i: usize| args.get(i).map_or("", String::as_str);
    let number = |i: usize| {
        word(i)
            .parse::<u64>()
            .unwrap_or_else(|_| panic!("argument {i}"))
    };
    match word(0) {
        "vfork" => paced(|| blocked_once(number(1))),
        "burst" => paced(|| burst(number(2), number(3), || block(number(1)))),
        "burst-measured" => {
            if !word(4).is_empty() {
                name(word(4).as_bytes());
            }
            affinity::stay();
            let mut sum = Blocked::default();
            paced(|| {
                let one = || block_and_measure(number(1), &mut sum);
                burst(number(2), number(3), one);
                say_numbers([sum.slept, sum.waited_ns].into_iter().chain(sum.lengths_ns));
            });
        }
        "hog" => {
            // While it sleeps: what it waits for a CPU is held against the kernel's figure.
            // Its priority, too: to change that of one that sleeps is to queue it again.
            if word(3) == "nicely" {
                // SAFETY: touches no memory.
                unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) };
            }
            let stay = affinity::Stay::here();
            paced(|| {
                drop(stay);
                hog(number(1), number(2));
            });
        }
        "naps" => paced(|| naps(number(1), number(2), number(3), number(4))),
        "storm" => {
            let of_name = if word(4).is_empty() { "storm" } else { word(4) };
            paced(|| storm(number(1), number(2), number(3), of_name));
        }
        "name" => {
            name(&bytes_of_hex(word(1)));
            paced(|| blocked_once(number(2)));
        }
        "spend" => {
            name(word(1).as_bytes());
            paced(|| spin_cpu(number(2)));
        }
        "sleepers" => {
            let _threads: Vec<_> = (0..number(1)).map(|_| sleeper()).collect();
            paced(|| {});
        }
        "nothing" => {}
        "read" => {
            // What it waits for a CPU is taken off by who looks at it.
            affinity::stay();
            let disk = direct(word(1));
            paced(|| read_blocks(&disk, number(2)));
        }
        "deleted" => {
            let file = File::create(word(1)).expect("a file");
            std::fs::remove_file(word(1)).expect("it can be deleted");
            file.write_all_at(&vec![1; number(2) as usize * BLOCK], 0)
                .expect("room");
            paced(|| {});
        }
        "write" => {
            let file = File::create(word(1)).expect("a file to write");
            paced(|| write_once(file));
        }
        "eat" => paced(|| memory::eat(number(1))),
        "eat-threads" => memory::of_threads(number(1)),
        "eat-and-write" => memory::and_write(number(1), word(2)),
        "eat-of-node" => memory::of_node(number(1), number(2) as u32),
        "eat-shared" => memory::shared(number(1)),
        "inotify-all" => inotify::use_up(number(1) as u32, word(2)),
        "crowd" => {
            (0..number(1)).for_each(|_| sleeping_process());
            paced(|| {});
        }
        "runnable" => {
            let _threads: Vec<_> = (0..number(1)).map(|_| sleeper()).collect();
            paced(|| spin_nicely(number(2)));
        }
        "fuse-read" => blocking::read(number(1)),
        "fuse-statfs" => blocking::statfs(),
        "fuse-mutex" => blocking::mutex(number(1)),
        "fuse-rwsem" => blocking::rwsem(number(1)),
        "chain" => blocking::chain(number(1)),
        "deep-chain" => blocking::deep_chain(number(1)),
        "userfault" => blocking::userfault(number(1)),
        "mmap-lock" => blocking::mmap_lock(number(1), number(2)),
        "frozen" => blocking::frozen(word(1), number(2)),
        "reclaim" => blocking::reclaim(number(1), number(2), word(3)),
        "vfork-storm" => blocking::storm(number(1), number(2)),
        "core-dump" => blocking::core_dump(number(1)),
        "core-to" => blocking::core_to(word(1), number(2)),
        "swap" => blocking::swap(number(1), number(2)),
        "swap-area" => blocking::swap_area(number(1), word(2)),
        "disk" => blocking::disk(number(1)),
        "filesystem" => blocking::filesystem(number(1), word(2)),
        "tcp-connections" => {
            tcp::connections::on_loopback(word(1), word(2), number(3), number(4));
        }
        "tcp-namespaces" => {
            tcp::connections::between_namespaces(word(1), word(2), number(3), number(4));
        }
        "tcp-leak" => tcp::leak::leak(word(1), number(2), number(3), number(4)),
        "tcp-unclosed" => tcp::leak::unclosed(number(1)),
        "tcp-hostile" => tcp::hostile::hostile(word(1), number(2), number(3)),
        "tcp-slow" => tcp::servers::slow(number(1), number(2), number(3)),
        "tcp-busy" => tcp::servers::busy(number(1), number(2)),
        "tcp-closers" => tcp::closers::closers(word(1), number(2)),
        "tcp-listen" => tcp::listener::listen(word(1), number(2), word(3)),
        "tcp-idle" => tcp::idle::idle(number(1)),
        "tcp-reused" => tcp::reused::reused(),
        "tcp-exec" => tcp::reused::exec(),
        "tcp-connect" => tcp::reused::connect_only(word(1), number(2) as u16, number(3)),
        "tcp-ports" => tcp::reused::ports(number(1)),
        "tcp-listeners" => tcp::reused::listeners(number(1)),
        "tcp-service" => tcp::reused::service(word(1)),
        "round-trips" => counted(throughput::round_trips, number(1)),
        "processes" => counted(throughput::processes, number(1)),
        "signals" => counted(throughput::signals, number(1)),
        "connections" => counted(throughput::connections, number(1)),
        "writes" => counted(throughput::writes, number(1)),
        mode => panic!("no workload {mode}"),
    }
}

/// Works for `ms`, and says how much was done, and in how many ns of CPU time,
/// before `done`.
fn counted(work: fn(u64) -> io::Result<u64>, ms: u64) {
    paced(|| {
        let from_ns = cpu_ns_with_children();
        let count = work(ms).unwrap_or_else(|error| panic!("{error}"));
        say(&format!("{count} {}", cpu_ns_with_children() - from_ns));
    });
}

/// CPU time of this process and of its children that have ended.
fn cpu_ns_with_children() -> u64 {
    // SAFETY: all zeroes are a valid rusage, which the kernel fills in.
    let children = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage);
        usage
    };
    let us = |time: libc::timeval| time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64;
    let children_us = us(children.ru_utime) + us(children.ru_stime);
    clock_ns(libc::CLOCK_PROCESS_CPUTIME_ID) + children_us * 1000
}

/// Says when, then blocks for so many ms.
fn blocked_once(ms: u64) {
    say(&wall_ns().to_string());
    block(ms);
}

/// Blocks `count` times, a time every `every_ms`. One that measures says, before `done`,
/// how often it slept, for how many ns it waited for a CPU meanwhile, and for how many it
/// was blocked each time.
fn burst(every_ms: u64, count: u64, mut block: impl FnMut()) {
    let begin = monotonic_ns();
    for i in 0..count {
        block();
        if i + 1 == count {
            // An interval in which a process did next to nothing has no row for it,
            // and nobody would be told of a last end that is all there is of it.
            spin_cpu(LAST_MS);
        }
        let next = begin + (i + 1) * every_ms * NS_PER_MS;
        thread::sleep(Duration::from_nanos(next.saturating_sub(monotonic_ns())));
    }
}

/// A file whose reads go to the disk.
fn direct(path: &str) -> File {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_DIRECT);
    options.open(path).expect("a disk to read")
}

/// Reads `count` blocks, and says how many ns that took.
fn read_blocks(disk: &File, count: u64) {
    // O_DIRECT wants memory and offset on a block's boundary.
    let mut memory = vec![0_u8; 2 * BLOCK];
    let skip = memory.as_ptr().align_offset(BLOCK);
    let block = memory.get_mut(skip..skip + BLOCK).expect("two blocks");
    let begin = monotonic_ns();
    for i in 0..count {
        disk.read_exact_at(block, i * BLOCK as u64)
            .expect("a block");
    }
    say(&(monotonic_ns() - begin).to_string());
}

/// Says when, then writes a byte, and says how many ns that took.
fn write_once(mut file: File) {
    say(&wall_ns().to_string());
    let begin = monotonic_ns();
    file.write_all(b"x").expect("a byte");
    say(&(monotonic_ns() - begin).to_string());
}

/// Spins in `threads` threads for `ms`.
fn hog(threads: u64, ms: u64) {
    let end = monotonic_ns() + ms * NS_PER_MS;
    let spin = move || while monotonic_ns() < end {};
    let all: Vec<_> = (1..threads).map(|_| thread::spawn(spin)).collect();
    spin();
    all.into_iter().for_each(|thread| drop(thread.join()));
}

/// Threads that run for `run_ms` and sleep for `nap_ms`, again and again for `ms`:
/// says how many ns they neither ran nor had asked to sleep. They live on, so that
/// the kernel's own figures of them can be read.
fn naps(threads: u64, run_ms: u64, nap_ms: u64, ms: u64) {
    let waited = Arc::new(AtomicU64::new(0));
    let all_are_over = Arc::new(Barrier::new(threads as usize + 1));
    for _ in 0..threads {
        let (waited, all_are_over) = (Arc::clone(&waited), Arc::clone(&all_are_over));
        thread::spawn(move || {
            // What it waited for until here, before its first sleep.
            let first_ns = schedstat::of_thread().1;
            let begin = monotonic_ns();
            let cpu_ns = || clock_ns(libc::CLOCK_THREAD_CPUTIME_ID);
            let cpu_before = cpu_ns();
            let mut asked_ns = 0;
            while monotonic_ns() < begin + ms * NS_PER_MS {
                let until = cpu_ns() + run_ms * NS_PER_MS;
                while cpu_ns() < until {}
                thread::sleep(Duration::from_millis(nap_ms));
                asked_ns += nap_ms * NS_PER_MS;
            }
            let spent_ns = cpu_ns() - cpu_before + asked_ns;
            let wait_ns = (monotonic_ns() - begin).saturating_sub(spent_ns);
            waited.fetch_add(first_ns + wait_ns, Ordering::Relaxed);
            all_are_over.wait();
            loop {
                thread::park();
            }
        });
    }
    all_are_over.wait();
    say(&waited.load(Ordering::Relaxed).to_string());
}

/// Forks `rate` processes of a name a second for `ms`, each spends `cpu_ms` of CPU.
fn storm(rate: u64, cpu_ms: u64, ms: u64, of_name: &str) {
    name(of_name.as_bytes());
    // SAFETY: children are reaped by the kernel; no handler runs.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    let begin = monotonic_ns();
    for i in 0..rate * ms / 1000 {
        // SAFETY: the child only spins and exits; there is one thread.
        if unsafe { libc::fork() } == 0 {
            spin_cpu(cpu_ms);
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(0) };
        }
        let next = begin + (i + 1) * 1000 * NS_PER_MS / rate;
        thread::sleep(Duration::from_nanos(next.saturating_sub(monotonic_ns())));
    }
}

/// Spends so many ms of this process's CPU time.
fn spin_cpu(ms: u64) {
    let now = || clock_ns(libc::CLOCK_PROCESS_CPUTIME_ID);
    let end = now() + ms * NS_PER_MS;
    while now() < end {}
}

fn name(bytes: &[u8]) {
    let mut comm = [0_u8; 16];
    comm.iter_mut()
        .zip(bytes.iter().take(15))
        .for_each(|(to, from)| *to = *from);
    // SAFETY: the name is ended by a zero.
    unsafe { libc::prctl(libc::PR_SET_NAME, comm.as_ptr()) };
}

fn bytes_of_hex(text: &str) -> Vec<u8> {
    let pair = |i: usize| {
        text.get(i..i + 2)
            .and_then(|pair| u8::from_str_radix(pair, 16).ok())
    };
    (0..text.len()).step_by(2).filter_map(pair).collect()
}

fn sleeper() -> thread::JoinHandle<()> {
    let sleeper = thread::Builder::new().stack_size(CHILD_STACK);
    let sleep = || thread::sleep(Duration::from_secs(3600));
    sleeper.spawn(sleep).expect("a thread")
}

/// A process that sleeps until its parent dies.
fn sleeping_process() {
    let parent = std::process::id();
    // SAFETY: there is one thread, and the child only sleeps. It asks for its
    // death before it looks whether the parent is there, so it misses no end.
    unsafe {
        match libc::fork() {
            -1 => panic!("fork: {}", io::Error::last_os_error()),
            0 => {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                while libc::getppid() as u32 == parent {
                    libc::pause();
                }
                libc::_exit(0)
            }
            _ => {}
        }
    }
}

/// Spins in `threads` threads at nice 19 until the process is killed, so that
/// who measures still gets a CPU.
fn spin_nicely(threads: u64) {
    for _ in 0..threads {
        let spin = || {
            // SAFETY: no memory is touched; on Linux this is the thread's own.
            unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) };
            loop {
                std::hint::spin_loop();
            }
        };
        let spinner = thread::Builder::new().stack_size(CHILD_STACK);
        drop(spinner.spawn(spin).expect("a thread"));
    }
}
