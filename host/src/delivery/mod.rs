//! Delivery: durable subscriptions, and the lanes that take events from the log to their subscribers.
//!
//! At least once, in order per row. A batch is acknowledged before the cursor moves, the cursor is durable before the
//! next batch goes out, and a restart goes on there. What a subscriber refuses for good is kept as a dead letter.
//!
//! A subscription works for itself: a slow, failing or hostile one costs the others nothing but its share of the
//! processor, and writers not even that. It reads the log, and nobody waits for it.

mod attempts;
mod audit;
mod builtin;
mod dead_letters;
mod deps;
mod dry_run;
mod error;
mod lane;
mod namespace;
mod picked;
mod records;
mod replica;
mod rows;
mod sink;
mod slots;
mod status;
mod subscription;
mod subscriptions;
mod target;
mod threads;
mod trace;

use std::sync::Arc;

use cdc_access::Reach;
use cdc_rest::{SubscriptionId, SubscriptionSpec};

use crate::components::Components;
use crate::guest::Guest;
use crate::ingest::Ingest;
use crate::live::Tail;
use crate::readers::Readers;
use crate::schemas::Schemas;
use crate::store::Store;

pub use builtin::BuiltIn;
pub use dead_letters::{Letter, Letters};
pub use dry_run::{DryRun, DryRunReport};
pub use error::SubscriptionError;
pub use replica::Replica;
pub use sink::check;
pub use status::{Status, SubscriptionFigures};
pub use subscription::{Counts, LastFailure, Retried};
pub use subscriptions::{RewindTo, Subscriptions};
pub use trace::EventTrace;

/// What delivery is built on.
#[derive(Debug)]
pub struct Parts {
    /// Cursors, dead letters, keys and values.
    pub store: Arc<dyn Store>,
    /// The events.
    pub tail: Arc<Tail>,
    /// Makes documents and cursors durable.
    pub ingest: Ingest,
    /// Makes snapshots.
    pub readers: Arc<Readers>,
    /// The components that users have uploaded.
    pub components: Arc<Components>,
    /// The component that keeps the replica.
    pub replica: Guest,
    /// What events were captured under.
    pub schemas: Arc<Schemas>,
}

/// How delivery is set up.
#[derive(Debug)]
pub struct DeliveryOptions {
    /// The most subscriptions.
    pub max_subscriptions: usize,
    /// Lanes that work at once.
    pub slots: usize,
    /// What the configuration declares.
    pub declared: Vec<(SubscriptionId, SubscriptionSpec)>,
    /// What all others may touch.
    pub reach: Reach,
}

/// Starts to deliver. Blocks while components are compiled; the lanes wait for their timers and requests on `tasks`.
pub fn start(
    parts: Parts,
    options: DeliveryOptions,
    tasks: tokio::runtime::Handle,
) -> Result<Subscriptions, SubscriptionError> {
    let Parts { store, tail, ingest, readers, components, replica, schemas } = parts;
    let slots = slots::Slots::new(options.slots);
    let lanes = Arc::new(());
    let reach = options.reach;
    let deps = deps::Deps { store, tail, ingest, readers, components, replica, schemas, slots, reach, tasks, lanes };
    Subscriptions::open(Arc::new(deps), options.max_subscriptions, options.declared)
}
