//! What a statement of the log means for the tables that are captured: the frames of transactions, tables that come, go,
//! change their names or their form, and rows that were changed by a statement that was logged instead of them.
//!
//! The log is the truth of what happened when; the information schema may be ahead of it. So what a statement may have
//! changed is read anew, and not compared with a present that later statements made.

use std::sync::Arc;

use super::alter::{Alter, Beside};
use super::apply::xa_committed;
use super::catalog::{self, Look};
use super::checkpoint::{Name, Reading};
use super::event::Begin;
use super::follow::Follower;
use super::place::{Gtid, LogPlace};
use super::standing::MENDABLE;
use super::statement::{self, Statement};
use super::tables::Tracked;
use super::writes::Writes;
use crate::change::{Action, Change, Step};
use crate::feed::{FeedError, Hold, Reason};

/// How much of a statement is shown.
const SHOWN_CHARS: usize = 200;

impl Follower {
    /// A transaction was taken back, or a part of it may have been, after its rows were logged (tables without
    /// transactions were in it): what became of them is not in the log.
    fn taken_back(&mut self) {
        let touched = self.group.as_mut().map(|group| std::mem::take(&mut group.touched)).unwrap_or_default();
        let reason = || Reason::new("rolled-back", "a transaction that changed it was taken back after it was logged");
        touched.iter().for_each(|name| self.doubt(name, &reason));
    }

    pub(super) async fn statement(
        &mut self,
        database: &str,
        text: &str,
        end: LogPlace,
        at: u32,
    ) -> Result<(), FeedError> {
        let mut more = false;
        match statement::read(database, text) {
            Statement::Begin => {
                // Up to 5.6 nothing comes before it, unless transactions have identifiers.
                if self.group.is_none() {
                    let gtid = Gtid::None;
                    let begin =
                        Begin { gtid, committed_at_ms: None, standalone: None, prepares: None, completes: false };
                    self.begin(begin, at);
                }
                self.transactional(None);
                return Ok(());
            }
            Statement::XaFrame => {
                let xid = text.trim_start().get("XA START".len()..).unwrap_or_default();
                let xid: String = xid.chars().filter(|character| !character.is_whitespace()).collect();
                self.transactional(Some(xid));
                return Ok(());
            }
            Statement::Commit => {
                self.end(end);
                return Ok(());
            }
            Statement::Rollback => {
                self.taken_back();
                self.end(end);
                return Ok(());
            }
            Statement::RollbackTo => {
                self.taken_back();
                return Ok(());
            }
            Statement::XaCommit(xid) => {
                let touched = self.prepared.remove(&xid).unwrap_or_default();
                touched.iter().for_each(|name| self.doubt(name, &xa_committed));
            }
            Statement::XaRollback(xid) => {
                self.prepared.remove(&xid);
            }
            Statement::Truncate(names) => {
                for name in names {
                    let name = self.resolved(&name);
                    self.emptied(&name);
                }
            }
            Statement::Drop(names) => {
                for name in names {
                    let name = self.resolved(&name);
                    self.dropped(&name);
                }
            }
            Statement::DropDatabase(database) => {
                let (database, _) = self.resolved(&(database, String::new()));
                let same = |name: &Name| match self.server.name_case {
                    2 => name.0.to_lowercase() == database.to_lowercase(),
                    _ => name.0 == database,
                };
                let names: Vec<Name> = self.tables.keys().filter(|name| same(name)).cloned().collect();
                names.iter().for_each(|name| self.dropped(name));
            }
            Statement::Alter(alter) => self.altered(alter, text).await?,
            Statement::Rename(pairs) => self.renamed(&pairs).await?,
            Statement::Create { table, new, more: rows } => {
                more = rows;
                let table = self.resolved(&table);
                if !self.tables.contains_key(&table) {
                    // It has a place in the transaction whether one of its name is known or not, so that rows after it
                    // have the same places whenever they are followed.
                    if let Some(group) = self.group.as_mut().filter(|_| new) {
                        group.rows += 1;
                    }
                    if self.captures(&table.0, &table.1) {
                        self.track(table);
                    }
                } else if new {
                    // One of that name that is known is no more, with or without a word.
                    self.emptied(&table);
                    self.looks_otherwise(&table);
                } else {
                    self.altered(Alter { table, ..Alter::default() }, text).await?;
                }
            }
            Statement::Rows(writes) => self.written_by(writes, database, text).await?,
            Statement::Other => {}
        }
        match &mut self.group {
            // One statement, without a commit after it.
            Some(group) if group.transactional != Some(true) && !more => self.end(end),
            Some(group) => group.transactional = Some(true),
            None => {}
        }
        Ok(())
    }

