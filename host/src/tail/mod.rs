//! `cdc tail`: the events of a running service, one per line, as they come.
//!
//! It polls `GET /events` and keeps its place by sequence number, so a restart of the service costs no event. What it
//! cannot show, because retention was faster or the log went back, it says on stderr. Events go to stdout: with
//! `--json` byte for byte as the service sent them, else as lines for people.

mod follow;
mod line;
mod page;
mod settings;
#[cfg(test)]
mod tests;

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::pin::Pin;

pub(crate) use settings::{DEFAULT_URL, service_url};
pub use settings::{TailServer, TailSettings};

use crate::client::{Answer, Service};
use crate::terminal::plain;
use follow::{Follower, Next, Setback};
use line::Style;
use page::{Event, Page, Problem};

/// Why a tail ended before it was done.
#[derive(Debug, thiserror::Error)]
pub enum TailError {
    /// The service cannot be asked, or does not answer what was asked.
    #[error("{url}: {reason}")]
    Service {
        /// The service.
        url: http::Uri,
        /// What is wrong.
        reason: String,
    },
    /// Events cannot be written to stdout.
    #[error("cannot write events: {0}")]
    Output(#[source] io::Error),
}

/// Follows until there is nothing more to do, the reader of stdout has gone, or `stop` completes.
pub async fn run(settings: &TailSettings, stop: Pin<Box<dyn Future<Output = ()>>>) -> Result<(), TailError> {
    let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let style = if colour { Style::Coloured } else { Style::Plain };
    let (mut out, mut notes) = (io::stdout(), io::stderr());
    tokio::select! {
        ended = follow(settings, style, &mut out, &mut notes) => ended,
        () = stop => Ok(()),
    }
}

async fn follow(
    settings: &TailSettings,
    style: Style,
    out: &mut impl Write,
    notes: &mut impl Write,
) -> Result<(), TailError> {
    let service = Service::new(settings.server.url.clone());
    let failed = |reason: String| TailError::Service { url: service.url().clone(), reason };
    let mut follower = Follower::new(settings);
    // Nobody is left to tell when stderr is gone: events go on.
    let mut note = |text: &str| drop(writeln!(notes, "cdc tail: {text}"));
    loop {
        let was_failing = follower.is_failing();
        let setback = match service.get(&follower.path()).await {
            Ok(Answer { status, body, .. }) if status.is_success() => {
                let page = serde_json::from_slice::<Page<'_>>(&body)
                    .map_err(|error| failed(format!("the answer is no page of events: {error}")))?;
                if was_failing {
                    note(&format!("{} answers again", service.url()));
                }
                let (shown, next) = follower.take(&page);
                let lines = lines(&page, shown, settings.json, style).map_err(failed)?;
                match out.write_all(&lines).and_then(|()| out.flush()) {
                    Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
                    written => written.map_err(TailError::Output)?,
                }
                match next {
                    Next::Ask => {}
                    Next::Wait => tokio::time::sleep(settings.server.interval).await,
                    Next::Stop => return Ok(()),
                }
                continue;
            }
            Ok(Answer { status, retry_after, body }) => {
                let problem = serde_json::from_slice::<Problem>(&body).unwrap_or_default();
                follower.refused(status, &problem, retry_after)
            }
            Err(reason) => follower.failed(&reason, None),
        };
        match setback {
            Setback::Moved(text) => note(&text),
            Setback::Retry(text, delay) => {
                if let Some(text) = text {
                    note(&format!("{}: {text}", service.url()));
                }
                tokio::time::sleep(delay).await;
            }
            Setback::GiveUp(reason) => return Err(failed(reason)),
        }
    }
}

/// The first `shown` events of a page, each with its line's end.
fn lines(page: &Page<'_>, shown: usize, json: bool, style: Style) -> Result<Vec<u8>, String> {
    let mut lines = String::new();
    for raw in page.events.iter().take(shown) {
        if json {
            // An image may hold the line ends it was sent with; in JSON they only ever stand between tokens.
            let line: String = raw.get().chars().map(|c| if matches!(c, '\n' | '\r') { ' ' } else { c }).collect();
            lines.push_str(&plain(&line));
        } else {
            let event: Event<'_> =
                serde_json::from_str(raw.get()).map_err(|error| format!("the answer holds no event: {error}"))?;
            line::write_line(&mut lines, &event, style);
        }
        lines.push('\n');
    }
    Ok(lines.into_bytes())
}
