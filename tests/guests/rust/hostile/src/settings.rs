//! What the subscription's settings ask for.

use std::fmt::Display;
use std::str::FromStr;

use crate::exports::cdc::subscriber::handling::{Failure, Remedy};
use crate::wasi::config::store::get;

/// The setting `mode`; the crate's head says what each does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    None,
    Loop,
    MemoryBomb,
    Recursion,
    Trap,
    Panic,
    Exit,
    Sleep,
    WrongLength,
    Oversized,
    LogFlood,
    Egress,
    FailsEveryN,
    Counter,
    Slow,
    QuotaFiller,
}

impl Mode {
    pub fn read() -> Mode {
        let Some(named) = setting::<String>("mode") else { return Mode::None };
        match named.as_str() {
            "loop" => Mode::Loop,
            "memory-bomb" => Mode::MemoryBomb,
            "recursion" => Mode::Recursion,
            "trap" => Mode::Trap,
            "panic" => Mode::Panic,
            "exit" => Mode::Exit,
            "sleep" => Mode::Sleep,
            "wrong-length" => Mode::WrongLength,
            "oversized" => Mode::Oversized,
            "log-flood" => Mode::LogFlood,
            "egress" => Mode::Egress,
            "fails-every-n" => Mode::FailsEveryN,
            "counter" => Mode::Counter,
            "slow" => Mode::Slow,
            "quota-filler" => Mode::QuotaFiller,
            // A test with a typing error must not pass.
            other => panic!("there is no mode `{other}`"),
        }
    }
}

/// A setting, if it is there; a test that gives it a value of another type must not pass.
pub fn setting<T: FromStr>(name: &str) -> Option<T> {
    let text = get(name).ok()??;
    Some(text.parse().unwrap_or_else(|_| panic!("the setting `{name}` cannot be `{text}`")))
}

/// A failure with the remedy of the settings.
pub fn failure(default: Remedy, message: impl Display) -> Failure {
    let remedy = match setting::<String>("remedy").as_deref() {
        None => default,
        Some("retry") => Remedy::Retry,
        Some("reject") => Remedy::Reject,
        Some(other) => panic!("there is no remedy `{other}`"),
    };
    Failure { remedy, index: 0, message: message.to_string() }
}
