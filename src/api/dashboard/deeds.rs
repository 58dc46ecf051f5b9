//! What a single button does: run or pause a schedule, cancel a call or try it anew, look at a source, approve what waits,
//! try a channel, revoke a token.

use axum::Form;
use axum::extract::{Path, State};
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;

use super::super::extract::{Asked, Named, name};
use super::super::problem::Refusal;
use super::super::routes::{Context, Shared};
use super::actions::Signed;
use super::calls::{call_id, function_key};
use super::page::go_and_say;
use super::viewer::Viewer;
use crate::domain::FunctionKey;
use crate::wire::api::{ApproveRequest, SuspendRequest};

type Done = Result<Response, Refusal>;

/// A form that is one button.
pub(super) fn button(place: &str, word: &str, viewer: &Viewer) -> Markup {
    html! { form.one method="post" action=(place) { (viewer.csrf_field()) button.small { (word) } } }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InEnvironment {
    environment: Option<String>,
}

fn function(
    context: &Context,
    (app, function): &(String, String),
    query: &InEnvironment,
) -> Result<(FunctionKey, String), Refusal> {
    let key = context.app_key(app, query.environment.as_ref())?;
    let places = super::parts::Places { home: context.engine().environment() };
    let place = places.app(&key, &format!("/schedules/{function}"));
    Ok((function_key(key, function)?, place))
}

/// `POST /ui/apps/{app}/schedules/{function}/run`
pub(super) async fn run(
    State(context): Shared,
    Signed(caller): Signed,
    Path(path): Path<(String, String)>,
    Asked(query): Asked<InEnvironment>,
) -> Done {
    let (key, place) = function(&context, &path, &query)?;
    let started = context.engine().run_schedule(caller, key).await?;
    let place = started.call.map_or(place, |call| format!("/calls/{call}"));
    Ok(go_and_say(&place, &format!("{} was started.", started.function)))
}

/// `POST /ui/apps/{app}/schedules/{function}/pause`
pub(super) async fn pause(
    State(context): Shared,
    Signed(caller): Signed,
    Path(path): Path<(String, String)>,
    Asked(query): Asked<InEnvironment>,
) -> Done {
    let (key, place) = function(&context, &path, &query)?;
    let request = SuspendRequest { reason: Some("in the dashboard".to_owned()), until: None };
    let schedule = context.engine().pause_schedule(caller, key, request).await?;
    Ok(go_and_say(&place, &format!("{} is paused.", schedule.function)))
}

/// `POST /ui/apps/{app}/schedules/{function}/resume`
pub(super) async fn resume(
    State(context): Shared,
    Signed(caller): Signed,
    Path(path): Path<(String, String)>,
    Asked(query): Asked<InEnvironment>,
) -> Done {
    let (key, place) = function(&context, &path, &query)?;
    let schedule = context.engine().resume_schedule(caller, key).await?;
    Ok(go_and_say(&place, &format!("{} starts by itself again.", schedule.function)))
}

/// `POST /ui/calls/{call}/cancel`
pub(super) async fn cancel(State(context): Shared, Signed(caller): Signed, id: Named) -> Done {
    let call = context.engine().cancel_call(caller, call_id(&id.0)?).await?;
    Ok(go_and_say(&format!("/calls/{}", call.call), "The call is being ended."))
}

/// `POST /ui/calls/{call}/redrive`
pub(super) async fn redrive(State(context): Shared, Signed(caller): Signed, id: Named) -> Done {
    let spawned = context.engine().redrive(caller, call_id(&id.0)?).await?;
    Ok(go_and_say(&format!("/calls/{}", spawned.call), "This call tries it anew."))
}

/// `POST /ui/sources/{source}/sync`
pub(super) async fn sync(State(context): Shared, Signed(caller): Signed, source: Named) -> Done {
    let source = context.engine().sync(caller, name("source", &source.0)?).await?;
    Ok(go_and_say(&format!("/sources/{}", source.source), "Looked at; what followed is decided."))
}

/// `POST /ui/sources/{source}/suspend`
pub(super) async fn suspend_source(State(context): Shared, Signed(caller): Signed, source: Named) -> Done {
    let request = SuspendRequest { reason: Some("in the dashboard".to_owned()), until: None };
    let source = context.engine().suspend_source(caller, name("source", &source.0)?, request).await?;
    Ok(go_and_say(&format!("/sources/{}", source.source), "Nothing is looked at until it is resumed."))
}

/// `POST /ui/sources/{source}/resume`
pub(super) async fn resume_source(State(context): Shared, Signed(caller): Signed, source: Named) -> Done {
    let source = context.engine().resume_source(caller, name("source", &source.0)?).await?;
    Ok(go_and_say(&format!("/sources/{}", source.source), "It is looked at again."))
}

/// What was shown and is approved.
#[derive(Deserialize)]
pub(super) struct Approval {
    wait: i64,
}

/// `POST /ui/sources/{source}/approve`
pub(super) async fn approve(
    State(context): Shared,
    Signed(caller): Signed,
    source: Named,
    Form(form): Form<Approval>,
) -> Done {
    let request = ApproveRequest { waits: vec![form.wait], reason: None };
    let done = context.engine().approve(caller, name("source", &source.0)?, request).await?;
    Ok(go_and_say(&format!("/sources/{}", done.source.source), &done.message))
}

/// `POST /ui/channels/{channel}/test`
pub(super) async fn test_channel(State(context): Shared, _: Signed, channel: Named) -> Done {
    let tested = context.engine().test_channel(&channel.0).await?;
    let words = if tested.delivered {
        format!("{} took the message.", channel.0)
    } else {
        format!("{} did not take it: {}", channel.0, tested.message)
    };
    Ok(go_and_say("/notifications", &words))
}

/// `POST /ui/tokens/{token}/revoke`
pub(super) async fn revoke(State(context): Shared, Signed(caller): Signed, token: Named) -> Done {
    let token = context.engine().revoke_token(caller, &token.0).await?;
    Ok(go_and_say("/settings", &format!("Token {} is worth nothing any more.", token.name)))
}
