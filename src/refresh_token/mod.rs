//! Refresh tokens that rotate, heal lost replies, and tell when somebody has a copy.
//!
//! [`RefreshTokens`] keeps one row for a session (a login on one device) in a
//! [`RefreshTokenStore`]; the token that the client holds is in no store, only its digest. What it
//! does with a token:
//!
//! 1. What is not an authentic token of this server is refused without asking the store.
//! 2. The session's current token is replaced by its successor, in one atomic step of the store.
//! 3. The token before it, inside the *grace window* (30 s), gets **the same successor** again,
//!    from any number of tabs, retries and servers: the successor is derived from the token, the
//!    server's key and what the winner left in the row. After the window the session is over:
//!    somebody has a copy.
//! 4. An older token ends the session too, unless the last rotation is younger than the window: a
//!    late tab, which is refused alone.
//! 5. An authentic token that the store has never seen says that the store lost writes: an alarm,
//!    and the session is over.
//! 6. When the store does not answer, nothing is decided ([`RefreshError::Store`], 503): an outage
//!    is not a logout.
//!
//! Any authentic token of a session, of any age, [ends](RefreshTokens::end) it. A session slides
//! (7 days from its last use) up to an absolute end (30 days), and a user has at most 50.
//!
//! What rotation cannot see is a thief who uses each token inside the same grace window as its
//! owner, every time. A replay from another network is a warning event, and three of them in a row
//! an alarm. A grace window of zero is strict single use, and then two tabs that refresh together
//! log their user out.
//!
//! Sources: RFC 9700 section 4.14.2 (rotation, integrity-protected tokens), RFC 6819 section
//! 5.2.2.3, RFC 7009 (any token ends its grant), RFC 5869 (a subkey for each use).
//!
//! A browser that keeps the token in a cookie keeps the one that arrived last, and on several
//! connections answers overtake each other: now and then an older token comes back, and ends the
//! session. Where that must not be, [`refresh_by_cookie`](RefreshTokens::refresh_by_cookie)
//! replaces a token once in a grace window: no answer that is given meanwhile can put an older one
//! back. A thief who uses the cookie in that time gets an access token and no successor, and is
//! found at the next rotation like any other.
//!
//! Deployment caveat: tabs that keep the token by other means, such as `localStorage`, refresh it
//! one after the other (`navigator.locks`), or store what is older over what is newer.
//!
//! Deployment caveat: to change the secret without a break, first add the new one as *previous* on
//! every server, then make it current; tokens of a key that a server does not know are not its own.
//!
//! ```
//! use portcullis::{
//!     refresh_token::{Device, MemoryStore, RefreshTokens},
//!     secret::Secret,
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let tokens = RefreshTokens::new(MemoryStore::new(), Secret::generate());
//! let login = tokens.begin("user-1").await?; // before the stored password is read
//! let first = tokens.start(login, Device::new()).await?;
//! let second = tokens.refresh(first.token.expose(), None).await?;
//! // A tab that was a moment late gets the same token.
//! let again = tokens.refresh(first.token.expose(), None).await?;
//! assert_eq!(second.token, again.token);
//! tokens.end(first.token.expose(), None).await?;
//! assert!(tokens.refresh(second.token.expose(), None).await.is_err());
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "test-suite")]
pub mod conformance;
mod error;
mod record;
mod rotation;
mod store;
mod token;
mod tokens;

#[cfg(feature = "postgres")]
pub use self::store::postgres;
#[cfg(feature = "redis")]
pub use self::store::redis;
#[cfg(feature = "sqlite")]
pub use self::store::sqlite;
pub use self::{
    error::RefreshError,
    record::{
        Device, EndReason, Ended, KeyId, NotASessionId, Seed, SessionId, SessionRecord, TokenDigest,
    },
    store::{
        CreateOutcome, Lineage, MemoryStore, NewSession, RefreshTokenStore, RevokeOutcome,
        RevokedSubject, RotateOutcome, Rotation, StoreError, StoreErrorKind,
    },
    token::{NotAToken, RefreshToken},
    tokens::{Granted, Login, RefreshTokens},
};
