//! The secrets that are stored: names, revisions, which apps use them. Never a value.

use axum::Form;
use axum::extract::State;
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;

use super::super::extract::{Asked, name, optional_name};
use super::super::problem::Refusal;
use super::super::routes::Shared;
use super::Shown;
use super::actions::Signed;
use super::apps::Scene;
use super::icons::Icon;
use super::page::{Page, Section, go_and_say};
use super::parts::{self, Tone};
use super::settings::{self, Tab};
use super::viewer::Viewer;
use crate::domain::{AppName, EnvironmentName, SecretName, Verb};
use crate::engine::SecretUse;
use crate::wire::secrets::{NamedSecret, Secret, SetSecret};

/// `GET /secrets`
pub(super) async fn show(State(context): Shared, viewer: Viewer) -> Shown {
    let engine = context.engine();
    let (secrets, uses) = (engine.secrets().await?, engine.secret_uses().await?);
    let scene = Scene::of(engine).await?;
    Ok(Page::new(Section::Settings, "Secrets", body(&secrets, &uses, &scene, &viewer)))
}

/// Whether a stored secret is the one that this app gets: its own wins over that of all.
fn reaches(secret: &Secret, all: &[Secret], using: &SecretUse) -> bool {
    let named = |other: &Secret| other.secret == using.secret && other.environment == using.app.environment;
    match &secret.app {
        _ if !named(secret) => false,
        Some(app) => *app == using.app.app,
        None => !all.iter().any(|other| named(other) && other.app.as_ref() == Some(&using.app.app)),
    }
}

/// The page's body.
pub(super) fn body(secrets: &[Secret], uses: &[SecretUse], scene: &Scene, viewer: &Viewer) -> Markup {
    let acts = viewer.acts(Verb::Admin, None);
    let elsewhere: Vec<&SecretUse> =
        uses.iter().filter(|using| !secrets.iter().any(|secret| reaches(secret, secrets, using))).collect();
    html! {
        div.head { h1 { "Settings" } }
        (settings::tabs(Tab::Secrets, viewer))
        @if secrets.is_empty() && elsewhere.is_empty() {
            div.empty { p { "No secret is stored, and no app asks for one." } p.muted { "A manifest names them: " code { "secrets: {TOKEN: token}" } } }
        } @else {
            table {
                caption.quiet { "Secrets; never what they are" }
                thead { tr {
                    th scope="col" { "Secret" } th scope="col" { "For" } th.number scope="col" { "Revision" } th scope="col" { "Used by" }
                    th scope="col" { "Set by" } th scope="col" { "When" } th scope="col" { span.quiet { "Actions" } }
                } }
                tbody {
                    @for secret in secrets {
                        tr {
                            th.mono scope="row" { (secret.secret) }
                            td { (place(secret.app.as_ref(), &secret.environment, scene)) }
                            td.number { (secret.revision) }
                            td { (users(&uses.iter().filter(|using| reaches(secret, secrets, using)).collect::<Vec<_>>(), scene)) }
                            td { (secret.set_by) }
                            td.when { (parts::time(secret.set_at, scene.now)) }
                            td.act { @if acts { a.button.small href=(removal(secret)) { "Remove…" span.quiet { " " (secret.secret) } } } }
                        }
                    }
                    @for using in elsewhere {
                        tr {
                            th.mono scope="row" { (using.secret) }
                            td { (place(Some(&using.app.app), &using.app.environment, scene)) }
                            td.number { (parts::dash()) }
                            td { (users(&[using], scene)) }
                            td colspan="3" { (parts::badge(Tone::Quiet, Icon::Idle, "not stored here")) p.message { "from a provider, or missing" } }
                        }
                    }
                }
            }
        }
        @if acts { (set_form(scene, viewer)) }
    }
}

fn place(app: Option<&AppName>, environment: &EnvironmentName, scene: &Scene) -> Markup {
    html! {
        @match app { Some(app) => a href=(scene.places.of(environment, app)) { (app) }, None => "all apps" }
        @if *environment != scene.places.home { " " span.tag { (environment) } }
    }
}

