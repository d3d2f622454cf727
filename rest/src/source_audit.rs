//! Audits of sources and of replicas: what is asked for, and what `GET /sources/:name/audit` and
//! `GET /subscriptions/:id/audit` answer.

use crate::members::{self, Members};
use crate::{Code, Problem, json};

/// The most tables that are named.
const MAX_TABLES: usize = 10_000;

/// The body of `POST /sources/:name/audit`: `{"tables": ["public.users"], "mend": true}`, or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditRequest {
    /// The tables to compare, by the names under which they are captured; every table, if none is named.
    pub tables: Vec<String>,
    /// Whether rows that differ are brought to what the database has.
    pub mends: bool,
}

impl AuditRequest {
    /// Takes a whole body, which may be empty.
    pub fn parse(body: &[u8]) -> Result<Self, Problem> {
        Self::parse_with(body, &["tables", "mend"])
    }

    /// The same of a replica, which is compared and not mended: `{"tables": ["users"]}`, or nothing.
    pub fn parse_of_subscription(body: &[u8]) -> Result<Self, Problem> {
        Self::parse_with(body, &["tables"])
    }

    /// The same where the path names the table.
    pub fn parse_of_table(body: &[u8], table: String) -> Result<Self, Problem> {
        let request = Self::parse_with(body, &["mend"])?;
        Ok(Self { tables: vec![table], ..request })
    }

    fn parse_with(body: &[u8], known: &[&str]) -> Result<Self, Problem> {
        const EXPECTED: &str = "an array of names of tables, as they are captured";
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::default());
        }
        let value = members::json(body)?;
        let members = Members::of(&value, "", "the audit", known, Code::InvalidBody)?;
        let mut tables = Vec::new();
        for value in members.list("tables", EXPECTED, MAX_TABLES)? {
            let name = value.as_str().ok_or_else(|| members.wrong("tables", EXPECTED, value))?;
            tables.push(name.to_owned());
        }
        Ok(Self { tables, mends: members.flag("mend")?.unwrap_or(false) })
    }
}

/// How far an audit is, of a source or of one of its tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AuditState {
    /// There was none.
    None,
    /// Its turn comes.
    Waiting,
    /// Rows are being compared.
    Running,
    /// Every row is the database's.
    Equal,
    /// Some are not, or were not.
    Different,
    /// Not every row could be compared.
    Unfinished,
}

impl AuditState {
    /// The word that answers show.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Equal => "equal",
            Self::Different => "different",
            Self::Unfinished => "unfinished",
        }
    }

    /// Whether nothing more comes of it.
    pub fn is_over(self) -> bool {
        !matches!(self, Self::Waiting | Self::Running)
    }
}

/// How a row differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DifferenceKind {
    /// The database has it.
    MissingHere,
    /// The database does not have it.
    OnlyHere,
    /// Both have it, with other values.
    Differs,
}

impl DifferenceKind {
    /// The word that answers show.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MissingHere => "missing-here",
            Self::OnlyHere => "only-here",
            Self::Differs => "differs",
        }
    }
}

/// A row that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditDifference {
    /// Its key, as events have it.
    pub key: String,
    /// How it differs.
    pub kind: DifferenceKind,
    /// The row here, as JSON; none if it is missing, or too long to be kept.
    pub here: Option<String>,
    /// The row of the database, as JSON; none if it is missing, or too long to be kept.
    pub there: Option<String>,
}

/// What the audit of one table has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableAudit {
    /// The name under which it is captured.
    pub table: String,
    /// How far it is.
    pub state: AuditState,
    /// A stable word for why it could not be compared.
    pub code: Option<String>,
    /// The same for a person.
    pub reason: Option<String>,
    /// How its rows were compared: `sums` that the database computed, or `rows`.
    pub by: Option<&'static str>,
    /// How many rows were compared.
    pub rows: u64,
    /// How many of them differ.
    pub differences: u64,
    /// How many of those were brought to what the database has.
    pub mended: u64,
    /// When it began, in ms since 1970.
    pub began_at_ms: Option<u64>,
    /// When it ended.
    pub ended_at_ms: Option<u64>,
    /// The first of the rows that differ.
    pub shown: Vec<AuditDifference>,
}

