//! What a configured reference means among the names a repository has. Pure: the listing is an argument.
//!
//! Invariant: one configuration and one listing give one commit, or an error that names the choices; nothing is guessed.

use git2::Oid;
use semver::{Version, VersionReq};

use super::error::{SourceErrorKind, Trouble};
use crate::files::config::GitReference;

/// How many names an error about a missing one offers.
const OFFERED: usize = 5;

/// One reference of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) name: String,
    pub(crate) id: Oid,
}

/// What to fetch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Left side of the refspec.
    pub(crate) spec: String,
    /// The commit, where the listing tells.
    pub(crate) commit: Option<Oid>,
    /// What the reference names: the commit, or a tag that leads to it.
    pub(crate) head: Option<Oid>,
}

/// Finds in a listing what `reference` means.
pub(crate) fn choose(reference: &GitReference, heads: &[Head]) -> Result<Wanted, Trouble> {
    let find = |name: &str| heads.iter().find(|head| head.name == name);
    let exactly = |name: String| {
        find(&name).map(|head| {
            // An annotated tag is listed twice, the second time as the commit it stands for.
            let peeled = find(&format!("{name}^{{}}")).map(|head| head.id);
            Wanted { commit: peeled.or(Some(head.id)), head: Some(head.id), spec: name }
        })
    };
    let wanted = match reference {
        GitReference::Head => exactly("HEAD".to_owned()),
        GitReference::Branch(name) => exactly(branch(name)),
        GitReference::Tag(name) => exactly(tag(name)),
        GitReference::Full(name) => exactly(name.clone()),
        GitReference::Named(name) => match (exactly(branch(name)), exactly(tag(name))) {
            (Some(_), Some(_)) => return Err(ambiguous(name)),
            (one, other) => one.or(other),
        },
        GitReference::Semver(range) => {
            let tags = heads.iter().filter_map(|head| head.name.strip_prefix("refs/tags/"));
            highest_tag(range, tags.filter(|name| !name.ends_with("^{}"))).and_then(|name| exactly(tag(name)))
        }
        GitReference::Commit(id) => {
            let id = Oid::from_str(id.as_str())?;
            Some(match heads.iter().find(|head| head.id == id && !head.name.ends_with("^{}")) {
                Some(head) => Wanted { spec: head.name.clone(), commit: Some(id), head: Some(id) },
                None => Wanted { spec: id.to_string(), commit: None, head: None },
            })
        }
    };
    wanted.ok_or_else(|| {
        let names: Vec<String> =
            heads.iter().map(|head| head.name.clone()).filter(|name| !name.ends_with("^{}")).collect();
        no_such_reference(reference, &names)
    })
}

/// The full name of a branch.
pub(crate) fn branch(name: &str) -> String {
    format!("refs/heads/{name}")
}

/// The full name of a tag.
pub(crate) fn tag(name: &str) -> String {
    format!("refs/tags/{name}")
}

/// The tag with the highest version in `range`, written with a `v` before it or without. Of two tags for one version
/// the first by name.
pub(crate) fn highest_tag<'a>(range: &VersionReq, tags: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let versions = tags.filter_map(|name| {
        let version = Version::parse(name.strip_prefix('v').unwrap_or(name)).ok()?;
        is_in(range, &version).then_some((version, std::cmp::Reverse(name)))
    });
    versions.max().map(|(_, std::cmp::Reverse(name))| name)
}

/// Whether a version is in a range. A pre-release is only when the range names one itself: then those of a release that
/// is in the range are as well.
fn is_in(range: &VersionReq, version: &Version) -> bool {
    if range.matches(version) {
        return true;
    }
    let asked = range.comparators.iter().any(|comparator| !comparator.pre.is_empty());
    let release = Version::new(version.major, version.minor, version.patch);
    asked && !version.pre.is_empty() && range.matches(&release) && !is_before(range, version)
}

/// Whether a pre-release of a release in the range lies before its beginning: `1.0.0-alpha` before `>=1.0.0-beta`.
fn is_before(range: &VersionReq, version: &Version) -> bool {
    let same = |c: &semver::Comparator| {
        c.major == version.major && c.minor == Some(version.minor) && c.patch == Some(version.patch)
    };
    range.comparators.iter().any(|c| same(c) && c.pre >= version.pre)
}

/// The error for a name that is both a branch and a tag.
pub(crate) fn ambiguous(name: &str) -> Trouble {
    Trouble::new(
        SourceErrorKind::RefAmbiguous,
        format!("`{name}` is both a branch (refs/heads/{name}) and a tag (refs/tags/{name})"),
        "write the one that is meant as the source's `ref`, in full",
    )
}

