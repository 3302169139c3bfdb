//! The handle that services hold.

use std::{
    borrow::Cow, error, fmt, net::IpAddr, num::NonZeroUsize, sync::Arc,
    thread::available_parallelism, time::Duration,
};

use zeroize::Zeroizing;

#[cfg(feature = "argon2")]
use super::argon2id::Argon2id;
use super::{
    bcrypt::COSTS,
    policy::{self, Unusable},
    queue::{Purpose, Queue},
    scheme::{Scheme, Verification, Worker},
};
use crate::{
    client::Prefix,
    context::Context,
    error::ConfigError,
    event::{EventKind, SecurityEvent},
    rejection::{Rejection, RejectionKind},
};

/// Hashes and verifies passwords. A cheap clone; one queue for all clones.
#[derive(Clone)]
pub struct PasswordHasher {
    shared: Arc<Shared>,
    site: Option<Prefix>,
}

struct Shared {
    settings: Settings,
    queue: Queue,
}

#[derive(Clone)]
struct Settings {
    context: Context,
    scheme: Scheme,
    concurrency: usize,
    places: usize,
    check: Option<NewPasswordCheck>,
}

/// The service's own check of new passwords: `Err` says what to tell the user.
type NewPasswordCheck = fn(&str) -> Result<(), Cow<'static, str>>;

impl PasswordHasher {
    /// bcrypt at cost 12, on half the cores (at least one), with 16 places to wait for each.
    #[must_use]
    pub fn new() -> Self {
        Self::of(Scheme::bcrypt(DEFAULT_COST))
    }

    /// Argon2id and nothing else: a stored bcrypt hash is a wrong password. For services that never
    /// had any, or have no longer.
    #[cfg(feature = "argon2")]
    #[must_use]
    pub fn argon2id(params: Argon2id) -> Self {
        Self::of(Scheme {
            bcrypt: None,
            argon2id: Some(params),
        })
    }

    fn of(scheme: Scheme) -> Self {
        let cores = available_parallelism().map_or(1, NonZeroUsize::get);
        let concurrency = (cores / 2).max(1);
        Self::build(Settings {
            context: Context::new(),
            scheme,
            concurrency,
            places: concurrency * PLACES_EACH,
            check: None,
        })
    }

    /// Sets the cost of bcrypt hashes: 2^cost rounds. OWASP asks for at least 10; less is for tests.
    ///
    /// # Errors
    /// Below 4, which bcrypt does not know, and above 16, which takes seconds; for a hasher that
    /// does without bcrypt.
    pub fn with_cost(self, cost: u32) -> Result<Self, ConfigError> {
        if !COSTS.contains(&cost) {
            return Err(ConfigError::new("bcrypt cost", "must be 4 to 16"));
        }
        if self.shared.settings.scheme.bcrypt.is_none() {
            let problem = "is of no use to a hasher that knows Argon2id alone";
            return Err(ConfigError::new("bcrypt cost", problem));
        }
        Ok(self.with(|settings| settings.scheme.bcrypt = Some(cost)))
    }

    /// Makes new hashes with Argon2id, while stored bcrypt hashes of up to the
    /// [cost](Self::with_cost) that is set still count and are due for a new hash: users move over
    /// at their next login.
    ///
    /// Meanwhile every [`verify`](Self::verify) does the work of both, or its time would tell who
    /// has not logged in since; [`argon2id`](Self::argon2id) ends that when no bcrypt hash is left.
    #[cfg(feature = "argon2")]
    #[must_use]
    pub fn with_argon2id(self, params: Argon2id) -> Self {
        self.with(|settings| settings.scheme.argon2id = Some(params))
    }

    /// Sets how many hashes run at a time (at least one) and how many may wait for them.
    #[must_use]
    pub fn with_queue(self, concurrency: usize, places: usize) -> Self {
        self.with(|settings| (settings.concurrency, settings.places) = (concurrency, places))
    }

    /// Asks `check` about every new password, beyond the rules of [`check`](Self::check). `Err`
    /// holds the advice for the user. The place for a library that estimates strength or knows
    /// breached passwords.
    #[must_use]
    pub fn with_check(self, check: fn(&str) -> Result<(), Cow<'static, str>>) -> Self {
        self.with(|settings| settings.check = Some(check))
    }

    /// Sends events through `context`.
    #[must_use]
    pub fn with_context(self, context: Context) -> Self {
        self.with(|settings| settings.context = context)
    }

    /// The same hasher on behalf of the client at `ip`: of one IPv4 /24 or IPv6 /48, one hash
    /// waits at a time.
    #[must_use]
    pub fn for_client(&self, ip: impl Into<Option<IpAddr>>) -> Self {
        Self {
            shared: self.shared.clone(),
            site: ip.into().map(Prefix::of_site),
        }
    }

    /// Refuses what cannot be a password here. Meant for before a user is looked up, so that the
    /// refusal says nothing about users.
    ///
    /// # Errors
    /// [`PasswordError::Unusable`] for fewer than 8 or more than 71 bytes, or a NUL.
    pub fn check(&self, password: &str) -> Result<(), PasswordError> {
        policy::check(password).map_err(PasswordError::Unusable)
    }

