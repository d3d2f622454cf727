//! Texts by the thousand: keys and images as one run of bytes, each named by its span.
//!
//! They come from outside and go outside in this form, so what the core only passes on it never takes apart.

use crate::store::StoreError;

/// Where a text stands in its [`Texts`], in bytes. 32 bits, because the component's memory has no more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Its first byte.
    pub offset: u32,
    /// How many bytes it has.
    pub length: u32,
}

/// Texts end to end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts(Vec<u8>);

impl Texts {
    /// Without texts, and with room for so many bytes.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// Adds a text at the end.
    pub fn push(&mut self, text: &str) -> Span {
        let offset = self.0.len() as u32;
        self.0.extend_from_slice(text.as_bytes());
        Span { offset, length: text.len() as u32 }
    }

    /// The bytes of a span; none when it is not one of these texts.
    #[must_use]
    pub fn bytes(&self, span: Span) -> Option<&[u8]> {
        self.0.get(span.offset as usize..)?.get(..span.length as usize)
    }

    /// A text that the store gave.
    pub fn text(&self, span: Span) -> Result<&str, StoreError> {
        let wrong = || StoreError::Failed("the store gave a text that is none".to_owned());
        std::str::from_utf8(self.bytes(span).ok_or_else(wrong)?).map_err(|_| wrong())
    }

    /// How many bytes they are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is not a byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

impl From<Vec<u8>> for Texts {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    #[cfg(target_family = "wasm")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn a_text_is_found_by_its_span() {
        let mut texts = Texts::default();
        let (first, empty, second) = (texts.push("été"), texts.push(""), texts.push("b"));
        assert_eq!([first, empty, second].map(|span| texts.text(span).unwrap()), ["été", "", "b"]);
        assert_eq!(texts.into_bytes(), "étéb".as_bytes());
    }

    #[test]
    fn a_span_that_is_no_text_is_the_stores_fault() {
        let texts = Texts::from("été".as_bytes().to_vec());
        for (offset, length) in [(0, 6), (6, 0), (u32::MAX, u32::MAX), (1, 1), (0, 1)] {
            assert!(matches!(texts.text(Span { offset, length }), Err(StoreError::Failed(_))), "{offset} {length}");
        }
    }
}
