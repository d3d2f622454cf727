//! NDJSON: a stream of bytes becomes lines, with bounded memory whatever is sent.

use std::ops::Range;

use crate::Limits;
use crate::insert_body::trim;

/// Cuts a stream into lines. Give it bytes, take lines until there are none, and so on; give it the end, and take the
/// rest. What lines come does not depend on how the stream was cut into chunks.
///
/// It holds at most one line of the longest length and the chunk that was pushed last, as long as every line is taken
/// before the next push.
#[derive(Debug)]
pub struct LineSplitter {
    max_line_bytes: usize,
    held: Vec<u8>,
    /// Where the first line that was not taken begins.
    start: usize,
    /// Up to where there is no line's end.
    searched: usize,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Within a line that may still be a row.
    Collecting,
    /// Within a line that was reported as too long.
    Skipping,
}

/// One line that is not blank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// A row, or what stands in its place: the engine judges it. Without white space around it.
    Row(&'a [u8]),
    /// A line that is longer than a row may be. It was skipped, and the next one is fine.
    TooLong,
}

impl LineSplitter {
    /// A splitter at the beginning of a stream.
    pub fn new(limits: &Limits) -> Self {
        Self { max_line_bytes: limits.max_row_bytes, held: Vec::new(), start: 0, searched: 0, state: State::Collecting }
    }

    /// Takes the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.held.drain(..self.start);
        self.searched -= self.start;
        self.start = 0;
        self.held.extend_from_slice(bytes);
    }

    /// Takes the end of the stream: the last line need not have one of its own. Not for a stream that broke off, whose
    /// last line may be half of one.
    pub fn end(&mut self) {
        self.push(b"\n");
    }

    /// The next line that is complete; none if more bytes are needed.
    pub fn next_line(&mut self) -> Option<Line<'_>> {
        Some(match self.advance()? {
            Found::Row(range) => Line::Row(&self.held[range]),
            Found::TooLong => Line::TooLong,
        })
    }

    fn advance(&mut self) -> Option<Found> {
        loop {
            let Some(end) = memchr::memchr(b'\n', &self.held[self.searched..]) else {
                self.searched = self.held.len();
                return self.skip_if_too_long();
            };
            let end = self.searched + end;
            let line = self.start..end;
            self.start = end + 1;
            self.searched = self.start;
            if self.state == State::Skipping {
                self.state = State::Collecting;
                continue;
            }
            let text = self.held[line.clone()].strip_suffix(b"\r").unwrap_or(&self.held[line.clone()]);
            if text.len() > self.max_line_bytes {
                return Some(Found::TooLong);
            }
            let row = trim(text);
            if !row.is_empty() {
                // `row` lies within `held`, so the difference of the addresses is its place there.
                let at = row.as_ptr().addr() - self.held.as_ptr().addr();
                return Some(Found::Row(at..at + row.len()));
            }
        }
    }

    /// Of a line without an end yet: gives it up once nothing that follows can make it short enough. One more byte
    /// than the longest row may still be the `\r` of its end.
    fn skip_if_too_long(&mut self) -> Option<Found> {
        let too_long = self.held.len() - self.start > self.max_line_bytes + 1;
        let found = (too_long && self.state == State::Collecting).then_some(Found::TooLong);
        if too_long {
            self.state = State::Skipping;
        }
        if self.state == State::Skipping {
            self.start = self.held.len();
        }
        found
    }
}

enum Found {
    Row(Range<usize>),
    TooLong,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of a stream that arrives in chunks of the given size.
    fn split(stream: &[u8], chunk: usize, max: usize) -> Vec<Option<Vec<u8>>> {
        let mut lines = LineSplitter::new(&Limits { max_row_bytes: max, ..Limits::default() });
        let mut found = Vec::new();
        let mut take = |lines: &mut LineSplitter| {
            while let Some(line) = lines.next_line() {
                found.push(match line {
                    Line::Row(row) => Some(row.to_vec()),
                    Line::TooLong => None,
                });
            }
        };
        for bytes in stream.chunks(chunk) {
            lines.push(bytes);
            take(&mut lines);
            assert!(lines.held.len() <= max + 1 + chunk);
        }
        lines.end();
        take(&mut lines);
        found
    }

    #[test]
    fn lines_are_the_same_however_the_stream_is_cut() {
        let stream =
            b"{\"a\":1}\r\n\n \t\r\n {\"b\":2} \n123456789\n12345678\r\n123456789\r\n          \n\r{\n{\"c\":3}";
        let row = |text: &str| Some(text.as_bytes().to_vec());
        let expected = [row("{\"a\":1}"), None, None, row("12345678"), None, None, row("{"), row("{\"c\":3}")];
        for chunk in 1..=stream.len() {
            assert_eq!(split(stream, chunk, 8), expected, "in chunks of {chunk}");
        }
    }

    #[test]
    fn nothing_and_blank_lines_are_no_rows() {
        for stream in [&b""[..], b"\n", b"\r\n\r\n", b"  \n\t"] {
            assert_eq!(split(stream, 1, 8), []);
        }
    }

    #[test]
    fn a_line_without_end_is_reported_once_and_not_kept() {
        let mut lines = LineSplitter::new(&Limits { max_row_bytes: 1000, ..Limits::default() });
        let mut reported = 0;
        for _ in 0..10_000 {
            lines.push(&[b'x'; 100]);
            while let Some(line) = lines.next_line() {
                assert_eq!(line, Line::TooLong);
                reported += 1;
            }
            assert!(lines.held.capacity() <= 4096);
        }
        lines.push(b"\n{}\n");
        assert_eq!(lines.next_line(), Some(Line::Row(b"{}")));
        assert_eq!(reported, 1);
    }

    #[test]
    fn an_incomplete_line_waits_for_its_rest() {
        let mut lines = LineSplitter::new(&Limits::default());
        lines.push(b"{\"a\"");
        assert_eq!(lines.next_line(), None);
        lines.push(b":1}\n{");
        assert_eq!(lines.next_line(), Some(Line::Row(b"{\"a\":1}")));
        assert_eq!(lines.next_line(), None);
    }
}
