//! What a table's rows depend on beside the changes that the log tells, and what becomes of rows that are known when it
//! changes. Pure.
//!
//! PostgreSQL's log has rows, and no DDL. So each table is known with a [`Stamp`] of its definition, which the catalog
//! is compared with at a place of the log where that is true; what differs says whether rows that are stored stay as
//! they are, follow by a rule, or have to be read anew ([`Verdict`]). Doubt means reading: nothing is left wrong.
//!
//! The rule is exact because columns have numbers that are never given twice, the value of a column that was added
//! without writing the table is in the catalog, and everything else that changes rows without a trace in the log
//! rewrites the table (another file, and a newer description of a column).

use std::fmt::Write;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::pgoutput::Relation;
use crate::change::Table;
use crate::feed::Reason;
use crate::rules::{Rules, Treatment};

/// A table's definition as the catalog has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Definition {
    /// The columns that the log tells, in their order.
    pub(super) columns: Vec<DefinedColumn>,
    /// Numbers of columns that are no more.
    pub(super) dropped: Vec<i16>,
    pub(super) parts: Parts,
    /// The partitions, if it is partitioned.
    pub(super) members: Arc<Vec<Member>>,
    /// Names of the key's columns.
    pub(super) key: Vec<String>,
    /// Whether it is in the publication by itself, so that nobody can take it out of the log for a while (UNLOGGED).
    pub(super) is_listed: bool,
}

/// A column of a definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DefinedColumn {
    pub(super) number: i16,
    pub(super) name: String,
    pub(super) type_oid: u32,
    pub(super) type_modifier: i32,
    pub(super) native_type: String,
    pub(super) treatment: Treatment,
    /// What rows have that were there before it, as JSON; None if that is not known of all of them.
    pub(super) added_value: Option<String>,
}

/// Parts of a definition that are only compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Parts {
    /// The highest number that a column ever had.
    pub(super) last: i16,
    /// The file that its rows are in.
    pub(super) file: u32,
    /// When each column's description was last written.
    pub(super) attributes: u64,
    /// When the one was that was not written for the longest time. Attaching a table to a partitioned one, and detaching
    /// it, writes all.
    pub(super) since: u32,
    /// What values of types are spelled like that somebody defined: labels of enums, fields of composites.
    pub(super) types: u64,
    /// Its partitions, and their files.
    pub(super) members: u64,
    /// How and since when it is published.
    pub(super) published: u64,
}

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) oid: u32,
    /// Changes when it is attached anew, or its file is another.
    pub(super) stamp: String,
    /// Whether it had rows when it was first seen.
    pub(super) filled: bool,
}

/// A definition, as short as a checkpoint needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(super) struct Stamp {
    /// Numbers of the columns that are in images, in their order.
    numbers: Vec<i16>,
    /// Names and types of the columns that the log tells.
    columns: u64,
    rules: u64,
    parts: Parts,
}

/// What is known of a table's rows that are stored.
#[derive(Clone, Copy, Debug)]
pub(super) struct Before<'a> {
    /// What they were last true under.
    pub(super) stamp: &'a Stamp,
    /// The columns of their key.
    pub(super) key: &'a [String],
    /// How they look, if that is known.
    pub(super) stored: Option<&'a Table>,
    /// The partitions of that time, if they are known.
    pub(super) members: Option<&'a [Member]>,
}

/// What a change of the definition means for rows that are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// They are as they should be.
    Same,
    /// They follow by a rule.
    Rewrite {
        /// Old names by new ones.
        renamed: Vec<(String, String)>,
        /// Values of columns that are new.
        added: Vec<(String, String)>,
        reason: String,
    },
    /// They may be wrong.
    Reread(Reason),
}

/// What is said of a table whose partitions are others than before.
pub(super) const PARTITIONS_CHANGED: &str =
    "partitions came, went or were emptied, and the log does not tell which rows those had";

/// The first 64 bits of a hash that nobody finds a second text for by chance.
pub(super) fn digest(text: &str) -> u64 {
    let bytes = Sha256::digest(text.as_bytes());
    bytes.iter().take(8).fold(0, |hash, &byte| hash << 8 | u64::from(byte))
}

/// Names and types of columns, as the log tells them too.
fn columns_digest<'a>(columns: impl Iterator<Item = (&'a str, u32, i32)>) -> u64 {
    let mut text = String::new();
    for (name, type_oid, modifier) in columns {
        let _ = write!(text, "{}:{name}{type_oid}:{modifier};", name.len());
    }
    digest(&text)
}

