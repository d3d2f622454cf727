//! MariaDB.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Signal, getuid};

use crate::binaries;
use crate::postgres::run_with_input;
use crate::process::Process;
use crate::templates::{run, unpack};

/// Raise it when what a new template is told changes.
const TEMPLATE: u32 = 1;

/// What tests want unless they say otherwise. Not syncing, a crash of the server loses nothing; one of the machine would.
const OPTIONS: &[&str] = &[
    "--log-bin=binlog",
    "--binlog-format=ROW",
    "--binlog-row-image=FULL",
    "--binlog-row-metadata=FULL",
    "--server-id=1",
    "--gtid-strict-mode=1",
    "--innodb-flush-log-at-trx-commit=2",
    "--sync-binlog=0",
    "--innodb-buffer-pool-size=64M",
    "--character-set-server=utf8mb4",
    "--default-time-zone=+00:00",
];
/// As small as in the template, or it would be made anew at each start.
const REDO_LOG: &str = "--innodb-log-file-size=16M";

/// A MariaDB server with a binary log of rows and GTIDs. Its user [`MariaDb::USER`] may do everything, from everywhere.
#[derive(Debug)]
pub struct MariaDb {
    process: Mutex<Process>,
    folder: PathBuf,
    port: u16,
    options: Vec<String>,
}

impl MariaDb {
    /// The user who may do everything.
    pub const USER: &str = "root";
    /// The password of [`MariaDb::USER`].
    pub const PASSWORD: &str = "correct-horse";

    /// A server with the options that tests want: binary log in rows with full images and metadata, GTIDs, no syncs, UTC.
    pub fn start() -> MariaDb {
        MariaDb::with(&[])
    }

    /// A server with these options (`--name=value`) over the usual ones.
    pub fn with(options: &[&str]) -> MariaDb {
        let process = Process::new("mariadb", None, "KILL");
        let folder = process.folder().to_path_buf();
        let version = run(Command::new(binaries::find("mariadbd")).arg("--version"));
        let version = version.split_whitespace().nth(2).unwrap_or("unknown").replace('/', "-");
        unpack(&format!("mariadb-{version}-{TEMPLATE}"), &folder, None, initialise);
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let mariadb = MariaDb { port: process.port(), process: Mutex::new(process), folder, options };
        mariadb.start_again();
        mariadb
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder of everything that belongs to this server. Its data and its binary log are in `data`.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// `mysql://…` of a database.
    pub fn url(&self, database: &str) -> String {
        format!("mysql://{}:{}@127.0.0.1:{}/{database}", Self::USER, Self::PASSWORD, self.port)
    }

    /// Runs SQL (any number of statements). Returns the rows as text, a line each, columns with a tab between them, without
    /// the last line's end. Panics with the server's complaint at the first statement that fails. An empty name is no
    /// database.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        let mut command = Command::new(binaries::find("mariadb"));
        command.args(["--no-defaults", "--batch", "--skip-column-names", "--default-character-set=utf8mb4"]);
        command.arg("--socket").arg(self.socket());
        command.arg(format!("--user={}", Self::USER)).arg(format!("--password={}", Self::PASSWORD));
        if !database.is_empty() {
            command.arg(format!("--database={database}"));
        }
        run_with_input(&mut command, sql)
    }

    /// The path of a program of MariaDB, such as `mariadb-binlog`.
    pub fn bin(&self, name: &str) -> PathBuf {
        binaries::find(name)
    }

    /// Ends the server cleanly. Does nothing if it does not run.
    pub fn stop(&self) {
        self.process().stop(Signal::TERM);
    }

    /// `kill -9` of the server. Does nothing if it does not run.
    pub fn kill(&self) {
        self.process().kill();
    }

    /// Starts the server that was stopped or killed, on its port and data, and waits until it takes connections.
    pub fn start_again(&self) {
        let mut command = server(&self.folder);
        command.args(["--bind-address=127.0.0.1", "--skip-name-resolve", REDO_LOG]).args(OPTIONS);
        command.arg(format!("--port={}", self.port)).arg("--socket").arg(self.socket());
        command.arg("--pid-file").arg(self.folder.join("mariadb.pid"));
        // The last one counts.
        command.args(&self.options);
        self.process().start(&mut command, |_| greets(self.port));
    }

    /// The end of the server's log.
    pub fn log(&self) -> String {
        self.process().log()
    }

    /// The id of the server's process, if it runs.
    pub fn process_id(&self) -> Option<u32> {
        self.process().id()
    }

    fn process(&self) -> MutexGuard<'_, Process> {
        // A test that panicked while it held the lock has failed already.
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }
}

fn server(folder: &Path) -> Command {
    let mut command = Command::new(binaries::find("mariadbd"));
    command.arg("--no-defaults").arg("--datadir").arg(folder.join("data"));
    // A server that starts removes temporary tables from its folder for them; in a shared one, those of others.
    command.arg("--tmpdir").arg(folder);
    if getuid().is_root() {
        command.arg("--user=root");
    }
    command
}

fn initialise(folder: &Path) {
    let data = folder.join("data");
    let (user, password) = (MariaDb::USER, MariaDb::PASSWORD);
    // For every host: whoever connects to 127.0.0.1 is not looked up as localhost. The account for localhost, which counts
    // for the socket, gets the same password.
    let sql = format!(
        "FLUSH PRIVILEGES;\n\
         DELETE FROM mysql.global_priv WHERE User = '' OR Host NOT IN ('localhost');\n\
         FLUSH PRIVILEGES;\n\
         CREATE OR REPLACE USER '{user}'@'localhost' IDENTIFIED BY '{password}';\n\
         GRANT ALL ON *.* TO '{user}'@'localhost' WITH GRANT OPTION;\n\
         CREATE OR REPLACE USER '{user}'@'%' IDENTIFIED BY '{password}';\n\
         GRANT ALL ON *.* TO '{user}'@'%' WITH GRANT OPTION;\n"
    );
    let mut install = Command::new(binaries::find("mariadb-install-db"));
    install.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db", REDO_LOG]);
    install.arg(format!("--datadir={}", data.display()));
    if getuid().is_root() {
        install.arg("--user=root");
    }
    run(&mut install);
    run_with_input(server(folder).args(["--bootstrap", REDO_LOG]), &sql);
}

/// The server sends the first packet, whose first byte after length and number is the version of the protocol, 10; or 255
/// if it refuses.
fn greets(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) else { return false };
    let mut start = [0; 5];
    stream.set_read_timeout(Some(Duration::from_secs(1))).is_ok()
        && stream.read_exact(&mut start).is_ok()
        && start[4] == 10
}
