//! Texts on their way across the boundary: packed into one block going in, taken out of one coming back.
//!
//! Spans that come out of the component are looked at before they are used: a component may be wrong, and its embedder
//! must not be.

use std::sync::Arc;

use super::bindings::cdc::engine::store as wit;
use super::bindings::cdc::engine::store::{OriginSpans, Span};
use super::bindings::cdc::event::types::Operation;
use super::bindings::exports::cdc::engine::capture as wit_capture;
use super::bindings::exports::cdc::engine::query as wit_query;
use super::{Action, Bounds};
use crate::store;

/// One change as a writer or source reports it: `wit/engine`'s `change` with its texts.
#[derive(Clone, Debug)]
pub struct Change {
    /// The table's name.
    pub table: Arc<str>,
    /// What is to happen to the row.
    pub action: Action,
    /// The key's columns as text, in key order; empty to take them from the image.
    pub key: Vec<String>,
    /// The row or the members to merge: a JSON object, as it came. Not looked at in a delete.
    pub image: Vec<u8>,
}

/// Texts end to end.
pub(super) struct Packer {
    texts: Vec<u8>,
    /// The table's name that went in last.
    table: Option<Span>,
}

impl Packer {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self { texts: Vec::with_capacity(bytes), table: None }
    }

    /// Goes on behind texts that are there.
    pub(super) fn onto(texts: Vec<u8>) -> Self {
        Self { texts, table: None }
    }

    /// A key in its canonical form (see `cdc:event/types.event.key`).
    pub(super) fn key(&mut self, parts: &[String]) -> Span {
        let start = self.texts.len();
        match parts {
            [single] => self.texts.extend_from_slice(single.as_bytes()),
            several => {
                for (place, part) in several.iter().enumerate() {
                    if place > 0 {
                        self.texts.push(b'/');
                    }
                    for &byte in part.as_bytes() {
                        match byte {
                            b'%' => self.texts.extend_from_slice(b"%25"),
                            b'/' => self.texts.extend_from_slice(b"%2F"),
                            _ => self.texts.push(byte),
                        }
                    }
                }
            }
        }
        self.span_from(start)
    }

    fn span_from(&self, start: usize) -> Span {
        // Past 4 GiB spans would not be true any more; no instance has memory for so many.
        let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        Span { offset: number(start), length: number(self.texts.len() - start) }
    }

    /// A table's name. What is about one table mostly comes together, so the name goes in once for all of it.
    pub(super) fn table(&mut self, name: &str) -> Span {
        match self.table {
            Some(span) if bytes(&self.texts, span) == Some(name.as_bytes()) => span,
            _ => {
                let span = self.push(name.as_bytes());
                self.table = Some(span);
                span
            }
        }
    }

    pub(super) fn origin(&mut self, origin: &OriginView<'_>) -> OriginSpans {
        let mut optional = |text: Option<&str>| text.map(|text| self.push(text.as_bytes()));
        OriginSpans {
            transaction: optional(origin.transaction),
            position: optional(origin.position),
            unavailable: optional(origin.unavailable),
            source: self.push(origin.source.as_bytes()),
            snapshot: origin.snapshot,
            committed_at: origin.committed_at_ms,
        }
    }

    /// Adds a text.
    pub(super) fn push(&mut self, text: &[u8]) -> Span {
        let start = self.texts.len();
        self.texts.extend_from_slice(text);
        self.span_from(start)
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.texts
    }
}

/// Changes as the component takes them.
pub(super) fn pack(changes: &[Change]) -> (Vec<wit_capture::Change>, Vec<u8>) {
    let bytes: usize = changes.iter().map(|change| change.image.len()).sum();
    let mut texts = Packer::with_capacity(bytes + 64);
    let packed = changes.iter().map(|change| wit_capture::Change {
        table: texts.table(&change.table),
        action: change.action,
        key: (!change.key.is_empty()).then(|| change.key.iter().map(|part| texts.push(part.as_bytes())).collect()),
        image: texts.push(&change.image),
        // What comes from elsewhere comes through `follow`.
        origin: None,
    });
    let packed = packed.collect();
    (packed, texts.into_bytes())
}

/// The bytes of a span.
fn bytes(texts: &[u8], span: Span) -> Option<&[u8]> {
    texts.get(span.offset as usize..)?.get(..span.length as usize)
}

/// One page of events, as the component answered it.
#[derive(Clone, Debug)]
pub struct EventPage {
    entries: Vec<wit::Entry>,
    texts: Vec<u8>,
    /// Ask on with `after` set to this.
    pub next_after: u64,
    /// What the log holds.
    pub bounds: Bounds,
}

/// An event of a page.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EventView<'a> {
    /// Its place in the log.
    pub sequence: u64,
    /// In ms since 1970.
    pub timestamp_ms: u64,
    /// The table's name.
    pub table: &'a str,
    /// The row's key.
    pub key: &'a str,
    /// What happened.
    pub operation: Operation,
    /// The row before.
    pub before: Option<&'a [u8]>,
    /// The row after.
    pub after: Option<&'a [u8]>,
    /// The version of the table's schema.
    pub schema_version: u32,
    /// Where it came from.
    pub origin: Option<OriginView<'a>>,
}

