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

/// The algorithms with keys of each kind.
pub(crate) fn every_algorithm() -> Vec<Algorithm> {
    Algorithm::ALL.to_vec()
}

/// A fresh private key of the algorithm's kind, in PEM; RSA keys are made once.
pub(crate) fn signing_key(algorithm: Algorithm) -> SigningKey {
    use std::sync::OnceLock;

    use aws_lc_rs::{
        encoding::{AsDer, Pkcs8V1Der},
        rsa::{KeyPair, KeySize},
        signature::{
            ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
            Ed25519KeyPair,
        },
    };

    static RSA: OnceLock<String> = OnceLock::new();
    let random = aws_lc_rs::rand::SystemRandom::new();
    let pem = match algorithm {
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => {
            let bytes = [
                Secret::generate().expose().to_vec(),
                Secret::generate().expose().to_vec(),
            ];
            let secret = Secret::new(bytes.concat()).unwrap();
            return SigningKey::secret(algorithm, &secret).unwrap();
        }
        Algorithm::ES256 => {
            let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random);
            pem("PRIVATE KEY", der.unwrap().as_ref())
        }
        Algorithm::ES384 => {
            let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &random);
            pem("PRIVATE KEY", der.unwrap().as_ref())
        }
        Algorithm::EdDSA => {
            let pair = Ed25519KeyPair::generate().unwrap();
            pem("PRIVATE KEY", pair.to_pkcs8v1().unwrap().as_ref())
        }
        _ => RSA
            .get_or_init(|| {
                let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
                let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
                pem("PRIVATE KEY", der.as_ref())
            })
            .clone(),
    };
    SigningKey::from_pem(algorithm, pem.as_bytes()).unwrap()
}

pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<_> = text
        .as_bytes()
        .chunks(64)
        .map(|line| str::from_utf8(line).unwrap())
        .collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}

/// An issuer by a fresh key of the algorithm, and a verifier of its tokens.
pub(crate) fn pair(algorithm: Algorithm) -> (Issuer, Verifier) {
    let issuer = Issuer::new(signing_key(algorithm), ISSUER, AUDIENCE).unwrap();
    let keys = KeySet::new([issuer.verifying_key()]).unwrap();
    let verifier = Verifier::new(keys, ISSUER, AUDIENCE).unwrap();
    (issuer, verifier)
}
