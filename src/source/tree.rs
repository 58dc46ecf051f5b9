//! Finds the app directories that differ between two trees, reading nothing that is equal.
//!
//! Git trees are Merkle trees: equal hash, equal content, whatever lies below. So two trees are compared entry
//! by entry, and only pairs of subtrees with different hashes are opened. The raw bytes of the tree objects
//! are compared in place, because a flat directory of 10,000 apps is one object with 10,000 entries of which
//! one differs.
//!
//! Invariant: the cost follows what changed; nothing below an unchanged entry is ever read.

use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;

use git2::{ObjectType, Odb, OdbObject, Oid};

use super::error::{SourceErrorKind, Trouble};
use super::{LookLimits, include};

/// The file that makes a directory an app.
pub(crate) const MANIFEST: &str = "landfall.yaml";

/// Deeper directories than this are refused: nobody has them, and each level costs stack.
const MAX_DEPTH: usize = 64;

/// More changed directories than this in one look are refused. A crafted tree of a few kilobytes can otherwise
/// unfold to more directories than there is time to visit.
const MAX_DIRECTORIES: u64 = 1_000_000;

/// One entry of a tree object, borrowed from its bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<'a> {
    /// File type and permissions, as git writes them.
    pub(crate) mode: u32,
    /// The name, without any slash.
    pub(crate) name: &'a [u8],
    /// The object.
    pub(crate) id: &'a [u8],
    raw: &'a [u8],
}

impl Entry<'_> {
    /// A link to a commit of another repository: a submodule.
    fn is_link(&self) -> bool {
        self.mode == 0o160_000
    }

    pub(crate) fn is_tree(&self) -> bool {
        self.mode == 0o040_000
    }

    fn is_file(&self) -> bool {
        self.mode & 0o170_000 == 0o100_000
    }

    pub(crate) fn oid(&self) -> Result<Oid, Trouble> {
        Ok(Oid::from_bytes(self.id)?)
    }

    /// Git sorts directories as if their name ended in a slash; a file and a directory of one name are different keys.
    fn key(&self) -> impl Iterator<Item = u8> + '_ {
        self.name.iter().copied().chain(self.is_tree().then_some(b'/'))
    }
}

/// The entries of a tree object.
pub(crate) struct Entries<'a> {
    rest: &'a [u8],
}

impl<'a> Entries<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next entry; `Err` if the bytes are no tree.
    pub(crate) fn next(&mut self) -> Result<Option<Entry<'a>>, Trouble> {
        const HASH: usize = 20;
        if self.rest.is_empty() {
            return Ok(None);
        }
        let malformed = || Trouble::corrupt("a tree object is malformed");
        let space = self.rest.iter().take(8).position(|b| *b == b' ').ok_or_else(malformed)?;
        let mut mode = 0u32;
        for digit in &self.rest[..space] {
            if !(b'0'..=b'7').contains(digit) {
                return Err(malformed());
            }
            mode = mode << 3 | u32::from(digit - b'0');
        }
        let zero = space + 1 + self.rest[space + 1..].iter().position(|b| *b == 0).ok_or_else(malformed)?;
        let end = zero + 1 + HASH;
        let (raw, rest) = self.rest.split_at_checked(end).ok_or_else(malformed)?;
        self.rest = rest;
        Ok(Some(Entry { mode, name: &raw[space + 1..zero], id: &raw[zero + 1..], raw }))
    }
}

/// An app directory that is new or differs.
#[derive(Debug, Clone)]
pub(crate) struct Touched {
    /// Within the repository.
    pub(crate) path: String,
    /// Its tree.
    pub(crate) tree: Oid,
    /// Its manifest, and whether that is a plain file.
    pub(crate) manifest: Oid,
    pub(crate) plain: bool,
}

/// What a comparison found.
#[derive(Debug, Default)]
pub(crate) struct Delta {
    /// App directories that are new or differ.
    pub(crate) touched: Vec<Touched>,
    /// Directories that hold no manifest any more.
    pub(crate) removed: Vec<String>,
    /// Submodules in directories that differ.
    pub(crate) links: Vec<String>,
    /// Where there was a submodule and now is something else, or another commit of it.
    pub(crate) links_before: Vec<String>,
    /// Tree objects read.
    pub(crate) trees_read: u64,
}

