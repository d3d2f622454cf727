//! Pieces of JSON text, appended to a row's image. What is written is valid JSON without white space between tokens, and
//! what was written is taken apart again by its members.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Appends a string in quotes, with what JSON asks to be escaped, and no more.
pub fn push_string(out: &mut String, text: &str) {
    out.push('"');
    push_escaped(out, text);
    out.push('"');
}

/// Appends the inside of a string.
pub fn push_escaped(out: &mut String, text: &str) {
    let bytes = text.as_bytes();
    let mut written = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        // What is escaped is ASCII, so these are borders of characters.
        out.push_str(&text[written..at]);
        written = at + 1;
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            0x08 => out.push_str("\\b"),
            0x0c => out.push_str("\\f"),
            other => {
                let _ = write!(out, "\\u{other:04x}");
            }
        }
    }
    out.push_str(&text[written..]);
}

/// Appends bytes as a string in base64 (the standard alphabet, with padding).
pub fn push_base64(out: &mut String, bytes: &[u8]) {
    out.push('"');
    STANDARD.encode_string(bytes, out);
    out.push('"');
}

/// Appends a JSON text with the white space between its tokens left out, every digit and the order of members kept.
/// `false`, with nothing appended, if it is not JSON as the engine takes it: valid by RFC 8259, no deeper than
/// `depth_max`, and without escapes that stand for half a character.
pub fn push_compact(out: &mut String, text: &str, depth_max: usize) -> bool {
    let start = out.len();
    let mut scan = Scan { bytes: text.as_bytes(), at: 0 };
    let good = scan.value(text, out, depth_max).is_some() && {
        scan.blank();
        scan.at == text.len()
    };
    if !good {
        out.truncate(start);
    }
    good
}

/// The member that a value of a JSON column stands in where it could be taken for something else.
const MARK: &str = "{\"$json\":";

/// Has JSON's null, appended from `start` on as the value of a JSON column, stand out from SQL's NULL: it is written as
/// `{"$json":null}`. So that this means nothing else, an object whose only member is `$json` is written inside of another
/// one. Every other value stays as it is.
pub fn mark_null(out: &mut String, start: usize) {
    let value = &out[start..];
    if value == "null" || is_like_marked(value) {
        out.insert_str(start, MARK);
        out.push('}');
    }
}

fn is_like_marked(value: &str) -> bool {
    // Most objects are told by their first name, and are not walked through.
    let Some(name_end) = value.strip_prefix('{').and_then(|body| string_end(body.as_bytes(), 0)) else { return false };
    let is_named = |name: &str| {
        name == "\"$json\""
            || (name.contains('\\') && serde_json::from_str::<String>(name).is_ok_and(|name| name == "$json"))
    };
    is_named(&value[1..=name_end]) && members(value).is_some_and(|members| members.len() == 1)
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    fn blank(&mut self) {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.bytes.get(self.at) == Some(&byte)).then(|| self.at += 1)
    }

    fn value(&mut self, text: &str, out: &mut String, depth: usize) -> Option<()> {
        self.blank();
        let start = self.at;
        match *self.bytes.get(self.at)? {
            b'{' => return self.list(text, out, depth.checked_sub(1)?, true),
            b'[' => return self.list(text, out, depth.checked_sub(1)?, false),
            b'"' => self.string()?,
            b't' => self.word(b"true")?,
            b'f' => self.word(b"false")?,
            b'n' => self.word(b"null")?,
            _ => self.number()?,
        }
        out.push_str(&text[start..self.at]);
        Some(())
    }

    /// An object or an array.
    fn list(&mut self, text: &str, out: &mut String, depth: usize, object: bool) -> Option<()> {
        let (open, close) = if object { ('{', b'}') } else { ('[', b']') };
        self.at += 1;
        out.push(open);
        self.blank();
        if self.take(close).is_none() {
            loop {
                if object {
                    self.blank();
                    let start = self.at;
                    self.string()?;
                    out.push_str(&text[start..self.at]);
                    self.blank();
                    self.take(b':')?;
                    out.push(':');
                }
                self.value(text, out, depth)?;
                self.blank();
                if self.take(close).is_some() {
                    break;
                }
                self.take(b',')?;
                out.push(',');
            }
        }
        out.push(char::from(close));
        Some(())
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        self.bytes[self.at..].starts_with(word).then(|| self.at += word.len())
    }

    fn string(&mut self) -> Option<()> {
        self.take(b'"')?;
        loop {
            let byte = *self.bytes.get(self.at)?;
            self.at += 1;
            match byte {
                b'"' => return Some(()),
                b'\\' => {
                    let escape = *self.bytes.get(self.at)?;
                    self.at += 1;
                    match escape {
                        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                        b'u' => {
                            let unit = self.hex()?;
                            match unit {
                                0xd800..=0xdbff => {
                                    self.take(b'\\')?;
                                    self.take(b'u')?;
                                    (0xdc00..=0xdfff).contains(&self.hex()?).then_some(())?;
                                }
                                0xdc00..=0xdfff => return None,
                                _ => {}
                            }
                        }
                        _ => return None,
                    }
                }
                0..=0x1f => return None,
                _ => {}
            }
        }
    }

    fn hex(&mut self) -> Option<u32> {
        let digits = self.bytes.get(self.at..self.at + 4)?;
        self.at += 4;
        digits.iter().try_fold(0, |sum, &digit| Some(sum * 16 + char::from(digit).to_digit(16)?))
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }

    fn number(&mut self) -> Option<()> {
        let _ = self.take(b'-');
        if self.take(b'0').is_none() {
            self.digits()?;
        }
        if self.take(b'.').is_some() {
            self.digits()?;
        }
        if matches!(self.bytes.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.bytes.get(self.at), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(())
    }
}

