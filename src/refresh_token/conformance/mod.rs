//! What every store of sessions must keep to, as cases that its author runs. Feature `test-suite`.
//!
//! Give [`Suite`] a function that makes an empty store; each case gets one of its own. A rule that
//! the store breaks is named, with what was seen. A store that outlives the process gives a second
//! function, which opens what a store holds once more.
//!
//! ```
//! use portcullis::refresh_token::{MemoryStore, conformance::Suite};
//!
//! // In a `#[test]`:
//! Suite::new(|| async { MyStore::new() }).check();
//! # type MyStore = MemoryStore;
//! ```
//!
//! It takes a few seconds, and is sharpest on several threads: [`Suite::check`] brings its own. The
//! cases only use times near the present but for those that ask whether the store goes by its own
//! clock. New cases may come in a minor version.

mod cases;
mod chain;
mod fault;
mod rule;
mod suite;

pub use self::{
    rule::Rule,
    suite::{BrokenRule, BrokenRules, Suite},
};
