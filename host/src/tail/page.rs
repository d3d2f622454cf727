//! What the service answers: a page of events, or a problem. Events stay the bytes they came as.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The answer to `GET /events`.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Page<'a> {
    /// Oldest first.
    #[serde(borrow)]
    pub(super) events: Vec<&'a RawValue>,
    /// What to ask after next; the newest event once everything was read.
    pub(super) next_after: u64,
    /// The oldest event that is kept.
    pub(super) oldest_sequence: u64,
}

/// What a line shows of an event. Members that are not known are skipped.
#[derive(serde::Deserialize)]
pub(super) struct Event<'a> {
    #[serde(borrow)]
    pub(super) operation: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) table: Cow<'a, str>,
    /// In milliseconds since 1970.
    pub(super) timestamp: u64,
    #[serde(borrow)]
    pub(super) before: Option<Image<'a>>,
    #[serde(borrow)]
    pub(super) after: Option<Image<'a>>,
    pub(super) metadata: Metadata,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata {
    pub(super) sequence_number: u64,
}

/// A row's members in their order, each value as JSON text.
pub(super) struct Image<'a>(pub(super) Vec<(String, &'a RawValue)>);

impl<'a> Image<'a> {
    pub(super) fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(member, _)| member == name).map(|(_, value)| *value)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Image<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Image<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a row image")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Image<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Image(members))
            }
        }

        deserializer.deserialize_map(Members)
    }
}

/// A problem document, as far as it is one: a proxy on the way may answer anything.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Problem {
    pub(super) code: Option<String>,
    pub(super) detail: Option<String>,
    pub(super) oldest_sequence: Option<u64>,
    pub(super) current_sequence: Option<u64>,
}
