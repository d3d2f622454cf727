//! What is new, for whoever follows the log: the tail that all readers share, and what streams send.
//!
//! It reads durable events only and decides nothing about them. Nobody who follows is waited for: writers know nothing
//! of readers, and a reader that is slow reads the log at its own pace.

mod cache;
mod chunk;
mod reader;
mod streams;
mod tail;
#[cfg(test)]
mod tests;

pub use chunk::{Chunk, LiveEvent, Piece, event_ref};
pub use reader::{Reader, Step};
pub use streams::{OpenStreamError, Seat, StreamOptions, Streams};
pub use tail::{Tail, TailOptions};
