//! Percent-decoding that refuses what is malformed instead of passing it on, and encoding for paths that answers name.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// What stays as it is in a segment of a path.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A text as one segment of a path.
pub fn path_segment(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

/// Decodes `%XX` sequences; the outcome must be UTF-8. The error says what is wrong, to stand after "it".
pub(crate) fn decode(text: &str) -> Result<Cow<'_, str>, &'static str> {
    let bytes = text.as_bytes();
    for at in memchr::memchr_iter(b'%', bytes) {
        // The decoder lets a stray `%` stand for itself; two clients would then spell two keys alike.
        if !matches!(bytes.get(at + 1..at + 3), Some([a, b]) if a.is_ascii_hexdigit() && b.is_ascii_hexdigit()) {
            return Err("has a `%` that is not followed by two hexadecimal digits");
        }
    }
    percent_decode_str(text).decode_utf8().map_err(|_| "is not UTF-8 once percent-decoded")
}

/// Decodes a piece of a query, where `+` is a space.
pub(crate) fn decode_query(text: &str) -> Result<Cow<'_, str>, &'static str> {
    if text.contains('+') {
        decode(&text.replace('+', " ")).map(|decoded| Cow::Owned(decoded.into_owned()))
    } else {
        decode(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_are_decoded() {
        assert_eq!(decode("a%2Fb%20%C3%A9+").as_deref(), Ok("a/b é+"));
        assert_eq!(decode("é").as_deref(), Ok("é"));
    }

    #[test]
    fn a_segment_decodes_to_what_it_was() {
        for text in ["public.users", "a/b %é~"] {
            let segment = path_segment(text);
            assert!(!segment.contains('/'), "{segment}");
            assert_eq!(decode(&segment).as_deref(), Ok(text));
        }
    }

    #[test]
    fn a_plus_is_a_space_in_queries_only() {
        assert_eq!(decode_query("a+b%2B").as_deref(), Ok("a b+"));
    }

    #[test]
    fn what_is_malformed_is_refused() {
        for text in ["%", "%4", "%zz", "ab%", "%%20", "%+1"] {
            assert!(decode(text).is_err_and(|why| why.contains("hexadecimal")), "{text}");
        }
        assert!(decode("%ff").is_err_and(|why| why.contains("UTF-8")));
    }
}
