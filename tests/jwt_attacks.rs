//! What attackers do to tokens and keys, each by name: the pitfalls of the libraries beneath, and
//! the lines of RFC 8725, RFC 9068, RFC 7515 and RFC 7519 that a verifier is held to.

#![cfg(all(feature = "jwt", feature = "aws-lc-rs"))]

mod jwt_support;

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use portcullis::{
    ConfigError, Context, DenyList,
    deny_list::DenyKeys,
    jwt::{
        AccessToken, Algorithm, CacheLimits, Expect, Issuer, JwksEndpoint, KeySet, Verifier,
        VerifyError, VerifyingKey, crypto::AwsLc,
    },
    secret::Secret,
    time::{Clock as _, ManualClock, UnixMillis},
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use self::jwt_support::{
    AUDIENCE, ISSUER, Setup, every_algorithm, hs256, mint, mint_raw, pair, pem, signing_key,
};

const ED25519_CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----
MIIBLjCB4aADAgECAhRbWeo2hDkUADG6RhiBB08UoKvSbDAFBgMrZXAwDDEKMAgG
A1UEAwwBYTAgFw0yNjExMjQxMzA0MjlaGA8yMTI2MTAzMTEzMDQyOVowDDEKMAgG
A1UEAwwBYTAqMAUGAytlcAMhANXrlfVRfYuKD9a4M/JFVcOay/rmcXibvqT6iVGt
HzjZo1MwUTAdBgNVHQ4EFgQUmwBJscFG/GYbP0B75rnBTjzKBMowHwYDVR0jBBgw
FoAUmwBJscFG/GYbP0B75rnBTjzKBMowDwYDVR0TAQH/BAUwAwEB/zAFBgMrZXAD
QQBTUfD8WqgYQaPcEABOl+kOTpXgfmtMkAZuoTF4K43Nv0kMIKD1r4G2RrBHOj52
MP6hUvDHZcwpqkguEcqvQEMC
-----END CERTIFICATE-----";
const P256_CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----
MIIBcDCCARWgAwIBAgIUVVmFkuHX71iV48MlewSc4jIwOM0wCgYIKoZIzj0EAwIw
DDEKMAgGA1UEAwwBYTAgFw0yNjExMjQxMzA0MzJaGA8yMTI2MTAzMTEzMDQzMlow
DDEKMAgGA1UEAwwBYTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABESTYHlsYBS9
AihM8uLacV2F1pIGvgbL67/DKbn7PSligNYNw1Ay99W40OmCmWGeYDOqcRVQ+fIn
hUaWI5R5iAejUzBRMB0GA1UdDgQWBBQ7HRAsQt3YP+u5iyXLR9Aw/yg5BjAfBgNV
HSMEGDAWgBQ7HRAsQt3YP+u5iyXLR9Aw/yg5BjAPBgNVHRMBAf8EBTADAQH/MAoG
CCqGSM49BAMCA0kAMEYCIQCR8aQ7w1N3i+owVHwlb+J0trmz/HIr2TaT9BrfYP6D
zAIhAMObhfqj0pQTgv4j6sx3Wv7OPY2cY/d/jdf4XGSflbu9
-----END CERTIFICATE-----";

fn now() -> UnixMillis {
    ManualClock::new().wall()
}

fn refusal(verifier: &Verifier, token: &str) -> VerifyError {
    verifier.verify(token, now()).map(|_| ()).unwrap_err()
}

#[test]
fn every_algorithm_signs_and_verifies_its_own_tokens_alone() {
    let pairs: Vec<_> = every_algorithm().into_iter().map(pair).collect();
    for (index, (issuer, _)) in pairs.iter().enumerate() {
        let token = issuer.issue(&AccessToken::new("u"), now()).unwrap();
        for (other, (_, verifier)) in pairs.iter().enumerate() {
            let verified = verifier.verify(token.as_str(), now()).ok();
            let algorithm = verified.map(|verified| verified.algorithm());
            let own = (index == other).then(|| Algorithm::ALL[index]);
            assert_eq!(algorithm, own, "{index} {other}");
        }
    }
}

/// P28, and the whole of RFC 7515 section 5.2: no byte of a token is without meaning.
#[test]
fn a_token_changed_at_any_byte_never_verifies() {
    let claims = AccessToken::new("u").with_session("s").with_scopes(["a"]);
    for algorithm in every_algorithm() {
        let (issuer, verifier) = pair(algorithm);
        let token = issuer.issue(&claims, now()).unwrap().into_string();
        // Remembers the header, so that both ways to it are tried.
        assert!(verifier.verify(&token, now()).is_ok());
        for index in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            let changes: &[u8] = if algorithm == Algorithm::HS256 {
                &[1, 2, 16, 32]
            } else {
                &[1]
            };
            for change in changes {
                bytes[index] = token.as_bytes()[index] ^ change;
                if let Ok(changed) = str::from_utf8(&bytes) {
                    assert!(
                        verifier.verify(changed, now()).is_err(),
                        "{algorithm} {index}"
                    );
                }
            }
            let mut shorter = token.clone();
            shorter.remove(index);
            assert!(verifier.verify(&shorter, now()).is_err());
            let mut longer = token.clone();
            longer.insert(index, 'A');
            assert!(verifier.verify(&longer, now()).is_err());
        }
        for end in ["=", "A", ".", " ", "\n", "AAAA"] {
            assert!(
                verifier.verify(&format!("{token}{end}"), now()).is_err(),
                "{end:?}"
            );
        }
    }
}

