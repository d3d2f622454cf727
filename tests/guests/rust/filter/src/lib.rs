//! A filter: lets events pass whose row, after the change, has a certain value in a certain column.
//!
//! Settings: `column` (default `status`) and `value` (default `active`). Numbers, booleans and null are compared by
//! their JSON text.

use serde_json::Value;
use wasi::config::store::get;

wit_bindgen::generate!({ path: "../../wit", world: "filter", generate_all });

use exports::cdc::subscriber::filtering::{Event, Guest};

struct Filter;

impl Guest for Filter {
    fn accept(events: Vec<Event>) -> Vec<bool> {
        let column = setting("column", "status");
        let value = setting("value", "active");
        events.iter().map(|event| holds(event, &column, &value)).collect()
    }
}

/// Deletes and truncates have no row after the change, so they do not pass.
fn holds(event: &Event, column: &str, value: &str) -> bool {
    let Some(after) = &event.after else { return false };
    let row: Value = serde_json::from_str(after).unwrap_or_default();
    match &row[column] {
        Value::String(text) => text == value,
        other => other.to_string() == value,
    }
}

fn setting(name: &str, default: &str) -> String {
    get(name).ok().flatten().unwrap_or_else(|| default.to_owned())
}

export!(Filter);
