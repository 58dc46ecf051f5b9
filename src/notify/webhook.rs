//! The signed webhook: the notice as JSON, with an id, a time and an HMAC over all three, as the Standard Webhooks
//! specification has it, so that receivers can use its libraries.
//!
//! `webhook-signature: v1,<base64 of HMAC-SHA256(secret, "<id>.<timestamp>.<body>")>`

use reqwest::RequestBuilder;
use reqwest::header::CONTENT_TYPE;
use ring::hmac;

use crate::domain::{Notice, base64};

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
    let key = secret.strip_prefix("whsec_").and_then(base64::decode).unwrap_or_else(|| secret.as_bytes().to_vec());
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), &signed);
    format!("v1,{}", base64::encode(tag.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_covers_id_time_and_body() {
        let sign = |id, time, body: &str| signature("secret", id, time, body.as_bytes());
        let one = sign("a", "1", "{}");
        assert!(one.starts_with("v1,") && one.len() == 3 + 44);
        assert!([sign("b", "1", "{}"), sign("a", "2", "{}"), sign("a", "1", "[]")].iter().all(|other| *other != one));
    }
}
