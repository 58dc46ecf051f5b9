//! Files that are there whole or not at all, whenever a process or the machine stops.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Writes a file: under the name `temporary` in the same directory, on disk, renamed, and the renaming on disk too. After an
/// error nothing is left of the temporary one. Blocking.
pub fn write(path: &Path, temporary: &Path, bytes: &[u8]) -> io::Result<()> {
    write_as(path, temporary, 0o666, bytes)
}

/// The same for what nobody but the user of this process may read.
pub fn write_private(path: &Path, temporary: &Path, bytes: &[u8]) -> io::Result<()> {
    // One that a crash left behind may have been made with other rights.
    let _ = fs::remove_file(temporary);
    write_as(path, temporary, 0o600, bytes)
}

fn write_as(path: &Path, temporary: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let written = (|| {
        let mut file = File::options().write(true).create(true).truncate(true).mode(mode).open(temporary)?;
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
