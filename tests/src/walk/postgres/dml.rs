//! Changes of rows.

use super::Generator;
use super::catalog::{Table, quoted};
use super::values::{changed, large, some_rows, value};
use crate::random::Random;

impl Generator {
    /// A statement that changes rows of a table.
    pub(super) fn change_rows(&self, random: &mut Random, table: &Table) -> Option<String> {
        let name = table.quoted();
        match random.below(100) {
            0..=39 => Some(self.insert(random, table)),
            40..=59 => {
                let free = table.free();
                let column = *free.get(random.below(free.len().max(1) as u64) as usize)?;
                if column.generated {
                    return None;
                }
                let value = value(random, table, column, &self.moods);
                Some(format!("UPDATE {name} SET {} = {value} WHERE {}", quoted(&column.name), some_rows(random, table)))
            }
            // A large value, so that later updates of others leave it out of the log.
            60..=67 => {
                let column = table.free().into_iter().find(|column| column.kind == "text" && !column.generated)?;
                let condition = some_rows(random, table);
                Some(format!("UPDATE {name} SET {} = {} WHERE {condition}", quoted(&column.name), large(random)))
            }
            68..=77 => {
                let key: Vec<_> = table.columns.iter().filter(|column| table.is_key(column)).collect();
                let column = *key.get(random.below(key.len().max(1) as u64) as usize)?;
                let changed = changed(column)?;
                Some(format!(
                    "UPDATE {name} SET {} = {changed} WHERE {}",
                    quoted(&column.name),
                    some_rows(random, table)
                ))
            }
            // Rows move between partitions.
            78..=81 => {
                let column = table.columns.iter().find(|column| table.is_partition_column(column))?;
                let value = value(random, table, column, &self.moods);
                Some(format!("UPDATE {name} SET {} = {value} WHERE {}", quoted(&column.name), some_rows(random, table)))
            }
            82..=94 => Some(format!("DELETE FROM {name} WHERE {}", some_rows(random, table))),
            95..=96 => Some(format!("DELETE FROM {name}")),
            _ => Some(match random.below(3) {
                0 => format!("TRUNCATE {name}"),
                1 => format!("TRUNCATE {name} CASCADE"),
                _ => {
                    let other = self.any(random).map_or_else(|| name.clone(), Table::quoted);
                    if other == name { format!("TRUNCATE {name}") } else { format!("TRUNCATE {name}, {other}") }
                }
            }),
        }
    }

    pub(super) fn insert(&self, random: &mut Random, table: &Table) -> String {
        let columns: Vec<_> = table
            .columns
            .iter()
            .filter(|column| !column.generated)
            .filter(|column| {
                let may_lack = column.identity || !(table.is_key(column) || column.not_null);
                !may_lack || random.below(6) > 0
            })
            .collect();
        if columns.is_empty() {
            return format!("INSERT INTO {} DEFAULT VALUES", table.quoted());
        }
        let rows: Vec<String> = (0..1 + random.below(6))
            .map(|_| {
                let values: Vec<String> =
                    columns.iter().map(|column| value(random, table, column, &self.moods)).collect();
                format!("({})", values.join(", "))
            })
            .collect();
        let names: Vec<String> = columns.iter().map(|column| quoted(&column.name)).collect();
        format!(
            "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE VALUES {} ON CONFLICT DO NOTHING",
            table.quoted(),
            names.join(", "),
            rows.join(", ")
        )
    }
}
