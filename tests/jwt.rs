//! The JWT gate through its public API.

#![cfg(all(feature = "jwt", feature = "aws-lc-rs"))]

mod jwt_support;

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use portcullis::{
    DenyList, Identity, IdentityKind, Rejection,
    authorize::RequireScopeLayer,
    event::{EventKind, SecurityEvent},
    jwt::{
        AccessToken, Algorithm, CacheLimits, Claims, Expect, Failure, IssueError, Issuer,
        JwksEndpoint, JwtLayer, KeySet, Mode, RefreshPolicy, RemoteKeys, SigningKey, TokenSource,
        TokenTypes, Verifier, VerifyError, VerifyingKey,
    },
    secret::{Secret, Secrets},
    time::{Clock as _, ManualClock, UnixMillis},
};
use serde_json::{Value, json};
use tower::{Layer, ServiceBuilder, ServiceExt as _, service_fn};

use self::jwt_support::{AUDIENCE, ISSUER, Setup, hs256, mint, mint_raw};

type Body = Full<Bytes>;

/// What the handler behind the gate found.
#[derive(Clone, Debug, Default)]
struct Seen {
    identity: Option<Identity>,
    claims: Option<String>,
    failure: Option<String>,
}

#[derive(serde::Deserialize)]
struct Mine {
    preferred_username: String,
}

async fn call<C>(layer: &JwtLayer<C>, request: Request<Body>) -> Response<Body>
where
    C: serde::de::DeserializeOwned + Send + Sync + 'static,
{
    let service = layer.layer(service_fn(|request: Request<Body>| async move {
        let extensions = request.extensions();
        let seen = Seen {
            identity: extensions.get().cloned(),
            claims: extensions
                .get::<Claims<Mine>>()
                .map(|claims| claims.preferred_username.clone()),
            failure: extensions
                .get::<Failure>()
                .map(|failure| failure.rejection().reason().to_owned()),
        };
        let mut response = Response::new(Body::default());
        response.extensions_mut().insert(seen);
        Ok::<_, Infallible>(response)
    }));
    service.oneshot(request).await.unwrap()
}

fn with_token(token: &str) -> Request<Body> {
    with_authorization(&[&format!("Bearer {token}")])
}

fn with_authorization(fields: &[&str]) -> Request<Body> {
    let mut request = Request::new(Body::default());
    for field in fields {
        request
            .headers_mut()
            .append("authorization", field.parse().unwrap());
    }
    request
}

fn challenge<B>(response: &Response<B>) -> &str {
    response.headers()["www-authenticate"].to_str().unwrap()
}

fn reason<B>(response: &Response<B>) -> &'static str {
    response.extensions().get::<Rejection>().unwrap().reason()
}

#[tokio::test]
async fn a_good_token_leaves_claims_and_identity() {
    let setup = Setup::new();
    let claims = AccessToken::new("user-1")
        .with_session("s1")
        .with_scopes(["model", "upload"])
        .with_auth_time(setup.now())
        .with_claim("preferred_username", "ada")
        .unwrap();
    let token = setup.issuer.issue(&claims, setup.now()).unwrap();
    let layer = setup.layer().claims::<Mine>();
    let response = call(&layer, with_token(token.as_str())).await;
    assert_eq!(response.status(), StatusCode::OK);
    let seen = response.extensions().get::<Seen>().unwrap();
    let identity = seen.identity.as_ref().unwrap();
    assert_eq!(seen.claims.as_deref(), Some("ada"));
    assert_eq!(identity.kind(), IdentityKind::AccessToken);
    assert_eq!(identity.subject(), "user-1");
    assert_eq!(identity.issuer(), Some(ISSUER));
    assert_eq!(identity.session(), Some("s1"));
    assert_eq!(identity.token(), Some(token.id()));
    assert_eq!(identity.scopes().collect::<Vec<_>>(), ["model", "upload"]);
    assert_eq!(identity.auth_time(), Some(setup.now()));
    assert_eq!(identity.expires_at(), Some(token.expires_at()));
}

