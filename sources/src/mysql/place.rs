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

/// The name of one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gtid {
    /// MariaDB's: domain, server, sequence number.
    MariaDb { domain: u32, server: u32, sequence: u64 },
    /// MySQL's: the server's UUID and a number.
    MySql { server: [u8; 16], number: u64 },
    /// The server gives none.
    None,
}

/// Which transactions have been seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// MariaDB: the last transaction of every domain.
    MariaDb(BTreeMap<u32, (u32, u64)>),
    /// MySQL: the set of transactions of every server, as ranges (first, last), in order, apart from each other.
    MySql(BTreeMap<[u8; 16], Vec<(u64, u64)>>),
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
            (Seen::MySql(servers), Gtid::MySql { server, number }) => {
                insert(servers.entry(server).or_default(), number, number);
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

    /// Reads MySQL's notation: `uuid:1-5:7,uuid:1`. None if it is something else, also if it has tags.
    pub(super) fn parse_mysql(text: &str) -> Option<Seen> {
        let mut servers: BTreeMap<[u8; 16], Vec<(u64, u64)>> = BTreeMap::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let mut pieces = part.split(':');
            let ranges = servers.entry(parse_uuid(pieces.next()?)?).or_default();
            for piece in pieces {
                let (first, last) = piece.split_once('-').unwrap_or((piece, piece));
                let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
                if first == 0 || last < first {
                    return None;
                }
                insert(ranges, first, last);
            }
        }
        Some(Seen::MySql(servers))
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
            Seen::MySql(servers) => {
                for (at, (server, ranges)) in servers.iter().enumerate() {
                    f.write_str(if at > 0 { "," } else { "" })?;
                    write_uuid(f, server)?;
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
            Gtid::MySql { server, number } => {
                write_uuid(f, server)?;
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
        let server = parse_uuid(A).unwrap();
        for number in [4, 8, 7, 10] {
            seen.add(Gtid::MySql { server, number });
        }
        assert_eq!(seen.to_string(), format!("{A}:1-10,{B}:1"));
        assert!(Seen::parse_mysql(&format!("{A}:2-3:5")).unwrap().within(&seen));
        assert!(!Seen::parse_mysql(&format!("{A}:2-11")).unwrap().within(&seen));
        assert_eq!(Seen::parse_mysql(&format!("{A}:tag:1-5")), None, "tags are not understood");
        assert_eq!(Seen::parse_mysql(&format!("{A}:5-1")), None);
    }

    #[test]
    fn files_are_ordered_by_their_number() {
        let older = LogPlace { file: "b.999999".into(), offset: 9 };
        let newer = LogPlace { file: "b.1000000".into(), offset: 4 };
        assert!(older.order() < newer.order());
    }
}
