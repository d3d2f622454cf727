//! The command line of `cdc`, its `CDC_…` variables and its configuration file.
//!
//! [`parse`] is the only door: it takes the arguments, the environment and the working folder, and answers with what
//! to do, its settings checked and complete. It prints nothing, reads one file at most, and changes nothing.
//!
//! An option of `cdc serve` is one field of [`ServeSettings`] or [`Limits`]: from it come the flag, the variable, the
//! key in the file, the bounds, the default and the help. A flag beats a variable, a variable the file, the file the
//! default; a wrong value is refused even where a stronger one overrides it. Paths are taken from the working folder.

mod declared;
mod error;
mod file;
mod print;
mod resolve;
mod settings;
mod sources;
#[cfg(test)]
mod tests;
mod value;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

pub use declared::Declared;
pub use error::ConfigError;
pub use resolve::{Environment, Origin};
pub use settings::{Limits, ServeSettings};
pub use value::{Cap, CorsOrigin, Durability, GIB, KIB, MIB, SchemaMode, TIB};

use crate::authoring::ComponentCommand;
use crate::source::{Farewell, SourceSpec, SourceUrl};
use crate::steering::{
    AuditCommand, AuditOf, Audited, AuditedReplica, OneSource, OneTable, Selection, SourceOrTable, Steer, Steering,
    SteeringCommand,
};
use crate::tail::TailSettings;
use file::ConfigFile;
use resolve::Key;

/// The data folder unless another is named.
pub const DEFAULT_DATA: &str = "./cdc-data";
/// The configuration file that is read from the working folder when none is named.
pub const DEFAULT_FILE: &str = "cdc.toml";

const CONFIG_VARIABLE: &str = "CDC_CONFIG";
const SOURCE_VARIABLE: &str = "CDC_SOURCE";

/// What the command line asks for.
#[derive(Debug)]
pub enum Invocation {
    /// Run the service.
    Serve(Box<Serve>),
    /// Print this text, the effective configuration as TOML, and exit.
    PrintConfig(String),
    /// Follow the events of a running service.
    Tail(TailSettings),
    /// Check a data folder offline.
    Verify(VerifySettings),
    /// Write the built-in engine component.
    Engine(EngineSettings),
    /// Look at a component, or run it.
    Component(ComponentCommand),
    /// Tell what is missing before sources and sinks work.
    Check(Check),
    /// Remove what a source has left in its database and here.
    DropSource(Box<Farewell>),
    /// Ask a running service to do something with a source.
    Steer(Steering),
    /// Have a running service compare a source's tables with the database's, or a replica's with those here.
    Audit(AuditCommand),
}

/// What `cdc check` runs with.
#[derive(Debug)]
pub struct Check {
    /// What the configuration file and the command line declare.
    pub declared: Declared,
    /// Names of sources and ids of subscriptions to look at; all, if none.
    pub names: Vec<String>,
    /// Whether the findings are printed as JSON.
    pub json: bool,
}

/// `cdc serve` with where its configuration came from.
#[derive(Debug)]
pub struct Serve {
    /// The options.
    pub settings: ServeSettings,
    /// The configuration file that was read, to be logged at the start.
    pub config_file: Option<PathBuf>,
    /// What the configuration file declares beside options.
    pub declared: Declared,
    /// What looks like a mistake but does no harm; to be logged at the start.
    pub warnings: Vec<String>,
}

/// What `cdc verify` runs with.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct VerifySettings {
    /// Folder to check; no service may be running on it
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DATA)]
    pub data: PathBuf,

    /// Print the findings as JSON
    #[arg(long)]
    pub json: bool,
}

/// What `cdc engine` runs with.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct EngineSettings {
    /// File to write to [default: stdout]
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// What `cdc check` is told.
#[derive(Args, Clone, Debug)]
struct CheckSettings {
    /// Sources and subscriptions to look at [default: all that the file has]
    #[arg(value_name = "NAME")]
    names: Vec<String>,

