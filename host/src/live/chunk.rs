//! A piece of the log that readers share, and its events as JSON and as Server-Sent Events, written once however many
//! send them.

use std::sync::OnceLock;

use bytes::Bytes;
use cdc_rest::envelope::{Format, Subject};
use cdc_rest::{EventRef, OriginRef, event_id};

use crate::schemas::Schemas;
use crate::selection::Images;
use crate::store::{Event, Operation, Sequence, StoreError, Write};

/// About what an event takes in memory beside its images.
const EVENT_OVERHEAD_BYTES: usize = 512;

/// The two line breaks behind a Server-Sent Event.
const END_OF_MESSAGE: usize = 2;
/// Server-Sent Events are written in blocks of about this size. A block lives as long as somebody sends of it, so this
/// is what a reader that is slow holds in memory.
const BLOCK_BYTES: usize = 16 << 10;

/// Consecutive events, at least one.
#[derive(Debug)]
pub struct Chunk {
    events: Vec<LiveEvent>,
    bytes: usize,
    /// In each format that somebody reads.
    blocks: [OnceLock<Vec<Block>>; Format::READABLE.len()],
}

/// Consecutive events as Server-Sent Events.
#[derive(Debug)]
struct Block {
    /// The first one's place in the chunk.
    first: usize,
    bytes: Bytes,
    /// Where each ends.
    ends: Vec<usize>,
}

/// A piece of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// Whole events as Server-Sent Events; empty when none of what was left of the chunk is wanted.
    pub bytes: Bytes,
    /// How many they are.
    pub events: u64,
    /// Everything up to and with this event is in the piece or is not wanted.
    pub until: Sequence,
}

/// An event, and the event as JSON once somebody has asked for it.
#[derive(Debug)]
pub struct LiveEvent {
    /// The event.
    pub event: Event,
    /// Its images as values, once a condition has asked for them.
    pub images: Images,
    json: OnceLock<Bytes>,
}

impl Chunk {
    /// A chunk of these events, which are consecutive; none of none.
    pub(super) fn new(events: Vec<Event>) -> Option<Self> {
        (!events.is_empty()).then(|| Self::of(events))
    }

    /// A chunk of these events, wherever they come from.
    pub(crate) fn of(events: Vec<Event>) -> Self {
        let image = |image: &Option<Bytes>| image.as_ref().map_or(0, Bytes::len);
        let images = events.iter().map(|event| image(&event.write.before) + image(&event.write.after)).sum::<usize>();
        // Twice the images, because somebody will ask for the JSON.
        let bytes = 2 * images + events.len() * EVENT_OVERHEAD_BYTES;
        let events = events
            .into_iter()
            .map(|event| LiveEvent { event, images: Images::default(), json: OnceLock::new() })
            .collect();
        Self { events, bytes, blocks: Default::default() }
    }

    /// The first event's sequence number.
    #[must_use]
    pub fn first(&self) -> Sequence {
        self.events.first().map_or(0, |event| event.event.sequence)
    }

    /// The last event's sequence number.
    #[must_use]
    pub fn last(&self) -> Sequence {
        self.events.last().map_or(0, |event| event.event.sequence)
    }

    /// The events of this chunk that come after this one.
    #[must_use]
    pub fn events_after(&self, after: Sequence) -> &[LiveEvent] {
        let read = after.saturating_add(1).saturating_sub(self.first());
        let read = usize::try_from(read).unwrap_or(usize::MAX).min(self.events.len());
        &self.events[read..]
    }

    /// Every event of this chunk.
    #[must_use]
    pub fn events(&self) -> &[LiveEvent] {
        &self.events
    }

    /// The next run of wanted events after this one, as Server-Sent Events in a format. Errs when the schema of an event
    /// cannot be read.
    pub fn piece(
        &self,
        after: Sequence,
        format: Format,
        schemas: &Schemas,
        wants: impl Fn(&Event) -> bool,
    ) -> Result<Piece, StoreError> {
        let from = self.events.len() - self.events_after(after).len();
        let is_wanted = |event: &LiveEvent| wants(&event.event);
        let Some(skipped) = self.events[from..].iter().position(is_wanted) else {
            return Ok(Piece { until: self.last(), ..Piece::default() });
        };
        let from = from + skipped;
        let blocks = self.blocks(format, schemas)?;
        let Some(block) = blocks.iter().rev().find(|block| block.first <= from) else {
            return Ok(Piece { until: self.last(), ..Piece::default() });
        };
        let last = block.first + block.ends.len();
        let to = self.events[from..last].iter().position(|event| !is_wanted(event)).map_or(last, |run| from + run);
        let end = |event: usize| match event.checked_sub(block.first + 1) {
            Some(before) => block.ends[before],
            None => 0,
        };
        Ok(Piece {
            bytes: block.bytes.slice(end(from)..end(to)),
            events: (to - from) as u64,
            until: self.events[to - 1].event.sequence,
        })
    }

