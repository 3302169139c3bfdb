//! Tower layers that turn a written security policy into running middleware.
//!
//! Start with [`stack`], which puts the gates together in their order; each gate also stands alone
//! as a layer in the module of its name. Guides are in `guide`, programs in the package's `examples`.
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::Full;
//! use portcullis::{Context, stack::{Guard, SecurityStack}};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # tokio_test::block_on(async {
//! let stack = SecurityStack::new(Context::new());
//! let service = ServiceBuilder::new()
//!     .layer(stack.layer())
//!     .layer(stack.route(Guard::new().body(16 * 1024))?)
//!     .service(service_fn(async |_: Request<_>| {
//!         Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::from("hello")))
//!     }));
//! let answer = service.oneshot(Request::new(Full::<Bytes>::default())).await?;
//! assert_eq!(answer.status(), 200);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! # Order
//!
//! Edge: client → security headers → panic catch → CORS → hosts and HTTPS → cross-site refusal.
//! Route: limits by client → stated size → authentication → limits by identity → scopes → CSRF token →
//! body and upload.
//!
//! # Features
//!
//! | feature | what it brings |
//! |---|---|
//! | `headers` (default) | security headers by content type, CSP with nonces |
//! | `rate-limit` (default) | exact and smooth limits in bounded memory |
//! | `jwt`, `aws-lc-rs` (default) | access tokens; signatures by AWS-LC |
//! | `upload` (default) | sizes, strict multipart, types by content |
//! | `rust-crypto` | signatures in pure Rust |
//! | `jwks-client` | key sets fetched over HTTPS |
//! | `csrf`, `cors` | cross-site requests; a checked origin list |
//! | `refresh-token` | rotating refresh tokens; with `jwt`, sessions |
//! | `password`, `argon2` | bounded hashing off the executor |
//! | `login-throttle` | failed logins by account |
//! | `api-key` | keys for programs |
//! | `sqlite`, `postgres`, `redis` | stores, and limits of a fleet |
//! | `clamd`, `object-store` | a virus scanner; hand-off of checked files |
//! | `metrics`, `audit` | counters; the production checklist |
//! | `test-suite` | the rules of stores, for authors of one |
//! | `axum`, `tonic` | their bodies, extractors and peers |
//!
//! None changes the behaviour of another.
//!
//! # Stability
//!
//! Semantic versioning; before 1.0 a minor version may break. Public types come from `http`,
//! `http-body`, `bytes`, `tower` and std, and others only in the module that their feature names.
//! Defaults may become stricter in a minor version, and the changelog says so.
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "api-key")]
pub mod api_key;
#[cfg(feature = "audit")]
pub mod audit;
pub mod authorize;
pub mod body;
pub mod body_limit;
mod challenge;
pub mod client;
mod context;
#[cfg(any(feature = "csrf", feature = "jwt", feature = "login-throttle"))]
mod cookie;
#[cfg(feature = "cors")]
pub mod cors;
#[cfg(feature = "csrf")]
pub mod csrf;
#[cfg(all(feature = "jwt", feature = "refresh-token"))]
pub mod deny_feed;
pub mod deny_list;
mod error;
pub mod event;
pub mod future;
pub mod guarded;
#[cfg(doc)]
pub mod guide;
mod head;
#[cfg(feature = "headers")]
pub mod headers;
pub mod https;
mod identity;
#[cfg(any(feature = "axum", all(feature = "jwt", feature = "refresh-token")))]
mod json;
#[cfg(feature = "jwt")]
pub mod jwt;
mod keyed;
#[cfg(feature = "login-throttle")]
pub mod login_throttle;
mod origin;
#[cfg(feature = "password")]
pub mod password;
#[cfg(feature = "axum")]
pub mod problem;
#[cfg(feature = "rate-limit")]
pub mod rate_limit;
#[cfg(all(
    feature = "redis",
    any(feature = "rate-limit", feature = "refresh-token")
))]
mod redis_link;
#[cfg(feature = "refresh-token")]
pub mod refresh_token;
pub mod rejection;
pub mod secret;
#[cfg(all(feature = "jwt", feature = "refresh-token"))]
pub mod session;
pub mod stack;
#[cfg(any(feature = "api-key", feature = "refresh-token"))]
mod store_error;
pub mod time;
#[cfg(feature = "upload")]
pub mod upload;

#[cfg(all(
    doctest,
    feature = "axum",
    feature = "headers",
    feature = "jwt",
    feature = "rate-limit"
))]
#[doc = include_str!("../README.md")]
mod readme {}

pub use self::{
    body::{OwnBodyLayer, RejectionBody, ResponseBody},
    client::{Client, ClientLayer, Peer, TrustedProxies},
    context::Context,
    deny_list::DenyList,
    error::ConfigError,
    future::ResponseFuture,
    head::Head,
    identity::{Identity, IdentityKind},
    origin::Origin,
    rejection::{Rejection, RejectionKind, Render, WireForm},
    secret::Secret,
};
