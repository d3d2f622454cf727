//! Live streams: events as they come, over Server-Sent Events and WebSockets.

mod client;
mod limits;
mod sockets;
mod streams;
