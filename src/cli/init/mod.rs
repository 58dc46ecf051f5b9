//! `landfall init`: manifests out of a Compose file or a Procfile, and what could not be translated, line by line.
//!
//! Needs no agent. Invariant: what is written loads; where it does not, the mistakes are printed with it and the exit code says so.
//!
//! | file | what |
//! |---|---|
//! | `compose` | services → apps |
//! | `service`, `health` | one service, key by key |
//! | `untold` | what has no counterpart, and why |
//! | `procfile` | lines of a Procfile → one app |
//! | `words` | command lines, variables, names |
//! | `yaml_out` | manifests as text |

mod compose;
mod health;
mod procfile;
mod service;
#[cfg(test)]
mod tests;
mod untold;
mod words;
mod yaml_out;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use crate::files::{self, FileErrors};

use super::exit::{CliError, Exit, Outcome};
use super::terminal;
use service::{Note, assignments};
use yaml_out::Map;

/// What an app's manifest is called.
const MANIFEST: &str = "landfall.yaml";
/// What is looked for, in this order.
const USUAL: [&str; 5] = ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml", "Procfile"];
/// Longest file that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// Options of `landfall init`.
#[derive(Debug, Clone, Args)]
pub struct InitArgs {
    /// A Compose file or a Procfile [default: the one in this directory]
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Print the manifests instead of writing them
    #[arg(long)]
    print: bool,
    /// Replace manifests that are there
    #[arg(long, conflicts_with = "print")]
    force: bool,
}

/// A manifest to be written.
#[derive(Debug)]
struct Draft {
    /// The app's directory, from that of the file.
    directory: PathBuf,
    app: String,
    manifest: Map,
    /// The services or processes it is made of.
    from: Vec<String>,
}

/// What became of a file.
#[derive(Debug)]
struct Translation {
    drafts: Vec<Draft>,
    notes: Vec<Note>,
}

/// A manifest as text, and whether it loads.
struct Written {
    path: PathBuf,
    app: String,
    from: Vec<String>,
    text: String,
    errors: Option<FileErrors>,
}

/// Translates a file; says what it could not.
pub fn run(args: &InitArgs, json: bool) -> Outcome {
    let file = match &args.from {
        Some(file) => file.clone(),
        None => usual()?,
    };
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let translation = translate(&file, directory)?;
    let written: Vec<Written> = translation.drafts.into_iter().map(|draft| written(directory, draft)).collect();
    if !args.print {
        write(&written, args.force)?;
    }
    if json {
        terminal::json(&json_of(&written, &translation.notes))?;
    } else {
        report(&file, &written, &translation.notes, args.print)?;
    }
    Ok(if written.iter().all(|manifest| manifest.errors.is_none()) { Exit::Ok } else { Exit::Failed })
}

fn usual() -> Result<PathBuf, CliError> {
    USUAL.iter().map(PathBuf::from).find(|file| file.is_file()).ok_or_else(|| {
        CliError::hinted(
            Exit::Usage,
            format!("there is none of {} here", USUAL.join(", ")),
            "name the file with --from; how a manifest is written from nothing is in docs/manifest.md",
        )
    })
}

fn translate(file: &Path, directory: &Path) -> Result<Translation, CliError> {
    let text = read(file).map_err(|error| {
        CliError::hinted(
            Exit::Usage,
            format!("{}: {error}", file.display()),
            "name a Compose file or a Procfile with --from",
        )
    })?;
    let project =
        std::path::absolute(directory).ok().and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    let project = project.unwrap_or_default();
    if file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("Procfile")) {
        return Ok(procfile::translate(&text, &project, &|name| directory.join(name).is_file()));
    }
    let values: BTreeMap<String, String> = read(&directory.join(".env")).map_or_else(
        |_| BTreeMap::new(),
        |text| assignments(&text).map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
    );
    let around =
        compose::Around { project: &project, values: &values, beside: &|name| read(&directory.join(name)).ok() };
    compose::translate(&file.display().to_string(), &text, &around).map_err(|errors| {
        let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
        CliError::new(Exit::Usage, all.join("\n"))
    })
}

/// The text of a file that people write.
fn read(path: &Path) -> io::Result<String> {
    let about = std::fs::metadata(path)?;
    if !about.is_file() || about.len() > MAX_FILE {
        return Err(io::Error::other("not a file of at most 1 MiB"));
    }
    std::fs::read_to_string(path)
}

fn written(directory: &Path, draft: Draft) -> Written {
    let path = directory.join(draft.directory).join(MANIFEST);
    let text = draft.manifest.written();
    let errors = files::read_manifest(&path.display().to_string(), &text).err();
    Written { path, app: draft.app, from: draft.from, text, errors }
}

/// Writes all or, where one is there already, none.
fn write(all: &[Written], force: bool) -> Result<(), CliError> {
    let there: Vec<String> = all
        .iter()
        .filter(|written| !force && written.path.exists())
        .map(|written| written.path.display().to_string())
        .collect();
    if !there.is_empty() {
        return Err(CliError::hinted(
            Exit::Conflict,
            format!("there is already {}", there.join(", ")),
            "--print shows what would be written, --force replaces what is there",
        ));
    }
    for written in all {
        let failed = |error: io::Error| CliError::new(Exit::Failed, format!("{}: {error}", written.path.display()));
        let directory = written.path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(directory).map_err(failed)?;
        let mut file = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
        let usual = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        file.as_file().set_permissions(usual).map_err(failed)?;
        file.write_all(written.text.as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
        file.persist(&written.path).map_err(|error| failed(error.error))?;
    }
    Ok(())
}

fn report(file: &Path, all: &[Written], notes: &[Note], print: bool) -> Result<(), CliError> {
    for written in all {
        let path = written.path.display();
        if print {
            terminal::line(format!("# {path}\n{}", written.text))?;
        } else {
            terminal::line(format!("wrote {path}: app {} of {}", written.app, written.from.join(", ")))?;
        }
    }
    for note in notes {
        let place =
            if note.line == 0 { file.display().to_string() } else { format!("{}:{}", file.display(), note.line) };
        let key = if note.key.is_empty() { String::new() } else { format!("{}: ", note.key) };
        terminal::line(format!("{place}: {key}{}", note.text))?;
    }
    for error in all.iter().filter_map(|written| written.errors.as_ref()).flat_map(FileErrors::iter) {
        terminal::line(error.to_string())?;
    }
    Ok(())
}

#[derive(Debug, Serialize)]
struct JsonReport<'a> {
    manifests: Vec<JsonManifest<'a>>,
    notes: Vec<JsonNote<'a>>,
}

#[derive(Debug, Serialize)]
struct JsonManifest<'a> {
    file: String,
    app: &'a str,
    from: &'a [String],
    manifest: &'a str,
    errors: Vec<String>,
}

#[derive(Debug, Serialize)]
struct JsonNote<'a> {
    line: usize,
    key: &'a str,
    text: &'a str,
}

fn json_of<'a>(all: &'a [Written], notes: &'a [Note]) -> JsonReport<'a> {
    let manifest = |written: &'a Written| JsonManifest {
        file: written.path.display().to_string(),
        app: &written.app,
        from: &written.from,
        manifest: &written.text,
        errors: written.errors.iter().flat_map(FileErrors::iter).map(ToString::to_string).collect(),
    };
    JsonReport {
        manifests: all.iter().map(manifest).collect(),
        notes: notes.iter().map(|note| JsonNote { line: note.line, key: &note.key, text: &note.text }).collect(),
    }
}
