//! What controller and proxy say to each other, and the route table.
//!
//! A proxy connects to the controller's control socket (and connects again whenever that connection ends),
//! says [`FromProxy::Hello`] and gets a whole [`RouteTable`], then changes. Generations only rise within one
//! controller; a new controller starts above every generation a proxy has named in its hello.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::calls::{CallRecord, Detached, Ended, Run, RunningCall, Seeking};
use crate::domain::manifest::{Bytes, Millis};
use crate::domain::{AnswerClass, AppKey, AttemptId, CallId, Grant, InstanceId, ObjectName, TokenId, VersionNumber};

/// From the controller.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "snake_case")]
pub enum ToProxy {
    /// Everything. Answered with [`FromProxy::Applied`] once it serves and is on disk.
    Table(RouteTable),
    /// What differs from the generation before. Answered like `Table`.
    Change {
        /// The generation this makes.
        generation: u64,
        /// Apps to set or replace.
        set: Vec<AppRoutes>,
        /// Apps to remove.
        remove: Vec<AppKey>,
    },
    /// From now on these take nothing new; each is answered with [`FromProxy::Drained`] when the last request
    /// on it has ended. Always sent after the table without them was applied.
    Drain {
        /// Which.
        instances: Vec<InstanceId>,
        /// Close frames to WebSockets are spread over this time.
        stagger: Millis,
    },
    /// The time for draining is over: end what is left on these and say [`FromProxy::Drained`].
    Cut {
        /// Which.
        instances: Vec<InstanceId>,
    },
    /// This instance of a function has ended; calls that were on it can say why.
    Over {
        /// Which.
        instance: InstanceId,
        /// Why.
        why: WhyOver,
    },
    /// Attempts of calls to carry out. Each is answered with [`FromProxy::Ended`].
    Run {
        /// Which.
        runs: Vec<Run>,
    },
    /// Give these attempts up; they end, and are answered, all the same.
    CancelRuns {
        /// Which.
        attempts: Vec<AttemptId>,
    },
    /// The ends of these are on record, and may be forgotten.
    Acknowledge {
        /// Which.
        attempts: Vec<AttemptId>,
    },
    /// These calls are on record now: their callers may be told where the results will be.
    Kept {
        /// Which.
        attempts: Vec<AttemptId>,
    },
    /// Looks for calls under way that somebody waits for. Answered with [`FromProxy::Found`].
    Seek {
        /// Comes back with the answer; no two questions have the same.
        ticket: u64,
        /// Which.
        #[serde(flatten)]
        seeking: Seeking,
    },
    /// All tokens that are worth something from here on. Said before the first table on each connection, and kept on disk.
    Tokens {
        /// Them.
        grants: Vec<Grant>,
    },
    /// New settings after a reload; they hold for connections accepted from here on.
    Settings(ProxyOptions),
    /// What HTTPS needs to know. Sent before the table on every connection, and whenever it changes.
    Tls(TlsOptions),
}

/// Why an instance has ended, as far as its calls are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "because", rename_all = "snake_case")]
pub enum WhyOver {
    /// The kernel ended it for want of memory.
    OutOfMemory {
        /// Its `resources.memory`; without one the machine's memory was not enough.
        limit: Option<Bytes>,
    },
    /// It ended for another reason.
    Other,
}

/// What of the configuration concerns a proxy. Given at its start, and again when it changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProxyOptions {
    /// Peers whose `X-Forwarded-*` are believed, as networks in CIDR form (`10.0.0.0/8`).
    pub trusted_proxies: Vec<String>,
    /// Connections at once; more wait in the listeners' backlog.
    pub max_connections: u32,
    /// Whether `logs/access.log` is written.
    pub access_log: bool,
    /// A caller is kept waiting so long for the first byte of its call's answer; then it is told where to ask for it.
    pub call_wait: Millis,
    /// Functions are told which trace their calls belong to, and of so many traces one is kept; `None` where nobody wants
    /// any: then a caller's `traceparent` is handed on as it is.
    pub traces: Option<u32>,
}

impl Default for ProxyOptions {
    fn default() -> Self {
        Self {
            trusted_proxies: Vec::new(),
            max_connections: 10_000,
            access_log: true,
            call_wait: Millis::seconds(150),
            traces: None,
        }
    }
}