fn users(uses: &[&SecretUse], scene: &Scene) -> Markup {
    html! {
        @if uses.is_empty() { (parts::dash()) }
        @for (index, using) in uses.iter().enumerate() {
            @if index > 0 { ", " } a href=(scene.places.app(&using.app, "")) { (using.app.app) } " " span.muted.mono { (using.variable) }
        }
    }
}

fn removal(secret: &Secret) -> String {
    let app = secret.app.as_ref().map(AppName::as_str).unwrap_or_default();
    let pairs = [("secret", secret.secret.as_str()), ("environment", secret.environment.as_str()), ("app", app)];
    format!("/ui/secrets/remove{}", parts::query(&pairs))
}

fn set_form(scene: &Scene, viewer: &Viewer) -> Markup {
    html! {
        section.ask aria-labelledby="set" {
            h2 #set { "Set a secret" }
            p.muted { "A new value is a new revision: new instances get it, a rollover renews all. It is sealed at once and shown to nobody." }
            form method="post" action="/ui/secrets" autocomplete="off" {
                (viewer.csrf_field())
                label { "Name " input name="secret" required spellcheck="false"; }
                label { "App " span.hint { "left out: for all apps of the environment" } input name="app" spellcheck="false"; }
                label { "Environment " input name="environment" placeholder=(scene.places.home) spellcheck="false"; }
                label { "Value " input name="value" type="password" required autocomplete="new-password"; }
                div.buttons { button.primary { "Store it" } }
            }
        }
    }
}

/// Which secret, as a form or an address says it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Which {
    secret: String,
    environment: String,
    app: String,
}

impl Which {
    fn read(&self) -> Result<(SecretName, Option<EnvironmentName>, Option<AppName>), Refusal> {
        let said = |text: &String| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        Ok((
            name("secret", self.secret.trim())?,
            optional_name("environment", said(&self.environment).as_ref())?,
            optional_name("app", said(&self.app).as_ref())?,
        ))
    }
}

/// A value on its way to be sealed. Not printed by anything.
#[derive(Deserialize)]
pub(super) struct SetForm {
    #[serde(flatten)]
    which: Which,
    value: String,
}

/// `POST /ui/secrets`
pub(super) async fn set(
    State(context): Shared,
    Signed(caller): Signed,
    Form(form): Form<SetForm>,
) -> Result<Response, Refusal> {
    let (secret, environment, app) = form.which.read()?;
    let request = SetSecret { secret, environment, app, value: form.value };
    let stored = context.engine().set_secret(caller, request).await?;
    Ok(go_and_say("/secrets", &format!("{} is stored, revision {}.", stored.secret, stored.revision)))
}

/// `GET /ui/secrets/remove`
pub(super) async fn ask_removal(viewer: Viewer, Asked(which): Asked<Which>) -> Shown {
    let (secret, environment, app) = which.read()?;
    let whose = match (&app, &environment) {
        (Some(app), _) => format!("of {app}"),
        (None, Some(environment)) => format!("of all apps of {environment}"),
        (None, None) => "of all apps".to_owned(),
    };
    let body = html! {
        p.crumbs { a href="/secrets" { "Secrets" } }
        div.ask {
            h1 { "Remove " (secret) }
            p { "The secret " code { (secret) } " " (whose) " is removed. What runs keeps the value it was given; an instance that starts later and needs it does not start." }
            form method="post" action="/ui/secrets/remove" {
                (viewer.csrf_field())
                input type="hidden" name="secret" value=(which.secret);
                input type="hidden" name="environment" value=(which.environment);
                input type="hidden" name="app" value=(which.app);
                div.buttons { button.danger { "Remove " (secret) } a.button href="/secrets" { "Leave it" } }
            }
        }
    };
    Ok(Page::new(Section::Settings, format!("Remove {secret}"), body))
}

/// `POST /ui/secrets/remove`
pub(super) async fn remove(
    State(context): Shared,
    Signed(caller): Signed,
    Form(which): Form<Which>,
) -> Result<Response, Refusal> {
    let (secret, environment, app) = which.read()?;
    let words = format!("{secret} is removed.");
    context.engine().remove_secret(caller, NamedSecret { secret, environment, app }).await?;
    Ok(go_and_say("/secrets", &words))
}
