//! What a table map of the log stands for: a captured table with its form, or one whose rows are only counted.
//!
//! A form is made of what the log says and what the information schema adds. Where the two don't go together because
//! the schema is ahead, the table's rows are passed over here and read from the table instead.

use std::sync::Arc;

use super::catalog::{self, Look};
use super::checkpoint::{Name, Reading};
use super::follow::Follower;
use super::form::{Form, FormProblem};
use super::reading;
use super::table_map::{self, TableMap, code};
use super::tables::{Mapped, Tracked};
use crate::feed::{FeedError, Reason};

impl Follower {
    pub(super) async fn table_map(&mut self, body: &[u8]) -> Result<(), FeedError> {
        let (id, bytes) = table_map::split(body).map_err(|problem| self.malformed(problem))?;
        if let Some(group) = &mut self.group {
            group.mapped.push(id);
        }
        // A table's id means the same form as long as it is not given out anew.
        if let Some(Mapped::Captured { name, form }) = self.maps.get(&id)
            && let Some(table) = self.tables.get(name)
            && let Some((known, current)) = &table.form
            && known == bytes
            && Arc::ptr_eq(current, form)
        {
            return Ok(());
        }
        let map = TableMap::read(bytes, self.server.mariadb).map_err(|problem| self.malformed(problem))?;
        let mapped = self.mapped(map, bytes).await?;
        self.maps.insert(id, mapped);
        Ok(())
    }

    async fn mapped(&mut self, map: TableMap, bytes: &[u8]) -> Result<Mapped, FeedError> {
        let name = (map.database.clone(), map.table.clone());
        let other = |name: Name, map: TableMap| Ok(Mapped::Other { name, columns: map.columns });
        // MariaDB logs its sequences like tables.
        let sequence = map.columns.first().and_then(|column| column.name.as_deref()) == Some("next_not_cached_value");
        if sequence || !self.captures(&name.0, &name.1) {
            return other(name, map);
        }
        if let Some(table) = self.tables.get(&name) {
            if !table.is_followed() {
                return other(name, map);
            }
            if let Some((known, form)) = &table.form
                && known == bytes
            {
                let form = Arc::clone(form);
                return Ok(Mapped::Captured { name, form });
            }
            if let Some((known, reason)) = &table.untold
                && known == bytes
            {
                let reason = reason.clone();
                return Ok(Mapped::Untold { name, columns: map.columns, reason });
            }
        }
        let catalog = match catalog::look(&mut self.catalog, self.server.mariadb, &name).await? {
            Look::Found(table) => Some(*table),
            Look::Gone => None,
            Look::Denied(told) => {
                self.track(name.clone());
                self.stop_table(&name, reading::denied(&self.server, &name, &told));
                return other(name, map);
            }
            Look::Unreadable(told) => {
                self.track(name.clone());
                self.stop_table(&name, reading::unreadable(&name, &told));
                return other(name, map);
            }
        };
        let nameless = map.columns.iter().any(|column| column.name.is_none());
        if catalog.is_none() && nameless && !self.tables.contains_key(&name) {
            let sequence = map.columns.len() == 8 && map.columns.first().is_some_and(|c| c.code == code::LONGLONG);
            tracing::debug!(table = %format!("{}.{}", name.0, name.1), sequence, "rows of what is no more are passed over");
            return other(name, map);
        }
        // The log may have columns that the table, as people see it, has not.
        let known = catalog.as_ref().map_or(map.columns.len(), |catalog| catalog.columns.len());
        let expressions = if !self.server.mariadb && known < map.columns.len() {
            catalog::expressions(&mut self.catalog, &name.0, &name.1).await?
        } else {
            0
        };
        let (charsets, connector) = (&self.server.charsets, self.server.connector());
        let form = Form::of_map(&map, catalog.as_ref(), expressions, charsets, &self.rules, connector);
        let present = catalog.map(|catalog| Form::of_catalog(&name.0, &name.1, &catalog, &self.rules, connector));
        self.track(name.clone());
        match (form, present) {
            (Ok(form), present) => {
                let form = Arc::new(form);
                let other_key = self.has_other_key(&name, &form, present.and_then(Result::ok).as_ref());
                if let Some(table) = self.tables.get_mut(&name) {
                    table.form = Some((bytes.to_vec(), Arc::clone(&form)));
                    table.cascades = Some(form.cascades.clone());
                    table.untold = None;
                }
                if other_key {
                    self.doubt(&name, &|| Reason::new("columns-changed", "its key is another one"));
                }
                Ok(Mapped::Captured { name, form })
            }
            // It can't be captured as it is now either.
            (Err(_), Some(Err(problem))) => {
                self.stop_table(&name, Reason::new(problem.code(), problem.to_string()));
                other(name, map)
            }
            // The information schema is ahead: what the table holds is read from it.
            (Err(problem), _) => {
                let reason = passed_over(&problem);
                tracing::info!(table = %format!("{}.{}", name.0, name.1), "{}", reason.message);
                if let Some(table) = self.tables.get_mut(&name) {
                    table.untold = Some((bytes.to_vec(), reason.clone()));
                }
                Ok(Mapped::Untold { name, columns: map.columns, reason })
            }
        }
    }

    /// Whether the log tells rows apart by other columns than those by which the table's rows are known.
    fn has_other_key(&self, name: &Name, form: &Form, present: Option<&Form>) -> bool {
        let Some(Tracked { line, described, .. }) = self.tables.get(name) else { return false };
        if line.reading != Reading::Following || line.form.is_empty() || line.form == form.id {
            return false;
        }
        match (described, present) {
            (Some((id, table)), _) if *id == line.form => table.key != form.table.key,
            (_, Some(present)) if present.id == line.form => present.table.key != form.table.key,
            // How they are known is not known any more; the statement that changed it comes, or has come.
            _ => false,
        }
    }
}

fn passed_over(problem: &FormProblem) -> Reason {
    let message = format!(
        "what rows in the log hold can't be told, so that the table has to be read: it has been changed since they were \
         logged ({problem})"
    );
    Reason::new("definition-ahead", message)
}
