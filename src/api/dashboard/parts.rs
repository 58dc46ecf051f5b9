//! Pieces that many pages share: states as sign and word, times, commits, versions, addresses, tables' ends.

use jiff::{SignedDuration, Timestamp};
use maud::{Markup, html};

use super::icons::Icon;
use crate::domain::{
    AppKey, AppName, CallOutcome, CallState, CommitId, DeploymentId, DeploymentOutcome, EnvironmentName, InstanceState,
    Phase, VersionNumber, VersionStatus,
};
use crate::wire::api::AppState;

/// The colour of a state; a sign and a word always go with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// All is well.
    Good,
    /// Something is under way.
    Busy,
    /// Somebody should know.
    Warn,
    /// Something is wrong.
    Bad,
    /// Nothing to see.
    Quiet,
}

impl Tone {
    /// The class in the style sheet.
    pub fn class(self) -> &'static str {
        match self {
            Tone::Good => "good",
            Tone::Busy => "busy",
            Tone::Warn => "warn",
            Tone::Bad => "bad",
            Tone::Quiet => "quiet",
        }
    }
}

/// A state: sign, word and colour.
pub fn badge(tone: Tone, icon: Icon, word: &str) -> Markup {
    html! { span.badge.(tone.class()) { (icon.draw()) (word) } }
}

/// How an app's state looks.
pub fn look_of_state(state: AppState) -> (Tone, Icon) {
    match state {
        AppState::Deployed => (Tone::Good, Icon::Good),
        AppState::Deploying => (Tone::Busy, Icon::Busy),
        AppState::Failed => (Tone::Bad, Icon::Bad),
        AppState::Crashing => (Tone::Bad, Icon::Alarm),
        AppState::Held => (Tone::Warn, Icon::Held),
        AppState::Suspended => (Tone::Warn, Icon::Paused),
        AppState::Stopped => (Tone::Quiet, Icon::Stopped),
    }
}

/// An app's state.
pub fn state(state: AppState) -> Markup {
    let (tone, icon) = look_of_state(state);
    badge(tone, icon, state.as_str())
}

/// A version's status.
pub fn version_status(status: VersionStatus) -> Markup {
    let (tone, icon) = match status {
        VersionStatus::Deploying => (Tone::Busy, Icon::Busy),
        VersionStatus::Live => (Tone::Good, Icon::Good),
        VersionStatus::Superseded => (Tone::Quiet, Icon::Idle),
        VersionStatus::Failed => (Tone::Bad, Icon::Bad),
        VersionStatus::Cancelled => (Tone::Quiet, Icon::Passed),
    };
    badge(tone, icon, status.as_str())
}

/// How a deployment stands.
pub fn deployment_state(outcome: Option<DeploymentOutcome>, phase: Phase) -> Markup {
    match outcome {
        None => badge(Tone::Busy, Icon::Busy, phase.as_str()),
        Some(DeploymentOutcome::Succeeded) => badge(Tone::Good, Icon::Good, "succeeded"),
        Some(DeploymentOutcome::Failed) => badge(Tone::Bad, Icon::Bad, "failed"),
        Some(DeploymentOutcome::Cancelled) => badge(Tone::Quiet, Icon::Passed, "cancelled"),
        Some(DeploymentOutcome::RolledBack) => badge(Tone::Bad, Icon::Alarm, "rolled back"),
    }
}

/// An instance's state.
pub fn instance_state(state: InstanceState) -> Markup {
    let (tone, icon) = match state {
        InstanceState::Starting => (Tone::Busy, Icon::Busy),
        InstanceState::Ready => (Tone::Good, Icon::Good),
        InstanceState::Failing => (Tone::Bad, Icon::Alarm),
        InstanceState::Outdated => (Tone::Warn, Icon::Idle),
        InstanceState::Stopping => (Tone::Quiet, Icon::Busy),
        InstanceState::Exited => (Tone::Quiet, Icon::Stopped),
    };
    badge(tone, icon, state.as_str())
}

/// How a call ended or stands.
pub fn call_state(state: CallState, outcome: Option<CallOutcome>) -> Markup {
    match outcome {
        Some(outcome) => call_outcome(outcome),
        None => match state {
            CallState::Queued => badge(Tone::Quiet, Icon::Idle, "queued"),
            CallState::Running => badge(Tone::Busy, Icon::Busy, "running"),
            CallState::Done => badge(Tone::Quiet, Icon::Idle, "done"),
        },
    }
}

/// How a call ended.
pub fn call_outcome(outcome: CallOutcome) -> Markup {
    let (tone, icon) = look_of_outcome(outcome);
    badge(tone, icon, outcome.as_str())
}

/// A time as its distance from now; the exact one in its title.
pub fn time(at: Timestamp, now: Timestamp) -> Markup {
    html! {
        time datetime=(at.strftime("%Y-%m-%dT%H:%M:%SZ")) title=(stamp(at)) data-ago { (distance(at, now)) }
    }
}

/// A time, if there is one.
pub fn maybe_time(at: Option<Timestamp>, now: Timestamp) -> Markup {
    html! { @match at { Some(at) => (time(at, now)), None => (dash()) } }
}

