//! Metrics: their names, and the few that a service counts itself.
//!
//! With the feature `metrics` every gate counts through the facade `metrics`, into whatever recorder
//! the program has installed; without a recorder nothing is kept. Labels are closed sets: each is a
//! fixed name of the program, and none holds a user, token, key or address, so that no client makes
//! a series. Call `register` once the recorder is there.

use http::StatusCode;

use super::sink::SecurityEvent;

/// Counter of refusals, by `gate` and `reason`.
pub const REJECTIONS: &str = "portcullis_rejections_total";
/// Counter of logins, by `outcome`: `success`, `failure`, `limited`, `error`.
pub const LOGINS: &str = "portcullis_logins_total";
/// Counter of refreshes, by `outcome`: `success`, `replayed`, `reused`, `ended`, `refused`, `error`.
pub const REFRESHES: &str = "portcullis_refreshes_total";
/// Counter of events, by `event`; each one, where lines fold repeats.
pub const EVENTS: &str = "portcullis_events_total";
/// Counter of event lines that a full queue did not take.
pub const EVENTS_DROPPED: &str = "portcullis_events_dropped_total";
/// Histogram of password hashing, in seconds.
pub const PASSWORD_HASH_SECONDS: &str = "portcullis_password_hash_seconds";
/// Histogram of store calls in seconds, by `store` and `op`; calls that were given up count too.
pub const STORE_SECONDS: &str = "portcullis_store_seconds";
/// Gauge of the production checklist, by `line`: 1 where it fails.
pub const CHECKLIST_FAILING: &str = "portcullis_checklist_failing";

/// What became of a login, for [`LOGINS`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum LoginOutcome {
    /// A session began.
    Success,
    /// Name and password did not match.
    Failure,
    /// A limit refused to look.
    Limited,
    /// A part that the answer needs was away.
    Error,
}

impl LoginOutcome {
    /// What the status of a login's answer says; `None` for a request that was no login.
    ///
    /// ```
    /// use portcullis::event::metric::LoginOutcome;
    ///
    /// let limited = LoginOutcome::of(http::StatusCode::TOO_MANY_REQUESTS);
    /// assert_eq!(limited, Some(LoginOutcome::Limited));
    /// limited.map(LoginOutcome::count);
    /// ```
    #[must_use]
    pub fn of(status: StatusCode) -> Option<Self> {
        match status {
            StatusCode::UNAUTHORIZED => Some(Self::Failure),
            StatusCode::TOO_MANY_REQUESTS => Some(Self::Limited),
            status if status.is_success() => Some(Self::Success),
            status if status.is_server_error() => Some(Self::Error),
            _ => None,
        }
    }

    /// Counts one login.
    pub fn count(self) {
        one(LOGINS, "outcome", self.as_str());
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Limited => "limited",
            Self::Error => "error",
        }
    }
}

pub(super) fn event(event: &SecurityEvent) {
    one(EVENTS, "event", event.kind().as_str());
}

pub(crate) fn rejected(gate: &'static str, reason: &'static str) {
    #[cfg(feature = "metrics")]
    metrics::counter!(REJECTIONS, "gate" => gate, "reason" => reason).increment(1);
    #[cfg(not(feature = "metrics"))]
    let _ = (gate, reason);
}

#[cfg(feature = "refresh-token")]
pub(crate) fn refreshed(outcome: &'static str) {
    one(REFRESHES, "outcome", outcome);
}

#[cfg(feature = "password")]
pub(crate) fn password_hashed(took: std::time::Duration) {
    #[cfg(feature = "metrics")]
    metrics::histogram!(PASSWORD_HASH_SECONDS).record(took);
    #[cfg(not(feature = "metrics"))]
    let _ = took;
}

/// A store's call, timed from here to its end, whichever it is.
#[cfg(any(feature = "refresh-token", feature = "api-key"))]
pub(crate) async fn timed<F: Future>(store: &'static str, op: &'static str, call: F) -> F::Output {
    #[cfg(feature = "metrics")]
    let _timer = Timer {
        store,
        op,
        start: std::time::Instant::now(),
    };
    #[cfg(not(feature = "metrics"))]
    let _ = (store, op);
    call.await
}

#[cfg(all(
    feature = "metrics",
    any(feature = "refresh-token", feature = "api-key")
))]
struct Timer {
    store: &'static str,
    op: &'static str,
    start: std::time::Instant,
}

#[cfg(all(
    feature = "metrics",
    any(feature = "refresh-token", feature = "api-key")
))]
impl Drop for Timer {
    fn drop(&mut self) {
        metrics::histogram!(STORE_SECONDS, "store" => self.store, "op" => self.op)
            .record(self.start.elapsed());
    }
}

fn one(name: &'static str, label: &'static str, value: &'static str) {
    #[cfg(feature = "metrics")]
    metrics::counter!(name, label => value).increment(1);
    #[cfg(not(feature = "metrics"))]
    let _ = (name, label, value);
}

/// Describes the metrics to the installed recorder, and begins the counters of closed sets at zero:
/// without that, the first reuse of a token would make a series and not an increase, and no alert
/// would fire.
///
/// ```
/// use portcullis::event::metric;
///
/// let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
/// let exported = recorder.handle();
/// metrics::with_local_recorder(&recorder, metric::register);
/// assert!(exported.render().contains("portcullis_events_total{event=\"authn_token_reuse\"} 0"));
/// ```
#[cfg(feature = "metrics")]
pub fn register() {
    use super::kind::EventKind;
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

    describe_counter!(REJECTIONS, "Requests that a gate refused.");
    describe_counter!(LOGINS, "Logins, by what became of them.");
    describe_counter!(REFRESHES, "Uses of refresh tokens, by what became of them.");
    describe_counter!(EVENTS, "Security events.");
    describe_counter!(
        EVENTS_DROPPED,
        "Event lines that a full queue did not take."
    );
    describe_histogram!(
        PASSWORD_HASH_SECONDS,
        Unit::Seconds,
        "Time of a password hash."
    );
    describe_histogram!(STORE_SECONDS, Unit::Seconds, "Time of a store's call.");
    describe_gauge!(
        CHECKLIST_FAILING,
        "1 where a line of the production checklist fails."
    );
    for kind in EventKind::ALL {
        metrics::counter!(EVENTS, "event" => kind.as_str()).increment(0);
    }
    for outcome in [
        LoginOutcome::Success,
        LoginOutcome::Failure,
        LoginOutcome::Limited,
        LoginOutcome::Error,
    ] {
        metrics::counter!(LOGINS, "outcome" => outcome.as_str()).increment(0);
    }
    for outcome in ["success", "replayed", "reused", "ended", "refused", "error"] {
        metrics::counter!(REFRESHES, "outcome" => outcome).increment(0);
    }
    metrics::counter!(EVENTS_DROPPED).increment(0);
}

pub(super) fn dropped() {
    #[cfg(feature = "metrics")]
    metrics::counter!(EVENTS_DROPPED).increment(1);
}
