//! Rate limits that keep their word: a [`Policy`] is a name, a limit and a window, and
//! [`RateLimitLayer`] holds every key to it.
//!
//! 1. A request gets its key from each policy: the client's network by default, the subject behind
//!    authentication, or what a closure says. One without a key goes the way that
//!    [`MissingKey`] says.
//! 2. All policies of a layer are judged together. If none refuses, all are charged; if one does,
//!    none is.
//! 3. A refusal is 429 with `Retry-After` in whole seconds, rounded up, and the fields
//!    `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers); its problem type
//!    is `quota-exceeded`, with the names of the policies that refuse.
//! 4. [`with_fields`](RateLimitLayer::with_fields) puts the fields on admitted responses too.
//!
//! | policy | any window admits at most | a second burst after | remembers, beside the key | forgets a key that asked once |
//! |---|---|---|---|---|
//! | [`strict`](Policy::strict), limit N up to 16 | N | the window | the time of each charge: 4 N bytes (20 for 5) | after the window |
//! | [`strict`](Policy::strict), above | N | the window and up to a fifteenth | 16 counts: 24 bytes for 100 | after the window and up to a fifteenth |
//! | [`smooth`](Policy::smooth) | 2 N - 1 | the window | 8 bytes | after a window / N |
//!
//! [`Policy::worst_case_in_window`] and [`Policy::state_bytes_per_key`] say the numbers for a policy.
//! All three cost about the same: a clock read, a hash, a lock and one look into a table, without an
//! allocation. In Redis a strict policy costs the server about half as much again as a smooth one.
//!
//! Memory is bounded: each policy holds [a fixed number](Policy::with_capacity) of keys of each
//! kind (IPv4, IPv6, others). A key is forgotten when it has nothing used up any more, never
//! before; no network (IPv4 /16, IPv6 /32) holds more than a sixteenth of a table; keys for which
//! there is no room share a slot with others of their network, under the same limit.
//!
//! Deployment caveat: the counts are those of one process; the feature `redis` shares them.
//! Behind a proxy, name it in [`TrustedProxies`](crate::TrustedProxies), or all its clients are one.
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response, StatusCode};
//! use http_body_util::Full;
//! use portcullis::{client::Peer, rate_limit::{Policy, RateLimitLayer}};
//! use std::time::Duration;
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! # tokio_test::block_on(async {
//! let limits = RateLimitLayer::new([
//!     Policy::strict("general", 100, Duration::from_secs(15 * 60))?,
//!     Policy::strict("auth", 2, Duration::from_secs(15 * 60))?,
//! ]);
//! let service = limits.layer(service_fn(async |_: Request<Full<Bytes>>| {
//!     Ok::<_, std::io::Error>(Response::new(Full::<Bytes>::default()))
//! }));
//! for expected in [StatusCode::OK, StatusCode::OK, StatusCode::TOO_MANY_REQUESTS] {
//!     let mut request = Request::new(Full::default());
//!     request.extensions_mut().insert(Peer::new("203.0.113.7:4711".parse()?));
//!     let response = service.clone().oneshot(request).await?;
//!     assert_eq!(response.status(), expected);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```

mod fields;
mod future;
mod handle;
mod key;
mod layer;
mod limits;
mod policy;
mod presets;
#[cfg(feature = "redis")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
pub mod redis;
mod service;
mod store;
mod window;

pub(crate) use self::layer::Admitted;
pub use self::{
    fields::{FieldsVersion, LegacyReset},
    future::RateLimitFuture,
    handle::{Charge, Handle, Usage},
    key::Key,
    layer::RateLimitLayer,
    policy::{MissingKey, Policy},
    presets::Tiers,
    service::RateLimit,
};
