//! Submodules: fetches what a revision's links point to and puts their trees in the links' places.
//!
//! Works on the cache of a remote repository. The composed tree is an ordinary one, so that comparing, reading and
//! storing know nothing of submodules. Invariant: a submodule that cannot be fetched stays a link and is named in
//! `missing`; nothing is left out silently.

use std::collections::BTreeMap;

use git2::{FileMode, ObjectType, Oid, Repository};

use super::error::{SourceErrorKind, Trouble};
use super::transport::{SCHEMES, without_credentials};
use super::tree::{Found, lookup};
use super::{LookLimits, include};
use crate::files::ssh_url::{self, SshAddress};

/// Submodules within submodules go so deep.
const MAX_DEPTH: usize = 8;
/// More submodules of one revision are not fetched.
const MAX_SUBMODULES: usize = 256;
/// A longer `.gitmodules` is refused.
const MAX_FILE: usize = 256 * 1024;

/// Where a submodule is missing → why.
pub(crate) type Missing = BTreeMap<String, String>;

/// A tree with its submodules in it.
#[derive(Debug)]
pub(crate) struct Composed {
    pub(crate) tree: Oid,
    pub(crate) missing: Missing,
}

/// Brings a commit of a repository into the cache: its URL, the commit, the place it is for.
pub(crate) type Fetch<'a> = dyn Fn(&str, Oid, &str) -> Result<(), Trouble> + 'a;

/// Puts the submodules of `root`, the tree of a repository at `url`, in their places.
pub(crate) fn compose(
    repository: &Repository,
    root: Oid,
    url: &str,
    fetch: &Fetch<'_>,
    limits: &LookLimits,
) -> Result<Composed, Trouble> {
    let mut composer = Composer { repository, fetch, limits, missing: Missing::new(), count: 0 };
    let tree = composer.fill(root, "", url, 0)?;
    Ok(Composed { tree, missing: composer.missing })
}

struct Composer<'a> {
    repository: &'a Repository,
    fetch: &'a Fetch<'a>,
    limits: &'a LookLimits,
    missing: Missing,
    count: usize,
}

impl Composer<'_> {
    /// The tree `root`, which lies at `prefix`, with its submodules.
    fn fill(&mut self, root: Oid, prefix: &str, url: &str, depth: usize) -> Result<Oid, Trouble> {
        let mut tree = root;
        for module in self.modules(root, prefix)? {
            let place = include::join(prefix, &module.path);
            let Some(commit) = self.link(root, &module.path)? else { continue };
            self.count += 1;
            let fetched = match self.count > MAX_SUBMODULES || depth >= MAX_DEPTH {
                true => Err(format!("more than {MAX_SUBMODULES} submodules, or more than {MAX_DEPTH} in one another")),
                false => self.fetch(&module, commit, &place, url)?,
            };
            match fetched {
                Ok((inner, its_url)) => {
                    let inner = self.fill(inner, &place, &its_url, depth + 1)?;
                    let parts: Vec<&str> = include::components(&module.path).collect();
                    tree = self.replace(tree, &parts, inner)?;
                }
                Err(why) => {
                    self.missing.insert(place, why);
                }
            }
        }
        Ok(tree)
    }

    /// The tree of a submodule and the URL it came from; `Err` within says why there is none.
    fn fetch(
        &self,
        module: &Module,
        commit: Oid,
        place: &str,
        url: &str,
    ) -> Result<Result<(Oid, String), String>, Trouble> {
        let from = match resolve(url, &module.url) {
            Ok(from) => from,
            Err(why) => return Ok(Err(why)),
        };
        let fetched = (self.fetch)(&from, commit, place);
        // The whole look is over, not just this submodule.
        self.limits.check("fetching submodules")?;
        let tree = fetched.and_then(|()| Ok(self.repository.find_commit(commit)?.tree_id()));
        match tree {
            Ok(tree) => Ok(Ok((tree, from))),
            Err(trouble) => match trouble.kind {
                SourceErrorKind::Disk | SourceErrorKind::Permission => Err(trouble),
                _ => Ok(Err(format!("{}: {}; {}", without_credentials(&from), trouble.what, trouble.mend))),
            },
        }
    }

    fn modules(&self, tree: Oid, prefix: &str) -> Result<Vec<Module>, Trouble> {
        let found = self.repository.find_tree(tree)?;
        let Some(entry) = found.get_name(".gitmodules").filter(|entry| entry.kind() == Some(ObjectType::Blob)) else {
            return Ok(Vec::new());
        };
        let blob = self.repository.find_blob(entry.id())?;
        if blob.size() > MAX_FILE {
            let what = format!("{} is longer than {MAX_FILE} bytes", include::join(prefix, ".gitmodules"));
            return Err(Trouble::new(SourceErrorKind::TooLarge, what, "remove the submodules that are not needed"));
        }
        Ok(parse(&String::from_utf8_lossy(blob.content())))
    }

    /// The commit that a link points to, if there is one.
    fn link(&self, tree: Oid, path: &str) -> Result<Option<Oid>, Trouble> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let odb = self.repository.odb()?;
        let Found::Directory(parent) = lookup(&odb, tree, parent)? else { return Ok(None) };
        let parent = self.repository.find_tree(parent)?;
        Ok(parent.get_name(name).filter(|entry| entry.kind() == Some(ObjectType::Commit)).map(|entry| entry.id()))
    }

    /// `tree` with `inner` at a path that is there.
    fn replace(&self, tree: Oid, path: &[&str], inner: Oid) -> Result<Oid, Trouble> {
        let Some((name, rest)) = path.split_first() else { return Ok(inner) };
        let tree = self.repository.find_tree(tree)?;
        let below = match (rest.is_empty(), tree.get_name(name)) {
            (true, _) => inner,
            (false, Some(entry)) => self.replace(entry.id(), rest, inner)?,
            (false, None) => return Err(Trouble::corrupt("a tree changed while submodules were put in")),
        };
        let mut builder = self.repository.treebuilder(Some(&tree))?;
        builder.insert(name, below, FileMode::Tree.into())?;
        Ok(builder.write()?)
    }
}

