//! Files that SOPS encrypted: values sealed one by one with AES-256-GCM, each bound to its path; their key wrapped for age
//! recipients; a MAC over the values in the order of the file, sealed and bound to the time of the last change.
//!
//! ```text
//! ENC[AES256_GCM,data:<base64>,iv:<base64, 32 bytes>,tag:<base64>,type:str|int|float|bool|bytes|time|comment]
//! MAC = SHA-512 in capital hexadecimal digits over all values, booleans as True and False, comments left out
//! ```
//!
//! Written from the format's own documentation and held against files of the real program (`tests/data/sops`).

use aes_gcm::aead::consts::U32;
use aes_gcm::aead::{Aead, Payload};
use aes_gcm::aes::Aes256;
use aes_gcm::{AesGcm, KeyInit, Nonce};
use sha2::{Digest, Sha256, Sha512};
use subtle::ConstantTimeEq;

use super::document::{self, Format, Plain, Value};
use super::{OpenError, for_others};
use crate::domain::{base64, hex};
use crate::secrets::identities::Identities;

/// The key under which a file tells of its encryption; in flat files the beginning of all such keys.
const METADATA: &str = "sops";
const FLAT: &str = "sops_";
/// Most recipients that are tried.
const MAX_RECIPIENTS: usize = 256;
/// A MAC over encrypted values alone begins with the SHA-256 of this, so that it is never one over all.
const ONLY_ENCRYPTED: &str = "sops";

type Cipher = AesGcm<Aes256, U32>;

/// What a file says of its encryption.
struct Metadata {
    /// Recipients, and the values' key wrapped for each.
    wrapped: Vec<(String, String)>,
    last_modified: String,
    mac: String,
    /// The MAC is over encrypted values alone.
    only_encrypted: bool,
}

/// The values of a file, opened, if the file is as SOPS left it.
pub(super) fn open(format: Format, text: &str, identities: &Identities) -> Result<Vec<(String, Value)>, String> {
    let mut entries = document::read(format, text)?;
    let metadata = match format {
        Format::Dotenv => flat_metadata(&mut entries),
        Format::Yaml | Format::Json | Format::Age => metadata(&mut entries),
    };
    let metadata = metadata.ok_or(
        "it is not encrypted by SOPS for age recipients; write it anew with `sops encrypt --age RECIPIENT`, without \
         key groups",
    )?;
    let cipher = Cipher::new_from_slice(&data_key(&metadata, identities)?).map_err(|_| damaged())?;
    let mut opening = Opening { cipher, hash: Sha512::new(), only_encrypted: metadata.only_encrypted };
    if metadata.only_encrypted {
        opening.hash.update(Sha256::digest(ONLY_ENCRYPTED));
    }
    for (name, value) in &mut entries {
        opening.value(&mut vec![name.clone()], value)?;
    }
    let Some(Opened::Value(Plain::Text(expected))) = opening.sealed(&metadata.mac, &metadata.last_modified) else {
        return Err(damaged());
    };
    let found = hex::encode(&opening.hash.finalize()).to_uppercase();
    if !bool::from(found.as_bytes().ct_eq(expected.as_bytes())) {
        return Err("it was changed without SOPS: its values are not those that its MAC was made for; take back the \
                    change and edit it with `sops`"
            .to_owned());
    }
    Ok(entries)
}

fn damaged() -> String {
    "a value in it does not open with the file's own key: it was changed without SOPS, or moved to another name"
        .to_owned()
}

/// What a YAML or JSON file says of its encryption, taken out of it.
fn metadata(entries: &mut Vec<(String, Value)>) -> Option<Metadata> {
    let index = entries.iter().position(|(name, _)| name == METADATA)?;
    let (_, sops) = entries.remove(index);
    let text = |of: &Value, name: &str| of.get(name).and_then(Value::text).map(str::to_owned);
    let Value::List(recipients) = sops.get("age")? else { return None };
    Some(Metadata {
        wrapped: recipients.iter().filter_map(|one| Some((text(one, "recipient")?, text(one, "enc")?))).collect(),
        last_modified: text(&sops, "lastmodified")?,
        mac: text(&sops, "mac")?,
        only_encrypted: matches!(sops.get("mac_only_encrypted"), Some(Value::Plain(Plain::Bool(true)))),
    })
}

