//! `GET /sources` and `GET /sources/:name`: how far each database is followed, and what holds it up.

use crate::json;

/// What a source is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SourceState {
    /// It connects for the first time.
    Starting,
    /// It follows the log, and reads rows of tables beside it.
    Reading,
    /// It follows the log.
    Following,
    /// The connection is gone; it is tried again.
    Reconnecting,
    /// Somebody has to act.
    Stopped,
    /// Somebody paused it.
    Paused,
    /// Its tables are read anew and compared.
    Repairing,
}

impl SourceState {
    /// Every state, in the order of the numbers by which metrics show them, from 0.
    pub const ALL: &[Self] = &[
        Self::Starting,
        Self::Reading,
        Self::Following,
        Self::Reconnecting,
        Self::Stopped,
        Self::Paused,
        Self::Repairing,
    ];

    /// The word that answers and logs show.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Reading => "reading",
            Self::Following => "following",
            Self::Reconnecting => "reconnecting",
            Self::Stopped => "stopped",
            Self::Paused => "paused",
            Self::Repairing => "repairing",
        }
    }
}

/// What is done with a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SourceTableState {
    /// Its rows will be read.
    Waiting,
    /// Its rows are being read for the first time.
    Reading,
    /// Its rows are known and may be wrong: they are read anew and compared, or will be.
    Rereading,
    /// Its rows are known, and changes follow.
    Following,
    /// Somebody paused it: its changes are skipped.
    Paused,
    /// It can't be followed, and its changes are skipped; the others go on.
    Stopped,
    /// Somebody dropped it from the source: its rows were removed.
    Dropped,
}

impl SourceTableState {
    /// Every state.
    pub const ALL: [Self; 7] =
        [Self::Waiting, Self::Reading, Self::Rereading, Self::Following, Self::Paused, Self::Stopped, Self::Dropped];

    /// The word that answers, logs and metrics show.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Reading => "reading",
            Self::Rereading => "rereading",
            Self::Following => "following",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
            Self::Dropped => "dropped",
        }
    }

    /// Whether its rows are not all there yet, or may be wrong, and are on their way.
    pub fn is_underway(self) -> bool {
        matches!(self, Self::Waiting | Self::Reading | Self::Rereading)
    }
}

/// One captured table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceTable {
    /// The name under which it is captured.
    pub table: String,
    /// What is done with it.
    pub state: SourceTableState,
    /// A stable word for why it is not simply followed.
    pub code: Option<String>,
    /// The same for a person, with what to do.
    pub reason: Option<String>,
    /// Rows read since the source was last started.
    pub rows_read: u64,
    /// How many rows it has, by the database's own estimate, while they are read.
    pub rows_estimated: Option<u64>,
    /// How long the rest of them takes at the rate so far.
    pub seconds_left: Option<u64>,
    /// Events of it in the log, ever; none if that is not known.
    pub events: Option<u64>,
}

/// Which tables are captured, by patterns in which `*` stands for any characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceSelection {
    /// `namespace.relation`; all that are not the server's own, if none.
    pub tables: Vec<String>,
    /// The same, of tables that are left out.
    pub exclude: Vec<String>,
    /// Whether somebody chose them over the API; the configuration says it, if not.
    pub is_chosen: bool,
}

/// Where a source is, in its database's own notation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourcePlace {
    /// Up to here everything is durable here, and the database may forget it.
    pub committed: Option<String>,
    /// The end of the database's log when it was last looked at.
    pub newest: Option<String>,
}

/// What a repair found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastRepair {
    /// When it ended, in ms since 1970.
    pub ended_at_ms: u64,
    /// Tables that were read anew.
    pub tables: u64,
    /// Rows that were missing here.
    pub inserted: u64,
    /// Rows that differed.
    pub updated: u64,
    /// Rows that were gone from the database.
    pub removed: u64,
}

/// How a source fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceStatus {
    /// Its name.
    pub name: String,
    /// What it follows: `postgres`, `mysql` or `mariadb`.
    pub kind: &'static str,
    /// What it does.
    pub state: SourceState,
    /// A stable word for why it does not follow.
    pub code: Option<String>,
    /// The same for a person, with what to do.
    pub reason: Option<String>,
    /// Since when it is in this state, in ms since 1970.
    pub since_ms: u64,
    /// Where it is.
    pub position: SourcePlace,
    /// How many bytes of the database's log are ahead of it.
    pub lag_bytes: Option<u64>,
    /// How many bytes of log the database keeps because of it.
    pub retained_bytes: Option<u64>,
    /// How many that may be before something is done about it.
    pub retained_budget: Option<u64>,
    /// Whether more than that are retained.
    pub over_budget: bool,
    /// The age of the newest change that was captured: now minus when the database committed it, in ms.
    pub commit_delay_ms: Option<u64>,
    /// Which tables are captured.
    pub selection: SourceSelection,
    /// Its tables.
    pub tables: Vec<SourceTable>,
    /// Events captured since the service started.
    pub events: u64,
    /// Transactions since then.
    pub transactions: u64,
    /// Portions (atomic commits) since then.
    pub portions: u64,
    /// Connections that were lost since then.
    pub reconnects: u64,
    /// What the last repair since then found.
    pub last_repair: Option<LastRepair>,
}