/// The same of a relation in the log.
pub(super) fn digest_of(relation: &Relation<'_>) -> u64 {
    columns_digest(relation.columns.iter().map(|column| (column.name, column.type_oid, column.type_modifier)))
}

impl Definition {
    /// What the log tells of the columns, if it tells of this definition.
    pub(super) fn columns_digest(&self) -> u64 {
        columns_digest(self.columns.iter().map(|column| (column.name.as_str(), column.type_oid, column.type_modifier)))
    }

    /// The columns that are in images.
    fn shown(&self) -> impl Iterator<Item = &DefinedColumn> {
        self.columns.iter().filter(|column| column.treatment != Treatment::LeaveOut)
    }

    pub(super) fn stamp(&self, rules: &Rules) -> Stamp {
        let mut hidden = format!("{}\n{}\n", rules.name, rules.salt);
        for column in self.columns.iter().filter(|column| column.treatment != Treatment::Keep) {
            let _ = write!(hidden, "{}:{:?};", column.number, column.treatment);
        }
        Stamp {
            numbers: self.shown().map(|column| column.number).collect(),
            columns: self.columns_digest(),
            rules: digest(&hidden),
            parts: self.parts,
        }
    }

    /// What it means for rows that are stored.
    pub(super) fn verdict(&self, rules: &Rules, before: Before<'_>) -> Verdict {
        let (old, new) = (before.stamp, self.stamp(rules));
        if *old == new {
            return self.same_key(before.key, &[]);
        }
        let reread = |code: &str, message: &str| Verdict::Reread(Reason::new(code, message));
        if old.rules != new.rules {
            return reread("rules-changed", "the rules about its columns or its name are others than before");
        }
        if old.parts.published != new.parts.published {
            return reread(
                "publication-changed",
                "it was published otherwise meanwhile (taken out of the publication and put back, or with other options), \
                 and what changed at that time is not in the log",
            );
        }
        if old.parts.members != new.parts.members && !before.members.is_some_and(|old| self.only_gained_empty(old)) {
            return reread("partitions-changed", PARTITIONS_CHANGED);
        }
        if old.parts.types != new.parts.types {
            return reread(
                "type-changed",
                "a type of its columns has other labels or fields, so values read otherwise",
            );
        }
        // One of them alone changes no value: VACUUM FULL, or a new name or default.
        if old.parts.file != new.parts.file && old.parts.attributes != new.parts.attributes {
            return reread(
                "rewritten",
                "the database rewrote its rows (another type of a column, or a new column with values of their own), and \
                 the log does not tell how",
            );
        }
        if old.parts.file != new.parts.file && !self.is_listed {
            return reread(
                "rewritten",
                "its rows are in another file, and it is published without being named in the publication: it may have been \
                 UNLOGGED for a while, of which the log does not tell",
            );
        }
        if old.parts.since != new.parts.since {
            return reread(
                "redefined",
                "every column was described anew: it may have been a partition of another table for a while, whose changes \
                 the log tells under the other's name",
            );
        }
        if old.columns == new.columns && old.numbers == new.numbers {
            return self.same_key(before.key, &[]);
        }
        self.by_columns(before, rules)
    }

    fn same_key(&self, old: &[String], renamed: &[(String, String)]) -> Verdict {
        let new_name = |old: &String| {
            renamed.iter().find(|(_, before)| before == old).map_or_else(|| old.clone(), |(new, _)| new.clone())
        };
        if old.iter().map(new_name).eq(self.key.iter().cloned()) {
            Verdict::Same
        } else {
            Verdict::Reread(Reason::new("key-changed", "its key is another one"))
        }
    }

