//! Redis Streams: an entry for each event, written together with the place.
//!
//! An entry has the fields `id` (the event's), `key` (none for a truncate), `value`, `content-type`, and the envelope's
//! headers. A batch is one call of a script, so that its entries and the place become visible, and durable, as one:
//!
//! - The place is the hash `cdc:place:<subscription>:<lane>` with `epoch`, `sequence`, `writes`, and `rows`: digests of
//!   the ids of the rows that the last call wrote.
//! - `writes` counts calls. Each call says how many it knows of and does nothing if there are more or fewer: a call that
//!   was thought lost and arrives late repeats nothing.
//! - The script stops at the first entry that Redis refuses. What stands before it is written, and the place says so.
//!
//! What Redis acknowledged it may still lose: with `appendonly no`, or a crash of the machine within `appendfsync
//! everysec`. If the place went back while this sink was running, it says so and delivers no further. Redis Cluster is
//! not served: a script writes to keys of one node only.
//!
//! No event is ever refused for good: what Redis refuses is never about the event.

mod options;
mod script;

use std::collections::HashMap;
use std::time::Duration;

use cdc_access::Reach;
use cdc_rest::envelope::Format;
use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use redis::{ConnectionAddr, RedisError};
use tokio::task::JoinHandle;

pub use options::*;

use crate::connection::{ConnectError, connect, within};
use crate::secret::MissingVariable;
use crate::written::Written;
use crate::{Event, Failure, Place, Sink};

/// A sink that writes into Redis Streams.
pub struct RedisSink {
    options: Options,
    format: Format,
    place: Place,
    reach: Reach,
    /// Taken out while a call is under way, so that a connection with a lost answer is never used again.
    connection: Option<Connection>,
    /// How many calls Redis has acknowledged, as far as this object knows.
    acknowledged_writes: u64,
}

/// A connection, its task, and what is known of the place.
struct Connection {
    redis: MultiplexedConnection,
    driver: JoinHandle<()>,
    known: Known,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// What stands at the place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Known {
    written: Written,
    /// None: there is no place at all.
    writes: Option<u64>,
}

#[derive(Debug, thiserror::Error)]
enum RedisFailure {
    #[error(transparent)]
    Variable(#[from] MissingVariable),
    #[error("`url` {0}")]
    Url(&'static str),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("{}", told(.0))]
    Redis(#[from] RedisError),
    #[error("no answer within {timeout_ms} ms")]
    Timeout { timeout_ms: u32 },
    #[error(
        "events are lost that had been acknowledged: the place `{key}` has gone back to {place}. Redis was restarted \
         without what it had (set `appendonly yes` there), emptied, or a replica took over that was behind. Rewind the \
         subscription to the event after the streams' last"
    )]
    Lost { key: String, place: String },
    #[error("another sink keeps writing under the place `{key}`: is the subscription running in a second service?")]
    Rival { key: String },
    #[error("the stream `{}` is refused: {}{}", .0.stream, .0.why, hint(.0.why.split(' ').next()))]
    Refused(script::Refusal),
}

impl RedisSink {
    /// Makes a sink; connects with the first batch.
    pub fn new(options: Options, format: Format, place: Place, reach: Reach) -> Self {
        Self { options, format, place, reach, connection: None, acknowledged_writes: 0 }
    }

    fn place_key(&self) -> String {
        format!("cdc:place:{}:{}", self.place.subscription, self.place.lane)
    }

