//! Signatures by OpenPGP keys, as `gpg` makes them. The `pgp` crate parses and computes; which key may sign what and
//! when is decided here.
//!
//! A key counts with its newest self-signature. Revoked keys, keys outside their dates, subkeys that are not bound to
//! their key from both sides, and signatures over SHA-1 or weaker hashes count nowhere, whatever else speaks for them.

use jiff::Timestamp;
use pgp::composed::{Deserializable, DetachedSignature, SignedPublicKey, SignedPublicSubKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Signature, SignatureType, SubpacketData};
use pgp::ser::Serialize;
use pgp::types::{KeyDetails, PublicParams, Tag, VerifyingKey};

use super::signed::Signed;
use super::{Signer, is_ahead};

const KEY_BLOCK: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----";
/// Smaller RSA keys do not count.
const MIN_RSA_BITS: u16 = 2048;

/// Reads the keys of a file: what `gpg --export` writes, with or without `--armor`, any number of them.
pub(super) fn read_keys(bytes: &[u8]) -> Result<Vec<SignedPublicKey>, String> {
    let text = std::str::from_utf8(bytes).ok().filter(|text| text.contains(KEY_BLOCK));
    let mut keys = Vec::new();
    match text {
        Some(text) => {
            for block in text.split(KEY_BLOCK).skip(1) {
                let block = format!("{KEY_BLOCK}{block}");
                let (found, _) = SignedPublicKey::from_string_many(&block).map_err(|error| error.to_string())?;
                for key in found {
                    keys.push(key.map_err(|error| error.to_string())?);
                }
            }
        }
        None => {
            for key in SignedPublicKey::from_bytes_many(bytes).map_err(|error| error.to_string())? {
                keys.push(key.map_err(|error| error.to_string())?);
            }
        }
    }
    if keys.is_empty() { Err("it holds no public key".to_owned()) } else { Ok(keys) }
}

/// Who signed; an error goes on after "the commit".
pub(super) fn verify(signed: &Signed, keys: &[SignedPublicKey], now: Timestamp) -> Result<Signer, String> {
    let signature = only_signature(&signed.signature)?;
    let made = check_form(&signature, now)?;
    // A key may be there twice, once with its revocation: then that counts.
    let mut verdicts: Vec<Result<Signer, Refused>> = Vec::new();
    for key in keys {
        if is_issuer(&signature, &key.primary_key) {
            verdicts.push(by_primary(key, &signature, &signed.payload, made, now));
        }
        for subkey in key.public_subkeys.iter().filter(|subkey| is_issuer(&signature, &subkey.key)) {
            verdicts.push(by_subkey(key, subkey, &signature, &signed.payload, made, now));
        }
    }
    if let Some(Err(revoked)) = verdicts.iter().find(|verdict| matches!(verdict, Err(refused) if refused.revoked)) {
        return Err(revoked.why.clone());
    }
    let mut refused = None;
    for verdict in verdicts {
        match verdict {
            Ok(signer) => return Ok(signer),
            Err(why) => refused = refused.or(Some(why.why)),
        }
    }
    Err(refused.unwrap_or_else(|| format!("is signed by the OpenPGP key {}, which is not trusted", issuer(&signature))))
}

/// Why a key's signature does not count.
struct Refused {
    revoked: bool,
    why: String,
}

fn refused(why: impl Into<String>) -> Refused {
    Refused { revoked: false, why: why.into() }
}

fn only_signature(armoured: &str) -> Result<Signature, String> {
    let unreadable = |error: pgp::errors::Error| format!("has an OpenPGP signature that cannot be read ({error})");
    let (mut found, _) = DetachedSignature::from_string_many(armoured).map_err(unreadable)?;
    let first = found.next().ok_or("has an empty OpenPGP signature")?.map_err(unreadable)?;
    if found.next().is_some() {
        return Err("has several OpenPGP signatures in one, which is not understood here".to_owned());
    }
    Ok(first.signature)
}

/// What must hold of a signature whoever made it; answers when it was made.
fn check_form(signature: &Signature, now: Timestamp) -> Result<Timestamp, String> {
    if !matches!(signature.typ(), Some(SignatureType::Binary | SignatureType::Text)) {
        return Err("has an OpenPGP signature that is not one over a document".to_owned());
    }
    if !is_strong(signature) {
        let hash = signature.hash_alg().map_or_else(|| "an unknown hash".to_owned(), |hash| hash.to_string());
        return Err(format!(
            "is signed by the OpenPGP key {} over {hash}, which is too weak to be trusted",
            issuer(signature)
        ));
    }
    if has_unknown_conditions(signature) {
        return Err("has an OpenPGP signature with conditions that are not understood here".to_owned());
    }
    let made = created(signature).ok_or("has an OpenPGP signature without a date")?;
    if is_ahead(made, now) {
        return Err(format!("is signed at {made}, which is in the future: compare the clocks"));
    }
    if is_over(signature, made, now) {
        return Err("has an OpenPGP signature whose time is over".to_owned());
    }
    Ok(made)
}

