//! A table's form: how its rows become images and keys, with the rules over its columns applied. The log's rows and
//! those that are read from the table go through the same code, so that they come out alike.

use std::sync::Arc;

use super::audit::RowText;
use super::pgoutput::Cell;
use super::value::Form;
use super::wire::identifier;
use crate::change::{Column, Kind, Table};
use crate::feed::{FeedError, Reason, Remedy};
use crate::json;
use crate::keyless;
use crate::rules::{REDACTED, Rules, Treatment};

/// A column as the log or the catalog tells it.
#[derive(Clone, Debug)]
pub(super) struct RawColumn {
    pub(super) name: String,
    pub(super) form: Form,
    pub(super) nullable: bool,
    pub(super) native_type: String,
}

/// Which table it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct TableName<'a> {
    pub(super) database: &'a str,
    pub(super) namespace: &'a str,
    pub(super) relation: &'a str,
}

/// How rows of a table are written.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) table: Arc<Table>,
    /// In the order of the values, also those that are left out.
    columns: Vec<ShapeColumn>,
    /// Which of the columns the key is, in key order; none of them if rows get ids of their own.
    key: Vec<usize>,
    rules: Arc<Rules>,
}

#[derive(Debug)]
struct ShapeColumn {
    name: String,
    /// The member's name and colon as they stand in the image.
    lead: String,
    form: Form,
    treatment: Treatment,
}

impl Shape {
    /// `key` names columns, in key order; without any, rows get ids of their own.
    pub(super) fn new(
        name: TableName<'_>,
        columns: Vec<RawColumn>,
        key: &[String],
        rules: &Arc<Rules>,
    ) -> Result<Shape, FeedError> {
        let TableName { database, namespace, relation } = name;
        let captured = rules.captured_name(database, namespace, relation);
        check_captured_name(&captured, namespace, relation)?;
        let mut places = Vec::with_capacity(key.len());
        for part in key {
            let place = columns.iter().position(|column| column.name == *part).ok_or_else(|| {
                refused(namespace, relation, &format!("its key column `{part}` is not published; publish it"))
            })?;
            match rules.treatment(namespace, relation, part) {
                Treatment::Keep | Treatment::Hash => places.push(place),
                Treatment::LeaveOut | Treatment::Redact => {
                    let problem = format!("`{part}` is part of its key and can't be left out or redacted; hash it");
                    return Err(refused(namespace, relation, &problem));
                }
            }
        }
        let mut shown = Vec::with_capacity(columns.len() + 1);
        if key.is_empty() {
            shown.push(keyless::column());
        }
        let mut written = Vec::with_capacity(columns.len());
        for (place, column) in columns.into_iter().enumerate() {
            let treatment = rules.treatment(namespace, relation, &column.name);
            let form = if places.contains(&place) { column.form.into_key() } else { column.form };
            let mut lead = String::new();
            json::push_string(&mut lead, &column.name);
            lead.push(':');
            if treatment != Treatment::LeaveOut {
                if key.is_empty() && column.name == keyless::ROW_ID {
                    return Err(refused(namespace, relation, &keyless::name_is_taken()));
                }
                shown.push(Column {
                    name: column.name.clone(),
                    kind: if treatment == Treatment::Keep { form.kind() } else { Kind::String },
                    nullable: column.nullable,
                    native_type: column.native_type,
                });
            }
            written.push(ShapeColumn { name: column.name, lead, form, treatment });
        }
        let table = Table {
            name: captured,
            connector: "postgresql",
            database: database.to_owned(),
            namespace: namespace.to_owned(),
            relation: relation.to_owned(),
            columns: shown,
            key: if key.is_empty() { vec![keyless::ROW_ID.to_owned()] } else { key.to_vec() },
        };
        Ok(Shape { table: Arc::new(table), columns: written, key: places, rules: rules.clone() })
    }

    /// How many values a row has.
    pub(super) fn width(&self) -> usize {
        self.columns.len()
    }

