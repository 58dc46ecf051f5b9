//! The forms of text that both files know: names, hosts, paths, variables, addresses.
//!
//! Each form checks a text and returns its normal form; an error says what to write.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use super::keys::{Form, Problem};
use super::ssh_url::{self, SshAddress};
use crate::domain::{AppName, CommitId, EnvironmentName, ObjectName, SecretName, SourceName};

/// Longest host name, as DNS has it.
const MAX_HOST: usize = 253;
/// Longest label of a host name, as DNS has it.
const MAX_LABEL: usize = 63;
/// Longest path, URL or similar text.
const MAX_LINE: usize = 4096;
/// What every name looks like.
const NAME: &str = "^[a-z][a-z0-9-]{0,39}$";

/// An app's name.
pub static APP_NAME: Form = Form { what: "a name", pattern: NAME, check: name::<AppName> };
/// An environment's name.
pub static ENVIRONMENT_NAME: Form = Form { what: "a name", pattern: NAME, check: name::<EnvironmentName> };
/// A source's name.
pub static SOURCE_NAME: Form = Form { what: "a name", pattern: NAME, check: name::<SourceName> };
/// The name of a web endpoint or worker.
pub static OBJECT_NAME: Form = Form { what: "a name", pattern: NAME, check: object_name };
/// A function in a file.
pub static HANDLER: Form = Form {
    what: "a file and a function in it like `app.py:resize`",
    pattern: r"^[^/:][^:]*\.(py|mjs|cjs|js):[A-Za-z_$][A-Za-z0-9_$]*$",
    check: handler,
};
/// The name of a volume.
pub static VOLUME_NAME: Form = Form { what: "a name", pattern: NAME, check: name::<ObjectName> };
/// The name of a secret.
pub static SECRET_NAME: Form = Form { what: "the name of a secret", pattern: NAME, check: name::<SecretName> };
/// The name of an environment variable.
pub static VARIABLE_NAME: Form =
    Form { what: "the name of a variable", pattern: "^[A-Za-z_][A-Za-z0-9_]*$", check: variable_name };
/// A host name or a one-level wildcard.
pub static HOST: Form = Form { what: "a host name", pattern: r"^(\*\.)?[A-Za-z0-9.-]+$", check: host };
/// A domain that the names of apps are put before.
pub static DOMAIN: Form = Form { what: "a domain", pattern: r"^[A-Za-z0-9.-]+$", check: domain };
/// The path of a URL.
pub static URL_PATH: Form = Form { what: "a path", pattern: "^[^?#]*$", check: url_path };
/// The path and query of a probe.
pub static PROBE_PATH: Form = Form { what: "a path", pattern: "^[^#]*$", check: probe_path };
/// A directory of the source, relative to the app's.
pub static INCLUDE: Form = Form { what: "a relative directory", pattern: "^[^/].*$", check: include };
/// A directory within a repository.
pub static REPOSITORY_PATH: Form = Form { what: "a directory of the repository", pattern: "", check: repository_path };
/// Where an app expects a volume.
pub static VOLUME_PATH: Form = Form { what: "a path", pattern: "", check: volume_path };
/// A path of the file system.
pub static FILE_PATH: Form = Form { what: "a path", pattern: "", check: line };
/// The URL or path of a repository.
pub static GIT_URL: Form = Form { what: "the URL or path of a repository", pattern: "", check: git_url };
/// The address of a web API that gets a token.
pub static API_URL: Form = Form { what: "the URL of an API", pattern: "^https?://", check: api_url };
/// The address of web pages.
pub static WEB_URL: Form = Form { what: "a URL", pattern: "^https?://", check: web_url };
/// A repository as its forge names it.
pub static FORGE_REPOSITORY: Form = Form {
    what: "a repository like owner/name",
    pattern: "^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)+$",
    check: forge_repository,
};
/// What an agent is called.
pub static AGENT_NAME: Form = Form { what: "a name", pattern: "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$", check: agent_name };
/// A branch or tag.
pub static GIT_REF: Form = Form { what: "the name of a branch or tag", pattern: "", check: git_ref };
/// Anything a repository has a name for.
pub static ANY_REF: Form = Form { what: "a branch, tag, `refs/…` or commit", pattern: "", check: any_ref };
/// A range of versions.
pub static SEMVER_RANGE: Form = Form { what: "a range of versions like `>=1.2, <2`", pattern: "", check: semver_range };
/// A host, with a port or without.
pub static HOST_AND_PORT: Form =
    Form { what: "a host, with a port or without", pattern: r"^[A-Za-z0-9.\-\[\]:]+$", check: host_and_port };
