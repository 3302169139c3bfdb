//! The check-list of a verifier, line by line: RFC 8725 section 3, RFC 9068 section 4, RFC 6750,
//! RFC 7515, RFC 7517 and RFC 7519, and what broke others. The pitfalls of the library beneath are
//! in `jwt_attacks.rs`, the cache in `jwt_cache.rs`.

#![cfg(all(feature = "jwt", feature = "aws-lc-rs"))]

mod jwt_support;

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use portcullis::{
    Context, Identity, Rejection,
    event::SecurityEvent,
    jwt::{
        AccessToken, Algorithm, CacheLimits, Expect, Issuer, Jwks, JwtLayer, KeySet, SkipReason,
        TokenSource, TokenTypes, Verifier, VerifyError, VerifyingKey,
    },
    secret::Secret,
    time::UnixMillis,
};
use serde_json::{Value, json};
use tower::{Layer as _, ServiceExt as _, service_fn};

use self::jwt_support::{
    AUDIENCE, ISSUER, Setup, claims, hs256, mint, mint_raw, pair, signing_key,
};

type Body = Full<Bytes>;

fn refusal(setup: &Setup, token: &str) -> VerifyError {
    let verified = setup.verifier.verify(token, setup.now());
    verified.map(|_| ()).unwrap_err()
}

/// A token with other claims than the usual ones.
fn with(setup: &Setup, changes: Value) -> String {
    let mut claims = claims(setup.now());
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    hs256(&claims, &setup.secret)
}

