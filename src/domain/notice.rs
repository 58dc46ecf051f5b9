//! What people are told through a channel.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How what is told stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoticeStatus {
    /// Something is wrong now.
    Failing,
    /// What was wrong is right again.
    Recovered,
    /// A fact that asks for nothing.
    Information,
}

impl NoticeStatus {
    /// The word in messages for programs.
    pub fn as_str(self) -> &'static str {
        match self {
            NoticeStatus::Failing => "failing",
            NoticeStatus::Recovered => "recovered",
            NoticeStatus::Information => "information",
        }
    }
}

/// One message to people; each channel renders it in its own form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// The same in every delivery of this message, so that a receiver can tell a repeated one.
    pub id: String,
    /// When it happened.
    pub at: Timestamp,
    /// The event's word: `deployment.failed`, `rollback`, …
    pub event: String,
    /// How it stands.
    pub status: NoticeStatus,
    /// The agent that tells it.
    pub agent: String,
    /// Its environment.
    pub environment: String,
    /// What it is about: names of apps, a source, the disk.
    pub subjects: Vec<String>,
    /// The same in every message about one trouble, from its beginning to its end.
    pub key: String,
    /// The kind of error, where it is one: `build_failed`, `auth`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// One line.
    pub title: String,
    /// What happened, where and why; may be long.
    pub text: String,
    /// The last lines of a log, where there are any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
    /// How often it has failed since it began, where it is a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Where there is more to see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// The troubles in it, where it tells of several at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<NoticePart>,
}

/// One of several troubles that a message tells of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoticePart {
    /// The same in every message about it, whether it is told alone or with others.
    pub key: String,
    /// What it is about.
    pub subject: String,
    /// One line.
    pub title: String,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

/// The words a channel can select, with what each means.
pub const WORDS: [(&str, &str); 24] = [
    ("deployment.failed", "a version never became live"),
    ("deployment.recovered", "an app whose deployment failed has a new version that stays"),
    ("deployment.succeeded", "a version is live and has passed its bake window"),
    ("rollback", "an earlier version came back: by a person, or by the agent when a version failed in its bake window"),
    ("quarantined", "a source asks for content that must not be started again"),
    ("hold.reminder", "an app still runs another version than its source asks for"),
    ("app.crashing", "instances of a live version end again and again"),
    ("app.recovered", "an app that was crashing is healthy again"),
    ("schedule.failed", "runs of a schedule fail, as many in a row as its `notify_after` says"),
    ("schedule.recovered", "a schedule that was failing succeeds again"),
    ("schedule.missed", "the time of runs passed while nothing could start them"),
    ("schedule.skipped", "three runs in a row did not start because the one before was still under way"),
    ("manifest.invalid", "a manifest cannot be read; its app stays as it is"),
    ("source.failing", "a source cannot be read"),
    ("source.recovered", "a source that was failing can be read again"),
    ("source.waiting", "removals held back by a brake, a rewritten branch or an unsigned commit wait"),
    ("source.settled", "what waited was approved, or is no longer asked for"),
    ("config.invalid", "the agent's configuration was changed and cannot be taken over"),
    ("config.recovered", "it is taken over again"),
    ("disk.low", "the disk with the agent's data is nearly full"),
    ("disk.recovered", "that disk has room again"),
    ("certificate.failing", "a certificate cannot be had from its authority, or not be read from its file"),
    ("certificate.expiring", "a certificate expires within two weeks (or a quarter of its life), or has expired"),
    ("certificate.recovered", "that certificate is in order again"),
];

/// What a channel hears unless it selects: all but the success of each deployment.
pub fn is_default(word: &str) -> bool {
    word != "deployment.succeeded"
}

/// The words alone.
pub const WORD_NAMES: [&str; WORDS.len()] = {
    let mut names = [""; WORDS.len()];
    let mut index = 0;
    while index < names.len() {
        names[index] = WORDS[index].0;
        index += 1;
    }
    names
};

/// What a template may stand for, in braces.
pub const PLACEHOLDERS: [&str; 12] =
    ["title", "text", "log", "event", "status", "cause", "subjects", "agent", "environment", "count", "since", "link"];
