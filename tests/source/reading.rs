//! What is read from a revision: nested apps, includes, moves, names, and the sum of many changes.

use std::collections::BTreeMap;

use proptest::prelude::*;

use landfall::files::config::GitReference;

use crate::support::{Fleet, Memory, content, paths, problem};

#[test]
fn an_app_within_an_app_belongs_to_both() {
    let fleet = Fleet::new();
    fleet.app("outer", "outer");
    fleet.app("outer/deep/inner", "inner");
    fleet.push("first");
    let (mut looker, mut memory) = (fleet.looker(), Memory::default());
    assert_eq!(paths(&memory.read(&mut looker)), ["outer", "outer/deep/inner"]);
    fleet.write("outer/deep/inner/x", "1");
    fleet.push("inner changes");
    assert_eq!(paths(&memory.read(&mut looker)), ["outer", "outer/deep/inner"]);
    fleet.write("outer/x", "1");
    fleet.push("outer changes");
    assert_eq!(paths(&memory.read(&mut looker)), ["outer"]);
}

#[test]
fn an_app_may_be_the_whole_repository() {
    let fleet = Fleet::new();
    fleet.app("", "all");
    fleet.write("src/main.py", "x");
    fleet.push("first");
    let reading = Memory::default().read(&mut fleet.looker());
    assert_eq!(paths(&reading), [""]);
    assert_eq!(content(&reading, "").tree.workdir, "");
}

#[test]
fn a_change_in_an_included_directory_is_new_content_of_those_who_include_it() {
    let fleet = Fleet::new();
    fleet.write("apps/shop/landfall.yaml", "app: shop\ninclude: ../../common/lib\n");
    fleet.app("apps/blog", "blog");
    fleet.write("common/lib/a.py", "1");
    fleet.write("common/other", "1");
    fleet.push("first");
    let url = fleet.bare().display().to_string();
    // Outside of the path that holds the apps.
    let (mut looker, mut memory) = (fleet.looker_at(&url, GitReference::Head, "apps"), Memory::default());
    let first = memory.read(&mut looker);
    let tree = &content(&first, "apps/shop").tree;
    assert_eq!(tree.workdir, "apps/shop");
    let parts: Vec<&str> = tree.parts.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(parts, ["apps/shop", "common/lib"]);

    fleet.write("common/other", "2");
    fleet.push("not included");
    assert!(memory.read(&mut looker).read.is_empty());

    fleet.write("common/lib/a.py", "2");
    fleet.push("included");
    let second = memory.read(&mut looker);
    assert_eq!(paths(&second), ["apps/shop"]);
    assert_ne!(content(&second, "apps/shop").content, content(&first, "apps/shop").content);

    fleet.remove("common/lib");
    fleet.push("the included directory goes");
    let third = memory.read(&mut looker);
    assert!(problem(&third, "apps/shop").contains("`common/lib`, which does not exist"), "{third:?}");

    fleet.write("common/lib/a.py", "2");
    fleet.push("and comes back");
    assert_eq!(content(&memory.read(&mut looker), "apps/shop").content, content(&second, "apps/shop").content);
}

#[test]
fn includes_that_lead_nowhere_are_problems_of_their_app_alone() {
    let fleet = Fleet::new();
    fleet.app("good", "good");
    fleet.write("escapes/landfall.yaml", "app: escapes\ninclude: ../../outside\n");
    fleet.write("absolute/landfall.yaml", "app: absolute\ninclude: /etc\n");
    fleet.write("missing/landfall.yaml", "app: missing\ninclude: ../nothing\n");
    fleet.write("file/landfall.yaml", "app: file\ninclude: ../README\n");
    fleet.write("README", "x");
    fleet.push("first");
    let reading = Memory::default().read(&mut fleet.looker());
    content(&reading, "good");
    assert!(problem(&reading, "escapes").contains("leaves the repository"));
    assert!(problem(&reading, "absolute").contains("absolute"));
    assert!(
        problem(&reading, "missing").contains("missing/landfall.yaml")
            && problem(&reading, "missing").contains("../nothing")
    );
    assert!(problem(&reading, "file").contains("a file"));
}

