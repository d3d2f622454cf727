//! What is missing before a PostgreSQL database can be captured.

mod tables;

use super::address::Address;
use super::catalog::{Cells, candidates, flag, number, one_row, text};
use super::wire::{Connection, Purpose, WireError, identifier};
use super::{Options, STANDBY_VERSION_MIN, VERSION_MIN, connect, off_the_runtime, quoted, slot};
use crate::check::{Finding, Severity};
use crate::feed::FeedError;

/// Connects and looks at everything that a feed with these options will need. Changes nothing. What can't be looked at
/// (no connection, no login) is a finding too.
pub async fn check(options: Options) -> Vec<Finding> {
    let found = off_the_runtime("postgres-check", move || Ok(look(&options))).await;
    found.unwrap_or_else(|error| vec![failed(&error)])
}

fn failed(error: &FeedError) -> Finding {
    Finding { severity: Severity::Missing, code: error.code, message: error.message.clone(), remedy: None }
}

fn look(options: &Options) -> Vec<Finding> {
    let mut findings = Vec::new();
    let address = match Address::parse(&options.url) {
        Ok(address) => address,
        Err(error) => return vec![failed(&error)],
    };
    let mut sql = match connect(&address, Purpose::Sql, None) {
        Ok(connection) => connection,
        Err(error) => return vec![failed(&error)],
    };
    findings.push(good(
        "connection",
        format!("connected to PostgreSQL {} at {}:{}", sql.server_version(), address.host, address.port),
    ));
    if sql.major_version() < VERSION_MIN {
        let message = format!("PostgreSQL {} is too old: {VERSION_MIN} is the oldest", sql.server_version());
        findings.push(missing("version", message, None));
        return findings;
    }
    for part in [settings, role, publication, tables::look, slot_state] {
        if let Err(error) = part(&mut sql, options, &address, &mut findings) {
            findings.push(failed(&error.into_feed("look at the database")));
        }
    }
    if let Err(error) = connect(&address, Purpose::Replication, None)
        && !findings.iter().any(|finding| finding.code == "replication" && finding.severity == Severity::Missing)
    {
        findings.push(failed(&error));
    }
    sql.terminate(false);
    findings
}

fn good(code: &'static str, message: String) -> Finding {
    Finding { severity: Severity::Good, code, message, remedy: None }
}

fn missing(code: &'static str, message: String, remedy: Option<String>) -> Finding {
    Finding { severity: Severity::Missing, code, message, remedy }
}

fn warning(code: &'static str, message: String, remedy: Option<String>) -> Finding {
    Finding { severity: Severity::Warning, code, message, remedy }
}

fn answer(sql: &mut Connection, query: &str) -> Result<Cells, WireError> {
    one_row(sql.query(query)?)
}

