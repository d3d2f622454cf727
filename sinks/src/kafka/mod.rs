//! The sink `kafka`.

mod options;

use cdc_rest::envelope::Format;

use crate::{Event, Failure, Remedy, Sink};

pub use options::*;

/// The sink.
#[allow(dead_code, reason = "the next commit builds it")]
pub struct KafkaSink {
    options: Options,
    format: Format,
}

impl KafkaSink {
    /// Makes it.
    pub fn new(options: Options, format: Format) -> Self {
        Self { options, format }
    }
}

impl Sink for KafkaSink {
    async fn deliver(&mut self, _batch: &[Event<'_>]) -> Result<(), Failure> {
        Err(Failure { index: 0, remedy: Remedy::Retry { after: None }, message: "not built yet".into(), source: None })
    }

    async fn check(&mut self) -> Vec<String> {
        vec!["not built yet".into()]
    }
}
