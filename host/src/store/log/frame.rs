//! A frame: the unit of checksum, compression and random access in the log.
//!
//! A batch is one frame, or several of about 64 KiB each when it is large; all but the last then carry
//! [`MORE`]. A batch without its last frame does not count: recovery drops it as a whole.
//!
//! ```text
//! header, 44 bytes, little-endian
//!    0 u32 crc32c of bytes 4..44         20 u32 events
//!    4 u16 mark 0xCDC1                   24 u32 synced: everything below this offset in the file was durable when
//!    6 u8  flags: 1 lz4, 2 more, 4 pack,        the frame was written
//!          8 documents
//!    7 u8  0                             28 u64 sequence number of the first event (or of the next one, without events)
//!    8 u32 stored payload bytes          36 u64 timestamp in ms since 1970
//!   12 u32 payload bytes, unpacked
//!   16 u32 crc32c of the stored payload
//! payload (lz4 block when flagged)
//!   tables     n, then n times: name
//!   origins    n, then n times: flags (1 snapshot, 2 transaction, 4 position, 8 committed at, 16 unavailable), source,
//!              [transaction], [position], [committed at, in ms since 1970], [unavailable]
//!   schemas    n, then n times: table, version, definition
//!   positions  n, then n times: source, position
//!   cursors    n, then n times: subscription, sequence number
//!   documents  when flagged: length of what follows, n, then n times: collection's name; n, then n times: number of the
//!              collection's name, kind (0 removed, 1 set), key, [value]
//!   entries    12 bytes per event: u16 table, u8 operation, u8 flags (1 before, 2 after, 4 origin, 8 position),
//!              u32 crc32c of the key, u32 offset of the body
//!   bodies     schema version, [origin], key, [before], [after], [position]
//! ```
//! Schemas, positions and cursors are in a batch's first frame. Its documents come before its events, in as many frames
//! as they take, of which all but the last have no events.
//!
//! Numbers without a width are LEB128; text and bytes are a length and the bytes. A frame names its tables and origins
//! itself, so that any frame can be read on its own. The events of a transaction share an origin, and each has a position
//! of its own; an origin with a position (4) is of an old version and has it for all of its events. Entries have a fixed size, so that a selective read passes over
//! events without touching their images.
//!
//! A pack holds several small frames of whole batches in one, so that they compress: its payload is these frames one
//! after another, not compressed, their checksums and `synced` 0. Its header has the first one's sequence number, the
//! last one's timestamp and the events of all. Segments are packed some time after they were sealed (`pack`); the
//! writer never writes one.
//!
//! `synced` is what tells a torn write from damage: a bad frame at an offset that a later, good frame calls durable was
//! once good.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::super::{Batch, Document, Event, Operation, Origin, SchemaVersion, Sequence, Write};
use super::codec::{Reader, put_bytes, put_number, u16_at, u32_at, u64_at};

pub(crate) const HEADER: usize = 44;
pub(crate) const MARK: u16 = 0xCDC1;
/// The payload is an lz4 block.
pub(crate) const LZ4: u8 = 1;
/// The batch goes on in the next frame.
pub(crate) const MORE: u8 = 2;

/// The payload is other frames.
pub(crate) const PACK: u8 = 4;
/// The payload has documents.
pub(crate) const DOCUMENTS: u8 = 8;

const ENTRY: usize = 12;
const HAS_BEFORE: u8 = 1;
const HAS_AFTER: u8 = 2;
const HAS_ORIGIN: u8 = 4;
const HAS_POSITION: u8 = 8;

/// An origin's flags.
const SNAPSHOT: u8 = 1;
const TRANSACTION: u8 = 2;
const SHARED_POSITION: u8 = 4;
const COMMITTED_AT: u8 = 8;
const UNAVAILABLE: u8 = 16;

