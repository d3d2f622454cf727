//! `wasi:keyvalue` for one subscription: what is durable below, what calls have written since above.
//!
//! Writes stay here until whoever delivers takes them, to commit them together with the acknowledgement of the events
//! that they came from. An instance that is dropped takes with it what was not taken: a call that traps leaves nothing.

use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use wasmtime::component::{HasData, Resource, ResourceTable};

use super::bindings::wasi::keyvalue as wasi;
use wasi::store::{Error, KeyResponse};

/// Keys of one page of `list-keys`.
const PAGE_KEYS: usize = 1_000;
/// Pages that may be asked for at once: older ones are forgotten.
const CURSORS: usize = 64;
/// The longest key, in bytes.
const KEY_BYTES: usize = 1_024;

/// What is durable of a subscription's keys and values.
pub trait Namespace: Send + Sync {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, String>;

    /// Keys after the given one, in byte order; fewer than `max` at the end only.
    fn keys(&self, after: Option<&[u8]>, max: usize) -> Result<Vec<Bytes>, String>;
}

/// How much a subscription may keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Keys and values together.
    pub bytes: u64,
    /// How many keys.
    pub keys: u64,
}

/// How much a subscription keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Keys and values together.
    pub bytes: u64,
    /// How many keys.
    pub keys: u64,
}

/// What one instance was given to keep keys and values in.
#[derive(Clone)]
pub struct KeyValueGrant {
    /// What is durable.
    pub namespace: Arc<dyn Namespace>,
    /// How much it may keep; none for as much as there is.
    pub quota: Option<Quota>,
    /// How much of it is used at the start.
    pub usage: Usage,
}

impl Debug for KeyValueGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyValueGrant").field("quota", &self.quota).field("usage", &self.usage).finish_non_exhaustive()
    }
}

/// The one bucket that there is.
#[derive(Debug)]
#[expect(unreachable_pub, reason = "the generated bindings name it in public signatures")]
pub struct Bucket;

/// A key and its new value, or none where it was removed.
pub type KeyWrite = (Vec<u8>, Option<Bytes>);

/// The key-value store of one instance.
#[derive(Debug)]
pub(super) struct KeyValue {
    grant: Option<KeyValueGrant>,
    usage: Usage,
    written: BTreeMap<Vec<u8>, Option<Bytes>>,
    cursors: BTreeMap<u64, Vec<u8>>,
    next_cursor: u64,
}

impl KeyValue {
    pub(super) fn new(grant: Option<KeyValueGrant>) -> Self {
        let usage = grant.as_ref().map_or_else(Usage::default, |grant| grant.usage);
        Self { grant, usage, written: BTreeMap::new(), cursors: BTreeMap::new(), next_cursor: 1 }
    }

    /// What was written since the last call of this, by key, and what is used with it.
    pub(super) fn take(&mut self) -> (Vec<KeyWrite>, Usage) {
        (std::mem::take(&mut self.written).into_iter().collect(), self.usage)
    }

    fn granted(&self) -> Result<&KeyValueGrant, Error> {
        self.grant.as_ref().ok_or(Error::AccessDenied)
    }

    fn value(&self, key: &str) -> Result<Option<Bytes>, Error> {
        match self.written.get(key.as_bytes()) {
            Some(written) => Ok(written.clone()),
            None => self.granted()?.namespace.get(key.as_bytes()).map_err(Error::Other),
        }
    }

    fn write(&mut self, key: String, value: Option<Vec<u8>>) -> Result<(), Error> {
        if key.is_empty() || key.len() > KEY_BYTES {
            return Err(Error::Other(format!("a key has 1 to {KEY_BYTES} bytes, not {}", key.len())));
        }
        if let Some(quota) = self.granted()?.quota {
            let before = self.value(&key)?;
            let size = |value: usize| (key.len() + value) as u64;
            let mut usage = self.usage;
            if let Some(before) = &before {
                usage.bytes = usage.bytes.saturating_sub(size(before.len()));
                usage.keys = usage.keys.saturating_sub(1);
            }
            if let Some(value) = &value {
                usage.bytes += size(value.len());
                usage.keys += 1;
                if usage.bytes > quota.bytes {
                    let (bytes, limit) = (usage.bytes, quota.bytes);
                    return Err(Error::Other(format!("the quota is used up: {bytes} of {limit} bytes")));
                }
                if usage.keys > quota.keys {
                    let (keys, limit) = (usage.keys, quota.keys);
                    return Err(Error::Other(format!("the quota is used up: {keys} of {limit} keys")));
                }
            }
            self.usage = usage;
        }
        self.written.insert(key.into_bytes(), value.map(Bytes::from));
        Ok(())
    }

