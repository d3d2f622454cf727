//! How each captured table stands: whether it is followed, read, held or stopped, and why.
//!
//! A table stops alone. What it waits for is looked at now and then, and when a statement alters it; when that is mended
//! it is read anew. A table of which the log does not tell everything is in doubt: it is read anew too, after what is
//! being read of it already.

use std::time::Duration;

use tokio::time::Instant;

use super::catalog::{self, Look};
use super::checkpoint::{Name, Reading, TableLine};
use super::follow::Follower;
use super::form::Form;
use super::reading::{self, end_of_log};
use super::tables::Tracked;
use crate::change::{Action, Change, Step};
use crate::feed::{FeedError, Hold, Reason, TableProgress, TableState};

/// What a table waits for whose cause can be seen to be gone.
pub(super) const MENDABLE: [&str; 4] = ["no-key", "table-refused", "privileges", "unreadable"];

/// How many stopped tables are looked at in one go.
const MENDED_AT_ONCE: usize = 50;

impl Tracked {
    /// Whether its changes are captured.
    #[inline]
    pub(super) fn is_followed(&self) -> bool {
        self.held.is_none() && self.line.reading != Reading::Stopped
    }

    /// Whether something was ever said of it, so that there may be rows of it.
    pub(super) fn is_told(&self) -> bool {
        self.line.known || !self.line.form.is_empty() || self.described.is_some()
    }

    pub(super) fn progress(&self, captured: String) -> TableProgress {
        let line = &self.line;
        let (state, reason) = match (&self.held, &line.reading) {
            (Some(Hold::Stopped(reason)), _) => (TableState::Stopped, Some(reason.clone())),
            (Some(_), _) => (TableState::Paused, None),
            (None, Reading::Stopped) => (TableState::Stopped, line.reason.clone()),
            (None, Reading::Following) => (TableState::Following, None),
            (None, _) if line.known => (TableState::Rereading, line.reason.clone()),
            (None, Reading::Waiting) => (TableState::Waiting, None),
            (None, Reading::After(_)) => (TableState::Reading, None),
        };
        let reading = matches!(line.reading, Reading::Waiting | Reading::After(_)) && self.held.is_none();
        let rows_estimated = self.rows_estimated.filter(|_| reading);
        TableProgress { table: captured, state, reason, rows_read: self.rows_read, rows_estimated }
    }
}

impl Follower {
    pub(super) fn captures(&self, namespace: &str, relation: &str) -> bool {
        let own = catalog::OWN_DATABASES.iter().any(|own| own.eq_ignore_ascii_case(namespace));
        !own && self.rules.captures(namespace, relation) && self.order(namespace, relation) != Some(&Hold::Dropped)
    }

    /// What somebody wants of a table.
    fn order(&self, namespace: &str, relation: &str) -> Option<&Hold> {
        if self.options.orders.held.is_empty() {
            return None;
        }
        self.options.orders.held.get(&self.rules.captured_name(namespace, namespace, relation))
    }

    /// A name as the server keeps it, for one of a statement.
    pub(super) fn resolved(&self, (namespace, relation): &Name) -> Name {
        match self.server.name_case {
            0 => (namespace.clone(), relation.clone()),
            1 => (namespace.to_lowercase(), relation.to_lowercase()),
            _ => {
                let lower = |name: &Name| (name.0.to_lowercase(), name.1.to_lowercase());
                let wanted = (namespace.to_lowercase(), relation.to_lowercase());
                let known = self.tables.keys().find(|known| lower(known) == wanted);
                known.cloned().unwrap_or_else(|| (namespace.clone(), relation.clone()))
            }
        }
    }

    /// Takes up what a checkpoint says of tables. `because` is why everything is read anew, if it is.
    pub(super) fn take_up(&mut self, lines: impl IntoIterator<Item = (Name, TableLine)>, because: Option<&Reason>) {
        for (name, line) in lines {
            let captured = self.captures(&name.0, &name.1);
            let mut table = Tracked::new(Reading::Waiting);
            table.line = line;
            table.held = self.order(&name.0, &name.1).cloned();
            let wanted = self.options.orders.reread.get(&self.rules.captured_name(&name.0, &name.0, &name.1));
            if let Some(reason) = wanted.or(because) {
                // Also if it is under way already: which rows came before a restart is not known any more, and whoever
                // asked removes the others when it has been read.
                table.line.reading = Reading::Waiting;
                table.line.again = false;
                table.line.reason = Some(reason.clone());
            }
            // Whatever happens to it now is passed over.
            if table.held.is_some() {
                table.line.reading = Reading::Waiting;
            }
            self.tables.insert(name.clone(), table);
            if captured {
                self.show(&name);
            } else {
                self.vanished(&name);
            }
        }
    }

