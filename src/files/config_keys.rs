//! Every key of the agent's configuration, described once.

use super::keys::{Default, Key, Kind, Root, Table};
use super::ssh::SSH;
use super::{
    docker_keys, forms, git_keys, git_trust, heartbeat, notifications, oidc_keys, publish_keys, secrets, tls_keys,
    traces,
};
use crate::domain::manifest::{Bytes, Millis};

/// Defaults of the configuration, each a named constant.
pub mod defaults {
    use super::{Bytes, Millis};

    /// `data_dir`
    pub const DATA_DIR: &str = "./data";
    /// `environment`
    pub const ENVIRONMENT: &str = "main";
    /// `proxy.listen`
    pub const PROXY_LISTEN: &str = "127.0.0.1:8080";
    /// `proxy.domain`
    pub const DOMAIN: &str = "localhost";
    /// `proxy.max_connections`
    pub const MAX_CONNECTIONS: u64 = 10_000;
    /// `proxy.call_wait`
    pub const CALL_WAIT: Millis = Millis::seconds(150);
    /// `api.socket`, in the data directory.
    pub const SOCKET: &str = "landfall.sock";
    /// `api.max_connections`
    pub const API_CONNECTIONS: u64 = 1024;
    /// `api.max_connections_per_address`
    pub const API_CONNECTIONS_PER_ADDRESS: u64 = 256;
    /// `api.requests_per_second`
    pub const API_REQUESTS: u64 = 500;
    /// `limits.deployments`
    pub const DEPLOYMENTS: u64 = 4;
    /// `limits.builds`
    pub const BUILDS: u64 = 1;
    /// `limits.backlog`
    pub const BACKLOG: u64 = 1_000_000;
    /// `retention.versions`
    pub const VERSIONS: u64 = 10;
    /// `retention.stopped_apps`
    pub const STOPPED_APPS: Millis = Millis::seconds(7 * 24 * 60 * 60);
    /// `retention.calls`
    pub const CALLS: Millis = Millis::seconds(7 * 24 * 60 * 60);
    /// `retention.audit`
    pub const AUDIT: Millis = Millis::seconds(400 * 24 * 60 * 60);
    /// `retention.logs`
    pub const LOGS: Bytes = Bytes::mib(1024);
    /// `prune.brake`
    pub const BRAKE: &str = "30%";
    /// `git.poll`
    pub const POLL: Millis = Millis::seconds(60);
    /// `git.timeout`
    pub const GIT_TIMEOUT: Millis = Millis::seconds(60);
    /// `git.credentials.username`: a name that forges accept beside a token.
    pub const USERNAME: &str = "git";
    /// `git.cache_quota`
    pub const CACHE_QUOTA: Bytes = Bytes::mib(2048);
    /// `directory.debounce`
    pub const DEBOUNCE: Millis = Millis(200);
}

/// Most sources of one agent.
const MAX_SOURCES: usize = 1000;
/// Largest number of apps that a brake can let go.
const MAX_BRAKE: u32 = 1_000_000;
/// Most addresses or networks of one list.
const MAX_LIST: usize = 64;
/// Secrets of one source's hooks: the present one, and the one before or after it.
const MAX_SECRETS: usize = 2;
const SECOND: Millis = Millis::seconds(1);
const DAY: Millis = Millis::seconds(24 * 60 * 60);
const YEAR: Millis = Millis::seconds(366 * 24 * 60 * 60);
const TEN_YEARS: Millis = Millis::seconds(3660 * 24 * 60 * 60);
/// The smallest budget for logs under which rotation still works.
const MIN_LOGS: Bytes = Bytes::mib(1);
const MAX_LOGS: Bytes = Bytes(1 << 50);

/// The agent's configuration.
pub static CONFIG: Root =
    Root { title: "Landfall agent configuration", table: &AGENT, later: "the agent does not start with it" };

