//! A notice as text: templates, and what fits where.

use crate::decide::announce::fitting;
use crate::domain::{Notice, NoticeStatus};

/// Templates of a channel, where it has its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Templates {
    pub title: Option<String>,
    pub text: Option<String>,
}

impl Templates {
    /// The first line.
    pub(super) fn title(&self, notice: &Notice, limit: usize) -> String {
        let own = || format!("{} {}", mark(notice.status), notice.title);
        let title = self.title.as_ref().map_or_else(own, |template| fill(template, notice));
        fitting(&title.split_whitespace().collect::<Vec<_>>().join(" "), limit)
    }

    /// The rest as plain text; the log gives way first.
    pub(super) fn plain(&self, notice: &Notice, limit: usize) -> String {
        if let Some(template) = &self.text {
            return fitting(&fill(template, notice), limit);
        }
        let foot = footer(notice);
        let room = limit.saturating_sub(foot.chars().count() + 2);
        let text = fitting(&notice.text, room);
        let log = log(notice, room.saturating_sub(text.chars().count() + 4));
        let parts = [text, log, foot];
        parts.iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join("\n\n")
    }

    /// The rest with the log as a block of code, in `limit` characters. `escape` makes text harmless.
    pub(super) fn marked(&self, notice: &Notice, limit: usize, escape: fn(&str) -> String) -> String {
        if let Some(template) = &self.text {
            return fitting(&escape(&fill(template, notice)), limit);
        }
        let foot = escape(&footer(notice));
        let room = limit.saturating_sub(foot.chars().count() + 20);
        let text = fitting(&escape(&notice.text), room);
        let mut parts = vec![text.clone()];
        // A log's own fence must not end the block; a zero-width space keeps it apart.
        let log = log(notice, room.saturating_sub(text.chars().count())).replace("```", "`\u{200b}``");
        if !log.is_empty() {
            parts.push(format!("```\n{}\n```", fitting(&escape(&log), room.saturating_sub(text.chars().count()))));
        }
        parts.push(foot);
        parts.retain(|part| !part.is_empty());
        parts.join("\n")
    }
}

/// A sign that is seen before anything is read.
pub(super) fn mark(status: NoticeStatus) -> &'static str {
    match status {
        NoticeStatus::Failing => "🔴",
        NoticeStatus::Recovered => "🟢",
        NoticeStatus::Information => "🔵",
    }
}

/// Which agent, and where there is more to see.
fn footer(notice: &Notice) -> String {
    let mut parts = vec![format!("{} on {}", notice.environment, notice.agent)];
    if let Some(since) = notice.since.filter(|since| *since < notice.at) {
        parts.push(format!("since {}", since.strftime("%Y-%m-%d %H:%M UTC")));
    }
    parts.extend(notice.link.clone());
    parts.join(" · ")
}

/// As many of the last lines as there is room for.
fn log(notice: &Notice, room: usize) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut used = 0;
    for line in notice.log.iter().rev() {
        let line = fitting(line, 300);
        used += line.chars().count() + 1;
        if used > room {
            break;
        }
        lines.push(line);
    }
    lines.reverse();
    lines.join("\n")
}

fn fill(template: &str, notice: &Notice) -> String {
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        let Some((name, tail)) = after.split_once('}') else {
            out.push('{');
            rest = after;
            continue;
        };
        out.push_str(&value(name, notice));
        rest = tail;
    }
    out.push_str(rest);
    out
}

/// What a placeholder stands for; the names are `domain::notice::PLACEHOLDERS`.
fn value(name: &str, notice: &Notice) -> String {
    match name {
        "title" => notice.title.clone(),
        "text" => notice.text.clone(),
        "log" => notice.log.join("\n"),
        "event" => notice.event.clone(),
        "status" => notice.status.as_str().to_owned(),
        "cause" => notice.cause.clone().unwrap_or_default(),
        "subjects" => notice.subjects.join(", "),
        "agent" => notice.agent.clone(),
        "environment" => notice.environment.clone(),
        "count" => notice.count.map(|count| count.to_string()).unwrap_or_default(),
        "since" => notice.since.map(|since| since.to_string()).unwrap_or_default(),
        "link" => notice.link.clone().unwrap_or_default(),
        _ => String::new(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::domain::notice::PLACEHOLDERS;

    pub(in crate::notify) fn notice() -> Notice {
        let text = |text: &str| text.to_owned();
        Notice {
            id: text("n-1"),
            at: "2026-03-01T12:00:00Z".parse().unwrap(),
            event: text("deployment.failed"),
            status: NoticeStatus::Failing,
            agent: text("box"),
            environment: text("main"),
            subjects: vec![text("shop")],
            key: text("deployment main/shop"),
            cause: Some(text("build_failed")),
            title: text("shop v3 failed while building"),
            text: text("the build failed: exit code 2"),
            log: (0..50).map(|number| format!("line {number} <&> ```")).collect(),
            count: Some(1),
            since: Some("2026-03-01T11:00:00Z".parse().unwrap()),
            link: Some(text("https://d.example.org/x")),
            parts: Vec::new(),
        }
    }

    #[test]
    fn everything_fits_whatever_the_limit() {
        let huge = Notice { text: "ä".repeat(9000), ..notice() };
        for limit in [200, 1000, 2000, 4096] {
            for notice in [&notice(), &huge] {
                let templates = Templates::default();
                assert!(templates.plain(notice, limit).chars().count() <= limit, "{limit}");
                let marked = templates.marked(notice, limit, str::to_owned);
                assert!(marked.chars().count() <= limit, "{limit}: {}", marked.chars().count());
                assert!(marked.contains("main on box"), "the foot stays: {marked}");
            }
        }
    }

    #[test]
    fn the_end_of_the_log_is_what_stays() {
        let text = Templates::default().plain(&notice(), 400);
        assert!(text.contains("line 49") && !text.contains("line 2 "), "{text}");
    }

    #[test]
    fn every_placeholder_stands_for_something() {
        for name in PLACEHOLDERS {
            assert!(!fill(&format!("{{{name}}}"), &notice()).is_empty(), "{name}");
        }
        let own = Templates { title: Some("[{agent}] {title}!".to_owned()), text: None };
        assert_eq!(own.title(&notice(), 100), "[box] shop v3 failed while building!");
    }
}
