//! What runs by itself: all schedules, and one with its runs.

use axum::extract::{Path, State};
use maud::{Markup, html};
use serde::Deserialize;

use super::super::extract::Asked;
use super::super::routes::Shared;
use super::apps::Scene;
use super::calls::function_key;
use super::icons::Icon;
use super::page::{Page, Section};
use super::parts::{self, Tone};
use super::viewer::Viewer;
use super::{Shown, deeds};
use crate::domain::{AppKey, Verb};
use crate::wire::schedules::{Run, Schedule};

/// Runs on the page of a schedule.
const RUNS: u32 = 50;

/// `GET /schedules`
pub(super) async fn list(State(context): Shared, viewer: Viewer) -> Shown {
    let all = context.engine().schedules().await?.into_iter();
    let schedules: Vec<Schedule> = all.filter(|(app, _)| viewer.sees(app)).map(|(_, schedule)| schedule).collect();
    let scene = Scene::of(context.engine()).await?;
    let body = html! {
        div.head { h1 { "Schedules" } }
        @if schedules.is_empty() {
            div.empty { p { "Nothing runs by itself." } p.muted { "Give a function a " code { "schedule" } " in its manifest." } }
        } @else { (table(&schedules, &scene, &viewer, true)) }
    };
    Ok(Page::new(Section::Schedules, "Schedules", body).every(5))
}

/// Schedules with their next and last runs.
pub(super) fn table(schedules: &[Schedule], scene: &Scene, viewer: &Viewer, with_app: bool) -> Markup {
    html! {
        table {
            caption.quiet { "Schedules with their next and last runs" }
            thead { tr {
                th scope="col" { "State" } th scope="col" { "Function" } th scope="col" { "When" } th scope="col" { "Next" }
                th scope="col" { "Last" } th scope="col" { "Outcome" } th scope="col" { span.quiet { "Actions" } }
            } }
            tbody { @for schedule in schedules { (row(schedule, scene, viewer, with_app)) } }
        }
    }
}

/// The page of a schedule.
fn place(schedule: &Schedule, scene: &Scene) -> String {
    let key = AppKey::new(schedule.environment.clone(), schedule.app.clone());
    scene.places.app(&key, &format!("/schedules/{}", schedule.function))
}

fn row(schedule: &Schedule, scene: &Scene, viewer: &Viewer, with_app: bool) -> Markup {
    html! {
        tr {
            td { (state(schedule)) }
            td.main {
                a.name href=(place(schedule, scene)) { @if with_app { (schedule.app) " " } (schedule.function) }
                @if with_app && schedule.environment != scene.places.home { " " span.tag { (schedule.environment) } }
                @if let Some(problem) = &schedule.problem { p.message { (parts::prose(problem)) } }
                @if let Some(pause) = &schedule.pause { p.message { "paused by " (pause.actor) ": " (pause.reason) } }
            }
            td { (when(schedule)) }
            td { @match schedule.next.first() {
                Some(next) => span title=[schedule.next_local.first()] { (parts::time(*next, scene.now)) },
                None => (parts::dash()),
            } }
            td { (parts::maybe_time(schedule.last_at, scene.now)) }
            td { @match schedule.last_outcome { Some(outcome) => (parts::call_outcome(outcome)), None => (parts::dash()) }
                @if schedule.failures_in_a_row > 1 { " " span.muted { (schedule.failures_in_a_row) " in a row" } } }
            td.act { (actions(schedule, scene, viewer)) }
        }
    }
}

fn actions(schedule: &Schedule, scene: &Scene, viewer: &Viewer) -> Markup {
    let key = AppKey::new(schedule.environment.clone(), schedule.app.clone());
    let place = |deed: &str| scene.places.form(&key, &format!("schedules/{}/{deed}", schedule.function));
    html! {
        @if viewer.acts(Verb::Call, Some(&key)) { (deeds::button(&place("run"), "Run now", viewer)) }
        @if viewer.acts(Verb::Deploy, Some(&key)) {
            @if schedule.pause.is_some() { " " (deeds::button(&place("resume"), "Resume", viewer)) }
            @else { " " (deeds::button(&place("pause"), "Pause", viewer)) }
        }
    }
}

fn state(schedule: &Schedule) -> Markup {
    if schedule.problem.is_some() {
        parts::badge(Tone::Bad, Icon::Alarm, "cannot run")
    } else if schedule.pause.is_some() {
        parts::badge(Tone::Warn, Icon::Paused, "paused")
    } else if schedule.running > 0 {
        parts::badge(Tone::Busy, Icon::Busy, "running")
    } else if schedule.failures_in_a_row > 0 {
        parts::badge(Tone::Bad, Icon::Bad, "failing")
    } else {
        parts::badge(Tone::Good, Icon::Good, "waiting")
    }
}