    /// Knows a table from here on; a new one will be read.
    pub(super) fn track(&mut self, name: Name) -> &mut Tracked {
        if !self.tables.contains_key(&name) {
            let reading = if self.options.snapshot { Reading::Waiting } else { Reading::Following };
            let mut table = Tracked::new(reading);
            table.held = self.order(&name.0, &name.1).cloned();
            self.tables.insert(name.clone(), table);
            self.unread = true;
            self.show(&name);
            self.moved();
        }
        self.tables.entry(name).or_insert_with(|| Tracked::new(Reading::Waiting))
    }

    /// Tells people how a table stands.
    pub(super) fn show(&self, name: &Name) {
        if let Some(table) = self.tables.get(name) {
            let captured = self.rules.captured_name(&name.0, &name.0, &name.1);
            self.outlook().table(name, table.progress(captured));
        }
    }

    /// Forgets a table, whose rows are gone.
    fn forget(&mut self, name: &Name) {
        self.stop_reading(name);
        self.tables.remove(name);
        self.outlook().forget(name);
        self.moved();
    }

    /// A table is not captured any more, and its rows go; `at` is the change of the log that says so, if one does.
    pub(super) fn gone(&mut self, name: &Name, truncate: Option<Change>) {
        let told = self.tables.get(name).is_some_and(Tracked::is_told);
        let table = self.known(name);
        if told {
            if let Some(change) = truncate {
                self.steps.push(Step::Change(change));
            }
            self.steps.push(Step::Gone(table));
            self.step_bytes += 64;
        }
        self.forget(name);
    }

    /// A table is gone without a word in the log.
    pub(super) fn vanished(&mut self, name: &Name) {
        let truncate = self.truncated(name);
        self.gone(name, Some(truncate));
    }

    /// What the log told of a table before it began to be read may be of another one, or gone without a word: nobody
    /// would look for it, since a table's first reading finds no rows that were there before.
    pub(super) fn unsay(&mut self, name: &Name) {
        let is_unsure = |table: &&Tracked| {
            table.is_told() && !table.line.known && table.line.reading == Reading::Waiting && table.held.is_none()
        };
        if self.tables.get(name).filter(is_unsure).is_none() {
            return;
        }
        let truncate = self.truncated(name);
        let table = truncate.table.clone();
        self.steps.extend([Step::Change(truncate), Step::Gone(table)]);
        self.step_bytes += 64;
        if let Some(table) = self.tables.get_mut(name) {
            table.line.form.clear();
            table.described = None;
        }
    }

    fn truncated(&self, name: &Name) -> Change {
        Change::unlogged(self.known(name), Action::Truncate, Vec::new(), None)
    }

    /// A table is not there now. The log may still come to that, so it counts only once the log has been followed to
    /// where the table was missed.
    pub(super) async fn missed(&mut self, name: &Name) -> Result<(), FeedError> {
        let place = self.place.order();
        let Some(table) = self.tables.get_mut(name) else { return Ok(()) };
        match table.missing_since {
            Some(since) if place >= since => self.vanished(name),
            Some(_) => {}
            None => {
                let since = end_of_log(&mut self.catalog, &self.server).await?.order();
                if let Some(table) = self.tables.get_mut(name) {
                    table.missing_since = Some(since);
                }
            }
        }
        Ok(())
    }

    /// Stops a table; the others go on.
    pub(super) fn stop_table(&mut self, name: &Name, reason: Reason) {
        self.stop_reading(name);
        let Some(table) = self.tables.get_mut(name) else { return };
        if table.line.reading == Reading::Stopped && table.line.reason.as_ref() == Some(&reason) {
            return;
        }
        tracing::warn!(table = %format!("{}.{}", name.0, name.1), code = %reason.code, "a table is stopped: {}", reason.message);
        table.line.reading = Reading::Stopped;
        table.line.again = false;
        table.line.reason = Some(reason);
        table.form = None;
        self.show(name);
        self.moved();
    }

    /// Reads a table from its beginning: what was read or known of it does not count any more.
    pub(super) fn read_anew(&mut self, name: &Name, reason: Reason) {
        self.stop_reading(name);
        self.unsay(name);
        let Some(table) = self.tables.get_mut(name) else { return };
        if table.held.is_some() {
            return;
        }
        table.line.again = false;
        table.missing_since = None;
        if self.options.snapshot || table.line.reading != Reading::Following {
            table.line.reading = Reading::Waiting;
            table.line.reason = Some(reason);
            self.unread = true;
        }
        self.show(name);
        self.moved();
    }

