//! The RustCrypto crates, through the primitives of `jsonwebtoken`.

use std::sync::Arc;

use jsonwebtoken::{
    DecodingKey, EncodingKey,
    crypto::{JwtSigner, JwtVerifier, rust_crypto::DEFAULT_PROVIDER},
    jwk::EllipticCurve,
};

use super::provider::{
    CryptoProvider, PrivateKey, PublicKey, SignatureError, Signer, Verifier, unusable,
};
use crate::{error::ConfigError, jwt::algorithm::Algorithm};

/// Signatures in pure Rust. RSA keys have at most 4096 bits.
///
/// Deployment caveat: its RSA signing is not proven to take constant time (RUSTSEC-2023-0071), so
/// a service that signs with RSA should prefer `aws-lc-rs`. Verifying is not affected.
#[derive(Clone, Copy, Debug, Default)]
pub struct RustCrypto;

impl CryptoProvider for RustCrypto {
    fn verifier(
        &self,
        algorithm: Algorithm,
        key: PublicKey<'_>,
    ) -> Result<Box<dyn Verifier>, ConfigError> {
        let key = match key {
            PublicKey::Secret(secret) => DecodingKey::from_secret(secret),
            PublicKey::Rsa { n, .. } if n.len() > MAX_RSA_BYTES => {
                return Err(unusable("has more than 4096 bits"));
            }
            PublicKey::Rsa { n, e } => DecodingKey::from_rsa_raw_components(n, e),
            PublicKey::Point(point) => DecodingKey::from_ec_der(point),
            PublicKey::Ed25519(key) => DecodingKey::from_ed_der(key),
        };
        let prepared = Public {
            algorithm: name(algorithm),
            key: Arc::new(key),
        };
        // The family, the curve and the point are checked here, and not by a request.
        match prepared.verifier() {
            Some(_) => Ok(Box::new(prepared)),
            None => Err(unusable("does not parse as a key of that algorithm")),
        }
    }

    fn signer(
        &self,
        algorithm: Algorithm,
        key: PrivateKey<'_>,
    ) -> Result<Box<dyn Signer>, ConfigError> {
        let prepared = Private {
            algorithm: name(algorithm),
            key: encoding_key(key),
        };
        match prepared.sign(b"") {
            Ok(_) => Ok(Box::new(prepared)),
            Err(_) => Err(unusable("does not parse as a key of that algorithm")),
        }
    }

    fn public_part(
        &self,
        algorithm: Algorithm,
        key: PrivateKey<'_>,
    ) -> Result<(Vec<u8>, Vec<u8>), ConfigError> {
        let utils = &DEFAULT_PROVIDER.key_utils;
        let fails = |_| unusable("does not parse as a key of that algorithm");
        match key {
            PrivateKey::Secret(_) => Err(unusable("a secret has no public part")),
            PrivateKey::RsaPkcs1(der) => {
                (utils.rsa_pub_components_from_private_key)(der).map_err(fails)
            }
            PrivateKey::EcPkcs8(der) => {
                let parts = (utils.ec_pub_components_from_private_key)(der, name(algorithm));
                let (_, x, y) = parts.map_err(fails)?;
                Ok(([&[4], x.as_slice(), y.as_slice()].concat(), Vec::new()))
            }
            PrivateKey::Ed25519Pkcs8(der) => {
                let curve = EllipticCurve::Ed25519;
                let key = (utils.ed_pub_components_from_private_key)(der, &curve).map_err(fails)?;
                Ok((key, Vec::new()))
            }
        }
    }
}

/// A boxed verifier of `jsonwebtoken` may not cross threads, so one is made for each signature.
struct Public {
    algorithm: jsonwebtoken::Algorithm,
    key: Arc<DecodingKey>,
}

impl Public {
    fn verifier(&self) -> Option<Box<dyn JwtVerifier>> {
        (DEFAULT_PROVIDER.verifier_factory)(&self.algorithm, &self.key).ok()
    }
}

impl Verifier for Public {
    fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        self.verifier()
            .is_some_and(|verifier| verifier.verify(message, &signature.to_vec()).is_ok())
    }
}

struct Private {
    algorithm: jsonwebtoken::Algorithm,
    key: EncodingKey,
}

impl Signer for Private {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignatureError> {
        let signer: Box<dyn JwtSigner> =
            (DEFAULT_PROVIDER.signer_factory)(&self.algorithm, &self.key)
                .map_err(|_| SignatureError::new())?;
        signer.try_sign(message).map_err(|_| SignatureError::new())
    }
}

fn encoding_key(key: PrivateKey<'_>) -> EncodingKey {
    match key {
        PrivateKey::Secret(secret) => EncodingKey::from_secret(secret),
        PrivateKey::RsaPkcs1(der) => EncodingKey::from_rsa_der(der),
        PrivateKey::EcPkcs8(der) => EncodingKey::from_ec_der(der),
        PrivateKey::Ed25519Pkcs8(der) => EncodingKey::from_ed_der(der),
    }
}

fn name(algorithm: Algorithm) -> jsonwebtoken::Algorithm {
    match algorithm {
        Algorithm::HS256 => jsonwebtoken::Algorithm::HS256,
        Algorithm::HS384 => jsonwebtoken::Algorithm::HS384,
        Algorithm::HS512 => jsonwebtoken::Algorithm::HS512,
        Algorithm::RS256 => jsonwebtoken::Algorithm::RS256,
        Algorithm::RS384 => jsonwebtoken::Algorithm::RS384,
        Algorithm::RS512 => jsonwebtoken::Algorithm::RS512,
        Algorithm::PS256 => jsonwebtoken::Algorithm::PS256,
        Algorithm::PS384 => jsonwebtoken::Algorithm::PS384,
        Algorithm::PS512 => jsonwebtoken::Algorithm::PS512,
        Algorithm::ES256 => jsonwebtoken::Algorithm::ES256,
        Algorithm::ES384 => jsonwebtoken::Algorithm::ES384,
        Algorithm::EdDSA => jsonwebtoken::Algorithm::EdDSA,
    }
}

const MAX_RSA_BYTES: usize = 512;
