//! The connection that a request came over, as far as answers have to do with it.

use std::any::Any;
use std::sync::Arc;

use tokio::sync::Notify;

/// A client's connection. Whoever goes on with it after HTTP (a WebSocket) holds on to this.
#[derive(Debug)]
pub struct Connection {
    cut: Arc<Notify>,
    is_shared: bool,
    _held: Box<dyn Any + Send + Sync>,
}

impl Connection {
    /// A connection that counts as open while `held` is kept. It is shared when requests run beside each other on it
    /// (HTTP/2).
    pub fn new(is_shared: bool, held: impl Any + Send + Sync) -> Arc<Self> {
        Arc::new(Self { cut: Arc::default(), is_shared, _held: Box::new(held) })
    }

    /// Waits until the connection is to be cut.
    pub async fn cut(&self) {
        self.cut.notified().await;
    }

    /// What cuts the connection; none when that would end other requests too.
    pub(super) fn scissors(&self) -> Option<Arc<Notify>> {
        (!self.is_shared).then(|| self.cut.clone())
    }

    /// Whether requests run beside each other on it.
    pub(super) fn is_shared(&self) -> bool {
        self.is_shared
    }
}
