//! Repositories behind `git://` and `http://`, and servers that misbehave.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use landfall::domain::manifest::Bytes;
use landfall::files::config::{GitReference, GitSource, OnForcePush};
use landfall::source::{Look, Looker, SourceError, SourceErrorKind};

use crate::ports::free_port;
use crate::support::{Answer, Daemon, Fleet, Memory, Silent, Web, content, listing, looker_of, paths, soon, within};

/// What does not wait for the server is over long before this, on a busy machine too; what does is not over at all.
const PATIENCE: Duration = Duration::from_secs(20);

/// What must hold over every transport.
fn whole_story(fleet: &Fleet, url: &str) {
    fleet.app("apps/shop", "shop");
    fleet.app("apps/blog", "blog");
    fleet.push("first");
    let (mut looker, mut memory) =
        (fleet.looker_at(url, GitReference::Branch("main".into()), "apps"), Memory::default());
    let reading = memory.read(&mut looker);
    assert_eq!(paths(&reading), ["apps/blog", "apps/shop"]);
    assert!(
        std::fs::read_to_string(reading.objects.join("shallow")).is_ok()
            || fleet.git(&["rev-list", "HEAD"]).lines().count() == 1
    );

    let before = listing(&fleet.cache());
    assert!(memory.is_unchanged(&mut looker));
    assert!(memory.is_unchanged(&mut looker));
    assert_eq!(listing(&fleet.cache()), before, "a look without news writes nothing");

    for round in 0..30 {
        fleet.write("apps/shop/x", &round.to_string());
        let commit = fleet.push("more");
        let reading = memory.read(&mut looker);
        assert_eq!(reading.revision.commit.as_ref().unwrap().as_str(), commit);
        assert_eq!(paths(&reading), ["apps/shop"], "round {round}");
    }
    let packs = std::fs::read_dir(fleet.cache().join("fleet.git/objects/pack")).unwrap().count();
    assert!(packs <= 2 * 26, "{packs} files of packs: the cache is packed anew when it grows");

    // An agent that starts again goes on where it was.
    drop(looker);
    let mut looker = fleet.looker_at(url, GitReference::Branch("main".into()), "apps");
    assert!(memory.is_unchanged(&mut looker));
    fleet.git(&["reset", "-q", "--hard", "HEAD~3"]);
    fleet.write("apps/blog/x", "instead");
    fleet.push("forced");
    assert_eq!(paths(&memory.read(&mut looker)), ["apps/blog", "apps/shop"]);
}

#[test]
fn a_repository_is_followed_over_git() {
    let fleet = Fleet::new();
    let daemon = Daemon::serve(fleet.dir.path());
    whole_story(&fleet, &daemon.url());
}

#[test]
fn a_repository_is_followed_over_http() {
    let fleet = Fleet::new();
    let web = Web::serve(fleet.dir.path(), Answer::Git);
    whole_story(&fleet, &web.url());
}

/// A shallow cache is deepened as far as it takes to tell whether a branch went on or was rewritten.
fn a_rewrite_is_told_from_a_push(fleet: &Fleet, url: &str) {
    let hold = || GitSource { on_force_push: OnForcePush::Hold, ..GitSource::at(url) };
    fleet.app("shop", "shop");
    fleet.push("first");
    let (mut looker, mut memory) = (looker_of(&fleet.cache(), hold()), Memory::default());
    memory.read(&mut looker);
    // Many commits in one push, more than the first step of deepening reaches.
    for round in 0..80 {
        fleet.git(&["commit", "-q", "--allow-empty", "-m", &round.to_string()]);
    }
    fleet.write("shop/x", "after many");
    let head = fleet.push("last of many");
    assert_eq!(memory.read(&mut looker).revision.commit.unwrap().as_str(), head);
    fleet.write("shop/x", "one more");
    let head = fleet.push("one more");
    memory.read(&mut looker);
    // Rewritten: nothing is read, again and again, also by an agent that starts anew.
    fleet.git(&["reset", "-q", "--hard", "HEAD~2"]);
    fleet.write("shop/x", "instead");
    let rewritten = fleet.push("rewritten");
    for mut looker in [looker, looker_of(&fleet.cache(), hold())] {
        for _ in 0..2 {
            match memory.look(&mut looker).unwrap() {
                Look::Diverged { last, commit } => assert_eq!((last.as_str(), commit.as_str()), (&*head, &*rewritten)),
                other => panic!("{other:?}"),
            }
        }
    }
    // Approved, it is read; and the next push goes on from there.
    let mut looker = looker_of(&fleet.cache(), hold());
    looker.approve(rewritten.parse().unwrap());
    assert_eq!(memory.read(&mut looker).revision.commit.unwrap().as_str(), rewritten);
    fleet.write("shop/x", "goes on");
    let head = fleet.push("goes on");
    assert_eq!(memory.read(&mut looker).revision.commit.unwrap().as_str(), head);
}

