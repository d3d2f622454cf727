//! PostgreSQL in: a slot drained, a table read, one large transaction; beside `pg_recvlogical`, `COPY` and Debezium's engine.

use std::process::Command;
use std::time::{Duration, Instant};

use cdc_test_servers::Postgres;
use cdc_tests::harness::{Launch, Server, repository, until};
use cdc_tests::latency::median;

use super::{Sides, configured, drain, follow_once, in_turns, per_second, rate, timed, until_following, wait};
use crate::Scale;
use crate::table::{Table, grouped, mib};

const DATABASE: &str = "postgres";

/// A table of rows like the other parts', and procedures that change it in transactions of a given size.
const TABLE: &str = "\
    CREATE TABLE changes (id bigint PRIMARY KEY, name text NOT NULL, email text NOT NULL, balance numeric(12,2) NOT NULL, \
      active boolean NOT NULL, created timestamptz NOT NULL); \
    CREATE PROCEDURE fill(first bigint, rows bigint, per_transaction bigint) LANGUAGE plpgsql AS $$ BEGIN \
      FOR at IN first .. first + rows - 1 BY per_transaction LOOP \
        INSERT INTO changes SELECT id, 'User number ' || id, 'user' || id || '@example.com', id / 100.0, id % 2 = 0, \
          timestamptz '2024-01-01' + id * interval '1 second' \
          FROM generate_series(at, least(at + per_transaction, first + rows) - 1) AS id; \
        COMMIT; \
      END LOOP; END $$; \
    CREATE PROCEDURE touch(first bigint, rows bigint, per_transaction bigint) LANGUAGE plpgsql AS $$ BEGIN \
      FOR at IN first .. first + rows - 1 BY per_transaction LOOP \
        UPDATE changes SET balance = balance + 1 \
          WHERE id BETWEEN at AND least(at + per_transaction, first + rows) - 1; \
        COMMIT; \
      END LOOP; END $$;";

/// Drains slots that were prepared alike: into our log, by `pg_recvlogical` to nowhere, and by Debezium's engine.
pub(crate) fn measure_drain(scale: Scale, table: &mut Table) {
    let changes = scale.database_changes;
    let mut bench = Followed::start(&[], "");
    let mut of_hundreds = (0.0, 0);
    for per_transaction in [100, 10_000] {
        let sides = bench.rounds(scale, |bench, first| bench.call("fill", first, changes, per_transaction));
        let what = format!(
            "PostgreSQL: {} inserts of a slot, {} a transaction, durable (peer: pg_recvlogical)",
            grouped(changes as f64),
            grouped(per_transaction as f64)
        );
        sides.row(table, &what, 1.2);
        if per_transaction == 100 {
            of_hundreds = (sides.ours(), sides.peak_bytes);
        }
    }
    let sides = bench.rounds(Scale { database_rounds: 1, ..scale }, |bench, _| bench.call("touch", 1, changes, 100));
    table.note(
        "the same with updates of one column, 100 a transaction",
        sides.shown(),
        &format!("{}, ratio {:.2}", rate(sides.peer()), sides.ours() / sides.peer()),
    );
    bench.against_debezium(changes, of_hundreds, table);
}

