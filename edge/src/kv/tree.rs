//! The search tree of immutable pages: read in ranges, changed by writing what changes anew.
//!
//! Leaves hold keys with their values in byte order, branches the first key of each child. Nothing is balanced after
//! deletions but that empty pages go and a branch with one child is left out; what is deleted in number is the oldest
//! events, whole pages of them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::rc::Rc;

use cdc_engine::store::StoreError;

use super::codec::{Decoder, Encoder, damaged};
use super::{KeyValue, KeyValueError, PageId};

/// A page is cut when it has more bytes than this; one entry may be longer.
const PAGE_BYTES: usize = 16 << 10;
/// Pages that were read are kept up to so many bytes of them. An instance may live for as long as its runtime does, and
/// every commit makes pages that nobody reads again.
pub(super) const KEPT_BYTES: usize = 4 << 20;
const LEAF: u8 = 0;
const BRANCH: u8 = 1;

/// One change of the tree: a value, or none to remove the key.
pub(super) type Edit = (Vec<u8>, Option<Vec<u8>>);

/// Is shown a key and its value, and says whether it wants more.
pub(super) type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, StoreError> + 'a;

#[derive(Clone, Debug)]
struct Child {
    first: Vec<u8>,
    page: PageId,
}

#[derive(Debug)]
enum Page {
    Leaf(Vec<(Vec<u8>, Vec<u8>)>),
    Branch(Vec<Child>),
}

/// The provider's failure as the engine's store reports it.
pub(super) fn store_error(error: KeyValueError) -> StoreError {
    match error {
        KeyValueError::Failed(message) => StoreError::Failed(message),
        KeyValueError::Conflict => StoreError::Conflict,
        KeyValueError::NoSwap(message) => StoreError::Unsafe(format!(
            "the runtime's key-value store cannot compare and swap ({message}), so concurrent writes could be lost; \
             run this on a provider that can"
        )),
    }
}

/// Pages as they are read; seldom more than once, because none ever changes.
#[derive(Debug)]
pub(super) struct Pages<K> {
    pub(super) provider: Rc<K>,
    kept: RefCell<Kept>,
}

/// Pages that were read.
#[derive(Debug, Default)]
struct Kept {
    /// Each with its length in bytes as the provider has it.
    pages: HashMap<PageId, (Rc<Page>, usize)>,
    bytes: usize,
}

impl Kept {
    /// Keeps a page. When there are too many all others go: what is still needed is soon read again, and nothing has to
    /// be noted each time that a page is used.
    fn keep(&mut self, id: PageId, page: &Rc<Page>, bytes: usize) {
        if self.bytes + bytes > KEPT_BYTES {
            *self = Self::default();
        }
        self.pages.insert(id, (page.clone(), bytes));
        self.bytes += bytes;
    }

    fn forget(&mut self, id: PageId) {
        if let Some((_, bytes)) = self.pages.remove(&id) {
            self.bytes -= bytes;
        }
    }
}

impl<K: KeyValue> Pages<K> {
    pub(super) fn new(provider: Rc<K>) -> Self {
        Self { provider, kept: RefCell::default() }
    }

    /// Lets go of pages that are not part of the newest tree any more. A reader of an older one reads them again.
    pub(super) fn forget(&self, pages: &[PageId]) {
        let mut kept = self.kept.borrow_mut();
        pages.iter().for_each(|id| kept.forget(*id));
    }

    #[cfg(test)]
    pub(super) fn kept_bytes(&self) -> usize {
        self.kept.borrow().bytes
    }

    fn page(&self, id: PageId) -> Result<Rc<Page>, StoreError> {
        if let Some((page, _)) = self.kept.borrow().pages.get(&id) {
            return Ok(page.clone());
        }
        // Only a reader that is slower than many commits finds nothing: it has to begin anew.
        let bytes = self.provider.page(id).map_err(store_error)?.ok_or(StoreError::Conflict)?;
        let page = Rc::new(decode(&bytes)?);
        self.kept.borrow_mut().keep(id, &page, bytes.len());
        Ok(page)
    }

