//! Query strings: known names, each at most once, each with a value.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use crate::problem::{Problem, excerpt};
use crate::{Code, percent};

/// The parameters of a query, decoded.
pub(crate) struct Parameters<'a>(Vec<(&'static str, Cow<'a, str>)>);

impl<'a> Parameters<'a> {
    /// Takes a raw query apart. Every name must be one of `known`.
    pub(crate) fn parse(query: Option<&'a str>, known: &[&'static str]) -> Result<Self, Problem> {
        let mut found: Vec<(&'static str, Cow<'a, str>)> = Vec::new();
        // Nothing between two `&` is nothing said, as in every other parser of queries.
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let malformed = |why| Problem::new(Code::InvalidParameter, format!("the query's {} {why}", excerpt(pair)));
            let name = percent::decode_query(name).map_err(malformed)?;
            let Some(&name) = known.iter().find(|known| **known == name) else {
                return Err(unknown(&name, known));
            };
            let value = percent::decode_query(value).map_err(malformed)?;
            if value.is_empty() {
                return Err(problem(name, format!("`{name}` has no value; leave it out instead")));
            }
            if found.iter().any(|(other, _)| *other == name) {
                return Err(problem(name, format!("`{name}` is given more than once")));
            }
            found.push((name, value));
        }
        Ok(Self(found))
    }

    /// The value of a parameter.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| *other == name).map(|(_, value)| value.as_ref())
    }

    /// The value of a parameter that is an integer within a range.
    pub(crate) fn integer(&self, name: &'static str, range: RangeInclusive<u64>) -> Result<Option<u64>, Problem> {
        let Some(text) = self.text(name) else { return Ok(None) };
        // `u64::from_str` would take a sign.
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse().ok().filter(|value| digits && range.contains(value)) {
            Some(value) => Ok(Some(value)),
            None => Err(not_allowed(name, text, &format!("an integer from {} to {}", range.start(), range.end()))),
        }
    }

    /// The value of a parameter that is `true` or `false`; false without it.
    pub(crate) fn flag(&self, name: &'static str) -> Result<bool, Problem> {
        match self.text(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(not_allowed(name, other, "`true` or `false`")),
        }
    }
}

/// A parameter has a value that it cannot have.
pub(crate) fn not_allowed(name: &'static str, value: &str, allowed: &str) -> Problem {
    problem(name, format!("`{name}` is {}; allowed is {allowed}", excerpt(value)))
}

fn unknown(name: &str, known: &[&'static str]) -> Problem {
    let allowed = match known {
        [] => "takes no parameters".to_owned(),
        known => format!("takes {}", known.join(", ")),
    };
    Problem::new(Code::InvalidParameter, format!("there is no parameter {}; this path {allowed}", excerpt(name)))
}

fn problem(name: &'static str, detail: String) -> Problem {
    Problem::new(Code::InvalidParameter, detail).with_text("parameter", name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &["a", "b"];

    fn refusal(query: &str) -> String {
        match Parameters::parse(Some(query), KNOWN) {
            Ok(_) => panic!("`{query}` was taken"),
            Err(problem) => problem.detail().to_owned(),
        }
    }

    #[test]
    fn names_and_values_are_decoded() {
        for query in ["a=x+y%26%3D&b=2", "&%61=x+y%26%3D&&b=2&"] {
            let parameters = Parameters::parse(Some(query), KNOWN);
            let parameters = parameters.unwrap_or_else(|problem| panic!("{problem}"));
            assert_eq!(parameters.text("a"), Some("x y&="));
            assert_eq!(parameters.integer("b", 1..=2), Ok(Some(2)));
        }
    }

    #[test]
    fn no_query_and_an_empty_one_are_the_same() {
        for query in [None, Some("")] {
            assert!(Parameters::parse(query, &[]).is_ok_and(|parameters| parameters.text("a").is_none()));
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(refusal("c=1"), "there is no parameter `c`; this path takes a, b");
        assert_eq!(refusal("A=1"), "there is no parameter `A`; this path takes a, b");
        assert_eq!(refusal("a=1&a=1"), "`a` is given more than once");
        assert_eq!(refusal("a="), "`a` has no value; leave it out instead");
        assert_eq!(refusal("a"), "`a` has no value; leave it out instead");
        assert!(refusal("a=%4").contains("`a=%4` has a `%`"));
        assert!(refusal("%=1").contains("has a `%`"));
        assert!(refusal("a=%C3").contains("not UTF-8"));
        assert!(refusal(&"x".repeat(100_000)).len() < 200);
    }

    #[test]
    fn integers_are_digits_within_the_range() {
        for text in ["0", "11", "-1", "%2B1", "+1", "1.0", "1e1", "0x1", "18446744073709551617", "%D9%A1"] {
            let query = format!("a={text}");
            let parameters = Parameters::parse(Some(&query), KNOWN).unwrap_or_else(|problem| panic!("{problem}"));
            let refused = parameters.integer("a", 1..=10);
            assert!(refused.is_err_and(|p| p.detail().ends_with("allowed is an integer from 1 to 10")), "{text}");
        }
    }
}
