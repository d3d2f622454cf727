//! Refusals and failures as clients see them: RFC 9457 problem details with a stable `code`, and the seed
//! implementation's `error` string as an extra member.

use std::borrow::Cow;
use std::time::Duration;

use crate::{Capability, Code, ComponentName, Limits, MAX_REFUSED, PROBLEM_JSON, SourceName, SubscriptionId, json};

/// A request that did not succeed, and why. What it says of our own side hides the internals: those go to the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct Problem {
    code: Code,
    detail: Cow<'static, str>,
    /// What a program may want to know, by name.
    members: Vec<(&'static str, Member)>,
    /// Replaces the code's own `error` string.
    error: Option<Cow<'static, str>>,
    /// A header that tells the client how to do better, beside the content type.
    hint: Option<(&'static str, Cow<'static, str>)>,
}

/// The value of an extra member.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Member {
    Number(u64),
    Text(String),
}

impl Problem {
    /// A problem of the given kind. The detail says what was wrong this time and what to do.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code, detail: detail.into(), members: Vec::new(), error: None, hint: None }
    }

    /// The engine refused a change or a declaration. `code` is the one that carries the name of the `refusal-code`.
    pub fn refused(code: Code, message: String, column: Option<String>) -> Self {
        let problem = Self::new(code, message);
        match column {
            Some(column) => problem.with_text("column", column),
            None => problem,
        }
    }

    /// There is no such table.
    pub fn unknown_table(table: &str) -> Self {
        Self::new(Code::UnknownTable, format!("there is no table {}", excerpt(table)))
            .with_error(format!("Table {table} not found"))
    }

    /// There is no such table, when its schema was asked for.
    pub fn unknown_schema(table: &str) -> Self {
        Self::unknown_table(table).with_error("Schema not found")
    }

    /// The table's schema never had this version.
    pub fn unknown_version(table: &str, version: u32) -> Self {
        Self::new(Code::UnknownVersion, format!("the schema of {} has no version {version}", excerpt(table)))
    }

    /// There is no such row.
    pub fn unknown_row(table: &str, key: &str) -> Self {
        Self::new(Code::UnknownRow, format!("table {} has no row {}", excerpt(table), excerpt(key)))
    }

    /// Retention has dropped what was asked for.
    pub fn dropped(oldest: u64) -> Self {
        Self::new(
            Code::Dropped,
            format!("the oldest event that is kept is {oldest}; ask from there, or take a snapshot first"),
        )
        .with_number("oldestSequence", oldest)
    }

    /// The sequence number lies beyond the newest event.
    pub fn in_the_future(newest: u64) -> Self {
        Self::new(Code::InTheFuture, format!("the newest event is {newest}")).with_number("currentSequence", newest)
    }

    /// More keys have changed since then than may be looked back over.
    pub fn too_far_back(max_keys: u32) -> Self {
        Self::new(
            Code::TooFarBack,
            format!("more than {max_keys} rows have changed since; ask for a later sequence number"),
        )
        .with_number("limit", u64::from(max_keys))
    }

    /// The body is larger than `max_bytes`.
    pub fn body_too_large(max_bytes: u64) -> Self {
        Self::new(Code::BodyTooLarge, format!("the body may have at most {max_bytes} bytes"))
            .with_number("limit", max_bytes)
    }

    /// The component is larger than `max_bytes`.
    pub fn component_too_large(max_bytes: u64) -> Self {
        Self::new(Code::ComponentTooLarge, format!("a component may have at most {max_bytes} bytes"))
            .with_number("limit", max_bytes)
    }

    /// There is no such subscription.
    pub fn unknown_subscription(id: &SubscriptionId) -> Self {
        Self::new(Code::UnknownSubscription, format!("there is no subscription {}", excerpt(id.as_str())))
    }

    /// There is no such component.
    pub fn unknown_component(name: &ComponentName) -> Self {
        let detail =
            format!("there is no component {0}; upload it with PUT /components/{1}", excerpt(name.as_str()), name);
        Self::new(Code::UnknownComponent, detail)
    }

    /// The component never had this version.
    pub fn unknown_component_version(name: &ComponentName, version: u32) -> Self {
        let detail = format!("component {} has no version {version}", excerpt(name.as_str()));
        Self::new(Code::UnknownComponentVersion, detail)
    }

    /// There is no such source.
    pub fn unknown_source(name: &SourceName) -> Self {
        let detail = format!(
            "there is no source {}; sources stand in the configuration file, as [sources.some-name]",
            excerpt(name.as_str())
        );
        Self::new(Code::UnknownSource, detail)
    }

    /// The source is in a state in which this cannot be done.
    pub fn wrong_source_state(detail: impl Into<Cow<'static, str>>, state: &'static str) -> Self {
        Self::new(Code::WrongSourceState, detail).with_text("state", state)
    }

    /// The source has no such table.
    pub fn unknown_source_table(source: &SourceName, table: &str) -> Self {
        let detail = format!("source {source} has no table {}; GET /sources/{source} lists its tables", excerpt(table));
        Self::new(Code::UnknownSourceTable, detail)
    }

    /// A source's table is in a state in which this cannot be done.
    pub fn wrong_table_state(detail: impl Into<Cow<'static, str>>, state: &'static str) -> Self {
        Self::new(Code::WrongTableState, detail).with_text("state", state)
    }

    /// A row, in a body of its own or on a line, is longer than allowed.
    pub fn row_too_large(limits: &Limits) -> Self {
        Self::new(Code::RowTooLarge, format!("a row may have at most {} bytes", limits.max_row_bytes))
            .with_number("limit", limits.max_row_bytes as u64)
    }

    /// The request did not arrive in time.
    pub fn request_timeout(limit: Duration) -> Self {
        Self::new(Code::RequestTimeout, format!("the request did not arrive within {limit:?}"))
    }

    /// The header fields are larger than allowed.
    pub fn headers_too_large(max_bytes: u64) -> Self {
        Self::new(Code::HeadersTooLarge, format!("the header fields may have at most {max_bytes} bytes"))
            .with_number("limit", max_bytes)
    }

    /// The request does not ask for a WebSocket, or not in the one way there is.
    pub fn upgrade_required(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::UpgradeRequired, detail).with_hint("upgrade", "websocket")
    }

    /// The client speaks another version of the WebSocket protocol.
    pub fn websocket_version() -> Self {
        Self::new(Code::UpgradeRequired, "WebSocket is spoken in version 13").with_hint("sec-websocket-version", "13")
    }

    /// A browser's page that may not use the API wants to open a WebSocket, or to change something.
    pub fn foreign_origin(origin: &str) -> Self {
        let detail = format!("pages of {} may not connect; the option cors-origin says which may", excerpt(origin));
        Self::new(Code::ForeignOrigin, detail)
    }

    /// A request is for a host that is not the service.
    pub fn unknown_host(host: &str) -> Self {
        let detail = format!(
            "the service is not known as {}; the option allowed-hosts names the hosts that it is, beside localhost and \
             the address that it listens on",
            excerpt(host)
        );
        Self::new(Code::UnknownHost, detail)
    }

    /// As many streams as may be open are open.
    pub fn too_many_streams(max_streams: usize, retry_after_seconds: u32) -> Self {
        Self::new(Code::TooManyStreams, "as many streams as may be open are open; poll GET /events, or try again later")
            .with_number("limit", max_streams as u64)
            .with_retry_after(retry_after_seconds)
    }

    /// A stream's reader has taken nothing for this long.
    pub fn too_slow(limit: Duration) -> Self {
        Self::new(
            Code::TooSlow,
            format!("nothing of what was sent was taken within {limit:?}; connect again to go on after the last event"),
        )
    }

    /// Too many writes are waiting already.
    pub fn queue_full(retry_after_seconds: u32) -> Self {
        Self::new(Code::QueueFull, "the write was not captured; try again later").with_retry_after(retry_after_seconds)
    }

    /// The disk, or the room that the service may use, is full. A 503 and not a 507: what is missing is on our side,
    /// and the same request succeeds once there is room again.
    pub fn storage_full(retry_after_seconds: u32) -> Self {
        Self::new(Code::StorageFull, "there is no room for more; an operator has to make some, reading still works")
            .with_retry_after(retry_after_seconds)
    }

    /// The store failed. What failed is in the log of the service.
    pub fn store_failed() -> Self {
        Self::new(Code::StoreFailed, "the store could not do it; the log of the service says why")
    }

    /// The engine trapped, or answered what it must not. Which is in the log of the service.
    pub fn engine_failed() -> Self {
        Self::new(Code::EngineFailed, "the engine could not do it; the log of the service says why")
    }

    /// This embedder of the contract lacks what the request needs.
    pub fn not_offered(capability: Capability) -> Self {
        let detail = format!("this runtime does not offer {}; {}", capability.as_str(), capability.instead());
        Self::new(Code::NotOffered, detail).with_text("capability", capability.as_str())
    }

    /// So many rows of a load were refused that the rest of it was not taken.
    pub fn too_many_refused() -> Self {
        Self::new(Code::TooManyRows, format!("{MAX_REFUSED} rows were refused: the load was stopped"))
    }

    /// The service is starting.
    pub fn not_ready(detail: impl Into<Cow<'static, str>>, retry_after_seconds: u32) -> Self {
        Self::new(Code::NotReady, detail).with_retry_after(retry_after_seconds)
    }

    /// The service is stopping.
    pub fn shutting_down(retry_after_seconds: u32) -> Self {
        Self::new(Code::ShuttingDown, "try again once the service is back").with_retry_after(retry_after_seconds)
    }

    /// Adds a member that is a number. The name is one that RFC 9457 does not define.
    #[must_use]
    pub fn with_number(mut self, name: &'static str, value: u64) -> Self {
        self.members.push((name, Member::Number(value)));
        self
    }

    /// Adds a member that is a text. The name is one that RFC 9457 does not define.
    #[must_use]
    pub fn with_text(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.members.push((name, Member::Text(value.into())));
        self
    }

    /// Says when to try again, in the `Retry-After` header.
    #[must_use]
    pub fn with_retry_after(self, seconds: u32) -> Self {
        self.with_hint("retry-after", seconds.to_string())
    }

    /// Sets the one header that tells the client how to do better.
    pub(crate) fn with_hint(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.hint = Some((name, value.into()));
        self
    }

    fn with_error(mut self, error: impl Into<Cow<'static, str>>) -> Self {
        self.error = Some(error.into());
        self
    }

    /// What kind of problem it is.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.code.status()
    }

    /// What was wrong this time.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The headers of the answer, names in lower case: the content type, and `allow`, `accept`, `accept-encoding` or
    /// `retry-after` where they help.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let hint = self.hint.as_ref().map(|(name, value)| (*name, value.as_ref()));
        std::iter::once(("content-type", PROBLEM_JSON)).chain(hint)
    }

    /// Writes the body of the answer.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"type\":\"urn:cdc:problem:");
        out.extend_from_slice(self.code.as_str().as_bytes());
        out.extend_from_slice(b"\",\"title\":");
        json::string(out, self.code.title());
        out.extend_from_slice(b",\"status\":");
        json::integer(out, self.status());
        out.extend_from_slice(b",\"detail\":");
        json::string(out, &self.detail);
        out.extend_from_slice(b",\"code\":");
        json::string(out, self.code.as_str());
        for (name, value) in &self.members {
            out.push(b',');
            json::string(out, name);
            out.push(b':');
            match value {
                Member::Number(number) => json::integer(out, *number),
                Member::Text(text) => json::string(out, text),
            }
        }
        out.extend_from_slice(b",\"error\":");
        json::string(out, self.error.as_deref().unwrap_or(self.code.error()));
        out.push(b'}');
    }
}

