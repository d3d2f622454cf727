//! PostgreSQL: the newest that Debian installed unless a test asks for another version, and standbys of it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Signal, getuid};

use crate::process::Process;
use crate::templates::{give_to, run, unpack};
use crate::{binaries, certificates};

/// Other settings make other templates; raise the number when what `initdb` is told changes.
const TEMPLATE: u32 = 1;

/// What tests want unless they say otherwise. Without syncs a crash of the server loses nothing; one of the machine would.
const SETTINGS: &[(&str, &str)] = &[
    ("wal_level", "logical"),
    ("max_wal_senders", "20"),
    ("max_replication_slots", "20"),
    ("fsync", "off"),
    ("full_page_writes", "off"),
    // In its folder, so that nothing of it is left in /dev/shm.
    ("dynamic_shared_memory_type", "mmap"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
];

/// A PostgreSQL server with logical replication on, whose superuser is [`Postgres::USER`]. Over TCP everybody needs a
/// password (SCRAM-SHA-256).
#[derive(Debug)]
pub struct Postgres {
    process: Mutex<Process>,
    folder: PathBuf,
    port: u16,
    settings: Vec<(String, String)>,
    /// Where the programs of this server's version are.
    programs: PathBuf,
    /// User and group to run as, if this process is root's, whom PostgreSQL refuses.
    run_as: Option<(u32, u32)>,
    tls: bool,
}

impl Postgres {
    /// The superuser, who may also replicate.
    pub const USER: &str = "postgres";
    /// The password of [`Postgres::USER`].
    pub const PASSWORD: &str = "correct-horse";

    /// A server with the settings that tests want: `wal_level=logical`, 20 walsenders and slots, no syncs, UTC.
    pub fn start() -> Postgres {
        Postgres::with(&[])
    }

    /// A server with these settings (of `postgresql.conf`) over the usual ones.
    pub fn with(settings: &[(&str, &str)]) -> Postgres {
        Postgres::launch(&binaries::postgres_folder(), settings, false)
    }

    /// The major versions of which there are servers, in order. `tests/run` installs more than Debian has.
    pub fn available_versions() -> Vec<u32> {
        binaries::postgres_folders().into_keys().collect()
    }

    /// As [`Postgres::start`], of this major version.
    pub fn start_version(major: u32) -> Postgres {
        Postgres::with_version(major, &[])
    }

    /// As [`Postgres::with`], of this major version.
    pub fn with_version(major: u32, settings: &[(&str, &str)]) -> Postgres {
        let mut folders = binaries::postgres_folders();
        let folder = folders.remove(&major);
        let folder = folder.unwrap_or_else(|| panic!("PostgreSQL {major} is not there; `tests/run` installs it"));
        Postgres::launch(&folder, settings, false)
    }

    /// A server that takes only encrypted connections over TCP. Its certificate, for `localhost` and `127.0.0.1`, is
    /// issued by the authority whose certificate is at [`Postgres::ca_file`].
    pub fn with_tls(settings: &[(&str, &str)]) -> Postgres {
        Postgres::launch(&binaries::postgres_folder(), settings, true)
    }

    /// A standby that streams from this server (version 15 and later), with these settings over the usual ones. It takes
    /// queries when this returns. It keeps its log on this server by the physical slot `standby`, made here, and names a
    /// database, so that it can bring logical slots along (`sync_replication_slots`, version 17).
    pub fn standby(&self, settings: &[(&str, &str)]) -> Postgres {
        let source = format!("host={} port={} user={} dbname=postgres", self.folder.display(), self.port, Self::USER);
        let mut all = vec![
            ("primary_conninfo", source.as_str()),
            ("primary_slot_name", "standby"),
            ("hot_standby_feedback", "on"),
            // It feeds back at once what it sees, so that slots become usable soon.
            ("wal_receiver_status_interval", "1"),
        ];
        all.extend(settings);
        let standby = Postgres::new(&self.programs, &all, false);
        let (from, into) = (self.data(), standby.data());
        let label = standby.folder.join("label");
        // In one session, as a backup has to be. Files may vanish while they are copied, which the log makes up for.
        self.psql(
            "postgres",
            &format!(
                "SELECT pg_create_physical_replication_slot('standby', true);\nSELECT pg_backup_start('standby', true);\n\
                 \\! cp -a {} {} 2>/dev/null\nSELECT labelfile FROM pg_backup_stop(false) \\g {}\n",
                from.display(),
                into.display(),
                label.display()
            ),
        );
        for (name, text) in [("standby.signal", Vec::new()), ("backup_label", fs::read(label).expect("psql wrote it"))]
        {
            let file = into.join(name);
            fs::write(&file, text).expect("the folder is ours");
            give_to(&file, standby.run_as).expect("root may give its files away");
        }
        for left in ["postmaster.pid", "postmaster.opts"] {
            fs::remove_file(into.join(left)).expect("a running server has them");
        }
        standby.start_again();
        standby
    }

    /// Makes a standby a server of its own, on a new timeline, and waits until it takes writes.
    pub fn promote(&self) {
        assert_eq!(self.psql("postgres", "SELECT pg_promote()"), "t", "{}", self.log());
    }

    fn launch(programs: &Path, settings: &[(&str, &str)], tls: bool) -> Postgres {
        let postgres = Postgres::new(programs, settings, tls);
        postgres.prepare();
        postgres.start_again();
        postgres
    }

    fn new(programs: &Path, settings: &[(&str, &str)], tls: bool) -> Postgres {
        let run_as = getuid().is_root().then(|| (id_of("-u"), id_of("-g")));
        let process = Process::new("postgres", run_as, "QUIT");
        let folder = process.folder().to_path_buf();
        let programs = programs_for(run_as, programs, &folder);
        Postgres {
            port: process.port(),
            process: Mutex::new(process),
            folder,
            settings: settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            programs,
            run_as,
            tls,
        }
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder of everything that belongs to this server. Its data is in `data`, and its socket lies in the folder itself.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// `postgres://…` of a database, as the superuser; with TLS, one that checks the server's certificate.
    pub fn url(&self, database: &str) -> String {
        let (host, parameters) = if self.tls {
            ("localhost", format!("?sslmode=verify-full&sslrootcert={}", self.ca_file().display()))
        } else {
            ("127.0.0.1", String::new())
        };
        format!("postgres://{}:{}@{host}:{}/{database}{parameters}", Self::USER, Self::PASSWORD, self.port)
    }

    /// The certificate (PEM) of the authority that issued the server's own. Panics without TLS.
    pub fn ca_file(&self) -> PathBuf {
        assert!(self.tls, "a server without TLS has no certificate");
        self.folder.join("ca.pem")
    }

    /// Runs SQL (any number of statements, each a transaction of its own; also psql's own commands) as the superuser.
    /// Returns the rows as text, a line each, columns with `|` between them, without the last line's end. Panics with the
    /// server's complaint at the first statement that fails.
    pub fn psql(&self, database: &str, sql: &str) -> String {
        let mut command = Command::new(self.bin("psql"));
        command.args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1", "--file=-"]);
        command.args(["--username", Self::USER, "--port", &self.port.to_string(), "--dbname", database]);
        command.arg("--host").arg(&self.folder);
        run_with_input(&mut command, sql)
    }

    /// The path of a program, such as `pgbench`: of this server's version if it has that, else of Debian's.
    pub fn bin(&self, name: &str) -> PathBuf {
        let own = self.programs.join(name);
        if own.is_file() { own } else { binaries::postgres_folder().join(name) }
    }

    /// The server's major version.
    pub fn major_version(&self) -> u32 {
        let version = self.psql("postgres", "SHOW server_version_num");
        version.parse::<u32>().expect("a number") / 10_000
    }

    /// Ends the server cleanly: open transactions are rolled back, and walsenders send what is left first, for which their
    /// clients have to read it. Does nothing if it does not run.
    pub fn stop(&self) {
        self.process().stop(Signal::INT);
    }

    /// `kill -9` of all processes of the server. Does nothing if it does not run.
    pub fn kill(&self) {
        self.process().kill();
    }

    /// Starts the server that was stopped or killed, on its port and data, and waits until it takes connections.
    pub fn start_again(&self) {
        let mut command = Command::new(self.bin("postgres"));
        command.arg("-D").arg(self.data()).current_dir(&self.folder);
        let mut set = |name: &str, value: &str| {
            command.arg("-c").arg(format!("{name}={value}"));
        };
        for (name, value) in SETTINGS {
            set(name, value);
        }
        set("listen_addresses", "127.0.0.1");
        set("port", &self.port.to_string());
        set("unix_socket_directories", &self.folder.to_string_lossy());
        if self.tls {
            set("ssl", "on");
            set("ssl_cert_file", &self.folder.join("server.pem").to_string_lossy());
            set("ssl_key_file", &self.folder.join("server.key").to_string_lossy());
        }
        // The last one counts.
        for (name, value) in &self.settings {
            set(name, value);
        }
        run_as(&mut command, self.run_as);
        let status = self.data().join("postmaster.pid");
        self.process().start(&mut command, |id| is_ready(&status, id));
    }

    /// The end of the server's log.
    pub fn log(&self) -> String {
        self.process().log()
    }

    /// The id of the server's first process, if it runs.
    pub fn process_id(&self) -> Option<u32> {
        self.process().id()
    }

    fn process(&self) -> MutexGuard<'_, Process> {
        // A test that panicked while it held the lock has failed already.
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn prepare(&self) {
        let version = run(Command::new(self.bin("postgres")).arg("--version"));
        // `postgres (PostgreSQL) 15.20 (…)`
        let version = version.split_whitespace().nth(2).unwrap_or("unknown");
        unpack(&format!("postgres-{version}-{TEMPLATE}"), &self.folder, self.run_as, |folder| {
            let password = folder.join("password");
            fs::write(&password, Self::PASSWORD).expect("the folder is ours");
            give_to(&password, self.run_as).expect("root may give its files away");
            let mut initdb = Command::new(self.bin("initdb"));
            initdb.args(["--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--username", Self::USER]);
            initdb.args(["--auth-local=trust", "--auth-host=scram-sha-256"]);
            initdb.arg("--pwfile").arg(&password).arg("--pgdata").arg(folder.join("data")).current_dir(folder);
            run(run_as(&mut initdb, self.run_as));
            fs::remove_file(password).expect("the folder is ours");
        });
        if self.tls {
            certificates::write(&self.folder);
            let key = self.folder.join("server.key");
            give_to(&key, self.run_as).expect("root may give its files away");
            // The server refuses a key that others may read.
            fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).expect("the file is ours");
            let rules =
                "local all all trust\nhostssl all all all scram-sha-256\nhostssl replication all all scram-sha-256\n";
            fs::write(self.data().join("pg_hba.conf"), rules).expect("the folder is ours");
        }
    }
}

/// The server writes its process and, when it takes connections, `ready` into this file, which a killed one leaves behind.
fn is_ready(status: &Path, id: u32) -> bool {
    let text = fs::read_to_string(status).unwrap_or_default();
    let mut lines = text.lines().map(str::trim);
    lines.next() == Some(id.to_string().as_str()) && lines.nth(6) == Some("ready")
}

/// The programs where whoever runs the server can get at them: in a copy beside the server, if they lie in somebody's home.
fn programs_for(run_as: Option<(u32, u32)>, programs: &Path, folder: &Path) -> PathBuf {
    let is_open = |folder: &Path| fs::metadata(folder).is_ok_and(|found| found.permissions().mode() & 0o005 == 0o005);
    let programs = programs.canonicalize().expect("they were found");
    if run_as.is_none() || programs.ancestors().all(is_open) {
        return programs;
    }
    let version = run(Command::new(programs.join("postgres")).arg("--version"));
    let version = version.split_whitespace().nth(2).unwrap_or("unknown");
    let whole = programs.parent().expect("programs lie in a folder of a package");
    let copy = folder.join("programs");
    fs::create_dir(&copy).expect("the folder is ours");
    unpack(&format!("postgres-programs-{version}"), &copy, None, |into| {
        run(Command::new("cp").arg("-a").arg(whole.join(".")).arg(into));
    });
    copy.join("bin")
}

fn id_of(option: &str) -> u32 {
    let text = run(Command::new("id").args([option, "postgres"]));
    text.trim().parse().expect("`id` writes a number")
}

fn run_as(command: &mut Command, owner: Option<(u32, u32)>) -> &mut Command {
    if let Some((user, group)) = owner {
        command.uid(user).gid(group);
    }
    command
}

/// Runs a client to its end with `input`; returns what it wrote, without the last line's end. Panics with its complaints if
/// it fails.
pub(crate) fn run_with_input(command: &mut Command, input: &str) -> String {
    use std::io::Write;
    let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut client = spawned.unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    let mut pipe = client.stdin.take().expect("it was asked for");
    let output = std::thread::scope(|scope| {
        // It may write before it has read everything. If it ends before that, it says why itself.
        scope.spawn(move || pipe.write_all(input.as_bytes()));
        client.wait_with_output().expect("a child can be waited for")
    });
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{input}\n{complaints}");
    let text = String::from_utf8_lossy(&output.stdout);
    text.strip_suffix('\n').unwrap_or(&text).to_owned()
}