#[test]
fn an_include_around_or_inside_the_app_adds_nothing_twice() {
    let fleet = Fleet::new();
    fleet.write("all/shop/landfall.yaml", "app: shop\ninclude: ..\ninclude: ./lib\ninclude: ../shop/lib\n");
    fleet.write("all/shop/lib/x", "1");
    fleet.write("all/y", "1");
    fleet.push("first");
    let reading = Memory::default().read(&mut fleet.looker());
    let tree = &content(&reading, "all/shop").tree;
    assert_eq!(tree.workdir, "shop");
    assert_eq!(tree.parts.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>(), [""]);
}

#[test]
fn moving_an_app_does_not_change_its_content() {
    let fleet = Fleet::new();
    fleet.write("a/shop/landfall.yaml", "app: shop\ninclude: ../common\n");
    fleet.write("a/shop/x", "1");
    fleet.write("a/common/y", "1");
    fleet.push("first");
    let (mut looker, mut memory) = (fleet.looker(), Memory::default());
    let before = memory.read(&mut looker);
    fleet.git(&["mv", "a", "b"]);
    fleet.push("moved");
    let after = memory.read(&mut looker);
    assert_eq!(after.removed, ["a/shop"]);
    assert_eq!(content(&after, "b/shop").content, content(&before, "a/shop").content);
    assert!(after.read[0].owner);
}

#[test]
fn content_is_what_the_app_is_and_nothing_else() {
    let fleet = Fleet::new();
    fleet.app("shop", "shop");
    fleet.push("first");
    let (mut looker, mut memory) = (fleet.looker(), Memory::default());
    let first = content(&memory.read(&mut looker), "shop").content.clone();
    fleet.write("shop/x", "1");
    fleet.push("changed");
    let second = content(&memory.read(&mut looker), "shop").content.clone();
    fleet.remove("shop/x");
    fleet.push("and back");
    let third = content(&memory.read(&mut looker), "shop").content.clone();
    assert_ne!(first, second);
    assert_eq!(first, third);
}

#[test]
fn a_name_belongs_to_who_had_it_first_and_passes_on_when_free() {
    let fleet = Fleet::new();
    fleet.app("m", "shop");
    fleet.push("first");
    let (mut looker, mut memory) = (fleet.looker(), Memory::default());
    memory.read(&mut looker);

    // First in path order, but second in time.
    fleet.app("a", "shop");
    fleet.app("z", "shop");
    fleet.push("copies");
    let reading = memory.read(&mut looker);
    assert_eq!(paths(&reading), ["a", "z"]);
    for path in ["a", "z"] {
        let problem = problem(&reading, path);
        assert!(problem.contains(&format!("{path}/landfall.yaml")) && problem.contains("m/landfall.yaml"), "{problem}");
    }
    fleet.write("m/x", "1");
    fleet.push("the owner changes and stays");
    content(&memory.read(&mut looker), "m");

    // A typing error does not lose the name.
    fleet.write("m/landfall.yaml", "broken");
    fleet.write("a/x", "1");
    fleet.push("the owner breaks");
    let reading = memory.read(&mut looker);
    problem(&reading, "a");
    assert!(reading.read.iter().any(|app| app.path == "m" && app.owner && app.result.is_err()));

    fleet.remove("m");
    fleet.push("the owner goes");
    let reading = memory.read(&mut looker);
    assert_eq!((paths(&reading), reading.removed.as_slice()), (vec!["a", "z"], &["m".to_owned()][..]));
    content(&reading, "a");
    assert!(problem(&reading, "z").contains("a/landfall.yaml"), "who still waits hears who has it now");

    fleet.app("a", "other");
    fleet.push("the owner takes another name");
    let reading = memory.read(&mut looker);
    assert_eq!(paths(&reading), ["a", "z"]);
    content(&reading, "z");
}