/// A client's text within a message: in backquotes, and cut so that no answer grows with what was sent.
pub(crate) fn excerpt(text: &str) -> String {
    const MOST_CHARACTERS: usize = 64;
    match text.char_indices().nth(MOST_CHARACTERS) {
        Some((end, _)) => format!("`{}…`", &text[..end]),
        None => format!("`{text}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::assert_golden;

    fn body(problem: &Problem) -> Vec<u8> {
        let mut out = Vec::new();
        problem.write(&mut out);
        out
    }

    #[test]
    fn the_body_is_problem_details_with_the_seeds_error() {
        assert_golden("problem-unknown-path.json", &body(&Problem::new(Code::UnknownPath, "there is nothing at `/x`")));
        assert_golden("problem-unknown-row.json", &body(&Problem::unknown_row("users", "u\"1")));
        assert_golden("problem-unknown-table.json", &body(&Problem::unknown_table("users")));
        assert_golden("problem-unknown-schema.json", &body(&Problem::unknown_schema("users")));
        let violation = Problem::refused(Code::SchemaViolation, "`age` is not a number".into(), Some("age".into()));
        assert_golden("problem-schema-violation.json", &body(&violation));
        assert_golden("problem-dropped.json", &body(&Problem::dropped(1234)));
        assert_golden("problem-in-the-future.json", &body(&Problem::in_the_future(7)));
        assert_golden("problem-too-far-back.json", &body(&Problem::too_far_back(100_000)));
        assert_golden("problem-body-too-large.json", &body(&Problem::body_too_large(16_777_216)));
        assert_golden("problem-storage-full.json", &body(&Problem::storage_full(30)));
    }

    #[test]
    fn every_code_renders_as_json_with_its_status() {
        for &code in Code::ALL {
            let value: serde_json::Value =
                serde_json::from_slice(&body(&Problem::new(code, "why"))).unwrap_or_else(|e| panic!("{code}: {e}"));
            assert_eq!(value["status"], code.status());
            assert_eq!(value["code"], code.as_str());
            assert!(value["error"].as_str().is_some_and(|error| !error.is_empty()));
        }
    }

    #[test]
    fn a_full_queue_says_when_to_try_again() {
        let problem = Problem::queue_full(2);
        assert_eq!(problem.status(), 503);
        let headers: Vec<_> = problem.headers().collect();
        assert_eq!(headers, [("content-type", "application/problem+json"), ("retry-after", "2")]);
    }

    #[test]
    fn excerpts_are_cut_at_a_character() {
        assert_eq!(excerpt("short"), "`short`");
        assert_eq!(excerpt(&"é".repeat(1000)), format!("`{}…`", "é".repeat(64)));
    }
}
