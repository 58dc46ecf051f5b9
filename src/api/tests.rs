//! Streams and uploads between the API and its client, over real sockets.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{events, upload};
use crate::client::{Client, ClientError, LogQuery, Target};
use crate::domain::AppName;
use crate::wire::api;

const SOON: Duration = Duration::from_secs(30);

fn app() -> AppName {
    "shop".parse().expect("a name")
}

#[tokio::test]
async fn a_missing_agent_is_named_with_the_mend() {
    let target = Target::Socket("/nonexistent/landfall.sock".into());
    let error = Client::connect(&target).expect("a client").status().await.expect_err("nobody is there");
    assert!(matches!(error, ClientError::NoAgent { .. }), "{error:?}");
    assert!(error.to_string().contains("/nonexistent/landfall.sock"), "{error}");
    assert!(error.mend().contains("landfall agent"), "{}", error.mend());
    assert!(matches!(Client::connect(&Target::Url("http://".into())), Err(ClientError::Target { .. })));
}

/// A server of test routes, for what needs no engine.
struct Side {
    directory: tempfile::TempDir,
    serving: JoinHandle<()>,
}

impl Side {
    fn start(routes: impl FnOnce(&Path) -> Router) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let listener = tokio::net::UnixListener::bind(directory.path().join("api.sock")).expect("bound");
        let router = routes(directory.path());
        let serving = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Self { directory, serving }
    }

    fn client(&self) -> Client {
        Client::connect(&Target::Socket(self.directory.path().join("api.sock"))).expect("a client")
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn line(text: &str) -> api::LogLine {
    api::LogLine {
        at: jiff::Timestamp::UNIX_EPOCH,
        source: "stdout".into(),
        version: crate::domain::VersionNumber::FIRST,
        object: "main".into(),
        instance: "i".into(),
        call: None,
        line: text.into(),
    }
}

#[tokio::test]
async fn a_stream_delivers_every_value_and_then_ends() {
    let side = Side::start(|_| {
        Router::new().route(
            "/v1/apps/{app}/logs",
            get(|| async {
                let (sender, receiver) = tokio::sync::mpsc::channel(2);
                tokio::spawn(async move {
                    for number in 0..2000 {
                        let _ = sender.send(line(&format!("line {number}\nwith a break"))).await;
                    }
                });
                events::answer(receiver, events::Nowhere, CancellationToken::new())
            }),
        )
    });
    let mut follow = side.client().logs(None, &app(), &LogQuery::default()).await.expect("followed");
    let mut count = 0;
    while let Some(line) = tokio::time::timeout(SOON, follow.next()).await.expect("in time").expect("a line") {
        assert_eq!(line.line, format!("line {count}\nwith a break"));
        count += 1;
    }
    assert_eq!(count, 2000);
}

/// Places are the numbers in the lines.
struct Numbered;

impl events::Places<api::LogLine> for Numbered {
    fn behind(&mut self, line: &api::LogLine) -> Option<String> {
        Some(line.line.clone())
    }
}

#[tokio::test]
async fn a_stream_that_is_cut_off_goes_on_behind_its_last_value() {
    let side = Side::start(|_| {
        Router::new().route(
            "/v1/apps/{app}/logs",
            get(|headers: http::HeaderMap| async move {
                let place = headers.get("last-event-id").map(|place| place.to_str().expect("text").to_owned());
                let begin: u32 = place.map_or(0, |place| place.parse::<u32>().expect("a number") + 1);
                let (sender, receiver) = tokio::sync::mpsc::channel(1);
                let shutdown = CancellationToken::new();
                let token = shutdown.clone();
                tokio::spawn(async move {
                    // Each agent lives for seven lines.
                    for number in begin..50.min(begin + 7) {
                        let _ = sender.send(line(&number.to_string())).await;
                    }
                    if begin + 7 < 50 {
                        token.cancel();
                        sender.closed().await;
                    }
                });
                events::answer(receiver, Numbered, shutdown)
            }),
        )
    });
    let mut follow = side.client().logs(None, &app(), &LogQuery::default()).await.expect("followed");
    for number in 0..50 {
        let said = tokio::time::timeout(SOON, follow.next()).await.expect("in time").expect("it goes on");
        assert_eq!(said.map(|line| line.line), Some(number.to_string()));
    }
    for _ in 0..2 {
        let end = tokio::time::timeout(SOON, follow.next()).await.expect("in time").expect("a clean end");
        assert_eq!(end, None);
    }
}

#[tokio::test]
async fn a_stream_that_is_refused_when_it_asks_again_says_so() {
    let side = Side::start(|_| {
        Router::new().route(
            "/v1/apps/{app}/logs",
            get(|headers: http::HeaderMap| async move {
                if headers.contains_key("last-event-id") {
                    return Err(super::problem::Refusal::unknown("the token is over", "make another"));
                }
                let (sender, receiver) = tokio::sync::mpsc::channel(1);
                let shutdown = CancellationToken::new();
                let token = shutdown.clone();
                tokio::spawn(async move {
                    let _ = sender.send(line("0")).await;
                    token.cancel();
                    sender.closed().await;
                });
                Ok(events::answer(receiver, Numbered, shutdown))
            }),
        )
    });
    let mut follow = side.client().logs(None, &app(), &LogQuery::default()).await.expect("followed");
    assert_eq!(follow.next().await.expect("a line").map(|line| line.line).as_deref(), Some("0"));
    let refused = tokio::time::timeout(SOON, follow.next()).await.expect("in time").expect_err("refused");
    assert_eq!(refused.problem().map(|problem| problem.status), Some(401), "{refused}");
}

/// Unpacks an upload and answers with what it held, or with the refusal.
async fn list(
    State(uploads): State<PathBuf>,
    request: Request<Body>,
) -> Result<Json<api::Accepted>, super::problem::Refusal> {
    let directory = upload::receive(request.into_body(), &uploads).await?;
    let message = listing(directory.path());
    upload::remove(directory).await;
    let environment = "main".parse().expect("a name");
    Ok(Json(api::Accepted { message, changed: true, app: app(), environment, version: None, deployment: None }))
}

/// Every file with its size, every link with its target, sorted; `*` marks what may be executed.
fn listing(root: &Path) -> String {
    let mut lines = Vec::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(place) = waiting.pop() {
        for entry in std::fs::read_dir(&place).expect("read") {
            let path = entry.expect("an entry").path();
            let name = path.strip_prefix(root).expect("below").display().to_string();
            let meta = std::fs::symlink_metadata(&path).expect("there");
            if meta.is_dir() {
                lines.push(format!("{name}/"));
                waiting.push(path);
            } else if meta.is_symlink() {
                lines.push(format!("{name} -> {}", std::fs::read_link(&path).expect("a link").display()));
            } else {
                let mark = if meta.permissions().mode() & 0o111 != 0 { "*" } else { "" };
                lines.push(format!("{name}{mark} {}", meta.len()));
            }
        }
    }
    lines.sort();
    lines.join("\n")
}

fn uploads() -> Side {
    Side::start(|directory| {
        let uploads = directory.join("uploads");
        Router::new()
            .route("/v1/deploy", post(list))
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(uploads)
    })
}

/// Waits until so many uploads are on the disk.
async fn wait_for_uploads(side: &Side, wanted: usize) {
    let deadline = std::time::Instant::now() + SOON;
    loop {
        let found = std::fs::read_dir(side.directory.path().join("uploads")).map_or(0, Iterator::count);
        if found == wanted {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "{found} uploads on the disk instead of {wanted}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn a_directory_arrives_as_it_was_but_for_git() {
    let side = uploads();
    let project = tempfile::tempdir().expect("a directory");
    let root = project.path();
    let long = "n".repeat(120);
    std::fs::create_dir_all(root.join("empty")).expect("made");
    std::fs::create_dir_all(root.join(".git/objects")).expect("made");
    std::fs::create_dir_all(root.join(&long)).expect("made");
    std::fs::write(root.join("landfall.yaml"), "app: shop\n").expect("written");
    std::fs::write(root.join(".gitignore"), "*.pyc\n").expect("written");
    std::fs::write(root.join(&long).join(&long), vec![7; 3_000_000]).expect("written");
    std::fs::write(root.join("run"), "#!/bin/sh\n").expect("written");
    std::fs::set_permissions(root.join("run"), std::fs::Permissions::from_mode(0o755)).expect("set");
    std::os::unix::fs::symlink("../run", root.join("empty/link")).expect("linked");
    nix::unistd::mkfifo(&root.join("pipe"), nix::sys::stat::Mode::S_IRUSR).expect("made");
    let accepted = side.client().deploy(None, root, Some("why not")).await.expect("accepted");
    let expected = format!(
        ".gitignore 6\nempty/\nempty/link -> ../run\nlandfall.yaml 10\n{long}/\n{long}/{long} 3000000\nrun* 10"
    );
    assert_eq!(accepted.message, expected);
    wait_for_uploads(&side, 0).await;
}

#[tokio::test]
async fn a_refused_upload_says_why_and_leaves_nothing() {
    let side = uploads();
    let project = tempfile::tempdir().expect("a directory");
    std::os::unix::fs::symlink("/etc/passwd", project.path().join("link")).expect("linked");
    // More than fits into any buffer on the way, so that the refusal meets a sender in the middle of its work.
    std::fs::write(project.path().join("more"), vec![7; 8_000_000]).expect("written");
    let error = side.client().deploy(None, project.path(), None).await.expect_err("refused");
    assert_eq!(error.problem().map(|problem| problem.status), Some(422), "{error}");
    assert!(error.to_string().contains("`link` is a link to an absolute path"), "{error}");
    wait_for_uploads(&side, 0).await;
}

#[tokio::test]
async fn a_directory_that_cannot_be_read_is_named() {
    let side = uploads();
    let error = side.client().deploy(None, Path::new("/nonexistent"), None).await.expect_err("not there");
    assert!(matches!(error, ClientError::Io { .. }), "{error:?}");
    let project = tempfile::tempdir().expect("a directory");
    let file = std::fs::File::create(project.path().join("huge")).expect("made");
    file.set_len(api::MAX_UPLOAD + 1).expect("sparse");
    let error = side.client().deploy(None, project.path(), None).await.expect_err("too big");
    assert!(error.to_string().contains("huge") && error.to_string().contains("512 MiB"), "{error}");
    wait_for_uploads(&side, 0).await;
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_nothing() {
    let side = uploads();
    let socket = side.directory.path().join("api.sock");
    let mut stream = UnixStream::connect(&socket).await.expect("connected");
    let head = "POST /v1/deploy HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("sent");
    stream.write_all(&[0; 100]).await.expect("sent");
    wait_for_uploads(&side, 1).await;
    drop(stream);
    wait_for_uploads(&side, 0).await;
}

#[tokio::test]
async fn a_sender_that_only_reads_at_the_end_still_learns_why_it_was_refused() {
    let side = uploads();
    let mut stream = UnixStream::connect(side.directory.path().join("api.sock")).await.expect("connected");
    let body = vec![b'x'; 8_000_000];
    let head = format!("POST /v1/deploy HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await.expect("sent");
    tokio::time::timeout(SOON, stream.write_all(&body)).await.expect("in time").expect("all of it was taken");
    let mut answer = vec![0; 12];
    tokio::time::timeout(SOON, stream.read_exact(&mut answer)).await.expect("in time").expect("an answer");
    assert_eq!(answer, b"HTTP/1.1 400");
    wait_for_uploads(&side, 0).await;
}
