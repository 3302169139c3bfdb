//! Pages for whoever runs a service, beside those of its parts.

#[cfg(all(
    feature = "jwt",
    feature = "rate-limit",
    feature = "redis",
    feature = "refresh-token"
))]
#[doc = include_str!("many_instances.md")]
pub mod many_instances {}
