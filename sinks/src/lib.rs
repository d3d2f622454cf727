//! Where events go: real systems, each behind the one contract of [`Sink`].
//!
//! A sink knows its system's protocol and how to tell what became of a batch. It is not delivery: it keeps no cursor of
//! the service, does not retry, and decides nothing about dead letters.

mod any;
mod connection;
mod hidden;
mod render;
mod secret;
mod settings;
mod sink;
mod template;
mod written;

pub mod kafka;
pub mod nats;
pub mod postgres;
pub mod redis;
pub mod webhook;

pub use any::AnySink;
pub use secret::{MissingVariable, PREFIX as SECRET_PREFIX, Secret, without_value};
pub use settings::{InvalidSettings, Settings};
pub use sink::{Event, Failure, Place, Remedy, Sink};
pub use template::{InvalidTemplate, Template};