#[tokio::test]
async fn challenges_are_those_of_rfc_6750() {
    let setup = Setup::new();
    let layer = setup.layer();
    let invalid_request = "Bearer error=\"invalid_request\"";
    for (fields, status, expected, why) in [
        (&[][..], 401, "Bearer", "missing_token"),
        (&["Basic dTpw"], 401, "Bearer", "missing_token"),
        (
            &["Bearer a.b.c"],
            401,
            "Bearer error=\"invalid_token\"",
            "malformed",
        ),
        (&["Bearer"], 400, invalid_request, "malformed_credentials"),
        (
            &["Bearer a b"],
            400,
            invalid_request,
            "malformed_credentials",
        ),
        (
            &["Bearer a", "Bearer b"],
            400,
            invalid_request,
            "several_credentials",
        ),
    ] {
        let response = call(&layer, with_authorization(fields)).await;
        assert_eq!(response.status(), status, "{fields:?}");
        assert_eq!(challenge(&response), expected, "{fields:?}");
        assert_eq!(reason(&response), why, "{fields:?}");
        assert_eq!(response.headers()["cache-control"], "no-store");
    }
    let layer = layer.with_realm("api").unwrap();
    let response = call(&layer, with_token("a.b.c")).await;
    assert_eq!(
        challenge(&response),
        "Bearer realm=\"api\", error=\"invalid_token\""
    );
    let response = call(&layer, Request::new(Body::default())).await;
    assert_eq!(challenge(&response), "Bearer realm=\"api\"");
    assert!(setup.layer().with_realm("a\"b").is_err());
}

#[tokio::test]
async fn grpc_gets_a_grpc_status() {
    let setup = Setup::new();
    let good = setup
        .issuer
        .issue(&AccessToken::new("u"), setup.now())
        .unwrap();
    let not_ready = DenyList::pending(&setup.context, Duration::from_secs(900));
    let waiting = setup.layer().with_deny_list(not_ready);
    let bearer = format!("Bearer {}", good.as_str());
    for (layer, fields, status) in [
        (&setup.layer(), &["Bearer a.b.c"][..], "16"),
        (&setup.layer(), &[], "16"),
        (&setup.layer(), &["Bearer"], "3"),
        (&waiting, &[&*bearer], "14"),
    ] {
        let mut request = with_authorization(fields);
        request
            .headers_mut()
            .insert("content-type", "application/grpc+proto".parse().unwrap());
        let response = call(layer, request).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["grpc-status"], status, "{fields:?}");
        assert_eq!(response.headers()["content-type"], "application/grpc");
        assert_eq!(http_body::Body::size_hint(response.body()).exact(), Some(0));
    }
    let scoped = RequireScopeLayer::new("model").unwrap();
    let service = ServiceBuilder::new()
        .layer(setup.layer())
        .layer(scoped)
        .service(service_fn(|_: Request<Body>| async {
            Ok::<_, Infallible>(Response::new(Body::default()))
        }));
    let mut request = with_authorization(&[&bearer]);
    request
        .headers_mut()
        .insert("content-type", "application/grpc".parse().unwrap());
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(response.headers()["grpc-status"], "7");
}

#[tokio::test]
async fn several_issuers_are_told_apart_by_iss() {
    let setup = Setup::new();
    let names = ["https://a.example", "https://b.example"];
    let algorithms = [Algorithm::ES256, Algorithm::EdDSA];
    let issuers: Vec<_> = std::iter::zip(names, algorithms)
        .map(|(name, algorithm)| {
            Issuer::new(jwt_support::signing_key(algorithm), name, AUDIENCE).unwrap()
        })
        .collect();
    let mut verifier = setup.verifier.clone();
    for (name, issuer) in std::iter::zip(names, &issuers) {
        verifier = verifier.with_issuer(name, issuer.key_set()).unwrap();
    }
    for verifier in [verifier.clone(), verifier.with_cache(CacheLimits::new())] {
        let layer = JwtLayer::new(verifier).with_context(setup.context.clone());
        for issuer in issuers.iter().chain([&setup.issuer]) {
            let token = issuer.issue(&AccessToken::new("u"), setup.now()).unwrap();
            for _ in 0..2 {
                let response = call(&layer, with_token(token.as_str())).await;
                assert_eq!(response.status(), 200);
                let seen = response.extensions().get::<Seen>().unwrap();
                let told = seen.identity.as_ref().unwrap().issuer().unwrap();
                assert!(told == ISSUER || names.contains(&told));
            }
        }
        // Each by its own keys, and a stranger by none.
        for (name, reason) in [
            (names[0], "algorithm_not_allowed"),
            (ISSUER, "algorithm_not_allowed"),
            (names[1], "bad_signature"),
            ("https://c.example", "wrong_issuer"),
        ] {
            let key = jwt_support::signing_key(Algorithm::EdDSA)
                .with_id(issuers[1].verifying_key().id().unwrap());
            let liar = Issuer::new(key, name, AUDIENCE).unwrap();
            let token = liar.issue(&AccessToken::new("u"), setup.now()).unwrap();
            let response = call(&layer, with_token(token.as_str())).await;
            assert_eq!(response.status(), 401);
            assert_eq!(self::reason(&response), reason, "{name}");
        }
    }
}

