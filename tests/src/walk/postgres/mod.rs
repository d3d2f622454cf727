//! What is drawn for a PostgreSQL.

mod catalog;
mod columns;
mod dml;
mod relations;
mod values;

use std::collections::BTreeSet;

use cdc_test_servers::Postgres;

use self::catalog::{Table, quoted};
use super::script::Step;
use super::session::Session;
use crate::random::Random;

/// Before a walk begins.
pub(super) const PREPARATION: &str = "CREATE TABLE public.walk_marker (id int PRIMARY KEY, n bigint); \
    INSERT INTO public.walk_marker VALUES (1, 0); CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy'); \
    CREATE SCHEMA hidden; CREATE SCHEMA s2";

/// What is not captured.
pub(super) const EXCLUDED: &str = "\"hidden.*\", \"*.hid_*\"";

/// Whether a table is captured.
pub(super) fn captures(schema: &str, name: &str) -> bool {
    schema != "hidden" && !name.starts_with("hid_")
}

/// The command line of a session.
pub(super) fn client(server: &Postgres) -> std::process::Command {
    let mut command = std::process::Command::new(server.bin("psql"));
    command.args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set=VERBOSITY=terse"]);
    command.args(["--username", Postgres::USER, "--port", &server.port().to_string(), "--dbname", "postgres"]);
    command.arg("--host").arg(server.folder());
    command.env("PGOPTIONS", "-c lock_timeout=20s -c statement_timeout=60s");
    command
}

/// Draws statements by what the database has.
#[derive(Debug, Default)]
pub(super) struct Generator {
    tables: Vec<Table>,
    moods: Vec<String>,
    /// What transactions that are open elsewhere, or prepared, have changed: left alone meanwhile.
    busy: BTreeSet<String>,
    prepared: Vec<String>,
    other_is_open: bool,
    drawn: u64,
}

impl Generator {
    /// The next statements. `in_transaction` says whether the session has one open.
    pub(super) fn draw(&mut self, random: &mut Random, session: &mut Session, in_transaction: bool) -> Vec<Step> {
        let Some(tables) = catalog::tables(session) else { return vec![sql("ROLLBACK")] };
        self.tables = tables;
        self.moods = catalog::moods(session);
        self.drawn += 1;
        let plain = self.tables.iter().filter(|table| !table.is_partition()).count();
        if plain < 3 {
            return self.create(random).into_iter().map(|text| sql(&text)).collect();
        }
        if !in_transaction && random.below(20) == 0 {
            return self.apart(random);
        }
        // Most draws find what they need; the others are drawn again.
        for _ in 0..50 {
            let statements = match random.below(100) {
                0..=49 => self.any(random).and_then(|table| self.change_rows(random, table)).map(|text| vec![text]),
                50..=73 => self.change_columns(random),
                _ => self.change_relations(random, in_transaction),
            };
            if let Some(statements) = statements {
                return statements.iter().map(|text| sql(text)).collect();
            }
        }
        Vec::new()
    }

    /// What ends everything that is open elsewhere.
    pub(super) fn finish(&mut self) -> Vec<Step> {
        let mut steps: Vec<Step> =
            self.prepared.drain(..).map(|name| sql(&format!("COMMIT PREPARED '{name}'"))).collect();
        if std::mem::take(&mut self.other_is_open) {
            steps.push(Step::Sql(1, "COMMIT".into()));
        }
        self.busy.clear();
        steps
    }

    /// The database was restarted: what was open in sessions is rolled back, what was prepared is still there.
    pub(super) fn interrupted(&mut self) {
        self.other_is_open = false;
    }

    /// Does what the reasons of tables say that were stopped: a key, and a place in the publication.
    pub(super) fn remedies(&mut self, random: &mut Random, session: &mut Session) -> Vec<Step> {
        let Some(tables) = catalog::tables(session) else { return Vec::new() };
        let mut steps = Vec::new();
        for table in tables.iter().filter(|table| !table.is_partition() && captures(&table.schema, &table.name)) {
            let name = table.quoted();
            if table.key.is_empty() && random.below(2) == 0 {
                let key = format!("walk_{}", random.below(1_000));
                steps.push(sql(&format!("ALTER TABLE {name} REPLICA IDENTITY DEFAULT")));
                steps.push(sql(&format!("ALTER TABLE {name} ADD COLUMN {key} bigserial PRIMARY KEY")));
            }
            if !table.published && table.logged && !table.key.is_empty() && random.below(2) == 0 {
                steps.push(sql(&format!("ALTER PUBLICATION cdc_walk ADD TABLE {name}")));
            }
        }
        steps
    }