/// A variable of the agent's own environment.
pub static OWN_VARIABLE: Form =
    Form { what: "the name of a variable", pattern: "^[A-Za-z_][A-Za-z0-9_]*$", check: own_variable };
/// One line of text.
pub static LINE: Form = Form { what: "a line of text", pattern: "", check: line };
/// The name to log in with.
pub static LOGIN: Form = Form { what: "a user name", pattern: "^[^:]+$", check: login };
/// A commit.
pub static COMMIT: Form = Form { what: "a full commit hash", pattern: "^([0-9a-f]{40}|[0-9a-f]{64})$", check: commit };
/// Address and port.
pub static ADDRESS: Form = Form { what: "an address and port", pattern: "^.+:[0-9]{1,5}$", check: address };
/// A network.
pub static NETWORK: Form =
    Form { what: "a network like 10.0.0.0/8", pattern: "^[0-9A-Fa-f.:]+(/[0-9]{1,3})?$", check: network };
/// A user of this machine.
pub static USER: Form = Form { what: "the name of a user", pattern: "", check: user };

fn name<T: FromStr<Err = crate::domain::NameError>>(text: &str) -> Result<String, Problem> {
    T::from_str(text).map(|_| text.to_owned()).map_err(|error| {
        Problem::hinted(error.to_string(), "a-z, 0-9 and -, the first a letter, at most 40 characters")
    })
}

fn object_name(text: &str) -> Result<String, Problem> {
    if text == "build" {
        return Err(Problem::hinted("`build` is taken, logs of builds carry this name", "choose another name"));
    }
    name::<ObjectName>(text)
}

fn variable_name(text: &str) -> Result<String, Problem> {
    let mut bytes = text.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    if !first || !bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err(Problem::hinted("this is not the name of a variable", "letters, digits and _, the first no digit"));
    }
    if matches!(text, "PORT" | "HOST") || text.starts_with("LANDFALL_") {
        let message = format!("`{text}` is set by Landfall for each instance");
        return Err(Problem::hinted(message, "remove it; read it in the app, or choose another name"));
    }
    Ok(text.to_owned())
}

fn domain(text: &str) -> Result<String, Problem> {
    let text = text.to_ascii_lowercase();
    if text.contains("://") {
        return Err(Problem::new("without a scheme: write example.com"));
    }
    if text.contains(':') && text.parse::<IpAddr>().is_err() {
        return Err(Problem::new("without a port: the proxy's `listen` names it"));
    }
    if text.contains('/') {
        return Err(Problem::new("without a path: an endpoint's `path` names it"));
    }
    if text.is_empty() || text.len() > MAX_HOST {
        return Err(Problem::new(format!("a host name has 1 to {MAX_HOST} characters")));
    }
    match text.split('.').find(|label| !is_label(label)) {
        None => Ok(text),
        Some("") => Err(Problem::new(format!("`{text}` has an empty part between its dots"))),
        Some(label) => {
            let hint = format!(
                "a part has 1 to {MAX_LABEL} of a-z, 0-9 and -, no - at its ends; write other scripts as xn--…"
            );
            Err(Problem::hinted(format!("`{label}` cannot be part of a host name"), hint))
        }
    }
}

