//! Where events go: real systems, each behind the one contract of [`Sink`].
//!
//! A sink knows its system's protocol and how to tell what became of a batch. It is not delivery: it keeps no cursor of
//! the service, does not retry, and decides nothing about dead letters.

mod sink;

pub use sink::{Event, Failure, Place, Remedy, Sink};
