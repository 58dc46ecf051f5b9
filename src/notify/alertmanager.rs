//! Prometheus Alertmanager: a trouble is an alert that fires until its end; news are alerts that end at once.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::render::Templates;
use crate::decide::announce::fitting;
use crate::domain::{Notice, NoticeStatus};

/// An alert that nobody ends is over after this: reminders renew it before.
const LASTS: Duration = Duration::from_secs(25 * 3600);
/// News are shown for so long.
const NEWS: Duration = Duration::from_secs(300);
const TITLE: usize = 250;
const TEXT: usize = 4000;

/// One alert for each trouble, also for those that people are told of together: their ends come one by one. Labels name
/// the trouble, and nothing that changes while it lasts: they are its identity there.
pub(super) fn body(notice: &Notice, templates: &Templates, reminder: Duration) -> Value {
    let alert = |key: &str, summary: String, since| alert(notice, templates, reminder, key, summary, since);
    if notice.parts.is_empty() {
        return json!([alert(&notice.key, templates.title(notice, TITLE), notice.since)]);
    }
    notice.parts.iter().map(|part| alert(&part.key, fitting(&part.title, TITLE), part.since)).collect()
}

fn alert(
    notice: &Notice,
    templates: &Templates,
    reminder: Duration,
    key: &str,
    summary: String,
    since: Option<Timestamp>,
) -> Value {
    let ends = match notice.status {
        NoticeStatus::Failing => notice.at + LASTS.max(reminder + Duration::from_secs(3600)),
        NoticeStatus::Recovered => notice.at,
        NoticeStatus::Information => notice.at + NEWS,
    };
    let mut alert = json!({
        "labels": {
            "alertname": "Landfall",
            "trouble": key,
            "environment": notice.environment,
            "agent": notice.agent,
            // The end of a trouble has the labels it fired with: that is how it is found.
            "severity": if notice.status == NoticeStatus::Information { "info" } else { "warning" },
        },
        "annotations": {
            "summary": summary,
            "description": templates.plain(notice, TEXT),
            "event": notice.event,
            "cause": notice.cause.clone().unwrap_or_default(),
        },
        "startsAt": since.unwrap_or(notice.at).to_string(),
        "endsAt": ends.to_string(),
    });
    if let Some(link) = &notice.link {
        alert["generatorURL"] = json!(link);
    }
    alert
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::NoticePart;
    use crate::notify::render::tests::notice;

    #[test]
    fn each_trouble_of_a_message_is_an_alert_that_its_own_end_ends() {
        let day = Duration::from_secs(24 * 3600);
        let part = |name: &str| NoticePart {
            key: format!("deployment main/{name}"),
            subject: name.to_owned(),
            title: format!("{name} v3 failed while building"),
            since: None,
        };
        let together = Notice { parts: vec![part("shop"), part("mail")], ..notice() };
        let fired = body(&together, &Templates::default(), day);
        let over = Notice { status: NoticeStatus::Recovered, key: part("mail").key, ..notice() };
        let ended = body(&over, &Templates::default(), day);
        assert_eq!(fired.as_array().map(Vec::len), Some(2));
        assert_eq!(fired[1]["labels"], ended[0]["labels"]);
        assert_eq!(ended[0]["endsAt"], json!(over.at.to_string()));
        assert_eq!(fired[0]["annotations"]["summary"], "shop v3 failed while building");
    }
}
