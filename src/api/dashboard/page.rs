//! A page and the frame around it: head, navigation, who looks, light or dark, and what went wrong.
//!
//! A handler answers a [`Page`] or a refusal; [`dress`] puts either into the frame. So no handler knows the frame, and
//! a refusal by any layer (a name that is wrong, somebody who may not) is a page as well when a browser asks for pages.

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use maud::{DOCTYPE, Markup, html};
use serde::Deserialize;

use super::super::extract::Asked;
use super::assets::ASSETS;
use super::icons::{Icon, SIGNS};
use super::parts::{prose, query_text, text_of_query};
use super::viewer::Viewer;
use crate::domain::AppKey;
use crate::wire::api::Problem;

/// Nothing but what this host serves; no inline script, no inline style, nobody's frame.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; \
     base-uri 'none'; frame-ancestors 'none'",
);
/// The cookie that remembers light or dark.
const THEME: &str = "landfall_theme";
/// The cookie that carries what was done over to the next page.
const SAID: &str = "landfall_said";
/// Longest of those words.
const SAID_LENGTH: usize = 400;
/// It is said once.
const FORGOTTEN: HeaderValue = HeaderValue::from_static("landfall_said=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict");
/// A year.
const THEME_AGE: u32 = 31_536_000;

/// The parts of the dashboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// What runs.
    Apps,
    /// What was called.
    Calls,
    /// What runs by itself.
    Schedules,
    /// What is watched.
    Sources,
    /// What happened.
    Activity,
    /// Who hears of it.
    Notifications,
    /// The agent itself.
    Settings,
    /// None of them.
    Elsewhere,
}

const SECTIONS: [(Section, &str, &str); 7] = [
    (Section::Apps, "/", "Apps"),
    (Section::Calls, "/calls", "Calls"),
    (Section::Schedules, "/schedules", "Schedules"),
    (Section::Sources, "/sources", "Sources"),
    (Section::Activity, "/activity", "Activity"),
    (Section::Notifications, "/notifications", "Notifications"),
    (Section::Settings, "/settings", "Settings"),
];

/// What a handler answers.
#[derive(Debug, Clone)]
pub struct Page {
    title: String,
    section: Section,
    concerns: Option<AppKey>,
    /// Seconds between two looks, for what changes without anybody saying so.
    every: Option<u32>,
    status: StatusCode,
    body: Markup,
}

impl Page {
    /// A page.
    pub fn new(section: Section, title: impl Into<String>, body: Markup) -> Self {
        Self { title: title.into(), section, concerns: None, every: None, status: StatusCode::OK, body }
    }

    /// Only changes of this app change it.
    pub fn about(mut self, app: AppKey) -> Self {
        self.concerns = Some(app);
        self
    }

    /// Looked at anew this often, whatever happens.
    pub fn every(mut self, seconds: u32) -> Self {
        self.every = Some(seconds);
        self
    }

    fn of_problem(problem: &Problem) -> Self {
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let heading = match status {
            StatusCode::NOT_FOUND => "Not found",
            StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => "Not allowed",
            StatusCode::CONFLICT => "Not possible now",
            StatusCode::SERVICE_UNAVAILABLE => "Not available now",
            _ if status.is_client_error() => "That did not work",
            _ => "Something is broken",
        };
        let body = html! {
            div.problem {
                p.code { (problem.status) }
                h1 { (heading) }
                p.what { (prose(&problem.title)) }
                @if !problem.detail.is_empty() { p.muted { (prose(&problem.detail)) } }
                @if !problem.mend.is_empty() { p.muted { (prose(&problem.mend)) } }
                p { a.button href="/" { "Go to the apps" } }
            }
        };
        Self { status, ..Self::new(Section::Elsewhere, heading, body) }
    }
}

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Light or dark, or as the system has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Theme {
    /// As the system has it.
    System,
    /// Dark on light.
    Light,
    /// Light on dark.
    Dark,
}

impl Theme {
    fn of(headers: &HeaderMap) -> Self {
        match cookie(headers, THEME).as_deref() {
            Some("light") => Theme::Light,
            Some("dark") => Theme::Dark,
            Some(_) | None => Theme::System,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Theme::System => "system",
            Theme::Light => "light",
            Theme::Dark => "dark",
        }
    }
}

/// The value of a cookie.
pub(super) fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = all.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(found, _)| *found == name).map(|(_, value)| value.to_owned())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ThemeQuery {
    to: Theme,
    back: String,
}

/// `GET /ui/theme`: remembers the choice in a cookie, which changes nothing but how pages look.
pub(super) async fn choose_theme(Asked(query): Asked<ThemeQuery>) -> Response {
    let cookie = format!("{THEME}={}; Path=/; Max-Age={THEME_AGE}; SameSite=Strict", query.to.word());
    let mut response = StatusCode::SEE_OTHER.into_response();
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response.headers_mut().insert(header::LOCATION, own_place(&query.back));
    response
}