/// Where a batch is cut into frames: small enough that reading one event of it stays cheap.
const PAYLOAD_TARGET: usize = 64 << 10;
const EVENTS_MAX: usize = 4096;
/// Below this, compressing gains nothing worth its time.
const PACK_FROM: usize = 512;
/// No block can shrink by more than this in lz4: a larger claim is damage, and must not be believed with memory.
const LZ4_RATIO_MAX: usize = 255;

/// Why bytes are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Damage(pub(crate) &'static str);

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) flags: u8,
    pub(crate) stored: u32,
    pub(crate) raw: u32,
    pub(crate) payload_crc: u32,
    pub(crate) events: u32,
    pub(crate) synced: u32,
    pub(crate) first: Sequence,
    pub(crate) timestamp_ms: u64,
}

impl Header {
    /// Reads a header, or says that there is none.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let Some(h) = bytes.first_chunk::<HEADER>() else { return Err(Damage("a frame's header is cut short")) };
        if u16_at(h, 4) != MARK {
            return Err(Damage("there is no frame"));
        }
        if crc32c::crc32c(&h[4..]) != u32_at(h, 0) {
            return Err(Damage("the checksum of a frame's header is wrong"));
        }
        Ok(Self::fields(h))
    }

    fn fields(h: &[u8; HEADER]) -> Self {
        Self {
            flags: h[6],
            stored: u32_at(h, 8),
            raw: u32_at(h, 12),
            payload_crc: u32_at(h, 16),
            events: u32_at(h, 20),
            synced: u32_at(h, 24),
            first: u64_at(h, 28),
            timestamp_ms: u64_at(h, 36),
        }
    }

    /// Bytes in the file, header included.
    pub(crate) fn len(&self) -> u64 {
        HEADER as u64 + u64::from(self.stored)
    }

    /// The sequence number after this frame.
    pub(crate) fn next(&self) -> Sequence {
        self.first.saturating_add(u64::from(self.events))
    }

    fn encode(&self, h: &mut [u8]) {
        h[4..6].copy_from_slice(&MARK.to_le_bytes());
        h[6] = self.flags;
        h[7] = 0;
        h[8..12].copy_from_slice(&self.stored.to_le_bytes());
        h[12..16].copy_from_slice(&self.raw.to_le_bytes());
        h[16..20].copy_from_slice(&self.payload_crc.to_le_bytes());
        h[20..24].copy_from_slice(&self.events.to_le_bytes());
        h[24..28].copy_from_slice(&self.synced.to_le_bytes());
        h[28..36].copy_from_slice(&self.first.to_le_bytes());
        h[36..44].copy_from_slice(&self.timestamp_ms.to_le_bytes());
    }
}

/// A batch as frames, ready for the log but for `synced`, which is only known when they are written.
#[derive(Debug, Default)]
pub(crate) struct Encoded {
    /// The frames, one after another.
    pub(crate) bytes: Vec<u8>,
    /// Where each starts in `bytes`, and its decoded form for the cache.
    pub(crate) frames: Vec<(usize, Frames)>,
}

impl Encoded {
    /// Writes down what is durable and seals the headers.
    pub(crate) fn finish(&mut self, synced: u32) {
        for (at, _) in &self.frames {
            let header = &mut self.bytes[*at..*at + HEADER];
            header[24..28].copy_from_slice(&synced.to_le_bytes());
            let crc = crc32c::crc32c(&header[4..]);
            header[..4].copy_from_slice(&crc.to_le_bytes());
        }
    }
}

