//! TLS as libpq's `sslmode` describes it.

use std::sync::Arc;

use rustls::ClientConfig;

use super::address::{Address, SslMode};
use super::wire::WireError;
use crate::tls::{Trust, client_config};

/// How a server at this address is verified.
pub(super) fn config(address: &Address) -> Result<Arc<ClientConfig>, WireError> {
    let trust = match (address.ssl_mode, &address.ca_file) {
        (SslMode::VerifyFull, _) => Trust::Name,
        (SslMode::VerifyCa, _) | (SslMode::Require, Some(_)) => Trust::Authority,
        _ => Trust::Anybody,
    };
    client_config(trust, address.ca_file.as_deref()).map_err(WireError::Tls)
}
