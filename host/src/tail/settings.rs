//! The options of `cdc tail`.

use std::time::Duration;

use clap::Args;
use http::Uri;

/// Where a service is, unless another place is named.
pub(crate) const DEFAULT_URL: &str = "http://127.0.0.1:8002";

/// What `cdc tail` runs with.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct TailSettings {
    /// The service to follow.
    #[command(flatten)]
    pub server: TailServer,

    /// Only events of this table
    #[arg(long, value_name = "TABLE", help_heading = "Selection")]
    pub table: Option<String>,

    /// Only this operation: INSERT, UPDATE, DELETE or TRUNCATE
    #[arg(long, value_name = "OPERATION", value_parser = operation, help_heading = "Selection")]
    pub operation: Option<String>,

    /// Only events of the row with this key
    #[arg(long, value_name = "KEY", help_heading = "Selection")]
    pub key: Option<String>,

    /// Begin after this sequence number [default: now]
    #[arg(long, value_name = "SEQUENCE", help_heading = "Range", conflicts_with = "from_start")]
    pub after: Option<u64>,

    /// Begin with the oldest event that is kept
    #[arg(long, help_heading = "Range")]
    pub from_start: bool,

    /// Stop after this many events
    #[arg(long, value_name = "COUNT", help_heading = "Range", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,

    /// Stop at the newest event instead of waiting for more; begins with the oldest unless told
    #[arg(long, help_heading = "Range")]
    pub once: bool,

    /// Print each event as the JSON that came, one per line
    #[arg(long, help_heading = "Output")]
    pub json: bool,
}

/// Where the events come from, and how often to ask; the `[tail]` table of the configuration file.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[command(next_help_heading = "Service ([tail] in the file)")]
pub struct TailServer {
    /// Service to follow
    #[arg(long, value_name = "URL", default_value = DEFAULT_URL, value_parser = service_url)]
    pub url: Uri,

    /// Time between asking for news, in ms
    #[arg(long = "interval-ms", value_name = "MS", default_value = "200", value_parser = interval)]
    pub interval: Duration,
}

fn operation(text: &str) -> Result<String, String> {
    match text.to_ascii_uppercase() {
        known if ["INSERT", "UPDATE", "DELETE", "TRUNCATE"].contains(&known.as_str()) => Ok(known),
        _ => Err("INSERT, UPDATE, DELETE or TRUNCATE".to_owned()),
    }
}

pub(crate) fn service_url(text: &str) -> Result<Uri, String> {
    let parsed = text.parse::<Uri>().ok();
    let usable = |uri: &Uri| {
        let plain = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        uri.scheme_str() == Some("http") && plain && uri.query().is_none()
    };
    let allowed = || "a URL like http://127.0.0.1:8002 without a user; https is not supported".to_owned();
    parsed.filter(usable).ok_or_else(allowed)
}

fn interval(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(ms @ 1..=3_600_000) => Ok(Duration::from_millis(ms)),
        _ => Err("a whole number of milliseconds from 1 to 3600000".to_owned()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use clap::{Command, FromArgMatches};

    use super::*;

    /// Settings as the command line gives them.
    pub(in crate::tail) fn settings(arguments: &[&str]) -> TailSettings {
        let command = TailSettings::augment_args(Command::new("tail").no_binary_name(true));
        let matches = command.try_get_matches_from(arguments).expect("valid arguments");
        TailSettings::from_arg_matches(&matches).expect("complete settings")
    }

    #[test]
    fn operations_are_taken_in_any_case() {
        assert_eq!(operation("Delete").as_deref(), Ok("DELETE"));
        operation("MERGE").expect_err("no operation");
    }

    #[test]
    fn a_url_is_plain_http_and_may_have_a_path() {
        assert!(service_url("http://host/base").is_ok());
        for text in ["", "host:80", "https://host", "http://u:p@host", "http://host/?q", "/events"] {
            service_url(text).expect_err(text);
        }
    }
}
