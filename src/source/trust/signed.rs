//! What is signed in a repository: the bytes of a commit or a tag, and the signature over them.

use git2::{ErrorCode, ObjectType, Oid, Repository};
use jiff::Timestamp;

use super::FollowedTag;
use crate::source::error::Trouble;

/// Whose format a signature has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// `ssh-keygen -Y sign`.
    Ssh,
    /// `gpg --detach-sign`.
    OpenPgp,
}

/// A signature and what it covers.
#[derive(Debug)]
pub(super) struct Signed {
    /// The subject of messages: `the commit` or ``the tag `v1` ``.
    pub what: String,
    /// How it is signed rightly.
    pub mend: String,
    pub format: Format,
    /// In its armour.
    pub signature: String,
    pub payload: Vec<u8>,
    /// When the object says it was made.
    pub made: Timestamp,
}

/// What begins a signature that git knows.
const BEGINNINGS: [(&str, Option<Format>); 4] = [
    ("-----BEGIN SSH SIGNATURE-----", Some(Format::Ssh)),
    ("-----BEGIN PGP SIGNATURE-----", Some(Format::OpenPgp)),
    ("-----BEGIN PGP MESSAGE-----", Some(Format::OpenPgp)),
    ("-----BEGIN SIGNED MESSAGE-----", None),
];

const SIGN_COMMIT: &str = "sign a commit (`git commit -S`)";

/// The signature of a commit; the inner error says why there is none.
pub(super) fn commit(repository: &Repository, commit: Oid) -> Result<Result<Signed, String>, Trouble> {
    let made = time(repository.find_commit(commit)?.committer().when())?;
    let (signature, payload) = match repository.extract_signature(&commit, None) {
        Ok(found) => found,
        Err(error) if error.code() == ErrorCode::NotFound => {
            return Ok(Err(format!("the commit is not signed; {SIGN_COMMIT} with a trusted key, and push")));
        }
        Err(error) => return Err(error.into()),
    };
    let signature = String::from_utf8_lossy(&signature).into_owned();
    Ok(format_of(&signature).map_err(|problem| format!("the commit {problem}; {SIGN_COMMIT}, and push")).map(
        |format| {
            let (what, mend) = ("the commit".to_owned(), SIGN_COMMIT.to_owned());
            Signed { what, mend, format, signature, payload: payload.to_vec(), made }
        },
    ))
}

/// The signature of the tag that is followed, which must lead straight to `commit` and carry its own name: a signed tag
/// put under another name is an old decision passed off as a new one.
pub(super) fn tag(
    repository: &Repository,
    commit: Oid,
    followed: Option<FollowedTag<'_>>,
) -> Result<Result<Signed, String>, Trouble> {
    let Some(followed) = followed else {
        return Ok(Err(
            "no tag is followed, and only tags are verified; follow a `tag`, or set `verify.mode: commit`".into()
        ));
    };
    let (what, mend) = (format!("the tag `{}`", followed.name), format!("sign it (`git tag -s -f {}`)", followed.name));
    let Some(id) = repository.find_reference(followed.reference)?.resolve()?.target() else {
        return Err(Trouble::corrupt(format!("{} names nothing", followed.reference)));
    };
    let odb = repository.odb()?;
    let object = odb.read(id)?;
    if object.kind() != ObjectType::Tag {
        return Ok(Err(format!("{what} is only a name without a signature; {mend}, and push it")));
    }
    let tag = repository.find_tag(id)?;
    if tag.name_bytes() != followed.name.as_bytes() {
        let own = String::from_utf8_lossy(tag.name_bytes());
        return Ok(Err(format!("{what} is a copy of the tag `{own}` under another name; {mend}, and push it")));
    }
    if tag.target_id() != commit {
        return Ok(Err(format!("{what} does not lead to the commit directly; {mend}, and push it")));
    }
    let made = match tag.tagger() {
        Some(tagger) => time(tagger.when())?,
        None => return Ok(Err(format!("{what} does not say who made it and when; {mend}, and push it"))),
    };
    let Some((payload, signature)) = split(object.data()) else {
        return Ok(Err(format!("{what} is not signed; {mend} with a trusted key, and push it")));
    };
    let signature = String::from_utf8_lossy(signature).into_owned();
    Ok(format_of(&signature).map_err(|problem| format!("{what} {problem}; {mend}, and push it")).map(|format| Signed {
        what,
        mend,
        format,
        signature,
        payload: payload.to_vec(),
        made,
    }))
}

/// A tag ends with its signature: what begins at the last line that begins one.
fn split(tag: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut starts =
        std::iter::once(0).chain(tag.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1));
    let begins = |at: &usize| BEGINNINGS.iter().any(|(beginning, _)| tag[*at..].starts_with(beginning.as_bytes()));
    starts.rfind(begins).map(|at| tag.split_at(at))
}

fn format_of(signature: &str) -> Result<Format, String> {
    let known = BEGINNINGS.iter().find(|(beginning, _)| signature.trim_start().starts_with(beginning));
    match known {
        Some((_, Some(format))) => Ok(*format),
        Some((_, None)) => {
            Err("has an X.509 signature, which cannot be checked here; use an SSH or OpenPGP key".into())
        }
        None => Err("has a signature of a kind that is not known here; use an SSH or OpenPGP key".into()),
    }
}

fn time(time: git2::Time) -> Result<Timestamp, Trouble> {
    Timestamp::from_second(time.seconds()).map_err(|error| Trouble::corrupt(format!("a date out of range: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_split_where_its_last_signature_begins() {
        let text = "object 1\n\nquoted:\n-----BEGIN PGP SIGNATURE-----\nx\n-----BEGIN SSH SIGNATURE-----\ny\n";
        let (payload, signature) = split(text.as_bytes()).expect("signed");
        assert!(payload.ends_with(b"x\n"));
        assert!(signature.starts_with(b"-----BEGIN SSH"));
        assert!(split(b"object 1\n\nwords -----BEGIN SSH SIGNATURE-----\n").is_none());
    }
}
