//! A TCP proxy that injects faults, to stand between the service and a server.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::ports::Port;

/// How long an end that will not be heard any more may take to read what was sent to it.
const LAST_WORDS: Duration = Duration::from_secs(5);
const BUFFER_BYTES: usize = 64 * 1024;

/// A proxy on a port of its own before a port of 127.0.0.1. At first it passes everything on; each method switches what it
/// does from then on, for open connections and new ones alike. Dropping it cuts all of them.
#[derive(Debug)]
pub struct Proxy {
    port: Port,
    shared: Arc<Shared>,
    /// Held while the fault is switched and the port opened or closed accordingly.
    switching: Mutex<()>,
}

#[derive(Debug)]
struct Shared {
    target: u16,
    state: Mutex<State>,
    /// Told whenever `state.fault` changes.
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    fault: Fault,
    accepted: u64,
    open: Vec<Connection>,
}

#[derive(Debug)]
struct Connection {
    number: u64,
    client: TcpStream,
    server: TcpStream,
    /// Bytes that have passed, in both directions, since `CutAfter` was switched on.
    passed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    Refuse,
    Hang,
    CutAfter(u64),
    SwallowAnswers,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Direction {
    Request,
    Answer,
}

/// What becomes of some bytes.
enum Verdict {
    Pass,
    /// The first so many of them are passed on; then the connection is cut.
    PassAndCut(usize),
    /// None is passed on; the client is cut off, and the server sees its end after all that was sent to it.
    Swallow,
    /// The connection is no more.
    Gone,
}

impl Proxy {
    /// A proxy before `port` of 127.0.0.1, whether or not somebody listens there yet.
    pub fn to(port: u16) -> Proxy {
        let state = State { fault: Fault::None, accepted: 0, open: Vec::new() };
        let shared = Shared { target: port, state: Mutex::new(state), changed: Condvar::new() };
        let proxy = Proxy { port: Port::reserve(), shared: Arc::new(shared), switching: Mutex::new(()) };
        proxy.listen();
        proxy
    }

    /// The port of the proxy itself, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// How many connections have been accepted so far. Refused ones are not counted.
    pub fn connections(&self) -> u64 {
        self.shared.lock().accepted
    }

    /// How many connections are open now.
    pub fn open_connections(&self) -> usize {
        self.shared.lock().open.len()
    }

    /// Everything is passed on, what was held back included.
    pub fn pass(&self) {
        self.switch(Fault::None);
    }

    /// As if the server were down: open connections are cut, and new ones refused by the operating system.
    pub fn refuse(&self) {
        self.switch(Fault::Refuse);
    }

    /// As if the network swallowed everything: connections are accepted and stay open, and nothing passes either way. It is
    /// kept, not lost: it passes when the fault ends.
    pub fn hang(&self) {
        self.switch(Fault::Hang);
    }

    /// Each connection is cut as soon as so many bytes of it have passed from now on, both directions counted together; those
    /// bytes still arrive. A connection that is opened later has as many.
    pub fn cut_after(&self, bytes: u64) {
        self.switch(Fault::CutAfter(bytes));
    }

    /// Requests reach the server, but the first bytes that it answers are lost, and the connection is cut at them. So what was
    /// asked for is done, and whoever asked does not know.
    pub fn swallow_answers(&self) {
        self.switch(Fault::SwallowAnswers);
    }

    /// Cuts all open connections now; what becomes of new ones does not change.
    pub fn cut(&self) {
        self.shared.lock().cut_all();
        self.shared.changed.notify_all();
    }

    fn switch(&self, fault: Fault) {
        let _one_at_a_time = self.switching.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.shared.lock();
        let before = std::mem::replace(&mut state.fault, fault);
        for connection in &mut state.open {
            connection.passed = 0;
        }
        if fault == Fault::Refuse {
            state.cut_all();
        }
        self.shared.changed.notify_all();
        drop(state);
        if fault == Fault::Refuse && before != Fault::Refuse {
            self.stop_listening();
        } else if before == Fault::Refuse && fault != Fault::Refuse {
            self.listen();
        }
    }

    fn listen(&self) {
        let address = (Ipv4Addr::LOCALHOST, self.port.number());
        let listener = TcpListener::bind(address).expect("the port is reserved");
        let shared = Arc::clone(&self.shared);
        thread::spawn(move || accept(&listener, &shared));
    }

