//! What an event means to people: a failure, a recovery, news, or nothing.
//!
//! Pure: the event, and what the record says besides it, in; happenings out.

use super::episode::Failure as Trouble;
use crate::domain::{AppKey, DeploymentOutcome, Event, EventKind, Failure, VersionKind};

/// Lines of a log that a message carries.
const LOG_LINES: usize = 20;

/// What the record says of an event's version and app.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Why the deployment failed.
    pub failure: Option<Failure>,
    /// How it ended.
    pub outcome: Option<DeploymentOutcome>,
    /// Why the version exists.
    pub kind: Option<VersionKind>,
    /// The agent made it, by itself.
    pub by_agent: bool,
    /// What the source asks for was a version of that very commit: people were told when that went bad.
    pub known_content: bool,
    /// Channels the app's manifest names.
    pub notify: Vec<String>,
    /// The last lines that a schedule's failed run has written, as far as it told them with its end.
    pub run_tail: Vec<String>,
}

/// Something people may hear of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happening {
    /// Something is wrong.
    Failed {
        /// One trouble has one topic.
        topic: String,
        /// What is wrong.
        trouble: Trouble,
        /// One line.
        title: String,
        /// The end of a log.
        log: Vec<String>,
    },
    /// It is right again.
    Recovered {
        /// Whose trouble has ended.
        topic: String,
        /// The event's word.
        event: &'static str,
        /// What it is about.
        subject: String,
        /// One line.
        title: String,
    },
    /// It is over in a way that nobody needs to hear of.
    Ended {
        /// Whose trouble has ended.
        topic: String,
    },
    /// A fact.
    News {
        /// The event's word.
        event: &'static str,
        /// What it is about.
        subject: String,
        /// One line.
        title: String,
        /// More of it.
        text: String,
    },
}

/// What people may hear of an event.
pub fn happenings(event: &Event, facts: &Facts) -> Vec<Happening> {
    match (&event.app, &event.source) {
        (Some(key), _) => of_app(event, key, facts),
        (None, Some(source)) => of_source(event, source.as_str()),
        (None, None) => of_agent(event),
    }
}

fn of_app(event: &Event, key: &AppKey, facts: &Facts) -> Vec<Happening> {
    let topic = |what: &str| format!("{what} {key}");
    let subject = key.app.to_string();
    let ended = |what: &str| Happening::Ended { topic: topic(what) };
    let recovered = |what: &str, word: &'static str, title: String| Happening::Recovered {
        topic: topic(what),
        event: word,
        subject: subject.clone(),
        title,
    };
    let news = |word: &'static str| Happening::News {
        event: word,
        subject: subject.clone(),
        title: first_line(&event.message),
        text: event.message.clone(),
    };
    let version = event.version.map(|version| format!("{subject} {version}")).unwrap_or_else(|| subject.clone());
    let is_new = facts.kind.is_none_or(|kind| kind == VersionKind::Deploy);
    match event.kind {
        EventKind::DeploymentFailed => vec![deployment_failed(event, topic("deployment"), &subject, &version, facts)],
        EventKind::DeploymentSucceeded => {
            let mut happenings = vec![news("deployment.succeeded")];
            if is_new {
                happenings.push(recovered(
                    "deployment",
                    "deployment.recovered",
                    format!("{version} is live: deployments of {subject} succeed again"),
                ));
            }
            happenings.push(recovered("crash", "app.recovered", format!("{version} is healthy")));
            happenings
        }
        EventKind::DeploymentLive if is_new => vec![ended("hold")],
        EventKind::Rollback => {
            let held = Happening::Failed {
                topic: topic("hold"),
                trouble: Trouble {
                    event: "hold.reminder".to_owned(),
                    cause: "held".to_owned(),
                    subject: subject.clone(),
                    text: event.message.clone(),
                    known: true,
                },
                title: format!("{subject} is held"),
                log: Vec::new(),
            };
            // What the agent brought back by itself was told as the failure that made it do so.
            let told = (!facts.by_agent).then(|| news("rollback"));
            told.into_iter().chain([held]).collect()
        }
        EventKind::Released => vec![ended("hold")],
        EventKind::Quarantined if facts.known_content => Vec::new(),
        EventKind::Quarantined => vec![news("quarantined")],
        EventKind::Stopped => vec![ended("deployment"), ended("crash"), ended("hold")],
        EventKind::AppCrashing => vec![Happening::Failed {
            topic: topic("crash"),
            trouble: Trouble {
                event: "app.crashing".to_owned(),
                cause: "crashing".to_owned(),
                subject: subject.clone(),
                text: event.message.clone(),
                known: false,
            },
            title: format!("{version} is crashing"),
            log: Vec::new(),
        }],
        EventKind::AppRecovered => vec![recovered("crash", "app.recovered", format!("{version} is healthy again"))],
        EventKind::ManifestInvalid => vec![news("manifest.invalid")],
        EventKind::ScheduleFailed | EventKind::ScheduleRecovered => vec![of_schedule(event, key, facts)],
        EventKind::ScheduleMissed => vec![schedule_news(event, key, "schedule.missed")],
        EventKind::ScheduleSkipped => vec![schedule_news(event, key, "schedule.skipped")],
        EventKind::ScheduleRemoved => vec![Happening::Ended { topic: schedule_topic(event, key) }],
        EventKind::DeploymentLive
        | EventKind::DeploymentPending
        | EventKind::DeploymentCancelled
        | EventKind::Suspended
        | EventKind::Resumed
        | EventKind::AppDrifted
        | EventKind::AppMoved
        | EventKind::SourceFailing
        | EventKind::SourceRecovered
        | EventKind::SourceWaiting
        | EventKind::SourceApproved
        | EventKind::SourceSettled
        | EventKind::SourceRefDeleted
        | EventKind::SourceRemoved
        | EventKind::ConfigReloaded
        | EventKind::ConfigInvalid
        | EventKind::DiskLow
        | EventKind::DiskRecovered
        | EventKind::CertificateFailing
        | EventKind::CertificateExpiring
        | EventKind::CertificateRecovered
        | EventKind::CertificateIssued => Vec::new(),
    }
}

