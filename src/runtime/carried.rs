//! This program within containers, whatever their image holds.
//!
//! A program that is linked statically runs anywhere. One that is not needs its loader and its libraries: those that
//! this process itself runs with are brought along, and the loader is called by its name within. What the program
//! starts there uses the image's own.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The program's name within.
const PROGRAM: &str = "landfall";

/// What must be mounted so that the program runs below `within`: where it lies here, and there.
pub fn mounts(program: &Path, within: &str) -> Vec<(PathBuf, String)> {
    let own = (program.to_owned(), format!("{within}/{PROGRAM}"));
    let libraries = libraries().into_iter().filter_map(|path| {
        let name = looked_for(path.file_name()?.to_str()?).to_owned();
        Some((path, format!("{within}/{name}")))
    });
    std::iter::once(own).chain(libraries).collect()
}

/// How the program is called there.
pub fn command(program: &Path, within: &str) -> Vec<String> {
    let mounted = mounts(program, within);
    let loader = mounted.iter().map(|(_, name)| name).find(|name| is_loader(name));
    match loader {
        Some(loader) => vec![loader.clone(), "--library-path".into(), within.into(), format!("{within}/{PROGRAM}")],
        None => vec![format!("{within}/{PROGRAM}")],
    }
}

/// The name that a loader looks for, `libz.so.1`, of a file that is called `libz.so.1.2.13`.
fn looked_for(file: &str) -> &str {
    let Some(at) = file.find(".so.") else { return file };
    let version = &file[at + 4..];
    let major = version.find('.').unwrap_or(version.len());
    &file[..at + 4 + major]
}

fn is_loader(path: &str) -> bool {
    path.rsplit('/').next().is_some_and(|name| name.starts_with("ld-") || name.starts_with("ld."))
}

/// The shared libraries this process has mapped, its loader among them.
fn libraries() -> BTreeSet<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let mapped = maps.lines().filter_map(|line| line.split_ascii_whitespace().nth(5));
    let is_library = |path: &&str| path.starts_with('/') && path.rsplit('/').next().is_some_and(|n| n.contains(".so"));
    mapped.filter(is_library).map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_there_under_the_name_that_is_looked_for() {
        for (file, name) in [("libz.so.1.2.13", "libz.so.1"), ("libc.so.6", "libc.so.6"), ("ld-musl.so", "ld-musl.so")]
        {
            assert_eq!(looked_for(file), name);
        }
    }

    #[test]
    fn a_program_that_is_linked_dynamically_brings_its_loader() {
        let program = std::env::current_exe().expect("known");
        let command = command(&program, "/landfall/program");
        assert_eq!(command.last().map(String::as_str), Some("/landfall/program/landfall"));
        let names: Vec<String> = mounts(&program, "/landfall/program").into_iter().map(|(_, name)| name).collect();
        assert!(
            command
                .iter()
                .filter(|word| word.starts_with('/') && !word.ends_with("program"))
                .all(|word| names.contains(word))
        );
    }
}
