//! Limits that hold for a fleet: instances share their counts through Redis or Valkey (6.2 and
//! later, alone or as a cluster).
//!
//! 1. Every request is first judged and charged by the instance's own counts, which so are always
//!    warm. Nothing that they refuse is admitted, whatever Redis says.
//! 2. One script in one round trip then judges all policies of the layer by the server's clock and
//!    charges all of them, or none when one refuses; then the instance's own charge is given back.
//!    Requests of one instance that run at the same time share a round trip, each judged for itself:
//!    at most four are under way, with at most 32 requests each. On a cluster each goes alone.
//!    A refusal is remembered until the moment that it names, for at most 5 s at a time, so that a
//!    flood of refused requests costs Redis one call in 5 s for each key.
//! 3. When Redis does not answer within the [budget](RedisLimits::with_budget) (100 ms), each policy
//!    goes the way that its [`Outage`] says. A charge that timed out is not repeated, so it counts
//!    once at most. After three failures Redis is left alone for a moment, then tried by a single
//!    request over a new connection: the old one may lead to a server that became a replica.
//!
//! What is charged while Redis is away stays in the instance's counts, so its return opens nothing:
//! a key gets at most its limit from each instance in any window.
//!
//! Keys are HMAC-SHA256 of the client, subject or digest under a secret that all instances share,
//! and die with their window. All counts of a client, or of an IPv6 /48, lie in one cluster slot;
//! policies that count by different things (client and subject) on one layer take two round trips for
//! each slot on a cluster. A key for which an instance has [no room](super::Policy::with_capacity)
//! shares a count with its network in Redis too: a spray creates no more keys there than fit here.
//!
//! Deployment caveat: Redis replicates asynchronously. After a fail-over the charges of the last
//! moments may be gone, and a key may get up to twice its limit in that window: its limit from the
//! old server and, as far as that is unknown to the new one and to the instance asked, again. A
//! server whose `maxmemory-policy` evicts forgets debts; give limits `noeviction`.
//!
//! ```no_run
//! use portcullis::{Secret, rate_limit::{Policy, RateLimitLayer, redis::RedisLimits}};
//! use std::time::Duration;
//!
//! # async fn example(secret: &Secret) -> Result<(), portcullis::ConfigError> {
//! let redis = RedisLimits::connect("redis://127.0.0.1:6379", secret).await?;
//! let limits = RateLimitLayer::new([Policy::strict("auth", 5, Duration::from_secs(900))?]);
//! let layer = limits.shared(redis);
//! # Ok(())
//! # }
//! ```

mod batch;
mod breaker;
mod connection;
mod denied;
mod handle;
mod layer;
mod outage;
mod script;
mod service;

pub(crate) use self::layer::SharedAdmitted;
pub use self::{
    connection::RedisLimits,
    handle::{SharedCharge, SharedHandle},
    layer::SharedRateLimitLayer,
    outage::Outage,
    service::{SharedRateLimit, SharedRateLimitFuture},
};
