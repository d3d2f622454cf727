//! The documented JSON forms of values, from the text that each database shows of them.

use super::{canonical, string};
use crate::json::Members;

/// Of PostgreSQL, in a session with UTC, ISO dates, ISO 8601 intervals and hexadecimal `bytea`. `base` is the type's
/// name in `pg_type`, a domain's the one below it; arrays come as JSON already.
pub(super) fn of_postgres(base: &str, in_key: bool, text: &str) -> String {
    let is_number = text.trim_start_matches('-').starts_with(|first: char| first.is_ascii_digit());
    let is_moment = text.starts_with(|first: char| first.is_ascii_digit()) && !text.ends_with("BC");
    match base {
        "int2" | "int4" | "int8" | "oid" => text.to_owned(),
        "timestamp" if is_moment => string(&text.replacen(' ', "T", 1)),
        "timestamptz" if is_moment => string(&format!("{}Z", text.replacen(' ', "T", 1).trim_end_matches("+00"))),
        "bytea" => string(&base64(&from_hex(text.trim_start_matches("\\x")))),
        _ if in_key => string(text),
        "bool" => (if text == "t" || text == "true" { "true" } else { "false" }).to_owned(),
        "float4" | "float8" | "numeric" if is_number => text.to_owned(),
        "json" | "jsonb" => json(text),
        _ => string(text),
    }
}

/// Of MariaDB, in a session with UTC. `data_type` as in the information schema, or `json` for what is checked to be it.
pub(super) fn of_mariadb(data_type: &str, text: &[u8]) -> String {
    let plain = || String::from_utf8_lossy(text).into_owned();
    match data_type {
        "tinyint" | "smallint" | "mediumint" | "int" | "bigint" | "decimal" | "float" | "double" | "bit" | "year" => {
            plain()
        }
        "datetime" => string(&plain().replacen(' ', "T", 1)),
        "timestamp" => string(&format!("{}Z", plain().replacen(' ', "T", 1))),
        "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => string(&base64(text)),
        "set" => {
            let members: Vec<String> = plain().split(',').filter(|name| !name.is_empty()).map(string).collect();
            format!("[{}]", members.join(","))
        }
        "json" => json(&plain()),
        _ => string(&plain()),
    }
}

/// JSON's null is told from SQL's, and what looks like that stands in another one.
fn json(text: &str) -> String {
    let value = canonical(text);
    let is_marked = value.starts_with("{\"$json\":") && Members::of(&value).0.len() == 1;
    if value == "null" || is_marked { format!("{{\"$json\":{value}}}") } else { value }
}

/// Bytes from their digits.
pub(super) fn from_hex(digits: &str) -> Vec<u8> {
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(&String::from_utf8_lossy(pair), 16).expect("hexadecimal digits")).collect()
}

fn base64(bytes: &[u8]) -> String {
    const SIGNS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let number = group.iter().fold(0_u32, |number, &byte| number << 8 | u32::from(byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let sign = SIGNS[(number >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= group.len() { char::from(sign) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_written_as_rfc_4648_has_them() {
        let encoded = ["", "f", "fo", "foo", "foob", "fooba", "foobar"].map(|text| base64(text.as_bytes()));
        assert_eq!(encoded, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"]);
    }

    #[test]
    fn values_have_their_documented_forms() {
        assert_eq!(of_postgres("timestamptz", false, "2024-01-02 03:04:05.5+00"), "\"2024-01-02T03:04:05.5Z\"");
        assert_eq!(of_postgres("timestamp", false, "infinity"), "\"infinity\"");
        assert_eq!(of_postgres("numeric", false, "NaN"), "\"NaN\"");
        assert_eq!(of_postgres("numeric", true, "1.10"), "\"1.10\"");
        assert_eq!(of_postgres("jsonb", false, "null"), "{\"$json\":null}");
        assert_eq!(of_postgres("bytea", false, "\\xdeadbeef"), "\"3q2+7w==\"");
        assert_eq!(of_mariadb("set", b"a,c"), "[\"a\",\"c\"]");
        assert_eq!(of_mariadb("timestamp", b"2024-01-02 03:04:05"), "\"2024-01-02T03:04:05Z\"");
    }
}
