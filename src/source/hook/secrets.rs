//! The secrets of a source's hooks: one or two files, read for every hook, so that a rotation needs no restart.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Longest secret.
pub(super) const MAX_SECRET: usize = 4096;

/// The secrets that hooks of a source may be signed with.
pub struct Secrets {
    /// Always two, so that it cannot be seen from outside whether a second one is there.
    both: [Vec<u8>; 2],
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Why there are no secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the hooks' secret file {file} {why}")]
pub struct SecretTrouble {
    /// Which.
    pub file: String,
    /// What is wrong with it.
    pub why: String,
}

impl Secrets {
    /// From texts; a second one is optional.
    pub fn new(first: &[u8], second: Option<&[u8]>) -> Self {
        Self { both: [first.to_vec(), second.unwrap_or(first).to_vec()] }
    }

    /// What hooks of sources that take none are compared with. It is no secret: whoever uses it must refuse all.
    pub fn nobodys() -> Self {
        Self::new(&[0; 32], None)
    }

    /// Reads the files. While a secret is rotated one of two may be missing; what is wrong with it is answered beside.
    pub fn read(files: &[PathBuf]) -> (Option<Self>, Vec<SecretTrouble>) {
        let (mut found, mut troubles) = (Vec::new(), Vec::new());
        for file in files {
            match read(file) {
                Ok(secret) => found.push(secret),
                Err(why) => troubles.push(SecretTrouble { file: file.display().to_string(), why }),
            }
        }
        let secrets = found.first().map(|first| Self::new(first, found.get(1).map(Vec::as_slice)));
        (secrets, troubles)
    }

    pub(super) fn each(&self) -> impl Iterator<Item = &[u8]> {
        self.both.iter().map(Vec::as_slice)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("cannot be read: {error}");
    // Opening a pipe would wait for somebody to write into it.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err("is not a file".to_owned());
    }
    let mut secret = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_SECRET as u64 + 2).read_to_end(&mut secret)).map_err(failed)?;
    // Editors and `echo` end a line; forges are given the line.
    while matches!(secret.last(), Some(b'\n' | b'\r')) {
        secret.pop();
    }
    match secret.len() {
        0 => Err("is empty".to_owned()),
        1..=MAX_SECRET => Ok(secret),
        _ => Err(format!("is longer than {MAX_SECRET} bytes")),
    }
}