/// The error for a reference that does not exist, with a few that do.
pub(crate) fn no_such_reference(reference: &GitReference, existing: &[String]) -> Trouble {
    let offer = |prefix: &str| -> String {
        let mut names: Vec<&str> = existing.iter().filter_map(|name| name.strip_prefix(prefix)).collect();
        names.sort_unstable();
        let more = if names.len() > OFFERED { ", …" } else { "" };
        names.truncate(OFFERED);
        match names.as_slice() {
            [] => "there are none yet; push one".to_owned(),
            names => format!("there are: {}{more}", names.join(", ")),
        }
    };
    let (what, mend) = match reference {
        GitReference::Head => {
            let mend = format!("push a commit, or name a `branch`; {}", offer("refs/heads/"));
            ("HEAD names no commit".to_owned(), mend)
        }
        GitReference::Branch(name) => (format!("branch `{name}` does not exist"), offer("refs/heads/")),
        GitReference::Tag(name) => (format!("tag `{name}` does not exist"), offer("refs/tags/")),
        GitReference::Full(name) => (format!("`{name}` does not exist"), offer("")),
        GitReference::Named(name) => (format!("there is neither a branch nor a tag `{name}`"), offer("refs/")),
        GitReference::Semver(range) => (format!("no tag is a version in `{range}`"), offer("refs/tags/")),
        GitReference::Commit(id) => {
            (format!("commit {id} does not exist, or cannot be reached"), "push it, or name another".to_owned())
        }
    };
    Trouble::new(SourceErrorKind::RefNotFound, what, mend)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heads(names: &[&str]) -> Vec<Head> {
        let id = |n: usize| Oid::from_bytes(&[u8::try_from(n + 1).unwrap(); 20]).unwrap();
        names.iter().enumerate().map(|(n, name)| Head { name: (*name).to_owned(), id: id(n) }).collect()
    }

    fn named(name: &str) -> GitReference {
        GitReference::Named(name.to_owned())
    }

    #[test]
    fn a_short_name_is_a_branch_or_a_tag_and_never_a_guess() {
        let heads =
            heads(&["HEAD", "refs/heads/main", "refs/heads/both", "refs/tags/both", "refs/tags/v1", "refs/tags/v1^{}"]);
        assert_eq!(choose(&named("main"), &heads).unwrap().spec, "refs/heads/main");
        let tag = choose(&named("v1"), &heads).unwrap();
        assert_eq!((tag.spec.as_str(), tag.commit), ("refs/tags/v1", Some(heads[5].id)), "peeled to its commit");
        let both = choose(&named("both"), &heads).unwrap_err();
        assert_eq!(both.kind, SourceErrorKind::RefAmbiguous);
        assert!(both.what.contains("refs/heads/both") && both.what.contains("refs/tags/both"), "{}", both.what);
        let full = choose(&GitReference::Full("refs/tags/both".into()), &heads).unwrap();
        assert_eq!(full.commit, Some(heads[3].id));
        let none = choose(&named("nothing"), &heads).unwrap_err();
        assert_eq!(none.kind, SourceErrorKind::RefNotFound);
        assert!(none.mend.contains("heads/main"), "{}", none.mend);
    }

    #[test]
    fn the_highest_version_in_a_range_wins() {
        let tags =
            ["v1.2.0", "1.10.0", "v1.9.9", "v2.0.0", "v2.0.0-rc.1", "v1.11.0-beta.2", "nightly", "v1.2", "v01.3.0"];
        for (range, highest) in [
            (">=1.2, <2", Some("1.10.0")),
            ("*", Some("v2.0.0")),
            ("~1.9", Some("v1.9.9")),
            ("=1.2.0", Some("v1.2.0")),
            (">=3", None),
            // Named, so they count: but not those of a release outside the range, or before its beginning.
            (">=1.2.0-0, <2", Some("v1.11.0-beta.2")),
            (">=1.11.0-rc, <2", None),
            (">=2.0.0-0", Some("v2.0.0")),
            ("=2.0.0-rc.1", Some("v2.0.0-rc.1")),
        ] {
            let range: VersionReq = range.parse().unwrap();
            assert_eq!(highest_tag(&range, tags.into_iter()), highest, "{range}");
        }
        assert_eq!(highest_tag(&VersionReq::STAR, ["v1.0.0", "1.0.0"].into_iter()), Some("1.0.0"));
    }
}
