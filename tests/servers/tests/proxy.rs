//! Each fault of the proxy does what it says, for open connections and new ones.
#![allow(clippy::unwrap_used)]

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use cdc_test_servers::Proxy;

/// A server that answers every byte with itself. Returns its port and what it has received, connection by connection, when
/// they end.
fn echo() -> (u16, Receiver<Vec<u8>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (report, reports) = channel();
    thread::spawn(move || {
        for mut stream in listener.incoming().map(Result::unwrap) {
            let report = report.clone();
            thread::spawn(move || {
                let mut received = Vec::new();
                let mut buffer = [0; 1024];
                while let Ok(length) = stream.read(&mut buffer)
                    && length > 0
                {
                    received.extend(&buffer[..length]);
                    if stream.write_all(&buffer[..length]).is_err() {
                        break;
                    }
                }
                let _ = report.send(received);
            });
        }
    });
    (port, reports)
}

fn connect(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream
}

fn exchange(stream: &mut TcpStream, text: &str) -> String {
    stream.write_all(text.as_bytes()).unwrap();
    let mut answer = vec![0; text.len()];
    stream.read_exact(&mut answer).unwrap();
    String::from_utf8(answer).unwrap()
}

/// What still comes until the connection ends, in whatever way.
fn rest(mut stream: TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    if let Err(error) = stream.read_to_end(&mut all) {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    all
}

fn eventually(holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "it does not come true");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn passes_everything_and_counts_connections() {
    let (port, reports) = echo();
    let proxy = Proxy::to(port);
    let (mut one, mut two) = (connect(&proxy), connect(&proxy));
    assert_eq!(exchange(&mut one, "hello"), "hello");
    assert_eq!(exchange(&mut two, "world"), "world");
    assert_eq!((proxy.connections(), proxy.open_connections()), (2, 2));
    let large = "x".repeat(1_000_000);
    let answer = thread::scope(|scope| {
        scope.spawn(|| (&two).write_all(large.as_bytes()).unwrap());
        let mut answer = vec![0; large.len()];
        (&two).read_exact(&mut answer).unwrap();
        answer
    });
    assert_eq!(answer, large.as_bytes());
    // An end is passed on, too.
    drop(one);
    assert_eq!(reports.recv().unwrap(), b"hello");
    eventually(|| proxy.open_connections() == 1);
    assert_eq!(proxy.connections(), 2);
}

#[test]
fn refuses_new_connections_and_cuts_open_ones_until_it_passes_again() {
    let (port, _reports) = echo();
    let proxy = Proxy::to(port);
    let mut open = connect(&proxy);
    assert_eq!(exchange(&mut open, "hello"), "hello");
    for _ in 0..20 {
        proxy.refuse();
        let refused = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        assert_eq!(rest(open), b"");
        proxy.pass();
        open = connect(&proxy);
        assert_eq!(exchange(&mut open, "again"), "again");
    }
    assert_eq!(proxy.connections(), 21);
}

#[test]
fn holds_back_everything_while_it_hangs_and_loses_none_of_it() {
    let (port, _reports) = echo();
    let proxy = Proxy::to(port);
    let mut open = connect(&proxy);
    assert_eq!(exchange(&mut open, "hello"), "hello");
    proxy.hang();
    let mut new = connect(&proxy);
    for stream in [&mut open, &mut new] {
        stream.write_all(b"held").unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let error = stream.read(&mut [0; 8]).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    }
    proxy.pass();
    for stream in [&mut open, &mut new] {
        assert_eq!(exchange(stream, "more"), "held");
    }
}

#[test]
fn a_hanging_connection_can_be_cut() {
    let (port, reports) = echo();
    let proxy = Proxy::to(port);
    let mut open = connect(&proxy);
    assert_eq!(exchange(&mut open, "hello"), "hello");
    proxy.hang();
    open.write_all(b"held").unwrap();
    proxy.cut();
    assert_eq!(rest(open), b"");
    assert_eq!(reports.recv().unwrap(), b"hello");
}

#[test]
fn cuts_each_connection_after_so_many_bytes() {
    let (port, reports) = echo();
    let proxy = Proxy::to(port);
    let mut open = connect(&proxy);
    assert_eq!(exchange(&mut open, "hello"), "hello");
    proxy.cut_after(6);
    // Four there and two back.
    open.write_all(b"four").unwrap();
    assert_eq!(rest(open), b"fo");
    assert_eq!(reports.recv().unwrap(), b"hellofour");

    let mut new = connect(&proxy);
    // Requests are cut in the middle, too.
    new.write_all(b"eleven more").unwrap();
    assert_eq!(rest(new), b"");
    assert_eq!(reports.recv().unwrap(), b"eleven");

    proxy.pass();
    assert_eq!(exchange(&mut connect(&proxy), "all of it"), "all of it");
}

#[test]
fn swallows_answers_to_requests_that_arrive() {
    let (port, reports) = echo();
    let proxy = Proxy::to(port);
    let mut open = connect(&proxy);
    assert_eq!(exchange(&mut open, "hello"), "hello");
    proxy.swallow_answers();
    open.write_all(b"do it").unwrap();
    assert_eq!(rest(open), b"");
    assert_eq!(reports.recv().unwrap(), b"hellodo it");

    let mut new = connect(&proxy);
    new.write_all(b"again").unwrap();
    assert_eq!(rest(new), b"");
    assert_eq!(reports.recv().unwrap(), b"again");

    proxy.pass();
    assert_eq!(exchange(&mut connect(&proxy), "done"), "done");
}

#[test]
fn a_server_that_is_down_ends_connections_at_once() {
    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let proxy = Proxy::to(nobody);
    assert_eq!(rest(connect(&proxy)), b"");
}

#[test]
fn a_dropped_proxy_cuts_everything() {
    let (port, _reports) = echo();
    let proxy = Proxy::to(port);
    let proxy_port = proxy.port();
    let mut open = connect(&proxy);
    assert_eq!(exchange(&mut open, "hello"), "hello");
    drop(proxy);
    assert_eq!(rest(open), b"");
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, proxy_port)).is_err());
}
