//! The challenge of a service whose callers bear tokens (RFC 6750 section 3).

use http::HeaderValue;

use crate::error::ConfigError;

/// What every challenge of a gate names, whatever it refuses for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Challenge {
    parameters: Vec<(&'static str, String)>,
}

impl Challenge {
    /// The challenge of a refusal for `error`, a code of RFC 6750 section 3.1 or its like.
    pub(crate) fn error(error: &'static str) -> Self {
        Self {
            parameters: vec![("error", error.to_owned())],
        }
    }

    /// # Errors
    /// When the realm is empty or does not fit a quoted string.
    pub(crate) fn with_realm(&self, realm: &str) -> Result<Self, ConfigError> {
        self.with("realm", realm)
    }

    /// Adds where the protected resource's metadata is (RFC 9728 section 5.1).
    ///
    /// # Errors
    /// When it is no `https` URL, or does not fit a quoted string.
    pub(crate) fn with_resource_metadata(&self, url: &str) -> Result<Self, ConfigError> {
        if !url.starts_with("https://") {
            return Err(ConfigError::new("resource_metadata", "is an `https` URL"));
        }
        self.with("resource_metadata", url)
    }

    /// This challenge with one more parameter, or another value of it.
    ///
    /// # Errors
    /// When the value does not fit a quoted string (RFC 6750 section 3: no quote, no backslash).
    pub(crate) fn with(&self, name: &'static str, value: &str) -> Result<Self, ConfigError> {
        let fits = |byte: u8| matches!(byte, 0x20..=0x21 | 0x23..=0x5b | 0x5d..=0x7e);
        if value.is_empty() || !value.bytes().all(fits) {
            return Err(ConfigError::new(
                name,
                "is visible ASCII without quotes and backslashes",
            ));
        }
        let mut parameters = self.parameters.clone();
        parameters.retain(|(other, _)| *other != name);
        parameters.push((name, value.to_owned()));
        Ok(Self { parameters })
    }

    /// This challenge with the parameters of another behind its own.
    pub(crate) fn followed_by(&self, other: &Self) -> Self {
        let is_told_anew = |name: &str| other.parameters.iter().any(|(told, _)| *told == name);
        let kept = self
            .parameters
            .iter()
            .filter(|(name, _)| !is_told_anew(name));
        Self {
            parameters: kept.chain(&other.parameters).cloned().collect(),
        }
    }

    /// The value of `WWW-Authenticate`.
    pub(crate) fn field(&self) -> HeaderValue {
        let parameters: Vec<_> = self
            .parameters
            .iter()
            .map(|(name, value)| format!("{name}=\"{value}\""))
            .collect();
        let text = format!("Bearer {}", parameters.join(", "));
        // What could not stand in a field was refused when it was added.
        HeaderValue::try_from(text.trim_end()).unwrap_or(BEARER)
    }
}

pub(crate) const BEARER: HeaderValue = HeaderValue::from_static("Bearer");
