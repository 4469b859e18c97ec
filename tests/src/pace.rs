//! How a workload goes: `ready`, a line of input, its work, `done`, the end of its
//! input.

use std::io::{self, BufRead as _, Write as _};

/// Says `ready`, works after the first line of input, says `done`, and returns
/// when the input is closed.
pub fn paced(work: impl FnOnce()) {
    let mut input = io::stdin().lock();
    let mut line = String::new();
    say("ready");
    if input.read_line(&mut line).is_ok_and(|n| n > 0) {
        work();
        say("done");
        while input.read_line(&mut line).is_ok_and(|n| n > 0) {}
    }
}

/// A line of output.
pub fn say(line: &str) {
    println!("{line}");
    let _ = io::stdout().flush();
}

/// A line of numbers, with a space between them.
pub fn say_numbers(numbers: impl IntoIterator<Item = u64>) {
    let words: Vec<String> = numbers.into_iter().map(|n| n.to_string()).collect();
    say(&words.join(" "));
}
