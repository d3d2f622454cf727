//! The text of a checkpoint.
//!
//! Lines of words, in this order; names are percent-encoded where they hold spaces or the like:
//!
//! ```text
//! mysql 2                                   what this is, and the version of this form
//! server mariadb 1                          the dialect, and the server's id (MariaDB) or UUID (MySQL)
//! rules 5f1c…                               a hash of the rules under which was captured
//! place mysql-bin.000003 1234 1732560000    file and offset where the next transaction begins, when the file was begun
//! seen 0-1-42                               the transactions before it; absent where the server names none
//! skip 17                                   rows of the next transaction that were handed out already; absent if none
//! prepared X'71',X'',1 shop.orders shop.b   an XA transaction that is prepared, and the tables that it changes
//! table shop orders 9a3e… following         a table, a hash of its form, and how far its rows are read:
//! table shop items 77b0… reading ["42"]     after the row with this key; `[]` at the beginning
//! table shop users - waiting
//! table shop notes 5b1d… stopped "no-key" "it has no key"   and why
//! table shop lines 11f2… waiting known again "cascade" "rows of …"   its rows were all there once; its reading is
//!                                           followed by another; why it is read
//! ```
//!
//! Version 1 had neither `stopped` nor the words behind what the reading is; it is read too.

use std::collections::BTreeMap;

use super::place::{LogPlace, Seen};
use crate::feed::Reason;

/// At most how many characters of a reason are kept.
const REASON_MAX: usize = 500;

/// Namespace and relation.
pub(super) type Name = (String, String);

/// How far the reading of a table's rows is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// Not begun.
    Waiting,
    /// The row with this key was the last one handed out; empty at the beginning.
    After(Vec<String>),
    /// Done; its changes follow.
    Following,
    /// It can't be followed; the line's reason says why.
    Stopped,
}

/// What a table's line holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TableLine {
    /// A hash of the form under which its rows were last described; empty if they never were.
    pub(super) form: String,
    pub(super) reading: Reading,
    /// All of its rows were there once: reading them is reading them anew.
    pub(super) known: bool,
    /// Rows changed while it was read, and nobody knows which: after this reading comes another.
    pub(super) again: bool,
    /// Why it is read anew, or stopped.
    pub(super) reason: Option<Reason>,
}

impl TableLine {
    pub(super) fn new(reading: Reading) -> TableLine {
        TableLine { form: String::new(), reading, known: false, again: false, reason: None }
    }
}

/// Everything that a feed needs to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resume {
    pub(super) mariadb: bool,
    pub(super) server: String,
    pub(super) rules: String,
    pub(super) place: LogPlace,
    /// When the file was begun, in seconds since 1970; 0 if that was not told yet.
    pub(super) file_begun: u32,
    pub(super) seen: Seen,
    pub(super) skip: u64,
    pub(super) prepared: BTreeMap<String, Vec<Name>>,
    pub(super) tables: BTreeMap<Name, TableLine>,
}

impl Resume {
    pub(super) fn write(&self) -> String {
        let mut out = String::with_capacity(200 + self.tables.len() * 60);
        let dialect = if self.mariadb { "mariadb" } else { "mysql" };
        out.push_str(&format!("mysql 2\nserver {dialect} {}\nrules {}\n", encode(&self.server), encode(&self.rules)));
        let LogPlace { file, offset } = &self.place;
        // Dots only need to be encoded where they stand between names.
        out.push_str(&format!("place {} {offset} {}\n", encode(file).replace("%2e", "."), self.file_begun));
        if self.seen != Seen::Nameless {
            out.push_str(&format!("seen {}\n", self.seen));
        }
        if self.skip > 0 {
            out.push_str(&format!("skip {}\n", self.skip));
        }
        for (xid, tables) in &self.prepared {
            out.push_str(&format!("prepared {}", encode(xid)));
            for (namespace, relation) in tables {
                out.push_str(&format!(" {}.{}", encode(namespace), encode(relation)));
            }
            out.push('\n');
        }
        for ((namespace, relation), TableLine { form, reading, known, again, reason }) in &self.tables {
            let form = if form.is_empty() { "-" } else { form };
            out.push_str(&format!("table {} {} {form} ", encode(namespace), encode(relation)));
            match reading {
                Reading::Waiting => out.push_str("waiting"),
                Reading::Following => out.push_str("following"),
                Reading::Stopped => out.push_str("stopped"),
                Reading::After(key) => {
                    out.push_str("reading [");
                    for (at, part) in key.iter().enumerate() {
                        out.push_str(&format!("{}\"{}\"", if at > 0 { "," } else { "" }, encode(part)));
                    }
                    out.push(']');
                }
            }
            // That a table that follows is known goes without saying.
            if *known && *reading != Reading::Following {
                out.push_str(" known");
            }
            if *again {
                out.push_str(" again");
            }
            if let Some(Reason { code, message }) = reason {
                let message: String = message.chars().take(REASON_MAX).collect();
                out.push_str(&format!(" \"{}\" \"{}\"", encode(code), encode(&message)));
            }
            out.push('\n');
        }
        out
    }

