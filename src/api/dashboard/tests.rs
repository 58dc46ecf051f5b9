//! Pages as they are drawn: hostile text stays text, states are words, addresses lead where they say.

use http::{HeaderMap, HeaderValue, Request, header};
use hyper::service::Service;
use jiff::Timestamp;
use maud::Markup;

use super::apps::{self, AppsQuery, Scene};
use super::assets::ASSETS;
use super::forge::Forges;
use super::page::{Page, Section, dress, own_place};
use super::parts::{self, Places};
use super::viewer::Viewer;
use super::{app, audit, certificates, deployment, diff, logs, versions};
use crate::domain::{Access, Actor, DeploymentId, Failure, Phase, Scope, VersionNumber, VersionStatus, Via};
use crate::wire::api::{App, AppState, Deployment, LogLine, PhaseTime, Version};
use crate::wire::certificates::{Certificate, CertificateOrigin, CertificateStanding};
use crate::wire::diffs::{FieldDiff, FileChange, FileDiff, FilesDiff, VersionDiff};
use crate::wire::tokens::AuditEntry;

/// What somebody would write who wants more than to be read.
const HOSTILE: &str = "<script>alert('x')</script><img src=x onerror=\"y()\"> & `code`</td>";

fn now() -> Timestamp {
    "2026-11-28T12:00:00Z".parse().expect("a time")
}

fn scene() -> Scene {
    Scene { places: Places { home: "main".parse().expect("a name") }, forges: Forges::default(), now: now() }
}

fn viewer() -> Viewer {
    let actor = Actor::User { name: HOSTILE.into() };
    Viewer::of(Some(Access { actor, scope: Scope::everything(), via: Via::LocalUser }), Some(HOSTILE.into()))
}

fn one(name: &str, state: AppState) -> App {
    App {
        app: name.parse().expect("a name"),
        environment: "main".parse().expect("a name"),
        state,
        message: None,
        live_version: Some(VersionNumber::FIRST),
        commit: Some("0a1a60cddda8baa17e46d3fc8815b6c56eb997d4".parse().expect("a commit")),
        instances: 2,
        ready: 1,
        urls: vec![crate::wire::api::ObjectUrl {
            object: "main".parse().expect("a name"),
            url: format!("http://{name}.localhost:8080"),
        }],
        source: None,
        path: Some(format!("apps/{name}")),
        hold: None,
        suspension: None,
        stopped: None,
        deployment: Some(DeploymentId(7)),
        manifest_error: None,
        warnings: Vec::new(),
        updated_at: now(),
    }
}

fn hostile_version() -> Version {
    Version {
        version: VersionNumber::FIRST,
        status: VersionStatus::Live,
        kind: "deploy".into(),
        rollback_of: None,
        rollover_of: None,
        commit: None,
        author: Some(format!("{HOSTILE} <x@y>")),
        subject: Some(HOSTILE.into()),
        actor: HOSTILE.into(),
        reason: Some(HOSTILE.into()),
        created_at: now(),
        live: true,
        quarantined: true,
        kept: true,
        deployment: Some(DeploymentId(7)),
        secrets: Default::default(),
        image: None,
        services: Default::default(),
    }
}

fn hostile_deployment() -> Deployment {
    let phase = |phase| PhaseTime { phase, at: now() };
    Deployment {
        id: DeploymentId(7),
        app: "shop".parse().expect("a name"),
        environment: "main".parse().expect("a name"),
        version: VersionNumber::FIRST,
        kind: "deploy".into(),
        phase: Phase::Done,
        outcome: Some(crate::domain::DeploymentOutcome::Failed),
        failure: Some(Failure {
            code: "exited_early".into(),
            message: HOSTILE.into(),
            phase: Phase::Starting,
            object: Some(HOSTILE.into()),
            last_probe: Some(HOSTILE.into()),
            exit: Some(HOSTILE.into()),
            log_tail: vec![HOSTILE.into()],
        }),
        actor: HOSTILE.into(),
        created_at: now(),
        live_at: None,
        ended_at: Some(now()),
        phases: vec![phase(Phase::Pending), phase(Phase::Starting), phase(Phase::Done)],
        progress: Some(HOSTILE.into()),
        urls: Vec::new(),
        objects: Vec::new(),
    }
}

fn hostile_line() -> LogLine {
    LogLine {
        at: now(),
        source: HOSTILE.into(),
        version: VersionNumber::FIRST,
        object: HOSTILE.into(),
        instance: HOSTILE.into(),
        call: None,
        line: HOSTILE.into(),
    }
}

/// No tag and no attribute of a hostile text came through.
fn assert_harmless(what: &str, page: &Markup) {
    let text = &page.0;
    for bad in ["<script>", "<img src=x", "onerror=\"", "</td></p>"] {
        assert!(!text.contains(bad), "{what} lets `{bad}` through:\n{text}");
    }
    assert!(text.contains("&lt;script&gt;"), "{what} does not show the text at all:\n{text}");
}

