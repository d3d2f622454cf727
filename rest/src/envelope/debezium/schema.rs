//! Schemas beside payloads, as Kafka Connect's JSON converter writes them.

use super::Family;
use super::form::{ColumnForm, Form};
use crate::envelope::Subject;
use crate::{Column, json};

/// Writes the schema of a value.
pub(super) fn write_value(out: &mut Vec<u8>, subject: &Subject<'_>) {
    let base = base_name(subject);
    out.extend_from_slice(b"{\"type\":\"struct\",\"fields\":[");
    for field in ["before", "after"] {
        out.extend_from_slice(b"{\"type\":\"struct\",\"fields\":[");
        write_columns(out, subject, &subject.schema.columns.iter().collect::<Vec<_>>(), false);
        out.extend_from_slice(b"],\"optional\":true,\"name\":");
        json::string(out, &format!("{base}.Value"));
        out.extend_from_slice(b",\"field\":");
        json::string(out, field);
        out.extend_from_slice(b"},");
    }
    out.extend_from_slice(source(subject));
    out.extend_from_slice(
        concat!(
            r#",{"type":"struct","fields":[{"type":"string","optional":false,"field":"id"},"#,
            r#"{"type":"int64","optional":false,"field":"total_order"},"#,
            r#"{"type":"int64","optional":false,"field":"data_collection_order"}],"#,
            r#""optional":true,"name":"event.block","version":1,"field":"transaction"},"#,
            r#"{"type":"string","optional":false,"field":"op"},"#,
            r#"{"type":"int64","optional":true,"field":"ts_ms"},"#,
            r#"{"type":"int64","optional":true,"field":"ts_us"},"#,
            r#"{"type":"int64","optional":true,"field":"ts_ns"}],"optional":false,"name":"#,
        )
        .as_bytes(),
    );
    json::string(out, &format!("{base}.Envelope"));
    out.extend_from_slice(b",\"version\":2}");
}

/// Writes the schema of a key.
pub(super) fn write_key(out: &mut Vec<u8>, subject: &Subject<'_>) {
    let column = |name: &String| subject.schema.columns.iter().find(|column| column.name == *name);
    let columns: Vec<&Column> = subject.schema.primary_key.iter().filter_map(column).collect();
    out.extend_from_slice(b"{\"type\":\"struct\",\"fields\":[");
    write_columns(out, subject, &columns, true);
    out.extend_from_slice(b"],\"optional\":false,\"name\":");
    json::string(out, &format!("{}.Key", base_name(subject)));
    out.push(b'}');
}

/// `<source>.<schema>.<table>`.
fn base_name(subject: &Subject<'_>) -> String {
    match &subject.schema.relation {
        Some(relation) => format!("{}.{}.{}", subject.source(), relation.namespace, relation.name),
        None => format!("{}.{}", subject.source(), subject.schema.name),
    }
}

fn write_columns(out: &mut Vec<u8>, subject: &Subject<'_>, columns: &[&Column], is_key: bool) {
    let is_postgres = Family::of(subject.schema) == Family::Postgres;
    json::list(out, columns, |out, column| {
        let ColumnForm { form, is_array, .. } = ColumnForm::of(column, is_postgres);
        let is_optional = column.nullable && !is_key;
        if is_array {
            out.extend_from_slice(b"{\"type\":\"array\",\"items\":");
            write_type(out, form, true);
            out.extend_from_slice(b"},\"optional\":");
            json::boolean(out, is_optional);
        } else {
            write_type(out, form, is_optional);
        }
        out.extend_from_slice(b",\"field\":");
        json::string(out, &column.name);
        out.push(b'}');
    });
}

