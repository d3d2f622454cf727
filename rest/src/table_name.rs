//! Names of tables as clients write them.

use std::fmt;

use crate::problem::{Problem, excerpt};
use crate::{Code, Limits};

/// A table's name: Unicode letters and digits and `_ - . $`, not starting with `.`, of limited length. So it is safe
/// in a path, a file name, a metric's label and a pattern of tables.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TableName(String);

impl TableName {
    /// Takes a decoded name.
    pub fn parse(name: &str, limits: &Limits) -> Result<Self, Problem> {
        let wrong = if name.is_empty() {
            "it is empty".to_owned()
        } else if name.len() > limits.max_name_bytes {
            format!("it is longer than {} bytes", limits.max_name_bytes)
        } else if name.starts_with('.') {
            "it starts with `.`".to_owned()
        } else if let Some(other) = name.chars().find(|&c| !(c.is_alphanumeric() || "_-.$".contains(c))) {
            format!("it contains {other:?}; allowed are letters, digits and `_ - . $`")
        } else {
            return Ok(Self(name.to_owned()));
        };
        Err(Problem::new(Code::InvalidTableName, format!("{} is not a table name: {wrong}", excerpt(name))))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name, without a copy.
    pub fn into_string(self) -> String {
        self.0
    }
}

impl AsRef<str> for TableName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_of_any_script_and_four_signs_are_fine() {
        let limits = Limits::default();
        for name in ["users", "_", "a.b-c$d_e", "Žáci", "表", "42", &"x".repeat(255)] {
            assert_eq!(TableName::parse(name, &limits).map(TableName::into_string).as_deref(), Ok(name));
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let limits = Limits::default();
        for name in
            ["", ".", "..", ".hidden", "a/b", "a b", "a\u{0}", "a\n", "*", "a*", "a%", "a\\b", "🐎", &"x".repeat(256)]
        {
            assert!(TableName::parse(name, &limits).is_err_and(|p| p.code() == Code::InvalidTableName), "{name:?}");
        }
    }

    #[test]
    fn the_limit_counts_bytes() {
        let limits = Limits { max_name_bytes: 3, ..Limits::default() };
        assert!(TableName::parse("表", &limits).is_ok());
        assert!(TableName::parse("表a", &limits).is_err());
    }
}
