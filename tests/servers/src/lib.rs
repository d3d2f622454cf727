//! Real servers for tests and benchmarks: each a process of its own with a folder of its own on a free port of the
//! loopback interface, ready when its constructor returns, killed and removed when it is dropped. And a proxy that stands
//! before any of them and injects faults.
//!
//! Everything here panics when it fails, with the server's own log, because a test has nothing better to do. All methods
//! take `&self`, so that one thread can kill a server that others are using.
//!
//! What holds:
//! 1. A server outlives neither its value nor the process that started it, however that process ends: a guard (see
//!    `process`) waits for its death.
//! 2. A server keeps its port over `kill` and `start_again`, and no other server of this crate, in whatever process, is
//!    given the same one meanwhile.
//! 3. Kills are `kill -9` of every process of a server. That is a crash of the server, not of the machine: what the server
//!    has handed to the operating system survives, synced or not. So syncing is off by default.

mod binaries;
mod certificates;
mod mariadb;
mod nats;
mod ports;
mod postgres;
mod process;
mod proxy;
mod redis;
mod templates;

pub use mariadb::MariaDb;
pub use nats::Nats;
pub use postgres::Postgres;
pub use proxy::Proxy;
pub use redis::Redis;