/// P1: a program in which `jsonwebtoken` has no usable process-wide provider.
#[test]
fn p01_no_global_provider_is_asked_for() {
    // Nobody installed one, and with both backends compiled in `jsonwebtoken::decode` would panic.
    let (issuer, verifier) = pair(Algorithm::EdDSA);
    let token = issuer.issue(&AccessToken::new("u"), now()).unwrap();
    assert!(verifier.verify(token.as_str(), now()).is_ok());
}

#[test]
fn p02_nbf_is_checked() {
    let setup = Setup::new();
    let mut claims = jwt_support::claims(now());
    claims["nbf"] = json!(now().as_secs() + 60);
    let token = hs256(&claims, &setup.secret);
    assert_eq!(refusal(&setup.verifier, &token), VerifyError::NotYetValid);
}

#[test]
fn p03_p04_claims_of_a_wrong_type_are_refused_and_not_passed_over() {
    let setup = Setup::new();
    for name in [
        "iss",
        "sub",
        "exp",
        "nbf",
        "iat",
        "jti",
        "sid",
        "auth_time",
        "scope",
    ] {
        for value in [
            json!(null),
            json!(true),
            json!([]),
            json!({}),
            json!([ISSUER]),
        ] {
            let mut claims = jwt_support::claims(now());
            claims[name] = value;
            let refused = refusal(&setup.verifier, &hs256(&claims, &setup.secret));
            assert_eq!(refused, VerifyError::InvalidClaim(name));
        }
    }
}

#[test]
fn p05_one_set_serves_several_families() {
    let algorithms = [
        Algorithm::RS256,
        Algorithm::PS256,
        Algorithm::ES256,
        Algorithm::ES384,
        Algorithm::EdDSA,
    ];
    let issuers: Vec<_> = algorithms
        .map(|algorithm| {
            Issuer::new(
                signing_key(algorithm).with_id(algorithm.as_str()),
                ISSUER,
                AUDIENCE,
            )
            .unwrap()
        })
        .into();
    let keys = issuers.iter().map(|issuer| issuer.verifying_key());
    let verifier = Verifier::new(KeySet::new(keys).unwrap(), ISSUER, AUDIENCE).unwrap();
    for issuer in &issuers {
        let token = issuer.issue(&AccessToken::new("u"), now()).unwrap();
        assert!(verifier.verify(token.as_str(), now()).is_ok());
    }
}

/// P6, RFC 8725 section 3.1: an RSA key bound to RS256 serves no PS256, nor the other way.
#[test]
fn p06_a_key_serves_its_algorithm_alone() {
    let issuer = Issuer::new(signing_key(Algorithm::PS256).with_id("r"), ISSUER, AUDIENCE).unwrap();
    let bound = Issuer::new(signing_key(Algorithm::RS256).with_id("r"), ISSUER, AUDIENCE).unwrap();
    let keys = KeySet::new([bound.verifying_key()]).unwrap();
    let verifier = Verifier::new(keys, ISSUER, AUDIENCE).unwrap();
    let token = issuer.issue(&AccessToken::new("u"), now()).unwrap();
    assert_eq!(
        refusal(&verifier, token.as_str()),
        VerifyError::AlgorithmNotAllowed
    );
}

/// P6: a JWK serves the algorithm that it states, and nothing when it states another purpose.
#[test]
fn p06_a_jwk_says_what_it_is_for() {
    let issuer = Issuer::new(signing_key(Algorithm::RS256).with_id("r"), ISSUER, AUDIENCE).unwrap();
    let published = JwksEndpoint::new(issuer.clone()).json();
    let published: Value = serde_json::from_str(&published).unwrap();
    let token = issuer.issue(&AccessToken::new("u"), now()).unwrap();
    let verdict = |changes: Value| {
        let mut jwk = published["keys"][0].clone();
        for (name, value) in changes.as_object().unwrap() {
            jwk[name] = value.clone();
        }
        let set = json!({"keys": [jwk]}).to_string();
        let (keys, _) = KeySet::from_jwks(set.as_bytes(), Algorithm::ALL)?;
        let verifier = Verifier::new(keys, ISSUER, AUDIENCE)?;
        Ok::<_, ConfigError>(verifier.verify(token.as_str(), now()).map(|_| ()))
    };
    assert_eq!(verdict(json!({})), Ok(Ok(())));
    let refused = Ok(Err(VerifyError::AlgorithmNotAllowed));
    assert_eq!(verdict(json!({"alg": "PS256"})), refused);
    for changes in [
        json!({"use": "enc"}),
        json!({"key_ops": ["encrypt"]}),
        json!({"alg": "RSA-OAEP-256"}),
        json!({"alg": "HS256"}),
        json!({"kty": "OKP", "crv": "P-256"}),
    ] {
        assert!(verdict(changes.clone()).is_err(), "{changes}");
    }
}