    /// Rows of a table may have changed here, and the log does not say how. What is being read of it may be older, so
    /// it is read once more after that; however often this comes, each reading ends.
    pub(super) fn doubt(&mut self, name: &Name, reason: &dyn Fn() -> Reason) {
        let snapshot = self.options.snapshot;
        let Some(table) = self.tables.get_mut(name) else { return };
        if !table.is_followed() {
            return;
        }
        match table.line.reading {
            Reading::Following if snapshot => {
                table.line.reading = Reading::Waiting;
                table.line.reason = Some(reason());
                self.unread = true;
            }
            Reading::After(_) if !table.line.again => {
                table.line.again = true;
                table.line.reason = Some(reason());
            }
            // Where rows are never read, nothing mends what the log does not say.
            Reading::Following => {
                self.stop_table(name, unmended(name, &reason()));
                return;
            }
            _ => return,
        }
        self.show(name);
        self.moved();
    }

    /// How long a table that has just been read waits until it is read again: as long as that took, so that a flood of
    /// doubts does not keep the server busy with nothing else.
    pub(super) fn rest(&mut self, name: &Name, took: Duration) {
        if let Some(table) = self.tables.get_mut(name) {
            table.rests_until = Some(Instant::now() + took);
        }
    }

    /// Looks whether what stopped a table is gone; if so it is read anew.
    pub(super) async fn mend(&mut self, name: &Name) -> Result<(), FeedError> {
        let Some(table) = self.tables.get(name) else { return Ok(()) };
        let code = table.line.reason.as_ref().map(|reason| reason.code.as_str()).unwrap_or_default();
        if table.held.is_some() || table.line.reading != Reading::Stopped || !MENDABLE.contains(&code) {
            return Ok(());
        }
        let looked = self.look_at(name).await?;
        match looked {
            Ok(Some(_)) => {
                let message = "what had stopped it is mended";
                self.read_anew(name, Reason::new("mended", message));
                // Without a reading its changes follow from here on.
                if !self.options.snapshot
                    && let Some(table) = self.tables.get_mut(name)
                {
                    table.line.reading = Reading::Following;
                }
            }
            Ok(None) => self.missed(name).await?,
            Err(reason) => self.stop_table(name, reason),
        }
        Ok(())
    }

    /// A table's form as it is now; none if it is not there; or why it can't be captured.
    pub(super) async fn look_at(&mut self, name: &Name) -> Result<Result<Option<Form>, Reason>, FeedError> {
        Ok(match catalog::look(&mut self.catalog, self.server.mariadb, name).await? {
            Look::Found(table) => {
                let form = Form::of_catalog(&name.0, &name.1, &table, &self.rules, self.server.connector());
                if let Some(tracked) = self.tables.get_mut(name) {
                    tracked.cascades = Some(table.cascades);
                }
                form.map(Some).map_err(|problem| Reason::new(problem.code(), problem.to_string()))
            }
            Look::Gone => Ok(None),
            Look::Denied(told) => Err(reading::denied(&self.server, name, &told)),
            Look::Unreadable(told) => Err(reading::unreadable(name, &told)),
        })
    }

    /// Adds tables that are there and not known yet, and looks at those that are stopped, or are not there any more.
    pub(super) async fn find_tables(&mut self) -> Result<(), FeedError> {
        let listed = catalog::tables(&mut self.catalog).await?;
        let unlisted: Vec<Name> = {
            let listed: std::collections::HashSet<&Name> = listed.iter().collect();
            let followed = self.tables.iter().filter(|(_, table)| table.line.reading == Reading::Following);
            followed
                .filter(|(name, table)| table.held.is_none() && !listed.contains(name))
                .map(|(name, _)| name.clone())
                .collect()
        };
        for name in listed {
            if self.captures(&name.0, &name.1) {
                self.track(name);
            }
        }
        for name in unlisted {
            match self.look_at(&name).await? {
                Ok(None) => self.missed(&name).await?,
                // What can't be seen may be followed all the same.
                Ok(Some(_)) | Err(_) => {
                    if let Some(table) = self.tables.get_mut(&name) {
                        table.missing_since = None;
                    }
                }
            }
        }
        if !self.server.mariadb {
            // What refers to a table is not in the log there.
            self.load_cascades().await?;
        }
        let stopped = self.tables.iter().filter(|(_, table)| table.line.reading == Reading::Stopped);
        let mut stopped: Vec<Name> = stopped.map(|(name, _)| name.clone()).collect();
        // Others come next time, so that many of them do not keep the log waiting.
        if stopped.len() > MENDED_AT_ONCE {
            let turns = usize::try_from(self.looked).unwrap_or_default() / 6;
            let first = turns.wrapping_mul(MENDED_AT_ONCE) % stopped.len();
            stopped.rotate_left(first);
            stopped.truncate(MENDED_AT_ONCE);
        }
        for name in stopped {
            self.mend(&name).await?;
        }
        self.unread = true;
        Ok(())
    }
}

/// Why a table stops that is in doubt where rows are never read by themselves.
fn unmended((namespace, relation): &Name, reason: &Reason) -> Reason {
    let message = format!(
        "what was captured of {namespace}.{relation} may be wrong, and tables are not read by themselves here: {}; then \
         have the table read anew",
        reason.message
    );
    Reason::new(reason.code.clone(), message)
}
