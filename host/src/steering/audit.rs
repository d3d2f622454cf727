//! `cdc source audit` and `cdc subscription audit`: have a running service compare a source's tables with the database's,
//! or a replica's with those here, wait for that, and tell what came of it.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use cdc_rest::path_segment;
use clap::Args;
use http::Method;
use serde_json::{Value, json};

use super::{Asked, SteeringError, ask, text};

/// How often the service is asked how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What is compared.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Audited {
    /// The source
    #[arg(value_name = "NAME")]
    pub name: String,

    /// One of its tables, by the name under which it is captured [default: all of them]
    #[arg(value_name = "TABLE")]
    pub table: Option<String>,

    /// Bring rows that differ to what the database has, by events
    #[arg(long)]
    pub mend: bool,

    /// Begin, and do not wait for the end
    #[arg(long, conflicts_with = "show")]
    pub no_wait: bool,

    /// Show what is found so far, or was found the last time, and begin nothing
    #[arg(long, conflicts_with = "mend")]
    pub show: bool,
}

/// Which replica is compared.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct AuditedReplica {
    /// The subscription
    #[arg(value_name = "NAME")]
    pub name: String,

    /// One of its tables, by the name that events have [default: all of them]
    #[arg(value_name = "TABLE")]
    pub table: Option<String>,

    /// Begin, and do not wait for the end
    #[arg(long, conflicts_with = "show")]
    pub no_wait: bool,

    /// Show what is found so far, or was found the last time, and begin nothing
    #[arg(long)]
    pub show: bool,
}

impl From<AuditedReplica> for Audited {
    fn from(AuditedReplica { name, table, no_wait, show }: AuditedReplica) -> Self {
        Self { name, table, mend: false, no_wait, show }
    }
}

/// Whose rows are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditOf {
    /// A source's, with its database's.
    Source,
    /// A replica's, with those here.
    Subscription,
}

/// An audit with the service that does it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditCommand {
    /// Of what.
    pub of: AuditOf,
    /// What is compared.
    pub what: Audited,
    /// By whom.
    pub asked: Asked,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditOutcome {
    /// Every row is the database's; or nobody waited.
    Equal,
    /// Rows differ, or did before they were mended.
    Different,
    /// Not every row could be compared.
    Unfinished,
}

impl AuditCommand {
    /// Asks, and gives `print` what is to be printed as it comes.
    pub async fn say(self, mut print: impl FnMut(&str) -> Result<(), String>) -> Result<AuditOutcome, SteeringError> {
        let Self { of, what, asked: Asked { url, json } } = self;
        let failed = |reason: String| SteeringError { url: url.clone(), reason };
        let (method, path, body) = what.request(of);
        let (mut bytes, mut answer) = ask(&url, method, &path, body).await?;
        let mut told = BTreeSet::new();
        loop {
            let is_over = what.is_over(&answer);
            if !json {
                print(&what.news(&answer, &mut told)).map_err(failed)?;
            }
            if is_over || what.show || what.no_wait {
                break;
            }
            tokio::time::sleep(LOOK_EVERY).await;
            (bytes, answer) = ask(&url, Method::GET, &what.audit_path(of), None).await?;
        }
        let said = if json { format!("{}\n", String::from_utf8_lossy(&bytes)) } else { what.summary(&answer) };
        print(&said).map_err(failed)?;
        Ok(match what.state(&answer) {
            "different" => AuditOutcome::Different,
            "running" | "waiting" if what.no_wait => AuditOutcome::Equal,
            "equal" => AuditOutcome::Equal,
            _ => AuditOutcome::Unfinished,
        })
    }
}

impl Audited {
    fn audit_path(&self, of: AuditOf) -> String {
        let of = match of {
            AuditOf::Source => "sources",
            AuditOf::Subscription => "subscriptions",
        };
        format!("/{of}/{}/audit", path_segment(&self.name))
    }

    fn request(&self, of: AuditOf) -> (Method, String, Option<Bytes>) {
        if self.show {
            return (Method::GET, self.audit_path(of), None);
        }
        if of == AuditOf::Subscription {
            let tables: Vec<&String> = self.table.iter().collect();
            return (Method::POST, self.audit_path(of), Some(json!({ "tables": tables }).to_string().into()));
        }
        let path = match &self.table {
            Some(table) => format!("/sources/{}/tables/{}/audit", path_segment(&self.name), path_segment(table)),
            None => self.audit_path(of),
        };
        (Method::POST, path, Some(json!({ "mend": self.mend }).to_string().into()))
    }

    /// The tables that were asked for, as the answer has them.
    fn tables<'a>(&'a self, answer: &'a Value) -> impl Iterator<Item = &'a Value> {
        let all = answer["tables"].as_array().map_or(&[][..], Vec::as_slice);
        all.iter().filter(|found| self.table.as_ref().is_none_or(|table| text(found, "table") == table))
    }

