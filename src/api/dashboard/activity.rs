//! What happened, newest first.

use axum::extract::State;
use maud::{Markup, html};
use serde::Deserialize;

use super::super::extract::Asked;
use super::super::routes::Shared;
use super::apps::Scene;
use super::page::{Page, Section};
use super::viewer::Viewer;
use super::{Shown, live, parts};
use crate::domain::Verb;
use crate::wire::api::EventRecord;

/// Facts on one page.
const ROWS: u32 = 100;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ActivityQuery {
    /// Only those before this one.
    before: Option<i64>,
}

/// `GET /activity`
pub(super) async fn show(State(context): Shared, viewer: Viewer, Asked(query): Asked<ActivityQuery>) -> Shown {
    let rows = i64::from(ROWS);
    let after = query.before.map_or(-1, |before| before.saturating_sub(rows + 1).max(0));
    let mut facts = context.engine().events(after, ROWS).await?;
    facts.retain(|record| query.before.is_none_or(|before| record.sequence < before));
    let oldest = facts.first().map(|record| record.sequence);
    facts.retain(|record| match &record.event.app {
        Some(key) => viewer.sees(key),
        None => viewer.may(Verb::Read, None),
    });
    facts.reverse();
    let scene = Scene::of(context.engine()).await?;
    Ok(Page::new(Section::Activity, "Activity", body(&facts, oldest, &scene)))
}

/// The page's body.
pub(super) fn body(facts: &[EventRecord], oldest: Option<i64>, scene: &Scene) -> Markup {
    html! {
        div.head { h1 { "Activity" } }
        @if facts.is_empty() { p.empty { "Nothing has happened yet." } } @else {
            table.facts {
                caption.quiet { "What happened, the newest first" }
                thead { tr { th scope="col" { "When" } th scope="col" { "What" } th scope="col" { "Where" } th scope="col" { "In words" } } }
                tbody { @for record in facts {
                    @let event = &record.event;
                    tr #{ "fact-" (record.sequence) } {
                        td.when { (parts::time(event.at, scene.now)) }
                        td { span.word.(live::tone(event.kind)) { (event.kind.as_str()) } }
                        td { @match (&event.app, &event.source) {
                            (Some(key), _) => { a href=(scene.places.app(key, "")) { (key.app) } @if key.environment != scene.places.home { " " span.tag { (key.environment) } } @if let Some(version) = event.version { " " span.version { (version) } } },
                            (None, Some(source)) => a href={ "/sources/" (source) } { (source) },
                            (None, None) => (parts::dash()),
                        } }
                        td.main { p.text { (parts::prose(&event.message)) } }
                    }
                } }
            }
        }
        @if let Some(oldest) = oldest.filter(|oldest| *oldest > 1) {
            nav.pager aria-label="Pages" { a.button rel="next" href={ "/activity?before=" (oldest) } { "Older" } }
        }
    }
}
