//! Writes of single rows, reads of single rows, and declarations.

use cdc_rest::{EventRef, InsertBody, Problem, RowKey, TableName, write_captured, write_schema};

use super::{Api, Outcome, full, json, problems};
use crate::ingest::Receipt;
use crate::live::event_ref;
use crate::sandbox::{Action, Change, Declaration, rest_schema, wit_column};

impl Api {
    /// `POST /data/:table` with a JSON body.
    pub(super) async fn insert(&self, table: TableName, upsert: bool, body: Vec<u8>) -> Outcome {
        let action = if upsert { Action::Upsert } else { Action::Insert };
        let image = match InsertBody::parse(&body, &self.options.limits)? {
            InsertBody::Rows(rows) => return self.insert_array(&table, action, &rows).await,
            // The body itself, when there is no white space around it.
            InsertBody::Row(row) if row.len() == body.len() => body,
            InsertBody::Row(row) => row.to_vec(),
        };
        self.change(Change { table: table.as_str().into(), action, key: Vec::new(), image }).await
    }

    /// `PUT /data/:table/:key`.
    pub(super) async fn update(&self, table: TableName, key: RowKey, upsert: bool, image: Vec<u8>) -> Outcome {
        let action = if upsert { Action::Upsert } else { Action::Update };
        self.change(Change { table: table.as_str().into(), action, key: key.into_parts(), image }).await
    }

    /// `DELETE /data/:table/:key`.
    pub(super) async fn delete(&self, table: TableName, key: RowKey) -> Outcome {
        let (table, key) = (table.as_str().into(), key.into_parts());
        self.change(Change { table, action: Action::Delete, key, image: Vec::new() }).await
    }

    /// Captures one change and answers its event.
    async fn change(&self, change: Change) -> Outcome {
        let mut receipt = self.ingest.submit(vec![change]).await.map_err(|error| problems::ingest(&error))?;
        let Some(outcome) = receipt.outcomes.pop() else { return Err(Problem::engine_failed()) };
        let sequence = outcome.map_err(problems::refused)?;
        let event = captured(&receipt, sequence).ok_or_else(Problem::engine_failed)?;
        let images = event.before.map_or(0, <[u8]>::len) + event.after.map_or(0, <[u8]>::len);
        let mut out = Vec::with_capacity(images + 256 + event.table.len());
        write_captured(&mut out, &event);
        Ok(full(cdc_rest::JSON, out))
    }

    /// `GET /data/:table/:key`.
    pub(super) async fn read_row(&self, table: TableName, key: RowKey) -> Outcome {
        let row = self.readers.short(|instance| instance.row(table.as_str(), key.parts())).await;
        let image =
            row.map_err(|error| problems::engine(&error))?.map_err(|error| problems::query(error, table.as_str()))?;
        Ok(full(cdc_rest::JSON, image.into_bytes()))
    }

    /// `PUT /schema/:table`.
    pub(super) async fn declare(&self, table: TableName, body: &[u8]) -> Outcome {
        let declared = cdc_rest::Declaration::parse(body, table.as_str())?;
        let declaration = Declaration {
            name: table.into_string(),
            columns: declared.columns.into_iter().map(wit_column).collect(),
            primary_key: declared.primary_key,
        };
        let schema = self
            .ingest
            .declare(declaration)
            .await
            .map_err(|error| problems::ingest(&error))?
            .map_err(problems::declare)?;
        Ok(json(|out| write_schema(out, &rest_schema(schema))))
    }
}

/// A captured event of a receipt, as it is shown.
fn captured(receipt: &Receipt, sequence: u64) -> Option<EventRef<'_>> {
    Some(event_ref(sequence, receipt.timestamp_ms, receipt.write(sequence)?))
}
