//! The wall clock as text, always in UTC: the same moment reads the same on
//! every host, and no time zone data is needed.

use crate::clock::WallNs;

const NS: u64 = 1_000_000_000;
const DAY_S: u64 = 86_400;

/// RFC 3339 with ns: `2026-11-23T13:05:21.123456789Z`.
pub(crate) fn rfc3339(time: WallNs) -> String {
    let (year, month, day) = civil_date(time.0 / NS / DAY_S);
    format!(
        "{year:04}-{month:02}-{day:02}T{}.{:09}Z",
        clock(time),
        time.0 % NS
    )
}

/// The time of day: `13:05:21`.
pub(crate) fn clock(time: WallNs) -> String {
    let second = time.0 / NS % DAY_S;
    format!(
        "{:02}:{:02}:{:02}",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

/// The time of day to the ms: `13:05:21.123`.
pub(crate) fn clock_ms(time: WallNs) -> String {
    format!("{}.{:03}", clock(time), time.0 / 1_000_000 % 1000)
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian
/// calendar. Years begin in March here, so that the leap day comes last and all
/// months before it follow one rule: 153 days in five months.
fn civil_date(day: u64) -> (u64, u64, u64) {
    // Days from 0000-03-01 to 1970-01-01; days in 400, 100 and 4 years.
    let day = day + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day_of_month = day - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (era * 400 + year + next_year, month, day_of_month)
}

#[cfg(test)]
mod tests {
    use super::{DAY_S, NS, civil_date, rfc3339};
    use crate::clock::WallNs;

    #[test]
    fn known_moments() {
        for (second, text) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (68_169_599, "1972-02-28T23:59:59.000000000Z"),
            (68_169_600, "1972-02-29T00:00:00.000000000Z"),
            (951_868_800, "2000-03-01T00:00:00.000000000Z"),
            (1_795_439_121, "2026-11-23T13:05:21.000000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000000Z"),
        ] {
            assert_eq!(rfc3339(WallNs(second * NS)), text);
        }
        assert_eq!(
            rfc3339(WallNs(123_456_789)),
            "1970-01-01T00:00:00.123456789Z"
        );
        assert_eq!(rfc3339(WallNs(u64::MAX)), "2554-07-21T23:34:33.709551615Z");
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let is_leap = |year: u64| {
            year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
        };
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for number in 0..u64::MAX / NS / DAY_S {
            assert_eq!(civil_date(number), (year, month, day));
            let length = match month {
                2 if is_leap(year) => 29,
                2 => 28,
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if day > length {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
    }
}
