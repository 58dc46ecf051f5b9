//! Schedules and notifications in numbers.

use std::sync::atomic::Ordering;

use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::{ByFunction, ByOutcome, Counted, Measured, seconds};
use crate::engine::{Late, Measures};
use crate::wire::api::{Channel, Standing};
use crate::wire::schedules::Schedule;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByChannel {
    channel: String,
}

/// Only schedules of live versions are told of: there are as many lines as there are schedules, and no more.
pub(super) fn schedules(registry: &mut Registry, measures: &Measures) {
    let runs = Counted::<ByOutcome>::default();
    for (function, outcome, count) in &measures.runs {
        let label = ByOutcome {
            environment: function.app.environment.to_string(),
            app: function.app.app.to_string(),
            function: function.function.to_string(),
            outcome: outcome.as_str(),
        };
        runs.get_or_create(&label).inner().store(*count, Ordering::Relaxed);
    }
    registry.register("schedule_runs", "Runs of a schedule that have their outcome, by outcome", runs);
    let late = Lateness(measures.late.clone());
    registry.register_with_unit("schedule_lateness", "How late runs of schedules started", Unit::Seconds, late);
    let mut gauge = |name: &str, help: &str, value: &dyn Fn(&Schedule) -> Option<f64>| {
        let family = Measured::<ByFunction>::default();
        for schedule in &measures.schedules {
            if let Some(value) = value(schedule) {
                let label = ByFunction {
                    environment: schedule.environment.to_string(),
                    app: schedule.app.to_string(),
                    function: schedule.function.to_string(),
                };
                family.get_or_create(&label).set(value);
            }
        }
        registry.register(name, help, family);
    };
    gauge("schedule_consecutive_failures", "Runs in a row that have failed up to now", &|schedule| {
        Some(schedule.failures_in_a_row.into())
    });
    gauge("schedule_last_success_timestamp_seconds", "The time of the last run that succeeded", &|schedule| {
        schedule.last_success_at.map(seconds)
    });
    gauge("schedule_next_start_timestamp_seconds", "When the next run starts by itself", &|schedule| {
        schedule.next.first().copied().map(seconds)
    });
}

/// How late runs start, as Prometheus wants to see it.
#[derive(Debug)]
struct Lateness(Late);

impl EncodeMetric for Lateness {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        encoder.encode_histogram::<NoLabelSet>(self.0.seconds, self.0.runs, &self.0.buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

pub(super) fn notifications(registry: &mut Registry, channels: &[Channel]) {
    let label = |channel: &Channel| ByChannel { channel: channel.channel.clone() };
    let mut counter = |name: &str, help: &str, value: fn(&Standing) -> u64| {
        let family = Counted::<ByChannel>::default();
        for channel in channels {
            family.get_or_create(&label(channel)).inner().store(value(&channel.standing), Ordering::Relaxed);
        }
        registry.register(name, help, family);
    };
    counter("notifications_sent", "Messages that a channel has taken", |standing| standing.delivered);
    counter("notifications_failed", "Tries in vain to tell a channel something", |standing| standing.failed);
    counter("notifications_given_up", "Messages that a channel will never get", |standing| standing.given_up);
    let (queued, failing) = (Measured::<ByChannel>::default(), Measured::<ByChannel>::default());
    for channel in channels {
        queued.get_or_create(&label(channel)).set(channel.standing.queued.into());
        let is_failing = channel.standing.error.is_some();
        failing.get_or_create(&label(channel)).set(if is_failing { 1.0 } else { 0.0 });
    }
    registry.register("notifications_queued", "Messages that wait for a channel", queued);
    registry.register("notifications_failing", "1 for a channel that takes nothing at present", failing);
}
