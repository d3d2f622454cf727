//! The head of a request becomes a [`Request`].

use crate::media_type::{insert_format, require_component, require_identity, require_json};
use crate::place::{DeadLettersAction, Place, SourceAction, SubscriptionAction};
use crate::problem::{Problem, excerpt};
use crate::query::Parameters;
use crate::{
    Code, ComponentName, DeadLetterQuery, EventQuery, Limits, Method, Request, RowKey, SourceName, StreamQuery,
    SubscriptionId, TableName, percent,
};

/// What of a request's head decides.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestHead<'a> {
    /// The method, in the case in which it came.
    pub method: &'a str,
    /// The raw path, not decoded.
    pub path: &'a str,
    /// The raw query without its `?`, not decoded.
    pub query: Option<&'a str>,
    /// The `Content-Type` header.
    pub content_type: Option<&'a str>,
    /// The `Content-Encoding` header.
    pub content_encoding: Option<&'a str>,
    /// The `Last-Event-ID` header.
    pub last_event_id: Option<&'a str>,
}

/// Understands the head of a request, or says what is wrong with it: first the path, then the method, then names,
/// keys and parameters, then the headers of the body.
pub fn route(head: &RequestHead<'_>, limits: &Limits) -> Result<Request, Problem> {
    let place = Place::find(head.path);
    if head.method == "OPTIONS" {
        // On anything, `*` included, and whatever the query: a preflight must not fail for what the request itself
        // will be told.
        return Ok(Request::Options { allow: allow(place.map_or(Method::ALL, |place| place.methods())) });
    }
    let Some(place) = place else {
        let detail = format!("there is nothing at {}; GET / lists what there is", excerpt(head.path));
        return Err(Problem::new(Code::UnknownPath, detail));
    };
    let Some(method) = Method::parse(head.method).filter(|method| place.methods().contains(method)) else {
        return Err(method_not_allowed(head, place));
    };
    request(place, method, head, limits)
}

