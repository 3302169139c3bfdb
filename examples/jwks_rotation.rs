//! Signing keys that change every hour of a day, published as a JWK set, fetched by an API that
//! trusts them, and not one request refused.
//!
//! `cargo run --example jwks_rotation --features axum`. The day passes in a second: tokio's clock is
//! paused and jumps to whatever is due next. In a service the two halves are two programs, and
//! [`JwksClient`](portcullis::jwt::JwksClient) fetches over HTTPS.

use std::{convert::Infallible, error::Error, time::Duration};

use aws_lc_rs::signature::Ed25519KeyPair;
use axum::{Router, body::Body, http::Request, routing::get};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use http_body_util::BodyExt as _;
use portcullis::{
    Context, Identity,
    jwt::{
        AccessToken, Algorithm, FetchError, Fetched, Issuer, JwksEndpoint, JwtLayer, RefreshPolicy,
        RemoteKeys, SigningKey, Verifier,
    },
    time::{Clock, Monotonic, UnixMillis},
};
use tokio::time::{Instant, sleep};
use tower::ServiceExt as _;

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), Fault> {
    let context = Context::new().with_clock(TokioClock(Instant::now()));

    // The identity service signs, and publishes what checks its signatures.
    let issuer = Issuer::new(new_key()?, ISSUER, AUDIENCE)?;
    let endpoint = JwksEndpoint::new(issuer.clone());
    let identity: Router = Router::new().route_service("/.well-known/jwks.json", endpoint);

    // The API knows its address, and no key.
    let remote = RemoteKeys::new(RefreshPolicy::new(), context.clone())?;
    let verifier = Verifier::new(remote.key_set(), ISSUER, AUDIENCE)?;
    let jwt = JwtLayer::new(verifier).with_context(context.clone());
    let api: Router = Router::new().route(
        "/me",
        get(async |me: Identity| me.subject().to_owned()).layer::<_, Infallible>(jwt),
    );
    tokio::spawn(remote.run(move || fetch(identity.clone())));
    sleep(Duration::from_secs(1)).await;

    // A caller takes a token each ten minutes, and uses it each minute until it is about to end.
    let mut token = issuer.issue(&AccessToken::new("ada"), context.wall())?;
    let mut next = None;
    let (mut requests, mut rotations) = (0, 0);
    for minute in 0..24 * 60 {
        if minute % 60 == 0
            && let Some(key) = next.take()
        {
            issuer.rotate(&key, context.wall())?;
            rotations += 1;
        }
        // Announced a quarter of an hour before it signs, which is as long as verifiers keep a set.
        if minute % 60 == 45 {
            issuer.announce(next.insert(new_key()?))?;
        }
        if minute % 10 == 0 {
            token = issuer.issue(&AccessToken::new("ada"), context.wall())?;
        }
        let request = Request::get("/me")
            .header("authorization", format!("Bearer {}", token.as_str()))
            .body(Body::empty())?;
        let answer = api.clone().oneshot(request).await?;
        if !answer.status().is_success() {
            return Err(format!("minute {minute}: {}", answer.status()).into());
        }
        requests += 1;
        sleep(Duration::from_secs(60)).await;
    }
    println!("{requests} requests, {rotations} rotations, none refused");
    Ok(())
}

async fn fetch(identity: Router) -> Result<Fetched, FetchError> {
    let request = Request::get("/.well-known/jwks.json").body(Body::empty());
    let answer = identity
        .oneshot(request.map_err(|_| FetchError::new())?)
        .await;
    let Ok(answer) = answer;
    let body = answer.into_body().collect().await;
    Ok(Fetched::new(
        body.map_err(|_| FetchError::new())?.to_bytes(),
    ))
}

/// A service reads its keys from where its secrets are kept.
fn new_key() -> Result<SigningKey, Fault> {
    let pair = Ed25519KeyPair::generate()?;
    let der = BASE64_STANDARD.encode(pair.to_pkcs8v1()?.as_ref());
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{der}\n-----END PRIVATE KEY-----\n");
    Ok(SigningKey::from_pem(Algorithm::EdDSA, pem.as_bytes())?)
}

type Fault = Box<dyn Error + Send + Sync>;

const ISSUER: &str = "https://id.example";
const AUDIENCE: &str = "api";

/// The time of a [`Context`], taken from tokio's.
#[derive(Debug)]
struct TokioClock(Instant);

impl Clock for TokioClock {
    fn monotonic(&self) -> Monotonic {
        Monotonic::default().saturating_add(self.0.elapsed())
    }

    fn wall(&self) -> UnixMillis {
        UnixMillis::from_secs(1_800_000_000).saturating_add(self.0.elapsed())
    }
}
