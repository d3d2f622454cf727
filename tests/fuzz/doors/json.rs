//! What must hold of a row's text, whatever it is: the engine's scanner against serde_json.
//!
//! The two agree on what is JSON, but for what the engine refuses on purpose: lone surrogates, and nesting over a limit.
//! (serde_json is asked to ignore the value, since it reads no number that does not fit into a double, and no deep
//! nesting.) What the engine takes is the same JSON without its white space, to the digit.

use std::fmt;

use cdc_engine::image::Image;
use cdc_engine::refusal::RefusalCode;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// As the service has it by default.
const MAX_DEPTH: usize = 128;

pub(crate) fn json(data: &[u8]) {
    let scanned = Image::scan(data, usize::MAX, MAX_DEPTH);
    let text = std::str::from_utf8(data).ok();
    let text = text.filter(|text| serde_json::from_str::<IgnoredAny>(text).is_ok());
    match scanned {
        Ok(image) => {
            let text = text.expect("the row is taken and is not JSON");
            assert!(!has_lone_surrogate(text), "the row is taken and holds a lone surrogate");
            assert!(depth(text) <= MAX_DEPTH, "the row is taken and nests too deep");
            same(text, &image);
            let again = Image::scan(image.text().as_bytes(), usize::MAX, MAX_DEPTH);
            assert_eq!(again.expect("what was taken is taken again").text(), image.text());
        }
        Err(refusal) => match refusal.code {
            RefusalCode::InvalidJson => {
                assert!(text.is_none_or(has_lone_surrogate), "refused as no JSON: {refusal}");
            }
            RefusalCode::NotAnObject => {
                let text = text.expect("told apart from what is not JSON");
                assert!(!text.trim_start().starts_with('{'), "refused as no object: {refusal}");
            }
            RefusalCode::TooDeep => assert!(text.is_none_or(|text| depth(text) >= MAX_DEPTH), "{refusal}"),
            other => panic!("refused as {other:?}: {refusal}"),
        },
    }
}

/// Member by member, both say the same.
fn same(text: &str, image: &Image) {
    let members = Deserializer::deserialize_map(&mut serde_json::Deserializer::from_str(text), Members);
    let members = members.expect("the row is an object");
    assert_eq!(members.len(), image.len());
    for (index, (name, value)) in members.iter().enumerate() {
        assert_eq!(*name, image.name(index));
        let (given, taken) = (value.get(), image.value(index));
        if given.starts_with(['{', '[']) {
            let value = |text| serde_json::from_str::<serde_json::Value>(text).ok();
            assert_eq!(value(given), value(taken));
            let white: &[char] = &[' ', '\t', '\r', '\n'];
            // Only white space may be missing, and what stands between tokens must be.
            assert_eq!(given.replace(white, ""), taken.replace(white, ""));
            assert!(!taken.contains(['\t', '\r', '\n']));
        } else {
            assert_eq!(given, taken);
        }
    }
}

/// An object's members in their order, duplicates included, values as they stand.
struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(members)
    }
}

/// How deep valid JSON nests.
fn depth(text: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut in_string = false;
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_string => depth -= 1,
            _ => {}
        }
    }
    deepest
}

/// Whether valid JSON escapes half of a surrogate pair.
fn has_lone_surrogate(text: &str) -> bool {
    let bytes = text.as_bytes();
    let unit = |at: usize| {
        let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let mut at = 0;
    while at < bytes.len() {
        match (unit(at), unit(at + 6)) {
            (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => at += 12,
            (Some(0xD800..=0xDFFF), _) => return true,
            _ => at += if bytes[at] == b'\\' { 2 } else { 1 },
        }
    }
    false
}
