//! A configured channel, ready to be spoken to.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::Client;

use super::render::Templates;
use super::{Delivery, alertmanager, discord, email, exec, http, ntfy, secret, slack, webhook};
use crate::domain::Notice;
use crate::files::config::{ChannelConfig, ChannelKind};

/// A channel.
#[derive(Debug)]
pub struct Channel {
    client: Client,
    kind: ChannelKind,
    templates: Templates,
    reminder: Duration,
}

impl Channel {
    /// Prepares it; reads its file of authorities, if there is one, and starts no connection.
    pub fn new(config: &ChannelConfig) -> Result<Self, String> {
        let ca_file = match &config.kind {
            ChannelKind::Webhook { ca_file, .. } | ChannelKind::Alertmanager { ca_file, .. } => ca_file.as_deref(),
            ChannelKind::Slack { .. }
            | ChannelKind::Discord { .. }
            | ChannelKind::Ntfy { .. }
            | ChannelKind::Email(_)
            | ChannelKind::Exec { .. } => None,
        };
        Ok(Self {
            client: http::client(ca_file)?,
            kind: config.kind.clone(),
            templates: Templates { title: config.title.clone(), text: config.text.clone() },
            reminder: config.reminder,
        })
    }

    /// Tells it one notice.
    pub async fn deliver(&self, notice: &Notice) -> Delivery {
        match self.try_deliver(notice).await {
            Ok(delivery) => delivery,
            // A file that cannot be read can be mended, and is read anew then.
            Err(why) => Delivery::Later { after: None, why },
        }
    }

    async fn try_deliver(&self, notice: &Notice) -> Result<Delivery, String> {
        let templates = &self.templates;
        match &self.kind {
            ChannelKind::Slack { url_file } => {
                self.by_secret_url("Slack", url_file, &slack::body(notice, templates)).await
            }
            ChannelKind::Discord { url_file } => {
                self.by_secret_url("Discord", url_file, &discord::body(notice, templates)).await
            }
            ChannelKind::Ntfy { url, token_file } => {
                let (server, topic) = ntfy::split(url).ok_or_else(|| format!("{url} names no topic"))?;
                self.by_token(server, token_file.as_deref(), &ntfy::body(topic, notice, templates)).await
            }
            ChannelKind::Email(config) => Ok(email::send(config, notice, templates).await),
            ChannelKind::Webhook { url, secret_file, .. } => {
                let secret = secret("secret", secret_file)?;
                let request = webhook::sign(self.client.post(url), notice, &secret, Timestamp::now());
                Ok(http::deliver(request, url, &[&secret]).await)
            }
            ChannelKind::Alertmanager { url, token_file, .. } => {
                let body = alertmanager::body(notice, templates, self.reminder);
                self.by_token(&format!("{url}/api/v2/alerts"), token_file.as_deref(), &body).await
            }
            ChannelKind::Exec { command, timeout } => Ok(exec::run(command, *timeout, notice).await),
        }
    }

    /// To an address that is itself the secret.
    async fn by_secret_url(&self, place: &str, file: &Path, body: &serde_json::Value) -> Result<Delivery, String> {
        let text = secret("URL", file)?;
        let url = reqwest::Url::parse(&text).ok().filter(|url| matches!(url.scheme(), "https" | "http"));
        let url = url.ok_or_else(|| format!("{} holds no https:// address", file.display()))?;
        let request = json(self.client.post(url.clone()), body);
        Ok(http::deliver(request, place, &[&text, url.as_str(), url.path()]).await)
    }

    async fn by_token(&self, url: &str, token: Option<&Path>, body: &serde_json::Value) -> Result<Delivery, String> {
        let token = token.map(|file| secret("token", file)).transpose()?;
        let mut request = json(self.client.post(url), body);
        if let Some(token) = &token {
            request = request.bearer_auth(token);
        }
        Ok(http::deliver(request, url, &[token.as_deref().unwrap_or_default()]).await)
    }
}

fn json(request: reqwest::RequestBuilder, body: &serde_json::Value) -> reqwest::RequestBuilder {
    request.header(reqwest::header::CONTENT_TYPE, "application/json").body(body.to_string())
}
