//! The command line: one file per noun.
//!
//! Floor 5. Talks to the API only, through [`crate::client`], and never opens the ledger. The hidden roles and
//! `agent` itself are carried out by `main.rs`; everything else ends in [`run`].
//!
//! | file | what |
//! |---|---|
//! | `exit` | exit codes, errors |
//! | `locate` | which agent |
//! | `terminal`, `table`, `when`, `winsize` | how things look |
//! | `follow`, `tree` | watching a deployment |
//! | `agent` | configuration → what the supervisor is told |
//! | `doctor/` | whether machine and agent are fit |
//! | `demo/` | an agent, a repository and example apps out of nothing |
//! | `init/` | manifests out of Compose files and Procfiles |
//! | the others | one command or noun each |
//!
//! Invariant: output for programs (`--json`, pipes) never depends on the terminal, the locale or the time zone.

pub mod agent;
mod app;
mod app_change;
mod app_diff;
mod app_functions;
mod app_logs;
mod app_requests;
mod app_services;
mod app_show;
mod approve;
mod audit;
mod call;
mod calls;
mod certificate;
mod check;
mod completions;
mod dashboard;
mod demo;
mod deploy;
mod doctor;
mod events;
pub mod exit;
mod follow;
mod healthcheck;
mod init;
mod instance;
mod instance_exec;
mod locate;
mod notify;
mod plan;
mod schedule;
mod schedule_batch;
mod schedule_logs;
mod schedule_runs;
mod secret;
mod source;
mod status;
mod table;
mod terminal;
mod token;
mod tree;
mod when;
mod winsize;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::client::Client;
use crate::domain::EnvironmentName;

use exit::{CliError, EXIT_CODES, Exit, Outcome};
use locate::Said;
use terminal::Terminal;

/// Landfall turns `git push` into a running, versioned deployment on machines you own.
#[derive(Debug, Parser)]
#[command(name = "landfall", version, after_help = EXIT_CODES, arg_required_else_help = true)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub globals: Globals,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct Globals {
    /// The agent to talk to: path of its socket, or https://HOST:PORT with a token in LANDFALL_TOKEN
    #[arg(long, global = true, env = "LANDFALL_AGENT", value_name = "SOCKET-OR-URL", help_heading = "Global options")]
    pub agent: Option<String>,
    /// The agent's configuration file [default: ./config/landfall.yaml]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub config: Option<PathBuf>,
    /// Environment of the app [default: the agent's]
    #[arg(long = "env", global = true, env = "LANDFALL_ENV", value_name = "NAME", help_heading = "Global options")]
    pub environment: Option<EnvironmentName>,
    /// Print JSON
    #[arg(long, global = true, help_heading = "Global options")]
    pub json: bool,
    /// Format of log messages on standard error (what is logged: LANDFALL_LOG, e.g. `debug`)
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT", help_heading = "Global options")]
    pub log_format: LogFormat,
}

/// How log messages look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the agent
    Agent(agent::AgentArgs),
    /// Try everything: a git repository, an agent and example apps, gone again after Ctrl-C
    Demo(demo::DemoArgs),
    /// Check manifests or agent configurations: every error at once, nothing is started
    Check(check::CheckArgs),
    /// Write manifests from a Compose file or a Procfile, and say what could not be translated
    Init(init::InitArgs),
    /// Print the JSON Schema of a file, for editors
    Schema(check::SchemaArgs),
    /// Show what the newest revision of the sources would change, without doing it
    Plan(plan::PlanArgs),
    /// Deploy a directory as a new version, without git
    Deploy(deploy::DeployArgs),
    /// Call a function and wait for its result
    Call(call::CallArgs),
    /// Look at calls that were spawned, end them, try them anew
    #[command(subcommand)]
    Calls(calls::CallsCommand),
    /// Look at apps and change what they run
    #[command(subcommand)]
    App(app::AppCommand),
    /// Look at sources
    #[command(subcommand)]
    Source(source::SourceCommand),
    /// Look at schedules, run and pause them, and compute when one is due
    #[command(subcommand)]
    Schedule(schedule::ScheduleCommand),
    /// Look at the channels that people hear by, and try them
    #[command(subcommand)]
    Notify(notify::NotifyCommand),
    /// Make, list and revoke tokens: who may ask from elsewhere
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Print who changed what, from where, and what came of it
    Audit(audit::AuditArgs),
    /// Store values that only apps see
    #[command(subcommand)]
    Secret(secret::SecretCommand),
    /// Look at the certificates that clients are shown over HTTPS
    #[command(subcommand, visible_alias = "certificates")]
    Certificate(certificate::CertificateCommand),
    /// Look at running instances
    #[command(subcommand)]
    Instance(instance::InstanceCommand),
    /// Show the agent's processes, what is running and what is wrong
    Status,
    /// Check whether this machine and its agent are fit, and say what to do where not
    Doctor,
    /// Exit with 0 if the agent answers; for probes of containers and pods
    Healthcheck(healthcheck::HealthcheckArgs),
    /// Print where the dashboard is, and open it where there is a desktop
    Dashboard,
    /// Print what happened, oldest first
    Events(events::EventsArgs),
    /// Print a completion script for a shell
    Completions(completions::CompletionsArgs),
    /// Takes up a supervisor's work after an upgrade.
    #[command(name = "internal-supervisor", hide = true)]
    InternalSupervisor {
        /// Descriptor with the saved state.
        #[arg(long, required_unless_present = "plan")]
        resume_fd: Option<i32>,
        /// A plan as JSON, to start from instead; so one supervisor can be tried by itself.
        #[arg(long, requires = "launch")]
        plan: Option<String>,
        /// The programs to start, as JSON.
        #[arg(long)]
        launch: Option<String>,
    },
    /// The control plane, started by the supervisor.
    #[command(name = "internal-controller", hide = true)]
    InternalController {
        /// The data directory.
        #[arg(long)]
        data_dir: PathBuf,
    },
    /// A server around a command, for functions that are a process per call.
    #[command(name = "internal-exec", hide = true)]
    InternalExec {
        /// Program and arguments.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Runs a command beside an instance, for whoever is at the other end of its standard input.
    #[command(name = "internal-attend", hide = true)]
    InternalAttend,
    /// Sends a signal to the readers of a published tree.
    #[command(name = "internal-signal", hide = true)]
    InternalSignal {
        /// Its name without `SIG`.
        signal: String,
        /// The file with the number of the process.
        #[arg(long, conflicts_with = "process", required_unless_present = "process")]
        pid_file: Option<PathBuf>,
        /// The name of the process.
        #[arg(long)]
        process: Option<String>,
    },
    /// The data plane, started by the supervisor.
    #[command(name = "internal-proxy", hide = true)]
    InternalProxy {
        /// The data directory.
        #[arg(long)]
        data_dir: PathBuf,
    },
    /// Looks after a Compose project, for apps with `compose`.
    #[command(name = "internal-compose", hide = true)]
    InternalCompose {
        /// Its files.
        #[arg(long = "file", required = true)]
        files: Vec<String>,
        /// Services with one of these profiles run too.
        #[arg(long = "profile")]
        profiles: Vec<String>,
        /// It must be healthy after so many milliseconds.
        #[arg(long)]
        timeout_ms: u64,
        /// Only its images are found: of the project in this directory.
        #[arg(long)]
        images_of: Option<PathBuf>,
    },
}

