//! What is asked of a source and its tables: the actions, and the body of `PUT /sources/:name/selection`.

use crate::members::{self, Members};
use crate::{Code, Problem};

/// The most patterns that a choice has.
const MAX_PATTERNS: usize = 1_000;
/// The longest pattern, in bytes: longer than the names of two identifiers of any database.
const MAX_PATTERN_BYTES: usize = 512;

/// What is to be done with one of a source's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TableAction {
    /// Its changes are skipped until it is resumed; its rows stay.
    Pause,
    /// It is followed again, after its rows have been read anew.
    Resume,
    /// Its rows are read anew.
    Reread,
    /// Its rows are removed, and it is not captured until it is resumed.
    Drop,
}

impl TableAction {
    /// The word for it: the end of the path.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Reread => "reread",
            Self::Drop => "drop",
        }
    }
}

/// The body of `PUT /sources/:name/selection`: `{"tables": ["public.*"], "exclude": ["public.tmp_*"]}`. One of both is
/// enough; without `tables` every table is captured that is not the server's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableChoice {
    /// Patterns of `namespace.table` that are captured; every table, if none.
    pub tables: Vec<String>,
    /// Patterns of those that are left out.
    pub exclude: Vec<String>,
}

impl TableChoice {
    /// Takes a whole body.
    pub fn parse(body: &[u8]) -> Result<Self, Problem> {
        let value = members::json(body)?;
        let members = Members::of(&value, "", "the choice of tables", &["tables", "exclude"], Code::InvalidBody)?;
        if members.get("tables").is_none() && members.get("exclude").is_none() {
            return Err(members.refuse("tables", "is missing, and so is `exclude`: name one of them"));
        }
        Ok(Self { tables: patterns(&members, "tables")?, exclude: patterns(&members, "exclude")? })
    }
}

fn patterns(members: &Members<'_>, name: &str) -> Result<Vec<String>, Problem> {
    const EXPECTED: &str = "an array of patterns like namespace.table, in which * stands for any characters";
    let mut patterns = Vec::new();
    for value in members.list(name, EXPECTED, MAX_PATTERNS)? {
        match value.as_str() {
            // A star may stand for the dot too.
            Some(pattern) if pattern.contains(['*', '.']) && pattern.len() <= MAX_PATTERN_BYTES => {
                patterns.push(pattern.to_owned());
            }
            _ => return Err(members.wrong(name, EXPECTED, value)),
        }
    }
    Ok(patterns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_names_patterns_of_tables() {
        let parse = |body: &str| TableChoice::parse(body.as_bytes());
        let choice = |tables: &[&str], exclude: &[&str]| TableChoice {
            tables: tables.iter().map(|&pattern| pattern.to_owned()).collect(),
            exclude: exclude.iter().map(|&pattern| pattern.to_owned()).collect(),
        };
        let body = r#"{"tables":["public.*","a.b"],"exclude":["*_tmp"]}"#;
        assert_eq!(parse(body), Ok(choice(&["public.*", "a.b"], &["*_tmp"])));
        assert_eq!(parse(r#"{"exclude":["public.tmp"]}"#), Ok(choice(&[], &["public.tmp"])));
        assert_eq!(parse(r#"{"tables":[]}"#), Ok(choice(&[], &[])));
        let long = format!(r#"{{"tables":["a.{}"]}}"#, "x".repeat(MAX_PATTERN_BYTES));
        for (body, member) in [
            ("{}", "tables"),
            (r#"{"tables":"public.*"}"#, "tables"),
            (r#"{"tables":["users"]}"#, "tables"),
            (r#"{"exclude":[1]}"#, "exclude"),
            (r#"{"excludes":["a.b"]}"#, "excludes"),
            (&long, "tables"),
        ] {
            let problem = parse(body).err().unwrap_or_else(|| panic!("{body} was taken"));
            assert_eq!(problem.code(), Code::InvalidBody, "{problem}");
            assert!(problem.detail().contains(&format!("`{member}`")), "{problem}");
        }
    }
}
