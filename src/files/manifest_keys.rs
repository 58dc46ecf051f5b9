//! Every key of `landfall.yaml`, described once.

use super::compose_keys::COMPOSE;
use super::container_keys;
use super::forms;
use super::keys::{Default, Key, Kind, Root, Table};
use super::publish_keys::PUBLISH;
use super::schedule_keys::{EXPRESSION, SCHEDULE};
use crate::domain::manifest::{Bytes, Millis, defaults};

/// Most instances of one object.
pub const MAX_INSTANCES: u64 = 1000;
/// Most requests at once per instance.
const MAX_CONCURRENCY: u64 = 100_000;
/// Most probes in a row that may be asked for.
const MAX_PROBES: u64 = 100;
/// Most directories, hosts or arguments of one list.
const MAX_LIST: usize = 100;
/// Most channels an app names.
const MAX_CHANNELS: usize = 20;
/// Shortest time between or for two probes, so that probing costs nothing.
const SHORTEST: Millis = Millis(10);
/// No duration of a manifest is longer.
const DAY: Millis = Millis::seconds(24 * 60 * 60);
/// Longest health deadline, bake and drain.
const HOUR: Millis = Millis::seconds(60 * 60);
/// Most attempts after the first.
const MAX_RETRIES: u64 = 100;
/// Largest factor between two waits before an attempt.
const MAX_BACKOFF: u64 = 10;
/// Most calls that may wait for a place.
const MAX_QUEUE: u64 = 100_000;
/// Largest request body that can be allowed.
const MAX_BODY: Bytes = Bytes(1 << 40);
/// Smallest memory limit under which a process can start at all.
const MIN_MEMORY: Bytes = Bytes::mib(4);
/// Largest memory limit.
const MAX_MEMORY: Bytes = Bytes(1 << 44);

/// `landfall.yaml`.
pub static MANIFEST: Root = Root {
    title: "Landfall app manifest (landfall.yaml)",
    table: &APP,
    later: "nothing of this app is deployed while it stands here",
};

const COMMAND: Key = Key {
    name: "command",
    kind: Kind::Command,
    default: Default::Nothing("needed, unless an image knows what to run"),
    doc: "Program and arguments as a list, run in the app's directory; one text is run by `sh -c`. In a container it takes the place of the image's `CMD`.",
};

const ENV: Key = Key {
    name: "env",
    kind: Kind::Map(&forms::VARIABLE_NAME, &Kind::Variable),
    default: Default::Empty,
    doc: "Variables that only this object sees; they win over the app's.",
};

const GRACE: Key = Key {
    name: "grace",
    kind: Kind::Duration(Millis(0), HOUR),
    default: Default::Duration(defaults::GRACE),
    doc: "After SIGTERM an instance has this long before SIGKILL.",
};

const RESOURCES_KEY: Key =
    Key { name: "resources", kind: Kind::Table(&RESOURCES), default: Default::Table, doc: "Limits of one instance." };

