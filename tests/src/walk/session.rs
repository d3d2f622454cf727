//! A database's own client, kept open: statements go in one at a time, and what comes of each is known before the next.

use std::io::{BufRead, BufReader, PipeReader, Write, pipe};
use std::process::{Child, ChildStdin, Command, Stdio};

/// What a client writes when a statement is done.
const DONE: &str = "@@done";

/// Which client it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Postgres,
    MariaDb,
}

/// A client's process.
pub(super) struct Session {
    client: Child,
    input: ChildStdin,
    output: BufReader<PipeReader>,
    dialect: Dialect,
}

/// Why a statement did not do what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SqlError {
    /// The database refused it.
    Refused(String),
    /// The connection is gone.
    Lost,
}

impl Session {
    /// Starts a client, whose arguments say where to.
    pub(super) fn open(mut command: Command, dialect: Dialect) -> Session {
        let (output, errors) = pipe().expect("a pipe can be made");
        let also_errors = errors.try_clone().expect("a pipe can be shared");
        command.stdin(Stdio::piped()).stdout(errors).stderr(also_errors);
        let mut client = command.spawn().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        // What it was given must be closed here, or its end would not be seen.
        drop(command);
        let input = client.stdin.take().expect("it was asked for");
        Session { client, input, output: BufReader::new(output), dialect }
    }

    /// Runs a statement; answers its rows, a line each.
    pub(super) fn run(&mut self, sql: &str) -> Result<String, SqlError> {
        let sql = sql.trim().trim_end_matches(';');
        let end = match self.dialect {
            Dialect::Postgres => format!("{sql};\n\\warn {DONE} :ERROR\n"),
            Dialect::MariaDb => format!("{sql};\nSELECT '{DONE} false';\n"),
        };
        if self.input.write_all(end.as_bytes()).and_then(|()| self.input.flush()).is_err() {
            return Err(SqlError::Lost);
        }
        let (mut rows, mut refusal) = (String::new(), String::new());
        let mut line = Vec::new();
        loop {
            line.clear();
            if !self.output.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                return Err(SqlError::Lost);
            }
            let text = String::from_utf8_lossy(&line);
            if let Some(error) = text.trim_end().strip_prefix(DONE) {
                return match error.trim() == "false" && refusal.is_empty() {
                    true => Ok(rows),
                    false => Err(SqlError::Refused(refusal)),
                };
            }
            if text.starts_with("ERROR ") || text.contains(": ERROR: ") || text.starts_with("ERROR:") {
                let is_lost = ["(HY000) at line", "2013", "2006"].iter().all(|part| text.contains(part));
                if is_lost || text.contains("Lost connection") || text.contains("server has gone away") {
                    return Err(SqlError::Lost);
                }
                refusal.push_str(text.trim_end());
            } else if !text.contains("NOTICE:") && !text.starts_with("DETAIL:") && !text.contains("WARNING:") {
                rows.push_str(&text);
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}