/// Where certificate authorities ask for the answers to challenges (RFC 8555, 8.3).
pub const ACME_PATH: &str = "/.well-known/acme-challenge/";

/// What HTTPS needs to know besides the certificates, which lie on disk.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TlsOptions {
    /// Rises whenever certificates on disk have changed.
    pub certificates: u64,
    /// The port that plain HTTP is sent to, for hosts that have a certificate.
    pub redirect: Option<u16>,
    /// Challenges of certificate authorities that are open now.
    pub challenges: Vec<Challenge>,
}

/// How an authority makes sure that a host is served from here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    /// The host.
    pub host: String,
    /// Which way it asks.
    pub kind: ChallengeKind,
    /// The last part of the path that is asked for.
    pub token: String,
    /// Over HTTP the key authorization; in TLS a certificate and its key in PEM.
    pub answer: String,
}

/// The ways an authority may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChallengeKind {
    /// HTTP-01 (RFC 8555).
    Http,
    /// TLS-ALPN-01 (RFC 8737).
    Tls,
}

/// From a proxy.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "snake_case")]
pub enum FromProxy {
    /// First message on a connection.
    Hello {
        /// [`super::PROTOCOL`]
        protocol: u32,
        /// The proxy's program version.
        version: String,
        /// Its process id.
        pid: i32,
        /// The generation it serves; 0 for none.
        generation: u64,
        /// It accepts nothing new.
        draining: bool,
        /// Attempts it carries out, or whose end was not acknowledged. The latter are said again after this.
        #[serde(default)]
        attempts: Vec<AttemptId>,
    },
    /// This generation serves on all threads and is on disk.
    Applied {
        /// Which.
        generation: u64,
    },
    /// No request is on this instance, and none will be.
    Drained {
        /// Which.
        instance: InstanceId,
    },
    /// Sent about every 250 ms while something has changed.
    Load {
        /// Only objects whose numbers changed.
        objects: Vec<ObjectLoad>,
    },
    /// Requests wait for an object without a ready instance. Sent at once, once per wave.
    Wanted {
        /// The app.
        app: AppKey,
        /// The object.
        object: ObjectName,
        /// The version, where it is one that calls are pinned to.
        #[serde(default)]
        pinned: Option<VersionNumber>,
    },
    /// A call was not over at its deadline: this instance, all processes of it, is to be ended and replaced at once.
    Overdue {
        /// Which.
        instance: InstanceId,
        /// The call.
        call: CallId,
    },
    /// Attempts of calls are over. Said again on every connection until it is acknowledged.
    Ended {
        /// Which, and how.
        ended: Vec<Ended>,
    },
    /// Calls that last longer than their callers are kept waiting. Said again on every connection until it is answered
    /// with [`ToProxy::Kept`].
    Detached {
        /// Which.
        calls: Vec<Detached>,
    },
    /// Calls that were answered where they came in.
    Calls {
        /// Them.
        records: Vec<CallRecord>,
        /// How many more there were, since the last message, that could not be kept until now.
        dropped: u64,
    },
    /// The calls that were looked for, as far as they are under way here.
    Found {
        /// That of the question.
        ticket: u64,
        /// Them.
        calls: Vec<RunningCall>,
    },
    /// What web objects answered since this was last said. Sent with the load, about every 250 ms while there is anything.
    Answers {
        /// At most some hundreds; more come in further messages.
        objects: Vec<ObjectAnswers>,
    },
    /// Tokens that were used since this was last said.
    TokensUsed {
        /// Which.
        tokens: Vec<TokenId>,
    },
    /// The proxy was told to leave: it accepts nothing new from here on.
    Draining,
}

/// Work on an object as one proxy sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectLoad {
    /// The app.
    pub app: AppKey,
    /// The object.
    pub object: ObjectName,
    /// The version, where it is one that calls are pinned to.
    #[serde(default)]
    pub pinned: Option<VersionNumber>,
    /// Requests on each of its instances now.
    pub in_flight: Vec<(InstanceId, u32)>,
    /// Requests waiting for a free slot.
    pub queued: u32,
    /// Requests answered since the proxy started.
    pub requests: u64,
}

