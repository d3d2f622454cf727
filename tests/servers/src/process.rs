//! A server's processes: started, awaited, stopped, killed, and never left behind.
//!
//! **The guard.** Each server has a small shell script beside it that reads from a pipe which only this process holds. It is
//! told the server's process, and when the pipe closes, on purpose or because this process is dead, it kills the server
//! that is left, if any, and removes the folder. (The kernel's own death signal is bound to the thread that started the
//! server, and threads of tests end early.)
//!
//! **Kills** reach every process of a server. Those of PostgreSQL are each in a group of their own, so a group is not enough:
//! the first process is halted, so that it starts no further ones, and then all that descend from it are killed with it.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::ports::Port;
use crate::templates::give_to;

/// A server that is not ready, or not gone, by then never will be. Generous, because test machines are busy.
const DEADLINE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(5);

/// $1 is the folder, $2 the signal that ends the server. PostgreSQL's interlock in System V shared memory would outlive it.
const GUARD: &str = r#"
pid=
while read -r line; do pid=$line; done
shared_memory=$(sed -n 7p "$1/data/postmaster.pid" 2>/dev/null)
if [ -n "$pid" ]; then
    kill -"$2" "$pid"
    tries=0
    while kill -0 "$pid" && [ "$tries" -lt 50 ]; do sleep 0.1; tries=$((tries + 1)); done
    kill -KILL -- "-$pid"
fi
if [ -n "$shared_memory" ]; then ipcrm -m "${shared_memory##* }"; fi
rm -rf "$1"
"#;

/// A server's folder, port and, while it runs, its processes. Dropping it ends the server and removes the folder.
#[derive(Debug)]
pub(crate) struct Process {
    name: &'static str,
    folder: PathBuf,
    port: Port,
    guard: Child,
    child: Option<Child>,
}

impl Process {
    /// A folder, given to `owner` (user and group), and a port; nothing runs yet. `signal` is what ends the server for good.
    pub(crate) fn new(name: &'static str, owner: Option<(u32, u32)>, signal: &str) -> Process {
        let folder = tempfile::Builder::new().prefix(&format!("cdc-{name}-")).tempdir();
        let folder = folder.expect("the temp folder is writable").keep();
        give_to(&folder, owner).expect("root may give its folders away");
        let guard = Command::new("sh")
            .args(["-c", GUARD, "guard"])
            .arg(&folder)
            .arg(signal)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // What a terminal sends to the test, like Ctrl-C, is not meant for its guards.
            .process_group(0)
            .spawn()
            .expect("there is a shell");
        Process { name, folder, port: Port::reserve(), guard, child: None }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn port(&self) -> u16 {
        self.port.number()
    }

    /// The first process of the server, if it runs.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Starts `command` and waits until `ready` says so of its process. Panics with the server's log if it ends before, or
    /// if it already runs.
    pub(crate) fn start(&mut self, command: &mut Command, mut ready: impl FnMut(u32) -> bool) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let log = File::options().create(true).append(true).open(self.log_file()).expect("the folder is ours");
        let errors = log.try_clone().expect("a file can be shared");
        command.stdin(Stdio::null()).stdout(log).stderr(errors).process_group(0);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        let id = child.id();
        self.tell_guard(&id.to_string());
        let deadline = Instant::now() + DEADLINE;
        let failure = loop {
            if ready(id) {
                self.child = Some(child);
                return;
            }
            match child.try_wait() {
                Ok(None) if Instant::now() > deadline => break "is not ready in time".to_owned(),
                Ok(None) => sleep(PAUSE),
                Ok(Some(status)) => break format!("ended: {status}"),
                Err(error) => break format!("cannot be watched: {error}"),
            }
        };
        self.child = Some(child);
        self.kill();
        panic!("{} {failure}\n{}", self.name, self.log());
    }

    /// Asks the server to end, and waits until it has.
    pub(crate) fn stop(&mut self, signal: Signal) {
        let Some(child) = &mut self.child else { return };
        send(child.id(), signal);
        let deadline = Instant::now() + DEADLINE;
        while matches!(child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                self.kill();
                panic!("{} does not stop\n{}", self.name, self.log());
            }
            sleep(PAUSE);
        }
        self.child = None;
        self.tell_guard("");
    }

    /// Ends all processes of the server at once, and waits until they are gone.
    pub(crate) fn kill(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // Halted, it starts nothing that this would overlook. If it is dead already, its children are somebody else's.
        send(child.id(), Signal::STOP);
        let others = descendants(child.id());
        send(child.id(), Signal::KILL);
        for &id in &others {
            send(id, Signal::KILL);
        }
        // Fails only for a process that has been waited for.
        let _ = child.wait();
        self.tell_guard("");
        let deadline = Instant::now() + DEADLINE;
        while others.iter().any(|&id| runs(id)) && Instant::now() < deadline {
            sleep(PAUSE);
        }
    }

    /// The end of what the server has written about itself.
    pub(crate) fn log(&self) -> String {
        let log = fs::read(self.log_file()).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(8192)..]).into_owned()
    }

    fn log_file(&self) -> PathBuf {
        self.folder.join("server.log")
    }

    fn tell_guard(&mut self, line: &str) {
        if let Some(pipe) = &mut self.guard.stdin {
            // A guard that is gone was killed by somebody; the test can go on without.
            let _ = writeln!(pipe, "{line}");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        // The guard removes the folder when its pipe closes.
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

fn send(id: u32, signal: Signal) {
    if let Some(id) = i32::try_from(id).ok().and_then(Pid::from_raw) {
        // Fails if the process is gone, which is what is wanted in the end.
        let _ = kill_process(id, signal);
    }
}

/// All processes that `root` has started and that have not been left by those that started them.
fn descendants(root: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let id = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(id) = id
            && let Some((_, parent)) = state_and_parent(id)
        {
            children.entry(parent).or_default().push(id);
        }
    }
    let mut found = Vec::new();
    let mut open = vec![root];
    while let Some(id) = open.pop() {
        let next = children.remove(&id).unwrap_or_default();
        open.extend(&next);
        found.extend(next);
    }
    found
}

/// False also for a process that is dead and not yet waited for by its parent.
fn runs(id: u32) -> bool {
    state_and_parent(id).is_some_and(|(state, _)| !matches!(state, 'Z' | 'X'))
}

/// From `/proc/<id>/stat`: `<id> (<name>) <state> <parent> …`, where the name may hold anything.
fn state_and_parent(id: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}
