//! Watching a deployment: a tree that redraws itself on a terminal, lines that are only added in a pipe.
//!
//! ```text
//! watching ──live, or done with --wait-done──► 0
//!     ├──failed | cancelled | rolled back──► 1
//!     ├──--timeout──► 6          (the deployment goes on)
//!     └──Ctrl-C──► 130           (the deployment goes on)
//! ```
//!
//! Invariant: a control plane that restarts meanwhile is waited for; only the deadline ends the wait.

use std::time::Duration;

use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use crate::client::{ClientError, Follow};
use crate::domain::{DeploymentId, DeploymentOutcome, Phase};
use crate::wire::api::{Accepted, Deployment};

use super::exit::{CliError, Exit, Outcome};
use super::terminal::{self, Terminal};
use super::{Context, tree};

/// How long to watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// Not at all.
    No,
    /// Until the new version takes the traffic.
    UntilLive(Duration),
    /// Until it is proven.
    UntilDone(Duration),
}

/// A tree on a terminal counts seconds by itself.
const REDRAW: Duration = Duration::from_millis(200);
/// Between a broken stream and the next attempt.
const RECONNECT: Duration = Duration::from_millis(250);

/// Reports what a command led to, and watches the deployment where there is one.
pub async fn accepted(context: &Context, accepted: Accepted, waiting: Waiting) -> Outcome {
    let (id, limit, until_done) = match (accepted.deployment, waiting) {
        (None, _) | (Some(_), Waiting::No) => {
            report(context, &accepted)?;
            return Ok(Exit::Ok);
        }
        // Nothing was changed: an older deployment may be named, but it is not ours to watch.
        (Some(_), _) if !accepted.changed => {
            report(context, &accepted)?;
            return Ok(Exit::Ok);
        }
        (Some(id), Waiting::UntilLive(limit)) => (id, limit, false),
        (Some(id), Waiting::UntilDone(limit)) => (id, limit, true),
    };
    if !context.json {
        terminal::line(&accepted.message)?;
    }
    let mut view = View::new(context);
    match watch(context, id, Instant::now() + limit, until_done, &mut view).await? {
        Watched::Ended(deployment) => {
            if context.json {
                terminal::json(&deployment)?;
            }
            Ok(exit_of(&deployment))
        }
        Watched::TimedOut => Err(CliError::hinted(
            Exit::TimedOut,
            format!("deployment {id} is not over after {} s; it goes on", limit.as_secs()),
            format!("watch it with `landfall app show {}`", accepted.app),
        )),
        Watched::Interrupted => Err(CliError::hinted(
            Exit::Interrupted,
            format!("no longer watching; deployment {id} goes on"),
            format!("see `landfall app show {0}`; undo with `landfall app rollback {0}`", accepted.app),
        )),
    }
}

fn report(context: &Context, accepted: &Accepted) -> Result<(), CliError> {
    if context.json { terminal::json(accepted) } else { terminal::line(&accepted.message) }
}

/// How watching ended.
enum Watched {
    Ended(Box<Deployment>),
    TimedOut,
    Interrupted,
}

