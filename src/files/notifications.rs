//! `notifications`: keys, checks and values of the channels that people hear by.

use std::path::PathBuf;
use std::time::Duration;

use super::forms;
use super::keys::{Default, Form, Key, Kind, Problem, Table};
use super::reader::Reader;
use super::record::{Record, Value};
use crate::domain::AppName;
use crate::domain::manifest::Millis;
use crate::domain::notice::{PLACEHOLDERS, WORD_NAMES, is_default};

/// Most recipients of an e-mail.
const MAX_RECIPIENTS: usize = 50;
/// Longest command of a channel, in words.
const MAX_WORDS: usize = 64;
/// Most apps a channel names.
const MAX_APPS: usize = 1000;
/// Longest template, in bytes.
const MAX_TEMPLATE: usize = 4096;
const SECOND: Millis = Millis::seconds(1);
const HOUR: Millis = Millis::seconds(3600);
const REMINDER: Millis = Millis::seconds(24 * 3600);
const WINDOW: Millis = Millis::seconds(5);
const EXEC_TIMEOUT: Millis = Millis::seconds(30);

/// The kinds of channels, each a key of its own.
const KINDS: [&str; 7] = ["slack", "discord", "ntfy", "email", "webhook", "alertmanager", "exec"];

/// A channel that people hear by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelConfig {
    /// Its name.
    pub name: String,
    /// Where it leads.
    pub kind: ChannelKind,
    /// The words of the events it gets.
    pub events: Vec<String>,
    /// The apps it hears of; `None` for all, sources and the disk.
    pub apps: Option<Vec<AppName>>,
    /// Failures in a row before it hears of them.
    pub after: u32,
    /// What lasts is told again after this.
    pub reminder: Duration,
    /// What happens within this is told together.
    pub window: Duration,
    /// Replaces the first line.
    pub title: Option<String>,
    /// Replaces the rest.
    pub text: Option<String>,
}

/// Where a channel leads. Files are absolute and read anew for each delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ChannelKind {
    Slack { url_file: PathBuf },
    Discord { url_file: PathBuf },
    Ntfy { url: String, token_file: Option<PathBuf> },
    Email(Box<EmailConfig>),
    Webhook { url: String, secret_file: PathBuf, ca_file: Option<PathBuf> },
    Alertmanager { url: String, token_file: Option<PathBuf>, ca_file: Option<PathBuf> },
    Exec { command: Vec<String>, timeout: Duration },
}

impl ChannelKind {
    /// The key it is configured by.
    pub fn as_str(&self) -> &'static str {
        match self {
            ChannelKind::Slack { .. } => "slack",
            ChannelKind::Discord { .. } => "discord",
            ChannelKind::Ntfy { .. } => "ntfy",
            ChannelKind::Email(_) => "email",
            ChannelKind::Webhook { .. } => "webhook",
            ChannelKind::Alertmanager { .. } => "alertmanager",
            ChannelKind::Exec { .. } => "exec",
        }
    }
}

/// A mail server and who writes to whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmailConfig {
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is protected.
    pub tls: EmailTls,
    /// User and file with the password.
    pub login: Option<(String, PathBuf)>,
    /// The sender.
    pub from: String,
    /// The recipients.
    pub to: Vec<String>,
    /// Authorities to trust instead of the machine's.
    pub ca_file: Option<PathBuf>,
}

/// How a connection to a mail server is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmailTls {
    /// It begins in plain text and must change to TLS before anything else is said.
    StartTls,
    /// TLS from the first byte.
    Tls,
    /// Not at all; without a login only.
    None,
}

/// A mail address.
pub(super) static MAIL_ADDRESS: Form = Form { what: "an e-mail address", pattern: "^.+@.+$", check: mail_address };
static TEMPLATE: Form = Form { what: "a template", pattern: "", check: template };

const fn file(name: &'static str, default: Default, doc: &'static str) -> Key {
    Key { name, kind: Kind::Text(&forms::FILE_PATH), default, doc }
}

const fn table(name: &'static str, table: &'static Table, doc: &'static str) -> Key {
    Key { name, kind: Kind::Table(table), default: Default::Nothing("another kind of channel"), doc }
}

