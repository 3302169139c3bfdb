//! API keys: for programs, which cannot log in.
//!
//! A key is `pk_<environment>_<id>_<secret><checksum>`: 256 random bits behind a name that scanners
//! for leaked secrets find. It is shown once, and a store keeps its digest alone. A slip of the
//! hand, a cut key and a key of another environment are told without asking the store.
//!
//! Admitted: a request with one live key as `Authorization: Bearer` (RFC 6750 section 2.1) or
//! `X-API-Key`, never in the URL, where logs would keep it. Handlers find an
//! [`Identity`](crate::Identity) and a [`UsedKey`] in the extensions. Answered otherwise: 401 for no
//! key or one that does not work, alike whatever the reason; 400 for two credentials in one
//! request; 503 when the store is away. With [`optional`](ApiKeyLayer::optional) a request without a
//! key goes on, so that a [`JwtLayer`](crate::jwt::JwtLayer) further in takes tokens on the same
//! route; a bearer token that is no key is left to it.
//!
//! Every key has an end. A user makes one only shortly after a login, it allows no more than he may,
//! and he has at most 25. [Rotation](ApiKeys::rotate) gives the old key some hours more, never past
//! its own end.
//!
//! Deployment caveat: put a rate limit by address outside this gate, since a well-formed key with an
//! unknown id costs a read of the store. A revocation is felt at once by the process that made it,
//! and by others after the [cache's](ApiKeys::with_cache) 30 s or through the deny list.
//!
//! ```
//! use portcullis::{Context, Identity, IdentityKind, api_key::{ApiKeys, MemoryKeys, NewApiKey}};
//! use std::time::Duration;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let keys = ApiKeys::new(MemoryKeys::new(), "dev")?;
//! let ada = Identity::new(IdentityKind::AccessToken, "ada")
//!     .with_scopes(["model", "upload"])
//!     .with_auth_time(Context::new().wall());
//! let first = keys.create(&ada, NewApiKey::new("build server").with_scopes(["upload"])).await?;
//! assert!(first.key().expose().starts_with("pk_dev_"));
//!
//! let used = keys.verify(first.key().expose(), None).await?;
//! assert_eq!(used.identity().subject(), "ada");
//! assert!(!used.identity().has_scope("model"));
//!
//! let second = keys.rotate(&ada, first.record().id, Duration::from_secs(3_600)).await?;
//! assert!(keys.verify(first.key().expose(), None).await.is_ok());
//! keys.revoke(&ada, second.record().id).await?;
//! assert!(keys.verify(second.key().expose(), None).await.is_err());
//! # Ok(())
//! # }
//! ```

mod cache;
#[cfg(feature = "test-suite")]
pub mod conformance;
mod error;
mod format;
mod keys;
mod layer;
mod record;
mod service;
mod store;

#[cfg(feature = "postgres")]
pub use self::store::postgres;
#[cfg(feature = "sqlite")]
pub use self::store::sqlite;
pub use self::{
    error::ApiKeyError,
    format::{ApiKey, ApiKeyDigest, ApiKeyId, NotAKey, NotAnApiKeyId},
    keys::{ApiKeys, MintedKey, NewApiKey, UsedKey},
    layer::ApiKeyLayer,
    record::{ApiKeyRecord, StoredKey},
    service::{ApiKeyFuture, ApiKeyGate},
    store::{
        ApiKeyStore, CreateOutcome, KeyRotation, MemoryKeys, RotateOutcome, StoreError,
        StoreErrorKind,
    },
};
