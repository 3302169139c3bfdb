//! Keys that check signatures, each bound to its algorithm.

use std::{fmt, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::DecodingKey;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{
    algorithm::{Algorithm, Family},
    crypto::PublicKey,
    der,
};
use crate::{error::ConfigError, secret::Secret};

/// A key that checks signatures of one algorithm.
///
/// Its id, the `kid` of the tokens that it checks, is derived from the key where none is given.
#[derive(Clone)]
#[must_use]
pub struct VerifyingKey {
    id: Option<Box<str>>,
    algorithm: Algorithm,
    material: Arc<Material>,
}

/// The bytes of a key, checked against every rule that needs no backend.
pub(crate) enum Material {
    Secret(Zeroizing<Vec<u8>>),
    Rsa { n: Vec<u8>, e: Vec<u8> },
    Point(Vec<u8>),
    Ed25519([u8; 32]),
}

impl VerifyingKey {
    /// A secret for an HMAC algorithm.
    ///
    /// # Errors
    /// When the secret is shorter than the algorithm's hash (RFC 7518 section 3.2), when it looks
    /// like a public key, which everybody knows, or when the algorithm takes no secret.
    pub fn secret(algorithm: Algorithm, secret: &Secret) -> Result<Self, ConfigError> {
        if algorithm.family() != Family::Hmac {
            return Err(refuse("a secret serves HS256, HS384 and HS512 alone"));
        }
        if secret.len() < algorithm.secret_bytes() {
            return Err(ConfigError::new(
                "key",
                format!(
                    "{algorithm} takes at least {} bytes",
                    algorithm.secret_bytes()
                ),
            ));
        }
        if looks_public(secret.expose()) {
            return Err(refuse("the secret looks like a public key or a JWK"));
        }
        let bytes = Zeroizing::new(secret.expose().to_vec());
        Ok(Self::of(algorithm, Material::Secret(bytes)))
    }

    /// A public key in PEM: `PUBLIC KEY`, or for RSA also `RSA PUBLIC KEY`.
    ///
    /// # Errors
    /// When it is not a public key of the algorithm, or breaks a rule of its kind: RSA has 2048 to
    /// 8192 bits and an odd exponent of at least 3, a point lies on the algorithm's curve, an
    /// Ed25519 key is canonical and not of small order.
    pub fn from_pem(algorithm: Algorithm, pem: &[u8]) -> Result<Self, ConfigError> {
        // A certificate is more than a key, and a private key does not belong here.
        let tags: [&[u8]; 2] = [
            b"-----BEGIN PUBLIC KEY-----",
            b"-----BEGIN RSA PUBLIC KEY-----",
        ];
        let start = pem.trim_ascii_start();
        if !tags.iter().any(|tag| start.starts_with(tag)) {
            return Err(refuse("is not a public key in PEM"));
        }
        let unread = |_| refuse("is not a public key of that algorithm");
        let key = match algorithm.family() {
            Family::Hmac => return Err(refuse("a public key does not serve an HMAC")),
            Family::Rsa => DecodingKey::from_rsa_pem(pem).map_err(unread)?,
            Family::P256 | Family::P384 => DecodingKey::from_ec_pem(pem).map_err(unread)?,
            Family::Ed25519 => DecodingKey::from_ed_pem(pem).map_err(unread)?,
        };
        let bytes = key.try_get_as_bytes().map_err(unread)?;
        let material = match algorithm.family() {
            Family::Rsa => {
                let (n, e) = der::rsa_public_key(bytes)
                    .ok_or_else(|| refuse("is not a public key of that algorithm"))?;
                Material::rsa(n, e)?
            }
            Family::Ed25519 => Material::ed25519(bytes)?,
            _ => Material::point(algorithm, bytes)?,
        };
        Ok(Self::of(algorithm, material))
    }

    /// The key as a JWK (RFC 7517), to be published. A secret has none.
    pub(crate) fn to_jwk(&self) -> Option<serde_json::Value> {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut jwk = match &*self.material {
            Material::Secret(_) => return None,
            Material::Rsa { n, e } => json!({"kty": "RSA", "n": encode(n), "e": encode(e)}),
            Material::Point(point) => {
                let (x, y) = point[1..].split_at(point.len() / 2);
                let curve = if x.len() == 32 { "P-256" } else { "P-384" };
                json!({"kty": "EC", "crv": curve, "x": encode(x), "y": encode(y)})
            }
            Material::Ed25519(key) => json!({"kty": "OKP", "crv": "Ed25519", "x": encode(key)}),
        };
        jwk["use"] = "sig".into();
        jwk["alg"] = self.algorithm.as_str().into();
        if let Some(id) = &self.id {
            jwk["kid"] = (&**id).into();
        }
        Some(jwk)
    }

    pub(crate) fn material(&self) -> &Material {
        &self.material
    }

    pub(crate) fn of(algorithm: Algorithm, material: Material) -> Self {
        let thumbprint = material.thumbprint();
        let id = URL_SAFE_NO_PAD.encode(match &material {
            // Eight bytes tell keys apart and say nothing of the secret.
            Material::Secret(_) => &thumbprint[..8],
            _ => &thumbprint[..],
        });
        Self {
            id: Some(id.into()),
            algorithm,
            material: Arc::new(material),
        }
    }

    /// Names the key.
    pub fn with_id(mut self, id: impl Into<Box<str>>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Takes the key's name away: it then checks every token of its algorithm whose `kid` is not
    /// another key's.
    pub fn without_id(mut self) -> Self {
        self.id = None;
        self
    }

    /// Whether it is the very same key under the same name.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.id == other.id
            && self.algorithm == other.algorithm
            && self.material.thumbprint() == other.material.thumbprint()
    }

    /// The key's name.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// The algorithm that the key is bound to.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl Material {
    /// An RSA key, with the sizes that both backends take and that are not weak.
    pub(crate) fn rsa(n: &[u8], e: &[u8]) -> Result<Self, ConfigError> {
        let (n, e) = (without_zeros(n), without_zeros(e));
        let bits = n.len() * 8 - n.first().map_or(0, |first| first.leading_zeros() as usize);
        if !(2048..=8192).contains(&bits) || n.last().is_none_or(|last| last % 2 == 0) {
            return Err(refuse("an RSA modulus is odd and has 2048 to 8192 bits"));
        }
        let exponent = e.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
        if e.len() > 5 || exponent < 3 || exponent % 2 == 0 || exponent >> 33 != 0 {
            return Err(refuse(
                "an RSA exponent is odd, at least 3 and has at most 33 bits",
            ));
        }
        Ok(Self::Rsa {
            n: n.to_vec(),
            e: e.to_vec(),
        })
    }

    /// A point of the algorithm's curve. That it lies on it is checked by the backend.
    pub(crate) fn point(algorithm: Algorithm, point: &[u8]) -> Result<Self, ConfigError> {
        let length = if algorithm == Algorithm::ES384 {
            97
        } else {
            65
        };
        if point.len() != length || point[0] != 4 {
            return Err(refuse("is not an uncompressed point of its curve"));
        }
        Ok(Self::Point(point.to_vec()))
    }

    /// An Ed25519 key, canonical and not of small order: on others backends disagree about which
    /// signatures hold.
    pub(crate) fn ed25519(key: &[u8]) -> Result<Self, ConfigError> {
        let key: [u8; 32] = key
            .try_into()
            .map_err(|_| refuse("an Ed25519 key has 32 bytes"))?;
        let mut y = key;
        y[31] &= 0x7f;
        let canonical = y.iter().rev().lt(ED25519_PRIME.iter().rev());
        if !canonical || SMALL_ORDER.contains(&y) {
            return Err(refuse(
                "the Ed25519 key is not canonical, or of small order",
            ));
        }
        Ok(Self::Ed25519(key))
    }

    /// The SHA-256 thumbprint of RFC 7638; for a secret a digest of our own, so that no thumbprint
    /// can be compared with one that is published.
    pub(crate) fn thumbprint(&self) -> [u8; 32] {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let members = match self {
            Self::Secret(secret) => {
                let mut hash = Sha256::new();
                hash.update(b"portcullis jwt secret\0");
                hash.update(secret.as_slice());
                return hash.finalize().into();
            }
            Self::Rsa { n, e } => {
                format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, encode(e), encode(n))
            }
            Self::Point(point) => {
                let (x, y) = point[1..].split_at(point.len() / 2);
                let curve = if x.len() == 32 { "P-256" } else { "P-384" };
                let (x, y) = (encode(x), encode(y));
                format!(r#"{{"crv":"{curve}","kty":"EC","x":"{x}","y":"{y}"}}"#)
            }
            Self::Ed25519(key) => {
                format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, encode(key))
            }
        };
        Sha256::digest(members).into()
    }

    pub(crate) fn as_public_key(&self) -> PublicKey<'_> {
        match self {
            Self::Secret(secret) => PublicKey::Secret(secret),
            Self::Rsa { n, e } => PublicKey::Rsa { n, e },
            Self::Point(point) => PublicKey::Point(point),
            Self::Ed25519(key) => PublicKey::Ed25519(key),
        }
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyingKey")
            .field("id", &self.id)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

/// Whether bytes that were given as a secret are a public thing (RFC 8725 section 2.1: a public
/// key taken for an HMAC secret lets everybody sign).
fn looks_public(bytes: &[u8]) -> bool {
    let start = bytes.trim_ascii_start();
    start.starts_with(b"-----BEGIN")
        || start.starts_with(b"ssh-")
        || start.starts_with(b"ecdsa-")
        // A random secret may well begin with a brace.
        || start.starts_with(b"{") && start.windows(5).any(|part| part == b"\"kty\"")
}

fn without_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    &bytes[zeros..]
}

fn refuse(problem: &'static str) -> ConfigError {
    ConfigError::new("key", problem)
}

/// 2^255 - 19, little-endian.
const ED25519_PRIME: [u8; 32] = {
    let mut prime = [0xff; 32];
    prime[0] = 0xed;
    prime[31] = 0x7f;
    prime
};
/// The y coordinates of the eight points whose order divides 8, little-endian.
const SMALL_ORDER: [[u8; 32]; 5] = [
    [0; 32],
    {
        let mut one = [0; 32];
        one[0] = 1;
        one
    },
    {
        let mut minus_one = ED25519_PRIME;
        minus_one[0] -= 1;
        minus_one
    },
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98,
        0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53,
        0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67,
        0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac,
        0x03, 0x7a,
    ],
];
