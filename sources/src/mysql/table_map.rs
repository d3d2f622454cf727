//! TABLE_MAP_EVENT: how the rows of the events after it are laid out, and, with `binlog_row_metadata`, what the columns
//! are called.
//!
//! Source: MySQL's `Table_map_event` documentation (types, metadata per type, optional metadata as type, length, value)
//! and MariaDB's `Table_map_log_event`, which differs in what it counts among the columns with a character set. That
//! MySQL counts vectors among them is in no documentation; logs of 9.0 are so.

use super::bytes::{Bytes, Malformed, bit};

/// Type codes of the protocol that appear in logs.
pub(super) mod code {
    pub(crate) const DECIMAL: u8 = 0;
    pub(crate) const TINY: u8 = 1;
    pub(crate) const SHORT: u8 = 2;
    pub(crate) const LONG: u8 = 3;
    pub(crate) const FLOAT: u8 = 4;
    pub(crate) const DOUBLE: u8 = 5;
    pub(crate) const NULL: u8 = 6;
    pub(crate) const TIMESTAMP: u8 = 7;
    pub(crate) const LONGLONG: u8 = 8;
    pub(crate) const INT24: u8 = 9;
    pub(crate) const DATE: u8 = 10;
    pub(crate) const TIME: u8 = 11;
    pub(crate) const DATETIME: u8 = 12;
    pub(crate) const YEAR: u8 = 13;
    pub(crate) const NEWDATE: u8 = 14;
    pub(crate) const VARCHAR: u8 = 15;
    pub(crate) const BIT: u8 = 16;
    pub(crate) const TIMESTAMP2: u8 = 17;
    pub(crate) const DATETIME2: u8 = 18;
    pub(crate) const TIME2: u8 = 19;
    pub(crate) const BLOB_COMPRESSED: u8 = 140;
    pub(crate) const VARCHAR_COMPRESSED: u8 = 141;
    pub(crate) const VECTOR: u8 = 242;
    pub(crate) const JSON: u8 = 245;
    pub(crate) const NEWDECIMAL: u8 = 246;
    pub(crate) const ENUM: u8 = 247;
    pub(crate) const SET: u8 = 248;
    pub(crate) const TINY_BLOB: u8 = 249;
    pub(crate) const MEDIUM_BLOB: u8 = 250;
    pub(crate) const LONG_BLOB: u8 = 251;
    pub(crate) const BLOB: u8 = 252;
    pub(crate) const VAR_STRING: u8 = 253;
    pub(crate) const STRING: u8 = 254;
    pub(crate) const GEOMETRY: u8 = 255;
}

/// One column, as the log lays it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MapColumn {
    /// The type; ENUM and SET where the log says STRING and means them.
    pub(super) code: u8,
    /// What the type needs to know: lengths, precision and scale, digits of seconds.
    pub(super) meta: u16,
    pub(super) nullable: bool,
    pub(super) unsigned: Option<bool>,
    /// The number of its collation.
    pub(super) collation: Option<u64>,
    pub(super) name: Option<String>,
    /// Of an ENUM or SET, in its own character set.
    pub(super) members: Option<Vec<Vec<u8>>>,
    /// How many numbers a VECTOR has at most.
    pub(super) dimensions: Option<usize>,
}

/// A table map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TableMap {
    pub(super) database: String,
    pub(super) table: String,
    pub(super) columns: Vec<MapColumn>,
    /// Places of the primary key's columns, in its order. None if the log did not tell whether there is one.
    pub(super) key: Option<Vec<usize>>,
}

/// The table's id, and the bytes after its flags, which are the same as long as the table looks the same.
pub(super) fn split(body: &[u8]) -> Result<(u64, &[u8]), Malformed> {
    let mut bytes = Bytes(body);
    let id = bytes.uint(6)?;
    bytes.u16()?;
    Ok((id, bytes.0))
}

impl TableMap {
    /// Reads what [`split`] returned.
    pub(super) fn read(form: &[u8], mariadb: bool) -> Result<TableMap, Malformed> {
        let mut bytes = Bytes(form);
        let database = name(&mut bytes)?;
        let table = name(&mut bytes)?;
        let count = bytes.packed()?;
        let codes = bytes.take(count)?;
        let mut metas = Bytes(bytes.counted()?);
        let nullable = bytes.take(count.div_ceil(8))?;
        let mut columns = Vec::with_capacity(count);
        for (at, &code) in codes.iter().enumerate() {
            let (code, meta) = meta(code, &mut metas)?;
            let nullable = bit(nullable, at);
            columns.push(MapColumn {
                code,
                meta,
                nullable,
                unsigned: None,
                collation: None,
                name: None,
                members: None,
                dimensions: None,
            });
        }
        let mut map = TableMap { database, table, columns, key: None };
        let named = !bytes.is_empty() && map.optional(bytes, mariadb)?;
        // With full metadata a table without a key says nothing of a key.
        if named && map.key.is_none() {
            map.key = Some(Vec::new());
        }
        Ok(map)
    }

