//! How functions fare: instances, work that waits, rates and times; one of them minute by minute.

use std::collections::BTreeMap;

use axum::extract::State;
use jiff::Timestamp;
use maud::{Markup, html};
use serde::Deserialize;

use super::super::calls::NamedFunction;
use super::super::extract::{Asked, name};
use super::super::routes::Shared;
use super::Shown;
use super::app::{self, Tab};
use super::apps::Scene;
use super::hour::{self, HEIGHT, Hour, STEP, WIDTH};
use super::page::{Page, Section};
use super::parts;
use super::viewer::Viewer;
use crate::domain::{CallOutcome, FunctionKey};
use crate::wire::api::Version;
use crate::wire::functions::{FunctionDetail, FunctionView, Minute, Spread, Window};

/// Which environment.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InEnvironment {
    environment: Option<String>,
}

/// `GET /apps/{app}/functions/{function}`
pub(super) async fn one(
    State(context): Shared,
    named: NamedFunction,
    viewer: Viewer,
    Asked(query): Asked<InEnvironment>,
) -> Shown {
    let engine = context.engine();
    let key = context.app_key(&named.0, query.environment.as_ref())?;
    let app = engine.app(key.clone()).await?;
    let detail = engine.function_detail(FunctionKey::new(key.clone(), name("function", &named.1)?)).await?;
    let versions = engine.versions(key.clone()).await?;
    let scene = Scene::of(engine).await?;
    let title = format!("{} of {}", detail.function.function, key.app);
    let body = html! { (app::head(&app, &scene, Tab::Overview, &viewer)) (detail_body(&detail, &versions, &scene)) };
    Ok(Page::new(Section::Apps, title, body).about(key).every(5))
}

/// All functions of an app, a line each.
pub(super) fn table(functions: &[FunctionView], scene: &Scene) -> Markup {
    html! {
        table {
            caption.quiet { "Functions: instances, work that waits, rates and times of the last five minutes" }
            thead { tr {
                th scope="col" { "Function" } th.number scope="col" { "Ready" } th.number scope="col" { "Running" } th.number scope="col" { "Waiting" }
                th.number scope="col" { "Per second" } th.number scope="col" { "p50" } th.number scope="col" { "p95" } th.number scope="col" { "p99" }
                th scope="col" { "Last hour" }
            } }
            tbody { @for one in functions {
                tr {
                    th scope="row" { a.name href=(place(one, scene)) { (one.function) } }
                    td.number { (one.ready) span.of { "/" (one.instances) } }
                    td.number { (one.in_flight) }
                    td.number { (u64::from(one.waiting) + one.backlog) }
                    td.number { (format!("{:.1}", one.recent.per_second)) }
                    td.number { (micros(one.recent.run.p50_us)) }
                    td.number { (micros(one.recent.run.p95_us)) }
                    td.number { (micros(one.recent.run.p99_us)) }
                    td { (outcomes(&one.hour.outcomes)) }
                }
            } }
        }
    }
}

fn place(one: &FunctionView, scene: &Scene) -> String {
    let key = crate::domain::AppKey::new(one.environment.clone(), one.app.clone());
    scene.places.app(&key, &format!("/functions/{}", one.function))
}

/// What follows the app's head.
pub(super) fn detail_body(detail: &FunctionDetail, versions: &[Version], scene: &Scene) -> Markup {
    let one = &detail.function;
    html! {
        h2.big { (one.function) }
        div.columns {
            div {
                (chart(&detail.minutes, versions, scene.now))
                section aria-labelledby="times" {
                    h2 #times { "Times" }
                    table {
                        caption.quiet { "Times of calls that ended" }
                        thead { tr {
                            th scope="col" { "Within" } th scope="col" { "Spent" } th.number scope="col" { "p50" } th.number scope="col" { "p95" } th.number scope="col" { "p99" }
                        } }
                        tbody { (spreads("five minutes", &one.recent)) (spreads("the hour", &one.hour)) }
                    }
                }
                @if !detail.minutes.is_empty() { (minutes(&detail.minutes)) }
            }
            aside aria-label="Facts" {
                dl {
                    dt { "Version" } dd { span.version { (one.version) } }
                    dt { "Instances" } dd { (one.ready) " ready of " (one.instances) @if one.scaled { ", scaled by hand" } }
                    dt { "Bounds" } dd { (one.min) " to " (one.max) ", " (one.concurrency) " calls at once each" }
                    dt { "Running" } dd { (one.in_flight) ", room for " (one.headroom) " more" }
                    dt { "In line" } dd { (one.waiting) }
                    dt { "Spawned" } dd { (one.running) " under way, " (one.backlog) " wait"
                        @if let Some(since) = one.backlog_since { ", the first since " (parts::time(since, scene.now)) } }
                    dt { "Rate" } dd { (format!("{:.1}", one.recent.per_second)) " per second" }
                    dt { "Last hour" } dd { (outcomes(&one.hour.outcomes)) }
                    dt { "Calls" } dd { a href=(calls(one, scene)) { "all on record" } }
                }
            }
        }
    }
}

