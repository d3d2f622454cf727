//! What becomes of single tables: found, renamed, redefined, stopped, gone. The decoder's, because all of it happens at
//! a place of the log.
//!
//! The log names tables and columns only where a row follows, and the catalog only knows the present. So a table is
//! compared with the catalog at two kinds of places: before the first row that the log tells after announcing the table
//! anew ([`Decoder::check`]), and where the log has reached everything that a look at the catalog saw
//! ([`Decoder::apply_look`]). A look that began before the log told of another definition says nothing about it, and
//! is thrown away for a newer one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::catalog::{Candidate, Defined, Found, Overview, Present, no_key};
use super::checkpoint::{PAUSED, ReadState, TableMark};
use super::decode::Decoder;
use super::definition::{Before, Definition, PARTITIONS_CHANGED, Verdict};
use super::lsn::Lsn;
use super::queue::Look;
use super::shape::Shape;
use super::wire::{WireError, identifier};
use crate::change::{Action, Change, Step, Table};
use crate::feed::{FeedError, Hold, Reason, TableOrders, TableProgress, TableState};
use crate::rewrite::Rewrite;
use crate::rules::Rules;

/// The code of a table that the publication does not have any more.
const UNPUBLISHED: &str = "unpublished";

impl Decoder {
    /// The name under which a table of these names is captured.
    pub(super) fn captured_name(&self, namespace: &str, relation: &str) -> String {
        self.options.rules.captured_name(self.catalog.database(), namespace, relation)
    }

    fn name_of(&self, mark: &TableMark) -> String {
        self.captured_name(&mark.namespace, &mark.relation)
    }

    /// What is said of each table.
    pub(super) fn progress(&self) -> Vec<TableProgress> {
        let of_mark = |mark: &TableMark| {
            let (state, reason) = mark.shown();
            TableProgress {
                table: self.name_of(mark),
                state,
                reason,
                rows_read: self.rows_read.get(&mark.oid).copied().unwrap_or(0),
                rows_estimated: self
                    .rows_estimated
                    .get(&mark.oid)
                    .copied()
                    .filter(|_| mark.state == ReadState::Reading),
            }
        };
        // One whose name is not known was named by another that has it now, and is read because of it.
        let mut tables: Vec<_> = self.tables.values().filter(|mark| !mark.unnamed).map(of_mark).collect();
        tables.extend(self.left_out.iter().map(|(table, reason)| TableProgress {
            table: table.clone(),
            state: TableState::Stopped,
            reason: Some(reason.clone()),
            rows_read: 0,
            rows_estimated: None,
        }));
        tables
    }

    /// Finds out how rows look that are stored, by what the service knows of them.
    pub(super) fn know_stored(&mut self) {
        let known = self.options.known.clone();
        for table in known {
            let name = &table.name;
            let mark = self.tables.values().find(|mark| !mark.unnamed && self.name_of(mark) == *name);
            match mark.map(|mark| mark.oid) {
                Some(oid) => drop(self.stored.insert(oid, table)),
                None => self.orphans.push(table),
            }
        }
    }

    /// The log told that a table can't be captured as it is now.
    pub(super) fn refuse(&mut self, oid: u32, namespace: &str, relation: &str, reason: Reason) {
        if reason.code == "no-key" && self.options.skip_tables_without_key {
            return;
        }
        let new = || TableMark::new(oid, namespace, relation, ReadState::Waiting);
        self.tables.entry(oid).or_insert_with(new);
        self.stop_table(oid, reason);
    }

    /// A table's changes are skipped from here on.
    pub(super) fn stop_table(&mut self, oid: u32, reason: Reason) {
        let Some(mark) = self.tables.get_mut(&oid) else { return };
        if mark.held || mark.state == ReadState::Stopped && mark.shown().1.as_ref() == Some(&reason) {
            return;
        }
        tracing::warn!(
            table = mark.relation,
            code = reason.code,
            "a table is not followed any more: {}",
            reason.message
        );
        mark.stop(reason);
        self.called_off.push(oid);
        self.tables_changed();
    }