    /// The value of a key.
    pub(super) fn get(&self, root: Option<PageId>, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(mut at) = root else { return Ok(None) };
        loop {
            let page = self.page(at)?;
            match &*page {
                Page::Leaf(entries) => {
                    let found = entries.binary_search_by(|(known, _)| known.as_slice().cmp(key));
                    return Ok(found.ok().and_then(|found| entries.get(found)).map(|(_, value)| value.clone()));
                }
                Page::Branch(children) => {
                    let child = children.partition_point(|child| child.first.as_slice() <= key);
                    let Some(child) = child.checked_sub(1).and_then(|child| children.get(child)) else {
                        return Ok(None);
                    };
                    at = child.page;
                }
            }
        }
    }

    /// Visits the keys `from..to` in byte order, or against it, until the visitor has enough.
    pub(super) fn walk(
        &self,
        root: Option<PageId>,
        (from, to): (&[u8], &[u8]),
        backwards: bool,
        visit: &mut Visit<'_>,
    ) -> Result<ControlFlow<()>, StoreError> {
        let Some(root) = root else { return Ok(ControlFlow::Continue(())) };
        let page = self.page(root)?;
        match &*page {
            Page::Leaf(entries) => {
                let begin = entries.partition_point(|(key, _)| key.as_slice() < from);
                let end = entries.partition_point(|(key, _)| key.as_slice() < to).max(begin);
                let mut within = entries.get(begin..end).unwrap_or_default().iter();
                while let Some((key, value)) = if backwards { within.next_back() } else { within.next() } {
                    if visit(key, value)?.is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
            Page::Branch(children) => {
                let begin = children.partition_point(|child| child.first.as_slice() <= from).saturating_sub(1);
                let end = children.partition_point(|child| child.first.as_slice() < to).max(begin);
                let mut within = children.get(begin..end).unwrap_or_default().iter();
                while let Some(child) = if backwards { within.next_back() } else { within.next() } {
                    if self.walk(Some(child.page), (from, to), backwards, visit)?.is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// What an application of edits came to. Nothing of it is written yet.
#[derive(Debug, Default)]
pub(super) struct Applied {
    pub(super) root: Option<PageId>,
    pub(super) written: Vec<(PageId, Vec<u8>)>,
    pub(super) replaced: Vec<PageId>,
}

/// Applies edits, which are in byte order with each key once.
pub(super) fn apply<K: KeyValue>(
    pages: &Pages<K>,
    root: Option<PageId>,
    edits: &[Edit],
) -> Result<Applied, StoreError> {
    let mut applied = Applied::default();
    let mut level = match root {
        Some(root) => applied.apply(pages, root, edits)?,
        None => applied.leaves(pages, merge(&[], edits), Growth::AtEnd),
    };
    while level.len() > 1 {
        level = applied.branches(pages, level);
    }
    applied.root = level.pop().map(|child| child.page);
    Ok(applied)
}

impl Applied {
    fn apply<K: KeyValue>(&mut self, pages: &Pages<K>, id: PageId, edits: &[Edit]) -> Result<Vec<Child>, StoreError> {
        let page = pages.page(id)?;
        self.replaced.push(id);
        match &*page {
            Page::Leaf(entries) => {
                let behind = |last: &(Vec<u8>, Vec<u8>)| edits.first().is_some_and(|(key, _)| *key > last.0);
                let growth = if entries.last().is_none_or(behind) { Growth::AtEnd } else { Growth::Within };
                Ok(self.leaves(pages, merge(entries, edits), growth))
            }
            Page::Branch(children) => {
                let mut changed = Vec::with_capacity(children.len() + 1);
                let mut rest = edits;
                for (at, child) in children.iter().enumerate() {
                    let until = match children.get(at + 1) {
                        Some(next) => rest.partition_point(|(key, _)| *key < next.first),
                        None => rest.len(),
                    };
                    let (own, others) = rest.split_at(until);
                    rest = others;
                    if own.is_empty() {
                        changed.push(child.clone());
                    } else {
                        changed.extend(self.apply(pages, child.page, own)?);
                    }
                }
                Ok(if changed.len() > 1 { self.branches(pages, changed) } else { changed })
            }
        }
    }

    fn leaves<K: KeyValue>(
        &mut self,
        pages: &Pages<K>,
        entries: Vec<(Vec<u8>, Vec<u8>)>,
        growth: Growth,
    ) -> Vec<Child> {
        let encode = |out: &mut Encoder, (key, value): &(Vec<u8>, Vec<u8>)| {
            out.bytes(key);
            out.bytes(value);
        };
        self.cut(pages, LEAF, entries, growth, encode, |(key, _)| key)
    }

    fn branches<K: KeyValue>(&mut self, pages: &Pages<K>, children: Vec<Child>) -> Vec<Child> {
        let encode = |out: &mut Encoder, child: &Child| {
            out.bytes(&child.first);
            out.id(child.page);
        };
        self.cut(pages, BRANCH, children, Growth::Within, encode, |child| &child.first)
    }

    /// Cuts entries into pages.
    fn cut<K: KeyValue, T>(
        &mut self,
        pages: &Pages<K>,
        kind: u8,
        entries: Vec<T>,
        growth: Growth,
        encode: impl Fn(&mut Encoder, &T),
        first: impl Fn(&T) -> &Vec<u8>,
    ) -> Vec<Child> {
        let mut encoded = Encoder::default();
        let ends: Vec<usize> = entries
            .iter()
            .map(|entry| {
                encode(&mut encoded, entry);
                encoded.0.len()
            })
            .collect();
        let page_bytes = match growth {
            Growth::AtEnd => PAGE_BYTES,
            Growth::Within => encoded.0.len().div_ceil(encoded.0.len().div_ceil(PAGE_BYTES).max(1)),
        };
        let mut cut = Vec::new();
        let (mut begin, mut from) = (0, 0);
        for (at, end) in ends.iter().enumerate() {
            let is_last = at + 1 == ends.len();
            // A branch of one child would never end.
            if !is_last && (end - from < page_bytes || (kind == BRANCH && at == begin)) {
                continue;
            }
            let id = pages.provider.new_page_id();
            let content = encoded.0.get(from..*end).unwrap_or_default();
            self.written.push((id, [&[kind], content].concat()));
            if let Some(entry) = entries.get(begin) {
                cut.push(Child { first: first(entry).clone(), page: id });
            }
            (begin, from) = (at + 1, *end);
        }
        cut
    }
}

/// Where a page grows, which decides where it is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Growth {
    /// Behind its last key, as the log does: what is before will not grow any more, so pages are cut when full.
    AtEnd,
    /// Anywhere: pages are cut evenly, so that each has room.
    Within,
}

fn merge(entries: &[(Vec<u8>, Vec<u8>)], edits: &[Edit]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut merged = Vec::with_capacity(entries.len() + edits.len());
    let mut present = entries.iter().peekable();
    for (key, value) in edits {
        while let Some(entry) = present.next_if(|(known, _)| known < key) {
            merged.push(entry.clone());
        }
        present.next_if(|(known, _)| known == key);
        if let Some(value) = value {
            merged.push((key.clone(), value.clone()));
        }
    }
    merged.extend(present.cloned());
    merged
}

fn decode(bytes: &[u8]) -> Result<Page, StoreError> {
    let mut from = Decoder(bytes);
    let kind = from.take(1)?;
    let (mut entries, mut children) = (Vec::new(), Vec::new());
    while !from.is_empty() {
        let key = from.bytes()?.to_vec();
        match kind {
            [LEAF] => entries.push((key, from.bytes()?.to_vec())),
            [BRANCH] => children.push(Child { first: key, page: from.id()? }),
            _ => return Err(damaged()),
        }
    }
    Ok(if kind == [LEAF] { Page::Leaf(entries) } else { Page::Branch(children) })
}
