//! The descriptors a proxy inherits from the supervisor, named by the environment variable `LANDFALL_FDS`.
//!
//! The only unsafe code of the proxy: a number becomes an owned descriptor.
#![allow(unsafe_code)]

use std::net::TcpListener;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;

use crate::wire::supervisor::{FDS_VARIABLE, fds};

use super::ProxyError;

/// What the supervisor left open for this process.
#[derive(Debug)]
pub struct Inherited {
    /// Listening sockets for HTTP.
    pub listeners: Vec<TcpListener>,
    /// Listening sockets for HTTPS.
    pub tls_listeners: Vec<TcpListener>,
    /// The listening socket for calls.
    pub calls: Option<UnixListener>,
    /// Where to write one byte once connections are accepted.
    pub ready: Option<OwnedFd>,
}

/// Takes over the descriptors named in the environment. To be called once, at the start of the process.
pub fn from_environment() -> Result<Inherited, ProxyError> {
    let text = std::env::var(FDS_VARIABLE).map_err(|_| ProxyError::Descriptors {
        reason: format!("{FDS_VARIABLE} is not set; the proxy is started by `landfall agent`"),
    })?;
    let mut inherited = Inherited { listeners: Vec::new(), tls_listeners: Vec::new(), calls: None, ready: None };
    for (name, number) in parse(&text)? {
        // SAFETY: sets a flag of a descriptor, touches no memory, and fails for a number that is not open. Instances and
        // other children are started elsewhere, but nothing started from here should inherit the sockets either.
        if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } == -1 {
            return Err(ProxyError::Descriptors { reason: format!("descriptor {number} (`{name}`) is not open") });
        }
        // SAFETY: the descriptor is open (just checked), was passed to this process for its own use, and nothing
        // else in it takes these numbers: this runs once, before anything is opened by name.
        let owned = unsafe { OwnedFd::from_raw_fd(number) };
        match name {
            fds::WEB => inherited.listeners.push(TcpListener::from(owned)),
            fds::WEB_TLS => inherited.tls_listeners.push(TcpListener::from(owned)),
            fds::CALLS => inherited.calls = Some(UnixListener::from(owned)),
            fds::READY => inherited.ready = Some(owned),
            // A newer supervisor may hand over more; closing it is all an older proxy can do.
            _ => drop(owned),
        }
    }
    Ok(inherited)
}

fn parse(text: &str) -> Result<Vec<(&str, RawFd)>, ProxyError> {
    let pair = |pair: &'_ str| -> Option<(usize, RawFd)> {
        let at = pair.find('=')?;
        let number: RawFd = pair[at + 1..].parse().ok().filter(|number| *number > 2)?;
        Some((at, number))
    };
    text.split(',')
        .filter(|text| !text.is_empty())
        .map(|text| match pair(text) {
            Some((at, number)) => Ok((&text[..at], number)),
            None => {
                Err(ProxyError::Descriptors { reason: format!("`{text}` in {FDS_VARIABLE} is not name=descriptor") })
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_read_by_name() {
        assert_eq!(parse("web=3,web=4,ready=5").expect("parses"), [("web", 3), ("web", 4), ("ready", 5)]);
        assert_eq!(parse("").expect("parses"), []);
        for bad in ["web", "web=", "web=x", "web=-1", "web=0"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