#[test]
fn two_new_apps_of_one_name_are_settled_by_path() {
    let fleet = Fleet::new();
    fleet.app("b", "shop");
    fleet.app("a", "shop");
    fleet.push("first");
    let reading = Memory::default().read(&mut fleet.looker());
    content(&reading, "a");
    problem(&reading, "b");
}

#[test]
fn what_is_no_manifest_is_said_to_be_none() {
    let fleet = Fleet::new();
    fleet.app("good", "good");
    fleet.write("broken/landfall.yaml", "broken");
    fleet.write("binary/x", "");
    std::fs::write(fleet.work().join("binary/landfall.yaml"), b"app: \xff\n").unwrap();
    fleet.write("huge/landfall.yaml", &format!("app: huge\n#{}", "x".repeat(1024 * 1024)));
    fleet.write("link/x", "");
    std::os::unix::fs::symlink("../good/landfall.yaml", fleet.work().join("link/landfall.yaml")).unwrap();
    fleet.write("directory/landfall.yaml/x", "not a manifest at all");
    fleet.push("first");
    let reading = Memory::default().read(&mut fleet.looker());
    assert_eq!(paths(&reading), ["binary", "broken", "good", "huge", "link"]);
    assert!(problem(&reading, "broken").contains("broken/landfall.yaml:1:1"));
    assert!(problem(&reading, "binary").contains("UTF-8"));
    assert!(problem(&reading, "huge").contains("bytes long"));
    assert!(problem(&reading, "link").contains("symbolic link"));
}

#[test]
fn a_directory_without_manifests_is_no_error() {
    let fleet = Fleet::new();
    fleet.write("README", "x");
    fleet.push("first");
    let reading = Memory::default().read(&mut fleet.looker());
    assert!(reading.first && reading.read.is_empty() && reading.removed.is_empty());
}

#[test]
fn a_tree_that_unfolds_without_end_is_refused_soon() {
    let fleet = Fleet::new();
    fleet.app("x", "x");
    fleet.push("first");
    let repository = git2::Repository::open_bare(fleet.bare()).unwrap();
    // Ten entries of one tree, again and again: 10^12 directories in thirteen objects.
    let mut tree = repository.treebuilder(None).unwrap().write().unwrap();
    for _ in 0..12 {
        let mut builder = repository.treebuilder(None).unwrap();
        for entry in 0..10 {
            builder.insert(format!("d{entry}"), tree, 0o040_000).unwrap();
        }
        tree = builder.write().unwrap();
    }
    let ada = git2::Signature::now("Ada", "ada@example.com").unwrap();
    let parent = repository.head().unwrap().peel_to_commit().unwrap();
    let tree = repository.find_tree(tree).unwrap();
    repository.commit(Some("refs/heads/main"), &ada, &ada, "bomb", &tree, &[&parent]).unwrap();
    let limits = crate::support::within(std::time::Duration::from_secs(1));
    let error = Memory::default().look_within(&mut fleet.looker(), &limits).unwrap_err();
    use landfall::source::SourceErrorKind::{Timeout, TooLarge};
    assert!(matches!(error.kind, Timeout | TooLarge), "{error}");
}

/// One edit of a fleet of a few directories, small enough that edits meet.
#[derive(Debug, Clone)]
enum Edit {
    Write(u8, u8),
    Break(u8),
    Remove(u8),
    Common(u8),
    RemoveCommon,
    Unrelated(u8),
}

