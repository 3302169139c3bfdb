//! AWS-LC: each key is parsed once, and a signature costs the primitive alone.

use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED,
        ECDSA_P384_SHA384_FIXED_SIGNING, ED25519, EcdsaKeyPair, EcdsaSigningAlgorithm,
        Ed25519KeyPair, KeyPair as _, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
        RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384,
        RSA_PKCS1_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384,
        RSA_PSS_2048_8192_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding,
        RsaKeyPair, RsaParameters, RsaPublicKeyComponents, VerificationAlgorithm,
    },
};

use super::provider::{
    CryptoProvider, PrivateKey, PublicKey, SignatureError, Signer, Verifier, unusable,
};
use crate::{
    error::ConfigError,
    jwt::{algorithm::Algorithm, der},
};

/// Signatures by AWS-LC.
#[derive(Clone, Copy, Debug, Default)]
pub struct AwsLc;

impl CryptoProvider for AwsLc {
    fn verifier(
        &self,
        algorithm: Algorithm,
        key: PublicKey<'_>,
    ) -> Result<Box<dyn Verifier>, ConfigError> {
        let parsed = match key {
            PublicKey::Secret(secret) => return Ok(Box::new(mac(algorithm, secret)?)),
            PublicKey::Rsa { n, e } => {
                RsaPublicKeyComponents { n, e }.to_parsed_public_key(rsa_parameters(algorithm)?)
            }
            PublicKey::Point(point) => {
                let curve: &'static dyn VerificationAlgorithm = match algorithm {
                    Algorithm::ES256 => &ECDSA_P256_SHA256_FIXED,
                    Algorithm::ES384 => &ECDSA_P384_SHA384_FIXED,
                    _ => return Err(unusable(NOT_ITS_ALGORITHM)),
                };
                ParsedPublicKey::new(curve, point)
            }
            PublicKey::Ed25519(key) if algorithm == Algorithm::EdDSA => {
                ParsedPublicKey::new(&ED25519, key)
            }
            PublicKey::Ed25519(_) => return Err(unusable(NOT_ITS_ALGORITHM)),
        };
        match parsed {
            Ok(key) => Ok(Box::new(Public(key))),
            Err(_) => Err(unusable("does not parse")),
        }
    }

    fn signer(
        &self,
        algorithm: Algorithm,
        key: PrivateKey<'_>,
    ) -> Result<Box<dyn Signer>, ConfigError> {
        Ok(match key {
            PrivateKey::Secret(secret) => Box::new(mac(algorithm, secret)?),
            PrivateKey::RsaPkcs1(der) => Box::new(Rsa {
                pair: rsa_pair(der)?,
                encoding: rsa_encoding(algorithm)?,
            }),
            PrivateKey::EcPkcs8(der) => Box::new(Ec(ec_pair(algorithm, der)?)),
            PrivateKey::Ed25519Pkcs8(der) if algorithm == Algorithm::EdDSA => {
                Box::new(Ed(ed_pair(der)?))
            }
            PrivateKey::Ed25519Pkcs8(_) => return Err(unusable(NOT_ITS_ALGORITHM)),
        })
    }

    fn public_part(
        &self,
        algorithm: Algorithm,
        key: PrivateKey<'_>,
    ) -> Result<(Vec<u8>, Vec<u8>), ConfigError> {
        Ok(match key {
            PrivateKey::Secret(_) => return Err(unusable("a secret has no public part")),
            PrivateKey::RsaPkcs1(der) => {
                let pair = rsa_pair(der)?;
                let (n, e) = der::rsa_public_key(pair.public_key().as_ref())
                    .ok_or_else(|| unusable("has no public part"))?;
                (n.to_vec(), e.to_vec())
            }
            PrivateKey::EcPkcs8(der) => (
                ec_pair(algorithm, der)?.public_key().as_ref().to_vec(),
                Vec::new(),
            ),
            PrivateKey::Ed25519Pkcs8(der) => {
                (ed_pair(der)?.public_key().as_ref().to_vec(), Vec::new())
            }
        })
    }
}

struct Public(ParsedPublicKey);

