//! From `tower_governor` 0.8.
//!
//! | tower_governor | here |
//! |---|---|
//! | `GovernorConfigBuilder::default().per_second(p).burst_size(n)`: `n` at once, then one each `p` seconds | [`Policy::smooth`](crate::rate_limit::Policy::smooth)`(name, n, n * p seconds)` |
//! | no counterpart | [`Policy::strict`](crate::rate_limit::Policy::strict): never more than `n` in any window |
//! | `PeerIpKeyExtractor` (the default) | the default; IPv6 by /64 and /48 |
//! | `SmartIpKeyExtractor`: the first address of `X-Forwarded-For`, whoever wrote it | [`TrustedProxies`](crate::TrustedProxies): the last that a trusted proxy wrote |
//! | `GlobalKeyExtractor` | `.by(\|_\| Some(Key::of("all")))` |
//! | `impl KeyExtractor` | `.by(\|head\| …)` |
//! | no key is 500 | [`MissingKey`](crate::rate_limit::MissingKey): one shared count, 400, or not counted |
//! | `use_headers()`: `x-ratelimit-*` | [`with_fields`](crate::rate_limit::RateLimitLayer::with_fields), and [`with_legacy_fields`](crate::rate_limit::RateLimitLayer::with_legacy_fields) for the old names |
//! | `Retry-After` rounded down | rounded up |
//! | `error_handler` | [`Context::with_render`](crate::Context::with_render), for the refusals of all gates |
//! | `methods(vec![…])` | [`only_if`](crate::rate_limit::RateLimitLayer::only_if) |
//! | a task that calls `retain_recent` | nothing: memory is bounded |
//! | one layer for each limit | several policies in one layer, charged together |
//!
//! ```
//! use http::Method;
//! use portcullis::rate_limit::{FieldsVersion, LegacyReset, Policy, RateLimitLayer};
//! use std::time::Duration;
//!
//! // per_second(4), burst_size(2), use_headers(), methods(vec![Method::POST])
//! let limits = RateLimitLayer::new([Policy::smooth("general", 2, Duration::from_secs(8))?])
//!     .with_fields(FieldsVersion::Draft10)
//!     .with_legacy_fields(LegacyReset::Delta)
//!     .only_if(|head| head.method == Method::POST);
//! # drop(limits);
//! # Ok::<(), portcullis::ConfigError>(())
//! ```
//!
//! `per_second(60)` there means one request each 60 seconds and is often taken for 60 a second: say
//! what you meant as a limit and a window. With axum, keep
//! `into_make_service_with_connect_info::<SocketAddr>()`.