/// Encodes a batch whose first event gets the sequence number `first`.
pub(crate) fn encode(batch: &Batch, first: Sequence) -> Encoded {
    let mut encoded = Encoded::default();
    let mut from = 0;
    let mut documents = &batch.documents[..];
    let mut is_first = true;
    loop {
        let mut size = 0;
        let mut count = 0;
        for document in documents {
            let document = 8 + document.key.len() + document.value.as_ref().map_or(0, Bytes::len);
            if count > 0 && size + document > PAYLOAD_TARGET {
                break;
            }
            size += document;
            count += 1;
        }
        let (here, later) = documents.split_at(count);
        documents = later;
        let mut to = from;
        while later.is_empty() && to < batch.writes.len() && to - from < EVENTS_MAX {
            let write = &batch.writes[to];
            let texts = [&write.before, &write.after, &write.position].into_iter().flatten();
            let event = ENTRY + 8 + write.key.len() + texts.map(Bytes::len).sum::<usize>();
            if size > 0 && size + event > PAYLOAD_TARGET {
                break;
            }
            size += event;
            to += 1;
        }
        let more = to < batch.writes.len() || !later.is_empty();
        let notes = std::mem::take(&mut is_first).then_some(batch);
        let raw = Bytes::from(encode_payload(&batch.writes[from..to], notes, here, size));
        let at = encoded.bytes.len();
        let mut header = Header {
            flags: if more { MORE } else { 0 } | if here.is_empty() { 0 } else { DOCUMENTS },
            stored: 0,
            raw: 0,
            payload_crc: 0,
            events: (to - from) as u32,
            synced: 0,
            first: first + from as u64,
            timestamp_ms: batch.timestamp_ms,
        };
        put_frame(&mut encoded.bytes, &mut header, &raw);
        // What was just written must be readable; a failure here would be a bug of this file.
        if let Ok(frame) = Frame::parse(&header, raw, None) {
            encoded.frames.push((at, Arc::new(vec![frame])));
        } else {
            debug_assert!(false, "a frame that cannot be read was encoded");
        }
        from = to;
        if !more {
            return encoded;
        }
    }
}

/// Appends a frame with this payload, all but `synced` and the header's checksum.
fn put_frame(out: &mut Vec<u8>, header: &mut Header, raw: &[u8]) {
    let at = out.len();
    out.resize(at + HEADER, 0);
    header.raw = raw.len() as u32;
    header.stored = header.raw;
    if raw.len() >= PACK_FROM {
        let start = out.len();
        out.resize(start + lz4_flex::block::get_maximum_output_size(raw.len()), 0);
        match lz4_flex::block::compress_into(raw, &mut out[start..]) {
            Ok(packed) if packed < raw.len() => {
                out.truncate(start + packed);
                header.flags |= LZ4;
                header.stored = packed as u32;
            }
            _ => out.truncate(start),
        }
    }
    if header.flags & LZ4 == 0 {
        out.extend_from_slice(raw);
    }
    header.payload_crc = crc32c::crc32c(&out[at + HEADER..]);
    header.encode(&mut out[at..at + HEADER]);
}

/// Appends a pack of frames that `put_packed` has put one after another. Ready for a file.
pub(crate) fn put_pack(out: &mut Vec<u8>, first: Sequence, events: u32, timestamp_ms: u64, packed: &[u8]) {
    let at = out.len();
    let mut header = Header { flags: PACK, stored: 0, raw: 0, payload_crc: 0, events, synced: 0, first, timestamp_ms };
    put_frame(out, &mut header, packed);
    let crc = crc32c::crc32c(&out[at + 4..at + HEADER]);
    out[at..at + 4].copy_from_slice(&crc.to_le_bytes());
}

/// Appends a frame in the form that it has in a pack.
pub(crate) fn put_packed(packed: &mut Vec<u8>, header: &Header, stored: &[u8]) -> Result<(), Damage> {
    let raw = unpack(header, stored)?;
    let inner = Header { flags: header.flags & !LZ4, stored: header.raw, payload_crc: 0, synced: 0, ..*header };
    let at = packed.len();
    packed.resize(at + HEADER, 0);
    inner.encode(&mut packed[at..]);
    packed.extend_from_slice(&raw);
    Ok(())
}

