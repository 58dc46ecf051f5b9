//! Commit statuses at GitHub, GitLab, and Gitea or Forgejo, as their APIs document them.
//!
//! One request per report, with a deadline. The token is read anew for each and goes nowhere but into its header;
//! redirects are not followed, so that it goes to nobody but the API that was configured.

use std::path::Path;

use reqwest::Client;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde_json::json;

use super::http::{self, Refusal};
use super::{Delivery, secret, shown};
use crate::decide::announce;
use crate::domain::{CommitReport, CommitState, EnvironmentName};
use crate::files::config::{ForgeKind, StatusReports};

/// The API of one source's forge.
#[derive(Debug)]
pub struct Forge {
    client: Client,
    reports: StatusReports,
    caller: Caller,
}

/// Who reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The agent's name.
    pub agent: String,
    /// Its environment, for what is about no app.
    pub environment: EnvironmentName,
    /// Where people reach it, for links.
    pub public_url: Option<String>,
}

impl Forge {
    /// Prepares to report; reads the file of authorities, if there is one, and starts no connection.
    pub fn new(reports: StatusReports, ca_file: Option<&Path>, caller: Caller) -> Result<Self, String> {
        Ok(Self { client: http::client(ca_file)?, reports, caller })
    }

    /// Tells one report.
    pub async fn deliver(&self, report: &CommitReport) -> Delivery {
        let later = |why: String| Delivery::Later { after: None, why };
        let token = match secret("token", &self.reports.token_file) {
            Ok(token) => token,
            Err(why) => return later(why),
        };
        let Some(headers) = self.headers(&token) else {
            // The token is not repeated: it is a secret.
            return later(format!("the token in {} holds characters no token has", self.reports.token_file.display()));
        };
        let request = self.client.post(self.address(report)).headers(headers).body(self.body(report).to_string());
        match http::send(request).await {
            Ok(()) => Delivery::Delivered,
            Err(Ok(refusal)) => self.judge(refusal, &token),
            Err(Err(why)) => later(shown(&why, &[&token])),
        }
    }

    fn address(&self, report: &CommitReport) -> String {
        let StatusReports { provider, api_url, repository, .. } = &self.reports;
        match provider {
            ForgeKind::GitHub | ForgeKind::Gitea => {
                format!("{api_url}/repos/{repository}/statuses/{}", report.commit)
            }
            ForgeKind::GitLab => {
                format!("{api_url}/projects/{}/statuses/{}", repository.replace('/', "%2F"), report.commit)
            }
        }
    }

    fn headers(&self, token: &str) -> Option<HeaderMap> {
        let hidden = |text: &str| {
            let mut value = HeaderValue::try_from(text).ok()?;
            value.set_sensitive(true);
            Some(value)
        };
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        match self.reports.provider {
            ForgeKind::GitHub => {
                headers.insert(ACCEPT, HeaderValue::from_static("application/vnd.github+json"));
                headers.insert("x-github-api-version", HeaderValue::from_static("2022-11-28"));
                headers.insert(AUTHORIZATION, hidden(&format!("Bearer {token}"))?);
            }
            ForgeKind::GitLab => {
                headers.insert("private-token", hidden(token)?);
            }
            ForgeKind::Gitea => {
                headers.insert(AUTHORIZATION, hidden(&format!("token {token}"))?);
            }
        }
        Some(headers)
    }

    fn body(&self, report: &CommitReport) -> serde_json::Value {
        let gitlab = self.reports.provider == ForgeKind::GitLab;
        let state = match report.state {
            CommitState::Pending => "pending",
            CommitState::Success => "success",
            CommitState::Failure if gitlab => "failed",
            CommitState::Failure => "failure",
            CommitState::Cancelled if gitlab => "canceled",
            CommitState::Cancelled => "error",
        };
        let place = report.app.as_ref().map_or_else(|| self.caller.environment.to_string(), ToString::to_string);
        let context = format!("landfall/{}/{place}", self.caller.agent);
        let mut body =
            json!({ "state": state, "context": context, "description": announce::description(&report.description) });
        if let (Some(url), Some(key)) = (&self.caller.public_url, &report.app) {
            body["target_url"] = json!(format!("{url}/v1/apps/{}?environment={}", key.app, key.environment));
        }
        body
    }

    fn judge(&self, refusal: Refusal, token: &str) -> Delivery {
        let Refusal { status, line, after, body } = refusal;
        // GitLab refuses a state that holds already; it was told before an answer was lost.
        if self.reports.provider == ForgeKind::GitLab && body.contains("Cannot transition status") {
            return Delivery::Delivered;
        }
        let mend = match status {
            401 => ": check the token in `status.token_file`",
            403 if after.is_none() => ": the token may not write commit statuses",
            404 => ": check `status.repository` and what the token may see",
            _ => "",
        };
        let why = shown(&format!("{} answers {line}{mend} {body}", self.reports.api_url), &[token]);
        match status {
            400 | 409 | 410 | 413 | 414 | 415 | 422 => Delivery::Never { why },
            _ => Delivery::Later { after, why },
        }
    }
}