fn edits() -> impl Strategy<Value = Vec<Vec<Edit>>> {
    let edit = prop_oneof![
        4 => (0..12u8, 0..16u8).prop_map(|(place, text)| Edit::Write(place, text)),
        1 => (0..12u8).prop_map(Edit::Break),
        2 => (0..12u8).prop_map(Edit::Remove),
        1 => (0..4u8).prop_map(Edit::Common),
        1 => Just(Edit::RemoveCommon),
        1 => (0..4u8).prop_map(Edit::Unrelated),
    ];
    prop::collection::vec(prop::collection::vec(edit, 1..5), 2..8)
}

fn place(number: u8) -> String {
    ["a", "a/b", "a/b/c", "a-b", "d", "d/e", "f/g", "f/g/h", "i", "i.x", "j", "k"][usize::from(number) % 12].to_owned()
}

type Files = BTreeMap<String, String>;

fn edit(files: &mut Files, edit: &Edit) {
    match edit {
        Edit::Write(at, text) => {
            let include = if text % 4 == 0 {
                format!("include: {}common\n", "../".repeat(place(*at).matches('/').count() + 1))
            } else {
                String::new()
            };
            // Few names, so that directories compete for them.
            files.insert(
                format!("{}/landfall.yaml", place(*at)),
                format!("app: app-{}\n{include}# {text}\n", (at + text) % 9),
            );
        }
        Edit::Break(at) => {
            files.insert(format!("{}/landfall.yaml", place(*at)), "broken".into());
        }
        Edit::Remove(at) => {
            files.remove(&format!("{}/landfall.yaml", place(*at)));
        }
        Edit::Common(text) => {
            files.insert("common/x".into(), text.to_string());
        }
        Edit::RemoveCommon => {
            files.remove("common/x");
        }
        Edit::Unrelated(text) => {
            files.insert("docs/x".into(), text.to_string());
        }
    }
}

/// Commits `files` through libgit2, much faster than through the git command.
fn commit(repository: &git2::Repository, files: &Files) {
    let mut index = git2::Index::new().unwrap();
    for (path, text) in files {
        let id = repository.blob(text.as_bytes()).unwrap();
        let entry = git2::IndexEntry {
            ctime: git2::IndexTime::new(0, 0),
            mtime: git2::IndexTime::new(0, 0),
            dev: 0,
            ino: 0,
            mode: 0o100_644,
            uid: 0,
            gid: 0,
            file_size: 0,
            id,
            flags: 0,
            flags_extended: 0,
            path: path.clone().into_bytes(),
        };
        index.add(&entry).unwrap();
    }
    let tree = repository.find_tree(index.write_tree_to(repository).unwrap()).unwrap();
    let ada = git2::Signature::now("Ada", "ada@example.com").unwrap();
    let parent = repository.head().ok().map(|head| head.peel_to_commit().unwrap());
    let parents: Vec<&git2::Commit<'_>> = parent.iter().collect();
    repository.commit(Some("refs/heads/main"), &ada, &ada, "edit", &tree, &parents).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    /// Reading only what changed, revision after revision, ends where reading everything at once ends.
    #[test]
    fn the_sum_of_changes_is_the_whole(revisions in edits()) {
        let fleet = Fleet::new();
        let repository = git2::Repository::open_bare(fleet.bare()).unwrap();
        let (mut looker, mut memory) = (fleet.looker(), Memory::default());
        let mut files = Files::from([("README".to_owned(), "x".to_owned())]);
        for changes in &revisions {
            let before = memory.known.clone();
            changes.iter().for_each(|change| edit(&mut files, change));
            commit(&repository, &files);
            memory.look(&mut looker).unwrap();
            // The whole, read with the same knowledge of who had which name.
            let mut whole = Memory { known: before, ..Memory::default() };
            whole.look(&mut fleet.looker()).unwrap();
            prop_assert_eq!(&memory.apps, &whole.apps);
            let manifests = files.keys().filter(|path| path.ends_with("landfall.yaml")).count();
            prop_assert_eq!(memory.apps.len(), manifests);
            prop_assert_eq!(memory.known.len(), manifests);
        }
    }
}
