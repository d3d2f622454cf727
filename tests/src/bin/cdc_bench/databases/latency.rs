//! How soon a commit in PostgreSQL is with a handler, one at a time.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use cdc_test_servers::Postgres;
use cdc_tests::latency::Latencies;
use cdc_tests::recorder::Recorder;

use super::{configured, until_following};
use crate::Scale;
use crate::table::{Table, ms};

/// From the moment before a commit is sent to the database, so with its own time in it, until the handler's HTTP request
/// has come; the handler is a webhook.
pub(crate) fn measure(scale: Scale, table: &mut Table) {
    const WARM_UP: u64 = 20;
    let postgres = Postgres::start();
    postgres.psql("postgres", "CREATE TABLE ticks (id bigint PRIMARY KEY, note text)");
    let recorder = Recorder::start();
    let text = format!(
        "[sources.bench]\nurl = \"{}\"\n\n[subscriptions.out]\n\
         subscriber = {{ sink = \"webhook\", url = \"{}/ticks\" }}\n",
        postgres.url("postgres"),
        recorder.origin(),
    );
    let server = configured(&text).start();
    until_following(&server);
    let mut session = Session::open(&postgres);
    let mut latencies = Latencies::default();
    for tick in 0..WARM_UP + scale.handler_events {
        session.run(&format!("BEGIN; INSERT INTO ticks VALUES ({tick}, 'tick')"));
        thread::sleep(Duration::from_millis(10));
        let heard = recorder.count();
        let began = Instant::now();
        session.run("COMMIT");
        let arrived = cdc_tests::harness::until("the handler to hear of it", || recorder.arrival(heard));
        if tick >= WARM_UP {
            latencies.record(arrived.saturating_duration_since(began));
        }
    }
    let (middle, slow) = (latencies.quantile(0.5), latencies.quantile(0.99));
    table.against_bar(
        "PostgreSQL: COMMIT sent until a webhook is asked, one at a time",
        format!("p50 {}, p99 {}", ms(middle), ms(slow)),
        "p99 < 10 ms",
        slow < Duration::from_millis(10),
    );
}

/// psql that takes one statement after the other, so that none waits for a process to start.
struct Session {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Session {
    fn open(postgres: &Postgres) -> Session {
        let mut command = Command::new(postgres.bin("psql"));
        command.arg("--host").arg(postgres.folder()).args(["--port", &postgres.port().to_string()]);
        command.args(["--username", Postgres::USER, "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "postgres"]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("psql belongs to the server");
        let input = child.stdin.take().expect("it was asked for");
        let output = BufReader::new(child.stdout.take().expect("it was asked for"));
        Session { child, input, output }
    }

    /// Runs statements and waits until they are done.
    fn run(&mut self, sql: &str) {
        writeln!(self.input, "{sql};\n\\echo done").expect("psql reads");
        let mut line = String::new();
        self.output.read_line(&mut line).expect("psql writes");
        assert_eq!(line, "done\n", "{sql}");
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
