//! What is drawn for a MariaDB.

mod catalog;
mod columns;
mod relations;
mod values;

use std::collections::BTreeSet;

use cdc_test_servers::MariaDb;

use self::catalog::Table;
use super::script::Step;
use super::session::Session;
use crate::random::Random;

/// Before a walk begins.
pub(super) const PREPARATION: &str = "CREATE DATABASE walk; CREATE DATABASE s2; CREATE DATABASE hidden; \
    CREATE TABLE walk.walk_marker (id INT PRIMARY KEY, n BIGINT); INSERT INTO walk.walk_marker VALUES (1, 0); \
    CREATE TABLE hidden.heartbeat (id INT AUTO_INCREMENT PRIMARY KEY, note TEXT);";

/// How the server is started.
pub(super) const SETTINGS: [&str; 3] =
    ["--lock-wait-timeout=20", "--innodb-lock-wait-timeout=20", "--system-versioning-alter-history=KEEP"];

/// What is not captured.
pub(super) const EXCLUDED: &str = "\"hidden.*\", \"*.hid_*\"";

/// Whether a table is captured.
pub(super) fn captures(schema: &str, name: &str) -> bool {
    schema != "hidden" && !name.starts_with("hid_")
}

/// The command line of a session.
pub(super) fn client(server: &MariaDb) -> std::process::Command {
    let mut command = std::process::Command::new(server.bin("mariadb"));
    command.args(["--no-defaults", "--batch", "--raw", "--skip-column-names", "--force", "--unbuffered"]);
    command.args(["--default-character-set=utf8mb4", "--skip-reconnect", "--database=walk"]);
    command.arg("--socket").arg(server.folder().join("socket"));
    command.arg(format!("--user={}", MariaDb::USER)).arg(format!("--password={}", MariaDb::PASSWORD));
    command
}

/// Draws statements by what the database has.
#[derive(Debug, Default)]
pub(super) struct Generator {
    tables: Vec<Table>,
    /// What a transaction that is open elsewhere has changed: left alone meanwhile.
    busy: BTreeSet<String>,
    /// What ends it, if there is one.
    other: Option<&'static [&'static str; 2]>,
    drawn: u64,
}

const ORDINARY: [&str; 2] = ["COMMIT", "ROLLBACK"];
const PREPARED: [&str; 2] = ["XA COMMIT 'walk'", "XA ROLLBACK 'walk'"];

impl Generator {
    /// The next statements. `in_transaction` says whether the session has one open.
    pub(super) fn draw(&mut self, random: &mut Random, session: &mut Session, in_transaction: bool) -> Vec<Step> {
        let Some(tables) = catalog::tables(session) else { return vec![sql("ROLLBACK")] };
        self.tables = tables;
        self.drawn += 1;
        if self.tables.iter().filter(|table| table.schema != "hidden").count() < 3 {
            return self.create(random).into_iter().map(|text| sql(&text)).collect();
        }
        if !in_transaction && random.below(20) == 0 {
            return self.apart(random);
        }
        for _ in 0..50 {
            // A change of a definition ends the transaction.
            let is_of_rows = random.below(100) < if in_transaction { 85 } else { 50 };
            let statements = if is_of_rows {
                let (one, other) = (self.any(random), self.any(random));
                one.zip(other)
                    .and_then(|(table, other)| values::change_rows(random, table, other))
                    .map(|text| vec![text])
            } else if random.below(2) == 0 {
                self.change_columns(random)
            } else {
                self.change_relations(random)
            };
            if let Some(statements) = statements {
                return statements.iter().map(|text| sql(&self.dressed(random, text))).collect();
            }
        }
        Vec::new()
    }

