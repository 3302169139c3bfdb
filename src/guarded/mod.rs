//! A request body that a gate watches while the handler reads it, and the verdict on it.
//!
//! A gate cannot read a body before the handler does without holding all of it. It watches instead:
//! [`GuardedBody`] shows each frame to the gate's check before the handler sees it, and
//! [`GuardedFuture`] waits for the handler and for the check's verdict at once. A refusal never
//! reaches the handler as a body error, which it might swallow or answer 500 to: the body stays
//! pending, the future drops the handler and answers itself. A reader that outlives the response
//! (a spawned task) gets the [`Rejection`](crate::Rejection) as an error once, then the end.
//!
//! Where the gate promises that nothing of a refused body is acknowledged
//! (`upload`), a success of the handler waits until the body has ended; what the
//! handler left unread is read by the future.
//!
//! Deployment caveat: behind an upload gate a handler that hands the body to a task and answers at
//! once has its success wait for that task.
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::{BodyExt, Full};
//! use portcullis::{body_limit::BodyLimitLayer, guarded::GuardedBody};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! // A handler behind a watching gate takes a `GuardedBody`, or any body.
//! let service = ServiceBuilder::new().layer(BodyLimitLayer::new(16)).service(service_fn(
//!     async |request: Request<GuardedBody<Full<Bytes>>>| {
//!         let bytes = request.into_body().collect().await?.to_bytes();
//!         Ok::<_, Box<dyn std::error::Error + Send + Sync>>(Response::new(Full::new(bytes)))
//!     },
//! ));
//! let response = service.oneshot(Request::new(Full::from("hello"))).await.unwrap();
//! assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
//! # });
//! ```

mod body;
mod cell;
mod check;
mod counter;
mod future;
mod pace;
mod watch;

pub use self::{body::GuardedBody, future::GuardedFuture};
#[allow(unused_imports, reason = "a stack watches bodies too")]
pub(crate) use self::{
    check::{BodyCheck, BoxError, Released},
    counter::Counter,
    future::{Racer, Terms, count, watch},
    pace::{Pace, Timer},
};
