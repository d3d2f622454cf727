//! Tables without a key whose rows are only ever inserted: each row has an id of its own, in a column that the database
//! does not have. Pure.
//!
//! The id of a row that the log tells is made from its place in the log, so it is the same whenever the log is read
//! again; that of a row that was read is made from the reading, so each reading gives others. What no id can do is tell
//! which row the database means when it changes or deletes one: such a table stops then.

use crate::change::{Column, Kind, Table};
use crate::feed::Reason;

/// The column that rows' ids are in, and the key of such a table.
pub const ROW_ID: &str = "_row";

/// The type of that column, which is none of a database's: by it such a table is known.
const NATIVE_TYPE: &str = "cdc-row-id";

impl Table {
    /// Whether it has no key, and its rows have ids of their own.
    pub fn is_append_only(&self) -> bool {
        // It comes first, whatever the database's columns are.
        self.columns.first().is_some_and(|column| column.native_type == NATIVE_TYPE)
    }

    /// The columns that the database has.
    pub fn database_columns(&self) -> &[Column] {
        if self.is_append_only() { &self.columns[1..] } else { &self.columns }
    }
}

/// The column of the ids.
pub(crate) fn column() -> Column {
    Column { name: ROW_ID.into(), kind: Kind::String, nullable: false, native_type: NATIVE_TYPE.into() }
}

/// Puts an id, of letters that JSON takes as they are, before the members of an image.
pub(crate) fn identify(image: &mut String, id: &str) {
    let comma = if image.len() > 2 { "," } else { "" };
    image.insert_str(1, &format!(r#""{ROW_ID}":"{id}"{comma}"#));
}

/// What a stored row holds beside its id; None if it has none.
pub fn content<'a>(image: &'a str, id: &str) -> Option<&'a str> {
    let rest = image.strip_prefix(r#"{""#)?.strip_prefix(ROW_ID)?.strip_prefix(r#"":""#)?;
    rest.strip_prefix(id)?.strip_prefix('"')
}

/// What is said of a table that is refused for want of a key, about this way out.
pub(crate) fn way_out(namespace: &str, relation: &str) -> String {
    format!(
        "if its rows are only ever inserted, have them captured under ids of their own, by append-only = \
         [\"{namespace}.{relation}\"] in the source's configuration"
    )
}

/// Why a table with a column of that name can't be captured so.
pub(crate) fn name_is_taken() -> String {
    format!(
        "it has no key, and its column `{ROW_ID}` has the name of the ids that its rows would get; rename the column"
    )
}

/// Why a table is not followed any more of which a row was changed or deleted.
pub(crate) fn rows_changed(namespace: &str, relation: &str, place: &str) -> Reason {
    let message = format!(
        "a row of {namespace}.{relation} was updated or deleted at {place}, and without a key nobody knows which of those \
         that were captured it was. Have the table read anew, which makes it right again until the next such change; or \
         give it a key, by which it is followed then"
    );
    Reason::new("rows-changed", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_comes_first_and_the_rest_is_the_content() {
        for (image, with_id, rest) in [
            (r#"{"a":1,"b":"x"}"#, r#"{"_row":"7-1","a":1,"b":"x"}"#, r#","a":1,"b":"x"}"#),
            ("{}", r#"{"_row":"7-1"}"#, "}"),
        ] {
            let mut row = image.to_owned();
            identify(&mut row, "7-1");
            assert_eq!(row, with_id);
            assert_eq!(content(&row, "7-1"), Some(rest));
        }
        assert_eq!(content(r#"{"a":1}"#, "7-1"), None);
        assert_eq!(content(r#"{"_row":"7-12"}"#, "7-1"), None);
    }

    #[test]
    fn such_a_table_is_known_by_its_first_column() {
        let plain = |name: &str| Column { name: name.into(), native_type: "text".into(), ..column() };
        let table = |columns| Table {
            name: "t".into(),
            connector: "postgresql",
            database: "app".into(),
            namespace: "public".into(),
            relation: "t".into(),
            columns,
            key: vec![ROW_ID.into()],
        };
        let ours = table(vec![column(), plain("a")]);
        assert!(ours.is_append_only() && ours.database_columns() == [plain("a")]);
        assert!(!table(vec![plain(ROW_ID), plain("a")]).is_append_only());
    }
}
