//! The store: importing, refusing, laying out, collecting, compacting, snapshotting.

use std::collections::HashSet;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use git2::{Oid, Repository};
use landfall::domain::{AppKey, ContentId, TreeId, VersionNumber};
use landfall::source::{Look, Looker, PackedTree, Snapshot, SnapshotFailure, SourceErrorKind};
use landfall::store::{Bounds, PatchKind, Store, StoreError};

use crate::support::{Fleet, Memory, content, git, listing, paths, reader, soon};

struct Room {
    dir: tempfile::TempDir,
}

impl Room {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn store(&self) -> Store {
        Store::open(self.dir.path()).unwrap()
    }

    fn objects(&self) -> Repository {
        Repository::open_bare(self.dir.path().join("store.git")).unwrap()
    }
}

fn key(app: &str) -> AppKey {
    AppKey::new("main".parse().unwrap(), app.parse().unwrap())
}

fn some_content(digit: char) -> ContentId {
    digit.to_string().repeat(64).parse().unwrap()
}

fn version(number: u32) -> VersionNumber {
    VersionNumber::new(number).unwrap()
}

fn import(store: &Store, from: &Path, tree: &PackedTree) -> Result<TreeId, StoreError> {
    store.import(from, &[&tree.parts]).map(|mut trees| trees.remove(0))
}

/// A fleet with one app, read and imported.
fn imported(fleet: &Fleet, store: &Store, app: &str) -> (TreeId, ContentId) {
    fleet.push("imported");
    let reading = Memory::default().read(&mut fleet.looker());
    let content = content(&reading, app);
    (import(store, &reading.objects, &content.tree).unwrap(), content.content.clone())
}

fn packs(room: &Room) -> usize {
    let entries = std::fs::read_dir(room.dir.path().join("store.git/objects/pack")).unwrap();
    entries.filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|e| e == "pack")).count()
}

/// Lets the test remove what is read-only.
fn unlock(path: &Path) {
    if let Ok(entries) = std::fs::read_dir(path) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        for entry in entries.flatten().filter(|entry| entry.file_type().unwrap().is_dir()) {
            unlock(&entry.path());
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        unlock(self.dir.path());
    }
}

#[test]
fn an_imported_app_survives_its_source() {
    let (room, fleet) = (Room::new(), Fleet::new());
    let store = room.store();
    fleet.app("shop", "shop");
    fleet.write("shop/src/server.py", "print(1)");
    fleet.app("blog", "blog");
    let (tree, _) = imported(&fleet, &store, "shop");
    assert_eq!(packs(&room), 1);
    std::fs::remove_dir_all(fleet.bare()).unwrap();
    assert!(store.has_tree(&tree));
    assert_eq!(store.read_file(&tree, "src/server.py").unwrap().as_deref(), Some(&b"print(1)"[..]));
    assert_eq!(store.read_file(&tree, "src/none").unwrap(), None);
    assert_eq!(store.read_file(&tree, "src").unwrap(), None);
    git(&room.dir.path().join("store.git"), &["fsck", "--strict", "--no-dangling"]);
}

#[test]
fn importing_again_adds_nothing_and_a_change_adds_only_itself() {
    let (room, fleet) = (Room::new(), Fleet::new());
    let store = room.store();
    fleet.app("shop", "shop");
    for number in 0..50 {
        fleet.write(&format!("shop/lib/file{number}"), &number.to_string());
    }
    let (first, _) = imported(&fleet, &store, "shop");
    let before = listing(&room.dir.path().join("store.git"));
    assert_eq!(imported(&fleet, &store, "shop").0, first);
    assert_eq!(listing(&room.dir.path().join("store.git")), before);
    fleet.write("shop/lib/file7", "changed");
    let (second, _) = imported(&fleet, &store, "shop");
    assert_eq!(packs(&room), 2);
    let mut objects = 0;
    room.objects()
        .odb()
        .unwrap()
        .foreach(|_| {
            objects += 1;
            true
        })
        .unwrap();
    assert_eq!(objects, 53 + 3, "the file, its directory and the root");
    let difference = store.diff(&first, &second).unwrap();
    assert_eq!((difference.paths, difference.total), (vec!["lib/file7".to_owned()], 1));
}

