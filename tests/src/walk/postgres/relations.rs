//! Changes of whole tables: made, dropped, renamed, swapped, parted, published.

use super::catalog::{Table, quoted};
use super::values::KINDS;
use super::{Generator, at_once, in_schema};
use crate::random::Random;

impl Generator {
    pub(super) fn change_relations(&self, random: &mut Random, in_transaction: bool) -> Option<Vec<String>> {
        let one = |text: String| Some(vec![text]);
        match random.below(100) {
            0..=11 => Some(self.create(random)),
            12..=17 => {
                let table = self.any(random)?;
                one(format!("DROP TABLE {}", table.quoted()))
            }
            // The same name for another table, at once.
            18..=23 => {
                let table = self.which(random, |table| !table.is_partition())?;
                let statements = [format!("DROP TABLE {}", table.quoted())];
                let mut statements: Vec<String> = statements.into();
                let (schema, name) = (&table.schema, &table.name);
                statements.push(format!(
                    "CREATE TABLE {} (id bigint PRIMARY KEY, again text DEFAULT 'again')",
                    in_schema(schema, name)
                ));
                if random.below(2) == 0 {
                    let again = in_schema(schema, name);
                    statements.push(format!("INSERT INTO {again} SELECT g FROM generate_series(1, 5) g"));
                }
                Some(at_once(random, in_transaction, statements))
            }
            24..=33 => {
                let table = self.any(random)?;
                let new = self.free_name(random, &table.schema)?;
                let new = if random.below(6) == 0 { format!("hid_{new}") } else { new };
                one(format!("ALTER TABLE {} RENAME TO {}", table.quoted(), quoted(&new)))
            }
            34..=42 => self.swap(random, 2, in_transaction),
            43..=46 => self.swap(random, 3, in_transaction),
            // A chain: the first is dropped, the others move up.
            47..=51 => {
                let first = self.which(random, |table| !table.is_partition())?;
                let second = self.which(random, |t| t.schema == first.schema && t.name != first.name)?;
                let mut statements = vec![
                    format!("DROP TABLE {}", first.quoted()),
                    format!("ALTER TABLE {} RENAME TO {}", second.quoted(), quoted(&first.name)),
                ];
                let third = self.which(random, |t| {
                    t.schema == first.schema && t.name != first.name && t.name != second.name && !t.is_partition()
                });
                if let Some(third) = third {
                    statements.push(format!("ALTER TABLE {} RENAME TO {}", third.quoted(), quoted(&second.name)));
                }
                Some(at_once(random, in_transaction, statements))
            }
            52..=55 => {
                let table = self.which(random, |table| !table.is_partition())?;
                let schemas = ["public", "s2", "hidden"].into_iter().filter(|schema| *schema != table.schema);
                let schema = *random.pick(&schemas.collect::<Vec<_>>());
                one(format!("ALTER TABLE {} SET SCHEMA {schema}", table.quoted()))
            }
            56 => Some(vec!["ALTER SCHEMA hidden RENAME TO h".into(), "ALTER SCHEMA h RENAME TO hidden".into()]),
            57..=59 => {
                let table = self.which(random, |table| !table.is_partition() && table.parts.is_none())?;
                let new = self.free_name(random, &table.schema)?;
                let new = in_schema(&table.schema, &new);
                Some(vec![
                    format!("CREATE TABLE {new} (LIKE {} INCLUDING ALL)", table.quoted()),
                    copied(table, &new, ""),
                ])
            }
            60..=62 => {
                let table = self.which(random, |table| !table.logged && !table.is_partition())?;
                one(format!("ALTER TABLE {} SET LOGGED", table.quoted()))
            }
            63..=68 => {
                let table = self.which(random, |table| table.published)?;
                one(format!("ALTER PUBLICATION cdc_walk DROP TABLE {}", table.quoted()))
            }
            69..=71 => {
                let table = self.which(random, |table| !table.published && !table.is_partition() && table.logged)?;
                one(format!("ALTER PUBLICATION cdc_walk ADD TABLE {}", table.quoted()))
            }
            72 => one("SELECT pg_terminate_backend(pid) FROM pg_stat_replication".into()),
            _ => self.change_partitions(random, in_transaction),
        }
    }

