//! Unpacking an uploaded archive so that nothing in it can reach outside its directory.
//!
//! Why it holds: the directory is fresh, nothing is ever written over, and every parent of an entry is looked at
//! and must be a real directory, so no write passes through a link. A link's target is relative and has `..` only
//! at its beginning, at most as often as the link is deep. It thus starts at a real directory inside and goes
//! down from there; where it goes through another link, the same holds for that one.

use std::cell::Cell;
use std::collections::HashSet;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use tar::{Archive, Entry, EntryType};

/// Most entries of an archive.
pub const MAX_ENTRIES: usize = 200_000;
/// Most bytes between the contents of two entries. The tar library reads long names and extensions into memory.
const MAX_HEAD: u64 = 1024 * 1024;

/// Why an archive was not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// It is no archive, or it broke off.
    #[error("the archive cannot be read: {0}")]
    Archive(io::Error),
    /// It holds something that is not taken.
    #[error("the archive's entry `{path}` {why}")]
    Entry {
        /// Which.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// It holds too much.
    #[error("the archive has more than {MAX_ENTRIES} entries")]
    TooMany,
    /// It cannot be written down.
    #[error("the upload cannot be written to {}: {why}", place.display())]
    Write {
        /// Where.
        place: PathBuf,
        /// What the system said.
        why: io::Error,
    },
}

/// Unpacks `archive` into `root`, which must exist and be empty. Entries named `.git` are left out.
pub fn unpack(archive: impl Read, root: &Path) -> Result<(), UnpackError> {
    let allowance = Rc::new(Cell::new(MAX_HEAD));
    let mut archive = Archive::new(Metered { inner: archive, allowance: Rc::clone(&allowance) });
    let mut directories = HashSet::new();
    let mut count = 0;
    for entry in archive.entries().map_err(UnpackError::Archive)? {
        let mut entry = entry.map_err(UnpackError::Archive)?;
        count += 1;
        if count > MAX_ENTRIES {
            return Err(UnpackError::TooMany);
        }
        allowance.set(u64::MAX);
        // `git archive` starts with a global header; it says nothing about content.
        if entry.header().entry_type() != EntryType::XGlobalHeader
            && let Some(inner) = inside(&entry)?
        {
            place(&mut entry, &inner, root, &mut directories)?;
        }
        io::copy(&mut entry, &mut io::sink()).map_err(UnpackError::Archive)?;
        allowance.set(MAX_HEAD);
    }
    allowance.set(u64::MAX);
    // The archive's end is two empty blocks; reading on makes sure that the sender's last byte was taken.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(UnpackError::Archive)?;
    Ok(())
}

/// A reader that gives no more than it is allowed to.
struct Metered<R> {
    inner: R,
    allowance: Rc<Cell<u64>>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(into)?;
        let left = self.allowance.get().checked_sub(read as u64);
        self.allowance.set(left.ok_or_else(|| io::Error::other("an entry's name is longer than 1 MiB"))?);
        Ok(read)
    }
}

/// The entry's path below the root; `None` for the root itself and for `.git`.
fn inside<R: Read>(entry: &Entry<'_, R>) -> Result<Option<PathBuf>, UnpackError> {
    let path = entry.path().map_err(UnpackError::Archive)?;
    let mut inner = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) if name == ".git" => return Ok(None),
            Component::Normal(name) => inner.push(name),
            Component::CurDir => {}
            Component::ParentDir => return Err(wrong(&path, "has `..` in its path")),
            Component::RootDir | Component::Prefix(_) => return Err(wrong(&path, "has an absolute path")),
        }
    }
    Ok((!inner.as_os_str().is_empty()).then_some(inner))
}

fn place<R: Read>(
    entry: &mut Entry<'_, R>,
    inner: &Path,
    root: &Path,
    directories: &mut HashSet<PathBuf>,
) -> Result<(), UnpackError> {
    let parent = inner.parent().unwrap_or(Path::new(""));
    make_directory(parent, root, directories)?;
    let target = root.join(inner);
    match entry.header().entry_type() {
        EntryType::Directory => make_directory(inner, root, directories),
        EntryType::Regular | EntryType::Continuous => {
            let executable = entry.header().mode().map_err(UnpackError::Archive)? & 0o111 != 0;
            write_file(entry, inner, &target, if executable { 0o755 } else { 0o644 })
        }
        EntryType::Symlink => {
            let points_to = entry.link_name().map_err(UnpackError::Archive)?;
            let points_to = points_to.ok_or_else(|| wrong(inner, "is a link to nothing"))?;
            check_link(inner, &points_to)?;
            symlink(&points_to, &target).map_err(|error| written(inner, &target, error))
        }
        EntryType::Link => Err(wrong(inner, "is a hard link; only files, directories and symbolic links are taken")),
        EntryType::Char | EntryType::Block => Err(wrong(inner, "is a device")),
        EntryType::Fifo => Err(wrong(inner, "is a pipe")),
        EntryType::GNUSparse => Err(wrong(inner, "is stored as a sparse file; make the archive without --sparse")),
        _ => Err(wrong(inner, "is of a kind that is not taken; only files, directories and symbolic links are")),
    }
}