    /// A table's rows may be wrong from here on.
    pub(super) fn read_anew(&mut self, oid: u32, reason: Reason) {
        let reads = self.options.snapshot;
        let Some(mark) = self.tables.get_mut(&oid) else { return };
        tracing::info!(table = mark.relation, code = reason.code, "a table is read anew: {}", reason.message);
        if reads {
            mark.read_anew(Some(reason));
        } else {
            // Rows of before were never read, so there is nothing to compare with.
            (mark.state, mark.definition, mark.reason) = (ReadState::Following, None, Some(reason.into()));
        }
        self.called_off.push(oid);
        self.tables_changed();
    }

    /// Somebody may have written to a table before it was published as it is now, and not be done yet.
    fn wait_for_writers(&mut self, oid: u32) {
        if let Some(mark) = self.tables.get_mut(&oid) {
            mark.late = true;
        }
    }

    /// Compares a table with what the log has just announced of it, before the first row of that kind.
    pub(super) fn check(&mut self, oid: u32, shape: &Arc<Shape>, columns: u64) -> Result<(), FeedError> {
        let Table { namespace, relation, key, .. } = &*shape.table;
        let Some(mark) = self.tables.get(&oid) else {
            // New, and maybe gone again by now, which the catalog will tell.
            self.redefined_at = self.place();
            self.add(oid, namespace, relation, key);
            self.shared.ask_for_look();
            return Ok(());
        };
        if mark.unnamed || (&mark.namespace, &mark.relation) != (namespace, relation) {
            self.redefined_at = self.place();
            self.rename(&[(oid, namespace.clone(), relation.clone())]);
            return Ok(());
        }
        let is_same = mark.definition.as_ref().is_some_and(|stamp| stamp.columns() == columns) && mark.key == *key;
        if mark.state == ReadState::Reading && mark.definition.is_none() {
            let place = self.place();
            self.undefined.entry(oid).or_default().told = Some((columns, key.clone(), place));
        }
        // What is read anew is compared then; what began to be read is described by its first chunk.
        let is_known = mark.definition.is_some() || mark.state == ReadState::Following;
        if is_same || !is_known || matches!(mark.state, ReadState::Waiting | ReadState::Stopped) {
            return Ok(());
        }
        self.redefined_at = self.place();
        let found = self.catalog.find(oid).map_err(|error: WireError| error.into_feed("look up columns"))?;
        let definition = match found.map(|found| (found.published, found.form)) {
            Some((published, Ok(defined)))
                if defined.definition.columns_digest() == columns
                    && (&published.namespace, &published.relation) == (namespace, relation) =>
            {
                Some(defined)
            }
            _ => None,
        };
        match definition {
            Some(defined) => self.redefine(oid, &defined.shape, &defined.definition, self.place()),
            None => {
                // The catalog is ahead of the log: what happened in between is not known.
                self.read_anew(oid, Reason::new("columns-changed", "its columns are others than before"));
                self.shared.ask_for_look();
            }
        }
        Ok(())
    }

    /// A table has this definition from here on, as was found out at a place of the log: its rows stay, follow by a rule,
    /// or are read anew.
    pub(super) fn redefine(&mut self, oid: u32, shape: &Arc<Shape>, definition: &Arc<Definition>, at: Lsn) {
        let rules = self.options.rules.clone();
        let stamp = definition.stamp(&rules);
        if self.tables.get(&oid).is_some_and(|mark| mark.definition.as_ref() != Some(&stamp)) {
            self.defined_at.insert(oid, at);
        }
        let members = self.members.insert(oid, definition.members.clone());
        let Some(mark) = self.tables.get(&oid) else { return };
        let stored = self.stored.get(&oid).map(|table| &**table);
        let members = members.as_deref().map(Vec::as_slice);
        let verdict = match &mark.definition {
            Some(stamp) => definition.verdict(&rules, Before { stamp, key: &mark.key, stored, members }),
            // Nothing is read, so there is nothing to compare.
            None if !self.options.snapshot => Verdict::Same,
            None => Verdict::Reread(Reason::new(
                "unknown-definition",
                "it was read by an older version, which did not note what its rows depend on",
            )),
        };
        if let Verdict::Reread(reason) = verdict {
            self.read_anew(oid, reason);
            self.wait_for_writers(oid);
            return;
        }
        if let Some(mark) = self.tables.get_mut(&oid) {
            mark.definition = Some(stamp);
            mark.key.clone_from(&shape.table.key);
        }
        if let Verdict::Rewrite { renamed, added, reason } = verdict {
            tracing::info!(table = shape.table.name, "a table's rows follow a change of its columns: {reason}");
            self.cut();
            let rewrite = Rewrite { table: shape.table.clone(), renamed, added, reason };
            self.out.push(Step::Rewrite(Arc::new(rewrite)));
            self.describe(oid, &shape.table);
            if self.readings.contains_key(&oid) {
                self.reshaped.push(oid);
            }
        }
        self.tables_changed();
    }

