//! What a genuine hook tells: references that moved or went. Everything else in it is passed over.

use serde::Deserialize;

use super::claim::Claim;
use crate::domain::Provider;
use crate::files::config::GitReference;

/// What a hook tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// Somebody tries whether hooks arrive.
    Ping,
    /// References have moved.
    Pushed(Push),
    /// An event that says nothing about references.
    Other,
}

/// References that have moved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Push {
    /// Each. None at all means that the sender does not say which.
    pub changes: Vec<Change>,
    /// The repository's default branch, where the sender says it.
    pub default_branch: Option<String>,
}

/// One reference that has moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its full name: `refs/heads/main`.
    pub reference: String,
    /// It is gone.
    pub deleted: bool,
}

/// What a push means for a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// There may be something new.
    Look,
    /// What is followed has been deleted; its name.
    Deleted(String),
    /// Only other references have moved.
    Elsewhere,
}

/// Why a genuine hook cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the body of the hook cannot be read: {0}")]
pub struct Unreadable(String);

impl Unreadable {
    /// What to do.
    pub fn mend(&self) -> &'static str {
        "set the content type of the hook to application/json at the forge, and send push events"
    }
}

impl Claim {
    /// What the hook tells. Ask only after [`Claim::is_genuine`].
    pub fn told(&self, body: &[u8]) -> Result<Told, Unreadable> {
        match (self.provider(), self.event().unwrap_or("push")) {
            (_, "ping" | "diagnostics:ping") => Ok(Told::Ping),
            (Provider::Landfall, "push") if body.is_empty() => Ok(Told::Pushed(Push::default())),
            (Provider::GitLab, "push" | "Push Hook" | "Tag Push Hook" | "System Hook") => of_gitlab(body),
            (Provider::Bitbucket, "push" | "repo:push" | "repo:refs_changed") => of_bitbucket(body),
            (Provider::GitLab | Provider::Bitbucket, _) => Ok(Told::Other),
            (provider, "push") => of_push(body, provider),
            (_, "create") => of_one(body, false),
            (_, "delete") => of_one(body, true),
            _ => Ok(Told::Other),
        }
    }
}

impl Push {
    /// What this means for a source that follows `reference`.
    pub fn meant_for(&self, reference: &GitReference) -> Hint {
        if self.changes.is_empty() {
            return Hint::Look;
        }
        let followed = |name: &str| match reference {
            GitReference::Head => match &self.default_branch {
                Some(branch) => name.strip_prefix("refs/heads/") == Some(branch),
                None => name.starts_with("refs/heads/"),
            },
            GitReference::Branch(branch) => name.strip_prefix("refs/heads/") == Some(branch),
            GitReference::Tag(tag) => name.strip_prefix("refs/tags/") == Some(tag),
            GitReference::Full(full) => name == full,
            GitReference::Named(short) => {
                let short_of = |prefix: &str| name.strip_prefix(prefix) == Some(short);
                short_of("refs/heads/") || short_of("refs/tags/")
            }
            // Any tag may be the highest; which it is, the look finds out.
            GitReference::Semver(_) => name.starts_with("refs/tags/"),
            // Any push may bring the commit; once it is there, a look costs nothing.
            GitReference::Commit(_) => true,
        };
        // When a tag of a range goes, another one is the highest.
        let goes_back = matches!(reference, GitReference::Semver(_));
        let mut gone = None;
        for change in self.changes.iter().filter(|change| followed(&change.reference)) {
            if !change.deleted || goes_back {
                return Hint::Look;
            }
            gone = Some(&change.reference);
        }
        match (gone, reference) {
            (None, _) | (Some(_), GitReference::Commit(_)) => Hint::Elsewhere,
            (Some(name), _) => Hint::Deleted(name.clone()),
        }
    }
}

/// What the forges in GitHub's tradition and GitLab send.
#[derive(Deserialize)]
struct Pushed {
    #[serde(rename = "ref")]
    reference: Option<String>,
    ref_type: Option<String>,
    after: Option<String>,
    deleted: Option<bool>,
    object_kind: Option<String>,
    repository: Option<Repository>,
    project: Option<Repository>,
}

#[derive(Deserialize)]
struct Repository {
    default_branch: Option<String>,
}

impl Pushed {
    fn read(body: &[u8]) -> Result<Self, Unreadable> {
        serde_json::from_slice(body).map_err(|error| Unreadable(error.to_string()))
    }

    fn push(self, reference: String, deleted: bool) -> Told {
        let of = |repository: Option<Repository>| repository.and_then(|repository| repository.default_branch);
        let default_branch = of(self.project).or(of(self.repository)).filter(|name| !name.is_empty());
        Told::Pushed(Push { changes: vec![Change { reference, deleted }], default_branch })
    }

