//! The form of a table: how its rows are laid out, what its columns are called, and what becomes of them.
//!
//! A form is made of a table map of the log, with what the information schema adds (names where the log has none, the
//! types' own names); or of the information schema alone, for reading a table's rows. Where the two differ the log is
//! right, because the information schema may be ahead of it.

use std::fmt::Write;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::bytes::Malformed;
use super::catalog::{Cascade, CatalogColumn, CatalogTable};
use super::cell::Cell;
use super::charset::Charset;
use super::codec::Codec;
use super::table_map::{MapColumn, TableMap, code};
use crate::change::{Column, Kind, Table};
use crate::json;
use crate::keyless;
use crate::rules::{REDACTED, Rules, Treatment};

/// A table's form.
#[derive(Debug)]
pub(super) struct Form {
    pub(super) table: Arc<Table>,
    pub(super) columns: Vec<FormColumn>,
    /// Places of the key's columns, in key order; none if rows get ids of their own.
    pub(super) key: Vec<usize>,
    /// A hash of everything that decides what images look like.
    pub(super) id: String,
    /// The column that says until when a row is the present one, if the table keeps rows that were.
    pub(super) end: Option<usize>,
    /// How the log lays rows out; empty for a form of the information schema.
    pub(super) layout: Vec<MapColumn>,
    /// Foreign keys by which its rows change without a word in the log.
    pub(super) cascades: Vec<Cascade>,
    rules: Arc<Rules>,
}

/// One column of a form.
#[derive(Debug)]
pub(super) struct FormColumn {
    pub(super) name: String,
    pub(super) codec: Codec,
    pub(super) treatment: Treatment,
    /// Its place in the key.
    pub(super) key: Option<usize>,
    /// `"name":`, ready for images.
    label: String,
}

/// Why a form can't be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FormProblem {
    #[error(
        "the log does not name the columns of {0}, and the table has since been changed, so that the names can't be \
         told; run SET GLOBAL binlog_row_metadata = FULL"
    )]
    Nameless(String),
    #[error(
        "{0} has no primary key and no unique key without nulls, so that its rows can't be told apart; add one (ALTER \
         TABLE … ADD COLUMN id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY), or exclude the table; or, {1}"
    )]
    Keyless(String, String),
    #[error("{0} can't be captured: {name}", name = keyless::name_is_taken())]
    RowIdTaken(String),
    #[error(
        "{0} has no key, and the server does not tell which place in its log a reading of it stands for, which it does for \
         InnoDB tables of MariaDB; give it a key or another engine, or exclude the table"
    )]
    NoPlace(String),
    #[error("the key of {0} contains the column {1}, which the rules leave out or redact; hash it or keep it")]
    HiddenKey(String, String),
    #[error("the column {1} of {0} has the character set {2}, which is not supported; exclude the column")]
    Charset(String, String, String),
    #[error("the column {1} of {0} has the type {2}, which is not supported; exclude the column or the table")]
    Type(String, String, String),
}

impl FormProblem {
    /// A stable word for it.
    pub(super) fn code(&self) -> &'static str {
        match self {
            FormProblem::Nameless(_) => "row-metadata",
            FormProblem::Keyless(..) => "no-key",
            FormProblem::HiddenKey(..)
            | FormProblem::RowIdTaken(_)
            | FormProblem::NoPlace(_)
            | FormProblem::Charset(..)
            | FormProblem::Type(..) => "table-refused",
        }
    }
}

/// A column of a form that is being made.
struct Draft {
    name: String,
    codec: Codec,
    nullable: bool,
    native_type: String,
    generation: String,
    /// The server made it for itself, and shows it to nobody.
    hidden: bool,
}

/// Names of collations' character sets, by their number.
pub(super) trait Collations {
    fn charset(&self, collation: u64) -> Option<&str>;
}

