//! Log lines on stderr: text for people, JSON for collectors.
//!
//! A log line must never harm the service: when stderr is closed or full, lines are lost in silence, because the
//! subscriber's own report of that failure would go to the same place and panic.

use std::io::IsTerminal;
use std::str::FromStr;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One compact line with the time in UTC, coloured on a terminal.
    Text,
    /// One JSON object per line.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("text or json".to_owned()),
        }
    }
}

/// Why logging could not start.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter does not parse.
    #[error("log filter {filter:?} is not valid: {source}")]
    Filter {
        /// The filter as given.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// The process logs already.
    #[error("logging was started twice")]
    Started(#[from] tracing_subscriber::util::TryInitError),
}

/// Starts logging for the whole process; call it once, before anything logs.
pub fn init(format: LogFormat, filter: &str) -> Result<(), LoggingError> {
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    subscriber(format, filter, colour, std::io::stderr)?.try_init()?;
    Ok(())
}

fn subscriber<W>(
    format: LogFormat,
    filter: &str,
    colour: bool,
    writer: W,
) -> Result<Box<dyn tracing::Subscriber + Send + Sync>, LoggingError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let targets: Targets =
        filter.parse().map_err(|source| LoggingError::Filter { filter: filter.to_owned(), source })?;
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(colour).log_internal_errors(false);
    let registry = tracing_subscriber::registry().with(targets);
    Ok(match format {
        LogFormat::Text => Box::new(registry.with(lines.compact())),
        LogFormat::Json => Box::new(registry.with(lines.json().flatten_event(true))),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("unpoisoned").write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn lines(format: LogFormat, filter: &str) -> String {
        let captured = Captured::default();
        let writer = captured.clone();
        let subscriber = subscriber(format, filter, false, move || writer.clone()).expect("a valid filter");
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(events = 3, "captured");
            tracing::debug!("hidden");
        });
        String::from_utf8(captured.0.lock().expect("unpoisoned").clone()).expect("UTF-8")
    }

    #[test]
    fn text_lines_carry_time_level_message_and_fields_without_colour() {
        let text = lines(LogFormat::Text, "info");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.starts_with("20") && text.contains(" INFO ") && text.contains("captured events=3"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }

    #[test]
    fn json_lines_are_flat_objects() {
        let text = lines(LogFormat::Json, "info");
        let line: serde_json::Value = serde_json::from_str(&text).expect("one JSON object");
        assert_eq!((line["level"].as_str(), line["message"].as_str()), (Some("INFO"), Some("captured")));
        assert_eq!(line["events"], 3);
        assert!(line["timestamp"].is_string());
    }

    #[test]
    fn the_filter_decides_what_is_written() {
        assert_eq!(lines(LogFormat::Text, "warn"), "");
        assert_eq!(lines(LogFormat::Text, "debug").lines().count(), 2);
        let error = init(LogFormat::Text, "a=b=c").expect_err("no filter");
        assert!(error.to_string().contains("\"a=b=c\""), "{error}");
    }
}
