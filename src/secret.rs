//! Secrets: at least 32 bytes, never weak, wiped from memory, never printed.
//!
//! A [`Secret`] is one key; [`Secrets`] is the one in use and those that are still accepted, so
//! that a key can be changed without a break.
//!
//! Deployment caveat: a secret belongs in a file or a secret manager, not in a command line, which
//! every user of the host can read.
//!
//! ```
//! use portcullis::secret::{Secret, Secrets};
//!
//! let fresh = Secret::from_text("hex:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")?;
//! let old = Secret::generate();
//! let secrets = Secrets::new(fresh).with_previous([old]);
//! assert_eq!(secrets.current().len(), 32);
//! # Ok::<(), portcullis::ConfigError>(())
//! ```

use std::{fmt, sync::Arc};

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::error::ConfigError;

/// A key of at least 32 bytes, checked when it is made.
///
/// Refused: fewer than 32 bytes, fewer than 8 different bytes, a repeated pattern, a run such as
/// `0123…`, and texts with a placeholder in them (`changeme`, `secret`, `example`, …). The memory
/// is wiped when the last clone is dropped, and `Debug` shows only the length.
#[derive(Clone)]
pub struct Secret {
    bytes: Arc<Zeroizing<Vec<u8>>>,
}

impl Secret {
    /// The bytes as they stand.
    ///
    /// # Errors
    /// When the bytes are too few or weak; the message never shows them.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, ConfigError> {
        let bytes = Zeroizing::new(bytes.into());
        if bytes.len() < MIN_BYTES {
            return Err(refuse(format!(
                "must hold at least {MIN_BYTES} bytes, holds {}",
                bytes.len()
            )));
        }
        if let Some(weakness) = weakness(&bytes) {
            return Err(refuse(format!(
                "is weak ({weakness}); use at least {MIN_BYTES} random bytes"
            )));
        }
        Ok(Self {
            bytes: Arc::new(bytes),
        })
    }

    /// A text as an operator writes it: `base64:` and `hex:` decode what follows, anything else
    /// counts byte by byte as it stands.
    ///
    /// # Errors
    /// When the text does not decode, or its bytes are too few or weak.
    pub fn from_text(text: &str) -> Result<Self, ConfigError> {
        if let Some(digits) = text.strip_prefix("hex:") {
            let bytes = decode_hex(digits)
                .ok_or_else(|| refuse("does not decode as hexadecimal after `hex:`"))?;
            return Self::new(bytes);
        }
        if let Some(digits) = text.strip_prefix("base64:") {
            let bytes = decode_base64(digits)
                .ok_or_else(|| refuse("does not decode as base64 after `base64:`"))?;
            return Self::new(bytes);
        }
        Self::new(text)
    }

    /// 32 fresh bytes from the operating system's random source.
    #[must_use]
    pub fn generate() -> Self {
        Self {
            bytes: Arc::new(Zeroizing::new(random::<MIN_BYTES>().to_vec())),
        }
    }

    /// The key itself. What reads it must not print it.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.bytes
    }

    /// How many bytes the key has.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "a secret is never empty")]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.bytes.len())
    }
}

/// Compares in a time that depends on the lengths alone.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.bytes.as_slice().ct_eq(other.bytes.as_slice()).into()
    }
}

impl Eq for Secret {}

/// The secret in use, and those that are still accepted and never used for anything new.
#[derive(Clone, Debug)]
pub struct Secrets {
    current: Secret,
    previous: Vec<Secret>,
}

impl Secrets {
    /// One secret, with none before it.
    #[must_use]
    pub fn new(current: Secret) -> Self {
        Self {
            current,
            previous: Vec::new(),
        }
    }

    /// Adds secrets that are still accepted, most recent first.
    #[must_use]
    pub fn with_previous(mut self, previous: impl IntoIterator<Item = Secret>) -> Self {
        self.previous.extend(previous);
        self
    }

    /// The secret that signs.
    #[must_use]
    pub fn current(&self) -> &Secret {
        &self.current
    }

    /// The secrets that only verify.
    #[must_use]
    pub fn previous(&self) -> &[Secret] {
        &self.previous
    }

    /// All of them, the current one first.
    pub fn iter(&self) -> impl Iterator<Item = &Secret> {
        std::iter::once(&self.current).chain(&self.previous)
    }
}

