//! MySQL's binary JSON, as its log holds it, turned into text.
//!
//! Source: MySQL's `sql-common/json_binary.h`. A document is a type byte and a value; objects and arrays are small
//! (two-byte offsets) or large (four), begin with their count and size, and hold offsets from their own beginning. Not
//! here: updates that hold only what changed, which is [`super::json_diff`].

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::bytes::{Bytes, Malformed};
use super::cell::{Digits, push_int, push_uint};
use super::table_map::code;
use crate::json;

/// MySQL allows 100 levels.
const DEPTH_MAX: usize = 101;

/// A document's text, without white space between tokens. An empty document is JSON's null, as the server takes it.
pub(super) fn text(bytes: &[u8]) -> Result<String, Malformed> {
    let mut out = String::with_capacity(bytes.len() + bytes.len() / 4);
    match bytes.split_first() {
        None => out.push_str("null"),
        Some((&kind, rest)) => value(kind, rest, &mut out, Limits::of(bytes))?,
    }
    Ok(out)
}

/// How deep a document may still go, and how long its text may become: what refers to its parts over and over again is
/// no document.
#[derive(Clone, Copy, Debug)]
struct Limits {
    depth: usize,
    text_bytes: usize,
}

impl Limits {
    fn of(document: &[u8]) -> Limits {
        // A byte becomes six characters at most, and an element of three bytes eighteen.
        Limits { depth: DEPTH_MAX, text_bytes: document.len().saturating_mul(16).saturating_add(256) }
    }

    /// Inside of a list, with this much text already there.
    fn deeper(self, text_bytes: usize) -> Result<Limits, Malformed> {
        let depth = self.depth.checked_sub(1).ok_or(Malformed("JSON that is too deep"))?;
        if text_bytes > self.text_bytes {
            return Err(Malformed("JSON whose parts are in it several times"));
        }
        Ok(Limits { depth, ..self })
    }
}

/// Appends JSON text with its white space left out and its floating point numbers in one form, so that what a query
/// answers and what [`text`] makes are the same. `false`, with nothing appended, if it is not JSON.
pub(super) fn push_normal(out: &mut String, text: &str, depth_max: usize) -> bool {
    let mut compact = String::with_capacity(text.len());
    if !json::push_compact(&mut compact, text, depth_max) {
        return false;
    }
    let mut rest = compact.as_str();
    while let Some(at) = rest.find(|first: char| first == '"' || first == '-' || first.is_ascii_digit()) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let end = if rest.starts_with('"') { string_end(rest) } else { number_end(rest) };
        let (token, after) = rest.split_at(end);
        match token.parse::<f64>() {
            Ok(number) if !token.starts_with('"') && is_double(token) && number.is_finite() => {
                let mut buffer = zmij::Buffer::new();
                let shortest = buffer.format_finite(number);
                // A DECIMAL of as many digits may lie between two doubles.
                out.push_str(if digits(shortest) == digits(token) { shortest } else { token });
            }
            _ => out.push_str(token),
        }
        rest = after;
    }
    out.push_str(rest);
    true
}