fn settings(
    sql: &mut Connection,
    options: &Options,
    _: &Address,
    findings: &mut Vec<Finding>,
) -> Result<(), WireError> {
    let mut cells = answer(
        sql,
        "SELECT pg_is_in_recovery(), current_setting('server_encoding'), \
         coalesce(current_setting('idle_replication_slot_timeout', true), '0'), \
         current_setting('synchronized_standby_slots', true) = '', \
         (SELECT min(slot_name) FROM pg_replication_slots WHERE slot_type = 'physical'), current_setting('wal_level'), current_setting('max_replication_slots')::int, \
         (SELECT count(*) FROM pg_replication_slots), current_setting('max_wal_senders')::int, \
         (SELECT count(*) FROM pg_stat_replication), current_setting('max_slot_wal_keep_size')",
    )?;
    if flag(&mut cells)? {
        if sql.major_version() < STANDBY_VERSION_MIN {
            let message = format!(
                "the server is a standby, and those of PostgreSQL {STANDBY_VERSION_MIN} and later can be followed: let the \
                 url name the primary"
            );
            findings.push(missing("standby", message, None));
        } else if text(&mut answer(sql, "SHOW hot_standby_feedback")?)? != "on" {
            let message = "the server is a standby without hot_standby_feedback: the primary may remove rows of its catalog \
                           that the slot needs, and the source needs a repair then";
            let remedy = "ALTER SYSTEM SET hot_standby_feedback = on; SELECT pg_reload_conf(); -- on the standby";
            findings.push(warning("standby", message.into(), Some(remedy.into())));
        }
    }
    if text(&mut cells)? == "SQL_ASCII" {
        let message = "the database's encoding is SQL_ASCII, which lets texts be any bytes: a table with one that is no \
                       UTF-8 stops";
        findings.push(warning("encoding", message.into(), None));
    }
    let idle = text(&mut cells)?;
    if idle != "0" {
        findings.push(warning(
            "idle-timeout",
            format!(
                "the server gives a slot up that nobody follows for {idle} (idle_replication_slot_timeout): a source that \
                 rests longer needs a repair"
            ),
            Some("ALTER SYSTEM SET idle_replication_slot_timeout = 0; SELECT pg_reload_conf();".into()),
        ));
    }
    let unsynchronized = cells.next().flatten().is_some_and(|empty| empty == "t");
    if let (true, Some(standby)) = (unsynchronized, cells.next().flatten()) {
        findings.push(warning(
            "failover",
            "changes may be sent before the standbys have them, so that one that takes over may lack what was captured, \
             and the source needs a repair"
                .into(),
            Some(format!(
                "ALTER SYSTEM SET synchronized_standby_slots = {}; SELECT pg_reload_conf();",
                // The grammar of ALTER SYSTEM knows no E''.
                format_args!("'{}'", standby.replace('\'', "''"))
            )),
        ));
    }
    let level = text(&mut cells)?;
    if level == "logical" {
        findings.push(good("wal-level", "wal_level is logical".into()));
    } else {
        findings.push(missing(
            "wal-level",
            format!("wal_level is {level}: the log tells no rows below logical. The server must be restarted then"),
            Some("ALTER SYSTEM SET wal_level = 'logical';".into()),
        ));
    }
    let (slots_max, slots): (u64, u64) = (number(&mut cells)?, number(&mut cells)?);
    let (senders_max, senders): (u64, u64) = (number(&mut cells)?, number(&mut cells)?);
    let there = slot::find(sql, &options.slot)?.is_some();
    if !there && slots >= slots_max {
        findings.push(missing(
            "replication-slots",
            format!("all {slots_max} replication slots are taken. The server must be restarted then"),
            Some(format!("ALTER SYSTEM SET max_replication_slots = {};", slots_max.max(1) * 2)),
        ));
    } else {
        findings.push(good("replication-slots", format!("{slots} of {slots_max} replication slots are taken")));
    }
    if senders >= senders_max {
        findings.push(missing(
            "wal-senders",
            format!("all {senders_max} connections for replication are taken. The server must be restarted then"),
            Some(format!("ALTER SYSTEM SET max_wal_senders = {};", senders_max.max(1) * 2)),
        ));
    } else {
        findings.push(good("wal-senders", format!("{senders} of {senders_max} replication connections are taken")));
    }
    if text(&mut cells)? == "-1" {
        findings.push(warning(
            "retained-wal",
            "max_slot_wal_keep_size is unlimited: while nothing follows the slot, the server keeps its log until the \
             disk is full. With a limit it gives the slot up instead, and the source needs a repair"
                .into(),
            Some("ALTER SYSTEM SET max_slot_wal_keep_size = '50GB'; SELECT pg_reload_conf();".into()),
        ));
    }
    Ok(())
}

fn role(
    sql: &mut Connection,
    options: &Options,
    address: &Address,
    findings: &mut Vec<Finding>,
) -> Result<(), WireError> {
    let mut cells =
        answer(sql, "SELECT rolreplication OR rolsuper, rolsuper FROM pg_roles WHERE rolname = current_user")?;
    let (replication, superuser) = (flag(&mut cells)?, flag(&mut cells)?);
    let name = identifier(&address.user);
    if replication {
        findings.push(good("replication", format!("the role {name} may follow the log")));
    } else {
        findings.push(missing(
            "replication",
            format!("the role {name} may not follow the log"),
            Some(format!("ALTER ROLE {name} REPLICATION;")),
        ));
    }
    if superuser {
        let schemas: std::collections::BTreeSet<String> =
            candidates(sql, &options.rules)?.into_iter().map(|table| identifier(&table.namespace)).collect();
        let schemas: Vec<String> = schemas.into_iter().collect();
        let mut remedy = "CREATE ROLE cdc LOGIN REPLICATION PASSWORD '…';".to_owned();
        if !schemas.is_empty() {
            let schemas = schemas.join(", ");
            remedy.push_str(&format!(
                " GRANT USAGE ON SCHEMA {schemas} TO cdc; GRANT SELECT ON ALL TABLES IN SCHEMA {schemas} TO cdc;"
            ));
        }
        findings.push(warning(
            "superuser",
            format!("the role {name} is a superuser, and needs far less"),
            Some(remedy),
        ));
    }
    Ok(())
}

