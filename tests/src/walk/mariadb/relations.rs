//! Changes of whole tables: made, dropped, renamed, swapped, parted, copied beside and swapped in.

use super::Generator;
use super::catalog::{Table, in_schema, quoted};
use super::values::{KINDS, change_rows, insert};
use crate::random::Random;

impl Generator {
    pub(super) fn change_relations(&self, random: &mut Random) -> Option<Vec<String>> {
        let one = |text: String| Some(vec![text]);
        match random.below(100) {
            0..=9 => Some(self.create(random)),
            10..=14 => one(format!("DROP TABLE {}", self.any(random)?.quoted())),
            // The same name for another table, at once.
            15..=20 => {
                let name = self.any(random)?.quoted();
                let again = "(id BIGINT PRIMARY KEY, again VARCHAR(20) DEFAULT 'again')";
                let mut statements = match random.below(4) {
                    0 => vec![format!("CREATE OR REPLACE TABLE {name} {again} AS SELECT seq AS id FROM seq_1_to_9")],
                    1 => vec![format!("CREATE OR REPLACE TABLE {name} {again}")],
                    _ => vec![format!("DROP TABLE {name}"), format!("CREATE TABLE {name} {again}")],
                };
                if random.below(2) == 0 {
                    statements.push(format!("INSERT IGNORE INTO {name} (id) SELECT seq + 3 FROM seq_1_to_9"));
                }
                Some(statements)
            }
            21..=28 => {
                let table = self.any(random)?;
                let schema = *random.pick(&["walk", "walk", "s2", "hidden"]);
                let new = self.free_name(random, schema)?;
                let new = if random.below(6) == 0 { format!("hid_{new}") } else { new };
                one(format!("RENAME TABLE {} TO {}", table.quoted(), in_schema(schema, &new)))
            }
            29..=35 => self.swap(random, 2),
            36..=39 => self.swap(random, 3),
            40..=43 => {
                let (first, second) = (self.any(random)?, self.any(random)?);
                if first.quoted() == second.quoted() {
                    return None;
                }
                Some(vec![
                    format!("DROP TABLE {}", first.quoted()),
                    format!("RENAME TABLE {} TO {}", second.quoted(), first.quoted()),
                ])
            }
            44..=52 => self.copied_beside(random),
            53..=55 => {
                let table = self.any(random)?;
                let new = in_schema(&table.schema, &self.free_name(random, &table.schema)?);
                let rows = format!("INSERT INTO {new} SELECT * FROM {}", table.quoted());
                Some(vec![format!("CREATE TABLE {new} LIKE {}", table.quoted()), rows])
            }
            56 => Some(vec!["DROP DATABASE s2".into(), "CREATE DATABASE s2".into()]),
            // A table of this session only hides the one of that name.
            57..=59 => {
                let name = self.any(random)?.quoted();
                Some(vec![
                    format!("CREATE TEMPORARY TABLE {name} (id INT PRIMARY KEY, temporary TEXT)"),
                    format!("INSERT INTO {name} VALUES (1, 'not captured')"),
                    format!("TRUNCATE TABLE {name}"),
                    format!("DROP TEMPORARY TABLE {name}"),
                ])
            }
            // A statement that only names a captured table.
            60..=62 => {
                let name = self.any(random)?.quoted();
                Some(vec![
                    "SET SESSION binlog_format = 'STATEMENT'".into(),
                    format!(
                        "INSERT INTO hidden.heartbeat (note) SELECT CONCAT('UPDATE {name} SET ', COUNT(*)) FROM {name}"
                    ),
                    "SET SESSION binlog_format = 'ROW'".into(),
                ])
            }
            63..=66 => self.family(random),
            67..=68 => one("FLUSH BINARY LOGS".into()),
            69 => {
                let table = self.any(random)?;
                one(format!("ANALYZE TABLE {}", table.quoted()))
            }
            _ => self.change_partitions(random),
        }
    }

