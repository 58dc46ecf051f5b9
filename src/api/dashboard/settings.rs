//! The agent itself: what is wrong, its processes, where it listens, its configuration.

use axum::extract::State;
use maud::{Markup, html};

use super::super::routes::Shared;
use super::apps::Scene;
use super::icons::Icon;
use super::page::{Page, Section};
use super::viewer::Viewer;
use super::{Shown, deeds, parts};
use crate::domain::Verb;
use crate::wire::api::{Process, Status};
use crate::wire::tokens::Token;

/// A page about the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tab {
    /// Its processes and its configuration.
    Agent,
    /// What clients are shown over HTTPS.
    Certificates,
    /// What only apps see.
    Secrets,
    /// Who changed what.
    Audit,
}

/// The way between the pages about the agent, those this viewer may see.
pub(super) fn tabs(tab: Tab, viewer: &Viewer) -> Markup {
    let all = [
        (Tab::Agent, "/settings", "Agent", Verb::Read),
        (Tab::Certificates, "/certificates", "Certificates", Verb::Read),
        (Tab::Secrets, "/secrets", "Secrets", Verb::Admin),
        (Tab::Audit, "/audit", "Audit", Verb::Admin),
    ];
    html! {
        nav.tabs aria-label="Settings" {
            @for (each, address, name, verb) in all {
                @if viewer.may(verb, None) { a href=(address) aria-current=[(each == tab).then_some("page")] { (name) } }
            }
        }
    }
}

/// `GET /settings`
pub(super) async fn show(State(context): Shared, viewer: Viewer) -> Shown {
    let status = context.engine().status().await?;
    let tokens = if viewer.may(Verb::Admin, None) { context.engine().tokens().await? } else { Vec::new() };
    let scene = Scene::of(context.engine()).await?;
    Ok(Page::new(Section::Settings, "Settings", body(&status, &tokens, &scene, &viewer)).every(10))
}

/// The page's body.
pub(super) fn body(status: &Status, tokens: &[Token], scene: &Scene, viewer: &Viewer) -> Markup {
    html! {
        div.head {
            h1 { "Settings" }
            @if status.healthy { (parts::badge(parts::Tone::Good, Icon::Good, "healthy")) }
            @else { (parts::badge(parts::Tone::Warn, Icon::Alarm, &format!("{} to look at", status.problems.len()))) }
        }
        (tabs(Tab::Agent, viewer))
        @for problem in &status.problems { section.notice.warn aria-label="Something to look at" { (Icon::Alarm.draw()) p.text { (parts::prose(problem)) } } }
        div.columns.even {
            section aria-labelledby="processes" {
                h2 #processes { "Processes" }
                table {
                    caption.quiet { "The agent's processes" }
                    thead { tr { th scope="col" { "Process" } th.number scope="col" { "Pid" } th scope="col" { "Version" } th scope="col" { "Started" } } }
                    tbody {
                        (process("supervisor", Some(&status.processes.supervisor), scene))
                        (process("controller", Some(&status.processes.controller), scene))
                        (process("proxy", status.processes.proxy.as_ref(), scene))
                        @for proxy in &status.processes.draining_proxies { (process("proxy, draining", Some(proxy), scene)) }
                    }
                }
            }
            section aria-labelledby="agent" {
                h2 #agent { "Agent" }
                dl {
                    dt { "Environment" } dd { (status.environment) }
                    dt { "Apps answer at" } dd { @for address in &status.listen.proxy { span.mono { (address) } " " } "under " span.mono { (status.listen.domain) } }
                    dt { "API socket" } dd.mono { (status.listen.api_socket) }
                    dt { "API address" } dd { @match &status.listen.api { Some(address) => span.mono { (address) }, None => "none" } }
                    dt { "Data" } dd.mono { (status.data_dir) }
                    @if let Some(configuration) = &status.configuration {
                        dt { "Configuration" } dd { span.mono { (configuration.file.as_deref().unwrap_or("none: defaults")) } ", read " (parts::time(configuration.read_at, scene.now)) }
                        @if !configuration.at_next_start.is_empty() { dt { "At the next start" } dd { (configuration.at_next_start.join(", ")) } }
                    }
                    @if let Some(zones) = &status.time_zones {
                        dt { "Time zones" } dd { @match &zones.system { Some(system) => { (system) " of this machine" }, None => { (zones.bundled) " of the program" } } }
                    }
                    dt { "Instances" } dd { (status.instances) }
                }
            }
        }
        @if !tokens.is_empty() { (token_table(tokens, scene, viewer)) }
    }
}

fn token_table(tokens: &[Token], scene: &Scene, viewer: &Viewer) -> Markup {
    html! {
        section aria-labelledby="tokens" {
            h2 #tokens { "Tokens" }
            table {
                caption.quiet { "Tokens; never what they are themselves" }
                thead { tr {
                    th scope="col" { "Token" } th scope="col" { "Of" } th scope="col" { "Scope" } th scope="col" { "Last used" }
                    th scope="col" { "Ends" } th scope="col" { span.quiet { "Actions" } }
                } }
                tbody { @for token in tokens {
                    tr {
                        th scope="row" { (token.name) }
                        td { (token.actor) }
                        td.mono { (token.scope) }
                        td { (parts::maybe_time(token.last_used_at, scene.now)) }
                        td { @match (token.revoked_at, token.expires_at) {
                            (Some(at), _) => { "revoked " (parts::time(at, scene.now)) },
                            (None, Some(at)) => (parts::time(at, scene.now)),
                            (None, None) => "never",
                        } }
                        td.act { @if token.revoked_at.is_none() && viewer.acts(Verb::Admin, None) {
                            (deeds::button(&format!("/ui/tokens/{}/revoke", token.name), "Revoke", viewer))
                        } }
                    }
                } }
            }
        }
    }
}

fn process(role: &str, process: Option<&Process>, scene: &Scene) -> Markup {
    html! {
        tr {
            th scope="row" { (role) }
            @match process {
                Some(process) => {
                    td.number { (process.pid) } td.mono { (process.version) } td { (parts::time(process.started_at, scene.now)) }
                },
                None => { td colspan="3" { "starts again" } },
            }
        }
    }
}
