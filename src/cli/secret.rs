//! `landfall secret …`: values that only apps see. A value is read from standard input or typed unseen; it is never an
//! argument, which everybody on the machine could read.

use std::io::{BufRead, IsTerminal, Read, Write};

use clap::{Args, Subcommand};
use jiff::Timestamp;
use nix::sys::termios::{self, LocalFlags, SetArg};

use super::exit::{CliError, Exit, Outcome};
use super::table::Table;
use super::when::relative;
use super::{Context, terminal};
use crate::domain::{AppName, SecretName};
use crate::wire::secrets::{NamedSecret, Secret, SetSecret};

/// A little more than a value can be: the agent refuses what is too long.
const LONGEST: u64 = crate::domain::Secret::LONGEST as u64 + 2;

/// Verbs of `landfall secret`.
#[derive(Debug, Clone, Subcommand)]
pub enum SecretCommand {
    /// Store a secret: its value is typed unseen, or read from standard input
    Set(SetArgs),
    /// List the stored secrets, without their values
    #[command(visible_alias = "ls")]
    List,
    /// Remove a secret; instances that run keep what they were given
    Rm(Which),
    /// Seal all secrets anew with a new key, and forget the one before
    RotateKey,
}

/// Which secret.
#[derive(Debug, Clone, Args)]
pub struct Which {
    /// Its name: a-z, 0-9 and -
    name: SecretName,
    /// For this app alone [default: for all apps of the environment]
    #[arg(long)]
    app: Option<AppName>,
}

/// Options of `landfall secret set`.
#[derive(Debug, Clone, Args)]
pub struct SetArgs {
    #[command(flatten)]
    which: Which,
    /// `-`: read the value from standard input, as is done anyway when that is no terminal. A last end of line does not
    /// count
    #[arg(value_name = "-", value_parser = ["-"])]
    from_stdin: Option<String>,
}

/// Carries out a verb.
pub async fn run(context: &Context, command: &SecretCommand) -> Outcome {
    match command {
        SecretCommand::Set(args) => set(context, args).await,
        SecretCommand::List => {
            let secrets = context.client.secrets().await?;
            if context.json {
                terminal::json(&secrets)?;
            } else if secrets.is_empty() {
                terminal::line("No secrets are stored: `landfall secret set NAME` stores one; see docs/secrets.md.")?;
            } else {
                terminal::print(&list(context, &secrets))?;
            }
            Ok(Exit::Ok)
        }
        SecretCommand::Rm(which) => {
            let Which { name, app } = which.clone();
            let named = NamedSecret { secret: name, environment: context.environment().cloned(), app };
            context.client.remove_secret(&named).await?;
            if context.json {
                terminal::json(&named)?;
            } else {
                terminal::line(format!("{} is removed", which.name))?;
            }
            Ok(Exit::Ok)
        }
        SecretCommand::RotateKey => {
            let rotated = context.client.rotate_secrets_key().await?;
            if context.json {
                terminal::json(&rotated)?;
            } else {
                terminal::line(format!("{} secrets are sealed with key {} now", rotated.secrets, rotated.key))?;
                terminal::line("Copies of the ledger from before open only with the key file from before.")?;
            }
            Ok(Exit::Ok)
        }
    }
}

async fn set(context: &Context, args: &SetArgs) -> Outcome {
    let Which { name, app } = args.which.clone();
    let value = match args.from_stdin {
        None if std::io::stdin().is_terminal() => typed(&format!("Value of {name} (it is not shown): "))?,
        Some(_) | None => piped()?,
    };
    let request = SetSecret { secret: name, environment: context.environment().cloned(), app, value };
    let secret = context.client.set_secret(&request).await?;
    if context.json {
        terminal::json(&secret)?;
    } else {
        let whose = secret.app.as_ref().map_or("all apps".to_owned(), |app| format!("app {app}"));
        let (name, environment, revision) = (&secret.secret, &secret.environment, secret.revision);
        terminal::line(format!("{name} is stored for {whose} of {environment}, revision {revision}"))?;
        if revision > 1 {
            terminal::line("New instances get it; `landfall app rollover APP` renews those that run.")?;
        }
    }
    Ok(Exit::Ok)
}

/// From a pipe or file. Not more than a value can be.
fn piped() -> Result<String, CliError> {
    let mut value = Vec::new();
    std::io::stdin().lock().take(LONGEST).read_to_end(&mut value)?;
    let value = String::from_utf8(value)
        .map_err(|_| CliError::hinted(Exit::Usage, "the value is no text", "encode it, for example with base64"))?;
    Ok(without_end(value))
}

fn without_end(mut value: String) -> String {
    if value.ends_with('\n') {
        value.pop();
    }
    value
}

/// From the keyboard, without showing it.
fn typed(question: &str) -> Result<String, CliError> {
    let stdin = std::io::stdin();
    let before = termios::tcgetattr(&stdin).map_err(std::io::Error::from)?;
    let mut hidden = before.clone();
    hidden.local_flags.remove(LocalFlags::ECHO);
    let mut err = std::io::stderr().lock();
    write!(err, "{question}")?;
    err.flush()?;
    termios::tcsetattr(&stdin, SetArg::TCSAFLUSH, &hidden).map_err(std::io::Error::from)?;
    let mut value = String::new();
    let read = stdin.lock().take(LONGEST).read_line(&mut value);
    // Whatever came of it, the terminal is as it was.
    termios::tcsetattr(&stdin, SetArg::TCSAFLUSH, &before).map_err(std::io::Error::from)?;
    writeln!(err)?;
    read?;
    Ok(without_end(value))
}

fn list(context: &Context, secrets: &[Secret]) -> String {
    let now = Timestamp::now();
    let mut table = Table::new(&["SECRET", "ENVIRONMENT", "APP", "REVISION", "SET", "BY", "KEY"]);
    for secret in secrets {
        table.row([
            secret.secret.to_string(),
            secret.environment.to_string(),
            secret.app.as_ref().map_or_else(|| "all".to_owned(), ToString::to_string),
            secret.revision.to_string(),
            relative(secret.set_at, now),
            secret.set_by.clone(),
            secret.key.clone(),
        ]);
    }
    table.render(context.terminal.width())
}
