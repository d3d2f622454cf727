//! One instance of a subscriber component, and its calls.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use wasmtime::component::{Func, HasData, ResourceTable};
use wasmtime::{Store, UpdateDeadline};
use wasmtime_wasi::{I32Exit, WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use super::bindings::wasi::config::store as config;
use super::component::Guest;
use super::contract::{Accepted, Event as WitEvent, Events, Handled, Operation, Origin, Remedy as WitRemedy};
use super::egress::{Egress, HttpGrant};
use super::keyvalue::{KeyValue, KeyValueGrant, KeyWrite, Usage, View};
use super::limits::{GuestLimits, Limiter};
use super::output::{Output, Pipe, Stream};
use super::runtime::TICK;
use crate::store::{Event, Operation as StoreOperation, Origin as StoreOrigin};

/// The longest message that is taken from a guest, in bytes.
const MESSAGE_BYTES: usize = 64 << 10;
/// The longest report of a trap, in bytes.
const REPORT_BYTES: usize = 8 << 10;
/// What a call may copy out of the guest at once, beside its memory: answers and arguments of host calls.
const COPIED_BYTES: usize = 32 << 20;
/// A call that runs longer is no longer one of the quick ones.
const LONG: Duration = Duration::from_millis(50);

/// An event for a guest, borrowed from wherever it is kept.
#[derive(Clone, Copy, Debug)]
pub struct GuestEvent<'a> {
    /// Its place in the log.
    pub sequence: u64,
    /// In ms since 1970.
    pub timestamp_ms: u64,
    /// The event's id.
    pub id: &'a str,
    /// The table's name.
    pub table: &'a str,
    /// The row's key.
    pub key: &'a str,
    /// What happened.
    pub operation: StoreOperation,
    /// The image before: JSON.
    pub before: Option<&'a str>,
    /// The image after: JSON.
    pub after: Option<&'a str>,
    /// The version of the table's schema.
    pub schema_version: u32,
    /// Where it came from; none for a REST write.
    pub origin: Option<&'a StoreOrigin>,
    /// Its place in the source's log.
    pub position: Option<&'a str>,
}

impl<'a> GuestEvent<'a> {
    /// An event of the log, under this id.
    #[must_use]
    pub fn of(event: &'a Event, id: &'a str) -> Self {
        // The store holds nothing else than UTF-8.
        let text = |bytes: &'a Bytes| std::str::from_utf8(bytes).unwrap_or_default();
        Self {
            sequence: event.sequence,
            timestamp_ms: event.timestamp_ms,
            id,
            table: &event.write.table,
            key: text(&event.write.key),
            operation: event.write.operation,
            before: event.write.before.as_ref().map(text),
            after: event.write.after.as_ref().map(text),
            schema_version: event.write.schema_version,
            origin: event.write.origin.as_deref(),
            position: event.write.position_text(),
        }
    }
}

/// What one instance gets.
#[derive(Clone)]
pub struct Grants {
    /// Its settings.
    pub config: Arc<BTreeMap<String, String>>,
    /// Its key-value store, if it has one.
    pub keyvalue: Option<KeyValueGrant>,
    /// Where its requests may go.
    pub http: Arc<HttpGrant>,
    /// Where its lines go.
    pub output: Output,
}

impl std::fmt::Debug for Grants {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grants").field("keyvalue", &self.keyvalue).field("http", &self.http).finish_non_exhaustive()
    }
}

/// What a handler says of an event that it has not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Try again later.
    Retry,
    /// Never try again.
    Reject,
}

/// A handler did not do a batch, or not all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What is to become of the first event that is not done.
    pub remedy: Remedy,
    /// Its place in the batch.
    pub index: usize,
    /// Why.
    pub message: String,
}

/// A call that did not end well. The instance is of no more use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// It took too long.
    #[error("{call} took longer than callTimeoutMs, which is {limit_ms}")]
    Timeout {
        /// The function that was called.
        call: &'static str,
        /// The limit.
        limit_ms: u64,
    },
    /// It trapped: a bug, a panic, a limit.
    #[error("{call} trapped: {report}")]
    Trapped {
        /// The function that was called.
        call: &'static str,
        /// The trap with the guest's backtrace, and the end of what it wrote to standard error.
        report: String,
    },
    /// It ended its own process.
    #[error("{call} exited with status {status}{report}")]
    Exited {
        /// The function that was called.
        call: &'static str,
        /// The status.
        status: i32,
        /// The end of what it wrote to standard error.
        report: String,
    },
    /// Its answer is none that the contract allows.
    #[error("{call} answered what it must not: {reason}")]
    WrongAnswer {
        /// The function that was called.
        call: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

impl CallError {
    /// The kind, as figures and answers name it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Timeout { .. } => "timeout",
            Self::Trapped { .. } => "trap",
            Self::Exited { .. } => "exit",
            Self::WrongAnswer { .. } => "wrong-answer",
        }
    }
}

