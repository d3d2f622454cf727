//! The JSON body of `POST /data/:table`: one row, or an array of rows. Rows stay the bytes that came.

use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::problem::Problem;
use crate::{Code, Limits};

/// The rows of a JSON body, cut out of it and not looked at otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InsertBody<'a> {
    /// One row, or what stands in its place: the engine judges it. Without white space around it.
    Row(&'a [u8]),
    /// The elements of an array, each a JSON value. The whole array is well-formed: a body that breaks off captures
    /// nothing.
    Rows(Vec<&'a str>),
}

impl<'a> InsertBody<'a> {
    /// Takes a whole body. Its first byte decides: `[` begins an array, in which the engine refuses what is too long
    /// row by row; a single row that is too long need not go as far.
    pub fn parse(body: &'a [u8], limits: &Limits) -> Result<Self, Problem> {
        let body = trim(body);
        match body {
            [b'[', ..] => rows(body, limits).map(Self::Rows),
            row if row.len() > limits.max_row_bytes => Err(Problem::row_too_large(limits)),
            row => Ok(Self::Row(row)),
        }
    }
}

/// Cuts off what JSON calls white space (and no more than that).
pub(crate) fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t' | b'\r' | b'\n', rest @ ..] | [rest @ .., b' ' | b'\t' | b'\r' | b'\n'] = text {
        text = rest;
    }
    text
}

/// Skipping over a raw value is iterative in serde_json: no nesting exhausts the stack.
fn rows<'a>(body: &'a [u8], limits: &Limits) -> Result<Vec<&'a str>, Problem> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let rows = AtMost(limits.max_rows).deserialize(&mut deserializer);
    let rows = rows.and_then(|rows| deserializer.end().map(|()| rows));
    rows.map_err(|error| {
        if error.is_data() {
            // An array of any values fits, so this can only be our own limit.
            let detail =
                format!("an array may have at most {} rows; send NDJSON, whose rows are not limited", limits.max_rows);
            Problem::new(Code::TooManyRows, detail).with_number("limit", limits.max_rows as u64)
        } else {
            Problem::new(Code::InvalidJson, format!("the body is not a JSON array: {error}; nothing was captured"))
        }
    })
}

/// Collects the elements of an array, as long as there are not too many.
struct AtMost(usize);

impl<'de> DeserializeSeed<'de> for AtMost {
    type Value = Vec<&'de str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for AtMost {
    type Value = Vec<&'de str>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array of rows")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let mut rows = Vec::new();
        while let Some(element) = elements.next_element::<&'de RawValue>()? {
            if rows.len() == self.0 {
                return Err(A::Error::custom("too many rows"));
            }
            rows.push(element.get());
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &[u8]) -> Result<InsertBody<'_>, Code> {
        InsertBody::parse(body, &Limits::default()).map_err(|problem| problem.code())
    }

    #[test]
    fn an_array_is_cut_into_its_elements_as_they_were_written() {
        let body = b" \n[ {\"a\": 1.00, \"b\":\"]\\\",\"} ,{}, 1e400 ,null,[[]],\"x\"\t]\r\n";
        let rows = vec!["{\"a\": 1.00, \"b\":\"]\\\",\"}", "{}", "1e400", "null", "[[]]", "\"x\""];
        assert_eq!(parse(body), Ok(InsertBody::Rows(rows)));
        assert_eq!(parse(b"[]"), Ok(InsertBody::Rows(vec![])));
    }

    #[test]
    fn anything_else_is_left_to_the_engine() {
        for row in [&b"{\"a\":1}"[..], b"", b"nonsense", b"\xff", b"{"] {
            assert_eq!(parse(row), Ok(InsertBody::Row(row)));
        }
        assert_eq!(parse(b"\r\n\t {} \n"), Ok(InsertBody::Row(b"{}")));
    }

    #[test]
    fn a_broken_array_captures_nothing() {
        for body in [
            &b"["[..],
            b"[1",
            b"[1,",
            b"[1,]",
            b"[,1]",
            b"[1 2]",
            b"[1]]",
            b"[1]{}",
            b"[{]",
            b"[{\"a\":1}",
            b"[\"\xff\"]",
            b"[tru]",
            b"[01]",
            b"[\"a\nb\"]",
        ] {
            assert_eq!(parse(body), Err(Code::InvalidJson), "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn nesting_however_deep_does_not_exhaust_the_stack() {
        for depth in [20_000, 2_000_000] {
            let mut body = b"[{\"a\":".to_vec();
            body.resize(body.len() + depth, b'[');
            body.resize(body.len() + depth, b']');
            body.extend_from_slice(b"}]");
            assert!(matches!(parse(&body), Ok(InsertBody::Rows(rows)) if rows.len() == 1));
            // And without its end.
            assert_eq!(parse(&body[..depth]), Err(Code::InvalidJson));
        }
    }

    #[test]
    fn a_row_that_is_too_long_is_refused() {
        let limits = Limits { max_row_bytes: 7, ..Limits::default() };
        assert!(InsertBody::parse(b" {\"a\":1} ", &limits).is_ok());
        let refused = InsertBody::parse(b"{\"a\":10}", &limits);
        assert!(refused.is_err_and(|problem| problem.code() == Code::RowTooLarge));
    }

    #[test]
    fn too_many_rows_are_refused() {
        let limits = Limits { max_rows: 2, ..Limits::default() };
        assert!(InsertBody::parse(b"[1,2]", &limits).is_ok());
        let refused = InsertBody::parse(b"[1,2,3]", &limits);
        assert!(
            refused.is_err_and(|problem| problem.code() == Code::TooManyRows && problem.detail().contains("NDJSON"))
        );
    }
}
