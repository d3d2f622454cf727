//! Schemas: what a table's rows have looked like, and whether one more row fits.
//!
//! In infer mode a row that does not fit makes the schema fit it: one version higher, once for each such row. In strict
//! mode the schema is declared and the row is refused. Either way a schema only ever widens, so every stored row fits
//! every later version.

use rustc_hash::FxHashMap;

use crate::event::{Column, ColumnType, TableSchema};
use crate::image::{Image, same};
use crate::refusal::{Refusal, RefusalCode};
use crate::store::{SchemaMode, Settings};

/// The key of a table that nobody declared.
pub const DEFAULT_KEY: &str = "id";

/// Below this many columns a name is found faster by looking than by hashing.
const FEW_COLUMNS: usize = 16;

/// A table as the capturing instance knows it.
#[derive(Debug)]
pub struct Table {
    schema: TableSchema,
    by_name: FxHashMap<String, usize>,
}

impl Table {
    /// A table with this schema.
    #[must_use]
    pub fn new(schema: TableSchema) -> Self {
        let mut by_name = FxHashMap::default();
        if schema.columns.len() > FEW_COLUMNS {
            by_name.extend(schema.columns.iter().enumerate().map(|(index, column)| (column.name.clone(), index)));
        }
        Self { schema, by_name }
    }

    /// A table that nothing has been written to: version 0, which is never shown.
    #[must_use]
    pub fn unborn(name: &str) -> Self {
        Self::new(TableSchema {
            name: name.to_owned(),
            columns: Vec::new(),
            primary_key: vec![DEFAULT_KEY.to_owned()],
            version: 0,
            relation: None,
        })
    }

    /// The schema in force.
    #[must_use]
    pub fn schema(&self) -> &TableSchema {
        &self.schema
    }

    /// The place of a column. Members mostly stand where the columns do, so `hint` is looked at first.
    #[must_use]
    pub fn column(&self, name: &str, hint: usize) -> Option<usize> {
        let columns = &self.schema.columns;
        if columns.get(hint).is_some_and(|column| same(&column.name, name)) {
            return Some(hint);
        }
        if self.by_name.is_empty() {
            columns.iter().position(|column| same(&column.name, name))
        } else {
            self.by_name.get(name).copied()
        }
    }

    /// Whether a row fits, and the place of each of its members' columns in `places` (new columns counted on behind the
    /// present ones). Answers the schema that is needed, when the one in force is not enough.
    ///
    /// With `whole` the image is a whole row, so columns that it lacks are null; else it is some members of one.
    pub fn fit(
        &self,
        image: &Image<'_>,
        whole: bool,
        settings: &Settings,
        places: &mut Vec<usize>,
    ) -> Result<Option<TableSchema>, Refusal> {
        let mut fitting = Fitting { table: self, settings, wider: None };
        let mut seen = Seen::default();
        places.clear();
        for member in 0..image.len() {
            let name = image.name(member);
            let place = match fitting.place(&name, member) {
                Some(place) => {
                    fitting.value(place, image, member)?;
                    place
                }
                None => fitting.add(&name, image.value_type(member))?,
            };
            if seen.again(place) {
                let message = format!("the row holds `{}` twice: which one is meant is not known", shortened(&name));
                return Err(Refusal::about(RefusalCode::DuplicateMember, &name, message));
            }
            places.push(place);
        }
        if whole && places.len() < fitting.columns().len() {
            for place in 0..self.schema.columns.len() {
                if !seen.has(place) {
                    fitting.lack(place)?;
                }
            }
        }
        Ok(fitting.wider.map(|mut schema| {
            schema.version = self.schema.version + 1;
            schema
        }))
    }
}

/// Which columns a row has been seen to have.
#[derive(Default)]
struct Seen {
    first: u64,
    rest: Vec<bool>,
}

impl Seen {
    /// Marks a column; answers whether it was marked before.
    fn again(&mut self, place: usize) -> bool {
        if place < 64 {
            let bit = 1 << place;
            let again = self.first & bit != 0;
            self.first |= bit;
            return again;
        }
        if self.rest.len() <= place - 64 {
            self.rest.resize(place - 63, false);
        }
        std::mem::replace(&mut self.rest[place - 64], true)
    }

