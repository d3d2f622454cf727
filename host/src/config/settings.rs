//! The options of `cdc serve`: the one place where each is named, described, bounded and given its default.
//!
//! A field's flag gives its other names: `--retention-age` is `CDC_RETENTION_AGE` and `retention-age`. Fields of
//! [`Limits`] stand in the file's `[limits]` table.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use cdc_access::Network;
use clap::{ArgAction, Args};

use super::value::{
    Cap, CorsOrigin, Durability, GIB, KIB, MIB, SchemaMode, TIB, age, builtin_subscriber, bytes_in, count_in,
    host_name, listen_address, log_filter, milliseconds_in, network, or_unlimited, yes_or_no,
};
use crate::logging::LogFormat;

/// Stands for the data folder at the beginning of another folder's name.
const DATA_PLACE: &str = "<data>";

/// What `cdc serve` runs with: every option, checked, defaults filled in.
#[derive(Args, Clone, Debug, PartialEq)]
#[command(next_help_heading = "Service")]
pub struct ServeSettings {
    /// Address to listen on; port 0 picks a free one
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8002", value_parser = listen_address)]
    pub listen: SocketAddr,

    /// File to write the bound address to once the service is ready
    #[arg(long, value_name = "FILE")]
    pub address_file: Option<PathBuf>,

    /// Origins that browsers may call from: a list, or * for all [default: none]
    #[arg(long = "cors-origin", value_name = "ORIGIN", value_delimiter = ',')]
    pub cors_origins: Vec<CorsOrigin>,

    /// Names that the service is reached by, beside localhost and its address: a list [default: none]
    #[arg(long, value_name = "HOST", value_delimiter = ',', value_parser = host_name)]
    pub allowed_hosts: Vec<String>,

    /// Listen beyond this machine although there is no login
    #[arg(long, value_name = "true|false", action = ArgAction::Set, num_args = 0..=1, require_equals = true)]
    #[arg(default_value = "false", default_missing_value = "true", value_parser = yes_or_no)]
    pub insecure: bool,

    /// Folder of the certificates and credentials that sinks may name which are defined over the API
    /// [default: the configuration file's]
    #[arg(long, value_name = "DIR")]
    pub files_folder: Option<PathBuf>,

    /// Addresses that are not public and that sinks and components may reach which are set up over the API: a list of
    /// addresses, ranges like 10.0.0.0/8, and localhost [default: none beyond loopback, else all but metadata services]
    #[arg(long, value_name = "ADDR", value_delimiter = ',', value_parser = network)]
    pub allowed_addresses: Vec<Network>,

    /// Engine component to run instead of the built-in one
    #[arg(long, value_name = "FILE")]
    pub engine: Option<PathBuf>,

    /// Engine instances that answer queries beside the writer
    #[arg(long, value_name = "COUNT", default_value = "2", value_parser = count_in::<usize>(1..=64))]
    pub readers: usize,

    /// Folder for compiled components, so that a second start compiles nothing
    #[arg(long, value_name = "DIR", default_value = "<data>/cache")]
    pub compile_cache: PathBuf,

    /// Parts of the service that get every event: a list of console, publisher, replication, or none
    #[arg(long = "builtin-subscribers", value_name = "NAMES", value_delimiter = ',', value_parser = builtin_subscriber)]
    #[arg(default_value = "console,publisher,replication", help_heading = "Subscribers")]
    pub builtin_subscribers: Vec<String>,

    /// Whether tables and columns appear with their first write or values must fit what is declared
    #[arg(long, value_name = "infer|strict", default_value = "infer")]
    pub schema: SchemaMode,

    /// Folder that holds the log and the row state
    #[arg(long, value_name = "DIR", default_value = super::DEFAULT_DATA, help_heading = "Storage")]
    pub data: PathBuf,

    /// When a write is answered: after its fsync, or with an fsync every so many ms, or without
    #[arg(long, value_name = "commit|interval=MS|none", default_value = "commit", help_heading = "Storage")]
    pub durability: Durability,

