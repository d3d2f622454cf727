//! Text on its way to a terminal. Rows, names and messages come from whoever writes to the service, and nothing of theirs
//! steers the terminal of whoever reads.

use std::borrow::Cow;
use std::fmt::Write;

/// The text with everything that steers a terminal as `\\u001b`: control characters but line ends and tabs, and marks
/// that reorder text. In JSON these only stand within texts, which mean the same then.
#[must_use]
pub fn plain(text: &str) -> Cow<'_, str> {
    let steers = |c: char| {
        (c.is_control() && c != '\n' && c != '\t')
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if steers(character) {
            // Writing to a String cannot fail; each of these is below U+10000.
            let _ = write!(safe, "\\u{:04x}", u32::from(character));
        } else {
            safe.push(character);
        }
    }
    Cow::Owned(safe)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn nothing_of_a_row_steers_a_terminal_and_json_means_the_same() {
        let row = serde_json::json!({"a": "\u{9b}31m\u{7f}\u{202e}x", "b\u{85}": "\u{1b}[2J\n"});
        let text = row.to_string();
        assert!(text.contains('\u{9b}'), "JSON leaves these as they are");
        let safe = plain(&text);
        assert!(safe.contains("\\u009b31m\\u007f\\u202ex"), "{safe}");
        assert!(!safe.chars().any(char::is_control));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).unwrap(), row);
        assert_eq!(plain("\u{1b}[31mred\r\nnext\tline"), "\\u001b[31mred\\u000d\nnext\tline");
        assert!(matches!(plain("as it is: é\n"), Cow::Borrowed(_)));
    }
}
