//! Tables of counters that the kernel side fills: arrays mapped into this process's
//! memory, which are read without a system call each (`array_map_mmap`,
//! kernel/bpf/arraymap.c; from 5.5).
//!
//! Any user can fill a table of a fixed size. So when it is nearly full, the slots that have
//! not changed for the longest are freed, and what they had counted is kept here, as many
//! keys as the table has slots. A key that comes again takes a new slot and goes on from
//! there: no count is lost by it.

use std::{
    cmp::Reverse,
    collections::HashMap,
    io, mem,
    os::fd::{AsFd as _, AsRawFd as _},
    ptr,
    sync::atomic::{AtomicU64, Ordering},
};

use aya::{
    Ebpf,
    maps::{Map, MapData},
};
use tracer_common::tcp::LEAVING;

use crate::error::KernelError;

/// A table whose slots have so many words after their key, of which the first are counters
/// and the others say whose they are.
pub(super) struct Table<const WORDS: usize> {
    words: *mut AtomicU64,
    slots: usize,
    counters: usize,
    /// Keeps the map; none where the memory is not of a map.
    map: Option<MapData>,
    /// Of each slot.
    seen: Vec<Seen>,
    readings: u64,
    /// Slots that the next reading frees, with their keys: a program that had found one when
    /// it was marked has added to it by then.
    leaving: Vec<(usize, u64)>,
    /// Of slots that were freed.
    kept: HashMap<u64, Kept<WORDS>>,
    dropped: u64,
}

/// What a slot had, and when that last changed, by the number of the reading.
#[derive(Clone, Copy, Default)]
struct Seen {
    key: u64,
    sum: u64,
    at: u64,
}

struct Kept<const WORDS: usize> {
    words: [u64; WORDS],
    at: u64,
}

// SAFETY: the memory is the process's own until it is unmapped, and is only accessed by
// atomic operations.
unsafe impl<const WORDS: usize> Send for Table<WORDS> {}

impl<const WORDS: usize> Table<WORDS> {
    /// A slot: its key, then its words.
    const SLOT: usize = 1 + WORDS;

    /// Maps the array of this name, which has so many slots.
    pub(super) fn map(
        ebpf: &mut Ebpf,
        name: &'static str,
        slots: u32,
        counters: usize,
    ) -> Result<Self, KernelError> {
        let Some(Map::Array(map)) = ebpf.take_map(name) else {
            return Err(KernelError::NoObject);
        };
        let slots = slots as usize;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let address = unsafe {
            libc::mmap(
                ptr::null_mut(),
                Self::bytes(slots),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.fd().as_fd().as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            let error = io::Error::last_os_error();
            return Err(KernelError::bpf("mapping", name, &error));
        }
        Ok(Self::over(address.cast(), slots, counters, Some(map)))
    }

    fn over(words: *mut AtomicU64, slots: usize, counters: usize, map: Option<MapData>) -> Self {
        Self {
            words,
            slots,
            counters,
            map,
            seen: vec![Seen::default(); slots],
            readings: 0,
            leaving: Vec::new(),
            kept: HashMap::new(),
            dropped: 0,
        }
    }

    fn bytes(slots: usize) -> usize {
        slots * Self::SLOT * size_of::<u64>()
    }

    fn slot(&self, index: usize) -> (&AtomicU64, &[AtomicU64]) {
        // SAFETY: the memory has all slots; words in it are aligned, and are never
        // accessed but atomically.
        let slot =
            unsafe { std::slice::from_raw_parts(self.words.add(index * Self::SLOT), Self::SLOT) };
        let [key, words @ ..] = slot else {
            unreachable!("a slot has a key");
        };
        (key, words)
    }

    fn words_of(&self, index: usize) -> [u64; WORDS] {
        let (_, words) = self.slot(index);
        let mut copy = [0; WORDS];
        for (copy, word) in copy.iter_mut().zip(words) {
            *copy = word.load(Ordering::Relaxed);
        }
        copy
    }

    /// Keys, each with what was counted since the start, and makes room for new ones. A key
    /// that has not changed for long is not among them any more when there were too many.
    pub(super) fn read(&mut self) -> Vec<(u64, [u64; WORDS])> {
        self.readings += 1;
        self.free_leaving();
        let mut all: HashMap<u64, [u64; WORDS]> = HashMap::new();
        let mut taken = Vec::new();
        for index in 0..self.slots {
            let key = self.slot(index).0.load(Ordering::Acquire);
            if key == 0 || key == LEAVING {
                continue;
            }
            let words = self.words_of(index);
            taken.push((self.note(index, key, &words), index, key));
            self.add(all.entry(key).or_insert([0; WORDS]), &words);
        }
        self.drop_oldest(|key| all.contains_key(key));
        self.make_room(taken);
        for (key, kept) in &self.kept {
            let words = all.entry(*key).or_insert([0; WORDS]);
            // Whose it is says the slot, which is newer.
            let newer = *words;
            *words = kept.words;
            self.add(words, &newer);
        }
        all.into_iter().collect()
    }

    /// Adds counters; the other words are those that came last.
    fn add(&self, sum: &mut [u64; WORDS], more: &[u64; WORDS]) {
        let is_any = more.iter().any(|word| *word != 0);
        for (index, (sum, more)) in sum.iter_mut().zip(more).enumerate() {
            if index < self.counters {
                *sum = sum.wrapping_add(*more);
            } else if is_any {
                *sum = *more;
            }
        }
    }

    /// What was counted for keys that are not among those of [`Self::read`] any more.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    fn sum(&self, words: &[u64; WORDS]) -> u64 {
        let counters = words.iter().take(self.counters);
        counters.fold(0, |sum, word| sum.wrapping_add(*word))
    }

