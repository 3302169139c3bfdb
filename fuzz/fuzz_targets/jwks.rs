//! JWK sets: every key is used or passed over with its place, none has a private part, no secret
//! stands beside public keys or where only those are allowed, and a set that is read makes a key set.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::jwt::{Algorithm, Jwks, KeySet, VerifyingKey};
use serde_json::Value;

const PRIVATE: [&str; 7] = ["d", "p", "q", "dp", "dq", "qi", "oth"];

fn is_secret(key: &VerifyingKey) -> bool {
    key.algorithm().as_str().starts_with("HS")
}

fuzz_target!(|json: &[u8]| {
    for allowed in [Algorithm::ALL, Algorithm::PUBLIC] {
        let _ = VerifyingKey::from_jwk(json, allowed);
        let Ok(jwks) = Jwks::parse(json, allowed) else {
            continue;
        };
        let read: Value = serde_json::from_slice(json).expect("JSON that was read");
        let told = read["keys"].as_array().expect("a list of keys");
        let skipped: Vec<_> = jwks.skipped().iter().map(|key| key.index()).collect();
        assert_eq!(jwks.keys().count() + skipped.len(), told.len());
        assert!(jwks.keys().count() <= 64);
        let secrets = jwks.keys().filter(|key| is_secret(key)).count();
        assert!(secrets == 0 || secrets == jwks.keys().count() && allowed == Algorithm::ALL);
        assert!(jwks.keys().all(|key| allowed.contains(&key.algorithm())));
        assert!(
            jwks.keys()
                .all(|key| key.id().is_none_or(|id| id.len() <= 256))
        );
        for (index, key) in told.iter().enumerate() {
            let private = PRIVATE.iter().any(|name| key.get(name).is_some());
            assert!(
                !private || skipped.contains(&index),
                "a private key is used"
            );
        }
        let keys: Vec<_> = jwks.keys().cloned().collect();
        let _ = KeySet::new(keys);
    }
});