fn is_label(label: &str) -> bool {
    (1..=MAX_LABEL).contains(&label.len())
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

fn host(text: &str) -> Result<String, Problem> {
    let Some(parent) = text.strip_prefix("*.") else {
        if text.contains('*') {
            return Err(Problem::new("`*` may only be the whole first part, like *.example.com"));
        }
        return domain(text);
    };
    let parent = domain(parent)?;
    if !parent.contains('.') {
        return Err(Problem::new(format!("`*.{parent}` is too wide, write at least *.example.com")));
    }
    Ok(format!("*.{parent}"))
}

fn line(text: &str) -> Result<String, Problem> {
    if text.is_empty() {
        return Err(Problem::new("must not be empty"));
    }
    if text.len() > MAX_LINE {
        return Err(Problem::new(format!("longer than {MAX_LINE} bytes")));
    }
    if text.chars().any(char::is_control) {
        return Err(Problem::new("contains a control character"));
    }
    Ok(text.to_owned())
}

/// `/api/v1`: leading slash, no trailing one, nothing that a client could write in two ways.
fn url_path(text: &str) -> Result<String, Problem> {
    let text = line(text)?;
    if text.contains(['?', '#']) {
        return Err(Problem::new("without query and fragment: write the part before `?` and `#`"));
    }
    if text.contains("://") {
        return Err(Problem::hinted("without scheme and host: write the part after the host", "`hosts` names hosts"));
    }
    if text.contains(char::is_whitespace) || text.contains(['\\', '*']) {
        return Err(Problem::new("must not contain spaces, `\\` or `*`; a path is a prefix by itself"));
    }
    let segments: Vec<_> = text.split('/').filter(|segment| !segment.is_empty()).collect();
    if segments.iter().any(|segment| matches!(*segment, "." | "..")) {
        return Err(Problem::new("must not contain `.` or `..`"));
    }
    Ok(format!("/{}", segments.join("/")))
}

/// The path of a probe is sent as it is, a trailing slash included.
fn probe_path(text: &str) -> Result<String, Problem> {
    let text = line(text)?;
    if !text.starts_with('/') {
        return Err(Problem::new(format!("must start with `/`: write `/{}`", text.trim_start_matches("./"))));
    }
    if text.contains('#') || text.contains(char::is_whitespace) || !text.is_ascii() {
        return Err(Problem::hinted(
            "must be the path of a URL, without spaces and `#`",
            "write other characters as %20",
        ));
    }
    Ok(text)
}

fn include(text: &str) -> Result<String, Problem> {
    let text = line(text)?;
    if text.starts_with('/') || text.starts_with('~') {
        return Err(Problem::hinted("must be relative to the app's directory", "write it like ../common"));
    }
    let clean = clean_relative(&text, true)?;
    if clean.is_empty() {
        return Err(Problem::new("the app's own directory always belongs to it, remove this"));
    }
    Ok(clean)
}

/// `./lib/app.py:resize` → `lib/app.py:resize`: the file relative to the app's directory, and within it.
fn handler(text: &str) -> Result<String, Problem> {
    let text = line(text)?;
    let example = "write the file, a colon and the function's name, like app.py:resize";
    let Some((file, name)) = text.rsplit_once(':') else {
        return Err(Problem::hinted(format!("`{text}` names no function"), example));
    };
    let mut letters = name.chars();
    let first = letters.next().is_some_and(|c| c.is_ascii_alphabetic() || "_$".contains(c));
    if !first || !letters.all(|c| c.is_ascii_alphanumeric() || "_$".contains(c)) {
        return Err(Problem::hinted(format!("`{name}` is not the name of a function"), example));
    }
    if !matches!(file.rsplit_once('.').map(|(_, extension)| extension), Some("py" | "mjs" | "cjs" | "js")) {
        let hint = "files of handlers end in .py, .mjs, .cjs or .js; other programs are run by `command` and `mode`";
        return Err(Problem::hinted(format!("`{file}` is neither Python nor JavaScript"), hint));
    }
    if file.starts_with('/') {
        return Err(Problem::hinted("the file must lie in the app's directory", "write its path relative to that"));
    }
    let clean = clean_relative(file, false)
        .map_err(|_| Problem::hinted("the file must lie in the app's directory", "`include` brings others in"))?;
    Ok(format!("{clean}:{name}"))
}

fn repository_path(text: &str) -> Result<String, Problem> {
    if text.is_empty() {
        return Ok(String::new());
    }
    let text = line(text)?;
    clean_relative(text.trim_start_matches('/'), false)
}

/// Removes `.` and empty segments and resolves `..` as far as the text itself can.
fn clean_relative(text: &str, climb: bool) -> Result<String, Problem> {
    let mut segments: Vec<&str> = Vec::new();
    for segment in text.split('/') {
        match segment {
            "" | "." => {}
            ".." => match segments.last() {
                Some(&last) if last != ".." => {
                    segments.pop();
                }
                Some(_) | None if climb => segments.push(".."),
                Some(_) | None => return Err(Problem::new("leaves the repository by `..`")),
            },
            _ => segments.push(segment),
        }
    }
    Ok(segments.join("/"))
}

fn volume_path(text: &str) -> Result<String, Problem> {
    let text = line(text)?;
    if !text.starts_with('/') {
        return Err(Problem::new(format!("must start with `/`: write `/{}`", text.trim_start_matches("./"))));
    }
    if text.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err(Problem::new("must not contain `.` or `..`"));
    }
    Ok(text)
}

