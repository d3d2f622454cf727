//! Changes of columns, keys and types.

use super::Generator;
use super::catalog::{Column, Table, quoted};
use super::values::{KINDS, literal};
use crate::random::Random;

/// Names of columns, few enough to come back after they were dropped.
const NAMES: [&str; 9] = ["a", "b", "c", "d", "e", "Body", "content", "x y", "ž"];

impl Generator {
    pub(super) fn change_columns(&self, random: &mut Random) -> Option<Vec<String>> {
        let table = self.which(random, |table| !table.is_partition())?;
        let name = table.quoted();
        let one = |text: String| Some(vec![text]);
        let free = table.free();
        let column = (!free.is_empty()).then(|| *random.pick(&free));
        match random.below(100) {
            0..=31 => one(format!("ALTER TABLE {name} ADD COLUMN {}", self.new_column(random, table)?)),
            32..=43 => {
                let all: Vec<&Column> = table.columns.iter().collect();
                let (column, new) = (*random.pick(&all), self.free_column(random, table)?);
                one(format!("ALTER TABLE {name} RENAME COLUMN {} TO {}", quoted(&column.name), quoted(&new)))
            }
            44..=52 => one(format!("ALTER TABLE {name} DROP COLUMN {}", quoted(&column?.name))),
            // The same name, but another column.
            53..=56 => {
                let column = column.filter(|column| !column.generated)?;
                let (dropped, kind) = (quoted(&column.name), *random.pick(&KINDS));
                let default = literal(random, kind, &self.moods);
                let default = if default.starts_with("(SELECT") { "'d'".to_owned() } else { default };
                one(format!("ALTER TABLE {name} DROP COLUMN {dropped}, ADD COLUMN {dropped} {kind} DEFAULT {default}"))
            }
            // Two columns swap their names.
            57..=60 => {
                let (one, other) = (column?, *random.pick(&free));
                if one.name == other.name {
                    return None;
                }
                let rename = |from: &str, to: &str| format!("ALTER TABLE {name} RENAME COLUMN {from} TO {to}");
                let (a, b) = (quoted(&one.name), quoted(&other.name));
                Some(super::at_once(random, true, vec![rename(&a, "swapping"), rename(&b, &a), rename("swapping", &b)]))
            }
            61..=70 => {
                let column = column.filter(|column| !column.generated)?;
                one(format!("ALTER TABLE {name} ALTER COLUMN {}", retyped(random, column)?))
            }
            71..=73 if !self.moods.is_empty() => {
                let old = random.pick(&self.moods).clone();
                let new = format!("mood{}", random.below(100));
                one(format!("ALTER TYPE mood RENAME VALUE '{old}' TO '{new}'"))
            }
            74 => one(format!("ALTER TYPE mood ADD VALUE 'new{}'", random.below(100))),
            75..=77 => {
                let column = column?;
                let state = if column.not_null { "DROP NOT NULL" } else { "SET NOT NULL" };
                one(format!("ALTER TABLE {name} ALTER COLUMN {} {state}", quoted(&column.name)))
            }
            78..=80 => {
                let column = column.filter(|column| !column.generated && !column.identity)?;
                let value = literal(random, &column.kind, &self.moods);
                let value = if value.starts_with('(') { "DROP DEFAULT".into() } else { format!("SET DEFAULT {value}") };
                one(format!("ALTER TABLE {name} ALTER COLUMN {} {value}", quoted(&column.name)))
            }
            81..=84 => {
                let generated = table.columns.iter().find(|column| column.generated)?;
                one(format!("ALTER TABLE {name} ALTER COLUMN {} DROP EXPRESSION", quoted(&generated.name)))
            }
            85..=90 => {
                one(format!("ALTER TABLE {name} REPLICA IDENTITY {}", random.pick(&["FULL", "DEFAULT", "FULL"])))
            }
            91..=95 => self.other_key(random, table),
            96 => one(format!("ALTER TABLE {name} DROP CONSTRAINT {}", quoted(table.key_name.as_ref()?))),
            97 => one(format!("ALTER TABLE {name} ALTER COLUMN {} SET STORAGE EXTERNAL", quoted(&column?.name))),
            98 => one(format!("VACUUM FULL {name}")),
            _ => one(format!("ALTER TABLE {name} CLUSTER ON {}", quoted(table.key_name.as_ref()?))),
        }
    }

