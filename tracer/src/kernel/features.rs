//! What the kernel can do, as aya asks it: once, and the answer stays.
//!
//! aya loads small programs for that, and takes each error for a no. The verifier gives up
//! with EAGAIN when a signal is pending, also one that stops the process and lets it go on;
//! without a feature that the kernel has, nothing that is loaded later fits. So the program
//! begins anew then.

use std::{env, os::unix::process::CommandExt as _, process::Command};

/// How often this program has begun anew, from one start to the next.
const STARTS: &str = "TRACER_STARTS";
/// It does no more than so often, and says what fails then.
const MOST_STARTS: u32 = 20;

/// Asks; where the answer cannot be true, begins this program anew, and does not return.
pub fn make_sure() {
    let starts = env::var(STARTS).ok().and_then(|starts| starts.parse().ok());
    let starts: u32 = starts.unwrap_or(0);
    if starts >= MOST_STARTS || !is_cut_short(&answers()) {
        return;
    }
    let Ok(program) = env::current_exe() else {
        return;
    };
    let mut arguments = env::args_os();
    let mut command = Command::new(program);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    // Where that fails, as without a file, loading says what is wrong.
    let error = command
        .args(arguments)
        .env(STARTS, (starts + 1).to_string())
        .exec();
    log::debug!("cannot begin anew: {error}");
}

/// Whether it is so, of what every kernel from tracer's floor on can do (5.5 and before).
fn answers() -> [bool; 6] {
    let features = aya::features();
    let btf = features.btf();
    [
        features.bpf_name(),
        features.bpf_probe_read_kernel(),
        features.bpf_global_data(),
        btf.is_some(),
        btf.is_some_and(|btf| btf.btf_func()),
        btf.is_some_and(|btf| btf.btf_datasec()),
    ]
}

/// Without rights the kernel says no to all.
fn is_cut_short(answers: &[bool]) -> bool {
    answers.contains(&true) && answers.contains(&false)
}

#[cfg(test)]
mod tests {
    use super::is_cut_short;

    #[test]
    fn one_no_among_answers_is_a_signal_s() {
        assert!(!is_cut_short(&[true; 6]));
        assert!(!is_cut_short(&[false; 6]));
        assert!(is_cut_short(&[true, true, false, true]));
    }
}
