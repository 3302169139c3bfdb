//! How often the JWT gate allocates. Alone in its program, which counts.

#![cfg(all(feature = "jwt", feature = "aws-lc-rs"))]

mod jwt_support;

use std::{convert::Infallible, future::ready};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderValue, Request, Response, header::AUTHORIZATION};
use http_body_util::Full;
use portcullis::jwt::{AccessToken, CacheLimits, JwtLayer, Verifier};
use tower::{Layer as _, Service as _, service_fn};

use self::jwt_support::Setup;

/// What the layer adds to a request that had no extensions, the map for them included.
fn added(setup: &Setup, verifier: Verifier) -> u64 {
    let claims = AccessToken::new("5f1c9c52-6a1e-4b0e-8b1a-5b8f0c1c2d3e")
        .with_session("s")
        .with_scopes(["model", "upload"]);
    let token = setup.issuer.issue(&claims, setup.now()).unwrap();
    let field = HeaderValue::try_from(format!("Bearer {}", token.as_str())).unwrap();
    let request = || {
        let mut request = Request::new(Full::<Bytes>::default());
        request.headers_mut().insert(AUTHORIZATION, field.clone());
        request
    };
    let inner = service_fn(|_: Request<Full<Bytes>>| {
        ready(Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())))
    });
    let mut service = JwtLayer::new(verifier)
        .with_context(setup.context.clone())
        .layer(inner);
    let call = |request| service.call(request).now_or_never().unwrap().unwrap();
    let mut call = call;
    for _ in 0..3 {
        assert_eq!(call(request()).status(), 200);
    }
    let mut once = Some(request());
    let mut response = None;
    let counted = allocation_counter::measure(|| response = once.take().map(&mut call));
    assert_eq!(response.unwrap().status(), 200);
    counted.count_total
}

#[test]
fn a_token_costs_eight_allocations_and_a_known_one_four() {
    let setup = Setup::new();
    assert!(added(&setup, setup.verifier.clone()) <= 8);
    let cached = setup.verifier.clone().with_cache(CacheLimits::new());
    assert!(added(&setup, cached) <= 4);
}
