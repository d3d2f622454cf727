//! Connections to the server, and what its errors mean.

use std::collections::HashMap;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, DriverError, Error, IoError, Opts, OptsBuilder, SslOpts};
use tokio::time::timeout;

use super::address::{Address, SslMode};
use super::form::Collations;
use crate::feed::{FeedError, Remedy};

/// How long the server may take to let us in.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// What a session needs so that answers mean the same as the log: no conversion of text, times in UTC, nothing padded.
pub(super) const SESSION: &str = "SET SESSION time_zone = '+00:00', SESSION character_set_results = NULL, SESSION sql_mode = '', \
    SESSION net_write_timeout = 3600, SESSION net_read_timeout = 3600, SESSION wait_timeout = 86400";

/// What the server is.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) mariadb: bool,
    /// Its version, as it says it.
    pub(super) version: String,
    /// MySQL's UUID, or MariaDB's server id.
    pub(super) identity: String,
    /// Whether transactions have identifiers: always with MariaDB, with `gtid_mode=ON` with MySQL.
    pub(super) gtid: bool,
    /// `lower_case_table_names`: 0 tells cases of names apart, 1 keeps them in lower case, 2 compares them so.
    pub(super) name_case: u8,
    pub(super) charsets: Charsets,
    /// The user as grants name it: `'cdc'@'%'`.
    pub(super) account: String,
}

impl Server {
    /// As consumers know it.
    pub(super) fn connector(&self) -> &'static str {
        if self.mariadb { "mariadb" } else { "mysql" }
    }
}

/// The character set of every collation that the server has.
#[derive(Clone, Debug, Default)]
pub(super) struct Charsets(pub(super) HashMap<u64, String>);

impl Collations for Charsets {
    fn charset(&self, collation: u64) -> Option<&str> {
        self.0.get(&collation).map(String::as_str)
    }
}

/// A connection whose session is set up.
pub(super) async fn open(address: &Address) -> Result<Conn, FeedError> {
    let mut conn = match address.ssl_mode {
        SslMode::Disabled => connect(address, false).await?,
        SslMode::Preferred => match attempt(address, true).await {
            Err(Error::Driver(DriverError::NoClientSslFlagFromServer)) => connect(address, false).await?,
            outcome => outcome.map_err(|error| failed("connecting", error))?,
        },
        _ => connect(address, true).await?,
    };
    conn.query_drop(SESSION).await.map_err(|error| failed("setting up the session", error))?;
    // Tables that keep past rows show the present ones, whatever the server's default is; others know no such setting.
    let _ = conn.query_drop("SET SESSION system_versioning_asof = DEFAULT").await;
    Ok(conn)
}

async fn connect(address: &Address, tls: bool) -> Result<Conn, FeedError> {
    attempt(address, tls)
        .await
        .map_err(|error| failed(&format!("connecting to {}:{}", address.host, address.port), error))
}

async fn attempt(address: &Address, tls: bool) -> Result<Conn, Error> {
    let mut builder = OptsBuilder::default()
        .ip_or_hostname(address.host.clone())
        .tcp_port(address.port)
        .user(Some(address.user.clone()))
        .pass(Some(address.password.clone()))
        .prefer_socket(false)
        .tcp_keepalive(Some(Duration::from_secs(30)));
    if tls {
        let mut ssl = SslOpts::default();
        if let Some(file) = &address.ca_file {
            let pem = cdc_access::read_file(file).map_err(std::io::Error::other)?;
            ssl = ssl.with_root_certs(vec![pem.into()]).with_disable_built_in_roots(true);
        }
        ssl = match address.ssl_mode {
            SslMode::VerifyIdentity => ssl.with_danger_tls_hostname_override(address.certificate_name.clone()),
            _ => ssl.with_danger_accept_invalid_certs(true).with_danger_skip_domain_validation(true),
        };
        builder = builder.ssl_opts(Some(ssl));
    }
    match timeout(CONNECT_TIMEOUT, Conn::new(Opts::from(builder))).await {
        Ok(outcome) => outcome,
        Err(_) => {
            let late = std::io::Error::new(std::io::ErrorKind::TimedOut, "the server does not answer");
            Err(Error::Io(late.into()))
        }
    }
}

