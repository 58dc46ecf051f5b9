//! From what a channel hears to the messages it gets: several subjects with one cause are one message.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::episode::{self, Episode, Rules, Told};
use super::happening::Happening;
use super::redact::redact;
use crate::domain::{Notice, NoticePart, NoticeStatus};

/// Subjects that a message names one by one.
const NAMED: usize = 20;

/// Who tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Teller {
    /// The agent's name.
    pub agent: String,
    /// Its environment.
    pub environment: String,
    /// Where links lead to, if anywhere.
    pub public_url: Option<String>,
}

/// Something one channel is told, before it is bundled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// Why; `None` for news.
    pub told: Option<Told>,
    /// The event's word.
    pub event: String,
    /// The kind of error.
    pub cause: Option<String>,
    /// What it is about.
    pub subject: String,
    /// Names the trouble from its beginning to its end.
    pub key: String,
    /// One line.
    pub title: String,
    /// More of it.
    pub text: String,
    /// The end of a log.
    pub log: Vec<String>,
    /// Failures so far.
    pub count: Option<u32>,
    /// When it began.
    pub since: Option<Timestamp>,
    /// When it happened.
    pub at: Timestamp,
}

/// The troubles of one channel, by topic, with those that changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    /// All that have not ended.
    pub episodes: BTreeMap<String, Episode>,
    /// Topics whose episode is new, different or gone.
    pub changed: std::collections::BTreeSet<String>,
}

impl Memory {
    /// Takes in one happening; answers what the channel is told.
    pub fn hear(
        &mut self,
        happening: &Happening,
        at: Timestamp,
        rules: Rules,
        selects: &dyn Fn(&str) -> bool,
    ) -> Option<Announcement> {
        match happening {
            Happening::Failed { topic, trouble, title, log } => {
                if !selects(&trouble.event) {
                    return None;
                }
                let (episode, told) = episode::fail(self.episodes.remove(topic), trouble, at, rules);
                self.changed.insert(topic.clone());
                let announcement = told.map(|told| Announcement {
                    told: Some(told),
                    event: trouble.event.clone(),
                    cause: Some(trouble.cause.clone()),
                    subject: trouble.subject.clone(),
                    key: topic.clone(),
                    title: title.clone(),
                    text: trouble.text.clone(),
                    log: log.clone(),
                    count: Some(episode.count),
                    since: Some(episode.since),
                    at,
                });
                self.episodes.insert(topic.clone(), episode);
                announcement
            }
            Happening::Recovered { topic, event, subject, title } => {
                let episode = self.end(topic)?;
                let told = episode::recover(Some(&episode)).filter(|_| selects(event))?;
                Some(Announcement {
                    told: Some(told),
                    event: (*event).to_owned(),
                    cause: Some(episode.cause),
                    subject: subject.clone(),
                    key: topic.clone(),
                    title: title.clone(),
                    text: String::new(),
                    log: Vec::new(),
                    count: Some(episode.count),
                    since: Some(episode.since),
                    at,
                })
            }
            Happening::Ended { topic } => {
                let episode = self.end(topic)?;
                let told = episode::end(&episode, rules)?;
                Some(Announcement {
                    told: Some(told),
                    title: format!("{}: over ({})", episode.subject, words(&episode.event)),
                    event: episode.event,
                    cause: Some(episode.cause),
                    subject: episode.subject,
                    key: topic.clone(),
                    text: String::new(),
                    log: Vec::new(),
                    count: Some(episode.count),
                    since: Some(episode.since),
                    at,
                })
            }
            Happening::News { event, subject, title, text } => selects(event).then(|| Announcement {
                told: None,
                event: (*event).to_owned(),
                cause: None,
                subject: subject.clone(),
                key: format!("{event} {subject}"),
                title: title.clone(),
                text: if text == title { String::new() } else { text.clone() },
                log: Vec::new(),
                count: None,
                since: None,
                at,
            }),
        }
    }

    /// What the clock alone leads to.
    pub fn remind(&mut self, now: Timestamp, rules: Rules) -> Vec<Announcement> {
        let mut due = Vec::new();
        for (topic, episode) in &mut self.episodes {
            let (after, told) = episode::remind(episode.clone(), now, rules);
            let Some(told) = told else { continue };
            *episode = after;
            self.changed.insert(topic.clone());
            due.push(Announcement {
                told: Some(told),
                event: episode.event.clone(),
                cause: Some(episode.cause.clone()),
                subject: episode.subject.clone(),
                key: topic.clone(),
                title: format!("{}: {}", episode.subject, words(&episode.event)),
                text: episode.text.clone(),
                log: Vec::new(),
                count: Some(episode.count),
                since: Some(episode.since),
                at: now,
            });
        }
        due
    }

    fn end(&mut self, topic: &str) -> Option<Episode> {
        let episode = self.episodes.remove(topic)?;
        self.changed.insert(topic.to_owned());
        Some(episode)
    }
}

/// An event's word as half a sentence.
fn words(event: &str) -> &str {
    match event {
        "deployment.failed" => "its deployment failed",
        "rollback" => "its version was rolled back",
        "hold.reminder" => "held back from what its source asks for",
        "app.crashing" => "crashing",
        "schedule.failed" => "its runs fail",
        "source.failing" => "cannot be read",
        "source.waiting" => "something waits for a person",
        "disk.low" => "nearly full",
        "certificate.failing" => "cannot be had",
        "certificate.expiring" => "about to expire",
        "config.invalid" => "not taken over",
        other => other,
    }
}