/// P7: a key with a member of a wrong type loses itself and nothing else.
#[test]
fn p07_one_malformed_key_never_loses_the_set() {
    let issuer = Issuer::new(signing_key(Algorithm::ES256), ISSUER, AUDIENCE).unwrap();
    let good = JwksEndpoint::new(issuer.clone()).json();
    let good: Value = serde_json::from_str(&good).unwrap();
    let good = &good["keys"][0];
    let token = issuer.issue(&AccessToken::new("u"), now()).unwrap();
    for (name, value) in [
        ("kid", json!(7)),
        ("alg", json!(["ES256"])),
        ("use", json!(1)),
        ("key_ops", json!("verify")),
        ("x5c", json!({})),
        ("x", json!(null)),
        ("y", json!("!")),
        ("kty", json!([])),
        ("crv", json!({})),
    ] {
        let mut bad = good.clone();
        bad[name] = value;
        let set = json!({"keys": [bad, good]}).to_string();
        let (keys, skipped) = KeySet::from_jwks(set.as_bytes(), Algorithm::PUBLIC).unwrap();
        assert_eq!((keys.len(), skipped.len()), (1, 1), "{name}");
        assert_eq!(skipped[0].index(), 0);
        let verifier = Verifier::new(keys, ISSUER, AUDIENCE).unwrap();
        assert!(verifier.verify(token.as_str(), now()).is_ok(), "{name}");
    }
}

#[test]
fn p08_keys_are_chosen_by_id_and_algorithm() {
    let key = |algorithm, id: &str| {
        Issuer::new(signing_key(algorithm).with_id(id), ISSUER, AUDIENCE).unwrap()
    };
    let (ec, ed, other) = (
        key(Algorithm::ES256, "same"),
        key(Algorithm::EdDSA, "same"),
        key(Algorithm::ES256, "other"),
    );
    let keys = [&ec, &ed, &other].map(|issuer| issuer.verifying_key());
    let set = KeySet::new(keys.clone()).unwrap();
    let verifier = Verifier::new(set, ISSUER, AUDIENCE).unwrap();
    for issuer in [&ec, &ed, &other] {
        let token = issuer.issue(&AccessToken::new("u"), now()).unwrap();
        assert!(verifier.verify(token.as_str(), now()).is_ok());
    }
    // The key of another id does not count, though its signature holds.
    let swapped = other.verifying_key().with_id("third");
    let set = KeySet::new([keys[0].clone(), swapped]).unwrap();
    let verifier = Verifier::new(set, ISSUER, AUDIENCE).unwrap();
    let token = other.issue(&AccessToken::new("u"), now()).unwrap();
    assert_eq!(refusal(&verifier, token.as_str()), VerifyError::UnknownKey);
    let two = [&ec, &other].map(|issuer| issuer.verifying_key());
    assert!(KeySet::new(two.clone().map(|key| key.with_id("x"))).is_err());
    // Keys without an id clash with none, and each is tried.
    let nameless = KeySet::new(two.map(VerifyingKey::without_id)).unwrap();
    assert_eq!(nameless.len(), 2);
    let verifier = Verifier::new(nameless, ISSUER, AUDIENCE).unwrap();
    for issuer in [&ec, &other] {
        let token = issuer.issue(&AccessToken::new("u"), now()).unwrap();
        assert!(verifier.verify(token.as_str(), now()).is_ok());
    }
}

/// P9, P10, P11: what is wrong with a key is found when it is loaded.
#[test]
fn p09_p10_p11_bad_keys_do_not_load() {
    let ed = |bytes: &[u8]| {
        let der = [
            &[
                0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
            ][..],
            bytes,
        ]
        .concat();
        VerifyingKey::from_pem(Algorithm::EdDSA, pem("PUBLIC KEY", &der).as_bytes())
    };
    assert!(ed(&[0; 31]).is_err());
    // Small order (P26), and not canonical.
    assert!(ed(&[0; 32]).is_err());
    assert!(ed(&[0xff; 32]).is_err());
    let jwk = |jwk: Value| VerifyingKey::from_jwk(jwk.to_string().as_bytes(), Algorithm::ALL);
    // A point that is not on its curve loads as bytes, and not into a set.
    let zero = URL_SAFE_NO_PAD.encode([7; 32]);
    let off = jwk(json!({"kty": "EC", "crv": "P-256", "x": zero, "y": zero})).unwrap();
    assert!(KeySet::new([off]).is_err());
    let small = URL_SAFE_NO_PAD.encode([0xff; 128]);
    assert!(jwk(json!({"kty": "RSA", "n": small, "e": "AQAB"})).is_err());
    for text in [
        "",
        "-----BEGIN PUBLIC KEY-----",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
    ] {
        for algorithm in every_algorithm() {
            assert!(VerifyingKey::from_pem(algorithm, text.as_bytes()).is_err());
        }
    }
    // A certificate holds a key of its algorithm, and says more than that.
    for (algorithm, certificate) in [
        (Algorithm::EdDSA, ED25519_CERTIFICATE),
        (Algorithm::ES256, P256_CERTIFICATE),
    ] {
        assert!(VerifyingKey::from_pem(algorithm, certificate.as_bytes()).is_err());
    }
    // A point has one form: compressed and hybrid ones are not read.
    let point = |form: u8| {
        let x = URL_SAFE_NO_PAD
            .decode("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU")
            .unwrap();
        let y = URL_SAFE_NO_PAD
            .decode("x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0")
            .unwrap();
        let head = [
            0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06,
            0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
        ];
        let der = [&head[..], &[form], &x, &y].concat();
        VerifyingKey::from_pem(Algorithm::ES256, pem("PUBLIC KEY", &der).as_bytes())
    };
    assert!(point(4).is_ok());
    assert!(point(6).is_err() && point(7).is_err());
}

