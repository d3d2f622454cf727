//! Which tables and columns are captured, under which name, and what is hidden of them before anything leaves a feed.
//!
//! The rules know names only. Patterns are matched against whole names, and `*` stands for any characters, also none;
//! everything else stands for itself, upper and lower case told apart.

use sha2::{Digest, Sha256};

/// What a redacted value looks like.
pub const REDACTED: &str = "[redacted]";

/// Rules over tables and columns of one database. The default captures every table that is not the server's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Patterns of tables that are captured, `namespace.relation`. Default: `*.*`.
    pub include: Vec<String>,
    /// Patterns of tables that are not, although they are included. Default: none.
    pub exclude: Vec<String>,
    /// Patterns of columns that are left out, `namespace.relation.column`. Default: none.
    pub exclude_columns: Vec<String>,
    /// Patterns of columns whose values are replaced by their hash: SHA-256 over the salt and the value's text, as 64
    /// hexadecimal digits. Null stays null. Default: none.
    pub hash_columns: Vec<String>,
    /// Patterns of columns whose values are replaced by [`REDACTED`]. Null stays null. Default: none.
    pub redact_columns: Vec<String>,
    /// What goes into every hash before the value, so that it can't be looked up in a table of hashes. Default: empty.
    pub salt: String,
    /// The name under which a table is captured; `{database}`, `{namespace}` and `{relation}` stand for its own names.
    /// Default: `{namespace}.{relation}`.
    pub name: String,
    /// Patterns of tables, `namespace.relation`, whose rows are captured under ids of their own if they have no key, and
    /// are only ever inserted. Default: none.
    pub append_only: Vec<String>,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            include: vec!["*.*".into()],
            exclude: Vec::new(),
            exclude_columns: Vec::new(),
            hash_columns: Vec::new(),
            redact_columns: Vec::new(),
            salt: String::new(),
            name: "{namespace}.{relation}".into(),
            append_only: Vec::new(),
        }
    }
}

/// What becomes of a column's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Treatment {
    /// They are captured as they are.
    Keep,
    /// The column is not captured.
    LeaveOut,
    /// They are replaced by their hash.
    Hash,
    /// They are replaced by [`REDACTED`].
    Redact,
}

impl Rules {
    /// Whether a table is captured.
    pub fn captures(&self, namespace: &str, relation: &str) -> bool {
        let name = format!("{namespace}.{relation}");
        any(&self.include, &name) && !any(&self.exclude, &name)
    }

    /// Whether a table is captured under ids of its own if it has no key.
    pub fn appends(&self, namespace: &str, relation: &str) -> bool {
        any(&self.append_only, &format!("{namespace}.{relation}"))
    }

    /// What becomes of a column. The strictest rule that names it wins.
    pub fn treatment(&self, namespace: &str, relation: &str, column: &str) -> Treatment {
        let name = format!("{namespace}.{relation}.{column}");
        if any(&self.exclude_columns, &name) {
            Treatment::LeaveOut
        } else if any(&self.redact_columns, &name) {
            Treatment::Redact
        } else if any(&self.hash_columns, &name) {
            Treatment::Hash
        } else {
            Treatment::Keep
        }
    }

    /// The name under which a table is captured.
    pub fn captured_name(&self, database: &str, namespace: &str, relation: &str) -> String {
        // In one pass: what is filled in is never looked through again.
        let mut name = String::with_capacity(self.name.len() + namespace.len() + relation.len());
        let mut rest = self.name.as_str();
        while let Some(at) = rest.find('{') {
            name.push_str(&rest[..at]);
            rest = &rest[at..];
            let known = [("{database}", database), ("{namespace}", namespace), ("{relation}", relation)];
            match known.iter().find(|(placeholder, _)| rest.starts_with(placeholder)) {
                Some((placeholder, value)) => {
                    name.push_str(value);
                    rest = &rest[placeholder.len()..];
                }
                None => {
                    name.push('{');
                    rest = &rest[1..];
                }
            }
        }
        name.push_str(rest);
        name
    }

    /// The hash of a value's text: 64 hexadecimal digits.
    pub fn hash(&self, text: &str) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digest = Sha256::new().chain_update(self.salt.as_bytes()).chain_update(text.as_bytes()).finalize();
        let mut hex = String::with_capacity(64);
        for byte in digest {
            hex.push(char::from(DIGITS[usize::from(byte >> 4)]));
            hex.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
        hex
    }
}

fn any(patterns: &[String], name: &str) -> bool {
    patterns.iter().any(|pattern| matches(pattern, name))
}

/// Whether a pattern with `*` stands for a name. Time is bounded by the product of their lengths.
pub fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    // Where the last star stands, and how much of the name it has taken.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            star = Some((p, n));
            p += 1;
        } else if p < pattern.len() && pattern[p] == name[n] {
            p += 1;
            n += 1;
        } else if let Some((at, taken)) = star {
            star = Some((at, taken + 1));
            p = at + 1;
            n = taken + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters_and_nothing_else_does() {
        assert!(matches("shop.*", "shop.orders"));
        assert!(matches("*.orders_*", "shop.orders_2024"));
        assert!(matches("*", ""));
        assert!(matches("a*b*c", "a-b-b-c"));
        assert!(!matches("shop.*", "shops.orders"));
        assert!(!matches("shop.order?", "shop.orders"));
        assert!(!matches("shop.orders", "shop.orders2"));
    }

    #[test]
    fn what_is_excluded_is_not_captured_although_it_is_included() {
        let rules = Rules { include: vec!["shop.*".into()], exclude: vec!["*.tmp_*".into()], ..Rules::default() };
        assert!(rules.captures("shop", "orders"));
        assert!(!rules.captures("shop", "tmp_orders"));
        assert!(!rules.captures("mail", "orders"));
    }

    #[test]
    fn ids_of_their_own_are_for_tables_that_were_named() {
        let rules = Rules { append_only: vec!["shop.audit_*".into()], ..Rules::default() };
        assert!(rules.appends("shop", "audit_log") && !rules.appends("shop", "orders"));
        assert!(!Rules::default().appends("shop", "audit_log"));
    }

    #[test]
    fn the_strictest_rule_for_a_column_wins() {
        let rules = Rules {
            exclude_columns: vec!["*.password".into()],
            hash_columns: vec!["shop.users.*".into()],
            redact_columns: vec!["shop.users.note".into()],
            ..Rules::default()
        };
        assert_eq!(rules.treatment("shop", "users", "password"), Treatment::LeaveOut);
        assert_eq!(rules.treatment("shop", "users", "note"), Treatment::Redact);
        assert_eq!(rules.treatment("shop", "users", "mail"), Treatment::Hash);
        assert_eq!(rules.treatment("shop", "orders", "id"), Treatment::Keep);
    }

    #[test]
    fn names_are_filled_in_once() {
        let rules = Rules { name: "{database}/{namespace}.{relation}{x".into(), ..Rules::default() };
        assert_eq!(rules.captured_name("d", "{relation}", "t"), "d/{relation}.t{x");
    }

    #[test]
    fn a_hash_is_sha_256_over_the_salt_and_the_text() {
        let rules = Rules { salt: "a".into(), ..Rules::default() };
        assert_eq!(rules.hash("bc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
