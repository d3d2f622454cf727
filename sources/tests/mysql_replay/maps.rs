//! Tables as a log's table maps tell them, for logs that name no columns and hold no statements: columns are called
//! `c1`, `c2`, …, text is `utf8mb3`, numbers have signs, and the first column is the key.

use std::collections::BTreeMap;

use crate::log::Log;
use crate::server::Described;

pub fn described(log: &Log) -> Vec<Described> {
    let mut tables = BTreeMap::new();
    for event in log.events.iter().filter(|event| event[4] == 19) {
        let (name, columns) = table(&event[19 + 8..]);
        tables.entry(name.clone()).or_insert_with(|| Described::new(&name, &["c1"], &columns));
    }
    tables.into_values().collect()
}

fn table(mut rest: &[u8]) -> (String, String) {
    let mut take = |count: usize| {
        let (taken, after) = rest.split_at(count);
        rest = after;
        taken
    };
    let mut name = || {
        let length = usize::from(take(1)[0]);
        String::from_utf8(take(length + 1)[..length].to_vec()).unwrap()
    };
    let (database, relation) = (name(), name());
    let count = usize::from(take(1)[0]);
    let codes = take(count).to_vec();
    let length = usize::from(take(1)[0]);
    let mut metas = take(length);
    let nullable = take(count.div_ceil(8)).to_vec();
    let mut meta = |count: usize| {
        let (taken, after) = metas.split_at(count);
        metas = after;
        taken.iter().rev().fold(0_usize, |sum, &byte| sum << 8 | usize::from(byte))
    };
    let mut columns = String::new();
    for (at, code) in codes.into_iter().enumerate() {
        let column_type = match code {
            0x01 => "tinyint".into(),
            0x02 => "smallint".into(),
            0x03 => "int".into(),
            0x08 => "bigint".into(),
            0x09 => "mediumint".into(),
            0x05 => {
                meta(1);
                "double".into()
            }
            0x04 => {
                meta(1);
                "float".into()
            }
            0x07 => "timestamp".into(),
            0x0d => "year".into(),
            0x13 => format!("time({})", meta(1)),
            0xf6 => {
                let meta = meta(2);
                format!("decimal({},{})", meta & 0xff, meta >> 8)
            }
            0x0a => "date".into(),
            0x0f => format!("varchar({}) charset utf8mb3", meta(2) / 3),
            0x10 => {
                let meta = meta(2);
                format!("bit({})", (meta >> 8) * 8 + (meta & 0xff))
            }
            0x11 => format!("timestamp({})", meta(1)),
            0x12 => format!("datetime({})", meta(1)),
            0xfc => {
                let sizes = ["tinytext", "text", "mediumtext", "longtext"];
                format!("{} charset utf8mb3", sizes[meta(1) - 1])
            }
            0xfe => format!("char({}) charset utf8mb3", (meta(2) >> 8) / 3),
            other => panic!("{database}.{relation} has a column of type {other:#x}"),
        };
        let null = if nullable[at / 8] >> (at % 8) & 1 != 0 { " null" } else { "" };
        columns.push_str(&format!("c{} {}{null}\n", at + 1, column_type.replace("(0)", "")));
    }
    (format!("{database}.{relation}"), columns)
}
