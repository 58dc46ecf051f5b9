//! Unix sockets whose paths are longer than the kernel takes.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

/// Longest path the kernel takes in a socket address, without the final zero (unix(7): `sun_path` has 108 bytes).
const UNIX_PATH: usize = 107;

/// Binds to, or connects to, `path` by a name that fits: paths that do not fit into a socket address are reached through
/// their open directory. Fails as `action` does, or when the directory cannot be opened.
pub fn with_short_path<T>(path: &Path, action: impl Fn(&Path) -> io::Result<T>) -> io::Result<T> {
    if path.as_os_str().len() <= UNIX_PATH {
        return action(path);
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let directory = fs::File::open(parent)?;
    action(&Path::new(&format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name))
}
