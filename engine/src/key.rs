//! Keys: how a row is addressed.
//!
//! A key is text. Of a string column it is the string, of an integer column its digits, so `42` and `"42"` are the same
//! row. A composite key is each column's text with `%` and `/` percent-encoded, joined by `/`. The empty text is no
//! key, because no path could name it.

use std::borrow::Cow;

use crate::image::{Image, unescape};
use crate::refusal::{Refusal, RefusalCode};

/// The canonical text of a key given in parts, one for each key column.
pub fn canonical(parts: &[impl AsRef<str>], max_bytes: usize) -> Result<String, Refusal> {
    let mut key = String::new();
    write_canonical(parts, max_bytes, &mut key)?;
    Ok(key)
}

/// The same, in place of what `key` held.
pub fn write_canonical(parts: &[impl AsRef<str>], max_bytes: usize, key: &mut String) -> Result<(), Refusal> {
    key.clear();
    match parts {
        [single] => key.push_str(single.as_ref()),
        several => {
            for (index, part) in several.iter().enumerate() {
                if index > 0 {
                    key.push('/');
                }
                push_encoded(part.as_ref(), key);
            }
        }
    }
    if key.len() > max_bytes {
        return Err(Refusal::new(
            RefusalCode::KeyTooLong,
            format!("the key is {} bytes long, and a key may be {max_bytes}", key.len()),
        ));
    }
    Ok(())
}

fn push_encoded(part: &str, key: &mut String) {
    if part.contains(['%', '/']) {
        key.push_str(&part.replace('%', "%25").replace('/', "%2F"));
    } else {
        key.push_str(part);
    }
}

/// The text of a key column's value (`member` of the row).
pub fn part<'i>(image: &'i Image<'_>, member: usize, column: &str) -> Result<Cow<'i, str>, Refusal> {
    let value = image.value(member);
    let text = match value.as_bytes()[0] {
        b'"' => {
            let raw = &value[1..value.len() - 1];
            if raw.contains('\\') { Cow::Owned(unescape(raw)) } else { Cow::Borrowed(raw) }
        }
        b'-' | b'0'..=b'9' if is_integer(value) => Cow::Borrowed(value),
        _ => return Err(invalid(column, value)),
    };
    if text.is_empty() { Err(invalid(column, value)) } else { Ok(text) }
}

/// Whether a JSON number is an integer written as one: no fraction, no exponent, no negative zero.
#[must_use]
pub fn is_integer(number: &str) -> bool {
    let digits = number.strip_prefix('-').unwrap_or(number);
    number != "-0"
        && !digits.is_empty()
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && (digits.len() == 1 || !digits.starts_with('0'))
}

fn invalid(column: &str, value: &str) -> Refusal {
    let shown: String = value.chars().take(40).collect();
    Refusal::about(
        RefusalCode::InvalidKey,
        column,
        format!("`{column}` is part of the key and must be a non-empty string or an integer, not {shown}"),
    )
}

/// The refusal of a row that lacks a key column.
pub fn missing(column: &str) -> Refusal {
    Refusal::about(
        RefusalCode::MissingKey,
        column,
        format!("the row has no `{column}`, which is part of the table's key"),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn part_of(text: &str) -> Result<String, RefusalCode> {
        let row = format!("{{\"id\":{text}}}");
        let image = Image::scan(row.as_bytes(), 1_000, 8).unwrap();
        part(&image, 0, "id").map(Cow::into_owned).map_err(|refusal| refusal.code)
    }

    #[test]
    fn strings_and_integers_are_keys_by_their_text() {
        assert_eq!(part_of("\"u_1\"").unwrap(), "u_1");
        assert_eq!(part_of("42").unwrap(), part_of("\"42\"").unwrap());
        assert_eq!(part_of("-123456789012345678901234567890").unwrap(), "-123456789012345678901234567890");
        assert_eq!(part_of("\"\\u00e9\\\"\"").unwrap(), "é\"");
        assert_eq!(part_of("0").unwrap(), "0");
    }

    #[test]
    fn nothing_else_is_a_key() {
        for text in ["null", "true", "1.5", "1e3", "-0", "{}", "[1]", "\"\""] {
            assert_eq!(part_of(text), Err(RefusalCode::InvalidKey), "{text}");
        }
    }

    #[test]
    fn composite_keys_cannot_be_confused() {
        assert_eq!(canonical(&["a", "b"], 100).unwrap(), "a/b");
        assert_eq!(canonical(&["a/b", "c%"], 100).unwrap(), "a%2Fb/c%25");
        assert_eq!(canonical(&["a/b"], 100).unwrap(), "a/b");
    }

    #[test]
    fn a_key_may_be_as_long_as_the_limit_and_no_longer() {
        assert!(canonical(&["abc"], 3).is_ok());
        assert_eq!(canonical(&["abcd"], 3).unwrap_err().code, RefusalCode::KeyTooLong);
    }
}
