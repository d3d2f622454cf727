//! What Debezium makes of a column: how its values are written, and how Kafka Connect's schema calls them.
//!
//! As Debezium has it with `decimal.handling.mode=string`, `time.precision.mode=isostring` and
//! `interval.handling.mode=string`; `binary.handling.mode` may be `bytes` or `base64`, which look alike in JSON.

use std::borrow::Cow;

use crate::{Column, ColumnType};

/// How a column's values are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Boolean,
    Int16,
    Int32,
    Int64,
    Float,
    Double,
    /// A string with the number's digits.
    Decimal,
    Text,
    /// A string that holds JSON.
    Json,
    Bytes,
    /// How many; none for `bit varying`.
    Bits(Option<u32>),
    Date,
    Time,
    Timestamp,
    ZonedTimestamp,
    ZonedTime,
    Interval,
    Year,
    Uuid,
    Xml,
    Set,
    Geometry,
}

/// A column's form; in an array that of the items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ColumnForm {
    pub(super) form: Form,
    pub(super) is_array: bool,
    /// It is a JSON column of a database, whose own null is told apart from SQL's.
    pub(super) is_marked: bool,
}

impl ColumnForm {
    /// Of a column of a table in a database of this kind.
    pub(super) fn of(column: &Column, is_postgres: bool) -> Self {
        // Those and no others have values of any type.
        let is_marked = column.native_type.is_some() && column.column_type == ColumnType::Any;
        Self { is_marked, ..Self::of_type(column, is_postgres) }
    }

    fn of_type(column: &Column, is_postgres: bool) -> Self {
        let kind = column.column_type;
        let Some(native) = &column.native_type else { return Self::of_kind(kind) };
        let native = match native.bytes().any(|byte| byte.is_ascii_uppercase()) {
            true => Cow::Owned(native.to_ascii_lowercase()),
            false => Cow::Borrowed(native.as_str()),
        };
        let (native, is_array) = match native.split_once('[') {
            Some((native, rest)) if rest.starts_with(']') => (native, true),
            _ => (native.as_ref(), false),
        };
        // What is in parentheses may stand in the middle: `timestamp(3) with time zone`.
        let (name, arguments, rest) = match native.split_once('(') {
            Some((name, rest)) => match rest.rsplit_once(')') {
                Some((arguments, rest)) => (name.trim(), arguments, rest.trim()),
                None => (name.trim(), rest, ""),
            },
            None => (native.trim(), "", ""),
        };
        let form = if is_postgres { postgres(name, arguments, rest) } else { binlog(name, arguments, rest) };
        let Some(form) = form else {
            // An enum, a domain, an extension's type. Of a domain's base we know the kind of its values only.
            let kind = if is_array { ColumnType::String } else { kind };
            return Self { is_array, ..Self::of_kind(kind) };
        };
        match kind {
            // A key, or hashed or redacted: a string whatever the type is.
            ColumnType::String if is_array || !form.is_string_in_images() => Self::plain(Form::Text),
            // MariaDB's JSON is a text for its catalog.
            ColumnType::Any | ColumnType::Object if form == Form::Text => Self::plain(Form::Json),
            _ => Self { is_array, ..Self::plain(form) },
        }
    }

    /// Of a column of which nothing else is known.
    fn of_kind(kind: ColumnType) -> Self {
        let form = match kind {
            ColumnType::String => Form::Text,
            ColumnType::Number => Form::Double,
            ColumnType::Boolean => Form::Boolean,
            ColumnType::Object | ColumnType::Array | ColumnType::Any => Form::Json,
        };
        Self::plain(form)
    }

    /// No array.
    pub(super) fn plain(form: Form) -> Self {
        Self { form, is_array: false, is_marked: false }
    }
}

impl Form {
    fn is_string_in_images(self) -> bool {
        match self {
            Self::Boolean | Self::Int16 | Self::Int32 | Self::Int64 | Self::Float | Self::Double | Self::Decimal => {
                false
            }
            Self::Json | Self::Year | Self::Set | Self::Geometry => false,
            // PostgreSQL's are, MariaDB's are not.
            Self::Bits(_) => true,
            Self::Text | Self::Bytes | Self::Date | Self::Time | Self::Timestamp | Self::ZonedTimestamp => true,
            Self::ZonedTime | Self::Interval | Self::Uuid | Self::Xml => true,
        }
    }
}

/// Names as `format_type` writes them, and the short ones.
fn postgres(name: &str, arguments: &str, rest: &str) -> Option<Form> {
    let with_zone = rest == "with time zone";
    Some(match name {
        "boolean" | "bool" => Form::Boolean,
        "smallint" | "int2" | "smallserial" => Form::Int16,
        "integer" | "int" | "int4" | "serial" => Form::Int32,
        "bigint" | "int8" | "oid" | "bigserial" => Form::Int64,
        "real" | "float4" => Form::Float,
        "double precision" | "float8" => Form::Double,
        "numeric" | "decimal" => Form::Decimal,
        "timestamp with time zone" | "timestamptz" => Form::ZonedTimestamp,
        "timestamp" if with_zone => Form::ZonedTimestamp,
        "timestamp" | "timestamp without time zone" => Form::Timestamp,
        "time with time zone" | "timetz" => Form::ZonedTime,
        "time" if with_zone => Form::ZonedTime,
        "time" | "time without time zone" => Form::Time,
        "date" => Form::Date,
        "interval" => Form::Interval,
        name if name.starts_with("interval ") => Form::Interval,
        "bytea" => Form::Bytes,
        "json" | "jsonb" => Form::Json,
        "uuid" => Form::Uuid,
        "xml" => Form::Xml,
        "bit" if rest == "varying" => Form::Bits(None),
        "bit varying" | "varbit" => Form::Bits(None),
        "bit" => Form::Bits(Some(arguments.parse().unwrap_or(1))),
        "character varying" | "varchar" | "character" | "char" | "bpchar" | "text" | "name" | "citext" => Form::Text,
        "money" | "inet" | "cidr" | "macaddr" | "macaddr8" | "tsvector" | "tsquery" | "\"char\"" => Form::Text,
        _ => return None,
    })
}