    /// Database to look at, beside those of the file
    #[arg(long = "source", value_name = "URL", value_parser = SourceUrl::parse)]
    sources: Vec<SourceUrl>,

    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

/// What `cdc source` does.
#[derive(Subcommand)]
enum SourceCommand {
    /// Show how a source fares, or one of its tables
    Show(Configured<Steer<SourceOrTable>>),
    /// Follow a source, or one of its tables, no further until it is resumed
    Pause(Configured<Steer<SourceOrTable>>),
    /// Go on with a source, or read one of its tables anew and follow it again
    Resume(Configured<Steer<SourceOrTable>>),
    /// Read all tables of a source anew, and mend what differs
    Repair(Configured<Steer<OneSource>>),
    /// Read one table of a source anew, and mend what differs
    Reread(Configured<Steer<OneTable>>),
    /// Compare the rows here with the database's
    ///
    /// Exits with 0 if they are equal, with 1 if some differ, and with 2 if not all could be compared.
    Audit(Configured<Steer<Audited>>),
    /// Remove a table's rows here, and capture it no longer until it is resumed
    DropTable(Configured<Steer<OneTable>>),
    /// Choose which tables a source captures, in place of what the configuration says
    Select(Configured<Steer<Selection>>),
    /// Drop the slot that a source has left in its database, and forget how far it was read
    Drop(Configured<DropSettings>),
}

/// What `cdc subscription` does.
#[derive(Subcommand)]
enum SubscriptionCommand {
    /// Compare the rows of a PostgreSQL replica with those here
    ///
    /// Exits with 0 if they are equal, with 1 if some differ, and with 2 if not all could be compared.
    Audit(Configured<Steer<AuditedReplica>>),
}

/// What `cdc source drop` is told.
#[derive(Args, Clone, Debug)]
struct DropSettings {
    /// The source
    #[arg(value_name = "NAME", value_parser = source_name)]
    name: cdc_rest::SourceName,

    #[command(flatten)]
    folder: DataFolder,

    /// The source's database, if the file does not have it
    #[arg(long = "source", value_name = "URL", value_parser = SourceUrl::parse)]
    url: Option<SourceUrl>,

    /// Leave the database as it is, and only forget the position here
    #[arg(long)]
    only_here: bool,
}

/// Where the source's position is.
#[derive(Args, Clone, Debug)]
struct DataFolder {
    /// Folder with the source's position; no service may be running on it
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DATA)]
    data: PathBuf,
}

fn source_name(text: &str) -> Result<cdc_rest::SourceName, String> {
    cdc_rest::SourceName::parse(text).map_err(|problem| problem.detail().to_owned())
}

const EXAMPLES: &str = "\
Examples:
  cdc serve                                           serve on 127.0.0.1:8002, data in ./cdc-data
  cdc serve --listen 0.0.0.0:8002 --insecure          every address, without a login
  cdc serve --retention-age 7d                        a week of events
  cdc serve --source postgres://user:pw@host/shop     capture a database
  cdc check                                           what is missing before sources and sinks work
  cdc serve --print-config                            what is configured, and where
  cdc tail --table users --operation UPDATE           follow the changes of one table
  cdc tail --from-start --json --once | jq .table     all events as JSON lines
  cdc source reread shop public.users                 read one table of a database anew
  cdc source audit shop                               compare a database with the rows here
  cdc verify --data ./cdc-data                        check a data folder offline
  cdc component check filter.wasm                     whether a component can be a subscriber
  cdc engine engine.wasm                              take the engine component out

Run `cdc <command> --help` for the options of a command.";

/// Change data capture: every row change once, in one durable order, delivered at least once
#[derive(Parser)]
#[command(name = "cdc", version, max_term_width = 120, arg_required_else_help = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: CliCommand,
}

#[derive(Subcommand)]
enum CliCommand {
    /// Run the service
    #[command(after_help = PRECEDENCE)]
    Serve(Box<ServeArgs>),
    /// Follow the events of a running service
    Tail(Configured<TailSettings>),
    /// Check a data folder offline: checksums, order, and that the rows are what the log says
    Verify(Configured<VerifySettings>),
    /// Write the engine component that is built into this binary to a file or to stdout
    Engine(EngineSettings),
    /// Tell what is missing before sources and sinks work, with what to run
    Check(Configured<CheckSettings>),
    /// Show and steer sources and their tables, or give one up
    #[command(subcommand)]
    Source(SourceCommand),
    /// Look at the subscriptions of a running service
    #[command(subcommand)]
    Subscription(SubscriptionCommand),
    /// For authors of subscribers: check a component, run it on events, print the contract
    #[command(subcommand)]
    Component(ComponentCommand),
}

const PRECEDENCE: &str = "\
A flag beats its variable, a variable beats the configuration file, the file beats the default.
Sizes take kB, MB, GB, TB, KiB, MiB, GiB, TiB; digits may be grouped with _.";