    /// A reference that is gone has no commit after the push.
    fn is_deletion(&self) -> bool {
        let no_commit = |id: &str| id.len() >= 40 && id.bytes().all(|byte| byte == b'0');
        self.deleted == Some(true) || self.after.as_deref().is_some_and(no_commit)
    }
}

fn of_push(body: &[u8], provider: Provider) -> Result<Told, Unreadable> {
    let mut pushed = Pushed::read(body)?;
    let deleted = pushed.is_deletion();
    match pushed.reference.take() {
        Some(name) if name.starts_with("refs/") => Ok(pushed.push(name, deleted)),
        Some(name) if provider == Provider::Landfall => Ok(pushed.push(format!("refs/heads/{name}"), deleted)),
        None if provider == Provider::Landfall => Ok(Told::Pushed(Push::default())),
        Some(_) => Err(Unreadable("`ref` does not begin with refs/".to_owned())),
        None => Err(Unreadable("`ref` is missing".to_owned())),
    }
}

fn of_gitlab(body: &[u8]) -> Result<Told, Unreadable> {
    let mut pushed = Pushed::read(body)?;
    let deleted = pushed.is_deletion();
    match (pushed.object_kind.as_deref(), pushed.reference.take()) {
        (Some("push" | "tag_push"), Some(name)) if name.starts_with("refs/") => Ok(pushed.push(name, deleted)),
        (Some("push" | "tag_push"), _) => Err(Unreadable("`ref` is missing".to_owned())),
        (_, _) => Ok(Told::Other),
    }
}

/// A branch or tag was made or deleted.
fn of_one(body: &[u8], deleted: bool) -> Result<Told, Unreadable> {
    let mut pushed = Pushed::read(body)?;
    let prefix = match pushed.ref_type.as_deref() {
        Some("branch") => "refs/heads/",
        Some("tag") => "refs/tags/",
        _ => return Ok(Told::Other),
    };
    match pushed.reference.take() {
        Some(name) => {
            // Some write the short name here, some the full one.
            let name = if name.starts_with("refs/") { name } else { format!("{prefix}{name}") };
            Ok(pushed.push(name, deleted))
        }
        None => Err(Unreadable("`ref` is missing".to_owned())),
    }
}

/// What Bitbucket sends: Cloud below `push`, Data Center at the top.
#[derive(Deserialize)]
struct Bitbucket {
    push: Option<CloudPush>,
    changes: Option<Vec<CenterChange>>,
}

#[derive(Deserialize)]
struct CloudPush {
    changes: Vec<CloudChange>,
}

#[derive(Deserialize)]
struct CloudChange {
    new: Option<CloudRef>,
    old: Option<CloudRef>,
}

#[derive(Deserialize)]
struct CloudRef {
    #[serde(rename = "type")]
    kind: String,
    name: String,
}

#[derive(Deserialize)]
struct CenterChange {
    #[serde(rename = "refId")]
    reference: Option<String>,
    #[serde(rename = "ref")]
    detail: Option<CenterRef>,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct CenterRef {
    id: String,
}

fn of_bitbucket(body: &[u8]) -> Result<Told, Unreadable> {
    let read: Bitbucket = serde_json::from_slice(body).map_err(|error| Unreadable(error.to_string()))?;
    let changes: Vec<Change> = match (read.push, read.changes) {
        (Some(cloud), _) => cloud.changes.into_iter().filter_map(CloudChange::change).collect(),
        (None, Some(center)) => center.into_iter().filter_map(CenterChange::change).collect(),
        (None, None) => return Err(Unreadable("neither `push` nor `changes` is there".to_owned())),
    };
    // A push of nothing that is a branch or a tag says nothing; without this it would mean "look".
    if changes.is_empty() {
        return Ok(Told::Other);
    }
    Ok(Told::Pushed(Push { changes, default_branch: None }))
}

impl CloudChange {
    fn change(self) -> Option<Change> {
        let deleted = self.new.is_none();
        let CloudRef { kind, name } = self.new.or(self.old)?;
        let prefix = match kind.as_str() {
            "branch" | "named_branch" => "refs/heads/",
            "tag" | "annotated_tag" => "refs/tags/",
            _ => return None,
        };
        Some(Change { reference: format!("{prefix}{name}"), deleted })
    }
}

impl CenterChange {
    fn change(self) -> Option<Change> {
        let reference = self.reference.or(self.detail.map(|detail| detail.id))?;
        Some(Change { reference, deleted: self.kind == "DELETE" })
    }
}
