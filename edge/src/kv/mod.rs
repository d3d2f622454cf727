//! The engine's store over a key-value store that can compare and swap: `wasi:keyvalue`, or anything like it.
//!
//! Everything (events, rows, schemas, counters) stands in one search tree of immutable pages; the key `head` names its
//! root. A commit writes the pages that change under keys that nobody used before, and then swaps the head. So
//! - the swap of that one key is the commit: before it nothing has happened, after it everything has, and a crash in
//!   between leaves pages that nobody names;
//! - a reader that has read the head sees one state, whatever is committed meanwhile;
//! - of writers that began at the same head one succeeds, and the others decide anew: no write is lost and no sequence
//!   number given twice, on however many instances they run.
//!
//! Pages that a commit replaces are deleted some commits later. A reader that is slower than that finds a page missing
//! and begins anew. What a crash left behind is never read; it only takes up room.
//!
//! Limits: one key is swapped per commit, so commits follow each other at the pace of the provider; the log keeps the
//! newest [`KeyValueOptions::max_events`] events; a filter reads the whole range that it is asked about. Durable is what
//! the provider makes durable before it answers.

mod codec;
mod head;
mod records;
mod store;
#[cfg(test)]
mod tests;
mod tree;
mod view;

pub use store::{KeyValueOptions, KeyValueStore};
pub use view::KeyValueView;

/// Why the provider did not do what it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyValueError {
    /// It failed; says how.
    Failed(String),
    /// The value has changed since it was read.
    Conflict,
    /// It cannot compare and swap; says what it says.
    NoSwap(String),
}

/// The name of a page. Whoever makes one makes it unique.
pub type PageId = u128;

/// What is needed of a key-value store.
pub trait KeyValue {
    /// Reads the head.
    fn head(&self) -> Result<Option<Vec<u8>>, KeyValueError>;
    /// Reads the head, as what the next [`swap_head`](Self::swap_head) expects to find.
    fn begin_swap(&self) -> Result<Option<Vec<u8>>, KeyValueError>;
    /// Sets the head, if it is still the one that was read. Once per [`begin_swap`](Self::begin_swap).
    fn swap_head(&self, head: &[u8]) -> Result<(), KeyValueError>;
    /// Reads a page; none if it is not there.
    fn page(&self, id: PageId) -> Result<Option<Vec<u8>>, KeyValueError>;
    /// Writes pages. They need not become visible all at once.
    fn write_pages(&self, pages: Vec<(PageId, Vec<u8>)>) -> Result<(), KeyValueError>;
    /// Removes pages. Those that are not there are no error.
    fn delete_pages(&self, pages: &[PageId]) -> Result<(), KeyValueError>;
    /// A name that nobody has used and nobody else will.
    fn new_page_id(&self) -> PageId;
}