    /// Returns when nobody listens any more.
    fn stop_listening(&self) {
        // The listener looks at the fault when somebody has connected, and closes at this one.
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port.number()));
        while let Ok(mut wake) = TcpStream::connect(address) {
            // Its end comes when it is closed there, which is before or with the end of the listener.
            let _ = wake.read(&mut [0]);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.refuse();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides about bytes of a connection that have just been read. Waits as long as everything hangs.
    fn judge(&self, number: u64, direction: Direction, length: usize) -> Verdict {
        let mut state = self.lock();
        loop {
            let fault = state.fault;
            let Some(connection) = state.open.iter_mut().find(|connection| connection.number == number) else {
                return Verdict::Gone;
            };
            match fault {
                Fault::None => return Verdict::Pass,
                Fault::Refuse => return Verdict::Gone,
                Fault::SwallowAnswers if direction == Direction::Answer => return Verdict::Swallow,
                Fault::SwallowAnswers => return Verdict::Pass,
                Fault::CutAfter(bytes) => {
                    let left = bytes.saturating_sub(connection.passed);
                    connection.passed += length as u64;
                    let passes = usize::try_from(left).unwrap_or(usize::MAX).min(length);
                    return if left <= length as u64 { Verdict::PassAndCut(passes) } else { Verdict::Pass };
                }
                Fault::Hang => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Lets nothing pass any more that belongs to this connection, and closes both ends.
    fn cut(&self, number: u64) {
        let mut state = self.lock();
        if let Some(at) = state.open.iter().position(|connection| connection.number == number) {
            state.open.swap_remove(at).cut();
        }
        // Whoever holds bytes of it back need not wait any longer.
        self.changed.notify_all();
    }

    /// Closes the client's end at once, and the server's for writing only; it gets the time to read what it was sent.
    fn cut_off_client(&self, number: u64, server: &mut TcpStream) {
        let mut state = self.lock();
        if let Some(at) = state.open.iter().position(|connection| connection.number == number) {
            let connection = state.open.swap_remove(at);
            shut(&connection.client, Shutdown::Both);
            shut(&connection.server, Shutdown::Write);
        }
        drop(state);
        let _ = server.set_read_timeout(Some(LAST_WORDS));
        let mut buffer = [0; 4096];
        while matches!(server.read(&mut buffer), Ok(length) if length > 0) {}
        shut(server, Shutdown::Both);
    }
}

impl State {
    fn cut_all(&mut self) {
        for connection in self.open.drain(..) {
            connection.cut();
        }
    }
}

impl Connection {
    fn cut(&self) {
        shut(&self.client, Shutdown::Both);
        shut(&self.server, Shutdown::Both);
    }
}

fn shut(stream: &TcpStream, how: Shutdown) {
    // Fails for a connection that its other end has closed.
    let _ = stream.shutdown(how);
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        let Ok(client) = client else { continue };
        // Under the lock, so that a connection is either seen by whoever switches the fault or sees what it was switched to.
        let mut state = shared.lock();
        if state.fault == Fault::Refuse {
            return;
        }
        state.accepted += 1;
        let number = state.accepted;
        // At 127.0.0.1 this does not take long. A server that is down makes a connection that ends at once.
        let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, shared.target)) else { continue };
        let both = client.try_clone().and_then(|client| Ok((client, server.try_clone()?)));
        let Ok((client_end, server_end)) = both else { continue };
        let _ = client.set_nodelay(true).and_then(|()| server.set_nodelay(true));
        let ends = client.try_clone().and_then(|client| Ok((client, server.try_clone()?)));
        let Ok((client_sink, server_sink)) = ends else { continue };
        state.open.push(Connection { number, client: client_end, server: server_end, passed: 0 });
        drop(state);
        for (from, to, direction) in
            [(client, server_sink, Direction::Request), (server, client_sink, Direction::Answer)]
        {
            let shared = Arc::clone(shared);
            thread::spawn(move || pump(from, to, number, direction, &shared));
        }
    }
}

/// Passes on what comes, until its end. An end is passed on too, so that the other direction can go on alone.
fn pump(mut from: TcpStream, mut to: TcpStream, number: u64, direction: Direction, shared: &Shared) {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let length = match from.read(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        match shared.judge(number, direction, length) {
            Verdict::Pass if length == 0 => {
                shut(&to, Shutdown::Write);
                // A server that has ended will not answer any more.
                if direction == Direction::Request {
                    return;
                }
                break;
            }
            Verdict::Pass => {
                if to.write_all(&buffer[..length]).is_err() {
                    break;
                }
            }
            Verdict::PassAndCut(passes) => {
                // The connection is cut either way.
                let _ = to.write_all(&buffer[..passes]);
                break;
            }
            Verdict::Swallow => return shared.cut_off_client(number, &mut from),
            Verdict::Gone => return,
        }
    }
    shared.cut(number);
}
