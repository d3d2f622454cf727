//! Places in a binary log: by file and offset, and by global transaction identifiers of both dialects.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

/// A place in the server's binary log files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct LogPlace {
    /// The file's name, as in `SHOW BINARY LOGS`.
    pub(super) file: String,
    /// Bytes from its beginning.
    pub(super) offset: u64,
}

impl LogPlace {
    /// What places are ordered by: the number at the end of the file's name, then the offset.
    pub(super) fn order(&self) -> (u64, u64) {
        (file_number(&self.file), self.offset)
    }
}

impl Display for LogPlace {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.offset)
    }
}

/// The number at the end of a log file's name; 0 if there is none.
pub(super) fn file_number(file: &str) -> u64 {
    file.rsplit('.').next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// What a MySQL server puts before the number of a transaction that a session named with a tag (8.3 and later): up to 32
/// lower-case letters, digits and underscores. The empty one is none.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Tag {
    /// Zero after its end, so that the order is that of the text.
    bytes: [u8; 32],
}

impl Tag {
    /// None if these bytes are none of a tag. Upper case means the same as lower case.
    pub(super) fn read(text: &[u8]) -> Option<Tag> {
        let mut tag = Tag::default();
        tag.bytes.get_mut(..text.len())?.copy_from_slice(text);
        tag.bytes.make_ascii_lowercase();
        let begins = text.first().is_none_or(|first| first.is_ascii_alphabetic() || *first == b'_');
        (begins && text.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')).then_some(tag)
    }

    pub(super) fn as_str(&self) -> &str {
        let end = self.bytes.iter().position(|&byte| byte == 0).unwrap_or(self.bytes.len());
        std::str::from_utf8(&self.bytes[..end]).unwrap_or_default()
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

/// Who counts transactions: a MySQL server, for each tag apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Source {
    pub(super) uuid: [u8; 16],
    pub(super) tag: Tag,
}

impl Source {
    pub(super) fn untagged(uuid: [u8; 16]) -> Source {
        Source { uuid, tag: Tag::default() }
    }
}

/// The name of one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gtid {
    /// MariaDB's: domain, server, sequence number.
    MariaDb { domain: u32, server: u32, sequence: u64 },
    /// MySQL's: a source and a number.
    MySql { source: Source, number: u64 },
    /// The server gives none.
    None,
}

/// Which transactions have been seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// MariaDB: the last transaction of every domain.
    MariaDb(BTreeMap<u32, (u32, u64)>),
    /// MySQL: the set of transactions of every source, as ranges (first, last), in order, apart from each other.
    MySql(BTreeMap<Source, Vec<(u64, u64)>>),
    /// The server gives no identifiers: file and offset must do.
    Nameless,
}

impl Seen {
    /// Adds one transaction.
    pub(super) fn add(&mut self, gtid: Gtid) {
        match (self, gtid) {
            (Seen::MariaDb(domains), Gtid::MariaDb { domain, server, sequence }) => {
                domains.insert(domain, (server, sequence));
            }
            (Seen::MySql(sources), Gtid::MySql { source, number }) => {
                insert(sources.entry(source).or_default(), number, number);
            }
            _ => {}
        }
    }

    /// Whether every transaction of `self` is in `other`. For MariaDB: whether `other` is as far in every domain.
    pub(super) fn within(&self, other: &Seen) -> bool {
        match (self, other) {
            (Seen::MariaDb(ours), Seen::MariaDb(theirs)) => ours
                .iter()
                .all(|(domain, (_, sequence))| theirs.get(domain).is_some_and(|(_, reached)| reached >= sequence)),
            (Seen::MySql(ours), Seen::MySql(theirs)) => ours.iter().all(|(server, ranges)| {
                let known = theirs.get(server).map(Vec::as_slice).unwrap_or_default();
                ranges.iter().all(|&(first, last)| known.iter().any(|&(from, to)| from <= first && last <= to))
            }),
            _ => true,
        }
    }