/// On to another page, which says what was done.
pub(super) fn go_and_say(place: &str, words: &str) -> Response {
    let words: String = words.chars().take(SAID_LENGTH).collect();
    let cookie = format!("{SAID}={}; Path=/; Max-Age=60; HttpOnly; SameSite=Strict", query_text(&words));
    let mut response = StatusCode::SEE_OTHER.into_response();
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response.headers_mut().insert(header::LOCATION, own_place(place));
    response
}

/// A place of this site to go to; never another's.
pub(super) fn own_place(text: &str) -> HeaderValue {
    let own = text.starts_with('/') && !text.starts_with("//") && !text.contains('\\');
    let place = if own { HeaderValue::from_str(text).ok() } else { None };
    place.unwrap_or(HeaderValue::from_static("/"))
}

/// Whether the one who asks reads pages, and not what the API answers programs.
fn wants_page(path: &str, headers: &HeaderMap) -> bool {
    let accepts = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    !path.starts_with("/v1/") && path != "/metrics" && accepts.contains("text/html")
}

/// The layer that puts pages and problems into the frame.
pub async fn dress(request: Request, next: Next) -> Response {
    let page_wanted = wants_page(request.uri().path(), request.headers());
    let here = match request.uri().path_and_query() {
        // What a provider of identities sent along is used up, and nothing to come back to.
        Some(here) if !here.path().starts_with("/login/") => here.to_string(),
        Some(_) | None => "/".to_owned(),
    };
    let theme = Theme::of(request.headers());
    let said = cookie(request.headers(), SAID).and_then(|coded| text_of_query(&coded));
    let mut response = next.run(request).await;
    let viewer = response.extensions_mut().remove::<Viewer>().unwrap_or_default();
    let page = match response.extensions_mut().remove::<Page>() {
        Some(page) => page,
        None if page_wanted => match response.extensions_mut().remove::<Problem>() {
            Some(problem) => Page::of_problem(&problem),
            None => return response,
        },
        None => return response,
    };
    let text = frame(&page, &viewer, theme, &here, said.as_deref()).into_string();
    let (mut head, _) = response.into_parts();
    head.status = page.status;
    let to = &mut head.headers;
    to.remove(header::CONTENT_LENGTH);
    if said.is_some() {
        to.append(header::SET_COOKIE, FORGOTTEN);
    }
    to.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    to.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    to.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    to.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    to.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    Response::from_parts(head, Body::from(text))
}

/// The frame around a page.
fn frame(page: &Page, viewer: &Viewer, theme: Theme, here: &str, said: Option<&str>) -> Markup {
    let concerns = page.concerns.as_ref().map(|app| format!("{}/{}", app.environment, app.app));
    html! {
        (DOCTYPE)
        html lang="en" data-theme=(theme.word()) {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (page.title) " · Landfall" }
                link rel="icon" type="image/svg+xml" href=(ASSETS.icon.address());
                link rel="stylesheet" href=(ASSETS.style.address());
                script type="module" src=(ASSETS.script.address()) {}
            }
            body {
                (SIGNS)
                a.skip href="#main" { "Skip to the content" }
                header.top {
                    a.brand href="/" { img src=(ASSETS.icon.address()) alt="" width="20" height="20"; "Landfall" }
                    nav aria-label="Landfall" {
                        ul {
                            @for (section, address, name) in SECTIONS {
                                li { a href=(address) aria-current=[(section == page.section).then_some("page")] { (name) } }
                            }
                        }
                    }
                    div.tools {
                        span.mark #mark hidden { span.dot {} span.word { "connecting" } }
                        (theme_switch(theme, here))
                        @match viewer.name() {
                            Some(name) => span.who { (name) },
                            None => a href={ "/login?next=" (query_text(here)) } title="Nobody has signed in: pages only read" { "Sign in" },
                        }
                        @if viewer.has_signed_in() {
                            form.one method="post" action="/logout" { (viewer.csrf_field()) button.small { "Sign out" } }
                        }
                    }
                }
                @if let Some(said) = said { div.said role="status" { p.notice.good { (Icon::Good.draw()) span { (prose(said)) } } } }
                main #main tabindex="-1" data-about=[concerns] data-every=[page.every] { (page.body) }
                div #news role="status" aria-live="polite" {}
            }
        }
    }
}

/// Works without script: each button leads back to this page in another light.
fn theme_switch(theme: Theme, here: &str) -> Markup {
    let choices = [(Theme::System, "Auto"), (Theme::Light, "Light"), (Theme::Dark, "Dark")];
    html! {
        form.theme action="/ui/theme" method="get" aria-label="Light or dark" {
            input type="hidden" name="back" value=(here);
            @for (choice, word) in choices {
                button name="to" value=(choice.word()) aria-pressed=(if choice == theme { "true" } else { "false" }) { (word) }
            }
        }
    }
}
