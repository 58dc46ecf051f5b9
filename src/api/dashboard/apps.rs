//! The first page: all apps, the ones that need somebody first to be found by a look at the states' numbers.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::State;
use jiff::Timestamp;
use maud::{Markup, html};
use serde::Deserialize;

use super::super::extract::Asked;
use super::super::problem::Refusal;
use super::super::routes::Shared;
use super::Shown;
use super::forge::Forges;
use super::icons::Icon;
use super::page::{Page, Section};
use super::parts::{self, Places};
use super::viewer::Viewer;
use crate::domain::AppKey;
use crate::engine::Engine;
use crate::wire::api::{App, AppState};

/// Apps on one page.
const ROWS: usize = 25;
/// Longest message in the list; all of it is on the app's page.
const MESSAGE: usize = 160;
/// The states in the order of the facets.
const STATES: [AppState; 7] = [
    AppState::Deployed,
    AppState::Deploying,
    AppState::Crashing,
    AppState::Failed,
    AppState::Held,
    AppState::Suspended,
    AppState::Stopped,
];

/// Which apps.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AppsQuery {
    q: String,
    state: String,
    environment: String,
    page: String,
}

impl AppsQuery {
    /// Its address, with one thing changed, and from the first page on.
    fn with(&self, state: &str, environment: &str, page: usize) -> String {
        let page = if page > 1 { page.to_string() } else { String::new() };
        format!("/{}", parts::query(&[("q", &self.q), ("state", state), ("environment", environment), ("page", &page)]))
    }

    fn is_for(&self, app: &App) -> bool {
        let words = self.q.to_lowercase();
        let commit = app.commit.as_ref().map(ToString::to_string).unwrap_or_default();
        let found = |word: &str| {
            app.app.as_str().contains(word)
                || commit.starts_with(word)
                || app.source.as_ref().is_some_and(|source| source.as_str() == word)
                || app.path.as_ref().is_some_and(|path| path.to_lowercase().contains(word))
        };
        words.split_whitespace().all(found)
            && (self.environment.is_empty() || app.environment.as_str() == self.environment)
    }
}

/// `GET /`
pub(super) async fn show(State(context): Shared, viewer: Viewer, Asked(query): Asked<AppsQuery>) -> Shown {
    let mut apps = context.engine().apps(None).await?;
    apps.retain(|app| viewer.sees(&AppKey::new(app.environment.clone(), app.app.clone())));
    let scene = Scene::of(context.engine()).await?;
    let title = if query.q.is_empty() { "Apps".to_owned() } else { format!("Apps: {}", query.q) };
    Ok(Page::new(Section::Apps, title, body(&apps, &query, &scene)))
}

/// What every row is drawn with.
pub(super) struct Scene {
    pub(super) places: Places,
    pub(super) forges: Forges,
    pub(super) now: Timestamp,
}

impl Scene {
    /// As things are now.
    pub(super) async fn of(engine: &Engine) -> Result<Self, Refusal> {
        let forges = Forges::of(&engine.sources().await?);
        Ok(Self { places: Places { home: engine.environment() }, forges, now: Timestamp::now() })
    }
}

/// The page's body.
pub(super) fn body(apps: &[App], query: &AppsQuery, scene: &Scene) -> Markup {
    let matching: Vec<&App> = apps.iter().filter(|app| query.is_for(app)).collect();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for app in &matching {
        *counts.entry(app.state.as_str()).or_default() += 1;
    }
    let chosen: Vec<&App> =
        matching.iter().copied().filter(|app| query.state.is_empty() || app.state.as_str() == query.state).collect();
    let pages = chosen.len().div_ceil(ROWS).max(1);
    let page = query.page.parse().unwrap_or(1_usize).clamp(1, pages);
    let environments: BTreeSet<&str> = apps.iter().map(|app| app.environment.as_str()).collect();
    let rows = &chosen[(page - 1) * ROWS..(page * ROWS).min(chosen.len())];
    html! {
        div.head {
            h1 { "Apps" }
            form.search role="search" action="/" method="get" {
                @if !query.state.is_empty() { input type="hidden" name="state" value=(query.state); }
                @if !query.environment.is_empty() { input type="hidden" name="environment" value=(query.environment); }
                label.quiet for="q" { "Filter" }
                input #q type="search" name="q" value=(query.q) placeholder="Name, commit, path …" autocomplete="off" spellcheck="false" data-filter;
                noscript { button { "Filter" } }
            }
        }
        (facets(query, &counts, matching.len()))
        @if environments.len() > 1 { (environment_facets(query, &environments)) }
        @if apps.is_empty() { (nothing_yet()) }
        @else if rows.is_empty() {
            p.empty { "No app matches. " a href="/" { "Show all " (apps.len()) } }
        } @else {
            table.apps {
                caption.quiet { "Apps with their state, version and instances" }
                thead { tr {
                    th scope="col" { "State" } th scope="col" { "App" } th scope="col" { "Version" } th scope="col" { "Commit" }
                    th.number scope="col" { "Ready" } th scope="col" { "Address" } th scope="col" { "Changed" }
                } }
                tbody { @for app in rows { (row(app, scene, environments.len() > 1)) } }
            }
            @if pages > 1 { (pager(query, page, pages, chosen.len())) }
        }
    }
}

