//! Tokens that are signed for one session.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::HeaderName;
use sha2::Sha256;

use super::policy::{is_safe, refuse};
use crate::{
    cookie,
    error::ConfigError,
    head::Head,
    identity::Identity,
    rejection::Rejection,
    secret::{Secrets, random},
};

/// Makes and checks CSRF tokens: 128 random bits and their HMAC-SHA256 together with the session.
///
/// A page gets its token from its server, in the page or in a cookie that scripts read, and sends
/// it back in `X-CSRF-Token` (or in a form's field, which the handler then [checks](Self::verify)).
/// Another site can neither read it nor make one. It is worth nothing in another session, so a new
/// login makes it new.
///
/// The session is that of the [`Identity`], or, before a login, the value of a cookie that is
/// handed out with the form: [`for_cookie`](Self::for_cookie).
///
/// ```
/// use portcullis::{Secret, csrf::CsrfTokens};
///
/// let tokens = CsrfTokens::new(&Secret::generate().into());
/// let token = tokens.issue("session-1");
/// assert!(tokens.verify(&token, "session-1"));
/// assert!(!tokens.verify(&token, "session-2"));
/// ```
#[derive(Clone)]
#[must_use]
pub struct CsrfTokens {
    /// The current key first; each is a MAC that has read its label.
    keys: Vec<Hmac<Sha256>>,
    cookie: Option<Box<str>>,
}

impl CsrfTokens {
    /// Tokens under these secrets; the previous ones still verify. The secrets may serve other
    /// uses too: this one has its own label.
    pub fn new(secrets: &Secrets) -> Self {
        let keys = secrets
            .iter()
            .filter_map(|secret| {
                // HMAC takes keys of any length.
                let mut mac = Hmac::new_from_slice(secret.expose()).ok()?;
                mac.update(LABEL);
                Some(mac)
            })
            .collect();
        Self { keys, cookie: None }
    }

    /// Takes this cookie's value for the session: for a login form, whose visitor has none yet.
    ///
    /// Set it to fresh random bytes with the form, as `__Host-…; Secure; HttpOnly; SameSite=Lax`.
    ///
    /// # Errors
    ///
    /// Where the name has no `__Host-` prefix: a sibling domain could set the cookie.
    pub fn for_cookie(self, name: &str) -> Result<Self, ConfigError> {
        if !name.starts_with("__Host-") || HeaderName::from_bytes(name.as_bytes()).is_err() {
            return Err(ConfigError::new(
                "csrf token cookie",
                "takes a cookie's name that starts with `__Host-`",
            ));
        }
        Ok(Self {
            cookie: Some(name.into()),
            ..self
        })
    }

    /// A token for a session.
    #[must_use]
    pub fn issue(&self, session: &str) -> String {
        let nonce = random::<NONCE_LEN>();
        let mut token = [0; TOKEN_LEN];
        let (head, tail) = token.split_at_mut(NONCE_LEN);
        head.copy_from_slice(&nonce);
        if let Some(key) = self.keys.first() {
            tail.copy_from_slice(&mac(key, session, &nonce).finalize().into_bytes());
        }
        URL_SAFE_NO_PAD.encode(token)
    }

    /// Whether a token is one of this session's. Takes the same time for every wrong one.
    #[must_use]
    pub fn verify(&self, token: &str, session: &str) -> bool {
        let mut bytes = [0; TOKEN_LEN];
        match URL_SAFE_NO_PAD.decode_slice(token, &mut bytes) {
            Ok(TOKEN_LEN) => {}
            _ => return false,
        }
        let (nonce, tag) = bytes.split_at(NONCE_LEN);
        self.keys
            .iter()
            .any(|key| mac(key, session, nonce).verify_slice(tag).is_ok())
    }

