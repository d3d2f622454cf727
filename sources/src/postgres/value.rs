//! How PostgreSQL's values are written in images. Nothing is lost: what JSON has no form for is the text that
//! PostgreSQL writes.
//!
//! | type | in the image | example |
//! | --- | --- | --- |
//! | `boolean` | `true`, `false` | `true` |
//! | `smallint`, `integer`, `bigint`, `oid` | number, all digits, also beyond 2^53 | `9223372036854775807` |
//! | `real`, `double precision` | number, the shortest digits that read back the same; `NaN` and infinities as strings | `0.1`, `"-Infinity"` |
//! | `numeric` | number as written, zeros at its end too; `NaN` and infinities as strings | `1.10`, `"NaN"` |
//! | `timestamp` | string, ISO 8601 | `"2024-01-02T03:04:05.123456"` |
//! | `timestamptz` | string, ISO 8601, in UTC | `"2024-01-02T03:04:05.123456Z"` |
//! | timestamps before Christ, infinite ones | string as PostgreSQL writes | `"0044-03-15 12:00:00 BC"`, `"infinity"` |
//! | `date`, `time` | string, ISO 8601 | `"2024-01-02"`, `"03:04:05"` |
//! | `timetz` | string with its own offset | `"03:04:05+02"` |
//! | `interval` | string, ISO 8601 duration | `"P1DT2H"` |
//! | `bytea` | string, base64 | `"3q2+7w=="` |
//! | `json` | the value itself, white space between tokens left out; as a string if the engine would refuse it (deeper than 100, half a surrogate) | `{"b":1.10}` |
//! | `jsonb` | the value itself, as PostgreSQL keeps it; white space left out | `{"a":1}` |
//! | JSON's own null as the value of a `json` or `jsonb` column (SQL's NULL is `null`) | an object; and so that it means nothing else, an object whose only member is `$json` stands in another one | `{"$json":null}`, `{"$json":{"$json":1}}` |
//! | arrays | array (nested), elements as their own type, null for NULL; lower bounds other than 1 are left out | `[1,null]` |
//! | domains | as their base type | |
//! | `uuid`, `char`, `varchar`, `text`, `name`, enums, network, geometric, bit, ranges, `xml`, `tsvector`, `money`, composites, and every other type | string as PostgreSQL writes | `"[1,5)"`, `"$1.00"` |
//!
//! Columns of a key are integers or strings, since only those name a row: any other type is written as a string there.
//! A hashed or redacted value is a string.
//!
//! The texts depend on settings, which are the same in all our connections: `SETTINGS` in `wire.rs`.

use std::borrow::Cow;

use super::audit::TextForm;
use crate::change::Kind;
use crate::json;

/// As deep as the engine lets JSON be nested, less the row itself.
const MAX_DEPTH: usize = 100;

/// How a type's values are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Boolean,
    Integer,
    /// Numbers that may be no number.
    Decimal,
    Timestamp,
    TimestampTz,
    Bytea,
    Json,
    Array {
        element: Box<Form>,
        delimiter: u8,
    },
    Text,
}

impl Form {
    /// Of a base type that is not an array.
    pub(super) fn of_base(oid: u32) -> Form {
        match oid {
            16 => Form::Boolean,
            20 | 21 | 23 | 26 => Form::Integer,
            700 | 701 | 1700 => Form::Decimal,
            1114 => Form::Timestamp,
            1184 => Form::TimestampTz,
            17 => Form::Bytea,
            114 | 3802 => Form::Json,
            _ => Form::Text,
        }
    }

    /// Of a column of the key: an integer or a string.
    pub(super) fn into_key(self) -> Form {
        match self {
            Form::Boolean | Form::Decimal | Form::Json | Form::Array { .. } => Form::Text,
            other => other,
        }
    }

    pub(super) fn kind(&self) -> Kind {
        match self {
            Form::Boolean => Kind::Boolean,
            Form::Integer | Form::Decimal => Kind::Number,
            Form::Timestamp | Form::TimestampTz | Form::Bytea | Form::Text => Kind::String,
            Form::Json => Kind::Any,
            Form::Array { .. } => Kind::Array,
        }
    }

