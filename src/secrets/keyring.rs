//! The key file, and sealing with its keys: ChaCha20-Poly1305, a random nonce for each value, and what the value is of
//! as additional data, so that a sealed value opens in no other place.
//!
//! ```text
//! # what this file is, for people
//! key 5f3a9c01 <64 hexadecimal digits>     the first one seals, all of them open
//! key 11c0ffee <64 hexadecimal digits>     one before it, while a rotation is under way
//! mark <64 hexadecimal digits>             makes the marks by which values of providers are told apart
//! ```
//!
//! Invariant: a file with its final name is complete, and readable by its owner alone.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

use super::private;
use crate::domain::{Secret, hex};

/// Length of a key in bytes.
const LENGTH: usize = 32;
/// Length of a key's name in bytes.
const ID: usize = 4;
/// Bytes of a mark that are shown.
const MARK: usize = 6;
/// A key file is never longer.
const MAX_FILE: u64 = 64 * 1024;
const HEAD: &str = "# Landfall's keys for secrets. Keep this file as safe as what it protects, and a copy of it apart from copies of the\n\
                    # ledger: without it nobody can read the secrets in there. `landfall secret rotate-key` writes it anew.\n";

/// Why keys or values cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file.
    #[error("the key file {} {why}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong, and how to mend it.
        why: String,
    },
    /// No key of the file has sealed it.
    #[error(
        "it was sealed with key {0}, which is not in the key file; bring back the file it was in, or set the secret anew"
    )]
    NoKey(String),
    /// The sealed value was changed, or is another one's.
    #[error("it does not open: the sealed value was changed, or is not of this place; set the secret anew")]
    Broken,
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    NoRandom,
}

/// A sealed value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The key that opens it.
    pub key: String,
    /// Nonce, ciphertext and tag.
    pub bytes: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq)]
struct Key {
    id: String,
    bytes: [u8; LENGTH],
}

/// The keys of a file. Prints none of them.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyRing {
    keys: Vec<Key>,
    mark: [u8; LENGTH],
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| &key.id)).finish()
    }
}

impl KeyRing {
    /// A ring with one new key.
    pub fn new() -> Result<Self, KeyError> {
        Ok(Self { keys: vec![Key::new()?], mark: random()? })
    }

    /// The keys of a file; `None` when there is no such file. Blocking.
    pub fn read(path: &Path) -> Result<Option<Self>, KeyError> {
        let bad = |why: String| KeyError::File { path: path.to_owned(), why };
        if matches!(fs::metadata(path), Err(error) if error.kind() == io::ErrorKind::NotFound) {
            return Ok(None);
        }
        let text = private::read(path, MAX_FILE).map_err(bad)?;
        Self::parse(&text).map(Some).ok_or_else(|| bad("is damaged; bring back a copy of it".into()))
    }

    /// Writes the file, whole or not at all. Blocking.
    pub fn write(&self, path: &Path) -> Result<(), KeyError> {
        let bad =
            |error: io::Error| KeyError::File { path: path.to_owned(), why: format!("cannot be written: {error}") };
        let temporary = path.with_extension("new");
        let _ = fs::remove_file(&temporary);
        // Made before anything is in it, so that nobody else can have it open; `whole` writes into it as it is.
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).map_err(bad)?;
        crate::whole::write(path, &temporary, self.text().as_bytes()).map_err(bad)
    }

    /// The same with a new key that seals from now on.
    pub fn with_new_key(&self) -> Result<Self, KeyError> {
        let keys = std::iter::once(Key::new()?).chain(self.keys.iter().cloned()).collect();
        Ok(Self { keys, mark: self.mark })
    }

    /// Only the key that seals.
    #[must_use]
    pub fn newest_only(&self) -> Self {
        Self { keys: self.keys.iter().take(1).cloned().collect(), mark: self.mark }
    }

    /// The name of the key that seals.
    pub fn sealing(&self) -> &str {
        self.keys.first().map_or("", |key| &key.id)
    }

    /// Seals a value for one place.
    pub fn seal(&self, place: &str, value: &Secret) -> Result<Sealed, KeyError> {
        let key = self.keys.first().ok_or(KeyError::Broken)?;
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| KeyError::NoRandom)?;
        let mut sealed = value.expose().as_bytes().to_vec();
        let aad = Aad::from(place.as_bytes());
        key.cipher()?
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed)
            .map_err(|_| KeyError::Broken)?;
        Ok(Sealed { key: key.id.clone(), bytes: [&nonce[..], &sealed].concat() })
    }

    /// Opens a value that was sealed for this place.
    pub fn open(&self, place: &str, sealed: &Sealed) -> Result<Secret, KeyError> {
        let key = self.keys.iter().find(|key| key.id == sealed.key);
        let key = key.ok_or_else(|| KeyError::NoKey(sealed.key.clone()))?;
        let (nonce, rest) = sealed.bytes.split_at_checked(NONCE_LEN).ok_or(KeyError::Broken)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| KeyError::Broken)?;
        let mut bytes = rest.to_vec();
        let opened = key.cipher()?.open_in_place(nonce, Aad::from(place.as_bytes()), &mut bytes);
        let text = std::str::from_utf8(opened.map_err(|_| KeyError::Broken)?).map_err(|_| KeyError::Broken)?;
        Ok(Secret::new(text))
    }

    /// Tells a value from another one, and nothing about it to those without the key file.
    pub fn mark_of(&self, value: &Secret) -> String {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &self.mark), value.expose().as_bytes());
        hex::encode(&tag.as_ref()[..MARK])
    }

    fn text(&self) -> String {
        let keys: String =
            self.keys.iter().map(|key| format!("key {} {}\n", key.id, hex::encode(&key.bytes))).collect();
        format!("{HEAD}{keys}mark {}\n", hex::encode(&self.mark))
    }

    fn parse(text: &str) -> Option<Self> {
        let (mut keys, mut mark) = (Vec::new(), None);
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            match line.split_whitespace().collect::<Vec<_>>()[..] {
                ["key", id, bytes] if id.len() == 2 * ID => {
                    keys.push(Key { id: id.to_owned(), bytes: from_hex(bytes)? });
                }
                ["mark", bytes] => mark = Some(from_hex(bytes)?),
                _ => return None,
            }
        }
        (!keys.is_empty()).then_some(Self { keys, mark: mark? })
    }
}