const CA_FILE: Key = file(
    "ca_file",
    Default::Nothing("the authorities this machine trusts"),
    "Certificates (PEM) of the authorities to trust for this channel, instead of the machine's.",
);
const TOKEN_FILE: Key = file("token_file", Default::Nothing("no token is sent"), "A file with an access token.");
const URL: Key = Key {
    name: "url",
    kind: Kind::Text(&forms::API_URL),
    default: Default::Required,
    doc: "The address it is sent to.",
};

pub(super) static CHANNEL: Table = Table {
    what: "a channel",
    place: "notifications.<name>",
    keys: &[
        table("slack", &SLACK, "A Slack incoming webhook (Mattermost and Rocket.Chat take the same)."),
        table("discord", &DISCORD, "A Discord webhook."),
        table("ntfy", &NTFY, "A topic of ntfy.sh or of an ntfy server of your own."),
        table("email", &EMAIL, "E-mail."),
        table("webhook", &WEBHOOK, "JSON to a server of yours, signed."),
        table("alertmanager", &ALERTMANAGER, "A Prometheus Alertmanager."),
        table("exec", &EXEC, "A program on this machine."),
        Key {
            name: "events",
            kind: Kind::List(&Kind::Choice { now: &WORD_NAMES, later: &[] }, WORD_NAMES.len()),
            default: Default::Nothing("all but `deployment.succeeded`"),
            doc: "What it hears of; see notifications.md.",
        },
        Key {
            name: "apps",
            kind: Kind::List(&Kind::Text(&forms::APP_NAME), MAX_APPS),
            default: Default::Nothing("all apps, the sources and the disk"),
            doc: "It hears of these apps alone, and of those whose manifest names it under `notify`. `[]`: of the latter alone.",
        },
        Key {
            name: "after",
            kind: Kind::Number(1, 100),
            default: Default::Number(1),
            doc: "Failures in a row before it hears of them.",
        },
        Key {
            name: "reminder",
            kind: Kind::Duration(HOUR, Millis::seconds(30 * 24 * 3600)),
            default: Default::Duration(REMINDER),
            doc: "What lasts is told again after this.",
        },
        Key {
            name: "window",
            kind: Kind::Duration(Millis(0), Millis::seconds(300)),
            default: Default::Duration(WINDOW),
            doc: "What happens within this is told together: several apps that fail for one cause are one message.",
        },
        Key {
            name: "title",
            kind: Kind::Text(&TEMPLATE),
            default: Default::Nothing("the channel's own"),
            doc: "A template for the first line, for example `[{agent}] {title}`.",
        },
        Key {
            name: "text",
            kind: Kind::Text(&TEMPLATE),
            default: Default::Nothing("the channel's own"),
            doc: "A template for the rest, for example `{text}` and `{log}` on lines of their own.",
        },
    ],
};

static SLACK: Table = Table {
    what: "a Slack channel",
    place: "notifications.<name>.slack",
    keys: &[file("url_file", Default::Required, "A file with the webhook's URL, which is a secret.")],
};

static DISCORD: Table = Table {
    what: "a Discord channel",
    place: "notifications.<name>.discord",
    keys: &[file("url_file", Default::Required, "A file with the webhook's URL, which is a secret.")],
};

static NTFY: Table = Table {
    what: "an ntfy topic",
    place: "notifications.<name>.ntfy",
    keys: &[
        Key {
            name: "url",
            kind: Kind::Text(&forms::API_URL),
            default: Default::Required,
            doc: "The topic's address, `https://ntfy.sh/TOPIC`.",
        },
        TOKEN_FILE,
    ],
};

static EMAIL: Table = Table {
    what: "an e-mail channel",
    place: "notifications.<name>.email",
    keys: &[
        Key {
            name: "host",
            kind: Kind::Text(&forms::LINE),
            default: Default::Required,
            doc: "The mail server; its certificate must carry this name.",
        },
        Key {
            name: "port",
            kind: Kind::Number(1, 65_535),
            default: Default::Nothing("587 for `starttls`, 465 for `tls`, 25 for `none`"),
            doc: "Its port.",
        },
        Key {
            name: "tls",
            kind: Kind::Choice { now: &["starttls", "tls", "none"], later: &[] },
            default: Default::Text("starttls"),
            doc: "How the connection is protected. `starttls` never goes on in plain text; `none` is for a relay on this machine.",
        },
        Key {
            name: "username",
            kind: Kind::Text(&forms::LINE),
            default: Default::Nothing("no login"),
            doc: "The user to log in as.",
        },
        file("password_file", Default::Nothing("no login"), "A file with the password."),
        Key { name: "from", kind: Kind::Text(&MAIL_ADDRESS), default: Default::Required, doc: "The sender." },
        Key {
            name: "to",
            kind: Kind::List(&Kind::Text(&MAIL_ADDRESS), MAX_RECIPIENTS),
            default: Default::Required,
            doc: "The recipients.",
        },
        CA_FILE,
    ],
};

