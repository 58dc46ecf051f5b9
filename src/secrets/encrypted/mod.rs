//! Encrypted files of an app's tree: variables that lie in git, readable by those they were encrypted for.
//!
//! ```text
//! name.yaml, .yml, .json, .env   SOPS: values sealed one by one, their key wrapped for age recipients, a MAC over all
//! name.age                       age: a whole file of lines NAME=value
//! ```
//!
//! Pure: bytes in, variables or a reason out. Invariants: nothing of a file is handed out before all of it is known to be
//! as it was encrypted; a reason holds no value, encrypted or not, and names only recipients.

mod document;
mod sops;

use std::collections::BTreeMap;

use self::document::{Format, Plain, Value};
use super::identities::{Identities, OpenError};
use crate::domain::Secret;
use crate::files::forms;

/// Longest file, in bytes.
pub const MAX_FILE: usize = 1024 * 1024;
/// Most variables of a file.
const MAX_VARIABLES: usize = 512;

/// The variables of a file with this name. An error says why they cannot be had, and the mend; not which file it is.
pub fn variables(name: &str, file: &[u8], identities: &Identities) -> Result<BTreeMap<String, Secret>, String> {
    if file.len() > MAX_FILE {
        return Err(format!("it has more than {MAX_FILE} bytes"));
    }
    if identities.is_empty() {
        return Err(
            "the agent has no age identity; name its file in `secrets.age_identity_files` of the configuration"
                .to_owned(),
        );
    }
    let values = match Format::of(name) {
        Some(Format::Age) => {
            let content = identities.open(file).map_err(|error| match error {
                OpenError::NoIdentity => for_others(&[], identities),
                OpenError::Damaged | OpenError::TooLong => error.to_string(),
            })?;
            document::dotenv(text(&content)?)?
        }
        Some(format) => sops::open(format, text(file)?, identities)?,
        None => {
            return Err("its name ends in none of .yaml, .yml, .json, .env (encrypted by SOPS) and .age".to_owned());
        }
    };
    if values.len() > MAX_VARIABLES {
        return Err(format!("it holds more than {MAX_VARIABLES} variables"));
    }
    let mut variables = BTreeMap::new();
    for (name, value) in values {
        if let Some(value) = variable(&name, value)? {
            variables.insert(name, value);
        }
    }
    Ok(variables)
}

/// Whose a file is, if not the agent's.
fn for_others(recipients: &[&str], identities: &Identities) -> String {
    let known: Vec<&str> = recipients.iter().copied().filter(|text| super::identities::is_recipient(text)).collect();
    let whose = if known.is_empty() { String::new() } else { format!(" (it is encrypted for {})", known.join(", ")) };
    format!(
        "{}{whose}; encrypt it for {} as well, or add an identity file to `secrets.age_identity_files`",
        OpenError::NoIdentity,
        identities.recipients().join(" or ")
    )
}

fn text(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|_| "it is not text".to_owned())
}

/// The value of a key as a variable; `None` for one that has none.
fn variable(name: &str, value: Value) -> Result<Option<Secret>, String> {
    let value = match value {
        Value::Plain(Plain::Null) => return Ok(None),
        Value::Plain(Plain::Text(text) | Plain::Number(text)) => text,
        Value::Plain(Plain::Bool(value)) => value.to_string(),
        Value::List(_) | Value::Map(_) => {
            return Err(format!("`{name}` in it has parts; a variable is one value at the top of the file"));
        }
    };
    if let Err(problem) = (forms::VARIABLE_NAME.check)(name) {
        return Err(format!("`{name}` in it cannot be a variable: {}", problem.message));
    }
    match value {
        value if value.len() > Secret::LONGEST => Err(format!("`{name}` has more than {} bytes", Secret::LONGEST)),
        value if value.contains('\0') => Err(format!("`{name}` holds a NUL, and cannot be a variable")),
        value => Ok(Some(Secret::new(value))),
    }
}

#[cfg(test)]
mod tests;
