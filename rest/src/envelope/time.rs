//! Times for envelopes.

/// Writes milliseconds since 1970 as RFC 3339 has them, in UTC. RFC 3339 ends with the year 9999; later times, which
/// only a broken clock tells, stand for its last millisecond.
pub(super) fn rfc3339(timestamp_ms: u64) -> String {
    const LAST: u64 = 253_402_300_799_999;
    let timestamp_ms = timestamp_ms.min(LAST);
    let (days, in_day_ms) = (timestamp_ms / 86_400_000, timestamp_ms % 86_400_000);
    // Counted from 0000-03-01, so that a leap day is the last of its year.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (in_day_ms / 3_600_000, in_day_ms / 60_000 % 60, in_day_ms / 1_000 % 60);
    let mut out = String::with_capacity(24);
    let milliseconds = in_day_ms % 1_000;
    for (number, digits, follows) in [
        (year, 4, '-'),
        (month, 2, '-'),
        (day, 2, 'T'),
        (hour, 2, ':'),
        (minute, 2, ':'),
        (second, 2, '.'),
        (milliseconds, 3, 'Z'),
    ] {
        let mut power = 10_u64.pow(digits - 1);
        while power > 0 {
            out.push(char::from(b'0' + (number / power % 10) as u8));
            power /= 10;
        }
        out.push(follows);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::rfc3339;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (timestamp_ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_699_380_000_001, "2023-11-07T18:00:00.001Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
            (u64::MAX, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(rfc3339(timestamp_ms), text);
        }
    }
}
