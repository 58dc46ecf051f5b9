//! A program beside an instance that runs a command there (`exec/attend.rs` is that program).
//!
//! It is given what the instance was given: user, limits, group of limits, first environment with its secrets, working
//! directory. All of it is read off the instance's first process, because the supervisor keeps none of it. The program
//! carries the instance's name in its environment and so belongs to it: it ends with the instance at the latest, and is
//! reaped like anything else that an instance leaves behind.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::domain::InstanceId;
use crate::short_path::with_short_path;

use super::cgroup::Leaf;
use super::child::Stage;
use super::requests::unknown;
use super::root::Root;
use super::spawn::{self, Refusal, Setting};

impl Root {
    /// Starts one for whoever listens on `socket`.
    pub(super) fn attend(&mut self, instance: &InstanceId, socket: &Path) -> Result<(), Refusal> {
        self.while_running()?;
        let child = self.children.get(instance).ok_or_else(|| unknown(instance))?;
        if child.stage != Stage::Running {
            let message = format!("instance {instance} is ending; `landfall instance list` shows those that run");
            return Err(Refusal::new("running", message));
        }
        let failed = |error: io::Error| Refusal::new("io", format!("nothing can be run in {instance}: {error}"));
        let connection = with_short_path(socket, |short| UnixStream::connect(short)).map_err(failed)?;
        let setting = setting(child.process.pid).map_err(failed)?;
        let cgroups = child.cgroup.as_ref().map(Leaf::entries).unwrap_or_default();
        spawn::attendant(OwnedFd::from(connection), setting, self.apps_user(), cgroups).map_err(failed)
    }
}

/// What a process was started with, as the kernel tells it.
fn setting(pid: i32) -> io::Result<Setting> {
    let of = |name: &str| PathBuf::from(format!("/proc/{pid}/{name}"));
    let limits = fs::read_to_string(of("limits"))?;
    Ok(Setting {
        directory: fs::read_link(of("cwd"))?,
        env: variables(&fs::read(of("environ"))?),
        data_limit: data_limit(&limits),
    })
}

/// Whoever writes over its own environment, to be listed under another name, leaves something else there.
fn variables(environ: &[u8]) -> Vec<(OsString, OsString)> {
    let entries = environ.split(|byte| *byte == 0);
    let pairs = entries.filter_map(|entry| {
        let at = entry.iter().position(|byte| *byte == b'=').filter(|at| *at > 0)?;
        Some((entry.get(..at)?.to_vec(), entry.get(at + 1..)?.to_vec()))
    });
    pairs.map(|(name, value)| (OsString::from_vec(name), OsString::from_vec(value))).collect()
}

/// `RLIMIT_DATA` out of `/proc/<pid>/limits`; `None` for no limit.
fn data_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max data size"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_process_was_started_with_is_found() {
        let found = setting(std::process::id().cast_signed()).expect("is readable");
        assert_eq!(found.directory, std::env::current_dir().expect("a directory"));
        let path = found.env.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.clone());
        assert_eq!(path, std::env::var_os("PATH"));
    }

    #[test]
    fn variables_and_limits_are_read_as_the_kernel_writes_them() {
        let found = variables(b"A=1\0B=x=y\0\0=C\0D\0E=\0");
        let found: Vec<_> = found.iter().map(|(name, value)| (name.to_str(), value.to_str())).collect();
        assert_eq!(found, [(Some("A"), Some("1")), (Some("B"), Some("x=y")), (Some("E"), Some(""))]);
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max cpu time              unlimited            unlimited            seconds   \n\
                      Max data size             67108864             67108864             bytes     \n";
        assert_eq!(data_limit(limits), Some(64 * 1024 * 1024));
        assert_eq!(data_limit(&limits.replace("67108864", "unlimited")), None);
    }
}
