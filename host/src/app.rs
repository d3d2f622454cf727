//! The application: opens the store, loads the engine, wires ingest, readers and API, serves, and stops in order.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use cdc_access::Reach;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::api::{Api, ApiOptions, Services};
use crate::components::{ComponentError, ComponentOptions, Components};
use crate::config::{Declared, Durability, SchemaMode, ServeSettings};
use crate::delivery::{self, BuiltIn, DeliveryOptions, Parts, SubscriptionError, Subscriptions};
use crate::gate::Gate;
use crate::guest::{self, Guest, Misfit, RuntimeOptions};
use crate::ingest::{Ingest, IngestOptions};
use crate::live::{StreamOptions, Streams, Tail, TailOptions};
use crate::metrics::{self, Metrics, StoreFigures};
use crate::readers::Readers;
use crate::sandbox::{self, CompileWith, Component, EngineError, LoadError, Settings};
use crate::schemas::Schemas;
use crate::server::{self, ServerOptions};
use crate::source::{SourceError, Sources};
use crate::store::{self, EmbeddedOptions, EmbeddedStore, OpenError, Retention, Store, StoreError};

/// Snapshots and replays that may run at once.
const LONG_CALLS: usize = 8;
/// How many events `GET /events` answers when it is not told.
const DEFAULT_PAGE: u32 = 1_000;

