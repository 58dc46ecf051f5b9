//! `docker`: keys, checks and values of where containers run and how images are fetched.

use std::path::PathBuf;

use super::git::{HostCredentials, credentials};
use super::git_keys::{PASSWORD_COMMAND, PASSWORD_ENV, PASSWORD_FILE};
use super::keys::{Default, Form, Key, Kind, Problem, Table};
use super::reader::Reader;
use super::record::Record;
use super::{forms, git};
use crate::domain::Builder;
use crate::tls::PairFiles;

/// Most registries with a login.
const MAX_REGISTRIES: usize = 64;

/// Where containers run, and how images are fetched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DockerConfig {
    /// The engine: `unix:///run/docker.sock` or `tcp://127.0.0.1:2375`; `None` for the one that is found.
    pub socket: Option<String>,
    /// How an engine at a TCP address is spoken to.
    pub tls: Option<DockerTls>,
    /// Whether plain text to another machine is meant.
    pub insecure: bool,
    /// The network that containers join; `None` for the engine's default.
    pub network: Option<String>,
    /// What of the engine builds images.
    pub builder: Builder,
    /// Logins of registries.
    pub registries: Vec<HostCredentials>,
}

/// TLS to an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerTls {
    /// The authority of the engine's certificate.
    pub ca_file: PathBuf,
    /// The certificate that is shown to the engine, with its key.
    pub own: Option<PairFiles>,
}

static SOCKET: Form = Form { what: "a socket", pattern: "^(unix://|tcp://|/).+$", check: socket };

static NETWORK: Form = Form { what: "the name of a network", pattern: "^[A-Za-z0-9][A-Za-z0-9_.-]*$", check: network };

pub(super) static DOCKER: Table = Table {
    what: "the container engine",
    place: "docker",
    keys: &[
        Key {
            name: "socket",
            kind: Kind::Text(&SOCKET),
            default: Default::Nothing("`DOCKER_HOST`, /var/run/docker.sock, or Podman's of the agent's user"),
            doc: "The engine: a path, `unix:///path` or `tcp://127.0.0.1:2375`. Whoever may use it is root on the machine.",
        },
        Key {
            name: "tls",
            kind: Kind::Table(&TLS),
            default: Default::Nothing("no TLS"),
            doc: "TLS to an engine at a `tcp://` address.",
        },
        Key {
            name: "insecure",
            kind: Kind::Bool,
            default: Default::Bool(false),
            doc: "Whether an engine on another machine is spoken to without TLS: whoever is on the way then has that machine.",
        },
        Key {
            name: "network",
            kind: Kind::Text(&NETWORK),
            default: Default::Nothing("the engine's default network"),
            doc: "A network of the engine that all containers join; it must exist.",
        },
        Key {
            name: "builder",
            kind: Kind::Choice { now: &["auto", "buildkit", "classic"], later: &[] },
            default: Default::Text("auto"),
            doc: "What of the engine builds images: `auto` is BuildKit where the engine has it (Docker 18.09 and newer), otherwise its classic builder.",
        },
        Key {
            name: "registries",
            kind: Kind::Tables(&REGISTRY, MAX_REGISTRIES),
            default: Default::Empty,
            doc: "Logins for registries, each asked for when an image is fetched from it.",
        },
    ],
};

static TLS: Table = Table {
    what: "TLS to an engine",
    place: "docker.tls",
    keys: &[
        Key {
            name: "ca_file",
            kind: Kind::Text(&forms::FILE_PATH),
            default: Default::Required,
            doc: "The authority that the engine's certificate must be of, in PEM; no other is trusted.",
        },
        Key {
            name: "certificate_file",
            kind: Kind::Text(&forms::FILE_PATH),
            default: Default::Nothing("none is shown"),
            doc: "The certificate that is shown to the engine, in PEM.",
        },
        Key {
            name: "key_file",
            kind: Kind::Text(&forms::FILE_PATH),
            default: Default::Nothing("in `certificate_file`"),
            doc: "Its private key in PEM, without a passphrase.",
        },
    ],
};

static REGISTRY: Table = Table {
    what: "the login of a registry",
    place: "docker.registries[]",
    keys: &[
        Key {
            name: "host",
            kind: Kind::Text(&forms::HOST_AND_PORT),
            default: Default::Required,
            doc: "The registry as images name it, `ghcr.io` or `registry.example.com:5000`; `docker.io` for Docker Hub.",
        },
        Key { name: "username", kind: Kind::Text(&forms::LOGIN), default: Default::Required, doc: "The user." },
        PASSWORD_FILE,
        PASSWORD_ENV,
        PASSWORD_COMMAND,
    ],
};

fn socket(text: &str) -> Result<String, Problem> {
    let hint = "write /run/docker.sock, unix:///run/user/1000/podman/podman.sock or tcp://127.0.0.1:2375";
    if text.contains(char::is_whitespace) {
        return Err(Problem::hinted("must not contain spaces", hint));
    }
    if text.starts_with('/') {
        return Ok(format!("unix://{text}"));
    }
    if text.strip_prefix("unix://").is_some_and(|path| path.starts_with('/')) {
        return Ok(text.to_owned());
    }
    match text.strip_prefix("tcp://").and_then(|rest| rest.trim_end_matches('/').rsplit_once(':')) {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
            Ok(text.trim_end_matches('/').to_owned())
        }
        Some(_) | None => Err(Problem::hinted(format!("`{text}` is not the address of an engine"), hint)),
    }
}