impl Verifier for Public {
    fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        self.0.verify_sig(message, signature).is_ok()
    }
}

impl Verifier for hmac::Key {
    fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        hmac::verify(self, message, signature).is_ok()
    }
}

impl Signer for hmac::Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignatureError> {
        Ok(hmac::sign(self, message).as_ref().to_vec())
    }
}

struct Rsa {
    pair: RsaKeyPair,
    encoding: &'static dyn RsaEncoding,
}

impl Signer for Rsa {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignatureError> {
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair
            .sign(self.encoding, &SystemRandom::new(), message, &mut signature)
            .map_err(|_| SignatureError::new())?;
        Ok(signature)
    }
}

struct Ec(EcdsaKeyPair);

impl Signer for Ec {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignatureError> {
        let signature = self.0.sign(&SystemRandom::new(), message);
        Ok(signature
            .map_err(|_| SignatureError::new())?
            .as_ref()
            .to_vec())
    }
}

struct Ed(Ed25519KeyPair);

impl Signer for Ed {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignatureError> {
        Ok(self.0.sign(message).as_ref().to_vec())
    }
}

fn mac(algorithm: Algorithm, secret: &[u8]) -> Result<hmac::Key, ConfigError> {
    let hash = match algorithm {
        Algorithm::HS256 => hmac::HMAC_SHA256,
        Algorithm::HS384 => hmac::HMAC_SHA384,
        Algorithm::HS512 => hmac::HMAC_SHA512,
        _ => return Err(unusable(NOT_ITS_ALGORITHM)),
    };
    Ok(hmac::Key::new(hash, secret))
}

fn rsa_parameters(algorithm: Algorithm) -> Result<&'static RsaParameters, ConfigError> {
    Ok(match algorithm {
        Algorithm::RS256 => &RSA_PKCS1_2048_8192_SHA256,
        Algorithm::RS384 => &RSA_PKCS1_2048_8192_SHA384,
        Algorithm::RS512 => &RSA_PKCS1_2048_8192_SHA512,
        Algorithm::PS256 => &RSA_PSS_2048_8192_SHA256,
        Algorithm::PS384 => &RSA_PSS_2048_8192_SHA384,
        Algorithm::PS512 => &RSA_PSS_2048_8192_SHA512,
        _ => return Err(unusable(NOT_ITS_ALGORITHM)),
    })
}

fn rsa_encoding(algorithm: Algorithm) -> Result<&'static dyn RsaEncoding, ConfigError> {
    Ok(match algorithm {
        Algorithm::RS256 => &RSA_PKCS1_SHA256,
        Algorithm::RS384 => &RSA_PKCS1_SHA384,
        Algorithm::RS512 => &RSA_PKCS1_SHA512,
        Algorithm::PS256 => &RSA_PSS_SHA256,
        Algorithm::PS384 => &RSA_PSS_SHA384,
        Algorithm::PS512 => &RSA_PSS_SHA512,
        _ => return Err(unusable(NOT_ITS_ALGORITHM)),
    })
}

fn rsa_pair(der: &[u8]) -> Result<RsaKeyPair, ConfigError> {
    RsaKeyPair::from_der(der).map_err(|_| unusable("is not an RSA key of 2048 to 8192 bits"))
}

fn ec_pair(algorithm: Algorithm, der: &[u8]) -> Result<EcdsaKeyPair, ConfigError> {
    let curve: &'static EcdsaSigningAlgorithm = match algorithm {
        Algorithm::ES256 => &ECDSA_P256_SHA256_FIXED_SIGNING,
        Algorithm::ES384 => &ECDSA_P384_SHA384_FIXED_SIGNING,
        _ => return Err(unusable(NOT_ITS_ALGORITHM)),
    };
    EcdsaKeyPair::from_pkcs8(curve, der).map_err(|_| unusable("is not a key of its curve"))
}

fn ed_pair(der: &[u8]) -> Result<Ed25519KeyPair, ConfigError> {
    Ed25519KeyPair::from_pkcs8(der).map_err(|_| unusable("is not an Ed25519 key"))
}

const NOT_ITS_ALGORITHM: &str = "is not a key of that algorithm";