async fn answer(layer: &JwtLayer, fields: &[(&'static str, &str)]) -> Response<Body> {
    let mut request = Request::new(Body::default());
    for (name, value) in fields {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    // The handler tells what reached it.
    let inner = service_fn(|request: Request<Body>| async move {
        let mut response = Response::new(Body::default());
        *response.headers_mut() = request.headers().clone();
        let identity = request.extensions().get::<Identity>();
        response.extensions_mut().extend(
            identity
                .map(|identity| {
                    let mut extensions = http::Extensions::new();
                    extensions.insert(identity.clone());
                    extensions
                })
                .unwrap_or_default(),
        );
        Ok::<_, Infallible>(response)
    });
    layer.layer(inner).oneshot(request).await.unwrap()
}

/// 1: the application chooses the algorithms; no token widens them.
#[test]
fn rfc8725_3_1_algorithms_are_the_applications_choice() {
    let setup = Setup::new();
    for alg in Algorithm::ALL.iter().skip(1) {
        let header = json!({"alg": alg.as_str(), "typ": "at+jwt"});
        let token = mint(&header, &claims(setup.now()), setup.secret.expose());
        assert_eq!(refusal(&setup, &token), VerifyError::AlgorithmNotAllowed);
    }
    let (issuer, _) = pair(Algorithm::ES256);
    let secret = VerifyingKey::secret(Algorithm::HS256, &setup.secret).unwrap();
    assert!(KeySet::new([issuer.verifying_key(), secret]).is_err());
}

/// 2: each operation is validated, or the whole token is refused.
#[test]
fn rfc8725_3_3_every_part_counts() {
    let setup = Setup::new();
    let one = setup.issuer.issue(&AccessToken::new("a"), setup.now());
    let two = setup.issuer.issue(&AccessToken::new("b"), setup.now());
    let (one, two) = (one.unwrap().into_string(), two.unwrap().into_string());
    let parts = |token: &str| -> Vec<String> { token.split('.').map(str::to_owned).collect() };
    let (one, two) = (parts(&one), parts(&two));
    for part in [1, 2] {
        let mut mixed = one.clone();
        mixed[part].clone_from(&two[part]);
        assert_eq!(refusal(&setup, &mixed.join(".")), VerifyError::BadSignature);
    }
}

/// 3: curves, points and sizes are checked before a key is used.
#[test]
fn rfc8725_3_4_keys_are_validated() {
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let bad = json!({"keys": [
        {"kty": "EC", "crv": "P-256", "x": encode(&[1; 32]), "y": encode(&[1; 32])},
        {"kty": "EC", "crv": "P-256", "x": encode(&[0; 32]), "y": encode(&[0; 32])},
        {"kty": "RSA", "n": encode(&[0xff; 128]), "e": "AQAB"},
        {"kty": "RSA", "n": encode(&[0xff; 256]), "e": "AQ"},
        {"kty": "OKP", "crv": "Ed25519", "x": encode(&[0; 32])},
    ]});
    assert!(KeySet::from_jwks(bad.to_string().as_bytes(), Algorithm::ALL).is_err());
}

/// 4: a secret is as long as the hash.
#[test]
fn rfc8725_3_5_secrets_have_the_length_of_their_hash() {
    let bytes = [Secret::generate(), Secret::generate()].map(|secret| secret.expose().to_vec());
    let bytes = bytes.concat();
    for (algorithm, least) in [
        (Algorithm::HS256, 32),
        (Algorithm::HS384, 48),
        (Algorithm::HS512, 64),
    ] {
        for length in [32, 47, 48, 63, 64] {
            let secret = Secret::new(bytes[..length].to_vec()).unwrap();
            let loads = VerifyingKey::secret(algorithm, &secret).is_ok();
            assert_eq!(loads, length >= least, "{algorithm} {length}");
        }
    }
}

/// 5: nothing is decrypted or inflated, whatever it costs elsewhere (RFC 7516, PBES2, `zip`).
#[test]
fn rfc8725_3_6_nothing_is_decrypted_or_inflated() {
    let setup = Setup::new();
    let header =
        json!({"alg": "PBES2-HS512+A256KW", "enc": "A256GCM", "p2c": u32::MAX, "p2s": "AA"});
    let header = URL_SAFE_NO_PAD.encode(header.to_string());
    for shape in [
        format!("{header}.AA.AA.AA.AA"),
        format!("{header}..AA.AA.AA"),
    ] {
        assert_eq!(refusal(&setup, &shape), VerifyError::Malformed);
    }
    for extra in ["zip", "enc"] {
        let header = json!({"alg": "HS256", "typ": "at+jwt", extra: "DEF"});
        let token = mint(&header, &claims(setup.now()), setup.secret.expose());
        assert_eq!(refusal(&setup, &token), VerifyError::UnsupportedHeader);
    }
}

/// 6: UTF-8, objects alone, and no depth that overflows a stack.
#[test]
fn rfc8725_3_7_only_objects_in_utf8_of_bounded_depth() {
    let setup = Setup::new();
    let header = br#"{"alg":"HS256","typ":"at+jwt"}"#;
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(2_000), "]".repeat(2_000));
    for payload in [
        &b"\xff\xfe{\0}\0"[..],
        b"\xef\xbb\xbf{}",
        b"{\"sub\":\"\xc3\x28\"}",
        b"[]",
        b"{} {}",
        deep.as_bytes(),
    ] {
        let token = mint_raw(header, payload, setup.secret.expose());
        assert_eq!(refusal(&setup, &token), VerifyError::Malformed);
    }
}

/// 7: `iss` is compared exactly, and a key counts for its issuer alone. `sub` is there.
#[test]
fn rfc8725_3_8_issuer_and_subject_are_validated() {
    let setup = Setup::new();
    for issuer in [
        "https://id.example/",
        "HTTPS://id.example",
        "https://id.example.evil",
        "",
    ] {
        let token = with(&setup, json!({"iss": issuer}));
        assert_eq!(
            refusal(&setup, &token),
            VerifyError::WrongIssuer,
            "{issuer}"
        );
    }
    let token = with(&setup, json!({"sub": ""}));
    assert_eq!(refusal(&setup, &token), VerifyError::InvalidClaim("sub"));
    let other = Setup::new();
    let verifier = Verifier::new(setup.keys.clone(), ISSUER, AUDIENCE)
        .unwrap()
        .with_issuer("https://other.example", other.keys.clone())
        .unwrap();
    let mut stolen = claims(setup.now());
    stolen["iss"] = json!("https://other.example");
    let own = hs256(&stolen, &other.secret);
    assert!(verifier.verify(&own, setup.now()).is_ok());
    let stolen = hs256(&stolen, &setup.secret);
    let refused = verifier.verify(&stolen, setup.now()).unwrap_err();
    assert_eq!(refused, VerifyError::BadSignature);
}

/// 7: `aud` is there and names this service, alone or among others.
#[test]
fn rfc8725_3_9_audience_is_validated() {
    let setup = Setup::new();
    for audience in [json!("API"), json!("api "), json!(["ap", "i"]), json!("")] {
        let token = with(&setup, json!({"aud": audience}));
        assert_eq!(refusal(&setup, &token), VerifyError::WrongAudience);
    }
    let token = with(&setup, json!({"aud": ["x", AUDIENCE]}));
    assert!(setup.verifier.verify(&token, setup.now()).is_ok());
}

/// 8: what a token says of its keys is not believed (CVE-2018-0114), and not even looked at: with
/// the right signature the same header passes.
#[test]
fn rfc8725_3_10_keys_in_a_token_are_ignored() {
    let setup = Setup::new();
    let theirs = Secret::generate();
    let jwk = json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode(theirs.expose())});
    for (name, value) in [
        ("jwk", jwk),
        ("jku", json!("http://127.0.0.1:1/jwks")),
        ("x5u", json!("http://127.0.0.1:1/x5u")),
        ("x5c", json!(["MIIB", 7])),
    ] {
        let header = json!({"alg": "HS256", "typ": "at+jwt", name: value});
        let forged = mint(&header, &claims(setup.now()), theirs.expose());
        assert_eq!(refusal(&setup, &forged), VerifyError::BadSignature);
        let good = mint(&header, &claims(setup.now()), setup.secret.expose());
        assert!(setup.verifier.verify(&good, setup.now()).is_ok());
    }
}