    /// A table of one kind or another, with rows.
    pub(super) fn create(&self, random: &mut Random) -> Vec<String> {
        let schema = if random.below(5) == 0 { "s2" } else { "public" };
        let Some(short) = self.free_name(random, schema) else { return Vec::new() };
        let name = in_schema(schema, &short);
        let key = *random.pick(&["bigint", "integer", "text", "bigint", "uuid"]);
        let mut columns: Vec<String> = Vec::new();
        for (at, column) in ["a", "b", "Body", "c"].into_iter().enumerate() {
            if random.below(4) > 0 {
                let kind = if at == 2 { "text" } else { random.pick(&KINDS) };
                columns.push(format!("{} {kind}", quoted(column)));
            }
        }
        let columns = columns.iter().map(|column| format!(", {column}")).collect::<String>();
        let is_log = short.starts_with("log") && random.below(3) > 0;
        match if is_log { 0 } else { random.below(12) } {
            0 => vec![
                format!("CREATE TABLE {name} (id integer{columns})"),
                format!("INSERT INTO {name} (id) SELECT g % 5 FROM generate_series(1, 12) g"),
            ],
            1 => vec![format!("CREATE UNLOGGED TABLE {name} (id bigint PRIMARY KEY{columns})")],
            2 => vec![format!(
                "CREATE TABLE {name} (region integer, id integer, note text DEFAULT 'n'{columns}, PRIMARY KEY (region, id))"
            )],
            3..=5 => {
                let mut statements = vec![format!(
                    "CREATE TABLE {name} (id integer, part integer{columns}, PRIMARY KEY (id, part)) PARTITION BY {}",
                    random.pick(&["LIST (part)", "RANGE (part)", "RANGE (part)"])
                )];
                if random.below(2) == 0 {
                    let rest = format!("{short}_rest");
                    statements.push(format!("CREATE TABLE {} PARTITION OF {name} DEFAULT", in_schema(schema, &rest)));
                    statements.push(format!("INSERT INTO {name} (id, part) SELECT g, g FROM generate_series(1, 9) g"));
                }
                statements
            }
            6 => vec![
                format!(
                    "CREATE TABLE {name} AS SELECT g AS id, 'n' || g AS a, g * 1.5 AS b FROM generate_series(1, 20) g"
                ),
                format!("ALTER TABLE {name} ADD PRIMARY KEY (id)"),
            ],
            _ => vec![
                format!("CREATE TABLE {name} (id {key} PRIMARY KEY{columns})"),
                match key {
                    "text" => format!("INSERT INTO {name} (id) SELECT 'k' || g FROM generate_series(1, 12) g"),
                    "uuid" => {
                        format!("INSERT INTO {name} (id) SELECT md5(g::text)::uuid FROM generate_series(1, 12) g")
                    }
                    _ => format!("INSERT INTO {name} (id) SELECT g FROM generate_series(1, 30) g"),
                },
            ],
        }
    }

    /// Tables of a schema take each other's names.
    fn swap(&self, random: &mut Random, many: usize, in_transaction: bool) -> Option<Vec<String>> {
        let first = self.any(random)?;
        let mut chosen = vec![first];
        while chosen.len() < many {
            let next = self.which(random, |table| {
                table.schema == first.schema && chosen.iter().all(|other| other.name != table.name)
            })?;
            chosen.push(next);
        }
        let rename = |schema: &str, from: &str, to: &str| {
            format!("ALTER TABLE {} RENAME TO {}", in_schema(schema, from), quoted(to))
        };
        let mut statements = vec![rename(&first.schema, &first.name, "swapping")];
        for pair in chosen.windows(2) {
            statements.push(rename(&first.schema, &pair[1].name, &pair[0].name));
        }
        statements.push(rename(&first.schema, "swapping", &chosen[many - 1].name));
        if random.below(3) == 0 {
            // Something happens to a row in between.
            if let Some(change) = self.change_rows(random, first) {
                statements.insert(0, change);
            }
        }
        Some(at_once(random, in_transaction, statements))
    }

