//! What is missing before a database can be captured, for a person.

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// As it should be.
    Good,
    /// It works, but something may surprise.
    Warning,
    /// It does not work until somebody changes it.
    Missing,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// A stable word for what was looked at: `connection`, `row-format`, `privileges`.
    pub code: &'static str,
    /// In plain words: what is, and why it matters.
    pub message: String,
    /// The SQL (or the setting, with a comment that says where) to change it, if there is something to change.
    pub remedy: Option<String>,
}