    /// How it stands: of the table, if one is named.
    fn state<'a>(&'a self, answer: &'a Value) -> &'a str {
        match &self.table {
            Some(_) => self.tables(answer).next().map_or("none", |table| text(table, "state")),
            None => text(answer, "state"),
        }
    }

    fn is_over(&self, answer: &Value) -> bool {
        !matches!(self.state(answer), "running" | "waiting")
    }

    /// A line for each table that is through and was not told yet, and lines for its rows that differ.
    fn news(&self, answer: &Value, told: &mut BTreeSet<String>) -> String {
        let mut out = String::new();
        for table in self.tables(answer) {
            let state = text(table, "state");
            if matches!(state, "running" | "waiting") || !told.insert(text(table, "table").to_owned()) {
                continue;
            }
            out.push_str(&of_table(table));
        }
        out
    }

    fn summary(&self, answer: &Value) -> String {
        let count = |name: &str| -> u64 { self.tables(answer).filter_map(|table| table[name].as_u64()).sum() };
        let (rows, differences, mended) = (count("rows"), count("differences"), count("mended"));
        let mended = if mended > 0 { format!(", {mended} of them mended") } else { String::new() };
        format!("{}: {rows} rows compared, {differences} differ{mended}\n", self.state(answer))
    }
}

fn of_table(table: &Value) -> String {
    let (state, count) = (text(table, "state"), |name: &str| table[name].as_u64().unwrap_or_default());
    let by = table["by"].as_str().map_or(String::new(), |by| format!(" by {by}"));
    let mut out = format!("{}: {state}, {} rows compared{by}", text(table, "table"), count("rows"));
    if count("differences") > 0 {
        out.push_str(&format!(", {} differ", count("differences")));
        if let Some(mended) = table["mended"].as_u64() {
            out.push_str(&format!(", {mended} mended"));
        }
    }
    if let (Some(code), Some(reason)) = (table["code"].as_str(), table["reason"].as_str()) {
        out.push_str(&format!(" ({code}): {reason}"));
    }
    out.push('\n');
    for row in table["shown"].as_array().map_or(&[][..], Vec::as_slice) {
        let image = |name: &str| row.get(name).map_or_else(|| "-".to_owned(), Value::to_string);
        out.push_str(&format!(
            "  {} {}\n    here:  {}\n    there: {}\n",
            text(row, "key"),
            text(row, "kind"),
            image("here"),
            image("there")
        ));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn audited(table: Option<&str>) -> Audited {
        let table = table.map(str::to_owned);
        Audited { name: "shop".to_owned(), table, mend: false, no_wait: false, show: false }
    }

    #[test]
    fn an_audit_is_a_request() {
        let of = AuditOf::Source;
        let (method, path, body) = audited(None).request(of);
        assert_eq!((method, path.as_str()), (Method::POST, "/sources/shop/audit"));
        assert_eq!(body.as_deref(), Some(&br#"{"mend":false}"#[..]));
        let (_, path, body) = Audited { mend: true, ..audited(Some("public.a b")) }.request(of);
        assert_eq!(path, "/sources/shop/tables/public.a%20b/audit");
        assert_eq!(body.as_deref(), Some(&br#"{"mend":true}"#[..]));
        let shown = Audited { show: true, ..audited(Some("t")) }.request(of);
        assert_eq!(shown, (Method::GET, "/sources/shop/audit".to_owned(), None));
        let (_, path, body) = audited(Some("t")).request(AuditOf::Subscription);
        assert_eq!((path.as_str(), body.as_deref()), ("/subscriptions/shop/audit", Some(&br#"{"tables":["t"]}"#[..])));
    }

    #[test]
    fn each_table_is_told_once_when_it_is_through() {
        let mut answer = json!({ "state": "running", "tables": [
            { "table": "a", "state": "different", "by": "sums", "rows": 9, "differences": 1, "mended": 0, "shown": [
                { "key": "7", "kind": "only-here", "here": { "id": 7 } }] },
            { "table": "b", "state": "running", "rows": 1 }] });
        let mut told = BTreeSet::new();
        let all = audited(None);
        let first = "a: different, 9 rows compared by sums, 1 differ, 0 mended\n  7 only-here\n    here:  {\"id\":7}\n    there: -\n";
        assert_eq!((all.news(&answer, &mut told).as_str(), all.is_over(&answer)), (first, false));
        assert_eq!(all.news(&answer, &mut told), "");
        assert!(audited(Some("a")).is_over(&answer));
        answer["tables"][1] =
            json!({ "table": "b", "state": "unfinished", "rows": 0, "code": "paused", "reason": "why" });
        answer["state"] = "different".into();
        assert_eq!(all.news(&answer, &mut told), "b: unfinished, 0 rows compared (paused): why\n");
        assert_eq!(all.summary(&answer), "different: 9 rows compared, 1 differ\n");
        assert_eq!(audited(Some("b")).summary(&answer), "unfinished: 0 rows compared, 0 differ\n");
    }
}