    /// A table of one kind or another, with rows.
    pub(super) fn create(&self, random: &mut Random) -> Vec<String> {
        let schema = if random.below(5) == 0 { "s2" } else { "walk" };
        let Some(name) = self.free_name(random, schema) else { return Vec::new() };
        let is_log = name.starts_with("log") && random.below(3) > 0;
        let name = in_schema(schema, &name);
        let mut columns: Vec<String> = Vec::new();
        for column in ["a", "b", "Body", "c"] {
            if random.below(4) > 0 {
                columns.push(format!(", {} {}", quoted(column), random.pick(&KINDS)));
            }
        }
        let columns = columns.concat();
        let rows = format!("INSERT INTO {name} (id) SELECT seq FROM seq_1_to_20");
        match if is_log { 0 } else { random.below(14) } {
            0 => vec![
                format!("CREATE TABLE {name} (id INT{columns})"),
                format!("INSERT INTO {name} (id) SELECT seq % 5 FROM seq_1_to_12"),
            ],
            1 => vec![format!(
                "CREATE TABLE {name} (region INT, id INT, note TEXT DEFAULT 'n'{columns}, PRIMARY KEY (region, id))"
            )],
            2 => vec![format!("CREATE TABLE {name} (id VARCHAR(20) PRIMARY KEY{columns})")],
            3 => vec![
                format!("CREATE TABLE {name} (id INT PRIMARY KEY, m VARCHAR(9) DEFAULT 'm') ENGINE = MEMORY"),
                rows,
            ],
            4 => vec![
                format!("CREATE TABLE {name} (id INT PRIMARY KEY, n INT DEFAULT 1{columns}) WITH SYSTEM VERSIONING"),
                rows,
            ],
            5 => vec![
                format!(
                    "CREATE TABLE {name} (id INT PRIMARY KEY, n INT DEFAULT 1, s TIMESTAMP(6) GENERATED ALWAYS AS ROW START, \
                     e TIMESTAMP(6) GENERATED ALWAYS AS ROW END, PERIOD FOR SYSTEM_TIME(s, e)) WITH SYSTEM VERSIONING"
                ),
                format!("INSERT INTO {name} (id, n) SELECT seq, seq FROM seq_1_to_20"),
            ],
            6..=8 => {
                let how = *random.pick(&[
                    "RANGE (id) (PARTITION x0 VALUES LESS THAN (10), PARTITION x1 VALUES LESS THAN (20), \
                     PARTITION x2 VALUES LESS THAN MAXVALUE)",
                    "HASH (id) PARTITIONS 3",
                    "LIST (id % 3) (PARTITION x0 VALUES IN (0), PARTITION x1 VALUES IN (1), PARTITION x2 VALUES IN (2))",
                ]);
                vec![format!("CREATE TABLE {name} (id INT PRIMARY KEY{columns}) PARTITION BY {how}"), rows]
            }
            9 => vec![format!(
                "CREATE TABLE {name} (id INT PRIMARY KEY, n INT) AS SELECT seq AS id, seq * 2 AS n FROM seq_1_to_20"
            )],
            10 => vec![
                format!(
                    "CREATE TABLE {name} (id INT PRIMARY KEY, n INT, v BIGINT AS (n * 2) VIRTUAL, t TEXT, UNIQUE (t))"
                ),
                format!("INSERT INTO {name} (id, n, t) SELECT seq, seq, CONCAT('t', seq) FROM seq_1_to_20"),
            ],
            _ => vec![format!("CREATE TABLE {name} (id BIGINT PRIMARY KEY{columns})"), rows],
        }
    }

    /// Tables take each other's names in one statement.
    fn swap(&self, random: &mut Random, many: usize) -> Option<Vec<String>> {
        let first = self.any(random)?;
        let mut chosen = vec![first];
        while chosen.len() < many {
            let next = self.which(random, |table| chosen.iter().all(|other| other.quoted() != table.quoted()))?;
            chosen.push(next);
        }
        let aside = in_schema(&first.schema, "swapping");
        let mut renames = vec![format!("{} TO {aside}", first.quoted())];
        renames.extend(chosen.windows(2).map(|pair| format!("{} TO {}", pair[1].quoted(), pair[0].quoted())));
        renames.push(format!("{aside} TO {}", chosen[many - 1].quoted()));
        Some(match random.below(3) {
            0 => renames.iter().map(|rename| format!("RENAME TABLE {rename}")).collect(),
            _ => vec![format!("RENAME TABLE {}", renames.join(", "))],
        })
    }

    /// What tools do that change a table without holding it: a copy beside it, changes carried over, and a swap.
    fn copied_beside(&self, random: &mut Random) -> Option<Vec<String>> {
        let table =
            self.which(random, |table| !table.versioned && table.engine == "InnoDB" && !table.key().is_empty())?;
        let (schema, name) = (&table.schema, &table.name);
        let names: Vec<String> =
            table.columns.iter().filter(|column| column.generated == 0).map(|column| quoted(&column.name)).collect();
        let names = names.join(", ");
        let (origin, change) = (table.quoted(), format!("ADD COLUMN extra{} INT DEFAULT 5", self.drawn));
        let helper = |suffix: &str| in_schema(schema, &format!("_{name}_{suffix}"));
        let more = change_rows(random, table, table).unwrap_or_else(|| insert(random, table));
        let with_triggers = random.below(2) == 0;
        let (copy, old) = if with_triggers { (helper("new"), helper("old")) } else { (helper("gho"), helper("del")) };
        let mut statements = Vec::new();
        if !with_triggers {
            let log = helper("ghc");
            statements.push(format!("DROP TABLE IF EXISTS {copy}, {log}"));
            statements.push(format!(
                "CREATE /* gh-ost */ TABLE {log} (id BIGINT AUTO_INCREMENT PRIMARY KEY, hint VARCHAR(64))"
            ));
            statements.push(format!("INSERT INTO {log} (hint) VALUES ('before')"));
        }
        statements.push(format!("CREATE TABLE {copy} LIKE {origin}"));
        statements.push(format!("ALTER TABLE {copy} {change}"));
        let trigger = in_schema(schema, &format!("osc_{}", self.drawn));
        if with_triggers {
            let key = table.key();
            let same = key.iter().map(|column| format!("{copy}.{0} <=> OLD.{0}", quoted(&column.name)));
            let key = same.collect::<Vec<_>>().join(" AND ");
            statements.push(format!(
                "CREATE TRIGGER {trigger} AFTER DELETE ON {origin} FOR EACH ROW DELETE IGNORE FROM {copy} WHERE {key}"
            ));
        }
        statements.push(format!(
            "INSERT LOW_PRIORITY IGNORE INTO {copy} ({names}) SELECT {names} FROM {origin} LOCK IN SHARE MODE"
        ));
        if with_triggers {
            // Only what the one trigger carries over.
            statements.push(format!("DELETE FROM {origin} LIMIT 2"));
        } else {
            statements.push(more);
        }
        statements.push(format!("RENAME TABLE {origin} TO {old}, {copy} TO {origin}"));
        statements.push(format!("DROP TABLE IF EXISTS {old}"));
        if with_triggers {
            statements.push(format!("DROP TRIGGER IF EXISTS {trigger}"));
        } else {
            statements.push(format!("DROP TABLE IF EXISTS {}", helper("ghc")));
        }
        Some(statements)
    }

