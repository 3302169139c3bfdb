//! Tokens: never a panic, and none but those of the secret's holder is accepted, whatever stands in
//! them. The first byte chooses whether the rest is a token, or parts that are signed.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use portcullis::{
    jwt::{AccessToken, Algorithm, Issuer, Jwks, KeySet, SigningKey, Verifier, VerifyingKey},
    secret::Secret,
    time::UnixMillis,
};

const NOW: UnixMillis = UnixMillis::from_secs(1_800_000_000);

static SETUP: LazyLock<(Verifier, Issuer)> = LazyLock::new(|| {
    let secret = Secret::generate();
    let key = VerifyingKey::secret(Algorithm::HS256, &secret).expect("a good secret");
    let keys = KeySet::new([key]).expect("a good key");
    let verifier = Verifier::new(keys, "issuer", "audience").expect("good names");
    let key = SigningKey::secret(Algorithm::HS256, &secret).expect("a good secret");
    let issuer = Issuer::new(key, "issuer", "audience").expect("good names");
    (verifier, issuer)
});

fuzz_target!(|data: &[u8]| {
    let (verifier, issuer) = &*SETUP;
    let Some((kind, rest)) = data.split_first() else {
        return;
    };
    let Ok(text) = str::from_utf8(rest) else {
        return;
    };
    match kind % 3 {
        0 => assert!(verifier.verify(text, NOW).is_err()),
        1 => drop(Jwks::parse(rest, Algorithm::ALL)),
        _ => {
            let Ok(claims) = AccessToken::new(text).with_claim("x", text) else {
                return;
            };
            if let Ok(token) = issuer.issue(&claims.with_session(text), NOW) {
                if let Ok(verified) = verifier.verify(token.as_str(), NOW) {
                    assert_eq!(verified.identity().subject(), text);
                    assert_eq!(verified.identity().session(), Some(text));
                }
            }
        }
    }
});
