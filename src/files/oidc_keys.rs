//! `api.oidc`: who signs in to the dashboard with a provider of identities (OpenID Connect), and what they may do.

use std::path::PathBuf;
use std::time::Duration;

use super::forms;
use super::keys::{Default, Form, Key, Kind, Problem, Table};
use super::reader::Reader;
use super::record::{Entry, Record};
use crate::domain::manifest::Millis;
use crate::domain::{AllowRule, AppPattern, Scope, Verb};

/// A session lasts so long unless the file says otherwise.
const SESSION: Millis = Millis::seconds(12 * 3600);
const SHORTEST_SESSION: Millis = Millis::seconds(60);
const LONGEST_SESSION: Millis = Millis::seconds(7 * 24 * 3600);
const MAX_RULES: usize = 100;
const MAX_PATTERNS: usize = 200;
const MAX_SCOPES: usize = 20;
/// Where the provider sends browsers back to, behind `api.public_url`.
const CALLBACK: &str = "/login/oidc/callback";

/// The provider, and whom it lets in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OidcConfig {
    /// What the provider calls itself; `/.well-known/openid-configuration` is read below it.
    pub issuer: String,
    /// What the provider calls this agent.
    pub client_id: String,
    /// The file with the secret of this agent at the provider; none for a public client.
    pub client_secret_file: Option<PathBuf>,
    /// Authorities that the provider's certificate is checked against, instead of the machine's.
    pub ca_file: Option<PathBuf>,
    /// What the button says.
    pub name: String,
    /// What is asked for, besides `openid`.
    pub scopes: Vec<String>,
    /// Where the provider sends browsers back to.
    pub redirect_url: String,
    /// A browser stays signed in so long.
    pub session: Duration,
    /// Who may do what; the first that matches.
    pub allow: Vec<AllowRule>,
}

static ISSUER: Form = Form { what: "a URL", pattern: "^https?://", check: issuer };
static CLAIM: Form = Form { what: "the name of a claim", pattern: "", check: forms::LINE.check };
static SCOPE: Form = Form { what: "a word", pattern: r"^\S+$", check: scope };
static APPS: Form = Form { what: "apps like `shop-*` or `prod/*`", pattern: "^[a-z0-9*/-]+$", check: apps };

static ALLOW: Table = Table {
    what: "a rule of who may sign in",
    place: "api.oidc.allow[]",
    keys: &[
        Key {
            name: "when",
            kind: Kind::Map(&CLAIM, &Kind::List(&Kind::Text(&forms::LINE), MAX_PATTERNS)),
            default: Default::Required,
            doc: "Claims of the ID token, each with values of which one must be there; `*` in a value stands for any characters. All claims must fit. `email` counts only with `email_verified: true`; `a.b` is `b` in the object `a`.",
        },
        Key {
            name: "verbs",
            kind: Kind::List(&Kind::Choice { now: &["read", "call", "deploy", "admin"], later: &[] }, 4),
            default: Default::Required,
            doc: "What they may do, as in the scope of a token.",
        },
        Key {
            name: "apps",
            kind: Kind::List(&Kind::Text(&APPS), MAX_PATTERNS),
            default: Default::Empty,
            doc: "To which apps, as in the scope of a token; none named is the whole agent.",
        },
    ],
};

/// `api.oidc`.
pub(super) static OIDC: Table = Table {
    what: "the sign-in with OpenID Connect",
    place: "api.oidc",
    keys: &[
        Key {
            name: "issuer",
            kind: Kind::Text(&ISSUER),
            default: Default::Required,
            doc: "The provider as it calls itself, such as `https://sso.example.com/realms/acme`; https, but on the loopback.",
        },
        Key {
            name: "client_id",
            kind: Kind::Text(&forms::LINE),
            default: Default::Required,
            doc: "What the provider calls this agent.",
        },
        Key {
            name: "client_secret_file",
            kind: Kind::Text(&forms::FILE_PATH),
            default: Default::Nothing("a public client: PKCE alone"),
            doc: "A file with the client's secret; read for each sign-in.",
        },
        Key {
            name: "ca_file",
            kind: Kind::Text(&forms::FILE_PATH),
            default: Default::Nothing("the authorities this machine trusts"),
            doc: "Certificates (PEM) of the authorities to trust for the provider, instead of the machine's.",
        },
        Key {
            name: "name",
            kind: Kind::Text(&forms::LINE),
            default: Default::Text("OpenID Connect"),
            doc: "What the button says: `Sign in with NAME`.",
        },
        Key {
            name: "scopes",
            kind: Kind::List(&Kind::Text(&SCOPE), MAX_SCOPES),
            default: Default::Text("email"),
            doc: "Scopes to ask the provider for, besides `openid`.",
        },
        Key {
            name: "session",
            kind: Kind::Duration(SHORTEST_SESSION, LONGEST_SESSION),
            default: Default::Duration(SESSION),
            doc: "A browser stays signed in so long.",
        },
        Key {
            name: "allow",
            kind: Kind::Tables(&ALLOW, MAX_RULES),
            default: Default::Required,
            doc: "Who may do what: the first rule that fits decides, and whoever fits none is not let in.",
        },
    ],
};