fn by_primary(
    key: &SignedPublicKey,
    signature: &Signature,
    payload: &[u8],
    made: Timestamp,
    now: Timestamp,
) -> Result<Signer, Refused> {
    let name = name(key, &key.primary_key);
    let standing = primary_standing(key, now).map_err(|refused| about(&name, refused))?;
    refuse_dates(&name, &key.primary_key, standing, made, now)?;
    // A key that says nothing about its uses may sign.
    if flags(standing).is_some_and(|flags| !flags.sign()) {
        return Err(refused(format!("is signed by {name}, which is not meant for signing")));
    }
    prove(&name, &key.primary_key, signature, payload)
}

fn by_subkey(
    key: &SignedPublicKey,
    subkey: &SignedPublicSubKey,
    signature: &Signature,
    payload: &[u8],
    made: Timestamp,
    now: Timestamp,
) -> Result<Signer, Refused> {
    let name = name(key, &subkey.key);
    let standing = primary_standing(key, now).map_err(|refused| about(&name, refused))?;
    refuse_dates(&name, &key.primary_key, standing, made, now)?;
    let binding = subkey_standing(key, subkey, now).map_err(|refused| about(&name, refused))?;
    refuse_dates(&name, &subkey.key, binding, made, now)?;
    if !flags(binding).is_some_and(|flags| flags.sign()) {
        return Err(refused(format!("is signed by {name}, a subkey that is not meant for signing")));
    }
    // Without this, somebody could bind another person's subkey to a key of their own.
    let bound_back = binding
        .embedded_signature()
        .is_some_and(|back| is_strong(back) && back.verify_primary_key_binding(&subkey.key, &key.primary_key).is_ok());
    if !bound_back {
        return Err(refused(format!("is signed by {name}, a subkey that does not confirm which key it belongs to")));
    }
    prove(&name, &subkey.key, signature, payload)
}

fn about(name: &str, refused: Refused) -> Refused {
    Refused { why: format!("is signed by {name}, which {}", refused.why), ..refused }
}

fn prove(name: &str, key: &impl VerifyingKey, signature: &Signature, payload: &[u8]) -> Result<Signer, Refused> {
    refuse_weak_key(key.public_params()).map_err(|why| refused(format!("is signed by {name}, {why}")))?;
    signature
        .verify(key, payload)
        .map_err(|_| refused(format!("was changed after it was signed by {name}, or not signed by it at all")))?;
    Ok(name.to_owned())
}

/// The newest valid statement of a key about itself.
fn primary_standing(key: &SignedPublicKey, now: Timestamp) -> Result<&Signature, Refused> {
    let primary = &key.primary_key;
    if key.details.revocation_signatures.iter().any(|revocation| revocation.verify_key(primary).is_ok()) {
        return Err(Refused { revoked: true, why: "is revoked".to_owned() });
    }
    let direct = key.details.direct_signatures.iter().filter(|signature| signature.verify_key(primary).is_ok());
    let of_users = key.details.users.iter().filter_map(|user| {
        let own = |signature: &&Signature| {
            is_issuer(signature, primary) && signature.verify_certification(primary, Tag::UserId, &user.id).is_ok()
        };
        let newest = user.signatures.iter().filter(own).max_by_key(|signature| created(signature))?;
        // A name that was taken back speaks for nothing any more.
        (newest.typ() != Some(SignatureType::CertRevocation)).then_some(newest)
    });
    newest(direct.chain(of_users), now).ok_or_else(|| {
        refused("has no valid signature over itself (one over SHA-1 does not count; `gpg --quick-set-expire` makes a new one)")
    })
}

fn subkey_standing<'k>(
    key: &SignedPublicKey,
    subkey: &'k SignedPublicSubKey,
    now: Timestamp,
) -> Result<&'k Signature, Refused> {
    let bindings = subkey
        .signatures
        .iter()
        .filter(|signature| signature.verify_subkey_binding(&key.primary_key, &subkey.key).is_ok());
    let (revocations, bindings): (Vec<_>, Vec<_>) =
        bindings.partition(|signature| signature.typ() == Some(SignatureType::SubkeyRevocation));
    if !revocations.is_empty() {
        return Err(Refused { revoked: true, why: "is a revoked subkey".to_owned() });
    }
    newest(bindings.into_iter(), now).ok_or_else(|| refused("is not validly bound to its key"))
}