/// 9: kinds of token are told apart: an ID token, a logout token and a proof are no access token.
#[test]
fn rfc8725_3_11_3_12_other_kinds_of_token_are_refused() {
    let setup = Setup::new();
    for typ in [
        "JWT",
        "id_token+jwt",
        "logout+jwt",
        "dpop+jwt",
        "secevent+jwt",
        "at+jwt+x",
    ] {
        let header = json!({"alg": "HS256", "typ": typ});
        let token = mint(&header, &claims(setup.now()), setup.secret.expose());
        assert_eq!(refusal(&setup, &token), VerifyError::WrongType, "{typ}");
    }
}

/// 10: `crit` is obeyed, and nothing that it could name is understood (RFC 7797 with it).
#[test]
fn rfc7515_4_1_11_critical_headers_are_refused() {
    let setup = Setup::new();
    for crit in [
        json!(["exp"]),
        json!(["b64"]),
        json!(["alg"]),
        json!(["x", "x"]),
        json!([]),
        json!("exp"),
        json!(null),
    ] {
        let header = json!({"alg": "HS256", "typ": "at+jwt", "crit": crit, "exp": 1, "x": 1});
        let token = mint(&header, &claims(setup.now()), setup.secret.expose());
        assert_eq!(refusal(&setup, &token), VerifyError::UnsupportedHeader);
    }
}

/// 11: the validation of an access token, in its order.
#[test]
fn rfc9068_4_access_tokens_are_validated() {
    let setup = Setup::new();
    let now = setup.now();
    let profile = ["iat", "jti", "client_id"];
    let strict = setup.verifier.clone().with_required_claims(profile);
    let verify = |claims: &Value| {
        let token = hs256(claims, &setup.secret);
        strict.verify(&token, now).map(|_| ())
    };
    let mut whole = claims(now);
    whole["client_id"] = json!("app");
    assert_eq!(verify(&whole), Ok(()));
    for name in ["iss", "exp", "aud", "sub", "client_id", "iat", "jti"] {
        let mut without = whole.clone();
        without.as_object_mut().unwrap().remove(name);
        assert_eq!(verify(&without), Err(VerifyError::MissingClaim(name)));
    }
    let mut nobodys = whole.clone();
    nobodys["client_id"] = json!(null);
    assert_eq!(
        verify(&nobodys),
        Err(VerifyError::MissingClaim("client_id"))
    );
    let mut late = whole.clone();
    late["exp"] = json!(now.as_secs());
    assert_eq!(verify(&late), Err(VerifyError::Expired));
    // `auth_time` is optional and typed; `acr` and `amr` are the application's.
    whole["auth_time"] = json!("yesterday");
    assert_eq!(verify(&whole), Err(VerifyError::InvalidClaim("auth_time")));
}