    /// Reads MariaDB's notation: `0-1-42,1-2-7`. None if it is something else.
    pub(super) fn parse_mariadb(text: &str) -> Option<Seen> {
        let mut domains = BTreeMap::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let mut numbers = part.split('-');
            let domain = numbers.next()?.parse().ok()?;
            let server = numbers.next()?.parse().ok()?;
            let sequence = numbers.next()?.parse().ok()?;
            if numbers.next().is_some() {
                return None;
            }
            domains.insert(domain, (server, sequence));
        }
        Some(Seen::MariaDb(domains))
    }

    /// Reads MySQL's notation: `uuid:1-5:7:tag:1-3,uuid:1`, where ranges belong to the tag before them, and those before
    /// every tag to none. None if it is something else.
    pub(super) fn parse_mysql(text: &str) -> Option<Seen> {
        let mut sources: BTreeMap<Source, Vec<(u64, u64)>> = BTreeMap::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let mut pieces = part.split(':').map(str::trim);
            let mut source = Source::untagged(parse_uuid(pieces.next()?)?);
            for piece in pieces {
                if !piece.starts_with(|first: char| first.is_ascii_digit()) {
                    source.tag = Tag::read(piece.as_bytes()).filter(|_| !piece.is_empty())?;
                    continue;
                }
                let (first, last) = piece.split_once('-').unwrap_or((piece, piece));
                let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
                if first == 0 || last < first {
                    return None;
                }
                insert(sources.entry(source).or_default(), first, last);
            }
        }
        Some(Seen::MySql(sources))
    }

    /// MySQL's set as COM_BINLOG_DUMP_GTID wants it: how many sources there are, and of each its UUID, its tag where
    /// one has any, how many ranges, and those with the number after their last. With tags, the number of sources
    /// stands between two ones, and tags are counted as [`Bytes::varlen`](super::bytes::Bytes::varlen) says. (MySQL's
    /// `Gtid_set::encode` and `encode_nsids_format` in `sql/rpl_gtid_set.cc`.) Servers before 8.3 understand only
    /// what has no tags, and know of none.
    pub(super) fn encode_mysql(&self) -> Vec<u8> {
        let none = BTreeMap::new();
        let sources = if let Seen::MySql(sources) = self { sources } else { &none };
        let tagged = sources.keys().any(|source| source.tag != Tag::default());
        let count = sources.len() as u64;
        let head = if tagged { 1 << 56 | count << 8 | 1 } else { count };
        let mut out = head.to_le_bytes().to_vec();
        for (source, ranges) in sources {
            out.extend(source.uuid);
            if tagged {
                let tag = source.tag.as_str();
                // At most 32, so that the number is one byte.
                out.push((tag.len() as u8) << 1);
                out.extend(tag.as_bytes());
            }
            out.extend((ranges.len() as u64).to_le_bytes());
            for (first, last) in ranges {
                out.extend(first.to_le_bytes());
                out.extend(last.saturating_add(1).to_le_bytes());
            }
        }
        out
    }
}

/// Adds a range to ranges that are in order, and joins what touches.
fn insert(ranges: &mut Vec<(u64, u64)>, first: u64, last: u64) {
    // The usual case: the next transaction.
    if let Some(end) = ranges.last_mut()
        && first > end.0
        && first <= end.1.saturating_add(1)
    {
        end.1 = end.1.max(last);
        return;
    }
    ranges.push((first, last));
    ranges.sort_unstable();
    let mut joined: Vec<(u64, u64)> = Vec::with_capacity(ranges.len());
    for &(first, last) in ranges.iter() {
        match joined.last_mut() {
            Some(end) if first <= end.1.saturating_add(1) => end.1 = end.1.max(last),
            _ => joined.push((first, last)),
        }
    }
    *ranges = joined;
}

impl Display for Seen {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Seen::MariaDb(domains) => {
                for (at, (domain, (server, sequence))) in domains.iter().enumerate() {
                    write!(f, "{}{domain}-{server}-{sequence}", if at > 0 { "," } else { "" })?;
                }
            }
            Seen::MySql(sources) => {
                let mut last_uuid = None;
                for (source, ranges) in sources {
                    // As servers write it: what is tagged follows behind what is not, without its UUID again.
                    if last_uuid != Some(source.uuid) {
                        f.write_str(if last_uuid.is_some() { "," } else { "" })?;
                        write_uuid(f, &source.uuid)?;
                        last_uuid = Some(source.uuid);
                    }
                    if source.tag != Tag::default() {
                        write!(f, ":{}", source.tag.as_str())?;
                    }
                    for (first, last) in ranges {
                        if first == last { write!(f, ":{first}")? } else { write!(f, ":{first}-{last}")? }
                    }
                }
            }
            Seen::Nameless => {}
        }
        Ok(())
    }
}

impl Display for Gtid {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Gtid::MariaDb { domain, server, sequence } => write!(f, "{domain}-{server}-{sequence}"),
            Gtid::MySql { source, number } => {
                write_uuid(f, &source.uuid)?;
                if source.tag != Tag::default() {
                    write!(f, ":{}", source.tag.as_str())?;
                }
                write!(f, ":{number}")
            }
            Gtid::None => Ok(()),
        }
    }
}

/// Reads a UUID with or without dashes.
pub(super) fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let mut uuid = [0; 16];
    let mut digits = text.trim().bytes().filter(|&byte| byte != b'-');
    for byte in &mut uuid {
        let high = char::from(digits.next()?).to_digit(16)?;
        let low = char::from(digits.next()?).to_digit(16)?;
        *byte = u8::try_from(high * 16 + low).ok()?;
    }
    digits.next().is_none().then_some(uuid)
}

