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
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Exchange {
    /// The value of a header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

#[derive(Debug, Default)]
struct Shared {
    batches: Mutex<Vec<Vec<u64>>>,
    requests: Mutex<Vec<String>>,
    arrivals: Mutex<Vec<Instant>>,
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
        self.shared.batches.lock().unwrap().clone()
    }

    /// All sequence numbers in the order in which they came, repetitions included.
    pub fn sequences(&self) -> Vec<u64> {
        self.batches().concat()
    }

    /// Method and path of each request.
    pub fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// Each request with its headers and its body.
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.shared.exchanges.lock().unwrap().clone()
    }

    /// When each request had come whole.
    pub fn arrivals(&self) -> Vec<Instant> {
        self.shared.arrivals.lock().unwrap().clone()
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
        let (mut length, mut chunked) = (0, false);
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if let Some((name, value)) = line.trim().split_once(':') {
                headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
            }
            let line = line.trim().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().expect("a length");
            }
            chunked |= line.starts_with("transfer-encoding:") && line.contains("chunked");
        }
        let body = match read_body(&mut reader, length, chunked) {
            Some(body) => body,
            None => return,
        };
        let mut words = first.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let answer = if shared.is_down.load(Ordering::SeqCst) {
            "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n".to_owned()
        } else {
            shared.arrivals.lock().unwrap().push(Instant::now());
            shared.requests.lock().unwrap().push(format!("{method} {target}"));
            if let Some((_, to)) = target.split_once("/redirect?") {
                format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n")
            } else {
                shared.exchanges.lock().unwrap().push(Exchange { headers, body: body.clone() });
                let text = String::from_utf8_lossy(&body);
                let numbers: Vec<u64> = text.lines().filter_map(|line| line.trim().parse().ok()).collect();
                if !numbers.is_empty() {
                    shared.batches.lock().unwrap().push(numbers);
                }
                "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_owned()
            }
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
