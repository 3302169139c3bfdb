//! Where signatures are made and checked: AWS-LC, pure Rust, or what the application brings.
//!
//! With feature `aws-lc-rs` (a default) keys are prepared once and used by AWS-LC; with
//! `rust-crypto` alone, by the RustCrypto crates. With neither, or for a module that must be
//! certified, an application implements [`CryptoProvider`] and gives it to
//! [`KeySet::with_provider`](super::KeySet::with_provider) and
//! [`Issuer::with_provider`](super::Issuer::with_provider). The choice belongs to these
//! keys: nothing that is global to the process is read or set, so no other crate can change it.
//!
//! Both backends are held to the same rules (sizes, curves, lengths), which are checked before a
//! provider sees a key.

#[cfg(feature = "aws-lc-rs")]
mod aws_lc;
mod provider;
#[cfg(feature = "rust-crypto")]
mod rust_crypto;

#[cfg(feature = "aws-lc-rs")]
pub use self::aws_lc::AwsLc;
pub(crate) use self::provider::default_provider;
pub use self::provider::{CryptoProvider, PrivateKey, PublicKey, SignatureError, Signer, Verifier};
#[cfg(feature = "rust-crypto")]
pub use self::rust_crypto::RustCrypto;