/// What a flat file says of its encryption, taken out of it.
fn flat_metadata(entries: &mut Vec<(String, Value)>) -> Option<Metadata> {
    let (own, rest): (Vec<_>, Vec<_>) = entries.drain(..).partition(|(name, _)| name.starts_with(FLAT));
    *entries = rest;
    let own = Value::Map(own);
    let text = |name: &str| own.get(&format!("{FLAT}{name}")).and_then(Value::text).map(str::to_owned);
    let one = |index: usize| {
        let part = |name: &str| text(&format!("age__list_{index}__map_{name}"));
        Some((part("recipient")?, part("enc")?))
    };
    let wrapped: Vec<_> = (0..MAX_RECIPIENTS).map_while(one).collect();
    Some(Metadata {
        wrapped: Some(wrapped).filter(|wrapped| !wrapped.is_empty())?,
        last_modified: text("lastmodified")?,
        mac: text("mac")?,
        only_encrypted: text("mac_only_encrypted").as_deref() == Some("true"),
    })
}

/// The key of a file's values, unwrapped by the first recipient that is one of ours.
fn data_key(metadata: &Metadata, identities: &Identities) -> Result<Vec<u8>, String> {
    let mut why = OpenError::NoIdentity;
    for (_, wrapped) in metadata.wrapped.iter().take(MAX_RECIPIENTS) {
        match identities.open(wrapped.as_bytes()) {
            Ok(key) => return Ok(key),
            Err(OpenError::NoIdentity) => {}
            Err(error) => why = error,
        }
    }
    let recipients: Vec<&str> = metadata.wrapped.iter().map(|(recipient, _)| recipient.as_str()).collect();
    match why {
        OpenError::NoIdentity => Err(for_others(&recipients, identities)),
        OpenError::Damaged | OpenError::TooLong => Err(format!("the key of its values cannot be had: {why}")),
    }
}

/// A number as SOPS writes it, for whom integers and others differ: without an exponent or superfluous digits.
fn number(text: &str) -> String {
    let whole = text.strip_prefix('-').unwrap_or(text).bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<f64>() {
        Ok(value) if !whole => value.to_string(),
        Ok(_) | Err(_) => text.to_owned(),
    }
}

struct Opening {
    cipher: Cipher,
    hash: Sha512,
    only_encrypted: bool,
}

/// What was sealed.
enum Opened {
    Value(Plain),
    /// A comment that stands where a value could.
    Comment,
}

impl Opening {
    /// Opens everything below a value in its place, and takes it into the hash.
    fn value(&mut self, path: &mut Vec<String>, value: &mut Value) -> Result<(), String> {
        match value {
            Value::Map(entries) => {
                for (name, value) in entries {
                    path.push(name.clone());
                    self.value(path, value)?;
                    path.pop();
                }
                Ok(())
            }
            // Places in a list have no name.
            Value::List(items) => items.iter_mut().try_for_each(|item| self.value(path, item)),
            Value::Plain(plain) => self.plain(path, plain),
        }
    }

    fn plain(&mut self, path: &[String], plain: &mut Plain) -> Result<(), String> {
        let sealed = match plain {
            Plain::Text(text) if text.starts_with("ENC[") => Some(text.as_str()),
            Plain::Text(_) | Plain::Null | Plain::Number(_) | Plain::Bool(_) => None,
        };
        let was_sealed = sealed.is_some();
        if let Some(sealed) = sealed {
            match self.sealed(sealed, &format!("{}:", path.join(":"))) {
                Some(Opened::Value(opened)) => *plain = opened,
                Some(Opened::Comment) => {
                    *plain = Plain::Null;
                    return Ok(());
                }
                None => return Err(damaged()),
            }
        }
        if let Plain::Number(text) = plain {
            *text = number(text);
        }
        if was_sealed || !self.only_encrypted {
            match &*plain {
                Plain::Null => {}
                Plain::Text(text) | Plain::Number(text) => self.hash.update(text),
                Plain::Bool(value) => self.hash.update(if *value { "True" } else { "False" }),
            }
        }
        Ok(())
    }

    /// Opens `ENC[…]`; `None` if it was changed, or was sealed for another place.
    fn sealed(&self, text: &str, place: &str) -> Option<Opened> {
        let inner = text.strip_prefix("ENC[AES256_GCM,")?.strip_suffix(']')?;
        let mut parts = inner.split(',');
        let mut part = |name: &str| parts.next()?.strip_prefix(name)?.strip_prefix(':');
        let (data, iv, tag, kind) = (part("data")?, part("iv")?, part("tag")?, part("type")?);
        let nonce: Nonce<U32> = <[u8; 32]>::try_from(base64::decode(iv)?).ok()?.into();
        let msg = [base64::decode(data)?, base64::decode(tag)?].concat();
        let bytes = self.cipher.decrypt(&nonce, Payload { msg: &msg, aad: place.as_bytes() }).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        Some(match kind {
            "str" | "bytes" | "time" => Opened::Value(Plain::Text(text)),
            "int" | "float" => Opened::Value(Plain::Number(text)),
            "bool" => Opened::Value(Plain::Bool(text.eq_ignore_ascii_case("true"))),
            "comment" => Opened::Comment,
            _ => return None,
        })
    }
}