impl From<Secret> for Secrets {
    fn from(current: Secret) -> Self {
        Self::new(current)
    }
}

/// Fresh bytes from the operating system.
///
/// A host without a random source cannot hold any promise of this crate, so that ends the program.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system has a random source");
    bytes
}

fn refuse(problem: impl Into<std::borrow::Cow<'static, str>>) -> ConfigError {
    ConfigError::new("secret", problem)
}

fn weakness(bytes: &[u8]) -> Option<&'static str> {
    let mut seen = [false; 256];
    bytes
        .iter()
        .for_each(|byte| seen[usize::from(*byte)] = true);
    if seen.iter().filter(|seen| **seen).count() < MIN_DISTINCT {
        return Some("too few different bytes");
    }
    let lower = Zeroizing::new(bytes.to_ascii_lowercase());
    if PLACEHOLDERS.iter().any(|word| {
        lower
            .windows(word.len())
            .any(|part| part == word.as_bytes())
    }) {
        return Some("it contains a placeholder word");
    }
    let repeats = (1..=bytes.len() / 2)
        .any(|period| bytes.iter().skip(period).zip(bytes).all(|(a, b)| a == b));
    if repeats {
        return Some("it repeats a pattern");
    }
    let steps = bytes
        .windows(2)
        .filter(|pair| pair[1].wrapping_sub(pair[0]) == 1 || pair[0].wrapping_sub(pair[1]) == 1)
        .count();
    (steps * 2 >= bytes.len()).then_some("it counts up or down")
}

fn decode_hex(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let value = |digit: u8| char::from(digit).to_digit(16);
    let mut bytes = Vec::with_capacity(digits.len() / 2);
    for pair in digits.chunks_exact(2) {
        bytes.push((value(pair[0])? << 4 | value(pair[1])?) as u8);
    }
    Some(bytes)
}

/// Standard or URL-safe alphabet, with or without padding: what an operator's tools print.
fn decode_base64(digits: &str) -> Option<Vec<u8>> {
    use base64::{
        Engine as _,
        alphabet::{STANDARD, URL_SAFE},
        engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
    };
    let any_padding =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    GeneralPurpose::new(&STANDARD, any_padding)
        .decode(digits)
        .or_else(|_| GeneralPurpose::new(&URL_SAFE, any_padding).decode(digits))
        .ok()
}

const MIN_BYTES: usize = 32;
const MIN_DISTINCT: usize = 8;
const PLACEHOLDERS: [&str; 10] = [
    "changeme",
    "change-me",
    "change_me",
    "change this",
    "secret",
    "password",
    "placeholder",
    "example",
    "insecure",
    "replace",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weak_values_are_refused_and_not_shown() {
        for weak in [
            "short",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "my-very-long-SECRET-key-for-production-use",
            "please-changeme-before-you-go-live-1234567890",
            "q7Rk!2Lw9Zq7Rk!2Lw9Zq7Rk!2Lw9Zq7Rk!2Lw9Z",
            "abcdefghijklmnopqrstuvwxyz0123456789",
            "zyxwvutsrqponmlkjihgfedcba9876543210",
            "hex:00112233",
            "hex:zz",
            "base64:***",
            "base64:c2hvcnQ=",
        ] {
            let error = Secret::from_text(weak).expect_err(weak);
            assert!(!error.to_string().contains(weak), "{error}");
        }
    }

    #[test]
    fn prefixes_decode_and_nothing_else_does() {
        let hex = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        assert_eq!(Secret::from_text(hex).unwrap().len(), 64);
        let decoded = Secret::from_text(&format!("hex:{hex}")).unwrap();
        assert_eq!(decoded.len(), 32);
        assert_eq!(decoded.expose()[0], 0x9f);
        for text in [
            "base64:n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg=",
            "base64:n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg",
            "base64:n4bQgYhMfWWaL-qgxVrQFaO_TxsrC4Is0V1sFbDwCgg",
        ] {
            assert_eq!(Secret::from_text(text).unwrap(), decoded);
        }
    }

    #[test]
    fn debug_shows_the_length_alone() {
        let secret = Secret::generate();
        assert_eq!(format!("{secret:?}"), "Secret(32 bytes)");
        let secrets = Secrets::new(secret).with_previous([Secret::generate()]);
        assert_eq!(secrets.iter().count(), 2);
    }
}
