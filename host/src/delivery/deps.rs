//! What lanes work with.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use cdc_access::Reach;

use super::slots::Slots;
use crate::components::Components;
use crate::guest::Guest;
use crate::ingest::Ingest;
use crate::live::Tail;
use crate::readers::Readers;
use crate::schemas::Schemas;
use crate::store::Store;

/// What every lane needs.
pub(super) struct Deps {
    pub(super) store: Arc<dyn Store>,
    pub(super) tail: Arc<Tail>,
    pub(super) ingest: Ingest,
    pub(super) readers: Arc<Readers>,
    pub(super) components: Arc<Components>,
    /// The component that keeps the replica.
    pub(super) replica: Guest,
    /// What events were captured under.
    pub(super) schemas: Arc<Schemas>,
    pub(super) slots: Arc<Slots>,
    /// What subscriptions that are not declared may touch.
    pub(super) reach: Reach,
    pub(super) tasks: tokio::runtime::Handle,
    /// As many of these are held as there are lanes, and one more.
    pub(super) lanes: Arc<()>,
}

impl Deps {
    /// What a subscription may touch.
    pub(super) fn reach(&self, is_declared: bool) -> Reach {
        if is_declared { Reach::of_operator() } else { self.reach.clone() }
    }

    /// How many lanes there are.
    pub(super) fn lanes(&self) -> usize {
        Arc::strong_count(&self.lanes) - 1
    }

    /// Counts a lane for as long as this is kept.
    pub(super) fn count_lane(&self) -> Arc<()> {
        self.lanes.clone()
    }
}

/// Now, in ms since 1970.
pub(super) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}
