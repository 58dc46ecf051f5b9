//! A deployment as a tree of lines: what, its objects with their URLs, its phases, its end.
//!
//! Pure: the same deployment, terminal and time make the same lines. On a terminal no line is longer than
//! its width, so that the tree can be drawn over.

use jiff::Timestamp;

use crate::domain::manifest::ObjectKind;
use crate::domain::{DeploymentOutcome, Failure, Phase};
use crate::wire::api::{Deployment, ObjectSummary};

use super::table::{cut, one_line};
use super::terminal::{Paint, Terminal};
use super::when::{clock, elapsed};

/// The lines.
pub fn lines(deployment: &Deployment, terminal: Terminal, now: Timestamp) -> Vec<String> {
    let mut tree = Lines { terminal, width: terminal.width(), lines: Vec::new() };
    tree.add(Some(Paint::Bold), &headline(deployment));
    let names = deployment.objects.iter().map(|object| object.object.as_str().len()).max().unwrap_or(0);
    for (index, object) in deployment.objects.iter().enumerate() {
        let last = index + 1 == deployment.objects.len();
        tree.add(None, &object_line(object, last, names));
    }
    tree.add(Some(Paint::Dim), &format!("   {}", phases(deployment, now)));
    ending(&mut tree, deployment, now);
    tree.lines
}

/// One phase for a pipe: `12:00:00 shop v3 starting`.
pub fn phase_line(deployment: &Deployment, index: usize) -> String {
    deployment.phases.get(index).map_or_else(String::new, |step| {
        format!("{} {} {} {}", clock(step.at), deployment.app, deployment.version, step.phase.as_str())
    })
}

struct Lines {
    terminal: Terminal,
    width: Option<usize>,
    lines: Vec<String>,
}

impl Lines {
    /// Cuts first and paints then: colours have no width.
    fn add(&mut self, paint: Option<Paint>, text: &str) {
        let text = one_line(text);
        let text = self.width.map_or_else(|| text.clone(), |width| cut(&text, width));
        self.lines.push(paint.map_or_else(|| text.clone(), |paint| self.terminal.paint(paint, &text)));
    }
}

fn headline(deployment: &Deployment) -> String {
    format!("{} {} ({}) in {}", deployment.app, deployment.version, deployment.kind, deployment.environment)
}

fn object_line(object: &ObjectSummary, last: bool, names: usize) -> String {
    let branch = if last { "└─" } else { "├─" };
    let kind = match object.kind {
        ObjectKind::Web => "web     ",
        ObjectKind::Function => "function",
        ObjectKind::Worker => "worker  ",
    };
    let url = object.url.as_deref().unwrap_or_default();
    let line = format!("{branch} {kind} {:names$}  {}/{} ready  {url}", object.object, object.ready, object.wanted);
    line.trim_end().to_owned()
}

/// `pending 2 ms, preparing 12 ms, starting 640 ms`; the phase under way counts up to now.
fn phases(deployment: &Deployment, now: Timestamp) -> String {
    let end = deployment.ended_at.unwrap_or(now);
    let starts = deployment.phases.iter().filter(|step| step.phase != Phase::Done);
    let parts: Vec<String> = starts
        .enumerate()
        .map(|(index, step)| {
            let next = deployment.phases.get(index + 1).map_or(end, |next| next.at);
            format!("{} {}", step.phase.as_str(), elapsed(next.duration_since(step.at)))
        })
        .collect();
    parts.join(", ")
}

fn ending(tree: &mut Lines, deployment: &Deployment, now: Timestamp) {
    let since = |at: Timestamp| elapsed(at.duration_since(deployment.created_at));
    let ended = deployment.ended_at.unwrap_or(now);
    match deployment.outcome {
        None => match deployment.live_at {
            Some(live) => tree.add(Some(Paint::Good), &format!("Live after {}.", since(live))),
            None => {
                let doing = deployment.progress.as_deref().unwrap_or(deployment.phase.as_str());
                tree.add(Some(Paint::Busy), &format!("   {doing} ({})", since(now)));
            }
        },
        Some(DeploymentOutcome::Succeeded) => {
            let live = deployment.live_at.unwrap_or(ended);
            tree.add(Some(Paint::Good), &format!("Live after {}, proven after {}.", since(live), since(ended)));
        }
        Some(DeploymentOutcome::Failed) => {
            let what = match deployment.live_at {
                // In its bake window, with no earlier version to go back to.
                Some(_) => "it stays live, because there is nothing healthy to go back to",
                None => "nothing that was live has changed",
            };
            tree.add(Some(Paint::Bad), &format!("Failed after {}; {what}.", since(ended)));
        }
        Some(DeploymentOutcome::Cancelled) => {
            tree.add(Some(Paint::Busy), &format!("Cancelled after {}.", since(ended)));
        }
        Some(DeploymentOutcome::RolledBack) => {
            tree.add(Some(Paint::Bad), &format!("Rolled back after {}: it was live, and bad.", since(ended)));
        }
    }
    if let Some(failure) = &deployment.failure {
        explain(tree, failure);
    }
}

