//! A replica in PostgreSQL: rows as they are, each batch in one transaction with the place.
//!
//! - The place is a row of `placesTable`, locked at the beginning of each transaction: a transaction that was thought
//!   lost is over by then, and has moved the place, or never will be. So what is committed is committed once.
//! - A batch is written in few statements (see the module `plan`). If a row of it is refused, everything is done again
//!   event by event, each in its own order: what comes before the refused event is committed, and that event is named.
//! - Columns that an event could not tell (`unavailable`) stay as they are. Columns of the table that the schema does
//!   not have are never touched.
//! - A dead letter that is tried again is written as it was: where its row has changed since, that is undone.
//!
//! A row is given up for what is about the row: data that the type does not take, a constraint, a trigger that raises.
//! Everything else is tried again.

mod audit;
mod connect;
mod failure;
mod options;
mod plan;
mod table;

use std::collections::HashMap;

use cdc_access::Reach;
use tokio::task::JoinHandle;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Statement};

pub use audit::{AuditProblem, LanePlace, Mismatch, ReplicaAudit, Target};
pub use options::*;

use self::connect::Address;
use self::failure::PostgresFailure;
use self::plan::{Step, quoted_table};
use self::table::Table;
use crate::connection::within;
use crate::written::Written;
use crate::{Event, Failure, Place, Sink};

/// A sink that keeps a replica in PostgreSQL.
pub struct PostgresSink {
    options: Options,
    place: Place,
    reach: Reach,
    /// Taken out while a batch is under way, so that a connection with an open transaction is never used again.
    connection: Option<Connection>,
    /// The last event that the database has acknowledged, as far as this object knows.
    acknowledged: Option<u64>,
}

struct Connection {
    client: Client,
    driver: JoinHandle<()>,
    tables: HashMap<String, Table>,
    statements: HashMap<String, Statement>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A failure at an event of the batch, and whether giving up that event helps.
struct Stopped {
    index: usize,
    rejects: bool,
    failure: PostgresFailure,
}

impl From<PostgresFailure> for Stopped {
    fn from(failure: PostgresFailure) -> Self {
        Self { index: 0, rejects: false, failure }
    }
}

impl From<tokio_postgres::Error> for Stopped {
    fn from(error: tokio_postgres::Error) -> Self {
        PostgresFailure::from(error).into()
    }
}

impl PostgresSink {
    /// Makes a sink; connects with the first batch.
    pub fn new(options: Options, place: Place, reach: Reach) -> Self {
        Self { options, place, reach, connection: None, acknowledged: None }
    }

