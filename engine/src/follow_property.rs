//! Random logs of a database against a model that decides one change after another, however they are cut into portions.

#![allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]

use std::collections::BTreeMap;

use proptest::prelude::*;
#[cfg(target_family = "wasm")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;
use crate::event::ColumnType;
use crate::memory::MemoryStore;
use crate::oracle;
use crate::oracle::portable::list;

/// What the table looks like, one time or another: its columns behind the key.
const SHAPES: [&[&str]; 3] = [&["a", "b"], &["b", "a", "c"], &["c"]];

/// A step of the database's log.
#[derive(Clone, Debug)]
enum Step {
    /// The table looks otherwise from here on.
    Shape(usize),
    /// A row is written: the value of all its columns, which of them the log leaves out, and whether it tells the row
    /// before.
    Write {
        key: u8,
        value: u8,
        unchanged: u8,
        told: bool,
    },
    /// The same under a new key.
    Move {
        from: u8,
        to: u8,
        value: u8,
        unchanged: u8,
        told: bool,
    },
    Remove {
        key: u8,
        told: bool,
    },
    Read {
        key: u8,
        value: u8,
    },
    Truncate,
}

/// A row: its members in order.
type Row = Vec<(String, String)>;

fn text(row: &Row) -> String {
    let members: Vec<String> = row.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", members.join(","))
}

fn row(shape: usize, key: u8, value: &str, leave_out: u8) -> Row {
    let columns = SHAPES[shape].iter().enumerate().filter(|(place, _)| leave_out & (1 << place) == 0);
    let rest = columns.map(|(_, name)| ((*name).to_owned(), value.to_owned()));
    std::iter::once(("id".to_owned(), key.to_string())).chain(rest).collect()
}

/// An event, for comparing: operation, key, before, after, unavailable, schema version, whether it is of a snapshot.
type Seen = (Operation, String, Option<String>, Option<String>, Vec<String>, u32, bool);

/// What is known, and what events that has become.
#[derive(Default)]
struct Model {
    rows: BTreeMap<u8, Row>,
    /// The shape that the newest version describes.
    described: Option<usize>,
    version: u32,
    events: Vec<Seen>,
}

impl Model {
    fn describe(&mut self, shape: usize) {
        if self.described != Some(shape) {
            self.described = Some(shape);
            self.version += 1;
        }
    }

    fn event(&mut self, operation: Operation, key: u8, images: [Option<&Row>; 2], unavailable: Vec<String>) {
        let [before, after] = images.map(|image| image.map(text));
        self.events.push((operation, key.to_string(), before, after, unavailable, self.version, false));
    }

    /// The row that was, as far as that is known.
    fn before(&self, shape: usize, key: u8, told: bool) -> Option<Row> {
        self.rows.get(&key).cloned().or_else(|| told.then(|| row(shape, key, "\"told\"", 0)))
    }

    fn write(&mut self, shape: usize, key: u8, value: u8, unchanged: u8, was: Option<&Row>, before: Option<Row>) {
        let given = row(shape, key, &value.to_string(), unchanged);
        let (mut after, mut unavailable) = (Row::new(), Vec::new());
        for name in std::iter::once("id").chain(SHAPES[shape].iter().copied()) {
            let is_it = |(member, _): &&(String, String)| member == name;
            match given.iter().find(is_it).or_else(|| was.and_then(|was| was.iter().find(is_it))) {
                Some(member) => after.push(member.clone()),
                None => unavailable.push(name.to_owned()),
            }
        }
        let operation = if before.is_some() { Operation::Update } else { Operation::Insert };
        self.event(operation, key, [before.as_ref(), Some(&after)], unavailable);
        self.rows.insert(key, after);
    }

    fn remove(&mut self, shape: usize, key: u8, told: bool) -> Option<Row> {
        let known = self.before(shape, key, told);
        let before = known.clone().unwrap_or_else(|| vec![("id".to_owned(), key.to_string())]);
        self.event(Operation::Delete, key, [Some(&before), None], Vec::new());
        self.rows.remove(&key);
        known
    }

