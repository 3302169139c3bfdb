//! How the instances of a service learn what the others ended.
//!
//! Each instance judges access tokens and API keys by its own [`DenyList`](crate::DenyList), without
//! a call over the network. A [`DenyFeed`] fills it, in the background and in two ways:
//!
//! 1. It reads the session store, and that of the API keys, every 250 ms: what was ended since the
//!    last time, and a minute before it again, since clocks differ and transactions take time. What
//!    is known already is passed over.
//! 2. With a [`RedisFeed`] (feature `redis`) it tells the others at once what is ended here, and
//!    hears from them five times a second.
//!
//! An end comes first into the store, then to the caller, then to Redis: no logout waits for Redis.
//!
//! In Redis the ends stand in one stream, for as long as an access token can live. The record and
//! the news of it are one thing, so nothing falls between them, and an instance asks for what came
//! after the last entry that it saw, that entry included. Where it is gone, the server has lost data
//! or the connection was away too long: then all of the stream is read again before the feed counts
//! as heard, and what this instance ended and the stream does not hold is told again. A channel of
//! Redis (`SUBSCRIBE`) tells nothing of what it lost, and a connection that waits is silent whether
//! there is no news or no server; an answer five times a second proves that there is one.
//!
//! # While something is away
//! - **Redis**: the store is read every 250 ms as ever. Ends made here wait, at most 10,000; beyond
//!   that the others are told to refuse every token that was issued before.
//! - **The store**: nobody who cannot reach it ends anything either; what those who can ended is
//!   heard through Redis, unless they in turn cannot reach that.
//! - **Both**, for longer than [`with_staleness`](DenyFeed::with_staleness) (60 s): others may have
//!   ended what is not known here. JWT routes answer 503, and API keys are asked for in their store,
//!   until the store was read again.
//!
//! Deployment caveat: what Redis lost and no living instance ended is in the store alone, which has
//! it for all who read it. With sessions in memory or in a file of each instance, there is no such
//! store: then an end that the dead instance was about to tell is known to nobody.
//!
//! ```
//! # use portcullis::{
//! #     Context, DenyList,
//! #     jwt::{Algorithm, Issuer, SigningKey},
//! #     refresh_token::{MemoryStore, RefreshTokens},
//! #     secret::Secret,
//! # };
//! use portcullis::{deny_feed::DenyFeed, session::Sessions};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let key = SigningKey::secret(Algorithm::HS256, &Secret::generate())?;
//! # let issuer = Issuer::new(key, "https://id.example", "api")?;
//! # let tokens = RefreshTokens::new(MemoryStore::new(), Secret::generate());
//! let deny_list = DenyList::pending(&Context::new(), issuer.ttl());
//! let sessions = Sessions::new(issuer, tokens, deny_list.clone());
//! let feed = DenyFeed::new(sessions);
//! feed.sync().await?;
//! assert!(deny_list.is_ready());
//! let feeding = tokio::spawn(feed.clone().run());
//! # feeding.abort();
//! # Ok(())
//! # }
//! ```

mod feed;
#[cfg(feature = "redis")]
mod redis;

pub use self::feed::DenyFeed;
#[cfg(feature = "redis")]
pub use self::redis::RedisFeed;
