//! `cdc component check`.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::{AuthoringError, CheckSettings};
use crate::guest::{Grants, Guest, GuestLimits, HttpGrant, Instance, Output, Runtime, RuntimeOptions};
use crate::native_code::{CompileWith, hex};

/// Tells what a component is, as text for a person. It is an error if it cannot be a subscriber.
pub fn check(settings: &CheckSettings, tasks: tokio::runtime::Handle) -> Result<String, AuthoringError> {
    let path = &settings.file;
    let bytes = fs::read(path).map_err(|source| AuthoringError::Unreadable { path: path.clone(), source })?;
    let runtime = Runtime::new(&RuntimeOptions { instances: 8, ..RuntimeOptions::default() }, tasks)?;
    let guest = Guest::load(&runtime, &bytes, None, &CompileWith::ThisProcess)
        .map_err(|source| AuthoringError::Misfit { path: path.clone(), source })?;
    let mut text = format!(
        "{}: a component of the world {}\n  size    {} bytes\n  sha256  {}\n",
        path.display(),
        guest.world().as_str(),
        bytes.len(),
        hex(&Sha256::digest(&bytes))
    );
    text.push_str("imports\n");
    for import in guest.imports() {
        text.push_str(&format!("  {import}{}\n", needs(import)));
    }
    let limits = GuestLimits::default();
    text.push_str(&format!(
        "limits by default\n  memoryBytes {}, tableElements {}, instances {}, callTimeoutMs {}, logBytesPerSecond {}, \
         requestsInFlight {}\n",
        limits.memory_bytes,
        limits.table_elements,
        limits.instances,
        limits.call_timeout.as_millis(),
        limits.log_bytes_per_second,
        limits.requests_in_flight
    ));
    let grants = Grants {
        config: Arc::new(BTreeMap::new()),
        keyvalue: None,
        http: Arc::new(HttpGrant::default()),
        output: Output::new(0, Arc::new(|_, _| {})),
    };
    match Instance::new(&guest, grants, limits, || {}) {
        Ok(instance) => {
            text.push_str(&format!("  starts within them, with {} bytes of memory\n", instance.memory_bytes()));
            Ok(text)
        }
        Err(source) => Err(AuthoringError::NoStart { path: path.clone(), source }),
    }
}

/// What of a subscription an import needs to be of use.
fn needs(import: &str) -> &'static str {
    if import.starts_with("wasi:config/") {
        "  (settings: grants.config)"
    } else if import.starts_with("wasi:keyvalue/") {
        "  (needs grants.keyvalue)"
    } else if import.starts_with("wasi:http/outgoing-handler") {
        "  (needs grants.http, with each origin)"
    } else if import.starts_with("wasi:filesystem/") || import.starts_with("wasi:sockets/") {
        "  (there are none: every call fails)"
    } else if import.starts_with("wasi:cli/environment") {
        "  (empty)"
    } else {
        ""
    }
}
