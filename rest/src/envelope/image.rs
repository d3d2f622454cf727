//! A row's image taken apart into members, without parsing their values.
//!
//! Images are JSON that the engine has checked. What is none ends the walk early; nothing here panics on it.

use std::borrow::Cow;

/// One member as it stands in the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member<'a> {
    /// The name with its quotation marks and escapes.
    pub(super) name: &'a [u8],
    /// The value.
    pub(super) value: &'a [u8],
}

impl Member<'_> {
    /// Whether this is its name.
    pub(super) fn is_named(&self, name: &str) -> bool {
        let inside = &self.name[1..self.name.len() - 1];
        if inside.contains(&b'\\') {
            plain(self.name).is_some_and(|plain| plain == name)
        } else {
            inside == name.as_bytes()
        }
    }

    /// Whether both have the same name, however it is written.
    pub(super) fn is_named_as(&self, other: &Member<'_>) -> bool {
        self.name == other.name
            || ((self.name.contains(&b'\\') || other.name.contains(&b'\\'))
                && plain(self.name).is_some_and(|name| other.is_named(&name)))
    }
}

/// The members of an object, in order.
#[derive(Clone, Debug)]
pub(super) struct Members<'a>(&'a [u8]);

impl<'a> Members<'a> {
    pub(super) fn of(object: &'a [u8]) -> Self {
        Self(skip_space(object).strip_prefix(b"{").unwrap_or_default())
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = Member<'a>;

    fn next(&mut self) -> Option<Member<'a>> {
        let rest = skip_space(self.0);
        let rest = skip_space(rest.strip_prefix(b",").unwrap_or(rest));
        if rest.first() != Some(&b'"') {
            return None;
        }
        let (name, rest) = rest.split_at(value_length(rest)?);
        let rest = skip_space(skip_space(rest).strip_prefix(b":")?);
        let (value, rest) = rest.split_at(value_length(rest)?);
        self.0 = rest;
        Some(Member { name, value })
    }
}

/// The items of an array, in order.
#[derive(Clone, Debug)]
pub(super) struct Items<'a>(&'a [u8]);

impl<'a> Items<'a> {
    /// None if the value is no array.
    pub(super) fn of(array: &'a [u8]) -> Option<Self> {
        array.strip_prefix(b"[").map(Self)
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = skip_space(self.0);
        let rest = skip_space(rest.strip_prefix(b",").unwrap_or(rest));
        let (item, rest) = rest.split_at(value_length(rest)?);
        self.0 = rest;
        Some(item)
    }
}

/// What a JSON column holds, where its value is written as `{"$json":…}` because it could be taken for something else:
/// JSON's null for SQL's, and what looks like this.
pub(super) fn unmarked(value: &[u8]) -> Option<&[u8]> {
    value.strip_prefix(b"{\"$json\":".as_slice())?;
    let mut members = Members::of(value);
    let inside = members.next()?.value;
    members.next().is_none().then_some(inside)
}

/// The characters of a JSON string; none if it is something else.
pub(super) fn plain(value: &[u8]) -> Option<Cow<'_, str>> {
    let inside = value.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if inside.contains(&b'\\') {
        serde_json::from_slice::<String>(value).ok().map(Cow::Owned)
    } else {
        std::str::from_utf8(inside).ok().map(Cow::Borrowed)
    }
}

fn skip_space(bytes: &[u8]) -> &[u8] {
    let space = bytes.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count();
    &bytes[space..]
}

/// How many bytes the value at the beginning has; none if there is no whole value.
fn value_length(bytes: &[u8]) -> Option<usize> {
    match bytes.first()? {
        b'"' => string_length(bytes),
        b'{' | b'[' => {
            let mut depth = 0_usize;
            let mut at = 0;
            loop {
                match bytes.get(at)? {
                    b'"' => {
                        at += string_length(&bytes[at..])?;
                        continue;
                    }
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => {
                        depth -= 1;
                        if depth == 0 {
                            return Some(at + 1);
                        }
                    }
                    _ => {}
                }
                at += 1;
            }
        }
        _ => {
            let end = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b':' | b' ' | b'\t' | b'\n' | b'\r');
            let length = bytes.iter().position(end).unwrap_or(bytes.len());
            (length > 0).then_some(length)
        }
    }
}

fn string_length(bytes: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        at += memchr::memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(object: &str) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Members::of(object.as_bytes()).map(|member| (text(member.name), text(member.value))).collect()
    }

    #[test]
    fn members_keep_their_text() {
        let object = r#" { "a" : 1.10 ,"b\"":"x\\\"}","c":{"d":["}",[]]},"":null,"e":[ ]} "#;
        let expected = [
            ("\"a\"", "1.10"),
            (r#""b\"""#, r#""x\\\"}""#),
            ("\"c\"", r#"{"d":["}",[]]}"#),
            ("\"\"", "null"),
            ("\"e\"", "[ ]"),
        ];
        let expected: Vec<_> = expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        assert_eq!(members(object), expected);
        assert_eq!(members("{}"), []);
    }

    #[test]
    fn names_are_compared_by_their_characters() {
        let escaped = Member { name: br#""\u0061\"""#, value: b"1" };
        assert!(escaped.is_named("a\""));
        assert!(!escaped.is_named(r#"\u0061\""#));
        let written_plainly = Member { name: b"\"a\"", value: b"1" };
        assert!(written_plainly.is_named("a"));
        let written_otherwise = Member { name: br#""\u0061""#, value: b"1" };
        assert!(written_plainly.is_named_as(&written_otherwise) && written_otherwise.is_named_as(&written_plainly));
        assert!(!written_plainly.is_named_as(&escaped));
    }

    #[test]
    fn what_is_no_object_has_no_members() {
        for broken in ["", "[1]", "1", "{\"a", "{\"a\"", "{\"a\":", "{\"a\":\"", "{\"a\":{", "{a:1}", "{\"a\":\"\\"] {
            assert_eq!(members(broken), [], "{broken}");
        }
    }

    #[test]
    fn what_a_json_column_holds_is_taken_out_of_its_mark() {
        for (value, inside) in [
            ("{\"$json\":null}", Some("null")),
            ("{\"$json\":{\"$json\":1}}", Some("{\"$json\":1}")),
            ("{\"$json\":1,\"a\":2}", None),
            ("{\"a\":null}", None),
            ("null", None),
        ] {
            assert_eq!(unmarked(value.as_bytes()), inside.map(str::as_bytes), "{value}");
        }
    }

    #[test]
    fn items_keep_their_text() {
        let items: Option<Vec<&[u8]>> = Items::of(br#"[1.0, "a,]",[2,[]],{"x":[]},null]"#).map(Iterator::collect);
        let expected: Vec<&[u8]> = vec![b"1.0", b"\"a,]\"", b"[2,[]]", b"{\"x\":[]}", b"null"];
        assert_eq!(items, Some(expected));
        assert!(Items::of(b"1").is_none());
    }
}