static WEBHOOK: Table = Table {
    what: "a signed webhook",
    place: "notifications.<name>.webhook",
    keys: &[
        URL,
        file("secret_file", Default::Required, "A file with the secret that signs each message (HMAC-SHA256)."),
        CA_FILE,
    ],
};

static ALERTMANAGER: Table = Table {
    what: "an Alertmanager",
    place: "notifications.<name>.alertmanager",
    keys: &[
        Key {
            name: "url",
            kind: Kind::Text(&forms::API_URL),
            default: Default::Required,
            doc: "Its address, without `/api/v2/alerts`.",
        },
        TOKEN_FILE,
        CA_FILE,
    ],
};

static EXEC: Table = Table {
    what: "a program",
    place: "notifications.<name>.exec",
    keys: &[
        Key {
            name: "command",
            kind: Kind::List(&Kind::Text(&forms::LINE), MAX_WORDS),
            default: Default::Required,
            doc: "Program and arguments, started without a shell. The message is JSON on its standard input and in `LANDFALL_NOTICE_…` variables; exit code 0 means taken.",
        },
        Key {
            name: "timeout",
            kind: Kind::Duration(SECOND, Millis::seconds(300)),
            default: Default::Duration(EXEC_TIMEOUT),
            doc: "It is ended after this long.",
        },
    ],
};

fn mail_address(text: &str) -> Result<String, Problem> {
    let text = (forms::LINE.check)(text)?;
    let address = text.rsplit_once('<').map_or(text.as_str(), |(_, rest)| rest.trim_end_matches('>'));
    let plain = |part: &str| !part.is_empty() && !part.contains(|c: char| c.is_whitespace() || "<>,;".contains(c));
    match address.rsplit_once('@') {
        Some((user, host)) if plain(user) && plain(host) => Ok(text),
        Some(_) | None => {
            Err(Problem::hinted(format!("`{text}` is not an e-mail address"), "write user@host, or Name <user@host>"))
        }
    }
}

fn template(text: &str) -> Result<String, Problem> {
    if text.len() > MAX_TEMPLATE {
        return Err(Problem::new(format!("a template has at most {MAX_TEMPLATE} bytes")));
    }
    for piece in text.split('{').skip(1) {
        let name = piece.split('}').next().unwrap_or_default();
        if !piece.contains('}') || !PLACEHOLDERS.contains(&name) {
            let known = PLACEHOLDERS.map(|name| format!("{{{name}}}")).join(", ");
            return Err(Problem::hinted(format!("`{{{name}` is no placeholder"), format!("there are {known}")));
        }
    }
    Ok(text.to_owned())
}