/// Everything that belongs to one instance.
pub(super) struct State {
    table: ResourceTable,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    egress: Egress,
    config: Arc<BTreeMap<String, String>>,
    keyvalue: KeyValue,
    limiter: Limiter,
    call: Call,
}

/// The call under way.
struct Call {
    started: Instant,
    deadline: Instant,
    timed_out: bool,
    is_long: bool,
}

impl State {
    pub(super) fn keyvalue(&mut self) -> View<'_> {
        View { keyvalue: &mut self.keyvalue, table: &mut self.table }
    }
}

/// The whole state as what bindings work on.
pub(super) struct HasState;

impl HasData for HasState {
    type Data<'a> = &'a mut State;
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.egress, table: &mut self.table, ctx: &mut self.http }
    }
}

impl config::Host for State {
    fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<String>, config::Error>> {
        Ok(Ok(self.config.get(&key).cloned()))
    }

    fn get_all(&mut self) -> wasmtime::Result<Result<Vec<(String, String)>, config::Error>> {
        Ok(Ok(self.config.iter().map(|(name, value)| (name.clone(), value.clone())).collect()))
    }
}

/// An instance. After an error it must be replaced.
pub struct Instance {
    guest: Guest,
    limits: GuestLimits,
    output: Output,
    store: Store<State>,
    accept: Option<Func>,
    handle: Option<Func>,
    /// Called on the guest's thread when a call turns out to be a long one.
    on_long: fn(),
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instance").field("guest", &self.guest).finish_non_exhaustive()
    }
}

impl Instance {
    /// A fresh instance. Its start may run code of the guest and takes at most the time of a call. Blocks: not to be
    /// called on a thread of the async runtime. `on_long` is called on this thread when a call runs for long.
    pub fn new(guest: &Guest, grants: Grants, limits: GuestLimits, on_long: fn()) -> Result<Self, CallError> {
        let pipe = |stream| Pipe { output: grants.output.clone(), stream };
        let wasi = WasiCtx::builder()
            .stdout(pipe(Stream::Out))
            .stderr(pipe(Stream::Err))
            .allow_tcp(false)
            .allow_udp(false)
            .max_random_size(1 << 20)
            .build();
        let now = Instant::now();
        let state = State {
            table: ResourceTable::new(),
            wasi,
            http: WasiHttpCtx::new(),
            egress: Egress::new(grants.http, limits.requests_in_flight, limits.call_timeout),
            config: grants.config,
            keyvalue: KeyValue::new(grants.keyvalue),
            limiter: Limiter::new(limits),
            call: Call { started: now, deadline: now, timed_out: false, is_long: false },
        };
        let mut store = Store::new(&guest.0.runtime.engine, state);
        store.limiter(|state| &mut state.limiter);
        store.set_hostcall_fuel(COPIED_BYTES);
        store.epoch_deadline_callback(move |mut context| {
            let call = &mut context.data_mut().call;
            let now = Instant::now();
            if now >= call.deadline {
                call.timed_out = true;
                return Ok(UpdateDeadline::Interrupt);
            }
            if !call.is_long && now.duration_since(call.started) >= LONG {
                call.is_long = true;
                on_long();
            }
            Ok(UpdateDeadline::Continue(1))
        });
        let mut instance =
            Self { guest: guest.clone(), limits, output: grants.output, store, accept: None, handle: None, on_long };
        instance.start()?;
        Ok(instance)
    }

    fn start(&mut self) -> Result<(), CallError> {
        let compiled = self.guest.0.clone();
        let (accept, handle) = self.call("the start of the component", async |store| {
            let instance = compiled.instance.instantiate_async(&mut *store).await?;
            let mut function =
                |index: &Option<_>| index.as_ref().and_then(|index| instance.get_func(&mut *store, index));
            Ok((function(&compiled.accept), function(&compiled.handle)))
        })?;
        (self.accept, self.handle) = (accept, handle);
        Ok(())
    }