#[tokio::test]
async fn an_identity_from_further_out_is_enough() {
    let setup = Setup::new();
    let mut request = with_authorization(&["Bearer pk_dev_key"]);
    let outer = Identity::new(IdentityKind::ApiKey, "key-owner");
    request.extensions_mut().insert(outer);
    let response = call(&setup.layer(), request).await;
    assert_eq!(response.status(), StatusCode::OK);
    let seen = response.extensions().get::<Seen>().unwrap();
    assert_eq!(seen.identity.as_ref().unwrap().subject(), "key-owner");
}

#[tokio::test]
async fn modes_decide_about_requests_without_a_good_token() {
    let setup = Setup::new();
    let none = || Request::new(Body::default());
    let malformed = || with_authorization(&["Bearer"]);
    let optional = setup.layer().with_mode(Mode::Optional);
    assert_eq!(call(&optional, none()).await.status(), 200);
    assert_eq!(call(&optional, with_token("a.b.c")).await.status(), 401);
    assert_eq!(call(&optional, malformed()).await.status(), 400);
    let recorded = setup.layer().with_mode(Mode::Recorded);
    for (request, why) in [
        (none(), "missing_token"),
        (with_token("a.b.c"), "malformed"),
        (malformed(), "malformed_credentials"),
    ] {
        let response = call(&recorded, request).await;
        assert_eq!(response.status(), 200);
        let seen = response.extensions().get::<Seen>().unwrap();
        assert_eq!(seen.failure.as_deref(), Some(why));
        assert!(seen.identity.is_none());
    }
    let elsewhere = setup.layer().only_if(|head| head.uri.path() != "/");
    assert_eq!(call(&elsewhere, none()).await.status(), 200);
}

#[tokio::test]
async fn the_deny_list_is_asked_for_every_request() {
    let setup = Setup::new();
    let deny_list = DenyList::pending(&setup.context, Duration::from_secs(900));
    let layer = setup.layer().with_deny_list(deny_list.clone());
    let token = |subject: &str, session: &str| {
        let claims = AccessToken::new(subject)
            .with_session(session)
            .issued_after(deny_list.earliest_issue(subject));
        setup.issuer.issue(&claims, setup.now()).unwrap()
    };
    let first = token("u", "s1");
    let status = async |token: &str| call(&layer, with_token(token)).await.status();
    let response = call(&layer, with_token(first.as_str())).await;
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["retry-after"], "1");
    deny_list.set_ready();
    assert_eq!(status(first.as_str()).await, 200);
    deny_list.deny_session("s1");
    let response = call(&layer, with_token(first.as_str())).await;
    assert_eq!(response.status(), 401);
    assert_eq!(challenge(&response), "Bearer error=\"invalid_token\"");
    assert_eq!(reason(&response), "revoked");

    let second = token("u", "s2");
    assert_eq!(status(second.as_str()).await, 200);
    deny_list.deny_token(second.id());
    assert_eq!(status(second.as_str()).await, 401);

    let third = token("u", "s3");
    deny_list.deny_subject("u");
    assert_eq!(status(third.as_str()).await, 401);
    // The next token, made in the same second, says that it came later.
    let fourth = token("u", "s4");
    assert_eq!(status(fourth.as_str()).await, 200);
    // One that does not say when it was made is older than any denial.
    let mut undated = jwt_support::claims(setup.now());
    undated["sub"] = json!("u");
    undated.as_object_mut().unwrap().remove("iat");
    let undated = hs256(&undated, &setup.secret);
    assert_eq!(status(&undated).await, 401);
}

/// What the operator is told: each refusal by its event, a recorded failure too; and what a source
/// of keys that is not there yet is answered with.
#[tokio::test]
async fn events_and_statuses_are_those_of_the_reason() {
    let setup = Setup::new();
    let told = Arc::new(Mutex::new(Vec::new()));
    let sink = told.clone();
    let context = setup.context.clone();
    let context = context.with_events_inline(move |event: &SecurityEvent| {
        sink.lock().unwrap().push((event.kind(), event.reason()));
    });
    let layer = setup.layer().with_context(context.clone());
    let good = setup
        .issuer
        .issue(&AccessToken::new("u").with_session("s"), setup.now())
        .unwrap();
    let recorded = layer.clone().with_mode(Mode::Recorded).with_token_removed();
    let response = recorded
        .layer(service_fn(|request: Request<Body>| async move {
            let is_there = request.headers().contains_key("authorization");
            assert!(!is_there, "a token that does not hold is taken out too");
            Ok::<_, Infallible>(Response::new(Body::default()))
        }))
        .oneshot(with_token("a.b.c"))
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    let deny_list = DenyList::since_start(&setup.context, Duration::from_secs(900));
    deny_list.deny_session("s");
    let denying = layer.clone().with_deny_list(deny_list);
    assert_eq!(
        call(&denying, with_token(good.as_str())).await.status(),
        401
    );

    let remote = RemoteKeys::new(RefreshPolicy::new(), context.clone()).unwrap();
    let verifier = Verifier::new(remote.key_set(), ISSUER, AUDIENCE).unwrap();
    let waiting = JwtLayer::new(verifier).with_context(context);
    let response = call(&waiting, with_token(good.as_str())).await;
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["retry-after"], "1");
    assert!(!response.headers().contains_key("www-authenticate"));
    let told = told.lock().unwrap();
    let expected = [
        (EventKind::AuthzFail, Some("malformed")),
        (EventKind::SessionUseAfterExpire, Some("revoked")),
        (EventKind::StoreUnavailable, Some("keys_unavailable")),
    ];
    assert_eq!(*told, expected);
}

