//! Signatures by SSH keys, as `git -c gpg.format=ssh` makes them.

use jiff::Timestamp;
use ssh_key::{Algorithm, HashAlg, PublicKey, SshSig};

use super::allowed_signers::AllowedSigner;
use super::signed::Signed;
use super::{Signer, is_ahead};

/// What git signs its objects as.
const NAMESPACE: &str = "git";
/// Smaller RSA keys do not count.
const MIN_RSA_BITS: usize = 2048;
/// In a signature by a security key, the bit that says that somebody touched it.
const TOUCHED: u8 = 1;

/// Who signed; an error goes on after "the commit".
pub(super) fn verify(signed: &Signed, signers: &[AllowedSigner], now: Timestamp) -> Result<Signer, String> {
    let signature = SshSig::from_pem(signed.signature.trim_end())
        .map_err(|error| format!("has an SSH signature that cannot be read ({error})"))?;
    let key = PublicKey::from(signature.public_key().clone());
    let name = format!("the SSH key {}", key.fingerprint(HashAlg::Sha256));
    if signature.namespace() != NAMESPACE {
        return Err(format!(
            "carries a signature by {name} that was made for `{}`, not for `{NAMESPACE}`",
            signature.namespace()
        ));
    }
    let known: Vec<&AllowedSigner> = signers.iter().filter(|signer| signer.key == *key.key_data()).collect();
    if known.is_empty() {
        return Err(format!("is signed by {name}, which is not trusted"));
    }
    let Some(signer) = known.iter().find(|signer| signer.may_sign(NAMESPACE)) else {
        return Err(format!("is signed by {name}, which is trusted for other `namespaces` than `{NAMESPACE}`"));
    };
    if is_ahead(signed.made, now) {
        return Err(format!("is dated {}, which is in the future: compare the clocks", signed.made));
    }
    let signer = known.iter().find(|signer| signer.may_sign(NAMESPACE) && signer.counts_at(now)).unwrap_or(signer);
    if !signer.counts_at(now) || !signer.counts_at(signed.made) {
        return Err(format!("is signed at {} by {name}, which is {}", signed.made, signer.dates()));
    }
    refuse_weak(&key, &signature).map_err(|why| format!("is signed by {name}, {why}"))?;
    key.verify(NAMESPACE, &signed.payload, &signature)
        .map_err(|_| format!("was changed after it was signed by {name}, or not signed by it at all"))?;
    Ok(format!("{name} of {}", signer.principals))
}

fn refuse_weak(key: &PublicKey, signature: &SshSig) -> Result<(), &'static str> {
    match key.algorithm() {
        Algorithm::Rsa { .. } => {
            let bits = key.key_data().rsa().and_then(|key| key.n.as_positive_bytes()).map_or(0, |n| n.len() * 8);
            if bits < MIN_RSA_BITS { Err("which is shorter than 2048 bits") } else { Ok(()) }
        }
        Algorithm::Dsa => Err("and DSA keys are too weak to be trusted"),
        Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256 => {
            // One byte of flags and a counter of four follow the signature proper.
            let bytes = signature.signature_bytes();
            let flags = bytes.len().checked_sub(5).and_then(|at| bytes.get(at)).copied().unwrap_or_default();
            if flags & TOUCHED == 0 { Err("without anybody's touch of the security key") } else { Ok(()) }
        }
        _ => Ok(()),
    }
}
