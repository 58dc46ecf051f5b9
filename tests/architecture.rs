//! The floors of the house: imports only go down, and modules of one floor do not know each other.
//!
//! Reads the sources themselves, so that a new module that nobody placed on a floor fails as well.

#![allow(clippy::expect_used)] // A test may end at the first thing that is not as it must be.

use std::fs;
use std::path::{Path, PathBuf};

/// Every module of the crate with its floor, as in `src/lib.rs`.
const FLOORS: [(&str, u8); 26] = [
    ("domain", 0),
    ("boot", 0),
    ("linger", 0),
    ("secret_files", 0),
    ("short_path", 0),
    ("tls", 0),
    ("whole", 0),
    ("zones", 0),
    ("decide", 1),
    ("files", 1),
    ("wire", 1),
    ("source", 2),
    ("ledger", 2),
    ("store", 2),
    ("runtime", 2),
    ("secrets", 2),
    ("supervisor", 2),
    ("proxy", 2),
    ("notify", 2),
    ("client", 2),
    ("exec", 2),
    ("engine", 3),
    ("api", 4),
    ("controller", 5),
    ("cli", 5),
    ("main", 6),
];

/// What the supervisor may use of the house, although more lies below it: it must stay without YAML and decisions.
const SUPERVISOR_USES: [&str; 6] = ["supervisor", "wire", "domain", "boot", "secret_files", "short_path"];

/// Longest file, in lines. Longer ones hold more than one thought.
const MAX_LINES: usize = 600;

fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    let mut directories = vec![root.clone()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("a readable directory").flatten() {
            let path = entry.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a readable file");
                files.push((path.strip_prefix(&root).expect("below src").to_owned(), text));
            }
        }
    }
    files.sort();
    assert!(files.len() > 10, "the sources were not found");
    files
}

/// The module a file belongs to: the first directory, or the name of a file at the top.
fn module_of(path: &Path) -> String {
    let first = path.iter().next().map(|part| part.to_string_lossy().into_owned()).unwrap_or_default();
    first.trim_end_matches(".rs").to_owned()
}

fn floor(module: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == module).map(|(_, floor)| *floor)
}

/// The text without comments, so that words about a module are not taken for a use of it.
fn code(text: &str) -> String {
    let without = |line: &str| line.split("//").next().unwrap_or_default().to_owned();
    text.lines().map(without).collect::<Vec<_>>().join("\n")
}

/// Every module named after `crate::` or, in the binary, `landfall::`, groups (`crate::{a::X, b}`) included.
fn uses(code: &str, root: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices(root) {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at + root.len()..];
        match rest.strip_prefix('{') {
            Some(group) => found.extend(group_members(group)),
            None => found.push(identifier(rest)),
        }
    }
    found
}

/// The first names of the outermost members of `a::X, b::{c, d}}`.
fn group_members(group: &str) -> Vec<String> {
    let mut depth = 0;
    let mut members = vec![String::new()];
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => members.push(String::new()),
            c => members.last_mut().expect("never empty").push(c),
        }
    }
    members.iter().map(|member| identifier(member.trim_start())).filter(|name| !name.is_empty()).collect()
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// What is wrong with one use, if anything.
fn refusal(user: &str, used: &str) -> Option<String> {
    let (from, to) = (floor(user)?, floor(used)?);
    if user == used {
        return None;
    }
    if to > from {
        return Some(format!("{user} (floor {from}) climbs to {used} (floor {to})"));
    }
    if to == from {
        return Some(format!("{user} and {used} are on the same floor {from} and must not know each other"));
    }
    (user == "supervisor" && !SUPERVISOR_USES.contains(&used))
        .then(|| format!("supervisor uses {used}; it may only use {SUPERVISOR_USES:?}"))
}

#[test]
fn every_module_has_a_floor() {
    for (path, _) in sources() {
        let module = module_of(&path);
        assert!(module == "lib" || floor(&module).is_some(), "src/{}: `{module}` is on no floor", path.display());
    }
}

#[test]
fn imports_only_go_down() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let module = module_of(&path);
        let root = if module == "main" { "landfall::" } else { "crate::" };
        for used in uses(&code(&text), root) {
            wrong.extend(refusal(&module, &used).map(|reason| format!("src/{}: {reason}", path.display())));
        }
    }
    wrong.dedup();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent: Vec<_> =
        sources().into_iter().filter(|(_, text)| !text.trim_start().starts_with("//!")).map(|(path, _)| path).collect();
    assert!(silent.is_empty(), "without module documentation: {silent:?}");
}

#[test]
fn no_file_is_too_long_to_read() {
    let long: Vec<_> = sources()
        .into_iter()
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > MAX_LINES)
        .collect();
    assert!(long.is_empty(), "longer than {MAX_LINES} lines: {long:?}");
}

#[test]
fn a_climbing_import_is_seen_however_it_is_written() {
    let text = "use crate::{domain::{AppKey, id}, engine};\nfn f() { crate::api::go(); } // crate::cli";
    let found = uses(&code(text), "crate::");
    assert_eq!(found, ["domain", "engine", "api"]);
    assert!(refusal("ledger", "engine").is_some_and(|reason| reason.contains("climbs")));
    assert!(refusal("files", "wire").is_some_and(|reason| reason.contains("same floor")));
    assert!(refusal("supervisor", "files").is_some());
    assert_eq!(refusal("engine", "ledger"), None);
}