fn calls(one: &FunctionView, scene: &Scene) -> String {
    let environment = if one.environment == scene.places.home { "" } else { one.environment.as_str() };
    let pairs = [("app", one.app.as_str()), ("environment", environment), ("function", one.function.as_str())];
    format!("/calls{}", parts::query(&pairs))
}

fn spreads(name: &str, window: &Window) -> Markup {
    let all = [("in line", window.queue), ("starting an instance", window.start), ("in the function", window.run)];
    html! {
        @for (spent, Spread { p50_us, p95_us, p99_us }) in all {
            tr {
                td.muted { (name) } th scope="row" { (spent) }
                td.number { (micros(p50_us)) } td.number { (micros(p95_us)) } td.number { (micros(p99_us)) }
            }
        }
    }
}

/// The last hour, a bar for each minute; the table below says the same in numbers.
fn chart(minutes: &[Minute], versions: &[Version], now: Timestamp) -> Markup {
    let hour = Hour::until(now);
    let bars: Vec<(i64, u64, u64)> = minutes
        .iter()
        .filter_map(|minute| {
            let all: u64 = minute.outcomes.values().sum();
            let failed =
                minute.outcomes.iter().filter(|(outcome, _)| outcome.is_failure()).map(|(_, count)| count).sum();
            Some((hour.bar(minute.at)?, all, failed))
        })
        .collect();
    let most = bars.iter().map(|(_, all, _)| *all).max().unwrap_or(0).max(1);
    let (total, bad) = bars.iter().fold((0, 0), |(total, bad), (_, all, failed)| (total + all, bad + failed));
    let tall = |count: u64| hour::tall(count, most);
    let marks = hour.marks(versions);
    let words = format!("{total} call{} ended in the last hour, {bad} failed", parts::plural(total));
    html! {
        section.chart aria-labelledby="calls" {
            h2 #calls { "Calls " span.muted { (words) } }
            svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-labelledby="chart-title chart-desc" preserveAspectRatio="none" {
                title #chart-title { "Calls by minute" }
                desc #chart-desc { (words) ". The most in a minute were " (if total == 0 { 0 } else { most }) "; " (marks.len()) " deployment" (parts::plural(marks.len() as u64)) " in that time." }
                line.base x1="0" x2=(WIDTH) y1=(HEIGHT) y2=(HEIGHT) {}
                @for (x, all, failed) in &bars {
                    @if all > failed { rect.good x=(x) width=(STEP - 2) y=(HEIGHT - tall(*all)) height=(tall(all - failed)) {} }
                    @if *failed > 0 { rect.bad x=(x) width=(STEP - 2) y=(HEIGHT - tall(*failed)) height=(tall(*failed)) {} }
                }
                (hour::deployments(&marks))
            }
            p.axis { span { "1 h ago" } span.legend { span.key.good {} "answered " span.key.bad {} "failed " span.key.deploy {} "deployment" } span { "now" } }
        }
    }
}

fn minutes(minutes: &[Minute]) -> Markup {
    html! {
        section aria-labelledby="minutes" {
            h2 #minutes { "Minute by minute" }
            table {
                caption.quiet { "Calls that ended, by minute, the newest first" }
                thead { tr {
                    th scope="col" { "Minute" } th scope="col" { "Calls" } th.number scope="col" { "p50" } th.number scope="col" { "p95" } th.number scope="col" { "p99" }
                } }
                tbody { @for minute in minutes {
                    tr {
                        th scope="row" { time datetime=(minute.at) { (minute.at.strftime("%H:%M UTC")) } }
                        td { (outcomes(&minute.outcomes)) }
                        td.number { (micros(minute.run.p50_us)) } td.number { (micros(minute.run.p95_us)) } td.number { (micros(minute.run.p99_us)) }
                    }
                } }
            }
        }
    }
}

fn outcomes(outcomes: &BTreeMap<CallOutcome, u64>) -> Markup {
    html! {
        @if outcomes.is_empty() { (parts::dash()) }
        @for (index, (outcome, count)) in outcomes.iter().enumerate() {
            @if index > 0 { ", " } span.word.(parts::look_of_outcome(*outcome).0.class()) { (count) " " (outcome.as_str()) }
        }
    }
}

/// Microseconds as a person reads them.
pub(super) fn micros(time: Option<u64>) -> String {
    match time {
        None => "–".to_owned(),
        Some(micros @ 0..1000) => format!("{micros} µs"),
        Some(micros @ 1000..1_000_000) => format!("{:.1} ms", micros as f64 / 1e3),
        Some(micros) => format!("{:.1} s", micros as f64 / 1e6),
    }
}
