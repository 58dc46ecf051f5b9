//! How a command ends: one closed set of exit codes, and the error that carries one.
//!
//! Invariant: every failure a person can meet maps to exactly one [`Exit`]; `--help` prints the same table.

use std::fmt;
use std::io;

use crate::client::ClientError;
use crate::wire::api::Problem;

/// The exit codes of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done, or nothing to do.
    Ok,
    /// The deployment or the call failed, the command was refused, `status` found problems, or `doctor` failures.
    Failed,
    /// Wrong arguments, or a file with errors.
    Usage,
    /// No agent answers.
    NoAgent,
    /// There is no such app, function, version, source or deployment.
    NotFound,
    /// The command does not fit the present state.
    Conflict,
    /// Waited long enough.
    TimedOut,
    /// Ctrl-C.
    Interrupted,
    /// What a command that was run in an instance returned.
    Returned(u8),
}

/// Printed below every `--help`.
pub const EXIT_CODES: &str = "Exit codes:
  0    done, or nothing to do
  1    failed: the deployment or the call failed, the command was refused, status found problems, or doctor failures
  2    wrong arguments, or a file with errors
  3    no agent answers
  4    not found: no such app, function, version, source or deployment
  5    conflict with the present state (already stopped, not held, ...)
  6    timed out waiting
  130  interrupted (Ctrl-C); a deployment under way goes on";

impl Exit {
    /// The number the shell sees.
    pub fn code(self) -> u8 {
        match self {
            Exit::Ok => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::NoAgent => 3,
            Exit::NotFound => 4,
            Exit::Conflict => 5,
            Exit::TimedOut => 6,
            Exit::Interrupted => 130,
            Exit::Returned(code) => code,
        }
    }

    /// What the API's stable word for a problem means to the shell.
    fn of_problem(problem: &Problem) -> Self {
        match (problem.code.as_str(), problem.status) {
            ("not_found", _) | (_, 404) => Exit::NotFound,
            ("conflict", _) | (_, 409) => Exit::Conflict,
            ("invalid", _) | (_, 400 | 413 | 422) => Exit::Usage,
            ("timeout", _) | (_, 504) => Exit::TimedOut,
            // Everything else was understood and not done: refused, unavailable, internal.
            (_, _) => Exit::Failed,
        }
    }
}

/// What every command answers.
pub type Outcome = Result<Exit, CliError>;

/// Why a command ends early.
#[derive(Debug)]
pub enum CliError {
    /// Something to say, and an exit code.
    Said {
        /// The exit code.
        exit: Exit,
        /// What is wrong.
        message: String,
        /// What to do.
        mend: Option<String>,
    },
    /// Whoever read our output has gone (`| head`): the end, without a word.
    PipeClosed,
}

impl CliError {
    /// An error without advice.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self::Said { exit, message: message.into(), mend: None }
    }

    /// An error with advice.
    pub fn hinted(exit: Exit, message: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::Said { exit, message: message.into(), mend: Some(mend.into()) }
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        match self {
            CliError::Said { exit, .. } => *exit,
            CliError::PipeClosed => Exit::Ok,
        }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CliError::Said { message, mend, .. } => {
                write!(f, "{message}")?;
                mend.iter().try_for_each(|mend| write!(f, "\n  hint: {mend}"))
            }
            CliError::PipeClosed => f.write_str("the reader of the output is gone"),
        }
    }
}

impl std::error::Error for CliError {}

impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => CliError::PipeClosed,
            _ => CliError::new(Exit::Failed, format!("cannot write the output: {error}")),
        }
    }
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> Self {
        let (exit, message, mend) = match &error {
            ClientError::Problem(problem) => return from_problem(problem),
            ClientError::NoAgent { .. } => (Exit::NoAgent, error.to_string(), error.mend()),
            ClientError::Timeout { .. } => (Exit::TimedOut, error.to_string(), error.mend()),
            ClientError::Target { .. } | ClientError::Io { .. } => (Exit::Usage, error.to_string(), error.mend()),
            ClientError::Protocol { .. } | ClientError::Interrupted { .. } | ClientError::Failed(_) => {
                (Exit::Failed, error.to_string(), error.mend())
            }
        };
        Self::Said { exit, message, mend: Some(mend).filter(|mend| !mend.is_empty()) }
    }
}

fn from_problem(problem: &Problem) -> CliError {
    let mut message = problem.title.clone();
    if !problem.detail.is_empty() {
        message = format!("{message}: {}", problem.detail);
    }
    let mend = (!problem.mend.is_empty()).then(|| problem.mend.clone());
    CliError::Said { exit: Exit::of_problem(problem), message, mend }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_lists_every_exit_code() {
        let all = [
            Exit::Ok,
            Exit::Failed,
            Exit::Usage,
            Exit::NoAgent,
            Exit::NotFound,
            Exit::Conflict,
            Exit::TimedOut,
            Exit::Interrupted,
        ];
        for exit in all {
            let start = format!("\n  {:<5}", exit.code());
            assert!(EXIT_CODES.contains(&start), "{exit:?} is missing in --help");
        }
        assert_eq!(EXIT_CODES.lines().count(), all.len() + 1);
    }

    #[test]
    fn a_problem_of_the_agent_becomes_its_exit_code_and_keeps_the_mend() {
        let problem = |code: &str, status| Problem {
            status,
            code: code.into(),
            title: "no".into(),
            detail: "app shop".into(),
            mend: "do that".into(),
        };
        assert_eq!(from_problem(&problem("not_found", 404)).exit(), Exit::NotFound);
        assert_eq!(from_problem(&problem("conflict", 409)).exit(), Exit::Conflict);
        assert_eq!(from_problem(&problem("invalid", 422)).exit(), Exit::Usage);
        assert_eq!(from_problem(&problem("refused", 403)).exit(), Exit::Failed);
        assert_eq!(from_problem(&problem("refused", 403)).to_string(), "no: app shop\n  hint: do that");
    }

    #[test]
    fn a_closed_pipe_is_a_silent_success() {
        let error = CliError::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(error.exit(), Exit::Ok);
        assert!(matches!(error, CliError::PipeClosed));
    }
}
