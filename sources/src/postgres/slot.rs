//! The replication slot and the publication: made where they are missing and that is allowed, else checked.

use std::collections::BTreeSet;

use super::Options;
use super::catalog::{Candidate, candidates, flag, number, one_row, text};
use super::checkpoint::{Mark, Origin, Place};
use super::lsn::Lsn;
use super::wire::{Connection, WireError, identifier, literal};
use crate::feed::{FeedError, Progress, Remedy};

/// A slot as the server describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) plugin: String,
    pub(super) database: String,
    pub(super) active: bool,
    /// Up to where somebody confirmed.
    pub(super) confirmed: Lsn,
    /// How many bytes of log are kept for it.
    pub(super) retained_bytes: Option<u64>,
    /// The end of the log.
    pub(super) newest: Lsn,
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub(super) wal_status: String,
    /// Why the server gave it up, if it says so: `wal_removed`, `rows_removed`, `wal_level_insufficient`, `idle_timeout`.
    pub(super) invalidation: Option<String>,
    /// Whether it was made for prepared transactions.
    pub(super) two_phase: bool,
    /// Whether standbys bring it along. None before version 17.
    pub(super) failover: Option<bool>,
    /// Whether it is a standby's copy of one, which can't be followed before that takes over.
    pub(super) synced: bool,
}

impl Slot {
    /// Whether the log that it stands for is gone.
    pub(super) fn is_lost(&self) -> bool {
        self.wal_status == "lost" || self.wal_status.is_empty() || self.invalidation.is_some()
    }

    /// What it means for a person that it is lost.
    pub(super) fn lost(&self, name: &str) -> FeedError {
        lost(format!(
            "the server gave up the replication slot `{name}`, {}: changes are missing. Repair this source: its tables are \
             read anew and compared",
            self.why_lost()
        ))
    }

    /// Why it is lost, and what keeps that from happening again.
    pub(super) fn why_lost(&self) -> String {
        match self.invalidation.as_deref() {
            Some("idle_timeout") => "because nothing followed it for idle_replication_slot_timeout (ALTER SYSTEM SET \
                 idle_replication_slot_timeout = 0 switches that off)"
                .into(),
            Some("rows_removed") => "because the primary removed rows of its catalog that the slot needs (let \
                 hot_standby_feedback be on, and primary_slot_name be set, on the standby)"
                .into(),
            Some("wal_level_insufficient") => "because wal_level was below logical for a while (ALTER SYSTEM SET \
                 wal_level = logical on the primary, and restart it)"
                .into(),
            None | Some("wal_removed") => "because more log waited for it than max_slot_wal_keep_size allows (its \
                 wal_status is lost)"
                .into(),
            Some(other) => format!("with the reason {other}"),
        }
    }

    /// Notes how much log is kept, for whoever has `confirmed` this much by now.
    pub(super) fn note_in(&self, progress: &mut Progress, confirmed: Lsn) {
        progress.newest = Some(self.newest.to_string());
        progress.lag_bytes = Some(self.newest.0.saturating_sub(confirmed.max(self.confirmed).0));
        progress.retained_bytes = self.retained_bytes;
    }
}

/// The end of the log, as SQL; on a standby, of what it has applied.
const NEWEST: &str = "CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END";

/// Looks a slot up.
pub(super) fn find(connection: &mut Connection, name: &str) -> Result<Option<Slot>, WireError> {
    let rows = connection.query(&format!(
        // As JSON, because not every version has all of the columns.
        "SELECT coalesce(plugin, ''), coalesce(database, ''), active, coalesce(confirmed_flush_lsn, '0/0'), \
         pg_wal_lsn_diff({NEWEST}, restart_lsn)::bigint, {NEWEST}, coalesce(wal_status, ''), two_phase, \
         coalesce(to_jsonb(s) ->> 'invalidation_reason', CASE to_jsonb(s) ->> 'conflicting' WHEN 'true' THEN \
         'rows_removed' END), to_jsonb(s) ->> 'failover', coalesce(to_jsonb(s) ->> 'synced', '') FROM pg_replication_slots s WHERE slot_name = {}",
        literal(name)
    ))?;
    if rows.is_empty() {
        return Ok(None);
    }
    let mut cells = one_row(rows)?;
    Ok(Some(Slot {
        plugin: text(&mut cells)?,
        database: text(&mut cells)?,
        active: flag(&mut cells)?,
        confirmed: number(&mut cells)?,
        retained_bytes: cells.next().flatten().and_then(|bytes| bytes.parse().ok()),
        newest: number(&mut cells)?,
        wal_status: text(&mut cells)?,
        two_phase: flag(&mut cells)?,
        invalidation: cells.next().flatten(),
        failover: cells.next().flatten().map(|failover| failover == "true"),
        synced: text(&mut cells)? == "true",
    }))
}

