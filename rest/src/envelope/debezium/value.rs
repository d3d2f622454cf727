//! Single values as Debezium writes them. What has not the form that its column promises (`infinity`, a date of zeros,
//! a hash in its place) is copied as it is.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::form::{ColumnForm, Form};
use crate::envelope::image::{Items, plain, unmarked};
use crate::json;

/// Stands for a value that the source did not tell and nobody knew.
pub(super) const UNAVAILABLE: &str = "__debezium_unavailable_value";

/// Writes a value of an image.
pub(super) fn write(out: &mut Vec<u8>, value: &[u8], column: ColumnForm) {
    // As a connector does it: JSON's null is a text, SQL's is none.
    if column.is_marked
        && let Some(inside) = unmarked(value)
        && let Ok(text) = std::str::from_utf8(inside)
    {
        json::string(out, text);
        return;
    }
    match Items::of(value) {
        // Arrays of arrays too: their items are of the same type.
        Some(items) if column.is_array => {
            out.push(b'[');
            json::list(out, items, |out, item| write(out, item, column));
            out.push(b']');
        }
        _ => {
            let from = out.len();
            if value == b"null" || convert(out, value, column.form).is_none() {
                out.truncate(from);
                out.extend_from_slice(value);
            }
        }
    }
}

/// Writes what stands for a value that is not known.
pub(super) fn write_unavailable(out: &mut Vec<u8>, column: ColumnForm) {
    let text = if column.form == Form::Bytes { STANDARD.encode(UNAVAILABLE) } else { UNAVAILABLE.to_owned() };
    if column.is_array {
        out.push(b'[');
    }
    json::string(out, &text);
    if column.is_array {
        out.push(b']');
    }
}

/// None if the value stays as it is. What was written until then does not count.
fn convert(out: &mut Vec<u8>, value: &[u8], form: Form) -> Option<()> {
    match form {
        Form::Decimal => {
            if !matches!(value.first()?, b'-' | b'0'..=b'9') {
                return None;
            }
            out.push(b'"');
            out.extend_from_slice(value);
            out.push(b'"');
        }
        Form::Json => json::string(out, std::str::from_utf8(value).ok()?),
        Form::Bits(length) => write_bits(out, value, length)?,
        Form::Set => {
            let members: Option<Vec<_>> = Items::of(value)?.map(plain).collect();
            json::string(out, &members?.join(","));
        }
        Form::Date => quote(out, &date(&plain(value)?)?),
        Form::Time => quote(out, &time(&plain(value)?)?),
        Form::Timestamp => quote(out, &timestamp(&plain(value)?)?),
        Form::ZonedTimestamp => quote(out, &timestamp(plain(value)?.strip_suffix('Z')?)?),
        Form::ZonedTime => quote(out, &zoned_time(&plain(value)?)?),
        Form::Interval => quote(out, &interval(&plain(value)?)?),
        _ => return None,
    }
    Some(())
}

fn quote(out: &mut Vec<u8>, text: &str) {
    json::string(out, text);
}

/// One bit is a boolean, several are bytes, the lowest first. PostgreSQL's are a text of zeros and ones, MariaDB's an
/// integer of at most 64 bits.
fn write_bits(out: &mut Vec<u8>, value: &[u8], length: Option<u32>) -> Option<()> {
    let bytes = match plain(value) {
        Some(text) => {
            if text.bytes().any(|bit| !matches!(bit, b'0' | b'1')) {
                return None;
            }
            let bits: Vec<u8> = text.bytes().rev().collect();
            bits.chunks(8).map(|bits| bits.iter().rev().fold(0, |byte, bit| byte << 1 | (bit & 1))).collect()
        }
        None => {
            let number: u64 = std::str::from_utf8(value).ok()?.parse().ok()?;
            let length = usize::try_from(length?.div_ceil(8)).ok()?;
            number.to_le_bytes().get(..length)?.to_vec()
        }
    };
    match length {
        Some(1) => json::boolean(out, *bytes.first()? & 1 == 1),
        _ => json::string(out, &STANDARD.encode(bytes)),
    }
    Some(())
}

