//! HTTPS and nothing else: the hosts that are served, and the way from plain HTTP.
//!
//! [`HttpsLayer`] stands inside [`ClientLayer`](crate::ClientLayer), which knows through trusted
//! proxies whether the client speaks HTTPS, and admits:
//!
//! 1. requests for the public host, or for one that is [named](HttpsPolicy::host); others are
//!    421, so that no foreign `Host` gets into links, caches or redirects, and no page reaches the
//!    service by making its own name resolve here (DNS rebinding). A request without a host, or
//!    with two, is 400;
//! 2. requests over HTTPS; plain `GET` and `HEAD` are answered 308 to the same path at the public
//!    origin, never at a host that the request names. Other methods are 403: a redirect would have
//!    them sent a second time, when the first has already crossed the network in the clear, and
//!    preflights must not be redirected;
//! 3. plain requests that are exempt: ACME challenges, and what
//!    [`exempt`](HttpsPolicy::exempt) says, such as a load balancer's health checks.
//!
//! A plain request that claims HTTPS in a forwarding header comes through a proxy that is not
//! trusted. Redirecting it would go round forever, so it is 403, with the event `misconfigured`.
//!
//! Deployment caveat: a proxy that ends TLS and says so in no header cannot be told from plain
//! HTTP, and browsers will be redirected until they give up. Have it send `X-Forwarded-Proto`, and
//! trust it.
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::Full;
//! use portcullis::{Client, Origin, https::{HttpsLayer, HttpsPolicy}};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
//! # runtime.block_on(async {
//! let policy = HttpsPolicy::new(Origin::new("https://example.com")?)
//!     .host("www.example.com")?
//!     .exempt(|head| head.uri.path() == "/healthz");
//! let service = ServiceBuilder::new()
//!     .layer(HttpsLayer::new(policy))
//!     .service(service_fn(async |_: Request<Full<Bytes>>| {
//!         Ok::<_, std::io::Error>(Response::new(Full::<Bytes>::default()))
//!     }));
//! let mut request = Request::get("/page?a=1")
//!     .header("host", "www.example.com")
//!     .body(Full::default())?;
//! request.extensions_mut().insert(Client::new(None, false));
//! let response = service.oneshot(request).await?;
//! assert_eq!(response.status(), 308);
//! assert_eq!(response.headers()["location"], "https://example.com/page?a=1");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod layer;
mod policy;

pub(crate) use self::{layer::redirect, policy::Verdict};
pub use self::{
    layer::{Https, HttpsLayer},
    policy::HttpsPolicy,
};
