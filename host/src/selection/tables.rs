//! Which tables a selection is about.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::SelectionError;

/// The same as the engine's, which matches the same patterns.
const MAX_PATTERN_BYTES: usize = 256;
const MAX_PATTERNS: usize = 1_000;
/// With more patterns than this, looking a table up is cheaper than matching it.
const MAX_MATCHED: usize = 4;
/// How many tables are remembered. What comes later is matched each time.
const MAX_REMEMBERED: usize = 10_000;

/// Table names, `*` standing for any run of characters.
#[derive(Debug)]
pub(super) enum Tables {
    Every,
    Few(Vec<String>),
    Many { patterns: Vec<String>, remembered: RwLock<HashMap<Arc<str>, bool>> },
}

impl Tables {
    pub(super) fn compile(patterns: &[String]) -> Result<Self, SelectionError> {
        if patterns.len() > MAX_PATTERNS {
            return Err(SelectionError::TooManyTables { most: MAX_PATTERNS });
        }
        for pattern in patterns {
            if pattern.is_empty() || pattern.len() > MAX_PATTERN_BYTES {
                return Err(SelectionError::PatternLength { pattern: pattern.clone(), most: MAX_PATTERN_BYTES });
            }
            if pattern.chars().any(|character| character.is_control() || character == '/') {
                return Err(SelectionError::PatternOfNoTable { pattern: pattern.clone() });
            }
        }
        if patterns.is_empty() || patterns.iter().any(|pattern| pattern == "*") {
            return Ok(Self::Every);
        }
        let patterns = patterns.to_vec();
        Ok(match patterns.len() {
            0..=MAX_MATCHED => Self::Few(patterns),
            _ => Self::Many { patterns, remembered: RwLock::default() },
        })
    }

    pub(super) fn match_table(&self, table: &Arc<str>) -> bool {
        match self {
            Self::Every => true,
            Self::Few(patterns) => any(patterns, table),
            Self::Many { patterns, remembered } => {
                // What a panicking thread left behind is whole: an insert happens or does not.
                if let Some(verdict) = remembered.read().unwrap_or_else(PoisonError::into_inner).get(table) {
                    return *verdict;
                }
                let verdict = any(patterns, table);
                let mut remembered = remembered.write().unwrap_or_else(PoisonError::into_inner);
                if remembered.len() < MAX_REMEMBERED {
                    remembered.insert(table.clone(), verdict);
                }
                verdict
            }
        }
    }
}

fn any(patterns: &[String], table: &str) -> bool {
    patterns.iter().any(|pattern| matches(pattern, table))
}

/// Whether the text is the pattern. Goes back to the last `*` only, so the cost is bounded by the product of the
/// lengths.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    // Where the last `*` stands, and where in the text what follows it is being tried.
    let mut star: Option<(usize, usize)> = None;
    let (mut at, mut from) = (0, 0);
    while from < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, from));
                at += 1;
            }
            Some(byte) if *byte == text[from] => {
                at += 1;
                from += 1;
            }
            _ => {
                let Some((place, tried)) = star else { return false };
                star = Some((place, tried + 1));
                (at, from) = (place + 1, tried + 1);
            }
        }
    }
    pattern[at..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy, prop, prop_assert_eq, proptest};

    use super::*;

    fn tables(patterns: &[&str]) -> Tables {
        let patterns: Vec<String> = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        Tables::compile(&patterns).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn no_pattern_and_a_lone_star_are_every_table() {
        for patterns in [&[][..], &["*"], &["x", "*"]] {
            assert!(tables(patterns).match_table(&"t".into()), "{patterns:?}");
        }
    }

    /// The examples of the engine's own test, which must come out the same.
    #[test]
    fn a_star_stands_for_any_run_of_characters() {
        let tables = tables(&["user*", "*.log", "a*b*c"]);
        for table in ["users", "user", "public.log", "abc", "a1b2bc", "user.žluť"] {
            assert!(tables.match_table(&table.into()), "{table}");
        }
        for table in ["use", "public.logs", "acb", "ab", ""] {
            assert!(!tables.match_table(&table.into()), "{table}");
        }
    }

    #[test]
    fn many_patterns_say_the_same_the_second_time() {
        let tables = tables(&["a", "b*", "c", "d", "*e"]);
        assert!(matches!(tables, Tables::Many { .. }));
        for _ in 0..2 {
            for (table, expected) in [("a", true), ("bb", true), ("x", false), ("see", true), ("cc", false)] {
                assert_eq!(tables.match_table(&table.into()), expected, "{table}");
            }
        }
    }

    #[test]
    fn a_pattern_that_can_match_nothing_is_refused() {
        for pattern in ["", "a/b", "a\nb", &"x".repeat(257)] {
            assert!(Tables::compile(&[pattern.to_owned()]).is_err(), "{pattern:?}");
        }
        assert!(Tables::compile(&vec!["x".to_owned(); 1_001]).is_err());
        assert!(Tables::compile(&vec!["x".to_owned(); 1_000]).is_ok());
    }

    /// The meaning in one line: the first `*` takes any prefix of what is left.
    fn meaning(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => (0..=text.len()).any(|taken| meaning(rest, &text[taken..])),
            Some((byte, rest)) => text.first() == Some(byte) && meaning(rest, &text[1..]),
        }
    }

    proptest! {
        #[test]
        fn matching_agrees_with_its_meaning(pattern in "[ab*]{1,8}", text in prop::collection::vec("[ab]", 0..10).prop_map(|parts| parts.concat())) {
            prop_assert_eq!(matches(&pattern, &text), meaning(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
