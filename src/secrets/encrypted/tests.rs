//! Files that the real programs wrote, and what becomes of them when somebody changes them.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::*;

fn vector(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/sops").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn identities() -> Identities {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("identity.txt");
    std::fs::write(&file, vector("identity.txt")).unwrap();
    let closed = std::fs::Permissions::from_mode(0o604);
    std::fs::set_permissions(&file, closed).unwrap();
    assert!(Identities::read(std::slice::from_ref(&file)).unwrap_err().contains("chmod 600"));
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    Identities::read(&[file]).unwrap()
}

fn opened(name: &str, file: &[u8]) -> Result<Vec<(String, String)>, String> {
    let variables = variables(name, file, &identities())?;
    Ok(variables.into_iter().map(|(name, value)| (name, value.expose().to_owned())).collect())
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// A vector with one text in place of another.
fn changed(name: &str, from: &str, to: &str) -> Result<Vec<(String, String)>, String> {
    let text = String::from_utf8(vector(name)).unwrap();
    assert!(text.contains(from), "{name} has no {from}");
    opened(name, text.replacen(from, to, 1).as_bytes())
}

#[test]
fn files_of_the_real_programs_open() {
    let yaml = pairs(&[
        ("DEBUG", "true"),
        ("EMPTY", ""),
        ("PORT_NUMBER", "8443"),
        ("RATE", "1.5"),
        ("TEXT", "two\nlines: ß\n"),
        ("TOKEN", "of-a-yaml-file"),
        ("region_unencrypted", "north"),
    ]);
    assert_eq!(opened("secrets.yaml", &vector("secrets.yaml")).unwrap(), yaml);
    assert_eq!(opened("only-encrypted.yaml", &vector("only-encrypted.yaml")).unwrap(), yaml);
    let json = pairs(&[("DEBUG", "false"), ("PORT_NUMBER", "8443"), ("RATE", "1.5"), ("TOKEN", "of-a-json-file")]);
    assert_eq!(opened("secrets.json", &vector("secrets.json")).unwrap(), json);
    let dotenv = pairs(&[("QUOTED", "\"as it is\""), ("TEXT", "two\nlines"), ("TOKEN", "of-a-dotenv-file")]);
    for name in ["secrets.env", "secrets.env.age", "armoured.env.age"] {
        assert_eq!(opened(name, &vector(name)).unwrap(), dotenv, "{name}");
    }
}

#[test]
fn what_was_changed_without_sops_is_refused() {
    for (from, to) in [
        // A value that is not sealed, one in the place of another, one that is gone, one that is added, a swapped order.
        ("region_unencrypted: north", "region_unencrypted: south"),
        ("EMPTY: \"\"", "EMPTY: full"),
        ("region_unencrypted: north\n", ""),
        ("NOTHING: null", "OTHER_unencrypted: more"),
    ] {
        let why = changed("secrets.yaml", from, to).unwrap_err();
        assert!(why.contains("its MAC was made for"), "{from}: {why}");
    }
    for (from, to) in [
        ("TOKEN: ENC", "MOVED: ENC"),
        ("data:B7ujXHf", "data:B7ujXHg"),
        ("type:str]\nPORT", "type:none]\nPORT"),
        ("lastmodified: \"2026", "lastmodified: \"2027"),
    ] {
        let why = changed("secrets.yaml", from, to).unwrap_err();
        assert!(why.contains("was changed without SOPS"), "{from}: {why}");
    }
    // Values that are not encrypted may be edited where the file says so, others not.
    assert!(changed("only-encrypted.yaml", "region_unencrypted: north", "region_unencrypted: south").is_ok());
    assert!(changed("only-encrypted.yaml", "mac_only_encrypted: true", "mac_only_encrypted: false").is_err());
}

#[test]
fn a_file_that_cannot_be_used_says_why() {
    let recipient = identities().recipients().remove(0);
    for (name, file, parts) in [
        ("for-another.yaml", vector("for-another.yaml"), ["it is encrypted for age1", recipient.as_str()]),
        ("nested.yaml", vector("nested.yaml"), ["`db` in it has parts", "at the top"]),
        ("secrets.toml", vector("secrets.json"), [".yaml", ".age"]),
        ("plain.yaml", b"TOKEN: v\n".to_vec(), ["not encrypted by SOPS", "sops encrypt --age"]),
        ("broken.yaml", b"TOKEN: [\n".to_vec(), ["not YAML", "line"]),
        ("broken.age", b"TOKEN=v\n".to_vec(), ["not a file of age", ""]),
    ] {
        let why = opened(name, &file).unwrap_err();
        assert!(parts.iter().all(|part| why.contains(part)), "{name}: {why}");
    }
    let none = variables("secrets.yaml", &vector("secrets.yaml"), &Identities::default()).unwrap_err();
    assert!(none.contains("secrets.age_identity_files"), "{none}");
    let printed = format!("{:?}", identities());
    assert!(printed.contains("age1") && !printed.contains("SECRET"), "{printed}");
}
