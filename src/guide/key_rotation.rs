//! Key rotation: a change of secret or key that no client notices.
//!
//! The rule is one for all: **what verifies learns the new key before anything is made with it, and
//! keeps the old one until all that was made with it is over.**
//!
//! **Shared secrets** (`JWT_SECRET`, `JWT_REFRESH_SECRET`): three rollouts.
//!
//! | rollout | current | previous |
//! |---|---|---|
//! | 1 | old | new |
//! | 2 | new | old |
//! | 3, after the longest life (access 15 min, refresh 30 days) | new | |
//!
//! Between 1 and 2 every instance knows the new secret, so none refuses what another has made:
//!
//! ```
//! use portcullis::{Context, Secret, jwt::{AccessToken, Algorithm, Issuer, KeySet, SigningKey, Verifier}, secret::Secrets};
//!
//! let (old, new) = (Secret::generate(), Secret::generate());
//! let not_yet_moved = Secrets::new(old.clone()).with_previous([new.clone()]);
//! let keys = KeySet::from_secrets(Algorithm::HS256, &not_yet_moved)?;
//! let verifier = Verifier::new(keys, "https://id.example", "api")?;
//!
//! let moved = Issuer::new(SigningKey::secret(Algorithm::HS256, &new)?, "https://id.example", "api")?;
//! let now = Context::new().wall();
//! let token = moved.issue(&AccessToken::new("ada"), now)?;
//! assert!(verifier.verify(token.as_str(), now).is_ok());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Refresh tokens, device cookies and CSRF tokens take [`Secrets`](crate::secret::Secrets) the same
//! way. A session whose key an instance does not know is 503 there and not a logout.
//!
//! **Signing keys with a published set**: [`announce`](crate::jwt::Issuer::announce) the next key, wait
//! as long as verifiers keep the set (15 minutes with [`RefreshPolicy`](crate::jwt::RefreshPolicy)'s
//! default), then [`rotate`](crate::jwt::Issuer::rotate). The key before stays published for two hours.
//! `examples/jwks_rotation.rs` runs a day of it without one refusal.
//!
//! **A key that got out**: rotate at once, then [`withdraw`](crate::jwt::Issuer::withdraw) the old id.
//! Its tokens die here at once, and elsewhere when the set is fetched again. Here a false refusal is
//! better than a forged token. Then end the sessions of those who may have been impersonated
//! ([`Sessions::end_all`](crate::session::Sessions::end_all)).
//!
//! **API keys** rotate [with overlap](https://docs.rs/portcullis/latest/portcullis/api_key/struct.ApiKeys.html#method.rotate), never past the old key's own end.
