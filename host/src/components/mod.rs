//! Components: what users have uploaded, under names, in versions.
//!
//! The bytes of a component are a file named by their hash; names and versions are documents of the store. A version
//! that was uploaded stays as it is; what `current` means is a choice that can be taken back. Nothing is listed that
//! was not compiled, linked and found to fit a world.
//!
//! Invariants:
//! - A version's file is durable before the version is.
//! - Versions count up from 1 by name and are never used twice.

mod record;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{SystemTime, UNIX_EPOCH};

use cdc_access::FileError;
use cdc_rest::ComponentName;
use sha2::{Digest, Sha256};

use crate::guest::{Guest, Misfit, Runtime};
use crate::ingest::Ingest;
use crate::native_code::{CompileWith, hex};
use crate::store::{Document, Store, StoreError};
pub use record::Version;
use record::{Entry, Record};

/// The documents' collection.
const COLLECTION: &str = "components";

/// Why a call of the registry did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum ComponentError {
    /// There is no component of that name.
    #[error("there is no component {0}; PUT /components/{0} uploads one")]
    UnknownName(ComponentName),
    /// There is no such version.
    #[error("component {name} has no version {version}; it has {there}")]
    UnknownVersion {
        /// The component's name.
        name: ComponentName,
        /// The version that was asked for.
        version: u32,
        /// The versions that there are, for a person.
        there: String,
    },
    /// There is no earlier version to go back to.
    #[error("component {0} has no version before its current one")]
    NothingBefore(ComponentName),
    /// It cannot be a subscriber.
    #[error(transparent)]
    Misfit(#[from] Misfit),
    /// As many components as may be are there.
    #[error("there are {limit} components, and limits.max-components allows no more")]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// Its file cannot be written or read.
    #[error("the component's file {path} cannot be used: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its file holds something else: damage, or somebody else's code.
    #[error("{} is not what was uploaded. It is not run: upload the component again", path.display())]
    Replaced {
        /// The file.
        path: PathBuf,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A document of the store is not what was written there.
    #[error("what the store has of component {name} cannot be read: {source}")]
    Damaged {
        /// The component's name.
        name: String,
        /// Why.
        source: serde_json::Error,
    },
}

/// Where components are kept and how they are compiled.
#[derive(Clone, Debug)]
pub struct ComponentOptions {
    /// The folder of the components' files.
    pub folder: PathBuf,
    /// The folder of native code.
    pub cache: PathBuf,
    /// Who compiles.
    pub with: CompileWith,
    /// The most names.
    pub max_components: usize,
    /// The most versions of a name: beyond that the oldest that is not current is forgotten.
    pub max_versions: usize,
}

/// The registry.
pub struct Components {
    options: ComponentOptions,
    runtime: Runtime,
    ingest: Ingest,
    entries: Mutex<BTreeMap<ComponentName, Entry>>,
    /// One upload or roll-back at a time, so that versions count up.
    changing: Mutex<()>,
    changes: AtomicU64,
}

impl std::fmt::Debug for Components {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Components").field("options", &self.options).finish_non_exhaustive()
    }
}

/// What an upload did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uploaded {
    /// The version that is current now.
    pub version: Version,
    /// Whether its bytes were not known before.
    pub is_new: bool,
}