/// Writes a UUID in lower case, with dashes.
pub(super) fn write_uuid(out: &mut impl fmt::Write, uuid: &[u8; 16]) -> fmt::Result {
    for (at, byte) in uuid.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            out.write_char('-')?;
        }
        write!(out, "{byte:02x}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
    const B: &str = "4e11fa47-71ca-11e1-9e33-c80aa9429562";

    #[test]
    fn a_mariadb_position_names_the_last_transaction_of_each_domain() {
        let mut seen = Seen::parse_mariadb("1-2-7,0-1-42").unwrap();
        assert_eq!(seen.to_string(), "0-1-42,1-2-7");
        seen.add(Gtid::MariaDb { domain: 0, server: 3, sequence: 43 });
        assert_eq!(seen.to_string(), "0-3-43,1-2-7");
        assert!(Seen::parse_mariadb("0-1-42").unwrap().within(&seen));
        assert!(!Seen::parse_mariadb("0-1-44").unwrap().within(&seen));
        assert_eq!(Seen::parse_mariadb("").unwrap().to_string(), "");
        assert_eq!(Seen::parse_mariadb("0-1"), None);
    }

    #[test]
    fn a_mysql_position_is_a_set_whose_ranges_join() {
        let mut seen = Seen::parse_mysql(&format!("{B}:1, {A}:1-3:5-6,\n{A}:9")).unwrap();
        assert_eq!(seen.to_string(), format!("{A}:1-3:5-6:9,{B}:1"));
        let source = Source::untagged(parse_uuid(A).unwrap());
        for number in [4, 8, 7, 10] {
            seen.add(Gtid::MySql { source, number });
        }
        assert_eq!(seen.to_string(), format!("{A}:1-10,{B}:1"));
        assert!(Seen::parse_mysql(&format!("{A}:2-3:5")).unwrap().within(&seen));
        assert!(!Seen::parse_mysql(&format!("{A}:2-11")).unwrap().within(&seen));
        assert_eq!(Seen::parse_mysql(&format!("{A}:5-1")), None);
    }

    #[test]
    fn transactions_with_a_tag_are_counted_apart() {
        let text = format!("{A}:1-13:mytag:1-2:other:7,{B}:_x:1");
        let mut seen = Seen::parse_mysql(&format!("{B}:_X:1, {A}:1-13, {A}:OTHER:7 : mytag:1-2")).unwrap();
        assert_eq!(seen.to_string(), text);
        let source = Source { uuid: parse_uuid(A).unwrap(), tag: Tag::read(b"mytag").unwrap() };
        seen.add(Gtid::MySql { source, number: 3 });
        assert_eq!(seen.to_string(), format!("{A}:1-13:mytag:1-3:other:7,{B}:_x:1"));
        assert!(Seen::parse_mysql(&text).unwrap().within(&seen));
        assert!(!seen.within(&Seen::parse_mysql(&text).unwrap()));
        assert!(!Seen::parse_mysql(&format!("{A}:mytag:13")).unwrap().within(&seen), "13 is another one without a tag");
        for wrong in ["-tag:1", "ta-g:1", "tag with spaces:1", "a23456789012345678901234567890123:1"] {
            assert_eq!(Seen::parse_mysql(&format!("{A}:{wrong}")), None, "{wrong}");
        }
    }

    #[test]
    fn a_set_is_asked_for_as_servers_write_it_into_their_logs() {
        let bytes = |hex: &str| -> Vec<u8> {
            hex.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
        };
        // PREVIOUS_GTIDS_LOG_EVENT, which has the same form, as MySQL 8.0.32 and 9.6.0 wrote it.
        let plain = Seen::parse_mysql("357df524-4139-11ee-9979-b033ee13919e:1").unwrap();
        let expected = "01 00 00 00 00 00 00 00 35 7d f5 24 41 39 11 ee 99 79 b0 33 ee 13 91 9e 01 00 00 00 00 00 00 00 01 00 \
            00 00 00 00 00 00 02 00 00 00 00 00 00 00";
        assert_eq!(plain.encode_mysql(), bytes(expected));
        let tagged = Seen::parse_mysql("55778904-0299-11f1-b1b8-4ef0c4956feb:1-13:mytag:1-2").unwrap();
        let expected = "01 02 00 00 00 00 00 01 55 77 89 04 02 99 11 f1 b1 b8 4e f0 c4 95 6f eb 00 01 00 00 00 00 00 00 00 01 \
            00 00 00 00 00 00 00 0e 00 00 00 00 00 00 00 55 77 89 04 02 99 11 f1 b1 b8 4e f0 c4 95 6f eb 0a 6d 79 74 61 67 \
            01 00 00 00 00 00 00 00 01 00 00 00 00 00 00 00 03 00 00 00 00 00 00 00";
        assert_eq!(tagged.encode_mysql(), bytes(expected));
        assert_eq!(Seen::MySql(BTreeMap::new()).encode_mysql(), [0; 8]);
    }

    #[test]
    fn files_are_ordered_by_their_number() {
        let older = LogPlace { file: "b.999999".into(), offset: 9 };
        let newer = LogPlace { file: "b.1000000".into(), offset: 4 };
        assert!(older.order() < newer.order());
    }
}
