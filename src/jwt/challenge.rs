//! Refusals of a JWT gate, with the challenges of RFC 6750 section 3.

use http::{HeaderValue, header::WWW_AUTHENTICATE};

use super::{error::VerifyError, source::CredentialError};
use crate::{
    challenge::Challenge,
    deny_list::Denied,
    event::EventKind,
    rejection::{Rejection, RejectionKind},
};

/// The finished challenges of a gate.
#[derive(Clone, Debug)]
pub(crate) struct Challenges {
    common: Challenge,
    missing: HeaderValue,
    invalid_token: HeaderValue,
    invalid_request: HeaderValue,
}

impl Challenges {
    /// Challenges with these parameters in common.
    pub(crate) fn of(common: Challenge) -> Self {
        let failing = |error: &Challenge| common.followed_by(error).field();
        Self {
            missing: common.field(),
            invalid_token: failing(&Challenge::error("invalid_token")),
            invalid_request: failing(&Challenge::error("invalid_request")),
            common,
        }
    }

    pub(crate) fn common(&self) -> &Challenge {
        &self.common
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

const GATE: &str = "jwt";
