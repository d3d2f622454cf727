//! What is missing before a server can be followed.

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use super::Options;
use super::address::Address;
use super::catalog::{self, Cascade, CatalogTable, Look, OWN_DATABASES, quoted};
use super::checkpoint::Name;
use super::connection::{self, Server, failed, open};
use super::form::{Form, FormProblem};
use super::reading;
use crate::check::{Finding, Severity};
use crate::feed::FeedError;

/// Days of log that a server should keep, so that a source may be away over a weekend.
const KEPT_DAYS_MIN: f64 = 3.0;

/// Connects and looks at everything that following needs. Changes nothing. What keeps it from looking is a finding too.
pub async fn check(options: &Options) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Err(error) = look(options, &mut findings).await {
        let (severity, code) = (Severity::Missing, error.code);
        findings.push(Finding { severity, code, message: error.message, remedy: None });
    }
    findings
}

async fn look(options: &Options, findings: &mut Vec<Finding>) -> Result<(), FeedError> {
    let address = Address::parse(&options.url).map_err(|problem| connection::stop("configuration", problem))?;
    let mut conn = open(&address).await?;
    let server = connection::server(&mut conn).await?;
    let message =
        format!("connected to {}:{} as {}; the server is {}", address.host, address.port, address.user, server.version);
    findings.push(good("connection", message));
    settings(&mut conn, &server, options, findings).await?;
    privileges(&mut conn, &server, findings).await?;
    tables(&mut conn, &server, options, findings).await
}

fn good(code: &'static str, message: String) -> Finding {
    Finding { severity: Severity::Good, code, message, remedy: None }
}

async fn variable(conn: &mut Conn, name: &str) -> Result<Option<String>, FeedError> {
    let sql = format!("SHOW GLOBAL VARIABLES LIKE '{name}'");
    let row: Option<(String, String)> =
        conn.query_first(sql).await.map_err(|error| failed("asking for the server's settings", error))?;
    Ok(row.map(|(_, value)| value))
}

/// A setting that must have a value: its name, code, value, how bad another one is, why, and what to do.
struct Wanted {
    name: &'static str,
    code: &'static str,
    value: &'static str,
    severity: Severity,
    why: &'static str,
    remedy: &'static str,
}

const WANTED: [Wanted; 4] = [
    Wanted {
        name: "log_bin",
        code: "log-bin",
        value: "ON",
        severity: Severity::Missing,
        why: "without a binary log there is nothing to follow",
        remedy: "-- in my.cnf below [mysqld], and a restart of the server\nlog_bin = mysql-bin\nserver_id = 1",
    },
    Wanted {
        name: "binlog_format",
        code: "row-format",
        value: "ROW",
        severity: Severity::Missing,
        why: "the log must hold rows and not statements",
        remedy: "SET GLOBAL binlog_format = 'ROW'; -- and in my.cnf; sessions that are open must reconnect",
    },
    Wanted {
        name: "binlog_row_image",
        code: "row-image",
        value: "FULL",
        severity: Severity::Missing,
        why: "the log must hold whole rows, before and after",
        remedy: "SET GLOBAL binlog_row_image = 'FULL'; -- and in my.cnf; sessions that are open must reconnect",
    },
    Wanted {
        name: "binlog_row_metadata",
        code: "row-metadata",
        value: "FULL",
        severity: Severity::Warning,
        why: "without it the log does not name columns, so that names are taken from the information schema, and a source \
              that lags behind a change of a table has to stop",
        remedy: "SET GLOBAL binlog_row_metadata = 'FULL'; -- and in my.cnf",
    },
];

async fn settings(
    conn: &mut Conn,
    server: &Server,
    options: &Options,
    findings: &mut Vec<Finding>,
) -> Result<(), FeedError> {
    for wanted in WANTED {
        let Wanted { name, code, value, severity, why, remedy } = wanted;
        let found = variable(conn, name).await?.unwrap_or_else(|| "unknown to this server".into());
        if found.eq_ignore_ascii_case(value) {
            findings.push(good(code, format!("{name} is {value}")));
            continue;
        }
        // NOBLOB leaves out what did not change, which the row state fills in.
        let severity = if found == "NOBLOB" { Severity::Warning } else { severity };
        let message = format!("{name} is {found}: {why}");
        findings.push(Finding { severity, code, message, remedy: Some(remedy.to_owned()) });
    }
    if variable(conn, "server_id").await?.as_deref() == Some("0") {
        findings.push(Finding {
            severity: Severity::Missing,
            code: "server-id",
            message: "server_id is 0, and a server without an id does not send its log".into(),
            remedy: Some("SET GLOBAL server_id = 1; -- and in my.cnf".into()),
        });
    }
    if !server.gtid {
        findings.push(Finding {
            severity: Severity::Warning,
            code: "gtid",
            message:
                "gtid_mode is not ON: the source follows by file and offset, can't go on at another server after a \
                failover, and reads tables with share locks"
                    .into(),
            remedy: Some("-- in my.cnf below [mysqld]\ngtid_mode = ON\nenforce_gtid_consistency = ON".into()),
        });
    }
    // What changed is put into the row before, so that must be there.
    let whole = variable(conn, "binlog_row_image").await?.is_some_and(|image| image.eq_ignore_ascii_case("FULL"));
    if !whole && variable(conn, "binlog_row_value_options").await?.is_some_and(|value| value.contains("PARTIAL_JSON")) {
        findings.push(Finding {
            severity: Severity::Missing,
            code: "partial-json",
            message: "binlog_row_value_options has PARTIAL_JSON and binlog_row_image is not FULL: the log holds only \
                changed parts of JSON values, and not what they were"
                .into(),
            remedy: Some(
                "SET GLOBAL binlog_row_image = 'FULL'; -- and in my.cnf; sessions that are open must reconnect".into(),
            ),
        });
    }
    filters(conn, server, options, findings).await?;
    retention(conn, findings).await
}

