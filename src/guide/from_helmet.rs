//! From helmet and Express, or a Rust port of helmet.
//!
//! [`SecurityHeaders::helmet`](crate::headers::SecurityHeaders::helmet) sends what helmet for Node
//! sends, value for value; a test holds it to that. Begin with it, then move on to
//! [`SecurityHeaders::new`](crate::headers::SecurityHeaders::new), which has one profile for pages and
//! one for everything else and a nonce for each page's scripts:
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::Full;
//! use portcullis::headers::{SecurityHeaders, SecurityHeadersLayer};
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! # tokio_test::block_on(async {
//! let service = SecurityHeadersLayer::new(SecurityHeaders::helmet())
//!     .layer(service_fn(async |_: Request<Full<Bytes>>| {
//!         Ok::<_, std::io::Error>(Response::new(Full::<Bytes>::default()))
//!     }));
//! let answer = service.oneshot(Request::new(Full::default())).await?;
//! assert_eq!(answer.headers()["x-frame-options"], "SAMEORIGIN");
//! assert_eq!(answer.headers()["x-xss-protection"], "0");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! | Express | here |
//! |---|---|
//! | `app.use(helmet())` | [`SecurityStack::with_headers`](crate::stack::SecurityStack::with_headers)`(SecurityHeaders::helmet())` |
//! | `helmet({ contentSecurityPolicy: { directives } })` | [`Profile::csp`](crate::headers::Profile::csp) with a typed [`Csp`](crate::headers::Csp); a policy that cannot work is an error |
//! | `helmet.hsts(…)` on every answer | over HTTPS alone, as RFC 6797 section 7.2 asks |
//! | `app.disable('x-powered-by')` | `Server` and `X-Powered-By` go by default |
//! | `express-rate-limit` `{ windowMs, limit }` | `Policy::strict(name, limit, window)`: in *any* window, not in one that begins with the first request |
//! | `skipSuccessfulRequests` | `failures_only` |
//! | `app.set('trust proxy', …)` | [`TrustedProxies`](crate::TrustedProxies); trusting everybody is a setup error |
//! | `express-jwt` `{ secret, algorithms }` | `JwtLayer`; audience and issuer are mandatory |
//! | `cors({ origin: [...] })` | `cors::CorsPolicy`; `*` and `null` are setup errors |
//! | `csurf` | `csrf::CsrfPolicy`, and `CsrfTokens` for forms |
//! | `multer({ limits, fileFilter })` | `upload::UploadLayer`: types by content, not by what the client says |
//! | `express.json({ limit })` | `Guard::body` |
//! | the order of `app.use` | written once, in [`stack`](crate::stack) |
//!
//! The ports `tower-helmet` 0.3 and `axum-helmet` 1.0 put their headers over what a handler set; here
//! a handler's own header stays, unless the profile is told to
//! [override](crate::headers::Profile::overriding) it.