    /// Names of all columns, also those that are left out of images.
    pub(super) fn column_names(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|column| column.name.as_str())
    }

    /// The values of the key's columns as the database wrote them.
    pub(super) fn raw_key<'t>(&self, cells: &[Cell<'t>]) -> impl Iterator<Item = &'t str> {
        self.key.iter().filter_map(|&place| match cells[place] {
            Cell::Text(text) => Some(text),
            _ => None,
        })
    }

    /// Names of the columns that images have.
    pub(super) fn captured_names(&self) -> impl Iterator<Item = &str> {
        let captured = self.columns.iter().filter(|column| column.treatment != Treatment::LeaveOut);
        captured.map(|column| column.name.as_str())
    }

    /// What makes a row's text, as the database writes it, of its image. None if that can't be done.
    pub(super) fn row_text(&self) -> Option<RowText> {
        let captured = self.columns.iter().filter(|column| column.treatment != Treatment::LeaveOut);
        let form =
            |column: &ShapeColumn| (column.treatment == Treatment::Keep).then(|| column.form.text_form()).flatten();
        let columns: Vec<_> =
            captured.map(|column| Some((column.name.as_str(), form(column)?))).collect::<Option<_>>()?;
        Some(RowText::new(columns))
    }

    /// A key from the values of its columns as the database wrote them.
    pub(super) fn key_of_raw(&self, raw: &[String]) -> Vec<String> {
        let columns = self.key.iter().map(|&place| &self.columns[place]);
        let part = |(column, text): (&ShapeColumn, &String)| match column.treatment {
            Treatment::Hash => self.rules.hash(text),
            _ => column.form.plain(text).into_owned(),
        };
        columns.zip(raw).map(part).collect()
    }

    /// The way back from a key. None if it is not one of this table, or hashed.
    pub(super) fn raw(&self, key: &[String]) -> Option<Vec<String>> {
        let columns = self.key.iter().map(|&place| &self.columns[place]);
        let part = |(column, text): (&ShapeColumn, &String)| {
            let form = (column.treatment == Treatment::Keep).then(|| column.form.text_form()).flatten()?;
            form.raw(text).map(std::borrow::Cow::into_owned)
        };
        (key.len() == self.key.len()).then(|| columns.zip(key).map(part).collect()).flatten()
    }

    /// What to say of a row with a text that is no UTF-8, if it has one that is captured.
    pub(super) fn not_utf8(&self, cells: &[Cell<'_>]) -> Option<Reason> {
        let (_, column) = cells
            .iter()
            .zip(&self.columns)
            .find(|(cell, column)| matches!(cell, Cell::NotUtf8(_)) && column.treatment != Treatment::LeaveOut)?;
        let shown = |cell: Option<&Cell<'_>>| match cell {
            Some(Cell::Text(text)) => (*text).to_owned(),
            Some(Cell::NotUtf8(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
            _ => "?".to_owned(),
        };
        let key: Vec<String> = self
            .key
            .iter()
            .map(|&place| match self.columns[place].treatment {
                Treatment::Keep => format!("{} = {}", self.columns[place].name, shown(cells.get(place))),
                _ => format!("{} = …", self.columns[place].name),
            })
            .collect();
        let place = format!("{}.{}", identifier(&self.table.namespace), identifier(&self.table.relation));
        let name = identifier(&column.name);
        Some(Reason::new(
            "encoding",
            format!(
                "the column `{}` of {}.{} holds bytes that are no UTF-8, in the row with {}; the database's encoding \
                 (SQL_ASCII) lets it. Mend its texts, if they are LATIN1 for example by UPDATE {place} SET {name} = \
                 convert_from(convert(convert_to({name}, 'SQL_ASCII'), 'LATIN1', 'UTF8'), 'SQL_ASCII') WHERE {name} ~ \
                 '[^[:ascii:]]', and let the table be read anew; or leave the column out by the rules",
                column.name,
                self.table.namespace,
                self.table.relation,
                key.join(", ")
            ),
        ))
    }

    /// The row's key. What `cells` lacks is taken from `old`. None if it is not there at all.
    pub(super) fn key(&self, cells: &[Cell<'_>], old: Option<&[Cell<'_>]>) -> Option<Vec<String>> {
        let mut key = Vec::with_capacity(self.key.len());
        for &place in &self.key {
            let text = match (cells.get(place)?, old.and_then(|old| old.get(place))) {
                (Cell::Text(text), _) | (Cell::Unchanged, Some(Cell::Text(text))) => *text,
                _ => return None,
            };
            let column = &self.columns[place];
            key.push(match column.treatment {
                Treatment::Hash => self.rules.hash(text),
                _ => column.form.plain(text).into_owned(),
            });
        }
        Some(key)
    }

    /// The row as a JSON object. Unchanged values that `cells` does not repeat are taken from `old`; what is not there
    /// either is named in `unchanged`.
    pub(super) fn image(&self, cells: &[Cell<'_>], old: Option<&[Cell<'_>]>, unchanged: &mut Vec<String>) -> String {
        let room = cells.iter().zip(&self.columns).map(|(cell, column)| {
            column.lead.len()
                + match cell {
                    Cell::Text(text) => text.len() + 3,
                    _ => 5,
                }
        });
        let mut image = String::with_capacity(room.sum::<usize>() + 2);
        image.push('{');
        for (place, (cell, column)) in cells.iter().zip(&self.columns).enumerate() {
            if column.treatment == Treatment::LeaveOut {
                continue;
            }
            let cell = match (cell, old.and_then(|old| old.get(place))) {
                (Cell::Unchanged, Some(known @ Cell::Text(_))) => known,
                (cell, _) => cell,
            };
            if *cell == Cell::Unchanged {
                unchanged.push(column.name.clone());
                continue;
            }
            if image.len() > 1 {
                image.push(',');
            }
            image.push_str(&column.lead);
            match (cell, column.treatment) {
                (Cell::Text(text), Treatment::Keep) => column.form.write(&mut image, text),
                (Cell::Text(text), Treatment::Hash) => json::push_string(&mut image, &self.rules.hash(text)),
                (Cell::Text(_), _) => json::push_string(&mut image, REDACTED),
                _ => image.push_str("null"),
            }
        }
        image.push('}');
        image
    }
}

fn refused(namespace: &str, relation: &str, problem: &str) -> FeedError {
    FeedError {
        remedy: Remedy::Stop,
        code: "table-refused",
        message: format!("the table {namespace}.{relation} can't be captured: {problem}, or exclude the table"),
        source: None,
    }
}

/// The engine's rule for names of tables, which stand in paths unquoted.
pub(super) fn check_captured_name(captured: &str, namespace: &str, relation: &str) -> Result<(), FeedError> {
    let allowed = |character: char| character.is_alphanumeric() || matches!(character, '_' | '-' | '.' | '$');
    if !captured.is_empty() && !captured.starts_with('.') && captured.chars().all(allowed) {
        return Ok(());
    }
    let problem = format!(
        "it would be captured as `{captured}`, and a name is of letters, digits, `_`, `-`, `.` and `$`, not starting \
         with `.`; rename it, choose another template for names"
    );
    Err(refused(namespace, relation, &problem))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn shape(rules: Rules, key: &[&str]) -> Result<Shape, FeedError> {
        let column = |name: &str, form| RawColumn {
            name: name.into(),
            form,
            nullable: name != "id",
            native_type: "some type".into(),
        };
        let columns = vec![column("id", Form::Integer), column("mail", Form::Text), column("score", Form::Decimal)];
        let key: Vec<String> = key.iter().map(|&part| part.to_owned()).collect();
        let name = TableName { database: "app", namespace: "shop", relation: "users" };
        Shape::new(name, columns, &key, &Arc::new(rules))
    }

    const ROW: [Cell<'static>; 3] = [Cell::Text("7"), Cell::Text("a\"b"), Cell::Null];

    #[test]
    fn a_row_becomes_an_object_in_the_order_of_its_columns() {
        let shape = shape(Rules::default(), &["id"]).unwrap();
        let mut unchanged = Vec::new();
        assert_eq!(shape.image(&ROW, None, &mut unchanged), r#"{"id":7,"mail":"a\"b","score":null}"#);
        assert!(unchanged.is_empty());
        assert_eq!(shape.key(&ROW, None).unwrap(), ["7"]);
        assert_eq!(shape.table.name, "shop.users");
    }

    #[test]
    fn unchanged_values_come_from_the_old_row_or_are_named() {
        let shape = shape(Rules::default(), &["id"]).unwrap();
        let new = [Cell::Text("7"), Cell::Unchanged, Cell::Text("1.10")];
        let mut unchanged = Vec::new();
        assert_eq!(shape.image(&new, None, &mut unchanged), r#"{"id":7,"score":1.10}"#);
        assert_eq!(unchanged, ["mail"]);
        unchanged.clear();
        assert_eq!(shape.image(&new, Some(&ROW), &mut unchanged), r#"{"id":7,"mail":"a\"b","score":1.10}"#);
        assert!(unchanged.is_empty());
    }

    #[test]
    fn columns_are_hidden_before_anything_is_written() {
        let rules = Rules {
            exclude_columns: vec!["*.score".into()],
            redact_columns: vec!["*.mail".into()],
            hash_columns: vec!["*.id".into()],
            ..Rules::default()
        };
        let hash = rules.hash("7");
        let shape = shape(rules, &["id"]).unwrap();
        let image = shape.image(&ROW, None, &mut Vec::new());
        assert_eq!(image, format!(r#"{{"id":"{hash}","mail":"[redacted]"}}"#));
        assert_eq!(shape.key(&ROW, None).unwrap(), [hash]);
        assert_eq!(shape.table.columns.len(), 2);
        assert_eq!(shape.table.columns[0].kind, Kind::String);
    }

    #[test]
    fn a_key_column_is_written_as_a_string_unless_it_is_an_integer() {
        let shape = shape(Rules::default(), &["score", "id"]).unwrap();
        let row = [Cell::Text("7"), Cell::Null, Cell::Text("1.10")];
        assert_eq!(shape.image(&row, None, &mut Vec::new()), r#"{"id":7,"mail":null,"score":"1.10"}"#);
        assert_eq!(shape.key(&row, None).unwrap(), ["1.10", "7"]);
    }

    #[test]
    fn without_a_key_rows_get_a_column_for_ids_of_their_own() {
        let rules = Rules { hash_columns: vec!["*".into()], ..Rules::default() };
        let table = shape(rules, &[]).unwrap().table;
        assert!(table.is_append_only() && table.key == [keyless::ROW_ID] && table.columns.len() == 4);
        let raw = RawColumn {
            name: keyless::ROW_ID.into(),
            form: Form::Integer,
            nullable: true,
            native_type: "integer".into(),
        };
        let name = TableName { database: "app", namespace: "shop", relation: "users" };
        let taken = Shape::new(name, vec![raw.clone()], &[], &Arc::new(Rules::default())).unwrap_err();
        assert!(taken.message.contains("`_row`"), "{}", taken.message);
        let left_out = Rules { exclude_columns: vec!["*._row".into()], ..Rules::default() };
        assert!(Shape::new(name, vec![raw], &[], &Arc::new(left_out)).is_ok());
    }

    #[test]
    fn what_cannot_be_captured_is_refused_with_its_name() {
        let redacted = Rules { redact_columns: vec!["*.id".into()], ..Rules::default() };
        let error = shape(redacted, &["id"]).unwrap_err();
        assert!(error.message.contains("shop.users") && error.message.contains("`id`"), "{}", error.message);
        let named = Rules { name: "{namespace}/{relation}".into(), ..Rules::default() };
        assert!(shape(named, &["id"]).unwrap_err().message.contains("shop/users"));
        assert!(shape(Rules::default(), &["gone"]).is_err());
    }
}