#[test]
fn an_app_with_includes_is_laid_out_as_in_its_repository() {
    let (room, fleet) = (Room::new(), Fleet::new());
    let store = room.store();
    fleet.write("apps/shop/landfall.yaml", "app: shop\ninclude: ../../common/lib\ninclude: ../blog\n");
    fleet.app("apps/blog", "blog");
    fleet.write("common/lib/a.py", "1");
    symlink("../../common/lib/a.py", fleet.work().join("apps/shop/a.py")).unwrap();
    fleet.push("first");
    let reading = Memory::default().read(&mut fleet.looker());
    let app = content(&reading, "apps/shop");
    let tree = import(&store, &reading.objects, &app.tree).unwrap();
    let release = store.materialise(&key("shop"), &app.content, &tree).unwrap();
    let workdir = release.dir.join(&app.tree.workdir);
    assert_eq!(std::fs::read_to_string(workdir.join("a.py")).unwrap(), "1");
    assert_eq!(std::fs::read_to_string(workdir.join("../blog/landfall.yaml")).unwrap(), "app: blog\n");
    git(&room.dir.path().join("store.git"), &["fsck", "--strict", "--no-dangling"]);
}

/// A repository with one commit of handmade entries: (mode, name, object).
fn handmade(entries: &[(&str, &[u8], Oid)], repository: &Repository) -> TreeId {
    let mut bytes = Vec::new();
    for (mode, name, id) in entries {
        bytes.extend_from_slice(mode.as_bytes());
        bytes.push(b' ');
        bytes.extend_from_slice(name);
        bytes.push(0);
        bytes.extend_from_slice(id.as_bytes());
    }
    let id = repository.odb().unwrap().write(git2::ObjectType::Tree, &bytes).unwrap();
    id.to_string().parse().unwrap()
}

#[test]
fn trees_that_would_lead_elsewhere_are_refused() {
    let (room, fleet) = (Room::new(), Fleet::new());
    let store = room.store();
    let repository = Repository::open_bare(fleet.bare()).unwrap();
    let blob = repository.blob(b"x").unwrap();
    let link = |target: &str| repository.blob(target.as_bytes()).unwrap();
    let nested = |entries: &[(&str, &[u8], Oid)]| Oid::from_str(handmade(entries, &repository).as_str()).unwrap();
    let cases: Vec<(&str, TreeId)> = vec![
        ("absolute link", handmade(&[("120000", b"a", link("/etc/passwd"))], &repository)),
        ("link above", handmade(&[("120000", b"a", link("../../secrets"))], &repository)),
        ("link above, deeper", handmade(&[("40000", b"d", nested(&[("120000", b"a", link("../../x"))]))], &repository)),
        (
            "link through a link",
            handmade(
                &[(
                    "40000",
                    b"s",
                    nested(&[(
                        "40000",
                        b"t",
                        nested(&[("120000", b"d", link("../..")), ("120000", b"e", link("d/.."))]),
                    )]),
                )],
                &repository,
            ),
        ),
        ("dot dot", handmade(&[("100644", b"..", blob)], &repository)),
        ("dot dot directory", handmade(&[("40000", b"..", nested(&[("100644", b"x", blob)]))], &repository)),
        ("slash", handmade(&[("100644", b"a/../../x", blob)], &repository)),
        ("empty name", handmade(&[("100644", b"", blob)], &repository)),
        (".git", handmade(&[("40000", b".git", nested(&[("100644", b"config", blob)]))], &repository)),
        (".GIT", handmade(&[("100644", b".GIT", blob)], &repository)),
        ("strange mode", handmade(&[("104755", b"a", blob)], &repository)),
        ("device", handmade(&[("20644", b"a", blob)], &repository)),
    ];
    for (what, tree) in cases {
        let result = store.import(&fleet.bare(), &[&[(String::new(), tree.clone())]]);
        let error = result.expect_err(what);
        assert!(matches!(error, StoreError::EscapingSymlink { .. } | StoreError::BadEntry { .. }), "{what}: {error}");
        assert!(!store.has_tree(&tree), "{what}");
    }
    assert_eq!(packs(&room), 0);
}

