//! JSON as it stands in the text: members in their order, numbers with their digits. `serde_json::Value` keeps neither.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// An object's members, in the order in which they stand there, each with the text of its value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members(pub Vec<(String, String)>);

impl Members {
    pub fn of(text: &str) -> Members {
        serde_json::from_str(text).unwrap_or_else(|error| panic!("no JSON object ({error}): {text}"))
    }

    pub fn names(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// The text of a member's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The text of a member that must be there.
    #[track_caller]
    pub fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_else(|| panic!("no member {name} among {:?}", self.names()))
    }

    /// A member that must be there and be a number.
    #[track_caller]
    pub fn number(&self, name: &str) -> u64 {
        self.text(name).parse().unwrap_or_else(|_| panic!("{name} is no unsigned number: {}", self.text(name)))
    }

    /// A member that must be there and be a string.
    #[track_caller]
    pub fn string(&self, name: &str) -> String {
        serde_json::from_str(self.text(name)).unwrap_or_else(|_| panic!("{name} is no string: {}", self.text(name)))
    }

    /// Shallow merge, as the service does it: a member that is there keeps its place, a new one comes last.
    pub fn merge(&mut self, change: &Members) {
        for (name, value) in &change.0 {
            match self.0.iter_mut().find(|(known, _)| known == name) {
                Some((_, old)) => old.clone_from(value),
                None => self.0.push((name.clone(), value.clone())),
            }
        }
    }
}

impl fmt::Display for Members {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("{")?;
        for (index, (name, value)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(out, "{comma}{}:{value}", serde_json::to_string(name).map_err(|_| fmt::Error)?)?;
        }
        out.write_str("}")
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Members, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members;
            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    members.push((name, value.get().to_string()));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// The texts of an array's values.
pub fn elements(text: &str) -> Vec<String> {
    let values: Vec<Box<RawValue>> =
        serde_json::from_str(text).unwrap_or_else(|error| panic!("no JSON array ({error}): {text}"));
    values.iter().map(|value| value.get().to_string()).collect()
}

/// Replaces what differs from run to run, and nothing else, so that a golden file can hold the rest byte for byte: the
/// service's timestamps become `0` and the times in event ids too, while sequence numbers stay.
///
/// A timestamp is a whole number of milliseconds close to now; the times that tests write into rows are years off.
pub fn without_times(text: &str, started_ms: u64) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(|letter: char| letter.is_ascii_digit()) {
        let (before, from) = rest.split_at(at);
        let length = from.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(from.len());
        let (digits, after) = from.split_at(length);
        let is_now = digits.parse().is_ok_and(|number: u64| number >= started_ms && number <= started_ms + 3_600_000);
        out.push_str(before);
        out.push_str(if is_now { "0" } else { digits });
        rest = after;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_order_and_digits_and_merge_shallowly() {
        let mut row = Members::of(r#"{"b": 1.00, "a": {"x":1e400}, "c":"é"}"#);
        row.merge(&Members::of(r#"{"a":2,"d":null}"#));
        assert_eq!(row.to_string(), r#"{"b":1.00,"a":2,"c":"é","d":null}"#);
    }

    #[test]
    fn only_times_of_this_run_are_replaced() {
        let text = r#"{"id":"evt_1700000000123_a1","created_at":1699380000000,"timestamp":1700000000123}"#;
        let shown = without_times(text, 1_700_000_000_000);
        assert_eq!(shown, r#"{"id":"evt_0_a1","created_at":1699380000000,"timestamp":0}"#);
    }
}
