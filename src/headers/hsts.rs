//! `Strict-Transport-Security` (RFC 6797).

use std::time::Duration;

use http::HeaderValue;

use crate::error::ConfigError;

/// How long a browser speaks only HTTPS to this host. Sent over HTTPS alone.
///
/// Deployment caveat: it cannot be taken back sooner than it says; a service that is new to HTTPS
/// starts with days. `Hsts::days(0)` makes browsers forget it.
///
/// ```
/// use portcullis::headers::Hsts;
///
/// assert!(Hsts::days(365).preload().is_ok());
/// assert!(Hsts::days(30).preload().is_err());
/// assert!(Hsts::days(365).include_subdomains(false).preload().is_err());
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub struct Hsts {
    seconds: u64,
    subdomains: bool,
    preload: bool,
}

impl Hsts {
    /// For `max_age`, in whole seconds, subdomains included.
    pub const fn new(max_age: Duration) -> Self {
        Self {
            seconds: max_age.as_secs(),
            subdomains: true,
            preload: false,
        }
    }

    /// For so many days, subdomains included.
    pub const fn days(days: u32) -> Self {
        Self::new(Duration::from_secs(days as u64 * 86_400))
    }

    /// Says whether subdomains are included.
    pub const fn include_subdomains(self, subdomains: bool) -> Self {
        Self { subdomains, ..self }
    }

    /// Asks to be built into browsers.
    ///
    /// # Errors
    ///
    /// The lists take a host only with subdomains and at least 365 days.
    pub fn preload(self) -> Result<Self, ConfigError> {
        if !self.subdomains || self.seconds < 365 * 86_400 {
            return Err(ConfigError::new(
                "strict-transport-security",
                "preload needs subdomains and at least 365 days",
            ));
        }
        Ok(Self {
            preload: true,
            ..self
        })
    }

    pub(super) fn value(self) -> HeaderValue {
        let mut text = format!("max-age={}", self.seconds);
        if self.subdomains {
            text.push_str("; includeSubDomains");
        }
        if self.preload && self.subdomains {
            text.push_str("; preload");
        }
        super::value::from_checked(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        assert_eq!(
            Hsts::days(730).value(),
            "max-age=63072000; includeSubDomains"
        );
        assert_eq!(Hsts::days(0).include_subdomains(false).value(), "max-age=0");
        assert_eq!(
            Hsts::days(365).preload().unwrap().value(),
            "max-age=31536000; includeSubDomains; preload"
        );
    }

    #[test]
    fn preload_without_subdomains_is_not_sent() {
        let hsts = Hsts::days(365).preload().unwrap().include_subdomains(false);
        assert_eq!(hsts.value(), "max-age=31536000");
    }
}
