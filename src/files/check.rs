//! `landfall check`: finds the files, reads each as what it is, and reports on all of them together.
//!
//! The only part of `files` that touches the file system; it reads and never writes.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::errors::FileError;
use super::explain::explain;
use super::schema::Which;
use super::source::Source;
use super::yaml::{self, MAX_DOCUMENT, NodeKind, Place};
use super::{config, manifest};

/// The name of every manifest.
pub const MANIFEST_NAME: &str = "landfall.yaml";
/// Deepest directory below the given one in which manifests are looked for.
const MAX_DEPTH: usize = 16;
/// Most manifests of one directory argument.
const MAX_FILES: usize = 100_000;

/// What was found in the files.
#[derive(Debug, Clone, Default)]
pub struct CheckReport {
    /// The files that were read, in order.
    pub files: Vec<CheckedFile>,
    /// Every mistake, file by file.
    pub errors: Vec<FileError>,
}

/// A file that was read.
#[derive(Debug, Clone)]
pub struct CheckedFile {
    /// As it was given or found.
    pub path: PathBuf,
    /// What it was read as.
    pub which: Which,
    /// The app, of a manifest without mistakes.
    pub app: Option<String>,
    /// The file with its defaults (`--explain`), if it has no mistakes.
    pub explained: Option<String>,
}

impl CheckReport {
    /// Whether there is no mistake in any file.
    pub fn is_good(&self) -> bool {
        self.errors.is_empty()
    }
}

/// Checks files, and the manifests of directories. `env` are the variables that win over a configuration.
pub fn check(paths: &[PathBuf], env: &[(String, String)]) -> CheckReport {
    let mut report = CheckReport::default();
    let mut apps: HashMap<String, PathBuf> = HashMap::new();
    for path in paths {
        if path.is_dir() {
            let before = report.files.len() + report.errors.len();
            search(path, 0, env, &mut report, &mut apps);
            if before == report.files.len() + report.errors.len() {
                let hint = format!("an app is a directory with a {MANIFEST_NAME} in it");
                report.errors.push(FileError::whole(show(path), "no manifests found under this directory", Some(hint)));
            }
        } else {
            file(path, env, &mut report, &mut apps);
        }
    }
    report
}

/// Manifests below a directory in the order of their names. Links are not followed, as by sources.
fn search(
    directory: &Path,
    depth: usize,
    env: &[(String, String)],
    report: &mut CheckReport,
    apps: &mut HashMap<String, PathBuf>,
) {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => {
            report.errors.push(FileError::whole(show(directory), format!("cannot be read: {error}"), None));
            return;
        }
    };
    let mut entries: Vec<_> = entries.flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let Ok(kind) = entry.file_type() else { continue };
        let name = entry.file_name();
        if kind.is_file() && name == MANIFEST_NAME && report.files.len() < MAX_FILES {
            file(&entry.path(), env, report, apps);
        } else if kind.is_dir() && name != ".git" && depth < MAX_DEPTH {
            search(&entry.path(), depth + 1, env, report, apps);
        }
    }
}

fn file(path: &Path, env: &[(String, String)], report: &mut CheckReport, apps: &mut HashMap<String, PathBuf>) {
    let name = show(path);
    let text = match read(path) {
        Ok(text) => text,
        Err(error) => {
            report.errors.push(error);
            return;
        }
    };
    let which = recognise(&text);
    let read = match which {
        Which::Manifest => manifest::read_manifest(&name, &text)
            .and_then(|app| Ok((Some(app.app.to_string()), manifest::read_record(&name, &text)?))),
        Which::Config => config::read_config(path, &text, &mut env.iter().cloned())
            .and_then(|_| Ok((None, config::read_record(&name, &text, &mut env.iter().cloned())?))),
    };
    let (app, explained) = match read {
        Ok((app, record)) => (app, Some(explain(&record))),
        Err(errors) => {
            report.errors.extend(errors);
            (None, None)
        }
    };
    if let Some(app) = &app
        && let Some(first) = apps.insert(app.clone(), path.to_owned())
    {
        let message = format!("the app `{app}` is also in {}", show(&first));
        report.errors.push(FileError::whole(name, message, Some("two apps of one environment need two names".into())));
    }
    report.files.push(CheckedFile { path: path.to_owned(), which, app, explained });
}

