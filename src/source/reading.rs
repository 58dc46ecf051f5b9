//! Reads the manifests of the app directories that changed and gives each app its content identity.
//!
//! Invariant: reading what changed, again and again, ends in the same apps as reading everything once.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use git2::{ObjectType, Odb, Oid};
use sha2::{Digest, Sha256};

use super::absent::{Absent, uncovered};
use super::error::Trouble;
use super::known::KnownApps;
use super::submodules::Missing;
use super::tree::{Comparison, Found, Lookup, MANIFEST, Touched, lookup, manifest_of};
use super::{
    AppContent, AppReading, LookLimits, ManifestProblem, ManifestReader, Note, PackedTree, ReadStats, include,
};
use crate::domain::{AppName, ContentId, Manifest, TreeId, hex};

/// Larger manifests are refused unread.
const MAX_MANIFEST: usize = 1024 * 1024;

/// More includes than this are refused: each is looked up in every reading.
const MAX_INCLUDES: usize = 64;

/// Changes with the meaning of the bytes that are hashed, so that identities of different meaning never meet.
const CONTENT_FORMAT: &[u8] = b"landfall content 1\0";

/// What is compared with what.
pub(crate) struct Span<'a> {
    /// The root tree of the last reading; `None` reads everything.
    pub(crate) old: Option<Oid>,
    /// The root tree to read.
    pub(crate) new: Oid,
    /// The directories that hold the apps, none inside another.
    pub(crate) paths: &'a [String],
    /// Submodules that could not be fetched; `None` where they are not fetched at all.
    pub(crate) missing: Option<&'a Missing>,
}

/// The apps that changed.
pub(crate) struct Changes {
    pub(crate) read: Vec<AppReading>,
    pub(crate) removed: Vec<String>,
    pub(crate) notes: Vec<Note>,
    pub(crate) stats: ReadStats,
}

/// A manifest that was read, before it is settled who owns its name.
struct Draft {
    app: Option<AppName>,
    includes: Vec<String>,
    result: Result<AppContent, String>,
}

/// Reads what differs over `span`.
pub(crate) fn read_changes(
    odb: &Odb<'_>,
    span: &Span<'_>,
    known: &KnownApps,
    read: &ManifestReader,
    limits: &LookLimits,
) -> Result<Changes, Trouble> {
    let mut comparison = Comparison::new(odb, limits);
    for path in span.paths {
        let new = below(odb, span.new, path)?.ok_or_else(|| no_directory(path, span.missing))?;
        let old = match span.old {
            Some(root) => below(odb, root, path)?,
            None => None,
        };
        comparison.run(old, Some(new), path)?;
    }
    let delta = comparison.done();
    let mut removed = delta.removed;
    let found: BTreeSet<&str> = delta.touched.iter().map(|t| t.path.as_str()).collect();
    removed.extend(match span.old {
        Some(_) => uncovered(&delta.links_before, known),
        None => known.iter().map(|k| k.path.clone()).collect(),
    });
    removed.retain(|path| !found.contains(path.as_str()));
    let absent = Absent::new(span.missing, delta.links);
    let notes = absent.notes(found.iter().copied());
    let (unknown, removed): (BTreeSet<String>, BTreeSet<String>) =
        removed.into_iter().partition(|path| absent.around(path).is_some());
    let mut reader =
        Reader { odb, root: span.new, known, read, absent: &absent, lookup: Lookup::new(odb), manifests_read: 0 };
    let mut drafts = BTreeMap::new();
    for path in unknown {
        let problem = absent.around(&path).unwrap_or_default();
        drafts.insert(path.clone(), reader.as_before(&path, problem));
    }
    for (count, touched) in delta.touched.into_iter().enumerate() {
        if count % 64 == 0 {
            limits.check("reading manifests")?;
        }
        reader.draft_into(&mut drafts, touched)?;
    }
    if let Some(old_root) = span.old {
        reader.draft_includers(&mut drafts, &removed, old_root)?;
    }
    let owners = reader.settle_names(&mut drafts, &removed)?;
    let stats = ReadStats { manifests_read: reader.manifests_read, trees_read: delta.trees_read };
    let read = drafts.into_iter().map(|(path, draft)| finish(path, draft, &owners)).collect();
    Ok(Changes { read, removed: removed.into_iter().collect(), notes, stats })
}

fn below(odb: &Odb<'_>, root: Oid, path: &str) -> Result<Option<Oid>, Trouble> {
    Ok(match lookup(odb, root, path)? {
        Found::Directory(tree) => Some(tree),
        Found::Other | Found::Nothing => None,
    })
}

fn no_directory(path: &str, missing: Option<&Missing>) -> Trouble {
    if let Some(problem) = Absent::new(missing, Vec::new()).around(path) {
        return Trouble::new(super::SourceErrorKind::Network, problem, "");
    }
    Trouble::new(
        super::SourceErrorKind::InvalidPath,
        format!("this revision has no directory `{path}`"),
        "correct the source's `path`, or add the directory",
    )
}

