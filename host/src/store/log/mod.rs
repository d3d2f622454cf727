//! The log: append-only segment files of checksummed frames. See `frame` for a frame, `segment` for a file, `index` for
//! how filtered reads find their frames, `recovery` for what a start does with damage.

pub(crate) mod appender;
pub(crate) mod cache;
pub(crate) mod codec;
pub(crate) mod files;
pub(crate) mod footer;
pub(crate) mod frame;
pub(crate) mod index;
pub(crate) mod pack;
pub(crate) mod read;
pub(crate) mod recovery;
pub(crate) mod segment;
