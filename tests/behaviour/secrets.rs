//! Secrets reach the instances they are for, and nothing and nobody else.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use landfall::domain::{VersionNumber, VersionStatus};
use landfall::wire::api::{self, AppState};
use landfall::wire::secrets::{NamedSecret, SetSecret};
use nix::sys::signal::Signal;

use crate::support::asking::{manifest, name, refusal};
use crate::support::{Agent, Setup, files_with, landfall, send_signal, until};

/// A value that is nowhere but where the tests put it.
const CANARY: &str = "canary-7c1f0e3b-of-the-vault";

fn set(secret: &str, app: Option<&str>, value: &str) -> SetSecret {
    let app = app.map(name);
    SetSecret { secret: secret.parse().expect("a name"), environment: None, app, value: value.to_owned() }
}

/// The shop with a variable `TOKEN`.
fn shop(more: &str) -> String {
    manifest("shop", &["serve"], "100ms", &format!("secrets: {{TOKEN: token}}\n{more}"))
}

impl Agent {
    async fn store(&self, secret: &str, app: Option<&str>, value: &str) {
        self.client.set_secret(&set(secret, app, value)).await.expect("stored");
    }

    /// What an instance of the shop has in `TOKEN`.
    async fn shop_token(&self) -> Result<String, String> {
        let answer = self.get("shop", "/env").await?;
        let line = answer.body.lines().find_map(|line| line.strip_prefix("TOKEN="));
        line.map(str::to_owned).ok_or_else(|| format!("{answer:?}"))
    }

    /// The file with the secret that an instance of the shop is told of.
    async fn shop_file(&self) -> PathBuf {
        let answer = self.get("shop", "/env").await.expect("an answer");
        let line = answer.body.lines().find_map(|line| line.strip_prefix("TOKEN_FILE=").map(PathBuf::from));
        line.unwrap_or_else(|| panic!("{answer:?}"))
    }

    async fn until_token(&self, value: &str) {
        until(&format!("an instance has {value}"), || async {
            let token = self.shop_token().await?;
            if token == value { Ok(()) } else { Err(token) }
        })
        .await;
    }

    async fn given(&self, version: u32) -> Vec<(String, String)> {
        let used = self.version("shop", version).await.secrets;
        used.into_iter().map(|used| (used.from, used.revision)).collect()
    }

