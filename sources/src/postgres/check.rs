//! What is missing before a PostgreSQL database can be captured.

use super::address::Address;
use super::catalog::{Cells, candidates, flag, number, one_row, text};
use super::wire::{Connection, Purpose, WireError, identifier};
use super::{Options, VERSION_MIN, connect, off_the_runtime, quoted, slot};
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
    for part in [settings, role, publication, tables, slot_state] {
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
        "SELECT current_setting('wal_level'), current_setting('max_replication_slots')::int, \
         (SELECT count(*) FROM pg_replication_slots), current_setting('max_wal_senders')::int, \
         (SELECT count(*) FROM pg_stat_replication), current_setting('max_slot_wal_keep_size')",
    )?;
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

fn role(sql: &mut Connection, _: &Options, address: &Address, findings: &mut Vec<Finding>) -> Result<(), WireError> {
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
        findings.push(warning(
            "superuser",
            format!("the role {name} is a superuser, and needs far less"),
            Some(
                "CREATE ROLE cdc LOGIN REPLICATION PASSWORD '…'; GRANT SELECT ON ALL TABLES IN SCHEMA … TO cdc;".into(),
            ),
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
        let (keyed, _): (Vec<_>, Vec<_>) = tables.into_iter().partition(|table| table.has_key);
        let create = format!("{};", slot::publication_sql(options, &keyed));
        let mut cells = answer(
            sql,
            "SELECT has_database_privilege(current_database(), 'CREATE'), \
             (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)",
        )?;
        let (may_create, superuser) = (flag(&mut cells)?, flag(&mut cells)?);
        let owns_all = keyed.iter().all(|table| table.owned);
        let can = options.create_publication && may_create && (superuser || (owns_all && !options.publish_all_tables));
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
    let complete_by_itself = found.all_tables || (found.owned && options.create_publication);
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
                findings.push(warning(
                    "publication",
                    format!("the table {place} is included by the rules and not published: it will not be captured"),
                    Some(format!("ALTER PUBLICATION {shown} ADD TABLE {place};")),
                ));
            }
        }
    }
    Ok(())
}

fn tables(
    sql: &mut Connection,
    options: &Options,
    address: &Address,
    findings: &mut Vec<Finding>,
) -> Result<(), WireError> {
    let user = identifier(&address.user);
    let tables = candidates(sql, &options.rules)?;
    if tables.is_empty() {
        findings.push(warning("tables", "the rules include no table of this database".into(), None));
        return Ok(());
    }
    let mut usable = 0;
    for table in &tables {
        let (schema, place) =
            (identifier(&table.namespace), format!("{}.{}", identifier(&table.namespace), identifier(&table.relation)));
        if table.identity == b'n' {
            findings.push(missing(
                "replica-identity",
                format!(
                    "the table {place} has REPLICA IDENTITY NOTHING: PostgreSQL refuses its updates and deletes once \
                     it is published"
                ),
                Some(format!("ALTER TABLE {place} REPLICA IDENTITY DEFAULT;")),
            ));
        } else if !table.has_key {
            let message = format!(
                "no key tells the rows of the table {place} apart; PostgreSQL also refuses its updates \
                and deletes once it is published. Give it a key, or exclude it"
            );
            let remedy = Some(format!("ALTER TABLE {place} ADD PRIMARY KEY (…);"));
            findings.push(if options.skip_tables_without_key {
                warning("no-key", message, remedy)
            } else {
                missing("no-key", message, remedy)
            });
        } else if !table.readable && options.snapshot {
            findings.push(missing(
                "privileges",
                format!("the role {user} may not read the table {place}"),
                Some(format!("GRANT USAGE ON SCHEMA {schema} TO {user}; GRANT SELECT ON {place} TO {user};")),
            ));
        } else {
            usable += 1;
        }
    }
    findings.push(good("tables", format!("{usable} of {} included tables can be captured", tables.len())));
    Ok(())
}

fn slot_state(
    sql: &mut Connection,
    options: &Options,
    _: &Address,
    findings: &mut Vec<Finding>,
) -> Result<(), WireError> {
    let shown = identifier(&options.slot);
    findings.push(match slot::find(sql, &options.slot)? {
        None if options.create_slot => good("slot", format!("the slot {shown} is missing, and will be made")),
        None => missing(
            "slot",
            format!("the slot {shown} is missing, and making it is switched off"),
            Some(format!("SELECT pg_create_logical_replication_slot({}, 'pgoutput');", quoted(&options.slot))),
        ),
        Some(found) if found.plugin != "pgoutput" => {
            missing("slot", format!("the slot {shown} is of the plugin {}, so of somebody else", found.plugin), None)
        }
        Some(found) if found.is_lost() => missing(
            "slot",
            format!("the server has given up the slot {shown}: changes are missing, and the source needs a repair"),
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
