//! Real data: the languages and the subdivisions of countries of Debian's `iso-codes`, loaded in bulk, then changed
//! twenty thousand times over several connections, and held against a plain oracle in memory.

use std::collections::BTreeMap;
use std::fs;
use std::thread;

use cdc_tests::captured::{Tables, read_log, read_replica, read_snapshot};
use cdc_tests::harness::{Launch, Server, until};
use cdc_tests::http::Request;
use cdc_tests::json::{Members, elements};
use cdc_tests::random::Random;

const CHANGES: usize = 20_000;
const WRITERS: usize = 8;

/// One table of the package: its rows' texts by key.
struct Source {
    table: &'static str,
    key: &'static str,
    rows: Vec<(String, Members)>,
}

impl Source {
    fn read(name: &str, table: &'static str, key: &'static str) -> Source {
        let file = format!("/usr/share/iso-codes/json/iso_{name}.json");
        let text =
            fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}; install the package iso-codes"));
        let document = Members::of(&text);
        let rows = elements(document.text(name))
            .iter()
            .map(|row| Members::of(row))
            .map(|row| (row.string(key), row))
            .collect();
        Source { table, key, rows }
    }

    fn declaration(&self) -> String {
        format!(r#"{{"columns":[{{"name":"{0}","type":"string","nullable":false}}],"primaryKey":["{0}"]}}"#, self.key)
    }
}

/// Images by key, by table: what the rows must be.
type Oracle = BTreeMap<&'static str, BTreeMap<String, Members>>;

#[test]
fn thirteen_thousand_real_rows_and_twenty_thousand_changes_agree_with_an_oracle() {
    let sources = [Source::read("639-3", "languages", "alpha_3"), Source::read("3166-2", "subdivisions", "code")];
    let total: usize = sources.iter().map(|source| source.rows.len()).sum();
    assert!(total > 12_000, "the package has shrunk: {total} rows");
    let server = Launch::new().options("--retention-events 1000000").start();
    let mut oracle = Oracle::new();
    for source in &sources {
        server.put(&format!("/schema/{}", source.table), &source.declaration()).expect(200);
        load(&server, source);
        oracle.insert(source.table, source.rows.iter().cloned().collect());
    }
    assert_eq!(server.current_sequence(), total as u64);
    assert_agrees(&server, &oracle);

    let changed = change(&server, &sources, oracle);
    assert_eq!(server.current_sequence(), (total + CHANGES) as u64);
    assert_agrees(&server, &changed);
    let server = server.kill().start();
    assert_agrees(&server, &changed);
    server.stop().data().verify().expect_success();
}

/// Languages go in as lines, subdivisions as arrays.
fn load(server: &Server, source: &Source) {
    let target = format!("/data/{}", source.table);
    let texts: Vec<String> = source.rows.iter().map(|(_, row)| row.to_string()).collect();
    let requests: Vec<Request> = if source.table == "languages" {
        vec![Request::new("POST", &target).body("application/x-ndjson", texts.join("\n"))]
    } else {
        texts.chunks(1_000).map(|part| Request::post(&target, format!("[{}]", part.join(",")))).collect()
    };
    for request in requests {
        let answer = server.send(&request).expect(200);
        assert_eq!(answer.json()["success"], true);
    }
}

/// Every writer owns every eighth row, so that each row's changes have one order; what it expects it answers.
fn change(server: &Server, sources: &[Source], oracle: Oracle) -> Oracle {
    let mut shares: Vec<Vec<(&'static str, String, Option<Members>)>> = vec![Vec::new(); WRITERS];
    let rows = sources.iter().flat_map(|source| source.rows.iter().map(|(key, row)| (source.table, key, row)));
    for (index, (table, key, row)) in rows.enumerate() {
        shares[index % WRITERS].push((table, key.clone(), Some(row.clone())));
    }
    let mut changed = oracle;
    thread::scope(|scope| {
        let writers: Vec<_> = shares
            .into_iter()
            .enumerate()
            .map(|(number, share)| scope.spawn(move || change_share(server, number as u64, share)))
            .collect();
        for writer in writers {
            for (table, key, row) in writer.join().unwrap() {
                let rows = changed.get_mut(table).unwrap();
                match row {
                    Some(row) => drop(rows.insert(key, row)),
                    None => drop(rows.remove(&key)),
                }
            }
        }
    });
    changed
}

type Share = Vec<(&'static str, String, Option<Members>)>;

fn change_share(server: &Server, seed: u64, mut share: Share) -> Share {
    let mut random = Random::seeded(seed);
    let mut connection = server.connect();
    let mut done = 0;
    while done < CHANGES / WRITERS {
        let index = random.below(share.len() as u64) as usize;
        let (table, key, row) = &mut share[index];
        let target = format!("/data/{table}/{key}");
        let Some(image) = row else {
            // A row that was deleted stays so, and asking again says so and captures nothing.
            connection.exchange(&Request::delete(&target)).unwrap().expect_problem(404, "unknown-row");
            continue;
        };
        let answer = if random.below(4) == 0 {
            let answer = connection.exchange(&Request::delete(&target)).unwrap().expect(200);
            *row = None;
            answer
        } else {
            let update = update(&mut random, done);
            image.merge(&Members::of(&update));
            connection.exchange(&Request::put(&target, update)).unwrap().expect(200)
        };
        assert_eq!(answer.json()["success"], true);
        done += 1;
    }
    share
}

fn update(random: &mut Random, number: usize) -> String {
    let names = ["Ελληνικά", "中文", "العربية", "ʻŌlelo Hawaiʻi", "😀 quote \\\" and \\u00e9"];
    match random.below(4) {
        0 => format!(r#"{{"name":"{}"}}"#, random.pick(&names)),
        1 => format!(r#"{{"checked":{number},"weight":{}.{:03}0}}"#, random.below(1_000), random.below(1_000)),
        2 => format!(r#"{{"tags":["{}",null,{{"n":{number}}}],"type":null}}"#, random.pick(&names)),
        _ => "{}".into(),
    }
}

/// Snapshot, replica, the service's own replay and the test's replay of the events all say what the oracle says.
#[track_caller]
fn assert_agrees(server: &Server, oracle: &Oracle) {
    let log = read_log(server, 0);
    let mut folded = Tables::default();
    folded.apply(&log, |table| if table == "languages" { "alpha_3" } else { "code" });
    for (table, rows) in oracle {
        let expected: Vec<String> = rows.values().map(ToString::to_string).collect();
        assert!(folded.images(table) == expected, "the events of {table} do not add up to its rows");
        let (rows, sequence) = read_snapshot(server, &format!("/snapshot/{table}"));
        assert_eq!(sequence, log.len() as u64);
        assert!(rows == expected, "the snapshot of {table} is not what was written");
        until("the replica to be what was written", || {
            let ready = server.get(&format!("/replica/{table}")).status == 200;
            (ready && read_replica(server, table) == expected).then_some(())
        });
    }
    let replay = server.post("/replay", "").expect(200).json();
    assert_eq!((&replay["success"], &replay["equal"]), (&true.into(), &true.into()), "{replay}");
}
