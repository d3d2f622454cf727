//! How a column's values are read, from the log and from a query's answer, and written into images.

use std::borrow::Cow;
use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mysql_async::Value;

use super::bytes::{Bytes, Malformed};
use super::cell::{Cell, Digits, Moment, Span, push_int, push_uint};
use super::charset::Charset;
use super::event;
use super::json_binary;
use crate::change::Kind;
use crate::json;

/// How deep a JSON document may be before it is captured as a string instead of as itself; the engine takes 128 levels.
const JSON_DEPTH_MAX: usize = 100;

/// Bytes of a value before its own length, as they stand in the log.
pub(super) type Prefix = u8;

/// A column's type, as far as its values need it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Codec {
    Int {
        bytes: u8,
        unsigned: bool,
    },
    Float,
    Double,
    Decimal {
        precision: u8,
        scale: u8,
    },
    Year,
    Bit {
        bytes: u8,
    },
    Date,
    /// `packed` values are those of MySQL 5.6 and later, with digits of seconds; the others are older.
    Time {
        digits: u8,
        packed: bool,
    },
    DateTime {
        digits: u8,
        packed: bool,
    },
    Timestamp {
        digits: u8,
        packed: bool,
    },
    Text {
        prefix: Prefix,
        charset: Charset,
        compressed: bool,
    },
    /// MariaDB's JSON: text that the server checked.
    JsonText {
        prefix: Prefix,
        charset: Charset,
        compressed: bool,
    },
    /// `pad` is the length of a BINARY, whose trailing zeros the log leaves out.
    Binary {
        prefix: Prefix,
        pad: Option<u16>,
        compressed: bool,
    },
    Enum {
        bytes: u8,
        members: Vec<String>,
    },
    Set {
        bytes: u8,
        members: Vec<String>,
    },
    /// MySQL's JSON, in its own binary form in the log.
    Json {
        prefix: Prefix,
    },
    Geometry {
        prefix: Prefix,
    },
    /// MySQL's VECTOR: numbers of four bytes, one after the other.
    Vector {
        prefix: Prefix,
    },
    Uuid,
    Inet6,
    Inet4,
}

impl Codec {
    /// Of which JSON type its values are.
    pub(super) fn kind(&self) -> Kind {
        match self {
            Codec::Int { .. } | Codec::Float | Codec::Double | Codec::Decimal { .. } => Kind::Number,
            Codec::Year | Codec::Bit { .. } => Kind::Number,
            Codec::JsonText { .. } | Codec::Json { .. } => Kind::Any,
            Codec::Set { .. } | Codec::Vector { .. } => Kind::Array,
            Codec::Geometry { .. } => Kind::Object,
            _ => Kind::String,
        }
    }

