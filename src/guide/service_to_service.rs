//! Service to service: tokens of an identity provider, or API keys, on one route.
//!
//! **Tokens of a provider**, verified with its published keys. [`RemoteKeys`](crate::jwt::RemoteKeys)
//! decides when they are fetched, [`JwksClient`](crate::jwt::JwksClient) fetches:
//!
//! ```no_run
//! use portcullis::{Context, jwt::{JwksClient, JwtLayer, RefreshPolicy, RemoteKeys, Verifier}};
//!
//! # async fn set_up() -> Result<(), Box<dyn std::error::Error>> {
//! let client = JwksClient::discover("https://id.example").await?;
//! let remote = RemoteKeys::new(RefreshPolicy::new(), Context::new())?;
//! // Issuer and audience are mandatory: a token for another service is no token for this one.
//! let verifier = Verifier::new(remote.key_set(), "https://id.example", "https://api.example")?;
//! tokio::spawn(remote.run(move || {
//!     let client = client.clone();
//!     async move { client.fetch().await }
//! }));
//! let layer = JwtLayer::new(verifier);
//! # drop(layer);
//! # Ok(()) }
//! ```
//!
//! Providers that do not write `typ: at+jwt` (RFC 9068) need
//! [`with_types`](crate::jwt::Verifier::with_types). Several providers stand in one verifier,
//! [each with its own keys](crate::jwt::Verifier::with_issuer).
//!
//! **API keys**, where there is no provider. The key gate stands outside and takes what is a key; the
//! token gate takes the rest. Handlers see an [`Identity`](crate::Identity) and need not care which it
//! was:
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::Full;
//! use portcullis::{
//!     Context, Identity, IdentityKind, Secret,
//!     api_key::{ApiKeyLayer, ApiKeys, MemoryKeys, NewApiKey},
//!     jwt::{AccessToken, Algorithm, Issuer, JwtLayer, SigningKey, Verifier},
//! };
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let signing = SigningKey::secret(Algorithm::HS256, &Secret::generate())?;
//! let issuer = Issuer::new(signing, "https://id.example", "api")?;
//! let keys = ApiKeys::new(MemoryKeys::new(), "dev")?;
//! let service = ServiceBuilder::new()
//!     .layer(ApiKeyLayer::new(keys.clone()).optional())
//!     .layer(JwtLayer::new(Verifier::new(issuer.key_set(), "https://id.example", "api")?))
//!     .service(service_fn(|request: Request<Full<Bytes>>| async move {
//!         let caller = request.extensions().get::<Identity>().expect("both gates authenticate");
//!         let subject = caller.subject().to_owned();
//!         Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::from(subject)))
//!     }));
//!
//! let now = Context::new().wall();
//! let ada = Identity::new(IdentityKind::AccessToken, "ada").with_auth_time(now);
//! let key = keys.create(&ada, NewApiKey::new("nightly job")).await?;
//! let token = issuer.issue(&AccessToken::new("ada"), now)?;
//! for (credential, expected) in [(key.key().expose(), 200), (token.as_str(), 200), ("neither", 401)] {
//!     let request = Request::get("/")
//!         .header("authorization", format!("Bearer {credential}"))
//!         .body(Full::default())?;
//!     assert_eq!(service.clone().oneshot(request).await?.status(), expected);
//! }
//! # Ok(()) }
//! ```
//!
//! **gRPC** callers get statuses: `UNAUTHENTICATED`, `PERMISSION_DENIED`, `RESOURCE_EXHAUSTED`; see
//! `examples/tonic.rs`.
//!
//! Deployment caveat: a bearer token or key works for whoever reads it. Keep hops between services on
//! TLS, and let a token name one audience.
