//! The options of a Kafka sink.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::properties;
use crate::secret::Secret;
use crate::settings::{Checked, InvalidSettings, TIMEOUT_MS, default_timeout_ms, in_range};
use crate::template::Template;

/// `{"sink": "kafka", "brokers": ["host:9092"]}`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Options {
    /// Some brokers of the cluster: `host:port`.
    pub brokers: Vec<String>,
    /// The topic. Characters that topics do not allow become `_`.
    #[serde(default = "default_topic")]
    pub topic: Template,
    /// Further properties of librdkafka's producer, of those that `properties` allows.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, Secret>,
    /// How long a batch may take until its last delivery report.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u32,
}

impl Options {
    /// The properties that no message may show.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &Secret> {
        self.properties.iter().filter(|(name, _)| properties::is_secret(name)).map(|(_, value)| value)
    }
}

fn default_topic() -> Template {
    #[allow(clippy::unwrap_used, reason = "a constant, which every test of options parses")]
    Template::parse("cdc.{table}").unwrap()
}

impl Checked for Options {
    fn checked(self) -> Result<Self, InvalidSettings> {
        if self.brokers.is_empty() || self.brokers.len() > 100 {
            return Err(InvalidSettings::new("brokers", "must name 1 to 100 brokers"));
        }
        for (index, broker) in self.brokers.iter().enumerate() {
            let port = broker.rsplit_once(':').filter(|(host, _)| !host.is_empty());
            if port.is_none_or(|(_, port)| port.parse::<u16>().is_err()) || broker.contains([',', ' ', '/', '@']) {
                return Err(InvalidSettings::new(format!("brokers[{index}]"), "must be host:port"));
            }
        }
        for (name, value) in &self.properties {
            properties::check(name, value).map_err(|why| InvalidSettings::new(format!("properties.{name}"), why))?;
        }
        in_range("timeoutMs", self.timeout_ms, TIMEOUT_MS)?;
        Ok(self)
    }
}
