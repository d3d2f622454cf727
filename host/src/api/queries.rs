//! Events, statistics and schemas.

use bytes::Bytes;
use cdc_rest::envelope::{Format, Subject};
use cdc_rest::{
    EventRef, EventsWriter, OriginRef, TableName, event_id, write_schema, write_schema_history, write_schemas,
    write_statistics,
};

use super::{Api, Outcome, full, json, problems};
use crate::sandbox::{
    EngineError, EventPage, EventQuery, EventView, Instance, Operation, Order, QueryError, rest_schema,
};

/// Up to this many events a query is answered on the thread that reads requests; more take long enough to be worth a
/// thread of their own.
const SHORT_PAGE: u32 = 1_000;

impl Api {
    /// `GET /events`.
    pub(super) async fn events(&self, asked: cdc_rest::EventQuery) -> Outcome {
        if let Some(bounds) = self.readers.bounds()
            && let Some(page) = self.pages.get(&asked, &bounds)
        {
            self.metrics.engine.pages_reused.inc();
            return Ok(full(cdc_rest::JSON, page));
        }
        let query = asked.clone();
        let query = EventQuery {
            table: query.table.map(TableName::into_string),
            operation: query.operation.map(|operation| match operation {
                cdc_rest::Operation::Insert => Operation::Insert,
                cdc_rest::Operation::Update => Operation::Update,
                cdc_rest::Operation::Delete => Operation::Delete,
                cdc_rest::Operation::Truncate => Operation::Truncate,
            }),
            key: query.key,
            since: query.since_ms,
            after: query.after,
            limit: query.limit,
            order: match query.order {
                cdc_rest::Order::Ascending => Order::Ascending,
                cdc_rest::Order::Descending => Order::Descending,
            },
        };
        let page = if query.limit <= SHORT_PAGE {
            self.query(|instance| instance.events(&query), "", problems::query).await?
        } else {
            let readers = self.readers.clone();
            let page = tokio::task::spawn_blocking(move || readers.run(|instance| instance.events(&query))).await;
            page.map_err(|_| cdc_rest::Problem::engine_failed())?
                .map_err(|error| problems::engine(&error))?
                .map_err(|error| problems::query(error, ""))?
        };
        let body = Bytes::from(self.render(&page, asked.format)?);
        self.pages.put(asked, page.bounds.oldest, page.bounds.newest, &body);
        Ok(full(cdc_rest::JSON, body))
    }

    /// `GET /stats`.
    pub(super) async fn statistics(&self) -> Outcome {
        let statistics = self.query(Instance::stats, "", problems::query).await?;
        Ok(json(|out| {
            write_statistics(
                out,
                &cdc_rest::Statistics {
                    total_events: statistics.total_events,
                    inserts: statistics.inserts,
                    updates: statistics.updates,
                    deletes: statistics.deletes,
                    truncates: statistics.truncates,
                    tables: &statistics.tables,
                    last_event_time_ms: statistics.last_event_time,
                    events_per_second: statistics.events_per_second,
                    current_sequence: statistics.current_sequence,
                    // Nothing waits for a stream publisher while there is none.
                    buffer_size: self.subscriptions.waiting_for("publisher"),
                },
            );
        }))
    }

    /// `GET /schemas`.
    pub(super) async fn schemas(&self) -> Outcome {
        let schemas: Vec<_> =
            self.query(Instance::schemas, "", problems::query).await?.into_iter().map(rest_schema).collect();
        Ok(json(|out| write_schemas(out, &schemas)))
    }

    /// `GET /schema/:table`.
    pub(super) async fn schema(&self, table: TableName, version: Option<u32>) -> Outcome {
        let schema = self
            .query(|instance| instance.schema(table.as_str(), version), table.as_str(), problems::schema_query)
            .await?;
        Ok(json(|out| write_schema(out, &rest_schema(schema))))
    }

    /// `GET /schema/:table/history`.
    pub(super) async fn schema_history(&self, table: TableName) -> Outcome {
        let history = self
            .query(|instance| instance.schema_history(table.as_str()), table.as_str(), problems::schema_query)
            .await?;
        let history: Vec<_> = history.into_iter().map(rest_schema).collect();
        Ok(json(|out| write_schema_history(out, table.as_str(), &history)))
    }

    fn render(&self, page: &EventPage, format: Format) -> Result<Vec<u8>, cdc_rest::Problem> {
        let mut out = Vec::with_capacity(128 + page.text_bytes() + page.len() * 256);
        let mut writer = EventsWriter::begin(&mut out);
        for event in page.events() {
            if format == Format::Native {
                writer.event(&mut out, &event_ref(&event));
                continue;
            }
            let schema =
                self.schemas.get(event.table, event.schema_version).map_err(|error| problems::store(&error))?;
            let id = event_id(event.timestamp_ms, event.sequence);
            let (key, event) = (event.key, event_ref(&event));
            let subject = Subject { event, id: &id, key, schema: &schema, subscription: None };
            writer.envelope(&mut out, format, &subject);
        }
        writer.end(&mut out, page.next_after, page.bounds.oldest);
        Ok(out)
    }

    /// Asks the engine about a table; `explain` says what an error means to the client.
    async fn query<T>(
        &self,
        call: impl FnOnce(&mut Instance) -> Result<Result<T, QueryError>, EngineError>,
        table: &str,
        explain: fn(QueryError, &str) -> cdc_rest::Problem,
    ) -> Result<T, cdc_rest::Problem> {
        let answered = self.readers.short(call).await.map_err(|error| problems::engine(&error))?;
        answered.map_err(|error| explain(error, table))
    }
}

fn event_ref<'a>(event: &EventView<'a>) -> EventRef<'a> {
    EventRef {
        sequence: event.sequence,
        timestamp_ms: event.timestamp_ms,
        table: event.table,
        operation: match event.operation {
            Operation::Insert => cdc_rest::Operation::Insert,
            Operation::Update => cdc_rest::Operation::Update,
            Operation::Delete => cdc_rest::Operation::Delete,
            Operation::Truncate => cdc_rest::Operation::Truncate,
        },
        before: event.before,
        after: event.after,
        schema_version: event.schema_version,
        origin: event.origin.map(|origin| OriginRef {
            source: origin.source,
            transaction: origin.transaction,
            position: origin.position,
            snapshot: origin.snapshot,
            committed_at_ms: origin.committed_at_ms,
            unavailable: origin.unavailable,
        }),
    }
}
