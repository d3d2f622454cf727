//! What a walk walks through: a database, the service that follows it, and sessions in the database.

use std::collections::BTreeMap;
use std::time::Duration;

use cdc_test_servers::{MariaDb, Postgres};
use rustix::process::Signal;

use super::script::Step;
use super::session::{Dialect, Session, SqlError};
use super::{mariadb, postgres};
use crate::harness::{Launch, Server};
use crate::truth::{self, Settled, Truth, Unsettled};

/// A database of one kind or the other.
pub(super) enum Database {
    Postgres(Postgres),
    MariaDb(MariaDb),
}

enum Service {
    Up(Box<Server>),
    /// It does nothing until it is told to go on.
    Halted(Box<Server>),
    Down(Box<Launch>),
    /// There is none, and nothing to compare; also while it is taken out.
    None,
}

/// Database, service and sessions.
pub(super) struct World {
    database: Database,
    service: Service,
    sessions: [Option<Session>; 2],
    marks: u64,
    /// How long a source may take to be settled.
    patience: Duration,
    /// How long rows have differed while all tables said that they were followed, at most.
    pub(super) silent: Duration,
}

/// What became of a step.
#[derive(Debug)]
pub(super) enum Outcome {
    Done,
    /// The database refused the statement, with these words.
    Refused(String),
    /// The connection was lost, and with it the transaction.
    Lost,
}

impl World {
    /// A database with what a walk needs, and the service that follows it, if it is wanted.
    pub(super) fn new(database: Database, with_service: bool, patience: Duration) -> World {
        let (url, excluded) = match &database {
            Database::Postgres(server) => {
                server.psql("postgres", postgres::PREPARATION);
                (server.url("postgres"), postgres::EXCLUDED)
            }
            Database::MariaDb(server) => {
                server.sql("", mariadb::PREPARATION);
                (server.url(""), mariadb::EXCLUDED)
            }
        };
        let configuration = format!(
            "builtin-subscribers = \"none\"\nretention-events = \"unlimited\"\n\
             [sources.walk]\nurl = \"{url}\"\nexclude = [{excluded}]\nappend-only = [\"*.log*\"]\n"
        );
        let service = match with_service {
            true => Service::Up(Box::new(Launch::configured(&configuration).start())),
            false => Service::None,
        };
        World { database, service, sessions: [None, None], marks: 0, patience, silent: Duration::ZERO }
    }

    /// The session of this number.
    pub(super) fn session(&mut self, number: usize) -> &mut Session {
        let World { database, sessions, .. } = self;
        sessions[number].get_or_insert_with(|| match database {
            Database::Postgres(server) => Session::open(postgres::client(server), Dialect::Postgres),
            Database::MariaDb(server) => Session::open(mariadb::client(server), Dialect::MariaDb),
        })
    }

    /// Does a step. An error is a deviation.
    pub(super) fn perform(&mut self, step: &Step) -> Result<Outcome, Box<Unsettled>> {
        match step {
            Step::Sql(number, sql) => match self.session(*number).run(sql) {
                Ok(_) => return Ok(Outcome::Done),
                Err(SqlError::Refused(why)) => return Ok(Outcome::Refused(why)),
                Err(SqlError::Lost) => {
                    self.sessions[*number] = None;
                    return Ok(Outcome::Lost);
                }
            },
            Step::KillService => self.down(|server| server.kill()),
            Step::StopService => self.down(|server| server.stop()),
            Step::StartService => self.up(),
            Step::HaltService => {
                self.service = match std::mem::replace(&mut self.service, Service::None) {
                    Service::Up(server) => {
                        server.signal(Signal::STOP);
                        Service::Halted(server)
                    }
                    other => other,
                };
            }
            Step::KillDatabase | Step::RestartDatabase => {
                self.sessions = [None, None];
                if matches!((&self.database, step), (Database::Postgres(_), Step::RestartDatabase)) {
                    // It waits for its replicas to have read everything.
                    self.up();
                }
                match (&self.database, *step == Step::KillDatabase) {
                    (Database::Postgres(server), true) => server.kill(),
                    (Database::Postgres(server), false) => server.stop(),
                    (Database::MariaDb(server), true) => server.kill(),
                    (Database::MariaDb(server), false) => server.stop(),
                }
                match &self.database {
                    Database::Postgres(server) => server.start_again(),
                    Database::MariaDb(server) => server.start_again(),
                }
            }
            Step::CatchUp => self.catch_up()?,
            Step::Compare => {
                let settled = self.compare()?;
                self.silent = self.silent.max(settled.silent);
            }
        }
        Ok(Outcome::Done)
    }