/// Checks a stored payload and undoes its compression.
fn unpack(header: &Header, stored: &[u8]) -> Result<Vec<u8>, Damage> {
    if stored.len() != header.stored as usize {
        return Err(Damage("a frame is cut short"));
    }
    if crc32c::crc32c(stored) != header.payload_crc {
        return Err(Damage("the checksum of a frame is wrong"));
    }
    let raw_len = header.raw as usize;
    let raw = if header.flags & LZ4 == 0 {
        stored.to_vec()
    } else {
        if raw_len / LZ4_RATIO_MAX > stored.len() {
            return Err(Damage("a frame claims to unpack to more than it can"));
        }
        lz4_flex::block::decompress(stored, raw_len).map_err(|_| Damage("a frame cannot be unpacked"))?
    };
    if raw.len() != raw_len {
        return Err(Damage("a frame unpacks to another length than it says"));
    }
    Ok(raw)
}

fn encode_payload(writes: &[Write], notes: Option<&Batch>, documents: &[Document], size: usize) -> Vec<u8> {
    // Dictionaries first: their order is that of first use.
    let mut tables: Vec<&Arc<str>> = Vec::new();
    let mut table_numbers: HashMap<&str, u16> = HashMap::new();
    let mut origins: Vec<&Arc<Origin>> = Vec::new();
    let mut origin_numbers: HashMap<*const Origin, u32> = HashMap::new();
    let mut numbers: Vec<(u16, u32)> = Vec::with_capacity(writes.len());
    let mut last_table: Option<(&Arc<str>, u16)> = None;
    let mut last_origin: Option<(*const Origin, u32)> = None;
    for write in writes {
        let table = match last_table {
            Some((table, number)) if Arc::ptr_eq(table, &write.table) || **table == *write.table => number,
            _ => *table_numbers.entry(&write.table).or_insert_with(|| {
                tables.push(&write.table);
                (tables.len() - 1) as u16
            }),
        };
        last_table = Some((&write.table, table));
        let origin = write.origin.as_ref().map_or(0, |origin| {
            let place = Arc::as_ptr(origin);
            let number = match last_origin {
                Some((last, number)) if last == place => number,
                _ => *origin_numbers.entry(place).or_insert_with(|| {
                    origins.push(origin);
                    (origins.len() - 1) as u32
                }),
            };
            last_origin = Some((place, number));
            number
        });
        numbers.push((table, origin));
    }

    let mut out = Vec::with_capacity(size + 256);
    put_number(&mut out, tables.len() as u64);
    for table in tables {
        put_bytes(&mut out, table.as_bytes());
    }
    put_number(&mut out, origins.len() as u64);
    for origin in origins {
        let flags = [
            (origin.snapshot, SNAPSHOT),
            (origin.transaction.is_some(), TRANSACTION),
            (origin.committed_at_ms.is_some(), COMMITTED_AT),
            (origin.unavailable.is_some(), UNAVAILABLE),
        ];
        out.push(flags.iter().filter(|(is_set, _)| *is_set).map(|(_, flag)| flag).sum());
        put_bytes(&mut out, origin.source.as_bytes());
        if let Some(transaction) = &origin.transaction {
            put_bytes(&mut out, transaction.as_bytes());
        }
        if let Some(committed_at_ms) = origin.committed_at_ms {
            put_number(&mut out, committed_at_ms);
        }
        if let Some(unavailable) = &origin.unavailable {
            put_bytes(&mut out, unavailable.as_bytes());
        }
    }
    if let Some(batch) = notes {
        put_number(&mut out, batch.schemas.len() as u64);
        for schema in &batch.schemas {
            put_bytes(&mut out, schema.table.as_bytes());
            put_number(&mut out, u64::from(schema.version));
            put_bytes(&mut out, &schema.definition);
        }
        put_number(&mut out, batch.positions.len() as u64);
        for (source, position) in &batch.positions {
            put_bytes(&mut out, source.as_bytes());
            put_bytes(&mut out, position.as_bytes());
        }
        put_number(&mut out, batch.cursors.len() as u64);
        for (subscription, sequence) in &batch.cursors {
            put_bytes(&mut out, subscription.as_bytes());
            put_number(&mut out, *sequence);
        }
    } else {
        out.extend_from_slice(&[0; 3]);
    }
    if !documents.is_empty() {
        put_documents(&mut out, documents);
    }

    let entries = out.len();
    let bodies = entries + writes.len() * ENTRY;
    out.resize(bodies, 0);
    for (i, (write, (table, origin))) in writes.iter().zip(numbers).enumerate() {
        let flags = (if write.before.is_some() { HAS_BEFORE } else { 0 })
            | (if write.after.is_some() { HAS_AFTER } else { 0 })
            | (if write.origin.is_some() { HAS_ORIGIN } else { 0 })
            | (if write.position.is_some() { HAS_POSITION } else { 0 });
        let offset = (out.len() - bodies) as u32;
        let entry = &mut out[entries + i * ENTRY..][..ENTRY];
        entry[..2].copy_from_slice(&table.to_le_bytes());
        entry[2] = write.operation as u8;
        entry[3] = flags;
        entry[4..8].copy_from_slice(&key_hash(&write.key).to_le_bytes());
        entry[8..].copy_from_slice(&offset.to_le_bytes());
        put_number(&mut out, u64::from(write.schema_version));
        if write.origin.is_some() {
            put_number(&mut out, u64::from(origin));
        }
        put_bytes(&mut out, &write.key);
        for text in [&write.before, &write.after, &write.position].into_iter().flatten() {
            put_bytes(&mut out, text);
        }
    }
    out
}

