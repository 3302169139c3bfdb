//! The key itself: what it says, how a slip is told from a guess, what a store keeps of it.

use std::{error, fmt, str::FromStr};

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::{error::ConfigError, secret::random};

/// An API key as text: `pk_<environment>_<id>_<secret><checksum>`.
///
/// `Debug` does not show it, and the memory is wiped when it is dropped.
#[derive(Clone)]
pub struct ApiKey(Zeroizing<String>);

impl ApiKey {
    /// The text for its owner, who is shown it this one time. What reads it must not log it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(..)")
    }
}

/// The id of an API key: ten characters of `[0-9A-Za-z]` that stand in the key. Not a secret.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ApiKeyId([u8; ID_LEN]);

impl ApiKeyId {
    /// A fresh id.
    #[must_use]
    pub fn generate() -> Self {
        let mut id = [0; ID_LEN];
        fill_base62(&mut id);
        Self(id)
    }

    /// The characters, for a store to keep.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("an id is ASCII")
    }
}

impl fmt::Display for ApiKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ApiKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKeyId({self})")
    }
}

impl FromStr for ApiKeyId {
    type Err = NotAnApiKeyId;

    fn from_str(text: &str) -> Result<Self, NotAnApiKeyId> {
        let id = <[u8; ID_LEN]>::try_from(text.as_bytes()).map_err(|_| NotAnApiKeyId)?;
        match id.iter().all(u8::is_ascii_alphanumeric) {
            true => Ok(Self(id)),
            false => Err(NotAnApiKeyId),
        }
    }
}

/// A text that is not an API key's id.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NotAnApiKeyId;

impl fmt::Display for NotAnApiKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an API key's id has 10 letters and digits")
    }
}

impl error::Error for NotAnApiKeyId {}

/// The digest of a key: what a store keeps instead. It opens nothing.
///
/// SHA-256 over a label, the environment, the id and 256 random bits: it depends on no secret of
/// the server, and in another environment it is another.
#[derive(Clone, Copy)]
pub struct ApiKeyDigest([u8; 32]);

impl ApiKeyDigest {
    /// The digest of these bytes, as a store kept them.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes for a store to keep.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn of(environment: &str, id: ApiKeyId, secret: &[u8]) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"portcullis api key digest v1\0");
        hash.update([environment.len() as u8]);
        hash.update(environment);
        hash.update(id.0);
        hash.update(secret);
        Self(hash.finalize().into())
    }
}

/// In constant time.
impl PartialEq for ApiKeyDigest {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for ApiKeyDigest {}

impl fmt::Debug for ApiKeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKeyDigest(..)")
    }
}

/// Why a text is not a key of this environment; told without a store.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum NotAKey {
    /// It has not the form of one.
    Malformed,
    /// Its checksum does not fit: a slip of the hand, or a key that was cut.
    Checksum,
    /// It is a key of another environment.
    Environment,
}

impl fmt::Display for NotAKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "it has not the form of an API key",
            Self::Checksum => "its checksum does not fit",
            Self::Environment => "it is of another environment",
        })
    }
}

impl error::Error for NotAKey {}

/// What an authentic-looking key says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Presented {
    pub(super) id: ApiKeyId,
    pub(super) digest: ApiKeyDigest,
}

/// How the keys of a service look.
#[derive(Clone, Debug)]
pub(super) struct Format {
    /// Brand and underscore.
    brand: Box<str>,
    environment: Box<str>,
}