/// `api.oidc` of the table of the API.
pub(super) const KEY: Key = Key {
    name: "oidc",
    kind: Kind::Table(&OIDC),
    default: Default::Nothing("people sign in with tokens only"),
    doc: "People may sign in to the dashboard with an OpenID Connect provider; needs `public_url`; see access.md.",
};

/// What no key can know for itself.
pub(super) fn check(reader: &mut Reader<'_>, config: &Record) {
    let Some(api) = config.record("api") else { return };
    let Some(oidc) = api.record("oidc") else { return };
    if api.text("public_url").is_none() {
        reader.error(
            &oidc.place,
            "api.oidc",
            "`api.oidc` needs `api.public_url`: the provider sends browsers back there",
            Some("write for example `public_url: https://deploy.example.com` beside `oidc`"),
        );
    }
    for (index, entry) in oidc.list("allow").iter().enumerate() {
        let Some(rule) = entry.record() else { continue };
        let path = format!("api.oidc.allow[{index}]");
        let no_value = rule.map("when").iter().any(|(_, _, entry)| values(entry).is_empty());
        if given(rule, "when") && (rule.map("when").is_empty() || no_value) {
            let hint = Some("write for example `when: {groups: [ops]}`, or `when: {sub: [\"*\"]}` for everybody");
            reader.error(&rule.place, &path, format!("`{path}.when` names no claim, or a claim without values"), hint);
        }
        if given(rule, "verbs") && rule.list("verbs").is_empty() {
            let hint = Some("choose from read, call, deploy, admin");
            reader.error(&rule.place, &path, format!("`{path}.verbs` is empty"), hint);
        }
    }
}

fn given(rule: &Record, key: &str) -> bool {
    rule.entry(key).is_some_and(|entry| entry.given)
}

/// The sign-in, `Some(None)` without one.
pub(super) fn build(api: &Record, resolve: &dyn Fn(&str) -> PathBuf) -> Option<Option<OidcConfig>> {
    let Some(oidc) = api.record("oidc") else { return Some(None) };
    Some(Some(OidcConfig {
        issuer: oidc.text("issuer")?.to_owned(),
        client_id: oidc.text("client_id")?.to_owned(),
        client_secret_file: oidc.text("client_secret_file").map(resolve),
        ca_file: oidc.text("ca_file").map(resolve),
        name: oidc.text("name")?.to_owned(),
        scopes: oidc.texts("scopes"),
        redirect_url: format!("{}{CALLBACK}", api.text("public_url")?),
        session: oidc.duration("session")?.duration(),
        allow: oidc.list("allow").iter().map(|entry| rule(entry.record()?)).collect::<Option<_>>()?,
    }))
}

fn rule(rule: &Record) -> Option<AllowRule> {
    let mut verbs: Vec<Verb> = rule.texts("verbs").iter().map(|verb| verb.parse().ok()).collect::<Option<_>>()?;
    verbs.sort_unstable();
    verbs.dedup();
    let apps: Vec<AppPattern> = rule.texts("apps").iter().map(|apps| apps.parse().ok()).collect::<Option<_>>()?;
    let when = rule.map("when").iter().map(|(name, _, entry)| (name.clone(), values(entry))).collect();
    Some(AllowRule { when, scope: Scope { verbs, apps } })
}

