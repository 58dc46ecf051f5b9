//! The dashboard: what the API says, as pages for people.
//!
//! ```text
//! request ─► dress ─► handler: engine ─► Page (title, body) or Refusal
//!              └─◄─ the frame around either, as the one who asks may see it ◄─┘
//! ```
//!
//! | file | what |
//! |---|---|
//! | `page` | what a handler answers, and the frame around it |
//! | `viewer` | who looks, and what they may do |
//! | `parts`, `icons`, `charts`, `forge` | pieces that several pages share |
//! | `live` | tells open pages that something has changed |
//! | `actions`, `deeds`, `signin` | what changes something: asked first, or by one button; and who may |
//! | `assets` | the style sheet, the script and the icon |
//! | the rest | one file per page |
//!
//! Neighbours: `engine`, which answers everything; `guard`, which lets requests in. Invariants: every text that comes
//! from outside goes through maud's escaping; a page needs nothing from another host, no inline script and no inline
//! style, and the browser is told so; every page reads without JavaScript; nothing is changed by a GET.

mod actions;
mod activity;
mod app;
mod apps;
mod assets;
mod audit;
mod calls;
mod certificates;
mod charts;
mod deeds;
mod deployment;
mod diff;
mod forge;
mod functions;
mod hour;
mod icons;
mod live;
mod logs;
mod notifications;
mod page;
mod parts;
mod requests;
mod schedules;
mod secrets;
mod settings;
mod signin;
mod sources;
mod versions;
mod viewer;

use axum::Router;
use axum::routing::{get, post};

use super::problem::Refusal;
use super::routes::Context;

pub(super) use page::{Page, Section, dress};
pub(super) use viewer::remember;

/// What a page's handler answers.
type Shown = Result<Page, Refusal>;

/// The routes, for the router of all.
pub(super) fn routes() -> Router<Context> {
    Router::new()
        .route("/", get(apps::show))
        .route("/apps/{app}", get(app::show))
        .route("/apps/{app}/versions", get(versions::show))
        .route("/apps/{app}/diff", get(diff::show))
        .route("/apps/{app}/logs", get(logs::show))
        .route("/apps/{app}/schedules/{function}", get(schedules::one))
        .route("/apps/{app}/functions/{function}", get(functions::one))
        .route("/deployments/{deployment}", get(deployment::show))
        .route("/calls", get(calls::list))
        .route("/calls/{call}", get(calls::one))
        .route("/schedules", get(schedules::list))
        .route("/sources", get(sources::list))
        .route("/sources/{source}", get(sources::one))
        .route("/activity", get(activity::show))
        .route("/notifications", get(notifications::show))
        .route("/settings", get(settings::show))
        .route("/certificates", get(certificates::show))
        .route("/secrets", get(secrets::show))
        .route("/audit", get(audit::show))
        .route("/ui/secrets", post(secrets::set))
        .route("/ui/secrets/remove", get(secrets::ask_removal).post(secrets::remove))
        .route("/login", get(signin::show))
        .route("/ui/live", get(live::live))
        .route("/ui/apps/{app}/logs", get(logs::follow))
        .route("/ui/theme", get(page::choose_theme))
        .route("/ui/assets/{name}", get(assets::asset))
        .route("/ui/apps/{app}/rollback", get(actions::ask).post(actions::carry_out))
        .route("/ui/apps/{app}/release", get(actions::ask).post(actions::carry_out))
        .route("/ui/apps/{app}/rollover", get(actions::ask).post(actions::carry_out))
        .route("/ui/apps/{app}/suspend", get(actions::ask).post(actions::carry_out))
        .route("/ui/apps/{app}/resume", get(actions::ask).post(actions::carry_out))
        .route("/ui/apps/{app}/stop", get(actions::ask).post(actions::carry_out))
        .route("/ui/apps/{app}/scale", get(actions::ask).post(actions::carry_out))
        .route("/ui/apps/{app}/schedules/{function}/run", post(deeds::run))
        .route("/ui/apps/{app}/schedules/{function}/pause", post(deeds::pause))
        .route("/ui/apps/{app}/schedules/{function}/resume", post(deeds::resume))
        .route("/ui/calls/{call}/cancel", post(deeds::cancel))
        .route("/ui/calls/{call}/redrive", post(deeds::redrive))
        .route("/ui/sources/{source}/sync", post(deeds::sync))
        .route("/ui/sources/{source}/approve", post(deeds::approve))
        .route("/ui/sources/{source}/suspend", post(deeds::suspend_source))
        .route("/ui/sources/{source}/resume", post(deeds::resume_source))
        .route("/ui/channels/{channel}/test", post(deeds::test_channel))
        .route("/ui/tokens/{token}/revoke", post(deeds::revoke))
}

#[cfg(test)]
mod tests;
