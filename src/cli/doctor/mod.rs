//! `landfall doctor`: whether this machine and this agent are fit, check by check, and what to do where not.
//!
//! | file | what is looked at |
//! |---|---|
//! | `machine` | disk, clock, time zones, control groups, open files |
//! | `files` | the data directory, keys, sockets |
//! | `running` | the agent that answers: its version, sources, certificates, what `status` says |
//! | `programs` | what apps are started with |
//!
//! Works with and without an agent that answers: what only an agent knows is left out then, and said so. Nothing is
//! changed, and the ledger is not opened.

mod files;
mod machine;
mod programs;
mod running;

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::client::{Client, Target};
use crate::files::Config;
use crate::wire::api::Status;

use super::exit::{CliError, Exit, Outcome};
use super::terminal::{self, Paint, Terminal};
use super::{Globals, locate};

/// An agent that takes longer to answer is not well.
const ANSWER: Duration = Duration::from_secs(10);

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Level {
    /// As it should be.
    Ok,
    /// Works, but somebody should know.
    Warning,
    /// Must be mended.
    Failure,
}

/// One finding of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    /// What was checked: `disk`, `clock`, …
    check: &'static str,
    /// How it came out.
    level: Level,
    /// What was found.
    message: String,
    /// What to do, where there is something to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self { check, level: Level::Ok, message: message.into(), mend: None }
    }

    fn warning(check: &'static str, message: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { check, level: Level::Warning, message: message.into(), mend: Some(mend.into()) }
    }

    fn failure(check: &'static str, message: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { check, level: Level::Failure, message: message.into(), mend: Some(mend.into()) }
    }
}

/// Everything that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Report {
    /// No check failed.
    healthy: bool,
    /// In the order of the checks.
    checks: Vec<Finding>,
}

/// What the checks look at.
#[derive(Debug)]
struct Patient {
    /// The configuration, where there is one that can be read.
    config: Option<Config>,
    /// Where the data lies, if it lies on this machine.
    data_dir: Option<PathBuf>,
    /// The API's socket, if the agent is meant by one.
    socket: Option<PathBuf>,
    /// Who to ask.
    client: Option<Client>,
    /// What the agent says; `None` when none answers.
    status: Option<Status>,
    /// Now.
    now: Timestamp,
}

/// Carries it out. Failures make exit code 1, warnings do not.
pub async fn run(globals: &Globals) -> Outcome {
    let mut checks = Vec::new();
    let patient = examine(globals, &mut checks).await?;
    checks.extend(machine::check(&patient));
    checks.extend(files::check(&patient));
    checks.extend(running::check(&patient).await);
    checks.extend(programs::check(&patient).await);
    let report = Report { healthy: checks.iter().all(|finding| finding.level != Level::Failure), checks };
    if globals.json {
        terminal::json(&report)?;
    } else {
        terminal::print(&text(&report, Terminal::detect()))?;
    }
    Ok(if report.healthy { Exit::Ok } else { Exit::Failed })
}

/// Finds configuration and agent; what is wrong with either is a finding, not the end.
async fn examine(globals: &Globals, checks: &mut Vec<Finding>) -> Result<Patient, CliError> {
    let here = std::env::current_dir()
        .map_err(|error| CliError::new(Exit::Failed, format!("the current directory cannot be read: {error}")))?;
    let usual = here.join(locate::DEFAULT_CONFIG);
    let named = globals.config.as_ref().map(|file| here.join(file));
    let config = match named.or_else(|| usual.is_file().then_some(usual)) {
        None => {
            checks.push(Finding::ok("configuration", "there is none: everything is as it is by default"));
            None
        }
        Some(file) => match locate::read(&file) {
            Ok(config) => {
                checks.push(Finding::ok("configuration", format!("{} can be read", file.display())));
                Some(config)
            }
            Err(error) => {
                let mend = "mend it; `landfall check` shows every error of a file";
                checks.push(Finding::failure("configuration", error.to_string(), mend));
                None
            }
        },
    };
    let target = match (globals.agent.as_deref().filter(|agent| !agent.is_empty()), &config) {
        (None, Some(config)) => Target::Socket(config.api.socket.clone()),
        (None, None) => Target::Socket(here.join(locate::DEFAULT_SOCKET)),
        (Some(_), _) => locate::locate(&locate::Said { agent: globals.agent.clone(), config: None }, &here)?,
    };
    let socket = match &target {
        Target::Socket(path) => Some(path.clone()),
        Target::Url(_) => None,
    };
    let client = locate::connect(&target)?;
    let answer = tokio::time::timeout(ANSWER, client.status()).await;
    let (status, finding) = running::answered(answer, &target, socket.as_deref());
    checks.push(finding);
    let told = status.as_ref().map(|status| PathBuf::from(&status.data_dir));
    let by_default = || here.join("data");
    let data_dir = match &socket {
        // An agent elsewhere has its files elsewhere.
        None => None,
        Some(_) => {
            told.or_else(|| config.as_ref().map(|config| config.data_dir.clone())).or_else(|| Some(by_default()))
        }
    };
    let client = status.is_some().then_some(client);
    Ok(Patient { config, data_dir, socket, client, status, now: Timestamp::now() })
}

fn text(report: &Report, terminal: Terminal) -> String {
    let widest = report.checks.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
    let mut text = String::new();
    for finding in &report.checks {
        let (paint, word) = match finding.level {
            Level::Ok => (Paint::Good, "ok     "),
            Level::Warning => (Paint::Busy, "warning"),
            Level::Failure => (Paint::Bad, "failure"),
        };
        let margin = " ".repeat(widest + 11);
        let indented = |words: &str| terminal.harmless_lines(words).replace('\n', &format!("\n{margin}"));
        let check = finding.check;
        text.push_str(&format!("{}  {check:<widest$}  {}\n", terminal.paint(paint, word), indented(&finding.message)));
        if let Some(mend) = &finding.mend {
            text.push_str(&format!("{margin}{}\n", terminal.paint(Paint::Dim, &format!("→ {}", indented(mend)))));
        }
    }
    let count = |level: Level| report.checks.iter().filter(|finding| finding.level == level).count();
    let (warnings, failures) = (count(Level::Warning), count(Level::Failure));
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    text.push_str(&match (failures, warnings) {
        (0, 0) => "\nAll is well.\n".to_owned(),
        (0, _) => format!("\n{warnings} warning{}, no failure.\n", plural(warnings)),
        (_, _) => format!("\n{failures} failure{}, {warnings} warning{}.\n", plural(failures), plural(warnings)),
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_finding_is_a_line_with_its_mend_below_and_the_worst_is_counted() {
        let checks = vec![
            Finding::ok("disk", "12 GiB are free"),
            Finding::warning("time zones", "they are old", "update `tzdata`"),
            Finding::failure("key", "anybody may read it\nand did", "chmod 600"),
        ];
        let report = Report { healthy: false, checks };
        let text = text(&report, Terminal { interactive: false, colour: false });
        let expected = "ok       disk        12 GiB are free\n\
                        warning  time zones  they are old\n                     → update `tzdata`\n\
                        failure  key         anybody may read it\n                     and did\n                     → chmod 600\n\n\
                        1 failure, 1 warning.\n";
        assert_eq!(text, expected);
    }
}