    fn keys(&mut self, cursor: Option<u64>) -> Result<KeyResponse, Error> {
        let after = match cursor {
            None => None,
            Some(cursor) => {
                let known = self.cursors.get(&cursor).cloned();
                Some(known.ok_or_else(|| Error::Other("this cursor is not known, or no longer".into()))?)
            }
        };
        let mut found = self.granted()?.namespace.keys(after.as_deref(), PAGE_KEYS).map_err(Error::Other)?;
        let is_last = found.len() < PAGE_KEYS;
        // What was written lies between the keys of this page, or after the last of them when it is the last page.
        let from = after.as_ref().map_or(Bound::Unbounded, |after| Bound::Excluded(after.clone()));
        let to = match found.last() {
            Some(last) if !is_last => Bound::Included(last.to_vec()),
            _ => Bound::Unbounded,
        };
        let last = found.last().cloned();
        for (key, value) in self.written.range((from, to)) {
            match (value, found.binary_search_by(|found| found.as_ref().cmp(key))) {
                (None, Ok(at)) => drop(found.remove(at)),
                (Some(_), Err(at)) => found.insert(at, Bytes::copy_from_slice(key)),
                (None, Err(_)) | (Some(_), Ok(_)) => {}
            }
        }
        let cursor = match last {
            Some(last) if !is_last => {
                let cursor = self.next_cursor;
                self.next_cursor += 1;
                self.cursors.insert(cursor, last.to_vec());
                if self.cursors.len() > CURSORS {
                    self.cursors.pop_first();
                }
                Some(cursor)
            }
            _ => None,
        };
        let keys = found.iter().map(|key| String::from_utf8_lossy(key).into_owned()).collect();
        Ok(KeyResponse { keys, cursor })
    }
}

/// The view that the bindings work on.
pub(super) struct View<'a> {
    pub(super) keyvalue: &'a mut KeyValue,
    pub(super) table: &'a mut ResourceTable,
}

pub(super) struct HasKeyValue;

impl HasData for HasKeyValue {
    type Data<'a> = View<'a>;
}

type Answer<T> = wasmtime::Result<Result<T, Error>>;

impl wasi::store::Host for View<'_> {
    fn open(&mut self, identifier: String) -> Answer<Resource<Bucket>> {
        if let Err(error) = self.keyvalue.granted() {
            return Ok(Err(error));
        }
        if !matches!(identifier.as_str(), "" | "default") {
            return Ok(Err(Error::NoSuchStore));
        }
        Ok(Ok(self.table.push(Bucket)?))
    }
}

impl wasi::store::HostBucket for View<'_> {
    fn get(&mut self, _: Resource<Bucket>, key: String) -> Answer<Option<Vec<u8>>> {
        Ok(self.keyvalue.value(&key).map(|value| value.map(Vec::from)))
    }

    fn set(&mut self, _: Resource<Bucket>, key: String, value: Vec<u8>) -> Answer<()> {
        Ok(self.keyvalue.write(key, Some(value)))
    }

    fn delete(&mut self, _: Resource<Bucket>, key: String) -> Answer<()> {
        Ok(self.keyvalue.write(key, None))
    }

    fn exists(&mut self, _: Resource<Bucket>, key: String) -> Answer<bool> {
        Ok(self.keyvalue.value(&key).map(|value| value.is_some()))
    }

    fn list_keys(&mut self, _: Resource<Bucket>, cursor: Option<u64>) -> Answer<KeyResponse> {
        Ok(self.keyvalue.keys(cursor))
    }

    fn drop(&mut self, bucket: Resource<Bucket>) -> wasmtime::Result<()> {
        self.table.delete(bucket)?;
        Ok(())
    }
}

impl wasi::batch::Host for View<'_> {
    fn get_many(&mut self, _: Resource<Bucket>, keys: Vec<String>) -> Answer<Vec<Option<(String, Vec<u8>)>>> {
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            match self.keyvalue.value(&key) {
                Ok(value) => found.push(value.map(|value| (key, value.to_vec()))),
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Ok(found))
    }

    fn set_many(&mut self, _: Resource<Bucket>, key_values: Vec<(String, Vec<u8>)>) -> Answer<()> {
        Ok(key_values.into_iter().try_for_each(|(key, value)| self.keyvalue.write(key, Some(value))))
    }

    fn delete_many(&mut self, _: Resource<Bucket>, keys: Vec<String>) -> Answer<()> {
        Ok(keys.into_iter().try_for_each(|key| self.keyvalue.write(key, None)))
    }
}

impl wasi::atomics::Host for View<'_> {
    fn increment(&mut self, _: Resource<Bucket>, key: String, delta: u64) -> Answer<u64> {
        let sum = self.keyvalue.value(&key).and_then(|value| {
            let text = value.as_deref().map_or(Ok("0"), std::str::from_utf8);
            let number = text.ok().and_then(|text| text.trim().parse::<u64>().ok());
            let number = number.ok_or_else(|| Error::Other("the value is not a number in decimal text".into()))?;
            number.checked_add(delta).ok_or_else(|| Error::Other("the sum is larger than 64 bits hold".into()))
        });
        Ok(sum.and_then(|sum| self.keyvalue.write(key, Some(sum.to_string().into_bytes())).map(|()| sum)))
    }
}