fn values(entry: &Entry) -> Vec<String> {
    match &entry.value {
        super::record::Value::List(items) => items.iter().filter_map(Entry::text).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

/// Kept as it is written, with or without a slash at its end: it is compared with what the provider calls itself.
fn issuer(text: &str) -> Result<String, Problem> {
    (forms::WEB_URL.check)(text)?;
    match is_protected(text) {
        true => Ok(text.to_owned()),
        false => Err(Problem::hinted(
            format!("`{text}` could be read and changed on its way"),
            "use https://; plain http is for the loopback only",
        )),
    }
}

/// Whether what is asked there stays between the two: https, or this machine's loopback.
pub fn is_protected(url: &str) -> bool {
    let Ok(uri) = url.parse::<http::Uri>() else { return false };
    let host = uri.host().unwrap_or_default();
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    let is_loopback = host == "localhost" || address.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    match uri.scheme_str() {
        Some("https") => !host.is_empty(),
        Some("http") => is_loopback,
        Some(_) | None => false,
    }
}

fn scope(text: &str) -> Result<String, Problem> {
    let text = (forms::LINE.check)(text)?;
    match text.contains(char::is_whitespace) {
        true => Err(Problem::hinted("a scope is one word", "write a list: `[email, groups]`")),
        false => Ok(text),
    }
}

fn apps(text: &str) -> Result<String, Problem> {
    text.parse::<AppPattern>().map(String::from).map_err(Problem::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<OidcConfig>, String> {
        let read = crate::files::read_config("/etc/landfall.yaml".as_ref(), text, &mut std::iter::empty());
        read.map(|config| config.api.oidc).map_err(|errors| errors.to_string())
    }

    #[test]
    fn a_provider_is_read_with_its_rules() {
        let text = "api:\n  public_url: https://deploy.example.com\n  oidc:\n    issuer: https://sso.example.com/\n    client_id: landfall\n    client_secret_file: oidc\n    allow:\n      - when: {email: ['*@example.com'], groups: [ops, dev]}\n        verbs: [deploy, read, read]\n        apps: ['prod/*']\n";
        let oidc = read(text).unwrap().unwrap();
        assert_eq!(
            (oidc.issuer.as_str(), oidc.scopes.as_slice()),
            ("https://sso.example.com/", &["email".to_owned()][..])
        );
        assert_eq!(oidc.redirect_url, "https://deploy.example.com/login/oidc/callback");
        assert_eq!(oidc.client_secret_file, Some("/etc/oidc".into()));
        assert_eq!(oidc.allow[0].scope.to_string(), "read,deploy on prod/*");
        assert_eq!(oidc.allow[0].when.len(), 2);
        assert_eq!(read("{}").unwrap(), None);
    }

    #[test]
    fn what_would_let_in_too_many_or_nobody_is_refused_with_a_mend() {
        let with = |key: &str, value: &str, public: bool| {
            let mut keys = vec![
                ("issuer", "https://sso.example.com"),
                ("client_id", "landfall"),
                ("allow", "[{when: {sub: ['*']}, verbs: [read]}]"),
            ];
            keys.retain(|(name, _)| *name != key);
            keys.push((key, value));
            let keys: String = keys.iter().map(|(name, value)| format!("    {name}: {value}\n")).collect();
            let public = if public { "  public_url: https://d.example.com\n" } else { "" };
            read(&format!("api:\n{public}  oidc:\n{keys}")).unwrap_err()
        };
        let table = [
            ("issuer", "http://sso.example.com", true, "plain http is for the loopback only"),
            ("name", "Acme", false, "needs `api.public_url`"),
            ("allow", "[{when: {}, verbs: [read]}]", true, "names no claim"),
            ("allow", "[{when: {groups: []}, verbs: [read]}]", true, "names no claim, or a claim without values"),
            ("allow", "[{when: {sub: ['*']}, verbs: []}]", true, "`api.oidc.allow[0].verbs` is empty"),
            ("allow", "[{when: {sub: ['*']}, verbs: [write]}]", true, "write"),
            ("allow", "[{when: {sub: ['*']}, verbs: [read], apps: ['a b']}]", true, "names no apps"),
            ("scopes", "['email groups']", true, "a scope is one word"),
        ];
        for (key, value, public, wanted) in table {
            let errors = with(key, value, public);
            assert!(errors.contains(wanted), "{key}: {value}\n{errors}");
        }
    }

    #[test]
    fn only_https_and_the_loopback_are_protected() {
        for good in ["https://a.example.com", "http://localhost:8080/x", "http://127.0.0.1", "http://[::1]:1/"] {
            assert!(is_protected(good), "{good}");
        }
        for bad in [
            "http://a.example.com",
            "http://localhost.example.com",
            "http://127.0.0.1.example.com",
            "ftp://localhost",
            "x",
        ] {
            assert!(!is_protected(bad), "{bad}");
        }
    }
}
