//! How numbers look to people: two decimals for tasks, two units for a length
//! of time, binary units for sizes.

/// Numbers smaller than this show as nothing: they would round to 0.00.
const SHOWN: f64 = 0.005;

/// A number of tasks in two decimals, 0.00 included.
pub(crate) fn tasks(value: f64) -> String {
    if shows(value) {
        format!("{value:.2}")
    } else {
        "0.00".to_owned()
    }
}

/// A cell of the table: a dash for what rounds to zero.
pub(crate) fn cell(value: f64) -> String {
    if shows(value) {
        tasks(value)
    } else {
        "-".to_owned()
    }
}

/// Whether a number is more than a rounded zero.
pub(crate) fn shows(value: f64) -> bool {
    value.is_finite() && value.abs() >= SHOWN
}

/// A length of time in the two units that matter: `4 m 12 s`, `850 ms`, `3 d 4 h`.
/// Below 10 s with one decimal. Rounds down: what lasts 59.9 s is no minute yet.
pub(crate) fn age(ns: u64) -> String {
    let (us, ms, s) = (ns / 1_000, ns / 1_000_000, ns / 1_000_000_000);
    let (m, h, d) = (s / 60, s / 3600, s / 86400);
    match () {
        () if us == 0 => format!("{ns} ns"),
        () if ms == 0 => format!("{us} us"),
        () if s == 0 => format!("{ms} ms"),
        () if s < 10 && ms % 1000 >= 100 => format!("{s}.{} s", ms % 1000 / 100),
        () if m == 0 => format!("{s} s"),
        () if h == 0 => pair(m, "m", s % 60, "s"),
        () if d == 0 => pair(h, "h", m % 60, "m"),
        () => pair(d, "d", h % 24, "h"),
    }
}

fn pair(large: u64, large_unit: &str, small: u64, small_unit: &str) -> String {
    if small == 0 {
        format!("{large} {large_unit}")
    } else {
        format!("{large} {large_unit} {small} {small_unit}")
    }
}

/// A size: `9.1 MiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    let mut size = bytes as f64;
    let mut units = ["B", "KiB", "MiB", "GiB", "TiB"].iter();
    let mut unit = units.next().unwrap_or(&"");
    // Where one decimal would show 1024.0, the next unit shows 1.0.
    while size >= 1023.95
        && let Some(larger) = units.next()
    {
        size /= 1024.0;
        unit = larger;
    }
    if bytes < 1024 {
        format!("{bytes} B")
    } else {
        format!("{size:.1} {unit}")
    }
}

/// A part of one CPU, from a ratio: `0.3 %`.
pub(crate) fn cpu_percent(ratio: f64) -> String {
    if ratio.is_finite() {
        format!("{:.1} %", ratio * 100.0)
    } else {
        "unknown".to_owned()
    }
}

/// A part of one CPU, from ns a second.
pub(crate) fn cpu_percent_of_ns(ns_per_s: u64) -> String {
    // Tracer's programs take so little that one decimal would often say nothing.
    format!("{:.2} %", ns_per_s as f64 / 1e7)
}

/// How often a second: `88/s`, `0.2/s`.
pub(crate) fn rate(per_s: f64) -> String {
    format!("{}/s", compact(per_s))
}

/// How much more each second, with its sign.
pub(crate) fn growth(per_s: f64) -> String {
    match compact(per_s).as_str() {
        "0" | "<0.1" => "steady".to_owned(),
        number if per_s > 0.0 => format!("+{number}/s"),
        number => format!("{number}/s"),
    }
}

/// A number in two or more digits: `88`, `0.2`, `1,204`.
pub(crate) fn compact(number: f64) -> String {
    let size = number.abs();
    let sign = if number < 0.0 { "-" } else { "" };
    match () {
        () if !number.is_finite() => "unknown".to_owned(),
        () if size >= 9.95 => format!("{sign}{}", grouped(size.round() as u64)),
        () if size >= 0.05 => format!("{number:.1}"),
        () if size > 0.0 => "<0.1".to_owned(),
        () => "0".to_owned(),
    }
}

/// A count with its noun: `1 task`, `1,204 tasks`, `2 processes`.
pub(crate) fn counted(count: u64, noun: &str) -> String {
    let ending = match (count, noun.ends_with('s')) {
        (1, _) => "",
        (_, false) => "s",
        (_, true) => "es",
    };
    format!("{} {noun}{ending}", grouped(count))
}

/// A count, with commas between the thousands.
pub(crate) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{
        age, bytes, cell, compact, counted, cpu_percent, cpu_percent_of_ns, grouped, growth, rate,
        tasks,
    };

    #[test]
    fn ages() {
        for (ns, text) in [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_000, "1 us"),
            (850_000_000, "850 ms"),
            (999_999_999, "999 ms"),
            (1_000_000_000, "1 s"),
            (3_250_000_000, "3.2 s"),
            (59_900_000_000, "59 s"),
            (60_000_000_000, "1 m"),
            (252_000_000_000, "4 m 12 s"),
            (3_600_000_000_000, "1 h"),
            (5_400_000_000_000, "1 h 30 m"),
            (273_600_000_000_000, "3 d 4 h"),
            (u64::MAX, "213503 d 23 h"),
        ] {
            assert_eq!(age(ns), text);
        }
    }

    #[test]
    fn sizes() {
        for (size, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (9_542_042, "9.1 MiB"),
            (1024 * 1024 - 1, "1.0 MiB"),
            (u64::MAX, "16777216.0 TiB"),
        ] {
            assert_eq!(bytes(size), text);
        }
    }

    #[test]
    fn cells() {
        for (value, text) in [
            (0.0, "-"),
            (0.004, "-"),
            (-0.004, "-"),
            (0.005, "0.01"),
            (-0.31, "-0.31"),
            (12.6, "12.60"),
            (f64::NAN, "-"),
            (f64::INFINITY, "-"),
        ] {
            assert_eq!(cell(value), text);
        }
        assert_eq!(tasks(-0.001), "0.00");
    }

    #[test]
    fn rates() {
        for (number, text) in [
            (0.0, "0"),
            (0.01, "<0.1"),
            (0.05, "0.1"),
            (9.94, "9.9"),
            (9.95, "10"),
            (1_204.4, "1,204"),
            (-3.12, "-3.1"),
            (-31.4, "-31"),
            (f64::NAN, "unknown"),
        ] {
            assert_eq!(compact(number), text);
        }
        assert_eq!(rate(88.0), "88/s");
        assert_eq!(growth(3.1), "+3.1/s");
        assert_eq!(growth(-0.2), "-0.2/s");
        assert_eq!(growth(-0.01), "steady");
    }

    #[test]
    fn counts_and_parts() {
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_204), "1,204");
        assert_eq!(grouped(1_000_000), "1,000,000");
        assert_eq!(counted(1, "CPU"), "1 CPU");
        assert_eq!(counted(0, "task"), "0 tasks");
        assert_eq!(counted(2, "process"), "2 processes");
        assert_eq!(cpu_percent(0.003), "0.3 %");
        assert_eq!(cpu_percent(f64::NAN), "unknown");
        assert_eq!(cpu_percent_of_ns(1_200_000), "0.12 %");
    }
}