/// Databases that the server leaves out of its log, of which nothing would be noticed.
async fn filters(
    conn: &mut Conn,
    server: &Server,
    options: &Options,
    findings: &mut Vec<Finding>,
) -> Result<(), FeedError> {
    // Whoever may not look is told so by the privileges.
    let row: Option<mysql_async::Row> = match conn.query_first("SHOW MASTER STATUS").await {
        Err(_) if !server.mariadb => conn.query_first("SHOW BINARY LOG STATUS").await.unwrap_or_default(),
        outcome => outcome.unwrap_or_default(),
    };
    let list = |at| -> Vec<String> {
        let text: String = row.as_ref().and_then(|row| row.get_opt(at)?.ok()).unwrap_or_default();
        text.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
    };
    let (logged, left_out) = (list(2), list(3));
    let mut missing: Vec<String> = Vec::new();
    for (namespace, relation) in catalog::tables(conn).await? {
        let in_log = !left_out.contains(&namespace) && (logged.is_empty() || logged.contains(&namespace));
        if !in_log && options.rules.captures(&namespace, &relation) && !missing.contains(&namespace) {
            missing.push(namespace);
        }
    }
    if !missing.is_empty() {
        findings.push(Finding {
            severity: Severity::Missing,
            code: "log-filter",
            message: format!(
                "the server leaves changes made in {} out of its log (binlog_do_db, binlog_ignore_db), so that they are \
                 never noticed",
                missing.join(", ")
            ),
            remedy: Some("-- in my.cnf: remove binlog_do_db and binlog_ignore_db, and restart the server".into()),
        });
    }
    Ok(())
}

async fn retention(conn: &mut Conn, findings: &mut Vec<Finding>) -> Result<(), FeedError> {
    let seconds = variable(conn, "binlog_expire_logs_seconds").await?.and_then(|text| text.parse::<f64>().ok());
    let days = variable(conn, "expire_logs_days").await?.and_then(|text| text.parse::<f64>().ok());
    let kept = seconds.filter(|&seconds| seconds > 0.0).map(|seconds| seconds / 86_400.0).or(days).unwrap_or(0.0);
    if kept == 0.0 {
        findings.push(good("retention", "the log is kept until somebody purges it".into()));
    } else if kept < KEPT_DAYS_MIN {
        findings.push(Finding {
            severity: Severity::Warning,
            code: "retention",
            message: format!("the log is kept for {kept:.1} days: a source that is away for longer needs a repair"),
            remedy: Some("SET GLOBAL binlog_expire_logs_seconds = 604800; -- a week; and in my.cnf".into()),
        });
    } else {
        findings.push(good("retention", format!("the log is kept for {kept:.1} days")));
    }
    Ok(())
}

/// What the user must be allowed to, over everything: names that servers give it, and the one to grant.
const PRIVILEGES: [(&[&str], &str, &str); 2] = [
    (&["REPLICATION SLAVE", "REPLICATION REPLICA"], "REPLICATION SLAVE", "follow the log"),
    (&["REPLICATION CLIENT", "BINLOG MONITOR", "SUPER"], "REPLICATION CLIENT", "see where the log ends"),
];

async fn privileges(conn: &mut Conn, server: &Server, findings: &mut Vec<Finding>) -> Result<(), FeedError> {
    let grants: Vec<String> = conn.query("SHOW GRANTS").await.map_err(|error| failed("asking for grants", error))?;
    let account = &server.account;
    let over_all = |names: &[&str]| {
        grants.iter().any(|grant| {
            let (rights, rest) = grant.split_once(" ON ").unwrap_or_default();
            let rights = rights.trim_start_matches("GRANT ");
            rest.starts_with("*.*")
                && rights.split(", ").any(|right| right == "ALL PRIVILEGES" || names.contains(&right))
        })
    };
    for (names, grant, purpose) in PRIVILEGES {
        if over_all(names) {
            findings.push(good("privileges", format!("the user may {purpose} ({grant})")));
            continue;
        }
        let grant = if server.mariadb && grant == "REPLICATION CLIENT" { "BINLOG MONITOR" } else { grant };
        findings.push(Finding {
            severity: Severity::Missing,
            code: "privileges",
            message: format!("the user may not {purpose}: it lacks {grant}"),
            remedy: Some(format!("GRANT {grant} ON *.* TO {account};")),
        });
    }
    Ok(())
}

