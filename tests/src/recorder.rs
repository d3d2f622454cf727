//! A small HTTP server that remembers what is sent to it: where handlers under test put what they have done.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

/// The server; it ends with the test.
#[derive(Debug)]
pub struct Recorder {
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// One request as it came.
#[derive(Clone, Debug)]
pub struct Exchange {
    pub method: String,
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// When it had come whole.
    pub arrived: Instant,
    /// The lines of the body that are sequence numbers, unless it was led elsewhere.
    sequences: Vec<u64>,
}

impl Exchange {
    /// The value of a header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

#[derive(Debug, Default)]
struct Shared {
    exchanges: Mutex<Vec<Exchange>>,
    is_down: AtomicBool,
}

impl Recorder {
    /// Starts on a free port.
    pub fn start() -> Recorder {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it has an address");
        let shared = Arc::new(Shared::default());
        let serving = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = serving.clone();
                thread::spawn(move || serve(stream, &shared));
            }
        });
        Recorder { address, shared }
    }

    /// `http://127.0.0.1:<port>`.
    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The sequence numbers of each body, in the order in which bodies came.
    pub fn batches(&self) -> Vec<Vec<u64>> {
        let exchanges = self.shared.exchanges.lock().unwrap();
        exchanges.iter().map(|exchange| exchange.sequences.clone()).filter(|batch| !batch.is_empty()).collect()
    }

    /// All sequence numbers in the order in which they came, repetitions included.
    pub fn sequences(&self) -> Vec<u64> {
        self.batches().concat()
    }

    /// Method and path of each request.
    pub fn requests(&self) -> Vec<String> {
        let exchanges = self.shared.exchanges.lock().unwrap();
        exchanges.iter().map(|exchange| format!("{} {}", exchange.method, exchange.target)).collect()
    }

    /// Each request, in the order in which they came.
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.shared.exchanges.lock().unwrap().clone()
    }

    /// How many requests have come.
    pub fn count(&self) -> usize {
        self.shared.exchanges.lock().unwrap().len()
    }

    /// When the request with this number, from 0, had come whole.
    pub fn arrival(&self, number: usize) -> Option<Instant> {
        self.shared.exchanges.lock().unwrap().get(number).map(|exchange| exchange.arrived)
    }

    /// From now on, or no longer, everything is answered with 503 and forgotten.
    pub fn set_down(&self, is_down: bool) {
        self.shared.is_down.store(is_down, Ordering::SeqCst);
    }
}

/// Answers requests until the client is gone. `/redirect?<url>` leads to that URL.
fn serve(mut stream: TcpStream, shared: &Shared) {
    let _ = stream.set_nodelay(true);
    let mut reader = BufReader::new(stream.try_clone().expect("a socket can be cloned"));
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first).unwrap_or(0) == 0 {
            return;
        }
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            match line.trim().split_once(':') {
                Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.trim().to_owned())),
                None if line.trim().is_empty() => break,
                None => {}
            }
        }
        let mut words = first.split(' ').map(str::to_owned);
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut exchange =
            Exchange { method, target, headers, body: Vec::new(), arrived: Instant::now(), sequences: Vec::new() };
        let length = exchange.header("content-length").map_or(0, |length| length.parse().expect("a length"));
        let encoding = exchange.header("transfer-encoding").unwrap_or_default().to_ascii_lowercase();
        exchange.body = match read_body(&mut reader, length, encoding.contains("chunked")) {
            Some(body) => body,
            None => return,
        };
        exchange.arrived = Instant::now();
        let answer = if shared.is_down.load(Ordering::SeqCst) {
            "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n".to_owned()
        } else {
            let answer = match exchange.target.split_once("/redirect?") {
                Some((_, to)) => format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n"),
                None => {
                    let text = String::from_utf8_lossy(&exchange.body);
                    exchange.sequences = text.lines().filter_map(|line| line.trim().parse().ok()).collect();
                    "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_owned()
                }
            };
            shared.exchanges.lock().unwrap().push(exchange);
            answer
        };
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn read_body(reader: &mut impl BufRead, length: usize, chunked: bool) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    if !chunked {
        body.resize(length, 0);
        reader.read_exact(&mut body).ok()?;
        return Some(body);
    }
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let size = usize::from_str_radix(line.trim().split(';').next()?, 16).ok()?;
        let start = body.len();
        body.resize(start + size, 0);
        reader.read_exact(&mut body[start..]).ok()?;
        line.clear();
        reader.read_line(&mut line).ok()?;
        if size == 0 {
            return Some(body);
        }
    }
}
