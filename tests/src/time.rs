//! Clocks of the tests, and the times in tracer's output.

use std::{thread, time::Duration};

/// Nanoseconds a second.
pub const NS: f64 = 1e9;

/// A clock of the kernel, in ns.
pub fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel fills in the timespec, which is ours.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// CLOCK_MONOTONIC, in ns.
pub fn monotonic_ns() -> u64 {
    clock_ns(libc::CLOCK_MONOTONIC)
}

/// The wall clock, in ns since 1970.
pub fn wall_ns() -> u64 {
    clock_ns(libc::CLOCK_REALTIME)
}

/// The length of a workload or a fault, not a way to wait for something.
pub fn let_pass(seconds: f64) {
    thread::sleep(Duration::from_secs_f64(seconds));
}

/// Asks again and again, for `seconds` at most.
pub fn eventually(seconds: f64, mut is_so: impl FnMut() -> bool) -> bool {
    let end = monotonic_ns() + (seconds * NS) as u64;
    loop {
        if is_so() {
            return true;
        }
        if monotonic_ns() > end {
            return false;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// A time such as `2026-11-23T13:05:21.123456789Z`, in ns since 1970.
pub fn parse_utc(text: &str) -> Option<u64> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    // Days since 1970, with the year beginning in March.
    let (y, m) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let day_of_year = (153 * m + 2) / 5 + day - 1;
    let days = 365 * y + y / 4 - y / 100 + y / 400 + day_of_year - 719_468;
    let seconds = days * 86_400 + number(11..13)? * 3600 + number(14..16)? * 60 + number(17..19)?;
    let fraction = text.get(20..)?.strip_suffix('Z')?;
    u64::try_from(seconds * 1_000_000_000 + format!("{fraction:0<9}").parse::<i64>().ok()?).ok()
}

/// One value for a host, and one for a guest (`TRACER_IN_GUEST`, as xtask sets it).
///
/// There are many guests, so they take fewer samples. Their CPUs are emulated,
/// by a host that has fewer of its own: they stop for tens of ms now and then,
/// and what takes a host microseconds takes them milliseconds.
pub fn host_or_guest<T>(on_host: T, in_guest: T) -> T {
    if std::env::var_os("TRACER_IN_GUEST").is_some() {
        in_guest
    } else {
        on_host
    }
}

/// A wall clock in ns since 1970, as `2026-11-23 13:05 UTC`.
pub fn utc_text(ns: u64) -> String {
    let minutes = ns / 60_000_000_000;
    let (days, minute) = (minutes / 1440, minutes % 1440);
    // Eras of 400 years and years that begin in March, as in `parse_utc`.
    let z = days + 719_468;
    let (era, day) = (z / 146_097, z % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let m = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * m + 2) / 5 + 1, (m + 2) % 12 + 1);
    let year = 400 * era + year + u64::from(month <= 2);
    let (hour, minute) = (minute / 60, minute % 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_it_is_read() {
        for text in ["1970-01-01T00:00", "2000-02-29T23:59", "2026-12-31T12:30"] {
            let ns = parse_utc(&format!("{text}:00.0Z")).unwrap();
            assert_eq!(utc_text(ns), format!("{} UTC", text.replace('T', " ")));
        }
    }
}
