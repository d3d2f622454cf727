//! What may go wrong at a database, and whose fault it is.

use tokio_postgres::Error;
use tokio_postgres::error::DbError;

use crate::connection::ConnectError;
use crate::secret::MissingVariable;

#[derive(Debug, thiserror::Error)]
pub(super) enum PostgresFailure {
    #[error(transparent)]
    Variable(#[from] MissingVariable),
    #[error("`url` {0}")]
    Url(&'static str),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("{}", told(.0))]
    Postgres(#[from] Error),
    #[error("no answer within {timeout_ms} ms")]
    Timeout { timeout_ms: u32 },
    #[error("table {table} is not there: set `createTables`, or run: {sql}")]
    NoTable { table: String, sql: String },
    #[error("table {table} lacks columns: set `createTables`, or run: {sql}")]
    NoColumn { table: String, sql: String },
    #[error("table {table} has no unique index on exactly its key: run: {sql}")]
    NoKey { table: String, sql: String },
    #[error(
        "events are lost that had been acknowledged: the place in {places} has gone back to event {place}. The database \
         was restored, or a standby took over that was behind. Rewind the subscription to the event after that one"
    )]
    Lost { places: String, place: u64 },
}

impl PostgresFailure {
    /// Whether it is about a row rather than about the database: another attempt will end the same.
    pub(super) fn is_about_a_row(&self) -> bool {
        let Self::Postgres(error) = self else { return false };
        let Some(code) = error.code().map(|code| code.code()) else { return false };
        // Data exceptions, integrity constraints, limits of the program (a row too long for an index), check options of
        // views, and what triggers raise.
        ["22", "23", "54", "44"].contains(&&code[..2]) || code == "P0001"
    }

    /// Whether the statements may succeed in another order: a table that others refer to cannot be truncated as such.
    pub(super) fn is_about_order(&self) -> bool {
        self.is_about_a_row()
            || matches!(self, Self::Postgres(error) if error.code().is_some_and(|code| code.code() == "0A000"))
    }
}

/// The server's words, with what to do where that is known.
fn told(error: &Error) -> String {
    let Some(db) = error.as_db_error() else {
        // What lies behind tells more than "error communicating with the server".
        return match std::error::Error::source(error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
    };
    let mut text = db.message().to_owned();
    for (name, part) in [("detail", db.detail()), ("hint", db.hint()), ("in", db.where_())] {
        if let Some(part) = part {
            let part = part.lines().next().unwrap_or_default();
            text.push_str(&format!("; {name}: {part}"));
        }
    }
    format!("{text} (SQLSTATE {}){}", db.code().code(), advice(db))
}

fn advice(error: &DbError) -> &'static str {
    match error.code().code() {
        "42501" => {
            ": GRANT the user INSERT, UPDATE, DELETE, SELECT and TRUNCATE on the tables, and with `createTables` \
                    CREATE on the schema"
        }
        "28P01" | "28000" => ": set the user in `url`, and `password`",
        "3D000" => ": CREATE DATABASE, or name another in `url`",
        "25006" => ": it is a standby, or read-only: name the primary in `url`",
        "53100" => ": its disk is full",
        "53300" => ": raise max_connections, or take fewer lanes",
        _ => "",
    }
}
