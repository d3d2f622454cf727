//! Each server starts, answers, keeps its data over a kill, and leaves nothing behind.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, panic, thread};

use cdc_test_servers::{MariaDb, Nats, Postgres, Redis};

#[test]
fn postgres_keeps_its_data_over_a_kill_and_a_stop() {
    let postgres = Postgres::start();
    postgres.psql("postgres", "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2);");
    let port = postgres.port();

    postgres.kill();
    assert!(!listens(port));
    postgres.start_again();
    assert_eq!(postgres.psql("postgres", "SELECT id, 'x' FROM t ORDER BY id"), "1|x\n2|x");

    postgres.stop();
    assert!(!listens(port));
    postgres.start_again();
    assert_eq!(postgres.port(), port);
    assert_eq!(postgres.psql("postgres", "SELECT count(*) FROM t"), "2");
}

#[test]
fn postgres_of_every_version_that_is_there_decodes_logically() {
    let versions = Postgres::available_versions();
    assert!(!versions.is_empty());
    for version in versions {
        let postgres = Postgres::start_version(version);
        assert_eq!(postgres.major_version(), version);
        let slot = "SELECT slot_name FROM pg_create_logical_replication_slot('s', 'pgoutput')";
        assert_eq!(postgres.psql("postgres", slot), "s");
    }
}

#[test]
fn postgres_has_standbys_that_take_over() {
    let primary = Postgres::start();
    primary.psql("postgres", "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1);");
    let standby = primary.standby(&[]);
    primary.psql("postgres", "INSERT INTO t VALUES (2);");
    let began = Instant::now();
    while standby.psql("postgres", "SELECT count(*) FROM t") != "2" {
        assert!(began.elapsed() < Duration::from_secs(30), "{}", standby.log());
    }
    primary.kill();
    standby.promote();
    assert_eq!(standby.psql("postgres", "INSERT INTO t VALUES (3); SELECT count(*) FROM t"), "3");
}

#[test]
fn postgres_decodes_logically_and_takes_settings() {
    let postgres = Postgres::with(&[("logical_decoding_work_mem", "64kB"), ("fsync", "on")]);
    let show = |name: &str| postgres.psql("postgres", &format!("SHOW {name}"));
    assert_eq!(show("wal_level"), "logical");
    assert_eq!(show("logical_decoding_work_mem"), "64kB");
    assert_eq!(show("fsync"), "on");
    let slot = postgres.psql("postgres", "SELECT slot_name FROM pg_create_logical_replication_slot('s', 'pgoutput')");
    assert_eq!(slot, "s");
}

#[test]
fn postgres_wants_a_password_over_tcp() {
    let postgres = Postgres::start();
    let connect = |url: &str| {
        let mut psql = Command::new(postgres.bin("psql"));
        psql.args(["--no-psqlrc", "--no-password", "-Atc", "SELECT current_user", url]).output().unwrap()
    };
    let right = connect(&postgres.url("postgres"));
    assert_eq!(String::from_utf8_lossy(&right.stdout), "postgres\n");
    let wrong = connect(&postgres.url("postgres").replace(Postgres::PASSWORD, "wrong"));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("password authentication failed"));
}

#[test]
fn postgres_with_tls_proves_who_it_is_and_refuses_plain_connections() {
    let postgres = Postgres::with_tls(&[]);
    let connect = |url: &str| {
        let mut psql = Command::new(postgres.bin("psql"));
        psql.args(["--no-psqlrc", "-Atc", "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", url]);
        psql.output().unwrap()
    };
    let checked = connect(&postgres.url("postgres"));
    assert_eq!(String::from_utf8_lossy(&checked.stdout), "t\n", "{}", String::from_utf8_lossy(&checked.stderr));

    let plain = connect(&postgres.url("postgres").replace("verify-full", "disable"));
    assert!(String::from_utf8_lossy(&plain.stderr).contains("no encryption"));

    let other = Postgres::with_tls(&[]);
    let stranger = postgres.ca_file().display().to_string();
    let stranger = connect(&postgres.url("postgres").replace(&stranger, &other.ca_file().display().to_string()));
    let complaint = String::from_utf8_lossy(&stranger.stderr);
    assert!(!stranger.status.success() && complaint.contains("SSL error"), "{complaint}");
}

