//! One app: how it stands, what it is made of, what it ran before.

use axum::extract::State;
use maud::{Markup, html};
use serde::Deserialize;

use super::super::extract::{Asked, Named};
use super::super::problem::Refusal;
use super::super::routes::{Context, Shared};
use super::apps::{Scene, bare, said};
use super::icons::Icon;
use super::page::{Page, Section};
use super::parts::{self, Tone};
use super::viewer::Viewer;
use super::{Shown, actions, charts, functions, requests, schedules, versions};
use crate::domain::AppKey;
use crate::domain::manifest::ObjectKind;
use crate::engine::CallFilter;
use crate::wire::api::{App, AppState, Deployment, Instance, Version};
use crate::wire::call_views::CallView;
use crate::wire::functions::FunctionView;
use crate::wire::schedules::Schedule;
use crate::wire::traffic::ObjectTraffic;

/// Versions on the first page of an app; all of them have a page of their own.
const VERSIONS: usize = 6;
/// Calls that the chart is drawn from.
const CALLS: u32 = 1000;

/// Which environment.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InEnvironment {
    environment: Option<String>,
}

/// A page about an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tab {
    /// How it stands.
    Overview,
    /// What it ran.
    Versions,
    /// What it wrote.
    Logs,
}

/// Everything the page shows.
pub(super) struct Shows {
    pub(super) app: App,
    pub(super) live: Option<Deployment>,
    pub(super) newest: Option<Deployment>,
    pub(super) versions: Vec<Version>,
    pub(super) instances: Vec<Instance>,
    pub(super) schedules: Vec<Schedule>,
    pub(super) calls: Vec<CallView>,
    pub(super) functions: Vec<FunctionView>,
    pub(super) traffic: Vec<ObjectTraffic>,
}

/// The app that a page is about.
pub(super) fn key_of(app: &App) -> AppKey {
    AppKey::new(app.environment.clone(), app.app.clone())
}

/// `GET /apps/{app}`
pub(super) async fn show(
    State(context): Shared,
    app: Named,
    viewer: Viewer,
    Asked(query): Asked<InEnvironment>,
) -> Shown {
    let key = context.app_key(&app.0, query.environment.as_ref())?;
    let (shows, scene) = (load(&context, &key).await?, Scene::of(context.engine()).await?);
    let title = key.app.to_string();
    Ok(Page::new(Section::Apps, title, body(&shows, &scene, &viewer)).about(key).every(15))
}

async fn load(context: &Context, key: &AppKey) -> Result<Shows, Refusal> {
    let engine = context.engine();
    let app = engine.app(key.clone()).await?;
    let versions = engine.versions(key.clone()).await?;
    let of_live = versions.iter().find(|version| version.live).and_then(|version| version.deployment);
    let live = match of_live {
        Some(id) => Some(engine.deployment(id).await?),
        None => None,
    };
    let newest = match app.deployment {
        Some(id) if Some(id) == of_live => live.clone(),
        Some(id) => Some(engine.deployment(id).await?),
        None => None,
    };
    let instances = engine.instances(Some(key.environment.clone()), Some(key.app.clone())).await?;
    let all = engine.schedules().await?.into_iter();
    let schedules = all.filter(|(owner, _)| owner == key).map(|(_, schedule)| schedule).collect();
    let calls = engine.calls(CallFilter { app: Some(key.clone()), limit: CALLS, ..CallFilter::default() }).await?;
    let functions = engine.functions(key.clone()).await?;
    let traffic = engine.traffic(key.clone()).await?;
    Ok(Shows { app, live, newest, versions, instances, schedules, calls, functions, traffic })
}

