//! Names made of what an event is about: `cdc.{table}`.

use std::fmt;

use cdc_rest::EventRef;
use serde::de::{Deserialize, Deserializer, Error};
use serde::ser::{Serialize, Serializer};

/// A name with `{table}` and `{operation}` (in lower case) in it.
#[derive(Clone, PartialEq, Eq)]
pub struct Template {
    source: String,
    parts: Vec<Part>,
}

#[derive(Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Table,
    Operation,
}

/// Why a text is no template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTemplate {
    /// There is nothing.
    #[error("is empty")]
    Empty,
    /// What stands in braces means nothing.
    #[error("has `{{{0}}}`, which means nothing; it takes {{table}} and {{operation}}")]
    Unknown(String),
    /// A brace stands alone.
    #[error("has a brace without its partner")]
    Brace,
}

impl Template {
    /// Reads a template.
    pub fn parse(source: &str) -> Result<Self, InvalidTemplate> {
        let mut parts = Vec::new();
        let mut rest = source;
        while let Some(open) = rest.find(['{', '}']) {
            let (text, from) = rest.split_at(open);
            if !text.is_empty() {
                parts.push(Part::Text(text.to_owned()));
            }
            let end = from.find('}').filter(|_| from.starts_with('{')).ok_or(InvalidTemplate::Brace)?;
            parts.push(match &from[1..end] {
                "table" => Part::Table,
                "operation" => Part::Operation,
                other => return Err(InvalidTemplate::Unknown(other.to_owned())),
            });
            rest = &from[end + 1..];
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        if parts.is_empty() {
            return Err(InvalidTemplate::Empty);
        }
        Ok(Self { source: source.to_owned(), parts })
    }

    /// The name for an event. Writes into `name`, which is emptied first, so that a batch needs one buffer.
    pub fn write(&self, name: &mut String, event: &EventRef<'_>) {
        name.clear();
        for part in &self.parts {
            match part {
                Part::Text(text) => name.push_str(text),
                Part::Table => name.push_str(event.table),
                Part::Operation => {
                    name.extend(event.operation.as_str().chars().map(|letter| letter.to_ascii_lowercase()))
                }
            }
        }
    }

    /// The name for every event of a table; none if it depends on the operation.
    pub fn of_table(&self, table: &str) -> Option<String> {
        let part = |part: &Part| match part {
            Part::Text(text) => Some(text.clone()),
            Part::Table => Some(table.to_owned()),
            Part::Operation => None,
        };
        self.parts.iter().map(part).collect()
    }

    /// The template's own text, without what stands in braces.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Text(text) => Some(text.as_str()),
            Part::Table | Part::Operation => None,
        })
    }

    /// The template with something else in place of what stands in braces.
    pub(crate) fn with(&self, stand_in: &str) -> String {
        let parts = self.parts.iter().map(|part| match part {
            Part::Text(text) => text.as_str(),
            Part::Table | Part::Operation => stand_in,
        });
        parts.collect()
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Template({:?})", self.source)
    }
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let source = String::deserialize(deserializer)?;
        Self::parse(&source).map_err(D::Error::custom)
    }
}

impl Serialize for Template {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.source)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use cdc_rest::Operation;

    use super::*;

    fn event(table: &str) -> EventRef<'_> {
        EventRef {
            sequence: 1,
            timestamp_ms: 1,
            table,
            operation: Operation::Update,
            before: None,
            after: None,
            schema_version: 1,
            origin: None,
        }
    }

    #[test]
    fn names_are_put_together() {
        let mut name = "what was there".to_owned();
        for (source, expected) in [
            ("cdc.{table}", "cdc.users"),
            ("{table}", "users"),
            ("all", "all"),
            ("{operation}-{table}!", "update-users!"),
        ] {
            let template = Template::parse(source).unwrap();
            template.write(&mut name, &event("users"));
            assert_eq!(name, expected);
            assert_eq!(template.to_string(), source);
        }
    }

    #[test]
    fn what_is_no_template_is_refused() {
        assert_eq!(Template::parse(""), Err(InvalidTemplate::Empty));
        assert_eq!(Template::parse("{tabel}"), Err(InvalidTemplate::Unknown("tabel".into())));
        for source in ["a{table", "a}b", "}{", "{{table}}"] {
            assert!(Template::parse(source).is_err(), "{source}");
        }
    }
}