    /// None if it is not such a text.
    pub(super) fn read(text: &str) -> Option<Resume> {
        let mut lines = text.lines();
        if !matches!(lines.next()?, "mysql 1" | "mysql 2") {
            return None;
        }
        let mut resume = Resume {
            mariadb: true,
            server: String::new(),
            rules: String::new(),
            place: LogPlace::default(),
            file_begun: 0,
            seen: Seen::Nameless,
            skip: 0,
            prepared: BTreeMap::new(),
            tables: BTreeMap::new(),
        };
        for line in lines {
            let mut words = line.split(' ');
            match words.next()? {
                "server" => {
                    resume.mariadb = words.next()? == "mariadb";
                    resume.server = decode(words.next()?)?;
                }
                "rules" => resume.rules = decode(words.next()?)?,
                "place" => {
                    resume.place = LogPlace { file: decode(words.next()?)?, offset: words.next()?.parse().ok()? };
                    resume.file_begun = words.next()?.parse().ok()?;
                }
                "seen" => {
                    let text = words.next().unwrap_or_default();
                    resume.seen = if resume.mariadb { Seen::parse_mariadb(text)? } else { Seen::parse_mysql(text)? };
                }
                "skip" => resume.skip = words.next()?.parse().ok()?,
                "prepared" => {
                    let xid = decode(words.next()?)?;
                    let tables = words.map(|name| {
                        let (namespace, relation) = name.split_once('.')?;
                        Some((decode(namespace)?, decode(relation)?))
                    });
                    resume.prepared.insert(xid, tables.collect::<Option<_>>()?);
                }
                "table" => {
                    let name = (decode(words.next()?)?, decode(words.next()?)?);
                    let form = words.next().filter(|&form| form != "-").unwrap_or_default().to_owned();
                    let reading = match words.next()? {
                        "waiting" => Reading::Waiting,
                        "following" => Reading::Following,
                        "stopped" => Reading::Stopped,
                        "reading" => {
                            let list = words.next()?.strip_prefix('[')?.strip_suffix(']')?;
                            let parts = list.split(',').filter(|_| !list.is_empty());
                            let unquoted = parts.map(|part| decode(part.strip_prefix('"')?.strip_suffix('"')?));
                            Reading::After(unquoted.collect::<Option<_>>()?)
                        }
                        _ => return None,
                    };
                    let mut line = TableLine { form, ..TableLine::new(reading) };
                    line.known = line.reading == Reading::Following;
                    while let Some(word) = words.next() {
                        match word {
                            "known" => line.known = true,
                            "again" => line.again = true,
                            code => {
                                let unquoted = |word: &str| decode(word.strip_prefix('"')?.strip_suffix('"')?);
                                line.reason = Some(Reason::new(unquoted(code)?, unquoted(words.next()?)?));
                            }
                        }
                    }
                    resume.tables.insert(name, line);
                }
                _ => return None,
            }
        }
        Some(resume)
    }
}

/// Percent-encodes what would be mistaken for the form itself.
fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            ' ' | '%' | '.' | '"' | ',' | '\u{0}'..='\u{1f}' | '\u{7f}' => {
                out.push_str(&format!("%{:02x}", u32::from(character)));
            }
            other => out.push(other),
        }
    }
    out
}

fn decode(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut pieces = text.split('%');
    out.push_str(pieces.next()?);
    for piece in pieces {
        let code = u8::from_str_radix(piece.get(..2)?, 16).ok()?;
        out.push(char::from(code));
        out.push_str(&piece[2..]);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_checkpoint_reads_as_it_was_written() {
        let name = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let line = |form: &str, reading| {
            let known = reading == Reading::Following;
            TableLine { form: form.into(), known, ..TableLine::new(reading) }
        };
        let resume = Resume {
            mariadb: true,
            server: "1".into(),
            rules: "5f1c".into(),
            place: LogPlace { file: "mysql-bin.000003".into(), offset: 1234 },
            file_begun: 1_732_560_000,
            seen: Seen::parse_mariadb("0-1-42,1-2-7").unwrap(),
            skip: 17,
            prepared: BTreeMap::from([("X'71',X'',1".into(), vec![name("shop", "orders"), name("a.b", "c d")])]),
            tables: BTreeMap::from([
                (name("shop", "orders"), line("9a3e", Reading::Following)),
                (name("shop", "tag ✓"), line("", Reading::Waiting)),
                (name("shop", "x"), line("1", Reading::After(Vec::new()))),
                (name("shop", "y"), line("2", Reading::After(vec!["a \"b\",%\n".into(), String::new()]))),
                (
                    name("shop", "z"),
                    TableLine {
                        again: true,
                        known: true,
                        reason: Some(Reason::new("cascade", "rows of \"p\" were, say,\n100% deleted")),
                        ..line("3", Reading::Waiting)
                    },
                ),
                (
                    name("shop", "zz"),
                    TableLine { reason: Some(Reason::new("no-key", String::new())), ..line("", Reading::Stopped) },
                ),
            ]),
        };
        let text = resume.write();
        assert_eq!(Resume::read(&text).as_ref(), Some(&resume), "{text}");
        assert!(text.contains("place mysql-bin.000003 1234 1732560000\nseen 0-1-42,1-2-7\nskip 17\n"), "{text}");
    }

    #[test]
    fn the_first_version_is_read_too() {
        let resume = Resume::read("mysql 1\nserver mariadb 1\ntable a b 9a following\ntable a c - waiting\n").unwrap();
        let known: Vec<bool> = resume.tables.values().map(|line| line.known).collect();
        assert_eq!(known, [true, false]);
    }

    #[test]
    fn another_text_is_refused() {
        for text in ["", "postgres 1\n", "mysql 3\n", "mysql 1\nwhat 1\n", "mysql 1\nplace a\n"] {
            assert_eq!(Resume::read(text), None, "{text}");
        }
    }
}