/// 12: a time of a wrong type is no missing time (CVE-2026-25537).
#[test]
fn rfc7519_2_times_of_a_wrong_type_are_refused() {
    let setup = Setup::new();
    for name in ["exp", "nbf", "iat"] {
        for value in [
            json!("4102444800"),
            json!(true),
            json!({}),
            json!([4_102_444_800_u64]),
        ] {
            let token = with(&setup, json!({name: value}));
            assert_eq!(refusal(&setup, &token), VerifyError::InvalidClaim(name));
        }
    }
}

/// 13: one credential, of one charset, in a scheme of any case.
#[tokio::test]
async fn rfc6750_2_a_request_has_one_credential() {
    let setup = Setup::new();
    let token = with(&setup, json!({}));
    let cookie = TokenSource::cookie("__Host-at").unwrap();
    let protocol = TokenSource::web_socket_protocol("bearer.").unwrap();
    let layer = setup
        .layer()
        .with_sources([TokenSource::bearer(), cookie, protocol])
        .unwrap();
    let (bearer, cookie, protocol) = (
        ("authorization", &*format!("Bearer {token}")),
        ("cookie", &*format!("__Host-at={token}")),
        ("sec-websocket-protocol", &*format!("chat, bearer.{token}")),
    );
    for one in [bearer, cookie, protocol] {
        let response = answer(&layer, &[one]).await;
        assert_eq!(response.status(), 200, "{}", one.0);
        assert!(response.extensions().get::<Identity>().is_some());
    }
    for scheme in ["bearer", "BEARER", "bEaReR"] {
        let field = format!("{scheme} {token}");
        let response = answer(&layer, &[("authorization", &field)]).await;
        assert_eq!(response.status(), 200, "{scheme}");
    }
    for several in [
        &[bearer, cookie][..],
        &[cookie, protocol],
        &[bearer, protocol],
        &[bearer, bearer],
        &[cookie, cookie],
        &[bearer, ("authorization", "Basic dTpw")],
        &[("authorization", "Bearer a,b")],
        &[("authorization", "Bearer a\"b")],
        &[("authorization", "Bearer")],
    ] {
        let response = answer(&layer, several).await;
        assert_eq!(response.status(), 400, "{several:?}");
        let challenge = &response.headers()["www-authenticate"];
        assert_eq!(challenge, "Bearer error=\"invalid_request\"");
    }
    // What stands in a URI is never looked at (section 2.3).
    let uri = format!("/?access_token={token}");
    let request = Request::get(uri).body(Body::default()).unwrap();
    let inner = service_fn(|_: Request<Body>| async {
        Ok::<_, Infallible>(Response::new(Body::default()))
    });
    let response = layer.layer(inner).oneshot(request).await.unwrap();
    assert_eq!(response.status(), 401);
}

/// 13: every challenge, with all that it can name. RFC 9728 section 5.1 adds `resource_metadata`.
#[tokio::test]
async fn rfc6750_3_challenges_are_exact() {
    const METADATA: &str = "https://api.example/.well-known/oauth-protected-resource";
    let setup = Setup::new();
    let named = setup
        .layer()
        .with_realm("api")
        .and_then(|layer| layer.with_scope_hint("model upload"))
        .and_then(|layer| layer.with_resource_metadata(METADATA))
        .unwrap();
    let names = format!("realm=\"api\", scope=\"model upload\", resource_metadata=\"{METADATA}\"");
    for (fields, status, error) in [
        (&[][..], 401, None),
        (&[("authorization", "Basic dTpw")], 401, None),
        (
            &[("authorization", "Bearer a.b.c")],
            401,
            Some("invalid_token"),
        ),
        (
            &[("authorization", "Bearer a b")],
            400,
            Some("invalid_request"),
        ),
    ] {
        let bare = answer(&setup.layer(), fields).await;
        let whole = answer(&named, fields).await;
        let (expected, all) = match error {
            None => ("Bearer".to_owned(), format!("Bearer {names}")),
            Some(error) => (
                format!("Bearer error=\"{error}\""),
                format!("Bearer {names}, error=\"{error}\""),
            ),
        };
        for (response, challenge) in [(bare, expected), (whole, all)] {
            assert_eq!(response.status(), status, "{fields:?}");
            let found: Vec<_> = response
                .headers()
                .get_all("www-authenticate")
                .iter()
                .collect();
            assert_eq!(found, [&*challenge], "{fields:?}");
            assert_eq!(response.headers()["cache-control"], "no-store");
        }
    }
}

