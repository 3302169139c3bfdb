//! Sessions: access tokens, refresh tokens and the deny list, joined.
//!
//! [`Sessions`] is what a login, a refresh and a logout call:
//!
//! 1. [`begin`](Sessions::begin) before the password's hash is read, then
//!    [`start_login`](Sessions::start_login) when the password was right: a login that raced a
//!    change of the password is never a session;
//! 2. [`refresh`](Sessions::refresh) trades a refresh token for a new pair, and asks the service's
//!    [`Subjects`] whether the user still may, and what his access token says;
//! 3. `change_password` (feature `password`) hashes the new password, ends the other sessions and
//!    sends the event;
//! 4. [`end`](Sessions::end), [`end_one`](Sessions::end_one), [`end_others`](Sessions::end_others)
//!    and [`end_all`](Sessions::end_all) end a user's sessions, [`end_session`](Sessions::end_session)
//!    anybody's. Their access tokens die with them, through the [`DenyList`](crate::DenyList).
//!
//! [`SessionEndpoints`] are services for the routes that clients call: refresh, logout, the list of
//! sessions and their ends, with refresh tokens in JSON bodies or in a cookie. They know no
//! framework.
//!
//! An access token never outlives its session, and its `sid` is the session's id.
//!
//! Deployment caveat: with a store that outlives the process, start from
//! [`DenyList::pending`](crate::DenyList::pending) and call [`recover`](Sessions::recover) until it
//! succeeds; until then JWT routes answer 503. Servers that share a store run a
//! [`DenyFeed`](crate::deny_feed::DenyFeed) instead, so that each learns what the others ended.
//!
//! ```
//! use portcullis::{
//!     Context, DenyList,
//!     jwt::{Algorithm, Issuer, SigningKey},
//!     refresh_token::{Device, MemoryStore, RefreshTokens},
//!     secret::Secret,
//!     session::Sessions,
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let key = SigningKey::secret(Algorithm::HS256, &Secret::generate())?;
//! let issuer = Issuer::new(key, "https://id.example", "api")?;
//! let deny_list = DenyList::since_start(&Context::new(), issuer.ttl());
//! let tokens = RefreshTokens::new(MemoryStore::new(), Secret::generate());
//! let sessions = Sessions::new(issuer, tokens, deny_list);
//!
//! let login = sessions.begin("user-1").await?;
//! // read the stored hash and verify the password here
//! let pair = sessions.start_login(login, Device::new()).await?;
//! let next = sessions.refresh(pair.refresh_token.expose(), None).await?;
//! sessions.end(next.refresh_token.expose(), None).await?;
//! # Ok(())
//! # }
//! ```

mod cookie;
mod endpoints;
mod error;
#[cfg(feature = "password")]
mod password;
mod sessions;
mod subjects;

#[cfg(feature = "password")]
pub use self::password::{PasswordChange, PasswordChangeError};
pub use self::{
    endpoints::{SessionEndpoint, SessionEndpoints, SessionFuture},
    error::SessionError,
    sessions::{Sessions, TokenPair},
    subjects::{Grants, SubjectStatus, Subjects},
};
