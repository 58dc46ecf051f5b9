//! The keys of a function's `schedule`, and the forms of text that only they have.

use super::keys::{Default, Form, Key, Kind, Problem, Table};
use crate::domain::manifest::Millis;
use crate::domain::schedule::{Cron, Every, MAX_EXPRESSION};
use crate::domain::scheduled::defaults;
use crate::zones::Zones;

/// Longest `catch_up`.
const MONTH: Millis = Millis::seconds(31 * 24 * 60 * 60);
/// Longest `jitter`.
const DAY: Millis = Millis::seconds(24 * 60 * 60);
/// Most failures in a row before people hear of them.
const MAX_FAILURES: u64 = 1000;
/// Largest body of a run, in bytes of JSON.
const MAX_BODY: usize = 64 * 1024;
/// Longest URL.
const MAX_URL: usize = 2000;

/// The expression by itself, in place of the table.
pub static EXPRESSION: Form = Form { what: "a cron expression like \"0 4 * * *\"", pattern: "", check: expression };
static TIMEZONE: Form = Form { what: "a time zone", pattern: r"^[A-Za-z0-9_+/-]+$", check: timezone };
pub(super) static PING_URL: Form = Form { what: "a URL", pattern: "^https?://", check: ping_url };

/// `schedule`.
pub static SCHEDULE: Table = Table {
    what: "a schedule",
    place: "functions.<name>.schedule",
    keys: &[
        Key {
            name: "cron",
            kind: Kind::Text(&EXPRESSION),
            default: Default::Nothing("`every` says when"),
            doc: "Minute, hour, day of month, month, day of week, as for Debian's cron, or `@daily` and the like.",
        },
        Key {
            name: "every",
            kind: Kind::Duration(Millis::seconds(1), Millis(Every::LONGEST.as_millis() as u64)),
            default: Default::Nothing("`cron` says when"),
            doc: "Whole seconds between two runs, counted from 1970 and not from the deployment.",
        },
        Key {
            name: "timezone",
            kind: Kind::Text(&TIMEZONE),
            default: Default::Text(defaults::TIMEZONE),
            doc: "The zone whose clock `cron` means, by its IANA name.",
        },
        Key {
            name: "overlap",
            kind: Kind::Choice { now: &["skip", "queue", "replace", "allow"], later: &[] },
            default: Default::Text(defaults::OVERLAP.as_str()),
            doc: "While the run before it is under way, a run is not started (`skip`), started after it (`queue`), started in its place (`replace`) or beside it (`allow`).",
        },
        Key {
            name: "catch_up",
            kind: Kind::Duration(Millis(0), MONTH),
            default: Default::Duration(defaults::CATCH_UP),
            doc: "After a time in which nothing could start, the latest run that was missed starts if it is at most this late; the others are recorded as missed.",
        },
        Key {
            name: "jitter",
            kind: Kind::Duration(Millis(0), DAY),
            default: Default::Duration(defaults::JITTER),
            doc: "Runs start up to this much later, always the same for one schedule, so that many at one time are spread out.",
        },
        Key {
            name: "body",
            kind: Kind::Json(MAX_BODY),
            default: Default::Nothing("no body"),
            doc: "The body of each call, as JSON.",
        },
        Key {
            name: "notify_after",
            kind: Kind::Number(1, MAX_FAILURES),
            default: Default::Number(defaults::NOTIFY_AFTER as u64),
            doc: "People hear of it after so many failures in a row.",
        },
        Key {
            name: "ping",
            kind: Kind::Text(&PING_URL),
            default: Default::Nothing("nobody is asked"),
            doc: "A dead-man's switch: asked with `/start` behind it when a run starts, as it is when one succeeds, with `/fail` when one fails.",
        },
    ],
};

fn expression(text: &str) -> Result<String, Problem> {
    let cron: Cron =
        text.parse().map_err(|error: crate::domain::ScheduleError| Problem::hinted(error.message, error.hint))?;
    // Fields are set apart by any number of blanks.
    let normal = cron.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    debug_assert!(normal.len() <= MAX_EXPRESSION);
    Ok(normal)
}

fn timezone(text: &str) -> Result<String, Problem> {
    let zone = Zones::of_this_machine()
        .find(text)
        .map_err(|unknown| Problem::hinted(format!("`{}` is not a time zone", unknown.name), unknown.hint))?;
    Ok(zone.iana_name().unwrap_or(text).to_owned())
}

fn ping_url(text: &str) -> Result<String, Problem> {
    let example = "write a URL like https://hc.example.com/ping/1f0a";
    if text.len() > MAX_URL {
        return Err(Problem::hinted(format!("a URL has at most {MAX_URL} characters"), example));
    }
    let Ok(url) = text.parse::<http::Uri>() else {
        return Err(Problem::hinted("this is not a URL", example));
    };
    match (url.scheme_str(), url.host()) {
        (Some("http" | "https"), Some(host)) if !host.is_empty() => {}
        _ => return Err(Problem::hinted("the URL must begin with https:// or http:// and name a host", example)),
    }
    if url.query().is_some() || text.contains('#') {
        return Err(Problem::hinted("the URL must not have a `?` or `#`, its path is added to", example));
    }
    if url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(Problem::hinted("the URL must not contain a login, everybody can read it", example));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ping_is_a_plain_url() {
        assert_eq!(ping_url("https://hc.example.com/ping/1/").as_deref(), Ok("https://hc.example.com/ping/1"));
        for bad in ["", "hc.example.com", "ftp://x/y", "https://", "https://a:b@x/y", "https://x/y?z=1", "https://x/#y"]
        {
            assert!(ping_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn zones_get_the_name_everybody_writes() {
        assert_eq!(timezone("europe/oslo").as_deref(), Ok("Europe/Oslo"));
        let wrong = timezone("Europe/Olso").unwrap_err();
        assert!(wrong.hint.unwrap().contains("Europe/Oslo"));
    }
}
