//! Tokens: never a panic, and none but those of the secret's holder is accepted, whatever stands in
//! them. The first byte chooses what the rest is: a token, a header and claims that are signed as they
//! are, or what the issuer is asked to say.
#![no_main]

use std::sync::LazyLock;

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use libfuzzer_sys::fuzz_target;
use portcullis::{
    jwt::{
        AccessToken, Algorithm, CacheLimits, Issuer, KeySet, SigningKey, TokenTypes, Verifier,
        VerifyingKey,
    },
    secret::Secret,
    time::UnixMillis,
};

const NOW: UnixMillis = UnixMillis::from_secs(1_800_000_000);

struct Setup {
    key: hmac::Key,
    plain: Verifier,
    cached: Verifier,
    /// Two issuers: the claims are read before the signature.
    several: Verifier,
    issuer: Issuer,
}

static SETUP: LazyLock<Setup> = LazyLock::new(|| {
    let secret = Secret::generate();
    let key = VerifyingKey::secret(Algorithm::HS256, &secret).expect("a good secret");
    let keys = KeySet::new([key]).expect("a good key");
    let plain = Verifier::new(keys.clone(), "issuer", "audience")
        .expect("good names")
        .with_types(TokenTypes::AccessTokenOrJwt);
    let key = SigningKey::secret(Algorithm::HS256, &secret).expect("a good secret");
    Setup {
        key: hmac::Key::new(hmac::HMAC_SHA256, secret.expose()),
        cached: plain.clone().with_cache(CacheLimits::new().with_entries(8)),
        several: plain
            .clone()
            .with_issuer("other", keys)
            .expect("another name"),
        plain,
        issuer: Issuer::new(key, "issuer", "audience").expect("good names"),
    }
});

fuzz_target!(|data: &[u8]| {
    let setup = &*SETUP;
    let Some((kind, rest)) = data.split_first() else {
        return;
    };
    match kind % 3 {
        0 => {
            if let Ok(text) = str::from_utf8(rest) {
                for verifier in [&setup.plain, &setup.cached, &setup.several] {
                    assert!(verifier.verify(text, NOW).is_err());
                }
            }
        }
        1 => signed(setup, rest),
        _ => issued(setup, rest),
    }
});

/// Three verifiers judge a signed token alike, and what they accept is what the claims say.
fn signed(setup: &Setup, data: &[u8]) {
    let at = data.iter().position(|byte| *byte == b'\n');
    let (header, claims) = match at {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (&br#"{"alg":"HS256"}"#[..], data),
    };
    let message = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(claims)
    );
    let tag = hmac::sign(&setup.key, message.as_bytes());
    let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag));
    let first = setup.plain.verify(&token, NOW);
    for verifier in [&setup.cached, &setup.cached, &setup.several] {
        let other = verifier.verify(&token, NOW);
        assert_eq!(first.is_ok(), other.is_ok());
    }
    let Ok(verified) = first else {
        return;
    };
    let told: serde_json::Value = serde_json::from_slice(claims).expect("it was read");
    assert_eq!(told["iss"], "issuer");
    assert_eq!(told["sub"].as_str(), Some(verified.identity().subject()));
    assert!(told["aud"] == "audience" || told["aud"].as_array().is_some());
    assert!(verified.expires_at() > NOW);
    // The last character of a tag has two bits that must be zero, so it has others to be.
    let broken = if token.ends_with('A') { "E" } else { "A" };
    let broken = format!("{}{broken}", &token[..token.len() - 1]);
    assert!(setup.cached.verify(&broken, NOW).is_err());
}

fn issued(setup: &Setup, data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    let Ok(claims) = AccessToken::new(text).with_claim("x", text) else {
        return;
    };
    let Ok(token) = setup.issuer.issue(&claims.with_session(text), NOW) else {
        return;
    };
    if let Ok(verified) = setup.cached.verify(token.as_str(), NOW) {
        assert_eq!(verified.identity().subject(), text);
        assert_eq!(verified.identity().session(), Some(text));
    }
}