/// Turns a draft into a reading: an app whose name belongs to another directory has no content.
fn finish(path: String, draft: Draft, owners: &HashMap<AppName, String>) -> AppReading {
    let holder = draft.app.as_ref().and_then(|app| owners.get(app));
    let owner = holder.is_some_and(|holder| *holder == path);
    let result = match (draft.result, &draft.app, holder) {
        (Ok(_), Some(app), Some(holder)) if !owner => Err(format!(
            "{}: the name `{app}` belongs to {}, which had it first; give one of them another name",
            manifest_path(&path),
            manifest_path(holder),
        )),
        (result, _, _) => result,
    };
    AppReading {
        path,
        app: draft.app,
        owner,
        includes: draft.includes,
        result: result.map_err(|message| ManifestProblem { message }),
    }
}

fn manifest_path(directory: &str) -> String {
    include::join(directory, MANIFEST)
}

struct Reader<'a> {
    odb: &'a Odb<'a>,
    root: Oid,
    known: &'a KnownApps,
    read: &'a ManifestReader,
    absent: &'a Absent<'a>,
    lookup: Lookup<'a>,
    manifests_read: u64,
}

impl Reader<'_> {
    fn draft_into(&mut self, drafts: &mut BTreeMap<String, Draft>, touched: Touched) -> Result<(), Trouble> {
        let mut draft = self.draft(&touched)?;
        if let Some(problem) = self.absent.problem(&touched.path, &draft.includes) {
            draft.result = Err(problem);
        }
        drafts.insert(touched.path, draft);
        Ok(())
    }

    /// Reads the apps whose own directory is the same but that include one that is not.
    fn draft_includers(
        &mut self,
        drafts: &mut BTreeMap<String, Draft>,
        removed: &BTreeSet<String>,
        old_root: Oid,
    ) -> Result<(), Trouble> {
        let known = self.known;
        for (directory, apps) in known.included() {
            if self.lookup.find(self.root, directory)? == self.lookup.find(old_root, directory)? {
                continue;
            }
            for path in apps.iter().filter(|path| !removed.contains(*path)) {
                if !drafts.contains_key(path) {
                    self.draft_again(drafts, path)?;
                }
            }
        }
        Ok(())
    }

    /// Reads an app whose own directory did not change.
    fn draft_again(&mut self, drafts: &mut BTreeMap<String, Draft>, path: &str) -> Result<(), Trouble> {
        if let Found::Directory(tree) = self.lookup.find(self.root, path)?
            && let Some(touched) = manifest_of(self.odb, path, tree)?
        {
            self.draft_into(drafts, touched)?;
        }
        Ok(())
    }

    /// Who owns each name that this reading concerns: whoever had it keeps it, else the first in path order gets it.
    /// Those who waited for a name that has become free are read now.
    fn settle_names(
        &mut self,
        drafts: &mut BTreeMap<String, Draft>,
        removed: &BTreeSet<String>,
    ) -> Result<HashMap<AppName, String>, Trouble> {
        let known = self.known;
        let before = drafts.keys().chain(removed).filter_map(|path| known.get(path)?.app.clone());
        let after = drafts.values().filter_map(|draft| draft.app.clone());
        let names: BTreeSet<AppName> = before.chain(after).collect();
        let mut claims: HashMap<AppName, BTreeSet<String>> = HashMap::new();
        for (path, draft) in drafts.iter() {
            if let Some(app) = &draft.app {
                claims.entry(app.clone()).or_default().insert(path.clone());
            }
        }
        let mut owners = HashMap::new();
        for name in names {
            let mut contenders = claims.remove(&name).unwrap_or_default();
            let waiting = known.claimants(&name).map(|k| &k.path);
            contenders.extend(waiting.filter(|p| !removed.contains(*p) && !drafts.contains_key(*p)).cloned());
            let had_it = |path: &&String| known.get(path).is_some_and(|k| k.owner && k.app.as_ref() == Some(&name));
            let before = contenders.iter().find(had_it).cloned();
            let changed = before.is_none();
            let Some(winner) = before.or_else(|| contenders.first().cloned()) else { continue };
            if changed {
                // One gets it, and the others hear who has it now.
                for path in &contenders {
                    if !drafts.contains_key(path) {
                        self.draft_again(drafts, path)?;
                    }
                }
            }
            owners.insert(name, winner);
        }
        Ok(owners)
    }

    /// Reads one manifest. Only trouble with the object database is an error; a bad manifest is a result.
    fn draft(&mut self, touched: &Touched) -> Result<Draft, Trouble> {
        self.manifests_read += 1;
        let name = manifest_path(&touched.path);
        let manifest = match self.text(touched)? {
            Ok(text) => (self.read)(&name, &text),
            Err(problem) => Err(format!("{name}: {problem}")),
        };
        let manifest = match manifest {
            Ok(manifest) => manifest,
            Err(problem) => {
                return Ok(self.as_before(&touched.path, problem));
            }
        };
        let (app, includes) = (manifest.app.clone(), manifest.include.clone());
        let result = self.content(touched, manifest)?.map_err(|problem| format!("{name}: {problem}"));
        Ok(Draft { app: Some(app), includes, result })
    }

    /// An app that cannot be read. What its manifest said when it was last readable still holds: the name is not up for
    /// grabs because of a typing error.
    fn as_before(&self, path: &str, problem: String) -> Draft {
        let known = self.known.get(path);
        Draft {
            app: known.and_then(|k| k.app.clone()),
            includes: known.map(|k| k.includes.clone()).unwrap_or_default(),
            result: Err(problem),
        }
    }

    fn text(&self, touched: &Touched) -> Result<Result<String, String>, Trouble> {
        if !touched.plain {
            return Ok(Err("is a symbolic link; put the manifest itself there".into()));
        }
        if touched.path.contains(char::REPLACEMENT_CHARACTER) {
            return Ok(Err("the directory's name is not UTF-8; rename it".into()));
        }
        let (size, kind) = self.odb.read_header(touched.manifest)?;
        if kind != ObjectType::Blob {
            return Err(Trouble::corrupt(format!("object {} is not a file", touched.manifest)));
        }
        if size > MAX_MANIFEST {
            return Ok(Err(format!("is {size} bytes long, at most {MAX_MANIFEST} are read")));
        }
        let object = self.odb.read(touched.manifest)?;
        Ok(match std::str::from_utf8(object.data()) {
            Ok(text) => Ok(text.to_owned()),
            Err(error) => Err(format!("is not UTF-8 (byte {})", error.valid_up_to())),
        })
    }

    fn content(&mut self, touched: &Touched, manifest: Manifest) -> Result<Result<AppContent, String>, Trouble> {
        if manifest.include.len() > MAX_INCLUDES {
            return Ok(Err(format!(
                "includes {} directories, at most {MAX_INCLUDES} are allowed",
                manifest.include.len()
            )));
        }
        let mut included = BTreeMap::new();
        for written in &manifest.include {
            let directory = match include::resolve(&touched.path, written) {
                Ok(directory) => directory,
                Err(problem) => return Ok(Err(format!("include: {problem}"))),
            };
            match self.lookup.find(self.root, &directory)? {
                Found::Directory(tree) => {
                    included.insert(include::normalise(written), (directory, tree));
                }
                Found::Other => {
                    return Ok(Err(format!("include: `{written}` is `{directory}`, a file; include its directory")));
                }
                Found::Nothing => {
                    return Ok(Err(format!(
                        "include: `{written}` is `{directory}`, which does not exist in this revision"
                    )));
                }
            }
        }
        let content = match identity(&manifest, touched.tree, &included) {
            Ok(content) => content,
            Err(problem) => return Ok(Err(problem)),
        };
        let tree = pack(&touched.path, touched.tree, &included)?;
        Ok(Ok(AppContent { manifest, content, tree }))
    }
}

