//! What a route is meant to ask, and where it stands.

use std::time::Duration;

use http::{HeaderValue, Method};

#[cfg(feature = "upload")]
use super::scanner::Carrier;
use crate::error::ConfigError;

/// How the service is reached from outside.
#[derive(Clone, Debug)]
#[must_use]
pub struct Site {
    pub(super) host: String,
    pub(super) is_https: bool,
    /// `Bearer` and the token; shown to nobody.
    pub(super) proof: Option<HeaderValue>,
}

impl Site {
    /// A site over HTTPS at this host (and port, if another than 443).
    pub fn https(host: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            is_https: true,
            proof: None,
        }
    }

    /// A site over plain HTTP: the line `https` fails.
    pub fn http(host: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            is_https: false,
            proof: None,
        }
    }

    /// Has an access token, of a user who exists for this alone: for what stands behind
    /// authentication. Let it end within minutes. Without it, such lines are the operator's.
    ///
    /// # Errors
    ///
    /// Where the token cannot stand in a header.
    pub fn with_token(self, token: &str) -> Result<Self, ConfigError> {
        let proof = HeaderValue::try_from(format!("Bearer {token}"));
        let mut proof = proof.map_err(|_| ConfigError::new("site", "the token is none"))?;
        proof.set_sensitive(true);
        Ok(Self {
            proof: Some(proof),
            ..self
        })
    }
}

/// A limit that stands on a route, and the loosest that the policy allows.
#[derive(Clone, Debug)]
#[must_use]
pub struct Limit {
    pub(super) id: &'static str,
    pub(super) text: &'static str,
    pub(super) most: u32,
    pub(super) window: Duration,
    pub(super) policy: (u32, Duration),
    pub(super) variable: Option<&'static str>,
}

impl Limit {
    /// The limit on everything: the policy allows 100 in 15 minutes.
    pub fn general(most: u32, window: Duration) -> Self {
        Self::new(
            "limit_general",
            "at most 100 requests in 15 minutes for each address",
            (most, window),
            (100, QUARTER),
        )
        .set_by("RATE_LIMIT_MAX_REQUESTS")
    }

    /// The limit on logins: the policy allows 5 in 15 minutes.
    pub fn auth(most: u32, window: Duration) -> Self {
        Self::new(
            "limit_auth",
            "at most 5 logins in 15 minutes for each address",
            (most, window),
            (5, QUARTER),
        )
        .set_by("AUTH_RATE_LIMIT_MAX")
    }

    /// The limit on the model: the policy allows 20 in a minute.
    pub fn model(most: u32, window: Duration) -> Self {
        Self::new(
            "limit_model",
            "at most 20 calls of the model in a minute for each address",
            (most, window),
            (20, Duration::from_secs(60)),
        )
        .set_by("MODEL_RATE_LIMIT_MAX")
    }

    /// The limit on uploads: the policy allows 10 in an hour.
    pub fn upload(most: u32, window: Duration) -> Self {
        Self::new(
            "limit_upload",
            "at most 10 uploads in an hour for each address",
            (most, window),
            (10, Duration::from_secs(3_600)),
        )
        .set_by("UPLOAD_RATE_LIMIT_MAX")
    }

    /// A limit of one's own: its line's id and text, what is set, and what the policy allows.
    pub fn new(
        id: &'static str,
        text: &'static str,
        set: (u32, Duration),
        policy: (u32, Duration),
    ) -> Self {
        Self {
            id,
            text,
            most: set.0,
            window: set.1,
            policy,
            variable: None,
        }
    }

    /// Names the variable that sets it.
    pub fn set_by(self, variable: &'static str) -> Self {
        Self {
            variable: Some(variable),
            ..self
        }
    }

    /// Whether some window of the policy's length admits more than the policy.
    pub(super) fn is_looser(&self) -> bool {
        let (most, window) = self.policy;
        let nanos = self.window.as_nanos().max(1);
        u128::from(self.most) * window.as_nanos().div_ceil(nanos) > u128::from(most)
    }
}

/// A route of the service, with what it is meant to ask of a request.
#[derive(Clone, Debug)]
#[must_use]
pub struct Route {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) authenticated: bool,
    pub(super) hidden: bool,
    pub(super) plain: bool,
    pub(super) limit: Option<Limit>,
    pub(super) body: Option<(u64, &'static str)>,
    #[cfg(feature = "upload")]
    pub(super) scanned: Option<(&'static str, Carrier)>,
}

impl Route {
    /// A route that only has what stands around the whole service. Where the path has parameters,
    /// give it with values.
    pub fn new(method: Method, path: &'static str) -> Self {
        Self {
            method,
            path,
            authenticated: false,
            hidden: false,
            plain: false,
            limit: None,
            body: None,
            #[cfg(feature = "upload")]
            scanned: None,
        }
    }

    /// Answers 401 to whoever brings no proof of identity.
    pub fn authenticated(self) -> Self {
        Self {
            authenticated: true,
            ..self
        }
    }

    /// Answers 404 to strangers.
    pub fn hidden(self) -> Self {
        Self {
            hidden: true,
            ..self
        }
    }

    /// Is served over plain HTTP too, as for a probe of the host.
    pub fn over_plain_http(self) -> Self {
        Self {
            plain: true,
            ..self
        }
    }

    /// Is limited so for each address.
    pub fn limited(self, limit: Limit) -> Self {
        Self {
            limit: Some(limit),
            ..self
        }
    }

    /// Takes at most so many bytes of JSON.
    pub fn body(self, most: u64) -> Self {
        self.body_of("application/json", most)
    }

    /// Takes at most so many bytes of this type.
    pub fn body_of(self, media_type: &'static str, most: u64) -> Self {
        Self {
            body: Some((most, media_type)),
            ..self
        }
    }

    /// Takes such files in this field of a multipart form, and has each scanned: the EICAR test file
    /// must be refused as malware. [`UploadLayer`](crate::upload::UploadLayer) says so in its
    /// answer's extensions; one that reads a file only after it was scanned, by a
    /// [`Spool`](crate::upload::Spool), keeps the test file from the handler.
    #[cfg(feature = "upload")]
    pub fn scanned(self, field: &'static str, carrier: Carrier) -> Self {
        Self {
            scanned: Some((field, carrier)),
            ..self
        }
    }

    pub(super) fn is_unsafe(&self) -> bool {
        !self.method.is_safe()
    }
}

const QUARTER: Duration = Duration::from_secs(900);