/// 14: keys that are not understood are ignored (RFC 7517 section 5), one id may stand for keys of
/// two kinds (section 4.5), and a second key of one kind with an id is passed over.
#[test]
fn rfc7517_4_5_and_5_keys_are_judged_alone_and_ids_are_shared() {
    let make = |algorithm| Issuer::new(signing_key(algorithm).with_id("k"), ISSUER, AUDIENCE);
    let [ec, ed, late] = [Algorithm::ES256, Algorithm::EdDSA, Algorithm::EdDSA].map(make);
    let (ec, ed, late) = (ec.unwrap(), ed.unwrap(), late.unwrap());
    let jwk = |issuer: &Issuer| -> Value {
        let set = portcullis::jwt::JwksEndpoint::new(issuer.clone()).json();
        serde_json::from_str::<Value>(&set).unwrap()["keys"][0].clone()
    };
    let set = json!({"keys": [
        {"kty": "AKP", "kid": "k", "pub": "AA"},
        {"kty": 1}, 7, null,
        jwk(&ec), jwk(&ed), jwk(&late),
    ], "more": true});
    let (keys, skipped) = KeySet::from_jwks(set.to_string().as_bytes(), Algorithm::ALL).unwrap();
    let skipped: Vec<_> = skipped
        .iter()
        .map(|key| (key.index(), key.reason()))
        .collect();
    assert_eq!(skipped[0], (0, SkipReason::UnknownType));
    assert_eq!(skipped[4], (6, SkipReason::DuplicateId));
    assert_eq!((keys.len(), skipped.len()), (2, 5));
    let verifier = Verifier::new(keys, ISSUER, AUDIENCE).unwrap();
    let now = Setup::new().now();
    for (issuer, holds) in [(&ec, true), (&ed, true), (&late, false)] {
        let token = issuer.issue(&AccessToken::new("u"), now).unwrap();
        assert_eq!(verifier.verify(token.as_str(), now).is_ok(), holds);
    }
    // A key without an id serves every id that is no other key's.
    let mut nameless = jwk(&ec);
    nameless.as_object_mut().unwrap().remove("kid");
    let set = json!({"keys": [nameless]}).to_string();
    let (keys, _) = KeySet::from_jwks(set.as_bytes(), Algorithm::ALL).unwrap();
    let verifier = Verifier::new(keys, ISSUER, AUDIENCE).unwrap();
    let token = ec.issue(&AccessToken::new("u"), now).unwrap();
    assert!(verifier.verify(token.as_str(), now).is_ok());
    let set = json!({"keys": [jwk(&ec)]}).to_string();
    assert_eq!(
        Jwks::parse(set.as_bytes(), &[Algorithm::EdDSA])
            .unwrap()
            .keys()
            .count(),
        0
    );
}

/// 15: what was verified outlives neither its time, nor its key, nor its policy. Hazard by hazard
/// in `jwt_cache.rs`.
#[test]
fn a_cached_verdict_outlives_nothing() {
    let setup = Setup::new();
    let verifier = setup.verifier.clone().with_cache(CacheLimits::new());
    let token = with(&setup, json!({}));
    let verdict = |verifier: &Verifier| verifier.verify(&token, setup.now()).map(|_| ());
    assert_eq!(verdict(&verifier), Ok(()));
    let elsewhere = verifier.clone().with_required_claims(["client_id"]);
    assert_eq!(
        verdict(&elsewhere),
        Err(VerifyError::MissingClaim("client_id"))
    );
    setup.clock.advance(Duration::from_secs(900));
    assert_eq!(verdict(&verifier), Err(VerifyError::Expired));
    setup
        .clock
        .set_wall(UnixMillis::from_secs(setup.now().as_secs() - 900));
    let other = VerifyingKey::secret(Algorithm::HS256, &Secret::generate()).unwrap();
    assert_eq!(verdict(&verifier), Ok(()));
    setup.keys.replace([other]).unwrap();
    // The key's own name is in no header of this maker, so every secret is tried.
    assert_eq!(verdict(&verifier), Err(VerifyError::BadSignature));
}

