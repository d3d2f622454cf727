//! The sink `redis`.

mod options;

use cdc_rest::envelope::Format;

use crate::{Event, Failure, Place, Remedy, Sink};

pub use options::*;

/// The sink.
#[allow(dead_code, reason = "the next commit builds it")]
pub struct RedisSink {
    options: Options,
    format: Format,
    place: Place,
}

impl RedisSink {
    /// Makes it.
    pub fn new(options: Options, format: Format, place: Place) -> Self {
        Self { options, format, place }
    }
}

impl Sink for RedisSink {
    async fn deliver(&mut self, _batch: &[Event<'_>]) -> Result<(), Failure> {
        Err(Failure { index: 0, remedy: Remedy::Retry { after: None }, message: "not built yet".into(), source: None })
    }

    async fn check(&mut self) -> Vec<String> {
        vec!["not built yet".into()]
    }
}
