//! `GET /events/stream` and `GET /events/ws`: which events are sent, and from where on.

use crate::envelope::Format;
use crate::event_query::{format, operation, within};
use crate::query::{Parameters, not_allowed};
use crate::{Limits, Operation, Problem, TableName};

/// Which events a stream has. Every condition that is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamQuery {
    /// Of this table.
    pub table: Option<TableName>,
    /// Of this operation.
    pub operation: Option<Operation>,
    /// Of this row: the key as events show it, decoded.
    pub key: Option<String>,
    /// Later than this time, in milliseconds since 1970. Without `after`, the stream begins with the oldest such event
    /// that is kept.
    pub since_ms: Option<u64>,
    /// After this sequence number. Without it and without `since_ms`, the stream begins now.
    pub after: Option<u64>,
    /// How each is written.
    pub format: Format,
}

impl StreamQuery {
    /// Takes a raw query and the `Last-Event-ID` header. The header is stronger than `after`: a browser connects again
    /// to the address it was given first.
    pub(crate) fn parse(query: Option<&str>, last_event_id: Option<&str>, limits: &Limits) -> Result<Self, Problem> {
        const KNOWN: &[&str] = &["table", "operation", "since", "after", "key", "format"];
        let parameters = Parameters::parse(query, KNOWN)?;
        let resumed = match last_event_id.filter(|id| !id.is_empty()) {
            // `u64::from_str` would take a sign.
            Some(id) => match id.parse().ok().filter(|_| id.bytes().all(|byte| byte.is_ascii_digit())) {
                Some(after) => Some(after),
                None => return Err(not_allowed("Last-Event-ID", id, "a sequence number, as the stream's ids are")),
            },
            None => None,
        };
        Ok(Self {
            table: parameters.text("table").map(|name| TableName::parse(name, limits)).transpose()?,
            operation: parameters.text("operation").map(operation).transpose()?,
            key: parameters.text("key").map(|key| within(key, limits)).transpose()?,
            since_ms: parameters.integer("since", 0..=u64::MAX)?,
            after: resumed.or(parameters.integer("after", 0..=u64::MAX)?),
            format: parameters.text("format").map(format).transpose()?.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_parameter_is_taken() {
        let text = "table=users&operation=update&since=0&after=18446744073709551615&key=a%2Fb+c&format=debezium-schema";
        let query = StreamQuery::parse(Some(text), None, &Limits::default()).unwrap_or_else(|p| panic!("{p}"));
        assert_eq!(query.table.as_ref().map(TableName::as_str), Some("users"));
        assert_eq!(query.operation, Some(Operation::Update));
        assert_eq!(query.key.as_deref(), Some("a/b c"));
        assert_eq!((query.since_ms, query.after), (Some(0), Some(u64::MAX)));
        assert_eq!(query.format, Format::DebeziumSchema);
    }

    #[test]
    fn a_format_that_needs_headers_is_refused() {
        let refused = StreamQuery::parse(Some("format=cloudevents-binary"), None, &Limits::default());
        assert!(refused.is_err_and(|problem| problem.detail().contains("`debezium-schema`")));
    }

    #[test]
    fn without_parameters_it_is_everything_from_now_on() {
        assert_eq!(StreamQuery::parse(None, None, &Limits::default()), Ok(StreamQuery::default()));
    }
}
