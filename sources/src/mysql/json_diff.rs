//! Changes of MySQL's JSON documents, as its log tells them with `binlog_row_value_options=PARTIAL_JSON`.
//!
//! A change of a document is a list of differences, one after the other: what to do (a byte: 0 replace, 1 insert, 2
//! remove), the length of a path and the path, and, unless something is removed, the length of a value and the value in
//! the binary form of [`super::json_binary`]. Paths are text, from the root: `$.a[2]."b c"`. They mean exactly one
//! place; what is replaced or removed is there, and what is inserted is not, or shifts what follows it in an array.
//! Otherwise the document before is not the one that the server changed, and nothing is guessed. Source: MySQL's
//! `sql-common/json_diff.h` and `apply_json_diff` in `json_diff.cc`, and, for paths, `sql-common/json_path.cc`.

use super::bytes::{Bytes, Malformed};
use super::json_binary::Node;

/// A difference that does not go with its document.
const ELSEWHERE: Malformed = Malformed("a change of JSON that does not fit the document that was changed");

const PATH: Malformed = Malformed("a path in JSON");

/// The text of a document after its differences.
pub(super) fn apply(document: &[u8], differences: &[u8]) -> Result<String, Malformed> {
    let mut root = Node::read(document)?;
    let mut rest = Bytes(differences);
    while !rest.is_empty() {
        let operation = rest.u8()?;
        let path = std::str::from_utf8(rest.counted()?).map_err(|_| PATH)?;
        let legs = legs(path)?;
        let (last, above) = legs.split_last().ok_or(PATH)?;
        let parent = above.iter().try_fold(&mut root, |node, leg| leg.of(node)).ok_or(ELSEWHERE)?;
        match operation {
            0 => *last.of(parent).ok_or(ELSEWHERE)? = Node::read(rest.counted()?)?,
            1 => insert(parent, last, Node::read(rest.counted()?)?)?,
            2 => remove(parent, last)?,
            _ => return Err(Malformed("a change of JSON that is not known")),
        }
    }
    let mut text = String::with_capacity(document.len() + differences.len());
    root.write(&mut text);
    Ok(text)
}

fn insert(parent: &mut Node, leg: &Leg, value: Node) -> Result<(), Malformed> {
    match (parent, leg) {
        (Node::Object(members), Leg::Member(name)) => {
            let order =
                |(known, _): &(String, Node)| (known.len(), known.as_bytes()).cmp(&(name.len(), name.as_bytes()));
            let place = members.binary_search_by(order).err().ok_or(ELSEWHERE)?;
            members.insert(place, (name.clone(), value));
        }
        // Beyond the end is at the end.
        (Node::Array(elements), Leg::Element(place)) => elements.insert(elements.len().min(*place), value),
        _ => return Err(ELSEWHERE),
    }
    Ok(())
}

fn remove(parent: &mut Node, leg: &Leg) -> Result<(), Malformed> {
    match (parent, leg) {
        (Node::Object(members), Leg::Member(name)) => {
            let place = members.iter().position(|(known, _)| known == name).ok_or(ELSEWHERE)?;
            members.remove(place);
        }
        (Node::Array(elements), Leg::Element(place)) if *place < elements.len() => {
            elements.remove(*place);
        }
        _ => return Err(ELSEWHERE),
    }
    Ok(())
}

/// A step from a document to what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Leg {
    Member(String),
    Element(usize),
}

impl Leg {
    fn of<'a>(&self, node: &'a mut Node) -> Option<&'a mut Node> {
        match (self, node) {
            (Leg::Member(name), Node::Object(members)) => {
                members.iter_mut().find(|(known, _)| known == name).map(|(_, member)| member)
            }
            (Leg::Element(place), Node::Array(elements)) => elements.get_mut(*place),
            _ => None,
        }
    }
}