#[derive(Args)]
struct ServeArgs {
    #[command(flatten)]
    configured: Configured<ServeSettings>,

    /// Database to follow, beside those of the file: postgres://user:password@host/database, mysql://…, mariadb://…
    #[arg(long = "source", value_name = "URL", value_parser = SourceUrl::parse, help_heading = "Service")]
    sources: Vec<SourceUrl>,

    /// Print the effective configuration as TOML, saying where each value came from, and exit
    #[arg(long, help_heading = "Service")]
    print_config: bool,
}

/// A command whose options may also stand in the configuration file.
#[derive(Args)]
struct Configured<A: Args> {
    /// Configuration file [default: cdc.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(flatten)]
    settings: A,
}

/// Understands a command line, with the program's name first.
pub fn parse<I, T>(arguments: I, environment: &Environment, working_folder: &Path) -> Result<Invocation, ConfigError>
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let keys = keys();
    let matches = command(&keys).try_get_matches_from(arguments)?;
    let cli = Cli::from_arg_matches(&matches)?;
    // Clap has matched one of the commands: without a match of its own there is nothing to resolve.
    let none = ArgMatches::default();
    let flags = matches.subcommand().map_or(&none, |(_, flags)| flags);
    let file = |named: Option<PathBuf>| -> Result<ConfigFile, ConfigError> {
        let file = config_file(named, environment, working_folder)?;
        resolve::refuse_unknown_keys(&file, &keys)?;
        Ok(file)
    };
    Ok(match cli.command {
        CliCommand::Serve(arguments) => {
            let file = file(arguments.configured.config)?;
            let urls = source_urls(arguments.sources, environment)?;
            let mut resolved = resolve::resolve::<ServeSettings>(flags, environment, &file, &keys)?;
            if arguments.print_config {
                return Ok(Invocation::PrintConfig(print::effective(&resolved.values)));
            }
            let folder = file.path.as_ref().and_then(|path| working_folder.join(path).parent().map(Path::to_owned));
            resolved.settings.settle(folder);
            let warnings = resolve::unknown_variables(environment, &keys, &file.text);
            let path = file.path.clone();
            let declared = declared(file, &urls, environment)?;
            Invocation::Serve(Box::new(Serve { settings: resolved.settings, config_file: path, declared, warnings }))
        }
        CliCommand::Tail(arguments) => {
            let file = file(arguments.config)?;
            Invocation::Tail(resolve::resolve(flags, environment, &file, &keys)?.settings)
        }
        CliCommand::Verify(arguments) => {
            let file = file(arguments.config)?;
            Invocation::Verify(resolve::resolve(flags, environment, &file, &keys)?.settings)
        }
        CliCommand::Check(arguments) => {
            let file = file(arguments.config)?;
            let CheckSettings { names, sources, json } = arguments.settings;
            let urls = source_urls(sources, environment)?;
            let declared = declared(file, &urls, environment)?;
            Invocation::Check(Check { declared, names, json })
        }
        CliCommand::Source(command) => {
            let flags = flags.subcommand().map_or(&none, |(_, flags)| flags);
            let steer = |config: Option<PathBuf>, command: SteeringCommand| {
                let asked = resolve::resolve(flags, environment, &file(config)?, &keys)?.settings;
                Ok(Invocation::Steer(Steering { command, asked }))
            };
            let arguments = match command {
                SourceCommand::Show(of) => return steer(of.config, SteeringCommand::Show(of.settings.what)),
                SourceCommand::Pause(of) => return steer(of.config, SteeringCommand::Pause(of.settings.what)),
                SourceCommand::Resume(of) => return steer(of.config, SteeringCommand::Resume(of.settings.what)),
                SourceCommand::Repair(of) => return steer(of.config, SteeringCommand::Repair(of.settings.what)),
                SourceCommand::Reread(of) => return steer(of.config, SteeringCommand::Reread(of.settings.what)),
                SourceCommand::Audit(of) => {
                    let asked = resolve::resolve(flags, environment, &file(of.config)?, &keys)?.settings;
                    let what = of.settings.what;
                    return Ok(Invocation::Audit(AuditCommand { of: AuditOf::Source, what, asked }));
                }
                SourceCommand::DropTable(of) => return steer(of.config, SteeringCommand::DropTable(of.settings.what)),
                SourceCommand::Select(of) => return steer(of.config, SteeringCommand::Select(of.settings.what)),
                SourceCommand::Drop(arguments) => arguments,
            };
            let file = file(arguments.config)?;
            let DataFolder { data } = resolve::resolve(flags, environment, &file, &keys)?.settings;
            let DropSettings { name, url, only_here, folder: _ } = arguments.settings;
            let all = declared(file, &[], environment)?.sources;
            let spec = match url {
                Some(url) => Some(SourceSpec::new(name.clone(), url)),
                None => all.into_iter().find(|spec| spec.name == name),
            };
            Invocation::DropSource(Box::new(Farewell { name, spec, data, only_here }))
        }
        CliCommand::Subscription(SubscriptionCommand::Audit(of)) => {
            let flags = flags.subcommand().map_or(&none, |(_, flags)| flags);
            let asked = resolve::resolve(flags, environment, &file(of.config)?, &keys)?.settings;
            let what = of.settings.what.into();
            Invocation::Audit(AuditCommand { of: AuditOf::Subscription, what, asked })
        }
        CliCommand::Engine(settings) => Invocation::Engine(settings),
        CliCommand::Component(command) => Invocation::Component(command),
    })
}