/// Reads a file as text, within the limit of a document.
pub fn read(path: &Path) -> Result<String, FileError> {
    use std::io::Read;
    let whole = |message: String| FileError::whole(show(path), message, None);
    let opened = fs::File::open(path).map_err(|error| whole(format!("cannot be read: {error}")))?;
    let mut bytes = Vec::new();
    // One byte more than is allowed, for the reader to notice.
    let limit = MAX_DOCUMENT as u64 + 1;
    opened.take(limit).read_to_end(&mut bytes).map_err(|error| whole(format!("cannot be read: {error}")))?;
    decode(&show(path), bytes)
}

/// Bytes of a file as text; an error names the line of the first byte that is none.
pub fn decode(file: &str, bytes: Vec<u8>) -> Result<String, FileError> {
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let before = String::from_utf8_lossy(error.as_bytes().get(..good).unwrap_or_default()).into_owned();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let place = Place { line, column, width: 1, variable: None };
        let hint = Some("save the file as UTF-8".to_owned());
        Source { file, text: &before }.error(&place, "", "this is not UTF-8 text", hint)
    })
}

/// What a file is, by its keys: a manifest has `app`, a configuration has keys that no manifest has.
/// What cannot be told is read as a manifest, whose errors say what one looks like.
fn recognise(text: &str) -> Which {
    let (tree, _) = yaml::parse(&Source { file: "", text });
    let Some(NodeKind::Map(entries)) = tree.map(|tree| tree.kind) else { return Which::Manifest };
    let own = |which: Which, other: Which| {
        let known = |which: Which, name: &str| which.root().table.key(name).is_some();
        entries.iter().filter(|(key, _)| known(which, &key.text) && !known(other, &key.text)).count()
    };
    let manifest = own(Which::Manifest, Which::Config);
    if own(Which::Config, Which::Manifest) > manifest { Which::Config } else { Which::Manifest }
}

fn show(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "web: {main: {command: [./serve]}}";

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a directory");
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
            fs::write(path, text).expect("a file");
        }
        root
    }

    #[test]
    fn a_directory_is_searched_for_manifests() {
        let files = [
            ("apps/shop/landfall.yaml", format!("app: shop\n{GOOD}")),
            ("apps/deep/er/landfall.yaml", format!("app: deep\n{GOOD}")),
            (".git/landfall.yaml", "broken: [".to_owned()),
            ("apps/shop/other.yaml", "broken: [".to_owned()),
        ];
        let root = tree(&files.each_ref().map(|(path, text)| (*path, text.as_str())));
        let report = check(&[root.path().to_owned()], &[]);
        assert!(report.is_good(), "{:?}", report.errors);
        let apps: Vec<_> = report.files.iter().filter_map(|file| file.app.as_deref()).collect();
        assert_eq!(apps, ["deep", "shop"]);
    }

    #[test]
    fn nothing_to_check_is_an_error() {
        let root = tree(&[("readme.txt", "")]);
        let report = check(&[root.path().to_owned()], &[]);
        assert!(report.errors.iter().any(|error| error.message.contains("no manifests found")));
        let report = check(&[root.path().join("missing.yaml")], &[]);
        assert!(report.errors.iter().any(|error| error.message.contains("cannot be read")));
    }

    #[test]
    fn two_apps_of_one_name_are_found() {
        let text = format!("app: shop\n{GOOD}");
        let root = tree(&[("a/landfall.yaml", &text), ("b/landfall.yaml", &text)]);
        let report = check(&[root.path().to_owned()], &[]);
        assert_eq!(report.errors.len(), 1);
        assert!(report.errors[0].message.contains("the app `shop` is also in"), "{:?}", report.errors);
    }

    #[test]
    fn each_file_is_read_as_what_it_is() {
        let manifest = format!("app: shop\n{GOOD}");
        let root = tree(&[("m.yaml", &manifest), ("c.yaml", "environment: main\nsources: []\nruntime: process")]);
        let report = check(&[root.path().join("m.yaml"), root.path().join("c.yaml")], &[]);
        let kinds: Vec<_> = report.files.iter().map(|file| file.which).collect();
        assert_eq!(kinds, [Which::Manifest, Which::Config], "{:?}", report.errors);
        let config = [root.path().join("c.yaml")];
        let env = [("LANDFALL_LIMITS__BUILDS".to_owned(), "many".to_owned())];
        assert_eq!(check(&config, &env).errors.len(), 1);
    }

    #[test]
    fn what_is_not_text_is_refused_with_its_place() {
        let error = decode("x.yaml", b"app: a\nenv: \xff\n".to_vec()).expect_err("no text");
        assert_eq!((error.line, error.column), (2, 6));
    }
}
