//! A walk as a text: a line for each step, so that it can be read, cut down and run again.

use std::fmt;

/// One step of a walk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A statement in the session of this number.
    Sql(usize, String),
    /// `kill -9` of the service; it stays down.
    KillService,
    /// A clean stop of the service.
    StopService,
    /// The service starts again, or goes on if it was halted.
    StartService,
    /// The service is halted (SIGSTOP): the database goes on and the service falls behind.
    HaltService,
    /// `kill -9` of the database, and a start.
    KillDatabase,
    /// A clean restart of the database.
    RestartDatabase,
    /// Wait until what was committed so far has come through.
    CatchUp,
    /// Wait until all is settled, and compare every table.
    Compare,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Line breaks stand in literals only, and as an escape there they would be another text.
            Step::Sql(session, sql) => write!(f, "{} {sql}", char::from(b'a' + *session as u8)),
            Step::KillService => f.write_str("! kill the service"),
            Step::StopService => f.write_str("! stop the service"),
            Step::StartService => f.write_str("! start the service"),
            Step::HaltService => f.write_str("! halt the service"),
            Step::KillDatabase => f.write_str("! kill the database"),
            Step::RestartDatabase => f.write_str("! restart the database"),
            Step::CatchUp => f.write_str("! catch up"),
            Step::Compare => f.write_str("! compare"),
        }
    }
}

impl Step {
    /// Reads a line; none for an empty one or a remark.
    fn parse(line: &str) -> Option<Step> {
        const EVENTS: [Step; 8] = [
            Step::KillService,
            Step::StopService,
            Step::StartService,
            Step::HaltService,
            Step::KillDatabase,
            Step::RestartDatabase,
            Step::CatchUp,
            Step::Compare,
        ];
        let line = line.trim();
        if line.is_empty() || line.starts_with("--") {
            return None;
        }
        if line.starts_with('!') {
            let event = EVENTS.into_iter().find(|step| step.to_string() == line);
            return Some(event.unwrap_or_else(|| panic!("a step that nobody knows: {line}")));
        }
        match line.split_once(' ') {
            Some(("a", sql)) => Some(Step::Sql(0, sql.to_owned())),
            Some(("b", sql)) => Some(Step::Sql(1, sql.to_owned())),
            _ => Some(Step::Sql(0, line.to_owned())),
        }
    }
}

/// The steps of a script.
pub fn parse(text: &str) -> Vec<Step> {
    text.lines().filter_map(Step::parse).collect()
}

/// A script of steps.
pub fn write(steps: &[Step]) -> String {
    steps.iter().map(|step| format!("{step}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_read_as_it_was_written() {
        let steps = [
            Step::Sql(0, "CREATE TABLE t (id int)".into()),
            Step::Sql(1, "BEGIN".into()),
            Step::KillService,
            Step::Compare,
        ];
        assert_eq!(parse(&write(&steps)), steps);
        assert_eq!(parse("-- a remark\n\nSELECT 1"), [Step::Sql(0, "SELECT 1".into())]);
    }
}