    async fn write(&mut self, batch: &[Event<'_>]) -> Result<(), Stopped> {
        let mut connection = match self.connection.take() {
            Some(connection) if !connection.client.is_closed() => connection,
            _ => self.connect().await?,
        };
        self.prepare(&mut connection, batch).await?;
        let outcome = match self.write_grouped(&mut connection, batch).await {
            Err(failure) if failure.is_about_order() => {
                connection.client.batch_execute("ROLLBACK").await?;
                self.write_one_by_one(&mut connection, batch).await
            }
            other => other.map_err(Stopped::from),
        };
        match outcome {
            Ok(()) => {
                self.connection = Some(connection);
                Ok(())
            }
            Err(stopped) => {
                // What comes before the refused event is committed, and the connection is as good as before.
                if stopped.rejects {
                    self.connection = Some(connection);
                }
                Err(stopped)
            }
        }
    }

    async fn connect(&self) -> Result<Connection, PostgresFailure> {
        let (client, driver) = self.log_in().await?;
        let connection = Connection { client, driver, tables: HashMap::new(), statements: HashMap::new() };
        let client = &connection.client;
        // A server that has lost us does not keep our transaction, and its locks, for longer than we wait.
        let timeout_ms = self.options.timeout_ms;
        client
            .batch_execute(&format!(
                "SET statement_timeout = {timeout_ms}; SET lock_timeout = {timeout_ms}; \
                 SET idle_in_transaction_session_timeout = {timeout_ms}; SET timezone = 'UTC'; SET datestyle = 'ISO, MDY'; \
                 SET client_min_messages = warning"
            ))
            .await?;
        let places = self.places();
        let is_there: bool = client.query_one("SELECT to_regclass($1) IS NOT NULL", &[&places]).await?.get(0);
        if !is_there {
            if !self.options.create_tables {
                return Err(PostgresFailure::NoTable { table: places, sql: self.create_places() });
            }
            client.batch_execute(&self.create_places()).await?;
        }
        // A row to lock.
        let sql = format!(
            "INSERT INTO {places} (subscription, lane, epoch, sequence) VALUES ($1, $2, -1, 0) ON CONFLICT DO NOTHING"
        );
        client.execute(&sql, &[&self.place.subscription, &i32::from(self.place.lane)]).await?;
        Ok(connection)
    }

    async fn log_in(&self) -> Result<(Client, JoinHandle<()>), PostgresFailure> {
        let mut address = Address::parse(&self.options.url.reveal()?).map_err(PostgresFailure::Url)?;
        if let Some(password) = &self.options.password {
            address.config.password(password.reveal()?.as_bytes());
        }
        if address.config.get_application_name().is_none() {
            address.config.application_name("cdc");
        }
        address.log_in(self.options.ca_file.as_deref(), &self.reach).await
    }

    fn places(&self) -> String {
        quoted_table(&self.options.places_table)
    }

    fn create_places(&self) -> String {
        format!(
            "CREATE TABLE IF NOT EXISTS {} (subscription text, lane integer, epoch bigint NOT NULL, sequence bigint NOT \
             NULL, rows bytea NOT NULL DEFAULT '', PRIMARY KEY (subscription, lane))",
            self.places()
        )
    }

    /// Looks at the tables of a batch that are new to us.
    async fn prepare(&self, connection: &mut Connection, batch: &[Event<'_>]) -> Result<(), PostgresFailure> {
        let mut name = String::new();
        for event in batch {
            let schema = event.subject.schema;
            self.options.table.write(&mut name, &event.subject.event);
            if connection.tables.get(&name).is_some_and(|table| table.knows(schema)) {
                continue;
            }
            let creates = self.options.create_tables;
            let table = Table::prepare(&connection.client, &name, schema, creates, &self.places()).await?;
            connection.tables.insert(name.clone(), table);
            // They may be about columns of another type.
            connection.statements.clear();
        }
        Ok(())
    }

    /// Begins a transaction, and finds the events that are not there yet.
    async fn begin<'b, 'a>(
        &self,
        connection: &Connection,
        batch: &'b [Event<'a>],
    ) -> Result<Vec<(usize, &'b Event<'a>)>, PostgresFailure> {
        let places = self.places();
        let sql =
            format!("SELECT epoch, sequence, rows FROM {places} WHERE subscription = $1 AND lane = $2 FOR UPDATE");
        let lane = i32::from(self.place.lane);
        let client = &connection.client;
        let parameters: [(&(dyn ToSql + Sync), Type); 2] =
            [(&self.place.subscription, Type::TEXT), (&lane, Type::INT4)];
        // Sent together.
        let (begun, row) = tokio::join!(client.batch_execute("BEGIN"), client.query_typed_opt(&sql, &parameters));
        begun?;
        let mut written = Written::default();
        if let Some(row) = row? {
            let (epoch, sequence): (i64, i64) = (row.get(0), row.get(1));
            if i64::try_from(self.place.epoch) == Ok(epoch) {
                written = Written { sequence: u64::try_from(sequence).ok(), rows: row.get(2) };
            }
        }
        if written.sequence < self.acknowledged {
            return Err(PostgresFailure::Lost { places, place: written.sequence.unwrap_or(0) });
        }
        let pending = batch.iter().enumerate().filter(|(_, event)| !written.holds(event));
        Ok(pending.collect())
    }

    /// Notes the place of these events, and commits.
    async fn commit(&mut self, connection: &Connection, events: &[&Event<'_>]) -> Result<(), PostgresFailure> {
        let client = &connection.client;
        let written = Written::after(events);
        if let Some(sequence) = written.sequence.filter(|_| events.iter().all(|event| !event.is_late)) {
            let sql = format!(
                "UPDATE {} SET epoch = $3, sequence = $4, rows = $5 WHERE subscription = $1 AND lane = $2",
                self.places()
            );
            let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
            client
                .execute_typed(
                    &sql,
                    &[
                        (&self.place.subscription, Type::TEXT),
                        (&i32::from(self.place.lane), Type::INT4),
                        (&whole(self.place.epoch), Type::INT8),
                        (&whole(sequence), Type::INT8),
                        (&written.rows, Type::BYTEA),
                    ],
                )
                .await?;
            client.batch_execute("COMMIT").await?;
            self.acknowledged = Some(sequence);
        } else {
            client.batch_execute("COMMIT").await?;
        }
        Ok(())
    }

    async fn write_grouped(&mut self, connection: &mut Connection, batch: &[Event<'_>]) -> Result<(), PostgresFailure> {
        let pending: Vec<&Event<'_>> =
            self.begin(connection, batch).await?.into_iter().map(|(_, event)| event).collect();
        for step in plan::grouped(&self.options.table, &pending) {
            self.run(connection, step, false).await?;
        }
        self.commit(connection, &pending).await
    }

    /// The same with every event in its own place, up to the first that is refused.
    async fn write_one_by_one(&mut self, connection: &mut Connection, batch: &[Event<'_>]) -> Result<(), Stopped> {
        let pending = self.begin(connection, batch).await?;
        let events: Vec<&Event<'_>> = pending.iter().map(|(_, event)| *event).collect();
        for (at, (index, event)) in pending.iter().enumerate() {
            connection.client.batch_execute("SAVEPOINT event").await?;
            for step in plan::one_by_one(&self.options.table, event) {
                let Err(failure) = self.run(connection, step, true).await else { continue };
                if !failure.is_about_a_row() {
                    return Err(failure.into());
                }
                connection.client.batch_execute("ROLLBACK TO SAVEPOINT event").await?;
                self.commit(connection, &events[..at]).await?;
                return Err(Stopped { index: *index, rejects: true, failure });
            }
            connection.client.batch_execute("RELEASE SAVEPOINT event").await?;
        }
        Ok(self.commit(connection, &events).await?)
    }

    /// Runs a step. In the order of events a table is emptied row by row, which its references allow.
    async fn run(&self, connection: &mut Connection, step: Step<'_>, by_row: bool) -> Result<(), PostgresFailure> {
        let (sql, rows) = match step {
            Step::Truncate { table } => {
                let name = quoted_table(&table);
                let sql = if by_row { format!("DELETE FROM {name}") } else { format!("TRUNCATE {name}") };
                connection.client.batch_execute(&sql).await?;
                return Ok(());
            }
            Step::Put { table, schema, unavailable, rows } => {
                let Some(target) = connection.tables.get(&table) else { return Ok(()) };
                (target.put(schema, unavailable), rows)
            }
            Step::Delete { table, schema, keys } => {
                let Some(target) = connection.tables.get(&table) else { return Ok(()) };
                (target.delete(schema), keys)
            }
        };
        let statement = match connection.statements.get(&sql) {
            Some(statement) => statement.clone(),
            None => {
                let statement = connection.client.prepare(&sql).await?;
                connection.statements.insert(sql, statement.clone());
                statement
            }
        };
        connection.client.execute(&statement, &[&rows]).await?;
        Ok(())
    }

    async fn problems(&self) -> Result<Vec<String>, PostgresFailure> {
        let (client, driver) = self.log_in().await?;
        let mut problems = Vec::new();
        let row = client
            .query_one(
                "SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only'), current_user::text",
                &[],
            )
            .await?;
        let user: String = row.get(2);
        if row.get(0) {
            problems.push("it is a standby, which takes no writes: name the primary in `url`".to_owned());
        }
        if row.get::<_, &str>(1) == "on" {
            problems.push(format!(
                "transactions are read-only: ALTER ROLE {} SET default_transaction_read_only = off",
                plan::quoted(&user)
            ));
        }
        let places = self.places();
        let is_there: bool = client.query_one("SELECT to_regclass($1) IS NOT NULL", &[&places]).await?.get(0);
        let may_create: bool = client
            .query_one("SELECT coalesce(has_schema_privilege(current_schema(), 'CREATE'), false)", &[])
            .await?
            .get(0);
        if self.options.create_tables && !may_create {
            problems.push(format!(
                "the user {user} may not make tables: GRANT CREATE ON SCHEMA public TO {}",
                plan::quoted(&user)
            ));
        }
        if !is_there && !self.options.create_tables {
            problems.push(format!("the table {places} is not there: {}", self.create_places()));
        }
        if is_there {
            let rights: bool = client
                .query_one(
                    "SELECT bool_and(has_table_privilege($1, p)) FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE']) p",
                    &[&places],
                )
                .await?
                .get(0);
            if !rights {
                problems.push(format!(
                    "the user {user} may not write into {places}: GRANT SELECT, INSERT, UPDATE ON {places} TO {}",
                    plan::quoted(&user)
                ));
            }
        }
        driver.abort();
        Ok(problems)
    }

    /// Where it is, without anything that may be secret.
    fn named(&self) -> String {
        let url = self.options.url.reveal().ok();
        match url.and_then(|url| Address::parse(&url).ok()) {
            Some(address) => format!("PostgreSQL at {}:{}", address.host, address.port),
            None => "PostgreSQL".to_owned(),
        }
    }
}

impl Sink for PostgresSink {
    async fn deliver(&mut self, batch: &[Event<'_>]) -> Result<(), Failure> {
        let timeout_ms = self.options.timeout_ms;
        let stopped = match within(timeout_ms, self.write(batch)).await {
            Some(Ok(())) => return Ok(()),
            Some(Err(stopped)) => stopped,
            None => PostgresFailure::Timeout { timeout_ms }.into(),
        };
        let message = format!("{}: {}", self.named(), stopped.failure);
        let failure = if stopped.rejects {
            Failure::reject(stopped.index, message)
        } else {
            Failure::retry(stopped.index, message)
        };
        Err(failure.because(stopped.failure))
    }

    async fn check(&mut self) -> Vec<String> {
        let timeout_ms = self.options.timeout_ms;
        let problems = match within(timeout_ms, self.problems()).await {
            Some(Ok(problems)) => problems,
            Some(Err(failure)) => vec![failure.to_string()],
            None => vec![PostgresFailure::Timeout { timeout_ms }.to_string()],
        };
        problems.into_iter().map(|problem| format!("{}: {problem}", self.named())).collect()
    }
}
