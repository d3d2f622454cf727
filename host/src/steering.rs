//! `cdc source pause`, `resume`, `reread`, …: what a running service is asked to do with its sources, by one request.

mod audit;

use std::fmt::Write;

use bytes::Bytes;
use cdc_rest::path_segment;
use clap::Args;
use http::{Method, Uri};
use serde_json::{Value, json};

pub use audit::{AuditCommand, AuditOf, AuditOutcome, Audited, AuditedReplica};

use crate::client::{Answer, Service};

/// What a source, or one of its tables, is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SteeringCommand {
    /// How it fares.
    Show(SourceOrTable),
    /// Follow it no further until it is resumed.
    Pause(SourceOrTable),
    /// Go on with it.
    Resume(SourceOrTable),
    /// Read all tables anew.
    Repair(OneSource),
    /// Read a table anew.
    Reread(OneTable),
    /// Remove a table's rows here, and capture it no longer until it is resumed.
    DropTable(OneTable),
    /// Choose which tables are captured.
    Select(Selection),
}

/// What is asked, and the service that it goes to.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Steer<A: Args> {
    /// What is asked.
    #[command(flatten)]
    pub what: A,

    /// Of whom.
    #[command(flatten)]
    pub asked: Asked,
}

/// The service that is asked, and how its answer is shown.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Service to ask: that of `cdc tail`, unless another is named
    #[arg(long, value_name = "URL", default_value = crate::tail::DEFAULT_URL, value_parser = crate::tail::service_url)]
    pub url: Uri,

    /// Print the answer as the JSON that came
    #[arg(long)]
    pub json: bool,
}

/// A source.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct OneSource {
    /// The source
    #[arg(value_name = "NAME")]
    pub name: String,
}

/// A source, or one of its tables.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct SourceOrTable {
    /// The source
    #[arg(value_name = "NAME")]
    pub name: String,

    /// One of its tables, by the name under which it is captured [default: the source as a whole]
    #[arg(value_name = "TABLE")]
    pub table: Option<String>,
}

/// One of a source's tables.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct OneTable {
    /// The source
    #[arg(value_name = "NAME")]
    pub name: String,

    /// One of its tables, by the name under which it is captured
    #[arg(value_name = "TABLE")]
    pub table: String,
}

/// Which tables a source is to capture.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// The source
    #[arg(value_name = "NAME")]
    pub name: String,

    /// Patterns of namespace.table to capture [default: every table]
    #[arg(long, value_name = "PATTERN", num_args = 1.., required_unless_present_any = ["exclude", "reset"])]
    pub tables: Vec<String>,

    /// Patterns of those to leave out
    #[arg(long, value_name = "PATTERN", num_args = 1..)]
    pub exclude: Vec<String>,

    /// Capture what the configuration says
    #[arg(long, conflicts_with_all = ["tables", "exclude"])]
    pub reset: bool,
}

/// A command with the service that it goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Steering {
    /// What is asked.
    pub command: SteeringCommand,
    /// Of whom.
    pub asked: Asked,
}

/// The service cannot be asked, or refuses.
#[derive(Debug, thiserror::Error)]
#[error("{url}: {reason}")]
pub struct SteeringError {
    /// The service.
    url: Uri,
    /// What is wrong, and what to do.
    reason: String,
}

impl Steering {
    /// Asks, and answers with what to print.
    pub async fn say(self) -> Result<String, SteeringError> {
        let Self { command, asked: Asked { url, json } } = self;
        let (method, path, body) = command.request();
        let (body, answer) = ask(&url, method, &path, body).await?;
        Ok(if json { format!("{}\n", String::from_utf8_lossy(&body)) } else { shown(&answer) })
    }
}

/// Asks a service; its answer as it came, and what it says.
async fn ask(url: &Uri, method: Method, path: &str, body: Option<Bytes>) -> Result<(Bytes, Value), SteeringError> {
    let failed = |reason: String| SteeringError { url: url.clone(), reason };
    let service = Service::new(url.clone());
    let Answer { status, body, .. } = service.ask(method, path, body).await.map_err(failed)?;
    let answer: Value = serde_json::from_slice(&body)
        .map_err(|error| failed(format!("the answer ({status}) is none of this service: {error}")))?;
    if !status.is_success() {
        let detail = answer["detail"].as_str().unwrap_or("it says no more");
        return Err(failed(format!("{}: {detail}", answer["code"].as_str().unwrap_or(status.as_str()))));
    }
    Ok((body, answer))
}

