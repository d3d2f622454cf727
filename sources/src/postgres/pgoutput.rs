//! Messages of the plugin `pgoutput`, protocol version 3, taken apart without copying.
//!
//! Protocol: PostgreSQL's manual, "Logical Replication Message Formats". Inside a streamed block the messages about
//! rows and relations carry the id of their (sub)transaction right after their letter: [`split_streamed`] takes it off.

use super::lsn::Lsn;

/// The message ended early, or was none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log's message `{}` could not be read", char::from(*.0))]
pub(super) struct Malformed(pub(super) u8);

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message<'a> {
    /// A transaction begins, whose commit record is at `commit`.
    Begin {
        commit: Lsn,
        committed_at_us: i64,
        xid: u32,
    },
    /// The transaction ended; the log goes on at `end`.
    Commit {
        end: Lsn,
    },
    Relation(Relation<'a>),
    Insert {
        relation: u32,
        new: Tuple<'a>,
    },
    Update {
        relation: u32,
        old: Option<Old<'a>>,
        new: Tuple<'a>,
    },
    Delete {
        relation: u32,
        old: Old<'a>,
    },
    Truncate {
        relations: Vec<u32>,
    },
    /// What follows belongs to a transaction that is still open.
    StreamStart {
        xid: u32,
    },
    StreamStop,
    StreamCommit {
        xid: u32,
        commit: Lsn,
        end: Lsn,
        committed_at_us: i64,
    },
    /// The subtransaction was rolled back, or the whole if they are the same.
    StreamAbort {
        xid: u32,
        subtransaction: u32,
    },
    /// What follows belongs to a transaction that was prepared (only from slots with `two_phase`).
    BeginPrepare {
        xid: u32,
        prepared: Lsn,
    },
    /// That was all of it; the log goes on at `end`.
    Prepare {
        xid: u32,
        prepared: Lsn,
        end: Lsn,
    },
    /// The same of one that was sent while it was open.
    StreamPrepare {
        xid: u32,
        prepared: Lsn,
        end: Lsn,
    },
    CommitPrepared {
        xid: u32,
        commit: Lsn,
        end: Lsn,
        committed_at_us: i64,
        name: &'a str,
    },
    RollbackPrepared {
        xid: u32,
        end: Lsn,
    },
    /// Of no interest: origins, types, messages of applications.
    Other,
}

impl Message<'_> {
    /// The relations whose rows it is about.
    pub(super) fn relations(&self) -> &[u32] {
        match self {
            Message::Insert { relation, .. } | Message::Update { relation, .. } | Message::Delete { relation, .. } => {
                std::slice::from_ref(relation)
            }
            Message::Truncate { relations } => relations,
            _ => &[],
        }
    }
}