#[test]
fn a_rewritten_branch_is_held_back_over_git() {
    let fleet = Fleet::new();
    let daemon = Daemon::serve(fleet.dir.path());
    a_rewrite_is_told_from_a_push(&fleet, &daemon.url());
}

#[test]
fn a_rewritten_branch_is_held_back_over_http() {
    let fleet = Fleet::new();
    let web = Web::serve(fleet.dir.path(), Answer::Git);
    a_rewrite_is_told_from_a_push(&fleet, &web.url());
}

#[test]
fn only_one_commit_is_fetched() {
    let fleet = Fleet::new();
    fleet.app("shop", "shop");
    let first = fleet.push("first");
    fleet.write("shop/x", "1");
    fleet.push("second");
    let daemon = Daemon::serve(fleet.dir.path());
    let reading = Memory::default().read(&mut fleet.looker_at(&daemon.url(), GitReference::Head, ""));
    let cache = git2::Repository::open_bare(&reading.objects).unwrap();
    assert!(cache.is_shallow());
    assert!(cache.find_commit(first.parse().unwrap()).is_err());
}

#[test]
fn heads_tags_and_commits_are_found_over_the_network() {
    let fleet = Fleet::new();
    fleet.app("one", "one");
    let first = fleet.push("first");
    fleet.git(&["tag", "-a", "v1", "-m", "annotated"]);
    fleet.app("two", "two");
    let second = fleet.push("second");
    fleet.app("three", "three");
    fleet.push("third");
    fleet.git(&["push", "-q", "origin", "v1"]);
    let daemon = Daemon::serve(fleet.dir.path());
    let web = Web::serve(fleet.dir.path(), Answer::Git);
    for url in [daemon.url(), web.url()] {
        let read = |reference: GitReference| {
            let _ = std::fs::remove_dir_all(fleet.cache());
            let (mut looker, mut memory) = (fleet.looker_at(&url, reference, ""), Memory::default());
            let apps = memory.read(&mut looker).read.len();
            assert!(memory.is_unchanged(&mut looker));
            apps
        };
        assert_eq!(read(GitReference::Head), 3, "{url}");
        assert_eq!(read(GitReference::Tag("v1".into())), 1, "{url}");
        assert_eq!(read(GitReference::Commit(first.parse().unwrap())), 1, "{url}");
        // No reference names this one.
        assert_eq!(read(GitReference::Commit(second.parse().unwrap())), 2, "{url}");
    }
}

#[test]
fn a_missing_reference_is_named_with_those_there_are() {
    let fleet = Fleet::new();
    fleet.app("shop", "shop");
    fleet.push("first");
    let daemon = Daemon::serve(fleet.dir.path());
    let mut looker = fleet.looker_at(&daemon.url(), GitReference::Branch("mian".into()), "");
    let error = Memory::default().look(&mut looker).unwrap_err();
    assert_eq!(error.kind, SourceErrorKind::RefNotFound, "{error}");
    assert!(error.to_string().contains("there are: main"), "{error}");
    let unknown = GitReference::Commit("1".repeat(40).parse().unwrap());
    let error = Memory::default().look(&mut fleet.looker_at(&daemon.url(), unknown, "")).unwrap_err();
    assert_eq!(error.kind, SourceErrorKind::RefNotFound, "{error}");
}

