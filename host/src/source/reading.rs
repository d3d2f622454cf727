//! Which keys of a table have been seen since its rows began to be read, so that the others can be removed at the end.
//!
//! A key is remembered by 128 bits of its hash: a table of ten million rows costs a quarter of a gigabyte while it is
//! read anew, and nothing when it is read for the first time. Two keys of one hash would keep a row that is gone; among
//! a billion keys the odds of that are one in 10^20.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use cdc_sources::{Action, Change};
use xxhash_rust::xxh3::xxh3_128;

use super::matching::Contents;

/// Hashes are spread already.
#[derive(Default)]
pub(super) struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, hash: u128) {
        self.0 = hash as u64;
    }
}

/// Tables that are being read although there are rows of them here.
#[derive(Default)]
pub(super) struct Readings {
    tables: HashMap<String, Keys>,
}

/// The keys of one table.
#[derive(Default)]
pub(super) struct Keys {
    seen: HashSet<u128, BuildHasherDefault<Spread>>,
    /// What its rows of before hold, if they have no key.
    before: Option<Contents>,
}

impl Readings {
    /// From here on the table's keys are remembered, and none is known yet.
    pub(super) fn begin(&mut self, table: &str) {
        self.tables.insert(table.to_owned(), Keys::default());
    }

    /// The same of a table without a key, whose rows of before hold this.
    pub(super) fn begin_without_key(&mut self, table: &str, before: Contents) {
        self.tables.insert(table.to_owned(), Keys { before: Some(before), ..Keys::default() });
    }

    /// Takes in a change of any table. Answers whether it is a row without a key that is here already, under an id that
    /// stays.
    pub(super) fn see(&mut self, change: &Change) -> bool {
        // Mostly no table is being read anew.
        if self.tables.is_empty() {
            return false;
        }
        let Some(keys) = self.tables.get_mut(&change.table.name) else { return false };
        if change.action == Action::Read && keys.before.as_mut().is_some_and(|before| before.has(change)) {
            return true;
        }
        keys.see(change);
        false
    }

    /// The table has been read: its keys, if they were remembered.
    pub(super) fn end(&mut self, table: &str) -> Option<Keys> {
        self.tables.remove(table)
    }

    /// Forgets tables of which nobody will say that they have been read.
    pub(super) fn retain(&mut self, is_read: impl Fn(&str) -> bool) {
        self.tables.retain(|table, _| is_read(table));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }
}

impl Keys {
    /// Takes in a change of their table.
    pub(super) fn see(&mut self, change: &Change) {
        match change.action {
            Action::Replace | Action::Read => self.add(&change.key),
            Action::Remove => drop(self.seen.remove(&hash(&change.key))),
            Action::Truncate => {
                self.seen.clear();
                self.before.iter_mut().for_each(Contents::clear);
            }
        }
    }

    /// A row with this key is there.
    pub(super) fn add(&mut self, key: &[String]) {
        self.seen.insert(hash(key));
    }

    /// Whether a row with this key was seen.
    pub(super) fn has(&self, key: &[String]) -> bool {
        self.seen.contains(&hash(key))
    }

    /// Whether a row with this key, as the store has it, was seen.
    pub(super) fn contains(&self, canonical: &[u8]) -> bool {
        self.seen.contains(&xxh3_128(canonical))
    }

    /// At the end, whether a row, as the store has it, is not there any more.
    pub(super) fn lack(&mut self, canonical: &[u8], image: &[u8]) -> bool {
        if self.contains(canonical) {
            return false;
        }
        self.before.as_mut().is_none_or(|before| before.lacks(canonical, image))
    }
}

fn hash(key: &[String]) -> u128 {
    xxh3_128(canonical(key).as_bytes())
}

/// A key as the store has it: one part as it is; several with `%` and `/` percent-encoded, joined by `/`.
pub(super) fn canonical(parts: &[String]) -> std::borrow::Cow<'_, str> {
    match parts {
        [part] => part.as_str().into(),
        parts => {
            let escaped = parts.iter().map(|part| part.replace('%', "%25").replace('/', "%2F"));
            escaped.collect::<Vec<_>>().join("/").into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::scripted;

    #[test]
    fn keys_that_were_read_or_written_and_not_removed_are_remembered() {
        let table = scripted::table("t");
        let change = |action, key: &str| scripted::change(&table, action, key);
        let mut readings = Readings::default();
        readings.see(&change(Action::Read, "0"));
        readings.begin("t");
        for (action, key) in [
            (Action::Read, "1"),
            (Action::Replace, "2"),
            (Action::Read, "3"),
            (Action::Remove, "3"),
            (Action::Remove, "4"),
            (Action::Replace, "4"),
        ] {
            readings.see(&change(action, key));
        }
        readings.see(&scripted::change(&scripted::table("other"), Action::Read, "9"));
        let mut keys = readings.end("t").unwrap_or_default();
        let seen: Vec<_> = (0..10).filter(|key: &u32| !keys.lack(key.to_string().as_bytes(), b"")).collect();
        assert_eq!(seen, [1, 2, 4]);
        assert!(readings.is_empty() && readings.end("t").is_none());
    }

    #[test]
    fn a_truncate_forgets_every_key() {
        let table = scripted::table("t");
        let mut readings = Readings::default();
        readings.begin("t");
        readings.see(&scripted::change(&table, Action::Read, "1"));
        readings.see(&scripted::change(&table, Action::Truncate, ""));
        assert!(readings.end("t").is_some_and(|mut keys| keys.lack(b"1", b"")));
    }

    #[test]
    fn keys_are_written_as_the_store_has_them() {
        let canonical =
            |parts: &[&str]| canonical(&parts.iter().map(|&part| part.to_owned()).collect::<Vec<_>>()).into_owned();
        assert_eq!(canonical(&["a/b%"]), "a/b%");
        assert_eq!(canonical(&["a/b", "c%"]), "a%2Fb/c%25");
    }
}