impl Form {
    /// The form that a table map tells, with what the information schema knows of the same table; `expressions` of its
    /// indexes' parts are no columns.
    pub(super) fn of_map(
        map: &TableMap,
        catalog: Option<&CatalogTable>,
        expressions: usize,
        collations: &impl Collations,
        rules: &Arc<Rules>,
        connector: &'static str,
    ) -> Result<Form, FormProblem> {
        let full = format!("{}.{}", map.database, map.table);
        let hinted = catalog.map(|catalog| catalog.columns.as_slice()).unwrap_or_default();
        let named = map.columns.iter().all(|column| column.name.is_some());
        // Without names everything hangs on places, so every column must be as the information schema says; columns
        // that the server made for itself come last, but for those of indexed expressions.
        let fits = |column: &MapColumn, hint: &CatalogColumn| compatible(column, hint, collations);
        let period = catalog.and_then(|catalog| catalog.period.as_ref());
        let unseen = period.is_some_and(|(start, _)| !hinted.iter().any(|hint| hint.name == *start));
        let behind = map.columns.get(hinted.len()..).unwrap_or_default();
        let hashes = behind.get(if unseen { 2 } else { 0 }..);
        let own = || hashes.is_some_and(|hashes| hashes.iter().all(|column| column.code == code::LONGLONG));
        let over = || map.columns.iter().zip(hinted).all(|(column, hint)| fits(column, hint));
        let places = if named {
            Vec::new()
        } else if expressions > 0 {
            placed(&map.columns, hinted, expressions, fits)
        } else if hinted.len() <= map.columns.len() && own() && over() {
            (0..map.columns.len()).map(|at| (at < hinted.len()).then_some(at)).collect()
        } else {
            Vec::new()
        };
        if !named && places.is_empty() {
            return Err(FormProblem::Nameless(full));
        }
        let implied = period.cloned().or_else(|| implied_period(map));
        let mut columns = Vec::with_capacity(map.columns.len());
        for (at, column) in map.columns.iter().enumerate() {
            let hint = match &column.name {
                Some(name) => hinted.iter().find(|hint| hint.name == *name),
                None => places.get(at).and_then(|place| hinted.get((*place)?)),
            };
            let listed = hint.is_some();
            let hint = hint.filter(|hint| compatible(column, hint, collations));
            let name = match (&column.name, hint) {
                (Some(name), _) => name.clone(),
                (None, Some(hint)) => hint.name.clone(),
                (None, None) if unseen && at == hinted.len() + 1 => {
                    implied.as_ref().map(|(_, end)| end.clone()).unwrap_or_default()
                }
                (None, None) if expressions > 0 => format!("!hidden!{at}"),
                (None, None) => format!("DB_ROW_HASH_{at}"),
            };
            let in_period = implied.as_ref().is_some_and(|(start, end)| name == *start || name == *end);
            let hidden = !listed && (in_period || is_row_hash(&name) || is_of_expression(&name, expressions));
            // What is left out is read only to find what comes after it.
            let left_out = hidden || rules.treatment(&map.database, &map.table, &name) == Treatment::LeaveOut;
            let codec = map_codec(column, hint, collations, left_out).map_err(|problem| problem.at(&full, &name))?;
            let native_type = hint.map_or_else(|| native_type(column, collations), |hint| hint.column_type.clone());
            let generation = hint.map(|hint| hint.generation.clone()).unwrap_or_default();
            columns.push(Draft { name, codec, nullable: column.nullable, native_type, generation, hidden });
        }
        let known = |names: &[String]| {
            names.iter().map(|name| columns.iter().position(|column| column.name == *name)).collect::<Option<Vec<_>>>()
        };
        let end = implied.and_then(|(_, end)| columns.iter().position(|column| column.name == end));
        let mut key = map.key.clone().unwrap_or_default();
        key.retain(|place| Some(*place) != end);
        if key.is_empty() {
            key = catalog.and_then(|catalog| known(&catalog.key)).unwrap_or_default();
        }
        let mut form = Form::new(&map.database, &map.table, columns, key, rules, connector)?;
        form.end = end;
        form.layout.clone_from(&map.columns);
        form.cascades = catalog.map(|catalog| catalog.cascades.clone()).unwrap_or_default();
        Ok(form)
    }