    /// Delivers, and answers how many events of the batch are safe with what went wrong.
    async fn write(&mut self, batch: &[Event<'_>]) -> Result<(), (usize, RedisFailure)> {
        // A place that has moved says that a call which was thought lost has come through: look again, a few times.
        for _ in 0..3 {
            let mut connection = match self.connection.take() {
                Some(connection) => connection,
                None => self.connect().await.map_err(|failure| (0, failure))?,
            };
            let pending: Vec<usize> =
                (0..batch.len()).filter(|&index| !connection.known.written.holds(&batch[index])).collect();
            let Some(&first) = pending.first() else {
                self.connection = Some(connection);
                return Ok(());
            };
            let events: Vec<&Event<'_>> = pending.iter().map(|&index| &batch[index]).collect();
            let call = script::Call::new(self, &connection.known, &events);
            let answer = call.run(&mut connection.redis).await.map_err(|error| (first, error.into()))?;
            match answer {
                script::Answer::Moved => continue,
                script::Answer::Written { entries, refusal } => {
                    let done = call.events_of(entries);
                    // A batch may have nothing to write at all.
                    if entries > 0 {
                        connection.known = call.known_after(done);
                        self.acknowledged_writes = connection.known.writes.unwrap_or(0);
                    }
                    match refusal {
                        // Made anew in case it is about this connection: a replica, a password that was changed.
                        Some(refusal) => {
                            let index = pending.get(done).copied().unwrap_or(first);
                            return Err((index, RedisFailure::Refused(refusal)));
                        }
                        None => {
                            self.connection = Some(connection);
                            return Ok(());
                        }
                    }
                }
            }
        }
        Err((0, RedisFailure::Rival { key: self.place_key() }))
    }

    async fn connect(&self) -> Result<Connection, RedisFailure> {
        let mut connection = self.log_in().await?;
        let key = self.place_key();
        let (epoch, sequence, rows, writes): (Option<u64>, Option<u64>, Option<Vec<u8>>, Option<u64>) =
            redis::cmd("HMGET")
                .arg(&key)
                .arg(&["epoch", "sequence", "rows", "writes"])
                .query_async(&mut connection.redis)
                .await?;
        if writes.unwrap_or(0) < self.acknowledged_writes {
            let place = sequence.map_or("nothing".to_owned(), |sequence| format!("event {sequence}"));
            return Err(RedisFailure::Lost { key, place });
        }
        let is_ours = epoch == Some(self.place.epoch);
        connection.known = Known {
            written: Written {
                sequence: sequence.filter(|_| is_ours),
                rows: rows.filter(|_| is_ours).unwrap_or_default(),
            },
            writes,
        };
        Ok(connection)
    }

    async fn log_in(&self) -> Result<Connection, RedisFailure> {
        let url = self.options.url.reveal()?;
        let info = parse_url(&url).map_err(RedisFailure::Url)?;
        let ConnectionAddr::Tcp(host, port) = info.addr() else { return Err(RedisFailure::Url("names no host")) };
        let mut login = info.redis_settings().clone().set_lib_name("cdc", env!("CARGO_PKG_VERSION"));
        if let Some(password) = &self.options.password {
            login = login.set_password(password.reveal()?);
        }
        let (is_tls, ca_file) = (url.starts_with("rediss://"), self.options.ca_file.as_deref());
        let stream = connect(host, *port, is_tls, ca_file, &self.reach).await?;
        // The time that a batch may take is counted outside, with everything in it.
        let config = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
        let (redis, driver) = MultiplexedConnection::new_with_config(&login, stream, config).await?;
        Ok(Connection { redis, driver: tokio::spawn(driver), known: Known::default() })
    }

    async fn problems(&mut self) -> Result<Vec<String>, RedisFailure> {
        let mut connection = self.log_in().await?;
        let redis = &mut connection.redis;
        let mut problems = Vec::new();
        let info: String = redis::cmd("INFO").query_async(redis).await?;
        let info: HashMap<&str, &str> = info.lines().filter_map(|line| line.trim_end().split_once(':')).collect();
        let is = |name: &str, value: &str| info.get(name) == Some(&value);
        if is("role", "slave") {
            problems.push("this is a replica, which takes no writes: name the master in `url`".to_owned());
        }
        if is("cluster_enabled", "1") {
            problems.push("this is a Redis Cluster, which this sink does not serve: take one without".to_owned());
        }
        if is("aof_enabled", "0") {
            let why = "`appendonly` is off, so a crash of Redis loses events: CONFIG SET appendonly yes, and set it in \
                       redis.conf";
            problems.push(why.to_owned());
        }
        let has_limit = !is("maxmemory", "0");
        let policy = info.get("maxmemory_policy").copied().unwrap_or("noeviction");
        if has_limit && policy.starts_with("allkeys") {
            problems.push(format!(
                "`maxmemory-policy` is {policy}, so Redis drops streams and the place when memory is short: CONFIG SET \
                 maxmemory-policy noeviction"
            ));
        }
        let key = self.place_key();
        let kind: String = redis::cmd("TYPE").arg(&key).query_async(redis).await?;
        if kind != "none" && kind != "hash" {
            problems.push(format!("the key `{key}` is a {kind}, but the place is kept there: DEL or RENAME it"));
        }
        let trial = redis::cmd("EVAL").arg("return 1").arg(0).query_async::<i64>(redis).await;
        if let Err(error) = trial {
            problems.push(format!("scripts cannot be run: {}: ACL SETUSER <user> +eval", told(&error)));
        }
        Ok(problems)
    }

    /// Where it is, without anything that may be secret.
    fn named(&self) -> String {
        let url = self.options.url.reveal().ok();
        let info = url.and_then(|url| parse_url(&url).ok());
        info.map_or_else(|| "Redis".to_owned(), |info| format!("Redis at {}", info.addr()))
    }

    fn failure(&self, index: usize, failure: RedisFailure) -> Failure {
        let mut told = Failure::retry(index, format!("{}: {failure}", self.named()));
        if let RedisFailure::Lost { .. } = failure {
            // Somebody has to do something first; there is no hurry to look again.
            told.remedy = crate::Remedy::Retry { after: Some(Duration::from_secs(60)) };
        }
        told.because(failure)
    }
}

fn told(error: &RedisError) -> String {
    format!("{error}{}", hint(error.code()))
}

/// What to do about an error, where that is known.
fn hint(code: Option<&str>) -> &'static str {
    match code {
        Some("OOM") => ": it is out of memory: raise `maxmemory`, or set `maxLength`",
        Some("READONLY") => ": it is a replica now: name the master in `url`",
        Some("MISCONF") => ": it cannot write its snapshot to disk: see its log",
        Some("NOAUTH" | "WRONGPASS") => ": set the user in `url`, and `password`",
        Some("NOPERM") => ": ACL SETUSER <user> ~cdc.* ~cdc:place:* +hmget +eval +xadd +hset +hget",
        Some("LOADING") => ": it is starting",
        Some("WRONGTYPE") => ": the key is taken by something else: DEL or RENAME it, or set `stream`",
        _ => "",
    }
}

impl Sink for RedisSink {
    async fn deliver(&mut self, batch: &[Event<'_>]) -> Result<(), Failure> {
        let timeout_ms = self.options.timeout_ms;
        match within(timeout_ms, self.write(batch)).await {
            Some(Ok(())) => Ok(()),
            Some(Err((index, failure))) => Err(self.failure(index, failure)),
            None => Err(self.failure(0, RedisFailure::Timeout { timeout_ms })),
        }
    }

    async fn check(&mut self) -> Vec<String> {
        let timeout_ms = self.options.timeout_ms;
        let outcome = within(timeout_ms, self.problems()).await;
        let problems = match outcome {
            Some(Ok(problems)) => problems,
            Some(Err(failure)) => vec![failure.to_string()],
            None => vec![RedisFailure::Timeout { timeout_ms }.to_string()],
        };
        problems.into_iter().map(|problem| format!("{}: {problem}", self.named())).collect()
    }
}
