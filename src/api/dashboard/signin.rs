//! The page where a browser signs in: with a token, or with the provider of identities if there is one.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use maud::html;
use serde::Deserialize;

use super::super::extract::Asked;
use super::super::routes::Shared;
use super::page::{Page, Section};
use super::parts::query_text;
use super::viewer::Viewer;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct LoginQuery {
    failed: Option<String>,
    next: String,
}

/// `GET /login`: the form that `session` takes.
pub(super) async fn show(State(context): Shared, viewer: Viewer, Asked(query): Asked<LoginQuery>) -> Response {
    let provider = context.engine().oidc_name();
    let body = html! {
        div.ask.signin {
            h1 { "Sign in" }
            @if let Some(provider) = &provider {
                // A link: what is behind a form's address would be another site's, and forms are for this one only.
                div.buttons { a.button.primary href={ "/login/oidc?next=" (query_text(&query.next)) } { "Sign in with " (provider) } }
            }
            p.muted { "With a token of this agent. " code { "landfall token create NAME --scope read,call,deploy" } " on its machine makes one." }
            @if query.failed.is_some() {
                p.notice.bad role="alert" { (super::icons::Icon::Bad.draw()) "The token is worth nothing: it is mistyped, revoked or over." }
            }
            form method="post" action="/login" {
                input type="hidden" name="next" value=(query.next);
                label for="token" { "Token" }
                input #token name="token" type="password" autocomplete="current-password" required autofocus[provider.is_none()] spellcheck="false";
                div.buttons { button.primary[provider.is_none()] { "Sign in" } a.button href="/" { "Only look" } }
            }
            @if let Some(name) = viewer.name() { p.muted { "You are " (name) " now." } }
        }
    };
    Page::new(Section::Elsewhere, "Sign in", body).into_response()
}
