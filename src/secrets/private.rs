//! Reading files that hold keys.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The text of a file that is no secret of everybody's. An error goes on after the file's name, and says the mend. Blocking.
pub(super) fn read(path: &Path, longest: u64) -> Result<String, String> {
    let unreadable = |error: std::io::Error| format!("cannot be read: {error}");
    let about = fs::metadata(path).map_err(unreadable)?;
    if !about.is_file() {
        return Err("is not a file".to_owned());
    }
    if about.permissions().mode() & 0o007 != 0 {
        return Err(
            "can be read by everybody on this machine; say `chmod 600` to it, and renew what it holds".to_owned()
        );
    }
    if about.len() > longest {
        return Err("is too long to be one".to_owned());
    }
    fs::read_to_string(path).map_err(unreadable)
}
