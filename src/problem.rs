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
    extract::{FromRequest, Request},
};
use http::{HeaderMap, HeaderValue, StatusCode, header::CONTENT_TYPE};
use serde::de::DeserializeOwned;

use crate::rejection::{Rejection, RejectionKind};

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
        if !is_json(request.headers()) {
            return Err(
                Rejection::new(RejectionKind::UnsupportedMediaType, GATE, "not_json")
                    .with_detail("Send Content-Type: application/json."),
            );
        }
        let bytes =
            Bytes::from_request(request, state)
                .await
                .map_err(|error| match error.status() {
                    StatusCode::PAYLOAD_TOO_LARGE => {
                        Rejection::new(RejectionKind::PayloadTooLarge, GATE, "body_too_large")
                    }
                    _ => Rejection::new(RejectionKind::BadRequest, GATE, "body_incomplete"),
                })?;
        serde_json::from_slice(&bytes).map(Self).map_err(|error| {
            // The parser's message may quote the body, which may hold a password.
            if error.is_data() {
                Rejection::new(RejectionKind::Unprocessable, GATE, "wrong_shape")
                    .with_detail("The JSON has not the members that are expected here.")
            } else {
                Rejection::new(RejectionKind::BadRequest, GATE, "malformed_json")
                    .with_detail("The body is not valid JSON.")
            }
        })
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

fn is_json(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return false;
    };
    is_json_type(value).unwrap_or(false)
}

fn is_json_type(value: &HeaderValue) -> Option<bool> {
    let (essence, parameters) = match value.to_str().ok()?.split_once(';') {
        Some((essence, parameters)) => (essence, Some(parameters)),
        None => (value.to_str().ok()?, None),
    };
    let utf8 = parameters.is_none_or(|parameters| {
        parameters.split_once('=').is_some_and(|(name, charset)| {
            name.trim().eq_ignore_ascii_case("charset")
                && charset
                    .trim()
                    .trim_matches('"')
                    .eq_ignore_ascii_case("utf-8")
        })
    });
    Some(essence.trim().eq_ignore_ascii_case("application/json") && utf8)
}

const GATE: &str = "json";
const ROUTER: &str = "router";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_named_once_and_in_utf_8() {
        for (value, json) in [
            ("application/json", true),
            ("Application/JSON; charset=UTF-8", true),
            ("application/json;charset=\"utf-8\"", true),
            ("application/json; charset=utf-16", false),
            ("application/problem+json", false),
            ("text/plain", false),
            ("application/json, text/plain", false),
            ("application/json;", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, value.parse().unwrap());
            assert_eq!(is_json(&headers), json, "{value}");
            headers.append(CONTENT_TYPE, "application/json".parse().unwrap());
            assert!(!is_json(&headers), "twice: {value}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }
}
