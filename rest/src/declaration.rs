//! The body of `PUT /schema/:table`.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::insert_body::trim;
use crate::problem::Problem;
use crate::{Code, Column, ColumnType};

/// What a user declares of a table. Whether it is a schema (a key that exists, no column twice, …) and compatible, the
/// engine decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declaration {
    /// The columns in order, with what was left out filled in.
    pub columns: Vec<Column>,
    /// The names of the key's columns, in key order.
    pub primary_key: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body<'a> {
    /// Raw, because serde would take a column for an array of its members too.
    #[serde(borrow)]
    columns: Vec<&'a RawValue>,
    #[serde(rename = "primaryKey")]
    primary_key: Option<Vec<String>>,
    /// As `GET /schema/:table` shows it, so that what was read can be changed and sent back.
    name: Option<String>,
    /// The same; versions are counted by the engine.
    #[serde(rename = "version")]
    _version: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ColumnBody {
    name: String,
    #[serde(rename = "type")]
    column_type: ColumnType,
    nullable: Option<bool>,
}

impl Declaration {
    /// Takes a whole body, sent for a table. The key is `id` unless said otherwise, and a column is nullable unless it
    /// is said not to be or belongs to the key. `name` may be there if it is the table's, and `version`, which is not
    /// looked at: a schema can be sent back as it was read.
    pub fn parse(body: &[u8], table: &str) -> Result<Self, Problem> {
        let body: Body<'_> = object(body, Code::InvalidSchema, "the declaration")?;
        if let Some(name) = body.name.filter(|name| name != table) {
            let message = format!("the declaration is of table `{}`, but sent for `{table}`", cut(name));
            return Err(Problem::new(Code::InvalidSchema, message));
        }
        let primary_key = body.primary_key.unwrap_or_else(|| vec!["id".to_owned()]);
        let columns = body.columns.iter().enumerate().map(|(at, raw)| {
            let what = format!("column {}", at + 1);
            let column: ColumnBody = object(raw.get().as_bytes(), Code::InvalidSchema, &what)?;
            let nullable = column.nullable.unwrap_or_else(|| !primary_key.contains(&column.name));
            Ok(Column { name: column.name, column_type: column.column_type, nullable, native_type: None })
        });
        Ok(Self { columns: columns.collect::<Result<_, Problem>>()?, primary_key })
    }
}

/// Reads a JSON object with known members. Text that is not JSON is `invalid-json`, JSON that says something else is
/// the given code.
pub(crate) fn object<'a, T: Deserialize<'a>>(body: &'a [u8], code: Code, what: &str) -> Result<T, Problem> {
    let body = trim(body);
    if matches!(body.first(), Some(b'[' | b'"' | b'0'..=b'9' | b'-' | b't' | b'f' | b'n')) {
        return Err(Problem::new(code, format!("{what} is not a JSON object")));
    }
    serde_json::from_slice(body).map_err(|error| {
        let code = if error.is_data() { code } else { Code::InvalidJson };
        Problem::new(code, format!("{what} is not acceptable: {}", cut(error.to_string())))
    })
}

/// A message of serde may hold a name that the client chose.
fn cut(mut message: String) -> String {
    const MOST_BYTES: usize = 256;
    if message.len() > MOST_BYTES {
        message.truncate(message.floor_char_boundary(MOST_BYTES));
        message.push('…');
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(body: &str) -> Problem {
        match Declaration::parse(body.as_bytes(), "t") {
            Ok(declaration) => panic!("{body} became {declaration:?}"),
            Err(problem) => problem,
        }
    }

    #[test]
    fn what_is_left_out_is_filled_in() {
        let body = br#" {"columns":[{"name":"id","type":"string"},{"name":"age","type":"number"},
            {"name":"on","type":"boolean","nullable":false}]} "#;
        let column =
            |name: &str, column_type, nullable| Column { name: name.into(), column_type, nullable, native_type: None };
        let expected = Declaration {
            columns: vec![
                column("id", ColumnType::String, false),
                column("age", ColumnType::Number, true),
                column("on", ColumnType::Boolean, false),
            ],
            primary_key: vec!["id".into()],
        };
        assert_eq!(Declaration::parse(body, "t"), Ok(expected));
    }

    #[test]
    fn a_key_may_be_composite_and_every_type_is_known() {
        let body = br#"{"primaryKey":["a","b"],"columns":[{"type":"any","name":"b"},{"name":"a","type":"object"},
            {"name":"c","type":"array","nullable":null}]}"#;
        let declaration = Declaration::parse(body, "t").unwrap_or_else(|problem| panic!("{problem}"));
        assert_eq!(declaration.primary_key, ["a", "b"]);
        assert_eq!(declaration.columns.iter().map(|column| column.nullable).collect::<Vec<_>>(), [false, false, true]);
    }

    #[test]
    fn a_schema_is_taken_as_it_is_shown_but_for_its_own_table_only() {
        let shown = r#"{"name":"t","columns":[{"name":"id","type":"any"}],"primaryKey":["id"],"version":3}"#;
        assert!(Declaration::parse(shown.as_bytes(), "t").is_ok());
        let problem = refusal(&shown.replace(r#""t""#, r#""u""#));
        assert_eq!(problem.code(), Code::InvalidSchema);
        assert!(problem.detail().contains("`u`") && problem.detail().contains("`t`"), "{problem}");
        assert!(refusal(&shown.replace(r#""t""#, &format!("{:?}", "x".repeat(10_000)))).detail().len() < 400);
    }

    #[test]
    fn unknown_members_are_refused_by_name() {
        let problem = refusal(r#"{"columns":[],"indexes":2}"#);
        assert_eq!(problem.code(), Code::InvalidSchema);
        assert!(problem.detail().contains("unknown field `indexes`"), "{problem}");
        let problem = refusal(r#"{"columns":[{"name":"a","type":"string"},{"name":"b","type":"string","default":0}]}"#);
        assert!(problem.detail().contains("column 2") && problem.detail().contains("`default`"), "{problem}");
        assert!(refusal(&format!(r#"{{"{}":1}}"#, "x".repeat(10_000))).detail().len() < 400);
    }

    #[test]
    fn what_is_no_declaration_is_refused() {
        for body in [
            "[]",
            "null",
            "7",
            "\"x\"",
            "{}",
            r#"{"columns":{}}"#,
            r#"{"columns":[["id","string",false]]}"#,
            r#"{"columns":[{"name":"a"}]}"#,
            r#"{"columns":[{"name":"a","type":"date"}]}"#,
            r#"[[],["id"]]"#,
            r#"{"columns":[{"name":"a","type":"string","nullable":"no"}]}"#,
            r#"{"columns":[],"columns":[]}"#,
            r#"{"columns":[{"name":"a","name":"b","type":"any"}]}"#,
            r#"{"columns":[],"primaryKey":"id"}"#,
            r#"{"columns":[null]}"#,
        ] {
            assert_eq!(refusal(body).code(), Code::InvalidSchema, "{body}");
        }
        for body in ["", "{", "x", r#"{"columns":[]} {}"#] {
            assert_eq!(refusal(body).code(), Code::InvalidJson, "{body}");
        }
        let deep = format!(r#"{{"columns":[{}]}}"#, "[".repeat(20_000));
        assert_eq!(refusal(&deep).code(), Code::InvalidJson);
    }
}
