//! What a batch comes to: few statements that have the same outcome as all its events one after the other.
//!
//! Pure. Of each key the last image counts, so of a batch that changes one row a hundred times one is written. Rows go
//! first and deletes after them, tables in the order in which the batch names them. Where constraints mind that order,
//! [`one_by_one`] keeps every event's own.

use std::collections::HashMap;

use cdc_rest::{Operation, TableSchema};

use crate::Event;
use crate::template::Template;

/// Statements to come.
#[derive(Debug, PartialEq)]
pub(super) enum Step<'a> {
    /// All rows go.
    Truncate { table: String },
    /// Rows are what their images say, in all columns but `unavailable` ones.
    Put {
        table: String,
        schema: &'a TableSchema,
        /// Names of columns, as a JSON array, that no image has.
        unavailable: Option<&'a str>,
        /// A JSON array of images.
        rows: String,
    },
    /// Rows go.
    Delete {
        table: String,
        schema: &'a TableSchema,
        /// A JSON array of objects with the columns of the key.
        keys: String,
    },
}

/// The steps of events in as few statements as may be.
pub(super) fn grouped<'a>(template: &Template, events: &[&Event<'a>]) -> Vec<Step<'a>> {
    let mut steps = Vec::new();
    let mut group = Group::default();
    let mut table = String::new();
    for event in events {
        template.write(&mut table, &event.subject.event);
        if group.needs(&table, event) {
            steps.extend(std::mem::take(&mut group).steps());
        }
        group.add(&table, event);
    }
    steps.extend(group.steps());
    steps
}

/// The step of one event.
pub(super) fn one_by_one<'a>(template: &Template, event: &Event<'a>) -> Vec<Step<'a>> {
    grouped(template, &[event])
}

/// Events whose order among each other does not matter any more.
#[derive(Default)]
struct Group<'a> {
    tables: Vec<Table<'a>>,
    places: HashMap<String, usize>,
}

struct Table<'a> {
    name: String,
    is_truncated: bool,
    /// The last event of each key; none where a later one took over.
    last: Vec<Option<Event<'a>>>,
    places: HashMap<&'a str, usize>,
}

impl<'a> Group<'a> {
    /// Whether what the group holds must be written before this event: it keeps some of what the row is then.
    fn needs(&self, table: &str, event: &Event<'a>) -> bool {
        let keeps = event.subject.event.origin.is_some_and(|origin| origin.unavailable.is_some());
        keeps
            && self.places.get(table).is_some_and(|&at| {
                let table = &self.tables[at];
                table.is_truncated || table.places.contains_key(event.subject.key)
            })
    }

    fn add(&mut self, name: &str, event: &Event<'a>) {
        let at = match self.places.get(name) {
            Some(&at) => at,
            None => {
                let table =
                    Table { name: name.to_owned(), is_truncated: false, last: Vec::new(), places: HashMap::new() };
                self.tables.push(table);
                self.places.insert(name.to_owned(), self.tables.len() - 1);
                self.tables.len() - 1
            }
        };
        let table = &mut self.tables[at];
        if event.subject.event.operation == Operation::Truncate {
            table.is_truncated = true;
            table.last.clear();
            table.places.clear();
            return;
        }
        let next = table.last.len();
        table.last.push(Some(*event));
        if let Some(earlier) = table.places.insert(event.subject.key, next) {
            table.last[earlier] = None;
        }
    }

    fn steps(self) -> Vec<Step<'a>> {
        let mut steps = Vec::new();
        let mut deletes = Vec::new();
        for table in self.tables {
            if table.is_truncated {
                steps.push(Step::Truncate { table: table.name.clone() });
            }
            let first = steps.len();
            let mut keys = Keys::default();
            for event in table.last.into_iter().flatten() {
                match event.subject.event.after {
                    Some(image) => put(&mut steps, first, &table.name, &event, image),
                    None => keys.add(&event),
                }
            }
            for step in &mut steps[first..] {
                if let Step::Put { rows, .. } = step {
                    rows.push(']');
                }
            }
            // What was emptied in the same group has nothing left to delete.
            if let Some(schema) = keys.schema.filter(|_| !table.is_truncated) {
                keys.text.push(']');
                deletes.push(Step::Delete { table: table.name, schema, keys: keys.text });
            }
        }
        steps.extend(deletes);
        steps
    }
}

/// Adds an image to the statement of its kind among those from `first` on.
fn put<'a>(steps: &mut Vec<Step<'a>>, first: usize, name: &str, event: &Event<'a>, image: &[u8]) {
    let schema = event.subject.schema;
    let lacking = event.subject.event.origin.and_then(|origin| origin.unavailable);
    // Images are JSON, and JSON is UTF-8.
    let image = String::from_utf8_lossy(image);
    for step in &mut steps[first..] {
        if let Step::Put { schema: other, unavailable, rows, .. } = step
            && other.version == schema.version
            && *unavailable == lacking
        {
            rows.push(',');
            rows.push_str(&image);
            return;
        }
    }
    steps.push(Step::Put { table: name.to_owned(), schema, unavailable: lacking, rows: format!("[{image}") });
}

/// Keys to delete, of one table.
#[derive(Default)]
struct Keys<'a> {
    schema: Option<&'a TableSchema>,
    text: String,
}

impl<'a> Keys<'a> {
    fn add(&mut self, event: &Event<'a>) {
        self.schema = Some(event.subject.schema);
        self.text.push(if self.text.is_empty() { '[' } else { ',' });
        let columns = &event.subject.schema.primary_key;
        let parts: Vec<String> = match columns.len() {
            1 => vec![event.subject.key.to_owned()],
            _ => event.subject.key.split('/').map(|part| part.replace("%2F", "/").replace("%25", "%")).collect(),
        };
        let object: serde_json::Map<String, serde_json::Value> =
            columns.iter().cloned().zip(parts.into_iter().map(serde_json::Value::from)).collect();
        self.text.push_str(&serde_json::Value::from(object).to_string());
    }
}

/// A text of SQL that names something.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A table's name: what stands before a first dot is its schema.
pub(super) fn quoted_table(name: &str) -> String {
    match name.split_once('.') {
        Some((schema, table)) if !schema.is_empty() && !table.is_empty() => {
            format!("{}.{}", quoted(schema), quoted(table))
        }
        _ => quoted(name),
    }
}
