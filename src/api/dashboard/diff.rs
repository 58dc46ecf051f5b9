//! How one version of an app differs from another: manifest, secrets' revisions, files.

use axum::extract::State;
use maud::{Markup, html};
use serde::Deserialize;

use super::super::diffs::version;
use super::super::extract::{Asked, Named};
use super::super::problem::Refusal;
use super::super::routes::Shared;
use super::Shown;
use super::app::{self, Tab};
use super::apps::Scene;
use super::icons::Icon;
use super::page::{Page, Section};
use super::parts;
use super::viewer::Viewer;
use crate::domain::VersionNumber;
use crate::wire::api::{App, Version};
use crate::wire::diffs::{FieldDiff, FileChange, FileDiff, FilesDiff, GivenSecret, SecretDiff, VersionDiff, base};

/// Which two versions; without any, the live one against the one before it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct DiffQuery {
    environment: Option<String>,
    from: String,
    to: String,
}

/// `GET /apps/{app}/diff`
pub(super) async fn show(State(context): Shared, app: Named, viewer: Viewer, Asked(query): Asked<DiffQuery>) -> Shown {
    let key = context.app_key(&app.0, query.environment.as_ref())?;
    let engine = context.engine();
    let (app, versions) = (engine.app(key.clone()).await?, engine.versions(key.clone()).await?);
    let said = |text: &str| (!text.is_empty()).then(|| version(text)).transpose();
    let live = versions.iter().find(|version| version.live).or(versions.first());
    let none = || Refusal::invalid("this app has no version yet", "wait for its first deployment");
    let to = said(&query.to)?.or(live.map(|version| version.version)).ok_or_else(none)?;
    let from = said(&query.from)?.or_else(|| base(&versions, to)).unwrap_or(to);
    let diff = engine.diff(key.clone(), from, to, false).await?;
    let scene = Scene::of(engine).await?;
    let body = html! {
        (app::head(&app, &scene, Tab::Versions, &viewer))
        (body(&diff, &versions, &app, &scene))
    };
    Ok(Page::new(Section::Apps, format!("{} {from} → {to}", key.app), body).about(key))
}

/// Where two versions of an app are compared.
pub(super) fn place(app: &App, to: VersionNumber, scene: &Scene) -> String {
    scene.places.app(&app::key_of(app), &format!("/diff?to={to}"))
}

/// What follows the app's head.
pub(super) fn body(diff: &VersionDiff, versions: &[Version], app: &App, scene: &Scene) -> Markup {
    let key = app::key_of(app);
    html! {
        div.head {
            h2.big { (diff.from) " → " (diff.to) }
            form.filters action={ "/apps/" (app.app) "/diff" } method="get" {
                @if key.environment != scene.places.home { input type="hidden" name="environment" value=(key.environment); }
                (choice("from", "From", diff.from, versions))
                (choice("to", "to", diff.to, versions))
                button { "Compare" }
            }
        }
        @if diff.is_empty() { p.empty { "They do not differ." } }
        @if !diff.manifest.is_empty() { (manifest(&diff.manifest)) }
        @if !diff.secrets.is_empty() { (secrets(&diff.secrets)) }
        @if let Some(missing) = &diff.missing { p.notice.warn { (Icon::Alarm.draw()) span { (parts::prose(missing)) } } }
        @if let Some(found) = diff.files.as_ref().filter(|found| found.total > 0) { (files(found)) }
    }
}

fn choice(name: &str, word: &str, chosen: VersionNumber, versions: &[Version]) -> Markup {
    html! {
        label { (word) " "
            select name=(name) { @for version in versions {
                option value=(version.version) selected[version.version == chosen] {
                    (version.version) @if version.live { " (live)" }
                    @if let Some(commit) = &version.commit { " " (commit.short()) }
                }
            } }
        }
    }
}

