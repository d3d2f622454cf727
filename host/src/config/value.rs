//! How option values are written: sizes, ages, counts, and the small enums of `cdc serve`.
//!
//! Every parser here is pure and answers with a sentence that says what is allowed, because that sentence is what
//! the operator reads, whether the value came from a flag, a variable or the configuration file.

use std::fmt::{self, Display};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use cdc_access::{InvalidNetwork, Network};
use tracing_subscriber::filter::Targets;

/// One kibibyte.
pub const KIB: u64 = 1 << 10;
/// One mebibyte.
pub const MIB: u64 = 1 << 20;
/// One gibibyte.
pub const GIB: u64 = 1 << 30;
/// One tebibyte.
pub const TIB: u64 = 1 << 40;

/// A bound that may be absent: `None` is written `unlimited`.
///
/// An alias and not a bare `Option`, because clap reads `Option` as "this option may be left out".
pub type Cap<T> = Option<T>;

/// When a write is answered relative to its fsync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Answered after the fsync that covers it. Nothing acknowledged is ever lost.
    Commit,
    /// Answered once written; an fsync follows at least this often. A power loss may cost that much.
    Interval(Duration),
    /// Answered once written; the operating system decides when it reaches the disk.
    None,
}

impl FromStr for Durability {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            None if text == "commit" => Ok(Self::Commit),
            None if text == "none" => Ok(Self::None),
            Some(("interval", ms)) => milliseconds_in(1..=60_000)(ms).map(Self::Interval),
            _ => Err(String::new()),
        }
        .map_err(|_: String| "commit, none, or interval=<ms> with 1 to 60000 milliseconds".to_owned())
    }
}

/// What happens to a table nobody declared, and to a value that does not fit its column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchemaMode {
    /// Tables and columns appear with their first write; a conflicting type widens the column to `any`.
    Infer,
    /// A value of the wrong type is refused.
    Strict,
}

impl FromStr for SchemaMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "infer" => Ok(Self::Infer),
            "strict" => Ok(Self::Strict),
            _ => Err("infer or strict".to_owned()),
        }
    }
}

/// An origin that browsers may call the API from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CorsOrigin {
    /// `*`: every origin.
    Any,
    /// Exactly this origin, as a browser sends it: `scheme://host[:port]`, in lower case.
    Exact(String),
}

impl AsRef<str> for CorsOrigin {
    fn as_ref(&self) -> &str {
        match self {
            Self::Any => "*",
            Self::Exact(origin) => origin,
        }
    }
}

impl FromStr for CorsOrigin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Any);
        }
        // A browser compares origins byte by byte: a trailing slash or a path would silently never match.
        let (scheme, host) = text.split_once("://").unwrap_or_default();
        let of = |part: &str, more: &[u8]| {
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || more.contains(&byte))
        };
        if !of(scheme, b"+-.") || !of(host, b".-_:[]") {
            return Err("*, or origins like https://app.example.com:8443 without a path".to_owned());
        }
        Ok(Self::Exact(text.to_ascii_lowercase()))
    }
}

/// An address to listen on; `localhost` needs no resolver, other names are not looked up.
pub(crate) fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let numeric = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    numeric.parse().map_err(|_| {
        "an IP address and a port, like 127.0.0.1:8002, [::]:8002 or localhost:8002 (port 0 picks a free one)"
            .to_owned()
    })
}

/// A host that the service is reached by: a name or an address, with a port or without.
pub(crate) fn host_name(text: &str) -> Result<String, String> {
    let authority = text.parse::<http::uri::Authority>().ok().filter(|authority| !authority.host().is_empty());
    let is_plain = !text.contains(['@', '*', '/']) && !text.ends_with([':', '.']);
    match authority {
        Some(authority) if is_plain => Ok(authority.as_str().to_ascii_lowercase()),
        _ => Err("hosts like cdc.example or cdc.example:8443, without a scheme or a path".to_owned()),
    }
}