/// What a command that talks to an agent works with.
#[derive(Debug)]
struct Context {
    client: Client,
    environment: Option<EnvironmentName>,
    json: bool,
    terminal: Terminal,
}

impl Context {
    fn new(globals: &Globals) -> Result<Self, CliError> {
        let here = std::env::current_dir()
            .map_err(|error| CliError::new(Exit::Failed, format!("the current directory cannot be read: {error}")))?;
        let said = Said { agent: globals.agent.clone(), config: globals.config.clone() };
        Ok(Self {
            client: locate::connect(&locate::locate(&said, &here)?)?,
            environment: globals.environment.clone(),
            json: globals.json,
            terminal: Terminal::detect(),
        })
    }

    fn environment(&self) -> Option<&EnvironmentName> {
        self.environment.as_ref()
    }
}

/// Carries out a command that is not a role of the agent.
pub fn run(cli: Cli) -> Outcome {
    let globals = cli.globals;
    match cli.command {
        Command::Check(args) => check::check(&args, globals.json),
        Command::Schema(args) => check::schema(&args),
        Command::Init(args) => init::run(&args, globals.json),
        Command::Completions(args) => completions::run(&args),
        Command::Schedule(schedule::ScheduleCommand::Next(args)) => schedule::next(&args, globals.json),
        Command::Schedule(command) => talk(&globals, async |context| schedule::run(context, &command).await),
        Command::Demo(args) => runtime()?.block_on(demo::run(args)),
        Command::Plan(args) => talk(&globals, async |context| plan::run(context, &args).await),
        Command::Deploy(args) => talk(&globals, async |context| deploy::run(context, &args).await),
        Command::Call(args) => talk(&globals, async |context| call::run(context, &args).await),
        Command::Calls(command) => talk(&globals, async |context| calls::run(context, &command).await),
        Command::App(command) => talk(&globals, async |context| app::run(context, &command).await),
        Command::Source(command) => talk(&globals, async |context| source::run(context, &command).await),
        Command::Certificate(command) => talk(&globals, async |context| certificate::run(context, &command).await),
        Command::Notify(command) => talk(&globals, async |context| notify::run(context, &command).await),
        Command::Audit(args) => talk(&globals, async |context| audit::run(context, &args).await),
        Command::Token(command) => talk(&globals, async |context| token::run(context, &command).await),
        Command::Secret(command) => talk(&globals, async |context| secret::run(context, &command).await),
        Command::Instance(command) => talk(&globals, async |context| instance::run(context, &command).await),
        Command::Doctor => runtime()?.block_on(doctor::run(&globals)),
        Command::Status => talk(&globals, async |context| status::run(context).await),
        Command::Healthcheck(args) => talk(&globals, async |context| healthcheck::run(context, &args).await),
        Command::Dashboard => talk(&globals, async |context| dashboard::run(context).await),
        Command::Events(args) => talk(&globals, async |context| events::run(context, &args).await),
        Command::Agent(_)
        | Command::InternalCompose { .. }
        | Command::InternalSupervisor { .. }
        | Command::InternalController { .. }
        | Command::InternalProxy { .. }
        | Command::InternalAttend
        | Command::InternalExec { .. }
        | Command::InternalSignal { .. } => {
            Err(CliError::new(Exit::Failed, "this role is started by the program itself; this is a defect"))
        }
    }
}

fn talk(globals: &Globals, command: impl AsyncFnOnce(&Context) -> Outcome) -> Outcome {
    let context = Context::new(globals)?;
    runtime()?.block_on(command(&context))
}

/// Commands wait for one thing at a time: one thread is enough.
fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::new(Exit::Failed, format!("the program cannot start its runtime: {error}")))
}

#[cfg(test)]
mod tests;