/// P12, RFC 7518 section 3.2, RFC 8725 section 2.1.
#[test]
fn p12_weak_and_public_secrets_are_refused() {
    let secret = Secret::generate();
    assert!(VerifyingKey::secret(Algorithm::HS256, &secret).is_ok());
    assert!(VerifyingKey::secret(Algorithm::HS384, &secret).is_err());
    assert!(VerifyingKey::secret(Algorithm::HS512, &secret).is_err());
    assert!(VerifyingKey::secret(Algorithm::RS256, &secret).is_err());
    for public in [
        "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
        "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBH",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKXw9qYAYKxCrfVS7TyWQHOg7hcvPap",
        "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"}",
    ] {
        let secret = Secret::new(public).unwrap();
        assert!(VerifyingKey::secret(Algorithm::HS256, &secret).is_err());
    }
}

/// P12: the id of a secret is no digest that one who guesses the secret could compare.
#[test]
fn p12_the_id_of_a_secret_is_no_plain_digest_of_it() {
    use aws_lc_rs::digest::{SHA256, digest};

    let secret = Secret::generate();
    let key = VerifyingKey::secret(Algorithm::HS256, &secret).unwrap();
    let plain = digest(&SHA256, secret.expose());
    assert_ne!(
        key.id().unwrap(),
        URL_SAFE_NO_PAD.encode(&plain.as_ref()[..8])
    );
}

/// P13, P14, P15, RFC 7515 section 4.1.11, RFC 8725 section 3.10 and 3.11.
#[test]
fn p13_p14_p15_headers_that_ask_for_more_are_refused_and_keys_inside_ignored() {
    let setup = Setup::new();
    let claims = jwt_support::claims(now());
    let token = |extra: Value| {
        let mut header = json!({"alg": "HS256", "typ": "at+jwt"});
        for (name, value) in extra.as_object().unwrap() {
            header[name] = value.clone();
        }
        mint(&header, &claims, setup.secret.expose())
    };
    for extra in [
        json!({"crit": ["exp"]}),
        json!({"crit": []}),
        json!({"b64": false, "crit": ["b64"]}),
        json!({"b64": true}),
        json!({"cty": "JWT"}),
        json!({"zip": "DEF"}),
        json!({"enc": "A128GCM"}),
    ] {
        assert_eq!(
            refusal(&setup.verifier, &token(extra)),
            VerifyError::UnsupportedHeader
        );
    }
    let theirs = Secret::generate();
    let jwk = json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode(theirs.expose())});
    for header in [
        json!({"alg": "HS256", "typ": "at+jwt", "jwk": jwk}),
        json!({"alg": "HS256", "typ": "at+jwt", "jku": "https://evil.example/jwks"}),
        json!({"alg": "HS256", "typ": "at+jwt", "x5u": "https://evil.example/x5u"}),
        json!({"alg": "HS256", "typ": "at+jwt", "kid": "../../dev/null"}),
        json!({"alg": "HS256", "typ": "at+jwt", "kid": "' OR 1=1 --"}),
    ] {
        let token = mint(&header, &claims, theirs.expose());
        assert!(setup.verifier.verify(&token, now()).is_err());
    }
}

