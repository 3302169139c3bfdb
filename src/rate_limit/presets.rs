//! The four tiers of the security policy that this crate implements.

use std::{env, str::FromStr, time::Duration};

use super::policy::Policy;
use crate::error::ConfigError;

/// The limits of a usual service, all [strict](Policy::strict) and by client.
///
/// | tier | default | the limit's variable | the window's variable |
/// |---|---|---|---|
/// | [`general`](Self::general) | 100 in 15 minutes | `RATE_LIMIT_MAX_REQUESTS` | `RATE_LIMIT_WINDOW_MS` |
/// | [`auth`](Self::auth) | 5 in 15 minutes | `AUTH_RATE_LIMIT_MAX` | `RATE_LIMIT_WINDOW_MS` |
/// | [`model`](Self::model) | 20 in a minute | `MODEL_RATE_LIMIT_MAX` | none |
/// | [`upload`](Self::upload) | 10 in an hour | `UPLOAD_RATE_LIMIT_MAX` | none |
///
/// A variable that is not set keeps the default. One that is set and cannot be used is a
/// [`ConfigError`], and the first in the order of this table is told:
///
/// | value | [`setting`](ConfigError::setting) | [`problem`](ConfigError::problem) |
/// |---|---|---|
/// | not UTF-8, not a whole number, negative, empty, above 2^32 (a window: 2^64) | the variable | must be a whole number above zero |
/// | a limit of 0, or above 100,000,000 | the variable | must be 1 to 100000000 in a window |
/// | a window of 0, or above 366 days | `RATE_LIMIT_WINDOW_MS` | must be 1 ms to 366 days |
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
    /// Every request.
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

    /// From the process's environment.
    ///
    /// # Errors
    /// When a value is not a whole number or out of range; the error names the variable.
    pub fn from_env() -> Result<Self, ConfigError> {
        // What is not UTF-8 is no number.
        Self::from_vars(|name| Some(env::var_os(name)?.to_string_lossy().into_owned()))
    }

    /// From the same variables as `lookup` gives them, instead of the process's environment.
    ///
    /// # Errors
    /// As for [`from_env`](Self::from_env).
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
                let problem = match (value, variable) {
                    ("0", WINDOW) => "must be 1 ms to 366 days",
                    ("0", _) => "must be 1 to 100000000 in a window",
                    _ => "must be a whole number above zero",
                };
                assert_eq!(error.problem(), problem, "{value:?}");
            }
        }
    }
}
