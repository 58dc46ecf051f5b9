//! Starting processes: instances with their pipes, limits and user, and the agent's own two roles.

use std::ffi::{CString, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::wire::supervisor::{FDS_VARIABLE, Identity as User, StartRequest};

use super::cgroup::Leaf;
use super::family::{self, Identity};
use super::sys::{self, Preparation};

/// Why a process could not be started, in the words of [`crate::wire::supervisor::Reply::Refused`].
#[derive(Debug)]
pub(super) struct Refusal {
    pub code: &'static str,
    pub message: String,
}

impl Refusal {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// A process that was just started, with the ends of its pipes to read from.
#[derive(Debug)]
pub(super) struct Started {
    pub process: Identity,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

/// Starts an instance.
pub(super) fn instance(
    request: &StartRequest,
    temporary: &Path,
    secret_files: Option<&Path>,
    user: Option<&User>,
    cgroup: Option<&Leaf>,
    data_limit: Option<u64>,
) -> Result<Started, Refusal> {
    let Some((program, arguments)) = request.command.split_first().filter(|(program, _)| !program.is_empty()) else {
        return Err(Refusal::new("not_found", "the command is empty; name a program in `command`"));
    };
    if !request.directory.is_dir() {
        let message = format!("working directory {} does not exist or is no directory", request.directory.display());
        return Err(Refusal::new("not_found", message));
    }
    let failed = |error: io::Error| Refusal::new("io", format!("`{program}` cannot be started: {error}"));
    let (stdout, stdout_child) = pipe().map_err(failed)?;
    let (stderr, stderr_child) = pipe().map_err(failed)?;
    let preparation = Preparation {
        keep: Vec::new(),
        cgroups: cgroup.map(Leaf::entries).unwrap_or_default(),
        identity: user.map(credentials).transpose().map_err(failed)?,
        data_limit,
    };
    let mut command = Command::new(program);
    command.args(arguments).current_dir(&request.directory);
    command.env_clear().envs(&request.env);
    command.envs(request.secrets.exposed());
    if let Some(directory) = secret_files {
        command.envs(request.secret_paths.iter().map(|(variable, name)| (variable, directory.join(name))));
    }
    command.env("TMPDIR", temporary);
    command.env(family::INSTANCE_VARIABLE, request.instance.as_str());
    command.env(family::SUPERVISOR_VARIABLE, family::mark(family::own()));
    command.stdin(Stdio::null()).stdout(stdout_child).stderr(stderr_child);
    sys::prepare(&mut command, preparation);
    let child = command.spawn().map_err(|error| explain(request, program, user, &error))?;
    Ok(Started { process: identify(child.id()), stdout, stderr })
}

/// What a process was started with.
#[derive(Debug)]
pub(super) struct Setting {
    /// Its working directory.
    pub directory: PathBuf,
    /// Its environment.
    pub env: Vec<(OsString, OsString)>,
    /// `RLIMIT_DATA` in bytes.
    pub data_limit: Option<u64>,
}

/// Starts the program that runs a command beside an instance, with `connection` as its standard input. It is reaped as
/// an orphan.
pub(super) fn attendant(
    connection: OwnedFd,
    setting: Setting,
    user: Option<&User>,
    cgroups: Vec<OwnedFd>,
) -> io::Result<()> {
    let mut command = Command::new("/proc/self/exe");
    command.args(["internal-attend"]).current_dir(&setting.directory).env_clear().envs(setting.env);
    command.stdin(Stdio::from(connection)).stdout(Stdio::null()).stderr(Stdio::null());
    let identity = user.map(credentials).transpose()?;
    sys::prepare(&mut command, Preparation { keep: Vec::new(), cgroups, identity, data_limit: setting.data_limit });
    command.spawn().map(drop)
}

/// Starts the controller or a proxy. `fds` are the descriptors it inherits, by name.
pub(super) fn role(command: &[OsString], fds: &[(&str, RawFd)], user: Option<&User>) -> io::Result<Identity> {
    let Some((program, arguments)) = command.split_first() else { return Err(io::ErrorKind::InvalidInput.into()) };
    let list: Vec<String> = fds.iter().map(|(name, fd)| format!("{name}={fd}")).collect();
    let mut command = Command::new(program);
    command.args(arguments).env(FDS_VARIABLE, list.join(",")).stdin(Stdio::null());
    if program == "/proc/self/exe"
        && let Some(name) = std::env::args_os().next()
    {
        command.arg0(name);
    }
    if let Some(user) = user {
        command.env("HOME", &user.home).env("USER", &user.name).env("LOGNAME", &user.name);
    }
    let preparation = Preparation {
        keep: fds.iter().map(|(_, fd)| *fd).collect(),
        cgroups: Vec::new(),
        identity: user.map(credentials).transpose()?,
        data_limit: None,
    };
    sys::prepare(&mut command, preparation);
    Ok(identify(command.spawn()?.id()))
}

/// A pipe whose reading end does not block.
pub(super) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((read, write))
}

/// The private temporary directory of an instance, made empty.
pub(super) fn temporary_directory(data_dir: &Path, instance: &str, user: Option<&User>) -> io::Result<PathBuf> {
    let parent = data_dir.join("tmp");
    let path = parent.join(instance);
    if !parent.is_dir() {
        fs::DirBuilder::new().recursive(true).mode(0o711).create(&parent)?;
    }
    if fs::symlink_metadata(&path).is_ok() {
        fs::remove_dir_all(&path)?;
    }
    fs::DirBuilder::new().mode(0o700).create(&path)?;
    if let Some(user) = user {
        std::os::unix::fs::lchown(&path, Some(user.uid), Some(user.gid))?;
    }
    Ok(path)
}

/// Not yet reaped by us, so the number is still its own even if it has ended already.
fn identify(pid: u32) -> Identity {
    let pid = i32::try_from(pid).unwrap_or_default();
    family::stat(pid).map_or(Identity { pid, start_ticks: 0 }, |stat| stat.identity)
}

type Credentials = (Vec<libc::gid_t>, libc::gid_t, libc::uid_t);

fn credentials(user: &User) -> io::Result<Credentials> {
    let name = CString::new(user.name.as_str())?;
    let groups = nix::unistd::getgrouplist(&name, user.gid.into())?;
    Ok((groups.into_iter().map(nix::unistd::Gid::as_raw).collect(), user.gid, user.uid))
}

/// Says what an errno from `execve` means for this command.
fn explain(request: &StartRequest, program: &str, user: Option<&User>, error: &io::Error) -> Refusal {
    let found = locate(request, program);
    let as_user = user.map(|user| format!(" for user `{}`", user.name)).unwrap_or_default();
    match (error.kind(), found) {
        (io::ErrorKind::NotFound, None) if program.contains('/') => {
            let message = format!(
                "program `{program}` does not exist in {}; correct `command`, or add the file",
                request.directory.display()
            );
            Refusal::new("not_found", message)
        }
        (io::ErrorKind::NotFound, None) => {
            let path = request.env.get("PATH").map_or("(unset)", String::as_str);
            let message = format!("program `{program}` was not found in PATH ({path}); install it or name its path");
            Refusal::new("not_found", message)
        }
        (io::ErrorKind::NotFound, Some(path)) => {
            let interpreter = interpreter(&path).map_or_else(
                || "its program loader or a library directory does not exist here".to_owned(),
                |name| format!("its first line asks for `{name}`, which does not exist"),
            );
            Refusal::new("not_found", format!("program {} cannot be started: {interpreter}", path.display()))
        }
        (io::ErrorKind::PermissionDenied, found) => {
            let path = found.unwrap_or_else(|| PathBuf::from(program));
            let executable = fs::metadata(&path).is_ok_and(|meta| meta.permissions().mode() & 0o111 != 0);
            let mend = if executable { "check the directories above it and noexec mounts" } else { "chmod +x it" };
            let message = format!("program {} must not be executed{as_user}; {mend}", path.display());
            Refusal::new("not_permitted", message)
        }
        (io::ErrorKind::ArgumentListTooLong, _) => {
            Refusal::new("io", format!("`{program}` cannot be started: arguments and environment are too long"))
        }
        _ => Refusal::new("io", format!("`{program}` cannot be started{as_user}: {error}")),
    }
}

/// The file a command means, if it exists.
fn locate(request: &StartRequest, program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(request.directory.join(program)).filter(|path| path.exists());
    }
    let path = request.env.get("PATH")?;
    std::env::split_paths(path).map(|part| request.directory.join(part).join(program)).find(|path| path.is_file())
}

/// What a script's `#!` line asks for.
fn interpreter(path: &Path) -> Option<String> {
    use std::io::Read;
    let mut start = Vec::new();
    fs::File::open(path).ok()?.take(256).read_to_end(&mut start).ok()?;
    let line = start.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let line = String::from_utf8_lossy(line);
    line.split_whitespace().next().map(str::to_owned)
}

/// The number of a descriptor, for one that is inherited.
pub(super) fn raw(fd: &OwnedFd) -> RawFd {
    fd.as_raw_fd()
}
