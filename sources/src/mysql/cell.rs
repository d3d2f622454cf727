//! One value of a row, whichever way it came: as the log's bytes, or as an answer to a query. Only from here is it
//! written into an image, so that both ways write the same.

use std::fmt::Write;

use super::bytes::{Bytes, Malformed};

/// A value, not yet text.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell<'a> {
    Null,
    Int(i64),
    Uint(u64),
    Float(f32),
    Double(f64),
    Decimal(Digits),
    /// Characters in the column's character set, or bytes.
    Bytes(&'a [u8]),
    Moment(Moment),
    Span(Span),
}

/// A date and a time of day, as the server stores it: zeros and days that no month has are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) year: u16,
    pub(super) month: u8,
    pub(super) day: u8,
    pub(super) hour: u8,
    pub(super) minute: u8,
    pub(super) second: u8,
    pub(super) micros: u32,
}

impl Moment {
    /// From seconds since 1970 in UTC. 0 is the server's zero date.
    pub(super) fn from_seconds(seconds: u64, micros: u32) -> Moment {
        if seconds == 0 {
            return Moment { micros, ..Moment::default() };
        }
        let (days, rest) = (seconds / 86_400, seconds % 86_400);
        // Days since 0000-03-01, in eras of 400 years, so that leap days come last in a year.
        let days = days + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        Moment {
            year: u16::try_from(year).unwrap_or(u16::MAX),
            month: month as u8,
            day: (day_of_year - (153 * shifted + 2) / 5 + 1) as u8,
            hour: (rest / 3_600) as u8,
            minute: (rest / 60 % 60) as u8,
            second: (rest % 60) as u8,
            micros,
        }
    }

    /// `2024-01-02`.
    pub(super) fn write_date(&self, out: &mut String) {
        push_padded(out, u32::from(self.year), 4);
        out.push('-');
        push_padded(out, u32::from(self.month), 2);
        out.push('-');
        push_padded(out, u32::from(self.day), 2);
    }

    /// `2024-01-02T03:04:05.120`, with as many digits of a second as the column has.
    pub(super) fn write(&self, out: &mut String, digits: u8) {
        self.write_date(out);
        out.push('T');
        push_padded(out, u32::from(self.hour), 2);
        out.push(':');
        push_padded(out, u32::from(self.minute), 2);
        out.push(':');
        push_padded(out, u32::from(self.second), 2);
        push_fraction(out, self.micros, digits);
    }
}

/// A span of time, which TIME is: up to 838 hours, also before zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) negative: bool,
    pub(super) hours: u32,
    pub(super) minutes: u8,
    pub(super) seconds: u8,
    pub(super) micros: u32,
}

impl Span {
    /// `-12:34:56.50`.
    pub(super) fn write(&self, out: &mut String, digits: u8) {
        if self.negative {
            out.push('-');
        }
        push_padded(out, self.hours, 2);
        out.push(':');
        push_padded(out, u32::from(self.minutes), 2);
        out.push(':');
        push_padded(out, u32::from(self.seconds), 2);
        push_fraction(out, self.micros, digits);
    }
}

fn push_padded(out: &mut String, number: u32, width: usize) {
    let mut digits = [b'0'; 10];
    let mut at = digits.len();
    let mut rest = number;
    while rest > 0 {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    let at = at.min(digits.len() - width);
    out.push_str(std::str::from_utf8(&digits[at..]).unwrap_or_default());
}

fn push_fraction(out: &mut String, micros: u32, digits: u8) {
    if digits > 0 {
        let _ = write!(out, ".{micros:06}");
        out.truncate(out.len() - usize::from(6_u8.saturating_sub(digits)));
    }
}

/// Appends a number; faster than its `Display`.
pub(super) fn push_uint(out: &mut String, number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.push_str(std::str::from_utf8(&digits[at..]).unwrap_or_default());
}

/// Appends a number; faster than its `Display`.
pub(super) fn push_int(out: &mut String, number: i64) {
    if number < 0 {
        out.push('-');
    }
    push_uint(out, number.unsigned_abs());
}

/// A decimal's text: no needless zeros before the point, every digit after it, no sign before zero.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Digits {
    bytes: [u8; Digits::MAX],
    length: u8,
}

