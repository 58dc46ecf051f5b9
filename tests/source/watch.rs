//! Watches: what wakes the watcher up, and what does not.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use landfall::source::watch;

use crate::support::{Fleet, Memory, wait_for};

fn counter() -> (Arc<AtomicU64>, watch::Hint) {
    let count = Arc::new(AtomicU64::new(0));
    let counted = count.clone();
    (
        count,
        Arc::new(move || {
            counted.fetch_add(1, Ordering::SeqCst);
        }),
    )
}

#[test]
fn a_push_into_a_local_repository_is_noticed() {
    let fleet = Fleet::new();
    fleet.app("shop", "shop");
    fleet.push("first");
    for place in [fleet.bare(), fleet.work()] {
        let (count, hint) = counter();
        let _watch = watch::repository(&place, hint).unwrap();
        fleet.write("shop/x", &format!("{}", place.display()));
        fleet.push("second");
        wait_for("the push is noticed", || count.load(Ordering::SeqCst), |count| *count > 0);
    }
}

#[test]
fn packing_references_and_new_branches_are_noticed() {
    let fleet = Fleet::new();
    fleet.app("shop", "shop");
    fleet.push("first");
    let (count, hint) = counter();
    let _watch = watch::repository(&fleet.bare(), hint).unwrap();
    let mut before = 0;
    for arguments in [
        &["pack-refs", "--all"][..],
        &["branch", "team/new/deep", "main"],
        &["symbolic-ref", "HEAD", "refs/heads/team/new/deep"],
    ] {
        crate::support::git(&fleet.bare(), arguments);
        wait_for(&format!("{arguments:?}"), || count.load(Ordering::SeqCst), |count| *count > before);
        before = count.load(Ordering::SeqCst);
    }
}

#[test]
fn looking_does_not_wake_the_watcher() {
    let fleet = Fleet::new();
    fleet.app("shop", "shop");
    fleet.push("first");
    let (count, hint) = counter();
    let _watch = watch::repository(&fleet.bare(), hint).unwrap();
    Memory::default().read(&mut fleet.looker());
    // Whatever the look caused comes before what this change causes.
    std::fs::write(fleet.bare().join("refs/heads/marker"), format!("{}\n", fleet.git(&["rev-parse", "HEAD"]))).unwrap();
    wait_for("the marker is noticed", || count.load(Ordering::SeqCst), |count| *count > 0);
    assert!(count.load(Ordering::SeqCst) <= 4, "only the marker's own events");
}

#[test]
fn a_changed_file_in_a_directory_is_noticed_also_in_new_directories() {
    let dir = tempfile::tempdir().unwrap();
    let (count, hint) = counter();
    let _watch = watch::directory(dir.path(), hint).unwrap();
    std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
    wait_for("the directory", || count.load(Ordering::SeqCst), |count| *count > 0);
    let rounds = std::cell::Cell::new(0);
    wait_for(
        "a file in it",
        || {
            let before = count.load(Ordering::SeqCst);
            rounds.set(rounds.get() + 1);
            std::fs::write(dir.path().join("a/b/file"), rounds.get().to_string()).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(20));
            count.load(Ordering::SeqCst) > before
        },
        |noticed| *noticed,
    );
}

#[test]
fn what_cannot_be_watched_says_so() {
    let (_, hint) = counter();
    let error = watch::directory(std::path::Path::new("/nowhere/at/all"), hint).unwrap_err();
    assert!(error.to_string().contains("/nowhere/at/all") && error.to_string().contains("only polled"), "{error}");
}

#[test]
fn a_file_is_noticed_however_it_is_changed_and_its_neighbours_are_not() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    std::fs::create_dir_all(root.join("mount/..first")).unwrap();
    std::fs::write(root.join("mount/..first/file"), "1").unwrap();
    symlink("..first", root.join("mount/..data")).unwrap();
    symlink("..data/file", root.join("mount/file")).unwrap();
    symlink("mount/file", root.join("file")).unwrap();
    let (count, hint) = counter();
    let watched = watch::file(&root.join("file"), hint.clone()).unwrap();
    let noticed = |what: &str, before: u64| {
        wait_for(what, || count.load(Ordering::SeqCst), |count| *count > before);
    };
    // In place, at the end of the way.
    std::fs::write(root.join("mount/..first/file"), "2").unwrap();
    noticed("a write", 0);
    drop(watched);
    // A link on the way, put in another's place.
    let before = count.load(Ordering::SeqCst);
    let watched = watch::file(&root.join("file"), hint.clone()).unwrap();
    std::fs::create_dir(root.join("mount/..second")).unwrap();
    std::fs::write(root.join("mount/..second/file"), "3").unwrap();
    symlink("..second", root.join("mount/..new")).unwrap();
    std::fs::rename(root.join("mount/..new"), root.join("mount/..data")).unwrap();
    noticed("a swap", before);
    drop(watched);
    // The file itself, by rename; and nothing of what lies beside it.
    let _watched = watch::file(&root.join("file"), hint).unwrap();
    let before = count.load(Ordering::SeqCst);
    std::fs::write(root.join("beside"), "4").unwrap();
    std::fs::rename(root.join("beside"), root.join("beside too")).unwrap();
    std::fs::write(root.join("mount/..second/other"), "4").unwrap();
    std::fs::write(root.join("new"), "5").unwrap();
    assert_eq!(count.load(Ordering::SeqCst), before, "a neighbour was taken for the file");
    std::fs::rename(root.join("new"), root.join("file")).unwrap();
    noticed("a rename", before);
}
