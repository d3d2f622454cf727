//! The log: its transactions, their rows and places.

use cdc_sources::mysql::Options;
use cdc_sources::{Action, Feed as _, Step, TableState};

use crate::model::{Run, options, present, server};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_one_statement_are_told_apart_and_belong_together() {
    let server = server("CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(20))");
    let mut run = Run::open(&options(&server)).await;
    run.until_following().await;
    server.sql("d", "INSERT INTO t VALUES (1,'a'),(2,'b'),(3,'c')");
    server.sql(
        "d",
        "UPDATE t SET id = id + 10 WHERE id = 3; UPDATE t SET v = 'x' WHERE id < 3; DELETE FROM t WHERE id = 1",
    );
    let mut changes = Vec::new();
    while changes.len() < 8 {
        let portion = run.next().await.unwrap();
        changes.extend(portion.steps.into_iter().filter_map(|step| match step {
            Step::Change(change) if change.action != Action::Read => Some(change),
            _ => None,
        }));
    }
    let told: Vec<String> = changes
        .iter()
        .map(|change| {
            let position = change.position.as_deref().unwrap();
            let (transaction, place) = position.split_once('/').unwrap();
            assert_eq!(Some(transaction), change.transaction.as_deref());
            assert!(change.committed_at_ms.unwrap() > 1_700_000_000_000);
            let previous = change.previous_key.as_ref().map(|key| key.join(","));
            format!(
                "{:?} {} {place} {} {} {}",
                change.action,
                change.key.join(","),
                change.before.as_deref().unwrap_or("-"),
                change.image.as_deref().unwrap_or("-"),
                previous.as_deref().unwrap_or("-")
            )
        })
        .collect();
    let expected = [
        r#"Replace 1 0 - {"id":1,"v":"a"} -"#,
        r#"Replace 2 1 - {"id":2,"v":"b"} -"#,
        r#"Replace 3 2 - {"id":3,"v":"c"} -"#,
        r#"Remove 3 0.old {"id":3,"v":"c"} - -"#,
        r#"Replace 13 0 - {"id":13,"v":"c"} 3"#,
        r#"Replace 1 0 {"id":1,"v":"a"} {"id":1,"v":"x"} -"#,
        r#"Replace 2 1 {"id":2,"v":"b"} {"id":2,"v":"x"} -"#,
        r#"Remove 1 0 {"id":1,"v":"x"} - -"#,
    ];
    assert_eq!(told, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_transaction_comes_in_portions_and_goes_on_in_its_middle() {
    let server = server(
        "CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(100)); CREATE DATABASE other; CREATE TABLE other.u (id INT)",
    );
    let options = Options { portion_bytes: 20_000, ..options(&server) };
    let mut run = Run::open(&options).await;
    run.until_following().await;
    let sql = "BEGIN; INSERT INTO t SELECT seq, REPEAT('x', 50) FROM seq_1_to_3000; INSERT INTO other.u SELECT seq FROM \
        seq_1_to_500; UPDATE t SET v = 'y' WHERE id % 2; DELETE FROM t WHERE id > 2900; COMMIT";
    server.sql("d", sql);
    // Opened anew after every single portion.
    let mut portions = 0;
    let mut skips = 0;
    while run.model.changes < 3000 + 1500 + 100 {
        let portion = run.next().await.unwrap();
        portions += 1;
        skips += usize::from(portion.checkpoint.0.contains("\nskip "));
        let (model, checkpoint) = (run.model.clone(), run.checkpoint.clone());
        drop(run);
        run = Run::resume(&options, model, checkpoint).await;
    }
    assert!(portions > 20 && skips > 20, "{portions} portions, {skips} in the middle");
    assert_eq!(run.model.changes, 3000 + 1500 + 100);
    assert_eq!(run.model.tables, present(&options).await);
    // What comes after it is whole.
    server.sql("d", "INSERT INTO t VALUES (5000, 'z')");
    run.until("the next row", |model| model.changes == 4601).await;
    assert!(run.model.positions.iter().filter(|position| position.ends_with("/0")).count() == 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn xa_transactions_and_mixed_engines_end_as_the_tables_are() {
    let server = server(
        "CREATE TABLE t (id INT PRIMARY KEY, v INT); CREATE TABLE m (id INT PRIMARY KEY) ENGINE=MyISAM;
         INSERT INTO m VALUES (1); INSERT INTO t VALUES (1, 1)",
    );
    let options = options(&server);
    let mut run = Run::open(&options).await;
    run.until_following().await;
    server.sql(
        "d",
        "XA START 'a'; INSERT INTO t VALUES (2, 2); UPDATE t SET v = 9 WHERE id = 1; XA END 'a'; XA PREPARE 'a'",
    );
    server.sql("d", "INSERT INTO t VALUES (3, 3)");
    run.until("the plain row", |model| model.tables["d.t"].contains_key(&vec!["3".to_owned()])).await;
    assert_eq!(run.rows("d.t").len(), 2, "what is prepared does not count yet");
    let (model, checkpoint) = (run.model, run.checkpoint);
    drop(run.feed);
    let mut run = Run::resume(&options, model, checkpoint).await;
    server.sql("d", "XA COMMIT 'a'");
    run.until("the prepared row", |model| model.tables["d.t"].len() == 3).await;
    server.sql("d", "XA START 'b'; INSERT INTO t VALUES (7, 7); XA END 'b'; XA PREPARE 'b'; XA ROLLBACK 'b'");
    server.sql(
        "d",
        "BEGIN; INSERT INTO t VALUES (8, 8); INSERT INTO m VALUES (8); ROLLBACK; INSERT INTO t VALUES (10, 10)",
    );
    server.sql("d", "CREATE TABLE ctas (PRIMARY KEY (id)) SELECT id FROM t; INSERT INTO m VALUES (11)");
    run.until("the last row", |model| model.tables["d.m"].contains_key(&vec!["11".to_owned()])).await;
    run.until_following().await;
    assert_eq!(run.model.tables, present(&options).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_feed_says_how_far_it_is_and_its_checkpoint_follows_what_is_not_captured() {
    let server = server("CREATE TABLE t (id INT PRIMARY KEY); CREATE DATABASE other; CREATE TABLE other.u (id INT)");
    let options = options(&server);
    let mut run = Run::open(&options).await;
    run.until_following().await;
    server.sql("other", "INSERT INTO u SELECT seq FROM seq_1_to_1000");
    let newest = server.sql("", "SELECT @@gtid_binlog_pos");
    while !run.checkpoint.as_ref().unwrap().0.contains(&format!("seen {newest}\n")) {
        let portion = run.next().await.unwrap();
        assert!(portion.steps.is_empty());
    }
    loop {
        let progress = run.feed.progress();
        if progress.lag_bytes == Some(0) && progress.newest.as_ref().is_some_and(|told| told.contains(&newest)) {
            assert_eq!(progress.tables[0].state, TableState::Following);
            assert!(progress.confirmed.unwrap().starts_with(&newest));
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
