//! All versions of an app: who, when, why, and the way back.

use axum::extract::State;
use maud::{Markup, html};
use serde::Deserialize;

use super::super::extract::{Asked, Named};
use super::super::routes::Shared;
use super::app::{self, Tab, author_name};
use super::apps::Scene;
use super::page::{Page, Section};
use super::parts::{self, Tone};
use super::viewer::Viewer;
use super::{Shown, actions, diff};
use crate::domain::VersionNumber;
use crate::wire::api::{App, Version};

/// Versions on one page.
const ROWS: usize = 50;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VersionsQuery {
    environment: Option<String>,
    /// Only those before this one.
    before: Option<u32>,
}

/// `GET /apps/{app}/versions`
pub(super) async fn show(
    State(context): Shared,
    app: Named,
    viewer: Viewer,
    Asked(query): Asked<VersionsQuery>,
) -> Shown {
    let key = context.app_key(&app.0, query.environment.as_ref())?;
    let (app, all) = (context.engine().app(key.clone()).await?, context.engine().versions(key.clone()).await?);
    let scene = Scene::of(context.engine()).await?;
    let older: Vec<Version> = all
        .iter()
        .filter(|version| query.before.is_none_or(|before| version.version.get() < before))
        .cloned()
        .collect();
    let shown = &older[..older.len().min(ROWS)];
    let last = shown.last().map(|version| version.version.get());
    let body = html! {
        (app::head(&app, &scene, Tab::Versions, &viewer))
        h2.quiet { "Versions" }
        (table(shown, &app, &scene, &viewer))
        @if older.len() > shown.len() && let Some(last) = last {
            nav.pager aria-label="Pages" {
                span.muted { (shown.len()) " of " (all.len()) }
                a.button rel="next" href=(scene.places.app(&key, &format!("/versions?before={last}"))) { "Older" }
            }
        }
    };
    Ok(Page::new(Section::Apps, format!("{} versions", key.app), body).about(key))
}

/// Versions, newest first.
pub(super) fn table(versions: &[Version], app: &App, scene: &Scene, viewer: &Viewer) -> Markup {
    html! {
        table.versions {
            caption.quiet { "Versions, the newest first" }
            thead { tr {
                th scope="col" { "Version" } th scope="col" { "Status" } th scope="col" { "What" } th scope="col" { "Commit" }
                th scope="col" { "By" } th scope="col" { "When" } th scope="col" { span.quiet { "Actions" } }
            } }
            tbody { @for version in versions { (row(version, app, scene, viewer)) } }
        }
    }
}

fn row(version: &Version, app: &App, scene: &Scene, viewer: &Viewer) -> Markup {
    html! {
        tr.live[version.live] #{ "version-" (version.version) } {
            td { (parts::version(version.version, version.deployment)) }
            td { (parts::version_status(version.status)) @if version.quarantined { " " span.tag.(Tone::Bad.class()) { "quarantined" } } }
            td.main {
                (what(version))
                @if let Some(reason) = &version.reason { p.message { "“" (reason) "”" } }
            }
            td { @match &version.commit {
                Some(commit) => (parts::commit(commit, scene.forges.commit(app.source.as_ref(), commit).as_deref())),
                None => (parts::dash()),
            } }
            td.who { (who(version)) }
            td.when { (parts::time(version.created_at, scene.now)) }
            td.act {
                @if version.version != VersionNumber::FIRST {
                    a.button.small href=(diff::place(app, version.version, scene)) { "Diff" span.quiet { " of " (version.version) } }
                }
                " " (actions::back_to(version, app, scene, viewer))
            }
        }
    }
}

/// The commit's first line, or what was done instead of a commit.
fn what(version: &Version) -> Markup {
    html! {
        @if let Some(of) = version.rollback_of { "Back to " (of) @if let Some(subject) = &version.subject { span.muted { ": " (subject) } } }
        @else if let Some(of) = version.rollover_of { "Started " (of) " afresh" }
        @else if let Some(subject) = &version.subject { (subject) }
        @else if version.commit.is_none() { span.muted { "Uploaded" } }
        @else { (parts::dash()) }
    }
}

/// The author where git brought it, else whoever did it.
fn who(version: &Version) -> Markup {
    html! {
        @match (&version.author, version.rollback_of.is_none() && version.rollover_of.is_none()) {
            (Some(author), true) => span title=(format!("{author}, by {}", version.actor)) { (author_name(author)) },
            (_, _) => (version.actor),
        }
    }
}
