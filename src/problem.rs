//! What an axum application needs so that its own errors look like the gates' refusals.
//!
//! [`ProblemJson`] reads a JSON body and refuses what is not one; [`not_found`] and
//! [`method_not_allowed`] are a router's fallbacks. Each answers a [`Rejection`]: problem details
//! (RFC 9457) with `Cache-Control: no-store`.
//!
//! Deployment caveat: the size of the body is bounded by the gate around the route, or else by
//! axum's own limit of 2 MB.
//!
//! ```
//! use axum::{Json, Router, routing::post};
//! use portcullis::problem::{self, ProblemJson};
//!
//! #[derive(serde::Deserialize)]
//! struct Prompt {
//!     prompt: String,
//! }
//!
//! let app: Router = Router::new()
//!     .route("/echo", post(async |ProblemJson(body): ProblemJson<Prompt>| Json(body.prompt)))
//!     .method_not_allowed_fallback(problem::method_not_allowed)
//!     .fallback(problem::not_found);
//! # drop(app);
//! ```

use axum::{
    body::Bytes,
    extract::{FromRequest, OptionalFromRequest, Request},
};
use http::{StatusCode, header::CONTENT_TYPE};
use http_body::Body as _;
use serde::de::DeserializeOwned;

use crate::{
    json,
    rejection::{Rejection, RejectionKind},
};

/// A JSON body of type `T`.
///
/// Admitted: exactly one `Content-Type: application/json`, with no charset or UTF-8, and a body
/// that is a `T`. Answered otherwise: 415 for another type, 400 for a body that is not JSON or did
/// not arrive whole, 413 for one past the limit, 422 for JSON that is no `T`.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProblemJson<T>(pub T);

impl<T, S> FromRequest<S> for ProblemJson<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
{
    type Rejection = Rejection;

    async fn from_request(request: Request, state: &S) -> Result<Self, Rejection> {
        json::check_type(request.headers())?;
        let bytes =
            Bytes::from_request(request, state)
                .await
                .map_err(|error| match error.status() {
                    StatusCode::PAYLOAD_TOO_LARGE => json::too_large(),
                    _ => json::incomplete(),
                })?;
        json::parse(&bytes).map(Self)
    }
}

/// `Option<ProblemJson<T>>`: a request without a body and without a type is `None`.
impl<T, S> OptionalFromRequest<S> for ProblemJson<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
{
    type Rejection = Rejection;

    async fn from_request(request: Request, state: &S) -> Result<Option<Self>, Rejection> {
        if request.body().is_end_stream() && !request.headers().contains_key(CONTENT_TYPE) {
            return Ok(None);
        }
        <Self as FromRequest<S>>::from_request(request, state)
            .await
            .map(Some)
    }
}

/// Answers what no route knows: 404.
pub async fn not_found() -> Rejection {
    Rejection::new(RejectionKind::NotFound, ROUTER, "no_route")
}

/// Answers a method that a route does not have: 405. The router adds `Allow`.
pub async fn method_not_allowed() -> Rejection {
    Rejection::new(RejectionKind::MethodNotAllowed, ROUTER, "no_method")
}

const ROUTER: &str = "router";
