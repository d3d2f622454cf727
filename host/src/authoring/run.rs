//! `cdc component test`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;

use super::{AuthoringError, TestSettings, events};
use crate::guest::{
    Grants, Guest, GuestEvent, GuestLimits, HttpGrant, Instance, KeyValueGrant, Namespace, Output, Remedy, Runtime,
    RuntimeOptions, Stream, Usage,
};
use crate::native_code::CompileWith;
use crate::store::Event;
use crate::terminal::plain;

/// Keys and values that live as long as the run.
#[derive(Default)]
struct Memory(Mutex<BTreeMap<Vec<u8>, Bytes>>);

impl Namespace for Memory {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, String> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned())
    }

    fn keys(&self, after: Option<&[u8]>, max: usize) -> Result<Vec<Bytes>, String> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let keys = kept.keys().filter(|key| after.is_none_or(|after| key.as_slice() > after));
        Ok(keys.take(max).map(|key| Bytes::copy_from_slice(key)).collect())
    }
}

/// Runs a component on events from a file, and writes what it says to each. Limits are those by default.
pub fn run(settings: &TestSettings, tasks: tokio::runtime::Handle, out: &mut impl Write) -> Result<(), AuthoringError> {
    let unreadable = |path: &std::path::Path| {
        let path = path.to_owned();
        move |source| AuthoringError::Unreadable { path, source }
    };
    let bytes = fs::read(&settings.file).map_err(unreadable(&settings.file))?;
    let events = if settings.events.as_os_str() == "-" {
        events::read(io::stdin().lock(), &settings.events)?
    } else {
        let file = fs::File::open(&settings.events).map_err(unreadable(&settings.events))?;
        events::read(io::BufReader::new(file), &settings.events)?
    };
    let http = HttpGrant::parse(settings.http.iter().map(String::as_str)).ok_or(AuthoringError::NotAnOrigin)?;
    let runtime = Runtime::new(&RuntimeOptions { instances: 8, ..RuntimeOptions::default() }, tasks)?;
    let guest = Guest::load(&runtime, &bytes, None, &CompileWith::ThisProcess)
        .map_err(|source| AuthoringError::Misfit { path: settings.file.clone(), source })?;
    let memory = Arc::new(Memory::default());
    let limits = GuestLimits::default();
    let make = || {
        let grants = Grants {
            config: Arc::new(settings.config.iter().cloned().collect()),
            keyvalue: Some(KeyValueGrant { namespace: memory.clone(), quota: None, usage: Usage::default() }),
            http: Arc::new(http.clone()),
            output: Output::new(
                limits.log_bytes_per_second,
                Arc::new(|stream, line| {
                    let name = if stream == Stream::Out { "stdout" } else { "stderr" };
                    // Nothing is left to be done about a closed stderr.
                    let _ = writeln!(io::stderr(), "{name}: {}", plain(line));
                }),
            ),
        };
        Instance::new(&guest, grants, limits, || {})
            .map_err(|source| AuthoringError::NoStart { path: settings.file.clone(), source })
    };
    let mut trial = Trial { world: guest.world(), instance: make()?, memory: &memory, make: &make, out, not_done: 0 };
    let start = Instant::now();
    for batch in events.chunks(settings.batch.max(1)) {
        trial.batch(batch)?;
    }
    let (not_done, elapsed) = (trial.not_done, start.elapsed());
    let _ = writeln!(
        out,
        "{} events in {:.1} ms, {:.2} µs each",
        events.len(),
        elapsed.as_secs_f64() * 1e3,
        elapsed.as_secs_f64() * 1e6 / events.len().max(1) as f64
    );
    if not_done > 0 { Err(AuthoringError::NotDone(not_done)) } else { Ok(()) }
}

struct Trial<'a, W, M> {
    world: crate::guest::World,
    instance: Instance,
    memory: &'a Memory,
    make: &'a M,
    out: &'a mut W,
    not_done: usize,
}

impl<W: Write, M: Fn() -> Result<Instance, AuthoringError>> Trial<'_, W, M> {
    fn batch(&mut self, events: &[Event]) -> Result<(), AuthoringError> {
        let mut going_on: Vec<&Event> = events.iter().collect();
        if self.world.filters() {
            match self.instance.accept(&lent(&going_on, &ids(&going_on))) {
                Ok(accepted) => {
                    let mut kept = Vec::new();
                    for (event, is_accepted) in going_on.into_iter().zip(accepted) {
                        if is_accepted {
                            kept.push(event);
                        } else {
                            self.say(event, "filtered", "");
                        }
                    }
                    going_on = kept;
                }
                Err(error) => {
                    going_on.iter().for_each(|event| self.say(event, error.kind(), &error.to_string()));
                    self.not_done += going_on.len();
                    self.instance = (self.make)()?;
                    return Ok(());
                }
            }
            if !self.world.handles() {
                going_on.iter().for_each(|event| self.say(event, "accepted", ""));
                return Ok(());
            }
        }
        while !going_on.is_empty() {
            let rest = match self.instance.handle(&lent(&going_on, &ids(&going_on))) {
                Ok(Ok(())) => {
                    going_on.iter().for_each(|event| self.say(event, "handled", ""));
                    Vec::new()
                }
                Ok(Err(failure)) => {
                    going_on[..failure.index].iter().for_each(|event| self.say(event, "handled", ""));
                    let what = if failure.remedy == Remedy::Retry { "retry" } else { "rejected" };
                    self.say(going_on[failure.index], what, &failure.message);
                    self.not_done += 1;
                    going_on[failure.index + 1..].to_vec()
                }
                Err(error) => {
                    going_on.iter().for_each(|event| self.say(event, error.kind(), &error.to_string()));
                    self.not_done += going_on.len();
                    self.instance = (self.make)()?;
                    return Ok(());
                }
            };
            self.keep();
            going_on = rest;
        }
        Ok(())
    }

    /// What was written becomes what is read.
    fn keep(&mut self) {
        let (writes, _) = self.instance.take_writes();
        let mut kept = self.memory.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, value) in writes {
            match value {
                Some(value) => drop(kept.insert(key, value)),
                None => drop(kept.remove(&key)),
            }
        }
    }

    fn say(&mut self, event: &Event, what: &str, why: &str) {
        let (table, key) = (&event.write.table, String::from_utf8_lossy(&event.write.key));
        let why = why.lines().next().filter(|why| !why.is_empty()).map(|why| format!(": {why}")).unwrap_or_default();
        // A closed output ends the run at its summary.
        let line = format!("{} {table} {key} {what}{why}", event.sequence);
        let _ = writeln!(self.out, "{}", plain(&line));
    }
}

fn ids(events: &[&Event]) -> Vec<String> {
    events.iter().map(|event| cdc_rest::event_id(event.timestamp_ms, event.sequence)).collect()
}

fn lent<'a>(events: &[&'a Event], ids: &'a [String]) -> Vec<GuestEvent<'a>> {
    events.iter().zip(ids).map(|(event, id)| GuestEvent::of(event, id)).collect()
}
