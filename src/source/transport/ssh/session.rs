//! One connection to a server: from its name to a running `git-upload-pack`.
//!
//! ```text
//! files read ─► connected ─► host key checked ─► signed in ─► upload-pack runs ─► (its output, its complaints) ─► ended
//! ```
//!
//! Invariant: when a `Session` is dropped its socket is shut down, so that nothing of it lives on in the runtime, however far
//! it got.

use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use russh::client::{AuthResult, Handle, Msg};
use russh::{Channel, ChannelMsg, Disconnect};

use super::super::super::error::{SourceErrorKind, Trouble};
use super::super::{Context, runtime};
use super::client::{Client, Refusal};
use super::key::Key;
use super::known_hosts::Endpoint;
use super::trust::Trust;
use crate::files::config::SshConfig;
use crate::files::ssh_url::SshAddress;

/// What a server complains is kept up to this many bytes.
const MAX_COMPLAINT: usize = 4096;
/// How long a server may take to hear that we leave.
const GOODBYE: Duration = Duration::from_secs(1);

/// A running `git-upload-pack` on a server.
pub(super) struct Session {
    context: Context,
    address: SshAddress,
    channel: Channel<Msg>,
    connection: Option<(Handle<Client>, Closer)>,
    complaint: Vec<u8>,
    status: Option<u32>,
    received: bool,
    ended: bool,
}

/// Shuts a connection down, whoever still holds an end of it.
struct Closer(TcpStream);

