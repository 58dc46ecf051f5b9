//! Functions in numbers. Labels are bounded by the functions of live versions.

use std::sync::atomic::Ordering;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::registry::{Registry, Unit};

use super::{ByFunction, ByOutcome, Counted, Measured};
use crate::domain::CallOutcome;
use crate::wire::functions::{FunctionView, Spread};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByQuantile {
    environment: String,
    app: String,
    function: String,
    quantile: &'static str,
}

/// Adds them.
pub(super) fn functions(registry: &mut Registry, functions: &[(FunctionView, Vec<(CallOutcome, u64)>)]) {
    let mut gauge = |name: &str, help: &str, value: &dyn Fn(&FunctionView) -> f64| {
        let family = Measured::<ByFunction>::default();
        for (one, _) in functions {
            family.get_or_create(&label(one)).set(value(one));
        }
        registry.register(name, help, family);
    };
    gauge("function_instances", "Instances of a function that should run", &|one| one.instances.into());
    gauge("function_ready_instances", "Instances of a function that take calls", &|one| one.ready.into());
    gauge("function_in_flight", "Calls on the instances of a function", &|one| one.in_flight.into());
    gauge("function_headroom", "Calls that ready instances could take at once, besides", &|one| one.headroom.into());
    gauge("function_waiting", "Calls that wait for a place on an instance", &|one| one.waiting.into());
    gauge("function_backlog", "Spawned calls that wait for their turn", &|one| one.backlog as f64);
    let ended = Counted::<ByOutcome>::default();
    for (one, ends) in functions {
        let ByFunction { environment, app, function } = label(one);
        for (outcome, count) in ends {
            let (environment, app, function) = (environment.clone(), app.clone(), function.clone());
            let label = ByOutcome { environment, app, function, outcome: outcome.as_str() };
            ended.get_or_create(&label).inner().store(*count, Ordering::Relaxed);
        }
    }
    registry.register("function_calls", "Calls by outcome, since the controller started", ended);
    times(registry, functions, "function_queue_time", "Time in line, last five minutes", &|one| one.recent.queue);
    times(registry, functions, "function_start_time", "Wait for an instance to start, last five minutes", &|one| {
        one.recent.start
    });
    times(registry, functions, "function_run_time", "Time in the function, last five minutes", &|one| one.recent.run);
}

fn times(
    registry: &mut Registry,
    functions: &[(FunctionView, Vec<(CallOutcome, u64)>)],
    name: &str,
    help: &str,
    value: &dyn Fn(&FunctionView) -> Spread,
) {
    let family = Measured::<ByQuantile>::default();
    for (one, _) in functions {
        let ByFunction { environment, app, function } = label(one);
        let Spread { p50_us, p95_us, p99_us } = value(one);
        for (quantile, micros) in [("0.5", p50_us), ("0.95", p95_us), ("0.99", p99_us)] {
            let Some(micros) = micros else { continue };
            let (environment, app, function) = (environment.clone(), app.clone(), function.clone());
            family.get_or_create(&ByQuantile { environment, app, function, quantile }).set(micros as f64 / 1e6);
        }
    }
    registry.register_with_unit(name, help, Unit::Seconds, family);
}

fn label(one: &FunctionView) -> ByFunction {
    ByFunction {
        environment: one.environment.to_string(),
        app: one.app.to_string(),
        function: one.function.to_string(),
    }
}
