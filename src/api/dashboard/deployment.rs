//! One deployment: its phases as a line in time, why it failed, and what its version wrote meanwhile.

use axum::extract::State;
use jiff::Timestamp;
use maud::{Markup, html};

use super::super::extract::Named;
use super::super::problem::Refusal;
use super::super::routes::Shared;
use super::apps::Scene;
use super::icons::Icon;
use super::page::{Page, Section};
use super::parts;
use super::{Shown, logs};
use crate::domain::{AppKey, DeploymentId, DeploymentOutcome, Failure, Phase, VersionNumber};
use crate::engine::LogQuery;
use crate::wire::api::{Deployment, LogLine, Version};

/// Lines of the log on the page.
const LINES: usize = 200;
/// What ended a moment later belongs to it, too.
const AFTERWARDS: jiff::SignedDuration = jiff::SignedDuration::from_secs(2);

/// `GET /deployments/{deployment}`
pub(super) async fn show(State(context): Shared, id: Named) -> Shown {
    let id = id.0.parse().map(DeploymentId);
    let id = id.map_err(|_| Refusal::invalid("the identifier of a deployment is a number", "correct the address"))?;
    let engine = context.engine();
    let deployment = engine.deployment(id).await?;
    let key = AppKey::new(deployment.environment.clone(), deployment.app.clone());
    let version = engine.versions(key.clone()).await?.into_iter().find(|version| version.version == deployment.version);
    let source = engine.app(key.clone()).await?.source;
    let query = LogQuery {
        since: Some(deployment.created_at),
        until: deployment.ended_at.and_then(|ended| ended.checked_add(AFTERWARDS).ok()),
        tail: Some(LINES),
        version: Some(deployment.version),
        ..LogQuery::default()
    };
    let lines = logs::lines(engine, key.clone(), query).await?;
    let scene = Scene::of(engine).await?;
    let link = version
        .as_ref()
        .and_then(|version| version.commit.as_ref())
        .and_then(|commit| scene.forges.commit(source.as_ref(), commit));
    let body = body(&deployment, version.as_ref(), link.as_deref(), &lines, &scene);
    let page = Page::new(Section::Apps, format!("{} {}", deployment.app, deployment.version), body).about(key);
    Ok(if deployment.outcome.is_none() { page.every(1) } else { page })
}

/// The page's body.
pub(super) fn body(
    deployment: &Deployment,
    version: Option<&Version>,
    link: Option<&str>,
    lines: &[LogLine],
    scene: &Scene,
) -> Markup {
    let place = scene.places.of(&deployment.environment, &deployment.app);
    html! {
        p.crumbs { a href="/" { "Apps" } " / " a href=(place) { (deployment.app) } }
        div.head {
            h1 { (deployment.app) " " (deployment.version) @if deployment.environment != scene.places.home { " " span.tag { (deployment.environment) } } }
            (parts::deployment_state(deployment.outcome, deployment.phase))
            span.muted { (deployment.kind) " by " (deployment.actor) ", " (parts::time(deployment.created_at, scene.now)) }
        }
        p.summary { (summary(deployment, scene.now)) }
        @if let Some(failure) = &deployment.failure { (failure_box(failure)) }
        div.columns {
            div {
                section aria-labelledby="phases" {
                    h2 #phases { "Phases" }
                    (timeline(deployment, scene.now))
                }
                section aria-labelledby="log" {
                    h2 #log { "Log" }
                    (logs::lines_box(lines, "Nothing was written meanwhile."))
                }
            }
            aside aria-label="Facts" {
                dl {
                    @if deployment.version != VersionNumber::FIRST {
                        @let key = AppKey::new(deployment.environment.clone(), deployment.app.clone());
                        dt { "Changes" } dd { a href=(scene.places.app(&key, &format!("/diff?to={}", deployment.version))) { "what differs" } }
                    }
                    @if let Some(version) = version {
                        @if let Some(commit) = &version.commit { dt { "Commit" } dd { (parts::commit(commit, link)) @if let Some(subject) = &version.subject { " " (subject) } } }
                        @if let Some(author) = &version.author { dt { "Author" } dd { (super::app::author_name(author)) } }
                        @if let Some(reason) = &version.reason { dt { "Reason" } dd { (reason) } }
                    }
                    @for object in &deployment.objects {
                        dt { (object.object) }
                        dd { (object.kind.as_str()) ", " (object.ready) "/" (object.wanted) " ready" }
                    }
                }
            }
        }
    }
}

fn summary(deployment: &Deployment, now: Timestamp) -> Markup {
    let since = |at: Timestamp| parts::length(at.duration_since(deployment.created_at));
    let ended = deployment.ended_at.unwrap_or(now);
    html! {
        @match (deployment.outcome, deployment.live_at) {
            (None, Some(live)) => { "Live after " (since(live)) "; it is watched until its bake window is over." },
            (None, None) => { (deployment.progress.as_deref().unwrap_or(deployment.phase.as_str())) },
            (Some(DeploymentOutcome::Succeeded), live) => { "Live after " (since(live.unwrap_or(ended))) ", proven after " (since(ended)) "." },
            (Some(DeploymentOutcome::Failed), None) => { "Failed after " (since(ended)) "; nothing that was live has changed." },
            (Some(DeploymentOutcome::Failed), Some(_)) => { "Failed after " (since(ended)) "; it stays live, because there is nothing healthy to go back to." },
            (Some(DeploymentOutcome::Cancelled), _) => { "Cancelled after " (since(ended)) "." },
            (Some(DeploymentOutcome::RolledBack), _) => { "Rolled back after " (since(ended)) ": it was live, and bad." },
        }
    }
}

