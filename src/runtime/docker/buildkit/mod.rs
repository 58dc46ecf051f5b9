//! Builds by BuildKit, where the engine has it.
//!
//! `POST /build?version=2` takes the context as the classic builder does and answers with BuildKit's own reports. What a
//! build needs of whoever wants it, the engine asks for on a session.

mod messages;
mod progress;
mod session;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bollard::Docker;
use http::header::{CONTENT_TYPE, HOST};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use prost::Message;
use serde::Deserialize;

use super::Settings;
use super::connection::has_part;
use super::dial::{Body, dial};
use crate::domain::{Secret, base64};
use messages::StatusResponse;
use progress::Progress;

/// Most bytes of one report of the engine.
const REPORT: usize = 4 * 1024 * 1024;
/// Most bytes of what an engine says that refuses a build at once.
const REFUSAL: usize = 64 * 1024;

/// Why nothing was built.
#[derive(Debug)]
pub(super) enum BuildError {
    /// The engine does not answer any more.
    Lost(String),
    /// It says what is wrong.
    Failed(String),
}

/// What steps of a build may mount, by the identifiers of its Dockerfile.
pub(super) type Secrets = Arc<BTreeMap<String, Secret>>;

/// What is to be built.
pub(super) struct Wanted<'a> {
    pub dockerfile: &'a str,
    pub tag: &'a str,
    pub target: Option<&'a str>,
    pub args: HashMap<String, String>,
    pub labels: HashMap<String, String>,
    pub secrets: Secrets,
}

/// Whether the engine builds with BuildKit: Docker does since 18.09 (API 1.39), others that speak its API do not.
pub(super) async fn offered(client: &Docker) -> Result<bool, bollard::errors::Error> {
    let version = client.version().await?;
    let docker = has_part(&version, "Engine");
    let linux = version.os.is_none_or(|os| os == "linux");
    let api = version.api_version.unwrap_or_default();
    let new =
        api.split_once('.').and_then(|(major, minor)| Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?)));
    Ok(docker && linux && new.is_some_and(|version| version >= (1, 39)))
}

/// How `docker.registries` calls the host that BuildKit asks about.
fn hub_as_configured(host: &str) -> &str {
    match host {
        "registry-1.docker.io" | "index.docker.io" | "https://index.docker.io/v1/" => "docker.io",
        other => other,
    }
}

/// Builds; `on` is given what people should read, line by line.
pub(super) async fn build<F: Future<Output = ()>>(
    settings: &Settings,
    client: &Docker,
    wanted: &Wanted<'_>,
    context: Body,
    mut on: impl FnMut(Told) -> F,
) -> Result<(), BuildError> {
    let version = client.client_version();
    let path = format!("/v{}.{}", version.major_version, version.minor_version);
    let session = session::open(settings, &path, &wanted.secrets).await?;
    let mut sender = dial(settings).await.map_err(BuildError::Lost)?;
    let request = Request::post(wanted.place(&path, &session.id)?)
        .header(HOST, "engine")
        .header(CONTENT_TYPE, "application/x-tar")
        .body(context)
        .map_err(|error| BuildError::Failed(error.to_string()))?;
    let answer = sender.send_request(request).await.map_err(|error| BuildError::Lost(error.to_string()))?;
    let (head, body) = answer.into_parts();
    if head.status != StatusCode::OK {
        return Err(BuildError::Failed(refusal(head.status, body).await));
    }
    let mut reports = Reports { body, held: Vec::new() };
    let mut progress = Progress::default();
    while let Some(report) = reports.next().await? {
        if let Some(error) = report.error {
            return Err(BuildError::Failed(error));
        }
        if report.id.as_deref() != Some("moby.buildkit.trace") {
            continue;
        }
        // What cannot be read is news that nobody misses: how it ended is said in other reports.
        let status = report
            .aux
            .and_then(|aux| base64::decode(aux.as_str()?))
            .and_then(|bytes| StatusResponse::decode(&*bytes).ok());
        for told in status.map(|status| progress.take(status)).unwrap_or_default() {
            on(told).await;
        }
    }
    Ok(())
}

/// What people read of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    /// A step begins: `[2/4] RUN npm ci`.
    Step(String),
    /// A line for the log.
    Line(String),
}

impl Wanted<'_> {
    /// The request's path and query.
    fn place(&self, path: &str, session: &str) -> Result<String, BuildError> {
        let json = |map: &HashMap<String, String>| {
            serde_json::to_string(map).map_err(|error| BuildError::Failed(error.to_string()))
        };
        let (args, labels) = (json(&self.args)?, json(&self.labels)?);
        let mut query = vec![
            ("version", "2"),
            ("session", session),
            ("dockerfile", self.dockerfile),
            ("t", self.tag),
            ("buildargs", &args),
            ("labels", &labels),
            ("rm", "1"),
        ];
        query.extend(self.target.map(|target| ("target", target)));
        let url = reqwest::Url::parse_with_params(&format!("http://engine{path}/build"), query);
        let url = url.map_err(|error| BuildError::Failed(error.to_string()))?;
        Ok(format!("{}?{}", url.path(), url.query().unwrap_or_default()))
    }
}

/// One report of the engine.
#[derive(Debug, Deserialize)]
struct Report {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    aux: Option<serde_json::Value>,
    #[serde(default)]
    error: Option<String>,
}

/// JSON values, one for each line.
struct Reports {
    body: Incoming,
    held: Vec<u8>,
}

impl Reports {
    async fn next(&mut self) -> Result<Option<Report>, BuildError> {
        let mut looked = 0;
        loop {
            if let Some(end) = self.held[looked..].iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.held.drain(..=looked + end).collect();
                looked = 0;
                if line.trim_ascii().is_empty() {
                    continue;
                }
                let report = serde_json::from_slice(&line);
                return report.map(Some).map_err(|error| {
                    BuildError::Failed(format!("the engine's report of the build cannot be read: {error}"))
                });
            }
            looked = self.held.len();
            if looked > REPORT {
                return Err(BuildError::Failed(format!(
                    "the engine's report of the build has more than {REPORT} bytes"
                )));
            }
            match self.body.frame().await.transpose().map_err(|error| BuildError::Lost(error.to_string()))? {
                Some(frame) => self.held.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data)),
                None => return Ok(None),
            }
        }
    }
}

/// What the engine says that does not even begin.
async fn refusal(status: StatusCode, body: Incoming) -> String {
    #[derive(Deserialize)]
    struct Said {
        message: String,
    }
    let bytes = Limited::new(body, REFUSAL).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    serde_json::from_slice::<Said>(&bytes).map_or_else(|_| format!("the engine answers {status}"), |said| said.message)
}
