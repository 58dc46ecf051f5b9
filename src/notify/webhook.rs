//! The signed webhook: the notice as JSON, with an id, a time and an HMAC over all three, as the Standard Webhooks
//! specification has it, so that receivers can use its libraries.
//!
//! `webhook-signature: v1,<base64 of HMAC-SHA256(secret, "<id>.<timestamp>.<body>")>`

use reqwest::RequestBuilder;
use reqwest::header::CONTENT_TYPE;
use ring::hmac;

use crate::domain::Notice;

/// Adds body and signature.
pub(super) fn sign(request: RequestBuilder, notice: &Notice, secret: &str, now: jiff::Timestamp) -> RequestBuilder {
    let body = serde_json::to_vec(notice).unwrap_or_default();
    let timestamp = now.as_second().to_string();
    let signature = signature(secret, &notice.id, &timestamp, &body);
    request
        .header(CONTENT_TYPE, "application/json")
        .header("webhook-id", &notice.id)
        .header("webhook-timestamp", timestamp)
        .header("webhook-signature", signature)
        .body(body)
}

fn signature(secret: &str, id: &str, timestamp: &str, body: &[u8]) -> String {
    let mut signed = format!("{id}.{timestamp}.").into_bytes();
    signed.extend_from_slice(body);
    // `whsec_` marks a secret that is written in base64, as generators of such secrets do.
    let key = secret.strip_prefix("whsec_").and_then(from_base64).unwrap_or_else(|| secret.as_bytes().to_vec());
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), &signed);
    format!("v1,{}", base64(tag.as_ref()))
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let digit = ALPHABET[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

fn from_base64(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0_u32, 0);
    for digit in text.trim_end_matches('=').bytes() {
        let value = ALPHABET.iter().position(|known| *known == digit)?;
        bits = bits << 6 | u32::try_from(value).ok()?;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from(bits >> held & 0xff).ok()?);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_what_others_write() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(bytes.as_bytes()), text);
            assert_eq!(from_base64(text).unwrap(), bytes.as_bytes());
        }
        assert_eq!(from_base64("a b"), None);
    }

    #[test]
    fn a_signature_covers_id_time_and_body() {
        let sign = |id, time, body: &str| signature("secret", id, time, body.as_bytes());
        let one = sign("a", "1", "{}");
        assert!(one.starts_with("v1,") && one.len() == 3 + 44);
        assert!([sign("b", "1", "{}"), sign("a", "2", "{}"), sign("a", "1", "[]")].iter().all(|other| *other != one));
    }
}