    /// A transaction in another session, or a prepared one, that stays open while this one goes on; or the end of one.
    fn apart(&mut self, random: &mut Random) -> Vec<Step> {
        if self.other_is_open || !self.prepared.is_empty() {
            if (random.below(3) > 0 || !self.other_is_open)
                && let Some(name) = self.prepared.pop()
            {
                let end = if random.below(4) == 0 { "ROLLBACK" } else { "COMMIT" };
                self.forget_busy();
                return vec![sql(&format!("{end} PREPARED '{name}'"))];
            }
            self.other_is_open = false;
            self.forget_busy();
            let end = if random.below(4) == 0 { "ROLLBACK" } else { "COMMIT" };
            return vec![Step::Sql(1, end.into())];
        }
        let in_the_other = random.below(2) == 0;
        let session = usize::from(in_the_other);
        let mut steps = vec![Step::Sql(session, "BEGIN".into())];
        for _ in 0..1 + random.below(4) {
            let Some(table) = self.any(random).cloned() else { continue };
            if let Some(statement) = self.change_rows(random, &table).filter(|text| !text.contains("TRUNCATE")) {
                steps.push(Step::Sql(session, statement));
                self.busy.insert(table.quoted());
                self.busy.extend(table.partition_of.clone());
                // Of a partitioned table all partitions, and of a partition what it belongs to.
                let of: Vec<String> = self
                    .tables
                    .iter()
                    .filter(|other| {
                        other.partition_of.as_deref() == Some(&table.name)
                            || table.partition_of.as_deref() == Some(&other.name)
                    })
                    .map(Table::quoted)
                    .collect();
                self.busy.extend(of);
            }
        }
        if in_the_other {
            self.other_is_open = true;
        } else {
            let name = format!("p{}", self.drawn);
            steps.push(sql(&format!("PREPARE TRANSACTION '{name}'")));
            self.prepared.push(name);
        }
        steps
    }

    fn forget_busy(&mut self) {
        if !self.other_is_open && self.prepared.is_empty() {
            self.busy.clear();
        }
    }

    fn is_busy(&self, table: &Table) -> bool {
        self.busy.contains(&table.quoted()) || table.partition_of.as_ref().is_some_and(|of| self.busy.contains(of))
    }

    /// Any table, partitions too.
    fn any(&self, random: &mut Random) -> Option<&Table> {
        self.which(random, |_| true)
    }

    /// One of the tables for which this holds.
    fn which(&self, random: &mut Random, holds: impl Fn(&Table) -> bool) -> Option<&Table> {
        let fitting: Vec<&Table> = self.tables.iter().filter(|table| !self.is_busy(table) && holds(table)).collect();
        (!fitting.is_empty()).then(|| *random.pick(&fitting))
    }

    /// A name that no table of a schema has, out of a few, so that names come back.
    fn free_name(&self, random: &mut Random, schema: &str) -> Option<String> {
        const NAMES: [&str; 16] = [
            "t1", "t2", "t3", "t4", "t5", "t6", "Orders", "über", "select", "a-b", "p1", "p2", "p3", "p4", "log1",
            "log2",
        ];
        let taken = |name: &str| self.tables.iter().any(|table| table.schema == schema && table.name == name);
        let free: Vec<&str> = NAMES.into_iter().filter(|name| !taken(name)).collect();
        (!free.is_empty()).then(|| (*random.pick(&free)).to_owned())
    }
}

fn sql(text: &str) -> Step {
    Step::Sql(0, text.to_owned())
}

/// The same statements as one transaction, or each by itself.
fn at_once(random: &mut Random, in_transaction: bool, statements: Vec<String>) -> Vec<String> {
    if in_transaction || random.below(3) == 0 {
        return statements;
    }
    std::iter::once("BEGIN".to_owned()).chain(statements).chain(["COMMIT".to_owned()]).collect()
}

fn in_schema(schema: &str, name: &str) -> String {
    format!("{}.{}", quoted(schema), quoted(name))
}
