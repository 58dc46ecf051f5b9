//! A terminal for a command: the end that a program has, and the end that reads and writes for somebody elsewhere.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use tokio::net::unix::pipe;

use crate::wire::exec::TerminalSize;

/// What goes to it. To the kernel its two directions wait and wake as those of a pipe do.
#[derive(Debug)]
pub(super) struct Terminal {
    to: pipe::Sender,
}

/// Opens one and makes it that of this session, which must not have one yet. Answers as well what comes from it, whose end
/// is an error (`EIO`), and the program's end.
pub(super) fn open(size: TerminalSize) -> io::Result<(Terminal, pipe::Receiver, File)> {
    let ours = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    rustix::pty::grantpt(&ours)?;
    rustix::pty::unlockpt(&ours)?;
    let name = rustix::pty::ptsname(&ours, Vec::new())?;
    resize(ours.as_fd(), size)?;
    // The first terminal that the leader of a session opens is the session's own.
    let path = Path::new(std::ffi::OsStr::from_bytes(name.as_bytes()));
    let theirs = File::options().read(true).write(true).open(path)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    let to = pipe::Sender::from_owned_fd_unchecked(ours.try_clone()?)?;
    Ok((Terminal { to }, pipe::Receiver::from_owned_fd_unchecked(ours)?, theirs))
}

fn resize(terminal: std::os::fd::BorrowedFd<'_>, size: TerminalSize) -> io::Result<()> {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}

impl Terminal {
    /// Another size; the programs in it are told.
    pub(super) fn resize(&self, size: TerminalSize) -> io::Result<()> {
        resize(self.to.as_fd(), size)
    }

    /// As if it were typed.
    pub(super) async fn write(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.to.writable().await?;
            match self.to.try_write(bytes) {
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