#[test]
fn p16_claims_are_an_object() {
    let setup = Setup::new();
    let header = br#"{"alg":"HS256","typ":"at+jwt"}"#;
    for payload in [
        r#"[9999999999,0,"s","https://id.example","api"]"#,
        "\"text\"",
        "null",
        "1",
        "",
    ] {
        let token = mint_raw(header, payload.as_bytes(), setup.secret.expose());
        assert_eq!(refusal(&setup.verifier, &token), VerifyError::Malformed);
    }
    let token = mint_raw(header, b"{\"sub\":\"\xff\"}", setup.secret.expose());
    assert_eq!(refusal(&setup.verifier, &token), VerifyError::Malformed);
    let array = mint_raw(br#"["HS256"]"#, b"{}", setup.secret.expose());
    assert_eq!(refusal(&setup.verifier, &array), VerifyError::Malformed);
}

#[test]
fn p17_a_member_twice_is_refused() {
    let setup = Setup::new();
    let claims = jwt_support::claims(now()).to_string();
    let good = br#"{"alg":"HS256","typ":"at+jwt"}"#.as_slice();
    for (header, payload) in [
        (
            good,
            claims.replace("\"jti\":\"t\"", "\"jti\":\"t\",\"jti\":\"t\""),
        ),
        (
            good,
            claims.replace("\"jti\":\"t\"", "\"x\":{\"a\":1,\"a\":2}"),
        ),
        (
            br#"{"alg":"HS256","typ":"at+jwt","alg":"HS256"}"#,
            claims.clone(),
        ),
        (
            br#"{"alg":"HS256","typ":"at+jwt","x":1,"x":1}"#,
            claims.clone(),
        ),
    ] {
        let token = mint_raw(header, payload.as_bytes(), setup.secret.expose());
        assert_eq!(
            refusal(&setup.verifier, &token),
            VerifyError::DuplicateMember
        );
    }
}

/// P18: what is finer than a millisecond is rounded so that a token lives no longer.
#[test]
fn p18_fractions_of_a_millisecond_lengthen_no_life() {
    let setup = Setup::new();
    let at = UnixMillis::from_secs(now().as_secs());
    let seconds = at.as_secs() as f64;
    for (name, value, error) in [
        ("exp", seconds + 0.000_4, VerifyError::Expired),
        ("nbf", seconds + 5.000_4, VerifyError::NotYetValid),
    ] {
        let mut claims = jwt_support::claims(at);
        claims[name] = json!(value);
        let refused = setup.verifier.verify(&hs256(&claims, &setup.secret), at);
        assert_eq!(refused.map(|_| ()), Err(error), "{name}");
    }
}

/// P18, P19, RFC 7519 section 4.1.4: "on or after" is over, and no number makes time wrap.
#[test]
fn p18_p19_times_neither_round_up_nor_wrap() {
    let setup = Setup::new();
    let lenient = setup
        .verifier
        .clone()
        .with_leeway(Duration::from_secs(300))
        .unwrap()
        .with_max_age(Duration::MAX);
    for exp in [json!(now().as_secs()), json!(now().as_secs() as f64 + 0.4)] {
        let mut claims = jwt_support::claims(now());
        claims["exp"] = exp;
        let at = UnixMillis::new(now().as_millis() + 400);
        let token = hs256(&claims, &setup.secret);
        let refused = setup.verifier.verify(&token, at).unwrap_err();
        assert_eq!(refused, VerifyError::Expired);
    }
    for extreme in [i64::MIN, -1, 0, 1, i64::MAX] {
        for at in [i64::MIN, -1, 0, i64::MAX] {
            for name in ["exp", "nbf", "iat", "auth_time"] {
                let mut claims = jwt_support::claims(now());
                claims[name] = json!(extreme);
                let token = hs256(&claims, &setup.secret);
                let _ = lenient.verify(&token, UnixMillis::new(at));
            }
        }
    }
}

#[test]
fn p20_p21_time_is_a_parameter_and_iat_is_looked_at() {
    let setup = Setup::new();
    let token = hs256(&jwt_support::claims(now()), &setup.secret);
    let after = UnixMillis::from_secs(now().as_secs() + 900);
    assert!(setup.verifier.verify(&token, now()).is_ok());
    assert!(setup.verifier.verify(&token, after).is_err());
    let early = UnixMillis::from_secs(now().as_secs() - 6);
    assert!(setup.verifier.verify(&token, early).is_err());
}

/// P22, RFC 8725 section 3.2: `none` in no spelling, and no HMAC by a public key's bytes.
#[test]
fn p22_unknown_algorithms_are_refused() {
    let setup = Setup::new();
    let claims = jwt_support::claims(now());
    for alg in [
        "none", "None", "NONE", "nOnE", "", "HS257", "ES512", "hs256", "HS256 ",
    ] {
        let header = json!({"alg": alg, "typ": "at+jwt"});
        let token = mint(&header, &claims, setup.secret.expose());
        assert_eq!(
            refusal(&setup.verifier, &token),
            VerifyError::UnsupportedAlgorithm
        );
        let unsigned = format!("{}.", token.rsplit_once('.').unwrap().0);
        assert!(setup.verifier.verify(&unsigned, now()).is_err());
    }
    let (issuer, verifier) = pair(Algorithm::EdDSA);
    let token = issuer.issue(&AccessToken::new("u"), now()).unwrap();
    let (message, signature) = token.as_str().rsplit_once('.').unwrap();
    let (_, payload) = message.split_once('.').unwrap();
    // RFC 9864 names it `Ed25519`; the signature is over the header, so this one does not hold.
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"Ed25519","typ":"at+jwt"}"#);
    let renamed = format!("{header}.{payload}.{signature}");
    assert_eq!(refusal(&verifier, &renamed), VerifyError::BadSignature);
}