async fn tables(
    conn: &mut Conn,
    server: &Server,
    options: &Options,
    findings: &mut Vec<Finding>,
) -> Result<(), FeedError> {
    let rules = std::sync::Arc::new(options.rules.clone());
    let (mut seen, mut count) = (0, 0);
    for (namespace, relation) in catalog::tables(conn).await? {
        if OWN_DATABASES.contains(&namespace.as_str()) || !rules.captures(&namespace, &relation) {
            continue;
        }
        // Tables that the user may not read are not listed, but those of which it may do something else are.
        // Of what only a pattern brings it is said; the others are captured all the same.
        let asked = rules.include.contains(&format!("{namespace}.{relation}"));
        let severity = if asked { Severity::Missing } else { Severity::Warning };
        let name = (namespace, relation);
        let table = match catalog::look(conn, server.mariadb, &name).await? {
            Look::Found(table) => table,
            Look::Gone => continue,
            Look::Denied(told) => {
                findings.push(unread(server, &name, &told, severity));
                continue;
            }
            Look::Unreadable(told) => {
                let message = reading::unreadable(&name, &told).message;
                findings.push(Finding { severity, code: "unreadable", message, remedy: None });
                continue;
            }
        };
        let (namespace, relation) = (quoted(&name.0), quoted(&name.1));
        if let Err(error) = conn.query_drop(format!("SELECT 1 FROM {namespace}.{relation} LIMIT 0")).await {
            findings.push(unread(server, &name, &error.to_string(), severity));
            continue;
        }
        seen += 1;
        let form = Form::of_catalog(&name.0, &name.1, &table, &rules, server.connector());
        // What is only told by the log needs no place for what is read.
        if let Err(problem) = &form
            && (options.snapshot || !matches!(problem, FormProblem::NoPlace(_)))
        {
            let remedy = format!(
                "ALTER TABLE {namespace}.{relation} ADD COLUMN id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY;"
            );
            findings.push(Finding {
                severity,
                code: problem.code(),
                message: problem.to_string(),
                remedy: table.key.is_empty().then_some(remedy),
            });
            continue;
        }
        count += 1;
        if table.key.is_empty() {
            findings.push(append_only(&name));
        }
        silent(&name, &table, findings);
    }
    if seen == 0 {
        let account = &server.account;
        let patterns = options.rules.include.join(", ");
        findings.push(Finding {
            severity: Severity::Warning,
            code: "tables",
            message: format!("the user sees no table that is captured (patterns: {patterns})"),
            remedy: Some(format!("-- if there should be some:\nGRANT SELECT ON *.* TO {account};")),
        });
    } else {
        let message = format!("{count} of {seen} included tables can be captured");
        let severity = if count > 0 { Severity::Good } else { Severity::Missing };
        findings.push(Finding { severity, code: "tables", message, remedy: None });
    }
    Ok(())
}

/// What the log will not tell of a table's rows.
fn silent(name: &Name, table: &CatalogTable, findings: &mut Vec<Finding>) {
    for Cascade { constraint, parent, on_delete, .. } in &table.cascades {
        let event = if *on_delete { "deleted" } else { "given another key" };
        findings.push(Finding {
            severity: Severity::Warning,
            code: "cascade",
            message: format!(
                "the foreign key {constraint} changes rows of {}.{} when rows of {}.{} are {event}, and the log does not \
                 say which: the table is read anew each time",
                name.0, name.1, parent.0, parent.1
            ),
            remedy: None,
        });
    }
    if table.is_versioned_by_transactions() {
        findings.push(Finding {
            severity: Severity::Warning,
            code: "versioning",
            message: format!(
                "the versions of {}.{} are told by transactions, and the server logs statements instead of its rows: the \
                 table is read anew after each",
                name.0, name.1
            ),
            remedy: None,
        });
    }
}

/// What is to be known of a table that is captured although it has no key.
fn append_only(name: &Name) -> Finding {
    Finding {
        severity: Severity::Warning,
        code: "append-only",
        message: format!(
            "{}.{} has no key, and is captured as rows that are only ever inserted: an UPDATE or DELETE of it stops it until \
             it is read anew",
            name.0, name.1
        ),
        remedy: None,
    }
}

fn unread(server: &Server, name: &Name, told: &str, severity: Severity) -> Finding {
    Finding {
        severity,
        code: "privileges",
        message: format!("the user may not read {}.{}: {told}", name.0, name.1),
        remedy: Some(format!("GRANT SELECT ON {}.* TO {};", quoted(&name.0), server.account)),
    }
}