impl SteeringCommand {
    fn request(&self) -> (Method, String, Option<Bytes>) {
        let source = |name: &str| format!("/sources/{}", path_segment(name));
        let table = |name: &str, table: &str| format!("{}/tables/{}", source(name), path_segment(table));
        let whole = |of: &SourceOrTable| match &of.table {
            Some(of_it) => table(&of.name, of_it),
            None => source(&of.name),
        };
        match self {
            Self::Show(of) => (Method::GET, whole(of), None),
            Self::Pause(of) => (Method::POST, format!("{}/pause", whole(of)), None),
            Self::Resume(of) => (Method::POST, format!("{}/resume", whole(of)), None),
            Self::Repair(of) => (Method::POST, format!("{}/repair", source(&of.name)), None),
            Self::Reread(of) => (Method::POST, format!("{}/reread", table(&of.name, &of.table)), None),
            Self::DropTable(of) => (Method::POST, format!("{}/drop", table(&of.name, &of.table)), None),
            Self::Select(selection) => {
                let path = format!("{}/selection", source(&selection.name));
                if selection.reset {
                    return (Method::DELETE, path, None);
                }
                let body = json!({ "tables": selection.tables, "exclude": selection.exclude });
                (Method::PUT, path, Some(body.to_string().into()))
            }
        }
    }
}

/// An answer for a person: of a source, a table or a selection.
fn shown(answer: &Value) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = match (&answer["name"], &answer["table"]) {
        (Value::String(name), _) => {
            let kind = answer["kind"].as_str().unwrap_or_default();
            let _ = writeln!(out, "{name} ({kind}): {}", state(answer));
            let tables = answer["tables"].as_array().map_or(&[][..], Vec::as_slice);
            tables.iter().try_for_each(|table| writeln!(out, "  {}: {}", text(table, "table"), of_table(table)))
        }
        (_, Value::String(table)) => writeln!(out, "{table}: {}", of_table(answer)),
        _ => {
            let patterns = |name: &str| {
                let list = answer[name].as_array().map_or(&[][..], Vec::as_slice);
                list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
            };
            let every = |text: String| if text.is_empty() { "every table".to_owned() } else { text };
            let (tables, exclude) = (every(patterns("tables")), patterns("exclude"));
            let but = if exclude.is_empty() { String::new() } else { format!(", but not {exclude}") };
            writeln!(out, "{tables}{but} (as the {} says)", text(answer, "from"))
        }
    };
    out
}

fn text<'a>(answer: &'a Value, name: &str) -> &'a str {
    answer[name].as_str().unwrap_or_default()
}

/// The state, and why.
fn state(answer: &Value) -> String {
    match (answer["code"].as_str(), answer["reason"].as_str()) {
        (Some(code), Some(reason)) => format!("{} ({code}): {reason}", text(answer, "state")),
        _ => text(answer, "state").to_owned(),
    }
}

fn of_table(table: &Value) -> String {
    let mut out = state(table);
    let read = table["rowsRead"].as_u64().unwrap_or_default();
    if let Some(rows) = table["rowsEstimated"].as_u64() {
        out.push_str(&format!("; {read} of about {rows} rows read"));
    }
    if let Some(seconds) = table["secondsLeft"].as_u64() {
        out.push_str(&format!(", {seconds} s left"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_a_request() {
        let of = |table: Option<&str>| SourceOrTable { name: "shop".to_owned(), table: table.map(str::to_owned) };
        let one = || OneTable { name: "shop".to_owned(), table: "public.a b/c".to_owned() };
        for (command, method, path) in [
            (SteeringCommand::Show(of(None)), Method::GET, "/sources/shop"),
            (SteeringCommand::Pause(of(None)), Method::POST, "/sources/shop/pause"),
            (SteeringCommand::Resume(of(Some("t"))), Method::POST, "/sources/shop/tables/t/resume"),
            (SteeringCommand::Reread(one()), Method::POST, "/sources/shop/tables/public.a%20b%2Fc/reread"),
            (SteeringCommand::DropTable(one()), Method::POST, "/sources/shop/tables/public.a%20b%2Fc/drop"),
        ] {
            assert_eq!(command.request(), (method, path.to_owned(), None));
        }
        let selection = |reset| Selection {
            name: "shop".to_owned(),
            tables: vec!["public.*".to_owned()],
            exclude: Vec::new(),
            reset,
        };
        let (method, path, body) = SteeringCommand::Select(selection(false)).request();
        assert_eq!((method, path.as_str()), (Method::PUT, "/sources/shop/selection"));
        assert_eq!(body.as_deref(), Some(&br#"{"exclude":[],"tables":["public.*"]}"#[..]));
        assert_eq!(SteeringCommand::Select(selection(true)).request().0, Method::DELETE);
    }

    #[test]
    fn an_answer_is_told_in_a_line_for_each_table() {
        let users = json!({ "table": "users", "state": "rereading", "code": "requested", "reason": "somebody asked for it",
            "rowsRead": 7, "rowsEstimated": 70, "secondsLeft": 9 });
        assert_eq!(
            shown(&users),
            "users: rereading (requested): somebody asked for it; 7 of about 70 rows read, 9 s left\n"
        );
        let shop = json!({ "name": "shop", "kind": "postgres", "state": "reading", "tables": [users,
            { "table": "orders", "state": "following", "rowsRead": 3 }] });
        assert!(shown(&shop).starts_with("shop (postgres): reading\n  users: rereading"), "{}", shown(&shop));
        assert!(shown(&shop).ends_with("  orders: following\n"));
        let selection = json!({ "tables": [], "exclude": ["a.*", "b.c"], "from": "configuration" });
        assert_eq!(shown(&selection), "every table, but not a.* b.c (as the configuration says)\n");
    }
}