/// Everything a person needs without looking further.
fn explain(tree: &mut Lines, failure: &Failure) {
    let object = failure.object.as_ref().map(|object| format!(" of {object}")).unwrap_or_default();
    // A message may have several lines; none of them is cut, because the mend stands at the end.
    let width = tree.width.take();
    for (index, line) in failure.message.lines().enumerate() {
        let start = if index == 0 { format!("   {}{object}: ", failure.phase.as_str()) } else { "   ".to_owned() };
        tree.add(Some(Paint::Bad), &format!("{start}{line}"));
    }
    if let Some(probe) = &failure.last_probe {
        tree.add(None, &format!("   last probe: {probe}"));
    }
    if let Some(exit) = &failure.exit {
        tree.add(None, &format!("   ended with: {exit}"));
    }
    if !failure.log_tail.is_empty() {
        tree.add(Some(Paint::Dim), "   last lines of its log:");
    }
    for line in &failure.log_tail {
        tree.add(None, &format!("   │ {line}"));
    }
    tree.width = width;
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::domain::{DeploymentId, VersionNumber};
    use crate::wire::api::PhaseTime;

    const PLAIN: Terminal = Terminal { interactive: false, colour: false };

    fn at(text: &str) -> Timestamp {
        format!("2026-03-01T12:00:{text}Z").parse().unwrap()
    }

    /// A deployment of `shop` that has come to `phase`.
    pub fn deployment(phase: Phase) -> Deployment {
        Deployment {
            id: DeploymentId(7),
            app: "shop".parse().unwrap(),
            environment: "main".parse().unwrap(),
            version: VersionNumber::new(3).unwrap(),
            kind: "deploy".into(),
            phase,
            outcome: None,
            failure: None,
            actor: "source fleet".into(),
            created_at: at("00"),
            live_at: None,
            ended_at: None,
            phases: vec![
                PhaseTime { phase: Phase::Pending, at: at("00") },
                PhaseTime { phase: Phase::Starting, at: at("00.012") },
            ],
            progress: Some("1 of 2 instances ready".into()),
            urls: Vec::new(),
            objects: vec![
                ObjectSummary {
                    object: "main".parse().unwrap(),
                    kind: ObjectKind::Web,
                    url: Some("http://shop.localhost:8080".into()),
                    ready: 1,
                    wanted: 2,
                },
                ObjectSummary {
                    object: "mailer".parse().unwrap(),
                    kind: ObjectKind::Worker,
                    url: None,
                    ready: 1,
                    wanted: 1,
                },
            ],
        }
    }

    #[test]
    fn a_deployment_under_way_shows_objects_phases_and_what_it_waits_for() {
        let text = lines(&deployment(Phase::Starting), PLAIN, at("02")).join("\n");
        assert_eq!(
            text,
            "shop v3 (deploy) in main\n\
             ├─ web      main    1/2 ready  http://shop.localhost:8080\n\
             └─ worker   mailer  1/1 ready\n   \
             pending 12 ms, starting 1.9 s\n   \
             1 of 2 instances ready (2.0 s)"
        );
    }

    #[test]
    fn live_is_said_with_the_time_it_took() {
        let mut deployment = deployment(Phase::Baking);
        deployment.live_at = Some(at("01.5"));
        assert_eq!(lines(&deployment, PLAIN, at("02")).last().unwrap(), "Live after 1.5 s.");
    }

    #[test]
    fn a_failure_shows_phase_reason_probe_exit_and_log() {
        let mut deployment = deployment(Phase::Done);
        deployment.outcome = Some(DeploymentOutcome::Failed);
        deployment.ended_at = Some(at("30"));
        deployment.failure = Some(Failure {
            code: "not_ready".into(),
            message: "not ready within 30 s; listen on $PORT".into(),
            phase: Phase::Starting,
            object: Some("main".into()),
            last_probe: Some("connection refused".into()),
            exit: Some("exit code 1".into()),
            log_tail: vec!["Traceback".into()],
        });
        let text = lines(&deployment, PLAIN, at("31")).join("\n");
        for part in [
            "Failed after 30.0 s; nothing that was live has changed.",
            "starting of main: not ready within 30 s; listen on $PORT",
            "last probe: connection refused",
            "ended with: exit code 1",
            "│ Traceback",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }
}
