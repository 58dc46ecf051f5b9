//! The demo's agent: a child process that never outlives the demo.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cli::exit::{CliError, Exit};

use super::place::Place;

/// After SIGTERM the agent has this long: requests finish, apps stop.
const STOP_DEADLINE: Duration = Duration::from_secs(20);
/// Between two looks at a process that should end.
const LOOK: Duration = Duration::from_millis(20);
/// So much of its log is shown when it dies.
const LOG_LINES: usize = 15;

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    ended: bool,
}

impl Agent {
    /// Starts it with the demo's configuration.
    pub fn start(place: &Place) -> Result<Self, CliError> {
        let failed = |what: &str, error: &io::Error| CliError::new(Exit::Failed, format!("{what}: {error}"));
        let log = File::options()
            .create(true)
            .append(true)
            .open(place.log())
            .map_err(|error| failed(&place.log().display().to_string(), &error))?;
        let program = std::env::current_exe().map_err(|error| failed("this program cannot be found", &error))?;
        let mut command = Command::new(program);
        command.arg("agent").arg("--config").arg(place.config());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        // Ctrl-C goes to the foreground group; the agent is stopped in order, by us.
        command.process_group(0);
        // The person's own settings are not meant for the demo.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("LANDFALL_") && name != "LANDFALL_LOG" {
                command.env_remove(name);
            }
        }
        let child = command.spawn().map_err(|error| failed("the agent cannot be started", &error))?;
        Ok(Self { child, ended: false })
    }

    /// An error with the end of its log, if it has ended by itself.
    pub fn check(&mut self, place: &Place) -> Result<(), CliError> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => {
                self.ended = true;
                let log = std::fs::read_to_string(place.log()).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                let tail = lines.get(lines.len().saturating_sub(LOG_LINES)..).unwrap_or_default().join("\n  ");
                Err(CliError::new(Exit::Failed, format!("the agent ended ({status}). It said:\n  {tail}")))
            }
            Err(error) => Err(CliError::new(Exit::Failed, format!("the agent cannot be watched: {error}"))),
        }
    }

    /// SIGTERM, time to finish, and SIGKILL only if that was not enough. Says so if it was not.
    pub async fn stop(mut self) -> Option<String> {
        if self.ended {
            return None;
        }
        self.signal(Signal::SIGTERM);
        let deadline = Instant::now() + STOP_DEADLINE;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                self.ended = true;
                return None;
            }
            tokio::time::sleep(LOOK).await;
        }
        let pid = self.child.id();
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.ended = true;
        Some(format!("the agent (pid {pid}) did not end within {} s and was killed", STOP_DEADLINE.as_secs()))
    }

    fn signal(&self, signal: Signal) {
        // Not reaped yet, so the pid is certainly its own.
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if !self.ended {
            self.signal(Signal::SIGTERM);
        }
    }
}
