//! `GET /metrics`: the agent in numbers, as OpenMetrics text.
//!
//! Nothing is kept between two questions: every number is what the engine says at that moment, and what only rises is
//! counted in the ledger, so that a restart loses nothing. The list for people is `docs/metrics.md`.

mod certificates;
mod functions;
mod traffic;
mod work;

use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::problem::Refusal;
use super::routes::Context;
use crate::engine::Measures;
use crate::wire::api::{App, Source, Status};

/// The media type of OpenMetrics 1.0.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Measured<L> = Family<L, Gauge<f64, AtomicU64>>;
type Counted<L> = Family<L, Counter>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Nothing {}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByFate {
    fate: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByRole {
    role: &'static str,
    version: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByApp {
    environment: String,
    app: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByState {
    environment: String,
    app: String,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByFunction {
    environment: String,
    app: String,
    function: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    environment: String,
    app: String,
    function: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BySource {
    source: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByError {
    source: String,
    kind: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByEvent {
    event: String,
}

/// The route.
pub async fn metrics(State(context): State<Context>) -> Result<Response, Refusal> {
    let measures = context.engine().measures().await?;
    let mut text = String::new();
    text::encode(&mut text, &registry(&measures)).map_err(|error| {
        tracing::error!(%error, "the metrics cannot be written");
        Refusal::new(http::StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written", "please report this")
    })?;
    Ok(([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response())
}

fn registry(measures: &Measures) -> Registry {
    let mut registry = Registry::with_prefix("landfall");
    agent(&mut registry, measures);
    apps(&mut registry, &measures.apps);
    functions::functions(&mut registry, &measures.functions);
    traffic::traffic(&mut registry, &measures.traffic);
    sources(&mut registry, measures);
    certificates::certificates(&mut registry, &measures.certificates, jiff::Timestamp::now());
    work::schedules(&mut registry, measures);
    work::notifications(&mut registry, &measures.status.channels);
    let events = Counted::<ByEvent>::default();
    for (event, count) in &measures.events {
        events.get_or_create(&ByEvent { event: event.clone() }).inner().store(*count, Ordering::Relaxed);
    }
    registry.register("events", "Facts since the ledger was made, by kind", events);
    let spans = Counted::<ByFate>::default();
    for (fate, count) in [("exported", measures.spans.exported), ("dropped", measures.spans.dropped)] {
        spans.get_or_create(&ByFate { fate }).inner().store(count, Ordering::Relaxed);
    }
    registry.register("trace_spans", "Spans since the controller started, by what became of them", spans);
    registry
}

fn agent(registry: &mut Registry, measures: &Measures) {
    let Status { processes, problems, .. } = &measures.status;
    single(registry, "problems", "What `landfall status` says is wrong", problems.len() as f64);
    let started = Measured::<ByRole>::default();
    let roles = [("supervisor", Some(&processes.supervisor)), ("controller", Some(&processes.controller))];
    for (role, process) in roles.into_iter().chain([("proxy", processes.proxy.as_ref())]) {
        let Some(process) = process else { continue };
        let label = ByRole { role, version: process.version.clone() };
        started.get_or_create(&label).set(seconds(process.started_at));
    }
    registry.register_with_unit("process_start_time", "When each process started", Unit::Seconds, started);
    bytes(registry, "ledger", "Size of the ledger with its journal", measures.ledger_bytes);
    if let Some(free) = measures.disk_free_bytes {
        bytes(registry, "disk_free", "What may still be written to the disk with the data", free);
    }
}

fn apps(registry: &mut Registry, apps: &[App]) {
    let (state, live) = (Measured::<ByState>::default(), Measured::<ByApp>::default());
    let (instances, ready) = (Measured::<ByApp>::default(), Measured::<ByApp>::default());
    for app in apps {
        let (environment, name) = (app.environment.to_string(), app.app.to_string());
        let by_state = ByState { environment: environment.clone(), app: name.clone(), state: app.state.as_str() };
        state.get_or_create(&by_state).set(1.0);
        let label = ByApp { environment, app: name };
        instances.get_or_create(&label).set(app.instances.into());
        ready.get_or_create(&label).set(app.ready.into());
        if let Some(version) = app.live_version {
            live.get_or_create(&label).set(version.get().into());
        }
    }
    registry.register("app_state", "1 for the state an app is in", state);
    registry.register("app_live_version", "The version that receives new work", live);
    registry.register("app_instances", "Instances that run, outdated ones included", instances);
    registry.register("app_ready_instances", "Instances of the live version that take work", ready);
}

fn sources(registry: &mut Registry, measures: &Measures) {
    let all = &measures.status.sources;
    let failing = Measured::<ByError>::default();
    for source in all {
        if source.error.is_some() {
            let kind = source.error_kind.clone().unwrap_or_else(|| "unknown".into());
            failing.get_or_create(&ByError { source: source.source.to_string(), kind }).set(1.0);
        }
    }
    registry.register("source_failing", "1 for a source that cannot be read, by kind of error", failing);
    let mut gauge = |name: &str, help: &str, value: &dyn Fn(&Source) -> Option<f64>| {
        let family = Measured::<BySource>::default();
        for source in all {
            if let Some(value) = value(source) {
                family.get_or_create(&BySource { source: source.source.to_string() }).set(value);
            }
        }
        registry.register(name, help, family);
    };
    let flag = |set: bool| Some(if set { 1.0 } else { 0.0 });
    gauge("source_apps", "Apps that a source holds", &|source| Some(source.apps.into()));
    gauge("source_dirty", "1 while a source is known to have more to see", &|source| flag(source.dirty));
    gauge("source_suspended", "1 while a source is frozen", &|source| flag(source.suspension.is_some()));
    gauge("source_manifest_errors", "Manifests that cannot be read", &|source| {
        Some(source.manifest_errors.len() as f64)
    });
    gauge("source_waiting", "What waits until a person approves it", &|source| {
        Some(source.waiting.iter().filter(|waiting| waiting.approved_by.is_none()).count() as f64)
    });
    gauge("source_last_success_timestamp_seconds", "When a source was last looked at with success", &|source| {
        source.looked_at.map(seconds)
    });
    gauge("source_next_look_timestamp_seconds", "When a source will be looked at by itself", &|source| {
        source.next_look_at.map(seconds)
    });
    gauge("source_last_hook_timestamp_seconds", "When the last genuine push hook came", &|source| {
        source.last_hook.map(|hook| seconds(hook.at))
    });
    gauge("source_cache_bytes", "What the cache of a source's repository takes", &|source| {
        source.cache_bytes.map(|bytes| bytes as f64)
    });
    gauge("source_cache_quota_bytes", "What it may take", &|source| {
        measures.cache_quotas.get(&source.source).map(|bytes| *bytes as f64)
    });
    let refused = Counted::<BySource>::default();
    for source in all {
        let label = BySource { source: source.source.to_string() };
        refused.get_or_create(&label).inner().store(source.hooks_refused, Ordering::Relaxed);
    }
    registry.register(
        "source_hooks_refused",
        "Push hooks without the right signature, since the controller started",
        refused,
    );
}

fn single(registry: &mut Registry, name: &str, help: &str, value: f64) {
    let family = Measured::<Nothing>::default();
    family.get_or_create(&Nothing {}).set(value);
    registry.register(name, help, family);
}

fn bytes(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let family = Measured::<Nothing>::default();
    family.get_or_create(&Nothing {}).set(value as f64);
    registry.register_with_unit(name, help, Unit::Bytes, family);
}

fn seconds(at: jiff::Timestamp) -> f64 {
    // Milliseconds are exact in a double for the next hundred thousand years.
    at.as_millisecond() as f64 / 1000.0
}
