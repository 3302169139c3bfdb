//! How large a request body may be, and how long it may take.
//!
//! 1. A body whose `Content-Length` or size hint is above the limit is answered 413 before a byte
//!    of it is read and before the handler is called.
//! 2. A body without a length (chunked, HTTP/2) is counted while the handler reads it. The frame
//!    that passes the limit is answered 413 whatever the handler makes of it: the handler is
//!    dropped, and never sees an error.
//! 3. A body that stalls for 30 s while somebody reads it, or has not ended 5 minutes after the
//!    request's head, is answered 408. Both times can be set.
//!
//! A request without a body passes untouched. A body that the handler does not read is not counted.
//! A reader that outlives the response gets the [`Rejection`](crate::Rejection) as a body error.
//!
//! Deployment caveat: the times need Tokio's timer; without a Tokio runtime there are none. axum's
//! extractors have a limit of their own, 2 MB: lift it with `DefaultBodyLimit::disable()` on routes
//! where this gate's limit is larger.
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::Full;
//! use portcullis::{body_limit::BodyLimitLayer, guarded::GuardedBody};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! let service = ServiceBuilder::new()
//!     .layer(BodyLimitLayer::new(16 * 1024))
//!     .service(service_fn(async |_: Request<GuardedBody<Full<Bytes>>>| {
//!         Ok::<_, std::io::Error>(Response::new(Full::<Bytes>::default()))
//!     }));
//! let request = Request::new(Full::from(vec![0; 16 * 1024 + 1]));
//! assert_eq!(service.oneshot(request).await.unwrap().status(), 413);
//! # });
//! ```

mod layer;
mod limit;
mod service;

#[allow(unused_imports)]
pub(crate) use self::limit::Limit;
pub use self::{layer::BodyLimitLayer, service::BodyLimit};
