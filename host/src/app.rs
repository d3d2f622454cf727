//! The application: opens the store, loads the engine, wires ingest, readers and API, serves, and stops in order.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::api::{Api, ApiOptions};
use crate::config::{Durability, SchemaMode, ServeSettings};
use crate::ingest::{Ingest, IngestOptions};
use crate::metrics::{Metrics, StoreFigures};
use crate::readers::Readers;
use crate::sandbox::{self, CompileWith, Component, EngineError, LoadError, Settings};
use crate::server::{self, ServerOptions};
use crate::store::{self, EmbeddedOptions, EmbeddedStore, OpenError, Retention, Store, StoreError};

/// Snapshots and replays that may run at once.
const LONG_CALLS: usize = 8;
/// How many events `GET /events` answers when it is not told.
const DEFAULT_PAGE: u32 = 1_000;

/// Why the service did not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The data folder cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The engine cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The engine cannot be run.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// An allowed origin is none.
    #[error("cors-origin: {0}")]
    Cors(#[from] cdc_rest::InvalidOrigin),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}; is another service there? --listen takes another address")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The file for the address cannot be written.
    #[error("cannot write the address to {path}: {source}")]
    AddressFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The store failed while the service ran, so it is unknown what is on disk.
    #[error("the service stopped because its store failed: {0}")]
    Store(StoreError),
}

/// Runs the service until `stop` is done.
pub async fn serve(settings: ServeSettings, stop: impl Future<Output = ()>) -> Result<(), ServeError> {
    let cors = cdc_rest::Cors::parse(&settings.cors_origins)?;
    let fatal = Arc::new(Fatal::default());
    let options = store_options(&settings, fatal.clone());
    let opening = tokio::task::spawn_blocking(move || EmbeddedStore::open(options));
    let loading = {
        let (engine, cache) = (settings.engine.clone(), settings.compile_cache.clone());
        // The folder of the cache is mostly in the data folder, which the store makes and locks first.
        let store = opening.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        let with = std::env::current_exe().map_or(CompileWith::ThisProcess, CompileWith::Child);
        let loading = tokio::task::spawn_blocking(move || Component::load(engine.as_deref(), Some(&cache), &with));
        (store, loading.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?)
    };
    let (store, component) = loading;

    let metrics = Arc::new(Metrics::new(env!("CARGO_PKG_VERSION"), figures(store.clone())));
    let engine_settings = engine_settings(&settings);
    let limits = &settings.limits;
    let ingest_options = IngestOptions { max_batch: limits.max_batch, max_queue: limits.max_queue };
    let (ingest, ingest_thread) =
        Ingest::start(component.clone(), store.clone(), engine_settings, &ingest_options, metrics.clone())?;
    let save_cursor = ingest.save_cursor();
    let readers = Arc::new(Readers::new(
        component,
        store.clone(),
        engine_settings,
        Some(save_cursor),
        settings.readers,
        LONG_CALLS,
        metrics.clone(),
    ));
    let api_options = ApiOptions {
        limits: cdc_rest::Limits {
            max_name_bytes: limits.max_name_bytes,
            max_key_bytes: limits.max_key_bytes,
            max_row_bytes: limits.max_row_bytes,
            max_body_bytes: limits.max_body_bytes as u64,
            max_stream_bytes: limits.max_bulk_bytes,
            default_page: DEFAULT_PAGE.min(u32::try_from(limits.max_page).unwrap_or(u32::MAX)),
            max_page: u32::try_from(limits.max_page).unwrap_or(u32::MAX),
            ..cdc_rest::Limits::default()
        },
        cors,
        request_timeout: limits.request_timeout,
        snapshot_timeout: limits.snapshot_timeout,
        max_batch: limits.max_batch,
    };
    let api = Arc::new(Api::new(api_options, ingest, readers, metrics.clone()));

    let listener = listen(settings.listen).await?;
    let address = listener.local_addr().unwrap_or(settings.listen);
    if let Some(path) = &settings.address_file {
        write_address(path, address)?;
    }
    tracing::info!(%address, data = %settings.data.display(), "listening");

    let server_options = ServerOptions {
        max_connections: limits.max_connections,
        header_timeout: limits.header_timeout,
        drain_timeout: limits.drain_timeout,
    };
    let stopping = async {
        tokio::select! {
            () = stop => tracing::info!("stopping: finishing what is under way"),
            () = fatal.wait() => {}
        }
    };
    let cut = server::serve(listener, api, metrics, server_options, stopping).await;
    if cut > 0 {
        tracing::warn!(connections = cut, "requests took longer than drain-timeout-ms and were cut off");
    }
    // The doors are gone with the API, so the thread ends once all that came through them is in the store.
    let closing = tokio::task::spawn_blocking(move || {
        if cut == 0 && ingest_thread.join().is_err() {
            tracing::error!("the ingest thread panicked");
        }
        store.close()
    });
    let closed = closing.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
    if let Some(error) = fatal.error.get() {
        return Err(ServeError::Store(error.clone()));
    }
    closed.map_err(ServeError::Store)?;
    tracing::info!("stopped");
    Ok(())
}

