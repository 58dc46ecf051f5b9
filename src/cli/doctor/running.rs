//! The agent that answers: its version, what its sources and certificates say.

use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use tokio::time::error::Elapsed;

use super::{Finding, Patient};
use crate::client::{ClientError, Target};
use crate::tls::PairFiles;
use crate::wire::PROGRAM_VERSION;
use crate::wire::api::Status;

/// A certificate that ends sooner is told: renewal should have come by then.
const SOON: SignedDuration = SignedDuration::from_hours(14 * 24);

/// Whether the agent answers, and with which version.
pub(super) fn answered(
    answer: Result<Result<Status, ClientError>, Elapsed>,
    target: &Target,
    socket: Option<&Path>,
) -> (Option<Status>, Finding) {
    const CHECK: &str = "agent";
    let status = match answer {
        Ok(Ok(status)) => status,
        Ok(Err(error @ ClientError::NoAgent { .. })) => {
            let left = socket.is_some_and(|path| path.symlink_metadata().is_ok());
            let words = format!("none runs at {target}: what only it knows is left out");
            let finding = match (left, socket) {
                // Nobody would say so of an agent that was never started.
                (true, _) | (false, None) => Finding::failure(CHECK, words, error.mend()),
                (false, Some(_)) => {
                    Finding::warning(CHECK, words, "start it with `landfall agent`, or name one with `--agent`")
                }
            };
            return (None, finding);
        }
        Ok(Err(error)) => return (None, Finding::failure(CHECK, error.to_string(), error.mend())),
        Err(_) => {
            let words = format!("the one at {target} takes the connection and does not answer");
            return (
                None,
                Finding::failure(
                    CHECK,
                    words,
                    "look at its log; it replaces a control plane that hangs by itself within a minute",
                ),
            );
        }
    };
    let finding = version(&status);
    (Some(status), finding)
}

fn version(status: &Status) -> Finding {
    const CHECK: &str = "agent";
    let processes = &status.processes;
    let own = [Some(&processes.supervisor), Some(&processes.controller), processes.proxy.as_ref()];
    let other = own.into_iter().flatten().find(|process| process.version != PROGRAM_VERSION);
    match other {
        None => Finding::ok(CHECK, format!("it runs, version {PROGRAM_VERSION}, environment {}", status.environment)),
        Some(process) => Finding::warning(
            CHECK,
            format!("process {} runs version {}, this program is {PROGRAM_VERSION}", process.pid, process.version),
            "finish the upgrade: docs/operations.md, Upgrading",
        ),
    }
}

pub(super) async fn check(patient: &Patient) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some(status) = &patient.status {
        found.extend(sources(status));
        found.push(others(status));
    }
    match &patient.client {
        Some(client) => match client.certificates().await {
            Ok(certificates) => found.extend(certificates.iter().map(|one| {
                let problem = one.problem.as_deref();
                expiry(&one.subject, one.not_after, problem, patient.now)
            })),
            Err(error) => found.push(Finding::warning("certificates", error.to_string(), error.mend())),
        },
        None => {
            let config = patient.config.as_ref();
            let of_apps = config.and_then(|config| config.proxy.tls.as_ref()).map(|tls| tls.certificates.as_slice());
            let of_api = config.and_then(|config| config.api.tls.as_ref());
            found.extend(of_apps.into_iter().flatten().chain(of_api).map(|files| pair(files, patient.now)));
        }
    }
    found
}

fn sources(status: &Status) -> Vec<Finding> {
    const CHECK: &str = "sources";
    let failing = status.sources.iter().filter_map(|source| Some((source, source.error.as_ref()?)));
    let mut found: Vec<Finding> = failing
        .map(|(source, error)| {
            let mend = format!("`landfall source show {}` says since when and what it tries next", source.source);
            Finding::failure(CHECK, format!("{}: {error}", source.source), mend)
        })
        .collect();
    if found.is_empty() {
        let words = match status.sources.len() {
            0 => "there are none: apps come by `landfall deploy`".to_owned(),
            1 => "the only one can be read".to_owned(),
            count => format!("all {count} can be read"),
        };
        found.push(Finding::ok(CHECK, words));
    }
    found
}

/// What else the agent complains of.
fn others(status: &Status) -> Finding {
    const CHECK: &str = "status";
    match status.problems.as_slice() {
        [] => Finding::ok(CHECK, "the agent complains of nothing"),
        problems => {
            Finding::warning(CHECK, problems.join("\n"), "each says what to do; `landfall status` shows the same list")
        }
    }
}

fn pair(files: &PairFiles, now: Timestamp) -> Finding {
    let subject = files.certificate.display().to_string();
    match files.read() {
        Ok((pair, _)) => expiry(&subject, Some(pair.not_after), None, now),
        Err(error) => expiry(&subject, None, Some(&error.to_string()), now),
    }
}

fn expiry(subject: &str, not_after: Option<Timestamp>, problem: Option<&str>, now: Timestamp) -> Finding {
    const CHECK: &str = "certificates";
    let mend = "`landfall certificate list` shows all; docs/tls.md says how they are renewed";
    let why = problem.map(|problem| format!(": {problem}")).unwrap_or_default();
    let Some(until) = not_after else {
        return Finding::failure(CHECK, format!("{subject} has none{why}"), mend);
    };
    let left = until.duration_since(now);
    let day = until.strftime("%Y-%m-%d");
    if left.is_negative() {
        Finding::failure(CHECK, format!("that of {subject} has ended on {day}{why}"), mend)
    } else if left < SOON || problem.is_some() {
        Finding::warning(CHECK, format!("that of {subject} ends on {day}{why}"), mend)
    } else {
        Finding::ok(CHECK, format!("that of {subject} is valid until {day}"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn a_certificate_that_ends_is_told_in_time() {
        let now: Timestamp = "2026-11-28T12:00:00Z".parse().expect("a time");
        let after = |days: i64| Some(now.saturating_add(SignedDuration::from_hours(24 * days)).expect("a time"));
        let level = |days, problem| expiry("shop.example.com", after(days), problem, now).level;
        assert_eq!(level(60, None), Level::Ok);
        assert_eq!(level(60, Some("the authority is away")), Level::Warning);
        assert_eq!(level(13, None), Level::Warning);
        assert_eq!(level(-1, None), Level::Failure);
        assert_eq!(expiry("shop.example.com", None, Some("refused"), now).level, Level::Failure);
    }
}
