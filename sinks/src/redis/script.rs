//! The script that writes entries and the place as one, and its call.

use cdc_rest::envelope::Tombstones;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisError, RedisResult};

use super::{Known, RedisSink};
use crate::written::{DIGEST_BYTES, digest};
use crate::{Event, render};

/// Keys: the place, then streams. Arguments: the count of calls that is expected, the epoch, the length that streams
/// are cut to (empty for none), the digests of all rows, whether the place moves, and then for each entry the number of
/// its key, the sequence number of the last event that is whole with it (empty for none), how many of these are rows, and
/// how many texts of fields follow. Answers how many entries are written, -1 if the place has moved, and which key was
/// refused why.
const SCRIPT: &str = "\
local writes = redis.call('HGET', KEYS[1], 'writes') or ''
if writes ~= ARGV[1] then return {-1, '', ''} end
local at, done, sequence, rows, refused, why = 6, 0, '', '0', '', ''
while at <= #ARGV do
  local length = tonumber(ARGV[at + 3])
  local key, answer = KEYS[tonumber(ARGV[at])]
  if ARGV[3] == '' then
    answer = redis.pcall('XADD', key, '*', unpack(ARGV, at + 4, at + 3 + length))
  else
    answer = redis.pcall('XADD', key, 'MAXLEN', '~', ARGV[3], '*', unpack(ARGV, at + 4, at + 3 + length))
  end
  if type(answer) == 'table' and answer.err then
    refused, why = key, answer.err
    break
  end
  done, sequence, rows = done + 1, ARGV[at + 1], ARGV[at + 2]
  at = at + 4 + length
end
if done > 0 then
  local count = (tonumber(writes) or 0) + 1
  redis.call('HSET', KEYS[1], 'writes', string.format('%d', count))
  if ARGV[5] == '1' and sequence ~= '' then
    redis.call('HSET', KEYS[1], 'epoch', ARGV[2], 'sequence', sequence,
      'rows', string.sub(ARGV[4], 1, tonumber(rows) * 16))
  end
end
return {done, refused, why}";

/// One call, ready to be sent.
pub(super) struct Call {
    command: Cmd,
    before: Known,
    moves_place: bool,
    /// For each event: how many entries are written with it, its sequence number, and how many rows with it.
    events: Vec<(usize, u64, usize)>,
    rows: Vec<u8>,
}

/// What became of a call.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Nothing is written: the place is not what it was thought to be.
    Moved,
    /// So many entries are written; all of them, if Redis refused nothing.
    Written { entries: usize, refusal: Option<Refusal> },
}

/// An entry that Redis refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) stream: String,
    /// Redis' own words; the first is a code.
    pub(super) why: String,
}

impl Call {
    pub(super) fn new(sink: &RedisSink, known: &Known, events: &[&Event<'_>]) -> Self {
        let moves_place = !events.first().is_some_and(|event| event.is_late);
        let mut streams: Vec<String> = Vec::new();
        let mut entries = Vec::with_capacity(events.len());
        let mut written = Vec::with_capacity(events.len());
        let mut rows = Vec::new();
        let mut name = String::new();
        for event in events {
            sink.options.stream.write(&mut name, &event.subject.event);
            let stream = streams.iter().position(|stream| *stream == name).unwrap_or_else(|| {
                streams.push(name.clone());
                streams.len() - 1
            });
            if event.is_row {
                rows.extend_from_slice(&digest(&event.subject));
            }
            let whole = (Some(event.subject.event.sequence), rows.len() / DIGEST_BYTES);
            let before = written.last().map_or((None, 0), |&(_, sequence, rows)| (Some(sequence), rows));
            let messages = render::messages(sink.format, Tombstones::Off, event);
            let last = messages.len();
            for (number, message) in messages.into_iter().enumerate() {
                let place = if number + 1 == last { whole } else { before };
                entries.push((stream, place, render::message_id(event, number), message));
            }
            written.push((entries.len(), event.subject.event.sequence, whole.1));
        }
        let mut command = redis::cmd("EVAL");
        command.arg(SCRIPT).arg(1 + streams.len()).arg(sink.place_key());
        command.arg(&streams);
        command.arg(known.writes.map(|writes| writes.to_string()).unwrap_or_default());
        command.arg(sink.place.epoch);
        command.arg(sink.options.max_length.map(|length| length.to_string()).unwrap_or_default());
        command.arg(&rows).arg(u8::from(moves_place));
        for (stream, (sequence, rows), id, message) in &entries {
            command.arg(stream + 2).arg(sequence.map(|sequence| sequence.to_string()).unwrap_or_default()).arg(rows);
            let fields = 3 + usize::from(message.key.is_some()) + message.headers.len();
            command.arg(2 * fields).arg("id").arg(id);
            if let Some(key) = &message.key {
                command.arg("key").arg(key);
            }
            command.arg("value").arg(message.value.as_deref().unwrap_or_default());
            command.arg("content-type").arg(message.content_type);
            for (name, value) in &message.headers {
                command.arg(name).arg(value);
            }
        }
        Self { command, before: known.clone(), moves_place, events: written, rows }
    }

    pub(super) async fn run(&self, redis: &mut MultiplexedConnection) -> Result<Answer, RedisError> {
        let answer: RedisResult<(i64, String, String)> = self.command.query_async(redis).await;
        let (entries, stream, why) = answer?;
        Ok(match usize::try_from(entries) {
            Ok(entries) => Answer::Written { entries, refusal: (!why.is_empty()).then_some(Refusal { stream, why }) },
            Err(_) => Answer::Moved,
        })
    }

    /// How many events have all their entries among the first so many.
    pub(super) fn events_of(&self, entries: usize) -> usize {
        self.events.iter().take_while(|(until, ..)| *until <= entries).count()
    }

    /// What stands at the place once so many events are written.
    pub(super) fn known_after(&self, events: usize) -> Known {
        let mut known = self.before.clone();
        known.writes = Some(known.writes.unwrap_or(0) + 1);
        if let Some((_, sequence, rows)) = self.events[..events].last().filter(|_| self.moves_place) {
            known.written.sequence = Some(*sequence);
            known.written.rows = self.rows[..rows * DIGEST_BYTES].to_vec();
        }
        known
    }
}
