//! A handle on what keys have used up.

use std::{fmt, sync::Arc};

use super::{key::Key, layer::Config, limits::Limit};
use crate::error::ConfigError;

/// Looks at, and changes, what the keys of a [`RateLimitLayer`](super::RateLimitLayer) have used
/// up. A cheap clone.
#[derive(Clone)]
pub struct Handle {
    config: Arc<Config>,
}

impl Handle {
    pub(super) fn new(config: Arc<Config>) -> Self {
        Self { config }
    }

    /// Gives a key of the named policy its whole limit back. An IPv6 client's /48 keeps what it has
    /// used up, and so does a slot that a prefix shares.
    ///
    /// # Errors
    /// When no policy has the name.
    pub fn reset(&self, policy: &str, key: Key) -> Result<(), ConfigError> {
        self.limit(policy)?
            .reset(key, self.config.context.monotonic());
        Ok(())
    }

    /// How many keys have an entry of their own, by all policies together.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.config.limits.iter().map(|limit| limit.keys()).sum()
    }

    /// How many charges went to a slot that a prefix shares, because there was no room for a key.
    #[must_use]
    pub fn overflowed(&self) -> u64 {
        self.config
            .limits
            .iter()
            .map(|limit| limit.overflowed())
            .sum()
    }

    fn limit(&self, name: &str) -> Result<&Limit, ConfigError> {
        let mut limits = self.config.limits.iter();
        limits
            .find(|limit| limit.policy().name() == name)
            .map(|limit| &**limit)
            .ok_or_else(|| {
                ConfigError::new(
                    "rate limit policy",
                    "names a policy that the layer does not have",
                )
            })
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("policies", &self.config.limits)
            .finish_non_exhaustive()
    }
}