fn string_end(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn number_end(text: &str) -> usize {
    text.find(|next: char| !matches!(next, '0'..='9' | '+' | '-' | '.' | 'e' | 'E')).unwrap_or(text.len())
}

/// The digits of a number without zeros around them, and the power of ten of the last of them.
fn digits(token: &str) -> (String, i64) {
    let (mantissa, exponent) = token.split_once(['e', 'E']).unwrap_or((token, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all: String = whole.chars().chain(fraction.chars()).filter(char::is_ascii_digit).collect();
    let significant = all.trim_end_matches('0');
    let power = exponent.parse::<i64>().unwrap_or(0) - fraction.len() as i64 + (all.len() - significant.len()) as i64;
    let significant = significant.trim_start_matches('0');
    (significant.to_owned(), if significant.is_empty() { 0 } else { power })
}

/// Not an integer, and no more digits than a double has; what has more is a DECIMAL and stays as it is.
fn is_double(token: &str) -> bool {
    let mantissa = token.split(['e', 'E']).next().unwrap_or(token);
    let digits = mantissa.bytes().filter(u8::is_ascii_digit).skip_while(|&digit| digit == b'0').count();
    digits <= 17 && token.contains(['.', 'e', 'E'])
}

fn value(kind: u8, bytes: &[u8], out: &mut String, limits: Limits) -> Result<(), Malformed> {
    let mut rest = Bytes(bytes);
    match kind {
        0 => list(bytes, 2, true, out, limits)?,
        1 => list(bytes, 4, true, out, limits)?,
        2 => list(bytes, 2, false, out, limits)?,
        3 => list(bytes, 4, false, out, limits)?,
        4 => literal(rest.u8()?, out)?,
        5 => push_int(out, i64::from(rest.u16()? as i16)),
        6 => push_uint(out, u64::from(rest.u16()?)),
        7 => push_int(out, i64::from(rest.u32()? as i32)),
        8 => push_uint(out, u64::from(rest.u32()?)),
        9 => push_int(out, rest.u64()? as i64),
        10 => push_uint(out, rest.u64()?),
        11 => out.push_str(zmij::Buffer::new().format_finite(f64::from_le_bytes(rest.array()?))),
        12 => {
            let length = length(&mut rest)?;
            json::push_string(out, utf8(rest.take(length)?)?);
        }
        15 => {
            let field = rest.u8()?;
            let length = length(&mut rest)?;
            opaque(field, rest.take(length)?, out)?;
        }
        _ => return Err(Malformed("a type of JSON that is not known")),
    }
    Ok(())
}

/// An object or an array whose numbers have `width` bytes.
fn list(bytes: &[u8], width: usize, object: bool, out: &mut String, limits: Limits) -> Result<(), Malformed> {
    out.push(if object { '{' } else { '[' });
    for (at, entry) in Entries::new(bytes, width, object)?.enumerate() {
        let Entry { key, kind, bytes } = entry?;
        if at > 0 {
            out.push(',');
        }
        if let Some(key) = key {
            json::push_string(out, key);
            out.push(':');
        }
        value(kind, bytes, out, limits.deeper(out.len())?)?;
    }
    out.push(if object { '}' } else { ']' });
    Ok(())
}

/// A member of an object or an element of an array.
struct Entry<'a> {
    /// None in an array.
    key: Option<&'a str>,
    kind: u8,
    /// From its value on.
    bytes: &'a [u8],
}

/// What is in an object or an array.
struct Entries<'a> {
    /// The whole list.
    bytes: &'a [u8],
    width: usize,
    /// What is left of where keys are, if there are any.
    keys: Option<Bytes<'a>>,
    /// What is left of where values are.
    head: Bytes<'a>,
    left: usize,
}

impl<'a> Entries<'a> {
    fn new(bytes: &'a [u8], width: usize, object: bool) -> Result<Entries<'a>, Malformed> {
        let mut head = Bytes(bytes);
        let left = head.uint(width)? as usize;
        let size = head.uint(width)? as usize;
        let bytes = bytes.get(..size).ok_or(Malformed("JSON that ends too early"))?;
        let keys = if object { Some(Bytes(head.take(left.saturating_mul(width + 2))?)) } else { None };
        Ok(Entries { bytes, width, keys, head, left })
    }

    fn entry(&mut self) -> Result<Entry<'a>, Malformed> {
        let mut key = None;
        if let Some(keys) = &mut self.keys {
            let place = keys.uint(self.width)? as usize;
            let length = usize::from(keys.u16()?);
            let name = self.bytes.get(place..).and_then(|rest| rest.get(..length));
            key = Some(utf8(name.ok_or(Malformed("a JSON member's name"))?)?);
        }
        let kind = self.head.u8()?;
        let bytes = self.head.take(self.width)?;
        let inlined = matches!(kind, 4..=6) || (self.width == 4 && matches!(kind, 7 | 8));
        if inlined {
            return Ok(Entry { key, kind, bytes });
        }
        let place = Bytes(bytes).uint(self.width)? as usize;
        let bytes = self.bytes.get(place..).ok_or(Malformed("a JSON value's place"))?;
        Ok(Entry { key, kind, bytes })
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        Some(self.entry())
    }
}

/// A document taken apart as far as it can be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    /// Its text.
    Scalar(String),
    Array(Vec<Node>),
    /// In the order of the binary form: shorter names first, then by their bytes.
    Object(Vec<(String, Node)>),
}

impl Node {
    pub(super) fn read(bytes: &[u8]) -> Result<Node, Malformed> {
        match bytes.split_first() {
            None => Ok(Node::Scalar("null".into())),
            Some((&kind, rest)) => Node::of(kind, rest, Limits::of(bytes), &mut 0),
        }
    }

