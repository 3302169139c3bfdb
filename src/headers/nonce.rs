//! The nonce of one answer's Content-Security-Policy.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::secret::random;

/// The nonce of one request's answer: 144 random bits in base64, made when it is first read.
///
/// A handler finds it in the request's extensions (or as an axum extractor, behind the feature
/// `axum`) and writes it on the `<script>` and `<style>` elements that are its own. It stands in
/// the answer's policy only if it was read before the response was returned, and where the profile
/// of the answer has [`Source::NONCE`](super::Source::NONCE). One allocation, shared by clones.
///
/// ```
/// use portcullis::headers::CspNonce;
///
/// let nonce = CspNonce::new();
/// assert_eq!(nonce.as_str().len(), 24);
/// assert_eq!(nonce.as_str(), nonce.clone().as_str());
/// assert_ne!(nonce.as_str(), CspNonce::new().as_str());
/// ```
#[derive(Clone, Default)]
#[must_use]
pub struct CspNonce {
    text: Arc<OnceLock<[u8; TEXT_LEN]>>,
}

impl CspNonce {
    /// A nonce that no layer knows, for tests of a handler.
    pub fn new() -> Self {
        Self::default()
    }

    /// The nonce, as it goes into a `nonce` attribute.
    #[must_use]
    pub fn as_str(&self) -> &str {
        text(self.text.get_or_init(|| {
            let mut text = [b'A'; TEXT_LEN];
            // 18 bytes are exactly 24 characters, so this cannot run out of room.
            let _ = STANDARD.encode_slice(random::<BYTES>(), &mut text);
            text
        }))
    }

    /// The nonce if anybody read it.
    pub(super) fn used(&self) -> Option<&str> {
        self.text.get().map(text)
    }
}

impl fmt::Display for CspNonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for CspNonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CspNonce").finish_non_exhaustive()
    }
}

/// The nonce from the request's extensions; without a [`SecurityHeadersLayer`] that gives nonces
/// around the handler it is a 500.
///
/// [`SecurityHeadersLayer`]: super::SecurityHeadersLayer
#[cfg(feature = "axum")]
impl<S: Sync> axum::extract::FromRequestParts<S> for CspNonce {
    type Rejection = crate::Rejection;

    async fn from_request_parts(
        parts: &mut http::request::Parts,
        _state: &S,
    ) -> Result<Self, Self::Rejection> {
        use crate::rejection::{Rejection, RejectionKind};

        let nonce = parts.extensions.get::<Self>().cloned();
        nonce.ok_or_else(|| Rejection::new(RejectionKind::Internal, "headers", "no_nonce"))
    }
}

fn text(bytes: &[u8; TEXT_LEN]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

const BYTES: usize = 18;
pub(super) const TEXT_LEN: usize = 24;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn nonces_are_unique_base64_and_lazy() {
        let mut seen = HashSet::new();
        for _ in 0..10_000 {
            let nonce = CspNonce::new();
            assert_eq!(nonce.used(), None);
            let text = nonce.as_str().to_owned();
            assert_eq!(STANDARD.decode(&text).unwrap().len(), BYTES);
            assert_eq!(nonce.used(), Some(text.as_str()));
            assert!(seen.insert(text));
        }
    }
}