impl Components {
    /// Opens the registry: reads what the store has.
    pub fn open(
        options: ComponentOptions,
        runtime: Runtime,
        store: &dyn Store,
        ingest: Ingest,
    ) -> Result<Self, ComponentError> {
        let mut entries = BTreeMap::new();
        let view = store.view()?;
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = view.documents(COLLECTION, after.as_deref(), 256, 1 << 20)?;
            let Some(last) = page.last() else { break };
            after = Some(last.key.to_vec());
            for row in page {
                let name = String::from_utf8_lossy(&row.key).into_owned();
                let record = Record::read(&row.image)
                    .map_err(|source| ComponentError::Damaged { name: name.clone(), source })?;
                let Ok(name) = ComponentName::parse(&name) else { continue };
                entries.insert(name, Entry::new(record));
            }
        }
        let entries = Mutex::new(entries);
        Ok(Self { options, runtime, ingest, entries, changing: Mutex::new(()), changes: AtomicU64::new(1) })
    }

    /// The runtime that components are compiled for.
    #[must_use]
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Changes whenever a name means another version than before.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Names, each with its current version, by name.
    #[must_use]
    pub fn list(&self) -> Vec<(ComponentName, Version)> {
        let entries = self.lock();
        entries
            .iter()
            .filter_map(|(name, entry)| Some((name.clone(), entry.version(entry.current())?.clone())))
            .collect()
    }

    /// Every version of a name, oldest first, and which one is current.
    pub fn versions(&self, name: &ComponentName) -> Result<(Vec<Version>, u32), ComponentError> {
        let entries = self.lock();
        let entry = entries.get(name).ok_or_else(|| ComponentError::UnknownName(name.clone()))?;
        Ok((entry.versions().to_vec(), entry.current()))
    }

    /// One version, or the current one.
    pub fn version(&self, name: &ComponentName, version: Option<u32>) -> Result<Version, ComponentError> {
        let entries = self.lock();
        let entry = entries.get(name).ok_or_else(|| ComponentError::UnknownName(name.clone()))?;
        let wanted = version.unwrap_or_else(|| entry.current());
        entry.version(wanted).cloned().ok_or_else(|| ComponentError::UnknownVersion {
            name: name.clone(),
            version: wanted,
            there: entry.there(),
        })
    }

    /// A version's bytes.
    pub fn bytes(&self, version: &Version) -> Result<Vec<u8>, ComponentError> {
        let path = self.path(&version.sha256);
        let bytes = match cdc_access::read_file_up_to(&path, version.size) {
            Ok(bytes) => bytes,
            Err(FileError::Unreadable { source, .. }) => return Err(ComponentError::File { path, source }),
            Err(_) => return Err(ComponentError::Replaced { path }),
        };
        if hex(&Sha256::digest(&bytes)) == version.sha256 { Ok(bytes) } else { Err(ComponentError::Replaced { path }) }
    }

    /// A version, or the current one, ready to be instantiated. Blocks while it is compiled, should the cache not have
    /// it.
    pub fn guest(&self, name: &ComponentName, version: Option<u32>) -> Result<(u32, Guest), ComponentError> {
        let version = self.version(name, version)?;
        if let Some(guest) = self.lock().get(name).and_then(|entry| entry.loaded(version.number)) {
            return Ok((version.number, guest));
        }
        let bytes = self.bytes(&version)?;
        let guest = self.load(&bytes)?;
        if let Some(entry) = self.lock().get_mut(name) {
            entry.keep_loaded(version.number, guest.clone());
        }
        Ok((version.number, guest))
    }

    /// Makes these bytes the current version of a name: a new version, or the one that has them already. Blocks while
    /// they are compiled and made durable.
    pub fn upload(&self, name: &ComponentName, bytes: &[u8]) -> Result<Uploaded, ComponentError> {
        let guest = self.load(bytes)?;
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let sha256 = hex(&Sha256::digest(bytes));
        let (mut record, is_new_name) = match self.lock().get(name) {
            Some(entry) => (entry.record.clone(), false),
            None => (Record::default(), true),
        };
        if is_new_name && self.lock().len() >= self.options.max_components {
            return Err(ComponentError::TooMany { limit: self.options.max_components });
        }
        let known = record.versions.iter().find(|version| version.sha256 == sha256).map(|version| version.number);
        let is_new = known.is_none();
        let number = known.unwrap_or_else(|| record.next());
        // Of a known version too, if its file is no longer what it was.
        let is_sound = || record.versions.iter().any(|known| known.number == number && self.bytes(known).is_ok());
        if is_new || !is_sound() {
            self.write_file(&sha256, bytes)?;
        }
        if is_new {
            record.versions.push(Version {
                number,
                sha256,
                size: bytes.len() as u64,
                uploaded_ms: now_ms(),
                world: guest.world().as_str().to_owned(),
                imports: guest.imports().to_vec(),
                exports: guest.exports().to_vec(),
            });
        }
        if record.current != number {
            record.before = Some(record.current).filter(|current| *current > 0);
            record.current = number;
        }
        let forgotten = record.forget(self.options.max_versions);
        let version = record.versions.iter().find(|version| version.number == number).cloned();
        self.change(name, record, Some((number, guest)))?;
        self.remove_files(&forgotten);
        let version = version.ok_or_else(|| ComponentError::UnknownName(name.clone()))?;
        tracing::info!(component = name.as_str(), version = number, is_new, "component is current");
        Ok(Uploaded { version, is_new })
    }

    /// Makes an earlier version current: the given one, or the one that was before.
    pub fn roll_back(&self, name: &ComponentName, to: Option<u32>) -> Result<Version, ComponentError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let to = match to {
            Some(to) => to,
            None => {
                let entries = self.lock();
                let entry = entries.get(name).ok_or_else(|| ComponentError::UnknownName(name.clone()))?;
                entry.record.before().ok_or_else(|| ComponentError::NothingBefore(name.clone()))?
            }
        };
        let version = self.version(name, Some(to))?;
        let (_, guest) = self.guest(name, Some(to))?;
        let mut record = match self.lock().get(name) {
            Some(entry) => entry.record.clone(),
            None => return Err(ComponentError::UnknownName(name.clone())),
        };
        if record.current != to {
            record.before = Some(record.current);
            record.current = to;
            self.change(name, record, Some((to, guest)))?;
            tracing::info!(component = name.as_str(), version = to, "component rolled back");
        }
        Ok(version)
    }

    /// Forgets a name with all its versions. Whether something still uses it is the caller's to know.
    pub fn remove(&self, name: &ComponentName) -> Result<(), ComponentError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let record = match self.lock().get(name) {
            Some(entry) => entry.record.clone(),
            None => return Err(ComponentError::UnknownName(name.clone())),
        };
        self.record(name, None)?;
        self.lock().remove(name);
        self.changes.fetch_add(1, Ordering::Release);
        self.remove_files(&record.versions);
        Ok(())
    }

    fn load(&self, bytes: &[u8]) -> Result<Guest, Misfit> {
        Guest::load(&self.runtime, bytes, Some(&self.options.cache), &self.options.with)
    }

    fn change(&self, name: &ComponentName, record: Record, loaded: Option<(u32, Guest)>) -> Result<(), ComponentError> {
        self.record(name, Some(&record))?;
        let mut entries = self.lock();
        let entry = entries.entry(name.clone()).or_insert_with(|| Entry::new(Record::default()));
        entry.record = record;
        if let Some((number, guest)) = loaded {
            entry.keep_loaded(number, guest);
        }
        drop(entries);
        self.changes.fetch_add(1, Ordering::Release);
        Ok(())
    }

    fn record(&self, name: &ComponentName, record: Option<&Record>) -> Result<(), StoreError> {
        let document = Document {
            collection: COLLECTION.into(),
            key: bytes::Bytes::copy_from_slice(name.as_str().as_bytes()),
            value: record.map(|record| record.write().into()),
        };
        let (done, outcome) = mpsc::channel();
        self.ingest.record(vec![document], Vec::new(), Box::new(move |result| drop(done.send(result))));
        outcome.recv().unwrap_or_else(|_| Err(StoreError::Failed("the service is stopping".into())))
    }

    fn path(&self, sha256: &str) -> PathBuf {
        self.options.folder.join(format!("{sha256}.wasm"))
    }

    fn write_file(&self, sha256: &str, bytes: &[u8]) -> Result<(), ComponentError> {
        let path = self.path(sha256);
        let write = || {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.options.folder)?;
            let beside = path.with_extension("tmp");
            let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&beside, &path)?;
            sync_folder(&self.options.folder)
        };
        write().map_err(|source| ComponentError::File { path: path.clone(), source })
    }

    /// Removes the files of versions that no name has any more.
    fn remove_files(&self, versions: &[Version]) {
        let entries = self.lock();
        for version in versions {
            let is_used = entries.values().flat_map(Entry::versions).any(|other| other.sha256 == version.sha256);
            if !is_used {
                // A file that stays costs room and nothing else.
                let _ = fs::remove_file(self.path(&version.sha256));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ComponentName, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}
