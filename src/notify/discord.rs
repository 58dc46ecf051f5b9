//! Discord webhooks: one embed. Nobody is mentioned, whatever a log line says.

use serde_json::{Value, json};

use super::render::Templates;
use crate::domain::{Notice, NoticeStatus};

/// Discord's limit of an embed's title.
const TITLE: usize = 256;
/// Discord's limit of an embed's description.
const TEXT: usize = 4096;

pub(super) fn body(notice: &Notice, templates: &Templates) -> Value {
    let colour = match notice.status {
        NoticeStatus::Failing => 0x00d7_3a49,
        NoticeStatus::Recovered => 0x0028_a745,
        NoticeStatus::Information => 0x0003_66d6,
    };
    json!({
        "allowed_mentions": { "parse": [] },
        "embeds": [{
            "title": templates.title(notice, TITLE),
            "description": templates.marked(notice, TEXT, str::to_owned),
            "color": colour,
            "timestamp": notice.at.to_string(),
        }],
    })
}
