//! Changes of columns, keys, engines and versioning.

use super::Generator;
use super::catalog::{Column, Table, quoted};
use super::values::{KINDS, literal};
use crate::random::Random;

/// Names of columns, few enough to come back after they were dropped.
const NAMES: [&str; 8] = ["a", "b", "c", "d", "Body", "content", "x y", "ž"];

impl Generator {
    pub(super) fn change_columns(&self, random: &mut Random) -> Option<Vec<String>> {
        let table = self.any(random)?;
        let name = table.quoted();
        let one = |text: String| Some(vec![format!("ALTER TABLE {name} {text}")]);
        let free = table.free();
        let column = (!free.is_empty()).then(|| *random.pick(&free));
        match random.below(100) {
            0..=25 => one(format!("ADD COLUMN {}", new_column(random, table)?)),
            26..=35 => {
                let all: Vec<&Column> = table.columns.iter().collect();
                let (column, new) = (*random.pick(&all), free_column(random, table)?);
                one(format!("RENAME COLUMN {} TO {}", quoted(&column.name), quoted(&new)))
            }
            36..=44 => one(format!("DROP COLUMN {}", quoted(&column?.name))),
            45..=48 => {
                let (column, kind) = (quoted(&column?.name), *random.pick(&KINDS));
                one(format!("DROP COLUMN {column}, ADD COLUMN {column} {kind} DEFAULT {}", constant(random, kind)))
            }
            // Two columns swap their names.
            49..=52 => {
                let (a, b) = (column?, *random.pick(&free));
                if a.name == b.name {
                    return None;
                }
                let (a, b) = (quoted(&a.name), quoted(&b.name));
                one(format!("RENAME COLUMN {a} TO {b}, RENAME COLUMN {b} TO {a}"))
            }
            53..=64 => {
                let column = column?;
                one(format!("MODIFY COLUMN {} {}", quoted(&column.name), retyped(random, column)?))
            }
            65..=66 => one(format!("MODIFY COLUMN {} {} FIRST", quoted(&column?.name), column?.kind)),
            67..=72 => {
                let generated = table.columns.iter().find(|column| column.generated == 1)?;
                let number = table.free().into_iter().find(|column| column.kind.starts_with("int"))?;
                let times = random.below(9);
                let (generated, number) = (quoted(&generated.name), quoted(&number.name));
                let kind = random.pick(&["VIRTUAL", "PERSISTENT"]);
                one(format!("MODIFY COLUMN {generated} BIGINT AS ({number} * {times}) {kind}"))
            }
            73..=75 => one(format!("CONVERT TO CHARACTER SET {}", random.pick(&["utf8mb4", "utf8mb3", "latin2"]))),
            76..=79 => one(format!("ENGINE = {}", random.pick(&["InnoDB", "InnoDB", "MEMORY", "Aria", "MyISAM"]))),
            80..=82 => one("FORCE".into()),
            83 => one("DROP PRIMARY KEY".into()),
            84..=86 => {
                let key = format!("key{}", self.drawn);
                let old = if table.key().is_empty() { "" } else { "DROP PRIMARY KEY, " };
                one(format!("ADD COLUMN {key} BIGINT AUTO_INCREMENT, {old}ADD PRIMARY KEY ({key})"))
            }
            87..=89 => one(format!("ADD UNIQUE ({})", quoted(&column?.name))),
            90..=95 => one(match (table.versioned, random.below(3)) {
                (true, _) => "DROP SYSTEM VERSIONING".into(),
                (false, 0) => format!(
                    "ADD COLUMN row_from{0} TIMESTAMP(6) AS ROW START, ADD COLUMN row_to{0} TIMESTAMP(6) AS ROW END, \
                     ADD PERIOD FOR SYSTEM_TIME(row_from{0}, row_to{0}), ADD SYSTEM VERSIONING",
                    self.drawn
                ),
                (false, _) => "ADD SYSTEM VERSIONING".into(),
            }),
            96 => Some(vec![format!("DELETE HISTORY FROM {name}")]),
            97 => Some(vec![format!("OPTIMIZE TABLE {name}")]),
            98 => one(format!("ADD COLUMN {} INT INVISIBLE DEFAULT 3", quoted(&free_column(random, table)?))),
            _ => one(format!("ALTER COLUMN {} SET DEFAULT {}", quoted(&column?.name), constant(random, &column?.kind))),
        }
    }
}

fn free_column(random: &mut Random, table: &Table) -> Option<String> {
    let taken = |name: &str| table.columns.iter().any(|column| column.name.eq_ignore_ascii_case(name));
    let free: Vec<&str> = NAMES.into_iter().filter(|name| !taken(name)).collect();
    (!free.is_empty()).then(|| (*random.pick(&free)).to_owned())
}

fn constant(random: &mut Random, kind: &str) -> String {
    let value = literal(random, kind);
    if value.starts_with("REPEAT") { "'constant'".into() } else { value }
}

fn new_column(random: &mut Random, table: &Table) -> Option<String> {
    let name = quoted(&free_column(random, table)?);
    let kind = *random.pick(&KINDS);
    let place = *random.pick(&["", "", " FIRST"]);
    Some(match random.below(10) {
        0..=2 => format!("{name} {kind}{place}"),
        3..=5 => format!("{name} {kind} DEFAULT {}{place}", constant(random, kind)),
        6 if !kind.ends_with("NULL") => format!("{name} {kind} NOT NULL DEFAULT {}{place}", constant(random, kind)),
        7 => {
            random.pick(&[format!("{name} UUID DEFAULT UUID()"), format!("{name} DATETIME(6) DEFAULT NOW(6)")]).clone()
        }
        8 => {
            let number = table.free().into_iter().find(|column| column.kind.starts_with("int"))?;
            let kind = random.pick(&["VIRTUAL", "PERSISTENT"]);
            format!("{name} BIGINT AS ({} * 2) {kind}", quoted(&number.name))
        }
        _ => format!("{name} {kind} NULL{place}"),
    })
}

/// Another type for a column.
fn retyped(random: &mut Random, column: &Column) -> Option<String> {
    let kind = column.kind.as_str();
    let base: String = kind.chars().take_while(char::is_ascii_alphabetic).collect();
    Some(
        (*match base.as_str() {
            "int" => random.pick(&["BIGINT", "VARCHAR(20)", "DECIMAL(12,3)", "INT NOT NULL DEFAULT 4"]),
            "varchar" | "char" => random.pick(&["TEXT", "VARCHAR(30)", "CHAR(25)", "VARBINARY(60)"]),
            "text" => random.pick(&["MEDIUMTEXT", "MEDIUMBLOB"]),
            "decimal" => random.pick(&["DECIMAL(14,4)", "INT", "DOUBLE"]),
            "datetime" => random.pick(&["DATETIME(6)", "DATE", "TIMESTAMP(3) NULL"]),
            "timestamp" => random.pick(&["DATETIME", "DATETIME(6)"]),
            // Labels in another order have other numbers in the log; another label for a number is another value.
            "enum" => random.pick(&["ENUM('ž','b','a','new')", "ENUM('new','a','b','ž')", "VARCHAR(20)"]),
            "tinyint" => random.pick(&["INT", "BIT(8)"]),
            _ => return None,
        })
        .to_owned(),
    )
}