/// Writes a type as an object that is still open.
fn write_type(out: &mut Vec<u8>, form: Form, is_optional: bool) {
    let (literal, semantic) = match form {
        Form::Boolean | Form::Bits(Some(1)) => ("boolean", None),
        Form::Int16 => ("int16", None),
        Form::Int32 => ("int32", None),
        Form::Int64 => ("int64", None),
        Form::Float => ("float", None),
        Form::Double => ("double", None),
        Form::Decimal | Form::Text => ("string", None),
        Form::Json => ("string", Some("io.debezium.data.Json")),
        Form::Bytes => ("bytes", None),
        Form::Bits(_) => ("bytes", Some("io.debezium.data.Bits")),
        Form::Date => ("string", Some("io.debezium.time.IsoDate")),
        Form::Time => ("string", Some("io.debezium.time.IsoTime")),
        Form::Timestamp => ("string", Some("io.debezium.time.IsoTimestamp")),
        Form::ZonedTimestamp => ("string", Some("io.debezium.time.ZonedTimestamp")),
        Form::ZonedTime => ("string", Some("io.debezium.time.ZonedTime")),
        Form::Interval => ("string", Some("io.debezium.time.Interval")),
        Form::Year => ("int32", Some("io.debezium.time.Year")),
        Form::Uuid => ("string", Some("io.debezium.data.Uuid")),
        Form::Xml => ("string", Some("io.debezium.data.Xml")),
        Form::Set => ("string", Some("io.debezium.data.EnumSet")),
        Form::Geometry => ("struct", Some("io.debezium.data.geometry.Geometry")),
    };
    out.extend_from_slice(b"{\"type\":");
    json::string(out, literal);
    if form == Form::Geometry {
        out.extend_from_slice(
            concat!(
                r#","fields":[{"type":"bytes","optional":false,"field":"wkb"},"#,
                r#"{"type":"int32","optional":true,"field":"srid"}]"#
            )
            .as_bytes(),
        );
    }
    out.extend_from_slice(b",\"optional\":");
    json::boolean(out, is_optional);
    if let Some(semantic) = semantic {
        out.extend_from_slice(b",\"name\":");
        json::string(out, semantic);
        out.extend_from_slice(b",\"version\":1");
    }
    match form {
        // As Debezium has it for `bit varying` without a length.
        Form::Bits(length) if length != Some(1) => {
            let length = length.unwrap_or(i32::MAX.unsigned_abs());
            out.extend_from_slice(format!(",\"parameters\":{{\"length\":\"{length}\"}}").as_bytes());
        }
        _ => {}
    }
}

/// The schema of the `source` block.
fn source(subject: &Subject<'_>) -> &'static [u8] {
    macro_rules! schema {
        ($name:literal, $($fields:literal),*) => {
            concat!(
                r#"{"type":"struct","fields":[{"type":"string","optional":false,"field":"version"},"#,
                r#"{"type":"string","optional":false,"field":"connector"},"#,
                r#"{"type":"string","optional":false,"field":"name"},"#,
                r#"{"type":"int64","optional":false,"field":"ts_ms"},"#,
                r#"{"type":"string","optional":true,"name":"io.debezium.data.Enum","version":1,"#,
                r#""parameters":{"allowed":"true,first,first_in_data_collection,last_in_data_collection,last,false,incremental"},"#,
                r#""default":"false","field":"snapshot"},"#,
                r#"{"type":"string","optional":false,"field":"db"},"#,
                r#"{"type":"string","optional":true,"field":"sequence"},"#,
                r#"{"type":"int64","optional":true,"field":"ts_us"},"#,
                r#"{"type":"int64","optional":true,"field":"ts_ns"},"#,
                $($fields,)*
                r#"],"optional":false,"name":""#, $name, r#"","version":1,"field":"source"}"#
            ).as_bytes()
        };
    }
    macro_rules! binlog {
        ($name:literal) => {
            schema!(
                $name,
                r#"{"type":"string","optional":true,"field":"table"},"#,
                r#"{"type":"int64","optional":false,"field":"server_id"},"#,
                r#"{"type":"string","optional":true,"field":"gtid"},"#,
                r#"{"type":"string","optional":false,"field":"file"},"#,
                r#"{"type":"int64","optional":false,"field":"pos"},"#,
                r#"{"type":"int32","optional":false,"field":"row"},"#,
                r#"{"type":"int64","optional":true,"field":"thread"},"#,
                r#"{"type":"string","optional":true,"field":"query"}"#
            )
        };
    }
    let is_mariadb = subject.schema.relation.as_ref().is_some_and(|relation| relation.connector == "mariadb");
    match Family::of(subject.schema) {
        Family::Postgres => schema!(
            "io.debezium.connector.postgresql.Source",
            r#"{"type":"string","optional":false,"field":"schema"},"#,
            r#"{"type":"string","optional":false,"field":"table"},"#,
            r#"{"type":"int64","optional":true,"field":"txId"},"#,
            r#"{"type":"int64","optional":true,"field":"lsn"},"#,
            r#"{"type":"int64","optional":true,"field":"xmin"}"#
        ),
        Family::Binlog if is_mariadb => binlog!("io.debezium.connector.mariadb.Source"),
        Family::Binlog => binlog!("io.debezium.connector.mysql.Source"),
        Family::Own => schema!(
            "dev.cdc.Source",
            r#"{"type":"string","optional":false,"field":"schema"},"#,
            r#"{"type":"string","optional":false,"field":"table"}"#
        ),
    }
}