/// The page's body.
pub(super) fn body(shows: &Shows, scene: &Scene, viewer: &Viewer) -> Markup {
    let Shows { app, live, versions, instances, schedules, calls, functions, traffic, .. } = shows;
    let key = key_of(app);
    html! {
        (head(app, scene, Tab::Overview, viewer))
        (under_way(shows))
        div.columns {
            div {
                @match live {
                    // Functions have a table of their own below.
                    Some(live) if live.objects.iter().all(|object| object.kind == ObjectKind::Function) && !functions.is_empty() => {},
                    Some(live) => section aria-labelledby="objects" { h2 #objects { "Objects" } (objects(live)) },
                    None => section aria-labelledby="objects" { h2 #objects { "Objects" } p.empty { "No version is live." } },
                }
                @if !functions.is_empty() {
                    section aria-labelledby="functions" {
                        h2 #functions { "Functions " span.count { "of the last five minutes" } }
                        (functions::table(functions, scene))
                    }
                }
                @for one in traffic { (requests::charts(one, versions, scene.now)) }
                (charts::calls(calls, versions, scene.now))
                section aria-labelledby="instances" {
                    h2 #instances { "Instances " span.count { (instances.len()) } }
                    @if instances.is_empty() { p.empty { "Nothing runs." } } @else { (instance_table(instances, &key, scene)) }
                }
                @if !schedules.is_empty() {
                    section aria-labelledby="schedules" {
                        h2 #schedules { "Schedules" }
                        (schedules::table(schedules, scene, viewer, false))
                    }
                }
                section aria-labelledby="versions" {
                    h2 #versions { "Versions" }
                    (versions::table(&versions[..versions.len().min(VERSIONS)], app, scene, viewer))
                    @if versions.len() > VERSIONS {
                        p.more { a href=(scene.places.app(&key, "/versions")) { "All " (versions.len()) " versions" } }
                    }
                }
            }
            aside aria-label="Facts" { (facts(shows, scene)) }
        }
    }
}

/// Name, state and what can be done; the same on each page about the app.
pub(super) fn head(app: &App, scene: &Scene, tab: Tab, viewer: &Viewer) -> Markup {
    let key = key_of(app);
    let tabs =
        [(Tab::Overview, "", "Overview"), (Tab::Versions, "/versions", "Versions"), (Tab::Logs, "/logs", "Logs")];
    html! {
        p.crumbs { a href="/" { "Apps" } }
        div.head {
            h1 { (app.app) @if app.environment != scene.places.home { " " span.tag { (app.environment) } } }
            (parts::state(app.state))
            @if let Some(url) = app.urls.first() { a.out href=(url.url) rel="noreferrer" { (bare(&url.url)) (Icon::Out.draw()) } }
            (actions::buttons(app, &key, scene, viewer))
        }
        (notice(app, scene))
        @if let Some(error) = &app.manifest_error { div.notice.bad { strong { "Its manifest cannot be read; what runs stays." } pre tabindex="0" { (error) } } }
        @for warning in &app.warnings { p.notice.warn { (Icon::Alarm.draw()) (parts::prose(warning)) } }
        nav.tabs aria-label=(app.app) {
            @for (each, below, name) in tabs {
                a href=(scene.places.app(&key, below)) aria-current=[(each == tab).then_some("page")] { (name) }
            }
            a href=(format!("/calls{}", parts::query(&[("app", app.app.as_str()), ("environment", elsewhere(&key, scene))]))) { "Calls" }
        }
    }
}

fn elsewhere<'a>(key: &'a AppKey, scene: &Scene) -> &'a str {
    if key.environment == scene.places.home { "" } else { key.environment.as_str() }
}

/// What its state leaves to be said.
fn notice(app: &App, scene: &Scene) -> Markup {
    let (tone, icon) = parts::look_of_state(app.state);
    // A state that is good may still have something to say: that the newest deployment failed.
    let (tone, icon) = if tone == Tone::Good { (Tone::Warn, Icon::Alarm) } else { (tone, icon) };
    let words = match app.state {
        AppState::Held | AppState::Suspended => said(app, scene).map(|said| match app.state {
            AppState::Held => html! { strong { "Held " } "at " (said) },
            _ => html! { strong { "Suspended " } (said) },
        }),
        // Shown by the deployment that is under way.
        AppState::Deploying => None,
        AppState::Deployed | AppState::Failed | AppState::Crashing | AppState::Stopped => {
            app.message.as_deref().map(parts::prose)
        }
    };
    html! { @if let Some(words) = words {
        div.notice.(tone.class()) {
            (icon.draw())
            p { (words) @if let (Some(id), true) = (app.deployment, app.state == AppState::Deployed) { " " a href=(parts::deployment_place(id)) { "Look at it" } } }
        }
    } }
}