    /// All of it as Server-Sent Events.
    fn blocks(&self, format: Format, schemas: &Schemas) -> Result<&[Block], StoreError> {
        let place = Format::READABLE.iter().position(|readable| *readable == format).unwrap_or(0);
        let blocks = &self.blocks[place];
        if blocks.get().is_none() {
            // Another reader may be faster, with the same.
            let _ = blocks.set(self.render(format, schemas)?);
        }
        Ok(blocks.get().map_or(&[], Vec::as_slice))
    }

    fn render(&self, format: Format, schemas: &Schemas) -> Result<Vec<Block>, StoreError> {
        let mut blocks = Vec::new();
        let (mut out, mut ends, mut first) = (Vec::new(), Vec::new(), 0);
        let mut starts = Vec::new();
        for (i, event) in self.events.iter().enumerate() {
            starts.push(if format == Format::Native {
                let Event { sequence, timestamp_ms, write } = &event.event;
                cdc_rest::write_stream_event(&mut out, &event_ref(*sequence, *timestamp_ms, write))
            } else {
                let write = |subject: &Subject<'_>| cdc_rest::write_stream_envelope(&mut out, format, subject);
                with_subject(&event.event, schemas, write)?
            });
            ends.push(out.len());
            if out.len() < BLOCK_BYTES && i + 1 < self.events.len() {
                continue;
            }
            out.shrink_to_fit();
            let bytes = Bytes::from(std::mem::take(&mut out));
            for (event, (start, end)) in self.events[first..].iter().zip(starts.drain(..).zip(&ends)) {
                if format == Format::Native {
                    // The JSON is a part of it, and written no second time.
                    let _ = event.json.set(bytes.slice(start..end - END_OF_MESSAGE));
                }
            }
            blocks.push(Block { first, bytes, ends: std::mem::take(&mut ends) });
            first = i + 1;
        }
        Ok(blocks)
    }

    /// About what it takes in memory, the JSON included.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl LiveEvent {
    /// The event as `GET /events` shows it.
    #[must_use]
    pub fn json(&self) -> Bytes {
        let written = self.json.get_or_init(|| {
            let mut out = Vec::new();
            let Event { sequence, timestamp_ms, write } = &self.event;
            cdc_rest::write_event(&mut out, &event_ref(*sequence, *timestamp_ms, write));
            out.into()
        });
        written.clone()
    }

    /// The event in a format.
    pub fn envelope(&self, format: Format, schemas: &Schemas) -> Result<Bytes, StoreError> {
        if format == Format::Native {
            return Ok(self.json());
        }
        let mut out = Vec::new();
        with_subject(&self.event, schemas, |subject| format.write(&mut out, subject))?;
        Ok(out.into())
    }
}

/// Lends an event with what envelopes tell beside it.
fn with_subject<T>(event: &Event, schemas: &Schemas, write: impl FnOnce(&Subject<'_>) -> T) -> Result<T, StoreError> {
    let Event { sequence, timestamp_ms, write: written } = event;
    let schema = schemas.get(&written.table, written.schema_version)?;
    // Keys are UTF-8: the engine made them.
    let key = std::str::from_utf8(&written.key).unwrap_or_default();
    let id = event_id(*timestamp_ms, *sequence);
    let event = event_ref(*sequence, *timestamp_ms, written);
    Ok(write(&Subject { event, id: &id, key, schema: &schema, subscription: None }))
}

/// An event of the store as the contract knows it.
#[must_use]
pub fn event_ref(sequence: Sequence, timestamp_ms: u64, write: &Write) -> EventRef<'_> {
    EventRef {
        sequence,
        timestamp_ms,
        table: &write.table,
        operation: match write.operation {
            Operation::Insert => cdc_rest::Operation::Insert,
            Operation::Update => cdc_rest::Operation::Update,
            Operation::Delete => cdc_rest::Operation::Delete,
            Operation::Truncate => cdc_rest::Operation::Truncate,
        },
        before: write.before.as_deref(),
        after: write.after.as_deref(),
        schema_version: write.schema_version,
        origin: write.origin.as_ref().map(|origin| OriginRef {
            source: &origin.source,
            transaction: origin.transaction.as_deref(),
            position: write.position_text(),
            snapshot: origin.snapshot,
            committed_at_ms: origin.committed_at_ms,
            unavailable: origin.unavailable.as_deref(),
        }),
    }
}
