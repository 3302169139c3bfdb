//! The refresh token in a cookie, out of the reach of scripts.

use http::{HeaderMap, HeaderValue};

use super::sessions::TokenPair;
#[cfg(feature = "csrf")]
use crate::csrf::CsrfPolicy;
use crate::{
    cookie,
    head::Head,
    rejection::{Rejection, RejectionKind},
};

/// Whether refresh tokens may come in a cookie, and the rule that keeps other sites from using it.
#[derive(Clone, Debug, Default)]
pub(super) struct RefreshCookie {
    #[cfg(feature = "csrf")]
    csrf: Option<CsrfPolicy>,
}

impl RefreshCookie {
    #[cfg(feature = "csrf")]
    pub(super) fn guarded_by(csrf: CsrfPolicy) -> Self {
        let csrf = csrf.cookie(NAME).expect("the name is a cookie's");
        Self { csrf: Some(csrf) }
    }

    pub(super) fn is_accepted(&self) -> bool {
        #[cfg(feature = "csrf")]
        return self.csrf.is_some();
        #[cfg(not(feature = "csrf"))]
        false
    }

    /// Refuses what another site may have sent.
    pub(super) fn judge(&self, head: Head<'_>) -> Result<(), Rejection> {
        #[cfg(feature = "csrf")]
        if let Some(csrf) = &self.csrf {
            return csrf.decide(head);
        }
        let _ = head;
        Ok(())
    }

    /// The one token that a request's cookies hold; 400 for more than one, alike or not.
    pub(super) fn read<'a>(&self, headers: &'a HeaderMap) -> Result<Option<&'a str>, Rejection> {
        if !self.is_accepted() {
            return Ok(None);
        }
        let mut values = cookie::values(headers, NAME);
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(several()),
            // What is no text is no token either, and is refused as such.
            (value, None) => Ok(value.map(|value| std::str::from_utf8(value).unwrap_or_default())),
        }
    }
}

/// 400: which of the tokens is meant cannot be told.
pub(super) fn several() -> Rejection {
    Rejection::new(RejectionKind::BadRequest, "session", "several_tokens")
        .with_detail("The request carries more than one refresh token.")
}

/// `Set-Cookie` with the pair's refresh token, for as long as it lives.
pub(super) fn set(pair: &TokenPair) -> HeaderValue {
    let (token, seconds) = (
        pair.refresh_token.expose(),
        pair.refresh_expires_in.as_secs(),
    );
    let cookie = format!("{NAME}={token}; Max-Age={seconds}; {ATTRIBUTES}");
    let mut value = HeaderValue::try_from(cookie).expect("a token is base64url");
    value.set_sensitive(true);
    value
}

/// `Set-Cookie` that takes the cookie away.
pub(super) fn clear() -> HeaderValue {
    HeaderValue::from_static(
        "__Host-refresh=; Max-Age=0; Path=/; Secure; HttpOnly; SameSite=Strict",
    )
}

/// The prefix keeps other hosts of the domain from setting it (RFC 6265bis section 4.1.3.2).
const NAME: &str = "__Host-refresh";
const ATTRIBUTES: &str = "Path=/; Secure; HttpOnly; SameSite=Strict";
