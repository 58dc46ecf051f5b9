//! The demo's git repository: a bare one, with the example apps of this program in its first commit.

use std::path::Path;

use git2::{FileMode, Repository, RepositoryInitOptions, Signature};
use include_dir::{Dir, DirEntry, include_dir};

use crate::domain::manifest::Code;

/// The example apps, as they were when this program was built.
static EXAMPLES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/examples");

/// The branch the demo follows.
pub const BRANCH: &str = "main";

/// Examples that need more than the demo has: an engine that runs containers.
const LEFT_OUT: [&str; 5] = ["compose", "container", "sidecar-engine", "sidecar-pid1", "sidecar-publish"];

/// Names of the apps in the repository.
pub fn app_names() -> Vec<String> {
    let mut names: Vec<String> = EXAMPLES
        .dirs()
        .filter(|dir| dir.get_file(dir.path().join("landfall.yaml")).is_some())
        .filter_map(|dir| dir.path().file_name().map(|name| name.to_string_lossy().into_owned()))
        .filter(|name| !LEFT_OUT.contains(&name.as_str()))
        .collect();
    names.sort();
    names
}

/// Those of them that run in `interpreter`: the first word of a command.
pub fn apps_that_need(interpreter: &str) -> Vec<String> {
    let needs = |name: &String| {
        let manifest = EXAMPLES.get_file(Path::new(name).join("landfall.yaml")).and_then(|file| file.contents_utf8());
        let read = manifest.and_then(|text| crate::files::read_manifest("landfall.yaml", text).ok());
        read.is_some_and(|manifest| {
            let web = manifest.web.values().map(|web| &web.command);
            let workers = manifest.workers.values().map(|worker| &worker.command);
            let runs = |command: &Vec<String>| command.first().is_some_and(|program| program == interpreter);
            web.chain(workers).any(runs)
                || manifest.functions.values().any(|function| match &function.code {
                    Code::Python(_) => interpreter == "python3",
                    Code::JavaScript(_) => interpreter == "node",
                    Code::Server(command) | Code::Exec(command) => runs(command),
                })
        })
    };
    app_names().into_iter().filter(needs).collect()
}

/// Makes the repository, unless it is there already with a commit on its branch.
/// Apps named in `without` are left out.
pub fn seed(path: &Path, without: &[String]) -> Result<(), git2::Error> {
    let repository = match Repository::open_bare(path) {
        Ok(repository) => repository,
        Err(_) => {
            let mut options = RepositoryInitOptions::new();
            options.bare(true).mkpath(true).initial_head(BRANCH).external_template(false);
            Repository::init_opts(path, &options)?
        }
    };
    if repository.find_branch(BRANCH, git2::BranchType::Local).is_ok() {
        return Ok(());
    }
    let mut without = without.to_vec();
    without.extend(LEFT_OUT.map(str::to_owned));
    let tree = write_dir(&repository, &EXAMPLES, &without)?;
    let who = Signature::now("Landfall demo", "demo@localhost")?;
    let tree = repository.find_tree(tree)?;
    repository.commit(Some(&format!("refs/heads/{BRANCH}")), &who, &who, "Apps to begin with", &tree, &[])?;
    Ok(())
}

fn write_dir(repository: &Repository, dir: &Dir<'_>, without: &[String]) -> Result<git2::Oid, git2::Error> {
    let mut builder = repository.treebuilder(None)?;
    for entry in dir.entries() {
        let Some(name) = entry.path().file_name() else { continue };
        // Left behind by trying an example by hand.
        if name == "__pycache__" || without.iter().any(|app| name == app.as_str()) {
            continue;
        }
        let (id, mode) = match entry {
            DirEntry::Dir(dir) => (write_dir(repository, dir, &[])?, FileMode::Tree),
            DirEntry::File(file) => (repository.blob(file.contents())?, FileMode::Blob),
        };
        builder.insert(name, id, mode.into())?;
    }
    builder.write()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_holds_the_examples_and_is_not_seeded_twice() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fleet.git");
        seed(&path, &[]).unwrap();
        let repository = Repository::open_bare(&path).unwrap();
        let head = repository.head().unwrap().peel_to_commit().unwrap();
        assert_eq!(app_names(), ["clock", "functions", "functions-js", "guestbook", "hello"]);
        for app in app_names() {
            let manifest = head.tree().unwrap().get_path(Path::new(&format!("{app}/landfall.yaml"))).unwrap();
            let blob = repository.find_blob(manifest.id()).unwrap();
            let text = std::str::from_utf8(blob.content()).unwrap();
            let read = crate::files::read_manifest("landfall.yaml", text);
            assert_eq!(read.unwrap().app.as_str(), app);
        }
        seed(&path, &[]).unwrap();
        assert_eq!(repository.head().unwrap().peel_to_commit().unwrap().id(), head.id());
    }

    #[test]
    fn a_machine_without_python_gets_the_apps_that_do_without() {
        assert_eq!(apps_that_need("python3"), ["functions", "guestbook", "hello"]);
        assert_eq!(apps_that_need("node"), ["functions-js"]);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fleet.git");
        seed(&path, &apps_that_need("python3")).unwrap();
        let tree = Repository::open_bare(&path).unwrap().head().unwrap().peel_to_tree().unwrap().id();
        let repository = Repository::open_bare(&path).unwrap();
        let tree = repository.find_tree(tree).unwrap();
        assert!(tree.get_name("clock").is_some() && tree.get_name("hello").is_none());
    }
}