static AGENT: Table = Table {
    what: "the agent's configuration",
    place: "config/landfall.yaml",
    keys: &[
        Key {
            name: "data_dir",
            kind: Kind::Text(&forms::FILE_PATH),
            default: Default::Text(defaults::DATA_DIR),
            doc: "Everything the agent keeps. Relative paths, here and below, start at the configuration file's directory.",
        },
        Key {
            name: "environment",
            kind: Kind::Text(&forms::ENVIRONMENT_NAME),
            default: Default::Text(defaults::ENVIRONMENT),
            doc: "The environment of apps whose source names none, and of commands that name none.",
        },
        Key {
            name: "agent_name",
            kind: Kind::Text(&forms::AGENT_NAME),
            default: Default::Nothing("the machine's host name"),
            doc: "What this agent is called where it reports to others, such as commit statuses.",
        },
        Key {
            name: "publish_roots",
            kind: Kind::List(&Kind::Text(&publish_keys::PUBLISH_ROOT), MAX_LIST),
            default: Default::Empty,
            doc: "Below these directories apps may publish their trees; see publish.md. As the agent's user: name none that something else lives in.",
        },
        Key {
            name: "sources",
            kind: Kind::Tables(&SOURCE, MAX_SOURCES),
            default: Default::Empty,
            doc: "The git repositories and directories that are watched.",
        },
        Key { name: "proxy", kind: Kind::Table(&PROXY), default: Default::Table, doc: "Web traffic." },
        Key {
            name: "api",
            kind: Kind::Table(&API),
            default: Default::Table,
            doc: "The API that the command line talks to.",
        },
        Key {
            name: "runtime",
            kind: Kind::Choice { now: &["process", "docker"], later: &["kubernetes"] },
            default: Default::Text("process"),
            doc: "`process`: apps without an image run as processes. `docker`: only apps with an image are run, others are refused.",
        },
        Key {
            name: "docker",
            kind: Kind::Table(&docker_keys::DOCKER),
            default: Default::Table,
            doc: "The engine that runs apps in containers; see docker.md.",
        },
        Key { name: "limits", kind: Kind::Table(&LIMITS), default: Default::Table, doc: "How much at once." },
        Key {
            name: "notifications",
            kind: Kind::NamedTables(&forms::SOURCE_NAME, &notifications::CHANNEL),
            default: Default::Empty,
            doc: "Channels that people hear of deployments and failures by; see notifications.md.",
        },
        Key {
            name: "secrets",
            kind: Kind::Table(&secrets::SECRETS),
            default: Default::Table,
            doc: "Where the values of secrets come from; see secrets.md.",
        },
        Key {
            name: "heartbeat",
            kind: Kind::Table(&heartbeat::HEARTBEAT),
            default: Default::Nothing("nobody is told that the agent is alive"),
            doc: "A dead-man's switch of the agent itself; see notifications.md.",
        },
        Key {
            name: "traces",
            kind: Kind::Table(&traces::TRACES),
            default: Default::Nothing("no traces are sent"),
            doc: "Where traces of deployments and calls go; see operations.md.",
        },
        Key {
            name: "retention",
            kind: Kind::Table(&RETENTION),
            default: Default::Table,
            doc: "How long things are kept.",
        },
        Key {
            name: "users",
            kind: Kind::Table(&USERS),
            default: Default::Nothing("everything runs as the user who started the agent"),
            doc: "Unprivileged users, for an agent started as root.",
        },
    ],
};

static SOURCE: Table = Table {
    what: "a source",
    place: "sources[]",
    keys: &[
        Key {
            name: "name",
            kind: Kind::Text(&forms::SOURCE_NAME),
            default: Default::Required,
            doc: "The source's name, unique on this agent.",
        },
        Key {
            name: "git",
            kind: Kind::Table(&GIT),
            default: Default::Nothing("the source is a directory"),
            doc: "A git repository; each source has either `git` or `directory`.",
        },
        Key {
            name: "directory",
            kind: Kind::Table(&DIRECTORY),
            default: Default::Nothing("the source is a repository"),
            doc: "A directory of this machine, watched for changes.",
        },
        Key {
            name: "environment",
            kind: Kind::Text(&forms::ENVIRONMENT_NAME),
            default: Default::Nothing("the agent's environment"),
            doc: "The environment its apps belong to: the same app of two sources may be in two; see environments.md.",
        },
        Key {
            name: "prune",
            kind: Kind::Table(&PRUNE),
            default: Default::Table,
            doc: "What becomes of apps whose manifests are gone.",
        },
    ],
};