/// Addresses of the command line, or of the variable when there is none.
fn source_urls(flags: Vec<SourceUrl>, environment: &Environment) -> Result<Vec<SourceUrl>, ConfigError> {
    let Some(text) = environment.get(SOURCE_VARIABLE).filter(|_| flags.is_empty()) else { return Ok(flags) };
    let text = text.to_string_lossy();
    let url = SourceUrl::parse(&text).map_err(|allowed| ConfigError::Invalid {
        key: "source".to_owned(),
        origin: Origin::Variable(SOURCE_VARIABLE.to_owned()),
        value: crate::source::without_password(&text),
        allowed,
    })?;
    Ok(vec![url])
}

/// What the file declares, with the sources of the command line.
fn declared(file: ConfigFile, urls: &[SourceUrl], environment: &Environment) -> Result<Declared, ConfigError> {
    let mut declared = file.declared;
    for table in file.sources {
        declared.sources.push(table.read(environment)?);
    }
    for spec in sources::of_urls(urls) {
        if let Some(known) = declared.sources.iter().find(|known| known.name == spec.name) {
            return Err(ConfigError::SourceTwice { name: known.name.clone() });
        }
        declared.sources.push(spec);
    }
    Ok(declared)
}

fn config_file(
    named: Option<PathBuf>,
    environment: &Environment,
    working_folder: &Path,
) -> Result<ConfigFile, ConfigError> {
    let variable = environment.get(CONFIG_VARIABLE).map(PathBuf::from);
    let flag = named.as_deref().map(|path| (path, Origin::Flag("--config".to_owned())));
    let variable = variable.as_deref().map(|path| (path, Origin::Variable(CONFIG_VARIABLE.to_owned())));
    file::read(flag.or(variable), working_folder)
}

/// Every option that can be set outside of the command line, in the order of the help.
fn keys() -> Vec<Key> {
    let limits = Key::of::<Limits>(Some("limits"), "CDC_");
    let is_limit = |key: &Key| limits.iter().any(|limit| limit.long == key.long);
    let mut keys: Vec<_> = Key::of::<ServeSettings>(None, "CDC_").into_iter().filter(|key| !is_limit(key)).collect();
    keys.extend(limits);
    keys.extend(Key::of::<crate::tail::TailServer>(Some("tail"), "CDC_TAIL_"));
    keys
}

/// The command line's definition, each option's help naming its variable.
fn command(keys: &[Key]) -> clap::Command {
    Cli::command().mut_subcommands(|command| {
        command.mut_args(|arg| {
            let variable = match arg.get_long() {
                Some("config") => Some(CONFIG_VARIABLE),
                Some("source") => Some(SOURCE_VARIABLE),
                Some(long) => keys.iter().find(|key| key.long == long).map(|key| key.variable.as_str()),
                None => None,
            };
            match (variable, arg.get_help().map(ToString::to_string)) {
                // Clap's own `env` would read the process; here the environment is an argument.
                (Some(variable), Some(help)) => {
                    let (sentence, default) = help.split_at(help.find(" [default: ").unwrap_or(help.len()));
                    arg.help(format!("{sentence}\n[env: {variable}]{default}"))
                }
                _ => arg,
            }
        })
    })
}
