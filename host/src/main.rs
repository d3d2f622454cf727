//! The binary: reads the command line, builds the runtime, forwards signals.

use std::io::Write;
use std::process::ExitCode;

use cdc_host::authoring::ComponentCommand;
use cdc_host::config::{self, Check, EngineSettings, Environment, Invocation, Serve};
use cdc_host::source::Farewell;
use cdc_host::steering::{AuditCommand, AuditOutcome, Steering};
use cdc_host::{app, authoring, check, guest, logging, sandbox, store, tail, terminal};

/// The system's allocator costs a tenth of the service's time: what one thread allocates, another mostly frees.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    // The service calls itself to compile components in processes of their own.
    match arguments.as_slice() {
        [_, command, component, output] if command == sandbox::COMPILE_ENGINE => {
            return finish(compile(component, output, sandbox::precompile));
        }
        [_, command, component, output] if command == guest::COMPILE_GUEST => {
            return finish(compile(component, output, guest::precompile));
        }
        _ => {}
    }
    let folder = match std::env::current_dir() {
        Ok(folder) => folder,
        Err(error) => return finish(Err(format!("the working folder cannot be found: {error}"))),
    };
    match config::parse(arguments, &Environment::of_process(), &folder) {
        Err(error) => error.report(),
        Ok(Invocation::Serve(serve)) => finish(run_service(*serve)),
        Ok(Invocation::PrintConfig(text)) => finish(print(text.as_bytes())),
        Ok(Invocation::Tail(settings)) => finish(run_tail(&settings)),
        Ok(Invocation::Engine(settings)) => finish(export_engine(&settings)),
        Ok(Invocation::Component(command)) => finish(component(&command)),
        Ok(Invocation::Check(what)) => check_configured(&what),
        Ok(Invocation::DropSource(farewell)) => finish(drop_source(*farewell)),
        Ok(Invocation::Steer(steering)) => finish(steer(steering)),
        Ok(Invocation::Audit(command)) => audit(command),
        Ok(Invocation::Verify(settings)) => verify(&settings),
    }
}

fn compile<E: std::fmt::Display>(
    component: &std::ffi::OsStr,
    output: &std::ffi::OsStr,
    precompile: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>,
) -> Result<(), String> {
    let bytes = std::fs::read(component).map_err(|error| error.to_string())?;
    let native = precompile(&bytes).map_err(|error| error.to_string())?;
    std::fs::write(output, native).map_err(|error| error.to_string())
}

/// Errors go to stderr as one line; the service's own log is on stderr too.
fn finish(outcome: Result<(), String>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            // Nothing is left to be done about a closed stderr.
            let _ = writeln!(std::io::stderr(), "error: {}", terminal::plain(&message));
            ExitCode::FAILURE
        }
    }
}

/// Prints text for people and scripts.
fn print(bytes: &[u8]) -> Result<(), String> {
    write_out(terminal::plain(&String::from_utf8_lossy(bytes)).as_bytes())
}

fn write_out(bytes: &[u8]) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| format!("cannot write to stdout: {error}"))
}

fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("the runtime cannot be started: {error}"))
}

fn run_service(serve: Serve) -> Result<(), String> {
    // Rows, secrets of subscriptions and code that is run: nobody else's, whatever the shell's habits are.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let Serve { settings, config_file, declared, warnings } = serve;
    logging::init(settings.log_format, &settings.log_level).map_err(|error| error.to_string())?;
    if let Some(file) = config_file {
        tracing::info!(file = %file.display(), "configuration read");
    }
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let runtime = runtime()?;
    runtime.block_on(async {
        let stop = stop_signal().map_err(|error| format!("signals cannot be received: {error}"))?;
        app::serve(settings, declared, stop).await.map_err(|error| error.to_string())
    })
}

/// Done at the first SIGTERM or SIGINT. Installed at once, so that a signal during the start is not lost.
fn stop_signal() -> std::io::Result<app::Stop> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(Box::pin(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }))
}