fn git_url(text: &str) -> Result<String, Problem> {
    let text = line(text)?;
    if let Some((scheme, rest)) = text.split_once("://") {
        return match scheme {
            "https" | "http" | "git" | "file" if !rest.is_empty() => reject_password(text.clone(), rest),
            "ssh" => SshAddress::parse(&text).map(|_| text),
            "https" | "http" | "git" | "file" => Err(Problem::new(format!("`{text}` names no repository"))),
            _ => Err(Problem::hinted(
                format!("`{scheme}://` is not a way to fetch"),
                "https://, http://, ssh://, git://, file:// or a path",
            )),
        };
    }
    // `git@host:path` is what hosting sites show; a path with a colon can be written as file://.
    match ssh_url::is_ssh(&text) {
        true => SshAddress::parse(&text).map(|_| text),
        false => Ok(text),
    }
}

/// Not over plain HTTP, but to this machine itself: a token goes there.
fn api_url(text: &str) -> Result<String, Problem> {
    let text = web_url(text)?;
    let Some(rest) = text.strip_prefix("http://") else { return Ok(text) };
    let authority = rest.split('/').next().unwrap_or_default();
    let local = authority.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_loopback())
        || authority.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        || matches!(authority.split(':').next(), Some("localhost"));
    if local {
        Ok(text)
    } else {
        Err(Problem::new("over http:// everybody on the way could read the token: write https://"))
    }
}

fn web_url(text: &str) -> Result<String, Problem> {
    let text = line(text)?;
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let Some(rest) = rest.filter(|rest| !rest.is_empty() && !rest.starts_with('/')) else {
        return Err(Problem::hinted(format!("`{text}` is not a URL"), "write https://host or https://host/path"));
    };
    if rest.contains(['?', '#']) || rest.contains(char::is_whitespace) {
        return Err(Problem::new("without query, fragment and spaces: write the part before `?` and `#`"));
    }
    reject_password(text.trim_end_matches('/').to_owned(), rest)
}

fn forge_repository(text: &str) -> Result<String, Problem> {
    let parts: Vec<&str> = text.split('/').collect();
    let plain = |part: &&str| {
        !matches!(*part, "" | "." | "..") && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
    };
    match parts.len() >= 2 && text.len() <= MAX_LINE && parts.iter().all(plain) {
        true => Ok(text.to_owned()),
        false => Err(Problem::hinted(format!("`{text}` is not a repository's name"), "write it as owner/name")),
    }
}

fn agent_name(text: &str) -> Result<String, Problem> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    let starts_well = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    match starts_well && text.len() <= MAX_LABEL && text.bytes().all(plain) {
        true => Ok(text.to_owned()),
        false => Err(Problem::hinted(
            format!("`{text}` cannot be an agent's name"),
            "letters, digits, `.`, `_` and `-`, at most 63, the first a letter or digit",
        )),
    }
}

/// A password in a URL would end up in logs and on the dashboard.
fn reject_password(text: String, rest: &str) -> Result<String, Problem> {
    let authority = rest.split('/').next().unwrap_or_default();
    match authority.contains('@') {
        true => Err(Problem::hinted(
            "a URL must not carry a user or password; they would show up in logs",
            "write `credentials: {username: …, password_file: …}` beside `url`",
        )),
        false => Ok(text),
    }
}

