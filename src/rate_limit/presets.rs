//! The four tiers of the security policy that this crate implements.

use std::{str::FromStr, time::Duration};

use super::policy::Policy;
use crate::error::ConfigError;

/// The limits of a usual service, all strict and by client: `general` 100 in 15 minutes, `auth` 5
/// in 15 minutes, `model` 20 a minute, `upload` 10 an hour.
///
/// ```
/// use portcullis::rate_limit::{RateLimitLayer, Tiers};
///
/// let tiers = Tiers::from_vars(|name| match name {
///     "AUTH_RATE_LIMIT_MAX" => Some("3".into()),
///     _ => None,
/// })?;
/// assert_eq!(tiers.auth.limit(), 3);
/// let limits = RateLimitLayer::new(tiers);
/// let login = limits.only(["general", "auth"])?;
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Tiers {
    /// Everything.
    pub general: Policy,
    /// Register, login and change of password.
    pub auth: Policy,
    /// Calls to a model, which cost money.
    pub model: Policy,
    /// Uploads.
    pub upload: Policy,
}

impl Tiers {
    /// The defaults.
    ///
    /// # Errors
    /// Never; it shares its checks with what can fail.
    pub fn new() -> Result<Self, ConfigError> {
        Self::from_vars(|_| None)
    }

    /// From `RATE_LIMIT_WINDOW_MS` (of `general` and `auth`), `RATE_LIMIT_MAX_REQUESTS`,
    /// `AUTH_RATE_LIMIT_MAX`, `MODEL_RATE_LIMIT_MAX` and `UPLOAD_RATE_LIMIT_MAX`, as `lookup` gives
    /// them; what it does not give keeps its default.
    ///
    /// # Errors
    /// When a value is not a whole number or out of range; the error names the variable.
    pub fn from_vars(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let window = number(&lookup, WINDOW, 900_000_u64)?;
        let window = Duration::from_millis(window);
        let tier = |name: &'static str, variable: &'static str, default, window| {
            let limit = number(&lookup, variable, default)?;
            Policy::strict(name, limit, window).map_err(|error| {
                let is_limit = error.setting() == "rate limit";
                error.named(if is_limit { variable } else { WINDOW })
            })
        };
        Ok(Self {
            general: tier("general", "RATE_LIMIT_MAX_REQUESTS", 100, window)?,
            auth: tier("auth", "AUTH_RATE_LIMIT_MAX", 5, window)?,
            model: tier("model", "MODEL_RATE_LIMIT_MAX", 20, MINUTE)?,
            upload: tier("upload", "UPLOAD_RATE_LIMIT_MAX", 10, HOUR)?,
        })
    }
}

impl IntoIterator for Tiers {
    type Item = Policy;
    type IntoIter = std::array::IntoIter<Policy, 4>;

    fn into_iter(self) -> Self::IntoIter {
        [self.general, self.auth, self.model, self.upload].into_iter()
    }
}

fn number<N: FromStr>(
    lookup: &impl Fn(&str) -> Option<String>,
    variable: &'static str,
    default: N,
) -> Result<N, ConfigError> {
    match lookup(variable) {
        None => Ok(default),
        Some(text) => text
            .trim()
            .parse()
            .map_err(|_| ConfigError::new(variable, "must be a whole number above zero")),
    }
}

const WINDOW: &str = "RATE_LIMIT_WINDOW_MS";
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_policy() {
        let tiers = Tiers::new().unwrap();
        let told: Vec<_> = tiers
            .into_iter()
            .map(|tier| {
                (
                    tier.name().to_owned(),
                    tier.limit(),
                    tier.window().as_secs(),
                )
            })
            .collect();
        let expected = [
            ("general".to_owned(), 100, 900),
            ("auth".to_owned(), 5, 900),
            ("model".to_owned(), 20, 60),
            ("upload".to_owned(), 10, 3_600),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn an_unusable_value_names_its_variable() {
        for variable in [
            WINDOW,
            "RATE_LIMIT_MAX_REQUESTS",
            "AUTH_RATE_LIMIT_MAX",
            "MODEL_RATE_LIMIT_MAX",
            "UPLOAD_RATE_LIMIT_MAX",
        ] {
            for value in ["0", "-1", "", "five", "1.5", "99999999999999999999"] {
                let lookup = |name: &str| (name == variable).then(|| value.to_owned());
                let error = Tiers::from_vars(lookup).unwrap_err();
                assert_eq!(error.setting(), variable, "{value:?}");
            }
        }
    }
}