/// Included directory as the app sees it → where it lies in the repository, and its tree.
type Included = BTreeMap<String, (String, Oid)>;

/// The identity of an app's content. Says nothing of where in the repository the app lies: moving it changes nothing.
fn identity(manifest: &Manifest, tree: Oid, included: &Included) -> Result<ContentId, String> {
    let manifest = serde_json::to_vec(manifest).map_err(|error| format!("cannot be normalised: {error}"))?;
    let mut hash = Sha256::new();
    hash.update(CONTENT_FORMAT);
    // Lengths first: no two different lists of parts are the same bytes.
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    part(&manifest);
    part(tree.as_bytes());
    for (seen_as, (_, tree)) in included {
        part(seen_as.as_bytes());
        part(tree.as_bytes());
    }
    ContentId::try_from(hex::encode(&hash.finalize()))
}

/// The app's directory and its includes, as far up as the includes reach.
fn pack(path: &str, tree: Oid, included: &Included) -> Result<PackedTree, Trouble> {
    let up = included.keys().map(|seen_as| include::components(seen_as).take_while(|c| *c == "..").count()).max();
    let mine: Vec<&str> = include::components(path).collect();
    let base = mine.len().saturating_sub(up.unwrap_or(0));
    let (base, workdir) = (mine[..base].join("/"), mine[base..].join("/"));
    let below = |directory: &str| directory.strip_prefix(&base).unwrap_or(directory).trim_start_matches('/').to_owned();
    let mut all: BTreeMap<String, Oid> = included.values().map(|(directory, tree)| (below(directory), *tree)).collect();
    all.insert(workdir.clone(), tree);
    let mut parts: Vec<(String, TreeId)> = Vec::new();
    for (directory, tree) in all {
        // A directory inside another part comes with it: both are of one revision.
        if !parts.iter().any(|(outer, _)| include::within(&directory, outer)) {
            parts.push((directory, tree_id(tree)?));
        }
    }
    Ok(PackedTree { parts, workdir })
}

/// The house's type for a tree of libgit2.
pub(crate) fn tree_id(oid: Oid) -> Result<TreeId, Trouble> {
    TreeId::try_from(oid.to_string()).map_err(Trouble::corrupt)
}