#[test]
fn one_bad_app_of_many_keeps_all_out_and_names_itself() {
    let (room, fleet) = (Room::new(), Fleet::new());
    let store = room.store();
    fleet.app("good", "good");
    fleet.app("bad", "bad");
    symlink("../../outside", fleet.work().join("bad/link")).unwrap();
    fleet.push("first");
    let reading = Memory::default().read(&mut fleet.looker());
    let (bad, good) = (&content(&reading, "bad").tree, &content(&reading, "good").tree);
    let error = store.import(&reading.objects, &[&good.parts, &bad.parts]).unwrap_err();
    assert!(error.to_string().contains("`link`") && error.to_string().contains("../../outside"), "{error}");
    assert_eq!(packs(&room), 0);
    // What stays inside thanks to an include is fine; the same tree alone is not.
    import(&store, &reading.objects, good).unwrap();
}

#[test]
fn submodules_are_left_out() {
    let (room, fleet) = (Room::new(), Fleet::new());
    let store = room.store();
    let repository = Repository::open_bare(fleet.bare()).unwrap();
    let blob = repository.blob(b"x").unwrap();
    let tree =
        handmade(&[("100755", b"run", blob), ("160000", b"sub", Oid::from_bytes(&[7; 20]).unwrap())], &repository);
    let parts = [(String::new(), tree)];
    let tree = store.import(&fleet.bare(), &[&parts]).unwrap().remove(0);
    let release = store.materialise(&key("shop"), &some_content('a'), &tree).unwrap();
    let names: Vec<_> = std::fs::read_dir(&release.dir).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["run"]);
}

#[test]
fn a_tree_that_unfolds_without_end_is_not_imported() {
    let (room, fleet) = (Room::new(), Fleet::new());
    let store = room.store();
    let repository = Repository::open_bare(fleet.bare()).unwrap();
    let mut tree = handmade(&[("100644", b"x", repository.blob(b"x").unwrap())], &repository);
    for _ in 0..12 {
        let id = Oid::from_str(tree.as_str()).unwrap();
        let entries: Vec<(&str, &[u8], Oid)> =
            [b"0", b"1", b"2", b"3", b"4", b"5", b"6", b"7"].iter().map(|n| ("40000", &n[..], id)).collect();
        tree = handmade(&entries, &repository);
    }
    let error = store.import(&fleet.bare(), &[&[(String::new(), tree)]]).unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { .. }), "{error}");
}

#[test]
fn damage_in_the_source_is_found_before_anything_is_recorded() {
    let (room, fleet) = (Room::new(), Fleet::new());
    let store = room.store();
    fleet.app("shop", "shop");
    fleet.write("shop/x", "precious");
    fleet.push("first");
    let reading = Memory::default().read(&mut fleet.looker());
    let blob = fleet.git(&["rev-parse", "HEAD:shop/x"]);
    std::fs::remove_file(fleet.bare().join("objects").join(&blob[..2]).join(&blob[2..])).unwrap();
    let error = import(&store, &reading.objects, &content(&reading, "shop").tree).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    assert_eq!(packs(&room), 0);
    let names: Vec<_> =
        std::fs::read_dir(store.objects()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert!(!names.iter().any(|name| name.starts_with("incoming")), "{names:?}");
}

#[test]
fn a_release_appears_whole_and_read_only_or_not_at_all() {
    let (room, fleet) = (Room::new(), Fleet::new());
    let store = room.store();
    fleet.app("shop", "shop");
    fleet.write("shop/bin/run", "#!/bin/sh\n");
    std::fs::set_permissions(fleet.work().join("shop/bin/run"), std::fs::Permissions::from_mode(0o755)).unwrap();
    symlink("bin/run", fleet.work().join("shop/start")).unwrap();
    let (tree, id) = imported(&fleet, &store, "shop");
    let key = key("shop");
    {
        let preparation = store.begin(&key, &id, &tree).unwrap();
        assert!(preparation.dir.join("bin/run").exists());
        assert_eq!(store.existing(&key, &id), None);
    }
    let app_dir = store.release_dir(&key, &id).parent().unwrap().to_path_buf();
    assert_eq!(std::fs::read_dir(&app_dir).unwrap().count(), 0, "dropped without a trace");

    let preparation = store.begin(&key, &id, &tree).unwrap();
    std::fs::create_dir(preparation.dir.join("vendor")).unwrap();
    std::fs::write(preparation.dir.join("vendor/built"), "by the build").unwrap();
    let release = preparation.publish(Some("build 1".into())).unwrap();
    assert_eq!(store.existing(&key, &id), Some(release.clone()));
    assert_eq!((release.tree, release.build.as_deref()), (tree.clone(), Some("build 1")));
    let mode = |path: &str| std::fs::symlink_metadata(release.dir.join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("bin/run"), mode("landfall.yaml"), mode("vendor/built")), (0o555, 0o444, 0o444));
    assert_eq!((mode("bin"), mode("vendor"), mode("")), (0o555, 0o555, 0o555));
    assert_eq!(std::fs::read_link(release.dir.join("start")).unwrap(), PathBuf::from("bin/run"));
    // Again: what is there is used, nothing is written.
    let before = listing(&release.dir);
    assert_eq!(store.materialise(&key, &id, &tree).unwrap().dir, release.dir);
    assert_eq!(listing(&release.dir), before);
}