    fn free_column(&self, random: &mut Random, table: &Table) -> Option<String> {
        let taken = |name: &str| table.columns.iter().any(|column| column.name == name);
        let free: Vec<&str> = NAMES.into_iter().filter(|name| !taken(name)).collect();
        (!free.is_empty()).then(|| (*random.pick(&free)).to_owned())
    }

    /// The definition of a column that a table does not have, with a default of one kind or another.
    fn new_column(&self, random: &mut Random, table: &Table) -> Option<String> {
        let name = quoted(&self.free_column(random, table)?);
        let kind = *random.pick(&KINDS);
        let constant = literal(random, kind, &self.moods);
        let constant = if constant.starts_with("(SELECT") { "'constant'".to_owned() } else { constant };
        Some(match random.below(12) {
            0..=2 => format!("{name} {kind}"),
            3..=5 => format!("{name} {kind} DEFAULT {constant}"),
            6..=7 if constant != "NULL" => format!("{name} {kind} NOT NULL DEFAULT {constant}"),
            8 => format!("{name} uuid DEFAULT gen_random_uuid()"),
            9 => match random.below(4) {
                0 => format!("{name} timestamptz DEFAULT clock_timestamp()"),
                1 => format!("{name} timestamptz NOT NULL DEFAULT now()"),
                2 => format!("{name} double precision DEFAULT random()"),
                _ => format!("{name} bigserial"),
            },
            10 => {
                let mut plain = table.columns.iter().filter(|column| !column.generated);
                let number = plain.rfind(|column| column.kind == "integer" || column.kind == "bigint")?;
                format!("{name} numeric GENERATED ALWAYS AS ({} * 2.5) STORED", quoted(&number.name))
            }
            11 if !table.columns.iter().any(|column| column.identity) => {
                format!("{name} integer GENERATED BY DEFAULT AS IDENTITY")
            }
            _ => format!("{name} {kind} NULL"),
        })
    }

    /// Another primary key, in one statement or two.
    fn other_key(&self, random: &mut Random, table: &Table) -> Option<Vec<String>> {
        if table.parts.is_some() {
            return None;
        }
        let name = table.quoted();
        let added = format!("ALTER TABLE {name} ADD COLUMN key{} bigserial", self.drawn);
        let key = match random.below(3) {
            0 => format!("key{}", self.drawn),
            1 => format!("key{}, {}", self.drawn, quoted(table.key.first()?)),
            _ => {
                return Some(vec![format!(
                    "ALTER TABLE {name} ADD PRIMARY KEY ({})",
                    quoted(&table.columns.first()?.name)
                )]);
            }
        };
        let Some(old) = &table.key_name else {
            return Some(vec![added, format!("ALTER TABLE {name} ADD PRIMARY KEY ({key})")]);
        };
        let old = quoted(old);
        Some(vec![added, format!("ALTER TABLE {name} DROP CONSTRAINT {old}, ADD PRIMARY KEY ({key})")])
    }
}

/// Another type for a column, with values that the log does not tell.
fn retyped(random: &mut Random, column: &Column) -> Option<String> {
    let name = quoted(&column.name);
    let kind = column.kind.as_str();
    Some(match kind {
        "integer" => random
            .pick(&[
                format!("{name} TYPE bigint"),
                format!("{name} TYPE integer USING {name} + 1"),
                format!("{name} TYPE text USING 'n' || {name}"),
                format!("{name} TYPE numeric(12,2)"),
            ])
            .clone(),
        "bigint" => random.pick(&[format!("{name} TYPE bigint USING -{name}"), format!("{name} TYPE text")]).clone(),
        "text" => random
            .pick(&[
                format!("{name} TYPE text USING upper({name})"),
                format!("{name} TYPE varchar(20) USING left({name}, 20)"),
                format!("{name} TYPE char(6) USING left({name}, 6)"),
                format!("{name} TYPE integer USING length({name})"),
                format!("{name} TYPE bytea USING convert_to({name}, 'UTF8')"),
            ])
            .clone(),
        "numeric(12,2)" => format!("{name} TYPE numeric(14,4)"),
        "numeric" => format!("{name} TYPE numeric(20,1)"),
        "boolean" => format!("{name} TYPE integer USING {name}::integer"),
        "timestamp without time zone" => format!("{name} TYPE timestamptz"),
        "timestamp with time zone" => format!("{name} TYPE date"),
        "json" => format!("{name} TYPE jsonb"),
        "mood" => format!("{name} TYPE text"),
        _ if kind.starts_with("character") => format!("{name} TYPE text"),
        _ => return None,
    })
}