#[tokio::test]
async fn claims_that_do_not_fit_are_refused() {
    let setup = Setup::new();
    let token = setup
        .issuer
        .issue(&AccessToken::new("u"), setup.now())
        .unwrap();
    let typed = setup.layer().claims::<Mine>();
    let response = call(&typed, with_token(token.as_str())).await;
    assert_eq!(response.status(), 401);
    assert_eq!(reason(&response), "unfit_claims");
    let response = call(&setup.layer(), with_token(token.as_str())).await;
    assert_eq!(response.status(), 200);
}

#[test]
fn an_issued_token_says_what_it_was_asked_to() {
    let setup = Setup::new();
    let now = setup.now();
    let claims = AccessToken::new("u")
        .with_session("s")
        .with_scopes(["a", "b"])
        .with_roles(["admin"])
        .with_auth_time(now)
        .with_claim("preferred_username", "ada")
        .unwrap();
    let token = setup.issuer.issue(&claims, now).unwrap();
    let verified = setup.verifier.verify(token.as_str(), now).unwrap();
    let claims: Value = serde_json::from_str(verified.json()).unwrap();
    let seconds = now.as_secs();
    assert_eq!(
        claims,
        json!({
            "iss": ISSUER, "sub": "u", "aud": AUDIENCE, "exp": seconds + 900, "iat": seconds,
            "nbf": seconds, "jti": token.id(), "sid": "s", "auth_time": seconds,
            "scope": "a b", "roles": ["admin"], "preferred_username": "ada",
        })
    );
    let header = jwt_support::header_of(token.as_str());
    assert_eq!(header["alg"], "HS256");
    assert_eq!(header["typ"], "at+jwt");
    assert_eq!(header["kid"].as_str().unwrap().len(), 11);
    let other = setup.issuer.issue(&AccessToken::new("u"), now).unwrap();
    assert_ne!(token.id(), other.id());
}

#[test]
fn the_issuer_clamps_and_refuses() {
    let setup = Setup::new();
    let now = setup.now();
    let end = now.saturating_add(Duration::from_millis(90_500));
    let clamped = AccessToken::new("u").ending_by(end);
    let token = setup.issuer.issue(&clamped, now).unwrap();
    assert_eq!(token.expires_at().as_secs(), now.as_secs() + 90);
    for claims in [
        AccessToken::new("u").ending_by(now),
        AccessToken::new("u").issued_after(now.as_secs() + 900),
    ] {
        let made = setup.issuer.issue(&claims, now);
        assert_eq!(made.unwrap_err(), IssueError::Ended);
    }
    for name in ["sub", "exp", "scp", "cnf", "roles"] {
        let refused = AccessToken::new("u").with_claim(name, 1);
        assert_eq!(refused.unwrap_err(), IssueError::ReservedClaim);
    }
    assert!(setup.issuer.issue(&AccessToken::new(""), now).is_err());
    for (issuer, audience) in [("", AUDIENCE), (ISSUER, "")] {
        let key = SigningKey::secret(Algorithm::HS256, &setup.secret).unwrap();
        assert!(Issuer::new(key, issuer, audience).is_err());
    }
    for ttl in [0, 3_601] {
        let issuer = setup.issuer.clone();
        assert!(issuer.with_ttl(Duration::from_secs(ttl)).is_err());
    }
    assert!(!format!("{token:?}").contains(token.as_str()));
}

