//! What is done when a database keeps more log for a source than it may.

use super::failure::Failure;
use super::runner::Runner;
use super::spec::OnMaxRetained;
use super::state::Source;

/// The code of a source that is over its budget.
pub(super) const OVER: &str = "retained-budget";

/// What is said when more is retained than may be.
pub(super) fn over_budget(source: &Source) -> Failure {
    let budget = source.spec.max_retained_bytes.unwrap_or_default();
    let mut message = format!("the database keeps more log for the source than max-retained-bytes ({budget}) allows");
    if source.spec.on_max_retained == OnMaxRetained::Stop {
        let name = source.name();
        message
            .push_str(&format!("; POST /sources/{name}/resume follows until it is less, and then the budget counts"));
    }
    Failure::stop(OVER, message)
}

/// Saves the database from the log that it keeps for the source.
pub(super) async fn drop_slot(runner: &Runner, failure: Failure) -> Failure {
    let name = runner.source.name();
    let Failure::Stop { message, .. } = failure else { return failure };
    match runner.opener.drop_slot().await {
        Ok(()) => Failure::stop(
            "slot-lost",
            format!(
                "{message}, so its slot was dropped (on-max-retained = \"drop-slot\"); POST /sources/{name}/repair reads \
                 the tables anew and captures what differs"
            ),
        ),
        Err(error) => Failure::stop(OVER, format!("{message}, and its slot could not be dropped: {error}")),
    }
}
