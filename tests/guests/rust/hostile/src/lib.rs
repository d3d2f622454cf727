//! A subscriber that does wrong in whichever way the setting `mode` says, to show that it harms nobody but itself.
//!
//! | mode | what it does | further settings (default) |
//! | --- | --- | --- |
//! | (none) | behaves: as `counter` | `url` |
//! | `loop` | never returns | |
//! | `memory-bomb` | takes memory and writes to it until there is none | |
//! | `recursion` | calls itself without end | |
//! | `trap` | executes `unreachable` | |
//! | `panic` | panics | `message` (`boom`) |
//! | `exit` | ends its program, with status 1 | |
//! | `sleep` | waits inside a call of the host | `ms` (one hour) |
//! | `wrong-length` | answers another number of booleans than there are events (always in `accept`) | `answers` (one too many) |
//! | `oversized` | fails with a long message | `bytes` (64 MiB), `remedy` |
//! | `log-flood` | prints lines, then behaves | `lines` (1,000,000), `bytes` (100) |
//! | `egress` | GETs a URL, follows redirects, puts the outcome under `result` and prints it | `url`, `redirects` (10) |
//! | `fails-every-n` | see `faults` | `batches`, `fails_with` (`retry`), `events`, `once` (`false`), and those of `counter` |
//! | `counter` | adds to `count`, appends to a list elsewhere | `url` |
//! | `slow` | takes its time, then as `counter` | `ms` (100), `how` (`sleep`, or `spin`) |
//! | `quota-filler` | writes values until that fails | `bytes` (65536), `remedy` (`reject`) |
//!
//! The setting `in` says which call does so: `handle` (the default) or `accept`; the other one behaves: it accepts
//! everything, or counts. `remedy` is `retry` (the default) or `reject`.

mod calm;
mod crimes;
mod egress;
mod faults;
mod settings;

wit_bindgen::generate!({ path: "../../wit", world: "subscriber", generate_all });

use exports::cdc::subscriber::{filtering, handling};
use handling::{Event, Failure};

use settings::{Mode, setting};

struct Hostile;

impl filtering::Guest for Hostile {
    fn accept(events: Vec<Event>) -> Vec<bool> {
        let mode = Mode::read();
        if mode == Mode::WrongLength {
            return vec![true; setting("answers").unwrap_or(events.len() + 1)];
        }
        if setting("in").unwrap_or_else(|| "handle".to_owned()) == "accept" {
            // A filter has no failures to answer: only what ends or delays the call makes a difference here.
            let _ = act(mode, &events);
        }
        vec![true; events.len()]
    }
}

impl handling::Guest for Hostile {
    fn handle(events: Vec<Event>) -> Result<(), Failure> {
        if setting("in").unwrap_or_else(|| "handle".to_owned()) == "handle" {
            act(Mode::read(), &events)
        } else {
            calm::count(&events)
        }
    }
}

fn act(mode: Mode, events: &[Event]) -> Result<(), Failure> {
    match mode {
        Mode::Loop => crimes::run_forever(),
        Mode::MemoryBomb => crimes::take_all_memory(),
        Mode::Recursion => crimes::recurse_forever(),
        Mode::Trap => core::arch::wasm32::unreachable(),
        Mode::Panic => panic!("{}", setting("message").unwrap_or_else(|| "boom".to_owned())),
        Mode::Exit => std::process::exit(1),
        Mode::Sleep => crimes::sleep(setting("ms").unwrap_or(3_600_000)),
        Mode::Oversized => crimes::fail_at_length(),
        Mode::LogFlood => crimes::flood_the_log(),
        Mode::Egress => egress::fetch(),
        Mode::FailsEveryN => faults::handle(events),
        Mode::None | Mode::WrongLength | Mode::Counter => calm::count(events),
        Mode::Slow => {
            let ms = setting("ms").unwrap_or(100);
            if setting("how").unwrap_or_else(|| "sleep".to_owned()) == "spin" {
                crimes::spin(ms);
            } else {
                crimes::sleep(ms)?;
            }
            calm::count(events)
        }
        Mode::QuotaFiller => crimes::fill_the_quota(),
    }
}

export!(Hostile);