/// What ends the service. A type that is named here: with one of the caller's, all that serves connections would be compiled
/// in the caller's crate once more.
pub type Stop = Pin<Box<dyn Future<Output = ()> + Send>>;

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
    /// The runtime of components cannot be set up.
    #[error(transparent)]
    Runtime(#[from] guest::NoRuntime),
    /// The component that keeps the replica cannot be run.
    #[error("the built-in component of the replica cannot be run: {0}")]
    Replica(Misfit),
    /// Components cannot be read.
    #[error(transparent)]
    Components(#[from] ComponentError),
    /// A component that the configuration declares cannot be used.
    #[error("components.{name} ({}): {reason}", file.display())]
    Declared {
        /// The component's name.
        name: cdc_rest::ComponentName,
        /// Its file.
        file: PathBuf,
        /// Why.
        reason: String,
    },
    /// Subscriptions cannot be started.
    #[error(transparent)]
    Subscriptions(#[from] SubscriptionError),
    /// Sources cannot be started.
    #[error(transparent)]
    Sources(#[from] SourceError),
    /// An allowed origin is none.
    #[error("cors-origin: {0}")]
    Cors(#[from] cdc_rest::InvalidOrigin),
    /// It would be open to everybody.
    #[error(
        "{address} is reached from other machines, and the service has no login: let it listen on loopback, behind a \
         proxy that asks for one, or say --insecure (CDC_INSECURE=true, insecure = true in cdc.toml) if whoever reaches \
         it may do everything"
    )]
    Exposed {
        /// The address.
        address: SocketAddr,
    },
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
pub async fn serve(settings: ServeSettings, mut declared: Declared, stop: Stop) -> Result<(), ServeError> {
    let cors = cdc_rest::Cors::parse(&settings.cors_origins)?;
    refuse_exposure(&settings)?;
    let fatal = Arc::new(Fatal::default());
    let following = Arc::new(OnceLock::<Weak<Tail>>::new());
    let options = store_options(&settings, fatal.clone(), following.clone());
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

    let tail = Tail::new(store.clone(), TailOptions::default());
    // Weakly, because the tail holds the store.
    let _ = following.set(Arc::downgrade(&tail));

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
            max_component_bytes: limits.max_component_bytes as u64,
            default_page: DEFAULT_PAGE.min(u32::try_from(limits.max_page).unwrap_or(u32::MAX)),
            max_page: u32::try_from(limits.max_page).unwrap_or(u32::MAX),
            ..cdc_rest::Limits::default()
        },
        gate: Gate::new(settings.listen.ip(), settings.allowed_hosts.clone(), cors.clone()),
        cors,
        request_timeout: limits.request_timeout,
        snapshot_timeout: limits.snapshot_timeout,
        max_batch: limits.max_batch,
    };
    let schemas = Arc::new(Schemas::new(store.clone()));
    let stream_options = StreamOptions {
        max_streams: limits.max_streams,
        heartbeat: limits.stream_heartbeat,
        stall_timeout: limits.stream_stall_timeout,
    };
    let streams = Streams::start(tail.clone(), schemas.clone(), stream_options, metrics.clone());
    let source_specs = std::mem::take(&mut declared.sources);
    let subscribing = Subscribing {
        store: store.clone(),
        tail,
        ingest: ingest.clone(),
        readers: readers.clone(),
        schemas: schemas.clone(),
        tasks: tokio::runtime::Handle::current(),
        settings: settings.clone(),
        declared,
    };
    let starting = tokio::task::spawn_blocking(move || subscribing.start());
    let (components, subscriptions) =
        starting.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
    // Weakly, because the metrics are read until the end.
    metrics.read_subscriptions({
        let subscriptions = Arc::downgrade(&subscriptions);
        Box::new(move || subscriptions.upgrade().map_or_else(Vec::new, |found| figures_of(&found)))
    });
    // After the subscriptions, so that what those declare holds from the first event on.
    let sources = Arc::new(Sources::start(store.clone(), ingest.clone(), source_specs, &settings.data)?);
    metrics.read_sources({
        let sources = Arc::downgrade(&sources);
        Box::new(move || sources.upgrade().map_or_else(Vec::new, |found| source_figures(&found)))
    });
    let services = Services {
        ingest,
        readers,
        schemas,
        streams,
        components,
        subscriptions: subscriptions.clone(),
        sources: sources.clone(),
    };
    let api = Arc::new(Api::new(api_options, services, metrics.clone()));

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
    // Sources first: what they have under way is delivered to lanes yet.
    let unfinished = sources.stop(limits.drain_timeout).await;
    drop(sources);
    if unfinished > 0 {
        tracing::warn!(sources = unfinished, "portions took longer than drain-timeout-ms and will come again");
    }
    // Each lane ends after the batch that it is at; one that does not costs a repetition, and no loss.
    let drain = limits.drain_timeout;
    let draining = tokio::task::spawn_blocking(move || subscriptions.stop(drain));
    let stuck = draining.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
    if stuck > 0 {
        tracing::warn!(subscriptions = stuck, "batches took longer than drain-timeout-ms and will be delivered again");
    }
    // The doors are gone with the API, so the thread ends once all that came through them is in the store.
    let closing = tokio::task::spawn_blocking(move || {
        if cut == 0 && stuck == 0 && unfinished == 0 && ingest_thread.join().is_err() {
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

/// What subscribers are started with.
struct Subscribing {
    store: Arc<EmbeddedStore>,
    tail: Arc<Tail>,
    ingest: Ingest,
    readers: Arc<Readers>,
    schemas: Arc<Schemas>,
    tasks: tokio::runtime::Handle,
    settings: ServeSettings,
    declared: Declared,
}

impl Subscribing {
    /// Loads components and starts to deliver. Blocks while something is compiled.
    fn start(self) -> Result<(Arc<Components>, Arc<Subscriptions>), ServeError> {
        let Self { store, tail, ingest, readers, schemas, tasks, settings, declared } = self;
        let limits = &settings.limits;
        let runtime_options = RuntimeOptions {
            stack_bytes: limits.guest_stack_bytes,
            instances: u32::try_from(limits.max_guests).unwrap_or(u32::MAX),
        };
        let runtime = guest::Runtime::new(&runtime_options, tasks.clone())?;
        let with = std::env::current_exe().map_or(CompileWith::ThisProcess, CompileWith::Child);
        let cache = settings.compile_cache.clone();
        let replica =
            Guest::load(&runtime, guest::replica_component(), Some(&cache), &with).map_err(ServeError::Replica)?;
        let options = ComponentOptions {
            folder: settings.data.join("components"),
            cache,
            with,
            max_components: limits.max_components,
            max_versions: limits.max_component_versions,
        };
        let components = Arc::new(Components::open(options, runtime, &*store, ingest.clone())?);
        for (name, file) in &declared.components {
            let declared = |reason: String| ServeError::Declared { name: name.clone(), file: file.clone(), reason };
            let bytes = cdc_access::read_file_up_to(file, limits.max_component_bytes as u64)
                .map_err(|error| declared(error.to_string()))?;
            components.upload(name, &bytes).map_err(|error| declared(error.to_string()))?;
        }
        let mut subscriptions = declared.subscriptions;
        for builtin in BuiltIn::ALL {
            let is_on = settings.builtin_subscribers.iter().any(|name| name == builtin.as_str());
            if let Some((id, spec)) = builtin.subscription().filter(|_| is_on)
                && !subscriptions.iter().any(|(declared, _)| *declared == id)
            {
                subscriptions.push((id, spec));
            }
        }
        let parts = Parts { store, tail, ingest, readers, components: components.clone(), replica, schemas };
        let options = DeliveryOptions {
            max_subscriptions: limits.max_subscriptions,
            slots: 2 * std::thread::available_parallelism().map_or(2, std::num::NonZero::get),
            declared: subscriptions,
            reach: reach(&settings),
        };
        let subscriptions = delivery::start(parts, options, tasks)?;
        Ok((components, Arc::new(subscriptions)))
    }
}

/// The subscriptions' figures, as the metrics show them.
fn figures_of(subscriptions: &Subscriptions) -> Vec<metrics::SubscriptionFigures> {
    let figures = subscriptions.figures().into_iter().map(|found| metrics::SubscriptionFigures {
        id: found.id,
        state: found.state,
        lag_events: found.lag_events,
        lag_ms: found.lag_ms,
        memory_bytes: found.memory_bytes,
        delivered: found.counts.delivered,
        batches: found.counts.batches,
        retries: found.counts.retries,
        crashes: [
            ("trap", found.counts.traps),
            ("timeout", found.counts.timeouts),
            ("exit", found.counts.exits),
            ("wrong-answer", found.counts.wrong_answers),
        ],
        dead_letters: found.counts.dead,
        filtered: [
            ("unselected", found.counts.unselected),
            ("where", found.counts.filtered_by_condition),
            ("where-failure", found.counts.condition_failures),
            ("component", found.counts.filtered_by_component),
        ],
        guest_us: found.counts.guest_us,
        dropped_lines: found.counts.dropped_lines,
        audited_rows: found.counts.audited_rows,
        audit_differences: found.counts.audit_differences,
        delay: found.delay,
    });
    figures.collect()
}

/// The sources' figures, as the metrics show them.
fn source_figures(sources: &Sources) -> Vec<metrics::SourceFigures> {
    let figures = sources.figures().into_iter().map(|found| metrics::SourceFigures {
        name: found.name,
        state: found.state,
        lag_bytes: found.lag_bytes,
        retained_bytes: found.retained_bytes,
        retained_budget: found.retained_budget,
        events: found.events,
        transactions: found.transactions,
        portions: found.portions,
        reconnects: found.reconnects,
        rows_read: found.rows_read,
        tables: found.tables,
        table_stops: found.table_stops,
        table_rereads: found.table_rereads,
        audit_rows: found.audit_rows,
        audit_differences: found.audit_differences,
        audit_mended: found.audit_mended,
        last_audit: found.last_audit,
        delay: found.delay,
    });
    figures.collect()
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

/// What callers of the API may name.
fn reach(settings: &ServeSettings) -> Reach {
    let is_local = settings.listen.ip().to_canonical().is_loopback();
    Reach::of_callers(is_local, settings.files_folder.clone(), settings.allowed_addresses.clone())
}

/// Without a login, other machines are let in only if somebody has said so.
fn refuse_exposure(settings: &ServeSettings) -> Result<(), ServeError> {
    let address = settings.listen;
    if address.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    if !settings.insecure {
        return Err(ServeError::Exposed { address });
    }
    tracing::warn!(%address, "insecure: whoever reaches this address may read and change everything");
    Ok(())
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

fn store_options(settings: &ServeSettings, fatal: Arc<Fatal>, following: Arc<OnceLock<Weak<Tail>>>) -> EmbeddedOptions {
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
        unacknowledged_events: settings.retention_unacknowledged_events,
    };
    options.segment_bytes = settings.limits.segment_bytes;
    options.checkpoint_every = settings.limits.checkpoint_interval;
    options.on_durable = Some(Arc::new(move |newest| {
        if let Some(tail) = following.get().and_then(Weak::upgrade) {
            tail.notify(newest);
        }
    }));
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
