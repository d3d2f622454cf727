//! A handler that wants something from the host that is not WASI: it must be refused, and by the import's name.

wit_bindgen::generate!({
    path: "../../wit",
    inline: "
        package evil:host@1.0.0;
        interface do {
            strike: func(at: string);
        }
        world unknown-import {
            include cdc:subscriber/handler@1.0.0;
            import do;
        }
    ",
    generate_all,
});

use exports::cdc::subscriber::handling::{Event, Failure, Guest};

struct UnknownImport;

impl Guest for UnknownImport {
    fn handle(events: Vec<Event>) -> Result<(), Failure> {
        events.iter().for_each(|event| evil::host::do_::strike(&event.key));
        Ok(())
    }
}

export!(UnknownImport);
