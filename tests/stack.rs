//! The order of the stack's gates, and what it puts on answers, by behaviour.
#![cfg(all(feature = "headers", feature = "jwt", feature = "rate-limit"))]

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{
    Request, Response, StatusCode,
    header::{AUTHORIZATION, X_CONTENT_TYPE_OPTIONS},
};
use http_body_util::Full;
use portcullis::{
    Context, Peer,
    guarded::GuardedBody,
    headers::SecurityHeaders,
    jwt::{AccessToken, Algorithm, Issuer, JwtLayer, KeySet, SigningKey, Verifier},
    rate_limit::{Policy, RateLimitLayer},
    secret::Secret,
    stack::{Guard, GuardLayer, SecurityStack},
    time::{Clock as _, ManualClock},
};
use tower::{Layer as _, ServiceExt as _, service_fn};

type Body = Full<Bytes>;

/// A stack with one policy of two requests, and a token with the scope `read`.
fn stack(policy: Policy) -> (SecurityStack, String) {
    let clock = ManualClock::new();
    let context = Context::new().with_clock(clock.clone());
    let secret = Secret::generate();
    let key = SigningKey::secret(Algorithm::HS256, &secret).unwrap();
    let issuer = Issuer::new(key, "iss", "aud").unwrap();
    let token = AccessToken::new("user-1").with_scopes(["read"]);
    let token = issuer.issue(&token, clock.wall()).unwrap().into_string();
    let keys = KeySet::from_secrets(Algorithm::HS256, &secret.into()).unwrap();
    let verifier = Verifier::new(keys, "iss", "aud").unwrap();
    let stack = SecurityStack::new(context.clone())
        .with_headers(SecurityHeaders::new())
        .with_limits(RateLimitLayer::new([policy]).with_context(context.clone()))
        .with_jwt(JwtLayer::new(verifier).with_context(context));
    (stack, token)
}

fn two() -> Policy {
    Policy::strict("two", 2, Duration::from_secs(60)).unwrap()
}

async fn call(
    stack: &SecurityStack,
    guard: GuardLayer,
    token: Option<&str>,
    body: &'static str,
    answer: StatusCode,
) -> Response<Body> {
    let handler = service_fn(move |_: Request<GuardedBody<Body>>| async move {
        assert!(answer != StatusCode::IM_A_TEAPOT, "a handler's own fault");
        let mut response = Response::new(Body::default());
        *response.status_mut() = answer;
        Ok::<_, Infallible>(response)
    });
    let mut request = Request::post("/").body(Body::from(body)).unwrap();
    request
        .extensions_mut()
        .insert(Peer::new("192.0.2.1:4711".parse().unwrap()));
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse().unwrap();
        request.headers_mut().insert(AUTHORIZATION, value);
    }
    let response = stack.around(guard.layer(handler)).oneshot(request).await;
    let response = response.unwrap();
    assert_eq!(response.headers()[X_CONTENT_TYPE_OPTIONS], "nosniff");
    response
}

#[tokio::test]
async fn gates_refuse_in_the_written_order() {
    let (stack, token) = stack(two());
    let guard = Guard::new().limit("two").body(4).scope("write");
    let guard = stack.route(guard).unwrap();
    // Too large, without a token and without the scope: the size speaks before the token, the token
    // before the scope; each was charged, so the third is refused for its number.
    for (token, body, status) in [
        (None, "too large", 413),
        (None, "x", 401),
        (Some(token.as_str()), "too large", 429),
    ] {
        let answer = call(&stack, guard.clone(), token, body, StatusCode::OK).await;
        assert_eq!(answer.status(), status);
    }
    let scoped = stack.route(Guard::new().scope("write")).unwrap();
    let answer = call(&stack, scoped, Some(&token), "x", StatusCode::OK).await;
    assert_eq!(answer.status(), 403);
    let scoped = stack.route(Guard::new().scope("read")).unwrap();
    let answer = call(&stack, scoped, Some(&token), "x", StatusCode::OK).await;
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn a_success_gives_back_what_counts_failures_only() {
    let (stack, _) = stack(two().failures_only());
    let guard = stack.route(Guard::new().limit("two")).unwrap();
    let call = |answer| call(&stack, guard.clone(), None, "x", answer);
    for _ in 0..5 {
        assert_eq!(call(StatusCode::OK).await.status(), 200);
    }
    for _ in 0..2 {
        assert_eq!(call(StatusCode::UNAUTHORIZED).await.status(), 401);
    }
    assert_eq!(call(StatusCode::OK).await.status(), 429);
}

#[tokio::test]
async fn a_subject_is_counted_behind_authentication() {
    let (stack, token) = stack(two().by_subject());
    let guard = stack
        .route(Guard::new().limit("two").authenticate())
        .unwrap();
    for (token, status) in [
        (None, 401),
        (None, 401),
        (None, 401),
        (Some(&token), 200),
        (Some(&token), 200),
        (Some(&token), 429),
    ] {
        let token = token.map(String::as_str);
        let answer = call(&stack, guard.clone(), token, "x", StatusCode::OK).await;
        assert_eq!(answer.status(), status);
    }
}

#[tokio::test]
async fn a_panic_is_a_500_with_the_headers() {
    let (stack, _) = stack(two());
    let guard = stack.route(Guard::new()).unwrap();
    let answer = call(&stack, guard, None, "x", StatusCode::IM_A_TEAPOT).await;
    assert_eq!(answer.status(), 500);
}

#[tokio::test]
async fn a_guard_that_asks_for_what_is_not_there_is_an_error() {
    let bare = SecurityStack::new(Context::new());
    assert!(bare.route(Guard::new().authenticate()).is_err());
    assert!(bare.route(Guard::new().limit("two")).is_err());
    let (stack, _) = stack(two());
    assert!(stack.route(Guard::new().limit("three")).is_err());
}
