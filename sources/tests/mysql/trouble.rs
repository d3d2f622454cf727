//! What goes wrong with servers, logs, connections and users.

use cdc_sources::mysql::{Feed, Options, check};
use cdc_sources::{Remedy, Severity};
use cdc_test_servers::MariaDb;

use crate::model::{Run, options, present, server};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_was_purged_or_replaced_is_told_and_repaired() {
    let server = server("CREATE TABLE t (id INT PRIMARY KEY, v INT); INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)");
    let options = options(&server);
    let mut run = Run::open(&options).await;
    run.until_following().await;
    let (model, checkpoint) = (run.model.clone(), run.checkpoint.clone());
    drop(run);
    server.sql("d", "DELETE FROM t WHERE id = 1; UPDATE t SET v = 20 WHERE id = 2; FLUSH LOGS");
    server.sql("d", "INSERT INTO t VALUES (4, 4); FLUSH LOGS");
    // The server keeps what a replica reads until it has noticed that it is gone.
    while server.sql("d", "PURGE BINARY LOGS BEFORE NOW() + INTERVAL 1 DAY; SHOW BINARY LOGS").lines().count() > 1 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let error = match Feed::open(options.clone(), checkpoint.as_ref()).await {
        Err(error) => error,
        Ok(feed) => Run { feed, model: model.clone(), checkpoint: checkpoint.clone() }.until_error().await,
    };
    assert_eq!((error.remedy, error.code), (Remedy::Repair, "binlog-purged"), "{error:?}");

    let repairing = Options { repair: true, ..options.clone() };
    let mut run = Run::resume(&repairing, model, checkpoint).await;
    run.until("the second reading", |model| model.done.len() == 2).await;
    assert_eq!(run.model.tables, present(&options).await);
    assert_eq!(run.model.began, ["d.t", "d.t"]);

    let (model, checkpoint) = (run.model.clone(), run.checkpoint.clone());
    drop(run);
    server.sql("d", "RESET MASTER; INSERT INTO t VALUES (5, 5)");
    let error = match Feed::open(options.clone(), checkpoint.as_ref()).await {
        Err(error) => error,
        Ok(feed) => Run { feed, model, checkpoint }.until_error().await,
    };
    assert_eq!((error.remedy, error.code), (Remedy::Repair, "server-replaced"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_is_followed_again_without_loss() {
    let server = server("CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, v INT)");
    let options = options(&server);
    let mut run = Run::open(&options).await;
    run.until_following().await;
    for round in 0..3 {
        server.sql("d", "INSERT INTO t (v) SELECT seq FROM seq_1_to_50; UPDATE t SET v = v + 1");
        if round % 2 == 0 {
            run.next().await.unwrap();
        }
        server.kill();
        let error = run.until_error().await;
        assert_eq!(error.remedy, Remedy::Retry, "{error:?}");
        let away = Feed::open(options.clone(), run.checkpoint.as_ref()).await.unwrap_err();
        assert_eq!((away.remedy, away.code), (Remedy::Retry, "connection"), "{away:?}");
        server.start_again();
        run = Run::resume(&options, run.model, run.checkpoint).await;
    }
    server.sql("d", "INSERT INTO t (id, v) VALUES (100000, 1)");
    run.until("the last row", |model| model.tables["d.t"].contains_key(&vec!["100000".to_owned()])).await;
    assert_eq!(run.model.tables, present(&options).await);
    assert_eq!(run.model.changes, 3 * 50 + 50 + 100 + 150 + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_come_from_the_information_schema_where_the_log_has_none() {
    let server = MariaDb::with(&["--binlog-row-metadata=NO_LOG"]);
    server.sql("", "CREATE DATABASE d; CREATE TABLE d.t (id INT UNSIGNED PRIMARY KEY, v VARCHAR(10) CHARACTER SET latin1, e ENUM('a','b'))");
    let options = options(&server);
    let mut run = Run::open(&options).await;
    run.until_following().await;
    server.sql("d", "INSERT INTO t VALUES (4294967295, 'é', 'b')");
    run.until("the row", |model| model.changes == 1).await;
    assert_eq!(run.rows("d.t").values().next().unwrap(), r#"{"id":4294967295,"v":"é","e":"b"}"#);
    // The log has a row of a form that the information schema no longer has: the table is read instead.
    let (model, checkpoint) = (run.model.clone(), run.checkpoint.clone());
    drop(run);
    server.sql("d", "INSERT INTO t VALUES (1, 'x', 'a'); ALTER TABLE t ADD COLUMN more INT FIRST");
    let mut run = Run::resume(&options, model, checkpoint).await;
    run.settle(&server, "d").await;
    run.assert_true(&server, &options).await;
    assert_eq!(run.rows("d.t").len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_left_out_of_the_log_is_told_beforehand() {
    let server = MariaDb::with(&["--binlog-ignore-db=quiet"]);
    server.sql("", "CREATE DATABASE quiet; CREATE TABLE quiet.t (id INT PRIMARY KEY)");
    let finds = async |options: &Options| check(options).await.iter().any(|finding| finding.code == "log-filter");
    let other = options(&server);
    assert!(!finds(&other).await);
    let rules = cdc_sources::Rules { include: vec!["quiet.*".into()], ..cdc_sources::Rules::default() };
    assert!(finds(&Options { rules, ..other }).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_logs_statements_or_parts_of_rows_is_not_followed() {
    let server = server("CREATE TABLE t (id INT PRIMARY KEY, v INT)");
    let options = options(&server);
    for (setting, good, bad, code) in
        [("binlog_format", "ROW", "STATEMENT", "row-format"), ("binlog_row_image", "FULL", "MINIMAL", "row-image")]
    {
        server.sql("", &format!("SET GLOBAL {setting} = '{bad}'"));
        let error = Feed::open(options.clone(), None).await.unwrap_err();
        assert_eq!((error.remedy, error.code), (Remedy::Stop, code), "{error:?}");
        server.sql("", &format!("SET GLOBAL {setting} = '{good}'"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_with_the_least_privileges_may_follow_and_the_check_tells_what_another_lacks() {
    let server = MariaDb::with(&["--binlog-row-metadata=NO_LOG", "--binlog-expire-logs-seconds=3600"]);
    server.sql(
        "",
        "CREATE DATABASE d; CREATE TABLE d.t (id INT PRIMARY KEY, j JSON); INSERT INTO d.t VALUES (1, '[1, 2]');
         CREATE TABLE d.keyless (a INT); CREATE USER cdc@'%' IDENTIFIED BY 'p@ss'",
    );
    let everything = options(&server);
    let url = format!("mysql://cdc:p%40ss@127.0.0.1:{}", server.port());
    let limited = Options { url, ..everything.clone() };
    let missing = |findings: &[cdc_sources::Finding]| -> Vec<(&'static str, String)> {
        let lacking = findings.iter().filter(|finding| finding.severity != Severity::Good);
        lacking.map(|finding| (finding.code, finding.remedy.clone().unwrap_or_default())).collect()
    };
    let findings = missing(&check(&limited).await);
    let codes: Vec<&str> = findings.iter().map(|(code, _)| *code).collect();
    assert_eq!(codes, ["row-metadata", "retention", "privileges", "privileges", "tables"], "{findings:?}");
    let error = Feed::open(limited.clone(), None).await.unwrap_err();
    assert_eq!((error.remedy, error.code), (Remedy::Stop, "privileges"), "{error:?}");
    // Just what it said, and what it may read.
    for (_, sql) in findings.iter().filter(|(code, _)| *code == "privileges") {
        server.sql("", sql);
    }
    server.sql("", "GRANT SELECT ON d.* TO cdc@'%'; SET GLOBAL binlog_row_metadata = 'FULL'");
    let findings = missing(&check(&limited).await);
    assert_eq!(findings.iter().map(|(code, _)| *code).collect::<Vec<_>>(), ["retention", "no-key"], "{findings:?}");
    server.sql("d", &findings[1].1);
    server.sql("", "SET GLOBAL binlog_expire_logs_seconds = 0");
    assert_eq!(missing(&check(&limited).await), []);

    let mut run = Run::open(&limited).await;
    run.until_following().await;
    server.sql("d", "INSERT INTO t VALUES (2, '[1, 2]')");
    run.until("the row", |model| model.tables["d.t"].len() == 2).await;
    assert_eq!(run.rows("d.t").into_values().collect::<Vec<_>>(), [r#"{"id":1,"j":[1,2]}"#, r#"{"id":2,"j":[1,2]}"#]);
    let wrong = Options { url: everything.url.replace("correct", "wrong"), ..everything };
    assert_eq!(check(&wrong).await[0].code, "authentication");
}

/// Writes an authority's certificate, and one that it gives the server with its key.
fn certificates(folder: &std::path::Path) {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    std::fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
    std::fs::write(folder.join("server.pem"), server.pem()).unwrap();
    std::fs::write(folder.join("server.key"), key.serialize_pem()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_is_encrypted_and_the_servers_certificate_verified() {
    let (ours, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    certificates(ours.path());
    certificates(other.path());
    let file = |name: &str| ours.path().join(name).display().to_string();
    let server =
        MariaDb::with(&[&format!("--ssl-cert={}", file("server.pem")), &format!("--ssl-key={}", file("server.key"))]);
    server.sql(
        "",
        "CREATE DATABASE d; CREATE TABLE d.t (id INT PRIMARY KEY); INSERT INTO d.t VALUES (1);
         CREATE USER cdc@'%' IDENTIFIED BY 'p' REQUIRE SSL; GRANT SELECT, REPLICATION SLAVE, BINLOG MONITOR ON *.* TO cdc@'%'",
    );
    let with = |host: &str, parameters: &str| {
        let url = format!("mysql://cdc:p@{host}:{}/?{parameters}", server.port());
        Options { url, ..options(&server) }
    };
    let ca = |folder: &tempfile::TempDir| format!("ssl-ca={}", folder.path().join("ca.pem").display());
    for options in [
        with("localhost", &format!("ssl-mode=verify-identity&{}", ca(&ours))),
        with("127.0.0.1", &format!("ssl-mode=verify-identity&ssl-name=localhost&{}", ca(&ours))),
        with("127.0.0.1", "ssl-mode=required"),
        with("127.0.0.1", ""),
    ] {
        let mut run = Run::open(&options).await;
        run.until_following().await;
        assert_eq!(run.rows("d.t").len(), 1);
    }
    for (options, code) in [
        (with("localhost", &format!("ssl-mode=verify-identity&{}", ca(&other))), "tls"),
        (with("127.0.0.1", &format!("ssl-mode=verify-identity&{}", ca(&ours))), "tls"),
        (with("127.0.0.1", "ssl-mode=disabled"), "authentication"),
    ] {
        let error = Feed::open(options, None).await.unwrap_err();
        assert_eq!((error.remedy, error.code), (Remedy::Stop, code), "{error:?}");
    }
}
