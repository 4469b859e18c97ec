//! Stacks that have their names, so that the same one is not read again: most connections
//! of a process are opened by the same way.
//!
//! The reader says where the return addresses stand. It is believed for a short time, and
//! for the process that it was asked about. Registers that are saved between them need not
//! be the same: they count and point to something else each time.

use std::collections::HashMap;

use super::{client::Named, unwind::word};
use crate::{
    clock::MonotonicNs,
    decode::opening::{Program, UserStack},
};

/// How long a stack is known, in ns: the process may map other code.
const KNOWN_NS: u64 = 10_000_000_000;
/// Processes, and stacks of each.
const PROCESSES: usize = 64;
const STACKS: usize = 16;

/// Stacks by process.
#[derive(Default)]
pub(super) struct Known {
    stacks: HashMap<Program, Vec<Stack>>,
}

struct Stack {
    learned: MonotonicNs,
    /// Program counter and stack pointer.
    registers: (u64, u64),
    /// Return addresses, by their place.
    words: Vec<(u16, [u8; 8])>,
    named: Named,
}

impl Known {
    /// The functions of a stack that returns by the same way as a known one.
    pub(super) fn like(
        &self,
        program: Program,
        stack: &UserStack,
        now: MonotonicNs,
    ) -> Option<Named> {
        let is_it = |known: &&Stack| {
            let is_word = |(at, value): &(u16, [u8; 8])| word(stack, *at).as_ref() == Some(value);
            now.since_ns(known.learned) < KNOWN_NS
                && known.registers == registers(stack)
                && known.words.iter().all(is_word)
        };
        let known = self.stacks.get(&program)?.iter().find(is_it)?;
        Some(known.named.clone())
    }

    /// Takes in what a stack came to, and the places of its return addresses.
    pub(super) fn learn(
        &mut self,
        program: Program,
        stack: &UserStack,
        words: Option<Vec<u16>>,
        named: &Named,
        now: MonotonicNs,
    ) {
        let words = words.into_iter().flatten();
        let words: Option<Vec<_>> = words.map(|at| Some((at, word(stack, at)?))).collect();
        // One that was unwound by nothing would be like every other.
        let Some(words) = words.filter(|words| !words.is_empty()) else {
            return;
        };
        if self.stacks.len() >= PROCESSES && !self.stacks.contains_key(&program) {
            self.stacks.clear();
        }
        let stacks = self.stacks.entry(program).or_default();
        stacks.retain(|known| now.since_ns(known.learned) < KNOWN_NS);
        if stacks.len() >= STACKS {
            stacks.remove(0);
        }
        stacks.push(Stack {
            learned: now,
            registers: registers(stack),
            words,
            named: named.clone(),
        });
    }
}

fn registers(stack: &UserStack) -> (u64, u64) {
    (stack.pc, stack.sp)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{KNOWN_NS, Known, Named, STACKS};
    use crate::{
        clock::MonotonicNs,
        decode::opening::{Program, UserStack},
    };

    fn of(pid: u32) -> Program {
        Program {
            pid,
            ..Program::default()
        }
    }

    fn stack(bytes: [u8; 32]) -> UserStack {
        UserStack {
            pc: 1,
            sp: 2,
            fp: 3,
            bytes: Bytes::copy_from_slice(&bytes),
        }
    }

    fn named() -> Named {
        Named::Functions(vec!["main".into()], false)
    }

    #[test]
    fn only_words_that_matter_are_compared() {
        let now = MonotonicNs(KNOWN_NS);
        let mut known = Known::default();
        known.learn(of(7), &stack([0; 32]), Some(vec![8, 17]), &named(), now);
        let like = |change: usize| {
            let mut bytes = [0; 32];
            bytes[change] = 1;
            known.like(of(7), &stack(bytes), now)
        };
        for other in [0, 7, 16, 25, 31] {
            assert_eq!(like(other), Some(named()), "{other}");
        }
        for own in [8, 15, 17, 24] {
            assert_eq!(like(own), None, "{own}");
        }
        let other_registers = UserStack {
            sp: 4,
            ..stack([0; 32])
        };
        assert_eq!(known.like(of(7), &other_registers, now), None);
        assert_eq!(known.like(of(8), &stack([0; 32]), now), None);
        // Another process of this id, and another program of this process.
        let (start, execs) = (MonotonicNs(1), 1);
        let later = [Program { start, ..of(7) }, Program { execs, ..of(7) }];
        for program in later {
            assert_eq!(known.like(program, &stack([0; 32]), now), None);
        }
        assert_eq!(known.like(of(7), &stack([0; 32]), now + KNOWN_NS), None);
    }

    #[test]
    fn what_depends_on_nothing_or_on_too_much_is_not_kept() {
        let now = MonotonicNs(KNOWN_NS);
        let mut known = Known::default();
        for words in [None, Some(vec![]), Some(vec![25]), Some(vec![u16::MAX])] {
            known.learn(of(7), &stack([0; 32]), words, &named(), now);
            assert_eq!(known.like(of(7), &stack([0; 32]), now), None);
        }
    }

    #[test]
    fn there_is_an_end_to_what_is_kept() {
        let mut known = Known::default();
        for pid in 0..1000 {
            for i in 0..20 {
                let now = MonotonicNs(KNOWN_NS + u64::from(i));
                known.learn(of(pid), &stack([i; 32]), Some(vec![0]), &named(), now);
            }
        }
        assert!(known.stacks.len() <= super::PROCESSES);
        assert!(known.stacks.values().all(|stacks| stacks.len() <= STACKS));
    }
}