/// `2024-01-02` becomes `2024-01-02Z`.
fn date(text: &str) -> Option<String> {
    is_date(text).then(|| format!("{text}Z"))
}

/// `03:04:05.120` becomes `03:04:05.12Z`.
fn time(text: &str) -> Option<String> {
    parse_time(text)?;
    Some(format!("{}Z", without_zeros(text)))
}

/// `2024-01-02T03:04:05.120` becomes `2024-01-02T03:04:05.12Z`.
fn timestamp(text: &str) -> Option<String> {
    let (date, time) = text.split_once('T')?;
    parse_time(time)?;
    is_date(date).then(|| format!("{date}T{}Z", without_zeros(time)))
}

/// `03:04:05.12+02` becomes `01:04:05.12Z`.
fn zoned_time(text: &str) -> Option<String> {
    let at = text.rfind(['+', '-'])?;
    let (time, offset) = text.split_at(at);
    let (seconds, fraction) = parse_time(time)?;
    let mut pieces = offset[1..].split(':').map(two_digits);
    let (hours, minutes, rest) =
        (pieces.next()??, pieces.next().unwrap_or(Some(0))?, pieces.next().unwrap_or(Some(0))?);
    let behind = hours * 3_600 + minutes * 60 + rest;
    let day = 86_400;
    let utc = if offset.starts_with('+') { seconds + 2 * day - behind } else { seconds + behind } % day;
    Some(format!("{:02}:{:02}:{:02}{}Z", utc / 3_600, utc / 60 % 60, utc % 60, without_zeros(fraction)))
}

/// `P1DT2H` becomes `P0Y0M1DT2H0M0S`: Debezium writes every piece.
fn interval(text: &str) -> Option<String> {
    let text = text.strip_prefix('P')?;
    let (days, hours) = text.split_once('T').unwrap_or((text, ""));
    let [years, months, days] = pieces(days, [b'Y', b'M', b'D'])?;
    let [hours, minutes, seconds] = pieces(hours, [b'H', b'M', b'S'])?;
    Some(format!("P{years}Y{months}M{days}DT{hours}H{minutes}M{}S", without_zeros(seconds)))
}

/// Numbers, each before its letter; 0 for those that are left out.
fn pieces<const N: usize>(text: &str, letters: [u8; N]) -> Option<[&str; N]> {
    let mut found = ["0"; N];
    let mut rest = text;
    for (letter, found) in letters.iter().zip(&mut found) {
        let number = rest.bytes().take_while(|byte| matches!(byte, b'0'..=b'9' | b'-' | b'.')).count();
        if number > 0 && rest.as_bytes().get(number) == Some(letter) {
            *found = &rest[..number];
            rest = &rest[number + 1..];
        }
    }
    rest.is_empty().then_some(found)
}

