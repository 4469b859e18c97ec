//! Harness of the live tests: runs tracer, provokes the real thing, reads the
//! kernel's own counters.
//!
//! Every snapshot that comes through here is held to what must always be true:
//! the parts add up to the kernel's averages, and nothing is lost unless a test
//! says so.

pub mod affinity;
pub mod bench;
pub mod blocking;
pub mod bpf;
pub mod cgroup;
pub mod check;
pub mod filesystem;
pub mod freezer;
pub mod hooks;
pub mod inotify;
pub mod kernel;
pub mod known;
pub mod lanes;
pub mod limits;
pub mod memory;
pub mod pace;
pub mod processes;
pub mod provoke;
pub mod schedstat;
pub mod snapshot;
pub mod sysctl;
pub mod tcp;
pub mod throughput;
pub mod time;
pub mod tracer;

/// Ends a test that cannot run here, said in the closing count.
#[macro_export]
macro_rules! skip {
    ($test:literal, $($reason:tt)*) => {{
        println!("SKIPPED {}: {}", $test, format_args!($($reason)*));
        return;
    }};
}

/// Asserts that a figure is what the kernel says, within a tolerance that is
/// said; prints both, so that a passing run shows its figures.
#[track_caller]
pub fn assert_near(what: &str, figure: f64, expected: f64, tolerance: f64) {
    println!("{what}: {figure:.4}, expected {expected:.4} +- {tolerance:.4}");
    assert!(
        (figure - expected).abs() <= tolerance,
        "{what}: {figure} is not {expected} +- {tolerance}"
    );
}