#[test]
fn a_repository_the_server_does_not_have_is_not_found() {
    let fleet = Fleet::new();
    let (daemon, web) = (Daemon::serve(fleet.dir.path()), Web::serve(fleet.dir.path(), Answer::Git));
    for url in [daemon.url(), web.url()] {
        let url = url.replace("fleet.git", "float.git");
        let error = Memory::default().look(&mut fleet.looker_at(&url, GitReference::Head, "")).unwrap_err();
        assert_eq!(error.kind, SourceErrorKind::NotFound, "{error}");
        assert!(error.to_string().contains("float.git"), "{error}");
    }
}

#[test]
fn nobody_listening_is_a_network_error_at_once() {
    let fleet = Fleet::new();
    let port = free_port();
    for scheme in ["git", "http"] {
        let url = format!("{scheme}://bot:s3cret@127.0.0.1:{port}/fleet.git");
        let started = Instant::now();
        let error = Memory::default().look(&mut fleet.looker_at(&url, GitReference::Head, "")).unwrap_err();
        assert_eq!(error.kind, SourceErrorKind::Network, "{error}");
        assert!(!error.to_string().contains("s3cret"), "{error}");
        assert!(started.elapsed() < PATIENCE);
    }
}

#[test]
fn a_hanging_server_costs_no_more_than_the_deadline() {
    let fleet = Fleet::new();
    let cases: [(&str, &'static [u8]); 4] = [
        ("git", b""),
        // One line of a listing, and then nothing.
        ("git", b"003f1111111111111111111111111111111111111111 refs/heads/main\0 x\n"),
        ("http", b""),
        ("http", b"HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-advertisement\r\nContent-Length: 999\r\n\r\n001e#"),
    ];
    for (scheme, greeting) in cases {
        let server = Silent::serve(greeting);
        let url = format!("{scheme}://127.0.0.1:{}/fleet.git", server.port);
        let mut looker = fleet.looker_at(&url, GitReference::Head, "");
        let started = Instant::now();
        let error = Memory::default().look_within(&mut looker, &within(Duration::from_millis(400))).unwrap_err();
        assert_eq!(error.kind, SourceErrorKind::Timeout, "{scheme} {greeting:?}: {error}");
        assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
    }
}

#[test]
fn a_look_at_a_hanging_server_can_be_cancelled() {
    let fleet = Fleet::new();
    for scheme in ["git", "http"] {
        let server = Silent::serve(b"");
        let url = format!("{scheme}://127.0.0.1:{}/fleet.git", server.port);
        let mut looker = fleet.looker_at(&url, GitReference::Head, "");
        let limits = soon();
        let cancel = limits.cancel.clone();
        let started = Instant::now();
        let look = std::thread::spawn(move || Memory::default().look_within(&mut looker, &limits).map(drop));
        cancel.store(true, Ordering::Relaxed);
        assert_eq!(look.join().unwrap().unwrap_err().kind, SourceErrorKind::Cancelled);
        assert!(started.elapsed() < PATIENCE);
    }
}

#[test]
fn a_pack_that_breaks_off_leaves_nothing_and_the_next_look_succeeds() {
    let fleet = Fleet::new();
    fleet.app("shop", "shop");
    // Something that does not compress, so that the cut is in the middle of the pack.
    let noise: String = (0..20_000).map(|_| fastrand::alphanumeric()).collect();
    fleet.write("shop/noise", &noise);
    fleet.push("first");
    let mut memory = Memory::default();
    {
        let web = Web::serve(fleet.dir.path(), Answer::CutPackAfter(5_000));
        let error = memory.look(&mut fleet.looker_at(&web.url(), GitReference::Head, "")).unwrap_err();
        assert_eq!(error.kind, SourceErrorKind::Network, "{error}");
    }
    let web = Web::serve(fleet.dir.path(), Answer::Git);
    assert_eq!(paths(&memory.read(&mut fleet.looker_at(&web.url(), GitReference::Head, ""))), ["shop"]);
    let pack = fleet.cache().join("fleet.git/objects/pack");
    let names: Vec<_> =
        std::fs::read_dir(pack).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(names.len(), 2, "one pack and its index: {names:?}");
}

fn error_of(answer: &str) -> landfall::source::SourceError {
    let fleet = Fleet::new();
    let web = Web::serve(fleet.dir.path(), Answer::Say(answer.to_owned()));
    Memory::default().look(&mut fleet.looker_at(&web.url(), GitReference::Head, "")).unwrap_err()
}

#[test]
fn refusals_of_web_servers_say_what_to_do() {
    let status = |status: &str| error_of(&format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"));
    assert_eq!(status("401 Unauthorized").kind, SourceErrorKind::Auth);
    assert_eq!(status("403 Forbidden").kind, SourceErrorKind::Auth);
    assert_eq!(status("404 Not Found").kind, SourceErrorKind::NotFound);
    assert_eq!(status("503 Service Unavailable").kind, SourceErrorKind::Server);
    let page = error_of("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!(page.kind, SourceErrorKind::Protocol);
    assert!(page.to_string().contains("text/html"), "{page}");
    let away = error_of("HTTP/1.1 302 Found\r\nLocation: http://elsewhere.invalid/x\r\nContent-Length: 0\r\n\r\n");
    assert!(away.to_string().contains("elsewhere.invalid"), "{away}");
}

#[test]
fn a_redirect_on_the_same_host_is_followed_for_listing_and_pack() {
    let fleet = Fleet::new();
    fleet.app("shop", "shop");
    fleet.push("first");
    let location = "/moved/fleet.git/info/refs?service=git-upload-pack";
    let answer =
        format!("HTTP/1.1 301 Moved\r\nLocation: {location}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let web = Web::serve(fleet.dir.path(), Answer::Say(answer));
    let reading = Memory::default().read(&mut fleet.looker_at(&web.url(), GitReference::Head, ""));
    assert_eq!(paths(&reading), ["shop"]);
}

fn packs(fleet: &Fleet, extension: &str) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(fleet.cache().join("fleet.git/objects/pack")).unwrap();
    entries.map(|e| e.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == extension)).collect()
}

fn writable(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
}

#[test]
fn a_damaged_cache_is_rebuilt_without_anybody_noticing() {
    type Damage = fn(&Fleet);
    let damages: [(&str, Damage); 6] = [
        ("pack flipped", |fleet| {
            for path in packs(fleet, "pack") {
                writable(&path);
                let mut bytes = std::fs::read(&path).unwrap();
                let middle = bytes.len() / 2;
                bytes[12..middle].iter_mut().for_each(|byte| *byte ^= 0xff);
                std::fs::write(path, bytes).unwrap();
            }
        }),
        ("pack truncated", |fleet| {
            for path in packs(fleet, "pack") {
                writable(&path);
                std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(40).unwrap();
            }
        }),
        ("packs gone", |fleet| std::fs::remove_dir_all(fleet.cache().join("fleet.git/objects/pack")).unwrap()),
        ("index truncated", |fleet| {
            for path in packs(fleet, "idx") {
                writable(&path);
                std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(100).unwrap();
            }
        }),
        ("HEAD gone", |fleet| std::fs::remove_file(fleet.cache().join("fleet.git/HEAD")).unwrap()),
        ("not a repository", |fleet| {
            std::fs::remove_dir_all(fleet.cache().join("fleet.git")).unwrap();
            std::fs::write(fleet.cache().join("fleet.git"), "what").unwrap();
        }),
    ];
    for (what, damage) in damages {
        let fleet = Fleet::new();
        fleet.app("shop", "shop");
        fleet.app("blog", "blog");
        fleet.push("first");
        let daemon = Daemon::serve(fleet.dir.path());
        let looker = || -> Looker { fleet.looker_at(&daemon.url(), GitReference::Head, "") };
        let mut memory = Memory::default();
        memory.read(&mut looker());
        damage(&fleet);
        assert!(memory.is_unchanged(&mut looker()), "{what}: nothing new, nothing needed from the cache");
        damage_again_if_rebuilt(&fleet, damage);
        fleet.write("shop/x", "1");
        fleet.push("second");
        let reading = memory.read(&mut looker());
        assert!(reading.removed.is_empty(), "{what}");
        assert!(paths(&reading).contains(&"shop"), "{what}");
        content(&reading, "shop");
        let leftovers: Vec<_> = std::fs::read_dir(fleet.cache()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(leftovers, ["fleet.git"], "{what}");
    }
}

fn damage_again_if_rebuilt(fleet: &Fleet, damage: fn(&Fleet)) {
    if fleet.cache().join("fleet.git/objects/pack").is_dir() && fleet.cache().join("fleet.git/HEAD").exists() {
        damage(fleet);
    }
}

#[test]
fn leftovers_of_a_killed_fetch_are_removed() {
    let fleet = Fleet::new();
    fleet.app("shop", "shop");
    fleet.push("first");
    let daemon = Daemon::serve(fleet.dir.path());
    let mut memory = Memory::default();
    memory.read(&mut fleet.looker_at(&daemon.url(), GitReference::Head, ""));
    let cache = fleet.cache().join("fleet.git");
    let leftovers = [
        cache.join("objects/pack/pack_git2_abc123"),
        cache.join("objects/pack/tmp_pack_x"),
        cache.join("shallow.lock"),
        cache.join("refs/landfall/fetched.lock"),
        fleet.cache().join("fleet.git.old-1/HEAD"),
        fleet.cache().join("fleet.git.new-2/HEAD"),
    ];
    for path in &leftovers {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "x").unwrap();
    }
    fleet.write("shop/x", "1");
    fleet.push("second");
    memory.read(&mut fleet.looker_at(&daemon.url(), GitReference::Head, ""));
    for path in &leftovers {
        assert!(!path.exists(), "{}", path.display());
    }
}

#[test]
fn distrust_fetches_everything_again() {
    let fleet = Fleet::new();
    fleet.app("shop", "shop");
    fleet.push("first");
    let daemon = Daemon::serve(fleet.dir.path());
    let (mut looker, mut memory) = (fleet.looker_at(&daemon.url(), GitReference::Head, ""), Memory::default());
    memory.read(&mut looker);
    looker.distrust().unwrap();
    assert!(!fleet.cache().join("fleet.git").exists());
    memory.seen = None;
    assert_eq!(paths(&memory.read(&mut looker)), ["shop"]);
}

#[test]
fn an_unreadable_cache_directory_is_a_clear_error() {
    let fleet = Fleet::new();
    fleet.app("shop", "shop");
    fleet.push("first");
    let daemon = Daemon::serve(fleet.dir.path());
    // A file where the cache directory should be.
    std::fs::write(fleet.cache(), "in the way").unwrap();
    let error = Memory::default().look(&mut fleet.looker_at(&daemon.url(), GitReference::Head, "")).unwrap_err();
    assert!(error.to_string().contains("cache"), "{error}");
}

fn cache_bytes(fleet: &Fleet) -> u64 {
    listing(&fleet.cache()).iter().filter(|(path, _)| path.is_file()).map(|(_, (bytes, _))| bytes).sum()
}

#[test]
fn a_cache_that_outgrows_its_quota_is_made_anew_beside_and_goes_on() {
    let fleet = Fleet::new();
    let noise = || -> String { (0..150_000).map(|_| fastrand::alphanumeric()).collect() };
    fleet.app("shop", "shop");
    fleet.app("blog", "blog");
    fleet.write("shop/noise", &noise());
    fleet.push("first");
    let daemon = Daemon::serve(fleet.dir.path());
    let quota = 400_000;
    let git = GitSource { cache_quota: Bytes(quota), ..GitSource::at(&daemon.url()) };
    let (mut looker, mut memory) = (looker_of(&fleet.cache(), git), Memory::default());
    memory.read(&mut looker);
    for _ in 0..8 {
        fleet.write("shop/noise", &noise());
        fleet.push("more");
        assert_eq!(paths(&memory.read(&mut looker)), ["shop"], "what was read before is still there to compare with");
        assert!(cache_bytes(&fleet) <= quota, "{} bytes", cache_bytes(&fleet));
        assert_eq!(looker.cache_bytes(), Some(cache_bytes(&fleet)));
    }
    let names: Vec<_> = std::fs::read_dir(fleet.cache()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["fleet.git"]);
}

#[test]
fn at_the_start_the_cache_directory_is_swept_of_what_no_source_owns() {
    let fleet = Fleet::new();
    fleet.app("shop", "shop");
    fleet.push("first");
    let daemon = Daemon::serve(fleet.dir.path());
    Memory::default().read(&mut fleet.looker_at(&daemon.url(), GitReference::Head, ""));
    let clean = listing(&fleet.cache()).into_keys().collect::<Vec<_>>();
    for path in
        ["other.git/HEAD", "other.git.new-1/HEAD", "fleet.git.old-2/HEAD", "fleet.git/objects/pack/pack_git2_x", "what"]
    {
        let path = fleet.cache().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "x").unwrap();
    }
    landfall::source::sweep(&fleet.cache(), &["fleet"]);
    assert_eq!(listing(&fleet.cache()).into_keys().collect::<Vec<_>>(), clean);
}

#[test]
fn names_ranges_and_several_directories_mean_the_same_here_and_there() {
    let fleet = Fleet::new();
    fleet.app("a/one", "one");
    fleet.app("b/two", "two");
    fleet.app("c/three", "three");
    fleet.push("first");
    for tag in ["v1.2.0", "v1.10.0", "v2.0.0-rc.1", "both"] {
        fleet.git(&["commit", "-q", "--allow-empty", "-m", tag]);
        fleet.git(&["tag", "-a", tag, "-m", tag]);
    }
    fleet.git(&["push", "-q", "--tags", "origin", "HEAD:refs/heads/both", "HEAD~3:refs/reviews/7"]);
    let daemon = Daemon::serve(fleet.dir.path());
    for url in [daemon.url(), fleet.bare().display().to_string()] {
        let look = |reference: GitReference| {
            let _ = std::fs::remove_dir_all(fleet.cache());
            let git = GitSource { reference, paths: vec!["a".into(), "c".into()], ..GitSource::at(&url) };
            let (mut looker, mut memory) = (looker_of(&fleet.cache(), git), Memory::default());
            let reading = match memory.look(&mut looker)? {
                Look::Changed(reading) => reading,
                other => panic!("nothing was read: {other:?}"),
            };
            assert_eq!(paths(&reading), ["a/one", "c/three"]);
            assert!(memory.is_unchanged(&mut looker));
            Ok::<_, SourceError>(reading.revision.subject.unwrap())
        };
        let range = |range: &str| look(GitReference::Semver(range.parse().unwrap()));
        assert_eq!(range(">=1.2, <2").unwrap(), "v1.10.0", "{url}");
        assert_eq!(range(">=2.0.0-0").unwrap(), "v2.0.0-rc.1", "{url}");
        assert_eq!(range(">=3").unwrap_err().kind, SourceErrorKind::RefNotFound, "{url}");
        assert_eq!(look(GitReference::Named("v1.2.0".into())).unwrap(), "v1.2.0", "{url}");
        assert_eq!(look(GitReference::Named("main".into())).unwrap(), "first", "{url}");
        assert_eq!(look(GitReference::Full("refs/reviews/7".into())).unwrap(), "v1.2.0", "{url}");
        let both = look(GitReference::Named("both".into())).unwrap_err();
        assert_eq!(both.kind, SourceErrorKind::RefAmbiguous, "{url}");
        assert!(both.what.contains("refs/heads/both") && both.what.contains("refs/tags/both"), "{both}");
    }
    let git = GitSource { paths: vec!["a".into(), "x".into()], ..GitSource::at(&daemon.url()) };
    let error = Memory::default().look(&mut looker_of(&fleet.cache(), git)).unwrap_err();
    assert_eq!(error.kind, SourceErrorKind::InvalidPath, "{error}");
}
