//! The head: the one value whose swap is the commit.

use cdc_engine::store::StoreError;

use super::PageId;
use super::codec::{Decoder, Encoder, damaged};

/// The first byte. Another form of heads or pages gets another.
const FORMAT: u8 = 1;
/// How many seconds with events are counted: at least the eleven that the engine asks for.
const RECENT_SECONDS: usize = 12;
/// Pages that were replaced by this many of the last commits are kept for readers in any case.
const KEPT_COMMITS: usize = 16;
/// Of the commits before these, pages are kept as long as they are no more than so many.
const KEPT_PAGES: usize = 256;

/// The newest state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) sequence: u64,
    pub(super) timestamp_ms: u64,
    pub(super) schema_generation: u64,
    pub(super) tables: u64,
    /// The oldest event kept.
    pub(super) oldest: u64,
    /// None before the first commit.
    pub(super) root: Option<PageId>,
    /// Events per second since 1970, oldest first.
    pub(super) recent: Vec<(u64, u64)>,
    /// Pages that are not part of the tree any more, by the commit that replaced them, oldest first.
    pub(super) replaced: Vec<Vec<PageId>>,
}

impl Default for Head {
    fn default() -> Self {
        Self {
            sequence: 0,
            timestamp_ms: 0,
            schema_generation: 0,
            tables: 0,
            oldest: 1,
            root: None,
            recent: Vec::new(),
            replaced: Vec::new(),
        }
    }
}

impl Head {
    /// Counts events of this second.
    pub(super) fn count(&mut self, events: u64) {
        let second = self.timestamp_ms / 1_000;
        match self.recent.last_mut() {
            Some((last, count)) if *last == second => *count += events,
            _ => self.recent.push((second, events)),
        }
        let old = self.recent.len().saturating_sub(RECENT_SECONDS);
        self.recent.drain(..old);
    }

    /// Notes what this commit has replaced; answers what may be deleted now.
    pub(super) fn replace(&mut self, pages: Vec<PageId>) -> Vec<PageId> {
        self.replaced.push(pages);
        let mut kept = 0;
        let mut keep = 0;
        for pages in self.replaced.iter().rev() {
            kept += pages.len();
            if keep >= KEPT_COMMITS && kept > KEPT_PAGES {
                break;
            }
            keep += 1;
        }
        let drop = self.replaced.len() - keep;
        self.replaced.drain(..drop).flatten().collect()
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Encoder(vec![FORMAT]);
        for number in [self.sequence, self.timestamp_ms, self.schema_generation, self.tables, self.oldest] {
            out.number(number);
        }
        out.number(u64::from(self.root.is_some()));
        out.id(self.root.unwrap_or(0));
        out.number(self.recent.len() as u64);
        for (second, events) in &self.recent {
            out.number(*second);
            out.number(*events);
        }
        out.number(self.replaced.len() as u64);
        for pages in &self.replaced {
            out.number(pages.len() as u64);
            for page in pages {
                out.id(*page);
            }
        }
        out.0
    }

    pub(super) fn decode(bytes: Option<&[u8]>) -> Result<Self, StoreError> {
        let Some(bytes) = bytes else { return Ok(Self::default()) };
        let mut from = Decoder(bytes);
        if from.take(1)? != [FORMAT] {
            return Err(StoreError::Failed("the head in the key-value store is of another version".to_owned()));
        }
        let mut head = Self {
            sequence: from.number()?,
            timestamp_ms: from.number()?,
            schema_generation: from.number()?,
            tables: from.number()?,
            oldest: from.number()?,
            ..Self::default()
        };
        let has_root = from.number()? == 1;
        let root = from.id()?;
        head.root = has_root.then_some(root);
        for _ in 0..from.length()? {
            head.recent.push((from.number()?, from.number()?));
        }
        for _ in 0..from.length()? {
            let mut pages = Vec::new();
            for _ in 0..from.length()? {
                pages.push(from.id()?);
            }
            head.replaced.push(pages);
        }
        if from.is_empty() { Ok(head) } else { Err(damaged()) }
    }
}
