//! Rows of the log and of answers, turned into images and keys.

use std::ops::Range;

use mysql_async::Value;

use super::bytes::{Bytes, Malformed, bit};
use super::cell::{Cell, Moment};
use super::event::Rows;
use super::form::Form;
use super::json_diff;
use super::table_map::{MapColumn, code};
use crate::rules::Treatment;

/// Why a row of an update could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RowProblem {
    Malformed(Malformed),
    /// The log tells only what changed in this column's JSON, and not what it was.
    NoDocument(String),
}

impl From<Malformed> for RowProblem {
    fn from(problem: Malformed) -> RowProblem {
        RowProblem::Malformed(problem)
    }
}

/// What could be read of a row.
#[derive(Debug, Default)]
pub(super) struct Row {
    /// The columns that were there, as a JSON object in column order.
    pub(super) image: String,
    /// The key's columns; those that were not there are None.
    pub(super) key: Vec<Option<String>>,
    /// Places of captured columns that were not there.
    pub(super) missing: Vec<usize>,
    /// It is not the present row: the table keeps those that were.
    pub(super) past: bool,
    /// Where each captured column's member stands in `image`; kept only if the row is not whole.
    members: Vec<(usize, Range<usize>)>,
}

impl Row {
    /// Adds a column that is there.
    fn put(&mut self, form: &Form, at: usize, cell: &Cell<'_>) -> Result<(), Malformed> {
        let column = &form.columns[at];
        if let Some(place) = column.key {
            self.key[place] = Some(form.key_text(column, cell)?);
        }
        if column.treatment != Treatment::LeaveOut {
            let start = self.image.len() + 1;
            form.write(column, cell, &mut self.image)?;
            self.members.push((at, start..self.image.len()));
        }
        Ok(())
    }

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
        if form.end == Some(at) {
            row.past = !is_endless(&cell);
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

/// Reads both rows of an update whose JSON may be told by what changed (`PARTIAL_UPDATE_ROWS_EVENT`, MySQL 8.0.3 and
/// later with `binlog_row_value_options=PARTIAL_JSON`): between the two stand options, whose lowest bit says that a
/// bitmap follows, with a bit for every JSON column of the table, whether in the rows or not; it is set where the row
/// after holds differences. (MySQL's `Rows_event` documentation, "shared-image".)
pub(super) fn read_partial(
    form: &Form,
    bytes: &mut Bytes<'_>,
    present: &[u8],
    present_after: &[u8],
    capacity: usize,
) -> Result<(Row, Row), RowProblem> {
    let mut documents = Bytes(bytes.0);
    let before = read(form, bytes, present, false, capacity)?;
    // The documents as they were, found again in the bytes of the row that has just been read.
    let nulls = count_of(form, present).div_ceil(8);
    let nulls = documents.take(nulls)?;
    let mut scratch = Vec::new();
    let mut known: Vec<Option<&[u8]>> = vec![None; form.columns.len()];
    for (seen, at) in (0..form.columns.len()).filter(|&at| bit(present, at)).enumerate() {
        if bit(nulls, seen) {
            continue;
        }
        let codec = &form.columns[at].codec;
        match codec.document(&mut documents)? {
            Some(document) => known[at] = Some(document),
            None => {
                codec.read(&mut documents, &mut scratch)?;
            }
        }
    }

    let options = bytes.packed()?;
    if options > 1 {
        return Err(Malformed("an update with values in a form that is not known").into());
    }
    let json = |at: &usize| form.columns[*at].codec.is_json();
    let columns: Vec<usize> = (0..form.columns.len()).filter(json).collect();
    let partial = bytes.take(if options & 1 != 0 { columns.len().div_ceil(8) } else { 0 })?;
    let differs = |at: usize| columns.iter().position(|&column| column == at).is_some_and(|place| bit(partial, place));

    let nulls = bytes.take(count_of(form, present_after).div_ceil(8))?;
    let mut after = Row { image: String::with_capacity(capacity), key: vec![None; form.key.len()], ..Row::default() };
    let mut seen = 0;
    for (at, column) in form.columns.iter().enumerate() {
        if !bit(present_after, at) {
            if column.treatment != Treatment::LeaveOut {
                after.missing.push(at);
            }
            continue;
        }
        let null = bit(nulls, seen);
        seen += 1;
        let cell = match (null, differs(at)) {
            (true, _) => Cell::Null,
            (false, false) => column.codec.read(bytes, &mut scratch)?,
            (false, true) => {
                let differences = column.codec.document(bytes)?.ok_or(Malformed("differences of what is no JSON"))?;
                if column.treatment == Treatment::LeaveOut {
                    continue;
                }
                let document = known[at].ok_or_else(|| RowProblem::NoDocument(column.name.clone()))?;
                scratch = json_diff::apply(document, differences)?.into_bytes();
                Cell::Bytes(&scratch)
            }
        };
        after.put(form, at, &cell)?;
    }
    close(&mut after.image);
    Ok((before, after))
}

fn count_of(form: &Form, present: &[u8]) -> usize {
    (0..form.columns.len()).filter(|&at| bit(present, at)).count()
}

/// Whether a row with this end is the present one: the last moment that the type has (which servers of 64 bits moved),
/// or the last transaction.
fn is_endless(end: &Cell<'_>) -> bool {
    let last = |seconds| Cell::Moment(Moment::from_seconds(seconds, 999_999));
    *end == Cell::Uint(u64::MAX) || *end == last(0x7fff_ffff) || *end == last(0xffff_ffff)
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
    partial: bool,
) -> Result<u64, Malformed> {
    let mut bytes = Bytes(values);
    let mut rows = 0;
    while !bytes.is_empty() {
        skip(columns, &mut bytes, present)?;
        if let Some(present) = present_after {
            if partial {
                pass_partial(columns, &mut bytes)?;
            }
            skip(columns, &mut bytes, present)?;
        }
        rows += 1;
    }
    Ok(rows)
}

/// What the rows of an event of updates changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changed {
    /// Places of columns that some row changed.
    pub(super) places: Vec<usize>,
    /// Some row may have become a past one: of a table with system versioning, rows are deleted so.
    pub(super) ended: bool,
}

/// Finds what an event of updates changed, of any table: of those that are not captured no more is known than how their
/// rows are laid out.
pub(super) fn changed(columns: &[MapColumn], rows: &Rows<'_>) -> Result<Changed, Malformed> {
    let mut bytes = Bytes(&rows.values);
    let mut changed = vec![false; columns.len()];
    let mut ended = false;
    while !bytes.is_empty() {
        let mut before = vec![None; columns.len()];
        pass(columns, &mut bytes, rows.present, |at, value| before[at] = Some(value))?;
        if rows.partial {
            pass_partial(columns, &mut bytes)?;
        }
        pass(columns, &mut bytes, rows.present_after, |at, value| {
            // What was not told before is not known to be the same.
            changed[at] |= before[at].is_none_or(|before| before != value);
            let was_endless = before[at].is_none_or(|before| may_be_endless(&columns[at], before));
            ended |= was_endless && may_be_an_end(&columns[at]) && !may_be_endless(&columns[at], value);
        })?;
    }
    Ok(Changed { places: (0..columns.len()).filter(|&at| changed[at]).collect(), ended })
}

/// Whether a column is of a type that ends of rows have.
fn may_be_an_end(column: &MapColumn) -> bool {
    !column.nullable && ((column.code == code::TIMESTAMP2 && column.meta == 6) || column.code == code::LONGLONG)
}

/// Whether this is the end of a present row, if the column has ends; see `is_endless`.
fn may_be_endless(column: &MapColumn, bytes: Option<&[u8]>) -> bool {
    const MICROS: [u8; 3] = [0x0f, 0x42, 0x3f];
    match (column.code, bytes) {
        (code::TIMESTAMP2, Some([seconds @ .., a, b, c])) => {
            [*a, *b, *c] == MICROS && matches!(seconds, [0x7f | 0xff, 0xff, 0xff, 0xff])
        }
        (code::LONGLONG, Some(bytes)) => bytes.iter().all(|&byte| byte == 0xff),
        _ => false,
    }
}

/// Passes what says which values of the row that follows are differences; these are as long as they say, like the
/// documents that they stand for.
fn pass_partial(columns: &[MapColumn], bytes: &mut Bytes<'_>) -> Result<(), Malformed> {
    if bytes.packed()? & 1 != 0 {
        bytes.take(columns.iter().filter(|column| column.code == code::JSON).count().div_ceil(8))?;
    }
    Ok(())
}

fn skip(columns: &[MapColumn], bytes: &mut Bytes<'_>, present: &[u8]) -> Result<(), Malformed> {
    pass(columns, bytes, present, |_, _| {})
}

/// Passes one row; tells the bytes of each of its columns, none for a null.
fn pass<'a>(
    columns: &[MapColumn],
    bytes: &mut Bytes<'a>,
    present: &[u8],
    mut told: impl FnMut(usize, Option<&'a [u8]>),
) -> Result<(), Malformed> {
    let here = columns.iter().enumerate().filter(|(at, _)| bit(present, *at));
    let count = here.clone().count();
    if count == 0 {
        return Err(Malformed("a row without columns"));
    }
    let nulls = bytes.take(count.div_ceil(8))?;
    for (seen, (at, column)) in here.enumerate() {
        if bit(nulls, seen) {
            told(at, None);
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
        told(at, Some(bytes.take(length)?));
    }
    Ok(())
}