impl std::fmt::Debug for Digits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Digits {
    /// 65 digits, a sign, a point, a zero before it.
    const MAX: usize = 72;

    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.length)]).unwrap_or("0")
    }

    /// From the server's text, which may have zeros in front (ZEROFILL).
    pub(super) fn parse(text: &[u8]) -> Result<Digits, Malformed> {
        let (negative, text) = text.strip_prefix(b"-").map_or((false, text), |rest| (true, rest));
        let mut digits = Digits { bytes: [0; Digits::MAX], length: 0 };
        let good = text.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.');
        if !good || text.is_empty() || text.len() + 2 > Digits::MAX || text.iter().filter(|&&b| b == b'.').count() > 1 {
            return Err(Malformed("a decimal"));
        }
        let whole = text.iter().position(|&byte| byte == b'.').unwrap_or(text.len());
        let zeros = text[..whole].iter().take_while(|&&byte| byte == b'0').count();
        if negative && text.iter().any(|byte| (b'1'..=b'9').contains(byte)) {
            digits.push(b'-');
        }
        if zeros == whole {
            digits.push(b'0');
        }
        for &byte in &text[zeros..] {
            digits.push(byte);
        }
        Ok(digits)
    }

    /// From the log: groups of nine digits in four bytes, fewer digits in fewer bytes, big-endian; the first bit turned
    /// over, and all bits of negative numbers.
    pub(super) fn read(bytes: &mut Bytes<'_>, precision: u8, scale: u8) -> Result<Digits, Malformed> {
        const BYTES: [usize; 10] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];
        let whole = usize::from(precision.checked_sub(scale).ok_or(Malformed("a decimal"))?);
        let scale = usize::from(scale);
        let length = whole / 9 * 4 + BYTES[whole % 9] + scale / 9 * 4 + BYTES[scale % 9];
        let taken = bytes.take(length)?;
        let mut raw = [0; 48];
        let raw = raw.get_mut(..length).filter(|raw| !raw.is_empty()).ok_or(Malformed("a decimal"))?;
        raw.copy_from_slice(taken);
        let negative = raw[0] & 0x80 == 0;
        raw[0] ^= 0x80;
        if negative {
            raw.iter_mut().for_each(|byte| *byte = !*byte);
        }
        let mut rest = Bytes(raw);
        let mut text = [0; Digits::MAX];
        let mut at = 0;
        let mut group = |rest: &mut Bytes<'_>, digits: usize| -> Result<(), Malformed> {
            let mut number = rest.uint_be(BYTES[digits])?;
            let place = text.get_mut(at..at + digits).ok_or(Malformed("a decimal"))?;
            for digit in place.iter_mut().rev() {
                *digit = b'0' + (number % 10) as u8;
                number /= 10;
            }
            at += digits;
            Ok(())
        };
        group(&mut rest, whole % 9)?;
        for _ in 0..whole / 9 {
            group(&mut rest, 9)?;
        }
        for _ in 0..scale / 9 {
            group(&mut rest, 9)?;
        }
        group(&mut rest, scale % 9)?;
        let text = &text[..at];
        let mut digits = Digits { bytes: [0; Digits::MAX], length: 0 };
        if negative && text.iter().any(|&byte| byte != b'0') {
            digits.push(b'-');
        }
        let zeros = text[..whole].iter().take_while(|&&byte| byte == b'0').count();
        if zeros == whole {
            digits.push(b'0');
        }
        for &byte in &text[zeros..whole] {
            digits.push(byte);
        }
        if scale > 0 {
            digits.push(b'.');
        }
        for &byte in &text[whole..] {
            digits.push(byte);
        }
        Ok(digits)
    }

    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(usize::from(self.length)) {
            *place = byte;
            self.length += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn seconds_become_dates() {
        let text = |seconds, micros| {
            let mut out = String::new();
            Moment::from_seconds(seconds, micros).write(&mut out, 6);
            out
        };
        assert_eq!(text(0, 0), "0000-00-00T00:00:00.000000");
        assert_eq!(text(1, 5), "1970-01-01T00:00:01.000005");
        assert_eq!(text(951_782_399, 0), "2000-02-28T23:59:59.000000");
        assert_eq!(text(951_782_400, 0), "2000-02-29T00:00:00.000000");
        assert_eq!(text(1_709_251_199, 999_999), "2024-02-29T23:59:59.999999");
        assert_eq!(text(2_147_483_647, 0), "2038-01-19T03:14:07.000000");
        assert_eq!(text(4_294_967_295, 0), "2106-02-07T06:28:15.000000");
    }

    #[test]
    fn decimals_keep_every_digit_after_the_point() {
        let read = |hex: &str, precision, scale| {
            let bytes: Vec<u8> = hex.split(' ').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
            Digits::read(&mut Bytes(&bytes), precision, scale).unwrap().as_str().to_owned()
        };
        // The example of MySQL's own documentation of the format: decimal(14,4).
        assert_eq!(read("81 0d fb 38 d2 04 d2", 14, 4), "1234567890.1234");
        assert_eq!(read("7e f2 04 c7 2d fb 2d", 14, 4), "-1234567890.1234");
        assert_eq!(read("80 00 00 01 0a", 10, 2), "1.10");
        assert_eq!(read("80 00 00 00 00", 10, 2), "0.00");
        assert_eq!(read("7f ff ff ff fe", 10, 2), "-0.01");
    }

    #[test]
    fn the_servers_text_of_a_decimal_is_made_the_same() {
        let parse = |text: &str| Digits::parse(text.as_bytes()).map(|digits| digits.as_str().to_owned());
        for (from, to) in
            [("0001.10", "1.10"), ("-0.00", "0.00"), ("-0.01", "-0.01"), (".5", "0.5"), ("00", "0"), ("42", "42")]
        {
            assert_eq!(parse(from).as_deref(), Ok(to));
        }
        for text in ["", "1e5", "1.2.3", "--1"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