/// The messages: what has one event, reason and cause is one of them. `first` numbers them.
pub fn bundle(announcements: Vec<Announcement>, teller: &Teller, id: &dyn Fn(usize) -> String) -> Vec<Notice> {
    let mut groups: Vec<Vec<Announcement>> = Vec::new();
    for announcement in announcements {
        let same = |group: &&mut Vec<Announcement>| {
            group.iter().all(|other| {
                (&other.event, other.told, &other.cause)
                    == (&announcement.event, announcement.told, &announcement.cause)
                    && other.subject != announcement.subject
            })
        };
        match groups.iter_mut().find(same) {
            Some(group) => group.push(announcement),
            None => groups.push(vec![announcement]),
        }
    }
    groups.into_iter().enumerate().filter_map(|(number, group)| notice(group, teller, id(number))).collect()
}

fn notice(mut group: Vec<Announcement>, teller: &Teller, id: String) -> Option<Notice> {
    let subjects: Vec<String> = group.iter().map(|one| one.subject.clone()).collect();
    let several = group.len() > 1;
    let text = several.then(|| list(&group));
    let part = |one: &Announcement| NoticePart {
        key: one.key.clone(),
        subject: one.subject.clone(),
        title: redact(&one.title),
        since: one.since,
    };
    let parts = if several { group.iter().map(part).collect() } else { Vec::new() };
    let first = group.drain(..).next()?;
    let status = match first.told {
        None => NoticeStatus::Information,
        Some(Told::Recovered) => NoticeStatus::Recovered,
        Some(Told::First | Told::Changed | Told::Reminder) => NoticeStatus::Failing,
    };
    let subject = if several {
        let cause = first.cause.as_ref().filter(|_| status == NoticeStatus::Failing);
        let cause = cause.map(|cause| format!(" ({cause})")).unwrap_or_default();
        let (noun, what) = several_words(&first.event);
        format!("{} {noun}: {what}{cause}", subjects.len())
    } else {
        first.title
    };
    let still = first.count.filter(|_| first.told == Some(Told::Reminder)).map(|count| match count {
        0 | 1 => " (still)".to_owned(),
        count => format!(" (still; {count} failures)"),
    });
    let changed = if first.told == Some(Told::Changed) { " (another error than before)" } else { "" };
    // `schedule main/shop report` is about the app as well.
    let app = first.key.split(' ').nth(1).and_then(|name| name.split_once('/'));
    let app = app.filter(|(environment, _)| !environment.is_empty());
    let environment =
        app.filter(|_| !several).map_or(teller.environment.as_str(), |(environment, _)| environment).to_owned();
    Some(Notice {
        id,
        at: first.at,
        event: first.event,
        status,
        agent: teller.agent.clone(),
        environment,
        subjects,
        key: if several {
            format!("{} {}", first.cause.clone().unwrap_or_default(), first.at)
        } else {
            first.key.clone()
        },
        cause: first.cause,
        title: redact(&format!("{subject}{}{changed}", still.unwrap_or_default())),
        text: redact(&text.unwrap_or(first.text)),
        log: if several { Vec::new() } else { first.log.iter().map(|line| redact(line)).collect() },
        count: first.count.filter(|_| !several),
        since: first.since,
        link: teller
            .public_url
            .as_ref()
            .filter(|_| !several)
            .and_then(|url| app.map(|(environment, app)| format!("{url}/v1/apps/{app}?environment={environment}"))),
        parts,
    })
}

/// What several of them are, and what has happened to them.
fn several_words(event: &str) -> (&str, &str) {
    match event {
        "deployment.failed" => ("apps", "deployment failed"),
        "deployment.recovered" => ("apps", "deployments succeed again"),
        "deployment.succeeded" => ("apps", "deployed"),
        "rollback" => ("apps", "rolled back"),
        "quarantined" => ("apps", "quarantined content is asked for"),
        "hold.reminder" => ("apps", "held back from what their sources ask for"),
        "app.crashing" => ("apps", "crashing"),
        "app.recovered" => ("apps", "healthy again"),
        "schedule.failed" => ("schedules", "their runs fail"),
        "schedule.recovered" => ("schedules", "their runs succeed again"),
        "schedule.missed" => ("schedules", "runs were missed"),
        "schedule.skipped" => ("schedules", "runs were skipped"),
        "manifest.invalid" => ("manifests", "cannot be read"),
        "source.failing" => ("sources", "cannot be read"),
        "source.recovered" => ("sources", "can be read again"),
        "source.waiting" => ("sources", "something waits for a person"),
        "source.settled" => ("sources", "nothing waits any more"),
        other => ("subjects", other),
    }
}

/// Each subject with the first line of what happened to it.
fn list(group: &[Announcement]) -> String {
    let line = |one: &Announcement| {
        let text = one.text.lines().next().unwrap_or_default();
        if text.is_empty() { format!("- {}", one.subject) } else { format!("- {}: {text}", one.subject) }
    };
    let mut lines: Vec<String> = group.iter().take(NAMED).map(line).collect();
    if group.len() > NAMED {
        lines.push(format!("… and {} more", group.len() - NAMED));
    }
    lines.join("\n")
}
