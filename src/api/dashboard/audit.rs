//! Who changed what, from where, and what came of it.

use axum::extract::State;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::Value;

use super::super::extract::Asked;
use super::super::problem::Refusal;
use super::super::routes::Shared;
use super::Shown;
use super::apps::Scene;
use super::page::{Page, Section};
use super::parts;
use super::settings::{self, Tab};
use super::viewer::Viewer;
use crate::engine::AuditFilter;
use crate::wire::tokens::AuditEntry;

/// Entries on one page.
const ROWS: u32 = 50;
/// Longest value of a detail that is shown, in characters.
const SHOWN: usize = 160;

/// Which entries.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AuditQuery {
    actor: String,
    app: String,
    environment: String,
    before: String,
}

impl AuditQuery {
    fn place(&self, before: &str) -> String {
        let pairs = [
            ("actor", self.actor.as_str()),
            ("app", &self.app),
            ("environment", &self.environment),
            ("before", before),
        ];
        format!("/audit{}", parts::query(&pairs))
    }
}

/// `GET /audit`
pub(super) async fn show(State(context): Shared, viewer: Viewer, Asked(query): Asked<AuditQuery>) -> Shown {
    let said = |text: &String| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
    let environment = said(&query.environment);
    let app = said(&query.app).map(|app| context.app_key(&app, environment.as_ref())).transpose()?;
    let before = said(&query.before).map(|text| text.parse::<i64>()).transpose();
    let before = before.map_err(|_| Refusal::invalid("the place in the list is no number", "correct the address"))?;
    let filter = AuditFilter { app, actor: said(&query.actor), since: None, before, limit: ROWS };
    let entries = context.engine().audit(filter).await?;
    let scene = Scene::of(context.engine()).await?;
    Ok(Page::new(Section::Settings, "Audit", body(&entries, &query, &scene, &viewer)))
}

/// The page's body.
pub(super) fn body(entries: &[AuditEntry], query: &AuditQuery, scene: &Scene, viewer: &Viewer) -> Markup {
    let last = entries.last().map(|entry| entry.id.to_string());
    html! {
        div.head { h1 { "Settings" } }
        (settings::tabs(Tab::Audit, viewer))
        form.filters role="search" action="/audit" method="get" {
            label { "Who " input name="actor" value=(query.actor) placeholder="anybody" size="16" spellcheck="false" autocomplete="off"; }
            label { "App " input name="app" value=(query.app) placeholder="any" size="16" spellcheck="false" autocomplete="off"; }
            label { "Environment " input name="environment" value=(query.environment) placeholder=(scene.places.home) size="10" spellcheck="false" autocomplete="off"; }
            button { "Show" }
        }
        @if entries.is_empty() { p.empty { "No change is on record that matches. " a href="/audit" { "Show all" } } }
        @else {
            table.audit {
                caption.quiet { "Changes, the newest first" }
                thead { tr {
                    th scope="col" { "When" } th scope="col" { "Who" } th scope="col" { "What" } th scope="col" { "App" }
                    th scope="col" { "In detail" } th scope="col" { "Answer" }
                } }
                tbody { @for entry in entries { (row(entry, scene)) } }
            }
            @if entries.len() >= ROWS as usize && let Some(last) = last {
                nav.pager aria-label="Pages" { a.button rel="next" href=(query.place(&last)) { "Older" } }
            }
        }
    }
}

fn row(entry: &AuditEntry, scene: &Scene) -> Markup {
    html! {
        tr #{ "entry-" (entry.id) } {
            td.when { (parts::time(entry.at, scene.now)) }
            td.who { (entry.actor) p.message { (entry.via) @if let Some(address) = &entry.address { ", " (address) } } }
            td { code { (entry.action) } }
            td { @match (&entry.environment, &entry.app) {
                (Some(environment), Some(app)) => {
                    a href=(scene.places.of(environment, app)) { (app) }
                    @if *environment != scene.places.home { " " span.tag { (environment) } }
                },
                (_, _) => (parts::dash()),
            } }
            td.main { (pairs(&entry.detail)) (change(entry)) }
            td { (answer(entry)) }
        }
    }
}

/// `key value` for all that was asked for.
fn pairs(detail: &Value) -> Markup {
    let said: Vec<(String, String)> = match detail {
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), text(value))).collect(),
        Value::Null => Vec::new(),
        Value::Number(version) => vec![("version".to_owned(), version.to_string())],
        other => vec![(String::new(), text(other))],
    };
    html! { @for (index, (key, value)) in said.iter().enumerate() {
        @if index > 0 { ", " } @if !key.is_empty() { span.muted { (key) " " } } (value)
    } }
}

/// What differs in how the app stood before and after.
fn change(entry: &AuditEntry) -> Markup {
    let (Some(Value::Object(before)), Some(Value::Object(after))) = (&entry.before, &entry.after) else {
        return html! {};
    };
    let differ: Vec<_> = after.iter().filter(|(key, value)| before.get(*key) != Some(value)).collect();
    html! { @if !differ.is_empty() { p.message { @for (index, (key, value)) in differ.iter().enumerate() {
        @if index > 0 { ", " } (key) " " (before.get(*key).map_or_else(|| "none".to_owned(), text)) " → " (text(value))
    } } } }
}

fn answer(entry: &AuditEntry) -> Markup {
    let Some(result) = &entry.result else {
        // What the agent did by itself was asked for by nobody, and so answered to nobody.
        return if entry.via == "agent" {
            parts::dash()
        } else {
            html! { span.warn { "none: the agent ended" } }
        };
    };
    let status = result.get("status").and_then(Value::as_u64).unwrap_or_default();
    let words = ["message", "title"].iter().find_map(|key| result.get(key).and_then(Value::as_str));
    html! {
        span.word.(if status < 400 { "good" } else { "bad" }) { (status) }
        @if let Some(words) = words { p.message { (words) } }
    }
}

fn text(value: &Value) -> String {
    let text = match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}
