//! What the service may touch because somebody says so: files by their names, addresses by theirs. Sinks, sources,
//! guests and the host ask here, so that there is one set of rules.
//!
//! - A file is read if it is a regular one, and no further than a bound: a device never ends, a FIFO never begins.
//! - Whoever configures the service may name any file and any address. Whoever only calls its API may name files below
//!   one folder, and the addresses that [`Reach`] says.

mod address;
mod file;
mod network;
mod reach;

pub use address::{is_metadata, is_public};
pub use file::{FileError, MAX_FILE_BYTES, read_file, read_file_up_to};
pub use network::{InvalidNetwork, Network};
pub use reach::Reach;
