//! How far a feed is, shared between the task that follows and whoever asks.

use std::collections::BTreeMap;

use super::checkpoint::{Name, Resume};
use super::place::{LogPlace, file_number};
use crate::feed::{Progress, TableProgress};

/// What is known of the feed and of the server's log.
#[derive(Debug, Default)]
pub(super) struct Outlook {
    confirmed: Option<(String, LogPlace)>,
    newest: Option<(String, LogPlace)>,
    /// Log files and their sizes, when they were last looked at.
    files: Vec<(String, u64)>,
    tables: BTreeMap<Name, TableProgress>,
}

impl Outlook {
    pub(super) fn confirm(&mut self, resume: &Resume) {
        self.confirmed = Some((described(&resume.seen.to_string(), &resume.place), resume.place.clone()));
    }

    pub(super) fn look(&mut self, seen: &str, place: LogPlace, files: Vec<(String, u64)>) {
        self.newest = Some((described(seen, &place), place));
        self.files = files;
    }

    pub(super) fn table(&mut self, name: &Name, progress: TableProgress) {
        self.tables.insert(name.clone(), progress);
    }

    pub(super) fn forget(&mut self, name: &Name) {
        self.tables.remove(name);
    }

    pub(super) fn progress(&self) -> Progress {
        Progress {
            confirmed: self.confirmed.as_ref().map(|(text, _)| text.clone()),
            newest: self.newest.as_ref().map(|(text, _)| text.clone()),
            lag_bytes: self.lag(),
            // The server keeps its log by time and size, whoever reads it.
            retained_bytes: None,
            tables: self.tables.values().cloned().collect(),
        }
    }

    fn lag(&self) -> Option<u64> {
        let ((_, from), (_, to)) = (self.confirmed.as_ref()?, self.newest.as_ref()?);
        if from.order() >= to.order() {
            return Some(0);
        }
        if from.file == to.file {
            return Some(to.offset - from.offset);
        }
        let size_of = |file: &str| self.files.iter().find(|(name, _)| name == file).map(|(_, size)| *size);
        let between = self
            .files
            .iter()
            .filter(|(name, _)| (file_number(&from.file) + 1..file_number(&to.file)).contains(&file_number(name)));
        let whole: u64 = between.map(|(_, size)| size).sum();
        Some(size_of(&from.file)?.saturating_sub(from.offset) + whole + to.offset)
    }
}

fn described(seen: &str, place: &LogPlace) -> String {
    if seen.is_empty() { place.to_string() } else { format!("{seen} {place}") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::mysql::checkpoint::TableLine;
    use crate::mysql::place::Seen;

    #[test]
    fn lag_is_counted_over_files() {
        let mut outlook = Outlook::default();
        let place = |file: &str, offset| LogPlace { file: file.into(), offset };
        let resume = Resume {
            mariadb: true,
            server: "1".into(),
            rules: String::new(),
            place: place("b.000001", 100),
            file_begun: 0,
            seen: Seen::parse_mariadb("0-1-2").unwrap(),
            skip: 0,
            prepared: BTreeMap::new(),
            tables: BTreeMap::<Name, TableLine>::new(),
        };
        outlook.confirm(&resume);
        assert_eq!(outlook.progress().lag_bytes, None);
        let files = vec![("b.000001".to_owned(), 150), ("b.000002".to_owned(), 1000), ("b.000003".to_owned(), 70)];
        outlook.look("0-1-9", place("b.000003", 70), files);
        assert_eq!(outlook.progress().lag_bytes, Some(50 + 1000 + 70));
        assert_eq!(outlook.progress().confirmed.as_deref(), Some("0-1-2 b.000001:100"));
        outlook.look("0-1-2", place("b.000001", 120), Vec::new());
        assert_eq!(outlook.progress().lag_bytes, Some(20));
    }
}
