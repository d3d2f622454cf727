//! The one table of everything that can go wrong: code, status, title, and the seed's `error` string.

/// Declares [`Code`] from the table below, so that no code can lack a status or a title.
macro_rules! codes {
    ($($variant:ident $code:literal $status:literal $title:literal $error:literal;)*) => {
        /// What went wrong. The codes are stable: answers, bulk results and logs show them. Those that `engine.wit`
        /// has as `refusal-code` carry the same names.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code {
            $(#[doc = concat!("`", $code, "` (", $status, "): ", $title, ".")] $variant,)*
        }

        impl Code {
            /// Every code, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The stable code.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// The HTTP status.
            pub fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }

            /// What it means, the same for every occurrence.
            pub fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }

            /// The `error` member: the seed implementation's string where it had one, else one of its kind.
            pub(crate) fn error(self) -> &'static str {
                match self { $(Self::$variant => $error,)* }
            }
        }
    };
}

codes! {
    // What the request looks like.
    MalformedRequest "malformed-request" 400 "The request is not well-formed HTTP" "Bad request";
    InvalidParameter "invalid-parameter" 400 "A query parameter is not acceptable" "Invalid query parameter";
    InvalidBody "invalid-body" 400 "The body does not say what it should" "Invalid body";
    ForeignOrigin "foreign-origin" 403 "Pages of this origin may not connect" "Origin not allowed";
    UnknownHost "unknown-host" 421 "The service is not known by this name" "Unknown host";
    UnknownPath "unknown-path" 404 "There is nothing at this path" "Not found";
    MethodNotAllowed "method-not-allowed" 405 "The path does not take this method" "Method not allowed";
    UpgradeRequired "upgrade-required" 426 "This path speaks WebSocket only" "Upgrade required";
    RequestTimeout "request-timeout" 408 "The request took too long to arrive" "Request timeout";
    TooSlow "too-slow" 408 "The reader did not take what was sent to it" "Reader too slow";
    BodyTooLarge "body-too-large" 413 "The body is too large" "Body too large";
    TooManyRows "too-many-rows" 413 "The body has too many rows" "Too many rows";
    UriTooLong "uri-too-long" 414 "The path and query are too long" "URI too long";
    UnsupportedMediaType "unsupported-media-type" 415 "The body's media type is not taken here" "Unsupported media type";
    UnsupportedEncoding "unsupported-encoding" 415 "The body's encoding is not taken" "Unsupported content encoding";
    TooManyRequests "too-many-requests" 429 "This client asks for more than its share" "Too many requests";
    HeadersTooLarge "headers-too-large" 431 "The request's header fields are too large" "Headers too large";

    // What the engine refuses.
    InvalidJson "invalid-json" 400 "The body or row is not JSON" "Invalid JSON";
    NotAnObject "not-an-object" 400 "The row is not a JSON object" "Record must be an object";
    DuplicateMember "duplicate-member" 400 "The row has a member twice" "Duplicate member";
    MissingKey "missing-key" 400 "The row lacks its key" "Primary key required";
    InvalidKey "invalid-key" 400 "The key is not one" "Invalid key";
    KeyMismatch "key-mismatch" 400 "The row's key is not the one it was addressed by" "Key mismatch";
    InvalidTableName "invalid-table-name" 400 "The table name is not one" "Invalid table name";
    InvalidColumnName "invalid-column-name" 400 "The column name is not one" "Invalid column name";
    InvalidSchema "invalid-schema" 400 "The declaration is not a schema" "Invalid schema";
    UnknownTable "unknown-table" 404 "There is no such table" "Table not found";
    UnknownRow "unknown-row" 404 "There is no such row" "Record not found";
    RowExists "row-exists" 409 "A row with this key exists" "Record already exists";
    CapturedTable "captured-table" 409 "The table follows a database and is written there" "Table follows a database";
    SchemaConflict "schema-conflict" 409 "The declaration contradicts the schema in force" "Schema conflict";
    KeyTooLong "key-too-long" 413 "The key is too long" "Key too long";
    RowTooLarge "row-too-large" 413 "The row is too large" "Record too large";
    TooDeep "too-deep" 413 "The row is nested too deeply" "Record nested too deeply";
    TooManyColumns "too-many-columns" 413 "The table would have too many columns" "Too many columns";
    TooManyTables "too-many-tables" 413 "There would be too many tables" "Too many tables";
    SchemaViolation "schema-violation" 422 "The row does not fit the declared schema" "Schema violation";

    // What subscriptions and components are not.
    InvalidSubscription "invalid-subscription" 400 "The definition is not a subscription" "Invalid subscription";
    InvalidSubscriptionId "invalid-subscription-id" 400 "The subscription's id is not one" "Invalid subscription id";
    InvalidComponentName "invalid-component-name" 400 "The component's name is not one" "Invalid component name";
    UnknownSubscription "unknown-subscription" 404 "There is no such subscription" "Subscription not found";
    UnknownComponent "unknown-component" 404 "There is no such component" "Component not found";
    UnknownComponentVersion "unknown-component-version" 404 "The component has no such version" "Component version not found";
    DeclaredInConfiguration "declared-in-configuration" 409 "The configuration declares it" "Declared in the configuration";
    ComponentInUse "component-in-use" 409 "A subscription uses the component" "Component in use";
    NothingBefore "nothing-before" 409 "There is no earlier version" "No earlier version";
    LimitReached "limit-reached" 409 "As many as may be are there" "Limit reached";
    UnfitComponent "unfit-component" 422 "The component cannot be a subscriber" "Unfit component";
    SubscriptionBusy "subscription-busy" 503 "The subscription is still at a batch" "Subscription busy";
    ComponentTooLarge "component-too-large" 413 "The component is too large" "Component too large";

    // What sources are not.
    InvalidSourceName "invalid-source-name" 400 "The source's name is not one" "Invalid source name";
    UnknownSource "unknown-source" 404 "There is no such source" "Source not found";
    WrongSourceState "wrong-source-state" 409 "The source is not in a state for this" "Wrong source state";
    UnknownSourceTable "unknown-source-table" 404 "The source has no such table" "Table not found";
    WrongTableState "wrong-table-state" 409 "The table is not in a state for this" "Wrong table state";

    // What the past no longer, or not yet, holds.
    InTheFuture "in-the-future" 400 "The sequence number lies beyond the newest event" "Sequence not reached yet";
    UnknownVersion "unknown-version" 404 "The table's schema has no such version" "Schema version not found";
    Dropped "dropped" 410 "Retention has dropped what was asked for" "Events no longer available";
    TooFarBack "too-far-back" 413 "Too much has changed since to look back so far" "Too far back";

    // What is not to be had here.
    NotOffered "not-offered" 501 "This runtime does not offer it" "Not offered here";
    UnsafeStore "unsafe-store" 501 "The store cannot take writes safely" "Store cannot take writes";

    // What is wrong on our side.
    EngineFailed "engine-failed" 500 "The engine failed" "Internal server error";
    StoreFailed "store-failed" 503 "The store failed" "Storage failure";
    StorageFull "storage-full" 503 "There is no room left to store it" "Storage full";
    WriteConflict "write-conflict" 503 "Other writers were first" "Service busy";
    QueueFull "queue-full" 503 "Too many writes are waiting" "Service busy";
    TooManyConnections "too-many-connections" 503 "Too many connections are open" "Service busy";
    TooManyStreams "too-many-streams" 503 "Too many streams are open" "Service busy";
    NotReady "not-ready" 503 "The service is not ready yet" "Service not ready";
    ShuttingDown "shutting-down" 503 "The service is shutting down" "Service shutting down";
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn codes_are_distinct_and_kebab_case() {
        let distinct: HashSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(distinct.len(), Code::ALL.len());
        assert!(distinct.iter().all(|code| code.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')));
    }

    #[test]
    fn every_status_is_an_error() {
        assert!(Code::ALL.iter().all(|code| (400..=599).contains(&code.status())));
    }

    /// The names in `engine.wit` and those here must not drift apart: an embedder maps them by name.
    #[test]
    fn every_refusal_of_the_engine_has_its_code() {
        let wit = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../wit/engine/engine.wit"));
        let wit = wit.unwrap_or_else(|error| panic!("engine.wit: {error}"));
        let cases = wit.split_once("enum refusal-code {").and_then(|(_, rest)| rest.split_once('}'));
        let (cases, _) = cases.unwrap_or_else(|| panic!("engine.wit has no refusal-code"));
        let names: Vec<_> =
            cases.lines().map(str::trim).filter(|line| !line.starts_with("//") && !line.is_empty()).collect();
        assert!(names.len() >= 19);
        for name in names.iter().map(|name| name.trim_end_matches(',')) {
            assert!(Code::ALL.iter().any(|code| code.as_str() == name), "{name}");
        }
    }
}
