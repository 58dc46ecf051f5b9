//! The program: arguments → role, logging, exit code.
//!
//! The supervisor's role runs without threads and without a runtime; the others start what they need.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use landfall::cli::exit::{CliError, Exit};
use landfall::cli::{self, Cli, Command, LogFormat};
use landfall::controller;
use landfall::engine::{Configured, ReadConfiguration};
use landfall::exec;
use landfall::proxy::{self, ProxyOptions, ProxySettings};
use landfall::runtime::docker::compose::{self, Order};
use landfall::supervisor::{self, Launch};
use landfall::wire::supervisor::Plan;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

/// musl's own gives every larger piece back to the kernel and asks for the next: four system calls more for a request.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What is logged, in the syntax of `tracing` (`debug`, `landfall::proxy=trace,info`).
const LOG_VARIABLE: &str = "LANDFALL_LOG";

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_logging(cli.globals.log_format, is_role(&cli.command));
    match run(cli) {
        Ok(code) => ExitCode::from(code),
        Err(CliError::PipeClosed) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit().code())
        }
    }
}

fn run(cli: Cli) -> Result<u8, CliError> {
    match cli.command {
        Command::Agent(args) => {
            let plan = cli::agent::plan(&args, &cli.globals)?;
            supervise(plan)
        }
        Command::InternalSupervisor { resume_fd: Some(fd), .. } => supervisor::resume(fd).map(code).map_err(failed),
        Command::InternalSupervisor { resume_fd: None, plan, launch } => {
            let plan = serde_json::from_str(&plan.unwrap_or_default()).map_err(failed)?;
            let launch = serde_json::from_str(&launch.unwrap_or_default()).map_err(failed)?;
            supervisor::run(plan, launch).map(code).map_err(failed)
        }
        Command::InternalController { data_dir } => control(&data_dir, cli.globals.config.as_deref()),
        Command::InternalProxy { data_dir } => ProxySettings::from_environment(data_dir, ProxyOptions::default())
            .and_then(proxy::run)
            .map(|()| Exit::Ok.code())
            .map_err(failed),
        Command::InternalExec { command } => exec::run(command).map(|()| Exit::Ok.code()).map_err(failed),
        Command::InternalAttend => exec::attend::run().map(|()| Exit::Ok.code()).map_err(failed),
        Command::InternalSignal { signal, pid_file, process } => {
            let receiver = match (&pid_file, &process) {
                (Some(file), _) => exec::signal::Receiver::PidFile(file),
                (None, name) => exec::signal::Receiver::Process(name.as_deref().unwrap_or_default()),
            };
            exec::signal::send(&signal, &receiver).map(|()| Exit::Ok.code()).map_err(failed)
        }
        Command::InternalCompose { files, profiles, timeout_ms, images_of } => {
            let order = Order { files, profiles, timeout: Duration::from_millis(timeout_ms) };
            let done = match images_of {
                Some(directory) => compose::find_images(&order, &directory),
                None => compose::run(order),
            };
            done.map(|()| Exit::Ok.code()).map_err(failed)
        }
        Command::Demo(_)
        | Command::Check(_)
        | Command::Schema(_)
        | Command::Plan(_)
        | Command::Deploy(_)
        | Command::Call(_)
        | Command::Calls(_)
        | Command::App(_)
        | Command::Source(_)
        | Command::Schedule(_)
        | Command::Certificate(_)
        | Command::Notify(_)
        | Command::Token(_)
        | Command::Audit(_)
        | Command::Secret(_)
        | Command::Instance(_)
        | Command::Doctor
        | Command::Status
        | Command::Healthcheck(_)
        | Command::Dashboard
        | Command::Events(_)
        | Command::Completions(_)
        | Command::Init(_) => cli::run(cli).map(Exit::code),
    }
}

fn supervise(plan: Plan) -> Result<u8, CliError> {
    let launch = Launch::own(&plan).map_err(failed)?;
    supervisor::run(plan, launch).map(code).map_err(failed)
}

/// Runs the control plane with the configuration as it is now, or as it last was when it could be read.
fn control(data_dir: &Path, file: Option<&Path>) -> Result<u8, CliError> {
    let found = cli::agent::controller_config(data_dir, file)?;
    let again = (data_dir.to_owned(), file.map(Path::to_owned));
    let read: ReadConfiguration = Arc::new(move || cli::agent::read_again(&again.0, again.1.as_deref()));
    let configured = Configured {
        data_dir: data_dir.to_owned(),
        socket: found.socket,
        config: found.config,
        file: file.map(Path::to_owned),
        problem: found.problem,
        read,
    };
    controller::run(configured).map(|()| Exit::Ok.code()).map_err(failed)
}

fn failed(error: impl std::fmt::Display) -> CliError {
    CliError::new(Exit::Failed, error.to_string())
}

/// Roles hand their code on as it is; what does not fit a byte is a failure.
fn code(code: i32) -> u8 {
    u8::try_from(code).unwrap_or(Exit::Failed.code())
}

/// Whether this process is part of an agent, and so tells what it does by itself.
fn is_role(command: &Command) -> bool {
    matches!(
        command,
        Command::Agent(_)
            | Command::InternalSupervisor { .. }
            | Command::InternalController { .. }
            | Command::InternalProxy { .. }
    )
}

fn start_logging(format: LogFormat, role: bool) {
    let usual = if role { "info" } else { "warn" };
    let wanted = std::env::var(LOG_VARIABLE).unwrap_or_default();
    let (filter, complaint) = match wanted.as_str() {
        "" => (EnvFilter::new(usual), None),
        text => match EnvFilter::try_new(text) {
            Ok(filter) => (filter, None),
            Err(error) => (EnvFilter::new(usual), Some(error)),
        },
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Json => builder.json().flatten_event(true).init(),
        LogFormat::Text => {
            let colour = std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none();
            builder.with_timer(Utc).with_target(false).with_ansi(colour).init();
        }
    }
    if let Some(error) = complaint {
        tracing::warn!("{LOG_VARIABLE}={wanted} is not understood ({error}); logging `{usual}`");
    }
}

/// Short times that mean the same on every machine.
struct Utc;

impl FormatTime for Utc {
    fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
        write!(writer, "{}", jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%3fZ"))
    }
}
