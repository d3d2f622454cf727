//! The JSON door: row images as text.
//!
//! A row comes in as bytes and stays text. [`Image::scan`] checks in one pass that it is one JSON object (RFC 8259,
//! UTF-8, no lone surrogates, nesting within a limit) and remembers where each member's name and value stand;
//! insignificant white space is dropped, everything else is kept to the digit. [`merge`] cuts and joins such texts.
//!
//! It is not a JSON library: nothing is decoded but member names, and those only when they hold escapes. Members that
//! share a name are found by the caller, who looks every name up among the table's columns anyway.

use std::borrow::Cow;
use std::ops::Range;

use crate::event::ColumnType;
use crate::refusal::{Refusal, RefusalCode};

/// A JSON object whose members' places are known.
#[derive(Debug)]
pub struct Image<'a> {
    text: Cow<'a, str>,
    members: Vec<Member>,
}

/// Where a member stands in its image's text, in bytes. 32 bits, because rows are limited to less.
#[derive(Clone, Copy, Debug)]
struct Member {
    /// Without the quotes.
    name: (u32, u32),
    value: (u32, u32),
    /// Whether the name holds escapes.
    escaped: bool,
}

fn span((start, end): (u32, u32)) -> Range<usize> {
    start as usize..end as usize
}

impl<'a> Image<'a> {
    /// Checks and takes a row as it came.
    pub fn scan(bytes: &'a [u8], max_bytes: usize, max_depth: usize) -> Result<Self, Refusal> {
        if bytes.len() > max_bytes.min(u32::MAX as usize) {
            return Err(Refusal::new(
                RefusalCode::RowTooLarge,
                format!("the row is {} bytes long, and a row may be {max_bytes}", bytes.len()),
            ));
        }
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let at = error.valid_up_to();
            Refusal::new(RefusalCode::InvalidJson, format!("the row is not UTF-8 (at byte {at})"))
        })?;
        let mut scanner = Scanner::new(text, max_depth);
        let members = scanner.object()?;
        if !scanner.spaced {
            return Ok(Self { text: Cow::Borrowed(text), members });
        }
        // White space between tokens is only cut from text that has been found valid: cutting it first could turn
        // two tokens into one.
        let text = without_space(text);
        let members = Scanner::new(&text, max_depth).object()?;
        Ok(Self { text: Cow::Owned(text), members })
    }

    /// Takes a row that this module made before: a stored image.
    pub fn stored(text: impl Into<Cow<'a, str>>) -> Result<Self, Refusal> {
        let text = text.into();
        let members = Scanner::new(&text, usize::MAX).object()?;
        Ok(Self { text, members })
    }

    /// How many members it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether it has no members.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The name of a member, decoded.
    #[must_use]
    pub fn name(&self, index: usize) -> Cow<'_, str> {
        let member = self.members[index];
        let raw = &self.text[span(member.name)];
        if member.escaped { Cow::Owned(unescape(raw)) } else { Cow::Borrowed(raw) }
    }

    /// Whether a member has this name.
    #[must_use]
    pub fn is_named(&self, index: usize, name: &str) -> bool {
        let member = self.members[index];
        if member.escaped {
            unescape(&self.text[span(member.name)]) == name
        } else {
            same(&self.text[span(member.name)], name)
        }
    }

    /// The value of a member, as text.
    #[must_use]
    pub fn value(&self, index: usize) -> &str {
        &self.text[span(self.members[index].value)]
    }

    /// The type of a member's value; none for null.
    #[must_use]
    pub fn value_type(&self, index: usize) -> Option<ColumnType> {
        match self.text.as_bytes()[self.members[index].value.0 as usize] {
            b'"' => Some(ColumnType::String),
            b'{' => Some(ColumnType::Object),
            b'[' => Some(ColumnType::Array),
            b't' | b'f' => Some(ColumnType::Boolean),
            b'n' => None,
            _ => Some(ColumnType::Number),
        }
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Name and value as they stand in the text, with the quotes and the colon.
    fn raw_member(&self, index: usize) -> &str {
        let member = self.members[index];
        &self.text[member.name.0 as usize - 1..member.value.1 as usize]
    }

    /// Name with the quotes and the colon.
    fn raw_name(&self, index: usize) -> &str {
        let member = self.members[index];
        &self.text[member.name.0 as usize - 1..member.value.0 as usize]
    }
}