#[test]
fn previous_secrets_verify_and_the_current_one_signs() {
    let (old, new) = (Secret::generate(), Secret::generate());
    let now = ManualClock::new().wall();
    let token_of = |secret: &Secret| {
        let key = SigningKey::secret(Algorithm::HS256, secret).unwrap();
        let issuer = Issuer::new(key, ISSUER, AUDIENCE).unwrap();
        issuer.issue(&AccessToken::new("u"), now).unwrap()
    };
    let secrets = Secrets::new(new.clone()).with_previous([old.clone()]);
    let keys = KeySet::from_secrets(Algorithm::HS256, &secrets).unwrap();
    let verifier = Verifier::new(keys.clone(), ISSUER, AUDIENCE).unwrap();
    assert!(verifier.verify(token_of(&old).as_str(), now).is_ok());
    assert!(verifier.verify(token_of(&new).as_str(), now).is_ok());
    let strange = token_of(&Secret::generate());
    let refused = verifier.verify(strange.as_str(), now);
    assert_eq!(refused.unwrap_err(), VerifyError::UnknownKey);
    // Tokens of other makers have no `kid`; they are tried with each secret.
    let foreign = hs256(&jwt_support::claims(now), &old);
    assert!(verifier.verify(&foreign, now).is_ok());

    keys.replace([VerifyingKey::secret(Algorithm::HS256, &new).unwrap()])
        .unwrap();
    assert!(verifier.verify(token_of(&old).as_str(), now).is_err());
    assert!(verifier.verify(&foreign, now).is_err());
    assert!(verifier.verify(token_of(&new).as_str(), now).is_ok());
}

#[test]
fn each_of_several_names_is_accepted() {
    let setup = Setup::new();
    let now = setup.now();
    let issuers = Expect::one_of(["https://old.example", "https://new.example"]);
    let verifier = Verifier::new(setup.keys.clone(), issuers, AUDIENCE).unwrap();
    for (issuer, accepted) in [
        ("https://old.example", true),
        ("https://new.example", true),
        ("https://other.example", false),
    ] {
        let mut claims = jwt_support::claims(now);
        claims["iss"] = issuer.into();
        let token = hs256(&claims, &setup.secret);
        assert_eq!(verifier.verify(&token, now).is_ok(), accepted, "{issuer}");
    }
}

/// Texts of the identity point into the token's own; those in escapes cannot.
#[test]
fn claims_in_escapes_read_as_they_mean() {
    let setup = Setup::new();
    let now = setup.now();
    let payload = |text: &str| {
        let exp = now.as_secs() + 900;
        let payload = text.replace('{', &format!("{{\"exp\":{exp},\"aud\":\"api\","));
        mint_raw(
            br#"{"alg":"HS256","typ":"at+jwt"}"#,
            payload.as_bytes(),
            setup.secret.expose(),
        )
    };
    let verifier = setup.verifier.clone().with_cache(CacheLimits::new());
    for token in [
        payload(
            r#"{"iss":"https://id.example","sub":"ada","sid":"s1","jti":"t1","scope":"read write",
            "scp":["\u0061udit"],"roles":["admin","\u006fwner"]}"#,
        ),
        payload(
            r#"{"iss":"https:\/\/id.example","sub":"\u0061da","sid":"\u00731","jti":"t\u0031",
            "scope":"r\u0065ad write","scp":["audit"],"roles":["\u0061dmin","owner"]}"#,
        ),
    ] {
        // Made anew, and remembered.
        for _ in 0..2 {
            let verified = verifier.verify(&token, now).unwrap();
            let identity = verified.identity();
            assert_eq!(identity.subject(), "ada");
            assert_eq!(identity.issuer(), Some(ISSUER));
            assert_eq!(
                (identity.session(), identity.token()),
                (Some("s1"), Some("t1"))
            );
            let scopes: Vec<_> = identity.scopes().collect();
            assert_eq!(scopes, ["read", "write", "audit"]);
            assert_eq!(identity.roles().collect::<Vec<_>>(), ["admin", "owner"]);
        }
    }
}

#[test]
fn a_token_of_the_greatest_length_is_read() {
    let setup = Setup::new();
    let now = setup.now();
    let token = hs256(&jwt_support::claims(now), &setup.secret);
    for (bytes, read) in [(token.len(), true), (token.len() - 1, false)] {
        let verifier = setup.verifier.clone().with_max_token_bytes(bytes);
        assert_eq!(verifier.verify(&token, now).is_ok(), read, "{bytes}");
    }
}