    fn has(&self, place: usize) -> bool {
        if place < 64 { self.first & (1 << place) != 0 } else { self.rest.get(place - 64).copied().unwrap_or(false) }
    }
}

/// One row being held against a table. The schema is copied when the first thing does not fit, which is rare.
struct Fitting<'a> {
    table: &'a Table,
    settings: &'a Settings,
    wider: Option<TableSchema>,
}

impl Fitting<'_> {
    fn columns(&self) -> &[Column] {
        &self.wider.as_ref().unwrap_or(&self.table.schema).columns
    }

    fn place(&self, name: &str, hint: usize) -> Option<usize> {
        self.table.column(name, hint).or_else(|| {
            let known = self.table.schema.columns.len();
            let wider = self.wider.as_ref()?;
            wider.columns[known..].iter().position(|column| column.name == name).map(|index| known + index)
        })
    }

    fn strict(&self) -> bool {
        self.settings.schema_mode == SchemaMode::Strict
    }

    fn wider(&mut self) -> &mut TableSchema {
        self.wider.get_or_insert_with(|| self.table.schema.clone())
    }

    fn add(&mut self, name: &str, value_type: Option<ColumnType>) -> Result<usize, Refusal> {
        if self.strict() {
            return Err(self.violation(name, "is no column of the table"));
        }
        check_column_name(name, self.settings.max_name_bytes)?;
        let place = self.columns().len();
        if place >= self.settings.max_columns {
            return Err(Refusal::about(
                RefusalCode::TooManyColumns,
                name,
                format!("`{name}` would be the table's column {}, and a table may have {place}", place + 1),
            ));
        }
        // Rows that were written before lack the column; only a table's first row can say that it is never null.
        let nullable = self.table.schema.version > 0 || value_type.is_none();
        let column_type = value_type.unwrap_or(ColumnType::Any);
        self.wider().columns.push(Column { name: name.to_owned(), column_type, nullable, native_type: None });
        Ok(place)
    }

    fn value(&mut self, place: usize, image: &Image<'_>, member: usize) -> Result<(), Refusal> {
        let column = &self.columns()[place];
        match image.value_type(member) {
            None if !column.nullable => self.lack(place),
            Some(value_type) if column.column_type != value_type && column.column_type != ColumnType::Any => {
                if self.strict() {
                    let (name, expected) = (column.name.clone(), column.column_type.name());
                    return Err(self.violation(&name, &format!("must be {expected}, not {}", value_type.name())));
                }
                self.wider().columns[place].column_type = ColumnType::Any;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The row holds null in the column, or lacks it.
    fn lack(&mut self, place: usize) -> Result<(), Refusal> {
        let column = &self.columns()[place];
        if column.nullable {
            return Ok(());
        }
        let name = column.name.clone();
        if self.strict() || self.table.schema.primary_key.contains(&name) {
            return Err(self.violation(&name, "must not be null or missing"));
        }
        self.wider().columns[place].nullable = true;
        Ok(())
    }

    fn violation(&self, column: &str, what: &str) -> Refusal {
        let (table, version) = (&self.table.schema.name, self.table.schema.version);
        let shown = shortened(column);
        Refusal::about(
            RefusalCode::SchemaViolation,
            column,
            format!("`{shown}` {what} (table `{table}`, schema version {version})"),
        )
    }
}

/// What a user declares of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declaration {
    /// The table's name.
    pub name: String,
    /// Its columns.
    pub columns: Vec<Column>,
    /// The key's columns, in key order.
    pub primary_key: Vec<String>,
}

/// The schema that a declaration makes of the one in force; none when it changes nothing.
pub fn evolve(
    declaration: Declaration,
    present: Option<&TableSchema>,
    settings: &Settings,
) -> Result<Option<TableSchema>, Refusal> {
    let declared = checked(declaration, settings)?;
    let Some(present) = present else {
        return Ok(Some(TableSchema {
            name: declared.name,
            columns: declared.columns,
            primary_key: declared.primary_key,
            version: 1,
            relation: None,
        }));
    };
    if present.primary_key != declared.primary_key {
        return Err(conflict(
            declared.primary_key.first().map_or("", String::as_str),
            format!("the key is ({}) and cannot be changed", present.primary_key.join(", ")),
        ));
    }
    let mut columns = Vec::with_capacity(declared.columns.len());
    for column in &present.columns {
        let Some(new) = declared.columns.iter().find(|new| new.name == column.name) else {
            return Err(conflict(&column.name, "is missing: a column cannot be dropped, rows and events hold it"));
        };
        if new.column_type != column.column_type && new.column_type != ColumnType::Any {
            let (old, new) = (column.column_type.name(), new.column_type.name());
            return Err(conflict(&column.name, format!("is {old} and can only widen to any, not to {new}")));
        }
        if column.nullable && !new.nullable {
            return Err(conflict(&column.name, "is nullable and must stay so, because rows may hold null in it"));
        }
        columns.push(new.clone());
    }
    for new in declared.columns {
        if !present.columns.iter().any(|column| column.name == new.name) {
            if !new.nullable {
                return Err(conflict(&new.name, "is new and must be nullable, because the rows there are lack it"));
            }
            columns.push(new);
        }
    }
    if columns == present.columns {
        return Ok(None);
    }
    Ok(Some(TableSchema {
        name: declared.name,
        columns,
        primary_key: declared.primary_key,
        version: present.version + 1,
        relation: None,
    }))
}

/// The declaration, if it is one.
fn checked(declaration: Declaration, settings: &Settings) -> Result<Declaration, Refusal> {
    check_shape(&declaration, settings)?;
    let invalid = |message: String| Refusal::new(RefusalCode::InvalidSchema, message);
    for name in &declaration.primary_key {
        let Some(column) = declaration.columns.iter().find(|column| &column.name == name) else { continue };
        if column.nullable {
            return Err(invalid(format!("`{name}` is part of the primary key and cannot be nullable")));
        }
        if !matches!(column.column_type, ColumnType::String | ColumnType::Number | ColumnType::Any) {
            let found = column.column_type.name();
            return Err(invalid(format!("`{name}` is part of the primary key and cannot be {found}")));
        }
    }
    Ok(declaration)
}

/// Whether names and numbers are within the limits and every column is there once, those of the key among them.
pub(crate) fn check_shape(declaration: &Declaration, settings: &Settings) -> Result<(), Refusal> {
    let invalid = |message: String| Refusal::new(RefusalCode::InvalidSchema, message);
    check_table_name(&declaration.name, settings.max_name_bytes)?;
    if declaration.columns.len() > settings.max_columns {
        return Err(Refusal::new(
            RefusalCode::TooManyColumns,
            format!(
                "{} columns are declared, and a table may have {}",
                declaration.columns.len(),
                settings.max_columns
            ),
        ));
    }
    for (index, column) in declaration.columns.iter().enumerate() {
        check_column_name(&column.name, settings.max_name_bytes)?;
        if declaration.columns[..index].iter().any(|earlier| earlier.name == column.name) {
            return Err(invalid(format!("column `{}` is declared twice", column.name)));
        }
    }
    if declaration.primary_key.is_empty() {
        return Err(invalid("the primary key names no column".to_owned()));
    }
    for (index, name) in declaration.primary_key.iter().enumerate() {
        if declaration.primary_key[..index].contains(name) {
            return Err(invalid(format!("the primary key names `{name}` twice")));
        }
        if !declaration.columns.iter().any(|column| &column.name == name) {
            return Err(invalid(format!("the primary key names `{name}`, which is no column")));
        }
    }
    Ok(())
}

fn conflict(column: &str, message: impl std::fmt::Display) -> Refusal {
    Refusal::about(RefusalCode::SchemaConflict, column, format!("column `{}` {message}", shortened(column)))
}

/// Table names are letters, digits, `_`, `-`, `.` and `$`, and do not start with `.`: they stand in paths, patterns and
/// messages unquoted.
pub fn check_table_name(name: &str, max_bytes: usize) -> Result<(), Refusal> {
    let allowed = |character: char| character.is_alphanumeric() || matches!(character, '_' | '-' | '.' | '$');
    if !name.is_empty() && name.len() <= max_bytes && !name.starts_with('.') && name.chars().all(allowed) {
        return Ok(());
    }
    Err(Refusal::new(
        RefusalCode::InvalidTableName,
        format!(
            "`{}` is no table name: 1 to {max_bytes} bytes of letters, digits, `_`, `-`, `.` and `$`, not starting with `.`",
            shortened(name)
        ),
    ))
}

fn check_column_name(name: &str, max_bytes: usize) -> Result<(), Refusal> {
    if !name.is_empty() && name.len() <= max_bytes {
        return Ok(());
    }
    Err(Refusal::new(
        RefusalCode::InvalidColumnName,
        format!("`{}` is no column name: it must be 1 to {max_bytes} bytes long", shortened(name)),
    ))
}

/// A user's text as it is shown in messages.
fn shortened(text: &str) -> String {
    let mut shown: String = text.chars().take(64).flat_map(char::escape_debug).collect();
    if text.chars().nth(64).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn table(columns: &[(&str, ColumnType, bool)]) -> Table {
        Table::new(schema(columns))
    }

    fn schema(columns: &[(&str, ColumnType, bool)]) -> TableSchema {
        let columns = columns
            .iter()
            .map(|&(name, column_type, nullable)| Column {
                name: name.to_owned(),
                column_type,
                nullable,
                native_type: None,
            })
            .collect();
        TableSchema { name: "t".to_owned(), columns, primary_key: vec!["id".to_owned()], version: 1, relation: None }
    }

    fn fit(table: &Table, row: &str, whole: bool, mode: SchemaMode) -> Result<Option<TableSchema>, Refusal> {
        let settings = Settings { schema_mode: mode, max_columns: 3, max_name_bytes: 8, ..Settings::default() };
        let image = Image::scan(row.as_bytes(), 1_000, 8).unwrap();
        table.fit(&image, whole, &settings, &mut Vec::new())
    }

    const TWO: &[(&str, ColumnType, bool)] = &[("id", ColumnType::String, false), ("n", ColumnType::Number, false)];

    #[test]
    fn a_row_that_fits_needs_no_new_version() {
        assert_eq!(fit(&table(TWO), r#"{"n":1,"id":"a"}"#, true, SchemaMode::Infer).unwrap(), None);
        assert_eq!(fit(&table(TWO), r#"{"n":1}"#, false, SchemaMode::Strict).unwrap(), None);
    }

    #[test]
    fn the_first_row_decides_what_is_nullable() {
        let first = fit(&Table::unborn("t"), r#"{"id":"a","n":null}"#, true, SchemaMode::Infer).unwrap().unwrap();
        assert_eq!(first, schema(&[("id", ColumnType::String, false), ("n", ColumnType::Any, true)]));
    }

    #[test]
    fn one_row_raises_the_version_by_one_however_much_it_widens() {
        let wider = fit(&table(TWO), r#"{"id":"a","n":"x","new":[]}"#, true, SchemaMode::Infer).unwrap().unwrap();
        assert_eq!(wider.version, 2);
        assert_eq!(wider.columns[1].column_type, ColumnType::Any);
        assert_eq!(
            wider.columns[2],
            Column { name: "new".into(), column_type: ColumnType::Array, nullable: true, native_type: None }
        );
    }

    #[test]
    fn a_column_that_a_row_lacks_or_nulls_turns_nullable() {
        for row in [r#"{"id":"a"}"#, r#"{"id":"a","n":null}"#] {
            let wider = fit(&table(TWO), row, true, SchemaMode::Infer).unwrap().unwrap();
            assert!(wider.columns[1].nullable);
        }
    }

    #[test]
    fn strict_mode_refuses_what_infer_mode_would_widen_and_names_the_column() {
        for (row, column) in
            [(r#"{"id":"a","n":"x"}"#, "n"), (r#"{"id":"a"}"#, "n"), (r#"{"id":"a","n":1,"m":2}"#, "m")]
        {
            let refusal = fit(&table(TWO), row, true, SchemaMode::Strict).unwrap_err();
            assert_eq!((refusal.code, refusal.column.as_deref()), (RefusalCode::SchemaViolation, Some(column)));
        }
    }

    #[test]
    fn a_member_that_stands_twice_is_refused_also_when_spelled_differently_or_new() {
        for row in [r#"{"id":"a","n":1,"\u006e":2}"#, r#"{"id":"a","n":1,"new":1,"new":2}"#] {
            let refusal = fit(&table(TWO), row, true, SchemaMode::Infer).unwrap_err();
            assert_eq!(refusal.code, RefusalCode::DuplicateMember);
        }
    }

    #[test]
    fn columns_and_their_names_are_limited() {
        let refusal = fit(&table(TWO), r#"{"id":"a","n":1,"b":1,"c":1}"#, true, SchemaMode::Infer).unwrap_err();
        assert_eq!(refusal.code, RefusalCode::TooManyColumns);
        for row in [r#"{"":1}"#, r#"{"ninebytes":1}"#] {
            let refusal = fit(&table(TWO), row, false, SchemaMode::Infer).unwrap_err();
            assert_eq!(refusal.code, RefusalCode::InvalidColumnName);
        }
    }

    #[test]
    fn columns_are_found_by_name_beyond_the_few() {
        let names: Vec<String> = (0..100).map(|n| format!("c{n}")).collect();
        let columns: Vec<_> = names.iter().map(|name| (name.as_str(), ColumnType::Any, true)).collect();
        let table = table(&columns);
        assert_eq!(table.column("c99", 0), Some(99));
        assert_eq!(table.column("c7", 7), Some(7));
        assert_eq!(table.column("c100", 100), None);
    }

    fn declared(columns: &[(&str, ColumnType, bool)]) -> Declaration {
        let TableSchema { name, columns, primary_key, .. } = schema(columns);
        Declaration { name, columns, primary_key }
    }

    fn evolved(columns: &[(&str, ColumnType, bool)]) -> Result<Option<TableSchema>, (RefusalCode, Option<String>)> {
        evolve(declared(columns), Some(&schema(TWO)), &Settings::default())
            .map_err(|refusal| (refusal.code, refusal.column))
    }

    #[test]
    fn a_declaration_may_widen() {
        assert_eq!(evolved(TWO).unwrap(), None);
        let wider =
            &[("m", ColumnType::Boolean, true), ("n", ColumnType::Any, true), ("id", ColumnType::String, false)];
        let schema = evolved(wider).unwrap().unwrap();
        assert_eq!(schema.version, 2);
        let names: Vec<&str> = schema.columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(names, ["id", "n", "m"]);
    }

    #[test]
    fn a_declaration_may_not_narrow_and_the_column_is_named() {
        let id = ("id", ColumnType::String, false);
        for (columns, column) in [
            (vec![id], "n"),
            (vec![id, ("n", ColumnType::String, false)], "n"),
            (vec![id, TWO[1], ("m", ColumnType::String, false)], "m"),
        ] {
            assert_eq!(evolved(&columns).unwrap_err(), (RefusalCode::SchemaConflict, Some(column.to_owned())));
        }
    }

    #[test]
    fn a_declaration_must_be_a_schema() {
        for columns in [
            vec![("n", ColumnType::Number, false)],
            vec![("id", ColumnType::String, true)],
            vec![("id", ColumnType::Object, false)],
            vec![("id", ColumnType::String, false), ("id", ColumnType::String, false)],
        ] {
            let refusal = evolve(declared(&columns), None, &Settings::default()).unwrap_err();
            assert_eq!(refusal.code, RefusalCode::InvalidSchema, "{columns:?}");
        }
    }

    #[test]
    fn table_names_are_plain_words() {
        for name in ["users", "public.users", "été_2", "a-b$"] {
            assert!(check_table_name(name, 16).is_ok(), "{name}");
        }
        for name in ["", ".", "..", "../etc", "a b", "a/b", "a*", "a\0", "12345678901234567"] {
            assert!(check_table_name(name, 16).is_err(), "{name}");
        }
    }
}