fn hostile_entry() -> AuditEntry {
    AuditEntry {
        id: 7,
        at: now(),
        actor: HOSTILE.into(),
        via: HOSTILE.into(),
        address: Some(HOSTILE.into()),
        action: HOSTILE.into(),
        environment: None,
        app: None,
        detail: serde_json::json!({ HOSTILE: HOSTILE }),
        before: Some(serde_json::json!({ HOSTILE: 1 })),
        after: Some(serde_json::json!({ HOSTILE: HOSTILE })),
        result: Some(serde_json::json!({ "status": 500, "title": HOSTILE })),
    }
}

fn hostile_certificate() -> Certificate {
    Certificate {
        subject: HOSTILE.into(),
        origin: CertificateOrigin::File,
        state: CertificateStanding::Troubled,
        names: vec![HOSTILE.into()],
        issuer: Some(HOSTILE.into()),
        not_before: None,
        not_after: Some(now()),
        next_order: None,
        problem: Some(HOSTILE.into()),
    }
}

fn hostile_diff() -> VersionDiff {
    let file = FileDiff {
        path: HOSTILE.into(),
        old_path: Some(HOSTILE.into()),
        change: FileChange::Renamed,
        binary: false,
        added: 1,
        removed: 1,
        patch: Some(format!("--- {HOSTILE}\n@@ -1 +1 @@ {HOSTILE}\n-{HOSTILE}\n+{HOSTILE}\n {HOSTILE}\n")),
        cut: true,
    };
    VersionDiff {
        app: "shop".parse().expect("a name"),
        environment: "main".parse().expect("a name"),
        from: VersionNumber::FIRST,
        to: VersionNumber::FIRST.next(),
        from_commit: None,
        to_commit: None,
        files: Some(FilesDiff { total: 2, added: 1, removed: 1, files: vec![file], cut: true }),
        missing: Some(HOSTILE.into()),
        manifest: vec![FieldDiff { field: HOSTILE.into(), before: Some(HOSTILE.into()), after: Some(HOSTILE.into()) }],
        secrets: Vec::new(),
    }
}

#[test]
fn hostile_texts_stay_texts_on_every_page() {
    let (scene, viewer) = (scene(), viewer());
    let mut app = one("shop", AppState::Crashing);
    app.message = Some(HOSTILE.into());
    app.manifest_error = Some(HOSTILE.into());
    app.path = Some(HOSTILE.into());
    let lines = [hostile_line()];
    let (version, deployment) = (hostile_version(), hostile_deployment());
    let shows = app::Shows {
        app: app.clone(),
        live: Some(deployment.clone()),
        newest: None,
        versions: vec![version.clone()],
        instances: Vec::new(),
        schedules: Vec::new(),
        calls: Vec::new(),
        functions: Vec::new(),
        traffic: Vec::new(),
    };
    let query = AppsQuery::default();
    assert_harmless("apps", &apps::body(std::slice::from_ref(&app), &query, &scene));
    assert_harmless("app", &app::body(&shows, &scene, &viewer));
    assert_harmless("versions", &versions::table(std::slice::from_ref(&version), &app, &scene, &viewer));
    assert_harmless("deployment", &deployment::body(&deployment, Some(&version), None, &lines, &scene));
    assert_harmless("log", &logs::lines_box(&lines, "nothing"));
    assert_harmless("audit", &audit::body(&[hostile_entry()], &audit::AuditQuery::default(), &scene, &viewer));
    assert_harmless("certificates", &certificates::body(&[hostile_certificate()], &scene, &viewer));
    assert_harmless("diff", &diff::body(&hostile_diff(), &[version], &app, &scene));
}

#[test]
fn the_list_is_filtered_by_words_and_state_and_comes_in_pages() {
    let mut all: Vec<App> = (0..100).map(|n| one(&format!("app-{n}"), AppState::Deployed)).collect();
    all.push(one("shop", AppState::Held));
    let shown = |pairs: &str| {
        let uri: http::Uri = format!("/?{pairs}").parse().expect("an address");
        let query = axum::extract::Query::<AppsQuery>::try_from_uri(&uri).expect("a query").0;
        let text = apps::body(&all, &query, &scene()).0;
        (text.matches("<tr id=").count(), text)
    };
    let (rows, text) = shown("");
    assert_eq!(rows, 25);
    assert!(text.contains("1–25 of 101") && text.contains("href=\"/?page=2\""), "{text}");
    assert_eq!(shown("page=5").0, 1);
    assert_eq!(shown("page=nonsense").0, 25);
    let (rows, text) = shown("q=SHO");
    assert_eq!(rows, 1);
    assert!(text.contains("held"), "a state is a word, not only a colour");
    assert_eq!(shown("state=held").0, 1);
    assert_eq!(shown("q=app-1%20app").0, 11);
    assert_eq!(shown("q=0a1a60c").0, 25);
    assert!(shown("q=nothing").1.contains("No app matches"));
    let hostile = shown("q=%22%3E%3Cscript%3E").1;
    assert!(!hostile.contains("<script>"), "{hostile}");
}

