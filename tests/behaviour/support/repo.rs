//! A real bare repository, written to as a push would: objects first, then the reference.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use git2::{Repository, Signature};

/// A bare repository with the branch `main`, and others once they are pushed to.
pub struct Repo {
    path: PathBuf,
    /// The branch that is pushed to.
    pub branch: &'static str,
    /// What the next commit holds: path → content; paths ending in `.sh` are executable.
    files: BTreeMap<String, String>,
    /// Symbolic links of the next commit: path → target.
    links: BTreeMap<String, String>,
    /// The private SSH key that signs commits, if they are signed.
    pub signing_key: Option<PathBuf>,
}

impl Repo {
    pub fn create(path: &Path) -> Self {
        let mut options = git2::RepositoryInitOptions::new();
        options.bare(true).initial_head("main");
        Repository::init_opts(path, &options).expect("a bare repository");
        Self {
            path: path.to_owned(),
            branch: "main",
            files: BTreeMap::new(),
            links: BTreeMap::new(),
            signing_key: None,
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sets a file for the next commit.
    pub fn write(&mut self, path: &str, content: impl Into<String>) -> &mut Self {
        let mut content = content.into();
        if path.ends_with("landfall.yaml") {
            content = super::place::placed(&content, self.path.parent().expect("the test's directory"));
        }
        self.files.insert(path.to_owned(), content);
        self
    }

    /// Sets a symbolic link for the next commit.
    pub fn link(&mut self, path: &str, target: &str) -> &mut Self {
        self.links.insert(path.to_owned(), target.to_owned());
        self
    }

    /// Removes a file, link or directory from the next commit.
    pub fn remove(&mut self, path: &str) -> &mut Self {
        let below = format!("{path}/");
        self.files.retain(|name, _| name != path && !name.starts_with(&below));
        self.links.retain(|name, _| name != path && !name.starts_with(&below));
        self
    }

    /// Adds or replaces a whole app that serves `content`.
    pub fn app(&mut self, name: &str, content: &str) -> &mut Self {
        let manifest = super::web_manifest(name, "");
        self.write(&format!("{name}/landfall.yaml"), manifest).write(&format!("{name}/content.txt"), content)
    }

    /// Commits everything on top of the branch and moves it; answers the commit.
    pub fn push(&self, message: &str) -> String {
        let parent = self.open().refname_to_id(&format!("refs/heads/{}", self.branch)).ok();
        self.commit(message, parent)
    }

    /// Replaces the branch by a commit without a parent.
    pub fn force_push(&self, message: &str) -> String {
        self.commit(message, None)
    }

    pub fn open(&self) -> Repository {
        Repository::open_bare(&self.path).expect("the repository")
    }

    fn commit(&self, message: &str, parent: Option<git2::Oid>) -> String {
        let repository = self.open();
        let mut index = git2::Index::new().expect("an index");
        let files = self
            .files
            .iter()
            .map(|(path, content)| (path, content, if path.ends_with(".sh") { 0o100_755 } else { 0o100_644 }));
        let links = self.links.iter().map(|(path, target)| (path, target, 0o120_000));
        for (path, content, mode) in files.chain(links) {
            let id = repository.blob(content.as_bytes()).expect("a blob");
            let zero = git2::IndexTime::new(0, 0);
            index
                .add(&git2::IndexEntry {
                    ctime: zero,
                    mtime: zero,
                    dev: 0,
                    ino: 0,
                    mode,
                    uid: 0,
                    gid: 0,
                    file_size: 0,
                    id,
                    flags: 0,
                    flags_extended: 0,
                    path: path.clone().into_bytes(),
                })
                .expect("an entry");
        }
        let tree = index.write_tree_to(&repository).expect("a tree");
        let tree = repository.find_tree(tree).expect("the tree");
        let who = Signature::now("Ada Lovelace", "ada@example.org").expect("a signature");
        let parent = parent.map(|id| repository.find_commit(id).expect("the parent"));
        let parents: Vec<_> = parent.iter().collect();
        let commit = match &self.signing_key {
            None => repository.commit(None, &who, &who, message, &tree, &parents).expect("a commit"),
            Some(key) => {
                let content = repository.commit_create_buffer(&who, &who, message, &tree, &parents).expect("a commit");
                let content = std::str::from_utf8(&content).expect("text").to_owned();
                repository.commit_signed(&content, &sign(key, &content), None).expect("a signed commit")
            }
        };
        repository.reference(&format!("refs/heads/{}", self.branch), commit, true, "push").expect("the branch moves");
        commit.to_string()
    }
}

/// The signature that `git commit -S` would put into this commit.
fn sign(key: &Path, content: &str) -> String {
    let file = key.with_extension("to-be-signed");
    std::fs::write(&file, content).expect("the content");
    let signed = std::process::Command::new("ssh-keygen")
        .args(["-q", "-Y", "sign", "-n", "git", "-f"])
        .args([key, &file])
        .stderr(std::process::Stdio::null())
        .status()
        .expect("ssh-keygen");
    assert!(signed.success(), "ssh-keygen signs");
    let signature = file.with_extension("to-be-signed.sig");
    let text = std::fs::read_to_string(&signature).expect("the signature");
    std::fs::remove_file(&signature).expect("made anew each time");
    text.trim_end().to_owned()
}
