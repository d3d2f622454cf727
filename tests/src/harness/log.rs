//! What a service says on stderr.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Mutex};
use std::thread;

/// The service's stderr, read as it comes: a full pipe would stop the service.
pub(super) struct Log {
    text: Arc<Mutex<String>>,
    reader: Mutex<Option<thread::JoinHandle<()>>>,
}

impl Log {
    pub(super) fn follow(stderr: impl Read + Send + 'static) -> Log {
        let text = Arc::new(Mutex::new(String::new()));
        let shared = text.clone();
        let reader = thread::spawn(move || {
            let mut lines = BufReader::new(stderr);
            let mut line = Vec::new();
            while lines.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                shared.lock().unwrap().push_str(&String::from_utf8_lossy(&line));
                line.clear();
            }
        });
        Log { text, reader: Mutex::new(Some(reader)) }
    }

    pub(super) fn now(&self) -> String {
        self.text.lock().unwrap().clone()
    }

    pub(super) fn to_the_end(&self) -> String {
        if let Some(reader) = self.reader.lock().unwrap().take() {
            reader.join().expect("the reader of stderr does not fail");
        }
        self.now()
    }
}