#[test]
fn two_who_publish_the_same_content_agree_on_one() {
    let (room, fleet) = (Room::new(), Fleet::new());
    let store = room.store();
    fleet.app("shop", "shop");
    let (tree, id) = imported(&fleet, &store, "shop");
    let first = store.begin(&key("shop"), &id, &tree).unwrap();
    let second = store.begin(&key("shop"), &id, &tree).unwrap();
    let one = first.publish(Some("first".into())).unwrap();
    let two = second.publish(Some("second".into())).unwrap();
    assert_eq!(one, two);
    let app_dir = store.release_dir(&key("shop"), &id).parent().unwrap().to_path_buf();
    assert_eq!(std::fs::read_dir(app_dir).unwrap().count(), 1);
}

#[test]
fn releases_are_made_from_many_threads_at_once() {
    let (room, fleet) = (Room::new(), Fleet::new());
    let store = room.store();
    fleet.app("shop", "shop");
    for number in 0..20 {
        fleet.write(&format!("shop/file{number}"), &number.to_string());
    }
    let (tree, id) = imported(&fleet, &store, "shop");
    std::thread::scope(|scope| {
        for worker in 0..8 {
            let (store, tree, id) = (&store, &tree, &id);
            scope.spawn(move || {
                for round in 0..5 {
                    let key = key(&format!("app{}", (worker + round) % 4));
                    let release = store.materialise(&key, id, tree).unwrap();
                    assert_eq!(std::fs::read_to_string(release.dir.join("file7")).unwrap(), "7");
                }
            });
        }
    });
    assert_eq!(store.collect(store.begin_collection(), &|_, _| false).unwrap().releases_removed, 4);
}

#[test]
fn collecting_removes_what_nobody_keeps() {
    let (room, fleet) = (Room::new(), Fleet::new());
    let store = room.store();
    fleet.app("shop", "shop");
    let (tree, _) = imported(&fleet, &store, "shop");
    let (keep, drop) = (some_content('a'), some_content('b'));
    for id in [&keep, &drop] {
        store.materialise(&key("shop"), id, &tree).unwrap();
        store.materialise(&key("blog"), id, &tree).unwrap();
    }
    let under_way = store.begin(&key("shop"), &some_content('c'), &tree).unwrap();
    let collected = store.collect(store.begin_collection(), &|app, id| *app == key("shop") && *id == keep).unwrap();
    assert_eq!(collected.releases_removed, 3);
    assert!(collected.bytes > 0);
    assert!(store.existing(&key("shop"), &keep).is_some());
    assert!(store.existing(&key("shop"), &drop).is_none());
    assert!(!room.dir.path().join("releases/main/blog").exists());
    assert!(under_way.publish(None).is_ok(), "what is being made is left alone");
}

#[test]
fn opening_the_store_removes_what_killed_writers_left() {
    let (room, fleet) = (Room::new(), Fleet::new());
    let store = room.store();
    fleet.app("shop", "shop");
    let (tree, id) = imported(&fleet, &store, "shop");
    let release = store.materialise(&key("shop"), &id, &tree).unwrap();
    std::mem::forget(store.begin(&key("shop"), &some_content('d'), &tree).unwrap());
    drop(store);
    let app_dir = room.dir.path().join("releases/main/shop");
    let objects = room.dir.path().join("store.git");
    let leftovers = [
        app_dir.join(format!("{id}.gone-1")),
        objects.join("incoming-1/pack-x.pack"),
        objects.join("objects/pack/tmp_pack_1"),
        objects.join("objects/pack/pack-0123.pack"),
        objects.join("HEAD.lock"),
    ];
    for path in &leftovers {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "x").unwrap();
    }
    std::fs::remove_file(&leftovers[0]).unwrap();
    std::fs::create_dir(&leftovers[0]).unwrap();
    let store = room.store();
    for path in &leftovers {
        assert!(!path.exists(), "{}", path.display());
    }
    assert_eq!(std::fs::read_dir(app_dir).unwrap().count(), 1);
    assert!(release.dir.exists() && store.has_tree(&tree));
}

