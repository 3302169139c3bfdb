//! Tokens made by hand, so that they can say what no issuer of ours would.

#![allow(dead_code, reason = "each test takes what it needs")]

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use portcullis::{
    Context,
    jwt::{Algorithm, Issuer, JwtLayer, KeySet, SigningKey, Verifier, VerifyingKey},
    secret::Secret,
    time::{Clock as _, ManualClock, UnixMillis},
};
use serde_json::{Value, json};

pub(crate) const ISSUER: &str = "https://id.example";
pub(crate) const AUDIENCE: &str = "api";

/// An issuer and a verifier of one secret, at one time.
pub(crate) struct Setup {
    pub(crate) clock: ManualClock,
    pub(crate) context: Context,
    pub(crate) secret: Secret,
    pub(crate) keys: KeySet,
    pub(crate) issuer: Issuer,
    pub(crate) verifier: Verifier,
}

impl Setup {
    pub(crate) fn new() -> Self {
        let clock = ManualClock::new();
        let secret = Secret::generate();
        let key = SigningKey::secret(Algorithm::HS256, &secret).unwrap();
        let keys = KeySet::new([VerifyingKey::secret(Algorithm::HS256, &secret).unwrap()]).unwrap();
        Self {
            context: Context::new().with_clock(clock.clone()),
            issuer: Issuer::new(key, ISSUER, AUDIENCE).unwrap(),
            verifier: Verifier::new(keys.clone(), ISSUER, AUDIENCE).unwrap(),
            clock,
            secret,
            keys,
        }
    }

    pub(crate) fn now(&self) -> UnixMillis {
        self.clock.wall()
    }

    pub(crate) fn layer(&self) -> JwtLayer {
        JwtLayer::new(self.verifier.clone()).with_context(self.context.clone())
    }
}

/// Claims that are good at `now`.
pub(crate) fn claims(now: UnixMillis) -> Value {
    json!({
        "iss": ISSUER, "sub": "u", "aud": AUDIENCE, "exp": now.as_secs() + 900,
        "iat": now.as_secs(), "nbf": now.as_secs(), "jti": "t", "sid": "s", "scope": "a b",
    })
}

/// A token with the right header.
pub(crate) fn hs256(claims: &Value, secret: &Secret) -> String {
    mint(
        &json!({"alg": "HS256", "typ": "at+jwt"}),
        claims,
        secret.expose(),
    )
}

pub(crate) fn mint(header: &Value, claims: &Value, key: &[u8]) -> String {
    mint_raw(
        header.to_string().as_bytes(),
        claims.to_string().as_bytes(),
        key,
    )
}

pub(crate) fn mint_raw(header: &[u8], payload: &[u8], key: &[u8]) -> String {
    let message = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(payload)
    );
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let signature = hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

pub(crate) fn header_of(token: &str) -> Value {
    let segment = token.split('.').next().unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(segment).unwrap()).unwrap()
}
