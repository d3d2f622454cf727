//! What values look like, and what the rules hide.

use std::sync::Arc;

use cdc_sources::mysql::Options;
use cdc_sources::{Rules, Step};

use crate::model::{Run, options, server};

const TYPES: &str = include_str!("types.sql");

fn golden(name: &str, text: &str) {
    let path = format!("{}/../tests/golden/sources/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("CDC_UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(std::path::Path::new(&path).parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, kept, "{name} is not as it was; run with CDC_UPDATE_GOLDEN=1 if it should be");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_is_written_the_same_from_the_log_and_from_the_table() {
    let server = server(TYPES);
    let options = options(&server);
    let mut run = Run::open(&options).await;
    run.until_following().await;
    let read = run.rows("d.types");
    // The same rows once more, now through the log.
    server.sql("d", "UPDATE types SET id = id + 100; UPDATE types SET id = id - 100");
    run.until("the rows in the log", |model| {
        let rows = model.tables.get("d.types");
        model.changes >= read.len() * 4 && rows.is_some_and(|rows| rows.len() == read.len())
    })
    .await;
    assert_eq!(run.rows("d.types"), read);
    let types: Vec<String> = {
        let mut again = Run::open(&Options { server_id: Some(9), ..options.clone() }).await;
        let mut described = None;
        while described.is_none() {
            let portion = again.next().await.unwrap();
            described = portion.steps.iter().find_map(|step| match step {
                Step::Describe(table) if table.relation == "types" => Some(Arc::clone(table)),
                _ => None,
            });
        }
        let table = described.unwrap();
        let line = |column: &cdc_sources::Column| {
            format!("{}\t{}\t{:?}\t{}", column.name, column.native_type, column.kind, column.nullable)
        };
        table.columns.iter().map(line).collect()
    };
    let images: Vec<String> = read.values().map(|image| image.replace(",\"", ",\n\"")).collect();
    golden("mysql-types.txt", &format!("{}\n\n{}\n", types.join("\n"), images.join("\n")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_rules_hide_leaves_the_feed_in_neither_way() {
    let server = server(
        "CREATE TABLE t (id INT PRIMARY KEY, mail VARCHAR(50), note TEXT, secret BLOB, plain INT);
         INSERT INTO t VALUES (1, 'a@b', 'private', 'top', 5), (2, NULL, NULL, NULL, NULL);
         CREATE TABLE users (mail VARCHAR(50) PRIMARY KEY); INSERT INTO users VALUES ('a@b'), ('c@d');
         CREATE TABLE tmp_x (id INT PRIMARY KEY)",
    );
    let rules = Rules {
        include: vec!["d.*".into()],
        exclude: vec!["d.tmp_*".into()],
        exclude_columns: vec!["*.secret".into()],
        hash_columns: vec!["*.mail".into()],
        redact_columns: vec!["d.t.note".into()],
        salt: "s".into(),
        name: "{relation}".into(),
        append_only: Vec::new(),
    };
    let options = Options { rules: rules.clone(), ..options(&server) };
    let mut run = Run::open(&options).await;
    run.until_following().await;
    server.sql("d", "INSERT INTO t VALUES (3, 'a@b', 'private', 'top', 5); INSERT INTO tmp_x VALUES (1); INSERT INTO users VALUES ('e@f')");
    run.until("the rows", |model| model.tables["users"].len() == 3).await;
    let hash = rules.hash("a@b");
    let rows = run.rows("t");
    let expected = |id| format!(r#"{{"id":{id},"mail":"{hash}","note":"[redacted]","plain":5}}"#);
    assert_eq!(rows[&vec!["1".to_owned()]], expected(1));
    assert_eq!(rows[&vec!["3".to_owned()]], expected(3));
    assert_eq!(rows[&vec!["2".to_owned()]], r#"{"id":2,"mail":null,"note":null,"plain":null}"#);
    assert!(run.rows("users").contains_key(&vec![hash]));
    assert!(!run.model.tables.contains_key("tmp_x"));
    let everything = format!("{:?} {:?}", run.model, run.checkpoint);
    for hidden in ["a@b", "e@f", "private", "dG9w", "top"] {
        assert!(!everything.contains(hidden), "{hidden}");
    }
}