/// The audit of a source, or of a subscription's replica, that goes on or was the last one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceAudit {
    /// The source, or the subscription.
    pub source: String,
    /// How far it is: over all tables.
    pub state: AuditState,
    /// Whether rows that differ are mended.
    pub mends: bool,
    /// When it began, in ms since 1970.
    pub began_at_ms: Option<u64>,
    /// When it ended.
    pub ended_at_ms: Option<u64>,
    /// Its tables, by name.
    pub tables: Vec<TableAudit>,
}

/// Writes the answer to `GET /sources/:name/audit`. Times that have not come are null; of a table what there is nothing to
/// say of is left out.
pub fn write_source_audit(out: &mut Vec<u8>, audit: &SourceAudit) {
    write(out, b"{\"source\":", Some(audit.mends), audit);
}

/// Writes the answer to `GET /subscriptions/:id/audit`: `here` is the row that the replica should have.
pub fn write_subscription_audit(out: &mut Vec<u8>, audit: &SourceAudit) {
    write(out, b"{\"subscription\":", None, audit);
}

fn write(out: &mut Vec<u8>, of: &[u8], mends: Option<bool>, audit: &SourceAudit) {
    out.extend_from_slice(of);
    json::string(out, &audit.source);
    out.extend_from_slice(b",\"state\":");
    json::string(out, audit.state.as_str());
    if let Some(mends) = mends {
        out.extend_from_slice(b",\"mend\":");
        json::boolean(out, mends);
    }
    for (name, time) in [(&b",\"beganAt\":"[..], audit.began_at_ms), (b",\"endedAt\":", audit.ended_at_ms)] {
        out.extend_from_slice(name);
        match time {
            Some(time) => json::integer(out, time),
            None => out.extend_from_slice(b"null"),
        }
    }
    let sum = |count: fn(&TableAudit) -> u64| audit.tables.iter().map(count).sum::<u64>();
    member(out, b",\"rows\":", sum(|table| table.rows));
    member(out, b",\"differences\":", sum(|table| table.differences));
    if mends.is_some() {
        member(out, b",\"mended\":", sum(|table| table.mended));
    }
    out.extend_from_slice(b",\"tables\":[");
    json::list(out, &audit.tables, |out, table| write_table(out, table, mends.is_some()));
    out.extend_from_slice(b"]}");
}

fn write_table(out: &mut Vec<u8>, table: &TableAudit, may_mend: bool) {
    out.extend_from_slice(b"{\"table\":");
    json::string(out, &table.table);
    out.extend_from_slice(b",\"state\":");
    json::string(out, table.state.as_str());
    for (name, text) in [
        (&b",\"code\":"[..], table.code.as_deref()),
        (b",\"reason\":", table.reason.as_deref()),
        (b",\"by\":", table.by),
    ] {
        if let Some(text) = text {
            out.extend_from_slice(name);
            json::string(out, text);
        }
    }
    for (name, time) in [(&b",\"beganAt\":"[..], table.began_at_ms), (b",\"endedAt\":", table.ended_at_ms)] {
        if let Some(time) = time {
            member(out, name, time);
        }
    }
    member(out, b",\"rows\":", table.rows);
    member(out, b",\"differences\":", table.differences);
    if may_mend {
        member(out, b",\"mended\":", table.mended);
    }
    if !table.shown.is_empty() {
        out.extend_from_slice(b",\"shown\":[");
        json::list(out, &table.shown, write_difference);
        out.push(b']');
    }
    out.push(b'}');
}

fn write_difference(out: &mut Vec<u8>, difference: &AuditDifference) {
    out.extend_from_slice(b"{\"key\":");
    json::string(out, &difference.key);
    out.extend_from_slice(b",\"kind\":");
    json::string(out, difference.kind.as_str());
    for (name, image) in [(&b",\"here\":"[..], &difference.here), (b",\"there\":", &difference.there)] {
        if let Some(image) = image {
            out.extend_from_slice(name);
            // JSON already.
            out.extend_from_slice(image.as_bytes());
        }
    }
    out.push(b'}');
}

