//! Failed logins, counted.

use std::{fmt, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue};

use super::device::{DeviceId, DeviceKeys, MAX_AGE_SECS, new_device};
use crate::{
    context::Context,
    cookie,
    error::ConfigError,
    event::{EventKind, SecurityEvent},
    rate_limit::{Charge, Handle, Key, Policy, RateLimitLayer},
    rejection::Rejection,
    secret::Secrets,
};

/// Bounds failed logins for each account name; see the [module](super). A cheap clone.
#[derive(Clone)]
#[must_use]
pub struct LoginThrottle {
    limits: RateLimitLayer,
    failures: Handle,
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
        let limits = RateLimitLayer::new([Policy::strict(POLICY, failures, window)?]);
        Ok(Self {
            failures: limits.handle(),
            limits,
            keys: Arc::new(DeviceKeys::new(secrets)),
            context: Context::new(),
        })
    }

    /// Takes time from, and sends events through, a service's [`Context`].
    pub fn with_context(self, context: Context) -> Self {
        let limits = self.limits.with_context(context.clone());
        Self {
            failures: limits.handle(),
            limits,
            context,
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
    pub fn attempt(&self, account: &str, headers: &HeaderMap) -> Result<Attempt, Rejection> {
        let carried = cookie::sole(headers, COOKIE_NAME);
        let known = carried.and_then(|value| self.keys.known(value, account, self.context.wall()));
        let key = Key::of(account);
        let key = known.map_or(key, |device| key.and(Key::of(device)));
        let charge = self.failures.charge(POLICY, key).inspect_err(|_| {
            let event = SecurityEvent::new(EventKind::AuthnLoginLock);
            let reason = if known.is_some() {
                "device"
            } else {
                "strangers"
            };
            self.context.emit(event.with_rule(GATE, reason));
        })?;
        Ok(Attempt {
            throttle: self.clone(),
            charge,
            account: account.into(),
            carried: carried.map(Into::into),
            device: known,
        })
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
    charge: Charge,
    account: Box<str>,
    carried: Option<Box<str>>,
    device: Option<DeviceId>,
}

impl Attempt {
    /// The password was right: gives the charge back. The `Set-Cookie` goes with the answer, and
    /// makes the device a known one for 180 days.
    #[must_use = "the device is known by this cookie"]
    pub fn succeed(self) -> HeaderValue {
        let device = self.device.unwrap_or_else(new_device);
        let now = self.throttle.context.wall();
        let carried = self.carried.as_deref();
        let value = (self.throttle.keys).value(device, &self.account, carried, now);
        self.charge.refund();
        let cookie = format!(
            "{COOKIE_NAME}={value}; Max-Age={MAX_AGE_SECS}; Path=/; Secure; HttpOnly; SameSite=Strict"
        );
        HeaderValue::try_from(cookie).expect("base64url stands in a header as it is")
    }

    /// Nobody looked at the password, because a store was down, say: gives the charge back.
    pub fn withdraw(self) {
        self.charge.refund();
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
const POLICY: &str = "account";
const GATE: &str = "login_throttle";
