//! What the service adds to the seed's reference.

mod bulk;
mod events;
mod operations;
mod past;
mod rows;
mod schemas;
mod transport;