/// The store's failure, should it fail.
#[derive(Debug, Default)]
struct Fatal {
    error: OnceLock<StoreError>,
    noticed: Notify,
}

impl Fatal {
    fn report(&self, error: &StoreError) {
        if self.error.set(error.clone()).is_ok() {
            tracing::error!(%error, "the store failed: the service stops");
        }
        self.noticed.notify_one();
    }

    async fn wait(&self) {
        self.noticed.notified().await;
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|source| ServeError::Listen { address, source })
}

/// Written beside and renamed, so that whoever waits for the file finds the whole address in it.
fn write_address(path: &std::path::Path, address: SocketAddr) -> Result<(), ServeError> {
    let beside = path.with_extension("tmp");
    std::fs::write(&beside, address.to_string())
        .and_then(|()| std::fs::rename(&beside, path))
        .map_err(|source| ServeError::AddressFile { path: path.to_owned(), source })
}

fn store_options(settings: &ServeSettings, fatal: Arc<Fatal>) -> EmbeddedOptions {
    let mut options = EmbeddedOptions::new(&settings.data);
    options.durability = match settings.durability {
        Durability::Commit => store::Durability::Commit,
        Durability::Interval(every) => store::Durability::Interval(every),
        Durability::None => store::Durability::None,
    };
    options.retention = Retention {
        events: settings.retention_events,
        age_ms: settings.retention_age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        bytes: settings.retention_bytes,
        ..options.retention
    };
    options.segment_bytes = settings.limits.segment_bytes;
    options.checkpoint_every = settings.limits.checkpoint_interval;
    options.on_fatal = Some(Arc::new(move |error: &StoreError| fatal.report(error)));
    options
}

fn engine_settings(settings: &ServeSettings) -> Settings {
    let limits = &settings.limits;
    let figure = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    Settings {
        schema_mode: match settings.schema {
            SchemaMode::Infer => sandbox::SchemaMode::Infer,
            SchemaMode::Strict => sandbox::SchemaMode::Strict,
        },
        max_row_bytes: figure(limits.max_row_bytes),
        max_key_bytes: figure(limits.max_key_bytes),
        max_depth: figure(limits.max_depth),
        max_columns: figure(limits.max_columns),
        max_tables: figure(limits.max_tables),
        max_name_bytes: figure(limits.max_name_bytes),
        max_past_keys: figure(limits.max_past_keys),
    }
}

/// The store's figures, as the metrics show them.
fn figures(store: Arc<EmbeddedStore>) -> Box<dyn Fn() -> StoreFigures + Send + Sync> {
    Box::new(move || {
        let figures = store.metrics();
        let bounds = store.view().map(|view| view.bounds()).ok();
        let (oldest, newest) = bounds.map_or((0, 0), |bounds| (bounds.oldest, bounds.newest));
        StoreFigures {
            fsyncs: figures.syncs,
            fsync_time: Duration::from_micros(figures.sync_us),
            written_bytes: figures.bytes_written,
            log_bytes: figures.log_bytes,
            log_segments: figures.segments,
            oldest_sequence: if oldest > newest { 0 } else { oldest },
            newest_sequence: newest,
            checkpoint_sequence: figures.checkpoint_sequence,
            overlay_rows: figures.overlay_entries,
            checkpoints: figures.checkpoints,
        }
    })
}
