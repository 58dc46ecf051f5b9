//! The page where a browser signs in.

use axum::response::{IntoResponse, Response};
use maud::html;
use serde::Deserialize;

use super::super::extract::Asked;
use super::page::{Page, Section};
use super::viewer::Viewer;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct LoginQuery {
    failed: Option<String>,
    next: String,
}

/// `GET /login`: the form that `session` takes.
pub(super) async fn show(viewer: Viewer, Asked(query): Asked<LoginQuery>) -> Response {
    let body = html! {
        div.ask.signin {
            h1 { "Sign in" }
            p.muted { "With a token of this agent. " code { "landfall token create NAME --scope read,call,deploy" } " on its machine makes one." }
            @if query.failed.is_some() {
                p.notice.bad role="alert" { (super::icons::Icon::Bad.draw()) "The token is worth nothing: it is mistyped, revoked or over." }
            }
            form method="post" action="/login" {
                input type="hidden" name="next" value=(query.next);
                label for="token" { "Token" }
                input #token name="token" type="password" autocomplete="current-password" required autofocus spellcheck="false";
                div.buttons { button.primary { "Sign in" } a.button href="/" { "Only look" } }
            }
            @if let Some(name) = viewer.name() { p.muted { "You are " (name) " now." } }
        }
    };
    Page::new(Section::Elsewhere, "Sign in", body).into_response()
}
