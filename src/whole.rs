//! Files that are there whole or not at all, whenever a process or the machine stops.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

/// Writes a file: under the name `temporary` in the same directory, on disk, renamed, and the renaming on disk too. After an
/// error nothing is left of the temporary one. Blocking.
pub fn write(path: &Path, temporary: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let written = (|| {
        let mut file = File::create(temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(temporary, path)?;
        File::open(directory)?.sync_all()
    })();
    if written.is_err() {
        let _ = fs::remove_file(temporary);
    }
    written
}