    /// The form that the information schema tells.
    pub(super) fn of_catalog(
        namespace: &str,
        relation: &str,
        catalog: &CatalogTable,
        rules: &Arc<Rules>,
        connector: &'static str,
    ) -> Result<Form, FormProblem> {
        let full = format!("{namespace}.{relation}");
        let mut columns = Vec::with_capacity(catalog.columns.len());
        for column in &catalog.columns {
            let left_out = rules.treatment(namespace, relation, &column.name) == Treatment::LeaveOut;
            let codec = catalog_codec(column, left_out).map_err(|problem| problem.at(&full, &column.name))?;
            columns.push(Draft {
                name: column.name.clone(),
                codec,
                nullable: column.nullable,
                native_type: column.column_type.clone(),
                generation: column.generation.clone(),
                hidden: false,
            });
        }
        let place = |name: &String| columns.iter().position(|column| column.name == *name);
        let key = catalog.key.iter().map(place).collect::<Option<Vec<_>>>().unwrap_or_default();
        let mut form = Form::new(namespace, relation, columns, key, rules, connector)?;
        if form.table.is_append_only() && !(connector == "mariadb" && catalog.transactional) {
            return Err(FormProblem::NoPlace(full));
        }
        form.cascades.clone_from(&catalog.cascades);
        Ok(form)
    }

    fn new(
        namespace: &str,
        relation: &str,
        columns: Vec<Draft>,
        key: Vec<usize>,
        rules: &Arc<Rules>,
        connector: &'static str,
    ) -> Result<Form, FormProblem> {
        let full = || format!("{namespace}.{relation}");
        let is_append_only = key.is_empty();
        if is_append_only && !rules.appends(namespace, relation) {
            return Err(FormProblem::Keyless(full(), keyless::way_out(namespace, relation)));
        }
        let mut described = Vec::with_capacity(columns.len() + 1);
        if is_append_only {
            described.push(keyless::column());
        }
        let mut formed = Vec::with_capacity(columns.len());
        let mut hash = Sha256::new();
        for (at, column) in columns.into_iter().enumerate() {
            let Draft { name, codec, nullable, native_type, generation, hidden } = column;
            let treatment = if hidden { Treatment::LeaveOut } else { rules.treatment(namespace, relation, &name) };
            let in_key = key.iter().position(|&place| place == at);
            if in_key.is_some() && matches!(treatment, Treatment::LeaveOut | Treatment::Redact) {
                return Err(FormProblem::HiddenKey(full(), name));
            }
            let kind = if treatment == Treatment::Keep { codec.kind() } else { Kind::String };
            if !hidden {
                hash.update(format!("{name}\0{native_type}\0{nullable}\0{treatment:?}\0{kind:?}\0{in_key:?}"));
                hash.update(if generation.is_empty() { "\n".to_owned() } else { format!("\0{generation}\n") });
            }
            if treatment != Treatment::LeaveOut {
                if is_append_only && name == keyless::ROW_ID {
                    return Err(FormProblem::RowIdTaken(full()));
                }
                described.push(Column { name: name.clone(), kind, nullable, native_type });
            }
            let mut label = String::with_capacity(name.len() + 3);
            json::push_string(&mut label, &name);
            label.push(':');
            formed.push(FormColumn { name, codec, treatment, key: in_key, label });
        }
        if is_append_only {
            hash.update(keyless::ROW_ID);
        }
        let id = hash.finalize()[..8].iter().fold(String::new(), |mut id, byte| {
            let _ = write!(id, "{byte:02x}");
            id
        });
        let table = Arc::new(Table {
            name: rules.captured_name(namespace, namespace, relation),
            connector,
            database: namespace.to_owned(),
            namespace: namespace.to_owned(),
            relation: relation.to_owned(),
            columns: described,
            key: match is_append_only {
                true => vec![keyless::ROW_ID.to_owned()],
                false => key.iter().map(|&place| formed[place].name.clone()).collect(),
            },
        });
        let (layout, cascades) = (Vec::new(), Vec::new());
        Ok(Form { table, columns: formed, key, id, end: None, layout, cascades, rules: Arc::clone(rules) })
    }