/// The end of the log.
pub(super) fn newest(connection: &mut Connection) -> Result<Lsn, WireError> {
    connection.query(&format!("SELECT {NEWEST}")).and_then(|rows| number(&mut one_row(rows)?))
}

/// Writes a message into the log, and gives its place: everything that was committed before is before it, and the log
/// reaches it although nothing else is written. On a standby, which writes nothing, what it has applied does the same.
pub(super) fn mark_place(connection: &mut Connection) -> Result<Lsn, WireError> {
    let sql = "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() \
               ELSE pg_logical_emit_message(true, 'cdc', '') END";
    connection.query(sql).and_then(|rows| number(&mut one_row(rows)?))
}

/// What a standby has applied; None if the server is none.
pub(super) fn applied(connection: &mut Connection) -> Result<Option<Lsn>, WireError> {
    let rows = connection.query("SELECT pg_last_wal_replay_lsn() WHERE pg_is_in_recovery()")?;
    if rows.is_empty() { Ok(None) } else { number(&mut one_row(rows)?).map(Some) }
}

/// The call that makes a slot: one that standbys bring along, where the server knows such.
pub(super) fn create_sql(connection: &mut Connection, name: &str) -> String {
    // A standby makes none that other standbys would bring along.
    let is_primary = |connection: &mut Connection| applied(connection).is_ok_and(|applied| applied.is_none());
    let more = if connection.major_version() >= 17 && is_primary(connection) { ", failover => true" } else { "" };
    format!("pg_create_logical_replication_slot({}, 'pgoutput'{more})", literal(name))
}

/// Makes a slot. Waits for the transactions that are open now.
fn create(connection: &mut Connection, name: &str) -> Result<Lsn, FeedError> {
    let sql = format!("SELECT lsn FROM {}", create_sql(connection, name));
    let made = connection.query(&sql).and_then(|rows| number(&mut one_row(rows)?));
    made.map_err(|error| {
        let room = error.code() == Some("53400");
        let mut error = error.into_feed(&format!("create the replication slot `{name}`"));
        if room {
            error.remedy = Remedy::Stop;
            error.code = "slot-room";
            let most =
                connection.query("SHOW max_replication_slots").and_then(|rows| number::<u32>(&mut one_row(rows)?));
            let more = most.map_or(20, |most| most.max(5) * 2);
            error
                .message
                .push_str(&format!("; ALTER SYSTEM SET max_replication_slots = {more}; and restart the server"));
        }
        error
    })
}

/// Drops a slot. That it is not there is no error.
pub(super) fn drop(connection: &mut Connection, name: &str) -> Result<(), FeedError> {
    let sql = format!(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = {}",
        literal(name)
    );
    connection.query(&sql).map(|_| ()).map_err(|error| error.into_feed(&format!("drop the replication slot `{name}`")))
}

/// An error of the stream. A publication that is missing there is missing at the slot's place in the log: we have seen
/// to it that it is there now.
pub(super) fn of_stream(error: WireError, options: &Options) -> FeedError {
    let mut error = error.into_feed("follow the log");
    if error.code == "publication" {
        error.message.push_str(&format!(
            "; the server looks for it as of the place in the log that the slot `{slot}` stands at, which is from before the \
             publication was made. Make the slot anew: SELECT pg_drop_replication_slot({literal}), then repair this source, \
             which makes the slot and reads the tables",
            slot = options.slot,
            literal = literal(&options.slot)
        ));
    }
    error
}

