//! What several test files share.
#![allow(unreachable_pub, dead_code, reason = "each test file uses its part")]

pub mod chromium;
#[cfg(feature = "clamd")]
pub mod clamd;
pub mod daemon;
pub mod forwarder;
#[cfg(feature = "refresh-token")]
pub mod load;
pub mod log;
pub mod postgres;
pub mod probe;
pub mod redis;
pub mod server;
#[cfg(feature = "refresh-token")]
pub mod sessions;
#[cfg(feature = "refresh-token")]
pub mod store;