#[tokio::test]
async fn everything_the_first_page_needs_is_below_50_kb() {
    let mut all: Vec<App> = (0..1000).map(|n| one(&format!("a-long-name-of-an-app-{n}"), AppState::Deployed)).collect();
    // One in five has something to say.
    for app in all.iter_mut().step_by(5) {
        app.message = Some("v2 failed while starting: `main` ended by itself: exit code 1 before it was ready".into());
    }
    let (began, page) = (std::time::Instant::now(), apps::body(&all, &AppsQuery::default(), &scene()));
    let (drawn, page) = (began.elapsed(), page.0.len());
    let (_, _, frame) = dressed(Page::new(Section::Apps, "Apps", maud::html! {}), "text/html").await;
    let frame = frame.len();
    let assets = ASSETS.style.len() + ASSETS.script.len() + ASSETS.icon.len();
    eprintln!(
        "the list of 1,000 apps: {page} B drawn in {drawn:?}; with its frame of {frame} B and the assets {} B",
        page + frame + assets
    );
    assert!(page + frame + assets < 50_000, "{page} + {frame} + {assets}");
}

/// What a browser gets of a handler that answers this.
async fn dressed<R>(answer: R, accept: &'static str) -> (u16, HeaderMap, String)
where
    R: axum::response::IntoResponse + Clone + Send + Sync + 'static,
{
    let router = axum::Router::new()
        .fallback(move || {
            let answer = answer.clone();
            async move { answer }
        })
        .layer(axum::middleware::from_fn(dress));
    let mut request = Request::new(axum::body::Body::empty());
    request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static(accept));
    let service = hyper_util::service::TowerToHyperService::new(router);
    let response = service.call(request).await.expect("infallible");
    let (head, body) = response.into_parts();
    let body = http_body_util::BodyExt::collect(body).await.expect("a body").to_bytes();
    (head.status.as_u16(), head.headers, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn a_page_needs_nothing_inline_and_nothing_from_elsewhere_and_says_so() {
    let page = Page::new(Section::Apps, HOSTILE, maud::html! { h1 { (HOSTILE) } });
    let (status, headers, text) = dressed(page, "text/html").await;
    assert_eq!(status, 200);
    let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().expect("text");
    for rule in
        ["default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'", "form-action 'self'"]
    {
        assert!(policy.contains(rule), "{policy}");
    }
    assert!(!policy.contains("unsafe") && !policy.contains('*') && !policy.contains("http"), "{policy}");
    assert_eq!(headers[header::X_FRAME_OPTIONS], "DENY");
    for bad in [
        " style=\"",
        " onclick",
        " onload",
        " onerror=\"",
        "javascript:",
        "<style",
        "src=\"http",
        "href=\"http",
        "<script>",
    ] {
        assert!(!text.contains(bad), "{bad} in {text}");
    }
    for landmark in [
        "<header",
        "<nav aria-label=",
        "<main id=\"main\"",
        "<html lang=\"en\"",
        "aria-live=\"polite\"",
        "href=\"#main\"",
    ] {
        assert!(text.contains(landmark), "{landmark} is missing in {text}");
    }
}

#[tokio::test]
async fn a_refusal_is_a_page_for_browsers_and_a_problem_for_programs() {
    let refusal = super::super::problem::Refusal::new(http::StatusCode::NOT_FOUND, HOSTILE, "look elsewhere");
    let (status, headers, text) = dressed(refusal.clone(), "text/html,*/*").await;
    assert_eq!((status, &headers[header::CONTENT_TYPE]), (404, &HeaderValue::from_static("text/html; charset=utf-8")));
    assert!(text.contains("Not found") && text.contains("look elsewhere") && !text.contains("<script>alert"), "{text}");
    let (status, headers, _) = dressed(refusal, "*/*").await;
    assert_eq!((status, &headers[header::CONTENT_TYPE]), (404, &HeaderValue::from_static("application/problem+json")));
}

#[test]
fn nobody_is_sent_to_another_site() {
    for own in ["/", "/apps/shop?environment=dev", "/?q=a%20b"] {
        assert_eq!(own_place(own), own);
    }
    for foreign in ["https://evil.example", "//evil.example", "/\\evil.example", "evil", "", "/a\nb"] {
        assert_eq!(own_place(foreign), "/", "{foreign}");
    }
}

#[test]
fn times_and_lengths_read_as_people_say_them() {
    let at = |seconds: i64| Timestamp::from_second(1_000_000 + seconds).expect("a time");
    for (seconds, words) in [
        (0, "just now"),
        (-9, "9 s ago"),
        (-61, "1 min ago"),
        (-7200, "2 h ago"),
        (90_000, "in 1 d"),
        (1, "in a moment"),
    ] {
        assert_eq!(parts::distance(at(seconds), at(0)), words);
    }
    let millis = |count| parts::length(jiff::SignedDuration::from_millis(count));
    assert_eq!(
        [millis(640), millis(2_449), millis(200_000), millis(7_260_000)],
        ["640 ms", "2.4 s", "3 min 20 s", "2 h 1 min"]
    );
    assert_eq!([parts::bytes(12), parts::bytes(1536), parts::bytes(5 << 20)], ["12 B", "1.5 KiB", "5.0 MiB"]);
    assert_eq!(parts::query(&[("a", "x y&"), ("b", ""), ("c", "é")]), "?a=x%20y%26&c=%C3%A9");
}
