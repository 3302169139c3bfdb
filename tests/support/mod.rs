//! What several test files share.
#![allow(unreachable_pub, dead_code, reason = "each test file uses its part")]

pub mod chromium;
pub mod probe;
pub mod server;