impl Format {
    pub(super) fn new(brand: &str, environment: &str) -> Result<Self, ConfigError> {
        let is_word = |text: &str| {
            (1..=MAX_WORD).contains(&text.len())
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        if !is_word(brand) {
            return Err(ConfigError::new(
                "API key brand",
                "takes 1 to 16 of a-z and 0-9",
            ));
        }
        if !is_word(environment) {
            return Err(ConfigError::new(
                "API key environment",
                "takes 1 to 16 of a-z and 0-9",
            ));
        }
        Ok(Self {
            brand: format!("{brand}_").into(),
            environment: environment.into(),
        })
    }

    pub(super) fn brand(&self) -> &str {
        self.brand.trim_end_matches('_')
    }

    pub(super) fn environment(&self) -> &str {
        &self.environment
    }

    /// Whether a text is for this gate, well-formed or not.
    pub(super) fn claims(&self, text: &[u8]) -> bool {
        text.starts_with(self.brand.as_bytes())
    }

    pub(super) fn generate(&self) -> (ApiKey, Presented) {
        let id = ApiKeyId::generate();
        let mut secret = Zeroizing::new([0; SECRET_LEN]);
        fill_base62(&mut *secret);
        let digest = ApiKeyDigest::of(&self.environment, id, &*secret);
        // Room for all of it at once: a buffer that grows leaves copies behind.
        let mut text = Zeroizing::new(String::with_capacity(MAX_LEN));
        text.push_str(&self.brand);
        text.push_str(&self.environment);
        text.push('_');
        text.push_str(id.as_str());
        text.push('_');
        text.extend(secret.iter().copied().map(char::from));
        let checksum = checksum(text.as_bytes());
        text.extend(checksum.map(char::from));
        (ApiKey(text), Presented { id, digest })
    }

    pub(super) fn parse(&self, text: &[u8]) -> Result<Presented, NotAKey> {
        if text.len() > MAX_LEN {
            return Err(NotAKey::Malformed);
        }
        let rest = text
            .strip_prefix(self.brand.as_bytes())
            .ok_or(NotAKey::Malformed)?;
        let mut parts = rest.split(|byte| *byte == b'_');
        let (Some(environment), Some(id), Some(tail), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(NotAKey::Malformed);
        };
        let id = std::str::from_utf8(id).ok().and_then(|id| id.parse().ok());
        let id: ApiKeyId = id.ok_or(NotAKey::Malformed)?;
        if tail.len() != SECRET_LEN + CHECKSUM_LEN || !tail.iter().all(u8::is_ascii_alphanumeric) {
            return Err(NotAKey::Malformed);
        }
        let (body, given) = text.split_at(text.len() - CHECKSUM_LEN);
        if checksum(body) != given {
            return Err(NotAKey::Checksum);
        }
        if environment != self.environment.as_bytes() {
            return Err(NotAKey::Environment);
        }
        let secret = &tail[..SECRET_LEN];
        Ok(Presented {
            id,
            digest: ApiKeyDigest::of(&self.environment, id, secret),
        })
    }
}

/// CRC-32 in base 62: scanners for leaked secrets can tell a key from a look-alike without asking.
fn checksum(text: &[u8]) -> [u8; CHECKSUM_LEN] {
    let mut rest = crc32fast::hash(text) as usize;
    let mut digits = [0; CHECKSUM_LEN];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62[rest % BASE62.len()];
        rest /= BASE62.len();
    }
    digits
}

/// Fresh characters, each as likely as the other.
fn fill_base62(text: &mut [u8]) {
    let mut filled = 0;
    while filled < text.len() {
        let bytes = Zeroizing::new(random::<64>());
        let even = bytes.iter().map(|byte| usize::from(*byte));
        for byte in even.filter(|byte| *byte < 256 / BASE62.len() * BASE62.len()) {
            let Some(place) = text.get_mut(filled) else {
                return;
            };
            *place = BASE62[byte % BASE62.len()];
            filled += 1;
        }
    }
}

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const ID_LEN: usize = 10;
/// 43 characters of 5.95 bits: 256 bits.
const SECRET_LEN: usize = 43;
const CHECKSUM_LEN: usize = 6;
const MAX_WORD: usize = 16;
const MAX_LEN: usize = 2 * (MAX_WORD + 1) + ID_LEN + 1 + SECRET_LEN + CHECKSUM_LEN;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_says_what_it_was_made_with() {
        let format = Format::new("pk", "prod").unwrap();
        let (key, made) = format.generate();
        assert!(key.expose().starts_with("pk_prod_"));
        assert_eq!(format.parse(key.expose().as_bytes()), Ok(made));
        let (other, _) = format.generate();
        assert_ne!(key.expose(), other.expose());
    }

    #[test]
    fn a_key_with_any_character_changed_or_cut_is_refused() {
        let format = Format::new("pk", "prod").unwrap();
        let (key, _) = format.generate();
        let text = key.expose().as_bytes();
        for at in 0..text.len() {
            for other in [b'0', b'a', b'_', b' ', 0xff] {
                let mut changed = text.to_vec();
                if changed[at] != other {
                    changed[at] = other;
                    assert!(format.parse(&changed).is_err(), "{at}");
                }
            }
            assert!(format.parse(&text[..at]).is_err(), "{at}");
        }
        let long = vec![b'a'; 10 * 1024];
        for bad in [&b""[..], b"pk_", b"pk___", &[text, b"0"].concat(), &long] {
            assert!(format.parse(bad).is_err());
        }
    }

    #[test]
    fn another_environment_is_told_and_has_another_digest() {
        let (staging, prod) = (Format::new("pk", "staging"), Format::new("pk", "prod"));
        let (staging, prod) = (staging.unwrap(), prod.unwrap());
        let (key, _) = staging.generate();
        assert_eq!(
            prod.parse(key.expose().as_bytes()),
            Err(NotAKey::Environment)
        );
        let id = ApiKeyId::generate();
        let digest = |environment, id| ApiKeyDigest::of(environment, id, b"secret");
        assert_eq!(digest("prod", id), digest("prod", id));
        assert_ne!(digest("prod", id), digest("proc", id));
        assert_ne!(digest("prod", id), digest("prod", ApiKeyId::generate()));
    }

    #[test]
    fn characters_are_evenly_likely() {
        let mut text = vec![0; 62 * 1_000];
        fill_base62(&mut text);
        for digit in BASE62 {
            let count = text.iter().filter(|byte| *byte == digit).count();
            assert!(
                (700..1_300).contains(&count),
                "{}: {count}",
                char::from(*digit)
            );
        }
    }
}
