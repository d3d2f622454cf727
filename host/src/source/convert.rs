//! A portion as the feed says it becomes one as the engine takes it.

use std::sync::Arc;

use cdc_sources::{Action, Change, Kind, Portion, Step, Table};

use crate::sandbox::{self, Column, ColumnType, Described, FollowAction, FollowChange, Relation};

/// A portion for the engine.
pub(super) struct Converted {
    pub(super) portion: sandbox::Portion,
    pub(super) names: Names,
}

/// What the changes of a portion are called, should one be refused.
pub(super) struct Names {
    /// The place of each table in `tables`, and the first change that it is the table of.
    runs: Vec<(u32, Arc<Table>)>,
    /// Keys by their change; none of a description and of a truncate.
    keys: Vec<Vec<String>>,
}

impl Names {
    /// The table that a change is about.
    pub(super) fn table(&self, change: u32) -> Option<&str> {
        let run = self.runs.iter().rev().find(|(first, _)| *first <= change);
        run.map(|(_, table)| table.name.as_str())
    }

    /// Which row of which table a change is about.
    pub(super) fn of(&self, change: u32) -> String {
        let table = self.table(change).unwrap_or("?");
        match self.keys.get(change as usize).filter(|key| !key.is_empty()) {
            Some(key) => format!("the row {} of table {table}", key.join("/")),
            None => format!("table {table}"),
        }
    }
}

/// Puts a portion together that goes on from the checkpoint `after`.
pub(super) fn convert(source: &str, after: Option<&str>, portion: Portion) -> Converted {
    let mut converted = sandbox::Portion::new(source, after);
    let size = |change: &Change| {
        let image = |image: &Option<String>| image.as_ref().map_or(0, String::len);
        32 + image(&change.image) + image(&change.before)
    };
    let changes = portion.steps.iter().filter_map(|step| match step {
        Step::Change(change) => Some(change),
        _ => None,
    });
    converted.reserve(portion.steps.len(), changes.map(size).sum());

    let mut tables: Vec<(Arc<Table>, u32)> = Vec::new();
    let mut transaction: Option<(Arc<str>, Option<u64>, u32)> = None;
    let mut names = Names { runs: Vec::new(), keys: Vec::with_capacity(portion.steps.len()) };
    for step in portion.steps {
        let (table, change) = match step {
            Step::Describe(table) | Step::ReadBegan(table) => (table, None),
            Step::Change(change) => (change.table.clone(), Some(change)),
            // What these ask for is done before the portion is sent, or after.
            Step::ReadDone(_) | Step::Rewrite(_) | Step::Gone(_) | Step::Audited(_) | Step::AuditOff { .. } => continue,
        };
        // Mostly the last one.
        let known = tables.iter().rev().find(|(known, _)| Arc::ptr_eq(known, &table) || *known == table);
        let place = match known {
            Some((_, place)) => *place,
            None => {
                let place = converted.table(described(source, &table));
                tables.push((table.clone(), place));
                place
            }
        };
        if names.runs.last().is_none_or(|(_, last)| !Arc::ptr_eq(last, &table)) {
            names.runs.push((u32::try_from(names.keys.len()).unwrap_or(u32::MAX), table));
        }
        let Some(change) = change else {
            converted.change(&empty(place, FollowAction::Describe));
            names.keys.push(Vec::new());
            continue;
        };
        let transaction = change.transaction.as_ref().map(|name| match &transaction {
            Some((last, committed, place)) if last == name && *committed == change.committed_at_ms => *place,
            _ => {
                let place = converted.transaction(name, change.committed_at_ms);
                transaction = Some((name.clone(), change.committed_at_ms, place));
                place
            }
        });
        let column = |name: &String| {
            let place = change.table.columns.iter().position(|column| column.name == *name);
            // A name that is none is a mistake of the feed's; the engine refuses the place.
            u32::try_from(place.unwrap_or(usize::MAX)).unwrap_or(u32::MAX)
        };
        let unchanged: Vec<u32> = change.unchanged.iter().map(column).collect();
        let action = match change.action {
            Action::Replace => FollowAction::Replace,
            Action::Remove => FollowAction::Remove,
            Action::Truncate => FollowAction::Truncate,
            Action::Read => FollowAction::Read,
        };
        converted.change(&FollowChange {
            key: &change.key,
            image: change.image.as_deref(),
            unchanged: &unchanged,
            previous_key: change.previous_key.as_deref(),
            before: change.before.as_deref(),
            transaction,
            position: change.position.as_deref(),
            ..empty(place, action)
        });
        names.keys.push(change.key);
    }
    converted.set_checkpoint(portion.checkpoint.0);
    Converted { portion: converted, names }
}

fn empty(table: u32, action: FollowAction) -> FollowChange<'static> {
    FollowChange {
        table,
        action,
        key: &[],
        image: None,
        unchanged: &[],
        previous_key: None,
        before: None,
        transaction: None,
        position: None,
    }
}

fn described(source: &str, table: &Table) -> Described {
    let column = |column: &cdc_sources::Column| Column {
        name: column.name.clone(),
        column_type: match column.kind {
            Kind::String => ColumnType::String,
            Kind::Number => ColumnType::Number,
            Kind::Boolean => ColumnType::Boolean,
            Kind::Object => ColumnType::Object,
            Kind::Array => ColumnType::Array,
            Kind::Any => ColumnType::Any,
        },
        nullable: column.nullable,
        native_type: Some(column.native_type.clone()),
    };
    Described {
        name: table.name.clone(),
        columns: table.columns.iter().map(column).collect(),
        primary_key: table.key.clone(),
        relation: Relation {
            source: source.to_owned(),
            connector: table.connector.to_owned(),
            database: table.database.clone(),
            namespace: table.namespace.clone(),
            name: table.relation.clone(),
        },
    }
}
