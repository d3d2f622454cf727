//! Transactions that were prepared (PREPARE TRANSACTION) and wait for somebody to commit them or roll them back. Pure.
//!
//! The server sends them when they are prepared if the slot was made with `two_phase` (ours are not, so that they come
//! when they commit). Their rows are kept in `spill.rs` and handed out when they commit.
//!
//! **Restarts.** When one commits, the server sends its rows again only if the slot was not confirmed beyond its
//! preparation, so a checkpoint says how far back the log is needed for those that are open, and the slot is confirmed up
//! to there only. What committed since comes again then, and is passed over. The server keeps the log of an open
//! transaction anyway, prepared or not.
//!
//! **Relations.** The server describes a relation once, be it inside of a prepared transaction. Whether it is true yet for
//! others is not for that transaction to say, so such a description waits until a row of the relation comes. And those
//! that came while a transaction was open are newer than the ones inside of it.

use std::collections::{BTreeMap, HashMap};

use super::lsn::Lsn;

/// All prepared transactions that are open.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    /// Where each was prepared, by its id.
    open: BTreeMap<u32, Lsn>,
    /// The one whose messages come now.
    coming: Option<u32>,
    /// The last description of a relation, where that came inside of one and was not needed yet.
    waiting: HashMap<u32, Vec<u8>>,
    /// Descriptions that came outside of them while one was open.
    newer: HashMap<u32, Vec<u8>>,
    /// One that was committed is being handed out.
    is_replayed: bool,
}

impl Prepared {
    /// Messages of a transaction come that was prepared at this place.
    pub(super) fn begin(&mut self, xid: u32, at: Lsn) {
        self.open.insert(xid, at);
        self.coming = Some(xid);
    }

    /// Its messages have come; or it was sent before, as an open transaction.
    pub(super) fn prepared(&mut self, xid: u32, at: Lsn) {
        self.open.insert(xid, at);
        self.coming = None;
    }

    /// The transaction whose messages come now.
    pub(super) fn coming(&self) -> Option<u32> {
        self.coming
    }

    /// It is committed or rolled back. Whether it was known.
    pub(super) fn end(&mut self, xid: u32) -> bool {
        self.open.remove(&xid).is_some()
    }

    /// The place from which on the log is needed again after a restart.
    pub(super) fn needed_from(&self) -> Option<Lsn> {
        self.open.values().min().copied()
    }

    /// A relation is described; inside of the transaction whose messages come now, if one does.
    pub(super) fn describe(&mut self, rest: &[u8]) {
        let Some(oid) = rest.first_chunk().map(|bytes| u32::from_be_bytes(*bytes)) else { return };
        if self.coming.is_some() {
            self.waiting.insert(oid, rest.to_vec());
            return;
        }
        self.waiting.remove(&oid);
        if !self.open.is_empty() {
            self.newer.insert(oid, rest.to_vec());
        }
    }

    /// Whether descriptions wait for a row of their relation.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The description that waits for a row of this relation.
    pub(super) fn take_waiting(&mut self, oid: u32) -> Option<Vec<u8>> {
        let rest = self.waiting.remove(&oid)?;
        if !self.open.is_empty() {
            self.newer.insert(oid, rest.clone());
        }
        Some(rest)
    }

    /// One that was committed is handed out from here on.
    pub(super) fn replay(&mut self) {
        self.is_replayed = true;
    }

    /// It was handed out whole, if it was one: descriptions that are newer than its own.
    pub(super) fn replayed(&mut self) -> Vec<Vec<u8>> {
        if !std::mem::take(&mut self.is_replayed) {
            return Vec::new();
        }
        let newer: Vec<Vec<u8>> = self.newer.values().cloned().collect();
        if self.open.is_empty() {
            self.newer.clear();
        }
        newer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_needed_from_the_first_one_that_is_open() {
        let mut prepared = Prepared::default();
        assert_eq!(prepared.needed_from(), None);
        prepared.begin(7, Lsn(10));
        assert_eq!((prepared.coming(), prepared.needed_from()), (Some(7), Some(Lsn(10))));
        prepared.prepared(7, Lsn(10));
        prepared.prepared(8, Lsn(20));
        assert_eq!((prepared.coming(), prepared.needed_from()), (None, Some(Lsn(10))));
        assert!(prepared.end(7));
        assert_eq!(prepared.needed_from(), Some(Lsn(20)));
        assert!(prepared.end(8));
        assert!(!prepared.end(8));
    }

    #[test]
    fn a_description_inside_of_one_waits_for_a_row_outside() {
        let mut prepared = Prepared::default();
        prepared.begin(7, Lsn(10));
        prepared.describe(b"\0\0\0\x05old");
        prepared.prepared(7, Lsn(10));
        assert_eq!(prepared.take_waiting(5).as_deref(), Some(&b"\0\0\0\x05old"[..]));
        assert!(!prepared.has_waiting());
        // It is used by others from here on, and then described anew.
        prepared.describe(b"\0\0\0\x05new");
        prepared.end(7);
        prepared.replay();
        assert_eq!(prepared.replayed(), [b"\0\0\0\x05new".to_vec()]);
        prepared.replay();
        assert!(prepared.replayed().is_empty());
    }
}
