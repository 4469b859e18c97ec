//! Functions that can sleep for a lock and, most of them, for nothing else.
//!
//! A task that stands in one of these waits for the lock, though the frame of
//! `mutex_lock` or `down_read` is not on the stack. The list was taken from the machine
//! code of Debian's kernels 5.10, 6.12, 6.18 and 7.2, and of the modules of 6.18 but for
//! most device drivers: all functions that call one of `.sched.text` that sleeps for a
//! lock, by themselves or by a function that ends with a jump to it. One that in any of
//! them calls another function of `.sched.text` that sleeps is marked `also`.

/// What a function does, beside taking a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taker {
    /// It sleeps for the lock only.
    OnlyLocks,
    /// It sleeps for other things too.
    AlsoWaits,
}

/// A function a line, in the order of bytes.
const TAKERS: &str = include_str!("lock_takers.txt");

/// What is known of a function, by its name in the source.
pub(super) fn find(symbol: &str) -> Option<Taker> {
    let (mut begin, mut end) = (0, TAKERS.len());
    while begin < end {
        let middle = begin + (end - begin) / 2;
        let line_begin = TAKERS.get(..middle)?.rfind('\n').map_or(0, |at| at + 1);
        let rest = TAKERS.get(line_begin..)?;
        let line = rest.split('\n').next()?;
        let (name, mark) = line.split_once(' ').unwrap_or((line, ""));
        match name.as_bytes().cmp(symbol.as_bytes()) {
            std::cmp::Ordering::Equal if mark.is_empty() => return Some(Taker::OnlyLocks),
            std::cmp::Ordering::Equal => return Some(Taker::AlsoWaits),
            std::cmp::Ordering::Less => begin = line_begin + line.len() + 1,
            std::cmp::Ordering::Greater => end = line_begin,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{TAKERS, Taker, find};

    #[test]
    fn each_line_is_found() {
        let mut before = "";
        for line in TAKERS.lines() {
            let (name, mark) = line.split_once(' ').unwrap_or((line, ""));
            assert!(before < name, "{before} {name}");
            let expected = match mark {
                "" => Taker::OnlyLocks,
                "also" => Taker::AlsoWaits,
                _ => panic!("{line}"),
            };
            assert_eq!(find(name), Some(expected), "{name}");
            before = name;
        }
        assert!(TAKERS.ends_with('\n'));
    }

    #[test]
    fn others_are_not() {
        for name in [
            "",
            "!",
            "folio_wait_bit_common",
            "copy_net_n",
            "copy_net_nss",
            "~",
        ] {
            assert_eq!(find(name), None, "{name}");
        }
    }
}