/// 16: whoever asks is told that the token is bad and not why; the operator is.
#[tokio::test]
async fn outside_every_bad_token_looks_alike() {
    let setup = Setup::new();
    let told = Arc::new(Mutex::new(Vec::new()));
    let sink = told.clone();
    let context: Context =
        setup
            .context
            .clone()
            .with_events_inline(move |event: &SecurityEvent| {
                sink.lock().unwrap().push(format!("{event:?}"));
            });
    let layer = setup.layer().with_context(context);
    let late = with(&setup, json!({"exp": 1}));
    let other = with(&setup, json!({"aud": "x"}));
    let forged = hs256(&claims(setup.now()), &Secret::generate());
    let mut seen = Vec::new();
    for (token, reason) in [
        (&*late, "expired"),
        (&*other, "wrong_audience"),
        (&*forged, "bad_signature"),
        ("not-a-token", "malformed"),
    ] {
        let field = format!("Bearer {token}");
        let response = answer(&layer, &[("authorization", &field)]).await;
        let rejection = response.extensions().get::<Rejection>().unwrap();
        assert_eq!(rejection.reason(), reason);
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        seen.push((parts.status, parts.headers, body));
        let event = told.lock().unwrap().pop().unwrap();
        assert!(event.contains(reason), "{event}");
        assert!(!event.contains(token), "{event}");
    }
    let same: &(_, HeaderMap, Bytes) = &seen[0];
    assert!(seen.iter().all(|other| other == same));
}

/// 17: nothing behind the gate sees the token, when it is asked to be taken out.
#[tokio::test]
async fn the_token_is_taken_out_of_the_request() {
    let setup = Setup::new();
    let token = with(&setup, json!({}));
    let layer = setup
        .layer()
        .with_sources([
            TokenSource::bearer(),
            TokenSource::cookie("at").unwrap(),
            TokenSource::web_socket_protocol("bearer.").unwrap(),
        ])
        .unwrap();
    for (name, field, rest) in [
        ("authorization", format!("Bearer {token}"), None),
        ("cookie", format!("a=b; at={token}"), Some("a=b")),
        (
            "sec-websocket-protocol",
            format!("bearer.{token}, chat"),
            Some("chat"),
        ),
    ] {
        let kept = answer(&layer, &[(name, &field)]).await;
        assert_eq!(kept.headers()[name], &*field);
        let taken = answer(&layer.clone().with_token_removed(), &[(name, &field)]).await;
        assert_eq!(taken.status(), 200);
        let left = taken
            .headers()
            .get(name)
            .map(|field| field.to_str().unwrap());
        assert_eq!(left, rest, "{name}");
    }
}

/// RFC 7519 section 4.1: every claim that is not asked for may be absent, and unknown ones pass.
#[test]
fn rfc7519_4_1_what_is_optional_may_be_absent() {
    let setup = Setup::new();
    let mut few = claims(setup.now());
    for name in ["iat", "nbf", "jti", "sid", "scope"] {
        few.as_object_mut().unwrap().remove(name);
    }
    few["unknown"] = json!({"deep": [1, null, "x"]});
    let token = hs256(&few, &setup.secret);
    let verified = setup.verifier.verify(&token, setup.now()).unwrap();
    assert_eq!(verified.identity().scopes().count(), 0);
    let any = Verifier::new(setup.keys.clone(), Expect::anything(), Expect::anything())
        .unwrap()
        .with_types(TokenTypes::AccessTokenOrJwt);
    few.as_object_mut().unwrap().remove("iss");
    few.as_object_mut().unwrap().remove("aud");
    let token = hs256(&few, &setup.secret);
    assert!(any.verify(&token, setup.now()).is_ok());
    assert_eq!(refusal(&setup, &token), VerifyError::MissingClaim("iss"));
}
