//! What the supervisor must ask of the kernel that has no safe wrapper: the steps of a child between
//! `fork` and `exec`, process descriptors, and taking over descriptors that were inherited by number.
//!
//! Everything here is small on purpose; the rest of the supervisor is safe Rust.

#![allow(unsafe_code)]

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::errno::Errno;

/// What a child does to itself between `fork` and `exec`. All of it is prepared before the fork, because
/// afterwards only async-signal-safe calls are allowed: no allocation, no locks.
#[derive(Debug, Default)]
pub(super) struct Preparation {
    /// Descriptors that stay open; all others above 2 are closed.
    pub keep: Vec<RawFd>,
    /// Open `cgroup.procs` files of the groups to join.
    pub cgroups: Vec<OwnedFd>,
    /// Groups, primary group and user to become.
    pub identity: Option<(Vec<libc::gid_t>, libc::gid_t, libc::uid_t)>,
    /// `RLIMIT_DATA` in bytes.
    pub data_limit: Option<u64>,
}

/// Makes `command` prepare itself so when it is spawned.
pub(super) fn prepare(command: &mut Command, preparation: Preparation) {
    let parent = nix::unistd::getpid().as_raw();
    // SAFETY: the closure runs in the forked child and calls only async-signal-safe functions
    // (raw system calls and libc's thin wrappers); it touches no memory but its own captured, already
    // allocated values.
    unsafe {
        command.pre_exec(move || preparation.apply(parent));
    }
}

impl Preparation {
    fn apply(&self, parent: libc::pid_t) -> io::Result<()> {
        // SAFETY: plain system calls on values owned by `self`; every pointer outlives its call.
        unsafe {
            for cgroup in &self.cgroups {
                // A limit that cannot be set must not keep an app from running.
                let _ = libc::write(cgroup.as_raw_fd(), c"0".as_ptr().cast(), 1);
            }
            check(libc::setsid())?;
            libc::umask(0o022);
            reset_signals();
            set_limits(self.data_limit);
            if let Some((groups, gid, uid)) = &self.identity {
                check(libc::setgroups(groups.len(), groups.as_ptr()))?;
                check(libc::setgid(*gid))?;
                check(libc::setuid(*uid))?;
            }
            check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
            // After the change of user, which clears it.
            check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0))?;
            if libc::getppid() != parent {
                // The supervisor died before the line above could take effect.
                return Err(Errno::ESRCH.into());
            }
            // Marks instead of closing: the pipe that reports a failed exec must live until the exec.
            // Every descriptor of the supervisor is marked already; this is for those it was started with.
            let _ = libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
            for fd in &self.keep {
                check(libc::fcntl(*fd, libc::F_SETFD, 0))?;
            }
        }
        Ok(())
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// # Safety
/// Only between `fork` and `exec`.
unsafe fn reset_signals() {
    // The kernel's `struct sigaction` with room to spare: all zero means SIG_DFL, no flags, nothing blocked.
    let default = [0_u64; 8];
    // SAFETY: `rt_sigaction` reads at most that structure, and `sigprocmask` a set on this stack. The raw call
    // also reaches signals 32 and 33, which libc keeps for itself but a parent may have left ignored.
    unsafe {
        let no_old = std::ptr::null_mut::<libc::c_void>();
        for number in 1..=64 {
            libc::syscall(libc::SYS_rt_sigaction, number, default.as_ptr(), no_old, 8_usize);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// # Safety
/// Only between `fork` and `exec`.
unsafe fn set_limits(data: Option<u64>) {
    // SAFETY: `getrlimit` and `setrlimit` are plain system calls; the structures live on this stack.
    unsafe {
        let mut files = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut files) == 0 {
            files.rlim_cur = files.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const files);
        }
        let no_core = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        libc::setrlimit(libc::RLIMIT_CORE, &raw const no_core);
        if let Some(bytes) = data {
            let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
            libc::setrlimit(libc::RLIMIT_DATA, &raw const limit);
        }
    }
}

/// Ends of children are reported again, even if whoever started this program ignored them: that is inherited.
pub(super) fn hear_of_children() {
    // SAFETY: the default disposition runs no code of ours.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// A descriptor for a process: signals sent through it cannot reach another process of the same number.
pub(super) fn pidfd_open(pid: i32) -> nix::Result<OwnedFd> {
    // SAFETY: no pointers; a returned descriptor is new and ours.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        let fd = RawFd::try_from(Errno::result(fd)?).map_err(|_| Errno::EBADF)?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Sends a signal to the process behind `pidfd`.
pub(super) fn pidfd_signal(pidfd: &OwnedFd, signal: i32) -> nix::Result<()> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo asks the kernel to fill in the usual one.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, no_info, 0) };
    Errno::result(result).map(drop)
}

/// Takes over a descriptor this process inherited and was told the number of. Fails for one that is not open.
pub(super) fn adopt(fd: RawFd) -> nix::Result<OwnedFd> {
    // SAFETY: `fcntl` on a number is harmless; it fails for a closed descriptor.
    Errno::result(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    // SAFETY: it is open, and the caller was told that it is its own; each number is adopted once.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// An extended attribute of a file, or `None`.
pub(super) fn attribute(path: &Path, name: &std::ffi::CStr) -> Option<Vec<u8>> {
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).ok()?;
    let mut value = [0_u8; 64];
    // SAFETY: both strings end in NUL, the buffer is as long as said.
    let length = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    value.get(..usize::try_from(length).ok()?).map(<[u8]>::to_vec)
}

/// Replaces this program by `command`, keeping `inherit` open. Returns only when that failed, with
/// everything as before.
pub(super) fn replace_program(command: &[OsString], inherit: &[RawFd]) -> io::Error {
    let Some((program, arguments)) = command.split_first() else { return Errno::EINVAL.into() };
    mark(inherit, 0);
    let error = Command::new(program).args(arguments).exec();
    mark(inherit, libc::FD_CLOEXEC);
    // The attempt gave SIGPIPE its default back, with which a closed connection would end the supervisor.
    // SAFETY: ignoring a signal runs no code of ours.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    error
}

fn mark(descriptors: &[RawFd], flag: libc::c_int) {
    for fd in descriptors {
        // SAFETY: changes a flag of a descriptor by number; a failure shows in the program that starts.
        let _ = unsafe { libc::fcntl(*fd, libc::F_SETFD, flag) };
    }
}