    /// When a slot last changed.
    fn note(&mut self, index: usize, key: u64, words: &[u64; WORDS]) -> u64 {
        let sum = self.sum(words);
        let readings = self.readings;
        let Some(seen) = self.seen.get_mut(index) else {
            return readings;
        };
        if (seen.key, seen.sum) != (key, sum) {
            *seen = Seen {
                key,
                sum,
                at: readings,
            };
        }
        seen.at
    }

    /// Marks the slots that changed least lately, when more than three eighths are taken:
    /// the kernel side looks for a free one among eight.
    fn make_room(&mut self, mut taken: Vec<(u64, usize, u64)>) {
        if taken.len() <= self.slots / 8 * 3 {
            return;
        }
        let leave = taken.len() - self.slots / 4;
        // Of those that changed at the same reading, every other one first: what stays must
        // not be a block, in which a new key would find no room near.
        taken.sort_unstable_by_key(|(at, index, _)| (*at, index.reverse_bits()));
        for (_, index, key) in taken.into_iter().take(leave) {
            self.slot(index).0.store(LEAVING, Ordering::Release);
            self.leaving.push((index, key));
        }
    }

    /// Takes what is in the slots that were marked, and frees them.
    fn free_leaving(&mut self) {
        for (index, key) in mem::take(&mut self.leaving) {
            let words = self.words_of(index);
            let at = self.seen.get(index).map_or(0, |seen| seen.at);
            let kept = self.kept.remove(&key);
            let mut sum = kept.map_or([0; WORDS], |kept| kept.words);
            self.add(&mut sum, &words);
            self.kept.insert(key, Kept { words: sum, at });
            let (key, words) = self.slot(index);
            for word in words {
                word.store(0, Ordering::Relaxed);
            }
            // From here on the kernel side may take it.
            key.store(0, Ordering::Release);
        }
    }

    /// Drops of what is kept the keys that changed least lately. One that has a slot is
    /// still counted, and stays.
    fn drop_oldest(&mut self, has_slot: impl Fn(&u64) -> bool) {
        if self.kept.len() <= self.slots {
            return;
        }
        let kept = self.kept.iter();
        let idle = kept.filter(|(key, _)| !has_slot(key));
        let mut idle: Vec<(Reverse<u64>, u64)> =
            idle.map(|(key, kept)| (Reverse(kept.at), *key)).collect();
        idle.sort_unstable();
        let busy = self.kept.len() - idle.len();
        let stays = (self.slots / 4 * 3).saturating_sub(busy);
        for (_, key) in idle.into_iter().skip(stays) {
            let dropped = self.kept.remove(&key);
            self.dropped += dropped.map_or(0, |kept| self.sum(&kept.words));
        }
        self.kept.shrink_to(self.slots);
    }
}