async fn watch(
    context: &Context,
    id: DeploymentId,
    deadline: Instant,
    until_done: bool,
    view: &mut View,
) -> Result<Watched, CliError> {
    // One listener for the whole wait: a Ctrl-C between two states must not be lost.
    let mut interrupt = signal(SignalKind::interrupt())
        .map_err(|error| CliError::new(Exit::Failed, format!("Ctrl-C cannot be awaited: {error}")))?;
    let mut stream: Option<Follow<Deployment>> = None;
    let mut pause = Duration::ZERO;
    loop {
        let next = async {
            tokio::time::sleep(pause).await;
            let mut open = match stream.take() {
                Some(open) => open,
                None => context.client.follow_deployment(id).await?,
            };
            let item = open.next().await?;
            Ok::<_, ClientError>((item, open))
        };
        let news = tokio::select! {
            news = drawn(next, view) => news,
            () = sleep_until(deadline) => return Ok(Watched::TimedOut),
            _ = interrupt.recv() => return Ok(Watched::Interrupted),
        };
        match news {
            Ok((Some(deployment), open)) => {
                view.show(&deployment)?;
                if is_over(&deployment, until_done) {
                    return Ok(Watched::Ended(Box::new(deployment)));
                }
                (stream, pause) = (Some(open), Duration::ZERO);
            }
            Ok((None, _)) | Err(ClientError::Interrupted { .. } | ClientError::Timeout { .. }) => {
                pause = RECONNECT;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits for news and lets the clock of the tree tick meanwhile.
async fn drawn<T>(next: impl Future<Output = T>, view: &mut View) -> T {
    let mut next = std::pin::pin!(next);
    let mut tick = tokio::time::interval(REDRAW);
    loop {
        tokio::select! {
            biased;
            news = &mut next => return news,
            // A terminal that has gone is noticed with the next state.
            _ = tick.tick() => { let _ = view.redraw(); }
        }
    }
}

fn is_over(deployment: &Deployment, until_done: bool) -> bool {
    deployment.outcome.is_some() || (!until_done && deployment.live_at.is_some())
}

fn exit_of(deployment: &Deployment) -> Exit {
    match deployment.outcome {
        None | Some(DeploymentOutcome::Succeeded) => Exit::Ok,
        Some(DeploymentOutcome::Failed | DeploymentOutcome::Cancelled | DeploymentOutcome::RolledBack) => Exit::Failed,
    }
}

/// What was shown already.
struct View {
    terminal: Terminal,
    silent: bool,
    seen: Option<Deployment>,
    /// Lines of the tree on the terminal, to be drawn over.
    drawn: usize,
    /// Phases that have their line in a pipe.
    phases: usize,
}

impl View {
    fn new(context: &Context) -> Self {
        Self { terminal: context.terminal, silent: context.json, seen: None, drawn: 0, phases: 0 }
    }

    fn show(&mut self, deployment: &Deployment) -> Result<(), CliError> {
        if self.silent {
            return Ok(());
        }
        if self.terminal.interactive {
            self.seen = Some(deployment.clone());
            return self.redraw();
        }
        self.append(deployment)?;
        self.seen = Some(deployment.clone());
        Ok(())
    }

    fn redraw(&mut self) -> Result<(), CliError> {
        let (true, Some(deployment)) = (self.terminal.interactive, &self.seen) else { return Ok(()) };
        let lines = tree::lines(deployment, self.terminal, Timestamp::now());
        let back = if self.drawn > 0 { format!("\x1b[{}F\x1b[J", self.drawn) } else { String::new() };
        self.drawn = lines.len();
        terminal::print(&format!("{back}{}\n", lines.join("\n")))
    }

    /// In a pipe: each phase once, then the end with all there is to say.
    fn append(&mut self, deployment: &Deployment) -> Result<(), CliError> {
        for (index, step) in deployment.phases.iter().enumerate().skip(self.phases) {
            if step.phase != Phase::Done {
                terminal::line(tree::phase_line(deployment, index))?;
            }
        }
        self.phases = self.phases.max(deployment.phases.len());
        let was_live = self.seen.as_ref().is_some_and(|seen| seen.live_at.is_some());
        if deployment.outcome.is_some() || (deployment.live_at.is_some() && !was_live) {
            terminal::line(tree::lines(deployment, self.terminal, Timestamp::now()).join("\n"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::tree::tests::deployment;

    #[test]
    fn live_is_enough_unless_the_end_is_asked_for() {
        let mut deployment = deployment(Phase::Baking);
        deployment.live_at = Some(deployment.created_at);
        assert!(is_over(&deployment, false));
        assert!(!is_over(&deployment, true));
        assert_eq!(exit_of(&deployment), Exit::Ok);
        deployment.outcome = Some(DeploymentOutcome::RolledBack);
        assert!(is_over(&deployment, true));
        assert_eq!(exit_of(&deployment), Exit::Failed);
    }
}
