//! The agent's age identities: what opens files that others encrypted for it.
//!
//! Read anew each time, like every place that secrets come from. Invariant: a file that others may read is refused before
//! it is used, and no error holds a line of one.

use std::fmt;
use std::io::Read;
use std::path::PathBuf;
use std::str::FromStr;

use age::armor::ArmoredReader;
use age::x25519::{Identity, Recipient};
use age::{DecryptError, Decryptor};

use super::private;

/// Longest file of identities, in bytes.
const MAX_FILE: u64 = 64 * 1024;
/// Longest content that is opened, in bytes.
const MAX_CONTENT: u64 = 1024 * 1024;

/// Why something does not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It is for others.
    #[error("none of the agent's age identities opens it")]
    NoIdentity,
    /// It is not what age writes, or not all of it.
    #[error("it is damaged, or not a file of age")]
    Damaged,
    /// It has more than can be meant.
    #[error("it holds more than {MAX_CONTENT} bytes")]
    TooLong,
}

/// The identities of all files, in their order. Prints the recipients that they are, which are public.
#[derive(Clone, Default)]
pub struct Identities(Vec<Identity>);

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.recipients()).finish()
    }
}

impl Identities {
    /// Reads files as `age-keygen` writes them. An error names the file, and the mend. Blocking.
    pub fn read(files: &[PathBuf]) -> Result<Self, String> {
        let mut all = Vec::new();
        for path in files {
            let wrong = |why: String| format!("the file of age identities {} {why}", path.display());
            let text = private::read(path, MAX_FILE).map_err(wrong)?;
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
            let before = all.len();
            for line in lines {
                let mend = "only lines `AGE-SECRET-KEY-1…`, as `age-keygen` writes them, are understood";
                all.push(Identity::from_str(line).map_err(|_| wrong(format!("holds something else: {mend}")))?);
            }
            if all.len() == before {
                return Err(wrong("holds no identity; `age-keygen` makes one".to_owned()));
            }
        }
        Ok(Self(all))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whom others encrypt for, so that these identities open it.
    pub fn recipients(&self) -> Vec<String> {
        self.0.iter().map(|identity| identity.to_public().to_string()).collect()
    }

    /// What is in something that age encrypted, armoured or not.
    pub fn open(&self, encrypted: &[u8]) -> Result<Vec<u8>, OpenError> {
        let decryptor = Decryptor::new_buffered(ArmoredReader::new(encrypted)).map_err(|_| OpenError::Damaged)?;
        let identities = self.0.iter().map(|identity| identity as &dyn age::Identity);
        let reader = decryptor.decrypt(identities).map_err(|error| match error {
            DecryptError::NoMatchingKeys => OpenError::NoIdentity,
            _ => OpenError::Damaged,
        })?;
        let mut content = Vec::new();
        reader.take(MAX_CONTENT + 1).read_to_end(&mut content).map_err(|_| OpenError::Damaged)?;
        if content.len() as u64 > MAX_CONTENT { Err(OpenError::TooLong) } else { Ok(content) }
    }
}

/// Whether a text is an age recipient, so that it may be shown.
pub(super) fn is_recipient(text: &str) -> bool {
    Recipient::from_str(text).is_ok()
}
