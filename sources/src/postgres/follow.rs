//! The thread that follows the log: reads the replication stream, has it decoded, hands portions out, puts rows that
//! were read between them, and tells the server how far it may forget.
//!
//! While data keep coming it sleeps a little between reads: the server then fills larger pieces and is not interrupted
//! by waking a reader for each. When nothing comes it waits in the kernel, and hands out what it has at once.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::audit::Audits;
use super::decode::Decoder;
use super::lsn::Lsn;
use super::queue::{Shared, lock};
use super::reads::Reads;
use super::slot;
use super::wire::{Connection, WireError, stream_error};
use crate::change::Portion;
use crate::feed::FeedError;

/// How long to leave the socket alone while data keep coming, at least and at most.
const PAUSE_MIN: Duration = Duration::from_micros(200);
const PAUSE_MAX: Duration = Duration::from_micros(2500);

/// Reads that bring less in a row are a trickle, and are not waited for.
const BUSY_BYTES: usize = 8 << 10;

/// Data that come sooner than this after the last keep coming.
const BUSY_GAP: Duration = Duration::from_millis(1);

/// How often the server hears of us although nothing changed; it ends connections after a minute of silence.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);

/// How soon it hears of what was confirmed.
const CONFIRM_INTERVAL: Duration = Duration::from_millis(100);

/// How soon it hears of us when it asks.
const ANSWER_INTERVAL: Duration = Duration::from_millis(5);

/// A server that asks as often as this within [`ASKS_TIME`] shuts down, and waits until everything is confirmed.
const ASKS_MAX: u32 = 20;
const ASKS_TIME: Duration = Duration::from_secs(2);

/// A server that is silent for so long although it was asked is away.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Follows the log until an error, or until everything stops.
pub(super) struct Follower {
    connection: Connection,
    decoder: Decoder,
    reads: Reads,
    audits: Audits,
    shared: Arc<Shared>,
    /// The furthest place that the server has mentioned.
    received: Lsn,
    heard_at: Instant,
    told_at: Instant,
    told: Lsn,
    /// The server asked, and has no answer yet.
    answer: bool,
    was_asked_at: Option<Instant>,
    /// How often it asked since when.
    asks: (u32, Instant),
    /// When we asked, if there was no answer yet.
    asked_at: Option<Instant>,
}

impl Follower {
    pub(super) fn new(
        connection: Connection,
        decoder: Decoder,
        reads: Reads,
        audits: Audits,
        shared: Arc<Shared>,
    ) -> Follower {
        let now = Instant::now();
        Follower {
            connection,
            received: decoder.position(),
            decoder,
            reads,
            audits,
            shared,
            heard_at: now,
            told_at: now,
            told: Lsn(0),
            answer: true,
            was_asked_at: None,
            asks: (0, now),
            asked_at: None,
        }
    }

    /// The thread's whole life.
    pub(super) fn run(mut self) {
        let error = self.follow().err();
        if error.is_none() {
            // So that a confirmation just before the end is not lost, and the slot is free at once.
            let _ = self.tell(false);
            self.connection.terminate(true);
        }
        self.shared.end(error);
        self.shared.stop();
    }

    fn follow(&mut self) -> Result<(), FeedError> {
        let mut busy_bytes = 0;
        let mut pause = PAUSE_MIN;
        while !self.shared.is_stopping() {
            self.take_frames()?;
            self.take_reads()?;
            let empty_and_due = self.decoder.out.steps.is_empty()
                && self.decoder.position() > self.decoder.marked
                && self.decoder.out.taken_at.elapsed() >= self.idle_interval();
            let due = !self.decoder.out.steps.is_empty() && self.shared.is_hungry();
            if self.decoder.is_between() && (due || empty_and_due) {
                self.hand_out()?;
            }
            self.tell_when_due()?;
            if busy_bytes >= BUSY_BYTES {
                // Shorter where more has come by now than was read, so that the server need not wait; longer where it
                // has nothing more to send.
                let behind = self.connection.waiting_bytes() >= 2 * BUSY_BYTES as u64;
                pause = (if behind { pause * 97 / 100 } else { pause * 105 / 100 }).clamp(PAUSE_MIN, PAUSE_MAX);
                std::thread::sleep(pause);
            }
            let began = Instant::now();
            match self.fill()? {
                // The buffer was full: there is more where that came from.
                Some((_, true)) => {}
                Some((count, false)) if self.heard_at.duration_since(began) < BUSY_GAP => busy_bytes += count,
                Some((count, false)) => busy_bytes = count.min(BUSY_BYTES - 1),
                None => busy_bytes = 0,
            }
        }
        Ok(())
    }