    /// How to find the value's text again from what is written of it, if that is possible.
    pub(super) fn text_form(&self) -> Option<TextForm> {
        match self {
            Form::Boolean | Form::Integer | Form::Decimal | Form::Text => Some(TextForm::Plain),
            Form::Timestamp => Some(TextForm::Timestamp),
            Form::TimestampTz => Some(TextForm::TimestampTz),
            Form::Bytea => Some(TextForm::Bytea),
            Form::Json | Form::Array { .. } => None,
        }
    }

    /// Appends a column's value as JSON.
    pub(super) fn write(&self, out: &mut String, text: &str) {
        let start = out.len();
        self.write_inside(out, text);
        if *self == Form::Json {
            json::mark_null(out, start);
        }
    }

    /// The same of an array's element.
    fn write_inside(&self, out: &mut String, text: &str) {
        match self {
            Form::Boolean => out.push_str(if text == "t" { "true" } else { "false" }),
            Form::Integer => out.push_str(text),
            Form::Decimal => {
                let digits = text.strip_prefix('-').unwrap_or(text);
                if digits.as_bytes().first().is_some_and(u8::is_ascii_digit) {
                    out.push_str(text);
                } else {
                    json::push_string(out, text);
                }
            }
            Form::Json => {
                if !json::push_compact(out, text, MAX_DEPTH) {
                    json::push_string(out, text);
                }
            }
            Form::Array { element, delimiter } => {
                let start = out.len();
                if write_array(out, text, element, *delimiter).is_none() {
                    out.truncate(start);
                    json::push_string(out, text);
                }
            }
            Form::Timestamp | Form::TimestampTz | Form::Bytea => json::push_string(out, &self.plain(text)),
            Form::Text => json::push_string(out, text),
        }
    }

    /// A value's text: the characters of its string, the digits of its number.
    pub(super) fn plain<'t>(&self, text: &'t str) -> Cow<'t, str> {
        match self {
            Form::Timestamp if is_plain_time(text) => Cow::Owned(text.replacen(' ', "T", 1)),
            Form::TimestampTz if is_plain_time(text) => match text.strip_suffix("+00") {
                Some(time) => Cow::Owned(format!("{}Z", time.replacen(' ', "T", 1))),
                None => Cow::Borrowed(text),
            },
            Form::Bytea => match text.strip_prefix("\\x").and_then(from_hex) {
                Some(bytes) => {
                    let mut quoted = String::new();
                    json::push_base64(&mut quoted, &bytes);
                    Cow::Owned(quoted.trim_matches('"').to_owned())
                }
                None => Cow::Borrowed(text),
            },
            _ => Cow::Borrowed(text),
        }
    }
}

/// Neither infinite nor before Christ.
fn is_plain_time(text: &str) -> bool {
    text.as_bytes().first().is_some_and(u8::is_ascii_digit) && !text.ends_with('C')
}