#[test]
fn compacting_keeps_what_is_pinned_and_frees_the_rest() {
    let (room, fleet) = (Room::new(), Fleet::new());
    let store = room.store();
    fleet.app("shop", "shop");
    let mut trees = Vec::new();
    for number in 1..=6 {
        let noise: String = (0..20_000).map(|_| fastrand::alphanumeric()).collect();
        fleet.write("shop/noise", &noise);
        let (tree, _) = imported(&fleet, &store, "shop");
        store.pin(&key("shop"), version(number), &tree).unwrap();
        trees.push(tree);
    }
    let pinned: HashSet<_> = store.pinned().unwrap().into_iter().map(|(_, number, tree)| (number, tree)).collect();
    assert_eq!(pinned.len(), 6);
    assert!(pinned.contains(&(version(3), trees[2].clone())));
    for number in 1..=4 {
        store.unpin(&key("shop"), version(number)).unwrap();
        store.unpin(&key("shop"), version(number)).unwrap();
    }
    let compacted = store.compact(&[]).unwrap();
    assert!(compacted.bytes_after * 2 < compacted.bytes_before, "{compacted:?}");
    assert_eq!(packs(&room), 1);
    for (index, tree) in trees.iter().enumerate() {
        assert_eq!(store.has_tree(tree), index >= 4, "v{}", index + 1);
    }
    git(store.objects(), &["fsck", "--strict", "--no-dangling"]);
    let again = store.compact(&[]).unwrap();
    assert_eq!((again.bytes_before, again.bytes_after), (compacted.bytes_after, compacted.bytes_after));
    assert!(store.has_tree(&trees[5]));
    // What was compacted away can come back.
    fleet.git(&["reset", "-q", "--hard", "HEAD~4"]);
    assert_eq!(imported(&fleet, &store, "shop").0, trees[1]);
    git(store.objects(), &["fsck", "--strict", "--no-dangling"]);
}

#[test]
fn what_was_just_imported_is_not_compacted_away_before_it_is_pinned() {
    let (room, fleet) = (Room::new(), Fleet::new());
    let store = room.store();
    fleet.app("shop", "shop");
    let (tree, _) = imported(&fleet, &store, "shop");
    store.compact(&[]).unwrap();
    store.pin(&key("shop"), version(1), &tree).unwrap();
    store.compact(&[]).unwrap();
    assert!(store.has_tree(&tree));
    store.unpin(&key("shop"), version(1)).unwrap();
    store.compact(&[]).unwrap();
    assert!(!store.has_tree(&tree));
}

#[test]
fn only_trees_that_are_here_can_be_pinned_or_laid_out() {
    let store_room = Room::new();
    let store = store_room.store();
    let nowhere: TreeId = "7".repeat(40).parse().unwrap();
    assert!(matches!(store.pin(&key("shop"), version(1), &nowhere), Err(StoreError::UnknownTree { .. })));
    let result = store.begin(&key("shop"), &some_content('a'), &nowhere);
    assert!(matches!(result, Err(StoreError::UnknownTree { .. })));
}