/// The rules of `git check-ref-format` that matter for a branch or tag.
fn git_ref(text: &str) -> Result<String, Problem> {
    let text = line(text)?;
    let bare = text.strip_prefix("refs/heads/").or_else(|| text.strip_prefix("refs/tags/")).unwrap_or(&text);
    let bad = bare.is_empty()
        || bare.contains("..")
        || bare.contains("@{")
        || bare.contains(|c: char| c.is_whitespace() || "~^:?*[\\".contains(c))
        || bare.starts_with(['-', '/'])
        || bare.ends_with(['/', '.'])
        || bare.split('/').any(|part| part.is_empty() || part.starts_with('.') || part.ends_with(".lock"));
    if bad { Err(Problem::new(format!("git does not allow `{text}` as a name"))) } else { Ok(bare.to_owned()) }
}

/// A name that may be a branch or a tag is left as it is: what it means is seen in the repository.
fn any_ref(text: &str) -> Result<String, Problem> {
    match text {
        "HEAD" => Ok(text.to_owned()),
        _ => git_ref(text).map(|_| text.to_owned()),
    }
}

fn semver_range(text: &str) -> Result<String, Problem> {
    let text = line(text)?;
    match semver::VersionReq::parse(&text) {
        Ok(_) => Ok(text),
        Err(error) => {
            let hint = "write for example \">=1.2, <2\", \"~1.4\", or \">=2.0.0-0\" to include pre-releases";
            Err(Problem::hinted(format!("`{text}` is not a range of versions: {error}"), hint))
        }
    }
}

fn host_and_port(text: &str) -> Result<String, Problem> {
    let text = line(text)?.to_ascii_lowercase();
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        Some(_) | None => (text.as_str(), None),
    };
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err(Problem::hinted(
            format!("`{text}` has no valid port"),
            "write git.example.com or git.example.com:8443",
        ));
    }
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    if address.parse::<IpAddr>().is_err() {
        domain(name)?;
    }
    Ok(text)
}

fn own_variable(text: &str) -> Result<String, Problem> {
    let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    if first && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Ok(text.to_owned());
    }
    Err(Problem::hinted("this is not the name of a variable", "letters, digits and _, the first no digit"))
}

fn login(text: &str) -> Result<String, Problem> {
    let text = line(text)?;
    // Basic authentication separates name and password by the first colon.
    if text.contains(':') { Err(Problem::new("a user name cannot contain `:`")) } else { Ok(text) }
}

fn commit(text: &str) -> Result<String, Problem> {
    let text = text.to_ascii_lowercase();
    match text.parse::<CommitId>() {
        Ok(_) => Ok(text),
        Err(_) => Err(Problem::hinted(format!("`{text}` is not a full commit hash"), "`git rev-parse HEAD` prints it")),
    }
}

fn address(text: &str) -> Result<String, Problem> {
    let text = text.strip_prefix("localhost:").map_or_else(|| text.to_owned(), |port| format!("127.0.0.1:{port}"));
    match text.parse::<SocketAddr>() {
        Ok(address) => Ok(address.to_string()),
        Err(_) => {
            let hint = "write 127.0.0.1:8080, 0.0.0.0:80 for every address, or [::1]:8080";
            Err(Problem::hinted(format!("`{text}` is not an address with a port"), hint))
        }
    }
}

fn network(text: &str) -> Result<String, Problem> {
    let wrong = || Problem::hinted(format!("`{text}` is not a network"), "write 10.0.0.0/8, 127.0.0.1 or fd00::/8");
    let (ip, length) = text.split_once('/').map_or((text, None), |(ip, length)| (ip, Some(length)));
    let ip: IpAddr = ip.parse().map_err(|_| wrong())?;
    let most = if ip.is_ipv4() { 32 } else { 128 };
    let length: u8 = match length {
        Some(length) => length.parse().map_err(|_| wrong())?,
        None => most,
    };
    if length > most { Err(wrong()) } else { Ok(format!("{ip}/{length}")) }
}