/// Nothing, in a table.
pub fn dash() -> Markup {
    html! { span.none title="none" { "–" } }
}

/// `2026-11-28 14:03:20 UTC`
pub fn stamp(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// `3 min ago`, `in 2 h`. The script counts on with the same words.
pub fn distance(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(at).as_secs();
    let length = seconds.unsigned_abs();
    let words = match length {
        0..=4 => return if seconds < 0 { "in a moment".to_owned() } else { "just now".to_owned() },
        5..=59 => format!("{length} s"),
        60..=3599 => format!("{} min", length / 60),
        3600..=86_399 => format!("{} h", length / 3600),
        _ => format!("{} d", length / 86_400),
    };
    if seconds < 0 { format!("in {words}") } else { format!("{words} ago") }
}

/// How long something took: `640 ms`, `2.4 s`, `3 min 20 s`.
pub fn length(duration: SignedDuration) -> String {
    let millis = duration.as_millis().max(0);
    match millis {
        0..=999 => format!("{millis} ms"),
        1000..=59_999 => format!("{}.{} s", millis / 1000, millis % 1000 / 100),
        60_000..=3_599_999 => format!("{} min {} s", millis / 60_000, millis % 60_000 / 1000),
        _ => format!("{} h {} min", millis / 3_600_000, millis % 3_600_000 / 60_000),
    }
}

/// `1.4 MiB`
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut tenths = u128::from(count) * 10;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit]) }
}

/// A commit, short; a link where its forge is known.
pub fn commit(commit: &CommitId, link: Option<&str>) -> Markup {
    html! {
        @match link {
            Some(link) => a.commit href=(link) rel="noreferrer" title=(commit) { (commit.short()) },
            None => span.commit title=(commit) { (commit.short()) },
        }
    }
}

/// A text of the agent, with what is between backticks set as code.
pub fn prose(text: &str) -> Markup {
    let pieces = text.split('`').collect::<Vec<_>>();
    // An odd number of backticks marks nothing.
    let marked = pieces.len() % 2 == 1;
    html! {
        @if marked {
            @for (index, piece) in pieces.iter().enumerate() {
                @if index % 2 == 1 { code { (piece) } } @else { (piece) }
            }
        } @else { (text) }
    }
}

/// `s` for anything but one.
pub fn plural(count: impl Into<u64>) -> &'static str {
    if count.into() == 1 { "" } else { "s" }
}

/// Whose environment needs no mention.
#[derive(Debug, Clone)]
pub struct Places {
    /// The agent's own.
    pub home: EnvironmentName,
}

impl Places {
    /// A page about an app: `/apps/shop/logs?environment=dev`, without the environment when it is the agent's own.
    pub fn app(&self, key: &AppKey, below: &str) -> String {
        self.with(key, &format!("/apps/{}{below}", key.app))
    }

    /// A form about an app.
    pub fn form(&self, key: &AppKey, action: &str) -> String {
        self.with(key, &format!("/ui/apps/{}/{action}", key.app))
    }

    fn with(&self, key: &AppKey, path: &str) -> String {
        if key.environment == self.home {
            return path.to_owned();
        }
        let mark = if path.contains('?') { '&' } else { '?' };
        format!("{path}{mark}environment={}", key.environment)
    }

    /// The same for its parts.
    pub fn of(&self, environment: &EnvironmentName, app: &AppName) -> String {
        self.app(&AppKey::new(environment.clone(), app.clone()), "")
    }
}

/// A deployment's page.
pub fn deployment_place(id: DeploymentId) -> String {
    format!("/deployments/{id}")
}

/// A version as a link to its deployment.
pub fn version(number: VersionNumber, deployment: Option<DeploymentId>) -> Markup {
    html! {
        @match deployment {
            Some(id) => a.version href=(deployment_place(id)) { (number) },
            None => span.version { (number) },
        }
    }
}

/// Text for a query of an address.
pub fn query_text(text: &str) -> String {
    let mut coded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => coded.push(char::from(byte)),
            _ => coded.push_str(&format!("%{byte:02X}")),
        }
    }
    coded
}

/// The text behind [`query_text`]; `None` for what is no text.
pub fn text_of_query(coded: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(coded.len());
    let mut rest = coded.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
            let (high, low) = (digit(rest.next())?, digit(rest.next())?);
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// A query: the pairs that say something.
pub fn query(pairs: &[(&str, &str)]) -> String {
    let said: Vec<String> = pairs
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("{name}={}", query_text(value)))
        .collect();
    if said.is_empty() { String::new() } else { format!("?{}", said.join("&")) }
}

/// How a call's outcome looks.
pub fn look_of_outcome(outcome: CallOutcome) -> (Tone, Icon) {
    match outcome {
        CallOutcome::Succeeded => (Tone::Good, Icon::Good),
        CallOutcome::Failed | CallOutcome::TimedOut => (Tone::Bad, Icon::Bad),
        CallOutcome::Cancelled | CallOutcome::SkippedOverlap => (Tone::Quiet, Icon::Passed),
        CallOutcome::Missed => (Tone::Warn, Icon::Passed),
    }
}
