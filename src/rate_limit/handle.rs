//! A handle on what keys have used up.

use std::{fmt, sync::Arc, time::Duration};

use super::{
    key::Key,
    layer::{Config, GATE},
    limits::{Decision, Limit, Receipt, charge},
    window::Left,
};
use crate::{
    error::ConfigError,
    event::EventKind,
    rejection::{Rejection, RejectionKind},
};

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

    /// Charges a key of the named policy by hand, for what is known only in a handler: the account
    /// that somebody tries to log in to. Charge first, check the password, and
    /// [refund](Charge::refund) on success: guesses that run side by side are then all counted,
    /// and one whose client hung up stays counted.
    ///
    /// ```
    /// use portcullis::rate_limit::{Key, Policy, RateLimitLayer};
    /// use std::time::Duration;
    ///
    /// let policy = Policy::strict("account", 2, Duration::from_secs(900))?;
    /// let failures = RateLimitLayer::new([policy]).handle();
    /// let login = |name: &str, is_right: bool| {
    ///     let charge = failures.charge("account", Key::of(name))?;
    ///     if is_right {
    ///         charge.refund();
    ///     }
    ///     Ok::<_, portcullis::Rejection>(is_right)
    /// };
    /// assert!(login("ada", true).is_ok());
    /// assert!(login("ada", false).is_ok());
    /// assert!(login("ada", false).is_ok());
    /// assert_eq!(login("ada", true).unwrap_err().status(), 429);
    /// # Ok::<(), portcullis::ConfigError>(())
    /// ```
    ///
    /// # Errors
    /// When the policy refuses: 429 with all that a refusal of the layer carries; it has been sent
    /// as an event. When no policy has the name: 500.
    pub fn charge(&self, policy: &str, key: Key) -> Result<Charge, Rejection> {
        let config = &self.config;
        let Some(index) = self.index(policy) else {
            return Err(Rejection::new(
                RejectionKind::Internal,
                GATE,
                "unknown_policy",
            ));
        };
        match charge(&config.limits[index], key, config.context.monotonic()) {
            Decision::Admitted(outcome) => Ok(Charge {
                config: Arc::clone(config),
                index,
                receipts: outcome.receipts,
            }),
            Decision::Refused(mut refused) => {
                refused.binding.policy = index as u32;
                refused.policies = vec![index];
                config.tell("exceeded", EventKind::ExcessRateLimitExceeded, None);
                Err(config.refuse(&refused))
            }
            Decision::NoKey => Err(Rejection::new(
                RejectionKind::BadRequest,
                GATE,
                "missing_key",
            )),
        }
    }

    /// What is left to a key of the named policy, without charging it.
    ///
    /// # Errors
    /// When no policy has the name.
    pub fn peek(&self, policy: &str, key: Key) -> Result<Usage, ConfigError> {
        let limit = self.limit(policy)?;
        let left = limit.left(key, self.config.context.monotonic());
        Ok(Usage::new(limit.current(), left))
    }

    /// Holds all keys of the named policy to another limit from now on, on every layer that shares
    /// it. What keys have used up stays used up: nobody gets a fresh start.
    ///
    /// It goes through all keys, shard by shard, so it is for operators and not for requests.
    ///
    /// # Errors
    /// When no policy has the name, or the policy could not have been made with that limit.
    pub fn set_limit(&self, policy: &str, limit: u32) -> Result<(), ConfigError> {
        let held = self.limit(policy)?;
        held.policy().check_limit(limit)?;
        held.change(limit);
        Ok(())
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

    /// How many requests policies in shadow would have refused.
    #[must_use]
    pub fn shadow_refusals(&self) -> u64 {
        let limits = self.config.limits.iter();
        limits.map(|limit| limit.shadow_refusals()).sum()
    }

    pub(super) fn index(&self, name: &str) -> Option<usize> {
        let mut limits = self.config.limits.iter();
        limits.position(|limit| limit.policy().name() == name)
    }

    fn limit(&self, name: &str) -> Result<&Limit, ConfigError> {
        let index = self.index(name).ok_or_else(|| {
            ConfigError::new(
                "rate limit policy",
                "names a policy that the layer does not have",
            )
        })?;
        Ok(&self.config.limits[index])
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("policies", &self.config.limits)
            .finish_non_exhaustive()
    }
}

/// What a key may still use up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Usage {
    /// Units in a window.
    pub limit: u32,
    /// Units that would be admitted now.
    pub left: u32,
    /// The time until there are more; zero when nothing is used up.
    pub more_in: Duration,
}

impl Usage {
    pub(super) fn new(limit: u32, left: Left) -> Self {
        Self {
            limit,
            left: left.units,
            more_in: Duration::from_nanos(left.more_in),
        }
    }
}

/// A charge that can be given back. Dropped, it stands.
#[must_use = "a charge that is dropped stands"]
pub struct Charge {
    config: Arc<Config>,
    index: usize,
    receipts: Vec<Receipt>,
}

impl Charge {
    /// Gives the charge back, as far as it still counts: what has left the window is not taken from
    /// what was charged later.
    pub fn refund(self) {
        let now = self.config.context.monotonic();
        for receipt in &self.receipts {
            self.config.limits[self.index].refund(receipt, now);
        }
    }
}

impl fmt::Debug for Charge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let policy = self.config.limits[self.index].policy();
        f.debug_struct("Charge")
            .field("policy", &policy.name())
            .finish_non_exhaustive()
    }
}