fn member(out: &mut Vec<u8>, before: &[u8], value: u64) {
    out.extend_from_slice(before);
    json::integer(out, value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::assert_golden;

    fn table(name: &str, state: AuditState) -> TableAudit {
        TableAudit {
            table: name.to_owned(),
            state,
            code: None,
            reason: None,
            by: None,
            rows: 0,
            differences: 0,
            mended: 0,
            began_at_ms: None,
            ended_at_ms: None,
            shown: Vec::new(),
        }
    }

    #[test]
    fn an_audit_shows_each_table_and_the_rows_that_differ() {
        let difference = |key: &str, kind, here: Option<&str>, there: Option<&str>| AuditDifference {
            key: key.to_owned(),
            kind,
            here: here.map(str::to_owned),
            there: there.map(str::to_owned),
        };
        let different = TableAudit {
            by: Some("sums"),
            rows: 1_000,
            differences: 3,
            mended: 3,
            began_at_ms: Some(1_764_000_000_000),
            ended_at_ms: Some(1_764_000_000_500),
            shown: vec![
                difference("7", DifferenceKind::Differs, Some(r#"{"id":7,"n":1}"#), Some(r#"{"id":7,"n":2}"#)),
                difference("8", DifferenceKind::MissingHere, None, Some(r#"{"id":8,"n":1.10}"#)),
                difference("9", DifferenceKind::OnlyHere, Some(r#"{"id":9,"n":null}"#), None),
            ],
            ..table("public.orders", AuditState::Different)
        };
        let stopped = TableAudit {
            code: Some("stopped".to_owned()),
            reason: Some("it is not followed".to_owned()),
            ..table("public.notes", AuditState::Unfinished)
        };
        let audit = SourceAudit {
            source: "shop".to_owned(),
            state: AuditState::Running,
            mends: true,
            began_at_ms: Some(1_764_000_000_000),
            ended_at_ms: None,
            tables: vec![stopped, different, table("public.users", AuditState::Waiting)],
        };
        let mut out = Vec::new();
        write_source_audit(&mut out, &audit);
        assert_golden("source-audit.json", &out);
        let none =
            SourceAudit { state: AuditState::None, mends: false, began_at_ms: None, tables: Vec::new(), ..audit };
        let mut out = Vec::new();
        write_source_audit(&mut out, &none);
        assert_golden("source-audit-none.json", &out);
    }

    #[test]
    fn an_audit_is_asked_for_with_or_without_a_body() {
        let parse = |body: &str| AuditRequest::parse(body.as_bytes());
        let request = |tables: &[&str], mends| AuditRequest {
            tables: tables.iter().map(|&table| table.to_owned()).collect(),
            mends,
        };
        assert_eq!(parse(""), Ok(request(&[], false)));
        assert_eq!(parse("{}"), Ok(request(&[], false)));
        assert_eq!(parse(r#"{"tables":["a.b","c"],"mend":true}"#), Ok(request(&["a.b", "c"], true)));
        for (body, member) in [
            (r#"{"tables":"a"}"#, "tables"),
            (r#"{"tables":[1]}"#, "tables"),
            (r#"{"mend":1}"#, "mend"),
            (r#"{"x":1}"#, "x"),
        ] {
            let problem = parse(body).err().unwrap_or_else(|| panic!("{body} was taken"));
            assert_eq!(problem.code(), Code::InvalidBody, "{problem}");
            assert!(problem.detail().contains(&format!("`{member}`")), "{problem}");
        }
        let of_table = |body: &str| AuditRequest::parse_of_table(body.as_bytes(), "t".to_owned());
        assert_eq!(of_table(r#"{"mend":true}"#), Ok(request(&["t"], true)));
        assert!(of_table(r#"{"tables":["t"]}"#).is_err());
    }
}
