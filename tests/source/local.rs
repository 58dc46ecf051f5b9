//! Repositories on this machine.

use landfall::files::config::GitReference;
use landfall::source::{Look, SourceErrorKind};

use crate::support::{Fleet, Memory, content, listing, paths};

#[test]
fn a_push_changes_only_the_apps_it_touches() {
    let fleet = Fleet::new();
    fleet.app("apps/shop", "shop");
    fleet.app("apps/blog", "blog");
    fleet.write("README", "hello");
    let commit = fleet.push("first");
    let (mut looker, mut memory) = (fleet.looker(), Memory::default());
    let reading = memory.read(&mut looker);
    assert!(reading.first);
    assert_eq!(paths(&reading), ["apps/blog", "apps/shop"]);
    assert_eq!(reading.revision.commit.as_ref().unwrap().as_str(), commit);
    assert_eq!(reading.revision.author.as_deref(), Some("Ada <ada@example.com>"));
    assert_eq!(reading.revision.subject.as_deref(), Some("first"));
    assert_eq!(content(&reading, "apps/shop").manifest.app.as_str(), "shop");
    assert!(memory.is_unchanged(&mut looker));

    fleet.write("apps/shop/server.py", "print()");
    fleet.push("second");
    let reading = memory.read(&mut looker);
    assert!(!reading.first && !reading.revision.forced);
    assert_eq!(paths(&reading), ["apps/shop"]);
    assert_eq!(reading.stats.manifests_read, 1);

    fleet.write("README", "bye");
    fleet.push("nothing for apps");
    assert!(memory.read(&mut looker).read.is_empty());

    fleet.remove("apps/blog");
    fleet.push("blog is gone");
    let reading = memory.read(&mut looker);
    assert_eq!(reading.removed, ["apps/blog"]);
    assert!(reading.read.is_empty());
}

#[test]
fn a_local_repository_is_neither_cloned_nor_written_to() {
    let fleet = Fleet::new();
    fleet.app("shop", "shop");
    fleet.push("first");
    let before = listing(&fleet.bare());
    let (mut looker, mut memory) = (fleet.looker(), Memory::default());
    let reading = memory.read(&mut looker);
    assert_eq!(reading.objects.canonicalize().unwrap(), fleet.bare().canonicalize().unwrap());
    assert!(memory.is_unchanged(&mut looker));
    assert_eq!(listing(&fleet.bare()), before);
    assert!(!fleet.cache().exists());
}

#[test]
fn a_working_copy_and_a_file_url_are_sources_too() {
    let fleet = Fleet::new();
    fleet.app("shop", "shop");
    fleet.push("first");
    for url in [fleet.work().display().to_string(), format!("file://{}", fleet.bare().display())] {
        let reading = Memory::default().read(&mut fleet.looker_at(&url, GitReference::Head, ""));
        assert_eq!(paths(&reading), ["shop"], "{url}");
    }
}

#[test]
fn branches_tags_and_commits_are_followed() {
    let fleet = Fleet::new();
    fleet.app("one", "one");
    let first = fleet.push("first");
    fleet.git(&["tag", "-a", "v1", "-m", "annotated"]);
    fleet.git(&["push", "-q", "origin", "v1"]);
    fleet.app("two", "two");
    fleet.push("second");
    let url = fleet.bare().display().to_string();
    let read = |reference| Memory::default().read(&mut fleet.looker_at(&url, reference, "")).read.len();
    assert_eq!(read(GitReference::Branch("main".into())), 2);
    assert_eq!(read(GitReference::Tag("v1".into())), 1);
    assert_eq!(read(GitReference::Commit(first.parse().unwrap())), 1);
}

#[test]
fn a_force_push_is_followed_and_marked() {
    let fleet = Fleet::new();
    fleet.app("shop", "shop");
    fleet.push("first");
    fleet.write("shop/x", "1");
    fleet.push("second");
    let (mut looker, mut memory) = (fleet.looker(), Memory::default());
    memory.read(&mut looker);
    fleet.git(&["reset", "-q", "--hard", "HEAD~1"]);
    fleet.write("shop/x", "2");
    fleet.push("instead");
    let reading = memory.read(&mut looker);
    assert!(reading.revision.forced);
    assert_eq!(paths(&reading), ["shop"]);
}