    /// Reads a value from the log. `scratch` holds it if it had to be unpacked.
    #[inline]
    pub(super) fn read<'a, 'b: 'a>(
        &self,
        bytes: &mut Bytes<'b>,
        scratch: &'a mut Vec<u8>,
    ) -> Result<Cell<'a>, Malformed> {
        Ok(match *self {
            Codec::Int { bytes: length, unsigned } => {
                let raw = bytes.uint(usize::from(length))?;
                if unsigned {
                    Cell::Uint(raw)
                } else {
                    // Moves the sign to the top and back.
                    let shift = 64 - 8 * u32::from(length);
                    Cell::Int(((raw << shift) as i64) >> shift)
                }
            }
            Codec::Float => Cell::Float(f32::from_le_bytes(bytes.array()?)),
            Codec::Double => Cell::Double(f64::from_le_bytes(bytes.array()?)),
            Codec::Decimal { precision, scale } => Cell::Decimal(Digits::read(bytes, precision, scale)?),
            Codec::Year => {
                let year = u64::from(bytes.u8()?);
                Cell::Uint(if year == 0 { 0 } else { 1900 + year })
            }
            Codec::Bit { bytes: length } => Cell::Uint(bytes.uint_be(usize::from(length))?),
            Codec::Date => {
                let packed = bytes.uint(3)?;
                let (year, month, day) = ((packed >> 9) as u16, (packed >> 5 & 15) as u8, (packed & 31) as u8);
                Cell::Moment(Moment { year, month, day, ..Moment::default() })
            }
            Codec::Time { digits, packed } => Cell::Span(read_time(bytes, digits, packed)?),
            Codec::DateTime { digits, packed } => Cell::Moment(read_datetime(bytes, digits, packed)?),
            Codec::Timestamp { digits, packed } => {
                let seconds = if packed { bytes.uint_be(4)? } else { bytes.uint(4)? };
                let micros = read_fraction(bytes, digits)?;
                Cell::Moment(Moment::from_seconds(seconds, micros))
            }
            Codec::Text { prefix, compressed, .. } | Codec::JsonText { prefix, compressed, .. } => {
                let raw = prefixed(bytes, prefix)?;
                Cell::Bytes(if compressed { unpack(raw, scratch)? } else { raw })
            }
            Codec::Binary { prefix, pad, compressed } => {
                let raw = prefixed(bytes, prefix)?;
                match pad {
                    Some(length) if raw.len() < usize::from(length) => Cell::Bytes(padded(raw, length, scratch)),
                    _ => Cell::Bytes(if compressed { unpack(raw, scratch)? } else { raw }),
                }
            }
            Codec::Enum { bytes: length, .. } | Codec::Set { bytes: length, .. } => {
                Cell::Uint(bytes.uint(usize::from(length))?)
            }
            Codec::Json { prefix } => {
                let text = json_binary::text(prefixed(bytes, prefix)?)?;
                *scratch = text.into_bytes();
                Cell::Bytes(scratch)
            }
            Codec::Geometry { prefix } | Codec::Vector { prefix } => Cell::Bytes(prefixed(bytes, prefix)?),
            Codec::Uuid | Codec::Inet6 => Cell::Bytes(padded(prefixed(bytes, 1)?, 16, scratch)),
            Codec::Inet4 => Cell::Bytes(padded(prefixed(bytes, 1)?, 4, scratch)),
        })
    }

    pub(super) fn is_json(&self) -> bool {
        matches!(self, Codec::Json { .. })
    }

    /// Takes the bytes of a document of MySQL's JSON as they are; None, and nothing is taken, for other types.
    pub(super) fn document<'a>(&self, bytes: &mut Bytes<'a>) -> Result<Option<&'a [u8]>, Malformed> {
        match *self {
            Codec::Json { prefix } => prefixed(bytes, prefix).map(Some),
            _ => Ok(None),
        }
    }

    /// Takes a value from a query's answer, if it is what [`Codec::select`] asked for.
    pub(super) fn take<'a>(&self, value: &'a Value) -> Result<Cell<'a>, Malformed> {
        const OTHER: Malformed = Malformed("the answer's value is of another type than the column");
        Ok(match (self, value) {
            (_, Value::NULL) => Cell::Null,
            (Codec::Int { unsigned: true, .. } | Codec::Year | Codec::Enum { .. } | Codec::Set { .. }, value) => {
                Cell::Uint(match *value {
                    Value::Int(number) => u64::try_from(number).map_err(|_| OTHER)?,
                    Value::UInt(number) => number,
                    _ => return Err(OTHER),
                })
            }
            (Codec::Int { unsigned: false, .. }, &Value::Int(number)) => Cell::Int(number),
            (Codec::Int { unsigned: false, .. }, &Value::UInt(number)) => {
                Cell::Int(i64::try_from(number).map_err(|_| OTHER)?)
            }
            (Codec::Float, &Value::Float(number)) => Cell::Float(number),
            (Codec::Double, &Value::Double(number)) => Cell::Double(number),
            (Codec::Decimal { .. }, Value::Bytes(text)) => Cell::Decimal(Digits::parse(text)?),
            (Codec::Bit { .. }, Value::Bytes(bytes)) => Cell::Uint(Bytes(bytes).uint_be(bytes.len())?),
            (
                Codec::Date | Codec::DateTime { .. } | Codec::Timestamp { .. },
                &Value::Date(year, month, day, hour, minute, second, micros),
            ) => Cell::Moment(Moment { year, month, day, hour, minute, second, micros }),
            (Codec::Time { .. }, &Value::Time(negative, days, hours, minutes, seconds, micros)) => {
                Cell::Span(Span { negative, hours: days * 24 + u32::from(hours), minutes, seconds, micros })
            }
            (
                Codec::Text { .. }
                | Codec::JsonText { .. }
                | Codec::Binary { .. }
                | Codec::Json { .. }
                | Codec::Geometry { .. }
                | Codec::Vector { .. }
                | Codec::Uuid
                | Codec::Inet6
                | Codec::Inet4,
                Value::Bytes(bytes),
            ) => Cell::Bytes(bytes),
            _ => return Err(OTHER),
        })
    }

    /// What to ask for so that [`Codec::take`] understands the answer, for a column's quoted name.
    pub(super) fn select(&self, column: &str) -> String {
        match self {
            Codec::Enum { .. } | Codec::Set { .. } => format!("CAST({column} AS UNSIGNED)"),
            Codec::Uuid | Codec::Inet6 => format!("CAST({column} AS BINARY(16))"),
            Codec::Inet4 => format!("CAST({column} AS BINARY(4))"),
            _ => column.to_owned(),
        }
    }

    /// Appends a value to an image.
    #[inline]
    pub(super) fn write(&self, cell: &Cell<'_>, out: &mut String) -> Result<(), Malformed> {
        match (self, cell) {
            (_, Cell::Null) => out.push_str("null"),
            (Codec::Text { charset, .. }, Cell::Bytes(bytes)) => json::push_string(out, &characters(charset, bytes)?),
            (Codec::JsonText { charset, .. }, Cell::Bytes(bytes)) => {
                let text = characters(charset, bytes)?;
                let start = out.len();
                if json::push_compact(out, &text, JSON_DEPTH_MAX) {
                    json::mark_null(out, start);
                } else {
                    json::push_string(out, &text);
                }
            }
            (Codec::Json { .. }, Cell::Bytes(bytes)) => {
                let text = std::str::from_utf8(bytes).map_err(|_| Malformed("JSON that is no text"))?;
                let start = out.len();
                if json_binary::push_normal(out, text, JSON_DEPTH_MAX) {
                    json::mark_null(out, start);
                } else {
                    json::push_string(out, text);
                }
            }
            (Codec::Binary { .. }, Cell::Bytes(bytes)) => json::push_base64(out, bytes),
            (Codec::Geometry { .. }, Cell::Bytes(bytes)) => {
                let mut rest = Bytes(bytes);
                let _ = write!(out, "{{\"srid\":{},\"wkb\":", rest.u32()?);
                json::push_base64(out, rest.0);
                out.push('}');
            }
            (Codec::Vector { .. }, Cell::Bytes(bytes)) => {
                let (numbers, rest) = bytes.as_chunks::<4>();
                if !rest.is_empty() {
                    return Err(Malformed("a vector"));
                }
                out.push('[');
                for (at, &number) in numbers.iter().enumerate() {
                    out.push_str(if at > 0 { "," } else { "" });
                    let number = f32::from_le_bytes(number);
                    if !number.is_finite() {
                        return Err(Malformed("a vector with what is no number"));
                    }
                    push_float(out, zmij::Buffer::new().format_finite(number));
                }
                out.push(']');
            }
            (Codec::Set { members, .. }, &Cell::Uint(set)) => {
                out.push('[');
                let mut first = true;
                for (at, member) in members.iter().enumerate().filter(|(at, _)| *at < 64 && set >> at & 1 != 0) {
                    debug_assert!(at < 64);
                    if !std::mem::take(&mut first) {
                        out.push(',');
                    }
                    json::push_string(out, member);
                }
                out.push(']');
            }
            (Codec::Enum { members, .. }, &Cell::Uint(index)) => json::push_string(out, member(members, index)?),
            // What is left is digits and punctuation.
            _ if self.kind() == Kind::String => {
                out.push('"');
                self.plain(cell, out)?;
                out.push('"');
            }
            _ => self.plain(cell, out)?,
        }
        Ok(())
    }

    /// A value's text, as keys and hashes hold it: a string's characters, a number's digits, JSON for the rest.
    pub(super) fn text(&self, cell: &Cell<'_>, out: &mut String) -> Result<(), Malformed> {
        match (self, cell) {
            (Codec::Text { charset, .. }, Cell::Bytes(bytes)) => out.push_str(&characters(charset, bytes)?),
            (Codec::Binary { .. }, Cell::Bytes(bytes)) => STANDARD.encode_string(bytes, out),
            (Codec::Enum { members, .. }, &Cell::Uint(index)) => out.push_str(member(members, index)?),
            _ if self.kind() == Kind::String && *cell != Cell::Null => self.plain(cell, out)?,
            _ => self.write(cell, out)?,
        }
        Ok(())
    }

    /// The text of a value that needs no escapes.
    fn plain(&self, cell: &Cell<'_>, out: &mut String) -> Result<(), Malformed> {
        match (self, cell) {
            (_, &Cell::Int(number)) => push_int(out, number),
            (_, &Cell::Uint(number)) => push_uint(out, number),
            (_, &Cell::Float(number)) => push_float(out, zmij::Buffer::new().format_finite(number)),
            (_, &Cell::Double(number)) => push_float(out, zmij::Buffer::new().format_finite(number)),
            (_, Cell::Decimal(digits)) => out.push_str(digits.as_str()),
            (Codec::Date, Cell::Moment(moment)) => moment.write_date(out),
            (Codec::DateTime { digits, .. }, Cell::Moment(moment)) => moment.write(out, *digits),
            (Codec::Timestamp { digits, .. }, Cell::Moment(moment)) => {
                moment.write(out, *digits);
                out.push('Z');
            }
            (Codec::Time { digits, .. }, Cell::Span(span)) => span.write(out, *digits),
            (Codec::Uuid, Cell::Bytes(bytes)) => {
                let uuid = <&[u8; 16]>::try_from(*bytes).map_err(|_| Malformed("a UUID"))?;
                let _ = super::place::write_uuid(out, uuid);
            }
            (Codec::Inet6, Cell::Bytes(bytes)) => {
                let address = <[u8; 16]>::try_from(*bytes).map_err(|_| Malformed("an address"))?;
                let _ = write!(out, "{}", std::net::Ipv6Addr::from(address));
            }
            (Codec::Inet4, Cell::Bytes(bytes)) => {
                let address = <[u8; 4]>::try_from(*bytes).map_err(|_| Malformed("an address"))?;
                let _ = write!(out, "{}", std::net::Ipv4Addr::from(address));
            }
            _ => return Err(Malformed("a value of another type than its column")),
        }
        Ok(())
    }

    /// A key's text as a literal of SQL that compares as the column does; None if such a column can't be compared with
    /// one, so that a table with it in its key is read in one piece.
    pub(super) fn literal(&self, text: &str) -> Option<String> {
        match self {
            Codec::Int { .. } | Codec::Decimal { .. } | Codec::Year | Codec::Bit { .. } => Some(text.to_owned()),
            Codec::Text { .. } => Some(format!("_utf8mb4 X'{}'", event::hex(text.as_bytes()))),
            Codec::Binary { .. } => STANDARD.decode(text).ok().map(|bytes| format!("X'{}'", event::hex(&bytes))),
            Codec::Date | Codec::DateTime { .. } | Codec::Timestamp { .. } | Codec::Time { .. } => {
                Some(format!("'{}'", text.trim_end_matches('Z').replace('T', " ")))
            }
            Codec::Uuid | Codec::Inet6 | Codec::Inet4 => Some(format!("'{text}'")),
            // Compared as doubles, whose digits are exact then.
            Codec::Float => {
                let number = f64::from(text.parse::<f32>().ok()?);
                Some(format!("{number:e}"))
            }
            Codec::Double => text.parse::<f64>().ok().map(|number| format!("{number:e}")),
            Codec::Enum { members, .. } if text.is_empty() && !members.iter().any(String::is_empty) => Some("0".into()),
            Codec::Enum { members, .. } => {
                members.iter().position(|member| member == text).map(|place| (place + 1).to_string())
            }
            Codec::Set { members, .. } => set_bits(members, text).map(|bits| bits.to_string()),
            _ => None,
        }
    }
}

