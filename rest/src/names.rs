//! Names that users give to subscriptions, components and sources.

use std::fmt;

use crate::Code;
use crate::problem::{Problem, excerpt};

/// The longest name, in bytes.
const MAX_BYTES: usize = 64;

/// The name of a subscription: 1 to 64 of `a-z A-Z 0-9 . _ -`, not starting with `.`. So it is safe in a path, a file
/// name and a metric's label.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubscriptionId(String);

/// The name of a component: written as a [`SubscriptionId`] is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ComponentName(String);

/// The name of a source: written as a [`SubscriptionId`] is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceName(String);

impl SourceName {
    /// Takes a decoded name.
    pub fn parse(name: &str) -> Result<Self, Problem> {
        check(name).map_err(|why| {
            Problem::new(Code::InvalidSourceName, format!("{} is not a source's name: {why}", excerpt(name)))
        })?;
        Ok(Self(name.to_owned()))
    }
}

impl SubscriptionId {
    /// Takes a decoded name.
    pub fn parse(name: &str) -> Result<Self, Problem> {
        check(name).map_err(|why| {
            Problem::new(Code::InvalidSubscriptionId, format!("{} is not a subscription's id: {why}", excerpt(name)))
        })?;
        Ok(Self(name.to_owned()))
    }
}

impl ComponentName {
    /// Takes a decoded name.
    pub fn parse(name: &str) -> Result<Self, Problem> {
        check(name).map_err(|why| {
            Problem::new(Code::InvalidComponentName, format!("{} is not a component's name: {why}", excerpt(name)))
        })?;
        Ok(Self(name.to_owned()))
    }
}

/// Whether a text is such a name, or why not.
pub(crate) fn check(name: &str) -> Result<(), String> {
    if name.is_empty() {
        Err("it is empty".to_owned())
    } else if name.len() > MAX_BYTES {
        Err(format!("it is longer than {MAX_BYTES} bytes"))
    } else if name.starts_with('.') {
        Err("it starts with `.`".to_owned())
    } else if let Some(other) = name.chars().find(|&c| !(c.is_ascii_alphanumeric() || "._-".contains(c))) {
        Err(format!("it contains {other:?}; allowed are a-z, A-Z, 0-9 and `. _ -`"))
    } else {
        Ok(())
    }
}

macro_rules! name {
    ($name:ident) => {
        impl $name {
            /// The name.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The name, without a copy.
            pub fn into_string(self) -> String {
                self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        /// For maps that are asked by text.
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(SubscriptionId);
name!(ComponentName);
name!(SourceName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ascii_letters_digits_and_three_signs_are_fine() {
        for name in ["a", "Search-index_2.v1", "-", "42", &"x".repeat(64)] {
            assert_eq!(SubscriptionId::parse(name).map(SubscriptionId::into_string).as_deref(), Ok(name));
            assert_eq!(ComponentName::parse(name).map(ComponentName::into_string).as_deref(), Ok(name));
        }
    }

    #[test]
    fn anything_else_is_refused_with_the_reason() {
        for name in ["", ".", "..", ".a", "a/b", "a b", "a\n", "ä", "*", "a%", &"x".repeat(65)] {
            let subscription = SubscriptionId::parse(name).err().map(|problem| problem.code());
            assert_eq!(subscription, Some(Code::InvalidSubscriptionId), "{name:?}");
            let component = ComponentName::parse(name).err().map(|problem| problem.code());
            assert_eq!(component, Some(Code::InvalidComponentName), "{name:?}");
            let source = SourceName::parse(name).err().map(|problem| problem.code());
            assert_eq!(source, Some(Code::InvalidSourceName), "{name:?}");
        }
    }
}