fn manifest(changes: &[FieldDiff]) -> Markup {
    html! {
        section aria-labelledby="manifest" {
            h2 #manifest { "Manifest" }
            table {
                caption.quiet { "Fields of the manifest that differ, with all defaults in place" }
                thead { tr { th scope="col" { "Field" } th scope="col" { "Before" } th scope="col" { "After" } } }
                tbody { @for change in changes { tr {
                    th.mono scope="row" { (change.field) }
                    td { (value(change.before.as_deref())) }
                    td { (value(change.after.as_deref())) }
                } } }
            }
        }
    }
}

fn value(text: Option<&str>) -> Markup {
    html! { @match text { Some(text) => code { (text) }, None => (parts::dash()) } }
}

fn secrets(changes: &[SecretDiff]) -> Markup {
    let given = |given: &Option<GivenSecret>| {
        html! { @match given {
            Some(given) => { (given.secret) " " span.muted { (given.from) ", revision " (given.revision) } },
            None => (parts::dash()),
        } }
    };
    html! {
        section aria-labelledby="secrets" {
            h2 #secrets { "Secrets" }
            table {
                caption.quiet { "Secrets their instances were given in other revisions; never a value" }
                thead { tr { th scope="col" { "Variable" } th scope="col" { "Before" } th scope="col" { "After" } } }
                tbody { @for change in changes { tr {
                    th.mono scope="row" { (change.variable) } td { (given(&change.before)) } td { (given(&change.after)) }
                } } }
            }
        }
    }
}

fn files(found: &FilesDiff) -> Markup {
    let left = usize::try_from(found.total).unwrap_or(usize::MAX).saturating_sub(found.files.len());
    html! {
        section aria-labelledby="files" {
            h2 #files { "Files " span.count {
                (found.total) ", " span.plus { "+" (found.added) } " " span.minus { "−" (found.removed) }
            } }
            table.files {
                caption.quiet { "Files that differ" }
                thead { tr { th scope="col" { "File" } th scope="col" { "What" } th.number scope="col" { "Added" } th.number scope="col" { "Removed" } } }
                tbody { @for (index, file) in found.files.iter().enumerate() { tr {
                    th scope="row" { @if file.patch.is_some() { a.mono href={ "#file-" (index) } { (name(file)) } } @else { span.mono { (name(file)) } } }
                    td.muted { (file.change.as_str()) @if file.binary { ", binary" } }
                    td.number { @if file.binary { (parts::dash()) } @else { span.plus { "+" (file.added) } } }
                    td.number { @if file.binary { (parts::dash()) } @else { span.minus { "−" (file.removed) } } }
                } } }
            }
            @if left > 0 { p.more.muted { "and " (left) " more that are not listed" } }
        }
        @for (index, file) in found.files.iter().enumerate() {
            @if file.patch.is_some() || file.cut { (patch(file, index)) }
        }
    }
}

fn name(file: &FileDiff) -> Markup {
    html! { @if let Some(old) = &file.old_path { (old) " → " } (file.path) }
}

/// The text of a file's difference; the lines before the first `@@` only say again what the heading says.
fn patch(file: &FileDiff, index: usize) -> Markup {
    let id = format!("file-{index}");
    let text = file.patch.as_deref().unwrap_or_default();
    let lines = text.lines().skip_while(|line| !line.starts_with("@@"));
    html! {
        section.patch aria-labelledby=(id) {
            h3 #(id) { (name(file)) }
            @if file.change == FileChange::Mode { p.muted { "It has another mode: whether it may be executed, or is a link." } }
            pre tabindex="0" aria-labelledby=(id) {
                @for line in lines {
                    @match line.as_bytes().first() {
                        Some(b'+') => ins { (line) "\n" },
                        Some(b'-') => del { (line) "\n" },
                        Some(b'@') => span.at { (line) "\n" },
                        Some(_) | None => span { (line) "\n" },
                    }
                }
            }
            @if file.cut { p.muted { "The rest is cut: it is too long for a page. " code { "git diff" } " in the repository shows it." } }
        }
    }
}
