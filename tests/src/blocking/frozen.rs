//! Writers to a file system that is frozen: `percpu_rwsem_wait`.

use std::{fs::OpenOptions, io::Write as _, path::Path};

use crate::pace::{paced, say_numbers};

use super::{mounts, must, victim::Victim};

/// Appends a byte to a file of its own in each of `count` processes. Who started
/// this freezes the file system before it begins, and thaws it later.
pub fn frozen(directory: &str, count: u64) {
    let directory = must("its mount namespace", mounts::enter(directory));
    let mut victims: Vec<Victim> = (0..count)
        .map(|i| {
            let path = Path::new(&directory).join(format!("file{i}"));
            let file = OpenOptions::new().create(true).append(true).open(path);
            let mut file = must("a file", file);
            Victim::fork(move || drop(file.write(b"x")))
        })
        .collect();
    paced(|| {
        victims.iter_mut().for_each(Victim::block);
        let begun = victims.iter().flat_map(Victim::begun);
        say_numbers([0].into_iter().chain(begun));
        say_numbers(victims.iter_mut().map(Victim::took_ns));
    });
}