#[test]
fn iss_and_aud_are_mandatory_or_opted_out_by_name() {
    let setup = Setup::new();
    let now = setup.now();
    for (issuer, audience) in [("", AUDIENCE), (ISSUER, "")] {
        assert!(Verifier::new(setup.keys.clone(), issuer, audience).is_err());
    }
    let none = Expect::one_of::<&str>([]);
    assert!(Verifier::new(setup.keys.clone(), none, AUDIENCE).is_err());
    let partly = Expect::one_of([ISSUER, ""]);
    assert!(Verifier::new(setup.keys.clone(), partly, AUDIENCE).is_err());
    let verify = |verifier: &Verifier, name: &str, value: Option<Value>| {
        let mut claims = jwt_support::claims(now);
        match value {
            Some(value) => claims[name] = value,
            None => drop(claims.as_object_mut().unwrap().remove(name)),
        }
        let token = hs256(&claims, &setup.secret);
        verifier.verify(&token, now).map(|_| ())
    };
    let strict = &setup.verifier;
    for (name, value, error) in [
        ("iss", None, VerifyError::MissingClaim("iss")),
        ("aud", None, VerifyError::MissingClaim("aud")),
        ("sub", None, VerifyError::MissingClaim("sub")),
        ("exp", None, VerifyError::MissingClaim("exp")),
        ("iss", Some(json!("x")), VerifyError::WrongIssuer),
        ("aud", Some(json!("x")), VerifyError::WrongAudience),
        ("aud", Some(json!(["x"])), VerifyError::WrongAudience),
        ("aud", Some(json!([])), VerifyError::WrongAudience),
        (
            "iss",
            Some(json!([ISSUER])),
            VerifyError::InvalidClaim("iss"),
        ),
        ("iss", Some(json!(1)), VerifyError::InvalidClaim("iss")),
        ("aud", Some(json!({})), VerifyError::InvalidClaim("aud")),
        (
            "aud",
            Some(json!([AUDIENCE, 1])),
            VerifyError::InvalidClaim("aud"),
        ),
        ("sub", Some(json!(7)), VerifyError::InvalidClaim("sub")),
        ("sub", Some(json!("")), VerifyError::InvalidClaim("sub")),
        ("jti", Some(json!(7)), VerifyError::InvalidClaim("jti")),
        ("sid", Some(json!(null)), VerifyError::InvalidClaim("sid")),
        (
            "scope",
            Some(json!(["a"])),
            VerifyError::InvalidClaim("scope"),
        ),
        (
            "roles",
            Some(json!([1])),
            VerifyError::InvalidClaim("roles"),
        ),
        ("cnf", Some(json!({"jkt": "x"})), VerifyError::Bound),
    ] {
        assert_eq!(
            verify(strict, name, value.clone()),
            Err(error),
            "{name} {value:?}"
        );
    }
    assert_eq!(verify(strict, "aud", Some(json!(["x", AUDIENCE]))), Ok(()));
    let open = Verifier::new(setup.keys.clone(), Expect::anything(), Expect::anything()).unwrap();
    assert_eq!(verify(&open, "iss", None), Ok(()));
    assert_eq!(verify(&open, "aud", None), Ok(()));
    // Opting out does not make a wrong type right.
    let wrong = verify(&open, "iss", Some(json!([ISSUER])));
    assert_eq!(wrong, Err(VerifyError::InvalidClaim("iss")));
}

#[test]
fn times_hold_to_the_millisecond() {
    let setup = Setup::new();
    let now = setup.now();
    let seconds = now.as_secs();
    let at = |verifier: &Verifier, name: &str, value: Value, at: UnixMillis| {
        let mut claims = jwt_support::claims(now);
        claims[name] = value;
        let token = hs256(&claims, &setup.secret);
        verifier.verify(&token, at).map(|_| ())
    };
    let strict = &setup.verifier;
    let before = |at: i64| UnixMillis::new(at * 1_000 - 1);
    let next = seconds + 1;
    assert_eq!(at(strict, "exp", json!(next), before(next)), Ok(()));
    let on_time = UnixMillis::from_secs(next);
    assert_eq!(
        at(strict, "exp", json!(next), on_time),
        Err(VerifyError::Expired)
    );
    for (exp, expected) in [
        (json!(-1), Err(VerifyError::Expired)),
        (json!(0), Err(VerifyError::Expired)),
        (json!(u64::MAX), Ok(())),
        (json!(1e300), Ok(())),
        (json!(-1e300), Err(VerifyError::Expired)),
        (json!(seconds as f64 + 0.5), Ok(())),
        (json!("9999999999"), Err(VerifyError::InvalidClaim("exp"))),
        (json!(null), Err(VerifyError::InvalidClaim("exp"))),
        (json!(true), Err(VerifyError::InvalidClaim("exp"))),
        (json!([1]), Err(VerifyError::InvalidClaim("exp"))),
    ] {
        assert_eq!(at(strict, "exp", exp.clone(), now), expected, "{exp}");
    }
    for (name, error) in [
        ("nbf", VerifyError::NotYetValid),
        ("iat", VerifyError::IssuedInFuture),
    ] {
        assert_eq!(at(strict, name, json!(seconds + 5), now), Ok(()));
        assert_eq!(at(strict, name, json!(seconds + 6), now), Err(error));
        let wrong = Err(VerifyError::InvalidClaim(name));
        assert_eq!(at(strict, name, json!("1"), now), wrong);
    }
    let lenient = strict.clone().with_leeway(Duration::from_secs(30)).unwrap();
    let late = seconds + 30;
    assert_eq!(at(&lenient, "exp", json!(seconds), before(late)), Ok(()));
    let too_late = at(&lenient, "exp", json!(seconds), UnixMillis::from_secs(late));
    assert_eq!(too_late, Err(VerifyError::Expired));
    assert!(
        strict
            .clone()
            .with_leeway(Duration::from_secs(301))
            .is_err()
    );
    let young = strict.clone().with_max_age(Duration::from_secs(60));
    assert_eq!(at(&young, "iat", json!(seconds - 60), now), Ok(()));
    let old = at(&young, "iat", json!(seconds - 61), now);
    assert_eq!(old, Err(VerifyError::TooOld));
}