    /// Tables have other names from here on. The rows of each name are those of the table that has it.
    pub(super) fn rename(&mut self, names: &[(u32, String, String)]) {
        for (oid, namespace, relation) in names {
            let Some(mark) = self.tables.get(oid) else { continue };
            let (old, new) = (self.name_of(mark), self.captured_name(namespace, relation));
            let at = self.place();
            self.defined_at.insert(*oid, at);
            if mark.unnamed || old != new {
                self.empty(*oid);
            }
        }
        for (oid, namespace, relation) in names {
            let new = self.captured_name(namespace, relation);
            self.name_relation(*oid, namespace, relation);
            let Some(mark) = self.tables.get(oid) else { continue };
            if !mark.unnamed && self.name_of(mark) == new {
                // Another name in the database, and the same here.
                if let Some(mark) = self.tables.get_mut(oid) {
                    (mark.namespace, mark.relation) = (namespace.clone(), relation.clone());
                }
                continue;
            }
            let reason = Reason::new("renamed", format!("it was called {}.{} before", mark.namespace, mark.relation));
            self.take_name(*oid, namespace, relation);
            if let Some(mark) = self.tables.get_mut(oid) {
                (mark.namespace, mark.relation, mark.unnamed) = (namespace.clone(), relation.clone(), false);
            }
            if self.tables.get(oid).is_some_and(|mark| mark.state != ReadState::Stopped) {
                self.read_anew(*oid, reason);
            }
        }
        self.tables_changed();
    }

    /// A table gets this name: one that had it before has another one now, which is not known yet.
    fn take_name(&mut self, oid: u32, namespace: &str, relation: &str) {
        let name = self.captured_name(namespace, relation);
        let other = self.tables.values().find(|mark| mark.oid != oid && !mark.unnamed && self.name_of(mark) == name);
        let Some(other) = other.map(|mark| mark.oid) else { return };
        self.empty(other);
        if self.tables.get(&other).is_some_and(|mark| mark.state != ReadState::Stopped) {
            self.read_anew(other, Reason::new("renamed", format!("another table is called {name} now")));
        }
        if let Some(mark) = self.tables.get_mut(&other) {
            mark.unnamed = true;
        }
        self.shared.ask_for_look();
        self.tables_changed();
    }

    /// The rows that a table has under its name are gone from there.
    fn empty(&mut self, oid: u32) {
        self.called_off.push(oid);
        if let Some(table) = self.stored.get(&oid).cloned() {
            self.empty_table(&table);
        }
        self.forget_described(oid);
    }

    fn empty_table(&mut self, table: &Arc<Table>) {
        self.out.push(Step::Describe(table.clone()));
        self.out.push(Step::Change(Change::unlogged(table.clone(), Action::Truncate, Vec::new(), None)));
        self.out.push(Step::Gone(table.clone()));
    }

    /// A table is not captured any more.
    fn gone(&mut self, oid: u32) {
        let Some(mark) = self.tables.get(&oid) else { return };
        tracing::info!(table = self.name_of(mark), "a table is gone: it was dropped, or is not captured any more");
        self.empty(oid);
        self.tables.remove(&oid);
        self.members.remove(&oid);
        self.undefined.remove(&oid);
        self.defined_at.remove(&oid);
    }