/// The newest deployment, while it has not come to its end or when it failed.
fn under_way(shows: &Shows) -> Markup {
    let newest = shows.newest.as_ref().filter(|newest| newest.outcome.is_none() && newest.live_at.is_none());
    html! {
        @if let Some(newest) = newest {
            p.notice.busy {
                (Icon::Busy.draw())
                a href=(parts::deployment_place(newest.id)) { (newest.version) " is " (newest.phase.as_str()) }
                @if let Some(progress) = &newest.progress { span.muted { (progress) } }
            }
        }
    }
}

fn objects(live: &Deployment) -> Markup {
    html! {
        table {
            caption.quiet { "The objects of the live version that are no functions" }
            thead { tr { th scope="col" { "Object" } th scope="col" { "Kind" } th.number scope="col" { "Ready" } th scope="col" { "Reached by" } } }
            tbody { @for object in live.objects.iter().filter(|object| object.kind != ObjectKind::Function) {
                tr {
                    th scope="row" { (object.object) }
                    td.muted { (object.kind.as_str()) }
                    td.number { (object.ready) span.of { "/" (object.wanted) } }
                    td { @match &object.url {
                        Some(url) => a.out href=(url) rel="noreferrer" { (bare(url)) (Icon::Out.draw()) },
                        None => (parts::dash()),
                    } }
                }
            } }
        }
    }
}

fn instance_table(instances: &[Instance], key: &AppKey, scene: &Scene) -> Markup {
    html! {
        table {
            caption.quiet { "Instances that run" }
            thead { tr {
                th scope="col" { "State" } th scope="col" { "Instance" } th scope="col" { "Object" } th scope="col" { "Version" }
                th.number scope="col" { "In flight" } th.number scope="col" { "Restarts" } th scope="col" { "Started" }
            } }
            tbody { @for instance in instances {
                tr {
                    td { (parts::instance_state(instance.state)) }
                    td {
                        a.mono href=(scene.places.app(key, &format!("/logs{}", parts::query(&[("instance", instance.instance.as_str())])))) { (instance.instance) }
                        @if let Some(detail) = &instance.detail { p.message { (detail) } }
                    }
                    td.muted { (instance.object) }
                    td { span.version { (instance.version) } }
                    td.number { (instance.in_flight) }
                    td.number { (instance.restarts) }
                    td.when { (parts::maybe_time(instance.started_at, scene.now)) }
                }
            } }
        }
    }
}

fn facts(shows: &Shows, scene: &Scene) -> Markup {
    let Shows { app, live, versions, .. } = shows;
    let version = versions.iter().find(|version| version.live);
    html! {
        dl {
            @if let Some(version) = version {
                dt { "Live" }
                dd { (parts::version(version.version, version.deployment)) " " span.muted { (version.kind) @if let Some(of) = version.rollback_of { " to " (of) } } }
                @if let Some(image) = &version.image {
                    dt { "Image" }
                    dd { (image.reference) " " code { (image.digest.as_ref().unwrap_or(&image.id)) } }
                }
                @if let Some(commit) = &version.commit {
                    dt { "Commit" }
                    dd { (parts::commit(commit, scene.forges.commit(app.source.as_ref(), commit).as_deref())) @if let Some(subject) = &version.subject { " " (subject) } }
                }
                @if let Some(author) = &version.author { dt { "Author" } dd { (author_name(author)) } }
                dt { "By" } dd { (version.actor) }
                @if let Some(reason) = &version.reason { dt { "Reason" } dd { (reason) } }
                dt { "Live since" } dd { (parts::maybe_time(live.as_ref().and_then(|live| live.live_at), scene.now)) }
                @if let Some(took) = live.as_ref().and_then(|live| Some(live.live_at?.duration_since(live.created_at))) {
                    dt { "Took" } dd { (parts::length(took)) }
                }
            }
            dt { "Instances" } dd { (app.ready) " ready of " (app.instances) }
            dt { "Source" }
            dd { @match (&app.source, &app.path) {
                (Some(source), path) => { a href={ "/sources/" (source) } { (source) } @if let Some(path) = path { span.muted.mono { " " (path) } } },
                (None, _) => "uploaded",
            } }
            dt { "Changed" } dd { (parts::time(app.updated_at, scene.now)) }
        }
    }
}

/// `Ada <ada@example.com>` without the address.
pub(super) fn author_name(author: &str) -> &str {
    author.split(" <").next().unwrap_or(author)
}
