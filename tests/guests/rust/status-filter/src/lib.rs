//! The benchmark's filter: lets events pass whose row holds `"status":"active"`, found by its bytes.
//!
//! Not an example to follow: it would also find the text inside of an inner object. The example is `filter`.

wit_bindgen::generate!({ path: "../../wit", world: "filter", generate_all });

use exports::cdc::subscriber::filtering::{Event, Guest};

struct StatusFilter;

impl Guest for StatusFilter {
    fn accept(events: Vec<Event>) -> Vec<bool> {
        let active = |row: &String| row.contains(r#""status":"active""#);
        events.iter().map(|event| event.after.as_ref().is_some_and(active)).collect()
    }
}

export!(StatusFilter);
