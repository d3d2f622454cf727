//! How stored rows of a table follow a change of its columns that is exact without reading them: columns renamed,
//! dropped, or added with a value that the database's catalog knows. Pure.
//!
//! Applying it twice is the same as applying it once: a row that has a column's new name, or an added column, keeps it.
//! Whoever makes one sees to it that no name is both old and new.

use std::collections::HashMap;
use std::sync::Arc;

use crate::change::Table;
use crate::json;

/// A rule for the rows of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// The table as it looks afterwards.
    pub table: Arc<Table>,
    /// Old names of columns, by their new ones.
    pub renamed: Vec<(String, String)>,
    /// Columns that are new, and their value in rows that lack them, as JSON.
    pub added: Vec<(String, String)>,
    /// For a person: what happened in the database.
    pub reason: String,
}

impl Rewrite {
    /// The row as it is afterwards: the columns of the table in its order, others left out. None if `image` is no object
    /// that a feed or the engine wrote.
    pub fn apply(&self, image: &str) -> Option<String> {
        let members: HashMap<&str, &str> = json::members(image)?.into_iter().collect();
        let mut row = String::with_capacity(image.len() + 32);
        for column in &self.table.columns {
            let mut name = String::new();
            json::push_string(&mut name, &column.name);
            let find = |pairs: &'_ [(String, String)]| {
                pairs.iter().find(|(new, _)| *new == column.name).map(|(_, other)| other.clone())
            };
            let renamed = || {
                let mut old = String::new();
                json::push_string(&mut old, &find(&self.renamed)?);
                members.get(old.as_str()).map(|value| (*value).to_owned())
            };
            let value = members.get(name.as_str()).map(|value| (*value).to_owned());
            let Some(value) = value.or_else(renamed).or_else(|| find(&self.added)) else { continue };
            row.push(if row.is_empty() { '{' } else { ',' });
            row.push_str(&name);
            row.push(':');
            row.push_str(&value);
        }
        row.push_str(if row.is_empty() { "{}" } else { "}" });
        Some(row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{Column, Kind};

    fn rewrite(columns: &[&str], renamed: &[(&str, &str)], added: &[(&str, &str)]) -> Rewrite {
        let column =
            |name: &&str| Column { name: (*name).into(), kind: Kind::Any, nullable: true, native_type: "text".into() };
        let pairs = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect();
        let table = Table {
            name: "t".into(),
            connector: "postgresql",
            database: "app".into(),
            namespace: "public".into(),
            relation: "t".into(),
            columns: columns.iter().map(column).collect(),
            key: vec!["id".into()],
        };
        Rewrite { table: Arc::new(table), renamed: pairs(renamed), added: pairs(added), reason: String::new() }
    }

    #[test]
    fn columns_are_renamed_dropped_and_added_in_the_order_of_the_table() {
        let rule = rewrite(&["id", "content", "x"], &[("content", "body")], &[("x", "7")]);
        let once = rule.apply(r#"{"id":1,"body":"a\",}","gone":[1,{"x":2}]}"#);
        assert_eq!(once.as_deref(), Some(r#"{"id":1,"content":"a\",}","x":7}"#));
    }

    #[test]
    fn what_was_rewritten_stays_as_it_is() {
        let rule = rewrite(&["id", "content", "x"], &[("content", "body")], &[("x", "7")]);
        let done = r#"{"id":1,"content":null,"x":8}"#;
        assert_eq!(rule.apply(done).as_deref(), Some(done));
        assert_eq!(rule.apply("[]"), None);
    }
}
