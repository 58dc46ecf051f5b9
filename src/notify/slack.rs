//! Slack incoming webhooks: one attachment, whose colour says how it stands. Mattermost and Rocket.Chat take the same.

use serde_json::{Value, json};

use super::render::Templates;
use crate::domain::{Notice, NoticeStatus};

/// Slack cuts a title off beyond this.
const TITLE: usize = 250;
/// An attachment longer than this is folded away or refused.
const TEXT: usize = 3000;

pub(super) fn body(notice: &Notice, templates: &Templates) -> Value {
    let colour = match notice.status {
        NoticeStatus::Failing => "danger",
        NoticeStatus::Recovered => "good",
        NoticeStatus::Information => "#439fe0",
    };
    let title = escape(&templates.title(notice, TITLE));
    json!({
        "text": title,
        "attachments": [{
            "color": colour,
            "fallback": title,
            "mrkdwn_in": ["text"],
            "text": templates.marked(notice, TEXT, escape),
        }],
    })
}

/// Slack's three control characters: without this a log line could mention everybody.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::render::tests::notice;

    #[test]
    fn nobody_is_mentioned_by_a_log_line() {
        let notice = Notice { text: "see <!channel>".to_owned(), ..notice() };
        let body = body(&notice, &Templates::default()).to_string();
        assert!(body.contains("&lt;!channel&gt;") && !body.contains("<!"), "{body}");
    }
}
