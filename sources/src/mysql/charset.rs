//! Character sets of columns, turned into UTF-8.
//!
//! The log holds text in its column's own character set, and a table is read without conversion, so both go through
//! here and come out the same. Decoders are those of the WHATWG's Encoding Standard, which for some sets is richer than
//! the server's own (`latin1` is windows-1252 there as here).

use std::borrow::Cow;

use encoding_rs::Encoding;

/// How a column's bytes become characters.
#[derive(Clone, Copy, Debug)]
pub(super) enum Charset {
    /// No characters.
    Binary,
    Utf8,
    Legacy(&'static Encoding),
    Utf32,
}

impl PartialEq for Charset {
    fn eq(&self, other: &Charset) -> bool {
        match (self, other) {
            (Charset::Legacy(one), Charset::Legacy(other)) => one == other,
            (one, other) => std::mem::discriminant(one) == std::mem::discriminant(other),
        }
    }
}

impl Charset {
    /// By the server's name of it. None if it is not supported.
    pub(super) fn named(name: &str) -> Option<Charset> {
        use encoding_rs as e;
        Some(match name {
            "binary" => Charset::Binary,
            // ASCII columns hold seven bits, which mean the same in UTF-8.
            "utf8mb4" | "utf8mb3" | "utf8" | "ascii" => Charset::Utf8,
            "utf32" => Charset::Utf32,
            "latin1" => Charset::Legacy(e::WINDOWS_1252),
            "latin2" => Charset::Legacy(e::ISO_8859_2),
            "latin5" => Charset::Legacy(e::WINDOWS_1254),
            "latin7" => Charset::Legacy(e::ISO_8859_13),
            "greek" => Charset::Legacy(e::ISO_8859_7),
            "hebrew" => Charset::Legacy(e::ISO_8859_8),
            "tis620" => Charset::Legacy(e::WINDOWS_874),
            "cp1250" => Charset::Legacy(e::WINDOWS_1250),
            "cp1251" => Charset::Legacy(e::WINDOWS_1251),
            "cp1256" => Charset::Legacy(e::WINDOWS_1256),
            "cp1257" => Charset::Legacy(e::WINDOWS_1257),
            "cp866" => Charset::Legacy(e::IBM866),
            "koi8r" => Charset::Legacy(e::KOI8_R),
            "koi8u" => Charset::Legacy(e::KOI8_U),
            "macroman" => Charset::Legacy(e::MACINTOSH),
            "ucs2" | "utf16" => Charset::Legacy(e::UTF_16BE),
            "utf16le" => Charset::Legacy(e::UTF_16LE),
            "gb2312" | "gbk" => Charset::Legacy(e::GBK),
            "gb18030" => Charset::Legacy(e::GB18030),
            "big5" => Charset::Legacy(e::BIG5),
            "ujis" | "eucjpms" => Charset::Legacy(e::EUC_JP),
            "sjis" | "cp932" => Charset::Legacy(e::SHIFT_JIS),
            "euckr" => Charset::Legacy(e::EUC_KR),
            _ => return None,
        })
    }

    /// The characters that the bytes stand for; None if they stand for none.
    pub(super) fn decode<'a>(&self, bytes: &'a [u8]) -> Option<Cow<'a, str>> {
        match self {
            Charset::Binary => None,
            Charset::Utf8 => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
            Charset::Legacy(encoding) => encoding.decode_without_bom_handling_and_without_replacement(bytes),
            Charset::Utf32 => {
                let (characters, rest) = bytes.as_chunks::<4>();
                let decoded = characters.iter().map(|&code| char::from_u32(u32::from_be_bytes(code)));
                decoded.collect::<Option<String>>().filter(|_| rest.is_empty()).map(Cow::Owned)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn text_becomes_the_characters_that_it_stands_for() {
        for (name, bytes, text) in [
            ("latin1", &b"caf\xe9 \x80 \x81"[..], "café € \u{81}"),
            ("utf8mb4", "é😀".as_bytes(), "é😀"),
            ("cp1251", b"\xcf\xf0\xe8", "При"),
            ("ucs2", b"\x00a\x20\xac", "a€"),
            ("utf16", b"\xd8\x3d\xde\x00", "😀"),
            ("utf32", b"\x00\x01\xf6\x00", "😀"),
            ("sjis", b"\x83e\x83X\x83g", "テスト"),
        ] {
            assert_eq!(Charset::named(name).unwrap().decode(bytes).as_deref(), Some(text), "{name}");
        }
    }

    #[test]
    fn what_stands_for_nothing_is_not_guessed() {
        assert_eq!(Charset::Utf8.decode(b"\xff"), None);
        assert_eq!(Charset::Utf32.decode(b"\x00\x00\x00"), None);
        assert_eq!(Charset::named("dec8"), None);
    }
}