fn publication(
    sql: &mut Connection,
    options: &Options,
    address: &Address,
    findings: &mut Vec<Finding>,
) -> Result<(), WireError> {
    let name = &options.publication;
    let shown = identifier(name);
    let Some(found) = slot::find_publication(sql, name)? else {
        let tables = candidates(sql, &options.rules)?;
        let (keyed, keyless): (Vec<_>, Vec<_>) = tables.into_iter().partition(|table| table.has_key);
        if options.publish_all_tables && !keyless.is_empty() {
            findings.push(failed(&slot::without_key(&keyless)));
        }
        let create = format!("{};", slot::publication_sql(options, &keyed));
        let mut cells = answer(
            sql,
            "SELECT has_database_privilege(current_database(), 'CREATE'), \
             (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)",
        )?;
        let (may_create, superuser) = (flag(&mut cells)?, flag(&mut cells)?);
        // One that is somebody else's is left to them, unless there are no others.
        let owns_one = keyed.is_empty() || keyed.iter().any(|table| table.owned);
        let is_primary = slot::applied(sql)?.is_none();
        let can = is_primary
            && options.create_publication
            && may_create
            && (superuser || (owns_one && !options.publish_all_tables));
        for table in keyed.iter().filter(|table| can && !table.owned) {
            let place = format!("{}.{}", identifier(&table.namespace), identifier(&table.relation));
            findings.push(warning(
                "publication",
                format!("the table {place} is somebody else's, and is captured when that one has published it"),
                Some(format!("ALTER PUBLICATION {shown} ADD TABLE {place}; -- as a superuser")),
            ));
        }
        findings.push(if can {
            good("publication", format!("the publication {shown} is missing, and will be made"))
        } else {
            missing(
                "publication",
                format!(
                    "the publication {shown} is missing, and the role {} can't make it (or may not, by configuration): \
                     an owner of the tables has to",
                    identifier(&address.user)
                ),
                Some(create),
            )
        });
        return Ok(());
    };
    let mut fine = true;
    if !found.all_operations {
        fine = false;
        findings.push(missing(
            "publication",
            format!("the publication {shown} leaves out some operations"),
            Some(format!("ALTER PUBLICATION {shown} SET (publish = 'insert, update, delete, truncate');")),
        ));
    }
    if !found.via_root {
        let partitions = slot::publishes_partitioned(sql, name)?;
        if partitions {
            fine = false;
            findings.push(missing(
                "publication",
                format!("the publication {shown} tells changes of partitioned tables under their partitions' names"),
                Some(format!("ALTER PUBLICATION {shown} SET (publish_via_partition_root = true);")),
            ));
        }
    }
    if fine {
        findings.push(good("publication", format!("the publication {shown} is there")));
    }
    if !found.made_here {
        tables::left_out(sql, options, findings)?;
    }
    let complete_by_itself = found.all_tables || (found.owned && found.made_here && options.create_publication);
    if !complete_by_itself {
        let published: Vec<(String, String)> = sql
            .query(&format!(
                "SELECT schemaname, tablename FROM pg_publication_tables WHERE pubname = {}",
                quoted(name)
            ))?
            .into_iter()
            .filter_map(|row| {
                let mut cells = row.into_iter();
                Some((cells.next()??, cells.next()??))
            })
            .collect();
        for table in candidates(sql, &options.rules)? {
            if !published.contains(&(table.namespace.clone(), table.relation.clone())) {
                let place = format!("{}.{}", identifier(&table.namespace), identifier(&table.relation));
                let asked = options.rules.include.contains(&format!("{}.{}", table.namespace, table.relation));
                let finding = if asked { missing } else { warning };
                findings.push(finding(
                    "publication",
                    format!("the table {place} is included by the rules and not published: it will not be captured"),
                    Some(format!("ALTER PUBLICATION {shown} ADD TABLE {place};")),
                ));
            }
        }
    }
    Ok(())
}

fn slot_state(
    sql: &mut Connection,
    options: &Options,
    address: &Address,
    findings: &mut Vec<Finding>,
) -> Result<(), WireError> {
    let shown = identifier(&options.slot);
    tables::prepared(sql, findings)?;
    let found = slot::find(sql, &options.slot)?;
    if let Some(found) = &found {
        if found.two_phase {
            findings.push(warning(
                "two-phase",
                format!(
                    "the slot {shown} was made with two_phase: it keeps the log of a prepared transaction until that is \
                     ended, and can't be brought along by standbys. A slot that cdc makes does without"
                ),
                None,
            ));
        } else if found.failover == Some(false) {
            findings.push(warning(
                "failover",
                format!("standbys do not bring the slot {shown} along: after a failover the source needs a repair"),
                Some(format!(
                    "-- with psql 'dbname={} replication=database', while nothing follows it:\nALTER_REPLICATION_SLOT \
                     {shown} (FAILOVER true);",
                    address.database
                )),
            ));
        }
    }
    findings.push(match found {
        None if options.create_slot => good("slot", format!("the slot {shown} is missing, and will be made")),
        None => missing(
            "slot",
            format!("the slot {shown} is missing, and making it is switched off"),
            Some(format!("SELECT {};", slot::create_sql(sql, &options.slot))),
        ),
        Some(found) if found.plugin != "pgoutput" => {
            missing("slot", format!("the slot {shown} is of the plugin {}, so of somebody else", found.plugin), None)
        }
        Some(found) if found.is_lost() => missing(
            "slot",
            format!(
                "the server gave up the slot {shown}, {}: changes are missing, and the source needs a repair",
                found.why_lost()
            ),
            None,
        ),
        Some(found) if found.active => warning("slot", format!("somebody follows the slot {shown} now"), None),
        Some(found) => good(
            "slot",
            format!(
                "the slot {shown} is at {}, and keeps {} bytes of log",
                found.confirmed,
                found.retained_bytes.unwrap_or(0)
            ),
        ),
    });
    Ok(())
}
