//! JSON objects with known members, read so that whatever is wrong with one is said by its name.
//!
//! serde's derived readers know neither where in a definition they are nor which range a number has, and stop at the
//! first thing that does not fit with a line and a column. A definition is written by hand, often in TOML, and read
//! back by a person: here every refusal names its member in full (`batch.maxEvents`), says what is allowed, and for an
//! unknown member which one was probably meant.
//!
//! A member that is `null` counts as left out.

use std::fmt;
use std::ops::RangeInclusive;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::Code;
use crate::insert_body::trim;
use crate::problem::{Problem, excerpt};

/// Reads a body that must be JSON and have no member twice.
pub(crate) fn json(body: &[u8]) -> Result<Value, Problem> {
    match serde_json::from_slice(trim(body)) {
        Ok(Distinct(value)) => Ok(value),
        Err(error) => Err(Problem::new(Code::InvalidJson, format!("the body is not acceptable: {error}"))),
    }
}

/// The members of one object.
#[derive(Clone, Copy)]
pub(crate) struct Members<'a> {
    map: &'a Map<String, Value>,
    /// What leads to the object: empty, or ends with a dot.
    path: &'a str,
    code: Code,
}

impl<'a> Members<'a> {
    /// Takes a value that must be an object and have none but the known members. `path` is empty for the whole
    /// definition, and `name.` for what stands at `name`; `what` is what the whole is called.
    pub(crate) fn of(value: &'a Value, path: &'a str, what: &str, known: &[&str], code: Code) -> Result<Self, Problem> {
        let name = path.trim_end_matches('.');
        let place = if name.is_empty() { what.to_owned() } else { format!("`{name}`") };
        let Value::Object(map) = value else {
            let problem = Problem::new(code, format!("{place} must be a JSON object, not {}", shown(value)));
            return Err(if name.is_empty() { problem } else { problem.with_text("member", name) });
        };
        if let Some(unknown) = map.keys().find(|member| !known.contains(&member.as_str())) {
            let hint = match meant(unknown, known) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("it takes {}", known.join(", ")),
            };
            let detail = format!("{place} has no member {}; {hint}", excerpt(unknown));
            let shown = unknown.chars().take(64).collect::<String>();
            return Err(Problem::new(code, detail).with_text("member", format!("{path}{shown}")));
        }
        Ok(Self { map, path, code })
    }

    /// A member, unless it is left out.
    pub(crate) fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// A member must be something else.
    pub(crate) fn wrong(&self, name: &str, expected: &str, value: &Value) -> Problem {
        self.refuse(name, format!("must be {expected}, not {}", shown(value)))
    }

    /// A member is refused, for a reason that reads on after its name.
    pub(crate) fn refuse(&self, name: &str, why: impl fmt::Display) -> Problem {
        let member = format!("{}{name}", self.path);
        Problem::new(self.code, format!("`{member}` {why}")).with_text("member", member)
    }

    /// A text.
    pub(crate) fn text(&self, name: &str, expected: &str) -> Result<Option<&'a str>, Problem> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong(name, expected, other)),
        }
    }

    /// An integer within a range.
    pub(crate) fn integer<T>(&self, name: &str, range: RangeInclusive<T>) -> Result<Option<T>, Problem>
    where
        T: TryFrom<u64> + PartialOrd + fmt::Display,
    {
        let Some(value) = self.get(name) else { return Ok(None) };
        let integer = value.as_u64().and_then(|integer| T::try_from(integer).ok());
        match integer.filter(|integer| range.contains(integer)) {
            Some(integer) => Ok(Some(integer)),
            None => {
                let expected = format!("an integer from {} to {}", range.start(), range.end());
                Err(self.wrong(name, &expected, value))
            }
        }
    }

    /// `true` or `false`.
    pub(crate) fn flag(&self, name: &str) -> Result<Option<bool>, Problem> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(self.wrong(name, "`true` or `false`", other)),
        }
    }

    /// An array, empty if it is left out.
    pub(crate) fn list(&self, name: &str, expected: &str, most: usize) -> Result<&'a [Value], Problem> {
        match self.get(name) {
            None => Ok(&[]),
            Some(Value::Array(items)) if items.len() <= most => Ok(items),
            Some(Value::Array(items)) => Err(self.refuse(name, format!("may have {most} items, not {}", items.len()))),
            Some(other) => Err(self.wrong(name, expected, other)),
        }
    }
}

/// A value within a message. A text is not quoted: it may be a secret that stands in the wrong place.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        Value::String(_) => "a text".to_owned(),
        Value::Bool(_) | Value::Number(_) => excerpt(&value.to_string()),
    }
}

/// The known name that was probably meant: the same in another notation (`max_events`), or at most two strokes away.
pub(crate) fn meant<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    const MOST_STROKES: usize = 2;
    let plain = |text: &str| -> Vec<char> {
        text.chars().filter(|c| !matches!(c, '_' | '-')).flat_map(char::to_lowercase).take(64).collect()
    };
    let written = plain(name);
    known
        .iter()
        .map(|&known| (strokes(&written, &plain(known)), known))
        // A short name is two strokes away from everything.
        .filter(|(strokes, known)| *strokes <= MOST_STROKES.min(known.len() / 3))
        .min_by_key(|(strokes, _)| *strokes)
        .map(|(_, known)| known)
}

/// How many letters must be changed, added or left out to make one of the other.
fn strokes(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (at, letter) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (other, known) in b.iter().enumerate() {
            let changed = diagonal + usize::from(letter != known);
            diagonal = row[other + 1];
            row[other + 1] = changed.min(diagonal + 1).min(row[other] + 1);
        }
    }
    row[b.len()]
}

/// A value in which no object has a member twice: readers disagree on which one counts, and whoever writes a
/// definition by hand meant only one of them.
struct Distinct(Value);

impl<'de> Deserialize<'de> for Distinct {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DistinctVisitor).map(Self)
    }
}

struct DistinctVisitor;

impl<'de> Visitor<'de> for DistinctVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Distinct(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some((name, Distinct(value))) = members.next_entry::<String, Distinct>()? {
            if map.contains_key(&name) {
                return Err(A::Error::custom(format!("the member {} is there twice", excerpt(&name))));
            }
            map.insert(name, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_or_snake_case_member_is_recognised() {
        let known = ["maxEvents", "maxBytes", "lingerMs", "to"];
        assert_eq!(meant("max_events", &known), Some("maxEvents"));
        assert_eq!(meant("maxEvent", &known), Some("maxEvents"));
        assert_eq!(meant("LINGER-MS", &known), Some("lingerMs"));
        assert_eq!(meant("size", &known), None);
        assert_eq!(meant("x", &known), None);
        assert_eq!(meant(&"x".repeat(100_000), &known), None);
    }

    #[test]
    fn a_member_that_is_there_twice_is_refused_at_any_depth() {
        for body in [r#"{"a":1,"a":1}"#, r#"[{"b":{"a":1,"a":2}}]"#] {
            let problem = json(body.as_bytes()).err().unwrap_or_else(|| panic!("{body} was taken"));
            assert_eq!(problem.code(), Code::InvalidJson);
            assert!(problem.detail().contains("`a` is there twice"), "{problem}");
        }
        assert_eq!(json(b" [1,-2,3.5,null,true,\"x\"] "), Ok(serde_json::json!([1, -2, 3.5, null, true, "x"])));
        let deep = "[".repeat(100_000);
        assert!(json(deep.as_bytes()).is_err());
    }
}