/// P22: tokens of the algorithm that RFC 9864 named anew are verified under both names.
#[test]
fn p22_ed25519_is_eddsa() {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};

    let pair = Ed25519KeyPair::generate().unwrap();
    let x = URL_SAFE_NO_PAD.encode(pair.public_key());
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "alg": "Ed25519", "x": x}).to_string();
    let key = VerifyingKey::from_jwk(jwk.as_bytes(), Algorithm::PUBLIC).unwrap();
    let keys = KeySet::new([key]).unwrap();
    let verifier = Verifier::new(keys, ISSUER, AUDIENCE).unwrap();
    for (alg, holds) in [("Ed25519", true), ("EdDSA", true), ("Ed448", false)] {
        let header = json!({"alg": alg, "typ": "at+jwt"}).to_string();
        let message = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header),
            URL_SAFE_NO_PAD.encode(jwt_support::claims(now()).to_string())
        );
        let signature = URL_SAFE_NO_PAD.encode(pair.sign(message.as_bytes()));
        let token = format!("{message}.{signature}");
        assert_eq!(verifier.verify(&token, now()).is_ok(), holds, "{alg}");
    }
}

#[test]
fn key_confusion_is_impossible() {
    for algorithm in [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA] {
        let (issuer, verifier) = pair(algorithm);
        let token = issuer.issue(&AccessToken::new("u"), now()).unwrap();
        let kid = jwt_support::header_of(token.as_str())["kid"].clone();
        let header = json!({"alg": "HS256", "typ": "at+jwt", "kid": kid});
        let public = format!("{:?}", issuer.verifying_key());
        for key in [public.as_bytes(), b"", b"public"] {
            let forged = mint(&header, &jwt_support::claims(now()), key);
            assert_eq!(
                refusal(&verifier, &forged),
                VerifyError::AlgorithmNotAllowed
            );
        }
        // Secrets and public keys do not stand in one set at all.
        let secret = VerifyingKey::secret(Algorithm::HS256, &Secret::generate()).unwrap();
        assert!(KeySet::new([issuer.verifying_key(), secret]).is_err());
    }
}

/// P23: an error shows nothing of the token.
#[test]
fn p23_errors_are_fixed_words() {
    let setup = Setup::new();
    for token in [
        "hunter2",
        "hunter2.hunter2.hunter2",
        "aHVudGVyMg.aHVudGVyMg.aHVudGVyMg",
    ] {
        let error = refusal(&setup.verifier, token);
        assert!(!format!("{error} {error:?} {}", error.reason()).contains("hunter2"));
    }
}

#[test]
fn p24_sizes_and_shape_come_first() {
    let setup = Setup::new();
    let header = json!({"alg": "HS256", "typ": "at+jwt", "x": "x".repeat(1_100)});
    let token = mint(&header, &jwt_support::claims(now()), setup.secret.expose());
    assert_eq!(refusal(&setup.verifier, &token), VerifyError::TooLarge);
    let long = "A".repeat(8 * 1_024 + 1);
    assert_eq!(refusal(&setup.verifier, &long), VerifyError::TooLarge);
    let signature = format!("e30.e30.{}", "A".repeat(2_000));
    assert_eq!(refusal(&setup.verifier, &signature), VerifyError::TooLarge);
    // Five parts are an encrypted token (RFC 7516).
    for shape in [
        "",
        ".",
        "..",
        "...",
        "....",
        "a",
        "a.b",
        "a.b.c.d",
        "a.b.c.d.e",
        "é.é.é",
    ] {
        assert!(setup.verifier.verify(shape, now()).is_err(), "{shape}");
    }
    let small = setup.verifier.clone().with_max_token_bytes(10);
    let token = hs256(&jwt_support::claims(now()), &setup.secret);
    assert_eq!(refusal(&small, &token), VerifyError::TooLarge);
}

#[test]
fn p25_the_allow_list_is_asked_before_the_key() {
    let (_, verifier) = pair(Algorithm::ES256);
    let header = json!({"alg": "HS256", "typ": "at+jwt", "kid": "unknown"});
    let token = mint(&header, &jwt_support::claims(now()), b"k");
    assert_eq!(refusal(&verifier, &token), VerifyError::AlgorithmNotAllowed);
    let header = json!({"alg": "ES256", "typ": "at+jwt", "kid": "unknown"});
    let token = mint(&header, &jwt_support::claims(now()), b"k");
    assert_eq!(refusal(&verifier, &token), VerifyError::UnknownKey);
}

/// CVE-2022-21449 and its kin.
#[test]
fn p28_empty_and_zero_signatures_are_refused() {
    for algorithm in every_algorithm() {
        let (issuer, verifier) = pair(algorithm);
        let token = issuer.issue(&AccessToken::new("u"), now()).unwrap();
        let message = token.as_str().rsplit_once('.').unwrap().0;
        for length in [0, 1, 32, 48, 64, 96, 256, 512, 1_024] {
            for byte in [0, 0xff] {
                let signature = URL_SAFE_NO_PAD.encode(vec![byte; length]);
                let forged = format!("{message}.{signature}");
                assert!(
                    verifier.verify(&forged, now()).is_err(),
                    "{algorithm} {length}"
                );
            }
        }
    }
}