fn lost(message: String) -> FeedError {
    FeedError { remedy: Remedy::Repair, code: "slot-lost", message, source: None }
}

/// Another database than the checkpoint's answers.
fn another(message: String) -> FeedError {
    FeedError { remedy: Remedy::Repair, code: "another-database", message, source: None }
}

/// Finds out where in the log to begin, and makes the slot if there is none and there may be one. Never skips a part of
/// the log silently: a slot that does not go back to the checkpoint is an error, unless a repair was asked for.
/// With the place, whether the slot is new.
pub(super) fn settle(
    connection: &mut Connection,
    options: &Options,
    origin: &Origin,
    history: &[(u32, Lsn)],
    checkpoint: Option<&(Mark, Place)>,
) -> Result<(Place, bool), FeedError> {
    let name = &options.slot;
    if let (Some((mark, place)), false) = (checkpoint, options.repair) {
        check_origin(&mark.origin, origin, history, *place)?;
    }
    let slot = find(connection, name).map_err(|error| error.into_feed("look up the replication slot"))?;
    if let Some(slot) = &slot
        && (slot.plugin != "pgoutput" || slot.database != origin.database)
    {
        return Err(FeedError {
            remedy: Remedy::Stop,
            code: "slot-foreign",
            message: format!(
                "the replication slot `{name}` is of the database `{}` and the plugin `{}`, so it is somebody else's: \
                 configure another name",
                slot.database, slot.plugin
            ),
            source: None,
        });
    }
    let resumed =
        checkpoint.filter(|(mark, place)| !options.repair || goes_on(slot.as_ref(), origin, history, mark, *place));
    let resumed = resumed.map(|(_, place)| *place);
    match (slot, resumed) {
        (Some(slot), Some(place)) => {
            if slot.is_lost() {
                return Err(slot.lost(name));
            }
            if slot.confirmed > place.needed_from() {
                return Err(lost(format!(
                    "the replication slot `{name}` is at {}, beyond our position {}: it was advanced or made anew \
                     behind our back, and changes between them are missing. Repair this source: its tables are read \
                     anew and compared",
                    slot.confirmed,
                    place.needed_from()
                )));
            }
            if slot.newest < place.lsn {
                return Err(another(format!(
                    "the database's log ends at {}, before our position {}: it was restored from a backup, or is \
                     another one. Repair this source: its tables are read anew and compared",
                    slot.newest, place.lsn
                )));
            }
            Ok((place, false))
        }
        (None, Some(_)) if checkpoint.is_some_and(|(mark, _)| mark.origin.timeline != origin.timeline) => {
            Err(another(format!(
                "the database is on timeline {}, since a standby took over or it was restored, and the replication slot \
                 `{name}` did not come along: what is missing is not known. (From version 17 on standbys bring a slot along \
                 that was made with failover, as cdc makes them, if they have sync_replication_slots on.) Repair this \
                 source: the slot is made anew, and its tables are read and compared",
                origin.timeline
            )))
        }
        (None, Some(place)) => Err(lost(format!(
            "the replication slot `{name}` is gone, and with it what happened after our position {}. Repair this \
             source: the slot is made anew, and its tables are read and compared",
            place.lsn
        ))),
        (Some(slot), None) if !slot.is_lost() => Ok((Place::at(slot.confirmed), false)),
        (slot, None) => {
            if !options.create_slot {
                return Err(FeedError {
                    remedy: Remedy::Stop,
                    code: "slot-missing",
                    message: format!(
                        "there is no usable replication slot `{name}`, and making one is switched off: SELECT \
                         {}",
                        create_sql(connection, name)
                    ),
                    source: None,
                });
            }
            if slot.is_some() {
                drop(connection, name)?;
            }
            Ok((Place::at(create(connection, name)?), true))
        }
    }
}

