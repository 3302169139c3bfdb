//! Scanners: what looks for malware in files while they stream.
//!
//! The policy takes one by [`scan_with`](super::UploadPolicy::scan_with). Each file is fed to it as it
//! arrives, and the end of a file is kept back until its verdict: a finding is answered 422, a file
//! that is too large to scan 413, and a scanner that fails, or says nothing for 10 s, 503. So a
//! scanner that is away closes the route, and never opens it.
//!
//! A handler behind a streaming gate has read most of an infected file when the verdict comes. Where
//! that is not good enough, [`Spool`](super::Spool) shows it nothing before the verdict on all.
//!
//! Deployment caveat: a scanner finds what its signatures know. Keep them fresh, and give its own
//! limit of size at least the policy's.
//!
//! ```
//! use portcullis::upload::{UploadPolicy, scan::{FileStream, ScanError, ScanVerdict, Scanner}};
//!
//! struct NothingEmpty;
//!
//! impl Scanner for NothingEmpty {
//!     async fn scan(&self, mut file: FileStream) -> Result<ScanVerdict, ScanError> {
//!         match file.chunk().await {
//!             Some(_) => Ok(ScanVerdict::Clean),
//!             None => Ok(ScanVerdict::Infected { name: "empty".into() }),
//!         }
//!     }
//! }
//!
//! let policy = UploadPolicy::images().scan_with(NothingEmpty);
//! # drop(policy);
//! ```

#[cfg(feature = "clamd")]
mod clamd;
mod scanner;
mod work;

#[cfg(feature = "clamd")]
pub use self::clamd::Clamd;
pub use self::scanner::{FileStream, ScanError, ScanVerdict, Scanner};
pub(super) use self::{scanner::AnyScanner, work::Scans};
