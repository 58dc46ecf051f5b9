//! ntfy: a message to a topic, as JSON to the server's root, so that titles may hold any character.

use serde_json::{Value, json};

use super::render::Templates;
use crate::domain::{Notice, NoticeStatus};

const TITLE: usize = 250;
/// ntfy turns a message beyond 4,096 bytes into a file; so many characters never are more, whatever they are.
const TEXT: usize = 1000;

/// Server and topic of a topic's URL.
pub(super) fn split(url: &str) -> Option<(&str, &str)> {
    let (server, topic) = url.trim_end_matches('/').rsplit_once('/')?;
    (server.contains("://") && !server.ends_with('/') && !topic.is_empty()).then_some((server, topic))
}

pub(super) fn body(topic: &str, notice: &Notice, templates: &Templates) -> Value {
    let (priority, tag) = match notice.status {
        NoticeStatus::Failing => (4, "red_circle"),
        NoticeStatus::Recovered => (3, "green_circle"),
        NoticeStatus::Information => (2, "blue_circle"),
    };
    // The tag is shown as the sign that other channels have in the title.
    let title = templates.title(notice, TITLE);
    let title = title.trim_start_matches(super::render::mark(notice.status)).trim_start();
    let mut body = json!({
        "topic": topic,
        "title": title,
        "message": templates.plain(notice, TEXT),
        "priority": priority,
        "tags": [tag],
    });
    if let Some(link) = &notice.link {
        body["click"] = json!(link);
    }
    body
}
