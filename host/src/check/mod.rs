//! `cdc check`: connects to what is configured and tells what is missing, in plain words, with what to run.

use std::fmt::Write;

use cdc_rest::{Subscriber, SubscriptionId, SubscriptionSpec};
use cdc_sources::{Finding, Severity};
use serde::Serialize;

use crate::delivery;
use crate::source::{self, SourceSpec};

/// What was looked at, and what was found.
#[derive(Debug)]
pub struct Subject {
    /// `source` or `subscription`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// Where it is, without a password; of a subscription, the kind of its sink.
    pub place: String,
    /// What was found.
    pub findings: Vec<Finding>,
}

/// Everything that was looked at.
#[derive(Debug, Default)]
pub struct Report {
    /// Sources first, then subscriptions.
    pub subjects: Vec<Subject>,
}

/// Nothing was there to look at.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// A name is none of what is configured.
    #[error("there is no source and no subscription {0} in the configuration")]
    Unknown(String),
    /// Nothing is configured.
    #[error(
        "no source is configured; write a [sources.some-name] table with its url into cdc.toml, or give --source URL"
    )]
    Nothing,
}

/// Looks at sources and at the sinks of subscriptions, or at those with the given names.
pub async fn check(
    sources: &[SourceSpec],
    subscriptions: &[(SubscriptionId, SubscriptionSpec)],
    names: &[String],
) -> Result<Report, CheckError> {
    let known = |name: &&String| {
        sources.iter().any(|spec| spec.name.as_str() == **name)
            || subscriptions.iter().any(|(id, _)| id.as_str() == **name)
    };
    if let Some(unknown) = names.iter().find(|name| !known(name)) {
        return Err(CheckError::Unknown(unknown.clone()));
    }
    let asked = |name: &str| names.is_empty() || names.iter().any(|asked| asked == name);
    let mut report = Report::default();
    for spec in sources.iter().filter(|spec| asked(spec.name.as_str())) {
        let findings = source::check(spec).await;
        let (name, place) = (spec.name.as_str().to_owned(), spec.url.to_string());
        report.subjects.push(Subject { kind: "source", name, place, findings });
    }
    for (id, spec) in subscriptions.iter().filter(|(id, _)| asked(id.as_str())) {
        report.subjects.extend(of_subscription(id, spec).await);
    }
    if report.subjects.is_empty() { Err(CheckError::Nothing) } else { Ok(report) }
}

/// What is missing before a subscription's sink works; none if it has no sink, so that there is nothing to connect to.
async fn of_subscription(id: &SubscriptionId, spec: &SubscriptionSpec) -> Option<Subject> {
    let Subscriber::Sink(sink) = &spec.subscriber else { return None };
    let finding = |severity, code, message| Finding { severity, code, message, remedy: None };
    let findings = match delivery::check(id, spec).await {
        Ok(missing) if missing.is_empty() => {
            vec![finding(Severity::Good, "sink", "the receiver takes what is sent to it".to_owned())]
        }
        Ok(missing) => missing.into_iter().map(|message| finding(Severity::Missing, "sink", message)).collect(),
        Err(error) => vec![finding(Severity::Missing, "settings", error.to_string())],
    };
    Some(Subject { kind: "subscription", name: id.as_str().to_owned(), place: sink.kind.clone(), findings })
}

impl Report {
    /// Whether something has to change before everything works.
    #[must_use]
    pub fn is_missing_something(&self) -> bool {
        self.subjects.iter().flat_map(|subject| &subject.findings).any(|found| found.severity == Severity::Missing)
    }

    /// For a person.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        for (at, Subject { kind, name, place, findings }) in self.subjects.iter().enumerate() {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "{}{kind} {name} ({place})", if at > 0 { "\n" } else { "" });
            for Finding { severity, message, remedy, .. } in findings {
                let _ = writeln!(out, "  {:8} {message}", word(*severity));
                for line in remedy.iter().flat_map(|remedy| remedy.lines()) {
                    let _ = writeln!(out, "             {line}");
                }
            }
            let missing = findings.iter().filter(|found| found.severity == Severity::Missing).count();
            let verdict = match missing {
                0 => "nothing is missing".to_owned(),
                1 => "1 thing is missing".to_owned(),
                many => format!("{many} things are missing"),
            };
            let _ = writeln!(out, "  => {verdict}");
        }
        out
    }

    /// For a program: one JSON object.
    #[must_use]
    pub fn json(&self) -> String {
        #[derive(Serialize)]
        struct Shown<'a> {
            ok: bool,
            subjects: Vec<ShownSubject<'a>>,
        }
        #[derive(Serialize)]
        struct ShownSubject<'a> {
            kind: &'a str,
            name: &'a str,
            place: &'a str,
            findings: Vec<ShownFinding<'a>>,
        }
        #[derive(Serialize)]
        struct ShownFinding<'a> {
            severity: &'static str,
            code: &'a str,
            message: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            remedy: Option<&'a str>,
        }
        let subjects = self.subjects.iter().map(|subject| ShownSubject {
            kind: subject.kind,
            name: &subject.name,
            place: &subject.place,
            findings: subject
                .findings
                .iter()
                .map(|found| ShownFinding {
                    severity: word(found.severity),
                    code: found.code,
                    message: &found.message,
                    remedy: found.remedy.as_deref(),
                })
                .collect(),
        });
        let shown = Shown { ok: !self.is_missing_something(), subjects: subjects.collect() };
        // Texts and truth values: there is nothing that cannot be written.
        serde_json::to_string(&shown).unwrap_or_default() + "\n"
    }
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Good => "good",
        Severity::Warning => "warning",
        Severity::Missing => "missing",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let finding = |severity, code, message: &str, remedy: Option<&str>| Finding {
            severity,
            code,
            message: message.to_owned(),
            remedy: remedy.map(str::to_owned),
        };
        let shop = Subject {
            kind: "source",
            name: "shop".to_owned(),
            place: "postgres://cdc:***@db/shop".to_owned(),
            findings: vec![
                finding(Severity::Good, "connection", "PostgreSQL 15.4 answers", None),
                finding(
                    Severity::Missing,
                    "wal-level",
                    "wal_level is replica, and changes can be followed with logical only",
                    Some("ALTER SYSTEM SET wal_level = logical;\n-- and restart the server"),
                ),
                finding(Severity::Warning, "key", "table public.notes has no key", None),
            ],
        };
        let good = Subject {
            kind: "source",
            name: "mail".to_owned(),
            place: "mariadb://db/mail".to_owned(),
            findings: vec![finding(Severity::Good, "connection", "MariaDB 10.11 answers", None)],
        };
        Report { subjects: vec![shop, good] }
    }

    #[test]
    fn findings_read_as_plain_words_with_what_to_run() {
        assert_eq!(report().text(), include_str!("golden.txt"));
        assert!(report().is_missing_something());
    }

    #[test]
    fn a_program_gets_json() {
        let value: serde_json::Value = serde_json::from_str(&report().json()).expect("JSON");
        assert_eq!(value["ok"], false);
        assert_eq!(value["subjects"][0]["findings"][1]["code"], "wal-level");
        assert_eq!(value["subjects"][1]["findings"][0]["severity"], "good");
    }

    #[tokio::test]
    async fn a_name_that_is_not_configured_is_no_silent_success() {
        let unknown = check(&[], &[], &["shop".to_owned()]).await.expect_err("unknown").to_string();
        assert!(unknown.contains("shop"));
        assert!(matches!(check(&[], &[], &[]).await, Err(CheckError::Nothing)));
    }
}
