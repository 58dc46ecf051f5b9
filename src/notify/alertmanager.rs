//! Prometheus Alertmanager: a trouble is an alert that fires until its end; news are alerts that end at once.

use std::time::Duration;

use serde_json::{Value, json};

use super::render::Templates;
use crate::domain::{Notice, NoticeStatus};

/// An alert that nobody ends is over after this: reminders renew it before.
const LASTS: Duration = Duration::from_secs(25 * 3600);
/// News are shown for so long.
const NEWS: Duration = Duration::from_secs(300);
const TEXT: usize = 4000;

/// Labels name the trouble, and nothing that changes while it lasts: they are its identity there.
pub(super) fn body(notice: &Notice, templates: &Templates, reminder: Duration) -> Value {
    let ends = match notice.status {
        NoticeStatus::Failing => notice.at + LASTS.max(reminder + Duration::from_secs(3600)),
        NoticeStatus::Recovered => notice.at,
        NoticeStatus::Information => notice.at + NEWS,
    };
    let mut alert = json!({
        "labels": {
            "alertname": "Landfall",
            "trouble": notice.key,
            "environment": notice.environment,
            "agent": notice.agent,
            "severity": if notice.status == NoticeStatus::Failing { "warning" } else { "info" },
        },
        "annotations": {
            "summary": templates.title(notice, 250),
            "description": templates.plain(notice, TEXT),
            "event": notice.event,
            "cause": notice.cause.clone().unwrap_or_default(),
        },
        "startsAt": notice.since.unwrap_or(notice.at).to_string(),
        "endsAt": ends.to_string(),
    });
    if notice.status == NoticeStatus::Recovered {
        // The same labels as when it fired: that is how it is found.
        alert["labels"]["severity"] = json!("warning");
    }
    if let Some(link) = &notice.link {
        alert["generatorURL"] = json!(link);
    }
    json!([alert])
}
