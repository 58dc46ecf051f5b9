//! Calls, and one of them with its attempts, its log and what it brought back.

use std::time::Duration;

use axum::extract::State;
use maud::{Markup, html};
use serde::Deserialize;

use super::super::extract::{Asked, Named, name, optional_name};
use super::super::problem::Refusal;
use super::super::routes::Shared;
use super::apps::Scene;
use super::page::{Page, Section};
use super::parts;
use super::viewer::Viewer;
use super::{Shown, deeds, logs};
use crate::domain::{AppKey, CallId, CallOutcome, CallState, Verb};
use crate::engine::{CallFilter, CallResultView, LogQuery};
use crate::wire::api::LogLine;
use crate::wire::call_views::{AttemptView, CallDetail, CallView};

/// Calls on one page.
const ROWS: u32 = 50;
/// Lines of a call's log on its page.
const LINES: usize = 200;
/// Longest result that is shown.
const RESULT: usize = 16 * 1024;

/// Which calls.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct CallsQuery {
    app: String,
    environment: Option<String>,
    function: String,
    /// A state or an outcome.
    state: String,
    before: String,
}

/// The words that a list can be narrowed to.
const WORDS: [&str; 8] =
    ["queued", "running", "succeeded", "failed", "timed_out", "cancelled", "skipped-overlap", "missed"];

impl CallsQuery {
    fn place(&self, state: &str, before: &str) -> String {
        let environment = self.environment.as_deref().unwrap_or_default();
        let pairs = [
            ("app", self.app.as_str()),
            ("environment", environment),
            ("function", &self.function),
            ("state", state),
            ("before", before),
        ];
        format!("/calls{}", parts::query(&pairs))
    }
}

/// The identifier that a path or a query names.
pub(super) fn call_id(text: &str) -> Result<CallId, Refusal> {
    text.parse().map_err(|error: String| Refusal::invalid(error, "correct the identifier"))
}

/// `GET /calls`
pub(super) async fn list(State(context): Shared, Asked(query): Asked<CallsQuery>) -> Shown {
    let said = |text: &String| (!text.is_empty()).then(|| text.clone());
    let app = said(&query.app).map(|app| context.app_key(&app, query.environment.as_ref())).transpose()?;
    let (state, outcome) = (CallState::from_recorded(&query.state), CallOutcome::from_recorded(&query.state));
    if !query.state.is_empty() && state.is_none() && outcome.is_none() {
        return Err(Refusal::invalid("there is no such state of a call", "choose one of those shown"));
    }
    let function = if app.is_some() { optional_name("function", said(&query.function).as_ref())? } else { None };
    let before = said(&query.before).map(|text| call_id(&text)).transpose()?;
    let filter = CallFilter { app, function, state, outcome, dead: false, before, limit: ROWS };
    let calls = context.engine().calls(filter).await?;
    let scene = Scene::of(context.engine()).await?;
    Ok(Page::new(Section::Calls, "Calls", body(&calls, &query, &scene)).every(3))
}

/// The list's body.
pub(super) fn body(calls: &[CallView], query: &CallsQuery, scene: &Scene) -> Markup {
    let last = calls.last().map(|call| call.call.to_string());
    html! {
        div.head {
            h1 { "Calls" }
            form.search role="search" action="/calls" method="get" {
                @if !query.state.is_empty() { input type="hidden" name="state" value=(query.state); }
                @if let Some(environment) = query.environment.as_ref().filter(|name| !name.is_empty()) { input type="hidden" name="environment" value=(environment); }
                label { "App " input name="app" value=(query.app) placeholder="any" size="16" spellcheck="false" autocomplete="off"; }
                label { "Function " input name="function" value=(query.function) placeholder="any" size="12" spellcheck="false" autocomplete="off"; }
                button { "Show" }
            }
        }
        nav.facets aria-label="States" {
            a href=(query.place("", "")) aria-current=[query.state.is_empty().then_some("true")] { "All" }
            @for word in WORDS {
                a href=(query.place(word, "")) aria-current=[(query.state == word).then_some("true")] { (word.replace(['_', '-'], " ")) }
            }
        }
        @if calls.is_empty() { p.empty { "No calls" @if !query.state.is_empty() || !query.app.is_empty() { " match" } ". " a href="/calls" { "Show all" } } }
        @else {
            table {
                caption.quiet { "Calls, the newest first" }
                thead { tr {
                    th scope="col" { "State" } th scope="col" { "Call" } th scope="col" { "Function" } th scope="col" { "Made by" }
                    th.number scope="col" { "Attempts" } th.number scope="col" { "Took" } th scope="col" { "When" }
                } }
                tbody { @for call in calls { (row(call, scene)) } }
            }
            @if calls.len() >= ROWS as usize && let Some(last) = last {
                nav.pager aria-label="Pages" { a.button rel="next" href=(query.place(&query.state, &last)) { "Older" } }
            }
        }
    }
}