/// A day that a calendar may have: four digits of a year or more, and no month or day zero.
fn is_date(text: &str) -> bool {
    let mut pieces = text.rsplitn(3, '-');
    let (day, month, year) = (pieces.next(), pieces.next(), pieces.next());
    let in_year =
        |piece: Option<&str>, most| piece.and_then(two_digits).is_some_and(|number| (1..=most).contains(&number));
    in_year(day, 31)
        && in_year(month, 12)
        && year.is_some_and(|year| year.len() >= 4 && year.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Seconds of the day, and what follows them: nothing, or a point and digits.
fn parse_time(text: &str) -> Option<(u32, &str)> {
    let whole = text.get(..8)?;
    let fraction = &text[8..];
    let digits = fraction.strip_prefix('.').unwrap_or(fraction);
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) || (digits.is_empty() != fraction.is_empty()) {
        return None;
    }
    if !fraction.is_empty() && !fraction.starts_with('.') {
        return None;
    }
    let mut pieces = whole.split(':').map(two_digits);
    let (hours, minutes, seconds) = (pieces.next()??, pieces.next()??, pieces.next()??);
    (hours < 24 && minutes < 60 && seconds < 60).then_some((hours * 3_600 + minutes * 60 + seconds, fraction))
}

fn two_digits(text: &str) -> Option<u32> {
    (text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

/// Without the zeros at the end of a fraction, which say nothing: Java leaves them out.
fn without_zeros(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(form: Form, value: &str) -> String {
        let mut out = Vec::new();
        write(&mut out, value.as_bytes(), ColumnForm::plain(form));
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn values_are_written_as_debezium_does() {
        for (form, value, expected) in [
            (Form::Decimal, "1.10", "\"1.10\""),
            (Form::Decimal, "-123456789012345678901234567890.00", "\"-123456789012345678901234567890.00\""),
            (Form::Decimal, "\"NaN\"", "\"NaN\""),
            (Form::Int64, "9223372036854775807", "9223372036854775807"),
            (Form::Json, r#"{"a":[1.10,"x"]}"#, r#""{\"a\":[1.10,\"x\"]}""#),
            (Form::Json, "\"x\"", r#""\"x\"""#),
            (Form::Json, "null", "null"),
            (Form::Date, "\"2017-09-15\"", "\"2017-09-15Z\""),
            (Form::Date, "\"0000-00-00\"", "\"0000-00-00\""),
            (Form::Date, "\"infinity\"", "\"infinity\""),
            (Form::Time, "\"04:05:11.789\"", "\"04:05:11.789Z\""),
            (Form::Time, "\"04:05:11.120000\"", "\"04:05:11.12Z\""),
            (Form::Time, "\"04:05:10.000\"", "\"04:05:10Z\""),
            (Form::Time, "\"-12:34:56\"", "\"-12:34:56\""),
            (Form::Time, "\"838:59:59\"", "\"838:59:59\""),
            (Form::Timestamp, "\"2019-07-09T02:28:57.123456\"", "\"2019-07-09T02:28:57.123456Z\""),
            (Form::Timestamp, "\"2019-07-09T02:28:50\"", "\"2019-07-09T02:28:50Z\""),
            (Form::Timestamp, "\"0044-03-15 12:00:00 BC\"", "\"0044-03-15 12:00:00 BC\""),
            (Form::ZonedTimestamp, "\"2019-07-09T02:28:57.120Z\"", "\"2019-07-09T02:28:57.12Z\""),
            (Form::ZonedTimestamp, "\"-infinity\"", "\"-infinity\""),
            (Form::ZonedTime, "\"03:04:05.12+02\"", "\"01:04:05.12Z\""),
            (Form::ZonedTime, "\"00:04:05+05:30\"", "\"18:34:05Z\""),
            (Form::ZonedTime, "\"23:00:00-07\"", "\"06:00:00Z\""),
            (Form::Interval, "\"P1DT2H\"", "\"P0Y0M1DT2H0M0S\""),
            (Form::Interval, "\"P1Y2M3DT4H5M6.78S\"", "\"P1Y2M3DT4H5M6.78S\""),
            (Form::Interval, "\"P-1Y-2MT-0.5S\"", "\"P-1Y-2M0DT0H0M-0.5S\""),
            (Form::Interval, "\"PT0S\"", "\"P0Y0M0DT0H0M0S\""),
            (Form::Interval, "\"1 day\"", "\"1 day\""),
            (Form::Bits(Some(1)), "\"1\"", "true"),
            (Form::Bits(Some(1)), "0", "false"),
            (Form::Bits(Some(12)), "\"100000000001\"", "\"AQg=\""),
            (Form::Bits(Some(12)), "2049", "\"AQg=\""),
            (Form::Bits(None), "\"101\"", "\"BQ==\""),
            (Form::Bits(Some(3)), "\"a hash\"", "\"a hash\""),
            (Form::Set, r#"["a","b\"c"]"#, r#""a,b\"c""#),
            (Form::Bytes, "\"3q2+7w==\"", "\"3q2+7w==\""),
        ] {
            assert_eq!(written(form, value), expected, "{form:?} {value}");
        }
    }

    #[test]
    fn items_of_arrays_are_converted_at_any_depth() {
        let mut out = Vec::new();
        write(&mut out, b"[[1.10,null],[2.0]]", ColumnForm { is_array: true, ..ColumnForm::plain(Form::Decimal) });
        assert_eq!(out, br#"[["1.10",null],["2.0"]]"#);
    }
}
