//! SYN cookies by listener.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
};

use tracer_common::cookie::{
    self, CookieTotals, HAS_ECN, HAS_SACK, HAS_TIMESTAMPS, HAS_WINDOW_SCALING, REGISTERS, SAMPLES,
    Sources,
};

/// `CookieTotals`, `CookieKind` and `Sources` as plain words.
pub type TotalsWords = [u64; size_of::<CookieTotals>() / 8];
/// See [`TotalsWords`].
pub type KindWords = [u64; size_of::<cookie::CookieKind>() / 8];
/// See [`TotalsWords`].
pub type SourcesWords = [u64; size_of::<Sources>() / 8];

/// What a listener did with cookies, since the first one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CookieReading {
    /// Sent.
    pub sent: u64,
    /// Came back and were good, whether a connection came of it or not.
    pub valid: u64,
    /// Connections that came of it.
    pub established: u64,
    /// Came back and were not good.
    pub failed: u64,
    /// Of the addresses they were sent to, as `CookieTotals` has it.
    pub registers: Vec<u8>,
    /// The connections by what they have.
    pub kinds: Vec<(CookieKind, u64)>,
}

/// What a connection by cookie has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CookieKind {
    /// Maximum segment size in bytes.
    pub mss: u16,
    /// Timestamps.
    pub timestamps: bool,
    /// Window scaling.
    pub window_scaling: bool,
    /// Selective acknowledgements.
    pub sack: bool,
    /// Explicit congestion notification.
    pub ecn: bool,
}

/// Listeners by their address in the kernel.
pub fn cookies(
    listeners: &[(u64, TotalsWords)],
    kinds: &[(KindWords, u64)],
) -> HashMap<u64, CookieReading> {
    let listeners = listeners.iter();
    let mut all: HashMap<u64, CookieReading> = listeners
        .map(|(listener, words)| (*listener, totals(words)))
        .collect();
    for (words, connections) in kinds {
        let [listener, rest] = *words;
        if let Some(reading) = all.get_mut(&listener) {
            reading.kinds.push((kind(rest), *connections));
        }
    }
    all
}

fn totals(words: &TotalsWords) -> CookieReading {
    let [sent, valid, established, failed, _last_sent, registers @ ..] = words;
    let registers = registers.iter().flat_map(|word| word.to_ne_bytes());
    CookieReading {
        sent: *sent,
        valid: *valid,
        established: *established,
        failed: *failed,
        registers: registers.take(REGISTERS).collect(),
        kinds: Vec::new(),
    }
}

/// The second word of a `CookieKind`.
fn kind(word: u64) -> CookieKind {
    let [a, b, c, d, e, f, g, h] = word.to_ne_bytes();
    let (mss, has) = (
        u32::from_ne_bytes([a, b, c, d]),
        u32::from_ne_bytes([e, f, g, h]),
    );
    CookieKind {
        mss: u16::try_from(mss).unwrap_or(u16::MAX),
        timestamps: has & HAS_TIMESTAMPS != 0,
        window_scaling: has & HAS_WINDOW_SCALING != 0,
        sack: has & HAS_SACK != 0,
        ecn: has & HAS_ECN != 0,
    }
}

/// The latest addresses that cookies were sent to, by listener.
pub fn sources(cpus: &[SourcesWords]) -> HashMap<u64, Vec<IpAddr>> {
    let mut all: HashMap<u64, Vec<IpAddr>> = HashMap::new();
    for words in cpus {
        let [count, latest @ ..] = words;
        let filled = usize::try_from(*count).unwrap_or(SAMPLES).min(SAMPLES);
        for source in latest.chunks_exact(3).take(filled) {
            let [listener, first, second] = *source else {
                continue;
            };
            let mut address = [0; 16];
            address[..8].copy_from_slice(&first.to_ne_bytes());
            address[8..].copy_from_slice(&second.to_ne_bytes());
            let address = Ipv6Addr::from(address).to_canonical();
            all.entry(listener).or_default().push(address);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use tracer_common::cookie::{SAMPLES, Sources};

    use super::{CookieKind, sources, totals};

    const WORDS: usize = size_of::<Sources>() / 8;

    #[test]
    fn words_of_a_listener() {
        let mut words = [0; _];
        words[..6].copy_from_slice(&[5, 4, 3, 2, 1, u64::from_ne_bytes([9, 8, 7, 6, 5, 4, 3, 2])]);
        let reading = totals(&words);
        assert_eq!(
            (
                reading.sent,
                reading.valid,
                reading.established,
                reading.failed
            ),
            (5, 4, 3, 2)
        );
        assert_eq!(reading.registers[..9], [9, 8, 7, 6, 5, 4, 3, 2, 0]);
        assert_eq!(reading.registers.len(), 256);
    }

    #[test]
    fn words_of_a_kind() {
        let word = [1460_u32, 0b101].map(u32::to_ne_bytes).concat();
        let word = u64::from_ne_bytes(word.try_into().unwrap());
        let expected = CookieKind {
            mss: 1460,
            timestamps: true,
            sack: true,
            ..CookieKind::default()
        };
        assert_eq!(super::kind(word), expected);
    }

    #[test]
    fn only_what_was_written_is_a_source() {
        let mut words = [0_u64; WORDS];
        words[0] = 1;
        words[1] = 77;
        words[3] = u64::from_ne_bytes([0, 0, 0xff, 0xff, 192, 0, 2, 1]);
        let found = sources(&[words]);
        assert_eq!(
            found[&77],
            ["192.0.2.1".parse::<std::net::IpAddr>().unwrap()]
        );
        // Any count is survived.
        words[0] = u64::MAX;
        let all: usize = sources(&[words]).values().map(Vec::len).sum();
        assert_eq!(all, SAMPLES);
    }
}