impl<const WORDS: usize> Drop for Table<WORDS> {
    fn drop(&mut self) {
        if self.map.is_some() {
            // SAFETY: the mapping is as long as it was made, and nothing refers to it.
            unsafe { libc::munmap(self.words.cast(), Self::bytes(self.slots)) };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashMap,
        sync::atomic::{AtomicU64, Ordering},
    };

    use super::{LEAVING, Table};

    const SLOTS: usize = 64;
    const SLOT: usize = 3;

    /// A table of one counter and a name, and its memory as the kernel side sees it.
    fn table(memory: &[AtomicU64]) -> Table<2> {
        Table::over(memory.as_ptr().cast_mut(), SLOTS, 1, None)
    }

    fn memory() -> Vec<AtomicU64> {
        (0..SLOTS * SLOT).map(|_| AtomicU64::new(0)).collect()
    }

    /// Counts one as the kernel side does; false where there is no room.
    fn count(memory: &[AtomicU64], key: u64) -> bool {
        let keys: Vec<&AtomicU64> = memory.iter().step_by(SLOT).collect();
        let load = |slot: &usize| keys[*slot].load(Ordering::Relaxed);
        let found = (0..SLOTS).find(|slot| load(slot) == key);
        let Some(slot) = found.or_else(|| (0..SLOTS).find(|slot| load(slot) == 0)) else {
            return false;
        };
        keys[slot].store(key, Ordering::Relaxed);
        memory[slot * SLOT + 1].fetch_add(1, Ordering::Relaxed);
        memory[slot * SLOT + 2].store(key + 1000, Ordering::Relaxed);
        true
    }

    #[test]
    fn a_table_that_was_full_has_room_again_and_no_count_is_lost() {
        let memory = memory();
        let mut table = table(&memory);
        let (mut refused, mut all) = (0, 0);
        let mut told: HashMap<u64, [u64; 2]> = HashMap::new();
        for reading in 0..20 {
            // One that goes on, and forty new ones a reading.
            for key in std::iter::once(7).chain((0..40).map(|n| 100 + reading * 40 + n)) {
                all += 1;
                refused += u64::from(!count(&memory, key));
            }
            for (key, words) in table.read() {
                assert_eq!(words[1], key + 1000, "its name");
                let before = told.insert(key, words);
                assert!(before.is_none_or(|before| before[0] <= words[0]));
            }
            assert!(table.kept.len() <= SLOTS + SLOTS);
        }
        let counted: u64 = told.values().map(|words| words[0]).sum();
        assert_eq!(counted + refused, all);
        let there: u64 = table.read().iter().map(|(_, words)| words[0]).sum();
        assert!(table.dropped() > 0);
        assert_eq!(there + table.dropped() + refused, all);
        assert_eq!(told[&7][0], 20, "the one that goes on");
        table.read();
        assert!(count(&memory, 9999));
        let found = table.read().into_iter().find(|(key, _)| *key == 9999);
        assert_eq!(found, Some((9999, [1, 10_999])));
    }

    #[test]
    fn what_stays_is_no_block() {
        let memory = memory();
        let mut table = table(&memory);
        for key in 1..=SLOTS as u64 {
            assert!(count(&memory, key));
        }
        table.read();
        table.read();
        let keys: Vec<u64> = memory
            .iter()
            .step_by(SLOT)
            .map(|key| key.load(Ordering::Relaxed))
            .collect();
        assert_eq!(keys.iter().filter(|key| **key != 0).count(), SLOTS / 4);
        // The kernel side looks at eight in a row.
        let wrapped = keys.iter().chain(&keys).copied().collect::<Vec<_>>();
        assert!(wrapped.windows(4).all(|near| near.contains(&0)), "{keys:?}");
    }

    #[test]
    fn what_is_added_while_a_slot_leaves_is_counted() {
        let memory = memory();
        let mut table = table(&memory);
        for key in 1..=40 {
            assert!(count(&memory, key));
        }
        table.read();
        let mut marked = memory.iter().step_by(SLOT);
        let marked = marked.position(|key| key.load(Ordering::Relaxed) == LEAVING);
        let slot = marked.expect("slots leave");
        let key = memory[slot * SLOT + 2].load(Ordering::Relaxed) - 1000;
        // A program that had found it before, and one that comes after.
        memory[slot * SLOT + 1].fetch_add(1, Ordering::Relaxed);
        assert!(count(&memory, key));
        let of = |all: Vec<(u64, [u64; 2])>| all.into_iter().find(|(k, _)| *k == key).unwrap().1[0];
        assert_eq!(of(table.read()), 3);
        assert_eq!(of(table.read()), 3);
    }
}
