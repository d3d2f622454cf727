//! How a service is started: on a free port, with its own folder, in whatever surroundings a test needs.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::data::without_settings;
use super::log::Log;
use super::server::Server;
use super::{Data, PATIENCE, cdc, compiled};

/// A service that did not start, as it should.
#[derive(Debug)]
pub struct Refused {
    pub status: ExitStatus,
    pub stderr: String,
}

/// How a service is to be started.
#[derive(Clone)]
pub struct Launch {
    binary: PathBuf,
    wrapper: Vec<String>,
    data: Data,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    listen: Option<String>,
    shares_compiled: bool,
}

impl Launch {
    /// A service with default settings on a new folder and a free port.
    pub fn new() -> Launch {
        Launch {
            binary: cdc().into(),
            wrapper: Vec::new(),
            data: Data::new(),
            arguments: Vec::new(),
            variables: Vec::new(),
            listen: Some("127.0.0.1:0".into()),
            shares_compiled: true,
        }
    }

    /// A service with this configuration file, on a new folder and a free port. The file is `cdc.toml` beside the data.
    pub fn configured(text: &str) -> Launch {
        let launch = Launch::new();
        let file = launch.data.beside("cdc.toml");
        fs::write(&file, text).expect("the folder is ours");
        launch.option("--config", file.display())
    }

    pub fn on(mut self, data: &Data) -> Launch {
        self.data = data.clone();
        self
    }

    /// Another copy of the binary.
    pub fn binary(mut self, path: &Path) -> Launch {
        self.binary = path.into();
        self
    }

    /// A command that ends by running its last arguments, such as `prlimit`.
    pub fn through(mut self, wrapper: &[&str]) -> Launch {
        self.wrapper = wrapper.iter().map(ToString::to_string).collect();
        self
    }

    /// Options as on a command line, separated by spaces.
    pub fn options(mut self, options: &str) -> Launch {
        self.arguments.extend(options.split_whitespace().map(String::from));
        self
    }

    pub fn option(mut self, name: &str, value: impl ToString) -> Launch {
        self.arguments.extend([name.into(), value.to_string()]);
        self
    }

    pub fn variable(mut self, name: &str, value: impl ToString) -> Launch {
        self.variables.push((name.into(), value.to_string()));
        self
    }

    /// Leaves `--listen` to the configuration.
    pub fn listen_as_configured(mut self) -> Launch {
        self.listen = None;
        self
    }

    /// Lets the service compile the engine for itself, into its data folder as it does by default. Otherwise all
    /// services of a test run share one folder of compiled code, so that a start takes milliseconds.
    pub fn compile_cache_as_configured(mut self) -> Launch {
        self.shares_compiled = false;
        self
    }

    pub fn data(&self) -> &Data {
        &self.data
    }

    /// Starts the service and waits until it is ready; fails the test with the service's own words when it is not.
    pub fn start(&self) -> Server {
        match self.try_start() {
            Ok(server) => server,
            Err(refused) => panic!("the service does not start ({}):\n{}", refused.status, refused.stderr),
        }
    }

    /// Starts a service that must refuse; fails the test when it serves.
    pub fn refused(&self) -> Refused {
        match self.try_start() {
            Ok(server) => panic!("the service starts, on {}:\n{}", server.address(), server.log()),
            Err(refused) => refused,
        }
    }

    pub fn try_start(&self) -> Result<Server, Refused> {
        let address_file = self.data.beside("address");
        let _ = fs::remove_file(&address_file);
        let mut command = self.command();
        command.arg("--address-file").arg(&address_file);
        let began = Instant::now();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{} cannot be run: {error}", self.binary.display()));
        let log = Log::follow(child.stderr.take().expect("stderr is piped"));
        let address = loop {
            if let Some(address) = read_address(&address_file) {
                break address;
            }
            if let Some(status) = child.try_wait().expect("the process can be waited for") {
                return Err(Refused { status, stderr: log.to_the_end() });
            }
            if began.elapsed() > PATIENCE {
                let _ = child.kill();
                panic!("the service is not ready after {PATIENCE:?}:\n{}", log.now());
            }
            thread::sleep(Duration::from_millis(1));
        };
        Ok(Server::new(self.clone(), child, address, log, began.elapsed()))
    }

    fn command(&self) -> Command {
        let mut words = self.wrapper.iter();
        let mut command = match words.next() {
            Some(first) => {
                let mut command = Command::new(first);
                command.args(words).arg(&self.binary);
                command
            }
            None => Command::new(&self.binary),
        };
        without_settings(&mut command);
        command.arg("serve").arg("--data").arg(self.data.path()).args(&self.arguments);
        if let Some(listen) = &self.listen {
            command.args(["--listen", listen]);
        }
        if self.shares_compiled {
            command.arg("--compile-cache").arg(compiled());
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }
}

impl Default for Launch {
    fn default() -> Self {
        Launch::new()
    }
}

/// The file may be seen half written: an address without a port or with half of one does not end in a line break, and
/// one that is written whole without it is taken only when the port answers.
fn read_address(file: &Path) -> Option<SocketAddr> {
    let text = fs::read_to_string(file).ok()?;
    let address: SocketAddr = text.trim().parse().ok()?;
    (text.ends_with('\n') || std::net::TcpStream::connect(address).is_ok()).then_some(address)
}
