//! Private repositories over HTTPS: logins, authorities, redirects, proxies, and forges that misbehave.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use landfall::files::config::{Credentials, GitReference, GitSource, PasswordFrom};
use landfall::source::{Looker, SourceError, SourceErrorKind};

use crate::servers::{Authority, Fault, Forge, basic};
use crate::support::{Fleet, Memory, listing, looker_of, paths, within};

const CANARY: &str = "c4nary-t0ken";

/// A fleet with one app behind a forge that wants the canary, and a source that logs in with it.
struct Scene {
    fleet: Fleet,
    forge: Forge,
    authority: Authority,
}

impl Scene {
    fn new() -> Option<Self> {
        let authority = Authority::new()?;
        let fleet = Fleet::new();
        fleet.app("shop", "shop");
        // Something that does not compress, so that a cut is in the middle of the pack.
        fleet.write("shop/noise", &(0..20_000).map(|_| fastrand::alphanumeric()).collect::<String>());
        fleet.push("first");
        let forge = Forge::serve(fleet.dir.path(), Some(&authority));
        forge.wants("bot", CANARY);
        let scene = Self { fleet, forge, authority };
        scene.token(CANARY);
        Some(scene)
    }

    fn token_file(&self) -> PathBuf {
        self.fleet.dir.path().join("token")
    }

    fn token(&self, token: &str) {
        std::fs::write(self.token_file(), format!("{token}\n")).unwrap();
    }

    fn source(&self) -> GitSource {
        let password = PasswordFrom::File(self.token_file());
        GitSource {
            reference: GitReference::Branch("main".into()),
            credentials: Some(Credentials { username: "bot".into(), password }),
            ca_file: Some(self.authority.certificate()),
            ..GitSource::at(&self.forge.url())
        }
    }

    fn looker(&self, source: GitSource) -> Looker {
        looker_of(&self.fleet.cache(), source)
    }

    /// The error of a first look.
    fn error(&self, source: GitSource) -> SourceError {
        Memory::default().look(&mut self.looker(source)).map(|look| panic!("{look:?}")).unwrap_err()
    }

    /// Every name in the cache directory; those of packs differ from one fetch to the next.
    fn cached(&self) -> Vec<String> {
        let name = |path: PathBuf| {
            let path = path.strip_prefix(self.fleet.cache()).unwrap().display().to_string();
            match (path.find("pack-"), path.rsplit_once('.')) {
                (Some(at), Some((_, extension))) => format!("{}*.{extension}", &path[..at]),
                _ => path,
            }
        };
        let mut names: Vec<String> = listing(&self.fleet.cache()).into_keys().map(name).collect();
        names.sort();
        names
    }
}

#[test]
fn a_private_repository_is_followed_and_its_token_rotates_without_a_failure() {
    let Some(scene) = Scene::new() else { return };
    let (mut looker, mut memory) = (scene.looker(scene.source()), Memory::default());
    assert_eq!(paths(&memory.read(&mut looker)), ["shop"]);
    scene.forge.wants("bot", "another");
    scene.token("another");
    assert!(memory.is_unchanged(&mut looker), "the same looker uses the token that is in the file now");
    scene.fleet.write("shop/x", "1");
    scene.fleet.push("second");
    assert_eq!(paths(&memory.read(&mut looker)), ["shop"]);
}

#[test]
fn nothing_new_costs_one_request_and_writes_nothing() {
    let Some(scene) = Scene::new() else { return };
    let (mut looker, mut memory) = (scene.looker(scene.source()), Memory::default());
    memory.read(&mut looker);
    let before = listing(scene.fleet.dir.path());
    scene.forge.take_requests();
    for _ in 0..3 {
        assert!(memory.is_unchanged(&mut looker));
        let requests = scene.forge.take_requests();
        assert_eq!(requests.len(), 1, "{requests:?}");
        assert_eq!(requests[0].method, "GET");
        assert_eq!(requests[0].headers.get("authorization"), Some(&basic("bot", CANARY)), "sent without being asked");
    }
    assert_eq!(listing(scene.fleet.dir.path()), before);
}

#[test]
fn a_password_comes_from_a_command_run_once_for_each_look() {
    let Some(scene) = Scene::new() else { return };
    let count = scene.fleet.dir.path().join("count");
    // The program finds the token itself, so that no list of processes shows it.
    let script = format!("echo x >> {}; cat {}", count.display(), scene.token_file().display());
    let password = PasswordFrom::Command(["sh", "-c", &script].map(str::to_owned).to_vec());
    let credentials = Some(Credentials { username: "bot".into(), password });
    let (mut looker, mut memory) = (scene.looker(GitSource { credentials, ..scene.source() }), Memory::default());
    memory.read(&mut looker);
    assert!(memory.is_unchanged(&mut looker));
    assert_eq!(std::fs::read_to_string(count).unwrap().lines().count(), 2);
}