/// Whether the log can be followed from the checkpoint on. A repair then goes on there: what was captured does not come
/// again.
fn goes_on(slot: Option<&Slot>, origin: &Origin, history: &[(u32, Lsn)], mark: &Mark, place: Place) -> bool {
    let is_within = |slot: &Slot| !slot.is_lost() && slot.confirmed <= place.needed_from() && place.lsn <= slot.newest;
    check_origin(&mark.origin, origin, history, place).is_ok() && slot.is_some_and(is_within)
}

/// Whether what was followed up to `place` is in this database's past. `history` says where each timeline before its own
/// ended.
fn check_origin(ours: &Origin, theirs: &Origin, history: &[(u32, Lsn)], place: Place) -> Result<(), FeedError> {
    if ours.system != theirs.system {
        return Err(another(format!(
            "this is another database system ({}) than the one that was followed ({}). If that is meant, repair this \
             source: its tables are read anew and compared",
            theirs.system, ours.system
        )));
    }
    if ours.timeline != theirs.timeline {
        let left_at = history.iter().find(|(timeline, _)| *timeline == ours.timeline).map(|(_, end)| *end);
        let reached = place.partly.map_or(place.lsn, |(commit, _)| commit.max(place.lsn));
        let problem = match left_at {
            // A standby took over, and had all that we have.
            Some(end) if reached <= end => None,
            Some(end) => Some(format!(
                "it left that timeline at {end}, and we are at {reached}: we have what was lost there. (A primary from \
                 version 17 on sends nothing to us that its standby lacks, if synchronized_standby_slots names that \
                 standby's slot)"
            )),
            None => Some("the one does not come from the other".to_owned()),
        };
        if let Some(problem) = problem {
            return Err(another(format!(
                "the database is on timeline {} and was followed on timeline {}, since a standby took over or it was \
                 restored, and {problem}. Repair this source: its tables are read anew and compared",
                theirs.timeline, ours.timeline
            )));
        }
    }
    if ours.database != theirs.database || ours.slot != theirs.slot {
        return Err(another(format!(
            "the stored position is of the database `{}` and the slot `{}`, but `{}` and `{}` are configured. If that \
             is meant, repair this source: its tables are read anew and compared",
            ours.database, ours.slot, theirs.database, theirs.slot
        )));
    }
    Ok(())
}

/// A publication as the catalog has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Publication {
    pub(super) owned: bool,
    pub(super) all_tables: bool,
    pub(super) all_operations: bool,
    pub(super) via_root: bool,
    /// Whether it has our mark.
    pub(super) made_here: bool,
}

/// What a publication is marked with that was made here, so that no other is ever dropped.
const MARK: &str = "made by cdc, and dropped by cdc source drop";

/// Looks a publication up.
pub(super) fn find_publication(connection: &mut Connection, name: &str) -> Result<Option<Publication>, WireError> {
    let rows = connection.query(&format!(
        "SELECT pg_has_role(pubowner, 'USAGE'), puballtables, pubinsert AND pubupdate AND pubdelete AND pubtruncate, \
         pubviaroot, obj_description(oid, 'pg_publication') IS NOT DISTINCT FROM {} FROM pg_publication \
         WHERE pubname = {}",
        literal(MARK),
        literal(name)
    ))?;
    if rows.is_empty() {
        return Ok(None);
    }
    let mut cells = one_row(rows)?;
    Ok(Some(Publication {
        owned: flag(&mut cells)?,
        all_tables: flag(&mut cells)?,
        all_operations: flag(&mut cells)?,
        via_root: flag(&mut cells)?,
        made_here: flag(&mut cells)?,
    }))
}

/// Drops the publication if it was made here. Answers whether it is left, because somebody else made it; that it is not
/// there is no error.
pub(super) fn drop_publication(connection: &mut Connection, name: &str) -> Result<bool, FeedError> {
    let doing = |error: WireError| error.into_feed(&format!("drop the publication `{name}`"));
    let Some(found) = find_publication(connection, name).map_err(doing)? else { return Ok(false) };
    if found.made_here {
        connection.query(&format!("DROP PUBLICATION IF EXISTS {}", identifier(name))).map_err(doing)?;
    }
    Ok(!found.made_here)
}

