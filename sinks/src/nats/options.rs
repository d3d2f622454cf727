//! The options of a NATS sink.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::secret::Secret;
use crate::settings::{Checked, InvalidSettings, TIMEOUT_MS, default_timeout_ms, in_range};
use crate::template::Template;

/// `{"sink": "nats", "servers": ["nats://…"]}`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Options {
    /// Servers of one cluster: `nats://host[:port]`, or `tls://…`.
    pub servers: Vec<String>,
    /// With `password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// With `user`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// A token instead of a user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
    /// A seed of an nkey (`SU…`) instead of a user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nkey_seed: Option<Secret>,
    /// A file of credentials (`.creds`) instead of a user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_file: Option<PathBuf>,
    /// The subject. Characters that subjects do not allow are percent-encoded; dots of a table's name divide tokens.
    #[serde(default = "default_subject")]
    pub subject: Template,
    /// The stream that takes the subjects, if it is not to be made here: with it, no other stream's acknowledgement
    /// counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// Makes the stream if it is not there. One that is there is left as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub create_stream: Option<CreateStream>,
    /// Certificates to trust instead of the public ones, as PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// How long connecting, or a batch until its last acknowledgement, may take.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u32,
}

/// The stream to make.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateStream {
    /// Its subjects. None: what `subject` can become, `>` standing for the table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subjects: Vec<String>,
    /// Where it is kept.
    #[serde(default)]
    pub storage: Storage,
    /// How many servers keep it, 1 to 5.
    #[serde(default = "one")]
    pub replicas: u8,
    /// Messages older than this are dropped. 0: none.
    #[serde(default)]
    pub max_age_seconds: u64,
    /// The oldest messages are dropped beyond this size. 0: none.
    #[serde(default)]
    pub max_bytes: u64,
    /// For how long the server remembers ids and drops a message that comes again.
    #[serde(default = "two_minutes")]
    pub duplicate_window_seconds: u64,
}

/// Where a stream is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Storage {
    /// On disk.
    #[default]
    File,
    /// In memory: gone with the server.
    Memory,
}

fn default_subject() -> Template {
    #[allow(clippy::unwrap_used, reason = "a constant, which every test of options parses")]
    Template::parse("cdc.{table}").unwrap()
}

fn one() -> u8 {
    1
}

fn two_minutes() -> u64 {
    120
}

impl Checked for Options {
    fn checked(self) -> Result<Self, InvalidSettings> {
        if self.servers.is_empty() || self.servers.len() > 100 {
            return Err(InvalidSettings::new("servers", "must name 1 to 100 servers"));
        }
        for (index, server) in self.servers.iter().enumerate() {
            let member = || format!("servers[{index}]");
            if server.contains('@') {
                return Err(InvalidSettings::new(member(), "has a user in it: take `user` and `password`"));
            }
            if !server.starts_with("nats://") && !server.starts_with("tls://") {
                return Err(InvalidSettings::new(member(), "must begin with nats:// or tls://"));
            }
            if server.parse::<async_nats::ServerAddr>().is_err() {
                return Err(InvalidSettings::new(member(), "must be nats://host[:port] or tls://host[:port]"));
            }
        }
        if self.user.is_some() != self.password.is_some() {
            let (there, missing) = if self.user.is_some() { ("user", "password") } else { ("password", "user") };
            return Err(InvalidSettings::new(there, format!("goes with `{missing}`")));
        }
        let ways = [
            ("user", self.user.is_some()),
            ("token", self.token.is_some()),
            ("nkeySeed", self.nkey_seed.is_some()),
            ("credentialsFile", self.credentials_file.is_some()),
        ];
        let mut ways = ways.iter().filter(|(_, is_given)| *is_given).map(|(name, _)| *name);
        if let (Some(first), Some(second)) = (ways.next(), ways.next()) {
            return Err(InvalidSettings::new(second, format!("does not go with `{first}`: log in one way")));
        }
        if let Some(text) =
            self.subject.texts().find(|text| text.contains(|c: char| c.is_whitespace() || "*>".contains(c)))
        {
            return Err(InvalidSettings::new(
                "subject",
                format!("has {text:?} in it; subjects of messages have no space, * and >"),
            ));
        }
        if let Some(stream) = &self.stream
            && (stream.is_empty()
                || stream.contains(|c: char| c.is_whitespace() || c.is_control() || ".*>/\\".contains(c)))
        {
            return Err(InvalidSettings::new("stream", "is no name of a stream: no space and none of . * > / \\"));
        }
        if let Some(create) = &self.create_stream {
            if self.stream.is_none() {
                return Err(InvalidSettings::new("createStream", "goes with `stream`, which names it"));
            }
            in_range("createStream.replicas", create.replicas, 1..=5)?;
            in_range("createStream.maxBytes", create.max_bytes, 0..=i64::MAX.unsigned_abs())?;
            in_range("createStream.maxAgeSeconds", create.max_age_seconds, 0..=3_153_600_000)?;
            in_range("createStream.duplicateWindowSeconds", create.duplicate_window_seconds, 1..=3_153_600_000)?;
        }
        in_range("timeoutMs", self.timeout_ms, TIMEOUT_MS)?;
        Ok(self)
    }
}