fn when(schedule: &Schedule) -> Markup {
    html! {
        @match (&schedule.cron, schedule.every_ms) {
            (Some(cron), _) => { code { (cron) } @if let Some(zone) = &schedule.timezone { " " span.muted { (zone) } } },
            (None, Some(every)) => { "every " (crate::domain::manifest::Millis(every)) },
            (None, None) => (parts::dash()),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InEnvironment {
    environment: Option<String>,
}

/// `GET /apps/{app}/schedules/{function}`
pub(super) async fn one(
    State(context): Shared,
    Path((app, function)): Path<(String, String)>,
    viewer: Viewer,
    Asked(query): Asked<InEnvironment>,
) -> Shown {
    let app = context.app_key(&app, query.environment.as_ref())?;
    let function = function_key(app.clone(), &function)?;
    let engine = context.engine();
    let (schedule, runs) = (engine.schedule(&function).await?, engine.schedule_runs(function, None, None, RUNS).await?);
    let scene = Scene::of(engine).await?;
    let body = one_body(&schedule, &runs, &scene, &viewer);
    Ok(Page::new(Section::Schedules, format!("{} {}", schedule.app, schedule.function), body).about(app).every(3))
}

fn one_body(schedule: &Schedule, runs: &[Run], scene: &Scene, viewer: &Viewer) -> Markup {
    html! {
        p.crumbs { a href="/schedules" { "Schedules" } " / " a href=(scene.places.of(&schedule.environment, &schedule.app)) { (schedule.app) } }
        div.head { h1 { (schedule.function) @if schedule.environment != scene.places.home { " " span.tag { (schedule.environment) } } } (state(schedule)) (when(schedule)) div.actions { (actions(schedule, scene, viewer)) } }
        @if let Some(problem) = &schedule.problem { p.notice.bad { (Icon::Alarm.draw()) (parts::prose(problem)) } }
        @if let Some(pause) = &schedule.pause {
            p.notice.warn { (Icon::Paused.draw()) span { "Paused by " (pause.actor) " " (parts::time(pause.since, scene.now)) ": " (pause.reason) } }
        }
        div.columns {
            section aria-labelledby="runs" {
                h2 #runs { "Runs" }
                @if runs.is_empty() { p.empty { "None yet." } } @else { (run_table(runs, scene)) }
            }
            aside aria-label="Facts" { dl {
                @for (index, next) in schedule.next.iter().enumerate() {
                    dt { @if index == 0 { "Next" } @else { "Then" } }
                    dd { (parts::time(*next, scene.now)) @if let Some(local) = schedule.next_local.get(index) { " " span.muted { (local) } } }
                }
                dt { "Overlap" } dd { (schedule.overlap.as_str()) }
                dt { "Catches up" } dd { @if schedule.catch_up_ms == 0 { "no" } @else { "if at most " (crate::domain::manifest::Millis(schedule.catch_up_ms)) " late" } }
                @if schedule.jitter_ms > 0 { dt { "Jitter" } dd { (crate::domain::manifest::Millis(schedule.jitter_ms)) } }
                dt { "Last success" } dd { (parts::maybe_time(schedule.last_success_at, scene.now)) }
                @if schedule.failures_in_a_row > 0 { dt { "Failures in a row" } dd { (schedule.failures_in_a_row) } }
            } }
        }
    }
}

fn run_table(runs: &[Run], scene: &Scene) -> Markup {
    html! {
        table {
            caption.quiet { "Runs, the latest first" }
            thead { tr { th scope="col" { "State" } th scope="col" { "Stands for" } th scope="col" { "Made by" } th.number scope="col" { "Took" } th scope="col" { "Call" } } }
            tbody { @for run in runs {
                tr {
                    td { @match run.outcome {
                        Some(outcome) => (parts::call_outcome(outcome)),
                        None if run.state == "running" => (parts::badge(Tone::Busy, Icon::Busy, "running")),
                        None => (parts::badge(Tone::Quiet, Icon::Idle, &run.state)),
                    } @if let Some(error) = &run.error { p.message { (error.message) } } }
                    td { (parts::time(run.scheduled_at, scene.now)) @if run.count > 1 { " " span.muted { "and " (run.count - 1) " more" } } }
                    td.muted { (run.trigger.as_str()) @if let Some(actor) = &run.actor { " · " (actor) } @if run.caught_up { " · caught up" } }
                    td.number { @match (run.started_at, run.ended_at) { (Some(from), Some(to)) => (parts::length(to.duration_since(from))), (_, _) => (parts::dash()) } }
                    td { @match run.call { Some(call) => a.mono href={ "/calls/" (call) } { "…" (call.to_string()[18..]) }, None => (parts::dash()) } }
                }
            } }
        }
    }
}