    /// `filtering.accept`: whether each event goes on.
    pub fn accept(&mut self, events: &[GuestEvent<'_>]) -> Result<Vec<bool>, CallError> {
        const CALL: &str = "accept";
        let Some(accept) = self.accept else {
            return Err(CallError::WrongAnswer { call: CALL, reason: "it exports no filtering".into() });
        };
        let events: Vec<WitEvent<'_>> = events.iter().map(lower).collect();
        let (accepted,) = self.call(CALL, async |store| {
            accept.typed::<Events<'_>, Accepted>(&*store)?.call_async(&mut *store, (&events,)).await
        })?;
        if accepted.len() == events.len() {
            return Ok(accepted);
        }
        let reason = format!("{} answers for {} events", accepted.len(), events.len());
        Err(CallError::WrongAnswer { call: CALL, reason })
    }

    /// `handling.handle`: does its work for each event.
    pub fn handle(&mut self, events: &[GuestEvent<'_>]) -> Result<Result<(), Failure>, CallError> {
        const CALL: &str = "handle";
        let Some(handle) = self.handle else {
            return Err(CallError::WrongAnswer { call: CALL, reason: "it exports no handling".into() });
        };
        let events: Vec<WitEvent<'_>> = events.iter().map(lower).collect();
        let (handled,) = self.call(CALL, async |store| {
            handle.typed::<Events<'_>, Handled>(&*store)?.call_async(&mut *store, (&events,)).await
        })?;
        let Err(failure) = handled else { return Ok(Ok(())) };
        let wrong = |reason| Err(CallError::WrongAnswer { call: CALL, reason });
        if failure.message.len() > MESSAGE_BYTES {
            return wrong(format!("a message of {} bytes, where {MESSAGE_BYTES} are the most", failure.message.len()));
        }
        let index = failure.index as usize;
        if index >= events.len() {
            return wrong(format!("event {index} of a batch of {} is not done", events.len()));
        }
        let remedy = match failure.remedy {
            WitRemedy::Retry => Remedy::Retry,
            WitRemedy::Reject => Remedy::Reject,
        };
        Ok(Err(Failure { remedy, index, message: failure.message }))
    }

    /// What was written into its key-value store since the last call of this, and how much it keeps with it.
    pub fn take_writes(&mut self) -> (Vec<KeyWrite>, Usage) {
        self.store.data_mut().keyvalue.take()
    }

    /// How much linear memory it has, in bytes. Such memory only grows.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.store.data().limiter.memory_bytes
    }

    /// Whether the last call ran for long.
    #[must_use]
    pub fn was_long(&self) -> bool {
        self.store.data().call.is_long
    }

    fn call<T>(
        &mut self,
        name: &'static str,
        call: impl AsyncFnOnce(&mut Store<State>) -> wasmtime::Result<T>,
    ) -> Result<T, CallError> {
        let runtime = self.guest.0.runtime.clone();
        let started = Instant::now();
        let deadline = started + self.limits.call_timeout;
        self.store.data_mut().call = Call { started, deadline, timed_out: false, is_long: false };
        self.store.data_mut().limiter.refused = None;
        self.store.set_epoch_deadline(1);
        let running = runtime.clock.run();
        // The epoch ends what runs; what waits in a host call (for an answer, for a timer) is ended from outside.
        let outcome = runtime
            .tasks
            .block_on(async { tokio::time::timeout_at((deadline + TICK * 2).into(), call(&mut self.store)).await });
        drop(running);
        if !self.store.data().call.is_long && started.elapsed() >= LONG {
            self.store.data_mut().call.is_long = true;
            (self.on_long)();
        }
        self.output.flush();
        match outcome {
            Ok(Ok(answer)) => {
                // What it wrote to standard error is the report of a trap only.
                self.output.take_error_tail();
                Ok(answer)
            }
            Ok(Err(error)) => Err(self.ended(name, &error)),
            Err(_elapsed) => Err(self.timed_out(name)),
        }
    }

    fn timed_out(&self, call: &'static str) -> CallError {
        CallError::Timeout { call, limit_ms: u64::try_from(self.limits.call_timeout.as_millis()).unwrap_or(u64::MAX) }
    }

    fn ended(&self, call: &'static str, error: &wasmtime::Error) -> CallError {
        if self.store.data().call.timed_out {
            return self.timed_out(call);
        }
        // On one line, because whoever shows only the first shall show the cause.
        let stderr = self.output.take_error_tail().replace('\n', " | ");
        let stderr = if stderr.is_empty() { stderr } else { format!("; its standard error ends with: {stderr}") };
        if let Some(I32Exit(status)) = error.downcast_ref::<I32Exit>() {
            return CallError::Exited { call, status: *status, report: stderr };
        }
        let refused = self.store.data().limiter.refused.clone();
        let refused = refused.map(|refused| format!("; {refused}")).unwrap_or_default();
        // The outermost words are the guest's backtrace; what the host was doing is of no use to the guest's author.
        let mut report = format!("{}{refused}{stderr}\n{error}", error.root_cause());
        let mut end = report.len().min(REPORT_BYTES);
        while !report.is_char_boundary(end) {
            end -= 1;
        }
        report.truncate(end);
        CallError::Trapped { call, report }
    }
}

fn lower<'a>(event: &GuestEvent<'a>) -> WitEvent<'a> {
    WitEvent {
        sequence: event.sequence,
        id: event.id,
        timestamp: event.timestamp_ms,
        table: event.table,
        key: event.key,
        operation: match event.operation {
            StoreOperation::Insert => Operation::Insert,
            StoreOperation::Update => Operation::Update,
            StoreOperation::Delete => Operation::Delete,
            StoreOperation::Truncate => Operation::Truncate,
        },
        before: event.before,
        after: event.after,
        schema_version: event.schema_version,
        origin: event.origin.map(|origin| Origin {
            source: &origin.source,
            transaction: origin.transaction.as_deref(),
            position: event.position,
            snapshot: origin.snapshot,
            committed_at: origin.committed_at_ms,
            // The engine wrote it.
            unavailable: origin
                .unavailable
                .as_deref()
                .and_then(|names| serde_json::from_str(names).ok())
                .unwrap_or_default(),
        }),
    }
}