/// The bits of a set, from its text: an array of members, in their order.
fn set_bits(members: &[String], text: &str) -> Option<u64> {
    let mut rest = text.strip_prefix('[')?;
    let mut bits = 0;
    for (at, member) in members.iter().enumerate() {
        let mut quoted = String::new();
        json::push_string(&mut quoted, member);
        if let Some(after) = rest.strip_prefix(&quoted) {
            bits |= 1_u64.checked_shl(u32::try_from(at).ok()?)?;
            rest = after.strip_prefix(',').unwrap_or(after);
        }
    }
    (rest == "]").then_some(bits)
}

fn member(members: &[String], index: u64) -> Result<&str, Malformed> {
    // 0 is what the server stores for what was none of the members: the empty string.
    let Some(place) = index.checked_sub(1) else { return Ok("") };
    let place = usize::try_from(place).unwrap_or(usize::MAX);
    members.get(place).map(String::as_str).ok_or(Malformed("a member that the type does not have"))
}

fn characters<'a>(charset: &Charset, bytes: &'a [u8]) -> Result<Cow<'a, str>, Malformed> {
    charset.decode(bytes).ok_or(Malformed("text that is not valid in the column's character set"))
}

/// The shortest form, without a fraction of nothing: `1` and not `1.0`.
fn push_float(out: &mut String, text: &str) {
    let text = text.strip_suffix(".0").unwrap_or(text);
    out.push_str(if text == "-0" { "0" } else { text });
}