fn failure_box(failure: &Failure) -> Markup {
    html! {
        section.notice.bad aria-label="Why it failed" {
            (Icon::Bad.draw())
            div {
                p { strong { "Failed while " (failure.phase.as_str()) ": " } (parts::prose(&failure.message)) }
                dl.inline {
                    @if let Some(object) = &failure.object { dt { "Object" } dd { (object) } }
                    @if let Some(exit) = &failure.exit { dt { "Exit" } dd { (exit) } }
                    @if let Some(probe) = &failure.last_probe { dt { "Last probe" } dd { (probe) } }
                    dt { "Code" } dd { code { (failure.code) } }
                }
                @if !failure.log_tail.is_empty() {
                    p.label { "Its last lines" }
                    pre tabindex="0" { @for line in &failure.log_tail { (line) "\n" } }
                }
            }
        }
    }
}

/// One phase with its time.
struct Step {
    phase: Phase,
    from: Timestamp,
    to: Option<Timestamp>,
}

fn steps(deployment: &Deployment) -> Vec<Step> {
    let phases = &deployment.phases;
    let timed = phases.iter().enumerate().filter(|(_, step)| step.phase != Phase::Done);
    timed
        .map(|(index, step)| Step {
            phase: step.phase,
            from: step.at,
            to: phases.get(index + 1).map(|next| next.at).or(deployment.ended_at),
        })
        .collect()
}

fn timeline(deployment: &Deployment, now: Timestamp) -> Markup {
    let steps = steps(deployment);
    let start = steps.first().map_or(deployment.created_at, |step| step.from);
    let end = deployment.ended_at.unwrap_or(now);
    let whole = end.duration_since(start).as_millis().max(1);
    let failed = deployment.failure.as_ref().map(|failure| failure.phase);
    // In thousandths of the whole.
    let share = |at: Timestamp| (at.duration_since(start).as_millis().max(0) * 1000 / whole).min(1000);
    html! {
        table.timeline {
            caption.quiet { "What the deployment did, in order" }
            thead { tr { th scope="col" { "Phase" } th scope="col" { span.quiet { "Share of the time" } } th.number scope="col" { "Began" } th.number scope="col" { "Took" } } }
            tbody {
                @for step in &steps {
                    @let (from, to) = (share(step.from), share(step.to.unwrap_or(now)));
                    @let (class, icon) = look(step, failed, deployment.outcome);
                    tr.(class) {
                        th scope="row" { span.badge.(class) { (icon.draw()) (step.phase.as_str()) } span.hint { (hint(step.phase)) } }
                        td.bar { svg viewBox="0 0 1000 10" preserveAspectRatio="none" aria-hidden="true" { rect x=(from) y="1" width=((to - from).max(4)) height="8" rx="3" class=(class) {} } }
                        td.number title=(parts::stamp(step.from)) { "+" (parts::length(step.from.duration_since(start))) }
                        td.number { (parts::length(step.to.unwrap_or(now).duration_since(step.from))) @if step.to.is_none() { " …" } }
                    }
                }
                @for phase in still_to_come(deployment) {
                    tr.idle { th scope="row" { span.badge.quiet { (Icon::Idle.draw()) (phase.as_str()) } span.hint { (hint(phase)) } } td.bar {} td {} td {} }
                }
            }
        }
    }
}

fn look(step: &Step, failed: Option<Phase>, outcome: Option<DeploymentOutcome>) -> (&'static str, Icon) {
    if failed == Some(step.phase) {
        return ("bad", Icon::Bad);
    }
    match (step.to, outcome) {
        (None, _) => ("busy", Icon::Busy),
        (Some(_), Some(DeploymentOutcome::Cancelled)) => ("quiet", Icon::Passed),
        (Some(_), _) => ("good", Icon::Good),
    }
}

fn still_to_come(deployment: &Deployment) -> Vec<Phase> {
    if deployment.outcome.is_some() {
        return Vec::new();
    }
    // Whether there is anything to build or to hand over is found out on the way.
    let certain = |phase: &Phase| !matches!(phase, Phase::Building | Phase::Handover | Phase::Done);
    Phase::ALL.into_iter().filter(certain).filter(|phase| *phase > deployment.phase).collect()
}

/// What happens in a phase.
fn hint(phase: Phase) -> &'static str {
    match phase {
        Phase::Pending => "recorded, waits for its turn",
        Phase::Preparing => "its files are laid out",
        Phase::Building => "the build command runs",
        Phase::Starting => "instances start and are probed",
        Phase::Handover => "what must not run twice changes over",
        Phase::Switching => "recorded as live, routes published",
        Phase::Baking => "live and watched",
        Phase::Done => "over",
    }
}
