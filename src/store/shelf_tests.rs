//! The stable path of a published tree, as readers and crashes meet it.

use super::*;

const FIRST: &str = "1111111111111111111111111111111111111111";
const SECOND: &str = "2222222222222222222222222222222222222222";
const THIRD: &str = "3333333333333333333333333333333333333333";
const LINGER: Duration = Duration::from_secs(60);

struct Place {
    root: tempfile::TempDir,
    shelf: Shelf,
}

impl Place {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("a directory");
        let shelf = Shelf::new(&root.path().join("www/current"), "main/site").expect("a place");
        Self { root, shelf }
    }

    /// Files of a version as the store has them.
    fn release(&self, words: &str) -> PathBuf {
        let dir = self.root.path().join(format!("release-{words}"));
        fs::create_dir_all(dir.join("deep")).expect("made");
        fs::write(dir.join("index.html"), words).expect("written");
        fs::write(dir.join("deep/run.sh"), "#!/bin/sh\n").expect("written");
        fs::set_permissions(dir.join("deep/run.sh"), fs::Permissions::from_mode(0o700)).expect("set");
        // A second release of the same words is the same directory.
        let _ = symlink("index.html", dir.join("home.html"));
        dir
    }

    fn lay(&self, leaf: &str, words: &str) -> Laid {
        self.shelf.lay(leaf, &content(words), &self.release(words)).expect("laid")
    }

    fn publish(&self, leaf: &str, words: &str, at: i64) -> bool {
        self.shelf.switch(&self.lay(leaf, words), time(at)).expect("published")
    }

    fn read(&self) -> String {
        fs::read_to_string(self.root.path().join("www/current/home.html")).expect("read through the link")
    }

    fn leaves(&self) -> Vec<String> {
        let names = fs::read_dir(self.root.path().join("www/.current.landfall")).expect("read").flatten();
        let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut names: Vec<_> = names.filter(|name| name != OWNER && !name.ends_with(NOTE)).collect();
        names.sort();
        names
    }
}

fn content(words: &str) -> ContentId {
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(words);
    let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}").parse().or_else(|_| digits.parse()).expect("a content")
}

fn time(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).expect("a time")
}

#[test]
fn the_link_is_relative_and_its_last_part_names_the_commit() {
    let place = Place::new();
    assert_eq!(place.shelf.current().expect("read"), None);
    assert!(place.publish(FIRST, "one", 0));
    let link = fs::read_link(place.root.path().join("www/current")).expect("a link");
    assert_eq!(link, Path::new(".current.landfall").join(FIRST));
    assert_eq!(place.read(), "one");
    let mode =
        |path: &str| fs::metadata(place.root.path().join("www/current").join(path)).expect("there").permissions();
    assert_eq!(mode("deep/run.sh").mode() & 0o777, 0o555, "others may read and run it, nobody writes");
    assert!(!place.publish(FIRST, "one", 1), "it is current already");
    assert!(place.publish(SECOND, "two", 2));
    assert_eq!((place.read(), place.shelf.current().expect("read")), ("two".to_owned(), Some(SECOND.to_owned())));
    assert!(place.publish(FIRST, "one", 3), "and back");
    assert_eq!(place.read(), "one");
}

#[test]
fn the_same_commit_with_another_content_is_another_tree() {
    let place = Place::new();
    place.publish(FIRST, "one", 0);
    let laid = place.lay(FIRST, "built otherwise");
    assert!(laid.leaf.starts_with(&format!("{FIRST}-")), "{}", laid.leaf);
    assert_eq!(place.read(), "one");
    place.shelf.switch(&laid, time(1)).expect("published");
    assert_eq!(place.read(), "built otherwise");
}

#[test]
fn what_a_crash_left_is_in_nobodys_way_and_goes() {
    let place = Place::new();
    place.publish(FIRST, "one", 0);
    let trees = place.root.path().join("www/.current.landfall");
    // Killed while it copied, while it noted, while it linked, while it removed.
    fs::create_dir_all(trees.join(format!("{SECOND}.part/deep"))).expect("made");
    fs::write(trees.join(format!("{SECOND}.part/index.html")), "tw").expect("written");
    fs::write(trees.join(format!("{SECOND}.json")), "{\"content\"").expect("written");
    symlink("nowhere", trees.join("link.part")).expect("linked");
    fs::create_dir(trees.join(format!("{THIRD}.gone"))).expect("made");
    assert!(place.publish(SECOND, "two", 1));
    assert_eq!(place.read(), "two");
    place.shelf.tidy(5, LINGER, time(1)).expect("tidied");
    assert_eq!(place.leaves(), [FIRST, SECOND]);
}

#[test]
fn a_replaced_tree_stays_for_its_readers_and_goes_after_them() {
    let place = Place::new();
    for (second, (leaf, words)) in [(FIRST, "one"), (SECOND, "two"), (THIRD, "three")].into_iter().enumerate() {
        place.publish(leaf, words, second as i64 * 100);
    }
    // The first was replaced at 100, the second at 200.
    place.shelf.tidy(0, LINGER, time(159)).expect("tidied");
    assert_eq!(place.leaves(), [FIRST, SECOND, THIRD]);
    place.shelf.tidy(2, LINGER, time(9999)).expect("tidied");
    assert_eq!(place.leaves(), [FIRST, SECOND, THIRD], "two are kept");
    let reader = fs::File::open(place.root.path().join("www/.current.landfall").join(FIRST).join("index.html"));
    place.shelf.tidy(0, LINGER, time(250)).expect("tidied");
    assert_eq!(place.leaves(), [FIRST, SECOND, THIRD], "one is read, one has not lingered");
    drop(reader);
    assert_eq!(place.shelf.tidy(0, LINGER, time(250)).expect("tidied"), 1);
    assert_eq!(place.leaves(), [SECOND, THIRD]);
    assert_eq!(place.shelf.tidy(0, Duration::ZERO, time(260)).expect("tidied"), 1);
    assert_eq!((place.leaves(), place.read()), (vec![THIRD.to_owned()], "three".to_owned()));
}

#[test]
fn nobody_publishes_over_what_is_not_theirs() {
    let place = Place::new();
    place.publish(FIRST, "one", 0);
    let other = Shelf::new(&place.root.path().join("www/current"), "main/other").expect("a place");
    let refused = other.lay(SECOND, &content("two"), &place.release("two")).expect_err("it is another app's");
    assert!(refused.to_string().contains("main/site"), "{refused}");
    let taken = place.root.path().join("www/taken");
    fs::create_dir(&taken).expect("made");
    let shelf = Shelf::new(&taken, "main/site").expect("a place");
    let refused = shelf.lay(FIRST, &content("one"), &place.release("one")).expect_err("a directory is there");
    assert!(refused.to_string().contains("move it away"), "{refused}");
    assert!(Shelf::new(Path::new("relative"), "x").is_err() && Shelf::new(Path::new("/"), "x").is_err());
}