#[test]
fn a_snapshot_is_the_directory_as_git_would_see_it() {
    let room = Room::new();
    let store = room.store();
    let dir = tempfile::tempdir().unwrap();
    let here = dir.path();
    git(here, &["init", "-q"]);
    for (path, text) in [
        ("a.txt", "1"),
        ("sub/b", "2"),
        ("sub/deep/c", "3"),
        ("sub.x", "4"),
        ("sub-x", "5"),
        (".gitignore", "target/\n*.log\n!sub/keep.log\n"),
        ("target/junk", "x"),
        ("x.log", "x"),
        ("sub/.gitignore", "hidden\n"),
        ("sub/keep.log", "6"),
        ("sub/hidden", "x"),
    ] {
        let path = here.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    std::fs::create_dir(here.join("empty")).unwrap();
    std::fs::set_permissions(here.join("sub/b"), std::fs::Permissions::from_mode(0o755)).unwrap();
    symlink("a.txt", here.join("link")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(here.join("socket")).unwrap();
    let tree = store.snapshot(here).unwrap();
    git(here, &["add", "-A", "--", ".", ":!socket"]);
    assert_eq!(tree.as_str(), git(here, &["write-tree"]));
    assert_eq!(store.snapshot(here).unwrap(), tree);

    std::fs::write(here.join("a.txt"), "9").unwrap();
    let changed = store.snapshot(here).unwrap();
    git(here, &["add", "-A", "--", ".", ":!socket"]);
    assert_eq!(changed.as_str(), git(here, &["write-tree"]));
    git(store.objects(), &["fsck", "--strict", "--no-dangling"]);
}

#[test]
fn a_change_that_keeps_size_and_modification_time_is_still_seen() {
    let room = Room::new();
    let store = room.store();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a");
    std::fs::write(&file, "1").unwrap();
    let stamp = std::fs::metadata(&file).unwrap().modified().unwrap();
    let before = store.snapshot(dir.path()).unwrap();
    std::fs::write(&file, "2").unwrap();
    std::fs::File::options().write(true).open(&file).unwrap().set_modified(stamp).unwrap();
    assert_ne!(store.snapshot(dir.path()).unwrap(), before);
}

#[test]
fn snapshots_survive_a_compaction_in_between() {
    let room = Room::new();
    let store = room.store();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a"), "1").unwrap();
    let first = store.snapshot(dir.path()).unwrap();
    drop(store);
    let store = room.store();
    store.compact(&[]).unwrap();
    assert!(!store.has_tree(&first));
    assert_eq!(store.snapshot(dir.path()).unwrap(), first);
    git(store.objects(), &["fsck", "--strict", "--no-dangling"]);
    assert_eq!(store.read_file(&first, "a").unwrap().as_deref(), Some(&b"1"[..]));
}

#[test]
fn an_empty_directory_has_a_snapshot_and_a_missing_one_has_an_error() {
    let room = Room::new();
    let store = room.store();
    let dir = tempfile::tempdir().unwrap();
    let tree = store.snapshot(dir.path()).unwrap();
    assert_eq!(tree.as_str(), "4b825dc642cb6eb9a060e54bf8d69288fbee4904");
    let error = store.snapshot(&dir.path().join("nowhere")).unwrap_err();
    assert!(error.to_string().contains("nowhere"), "{error}");
}

#[test]
fn a_snapshot_taken_while_files_change_is_one_that_existed() {
    let room = Room::new();
    let store = room.store();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a");
    let write = |digit: u32| {
        let text = digit.to_string().repeat(50_000);
        let temporary = dir.path().join(".gitignored");
        std::fs::write(&temporary, text).unwrap();
        std::fs::rename(&temporary, &file).unwrap();
    };
    std::fs::write(dir.path().join(".gitignore"), ".gitignored\n").unwrap();
    write(0);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| (0..200).for_each(|round| write(round % 10)));
        while !writer.is_finished() {
            match store.snapshot(dir.path()) {
                Ok(tree) => {
                    let text = store.read_file(&tree, "a").unwrap().unwrap();
                    assert_eq!(text.len(), 50_000);
                    assert!(text.iter().all(|byte| *byte == text[0]), "a mixture of two states");
                }
                Err(StoreError::Busy { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    });
}

fn directory_looker(store: &'static Store, path: &Path) -> Looker {
    use landfall::files::config::{DirectorySource, SourceConfig, SourceKind};
    let kind = SourceKind::Directory(DirectorySource {
        path: path.to_path_buf(),
        debounce: landfall::domain::manifest::Millis(200),
    });
    let config = SourceConfig {
        name: "here".parse().unwrap(),
        kind,
        environment: None,
        brake: landfall::domain::Brake::Percent(30),
    };
    let snapshot = std::sync::Arc::new(move |path: &Path| {
        let failed = |error: StoreError| SnapshotFailure {
            kind: SourceErrorKind::NotFound,
            what: error.to_string(),
            mend: String::new(),
        };
        Ok(Snapshot { tree: store.snapshot(path).map_err(failed)?, objects: store.objects().to_path_buf() })
    });
    Looker::new(&config, Path::new("/nowhere"), reader(), snapshot).unwrap()
}

#[test]
fn a_directory_is_a_source_like_any_other() {
    let room = Room::new();
    let store: &'static Store = Box::leak(Box::new(room.store()));
    let dir = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("shop/landfall.yaml", "app: shop\ninclude: ../common\n");
    write("blog/landfall.yaml", "app: blog\n");
    write("common/x", "1");
    let (mut looker, mut memory) = (directory_looker(store, dir.path()), Memory::default());
    let reading = memory.read(&mut looker);
    assert_eq!(paths(&reading), ["blog", "shop"]);
    assert_eq!(reading.revision.commit, None);
    assert!(memory.is_unchanged(&mut looker));
    // Taken over from the store into the store: checked and composed, and nothing is copied.
    let tree = import(store, &reading.objects, &content(&reading, "shop").tree).unwrap();
    assert_eq!(store.read_file(&tree, "common/x").unwrap().as_deref(), Some(&b"1"[..]));
    write("blog/x", "1");
    assert_eq!(paths(&memory.read(&mut looker)), ["blog"]);
    let all =
        landfall::source::read_all(store.objects(), &memory.seen.clone().unwrap().tree, &reader(), &soon()).unwrap();
    assert_eq!(all.len(), 2);
    std::fs::remove_dir_all(dir.path().join("shop")).unwrap();
    assert_eq!(memory.read(&mut looker).removed, ["shop"]);
    let look = memory.look(&mut looker).unwrap();
    assert!(matches!(look, Look::Unchanged { .. }));
}

/// A file system of a few hundred kilobytes. Only root can have one.
struct Small {
    dir: tempfile::TempDir,
}

impl Small {
    fn new() -> Option<Self> {
        use nix::mount::{MsFlags, mount};
        let dir = tempfile::tempdir().unwrap();
        match mount(Some("tmpfs"), dir.path(), Some("tmpfs"), MsFlags::empty(), Some("size=400k")) {
            Ok(()) => Some(Self { dir }),
            Err(error) => {
                eprintln!("skipped: mounting a small file system needs root ({error})");
                None
            }
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(self.dir.path(), nix::mount::MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_full_disk_is_said_to_be_full_and_holds_nothing_half_done() {
    let Some(small) = Small::new() else { return };
    let fleet = Fleet::new();
    let store = Store::open(small.dir.path()).unwrap();
    fleet.app("small", "small");
    fleet.app("big", "big");
    fleet.write("big/air", &"x".repeat(900_000));
    fleet.push("first");
    let reading = Memory::default().read(&mut fleet.looker());
    let (small_app, big_app) = (content(&reading, "small"), content(&reading, "big"));
    let small_tree = import(&store, &reading.objects, &small_app.tree).unwrap();
    let small_release = store.materialise(&key("small"), &small_app.content, &small_tree).unwrap();

    // It packs well enough to be taken over, and is too big to be laid out.
    let big_tree = import(&store, &reading.objects, &big_app.tree).unwrap();
    let error = store.materialise(&key("big"), &big_app.content, &big_tree).unwrap_err();
    assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");
    assert!(error.to_string().contains("free space"), "{error}");
    let left = store.release_dir(&key("big"), &big_app.content);
    assert_eq!(std::fs::read_dir(left.parent().unwrap()).unwrap().count(), 0);

    let uploads = tempfile::tempdir().unwrap();
    let noise: Vec<u8> = (0..400_000).map(|_| fastrand::u8(..)).collect();
    std::fs::write(uploads.path().join("noise"), noise).unwrap();
    let error = store.snapshot(uploads.path()).unwrap_err();
    assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");

    fleet.write("small/noise", &(0..600_000).map(|_| fastrand::alphanumeric()).collect::<String>());
    fleet.push("second");
    let reading = Memory::default().read(&mut fleet.looker());
    let error = import(&store, &reading.objects, &content(&reading, "small").tree).unwrap_err();
    assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");

    // What was there before is still whole.
    assert_eq!(store.existing(&key("small"), &small_app.content), Some(small_release));
    let store = Store::open(small.dir.path()).unwrap();
    assert!(store.has_tree(&small_tree) && store.has_tree(&big_tree));
    git(store.objects(), &["fsck", "--strict", "--no-dangling"]);
}

#[test]
fn a_source_on_a_full_disk_says_so() {
    let Some(small) = Small::new() else { return };
    let fleet = Fleet::new();
    fleet.app("shop", "shop");
    fleet.write("shop/noise", &(0..900_000).map(|_| fastrand::alphanumeric()).collect::<String>());
    fleet.push("first");
    let daemon = crate::support::Daemon::serve(fleet.dir.path());
    let mut looker = crate::support::looker_at(
        &small.dir.path().join("cache"),
        &daemon.url(),
        landfall::files::config::GitReference::Head,
        "",
    );
    let error = Memory::default().look(&mut looker).unwrap_err();
    assert_eq!(error.kind, SourceErrorKind::Disk, "{error}");
}

#[test]
fn a_difference_shows_lines_names_what_is_no_text_and_stays_within_its_bounds() {
    let (room, fleet) = (Room::new(), Fleet::new());
    let store = room.store();
    let long: String = (0..200).map(|number| format!("line {number}\n")).collect();
    fleet.app("shop", "shop");
    fleet.write("shop/a.txt", "one\ntwo\nthree\n");
    fleet.write("shop/b.bin", "\0\u{1}\u{2}");
    fleet.write("shop/c-old.txt", &long);
    fleet.write("shop/d.txt", "gone\n");
    let (old, _) = imported(&fleet, &store, "shop");
    fleet.write("shop/a.txt", "one\n2\nthree\nfour");
    fleet.write("shop/b.bin", "\0\u{1}\u{3}");
    fleet.remove("shop/c-old.txt");
    fleet.write("shop/c-new.txt", &long);
    fleet.remove("shop/d.txt");
    fleet.write("shop/e.txt", &long);
    let (new, _) = imported(&fleet, &store, "shop");

    let all = Bounds { files: 300, file_text: 64 * 1024, text: 1024 * 1024, file_size: 1024 * 1024 };
    let patch = store.patch(&old, &new, all).unwrap();
    let told: Vec<_> = patch.files.iter().map(|f| (f.path.as_str(), f.kind, f.binary, f.added, f.removed)).collect();
    let expected = [
        ("a.txt", PatchKind::Modified, false, 2, 1),
        ("b.bin", PatchKind::Modified, true, 0, 0),
        ("c-new.txt", PatchKind::Renamed, false, 0, 0),
        ("d.txt", PatchKind::Removed, false, 0, 1),
        ("e.txt", PatchKind::Added, false, 200, 0),
    ];
    assert_eq!(told, expected);
    assert_eq!(patch.files[2].old_path.as_deref(), Some("c-old.txt"));
    let text = &patch.files[0].text;
    assert!(text.starts_with("diff --git a/a.txt b/a.txt\n"), "{text}");
    assert!(text.ends_with("@@ -1,3 +1,4 @@\n one\n-two\n+2\n three\n+four\n\\ No newline at end of file\n"), "{text}");
    assert!(!patch.files.iter().any(|file| file.cut) && patch.files[1].text.is_empty());

    // Room for 400 bytes a file, 500 in all: whole lines only, and each says that it is cut.
    let tight = store.patch(&old, &new, Bounds { files: 5, file_text: 400, text: 500, file_size: 1 << 20 }).unwrap();
    let added = tight.files.last().unwrap();
    assert!(added.cut && added.text.len() <= 400 && (added.text.is_empty() || added.text.ends_with('\n')), "{added:?}");
    assert_eq!(added.added, 200);
    assert!(tight.files.iter().map(|file| file.text.len()).sum::<usize>() <= 500);
    // Two files are listed, all are counted; what is too long is compared as a whole.
    let few = store.patch(&old, &new, Bounds { files: 2, file_size: 4, ..all }).unwrap();
    assert_eq!((few.total, few.files.len(), few.files[0].binary), (5, 2, true));
    assert_eq!(store.patch(&old, &old, all).unwrap().total, 0);
    let unknown = "0123456789012345678901234567890123456789".parse().unwrap();
    assert!(matches!(store.patch(&old, &unknown, all), Err(StoreError::UnknownTree { .. })));
}