    /// Appends a column's member to an image that is begun; whoever is first opens it.
    #[inline]
    pub(super) fn write(&self, column: &FormColumn, cell: &Cell<'_>, image: &mut String) -> Result<(), Malformed> {
        image.push(if image.is_empty() { '{' } else { ',' });
        image.push_str(&column.label);
        match column.treatment {
            Treatment::Keep => column.codec.write(cell, image)?,
            _ if *cell == Cell::Null => image.push_str("null"),
            Treatment::Redact => json::push_string(image, REDACTED),
            Treatment::Hash | Treatment::LeaveOut => {
                image.push('"');
                image.push_str(&self.hash(column, cell)?);
                image.push('"');
            }
        }
        Ok(())
    }

    /// The text of a key's column.
    pub(super) fn key_text(&self, column: &FormColumn, cell: &Cell<'_>) -> Result<String, Malformed> {
        if column.treatment == Treatment::Hash {
            return self.hash(column, cell);
        }
        let mut text = String::new();
        column.codec.text(cell, &mut text)?;
        Ok(text)
    }

    fn hash(&self, column: &FormColumn, cell: &Cell<'_>) -> Result<String, Malformed> {
        let mut text = String::new();
        column.codec.text(cell, &mut text)?;
        Ok(self.rules.hash(&text))
    }
}

/// Whether a column that the information schema does not have is one that MySQL keeps for an index over an expression:
/// `!hidden!index!0!0`, or, up to 8.0.17, a digest.
fn is_of_expression(name: &str, expressions: usize) -> bool {
    let digest = || name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    name.starts_with("!hidden!") || (expressions > 0 && digest())
}

/// For each column of the log the place of the one that the information schema describes; None for those that it does
/// not, which are as many as there are indexed expressions. Up to 8.0.17 the log has the columns that such expressions
/// are kept in, wherever they are in the table. Empty if the two can't be laid over each other, or in several ways.
fn placed(
    columns: &[MapColumn],
    hinted: &[CatalogColumn],
    expressions: usize,
    fits: impl Fn(&MapColumn, &CatalogColumn) -> bool,
) -> Vec<Option<usize>> {
    let Some(hidden) = columns.len().checked_sub(hinted.len()).filter(|&hidden| hidden == 0 || hidden == expressions)
    else {
        return Vec::new();
    };
    // How many ways there are to lay the rest over the rest, from the end on; more than one is as good as two.
    let mut ways = vec![vec![0_u8; hidden + 1]; columns.len() + 1];
    ways[columns.len()][0] = 1;
    for at in (0..columns.len()).rev() {
        for left in 0..=hidden {
            let hint = (at + left).checked_sub(hidden).and_then(|place| hinted.get(place));
            let over = hint.filter(|hint| fits(&columns[at], hint)).map_or(0, |_| ways[at + 1][left]);
            let passed = if left > 0 && columns[at].nullable { ways[at + 1][left - 1] } else { 0 };
            ways[at][left] = (over + passed).min(2);
        }
    }
    if ways[0][hidden] != 1 {
        return Vec::new();
    }
    let mut left = hidden;
    let place = |at: usize| {
        let here = (at + left).checked_sub(hidden);
        let over = here.and_then(|place| hinted.get(place)).is_some_and(|hint| fits(&columns[at], hint));
        if over && ways[at + 1][left] == 1 {
            return here;
        }
        left -= 1;
        None
    };
    (0..columns.len()).map(place).collect()
}