/// Takes a path apart.
fn legs(path: &str) -> Result<Vec<Leg>, Malformed> {
    let mut rest = path.trim_start().strip_prefix('$').ok_or(PATH)?;
    let mut legs = Vec::new();
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return Ok(legs);
        }
        if let Some(inside) = rest.strip_prefix('[') {
            let (place, after) = inside.split_once(']').ok_or(PATH)?;
            legs.push(Leg::Element(place.trim().parse().map_err(|_| PATH)?));
            rest = after;
        } else if let Some(name) = rest.strip_prefix('.') {
            let name = name.trim_start();
            let end = if name.starts_with('"') {
                quoted_end(name).ok_or(PATH)?
            } else {
                name.find(|next: char| next == '.' || next == '[' || next.is_whitespace()).unwrap_or(name.len())
            };
            let (name, after) = name.split_at(end);
            legs.push(Leg::Member(match name.strip_prefix('"') {
                // As in JSON.
                Some(_) => serde_json::from_str(name).map_err(|_| PATH)?,
                None if name.is_empty() || name == "*" => return Err(PATH),
                None => name.to_owned(),
            }));
            rest = after;
        } else {
            return Err(PATH);
        }
    }
}

/// Behind the quote that ends what begins with one.
fn quoted_end(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(at + 1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// `{"a":1,"b":[true,"x"]}`
    const DOCUMENT: &[u8] = &[
        0, 2, 0, 32, 0, 18, 0, 1, 0, 19, 0, 1, 0, 5, 1, 0, 2, 20, 0, b'a', b'b', 2, 0, 12, 0, 4, 1, 0, 12, 10, 0, 1,
        b'x',
    ];

    fn difference(operation: u8, path: &str, value: &[u8]) -> Vec<u8> {
        let mut out = vec![operation, path.len() as u8];
        out.extend(path.as_bytes());
        if operation != 2 {
            out.push(value.len() as u8);
            out.extend(value);
        }
        out
    }

    fn applied(differences: &[(u8, &str, &[u8])]) -> Result<String, Malformed> {
        let bytes = differences.iter().flat_map(|&(operation, path, value)| difference(operation, path, value));
        apply(DOCUMENT, &bytes.collect::<Vec<u8>>())
    }

    const SEVEN: &[u8] = &[5, 7, 0];

    #[test]
    fn what_changed_is_replaced_inserted_and_removed_at_its_place() {
        for (differences, expected) in [
            (&[][..], r#"{"a":1,"b":[true,"x"]}"#),
            (&[(0, "$.a", SEVEN)], r#"{"a":7,"b":[true,"x"]}"#),
            (&[(0, "$.b[1]", SEVEN)], r#"{"a":1,"b":[true,7]}"#),
            (&[(1, "$.b[0]", SEVEN)], r#"{"a":1,"b":[7,true,"x"]}"#),
            (&[(1, "$.b[9]", SEVEN)], r#"{"a":1,"b":[true,"x",7]}"#),
            (&[(2, "$.b[0]", b"")], r#"{"a":1,"b":["x"]}"#),
            (&[(2, "$.a", b"")], r#"{"b":[true,"x"]}"#),
            // Shorter names first.
            (&[(1, "$.aa", SEVEN)], r#"{"a":1,"b":[true,"x"],"aa":7}"#),
            (&[(1, r#"$."a\" b""#, SEVEN)], r#"{"a":1,"b":[true,"x"],"a\" b":7}"#),
            // One after the other.
            (
                &[(0, "$.a", DOCUMENT), (2, "$.a.b[1]", b""), (1, "$.c", b"\x0c\x01y")],
                r#"{"a":{"a":1,"b":[true]},"b":[true,"x"],"c":"y"}"#,
            ),
        ] {
            assert_eq!(applied(differences).as_deref(), Ok(expected), "{differences:?}");
        }
    }

    #[test]
    fn what_does_not_fit_the_document_is_not_guessed() {
        for (operation, path) in [
            (0, "$.c"),
            (0, "$.a.x"),
            (0, "$.b[2]"),
            (0, "$.a[0]"),
            (1, "$.a"),
            (1, "$.a[0]"),
            (1, "$.b.x"),
            (2, "$.c"),
            (2, "$.b[2]"),
        ] {
            assert_eq!(applied(&[(operation, path, SEVEN)]), Err(ELSEWHERE), "{operation} {path}");
        }
        for path in ["$", "", "a", "$.", "$.*", "$[*]", "$[last]", "$.b[", "$.\"a", "$**.a", "$x"] {
            assert_eq!(applied(&[(0, path, SEVEN)]), Err(PATH), "{path}");
        }
        assert!(applied(&[(3, "$.a", SEVEN)]).is_err());
        let whole = difference(0, "$.a", SEVEN);
        for end in 1..whole.len() {
            assert!(apply(DOCUMENT, &whole[..end]).is_err());
        }
    }
}