impl Drop for Closer {
    fn drop(&mut self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

impl Session {
    /// Connects, checks, signs in and asks for the repository.
    pub(super) fn open(context: &Context, address: SshAddress, config: &SshConfig) -> Result<Self, Trouble> {
        // First what can be wrong on this side, so that a server hears nothing of it.
        let (trust, key) = (Trust::read(config)?, Key::read(config)?);
        let host = Endpoint { host: address.host.clone(), port: address.port };
        let stream = context.connect(&address.host, address.port)?;
        let lost = |error: std::io::Error| connection_lost(&host.name(), &error.to_string());
        let stream = stream.into_std().map_err(lost)?;
        let closer = Closer(stream.try_clone().map_err(lost)?);
        let mut handle = agree(context, host.clone(), trust, stream)?;
        sign_in(context, &host, &mut handle, &key, &address.user)?;
        let command = format!("git-upload-pack {}", argument(&address.path));
        let start = async {
            let channel = handle.channel_open_session().await?;
            channel.exec(true, command).await?;
            Ok::<_, russh::Error>(channel)
        };
        let during = format!("asking {} for the repository", host.name());
        let channel = context.wait(&during, start)?.map_err(|error| protocol(&host.name(), &error))?;
        Ok(Self {
            context: context.clone(),
            address,
            channel,
            connection: Some((handle, closer)),
            complaint: Vec::new(),
            status: None,
            received: false,
            ended: false,
        })
    }

    /// What upload-pack says next; nothing when it has ended as it should.
    pub(super) fn receive(&mut self) -> Result<Option<Bytes>, Trouble> {
        let mut finished = false;
        while !self.ended {
            match self.context.wait("reading from the server", self.channel.wait())? {
                Some(ChannelMsg::Data { data }) if data.is_empty() => {}
                Some(ChannelMsg::Data { data }) => {
                    self.received = true;
                    return Ok(Some(data));
                }
                Some(ChannelMsg::ExtendedData { data, .. }) => {
                    let room = MAX_COMPLAINT.saturating_sub(self.complaint.len()).min(data.len());
                    self.complaint.extend_from_slice(&data[..room]);
                }
                Some(ChannelMsg::Failure) => return Err(self.not_run()),
                Some(ChannelMsg::ExitStatus { exit_status }) => self.status = Some(exit_status),
                Some(ChannelMsg::ExitSignal { .. }) => self.status = Some(1),
                // What upload-pack has to complain, and its status, may come after its last output.
                Some(ChannelMsg::Eof) if self.received => return Ok(None),
                Some(ChannelMsg::Eof) => finished = true,
                Some(ChannelMsg::Close) => {
                    finished = true;
                    self.ended = true;
                }
                None => self.ended = true,
                // Window sizes and the like.
                Some(_) => {}
            }
        }
        match (self.received, finished) {
            (false, true) => Err(self.refused()),
            (false, false) if self.status.is_some() || !self.complaint.is_empty() => Err(self.refused()),
            (true, true) if self.status.is_none_or(|status| status == 0) => Ok(None),
            (true, _) | (false, false) => Err(self.broke_off()),
        }
    }

    /// Tells upload-pack something.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        let sent =
            self.context.wait("writing to the server", self.channel.data_bytes(Bytes::copy_from_slice(bytes)))?;
        // Why nothing more can be said is in what was heard last, if in anything.
        sent.map_err(|_| match self.receive() {
            Ok(_) => self.broke_off(),
            Err(trouble) => trouble,
        })
    }

    fn not_run(&self) -> Trouble {
        let user = &self.address.user;
        let what = format!("the server does not let user `{user}` run git-upload-pack");
        Trouble::new(SourceErrorKind::Auth, what, "check that the account may read repositories over ssh")
    }

    fn refused(&self) -> Trouble {
        let path = &self.address.path;
        let said = readable(&self.complaint);
        let what = match (said.is_empty(), self.status) {
            (false, _) => format!("the server does not give out `{path}`: {said}"),
            (true, Some(status)) => {
                format!("the server does not give out `{path}`: git-upload-pack ended with status {status}")
            }
            (true, None) => format!("the server does not give out `{path}` and does not say why"),
        };
        let mend = "check the path in the source's `url`, and that this key may read the repository";
        Trouble::new(SourceErrorKind::NotFound, what, mend)
    }

    fn broke_off(&self) -> Trouble {
        let said = readable(&self.complaint);
        let reason = if said.is_empty() { "it broke off".to_owned() } else { format!("it broke off: {said}") };
        connection_lost(&self.address.host, &reason)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let (Some((handle, closer)), Ok(runtime)) = (self.connection.take(), runtime()) else { return };
        let until = self.context.limits.deadline.min(Instant::now() + GOODBYE);
        // A server that hears a goodbye logs no broken connection. The closer goes with the task, at the deadline at the latest.
        runtime.spawn(async move {
            let goodbye = async {
                let _ = handle.disconnect(Disconnect::ByApplication, "", "en").await;
                let _ = handle.await;
            };
            let _ = tokio::time::timeout_at(until.into(), goodbye).await;
            drop(closer);
        });
    }
}

/// Agrees on keys with the server, which has to show a trusted one.
fn agree(context: &Context, host: Endpoint, trust: Trust, stream: TcpStream) -> Result<Handle<Client>, Trouble> {
    let name = host.name();
    let refusal = Refusal::default();
    let client = Client { trust, host, refusal: refusal.clone() };
    let config = Arc::new(client.config());
    let connect = async {
        let stream = tokio::net::TcpStream::from_std(stream)?;
        russh::client::connect_stream(config, stream, client).await
    };
    let agreed = context.wait(&format!("agreeing on keys with {name}"), connect)?;
    agreed.map_err(|error| refusal.take().unwrap_or_else(|| protocol(&name, &error)))
}

fn sign_in(
    context: &Context,
    host: &Endpoint,
    handle: &mut Handle<Client>,
    key: &Key,
    user: &str,
) -> Result<(), Trouble> {
    let during = format!("signing in at {} as `{user}`", host.name());
    let result = context.wait(&during, key.sign_in(handle, user))?.map_err(|error| protocol(&host.name(), &error))?;
    let partial = match result {
        AuthResult::Success => return Ok(()),
        AuthResult::Failure { partial_success, .. } => partial_success,
    };
    let shown = format!("{} ({})", key.fingerprint(), key.algorithm());
    if partial {
        let what = format!("{} wants more of user `{user}` than the key {shown}", host.name());
        return Err(Trouble::new(SourceErrorKind::Auth, what, "let the account sign in with a key alone"));
    }
    let what = format!("{} does not accept the key {shown} for user `{user}`", host.name());
    let mend = format!("give the public key read access there (a deploy key): {}", key.public());
    Err(Trouble::new(SourceErrorKind::Auth, what, mend))
}

fn connection_lost(host: &str, reason: &str) -> Trouble {
    let what = format!("the connection to {host} was lost: {reason}");
    Trouble::new(SourceErrorKind::Network, what, "it is tried again at the next look")
}

/// What an error of the protocol means for a person.
fn protocol(host: &str, error: &russh::Error) -> Trouble {
    match error {
        russh::Error::NoCommonAlgo { kind, theirs, .. } => {
            let what = format!(
                "{host} offers no way of {kind:?} that is safe today, only {}",
                readable(theirs.join(", ").as_bytes())
            );
            Trouble::new(SourceErrorKind::Unsupported, what, "update the ssh server")
        }
        russh::Error::Version => {
            let what = format!("what answers at {host} is no ssh server");
            Trouble::new(SourceErrorKind::Protocol, what, "check host and port in the source's `url`")
        }
        other => connection_lost(host, &readable(other.to_string().as_bytes())),
    }
}

/// `path` as the one argument of a command that a shell on the server reads.
fn argument(path: &str) -> String {
    // As git does it: `!` is special to some shells even within quotes.
    format!("'{}'", path.replace('\'', r"'\''").replace('!', r"'\!'"))
}

/// What a server said, on one line and without what a terminal would obey.
fn readable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let clean = |line: &str| line.chars().filter(|c| !c.is_control()).take(400).collect::<String>().trim().to_owned();
    let lines: Vec<String> = text.lines().map(clean).filter(|line| !line.is_empty()).take(6).collect();
    lines.join(" / ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_one_argument() {
        assert_eq!(argument("/a b.git"), "'/a b.git'");
        assert_eq!(argument("a'; rm -rf /"), r"'a'\''; rm -rf /'");
        assert_eq!(argument("a!b"), r"'a'\!'b'");
    }

    #[test]
    fn what_servers_say_cannot_drive_a_terminal() {
        assert_eq!(readable(b"ERROR: no\x1b[2J such\r\n\n  thing \xff\n"), "ERROR: no[2J such / thing \u{fffd}");
        assert!(readable(&vec![b'x'; 100_000]).len() <= 400);
    }
}
