//! Guides: how to put the gates to work, one question a page. Each example runs as a test.
//! A page is here when the features are on that its example takes.
//!
//! | question | page |
//! |---|---|
#![cfg_attr(
    feature = "rate-limit",
    doc = "| How many requests, counted by what? | [`choosing_limits`] |"
)]
//! | Who is the client behind a proxy? | [`client_ip`] |
#![cfg_attr(
    all(
        feature = "aws-lc-rs",
        feature = "csrf",
        feature = "headers",
        feature = "jwt",
        feature = "refresh-token"
    ),
    doc = "| How does a page keep its user logged in? | [`browser_sessions`] |"
)]
#![cfg_attr(
    all(
        feature = "api-key",
        feature = "aws-lc-rs",
        feature = "jwks-client",
        feature = "jwt"
    ),
    doc = "| How does a service know another? | [`service_to_service`] |"
)]
#![cfg_attr(
    all(feature = "aws-lc-rs", feature = "jwt", feature = "refresh-token"),
    doc = "| How is a secret or a key changed without a break? | [`key_rotation`] |"
)]
#![cfg_attr(
    all(feature = "axum", feature = "object-store"),
    doc = "| How do uploads get into a bucket? | [`uploads_to_object_storage`] |"
)]
#![cfg_attr(
    all(
        feature = "jwt",
        feature = "rate-limit",
        feature = "redis",
        feature = "refresh-token"
    ),
    doc = "| What changes with a second instance? | [`many_instances`] |"
)]
#![cfg_attr(
    feature = "rate-limit",
    doc = "| How does one leave tower_governor? | [`from_tower_governor`] |"
)]
#![cfg_attr(
    all(feature = "aws-lc-rs", feature = "jwt"),
    doc = "| How does one leave jwt-authorizer? | [`from_jwt_authorizer`] |"
)]
#![cfg_attr(
    feature = "headers",
    doc = "| How does one leave helmet and its like? | [`from_helmet`] |"
)]

#[cfg(all(
    feature = "aws-lc-rs",
    feature = "csrf",
    feature = "headers",
    feature = "jwt",
    feature = "refresh-token"
))]
pub mod browser_sessions;
#[cfg(feature = "rate-limit")]
pub mod choosing_limits;
pub mod client_ip;
#[cfg(feature = "headers")]
pub mod from_helmet;
#[cfg(all(feature = "aws-lc-rs", feature = "jwt"))]
pub mod from_jwt_authorizer;
#[cfg(feature = "rate-limit")]
pub mod from_tower_governor;
#[cfg(all(feature = "aws-lc-rs", feature = "jwt", feature = "refresh-token"))]
pub mod key_rotation;
#[cfg(all(
    feature = "jwt",
    feature = "rate-limit",
    feature = "redis",
    feature = "refresh-token"
))]
#[doc = include_str!("many_instances.md")]
pub mod many_instances {}
#[cfg(all(
    feature = "api-key",
    feature = "aws-lc-rs",
    feature = "jwks-client",
    feature = "jwt"
))]
pub mod service_to_service;
#[cfg(all(feature = "axum", feature = "object-store"))]
pub mod uploads_to_object_storage;
