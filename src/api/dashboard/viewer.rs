//! Who looks at a page, and what they may do there.

use std::convert::Infallible;

use axum::extract::{FromRequestParts, Request};
use axum::middleware::Next;
use axum::response::Response;
use http::Extensions;
use http::request::Parts;
use maud::{Markup, html};

use super::super::session::Csrf;
use crate::domain::{Access, AppKey, Verb, Via};

/// Somebody with a browser.
#[derive(Debug, Clone, Default)]
pub struct Viewer {
    access: Option<Access>,
    /// What forms of this browser must bring.
    csrf: Option<String>,
}

impl Viewer {
    /// Of what the guard found out; nobody where it found out nothing.
    pub fn of(access: Option<Access>, csrf: Option<String>) -> Self {
        Self { access, csrf }
    }

    fn of_extensions(extensions: &Extensions) -> Self {
        Self::of(extensions.get::<Access>().cloned(), extensions.get::<Csrf>().map(|csrf| csrf.0.clone()))
    }

    /// Their name, once they have signed in.
    pub fn name(&self) -> Option<String> {
        let access = self.access.as_ref()?;
        match access.via {
            Via::Session(_) | Via::Person(_) | Via::Token(_) | Via::LocalUser => Some(access.actor.to_string()),
            Via::Loopback => None,
        }
    }

    /// Whether they may see this app.
    pub fn sees(&self, app: &AppKey) -> bool {
        self.access.as_ref().is_some_and(|access| access.sees(app))
    }

    /// Whether they have signed in: nobody else changes anything from a page.
    pub fn has_signed_in(&self) -> bool {
        self.csrf.is_some()
    }

    /// Whether a page shows them how to do this.
    pub fn acts(&self, verb: Verb, over: Option<&AppKey>) -> bool {
        self.has_signed_in() && self.may(verb, over)
    }

    /// What makes a form one of ours.
    pub fn csrf_field(&self) -> Markup {
        html! { @if let Some(csrf) = &self.csrf { input type="hidden" name="csrf" value=(csrf); } }
    }

    /// Whether they may do this, to an app or to the agent as a whole.
    pub fn may(&self, verb: Verb, over: Option<&AppKey>) -> bool {
        self.access.as_ref().is_some_and(|access| access.may(verb, over).is_ok())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Viewer {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self::of_extensions(&parts.extensions))
    }
}

/// The layer just behind the guard: tells the frame outside of it who looks.
pub async fn remember(request: Request, next: Next) -> Response {
    let viewer = Viewer::of_extensions(request.extensions());
    let mut response = next.run(request).await;
    response.extensions_mut().insert(viewer);
    response
}