#[test]
fn a_failing_statement_panics_with_the_servers_complaint() {
    let postgres = Postgres::start();
    let failure = panic::catch_unwind(|| postgres.psql("postgres", "SELECT 1; SELECT nonsense; SELECT 2")).unwrap_err();
    assert!(failure.downcast_ref::<String>().unwrap().contains("column \"nonsense\" does not exist"));
}

#[test]
fn a_server_that_does_not_start_panics_with_its_log() {
    let failure = panic::catch_unwind(|| Postgres::with(&[("wal_level", "nonsense")])).unwrap_err();
    assert!(failure.downcast_ref::<String>().unwrap().contains("invalid value for parameter \"wal_level\""));
    let failure = panic::catch_unwind(|| MariaDb::with(&["--nonsense"])).unwrap_err();
    assert!(failure.downcast_ref::<String>().unwrap().contains("unknown option '--nonsense'"));
}

#[test]
fn mariadb_keeps_its_data_over_a_kill_and_a_stop() {
    let mariadb = MariaDb::start();
    mariadb.sql("", "CREATE DATABASE d; CREATE TABLE d.t (id int PRIMARY KEY); INSERT INTO d.t VALUES (1), (2);");
    let port = mariadb.port();

    mariadb.kill();
    assert!(!listens(port));
    mariadb.start_again();
    assert_eq!(mariadb.sql("d", "SELECT id, 'x' FROM t ORDER BY id"), "1\tx\n2\tx");

    mariadb.stop();
    assert!(!listens(port));
    mariadb.start_again();
    assert_eq!(mariadb.port(), port);
    assert_eq!(mariadb.sql("d", "SELECT count(*) FROM t"), "2");
}

#[test]
fn mariadb_logs_rows_and_takes_options() {
    let mariadb = MariaDb::with(&["--sync-binlog=1"]);
    let settings = "SELECT @@log_bin, @@binlog_format, @@binlog_row_image, @@binlog_row_metadata, @@gtid_strict_mode, \
                    @@sync_binlog";
    assert_eq!(mariadb.sql("", settings), "1\tROW\tFULL\tFULL\t1\t1");
    mariadb.sql("", "CREATE DATABASE d");
    assert_eq!(mariadb.sql("", "SELECT @@gtid_binlog_pos"), "0-1-1");
}

#[test]
fn mariadb_wants_a_password_over_tcp() {
    let mariadb = MariaDb::start();
    let connect = |password: &str| {
        let mut client = Command::new(mariadb.bin("mariadb"));
        client.args(["--no-defaults", "--protocol=tcp", "--host=127.0.0.1", "--user=root", "-Ne", "SELECT 1"]);
        client.arg(format!("--port={}", mariadb.port())).arg(format!("--password={password}")).output().unwrap()
    };
    assert_eq!(String::from_utf8_lossy(&connect(MariaDb::PASSWORD).stdout), "1\n");
    assert!(String::from_utf8_lossy(&connect("wrong").stderr).contains("Access denied"));
}

#[test]
fn redis_keeps_its_data_over_a_kill() {
    let redis = Redis::start();
    assert_eq!(redis.command(&["SET", "key", "value"]), "OK");
    redis.kill();
    assert!(!listens(redis.port()));
    redis.start_again();
    assert_eq!(redis.command(&["GET", "key"]), "value");
}

