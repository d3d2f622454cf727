//! Does nothing with every event: what delivery costs by itself.

wit_bindgen::generate!({ path: "../../wit", world: "handler", generate_all });

use exports::cdc::subscriber::handling::{Event, Failure, Guest};

struct Noop;

impl Guest for Noop {
    fn handle(_events: Vec<Event>) -> Result<(), Failure> {
        Ok(())
    }
}

export!(Noop);