/// A range of addresses.
pub(crate) fn network(text: &str) -> Result<Network, String> {
    text.parse().map_err(|error: InvalidNetwork| error.to_string())
}

/// `true` or `false`.
pub(crate) fn yes_or_no(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "true or false".to_owned())
}

/// A filter of `tracing-subscriber`: levels, and targets with theirs. A bare word is a level; the library would take
/// any other for a target.
pub(crate) fn log_filter(text: &str) -> Result<String, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let words = text.split(',').filter(|part| !part.contains('='));
    let levels = words.clone().all(|word| LEVELS.iter().any(|level| word.trim().eq_ignore_ascii_case(level)));
    match text.parse::<Targets>() {
        Ok(_) if levels => Ok(text.to_owned()),
        _ => Err("error, warn, info, debug, trace, off, or a list like info,cdc_host::ingest=debug".to_owned()),
    }
}

/// A whole number in a range; `_` may group digits.
pub(crate) fn count_in<T>(range: RangeInclusive<u64>) -> impl Fn(&str) -> Result<T, String> + Clone
where
    T: TryFrom<u64>,
{
    move |text| {
        let number = digits(text).filter(|number| range.contains(number)).and_then(|number| T::try_from(number).ok());
        number.ok_or_else(|| format!("a whole number from {} to {}", range.start(), range.end()))
    }
}

/// A size in bytes in a range, with or without a unit.
pub(crate) fn bytes_in<T>(range: RangeInclusive<u64>) -> impl Fn(&str) -> Result<T, String> + Clone
where
    T: TryFrom<u64>,
{
    move |text| {
        let size = bytes(text).filter(|size| range.contains(size)).and_then(|size| T::try_from(size).ok());
        size.ok_or_else(|| {
            let (low, high) = (Bytes(*range.start()), Bytes(*range.end()));
            format!("a size from {low} to {high}, in bytes or with kB, MB, GB, TB, KiB, MiB, GiB or TiB")
        })
    }
}

/// A time span in milliseconds in a range.
pub(crate) fn milliseconds_in(range: RangeInclusive<u64>) -> impl Fn(&str) -> Result<Duration, String> + Clone {
    let count = count_in::<u64>(range.clone());
    move |text| match count(text) {
        Ok(ms) => Ok(Duration::from_millis(ms)),
        Err(_) => Err(format!("a whole number of milliseconds from {} to {}", range.start(), range.end())),
    }
}

/// An age of at least a second, with a unit: `45s`, `30m`, `12h`, `7d`.
pub(crate) fn age(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit_seconds = match unit {
        "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3_600),
        "d" => Some(86_400),
        _ => None,
    };
    // A hundred years: far beyond any use, and far from overflowing what is computed from it.
    let seconds = unit_seconds.zip(digits(number)).and_then(|(unit, number)| number.checked_mul(unit));
    match seconds {
        Some(seconds @ 1..=3_155_760_000) => Ok(Duration::from_secs(seconds)),
        _ => Err("a time like 45s, 30m, 12h or 7d, of at least 1s and at most 100 years".to_owned()),
    }
}

/// Wraps a parser so that `unlimited` is allowed too.
pub(crate) fn or_unlimited<T>(
    parse: impl Fn(&str) -> Result<T, String> + Clone,
) -> impl Fn(&str) -> Result<Cap<T>, String> + Clone {
    move |text| match text {
        "unlimited" => Ok(None),
        _ => parse(text).map(Some).map_err(|allowed| format!("unlimited, or {allowed}")),
    }
}

/// Digits with optional `_` between them. No sign: a negative count is as wrong as a word.
fn digits(text: &str) -> Option<u64> {
    let plain: String = text.chars().filter(|c| *c != '_').collect();
    let valid = text.starts_with(|c: char| c.is_ascii_digit()) && plain.bytes().all(|byte| byte.is_ascii_digit());
    if valid { plain.parse().ok() } else { None }
}