fn user(text: &str) -> Result<String, Problem> {
    let text = line(text)?;
    match text.contains([' ', ':', '/']) {
        true => Err(Problem::new(format!("`{text}` is not the name of a user"))),
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(form: &Form, text: &str) -> String {
        (form.check)(text).unwrap_or_else(|problem| panic!("{text}: {}", problem.message))
    }

    #[test]
    fn hosts_are_lower_cased_and_have_no_port_scheme_or_path() {
        assert_eq!(ok(&HOST, "Pods.Example.COM"), "pods.example.com");
        assert_eq!(ok(&HOST, "*.example.com"), "*.example.com");
        for bad in [
            "",
            "a..b",
            "-a.com",
            "a_b.com",
            "https://a.com",
            "a.com:80",
            "a.com/x",
            "*",
            "*.com",
            "*.*.a.com",
            "a.*.com",
            "a.com.",
            "ü.com",
        ] {
            assert!((HOST.check)(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn url_paths_have_one_form() {
        for (text, path) in [("/", "/"), ("api", "/api"), ("/api/", "/api"), ("//a//b/", "/a/b")] {
            assert_eq!(ok(&URL_PATH, text), path);
        }
        for bad in ["", "/a/../b", "/a?x=1", "/a#b", "http://x/y", "/a b", "/a/*"] {
            assert!((URL_PATH.check)(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn includes_are_relative() {
        assert_eq!(ok(&INCLUDE, "../common/./x/"), "../common/x");
        for bad in ["/etc", "~/x", ".", "a/..", ""] {
            assert!((INCLUDE.check)(bad).is_err(), "{bad}");
        }
        assert_eq!(ok(&REPOSITORY_PATH, "/apps/"), "apps");
        assert!((REPOSITORY_PATH.check)("apps/../..").is_err());
    }

    #[test]
    fn a_handler_is_a_file_of_the_app_and_a_function_in_it() {
        assert_eq!(ok(&HANDLER, "./lib//app.py:resize"), "lib/app.py:resize");
        assert_eq!(ok(&HANDLER, "a.mjs:$x1"), "a.mjs:$x1");
        for bad in ["", "app.py", "app.py:", "app.py:1x", "app.py:a.b", "app.rb:x", "/app.py:x", "../app.py:x"] {
            assert!((HANDLER.check)(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_landfall_sets_cannot_be_set_by_a_manifest() {
        for bad in ["PORT", "HOST", "LANDFALL_APP", "1A", "A-B", ""] {
            assert!((VARIABLE_NAME.check)(bad).is_err(), "{bad}");
        }
        assert_eq!(ok(&VARIABLE_NAME, "LOG_LEVEL"), "LOG_LEVEL");
    }

    #[test]
    fn repositories_are_urls_without_passwords_or_paths() {
        let local = ["file:///srv/x.git", "../x.git", "/srv/a:b"];
        let remote = ["https://git.example.com/a/b.git", "git://h/x", "ssh://git@h:22/x", "git@github.com:a/b.git"];
        for good in local.into_iter().chain(remote) {
            assert_eq!(ok(&GIT_URL, good), good);
        }
        for bad in
            ["", "github.com:a/b", "ssh://h/x", "ssh://git:x@h/x", "ftp://h/x", "https://", "https://bot:secret@h/x"]
        {
            assert!((GIT_URL.check)(bad).is_err(), "{bad}");
        }
        assert!((GIT_REF.check)("release/1.x").is_ok());
        for bad in ["a..b", "-x", "a b", "x.lock", "a//b", "@{x"] {
            assert!((GIT_REF.check)(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_api_listens_on_this_machine_only() {
        assert_eq!(ok(&ADDRESS, "localhost:7171"), "127.0.0.1:7171");
        assert_eq!(ok(&ADDRESS, "[::1]:7171"), "[::1]:7171");
        assert!((ADDRESS.check)("8080").is_err());
        assert_eq!(ok(&NETWORK, "10.0.0.0/8"), "10.0.0.0/8");
        assert_eq!(ok(&NETWORK, "::1"), "::1/128");
        assert!((NETWORK.check)("10.0.0.0/33").is_err());
    }
}