    async fn until_failed(&self, version: u32) -> api::Deployment {
        until(&format!("v{version} has failed"), || async {
            let versions = self.client.versions(None, &name("shop")).await.map_err(|error| error.to_string())?;
            let wanted = VersionNumber::new(version);
            let found = versions.iter().find(|found| Some(found.version) == wanted).map(|found| found.status);
            if found == Some(VersionStatus::Failed) { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
        self.deployment_of("shop", version).await
    }

    /// `landfall …` with something on its standard input; answers all it said.
    pub fn say(&self, arguments: &[&str], input: &str) -> (bool, String) {
        let mut child = std::process::Command::new(landfall())
            .arg("--agent")
            .arg(self.root.join("agent.sock"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        child.stdin.take().expect("its input").write_all(input.as_bytes()).expect("written");
        let output = child.wait_with_output().expect("its end");
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }
}

fn holds(bytes: &[u8]) -> bool {
    bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_is_in_the_instances_it_is_for_and_nowhere_else() {
    let mut agent = Agent::start().await;
    let (well, said) = agent.say(&["secret", "set", "token", "-"], &format!("{CANARY}\n"));
    assert!(well && said.contains("revision 1"), "{said}");
    let leak = "secret_files: {TOKEN_FILE: token}\nfunctions: {leak: {command: [sh, -c, \"echo it is $TOKEN, also $(cat $TOKEN_FILE) >&2; exit 3\"], mode: exec}}\n";
    agent.repo.write("shop/landfall.yaml", shop(leak)).write("shop/content.txt", "first\n");
    agent.repo.push("first");
    agent.until_body("shop", "first\n").await;
    agent.until_token(CANARY).await;
    agent.rest_of("shop").await;
    let file = agent.shop_file().await;
    let about = std::fs::metadata(&file).expect("the file");
    assert_eq!(
        (about.permissions().mode() & 0o777, std::fs::read_to_string(&file).as_deref().ok()),
        (0o400, Some(CANARY))
    );

    // What an app says as it fails: in its own log as it is, in all that Landfall makes of it without the value.
    let (_, said) = agent.say(&["call", "shop", "leak"], "");
    assert!(said.contains("exit code 3"), "{said}");
    assert!(!said.contains(CANARY), "{said}");
    let (_, said) = agent.say(&["call", "shop", "leak", "--spawn"], "");
    assert!(!said.contains(CANARY), "{said}");
    let crash =
        shop("").replace(&crate::support::asking::command(&["serve"]), "[sh, -c, \"echo it is $TOKEN; exit 4\"]");
    agent.repo.write("shop/landfall.yaml", crash);
    agent.repo.push("says it and dies");
    let failure = agent.until_failed(2).await.failure.expect("a failure");
    assert_eq!(failure.log_tail, ["it is [redacted]"], "{failure:?}");
    let killed = agent.controller_pid().await;
    send_signal(killed, Signal::SIGABRT);
    agent.until_new_controller(killed).await;
    agent.until_token(CANARY).await;

    for path in std::fs::read_dir("/proc").expect("/proc").flatten().map(|entry| entry.path().join("cmdline")) {
        assert!(!holds(&std::fs::read(&path).unwrap_or_default()), "{}", path.display());
    }
    let asked: [&[&str]; 13] = [
        &["status"],
        &["app", "list"],
        &["app", "show", "shop"],
        &["app", "history", "shop"],
        &["app", "diff", "shop", "1", "2"],
        &["instance", "list"],
        &["events"],
        &["secret", "list"],
        &["calls", "list"],
        &["schedule", "list"],
        &["source", "show", "fleet"],
        &["notify", "list"],
        &["plan"],
    ];
    for arguments in asked {
        for json in [false, true] {
            let (_, said) = agent.say(&[arguments, if json { &["--json"] } else { &[] }].concat(), "");
            assert!(!said.contains(CANARY), "{arguments:?}: {said}");
        }
    }
    let deployments = agent.client.deployments(None, &name("shop"), None).await.expect("deployments");
    assert!(!serde_json::to_string(&deployments).expect("JSON").contains(CANARY));
    // The ledger and its journal, the history, routes, what the supervisor saves, Landfall's own log: everything.
    let own_log = agent.root.join("data/logs/main/shop/v2");
    assert!(own_log.is_dir());
    let mut found = files_with(&agent.root, CANARY);
    found.retain(|path| !path.starts_with(&own_log) && path != &file);
    assert_eq!(found, Vec::<PathBuf>::new());
    agent.stop();
    assert!(!file.exists(), "a file goes with its instance");
    let mut found = files_with(&agent.root, CANARY);
    found.retain(|path| !path.starts_with(&own_log));
    assert_eq!(found, Vec::<PathBuf>::new(), "nor when it has ended");
}

/// A file of the real programs (`tests/data/sops`).
fn vector(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/sops").join(file);
    std::fs::read_to_string(&path).expect("a file of the tests")
}

/// An agent with the age identity that opens the vectors, in a file that the test may change.
async fn agent_with_identity() -> (Agent, PathBuf) {
    let mut setup = Setup::new();
    let file = setup.dir.path().join("identity.txt");
    std::fs::write(&file, vector("identity.txt")).expect("written");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("closed");
    setup.more = format!("secrets: {{age_identity_files: [{}]}}\n", file.display());
    (setup.start().await, file)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_file_of_the_source_is_opened_for_its_app_and_lies_open_nowhere() {
    let (mut agent, _) = agent_with_identity().await;
    let leak = "functions: {leak: {command: [sh, -c, \"echo it is $TOKEN >&2; exit 3\"], mode: exec}}\n";
    let manifest = manifest("shop", &["serve"], "100ms", &format!("encrypted_files: [secrets.enc.yaml]\n{leak}"));
    agent.repo.write("shop/landfall.yaml", &manifest).write("shop/content.txt", "first\n");
    agent.repo.write("shop/secrets.enc.yaml", vector("canary.yaml"));
    agent.repo.push("first");
    agent.until_body("shop", "first\n").await;
    agent.until_token(CANARY).await;
    agent.rest_of("shop").await;
    let given = agent.given(1).await;
    assert_eq!(given.len(), 1, "{given:?}");
    assert_eq!(given[0].0, "file secrets.enc.yaml");
    assert!(agent.shown("shop").await.warnings.is_empty());
    let (_, said) = agent.say(&["call", "shop", "leak"], "");
    assert!(said.contains("exit code 3") && !said.contains(CANARY), "{said}");

    agent.repo.write("shop/secrets.enc.yaml", vector("secrets.yaml"));
    agent.repo.push("another value");
    agent.until_live("shop", 2).await;
    agent.until_token("of-a-yaml-file").await;
    agent.rest_of("shop").await;
    let revisions: Vec<String> = agent.given(2).await.into_iter().map(|(_, revision)| revision).collect();
    assert!(
        revisions.len() == 7 && !revisions.contains(&given[0].1),
        "a file's revision is its content: {revisions:?}"
    );
    agent.rollback("shop", api::RollbackRequest::default()).await;
    agent.until_live("shop", 3).await;
    agent.until_token(CANARY).await;

    for path in std::fs::read_dir("/proc").expect("/proc").flatten().map(|entry| entry.path().join("cmdline")) {
        assert!(!holds(&std::fs::read(&path).unwrap_or_default()), "{}", path.display());
    }
    let found = files_with(&agent.root, CANARY);
    assert_eq!(found, Vec::<PathBuf>::new());
    agent.stop();
    let found = files_with(&agent.root, CANARY);
    assert_eq!(found, Vec::<PathBuf>::new(), "nor when it has ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_file_that_does_not_open_fails_a_deployment_before_the_switch() {
    let (mut agent, identity) = agent_with_identity().await;
    let manifest = |files: &str| manifest("shop", &["serve"], "100ms", &format!("encrypted_files: {files}\n"));
    agent.repo.write("shop/landfall.yaml", manifest("[secrets.env.age]")).write("shop/content.txt", "first\n");
    agent.repo.write("shop/secrets.env.age", vector("armoured.env.age"));
    agent.repo.push("first");
    agent.until_body("shop", "first\n").await;
    agent.until_token("of-a-dotenv-file").await;
    agent.rest_of("shop").await;
    let cases = [
        ("for-another.yaml", "[secrets.yaml]", vec!["secrets.yaml", "it is encrypted for age1", "as well"]),
        ("secrets.yaml", "[secrets.yaml, secrets.env.age]", vec!["TEXT", "another of the `encrypted_files` as well"]),
        ("secrets.yaml", "[other.yaml]", vec!["other.yaml", "no such file"]),
        ("secrets.yaml", "[secrets.yaml]", vec!["identity.txt", "cannot be read"]),
    ];
    for (version, (file, files, parts)) in (2..).zip(cases) {
        if version == 5 {
            std::fs::remove_file(&identity).expect("removed");
        }
        agent.repo.write("shop/landfall.yaml", manifest(files)).write("shop/secrets.yaml", vector(file));
        agent.repo.write("shop/content.txt", format!("v{version}\n"));
        agent.repo.push(&format!("v{version}"));
        let failure = agent.until_failed(version).await.failure.expect("a failure");
        assert_eq!(failure.code, "secret_missing", "{failure:?}");
        assert!(parts.iter().all(|part| failure.message.contains(part)), "{parts:?}: {}", failure.message);
        assert_eq!(agent.get("shop", "/").await.expect("an answer").body, "first\n", "the version before goes on");
    }
}

/// Whoever reads a failed call need not be one who may know the app's secrets.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_handler_says_as_it_fails_is_told_without_values() {
    let runs = |program: &str| std::process::Command::new(program).arg("--version").output().is_ok();
    let mut agent = Agent::start().await;
    agent.say(&["secret", "set", "token", "-"], &format!("{CANARY}\n"));
    let python = "import os\ndef tell():\n    raise ValueError('it is ' + os.environ['TOKEN'])\n";
    let script = "export function tell() { throw new Error('it is ' + process.env.TOKEN); }\n";
    for (nth, program, file, text) in [(1, "python3", "tell.py", python), (2, "node", "tell.mjs", script)] {
        if !runs(program) {
            assert!(std::env::var_os("CI").is_none(), "{program} is missing");
            eprintln!("skipped: there is no {program}");
            continue;
        }
        let manifest = format!(
            "app: shop\nbake: 100ms\nsecrets: {{TOKEN: token}}\nfunctions: {{tell: {{handler: '{file}:tell'}}}}\n"
        );
        agent.repo.write("shop/landfall.yaml", manifest).write(&format!("shop/{file}"), text);
        agent.repo.push(program);
        agent.rest(&["shop"]).await;
        let (_, said) = agent.say(&["call", "shop", "tell"], "");
        assert!(said.contains("it is [redacted]") && !said.contains(CANARY), "{program}: {said}");
        // On record, too, and in the log.
        until(&format!("the call of {program} is on record"), || async {
            let (_, said) = agent.say(&["calls", "list", "--json"], "");
            assert!(!said.contains(CANARY), "{program}: {said}");
            let told = said.matches("\"outcome\": \"failed\"").count();
            if told == nth { Ok(()) } else { Err(said) }
        })
        .await;
    }
    agent.stop();
    let found = files_with(&agent.root, CANARY);
    assert_eq!(found, Vec::<PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_secret_fails_a_deployment_before_anything_starts() {
    let mut agent = Agent::start().await;
    agent.repo.app("shop", "first\n");
    agent.repo.push("first");
    agent.until_body("shop", "first\n").await;
    agent.rest_of("shop").await;
    let build = "build: {command: [sh, -c, \"echo built > built\"]}\n";
    agent.repo.write("shop/landfall.yaml", shop(build)).write("shop/content.txt", "second\n");
    agent.repo.push("needs a token");
    let failure = agent.until_failed(2).await.failure.expect("a failure");
    assert_eq!(failure.code, "secret_missing", "{failure:?}");
    for part in ["`token` for TOKEN is not there", "landfall secret set token", "landfall app release --force shop"] {
        assert!(failure.message.contains(part), "{part}: {}", failure.message);
    }
    assert_eq!(agent.get("shop", "/").await.expect("an answer").body, "first\n", "the version before goes on");
    assert!(!agent.root.join("data/logs/main/shop/v2").exists(), "nothing of it was built or started");
    agent.store("token", None, "hunter22").await;
    agent.release("shop", true).await.expect("released");
    agent.until_body("shop", "second\n").await;
    agent.until_token("hunter22").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_secret_reaches_new_instances_and_a_rollover_renews_all() {
    let mut agent = Agent::start().await;
    agent.store("token", None, "first-value").await;
    agent.repo.write("shop/landfall.yaml", shop("")).write("shop/content.txt", "shop\n");
    agent.repo.push("first");
    agent.until_live("shop", 1).await;
    agent.until_token("first-value").await;
    agent.rest_of("shop").await;
    assert_eq!(agent.given(1).await, [("environment".to_owned(), "1".to_owned())]);
    assert!(agent.shown("shop").await.warnings.is_empty());
    agent.store("token", None, "second-value").await;
    let warnings = agent.shown("shop").await.warnings;
    assert!(warnings.iter().any(|warning| warning.contains("rollover shop")), "{warnings:?}");
    assert_eq!(agent.shop_token().await.as_deref(), Ok("first-value"), "what runs keeps what it has");
    agent.crash("shop", 3).await;
    agent.until_token("second-value").await;
    assert_eq!(agent.given(1).await.len(), 2, "one version, two revisions");
    let request = api::ReasonRequest { reason: None };
    agent.client.rollover(None, &name("shop"), &request).await.expect("a rollover");
    agent.until_live("shop", 2).await;
    agent.rest_of("shop").await;
    agent.until_token("second-value").await;
    assert_eq!(agent.given(2).await, [("environment".to_owned(), "2".to_owned())]);
    assert!(agent.shown("shop").await.warnings.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nearest_value_wins_and_providers_come_last() {
    let mut setup = Setup::new();
    let directory = setup.dir.path().join("values");
    std::fs::create_dir(&directory).expect("a directory");
    std::fs::write(directory.join("token"), "of-a-file\n").expect("a value");
    setup.more = format!("secrets: {{providers: [{{files: {{directory: {}}}}}]}}\n", directory.display());
    let mut agent = setup.start().await;
    agent.repo.write("shop/landfall.yaml", shop("")).write("shop/content.txt", "shop\n");
    agent.repo.push("first");
    agent.until_live("shop", 1).await;
    agent.until_token("of-a-file").await;
    agent.rest_of("shop").await;
    let (from, mark) = agent.given(1).await.pop().expect("one");
    assert_eq!(from, "files");
    assert!(!mark.contains("of-a-file"), "{mark}");
    let named = |app: Option<&str>| NamedSecret {
        secret: "token".parse().expect("a name"),
        environment: None,
        app: app.map(name),
    };
    agent.store("token", None, "of-all-apps").await;
    agent.store("token", Some("shop"), "of-the-shop").await;
    agent.store("token", Some("mail"), "of-another").await;
    agent.crash("shop", 3).await;
    agent.until_token("of-the-shop").await;
    agent.client.remove_secret(&named(Some("shop"))).await.expect("removed");
    assert_eq!(refusal(agent.client.remove_secret(&named(Some("shop"))).await).status, 404);
    agent.crash("shop", 3).await;
    agent.until_token("of-all-apps").await;
    agent.client.remove_secret(&named(None)).await.expect("removed");
    agent.crash("shop", 3).await;
    agent.until_token("of-a-file").await;
    agent.store("token", Some("shop"), "of-the-shop").await;
    let secrets = agent.client.secrets().await.expect("the list");
    let shop = secrets.iter().find(|secret| secret.app == Some(name("shop"))).expect("the shop's");
    assert_eq!(shop.revision, 2, "a revision never comes again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_can_be_rotated_and_a_lost_one_is_said() {
    let mut agent = Agent::start().await;
    agent.store("token", None, "first-value").await;
    let key_file = agent.root.join("data/secrets.key");
    assert_eq!(std::fs::metadata(&key_file).expect("a file").permissions().mode() & 0o777, 0o600);
    let before = agent.client.secrets().await.expect("the list")[0].key.clone();
    let old_file = std::fs::read(&key_file).expect("the keys");
    let rotated = agent.client.rotate_secrets_key().await.expect("rotated");
    assert_ne!(rotated.key, before);
    let text = std::fs::read_to_string(&key_file).expect("the keys");
    assert!(text.contains(&rotated.key) && !text.contains(&before), "only the new one is left");
    agent.stop();
    agent.launch();
    agent.until_up().await;
    agent.repo.write("shop/landfall.yaml", shop("")).write("shop/content.txt", "shop\n");
    agent.repo.push("first");
    agent.until_live("shop", 1).await;
    agent.until_token("first-value").await;
    agent.rest_of("shop").await;

    let beside = agent.root.join("old.key");
    std::fs::write(&beside, old_file).expect("written");
    std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o600)).expect("closed");
    std::fs::rename(&beside, &key_file).expect("in its place");
    agent.repo.write("shop/content.txt", "second\n");
    agent.repo.push("second");
    let failure = agent.until_failed(2).await.failure.expect("a failure");
    assert!(failure.message.contains(&rotated.key) && failure.message.contains("not in the key file"), "{failure:?}");
    let app = agent.until_app("shop", "v1 goes on", |app| app.live_version == VersionNumber::new(1)).await;
    assert_eq!(app.state, AppState::Deployed, "{app:?}");
}