    /// How long after a portion another one may come that has no steps. A server that asks how far we are may be
    /// shutting down, which it does not do before everything is confirmed.
    fn idle_interval(&self) -> Duration {
        let usual = self.decoder.options.checkpoint_interval;
        if self.was_asked_at.is_some_and(|at| at.elapsed() < CONFIRM_INTERVAL * 10) {
            usual.min(CONFIRM_INTERVAL)
        } else {
            usual
        }
    }

    fn take_frames(&mut self) -> Result<(), FeedError> {
        const DOING: &str = "follow the log";
        while let Some((letter, body)) = self.connection.frame().map_err(|error| error.into_feed(DOING))? {
            let body = self.connection.bytes(body);
            match letter {
                b'd' => match body.split_first() {
                    Some((b'w', rest)) => {
                        let (Some(head), Some(message)) = (rest.first_chunk::<24>(), rest.get(24..)) else {
                            return Err(WireError::Protocol("a short piece of the log").into_feed(DOING));
                        };
                        self.received = self.received.max(lsn(&head[..8]));
                        self.decoder.message(message)?;
                    }
                    Some((b'k', rest)) => {
                        let Some(head) = rest.first_chunk::<17>() else {
                            return Err(WireError::Protocol("a short keepalive").into_feed(DOING));
                        };
                        let end = lsn(&head[..8]);
                        self.received = self.received.max(end);
                        self.decoder.reached(end);
                        if head[16] == 1 {
                            self.answer = true;
                            self.was_asked_at = Some(Instant::now());
                            self.count_ask()?;
                        }
                        self.asked_at = None;
                    }
                    _ => {}
                },
                b'E' => return Err(slot::of_stream(stream_error(body), &self.decoder.options)),
                b'c' => return Err(WireError::Protocol("the end of the log").into_feed(DOING)),
                _ => {}
            }
            while self.decoder.is_replaying() {
                self.decoder.replay_some()?;
                if self.decoder.out.is_full() {
                    self.hand_out()?;
                }
                if self.shared.is_stopping() {
                    return Ok(());
                }
            }
            if self.decoder.out.is_full() {
                self.hand_out()?;
                if self.shared.is_stopping() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// A server shuts down only when everything is confirmed or nobody follows it any more. While a prepared transaction
    /// is open not everything can be.
    fn count_ask(&mut self) -> Result<(), FeedError> {
        let (count, since) = self.asks;
        self.asks = if since.elapsed() > ASKS_TIME { (1, Instant::now()) } else { (count + 1, since) };
        if self.asks.0 < ASKS_MAX || !self.decoder.holds_back() {
            return Ok(());
        }
        let message = "the server shuts down while a prepared transaction is open";
        Err(WireError::from(std::io::Error::other(message)).into_feed("follow the log"))
    }

    /// Puts rows that were read where they are true, between two transactions.
    fn take_reads(&mut self) -> Result<(), FeedError> {
        while self.decoder.is_between()
            && (self.reads.take_one(&mut self.decoder)? || self.audits.take_one(&mut self.decoder)?)
        {
            if self.decoder.out.is_full() {
                self.hand_out()?;
            }
            if self.shared.is_stopping() {
                break;
            }
        }
        Ok(())
    }

    /// Hands out what was gathered. While there is no room the server still hears of us.
    fn hand_out(&mut self) -> Result<(), FeedError> {
        loop {
            let is_last = !self.decoder.has_cut();
            let mut waiting: Option<Portion> = Some(self.decoder.next_portion());
            while let Some(portion) = waiting.take() {
                waiting = self.shared.offer(portion, CONFIRM_INTERVAL);
                if self.shared.is_stopping() {
                    return Ok(());
                }
                self.tell_when_due()?;
            }
            if is_last {
                return Ok(());
            }
        }
    }

    /// Whether the server should be asked where it is, because something waits for the log to reach its place.
    fn wants_to_know_place(&self) -> bool {
        self.reads.wants_to_know_place() || self.audits.wants_to_know_place()
    }

    fn tell_when_due(&mut self) -> Result<(), FeedError> {
        let since = self.told_at.elapsed();
        let news = self.shared.confirmed() > self.told && since >= CONFIRM_INTERVAL;
        let silent = self.heard_at.elapsed();
        let ask = (self.wants_to_know_place() || silent > STATUS_INTERVAL)
            && self.asked_at.is_none_or(|at| at.elapsed() > STATUS_INTERVAL);
        // A server that shuts down asks again as soon as it has an answer.
        let answer = self.answer && since >= ANSWER_INTERVAL;
        if news || ask || answer || since >= STATUS_INTERVAL {
            self.tell(ask)?;
        }
        Ok(())
    }

    /// Tells the server what was confirmed, and asks it where it is if need be.
    fn tell(&mut self, ask: bool) -> Result<(), FeedError> {
        let confirmed = self.shared.confirmed();
        let now_us = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_micros());
        let mut status = Vec::with_capacity(34);
        status.push(b'r');
        for place in [self.received.max(confirmed), confirmed, confirmed] {
            status.extend_from_slice(&place.0.to_be_bytes());
        }
        // Of no consequence to the server but in its statistics.
        let since_2000 = u64::try_from(now_us).unwrap_or(0).saturating_sub(946_684_800_000_000);
        status.extend_from_slice(&since_2000.to_be_bytes());
        status.push(u8::from(ask));
        self.connection.send_data(&status).map_err(|error| error.into_feed("confirm what is stored"))?;
        self.told = confirmed;
        self.told_at = Instant::now();
        self.answer = false;
        if ask {
            self.asked_at = Some(self.told_at);
        }
        lock(&self.shared.progress).confirmed = Some(confirmed.to_string());
        Ok(())
    }

    /// Reads once, after waiting for data, the bell, or the time to do something else. What was read, if anything.
    fn fill(&mut self) -> Result<Option<(usize, bool)>, FeedError> {
        if let Some(read) = self.read()? {
            return Ok(Some(read));
        }
        if self.heard_at.elapsed() > SILENCE_MAX && self.asked_at.is_some() {
            let silent = std::io::Error::new(std::io::ErrorKind::TimedOut, "the server has been silent for a minute");
            return Err(WireError::from(silent).into_feed("follow the log"));
        }
        // What was confirmed in the meantime is told within this time.
        let patience = if self.wants_to_know_place() || self.answer { 2 } else { 100 };
        let patience = Timespec { tv_sec: 0, tv_nsec: patience * 1_000_000 };
        let mut fds = [
            PollFd::from_borrowed_fd(self.connection.socket().as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.shared.bell(), PollFlags::IN),
        ];
        match poll(&mut fds, Some(&patience)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(WireError::from(std::io::Error::from(error)).into_feed("follow the log")),
        }
        if fds[1].revents().contains(PollFlags::IN) {
            self.shared.silence();
        }
        self.read()
    }

    fn read(&mut self) -> Result<Option<(usize, bool)>, FeedError> {
        match self.connection.fill() {
            Ok(read) => {
                self.heard_at = Instant::now();
                Ok(Some(read))
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(WireError::from(error).into_feed("follow the log")),
        }
    }
}

fn lsn(bytes: &[u8]) -> Lsn {
    Lsn(bytes.iter().fold(0, |place, &byte| place << 8 | u64::from(byte)))
}
