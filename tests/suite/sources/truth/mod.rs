//! A captured table is the table: whatever is done to schemas, names and partitions, by whatever statement.
//!
//! A story is some statements on a database that is followed. It is told in three ways at once, each on a database of its
//! own: to a service that follows each step; to one that is killed (`kill -9`) right after each step, while it is at it;
//! and to one that is down meanwhile and sees all of it together. In each, every table of the source is compared with the
//! database, row by row, after each step and after a restart of the service.

mod maria;
mod maria_tables;
mod postgres;
mod postgres_tables;
mod without_a_key;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use cdc_test_servers::{MariaDb, Postgres};
use cdc_tests::harness::{Launch, Server, until};
use cdc_tests::truth::{self, Truth};
use serde_json::Value;

use super::{configured, until_state};

/// One server for all stories: they end neither it nor each other.
fn postgres() -> &'static Postgres {
    static SHARED: OnceLock<Postgres> = OnceLock::new();
    let settings = [("max_prepared_transactions", "20"), ("max_replication_slots", "200"), ("max_wal_senders", "60")];
    SHARED.get_or_init(|| Postgres::with(&settings))
}

fn mariadb() -> &'static MariaDb {
    static SHARED: OnceLock<MariaDb> = OnceLock::new();
    SHARED.get_or_init(MariaDb::start)
}

/// How a story is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Followed,
    Killed,
    Down,
}

const WAYS: [Way; 3] = [Way::Followed, Way::Killed, Way::Down];

/// Where a story is told: a database of PostgreSQL, or some of MariaDB's, and a source of its own.
struct Place {
    name: String,
    database: Database,
    lines: String,
    marks: u32,
}

#[derive(Clone, Copy)]
enum Database {
    Postgres(&'static Postgres),
    MariaDb(&'static MariaDb),
}

impl Place {
    /// A new one, on which nobody else works. `lines` are added to the source's configuration.
    fn new(database: Database, lines: &str) -> Place {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("story_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let place = Place { name: name.clone(), database, lines: lines.to_owned(), marks: 0 };
        match database {
            Database::Postgres(server) => {
                server.psql("postgres", &format!("CREATE DATABASE {name}"));
            }
            Database::MariaDb(server) => {
                server.sql("", &format!("CREATE DATABASE {name}"));
            }
        }
        place.sql("CREATE TABLE told (id int PRIMARY KEY, n int); INSERT INTO told VALUES (1, 0)");
        place
    }

    /// Runs statements. `{here}` is the name of the source and of its database.
    fn sql(&self, sql: &str) -> String {
        let sql = sql.replace("{here}", &self.name);
        match self.database {
            Database::Postgres(server) => server.psql(&self.name, &sql),
            Database::MariaDb(server) => server.sql(&self.name, &sql),
        }
    }

    fn launch(&self) -> Launch {
        let Place { name, lines, .. } = self;
        let (url, tables) = match self.database {
            Database::Postgres(server) => (server.url(name), "tables = [\"*.*\"]".to_owned()),
            // Stories whose names begin alike must not see each other.
            Database::MariaDb(server) => (server.url(name), format!("tables = [\"{name}.*\", \"{name}x*.*\"]")),
        };
        let tables = if lines.contains("tables =") { String::new() } else { tables };
        configured(&format!("[sources.{name}]\nurl = \"{url}\"\n{tables}\n{}\n", lines.replace("{here}", name)))
    }

    fn truth(&self) -> Truth {
        let (own, others) = (self.name.clone(), format!("{}x", self.name));
        let mut truth = match self.database {
            Database::Postgres(server) => truth::of_postgres(server, &self.name, &|_, _| true),
            Database::MariaDb(server) => {
                truth::of_mariadb(server, &|schema, _| schema == own || schema.starts_with(&others))
            }
        };
        if self.lines.contains("append-only") {
            truth::append_only(&mut truth, |table| table.contains(".audit"));
        }
        truth
    }

    /// Waits until everything has come through, and compares every table.
    #[track_caller]
    fn is_true(&mut self, server: &Server) {
        self.is_true_to(server, self.truth());
    }

    /// The same against what is said to be true.
    #[track_caller]
    fn is_true_to(&mut self, server: &Server, truth: Truth) {
        self.marks += 1;
        self.sql(&format!("UPDATE told SET n = {} WHERE id = 1", self.marks));
        let told = match self.database {
            Database::Postgres(_) => "public.told".to_owned(),
            Database::MariaDb(_) => format!("{}.told", self.name),
        };
        let mut truth = truth;
        if let Some(table) = truth.get_mut(&told) {
            table.rows.iter_mut().for_each(|row| {
                row.insert("n".into(), self.marks.to_string());
            });
        }
        let has_come = || {
            let answer = server.get(&format!("/data/{told}/1"));
            answer.status == 200 && answer.json()["n"].as_u64() == Some(u64::from(self.marks))
        };
        truth::settle(server, &self.name, &truth, has_come);
    }
}

/// Has the source prove itself: what follows has to be equal. What is still being read anew is compared after that.
#[track_caller]
fn proves_itself(server: &Server, source: &str) {
    let path = format!("/sources/{source}");
    until("the source to prove itself", || {
        until_state(server, source, "following");
        server.post(&format!("{path}/audit"), "{}").expect(200);
        let audit = until("the audit to end", || {
            let audit = server.get(&format!("{path}/audit")).expect(200).json();
            (audit["state"] != "running").then_some(audit)
        });
        assert_eq!(audit["differences"], 0, "{audit:#}");
        let compared = audit["tables"].as_array().unwrap();
        let is_equal =
            |table: &Value| compared.iter().any(|of| of["table"] == table["table"] && of["state"] == "equal");
        let tables = server.get(&path).expect(200).json()["tables"].clone();
        let mut following = tables.as_array().unwrap().iter().filter(|table| table["state"] == "following");
        following.all(is_equal).then_some(())
    });
}

/// Tells a story in all three ways.
#[track_caller]
fn tell(database: Database, lines: &str, setup: &str, steps: &[&str]) {
    std::thread::scope(|scope| {
        let told = WAYS.map(|way| scope.spawn(move || tell_in(way, database, lines, setup, steps)));
        for (way, told) in WAYS.into_iter().zip(told) {
            assert!(told.join().is_ok(), "the story is not true when the service is {way:?}");
        }
    });
}

fn tell_in(way: Way, database: Database, lines: &str, setup: &str, steps: &[&str]) {
    let mut place = Place::new(database, lines);
    place.sql(setup);
    let mut server = place.launch().start();
    place.is_true(&server);
    match way {
        Way::Followed => {
            for step in steps {
                place.sql(step);
                place.is_true(&server);
            }
        }
        Way::Killed => {
            for step in steps {
                place.sql(step);
                server = server.kill().start();
                place.is_true(&server);
            }
        }
        Way::Down => {
            let launch = server.kill();
            for step in steps {
                place.sql(step);
            }
            server = launch.start();
            place.is_true(&server);
        }
    }
    let server = server.stop().start();
    place.is_true(&server);
    proves_itself(&server, &place.name);
    let launch = server.stop();
    launch.data().verify().expect_success();
}
