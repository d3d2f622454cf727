//! Rows that foreign keys change: the server does that by itself, and logs nothing of it.
//!
//! What a statement deleted, or which columns of its tables it changed, is in its row events; which tables refer to those
//! is in definitions. MariaDB moreover maps the tables that it may change so in the statement itself. A table that may
//! have been changed is in doubt, and is read anew.

use super::catalog::Cascade;
use super::checkpoint::Name;
use super::event::{self, RowsKind};
use super::follow::Follower;
use super::row;
use super::tables::Mapped;
use crate::feed::{FeedError, Reason};

/// What a statement has done to a table by its row events.
pub(super) struct Written {
    id: u64,
    /// It removed rows, or made them past ones.
    deleted: bool,
    /// Places of columns that it changed, where somebody wants to know.
    changed: Vec<usize>,
}

impl Follower {
    /// Remembers what a statement does to tables that others refer to; at its end, those that it changed without row
    /// events are in doubt.
    pub(super) fn wrote(&mut self, rows: &event::Rows<'_>) -> Result<(), FeedError> {
        let Some(group) = &mut self.group else { return Ok(()) };
        if rows.unchecked || rows.kind == RowsKind::Insert {
            if rows.last {
                self.statement_ends();
            }
            return Ok(());
        }
        let Some(parent) = self.maps.get(&rows.table_id) else { return Ok(()) };
        // Of a table with system versioning, deletions are logged as updates.
        let refers = |cascade: &Cascade| cascade.parent == *parent.name();
        let cares = match self.server.mariadb {
            true => group.mapped.iter().filter_map(|id| self.maps.get(id)).any(|mapped| match mapped {
                Mapped::Captured { form, .. } => form.cascades.iter().any(refers),
                _ => false,
            }),
            false => self.tables.values().flat_map(|table| &table.cascades).flatten().any(refers),
        };
        let mut changed = row::Changed::default();
        if cares && rows.kind == RowsKind::Update {
            changed = row::changed(parent.layout(), rows).map_err(|problem| self.malformed(problem))?;
        }
        let Some(group) = &mut self.group else { return Ok(()) };
        let deleted = rows.kind == RowsKind::Delete || changed.ended;
        match group.written.iter_mut().find(|written| written.id == rows.table_id) {
            Some(written) => {
                written.deleted |= deleted;
                written.changed.append(&mut changed.places);
            }
            None => group.written.push(Written { id: rows.table_id, deleted, changed: changed.places }),
        }
        if rows.last {
            self.statement_ends();
        }
        Ok(())
    }

    /// Finds the tables that foreign keys changed: MariaDB maps them in the statement, and logs no rows of them.
    fn statement_ends(&mut self) {
        let Some(group) = &mut self.group else { return };
        let (mapped, written) = (std::mem::take(&mut group.mapped), std::mem::take(&mut group.written));
        if written.is_empty() {
            return;
        }
        if !self.server.mariadb {
            let hit = |cascade: &&Cascade| written.iter().any(|written| self.acts(written, cascade));
            let all = self.tables.values().flat_map(|table| &table.cascades).flatten();
            let mut parents: Vec<Name> = all.filter(hit).map(|cascade| cascade.parent.clone()).collect();
            parents.dedup();
            self.doubt_children(&parents);
            return;
        }
        // From tables that are reached, others may be; what is not captured is taken to be reached if it is mapped.
        let mut reached: Vec<(&Name, Option<&Cascade>)> = Vec::new();
        loop {
            let before = reached.len();
            for mapped in mapped.iter().filter_map(|id| self.maps.get(id)) {
                let name = mapped.name();
                if reached.iter().any(|(reached, _)| *reached == name) {
                    continue;
                }
                match mapped {
                    Mapped::Captured { form, .. } => {
                        let cause = form.cascades.iter().find(|cascade| {
                            written.iter().any(|written| self.acts(written, cascade))
                                || reached.iter().any(|(reached, _)| **reached == cascade.parent)
                        });
                        if cause.is_some() {
                            reached.push((name, cause));
                        }
                    }
                    _ if written.iter().any(|written| self.maps.get(&written.id).is_some_and(|w| w.name() == name)) => {
                    }
                    _ => reached.push((name, None)),
                }
            }
            if reached.len() == before {
                break;
            }
        }
        let reached: Vec<(Name, Cascade)> =
            reached.into_iter().filter_map(|(name, cause)| Some((name.clone(), cause?.clone()))).collect();
        for (name, cause) in reached {
            // What is only prepared counts once it is committed.
            if let Some(group) = self.group.as_mut().filter(|group| group.prepares.is_some()) {
                group.touched.push(name.clone());
            }
            self.doubt(&name, &|| because_of(&cause));
        }
    }

    /// Whether a foreign key acts on what was done to a table.
    fn acts(&self, written: &Written, cascade: &Cascade) -> bool {
        let Some(parent) = self.maps.get(&written.id).filter(|parent| *parent.name() == cascade.parent) else {
            return false;
        };
        let named = |&place: &usize| {
            let name = parent.layout().get(place).and_then(|column| column.name.as_ref());
            name.is_none_or(|name| cascade.columns.contains(name))
        };
        (cascade.on_delete && written.deleted) || (cascade.on_update && written.changed.iter().any(named))
    }

    /// Looks what the tables refer to of which that is not known.
    pub(super) async fn load_cascades(&mut self) -> Result<(), FeedError> {
        let unknown = self.tables.iter().filter(|(_, table)| table.cascades.is_none() && table.is_followed());
        let unknown: Vec<Name> = unknown.map(|(name, _)| name.clone()).collect();
        for name in unknown {
            // What keeps it from being looked at comes up when it is read.
            let _ = self.look_at(&name).await?;
        }
        Ok(())
    }

    /// Has what refers to tables in doubt, whatever happened to these.
    pub(super) fn doubt_children(&mut self, parents: &[Name]) {
        let mut reached = parents.to_vec();
        let mut at = 0;
        while let Some(parent) = reached.get(at).cloned() {
            at += 1;
            let refers = |table: &super::tables::Tracked| {
                table.cascades.iter().flatten().find(|cascade| cascade.parent == parent).cloned()
            };
            let children: Vec<(Name, Cascade)> =
                self.tables.iter().filter_map(|(name, table)| Some((name.clone(), refers(table)?))).collect();
            for (name, cause) in children {
                self.doubt(&name, &|| because_of(&cause));
                if !reached.contains(&name) {
                    reached.push(name);
                }
            }
        }
    }

    /// A table's name or columns are others: what refers to it does so by its new ones, and may have been changed before
    /// by what was not known to be its parent.
    pub(super) fn parent_changed(&mut self, parents: &[Name]) {
        let refers = |table: &super::tables::Tracked| {
            table.cascades.iter().flatten().any(|cascade| parents.contains(&cascade.parent))
        };
        let children: Vec<Name> =
            self.tables.iter().filter(|(_, table)| refers(table)).map(|(name, _)| name.clone()).collect();
        for name in children {
            if let Some(table) = self.tables.get_mut(&name) {
                table.form = None;
                table.cascades = None;
            }
            self.doubt(&name, &|| Reason::new("cascade", "a table that it refers to was altered or renamed"));
        }
    }
}

fn because_of(cause: &Cascade) -> Reason {
    let message = format!(
        "the foreign key {} changed rows of it when rows of {}.{} changed, and the log does not say which",
        cause.constraint, cause.parent.0, cause.parent.1
    );
    Reason::new("cascade", message)
}
