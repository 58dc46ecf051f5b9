//! Requests in numbers. Labels are bounded by the web objects of live versions.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::registry::{Registry, Unit};

use super::{Counted, Measured};
use crate::domain::AnswerClass;
use crate::wire::functions::Spread;
use crate::wire::traffic::ObjectTraffic;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByClass {
    environment: String,
    app: String,
    object: String,
    class: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByQuantile {
    environment: String,
    app: String,
    object: String,
    quantile: &'static str,
}

/// Adds them.
pub(super) fn traffic(registry: &mut Registry, objects: &[(ObjectTraffic, BTreeMap<AnswerClass, u64>)]) {
    let (requests, times) = (Counted::<ByClass>::default(), Measured::<ByQuantile>::default());
    for (one, ever) in objects {
        let names = || (one.environment.to_string(), one.app.to_string(), one.object.to_string());
        for (class, count) in ever {
            let (environment, app, object) = names();
            let label = ByClass { environment, app, object, class: class.as_str() };
            requests.get_or_create(&label).inner().store(*count, Ordering::Relaxed);
        }
        let Spread { p50_us, p95_us, p99_us } = one.recent.head;
        for (quantile, micros) in [("0.5", p50_us), ("0.95", p95_us), ("0.99", p99_us)] {
            let Some(micros) = micros else { continue };
            let (environment, app, object) = names();
            times.get_or_create(&ByQuantile { environment, app, object, quantile }).set(micros as f64 / 1e6);
        }
    }
    registry.register("web_requests", "Web requests by class of status, since the controller started", requests);
    let help = "From a request's head to its answer's, last five minutes";
    registry.register_with_unit("web_head_time", help, Unit::Seconds, times);
}
