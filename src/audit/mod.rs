//! The production checklist, run instead of read.
//!
//! [`probe`] sends synthetic requests (no token, cross-site, oversize, one over the limit, plain
//! HTTP, a forged forwarding header, a planted test file) through the final service, route by route,
//! and says what it saw; [`of_settings`] says what is only configured, and what a machine cannot know. Each
//! [`Line`] has a [`Verdict`]: of those only [`Observed`](Verdict::Observed) counts as holding, and
//! a deployment with a line that [`Fails`](Verdict::Fails) should not start.
//!
//! The routes are listed by whoever knows them, with what each is meant to ask. Every route that is
//! listed must have what stands around the whole service: so one that was merged outside the stack
//! is found.
//!
//! Deployment caveat: the requests are real, as from fresh addresses of 2001:db8::/32, which no
//! client has. They charge limits of those addresses alone, make events, and reach the handlers of
//! routes that ask for no identity, with an empty body. With a [token](Site::with_token) a body that
//! is too large and a file that must be found reach routes that do ask; a handler that is shown
//! either is one that the checklist fails. Run it before the service listens.
//!
//! ```
//! use bytes::Bytes;
//! use http::{Method, Request, Response};
//! use http_body_util::Full;
//! use portcullis::{Context, audit::{self, Route, Site, Verdict}, stack::SecurityStack};
//! use tower::service_fn;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let bare = service_fn(async |_: Request<_>| {
//!     Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::from("hello")))
//! });
//! let service = SecurityStack::new(Context::new()).around(bare);
//! let routes = [Route::new(Method::GET, "/").authenticated()];
//! let checklist = audit::probe(service, &Site::http("localhost"), &routes).await;
//! let failing: Vec<_> = checklist.failing().map(|line| line.id()).collect();
//! assert!(failing.contains(&"authentication"));
//! assert!(!checklist.holds());
//! println!("{checklist}");
//! # Ok(())
//! # }
//! ```

mod configured;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod database;
mod line;
mod probe;
mod route;
#[cfg(feature = "upload")]
mod scanner;

#[cfg(feature = "postgres")]
pub use self::database::postgres;
#[cfg(feature = "sqlite")]
pub use self::database::sqlite;
#[cfg(feature = "upload")]
pub use self::scanner::{Carrier, scanner};
pub use self::{
    configured::{Counting, of_settings},
    line::{Checklist, Line, Verdict},
    probe::probe,
    route::{Limit, Route, Site},
};
