//! Changing an app from a page: first a page that says what will happen, then the change.
//!
//! ```text
//! GET /ui/apps/{app}/stop ─► what it means, a reason ─► POST the same ─► where its effect is seen
//! ```
//!
//! Invariant: only a browser that has signed in gets here, and only with what our own form gave it (`guard` and
//! `session` see to that); what is recorded says who, like every other change.

use axum::Form;
use axum::extract::{FromRequestParts, State};
use axum::response::Response;
use http::request::Parts;
use http::{StatusCode, Uri};
use jiff::{SignedDuration, Timestamp};
use maud::{Markup, html};
use serde::Deserialize;

use super::super::extract::{Asked, Named, name};
use super::super::problem::Refusal;
use super::super::routes::Shared;
use super::apps::Scene;
use super::page::{Page, Section, go_and_say};
use super::parts;
use super::viewer::Viewer;
use super::{Shown, app};
use crate::domain::{Access, AppKey, DeploymentId, Verb, VersionNumber, VersionStatus};
use crate::engine::{Caller, Engine};
use crate::wire::api::{
    App, AppState, ReasonRequest, ReleaseRequest, RollbackRequest, ScaleRequest, SuspendRequest, Version,
};

/// Somebody who has signed in: the only one whose forms are carried out.
pub(super) struct Signed(pub(super) Caller);

impl<S: Sync> FromRequestParts<S> for Signed {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Refusal> {
        match parts.extensions.get::<Access>() {
            Some(Access { actor, scope, via }) if via.is_session() => {
                Ok(Self(Caller { actor: actor.clone(), scope: scope.clone() }))
            }
            // A browser that reaches the agent's own socket, through a tunnel, would act for any page it shows.
            Some(_) | None => Err(Refusal::new(
                StatusCode::BAD_REQUEST,
                "forms are for browsers that have signed in",
                "sign in; programs use the routes below /v1",
            )),
        }
    }
}

/// What can be done to an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// An earlier version comes back.
    Rollback,
    /// A hold ends.
    Release,
    /// The live version starts afresh.
    Rollover,
    /// Nothing is deployed any more.
    Suspend,
    /// It is again.
    Resume,
    /// Everything of it ends.
    Stop,
    /// Another number of instances.
    Scale,
}

impl Action {
    const ALL: [Self; 7] =
        [Self::Rollback, Self::Release, Self::Rollover, Self::Scale, Self::Suspend, Self::Resume, Self::Stop];

    /// The word in its address.
    fn word(self) -> &'static str {
        match self {
            Action::Rollback => "rollback",
            Action::Release => "release",
            Action::Rollover => "rollover",
            Action::Suspend => "suspend",
            Action::Resume => "resume",
            Action::Stop => "stop",
            Action::Scale => "scale",
        }
    }

    /// The word on its button.
    fn name(self) -> &'static str {
        match self {
            Action::Rollback => "Roll back",
            Action::Release => "Release",
            Action::Rollover => "Roll over",
            Action::Suspend => "Suspend",
            Action::Resume => "Resume",
            Action::Stop => "Stop",
            Action::Scale => "Scale",
        }
    }

    /// What will happen.
    fn means(self) -> &'static str {
        match self {
            Action::Rollback => {
                "An earlier version comes back as a new one, beside what runs, and takes the traffic once it is healthy. \
                 Git does not undo that: the app is held until there is new content for it, or until it is released."
            }
            Action::Release => "The hold ends: what git asks for is deployed.",
            Action::Rollover => {
                "The live version starts afresh, as a new version with the same content: new instances beside the old, \
                 then the switch. No request is lost."
            }
            Action::Suspend => "What runs goes on; nothing is deployed to the app until it is resumed.",
            Action::Resume => "Deployments go on: what git asks for by now is deployed.",
            Action::Stop => {
                "All instances of the app finish what they have and end. Requests are refused and its schedules rest until \
                 there is new content in git, or somebody rolls it back or over."
            }
            Action::Scale => "Other bounds for the instances of an object, until the next deployment.",
        }
    }

    /// Whether it makes sense as things are.
    fn fits(self, app: &App) -> bool {
        match self {
            Action::Rollback | Action::Rollover => app.live_version.is_some() || app.stopped.is_some(),
            Action::Scale => app.live_version.is_some() && app.stopped.is_none(),
            Action::Release => app.hold.is_some(),
            Action::Suspend => app.suspension.is_none() && app.state != AppState::Stopped,
            Action::Resume => app.suspension.is_some(),
            Action::Stop => app.stopped.is_none(),
        }
    }
}