    /// A table begins to be read, and its first chunk says what its rows depend on.
    pub(super) fn begin_undefined(&mut self, oid: u32) {
        self.undefined.insert(oid, Heard::default());
    }

    /// Compares everything with what the catalog said. Only where the log has reached the look's place.
    pub(super) fn apply_look(&mut self, look: Look) {
        if look.from <= self.redefined_at {
            self.shared.ask_for_look();
            return;
        }
        let overview = look.overview;
        let found: BTreeMap<u32, Found> =
            overview.tables.into_iter().map(|found| (found.published.oid, found)).collect();
        self.name_relations(&overview.present);
        self.leave_out(&found, &overview.present);
        let is_other = |mark: &TableMark, found: &Found| {
            let Found { published, .. } = found;
            mark.unnamed || (&mark.namespace, &mark.relation) != (&published.namespace, &published.relation)
        };
        let renamed: Vec<_> = (self.tables.values())
            .filter_map(|mark| Some((mark.oid, found.get(&mark.oid).filter(|found| is_other(mark, found))?)))
            .map(|(oid, found)| (oid, found.published.namespace.clone(), found.published.relation.clone()))
            .collect();
        if !renamed.is_empty() {
            self.rename(&renamed);
        }
        let mut names: HashMap<String, u32> =
            self.tables.values().filter(|mark| !mark.unnamed).map(|mark| (self.name_of(mark), mark.oid)).collect();
        for (oid, found) in &found {
            self.apply_found(*oid, found, &mut names, look.to);
        }
        self.left_out = self.reasons_of(&overview.unpublished);
        self.drop_orphans(&overview.present);
        self.tables_changed();
    }

    /// Tables that are not published, or that the rules exclude.
    fn leave_out(&mut self, found: &BTreeMap<u32, Found>, present: &HashMap<u32, Present>) {
        let missing: BTreeSet<u32> = self.tables.keys().copied().filter(|oid| !found.contains_key(oid)).collect();
        let before = std::mem::replace(&mut self.missing, missing.clone());
        for oid in missing {
            match present.get(&oid) {
                Some(now) if !self.catalog.captures(&now.namespace, &now.relation) => self.gone(oid),
                // Its rows are the other's, which is captured.
                Some(Present { root: Some(root), .. }) if found.contains_key(root) => self.gone(oid),
                Some(now) if before.contains(&oid) => {
                    self.unpublished(oid, now, now.root.and_then(|root| present.get(&root)));
                }
                // What is published is told as of now, and what is there as of the look's snapshot: a table that was
                // dropped in between seems to be there and not published.
                Some(_) => self.shared.ask_for_look(),
                None => self.gone(oid),
            }
        }
    }

    /// A table is there, and its changes are not in the log, at least not under its name: `root` is what it is a
    /// partition of.
    fn unpublished(&mut self, oid: u32, now: &Present, root: Option<&Present>) {
        let Some(mark) = self.tables.get(&oid) else { return };
        let is_other = mark.unnamed || (&mark.namespace, &mark.relation) != (&now.namespace, &now.relation);
        if is_other {
            self.rename(&[(oid, now.namespace.clone(), now.relation.clone())]);
        }
        let publication = identifier(&self.options.publication);
        let name = format!("{}.{}", identifier(&now.namespace), identifier(&now.relation));
        let message = match root {
            Some(Present { namespace, relation, .. }) => format!(
                "it is a partition of {namespace}.{relation} now, which is not captured, and its changes are told under that \
                 name if at all: include {namespace}.{relation}, whose rows these are then; or exclude this table, and its \
                 rows go here; detached, it is read anew"
            ),
            None if !now.is_logged => format!(
                "it is UNLOGGED now, so its changes are not in the log: ALTER TABLE {name} SET LOGGED goes on with it, and \
                 reads it anew; or exclude it"
            ),
            None => format!(
                "the publication does not have it any more, so its changes are not in the log: ALTER PUBLICATION \
                 {publication} ADD TABLE {name} goes on with it, and reads it anew; or exclude it"
            ),
        };
        self.stop_table(oid, Reason::new(UNPUBLISHED, message));
    }