/// P26: an ECDSA signature has a twin that anybody can make. It is another text of the same token,
/// so what denies the token denies the twin, cached or not.
#[test]
fn p26_a_malleable_twin_is_the_same_token() {
    const ORDER: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc,
        0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    let (issuer, verifier) = pair(Algorithm::ES256);
    let verifier = verifier.with_cache(CacheLimits::new());
    let token = issuer.issue(&AccessToken::new("u"), now()).unwrap();
    let (message, signature) = token.as_str().rsplit_once('.').unwrap();
    let mut signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let mut borrow = 0;
    for index in (0..32).rev() {
        let digit = i16::from(ORDER[index]) - i16::from(signature[32 + index]) - borrow;
        borrow = i16::from(digit < 0);
        signature[32 + index] = digit.rem_euclid(256) as u8;
    }
    let twin = format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature));
    assert_ne!(token.as_str(), twin);
    let clock = ManualClock::new();
    let list = DenyList::pending(&Context::new().with_clock(clock), Duration::from_secs(900));
    list.set_ready();
    let denied = |text: &str| {
        let verified = verifier.verify(text, now()).unwrap();
        let identity = verified.identity();
        assert_eq!(identity.token(), Some(token.id()));
        let keys = DenyKeys::new(identity.subject()).with_token(identity.token().unwrap());
        list.check(&keys, now().as_secs()).is_err()
    };
    for text in [token.as_str(), &twin, token.as_str(), &twin] {
        assert!(!denied(text));
    }
    assert_eq!(verifier.cached(), 2);
    list.deny_token(token.id());
    assert!(denied(token.as_str()) && denied(&twin));
}

/// RFC 8725 section 3.8: a key of one issuer never counts for another's token.
#[test]
fn keys_are_bound_to_their_issuer() {
    let make = |name: &'static str| {
        let key = signing_key(Algorithm::EdDSA).with_id("same-id");
        Issuer::new(key, name, AUDIENCE).unwrap()
    };
    let (a, b, liar) = (make("https://a"), make("https://b"), make("https://a"));
    let set = |issuer: &Issuer| KeySet::new([issuer.verifying_key()]).unwrap();
    let verifier = Verifier::new(set(&a), "https://a", AUDIENCE)
        .unwrap()
        .with_issuer("https://b", set(&b))
        .unwrap();
    for issuer in [&a, &b] {
        let token = issuer.issue(&AccessToken::new("u"), now()).unwrap();
        let verified = verifier.verify(token.as_str(), now()).unwrap();
        assert!(
            verified
                .identity()
                .issuer()
                .unwrap()
                .starts_with("https://")
        );
    }
    let token = liar.issue(&AccessToken::new("u"), now()).unwrap();
    assert_eq!(
        refusal(&verifier, token.as_str()),
        VerifyError::BadSignature
    );
    let swapped = Verifier::new(set(&b), "https://a", AUDIENCE)
        .unwrap()
        .with_issuer("https://b", set(&a))
        .unwrap();
    let token = a.issue(&AccessToken::new("u"), now()).unwrap();
    assert_eq!(refusal(&swapped, token.as_str()), VerifyError::BadSignature);
    let token = make("https://c")
        .issue(&AccessToken::new("u"), now())
        .unwrap();
    assert_eq!(refusal(&verifier, token.as_str()), VerifyError::WrongIssuer);
    for name in [Expect::anything(), "https://a".into(), "".into()] {
        assert!(verifier.clone().with_issuer(name, set(&b)).is_err());
    }
}

