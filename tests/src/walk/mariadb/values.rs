//! Types that a walk uses, values of them as SQL, and changes of rows.

use super::catalog::{Column, Table, quoted};
use crate::random::Random;

/// Types of columns that are no key.
pub(super) const KINDS: [&str; 21] = [
    "INT",
    "INT",
    "BIGINT UNSIGNED",
    "TINYINT(1)",
    "VARCHAR(20)",
    "VARCHAR(20)",
    "CHAR(5)",
    "TEXT",
    "MEDIUMTEXT",
    "DECIMAL(10,2)",
    "DOUBLE",
    "DATE",
    "DATETIME(3)",
    "TIMESTAMP(3) NULL",
    "TIME",
    "ENUM('a','b','ž')",
    "SET('x','y','z')",
    "VARBINARY(10)",
    "BLOB",
    "JSON",
    "YEAR",
];

/// A value of a type.
pub(super) fn literal(random: &mut Random, kind: &str) -> String {
    let number = random.below(1_000);
    let base: String = kind.chars().take_while(char::is_ascii_alphabetic).collect();
    match base.to_ascii_lowercase().as_str() {
        "tinyint" => (number % 100).to_string(),
        "smallint" | "mediumint" | "int" | "bigint" => number.to_string(),
        "decimal" => random.pick(&["1.10", "-0.05", "12345.60", "0", "7.00"]).to_string(),
        "double" | "float" => random.pick(&["0.5", "-0.25", "3", "1000000"]).to_string(),
        "date" => format!("'2024-{:02}-{:02}'", 1 + number % 12, 1 + number % 28),
        "datetime" | "timestamp" => format!("'2024-01-02 03:{:02}:05.{number:03}'", number % 60),
        "time" => format!("'-0{}:02:03'", number % 10),
        "enum" | "set" => match kind.split_once('(').map(|(_, labels)| labels.trim_end_matches(')')) {
            Some(labels) => (*random.pick(&labels.split(',').collect::<Vec<_>>())).to_owned(),
            None => "NULL".into(),
        },
        "varbinary" | "binary" | "blob" => format!("X'00FF{number:04}'"),
        // Also what MariaDB calls JSON, which must be that.
        "longtext" | "json" if number < 100 => "'null'".into(),
        "longtext" | "json" => format!("'{{\"a\":{number},\"b\":[1.10,null]}}'"),
        "year" => (2000 + number % 100).to_string(),
        "bit" => (number % 2).to_string(),
        "mediumtext" | "text" if number < 200 => format!("REPEAT(MD5({number}), {})", 100 + number),
        "char" => format!("'c{}'", number % 100),
        "varchar" | "text" | "mediumtext" => {
            random.pick(&[format!("'v{number}'"), "'žluť'".into(), "''".into()]).clone()
        }
        _ => "NULL".into(),
    }
}

fn value(random: &mut Random, column: &Column) -> String {
    if column.in_key == 1 {
        let small = random.below(40);
        return if column.kind.contains("int") { small.to_string() } else { format!("'k{small}'") };
    }
    if column.not_null == 0 && random.below(7) == 0 {
        return "NULL".into();
    }
    literal(random, &column.kind)
}

/// A condition that some rows of any table meet.
pub(super) fn some_rows(random: &mut Random, table: &Table) -> String {
    let of = 1 + random.below(4);
    match table.columns.first() {
        Some(column) => format!("CRC32({}) % {of} = {}", quoted(&column.name), random.below(of)),
        None => "TRUE".into(),
    }
}

/// A statement that changes rows of a table.
pub(super) fn change_rows(random: &mut Random, table: &Table, other: &Table) -> Option<String> {
    let name = table.quoted();
    match random.below(100) {
        0..=39 => Some(insert(random, table)),
        40..=61 => {
            let free = table.free();
            let column = *free.get(random.below(free.len().max(1) as u64) as usize)?;
            let value = value(random, column);
            Some(format!("UPDATE {name} SET {} = {value} WHERE {}", quoted(&column.name), some_rows(random, table)))
        }
        62..=73 => {
            let key = table.key();
            let column = *key.get(random.below(key.len().max(1) as u64) as usize)?;
            let (key, kind) = (quoted(&column.name), &column.kind);
            let changed = if kind.contains("int") { format!("{key} + 100") } else { format!("CONCAT({key}, '_')") };
            Some(format!("UPDATE {name} SET {key} = {changed} WHERE {}", some_rows(random, table)))
        }
        74..=88 => Some(format!("DELETE FROM {name} WHERE {}", some_rows(random, table))),
        89..=90 => Some(format!("DELETE FROM {name}")),
        // Two tables in one statement.
        91..=93 => {
            let (mine, theirs) = (table.free(), other.free());
            let (one, two) = (*mine.first()?, *theirs.first()?);
            if table.quoted() == other.quoted() {
                return None;
            }
            let (of, value_one, value_two) = (other.quoted(), value(random, one), value(random, two));
            let (column_one, column_two) = (quoted(&one.name), quoted(&two.name));
            Some(format!("UPDATE {name} x, {of} y SET x.{column_one} = {value_one}, y.{column_two} = {value_two}"))
        }
        _ => Some(format!("TRUNCATE TABLE {name}")),
    }
}

pub(super) fn insert(random: &mut Random, table: &Table) -> String {
    let columns = table.columns.iter().filter(|column| column.generated == 0);
    let columns: Vec<&Column> =
        columns.filter(|column| column.in_key == 1 || column.not_null == 1 || random.below(8) > 0).collect();
    let rows: Vec<String> = (0..1 + random.below(6))
        .map(|_| {
            let values: Vec<String> = columns.iter().map(|column| value(random, column)).collect();
            format!("({})", values.join(", "))
        })
        .collect();
    let names: Vec<String> = columns.iter().map(|column| quoted(&column.name)).collect();
    let how = *random.pick(&["INSERT IGNORE", "INSERT IGNORE", "REPLACE"]);
    format!("{how} INTO {} ({}) VALUES {}", table.quoted(), names.join(", "), rows.join(", "))
}