/// Writes the answer to `GET /sources/:name`. What is not known is null; `code`, `reason` and `lastRepair` are left out
/// where there is nothing to say.
pub fn write_source(out: &mut Vec<u8>, source: &SourceStatus) {
    out.extend_from_slice(b"{\"name\":");
    json::string(out, &source.name);
    out.extend_from_slice(b",\"kind\":");
    json::string(out, source.kind);
    out.extend_from_slice(b",\"state\":");
    json::string(out, source.state.as_str());
    for (name, text) in [(&b",\"code\":"[..], &source.code), (b",\"reason\":", &source.reason)] {
        if let Some(text) = text {
            out.extend_from_slice(name);
            json::string(out, text);
        }
    }
    out.extend_from_slice(b",\"since\":");
    json::integer(out, source.since_ms);
    out.extend_from_slice(b",\"position\":{\"committed\":");
    text_or_null(out, source.position.committed.as_deref());
    out.extend_from_slice(b",\"newest\":");
    text_or_null(out, source.position.newest.as_deref());
    out.push(b'}');
    for (name, value) in [
        (&b",\"lagBytes\":"[..], source.lag_bytes),
        (b",\"retainedBytes\":", source.retained_bytes),
        (b",\"retainedBudget\":", source.retained_budget),
    ] {
        out.extend_from_slice(name);
        integer_or_null(out, value);
    }
    out.extend_from_slice(b",\"overBudget\":");
    json::boolean(out, source.over_budget);
    out.extend_from_slice(b",\"commitDelayMs\":");
    integer_or_null(out, source.commit_delay_ms);
    out.extend_from_slice(b",\"selection\":");
    write_source_selection(out, &source.selection);
    let stopped = source.tables.iter().filter(|table| table.state == SourceTableState::Stopped).count();
    member(out, b",\"stoppedTables\":", stopped as u64);
    out.extend_from_slice(b",\"tables\":[");
    json::list(out, &source.tables, write_source_table);
    member(out, b"],\"counters\":{\"events\":", source.events);
    member(out, b",\"transactions\":", source.transactions);
    member(out, b",\"portions\":", source.portions);
    member(out, b",\"reconnects\":", source.reconnects);
    out.push(b'}');
    if let Some(repair) = &source.last_repair {
        member(out, b",\"lastRepair\":{\"endedAt\":", repair.ended_at_ms);
        member(out, b",\"tables\":", repair.tables);
        member(out, b",\"inserted\":", repair.inserted);
        member(out, b",\"updated\":", repair.updated);
        member(out, b",\"removed\":", repair.removed);
        out.push(b'}');
    }
    out.push(b'}');
}

/// Writes the answer to `GET /sources/:name/tables/:table`. What is not known, and what there is nothing to say of, is
/// left out.
pub fn write_source_table(out: &mut Vec<u8>, table: &SourceTable) {
    out.extend_from_slice(b"{\"table\":");
    json::string(out, &table.table);
    out.extend_from_slice(b",\"state\":");
    json::string(out, table.state.as_str());
    for (name, text) in [(&b",\"code\":"[..], &table.code), (b",\"reason\":", &table.reason)] {
        if let Some(text) = text {
            out.extend_from_slice(name);
            json::string(out, text);
        }
    }
    member(out, b",\"rowsRead\":", table.rows_read);
    for (name, value) in [
        (&b",\"rowsEstimated\":"[..], table.rows_estimated),
        (b",\"secondsLeft\":", table.seconds_left),
        (b",\"events\":", table.events),
    ] {
        if let Some(value) = value {
            member(out, name, value);
        }
    }
    out.push(b'}');
}

/// Writes the answer to `GET /sources/:name/selection`.
pub fn write_source_selection(out: &mut Vec<u8>, selection: &SourceSelection) {
    out.extend_from_slice(b"{\"tables\":[");
    json::list(out, &selection.tables, |out, pattern| json::string(out, pattern));
    out.extend_from_slice(b"],\"exclude\":[");
    json::list(out, &selection.exclude, |out, pattern| json::string(out, pattern));
    out.extend_from_slice(b"],\"from\":");
    json::string(out, if selection.is_chosen { "api" } else { "configuration" });
    out.push(b'}');
}

/// Writes the answer to `GET /sources`.
pub fn write_sources(out: &mut Vec<u8>, sources: &[SourceStatus]) {
    out.extend_from_slice(b"{\"sources\":[");
    json::list(out, sources, write_source);
    member(out, b"],\"count\":", sources.len() as u64);
    out.push(b'}');
}

