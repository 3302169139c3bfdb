//! Issues and verifies a token where `jsonwebtoken::decode` panics.

use std::panic::catch_unwind;

use portcullis::{
    Context,
    jwt::{AccessToken, Algorithm, Issuer, KeySet, SigningKey, Verifier},
    secret::{Secret, Secrets},
};

fn main() {
    let secrets = Secrets::from(Secret::generate());
    let key = SigningKey::secret(Algorithm::HS256, secrets.current()).expect("a good secret");
    let issuer = Issuer::new(key, "issuer", "audience").expect("good names");
    let keys = KeySet::from_secrets(Algorithm::HS256, &secrets).expect("a good secret");
    let verifier = Verifier::new(keys, "issuer", "audience").expect("good names");
    let now = Context::new().wall();
    let claims = AccessToken::new("u")
        .with_claim("ratio", 0.5)
        .and_then(|token| token.with_claim("big", u64::MAX))
        .expect("good claims");
    let token = issuer.issue(&claims, now).expect("it signs");
    let verified = verifier.verify_as::<serde_json::Value>(token.as_str(), now);
    let verified = verified.expect("it verifies");
    assert_eq!(verified.claims()["ratio"].as_f64(), Some(0.5));
    assert_eq!(verified.claims()["big"].as_u64(), Some(u64::MAX));

    std::panic::set_hook(Box::new(|_| {}));
    let text = token.into_string();
    let theirs = catch_unwind(|| {
        let key = jsonwebtoken::DecodingKey::from_secret(secrets.current().expose());
        let validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::HS256);
        jsonwebtoken::decode::<serde_json::Value>(&text, &key, &validation).map(|_| ())
    });
    println!("verified; jsonwebtoken::decode panicked: {}", theirs.is_err());
}
