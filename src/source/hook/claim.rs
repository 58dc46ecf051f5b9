//! What the headers of a hook claim: the provider, the event, and the proofs.
//!
//! One rule per request: the first of the signature headers below that is there decides the provider; which others may
//! stand beside it is fixed (Forgejo and Gitea sign for the programs of older forges as well), and all of them must
//! hold. A header that does not belong to the provider, or that comes twice, is a reason to refuse.

use std::fmt;

use http::HeaderMap;

use super::proof::Proof;
use crate::domain::Provider;

/// The signature header of older GitHubs, and Bitbucket's.
const HUB: &str = "x-hub-signature";

/// Headers that prove, the most telling first.
const SIGNATURES: [(&str, Provider); 7] = [
    ("x-landfall-signature", Provider::Landfall),
    ("x-gitlab-token", Provider::GitLab),
    ("x-forgejo-signature", Provider::Forgejo),
    ("x-gitea-signature", Provider::Gitea),
    ("x-gogs-signature", Provider::Gogs),
    ("x-hub-signature-256", Provider::GitHub),
    (HUB, Provider::Bitbucket),
];

/// Headers that name the event.
const EVENTS: [(&str, Provider); 7] = [
    ("x-landfall-event", Provider::Landfall),
    ("x-gitlab-event", Provider::GitLab),
    ("x-forgejo-event", Provider::Forgejo),
    ("x-gitea-event", Provider::Gitea),
    ("x-gogs-event", Provider::Gogs),
    ("x-github-event", Provider::GitHub),
    ("x-event-key", Provider::Bitbucket),
];

/// Longest name of an event that is looked at.
const MAX_EVENT: usize = 100;

/// What the headers of a hook claim.
pub struct Claim {
    provider: Provider,
    event: Option<String>,
    proofs: Vec<Proof>,
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A token is the secret itself.
        f.debug_struct("Claim").field("provider", &self.provider).field("event", &self.event).finish_non_exhaustive()
    }
}

/// Why headers are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// Nothing is signed.
    #[error("the hook is not signed")]
    Missing,
    /// A header that must be there once comes several times.
    #[error("the header `{0}` comes more than once")]
    Repeated(&'static str),
    /// A header does not fit to the one that decides the provider.
    #[error("the header `{header}` does not belong into a hook of {provider}")]
    Contradicting {
        /// Which.
        header: &'static str,
        /// Whose hook it is.
        provider: Provider,
    },
    /// The value of a header does not have its form.
    #[error("the value of `{0}` does not have the form of a signature")]
    Malformed(&'static str),
    /// The event has a name that no event has.
    #[error("the event's name cannot be read")]
    Event,
}

impl ClaimError {
    /// What to do.
    pub fn mend(&self) -> &'static str {
        match self {
            ClaimError::Missing => {
                "give the forge the secret of the source's `webhook`, so that it signs what it sends; other programs send `X-Landfall-Signature: sha256=<HMAC-SHA256 of the body in hex>`"
            }
            ClaimError::Repeated(_)
            | ClaimError::Contradicting { .. }
            | ClaimError::Malformed(_)
            | ClaimError::Event => {
                "send the headers of one forge only, each once; a proxy between must pass them on as they are"
            }
        }
    }
}

impl Claim {
    /// Reads the headers.
    pub fn of(headers: &HeaderMap) -> Result<Self, ClaimError> {
        let (_, provider) = present(headers, &SIGNATURES)?.next().ok_or(ClaimError::Missing)?;
        let mut proofs = Vec::new();
        for (header, owner) in present(headers, &SIGNATURES)? {
            if !signs_with(provider, owner) {
                return Err(ClaimError::Contradicting { header, provider });
            }
            proofs.push(proof(headers, header, owner, provider)?);
        }
        Ok(Self { provider, event: event(headers, provider)?, proofs })
    }

    /// Whose hook it claims to be.
    pub fn provider(&self) -> Provider {
        self.provider
    }

    /// The event it claims to tell of. Not signed by anybody.
    pub fn event(&self) -> Option<&str> {
        self.event.as_deref()
    }

    pub(super) fn proofs(&self) -> &[Proof] {
        &self.proofs
    }
}

type Named = (&'static str, Provider);

/// Those of the headers that are there, each once.
fn present(headers: &HeaderMap, of: &'static [Named]) -> Result<impl Iterator<Item = Named>, ClaimError> {
    for (header, _) in of {
        if headers.get_all(*header).iter().nth(1).is_some() {
            return Err(ClaimError::Repeated(header));
        }
    }
    Ok(of.iter().filter(|(header, _)| headers.contains_key(*header)).copied())
}

/// Whether hooks of `provider` carry the event header of `other`.
fn names_with(provider: Provider, other: Provider) -> bool {
    let older: &[Provider] = match provider {
        Provider::Forgejo => &[Provider::Gitea, Provider::Gogs, Provider::GitHub],
        Provider::Gitea => &[Provider::Gogs, Provider::GitHub],
        Provider::Gogs => &[Provider::GitHub],
        Provider::GitHub | Provider::GitLab | Provider::Bitbucket | Provider::Landfall => &[],
    };
    provider == other || older.contains(&other)
}

/// Whether hooks of `provider` carry the signature header of `other`.
fn signs_with(provider: Provider, other: Provider) -> bool {
    match provider {
        // The header that Bitbucket uses is GitHub's old one, with SHA-1.
        Provider::Forgejo | Provider::Gitea | Provider::Gogs | Provider::GitHub => {
            names_with(provider, other) || other == Provider::Bitbucket
        }
        Provider::GitLab | Provider::Bitbucket | Provider::Landfall => provider == other,
    }
}

fn proof(headers: &HeaderMap, header: &'static str, owner: Provider, of: Provider) -> Result<Proof, ClaimError> {
    let value = headers.get(header).map(http::HeaderValue::as_bytes).unwrap_or_default();
    let proof = match owner {
        Provider::GitLab => Proof::token(value),
        Provider::Forgejo | Provider::Gitea | Provider::Gogs => Proof::sha256(value),
        Provider::GitHub | Provider::Landfall => value.strip_prefix(b"sha256=").and_then(Proof::sha256),
        Provider::Bitbucket if of == Provider::Bitbucket => value.strip_prefix(b"sha256=").and_then(Proof::sha256),
        Provider::Bitbucket => value.strip_prefix(b"sha1=").and_then(Proof::sha1),
    };
    proof.ok_or(ClaimError::Malformed(header))
}

fn event(headers: &HeaderMap, provider: Provider) -> Result<Option<String>, ClaimError> {
    let mut named: Option<String> = None;
    for (header, owner) in present(headers, &EVENTS)? {
        let contradicting = ClaimError::Contradicting { header, provider };
        if !names_with(provider, owner) {
            return Err(contradicting);
        }
        let value = headers.get(header).and_then(|value| value.to_str().ok()).ok_or(ClaimError::Event)?;
        if value.is_empty() || value.len() > MAX_EVENT {
            return Err(ClaimError::Event);
        }
        if named.as_ref().is_some_and(|named| named != value) {
            return Err(contradicting);
        }
        named = Some(value.to_owned());
    }
    Ok(named)
}