    /// `written` is how long the text of what was read before is.
    fn of(kind: u8, bytes: &[u8], limits: Limits, written: &mut usize) -> Result<Node, Malformed> {
        let width = if matches!(kind, 0 | 2) { 2 } else { 4 };
        Ok(match kind {
            0 | 1 => {
                let member = |entry: Result<Entry<'_>, Malformed>| {
                    let Entry { key, kind, bytes } = entry?;
                    let key = key.unwrap_or_default().to_owned();
                    *written += key.len() + 1;
                    let limits = limits.deeper(*written)?;
                    Ok((key, Node::of(kind, bytes, limits, written)?))
                };
                Node::Object(Entries::new(bytes, width, true)?.map(member).collect::<Result<_, _>>()?)
            }
            2 | 3 => {
                let element = |entry: Result<Entry<'_>, Malformed>| {
                    let Entry { kind, bytes, .. } = entry?;
                    *written += 1;
                    let limits = limits.deeper(*written)?;
                    Node::of(kind, bytes, limits, written)
                };
                Node::Array(Entries::new(bytes, width, false)?.map(element).collect::<Result<_, _>>()?)
            }
            _ => {
                let mut text = String::new();
                value(kind, bytes, &mut text, limits)?;
                *written += text.len();
                Node::Scalar(text)
            }
        })
    }

    /// Appends the text that [`text`] makes of the same document.
    pub(super) fn write(&self, out: &mut String) {
        match self {
            Node::Scalar(text) => out.push_str(text),
            Node::Array(elements) => {
                out.push('[');
                for (at, element) in elements.iter().enumerate() {
                    out.push_str(if at > 0 { "," } else { "" });
                    element.write(out);
                }
                out.push(']');
            }
            Node::Object(members) => {
                out.push('{');
                for (at, (key, member)) in members.iter().enumerate() {
                    out.push_str(if at > 0 { "," } else { "" });
                    json::push_string(out, key);
                    out.push(':');
                    member.write(out);
                }
                out.push('}');
            }
        }
    }
}

fn literal(kind: u8, out: &mut String) -> Result<(), Malformed> {
    out.push_str(match kind {
        0 => "null",
        1 => "true",
        2 => "false",
        _ => return Err(Malformed("a JSON literal")),
    });
    Ok(())
}

/// A length of seven bits a byte, the lowest first; the top bit says that more follow.
fn length(bytes: &mut Bytes<'_>) -> Result<usize, Malformed> {
    let mut length = 0;
    for shift in (0..35).step_by(7) {
        let byte = bytes.u8()?;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(length);
        }
    }
    Err(Malformed("a length in JSON"))
}

fn utf8(bytes: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(bytes).map_err(|_| Malformed("JSON that is no text"))
}