fn put_documents(out: &mut Vec<u8>, documents: &[Document]) {
    let mut names: Vec<&Arc<str>> = Vec::new();
    let mut numbers: HashMap<&str, u64> = HashMap::new();
    let mut last: Option<(&Arc<str>, u64)> = None;
    let mut section = Vec::new();
    let mut bodies = Vec::new();
    put_number(&mut bodies, documents.len() as u64);
    for document in documents {
        let name = &document.collection;
        let number = match last {
            Some((last, number)) if Arc::ptr_eq(last, name) || last == name => number,
            _ => *numbers.entry(name).or_insert_with(|| {
                names.push(name);
                names.len() as u64 - 1
            }),
        };
        last = Some((name, number));
        put_number(&mut bodies, number);
        bodies.push(u8::from(document.value.is_some()));
        put_bytes(&mut bodies, &document.key);
        if let Some(value) = &document.value {
            put_bytes(&mut bodies, value);
        }
    }
    put_number(&mut section, names.len() as u64);
    for name in names {
        put_bytes(&mut section, name.as_bytes());
    }
    put_number(out, (section.len() + bodies.len()) as u64);
    out.extend_from_slice(&section);
    out.extend_from_slice(&bodies);
}

/// The hash under which the log knows a key. Part of the format.
pub(crate) fn key_hash(key: &[u8]) -> u32 {
    crc32c::crc32c(key)
}

/// What one entry says about its event, images untouched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) table: u16,
    pub(crate) operation: Operation,
    pub(crate) key_hash: u32,
    flags: u8,
    body: u32,
}

/// What a batch holds beside its events.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    pub(crate) schemas: Vec<SchemaVersion>,
    pub(crate) positions: Vec<(String, String)>,
    pub(crate) cursors: Vec<(String, Sequence)>,
}

/// What one frame of the file holds: itself, or the frames of a pack, in order. Never empty.
pub(crate) type Frames = Arc<Vec<Frame>>;

/// A frame, unpacked.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) first: Sequence,
    pub(crate) timestamp_ms: u64,
    pub(crate) events: u32,
    pub(crate) tables: Vec<Arc<str>>,
    pub(crate) notes: Notes,
    /// With the position that all of its events have, in a frame of an old version.
    origins: Vec<(Arc<Origin>, Option<Bytes>)>,
    /// The part of `raw` with the documents: empty without any. Readers of events pass over it.
    documents: Bytes,
    raw: Bytes,
    entries: usize,
}

