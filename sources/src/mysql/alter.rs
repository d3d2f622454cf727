//! What an ALTER TABLE means for rows, as far as its words tell.
//!
//! Not a parser: each part (between commas outside of parentheses) is judged by its first words, and what is not known
//! to leave rows alone counts as changing them.

use super::checkpoint::Name;
use super::words::Words;

/// An ALTER TABLE, or a statement that is one in other words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Alter {
    pub(super) table: Name,
    /// Rows may look otherwise, or be others, without a trace in the log. If not, only the key may be another.
    pub(super) rows: bool,
    /// Partitions came or went with their rows.
    pub(super) partitions: bool,
    /// A foreign key is gone, of whose doings before nothing may be known any more.
    pub(super) foreign: bool,
    pub(super) renamed: Option<Name>,
    /// What happens to other tables.
    pub(super) others: Vec<Beside>,
}

/// What an ALTER TABLE does to another table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Beside {
    /// Its rows are now those of a partition.
    Exchanged(Name),
    /// It was made of a partition.
    Made(Name),
    /// It became a partition, and is no more.
    TakenIn(Name),
}

/// First words of parts that leave rows and their values as they are.
const HARMLESS: &[&str] = &[
    "ALGORITHM",
    "ALTER",
    "ANALYZE",
    "AUTO_INCREMENT",
    "AVG_ROW_LENGTH",
    "CHECK",
    "CHECKSUM",
    "COALESCE",
    "COMMENT",
    "DELAY_KEY_WRITE",
    "DISABLE",
    "ENABLE",
    "FORCE",
    "KEY_BLOCK_SIZE",
    "LOCK",
    "MAX_ROWS",
    "MIN_ROWS",
    "OPTIMIZE",
    "ORDER",
    "PACK_KEYS",
    "PAGE_CHECKSUM",
    "PAGE_COMPRESSED",
    "PAGE_COMPRESSION_LEVEL",
    "PARTITION",
    "REBUILD",
    "REMOVE",
    "REORGANIZE",
    "REPAIR",
    "ROW_FORMAT",
    "STATS_AUTO_RECALC",
    "STATS_PERSISTENT",
    "STATS_SAMPLE_PAGES",
    "TRANSACTIONAL",
];

/// Engines that keep the rows that are moved into them.
const KEEPING: &[&str] = &["INNODB", "MYISAM", "ARIA", "MEMORY", "ROCKSDB"];

/// Reads what comes after `ALTER`; None if it alters no table.
pub(super) fn read(words: &mut Words<'_>) -> Option<Alter> {
    words.skip(&["ONLINE", "OFFLINE", "IGNORE"]);
    if words.keyword() != "TABLE" {
        return None;
    }
    words.skip(&["IF", "EXISTS"]);
    let mut alter = Alter { table: words.name()?, ..Alter::default() };
    words.wait();
    let mut depth = 0;
    let mut first = true;
    while !words.rest.is_empty() {
        words.blank();
        if depth == 0 && std::mem::take(&mut first) {
            part(words, &mut alter);
            continue;
        }
        match words.pass() {
            Some('(') => depth += 1,
            Some(')') => depth -= 1,
            Some(',') if depth == 0 => first = true,
            _ => {}
        }
    }
    Some(alter)
}

/// Judges a part by its first words, and takes them.
fn part(words: &mut Words<'_>, alter: &mut Alter) {
    let word = words.keyword();
    match word.as_str() {
        "RENAME" => rename(words, alter),
        "ADD" => match words.peek().as_str() {
            "INDEX" | "KEY" | "FULLTEXT" | "SPATIAL" | "UNIQUE" | "PRIMARY" | "CONSTRAINT" | "CHECK" | "FOREIGN"
            | "PARTITION" => {}
            _ => alter.rows = true,
        },
        "DROP" => match words.keyword().as_str() {
            "INDEX" | "KEY" | "PRIMARY" | "CHECK" => {}
            "FOREIGN" | "CONSTRAINT" => alter.foreign = true,
            "PARTITION" => (alter.rows, alter.partitions) = (true, true),
            _ => alter.rows = true,
        },
        "TRUNCATE" | "DISCARD" | "IMPORT" => (alter.rows, alter.partitions) = (true, true),
        "EXCHANGE" => {
            (alter.rows, alter.partitions) = (true, true);
            words.skip(&["PARTITION"]);
            words.identifier();
            words.skip(&["WITH", "TABLE"]);
            alter.others.extend(words.name().map(Beside::Exchanged));
        }
        "CONVERT" => {
            alter.rows = true;
            match words.keyword().as_str() {
                "PARTITION" => {
                    alter.partitions = true;
                    words.identifier();
                    words.skip(&["TO", "TABLE"]);
                    alter.others.extend(words.name().map(Beside::Made));
                }
                "TABLE" => {
                    alter.partitions = true;
                    alter.others.extend(words.name().map(Beside::TakenIn));
                }
                _ => {}
            }
        }
        "ENGINE" => {
            words.punctuation('=');
            alter.rows |= !KEEPING.contains(&words.keyword().as_str());
        }
        // A bare mark: nothing is altered, or a semicolon ends it.
        "" if words.rest.is_empty() || words.rest.starts_with(';') => words.rest = "",
        word => alter.rows |= !HARMLESS.contains(&word),
    }
}

fn rename(words: &mut Words<'_>, alter: &mut Alter) {
    let plain = words.rest;
    match words.keyword().as_str() {
        "COLUMN" => alter.rows = true,
        "INDEX" | "KEY" => {}
        "TO" | "AS" => alter.renamed = words.name(),
        _ => {
            words.rest = plain;
            words.punctuation('=');
            alter.renamed = words.name();
        }
    }
}