fn network(text: &str) -> Result<String, Problem> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    match text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric()) && text.bytes().all(plain) {
        true => Ok(text.to_owned()),
        false => Err(Problem::hinted(
            format!("`{text}` is not the name of a network"),
            "`docker network ls` shows those that there are",
        )),
    }
}

/// What no key can know for itself.
pub(super) fn check(reader: &mut Reader<'_>, config: &Record) {
    let Some(docker) = config.record("docker") else { return };
    if let Some(tls) = docker.record("tls") {
        if docker.text("socket").is_none_or(|socket| !socket.starts_with("tcp://")) {
            let hint = "write `socket: tcp://engine.example.com:2376`, or remove it";
            reader.error(&tls.place, "docker.tls", "`docker.tls` is for an engine at a `tcp://` address", Some(hint));
        }
        if tls.text("key_file").is_some() && tls.text("certificate_file").is_none() {
            let message = "`docker.tls.key_file` has no certificate";
            reader.error(&tls.place, "docker.tls.key_file", message, Some("name `certificate_file` as well"));
        }
    }
    let mut hosts: Vec<&str> = Vec::new();
    for (index, entry) in docker.list("registries").iter().enumerate() {
        let Some(registry) = entry.record() else { continue };
        let path = format!("docker.registries[{index}]");
        git::check_password(reader, registry, &path);
        if let Some(host) = registry.text("host") {
            if hosts.contains(&host) {
                let message = format!("`{host}` has two logins");
                reader.error(&registry.place, &path, message, Some("remove one of them"));
            }
            hosts.push(host);
        }
    }
}

/// The settings from a record without mistakes.
pub(super) fn build(config: &Record, resolve: &dyn Fn(&str) -> PathBuf) -> Option<DockerConfig> {
    let docker = config.record("docker")?;
    let registry = |record: &Record| {
        Some(HostCredentials { host: record.text("host")?.to_owned(), credentials: credentials(record, resolve)? })
    };
    let tls = |record: &Record| {
        let certificate = record.text("certificate_file").map(resolve);
        let key = record.text("key_file").map(resolve).or_else(|| certificate.clone());
        let own = certificate.zip(key).map(|(certificate, key)| PairFiles { certificate, key });
        Some(DockerTls { ca_file: resolve(record.text("ca_file")?), own })
    };
    Some(DockerConfig {
        tls: docker.record("tls").and_then(tls),
        insecure: docker.bool("insecure")?,
        socket: docker.text("socket").map(str::to_owned),
        network: docker.text("network").map(str::to_owned),
        builder: match docker.text("builder")? {
            "buildkit" => Builder::Buildkit,
            "classic" => Builder::Classic,
            _ => Builder::Auto,
        },
        registries: docker.list("registries").iter().map(|entry| registry(entry.record()?)).collect::<Option<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::config::{PasswordFrom, read_config};

    fn read(text: &str) -> Result<DockerConfig, String> {
        let file = std::path::Path::new("/etc/landfall/landfall.yaml");
        read_config(file, text, &mut std::iter::empty())
            .map(|config| config.docker)
            .map_err(|errors| errors.to_string())
    }

    #[test]
    fn every_key_reaches_the_configuration() {
        let text = "docker: {socket: /run/d.sock, network: apps, builder: classic, registries: [{host: ghcr.io, username: bot, password_file: token}]}";
        let docker = read(text).expect("reads");
        assert_eq!(docker.socket.as_deref(), Some("unix:///run/d.sock"));
        assert_eq!(docker.network.as_deref(), Some("apps"));
        assert_eq!(docker.builder, Builder::Classic);
        let login = docker.registries.first().expect("one");
        assert_eq!((login.host.as_str(), login.credentials.username.as_str()), ("ghcr.io", "bot"));
        assert_eq!(login.credentials.password, PasswordFrom::File("/etc/landfall/token".into()));
        assert_eq!(read("{}").expect("reads"), DockerConfig::default());
        let text = "docker: {socket: 'tcp://a:2376', tls: {ca_file: ca.pem, certificate_file: own.pem}}";
        let own = PairFiles { certificate: "/etc/landfall/own.pem".into(), key: "/etc/landfall/own.pem".into() };
        let tls = DockerTls { ca_file: "/etc/landfall/ca.pem".into(), own: Some(own) };
        assert_eq!(read(text).expect("reads").tls, Some(tls));
    }

    #[test]
    fn mistakes_are_told_with_their_mend() {
        let registry = "host: ghcr.io, username: bot";
        for (text, words) in [
            ("docker: {socket: docker}".to_owned(), "not the address of an engine"),
            ("docker: {socket: 'tcp://x'}".to_owned(), "not the address of an engine"),
            ("docker: {tls: {ca_file: ca.pem}}".to_owned(), "for an engine at a `tcp://` address"),
            ("docker: {socket: 'tcp://a:2376', tls: {ca_file: a, key_file: b}}".to_owned(), "has no certificate"),
            ("docker: {network: '-x'}".to_owned(), "not the name of a network"),
            (format!("docker: {{registries: [{{{registry}}}]}}"), "password_file"),
            (
                format!("docker: {{registries: [{{{registry}, password_env: A}}, {{{registry}, password_env: A}}]}}"),
                "`ghcr.io` has two logins",
            ),
        ] {
            let errors = read(&text).expect_err("refused");
            assert!(errors.contains(words), "{text}\n{errors}");
        }
    }
}