/// Whether two texts are the same. Names are short, and compiled to WebAssembly the comparison of the standard library is
/// a call and a loop over bytes.
#[must_use]
pub fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() != b.len() {
        return false;
    }
    // The first and the last bytes, which overlap, are all there are.
    let ends =
        |bytes: &[u8]| Some((u64::from_le_bytes(*bytes.first_chunk()?), u64::from_le_bytes(*bytes.last_chunk()?)));
    let short_ends =
        |bytes: &[u8]| Some((u32::from_le_bytes(*bytes.first_chunk()?), u32::from_le_bytes(*bytes.last_chunk()?)));
    match a.len() {
        0..4 => a.iter().zip(b).all(|(a, b)| a == b),
        4..8 => short_ends(a) == short_ends(b),
        8..=16 => ends(a) == ends(b),
        _ => a == b,
    }
}

/// The row with the patch's values in place of its own, in the row's order, and the patch's new members behind them.
///
/// `replaced_by` says for each member of the row which member of the patch takes its value's place; `added` lists the
/// patch's members that the row lacks. Written in place of what `text` held.
pub fn merge(row: &Image<'_>, patch: &Image<'_>, replaced_by: &[Option<usize>], added: &[usize], text: &mut String) {
    text.clear();
    text.reserve(row.text.len() + patch.text.len());
    let mut separator = '{';
    for (index, replacement) in replaced_by.iter().enumerate() {
        text.push(separator);
        separator = ',';
        match replacement {
            Some(patched) => {
                text.push_str(row.raw_name(index));
                text.push_str(patch.value(*patched));
            }
            None => text.push_str(row.raw_member(index)),
        }
    }
    for &index in added {
        text.push(separator);
        separator = ',';
        text.push_str(patch.raw_member(index));
    }
    if separator == '{' {
        text.push('{');
    }
    text.push('}');
}

/// The object with members of the given names and values (JSON texts) before its own.
pub fn prepend(image: &Image<'_>, members: &[(String, String)]) -> String {
    let mut text = String::with_capacity(image.text.len() + 64);
    text.push('{');
    for (index, (name, value)) in members.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        text.push_str(&quote(name));
        text.push(':');
        text.push_str(value);
    }
    if !members.is_empty() && !image.is_empty() {
        text.push(',');
    }
    text.push_str(&image.text[1..]);
    text
}

/// The text as a JSON string, escaping what RFC 8259 wants escaped.
#[must_use]
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\u{0}'..='\u{1f}' => quoted.push_str(&format!("\\u{:04x}", u32::from(character))),
            _ => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}

/// The strings of a JSON array of strings that was made of [`quote`]d ones.
#[must_use]
pub fn strings(array: &str) -> Vec<String> {
    let mut strings = Vec::new();
    let (mut begin, mut is_escaped) = (None, false);
    for (at, byte) in array.bytes().enumerate() {
        match (byte, begin) {
            (_, Some(_)) if is_escaped => is_escaped = false,
            (b'\\', Some(_)) => is_escaped = true,
            (b'"', Some(from)) => {
                strings.push(unescape(&array[from..at]));
                begin = None;
            }
            (b'"', None) => begin = Some(at + 1),
            _ => {}
        }
    }
    strings
}

/// Decodes the inside of a JSON string that has been found valid.
#[must_use]
pub fn unescape(raw: &str) -> String {
    let mut text = String::with_capacity(raw.len());
    let mut characters = raw.chars();
    // Both halves of a surrogate pair are there, because the text has been scanned.
    let mut high = 0;
    while let Some(character) = characters.next() {
        if character != '\\' {
            text.push(character);
            continue;
        }
        match characters.next() {
            Some('b') => text.push('\u{8}'),
            Some('f') => text.push('\u{c}'),
            Some('n') => text.push('\n'),
            Some('r') => text.push('\r'),
            Some('t') => text.push('\t'),
            Some('u') => {
                let unit = characters.by_ref().take(4).fold(0, |unit, c| unit * 16 + c.to_digit(16).unwrap_or(0));
                match unit {
                    0xD800..=0xDBFF => high = unit,
                    0xDC00..=0xDFFF => {
                        let scalar = 0x10000 + ((high & 0x3FF) << 10) + (unit & 0x3FF);
                        text.extend(char::from_u32(scalar));
                    }
                    _ => text.extend(char::from_u32(unit)),
                }
            }
            Some(other) => text.push(other),
            None => {}
        }
    }
    text
}

