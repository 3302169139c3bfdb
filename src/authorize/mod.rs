//! What an authenticated caller may do.
//!
//! These layers stand inside a gate that authenticates and read the [`Identity`](crate::Identity)
//! that it left; they do not care which gate that was.
//!
//! 1. A request with no identity is 401 with a plain `Bearer` challenge.
//! 2. A caller who lacks what is required is 403: for a scope with
//!    `WWW-Authenticate: Bearer error="insufficient_scope", scope="…"` (RFC 6750 section 3.1), for
//!    a login that is too old with `error="insufficient_user_authentication"` (RFC 9470).
//! 3. The challenges name the realm and the resource's metadata where the layer is told them; a
//!    [guard](crate::stack::Guard)'s name what those of its authentication do.
//! 4. Scopes and roles are compared exactly; there are no wildcards and no hierarchy.
//!
//! Deployment caveat: a scope says what a token may be used for and not whose data it may touch;
//! the handler still checks that the thing belongs to the caller.
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::Full;
//! use portcullis::{Identity, IdentityKind, authorize::RequireScopeLayer};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let service = ServiceBuilder::new()
//!     .layer(RequireScopeLayer::new("model")?)
//!     .service(service_fn(|_: Request<Full<Bytes>>| async {
//!         Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::default()))
//!     }));
//! let mut request = Request::new(Full::default());
//! let caller = Identity::new(IdentityKind::ApiKey, "user-1").with_scopes(["upload"]);
//! request.extensions_mut().insert(caller);
//! let response = service.oneshot(request).await?;
//! assert_eq!(response.status(), 403);
//! assert_eq!(
//!     response.headers()["www-authenticate"],
//!     r#"Bearer error="insufficient_scope", scope="model""#,
//! );
//! # Ok(()) }
//! ```

mod layer;
mod requirement;
mod service;

pub use self::{
    layer::{RequireFreshLoginLayer, RequireLayer, RequireRoleLayer, RequireScopeLayer},
    service::Authorize,
};
