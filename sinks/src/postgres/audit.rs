//! A replica compared with the rows that it should hold, in one snapshot of its database for each table.
//!
//! The place and the rows of a snapshot belong together, because a batch is committed with its place. What is compared
//! are texts of values of one type: an image goes in as it does when it is written, and is cast as it is then, so that two
//! spellings of a value are no difference. Nothing is written but a temporary table, and that only where rows are there
//! that should not be.

use cdc_access::Reach;
use cdc_rest::TableSchema;
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use super::failure::PostgresFailure;
use super::table::Table;
use super::{Options, PostgresSink};
use crate::Place;
use crate::connection::within;

/// How long the database may be left alone within a snapshot, before it takes us for lost.
const IDLE_MS: u32 = 300_000;

/// How long a statement over a whole table may take.
const WHOLE_TABLE_MS: u32 = 3_600_000;

/// The temporary table of keys.
const KEPT: &str = "pg_temp.cdc_audited_keys";

/// Why rows cannot be compared, and what to do.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct AuditProblem(#[from] PostgresFailure);

impl From<tokio_postgres::Error> for AuditProblem {
    fn from(error: tokio_postgres::Error) -> Self {
        Self(error.into())
    }
}

impl AuditProblem {
    /// Whether the table is not there.
    pub fn is_no_table(&self) -> bool {
        matches!(self.0, PostgresFailure::NoTable { .. })
    }
}

/// How far a lane was in the snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LanePlace {
    /// The lane.
    pub lane: u16,
    /// The epoch under which the place was kept. None: nothing was delivered yet.
    pub epoch: Option<u64>,
    /// The last event that was written.
    pub sequence: u64,
}

/// A row that is not there as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Which of the images, from 0.
    pub index: usize,
    /// The row of that key that is there, as JSON.
    pub there: Option<String>,
}

/// A table of the replica.
#[derive(Debug)]
pub struct Target(Table);

/// A connection that compares.
pub struct ReplicaAudit {
    sink: PostgresSink,
    client: Client,
    driver: JoinHandle<()>,
}

impl std::fmt::Debug for ReplicaAudit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReplicaAudit").finish_non_exhaustive()
    }
}

impl Drop for ReplicaAudit {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl ReplicaAudit {
    /// Connects to the replica of a subscription.
    pub async fn open(options: &Options, subscription: &str, reach: Reach) -> Result<Self, AuditProblem> {
        let place = Place { subscription: subscription.to_owned(), lane: 0, epoch: 0 };
        let (sink, timeout_ms) = (PostgresSink::new(options.clone(), place, reach), options.timeout_ms);
        let connected = within(timeout_ms, sink.log_in()).await;
        let (client, driver) = connected.unwrap_or(Err(PostgresFailure::Timeout { timeout_ms }))?;
        let audit = Self { sink, client, driver };
        let settings = format!(
            "SET statement_timeout = {timeout_ms}; SET lock_timeout = {timeout_ms}; \
             SET idle_in_transaction_session_timeout = {IDLE_MS}; SET timezone = 'UTC'; SET datestyle = 'ISO, MDY'; \
             SET client_min_messages = error"
        );
        audit.client.batch_execute(&settings).await?;
        Ok(audit)
    }

    /// The table of the replica that rows of a table go to; none if that depends on the operation.
    pub fn target(&self, table: &str) -> Option<String> {
        self.sink.options.table.of_table(table)
    }

    /// Takes a snapshot, which ends the one before, and says how far each lane is in it.
    pub async fn begin(&self) -> Result<Vec<LanePlace>, AuditProblem> {
        self.client.batch_execute("ROLLBACK; BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
        let places = self.sink.places();
        let is_there: bool = self.client.query_one("SELECT to_regclass($1) IS NOT NULL", &[&places]).await?.get(0);
        if !is_there {
            return Ok(Vec::new());
        }
        let sql = format!("SELECT lane, epoch, sequence FROM {places} WHERE subscription = $1");
        let rows = self.client.query(&sql, &[&self.sink.place.subscription]).await?;
        let place = |row: &tokio_postgres::Row| LanePlace {
            lane: u16::try_from(row.get::<_, i32>(0)).unwrap_or(u16::MAX),
            epoch: u64::try_from(row.get::<_, i64>(1)).ok(),
            sequence: u64::try_from(row.get::<_, i64>(2)).unwrap_or(0),
        };
        Ok(rows.iter().map(place).collect())
    }

    /// Looks at a table of the replica, which has to be what its schema says.
    pub async fn look(&self, name: &str, schema: &TableSchema) -> Result<Target, AuditProblem> {
        Ok(Target(Table::prepare(&self.client, name, schema, false, &self.sink.places()).await?))
    }

    /// Compares images with what is there.
    pub async fn compare(
        &self,
        target: &Target,
        schema: &TableSchema,
        images: &[&str],
    ) -> Result<Vec<Mismatch>, AuditProblem> {
        let rows = self.client.query(&target.0.differing(schema), &[&array(images)]).await?;
        let found = |row: &tokio_postgres::Row| {
            let place: i64 = row.get(0);
            Mismatch { index: usize::try_from(place - 1).unwrap_or(0), there: row.get(1) }
        };
        Ok(rows.iter().map(found).collect())
    }

    /// How many rows are there.
    pub async fn count(&self, target: &Target) -> Result<u64, AuditProblem> {
        self.allow_whole_table().await?;
        let count: i64 = self.client.query_one(&target.0.count(), &[]).await?.get(0);
        Ok(u64::try_from(count).unwrap_or(0))
    }

    /// Begins to gather keys.
    pub async fn begin_keys(&self, target: &Target, schema: &TableSchema) -> Result<(), AuditProblem> {
        Ok(self.client.batch_execute(&target.0.keep_keys(schema, KEPT)).await?)
    }

    /// Gathers the keys of images.
    pub async fn gather(&self, target: &Target, schema: &TableSchema, images: &[&str]) -> Result<(), AuditProblem> {
        self.client.execute(&target.0.keep(schema, KEPT), &[&array(images)]).await?;
        Ok(())
    }

    /// Rows whose keys were not gathered: the parts of each key, and the row as JSON.
    pub async fn others(
        &self,
        target: &Target,
        schema: &TableSchema,
        rows_max: usize,
    ) -> Result<Vec<(Vec<String>, String)>, AuditProblem> {
        self.allow_whole_table().await?;
        let rows = self.client.query(&target.0.others(schema, KEPT, rows_max), &[]).await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    async fn allow_whole_table(&self) -> Result<(), AuditProblem> {
        Ok(self.client.batch_execute(&format!("SET LOCAL statement_timeout = {WHOLE_TABLE_MS}")).await?)
    }

    /// Ends the snapshot.
    pub async fn end(&self) -> Result<(), AuditProblem> {
        Ok(self.client.batch_execute("ROLLBACK").await?)
    }
}

/// Images as a JSON array.
fn array(images: &[&str]) -> String {
    format!("[{}]", images.join(","))
}