fn row(call: &CallView, scene: &Scene) -> Markup {
    let id = call.call.to_string();
    html! {
        tr #{ "call-" (id) } {
            td { (parts::call_state(call.state, call.outcome)) }
            td.main {
                a.mono href={ "/calls/" (id) } title=(id) { "…" (id[id.len() - 8..]) }
                @if let Some(error) = &call.error { p.message { strong { (error.kind) } ": " (error.message.lines().next().unwrap_or_default()) } }
            }
            td { a href=(scene.places.of(&call.environment, &call.app)) { (call.app) } " " span.muted { (call.function) } @if call.environment != scene.places.home { " " span.tag { (call.environment) } } }
            td.muted { (call.trigger.as_str()) " · " (call.actor) }
            td.number { (call.attempts) }
            td.number { @match (call.ended_at, &call.progress) {
                (Some(ended), _) => (parts::length(ended.duration_since(call.created_at))),
                (None, Some(_)) => { (parts::length(scene.now.duration_since(call.created_at))) " …" },
                (None, None) => (parts::dash()),
            } }
            td.when { (parts::time(call.created_at, scene.now)) }
        }
    }
}

/// `GET /calls/{call}`
pub(super) async fn one(State(context): Shared, id: Named, viewer: Viewer) -> Shown {
    let (engine, id) = (context.engine(), call_id(&id.0)?);
    let call = engine.call(id, Duration::ZERO).await?;
    let key = AppKey::new(call.call.environment.clone(), call.call.app.clone());
    let query =
        LogQuery { call: Some(id), since: Some(call.call.created_at), tail: Some(LINES), ..LogQuery::default() };
    // The app may be gone by now.
    let lines = logs::lines(engine, key.clone(), query).await.unwrap_or_default();
    let result = match call.call.outcome {
        Some(CallOutcome::Succeeded) => Some(engine.call_result(id, Duration::ZERO).await?),
        Some(_) | None => None,
    };
    let scene = Scene::of(engine).await?;
    let body = one_body(&call, result.as_ref(), &lines, &scene, &viewer);
    let page = Page::new(Section::Calls, format!("Call of {}", call.call.function), body).about(key);
    Ok(if call.call.outcome.is_none() { page.every(1) } else { page })
}