    fn transactional(&mut self, xid: Option<String>) {
        if let Some(group) = &mut self.group {
            group.transactional = Some(true);
            if xid.is_some() && group.prepares.is_none() && group.rows == 0 {
                group.prepares = xid;
            }
        }
    }

    /// A statement changed rows and the log does not hold them.
    pub(super) async fn statement_of_rows(&mut self, database: &str, text: &str) -> Result<(), FeedError> {
        let writes = match statement::read(database, text) {
            Statement::Rows(writes) => writes,
            _ => Writes::Unknown,
        };
        self.written_by(writes, database, text).await
    }

    /// Stops the tables that a statement changed, or may have; the log does not tell how.
    async fn written_by(&mut self, writes: Writes, database: &str, text: &str) -> Result<(), FeedError> {
        let mut written: Vec<Name> = Vec::new();
        // What triggers and functions do is found by their words, and those of a statement that is not understood.
        let mut texts = Vec::new();
        match &writes {
            Writes::Tables(names) => {
                written.extend(names.iter().map(|name| self.resolved(name)));
                texts = catalog::called(&mut self.catalog, &written, text).await?;
            }
            Writes::Unknown => texts.push((database.to_owned(), Some(text.to_owned()))),
        }
        let words = |text: &str| {
            let separate = |c: char| !(c.is_alphanumeric() || c == '_' || c == '$');
            text.split(separate).map(str::to_lowercase).collect::<std::collections::HashSet<String>>()
        };
        for (namespace, body) in texts {
            let words = body.as_deref().map(words);
            // A body that the user may not see may name any table of its database.
            let named = |name: &&Name| match &words {
                Some(words) => words.contains(&name.1.to_lowercase()),
                None => name.0 == namespace,
            };
            let named: Vec<Name> = self.tables.keys().filter(named).cloned().collect();
            written.extend(named);
        }
        written.sort();
        written.dedup();
        self.load_cascades().await?;
        self.doubt_children(&written);
        let shown: String = text.chars().take(SHOWN_CHARS).collect();
        for name in written {
            if !self.tables.get(&name).is_some_and(Tracked::is_followed) {
                continue;
            }
            if self.is_versioned_by_transactions(&name).await? {
                let message =
                    "its versions are told by transactions, and the server logs statements instead of its rows";
                self.doubt(&name, &|| Reason::new("versioning", message));
                continue;
            }
            let message = format!(
                "the log holds a statement instead of the rows of {}.{} that it changed, at {} in {database}: {shown}; run \
                 SET GLOBAL binlog_format = 'ROW' (and SET SESSION binlog_format = 'ROW' in what ran it, or let it \
                 reconnect), then have the table read anew",
                name.0, name.1, self.place
            );
            self.stop_table(&name, Reason::new("row-format", message));
        }
        Ok(())
    }

    async fn is_versioned_by_transactions(&mut self, name: &Name) -> Result<bool, FeedError> {
        if !self.server.mariadb {
            return Ok(false);
        }
        let look = catalog::look(&mut self.catalog, true, name).await?;
        Ok(matches!(look, Look::Found(table) if table.is_versioned_by_transactions()))
    }

    /// The change that empties a table at this place of the log; none if it was handed out before.
    fn truncate(&mut self, name: &Name) -> Option<Change> {
        let table = self.known(name);
        self.audits.disturb(name);
        let group = self.group.as_mut()?;
        let place = group.rows;
        group.rows += 1;
        (place >= group.skip).then(|| Change {
            table,
            action: Action::Truncate,
            key: Vec::new(),
            image: None,
            unchanged: Vec::new(),
            previous_key: None,
            before: None,
            position: Some(format!("{}/{place}", group.name)),
            transaction: Some(Arc::clone(&group.name)),
            committed_at_ms: Some(group.committed_at_ms),
        })
    }

    /// Every row of a table is gone.
    fn emptied(&mut self, name: &Name) {
        let Some(table) = self.tables.get(name) else { return };
        let (told, held) = (table.is_told(), table.held.is_some());
        let truncate = self.truncate(name).filter(|_| told && !held);
        if let Some(change) = truncate {
            self.steps.push(Step::Change(change));
            self.step_bytes += 64;
        }
        let reason = || Reason::new("emptied", "it was emptied while it was read");
        let mended = |table: &Tracked| {
            let code = table.line.reason.as_ref().map(|reason| reason.code.as_str()).unwrap_or_default();
            table.line.reading == Reading::Stopped && !MENDABLE.contains(&code)
        };
        if self.tables.get(name).is_some_and(mended) {
            self.read_anew(name, Reason::new("mended", "it was emptied, so that what had stopped it is no more"));
        } else if self.has_read(name) && self.tables.get(name).is_some_and(|t| t.line.reading != Reading::Following) {
            self.read_anew(name, reason());
        }
    }