    /// Reads the optional metadata; answers whether it names the columns.
    fn optional(&mut self, mut bytes: Bytes<'_>, mariadb: bool) -> Result<bool, Malformed> {
        let mut named = false;
        // MySQL counts vectors among them, and MariaDB geometry.
        let also = if mariadb { code::GEOMETRY } else { code::VECTOR };
        let texts = |column: &MapColumn| is_text(column.code) || column.code == also;
        let choices = |column: &MapColumn| matches!(column.code, code::ENUM | code::SET);
        while !bytes.is_empty() {
            let kind = bytes.u8()?;
            let mut value = Bytes(bytes.counted()?);
            match kind {
                1 => {
                    // One bit per numeric column, the highest first.
                    let numeric = self.columns.iter_mut().filter(|column| is_numeric(column.code));
                    for (at, column) in numeric.enumerate() {
                        column.unsigned = value.0.get(at / 8).map(|byte| byte & (0x80 >> (at % 8)) != 0);
                    }
                }
                2 => self.default_collation(&mut value, texts)?,
                3 => self.collations(&mut value, texts)?,
                4 => {
                    named = true;
                    for column in &mut self.columns {
                        column.name = Some(String::from_utf8_lossy(value.counted()?).into_owned());
                    }
                }
                5 | 6 => {
                    let wanted = if kind == 5 { code::SET } else { code::ENUM };
                    for column in self.columns.iter_mut().filter(|column| column.code == wanted) {
                        let count = value.packed()?;
                        let mut members = Vec::with_capacity(count.min(64));
                        for _ in 0..count {
                            members.push(value.counted()?.to_vec());
                        }
                        column.members = Some(members);
                    }
                }
                8 | 9 => {
                    let mut key = Vec::new();
                    while !value.is_empty() {
                        let place = value.packed()?;
                        if place >= self.columns.len() {
                            return Err(Malformed("a key's column"));
                        }
                        key.push(place);
                        // How many characters of it are in the key; the key that is captured holds all of them.
                        if kind == 9 {
                            value.packed()?;
                        }
                    }
                    self.key = Some(key);
                }
                10 => self.default_collation(&mut value, choices)?,
                11 => self.collations(&mut value, choices)?,
                13 => {
                    for column in self.columns.iter_mut().filter(|column| column.code == code::VECTOR) {
                        column.dimensions = Some(value.packed()?);
                    }
                }
                // Kinds of geometry, visibility: nothing that images need.
                _ => {}
            }
        }
        Ok(named)
    }

    /// A default, and pairs of a column (counted among those that have a character set) and its collation.
    fn default_collation(&mut self, value: &mut Bytes<'_>, has: impl Fn(&MapColumn) -> bool) -> Result<(), Malformed> {
        let default = value.packed()? as u64;
        let mut places: Vec<&mut MapColumn> = self.columns.iter_mut().filter(|column| has(column)).collect();
        for column in &mut places {
            column.collation = Some(default);
        }
        while !value.is_empty() {
            let (place, collation) = (value.packed()?, value.packed()? as u64);
            places.get_mut(place).ok_or(Malformed("a column's collation"))?.collation = Some(collation);
        }
        Ok(())
    }

    fn collations(&mut self, value: &mut Bytes<'_>, has: impl Fn(&MapColumn) -> bool) -> Result<(), Malformed> {
        for column in self.columns.iter_mut().filter(|column| has(column)) {
            column.collation = Some(value.packed()? as u64);
        }
        Ok(())
    }
}

fn name(bytes: &mut Bytes<'_>) -> Result<String, Malformed> {
    let length = usize::from(bytes.u8()?);
    let name = String::from_utf8_lossy(bytes.take(length)?).into_owned();
    bytes.u8()?;
    Ok(name)
}

/// A type's code and metadata. STRING hides ENUM and SET, and lengths of more than 255 bytes, in its two bytes.
fn meta(kind: u8, metas: &mut Bytes<'_>) -> Result<(u8, u16), Malformed> {
    Ok(match kind {
        code::FLOAT | code::DOUBLE | code::TINY_BLOB | code::BLOB | code::MEDIUM_BLOB | code::LONG_BLOB => {
            (kind, u16::from(metas.u8()?))
        }
        code::GEOMETRY | code::JSON | code::VECTOR | code::BLOB_COMPRESSED => (kind, u16::from(metas.u8()?)),
        code::TIME2 | code::DATETIME2 | code::TIMESTAMP2 => (kind, u16::from(metas.u8()?)),
        code::VARCHAR | code::VARCHAR_COMPRESSED | code::BIT => (kind, metas.u16()?),
        code::NEWDECIMAL => {
            let (precision, scale) = (metas.u8()?, metas.u8()?);
            (kind, u16::from_be_bytes([precision, scale]))
        }
        code::STRING | code::VAR_STRING | code::ENUM | code::SET => {
            let (first, second) = (metas.u8()?, metas.u8()?);
            match first {
                code::ENUM | code::SET => (first, u16::from(second)),
                // Two more bits of the length, turned over, in bits 4 and 5 of the type.
                _ if first & 0x30 != 0x30 => (first | 0x30, u16::from(second) | u16::from(!first & 0x30) << 4),
                _ => (first, u16::from(second)),
            }
        }
        code::DECIMAL | code::NULL | 20..=139 | 142..=241 | 243 | 244 => {
            return Err(Malformed("a type that is not known"));
        }
        _ => (kind, 0),
    })
}