    /// Now and then with variables for this statement only.
    fn dressed(&self, random: &mut Random, text: &str) -> String {
        let is_of_tables = ["ALTER", "DROP TABLE", "RENAME", "TRUNCATE"].iter().any(|verb| text.starts_with(verb));
        match is_of_tables && random.below(7) == 0 {
            true => format!("SET STATEMENT lock_wait_timeout = 15 FOR {text}"),
            false => text.to_owned(),
        }
    }

    /// What ends everything that is open elsewhere.
    pub(super) fn finish(&mut self) -> Vec<Step> {
        self.busy.clear();
        self.other.take().map(|[commit, _]| Step::Sql(1, (*commit).into())).into_iter().collect()
    }

    /// The database was restarted: what was open in sessions is rolled back, what was prepared is still there.
    pub(super) fn interrupted(&mut self) {
        if self.other == Some(&ORDINARY) {
            self.other = None;
            self.busy.clear();
        }
    }

    /// Gives tables a key whose source must have stopped them.
    pub(super) fn remedies(&mut self, random: &mut Random, session: &mut Session) -> Vec<Step> {
        let Some(tables) = catalog::tables(session) else { return Vec::new() };
        let keyless = tables.iter().filter(|table| table.key().is_empty());
        let mut steps = Vec::new();
        for table in keyless {
            if random.below(2) == 0 {
                let key = format!("walk_{}", random.below(1_000));
                let name = table.quoted();
                steps.push(sql(&format!("ALTER TABLE {name} ADD COLUMN {key} BIGINT AUTO_INCREMENT PRIMARY KEY")));
            }
        }
        steps
    }

    /// A transaction in another session, of XA or not, that stays open while this one goes on; or the end of one.
    fn apart(&mut self, random: &mut Random) -> Vec<Step> {
        if let Some(ends) = self.other.take() {
            self.busy.clear();
            return vec![Step::Sql(1, ends[usize::from(random.below(4) == 0)].into())];
        }
        let is_xa = random.below(2) == 0;
        let mut steps = vec![Step::Sql(1, (if is_xa { "XA START 'walk'" } else { "BEGIN" }).into())];
        for _ in 0..1 + random.below(4) {
            let Some(table) = self.any(random).filter(|table| table.engine == "InnoDB").cloned() else { continue };
            let change = values::change_rows(random, &table, &table);
            if let Some(statement) = change.filter(|text| !text.contains("TRUNCATE")) {
                steps.push(Step::Sql(1, statement));
                self.busy.insert(table.quoted());
            }
        }
        if is_xa {
            steps.push(Step::Sql(1, "XA END 'walk'".into()));
            steps.push(Step::Sql(1, "XA PREPARE 'walk'".into()));
        }
        self.other = Some(if is_xa { &PREPARED } else { &ORDINARY });
        steps
    }

    /// Any table.
    fn any(&self, random: &mut Random) -> Option<&Table> {
        self.which(random, |_| true)
    }

    /// One of the tables for which this holds.
    fn which(&self, random: &mut Random, holds: impl Fn(&Table) -> bool) -> Option<&Table> {
        let is_free = |table: &&Table| !self.busy.contains(&table.quoted()) && table.name != "heartbeat";
        let fitting: Vec<&Table> = self.tables.iter().filter(is_free).filter(|table| holds(table)).collect();
        (!fitting.is_empty()).then(|| *random.pick(&fitting))
    }

    /// A name that no table of a database has, out of a few, so that names come back.
    fn free_name(&self, random: &mut Random, schema: &str) -> Option<String> {
        const NAMES: [&str; 12] =
            ["t1", "t2", "t3", "t4", "t5", "Orders", "über", "select", "a-b", "p1", "log1", "log2"];
        let taken = |name: &str| self.tables.iter().any(|table| table.schema == schema && table.name == name);
        let free: Vec<&str> = NAMES.into_iter().filter(|name| !taken(name)).collect();
        (!free.is_empty()).then(|| (*random.pick(&free)).to_owned())
    }
}

fn sql(text: &str) -> Step {
    Step::Sql(0, text.to_owned())
}
