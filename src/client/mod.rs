//! The client library: every route of the agent's API as a typed call.
//!
//! Owner: whoever talks to an agent (the command line, tests, other programs). Neighbours: `wire::api` for the
//! types on the wire; `api`, far away, for the other end. Invariant: every call ends, by an answer or by a
//! deadline, and every error says what to do about it.
//!
//! ```no_run
//! # async fn example() -> Result<(), landfall::client::ClientError> {
//! use landfall::client::{Client, Target};
//!
//! let client = Client::connect(&Target::Socket("data/landfall.sock".into()))?;
//! for app in client.apps(None).await? {
//!     println!("{} is {}", app.app, app.state.as_str());
//! }
//! # Ok(()) }
//! ```
//!
//! Functions take and bring back values of any type that serde knows ([`Client::call_as`], [`Client::spawn_as`],
//! [`Client::map_as`]); streams go on over restarts of the agent ([`Follow`]). Whole programs are in `examples/client_deploy.rs` and
//! `examples/client_call.rs`. A program that only talks to agents takes the crate with `default-features = false, features = ["client"]`.

mod call;
mod calls;
mod diffs;
mod error;
mod exec;
mod pack;
mod query;
mod schedules;
mod secrets;
mod send;
mod sse;
mod stream;
mod tokens;
mod typed;

use std::convert::Infallible;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::call::{CallAnswer, CallBody};
pub use self::calls::{CallAnswered, CallsQuery};
pub use self::error::ClientError;
pub use self::exec::Exec;
pub use self::query::LogQuery;
use self::query::Route;
pub use self::stream::Follow;
pub use self::tokens::AuditQuery;
pub use self::typed::{Function, MapResult, Mapping};
use crate::domain::{AppName, DeploymentId, EnvironmentName, Secret, SourceName};
use crate::wire::api;

/// How long to wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a plain call may take, from its first byte to the last of its answer.
const ANSWER: Duration = Duration::from_secs(60);
/// How long a look at a source may take: a remote may be slow.
const LOOK: Duration = Duration::from_secs(150);
/// How long an upload may take, with everything the agent does before it answers.
const UPLOAD: Duration = Duration::from_secs(15 * 60);
/// Most entries of one page.
const PAGE: u32 = 1000;
/// Longest answer that is read into memory.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// Where an agent is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The Unix socket of an agent on this machine.
    Socket(PathBuf),
    /// The HTTP address of an agent, such as `http://127.0.0.1:7171`.
    Url(String),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Socket(path) => write!(f, "{}", path.display()),
            Target::Url(url) => f.write_str(url),
        }
    }
}

impl FromStr for Target {
    type Err = Infallible;

    /// `http://…` and `https://…` are URLs, everything else is the path of a socket.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        if text.starts_with("http://") || text.starts_with("https://") {
            Ok(Target::Url(text.trim_end_matches('/').to_owned()))
        } else {
            Ok(Target::Socket(PathBuf::from(text.strip_prefix("unix:").unwrap_or(text))))
        }
    }
}

/// How an agent on another machine is talked to.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// What says who asks: a token of `landfall token create`.
    pub token: Option<Secret>,
    /// The authorities that certificates are believed of, in PEM, instead of the system's.
    pub ca_file: Option<PathBuf>,
}

/// A handle to one agent. Cheap to clone; connections are made when they are needed and kept.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    target: Target,
    base: String,
}

impl Client {
    /// A client for the agent at `target`. Nothing is sent yet.
    pub fn connect(target: &Target) -> Result<Self, ClientError> {
        Self::connect_with(target, &Credentials::default())
    }

