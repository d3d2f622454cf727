//! A piece of an audit held against the rows here.

use cdc_sources::{AuditPiece, AuditRows, json};

use super::super::reading::canonical;
use super::record::Difference;
use crate::store::{StoreError, View};

/// What a comparison says.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Keys of rows whose sums differ: whether the rows do is not known.
    pub(super) suspects: Vec<Vec<String>>,
    /// Rows that differ, with their keys in parts.
    pub(super) differences: Vec<(Vec<String>, Difference)>,
}

/// Compares every row of a piece with the row of its key.
pub(super) fn compare(view: &dyn View, piece: &AuditPiece) -> Result<Found, StoreError> {
    let mut found = Found::default();
    let row = |key: &[String]| view.row(&piece.table.name, &canonical(key));
    match &piece.rows {
        AuditRows::Sums { text, rows } => {
            for (key, sum) in rows {
                let here = row(key)?;
                let image = here.as_ref().and_then(|image| std::str::from_utf8(image).ok());
                if image.and_then(|image| text.sum(image)) != Some(*sum) {
                    found.suspects.push(key.clone());
                }
            }
        }
        AuditRows::Images(rows) => {
            for (key, there) in rows {
                let here = row(key)?.map(|image| String::from_utf8_lossy(&image).into_owned());
                if !here.as_ref().is_some_and(|here| is_same(here, there)) {
                    let difference = Difference::new(canonical(key).into_owned(), here, Some(there.clone()));
                    found.differences.push((key.clone(), difference));
                }
            }
        }
    }
    Ok(found)
}

/// Whether two images have the same members, in whatever order.
fn is_same(here: &str, there: &str) -> bool {
    if here == there {
        return true;
    }
    let (Some(mut here), Some(mut there)) = (json::members(here), json::members(there)) else { return false };
    here.sort_unstable();
    there.sort_unstable();
    here == there
}

/// The parts of a key that the store has.
pub(super) fn parts(canonical: &str, count: usize) -> Vec<String> {
    if count == 1 {
        return vec![canonical.to_owned()];
    }
    canonical.split('/').map(|part| part.replace("%2F", "/").replace("%25", "%")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_the_same_in_any_order_of_their_members_and_in_no_other_way() {
        assert!(is_same(r#"{"a":1,"b":"x"}"#, r#"{"b":"x","a":1}"#));
        for other in [r#"{"a":1}"#, r#"{"a":1,"b":"y"}"#, r#"{"a":1.0,"b":"x"}"#, r#"{"a":1,"b":"x","c":null}"#, "[]"] {
            assert!(!is_same(r#"{"a":1,"b":"x"}"#, other), "{other}");
        }
    }

    #[test]
    fn a_key_of_the_store_is_taken_apart_as_it_was_put_together() {
        for key in [&["a/b%"][..], &["a/b", "c%"], &["", "%2F", "/"]] {
            let key: Vec<String> = key.iter().map(|&part| part.to_owned()).collect();
            assert_eq!(parts(&canonical(&key), key.len()), key);
        }
    }
}
