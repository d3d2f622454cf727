//! Who compares what a feed says of the database with what it said before, as the service does.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cdc_sources::{
    Action, AuditOrder, AuditPace, AuditPiece, AuditRows, AuditScope, Change, Feed, Portion, Reason, Step,
};

/// A row by its key, as it is here and in the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) key: Vec<String>,
    pub(crate) here: Option<String>,
    pub(crate) there: Option<String>,
}

/// Rows by table and key.
#[derive(Default)]
pub(crate) struct Auditor {
    pub(crate) tables: BTreeMap<String, BTreeMap<Vec<String>, String>>,
    /// Keys that were compared or changed since the audit began.
    seen: BTreeSet<Vec<String>>,
    removed: Option<String>,
    pub(crate) changes: usize,
    /// How many rows each piece has, and whether it is of sums.
    pub(crate) pieces: Vec<(usize, bool)>,
    /// Done after the next piece.
    pub(crate) then: Option<Box<dyn FnOnce()>>,
}

impl Auditor {
    fn change(&mut self, change: &Change) {
        self.changes += usize::from(change.position.is_some());
        let rows = self.tables.entry(change.table.name.clone()).or_default();
        let removed = self.removed.take();
        match change.action {
            Action::Truncate => {
                rows.clear();
                self.seen.clear();
            }
            Action::Remove => {
                self.removed = rows.remove(&change.key);
                self.seen.remove(&change.key);
            }
            Action::Replace | Action::Read => {
                let old = if change.previous_key.is_some() { removed } else { rows.get(&change.key).cloned() };
                let image = whole(change, old.as_deref());
                rows.insert(change.key.clone(), image);
                self.seen.insert(change.key.clone());
            }
        }
    }

    /// Takes what is no audit's.
    pub(crate) fn take(&mut self, portion: &Portion) {
        for step in &portion.steps {
            if let Step::Change(change) = step {
                self.change(change);
            }
        }
    }

    /// Takes portions for as long as some come.
    pub(crate) async fn settle(&mut self, feed: &mut impl Feed) {
        while let Ok(portion) = tokio::time::timeout(Duration::from_millis(700), feed.next()).await {
            let portion = portion.unwrap();
            self.take(&portion);
            feed.confirm(&portion.checkpoint);
        }
    }

    /// Has a table compared: keys and images of rows that differ, or why that was called off. Sums that differ are looked
    /// at once more.
    pub(crate) async fn audit(
        &mut self,
        feed: &mut impl Feed,
        table: &str,
        scope: AuditScope,
        pace: AuditPace,
    ) -> Result<Vec<Difference>, Reason> {
        let (mut found, suspects) = self.pass(feed, table, scope, pace).await?;
        if suspects.is_empty() {
            return Ok(found);
        }
        assert!(found.is_empty(), "sums tell no images");
        let (again, suspects) = self.pass(feed, table, AuditScope::Keys(suspects), pace).await?;
        assert!(suspects.is_empty(), "rows were asked for by their keys");
        found.extend(again);
        Ok(found)
    }

    async fn pass(
        &mut self,
        feed: &mut impl Feed,
        table: &str,
        scope: AuditScope,
        pace: AuditPace,
    ) -> Result<(Vec<Difference>, Vec<Vec<String>>), Reason> {
        let wanted = if let AuditScope::Keys(keys) = &scope { Some(keys.clone()) } else { None };
        self.seen.clear();
        let (mut found, mut suspects, mut by_sums) = (Vec::new(), Vec::new(), false);
        feed.audit(AuditOrder { table: table.to_owned(), scope, pace });
        loop {
            let portion = tokio::time::timeout(Duration::from_secs(60), feed.next()).await.expect("a portion in time");
            let portion = portion.unwrap();
            let mut is_over = None;
            for (place, step) in portion.steps.iter().enumerate() {
                match step {
                    Step::Change(change) => self.change(change),
                    Step::Audited(piece) => {
                        assert_eq!(place, 0, "a piece begins its portion");
                        assert_eq!(piece.table.name, table);
                        by_sums |= matches!(piece.rows, AuditRows::Sums { .. });
                        self.compare(piece, &mut found, &mut suspects);
                        if let Some(then) = self.then.take() {
                            then();
                        }
                        if piece.is_last {
                            let mut unseen = self.unseen(table);
                            unseen.retain(|key| wanted.as_ref().is_none_or(|wanted| wanted.contains(key)));
                            for key in unseen {
                                let here = self.tables[table].get(&key).cloned();
                                if by_sums {
                                    suspects.push(key);
                                } else {
                                    found.push(Difference { key, here, there: None });
                                }
                            }
                            is_over = Some(Ok(()));
                        }
                    }
                    Step::AuditOff { table: name, reason } => {
                        assert_eq!(name, table);
                        is_over = Some(Err(reason.clone()));
                    }
                    _ => {}
                }
            }
            feed.confirm(&portion.checkpoint);
            if let Some(outcome) = is_over {
                return outcome.map(|()| (found, suspects));
            }
        }
    }

    fn compare(&mut self, piece: &AuditPiece, found: &mut Vec<Difference>, suspects: &mut Vec<Vec<String>>) {
        self.pieces.push((piece.rows.len(), matches!(piece.rows, AuditRows::Sums { .. })));
        let rows = self.tables.entry(piece.table.name.clone()).or_default();
        match &piece.rows {
            AuditRows::Sums { text, rows: sums } => {
                for (key, sum) in sums {
                    self.seen.insert(key.clone());
                    if rows.get(key).and_then(|image| text.sum(image)) != Some(*sum) {
                        suspects.push(key.clone());
                    }
                }
            }
            AuditRows::Images(images) => {
                for (key, image) in images {
                    self.seen.insert(key.clone());
                    let here = rows.get(key).cloned();
                    if here.as_ref() != Some(image) {
                        found.push(Difference { key: key.clone(), here, there: Some(image.clone()) });
                    }
                }
            }
        }
    }

    fn unseen(&self, table: &str) -> Vec<Vec<String>> {
        let rows = self.tables.get(table).into_iter().flat_map(BTreeMap::keys);
        rows.filter(|key| !self.seen.contains(*key)).cloned().collect()
    }
}

/// A row with the values that the log did not repeat.
fn whole(change: &Change, old: Option<&str>) -> String {
    let image = change.image.clone().unwrap();
    if change.unchanged.is_empty() {
        return image;
    }
    let members = |image: &str| -> Vec<(String, String)> {
        let members = cdc_sources::json::members(image).unwrap();
        members.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    };
    let (new, old) = (members(&image), members(old.unwrap()));
    let columns = change.table.columns.iter().map(|column| {
        let mut name = String::new();
        cdc_sources::json::push_string(&mut name, &column.name);
        let found = new.iter().chain(&old).find(|(found, _)| *found == name);
        format!("{name}:{}", found.unwrap().1)
    });
    format!("{{{}}}", columns.collect::<Vec<_>>().join(","))
}
