//! What a backend is.

use std::{error, fmt};

use crate::{error::ConfigError, jwt::algorithm::Algorithm};

/// A source of signers and verifiers.
///
/// It is given keys that passed every rule of this crate, and checks what only it can, such as
/// that a point lies on its curve.
pub trait CryptoProvider: fmt::Debug + Send + Sync + 'static {
    /// Prepares a key that checks signatures of one algorithm.
    ///
    /// # Errors
    /// When the key is not one of `algorithm`, or not usable.
    fn verifier(
        &self,
        algorithm: Algorithm,
        key: PublicKey<'_>,
    ) -> Result<Box<dyn Verifier>, ConfigError>;

    /// Prepares a key that makes signatures of one algorithm.
    ///
    /// # Errors
    /// When the key is not one of `algorithm`, or not usable.
    fn signer(
        &self,
        algorithm: Algorithm,
        key: PrivateKey<'_>,
    ) -> Result<Box<dyn Signer>, ConfigError>;

    /// The public part of a private key, as [`PublicKey`] has it: for RSA the modulus and the
    /// exponent, for a curve the point and nothing.
    ///
    /// # Errors
    /// When the key is not usable, or has no public part.
    fn public_part(
        &self,
        algorithm: Algorithm,
        key: PrivateKey<'_>,
    ) -> Result<(Vec<u8>, Vec<u8>), ConfigError>;
}

/// A key that checks signatures of one algorithm.
pub trait Verifier: Send + Sync {
    /// Whether `signature` is one of `message`, without its encoding.
    fn verify(&self, message: &[u8], signature: &[u8]) -> bool;
}

/// A key that makes signatures of one algorithm.
pub trait Signer: Send + Sync {
    /// The signature of `message`, in the form that RFC 7518 gives it.
    ///
    /// # Errors
    /// When the backend fails.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignatureError>;
}

/// The bytes of a key that checks signatures.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub enum PublicKey<'a> {
    /// The secret of an HMAC.
    Secret(&'a [u8]),
    /// An RSA key, big-endian and without leading zeros.
    Rsa {
        /// The modulus.
        n: &'a [u8],
        /// The exponent.
        e: &'a [u8],
    },
    /// A point on P-256 or P-384, uncompressed (`04 ‖ x ‖ y`).
    Point(&'a [u8]),
    /// An Ed25519 key.
    Ed25519(&'a [u8; 32]),
}

/// The bytes of a key that makes signatures.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub enum PrivateKey<'a> {
    /// The secret of an HMAC.
    Secret(&'a [u8]),
    /// An RSA key as PKCS #1 DER.
    RsaPkcs1(&'a [u8]),
    /// A P-256 or P-384 key as PKCS #8 DER.
    EcPkcs8(&'a [u8]),
    /// An Ed25519 key as PKCS #8 DER.
    Ed25519Pkcs8(&'a [u8]),
}

impl fmt::Debug for PublicKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Secret(_) => "Secret",
            Self::Rsa { .. } => "Rsa",
            Self::Point(_) => "Point",
            Self::Ed25519(_) => "Ed25519",
        })
    }
}

impl fmt::Debug for PrivateKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Secret(_) => "Secret",
            Self::RsaPkcs1(_) => "RsaPkcs1",
            Self::EcPkcs8(_) => "EcPkcs8",
            Self::Ed25519Pkcs8(_) => "Ed25519Pkcs8",
        })
    }
}

/// A backend could not sign.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct SignatureError;

impl SignatureError {
    /// The error; it says nothing of the key.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl fmt::Display for SignatureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the signature could not be made")
    }
}

impl error::Error for SignatureError {}

/// The backend that this crate's features choose.
pub(crate) fn default_provider() -> Result<&'static dyn CryptoProvider, ConfigError> {
    #[cfg(feature = "aws-lc-rs")]
    return Ok(&super::AwsLc);
    #[cfg(all(feature = "rust-crypto", not(feature = "aws-lc-rs")))]
    return Ok(&super::RustCrypto);
    #[cfg(not(any(feature = "aws-lc-rs", feature = "rust-crypto")))]
    return Err(ConfigError::new(
        "crypto provider",
        "there is none; enable feature `aws-lc-rs` or `rust-crypto`, or give one",
    ));
}

#[cfg(any(feature = "aws-lc-rs", feature = "rust-crypto"))]
pub(super) fn unusable(problem: &'static str) -> ConfigError {
    ConfigError::new("key", problem)
}