/// What one web object answered since its proxy last said so. Said once: with a controller that dies before it has it on
/// disk, it is lost, and never counted twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectAnswers {
    /// The app.
    pub app: AppKey,
    /// The object.
    pub object: ObjectName,
    /// How many requests got which class of status.
    pub answers: BTreeMap<AnswerClass, u64>,
    /// How long they took until their heads, by class of time as in the figures of functions.
    pub times: Vec<(u16, u64)>,
}

/// Where everything is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct RouteTable {
    /// Rises with every change.
    pub generation: u64,
    /// All apps with web objects or functions.
    pub apps: Vec<AppRoutes>,
}

/// The routes of one app: they change together or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppRoutes {
    /// The app.
    pub app: AppKey,
    /// Its live version.
    pub version: VersionNumber,
    /// Its web objects.
    pub objects: Vec<ObjectRoute>,
    /// Its functions: those of the live version, and of earlier ones that calls are pinned to.
    #[serde(default)]
    pub functions: Vec<FunctionRoute>,
}

/// How calls reach one function of one version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionRoute {
    /// The function.
    pub function: ObjectName,
    /// The version whose code it runs.
    pub version: VersionNumber,
    /// Whether a call gets here only by naming the version.
    pub pinned: bool,
    /// Calls at once per instance.
    pub concurrency: u32,
    /// Each call is a process of its own, which ends with its connection: an overdue one costs no other call its instance.
    pub isolated: bool,
    /// From the moment a call is given to an instance to the end of its answer.
    pub timeout: Millis,
    /// Largest body of a call.
    pub max_body: Bytes,
    /// Calls that may wait for a free place or a first instance; more get 429.
    pub queue: u32,
    /// How long they may wait; then 504.
    pub queue_timeout: Millis,
    /// Ready instances only.
    pub instances: Vec<Upstream>,
    /// What a call finds when `instances` is empty.
    pub when_empty: WhenEmpty,
}

/// How requests reach one web object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectRoute {
    /// The object.
    pub object: ObjectName,
    /// Host names, lower case, without port; `*.example.com` matches exactly one label.
    pub hosts: Vec<String>,
    /// Path prefix on segment borders: `/`, `/api`.
    pub path: String,
    /// Remove the prefix before forwarding.
    pub strip_prefix: bool,
    /// Whether a request must bring a token that may call the app.
    #[serde(default)]
    pub needs_token: bool,
    /// Requests at once per instance.
    pub concurrency: u32,
    /// Until the answer's head.
    pub request_timeout: Millis,
    /// Largest request body.
    pub max_body: Bytes,
    /// Requests that may wait for a free slot or a first instance; more get 503.
    pub queue: u32,
    /// How long they may wait; then 503.
    pub queue_timeout: Millis,
    /// Ready instances only.
    pub instances: Vec<Upstream>,
    /// What a request finds when `instances` is empty.
    pub when_empty: WhenEmpty,
}

/// An instance that takes requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    /// Which.
    pub instance: InstanceId,
    /// Where it listens.
    pub address: SocketAddr,
    /// The version whose code it runs.
    pub version: VersionNumber,
}

/// What a request finds when an object has no ready instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "then", rename_all = "snake_case")]
pub enum WhenEmpty {
    /// Scaled to zero, or about to be ready: say [`FromProxy::Wanted`], wait up to `queue_timeout`.
    Wait,
    /// 503 at once, with this reason.
    Refuse {
        /// In words, for the answer's body.
        reason: String,
    },
}

/// One line of the access log, as JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AccessLine {
    /// When the request came.
    pub at: Timestamp,
    /// `X-Request-Id`
    pub request_id: String,
    /// The peer's address, or what a trusted proxy said.
    pub client: String,
    /// Method.
    pub method: String,
    /// Host as asked.
    pub host: String,
    /// Path as asked, without query.
    pub path: String,
    /// Status answered.
    pub status: u16,
    /// App, where one was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// Object, where one was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// Version that answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<VersionNumber>,
    /// Instance that answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Milliseconds from the request's head to the end of the answer.
    pub duration_ms: f64,
    /// Milliseconds in the queue.
    pub queued_ms: f64,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// Why Landfall itself answered, where it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