/// One call's body.
pub(super) fn one_body(
    detail: &CallDetail,
    result: Option<&CallResultView>,
    lines: &[LogLine],
    scene: &Scene,
    viewer: &Viewer,
) -> Markup {
    let call = &detail.call;
    html! {
        p.crumbs { a href="/calls" { "Calls" } " / " a href=(scene.places.of(&call.environment, &call.app)) { (call.app) } }
        div.head { h1 { (call.function) } (parts::call_state(call.state, call.outcome)) span.muted.mono { (call.call) } (actions(call, viewer)) }
        @if let Some(error) = &call.error {
            section.notice.bad aria-label="Why it did not succeed" {
                (super::icons::Icon::Bad.draw())
                div {
                    p { strong { (error.kind) } ": " (error.message) }
                    @if let Some(traceback) = &error.traceback { pre tabindex="0" { (traceback) } }
                }
            }
        }
        div.columns {
            div {
                section aria-labelledby="attempts" { h2 #attempts { "Attempts" } (attempts(&detail.tries, scene)) }
                @if let Some(result) = result { section aria-labelledby="result" { h2 #result { "Result" } (result_box(result)) } }
                section aria-labelledby="log" { h2 #log { "Log" } (logs::lines_box(lines, "It wrote nothing.")) }
            }
            aside aria-label="Facts" { dl {
                dt { "Made by" } dd { (call.actor) " (" (call.trigger.as_str()) ")" }
                dt { "Came in" } dd { (parts::time(call.created_at, scene.now)) }
                @if let Some(at) = call.scheduled_at { dt { "Stands for" } dd { (parts::stamp(at)) } }
                @if let Some(due) = call.due_at { dt { "Next attempt" } dd { (parts::time(due, scene.now)) } }
                @if let Some(ended) = call.ended_at { dt { "Ended" } dd { (parts::time(ended, scene.now)) ", after " (parts::length(ended.duration_since(call.created_at))) } }
                @if let Some(version) = call.version { dt { "Version" } dd { (version) } }
                @if let Some(who) = &call.cancelled_by { dt { "Cancelled by" } dd { (who) } }
                @if let Some(of) = call.redrive_of { dt { "Tries anew" } dd { a.mono href={ "/calls/" (of) } { (of) } } }
                @if let Some(by) = call.redriven_as { dt { "Tried anew as" } dd { a.mono href={ "/calls/" (by) } { (by) } } }
                dt { "Called with" } dd { (parts::bytes(call.body_bytes)) }
                @if let Some(bytes) = call.result_bytes { dt { "Brought back" } dd { (parts::bytes(bytes)) } }
            } }
        }
    }
}

fn actions(call: &CallView, viewer: &Viewer) -> Markup {
    let key = AppKey::new(call.environment.clone(), call.app.clone());
    let failed = call.outcome.is_some_and(CallOutcome::is_failure);
    html! {
        @if viewer.acts(Verb::Call, Some(&key)) {
            div.actions role="group" aria-label="Actions" {
                @if call.outcome.is_none() { (deeds::button(&format!("/ui/calls/{}/cancel", call.call), "Cancel", viewer)) }
                @if failed && call.redriven_as.is_none() { (deeds::button(&format!("/ui/calls/{}/redrive", call.call), "Try anew", viewer)) }
            }
        }
    }
}

fn attempts(tries: &[AttemptView], scene: &Scene) -> Markup {
    html! {
        @if tries.is_empty() { p.empty { "None has begun yet." } } @else {
            table {
                caption.quiet { "Attempts in their order" }
                thead { tr { th.number scope="col" { "No." } th scope="col" { "State" } th scope="col" { "Instance" } th scope="col" { "Version" } th.number scope="col" { "Took" } th scope="col" { "Began" } } }
                tbody { @for attempt in tries {
                    tr {
                        td.number { (attempt.attempt) }
                        @match &attempt.end {
                            Some(end) => {
                                td { (attempt_state(end.outcome)) @if let Some(error) = &end.error { p.message { (error.message) } } }
                                td.mono { @match &end.instance { Some(instance) => (instance), None => (parts::dash()) } }
                                td { @match end.version { Some(version) => (version), None => (parts::dash()) } }
                                td.number { (parts::length(end.ended_at.duration_since(attempt.begun_at))) }
                            },
                            None => {
                                td { (parts::badge(parts::Tone::Busy, super::icons::Icon::Busy, "running")) }
                                td.mono { @match attempt.progress.as_ref().and_then(|progress| progress.instance.as_ref()) { Some(instance) => (instance), None => (parts::dash()) } }
                                td { @match attempt.progress.as_ref().and_then(|progress| progress.version) { Some(version) => (version), None => (parts::dash()) } }
                                td.number { (parts::length(scene.now.duration_since(attempt.begun_at))) " …" }
                            },
                        }
                        td.when { (parts::time(attempt.begun_at, scene.now)) }
                    }
                } }
            }
        }
    }
}

fn attempt_state(outcome: crate::domain::AttemptOutcome) -> Markup {
    use super::icons::Icon;
    use crate::domain::AttemptOutcome;
    let (tone, icon) = match outcome {
        AttemptOutcome::Succeeded => (parts::Tone::Good, Icon::Good),
        AttemptOutcome::Cancelled => (parts::Tone::Quiet, Icon::Passed),
        _ => (parts::Tone::Bad, Icon::Bad),
    };
    parts::badge(tone, icon, outcome.as_str())
}

fn result_box(result: &CallResultView) -> Markup {
    html! {
        @match result {
            CallResultView::Answer { media, bytes } => {
                p.muted { (media.as_deref().unwrap_or("no media type")) ", " (parts::bytes(bytes.len() as u64)) }
                @match std::str::from_utf8(&bytes[..bytes.len().min(RESULT)]) {
                    Ok(text) => pre tabindex="0" { (text) @if bytes.len() > RESULT { "…" } },
                    Err(_) => p.empty { "It is no text." },
                }
            },
            CallResultView::Expired => p.empty { "It is no longer kept." },
            CallResultView::NotYet => p.empty { "There is none yet." },
            CallResultView::None { error, .. } => p.empty { @match error { Some(error) => (error.message), None => "There is none." } },
        }
    }
}

/// The function that a path or a form names.
pub(super) fn function_key(app: AppKey, function: &str) -> Result<crate::domain::FunctionKey, Refusal> {
    Ok(crate::domain::FunctionKey::new(app, name("function", function)?))
}