/// Makes a directory and those above it, and makes sure that each is one and no link.
fn make_directory(inner: &Path, root: &Path, known: &mut HashSet<PathBuf>) -> Result<(), UnpackError> {
    if inner.as_os_str().is_empty() || known.contains(inner) {
        return Ok(());
    }
    make_directory(inner.parent().unwrap_or(Path::new("")), root, known)?;
    let target = root.join(inner);
    match DirBuilder::new().mode(0o755).create(&target) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let is_directory = fs::symlink_metadata(&target).is_ok_and(|meta| meta.is_dir());
            if !is_directory {
                return Err(wrong(inner, "is a directory and something else at once"));
            }
        }
        Err(why) => return Err(UnpackError::Write { place: target, why }),
    }
    known.insert(inner.to_owned());
    Ok(())
}

fn write_file<R: Read>(entry: &mut Entry<'_, R>, inner: &Path, target: &Path, mode: u32) -> Result<(), UnpackError> {
    // `create_new` neither follows a link nor writes over anything.
    let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(target);
    let mut file = opened.map_err(|error| written(inner, target, error))?;
    let mut piece = [0_u8; 64 * 1024];
    loop {
        let read = match entry.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(UnpackError::Archive(error)),
        };
        io::Write::write_all(&mut file, &piece[..read])
            .map_err(|why| UnpackError::Write { place: target.to_owned(), why })?;
    }
}

fn check_link(inner: &Path, points_to: &Path) -> Result<(), UnpackError> {
    let mut up = 0;
    let mut down = 0;
    for component in points_to.components() {
        match component {
            Component::Normal(_) => down += 1,
            Component::CurDir => {}
            Component::ParentDir if down == 0 => up += 1,
            Component::ParentDir => return Err(wrong(inner, "is a link with `..` in the middle of its target")),
            Component::RootDir | Component::Prefix(_) => return Err(wrong(inner, "is a link to an absolute path")),
        }
    }
    let depth = inner.components().count() - 1;
    if up > depth { Err(wrong(inner, "is a link that leads out of the directory")) } else { Ok(()) }
}

fn written(inner: &Path, target: &Path, error: io::Error) -> UnpackError {
    if error.kind() == io::ErrorKind::AlreadyExists {
        wrong(inner, "is there twice")
    } else {
        UnpackError::Write { place: target.to_owned(), why: error }
    }
}

