//! Refusals of a JWT gate, with the challenges of RFC 6750 section 3.

use http::{HeaderValue, header::WWW_AUTHENTICATE};

use super::{error::VerifyError, source::CredentialError};
use crate::{
    deny_list::Denied,
    error::ConfigError,
    event::EventKind,
    rejection::{Rejection, RejectionKind},
};

/// The parameters of a challenge, and its finished forms.
#[derive(Clone, Debug)]
pub(crate) struct Challenge {
    parameters: Vec<(&'static str, String)>,
    missing: HeaderValue,
    invalid_token: HeaderValue,
    invalid_request: HeaderValue,
}

impl Challenge {
    pub(crate) fn new() -> Self {
        Self {
            parameters: Vec::new(),
            missing: HeaderValue::from_static("Bearer"),
            invalid_token: HeaderValue::from_static("Bearer error=\"invalid_token\""),
            invalid_request: HeaderValue::from_static("Bearer error=\"invalid_request\""),
        }
    }

    /// This challenge with one more parameter, or another value of it.
    pub(crate) fn with(&self, name: &'static str, value: &str) -> Result<Self, ConfigError> {
        let mut parameters = self.parameters.clone();
        parameters.retain(|(other, _)| *other != name);
        parameters.push((name, quotable(name, value)?));
        let form = |error: Option<&str>| {
            let stated = parameters
                .iter()
                .map(|(name, value)| (*name, value.as_str()));
            let listed: Vec<_> = stated
                .chain(error.map(|error| ("error", error)))
                .map(|(name, value)| format!("{name}=\"{value}\""))
                .collect();
            HeaderValue::try_from(format!("Bearer {}", listed.join(", ")))
                .map_err(|_| ConfigError::new(name, "does not fit a header field"))
        };
        Ok(Self {
            missing: form(None)?,
            invalid_token: form(Some("invalid_token"))?,
            invalid_request: form(Some("invalid_request"))?,
            parameters,
        })
    }

    /// No token came: the challenge names no error.
    pub(crate) fn missing(&self) -> Rejection {
        Rejection::new(RejectionKind::Unauthenticated, GATE, "missing_token")
            .with_header(WWW_AUTHENTICATE, self.missing.clone())
    }

    pub(crate) fn credentials(&self, error: CredentialError) -> Rejection {
        let reason = match error {
            CredentialError::Malformed => "malformed_credentials",
            CredentialError::Several => "several_credentials",
        };
        Rejection::new(RejectionKind::BadRequest, GATE, reason)
            .with_header(WWW_AUTHENTICATE, self.invalid_request.clone())
    }

    pub(crate) fn refused(&self, error: VerifyError) -> Rejection {
        match error {
            VerifyError::KeysUnavailable => unavailable(error.reason()),
            _ => self.invalid(error.reason()),
        }
    }

    pub(crate) fn denied(&self, denied: Denied) -> Rejection {
        match denied {
            Denied::Revoked => self
                .invalid("revoked")
                .with_event(EventKind::SessionUseAfterExpire),
            Denied::NotReady => unavailable("deny_list_not_ready"),
        }
    }

    fn invalid(&self, reason: &'static str) -> Rejection {
        Rejection::new(RejectionKind::Unauthenticated, GATE, reason)
            .with_header(WWW_AUTHENTICATE, self.invalid_token.clone())
    }
}

fn unavailable(reason: &'static str) -> Rejection {
    Rejection::new(RejectionKind::Unavailable, GATE, reason)
        .with_retry_after(std::time::Duration::from_secs(1))
}

/// A value that may stand in a quoted string (RFC 6750 section 3: no quote, no backslash).
fn quotable(setting: &'static str, value: &str) -> Result<String, ConfigError> {
    let fits = |byte: u8| matches!(byte, 0x20..=0x21 | 0x23..=0x5b | 0x5d..=0x7e);
    if value.is_empty() || !value.bytes().all(fits) {
        return Err(ConfigError::new(
            setting,
            "is visible ASCII without quotes and backslashes",
        ));
    }
    Ok(value.to_owned())
}

const GATE: &str = "jwt";
