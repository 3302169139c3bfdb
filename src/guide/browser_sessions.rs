//! Browser sessions: a short access token in the page, a refresh token in a cookie that no script
//! reads.
//!
//! 1. Login calls [`Sessions::begin`](crate::session::Sessions::begin) *before* the password's hash is
//!    read and [`start_login`](crate::session::Sessions::start_login) after it was verified, and answers
//!    with [`SessionEndpoints::answer`](crate::session::SessionEndpoints::answer): the refresh token is
//!    set as `__Host-refresh` (`HttpOnly`, `Secure`, `SameSite=Strict`), the access token stands in the
//!    body.
//! 2. The page keeps the access token in a variable, never in `localStorage`, and sends it as
//!    `Authorization: Bearer`.
//! 3. On a 401, and on every load of the page, it calls the refresh route, and tries the request again
//!    once. Several tabs may do so at once: inside 30 s they get the same successor.
//! 4. On a 503 it waits as `Retry-After` says. That is an outage; nobody was logged out.
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, header::{COOKIE, SET_COOKIE}};
//! use http_body_util::Full;
//! use portcullis::{
//!     Context, DenyList, Origin, Secret,
//!     csrf::CsrfPolicy,
//!     jwt::{Algorithm, Issuer, SigningKey},
//!     refresh_token::{Device, MemoryStore, RefreshTokens},
//!     session::{SessionEndpoints, Sessions},
//! };
//! use tower::ServiceExt;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let key = SigningKey::secret(Algorithm::HS256, &Secret::generate())?;
//! let issuer = Issuer::new(key, "https://example.com", "api")?;
//! let deny_list = DenyList::since_start(&Context::new(), issuer.ttl());
//! let tokens = RefreshTokens::new(MemoryStore::new(), Secret::generate());
//! let sessions = Sessions::new(issuer, tokens, deny_list);
//! let csrf = CsrfPolicy::new([Origin::new("https://example.com")?]);
//! let endpoints = SessionEndpoints::new(sessions.clone()).with_cookie(csrf);
//!
//! let login = sessions.begin("ada").await?;
//! // read the stored hash and verify the password here
//! let pair = sessions.start_login(login, Device::new()).await?;
//! let answer: http::Response<Full<Bytes>> = endpoints.answer(&pair, true);
//! let cookie = answer.headers()[SET_COOKIE].to_str()?;
//! assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"));
//!
//! // What the browser sends back, from a page of this site and from another's.
//! let cookie = cookie.split(';').next().unwrap_or_default();
//! for (site, expected) in [("same-origin", 200), ("cross-site", 403)] {
//!     let request = Request::post("/auth/refresh")
//!         .header(COOKIE, cookie)
//!         .header("sec-fetch-site", site)
//!         .body(Full::<Bytes>::default())?;
//!     assert_eq!(endpoints.refresh().oneshot(request).await?.status(), expected);
//! }
//! # Ok(()) }
//! ```
//!
//! Give the same [`CsrfPolicy`](crate::csrf::CsrfPolicy) to
//! [`SecurityStack::with_csrf`](crate::stack::SecurityStack::with_csrf), where it refuses other sites'
//! requests before any limit is charged, and let the page's own policy be the
//! [`html` profile](crate::headers::SecurityHeaders::html) with nonces: what steals a token from a page
//! is a script.
//!
//! Deployment caveats: browsers keep `__Host-` cookies over HTTPS alone, or from loopback. Serve over
//! HTTP/2, or let tabs take turns (`navigator.locks`), as [`refresh_token`](crate::refresh_token) says.
//! A store that outlives the process needs [`DenyList::pending`](crate::DenyList::pending) and
//! [`recover`](crate::session::Sessions::recover) at start.
//!
//! `examples/secure_api` does all of it, with its page.