    fn down(&mut self, end: impl FnOnce(Server) -> Launch) {
        self.service = match std::mem::replace(&mut self.service, Service::None) {
            Service::Up(server) => Service::Down(Box::new(end(*server))),
            Service::Halted(server) => {
                server.signal(Signal::CONT);
                Service::Down(Box::new(end(*server)))
            }
            other => other,
        };
    }

    fn up(&mut self) {
        self.service = match std::mem::replace(&mut self.service, Service::None) {
            Service::Halted(server) => {
                server.signal(Signal::CONT);
                Service::Up(server)
            }
            Service::Down(launch) => Service::Up(Box::new(launch.start())),
            other => other,
        };
    }

    fn server(&self) -> &Server {
        match &self.service {
            Service::Up(server) | Service::Halted(server) => server,
            Service::Down(_) | Service::None => panic!("the service is down"),
        }
    }

    /// Writes a mark, and waits until it has come through.
    fn catch_up(&mut self) -> Result<(), Box<Unsettled>> {
        self.up();
        if matches!(self.service, Service::None) {
            return Ok(());
        }
        self.mark();
        let (deadline, server) = (std::time::Instant::now() + self.patience, self.server());
        while !self.has_arrived() {
            let progress = truth::progress(server, "walk");
            let is_late = std::time::Instant::now() > deadline;
            if progress.state == "stopped" || is_late {
                let what = match is_late {
                    true => format!("a change has not come through after {:?}", self.patience),
                    false => format!("the source stopped ({}): {}", progress.code, progress.reason),
                };
                return Err(Box::new(Unsettled { what, differences: Vec::new(), progress }));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Waits until all is settled, and compares every table. What was open in the sessions is rolled back.
    fn compare(&mut self) -> Result<Settled, Box<Unsettled>> {
        self.up();
        self.sessions = [None, None];
        self.catch_up()?;
        if matches!(self.service, Service::None) {
            return Ok(Settled::default());
        }
        self.reread_changed();
        self.mark();
        let truth = self.truth();
        truth::settle_within(self.patience, self.server(), "walk", &truth, || self.has_arrived())
    }

    /// Does what tables without a key say in whose rows somebody changed something.
    fn reread_changed(&self) {
        let progress = truth::progress(self.server(), "walk");
        for (name, _) in progress.tables.iter().filter(|(_, table)| table.code == "rows-changed") {
            self.server().post(&format!("/sources/walk/tables/{}/reread", truth::encoded(name)), "");
        }
    }

    fn truth(&self) -> Truth {
        let mut truth = match &self.database {
            Database::Postgres(server) => truth::of_postgres(server, "postgres", &postgres::captures),
            Database::MariaDb(server) => truth::of_mariadb(server, &mariadb::captures),
        };
        truth::append_only(&mut truth, |name| name.contains(".log"));
        truth
    }

    fn mark(&mut self) {
        self.marks += 1;
        let update = |table: &str| format!("UPDATE {table} SET n = {} WHERE id = 1", self.marks);
        match &self.database {
            Database::Postgres(server) => server.psql("postgres", &update("public.walk_marker")),
            Database::MariaDb(server) => server.sql("", &update("walk.walk_marker")),
        };
    }

    fn has_arrived(&self) -> bool {
        let table = match self.database {
            Database::Postgres(_) => "public.walk_marker",
            Database::MariaDb(_) => "walk.walk_marker",
        };
        let answer = self.server().get(&format!("/data/{table}/1"));
        answer.status == 200 && answer.json()["n"].as_u64() == Some(self.marks)
    }

    /// What service and database have to say at the end of a walk that failed.
    pub(super) fn logs(&self) -> BTreeMap<&'static str, String> {
        let service = match &self.service {
            Service::Up(server) | Service::Halted(server) => server.log(),
            Service::Down(_) | Service::None => String::new(),
        };
        let database = match &self.database {
            Database::Postgres(server) => server.log(),
            Database::MariaDb(server) => server.log(),
        };
        [("service", service), ("database", database)].into()
    }
}
