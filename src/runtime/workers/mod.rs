//! The workers that run handlers: small HTTP servers in the handler's own language, kept inside this program.
//!
//! Written once to `<data_dir>/workers/<hash>/`, where instances of every user may read them. The hash is over their
//! text: an upgraded agent writes new ones beside the old, which instances may still be reading. Invariant: a directory
//! with its final name is complete.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::domain::hex;

/// The worker for Python handlers.
pub const PYTHON: &str = "worker.py";
/// The worker for JavaScript handlers.
pub const JAVASCRIPT: &str = "worker.mjs";

const FILES: [(&str, &str); 2] = [(PYTHON, include_str!("worker.py")), (JAVASCRIPT, include_str!("worker.mjs"))];

/// Makes sure that the workers of this program lie below `data_dir`; answers in which directory.
pub fn lay_out(data_dir: &Path) -> io::Result<PathBuf> {
    let all = data_dir.join("workers");
    let place = all.join(identity());
    if place.is_dir() {
        return Ok(place);
    }
    DirBuilder::new().recursive(true).mode(0o755).create(&all)?;
    fs::set_permissions(&all, Permissions::from_mode(0o755))?;
    let temporary = tempfile::Builder::new().prefix(".new-").tempdir_in(&all)?;
    for (name, text) in FILES {
        let path = temporary.path().join(name);
        let mut file = File::create(&path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::set_permissions(&path, Permissions::from_mode(0o644))?;
    }
    fs::set_permissions(temporary.path(), Permissions::from_mode(0o755))?;
    fs::rename(temporary.keep(), &place)?;
    File::open(&all)?.sync_all()?;
    Ok(place)
}

/// The first 16 digits of a hash over all files.
fn identity() -> String {
    let mut hash = Sha256::new();
    for (name, text) in FILES {
        hash.update(name);
        hash.update(text);
    }
    hex::encode(&hash.finalize()[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_laid_out_once_and_readable_by_every_user() {
        let data = tempfile::tempdir().expect("a directory");
        let place = lay_out(data.path()).expect("laid out");
        assert_eq!(lay_out(data.path()).expect("there already"), place);
        for (name, text) in FILES {
            assert_eq!(fs::read_to_string(place.join(name)).expect("a file"), text);
        }
        assert_eq!(fs::metadata(&place).expect("there").permissions().mode() & 0o777, 0o755);
        assert_eq!(fs::read_dir(data.path().join("workers")).expect("readable").count(), 1);
    }
}
