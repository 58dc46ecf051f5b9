//! The key that a source signs in with: read from its file at every connection, used once, forgotten.
//!
//! RSA keys sign with ring. Of the crate `rsa`, which russh brings for host keys, only what needs no private key
//! is used: its private operations leak through their timing (RUSTSEC-2023-0071).
//!
//! Invariant: neither key nor passphrase is in any message; the fingerprint is.

use std::sync::Arc;

use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RsaKeyPair};
use russh::client::{AuthResult, Handle};
use russh::keys::agent::AgentIdentity;
use russh::keys::ssh_encoding::Encode;
use russh::keys::{Algorithm, HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey, decode_secret_key};

use super::super::super::error::{SourceErrorKind, Trouble};
use super::client::Client;
use super::files::{self, Holds};
use super::known_hosts::fingerprint;
use crate::files::config::SshConfig;

/// A private key, ready to sign.
pub(super) struct Key {
    private: Arc<PrivateKey>,
    rsa: Option<RsaKeyPair>,
}

impl Key {
    /// Reads the key, and the passphrase if it needs one.
    pub(super) fn read(config: &SshConfig) -> Result<Self, Trouble> {
        let place = config.key_file.display();
        let bad = |what: String, mend: &str| Trouble::new(SourceErrorKind::Credentials, what, mend);
        let text = files::read(&config.key_file, "key_file", Holds::Secret)?;
        if let Some(kind) =
            text.split_whitespace().next().filter(|word| word.starts_with("ssh-") || word.starts_with("ecdsa-"))
        {
            let what = format!("{place} is a public key ({kind})");
            return Err(bad(what, "name the private key, the file without `.pub`, as `git.ssh.key_file`"));
        }
        let private = match decode_secret_key(&text, None) {
            Ok(key) => key,
            Err(_) if is_encrypted(&text) => Self::decrypt(&text, config)?,
            Err(error) => {
                let what = format!("{place} is not a private key that can be read: {error}");
                return Err(bad(what, "make one with: ssh-keygen -t ed25519"));
            }
        };
        let rsa = match private.algorithm() {
            Algorithm::Ed25519 | Algorithm::Ecdsa { .. } => None,
            Algorithm::Rsa { .. } => Some(rsa(&private).map_err(|reason| {
                bad(format!("the RSA key {place} cannot be used: {reason}"), "make another with: ssh-keygen -t ed25519")
            })?),
            other => {
                let what = format!("{place} is a key of type {other}, which is not supported");
                return Err(bad(what, "make an ed25519, ecdsa or rsa key, for example with: ssh-keygen -t ed25519"));
            }
        };
        Ok(Self { private: Arc::new(private), rsa })
    }

    fn decrypt(text: &str, config: &SshConfig) -> Result<PrivateKey, Trouble> {
        let place = config.key_file.display();
        let Some(path) = &config.passphrase_file else {
            let what = format!("the key {place} is encrypted, and no passphrase is configured");
            let mend = format!(
                "set `git.ssh.passphrase_file`, or remove the passphrase with: ssh-keygen -p -f {}",
                files::quoted(&place.to_string())
            );
            return Err(Trouble::new(SourceErrorKind::Credentials, what, mend));
        };
        let passphrase = files::read(path, "passphrase_file", Holds::Secret)?;
        // Editors and `echo` end a file with a line end, which nobody means.
        let passphrase =
            passphrase.strip_suffix('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).unwrap_or(&passphrase);
        decode_secret_key(text, Some(passphrase)).map_err(|_| {
            let what = format!("the passphrase in {} does not open the key {place}", path.display());
            let mend = format!("check it with: ssh-keygen -y -f {}", files::quoted(&place.to_string()));
            Trouble::new(SourceErrorKind::Credentials, what, mend)
        })
    }

    pub(super) fn fingerprint(&self) -> String {
        fingerprint(self.private.public_key())
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        self.private.algorithm()
    }

    /// The line that a forge or an `authorized_keys` file wants.
    pub(super) fn public(&self) -> String {
        PublicKey::from(self.private.public_key().key_data().clone()).to_openssh().unwrap_or_default().trim().to_owned()
    }

    /// Signs in as `user`.
    pub(super) async fn sign_in(&self, handle: &mut Handle<Client>, user: &str) -> Result<AuthResult, russh::Error> {
        let Some(pair) = &self.rsa else {
            let key = PrivateKeyWithHashAlg::new(Arc::clone(&self.private), None);
            return handle.authenticate_publickey(user, key).await;
        };
        // A server that does not tell what it takes takes these two; SHA-1 is never used.
        let hash = match handle.best_supported_rsa_hash().await? {
            Some(Some(hash)) => hash,
            Some(None) | None => HashAlg::Sha512,
        };
        let public = self.private.public_key().clone();
        handle
            .authenticate_publickey_with(user, public, Some(hash), &mut RsaSigner(pair))
            .await
            .map_err(|error| error.0)
    }
}

/// What marks an encrypted key in each of the formats: its armour, or within it.
fn is_encrypted(text: &str) -> bool {
    let inside = || PrivateKey::from_openssh(text).is_ok_and(|key| key.is_encrypted());
    let putty = text.lines().any(|line| line.strip_prefix("Encryption: ").is_some_and(|how| how.trim() != "none"));
    text.contains("ENCRYPTED") || putty || inside()
}

fn rsa(private: &PrivateKey) -> Result<RsaKeyPair, String> {
    let der = russh::keys::pkcs8::encode_pkcs8(private).map_err(|error| error.to_string())?;
    RsaKeyPair::from_pkcs8(&der).map_err(|rejected| format!("{rejected}; it must have 2048 to 4096 bits"))
}

struct RsaSigner<'a>(&'a RsaKeyPair);

/// What the signer's trait wants an error to be.
struct SignError(russh::Error);

impl From<russh::SendError> for SignError {
    fn from(_: russh::SendError) -> Self {
        Self(russh::Error::SendError)
    }
}

impl russh::Signer for RsaSigner<'_> {
    type Error = SignError;

    async fn auth_sign(
        &mut self,
        _: &AgentIdentity,
        hash: Option<HashAlg>,
        data: Vec<u8>,
    ) -> Result<Vec<u8>, SignError> {
        sign(self.0, hash.unwrap_or(HashAlg::Sha512), data).map_err(SignError)
    }
}

/// The request with its signature behind it: a string that holds the name of the algorithm and the signature.
fn sign(pair: &RsaKeyPair, hash: HashAlg, mut data: Vec<u8>) -> Result<Vec<u8>, russh::Error> {
    let (padding, name): (&'static dyn ring::signature::RsaEncoding, &str) = match hash {
        HashAlg::Sha256 => (&RSA_PKCS1_SHA256, "rsa-sha2-256"),
        _ => (&RSA_PKCS1_SHA512, "rsa-sha2-512"),
    };
    let mut signature = vec![0; pair.public().modulus_len()];
    pair.sign(padding, &SystemRandom::new(), &data, &mut signature).map_err(|_| russh::Error::Inconsistent)?;
    let mut blob = Vec::with_capacity(signature.len() + 32);
    name.encode(&mut blob)?;
    signature.encode(&mut blob)?;
    blob.encode(&mut data)?;
    Ok(data)
}
