//! The layer: policies that are judged together, and what is answered.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{
    Extensions, HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode,
    header::RETRY_AFTER,
};
use tower_layer::Layer;

use super::{
    fields::{
        FieldsVersion, LegacyReset, RATELIMIT, RATELIMIT_POLICY, legacy, limit_value, policy_value,
        refused_values,
    },
    handle::Handle,
    limits::{Binding, Decision, Limit, Outcome, Receipt, Refused, charge_all, check},
    policy::Policy,
    service::RateLimit,
    window::Left,
};
use crate::{
    client::{Client, CountedBy},
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
///
/// A policy counts a request once, however many of these layers are on the request's way; that it
/// came a second time is reported once, as an event of kind
/// [`Misconfigured`](crate::event::EventKind::Misconfigured) with the reason `applied_twice`. A
/// request that a service makes with another one's extensions counts as that one. Past eight
/// policies a request may be counted again.
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
    legacy: Option<LegacyReset>,
    /// `RateLimit-Policy` of the limits as they were made.
    policy_value: HeaderValue,
    /// The same after so many changes of limits.
    changed_value: Arc<Mutex<(u64, HeaderValue)>>,
    /// The refusal by each policy alone, but for what depends on the moment.
    refusals: Box<[Rejection]>,
}

/// What the only policy of a layer refuses with.
pub(super) struct Denied {
    /// Nanoseconds until it would not.
    wait: u64,
    left: Left,
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

