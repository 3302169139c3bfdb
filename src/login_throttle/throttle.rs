//! Failed logins, counted.

use std::{fmt, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue};

use super::{
    device::{DeviceId, DeviceKeys, MAX_AGE_SECS, new_device},
    failures::{Failure, Failures},
};
#[cfg(feature = "redis")]
use crate::rate_limit::redis::RedisLimits;
use crate::{
    context::Context,
    cookie,
    error::ConfigError,
    event::{EventKind, SecurityEvent},
    rate_limit::{Key, Policy, RateLimitLayer},
    rejection::{Rejection, RejectionKind},
    secret::Secrets,
};

/// Bounds failed logins for each account name; see the [module](super). A cheap clone.
#[derive(Clone)]
#[must_use]
pub struct LoginThrottle {
    failures: Failures,
    keys: Arc<DeviceKeys>,
    context: Context,
}

impl LoginThrottle {
    /// Admits `failures` failed logins for an account in any `window`; never one more, however many
    /// run side by side.
    ///
    /// The secrets sign the cookie under a key of their own, so they may serve other uses too;
    /// under the previous ones a device is still known.
    ///
    /// # Errors
    /// When the limit is not 1 to 100,000,000 or the window is not 1 ms to 366 days.
    pub fn new(failures: u32, window: Duration, secrets: &Secrets) -> Result<Self, ConfigError> {
        let policy = Policy::strict(POLICY, failures, window)?;
        Ok(Self {
            failures: Failures::Own(RateLimitLayer::new([policy])),
            keys: Arc::new(DeviceKeys::new(secrets)),
            context: Context::new(),
        })
    }

    /// Takes time from, and sends events through, a service's [`Context`].
    pub fn with_context(self, context: Context) -> Self {
        Self {
            failures: self.failures.with_context(context.clone()),
            context,
            ..self
        }
    }

    /// Counts for all instances of a service, through Redis: the limit is then that of the fleet.
    /// The secrets must be the same everywhere, or a device is known to one instance alone.
    ///
    /// While Redis is away each instance holds the account to the limit by its own counts, which
    /// are always warm; it never opens. An attempt waits for Redis no longer than its
    /// [budget](RedisLimits::with_budget), and neither do [`Attempt::succeed`] and
    /// [`Attempt::withdraw`]: what they cannot give back to it stays charged until the window ends.
    #[cfg(feature = "redis")]
    #[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
    pub fn shared(self, redis: RedisLimits) -> Self {
        Self {
            failures: self.failures.shared(redis),
            ..self
        }
    }

    /// Begins a login to `account` with the headers of its request: call it before the password is
    /// looked at. The account's name must be in its one canonical form (lower case, say), and
    /// stands for itself whether or not there is such an account.
    ///
    /// # Errors
    /// 429 with `Retry-After` when too many logins failed; the password must not be looked at. It
    /// is sent as an event `authn_login_lock`.
    pub async fn attempt(&self, account: &str, headers: &HeaderMap) -> Result<Attempt, Rejection> {
        let carried = cookie::sole(headers, COOKIE_NAME);
        let known = carried.and_then(|value| self.keys.known(value, account, self.context.wall()));
        let key = Key::of(account);
        let key = known.map_or(key, |device| key.and(Key::of(device)));
        let failure = self.failures.charge(POLICY, key).await;
        let failure = failure.inspect_err(|rejection| {
            if rejection.kind() == RejectionKind::RateLimited {
                self.tell_locked(known.is_some());
            }
        })?;
        Ok(Attempt {
            throttle: self.clone(),
            failure,
            account: account.into(),
            carried: carried.map(Into::into),
            device: known,
        })
    }

    fn tell_locked(&self, is_known_device: bool) {
        let reason = if is_known_device {
            "device"
        } else {
            "strangers"
        };
        let event = SecurityEvent::new(EventKind::AuthnLoginLock);
        self.context.emit(event.with_rule(GATE, reason));
    }
}

impl fmt::Debug for LoginThrottle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoginThrottle")
            .field("failures", &self.failures)
            .finish_non_exhaustive()
    }
}

/// A login in progress. Dropped, it counts as failed: so does one whose client hung up.
#[must_use = "an attempt that is dropped counts as failed"]
pub struct Attempt {
    throttle: LoginThrottle,
    failure: Failure,
    account: Box<str>,
    carried: Option<Box<str>>,
    device: Option<DeviceId>,
}

impl Attempt {
    /// The password was right: gives the charge back. The `Set-Cookie` goes with the answer, and
    /// makes the device a known one for 180 days.
    #[must_use = "the device is known by this cookie"]
    pub async fn succeed(self) -> HeaderValue {
        let device = self.device.unwrap_or_else(new_device);
        let now = self.throttle.context.wall();
        let carried = self.carried.as_deref();
        let value = (self.throttle.keys).value(device, &self.account, carried, now);
        self.failure.refund().await;
        let cookie = format!(
            "{COOKIE_NAME}={value}; Max-Age={MAX_AGE_SECS}; Path=/; Secure; HttpOnly; SameSite=Strict"
        );
        HeaderValue::try_from(cookie).expect("base64url stands in a header as it is")
    }

    /// Nobody looked at the password, because a store was down, say: gives the charge back.
    pub async fn withdraw(self) {
        self.failure.refund().await;
    }
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt")
            .field("device_is_known", &self.device.is_some())
            .finish_non_exhaustive()
    }
}

const COOKIE_NAME: &str = "__Host-known";
const POLICY: &str = "failed_logins";
const GATE: &str = "login_throttle";
