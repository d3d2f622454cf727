//! Serves the component on a port.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::{Config, Engine, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView};

use crate::provider::{Edge, HasView, Provider, Steps, View};

/// The component, served. Dropped, it is gone, as after a crash.
pub struct EdgeServer {
    address: SocketAddr,
    _runtime: Runtime,
}

impl EdgeServer {
    /// Serves the component over a provider. `steps` says how many calls the instance of each request, counted from
    /// 0, may make to the provider.
    pub fn start(provider: Provider, steps: impl Fn(u64) -> Steps + Send + Sync + 'static) -> Self {
        Self::start_file(crate::component(), ([127, 0, 0, 1], 0).into(), provider, steps)
    }

    /// Serves another component, on this address.
    pub fn start_file(
        file: &Path,
        address: SocketAddr,
        provider: Provider,
        steps: impl Fn(u64) -> Steps + Send + Sync + 'static,
    ) -> Self {
        let mut config = Config::new();
        config.wasm_component_model(true);
        config.concurrency_support(false);
        let engine = Engine::new(&config).unwrap();
        let component = Component::from_file(&engine, file).unwrap();
        let mut linker = Linker::<State>::new(&engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker).unwrap();
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker).unwrap();
        Edge::add_to_linker::<_, HasView>(&mut linker, State::keyvalue).unwrap();
        let pre = ProxyPre::new(linker.instantiate_pre(&component).unwrap()).unwrap();

        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind(address)).unwrap();
        let address = listener.local_addr().unwrap();
        let front = Arc::new(Front { pre, provider, steps: Box::new(steps), requests: AtomicU64::new(0) });
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // An answer in several pieces would wait for the client's acknowledgement otherwise.
                let _ = client.set_nodelay(true);
                let front = front.clone();
                tokio::spawn(async move {
                    let service = hyper::service::service_fn(move |request| front.clone().answer(request));
                    // A client that breaks off is its own business.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(client), service)
                        .await;
                });
            }
        });
        Self { address, _runtime: runtime }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

struct Front {
    pre: ProxyPre<State>,
    provider: Provider,
    steps: Box<dyn Fn(u64) -> Steps + Send + Sync>,
    requests: AtomicU64,
}

type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, Error>;

impl Front {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Body>, wasmtime::Error> {
        let steps = (self.steps)(self.requests.fetch_add(1, Ordering::Relaxed));
        let state = State {
            table: ResourceTable::new(),
            wasi: WasiCtx::builder().inherit_stderr().build(),
            http: WasiHttpCtx::new(),
            hooks: NoEgress,
            provider: self.provider.clone(),
            steps,
        };
        let mut store = Store::new(self.pre.engine(), state);
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let request = store.data_mut().http().new_incoming_request(Scheme::Http, request)?;
        let out = store.data_mut().http().new_response_outparam(sender)?;
        let pre = self.pre.clone();
        let task = tokio::spawn(async move {
            let proxy = pre.instantiate_async(&mut store).await?;
            proxy.wasi_http_incoming_handler().call_handle(store, request, out).await
        });
        match receiver.await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Ok(failed(&format!("{error:?}"))),
            Err(_) => {
                let ended = task.await.map(|ended| ended.map_err(|error| format!("{error:#}")));
                Ok(failed(&format!("the instance gave no answer: {ended:?}")))
            }
        }
    }
}

fn failed(message: &str) -> Response<Body> {
    let body = Full::new(Bytes::from(message.to_owned())).map_err(|never| match never {}).boxed_unsync();
    let mut answer = Response::new(body);
    *answer.status_mut() = hyper::StatusCode::BAD_GATEWAY;
    answer
}

struct State {
    table: ResourceTable,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    hooks: NoEgress,
    provider: Provider,
    steps: Steps,
}

impl State {
    fn keyvalue(&mut self) -> View<'_> {
        View { provider: &self.provider, steps: &mut self.steps, table: &mut self.table }
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.hooks, table: &mut self.table, ctx: &mut self.http }
    }
}

/// The component calls nobody.
struct NoEgress;

type Sent = Result<(Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>), Error>;

impl WasiHttpHooks for NoEgress {
    fn send_request(
        &mut self,
        _request: Request<WasiBody>,
        _options: Option<RequestOptions>,
        _processed: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        Box::new(std::future::ready(Err(Error::HttpRequestDenied)))
    }
}
