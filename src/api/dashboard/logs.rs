//! What an app wrote: the last lines in the page, and new ones as they come.

use axum::extract::State;
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;
use tokio::sync::mpsc;

use super::super::events;
use super::super::extract::{Asked, Named};
use super::super::problem::Refusal;
use super::super::routes::Shared;
use super::Shown;
use super::app::{self, Tab};
use super::apps::Scene;
use super::page::{Page, Section};
use super::parts;
use super::viewer::Viewer;
use crate::domain::{AppKey, CallId, VersionNumber};
use crate::engine::{Engine, LogQuery};
use crate::wire::api::LogLine;

/// Lines on the page.
const TAIL: usize = 300;
/// Lines that are looked through for a text.
const SEARCHED: usize = 20_000;
/// Lines that may wait for a slow reader.
const QUEUE: usize = 256;

/// Which lines.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LogsQuery {
    environment: Option<String>,
    object: String,
    instance: String,
    version: String,
    source: String,
    call: String,
    q: String,
}

impl LogsQuery {
    fn asked(&self, follow: bool) -> Result<LogQuery, Refusal> {
        let said = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let version = said(&self.version).map(|text| text.parse::<VersionNumber>()).transpose();
        let version = version.map_err(|error| Refusal::invalid(error, "name a version of the app's history"))?;
        let call = said(&self.call).map(|text| text.parse::<CallId>()).transpose();
        let call = call.map_err(|error| Refusal::invalid(error, "correct the identifier"))?;
        let source = said(&self.source);
        if source.as_deref().is_some_and(|source| !matches!(source, "stdout" | "stderr" | "system")) {
            return Err(Refusal::invalid("there is no such stream", "choose stdout, stderr or system"));
        }
        Ok(LogQuery {
            follow,
            tail: Some(if self.q.is_empty() { TAIL } else { SEARCHED }),
            object: said(&self.object),
            instance: said(&self.instance),
            version,
            source,
            call,
            ..LogQuery::default()
        })
    }

    fn has(&self, line: &LogLine) -> bool {
        self.q.is_empty() || line.line.to_lowercase().contains(&self.q.to_lowercase())
    }

    fn query(&self) -> String {
        let environment = self.environment.as_deref().unwrap_or_default();
        parts::query(&[
            ("environment", environment),
            ("object", &self.object),
            ("instance", &self.instance),
            ("version", &self.version),
            ("source", &self.source),
            ("call", &self.call),
            ("q", &self.q),
        ])
    }
}

/// Lines that are there now. Where nothing was ever written there are none.
pub(super) async fn lines(engine: &Engine, key: AppKey, query: LogQuery) -> Result<Vec<LogLine>, Refusal> {
    let mut receiver = match engine.logs(key, query).await {
        Ok(receiver) => receiver,
        Err(crate::engine::CommandError::NotFound { .. }) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut found = Vec::new();
    while let Some(line) = receiver.recv().await {
        found.push(line);
    }
    Ok(found)
}

/// `GET /apps/{app}/logs`
pub(super) async fn show(State(context): Shared, app: Named, viewer: Viewer, Asked(query): Asked<LogsQuery>) -> Shown {
    let engine = context.engine();
    let key = context.app_key(&app.0, query.environment.as_ref())?;
    let app = engine.app(key.clone()).await?;
    let mut lines = lines(engine, key.clone(), query.asked(false)?).await?;
    lines.retain(|line| query.has(line));
    lines.drain(..lines.len().saturating_sub(TAIL));
    let (scene, instances) = (Scene::of(engine).await?, engine.instances(None, Some(key.app.clone())).await?);
    let mut objects: Vec<String> = instances.iter().map(|instance| instance.object.clone()).collect();
    objects.extend(lines.iter().map(|line| line.object.clone()));
    objects.push(query.object.clone());
    objects.retain(|object| !object.is_empty());
    objects.sort();
    objects.dedup();
    let place = scene.places.app(&key, "/logs");
    let body = html! {
        (app::head(&app, &scene, Tab::Logs, &viewer))
        h2.quiet { "Logs" }
        (filter_form(&query, &place, &objects))
        (box_of(&lines, "Nothing was written that matches.", Some(&format!("/ui/apps/{}/logs{}", key.app, query.query()))))
    };
    Ok(Page::new(Section::Apps, format!("{} logs", key.app), body).about(key))
}

fn filter_form(query: &LogsQuery, place: &str, objects: &[String]) -> Markup {
    let action = place.split('?').next().unwrap_or(place);
    html! {
        form.filters action=(action) method="get" aria-label="Which lines" {
            @if let Some(environment) = &query.environment { input type="hidden" name="environment" value=(environment); }
            @if !query.call.is_empty() { input type="hidden" name="call" value=(query.call); }
            label { "Object " select name="object" {
                option value="" { "all" }
                @for object in objects { option value=(object) selected[*object == query.object] { (object) } }
            } }
            label { "Stream " select name="source" {
                option value="" { "all" }
                @for source in ["stdout", "stderr", "system"] { option value=(source) selected[source == query.source] { (source) } }
            } }
            label { "Version " input name="version" value=(query.version) size="5" placeholder="all"; }
            label { "Instance " input name="instance" value=(query.instance) size="22" placeholder="all" spellcheck="false"; }
            label { "Text " input type="search" name="q" value=(query.q) size="18" placeholder="any" spellcheck="false"; }
            button { "Show" }
        }
    }
}

/// Lines of a log that do not go on.
pub(super) fn lines_box(lines: &[LogLine], nothing: &str) -> Markup {
    box_of(lines, nothing, None)
}

/// Lines of a log; with `follow`, the script goes on with new ones from there.
fn box_of(lines: &[LogLine], nothing: &str, follow: Option<&str>) -> Markup {
    html! {
        div.log role="log" aria-live="off" aria-label="Log" tabindex="0" data-follow=[follow] data-keep[follow.is_some()] {
            @if lines.is_empty() { p.empty { (nothing) } }
            @for line in lines {
                div.line.(stream(&line.source)) {
                    time datetime=(line.at.to_string()) title=(line.at.to_string()) { (line.at.strftime("%H:%M:%S%.3f")) }
                    span.from title=(line.instance) { (line.object) " " (line.version) }
                    span.text { (line.line) }
                }
            }
        }
    }
}

/// The class of a line; what is written beside it says the same.
fn stream(source: &str) -> &'static str {
    match source {
        "stderr" => "stderr",
        "system" => "system",
        _ => "stdout",
    }
}

/// `GET /ui/apps/{app}/logs`: the same lines and new ones, as server-sent events.
pub(super) async fn follow(
    State(context): Shared,
    app: Named,
    Asked(query): Asked<LogsQuery>,
) -> Result<Response, Refusal> {
    let key = context.app_key(&app.0, query.environment.as_ref())?;
    let mut all = context.engine().logs(key, query.asked(true)?).await?;
    if query.q.is_empty() {
        return Ok(events::answer(all, events::Nowhere, context.shutdown()));
    }
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        loop {
            let line = tokio::select! {
                line = all.recv() => line,
                () = sender.closed() => return,
            };
            let Some(line) = line else { return };
            if query.has(&line) && sender.send(line).await.is_err() {
                return;
            }
        }
    });
    Ok(events::answer(receiver, events::Nowhere, context.shutdown()))
}
