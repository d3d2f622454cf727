//! `GET /`: what there is here, for people who look and for programs that explore.

use crate::{Capability, json};

/// A path, its methods, and what each does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathEntry<'a> {
    /// The path, its variables as `:name`.
    pub path: &'a str,
    /// The methods with one sentence each. `HEAD` (beside `GET`) and `OPTIONS` go without saying.
    pub methods: &'a [(Method, &'a str)],
}

/// A method that some path takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the methods of HTTP")]
pub enum Method {
    Get,
    Post,
    Put,
    Delete,
}

impl Method {
    /// The name as requests have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
        }
    }

    /// Every method.
    pub(crate) const ALL: &'static [Self] = &[Self::Get, Self::Post, Self::Put, Self::Delete];

    /// Takes a method as a request has it; `HEAD` is a `GET`.
    pub(crate) fn parse(method: &str) -> Option<Self> {
        match method {
            "HEAD" => Some(Self::Get),
            _ => Self::ALL.iter().copied().find(|known| known.as_str() == method),
        }
    }
}

/// The paths of the contract. [`route`](crate::route()) knows the same ones; a test holds the two together.
pub(crate) const PATHS: &[PathEntry<'static>] = &[
    PathEntry { path: "/", methods: &[(Method::Get, "This list.")] },
    PathEntry {
        path: "/data/:table",
        methods: &[(
            Method::Post,
            "Insert a row (JSON object) or many (JSON array, or NDJSON); ?upsert=true updates rows that exist.",
        )],
    },
    PathEntry {
        path: "/data/:table/:key",
        methods: &[
            (Method::Get, "Read a row. A composite key has one segment per column."),
            (Method::Put, "Merge members into a row; ?upsert=true inserts a missing one."),
            (Method::Delete, "Delete a row."),
        ],
    },
    PathEntry {
        path: "/events",
        methods: &[(Method::Get, "Captured events; ?table, operation, key, since, after, limit, order.")],
    },
    PathEntry {
        path: "/events/stream",
        methods: &[(
            Method::Get,
            "Events as they come, as Server-Sent Events; ?table, operation, key, since, after, or Last-Event-ID.",
        )],
    },
    PathEntry {
        path: "/events/ws",
        methods: &[(Method::Get, "Events as they come, over a WebSocket; ?table, operation, key, since, after.")],
    },
    PathEntry { path: "/stats", methods: &[(Method::Get, "Counts and rates.")] },
    PathEntry {
        path: "/snapshot/:table",
        methods: &[(Method::Get, "A table's rows with schema and sequence number; ?at=<sequence> as it was then.")],
    },
    PathEntry { path: "/replica/:table", methods: &[(Method::Get, "The rows that the replication subscriber keeps.")] },
    PathEntry { path: "/schemas", methods: &[(Method::Get, "The schema in force of every table.")] },
    PathEntry {
        path: "/schema/:table",
        methods: &[
            (Method::Get, "A table's schema; ?version=<number> a past one."),
            (Method::Put, "Declare or evolve a table's schema."),
        ],
    },
    PathEntry { path: "/schema/:table/history", methods: &[(Method::Get, "Every version of a table's schema.")] },
    PathEntry {
        path: "/replay",
        methods: &[(Method::Post, "Rebuild tables from the log and compare them with the live ones.")],
    },
    PathEntry { path: "/subscriptions", methods: &[(Method::Get, "Every subscription and how it fares.")] },
    PathEntry {
        path: "/subscriptions/:id",
        methods: &[
            (Method::Get, "A subscription's definition and how it fares."),
            (Method::Put, "Define or change a subscription."),
            (Method::Delete, "Delete a subscription, its cursor and its dead letters."),
        ],
    },
    PathEntry { path: "/subscriptions/:id/pause", methods: &[(Method::Post, "Deliver nothing until it is resumed.")] },
    PathEntry { path: "/subscriptions/:id/resume", methods: &[(Method::Post, "Go on after a pause or a stop.")] },
    PathEntry {
        path: "/subscriptions/:id/rewind",
        methods: &[(Method::Post, "Go on from another place in the log: {\"to\": 123}, \"beginning\" or \"now\".")],
    },
    PathEntry {
        path: "/subscriptions/:id/test",
        methods: &[(
            Method::Post,
            "Run a component over past events without effects, and compare it with the live one.",
        )],
    },
    PathEntry {
        path: "/subscriptions/:id/dead-letters",
        methods: &[(Method::Get, "Events that were given up, with the reason; ?after, limit.")],
    },
    PathEntry {
        path: "/subscriptions/:id/dead-letters/retry",
        methods: &[(Method::Post, "Deliver dead letters again: {\"sequences\": [1, 2]} or {\"all\": true}.")],
    },
    PathEntry {
        path: "/subscriptions/:id/dead-letters/discard",
        methods: &[(Method::Post, "Forget dead letters: {\"sequences\": [1, 2]} or {\"all\": true}.")],
    },
    PathEntry { path: "/components", methods: &[(Method::Get, "Every component with its current version.")] },
    PathEntry {
        path: "/components/:name",
        methods: &[
            (Method::Get, "A component: world, imports, and every version."),
            (Method::Put, "Upload a component (application/wasm) as its next version."),
            (Method::Delete, "Delete a component with all its versions."),
        ],
    },
    PathEntry {
        path: "/components/:name/rollback",
        methods: &[(Method::Post, "Make an earlier version the current one: {\"version\": 2}, or the one before.")],
    },
    PathEntry {
        path: "/components/:name/versions/:version",
        methods: &[(Method::Get, "A version of a component: world, imports, size, hash.")],
    },
    PathEntry { path: "/sources", methods: &[(Method::Get, "Every database that is followed, and how that fares.")] },
    PathEntry { path: "/sources/:name", methods: &[(Method::Get, "How far a source is, and what holds it up.")] },
    PathEntry { path: "/sources/:name/pause", methods: &[(Method::Post, "Follow no further until it is resumed.")] },
    PathEntry { path: "/sources/:name/resume", methods: &[(Method::Post, "Go on after a pause or a stop.")] },
    PathEntry {
        path: "/sources/:name/repair",
        methods: &[(Method::Post, "Read the tables anew, compare them with the rows here, and mend what differs.")],
    },
    PathEntry {
        path: "/sources/:name/audit",
        methods: &[
            (Method::Get, "What the audit of a source has found that goes on, or was the last one."),
            (
                Method::Post,
                "Compare the rows here with the database's: {\"tables\": [\"public.users\"], \"mend\": true}.",
            ),
        ],
    },
    PathEntry {
        path: "/sources/:name/selection",
        methods: &[
            (Method::Get, "Which tables a source captures."),
            (Method::Put, "Choose them: {\"tables\": [\"public.*\"], \"exclude\": [\"public.tmp_*\"]}."),
            (Method::Delete, "Capture what the configuration says."),
        ],
    },
    PathEntry {
        path: "/sources/:name/tables/:table",
        methods: &[(Method::Get, "How one of a source's tables fares.")],
    },
    PathEntry {
        path: "/sources/:name/tables/:table/pause",
        methods: &[(Method::Post, "Skip a table's changes until it is resumed; its rows stay.")],
    },
    PathEntry {
        path: "/sources/:name/tables/:table/resume",
        methods: &[(Method::Post, "Follow a table again that was paused, stopped or dropped; its rows are read anew.")],
    },
    PathEntry {
        path: "/sources/:name/tables/:table/reread",
        methods: &[(Method::Post, "Read a table's rows anew, compare them with those here, and mend what differs.")],
    },
    PathEntry {
        path: "/sources/:name/tables/:table/audit",
        methods: &[(Method::Post, "Compare a table's rows here with the database's: {\"mend\": true}.")],
    },
    PathEntry {
        path: "/sources/:name/tables/:table/drop",
        methods: &[(Method::Post, "Remove a table's rows here, and capture it no longer until it is resumed.")],
    },
    PathEntry {
        path: "/trace/:table/:key",
        methods: &[(Method::Get, "What became of a row's events at each subscription.")],
    },
    PathEntry { path: "/healthz", methods: &[(Method::Get, "Whether the service is alive.")] },
    PathEntry { path: "/readyz", methods: &[(Method::Get, "Whether the service takes requests.")] },
    PathEntry { path: "/metrics", methods: &[(Method::Get, "Metrics in the OpenMetrics text format.")] },
];

