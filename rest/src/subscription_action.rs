//! What is asked of a subscription or a component that exists: the bodies of `POST`, and which dead letters to list.

use serde_json::Value;

use crate::insert_body::trim;
use crate::members::{self, Members};
use crate::query::Parameters;
use crate::subscription::{ComponentRef, Start};
use crate::subscription_reader::{component_name, position};
use crate::{Code, Limits, Problem};

const CODE: Code = Code::InvalidBody;
/// The most dead letters that one request names.
const MAX_NAMED: usize = 10_000;

/// The body of `POST /subscriptions/:id/rewind`: `{"to": 123}`, `"beginning"` or `"now"`. Forwards is fine too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewind {
    /// Never [`Start::Snapshot`].
    pub to: Start,
}

impl Rewind {
    /// Takes a whole body.
    pub fn parse(body: &[u8]) -> Result<Self, Problem> {
        let value = members::json(body)?;
        let members = Members::of(&value, "", "where to go on", &["to"], CODE)?;
        match members.get("to") {
            Some(to) => Ok(Self { to: position(&members, "to", to, &[Start::Now, Start::Beginning])? }),
            None => Err(members.refuse("to", r#"is missing: a sequence number, "beginning" or "now""#)),
        }
    }
}

/// The body of `POST /subscriptions/:id/test`: which component to run over which events, without effects.
/// `{"component": "name", "version": 2, "from": 1, "to": 500, "against": 1}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DryRun {
    /// The component and its version (the current one, if none); the one that the subscription has, if none at all.
    pub component: Option<ComponentRef>,
    /// The first event; the oldest that is kept, if none.
    pub from: Option<u64>,
    /// The last event; the newest, if none.
    pub to: Option<u64>,
    /// The version of the same component to compare with; the live one, if none.
    pub against: Option<u32>,
}

impl DryRun {
    /// Takes a whole body.
    pub fn parse(body: &[u8]) -> Result<Self, Problem> {
        let value = members::json(body)?;
        let known = ["component", "version", "from", "to", "against"];
        let members = Members::of(&value, "", "the test", &known, CODE)?;
        let version = members.integer("version", 1..=u32::MAX)?;
        let component = match members.text("component", "the name of a component")? {
            Some(text) => Some(ComponentRef { name: component_name(&members, "component", text)?, version }),
            None if version.is_some() => {
                return Err(members.refuse("version", "is of no component: name it in `component`"));
            }
            None => None,
        };
        let (from, to) = (sequence(&members, "from")?, sequence(&members, "to")?);
        if let (Some(from), Some(to)) = (from, to)
            && from > to
        {
            return Err(members.refuse("from", format!("is {from}, which comes after `to`, {to}")));
        }
        Ok(Self { component, from, to, against: members.integer("against", 1..=u32::MAX)? })
    }
}

fn sequence(members: &Members<'_>, name: &str) -> Result<Option<u64>, Problem> {
    let Some(value) = members.get(name) else { return Ok(None) };
    match value.as_u64().filter(|sequence| *sequence > 0) {
        Some(sequence) => Ok(Some(sequence)),
        None => Err(members.wrong(name, "a sequence number, which begin at 1", value)),
    }
}

/// The body of `POST /subscriptions/:id/dead-letters/retry` and `…/discard`. Nothing means nothing here: whoever wants
/// all of them says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeadLetterChoice {
    /// `{"all": true}`.
    All,
    /// `{"sequences": [1, 2]}`: these, ascending, each once; at least one and at most 10,000.
    Sequences(Vec<u64>),
}

impl DeadLetterChoice {
    /// Takes a whole body.
    pub fn parse(body: &[u8]) -> Result<Self, Problem> {
        const EXPECTED: &str = "an array of sequence numbers";
        let value = members::json(body)?;
        let members = Members::of(&value, "", "the choice of dead letters", &["sequences", "all"], CODE)?;
        match (members.get("sequences"), members.flag("all")?) {
            (None, Some(true)) => Ok(Self::All),
            (Some(_), None | Some(false)) => {
                let mut sequences = Vec::new();
                for value in members.list("sequences", EXPECTED, MAX_NAMED)? {
                    match value.as_u64().filter(|sequence| *sequence > 0) {
                        Some(sequence) => sequences.push(sequence),
                        None => return Err(members.wrong("sequences", EXPECTED, value)),
                    }
                }
                if sequences.is_empty() {
                    return Err(members.refuse("sequences", "is empty; name some, or say {\"all\": true}"));
                }
                sequences.sort_unstable();
                sequences.dedup();
                Ok(Self::Sequences(sequences))
            }
            (Some(_), Some(true)) => Err(members.refuse("all", "and `sequences` exclude each other")),
            (None, None | Some(false)) => {
                Err(members.refuse("sequences", "is missing: name some, or say {\"all\": true}"))
            }
        }
    }
}

/// The body of `POST /components/:name/rollback`: `{"version": 2}`, or nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rollback {
    /// To this version; to the one before the current one, if none.
    pub version: Option<u32>,
}

impl Rollback {
    /// Takes a whole body, which may be empty.
    pub fn parse(body: &[u8]) -> Result<Self, Problem> {
        if trim(body).is_empty() {
            return Ok(Self::default());
        }
        let value: Value = members::json(body)?;
        let members = Members::of(&value, "", "the rollback", &["version"], CODE)?;
        Ok(Self { version: members.integer("version", 1..=u32::MAX)? })
    }
}

/// The parameters of `GET /subscriptions/:id/dead-letters`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadLetterQuery {
    /// `after`: those after this sequence number; 0 for all.
    pub after: u64,
    /// `limit`: the most of them.
    pub limit: u32,
}