/// One entry of `.gitmodules`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Module {
    path: String,
    url: String,
}

/// Reads `.gitmodules`. Entries without path or URL, or with a path that leaves the repository, are no submodules.
fn parse(text: &str) -> Vec<Module> {
    let mut modules: Vec<(Option<String>, Option<String>)> = Vec::new();
    let mut inside = false;
    for line in text.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[') {
            inside = section.trim_start().to_ascii_lowercase().starts_with("submodule");
            if inside {
                modules.push((None, None));
            }
            continue;
        }
        let Some((key, value)) = line.split_once('=') else { continue };
        let Some(module) = modules.last_mut().filter(|_| inside) else { continue };
        match key.trim().to_ascii_lowercase().as_str() {
            "path" => module.0 = Some(unquote(value)),
            "url" => module.1 = Some(unquote(value)),
            _ => {}
        }
    }
    let whole = modules.into_iter().filter_map(|(path, url)| Some(Module { path: path?, url: url? }));
    let inside = |path: &str| {
        !path.is_empty()
            && !path.starts_with('/')
            && path.split('/').all(|part| !matches!(part, "" | "." | ".." | ".git"))
    };
    whole.filter(|module| inside(&module.path)).collect()
}

/// A value of git's configuration format: quotes, escapes, comments.
fn unquote(value: &str) -> String {
    let (mut text, mut quoted) = (String::new(), false);
    let mut letters = value.trim().chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => quoted = !quoted,
            '\\' => text.extend(letters.next()),
            '#' | ';' if !quoted => break,
            other => text.push(other),
        }
    }
    if quoted { text } else { text.trim_end().to_owned() }
}

/// Where a submodule's repository lies, seen from the repository at `base`.
fn resolve(base: &str, url: &str) -> Result<String, String> {
    if url.starts_with("./") || url.starts_with("../") {
        let (before, path) = around_path(base).ok_or("its URL is relative, and the source's is none")?;
        let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        for part in url.split('/') {
            match part {
                "" | "." => {}
                ".." if parts.pop().is_some() => {}
                ".." => return Err(format!("its URL `{url}` leads above the host")),
                name => parts.push(name),
            }
        }
        return Ok(format!("{before}{}", parts.join("/")));
    }
    match url.split_once("://") {
        // A file of this machine is not for a repository on another one to name.
        Some((scheme, _)) if SCHEMES.contains(&scheme) => Ok(url.to_owned()),
        None if ssh_url::is_ssh(url) && SshAddress::parse(url).is_ok() => Ok(url.to_owned()),
        _ => Err(format!("its URL `{}` is not one to fetch from", without_credentials(url))),
    }
}

/// What of a remote's URL names the host, up to where the path begins, and the path.
fn around_path(url: &str) -> Option<(&str, &str)> {
    let end = match url.find("://") {
        Some(scheme) => url[scheme + 3..].find('/').map_or(url.len(), |slash| scheme + 3 + slash + 1),
        None => ssh_url::scp_like(url)?.0.len() + 1,
    };
    Some(url.split_at(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gitmodules_are_read_as_git_writes_them() {
        let text = "# comment\n[submodule \"lib\"]\n\tpath = vendor/lib\n\turl = \"../lib.git\" ; why\n\
                    [other]\n\tpath = x\n\turl = y\n[Submodule \"b\"]\n\turl = https://h/b.git\n\tpath = \"b c\"\n\
                    [submodule \"evil\"]\n\tpath = ../up\n\turl = z\n[submodule \"half\"]\n\tpath = p\n";
        let module = |path: &str, url: &str| Module { path: path.into(), url: url.into() };
        assert_eq!(parse(text), [module("vendor/lib", "../lib.git"), module("b c", "https://h/b.git")]);
        for evil in ["/etc", "a/../b", ".git/x", "a//b", ""] {
            assert_eq!(parse(&format!("[submodule \"x\"]\npath = {evil}\nurl = https://h/x\n")), [], "{evil}");
        }
    }

    #[test]
    fn relative_urls_start_at_the_source_and_stay_on_its_host() {
        let base = "https://h:8443/acme/fleet.git";
        assert_eq!(resolve(base, "../lib.git").as_deref(), Ok("https://h:8443/acme/lib.git"));
        assert_eq!(resolve(base, "../../other/lib.git").as_deref(), Ok("https://h:8443/other/lib.git"));
        assert_eq!(resolve(base, "./lib").as_deref(), Ok("https://h:8443/acme/fleet.git/lib"));
        assert_eq!(resolve(base, "git://h/x").as_deref(), Ok("git://h/x"));
        let short = "git@h:acme/fleet.git";
        assert_eq!(resolve(short, "../lib.git").as_deref(), Ok("git@h:acme/lib.git"));
        assert_eq!(resolve("ssh://git@h:22/acme/fleet.git", "../../lib").as_deref(), Ok("ssh://git@h:22/lib"));
        assert_eq!(resolve(base, "git@h:other/lib.git").as_deref(), Ok("git@h:other/lib.git"));
        assert!(resolve(short, "../../../lib.git").is_err());
        for bad in ["../../../..", "/srv/secret.git", "file:///srv/secret.git", "ext::sh -c true", "store.git"] {
            assert!(resolve(base, bad).is_err(), "{bad}");
        }
    }
}
