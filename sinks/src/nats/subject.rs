//! Subjects: which characters they may have, and what a stream that takes them all looks like.

use crate::template::Template;

/// A name as a subject. Dots divide tokens; what no token may have is percent-encoded, and so are dots that would make
/// an empty token, and a `$` at the beginning, which is the server's own.
pub(super) fn of(name: &str) -> String {
    let mut subject = String::with_capacity(name.len());
    let characters: Vec<char> = name.chars().collect();
    for (at, &character) in characters.iter().enumerate() {
        let is_last = at + 1 == characters.len();
        let is_plain = match character {
            '.' => at > 0 && !is_last && characters[at - 1] != '.',
            '$' => at > 0,
            '*' | '>' | '%' => false,
            _ => !character.is_whitespace() && !character.is_control(),
        };
        if is_plain {
            subject.push(character);
        } else {
            let mut bytes = [0; 4];
            for byte in character.encode_utf8(&mut bytes).bytes() {
                subject.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    subject
}

/// What all subjects of a template match: `>` for what comes after its first placeholder, since tables have dots.
pub(super) fn pattern(template: &Template) -> String {
    let sample = template.with("\u{1}");
    let tokens: Vec<&str> = sample.split('.').collect();
    match tokens.iter().position(|token| token.contains('\u{1}')) {
        Some(0) => ">".to_owned(),
        Some(at) => format!("{}.>", tokens[..at].join(".")),
        None => sample,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn subjects_have_only_what_subjects_may_have() {
        for (name, subject) in [
            ("cdc.users", "cdc.users"),
            ("cdc.public.users", "cdc.public.users"),
            ("cdc.été-2_$", "cdc.été-2_$"),
            ("cdc.a b*c>d%", "cdc.a%20b%2Ac%3Ed%25"),
            ("a..b.", "a.%2Eb%2E"),
            ("$JS.x", "%24JS.x"),
            ("a\u{a0}b", "a%C2%A0b"),
        ] {
            assert_eq!(of(name), subject);
        }
    }

    #[test]
    fn a_pattern_matches_whatever_a_template_becomes() {
        for (template, expected) in [
            ("cdc.{table}", "cdc.>"),
            ("{table}", ">"),
            ("a.b.x-{table}.{operation}", "a.b.>"),
            ("all.of.it", "all.of.it"),
        ] {
            assert_eq!(pattern(&Template::parse(template).unwrap()), expected);
        }
    }
}