    /// Puts `X-RateLimit-Limit`, `X-RateLimit-Remaining` and `X-RateLimit-Reset` on responses, for
    /// clients that read nothing else; the tightest policy's. On refusals always, on admitted
    /// responses together with [`with_fields`](Self::with_fields).
    ///
    /// Caveat: clients disagree on what the reset is, so that has to be chosen.
    pub fn with_legacy_fields(self, reset: LegacyReset) -> Self {
        self.with(|config| config.legacy = Some(reset))
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
    pub(crate) fn around_authentication(&self) -> (Option<Self>, Option<Self>) {
        let before = self.filtered(|policy| !policy.needs_identity());
        let after = self.filtered(Policy::needs_identity);
        let some = |layer: Self| (!layer.config.limits.is_empty()).then_some(layer);
        (some(before), some(after))
    }

    /// Charges a request to every policy that has not counted it, or says why it is refused.
    #[inline]
    pub(crate) fn decide<A>(
        &self,
        request: &mut Request<A>,
        now: Monotonic,
    ) -> Result<Admitted, Rejection> {
        match self.config.charge(request.extensions_mut(), now) {
            Some(Ok(left)) => Ok(self.admitted_alone(left)),
            Some(Err(denied)) => Err(self.config.refuse_alone(denied)),
            None => self.decide_together(request, now),
        }
    }

    /// The decision of several policies, and of whatever is not a matter of one slot.
    #[inline(never)]
    pub(super) fn decide_together<A>(
        &self,
        request: &mut Request<A>,
        now: Monotonic,
    ) -> Result<Admitted, Rejection> {
        if let Some(binding) = self.config.charge_all(request.extensions_mut(), now) {
            return Ok(self.admitted_plainly(binding));
        }
        let before = CountedBy::of(request.extensions());
        let mut by = before;
        let admitted = self.check(Head::of(request), now, &mut by)?;
        if by != before {
            by.keep(request.extensions_mut());
        }
        Ok(admitted)
    }

    fn check(
        &self,
        head: Head<'_>,
        now: Monotonic,
        by: &mut CountedBy,
    ) -> Result<Admitted, Rejection> {
        let config = &*self.config;
        if !config.applies(head) {
            return Ok(Admitted::default());
        }
        let want_left = config.has_fields();
        match check(&config.limits, head, now, want_left, by, config.teller()) {
            Decision::Admitted(outcome) => Ok(self.admitted(outcome, head)),
            Decision::Refused(refused) => Err(config.refuse(&refused)),
            Decision::NoKey => Err(Rejection::new(
                RejectionKind::BadRequest,
                GATE,
                "missing_key",
            )),
        }
    }

    /// What the layer's only policy leaves.
    #[inline]
    pub(super) fn admitted_alone(&self, left: Left) -> Admitted {
        let binding = |_| Binding { policy: 0, left };
        self.admitted_plainly(self.config.fields.map(binding))
    }

    /// What there is to do for a request that nothing can be given back to.
    #[inline]
    fn admitted_plainly(&self, binding: Option<Binding>) -> Admitted {
        let after = binding.map(|binding| After {
            config: Arc::clone(&self.config),
            binding: Some(binding),
            receipts: None,
        });
        Admitted { after }
    }

    fn admitted(&self, outcome: Outcome, head: Head<'_>) -> Admitted {
        let client = outcome.shadowed.then(|| Client::of(head)).flatten();
        self.admitted_for(outcome, client)
    }

    /// What the policies leave to a request whose head is not needed any more.
    pub(super) fn admitted_for(&self, outcome: Outcome, client: Option<Client>) -> Admitted {
        if outcome.shadowed {
            let kind = EventKind::ExcessRateLimitExceeded;
            self.config.tell("shadow", kind, client);
        }
        let Outcome {
            binding, receipts, ..
        } = outcome;
        let after = binding.is_some() || !receipts.is_empty();
        Admitted {
            after: after.then(|| After {
                config: Arc::clone(&self.config),
                binding,
                receipts: (!receipts.is_empty()).then(|| receipts.into()),
            }),
        }
    }

    #[inline]
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
                legacy: config.legacy,
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

/// An admission, and what its response is for: it gets fields, and may give the charge back.
///
/// Dropped without a response, the charge stays.
#[must_use]
#[derive(Default)]
pub(crate) struct Admitted {
    after: Option<After>,
}

/// Small, since it moves with every response.
struct After {
    config: Arc<Config>,
    binding: Option<Binding>,
    /// Boxed, since few policies give anything back.
    receipts: Option<Box<[Receipt]>>,
}

impl Admitted {
    /// Whether the response is for anything.
    #[inline]
    pub(super) fn has_more(&self) -> bool {
        self.after.is_some()
    }

    /// Gives back what the response's status earns, and writes the fields. Once.
    #[inline]
    pub(crate) fn finish<B>(&self, response: &mut Response<B>) {
        if let Some(after) = &self.after {
            after.finish(response.status(), response.headers_mut());
        }
    }
}

impl After {
    #[inline(never)]
    fn finish(&self, status: StatusCode, headers: &mut HeaderMap) {
        self.refund(status);
        if let Some(binding) = self.binding {
            self.config.write(binding, headers);
        }
    }

    fn refund(&self, status: StatusCode) {
        let Some(receipts) = &self.receipts else {
            return;
        };
        let now = self.config.context.monotonic();
        for receipt in receipts.iter() {
            let limit = &self.config.limits[receipt.policy];
            if limit.policy().gives_back(status) {
                limit.refund(receipt, now);
            }
        }
    }
}

impl Config {
    fn new(limits: Box<[Arc<Limit>]>, context: Context) -> Self {
        let policy_value = policy_value(&limits);
        Self {
            changed_value: Arc::new(Mutex::new((0, policy_value.clone()))),
            policy_value,
            refusals: (0..limits.len())
                .map(|index| refusal(&limits, &[index]).with_body_ahead())
                .collect(),
            limits,
            context,
            only_if: None,
            fields: None,
            legacy: None,
        }
    }

    pub(super) fn tell(&self, reason: &'static str, kind: EventKind, client: Option<Client>) {
        let event = SecurityEvent::new(kind).with_rule(GATE, reason);
        self.context
            .emit(event.with_client(client.and_then(Client::ip)));
    }

    pub(super) fn applies(&self, head: Head<'_>) -> bool {
        self.only_if.is_none_or(|applies| applies(head))
    }

    pub(super) fn has_fields(&self) -> bool {
        self.fields.is_some()
    }

    /// Tells of what is wrong with a service, not with a request.
    pub(super) fn teller(&self) -> impl Fn(&'static str) {
        |reason| self.tell(reason, EventKind::Misconfigured, None)
    }

    /// Writes the fields of one policy's state.
    #[inline]
    fn write(&self, binding: Binding, headers: &mut HeaderMap) {
        let limit = &self.limits[binding.policy as usize];
        let Left { units, more_in } = binding.left;
        let more_in = shown(more_in, limit.policy().window());
        headers.append(RATELIMIT_POLICY, self.policy_value());
        headers.append(RATELIMIT, limit_value(limit.item(), units, more_in));
        if self.legacy.is_some() {
            self.write_legacy(binding, more_in, headers);
        }
    }

    #[cold]
    fn write_legacy(&self, binding: Binding, more_in: u64, headers: &mut HeaderMap) {
        for (name, value) in self.legacy(binding, more_in).into_iter().flatten() {
            headers.append(name, value);
        }
    }

    #[inline]
    fn policy_value(&self) -> HeaderValue {
        match self.limits.iter().map(|limit| limit.changes()).sum() {
            0 => self.policy_value.clone(),
            changes => self.value_after(changes),
        }
    }

    #[cold]
    fn value_after(&self, changes: u64) -> HeaderValue {
        let mut held = self
            .changed_value
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if held.0 != changes {
            *held = (changes, policy_value(&self.limits));
        }
        held.1.clone()
    }

    /// Charges a request to the only policy, when that is a matter of one slot.
    #[inline]
    pub(super) fn charge(
        &self,
        extensions: &mut Extensions,
        now: Monotonic,
    ) -> Option<Result<Left, Denied>> {
        match &self.limits[..] {
            [limit] if self.only_if.is_none() => {
                let (mut left, want_left) = (Left::NONE, self.has_fields());
                let charged = limit.charge(extensions, now, want_left, &mut left)?;
                Some(charged.map(|()| left).map_err(|wait| Denied { wait, left }))
            }
            _ => None,
        }
    }

    /// Charges a request to several policies, as [`charge_all`] does.
    #[inline]
    fn charge_all(&self, extensions: &mut Extensions, now: Monotonic) -> Option<Option<Binding>> {
        if self.limits.len() < 2 || self.only_if.is_some() {
            return None;
        }
        charge_all(&self.limits, extensions, now, self.has_fields())
    }

    /// The refusal by the only policy.
    #[cold]
    pub(super) fn refuse_alone(&self, denied: Denied) -> Rejection {
        let Denied { wait, left } = denied;
        let binding = Binding { policy: 0, left };
        self.refuse_for(&self.refusals[0], binding, wait)
    }

    #[cold]
    pub(super) fn refuse(&self, refused: &Refused) -> Rejection {
        let (binding, wait) = (refused.binding, refused.wait);
        match &refused.policies[..] {
            [policy] => self.refuse_for(&self.refusals[*policy], binding, wait),
            policies => self.refuse_for(&refusal(&self.limits, policies), binding, wait),
        }
    }

    /// Adds what depends on the moment.
    fn refuse_for(&self, rejection: &Rejection, binding: Binding, wait: u64) -> Rejection {
        let limit = &self.limits[binding.policy as usize];
        // What the client may not use now is not left to it, and more is what lets it in.
        let units = binding.left.units;
        let more_in = shown(wait, limit.policy().window());
        let (state, retry_after) = refused_values(limit.item(), units, more_in, wait);
        let mut fields = Vec::with_capacity(if self.legacy.is_some() { 6 } else { 3 });
        fields.push((RETRY_AFTER, retry_after));
        fields.push((RATELIMIT_POLICY, self.policy_value()));
        fields.push((RATELIMIT, state));
        fields.extend(self.legacy(binding, more_in).into_iter().flatten());
        rejection.having(fields)
    }

    fn legacy(&self, binding: Binding, more_in: u64) -> Option<[(HeaderName, HeaderValue); 3]> {
        let limit = &self.limits[binding.policy as usize];
        self.legacy.map(|reset| {
            let now = self.context.wall();
            legacy(reset, limit.current(), binding.left.units, more_in, now)
        })
    }
}

/// The refusal by some of the policies, but for what depends on the moment.
fn refusal(limits: &[Arc<Limit>], policies: &[usize]) -> Rejection {
    let names = policies.iter().map(|index| {
        let policy = limits[*index].policy();
        Arc::clone(policy.shared_name())
    });
    Rejection::new(RejectionKind::RateLimited, GATE, "exceeded")
        .with_problem_type(QUOTA_EXCEEDED)
        .with_violated_policies(names)
}

/// A wait without the rounding of the log's ticks, so that a window of 900 s reads as 900 and not
/// as 901. `Retry-After` keeps it, which must never be early.
fn shown(wait: u64, window: Duration) -> u64 {
    wait.saturating_sub((window.as_nanos() >> 24) as u64)
        .max(wait.min(1))
}

pub(super) const GATE: &str = "rate_limit";
const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";
