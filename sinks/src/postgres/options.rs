//! The options of a PostgreSQL replica.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::connect::Address;
use crate::secret::Secret;
use crate::settings::{Checked, InvalidSettings, TIMEOUT_MS, default_timeout_ms, in_range};
use crate::template::Template;

/// `{"sink": "postgres", "url": "postgres://…"}`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Options {
    /// `postgres://user[:password]@host[:port]/database[?sslmode=…]`: `disable`, or `require`, `verify-ca` and
    /// `verify-full`, which all verify the server's certificate and name here. Left out, it is `disable`, and with
    /// `caFile` (or `sslrootcert`) `verify-full`.
    pub url: Secret,
    /// The password, if it is not part of `url`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// The table that rows go to; what stands before a first dot is its schema.
    #[serde(default = "default_table")]
    pub table: Template,
    /// Whether tables, and columns that are new, are made here.
    #[serde(default)]
    pub create_tables: bool,
    /// The table that the sink keeps its place in. Made here if `createTables` is set.
    #[serde(default = "default_places_table")]
    pub places_table: String,
    /// Certificates to trust instead of the public ones, as PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// How long connecting, or a batch, may take.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u32,
}

impl Options {
    /// The `sslrootcert` of the address, if that is known without looking elsewhere.
    pub(crate) fn url_ca_file(&self) -> Option<PathBuf> {
        Address::parse(self.url.given()?).ok()?.ca_file
    }
}

fn default_table() -> Template {
    #[allow(clippy::unwrap_used, reason = "a constant, which every test of options parses")]
    Template::parse("{table}").unwrap()
}

fn default_places_table() -> String {
    "cdc_places".to_owned()
}

impl Checked for Options {
    fn checked(self) -> Result<Self, InvalidSettings> {
        if let Some(url) = self.url.given() {
            Address::parse(url).map_err(|why| InvalidSettings::new("url", why))?;
        }
        if self.places_table.is_empty() {
            return Err(InvalidSettings::new("placesTable", "is empty"));
        }
        in_range("timeoutMs", self.timeout_ms, TIMEOUT_MS)?;
        Ok(self)
    }
}