#[test]
fn nats_keeps_its_streams_over_a_kill() {
    let nats = Nats::start();
    let created = ask(nats.port(), "$JS.API.STREAM.CREATE.s", r#"{"name":"s","subjects":["a"],"storage":"file"}"#);
    assert!(created.contains(r#""name":"s""#), "{created}");
    let stored = ask(nats.port(), "a", "one");
    assert!(stored.contains(r#""seq":1"#), "{stored}");
    nats.kill();
    assert!(!listens(nats.port()));
    nats.start_again();
    let stored = ask(nats.port(), "a", "two");
    assert!(stored.contains(r#""seq":2"#), "{stored}");
}

#[test]
fn nothing_is_left_of_a_dropped_server_even_if_the_test_panics() {
    let postgres = Postgres::start();
    let (folder, port) = (postgres.folder().to_path_buf(), postgres.port());
    let shared_memory = shared_memory(&folder);
    assert!(shared_memory_exists(&shared_memory));
    panic::catch_unwind(move || {
        let _postgres = postgres;
        panic::resume_unwind(Box::new(()));
    })
    .unwrap_err();
    assert!(!listens(port));
    assert!(!folder.exists());
    assert!(!shared_memory_exists(&shared_memory));

    for (port, folder) in [
        {
            let server = MariaDb::start();
            (server.port(), server.folder().to_path_buf())
        },
        {
            let server = Redis::start();
            (server.port(), server.folder().to_path_buf())
        },
        {
            let server = Nats::start();
            (server.port(), server.folder().to_path_buf())
        },
    ] {
        assert!(!listens(port));
        assert!(!folder.exists());
    }
}

/// The test starts itself a second time, with this variable set, and kills that one.
const VICTIM: &str = "CDC_TEST_SERVERS_VICTIM";

#[test]
fn servers_do_not_outlive_a_killed_process() {
    if env::var_os(VICTIM).is_some() {
        let (postgres, redis) = (Postgres::start(), Redis::start());
        println!("{VICTIM} {} {}", postgres.folder().display(), postgres.port());
        println!("{VICTIM} {} {}", redis.folder().display(), redis.port());
        loop {
            thread::park();
        }
    }
    let mut victim = Command::new(env::current_exe().unwrap())
        .args(["--exact", "servers_do_not_outlive_a_killed_process", "--nocapture"])
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(victim.stdout.take().unwrap()).lines().map(Result::unwrap);
    let started: Vec<(String, u16)> = lines
        .filter_map(|line| {
            // The harness writes the name of the test into the same line.
            let mut words = line[line.find(VICTIM)?..].split(' ').skip(1);
            Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
        })
        .take(2)
        .collect();
    let shared_memory = shared_memory(Path::new(&started[0].0));
    victim.kill().unwrap();
    victim.wait().unwrap();
    for (folder, port) in started {
        eventually(|| !Path::new(&folder).exists() && !listens(port));
    }
    assert!(!shared_memory_exists(&shared_memory));
}

#[test]
fn servers_that_start_together_get_ports_of_their_own() {
    let mut ports: Vec<u16> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let redis = Redis::start();
                    redis.command(&["SET", "port", &redis.port().to_string()]);
                    redis.kill();
                    redis.start_again();
                    assert_eq!(redis.command(&["GET", "port"]), redis.port().to_string());
                    redis
                })
            })
            .collect();
        let servers: Vec<Redis> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        servers.iter().map(Redis::port).collect()
    });
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 8);
}

fn listens(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}

fn eventually(holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "it does not come true");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The id of the System V shared memory of a PostgreSQL server: `<key> <id>` in line 7.
fn shared_memory(folder: &Path) -> String {
    let status = fs::read_to_string(folder.join("data/postmaster.pid")).unwrap();
    status.lines().nth(6).unwrap().split_whitespace().nth(1).unwrap().to_owned()
}

fn shared_memory_exists(id: &str) -> bool {
    let all = fs::read_to_string("/proc/sysvipc/shm").unwrap();
    all.lines().any(|line| line.split_whitespace().nth(1) == Some(id))
}

/// Publishes to a subject of NATS; returns what comes back: `MSG <inbox> 1 <length>`, and the text in the next line.
fn ask(port: u16, subject: &str, text: &str) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let length = text.len();
    write!(stream, "CONNECT {{\"verbose\":false}}\r\nSUB inbox 1\r\nPUB {subject} inbox {length}\r\n{text}\r\n")
        .unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.starts_with("MSG inbox")));
    lines.next().unwrap()
}
