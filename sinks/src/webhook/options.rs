//! The options of a webhook.

use std::collections::BTreeMap;
use std::path::PathBuf;

use cdc_rest::envelope::Format;
use http::{HeaderName, HeaderValue, Uri};
use serde::{Deserialize, Serialize};

use super::signature::SigningKey;
use crate::secret::Secret;
use crate::settings::{Checked, InvalidSettings, TIMEOUT_MS, default_timeout_ms, in_range};

/// `{"sink": "webhook", "url": "https://…"}`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Options {
    /// Where events are posted to: `http` or `https`. A secret, since addresses of webhooks often hold a token.
    pub url: Secret,
    /// `whsec_…`: what bodies are signed with. Two while one takes the other's place. None: unsigned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<Secret>,
    /// Further headers of every request.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Secret>,
    /// Whether a whole batch is posted as one array, also when it is of one event. Otherwise each event is posted on
    /// its own, one after the other.
    #[serde(default)]
    pub batch: bool,
    /// Certificates to trust instead of the public ones, as PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// How long a request may take, its answer included.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u32,
}

/// Headers that the sink sets itself.
const OWN_HEADERS: &[&str] = &[
    "content-type",
    "content-length",
    "transfer-encoding",
    "connection",
    "host",
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
];

impl Options {
    pub(crate) fn fits(&self, format: Format) -> Result<(), InvalidSettings> {
        if self.batch && format.batch_content_type().is_none() {
            let why = "is `cloudevents-binary`, which has its attributes in headers, and a request has one set of them: \
                       take `cloudevents`, or leave `subscriber.batch` out";
            return Err(InvalidSettings::new("format", why));
        }
        Ok(())
    }
}

impl Checked for Options {
    fn checked(self) -> Result<Self, InvalidSettings> {
        if let Some(url) = self.url.given() {
            parse_url(url).map_err(|why| InvalidSettings::new("url", why))?;
        }
        if self.secrets.len() > 2 {
            return Err(InvalidSettings::new("secrets", "may be one, or two while one takes the other's place"));
        }
        for secret in self.secrets.iter().filter_map(Secret::given) {
            SigningKey::parse(secret).map_err(|why| InvalidSettings::new("secrets", why))?;
        }
        for (name, value) in &self.headers {
            let member = || format!("headers.{name}");
            // What follows a colon would be a value.
            let plain = || name.chars().take_while(|character| character.is_ascii_alphanumeric() || *character == '-');
            let Ok(header) = HeaderName::from_bytes(name.as_bytes()) else {
                let begins = format!("headers.{}…", plain().collect::<String>());
                return Err(InvalidSettings::new(begins, "is no name of a header"));
            };
            if OWN_HEADERS.contains(&header.as_str()) {
                return Err(InvalidSettings::new(member(), "is set by the sink itself"));
            }
            if value.given().is_some_and(|value| HeaderValue::from_str(value).is_err()) {
                return Err(InvalidSettings::new(member(), "has characters that no header may have"));
            }
        }
        in_range("timeoutMs", self.timeout_ms, TIMEOUT_MS)?;
        Ok(self)
    }
}

/// An address to post to. The error reads on after the member's name, and does not quote it.
pub(super) fn parse_url(url: &str) -> Result<Uri, &'static str> {
    let uri: Uri = url.parse().map_err(|_| "is no address")?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err("must begin with http:// or https://");
    }
    match uri.authority() {
        None => Err("names no host"),
        Some(authority) if authority.as_str().contains('@') => {
            Err("has a user in it: send an `authorization` header instead, in `headers`")
        }
        Some(authority) if authority.host().is_empty() => Err("names no host"),
        Some(_) => Ok(uri),
    }
}