    fn follow(&mut self, shape: usize, step: &Step) {
        if let Step::Shape(_) = step {
            return;
        }
        self.describe(shape);
        match *step {
            Step::Shape(_) => {}
            Step::Write { key, value, unchanged, told } => {
                let before = self.before(shape, key, told);
                // What the log told fills in what the stored row lacks.
                let mut was = before.clone().unwrap_or_default();
                was.extend(if told { row(shape, key, "\"told\"", 0) } else { Row::new() });
                self.write(shape, key, value, unchanged, Some(&was), before);
            }
            Step::Move { from, to, value, unchanged, told } => {
                let was = self.remove(shape, from, told);
                let before = self.rows.get(&to).cloned();
                self.write(shape, to, value, unchanged, was.as_ref(), before);
            }
            Step::Remove { key, told } => drop(self.remove(shape, key, told)),
            Step::Read { key, value } => {
                let read = row(shape, key, &value.to_string(), 0);
                if self.rows.get(&key) != Some(&read) {
                    let before = self.rows.get(&key).cloned();
                    self.write(shape, key, value, 0, None, before);
                    self.events.last_mut().unwrap().6 = true;
                }
            }
            Step::Truncate => {
                self.events.push((Operation::Truncate, String::new(), None, None, Vec::new(), self.version, false));
                self.rows.clear();
            }
        }
    }
}

fn described(shape: usize) -> Described {
    let column = |name: &str| Column {
        name: name.to_owned(),
        column_type: if name == "id" { ColumnType::Number } else { ColumnType::Any },
        nullable: name != "id",
        native_type: None,
    };
    let word = |word: &str| word.to_owned();
    Described {
        name: word("t"),
        columns: std::iter::once("id").chain(SHAPES[shape].iter().copied()).map(column).collect(),
        primary_key: vec![word("id")],
        relation: Relation {
            source: word("s"),
            connector: word("mariadb"),
            database: word("d"),
            namespace: word("d"),
            name: word("t"),
        },
    }
}

/// The steps as a portion. `shape` is the one that they begin with.
fn portion(steps: &[Step], mut shape: usize, checkpoint: usize) -> Portion {
    let mut portion = Portion {
        source: "s".to_owned(),
        tables: SHAPES.iter().enumerate().map(|(shape, _)| described(shape)).collect(),
        checkpoint: Some(checkpoint.to_string()),
        ..Portion::default()
    };
    for step in steps {
        let mut push = |action: Action, key: Option<u8>, image: Option<Row>, told: bool, detail: Option<Detail>| {
            let key = key.map_or_else(String::new, |key| key.to_string());
            let before = told.then(|| row(shape, key.parse().unwrap(), "\"told\"", 0));
            let detail = detail.map(|detail| {
                portion.details.push(detail);
                portion.details.len() as u32 - 1
            });
            portion.changes.push(Change {
                table: shape as u32,
                action,
                key: portion.texts.push(&key),
                image: image.map(|image| portion.texts.push(&text(&image))),
                before: before.map(|before| portion.texts.push(&text(&before))),
                transaction: None,
                position: None,
                detail,
            });
        };
        let places = |unchanged: u8| {
            let columns = 0..SHAPES[shape].len() as u32;
            columns.filter(|place| unchanged & (1 << place) != 0).map(|place| place + 1).collect::<Vec<_>>()
        };
        match *step {
            Step::Shape(new) => shape = new,
            Step::Write { key, value, unchanged, told } => {
                let image = row(shape, key, &value.to_string(), unchanged);
                let detail = Detail { unchanged: places(unchanged), previous_key: None };
                push(Action::Replace, Some(key), Some(image), told, Some(detail));
            }
            Step::Move { from, to, value, unchanged, told } => {
                push(Action::Remove, Some(from), None, told, None);
                let image = row(shape, to, &value.to_string(), unchanged);
                push(Action::Replace, Some(to), Some(image), false, None);
                let previous_key = Some(portion.texts.push(&from.to_string()));
                portion.details.push(Detail { unchanged: places(unchanged), previous_key });
                portion.changes.last_mut().unwrap().detail = Some(portion.details.len() as u32 - 1);
            }
            Step::Remove { key, told } => push(Action::Remove, Some(key), None, told, None),
            Step::Read { key, value } => {
                push(Action::Read, Some(key), Some(row(shape, key, &value.to_string(), 0)), false, None);
            }
            Step::Truncate => push(Action::Truncate, None, None, false, None),
        }
    }
    portion
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = 1..5u8;
    // Mostly nothing is left out.
    let unchanged = prop_oneof![2 => Just(0u8), 1 => 0..8u8];
    let write = (key.clone(), 0..3u8, unchanged.clone(), prop::bool::weighted(0.2))
        .prop_map(|(key, value, unchanged, told)| Step::Write { key, value, unchanged, told });
    let moved = (key.clone(), 1..4u8, 0..3u8, unchanged, prop::bool::weighted(0.2)).prop_map(
        |(from, by, value, unchanged, told)| Step::Move { from, to: (from - 1 + by) % 4 + 1, value, unchanged, told },
    );
    let step = prop_oneof![
        6 => write,
        2 => moved,
        2 => (key.clone(), prop::bool::weighted(0.2)).prop_map(|(key, told)| Step::Remove { key, told }),
        4 => (key, 0..3u8).prop_map(|(key, value)| Step::Read { key, value }),
        1 => Just(Step::Truncate),
        1 => (0..SHAPES.len() as u32).prop_map(|shape| Step::Shape(shape as usize)),
    ];
    list(step, 1..=59)
}

