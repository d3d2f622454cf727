//! The options of a Redis sink.

use std::path::PathBuf;

use redis::IntoConnectionInfo as _;
use serde::{Deserialize, Serialize};

use crate::secret::Secret;
use crate::settings::{Checked, InvalidSettings, TIMEOUT_MS, default_timeout_ms, in_range};
use crate::template::Template;

/// `{"sink": "redis", "url": "redis://…"}`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Options {
    /// `redis://[user[:password]@]host[:port][/database]`, or `rediss://…` for TLS.
    pub url: Secret,
    /// The password, if it is not part of `url`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// The stream's key.
    #[serde(default = "default_stream")]
    pub stream: Template,
    /// How many entries a stream keeps, about (`MAXLEN ~`). Without end, if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_length: Option<u64>,
    /// Certificates to trust instead of the public ones, as PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// How long connecting, or writing a batch, may take.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u32,
}

fn default_stream() -> Template {
    #[allow(clippy::unwrap_used, reason = "a constant, which every test of options parses")]
    Template::parse("cdc.{table}").unwrap()
}

impl Checked for Options {
    fn checked(self) -> Result<Self, InvalidSettings> {
        if let Some(url) = self.url.given() {
            parse_url(url).map_err(|why| InvalidSettings::new("url", why))?;
            if self.ca_file.is_some() && !url.starts_with("rediss://") {
                return Err(InvalidSettings::new("caFile", "goes with an address that begins with rediss://"));
            }
        }
        if let Some(max_length) = self.max_length {
            in_range("maxLength", max_length, 1..=i64::MAX.unsigned_abs())?;
        }
        in_range("timeoutMs", self.timeout_ms, TIMEOUT_MS)?;
        Ok(self)
    }
}

/// An address of a Redis. The error reads on after the member's name, and does not quote it.
pub(super) fn parse_url(url: &str) -> Result<redis::ConnectionInfo, &'static str> {
    // The library knows nothing of TLS, which is wrapped around its connection here.
    let Some(rest) = url.strip_prefix("redis://").or_else(|| url.strip_prefix("rediss://")) else {
        return Err("must begin with redis:// or rediss://");
    };
    format!("redis://{rest}")
        .into_connection_info()
        .map_err(|_| "must be redis://[user[:password]@]host[:port][/database]")
}
