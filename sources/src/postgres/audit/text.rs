//! A row's text as PostgreSQL writes it (`ROW(…)::text`), made of the image that is stored of it: so that a sum over it
//! can be computed on both sides. Pure.
//!
//! It is the way back from `value.rs`, as far as there is one. A number or a string has its own characters; of times,
//! bytes and truth values the other form is put back. Of JSON the white space is lost, of arrays the quotes and the
//! bounds, and a hashed or redacted value is no value: a table with such a column is compared by images.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::hash::hash;
use crate::json;

/// How the text of a value in an image differs from PostgreSQL's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextForm {
    /// Not at all, or only as `true` and `false` do.
    Plain,
    /// A `timestamp`, in ISO 8601.
    Timestamp,
    /// A `timestamptz`, in ISO 8601.
    TimestampTz,
    /// A `bytea`, in base64.
    Bytea,
}

impl TextForm {
    /// The value as PostgreSQL writes it. None if it never wrote this one.
    pub(crate) fn raw<'t>(self, text: &'t str) -> Option<Cow<'t, str>> {
        let is_time = || text.as_bytes().first().is_some_and(u8::is_ascii_digit) && text.contains('T');
        match self {
            TextForm::Timestamp if is_time() => Some(Cow::Owned(text.replacen('T', " ", 1))),
            TextForm::TimestampTz if is_time() => {
                let time = text.strip_suffix('Z')?;
                Some(Cow::Owned(format!("{}+00", time.replacen('T', " ", 1))))
            }
            TextForm::Bytea => {
                use std::fmt::Write;
                let bytes = STANDARD.decode(text).ok()?;
                let mut hex = String::with_capacity(2 + 2 * bytes.len());
                hex.push_str("\\x");
                for byte in bytes {
                    // Writing to a string cannot fail.
                    let _ = write!(hex, "{byte:02x}");
                }
                Some(Cow::Owned(hex))
            }
            TextForm::Plain | TextForm::Timestamp | TextForm::TimestampTz => Some(Cow::Borrowed(text)),
        }
    }
}

/// What makes a row's text of its image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowText {
    /// Names as they stand in images, quoted, in the order of the row.
    columns: Vec<(String, TextForm)>,
}

impl RowText {
    /// Of a row with these columns, in this order.
    pub fn new<'n>(columns: impl IntoIterator<Item = (&'n str, TextForm)>) -> RowText {
        let quoted = |name| {
            let mut quoted = String::new();
            json::push_string(&mut quoted, name);
            quoted
        };
        RowText { columns: columns.into_iter().map(|(name, form)| (quoted(name), form)).collect() }
    }

    /// The text of a row. None if the image lacks a column, or has a value that the database never wrote.
    #[must_use]
    pub fn of(&self, image: &str) -> Option<String> {
        let members = json::members(image)?;
        let mut text = String::with_capacity(image.len());
        text.push('(');
        for (place, (name, form)) in self.columns.iter().enumerate() {
            if place > 0 {
                text.push(',');
            }
            // Mostly they are in this order.
            let there = members.get(place).filter(|(found, _)| found == name);
            let (_, value) = there.or_else(|| members.iter().find(|(found, _)| found == name))?;
            match *value {
                "null" => {}
                "true" => text.push('t'),
                "false" => text.push('f'),
                value => match value.strip_prefix('"').and_then(|inside| inside.strip_suffix('"')) {
                    Some(inside) => push_field(&mut text, &form.raw(&unescaped(value, inside)?)?),
                    None if value.starts_with(['{', '[']) => return None,
                    None => text.push_str(value),
                },
            }
        }
        text.push(')');
        Some(text)
    }

    /// The sum of a row: `hashtextextended(ROW(…)::text, 0)`. None as for [`RowText::of`].
    #[must_use]
    pub fn sum(&self, image: &str) -> Option<u64> {
        self.of(image).map(|text| hash(text.as_bytes()))
    }
}

/// The characters of a JSON string.
fn unescaped<'v>(quoted: &'v str, inside: &'v str) -> Option<Cow<'v, str>> {
    if !inside.contains('\\') {
        return Some(Cow::Borrowed(inside));
    }
    serde_json::from_str::<String>(quoted).ok().map(Cow::Owned)
}

/// Appends a value as it stands in a row: in quotes if it is empty or has what ends a value, and those and backslashes
/// doubled.
fn push_field(text: &mut String, value: &str) {
    let ends = |byte: u8| matches!(byte, b'"' | b'\\' | b'(' | b')' | b',' | b' ' | b'\t'..=b'\r');
    if !value.is_empty() && !value.bytes().any(ends) {
        text.push_str(value);
        return;
    }
    text.push('"');
    for character in value.chars() {
        if matches!(character, '"' | '\\') {
            text.push(character);
        }
        text.push(character);
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(columns: &[(&str, TextForm)], image: &str) -> Option<String> {
        RowText::new(columns.iter().copied()).of(image)
    }

    #[test]
    fn a_row_has_the_text_that_postgresql_writes() {
        use TextForm::{Bytea, Plain, Timestamp, TimestampTz};
        let columns = [
            ("id", Plain),
            ("te\"xt", Plain),
            ("empty", Plain),
            ("nothing", Plain),
            ("yes", Plain),
            ("at", Timestamp),
            ("tz", TimestampTz),
            ("old", TimestampTz),
            ("bytes", Bytea),
            ("nan", Plain),
        ];
        let image = r#"{"id":1.10,"te\"xt":"a \"b\" \\c\né","empty":"","nothing":null,"yes":true,"at":"2024-01-02T03:04:05.5","tz":"2024-01-02T03:04:05Z","old":"0044-03-15 12:00:00+00 BC","bytes":"3q2+7w==","nan":"NaN"}"#;
        let text = "(1.10,\"a \"\"b\"\" \\\\c\né\",\"\",,t,\"2024-01-02 03:04:05.5\",\"2024-01-02 03:04:05+00\",\
                    \"0044-03-15 12:00:00+00 BC\",\"\\\\xdeadbeef\",NaN)";
        assert_eq!(text_of(&columns, image).as_deref(), Some(text));
    }

    #[test]
    fn members_are_found_in_any_order_and_none_may_lack() {
        let columns = [("a", TextForm::Plain), ("b", TextForm::Plain)];
        assert_eq!(text_of(&columns, r#"{"b":2,"c":3,"a":-0}"#).as_deref(), Some("(-0,2)"));
        assert_eq!(text_of(&columns, r#"{"a":1}"#), None);
        assert_eq!(text_of(&columns, r#"{"a":1,"b":{"$json":null}}"#), None);
        assert_eq!(text_of(&columns, "[]"), None);
        assert_eq!(text_of(&[("b", TextForm::Bytea)], r#"{"b":"no base64"}"#), None);
        assert_eq!(text_of(&[("t", TextForm::TimestampTz)], r#"{"t":"2024-01-02T03:04:05"}"#), None);
    }

    #[test]
    fn a_null_is_no_empty_text_and_the_sum_is_the_servers() {
        let columns = ["a", "b", "c", "d", "e"].map(|name| (name, TextForm::Plain));
        let row = RowText::new(columns);
        let sum = |image: &str| row.sum(image).map(u64::cast_signed);
        // SELECT hashtextextended(ROW(1, 'a "b" \c', NULL, '', 'é')::text, 0)
        let image = r#"{"a":1,"b":"a \"b\" \\c","c":null,"d":"","e":"é"}"#;
        assert_eq!(sum(image), Some(-332_942_827_704_927_931));
        assert_ne!(sum(&image.replace("null", "\"\"")), sum(image));
    }
}