/// The request itself; the method is one that the place takes.
fn request(place: Place<'_>, method: Method, head: &RequestHead<'_>, limits: &Limits) -> Result<Request, Problem> {
    let parameters = |known| Parameters::parse(head.query, known);
    Ok(match place {
        Place::Rows { table } => {
            let table = table_name(table, limits)?;
            let upsert = parameters(&["upsert"])?.flag("upsert")?;
            require_identity(head.content_encoding)?;
            Request::Insert { table, upsert, format: insert_format(head.content_type)? }
        }
        Place::Row { table, key } => {
            let (table, key) = (table_name(table, limits)?, RowKey::parse(key, limits)?);
            match method {
                Method::Put => {
                    let upsert = parameters(&["upsert"])?.flag("upsert")?;
                    require_identity(head.content_encoding)?;
                    require_json(head.content_type)?;
                    Request::Update { table, key, upsert }
                }
                Method::Delete => parameters(&[]).map(|_| Request::Delete { table, key })?,
                Method::Get | Method::Post => parameters(&[]).map(|_| Request::ReadRow { table, key })?,
            }
        }
        Place::Events => Request::Events(EventQuery::parse(head.query, limits)?),
        Place::EventStream => Request::EventStream(StreamQuery::parse(head.query, head.last_event_id, limits)?),
        // The header belongs to Server-Sent Events; a WebSocket's client says `after`.
        Place::EventSocket => Request::EventSocket(StreamQuery::parse(head.query, None, limits)?),
        Place::Snapshot { table } => {
            let table = table_name(table, limits)?;
            Request::Snapshot { table, at: parameters(&["at"])?.integer("at", 0..=u64::MAX)? }
        }
        Place::Schema { table } => {
            let table = table_name(table, limits)?;
            if method == Method::Put {
                parameters(&[])?;
                require_identity(head.content_encoding)?;
                require_json(head.content_type)?;
                Request::DeclareSchema { table }
            } else {
                let version = parameters(&["version"])?.integer("version", 1..=u64::from(u32::MAX))?;
                Request::Schema { table, version: version.and_then(|version| u32::try_from(version).ok()) }
            }
        }
        Place::Replica { table } => {
            let table = table_name(table, limits)?;
            parameters(&[]).map(|_| Request::Replica { table })?
        }
        Place::SchemaHistory { table } => {
            let table = table_name(table, limits)?;
            parameters(&[]).map(|_| Request::SchemaHistory { table })?
        }
        Place::Replay => {
            parameters(&[])?;
            optional_json(head)?;
            Request::Replay
        }
        Place::Subscriptions => parameters(&[]).map(|_| Request::Subscriptions)?,
        Place::Subscription { id } => {
            let id = subscription_id(id)?;
            parameters(&[])?;
            match method {
                Method::Put => {
                    require_identity(head.content_encoding)?;
                    require_json(head.content_type)?;
                    Request::DefineSubscription(id)
                }
                Method::Delete => Request::DeleteSubscription(id),
                Method::Get | Method::Post => Request::Subscription(id),
            }
        }
        Place::SubscriptionAction { id, action } => {
            let id = subscription_id(id)?;
            parameters(&[])?;
            match action {
                SubscriptionAction::Pause => Request::PauseSubscription(id),
                SubscriptionAction::Resume => Request::ResumeSubscription(id),
                SubscriptionAction::Rewind => {
                    require_identity(head.content_encoding)?;
                    require_json(head.content_type)?;
                    Request::RewindSubscription(id)
                }
                SubscriptionAction::Test => {
                    require_identity(head.content_encoding)?;
                    require_json(head.content_type)?;
                    Request::TestSubscription(id)
                }
            }
        }
        Place::SubscriptionAudit { id } => {
            let id = subscription_id(id)?;
            parameters(&[])?;
            match method {
                Method::Post => {
                    optional_json(head)?;
                    Request::AuditSubscription(id)
                }
                Method::Get | Method::Put | Method::Delete => Request::SubscriptionAudit(id),
            }
        }
        Place::DeadLetters { id } => {
            let subscription = subscription_id(id)?;
            Request::DeadLetters { subscription, query: DeadLetterQuery::parse(head.query, limits)? }
        }
        Place::DeadLettersAction { id, action } => {
            let id = subscription_id(id)?;
            parameters(&[])?;
            require_identity(head.content_encoding)?;
            require_json(head.content_type)?;
            match action {
                DeadLettersAction::Retry => Request::RetryDeadLetters(id),
                DeadLettersAction::Discard => Request::DiscardDeadLetters(id),
            }
        }
        Place::Components => parameters(&[]).map(|_| Request::Components)?,
        Place::Component { name } => {
            let name = component_name(name)?;
            parameters(&[])?;
            match method {
                Method::Put => {
                    require_identity(head.content_encoding)?;
                    require_component(head.content_type)?;
                    Request::UploadComponent(name)
                }
                Method::Delete => Request::DeleteComponent(name),
                Method::Get | Method::Post => Request::Component(name),
            }
        }
        Place::ComponentVersion { name, version } => {
            let component = component_name(name)?;
            parameters(&[])?;
            // `u32::from_str` would take a sign.
            let digits = version.bytes().all(|byte| byte.is_ascii_digit());
            let Some(version) = version.parse().ok().filter(|version| digits && *version > 0) else {
                let detail = format!("{} is not a version; versions are numbers from 1", excerpt(version));
                return Err(Problem::new(Code::UnknownComponentVersion, detail));
            };
            Request::ComponentVersion { component, version }
        }
        Place::Rollback { name } => {
            let name = component_name(name)?;
            parameters(&[])?;
            optional_json(head)?;
            Request::RollbackComponent(name)
        }
        Place::Sources => parameters(&[]).map(|_| Request::Sources)?,
        Place::Source { name } => {
            let name = source_name(name)?;
            parameters(&[]).map(|_| Request::Source(name))?
        }
        Place::SourceAction { name, action } => {
            let name = source_name(name)?;
            parameters(&[])?;
            match action {
                SourceAction::Pause => Request::PauseSource(name),
                SourceAction::Resume => Request::ResumeSource(name),
                SourceAction::Repair => Request::RepairSource(name),
            }
        }
        Place::SourceAudit { name } => {
            let name = source_name(name)?;
            parameters(&[])?;
            match method {
                Method::Post => {
                    optional_json(head)?;
                    Request::AuditSource(name)
                }
                Method::Get | Method::Put | Method::Delete => Request::SourceAudit(name),
            }
        }
        Place::SourceSelection { name } => {
            let name = source_name(name)?;
            parameters(&[])?;
            match method {
                Method::Put => {
                    require_identity(head.content_encoding)?;
                    require_json(head.content_type)?;
                    Request::SelectSourceTables(name)
                }
                Method::Delete => Request::ResetSourceSelection(name),
                Method::Get | Method::Post => Request::SourceSelection(name),
            }
        }
        Place::SourceTable { name, table } => {
            let (source, table) = (source_name(name)?, captured_name(table)?);
            parameters(&[]).map(|_| Request::SourceTable { source, table })?
        }
        Place::SourceTableAudit { name, table } => {
            let (source, table) = (source_name(name)?, captured_name(table)?);
            parameters(&[])?;
            optional_json(head)?;
            Request::AuditSourceTable { source, table }
        }
        Place::SourceTableAction { name, table, action } => {
            let (source, table) = (source_name(name)?, captured_name(table)?);
            parameters(&[]).map(|_| Request::SteerSourceTable { source, table, action })?
        }
        Place::Trace { table, key } => {
            let (table, key) = (table_name(table, limits)?, RowKey::parse(key, limits)?);
            parameters(&[]).map(|_| Request::Trace { table, key })?
        }
        Place::Index => parameters(&[]).map(|_| Request::Index)?,
        Place::Statistics => parameters(&[]).map(|_| Request::Statistics)?,
        Place::Schemas => parameters(&[]).map(|_| Request::Schemas)?,
        Place::Health => parameters(&[]).map(|_| Request::Health)?,
        Place::Readiness => parameters(&[]).map(|_| Request::Readiness)?,
        Place::Metrics => parameters(&[]).map(|_| Request::Metrics)?,
    })
}