    fn change_partitions(&self, random: &mut Random, in_transaction: bool) -> Option<Vec<String>> {
        let one = |text: String| Some(vec![text]);
        let bounds = |random: &mut Random, strategy: &str| {
            let from = random.below(8) * 5;
            match strategy {
                "l" => format!("IN ({}, {}, {})", from, from + 1, from + 2),
                _ => format!("FROM ({from}) TO ({})", from + 5),
            }
        };
        match random.below(8) {
            0..=1 => {
                let parent = self.which(random, |table| table.parts.is_some())?;
                let (strategy, _) = parent.parts.clone()?;
                let name = in_schema(&parent.schema, &self.free_name(random, &parent.schema)?);
                let bounds = bounds(random, &strategy);
                one(format!("CREATE TABLE {name} PARTITION OF {} FOR VALUES {bounds}", parent.quoted()))
            }
            // A table with rows becomes a partition.
            2..=3 => {
                let parent = self.which(random, |table| table.parts.is_some())?;
                let (strategy, column) = parent.parts.clone()?;
                let name = in_schema(&parent.schema, &self.free_name(random, &parent.schema)?);
                let from = random.below(8) * 5;
                let bounds = match strategy.as_str() {
                    "l" => format!("IN ({from}, {})", from + 1),
                    _ => format!("FROM ({from}) TO ({})", from + 5),
                };
                let (key, parent) = (quoted(parent.key.iter().find(|key| **key != column)?), parent.quoted());
                let column = quoted(&column);
                Some(vec![
                    format!("CREATE TABLE {name} (LIKE {parent} INCLUDING ALL)"),
                    format!("INSERT INTO {name} ({key}, {column}) SELECT g, {from} FROM generate_series(50, 55) g"),
                    format!("ALTER TABLE {parent} ATTACH PARTITION {name} FOR VALUES {bounds}"),
                ])
            }
            4 => {
                let part = self.which(random, Table::is_partition)?;
                let parent = in_schema(&part.schema, part.partition_of.as_ref()?);
                let how = if in_transaction || random.below(2) == 0 { "" } else { " CONCURRENTLY" };
                one(format!("ALTER TABLE {parent} DETACH PARTITION {}{how}", part.quoted()))
            }
            5 => one(format!("DROP TABLE {}", self.which(random, Table::is_partition)?.quoted())),
            6 => one(format!("TRUNCATE {}", self.which(random, Table::is_partition)?.quoted())),
            // A partition takes another's place, with other rows.
            _ => {
                let part = self.which(random, Table::is_partition)?;
                let parent = self.which(random, |table| Some(&table.name) == part.partition_of.as_ref())?;
                let new = in_schema(&part.schema, &self.free_name(random, &part.schema)?);
                let (name, parent) = (part.quoted(), parent.quoted());
                let bound = format!(
                    "DO $$ DECLARE bound text := (SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE oid = \
                     '{name}'::regclass); BEGIN EXECUTE 'ALTER TABLE {parent} DETACH PARTITION {name}'; \
                     EXECUTE 'ALTER TABLE {parent} ATTACH PARTITION {new} ' || bound; END $$"
                );
                Some(vec![
                    format!("CREATE TABLE {new} (LIKE {parent} INCLUDING ALL)"),
                    copied(part, &new, " LIMIT 2"),
                    bound,
                ])
            }
        }
    }
}

/// Rows of a table into another of its form.
fn copied(table: &Table, into: &str, limit: &str) -> String {
    let names = table.columns.iter().filter(|column| !column.generated).map(|column| quoted(&column.name));
    let names = names.collect::<Vec<_>>().join(", ");
    let from = table.quoted();
    format!("INSERT INTO {into} ({names}) OVERRIDING SYSTEM VALUE SELECT {names} FROM {from} ORDER BY 1{limit}")
}
