//! A private repository over HTTPS, with a real agent: deployed, through rotations and faults, and the token nowhere to
//! be found.

use std::path::Path;

use landfall::wire::api;

use crate::servers::{Authority, Fault, Forge, basic};
use crate::support::{Agent, Setup, until};

const FIRST: &str = "c4nary-first-token";
const SECOND: &str = "c4nary-second-token";

async fn until_source(agent: &Agent, what: &str, holds: impl Fn(&api::Source) -> bool) -> api::Source {
    until(what, || async {
        let sources = agent.client.sources().await.map_err(|error| error.to_string())?;
        sources.into_iter().find(|source| holds(source)).ok_or_else(|| "not yet".to_owned())
    })
    .await
}

/// Every file below `path` that holds one of `needles`.
fn files_with(path: &Path, needles: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    let mut todo = vec![path.to_path_buf()];
    while let Some(path) = todo.pop() {
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            todo.extend(std::fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        } else if let Ok(bytes) = std::fs::read(&path)
            && needles.iter().any(|needle| bytes.windows(needle.len()).any(|window| window == needle.as_bytes()))
        {
            found.push(path.display().to_string());
        }
    }
    found
}

/// Every process whose arguments or variables hold one of `needles`.
fn processes_with(needles: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        for file in ["cmdline", "environ"] {
            let bytes = std::fs::read(entry.path().join(file)).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes);
            if needles.iter().any(|needle| text.contains(needle.as_str())) {
                found.push(format!("{}: {text}", entry.path().display()));
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_repository_is_deployed_and_its_token_is_nowhere_to_be_found() {
    let Some(authority) = Authority::new() else { return };
    let mut setup = Setup::new();
    setup.repo.app("shop", "one\n");
    setup.repo.push("first");
    let forge = Forge::serve(setup.dir.path(), Some(&authority));
    forge.wants("bot", FIRST);
    // Outside of what is searched at the end.
    let secrets = tempfile::tempdir().expect("a directory");
    let token = secrets.path().join("token");
    std::fs::write(&token, format!("{FIRST}\n")).expect("the token");
    setup.sources = Some(format!(
        "sources:\n  - name: fleet\n    git:\n      url: {}\n      branch: main\n      poll: 1s\n      credentials: {{username: bot, password_file: {}}}\n      ca_file: {}\n",
        forge.url(),
        token.display(),
        authority.certificate().display(),
    ));
    let mut agent = setup.start().await;
    agent.until_body("shop", "one\n").await;

    let mut needles = vec![FIRST.to_owned(), SECOND.to_owned()];
    needles.extend([FIRST, SECOND].map(|token| basic("bot", token)["Basic ".len()..].to_owned()));
    let away = format!("Location: https://elsewhere.invalid/x.git/info/refs?token={FIRST}\r\n");
    let faults = [
        (Fault::Status("401 Unauthorized", String::new()), "401"),
        (Fault::Status("403 Forbidden", String::new()), "403"),
        (Fault::Status("302 Found", away), "elsewhere.invalid"),
        (Fault::Status("500 Internal Server Error", String::new()), "500"),
        (Fault::Garbage("what is this"), "protocol"),
    ];
    let name = "fleet".parse().expect("a name");
    for (fault, words) in faults {
        forge.fault(fault);
        let says = |source: &api::Source| source.error.as_ref().is_some_and(|error| error.contains(words));
        let _ = agent.client.sync(&name).await;
        let source = until_source(&agent, words, says).await;
        assert!(source.error_kind.is_some(), "{source:?}");
        let shown = serde_json::to_string(&source).expect("JSON");
        assert!(needles.iter().all(|needle| !shown.contains(needle.as_str())), "{shown}");
        assert_eq!(processes_with(&needles), Vec::<String>::new());
    }

    // Rotated while the agent runs.
    forge.wants("bot", SECOND);
    std::fs::write(&token, format!("{SECOND}\n")).expect("the token");
    forge.fault(None);
    agent.repo.app("shop", "two\n");
    agent.repo.push("second");
    let _ = agent.client.sync(&name).await;
    agent.until_body("shop", "two\n").await;
    let source = until_source(&agent, "all is well", |source| source.error.is_none()).await;
    assert!(source.cache_bytes.is_some_and(|bytes| bytes > 0) && source.error_kind.is_none(), "{source:?}");
    assert_eq!(files_with(&agent.root, &needles), Vec::<String>::new());
}