#[inline]
fn prefixed<'a>(bytes: &mut Bytes<'a>, prefix: Prefix) -> Result<&'a [u8], Malformed> {
    let length = bytes.uint(usize::from(prefix))?;
    bytes.take(usize::try_from(length).map_err(|_| Malformed("a length"))?)
}

fn padded<'a>(raw: &'a [u8], length: u16, scratch: &'a mut Vec<u8>) -> &'a [u8] {
    if raw.len() >= usize::from(length) {
        return raw;
    }
    scratch.clear();
    scratch.extend_from_slice(raw);
    scratch.resize(usize::from(length), 0);
    scratch
}

/// A value of a column with MariaDB's COMPRESSED: empty, or a byte (0 if it is as it is; else the method, whether
/// zlib's wrapping is left out, and how many bytes the length has), the length, big-endian, and what was compressed.
fn unpack<'a>(raw: &'a [u8], scratch: &'a mut Vec<u8>) -> Result<&'a [u8], Malformed> {
    let Some((&head, rest)) = raw.split_first() else { return Ok(raw) };
    if head == 0 {
        return Ok(rest);
    }
    let mut bytes = Bytes(rest);
    if head & 0xf0 != 0x80 {
        return Err(Malformed("a compression that is not known"));
    }
    let length = bytes.uint_be(usize::from(head & 7))?;
    *scratch = if head & 8 == 0 { event::inflate(bytes.0, length)? } else { event::inflate_bare(bytes.0, length)? };
    Ok(scratch)
}

