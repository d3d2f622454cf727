//! `cdc serve --print-config`: the effective configuration as a file that would give the same again.

use std::ffi::OsString;
use std::fmt::Write;

use super::resolve::{Origin, ResolvedValue};

/// One line per option with a comment that says where its value came from.
pub(super) fn effective(values: &[ResolvedValue]) -> String {
    let mut text = String::new();
    // Top-level keys go first: in TOML everything after a table's head belongs to that table.
    let (tabled, top): (Vec<_>, Vec<_>) = values.iter().partition(|value| value.key.table.is_some());
    let mut table = None;
    for value in top.into_iter().chain(tabled) {
        if value.key.table != table {
            table = value.key.table;
            let _ = write!(text, "\n[{}]\n", table.unwrap_or_default());
        }
        let _ = writeln!(text, "{}", line(value));
    }
    text
}

fn line(value: &ResolvedValue) -> String {
    let long = &value.key.long;
    let origin = match &value.origin {
        Origin::Default if value.texts.is_empty() => return format!("# {long} is not set"),
        origin => origin.to_string().replace(|c: char| c.is_control(), "?"),
    };
    let written = match value.texts.as_slice() {
        [one] if !value.key.list => scalar(one),
        many => format!("[{}]", many.iter().map(scalar).collect::<Vec<_>>().join(", ")),
    };
    format!("{long} = {written} # {origin}")
}

fn scalar(text: &OsString) -> String {
    // A path that is not UTF-8 cannot be written in TOML; what is printed then is for reading only.
    let text = text.to_string_lossy();
    match text.parse::<i64>() {
        _ if text == "true" || text == "false" => text.into_owned(),
        Ok(number) if number.to_string() == text => text.into_owned(),
        _ => toml::Value::String(text.into_owned()).to_string(),
    }
}