fn newest<'s>(signatures: impl Iterator<Item = &'s Signature>, now: Timestamp) -> Option<&'s Signature> {
    let counts = |signature: &&Signature| {
        let made = created(signature);
        is_strong(signature)
            && !has_unknown_conditions(signature)
            && made.is_some_and(|made| !is_ahead(made, now) && !is_over(signature, made, now))
    };
    signatures.filter(counts).max_by_key(|signature| created(signature))
}

/// A key counts from its creation until it expires: now, and when the signature was made.
fn refuse_dates(
    name: &str,
    key: &impl KeyDetails,
    standing: &Signature,
    made: Timestamp,
    now: Timestamp,
) -> Result<(), Refused> {
    let start = i64::from(key.created_at().as_secs());
    if made.as_second() < start {
        return Err(refused(format!("is signed at {made} by {name}, which did not exist then")));
    }
    let lasts = standing.key_expiration_time().map(|time| i64::from(time.as_secs())).filter(|seconds| *seconds > 0);
    let end = lasts.map(|seconds| start + seconds).filter(|end| made.as_second() >= *end || now.as_second() >= *end);
    match end.and_then(|end| Timestamp::from_second(end).ok()) {
        Some(end) => Err(refused(format!("is signed by {name}, which expired at {end}"))),
        None => Ok(()),
    }
}

fn refuse_weak_key(params: &PublicParams) -> Result<(), &'static str> {
    match params {
        PublicParams::RSA(rsa) => {
            let mut bytes = Vec::new();
            // The modulus comes first, and begins with its length in bits.
            let written = rsa.to_writer(&mut bytes);
            let bits = bytes.first_chunk::<2>().map_or(0, |length| u16::from_be_bytes(*length));
            if written.is_err() || bits < MIN_RSA_BITS { Err("which is shorter than 2048 bits") } else { Ok(()) }
        }
        PublicParams::DSA(_) | PublicParams::Elgamal(_) => Err("and DSA keys are too weak to be trusted"),
        _ => Ok(()),
    }
}

fn flags(signature: &Signature) -> Option<pgp::packet::KeyFlags> {
    let given = signature.config()?.hashed_subpackets().any(|part| matches!(part.data, SubpacketData::KeyFlags(_)));
    given.then(|| signature.key_flags())
}

fn is_strong(signature: &Signature) -> bool {
    matches!(
        signature.hash_alg(),
        Some(
            HashAlgorithm::Sha256
                | HashAlgorithm::Sha384
                | HashAlgorithm::Sha512
                | HashAlgorithm::Sha3_256
                | HashAlgorithm::Sha3_512
        )
    )
}

/// Conditions that are marked as critical bind even those who do not know them.
fn has_unknown_conditions(signature: &Signature) -> bool {
    let unknown = |data: &SubpacketData| {
        matches!(data, SubpacketData::Experimental(..) | SubpacketData::Other(..) | SubpacketData::Notation(_))
    };
    signature
        .config()
        .is_none_or(|config| config.hashed_subpackets().any(|part| part.is_critical && unknown(&part.data)))
}

fn created(signature: &Signature) -> Option<Timestamp> {
    Timestamp::from_second(i64::from(signature.created()?.as_secs())).ok()
}

/// Whether a signature gives itself an end and that is over.
fn is_over(signature: &Signature, made: Timestamp, now: Timestamp) -> bool {
    let lasts = signature.signature_expiration_time().map(|time| i64::from(time.as_secs())).filter(|s| *s > 0);
    lasts.is_some_and(|seconds| now.as_second() >= made.as_second() + seconds)
}

fn is_issuer(signature: &Signature, key: &impl KeyDetails) -> bool {
    let prints = signature.issuer_fingerprint();
    if prints.is_empty() {
        signature.issuer_key_id().contains(&&key.legacy_key_id())
    } else {
        prints.contains(&&key.fingerprint())
    }
}

fn issuer(signature: &Signature) -> String {
    let print = signature.issuer_fingerprint().first().map(|print| format!("{print:X}"));
    let id = || signature.issuer_key_id().first().map(|id| id.to_string().to_uppercase());
    print.or_else(id).unwrap_or_else(|| "(it does not say which)".to_owned())
}

fn name(key: &SignedPublicKey, by: &impl KeyDetails) -> String {
    let user = key.details.users.first().map(|user| String::from_utf8_lossy(user.id.id()).into_owned());
    let user = user.map(|user| format!(" of {}", user.replace(char::is_control, " "))).unwrap_or_default();
    format!("the OpenPGP key {:X}{user}", by.fingerprint())
}