#[test]
fn only_access_tokens_are_accepted_unless_asked_for() {
    let setup = Setup::new();
    let now = setup.now();
    let claims = jwt_support::claims(now);
    let lax = setup
        .verifier
        .clone()
        .with_types(TokenTypes::AccessTokenOrJwt);
    for (typ, strict, loose) in [
        (json!("at+jwt"), true, true),
        (json!("application/at+jwt"), true, true),
        (json!("AT+JWT"), true, true),
        (json!("JWT"), false, true),
        (json!(null), false, false),
        (json!("logout+jwt"), false, false),
        (json!("dpop+jwt"), false, false),
        (json!("secevent+jwt"), false, false),
    ] {
        let header = json!({"alg": "HS256", "typ": typ});
        let token = mint(&header, &claims, setup.secret.expose());
        assert_eq!(setup.verifier.verify(&token, now).is_ok(), strict, "{typ}");
        assert_eq!(lax.verify(&token, now).is_ok(), loose, "{typ}");
    }
    let untyped = mint(&json!({"alg": "HS256"}), &claims, setup.secret.expose());
    let refused = setup.verifier.verify(&untyped, now);
    assert_eq!(refused.unwrap_err(), VerifyError::WrongType);
    assert!(lax.verify(&untyped, now).is_ok());
}

#[tokio::test]
async fn challenges_name_what_they_are_told_to() {
    let setup = Setup::new();
    let layer = setup
        .layer()
        .with_realm("api")
        .unwrap()
        .with_scope_hint("model upload")
        .unwrap()
        .with_resource_metadata("https://api.example/.well-known/oauth-protected-resource")
        .unwrap();
    let response = call(&layer, Request::new(Body::default())).await;
    assert_eq!(
        challenge(&response),
        "Bearer realm=\"api\", scope=\"model upload\", \
         resource_metadata=\"https://api.example/.well-known/oauth-protected-resource\""
    );
    let response = call(&layer, with_token("a.b.c")).await;
    assert!(challenge(&response).ends_with("resource\", error=\"invalid_token\""));
    assert!(setup.layer().with_resource_metadata("http://x").is_err());
    assert!(setup.layer().with_scope_hint("a\nb").is_err());
}

#[tokio::test]
async fn a_token_is_read_from_where_it_may_stand_and_can_be_taken_out() {
    let setup = Setup::new();
    let token = setup
        .issuer
        .issue(&AccessToken::new("u"), setup.now())
        .unwrap();
    let layer = setup
        .layer()
        .with_sources([
            TokenSource::bearer(),
            TokenSource::cookie("__Host-at").unwrap(),
        ])
        .unwrap()
        .with_token_removed();
    let cookie = || {
        let mut request = Request::new(Body::default());
        let value = format!("x=1; __Host-at={}", token.as_str());
        request
            .headers_mut()
            .insert("cookie", value.parse().unwrap());
        request
    };
    let service = layer
        .clone()
        .layer(service_fn(|request: Request<Body>| async move {
            let fields = request.headers();
            assert!(!fields.contains_key("authorization"));
            assert!(fields.get("cookie").is_none_or(|cookie| cookie == "x=1"));
            Ok::<_, Infallible>(Response::new(Body::default()))
        }));
    for request in [with_token(token.as_str()), cookie()] {
        let response = service.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200);
    }
    let mut both = cookie();
    let field = format!("Bearer {}", token.as_str()).parse().unwrap();
    both.headers_mut().insert("authorization", field);
    let response = call(&layer, both).await;
    assert_eq!(response.status(), 400);
    assert_eq!(reason(&response), "several_credentials");
    assert_eq!(call(&setup.layer(), cookie()).await.status(), 401);
    assert!(setup.layer().with_sources([]).is_err());
}