    /// A table is no more. One that somebody holds keeps its rows until it is taken up again.
    fn dropped(&mut self, name: &Name) {
        let Some(table) = self.tables.get(name) else { return };
        if matches!(table.held, Some(Hold::Paused)) {
            return;
        }
        if self.group.is_none() {
            return self.vanished(name);
        }
        let truncate = self.truncate(name);
        self.gone(name, truncate);
    }

    async fn renamed(&mut self, pairs: &[(Name, Name)]) -> Result<(), FeedError> {
        let pairs: Vec<(Name, Name)> =
            pairs.iter().map(|(old, new)| (self.resolved(old), self.resolved(new))).collect();
        // A name stands for a table afterwards if the last pair that has it gives it away to nobody.
        let mut names: Vec<(&Name, bool)> = Vec::new();
        for (old, new) in &pairs {
            names.retain(|(name, _)| *name != old && *name != new);
            names.extend([(old, false), (new, true)]);
        }
        for (name, _) in names.iter().filter(|(_, stands)| !stands) {
            self.dropped(name);
        }
        for (name, _) in names.iter().filter(|(_, stands)| *stands) {
            if self.captures(&name.0, &name.1) {
                let from = pairs.iter().find(|(_, new)| new == *name).map(|(old, _)| old);
                let message = from.map(|(a, b)| format!("{a}.{b} took its name")).unwrap_or_default();
                self.track((*name).clone());
                self.read_anew(name, Reason::new("renamed", message));
                self.looks_otherwise(name);
            }
        }
        let names: Vec<(Name, bool)> = names.into_iter().map(|(name, stands)| (name.clone(), stands)).collect();
        let changed: Vec<Name> = names.iter().map(|(name, _)| name.clone()).collect();
        self.parent_changed(&changed);
        // The log has renames of temporary tables too, and those are another's: what is still there is read.
        for (name, _) in names.iter().filter(|(_, stands)| !stands) {
            if self.captures(&name.0, &name.1)
                && let Ok(Some(_)) = self.look_at(name).await?
            {
                self.track(name.clone());
            }
        }
        Ok(())
    }

    /// What is known of a table's form is so no longer.
    fn looks_otherwise(&mut self, name: &Name) {
        if let Some(table) = self.tables.get_mut(name) {
            table.form = None;
            table.untold = None;
            table.cascades = None;
            table.missing_since = None;
        }
    }

    /// A table's form may have changed, or its rows.
    async fn altered(&mut self, alter: Alter, text: &str) -> Result<(), FeedError> {
        let name = self.resolved(&alter.table);
        let shown = || -> String { text.chars().take(SHOWN_CHARS).collect() };
        for other in &alter.others {
            let (Beside::Exchanged(other) | Beside::Made(other)) = other else { continue };
            let other = self.resolved(other);
            if self.captures(&other.0, &other.1) {
                self.track(other.clone());
                self.read_anew(&other, Reason::new("partitions", shown()));
                self.looks_otherwise(&other);
            }
        }
        for other in &alter.others {
            if let Beside::TakenIn(other) = other {
                let other = self.resolved(other);
                self.dropped(&other);
            }
        }
        if alter.rows {
            self.parent_changed(std::slice::from_ref(&name));
        }
        if let Some(new) = alter.renamed {
            return self.renamed(&[(name, new)]).await;
        }
        if !self.captures(&name.0, &name.1) {
            return Ok(());
        }
        self.track(name.clone());
        self.looks_otherwise(&name);
        let Some(table) = self.tables.get(&name) else { return Ok(()) };
        if !table.is_followed() {
            let undecodable = table.line.reason.as_ref().is_some_and(|reason| reason.code == "undecodable");
            if table.held.is_none() && undecodable && alter.rows {
                self.read_anew(&name, Reason::new("columns-changed", shown()));
            }
            return self.mend(&name).await;
        }
        if !self.options.snapshot {
            // Only what comes from here on is captured, and it looks as the log says.
            return Ok(());
        }
        if alter.rows {
            let code = if alter.partitions { "partitions" } else { "columns-changed" };
            if self.has_read(&name) {
                self.read_anew(&name, Reason::new(code, shown()));
            } else {
                self.unsay(&name);
            }
            return Ok(());
        }
        if alter.foreign {
            self.doubt(&name, &|| Reason::new("cascade", shown()));
        }
        // Its key may be another one. It may be gone by now; the log will come to that.
        let known = self.tables.get(&name).map(|table| table.line.form.clone()).unwrap_or_default();
        match self.look_at(&name).await? {
            Ok(Some(form)) if form.id != known && self.has_read(&name) => {
                self.read_anew(&name, Reason::new("columns-changed", shown()));
            }
            Ok(Some(form)) if form.id != known => self.unsay(&name),
            Ok(_) => {}
            Err(reason) => self.stop_table(&name, reason),
        }
        Ok(())
    }
}