/// A value of SQL inside JSON, written as the server writes it.
fn opaque(field: u8, bytes: &[u8], out: &mut String) -> Result<(), Malformed> {
    match field {
        code::NEWDECIMAL => {
            let mut rest = Bytes(bytes);
            let (precision, scale) = (rest.u8()?, rest.u8()?);
            out.push_str(Digits::read(&mut rest, precision, scale)?.as_str());
        }
        code::DATE | code::DATETIME | code::TIMESTAMP => {
            let packed = Bytes(bytes).u64()?;
            let (whole, micros) = (packed >> 24, packed & 0xff_ffff);
            let months = whole >> 22;
            let (year, month, day) = (months / 13, months % 13, whole >> 17 & 31);
            let _ = write!(out, "\"{year:04}-{month:02}-{day:02}");
            if field != code::DATE {
                let (hour, minute, second) = (whole >> 12 & 31, whole >> 6 & 63, whole & 63);
                let _ = write!(out, " {hour:02}:{minute:02}:{second:02}.{micros:06}");
            }
            out.push('"');
        }
        code::TIME => {
            let packed = Bytes(bytes).u64()? as i64;
            let (sign, packed) = (if packed < 0 { "-" } else { "" }, packed.unsigned_abs());
            let (whole, micros) = (packed >> 24, packed & 0xff_ffff);
            let (hour, minute, second) = (whole >> 12 & 0x3ff, whole >> 6 & 63, whole & 63);
            let _ = write!(out, "\"{sign}{hour:02}:{minute:02}:{second:02}.{micros:06}\"");
        }
        other => {
            let _ = write!(out, "\"base64:type{other}:");
            STANDARD.encode_string(bytes, out);
            out.push('"');
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn of(hex: &str) -> Result<String, Malformed> {
        let bytes: Vec<u8> = hex.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        text(&bytes)
    }

    #[test]
    fn scalars_are_written_with_every_digit() {
        for (hex, expected) in [
            ("04 00", "null"),
            ("04 01", "true"),
            ("05 ff ff", "-1"),
            ("06 ff ff", "65535"),
            ("07 00 00 00 80", "-2147483648"),
            ("09 00 00 00 00 00 00 00 80", "-9223372036854775808"),
            ("0a ff ff ff ff ff ff ff ff", "18446744073709551615"),
            ("0b 9a 99 99 99 99 99 f1 3f", "1.1"),
            ("0c 03 61 22 62", "\"a\\\"b\""),
            ("0f f6 07 0a 02 80 00 00 01 0a", "1.10"),
            ("0f fc 02 01 02", "\"base64:type252:AQI=\""),
            ("", "null"),
        ] {
            assert_eq!(of(hex).as_deref(), Ok(expected), "{hex}");
        }
    }

    #[test]
    fn objects_and_arrays_hold_offsets_from_their_own_beginning() {
        // {"a":1,"b":[true,"x"]}: two members, 32 bytes; keys at 0x12 and 0x13; 1 is inlined, the array is at 0x14.
        let object = "00 02 00 20 00 12 00 01 00 13 00 01 00 05 01 00 02 14 00 61 62 \
            02 00 0c 00 04 01 00 0c 0a 00 01 78";
        assert_eq!(of(object).as_deref(), Ok("{\"a\":1,\"b\":[true,\"x\"]}"));
        // The same array, large.
        let large = "03 02 00 00 00 14 00 00 00 04 01 00 00 00 0c 12 00 00 00 01 78";
        assert_eq!(of(large).as_deref(), Ok("[true,\"x\"]"));
    }

    #[test]
    fn numbers_of_answers_and_of_the_log_take_one_form() {
        let normal = |text: &str| {
            let mut out = String::new();
            push_normal(&mut out, text, 9).then_some(out)
        };
        let text = "{\"1.0e5\": [1e15, 1.10, -0.5, 12, 1.2345678901234567890], \"b\\\"\": 1E-7}";
        let expected = "{\"1.0e5\":[1000000000000000.0,1.1,-0.5,12,1.2345678901234567890],\"b\\\"\":1e-7}";
        assert_eq!(normal(text).as_deref(), Some(expected));
        assert_eq!(normal(expected).as_deref(), Some(expected));
        assert_eq!(normal("{"), None);
        // A DECIMAL that no double is, one that is written otherwise, and the smallest double.
        assert_eq!(
            normal("[0.12345678901234567,9.00,100e-2,5e-324]").as_deref(),
            Some("[0.12345678901234567,9.0,1.0,5e-324]")
        );
    }

    #[test]
    fn dates_inside_json_are_written_as_the_server_does() {
        // 2024-02-29 12:34:56.000007
        let whole: u64 = ((2024 * 13 + 2) << 22) | (29 << 17) | (12 << 12) | (34 << 6) | 56;
        let packed = (whole << 24 | 7).to_le_bytes();
        let mut bytes = vec![15, code::DATETIME, 8];
        bytes.extend(packed);
        assert_eq!(text(&bytes).as_deref(), Ok("\"2024-02-29 12:34:56.000007\""));
    }

    #[test]
    fn what_is_cut_or_nested_in_itself_is_an_error() {
        let object = "00 02 00 20 00 12 00 01 00 13 00 01 00 05 01 00 02 14 00 61 62 02 00 0c 00 04 01 00 0c 0a 00 01";
        assert!(of(object).is_err());
        // An array whose element is the array itself.
        assert_eq!(of("02 01 00 07 00 02 00 00"), Err(Malformed("JSON that is too deep")));
        assert!(of("2a").is_err());
    }

    #[test]
    fn a_document_whose_parts_are_in_it_over_and_over_is_an_error() {
        // Sixty arrays of two elements, which are both the next array: 2^60 values.
        let mut bytes = vec![2];
        for level in 0..60_u16 {
            let (place, size) = (10_u16, 10 * (61 - level));
            bytes.extend([2, 0]);
            bytes.extend(size.to_le_bytes());
            for _ in 0..2 {
                bytes.push(2);
                bytes.extend(place.to_le_bytes());
            }
        }
        bytes.extend([0, 0, 4, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(text(&bytes), Err(Malformed("JSON whose parts are in it several times")));
        assert_eq!(Node::read(&bytes), Err(Malformed("JSON whose parts are in it several times")));
    }

    #[test]
    fn the_longest_text_of_a_document_is_allowed() {
        // Control characters, which are six characters each; and `false`, of which each is three bytes.
        let escaped = [&[12, 100][..], &[1; 100]].concat();
        assert_eq!(text(&escaped).map(|text| text.len()), Ok(602));
        let mut list = vec![2, 200, 0, 92, 2];
        list.extend([4, 2, 0].repeat(200));
        assert_eq!(text(&list).map(|text| text.len()), Ok(200 * 6 + 1));
    }
}