#[tokio::test]
async fn an_issuer_publishes_its_keys_and_rotates_them_with_overlap() {
    let clock = ManualClock::new();
    let key = |id: &str| jwt_support::signing_key(Algorithm::ES256).with_id(id);
    let issuer = Issuer::new(key("a"), ISSUER, AUDIENCE).unwrap();
    let endpoint = JwksEndpoint::new(issuer.clone());
    let ids = || {
        let set: Value = serde_json::from_str(&endpoint.json()).unwrap();
        let keys = set["keys"].as_array().unwrap();
        keys.iter()
            .map(|key| key["kid"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let verifier = Verifier::new(issuer.key_set(), ISSUER, AUDIENCE).unwrap();
    let old = issuer.issue(&AccessToken::new("u"), clock.wall()).unwrap();
    let next = key("b");
    issuer.announce(&next).unwrap();
    assert_eq!(ids(), ["a", "b"]);
    issuer.rotate(&next, clock.wall()).unwrap();
    assert_eq!(ids(), ["b", "a"]);
    let new = issuer.issue(&AccessToken::new("u"), clock.wall()).unwrap();
    assert_eq!(jwt_support::header_of(new.as_str())["kid"], "b");
    for token in [&old, &new] {
        assert!(verifier.verify(token.as_str(), clock.wall()).is_ok());
    }
    // The same set as others read it.
    let (set, skipped) = KeySet::from_jwks(endpoint.json().as_bytes(), Algorithm::PUBLIC).unwrap();
    assert!(skipped.is_empty());
    let elsewhere = Verifier::new(set, ISSUER, AUDIENCE).unwrap();
    assert!(elsewhere.verify(old.as_str(), clock.wall()).is_ok());
    let late = Duration::from_secs(7_201);
    let c = key("c");
    for (next, expected) in [
        (&c, &["c", "b"][..]),
        (&key("d"), &["d", "c"]),
        (&key("e"), &["e", "d"]),
    ] {
        clock.advance(late);
        issuer.rotate(next, clock.wall()).unwrap();
        assert_eq!(ids(), expected);
    }
    // Another key of a name that stands is refused, and nothing changed.
    assert!(issuer.rotate(&key("d"), clock.wall()).is_err());
    assert!(issuer.announce(&key("e")).is_err());
    assert_eq!(ids(), ["e", "d"]);
    // A key that comes back signs, and stands once.
    issuer.announce(&c).unwrap();
    issuer.announce(&c).unwrap();
    assert_eq!(ids(), ["e", "d", "c"]);
    issuer.rotate(&c, clock.wall()).unwrap();
    issuer.rotate(&c, clock.wall()).unwrap();
    issuer.announce(&c).unwrap();
    assert_eq!(ids(), ["c", "d", "e"]);
    let post = Request::post("/").body(()).unwrap();
    assert_eq!(endpoint.clone().oneshot(post).await.unwrap().status(), 405);
}

#[test]
fn a_key_that_got_out_is_withdrawn_at_once() {
    let now = ManualClock::new().wall();
    let key = |id: &str| jwt_support::signing_key(Algorithm::EdDSA).with_id(id);
    let issuer = Issuer::new(key("a"), ISSUER, AUDIENCE).unwrap();
    let verifier = Verifier::new(issuer.key_set(), ISSUER, AUDIENCE).unwrap();
    let old = issuer.issue(&AccessToken::new("u"), now).unwrap();
    assert!(issuer.withdraw("a").is_err());
    issuer.rotate(&key("b"), now).unwrap();
    assert!(verifier.verify(old.as_str(), now).is_ok());
    assert!(issuer.withdraw("a").unwrap());
    assert!(!issuer.withdraw("a").unwrap());
    let refused = verifier.verify(old.as_str(), now).unwrap_err();
    assert_eq!(refused, VerifyError::UnknownKey);
    let new = issuer.issue(&AccessToken::new("u"), now).unwrap();
    assert!(verifier.verify(new.as_str(), now).is_ok());
}

#[test]
fn a_secret_is_never_published() {
    let setup = Setup::new();
    let endpoint = JwksEndpoint::new(setup.issuer.clone());
    assert_eq!(endpoint.json(), "{\"keys\":[]}");
}
