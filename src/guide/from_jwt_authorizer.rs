//! From `jwt-authorizer` 0.15.
//!
//! | jwt-authorizer | here |
//! |---|---|
//! | `JwtAuthorizer::from_secret`, `from_rsa_pem_text`, `from_ec_pem_text`, `from_ed_pem_text` | [`KeySet`](crate::jwt::KeySet) of [`VerifyingKey::secret`](crate::jwt::VerifyingKey::secret) or [`from_pem`](crate::jwt::VerifyingKey::from_pem) |
//! | `from_jwks_text` | [`KeySet::from_jwks`](crate::jwt::KeySet::from_jwks) |
//! | `from_jwks_url`, `from_oidc` | [`RemoteKeys`](crate::jwt::RemoteKeys) with `JwksClient` (feature `jwks-client`) or your own client |
//! | `Validation::new().iss(…).aud(…)`, both unchecked by default | mandatory arguments of [`Verifier::new`](crate::jwt::Verifier::new); [`Expect::anything`](crate::jwt::Expect::anything) opts out by name |
//! | `nbf` unchecked by default | always checked |
//! | leeway 60 s by default | 0; [`with_leeway`](crate::jwt::Verifier::with_leeway) |
//! | any `typ` | `at+jwt`; others by [`with_types`](crate::jwt::Verifier::with_types) |
//! | `.check(\|claims\| …)` | [`RequireLayer`](crate::authorize::RequireLayer), [`RequireScopeLayer`](crate::authorize::RequireScopeLayer) |
//! | `JwtSource::Cookie(name)` | [`TokenSource::cookie`](crate::jwt::TokenSource::cookie), which a stack takes only together with a cross-site rule |
//! | `JwtClaims<C>` extractor | [`Claims<C>`](crate::jwt::Claims), an extractor with the feature `axum` |
//! | `layer(authorizer.into_layer())` | [`JwtLayer::new`](crate::jwt::JwtLayer::new)`(verifier).claims::<C>()` |
//!
//! ```
//! use portcullis::{Secret, jwt::{Algorithm, JwtLayer, KeySet, TokenTypes, Verifier, VerifyingKey}};
//! use std::time::Duration;
//!
//! #[derive(serde::Deserialize)]
//! struct User {
//!     email: Option<String>,
//! }
//!
//! // JwtAuthorizer::from_secret(…).validation(Validation::new().iss(…).aud(…))
//! let key = VerifyingKey::secret(Algorithm::HS256, &Secret::generate())?;
//! let verifier = Verifier::new(KeySet::new([key])?, "https://id.example", "api")?
//!     // What the provider writes, and the leeway that there was.
//!     .with_types(TokenTypes::AccessTokenOrJwt)
//!     .with_leeway(Duration::from_secs(60))?;
//! let layer = JwtLayer::new(verifier).claims::<User>();
//! # let _ = |user: User| user.email;
//! # drop(layer);
//! # Ok::<(), portcullis::ConfigError>(())
//! ```
//!
//! Tokens that were taken before and are refused now: without `exp` or `sub`, with `crit`, with a
//! member twice, from a secret of under 32 bytes. The rejection's
//! [reason](crate::Rejection::reason) says which, to you and not to the client.
