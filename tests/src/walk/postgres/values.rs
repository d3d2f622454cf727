//! Types that a walk uses, and values of them as SQL.

use super::catalog::{Column, Table, quoted};
use crate::random::Random;

/// Types of columns that are no key.
pub(super) const KINDS: [&str; 22] = [
    "integer",
    "bigint",
    "text",
    "text",
    "text",
    "varchar(20)",
    "char(6)",
    "numeric(12,2)",
    "numeric",
    "boolean",
    "date",
    "timestamp",
    "timestamptz",
    "jsonb",
    "json",
    "uuid",
    "bytea",
    "integer[]",
    "text[]",
    "double precision",
    "mood",
    "interval",
];

/// A value of a type.
pub(super) fn literal(random: &mut Random, kind: &str, moods: &[String]) -> String {
    let number = random.below(1_000);
    let base = kind.split('(').next().unwrap_or_default().trim();
    if kind.ends_with("[]") {
        return match (base.starts_with("int"), random.below(3)) {
            (true, 0) => "'{}'".into(),
            (true, _) => format!("'{{{number},NULL,{}}}'", random.below(9)),
            (false, _) => format!("ARRAY['w{number}', 'a,\"b\"', NULL]"),
        };
    }
    match base {
        "smallint" | "integer" | "bigint" => number.to_string(),
        "numeric" => random.pick(&["1.10", "-0.05", "12345.60", "0", "99.99", "7.00"]).to_string(),
        "real" | "double precision" => random.pick(&["0.5", "-1e-7", "'NaN'", "'Infinity'", "3", "1e300"]).to_string(),
        "boolean" => random.pick(&["true", "false"]).to_string(),
        "date" => format!("'2024-{:02}-{:02}'", 1 + number % 12, 1 + number % 28),
        "timestamp without time zone" | "timestamp" => {
            format!("'2024-01-02 03:{:02}:05.{:03}'", number % 60, number)
        }
        "timestamp with time zone" | "timestamptz" => format!("'2024-06-02 03:{:02}:05.{number:03}+02'", number % 60),
        "jsonb" | "json" if number < 100 => "'null'".into(),
        "jsonb" | "json" => format!("'{{\"a\":{number},\"b\":[1.10,null,\"x\\\"y\"]}}'"),
        "uuid" => format!("'00000000-0000-4000-8000-{number:012}'"),
        "bytea" => format!("'\\x00ff{number:04}'"),
        "interval" => format!("'{number} hours 5 minutes'"),
        "character varying" | "varchar" => format!("'v{number}'"),
        "character" | "char" => format!("'c{}'", number % 100),
        "mood" if !moods.is_empty() => format!("'{}'", random.pick(moods).replace('\'', "''")),
        "text" if number < 150 => large(random),
        "text" => random.pick(&[format!("'t{number}'"), format!("E'it''s \\n{number}'"), "'žluť 表'".into()]).clone(),
        _ => "NULL".into(),
    }
}

/// A text that is stored out of line: longer than a page has room for, and hard to compress.
pub(super) fn large(random: &mut Random) -> String {
    let (seed, length) = (random.below(1_000_000), 100 + random.below(100));
    format!("(SELECT string_agg(md5((g * {seed})::text), '') FROM generate_series(1, {length}) g)")
}

/// A value for a column of a table: of few different ones for a key, so that keys come back.
pub(super) fn value(random: &mut Random, table: &Table, column: &Column, moods: &[String]) -> String {
    if table.is_key(column) || table.is_partition_column(column) {
        let small = random.below(40);
        return match column.kind.split('(').next().unwrap_or_default() {
            "smallint" | "integer" | "bigint" | "numeric" => small.to_string(),
            "text" | "character varying" => format!("'k{small}'"),
            "uuid" => format!("'00000000-0000-4000-8000-{small:012}'"),
            "date" => format!("'2024-{:02}-05'", 1 + small % 6),
            other => literal(random, other, moods),
        };
    }
    if !column.not_null && random.below(7) == 0 {
        return "NULL".into();
    }
    literal(random, &column.kind, moods)
}

/// What makes one value of another of the same type; for keys without meeting another row.
pub(super) fn changed(column: &Column) -> Option<String> {
    let name = quoted(&column.name);
    match column.kind.split('(').next().unwrap_or_default() {
        "smallint" | "integer" | "bigint" | "numeric" => Some(format!("{name} + 100")),
        "text" => Some(format!("{name} || '_'")),
        _ => None,
    }
}

/// A condition that some rows of any table meet.
pub(super) fn some_rows(random: &mut Random, table: &Table) -> String {
    let of = 1 + random.below(4);
    let key = table.key.first().or_else(|| table.columns.first().map(|column| &column.name));
    match key {
        Some(key) => format!("abs(hashtext({}::text)::bigint) % {of} = {}", quoted(key), random.below(of)),
        None => "true".into(),
    }
}