/// Names as the information schema writes them.
fn binlog(name: &str, arguments: &str, rest: &str) -> Option<Form> {
    let (name, is_unsigned) = match name.split_once(' ') {
        Some((name, rest)) => (name, rest.contains("unsigned")),
        None => (name, rest.contains("unsigned")),
    };
    Some(match name {
        "bool" | "boolean" | "tinyint" => Form::Int16,
        "smallint" if is_unsigned => Form::Int32,
        "smallint" => Form::Int16,
        "int" | "integer" if is_unsigned => Form::Int64,
        "mediumint" | "int" | "integer" => Form::Int32,
        "bigint" => Form::Int64,
        "float" => Form::Float,
        "double" | "real" => Form::Double,
        "decimal" | "numeric" => Form::Decimal,
        "timestamp" => Form::ZonedTimestamp,
        "datetime" => Form::Timestamp,
        "date" => Form::Date,
        "time" => Form::Time,
        "year" => Form::Year,
        "bit" => Form::Bits(Some(arguments.parse().unwrap_or(1))),
        "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => Form::Bytes,
        "json" => Form::Json,
        "set" => Form::Set,
        "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" | "enum" => Form::Text,
        "uuid" | "inet4" | "inet6" => Form::Text,
        "geometry" | "point" | "linestring" | "polygon" | "multipoint" | "multilinestring" | "multipolygon"
        | "geometrycollection" | "geomcollection" => Form::Geometry,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(native: &str, column_type: ColumnType, is_postgres: bool) -> (Form, bool) {
        let column = Column { name: "c".into(), column_type, nullable: true, native_type: Some(native.into()) };
        let ColumnForm { form, is_array, .. } = ColumnForm::of(&column, is_postgres);
        (form, is_array)
    }

    #[test]
    fn postgresql_types_are_known_by_their_long_and_short_names() {
        for (native, kind, expected) in [
            ("integer", ColumnType::Number, (Form::Int32, false)),
            ("int8", ColumnType::Number, (Form::Int64, false)),
            ("numeric(10,2)", ColumnType::Number, (Form::Decimal, false)),
            ("timestamp(3) with time zone", ColumnType::String, (Form::ZonedTimestamp, false)),
            ("timestamp(3) without time zone", ColumnType::String, (Form::Timestamp, false)),
            ("time with time zone", ColumnType::String, (Form::ZonedTime, false)),
            ("interval day to second(3)", ColumnType::String, (Form::Interval, false)),
            ("bit varying(5)", ColumnType::String, (Form::Bits(None), false)),
            ("bit(5)", ColumnType::String, (Form::Bits(Some(5)), false)),
            ("bit", ColumnType::String, (Form::Bits(Some(1)), false)),
            ("character varying(20)[]", ColumnType::Array, (Form::Text, true)),
            ("numeric(10,2)[][]", ColumnType::Array, (Form::Decimal, true)),
            ("mood", ColumnType::String, (Form::Text, false)),
            ("mood[]", ColumnType::Array, (Form::Text, true)),
            ("a_domain", ColumnType::Number, (Form::Double, false)),
        ] {
            assert_eq!(form(native, kind, true), expected, "{native}");
        }
    }

    #[test]
    fn mariadb_types_are_known_with_lengths_and_signs() {
        for (native, kind, expected) in [
            ("tinyint(1)", ColumnType::Number, Form::Int16),
            ("int(10) unsigned zerofill", ColumnType::Number, Form::Int64),
            ("int unsigned", ColumnType::Number, Form::Int64),
            ("smallint(5) unsigned", ColumnType::Number, Form::Int32),
            ("decimal(10,2)", ColumnType::Number, Form::Decimal),
            ("datetime(6)", ColumnType::String, Form::Timestamp),
            ("timestamp", ColumnType::String, Form::ZonedTimestamp),
            ("bit(8)", ColumnType::Number, Form::Bits(Some(8))),
            ("set('a)','b')", ColumnType::Array, Form::Set),
            ("enum('[]','(')", ColumnType::String, Form::Text),
            ("longtext", ColumnType::Any, Form::Json),
            ("longtext", ColumnType::String, Form::Text),
        ] {
            assert_eq!(form(native, kind, false).0, expected, "{native}");
        }
    }

    #[test]
    fn what_is_a_string_in_images_stays_one() {
        for native in ["integer", "numeric", "jsonb", "boolean", "integer[]"] {
            assert_eq!(form(native, ColumnType::String, true), (Form::Text, false), "{native}");
        }
    }
}
