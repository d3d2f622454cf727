//! Rows packed together: what the tree of row state stores under one key.
//!
//! A tree that stored each row by itself would fill its pages by half and compress nothing. A page here is a run of
//! neighbouring rows, about [`TARGET`] bytes, lz4-packed.
//!
//! ```text
//! u8 0: rows as they are; 1: LEB128 length and the rows as an lz4 block
//! rows: key and image, each a LEB128 length and the bytes, ascending by key
//! ```

use bytes::Bytes;

use super::Row;
use super::log::codec::{Reader, put_bytes, put_number};
use super::log::frame::Damage;

/// Unpacked size that a page is cut to: larger packs better, smaller reads faster.
pub(crate) const TARGET: usize = 3072;

/// Unpacks a page.
pub(crate) fn unpack(page: &[u8]) -> Result<Bytes, Damage> {
    let mut reader = Reader { bytes: page, at: 0 };
    match reader.byte()? {
        0 => Ok(Bytes::copy_from_slice(&page[1..])),
        1 => {
            let len = reader.number()? as usize;
            let packed = &page[reader.at..];
            if len / 255 > packed.len() {
                return Err(Damage("a page claims to unpack to more than it can"));
            }
            let rows = lz4_flex::block::decompress(packed, len).map_err(|_| Damage("a page cannot be unpacked"))?;
            Ok(Bytes::from(rows))
        }
        _ => Err(Damage("a page is packed in an unknown way")),
    }
}

fn pack(rows: &[u8]) -> Vec<u8> {
    let mut page = vec![1];
    put_number(&mut page, rows.len() as u64);
    let start = page.len();
    page.resize(start + lz4_flex::block::get_maximum_output_size(rows.len()), 0);
    match lz4_flex::block::compress_into(rows, &mut page[start..]) {
        Ok(packed) if start + packed < rows.len() => page.truncate(start + packed),
        _ => {
            page.clear();
            page.push(0);
            page.extend_from_slice(rows);
        }
    }
    page
}

/// Key and image.
pub(crate) type PackedRow<'a> = (&'a [u8], &'a [u8]);

/// The next row of an unpacked page.
pub(crate) fn next_row<'a>(reader: &mut Reader<'a>) -> Result<Option<PackedRow<'a>>, Damage> {
    if reader.at >= reader.bytes.len() {
        return Ok(None);
    }
    Ok(Some((reader.bytes()?, reader.bytes()?)))
}

/// Looks a row up in an unpacked page, from the row at `from` on; answers with it where the first row stands whose key is
/// not smaller, from where a larger key is found too.
pub(crate) fn find(rows: &Bytes, from: usize, key: &[u8]) -> Result<(Option<Bytes>, usize), Damage> {
    let mut reader = Reader { bytes: rows, at: from };
    let mut at = from;
    while let Some((found, image)) = next_row(&mut reader)? {
        match found.cmp(key) {
            std::cmp::Ordering::Less => at = reader.at,
            std::cmp::Ordering::Equal => return Ok((Some(rows.slice_ref(image)), at)),
            std::cmp::Ordering::Greater => break,
        }
    }
    Ok((None, at))
}

/// The rows of an unpacked page after a key.
pub(crate) fn rows_after(rows: &Bytes, after: Option<&[u8]>, out: &mut Vec<Row>) -> Result<(), Damage> {
    let mut reader = Reader { bytes: rows, at: 0 };
    while let Some((key, image)) = next_row(&mut reader)? {
        if after.is_none_or(|after| key > after) {
            out.push(Row { key: rows.slice_ref(key), image: rows.slice_ref(image) });
        }
    }
    Ok(())
}

/// Packs rows, ascending, into pages: each with its first key.
pub(crate) fn pack_rows<'a>(rows: &[PackedRow<'a>]) -> Vec<(&'a [u8], Vec<u8>)> {
    let size = |(key, image): &(&[u8], &[u8])| key.len() + image.len() + 4;
    let total: usize = rows.iter().map(size).sum();
    // Even shares, so that no small rest is left over.
    let share = total / (total / TARGET).max(1) + 1;
    let mut pages = Vec::new();
    let mut buffer = Vec::with_capacity(share + 256);
    let mut first: Option<&[u8]> = None;
    for (key, image) in rows {
        if !buffer.is_empty() && buffer.len() + (key.len() + image.len()) / 2 > share {
            pages.push((first.unwrap_or_default(), pack(&buffer)));
            buffer.clear();
            first = None;
        }
        first.get_or_insert(key);
        put_bytes(&mut buffer, key);
        put_bytes(&mut buffer, image);
    }
    if let Some(first) = first {
        pages.push((first, pack(&buffer)));
    }
    pages
}