/// Valid JSON without the white space between its tokens.
fn without_space(text: &str) -> String {
    let mut compact = String::with_capacity(text.len());
    let bytes = text.as_bytes();
    let (mut from, mut at) = (0, 0);
    while at < bytes.len() {
        match bytes[at] {
            b' ' | b'\t' | b'\n' | b'\r' => {
                compact.push_str(&text[from..at]);
                at += 1;
                from = at;
            }
            b'"' => {
                at += 1;
                while at < bytes.len() && bytes[at] != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            _ => at += 1,
        }
    }
    compact.push_str(&text[from..]);
    compact
}

/// What a step of a scan comes to. Boxed, so that the usual outcome is handed on in a register.
type Scanned<T> = Result<T, Box<Refusal>>;

/// One pass over a JSON text. Nesting is counted, not recursed into: depth costs a byte each, never stack.
struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    max_depth: usize,
    /// Whether white space was passed over.
    spaced: bool,
}

impl<'a> Scanner<'a> {
    fn new(text: &'a str, max_depth: usize) -> Self {
        Self { bytes: text.as_bytes(), at: 0, max_depth, spaced: false }
    }

    /// The whole text as one object.
    fn object(&mut self) -> Scanned<Vec<Member>> {
        self.space();
        match self.peek() {
            Some(b'{') => {}
            Some(b'"' | b'[' | b't' | b'f' | b'n' | b'-' | b'0'..=b'9') => {
                self.value()?;
                self.end()?;
                return Err(Box::new(Refusal::new(RefusalCode::NotAnObject, "the row is not a JSON object")));
            }
            None => return Err(self.wrong("a JSON object")),
            Some(_) => return Err(self.wrong("a JSON object")),
        }
        if self.max_depth == 0 {
            return Err(self.too_deep());
        }
        self.at += 1;
        let mut members = Vec::with_capacity(8);
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            self.end()?;
            return Ok(members);
        }
        loop {
            let (name, escaped) = self.name()?;
            let start = self.at;
            self.value()?;
            members.push(Member { name, value: (start as u32, self.at as u32), escaped });
            self.space();
            match self.peek() {
                Some(b',') => {
                    self.at += 1;
                    self.space();
                }
                Some(b'}') => {
                    self.at += 1;
                    self.end()?;
                    return Ok(members);
                }
                _ => return Err(self.wrong("`,` or `}`")),
            }
        }
    }

    /// A member's name, its colon and the space around them; leaves off at the value.
    fn name(&mut self) -> Scanned<((u32, u32), bool)> {
        if self.peek() != Some(b'"') {
            return Err(self.wrong("a member name in quotes"));
        }
        let start = self.at + 1;
        let escaped = self.string()?;
        let name = (start as u32, self.at as u32 - 1);
        self.space();
        if self.peek() != Some(b':') {
            return Err(self.wrong("`:`"));
        }
        self.at += 1;
        self.space();
        Ok((name, escaped))
    }

    /// One value of any kind, and everything in it.
    fn value(&mut self) -> Scanned<()> {
        // The containers that are open, one byte each: the closing bracket that each waits for.
        let mut open: Vec<u8> = Vec::new();
        loop {
            // At the start of a value.
            match self.peek() {
                Some(b'"') => {
                    self.string()?;
                }
                Some(b'-' | b'0'..=b'9') => self.number()?,
                Some(b't') => self.word(b"true")?,
                Some(b'f') => self.word(b"false")?,
                Some(b'n') => self.word(b"null")?,
                Some(bracket @ (b'{' | b'[')) => {
                    let closing = if bracket == b'{' { b'}' } else { b']' };
                    // The row itself is level 1.
                    if open.len() + 2 > self.max_depth {
                        return Err(self.too_deep());
                    }
                    self.at += 1;
                    self.space();
                    if self.peek() == Some(closing) {
                        self.at += 1;
                    } else {
                        open.push(closing);
                        if closing == b'}' {
                            self.name()?;
                        }
                        continue;
                    }
                }
                _ => return Err(self.wrong("a value")),
            }
            // Behind a value.
            loop {
                let Some(&closing) = open.last() else { return Ok(()) };
                self.space();
                match self.peek() {
                    Some(b',') => {
                        self.at += 1;
                        self.space();
                        if closing == b'}' {
                            self.name()?;
                        }
                        break;
                    }
                    Some(byte) if byte == closing => {
                        self.at += 1;
                        open.pop();
                    }
                    _ => return Err(self.wrong(if closing == b'}' { "`,` or `}`" } else { "`,` or `]`" })),
                }
            }
        }
    }

    /// A string with its quotes; answers whether it holds escapes.
    fn string(&mut self) -> Scanned<bool> {
        self.at += 1;
        let mut escaped = false;
        loop {
            self.plain();
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(escaped);
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(0x00..=0x1F) => return Err(self.wrong("an escaped control character")),
                Some(_) => self.at += 1,
                None => return Err(self.wrong("the string's closing quote")),
            }
        }
    }

    /// Passes over what stands for itself in a string, eight bytes at a time; leaves off before a quote, a backslash or
    /// a control character, or where fewer than eight bytes are left.
    fn plain(&mut self) {
        const ONES: u64 = u64::from_le_bytes([1; 8]);
        const HIGHS: u64 = ONES << 7;
        while let Some(chunk) = self.bytes.get(self.at..).and_then(<[u8]>::first_chunk) {
            let word = u64::from_le_bytes(*chunk);
            // A byte's high bit is set where the byte is less than `limit`. Above the first such byte there may be
            // false ones, because a borrow goes on from there; only the first counts.
            let less = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word & HIGHS;
            let quote = word ^ (ONES * u64::from(b'"'));
            let backslash = word ^ (ONES * u64::from(b'\\'));
            let stops = less(quote, 1) | less(backslash, 1) | less(word, 0x20);
            if stops != 0 {
                self.at += stops.trailing_zeros() as usize / 8;
                return;
            }
            self.at += 8;
        }
    }

    fn escape(&mut self) -> Scanned<()> {
        let start = self.at;
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 1;
                Ok(())
            }
            Some(b'u') => {
                self.at += 1;
                let unit = self.four_digits()?;
                let lone = match unit {
                    0xD800..=0xDBFF => {
                        if self.bytes[self.at..].starts_with(b"\\u") {
                            self.at += 2;
                            !(0xDC00..=0xDFFF).contains(&self.four_digits()?)
                        } else {
                            true
                        }
                    }
                    0xDC00..=0xDFFF => true,
                    _ => false,
                };
                if lone {
                    return Err(Box::new(Refusal::new(
                        RefusalCode::InvalidJson,
                        format!("a lone surrogate stands at byte {start}: it is no character and cannot be stored"),
                    )));
                }
                Ok(())
            }
            _ => Err(self.wrong("an escape such as `\\n` or `\\u00e9`")),
        }
    }

    fn four_digits(&mut self) -> Scanned<u32> {
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|byte| char::from(byte).to_digit(16));
            let Some(digit) = digit else { return Err(self.wrong("four hexadecimal digits")) };
            unit = unit * 16 + digit;
            self.at += 1;
        }
        Ok(unit)
    }

    fn number(&mut self) -> Scanned<()> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => return Err(self.wrong("a digit")),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.some_digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.some_digits()?;
        }
        Ok(())
    }

    fn some_digits(&mut self) -> Scanned<()> {
        let start = self.at;
        self.digits();
        if self.at == start { Err(self.wrong("a digit")) } else { Ok(()) }
    }

    fn digits(&mut self) {
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
    }

    fn word<const N: usize>(&mut self, word: &[u8; N]) -> Scanned<()> {
        if self.bytes[self.at..].first_chunk() == Some(word) {
            self.at += N;
            Ok(())
        } else {
            Err(self.wrong("a value"))
        }
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
            self.spaced = true;
        }
    }

    fn end(&mut self) -> Scanned<()> {
        self.space();
        if self.at == self.bytes.len() { Ok(()) } else { Err(self.wrong("the end")) }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[cold]
    fn wrong(&self, expected: &str) -> Box<Refusal> {
        let found = match self.peek() {
            None => "the end".to_owned(),
            Some(byte @ 0x21..=0x7E) => format!("`{}`", char::from(byte)),
            Some(byte) => format!("byte 0x{byte:02X}"),
        };
        Box::new(Refusal::new(
            RefusalCode::InvalidJson,
            format!("the row is not JSON: expected {expected} at byte {}, found {found}", self.at),
        ))
    }

    #[cold]
    fn too_deep(&self) -> Box<Refusal> {
        Box::new(Refusal::new(
            RefusalCode::TooDeep,
            format!("the row nests deeper than {} levels (at byte {})", self.max_depth, self.at),
        ))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::oracle;
    use crate::oracle::portable::{list, pick};

    fn scan(text: &str) -> Result<Image<'_>, Refusal> {
        Image::scan(text.as_bytes(), 1 << 20, 8)
    }

    fn refused(text: &str) -> RefusalCode {
        scan(text).unwrap_err().code
    }

    #[test]
    fn a_row_is_kept_to_the_digit_and_in_its_order() {
        let text = r#"{"z":1.2300e+05,"a":-0,"n":123456789012345678901234567890,"é\u00e9":"\ud83d\ude00 \/"}"#;
        let image = scan(text).unwrap();
        assert_eq!(image.text(), text);
        assert_eq!(image.value(2), "123456789012345678901234567890");
        assert_eq!(image.name(3), "éé");
    }

    #[test]
    fn what_ends_or_breaks_a_string_is_found_wherever_it_stands_in_it() {
        let padding = |length| "#!][~é\u{7f} \u{a0}".chars().cycle().take(length).collect::<String>();
        for before in 0..20 {
            for after in 0..20 {
                // Bytes that differ from the ones looked for by one bit or by a borrow.
                let (before, after) = (padding(before), padding(after));
                let row = |middle: &str| format!("{{\"a\":\"{before}{middle}{after}\",\"b\":1}}");
                for middle in ["", "x", "\\\"", "\\\\", "\u{80}", "\u{7f}", " "] {
                    let row = row(middle);
                    let image = scan(&row).unwrap();
                    assert_eq!((image.len(), image.value(1)), (2, "1"), "{row}");
                }
                for middle in ["\"", "\\x", "\u{0}", "\u{1f}", "\n"] {
                    assert!(scan(&row(middle)).is_err(), "{before}{middle:?}{after}");
                }
            }
        }
    }

    #[test]
    fn texts_are_the_same_in_every_byte_or_not_at_all() {
        let text = "abcdefghijklmnopqrstuvwxyz";
        for length in 0..text.len() {
            let one = &text[..length];
            assert!(same(one, one));
            assert!(!same(one, &text[..=length]));
            for at in 0..length {
                let mut other = one.to_owned();
                other.replace_range(at..=at, "_");
                assert!(!same(one, &other), "{one} {other}");
            }
        }
    }

    #[test]
    fn only_white_space_between_tokens_is_dropped() {
        let image = scan(" {\r\n\t\"a b\" : [ 1 , { \"c\" : \" d\\\" \" } ] , \"e\" : { } } \n").unwrap();
        assert_eq!(image.text(), r#"{"a b":[1,{"c":" d\" "}],"e":{}}"#);
        assert_eq!(image.value(1), "{}");
    }

    #[test]
    fn what_is_not_json_is_refused_with_the_place() {
        for text in [
            "",
            " ",
            "{",
            "{]",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{\"a\":01}",
            "{\"a\":1.}",
            "{\"a\":.5}",
            "{\"a\":+1}",
            "{\"a\":1e}",
            "{\"a\":tru}",
            "{\"a\":nul}",
            "{\"a\":\"\\x\"}",
            "{\"a\":\"\\u12g4\"}",
            "{\"a\":\"\n\"}",
            "{\"a\":\"",
            "{a:1}",
            "{'a':1}",
            "{\"a\":[1,]}",
            "{\"a\":[1}",
            "{\"a\":{\"b\":1]}",
            "{} {}",
            "{}x",
            "[1,2",
            "{\"a\":1 2}",
            "{\"a\":NaN}",
            "{\"a\":--1}",
            "nope",
            "{\"a\":[,]}",
            "{\"a\":{,}}",
        ] {
            assert_eq!(refused(text), RefusalCode::InvalidJson, "{text}");
            assert!(serde_json::from_str::<serde_json::Value>(text).is_err(), "{text}");
        }
        assert!(scan("{\"a\":01}").unwrap_err().message.contains("at byte 6"));
    }

    #[test]
    fn other_values_than_objects_are_told_apart_from_broken_text() {
        for text in ["1", "\"a\"", "[{}]", "null", "true", " -1.5e3 "] {
            assert_eq!(refused(text), RefusalCode::NotAnObject, "{text}");
        }
    }

    #[test]
    fn lone_surrogates_are_refused_wherever_they_stand() {
        for text in [
            r#"{"a":"\ud800"}"#,
            r#"{"a":"\udc00"}"#,
            r#"{"a":"\ud800\u0041"}"#,
            r#"{"\ud800":1}"#,
            r#"{"a":["\ud83dx"]}"#,
        ] {
            assert_eq!(refused(text), RefusalCode::InvalidJson, "{text}");
        }
    }

    #[test]
    fn bytes_that_are_not_utf_8_are_refused() {
        let error = Image::scan(b"{\"a\":\"\xff\"}", 100, 8).unwrap_err();
        assert_eq!(error.code, RefusalCode::InvalidJson);
    }

    #[test]
    fn nesting_is_allowed_up_to_the_limit_and_costs_no_stack() {
        let nested = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
        assert!(scan(&nested(7)).is_ok());
        assert_eq!(refused(&nested(8)), RefusalCode::TooDeep);
        let deep = nested(200_000);
        assert_eq!(refused(&deep), RefusalCode::TooDeep);
        assert!(Image::scan(deep.as_bytes(), 1 << 20, usize::MAX).is_ok());
    }

    #[test]
    fn a_row_over_the_limit_is_refused_before_it_is_read() {
        let error = Image::scan(&[b'{'; 11], 10, 8).unwrap_err();
        assert_eq!(error.code, RefusalCode::RowTooLarge);
    }

    #[test]
    fn a_merge_replaces_in_place_and_adds_behind() {
        let row = scan(r#"{"id":1,"a":"x","b":2}"#).unwrap();
        let patch = scan(r#"{"b":3.0,"c":null}"#).unwrap();
        let mut text = "what was there".to_owned();
        merge(&row, &patch, &[None, None, Some(0)], &[1], &mut text);
        assert_eq!(text, r#"{"id":1,"a":"x","b":3.0,"c":null}"#);
        let empty = scan("{}").unwrap();
        merge(&empty, &empty, &[], &[], &mut text);
        assert_eq!(text, "{}");
    }

    #[test]
    fn prepended_members_stand_first() {
        let members = [("i\"d".to_owned(), "\"u\"".to_owned())];
        assert_eq!(prepend(&scan("{}").unwrap(), &members), r#"{"i\"d":"u"}"#);
        assert_eq!(prepend(&scan("{\"a\":1}").unwrap(), &members), r#"{"i\"d":"u","a":1}"#);
    }

    proptest::proptest! {
        #![proptest_config(oracle::config(256))]

        /// The scanner and serde_json agree on what is JSON, but for what we refuse on purpose.
        #[test]
        fn it_accepts_what_serde_json_accepts(characters in list(pick(&r#"{}[],:"\ a1e.-u0tnl"#.chars().collect::<Vec<_>>()), 0..=24)) {
            let text = String::from_iter(characters);
            let ours = Image::scan(text.as_bytes(), 1 << 20, 1_000);
            let theirs = serde_json::from_str::<serde_json::Value>(&text);
            match ours {
                Ok(image) => {
                    let value = theirs.unwrap();
                    proptest::prop_assert_eq!(serde_json::from_str::<serde_json::Value>(image.text()).unwrap(), value);
                }
                Err(refusal) if refusal.code == RefusalCode::NotAnObject => proptest::prop_assert!(theirs.is_ok()),
                Err(_) => proptest::prop_assert!(theirs.is_err() || text.contains("\\u")),
            }
        }
    }
}
