//! Cross-site requests: those that another site makes a browser send, with the user's own cookies.
//!
//! [`CsrfLayer`] goes by what browsers say of a request, which no page can forge. It admits:
//!
//! 1. `GET`, `HEAD` and `OPTIONS`, unless they ask for an upgrade: a WebSocket is not bound by the
//!    same-origin policy, so its handshake counts as unsafe, as does `CONNECT`;
//! 2. `Sec-Fetch-Site: same-origin` and `none` (the user's own doing);
//! 3. any `Origin` that is one of the service's own public origins or is [trusted];
//! 4. requests with neither field: no browser that a user has today sent them. But not when they
//!    carry one of the [named cookies], and in [strict] mode not at all.
//!
//! Everything else is 403 with the event `malicious_csrf`, whatever its credentials, so that no
//! stranger logs a visitor in either. The service behind is never called.
//!
//! It differs from `tower_http::csrf` and Go's `CrossOriginProtection` in three ways: the public
//! origins are stated, and `Host`, which proxies rewrite and which ignores the scheme, is not
//! asked; upgrades are unsafe; rule 4 can be closed. A test holds it against tower-http's, case by
//! case.
//!
//! [`CsrfTokens`] are for forms and clients without those fields: a token that is signed for one
//! session, which [`CsrfTokenLayer`] demands behind authentication.
//!
//! Deployment caveat: browsers send `Sec-Fetch-Site` to HTTPS and to loopback only. A service on
//! plain HTTP elsewhere stands on `Origin`, so its public origin must be the one that users type.
//!
//! [trusted]: CsrfPolicy::trust
//! [named cookies]: CsrfPolicy::cookie
//! [strict]: CsrfPolicy::strict
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::Full;
//! use portcullis::{Origin, csrf::{CsrfLayer, CsrfPolicy}};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
//! # runtime.block_on(async {
//! let policy = CsrfPolicy::new([Origin::new("https://example.com")?])
//!     .trust([Origin::new("https://app.example.net")?])
//!     .cookie("__Host-refresh")?;
//! let service = ServiceBuilder::new()
//!     .layer(CsrfLayer::new(policy))
//!     .service(service_fn(async |_: Request<Full<Bytes>>| {
//!         Ok::<_, std::io::Error>(Response::new(Full::<Bytes>::default()))
//!     }));
//! let request = Request::post("/auth/login")
//!     .header("sec-fetch-site", "cross-site")
//!     .header("origin", "https://evil.example")
//!     .body(Full::default())?;
//! assert_eq!(service.oneshot(request).await?.status(), 403);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod layer;
mod policy;
mod token;

pub use self::{
    layer::{Csrf, CsrfLayer, CsrfToken, CsrfTokenLayer},
    policy::CsrfPolicy,
    token::CsrfTokens,
};