static PRUNE: Table = Table {
    what: "the pruning of a source",
    place: "sources[].prune",
    keys: &[Key {
        name: "brake",
        kind: Kind::CountOrPart(MAX_BRAKE),
        default: Default::Text(defaults::BRAKE),
        doc: "When more apps than this are gone at once they run on until `landfall source approve`. A part in percent always lets two apps go; 0 asks for every one.",
    }],
};

static GIT: Table = Table {
    what: "a git source",
    place: "sources[].git",
    keys: &[
        Key {
            name: "url",
            kind: Kind::Text(&forms::GIT_URL),
            default: Default::Required,
            doc: "`https://`, `http://`, `ssh://USER@HOST/PATH`, `USER@HOST:PATH`, `git://`, `file://` or a path.",
        },
        Key {
            name: "branch",
            kind: Kind::Text(&forms::GIT_REF),
            default: Default::Nothing("the branch that HEAD of the remote names"),
            doc: "Follows this branch.",
        },
        Key {
            name: "tag",
            kind: Kind::Text(&forms::GIT_REF),
            default: Default::Nothing("no tag"),
            doc: "Follows this tag, instead of a branch.",
        },
        Key {
            name: "commit",
            kind: Kind::Text(&forms::COMMIT),
            default: Default::Nothing("no commit"),
            doc: "Stays at exactly this commit, instead of following a branch.",
        },
        git_keys::REF,
        git_keys::SEMVER,
        Key {
            name: "path",
            kind: Kind::Text(&forms::REPOSITORY_PATH),
            default: Default::Text(""),
            doc: "Directory of the repository in which manifests are looked for; empty for all of it.",
        },
        git_keys::PATHS,
        Key {
            name: "poll",
            kind: Kind::Duration(SECOND, DAY),
            default: Default::Duration(defaults::POLL),
            doc: "Time between two looks at the remote, give or take a tenth.",
        },
        Key {
            name: "timeout",
            kind: Kind::Duration(SECOND, DAY),
            default: Default::Duration(defaults::GIT_TIMEOUT),
            doc: "A fetch without an end after this long has failed.",
        },
        git_keys::CREDENTIALS,
        git_keys::CA_FILE,
        git_keys::SUBMODULES,
        git_keys::SUBMODULE_CREDENTIALS,
        git_keys::CACHE_QUOTA,
        Key {
            name: "ssh",
            kind: Kind::Table(&SSH),
            default: Default::Nothing("the URL is not one of ssh"),
            doc: "How to sign in over ssh; needed for an ssh URL.",
        },
        Key {
            name: "webhook",
            kind: Kind::Table(&WEBHOOK),
            default: Default::Nothing("push hooks are refused"),
            doc: "Push hooks: `POST /v1/hooks/<name of the source>`, see docs/sources.md.",
        },
        Key {
            name: "verify",
            kind: Kind::Table(&git_trust::VERIFY),
            default: Default::Nothing("revisions need no signature"),
            doc: "Only revisions with a signature by one of these keys are deployed; see docs/sources.md.",
        },
        Key {
            name: "status",
            kind: Kind::Table(&git_trust::STATUS),
            default: Default::Nothing("nothing is reported"),
            doc: "Reports what became of each commit to the forge, as commit statuses; see sources.md.",
        },
        Key {
            name: "on_force_push",
            kind: Kind::Choice { now: &["follow", "hold"], later: &[] },
            default: Default::Text("follow"),
            doc: "`hold`: a commit that does not descend from the last one waits for `landfall source approve`.",
        },
    ],
};