fn read_fraction(bytes: &mut Bytes<'_>, digits: u8) -> Result<u32, Malformed> {
    let stored = bytes.uint_be(usize::from(digits.div_ceil(2)))? as u32;
    Ok(match digits.div_ceil(2) {
        0 => 0,
        1 => stored.saturating_mul(10_000),
        2 => stored.saturating_mul(100),
        _ => stored,
    })
}

fn read_time(bytes: &mut Bytes<'_>, digits: u8, packed: bool) -> Result<Span, Malformed> {
    if !packed {
        // hhmmss in decimal digits, in three bytes with a sign.
        let raw = ((bytes.uint(3)? << 40) as i64) >> 40;
        let (negative, raw) = (raw < 0, raw.unsigned_abs());
        let (hours, minutes, seconds) = ((raw / 10_000) as u32, (raw / 100 % 100) as u8, (raw % 100) as u8);
        return Ok(Span { negative, hours, minutes, seconds, micros: 0 });
    }
    // Three bytes and those of the fraction as one number, around a zero in the middle.
    let fraction_bytes = u32::from(digits.div_ceil(2));
    let raw = bytes.uint_be(3 + fraction_bytes as usize)? as i64 - (0x80_0000_i64 << (8 * fraction_bytes));
    let (negative, raw) = (raw < 0, raw.unsigned_abs());
    let whole = raw >> (8 * fraction_bytes);
    let fraction = (raw & ((1 << (8 * fraction_bytes)) - 1)) as u32;
    let micros = fraction * [1, 10_000, 100, 1][fraction_bytes as usize % 4];
    let (hours, minutes, seconds) = ((whole >> 12 & 0x3ff) as u32, (whole >> 6 & 63) as u8, (whole & 63) as u8);
    Ok(Span { negative, hours, minutes, seconds, micros })
}

fn read_datetime(bytes: &mut Bytes<'_>, digits: u8, packed: bool) -> Result<Moment, Malformed> {
    if !packed {
        // yyyymmddhhmmss in decimal digits.
        let raw = bytes.u64()?;
        return Ok(Moment {
            year: (raw / 10_000_000_000) as u16,
            month: (raw / 100_000_000 % 100) as u8,
            day: (raw / 1_000_000 % 100) as u8,
            hour: (raw / 10_000 % 100) as u8,
            minute: (raw / 100 % 100) as u8,
            second: (raw % 100) as u8,
            micros: 0,
        });
    }
    let raw = bytes.uint_be(5)? & 0x7f_ffff_ffff;
    let micros = read_fraction(bytes, digits)?;
    let months = raw >> 22;
    Ok(Moment {
        year: (months / 13) as u16,
        month: (months % 13) as u8,
        day: (raw >> 17 & 31) as u8,
        hour: (raw >> 12 & 31) as u8,
        minute: (raw >> 6 & 63) as u8,
        second: (raw & 63) as u8,
        micros,
    })
}