    /// A parent and a child, whose rows follow the parent's without a word in the log; and a change of the parent.
    fn family(&self, random: &mut Random) -> Option<Vec<String>> {
        let (parent, child) = ("`walk`.`parent`", "`walk`.`child`");
        if self.tables.iter().any(|table| table.name == "parent") {
            let change = match random.below(3) {
                0 => format!("DELETE FROM {parent} WHERE id % 5 = {}", random.below(5)),
                1 => format!("UPDATE {parent} SET id = id + 100 WHERE id % 5 = {}", random.below(5)),
                _ => format!("REPLACE INTO {parent} SELECT seq, 'again' FROM seq_1_to_9"),
            };
            return Some(vec![change]);
        }
        let (delete, update) = (random.pick(&["CASCADE", "SET NULL"]), random.pick(&["CASCADE", "SET NULL"]));
        Some(vec![
            format!("CREATE TABLE {parent} (id INT PRIMARY KEY, name VARCHAR(20))"),
            format!(
                "CREATE TABLE IF NOT EXISTS {child} (id INT PRIMARY KEY, of INT, note VARCHAR(20), FOREIGN KEY (of) \
                 REFERENCES {parent} (id) ON DELETE {delete} ON UPDATE {update})"
            ),
            format!("INSERT INTO {parent} SELECT seq, CONCAT('p', seq) FROM seq_1_to_20"),
            format!("INSERT IGNORE INTO {child} SELECT seq, seq % 20 + 1, 'c' FROM seq_1_to_60"),
        ])
    }

    fn change_partitions(&self, random: &mut Random) -> Option<Vec<String>> {
        let one = |text: String| Some(vec![text]);
        let parted = self.which(random, |table| !table.partitions.is_empty());
        let part = |random: &mut Random, table: &Table| quoted(random.pick::<String>(&table.partitions));
        match random.below(10) {
            0 => {
                let table = self.which(random, |table| table.partitions.is_empty() && !table.versioned)?;
                let key = table.key();
                let column = key.first().filter(|column| key.len() == 1 && column.kind.contains("int"))?;
                one(format!("ALTER TABLE {} PARTITION BY HASH ({}) PARTITIONS 2", table.quoted(), quoted(&column.name)))
            }
            1 => one(format!("ALTER TABLE {} REMOVE PARTITIONING", parted?.quoted())),
            2..=3 => one(format!("ALTER TABLE {} TRUNCATE PARTITION {}", parted?.quoted(), part(random, parted?))),
            4 => one(format!("ALTER TABLE {} DROP PARTITION {}", parted?.quoted(), part(random, parted?))),
            5 => one(format!("ALTER TABLE {} COALESCE PARTITION 1", parted?.quoted())),
            // Also of a table that is captured.
            6..=7 => {
                let (table, part) = (parted?, part(random, parted?));
                let new = in_schema(&table.schema, &self.free_name(random, &table.schema)?);
                Some(vec![
                    format!("CREATE TABLE {new} LIKE {}", table.quoted()),
                    format!("ALTER TABLE {new} REMOVE PARTITIONING"),
                    format!("INSERT INTO {new} SELECT * FROM {} PARTITION ({part}) LIMIT 2", table.quoted()),
                    format!("ALTER TABLE {} EXCHANGE PARTITION {part} WITH TABLE {new}", table.quoted()),
                ])
            }
            _ => {
                let (table, part) = (parted?, part(random, parted?));
                let new = in_schema(&table.schema, &self.free_name(random, &table.schema)?);
                one(format!("ALTER TABLE {} CONVERT PARTITION {part} TO TABLE {new}", table.quoted()))
            }
        }
    }
}