fn wrong(path: &Path, why: &'static str) -> UnpackError {
    UnpackError::Entry { path: path.display().to_string().chars().take(200).collect(), why }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// An archive of entries whose names are written as they are, unlike those of an honest archiver.
    fn archive(entries: &[(EntryType, &str, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (kind, name, content) in entries {
            let mut header = tar::Header::new_gnu();
            let is_link = matches!(kind, EntryType::Symlink | EntryType::Link);
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            header.set_size(if is_link { 0 } else { content.len() as u64 });
            let gnu = header.as_gnu_mut().expect("a GNU header");
            gnu.name[..name.len()].copy_from_slice(name.as_bytes());
            if is_link {
                gnu.linkname[..content.len()].copy_from_slice(content.as_bytes());
            }
            header.set_cksum();
            builder.append(&header, if is_link { &b""[..] } else { content.as_bytes() }).expect("written to memory");
        }
        builder.into_inner().expect("written to memory")
    }

    /// Unpacks below a directory with a bystander next to it, which must never change.
    fn unpacked(entries: &[(EntryType, &str, &str)]) -> (tempfile::TempDir, Result<(), String>) {
        let outer = tempfile::tempdir().expect("a directory");
        fs::write(outer.path().join("bystander"), "untouched").expect("written");
        let root = outer.path().join("root");
        fs::create_dir(&root).expect("made");
        let result = unpack(archive(entries).as_slice(), &root).map_err(|error| error.to_string());
        assert_eq!(fs::read_to_string(outer.path().join("bystander")).expect("there"), "untouched");
        assert_eq!(fs::read_dir(outer.path()).expect("read").count(), 2, "something was written outside");
        (outer, result)
    }

    const FILE: EntryType = EntryType::Regular;
    const LINK: EntryType = EntryType::Symlink;

    #[test]
    fn nothing_in_an_archive_reaches_outside() {
        let outside: &[&[(EntryType, &str, &str)]] = &[
            &[(FILE, "../bystander", "x")],
            &[(FILE, "a/../../bystander", "x")],
            &[(FILE, "/tmp/landfall-escape", "x")],
            &[(LINK, "l", "../bystander")],
            &[(LINK, "l", "..")],
            &[(LINK, "l", "/etc/passwd")],
            &[(LINK, "a/l", "../../bystander")],
            &[(LINK, "a/b/up", "../.."), (LINK, "l", "a/b/up/../bystander")],
            &[(LINK, "l", "a"), (FILE, "l/b", "x")],
            &[(FILE, "a/f", "x"), (LINK, "l", "a"), (FILE, "l/b", "x")],
            &[(LINK, "l", "f"), (FILE, "l", "x")],
            &[(FILE, "f", "x"), (LINK, "f", "g")],
            &[(FILE, "f", "x"), (FILE, "f/g", "x")],
            &[(FILE, "f", "x"), (FILE, "f", "y")],
            &[(EntryType::Link, "l", "../bystander")],
            &[(EntryType::Link, "l", "f")],
            &[(EntryType::Char, "d", "")],
            &[(EntryType::Block, "d", "")],
            &[(EntryType::Fifo, "d", "")],
        ];
        for entries in outside {
            let (_, result) = unpacked(entries);
            let message = result.expect_err(&format!("{entries:?} was unpacked"));
            assert!(message.starts_with("the archive's entry `"), "{entries:?}: {message}");
        }
    }

    #[test]
    fn links_that_stay_inside_are_kept() {
        let (outer, result) = unpacked(&[
            (EntryType::XGlobalHeader, "pax_global_header", "52 comment=0123456789012345678901234567890123456789\n"),
            (EntryType::Directory, "./", ""),
            (EntryType::Directory, "./a/", ""),
            (EntryType::Directory, "./a/", ""),
            (FILE, "./a/b/file", "content"),
            (LINK, "a/b/l", "../../top"),
            (LINK, "dangling", "nowhere"),
            (FILE, "top", "top"),
            (FILE, ".git/config", "[core]"),
            (FILE, "a/.git", "gitdir: x"),
        ]);
        assert_eq!(result, Ok(()));
        let root = outer.path().join("root");
        assert_eq!(fs::read_to_string(root.join("a/b/file")).expect("there"), "content");
        assert_eq!(fs::read_to_string(root.join("a/b/l")).expect("leads to the file"), "top");
        assert!(!root.join(".git").exists() && !root.join("a/.git").exists());
    }

    #[test]
    fn the_executable_bit_survives_and_no_other() {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o6711);
        header.set_size(0);
        builder.append_data(&mut header, "run", io::empty()).expect("written to memory");
        let root = tempfile::tempdir().expect("a directory");
        unpack(builder.into_inner().expect("written").as_slice(), root.path()).expect("unpacked");
        let mode = fs::metadata(root.path().join("run")).expect("there").permissions().mode();
        assert_eq!((mode & 0o100, mode & 0o7022), (0o100, 0));
    }

    #[test]
    fn an_archive_that_broke_off_is_refused() {
        let whole = archive(&[(FILE, "f", &"x".repeat(5000))]);
        let root = tempfile::tempdir().expect("a directory");
        assert!(matches!(unpack(&whole[..3000], root.path()), Err(UnpackError::Archive(_))));
        let root = tempfile::tempdir().expect("a directory");
        assert!(matches!(unpack(&b"this is no archive"[..], root.path()), Err(UnpackError::Archive(_))));
    }

    #[test]
    fn a_name_that_never_ends_does_not_fill_the_memory() {
        let name = "n".repeat(3 * 1024 * 1024);
        let bytes = archive(&[(EntryType::GNULongName, "././@LongLink", &name), (FILE, "f", "x")]);
        let root = tempfile::tempdir().expect("a directory");
        let error = unpack(bytes.as_slice(), root.path()).expect_err("refused").to_string();
        assert!(error.contains("longer than 1 MiB"), "{error}");
    }

    #[test]
    fn too_many_entries_are_refused() {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(EntryType::Directory);
        header.set_size(0);
        header.as_gnu_mut().expect("GNU").name[0] = b'd';
        header.set_cksum();
        let bytes = header.as_bytes().repeat(MAX_ENTRIES + 1);
        let root = tempfile::tempdir().expect("a directory");
        assert!(matches!(unpack(bytes.as_slice(), root.path()), Err(UnpackError::TooMany)));
    }
}
