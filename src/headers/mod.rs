//! Security response headers: what a browser must not do with an answer.
//!
//! [`SecurityHeadersLayer`] puts a built policy, [`SecurityHeaders`], on every answer, errors and
//! refusals of inner gates included. It never refuses a request and never touches a body.
//!
//! 1. The [`Profile`] is chosen by the answer's content type: `text/html`, `application/xhtml+xml`
//!    and `image/svg+xml` get [`Profile::html`], all else [`Profile::api`]; a 304, whose type only
//!    the cache knows, gets what both agree on. [`SecurityHeaders::pinned`] uses one for all.
//! 2. A header that the handler set stays, unless the profile is told to
//!    [override](Profile::overriding) it. What a layer further in decided stays too: an outer layer
//!    adds nothing to an answer that has been through an inner one.
//! 3. `Strict-Transport-Security` and `upgrade-insecure-requests` are sent only when the
//!    [`Client`](crate::Client) speaks HTTPS, to this server or to a trusted proxy: over plain HTTP
//!    the first is ignored (RFC 6797 section 8.1) and the second breaks the page.
//! 4. A handler finds the request's [`CspNonce`] in the extensions. It is made when it is first
//!    read, and only then stands in the answer's policy; such an answer is not to be stored.
//! 5. `Cache-Control: no-store` is put on errors and on answers to requests with `Authorization`
//!    ([`SecurityHeaders::no_store_when`]).
//! 6. `Server` and `X-Powered-By` are removed.
//!
//! A handler overrides more than a value by leaving a [`HeadersOverride`] with its response.
//!
//! # The two profiles, and how they differ from others
//!
//! | header | html | api |
//! |---|---|---|
//! | `Content-Security-Policy` | [`Csp::html`] | [`Csp::api`] |
//! | `Cross-Origin-Opener-Policy` | `same-origin` | `same-origin` |
//! | `Cross-Origin-Resource-Policy` | `same-origin` | `same-origin` |
//! | `Origin-Agent-Cluster` | `?1` | `?1` |
//! | `Permissions-Policy` | [`PermissionsPolicy::deny_powerful`] | the same |
//! | `Referrer-Policy` | `same-origin` | `no-referrer` |
//! | `Strict-Transport-Security` | two years, subdomains | the same |
//! | `X-Content-Type-Options` | `nosniff` | `nosniff` |
//! | `X-DNS-Prefetch-Control` | `off` | `off` |
//! | `X-Frame-Options` | `DENY` | `DENY` |
//! | `X-Permitted-Cross-Domain-Policies` | `none` | `none` |
//!
//! From the OWASP Secure Headers Project's list (`ci/headers_add.json`) they differ so:
//!
//! - `Cache-Control: no-store` stands on errors, on answers to credentials and on pages with a nonce,
//!   not on all: public pages and assets may be kept. `max-age=0` adds nothing to `no-store`.
//! - `Clear-Site-Data` on every answer would log the user out with each; see [`ClearSiteData`].
//! - `Content-Security-Policy` denies all that is not named where theirs allows the own origin, so
//!   that a file that a user uploaded does not run as a script; `upgrade-insecure-requests` is sent
//!   over HTTPS alone, and not with what is no page.
//! - `Cross-Origin-Embedder-Policy` is not sent; see below.
//! - `Permissions-Policy` leaves the browser's default, the page itself, to what acts on the page
//!   alone (`fullscreen`, `picture-in-picture`, `screen-wake-lock`, `web-share`, `clipboard-write`,
//!   `gamepad`, `keyboard-map`), to passkeys (`publickey-credentials-get`), and to what denying
//!   breaks or no browser knows (`cross-origin-isolated`, `sync-xhr`, `unload`, `interest-cohort`).
//!   It denies `browsing-topics`, `local-fonts` and `window-management` beyond theirs.
//! - `Referrer-Policy` of pages is `same-origin`; see below.
//! - `X-Frame-Options` is spelt `DENY`.
//! - Of the names that they would have removed, `Server` and `X-Powered-By` are; others are named by
//!   [`Profile::strip`], since only a proxy further out can take away what it adds itself.
//!
//! `Referrer-Policy` is `same-origin` for pages, because under `no-referrer` a browser sends
//! `Origin: null` with a page's own form posts, and no check of origins can tell them from a
//! stranger's. `Cross-Origin-Embedder-Policy` is left out: it breaks pages that embed others and
//! protects only those that need `SharedArrayBuffer`. `X-XSS-Protection` and `X-Download-Options`
//! speak to browsers that no longer exist; [`Profile::helmet`], which is value for value what
//! helmet 8.3.0 sends, has them. [`ClearSiteData`] belongs on the answer to a logout, not on all.
//! [`ReportingEndpoints`] and [`CspReports`] turn violations into events.
//!
//! # Deployment caveats
//!
//! A proxy that adds `Server` does so after this layer. The nonce must be read before the response
//! is returned: one first read while a body streams is in no header. A page whose handler sets its
//! own public `Cache-Control` shares its nonce with everyone that the cache serves.
//!
//! # Examples
//!
//! ```
//! use http::{Request, Response};
//! use portcullis::headers::{CspNonce, SecurityHeaders, SecurityHeadersLayer};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
//! # runtime.block_on(async {
//! let service = ServiceBuilder::new()
//!     .layer(SecurityHeadersLayer::new(SecurityHeaders::new()))
//!     .service(service_fn(async |request: Request<()>| {
//!         let nonce = request.extensions().get::<CspNonce>().unwrap();
//!         let page = format!("<script nonce=\"{nonce}\">go()</script>");
//!         let response = Response::builder().header("content-type", "text/html").body(page);
//!         Ok::<_, std::io::Error>(response.unwrap())
//!     }));
//! let response = service.oneshot(Request::new(())).await?;
//! let csp = response.headers()["content-security-policy"].to_str()?;
//! assert!(csp.contains("script-src 'nonce-"));
//! assert_eq!(response.headers()["cache-control"], "no-store");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A policy of one's own:
//!
//! ```
//! use portcullis::headers::{Csp, Directive, Hsts, Profile, SecurityHeaders, Source};
//!
//! let csp = Csp::html()
//!     .edit()
//!     .add(Directive::ImgSrc, [Source::host("https://img.example.com")])
//!     .build()?;
//! let html = Profile::html().csp(csp).hsts(Hsts::days(365).preload()?);
//! let headers = SecurityHeaders::by_content_type(html, Profile::api());
//! # drop(headers);
//! # Ok::<(), portcullis::ConfigError>(())
//! ```

mod clear;
mod csp;
mod hsts;
mod layer;
mod nonce;
mod permissions;
mod policy;
mod profile;
mod reporting;
mod source;
mod value;

pub(crate) use self::policy::Pending;
pub use self::{
    clear::ClearSiteData,
    csp::{Csp, CspBuilder, Directive, SandboxFlag},
    hsts::Hsts,
    layer::{SecurityHeadersFuture, SecurityHeadersLayer, SecurityHeadersService},
    nonce::CspNonce,
    permissions::{Feature, PermissionsPolicy},
    policy::{HeadersOverride, SecurityHeaders},
    profile::Profile,
    reporting::{CspReports, ReportingEndpoints},
    source::Source,
    value::{
        CrossDomainPolicies, EmbedderPolicy, FrameOptions, OpenerPolicy, ReferrerPolicy,
        ResourcePolicy,
    },
};