static APP: Table = Table {
    what: "an app",
    place: "landfall.yaml",
    keys: &[
        Key {
            name: "app",
            kind: Kind::Text(&forms::APP_NAME),
            default: Default::Required,
            doc: "The app's name, unique within the environment; its URL starts with it.",
        },
        Key {
            name: "runtime",
            kind: Kind::Choice { now: &["process", "docker", "publish"], later: &["kubernetes"] },
            default: Default::Nothing("`docker` with an image, `publish` with `publish`, else `process`"),
            doc: "Where instances run: as processes of the machine, as containers of a Docker-compatible engine, or, with `publish`, nowhere: the tree is put where others read it.",
        },
        container_keys::IMAGE,
        container_keys::PULL,
        container_keys::USER,
        container_keys::READ_ONLY,
        container_keys::DRIFT,
        Key {
            name: "build",
            kind: Kind::Table(&BUILD),
            default: Default::Nothing("nothing is built"),
            doc: "Runs once per content, in the version's own copy of the tree, before any instance starts.",
        },
        Key {
            name: "include",
            kind: Kind::List(&Kind::Text(&forms::INCLUDE), MAX_LIST),
            default: Default::Empty,
            doc: "Other directories of the source that belong to this app's content, relative to its own.",
        },
        Key {
            name: "env",
            kind: Kind::Map(&forms::VARIABLE_NAME, &Kind::Variable),
            default: Default::Empty,
            doc: "Variables that every instance sees.",
        },
        Key {
            name: "secrets",
            kind: Kind::Map(&forms::VARIABLE_NAME, &Kind::Text(&forms::SECRET_NAME)),
            default: Default::Empty,
            doc: "Variables whose values are secrets, each with the secret's name; see secrets.md. Builds do not get them; the build of an image has `build.secrets`.",
        },
        Key {
            name: "secret_files",
            kind: Kind::Map(&forms::VARIABLE_NAME, &Kind::Text(&forms::SECRET_NAME)),
            default: Default::Empty,
            doc: "The same for programs that read files, as `DB_PASSWORD_FILE: db-password`: the variable holds the path of a file with the secret, which is there while the instance is.",
        },
        Key {
            name: "encrypted_files",
            kind: Kind::List(&Kind::Text(&container_keys::WITHIN), MAX_LIST),
            default: Default::Empty,
            doc: "Files of the app's directory, encrypted by SOPS (`.yaml`, `.json`, `.env`) or age (`.age`), whose values are secrets too: each name at the top is a variable; see secrets.md.",
        },
        Key {
            name: "volumes",
            kind: Kind::Map(&forms::VOLUME_NAME, &Kind::Text(&forms::VOLUME_PATH)),
            default: Default::Empty,
            doc: "Directories kept over versions, each with the path the app knows it by; instances find the real path in `LANDFALL_VOLUME_<NAME>`.",
        },
        Key {
            name: "depends_on",
            kind: Kind::List(&Kind::Text(&forms::APP_NAME), MAX_LIST),
            default: Default::Empty,
            doc: "Apps of any source that must be live and healthy before a version of this one that git asks for is started.",
        },
        Key {
            name: "strategy",
            kind: Kind::Choice { now: &["rolling", "recreate"], later: &[] },
            default: Default::Text("rolling"),
            doc: "`rolling`: the new version runs beside the old one until it is ready. `recreate`: the old one is stopped first.",
        },
        Key {
            name: "bake",
            kind: Kind::Duration(Millis(0), HOUR),
            default: Default::Duration(defaults::BAKE),
            doc: "How long crashes and readiness are watched after the switch; a version that fails then is rolled back once.",
        },
        Key {
            name: "notify",
            kind: Kind::List(&Kind::Text(&forms::SOURCE_NAME), MAX_CHANNELS),
            default: Default::Empty,
            doc: "Channels of the agent's configuration that hear of this app, besides those that hear of all.",
        },
        PUBLISH,
        COMPOSE,
        Key {
            name: "web",
            kind: Kind::NamedTables(&forms::OBJECT_NAME, &WEB),
            default: Default::Empty,
            doc: "Servers that listen on `$PORT`. `main` has the URL `<app>.<domain>`, others `<app>-<name>.<domain>`.",
        },
        Key {
            name: "functions",
            kind: Kind::NamedTables(&forms::OBJECT_NAME, &FUNCTION),
            default: Default::Empty,
            doc: "What is called by name with a body and answers with one: `landfall call APP FUNCTION`.",
        },
        Key {
            name: "workers",
            kind: Kind::NamedTables(&forms::OBJECT_NAME, &WORKER),
            default: Default::Empty,
            doc: "Processes that run until told to stop, without a port.",
        },
    ],
};

