//! Submodules over a real server: part of the content, or named as missing; never silently left out.

use landfall::files::config::{Credentials, GitSource, HostCredentials, PasswordFrom};
use landfall::source::Looker;

use crate::servers::{Forge, basic};
use crate::support::{Fleet, Memory, content, git, listing, looker_of, paths, problem};

/// Makes the repository `NAME.git` beside the fleet, with one commit that holds `files`.
fn repository(fleet: &Fleet, name: &str, files: &[(&str, &str)]) {
    let root = fleet.dir.path();
    git(root, &["init", "-q", "--bare", "-b", "main", &format!("{name}.git")]);
    git(root, &["init", "-q", "-b", "main", name]);
    change(fleet, name, files);
}

/// A further commit of such a repository.
fn change(fleet: &Fleet, name: &str, files: &[(&str, &str)]) {
    let work = fleet.dir.path().join(name);
    for (path, text) in files {
        let path = work.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    git(&work, &["add", "-A"]);
    git(&work, &["commit", "-q", "-m", "change"]);
    git(&work, &["push", "-q", "--force", &format!("../{name}.git"), "HEAD:main"]);
}

/// Adds a submodule to a working copy, under a URL that is relative to the repository's own.
fn add(fleet: &Fleet, work: &str, name: &str, path: &str, url: &str) {
    let bare = fleet.dir.path().join(format!("{name}.git")).display().to_string();
    let work = fleet.dir.path().join(work);
    git(&work, &["submodule", "add", "-q", &bare, path]);
    git(&work, &["config", "-f", ".gitmodules", &format!("submodule.{path}.url"), url]);
}

/// Moves a submodule of the fleet to the newest commit of its repository.
fn update(fleet: &Fleet, path: &str) {
    let work = fleet.work().join(path);
    git(&work, &["pull", "-q", "origin", "main"]);
}

fn source(forge: &Forge) -> GitSource {
    GitSource { submodules: true, ..GitSource::at(&forge.url()) }
}

fn looker(fleet: &Fleet, source: GitSource) -> Looker {
    looker_of(&fleet.cache(), source)
}

/// The files below an app's tree.
fn files(reading: &landfall::source::Reading, path: &str) -> Vec<String> {
    let objects = git2::Repository::open_bare(&reading.objects).unwrap();
    let mut all = Vec::new();
    for (_, tree) in &content(reading, path).tree.parts {
        let tree = objects.find_tree(tree.as_str().parse().unwrap()).unwrap();
        let found = tree.walk(git2::TreeWalkMode::PreOrder, |root, entry| {
            if entry.kind() != Some(git2::ObjectType::Tree) {
                all.push(format!("{root}{}", entry.name().unwrap()));
            }
            git2::TreeWalkResult::Ok
        });
        found.unwrap();
    }
    all
}

/// A shop that uses a library as a submodule, which uses another, and a blog that uses none.
fn shop_and_blog() -> (Fleet, Forge) {
    let fleet = Fleet::new();
    repository(&fleet, "inner", &[("inner.py", "1")]);
    repository(&fleet, "lib", &[("lib.py", "1")]);
    add(&fleet, "lib", "inner", "deep/inner", "../inner.git");
    change(&fleet, "lib", &[]);
    fleet.app("shop", "shop");
    fleet.app("blog", "blog");
    add(&fleet, "work", "lib", "shop/vendor/lib", "../lib.git");
    fleet.push("first");
    let forge = Forge::serve(fleet.dir.path(), None);
    (fleet, forge)
}

#[test]
fn submodules_belong_to_the_content_of_the_app_they_lie_in() {
    let (fleet, forge) = shop_and_blog();
    let (mut looker, mut memory) = (looker(&fleet, source(&forge)), Memory::default());
    let first = memory.read(&mut looker);
    assert_eq!(paths(&first), ["blog", "shop"]);
    let found = files(&first, "shop");
    assert!(found.contains(&"vendor/lib/lib.py".to_owned()), "{found:?}");
    assert!(found.contains(&"vendor/lib/deep/inner/inner.py".to_owned()), "{found:?}");
    assert!(first.notes.is_empty());
    let before = listing(&fleet.cache());
    forge.take_requests();
    assert!(memory.is_unchanged(&mut looker));
    assert_eq!(forge.take_requests().len(), 1, "without news the submodules are not asked for");
    assert_eq!(listing(&fleet.cache()), before);

    change(&fleet, "lib", &[("lib.py", "2")]);
    update(&fleet, "shop/vendor/lib");
    fleet.push("a newer library");
    let second = memory.read(&mut looker);
    assert_eq!(paths(&second), ["shop"], "the blog is not touched");
    assert_ne!(content(&first, "shop").content, content(&second, "shop").content);
}

#[test]
fn without_submodules_an_app_that_has_one_is_told() {
    let (fleet, forge) = shop_and_blog();
    let reading = Memory::default().read(&mut looker(&fleet, GitSource::at(&forge.url())));
    let [note] = reading.notes.as_slice() else { panic!("{:?}", reading.notes) };
    assert_eq!(note.path, "shop");
    assert!(note.message.contains("shop/vendor/lib is a submodule"), "{note:?}");
    assert!(note.message.contains("submodules: true"), "{note:?}");
}

#[test]
fn a_submodule_that_cannot_be_fetched_makes_its_app_unknown_until_it_can() {
    let (fleet, forge) = shop_and_blog();
    let (mut looker, mut memory) = (looker(&fleet, source(&forge)), Memory::default());
    memory.read(&mut looker);
    change(&fleet, "lib", &[("lib.py", "2")]);
    update(&fleet, "shop/vendor/lib");
    fleet.write("blog/post", "new");
    fleet.push("both");
    let (there, away) = (fleet.dir.path().join("lib.git"), fleet.dir.path().join("gone"));
    std::fs::rename(&there, &away).unwrap();
    let reading = memory.read(&mut looker);
    content(&reading, "blog");
    let told = problem(&reading, "shop");
    assert!(told.contains("shop/vendor/lib") && told.contains("404"), "{told}");
    assert!(reading.removed.is_empty());
    assert!(memory.is_unchanged(&mut looker), "the same trouble is not a new revision");
    std::fs::rename(&away, &there).unwrap();
    let reading = memory.read(&mut looker);
    assert_eq!(paths(&reading), ["shop"], "without any commit to the fleet");
    content(&reading, "shop");
    assert!(memory.is_unchanged(&mut looker));
}

#[test]
fn apps_in_a_submodule_are_not_gone_because_it_cannot_be_fetched() {
    let fleet = Fleet::new();
    repository(&fleet, "team", &[("one/landfall.yaml", "app: one\n"), ("two/landfall.yaml", "app: two\n")]);
    fleet.app("blog", "blog");
    add(&fleet, "work", "team", "teams/a", "../team.git");
    fleet.push("first");
    let forge = Forge::serve(fleet.dir.path(), None);
    let (mut looker, mut memory) = (looker(&fleet, source(&forge)), Memory::default());
    assert_eq!(paths(&memory.read(&mut looker)), ["blog", "teams/a/one", "teams/a/two"]);
    change(&fleet, "team", &[("one/x", "1")]);
    update(&fleet, "teams/a");
    fleet.push("a newer team");
    let (there, away) = (fleet.dir.path().join("team.git"), fleet.dir.path().join("gone"));
    std::fs::rename(&there, &away).unwrap();
    let reading = memory.read(&mut looker);
    assert!(reading.removed.is_empty(), "{:?}", reading.removed);
    for path in ["teams/a/one", "teams/a/two"] {
        assert!(problem(&reading, path).contains("cannot be fetched"));
    }
    // While it is missing, it is taken out of the fleet: now they are gone.
    git(&fleet.work(), &["rm", "-q", "-f", "teams/a"]);
    fleet.push("no team");
    assert_eq!(memory.read(&mut looker).removed, ["teams/a/one", "teams/a/two"]);
}

#[test]
fn a_submodule_on_another_host_gets_its_own_login_and_no_other() {
    let fleet = Fleet::new();
    repository(&fleet, "lib", &[("lib.py", "1")]);
    let (own, other) = (Forge::serve(fleet.dir.path(), None), Forge::serve(fleet.dir.path(), None));
    fleet.app("shop", "shop");
    add(&fleet, "work", "lib", "shop/lib", &other.url_of("lib.git"));
    fleet.push("first");
    own.wants("bot", "own-password");
    other.wants("guest", "other-password");
    let credentials = |user: &str, file: &str, password: &str| {
        let path = fleet.dir.path().join(file);
        std::fs::write(&path, password).unwrap();
        Credentials { username: user.into(), password: PasswordFrom::File(path) }
    };
    let without = GitSource { credentials: Some(credentials("bot", "own", "own-password")), ..source(&own) };
    let mut memory = Memory::default();
    let reading = memory.read(&mut looker(&fleet, without.clone()));
    assert!(problem(&reading, "shop").contains("401"), "{}", problem(&reading, "shop"));
    assert!(other.take_requests().iter().all(|request| !request.headers.contains_key("authorization")));
    let host = format!("127.0.0.1:{}", other.port);
    let there = HostCredentials { host, credentials: credentials("guest", "other", "other-password") };
    let reading = memory.read(&mut looker(&fleet, GitSource { submodule_credentials: vec![there], ..without }));
    assert!(files(&reading, "shop").contains(&"lib/lib.py".to_owned()));
    let sent: Vec<_> =
        other.take_requests().into_iter().filter_map(|r| r.headers.get("authorization").cloned()).collect();
    assert!(!sent.is_empty() && sent.iter().all(|sent| *sent == basic("guest", "other-password")), "{sent:?}");
}
