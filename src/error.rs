//! The one error of setting things up.

use std::{borrow::Cow, error, fmt};

/// A setting that cannot be used.
///
/// It names the setting and what it takes, and never shows the value, which may be a secret.
///
/// ```
/// use portcullis::secret::Secret;
///
/// let error = Secret::from_text("hunter2").unwrap_err();
/// assert!(error.to_string().contains("at least 32 bytes"));
/// assert!(!error.to_string().contains("hunter2"));
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfigError {
    setting: Cow<'static, str>,
    problem: Cow<'static, str>,
}

impl ConfigError {
    /// An error of `setting`, with what is wrong and what it takes. Neither may hold the value.
    pub fn new(
        setting: impl Into<Cow<'static, str>>,
        problem: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            setting: setting.into(),
            problem: problem.into(),
        }
    }

    /// The setting: a method's or a variable's name.
    #[must_use]
    pub fn setting(&self) -> &str {
        &self.setting
    }

    /// What is wrong, and what the setting takes.
    #[must_use]
    pub fn problem(&self) -> &str {
        &self.problem
    }

    /// The same problem under the name by which the reader knows the setting.
    #[must_use]
    pub fn named(self, setting: impl Into<Cow<'static, str>>) -> Self {
        Self {
            setting: setting.into(),
            ..self
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.setting, self.problem)
    }
}

impl error::Error for ConfigError {}