/// Whether a column is one in which the server keeps hashes of long unique values.
fn is_row_hash(name: &str) -> bool {
    name.strip_prefix("DB_ROW_HASH_").is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The columns of system versioning without names of their own, as the log alone tells them.
fn implied_period(map: &TableMap) -> Option<(String, String)> {
    let named = |wanted: &str| {
        let column = map.columns.iter().find(|column| column.name.as_deref() == Some(wanted))?;
        (column.code == code::TIMESTAMP2 && column.meta == 6 && !column.nullable).then(|| wanted.to_owned())
    };
    Some((named("row_start")?, named("row_end")?))
}

/// What is wrong with a column's type, before it is known where.
enum CodecProblem {
    Charset(String),
    Type(String),
}

impl CodecProblem {
    fn at(self, table: &str, column: &str) -> FormProblem {
        match self {
            CodecProblem::Charset(name) => FormProblem::Charset(table.to_owned(), column.to_owned(), name),
            CodecProblem::Type(name) => FormProblem::Type(table.to_owned(), column.to_owned(), name),
        }
    }
}

fn charset(name: Option<&str>, left_out: bool) -> Result<Charset, CodecProblem> {
    let name = name.unwrap_or("binary");
    match Charset::named(name) {
        Some(charset) => Ok(charset),
        None if left_out => Ok(Charset::Binary),
        None => Err(CodecProblem::Charset(name.to_owned())),
    }
}

fn map_codec(
    column: &MapColumn,
    hint: Option<&CatalogColumn>,
    collations: &impl Collations,
    left_out: bool,
) -> Result<Codec, CodecProblem> {
    let meta = column.meta;
    let digits = (meta as u8).min(6);
    let int = |bytes| {
        let hinted = || hint.is_some_and(|hint| hint.column_type.contains("unsigned"));
        Codec::Int { bytes, unsigned: column.unsigned.unwrap_or_else(hinted) }
    };
    let set_name = column.collation.and_then(|number| collations.charset(number));
    let set_name = set_name.or_else(|| hint.and_then(|hint| hint.charset.as_deref()));
    let text = |prefix, compressed, pad| -> Result<Codec, CodecProblem> {
        Ok(match charset(set_name, left_out)? {
            Charset::Binary => Codec::Binary { prefix, pad, compressed },
            charset if hint.is_some_and(|hint| hint.json) => Codec::JsonText { prefix, charset, compressed },
            charset => Codec::Text { prefix, charset, compressed },
        })
    };
    let members = || -> Result<Vec<String>, CodecProblem> {
        let hinted = || hint.map(|hint| members_of(&hint.column_type));
        match &column.members {
            None => hinted().ok_or_else(|| CodecProblem::Type("an enumeration without members".into())),
            Some(members) => {
                let charset = charset(set_name, left_out)?;
                let decode = |member: &Vec<u8>| charset.decode(member).map(|text| text.into_owned());
                let lossy = |member: &Vec<u8>| String::from_utf8_lossy(member).into_owned();
                Ok(members.iter().map(|member| decode(member).unwrap_or_else(|| lossy(member))).collect())
            }
        }
    };
    let data_type = hint.map(|hint| hint.data_type.as_str()).unwrap_or_default();
    Ok(match column.code {
        code::TINY => int(1),
        code::SHORT => int(2),
        code::INT24 => int(3),
        code::LONG => int(4),
        code::LONGLONG => int(8),
        code::FLOAT => Codec::Float,
        code::DOUBLE => Codec::Double,
        code::NEWDECIMAL => {
            let [precision, scale] = meta.to_be_bytes();
            Codec::Decimal { precision, scale }
        }
        code::YEAR => Codec::Year,
        code::BIT => Codec::Bit { bytes: (meta >> 8) as u8 + u8::from(meta & 0xff > 0) },
        code::DATE | code::NEWDATE => Codec::Date,
        code::TIME => Codec::Time { digits: 0, packed: false },
        code::TIME2 => Codec::Time { digits, packed: true },
        code::DATETIME => Codec::DateTime { digits: 0, packed: false },
        code::DATETIME2 => Codec::DateTime { digits, packed: true },
        code::TIMESTAMP => Codec::Timestamp { digits: 0, packed: false },
        code::TIMESTAMP2 => Codec::Timestamp { digits, packed: true },
        code::VARCHAR | code::VAR_STRING => text(if meta > 255 { 2 } else { 1 }, false, None)?,
        code::VARCHAR_COMPRESSED => text(if meta > 255 { 2 } else { 1 }, true, None)?,
        code::STRING if data_type == "uuid" => Codec::Uuid,
        code::STRING if data_type == "inet6" => Codec::Inet6,
        code::STRING if data_type == "inet4" => Codec::Inet4,
        code::STRING => text(if meta > 255 { 2 } else { 1 }, false, Some(meta))?,
        code::TINY_BLOB | code::BLOB | code::MEDIUM_BLOB | code::LONG_BLOB => text(meta as u8, false, None)?,
        code::BLOB_COMPRESSED => text(meta as u8, true, None)?,
        code::VECTOR => Codec::Vector { prefix: meta as u8 },
        code::ENUM => Codec::Enum { bytes: meta as u8, members: members()? },
        code::SET => Codec::Set { bytes: meta as u8, members: members()? },
        code::JSON => Codec::Json { prefix: meta as u8 },
        code::GEOMETRY => Codec::Geometry { prefix: meta as u8 },
        other => return Err(CodecProblem::Type(format!("number {other}"))),
    })
}

fn catalog_codec(column: &CatalogColumn, left_out: bool) -> Result<Codec, CodecProblem> {
    let unsigned = column.column_type.contains("unsigned");
    let digits = column.second_digits.unwrap_or(0).min(6) as u8;
    let int = |bytes| Codec::Int { bytes, unsigned };
    let text = |pad| -> Result<Codec, CodecProblem> {
        Ok(match charset(column.charset.as_deref(), left_out)? {
            Charset::Binary => Codec::Binary { prefix: 0, pad, compressed: false },
            charset if column.json => Codec::JsonText { prefix: 0, charset, compressed: false },
            charset => Codec::Text { prefix: 0, charset, compressed: false },
        })
    };
    Ok(match column.data_type.as_str() {
        "tinyint" => int(1),
        "smallint" => int(2),
        "mediumint" => int(3),
        "int" => int(4),
        "bigint" => int(8),
        "float" => Codec::Float,
        "double" => Codec::Double,
        "decimal" => {
            let (precision, scale) = (column.precision.unwrap_or(10) as u8, column.scale.unwrap_or(0) as u8);
            Codec::Decimal { precision, scale }
        }
        "year" => Codec::Year,
        "bit" => Codec::Bit { bytes: 8 },
        "date" => Codec::Date,
        "time" => Codec::Time { digits, packed: true },
        "datetime" => Codec::DateTime { digits, packed: true },
        "timestamp" => Codec::Timestamp { digits, packed: true },
        "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" => text(None)?,
        "binary" => text(column.octets.map(|octets| octets as u16))?,
        "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => text(None)?,
        "vector" => Codec::Vector { prefix: 4 },
        "enum" => Codec::Enum { bytes: 2, members: members_of(&column.column_type) },
        "set" => Codec::Set { bytes: 8, members: members_of(&column.column_type) },
        "json" => Codec::Json { prefix: 4 },
        "uuid" => Codec::Uuid,
        "inet6" => Codec::Inet6,
        "inet4" => Codec::Inet4,
        name if is_geometry(name) => Codec::Geometry { prefix: 4 },
        _ if left_out => Codec::Binary { prefix: 0, pad: None, compressed: false },
        other => return Err(CodecProblem::Type(other.to_owned())),
    })
}

fn is_geometry(name: &str) -> bool {
    matches!(
        name,
        "geometry"
            | "point"
            | "linestring"
            | "polygon"
            | "multipoint"
            | "multilinestring"
            | "multipolygon"
            | "geometrycollection"
            | "geomcollection"
    )
}

/// Whether a column of the log may be the one that the information schema describes.
fn compatible(column: &MapColumn, hint: &CatalogColumn, collations: &impl Collations) -> bool {
    let length = |meta: u16| hint.octets == Some(u64::from(meta));
    let digits = || hint.second_digits.unwrap_or(0) == u64::from(column.meta);
    let name = hint.data_type.as_str();
    let charsets_agree = || {
        let told = column.collation.and_then(|number| collations.charset(number));
        told.is_none() || told == Some(hint.charset.as_deref().unwrap_or("binary"))
    };
    let signs_agree =
        column.unsigned.is_none_or(|unsigned| name == "year" || unsigned == hint.column_type.contains("unsigned"));
    let fits = match column.code {
        code::TINY => name == "tinyint",
        code::SHORT => name == "smallint",
        code::INT24 => name == "mediumint",
        code::LONG => name == "int",
        code::LONGLONG => name == "bigint",
        code::FLOAT => name == "float",
        code::DOUBLE => name == "double",
        code::NEWDECIMAL => {
            let [precision, scale] = column.meta.to_be_bytes().map(u64::from);
            name == "decimal" && hint.precision == Some(precision) && hint.scale == Some(scale)
        }
        code::YEAR => name == "year",
        code::BIT => {
            let bits = u64::from(column.meta >> 8) * 8 + u64::from(column.meta & 0xff);
            name == "bit" && hint.precision.is_none_or(|told| told == bits)
        }
        code::DATE | code::NEWDATE => name == "date",
        code::TIME | code::TIME2 => name == "time" && digits(),
        code::DATETIME | code::DATETIME2 => name == "datetime" && digits(),
        code::TIMESTAMP | code::TIMESTAMP2 => name == "timestamp" && digits(),
        code::VARCHAR | code::VAR_STRING => {
            matches!(name, "varchar" | "varbinary") && length(column.meta) && charsets_agree()
        }
        code::VARCHAR_COMPRESSED => matches!(name, "varchar" | "varbinary") && charsets_agree(),
        code::STRING => match name {
            "char" | "binary" => length(column.meta) && charsets_agree(),
            "uuid" | "inet6" => column.meta == 16,
            "inet4" => column.meta == 4,
            _ => false,
        },
        code::TINY_BLOB | code::BLOB | code::MEDIUM_BLOB | code::LONG_BLOB | code::BLOB_COMPRESSED => {
            let names = match column.meta {
                1 => ["tinytext", "tinyblob"],
                2 => ["text", "blob"],
                3 => ["mediumtext", "mediumblob"],
                _ => ["longtext", "longblob"],
            };
            names.contains(&name) && charsets_agree()
        }
        code::ENUM => name == "enum",
        code::SET => name == "set",
        code::JSON => name == "json",
        code::VECTOR => name == "vector",
        code::GEOMETRY => is_geometry(name),
        _ => false,
    };
    fits && signs_agree
}

/// The name of a type as far as the log tells it, where the information schema tells of another.
fn native_type(column: &MapColumn, collations: &impl Collations) -> String {
    let meta = column.meta;
    let sign = if column.unsigned == Some(true) { " unsigned" } else { "" };
    let set = column.collation.and_then(|number| collations.charset(number)).unwrap_or("binary");
    let binary = set == "binary";
    let longest = match set {
        "utf8mb4" | "utf16" | "utf16le" | "utf32" | "gb18030" => 4,
        "utf8mb3" | "utf8" | "ujis" | "eucjpms" => 3,
        "ucs2" | "gbk" | "gb2312" | "big5" | "sjis" | "cp932" | "euckr" => 2,
        _ => 1,
    };
    let digits = if meta > 0 { format!("({meta})") } else { String::new() };
    let members = || {
        let quoted = column.members.iter().flatten().map(|member| {
            let member = String::from_utf8_lossy(member).replace('\'', "''");
            format!("'{member}'")
        });
        quoted.collect::<Vec<_>>().join(",")
    };
    match column.code {
        code::TINY => format!("tinyint{sign}"),
        code::SHORT => format!("smallint{sign}"),
        code::INT24 => format!("mediumint{sign}"),
        code::LONG => format!("int{sign}"),
        code::LONGLONG => format!("bigint{sign}"),
        code::FLOAT => format!("float{sign}"),
        code::DOUBLE => format!("double{sign}"),
        code::NEWDECIMAL => format!("decimal({},{}){sign}", meta >> 8, meta & 0xff),
        code::YEAR => "year(4)".into(),
        code::BIT => format!("bit({})", (meta >> 8) * 8 + (meta & 0xff)),
        code::DATE | code::NEWDATE => "date".into(),
        code::TIME | code::TIME2 => format!("time{digits}"),
        code::DATETIME | code::DATETIME2 => format!("datetime{digits}"),
        code::TIMESTAMP | code::TIMESTAMP2 => format!("timestamp{digits}"),
        code::VARCHAR | code::VAR_STRING if binary => format!("varbinary({meta})"),
        code::VARCHAR | code::VAR_STRING => format!("varchar({})", meta / longest),
        code::VARCHAR_COMPRESSED if binary => format!("varbinary({})", meta.saturating_sub(1)),
        code::VARCHAR_COMPRESSED => format!("varchar({})", meta.saturating_sub(1) / longest),
        code::STRING if binary => format!("binary({meta})"),
        code::STRING => format!("char({})", meta / longest),
        code::TINY_BLOB | code::BLOB | code::MEDIUM_BLOB | code::LONG_BLOB | code::BLOB_COMPRESSED => {
            let size = ["", "tiny", "", "medium", "long"].get(usize::from(meta)).copied().unwrap_or_default();
            format!("{size}{}", if binary { "blob" } else { "text" })
        }
        code::ENUM => format!("enum({})", members()),
        code::SET => format!("set({})", members()),
        code::JSON => "json".into(),
        code::VECTOR => column.dimensions.map_or_else(|| "vector".into(), |dimensions| format!("vector({dimensions})")),
        code::GEOMETRY => "geometry".into(),
        other => format!("type {other}"),
    }
}

/// The members in `enum('a','it''s')`.
fn members_of(column_type: &str) -> Vec<String> {
    let mut members = Vec::new();
    let mut rest = column_type.chars().peekable();
    while rest.by_ref().any(|character| character == '\'') {
        let mut member = String::new();
        while let Some(character) = rest.next() {
            if character == '\'' && rest.next_if_eq(&'\'').is_none() {
                break;
            }
            member.push(character);
        }
        members.push(member);
    }
    members
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_that_only_the_log_has_are_told_if_there_is_one_way() {
        let column = |code: u8, nullable| MapColumn {
            code,
            meta: 0,
            nullable,
            unsigned: None,
            collation: None,
            name: None,
            members: None,
            dimensions: None,
        };
        let of = |columns: &[(u8, bool)], hinted: &[&str], expressions| {
            let columns: Vec<_> = columns.iter().map(|&(code, nullable)| column(code, nullable)).collect();
            let hint = |name: &&str| CatalogColumn { data_type: (*name).into(), ..CatalogColumn::default() };
            let hinted: Vec<_> = hinted.iter().map(hint).collect();
            let fits = |column: &MapColumn, hint: &CatalogColumn| match column.code {
                code::LONG => hint.data_type == "int",
                _ => hint.data_type == "bigint",
            };
            placed(&columns, &hinted, expressions, fits)
        };
        let (int, big) = ((code::LONG, true), (code::LONGLONG, true));
        assert_eq!(of(&[int, big, int], &["int", "int"], 1), [Some(0), None, Some(1)]);
        assert_eq!(of(&[int, big], &["int", "bigint"], 0), [Some(0), Some(1)]);
        assert_eq!(of(&[int, int, big], &["int"], 2), [], "two ways");
        assert_eq!(of(&[int, big, int], &["int", "int"], 0), [], "no expression explains it");
        assert_eq!(of(&[int, (code::LONGLONG, false)], &["int"], 1), [], "a hidden column may be null");
        assert_eq!(of(&[int], &["int", "int"], 0), []);
    }

    #[test]
    fn members_may_contain_quotes_and_commas() {
        assert_eq!(members_of("enum('a','it''s','b,c','')"), ["a", "it's", "b,c", ""]);
        assert!(members_of("int(11)").is_empty());
    }
}