static BUILD: Table = Table {
    what: "a build",
    place: "build",
    keys: &[
        Key {
            name: "command",
            kind: Kind::Command,
            default: Default::Nothing("`dockerfile` says what is built"),
            doc: "Program and arguments as a list, run in the version's own copy of the tree; one text is run by `sh -c`.",
        },
        Key {
            name: "timeout",
            kind: Kind::Duration(Millis::seconds(1), DAY),
            default: Default::Duration(defaults::BUILD_TIMEOUT),
            doc: "The build is ended, and the deployment fails, after this long.",
        },
        container_keys::DOCKERFILE,
        container_keys::CONTEXT,
        container_keys::TARGET,
        container_keys::ARGS,
        container_keys::SECRETS,
    ],
};

static WEB: Table = Table {
    what: "a web endpoint",
    place: "web.<name>",
    keys: &[
        COMMAND,
        container_keys::PORT,
        ENV,
        Key {
            name: "health",
            kind: Kind::Table(&HEALTH),
            default: Default::Table,
            doc: "When an instance counts as ready and as failing; without `path`, a port that accepts a connection is ready.",
        },
        Key {
            name: "instances",
            kind: Kind::NumberOr(1, MAX_INSTANCES, &INSTANCES),
            default: Default::Number(defaults::INSTANCES as u64),
            doc: "How many instances run, as a number or as `{min, max, idle}`.",
        },
        Key {
            name: "concurrency",
            kind: Kind::Number(1, MAX_CONCURRENCY),
            default: Default::Number(defaults::CONCURRENCY as u64),
            doc: "Requests at once per instance; more wait for a free place.",
        },
        Key {
            name: "request_timeout",
            kind: Kind::Duration(Millis(100), DAY),
            default: Default::Duration(defaults::REQUEST_TIMEOUT),
            doc: "A request whose answer has not started after this long gets 504.",
        },
        Key {
            name: "max_body",
            kind: Kind::Size(Bytes(0), MAX_BODY),
            default: Default::Size(defaults::MAX_BODY),
            doc: "Larger request bodies get 413.",
        },
        Key {
            name: "drain",
            kind: Kind::Duration(Millis(0), DAY),
            default: Default::Duration(defaults::DRAIN),
            doc: "How long requests of an outdated instance may go on before it is stopped.",
        },
        GRACE,
        Key {
            name: "hosts",
            kind: Kind::List(&Kind::Text(&forms::HOST), MAX_LIST),
            default: Default::Empty,
            doc: "Host names besides the one by name; `*.example.com` stands for one label.",
        },
        Key {
            name: "path",
            kind: Kind::Text(&forms::URL_PATH),
            default: Default::Text(defaults::PATH),
            doc: "The endpoint answers under this prefix.",
        },
        Key {
            name: "strip_prefix",
            kind: Kind::Bool,
            default: Default::Bool(false),
            doc: "Whether `path` is removed before a request reaches the instance.",
        },
        Key {
            name: "auth",
            kind: Kind::Choice { now: &["none", "token"], later: &[] },
            default: Default::Text("none"),
            doc: "Who may reach it: everybody, or whoever brings `Authorization: Bearer` with a token that may `call` the app.",
        },
        RESOURCES_KEY,
    ],
};

static HEALTH: Table = Table {
    what: "a health check",
    place: "web.<name>.health",
    keys: &[
        Key {
            name: "path",
            kind: Kind::Text(&forms::PROBE_PATH),
            default: Default::Nothing("a TCP connection is enough"),
            doc: "`GET` here must answer 2xx or 3xx.",
        },
        Key {
            name: "deadline",
            kind: Kind::Duration(Millis(100), HOUR),
            default: Default::Duration(defaults::HEALTH_DEADLINE),
            doc: "A new instance must be ready after this long, else the deployment fails.",
        },
        Key {
            name: "interval",
            kind: Kind::Duration(SHORTEST, HOUR),
            default: Default::Duration(defaults::HEALTH_INTERVAL),
            doc: "Time between two probes.",
        },
        Key {
            name: "timeout",
            kind: Kind::Duration(SHORTEST, HOUR),
            default: Default::Duration(defaults::HEALTH_TIMEOUT),
            doc: "A probe without an answer after this long has failed.",
        },
        Key {
            name: "rise",
            kind: Kind::Number(1, MAX_PROBES),
            default: Default::Number(defaults::HEALTH_RISE as u64),
            doc: "This many good probes in a row make an instance ready.",
        },
        Key {
            name: "fall",
            kind: Kind::Number(1, MAX_PROBES),
            default: Default::Number(defaults::HEALTH_FALL as u64),
            doc: "This many bad probes in a row take an instance out.",
        },
    ],
};