    /// Columns that were renamed, dropped or added without touching the table's rows.
    fn by_columns(&self, Before { stamp: old, key, stored, .. }: Before<'_>, rules: &Rules) -> Verdict {
        let doubt = || Verdict::Reread(Reason::new("columns-changed", "its columns are others than before"));
        let Some(stored) = stored.filter(|stored| stored.database_columns().len() == old.numbers.len()) else {
            return doubt();
        };
        let old_name = |number: i16| {
            let place = old.numbers.iter().position(|&known| known == number)?;
            Some(&stored.database_columns()[place])
        };
        // What was made and dropped again in between may have been in rows for a while.
        if self.dropped.iter().any(|&number| number > old.parts.last) {
            return doubt();
        }
        let (mut renamed, mut added, mut told) = (Vec::new(), Vec::new(), Vec::new());
        for column in self.shown() {
            match old_name(column.number) {
                Some(before) => {
                    if base_of(&before.native_type) != base_of(&column.native_type) {
                        return doubt();
                    }
                    if before.name != column.name {
                        let was = rules.treatment(&stored.namespace, &stored.relation, &before.name);
                        if was != column.treatment {
                            return doubt();
                        }
                        told.push(format!("the column `{}` is called `{}` now", before.name, column.name));
                        renamed.push((column.name.clone(), before.name.clone()));
                    }
                }
                None if column.number > old.parts.last && column.treatment == Treatment::Keep => {
                    let Some(value) = &column.added_value else { return doubt() };
                    told.push(format!("the column `{}` is new, and {value} in rows that were there", column.name));
                    added.push((column.name.clone(), value.clone()));
                }
                None => return doubt(),
            }
        }
        // A name that is both old and new could not be told apart in rows that are rewritten twice.
        let taken = |name: &String| stored.columns.iter().any(|column| column.name == *name);
        if renamed.iter().chain(&added).any(|(new, _)| taken(new)) {
            return doubt();
        }
        let gone = stored.database_columns().iter().zip(&old.numbers);
        let gone = gone.filter(|(_, number)| !self.shown().any(|column| column.number == **number));
        let gone: Vec<&str> = gone.map(|(column, _)| column.name.as_str()).collect();
        told.extend(gone.iter().map(|name| format!("the column `{name}` is gone")));
        match self.same_key(key, &renamed) {
            Verdict::Same if told.is_empty() => Verdict::Same,
            Verdict::Same => Verdict::Rewrite { renamed, added, reason: told.join("; ") },
            other => other,
        }
    }

    /// Whether nothing happened to its partitions but that empty ones came.
    fn only_gained_empty(&self, old: &[Member]) -> bool {
        let stays =
            |member: &Member| self.members.iter().any(|now| (now.oid, &now.stamp) == (member.oid, &member.stamp));
        let is_new = |member: &&Member| !old.iter().any(|before| before.oid == member.oid);
        old.iter().all(stays) && self.members.iter().filter(is_new).all(|member| !member.filled)
    }
}

impl Stamp {
    /// What the log told of the columns when this was the definition.
    pub(super) fn columns(&self) -> u64 {
        self.columns
    }
}

/// A type without its precision or length, of which other values are spelled alike.
fn base_of(native_type: &str) -> String {
    match (native_type.find('('), native_type.find(')')) {
        (Some(from), Some(to)) if from < to => format!("{}{}", &native_type[..from], &native_type[to + 1..]),
        _ => native_type.to_owned(),
    }
}

impl From<Stamp> for String {
    fn from(stamp: Stamp) -> String {
        let mut text = String::new();
        // Numbers that follow each other as a range.
        let mut at = 0;
        while let Some(&from) = stamp.numbers.get(at) {
            let length = (0..).zip(&stamp.numbers[at..]).take_while(|&(step, &number)| number == from + step).count();
            let _ = write!(text, "{}{from}", if at > 0 { "," } else { "" });
            if length > 1 {
                let _ = write!(text, "-{}", stamp.numbers[at + length - 1]);
            }
            at += length;
        }
        let Parts { last, file, since, attributes, types, members, published } = stamp.parts;
        let _ = write!(text, ";{last};{file:x};{since:x}");
        for hash in [stamp.columns, stamp.rules, attributes, types, members, published] {
            let _ = write!(text, ";{hash:x}");
        }
        text
    }
}

/// A text that is no stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the stamp of a table's definition")]
pub(super) struct NoStamp;

impl TryFrom<String> for Stamp {
    type Error = NoStamp;

    fn try_from(text: String) -> Result<Stamp, NoStamp> {
        let mut words = text.split(';');
        let mut word = || words.next().ok_or(NoStamp);
        let number = |text: &str| text.parse::<i16>().map_err(|_| NoStamp);
        let mut numbers = Vec::new();
        for range in word()?.split(',').filter(|range| !range.is_empty()) {
            let (from, to) = range.split_once('-').unwrap_or((range, range));
            numbers.extend(number(from)?..=number(to)?);
        }
        let last = number(word()?)?;
        let mut id = || u32::from_str_radix(word()?, 16).map_err(|_| NoStamp);
        let (file, since) = (id()?, id()?);
        let mut hash = || u64::from_str_radix(word()?, 16).map_err(|_| NoStamp);
        let (columns, rules) = (hash()?, hash()?);
        let parts =
            Parts { last, file, since, attributes: hash()?, types: hash()?, members: hash()?, published: hash()? };
        Ok(Stamp { numbers, columns, rules, parts })
    }
}

#[cfg(test)]
#[path = "definition_tests.rs"]
mod tests;
