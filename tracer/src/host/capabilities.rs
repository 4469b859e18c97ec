//! The rights this process has.

use crate::text;

/// Capabilities tracer needs, by name and bit (include/uapi/linux/capability.h).
const NEEDED: &[(&str, u32)] = &[("CAP_PERFMON", 38), ("CAP_BPF", 39)];
/// CAP_SYS_ADMIN contains both.
const SYS_ADMIN: u32 = 21;

/// Names of those that are missing; empty when tracer may run.
pub fn missing() -> Vec<&'static str> {
    missing_of(&text::read("/proc/self/status").unwrap_or_default())
}

fn missing_of(status: &str) -> Vec<&'static str> {
    let effective = status
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok())
        .unwrap_or(0);
    let has = |bit: u32| effective >> bit & 1 != 0;
    let lacks = |(name, bit): &(&'static str, u32)| (!has(*bit)).then_some(*name);
    if has(SYS_ADMIN) {
        Vec::new()
    } else {
        NEEDED.iter().filter_map(lacks).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::missing_of;

    #[test]
    fn rights() {
        assert!(missing_of("Name:\tx\nCapEff:\t000001ffffffffff\n").is_empty());
        assert!(missing_of("CapEff:\t000000c000000000\n").is_empty());
        assert_eq!(missing_of("CapEff:\t0000008000000000\n"), ["CAP_PERFMON"]);
        assert_eq!(missing_of(""), ["CAP_PERFMON", "CAP_BPF"]);
    }
}
