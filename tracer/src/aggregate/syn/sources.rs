//! Whom handshakes come from: how many addresses, and whether some begin alike.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::{
    decode::cookie::CookieReading,
    snapshot::{Prefix, SourcesOf, SynSources},
};

/// Lengths of prefixes that are looked at, the longest first: what one customer, one
/// provider, and one registry has.
const V4_LENGTHS: [u8; 3] = [24, 16, 8];
const V6_LENGTHS: [u8; 3] = [64, 48, 32];
/// A prefix stands out with this part of all, in percent.
const STANDS_OUT: u64 = 10;
/// So many are told.
const LISTED: usize = 3;

/// Of addresses that were looked at, and of those that were sent a cookie.
pub(super) fn model(addresses: &[IpAddr], cookies: Option<&CookieReading>) -> SynSources {
    let addresses_of = |cookies: &CookieReading| estimate(&cookies.registers);
    let (of, count) = match cookies {
        Some(cookies) if cookies.sent > 0 => (SourcesOf::Cookies, addresses_of(cookies)),
        _ => {
            let different: HashSet<_> = addresses.iter().collect();
            (SourcesOf::Queue, different.len() as u64)
        }
    };
    SynSources {
        addresses: count,
        of,
        sampled: addresses.len() as u64,
        prefixes: prefixes(addresses),
    }
}

/// How many different addresses were hashed into the registers: HyperLogLog (Flajolet,
/// Fusy, Gandouet, Meunier, 2007), with linear counting where it is few.
fn estimate(registers: &[u8]) -> u64 {
    let m = registers.len() as f64;
    let empty = registers.iter().filter(|zeros| **zeros == 0).count();
    let sum: f64 = registers
        .iter()
        .map(|zeros| (-f64::from(*zeros)).exp2())
        .sum();
    let alpha = 0.7213 / (1.0 + 1.079 / m);
    let raw = alpha * m * m / sum;
    let estimate = if raw <= 2.5 * m && empty > 0 {
        m * (m / empty as f64).ln()
    } else {
        raw
    };
    estimate.round() as u64
}

/// The longest prefixes that stand out.
fn prefixes(addresses: &[IpAddr]) -> Vec<Prefix> {
    let least = (addresses.len() as u64 * STANDS_OUT).div_ceil(100).max(2);
    for level in 0..V4_LENGTHS.len() {
        let mut counts: HashMap<(IpAddr, u8), u64> = HashMap::new();
        for address in addresses {
            *counts.entry(cut(*address, level)).or_default() += 1;
        }
        let found = counts.into_iter().filter(|(_, count)| *count >= least);
        let mut found: Vec<_> = found
            .map(|((address, length), sampled)| Prefix {
                address,
                length,
                sampled,
            })
            .collect();
        if !found.is_empty() {
            found.sort_by_key(|prefix| (u64::MAX - prefix.sampled, prefix.address));
            found.truncate(LISTED);
            return found;
        }
    }
    Vec::new()
}

fn cut(address: IpAddr, level: usize) -> (IpAddr, u8) {
    match address {
        IpAddr::V4(address) => {
            let length = V4_LENGTHS[level];
            let mask = u32::MAX << (32 - length);
            (Ipv4Addr::from(u32::from(address) & mask).into(), length)
        }
        IpAddr::V6(address) => {
            let length = V6_LENGTHS[level];
            let mask = u128::MAX << (128 - length);
            (Ipv6Addr::from(u128::from(address) & mask).into(), length)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::{estimate, prefixes};

    fn v4(number: u32) -> IpAddr {
        Ipv4Addr::from(number).into()
    }

    fn told(addresses: &[IpAddr]) -> Vec<String> {
        let one = |p: &super::Prefix| format!("{}/{} {}", p.address, p.length, p.sampled);
        prefixes(addresses).iter().map(one).collect()
    }

    #[test]
    fn the_longest_prefix_that_stands_out() {
        let one_network: Vec<_> = (0..90).map(|n| v4(0xc633_6400 + n)).collect();
        assert_eq!(told(&one_network), ["198.51.100.0/24 90"]);
        let provider: Vec<_> = (0..90).map(|n| v4(0xc612_0000 + n * 256)).collect();
        assert_eq!(told(&provider), ["198.18.0.0/16 90"]);
        let everywhere: Vec<_> = (0..90_u32)
            .map(|n| v4(n.wrapping_mul(0x9e37_79b9)))
            .collect();
        assert_eq!(told(&everywhere), [""; 0]);
        let v6: Vec<IpAddr> = (0..9)
            .map(|n| format!("2001:db8:0:{n}::1").parse().unwrap())
            .collect();
        assert_eq!(told(&v6), ["2001:db8::/48 9"]);
        assert_eq!(told(&[]), [""; 0]);
        assert_eq!(told(&[v4(1)]), [""; 0]);
    }

    /// The same hash as the kernel side's.
    fn hash(n: u64) -> u64 {
        let mut z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Four times the error of 6.5 %.
    #[test]
    fn different_addresses() {
        for count in [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000] {
            let mut registers = [0_u8; 256];
            for n in 0..count {
                let hash = hash(n);
                let zeros = (hash | 0xff).leading_zeros() as u8 + 1;
                let register = &mut registers[hash as usize & 0xff];
                *register = zeros.max(*register);
            }
            let off = estimate(&registers) as f64 / count as f64;
            assert!((0.74..=1.26).contains(&off), "{count}: {off}");
        }
        assert_eq!(estimate(&[0; 256]), 0);
    }
}
