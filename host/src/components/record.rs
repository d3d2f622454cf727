//! What the store keeps of a component's name: its versions and which one is current, as JSON.

use serde::{Deserialize, Serialize};

use crate::guest::Guest;

/// One version of a component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Version {
    /// From 1, by name.
    pub number: u32,
    /// The hash of its bytes, in hexadecimal.
    pub sha256: String,
    /// How many bytes it has.
    pub size: u64,
    /// When it was uploaded first, in ms since 1970.
    pub uploaded_ms: u64,
    /// The world that it fits: `filter`, `handler` or `subscriber`.
    pub world: String,
    /// What it imports, by name.
    pub imports: Vec<String>,
    /// What it exports, by name.
    pub exports: Vec<String>,
}

/// A name's versions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    /// Which version the name means; 0 for none yet.
    pub(super) current: u32,
    /// Which version it meant before.
    pub(super) before: Option<u32>,
    /// How many versions there ever were.
    newest: u32,
    /// Those that are kept, oldest first.
    pub(super) versions: Vec<Version>,
}

impl Record {
    pub(super) fn read(bytes: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(bytes)
    }

    pub(super) fn write(&self) -> Vec<u8> {
        // Numbers and strings: there is nothing that cannot be written.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The number of the next version.
    pub(super) fn next(&mut self) -> u32 {
        self.newest += 1;
        self.newest
    }

    /// The version to go back to: the one that was current before, else the one uploaded before the current.
    pub(super) fn before(&self) -> Option<u32> {
        let is_there = |number: &u32| self.versions.iter().any(|version| version.number == *number);
        let uploaded =
            || self.versions.iter().rev().map(|version| version.number).find(|number| *number < self.current);
        self.before.filter(|before| *before != self.current).filter(is_there).or_else(uploaded)
    }

    /// Forgets the oldest versions beyond so many; never the current one or the one before it.
    pub(super) fn forget(&mut self, max: usize) -> Vec<Version> {
        let mut forgotten = Vec::new();
        while self.versions.len() > max.max(2) {
            let (current, before) = (self.current, self.before);
            let old = |version: &Version| version.number != current && Some(version.number) != before;
            let Some(at) = self.versions.iter().position(old) else { break };
            forgotten.push(self.versions.remove(at));
        }
        forgotten
    }
}

/// A name, with what of it is loaded.
pub(super) struct Entry {
    pub(super) record: Record,
    loaded: Vec<(u32, Guest)>,
}

/// Compiled versions of one name that are kept in memory.
const LOADED: usize = 4;

impl Entry {
    pub(super) fn new(record: Record) -> Self {
        Self { record, loaded: Vec::new() }
    }

    pub(super) fn current(&self) -> u32 {
        self.record.current
    }

    pub(super) fn versions(&self) -> &[Version] {
        &self.record.versions
    }

    pub(super) fn version(&self, number: u32) -> Option<&Version> {
        self.record.versions.iter().find(|version| version.number == number)
    }

    /// The versions that there are, for a person.
    pub(super) fn there(&self) -> String {
        let numbers: Vec<String> = self.record.versions.iter().map(|version| version.number.to_string()).collect();
        numbers.join(", ")
    }

    pub(super) fn loaded(&self, number: u32) -> Option<Guest> {
        self.loaded.iter().find(|(loaded, _)| *loaded == number).map(|(_, guest)| guest.clone())
    }

    pub(super) fn keep_loaded(&mut self, number: u32, guest: Guest) {
        self.loaded.retain(|(loaded, _)| *loaded != number);
        self.loaded.push((number, guest));
        if self.loaded.len() > LOADED {
            self.loaded.remove(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(versions: u32) -> Record {
        let mut record = Record::default();
        for _ in 0..versions {
            let number = record.next();
            record.before = Some(record.current).filter(|current| *current > 0);
            record.current = number;
            record.versions.push(Version {
                number,
                sha256: format!("{number:064}"),
                size: 1,
                uploaded_ms: 5,
                world: "filter".into(),
                imports: vec!["wasi:config/store@0.2.0-rc.1".into()],
                exports: Vec::new(),
            });
        }
        record
    }

    fn numbers(versions: &[Version]) -> Vec<u32> {
        versions.iter().map(|version| version.number).collect()
    }

    #[test]
    fn the_oldest_versions_are_forgotten_but_never_one_that_may_be_needed() {
        let mut record = record(5);
        (record.current, record.before) = (2, Some(1));
        assert_eq!(numbers(&record.forget(3)), [3, 4]);
        assert_eq!(numbers(&record.versions), [1, 2, 5]);
        assert!(record.forget(2).len() == 1 && record.forget(1).is_empty());
        assert_eq!(record.next(), 6, "numbers are never used twice");
    }

    #[test]
    fn back_is_where_it_was_before_else_the_version_before() {
        let mut record = record(3);
        assert_eq!(record.before(), Some(2));
        (record.current, record.before) = (1, Some(3));
        assert_eq!(record.before(), Some(3));
        (record.current, record.before) = (1, Some(9));
        assert_eq!(record.before(), None);
        (record.current, record.before) = (3, None);
        assert_eq!(record.before(), Some(2));
    }

    #[test]
    fn what_was_written_is_read() {
        let record = record(2);
        assert_eq!(Record::read(&record.write()).ok(), Some(record));
        let written = String::from_utf8(self::record(1).write()).unwrap_or_default();
        let expected = r#"{"current":1,"before":null,"newest":1,"versions":[{"number":1,"sha256":"0000000000000000000000000000000000000000000000000000000000000001","size":1,"uploadedMs":5,"world":"filter","imports":["wasi:config/store@0.2.0-rc.1"],"exports":[]}]}"#;
        assert_eq!(written, expected);
    }
}