/// Nothing need be sent, and then there is no type either.
fn optional_json(head: &RequestHead<'_>) -> Result<(), Problem> {
    require_identity(head.content_encoding)?;
    head.content_type.map_or(Ok(()), |content_type| require_json(Some(content_type)))
}

fn subscription_id(raw: &str) -> Result<SubscriptionId, Problem> {
    let id = percent::decode(raw)
        .map_err(|why| Problem::new(Code::InvalidSubscriptionId, format!("the id {} {why}", excerpt(raw))))?;
    SubscriptionId::parse(&id)
}

fn component_name(raw: &str) -> Result<ComponentName, Problem> {
    let name = percent::decode(raw)
        .map_err(|why| Problem::new(Code::InvalidComponentName, format!("the name {} {why}", excerpt(raw))))?;
    ComponentName::parse(&name)
}

fn source_name(raw: &str) -> Result<SourceName, Problem> {
    let name = percent::decode(raw)
        .map_err(|why| Problem::new(Code::InvalidSourceName, format!("the name {} {why}", excerpt(raw))))?;
    SourceName::parse(&name)
}

/// The name of a source's table. It may be one that is refused as a table's name here: just that may be why somebody
/// asks for it.
fn captured_name(raw: &str) -> Result<String, Problem> {
    let name = percent::decode(raw)
        .map_err(|why| Problem::new(Code::InvalidTableName, format!("the table name {} {why}", excerpt(raw))))?;
    if name.is_empty() {
        return Err(Problem::new(Code::InvalidTableName, "the table name is empty"));
    }
    Ok(name.into_owned())
}