fn bytes(text: &str) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "kib" => KIB,
        "mib" => MIB,
        "gib" => GIB,
        "tib" => TIB,
        _ => return None,
    };
    digits(number)?.checked_mul(factor)
}

/// Shows a size in the largest binary unit that keeps it whole.
struct Bytes(u64);

impl Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, name) in [(TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")] {
            if self.0 >= unit && self.0.is_multiple_of(unit) {
                return write!(f, "{}{name}", self.0 / unit);
            }
        }
        write!(f, "{}", self.0)
    }
}

/// The name of a part of the service that is a subscriber, or none for no such part.
pub(super) fn builtin_subscriber(text: &str) -> Result<String, String> {
    match text {
        "console" | "publisher" | "replication" | "none" => Ok(text.to_owned()),
        _ => Err("console, publisher, replication or none".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_binary_and_decimal_units_and_plain_numbers() {
        let parse = bytes_in::<u64>(1..=TIB);
        for (text, expected) in [
            ("1", 1),
            ("1_000", 1_000),
            ("2kB", 2_000),
            ("512MiB", 512 * MIB),
            ("1 gib", GIB),
            ("1TiB", TIB),
            ("3MB", 3_000_000),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn sizes_outside_the_range_or_overflowing_say_what_is_allowed() {
        let parse = bytes_in::<u64>(KIB..=GIB);
        for text in ["", "-1", "+5", "1.5MiB", "1PiB", "99999999999999999999", "18446744073709551615TiB", "1023", "_1k"]
        {
            let message = parse(text).expect_err(text);
            assert!(message.starts_with("a size from 1KiB to 1GiB"), "{message}");
        }
    }

    #[test]
    fn ages_need_a_unit_and_stay_within_a_century() {
        assert_eq!(age("7d"), Ok(Duration::from_secs(7 * 86_400)));
        assert_eq!(age("12h"), Ok(Duration::from_secs(12 * 3_600)));
        assert_eq!(age("30m"), Ok(Duration::from_secs(1_800)));
        assert_eq!(age("45s"), Ok(Duration::from_secs(45)));
        for text in ["", "7", "0s", "d", "-1d", "7 d", "1w", "99999999999999d", "40000d"] {
            age(text).expect_err(text);
        }
    }

    #[test]
    fn durability_has_three_forms() {
        assert_eq!("commit".parse(), Ok(Durability::Commit));
        assert_eq!("none".parse(), Ok(Durability::None));
        assert_eq!("interval=50".parse(), Ok(Durability::Interval(Duration::from_millis(50))));
        for text in ["", "Commit", "interval", "interval=", "interval=0", "interval=60001", "none=1"] {
            text.parse::<Durability>().expect_err(text);
        }
    }

    #[test]
    fn cors_origins_are_compared_as_browsers_send_them() {
        assert_eq!("*".parse(), Ok(CorsOrigin::Any));
        assert_eq!("https://App.example:8443".parse(), Ok(CorsOrigin::Exact("https://app.example:8443".to_owned())));
        for text in ["", "example.com", "https://", "https://a/", "://a", "https://a b", "https://*.example.com"] {
            text.parse::<CorsOrigin>().expect_err(text);
        }
    }

    #[test]
    fn listening_takes_addresses_and_localhost() {
        assert_eq!(listen_address("localhost:0"), Ok(SocketAddr::from(([127, 0, 0, 1], 0))));
        assert!(listen_address("[::1]:80").is_ok());
        for text in ["", "8002", "example.com:80", "1.2.3.4", "1.2.3.4:65536"] {
            listen_address(text).expect_err(text);
        }
    }

    #[test]
    fn unlimited_is_a_word() {
        let parse = or_unlimited(count_in::<u64>(1..=9));
        assert_eq!(parse("unlimited"), Ok(None));
        assert_eq!(parse("9"), Ok(Some(9)));
        assert_eq!(parse("0"), Err("unlimited, or a whole number from 1 to 9".to_owned()));
    }
}
