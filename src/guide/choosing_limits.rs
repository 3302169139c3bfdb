//! Choosing limits: an algorithm, a number, a key, and what a missing key means.
//!
//! **Algorithm.** [`Policy::strict`](crate::rate_limit::Policy::strict) never admits more than its
//! limit in any window: take it wherever the number is a promise ("5 logins in 15 minutes").
//! [`Policy::smooth`](crate::rate_limit::Policy::smooth) paces: it keeps 8 bytes a key and admits up
//! to `2 * limit - 1` in the window that begins with a burst. Ask the policy, it tells:
//!
//! ```
//! use portcullis::rate_limit::Policy;
//! use std::time::Duration;
//!
//! let window = Duration::from_secs(900);
//! assert_eq!(Policy::strict("auth", 5, window)?.worst_case_in_window(), 5);
//! assert_eq!(Policy::smooth("auth", 5, window)?.worst_case_in_window(), 9);
//! # Ok::<(), portcullis::ConfigError>(())
//! ```
//!
//! **Number.** Start from what the dearest thing behind the route costs. [`Tiers`] holds the usual
//! four; put a new limit in [`shadow`](crate::rate_limit::Policy::shadow) first, read the events, and
//! enforce it when only those are named who should be.
//!
//! **Key.** By client is the default, and stands before authentication so that guesses count. Behind
//! authentication add one [by subject](crate::rate_limit::Policy::by_subject): offices share an
//! address, and a user has many. Failed logins also need a count by account, since a botnet has an
//! address for every guess: that is `login_throttle`. What is charged dearly counts
//! [more](crate::rate_limit::Policy::with_cost).
//!
//! **Several at once.** The policies of one layer are charged together or not at all, so a request
//! that one refuses spends nothing of the others:
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::Full;
//! use portcullis::rate_limit::{Key, MissingKey, Policy, RateLimitLayer};
//! use std::time::Duration;
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! # tokio_test::block_on(async {
//! let minute = Duration::from_secs(60);
//! let limits = RateLimitLayer::new([
//!     Policy::strict("tenant", 100, minute)?
//!         .by(|head| Some(Key::of(head.headers.get("x-tenant")?)))
//!         .with_missing_key(MissingKey::Reject),
//!     Policy::smooth("search", 20, minute)?.with_cost(5)?.by(|head| Some(Key::of(head.uri.path()))),
//! ]);
//! let service = limits.layer(service_fn(async |_: Request<Full<Bytes>>| {
//!     Ok::<_, std::io::Error>(Response::new(Full::<Bytes>::default()))
//! }));
//! let nobody = service.oneshot(Request::new(Full::default())).await?;
//! assert_eq!(nobody.status(), 400);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! **Memory.** A strict policy keeps [so many bytes] a key, up to its
//! [capacity](crate::rate_limit::Policy::with_capacity); past it, keys of one network share a count
//! under the same limit, and nobody's debt is forgotten. Watch
//! [`overflowed`](crate::rate_limit::Handle::overflowed).
//!
//! Counts are those of one process. Several need the feature `redis`.
//!
//! [`Tiers`]: crate::rate_limit::Tiers
//! [so many bytes]: crate::rate_limit::Policy::state_bytes_per_key