fn table_name(raw: &str, limits: &Limits) -> Result<TableName, Problem> {
    let name = percent::decode(raw)
        .map_err(|why| Problem::new(Code::InvalidTableName, format!("the table name {} {why}", excerpt(raw))))?;
    TableName::parse(&name, limits)
}

/// The value of an `Allow` header.
fn allow(methods: &[Method]) -> String {
    let mut names = Vec::new();
    for method in methods {
        names.push(method.as_str());
        if *method == Method::Get {
            names.push("HEAD");
        }
    }
    names.push("OPTIONS");
    names.join(", ")
}

fn method_not_allowed(head: &RequestHead<'_>, place: Place<'_>) -> Problem {
    let allow = allow(place.methods());
    let detail = format!("{} does not take {}; allowed is {allow}", excerpt(head.path), excerpt(head.method));
    Problem::new(Code::MethodNotAllowed, detail).with_hint("allow", allow)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::assert_golden;
    use crate::index::PATHS;
    use crate::{BodyKind, InsertFormat, TableAction};

    fn head<'a>(method: &'a str, target: &'a str) -> RequestHead<'a> {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        RequestHead { method, path, query, content_type: Some("application/json"), ..RequestHead::default() }
    }

    fn ask(method: &str, target: &str) -> Request {
        route(&head(method, target), &Limits::default()).unwrap_or_else(|problem| panic!("{target}: {problem}"))
    }

    fn refusal(method: &str, target: &str) -> Problem {
        match route(&head(method, target), &Limits::default()) {
            Ok(request) => panic!("{method} {target} became {request:?}"),
            Err(problem) => problem,
        }
    }

    fn table(name: &str) -> TableName {
        TableName::parse(name, &Limits::default()).unwrap_or_else(|problem| panic!("{problem}"))
    }

    fn key(raw: &str) -> RowKey {
        RowKey::parse(raw, &Limits::default()).unwrap_or_else(|problem| panic!("{problem}"))
    }

    #[test]
    fn rows_are_written_and_read() {
        let users = || table("users");
        let (upsert, format) = (false, InsertFormat::Json);
        assert_eq!(ask("POST", "/data/users"), Request::Insert { table: users(), upsert, format });
        assert_eq!(ask("POST", "/data/users?upsert=true"), Request::Insert { table: users(), upsert: true, format });
        assert_eq!(ask("PUT", "/data/users/1"), Request::Update { table: users(), key: key("1"), upsert });
        assert_eq!(
            ask("PUT", "/data/users/1?upsert=true"),
            Request::Update { table: users(), key: key("1"), upsert: true }
        );
        assert_eq!(ask("DELETE", "/data/users/a/b"), Request::Delete { table: users(), key: key("a/b") });
        assert_eq!(ask("GET", "/data/users/a%2Fb"), Request::ReadRow { table: users(), key: key("a%2Fb") });
    }

    #[test]
    fn a_stream_goes_on_where_the_header_says_whatever_the_query_says() {
        let after = |target, last_event_id| {
            let head = RequestHead { last_event_id, ..head("GET", target) };
            match route(&head, &Limits::default()) {
                Ok(Request::EventStream(query) | Request::EventSocket(query)) => Ok(query.after),
                Ok(other) => panic!("{other:?}"),
                Err(problem) => Err(problem.code()),
            }
        };
        assert_eq!(after("/events/stream", None), Ok(None));
        assert_eq!(after("/events/stream?after=3", None), Ok(Some(3)));
        assert_eq!(after("/events/stream?after=3", Some("7")), Ok(Some(7)));
        // What a browser that has seen no id sends.
        assert_eq!(after("/events/stream?after=3", Some("")), Ok(Some(3)));
        assert_eq!(after("/events/ws?after=3", Some("7")), Ok(Some(3)));
        for id in ["-1", "evt_1_1", "1 ", "18446744073709551616"] {
            assert_eq!(after("/events/stream", Some(id)), Err(Code::InvalidParameter), "{id}");
        }
    }

    #[test]
    fn the_past_can_be_asked_for() {
        let users = || table("users");
        assert_eq!(ask("GET", "/snapshot/users"), Request::Snapshot { table: users(), at: None });
        assert_eq!(ask("GET", "/snapshot/users?at=7"), Request::Snapshot { table: users(), at: Some(7) });
        assert_eq!(ask("GET", "/schema/users?version=2"), Request::Schema { table: users(), version: Some(2) });
        assert_eq!(ask("GET", "/schema/users/history"), Request::SchemaHistory { table: users() });
        for target in ["/snapshot/users?at=-1", "/snapshot/users?at=", "/schema/users?version=0"] {
            assert_eq!(refusal("GET", target).code(), Code::InvalidParameter, "{target}");
        }
    }

    #[test]
    fn every_path_of_the_index_is_routed_with_its_methods_and_no_others() {
        for entry in PATHS {
            let target = entry.path.replace(":table", "users").replace(":key", "1").replace(":id", "s");
            let target = target.replace(":name", "c").replace(":version", "1");
            let methods: Vec<_> = entry.methods.iter().map(|(method, _)| *method).collect();
            assert_eq!(Place::find(&target).map(Place::methods), Some(methods.as_slice()), "{target}");
            for method in Method::ALL {
                // A component is not JSON, and everything else that has a body is.
                let content_type = (!target.starts_with("/components/")).then_some("application/json");
                let head = RequestHead { content_type, ..head(method.as_str(), &target) };
                let routed = route(&head, &Limits::default());
                assert_eq!(routed.is_ok(), methods.contains(method), "{} {target}", method.as_str());
            }
            assert_eq!(route(&head("HEAD", &target), &Limits::default()).is_ok(), methods.contains(&Method::Get));
        }
    }

    #[test]
    fn head_is_routed_as_get() {
        assert_eq!(ask("HEAD", "/stats"), Request::Statistics);
    }

    #[test]
    fn unknown_paths_are_not_found() {
        for target in [
            "",
            "*",
            "/x",
            "/data",
            "/Data/users",
            "/events/",
            "//events",
            "/events/1",
            "/snapshot",
            "/snapshot/a/b",
            "/schema/a/b",
            "/schema/a/history/",
            "/schemas/",
            "/replica/a/",
            "/%65vents",
        ] {
            assert_eq!(refusal("GET", target).code(), Code::UnknownPath, "{target}");
        }
    }

    #[test]
    fn a_known_path_with_another_method_says_which_it_takes() {
        for (method, target, allow) in [
            ("GET", "/data/users", "POST, OPTIONS"),
            ("PATCH", "/data/users/1", "GET, HEAD, PUT, DELETE, OPTIONS"),
            ("get", "/events", "GET, HEAD, OPTIONS"),
            ("DELETE", "/schema/users", "GET, HEAD, PUT, OPTIONS"),
            ("GET", "/replay", "POST, OPTIONS"),
        ] {
            let problem = refusal(method, target);
            assert_eq!(problem.status(), 405);
            assert!(problem.headers().any(|header| header == ("allow", allow)), "{target}");
        }
        let mut body = Vec::new();
        refusal("PATCH", "/data/users/1").write(&mut body);
        assert_golden("problem-method-not-allowed.json", &body);
    }

    #[test]
    fn options_answers_on_anything() {
        assert_eq!(ask("OPTIONS", "/stats?x=%"), Request::Options { allow: "GET, HEAD, OPTIONS".into() });
        for target in ["*", "/nowhere"] {
            assert_eq!(
                ask("OPTIONS", target),
                Request::Options { allow: "GET, HEAD, POST, PUT, DELETE, OPTIONS".into() }
            );
        }
    }

    #[test]
    fn names_that_could_climb_or_match_are_refused() {
        for target in ["/data/../x", "/data/%2e%2e/x", "/data/a%2Fb/x", "/data/*/x", "/data/a%00/x", "/data//x"] {
            assert_eq!(refusal("GET", target).code(), Code::InvalidTableName, "{target}");
        }
        for target in ["/snapshot/", "/snapshot/a%2", "/schema//history", "/replica/%FF"] {
            assert_eq!(refusal("GET", target).code(), Code::InvalidTableName, "{target}");
        }
        assert_eq!(refusal("POST", "/data/").code(), Code::InvalidTableName);
        assert_eq!(refusal("GET", "/data/users/").code(), Code::InvalidKey);
    }

    #[test]
    fn parameters_that_a_path_does_not_take_are_refused() {
        for (method, target) in [
            ("GET", "/stats?x=1"),
            ("GET", "/events?tabel=users"),
            ("GET", "/events/stream?limit=1"),
            ("GET", "/events/ws?order=desc"),
            ("DELETE", "/data/users/1?upsert=true"),
            ("POST", "/data/users?upsert=yes"),
            ("POST", "/replay?table=users"),
        ] {
            assert_eq!(refusal(method, target).code(), Code::InvalidParameter, "{target}");
        }
    }

    #[test]
    fn a_body_must_say_what_it_is() {
        let limits = Limits::default();
        for (method, target) in [
            ("POST", "/data/users"),
            ("PUT", "/data/users/1"),
            ("PUT", "/schema/users"),
            ("PUT", "/subscriptions/s"),
            ("POST", "/subscriptions/s/rewind"),
            ("POST", "/subscriptions/s/test"),
            ("POST", "/subscriptions/s/dead-letters/retry"),
        ] {
            for (content_type, encoding) in
                [(None, None), (Some("text/plain"), None), (Some("application/json"), Some("gzip"))]
            {
                let head = RequestHead { content_type, content_encoding: encoding, ..head(method, target) };
                assert!(route(&head, &limits).is_err_and(|problem| problem.status() == 415), "{method} {target}");
            }
        }
        // What has no body is not asked.
        let head = RequestHead { content_type: Some("x"), content_encoding: Some("x"), ..head("GET", "/stats") };
        assert_eq!(route(&head, &limits), Ok(Request::Statistics));
    }

    #[test]
    fn a_replay_needs_no_body_and_so_no_type() {
        let limits = Limits::default();
        let with = |content_type| RequestHead { content_type, ..head("POST", "/replay") };
        assert_eq!(route(&with(None), &limits), Ok(Request::Replay));
        assert!(route(&with(Some("text/plain")), &limits).is_err_and(|problem| problem.status() == 415));
    }

    #[test]
    fn subscriptions_are_defined_watched_and_steered() {
        let id = || SubscriptionId::parse("index.v1").unwrap_or_else(|problem| panic!("{problem}"));
        for (method, target, request) in [
            ("GET", "/subscriptions/index.v1", Request::Subscription(id())),
            ("PUT", "/subscriptions/index%2Ev1", Request::DefineSubscription(id())),
            ("DELETE", "/subscriptions/index.v1", Request::DeleteSubscription(id())),
            ("POST", "/subscriptions/index.v1/pause", Request::PauseSubscription(id())),
            ("POST", "/subscriptions/index.v1/resume", Request::ResumeSubscription(id())),
            ("POST", "/subscriptions/index.v1/rewind", Request::RewindSubscription(id())),
            ("POST", "/subscriptions/index.v1/test", Request::TestSubscription(id())),
            ("POST", "/subscriptions/index.v1/audit", Request::AuditSubscription(id())),
            ("GET", "/subscriptions/index.v1/audit", Request::SubscriptionAudit(id())),
            ("POST", "/subscriptions/index.v1/dead-letters/retry", Request::RetryDeadLetters(id())),
            ("POST", "/subscriptions/index.v1/dead-letters/discard", Request::DiscardDeadLetters(id())),
        ] {
            assert_eq!(ask(method, target), request, "{method} {target}");
        }
        assert_eq!(ask("GET", "/subscriptions"), Request::Subscriptions);
        let query = DeadLetterQuery { after: 5, limit: 2 };
        let page = Request::DeadLetters { subscription: id(), query };
        assert_eq!(ask("GET", "/subscriptions/index.v1/dead-letters?after=5&limit=2"), page);
        assert_eq!(ask("GET", "/trace/users/a/b"), Request::Trace { table: table("users"), key: key("a/b") });
        for target in ["/subscriptions/", "/subscriptions/a%20b", "/subscriptions/%2e%2e/pause", "/subscriptions/%zz"] {
            let method = if target.ends_with("pause") { "POST" } else { "GET" };
            assert_eq!(refusal(method, target).code(), Code::InvalidSubscriptionId, "{target}");
        }
        for target in ["/subscriptions/a/", "/subscriptions/a/start", "/subscriptions/a/dead-letters/", "/trace/users"]
        {
            assert_eq!(refusal("GET", target).code(), Code::UnknownPath, "{target}");
        }
    }

    #[test]
    fn components_are_uploaded_read_and_rolled_back() {
        let name = || ComponentName::parse("indexer").unwrap_or_else(|problem| panic!("{problem}"));
        for (content_type, fine) in [
            (Some("application/wasm"), true),
            (Some("application/octet-stream"), true),
            (None, true),
            (Some("text/html"), false),
        ] {
            let head = RequestHead { content_type, ..head("PUT", "/components/indexer") };
            let routed = route(&head, &Limits::default());
            assert_eq!(routed.as_ref().ok() == Some(&Request::UploadComponent(name())), fine, "{content_type:?}");
            assert!(fine || routed.is_err_and(|problem| problem.status() == 415));
        }
        assert_eq!(ask("GET", "/components"), Request::Components);
        assert_eq!(ask("GET", "/components/indexer"), Request::Component(name()));
        assert_eq!(ask("DELETE", "/components/indexer"), Request::DeleteComponent(name()));
        assert_eq!(ask("POST", "/components/indexer/rollback"), Request::RollbackComponent(name()));
        let version = Request::ComponentVersion { component: name(), version: 12 };
        assert_eq!(ask("GET", "/components/indexer/versions/12"), version);
        for version in ["0", "-1", "+1", "x", "", "4294967296"] {
            let target = format!("/components/indexer/versions/{version}");
            assert_eq!(refusal("GET", &target).code(), Code::UnknownComponentVersion, "{target}");
        }
        for target in ["/components/", "/components/..", "/components/a%2Fb"] {
            assert_eq!(refusal("GET", target).code(), Code::InvalidComponentName, "{target}");
        }
        for target in ["/components/a/versions", "/components/a/versions/1/2", "/components/a/x"] {
            assert_eq!(refusal("GET", target).code(), Code::UnknownPath, "{target}");
        }
        let limits = Limits { max_component_bytes: 5, ..Limits::default() };
        assert_eq!(BodyKind::Component.max_bytes(&limits), 5);
        assert_eq!(BodyKind::Component.too_large(&limits).code(), Code::ComponentTooLarge);
    }

    #[test]
    fn sources_are_watched_and_steered() {
        let name = || SourceName::parse("shop").unwrap_or_else(|problem| panic!("{problem}"));
        for (method, target, request) in [
            ("GET", "/sources", Request::Sources),
            ("GET", "/sources/sh%6Fp", Request::Source(name())),
            ("POST", "/sources/shop/pause", Request::PauseSource(name())),
            ("POST", "/sources/shop/resume", Request::ResumeSource(name())),
            ("POST", "/sources/shop/repair", Request::RepairSource(name())),
        ] {
            let routed = ask(method, target);
            assert_eq!(routed.body(), BodyKind::None, "{target}");
            assert_eq!(routed, request, "{method} {target}");
        }
        let table = || "public.us/ers".to_owned();
        assert_eq!(
            ask("GET", "/sources/shop/tables/public.us%2Fers"),
            Request::SourceTable { source: name(), table: table() }
        );
        for (word, action) in [
            ("pause", TableAction::Pause),
            ("resume", TableAction::Resume),
            ("reread", TableAction::Reread),
            ("drop", TableAction::Drop),
        ] {
            let routed = ask("POST", &format!("/sources/shop/tables/public.us%2Fers/{word}"));
            assert_eq!((routed.body(), word), (BodyKind::None, action.as_str()));
            assert_eq!(routed, Request::SteerSourceTable { source: name(), table: table(), action });
        }
        assert_eq!(ask("GET", "/sources/shop/audit"), Request::SourceAudit(name()));
        assert_eq!(ask("POST", "/sources/shop/audit"), Request::AuditSource(name()));
        let audit = ask("POST", "/sources/shop/tables/public.us%2Fers/audit");
        assert_eq!(audit.body(), BodyKind::Audit);
        assert_eq!(audit, Request::AuditSourceTable { source: name(), table: table() });
        assert_eq!(ask("GET", "/sources/shop/selection"), Request::SourceSelection(name()));
        assert_eq!(ask("DELETE", "/sources/shop/selection"), Request::ResetSourceSelection(name()));
        assert_eq!(ask("PUT", "/sources/shop/selection"), Request::SelectSourceTables(name()));
        assert_eq!(ask("PUT", "/sources/shop/selection").body(), BodyKind::TableChoice);
        for target in
            ["/sources/a/tables", "/sources/a/tables/t/x", "/sources/a/tables/t/pause/x", "/sources/a/selections"]
        {
            assert_eq!(refusal("POST", target).code(), Code::UnknownPath, "{target}");
        }
        assert_eq!(refusal("GET", "/sources/a/tables/").code(), Code::InvalidTableName);
        assert_eq!(refusal("GET", "/sources/a/tables/%").code(), Code::InvalidTableName);
        for target in ["/sources/", "/sources/..", "/sources/a%2Fb"] {
            assert_eq!(refusal("GET", target).code(), Code::InvalidSourceName, "{target}");
        }
        for target in ["/sources/a/", "/sources/a/drop", "/sources/a/repair/x"] {
            assert_eq!(refusal("POST", target).code(), Code::UnknownPath, "{target}");
        }
        assert_eq!(refusal("POST", "/sources/a/repair?tables=x").code(), Code::InvalidParameter);
    }

    #[test]
    fn the_body_that_follows_is_named() {
        let lines = RequestHead { content_type: Some("application/x-ndjson"), ..head("POST", "/data/users") };
        let lines = route(&lines, &Limits::default()).map(|request| request.body());
        assert_eq!(lines, Ok(BodyKind::RowLines));
        assert_eq!(ask("POST", "/data/users").body(), BodyKind::RowOrRows);
        assert_eq!(ask("PUT", "/data/users/1").body(), BodyKind::Row);
        assert_eq!(ask("PUT", "/schema/users").body(), BodyKind::Declaration);
        assert_eq!(ask("POST", "/replay").body(), BodyKind::Replay);
        for (method, target, body) in [
            ("PUT", "/subscriptions/s", BodyKind::Subscription),
            ("POST", "/subscriptions/s/pause", BodyKind::None),
            ("POST", "/subscriptions/s/rewind", BodyKind::Rewind),
            ("POST", "/subscriptions/s/test", BodyKind::DryRun),
            ("POST", "/subscriptions/s/dead-letters/retry", BodyKind::DeadLetters),
            ("POST", "/subscriptions/s/dead-letters/discard", BodyKind::DeadLetters),
            ("POST", "/components/c/rollback", BodyKind::Rollback),
        ] {
            assert_eq!(ask(method, target).body(), body, "{target}");
        }
        assert_eq!(ask("DELETE", "/data/users/1").body(), BodyKind::None);
        assert_eq!(BodyKind::Row.max_bytes(&Limits::default()), 1 << 20);
    }
}