static WEBHOOK: Table = Table {
    what: "the push hooks of a source",
    place: "sources[].git.webhook",
    keys: &[Key {
        name: "secret_files",
        kind: Kind::List(&Kind::Text(&forms::FILE_PATH), MAX_SECRETS),
        default: Default::Required,
        doc: "One file with the secret that the forge signs with, or two while it is changed; read again for each hook.",
    }],
};

static DIRECTORY: Table = Table {
    what: "a directory source",
    place: "sources[].directory",
    keys: &[
        Key { name: "path", kind: Kind::Text(&forms::FILE_PATH), default: Default::Required, doc: "The directory." },
        Key {
            name: "debounce",
            kind: Kind::Duration(Millis(0), Millis::seconds(60)),
            default: Default::Duration(defaults::DEBOUNCE),
            doc: "Changes closer together than this are one revision.",
        },
    ],
};

static PROXY: Table = Table {
    what: "the proxy",
    place: "proxy",
    keys: &[
        Key {
            name: "listen",
            kind: Kind::List(&Kind::Text(&forms::ADDRESS), MAX_LIST),
            default: Default::Text(defaults::PROXY_LISTEN),
            doc: "Addresses that web traffic comes in at.",
        },
        Key {
            name: "domain",
            kind: Kind::Text(&forms::DOMAIN),
            default: Default::Text(defaults::DOMAIN),
            doc: "The URLs of apps end in this.",
        },
        Key {
            name: "trusted_proxies",
            kind: Kind::List(&Kind::Text(&forms::NETWORK), MAX_LIST),
            default: Default::Empty,
            doc: "Networks of peers whose `Forwarded` and `X-Forwarded-*` headers are believed.",
        },
        Key {
            name: "max_connections",
            kind: Kind::Number(1, 1_000_000),
            default: Default::Number(defaults::MAX_CONNECTIONS),
            doc: "Connections at once; more wait to be accepted.",
        },
        Key {
            name: "access_log",
            kind: Kind::Bool,
            default: Default::Bool(true),
            doc: "Whether each request is written to `logs/access.log` of the data directory.",
        },
        Key {
            name: "call_wait",
            kind: Kind::Duration(SECOND, DAY),
            default: Default::Duration(defaults::CALL_WAIT),
            doc: "Whoever calls a function is kept waiting so long for the first byte of the answer; then it is told (303) where the result will be, and the call goes on. Shorter than what proxies before the agent allow.",
        },
        tls_keys::TLS,
    ],
};

static API_TLS: Table = Table {
    what: "the TLS of the API",
    place: "api.tls",
    keys: &[
        Key {
            name: "certificate_file",
            kind: Kind::Text(&forms::FILE_PATH),
            default: Default::Required,
            doc: "The certificate in PEM, followed by those of its issuers.",
        },
        Key {
            name: "key_file",
            kind: Kind::Text(&forms::FILE_PATH),
            default: Default::Required,
            doc: "Its key in PEM.",
        },
    ],
};