/// Writes the answer to `GET /`: what the embedder offers, the paths of the contract, and then the embedder's own.
pub fn write_index(out: &mut Vec<u8>, version: &str, offered: &[Capability], own: &[PathEntry<'_>]) {
    out.extend_from_slice(b"{\"name\":\"cdc\",\"version\":");
    json::string(out, version);
    out.extend_from_slice(b",\"capabilities\":[");
    json::list(out, offered, |out, capability| json::string(out, capability.as_str()));
    out.extend_from_slice(b"],\"paths\":[");
    json::list(out, PATHS.iter().chain(own), |out, entry| {
        out.extend_from_slice(b"{\"path\":");
        json::string(out, entry.path);
        out.extend_from_slice(b",\"methods\":{");
        json::list(out, entry.methods, |out, (method, sentence)| {
            json::string(out, method.as_str());
            out.push(b':');
            json::string(out, sentence);
        });
        out.extend_from_slice(b"}}");
    });
    out.extend_from_slice(b"]}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::assert_golden;

    #[test]
    fn the_index_lists_our_paths_and_the_embedders() {
        let own = [PathEntry { path: "/console", methods: &[(Method::Get, "For people.")] }];
        let mut out = Vec::new();
        write_index(&mut out, "1.2.3", Capability::ALL, &own);
        assert_golden("index.json", &out);
    }
}
