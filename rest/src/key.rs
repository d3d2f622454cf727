//! Keys of rows as paths spell them.

use crate::problem::Problem;
use crate::{Code, Limits, percent};

/// A key's parts as events show them: a single part as it is; several with `%` and `/` as `%25` and `%2F`, joined by `/`.
pub fn joined_key(parts: &[String]) -> String {
    match parts {
        [part] => part.clone(),
        parts => {
            let escaped = parts.iter().map(|part| part.replace('%', "%25").replace('/', "%2F"));
            escaped.collect::<Vec<_>>().join("/")
        }
    }
}

/// A row's key: one part per key column, each a non-empty text of any characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RowKey(Vec<String>);

impl RowKey {
    /// Takes what follows the table in a raw path: parts divided by `/`, each percent-decoded on its own, so that `%2F`
    /// is a `/` within a part.
    pub fn parse(raw: &str, limits: &Limits) -> Result<Self, Problem> {
        let mut parts = Vec::new();
        for segment in raw.split('/') {
            let part = percent::decode(segment)
                .map_err(|why| Problem::new(Code::InvalidKey, format!("part {} of the key {why}", parts.len() + 1)))?;
            if part.is_empty() {
                return Err(Problem::new(
                    Code::InvalidKey,
                    format!(
                        "part {} of the key is empty; the path is /data/:table/:key with one segment per key column",
                        parts.len() + 1
                    ),
                ));
            }
            parts.push(part.into_owned());
        }
        let key = Self(parts);
        let bytes = key.canonical_bytes();
        if bytes > limits.max_key_bytes {
            return Err(Problem::new(
                Code::KeyTooLong,
                format!("the key has {bytes} bytes, at most {} are allowed", limits.max_key_bytes),
            )
            .with_number("limit", limits.max_key_bytes as u64));
        }
        Ok(key)
    }

    /// The parts in key order; never empty.
    pub fn parts(&self) -> &[String] {
        &self.0
    }

    /// The parts, without a copy.
    pub fn into_parts(self) -> Vec<String> {
        self.0
    }

    /// The key as events show it: a single part as it is; several with `%` and `/` as `%25` and `%2F`, joined by `/`.
    pub fn joined(&self) -> String {
        joined_key(&self.0)
    }

    /// The length of the key as events show it: a single part as it is; several with `%` and `/` as `%25` and `%2F`,
    /// joined by `/`.
    fn canonical_bytes(&self) -> usize {
        match self.0.as_slice() {
            [part] => part.len(),
            parts => {
                let escapes =
                    parts.iter().flat_map(|part| part.bytes()).filter(|byte| matches!(byte, b'%' | b'/')).count();
                parts.iter().map(String::len).sum::<usize>() + 2 * escapes + parts.len() - 1
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(raw: &str) -> Result<Vec<String>, Code> {
        RowKey::parse(raw, &Limits::default()).map(RowKey::into_parts).map_err(|problem| problem.code())
    }

    #[test]
    fn each_segment_is_a_part_decoded_on_its_own() {
        assert_eq!(parts("a").as_deref(), Ok(["a".to_owned()].as_slice()));
        assert_eq!(parts("a/b%2Fc/%25"), Ok(vec!["a".into(), "b/c".into(), "%".into()]));
        assert_eq!(parts("%00%0A+é.."), Ok(vec!["\0\n+é..".into()]));
    }

    #[test]
    fn empty_and_malformed_parts_are_refused() {
        for raw in ["", "/", "a/", "/a", "a//b", "%f", "%ff"] {
            assert_eq!(parts(raw), Err(Code::InvalidKey), "{raw}");
        }
    }

    #[test]
    fn the_limit_counts_the_canonical_text() {
        let limits = Limits { max_key_bytes: 5, ..Limits::default() };
        assert!(RowKey::parse("12345", &limits).is_ok());
        assert!(RowKey::parse("%25%25%25%25%25", &limits).is_ok());
        assert!(RowKey::parse("12/34", &limits).is_ok());
        assert!(RowKey::parse("1/%2F", &limits).is_ok());
        for raw in ["123456", "12/345", "12/%2F"] {
            assert!(RowKey::parse(raw, &limits).is_err_and(|p| p.code() == Code::KeyTooLong), "{raw}");
        }
    }
}
