//! Which host keys are trusted: those of the source's own file, and for hosts it does not name those of the forges that
//! come with Landfall.
//!
//! Invariant: nothing here writes. A key that is not pinned is refused with its fingerprint and the command that pins it; whether
//! to run that is for a person to decide who has compared the fingerprint.

use std::path::{Path, PathBuf};

use russh::keys::{Algorithm, PublicKey};

use super::super::super::error::{SourceErrorKind, Trouble};
use super::files::{self, Holds, quoted};
use super::known_hosts::{Endpoint, KnownHosts, Pinned, Verdict, fingerprint};
use crate::files::config::SshConfig;

/// Public keys of public forges, as they publish them.
const FORGES: &str = include_str!("forges.known_hosts");
/// What messages call them.
const BUILT_IN: &str = "the host keys that come with Landfall";

/// Everything that is trusted for one connection.
#[derive(Debug)]
pub(super) struct Trust {
    own: KnownHosts,
    /// The configured file; else where the commands in messages would start one.
    path: PathBuf,
    configured: bool,
    forges: KnownHosts,
}

impl Trust {
    /// Reads what is trusted now.
    pub(super) fn read(config: &SshConfig) -> Result<Self, Trouble> {
        let (own, path, configured) = match &config.known_hosts_file {
            Some(path) => (parse(&files::read(path, "known_hosts_file", Holds::Trust)?, path)?, path.clone(), true),
            None => (KnownHosts::default(), config.usual_known_hosts(), false),
        };
        Ok(Self { own, path, configured, forges: parse(FORGES, Path::new(BUILT_IN))? })
    }

    /// The types of the keys pinned for `host`: these it should show, so that they can be compared.
    pub(super) fn algorithms(&self, host: &Endpoint) -> Vec<Algorithm> {
        self.relevant(host).pinned(host).into_iter().map(|pinned| pinned.algorithm).collect()
    }

    /// A host named in the configured file is that file's alone: who pins other keys there, means it.
    fn relevant(&self, host: &Endpoint) -> &KnownHosts {
        if self.own.names(host) { &self.own } else { &self.forges }
    }

    /// Whether `host` may be talked to, having shown `key`.
    pub(super) fn check(&self, host: &Endpoint, key: &PublicKey) -> Result<(), Trouble> {
        if let Some(line) = self.own.revokes(host, key) {
            return Err(self.revoked(host, key, line));
        }
        match self.relevant(host).check(host, key) {
            Verdict::Trusted => Ok(()),
            Verdict::Unknown => Err(self.unknown(host, key)),
            Verdict::Changed(pinned) => Err(self.changed(host, key, &pinned)),
            Verdict::Revoked(line) => Err(self.revoked(host, key, line)),
            Verdict::Authority(line) => Err(self.authority(host, key, line)),
        }
    }

    fn unknown(&self, host: &Endpoint, key: &PublicKey) -> Trouble {
        let mut what = format!("the host key of {} is not known: it shows {}", host.name(), shown(key));
        if !self.own.unread.is_empty() {
            let lines: Vec<String> = self.own.unread.iter().take(5).map(ToString::to_string).collect();
            what.push_str(&format!("; {} could not be read in line {}", self.path.display(), lines.join(", ")));
        }
        let mend = format!(
            "compare the fingerprint with the one the server's owner publishes; if they are the same, run: {}{}",
            self.pin(host, key),
            self.configure()
        );
        Trouble::new(SourceErrorKind::HostKeyUnknown, what, mend)
    }

    fn changed(&self, host: &Endpoint, key: &PublicKey, pinned: &[Pinned]) -> Trouble {
        let own = self.own.names(host);
        let alike: Vec<&Pinned> = pinned.iter().filter(|pinned| pinned.algorithm == key.algorithm()).collect();
        let compared = if alike.is_empty() { pinned.iter().collect() } else { alike };
        let expected: Vec<String> = compared
            .iter()
            .map(|pinned| match own {
                true => {
                    format!("{} ({}, {}:{})", pinned.fingerprint, pinned.algorithm, self.path.display(), pinned.line)
                }
                false => format!("{} ({}, {BUILT_IN})", pinned.fingerprint, pinned.algorithm),
            })
            .collect();
        let what = format!(
            "the host key of {} is not the pinned one: expected {}, offered {}",
            host.name(),
            expected.join(" or "),
            shown(key)
        );
        let file = quoted(&self.path.display().to_string());
        let forget = if own { format!("ssh-keygen -R {} -f {file} && ", quoted(&host.name())) } else { String::new() };
        let mend = format!(
            "somebody may be between this machine and the server. Ask the server's owner; only if the offered fingerprint \
             is theirs, run: {forget}{}{}",
            self.pin(host, key),
            self.configure()
        );
        Trouble::new(SourceErrorKind::HostKeyChanged, what, mend)
    }

    fn revoked(&self, host: &Endpoint, key: &PublicKey, line: usize) -> Trouble {
        let place = self.path.display();
        let what = format!("the host key of {}, {}, is revoked by {place}:{line}", host.name(), shown(key));
        let mend = "do not trust this server until its owner has given it a new key";
        Trouble::new(SourceErrorKind::HostKeyChanged, what, mend)
    }

    fn authority(&self, host: &Endpoint, key: &PublicKey, line: usize) -> Trouble {
        let place = self.path.display();
        let what = format!(
            "{place}:{line} trusts {} by a certificate authority, which Landfall does not read; it shows {}",
            host.name(),
            shown(key)
        );
        let mend = format!("compare the fingerprint and pin the key itself: {}", self.pin(host, key));
        Trouble::new(SourceErrorKind::HostKeyUnknown, what, mend)
    }

    /// The command that pins `key` and no other.
    fn pin(&self, host: &Endpoint, key: &PublicKey) -> String {
        // Without its comment, which the server has no say in and a file has no need of.
        let key = PublicKey::from(key.key_data().clone()).to_openssh().unwrap_or_default();
        format!("echo '{} {}' >> {}", host.name(), key.trim(), quoted(&self.path.display().to_string()))
    }

    fn configure(&self) -> String {
        if self.configured {
            return String::new();
        }
        format!(" and set `git.ssh.known_hosts_file: {}`", self.path.display())
    }
}

fn parse(text: &str, path: &Path) -> Result<KnownHosts, Trouble> {
    KnownHosts::parse(text).map_err(|line| {
        let what = format!(
            "{}:{line}: a line with a marker cannot be read, so it is not known what it revokes",
            path.display()
        );
        Trouble::new(SourceErrorKind::Credentials, what, "write `@revoked HOSTS TYPE KEY`, or remove the line")
    })
}

fn shown(key: &PublicKey) -> String {
    format!("{} ({})", fingerprint(key), key.algorithm())
}

#[cfg(test)]
#[path = "trust_tests.rs"]
mod tests;
