//! JWT access tokens: verified strictly, as a layer or without HTTP, and issued.
//!
//! A token is admitted when
//! 1. it is at most 8 KiB of three parts in unpadded base64url (RFC 7515 section 7.1), its header
//!    and claims are JSON objects, and no member stands twice on any level;
//! 2. its `alg` is that of a key of the [`KeySet`], chosen by `kid`, and the signature holds; no key
//!    and no algorithm ever comes from the token itself (RFC 8725 sections 3.1 and 3.10);
//! 3. its `typ` is `at+jwt` (RFC 9068), or what [`TokenTypes`] says, and its header asks for nothing
//!    that is not understood (`crit`, `b64`, `enc`, `zip`, nested tokens);
//! 4. `iss` and `aud` are those of the [`Verifier`];
//! 5. `exp` is there and not over, `nbf` and `iat` are at most 5 s ahead, `sub` is there, and each
//!    claim that is read has its type;
//! 6. the [deny list](crate::DenyList), where there is one, does not hold it.
//!
//! Otherwise the answer is 401 with `WWW-Authenticate: Bearer error="invalid_token"`, without
//! `error` when no token came; 400 with `error="invalid_request"` when the `Authorization` field is
//! malformed or there are several (RFC 6750 section 3); 503 when keys or the deny list are not
//! there yet. The rejection's [reason](crate::Rejection::reason) tells an operator which rule it
//! was; the client is not told.
//!
//! [`Mode`] lets requests through that have no token, or none that holds. Keys are secrets, PEM, a
//! [JWK set](Jwks), or [fetched](RemoteKeys) and kept fresh; several issuers stand in one verifier,
//! [each with its own](Verifier::with_issuer); [`Verifier::with_cache`] makes a token that comes
//! again cost no signature.
//!
//! A handler finds [`Claims<C>`](Claims) and the [`Identity`](crate::Identity) in the request's
//! extensions. A request that already carries an identity, from a gate further out, goes on
//! untouched.
//!
//! Deployment caveat: a token is a bearer's: whoever reads it is its subject until it expires. Serve
//! it over HTTPS alone and keep it short-lived.
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::Full;
//! use portcullis::{Context, jwt::{AccessToken, Algorithm, Claims, Issuer, JwtLayer, KeySet, SigningKey, Verifier}};
//! use portcullis::secret::{Secret, Secrets};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! #[derive(serde::Deserialize)]
//! struct Mine {
//!     preferred_username: String,
//! }
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let secrets = Secrets::from(Secret::generate());
//! let keys = KeySet::from_secrets(Algorithm::HS256, &secrets)?;
//! let verifier = Verifier::new(keys, "https://id.example", "api")?;
//! let service = ServiceBuilder::new()
//!     .layer(JwtLayer::new(verifier).claims::<Mine>())
//!     .service(service_fn(|request: Request<Full<Bytes>>| async move {
//!         let claims = request.extensions().get::<Claims<Mine>>().expect("the gate is passed");
//!         let greeting = format!("Hello, {}", claims.preferred_username);
//!         Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::from(greeting)))
//!     }));
//!
//! let key = SigningKey::secret(Algorithm::HS256, secrets.current())?;
//! let issuer = Issuer::new(key, "https://id.example", "api")?;
//! let token = AccessToken::new("user-1").with_claim("preferred_username", "ada")?;
//! let token = issuer.issue(&token, Context::new().wall())?;
//! let request = Request::get("/")
//!     .header("authorization", format!("Bearer {}", token.as_str()))
//!     .body(Full::default())?;
//! assert_eq!(service.clone().oneshot(request).await?.status(), 200);
//! assert_eq!(service.oneshot(Request::new(Full::default())).await?.status(), 401);
//! # Ok(()) }
//! ```

mod algorithm;
mod authenticate;
mod base64url;
mod cache;
mod challenge;
mod claims;
#[cfg(feature = "jwks-client")]
mod client;
pub mod crypto;
mod der;
mod endpoint;
mod error;
mod header;
mod issuer;
mod json;
mod jwks;
mod key_set;
mod keys;
mod layer;
mod refresh;
mod remote;
mod service;
mod source;
#[cfg(test)]
mod vectors;
mod verified;
mod verifier;

#[allow(
    unused_imports,
    reason = "the seam for whoever asks several gates in turn"
)]
pub(crate) use self::authenticate::{Authenticate, Grant};
#[cfg(feature = "jwks-client")]
pub use self::client::JwksClient;
pub use self::{
    algorithm::Algorithm,
    authenticate::Failure,
    cache::CacheLimits,
    endpoint::JwksEndpoint,
    error::VerifyError,
    header::TokenTypes,
    issuer::{AccessToken, IssueError, IssuedToken, Issuer, SigningKey},
    jwks::{Jwks, SkipReason, SkippedKey},
    key_set::KeySet,
    keys::VerifyingKey,
    layer::{JwtLayer, Mode},
    refresh::RefreshPolicy,
    remote::{FetchError, Fetched, RemoteKeys},
    service::Jwt,
    source::TokenSource,
    verified::{Claims, Verified},
    verifier::{Expect, Verifier},
};
