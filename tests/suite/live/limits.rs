//! Readers that are too many, too slow or too late, and the end of the service.

use std::thread;
use std::time::{Duration, Instant};

use cdc_tests::harness::{Launch, Server, until};
use cdc_tests::http::Request;

use super::client::{Socket, Stream, handshake, insert, insert_large, metric};

/// More than the sockets of both sides take in: what is left waits in the service.
const LARGE: std::ops::Range<u64> = 0..40;
const LARGE_BYTES: usize = 1_000_000;

fn ended(server: &Server, reason: &str) -> u64 {
    metric(server, &format!("cdc_streams_ended_total{{reason=\"{reason}\"}}"))
}

#[test]
fn as_many_streams_as_may_be_are_open_and_no_more() {
    let server = Launch::new().options("--max-streams 3").start();
    let mut open: Vec<Stream> = (0..2).map(|_| Stream::from_now(&server)).collect();
    let _socket = Socket::open(&server, "/events/ws");
    let refused = server.get("/events/stream");
    refused.expect_problem(503, "too-many-streams");
    assert!(refused.header("retry-after").is_some());
    server.send(&handshake("/events/ws")).expect_problem(503, "too-many-streams");
    assert_eq!(metric(&server, "cdc_streams_open{kind=\"sse\"}"), 2);
    assert_eq!(metric(&server, "cdc_streams_open{kind=\"websocket\"}"), 1);
    // Whoever is in stays in, and whoever leaves makes room.
    open.remove(0);
    let mut again = until("a place to be free", || {
        (metric(&server, "cdc_streams_open{kind=\"sse\"}") == 1).then(|| Stream::from_now(&server))
    });
    insert(&server, "t", 0..2);
    assert_eq!(again.sequences(2), [1, 2]);
    assert_eq!(open[0].sequences(2), [1, 2]);
}

#[test]
fn a_reader_that_takes_nothing_is_cut_off_while_others_go_on() {
    let server = Launch::new().options("--stream-stall-timeout-ms 500 --max-body-bytes 2MiB").start();
    let mut stuck = Stream::from_now(&server);
    let mut stuck_socket = Socket::open(&server, "/events/ws");
    let mut good = Stream::from_now(&server);
    let count = (LARGE.end - LARGE.start) as usize;
    thread::scope(|scope| {
        let reading = scope.spawn(|| good.sequences(count));
        insert_large(&server, LARGE, LARGE_BYTES);
        assert_eq!(reading.join().unwrap(), (1..=count as u64).collect::<Vec<_>>());
    });
    until("both to be cut off", || (ended(&server, "slow") == 2).then_some(()));
    assert!(server.log().contains("took nothing for too long"), "{}", server.log());
    assert_eq!(metric(&server, "cdc_streams_open{kind=\"sse\"}"), 1);
    // What they were sent before is all they get, and the stream does not look whole.
    let mut last = 0;
    let cut = loop {
        match stuck.next() {
            Ok(Some(message)) => last = message.id.unwrap_or(last),
            Ok(None) => panic!("an end that looks like one"),
            Err(error) => break error,
        }
    };
    assert!(last < count as u64, "{last} {cut}");
    assert!(thread::spawn(move || stuck_socket.close()).join().is_err(), "there was no room for a close frame");
    // Connected again it goes on there, and misses nothing.
    let (mut again, _) =
        Stream::open(&server, Request::get("/events/stream").header("last-event-id", &last.to_string()));
    assert_eq!(again.sequences(count - last as usize), (last + 1..=count as u64).collect::<Vec<_>>());
}

#[test]
fn readers_that_pause_are_waited_for_and_read_on_from_the_log() {
    const PAUSED: u64 = 6;
    let server = Launch::new().options("--max-body-bytes 2MiB").start();
    insert_large(&server, LARGE, LARGE_BYTES);
    let count = LARGE.end - LARGE.start;
    let from_the_first = || Stream::open(&server, Request::get("/events/stream?after=0")).0;
    // Once through the log, so that caches are as full as they get.
    assert_eq!(from_the_first().sequences(count as usize), (1..=count).collect::<Vec<_>>());
    let before = server.memory().resident;
    let mut paused: Vec<Stream> = (0..PAUSED).map(|_| from_the_first()).collect();
    let mut socket = Socket::open(&server, "/events/ws?after=0");
    assert_eq!(from_the_first().sequences(count as usize), (1..=count).collect::<Vec<_>>());
    // Each holds an event or two; all that they have not read would be 280 MB.
    let grown = server.memory().resident.saturating_sub(before);
    assert!(grown < 48 << 20, "{grown} bytes more than before");
    assert_eq!(paused[0].sequences(count as usize), (1..=count).collect::<Vec<_>>());
    assert_eq!(socket.sequences(count as usize), (1..=count).collect::<Vec<_>>());
}

#[test]
fn a_reader_that_retention_overtakes_is_told_so() {
    let server = Launch::new().options("--retention-events 2 --segment-bytes 64KiB --max-body-bytes 2MiB").start();
    let mut late = Stream::from_now(&server);
    let mut late_socket = Socket::open(&server, "/events/ws");
    insert_large(&server, LARGE, LARGE_BYTES);
    until("retention to drop events", || {
        let oldest = server.get("/events?limit=1").expect(200).json()["oldestSequence"].as_u64().unwrap();
        (oldest > LARGE.end - 8).then_some(())
    });
    let mut seen = Vec::new();
    let farewell = loop {
        let message = late.message();
        match (&message.event, message.id) {
            (Some(_), _) => break message,
            (None, Some(id)) if message.data.is_some() => seen.push(id),
            _ => {}
        }
    };
    assert_eq!(seen, (1..=seen.len() as u64).collect::<Vec<_>>(), "no gap, just an end");
    assert_eq!((farewell.event.as_deref(), farewell.id), (Some("error"), None));
    let problem: serde_json::Value = serde_json::from_str(&farewell.data.unwrap()).unwrap();
    assert_eq!((problem["code"].as_str(), problem["status"].as_u64()), (Some("dropped"), Some(410)));
    assert_eq!(late.next().unwrap(), None);
    let (code, reason) = late_socket.close();
    assert_eq!(code, 1008);
    assert!(reason.starts_with("too slow: the oldest event that is kept is "), "{reason}");
    until("both to be counted", || (ended(&server, "dropped") == 2).then_some(()));
}

#[test]
fn streams_end_at_once_when_the_service_stops() {
    let server = Launch::new().options("--drain-timeout-ms 3600000 --max-body-bytes 2MiB").start();
    let mut stream = Stream::from_now(&server);
    let mut socket = Socket::open(&server, "/events/ws");
    // Two that take nothing: nobody waits for them.
    let _stuck = (Stream::from_now(&server), Socket::open(&server, "/events/ws"));
    thread::scope(|scope| {
        let reading = scope.spawn(|| (stream.sequences(40), socket.sequences(40)));
        insert_large(&server, LARGE, LARGE_BYTES);
        reading.join().unwrap();
    });
    let began = Instant::now();
    server.ask_to_stop();
    let last = stream.message();
    assert_eq!((last.comment.as_deref(), last.id), (Some("the service stops"), Some(40)));
    assert_eq!(stream.next().unwrap(), None);
    assert_eq!(socket.close(), (1001, "the service stops".into()));
    socket.send(8, &1001_u16.to_be_bytes());
    assert!(socket.is_ended_by_server());
    let (status, log, _) = server.ended();
    assert!(status.success(), "{status}\n{log}");
    assert!(began.elapsed() < Duration::from_secs(30), "far below what draining may take");
}