#[test]
fn only_the_configured_path_holds_apps() {
    let fleet = Fleet::new();
    fleet.app("apps/shop", "shop");
    fleet.app("other/blog", "blog");
    fleet.push("first");
    let url = fleet.bare().display().to_string();
    let mut memory = Memory::default();
    let reading = memory.read(&mut fleet.looker_at(&url, GitReference::Head, "apps/"));
    assert_eq!(paths(&reading), ["apps/shop"]);

    // Another path in the configuration reads everything again and drops what is no longer there.
    let reading = memory.read(&mut fleet.looker_at(&url, GitReference::Head, "other"));
    assert_eq!((paths(&reading), reading.removed.as_slice()), (vec!["other/blog"], &["apps/shop".to_owned()][..]));

    let error = memory.look(&mut fleet.looker_at(&url, GitReference::Head, "nowhere")).unwrap_err();
    assert_eq!(error.kind, SourceErrorKind::InvalidPath);
    assert!(error.to_string().contains("`nowhere`"), "{error}");
}

#[test]
fn what_does_not_exist_is_named_with_what_does() {
    let fleet = Fleet::new();
    let url = fleet.bare().display().to_string();
    let error =
        |url: &str, reference| Memory::default().look(&mut fleet.looker_at(url, reference, "")).map(drop).unwrap_err();
    let unborn = error(&url, GitReference::Head);
    assert_eq!(unborn.kind, SourceErrorKind::RefNotFound, "{unborn}");

    fleet.app("shop", "shop");
    fleet.push("first");
    let branch = error(&url, GitReference::Branch("mian".into()));
    assert_eq!(branch.kind, SourceErrorKind::RefNotFound);
    assert!(branch.to_string().contains("`mian`") && branch.to_string().contains("there are: main"), "{branch}");
    let commit = error(&url, GitReference::Commit("1".repeat(40).parse().unwrap()));
    assert_eq!(commit.kind, SourceErrorKind::RefNotFound);

    let nowhere = error("/nowhere/fleet.git", GitReference::Head);
    assert_eq!(nowhere.kind, SourceErrorKind::NotFound);
    assert!(nowhere.to_string().contains("source `fleet`") && nowhere.to_string().contains("/nowhere/fleet.git"));
    let no_repository = error(&fleet.dir.path().display().to_string(), GitReference::Head);
    assert_eq!(no_repository.kind, SourceErrorKind::NotFound, "{no_repository}");
}

#[test]
fn a_repository_that_goes_away_and_comes_back_is_picked_up() {
    let fleet = Fleet::new();
    fleet.app("shop", "shop");
    fleet.push("first");
    let (mut looker, mut memory) = (fleet.looker(), Memory::default());
    memory.read(&mut looker);
    let aside = fleet.dir.path().join("aside.git");
    std::fs::rename(fleet.bare(), &aside).unwrap();
    assert_eq!(memory.look(&mut looker).unwrap_err().kind, SourceErrorKind::NotFound);
    std::fs::rename(&aside, fleet.bare()).unwrap();
    assert!(memory.is_unchanged(&mut looker));
}

#[test]
fn repacking_the_repository_while_it_is_open_goes_unnoticed() {
    let fleet = Fleet::new();
    fleet.app("shop", "shop");
    fleet.push("first");
    let (mut looker, mut memory) = (fleet.looker(), Memory::default());
    memory.read(&mut looker);
    for round in 0..3 {
        fleet.write("shop/x", &round.to_string());
        fleet.push("more");
        crate::support::git(&fleet.bare(), &["gc", "-q", "--prune=now"]);
        assert_eq!(paths(&memory.read(&mut looker)), ["shop"]);
    }
}

#[test]
fn a_damaged_object_is_an_error_not_a_removal() {
    let fleet = Fleet::new();
    fleet.app("shop", "shop");
    fleet.push("first");
    let (mut looker, mut memory) = (fleet.looker(), Memory::default());
    memory.read(&mut looker);
    fleet.write("shop/landfall.yaml", "app: shop\n# new\n");
    fleet.push("second");
    let blob = fleet.git(&["rev-parse", "HEAD:shop/landfall.yaml"]);
    std::fs::remove_file(fleet.bare().join("objects").join(&blob[..2]).join(&blob[2..])).unwrap();
    let error = memory.look(&mut looker).unwrap_err();
    assert_eq!(error.kind, SourceErrorKind::Corrupt, "{error}");
    assert_eq!(memory.apps.len(), 1);
}

#[test]
fn a_look_ends_when_it_is_cancelled() {
    let fleet = Fleet::new();
    fleet.app("shop", "shop");
    fleet.push("first");
    let limits = crate::support::soon();
    limits.cancel.store(true, std::sync::atomic::Ordering::Relaxed);
    let look = Memory::default().look_within(&mut fleet.looker(), &limits);
    assert_eq!(look.map(|look| matches!(look, Look::Changed(_))).unwrap_err().kind, SourceErrorKind::Cancelled);
}
