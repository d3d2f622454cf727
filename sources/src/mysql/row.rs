//! Rows of the log and of answers, turned into images and keys.

use std::ops::Range;

use mysql_async::Value;

use super::bytes::{Bytes, Malformed, bit};
use super::cell::Cell;
use super::form::Form;
use super::table_map::{MapColumn, code};
use crate::rules::Treatment;

/// What could be read of a row.
#[derive(Debug, Default)]
pub(super) struct Row {
    /// The columns that were there, as a JSON object in column order.
    pub(super) image: String,
    /// The key's columns; those that were not there are None.
    pub(super) key: Vec<Option<String>>,
    /// Places of captured columns that were not there.
    pub(super) missing: Vec<usize>,
    /// Where each captured column's member stands in `image`; kept only if the row is not whole.
    members: Vec<(usize, Range<usize>)>,
}

impl Row {
    /// Takes the key out of the row, if all of it was there.
    pub(super) fn take_key(&mut self) -> Option<Vec<String>> {
        std::mem::take(&mut self.key).into_iter().collect()
    }

    /// Takes what this row lacks from another, which is the same row as it was: what the log leaves out of an image
    /// after a change is what did not change. What neither has stays missing.
    pub(super) fn complete_from(&mut self, before: &Row) {
        for (part, old) in self.key.iter_mut().zip(&before.key) {
            if part.is_none() {
                part.clone_from(old);
            }
        }
        if self.missing.is_empty() {
            return;
        }
        let mut members: Vec<(usize, &str)> =
            self.members.iter().map(|(place, at)| (*place, &self.image[at.clone()])).collect();
        let mut missing = Vec::new();
        for &place in &self.missing {
            match before.members.iter().find(|(other, _)| *other == place) {
                Some((_, at)) => members.push((place, &before.image[at.clone()])),
                None => missing.push(place),
            }
        }
        members.sort_unstable_by_key(|(place, _)| *place);
        let mut image = String::with_capacity(self.image.len() + before.image.len());
        for (_, member) in &members {
            image.push(if image.is_empty() { '{' } else { ',' });
            image.push_str(member);
        }
        close(&mut image);
        self.image = image;
        self.missing = missing;
    }
}

fn close(image: &mut String) {
    if image.is_empty() {
        image.push('{');
    }
    image.push('}');
}

/// Reads one row of a rows event. `capacity` is how long its image may become; `whole` says that every column is
/// there.
#[inline]
pub(super) fn read(
    form: &Form,
    bytes: &mut Bytes<'_>,
    present: &[u8],
    whole: bool,
    capacity: usize,
) -> Result<Row, Malformed> {
    let here = |at| whole || bit(present, at);
    let count = if whole { form.columns.len() } else { (0..form.columns.len()).filter(|&at| here(at)).count() };
    let nulls = bytes.take(count.div_ceil(8))?;
    let mut row = Row { image: String::with_capacity(capacity), key: vec![None; form.key.len()], ..Row::default() };
    let mut scratch = Vec::new();
    let mut seen = 0;
    for (at, column) in form.columns.iter().enumerate() {
        if !here(at) {
            if column.treatment != Treatment::LeaveOut {
                row.missing.push(at);
            }
            continue;
        }
        let null = bit(nulls, seen);
        seen += 1;
        let cell = if null { Cell::Null } else { column.codec.read(bytes, &mut scratch)? };
        if let Some(place) = column.key {
            row.key[place] = Some(form.key_text(column, &cell)?);
        }
        if column.treatment != Treatment::LeaveOut {
            let start = row.image.len() + 1;
            form.write(column, &cell, &mut row.image)?;
            // Rows that are not whole are completed from each other.
            if !whole {
                row.members.push((at, start..row.image.len()));
            }
        }
    }
    close(&mut row.image);
    Ok(row)
}

/// Takes a row of an answer, whose columns are those of the form that are captured, and in its key, in order.
pub(super) fn take(form: &Form, values: &[Value], capacity: usize) -> Result<(String, Vec<String>), Malformed> {
    let mut image = String::with_capacity(capacity);
    let mut key = vec![String::new(); form.key.len()];
    let captured = form.columns.iter().filter(|column| column.treatment != Treatment::LeaveOut);
    let mut values = values.iter();
    for column in captured {
        let cell = column.codec.take(values.next().ok_or(Malformed("an answer with too few columns"))?)?;
        if let Some(place) = column.key {
            key[place] = form.key_text(column, &cell)?;
        }
        form.write(column, &cell, &mut image)?;
    }
    close(&mut image);
    Ok((image, key))
}

/// How many rows an event of a table has that is not captured, so that rows are counted alike whatever is captured.
pub(super) fn count(
    columns: &[MapColumn],
    values: &[u8],
    present: &[u8],
    present_after: Option<&[u8]>,
) -> Result<u64, Malformed> {
    let mut bytes = Bytes(values);
    let mut rows = 0;
    while !bytes.is_empty() {
        skip(columns, &mut bytes, present)?;
        if let Some(present) = present_after {
            skip(columns, &mut bytes, present)?;
        }
        rows += 1;
    }
    Ok(rows)
}

fn skip(columns: &[MapColumn], bytes: &mut Bytes<'_>, present: &[u8]) -> Result<(), Malformed> {
    let here = columns.iter().enumerate().filter(|(at, _)| bit(present, *at));
    let count = here.clone().count();
    if count == 0 {
        return Err(Malformed("a row without columns"));
    }
    let nulls = bytes.take(count.div_ceil(8))?;
    for (seen, (_, column)) in here.enumerate() {
        if bit(nulls, seen) {
            continue;
        }
        let meta = usize::from(column.meta);
        let digits = meta.min(6).div_ceil(2);
        let length = match column.code {
            code::TINY | code::YEAR => 1,
            code::SHORT => 2,
            code::INT24 | code::DATE | code::NEWDATE | code::TIME => 3,
            code::LONG | code::FLOAT | code::TIMESTAMP => 4,
            code::LONGLONG | code::DOUBLE | code::DATETIME => 8,
            code::TIME2 => 3 + digits,
            code::TIMESTAMP2 => 4 + digits,
            code::DATETIME2 => 5 + digits,
            code::BIT => (meta >> 8) + usize::from(meta & 0xff > 0),
            code::ENUM | code::SET => meta,
            code::NEWDECIMAL => {
                const BYTES: [usize; 10] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];
                let (precision, scale) = (meta >> 8, meta & 0xff);
                let whole = precision.checked_sub(scale).ok_or(Malformed("a decimal"))?;
                whole / 9 * 4 + BYTES[whole % 9] + scale / 9 * 4 + BYTES[scale % 9]
            }
            code::VARCHAR | code::VARCHAR_COMPRESSED | code::STRING | code::VAR_STRING => {
                bytes.uint(if meta > 255 { 2 } else { 1 })? as usize
            }
            _ => bytes.uint(meta)? as usize,
        };
        bytes.take(length)?;
    }
    Ok(())
}
