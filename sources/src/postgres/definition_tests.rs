#![allow(clippy::unwrap_used)]

use super::*;
use crate::change::{Column, Kind};

fn column(number: i16, name: &str, native_type: &str) -> DefinedColumn {
    DefinedColumn {
        number,
        name: name.into(),
        type_oid: native_type.bytes().map(u32::from).sum(),
        type_modifier: -1,
        native_type: native_type.into(),
        treatment: Treatment::Keep,
        added_value: Some("null".into()),
    }
}

fn definition(columns: &[(i16, &str, &str)]) -> Definition {
    let columns: Vec<_> = columns.iter().map(|&(number, name, kind)| column(number, name, kind)).collect();
    let last = columns.iter().map(|column| column.number).max().unwrap_or(0);
    Definition {
        columns,
        dropped: Vec::new(),
        parts: Parts { last, file: 16400, since: 700, attributes: 1, types: 2, members: 3, published: 4 },
        members: Arc::default(),
        key: vec!["id".into()],
        is_listed: true,
    }
}

const OLD: [(i16, &str, &str); 3] = [(1, "id", "integer"), (2, "body", "text"), (3, "n", "character varying(5)")];

fn stored(definition: &Definition) -> Table {
    let shown = |column: &DefinedColumn| Column {
        name: column.name.clone(),
        kind: Kind::String,
        nullable: true,
        native_type: column.native_type.clone(),
    };
    Table {
        name: "public.t".into(),
        connector: "postgresql",
        database: "app".into(),
        namespace: "public".into(),
        relation: "t".into(),
        columns: definition.columns.iter().map(shown).collect(),
        key: definition.key.clone(),
    }
}

fn verdict(new: &Definition) -> Verdict {
    verdict_by(&Rules::default(), new, &definition(&OLD).members)
}

fn verdict_by(rules: &Rules, new: &Definition, members: &[Member]) -> Verdict {
    let old = definition(&OLD);
    let (stamp, stored) = (old.stamp(&Rules::default()), stored(&old));
    new.verdict(rules, Before { stamp: &stamp, key: &old.key, stored: Some(&stored), members: Some(members) })
}

fn code(verdict: &Verdict) -> &str {
    match verdict {
        Verdict::Same => "same",
        Verdict::Rewrite { .. } => "rewrite",
        Verdict::Reread(reason) => &reason.code,
    }
}

#[test]
fn a_stamp_is_read_as_it_was_written_and_is_short() {
    let stamp = definition(&[(1, "id", "integer"), (2, "a", "text"), (3, "b", "text"), (7, "c", "text")]);
    let stamp = stamp.stamp(&Rules::default());
    let text = String::from(stamp.clone());
    assert!(text.starts_with("1-3,7;7;4010;2bc;") && text.len() < 120, "{text}");
    assert_eq!(Stamp::try_from(text).unwrap(), stamp);
    assert!(Stamp::try_from("1;2".to_owned()).is_err());
}

#[test]
fn columns_that_are_renamed_dropped_and_added_are_a_rule() {
    let mut new = definition(&[(1, "id", "integer"), (2, "content", "text"), (4, "x", "integer")]);
    new.columns[2].added_value = Some("7".into());
    new.parts.attributes = 9;
    let Verdict::Rewrite { renamed, added, reason } = verdict(&new) else { panic!("{:?}", verdict(&new)) };
    assert_eq!(renamed, [("content".to_owned(), "body".to_owned())]);
    assert_eq!(added, [("x".to_owned(), "7".to_owned())]);
    for part in ["`content`", "`x` is new, and 7", "`n` is gone"] {
        assert!(reason.contains(part), "{reason}");
    }
}

#[test]
fn what_changes_no_value_changes_nothing() {
    assert_eq!(verdict(&definition(&OLD)), Verdict::Same);
    let mut vacuumed = definition(&OLD);
    vacuumed.parts.file = 17000;
    assert_eq!(verdict(&vacuumed), Verdict::Same);
    let wider = definition(&[OLD[0], OLD[1], (3, "n", "character varying(50)")]);
    assert_eq!(verdict(&wider), Verdict::Same);
}

#[test]
fn doubt_means_reading() {
    let mut rewritten = definition(&OLD);
    (rewritten.parts.file, rewritten.parts.attributes) = (17000, 9);
    assert_eq!(code(&verdict(&rewritten)), "rewritten");
    // A column that was there for a while, and another one of its name.
    let mut twice = definition(&[OLD[0], OLD[1], OLD[2], (5, "x", "text")]);
    twice.dropped = vec![4];
    assert_eq!(code(&verdict(&twice)), "columns-changed");
    let swapped = definition(&[(1, "id", "integer"), (2, "n", "text"), (3, "body", "character varying(5)")]);
    assert_eq!(code(&verdict(&swapped)), "columns-changed");
    let retyped = definition(&[OLD[0], OLD[1], (3, "n", "text")]);
    assert_eq!(code(&verdict(&retyped)), "columns-changed");
    // Dropped, and made anew under its old name.
    let anew = definition(&[OLD[0], OLD[2], (4, "body", "text")]);
    assert_eq!(code(&verdict(&anew)), "columns-changed");
    let mut keyed = definition(&OLD);
    (keyed.key, keyed.parts.attributes) = (vec!["n".into()], 9);
    assert_eq!(code(&verdict(&keyed)), "key-changed");
    // Another index is the identity, without a word in the columns.
    let identified = Definition { key: vec!["n".into()], ..definition(&OLD) };
    assert_eq!(code(&verdict(&identified)), "key-changed");
    let renamed_key = definition(&[(1, "uid", "integer"), OLD[1], OLD[2]]);
    assert_eq!(code(&verdict(&Definition { key: vec!["uid".into()], ..renamed_key })), "rewrite");
}

#[test]
fn what_the_log_may_have_been_silent_about_means_reading() {
    // Attached and detached again: every column was described anew, and nothing else is left of it.
    let mut detached = definition(&OLD);
    (detached.parts.attributes, detached.parts.since) = (9, 9);
    assert_eq!(code(&verdict(&detached)), "redefined");
    // UNLOGGED and LOGGED again, which a table that is named in the publication can't be.
    let mut unlogged = definition(&OLD);
    unlogged.parts.file = 17000;
    assert_eq!(verdict(&unlogged), Verdict::Same);
    unlogged.is_listed = false;
    assert_eq!(code(&verdict(&unlogged)), "rewritten");
}

#[test]
fn partitions_that_came_empty_change_nothing() {
    let member = |oid, filled| Member { oid, stamp: format!("{oid}:1"), filled };
    let verdict = |members: Vec<Member>, known: &[Member]| {
        let mut new = definition(&OLD);
        new.parts.members = 99;
        new.members = Arc::new(members);
        verdict_by(&Rules::default(), &new, known)
    };
    let known = [member(1, true)];
    assert_eq!(verdict(vec![member(1, true), member(2, false)], &known), Verdict::Same);
    assert_eq!(code(&verdict(vec![member(1, true), member(2, true)], &known)), "partitions-changed");
    assert_eq!(code(&verdict(Vec::new(), &known)), "partitions-changed");
}

#[test]
fn other_rules_mean_reading_because_what_was_stored_may_be_hidden_now() {
    let rules = Rules { redact_columns: vec!["public.t.n".into()], ..Rules::default() };
    let mut new = definition(&OLD);
    new.columns[2].treatment = Treatment::Redact;
    assert_eq!(code(&verdict_by(&rules, &new, &[])), "rules-changed");
}