/// Reads a table that is there before the source begins, by one reader and by four, and once more though nothing in it
/// differs; beside `COPY … TO STDOUT` to nowhere.
pub(crate) fn measure_reading(scale: Scale, table: &mut Table) {
    let rows = scale.database_changes;
    let postgres = Postgres::start();
    postgres.psql(DATABASE, TABLE);
    postgres.psql(DATABASE, &format!("CALL fill(1, {rows}, {rows}); VACUUM (FREEZE, ANALYZE) changes"));
    let (mut alone, mut sides, mut again) = (Sides::default(), Sides::default(), Vec::new());
    for _ in 0..scale.database_rounds {
        let copied = timed(client(&postgres, "psql").args(["--command", "COPY changes TO STDOUT", DATABASE]));
        for (sides, readers) in [(&mut alone, 1), (&mut sides, 4)] {
            let drained = drain(&source(&postgres, &format!("read-parallelism = {readers}")), rows);
            sides.add(rows, &drained, copied);
            if readers > 1 {
                again.push(per_second(rows, read_again(&drained.launch)));
            }
            forget(&postgres);
        }
    }
    let what = format!("PostgreSQL: {} rows read at first, durable (peer: COPY TO STDOUT)", grouped(rows as f64));
    sides.row(table, &what, 0.4);
    table.note("the same by one reader", alone.shown(), "-");
    let (again, first) = (median(&again), sides.ours());
    table.against_peer(
        "read again, and nothing differs (peer: the first time)",
        rate(again),
        rate(first),
        again / first,
        1.5,
    );
}

/// How long it takes to read the table once more, in which nothing differs, from when it is asked for.
fn read_again(launch: &Launch) -> Duration {
    let server = launch.start();
    until_following(&server);
    let sequence = server.current_sequence();
    let began = Instant::now();
    server.post("/sources/bench/tables/public.changes/reread", "");
    let state = |server: &Server| {
        let source = server.get("/sources/bench").expect(200).json();
        source["tables"].as_array().into_iter().flatten().find_map(|table| {
            (table["table"] == "public.changes").then(|| table["state"].as_str().unwrap_or_default().to_owned())
        })
    };
    wait("the table to be read again", &server, |server| state(server).as_deref() == Some("following"));
    let took = began.elapsed();
    assert_eq!(server.current_sequence(), sequence, "nothing differs");
    server.stop();
    took
}

/// Drains one transaction that is larger than memory should ever get.
pub(crate) fn measure_large(scale: Scale, table: &mut Table) {
    let changes = scale.database_changes;
    // The server hands it over while it decodes, as it does with large transactions.
    let bench = Followed::start(&[("logical_decoding_work_mem", "64kB")], "");
    bench.call("fill", 1, changes, changes);
    let drained = drain(&bench.launch, changes);
    let peak = drained.peak_bytes;
    table.against_bar(
        &format!("PostgreSQL: one transaction of {} inserts, memory at most", grouped(changes as f64)),
        format!("{}, {}", mib(peak), rate(per_second(changes, drained.took))),
        "< 100 MiB",
        peak < 100 << 20,
    );
}

/// A database and a service that has begun to follow it, and is stopped.
pub(super) struct Followed {
    postgres: Postgres,
    pub(super) launch: Launch,
    /// What has been captured.
    sequence: u64,
    /// The next key that is free.
    next: u64,
}

impl Followed {
    /// With these settings of the server, and a configuration of the service that goes on with `further`.
    pub(super) fn start(settings: &[(&str, &str)], further: &str) -> Followed {
        let postgres = Postgres::with(&[&[("max_wal_size", "8GB")], settings].concat());
        postgres.psql(DATABASE, TABLE);
        let launch = follow_once(&source(&postgres, further));
        Followed { postgres, launch, sequence: 0, next: 1 }
    }

    pub(super) fn call(&self, procedure: &str, first: u64, changes: u64, per_transaction: u64) {
        self.postgres.psql(DATABASE, &format!("CALL {procedure}({first}, {changes}, {per_transaction})"));
    }

    /// Prepares as many changes as the scale says and lets both sides drain them, in turns who is first.
    fn rounds(&mut self, scale: Scale, prepare: impl Fn(&Followed, u64)) -> Sides {
        let changes = scale.database_changes;
        let mut sides = Sides::default();
        for round in 0..scale.database_rounds {
            self.make_slot("peer");
            prepare(self, self.next);
            self.next += changes;
            self.sequence += changes;
            // One more after the end, at which the peer stops.
            let end = self.end();
            let (drained, received) = in_turns(round, || drain(&self.launch, self.sequence), || self.receive(&end));
            sides.add(changes, &drained, received);
            self.launch = drained.launch;
        }
        sides
    }

