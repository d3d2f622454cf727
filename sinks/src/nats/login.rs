//! Logging in, once for each connection.
//!
//! The client library would make a lost connection anew and send what still waits in it, behind our back and behind
//! what a new connection has sent meanwhile: events of a row in the wrong order. It cannot be told not to, but it asks
//! for a login each time, and gets one only the first time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_nats::{Auth, AuthError, ConnectOptions};

use cdc_access::Reach;

use super::{NatsFailure, Options};

/// What the server is told.
#[derive(Clone, Default)]
struct Login {
    user: Option<String>,
    password: Option<String>,
    token: Option<String>,
    jwt: Option<String>,
    seed: Option<String>,
}

/// Options that log in until the switch says that they have.
pub(super) fn options(options: &Options, is_in: Arc<AtomicBool>, reach: &Reach) -> Result<ConnectOptions, NatsFailure> {
    let mut login = Login { user: options.user.clone(), ..Login::default() };
    if let Some(password) = &options.password {
        login.password = Some(password.reveal()?.into_owned());
    }
    if let Some(token) = &options.token {
        login.token = Some(token.reveal()?.into_owned());
    }
    if let Some(seed) = &options.nkey_seed {
        login.seed = Some(seed.reveal()?.trim().to_owned());
    }
    if let Some(file) = &options.credentials_file {
        let text = reach.read_file(file)?;
        let (jwt, seed) = credentials(&String::from_utf8_lossy(&text)).ok_or(NatsFailure::NoCredentials)?;
        (login.jwt, login.seed) = (Some(jwt), Some(seed));
    }
    Ok(ConnectOptions::with_auth_callback(move |nonce| {
        let auth = if is_in.load(Ordering::Acquire) {
            Err(AuthError::new("a connection that was lost is not made anew"))
        } else {
            login.auth(&nonce)
        };
        std::future::ready(auth)
    }))
}

impl Login {
    fn auth(&self, nonce: &[u8]) -> Result<Auth, AuthError> {
        let mut auth = Auth::new();
        auth.username = self.user.clone();
        auth.password = self.password.clone();
        auth.token = self.token.clone();
        if let Some(seed) = &self.seed {
            let pair = nkeys::KeyPair::from_seed(seed).map_err(|_| AuthError::new("the seed is none"))?;
            auth.signature = Some(pair.sign(nonce).map_err(|_| AuthError::new("the seed cannot sign"))?);
            // A JWT names the key itself.
            auth.nkey = self.jwt.is_none().then(|| pair.public_key());
        }
        auth.jwt = self.jwt.clone();
        Ok(auth)
    }
}

/// The JWT and the seed of a `.creds` file: each between a line of `BEGIN` and one of `END`.
fn credentials(text: &str) -> Option<(String, String)> {
    let block = |name: &str| {
        let begin = format!("BEGIN {name}");
        let mut lines =
            text.lines().map(str::trim).skip_while(|line| !(line.starts_with('-') && line.contains(&begin)));
        lines.next()?;
        lines.find(|line| !line.is_empty()).filter(|line| !line.starts_with("---")).map(str::to_owned)
    };
    Some((block("NATS USER JWT")?, block("USER NKEY SEED")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credentials_file_has_a_jwt_and_a_seed() {
        let text = "-----BEGIN NATS USER JWT-----\neyJ0.x.y\n------END NATS USER JWT------\n\n\
            ************************* IMPORTANT *************************\n\n\
            -----BEGIN USER NKEY SEED-----\nSUAX\n------END USER NKEY SEED------\n";
        assert_eq!(credentials(text), Some(("eyJ0.x.y".into(), "SUAX".into())));
        assert_eq!(credentials(&text.replace('\n', "\r\n")), Some(("eyJ0.x.y".into(), "SUAX".into())));
        assert_eq!(credentials("-----BEGIN NATS USER JWT-----\neyJ0\n------END NATS USER JWT------"), None);
        assert_eq!(credentials(""), None);
    }
}
