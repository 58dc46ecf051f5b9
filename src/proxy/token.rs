//! Tokens of instances: who calls, proved without anybody being asked.
//!
//! An instance finds its token in `LANDFALL_TOKEN`. It says which app and version it belongs to, signed (HMAC-SHA256) with
//! a key that only the agent's own processes can read: `<data_dir>/run/token.key`, made by whichever of them comes first.
//! Invariant: a key file with its final name is complete and never changes.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

use crate::domain::{AppKey, VersionNumber, hex};

/// Length of the key in bytes.
const LENGTH: usize = 32;
/// What every token begins with, so that it is known for what it is when it turns up somewhere.
const MARK: &str = "lf1";

/// Whose token it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The app.
    pub app: AppKey,
    /// The version whose code the instance runs.
    pub version: VersionNumber,
}

/// Makes and checks tokens. Prepared once: half of what a signature takes is the same for every token.
#[derive(Clone)]
pub struct Key {
    bytes: [u8; LENGTH],
    prepared: hmac::Key,
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Key {}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key([redacted])")
    }
}

impl Key {
    /// The key of this data directory; makes it when there is none.
    pub fn open(data_dir: &Path) -> io::Result<Self> {
        let path = data_dir.join("run").join("token.key");
        match fs::read(&path) {
            Ok(bytes) => return Self::from_bytes(&bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let mut bytes = [0; LENGTH];
        SystemRandom::new().fill(&mut bytes).map_err(|_| io::Error::other("the system gives no random bytes"))?;
        let temporary = path.with_extension(format!("key.{}", std::process::id()));
        let _ = fs::remove_file(&temporary);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        // Not a rename: another process may have been quicker, and its key stays.
        let linked = fs::hard_link(&temporary, &path);
        fs::remove_file(&temporary)?;
        match linked {
            Ok(()) => File::open(data_dir.join("run"))?.sync_all()?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        Self::from_bytes(&fs::read(&path)?)
    }

    fn from_bytes(bytes: &[u8]) -> io::Result<Self> {
        let key: [u8; LENGTH] = bytes.try_into().map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidData, "run/token.key is damaged; remove it and start the agent again")
        })?;
        Ok(Self { bytes: key, prepared: hmac::Key::new(hmac::HMAC_SHA256, &key) })
    }

    /// The token of an app's version: `lf1.<environment>.<app>.<version>.<signature>`.
    pub fn token(&self, identity: &Identity) -> String {
        let AppKey { environment, app } = &identity.app;
        let said = format!("{MARK}.{environment}.{app}.{}", identity.version.get());
        let signature = hmac::sign(&self.prepared, said.as_bytes());
        format!("{said}.{}", hex::encode(signature.as_ref()))
    }

    /// Whose token this is, if it is one of ours.
    pub fn check(&self, token: &str) -> Option<Identity> {
        let (said, signature) = token.rsplit_once('.')?;
        hmac::verify(&self.prepared, said.as_bytes(), &hex::decode(signature)?).ok()?;
        let parts: Vec<&str> = said.split('.').collect();
        let [MARK, environment, app, version] = parts.as_slice() else { return None };
        let app = AppKey::new(environment.parse().ok()?, app.parse().ok()?);
        Some(Identity { app, version: version.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("run")).expect("made");
        dir
    }

    #[test]
    fn a_token_is_believed_only_as_it_was_made() {
        let dir = place();
        let key = Key::open(dir.path()).expect("a key");
        assert_eq!(Key::open(dir.path()).expect("the same"), key);
        let app = AppKey::new("main".parse().expect("a name"), "pods".parse().expect("a name"));
        let identity = Identity { app, version: VersionNumber::FIRST };
        let token = key.token(&identity);
        assert_eq!(key.check(&token), Some(identity));
        let other = place();
        assert_eq!(Key::open(other.path()).expect("another").check(&token), None);
        for bad in [token.replace("pods", "shop"), token.replace(".1.", ".2."), token[1..].to_owned(), String::new()] {
            assert_eq!(key.check(&bad), None, "{bad}");
        }
        assert!(!format!("{key:?}").contains(&token[token.len() - 8..]));
    }

    #[test]
    fn only_its_owner_reads_the_key() {
        use std::os::unix::fs::PermissionsExt;
        let dir = place();
        Key::open(dir.path()).expect("a key");
        let mode = fs::metadata(dir.path().join("run/token.key")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path().join("run")).expect("readable").count(), 1);
    }
}
