//! What is watched, and one source with what waits for a person.

use axum::extract::State;
use maud::{Markup, html};

use super::super::extract::{Named, name};
use super::super::routes::Shared;
use super::apps::Scene;
use super::icons::Icon;
use super::page::{Page, Section};
use super::parts::{self, Tone};
use super::viewer::Viewer;
use super::{Shown, deeds};
use crate::domain::{Verb, Waiting};
use crate::wire::api::{Source, Standing};

/// Digits of a revision in a list.
const SHORT: usize = 10;

/// `GET /sources`
pub(super) async fn list(State(context): Shared) -> Shown {
    let sources = context.engine().sources().await?;
    let scene = Scene::of(context.engine()).await?;
    Ok(Page::new(Section::Sources, "Sources", list_body(&sources, &scene)).every(5))
}

fn state(source: &Source) -> Markup {
    if source.error.is_some() {
        parts::badge(Tone::Bad, Icon::Bad, source.error_kind.as_deref().unwrap_or("failing"))
    } else if source.suspension.is_some() {
        parts::badge(Tone::Warn, Icon::Paused, "suspended")
    } else if source.waiting.iter().any(|waiting| waiting.approved_by.is_none()) {
        parts::badge(Tone::Warn, Icon::Held, "waits for you")
    } else if !source.manifest_errors.is_empty() {
        parts::badge(Tone::Warn, Icon::Alarm, "bad manifest")
    } else if source.dirty {
        parts::badge(Tone::Busy, Icon::Busy, "looking")
    } else {
        parts::badge(Tone::Good, Icon::Good, "read")
    }
}

fn list_body(sources: &[Source], scene: &Scene) -> Markup {
    html! {
        div.head { h1 { "Sources" } }
        @if sources.is_empty() {
            div.empty { p { "Nothing is watched." } p.muted { "Name a repository or a directory under " code { "sources" } " in the agent's configuration." } }
        } @else {
            table {
                caption.quiet { "Sources" }
                thead { tr {
                    th scope="col" { "State" } th scope="col" { "Source" } th scope="col" { "Follows" } th scope="col" { "Revision" }
                    th.number scope="col" { "Apps" } th scope="col" { "Looked at" } th scope="col" { "Next" }
                } }
                tbody { @for source in sources {
                    tr {
                        td { (state(source)) }
                        td.main {
                            a.name href={ "/sources/" (source.source) } { (source.source) }
                            @if let Some(environment) = &source.environment { " " span.tag { (environment) } }
                            p.message.mono { (source.location) }
                            @if let Some(error) = &source.error { p.message { (parts::prose(error.lines().next().unwrap_or_default())) } }
                        }
                        td.muted { (source.reference.as_deref().unwrap_or(&source.kind)) }
                        td { (revision(source)) }
                        td.number { (source.apps) }
                        td { (parts::maybe_time(source.looked_at, scene.now)) }
                        td { (parts::maybe_time(source.next_look_at, scene.now)) }
                    }
                } }
            }
        }
    }
}

fn revision(source: &Source) -> Markup {
    html! { @match &source.revision {
        Some(revision) => span.commit title=(revision) { (revision.get(..SHORT).unwrap_or(revision)) },
        None => (parts::dash()),
    } }
}

/// `GET /sources/{source}`
pub(super) async fn one(State(context): Shared, source: Named, viewer: Viewer) -> Shown {
    let source = context.engine().source(&name("source", &source.0)?).await?;
    let scene = Scene::of(context.engine()).await?;
    Ok(Page::new(Section::Sources, format!("Source {}", source.source), one_body(&source, &scene, &viewer)).every(3))
}

fn one_body(source: &Source, scene: &Scene, viewer: &Viewer) -> Markup {
    html! {
        p.crumbs { a href="/sources" { "Sources" } }
        div.head { h1 { (source.source) } (state(source)) span.muted.mono { (source.location) } (actions(source, viewer)) }
        @if let Some(error) = &source.error { section.notice.bad aria-label="What is wrong" { (Icon::Bad.draw()) p { (parts::prose(error)) } } }
        @if let Some(pause) = &source.suspension { p.notice.warn { (Icon::Paused.draw()) span { "Suspended by " (pause.actor) ": " (pause.reason) } } }
        @for waiting in &source.waiting { (waiting_box(source, waiting, scene, viewer)) }
        @for error in &source.manifest_errors { section.notice.bad aria-label="A manifest that cannot be read" { (Icon::Alarm.draw()) pre tabindex="0" { (error) } } }
        @for note in &source.notes { p.notice.quiet { (parts::prose(note)) } }
        dl.facts {
            dt { "Kind" } dd { (source.kind) @if let Some(reference) = &source.reference { ", " (reference) } }
            dt { "Revision" } dd { (revision(source)) ", read " (parts::maybe_time(source.read_at, scene.now)) }
            dt { "Looked at" } dd { (parts::maybe_time(source.looked_at, scene.now)) }
            dt { "Next look" } dd { (parts::maybe_time(source.next_look_at, scene.now)) }
            dt { "Apps" } dd { (source.apps) @if let Some(environment) = &source.environment { " in " span.tag { (environment) } } }
            @if let Some(bytes) = source.cache_bytes { dt { "Cache" } dd { (parts::bytes(bytes)) } }
            dt { "Last push hook" }
            dd { @match &source.last_hook {
                Some(hook) => { (hook.provider) ", " (hook.outcome.as_str()) ", " (parts::time(hook.at, scene.now)) },
                None => "none yet",
            } @if source.hooks_refused > 0 { span.warn { " · " (source.hooks_refused) " refused" } } }
            @if let Some(reports) = &source.reports { dt { "Commit status" } dd { (standing(reports, scene)) } }
        }
    }
}

fn actions(source: &Source, viewer: &Viewer) -> Markup {
    let place = |deed: &str| format!("/ui/sources/{}/{deed}", source.source);
    html! {
        @if viewer.acts(Verb::Deploy, None) {
            div.actions role="group" aria-label="Actions" {
                (deeds::button(&place("sync"), "Look now", viewer))
                @if source.suspension.is_some() { (deeds::button(&place("resume"), "Resume", viewer)) }
                @else { (deeds::button(&place("suspend"), "Suspend", viewer)) }
            }
        }
    }
}

fn waiting_box(source: &Source, waiting: &Waiting, scene: &Scene, viewer: &Viewer) -> Markup {
    html! {
        section.notice.warn aria-label="Waits for a person" {
            (Icon::Held.draw())
            div {
                p { (parts::prose(&waiting.reason.words_for(&source.source))) }
                p.muted {
                    "since " (parts::time(waiting.since, scene.now))
                    @if let Some(who) = &waiting.approved_by { ", approved by " (who) }
                }
                @if waiting.approved_by.is_none() && waiting.reason.can_be_approved() && viewer.acts(Verb::Deploy, None) {
                    form method="post" action={ "/ui/sources/" (source.source) "/approve" } {
                        (viewer.csrf_field())
                        input type="hidden" name="wait" value=(waiting.id);
                        button.danger { "Approve" }
                    }
                }
            }
        }
    }
}

/// How a destination of messages stands.
pub(super) fn standing(standing: &Standing, scene: &Scene) -> Markup {
    html! {
        (standing.delivered) " delivered"
        @if let Some(at) = standing.delivered_at { ", last " (parts::time(at, scene.now)) }
        @if standing.queued > 0 { ", " (standing.queued) " wait" }
        @if standing.given_up > 0 { ", " (standing.given_up) " given up" }
        @if let Some(error) = &standing.error { p.message { (parts::prose(error)) } }
    }
}