    fn make_slot(&self, name: &str) {
        self.postgres.psql(DATABASE, &format!("SELECT pg_create_logical_replication_slot('{name}', 'pgoutput')"));
    }

    /// Where the changes so far end, with something behind it that no publication tells of.
    fn end(&self) -> String {
        let end = self.postgres.psql(DATABASE, "SELECT pg_current_wal_insert_lsn()");
        self.postgres.psql(DATABASE, "SELECT pg_logical_emit_message(true, 'bench', 'the end')");
        end
    }

    /// How long `pg_recvlogical` takes for what waits in the slot `peer`, which is dropped then.
    fn receive(&self, end: &str) -> Duration {
        let mut command = client(&self.postgres, "pg_recvlogical");
        command.args(["--start", "--slot=peer", "--no-loop", "--file=/dev/null", "--endpos", end]);
        command.args(["--option=proto_version=2", "--option=publication_names=cdc_bench", "--dbname", DATABASE]);
        let took = timed(&mut command);
        self.postgres.psql(DATABASE, "SELECT pg_drop_replication_slot('peer')");
        took
    }

    /// Debezium's engine, which hands each change to a callback that does nothing, on the same changes in hundreds.
    fn against_debezium(&mut self, changes: u64, (ours, our_peak): (f64, u64), table: &mut Table) {
        const WHAT: &str = "the same inserts, 100 a transaction, into our log (peer: Debezium's engine, to a callback)";
        self.make_slot("debezium");
        self.call("fill", self.next, changes, 100);
        self.next += changes;
        let mut command = Command::new(repository().join("tests/peers/debezium/run"));
        command.args(["127.0.0.1", &self.postgres.port().to_string(), Postgres::USER, Postgres::PASSWORD, DATABASE]);
        command.args(["debezium", "cdc_bench", &changes.to_string()]);
        let output = command.output().expect("the repository has this script");
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            eprintln!("{said}");
            table.note(WHAT, rate(ours), "not measured: Debezium's engine did not run, see above");
            return;
        }
        // `records=… seconds=… peak_kib=…`
        let text = String::from_utf8_lossy(&output.stdout);
        let figure = |name: &str| -> f64 {
            let word = text.split_whitespace().find_map(|word| word.strip_prefix(name));
            word.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no {name} in {text}"))
        };
        let (theirs, their_peak) = (figure("records=") / figure("seconds="), figure("peak_kib=") * 1024.0);
        table.against_peer(WHAT, rate(ours), rate(theirs), ours / theirs, 5.0);
        table.at_most_of_peer(
            "memory at most meanwhile (peer: Debezium's engine)",
            mib(our_peak),
            mib(their_peak as u64),
            our_peak as f64 / their_peak,
            0.1,
        );
    }
}

/// A service that follows this database as the source `bench`, whose configuration goes on with `further`.
fn source(postgres: &Postgres, further: &str) -> Launch {
    configured(&format!("[sources.bench]\nurl = \"{}\"\n\n{further}", postgres.url(DATABASE)))
}

/// Makes the database forget the source: the next service begins anew.
fn forget(postgres: &Postgres) {
    let active = "SELECT count(*) FROM pg_replication_slots WHERE active";
    until("the slot to be free", || (postgres.psql(DATABASE, active) == "0").then_some(()));
    postgres.psql(
        DATABASE,
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots; DROP PUBLICATION IF EXISTS cdc_bench",
    );
}

/// A client of the server over TCP, as the service is one: over a Unix socket the server sends at less cost.
fn client(postgres: &Postgres, program: &str) -> Command {
    let mut command = Command::new(postgres.bin(program));
    command.args(["--host", "127.0.0.1", "--port", &postgres.port().to_string(), "--username", Postgres::USER]);
    command.env("PGPASSWORD", Postgres::PASSWORD);
    command
}