    /// A client that says who it is. Nothing is sent yet.
    pub fn connect_with(target: &Target, credentials: &Credentials) -> Result<Self, ClientError> {
        // An error means that the program has already chosen a provider; any will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = reqwest::Client::builder()
            .user_agent(concat!("landfall/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            .redirect(reqwest::redirect::Policy::none());
        let (builder, base) = match target {
            Target::Socket(path) => (builder.unix_socket(path.as_path()).no_proxy(), "http://localhost".to_owned()),
            Target::Url(url) if url.starts_with("https://") => (builder, url.clone()),
            Target::Url(url) => (builder.no_proxy(), url.clone()),
        };
        // Reading the system's certificates takes longer than a whole call over a socket.
        let wrong = |why: String| ClientError::Target { target: target.clone(), why };
        let builder = match &credentials.ca_file {
            _ if !base.starts_with("https://") => builder.tls_certs_only([]),
            Some(file) => builder.tls_certs_only(authorities(file).map_err(wrong)?),
            None => builder,
        };
        let builder = match &credentials.token {
            Some(token) => builder.default_headers(bearer(token).map_err(wrong)?),
            None => builder,
        };
        if let Err(error) = reqwest::Url::parse(&base) {
            return Err(wrong(error.to_string()));
        }
        let http = builder.build().map_err(|error| wrong(describe(&error)))?;
        Ok(Self { http, target: target.clone(), base })
    }

    /// Where this client's agent is.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The agent as a whole.
    pub async fn status(&self) -> Result<api::Status, ClientError> {
        self.get(Route::new(&["status"])).await
    }

    /// The apps of an environment, or of all of them.
    pub async fn apps(&self, environment: Option<&EnvironmentName>) -> Result<Vec<api::App>, ClientError> {
        self.get(Route::new(&["apps"]).with("environment", environment)).await
    }

    /// One app. Without an environment, here and below, the agent's own is meant.
    pub async fn app(&self, environment: Option<&EnvironmentName>, app: &AppName) -> Result<api::App, ClientError> {
        self.get(app_route(environment, app, None)).await
    }

    /// All of the app's versions, newest first.
    pub async fn versions(
        &self,
        environment: Option<&EnvironmentName>,
        app: &AppName,
    ) -> Result<Vec<api::Version>, ClientError> {
        self.gather(app_route(environment, app, Some("versions")), Some(u32::MAX)).await
    }

    /// The app's deployments, newest first. Of this and every other long list so many as `limit` says, from as many pages as it
    /// takes; without it one page.
    pub async fn deployments(
        &self,
        environment: Option<&EnvironmentName>,
        app: &AppName,
        limit: Option<u32>,
    ) -> Result<Vec<api::Deployment>, ClientError> {
        self.gather(app_route(environment, app, Some("deployments")), limit).await
    }

    /// The app's log.
    pub async fn logs(
        &self,
        environment: Option<&EnvironmentName>,
        app: &AppName,
        query: &LogQuery,
    ) -> Result<Follow<api::LogLine>, ClientError> {
        self.follow(app_route(environment, app, Some("logs")).with_logs(query)).await
    }

    /// Brings an earlier version back.
    pub async fn rollback(
        &self,
        environment: Option<&EnvironmentName>,
        app: &AppName,
        request: &api::RollbackRequest,
    ) -> Result<api::Accepted, ClientError> {
        self.post(app_route(environment, app, Some("rollback")), request).await
    }

    /// Ends a hold: the app follows git again.
    pub async fn release(
        &self,
        environment: Option<&EnvironmentName>,
        app: &AppName,
        request: &api::ReleaseRequest,
    ) -> Result<api::Accepted, ClientError> {
        self.post(app_route(environment, app, Some("release")), request).await
    }

    /// Starts the live version afresh, as a new version.
    pub async fn rollover(
        &self,
        environment: Option<&EnvironmentName>,
        app: &AppName,
        request: &api::ReasonRequest,
    ) -> Result<api::Accepted, ClientError> {
        self.post(app_route(environment, app, Some("rollover")), request).await
    }

    /// Freezes the app: nothing is deployed to it until it is resumed.
    pub async fn suspend(
        &self,
        environment: Option<&EnvironmentName>,
        app: &AppName,
        request: &api::SuspendRequest,
    ) -> Result<api::App, ClientError> {
        self.post(app_route(environment, app, Some("suspend")), request).await
    }

    /// Ends the app's freeze.
    pub async fn resume(&self, environment: Option<&EnvironmentName>, app: &AppName) -> Result<api::App, ClientError> {
        self.post(app_route(environment, app, Some("resume")), &serde_json::Map::new()).await
    }

    /// Stops the app.
    pub async fn stop(
        &self,
        environment: Option<&EnvironmentName>,
        app: &AppName,
        request: &api::ReasonRequest,
    ) -> Result<api::Accepted, ClientError> {
        self.post(app_route(environment, app, Some("stop")), request).await
    }

    /// Other bounds for the instances of a function or web endpoint, until the next deployment.
    pub async fn scale(
        &self,
        environment: Option<&EnvironmentName>,
        app: &AppName,
        request: &api::ScaleRequest,
    ) -> Result<api::Scaled, ClientError> {
        self.post(app_route(environment, app, Some("scale")), request).await
    }

    /// Uploads a directory as a new version of the app whose manifest it holds. Everything in it is sent but
    /// `.git`; files keep their executable bit, symbolic links stay links.
    pub async fn deploy(
        &self,
        environment: Option<&EnvironmentName>,
        directory: &Path,
        reason: Option<&str>,
    ) -> Result<api::Accepted, ClientError> {
        let route = Route::new(&["deploy"]).with("environment", environment).with("reason", reason);
        let (body, packing) = pack::pack(directory.to_owned()).await?;
        let request = self
            .request(Method::POST, &route)
            .timeout(UPLOAD)
            .header("content-type", "application/x-tar")
            .body(reqwest::Body::wrap_stream(body));
        let answer = self.call(request, Method::POST, &route, UPLOAD).await;
        match answer {
            // The agent's own words say more than "the upload broke off"; a file that could not be read says more
            // than both.
            Err(error) if error.problem().is_none() => Err(packing.failure().await.unwrap_or(error)),
            other => other,
        }
    }

    /// One deployment.
    pub async fn deployment(&self, id: DeploymentId) -> Result<api::Deployment, ClientError> {
        self.get(Route::new(&["deployments", &id.to_string()])).await
    }

    /// Each change of a deployment, its present state first; ends after the one that is done.
    pub async fn follow_deployment(&self, id: DeploymentId) -> Result<Follow<api::Deployment>, ClientError> {
        self.follow(Route::new(&["deployments", &id.to_string(), "events"])).await
    }

    /// The agent's sources.
    pub async fn sources(&self) -> Result<Vec<api::Source>, ClientError> {
        self.get(Route::new(&["sources"])).await
    }

    /// One source.
    pub async fn source(&self, source: &SourceName) -> Result<api::Source, ClientError> {
        self.get(Route::new(&["sources", source.as_str()])).await
    }

    /// The certificates that clients are shown.
    pub async fn certificates(&self) -> Result<Vec<crate::wire::certificates::Certificate>, ClientError> {
        self.get(Route::new(&["certificates"])).await
    }

    /// The channels that people hear by.
    pub async fn channels(&self) -> Result<Vec<api::Channel>, ClientError> {
        self.get(Route::new(&["channels"])).await
    }

    /// Sends a message to a channel now.
    pub async fn test_channel(&self, channel: &str) -> Result<api::ChannelTested, ClientError> {
        self.post_within(LOOK, Route::new(&["channels", channel, "test"]), &serde_json::Map::new()).await
    }

    /// Freezes a source: it is not looked at until that ends.
    pub async fn suspend_source(
        &self,
        source: &SourceName,
        request: &api::SuspendRequest,
    ) -> Result<api::Source, ClientError> {
        self.post_within(LOOK, Route::new(&["sources", source.as_str(), "suspend"]), request).await
    }

    /// Ends the freeze of a source.
    pub async fn resume_source(&self, source: &SourceName) -> Result<api::Source, ClientError> {
        self.post_within(LOOK, Route::new(&["sources", source.as_str(), "resume"]), &serde_json::Map::new()).await
    }

    /// Looks at a source now; answers after the look.
    pub async fn sync(&self, source: &SourceName) -> Result<api::Source, ClientError> {
        let route = Route::new(&["sources", source.as_str(), "sync"]);
        self.post_within(LOOK, route, &serde_json::Map::new()).await
    }

    /// Lets a source have what waits: exactly what the request names.
    pub async fn approve(
        &self,
        source: &SourceName,
        request: &api::ApproveRequest,
    ) -> Result<api::Approved, ClientError> {
        let route = Route::new(&["sources", source.as_str(), "approve"]);
        self.post_within(LOOK, route, request).await
    }

    /// What the newest revisions would change, without doing it.
    pub async fn plan(&self, source: Option<&SourceName>) -> Result<Vec<api::PlanItem>, ClientError> {
        self.get_within(LOOK, Route::new(&["plan"]).with("source", source)).await
    }

    /// The instances, of one app or of all.
    pub async fn instances(
        &self,
        environment: Option<&EnvironmentName>,
        app: Option<&AppName>,
    ) -> Result<Vec<api::Instance>, ClientError> {
        self.get(Route::new(&["instances"]).with("environment", environment).with("app", app)).await
    }

    /// Has an instance finish what it has and end; another takes its place at once.
    pub async fn stop_instance(&self, instance: &str) -> Result<api::Instance, ClientError> {
        self.post(Route::new(&["instances", instance, "stop"]), &serde_json::Map::new()).await
    }

    /// Facts after the one with the number `after` (0: from the first), oldest first.
    pub async fn events(&self, after: i64, limit: u32) -> Result<Vec<api::EventRecord>, ClientError> {
        self.gather(Route::new(&["events"]).with("after", Some(after)), Some(limit)).await
    }

    /// The same, and then each fact as it happens, over restarts of the agent. With `after` below 0 the newest `limit`
    /// facts come first.
    pub async fn follow_events(&self, after: i64, limit: u32) -> Result<Follow<api::EventRecord>, ClientError> {
        let route = Route::new(&["events"]).with("after", Some(after)).with("limit", Some(limit));
        self.follow(route.with("follow", Some(true))).await
    }

    /// Entries of a long list, from as many pages as `limit` takes.
    async fn gather<T: DeserializeOwned>(&self, route: Route, limit: Option<u32>) -> Result<Vec<T>, ClientError> {
        let mut found: Vec<T> = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let had = u32::try_from(found.len()).unwrap_or(u32::MAX);
            let wanted = limit.map(|limit| limit.saturating_sub(had).min(PAGE));
            let page = route.clone().with("limit", wanted).with("cursor", cursor.take());
            let page: api::Page<T> = self.get(page).await?;
            found.extend(page.items);
            match page.next {
                Some(next) if limit.is_some_and(|limit| found.len() < limit as usize) => cursor = Some(next),
                Some(_) | None => return Ok(found),
            }
        }
    }

    async fn get<T: DeserializeOwned>(&self, route: Route) -> Result<T, ClientError> {
        self.get_within(ANSWER, route).await
    }

    async fn get_within<T: DeserializeOwned>(&self, after: Duration, route: Route) -> Result<T, ClientError> {
        let request = self.request(Method::GET, &route).timeout(after);
        self.call(request, Method::GET, &route, after).await
    }

    async fn post<T: DeserializeOwned>(&self, route: Route, body: &impl Serialize) -> Result<T, ClientError> {
        self.post_within(ANSWER, route, body).await
    }

    async fn post_within<T: DeserializeOwned>(
        &self,
        after: Duration,
        route: Route,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let what = format!("POST {}", route.as_str());
        let body = serde_json::to_vec(body).map_err(|error| self.protocol(&what, &error))?;
        let request =
            self.request(Method::POST, &route).timeout(after).header("content-type", "application/json").body(body);
        self.call(request, Method::POST, &route, after).await
    }

    async fn follow<T: DeserializeOwned>(&self, route: Route) -> Result<Follow<T>, ClientError> {
        let response = self.open(&route, None).await?;
        Ok(Follow::new(self.clone(), route, response))
    }

    /// Asks for a stream, from a place on.
    async fn open(&self, route: &Route, place: Option<&str>) -> Result<Response, ClientError> {
        let what = format!("GET {}", route.as_str());
        let mut request = self.request(Method::GET, route).header("accept", "text/event-stream");
        if let Some(place) = place {
            request = request.header("last-event-id", place);
        }
        let sent = tokio::time::timeout(ANSWER, send::send(request)).await;
        let response = match sent {
            Err(_) => return Err(self.timeout(&what, ANSWER)),
            Ok(sent) => sent.map_err(|error| self.failed(&what, ANSWER, &error))?,
        };
        if !response.status().is_success() {
            let refused = tokio::time::timeout(ANSWER, self.refused(&what, response)).await;
            return Err(refused.unwrap_or_else(|_| self.timeout(&what, ANSWER)));
        }
        Ok(response)
    }

    fn request(&self, method: Method, route: &Route) -> RequestBuilder {
        self.http.request(method, format!("{}{}", self.base, route.as_str()))
    }

    /// Sends a request whose timeout is already set, and reads its answer.
    async fn call<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
        method: Method,
        route: &Route,
        after: Duration,
    ) -> Result<T, ClientError> {
        let what = format!("{method} {}", route.as_str());
        let response = send::send(request).await.map_err(|error| self.failed(&what, after, &error))?;
        if !response.status().is_success() {
            return Err(self.refused(&what, response).await);
        }
        let body = self.read(&what, after, response).await?;
        serde_json::from_slice(&body).map_err(|error| self.protocol(&what, &error))
    }