/// The way to what can be done to an app.
pub(super) fn buttons(app: &App, key: &AppKey, scene: &Scene, viewer: &Viewer) -> Markup {
    html! {
        @if viewer.acts(Verb::Deploy, Some(key)) {
            div.actions role="group" aria-label="Actions" {
                @for action in Action::ALL.into_iter().filter(|action| action.fits(app)) {
                    a.button.danger[action == Action::Stop] href=(scene.places.form(key, action.word())) { (action.name()) "…" }
                }
            }
        }
    }
}

/// The way back to a version.
pub(super) fn back_to(version: &Version, app: &App, scene: &Scene, viewer: &Viewer) -> Markup {
    let key = app::key_of(app);
    let was_good = matches!(version.status, VersionStatus::Superseded | VersionStatus::Live);
    html! {
        @if version.kept && !version.live && was_good && viewer.acts(Verb::Deploy, Some(&key)) {
            a.button.small href=(scene.places.form(&key, &format!("rollback?version={}", version.version.get()))) {
                "Roll back…" span.quiet { " to " (version.version) }
            }
        }
    }
}

/// What an address may say besides the action.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AskQuery {
    environment: Option<String>,
    version: Option<u32>,
}

fn action_of(uri: &Uri) -> Result<Action, Refusal> {
    let word = uri.path().rsplit('/').next().unwrap_or_default();
    let found = Action::ALL.into_iter().find(|action| action.word() == word);
    found.ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, "there is no such action", "go back to the app"))
}

/// `GET /ui/apps/{app}/…`
pub(super) async fn ask(
    State(context): Shared,
    uri: Uri,
    app: Named,
    viewer: Viewer,
    Asked(query): Asked<AskQuery>,
) -> Shown {
    let action = action_of(&uri)?;
    let key = context.app_key(&app.0, query.environment.as_ref())?;
    let engine = context.engine();
    let (app, scene) = (engine.app(key.clone()).await?, Scene::of(engine).await?);
    let versions = if action == Action::Rollback { engine.versions(key.clone()).await? } else { Vec::new() };
    let objects = if action == Action::Scale { objects(engine, &app).await? } else { Vec::new() };
    let place = scene.places.app(&key, "");
    let reason = !matches!(action, Action::Resume | Action::Scale);
    let body = html! {
        p.crumbs { a href="/" { "Apps" } " / " a href=(place) { (app.app) } }
        div.ask {
            h1 { (action.name()) " " (app.app) @if let Some(version) = query.version { " to v" (version) } "?" }
            p.muted { (action.means()) }
            form method="post" action=(scene.places.form(&key, action.word())) {
                (viewer.csrf_field())
                @if action == Action::Rollback { (version_field(&versions, query.version)) }
                @if action == Action::Scale { (scale_fields(&objects)) }
                @if action == Action::Release {
                    label.check { input type="checkbox" name="force" value="yes"; "Even if what git asks for is quarantined" }
                }
                @if reason {
                    label for="reason" { "Reason" span.hint { "Others see it in the history." } }
                    input #reason name="reason" maxlength="500" autocomplete="off" required[action == Action::Suspend];
                }
                @if matches!(action, Action::Rollback | Action::Suspend) { (until_field()) }
                div.buttons {
                    button.danger[action == Action::Stop].primary[action != Action::Stop] { (action.name()) " " (app.app) }
                    a.button href=(place) { "Cancel" }
                }
            }
        }
    };
    Ok(Page::new(Section::Apps, format!("{} {}", action.name(), key.app), body))
}

async fn objects(engine: &Engine, app: &App) -> Result<Vec<String>, Refusal> {
    let Some(id) = app.deployment else { return Ok(Vec::new()) };
    let deployment = engine.deployment(id).await?;
    Ok(deployment.objects.iter().map(|object| object.object.to_string()).collect())
}