fn run_tail(settings: &tail::TailSettings) -> Result<(), String> {
    let interrupted = async {
        // Without a handler the signal ends the process, which is what it is for.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    runtime()?.block_on(tail::run(settings, Box::pin(interrupted))).map_err(|error| error.to_string())
}

fn component(command: &ComponentCommand) -> Result<(), String> {
    let runtime = runtime()?;
    let tasks = runtime.handle().clone();
    match command {
        ComponentCommand::Check(settings) => {
            let text = authoring::check(settings, tasks).map_err(|error| error.to_string())?;
            print(text.as_bytes())
        }
        ComponentCommand::Test(settings) => {
            let mut out = std::io::stdout().lock();
            authoring::run(settings, tasks, &mut out).map_err(|error| error.to_string())
        }
        ComponentCommand::Wit => print(authoring::wit().as_bytes()),
    }
}

fn export_engine(settings: &EngineSettings) -> Result<(), String> {
    let component = sandbox::built_in_component();
    match &settings.file {
        None => write_out(component),
        Some(file) => {
            std::fs::write(file, component).map_err(|error| format!("cannot write {}: {error}", file.display()))
        }
    }
}

/// 0: everything can work; 1: something is missing, and it says what; 2: there is nothing to look at.
fn check_configured(what: &Check) -> ExitCode {
    let checked = runtime().map(|runtime| {
        runtime.block_on(check::check(&what.declared.sources, &what.declared.subscriptions, &what.names))
    });
    let report = match checked {
        Ok(Ok(report)) => report,
        Ok(Err(error)) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            return ExitCode::from(2);
        }
        Err(message) => return finish(Err(message)),
    };
    let text = if what.json { report.json() } else { report.text() };
    match print(text.as_bytes()) {
        Ok(()) if report.is_missing_something() => ExitCode::FAILURE,
        printed => finish(printed),
    }
}

fn drop_source(farewell: Farewell) -> Result<(), String> {
    let said = runtime()?.block_on(farewell.say()).map_err(|error| error.to_string())?;
    print(said.as_bytes())
}

fn steer(steering: Steering) -> Result<(), String> {
    let said = runtime()?.block_on(steering.say()).map_err(|error| error.to_string())?;
    print(said.as_bytes())
}

/// 0: every row is the database's; 1: rows differ, and it says which; 2: not all could be compared, and it says why.
fn audit(command: AuditCommand) -> ExitCode {
    let said = runtime().and_then(|runtime| {
        let said = command.say(|text| print(text.as_bytes()));
        runtime.block_on(said).map_err(|error| error.to_string())
    });
    match said {
        Ok(AuditOutcome::Equal) => ExitCode::SUCCESS,
        Ok(AuditOutcome::Different) => ExitCode::FAILURE,
        Ok(AuditOutcome::Unfinished) => ExitCode::from(2),
        Err(message) => {
            let _ = finish(Err(message));
            ExitCode::from(2)
        }
    }
}

/// 0: sound; 1: something is wrong, and it says what; 2: the folder cannot be checked.
fn verify(settings: &config::VerifySettings) -> ExitCode {
    let report = match store::verify(&settings.data) {
        Ok(report) => report,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            return ExitCode::from(2);
        }
    };
    let printed = if settings.json {
        let findings: Vec<_> = report
            .findings
            .iter()
            .map(|finding| {
                serde_json::json!({ "file": finding.file, "offset": finding.offset, "message": finding.message })
            })
            .collect();
        let report = serde_json::json!({
            "sound": report.findings.is_empty(),
            "segments": report.segments,
            "events": report.events,
            "oldestSequence": report.oldest,
            "newestSequence": report.newest,
            "checkpointSequence": report.checkpoint,
            "rows": report.rows,
            "rowsProven": report.rows_proven,
            "tornBytes": report.torn_bytes,
            "findings": findings,
        });
        print(format!("{report}\n").as_bytes())
    } else {
        let mut text = String::new();
        for finding in &report.findings {
            text.push_str(&format!("{finding}\n"));
        }
        let verdict = match report.findings.len() {
            0 => "sound".to_owned(),
            findings => format!("{findings} findings"),
        };
        text.push_str(&format!(
            "{verdict}: {} events ({} to {}) in {} segments; {} rows, {} of them proven by the log\n",
            report.events, report.oldest, report.newest, report.segments, report.rows, report.rows_proven
        ));
        if report.torn_bytes > 0 {
            text.push_str(&format!("{} torn bytes at the end: the next start cuts them off\n", report.torn_bytes));
        }
        print(text.as_bytes())
    };
    match printed {
        Ok(()) if report.findings.is_empty() => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
        Err(message) => finish(Err(message)),
    }
}
