//! What no message of a sink may show, taken out of every message.
//!
//! Our own messages quote no secret. What libraries, receivers and drivers say is not ours: a receiver may answer with
//! the header that it was sent, a library with the value that it does not like. So whatever leaves a sink passes here.

use percent_encoding::percent_decode_str;

use crate::Failure;
use crate::secret::Secret;

/// What stands for a secret.
const STARS: &str = "***";
/// A text that is shorter is no secret, and would be found everywhere.
const SHORTEST: usize = 3;
/// Paths and queries of addresses that are shorter hold no token.
const SHORTEST_PATH: usize = 8;

/// The secrets of a sink.
#[derive(Default)]
pub(crate) struct Hidden(Vec<Secret>, Vec<Secret>);

impl Hidden {
    /// Hides secrets.
    pub(crate) fn with<'a>(mut self, secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        self.0.extend(secrets.into_iter().cloned());
        self
    }

    /// Hides an address: whole, its password, its path and its query.
    pub(crate) fn with_url(mut self, url: &Secret) -> Self {
        self.1.push(url.clone());
        self
    }

    /// A failure with what lies behind it in one message, which shows none of the secrets.
    pub(crate) fn failure(&self, failure: Failure) -> Failure {
        let mut text = failure.message.clone();
        let mut source = std::error::Error::source(&failure);
        while let Some(behind) = source {
            let more = behind.to_string();
            if !text.contains(&more) {
                text = format!("{text}: {more}");
            }
            source = behind.source();
        }
        Failure { message: self.text(text), source: None, ..failure }
    }

    /// A text without the secrets in it.
    pub(crate) fn text(&self, text: String) -> String {
        let mut secrets: Vec<String> = Vec::new();
        secrets.extend(self.0.iter().filter_map(|secret| Some(secret.reveal().ok()?.trim().to_owned())));
        for url in self.1.iter().filter_map(|url| url.reveal().ok()) {
            secrets.extend(of_url(&url));
        }
        secrets.retain(|secret| secret.len() >= SHORTEST);
        // The longest first: another may be a part of it.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        let text = secrets.iter().fold(text, |text, secret| text.replace(secret.as_str(), STARS));
        // What a receiver says is shown on terminals and in logs.
        text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
    }
}

/// What is secret of an address: all of it, its password as it stands there and decoded, its path and its query.
fn of_url(url: &str) -> Vec<String> {
    let mut secrets = vec![url.to_owned()];
    let Some((_, rest)) = url.split_once("://") else { return secrets };
    if let Some((account, _)) = rest.rsplit_once('@') {
        let password = match account.split_once(':') {
            Some((_, password)) => Some(password),
            // A database's user is none, and stands in the SQL that a message says to run; elsewhere it may be a token.
            None => Some(account).filter(|_| !url.starts_with("postgres")),
        };
        if let Some(password) = password {
            secrets.push(password.to_owned());
            secrets.extend(percent_decode_str(password).decode_utf8().map(|decoded| decoded.into_owned()));
        }
    }
    if url.starts_with("http")
        && let Some(start) = rest.find(['/', '?'])
        && rest.len() - start >= SHORTEST_PATH
    {
        let path = &rest[start..];
        secrets.push(path.to_owned());
        let parts = path.split(['/', '?', '&', '=']).filter(|part| part.len() >= SHORTEST_PATH);
        secrets.extend(parts.map(str::to_owned));
    }
    secrets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_quotes_a_secret_is_not_repeated() {
        let hidden = Hidden::default()
            .with(&[Secret::from("hunter2\n"), Secret::from("x"), Secret::Env("CDC_SECRET_NOT_SET".into())])
            .with_url(&Secret::from("postgres://u:gehe%20im@h/d"))
            .with_url(&Secret::from("postgres://writer@h/d"))
            .with_url(&Secret::from("nats://t0ken@h"))
            .with_url(&Secret::from("https://h/hooks/T0KEN-T0KEN?key=0123456789"));
        for (said, shown) in [
            ("Bearer hunter2 is unknown", "Bearer *** is unknown"),
            ("bad gehe%20im and gehe im", "bad *** and ***"),
            ("Cannot POST /hooks/T0KEN-T0KEN?key=0123456789", "Cannot POST ***"),
            ("no hook T0KEN-T0KEN", "no hook ***"),
            ("x is fine", "x is fine"),
            ("GRANT CREATE TO writer, says t0ken", "GRANT CREATE TO writer, says ***"),
            ("red\u{1b}[31m\r\nforged\u{9b}", "red [31m  forged "),
        ] {
            assert_eq!(hidden.text(said.to_owned()), shown);
        }
        let behind = std::io::Error::other("it was hunter2");
        let failure = hidden.failure(Failure::retry(3, "no login").because(behind));
        assert_eq!((failure.index, failure.message.as_str()), (3, "no login: it was ***"));
        assert!(failure.source.is_none());
    }
}
