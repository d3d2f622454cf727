//! Writes of single rows, and declarations.

use cdc_engine::capture::{Action, Change};
use cdc_engine::schema::Declaration;
use cdc_engine::store::Store;
use cdc_rest::{InsertBody, Problem, RowKey, TableName, write_captured, write_schema};

use super::convert::{core_column, entry, event_ref, rest_schema};
use super::recording::Recording;
use super::{Outcome, Worker, explain, json};

impl Worker {
    /// `POST /data/:table` with a JSON body.
    pub(super) fn insert<S: Store>(
        &mut self,
        store: &S,
        now_ms: u64,
        table: &TableName,
        upsert: bool,
        body: &[u8],
    ) -> Outcome {
        let action = if upsert { Action::Upsert } else { Action::Insert };
        match InsertBody::parse(body, &self.options.limits)? {
            InsertBody::Rows(rows) => {
                let rows: Vec<&[u8]> = rows.into_iter().map(str::as_bytes).collect();
                Ok(self.insert_rows(store, now_ms, table, action, rows))
            }
            InsertBody::Row(image) => {
                let change = Change { table: table.as_str(), action, key: Vec::new(), image, origin: None };
                self.change(store, now_ms, change)
            }
        }
    }

    /// `PUT /data/:table/:key`.
    pub(super) fn update<S: Store>(
        &mut self,
        store: &S,
        now_ms: u64,
        table: &TableName,
        key: &RowKey,
        upsert: bool,
        image: &[u8],
    ) -> Outcome {
        let action = if upsert { Action::Upsert } else { Action::Update };
        let key = key.parts().iter().map(String::as_str).collect();
        self.change(store, now_ms, Change { table: table.as_str(), action, key, image, origin: None })
    }

    /// `DELETE /data/:table/:key`.
    pub(super) fn delete<S: Store>(&mut self, store: &S, now_ms: u64, table: &TableName, key: &RowKey) -> Outcome {
        let key = key.parts().iter().map(String::as_str).collect();
        let (table, action) = (table.as_str(), Action::Delete);
        self.change(store, now_ms, Change { table, action, key, image: b"", origin: None })
    }

    /// Captures one change and answers its event.
    fn change<S: Store>(&mut self, store: &S, now_ms: u64, change: Change<'_>) -> Outcome {
        let (captured, committed) = self.until_first(|capture| {
            let recording = Recording::new(store);
            let captured = capture.capture(&recording, now_ms, vec![change.clone()], Vec::new())?;
            Ok((captured, recording.into_committed()))
        })?;
        let outcome = captured.outcomes.into_iter().next().ok_or_else(Problem::engine_failed)?;
        let sequence = outcome.map_err(explain::refused)?;
        let (first, batch) = committed.ok_or_else(Problem::engine_failed)?;
        let write = usize::try_from(sequence - first).ok().and_then(|at| batch.writes.get(at));
        let entry = entry(write.ok_or_else(Problem::engine_failed)?, sequence, batch.timestamp_ms);
        let event = event_ref(&entry, &batch.texts).map_err(explain::store)?;
        Ok(json(|out| write_captured(out, &event)))
    }

    /// `PUT /schema/:table`.
    pub(super) fn declare<S: Store>(&mut self, store: &S, now_ms: u64, table: TableName, body: &[u8]) -> Outcome {
        let declared = cdc_rest::Declaration::parse(body, table.as_str())?;
        let declaration = Declaration {
            name: table.into_string(),
            columns: declared.columns.into_iter().map(core_column).collect(),
            primary_key: declared.primary_key,
        };
        let schema = self.until_first_or(
            |capture| capture.declare(store, now_ms, declaration.clone()),
            |error| matches!(error, cdc_engine::capture::DeclareError::Store(error) if super::is_conflict(error)),
        );
        let schema = schema.map_err(explain::declare)?;
        Ok(json(|out| write_schema(out, &rest_schema(schema))))
    }
}
