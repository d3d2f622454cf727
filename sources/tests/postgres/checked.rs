//! What `cdc check` says beforehand, and that what it tells to run runs and helps.

use cdc_sources::postgres::{Options, check};
use cdc_sources::{Finding, Rules, Severity};
use cdc_test_servers::Postgres;

use crate::model::{Model, open, options, until_now, wait};

/// Everything that can stand in the way of single tables.
const TABLES: &str = "
CREATE TABLE good (id int PRIMARY KEY, n int);
CREATE TABLE keyless (n int);
CREATE TABLE nullable (code text UNIQUE, n int);
CREATE TABLE unlogged_one (id int PRIMARY KEY); ALTER TABLE unlogged_one SET UNLOGGED;
CREATE TABLE secured (id int PRIMARY KEY); ALTER TABLE secured ENABLE ROW LEVEL SECURITY;
CREATE TABLE derived (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED);
CREATE TABLE nothing (id int PRIMARY KEY); ALTER TABLE nothing REPLICA IDENTITY NOTHING;
CREATE SCHEMA other; CREATE TABLE other.hidden (id int PRIMARY KEY);
CREATE TABLE other.good (id int PRIMARY KEY);
CREATE TABLE \"odd name\" (id int PRIMARY KEY);
CREATE ROLE follower LOGIN PASSWORD 'word'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO follower;
INSERT INTO good VALUES (1, 1); INSERT INTO keyless VALUES (1), (1); INSERT INTO nullable VALUES ('a', 1);
";

fn follower(server: &Postgres) -> Options {
    let mut options = options(server, "postgres");
    options.url = format!("postgres://follower:word@127.0.0.1:{}/postgres", server.port());
    options
}

fn of<'f>(findings: &'f [Finding], code: &str) -> Vec<&'f Finding> {
    findings.iter().filter(|finding| finding.code == code && finding.severity != Severity::Good).collect()
}

#[test]
fn everything_that_stands_in_the_way_is_told_and_what_it_says_to_run_helps() {
    for version in Postgres::available_versions() {
        let server = Postgres::with_version(version, &[("max_prepared_transactions", "5")]);
        server.psql("postgres", TABLES);
        wait(async {
            let options = follower(&server);
            let findings = check(options.clone()).await;
            for (code, table) in [
                ("no-key", "keyless"),
                ("no-key", "nullable"),
                ("unlogged", "unlogged_one"),
                ("row-security", "secured"),
                ("generated-columns", "derived"),
                ("replica-identity", "nothing"),
                ("privileges", "hidden"),
                ("table-refused", "odd name"),
            ] {
                let told = of(&findings, code);
                assert!(
                    told.iter().any(|finding| finding.message.contains(table) && finding.severity == Severity::Warning),
                    "{version}: {code} of {table} in {findings:#?}"
                );
            }
            // Nobody asked for those; the role and the publication are in the way of all.
            let missing: Vec<&str> = (findings.iter())
                .filter(|finding| finding.severity == Severity::Missing)
                .map(|finding| finding.code)
                .collect();
            assert_eq!(missing, ["replication", "publication"], "{version}");
            // Whoever runs what it says gets somewhere: what one mends another may show.
            let mut rounds = 0;
            loop {
                let findings = check(options.clone()).await;
                let remedies: Vec<&String> = findings.iter().filter_map(|finding| finding.remedy.as_ref()).collect();
                if remedies.is_empty() {
                    assert!(findings.iter().all(|finding| finding.severity != Severity::Missing), "{findings:#?}");
                    break;
                }
                rounds += 1;
                assert!(rounds < 5, "{version}: {findings:#?}");
                for remedy in remedies {
                    server.psql("postgres", remedy);
                }
            }
            // And it agrees with what a feed does then.
            let rules = Rules { exclude: vec!["public.odd name".into()], ..Rules::default() };
            let options = Options { rules, create_publication: false, ..options };
            let mut model = Model::default();
            let mut feed = open(&options, &model).await.unwrap();
            until_now_published(&mut feed, &mut model, &server).await;
            for table in ["public.keyless", "public.nullable", "public.unlogged_one", "other.hidden", "public.nothing"]
            {
                assert!(model.equals(&server, "postgres", table), "{version}: {table}");
            }
        });
    }
}

