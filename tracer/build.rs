//! Puts the compiled kernel side where `include_bytes!` finds it.
//!
//! `cargo xtask build` names the object in `TRACER_BPF_OBJECT`. Without it the
//! crate still builds and its pure stages can be tested; only a program that
//! wants to load something says that it has nothing to load.

use std::{env, fs, path::PathBuf};

fn main() {
    println!("cargo::rerun-if-env-changed=TRACER_BPF_OBJECT");
    let out = env::var_os("OUT_DIR")
        .map(PathBuf::from)
        .expect("cargo sets OUT_DIR");
    let object = match env::var_os("TRACER_BPF_OBJECT") {
        Some(path) => {
            println!("cargo::rerun-if-changed={}", path.to_string_lossy());
            fs::read(&path).unwrap_or_else(|e| panic!("TRACER_BPF_OBJECT: {path:?}: {e}"))
        }
        None => Vec::new(),
    };
    fs::write(out.join("tracer.bpf.o"), object).expect("OUT_DIR can be written");
}
