//! OpenSSH's format of known hosts, and what it says about a host that shows a key. Pure: text in, verdict out.
//!
//! Understood: comments, lists, `*` and `?`, `!` for exceptions, `[host]:port`, hashed names, `@revoked`.
//! `@cert-authority` is recognised in order to be refused in words.
//! Invariant: a line that cannot be read never leads to trust; where it might have taken trust away, the whole file is refused.

use ring::hmac;
use russh::keys::ssh_key::known_hosts::{Entry, HostPatterns, Marker};
use russh::keys::{Algorithm, HashAlg, PublicKey};

/// Longest line that is read; an RSA key of 16,384 bits has 2.8 KB.
const MAX_LINE: usize = 16 * 1024;

/// A file of known hosts.
#[derive(Debug, Default)]
pub(super) struct KnownHosts {
    lines: Vec<Line>,
    /// Numbers of lines that are neither empty nor comments, and could not be read.
    pub(super) unread: Vec<usize>,
}

#[derive(Debug)]
struct Line {
    number: usize,
    entry: Entry,
}

/// A host as known hosts name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) host: String,
    pub(super) port: u16,
}

/// What is known about a key that a host shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is pinned for this host.
    Trusted,
    /// Nothing is pinned for this host.
    Unknown,
    /// Other keys are pinned for this host.
    Changed(Vec<Pinned>),
    /// It is revoked, by this line.
    Revoked(usize),
    /// Nothing is pinned but a certificate authority, in this line.
    Authority(usize),
}

/// A key that a line pins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pinned {
    pub(super) line: usize,
    pub(super) algorithm: Algorithm,
    pub(super) fingerprint: String,
}

impl Endpoint {
    /// The name that is written into a file: the port only where it is not the usual one.
    pub(super) fn name(&self) -> String {
        match self.port {
            crate::files::ssh_url::PORT => self.host.clone(),
            port => format!("[{}]:{port}", self.host),
        }
    }

    fn is_named_by(&self, hosts: &HostPatterns) -> bool {
        let name = self.name();
        match hosts {
            HostPatterns::HashedName { salt, hash } => {
                let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, salt);
                hmac::sign(&key, name.as_bytes()).as_ref() == hash
            }
            HostPatterns::Patterns(patterns) => {
                let matches = |pattern: &str| glob(pattern.to_ascii_lowercase().as_bytes(), name.as_bytes());
                let (except, named): (Vec<&String>, Vec<&String>) =
                    patterns.iter().partition(|pattern| pattern.starts_with('!'));
                named.iter().any(|pattern| matches(pattern)) && !except.iter().any(|pattern| matches(&pattern[1..]))
            }
        }
    }
}

/// Whether `text` has the form of `pattern`, in time that grows with both lengths and no faster.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == b'?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                // The star takes one more, and the rest is tried again.
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    (p, t) = (at + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

impl KnownHosts {
    /// Reads a file. The error is the number of a line with a marker that cannot be read: had it revoked a key, that
    /// key would be trusted without it.
    pub(super) fn parse(text: &str) -> Result<Self, usize> {
        let mut known = Self::default();
        // Some editors mark a file at its start; it is no part of the first line.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (index, line) in text.lines().enumerate() {
            let number = index + 1;
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.first() {
                None => continue,
                Some(first) if first.starts_with('#') => continue,
                Some(_) => {}
            }
            let entry = if line.len() > MAX_LINE { None } else { words.join(" ").parse::<Entry>().ok() };
            match entry {
                Some(entry) => known.lines.push(Line { number, entry }),
                None if words[0].starts_with('@') => return Err(number),
                None => known.unread.push(number),
            }
        }
        Ok(known)
    }

    fn naming<'a>(&'a self, host: &'a Endpoint, marker: Option<Marker>) -> impl Iterator<Item = &'a Line> {
        self.lines
            .iter()
            .filter(move |line| line.entry.marker().copied() == marker && host.is_named_by(line.entry.host_patterns()))
    }

    /// Whether anything but a revocation is said about `host`.
    pub(super) fn names(&self, host: &Endpoint) -> bool {
        self.naming(host, None).chain(self.naming(host, Some(Marker::CertAuthority))).next().is_some()
    }

    /// The line that revokes `key` for `host`.
    pub(super) fn revokes(&self, host: &Endpoint, key: &PublicKey) -> Option<usize> {
        self.naming(host, Some(Marker::Revoked)).find(|line| same(line, key)).map(|line| line.number)
    }

    /// The keys pinned for `host`, in the order of the file.
    pub(super) fn pinned(&self, host: &Endpoint) -> Vec<Pinned> {
        let pinned = |line: &Line| {
            let key = line.entry.public_key();
            Pinned { line: line.number, algorithm: key.algorithm(), fingerprint: fingerprint(key) }
        };
        self.naming(host, None).map(pinned).collect()
    }

    /// What this file says about `host` showing `key`.
    pub(super) fn check(&self, host: &Endpoint, key: &PublicKey) -> Verdict {
        if let Some(line) = self.revokes(host, key) {
            return Verdict::Revoked(line);
        }
        if self.naming(host, None).any(|line| same(line, key)) {
            return Verdict::Trusted;
        }
        let pinned = self.pinned(host);
        if !pinned.is_empty() {
            return Verdict::Changed(pinned);
        }
        match self.naming(host, Some(Marker::CertAuthority)).next() {
            Some(line) => Verdict::Authority(line.number),
            None => Verdict::Unknown,
        }
    }
}

/// The comment of a key is no part of it.
fn same(line: &Line, key: &PublicKey) -> bool {
    line.entry.public_key().key_data() == key.key_data()
}

/// `SHA256:…`, as every tool shows it.
pub(super) fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

#[cfg(test)]
#[path = "known_hosts_tests.rs"]
mod tests;
