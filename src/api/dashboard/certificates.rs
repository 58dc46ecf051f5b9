//! What clients are shown over HTTPS: hosts, how long yet, what is wrong.

use axum::extract::State;
use jiff::SignedDuration;
use maud::{Markup, html};

use super::super::routes::Shared;
use super::Shown;
use super::apps::Scene;
use super::icons::Icon;
use super::page::{Page, Section};
use super::parts::{self, Tone};
use super::settings::{self, Tab};
use super::viewer::Viewer;
use crate::wire::certificates::{Certificate, CertificateOrigin, CertificateStanding};

/// What ends sooner stands out: it should have been renewed by then.
const SOON: SignedDuration = SignedDuration::from_hours(14 * 24);

/// `GET /certificates`
pub(super) async fn show(State(context): Shared, viewer: Viewer) -> Shown {
    let certificates = context.engine().certificates();
    let scene = Scene::of(context.engine()).await?;
    Ok(Page::new(Section::Settings, "Certificates", body(&certificates, &scene, &viewer)).every(10))
}

/// The page's body.
pub(super) fn body(certificates: &[Certificate], scene: &Scene, viewer: &Viewer) -> Markup {
    html! {
        div.head { h1 { "Settings" } }
        (settings::tabs(Tab::Certificates, viewer))
        @if certificates.is_empty() {
            div.empty { p { "Apps answer over plain HTTP." } p.muted { code { "proxy.tls" } " in the agent's configuration names certificates, or an authority that gives them." } }
        } @else {
            table {
                caption.quiet { "Certificates" }
                thead { tr {
                    th scope="col" { "State" } th scope="col" { "For" } th scope="col" { "Issued by" } th scope="col" { "Ends" } th scope="col" { "Next order" }
                } }
                tbody { @for one in certificates { (row(one, scene)) } }
            }
        }
    }
}

fn row(one: &Certificate, scene: &Scene) -> Markup {
    html! {
        tr {
            td { (state(one)) }
            td.main {
                strong { (one.subject) }
                @if one.origin == CertificateOrigin::File || one.names.len() > 1 { p.message { (one.names.join(", ")) } }
                @if let Some(problem) = &one.problem { p.message { (parts::prose(problem)) } }
            }
            td.muted { @match &one.issuer { Some(issuer) => (issuer), None => (parts::dash()) } }
            td { @match one.not_after {
                Some(until) => span.word.(ending(one, scene).class()) { (parts::time(until, scene.now)) },
                None => (parts::dash()),
            } }
            td.when { (parts::maybe_time(one.next_order, scene.now)) }
        }
    }
}

fn ending(one: &Certificate, scene: &Scene) -> Tone {
    match one.not_after.map(|until| until.duration_since(scene.now)) {
        Some(left) if left.is_negative() => Tone::Bad,
        Some(left) if left < SOON => Tone::Warn,
        Some(_) | None => Tone::Quiet,
    }
}

fn state(one: &Certificate) -> Markup {
    match one.state {
        CertificateStanding::Valid => parts::badge(Tone::Good, Icon::Good, "valid"),
        CertificateStanding::Troubled => parts::badge(Tone::Warn, Icon::Alarm, "not renewed"),
        CertificateStanding::Missing => parts::badge(Tone::Bad, Icon::Bad, "missing"),
        CertificateStanding::Ordered => parts::badge(Tone::Busy, Icon::Busy, "ordered"),
    }
}
