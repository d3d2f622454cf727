//! Subscriptions, their dead letters, and traces.

use std::sync::Arc;

use cdc_rest::{
    AuditRequest, Code, DeadLetterChoice, DeadLetterQuery, Problem, Rewind, RowKey, Start, SubscriptionId,
    SubscriptionSpec, TableName,
};
use serde::Serialize;

use super::{Api, Outcome, full, json, problems};
use crate::delivery::{DryRun, Letters, RewindTo, SubscriptionError, Subscriptions};

impl Api {
    /// Does something that waits for disks, compilers or lanes, on a thread where waiting holds up nobody.
    pub(super) async fn waiting<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let done = tokio::task::spawn_blocking(work).await;
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }

    async fn with_subscriptions<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Subscriptions) -> Result<T, SubscriptionError> + Send + 'static,
    ) -> Result<T, Problem> {
        let subscriptions = self.subscriptions.clone();
        self.waiting(move || work(&subscriptions)).await.map_err(|error| problems::subscription(&error))
    }

    pub(super) async fn list_subscriptions(&self) -> Outcome {
        #[derive(Serialize)]
        struct List<T> {
            subscriptions: Vec<T>,
            count: usize,
        }
        let subscriptions = self.with_subscriptions(Subscriptions::statuses).await?;
        let count = subscriptions.len();
        written(&List { subscriptions, count })
    }

    pub(super) async fn show_subscription(&self, id: SubscriptionId) -> Outcome {
        written(&self.with_subscriptions(move |all| all.status(&id)).await?)
    }

    pub(super) async fn define_subscription(&self, id: SubscriptionId, body: Vec<u8>) -> Outcome {
        let spec = SubscriptionSpec::parse(&body)?;
        let status = self.with_subscriptions(move |all| {
            all.put(&id, spec)?;
            all.status(&id)
        });
        written(&status.await?)
    }

    pub(super) async fn delete_subscription(&self, id: SubscriptionId) -> Outcome {
        #[derive(Serialize)]
        struct Deleted {
            deleted: String,
        }
        let deleted = id.as_str().to_owned();
        self.with_subscriptions(move |all| all.remove(&id)).await?;
        written(&Deleted { deleted })
    }

    pub(super) async fn pause_subscription(&self, id: SubscriptionId, is_paused: bool) -> Outcome {
        let status = self.with_subscriptions(move |all| {
            all.pause(&id, is_paused)?;
            all.status(&id)
        });
        written(&status.await?)
    }

    pub(super) async fn rewind_subscription(&self, id: SubscriptionId, body: Vec<u8>) -> Outcome {
        let to = match Rewind::parse(&body)?.to {
            Start::Beginning => RewindTo::Beginning,
            Start::At(sequence) => RewindTo::Event(sequence),
            Start::Now | Start::Snapshot => RewindTo::Now,
        };
        let status = self.with_subscriptions(move |all| {
            all.rewind(&id, to)?;
            all.status(&id)
        });
        written(&status.await?)
    }

    pub(super) async fn test_subscription(&self, id: SubscriptionId, body: Vec<u8>) -> Outcome {
        let asked = cdc_rest::DryRun::parse(&body)?;
        let run = DryRun {
            version: asked.component.as_ref().and_then(|component| component.version),
            component: asked.component.map(|component| component.name),
            against: asked.against,
            from: asked.from,
            to: asked.to,
        };
        written(&self.with_subscriptions(move |all| all.dry_run(&id, &run)).await?)
    }

    pub(super) fn show_subscription_audit(&self, id: &SubscriptionId) -> Outcome {
        let audit = self.subscriptions.audit(id).map_err(|error| problems::subscription(&error))?;
        Ok(json(|out| cdc_rest::write_subscription_audit(out, &audit)))
    }

    pub(super) async fn audit_subscription(&self, id: SubscriptionId, request: AuditRequest) -> Outcome {
        let of = id.clone();
        self.with_subscriptions(move |all| all.begin_audit(&of, &request.tables)).await?;
        self.show_subscription_audit(&id)
    }

    pub(super) async fn dead_letters(&self, id: SubscriptionId, query: DeadLetterQuery) -> Outcome {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Page<T> {
            dead_letters: Vec<T>,
            count: usize,
            has_more: bool,
        }
        let page = self.with_subscriptions(move |all| {
            all.dead_letters(&id, (query.after > 0).then_some(query.after), query.limit as usize)
        });
        let (dead_letters, has_more) = page.await?;
        let count = dead_letters.len();
        written(&Page { dead_letters, count, has_more })
    }

    pub(super) async fn retry_dead_letters(&self, id: SubscriptionId, body: Vec<u8>) -> Outcome {
        #[derive(Serialize)]
        struct Failed {
            sequence: u64,
            reason: String,
        }
        #[derive(Serialize)]
        struct Retried {
            delivered: Vec<u64>,
            failed: Vec<Failed>,
        }
        let which = letters(DeadLetterChoice::parse(&body)?);
        let retried = self.with_subscriptions(move |all| all.retry_dead_letters(&id, &which)).await?;
        let failed = retried.failed.into_iter().map(|(sequence, reason)| Failed { sequence, reason }).collect();
        written(&Retried { delivered: retried.delivered, failed })
    }

    pub(super) async fn discard_dead_letters(&self, id: SubscriptionId, body: Vec<u8>) -> Outcome {
        #[derive(Serialize)]
        struct Discarded {
            discarded: u64,
        }
        let which = letters(DeadLetterChoice::parse(&body)?);
        let discarded = self.with_subscriptions(move |all| all.discard_dead_letters(&id, &which)).await?;
        written(&Discarded { discarded })
    }

    pub(super) async fn trace(self: &Arc<Self>, table: TableName, key: RowKey) -> Outcome {
        #[derive(Serialize)]
        struct Trace<T> {
            table: String,
            key: String,
            events: Vec<T>,
            count: usize,
        }
        // As events show it: parts with their separators escaped, joined.
        let (table, key) = (table.as_str().to_owned(), key.joined());
        let (asked_table, asked_key) = (table.clone(), key.clone());
        let events = self.with_subscriptions(move |all| all.trace(&asked_table, &asked_key)).await?;
        if events.is_empty() {
            let detail = format!("no event of the row {key} of table {table} is kept");
            return Err(Problem::new(Code::UnknownRow, detail));
        }
        let count = events.len();
        written(&Trace { table, key, events, count })
    }
}

fn letters(choice: DeadLetterChoice) -> Letters {
    match choice {
        DeadLetterChoice::All => Letters::All,
        DeadLetterChoice::Sequences(sequences) => Letters::Of(sequences),
    }
}

/// An answer in JSON.
pub(super) fn written(value: &impl Serialize) -> Outcome {
    match serde_json::to_vec(value) {
        Ok(bytes) => Ok(full(cdc_rest::JSON, bytes)),
        Err(error) => {
            tracing::error!(%error, "an answer cannot be written");
            Err(Problem::engine_failed())
        }
    }
}