    async fn read(&self, what: &str, after: Duration, mut response: Response) -> Result<Vec<u8>, ClientError> {
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|error| self.failed(what, after, &error))? {
            if body.len() + piece.len() > MAX_ANSWER {
                return Err(self.protocol(what, &"the answer is longer than 64 MiB"));
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }

    /// The error in an answer that is none of success.
    async fn refused(&self, what: &str, response: Response) -> ClientError {
        let status = response.status();
        match self.read(what, ANSWER, response).await {
            Err(error) => error,
            Ok(body) => match serde_json::from_slice::<api::Problem>(&body) {
                Ok(problem) => ClientError::Problem(problem),
                Err(_) => self.protocol(what, &format_args!("status {status} without a problem document")),
            },
        }
    }

    fn failed(&self, what: &str, after: Duration, error: &reqwest::Error) -> ClientError {
        if error.is_connect() {
            ClientError::NoAgent { target: self.target.clone(), why: describe(error) }
        } else if error.is_timeout() {
            self.timeout(what, after)
        } else {
            ClientError::Interrupted { target: self.target.clone(), what: what.to_owned(), why: describe(error) }
        }
    }

    fn timeout(&self, what: &str, after: Duration) -> ClientError {
        ClientError::Timeout { target: self.target.clone(), what: what.to_owned(), after }
    }

    fn protocol(&self, what: &str, why: &dyn fmt::Display) -> ClientError {
        ClientError::Protocol { target: self.target.clone(), what: what.to_owned(), why: why.to_string() }
    }
}

fn authorities(file: &Path) -> Result<Vec<reqwest::Certificate>, String> {
    let named = |error: &dyn fmt::Display| format!("the authorities of {} cannot be read: {error}", file.display());
    let pem = std::fs::read(file).map_err(|error| named(&error))?;
    reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| named(&error))
}

/// Marked as sensitive: it is not printed with the other headers.
fn bearer(token: &Secret) -> Result<reqwest::header::HeaderMap, String> {
    let value = reqwest::header::HeaderValue::from_str(&format!("Bearer {}", token.expose()));
    let mut value = value.map_err(|_| "the token has characters that no token has".to_owned())?;
    value.set_sensitive(true);
    Ok([(reqwest::header::AUTHORIZATION, value)].into_iter().collect())
}

fn app_route(environment: Option<&EnvironmentName>, app: &AppName, verb: Option<&str>) -> Route {
    let route = match verb {
        Some(verb) => Route::new(&["apps", app.as_str(), verb]),
        None => Route::new(&["apps", app.as_str()]),
    };
    route.with("environment", environment)
}

/// The innermost cause of an error of the HTTP library, which is the one that helps.
fn describe(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
