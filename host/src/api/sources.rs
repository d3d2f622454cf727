//! Sources: how they fare, and what is asked of them.

use cdc_rest::SourceName;

use super::{Answer, Api, Outcome, json, problems};

impl Api {
    pub(super) fn list_sources(&self) -> Answer {
        json(|out| cdc_rest::write_sources(out, &self.sources.statuses()))
    }

    pub(super) fn show_source(&self, name: &SourceName) -> Outcome {
        let status = self.sources.status(name).map_err(|error| problems::source(&error))?;
        Ok(json(|out| cdc_rest::write_source(out, &status)))
    }

    pub(super) async fn pause_source(&self, name: &SourceName) -> Outcome {
        self.sources.pause(name).await.map_err(|error| problems::source(&error))?;
        self.show_source(name)
    }

    pub(super) async fn resume_source(&self, name: &SourceName) -> Outcome {
        self.sources.resume(name).await.map_err(|error| problems::source(&error))?;
        self.show_source(name)
    }

    pub(super) async fn repair_source(&self, name: &SourceName) -> Outcome {
        self.sources.repair(name).await.map_err(|error| problems::source(&error))?;
        self.show_source(name)
    }
}
