//! Secrets: passwords, tokens, and addresses that may hold them.
//!
//! Given inline, or as `{"env": "CDC_SECRET_…"}`: the name of an environment variable of the service, read when a
//! connection is made. Only names with that prefix are read: whoever may define a subscription could otherwise have any
//! variable of the service sent to an address of their own.
//!
//! Invariant: neither `Debug` nor any message shows a secret. Written back, it is shown as it was given.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

/// What the names of variables begin with that hold secrets.
pub const PREFIX: &str = "CDC_SECRET_";

/// A secret, or where it is.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// The secret itself.
    Given(String),
    /// The environment variable that holds it.
    Env(String),
}

/// A secret is not where it should be.
#[derive(Debug, thiserror::Error)]
#[error("the environment variable {name} is not set, or is no UTF-8: set it for the service and restart it")]
pub struct MissingVariable {
    /// The variable.
    pub name: String,
}

impl Secret {
    /// The secret itself.
    pub fn reveal(&self) -> Result<Cow<'_, str>, MissingVariable> {
        match self {
            Self::Given(text) => Ok(Cow::Borrowed(text)),
            Self::Env(name) => match std::env::var(name) {
                Ok(text) => Ok(Cow::Owned(text)),
                Err(_) => Err(MissingVariable { name: name.clone() }),
            },
        }
    }

    /// The secret if it is known without looking elsewhere: what can be checked when a definition is read.
    pub(crate) fn given(&self) -> Option<&str> {
        match self {
            Self::Given(text) => Some(text),
            Self::Env(_) => None,
        }
    }
}

/// What serde says of a value that is none, without the value: it may be a secret that stands in the wrong place. What
/// serde says of names stays as it is.
pub fn without_value(why: &str) -> String {
    let quotes = ["invalid type: ", "invalid value: ", "invalid length ", "unknown variant `"];
    if !quotes.iter().any(|quote| why.contains(quote)) {
        return why.to_owned();
    }
    // What is expected is ours and comes last; the value may have any text in it.
    match why.rsplit_once(", expected ") {
        Some((_, expected)) => format!("expected {expected}"),
        None => "it is none that is known".to_owned(),
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given(_) => f.write_str("Given(…)"),
            Self::Env(name) => f.debug_tuple("Env").field(name).finish(),
        }
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::Given(text.to_owned())
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // By hand, so that a message never quotes what stands there.
        const EXPECTED: &str = r#"expected a text, or {"env": "CDC_SECRET_…"}"#;
        match Value::deserialize(deserializer)? {
            Value::String(text) => Ok(Self::Given(text)),
            Value::Object(members) if members.len() == 1 => match members.get("env") {
                Some(Value::String(name)) if name.len() > PREFIX.len() && name.starts_with(PREFIX) => {
                    Ok(Self::Env(name.clone()))
                }
                Some(Value::String(name)) => Err(D::Error::custom(format!(
                    "names the variable `{name}`, but only variables whose names begin with {PREFIX} are read"
                ))),
                _ => Err(D::Error::custom(EXPECTED)),
            },
            _ => Err(D::Error::custom(EXPECTED)),
        }
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Given(text) => serializer.serialize_str(text),
            Self::Env(name) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("env", name)?;
                map.end()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_secret_is_written_back_as_it_was_given_and_shown_nowhere_else() {
        for json in [r#""hunter2""#, r#"{"env":"CDC_SECRET_X"}"#] {
            let secret: Secret = serde_json::from_str(json).unwrap();
            assert_eq!(serde_json::to_string(&secret).unwrap(), json);
            assert!(!format!("{secret:?}").contains("hunter2"));
        }
    }

    #[test]
    fn other_variables_of_the_service_are_not_read() {
        for json in [r#"{"env":"PATH"}"#, r#"{"env":"CDC_SECRET_"}"#, r#"{"env":1}"#, r#"{"file":"x"}"#, "1"] {
            assert!(serde_json::from_str::<Secret>(json).is_err(), "{json}");
        }
    }

    #[test]
    fn a_variable_that_is_not_set_is_named() {
        let error = Secret::Env("CDC_SECRET_NOT_SET_ANYWHERE".into()).reveal().unwrap_err();
        assert!(error.to_string().contains("CDC_SECRET_NOT_SET_ANYWHERE"));
    }

    #[test]
    fn a_message_of_serde_is_told_without_the_value() {
        let number = serde_json::from_str::<u32>(r#""hunter2, expected x""#).unwrap_err();
        assert!(without_value(&number.to_string()).starts_with("expected u32"), "{number}");
        assert_eq!(without_value("unknown variant `hunter2`, expected one of `a`, `b`"), "expected one of `a`, `b`");
        assert_eq!(without_value("missing field `url`"), "missing field `url`");
    }

    #[test]
    fn a_message_about_a_wrong_secret_does_not_quote_it() {
        let error = serde_json::from_str::<Secret>(r#"["hunter2"]"#).unwrap_err();
        assert!(!error.to_string().contains("hunter2"));
    }
}