/// Compares trees of one object database.
pub(crate) struct Comparison<'a> {
    odb: &'a Odb<'a>,
    limits: &'a LookLimits,
    delta: Delta,
}

impl<'a> Comparison<'a> {
    pub(crate) fn new(odb: &'a Odb<'a>, limits: &'a LookLimits) -> Self {
        Self { odb, limits, delta: Delta::default() }
    }

    /// Adds the app directories below `path` that differ between `old` and `new`.
    pub(crate) fn run(&mut self, old: Option<Oid>, new: Option<Oid>, path: &str) -> Result<(), Trouble> {
        self.compare(old, new, path, 0)
    }

    /// All that was found.
    pub(crate) fn done(self) -> Delta {
        self.delta
    }

    fn read(&mut self, tree: Option<Oid>) -> Result<Option<OdbObject<'a>>, Trouble> {
        let Some(tree) = tree else { return Ok(None) };
        self.delta.trees_read += 1;
        if self.delta.trees_read > 2 * MAX_DIRECTORIES {
            return Err(Trouble::new(
                SourceErrorKind::TooLarge,
                format!("more than {MAX_DIRECTORIES} directories changed"),
                "point `path` at the directory that holds the apps",
            ));
        }
        if self.delta.trees_read.is_multiple_of(256) {
            self.limits.check("comparing two revisions")?;
        }
        read_tree(self.odb, tree).map(Some)
    }

    fn compare(&mut self, old: Option<Oid>, new: Option<Oid>, path: &str, depth: usize) -> Result<(), Trouble> {
        if old == new {
            return Ok(());
        }
        if depth > MAX_DEPTH {
            return Err(Trouble::new(
                SourceErrorKind::TooLarge,
                format!("`{path}` is more than {MAX_DEPTH} directories deep"),
                "move the app further up",
            ));
        }
        let (old_object, new_object) = (self.read(old)?, self.read(new)?);
        let mut olds = Entries::new(old_object.as_ref().map_or(&[], |object| object.data()));
        let mut news = Entries::new(new_object.as_ref().map_or(&[], |object| object.data()));
        let (mut was_app, mut manifest) = (false, None);
        let (mut left, mut right) = (olds.next()?, news.next()?);
        loop {
            use std::cmp::Ordering::{Equal, Greater, Less};
            let order = match (&left, &right) {
                (None, None) => break,
                (Some(_), None) => Less,
                (None, Some(_)) => Greater,
                (Some(l), Some(r)) if l.raw == r.raw => Equal,
                (Some(l), Some(r)) => l.key().cmp(r.key()),
            };
            let before = left.filter(|_| order.is_le());
            let after = right.filter(|_| order.is_ge());
            was_app |= before.is_some_and(|entry| is_manifest(&entry));
            if let Some(entry) = after.filter(is_manifest) {
                manifest = Some((entry.oid()?, entry.is_file()));
            }
            self.descend(before, after, path, depth)?;
            if order.is_le() {
                left = olds.next()?;
            }
            if order.is_ge() {
                right = news.next()?;
            }
        }
        match (manifest, new) {
            (Some((manifest, plain)), Some(tree)) => {
                self.delta.touched.push(Touched { path: path.to_owned(), tree, manifest, plain });
            }
            _ if was_app => self.delta.removed.push(path.to_owned()),
            _ => {}
        }
        Ok(())
    }

    fn descend(
        &mut self,
        before: Option<Entry<'_>>,
        after: Option<Entry<'_>>,
        path: &str,
        depth: usize,
    ) -> Result<(), Trouble> {
        let link = |entry: Entry<'_>| include::join(path, &String::from_utf8_lossy(entry.name));
        if let Some(entry) = after.filter(Entry::is_link) {
            self.delta.links.push(link(entry));
        }
        if let Some(entry) =
            before.filter(|before| before.is_link() && after.is_none_or(|after| after.raw != before.raw))
        {
            self.delta.links_before.push(link(entry));
        }
        let (before, after) = (before.filter(Entry::is_tree), after.filter(Entry::is_tree));
        let Some(named) = after.or(before) else { return Ok(()) };
        let (before_id, after_id) = (before.map(|e| e.id), after.map(|e| e.id));
        if before_id == after_id {
            return Ok(());
        }
        let path = include::join(path, &String::from_utf8_lossy(named.name));
        let oid = |entry: Option<Entry<'_>>| entry.map(|e| e.oid()).transpose();
        self.compare(oid(before)?, oid(after)?, &path, depth + 1)
    }
}