    /// Demands a valid `X-CSRF-Token` of every unsafe request.
    pub(crate) fn decide(&self, head: Head<'_>) -> Result<(), Rejection> {
        if is_safe(head) {
            return Ok(());
        }
        let session = match &self.cookie {
            Some(name) => cookie::sole(head.headers, name),
            None => head
                .extensions
                .get::<Identity>()
                .and_then(Identity::session),
        };
        let Some(session) = session.filter(|session| !session.is_empty()) else {
            return Err(refuse(
                "no_session",
                "There is no session to check a token for.",
            ));
        };
        let mut tokens = head.headers.get_all(X_CSRF_TOKEN).iter();
        let token = match (tokens.next(), tokens.next()) {
            (Some(token), None) => token.to_str().unwrap_or_default(),
            (None, _) => {
                return Err(refuse("no_token", "The request has no X-CSRF-Token."));
            }
            _ => return Err(refuse("bad_token", "The request has several X-CSRF-Token.")),
        };
        if self.verify(token, session) {
            Ok(())
        } else {
            Err(refuse(
                "bad_token",
                "The X-CSRF-Token is not one of this session's.",
            ))
        }
    }
}

impl fmt::Debug for CsrfTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CsrfTokens")
            .field("keys", &self.keys.len())
            .field("cookie", &self.cookie)
            .finish()
    }
}

fn mac(key: &Hmac<Sha256>, session: &str, nonce: &[u8]) -> Hmac<Sha256> {
    let mut mac = key.clone();
    mac.update(&(session.len() as u64).to_be_bytes());
    mac.update(session.as_bytes());
    mac.update(nonce);
    mac
}

const X_CSRF_TOKEN: HeaderName = HeaderName::from_static("x-csrf-token");
const LABEL: &[u8] = b"portcullis csrf token 1";
const NONCE_LEN: usize = 16;
const TOKEN_LEN: usize = NONCE_LEN + 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    #[test]
    fn a_token_is_good_for_its_session_alone() {
        let tokens = CsrfTokens::new(&Secret::generate().into());
        let token = tokens.issue("a");
        assert_ne!(token, tokens.issue("a"));
        assert!(tokens.verify(&token, "a"));
        assert!(!tokens.verify(&token, "b"));
        assert!(!tokens.verify(&token, ""));
        let others = CsrfTokens::new(&Secret::generate().into());
        assert!(!others.verify(&token, "a"));
    }

    #[test]
    fn a_token_with_any_character_changed_is_refused() {
        let tokens = CsrfTokens::new(&Secret::generate().into());
        let token = tokens.issue("a");
        for at in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert!(!tokens.verify(std::str::from_utf8(&changed).unwrap(), "a"));
        }
        for text in [
            "",
            "A",
            &token[1..],
            &format!("{token}A"),
            &format!("{token}=="),
        ] {
            assert!(!tokens.verify(text, "a"));
        }
    }

    #[test]
    fn previous_secrets_verify_and_never_sign() {
        let [old, new] = [Secret::generate(), Secret::generate()];
        let before = CsrfTokens::new(&old.clone().into());
        let after = CsrfTokens::new(&Secrets::new(new).with_previous([old]));
        assert!(after.verify(&before.issue("a"), "a"));
        assert!(!before.verify(&after.issue("a"), "a"));
    }

    #[test]
    fn the_boundary_between_session_and_nonce_cannot_be_moved() {
        let tokens = CsrfTokens::new(&Secret::generate().into());
        let key = &tokens.keys[0];
        let one = mac(key, "ab", b"c").finalize().into_bytes();
        let other = mac(key, "a", b"bc").finalize().into_bytes();
        assert_ne!(one, other);
    }

    #[test]
    fn a_cookie_that_a_sibling_could_set_is_refused() {
        let tokens = || CsrfTokens::new(&Secret::generate().into());
        assert!(tokens().for_cookie("pre").is_err());
        assert!(tokens().for_cookie("__Host-a b").is_err());
        assert!(tokens().for_cookie("__Host-pre").is_ok());
    }
}