static INSTANCES: Table = Table {
    what: "a range of instances",
    place: "web.<name>.instances",
    keys: &[
        Key {
            name: "min",
            kind: Kind::Number(0, MAX_INSTANCES),
            default: Default::Number(defaults::INSTANCES as u64),
            doc: "Never fewer than this; with 0 the first request starts one.",
        },
        Key {
            name: "max",
            kind: Kind::Number(1, MAX_INSTANCES),
            default: Default::Required,
            doc: "Never more than this, deployments excepted.",
        },
        Key {
            name: "idle",
            kind: Kind::Duration(Millis::seconds(1), DAY),
            default: Default::Duration(defaults::IDLE),
            doc: "An instance above `min` without work for this long is stopped.",
        },
    ],
};

static FUNCTION: Table = Table {
    what: "a function",
    place: "functions.<name>",
    keys: &[
        Key {
            name: "handler",
            kind: Kind::Text(&forms::HANDLER),
            default: Default::Nothing("`command` and `mode` say what runs"),
            doc: "A function of a Python or JavaScript file, `app.py:resize`: loaded once, kept warm by Landfall's worker.",
        },
        Key {
            name: "command",
            kind: Kind::Command,
            default: Default::Nothing("`handler` says what runs"),
            doc: "Program and arguments as a list, run in the app's directory; one text is run by `sh -c`.",
        },
        Key {
            name: "mode",
            kind: Kind::Choice { now: &["server", "exec"], later: &[] },
            default: Default::Nothing("only beside `command`, and needed there"),
            doc: "`server`: `command` is an HTTP server on `$PORT`, kept warm. `exec`: a process for each call, body on standard input, result on standard output.",
        },
        Key {
            name: "schedule",
            kind: Kind::TextOr(&EXPRESSION, &SCHEDULE),
            default: Default::Nothing("it runs only when it is called"),
            doc: "When the function is called by itself: a cron expression, or a table with `cron` or `every` and more.",
        },
        ENV,
        Key {
            name: "instances",
            kind: Kind::NumberOr(1, MAX_INSTANCES, &FUNCTION_INSTANCES),
            default: Default::Number(defaults::INSTANCES as u64),
            doc: "How many instances run, as a number or as `{min, max, spare, idle}`.",
        },
        Key {
            name: "concurrency",
            kind: Kind::Number(1, MAX_CONCURRENCY),
            default: Default::Number(defaults::CALLS as u64),
            doc: "Calls at once per instance; more wait for a free place.",
        },
        Key {
            name: "timeout",
            kind: Kind::Duration(Millis(100), DAY),
            default: Default::Duration(defaults::CALL_TIMEOUT),
            doc: "1h for a function with a `schedule`. A call that runs longer is ended with its instance, all processes of it; the instance is replaced. Deployments wait so long for calls of the version before.",
        },
        Key {
            name: "startup_timeout",
            kind: Kind::Duration(Millis(100), HOUR),
            default: Default::Duration(defaults::STARTUP_TIMEOUT),
            doc: "A new instance must be ready after this long, else the deployment fails.",
        },
        Key {
            name: "retries",
            kind: Kind::Table(&RETRIES),
            default: Default::Table,
            doc: "When a call that nobody waits for and that failed is tried again.",
        },
        Key {
            name: "queue",
            kind: Kind::Number(1, MAX_QUEUE),
            default: Default::Number(defaults::QUEUE as u64),
            doc: "Calls that may wait for a free place; more get 429.",
        },
        Key {
            name: "backlog",
            kind: Kind::Number(1, 100_000_000),
            default: Default::Nothing("`limits.backlog` of the agent"),
            doc: "Spawned calls that may wait for their turn; more get 429. Never more than `limits.backlog` of the agent.",
        },
        Key {
            name: "max_body",
            kind: Kind::Size(Bytes(0), MAX_BODY),
            default: Default::Size(defaults::MAX_BODY),
            doc: "Larger bodies get 413.",
        },
        GRACE,
        RESOURCES_KEY,
    ],
};

