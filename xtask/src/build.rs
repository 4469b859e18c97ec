//! `build`: the kernel side, then tracer with the kernel side inside.
//!
//! The kernel side has a profile of its own: the verifier refuses what an
//! unoptimised build looks like, and its BTF is made from debug information.
//! tracer embeds the object that the variable TRACER_BPF_OBJECT names, and is
//! linked statically, so that one file runs on any Linux of the same architecture.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;

use crate::setup::{self, DEBIAN_RUSTC, Missing, Route, Toolchain};
use crate::{process, workspace};

const BPF_TARGET: &str = "bpfel-unknown-none";
/// What the live tests' program is called, and the profile that it is built with.
const LIVE: &str = "live";
/// Cargo's separator in CARGO_ENCODED_RUSTFLAGS, where a flag may hold spaces.
const FLAG_SEPARATOR: &str = "\x1f";

/// Options of `cargo xtask build`.
#[derive(Args)]
pub(crate) struct Options {
    /// Optimise tracer itself too; the kernel side always is
    #[arg(long)]
    release: bool,
}

/// Runs the task, setting the machine up first.
pub(crate) fn task(options: &Options) -> Result<()> {
    let toolchain = setup::toolchain(Missing::Install)?;
    tracer(&toolchain, options.release).map(|_| ())
}

/// Builds both sides and returns the path of the finished program.
pub(crate) fn tracer(toolchain: &Toolchain, release: bool) -> Result<PathBuf> {
    let object = kernel_side(toolchain)?;
    let built = user_side(&object, release)?;
    let finished = workspace::tracer_binary(profile(release));
    put(&built, &finished).with_context(|| format!("cannot write {}", finished.display()))?;
    let bytes = fs::metadata(&finished)?.len();
    eprintln!(
        "built {} ({:.1} MiB, static)",
        finished.display(),
        bytes as f64 / 1_048_576.0
    );
    Ok(finished)
}

/// Builds the kernel programs and returns the path of the BPF object.
fn kernel_side(toolchain: &Toolchain) -> Result<PathBuf> {
    let folder = workspace::target("bpf");
    let mut cargo = match toolchain.route {
        Route::Nightly => {
            // Only rustup's cargo knows `+nightly`, hence not the one of CARGO.
            let mut cargo = Command::new("cargo");
            cargo
                .arg("+nightly")
                .env("RUSTUP_AUTO_INSTALL", "0")
                .current_dir(workspace::root());
            cargo
        }
        Route::Debian => {
            let mut cargo = workspace::cargo();
            // The kernel side uses unstable features, on a stable compiler.
            cargo.env("RUSTC_BOOTSTRAP", "1").env("RUSTC", DEBIAN_RUSTC);
            cargo
        }
    };
    cargo
        .args(["build", "--profile", "kernel", "-p", "tracer-ebpf"])
        .args(["--target", BPF_TARGET, "--target-dir"])
        .arg(&folder)
        .env("CARGO_ENCODED_RUSTFLAGS", kernel_flags())
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &toolchain.linker)
        // `cargo run` put the libraries of its own toolchain there; the
        // compiler and the linker of this build have others.
        .env_remove("LD_LIBRARY_PATH");
    if toolchain.route == Route::Nightly {
        cargo.arg("-Zbuild-std=core");
    }
    process::run(&mut cargo, "the kernel side does not build; see above")?;
    Ok(kernel_object())
}

/// Where the BPF object is once it is built.
pub(crate) fn kernel_object() -> PathBuf {
    workspace::target("bpf")
        .join(BPF_TARGET)
        .join("kernel/tracer-ebpf")
}

/// Debug information is what BTF is made from, and aya-ebpf picks the layout of
/// the CPU registers by `bpf_target_arch`, which is that of the machine.
fn kernel_flags() -> String {
    let arch = format!("--cfg=bpf_target_arch=\"{}\"", std::env::consts::ARCH);
    ["-Cdebuginfo=2", "-Clink-arg=--btf", &arch].join(FLAG_SEPARATOR)
}

/// Builds tracer with the object inside and returns the path of the program.
fn user_side(object: &Path, release: bool) -> Result<PathBuf> {
    let (mut cargo, folder) = static_cargo("build")?;
    cargo
        .args(["-p", "tracer"])
        .env("TRACER_BPF_OBJECT", object);
    if release {
        cargo.arg("--release");
    }
    process::run(&mut cargo, "tracer does not build; see above")?;
    Ok(folder.join(profile(release)).join("tracer"))
}

/// The live tests, as programs that need no library of the machine they run on.
pub(crate) struct LiveTests {
    /// The one program that has them all.
    pub(crate) live: PathBuf,
    /// The workloads that it starts.
    pub(crate) provoke: PathBuf,
}

/// Builds the live tests, for this machine and for guests alike.
pub(crate) fn live_tests() -> Result<LiveTests> {
    let (mut cargo, folder) = static_cargo("test")?;
    cargo
        // The harness has unit tests too; they need no root, so not this program. The
        // package's own programs are built along with a test of it.
        .args(["-p", "tests", "--test", LIVE, "--profile", LIVE, "--no-run"])
        .arg("--message-format=json-render-diagnostics");
    let mut live = None;
    let status = process::stream(&mut cargo, |line| live = test_program(line).or(live.take()))?;
    process::check(&cargo, status, "the live tests do not build; see above")?;
    Ok(LiveTests {
        live: live.context("cargo built the live tests, and names no program of them")?,
        provoke: folder.join(LIVE).join("provoke"),
    })
}

/// Builds the programs that the bench runs, `bench` and `provoke`, and returns
/// their folder.
pub(crate) fn bench_programs() -> Result<PathBuf> {
    let (mut cargo, folder) = static_cargo("build")?;
    cargo.args(["-p", "tests", "--release", "--bins"]);
    process::run(&mut cargo, "the bench does not build; see above")?;
    Ok(folder.join("release"))
}

/// The live tests' program, if a message of cargo is about it.
fn test_program(message: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    let target = &message["target"];
    (target["kind"][0] == "test" && target["name"] == LIVE).then_some(())?;
    Some(message["executable"].as_str()?.into())
}

/// Cargo, to link statically, and the folder of the profiles it builds into.
fn static_cargo(subcommand: &str) -> Result<(Command, PathBuf)> {
    let folder = workspace::target("user");
    let host = workspace::host_triple()?;
    let mut cargo = workspace::cargo();
    // With a target named, the flags leave build scripts and macros alone,
    // which cannot be static.
    cargo
        .args([subcommand, "--target", &host, "--target-dir"])
        .arg(&folder)
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static");
    Ok((cargo, folder.join(host)))
}

fn profile(release: bool) -> &'static str {
    if release { "release" } else { "debug" }
}

/// Copies a program into place by renaming: the old one may be running, and
/// may be a hard link into cargo's own files.
fn put(from: &Path, to: &Path) -> std::io::Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    let aside = to.with_extension("new");
    fs::copy(from, &aside)?;
    fs::rename(&aside, to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_live_tests_program_is_taken() {
        let message = |name: &str, kind: &str| {
            let target = serde_json::json!({ "name": name, "kind": [kind] });
            serde_json::json!({ "target": target, "executable": "/t/x" }).to_string()
        };
        assert_eq!(
            test_program(&message("live", "test")),
            Some(PathBuf::from("/t/x"))
        );
        assert_eq!(test_program(&message("provoke", "bin")), None);
        assert_eq!(test_program(&message("other", "test")), None);
        assert_eq!(test_program("   Compiling tests"), None);
    }
}
