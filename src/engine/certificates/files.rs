//! Certificates from files: read when they change, checked, laid where proxies find them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tracing::{error, info};

use super::{CertificateState, InUse};
use crate::domain::hex;
use crate::files::config::PairFiles;
use crate::tls::{self, Stamp};
use crate::whole;

/// What the files laid for files begin with.
const PREFIX: &str = "file-";

/// Certificates from files.
pub(super) struct Files {
    directory: PathBuf,
    known: BTreeMap<PathBuf, Known>,
}

struct Known {
    files: PairFiles,
    stamp: Stamp,
    in_use: Option<InUse>,
    problem: Option<String>,
}

impl Files {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory, known: BTreeMap::new() }
    }

    /// Takes over what has changed; answers whether proxies have to look. Blocks while the disk works, a moment at most.
    pub(super) fn look(&mut self, configured: &[PairFiles]) -> bool {
        let mut changed = self.sweep(configured);
        for files in configured {
            let stamp = files.stamp();
            let known = self.known.get(&files.certificate);
            if known.is_some_and(|known| known.stamp == stamp && known.files == *files) {
                continue;
            }
            let before = known.and_then(|known| known.in_use.clone());
            let (in_use, problem) = match self.take_over(files) {
                Ok(in_use) => {
                    info!(file = %files.certificate.display(), names = in_use.names.join(" "), not_after = %in_use.not_after, "a certificate is in use");
                    changed = true;
                    (Some(in_use), None)
                }
                Err(reason) => {
                    let stays = if before.is_some() { "; the one before stays in use" } else { "" };
                    error!("a certificate cannot be used: {reason}{stays}");
                    (before, Some(reason))
                }
            };
            self.known.insert(files.certificate.clone(), Known { files: files.clone(), stamp, in_use, problem });
        }
        changed
    }

    /// Takes away what is configured no more.
    fn sweep(&mut self, configured: &[PairFiles]) -> bool {
        self.known.retain(|path, _| configured.iter().any(|files| files.certificate == *path));
        let wanted: Vec<String> = configured.iter().map(|files| laid_as(&files.certificate)).collect();
        let mut changed = false;
        for entry in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(PREFIX) && !wanted.contains(&name) {
                changed |= fs::remove_file(entry.path()).is_ok();
            }
        }
        changed
    }

    fn take_over(&self, files: &PairFiles) -> Result<InUse, String> {
        let (pair, text) = files.read().map_err(|error| error.to_string())?;
        // Proxies read one file, so what is laid must be a pair as one file, too.
        tls::pair(&files.certificate.display().to_string(), &text, &text).map_err(|error| error.to_string())?;
        write(&self.directory, &laid_as(&files.certificate), &text)
            .map_err(|error| format!("{}: {error}", self.directory.display()))?;
        Ok(InUse::of(&pair))
    }

    /// Whether a certificate from a file is for this host.
    pub(super) fn covers(&self, host: &str) -> bool {
        let in_use = self.known.values().filter_map(|known| known.in_use.as_ref());
        in_use.flat_map(|in_use| &in_use.names).any(|name| tls::covers(name, host))
    }

    pub(super) fn states(&self) -> Vec<CertificateState> {
        let state = |(path, known): (&PathBuf, &Known)| CertificateState {
            subject: path.display().to_string(),
            from_file: true,
            in_use: known.in_use.clone(),
            problem: known.problem.clone(),
            next_order: None,
        };
        self.known.iter().map(state).collect()
    }
}

fn laid_as(path: &Path) -> String {
    let hash = Sha256::digest(path.as_os_str().as_encoded_bytes());
    format!("{PREFIX}{}.pem", hex::encode(&hash[..8]))
}

/// Lays a certificate with its key; nobody but the agent's user can read it.
pub(super) fn write(directory: &Path, name: &str, text: &[u8]) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    whole::write_private(&directory.join(name), &directory.join(format!("{name}.tmp")), text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn lay(path: &Path, host: &str) {
        let key = KeyPair::generate().unwrap();
        let made = CertificateParams::new(vec![host.to_owned()]).unwrap().self_signed(&key).unwrap();
        fs::write(path.with_extension("new"), made.pem() + &key.serialize_pem()).unwrap();
        fs::rename(path.with_extension("new"), path).unwrap();
    }

    #[test]
    fn a_changed_file_is_taken_over_and_a_bad_one_leaves_the_one_before() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a.pem");
        let configured = [PairFiles { certificate: path.clone(), key: path.clone() }];
        let mut files = Files::new(home.path().join("certificates"));
        assert!(!files.look(&configured));
        assert!(files.states()[0].problem.as_ref().unwrap().contains("a.pem"));

        lay(&path, "a.example.com");
        assert!(files.look(&configured) && !files.look(&configured));
        assert!(files.covers("a.example.com") && files.states()[0].problem.is_none());
        let laid = home.path().join("certificates").join(laid_as(&path));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&laid), mode(laid.parent().unwrap())), (0o600, 0o700));

        let before = fs::read(&laid).unwrap();
        fs::write(&path, "nonsense").unwrap();
        assert!(!files.look(&configured));
        assert!(files.states()[0].problem.is_some() && files.covers("a.example.com"));
        assert_eq!(fs::read(&laid).unwrap(), before);

        lay(&path, "b.example.com");
        assert!(files.look(&configured) && files.covers("b.example.com"));
        assert!(files.look(&[]) && !laid.exists() && files.states().is_empty());
    }
}