/// What the row was before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Old<'a> {
    /// The columns of the replica identity; the others are null.
    Key(Tuple<'a>),
    /// The whole row.
    Row(Tuple<'a>),
}

/// A table's form, as it was when the changes that follow were made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Relation<'a> {
    pub(super) oid: u32,
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
    /// `d` the primary key, `i` an index, `f` the whole row, `n` nothing.
    pub(super) identity: u8,
    pub(super) columns: Vec<RelationColumn<'a>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RelationColumn<'a> {
    /// Whether it is part of the replica identity.
    pub(super) identity: bool,
    pub(super) name: &'a str,
    pub(super) type_oid: u32,
    pub(super) type_modifier: i32,
}

/// One value of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cell<'a> {
    Null,
    /// Stored out of line and not changed: the log does not repeat it.
    Unchanged,
    Text(&'a str),
    /// A text that is no UTF-8, from a database that takes any bytes.
    NotUtf8(&'a [u8]),
}

/// The values of a row, in the order of the relation's columns.
pub(super) type Tuple<'a> = Vec<Cell<'a>>;

/// The id of the (sub)transaction, and the message without it.
pub(super) fn split_streamed(rest: &[u8]) -> Option<(u32, &[u8])> {
    let (xid, rest) = rest.split_first_chunk()?;
    Some((u32::from_be_bytes(*xid), rest))
}

/// Whether messages with this letter carry a (sub)transaction's id inside a streamed block.
pub(super) fn is_tagged(letter: u8) -> bool {
    matches!(letter, b'R' | b'Y' | b'I' | b'U' | b'D' | b'T' | b'M')
}

/// Takes a message apart: its letter, and what follows it.
pub(super) fn parse(letter: u8, rest: &[u8]) -> Result<Message<'_>, Malformed> {
    let mut reader = Reader(rest);
    read(letter, &mut reader).ok_or(Malformed(letter))
}

fn read<'a>(letter: u8, reader: &mut Reader<'a>) -> Option<Message<'a>> {
    Some(match letter {
        b'B' => Message::Begin { commit: reader.lsn()?, committed_at_us: reader.i64()?, xid: reader.u32()? },
        b'C' => {
            reader.u8()?;
            reader.lsn()?;
            Message::Commit { end: reader.lsn()? }
        }
        b'R' => {
            let oid = reader.u32()?;
            // The empty text stands for pg_catalog.
            let namespace = match reader.text()? {
                "" => "pg_catalog",
                name => name,
            };
            let name = reader.text()?;
            let identity = reader.u8()?;
            let count = reader.u16()?;
            let mut columns = Vec::with_capacity(count.into());
            for _ in 0..count {
                columns.push(RelationColumn {
                    identity: reader.u8()? & 1 == 1,
                    name: reader.text()?,
                    type_oid: reader.u32()?,
                    type_modifier: reader.u32()?.cast_signed(),
                });
            }
            Message::Relation(Relation { oid, namespace, name, identity, columns })
        }
        b'I' => {
            let relation = reader.u32()?;
            (reader.u8()? == b'N').then_some(())?;
            Message::Insert { relation, new: reader.tuple()? }
        }
        b'U' => {
            let relation = reader.u32()?;
            let old = match reader.u8()? {
                b'N' => None,
                kind => {
                    let old = reader.old(kind)?;
                    (reader.u8()? == b'N').then_some(())?;
                    Some(old)
                }
            };
            Message::Update { relation, old, new: reader.tuple()? }
        }
        b'D' => {
            let relation = reader.u32()?;
            let kind = reader.u8()?;
            Message::Delete { relation, old: reader.old(kind)? }
        }
        b'T' => {
            let count = reader.u32()?;
            reader.u8()?;
            Message::Truncate { relations: (0..count).map(|_| reader.u32()).collect::<Option<_>>()? }
        }
        b'S' => Message::StreamStart { xid: reader.u32()? },
        b'E' => Message::StreamStop,
        b'c' => {
            let xid = reader.u32()?;
            reader.u8()?;
            Message::StreamCommit { xid, commit: reader.lsn()?, end: reader.lsn()?, committed_at_us: reader.i64()? }
        }
        b'A' => Message::StreamAbort { xid: reader.u32()?, subtransaction: reader.u32()? },
        b'b' => {
            let prepared = reader.lsn()?;
            reader.lsn()?;
            reader.i64()?;
            Message::BeginPrepare { xid: reader.u32()?, prepared }
        }
        b'P' | b'p' => {
            reader.u8()?;
            let (prepared, end) = (reader.lsn()?, reader.lsn()?);
            reader.i64()?;
            let xid = reader.u32()?;
            if letter == b'P' {
                Message::Prepare { xid, prepared, end }
            } else {
                Message::StreamPrepare { xid, prepared, end }
            }
        }
        b'K' => {
            reader.u8()?;
            let (commit, end, committed_at_us) = (reader.lsn()?, reader.lsn()?, reader.i64()?);
            Message::CommitPrepared { xid: reader.u32()?, commit, end, committed_at_us, name: reader.text()? }
        }
        b'r' => {
            reader.u8()?;
            reader.lsn()?;
            let end = reader.lsn()?;
            reader.i64()?;
            reader.i64()?;
            Message::RollbackPrepared { xid: reader.u32()?, end }
        }
        b'O' | b'Y' | b'M' => Message::Other,
        _ => return None,
    })
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.take().map(i64::from_be_bytes)
    }

    fn lsn(&mut self) -> Option<Lsn> {
        self.take().map(u64::from_be_bytes).map(Lsn)
    }

    fn text(&mut self) -> Option<&'a str> {
        let end = self.0.iter().position(|&byte| byte == 0)?;
        let text = std::str::from_utf8(&self.0[..end]).ok()?;
        self.0 = &self.0[end + 1..];
        Some(text)
    }

    fn tuple(&mut self) -> Option<Tuple<'a>> {
        let count = self.u16()?;
        let mut cells = Vec::with_capacity(count.into());
        for _ in 0..count {
            cells.push(match self.u8()? {
                b'n' => Cell::Null,
                b'u' => Cell::Unchanged,
                b't' => {
                    let length = self.u32()? as usize;
                    let (bytes, rest) = self.0.split_at_checked(length)?;
                    self.0 = rest;
                    std::str::from_utf8(bytes).map_or(Cell::NotUtf8(bytes), Cell::Text)
                }
                // Binary values come only to those who ask for them.
                _ => return None,
            });
        }
        Some(cells)
    }

    fn old(&mut self, kind: u8) -> Option<Old<'a>> {
        match kind {
            b'K' => self.tuple().map(Old::Key),
            b'O' => self.tuple().map(Old::Row),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Bytes as hexadecimal digits and, in quotes, as characters.
    fn bytes(text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in text.split_whitespace() {
            match word.strip_prefix('"').and_then(|word| word.strip_suffix('"')) {
                Some(characters) => bytes.extend(characters.bytes()),
                None => bytes.push(u8::from_str_radix(word, 16).unwrap()),
            }
        }
        bytes
    }

    #[test]
    fn messages_are_taken_apart() {
        for (text, message) in [
            (
                "\"B\" 00 00 00 01 00 00 00 10 00 00 00 00 00 00 00 07 00 00 02 db",
                Message::Begin { commit: Lsn(0x1_0000_0010), committed_at_us: 7, xid: 731 },
            ),
            (
                "\"C\" 00 00 00 00 00 00 00 00 01 00 00 00 00 00 00 00 02 00 00 00 00 00 00 00 03",
                Message::Commit { end: Lsn(2) },
            ),
            (
                "\"R\" 00 00 40 01 \"shop\" 00 \"orders\" 00 \"d\" 00 02 01 \"id\" 00 00 00 00 17 ff ff ff ff \
                 00 \"note\" 00 00 00 00 19 00 00 00 08",
                Message::Relation(Relation {
                    oid: 16385,
                    namespace: "shop",
                    name: "orders",
                    identity: b'd',
                    columns: vec![
                        RelationColumn { identity: true, name: "id", type_oid: 23, type_modifier: -1 },
                        RelationColumn { identity: false, name: "note", type_oid: 25, type_modifier: 8 },
                    ],
                }),
            ),
            (
                "\"I\" 00 00 40 01 \"N\" 00 02 \"t\" 00 00 00 02 \"42\" \"n\"",
                Message::Insert { relation: 16385, new: vec![Cell::Text("42"), Cell::Null] },
            ),
            (
                "\"U\" 00 00 40 01 \"K\" 00 02 \"t\" 00 00 00 01 \"1\" \"n\" \"N\" 00 02 \"t\" 00 00 00 01 \"2\" \"u\"",
                Message::Update {
                    relation: 16385,
                    old: Some(Old::Key(vec![Cell::Text("1"), Cell::Null])),
                    new: vec![Cell::Text("2"), Cell::Unchanged],
                },
            ),
            (
                "\"D\" 00 00 40 01 \"O\" 00 01 \"t\" 00 00 00 00",
                Message::Delete { relation: 16385, old: Old::Row(vec![Cell::Text("")]) },
            ),
            ("\"T\" 00 00 00 02 00 00 00 40 01 00 00 40 02", Message::Truncate { relations: vec![16385, 16386] }),
            ("\"S\" 00 00 00 09 01", Message::StreamStart { xid: 9 }),
            ("\"E\"", Message::StreamStop),
            (
                "\"c\" 00 00 00 09 00 00 00 00 00 00 00 00 01 00 00 00 00 00 00 00 02 00 00 00 00 00 00 00 03",
                Message::StreamCommit { xid: 9, commit: Lsn(1), end: Lsn(2), committed_at_us: 3 },
            ),
            ("\"A\" 00 00 00 09 00 00 00 0a", Message::StreamAbort { xid: 9, subtransaction: 10 }),
            (
                "\"b\" 00 00 00 00 00 00 00 01 00 00 00 00 00 00 00 02 00 00 00 00 00 00 00 03 00 00 00 09 \"g\" 00",
                Message::BeginPrepare { xid: 9, prepared: Lsn(1) },
            ),
            (
                "\"P\" 00 00 00 00 00 00 00 00 01 00 00 00 00 00 00 00 02 00 00 00 00 00 00 00 03 00 00 00 09 \"g\" 00",
                Message::Prepare { xid: 9, prepared: Lsn(1), end: Lsn(2) },
            ),
            (
                "\"p\" 00 00 00 00 00 00 00 00 01 00 00 00 00 00 00 00 02 00 00 00 00 00 00 00 03 00 00 00 09 \"g\" 00",
                Message::StreamPrepare { xid: 9, prepared: Lsn(1), end: Lsn(2) },
            ),
            (
                "\"K\" 00 00 00 00 00 00 00 00 01 00 00 00 00 00 00 00 02 00 00 00 00 00 00 00 03 00 00 00 09 \"g\" 00",
                Message::CommitPrepared { xid: 9, commit: Lsn(1), end: Lsn(2), committed_at_us: 3, name: "g" },
            ),
            (
                "\"r\" 00 00 00 00 00 00 00 00 01 00 00 00 00 00 00 00 02 00 00 00 00 00 00 00 03 \
                 00 00 00 00 00 00 00 04 00 00 00 09 \"g\" 00",
                Message::RollbackPrepared { xid: 9, end: Lsn(2) },
            ),
            ("\"O\" 00", Message::Other),
        ] {
            let bytes = bytes(text);
            assert_eq!(parse(bytes[0], &bytes[1..]).as_ref(), Ok(&message), "{text}");
        }
    }

    #[test]
    fn a_message_that_ends_early_is_malformed_wherever_it_ends() {
        let whole = bytes(
            "\"U\" 00 00 40 01 \"K\" 00 02 \"t\" 00 00 00 01 \"1\" \"n\" \"N\" 00 02 \"t\" 00 00 00 01 \"2\" \"u\"",
        );
        for length in 1..whole.len() {
            assert_eq!(parse(b'U', &whole[1..length]), Err(Malformed(b'U')), "{length}");
        }
    }

    #[test]
    fn a_streamed_message_names_its_subtransaction() {
        assert_eq!(split_streamed(&[0, 0, 0, 9, 1]), Some((9, &[1][..])));
        assert_eq!(split_streamed(&[0, 0, 9]), None);
    }
}
