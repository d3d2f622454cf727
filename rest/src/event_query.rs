//! `GET /events`: which events are asked for.

use crate::envelope::Format;
use crate::problem::Problem;
use crate::query::{Parameters, not_allowed};
use crate::{Limits, Operation, TableName};

/// Which events. Every condition that is given must hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EventQuery {
    /// Of this table.
    pub table: Option<TableName>,
    /// Of this operation.
    pub operation: Option<Operation>,
    /// Of this row: the key as events show it, decoded.
    pub key: Option<String>,
    /// Later than this time, in milliseconds since 1970.
    pub since_ms: Option<u64>,
    /// After this sequence number.
    pub after: Option<u64>,
    /// The most events: with `after` and ascending the first ones, else the newest ones. At least 1.
    pub limit: u32,
    /// In which order they are answered.
    pub order: Order,
    /// How each is written.
    pub format: Format,
}

/// In which order events are answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Order {
    /// Oldest first: `asc`.
    #[default]
    Ascending,
    /// Newest first: `desc`.
    Descending,
}

impl EventQuery {
    /// Takes a raw query.
    pub(crate) fn parse(query: Option<&str>, limits: &Limits) -> Result<Self, Problem> {
        const KNOWN: &[&str] = &["table", "operation", "since", "limit", "after", "key", "order", "format"];
        let parameters = Parameters::parse(query, KNOWN)?;
        let page = parameters.integer("limit", 1..=u64::from(limits.max_page))?;
        Ok(Self {
            table: parameters.text("table").map(|name| TableName::parse(name, limits)).transpose()?,
            operation: parameters.text("operation").map(operation).transpose()?,
            key: parameters.text("key").map(|key| within(key, limits)).transpose()?,
            since_ms: parameters.integer("since", 0..=u64::MAX)?,
            after: parameters.integer("after", 0..=u64::MAX)?,
            limit: page.and_then(|page| u32::try_from(page).ok()).unwrap_or(limits.default_page.min(limits.max_page)),
            order: parameters.text("order").map(order).transpose()?.unwrap_or_default(),
            format: parameters.text("format").map(format).transpose()?.unwrap_or_default(),
        })
    }
}

pub(crate) fn operation(text: &str) -> Result<Operation, Problem> {
    let found = Operation::ALL.iter().find(|operation| operation.as_str().eq_ignore_ascii_case(text));
    found.copied().ok_or_else(|| not_allowed("operation", text, "INSERT, UPDATE, DELETE or TRUNCATE"))
}

fn order(text: &str) -> Result<Order, Problem> {
    match text {
        "asc" => Ok(Order::Ascending),
        "desc" => Ok(Order::Descending),
        other => Err(not_allowed("order", other, "`asc` or `desc`")),
    }
}

/// One of the formats that need nothing beside their JSON.
pub(crate) fn format(text: &str) -> Result<Format, Problem> {
    Format::parse(text).filter(|format| Format::READABLE.contains(format)).ok_or_else(|| {
        let names: Vec<_> = Format::READABLE.iter().map(|format| format!("`{}`", format.as_str())).collect();
        not_allowed("format", text, &names.join(", "))
    })
}

pub(crate) fn within(key: &str, limits: &Limits) -> Result<String, Problem> {
    if key.len() <= limits.max_key_bytes {
        Ok(key.to_owned())
    } else {
        Err(not_allowed("key", key, &format!("a key of at most {} bytes", limits.max_key_bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Code;

    fn parse(query: &str) -> Result<EventQuery, Problem> {
        EventQuery::parse(Some(query), &Limits::default())
    }

    #[test]
    fn without_parameters_it_is_a_page_of_everything() {
        let query = EventQuery::parse(None, &Limits::default());
        let everything = EventQuery {
            table: None,
            operation: None,
            key: None,
            since_ms: None,
            after: None,
            limit: 1_000,
            order: Order::Ascending,
            format: Format::Native,
        };
        assert_eq!(query, Ok(everything));
    }

    #[test]
    fn every_parameter_is_taken() {
        let text = "table=users&operation=update&since=0&limit=10000&after=18446744073709551615&key=a%2Fb+c&order=desc&format=sequin";
        let query = parse(text).unwrap_or_else(|problem| panic!("{problem}"));
        assert_eq!(query.format, Format::Sequin);
        assert_eq!(query.table.as_ref().map(TableName::as_str), Some("users"));
        assert_eq!(query.operation, Some(Operation::Update));
        assert_eq!(query.key.as_deref(), Some("a/b c"));
        assert_eq!((query.since_ms, query.after), (Some(0), Some(u64::MAX)));
        assert_eq!((query.limit, query.order), (10_000, Order::Descending));
    }

    #[test]
    fn values_out_of_bounds_are_refused_by_name() {
        for (query, parameter) in [
            ("limit=0", "limit"),
            ("limit=10001", "limit"),
            ("since=-1", "since"),
            ("after=18446744073709551616", "after"),
            ("operation=MERGE", "operation"),
            ("order=ascending", "order"),
            ("order=ASC", "order"),
            ("format=avro", "`native`, `debezium`, `debezium-schema`, `cloudevents`, `sequin`"),
            ("format=cloudevents-binary", "`cloudevents`"),
        ] {
            let refused = parse(query);
            assert!(
                refused.is_err_and(|p| p.code() == Code::InvalidParameter && p.detail().contains(parameter)),
                "{query}"
            );
        }
        assert!(parse("table=a%2Fb").is_err_and(|problem| problem.code() == Code::InvalidTableName));
        assert!(parse(&format!("key={}", "k".repeat(1025))).is_err_and(|problem| problem.detail().contains("1024")));
    }

    #[test]
    fn a_small_page_limit_bounds_the_default_too() {
        let limits = Limits { max_page: 10, ..Limits::default() };
        assert!(EventQuery::parse(None, &limits).is_ok_and(|query| query.limit == 10));
    }
}