/// The publication is not ours, so the mark has to be added to it.
async fn until_now_published(feed: &mut cdc_sources::postgres::Feed, model: &mut Model, server: &Postgres) {
    server.psql(
        "postgres",
        "CREATE TABLE mark (id serial PRIMARY KEY); GRANT SELECT ON mark TO follower; \
         ALTER PUBLICATION cdc ADD TABLE mark",
    );
    until_now(feed, model, server, "postgres").await;
}

#[test]
fn a_table_that_was_asked_for_by_its_name_is_missing() {
    let server = Postgres::start();
    server.psql("postgres", TABLES);
    wait(async {
        let mut options = options(&server, "postgres");
        options.rules.include = vec!["public.keyless".into(), "public.good".into()];
        let told = check(options.clone()).await;
        assert_eq!(of(&told, "no-key")[0].severity, Severity::Missing);
        // Two tables under one name.
        options.rules = Rules { name: "{relation}".into(), ..Rules::default() };
        let told = check(options).await;
        assert!(
            of(&told, "table-refused").iter().any(|finding| finding.message.contains("both be captured as `good`"))
        );
    });
}

#[test]
fn a_publication_of_somebody_else_is_told_of_with_what_it_leaves_out() {
    let server = Postgres::start();
    server.psql(
        "postgres",
        "CREATE TABLE listed (id int PRIMARY KEY, a int, b int); CREATE TABLE filtered (id int PRIMARY KEY); \
         CREATE TABLE absent (id int PRIMARY KEY); \
         CREATE PUBLICATION cdc FOR TABLE listed (id, a), filtered WHERE (id > 5)",
    );
    wait(async {
        let told = check(options(&server, "postgres")).await;
        assert!(of(&told, "column-list")[0].message.ends_with("\"listed\": b"), "{told:#?}");
        assert!(of(&told, "row-filter")[0].message.contains("\"filtered\""));
        let absent: Vec<_> = of(&told, "publication");
        assert!(absent.iter().any(|finding| finding.message.contains("\"absent\"")), "{told:#?}");
        assert!(told.iter().all(|finding| finding.severity != Severity::Missing), "{told:#?}");
    });
}

#[test]
fn slots_and_servers_are_told_of_that_will_need_a_repair() {
    let Some(version) = Postgres::available_versions().into_iter().find(|version| *version >= 18) else { return };
    let settings = [("max_prepared_transactions", "5"), ("idle_replication_slot_timeout", "1d")];
    let server = Postgres::with_version(version, &settings);
    server
        .psql("postgres", "CREATE DATABASE bytes ENCODING 'SQL_ASCII' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'");
    server.psql("postgres", "SELECT pg_create_physical_replication_slot('standby')");
    server.psql("bytes", "CREATE TABLE t (id int PRIMARY KEY)");
    server.psql("bytes", "SELECT pg_create_logical_replication_slot('cdc', 'pgoutput', false, true)");
    wait(async {
        let told = check(options(&server, "bytes")).await;
        for code in ["encoding", "idle-timeout", "failover", "two-phase"] {
            assert_eq!(of(&told, code).len(), 1, "{code} in {told:#?}");
        }
        server.psql("bytes", of(&told, "failover")[0].remedy.as_ref().unwrap());
        server.psql("bytes", "SELECT pg_drop_replication_slot('cdc')");
        server.psql("bytes", "SELECT pg_create_logical_replication_slot('cdc', 'pgoutput')");
        let told = check(options(&server, "bytes")).await;
        let failover = of(&told, "failover");
        assert!(failover.len() == 1 && failover[0].message.contains("do not bring the slot"), "{told:#?}");
        assert!(told.iter().all(|finding| finding.severity != Severity::Missing), "{told:#?}");
    });
}
