//! Cross-origin requests from trusted origins: a checked list that sets up tower-http's CORS layer.
//!
//! [`CorsPolicy`] takes exact origins, and `https://*.example.com` for the names one label below,
//! and makes a [`tower_http::cors::CorsLayer`] that:
//!
//! 1. answers every preflight (and every other `OPTIONS`) itself, with the allowed methods and
//!    headers, so that no limit and no authentication inside it sees one;
//! 2. names the origin in `Access-Control-Allow-Origin` where it is allowed, on every answer,
//!    refusals of inner gates included, and never `*`;
//! 3. sends `Vary: Origin` with every answer, allowed or not, so that no cache mixes them up.
//!
//! A preflight from another origin is sent as the event `malicious_cors`. The request itself is not
//! refused here, since CORS is the browser's to enforce: [`csrf`](crate::csrf) refuses it.
//!
//! Deployment caveat: whoever controls an allowed origin acts as its visitors do. A wildcard trusts
//! each host of the domain, including one that was given up and taken over.
//!
//! ```
//! use portcullis::{Context, cors::CorsPolicy};
//!
//! let policy = CorsPolicy::new(["https://app.example.com", "https://*.preview.example.com"])?
//!     .credentials(true);
//! let layer = policy.layer(&Context::new());
//! assert!(CorsPolicy::new(["*"]).is_err());
//! assert!(CorsPolicy::new(["null"]).is_err());
//! # drop(layer);
//! # Ok::<(), portcullis::ConfigError>(())
//! ```

mod gate;
mod policy;

pub(crate) use self::gate::{CorsGate, Named, Verdict};
pub use self::policy::CorsPolicy;