fn deployment_failed(event: &Event, topic: String, subject: &str, version: &str, facts: &Facts) -> Happening {
    let failure = facts.failure.as_ref();
    let rolled_back = facts.outcome == Some(DeploymentOutcome::RolledBack);
    let title = match failure {
        _ if rolled_back => format!("{version} failed after its switch and is rolled back"),
        Some(failure) => format!("{version} failed while {}", failure.phase.as_str()),
        None => format!("{version} failed"),
    };
    let mut text = failure.map_or_else(|| event.message.clone(), |failure| failure.message.clone());
    let more = failure.map(|failure| [("exit", &failure.exit), ("last probe", &failure.last_probe)]);
    for (name, value) in more.into_iter().flatten() {
        if let Some(value) = value.as_ref().filter(|value| !text.contains(*value)) {
            text.push_str(&format!("\n{name}: {value}"));
        }
    }
    let log = failure.map(|failure| &failure.log_tail[..]).unwrap_or_default();
    Happening::Failed {
        topic,
        trouble: Trouble {
            event: if rolled_back { "rollback" } else { "deployment.failed" }.to_owned(),
            cause: failure.map_or_else(|| "failed".to_owned(), |failure| failure.code.clone()),
            subject: subject.to_owned(),
            text,
            known: false,
        },
        title,
        log: log[log.len().saturating_sub(LOG_LINES)..].to_vec(),
    }
}

fn schedule_topic(event: &Event, key: &AppKey) -> String {
    let function = event.object.as_ref().map(ToString::to_string).unwrap_or_default();
    format!("schedule {key} {function}")
}

/// Each schedule is a subject of its own, so that many that were missed together are one message.
fn schedule_news(event: &Event, key: &AppKey, word: &'static str) -> Happening {
    let function = event.object.as_ref().map(ToString::to_string).unwrap_or_default();
    Happening::News {
        event: word,
        subject: format!("{} {function}", key.app),
        title: first_line(&event.message),
        text: event.message.clone(),
    }
}

/// How often in a row is decided before the event is recorded; what is here is told.
fn of_schedule(event: &Event, key: &AppKey, facts: &Facts) -> Happening {
    let function = event.object.as_ref().map(ToString::to_string).unwrap_or_default();
    let (topic, subject) = (schedule_topic(event, key), format!("{} {function}", key.app));
    if event.kind == EventKind::ScheduleRecovered {
        return Happening::Recovered { topic, event: "schedule.recovered", subject, title: first_line(&event.message) };
    }
    Happening::Failed {
        topic,
        title: format!("schedule {function} of {} failed", key.app),
        trouble: Trouble {
            event: "schedule.failed".to_owned(),
            cause: event.cause.clone().unwrap_or_else(|| "failed".to_owned()),
            subject,
            text: event.message.clone(),
            known: false,
        },
        log: facts.run_tail[facts.run_tail.len().saturating_sub(LOG_LINES)..].to_vec(),
    }
}