/// A symbolic link or an executable of that name also marks an app, so that it is reported rather than ignored.
fn is_manifest(entry: &Entry<'_>) -> bool {
    entry.name == MANIFEST.as_bytes() && matches!(entry.mode & 0o170_000, 0o100_000 | 0o120_000)
}

fn read_tree<'a>(odb: &'a Odb<'_>, tree: Oid) -> Result<OdbObject<'a>, Trouble> {
    let object = odb.read(tree)?;
    if object.kind() == ObjectType::Tree {
        Ok(object)
    } else {
        Err(Trouble::corrupt(format!("object {tree} is not a tree")))
    }
}

/// What lies at a path of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// A directory.
    Directory(Oid),
    /// Something else.
    Other,
    /// Nothing.
    Nothing,
}

/// Looks `path` up, reading one tree object per component.
pub(crate) fn lookup(odb: &Odb<'_>, root: Oid, path: &str) -> Result<Found, Trouble> {
    let mut here = root;
    let mut parts = include::components(path).peekable();
    while let Some(part) = parts.next() {
        let object = read_tree(odb, here)?;
        let mut entries = Entries::new(object.data());
        let found = loop {
            match entries.next()? {
                Some(entry) if entry.name == part.as_bytes() => break Some((entry.is_tree(), entry.oid()?)),
                Some(_) => {}
                None => break None,
            }
        };
        match found {
            Some((true, id)) => here = id,
            Some((false, _)) if parts.peek().is_none() => return Ok(Found::Other),
            Some((false, _)) | None => return Ok(Found::Nothing),
        }
    }
    Ok(Found::Directory(here))
}

/// The entries of one tree by name: whether it is a directory, and which object.
type ByName = HashMap<Box<[u8]>, (bool, Oid)>;

/// Looks many paths up. Keeps what it has read: the apps of a fleet include directories that lie side by side, and the
/// directory around them may have thousands of entries.
pub(crate) struct Lookup<'a> {
    odb: &'a Odb<'a>,
    trees: HashMap<Oid, ByName>,
}

impl<'a> Lookup<'a> {
    pub(crate) fn new(odb: &'a Odb<'a>) -> Self {
        Self { odb, trees: HashMap::new() }
    }

    /// What lies at `path` below `root`.
    pub(crate) fn find(&mut self, root: Oid, path: &str) -> Result<Found, Trouble> {
        let mut here = Found::Directory(root);
        for part in include::components(path) {
            let Found::Directory(tree) = here else { return Ok(Found::Nothing) };
            here = match self.entries(tree)?.get(part.as_bytes()) {
                Some((true, id)) => Found::Directory(*id),
                Some((false, _)) => Found::Other,
                None => return Ok(Found::Nothing),
            };
        }
        Ok(here)
    }

    fn entries(&mut self, tree: Oid) -> Result<&ByName, Trouble> {
        match self.trees.entry(tree) {
            MapEntry::Occupied(there) => Ok(there.into_mut()),
            MapEntry::Vacant(free) => {
                let object = read_tree(self.odb, tree)?;
                let (mut entries, mut all) = (Entries::new(object.data()), HashMap::new());
                while let Some(entry) = entries.next()? {
                    all.insert(entry.name.into(), (entry.is_tree(), entry.oid()?));
                }
                Ok(free.insert(all))
            }
        }
    }
}

/// The manifest of the app directory `tree`, if it has one.
pub(crate) fn manifest_of(odb: &Odb<'_>, path: &str, tree: Oid) -> Result<Option<Touched>, Trouble> {
    let object = read_tree(odb, tree)?;
    let mut entries = Entries::new(object.data());
    while let Some(entry) = entries.next()? {
        if is_manifest(&entry) {
            return Ok(Some(Touched { path: path.to_owned(), tree, manifest: entry.oid()?, plain: entry.is_file() }));
        }
    }
    Ok(None)
}
