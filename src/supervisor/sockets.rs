//! The listening sockets. Bound once, before anything is started, and open for as long as the agent
//! lives, so that connections wait in the backlog while a proxy or controller is replaced.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::socket::{Backlog, listen};

use crate::short_path::with_short_path;
use crate::wire::supervisor::{Identity, Plan};

use super::SupervisorError;

/// Connections that may wait; the kernel lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// All of them.
#[derive(Debug)]
pub(super) struct Sockets {
    pub web: Vec<(SocketAddr, OwnedFd)>,
    pub api_unix: (PathBuf, OwnedFd),
    pub api_tcp: Option<(SocketAddr, OwnedFd)>,
    pub control: (PathBuf, OwnedFd),
    pub calls: (PathBuf, OwnedFd),
}

impl Sockets {
    /// Binds everything the plan names.
    pub(super) fn bind(plan: &Plan) -> Result<Self, SupervisorError> {
        let owner = plan.users.as_ref().map(|users| &users.agent);
        let mut web = Vec::new();
        for (address, key) in plan.web() {
            web.push((address, bind_tcp(address, key)?));
        }
        let api_tcp = match plan.api_listen {
            Some(address) => Some((address, bind_tcp(address, "api.listen")?)),
            None => None,
        };
        let control = plan.control_socket();
        Ok(Self {
            web,
            api_tcp,
            api_unix: (plan.api_socket.clone(), bind_unix(&plan.api_socket, owner)?),
            control: (control.clone(), bind_unix(&control, owner)?),
            calls: Self::bind_calls(plan)?,
        })
    }

    /// Binds the socket for calls of functions.
    pub(super) fn bind_calls(plan: &Plan) -> Result<(PathBuf, OwnedFd), SupervisorError> {
        let path = plan.calls_socket();
        let fd = bind_unix(&path, plan.users.as_ref().map(|users| &users.agent))?;
        Ok((path, fd))
    }

    /// The sockets for the plan's web addresses: those already open, and new ones. Nothing changes when one cannot be bound.
    pub(super) fn rebind_web(&mut self, plan: &Plan) -> Result<(), SupervisorError> {
        let is_open = |address: &SocketAddr| self.web.iter().any(|(open, _)| open == address);
        let mut added = Vec::new();
        for (address, key) in plan.web().filter(|(address, _)| !is_open(address)) {
            added.push((address, bind_tcp(address, key)?));
        }
        self.web.retain(|(open, _)| plan.web().any(|(address, _)| address == *open));
        self.web.extend(added);
        Ok(())
    }

    /// Removes the files of the Unix sockets.
    pub(super) fn remove_files(&self) {
        let _ = fs::remove_file(&self.api_unix.0);
        let _ = fs::remove_file(&self.control.0);
        let _ = fs::remove_file(&self.calls.0);
    }
}

pub(super) fn bind_tcp(address: SocketAddr, key: &'static str) -> Result<OwnedFd, SupervisorError> {
    listen_tcp(address).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => SupervisorError::AddressInUse { address, key },
        io::ErrorKind::PermissionDenied => SupervisorError::AddressNotPermitted { address, key },
        _ => SupervisorError::Bind { what: address.to_string(), key, error },
    })
}

fn listen_tcp(address: SocketAddr) -> io::Result<OwnedFd> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    // Again, for a longer queue than the standard library asks for.
    listen(&listener, Backlog::new(BACKLOG).unwrap_or(Backlog::MAXCONN))?;
    Ok(listener.into())
}

/// The address a listening socket has: the kernel's choice where port 0 was asked for.
pub(super) fn local_address(fd: &OwnedFd) -> Option<SocketAddr> {
    TcpListener::from(fd.as_fd().try_clone_to_owned().ok()?).local_addr().ok()
}

fn bind_unix(path: &Path, owner: Option<&Identity>) -> Result<OwnedFd, SupervisorError> {
    let failed = |error| SupervisorError::Bind { what: path.display().to_string(), key: "api.socket", error };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    remove_stale(path)?;
    let listener = with_short_path(path, |short| UnixListener::bind(short)).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let mode = if owner.is_some() { 0o660 } else { 0o600 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed)?;
    if let Some(owner) = owner {
        std::os::unix::fs::lchown(path, Some(owner.uid), Some(owner.gid)).map_err(failed)?;
    }
    Ok(listener.into())
}

/// Removes a socket file nobody listens on any more.
fn remove_stale(path: &Path) -> Result<(), SupervisorError> {
    let Ok(meta) = fs::symlink_metadata(path) else { return Ok(()) };
    if !meta.file_type().is_socket() {
        return Err(SupervisorError::NotASocket { path: path.to_owned() });
    }
    match with_short_path(path, |short| UnixStream::connect(short)) {
        Ok(_) => Err(SupervisorError::SocketInUse { path: path.to_owned() }),
        Err(_) => fs::remove_file(path).map_err(|error| SupervisorError::Bind {
            what: path.display().to_string(),
            key: "api.socket",
            error,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_port_is_named_with_the_key_to_change() {
        let first = TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = first.local_addr().expect("has one");
        let error = bind_tcp(address, "proxy.listen").expect_err("is busy");
        let text = error.to_string();
        assert!(
            text.contains(&address.to_string()) && text.contains("in use") && text.contains("proxy.listen"),
            "{text}"
        );
    }

    #[test]
    fn a_socket_path_may_be_longer_than_the_kernel_takes() {
        let directory = tempfile::tempdir().expect("a directory");
        let deep = directory.path().join("d".repeat(100));
        let path = deep.join("api.sock");
        let first = bind_unix(&path, None).expect("binds");
        assert!(matches!(bind_unix(&path, None), Err(SupervisorError::SocketInUse { .. })), "it answers");
        drop(first);
        bind_unix(&path, None).expect("a stale file is replaced");
    }

    #[test]
    fn a_file_in_the_place_of_a_socket_is_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("api.sock");
        fs::write(&path, "precious").expect("written");
        assert!(matches!(bind_unix(&path, None), Err(SupervisorError::NotASocket { .. })));
        assert_eq!(fs::read_to_string(&path).expect("reads"), "precious");
    }
}