/// Both backends give one verdict on every token, good and bad.
#[cfg(feature = "rust-crypto")]
#[test]
fn both_backends_agree() {
    use portcullis::jwt::crypto::{CryptoProvider, RustCrypto};

    let providers: [&'static dyn CryptoProvider; 2] = [&AwsLc, &RustCrypto];
    for algorithm in every_algorithm() {
        let key = signing_key(algorithm);
        for maker in providers {
            let issuer = Issuer::with_provider(maker, key.clone(), ISSUER, AUDIENCE).unwrap();
            let token = issuer.issue(&AccessToken::new("u"), now()).unwrap();
            let verifiers = providers.map(|provider| {
                let keys = [issuer.verifying_key()];
                let keys = KeySet::with_provider(provider, keys).unwrap();
                Verifier::new(keys, ISSUER, AUDIENCE).unwrap()
            });
            let (message, signature) = token.as_str().rsplit_once('.').unwrap();
            let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
            let mut variants = vec![signature.clone(), Vec::new(), signature[1..].to_vec()];
            variants.extend([0, signature.len() / 2, signature.len() - 1].map(|index| {
                let mut changed = signature.clone();
                changed[index] ^= 0x40;
                changed
            }));
            variants.push([signature.as_slice(), &[0]].concat());
            variants.push([&[0], signature.as_slice()].concat());
            variants.push(vec![0; signature.len()]);
            for (index, variant) in variants.iter().enumerate() {
                let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(variant));
                for verifier in &verifiers {
                    let verified = verifier.verify(&token, now()).is_ok();
                    assert_eq!(verified, index == 0, "{algorithm} {index}");
                }
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Mutation {
    Change(Value),
    Remove,
    Add(String, Value),
    Rename(String),
    Respell,
}

fn json_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        prop::collection::vec(".{0,4}", 0..3).prop_map(Value::from),
        Just(json!({})),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever a header says, claims pass only under the secret's own signature.
    #[test]
    fn no_header_makes_a_foreign_signature_good(
        alg in prop::sample::select(vec!["HS256", "HS384", "none", "RS256", "EdDSA", ""]),
        kid in prop::option::of(".{0,8}"),
        extra in "[a-z]{1,4}",
        key in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let setup = Setup::new();
        let header = json!({"alg": alg, "typ": "at+jwt", "kid": kid, extra: 1});
        let token = mint(&header, &jwt_support::claims(now()), &key);
        prop_assert!(setup.verifier.verify(&token, now()).is_err());
    }

    /// A member of a header or of claims that is changed, taken away, added or renamed breaks the
    /// signature, whether the token was seen before or not.
    #[test]
    fn no_mutation_of_a_header_or_of_claims_passes(
        which in 0usize..3,
        part in 0usize..2,
        at in any::<prop::sample::Index>(),
        mutation in prop_oneof![
            json_value().prop_map(Mutation::Change),
            Just(Mutation::Remove),
            ("[a-z]{1,6}", json_value()).prop_map(|(name, value)| Mutation::Add(name, value)),
            "[a-z]{1,6}".prop_map(Mutation::Rename),
            Just(Mutation::Respell),
        ],
    ) {
        use std::sync::LazyLock;

        static SIGNED: LazyLock<Vec<(String, Verifier)>> = LazyLock::new(|| {
            let algorithms = [Algorithm::HS256, Algorithm::RS256, Algorithm::EdDSA];
            let signed = algorithms.map(|algorithm| {
                let (issuer, verifier) = pair(algorithm);
                let verifier = verifier.with_cache(CacheLimits::new());
                let claims = AccessToken::new("u").with_session("s").with_scopes(["a", "b"]);
                let token = issuer.issue(&claims, now()).unwrap().into_string();
                assert!(verifier.verify(&token, now()).is_ok());
                (token, verifier)
            });
            signed.into()
        });
        let (token, verifier) = &SIGNED[which];
        let mut parts: Vec<_> = token.split('.').map(str::to_owned).collect();
        let text = URL_SAFE_NO_PAD.decode(&parts[part]).unwrap();
        let mut members: Map<String, Value> = serde_json::from_slice(&text).unwrap();
        let name = members.keys().nth(at.index(members.len())).unwrap().clone();
        let mut respelled = None;
        match mutation {
            Mutation::Change(value) => drop(members.insert(name, value)),
            Mutation::Remove => drop(members.remove(&name)),
            Mutation::Add(name, value) => drop(members.insert(name, value)),
            Mutation::Rename(to) => {
                let value = members.remove(&name).unwrap();
                members.insert(to, value);
            }
            // The same members in another order or with other spaces are another text.
            Mutation::Respell => respelled = Some(format!(" {}", Value::from(members.clone()))),
        }
        let changed = respelled.unwrap_or_else(|| Value::from(members).to_string());
        prop_assume!(changed.as_bytes() != text);
        parts[part] = URL_SAFE_NO_PAD.encode(changed);
        prop_assert!(verifier.verify(&parts.join("."), now()).is_err());
        prop_assert!(verifier.verify(token, now()).is_ok());
    }

    /// A part that is exchanged for any other bytes does not pass.
    #[test]
    fn no_part_can_be_exchanged(part in 0usize..3, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let setup = Setup::new();
        let token = setup.issuer.issue(&AccessToken::new("u"), now()).unwrap();
        let mut parts: Vec<_> = token.as_str().split('.').map(str::to_owned).collect();
        let other = URL_SAFE_NO_PAD.encode(&bytes);
        prop_assume!(parts[part] != other);
        parts[part] = other;
        prop_assert!(setup.verifier.verify(&parts.join("."), now()).is_err());
    }

    /// Any text is refused without a panic.
    #[test]
    fn any_text_is_refused(text in ".{0,300}") {
        let setup = Setup::new();
        prop_assert!(setup.verifier.verify(&text, now()).is_err());
    }

    /// What is signed over any claims is judged as those claims say, and never panics.
    #[test]
    fn any_claims_are_judged(name in "iss|sub|aud|exp|nbf|iat|jti|sid|scope|scp|roles|cnf|x", number in any::<f64>(), text in ".{0,20}") {
        let setup = Setup::new();
        for value in [json!(number), json!(text), json!([text]), json!({"a": number})] {
            let mut claims = jwt_support::claims(now());
            claims[&name] = value;
            let token = hs256(&claims, &setup.secret);
            if let Ok(verified) = setup.verifier.verify(&token, now()) {
                let told: Value = serde_json::from_str(verified.json()).unwrap();
                prop_assert_eq!(told["sub"].as_str(), Some(verified.identity().subject()));
                prop_assert!(verified.expires_at() > now());
            }
        }
    }
}
