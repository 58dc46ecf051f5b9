//! Certificates in numbers: how long yet, and which fail to be renewed.

use std::collections::BTreeMap;

use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::registry::Registry;

use super::Measured;
use crate::wire::certificates::Certificate;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByHost {
    host: String,
}

/// Adds them. A host that several certificates name has the time of the one that lasts longest.
pub(super) fn certificates(registry: &mut Registry, all: &[Certificate], now: Timestamp) {
    let (expiry, failing) = (Measured::<ByHost>::default(), Measured::<ByHost>::default());
    for (host, (left, fails)) in by_host(all, now) {
        let label = ByHost { host };
        if let Some(left) = left {
            expiry.get_or_create(&label).set(left);
        }
        failing.get_or_create(&label).set(if fails { 1.0 } else { 0.0 });
    }
    registry.register(
        "certificate_expiry_seconds",
        "How long a host's certificate is valid yet, below 0 when it is not",
        expiry,
    );
    registry.register("certificate_failing", "1 while a host's certificate cannot be had, read or renewed", failing);
}

fn by_host(all: &[Certificate], now: Timestamp) -> BTreeMap<String, (Option<f64>, bool)> {
    let mut found: BTreeMap<String, (Option<f64>, bool)> = BTreeMap::new();
    for one in all {
        let left = one.not_after.map(|until| until.duration_since(now).as_secs_f64());
        let subject = [one.subject.clone()];
        let hosts = if one.names.is_empty() { &subject[..] } else { &one.names };
        for host in hosts {
            let (longest, fails) = found.entry(host.clone()).or_default();
            *longest = match (*longest, left) {
                (Some(before), Some(left)) => Some(before.max(left)),
                (before, left) => before.or(left),
            };
            *fails |= one.problem.is_some();
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::certificates::{CertificateOrigin, CertificateStanding};

    #[test]
    fn each_host_has_the_longest_time_and_any_trouble() {
        let now: Timestamp = "2026-11-28T12:00:00Z".parse().expect("a time");
        let one = |subject: &str, names: &[&str], hours: Option<i64>, problem: Option<&str>| Certificate {
            subject: subject.into(),
            origin: CertificateOrigin::File,
            state: CertificateStanding::Valid,
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            issuer: None,
            not_before: None,
            not_after: hours.map(|hours| now + jiff::SignedDuration::from_hours(hours)),
            next_order: None,
            problem: problem.map(str::to_owned),
        };
        let all = [
            one("/a.pem", &["a.example.com", "b.example.com"], Some(1), None),
            one("b.example.com", &["b.example.com"], Some(2), Some("refused")),
            one("c.example.com", &[], None, Some("refused")),
            one("d.example.com", &["d.example.com"], Some(-1), None),
        ];
        let found: Vec<_> = by_host(&all, now).into_iter().collect();
        let host = |name: &str, left: Option<f64>, fails: bool| (format!("{name}.example.com"), (left, fails));
        let expected = [
            host("a", Some(3600.0), false),
            host("b", Some(7200.0), true),
            host("c", None, true),
            host("d", Some(-3600.0), false),
        ];
        assert_eq!(found, expected);
    }
}
