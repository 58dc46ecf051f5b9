//! The programs that apps are started with: whether they are there, and in which version.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::{Finding, Patient};
use crate::domain::Manifest;
use crate::domain::manifest::Code;
use crate::files::check::MANIFEST_NAME;
use crate::files::read_manifest;

/// A program that takes longer to say its version is broken.
const ANSWER: Duration = Duration::from_secs(5);
/// Manifests lie at most so deep in a release.
const DEPTH: usize = 4;
/// Longest manifest that is read.
const LONGEST: u64 = 1024 * 1024;

/// Programs whose version is worth knowing, and the oldest that will do for Landfall's workers.
const KNOWN: [(&str, Option<(u32, u32)>); 4] =
    [("python3", Some((3, 9))), ("node", Some((18, 0))), ("docker", None), ("git", None)];

pub(super) async fn check(patient: &Patient) -> Vec<Finding> {
    const CHECK: &str = "programs";
    let Some(data_dir) = &patient.data_dir else { return Vec::new() };
    let mut needed: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for manifest in manifests(&data_dir.join("releases")) {
        for program in programs(&manifest) {
            needed.entry(program).or_default().insert(manifest.app.to_string());
        }
    }
    let mut found = Vec::new();
    for (program, apps) in &needed {
        let whom = apps.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        let Some(path) = on_path(program) else {
            found.push(Finding::warning(
                CHECK,
                format!("`{program}` is not in this shell's PATH; it is needed by {whom}"),
                "install it, or check that the agent's own PATH has it",
            ));
            continue;
        };
        let Some((_, least)) = KNOWN.iter().find(|(known, _)| known == program) else { continue };
        found.push(match version_of(&path).await {
            Some(version) => judged(program, &version, *least, &whom),
            None => Finding::warning(
                CHECK,
                format!("{} does not tell its version; it is needed by {whom}", path.display()),
                format!("try `{program} --version`"),
            ),
        });
    }
    if found.is_empty() {
        let words =
            if needed.is_empty() { "no app is laid out yet that needs one" } else { "all that apps name are there" };
        found.push(Finding::ok(CHECK, words));
    }
    found
}

fn judged(program: &str, version: &str, least: Option<(u32, u32)>, whom: &str) -> Finding {
    const CHECK: &str = "programs";
    let old = least.filter(|least| numbers(version).is_some_and(|found| found < *least));
    match old {
        None => Finding::ok(CHECK, format!("{program} {version}, needed by {whom}")),
        Some((major, minor)) => Finding::warning(
            CHECK,
            format!("{program} is {version}, and functions need {major}.{minor} or newer; it is needed by {whom}"),
            format!("install a newer {program}"),
        ),
    }
}

/// The manifests of all apps that are laid out, of each the newest.
fn manifests(releases: &Path) -> Vec<Manifest> {
    let directories = |path: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
    };
    let apps = directories(releases).into_iter().flat_map(|environment| directories(&environment));
    apps.filter_map(|app| {
        let written = |path: &PathBuf| path.metadata().and_then(|about| about.modified()).ok();
        let newest = directories(&app).into_iter().max_by_key(written)?;
        let name = app.file_name()?.to_str()?.to_owned();
        manifest_below(&newest, &name, DEPTH)
    })
    .collect()
}

/// The manifest of this app; what the app includes may have others.
fn manifest_below(directory: &Path, app: &str, depth: usize) -> Option<Manifest> {
    let file = directory.join(MANIFEST_NAME);
    if file.metadata().is_ok_and(|about| about.is_file() && about.len() <= LONGEST) {
        let text = std::fs::read_to_string(&file).ok()?;
        let read = read_manifest(&file.display().to_string(), &text).ok();
        if let Some(manifest) = read.filter(|manifest| manifest.app.as_str() == app) {
            return Some(manifest);
        }
    }
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let below = entries.filter(|entry| depth > 1 && entry.file_type().is_ok_and(|kind| kind.is_dir()));
    below.map(|entry| entry.path()).find_map(|path| manifest_below(&path, app, depth - 1))
}

/// What a manifest names by a word alone: a path lies in the app, or is its author's own business.
fn programs(manifest: &Manifest) -> BTreeSet<String> {
    let build = manifest.build.iter().map(|build| &build.command);
    let web = manifest.web.values().map(|web| &web.command);
    let workers = manifest.workers.values().map(|worker| &worker.command);
    let mut found: BTreeSet<String> =
        build.chain(web).chain(workers).filter_map(|command| command.first().cloned()).collect();
    for function in manifest.functions.values() {
        found.extend(match &function.code {
            Code::Python(_) => Some("python3".to_owned()),
            Code::JavaScript(_) => Some("node".to_owned()),
            Code::Server(command) | Code::Exec(command) => command.first().cloned(),
        });
    }
    found.retain(|program| !program.contains('/') && !program.contains('$'));
    found
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(program)).find(|file| file.is_file())
}

/// The first word with digits and dots of what a program says to `--version`.
async fn version_of(program: &Path) -> Option<String> {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(ANSWER, command.output()).await.ok()?.ok()?;
    version_in(&String::from_utf8_lossy(&output.stdout))
}

fn version_in(text: &str) -> Option<String> {
    let words = text.split_whitespace().map(|word| word.trim_start_matches('v').trim_end_matches(','));
    words.into_iter().find(|word| numbers(word).is_some()).map(str::to_owned)
}

fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_say() {
        let said = [
            "Python 3.13.5\n",
            "v20.19.2\n",
            "git version 2.47.3\n",
            "Docker version 26.1.5+dfsg1, build a72d7cd\n",
            "no",
        ];
        let found = said.map(|text| version_in(text).unwrap_or_default());
        assert_eq!(found, ["3.13.5", "20.19.2", "2.47.3", "26.1.5+dfsg1", ""]);
        assert_eq!(judged("python3", "3.8.1", Some((3, 9)), "shop").level, Level::Warning);
        assert_eq!(judged("python3", "3.13.5", Some((3, 9)), "shop").level, Level::Ok);
        assert_eq!(judged("node", "18.0.0", Some((18, 0)), "shop").level, Level::Ok);
    }

    #[test]
    fn what_apps_need_is_read_from_their_releases() {
        let dir = tempfile::tempdir().unwrap();
        let release = dir.path().join("main/shop/0123/apps/shop");
        std::fs::create_dir_all(&release).unwrap();
        let text = "app: shop\nweb: {main: {command: [gunicorn, app]}}\nworkers: {mail: {command: [./mailer]}}\n\
                    functions: {greet: {handler: \"app.py:greet\"}}\n";
        std::fs::write(release.join(MANIFEST_NAME), text).unwrap();
        let found = manifests(dir.path());
        assert_eq!(found.len(), 1);
        assert_eq!(programs(&found[0]).into_iter().collect::<Vec<_>>(), ["gunicorn", "python3"]);
    }
}
