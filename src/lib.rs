//! Tower layers that turn a written security policy into running middleware.
//!
//! Start with [`stack`], which puts the gates together in their order; each gate also stands alone
//! as a layer in the module of its name.
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "api-key")]
pub mod api_key;
#[cfg(feature = "audit")]
pub mod audit;
pub mod authorize;
pub mod body;
pub mod body_limit;
mod challenge;
pub mod client;
mod context;
#[cfg(any(feature = "csrf", feature = "jwt", feature = "login-throttle"))]
mod cookie;
#[cfg(feature = "cors")]
pub mod cors;
#[cfg(feature = "csrf")]
pub mod csrf;
#[cfg(all(feature = "jwt", feature = "refresh-token"))]
pub mod deny_feed;
pub mod deny_list;
mod error;
pub mod event;
pub mod future;
pub mod guarded;
#[cfg(doc)]
pub mod guide;
mod head;
#[cfg(feature = "headers")]
pub mod headers;
pub mod https;
mod identity;
#[cfg(any(feature = "axum", all(feature = "jwt", feature = "refresh-token")))]
mod json;
#[cfg(feature = "jwt")]
pub mod jwt;
mod keyed;
#[cfg(feature = "login-throttle")]
pub mod login_throttle;
mod origin;
#[cfg(feature = "password")]
pub mod password;
#[cfg(feature = "axum")]
pub mod problem;
#[cfg(feature = "rate-limit")]
pub mod rate_limit;
#[cfg(all(feature = "redis", feature = "refresh-token"))]
mod redis_link;
#[cfg(feature = "refresh-token")]
pub mod refresh_token;
pub mod rejection;
pub mod secret;
#[cfg(all(feature = "jwt", feature = "refresh-token"))]
pub mod session;
pub mod stack;
#[cfg(any(feature = "api-key", feature = "refresh-token"))]
mod store_error;
pub mod time;
#[cfg(feature = "upload")]
pub mod upload;

#[cfg(all(
    doctest,
    feature = "axum",
    feature = "headers",
    feature = "jwt",
    feature = "rate-limit"
))]
#[doc = include_str!("../README.md")]
mod readme {}

pub use self::{
    body::{OwnBodyLayer, RejectionBody, ResponseBody},
    client::{Client, ClientLayer, Peer, TrustedProxies},
    context::Context,
    deny_list::DenyList,
    error::ConfigError,
    future::ResponseFuture,
    head::Head,
    identity::{Identity, IdentityKind},
    origin::Origin,
    rejection::{Rejection, RejectionKind, Render, WireForm},
    secret::Secret,
};