    fn apply_found(&mut self, oid: u32, found: &Found, names: &mut HashMap<String, u32>, at: Lsn) {
        let Found { published, form } = found;
        let name = self.captured_name(&published.namespace, &published.relation);
        let defined = match form {
            Ok(defined) => defined,
            Err(reason) => return self.refuse(oid, &published.namespace, &published.relation, reason.clone()),
        };
        if let Some(other) = names.get(&name).copied().filter(|other| *other != oid) {
            let other = self.tables.get(&other).map(|mark| format!("{}.{}", mark.namespace, mark.relation));
            let message = format!(
                "the table {}.{} would be captured as {name}, and so is {}: choose another template for names, or exclude \
                 one of them",
                published.namespace,
                published.relation,
                other.unwrap_or_default()
            );
            return self.refuse(oid, &published.namespace, &published.relation, Reason::new("table-refused", message));
        }
        names.insert(name, oid);
        let Some(mark) = self.tables.get(&oid) else {
            self.add(oid, &published.namespace, &published.relation, &defined.shape.table.key);
            self.defined(oid, defined);
            return;
        };
        match mark.state {
            // By itself only if nobody asked for the stop, and nothing is wrong any more.
            ReadState::Stopped if mark.held || !is_mended(mark, published.readable) => {}
            ReadState::Stopped => {
                let reason = "what it was stopped for was mended, and its changes were skipped until then";
                self.read_anew(oid, Reason::new("resumed", reason));
                self.wait_for_writers(oid);
            }
            // What begins to be read is defined by its first chunk. Nobody would look for rows that the log told before.
            ReadState::Waiting => {
                if published.partitioned && self.has_lost_partitions(oid, &defined.definition) {
                    self.empty(oid);
                }
            }
            ReadState::Reading if mark.definition.is_none() => {
                self.undefined.entry(oid).or_default().was_looked_at = true;
            }
            // A change of the key is noticed by its definition.
            ReadState::Reading | ReadState::Following => {
                if self.has_lost_partitions(oid, &defined.definition) && published.partitioned {
                    self.read_anew(oid, Reason::new("partitions-changed", PARTITIONS_CHANGED));
                } else {
                    self.redefine(oid, &defined.shape, &defined.definition, at);
                }
            }
        }
    }

    /// Whether rows came from partitions that are not there any more, or were emptied, before anybody saw them.
    fn has_lost_partitions(&mut self, oid: u32, definition: &Definition) -> bool {
        let Some(told) = self.told_partitions.remove(&oid) else { return false };
        let before = self.members.get(&oid);
        let was_there = |partition: u32| before.is_none_or(|old| old.iter().any(|member| member.oid == partition));
        told.into_iter().any(|partition| match definition.members.iter().find(|member| member.oid == partition) {
            None => true,
            Some(member) => !member.filled && !was_there(partition),
        })
    }

    /// A table is new here.
    fn add(&mut self, oid: u32, namespace: &str, relation: &str, key: &[String]) {
        self.take_name(oid, namespace, relation);
        let state = if self.options.snapshot { ReadState::Waiting } else { ReadState::Following };
        let mut mark = TableMark::new(oid, namespace, relation, state);
        mark.key = key.to_vec();
        // Rows under its name are of a table that was there before it.
        let name = self.name_of(&mark);
        if let Some(at) = self.orphans.iter().position(|table| table.name == name) {
            let table = self.orphans.swap_remove(at);
            mark.reason = Some(Reason::new("found-again", "there are rows of a table of its name").into());
            self.stored.insert(oid, table);
        }
        self.tables.insert(oid, mark);
        self.tables_changed();
    }

    /// What a table that is not read depends on from here on.
    fn defined(&mut self, oid: u32, defined: &Defined) {
        let stamp = defined.definition.stamp(&self.options.rules);
        if !self.options.snapshot
            && let Some(mark) = self.tables.get_mut(&oid)
        {
            mark.definition = Some(stamp);
        }
        self.members.insert(oid, defined.definition.members.clone());
    }