fn is_numeric(kind: u8) -> bool {
    matches!(
        kind,
        code::TINY
            | code::SHORT
            | code::INT24
            | code::LONG
            | code::LONGLONG
            | code::NEWDECIMAL
            | code::FLOAT
            | code::DOUBLE
            | code::YEAR
    )
}

fn is_text(kind: u8) -> bool {
    matches!(
        kind,
        code::STRING
            | code::VAR_STRING
            | code::VARCHAR
            | code::VARCHAR_COMPRESSED
            | code::BLOB
            | code::TINY_BLOB
            | code::MEDIUM_BLOB
            | code::LONG_BLOB
            | code::BLOB_COMPRESSED
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn full_metadata_of_mariadb_tells_names_signs_collations_members_and_the_key() {
        // `create table a(id int unsigned primary key, v varchar(10) character set latin1, e enum('x','y'),
        // s set('p','q'), j json, g geometry, b bit(10), u uuid, i6 inet6, i4 inet4, bn binary(4), c char(5),
        // gv int as (id+1) virtual, gs int as (id+2) stored, bo boolean, f float, dc decimal(10,2),
        // cp text compressed, vcp varchar(200) compressed)`, as MariaDB 10.11 wrote it.
        let body = "12 00 00 00 00 00 01 00 01 64 00 01 61 00 13 03 0f fe fe fc ff 10 fe fe fe fe fe 03 03 01 04 f6 8c 8d \
            1a 0a 00 f7 01 f8 01 04 04 02 01 fe 10 fe 10 fe 04 fe 04 fe 05 04 0a 02 02 c9 00 fe ff 07 01 01 80 03 0a 08 \
            2e 3f 3f 3f 3f 3f 08 08 08 07 01 00 04 31 02 69 64 01 76 01 65 01 73 01 6a 01 67 01 62 01 75 02 69 36 02 69 \
            34 02 62 6e 01 63 02 67 76 02 67 73 02 62 6f 01 66 02 64 63 02 63 70 03 76 63 70 0a 01 08 05 05 02 01 70 01 \
            71 06 05 02 01 78 01 79 08 01 00";
        let body: Vec<u8> = body.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        let (id, form) = split(&body).unwrap();
        let map = TableMap::read(form, true).unwrap();
        assert_eq!((id, map.database.as_str(), map.table.as_str()), (0x12, "d", "a"));
        assert_eq!(map.key, Some(vec![0]));
        let names: Vec<&str> = map.columns.iter().map(|column| column.name.as_deref().unwrap()).collect();
        let expected = "id v e s j g b u i6 i4 bn c gv gs bo f dc cp vcp";
        assert_eq!(names.join(" "), expected);
        let unsigned: Vec<Option<bool>> = map.columns.iter().map(|column| column.unsigned).collect();
        assert_eq!((unsigned[0], unsigned[1], unsigned[12]), (Some(true), None, Some(false)));
        let collations: Vec<Option<u64>> = map.columns.iter().map(|column| column.collation).collect();
        assert_eq!(&collations[1..5], [Some(8), Some(8), Some(8), Some(46)]);
        assert_eq!(&collations[6..12], [None, Some(63), Some(63), Some(63), Some(63), Some(8)]);
        assert_eq!(map.columns[2].members, Some(vec![b"x".to_vec(), b"y".to_vec()]));
        assert_eq!(map.columns[3].members, Some(vec![b"p".to_vec(), b"q".to_vec()]));
        assert_eq!((map.columns[2].code, map.columns[2].meta), (code::ENUM, 1));
        assert_eq!((map.columns[11].code, map.columns[11].meta), (code::STRING, 5));
        assert_eq!((map.columns[16].code, map.columns[16].meta), (code::NEWDECIMAL, 10 << 8 | 2));
        assert!(!map.columns[0].nullable && map.columns[18].nullable);
        for end in 0..form.len() {
            // A cut of the optional part may end between two of its fields; nowhere may it panic.
            let _ = TableMap::read(&form[..end], true);
        }
    }

    #[test]
    fn a_long_char_column_keeps_its_length_in_its_type() {
        // char(255) of a character set with four bytes each: 1,020 bytes.
        let form = [1, b'd', 0, 1, b't', 0, 1, 0xfe, 2, 0xce, 0xfc, 0];
        let map = TableMap::read(&form, true).unwrap();
        assert_eq!((map.columns[0].code, map.columns[0].meta), (code::STRING, 1020));
        assert_eq!(map.key, None);
    }
}
