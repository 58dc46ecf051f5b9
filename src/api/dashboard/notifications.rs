//! The channels that people hear by.

use axum::extract::State;
use maud::{Markup, html};

use super::super::routes::Shared;
use super::apps::Scene;
use super::icons::Icon;
use super::page::{Page, Section};
use super::parts::{self, Tone};
use super::viewer::Viewer;
use super::{Shown, deeds, sources};
use crate::domain::Verb;
use crate::wire::api::Channel;

/// `GET /notifications`
pub(super) async fn show(State(context): Shared, viewer: Viewer) -> Shown {
    let channels = context.engine().channels().await?;
    let scene = Scene::of(context.engine()).await?;
    Ok(Page::new(Section::Notifications, "Notifications", body(&channels, &scene, &viewer)).every(5))
}

fn body(channels: &[Channel], scene: &Scene, viewer: &Viewer) -> Markup {
    html! {
        div.head { h1 { "Notifications" } }
        @if channels.is_empty() {
            div.empty { p { "Nobody is told of anything." } p.muted { "Name a channel under " code { "notifications" } " in the agent's configuration: Slack, Discord, ntfy, e-mail, a webhook or a program." } }
        } @else {
            table {
                caption.quiet { "Channels" }
                thead { tr {
                    th scope="col" { "State" } th scope="col" { "Channel" } th scope="col" { "Kind" } th scope="col" { "Hears of" }
                    th scope="col" { "Messages" } th scope="col" { span.quiet { "Actions" } }
                } }
                tbody { @for channel in channels {
                    tr {
                        td { @if channel.standing.error.is_some() { (parts::badge(Tone::Bad, Icon::Bad, "failing")) } @else { (parts::badge(Tone::Good, Icon::Good, "working")) } }
                        th scope="row" { (channel.channel) }
                        td.muted { (channel.kind) }
                        td { (channel.events.join(", "))
                            @if let Some(apps) = &channel.apps { p.message { "of " @for (index, app) in apps.iter().enumerate() { @if index > 0 { ", " } (app) } } } }
                        td { (sources::standing(&channel.standing, scene)) }
                        td.act { (actions(channel, viewer)) }
                    }
                } }
            }
        }
    }
}

fn actions(channel: &Channel, viewer: &Viewer) -> Markup {
    html! {
        @if viewer.acts(Verb::Admin, None) {
            (deeds::button(&format!("/ui/channels/{}/test", channel.channel), "Send a test", viewer))
        }
    }
}