fn member(out: &mut Vec<u8>, before: &[u8], value: u64) {
    out.extend_from_slice(before);
    json::integer(out, value);
}

fn text_or_null(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => json::string(out, text),
        None => out.extend_from_slice(b"null"),
    }
}

fn integer_or_null(out: &mut Vec<u8>, value: Option<u64>) {
    match value {
        Some(value) => json::integer(out, value),
        None => out.extend_from_slice(b"null"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::assert_golden;

    fn table(name: &str, state: SourceTableState, rows_read: u64) -> SourceTable {
        SourceTable {
            table: name.to_owned(),
            state,
            code: None,
            reason: None,
            rows_read,
            rows_estimated: None,
            seconds_left: None,
            events: None,
        }
    }

    fn following() -> SourceStatus {
        SourceStatus {
            name: "shop".to_owned(),
            kind: "postgres",
            state: SourceState::Following,
            code: None,
            reason: None,
            since_ms: 1_764_000_000_000,
            position: SourcePlace { committed: Some("0/16B3748".to_owned()), newest: Some("0/16B3A00".to_owned()) },
            lag_bytes: Some(696),
            retained_bytes: Some(2_048),
            retained_budget: Some(1 << 30),
            over_budget: false,
            commit_delay_ms: Some(4),
            selection: SourceSelection {
                tables: vec!["public.*".to_owned()],
                exclude: vec!["public.tmp_*".to_owned()],
                is_chosen: false,
            },
            tables: vec![
                SourceTable { events: Some(14), ..table("public.users", SourceTableState::Following, 12) },
                SourceTable {
                    rows_estimated: Some(700),
                    seconds_left: Some(99),
                    ..table("public.orders", SourceTableState::Reading, 7)
                },
                SourceTable {
                    code: Some("row-too-large".to_owned()),
                    reason: Some("the row 7 of table public.notes cannot be captured".to_owned()),
                    ..table("public.notes", SourceTableState::Stopped, 0)
                },
            ],
            events: 20,
            transactions: 3,
            portions: 2,
            reconnects: 1,
            last_repair: Some(LastRepair {
                ended_at_ms: 1_764_000_000_001,
                tables: 2,
                inserted: 1,
                updated: 2,
                removed: 3,
            }),
        }
    }

    #[test]
    fn a_source_is_shown_whole() {
        let mut out = Vec::new();
        write_source(&mut out, &SourceStatus { state: SourceState::Reading, ..following() });
        assert_golden("source.json", &out);
    }

    #[test]
    fn a_source_that_stopped_says_why_and_what_is_not_known_is_null() {
        let stopped = SourceStatus {
            state: SourceState::Stopped,
            code: Some("slot-lost".to_owned()),
            reason: Some("the slot \"cdc_shop\" is gone; POST /sources/shop/repair reads the tables anew".to_owned()),
            position: SourcePlace::default(),
            lag_bytes: None,
            retained_bytes: None,
            retained_budget: None,
            commit_delay_ms: None,
            selection: SourceSelection { tables: Vec::new(), exclude: Vec::new(), is_chosen: true },
            tables: Vec::new(),
            last_repair: None,
            ..following()
        };
        let mut out = Vec::new();
        write_sources(&mut out, &[stopped]);
        assert_golden("sources-stopped.json", &out);
        let mut out = Vec::new();
        write_sources(&mut out, &[]);
        assert_golden("sources-empty.json", &out);
    }

    #[test]
    fn a_table_of_a_source_is_shown_alone_too() {
        let mut out = Vec::new();
        write_source_table(&mut out, &table("public.users", SourceTableState::Following, 12));
        assert_golden("source-table.json", &out);
        let words: Vec<_> = SourceTableState::ALL.iter().map(|state| state.as_str()).collect();
        assert_eq!(words, ["waiting", "reading", "rereading", "following", "paused", "stopped", "dropped"]);
    }

    #[test]
    fn a_table_that_a_source_has_not_or_that_is_not_in_a_state_for_it_says_what_to_do() {
        let name = crate::SourceName::parse("shop").unwrap_or_else(|problem| panic!("{problem}"));
        let mut out = Vec::new();
        crate::Problem::unknown_source_table(&name, "public.nobody").write(&mut out);
        assert_golden("problem-unknown-source-table.json", &out);
        let mut out = Vec::new();
        let detail = "table public.users is paused: resume it: its rows are read anew then";
        crate::Problem::wrong_table_state(detail, "paused").write(&mut out);
        assert_golden("problem-wrong-table-state.json", &out);
    }

    #[test]
    fn a_source_that_is_not_there_says_where_sources_stand() {
        let name = crate::SourceName::parse("shop").unwrap_or_else(|problem| panic!("{problem}"));
        let mut out = Vec::new();
        crate::Problem::unknown_source(&name).write(&mut out);
        assert_golden("problem-unknown-source.json", &out);
    }
}