fn of_source(event: &Event, source: &str) -> Vec<Happening> {
    let subject = format!("source {source}");
    let failed = |topic: String, word: &str, cause: &str, title: String| Happening::Failed {
        topic,
        trouble: Trouble {
            event: word.to_owned(),
            cause: event.cause.clone().unwrap_or_else(|| cause.to_owned()),
            subject: subject.clone(),
            text: event.message.clone(),
            known: false,
        },
        title,
        log: Vec::new(),
    };
    let recovered = |topic: String, word: &'static str| Happening::Recovered {
        topic,
        event: word,
        subject: subject.clone(),
        title: first_line(&event.message),
    };
    match event.kind {
        EventKind::SourceFailing => {
            vec![failed(subject.clone(), "source.failing", "failing", format!("source {source} cannot be read"))]
        }
        EventKind::SourceRecovered => vec![recovered(subject.clone(), "source.recovered")],
        EventKind::SourceWaiting => {
            let title = format!("something of source {source} waits for a person");
            vec![failed(format!("waiting {source}"), "source.waiting", "waiting", title)]
        }
        EventKind::SourceApproved | EventKind::SourceSettled => {
            vec![recovered(format!("waiting {source}"), "source.settled")]
        }
        EventKind::ManifestInvalid => vec![Happening::News {
            event: "manifest.invalid",
            subject: subject.clone(),
            title: format!("a manifest of source {source} cannot be read"),
            text: event.message.clone(),
        }],
        _ => Vec::new(),
    }
}

fn of_agent(event: &Event) -> Vec<Happening> {
    let failed = |topic: &str, word: &str, title: &str| {
        vec![Happening::Failed {
            topic: topic.to_owned(),
            trouble: Trouble {
                event: word.to_owned(),
                // Without the host: many that fail together are one message.
                cause: topic.split(' ').next().unwrap_or(topic).to_owned(),
                subject: topic.to_owned(),
                text: event.message.clone(),
                known: false,
            },
            title: title.to_owned(),
            log: Vec::new(),
        }]
    };
    let recovered = |topic: &str, word: &'static str, title: &str| {
        let (topic, subject) = (topic.to_owned(), topic.to_owned());
        vec![Happening::Recovered { topic, event: word, subject, title: title.to_owned() }]
    };
    // The cause of an event about a certificate is its host, or its file.
    let host = event.cause.as_deref().unwrap_or("a host");
    let certificate = format!("certificate {host}");
    match event.kind {
        EventKind::DiskLow => failed("disk", "disk.low", "the disk with the agent's data is nearly full"),
        EventKind::DiskRecovered => {
            recovered("disk", "disk.recovered", "the disk with the agent's data has room again")
        }
        EventKind::CertificateFailing => {
            failed(&certificate, "certificate.failing", &format!("no new certificate for {host}"))
        }
        EventKind::CertificateExpiring => {
            failed(&certificate, "certificate.expiring", &format!("the certificate of {host} expires"))
        }
        EventKind::CertificateRecovered => {
            recovered(&certificate, "certificate.recovered", &format!("the certificate of {host} is in order again"))
        }
        EventKind::ConfigInvalid => failed("configuration", "config.invalid", "the configuration is not taken over"),
        EventKind::ConfigReloaded => recovered("configuration", "config.recovered", "the configuration is taken over"),
        _ => Vec::new(),
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: EventKind, function: &str, cause: Option<&str>) -> Happening {
        let app = AppKey::new("main".parse().unwrap(), "shop".parse().unwrap());
        let event = Event {
            at: jiff::Timestamp::UNIX_EPOCH,
            kind,
            app: Some(app),
            version: None,
            source: None,
            object: Some(function.parse().unwrap()),
            cause: cause.map(str::to_owned),
            message: "in words".to_owned(),
        };
        happenings(&event, &Facts::default()).remove(0)
    }

    #[test]
    fn each_schedule_is_a_trouble_of_its_own_that_its_own_success_ends() {
        let topic = |happening: &Happening| match happening {
            Happening::Failed { topic, trouble, .. } => (topic.clone(), trouble.cause.clone()),
            Happening::Recovered { topic, event, .. } => (topic.clone(), (*event).to_owned()),
            other => panic!("{other:?}"),
        };
        let failed = of(EventKind::ScheduleFailed, "report", Some("KeyError"));
        assert_eq!(topic(&failed), ("schedule main/shop report".into(), "KeyError".into()));
        let recovered = of(EventKind::ScheduleRecovered, "report", None);
        assert_eq!(topic(&recovered), ("schedule main/shop report".into(), "schedule.recovered".into()));
        assert_ne!(topic(&of(EventKind::ScheduleFailed, "other", None)).0, topic(&failed).0);
        let removed = of(EventKind::ScheduleRemoved, "report", None);
        assert_eq!(removed, Happening::Ended { topic: topic(&failed).0 });
        for (kind, word) in
            [(EventKind::ScheduleMissed, "schedule.missed"), (EventKind::ScheduleSkipped, "schedule.skipped")]
        {
            assert!(matches!(of(kind, "report", None), Happening::News { event, .. } if event == word));
        }
    }
}