impl Frame {
    /// Checks and unpacks a frame's stored payload.
    pub(crate) fn decode(header: &Header, stored: &[u8]) -> Result<Vec<Self>, Damage> {
        let raw = Bytes::from(unpack(header, stored)?);
        if header.flags & PACK == 0 {
            return Ok(vec![Self::parse(header, raw, None)?]);
        }
        let mut frames: Vec<Self> = Vec::new();
        let mut at = 0;
        let mut next = header.first;
        while let Some(h) = raw.get(at..).and_then(|rest| rest.first_chunk::<HEADER>()) {
            let inner = Header::fields(h);
            let end = at + HEADER + inner.stored as usize;
            if inner.flags & !DOCUMENTS != 0 || inner.first != next || inner.stored != inner.raw || end > raw.len() {
                return Err(Damage("a pack holds what is no frame"));
            }
            let frame = Self::parse(&inner, raw.slice(at + HEADER..end), frames.last())?;
            frames.push(frame);
            next = inner.next();
            at = end;
        }
        if at != raw.len() || next != header.next() || frames.is_empty() {
            return Err(Damage("a pack holds other events than it says"));
        }
        Ok(frames)
    }

    /// Reads a payload; names are shared with the frame before it, if there is one.
    fn parse(header: &Header, raw: Bytes, before: Option<&Self>) -> Result<Self, Damage> {
        let mut reader = Reader { bytes: &raw, at: 0 };
        let mut tables = Vec::new();
        for _ in 0..reader.count()? {
            let name = reader.text()?;
            let known = before.and_then(|before| before.tables.iter().find(|known| &***known == name));
            tables.push(known.cloned().unwrap_or_else(|| Arc::from(name)));
        }
        let mut origins = Vec::new();
        for _ in 0..reader.count()? {
            let flags = reader.byte()?;
            let source = reader.text()?.to_owned();
            let mut text = |flag: u8| (flags & flag != 0).then(|| reader.text()).transpose();
            let transaction = text(TRANSACTION)?.map(str::to_owned);
            let position = text(SHARED_POSITION)?.map(|position| raw.slice_ref(position.as_bytes()));
            let committed_at_ms = if flags & COMMITTED_AT != 0 { Some(reader.number()?) } else { None };
            let unavailable = if flags & UNAVAILABLE != 0 { Some(reader.text()?.to_owned()) } else { None };
            let snapshot = flags & SNAPSHOT != 0;
            let origin = Origin { source, transaction, committed_at_ms, snapshot, unavailable };
            origins.push((Arc::new(origin), position));
        }
        let mut notes = Notes::default();
        for _ in 0..reader.count()? {
            let table = Arc::from(reader.text()?);
            let version = reader.number32()?;
            let definition = Bytes::copy_from_slice(reader.bytes()?);
            notes.schemas.push(SchemaVersion { table, version, definition });
        }
        for _ in 0..reader.count()? {
            notes.positions.push((reader.text()?.to_owned(), reader.text()?.to_owned()));
        }
        for _ in 0..reader.count()? {
            notes.cursors.push((reader.text()?.to_owned(), reader.number()?));
        }
        let documents = if header.flags & DOCUMENTS != 0 { raw.slice_ref(reader.bytes()?) } else { Bytes::new() };
        let entries = reader.at;
        if (raw.len() - entries) / ENTRY < header.events as usize {
            return Err(Damage("a frame is too short for its events"));
        }
        let frame = Self {
            first: header.first,
            timestamp_ms: header.timestamp_ms,
            events: header.events,
            tables,
            notes,
            origins,
            documents,
            raw,
            entries,
        };
        for i in 0..frame.events {
            let entry = &frame.raw[entries + i as usize * ENTRY..][..ENTRY];
            if usize::from(u16_at(entry, 0)) >= frame.tables.len() || entry[2] > 3 {
                return Err(Damage("an event's table or operation is unknown"));
            }
        }
        Ok(frame)
    }