impl Key {
    fn new() -> Result<Self, KeyError> {
        let name: [u8; LENGTH] = random()?;
        Ok(Self { id: hex::encode(&name[..ID]), bytes: random()? })
    }

    fn cipher(&self) -> Result<LessSafeKey, KeyError> {
        let key = UnboundKey::new(&CHACHA20_POLY1305, &self.bytes).map_err(|_| KeyError::Broken)?;
        Ok(LessSafeKey::new(key))
    }
}

fn random() -> Result<[u8; LENGTH], KeyError> {
    let mut bytes = [0; LENGTH];
    SystemRandom::new().fill(&mut bytes).map_err(|_| KeyError::NoRandom)?;
    Ok(bytes)
}

fn from_hex(text: &str) -> Option<[u8; LENGTH]> {
    hex::decode(text)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_value_opens_with_its_key_in_its_place_and_in_no_other() {
        let ring = KeyRing::new().unwrap();
        let value = Secret::new("hunter2 ß");
        let sealed = ring.seal("main/shop/token/1", &value).unwrap();
        assert_eq!(ring.open("main/shop/token/1", &sealed).unwrap().expose(), "hunter2 ß");
        assert!(matches!(ring.open("main/mail/token/1", &sealed), Err(KeyError::Broken)));
        let mut other = sealed.clone();
        other.bytes[20] ^= 1;
        assert!(matches!(ring.open("main/shop/token/1", &other), Err(KeyError::Broken)));
        let short = Sealed { bytes: vec![1; 5], ..sealed.clone() };
        assert!(matches!(ring.open("main/shop/token/1", &short), Err(KeyError::Broken)));
        assert!(matches!(KeyRing::new().unwrap().open("main/shop/token/1", &sealed), Err(KeyError::NoKey(_))));
        assert_ne!(ring.seal("main/shop/token/1", &value).unwrap(), sealed, "a nonce is used once");
        assert!(!sealed.bytes.windows(7).any(|window| window == b"hunter2"));
    }

    #[test]
    fn a_rotation_leaves_no_moment_in_which_a_value_does_not_open() {
        let old = KeyRing::new().unwrap();
        let sealed = old.seal("x", &Secret::new("v")).unwrap();
        let both = old.with_new_key().unwrap();
        assert_eq!(both.open("x", &sealed).unwrap().expose(), "v");
        let again = both.seal("x", &Secret::new("v")).unwrap();
        assert_ne!(again.key, sealed.key);
        let new = both.newest_only();
        assert_eq!(new.open("x", &again).unwrap().expose(), "v");
        assert!(matches!(new.open("x", &sealed), Err(KeyError::NoKey(_))));
        assert_eq!(new.mark_of(&Secret::new("v")), old.mark_of(&Secret::new("v")), "marks outlive a rotation");
    }

    #[test]
    fn a_key_file_is_its_owners_alone_and_reads_back_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secrets.key");
        assert!(KeyRing::read(&path).unwrap().is_none());
        let ring = KeyRing::new().unwrap().with_new_key().unwrap();
        ring.write(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(KeyRing::read(&path).unwrap(), Some(ring.clone()));
        assert!(!format!("{ring:?}").contains(&hex::encode(&ring.keys[0].bytes)));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o604)).unwrap();
        assert!(KeyRing::read(&path).unwrap_err().to_string().contains("chmod 600"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "key 00 11\n").unwrap();
        assert!(KeyRing::read(&path).unwrap_err().to_string().contains("damaged"));
    }
}