/// Asks the server what it is.
pub(super) async fn server(conn: &mut Conn) -> Result<Server, FeedError> {
    let doing = |error| failed("asking for the server's version", error);
    let version: String = conn.query_first("SELECT VERSION()").await.map_err(doing)?.unwrap_or_default();
    let mariadb = version.to_ascii_lowercase().contains("mariadb");
    let (identity, gtid) = if mariadb {
        let id: Option<u64> = conn.query_first("SELECT @@GLOBAL.server_id").await.map_err(doing)?;
        (id.unwrap_or_default().to_string(), true)
    } else {
        let sql = "SELECT @@GLOBAL.server_uuid, @@GLOBAL.gtid_mode";
        let row: Option<(String, String)> = conn.query_first(sql).await.map_err(doing)?;
        let (uuid, mode) = row.unwrap_or_default();
        (uuid, mode == "ON")
    };
    let case: Option<u8> = conn.query_first("SELECT @@GLOBAL.lower_case_table_names").await.map_err(doing)?;
    // MariaDB's newer collations have numbers only where they are combined with a character set.
    let combined = "SELECT ID, CHARACTER_SET_NAME FROM information_schema.COLLATION_CHARACTER_SET_APPLICABILITY \
        WHERE ID IS NOT NULL";
    let plain = "SELECT ID, CHARACTER_SET_NAME FROM information_schema.COLLATIONS WHERE ID IS NOT NULL";
    let rows: Vec<(u64, String)> = match conn.query(combined).await {
        Ok(rows) => rows,
        Err(Error::Server(_)) => conn.query(plain).await.map_err(doing)?,
        Err(error) => return Err(doing(error)),
    };
    let charsets = Charsets(rows.into_iter().collect());
    let account: Option<String> = conn.query_first("SELECT CURRENT_USER()").await.map_err(doing)?;
    let account = quoted(&account.unwrap_or_default());
    Ok(Server { mariadb, version, identity, gtid, name_case: case.unwrap_or(0), charsets, account })
}

/// `'user'@'host'` of `user@host`.
fn quoted(account: &str) -> String {
    let (user, host) = account.rsplit_once('@').unwrap_or((account, "%"));
    format!("'{}'@'{}'", user.replace('\'', "''"), host.replace('\'', "''"))
}

/// What an error means for a feed. `doing` completes "… while".
pub(super) fn failed(doing: &str, error: Error) -> FeedError {
    let (remedy, code, advice) = match &error {
        Error::Server(problem) => match problem.code {
            1044 | 1045 | 1698 => {
                (Remedy::Stop, "authentication", "check the user and the password in the connection URL")
            }
            1142 | 1143 | 1227 | 1370 => (
                Remedy::Stop,
                "privileges",
                "the user may not do this; run GRANT SELECT, REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO it",
            ),
            1236 => (
                Remedy::Repair,
                "binlog-purged",
                "the server no longer has the log after our position (or never had it, being another server); ask for \
                 a repair, which reads the tables anew and compares",
            ),
            // Unknown databases, tables and columns, and what can't be parsed: something is not as it was.
            1049 | 1054 | 1064 | 1146 => (Remedy::Stop, "catalog", "the database is not as it was expected to be"),
            _ => (Remedy::Retry, "server", "the server refused"),
        },
        Error::Io(IoError::Tls(_)) => {
            (Remedy::Stop, "tls", "the server's certificate is not one that is trusted; check ssl-mode and ssl-ca")
        }
        Error::Io(IoError::Io(problem)) if problem.kind() == std::io::ErrorKind::InvalidData => {
            (Remedy::Stop, "tls", "the server's certificate is not one that is trusted; check ssl-mode and ssl-ca")
        }
        Error::Io(_) => (Remedy::Retry, "connection", "the database is away, or the network to it"),
        Error::Driver(DriverError::NoClientSslFlagFromServer) => {
            (Remedy::Stop, "tls", "the server has no TLS; configure it there, or use ssl-mode=disabled")
        }
        Error::Driver(DriverError::UnknownAuthPlugin { .. }) => {
            (Remedy::Stop, "authentication", "the user's way of authentication is not supported; use a password")
        }
        Error::Url(_) => (Remedy::Stop, "configuration", "check the connection URL"),
        _ => (Remedy::Retry, "connection", "the connection broke"),
    };
    // The library says so at each of its layers.
    let told = error.to_string().replace("Input/output error: ", "");
    FeedError { remedy, code, message: format!("{told} (while {doing}): {advice}"), source: Some(Box::new(error)) }
}

/// An error that somebody must do something about.
pub(super) fn stop(code: &'static str, message: String) -> FeedError {
    FeedError { remedy: Remedy::Stop, code, message, source: None }
}