static FUNCTION_INSTANCES: Table = Table {
    what: "a range of instances of a function",
    place: "functions.<name>.instances",
    keys: &[
        Key {
            name: "min",
            kind: Kind::Number(0, MAX_INSTANCES),
            default: Default::Number(defaults::INSTANCES as u64),
            doc: "Never fewer than this; with 0 the first call starts one.",
        },
        Key {
            name: "max",
            kind: Kind::Number(1, MAX_INSTANCES),
            default: Default::Required,
            doc: "Never more than this, deployments excepted.",
        },
        Key {
            name: "spare",
            kind: Kind::Number(0, MAX_INSTANCES),
            default: Default::Number(defaults::SPARE as u64),
            doc: "So many more than the present calls need are kept warm, up to `max`.",
        },
        Key {
            name: "idle",
            kind: Kind::Duration(Millis::seconds(1), DAY),
            default: Default::Duration(defaults::IDLE),
            doc: "An instance that is not needed for this long is stopped.",
        },
    ],
};

static RETRIES: Table = Table {
    what: "retries of a function",
    place: "functions.<name>.retries",
    keys: &[
        Key {
            name: "max",
            kind: Kind::Number(0, MAX_RETRIES),
            default: Default::Number(defaults::RETRIES as u64),
            doc: "So many attempts after the first.",
        },
        Key {
            name: "delay",
            kind: Kind::Duration(Millis(0), DAY),
            default: Default::Duration(defaults::RETRY_DELAY),
            doc: "Wait before the first of them.",
        },
        Key {
            name: "backoff",
            kind: Kind::Number(1, MAX_BACKOFF),
            default: Default::Number(defaults::RETRY_BACKOFF as u64),
            doc: "Each further wait is so many times as long.",
        },
        Key {
            name: "max_delay",
            kind: Kind::Duration(Millis(0), DAY),
            default: Default::Duration(defaults::RETRY_MAX_DELAY),
            doc: "No wait is longer.",
        },
    ],
};

static RESOURCES: Table = Table {
    what: "limits of an instance",
    place: "web.<name>.resources, functions.<name>.resources, workers.<name>.resources",
    keys: &[
        Key {
            name: "memory",
            kind: Kind::Size(MIN_MEMORY, MAX_MEMORY),
            default: Default::Nothing("no limit"),
            doc: "Memory of all its processes together.",
        },
        Key {
            name: "cpu",
            kind: Kind::Cores(10, 1_024_000),
            default: Default::Nothing("no limit"),
            doc: "Processor time in cores.",
        },
        Key {
            name: "processes",
            kind: Kind::Number(1, 1_000_000),
            default: Default::Nothing("no limit"),
            doc: "How many processes and threads it may have.",
        },
    ],
};

static WORKER: Table = Table {
    what: "a worker",
    place: "workers.<name>",
    keys: &[
        COMMAND,
        ENV,
        Key {
            name: "instances",
            kind: Kind::Number(1, MAX_INSTANCES),
            default: Default::Number(defaults::INSTANCES as u64),
            doc: "How many instances run.",
        },
        Key {
            name: "handover",
            kind: Kind::Choice { now: &["stop-first", "start-first"], later: &[] },
            default: Default::Text("stop-first"),
            doc: "`stop-first`: never two versions at once. `start-first`: never none.",
        },
        GRACE,
        RESOURCES_KEY,
    ],
};
