//! The layer: policies that are judged together, and what is answered.

use std::{fmt, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue};
use tower_layer::Layer;

use super::{
    fields::{FieldsVersion, RATELIMIT, RATELIMIT_POLICY, limit_value, policy_value},
    handle::Handle,
    limits::{Binding, Decision, Limit, Refused, check},
    policy::Policy,
    service::RateLimit,
};
use crate::{
    context::Context,
    error::ConfigError,
    event::{EventKind, SecurityEvent},
    head::Head,
    rejection::{Rejection, RejectionKind},
    time::Monotonic,
};

/// Holds requests to limits. All its policies are judged together: a request is charged to every
/// one of them, or, when one refuses, to none.
///
/// Clones, and the layers that [`only`](Self::only) makes, share what has been used up, so many
/// routes can stand under one limit.
#[derive(Clone)]
#[must_use]
pub struct RateLimitLayer {
    config: Arc<Config>,
}

#[derive(Clone)]
pub(super) struct Config {
    pub(super) limits: Box<[Arc<Limit>]>,
    pub(super) context: Context,
    only_if: Option<fn(Head<'_>) -> bool>,
    fields: Option<FieldsVersion>,
    policy_value: HeaderValue,
}

impl RateLimitLayer {
    /// The policies, with nothing used up.
    pub fn new(policies: impl IntoIterator<Item = Policy>) -> Self {
        let limits = policies
            .into_iter()
            .map(|policy| Arc::new(Limit::new(policy)));
        Self {
            config: Arc::new(Config::new(limits.collect(), Context::new())),
        }
    }

    /// Takes clock, events and renderer from `context`.
    pub fn with_context(self, context: Context) -> Self {
        self.with(|config| config.context = context)
    }

    /// Leaves alone the requests for which `condition` is false.
    pub fn only_if(self, condition: fn(Head<'_>) -> bool) -> Self {
        self.with(|config| config.only_if = Some(condition))
    }

    /// Puts `RateLimit-Policy` and `RateLimit` on admitted responses too; refusals always carry
    /// them.
    pub fn with_fields(self, version: FieldsVersion) -> Self {
        self.with(|config| config.fields = Some(version))
    }

    /// A layer with the named policies alone, which shares with this one what has been used up.
    ///
    /// # Errors
    /// When no policy has one of the names.
    pub fn only<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Result<Self, ConfigError> {
        let names: Vec<&str> = names.into_iter().collect();
        let has = |name: &&str| self.policies().any(|policy| policy.name() == *name);
        if !names.iter().all(has) {
            return Err(ConfigError::new(
                "rate limit policies",
                "name a policy that the layer does not have",
            ));
        }
        Ok(self.filtered(|policy| names.contains(&policy.name())))
    }

    /// The policies.
    pub fn policies(&self) -> impl Iterator<Item = &Policy> {
        self.config.limits.iter().map(|limit| limit.policy())
    }

    /// A handle on what has been used up.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle::new(Arc::clone(&self.config))
    }

    /// The policies that can be judged before authentication, and those that cannot, each as a
    /// layer; `None` where there are none.
    #[allow(dead_code, reason = "the stack calls it, which stands above the gates")]
    pub(crate) fn around_authentication(&self) -> (Option<Self>, Option<Self>) {
        let before = self.filtered(|policy| !policy.needs_identity());
        let after = self.filtered(Policy::needs_identity);
        let some = |layer: Self| (!layer.config.limits.is_empty()).then_some(layer);
        (some(before), some(after))
    }

    /// Charges a request to every policy, or says why it is refused.
    #[inline]
    pub(crate) fn decide(&self, head: Head<'_>, now: Monotonic) -> Result<Admitted, Rejection> {
        let config = &*self.config;
        if config.only_if.is_some_and(|applies| !applies(head)) {
            return Ok(Admitted { fields: None });
        }
        let want_left = config.fields.is_some();
        match check(&config.limits, head, now, want_left, || {
            config.tell_missing()
        }) {
            Decision::Admitted(binding) => Ok(Admitted {
                fields: binding.map(|binding| (Arc::clone(&self.config), binding)),
            }),
            Decision::Refused(refused) => Err(config.refuse(&refused)),
            Decision::NoKey => Err(Rejection::new(
                RejectionKind::BadRequest,
                GATE,
                "missing_key",
            )),
        }
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    fn filtered(&self, keep: impl Fn(&Policy) -> bool) -> Self {
        let limits = self.config.limits.iter();
        let kept = limits.filter(|limit| keep(limit.policy())).cloned();
        let config = &*self.config;
        Self {
            config: Arc::new(Config {
                only_if: config.only_if,
                fields: config.fields,
                ..Config::new(kept.collect(), config.context.clone())
            }),
        }
    }

    fn with(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(Arc::make_mut(&mut self.config));
        self
    }
}

impl fmt::Debug for RateLimitLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimitLayer")
            .field("policies", &self.config.limits)
            .finish_non_exhaustive()
    }
}

impl<S> Layer<S> for RateLimitLayer {
    type Service = RateLimit<S>;

    fn layer(&self, inner: S) -> RateLimit<S> {
        RateLimit::new(inner, self.clone())
    }
}

/// An admission, and the fields that its response gets.
#[must_use]
pub(crate) struct Admitted {
    fields: Option<(Arc<Config>, Binding)>,
}

impl Admitted {
    /// Writes the fields, where they are on.
    pub(crate) fn apply(self, headers: &mut HeaderMap) {
        if let Some((config, binding)) = self.fields {
            let [policy, limit] = config.fields(binding);
            headers.append(RATELIMIT_POLICY, policy);
            headers.append(RATELIMIT, limit);
        }
    }
}

impl Config {
    fn new(limits: Box<[Arc<Limit>]>, context: Context) -> Self {
        Self {
            policy_value: policy_value(limits.iter().map(|limit| limit.policy())),
            limits,
            context,
            only_if: None,
            fields: None,
        }
    }

    fn tell_missing(&self) {
        let event = SecurityEvent::new(EventKind::Misconfigured);
        self.context.emit(event.with_rule(GATE, "missing_key"));
    }

    /// The values of `RateLimit-Policy` and `RateLimit`.
    fn fields(&self, binding: Binding) -> [HeaderValue; 2] {
        let policy = self.limits[binding.policy].policy();
        [
            self.policy_value.clone(),
            limit_value(policy, binding.left.units, binding.left.more_in),
        ]
    }

    #[cold]
    fn refuse(&self, refused: &Refused) -> Rejection {
        let mut binding = refused.binding;
        // What the client may not use now is not left to it, and more is what lets it in.
        binding.left.more_in = refused.wait;
        let [policy, limit] = self.fields(binding);
        let names = refused.policies.iter().map(|index| {
            let policy = self.limits[*index].policy();
            Arc::clone(policy.shared_name())
        });
        Rejection::new(RejectionKind::RateLimited, GATE, "exceeded")
            .with_problem_type(QUOTA_EXCEEDED)
            .with_violated_policies(names)
            .with_retry_after(Duration::from_nanos(refused.wait))
            .with_header(RATELIMIT_POLICY, policy)
            .with_header(RATELIMIT, limit)
    }
}

const GATE: &str = "rate_limit";
const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";