    /// Newest events to keep
    #[arg(long, value_name = "COUNT|unlimited", default_value = "10000", help_heading = "Storage")]
    #[arg(value_parser = or_unlimited(count_in::<u64>(1..=1_000_000_000_000)))]
    pub retention_events: Cap<u64>,

    /// Keep events no older than this, like 45s, 30m, 12h or 7d
    #[arg(long, value_name = "AGE|unlimited", default_value = "unlimited", help_heading = "Storage")]
    #[arg(value_parser = or_unlimited(age))]
    pub retention_age: Cap<Duration>,

    /// Bytes the log may take, like 512MiB
    #[arg(long, value_name = "SIZE|unlimited", default_value = "unlimited", help_heading = "Storage")]
    #[arg(value_parser = or_unlimited(bytes_in::<u64>(MIB..=1024 * TIB)))]
    pub retention_bytes: Cap<u64>,

    /// Most events to keep because a subscription has not acknowledged them; one further behind loses events
    #[arg(long, value_name = "COUNT", default_value = "1000000", help_heading = "Storage")]
    #[arg(value_parser = count_in::<u64>(1..=1_000_000_000_000))]
    pub retention_unacknowledged_events: u64,

    /// How log lines on stderr are written
    #[arg(long, value_name = "text|json", default_value = "text", help_heading = "Logging")]
    pub log_format: LogFormat,

    /// Least level to log, for all or by module: info,cdc_host::ingest=debug
    #[arg(long, value_name = "FILTER", default_value = "info", help_heading = "Logging", value_parser = log_filter)]
    pub log_level: String,

    /// The limits, the `[limits]` table of the file.
    #[command(flatten)]
    pub limits: Limits,
}

impl ServeSettings {
    /// Settles what depends on more than one value: folders inside the data folder, and `*` among other origins.
    /// `folder` is the one of the configuration file, if there is such a file.
    pub(super) fn settle(&mut self, folder: Option<PathBuf>) {
        self.files_folder = self.files_folder.take().or(folder);
        if self.cors_origins.contains(&CorsOrigin::Any) {
            self.cors_origins = vec![CorsOrigin::Any];
        }
        if let Ok(inside) = self.compile_cache.strip_prefix(DATA_PLACE) {
            self.compile_cache = self.data.join(inside);
        }
    }
}