#[test]
fn every_platform_draws_the_same_steps() {
    assert_eq!(crate::draws::digest(steps(), 400), 0x11ff_a0ee_7f71_d573);
}

proptest! {
    #![proptest_config(oracle::config(400))]

    #[test]
    fn a_log_becomes_the_events_of_the_model_however_it_is_cut(
        steps in steps(),
        cuts in list(1..12_u32, 60..=60),
        is_new_instance in list(prop::bool::weighted(0.3), 60..=60),
    ) {
        let (mut model, mut shape) = (Model::default(), 0);
        for step in &steps {
            if let Step::Shape(new) = step {
                shape = *new;
            }
            model.follow(shape, step);
        }

        let store = MemoryStore::default();
        let mut capture = Capture::default();
        let (mut rest, mut shape) = (&steps[..], 0);
        for (number, (cut, is_new_instance)) in cuts.iter().zip(is_new_instance).enumerate() {
            let (now, later) = rest.split_at(rest.len().min(*cut as usize));
            if is_new_instance {
                capture = Capture::default();
            }
            let before = store.state().events.len();
            let followed = capture.follow(&store, number as u64, portion(now, shape, number)).unwrap();
            let events = store.state().events.len() - before;
            prop_assert_eq!((followed.first, followed.events as usize), (before as u64 + 1, events));
            prop_assert_eq!(&store.state().positions["s"], &number.to_string());
            for step in now {
                if let Step::Shape(new) = step {
                    shape = *new;
                }
            }
            rest = later;
        }
        // Cuts may be short: what is left comes as one.
        capture.follow(&store, 100, portion(rest, shape, 100)).unwrap();

        let seen = |event: &crate::event::Event| {
            let origin = event.origin.clone().unwrap();
            let unavailable = origin.unavailable.as_deref().map_or_else(Vec::new, image::strings);
            let (before, after) = (event.before.clone(), event.after.clone());
            (event.operation, event.key.clone(), before, after, unavailable, event.schema_version, origin.snapshot)
        };
        let state = store.state();
        prop_assert_eq!(state.events.iter().map(seen).collect::<Vec<_>>(), model.events);
        let rows: Vec<_> = state.rows.iter().map(|((_, key), image)| (key.clone(), image.clone())).collect();
        let known: Vec<_> = model.rows.iter().map(|(key, row)| (key.to_string(), text(row))).collect();
        prop_assert_eq!(rows, known);
    }
}
