//! The sink `postgres`.

mod options;

use crate::{Event, Failure, Place, Remedy, Sink};

pub use options::*;

/// The sink.
#[allow(dead_code, reason = "the next commit builds it")]
pub struct PostgresSink {
    options: Options,
    place: Place,
}

impl PostgresSink {
    /// Makes it.
    pub fn new(options: Options, place: Place) -> Self {
        Self { options, place }
    }
}

impl Sink for PostgresSink {
    async fn deliver(&mut self, _batch: &[Event<'_>]) -> Result<(), Failure> {
        Err(Failure { index: 0, remedy: Remedy::Retry { after: None }, message: "not built yet".into(), source: None })
    }

    async fn check(&mut self) -> Vec<String> {
        vec!["not built yet".into()]
    }
}
