//! Signatures of Standard Webhooks, version 1 (<https://www.standardwebhooks.com>, spec 1.0.0): HMAC-SHA256 over
//! `<webhook-id>.<webhook-timestamp>.<body>`, as `v1,<base64>`; of several keys, divided by spaces.

use base64::Engine as _;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::{GeneralPurposeConfig, STANDARD};
use ring::hmac;

/// Secrets are written with and without padding.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
);

/// A key to sign with.
#[derive(Debug)]
pub(super) struct SigningKey(hmac::Key);

impl SigningKey {
    /// Reads `whsec_<base64>` of 24 to 64 bytes. The error reads on after the member's name.
    pub(super) fn parse(secret: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str =
            "must be `whsec_` and 24 to 64 bytes in base64 (`echo whsec_$(openssl rand -base64 32)`)";
        let encoded = secret.strip_prefix("whsec_").ok_or(EXPECTED)?;
        let bytes = LENIENT.decode(encoded).map_err(|_| EXPECTED)?;
        if !(24..=64).contains(&bytes.len()) {
            return Err(EXPECTED);
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }
}

/// The value of `webhook-signature`.
pub(super) fn sign(keys: &[SigningKey], id: &str, timestamp_s: u64, body: &[u8]) -> String {
    let mut out = String::new();
    for SigningKey(key) in keys {
        let mut context = hmac::Context::with_key(key);
        context.update(format!("{id}.{timestamp_s}.").as_bytes());
        context.update(body);
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str("v1,");
        STANDARD.encode_string(context.sign(), &mut out);
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_signature_is_that_of_the_specification() {
        // The example of the specification's reference libraries.
        let key = SigningKey::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature = sign(&[key], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn two_keys_sign_one_after_the_other() {
        let key = |text| SigningKey::parse(text).unwrap();
        let one = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let other = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
        let both = sign(&[key(one), key(other)], "id", 1, b"x");
        let expected = format!("{} {}", sign(&[key(one)], "id", 1, b"x"), sign(&[key(other)], "id", 1, b"x"));
        assert_eq!(both, expected);
    }

    #[test]
    fn what_is_no_secret_is_refused() {
        for text in ["", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_", "whsec_c2hvcnQ=", "whsec_$$$$"] {
            assert!(SigningKey::parse(text).is_err(), "{text}");
        }
    }
}
