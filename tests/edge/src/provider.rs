//! `wasi:keyvalue`, durable in one file: every call that writes appends a record and syncs it before it answers.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use wasmtime::component::{HasData, Resource, ResourceTable};

#[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used)]
mod bindings {
    wasmtime::component::bindgen!({
        path: ["../../wit/edge/keyvalue.wit", "../../wit/edge/edge.wit"],
        world: "cdc:edge/edge",
        imports: { default: trappable },
        with: {
            "wasi:keyvalue/store.bucket": super::Bucket,
            "wasi:keyvalue/atomics.cas": super::Cas,
        },
    });
}

pub(crate) use bindings::Edge;
use bindings::wasi::keyvalue as wasi;
use wasi::atomics::CasError;
use wasi::store::Error;

/// The calls that one instance may make before it is killed; none for as many as it likes.
pub type Steps = Option<usize>;

/// What all instances share.
#[derive(Clone, Debug)]
pub struct Provider(Arc<Mutex<Kept>>);

#[derive(Debug)]
struct Kept {
    file: File,
    values: HashMap<String, Vec<u8>>,
    swaps: bool,
    calls: u64,
}

impl Provider {
    /// What the file has, or nothing.
    pub fn open(path: &Path) -> Self {
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(path).unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        let mut values = HashMap::new();
        let mut rest = bytes.as_slice();
        while let Some(((key, value), behind)) = record(rest) {
            match value {
                Some(value) => values.insert(key, value),
                None => values.remove(&key),
            };
            rest = behind;
        }
        Self(Arc::new(Mutex::new(Kept { file, values, swaps: true, calls: 0 })))
    }

    /// Takes away compare and swap.
    pub fn without_swaps(self) -> Self {
        self.0.lock().unwrap().swaps = false;
        self
    }

    /// How many keys there are.
    pub fn keys(&self) -> usize {
        self.0.lock().unwrap().values.len()
    }

    /// How many calls there have been.
    pub fn calls(&self) -> u64 {
        self.0.lock().unwrap().calls
    }
}

/// A key, and its value or none for a removal.
type KeyWrite = (String, Option<Vec<u8>>);

/// Key and value, each with its length before it, and what follows.
fn record(bytes: &[u8]) -> Option<(KeyWrite, &[u8])> {
    let (head, rest) = bytes.split_at_checked(9)?;
    let key = u32::from_le_bytes(head[..4].try_into().ok()?) as usize;
    let value = u32::from_le_bytes(head[4..8].try_into().ok()?) as usize;
    let (key, rest) = rest.split_at_checked(key)?;
    let (value, rest) = rest.split_at_checked(value)?;
    Some(((String::from_utf8(key.to_vec()).ok()?, (head[8] == 1).then(|| value.to_vec())), rest))
}

impl Kept {
    fn write(&mut self, writes: Vec<KeyWrite>) -> Result<(), Error> {
        let mut bytes = Vec::new();
        for (key, value) in &writes {
            let content = value.as_deref().unwrap_or_default();
            bytes.extend_from_slice(&u32::try_from(key.len()).unwrap().to_le_bytes());
            bytes.extend_from_slice(&u32::try_from(content.len()).unwrap().to_le_bytes());
            bytes.push(u8::from(value.is_some()));
            bytes.extend_from_slice(key.as_bytes());
            bytes.extend_from_slice(content);
        }
        let failed = |error: std::io::Error| Error::Other(error.to_string());
        self.file.write_all(&bytes).map_err(failed)?;
        self.file.sync_data().map_err(failed)?;
        for (key, value) in writes {
            match value {
                Some(value) => self.values.insert(key, value),
                None => self.values.remove(&key),
            };
        }
        Ok(())
    }
}

/// The one bucket that there is.
#[derive(Debug)]
#[expect(unreachable_pub, reason = "the generated bindings name it in public signatures")]
pub struct Bucket;

/// A key as it was read.
#[derive(Debug)]
#[expect(unreachable_pub, reason = "the generated bindings name it in public signatures")]
pub struct Cas {
    key: String,
    value: Option<Vec<u8>>,
}

/// What one instance has of the provider.
pub(crate) struct View<'a> {
    pub(crate) provider: &'a Provider,
    pub(crate) steps: &'a mut Steps,
    pub(crate) table: &'a mut ResourceTable,
}

pub(crate) struct HasView;

impl HasData for HasView {
    type Data<'a> = View<'a>;
}

type Answer<T> = wasmtime::Result<Result<T, Error>>;

impl View<'_> {
    /// One more call; the instance is killed when it has made all that it may.
    fn step(&mut self) -> wasmtime::Result<std::sync::MutexGuard<'_, Kept>> {
        if let Some(left) = self.steps {
            *left = left.checked_sub(1).ok_or_else(|| wasmtime::Error::msg("killed at this step"))?;
        }
        let mut kept = self.provider.0.lock().unwrap();
        kept.calls += 1;
        Ok(kept)
    }
}

impl wasi::store::Host for View<'_> {
    fn open(&mut self, identifier: String) -> Answer<Resource<Bucket>> {
        drop(self.step()?);
        if identifier == "default" { Ok(Ok(self.table.push(Bucket)?)) } else { Ok(Err(Error::NoSuchStore)) }
    }
}

impl wasi::store::HostBucket for View<'_> {
    fn get(&mut self, _: Resource<Bucket>, key: String) -> Answer<Option<Vec<u8>>> {
        Ok(Ok(self.step()?.values.get(&key).cloned()))
    }

    fn drop(&mut self, bucket: Resource<Bucket>) -> wasmtime::Result<()> {
        self.table.delete(bucket)?;
        Ok(())
    }
}

impl wasi::batch::Host for View<'_> {
    fn set_many(&mut self, _: Resource<Bucket>, key_values: Vec<(String, Vec<u8>)>) -> Answer<()> {
        let writes = key_values.into_iter().map(|(key, value)| (key, Some(value))).collect();
        Ok(self.step()?.write(writes))
    }

    fn delete_many(&mut self, _: Resource<Bucket>, keys: Vec<String>) -> Answer<()> {
        Ok(self.step()?.write(keys.into_iter().map(|key| (key, None)).collect()))
    }
}

impl wasi::atomics::HostCas for View<'_> {
    fn new(&mut self, _: Resource<Bucket>, key: String) -> Answer<Resource<Cas>> {
        let kept = self.step()?;
        if !kept.swaps {
            return Ok(Err(Error::Other("cas is not supported".to_owned())));
        }
        let value = kept.values.get(&key).cloned();
        drop(kept);
        Ok(Ok(self.table.push(Cas { key, value })?))
    }

    fn current(&mut self, cas: Resource<Cas>) -> Answer<Option<Vec<u8>>> {
        drop(self.step()?);
        Ok(Ok(self.table.get(&cas)?.value.clone()))
    }

    fn drop(&mut self, cas: Resource<Cas>) -> wasmtime::Result<()> {
        self.table.delete(cas)?;
        Ok(())
    }
}

impl wasi::atomics::Host for View<'_> {
    fn swap(&mut self, cas: Resource<Cas>, value: Vec<u8>) -> wasmtime::Result<Result<(), CasError>> {
        let Cas { key, value: expected } = self.table.delete(cas)?;
        let mut kept = self.step()?;
        if kept.values.get(&key) != expected.as_ref() {
            let value = kept.values.get(&key).cloned();
            drop(kept);
            return Ok(Err(CasError::CasFailed(self.table.push(Cas { key, value })?)));
        }
        Ok(kept.write(vec![(key, Some(value))]).map_err(CasError::StoreError))
    }
}
