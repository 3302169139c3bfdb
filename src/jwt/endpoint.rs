//! The service for `/.well-known/jwks.json`.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE},
};
use http_body_util::Full;
use serde_json::json;
use tower_service::Service;

use super::issuer::Issuer;

/// Publishes an issuer's public keys (RFC 7517 section 5): the one that signs, those before it, and
/// those that are announced. Secrets are never published.
///
/// It answers `GET` and `HEAD` with `application/jwk-set+json` that may be kept for five minutes,
/// anything else with 405.
///
/// Deployment caveat: announce a key at least as long before it signs as verifiers may keep the
/// set, or those of them that do not look for unknown keys refuse its first tokens.
///
/// ```
/// use bytes::Bytes;
/// use http::Request;
/// use portcullis::{jwt::{Algorithm, Issuer, JwksEndpoint, SigningKey}, secret::Secret};
/// use tower::ServiceExt;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let key = SigningKey::secret(Algorithm::HS256, &Secret::generate())?;
/// let endpoint = JwksEndpoint::new(Issuer::new(key, "https://id.example", "api")?);
/// let response = endpoint.oneshot(Request::new(())).await?;
/// assert_eq!(response.headers()["content-type"], "application/jwk-set+json");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct JwksEndpoint {
    issuer: Issuer,
}

impl JwksEndpoint {
    /// Publishes the keys of `issuer`.
    pub fn new(issuer: Issuer) -> Self {
        Self { issuer }
    }

    /// The set as it is now.
    #[must_use]
    pub fn json(&self) -> String {
        let keys: Vec<_> = self
            .issuer
            .published()
            .iter()
            .filter_map(|key| key.to_jwk())
            .collect();
        json!({ "keys": keys }).to_string()
    }

    fn answer(&self, method: &Method) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::default());
        if method != Method::GET && method != Method::HEAD {
            *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            response.headers_mut().insert(ALLOW, METHODS);
            return response;
        }
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, JWK_SET);
        headers.insert(CACHE_CONTROL, FIVE_MINUTES);
        *response.body_mut() = Full::from(self.json());
        response
    }
}

impl<A> Service<Request<A>> for JwksEndpoint {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        ready(Ok(self.answer(request.method())))
    }
}

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD");
const JWK_SET: HeaderValue = HeaderValue::from_static("application/jwk-set+json");
const FIVE_MINUTES: HeaderValue = HeaderValue::from_static("public, max-age=300");