fn version_field(versions: &[Version], chosen: Option<u32>) -> Markup {
    let possible = versions.iter().filter(|version| version.kept && !version.live);
    html! {
        label for="version" { "Version" }
        select #version name="version" {
            option value="" { "the newest earlier one that was healthy" }
            @for version in possible.filter(|version| version.status == VersionStatus::Superseded) {
                option value=(version.version.get()) selected[chosen == Some(version.version.get())] {
                    (version.version) @if let Some(subject) = &version.subject { ": " (subject) } @if version.quarantined { " (quarantined)" }
                }
            }
        }
    }
}

fn scale_fields(objects: &[String]) -> Markup {
    html! {
        label for="object" { "Object" }
        select #object name="object" { @for object in objects { option { (object) } } }
        label for="min" { "At least" }
        input #min name="min" type="number" min="0" max="1000" value="1" required;
        label for="max" { "At most" }
        input #max name="max" type="number" min="1" max="1000" value="1" required;
    }
}

fn until_field() -> Markup {
    html! {
        label for="for" { "Ends by itself" }
        select #for name="for" {
            option value="" { "no" }
            option value="3600" { "after an hour" }
            option value="28800" { "after 8 hours" }
            option value="86400" { "after a day" }
            option value="604800" { "after a week" }
        }
    }
}

/// What the forms bring.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Filled {
    reason: String,
    version: String,
    r#for: String,
    force: String,
    object: String,
    min: String,
    max: String,
}

impl Filled {
    fn reason(&self) -> Option<String> {
        let reason = self.reason.trim();
        (!reason.is_empty()).then(|| reason.to_owned())
    }

    fn until(&self) -> Option<Timestamp> {
        let seconds = self.r#for.parse().ok().filter(|seconds| *seconds > 0)?;
        Timestamp::now().checked_add(SignedDuration::from_secs(seconds)).ok()
    }

    fn version(&self) -> Result<Option<VersionNumber>, Refusal> {
        let version = Some(&self.version).filter(|text| !text.is_empty()).map(|text| text.parse()).transpose();
        version.map_err(|error: String| Refusal::invalid(error, "choose a version"))
    }

    fn number(what: &str, text: &str) -> Result<u32, Refusal> {
        text.parse().map_err(|_| Refusal::invalid(format!("`{what}` is no number"), "write a whole number"))
    }
}

/// `POST /ui/apps/{app}/…`
pub(super) async fn carry_out(
    State(context): Shared,
    uri: Uri,
    Signed(caller): Signed,
    app: Named,
    Asked(query): Asked<AskQuery>,
    Form(filled): Form<Filled>,
) -> Result<Response, Refusal> {
    let action = action_of(&uri)?;
    let key = context.app_key(&app.0, query.environment.as_ref())?;
    let (engine, reason) = (context.engine(), filled.reason());
    let to_app = super::parts::Places { home: engine.environment() }.app(&key, "");
    let seen_at = |deployment: Option<DeploymentId>| deployment.map_or(to_app.clone(), parts::deployment_place);
    let accepted = match action {
        Action::Rollback => {
            let request = RollbackRequest { version: filled.version()?, reason, until: filled.until(), propose: false };
            engine.rollback(caller, key, request).await?
        }
        Action::Release => {
            engine.release(caller, key, ReleaseRequest { force: !filled.force.is_empty(), reason }).await?
        }
        Action::Rollover => engine.rollover(caller, key, ReasonRequest { reason }).await?,
        Action::Stop => engine.stop(caller, key, ReasonRequest { reason }).await?,
        Action::Suspend => {
            let app = engine.suspend(caller, key, SuspendRequest { reason, until: filled.until() }).await?;
            return Ok(go_and_say(&to_app, &format!("{} is suspended.", app.app)));
        }
        Action::Resume => {
            let app = engine.resume(caller, key).await?;
            return Ok(go_and_say(&to_app, &format!("{} goes on.", app.app)));
        }
        Action::Scale => {
            let (min, max) = (Filled::number("at least", &filled.min)?, Filled::number("at most", &filled.max)?);
            let request = ScaleRequest { object: name("object", &filled.object)?, min: Some(min), max: Some(max) };
            let scaled = engine.scale(key, request).await?;
            let words =
                format!("{} has {} to {} instances until the next deployment.", scaled.object, scaled.min, scaled.max);
            return Ok(go_and_say(&to_app, &words));
        }
    };
    Ok(go_and_say(&seen_at(accepted.deployment), &accepted.message))
}
