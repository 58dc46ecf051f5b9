//! Whether a hook was made by somebody who knows the secret.

use ring::hmac;

use super::claim::Claim;
use super::secrets::{MAX_SECRET, Secrets};

/// What one header says to prove that the sender knows the secret.
pub(super) enum Proof {
    /// HMAC-SHA256 of the body.
    Sha256([u8; 32]),
    /// HMAC-SHA1 of the body; only ever beside a better one.
    Sha1([u8; 20]),
    /// The secret itself.
    Token(Vec<u8>),
}

impl Proof {
    pub(super) fn sha256(hex: &[u8]) -> Option<Self> {
        decode(hex).map(Self::Sha256)
    }

    pub(super) fn sha1(hex: &[u8]) -> Option<Self> {
        decode(hex).map(Self::Sha1)
    }

    pub(super) fn token(value: &[u8]) -> Option<Self> {
        (1..=MAX_SECRET).contains(&value.len()).then(|| Self::Token(value.to_vec()))
    }

    fn holds(&self, body: &[u8], secret: &[u8]) -> bool {
        let verify = |algorithm, of: &[u8], tag: &[u8]| {
            // Compares in constant time.
            hmac::verify(&hmac::Key::new(algorithm, secret), of, tag).is_ok()
        };
        match self {
            Self::Sha256(tag) => verify(hmac::HMAC_SHA256, body, tag),
            Self::Sha1(tag) => verify(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, body, tag),
            Self::Token(token) => {
                // Two tags are compared instead of two texts: then neither length nor content shows in the time.
                let expected = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), secret);
                verify(hmac::HMAC_SHA256, token, expected.as_ref())
            }
        }
    }
}

impl Claim {
    /// Whether every proof holds under one of the secrets. All are tried to the end, so that the time tells nothing.
    pub fn is_genuine(&self, body: &[u8], secrets: &Secrets) -> bool {
        let mut genuine = false;
        for secret in secrets.each() {
            let mut holds = true;
            for proof in self.proofs() {
                holds &= proof.holds(body, secret);
            }
            genuine |= holds;
        }
        genuine
    }
}

/// Exactly `N` bytes in hexadecimal. It is the sender's own text: nothing is given away by its time.
fn decode<const N: usize>(hex: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut bytes = [0; N];
    if hex.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}