impl DeadLetterQuery {
    /// Takes a raw query. The pages are as long as those of events.
    pub(crate) fn parse(query: Option<&str>, limits: &Limits) -> Result<Self, Problem> {
        let parameters = Parameters::parse(query, &["after", "limit"])?;
        let after = parameters.integer("after", 0..=u64::MAX)?.unwrap_or(0);
        let limit = parameters.integer("limit", 1..=u64::from(limits.max_page))?;
        let limit = limit.and_then(|limit| u32::try_from(limit).ok()).unwrap_or(limits.default_page);
        Ok(Self { after, limit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ComponentName;

    /// The refusal, which names what is wrong.
    #[track_caller]
    fn refused<T: std::fmt::Debug>(parsed: Result<T, Problem>, member: &str) {
        let problem = match parsed {
            Ok(parsed) => panic!("it became {parsed:?}"),
            Err(problem) => problem,
        };
        assert_eq!(problem.code(), Code::InvalidBody, "{problem}");
        assert!(problem.detail().contains(&format!("`{member}`")), "{problem}");
    }

    #[test]
    fn a_rewind_goes_to_a_place_in_the_log() {
        for (body, to) in [
            (r#"{"to":123}"#, Start::At(123)),
            (r#"{"to":"beginning"}"#, Start::Beginning),
            (r#" {"to":"now"} "#, Start::Now),
        ] {
            assert_eq!(Rewind::parse(body.as_bytes()), Ok(Rewind { to }));
        }
        for body in ["{}", r#"{"to":null}"#, r#"{"to":0}"#, r#"{"to":"snapshot"}"#, r#"{"to":"123"}"#, r#"{"to":1.5}"#]
        {
            refused(Rewind::parse(body.as_bytes()), "to");
        }
        refused(Rewind::parse(br#"{"from":1}"#), "from");
    }

    #[test]
    fn a_test_names_a_component_and_a_range() {
        let name = ComponentName::parse("c").unwrap_or_else(|problem| panic!("{problem}"));
        let full = br#"{"component":"c","version":2,"from":1,"to":500,"against":1}"#;
        let component = Some(ComponentRef { name, version: Some(2) });
        let expected = DryRun { component, from: Some(1), to: Some(500), against: Some(1) };
        assert_eq!(DryRun::parse(full), Ok(expected));
        assert_eq!(DryRun::parse(b"{}"), Ok(DryRun { component: None, from: None, to: None, against: None }));
        for (body, member) in [
            (r#"{"component":"../c"}"#, "component"),
            (r#"{"component":{"component":"c"}}"#, "component"),
            (r#"{"version":1}"#, "version"),
            (r#"{"component":"c","version":0}"#, "version"),
            (r#"{"from":0}"#, "from"),
            (r#"{"from":2,"to":1}"#, "from"),
            (r#"{"to":-1}"#, "to"),
            (r#"{"against":"live"}"#, "against"),
            (r#"{"until":1}"#, "until"),
        ] {
            refused(DryRun::parse(body.as_bytes()), member);
        }
    }

    #[test]
    fn dead_letters_are_chosen_by_number_or_all_at_once() {
        let parse = |body: &str| DeadLetterChoice::parse(body.as_bytes());
        assert_eq!(parse(r#"{"all":true}"#), Ok(DeadLetterChoice::All));
        assert_eq!(parse(r#"{"sequences":[3,1,3]}"#), Ok(DeadLetterChoice::Sequences(vec![1, 3])));
        assert_eq!(parse(r#"{"sequences":[1],"all":false}"#), Ok(DeadLetterChoice::Sequences(vec![1])));
        let many = format!(r#"{{"sequences":[{}]}}"#, vec!["1"; MAX_NAMED + 1].join(","));
        for (body, member) in [
            ("{}", "sequences"),
            (r#"{"all":false}"#, "sequences"),
            (r#"{"sequences":[]}"#, "sequences"),
            (r#"{"sequences":[0]}"#, "sequences"),
            (r#"{"sequences":["1"]}"#, "sequences"),
            (r#"{"sequences":7}"#, "sequences"),
            (&many, "sequences"),
            (r#"{"sequences":[1],"all":true}"#, "all"),
            (r#"{"all":1}"#, "all"),
        ] {
            refused(parse(body), member);
        }
        assert!(parse("").is_err_and(|problem| problem.code() == Code::InvalidJson));
    }

    #[test]
    fn a_rollback_needs_no_version() {
        for body in ["", " \n", "{}", r#"{"version":null}"#] {
            assert_eq!(Rollback::parse(body.as_bytes()), Ok(Rollback { version: None }));
        }
        assert_eq!(Rollback::parse(br#"{"version":2}"#), Ok(Rollback { version: Some(2) }));
        refused(Rollback::parse(br#"{"version":0}"#), "version");
        refused(Rollback::parse(br#"{"to":1}"#), "to");
    }

    #[test]
    fn dead_letters_come_in_pages() {
        let parse = |query| DeadLetterQuery::parse(query, &Limits::default());
        assert_eq!(parse(None), Ok(DeadLetterQuery { after: 0, limit: 1_000 }));
        assert_eq!(parse(Some("after=7&limit=10000")), Ok(DeadLetterQuery { after: 7, limit: 10_000 }));
        for query in ["limit=0", "limit=10001", "after=-1", "reason=x"] {
            assert!(parse(Some(query)).is_err_and(|problem| problem.code() == Code::InvalidParameter), "{query}");
        }
    }
}