    /// What it costs to keep in memory.
    pub(crate) fn memory(&self) -> usize {
        self.raw.len() + 256 + self.tables.len() * 48 + self.origins.len() * 128
    }

    /// The i-th event's entry; `i` is below `events`.
    pub(crate) fn entry(&self, i: u32) -> Entry {
        let entry = &self.raw[self.entries + i as usize * ENTRY..][..ENTRY];
        let operation = match entry[2] {
            0 => Operation::Insert,
            1 => Operation::Update,
            2 => Operation::Delete,
            _ => Operation::Truncate,
        };
        Entry {
            table: u16_at(entry, 0),
            operation,
            flags: entry[3],
            key_hash: u32_at(entry, 4),
            body: u32_at(entry, 8),
        }
    }

    /// The key of an event.
    pub(crate) fn key(&self, entry: &Entry) -> Result<&[u8], Damage> {
        let mut reader = self.body(entry);
        reader.number()?;
        if entry.flags & HAS_ORIGIN != 0 {
            reader.number()?;
        }
        reader.bytes()
    }

    /// The i-th event as it was written; `i` is below `events`. Its images share the frame's memory.
    pub(crate) fn event(&self, i: u32) -> Result<Event, Damage> {
        let entry = self.entry(i);
        let mut reader = self.body(&entry);
        let schema_version = reader.number32()?;
        let origin = if entry.flags & HAS_ORIGIN != 0 {
            let number = reader.number32()? as usize;
            Some(self.origins.get(number).ok_or(Damage("an event's origin is unknown"))?)
        } else {
            None
        };
        let key = self.raw.slice_ref(reader.bytes()?);
        let before = if entry.flags & HAS_BEFORE != 0 { Some(self.raw.slice_ref(reader.bytes()?)) } else { None };
        let after = if entry.flags & HAS_AFTER != 0 { Some(self.raw.slice_ref(reader.bytes()?)) } else { None };
        let position = if entry.flags & HAS_POSITION != 0 { Some(self.raw.slice_ref(reader.bytes()?)) } else { None };
        let position = position.or_else(|| origin.and_then(|(_, shared)| shared.clone()));
        let origin = origin.map(|(origin, _)| origin.clone());
        let table = self.tables.get(usize::from(entry.table)).cloned().ok_or(Damage("an event's table is unknown"))?;
        let write = Write { table, key, operation: entry.operation, before, after, schema_version, origin, position };
        Ok(Event { sequence: self.first.saturating_add(u64::from(i)), timestamp_ms: self.timestamp_ms, write })
    }

    /// The documents, as they were written. They share the frame's memory.
    pub(crate) fn documents(&self) -> Result<Vec<Document>, Damage> {
        if self.documents.is_empty() {
            return Ok(Vec::new());
        }
        let mut reader = Reader { bytes: &self.documents, at: 0 };
        let mut names: Vec<Arc<str>> = Vec::new();
        for _ in 0..reader.count()? {
            names.push(reader.text()?.into());
        }
        let mut documents = Vec::new();
        for _ in 0..reader.count()? {
            let number = reader.number32()? as usize;
            let collection = names.get(number).cloned().ok_or(Damage("a document's collection is unknown"))?;
            let kind = reader.byte()?;
            let key = self.documents.slice_ref(reader.bytes()?);
            let value = match kind {
                0 => None,
                1 => Some(self.documents.slice_ref(reader.bytes()?)),
                _ => return Err(Damage("a document is of an unknown kind")),
            };
            documents.push(Document { collection, key, value });
        }
        Ok(documents)
    }

    fn body(&self, entry: &Entry) -> Reader<'_> {
        let at = self.entries + self.events as usize * ENTRY + entry.body as usize;
        Reader { bytes: &self.raw, at: at.min(self.raw.len()) }
    }
}