/// The origin of an event of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OriginView<'a> {
    /// The source's name.
    pub source: &'a str,
    /// The source's transaction.
    pub transaction: Option<&'a str>,
    /// The source's position.
    pub position: Option<&'a str>,
    /// Whether the event is part of an initial snapshot.
    pub snapshot: bool,
    /// When the source's transaction was committed, in ms since 1970 by the source's clock.
    pub committed_at_ms: Option<u64>,
    /// Columns whose values nobody knew, as a JSON array of strings.
    pub unavailable: Option<&'a str>,
}

impl<'a> OriginView<'a> {
    pub(super) fn of(origin: &'a store::Origin, position: Option<&'a str>) -> Self {
        Self {
            source: &origin.source,
            transaction: origin.transaction.as_deref(),
            position,
            snapshot: origin.snapshot,
            committed_at_ms: origin.committed_at_ms,
            unavailable: origin.unavailable.as_deref(),
        }
    }
}

impl EventPage {
    /// The page, if every span of it is one of its texts.
    pub(super) fn checked(page: wit_query::EventPage) -> Option<Self> {
        let page = Self { entries: page.entries, texts: page.texts, next_after: page.next_after, bounds: page.bounds };
        page.entries.iter().all(|entry| page.view(entry).is_some()).then_some(page)
    }

    /// How many events there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no event.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many bytes its texts are.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        self.texts.len()
    }

    /// The events, in the order of the answer.
    pub fn events(&self) -> impl Iterator<Item = EventView<'_>> {
        // All were looked at when the page was made.
        self.entries.iter().filter_map(|entry| self.view(entry))
    }

    fn view(&self, entry: &wit::Entry) -> Option<EventView<'_>> {
        // A span is there or not; one that is there has to be right.
        fn optional<T>(span: Option<Span>, found: impl FnOnce(Span) -> Option<T>) -> Option<Option<T>> {
            span.map_or(Some(None), |span| found(span).map(Some))
        }
        let image = |span| bytes(&self.texts, span);
        let text = |span| std::str::from_utf8(bytes(&self.texts, span)?).ok();
        Some(EventView {
            sequence: entry.sequence,
            timestamp_ms: entry.timestamp,
            table: text(entry.table)?,
            key: text(entry.key)?,
            operation: entry.operation,
            before: optional(entry.before, image)?,
            after: optional(entry.after, image)?,
            schema_version: entry.schema_version,
            origin: match entry.origin {
                None => None,
                Some(origin) => Some(OriginView {
                    source: text(origin.source)?,
                    transaction: optional(origin.transaction, text)?,
                    position: optional(origin.position, text)?,
                    snapshot: origin.snapshot,
                    committed_at_ms: origin.committed_at,
                    unavailable: optional(origin.unavailable, text)?,
                }),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn span(offset: u32, length: u32) -> Span {
        Span { offset, length }
    }

    fn page(table: Span, after: Span) -> Option<EventPage> {
        let entry = wit::Entry {
            sequence: 1,
            timestamp: 2,
            table,
            key: span(5, 1),
            operation: Operation::Insert,
            before: None,
            after: Some(after),
            schema_version: 1,
            origin: None,
        };
        EventPage::checked(wit_query::EventPage {
            entries: vec![entry],
            texts: b"\xc3\xa9t\xc3\xa9k{}".to_vec(),
            next_after: 1,
            bounds: Bounds { oldest: 1, newest: 1, newest_timestamp: 2 },
        })
    }

    #[test]
    fn a_page_shows_what_its_spans_name() {
        let page = page(span(0, 5), span(6, 2)).unwrap();
        let event = page.events().next().unwrap();
        assert_eq!((event.table, event.key, event.after), ("été", "k", Some(&b"{}"[..])));
    }

    #[test]
    fn a_page_whose_spans_are_wrong_is_none() {
        for (table, after) in [
            (span(0, 1), span(6, 2)),
            (span(0, 5), span(6, 3)),
            (span(0, 5), span(9, 0)),
            (span(u32::MAX, u32::MAX), span(6, 2)),
        ] {
            assert!(page(table, after).is_none(), "{table:?} {after:?}");
        }
    }

    #[test]
    fn a_tables_name_is_packed_once_for_the_changes_that_stand_together() {
        let change = |table: &str, key: &[&str]| Change {
            table: table.into(),
            action: Action::Upsert,
            key: key.iter().map(|&part| part.to_owned()).collect(),
            image: b"{}".to_vec(),
        };
        let (packed, texts) = pack(&[change("t", &[]), change("t", &["a", "b"]), change("u", &[])]);
        assert_eq!(texts, b"t{}ab{}u{}");
        assert!(packed[0].key.is_none());
        let key: Vec<_> = packed[1].key.iter().flatten().map(|&part| bytes(&texts, part).unwrap()).collect();
        assert_eq!(key, [b"a", b"b"]);
    }
}
