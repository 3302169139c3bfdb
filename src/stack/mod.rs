//! The whole: the gates of a service in the written order, and its settings.
//!
//! [`SecurityStack`] holds the parts and hands out two layers, each one service that asks its gates
//! in turn:
//!
//! 1. [`SecurityStack::layer`], around the whole service: the client's address and scheme, security
//!    headers on every answer, a 500 for a panic, CORS with the answers to preflights, the served
//!    hosts and the redirect to HTTPS, the refusal of cross-site requests. None of it is charged to
//!    a limit.
//! 2. [`SecurityStack::route`], around the routes that a [`Guard`] describes: limits by client, the
//!    body's stated size, authentication, limits by identity, scopes, the CSRF token, and the watch
//!    over the body.
//!
//! A part that is not set is not there; printed, a stack says what is on and why. A refusal is an
//! answer with its headers: 429, 421, 413, 401, 403, 415, 422 or 400, as the gate that refuses
//! documents it.
//!
//! Deployment caveat: around an axum `Router` use [`SecurityStack::around`]; inside it every
//! `Router::layer` boxes each request. The server must leave the connection's
//! [`Peer`](crate::Peer) with each request, or all clients share one count.
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::Full;
//! use portcullis::{Context, stack::{Guard, SecurityStack}};
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
//! let stack = SecurityStack::new(Context::new());
//! let handler = service_fn(async |_: Request<_>| {
//!     Ok::<_, std::convert::Infallible>(Response::new(Full::from("hello")))
//! });
//! let service = stack.around(stack.route(Guard::new().body(4))?.layer(handler));
//! let refused = service.oneshot(Request::new(Full::<Bytes>::from("too long"))).await.unwrap();
//! assert_eq!(refused.status(), 413);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod describe;
mod edge;
mod guard;
mod security_stack;
mod settings;
mod shown;

pub use self::{
    edge::{Edge, EdgeFuture, EdgeLayer},
    guard::{Guard, GuardFuture, GuardLayer, Guarded},
    security_stack::SecurityStack,
    settings::{AppEnv, Settings, SettingsError},
};
