//! What a page needs besides itself: one style sheet, one script, one icon. In the program, not on disk.
//!
//! Their addresses carry a hash of their content, so that browsers keep them for good and a new release is met at once.

use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use sha2::{Digest, Sha256};

use crate::domain::hex;

use super::super::extract::Named;
use super::super::problem::Refusal;

/// A file of the dashboard.
#[derive(Debug)]
pub struct Asset {
    /// Its name in the address: stem, hash, extension.
    name: String,
    media: &'static str,
    content: String,
}

/// All of them.
#[derive(Debug)]
pub struct Assets {
    /// How pages look.
    pub style: Asset,
    /// What keeps them up to date.
    pub script: Asset,
    /// The icon in the tab.
    pub icon: Asset,
}

/// They never change while the program runs.
pub static ASSETS: LazyLock<Assets> = LazyLock::new(|| Assets {
    style: Asset::new("style", "css", "text/css; charset=utf-8", include_str!("assets/style.css")),
    script: Asset::new("live", "js", "text/javascript; charset=utf-8", include_str!("assets/live.js")),
    icon: Asset::new("icon", "svg", "image/svg+xml", include_str!("assets/icon.svg")),
});

/// A year: the address changes when the content does.
const FOR_GOOD: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

impl Asset {
    fn new(stem: &str, extension: &str, media: &'static str, content: &str) -> Self {
        let content = without_comments(content);
        let digest = Sha256::digest(content.as_bytes());
        let hash = hex::encode(&digest[..8]);
        Self { name: format!("{stem}-{hash}.{extension}"), media, content }
    }

    /// Where it is.
    pub fn address(&self) -> String {
        format!("/ui/assets/{}", self.name)
    }

    /// How long it is, in bytes.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.content.len()
    }
}

/// What people read the files for and browsers do not: lines that are comments, and indentation.
fn without_comments(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// `GET /ui/assets/{name}`
pub async fn asset(name: Named) -> Result<Response, Refusal> {
    let all = [&ASSETS.style, &ASSETS.script, &ASSETS.icon];
    let found = all.into_iter().find(|asset| asset.name == name.0).ok_or_else(|| {
        Refusal::new(StatusCode::NOT_FOUND, "there is no such file in this release", "load the page again")
    })?;
    let headers = [(header::CONTENT_TYPE, HeaderValue::from_static(found.media)), (header::CACHE_CONTROL, FOR_GOOD)];
    Ok((headers, found.content.as_str()).into_response())
}