#[test]
fn what_is_wrong_with_a_login_is_told_apart() {
    let Some(scene) = Scene::new() else { return };
    let none = scene.error(GitSource { credentials: None, ..scene.source() });
    assert_eq!(none.kind, SourceErrorKind::Auth, "{none}");
    assert!(none.mend.contains("add `credentials`"), "{none}");
    scene.token("wrong");
    let wrong = scene.error(scene.source());
    assert_eq!(wrong.kind, SourceErrorKind::Auth, "{wrong}");
    assert!(wrong.what.contains("does not accept the credentials"), "{wrong}");
    std::fs::remove_file(scene.token_file()).unwrap();
    scene.forge.take_requests();
    let missing = scene.error(scene.source());
    assert_eq!(missing.kind, SourceErrorKind::Credentials, "{missing}");
    assert!(missing.what.contains("token"), "{missing}");
    assert!(scene.forge.take_requests().is_empty(), "nobody was asked without the password");
}

#[test]
fn a_server_is_trusted_by_its_authority_only() {
    let Some(scene) = Scene::new() else { return };
    let system = scene.error(GitSource { ca_file: None, ..scene.source() });
    assert_eq!(system.kind, SourceErrorKind::Tls, "{system}");
    assert!(system.mend.contains("ca_file"), "{system}");
    let Some(other) = Authority::new() else { return };
    let foreign = scene.error(GitSource { ca_file: Some(other.certificate()), ..scene.source() });
    assert_eq!(foreign.kind, SourceErrorKind::Tls, "{foreign}");
    assert!(scene.forge.take_requests().is_empty(), "no password went to a server that is not trusted");
    let nothing = scene.error(GitSource { ca_file: Some(scene.token_file()), ..scene.source() });
    assert_eq!(nothing.kind, SourceErrorKind::Tls, "{nothing}");
    assert!(!format!("{nothing:?}").contains(CANARY), "{nothing:?}");
    // A bundle that is replaced is used at the next look.
    let bundle = scene.fleet.dir.path().join("bundle.pem");
    std::fs::copy(other.certificate(), &bundle).unwrap();
    let mut looker = scene.looker(GitSource { ca_file: Some(bundle.clone()), ..scene.source() });
    assert_eq!(Memory::default().look(&mut looker).unwrap_err().kind, SourceErrorKind::Tls);
    std::fs::copy(scene.authority.certificate(), &bundle).unwrap();
    Memory::default().read(&mut looker);
}

#[test]
fn a_login_never_follows_a_redirect_to_another_place() {
    let Some(scene) = Scene::new() else { return };
    let elsewhere = Forge::serve(scene.fleet.dir.path(), Some(&scene.authority));
    let plain = Forge::serve(scene.fleet.dir.path(), None);
    for other in [&elsewhere, &plain] {
        let location = format!("{}/info/refs?service=git-upload-pack&token={CANARY}", other.url());
        scene.forge.fault(Fault::Status("302 Found", format!("Location: {location}\r\n")));
        let error = scene.error(scene.source());
        assert_eq!(error.kind, SourceErrorKind::Redirected, "{error}");
        assert!(error.what.contains(&other.url()), "{error}");
        assert!(!format!("{error:?}").contains(CANARY), "{error:?}");
        assert!(other.take_requests().is_empty(), "the other server was not even asked");
    }
}