fn facets(query: &AppsQuery, counts: &BTreeMap<&str, usize>, all: usize) -> Markup {
    let current = |on: bool| on.then_some("true");
    html! {
        nav.facets aria-label="States" {
            a href=(query.with("", &query.environment, 1)) aria-current=[current(query.state.is_empty())] { "All " span.count { (all) } }
            @for state in STATES {
                @let count = counts.get(state.as_str()).copied().unwrap_or(0);
                @if count > 0 || query.state == state.as_str() {
                    @let (tone, icon) = parts::look_of_state(state);
                    a.(tone.class()) href=(query.with(state.as_str(), &query.environment, 1)) aria-current=[current(query.state == state.as_str())] {
                        (icon.draw()) (state.as_str()) " " span.count { (count) }
                    }
                }
            }
        }
    }
}

fn environment_facets(query: &AppsQuery, environments: &BTreeSet<&str>) -> Markup {
    html! {
        nav.facets aria-label="Environments" {
            a href=(query.with(&query.state, "", 1)) aria-current=[query.environment.is_empty().then_some("true")] { "Every environment" }
            @for name in environments {
                a href=(query.with(&query.state, name, 1)) aria-current=[(query.environment == *name).then_some("true")] { (name) }
            }
        }
    }
}

fn row(app: &App, scene: &Scene, with_environment: bool) -> Markup {
    html! {
        tr #{ "app-" (app.environment) "-" (app.app) } {
            td.state { (parts::state(app.state)) }
            td.main {
                a.name href=(scene.places.of(&app.environment, &app.app)) { (app.app) }
                @if with_environment { " " span.tag { (app.environment) } }
                @if let Some(said) = said(app, scene) { p.message { (said) } }
            }
            td { @match app.live_version { Some(version) => span.version { (version) }, None => (parts::dash()) } }
            td { @match &app.commit {
                Some(commit) => (parts::commit(commit, scene.forges.commit(app.source.as_ref(), commit).as_deref())),
                None => (parts::dash()),
            } }
            td.number { (app.ready) span.of { "/" (app.instances) } }
            td.address { @match app.urls.first() {
                Some(url) => a.out href=(url.url) rel="noreferrer" { (bare(&url.url)) (Icon::Out.draw()) },
                None => (parts::dash()),
            } }
            td.when { (parts::time(app.updated_at, scene.now)) }
        }
    }
}

/// What there is to say of an app besides its state, in one line.
pub(super) fn said(app: &App, scene: &Scene) -> Option<Markup> {
    match (app.state, &app.hold, &app.suspension) {
        (AppState::Held, Some(hold), _) => Some(html! {
            (hold.version) " by " (hold.actor) ", " (parts::time(hold.since, scene.now))
            @if let Some(until) = hold.until { ", ends " (parts::time(until, scene.now)) }
            ": " (hold.reason)
        }),
        (AppState::Suspended, _, Some(pause)) => Some(html! {
            "by " (pause.actor) ", " (parts::time(pause.since, scene.now))
            @if let Some(until) = pause.until { ", ends " (parts::time(until, scene.now)) }
            ": " (pause.reason)
        }),
        (_, _, _) => app.message.as_deref().or(app.manifest_error.as_deref()).map(|words| parts::prose(&short(words))),
    }
}

/// The first line, as far as it fits.
fn short(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    match line.char_indices().nth(MESSAGE) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line.to_owned(),
    }
}

/// An address as people say it.
pub(super) fn bare(url: &str) -> &str {
    url.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/')
}

fn pager(query: &AppsQuery, page: usize, pages: usize, count: usize) -> Markup {
    let place = |page: usize| query.with(&query.state, &query.environment, page);
    html! {
        nav.pager aria-label="Pages" {
            @if page > 1 { a.button href=(place(page - 1)) rel="prev" { "Previous" } }
            span.muted { ((page - 1) * ROWS + 1) "–" ((page * ROWS).min(count)) " of " (count) }
            @if page < pages { a.button href=(place(page + 1)) rel="next" { "Next" } }
        }
    }
}

fn nothing_yet() -> Markup {
    html! {
        div.empty {
            p { "No apps yet." }
            p.muted { "Push a directory with a " code { "landfall.yaml" } " to a watched source, or deploy one from here: " code { "landfall deploy DIR" } }
        }
    }
}
