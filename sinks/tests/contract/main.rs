//! Every sink against the real system it is for, through a proxy that injects faults.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, reason = "a test")]

mod events;
mod kafka;
mod nats;
mod postgres;
mod receiver;
mod redis;
mod suite;
mod webhook;