fn from_hex(digits: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = digits.as_bytes().chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    pairs.map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

/// Writes an array's text (`{1,"a b",{…},NULL}`) as JSON. None if it is no array.
fn write_array(out: &mut String, text: &str, element: &Form, delimiter: u8) -> Option<()> {
    // Bounds come first, if they are not the usual ones: [0:1]={…}.
    let body = if text.starts_with('[') { text.split_once('=')?.1 } else { text };
    let bytes = body.as_bytes();
    let mut at = 0;
    let mut depth = 0;
    let mut unescaped = String::new();
    loop {
        match *bytes.get(at)? {
            b'{' => {
                out.push('[');
                depth += 1;
                at += 1;
            }
            b'}' => {
                out.push(']');
                depth -= 1;
                at += 1;
                if depth == 0 {
                    return (at == bytes.len()).then_some(());
                }
            }
            byte if byte == delimiter && depth > 0 => {
                out.push(',');
                at += 1;
            }
            _ if depth == 0 => return None,
            b'"' => {
                unescaped.clear();
                at += 1;
                let mut from = at;
                loop {
                    match *bytes.get(at)? {
                        b'"' => break,
                        b'\\' => {
                            unescaped.push_str(&body[from..at]);
                            // The escaped character, which may be longer than a byte.
                            from = at + 1;
                            at += 1 + body.get(at + 1..)?.chars().next()?.len_utf8();
                        }
                        _ => at += 1,
                    }
                }
                unescaped.push_str(&body[from..at]);
                at += 1;
                element.write_inside(out, &unescaped);
            }
            _ => {
                let end = at + bytes[at..].iter().position(|&byte| byte == delimiter || byte == b'}')?;
                match &body[at..end] {
                    "NULL" => out.push_str("null"),
                    value => element.write_inside(out, value),
                }
                at = end;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(form: &Form, text: &str) -> String {
        let mut out = String::new();
        form.write(&mut out, text);
        out
    }

    fn array(element: Form) -> Form {
        Form::Array { element: Box::new(element), delimiter: b',' }
    }

    #[test]
    fn what_is_no_number_is_a_string() {
        for (text, json) in [
            ("1.10", "1.10"),
            ("-0", "-0"),
            ("1e-07", "1e-07"),
            ("NaN", "\"NaN\""),
            ("Infinity", "\"Infinity\""),
            ("-Infinity", "\"-Infinity\""),
        ] {
            assert_eq!(written(&Form::Decimal, text), json);
        }
    }

    #[test]
    fn times_are_iso_8601_where_that_has_a_form() {
        for (form, text, json) in [
            (Form::Timestamp, "2024-01-02 03:04:05.5", "\"2024-01-02T03:04:05.5\""),
            (Form::TimestampTz, "2024-01-02 03:04:05+00", "\"2024-01-02T03:04:05Z\""),
            (Form::TimestampTz, "infinity", "\"infinity\""),
            (Form::Timestamp, "-infinity", "\"-infinity\""),
            (Form::Timestamp, "0044-03-15 12:00:00 BC", "\"0044-03-15 12:00:00 BC\""),
            (Form::TimestampTz, "0044-03-15 12:00:00+00 BC", "\"0044-03-15 12:00:00+00 BC\""),
        ] {
            assert_eq!(written(&form, text), json);
        }
    }

    #[test]
    fn arrays_are_arrays_of_their_elements() {
        assert_eq!(written(&array(Form::Integer), "{1,NULL,3}"), "[1,null,3]");
        assert_eq!(written(&array(Form::Integer), "{}"), "[]");
        assert_eq!(written(&array(Form::Integer), "[0:1]={1,2}"), "[1,2]");
        assert_eq!(written(&array(Form::Integer), "{{1,2},{3,4}}"), "[[1,2],[3,4]]");
        assert_eq!(
            written(&array(Form::Text), r#"{a,"b,\"c\\é",NULL,"NULL","{}",""}"#),
            r#"["a","b,\"c\\é",null,"NULL","{}",""]"#
        );
        assert_eq!(written(&array(Form::Json), r#"{"{\"a\": 1}"}"#), r#"[{"a":1}]"#);
        let boxes = Form::Array { element: Box::new(Form::Text), delimiter: b';' };
        assert_eq!(written(&boxes, "{(1,1),(0,0);(2,2),(0,0)}"), r#"["(1,1),(0,0)","(2,2),(0,0)"]"#);
        assert_eq!(written(&array(Form::Text), "no array"), "\"no array\"");
        assert_eq!(written(&array(Form::Text), "{a"), "\"{a\"");
    }

    #[test]
    fn bytes_are_base64_and_json_is_itself() {
        assert_eq!(written(&Form::Bytea, "\\xdeadbeef"), "\"3q2+7w==\"");
        assert_eq!(written(&Form::Bytea, "\\x"), "\"\"");
        assert_eq!(written(&Form::Json, "{ \"b\" : 1.10 }"), "{\"b\":1.10}");
        assert_eq!(written(&Form::Json, "\"\\ud800\""), "\"\\\"\\\\ud800\\\"\"");
        assert_eq!(written(&Form::Json, "null"), "{\"$json\":null}");
        assert_eq!(written(&array(Form::Json), "{NULL,\"null\"}"), "[null,null]");
    }

    #[test]
    fn a_key_is_an_integer_or_a_string() {
        assert_eq!(Form::Decimal.into_key(), Form::Text);
        assert_eq!(Form::Integer.into_key(), Form::Integer);
        assert_eq!(Form::TimestampTz.into_key().plain("2024-01-02 03:04:05+00"), "2024-01-02T03:04:05Z");
    }
}