type Expected = (SourceErrorKind, &'static str);

fn faults(fleet: &Fleet) -> Vec<(Fault, Expected)> {
    use SourceErrorKind as Kind;
    let status = |status: &'static str| Fault::Status(status, String::new());
    let bare = fleet.bare();
    let remove = move || {
        let _ = Command::new("git").arg("-C").arg(&bare).args(["update-ref", "-d", "refs/heads/main"]).status();
        let _ = Command::new("git").arg("-C").arg(&bare).args(["reflog", "expire", "--expire=now", "--all"]).status();
        let _ = Command::new("git").arg("-C").arg(&bare).args(["gc", "-q", "--prune=now"]).status();
    };
    vec![
        (status("401 Unauthorized"), (Kind::Auth, "does not accept the credentials")),
        (status("403 Forbidden"), (Kind::Auth, "do not allow")),
        (status("404 Not Found"), (Kind::NotFound, "404")),
        (Fault::Status("429 Too Many Requests", "Retry-After: 7\r\n".into()), (Kind::RateLimited, "wait 7 s")),
        (status("500 Internal Server Error"), (Kind::Server, "500")),
        (status("503 Service Unavailable"), (Kind::Server, "503")),
        (Fault::Hang, (Kind::Timeout, "waiting for an answer from 127.0.0.1")),
        (Fault::CutListing(20), (Kind::Network, "")),
        (Fault::CutPack(5_000), (Kind::Network, "")),
        (Fault::Garbage("what is this"), (Kind::Protocol, "")),
        (Fault::Garbage("001e# service=git-upload-pack\n0000zzzz"), (Kind::Protocol, "")),
        (Fault::BeforePack(Arc::new(remove)), (Kind::Busy, "changed while they were fetched")),
    ]
}

#[test]
fn after_each_fault_the_next_good_look_converges_and_nothing_is_left() {
    let Some(scene) = Scene::new() else { return };
    Memory::default().read(&mut scene.looker(scene.source()));
    let clean = scene.cached();
    std::fs::remove_dir_all(scene.fleet.cache()).unwrap();
    for (number, (fault, (kind, words))) in faults(&scene.fleet).into_iter().enumerate() {
        let (mut looker, mut memory) = (scene.looker(scene.source()), Memory::default());
        scene.forge.fault(fault.clone());
        let patience = if matches!(fault, Fault::Hang) { 400 } else { 30_000 };
        let error = memory.look_within(&mut looker, &within(Duration::from_millis(patience))).unwrap_err();
        assert_eq!(error.kind, kind, "fault {number}: {error}");
        assert!(error.what.contains(words), "fault {number}: {error}");
        assert_eq!(error.retry_after, (kind == SourceErrorKind::RateLimited).then_some(Duration::from_secs(7)));
        assert!(!format!("{error:?} {error}").contains(CANARY), "fault {number}: {error:?}");
        scene.forge.fault(None);
        scene.fleet.git(&["push", "-q", "--force", "origin", "HEAD:main"]);
        assert_eq!(paths(&memory.read(&mut looker)), ["shop"], "fault {number}");
        assert_eq!(scene.cached(), clean, "fault {number}: what a look without fault leaves");
        std::fs::remove_dir_all(scene.fleet.cache()).unwrap();
    }
}

#[test]
fn a_branch_forced_between_listing_and_pack_is_read_as_it_was_or_as_it_is() {
    let Some(scene) = Scene::new() else { return };
    let (mut looker, mut memory) = (scene.looker(scene.source()), Memory::default());
    memory.read(&mut looker);
    scene.fleet.write("shop/x", "1");
    scene.fleet.push("second");
    let work = scene.fleet.work();
    let force = move || {
        let git = |arguments: &[&str]| {
            let identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com"];
            assert!(
                Command::new("git").arg("-C").arg(&work).args(identity).args(arguments).status().unwrap().success()
            );
        };
        git(&["commit", "-q", "--amend", "-m", "instead"]);
        git(&["push", "-q", "--force", "origin", "HEAD:main"]);
    };
    scene.forge.fault(Fault::BeforePack(Arc::new(force)));
    let _ = memory.look(&mut looker);
    scene.forge.fault(None);
    let _ = memory.look(&mut looker).unwrap();
    let head = scene.fleet.git(&["rev-parse", "HEAD"]);
    assert_eq!(memory.seen.unwrap().commit.unwrap().as_str(), head);
}

#[test]
fn proxy_variables_are_honoured() {
    const NAME: &str = "https::proxy_variables_are_honoured";
    let url = "http://fleet.invalid/fleet.git";
    if let Some(place) = std::env::var_os("LANDFALL_TEST_CACHE") {
        let mut looker = looker_of(place.as_ref(), GitSource::at(url));
        let look = Memory::default().look(&mut looker);
        let kind = look.map(|_| ()).map_err(|error| (error.kind, error.to_string()));
        match std::env::var("NO_PROXY") {
            Ok(_) => assert_eq!(kind.unwrap_err().0, SourceErrorKind::Network),
            Err(_) => kind.unwrap(),
        }
        return;
    }
    let fleet = Fleet::new();
    fleet.app("shop", "shop");
    fleet.push("first");
    let proxy = Forge::serve(fleet.dir.path(), None);
    // Variables hold for a process, so each case is one.
    for no_proxy in [None, Some("fleet.invalid")] {
        let mut test = Command::new(std::env::current_exe().unwrap());
        test.args(["--exact", NAME, "--nocapture"]).env_remove("NO_PROXY").env_remove("no_proxy");
        test.env("LANDFALL_TEST_CACHE", fleet.cache()).env("http_proxy", format!("http://127.0.0.1:{}", proxy.port));
        if let Some(hosts) = no_proxy {
            test.env("NO_PROXY", hosts);
        }
        let output = test.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let targets: Vec<String> = proxy.take_requests().into_iter().map(|request| request.target).collect();
        assert_eq!(targets.first().is_some_and(|target| target.starts_with(url)), no_proxy.is_none(), "{targets:?}");
        let _ = std::fs::remove_dir_all(fleet.cache());
    }
}