/// The SQL that makes the publication.
pub(super) fn publication_sql(options: &Options, tables: &[Candidate]) -> String {
    let name = identifier(&options.publication);
    let what = if options.publish_all_tables {
        " FOR ALL TABLES".into()
    } else if tables.is_empty() {
        String::new()
    } else {
        format!(" FOR TABLE {}", table_list(tables))
    };
    format!("CREATE PUBLICATION {name}{what} WITH (publish_via_partition_root = true)")
}

fn table_list(tables: &[Candidate]) -> String {
    let names: Vec<String> = tables
        .iter()
        .map(|table| format!("{}.{}", identifier(&table.namespace), identifier(&table.relation)))
        .collect();
    names.join(", ")
}

/// Whether tables are added to the publication: only to one that was made here, because what somebody else chose not to
/// publish is theirs to choose.
pub(super) fn may_add_tables(options: &Options, publication: Publication) -> bool {
    options.create_publication && publication.made_here && publication.owned && !publication.all_tables
}

/// Makes or checks the publication, and adds tables that the rules include and that are not `known`, if it is ours.
pub(super) fn settle_publication(
    connection: &mut Connection,
    options: &Options,
    known: &BTreeSet<u32>,
) -> Result<(), FeedError> {
    let name = &options.publication;
    let found = find_publication(connection, name).map_err(|error| error.into_feed("look up the publication"))?;
    let Some(publication) = found else {
        let tables = candidates(connection, &options.rules).map_err(|error| error.into_feed("look up tables"))?;
        // PostgreSQL refuses updates of a published table that it has no identity of, so one is never published by us.
        let (tables, keyless): (Vec<Candidate>, Vec<Candidate>) = tables.into_iter().partition(|table| table.has_key);
        if !keyless.is_empty() && options.publish_all_tables {
            return Err(without_key(&keyless));
        }
        // Nor one that is somebody else's, which stops alone; unless there are no others.
        let (owned, others): (Vec<Candidate>, Vec<Candidate>) = tables.into_iter().partition(|table| table.owned);
        let tables = if owned.is_empty() { others } else { owned };
        let sql = publication_sql(options, &tables);
        if applied(connection).map_err(|error| error.into_feed("look at the server"))?.is_some() {
            return Err(stop_publication(format!(
                "there is no publication `{name}`, and the server is a standby, which makes none: run on its primary {sql}"
            )));
        }
        if !options.create_publication {
            return Err(stop_publication(format!(
                "there is no publication `{name}`, and making one is switched off: {sql}"
            )));
        }
        // Both or neither, as statements are that come together.
        let marked = format!("{sql}; COMMENT ON PUBLICATION {} IS {}", identifier(name), literal(MARK));
        return connection.query(&marked).map(|_| ()).map_err(|error| {
            let mut error = error.into_feed(&format!("create the publication `{name}`"));
            if error.code == "privileges" {
                error.message.push_str(&format!("; let an owner of the tables (or a superuser) run: {sql}"));
            }
            error
        });
    };
    if !publication.all_operations {
        return Err(stop_publication(format!(
            "the publication `{name}` leaves out some operations: ALTER PUBLICATION {} SET (publish = 'insert, update, \
             delete, truncate')",
            identifier(name)
        )));
    }
    let partitions = publishes_partitioned(connection, name);
    if !publication.via_root && partitions.map_err(|error| error.into_feed("look up partitions"))? {
        return Err(stop_publication(format!(
            "the publication `{name}` tells changes of partitioned tables under the names of their partitions: ALTER \
             PUBLICATION {} SET (publish_via_partition_root = true)",
            identifier(name)
        )));
    }
    let standby = applied(connection).map_err(|error| error.into_feed("look at the server"))?;
    if standby.is_none() && may_add_tables(options, publication) {
        add_tables(connection, options, known).map_err(|error| error.into_feed("add tables to the publication"))?;
    }
    Ok(())
}