/// How much the service takes on, and how long it waits: every limit has a default and a way to move it.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[command(next_help_heading = "Limits ([limits] in the file)")]
pub struct Limits {
    /// Largest request body of one row or of JSON
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = bytes_in::<usize>(KIB..=GIB))]
    pub max_body_bytes: usize,

    /// Largest NDJSON bulk body, which is streamed
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = bytes_in::<u64>(KIB..=TIB))]
    pub max_bulk_bytes: u64,

    /// Largest row
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = bytes_in::<usize>(64..=64 * MIB))]
    pub max_row_bytes: usize,

    /// Longest row key
    #[arg(long, value_name = "SIZE", default_value = "512", value_parser = bytes_in::<usize>(1..=64 * KIB))]
    pub max_key_bytes: usize,

    /// Deepest nesting of a JSON value
    #[arg(long, value_name = "COUNT", default_value = "128", value_parser = count_in::<usize>(1..=1_000))]
    pub max_depth: usize,

    /// Most columns in a table
    #[arg(long, value_name = "COUNT", default_value = "1000", value_parser = count_in::<usize>(1..=100_000))]
    pub max_columns: usize,

    /// Most tables
    #[arg(long, value_name = "COUNT", default_value = "1000", value_parser = count_in::<usize>(1..=1_000_000))]
    pub max_tables: usize,

    /// Longest name of a table or column
    #[arg(long, value_name = "SIZE", default_value = "128", value_parser = bytes_in::<usize>(1..=4 * KIB))]
    pub max_name_bytes: usize,

    /// Most events in one page of /events
    #[arg(long, value_name = "COUNT", default_value = "10000", value_parser = count_in::<usize>(1..=1_000_000))]
    pub max_page: usize,

    /// Most changes in one call of the engine
    #[arg(long, value_name = "COUNT", default_value = "1024", value_parser = count_in::<usize>(1..=65_536))]
    pub max_batch: usize,

    /// Most changes waiting to be captured; beyond it writers are told to retry
    #[arg(long, value_name = "COUNT", default_value = "8192", value_parser = count_in::<usize>(1..=1_000_000))]
    pub max_queue: usize,

    /// Most open connections
    #[arg(long, value_name = "COUNT", default_value = "10000", value_parser = count_in::<usize>(1..=1_000_000))]
    pub max_connections: usize,

    /// Most open streams of events
    #[arg(long, value_name = "COUNT", default_value = "8000", value_parser = count_in::<usize>(1..=1_000_000))]
    pub max_streams: usize,

    /// Most row keys held while a table is rebuilt as it was in the past
    #[arg(long, value_name = "COUNT", default_value = "1000000", value_parser = count_in::<usize>(1..=100_000_000))]
    pub max_past_keys: usize,

    /// Most subscriptions
    #[arg(long, value_name = "COUNT", default_value = "256", value_parser = count_in::<usize>(1..=10_000))]
    pub max_subscriptions: usize,

    /// Most components
    #[arg(long, value_name = "COUNT", default_value = "1000", value_parser = count_in::<usize>(1..=100_000))]
    pub max_components: usize,

    /// Largest component that can be uploaded
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = bytes_in::<usize>(KIB..=GIB))]
    pub max_component_bytes: usize,

    /// Most versions of a component that are kept
    #[arg(long, value_name = "COUNT", default_value = "20", value_parser = count_in::<usize>(2..=10_000))]
    pub max_component_versions: usize,

    /// Most instances of components at once
    #[arg(long, value_name = "COUNT", default_value = "512", value_parser = count_in::<usize>(1..=10_000))]
    pub max_guests: usize,

    /// Stack of a component's instance
    #[arg(long, value_name = "SIZE", default_value = "512KiB", value_parser = bytes_in::<usize>(64 * KIB..=64 * MIB))]
    pub guest_stack_bytes: usize,

    /// Time a client has to send its request head
    #[arg(long = "header-timeout-ms", value_name = "MS", default_value = "10000")]
    #[arg(value_parser = milliseconds_in(1..=3_600_000))]
    pub header_timeout: Duration,

    /// Time a request may take, from its head to its answer
    #[arg(long = "request-timeout-ms", value_name = "MS", default_value = "30000")]
    #[arg(value_parser = milliseconds_in(1..=3_600_000))]
    pub request_timeout: Duration,

    /// Time that running requests have to finish when the service stops
    #[arg(long = "drain-timeout-ms", value_name = "MS", default_value = "10000")]
    #[arg(value_parser = milliseconds_in(0..=3_600_000))]
    pub drain_timeout: Duration,

    /// Time a client has to read a whole snapshot
    #[arg(long = "snapshot-timeout-ms", value_name = "MS", default_value = "600000")]
    #[arg(value_parser = milliseconds_in(1..=86_400_000))]
    pub snapshot_timeout: Duration,

    /// Time between the heartbeats of a stream of events
    #[arg(long = "stream-heartbeat-ms", value_name = "MS", default_value = "15000")]
    #[arg(value_parser = milliseconds_in(10..=3_600_000))]
    pub stream_heartbeat: Duration,

    /// Time after which a stream's reader that takes nothing of what is sent is disconnected
    #[arg(long = "stream-stall-timeout-ms", value_name = "MS", default_value = "30000")]
    #[arg(value_parser = milliseconds_in(10..=3_600_000))]
    pub stream_stall_timeout: Duration,

    /// Time between checkpoints of the row state, which bounds how much a start replays
    #[arg(long = "checkpoint-interval-ms", value_name = "MS", default_value = "5000")]
    #[arg(value_parser = milliseconds_in(10..=3_600_000))]
    pub checkpoint_interval: Duration,

    /// Size at which a log segment is sealed; retention drops whole segments
    #[arg(long, value_name = "SIZE", default_value = "8MiB", value_parser = bytes_in::<u64>(64 * KIB..=GIB))]
    pub segment_bytes: u64,
}