/// What the keys of each channel must fulfil together.
pub(super) fn check(reader: &mut Reader<'_>, config: &Record) {
    for (name, place, entry) in config.map("notifications") {
        let (path, Some(channel)) = (format!("notifications.{name}"), entry.record()) else { continue };
        let given = KINDS.iter().filter(|kind| channel.entry(kind).is_some_and(|entry| entry.given)).count();
        if given != 1 {
            let message = format!("`{path}` must be of exactly one kind, this has {given}");
            reader.error(place, &path, message, Some(&format!("the kinds are {}", KINDS.join(", "))));
        }
        if let Some(exec) = channel.record("exec").filter(|exec| exec.list("command").is_empty()) {
            reader.error(&exec.place, &path, format!("`{path}.exec.command` names no program"), None);
        }
        let Some(email) = channel.record("email") else { continue };
        let place = &email.place;
        match (email.text("username"), email.text("password_file")) {
            (Some(_), None) | (None, Some(_)) => {
                let message = format!("`{path}.email` needs `username` and `password_file`, or none of both");
                reader.error(place, &path, message, None);
            }
            (Some(_), Some(_)) if email.text("tls") == Some("none") => {
                let message = format!("`{path}.email` would send the password in plain text");
                reader.error(place, &path, message, Some("use `tls: starttls` or `tls: tls`"));
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
        if email.list("to").is_empty() && email.entry("to").is_some_and(|to| to.given) {
            reader.error(place, &path, format!("`{path}.email.to` names nobody"), None);
        }
    }
}

/// The channels.
pub(super) fn channels(config: &Record, resolve: &dyn Fn(&str) -> PathBuf) -> Option<Vec<ChannelConfig>> {
    let one = |name: &str, channel: &Record| {
        let selected = channel.texts("events");
        let events = match channel.value("events") {
            Some(Value::List(_)) => selected,
            _ => WORD_NAMES.iter().filter(|word| is_default(word)).map(|word| (*word).to_owned()).collect(),
        };
        let apps = match channel.value("apps") {
            Some(Value::List(_)) => {
                Some(channel.texts("apps").iter().map(|app| app.parse().ok()).collect::<Option<Vec<_>>>()?)
            }
            _ => None,
        };
        Some(ChannelConfig {
            name: name.to_owned(),
            kind: kind(channel, resolve)?,
            events,
            apps,
            after: channel.number("after")?,
            reminder: channel.duration("reminder")?.duration(),
            window: channel.duration("window")?.duration(),
            title: channel.text("title").map(str::to_owned),
            text: channel.text("text").map(str::to_owned),
        })
    };
    config.map("notifications").iter().map(|(name, _, entry)| one(name, entry.record()?)).collect()
}

fn kind(channel: &Record, resolve: &dyn Fn(&str) -> PathBuf) -> Option<ChannelKind> {
    let file = |record: &Record, name: &str| record.text(name).map(resolve);
    if let Some(slack) = channel.record("slack") {
        return Some(ChannelKind::Slack { url_file: file(slack, "url_file")? });
    }
    if let Some(discord) = channel.record("discord") {
        return Some(ChannelKind::Discord { url_file: file(discord, "url_file")? });
    }
    if let Some(ntfy) = channel.record("ntfy") {
        return Some(ChannelKind::Ntfy { url: ntfy.text("url")?.to_owned(), token_file: file(ntfy, "token_file") });
    }
    if let Some(email) = channel.record("email") {
        return Some(ChannelKind::Email(Box::new(email_config(email, resolve)?)));
    }
    if let Some(webhook) = channel.record("webhook") {
        return Some(ChannelKind::Webhook {
            url: webhook.text("url")?.to_owned(),
            secret_file: file(webhook, "secret_file")?,
            ca_file: file(webhook, "ca_file"),
        });
    }
    if let Some(manager) = channel.record("alertmanager") {
        return Some(ChannelKind::Alertmanager {
            url: manager.text("url")?.to_owned(),
            token_file: file(manager, "token_file"),
            ca_file: file(manager, "ca_file"),
        });
    }
    let exec = channel.record("exec")?;
    let mut command = exec.texts("command");
    // A program given by a path lies where the configuration says, like every file it names.
    if let Some(program) = command.first_mut().filter(|program| program.contains('/')) {
        *program = resolve(program).display().to_string();
    }
    Some(ChannelKind::Exec { command, timeout: exec.duration("timeout")?.duration() })
}

fn email_config(email: &Record, resolve: &dyn Fn(&str) -> PathBuf) -> Option<EmailConfig> {
    let (tls, usual) = match email.text("tls")? {
        "starttls" => (EmailTls::StartTls, 587),
        "tls" => (EmailTls::Tls, 465),
        "none" => (EmailTls::None, 25),
        _ => return None,
    };
    Some(EmailConfig {
        host: email.text("host")?.to_owned(),
        port: email.number("port").and_then(|port| u16::try_from(port).ok()).unwrap_or(usual),
        tls,
        login: email.text("username").map(str::to_owned).zip(email.text("password_file").map(resolve)),
        from: email.text("from")?.to_owned(),
        to: email.texts("to"),
        ca_file: email.text("ca_file").map(resolve),
    })
}
