//! The log forgets its oldest events, visibly; rows forget nothing.

use cdc_tests::captured::{Page, read_log, read_snapshot};
use cdc_tests::harness::{Launch, Server, until};

/// Bulk updates of the same thousand rows, each with text that no compression makes small.
fn write_a_thousand(server: &Server, round: u64) {
    let rows: Vec<String> = (0..1_000)
        .map(|id| {
            let noise = cdc_tests::random::scramble(round * 1_000 + id + 1);
            format!(
                r#"{{"id":"{id:04}","round":{round},"noise":"{noise:016x}{:016x}"}}"#,
                noise.rotate_left(17) ^ round
            )
        })
        .collect();
    let answer = server.post("/data/t?upsert=true", &format!("[{}]", rows.join(","))).expect(200);
    let refused = answer.text().find("\"code\"").map(|at| &answer.text()[at..]);
    assert!(answer.text().contains("\"captured\":1000,\"failed\":0"), "{}", refused.unwrap_or(answer.text()));
}

fn oldest(server: &Server) -> u64 {
    server.get("/events?limit=1").expect(200).json()["oldestSequence"].as_u64().unwrap()
}

#[test]
fn the_newest_events_stay_and_asking_for_dropped_ones_is_gone_and_no_gap() {
    let launch = Launch::new().options("--retention-events 5000 --segment-bytes 64KiB");
    let server = launch.start();
    for round in 0..20 {
        write_a_thousand(&server, round);
    }
    // What a subscription has not acknowledged stays a little longer; then it is the five thousand promised.
    let dropped =
        until("retention to drop all that is too old", || Some(oldest(&server)).filter(|oldest| *oldest >= 15_001));
    assert_eq!(dropped, 15_001, "more is gone than was allowed");
    assert_eq!(server.current_sequence(), 20_000);

    let answer = server.get("/events?after=0");
    answer.expect_problem(410, "dropped");
    let said = answer.json()["oldestSequence"].as_u64().unwrap();
    assert!(said >= dropped && said <= 15_001);
    server.get(&format!("/events?after={}", dropped - 2)).expect_problem(410, "dropped");
    let oldest_now = oldest(&server);
    let page = Page::of(server.get(&format!("/events?after={}&limit=1", oldest_now - 1)).expect(200).text());
    assert_eq!((page.sequences(), page.oldest), (vec![oldest_now], oldest_now));
    assert_eq!(read_log(&server, oldest_now - 1).len() as u64, 20_000 - oldest_now + 1);
    // Without `after` the newest are asked for, and they are there.
    assert_eq!(Page::of(server.get("/events?limit=3").expect(200).text()).sequences(), [19_998, 19_999, 20_000]);

    // Rows, statistics and replay do not depend on what is gone.
    let assert_whole = |server: &Server| {
        assert_eq!(read_snapshot(server, "/snapshot/t").0.len(), 1_000);
        let stats = server.get("/stats").expect(200).json();
        assert_eq!(stats["stats"]["totalEvents"], 20_000);
        assert_eq!(stats["stats"]["eventsByOperation"]["INSERT"], 1_000);
        let replay = server.post("/replay", "").expect(200).json();
        assert_eq!(replay["equal"], true, "{replay}");
    };
    assert_whole(&server);
    let server = server.kill().start();
    assert_whole(&server);
    assert!(oldest(&server) >= oldest_now, "a restart brings nothing back");
    server.stop().data().verify().expect_success();
}

#[test]
fn a_log_larger_than_its_bytes_is_cut_to_them() {
    let server =
        Launch::new().options("--retention-events unlimited --retention-bytes 1MiB --segment-bytes 64KiB").start();
    let mut round = 0;
    until("the log to outgrow its bytes", || {
        write_a_thousand(&server, round);
        round += 1;
        (oldest(&server) > 1).then_some(())
    });
    for more in 0..20 {
        write_a_thousand(&server, round + more);
    }
    // What is being written, and the segment prepared for what comes, are beside the limit.
    until("the folder to shrink", || {
        let (apparent, _) = cdc_tests::harness::folder_bytes(&server.data().path().join("log"));
        (apparent < 4 << 20).then_some(())
    });
}

#[test]
fn events_beyond_an_age_go() {
    let server = Launch::new().options("--retention-age 1s --segment-bytes 64KiB").start();
    write_a_thousand(&server, 0);
    let mut round = 1;
    until("the first events to be too old", || {
        write_a_thousand(&server, round);
        round += 1;
        (oldest(&server) > 1).then_some(())
    });
    assert_eq!(server.current_sequence(), round * 1_000);
}

#[test]
fn a_wider_retention_keeps_more_from_then_on() {
    let launch = Launch::new();
    let narrow = launch.clone().options("--retention-events 2000 --segment-bytes 64KiB").start();
    for round in 0..10 {
        write_a_thousand(&narrow, round);
    }
    let oldest_then = until("retention to work", || Some(oldest(&narrow)).filter(|oldest| *oldest > 5_000));
    narrow.stop();
    let wide = launch.options("--retention-events 1000000 --segment-bytes 64KiB").start();
    let oldest_now = oldest(&wide);
    assert!(oldest_now >= oldest_then);
    for round in 10..20 {
        write_a_thousand(&wide, round);
    }
    assert_eq!(oldest(&wide), oldest_now);
}
