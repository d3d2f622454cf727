//! Which tables a statement writes that the log holds instead of the rows that it changed.
//!
//! It errs on one side only: a table that may be written is named, one that is only read may be named too where several
//! tables are joined.

use super::checkpoint::Name;
use super::words::Words;

/// What such a statement writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Writes {
    /// These tables, by itself; triggers and functions may write others. Empty for what only calls functions.
    Tables(Vec<Name>),
    /// It can't be told.
    Unknown,
}

/// Words that stand before the table's name.
const MODIFIERS: &[&str] = &["LOW_PRIORITY", "HIGH_PRIORITY", "DELAYED", "QUICK", "IGNORE", "HISTORY", "INTO"];

/// Reads what comes after the first word of a statement.
pub(super) fn read(first: &str, words: &mut Words<'_>) -> Writes {
    let one = |name: Option<Name>| name.map_or(Writes::Unknown, |name| Writes::Tables(vec![name]));
    match first {
        "INSERT" | "REPLACE" => {
            words.skip(MODIFIERS);
            one(words.name())
        }
        "UPDATE" => {
            words.skip(MODIFIERS);
            tables(words, &["SET"])
        }
        "DELETE" => {
            words.skip(MODIFIERS);
            // `FROM t WHERE …`, `a, b FROM refs`, `FROM a, b USING refs`: an alias may stand for a table of the refs.
            tables(words, &["WHERE", "ORDER", "LIMIT", "RETURNING"])
        }
        "LOAD" => {
            while !words.rest.is_empty() {
                if words.keyword() == "INTO" && words.keyword() == "TABLE" {
                    return one(words.name());
                }
                words.pass();
            }
            Writes::Unknown
        }
        "CALL" | "DO" | "SELECT" => Writes::Tables(Vec::new()),
        _ => Writes::Unknown,
    }
}

/// Every name up to one of these words that stands where a table's name may.
fn tables(words: &mut Words<'_>, end: &[&str]) -> Writes {
    const JOINS: [&str; 14] = [
        "FROM",
        "USING",
        "JOIN",
        "INNER",
        "CROSS",
        "LEFT",
        "RIGHT",
        "OUTER",
        "NATURAL",
        "STRAIGHT_JOIN",
        "AS",
        "ON",
        "PARTITION",
        "SELECT",
    ];
    let mut names = Vec::new();
    let mut expected = true;
    while !words.rest.is_empty() {
        let before = words.rest;
        let word = words.keyword();
        if end.contains(&word.as_str()) {
            break;
        }
        if JOINS.contains(&word.as_str()) {
            expected = matches!(word.as_str(), "FROM" | "USING" | "JOIN" | "STRAIGHT_JOIN");
            continue;
        }
        words.rest = before;
        if expected && let Some(name) = words.name() {
            names.push(name);
            expected = false;
            continue;
        }
        match words.pass() {
            Some(',' | '(') => expected = true,
            Some(_) if words.rest.len() == before.len() => break,
            None => break,
            _ => {
                // The rest of a word, which would look like another one.
                words.rest = words.rest.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_' || c == '$');
            }
        }
    }
    if names.is_empty() { Writes::Unknown } else { Writes::Tables(names) }
}