/// The members of an object that a feed or the engine wrote: names in their quotes, and values. None if it is none; it is
/// not checked further.
pub fn members(image: &str) -> Option<Vec<(&str, &str)>> {
    let body = image.strip_prefix('{')?.strip_suffix('}')?;
    let bytes = body.as_bytes();
    let mut members = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let name_end = string_end(bytes, at)?;
        let value_start = name_end + 1;
        let mut end = value_start;
        let mut depth = 0;
        while let Some(&byte) = bytes.get(end) {
            match byte {
                b'"' => {
                    end = string_end(bytes, end)?;
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                b',' if depth == 0 => break,
                _ => {}
            }
            end += 1;
        }
        members.push((&body[at..name_end], &body[value_start..end]));
        at = end + 1;
    }
    Some(members)
}

fn string_end(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    loop {
        match *bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compact(text: &str) -> Option<String> {
        let mut out = String::new();
        push_compact(&mut out, text, 4).then_some(out)
    }

    #[test]
    fn only_what_json_asks_for_is_escaped() {
        let mut out = String::new();
        push_string(&mut out, "a\"b\\c\n\u{1}é/😀");
        assert_eq!(out, "\"a\\\"b\\\\c\\n\\u0001é/😀\"");
    }

    #[test]
    fn json_null_stands_out_and_nothing_else_looks_like_it() {
        for (value, marked) in [
            ("null", r#"{"$json":null}"#),
            (r#"{"$json":null}"#, r#"{"$json":{"$json":null}}"#),
            (r#"{"\u0024json":[1,{"$json":2}]}"#, r#"{"$json":{"\u0024json":[1,{"$json":2}]}}"#),
            (r#"{"$json":1,"a":2}"#, r#"{"$json":1,"a":2}"#),
            (r#"{"a":null}"#, r#"{"a":null}"#),
            (r#""null""#, r#""null""#),
            ("{}", "{}"),
            ("[null]", "[null]"),
        ] {
            let mut out = format!("before{value}");
            mark_null(&mut out, 6);
            assert_eq!(out, format!("before{marked}"));
        }
    }

    #[test]
    fn base64_is_padded() {
        for (bytes, text) in
            [("", "\"\""), ("f", "\"Zg==\""), ("fo", "\"Zm8=\""), ("foo", "\"Zm9v\""), ("foob", "\"Zm9vYg==\"")]
        {
            let mut out = String::new();
            push_base64(&mut out, bytes.as_bytes());
            assert_eq!(out, text);
        }
    }

    #[test]
    fn json_is_kept_but_for_white_space() {
        assert_eq!(
            compact(" { \"b\" : [ 1.10 , -0e+5 ] ,\"a\": \" x \\ud83d\\ude00\" , \"b\":null } ").as_deref(),
            Some("{\"b\":[1.10,-0e+5],\"a\":\" x \\ud83d\\ude00\",\"b\":null}")
        );
        assert_eq!(compact("[ ]").as_deref(), Some("[]"));
    }

    #[test]
    fn what_is_no_json_is_refused_whole() {
        for text in [
            "",
            "01",
            "[1,]",
            "{\"a\"}",
            "nul",
            "\"\\ud800\"",
            "\"\\udc00\"",
            "\"\u{1}\"",
            "1 2",
            "[[[[[1]]]]]",
            "-",
            "1.",
            "{,}",
        ] {
            assert_eq!(compact(text), None, "{text}");
        }
    }
}