    /// Begins with everything that there is, at a place where nothing was followed before. `late`: somebody may have
    /// written to it before.
    pub(super) fn begin_with(&mut self, overview: Overview, late: bool) {
        let mut names = HashMap::new();
        for found in &overview.tables {
            self.apply_found(found.published.oid, found, &mut names, self.position());
        }
        for mark in self.tables.values_mut() {
            mark.late = late;
        }
        self.reads_all = late && self.options.snapshot;
        self.left_out = self.reasons_of(&overview.unpublished);
        self.tables_changed();
    }

    /// Why tables that the rules include are not published.
    fn reasons_of(&self, unpublished: &[Candidate]) -> Vec<(String, Reason)> {
        if !self.adds_tables {
            return Vec::new();
        }
        let known = |oid: u32| self.tables.contains_key(&oid);
        let publication = identifier(&self.options.publication);
        let mut reasons = Vec::new();
        for table in unpublished.iter().filter(|table| !known(table.oid)) {
            let name = format!("{}.{}", table.namespace, table.relation);
            let quoted = format!("{}.{}", identifier(&table.namespace), identifier(&table.relation));
            let reason = if !table.has_key {
                if self.options.skip_tables_without_key {
                    continue;
                }
                no_key(&table.namespace, &table.relation, table.identity)
            } else if !table.owned {
                Reason::new(
                    "privileges",
                    format!(
                        "the table {name} is not published, because only its owner may do that: let its owner (or a \
                         superuser) run ALTER PUBLICATION {publication} ADD TABLE {quoted}; or exclude it"
                    ),
                )
            } else {
                continue;
            };
            reasons.push((self.captured_name(&table.namespace, &table.relation), reason));
        }
        reasons
    }

    /// Rows of tables that are not there any more go.
    fn drop_orphans(&mut self, present: &HashMap<u32, Present>) {
        for table in std::mem::take(&mut self.orphans) {
            let there = present.iter().find(|(_, now)| {
                now.root.is_none() && (&now.namespace, &now.relation) == (&table.namespace, &table.relation)
            });
            let is_captured = self.catalog.captures(&table.namespace, &table.relation)
                && self.captured_name(&table.namespace, &table.relation) == table.name;
            match there {
                Some((oid, now)) if is_captured && !self.tables.contains_key(oid) => {
                    let mark = TableMark::new(*oid, &now.namespace, &now.relation, ReadState::Waiting);
                    self.tables.insert(*oid, mark);
                    self.stored.insert(*oid, table);
                    self.unpublished(*oid, now, None);
                }
                _ => self.empty_table(&table),
            }
        }
    }
}

/// What was heard of a table that is being read, before its first chunk said what its rows depend on.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard {
    /// The names and types of columns in the log, which are its key, and where the log told so.
    pub(super) told: Option<(u64, Vec<String>, Lsn)>,
    /// The catalog was looked at meanwhile.
    pub(super) was_looked_at: bool,
}

/// Whether what a table was stopped for is gone, as far as the catalog shows.
fn is_mended(mark: &TableMark, readable: bool) -> bool {
    match mark.reason.as_ref().map(|reason| reason.code.as_str()) {
        Some("no-key" | "table-refused" | UNPUBLISHED) => true,
        Some("privileges") => readable,
        _ => false,
    }
}

/// What somebody wants of single tables, put into their marks. Names that nobody knows are left alone.
pub(super) fn give_orders(tables: &mut BTreeMap<u32, TableMark>, orders: &TableOrders, database: &str, rules: &Rules) {
    for mark in tables.values_mut() {
        let name = rules.captured_name(database, &mark.namespace, &mark.relation);
        match orders.held.get(&name) {
            Some(Hold::Dropped) => {}
            Some(hold) => {
                let reason = match hold {
                    Hold::Stopped(reason) => reason.clone(),
                    _ => Reason::new(PAUSED, "somebody paused it; its changes are skipped until it is resumed"),
                };
                mark.stop(reason);
                mark.held = true;
            }
            None => {
                if let Some(reason) = orders.reread.get(&name) {
                    mark.read_anew(Some(reason.clone()));
                } else if mark.held {
                    mark.read_anew(Some(Reason::new("resumed", "its changes were skipped until now")));
                }
            }
        }
    }
}