    /// The hash of a new password, as text to store (at most 128 bytes).
    ///
    /// # Errors
    /// [`PasswordError::Unusable`] for what [`check`](Self::check) or the service's own check
    /// refuses; [`PasswordError::Busy`] when there is no place to wait.
    pub async fn hash(&self, password: &str) -> Result<String, PasswordError> {
        self.check(password)?;
        let Settings { scheme, check, .. } = self.shared.settings;
        if let Some(check) = check {
            check(password).map_err(|advice| PasswordError::Unusable(Unusable::Weak(advice)))?;
        }
        let password = owned(password);
        let hash = move || scheme.hash(password.as_bytes());
        self.run(Purpose::New, hash)
            .await?
            .ok_or(PasswordError::Failed)
    }

    /// Whether `password` is the one that `stored` was made of; `None` is a user that does not
    /// exist or has no password. The work is the same for all of them.
    ///
    /// # Errors
    /// [`PasswordError::Unusable`] for what [`check`](Self::check) refuses, before anything else;
    /// [`PasswordError::Busy`] when there is no place to wait.
    pub async fn verify(
        &self,
        password: &str,
        stored: Option<&str>,
    ) -> Result<Verification, PasswordError> {
        let [verification] = self.verify_each([password], stored).await?;
        Ok(verification)
    }

    /// [`verify`](Self::verify) for several passwords in one place of the queue, up to the first
    /// that is correct; those after it count as wrong.
    pub(crate) async fn verify_each<const N: usize>(
        &self,
        passwords: [&str; N],
        stored: Option<&str>,
    ) -> Result<[Verification; N], PasswordError> {
        for password in passwords {
            self.check(password)?;
        }
        let scheme = self.shared.settings.scheme;
        let passwords = passwords.map(owned);
        let stored = stored.map(owned);
        let verify = move || {
            let stored = stored.as_ref().map(|stored| stored.as_str());
            let mut found = [Verification::Wrong; N];
            let mut unreadable = false;
            for (password, found) in passwords.iter().zip(&mut found) {
                let verified = scheme.verify(password.as_bytes(), stored, &mut Worker);
                *found = verified.verification;
                unreadable |= verified.unreadable;
                if found.is_correct() {
                    break;
                }
            }
            (found, unreadable)
        };
        let (found, unreadable) = self.run(Purpose::Verify, verify).await?;
        if unreadable {
            let event = SecurityEvent::new(EventKind::Misconfigured);
            self.context()
                .emit(event.with_rule("password", "unreadable_hash"));
        }
        Ok(found)
    }

    async fn run<T: Send + 'static>(
        &self,
        purpose: Purpose,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PasswordError> {
        let queue = &self.shared.queue;
        queue.run(self.context(), purpose, self.site, job).await
    }

    fn context(&self) -> &Context {
        &self.shared.settings.context
    }

    fn with(self, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = self.shared.settings.clone();
        change(&mut settings);
        Self::build(settings)
    }

    fn build(settings: Settings) -> Self {
        let queue = Queue::new(settings.concurrency, settings.places);
        Self {
            shared: Arc::new(Shared { settings, queue }),
            site: None,
        }
    }
}

impl Default for PasswordHasher {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for PasswordHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = &self.shared.settings;
        f.debug_struct("PasswordHasher")
            .field("scheme", &settings.scheme)
            .field("concurrency", &settings.concurrency)
            .field("places", &settings.places)
            .finish_non_exhaustive()
    }
}

/// Why a password was not hashed or compared.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum PasswordError {
    /// It cannot be a password here: 422.
    Unusable(Unusable),
    /// There is no place to wait: 503 with `Retry-After`.
    Busy {
        /// When a place is likely.
        retry_after: Duration,
    },
    /// The hashing thread did not come back: the runtime is shutting down, or a fault. 500.
    Failed,
}

impl fmt::Display for PasswordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unusable(_) => "the password cannot be used",
            Self::Busy { .. } => "too many passwords wait to be hashed",
            Self::Failed => "the password could not be hashed",
        })
    }
}

impl error::Error for PasswordError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Unusable(unusable) => Some(unusable),
            _ => None,
        }
    }
}

impl From<PasswordError> for Rejection {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::Unusable(unusable) => {
                Self::new(RejectionKind::Unprocessable, "password", "unusable")
                    .with_detail(unusable.to_string())
            }
            PasswordError::Busy { retry_after } => {
                Self::new(RejectionKind::Unavailable, "password", "queue_full")
                    .with_event(EventKind::ExcessRateLimitExceeded)
                    .with_retry_after(retry_after)
            }
            PasswordError::Failed => Self::new(RejectionKind::Internal, "password", "failed"),
        }
    }
}

#[cfg(feature = "axum")]
impl axum::response::IntoResponse for PasswordError {
    fn into_response(self) -> axum::response::Response {
        Rejection::from(self).into_response()
    }
}

/// A copy for the hashing thread that is wiped when it is done.
fn owned(text: &str) -> Zeroizing<String> {
    Zeroizing::new(text.to_owned())
}

const DEFAULT_COST: u32 = 12;
const PLACES_EACH: usize = 16;
