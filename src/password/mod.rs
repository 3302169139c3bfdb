//! Passwords: hashed with bcrypt or Argon2id, off the async executor, in a bounded queue.
//!
//! A [`PasswordHasher`] does three things for a service:
//!
//! 1. [`check`](PasswordHasher::check) refuses what bcrypt cannot tell apart, before any user is
//!    looked up: fewer than 8 bytes, more than 71, or a NUL byte (with Argon2id too, so that either
//!    scheme takes the other's passwords);
//! 2. [`hash`](PasswordHasher::hash) makes what is stored for a new password;
//! 3. [`verify`](PasswordHasher::verify) compares, with equal work for a user that does not exist
//!    (`None`), for a stored text that is not a hash, and for hashes of an older cost; it says when
//!    the stored hash is due to be made anew.
//!
//! Hashing runs on tokio's blocking threads, at most [half the cores](PasswordHasher::new) at a
//! time, also when callers go away in the middle. What waits is bounded: one hash for each IPv4 /24
//! or IPv6 /48 where the client is told ([`for_client`](PasswordHasher::for_client)), and a share
//! each for logins and for new passwords. Beyond that the answer is [`PasswordError::Busy`] (503
//! with `Retry-After`).
//!
//! With the feature `argon2` new hashes can be Argon2id (RFC 9106), which OWASP's Password Storage
//! Cheat Sheet prefers where nothing else demands bcrypt. A service that has bcrypt hashes moves
//! over login by login:
//!
//! ```
//! # #[cfg(feature = "argon2")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use portcullis::password::{Argon2id, PasswordHasher};
//!
//! let before = PasswordHasher::new().with_cost(4)?;
//! let mut stored = before.hash("correct horse").await?;
//!
//! let hasher = before.with_argon2id(Argon2id::default());
//! let verified = hasher.verify("correct horse", Some(&stored)).await?;
//! if verified.rehash_due() {
//!     let hash = hasher.hash("correct horse").await?;
//!     stored = hash; // in a database: if the stored hash is still the one that was verified
//! }
//! assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "argon2"))]
//! # fn main() {}
//! ```
//!
//! Deployment caveat: at cost 12 a core does about five hashes a second, so a login needs a rate
//! limit of its own.
//!
//! ```
//! use portcullis::password::PasswordHasher;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let hasher = PasswordHasher::new().with_cost(4)?; // 4 is for tests; the default is 12
//! let stored = hasher.hash("correct horse").await?;
//! assert!(hasher.verify("correct horse", Some(&stored)).await?.is_correct());
//! assert!(!hasher.verify("battery staple", Some(&stored)).await?.is_correct());
//! assert!(!hasher.verify("correct horse", None).await?.is_correct()); // no such user
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "argon2")]
mod argon2id;
mod bcrypt;
mod hasher;
mod policy;
mod queue;
mod scheme;

#[cfg(feature = "argon2")]
pub use self::argon2id::Argon2id;
pub use self::{
    hasher::{PasswordError, PasswordHasher},
    policy::Unusable,
    scheme::Verification,
};