pub(super) fn publishes_partitioned(connection: &mut Connection, name: &str) -> Result<bool, WireError> {
    let sql = format!(
        "SELECT FROM pg_publication_tables p JOIN pg_class c ON c.relname = p.tablename \
         AND c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = p.schemaname) \
         WHERE pubname = {} AND c.relispartition LIMIT 1",
        literal(name)
    );
    Ok(!connection.query(&sql)?.is_empty())
}

/// Adds tables that the rules include and the publication lacks. One without a key waits until it has one, and one that
/// is not ours until somebody adds it. One that is known was taken out by somebody, and stays out.
pub(super) fn add_tables(
    connection: &mut Connection,
    options: &Options,
    known: &BTreeSet<u32>,
) -> Result<(), WireError> {
    let published: std::collections::HashSet<(String, String)> = connection
        .query(&format!(
            "SELECT schemaname, tablename FROM pg_publication_tables WHERE pubname = {}",
            literal(&options.publication)
        ))?
        .into_iter()
        .filter_map(|row| {
            let mut cells = row.into_iter();
            Some((cells.next()??, cells.next()??))
        })
        .collect();
    for table in candidates(connection, &options.rules)? {
        let is_published = published.contains(&(table.namespace.clone(), table.relation.clone()));
        if is_published || known.contains(&table.oid) || !table.owned || !table.has_key {
            continue;
        }
        let list = table_list(std::slice::from_ref(&table));
        match connection.query(&format!("ALTER PUBLICATION {} ADD TABLE {list}", identifier(&options.publication))) {
            // Dropped, or added by somebody else, in the meantime.
            Err(error) if matches!(error.code(), Some("42P01" | "42710")) => {}
            Err(error) => return Err(error),
            Ok(_) => {}
        }
    }
    Ok(())
}

/// These tables can't be captured, and the others are not before somebody decides what becomes of these.
pub(super) fn without_key(tables: &[Candidate]) -> FeedError {
    let names: Vec<String> = tables.iter().map(|table| format!("{}.{}", table.namespace, table.relation)).collect();
    FeedError {
        remedy: Remedy::Stop,
        code: "no-key",
        message: format!(
            "no key tells the rows of these tables apart: {}. Give each a primary key (ALTER TABLE … ADD PRIMARY KEY \
             (…)), or a unique index over NOT NULL columns as its identity (ALTER TABLE … REPLICA IDENTITY USING INDEX \
             …), or exclude them",
            names.join(", ")
        ),
        source: None,
    }
}

fn stop_publication(message: String) -> FeedError {
    FeedError { remedy: Remedy::Stop, code: "publication", message, source: None }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_standby_that_took_over_is_followed_if_it_had_all_that_we_have() {
        let ours = Origin { system: "7301".into(), timeline: 2, database: "app".into(), slot: "cdc".into() };
        let theirs = Origin { timeline: 4, ..ours.clone() };
        let history = [(1, Lsn(50)), (2, Lsn(100)), (3, Lsn(150))];
        let inside = Place { partly: Some((Lsn(120), 3)), ..Place::at(Lsn(90)) };
        for (place, good) in [(Place::at(Lsn(100)), true), (Place::at(Lsn(101)), false), (inside, false)] {
            assert_eq!(check_origin(&ours, &theirs, &history, place).is_ok(), good, "{place:?}");
        }
        // Another one that was promoted beside ours.
        assert!(check_origin(&ours, &theirs, &history[..1], Place::at(Lsn(10))).is_err());
    }

    #[test]
    fn another_system_or_timeline_is_told_apart() {
        let ours = Origin { system: "7301".into(), timeline: 1, database: "app".into(), slot: "cdc".into() };
        let at = Place::at(Lsn(100));
        assert!(check_origin(&ours, &ours, &[], at).is_ok());
        for theirs in [
            Origin { system: "7302".into(), ..ours.clone() },
            Origin { timeline: 2, ..ours.clone() },
            Origin { database: "other".into(), ..ours.clone() },
            Origin { slot: "other".into(), ..ours.clone() },
        ] {
            let error = check_origin(&ours, &theirs, &[], at).unwrap_err();
            assert_eq!((error.remedy, error.code), (Remedy::Repair, "another-database"));
        }
    }
}