static API: Table = Table {
    what: "the API",
    place: "api",
    keys: &[
        Key {
            name: "socket",
            kind: Kind::Text(&forms::FILE_PATH),
            default: Default::Nothing("`landfall.sock` in the data directory"),
            doc: "The Unix socket; the user at its other end is who acts.",
        },
        Key {
            name: "listen",
            kind: Kind::Text(&forms::ADDRESS),
            default: Default::Nothing("the Unix socket only"),
            doc: "An address for HTTP. On the loopback it answers questions; everything else needs a token, but for push hooks.",
        },
        Key {
            name: "tls",
            kind: Kind::Table(&API_TLS),
            default: Default::Nothing("plain HTTP: for the loopback, and behind a proxy that speaks TLS"),
            doc: "With it the TCP address speaks TLS and nothing else. Files that change are taken up by themselves.",
        },
        Key {
            name: "public_url",
            kind: Kind::Text(&forms::WEB_URL),
            default: Default::Nothing("reports carry no links"),
            doc: "Where people reach this agent's API from elsewhere; links in reports start with it.",
        },
        oidc_keys::KEY,
        Key {
            name: "max_connections",
            kind: Kind::Number(1, 1_000_000),
            default: Default::Number(defaults::API_CONNECTIONS),
            doc: "Connections to the TCP address at once; more wait to be accepted.",
        },
        Key {
            name: "max_connections_per_address",
            kind: Kind::Number(1, 1_000_000),
            default: Default::Number(defaults::API_CONNECTIONS_PER_ADDRESS),
            doc: "Of these, so many from one address (of IPv6 one /64); more are closed at once. Raise it where all come through one proxy.",
        },
        Key {
            name: "requests_per_second",
            kind: Kind::Number(1, 1_000_000),
            default: Default::Number(defaults::API_REQUESTS),
            doc: "Requests of one token, or of one address without one, in the long run; twice as many at once. More are refused with 429. The Unix socket has no such limit.",
        },
    ],
};

static LIMITS: Table = Table {
    what: "the limits",
    place: "limits",
    keys: &[
        Key {
            name: "deployments",
            kind: Kind::Number(1, 256),
            default: Default::Number(defaults::DEPLOYMENTS),
            doc: "Deployments that prepare, start or switch at once; waiting for health does not count.",
        },
        Key {
            name: "builds",
            kind: Kind::Number(1, 256),
            default: Default::Number(defaults::BUILDS),
            doc: "Builds at once.",
        },
        Key {
            name: "disk_free",
            kind: Kind::Size(Bytes(0), MAX_LOGS),
            default: Default::Nothing("a hundredth of the disk, but at least 1 MiB and at most 1 GiB"),
            doc: "With less than this free on the disk that holds `data_dir`, people are told (`disk.low`).",
        },
        Key {
            name: "backlog",
            kind: Kind::Number(1, 100_000_000),
            default: Default::Number(defaults::BACKLOG),
            doc: "Spawned calls of each function that may wait for their turn, where its own `backlog` is not lower; more are refused with 429.",
        },
    ],
};

static RETENTION: Table = Table {
    what: "the retention",
    place: "retention",
    keys: &[
        Key {
            name: "versions",
            kind: Kind::Number(2, 10_000),
            default: Default::Number(defaults::VERSIONS),
            doc: "Versions per app whose files are kept for a rollback; a live, held or draining one always is.",
        },
        Key {
            name: "stopped_apps",
            kind: Kind::Duration(Millis(0), YEAR),
            default: Default::Duration(defaults::STOPPED_APPS),
            doc: "Everything of a stopped app is removed after this.",
        },
        Key {
            name: "calls",
            kind: Kind::Duration(Millis::seconds(60), YEAR),
            default: Default::Duration(defaults::CALLS),
            doc: "What spawned calls were given and brought back is removed so long after their end; that they were, after four times as long.",
        },
        Key {
            name: "audit",
            kind: Kind::Duration(DAY, TEN_YEARS),
            default: Default::Duration(defaults::AUDIT),
            doc: "Entries of the audit log are removed after this; that they were is an entry itself.",
        },
        Key {
            name: "logs",
            kind: Kind::Size(MIN_LOGS, MAX_LOGS),
            default: Default::Size(defaults::LOGS),
            doc: "All log files together; the oldest go first.",
        },
    ],
};

static USERS: Table = Table {
    what: "the users",
    place: "users",
    keys: &[
        Key {
            name: "agent",
            kind: Kind::Text(&forms::USER),
            default: Default::Required,
            doc: "The user of controller and proxy.",
        },
        Key {
            name: "apps",
            kind: Kind::Text(&forms::USER),
            default: Default::Required,
            doc: "The user of builds and app instances.",
        },
    ],
};
