//! The layer, and the decision that takes a round trip.

use std::{mem, sync::Arc, time::Duration};

use http::{Request, Response};
use tower_layer::Layer;

use super::{
    super::{
        key::Key,
        layer::{Admitted, GATE, RateLimitLayer},
        limits::{
            Binding, Counted, Decision, Limit, Outcome, Receipt, Refused, charge_counted, counted,
            tightness,
        },
        window::Left,
    },
    connection::RedisLimits,
    handle::SharedHandle,
    outage::Outage,
    script::{Answer, Asked, Charge},
    service::SharedRateLimit,
};
use crate::{
    client::{Client, CountedBy},
    event::EventKind,
    head::Head,
    rejection::{Rejection, RejectionKind},
    time::Monotonic,
};

/// A [`RateLimitLayer`] whose counts hold for all instances of a service; made by
/// [`RateLimitLayer::shared`].
#[derive(Clone, Debug)]
#[must_use]
pub struct SharedRateLimitLayer {
    local: RateLimitLayer,
    redis: RedisLimits,
}

impl RateLimitLayer {
    /// Holds the fleet to the limits, through Redis. Context, fields and conditions are this
    /// layer's, and so are the counts that decide while Redis is away.
    pub fn shared(self, redis: RedisLimits) -> SharedRateLimitLayer {
        SharedRateLimitLayer { local: self, redis }
    }
}

/// A decision that is made, or a question for Redis.
pub(crate) enum Start {
    Decided(Result<SharedAdmitted, Rejection>),
    Ask(Question),
}

/// What Redis is asked for a request, whose head it does not need any more.
pub(crate) struct Question {
    layer: SharedRateLimitLayer,
    counted: Box<[Option<Counted>]>,
    local: Decision,
    client: Option<Client>,
}

/// What Redis, or this instance alone, agreed to.
pub(super) struct Granted {
    pub(super) layer: SharedRateLimitLayer,
    pub(super) outcome: Outcome,
    client: Option<Client>,
    pub(super) answered: Vec<Answered>,
}

/// A count of a policy, and what Redis said of it.
type Answered = ((usize, Asked), Answer);

/// An admission, and what its response is for.
#[must_use]
#[derive(Default)]
pub(crate) struct SharedAdmitted {
    local: Admitted,
    /// What can be given back: by policy.
    charges: Vec<(usize, Asked, u64)>,
    layer: Option<SharedRateLimitLayer>,
}

impl Start {
    pub(crate) async fn decision(self) -> Result<SharedAdmitted, Rejection> {
        match self {
            Self::Decided(decision) => decision,
            Self::Ask(question) => Ok(SharedAdmitted::new(question.judge().await?)),
        }
    }
}

impl SharedRateLimitLayer {
    /// The policies, and the counts of this instance.
    pub fn local(&self) -> &RateLimitLayer {
        &self.local
    }

    /// A handle on what has been used up in the fleet.
    #[must_use]
    pub fn handle(&self) -> SharedHandle {
        SharedHandle::new(self.clone())
    }

    /// The connection.
    #[must_use]
    pub fn redis(&self) -> &RedisLimits {
        &self.redis
    }

    /// Judges what needs no round trip.
    pub(crate) fn begin<A>(&self, request: &mut Request<A>) -> Start {
        let before = CountedBy::of(request.extensions());
        let mut by = before;
        let start = self.begin_of(Head::of(request), &mut by);
        if by != before {
            by.keep(request.extensions_mut());
        }
        start
    }

    fn begin_of(&self, head: Head<'_>, by: &mut CountedBy) -> Start {
        let config = self.local.config();
        if !config.applies(head) {
            return Start::Decided(Ok(SharedAdmitted::default()));
        }
        let Some(counted) = counted(&config.limits, head, by, config.teller()) else {
            return Start::Decided(Err(missing_key()));
        };
        if counted.iter().all(Option::is_none) {
            return Start::Decided(Ok(SharedAdmitted::default()));
        }
        let now = config.context.monotonic();
        if let Some(refused) = self.refused_before(&counted, now) {
            return Start::Decided(Err(config.refuse(&refused)));
        }
        let local = charge_counted(&config.limits, &counted, now, config.has_fields());
        Start::Ask(Question {
            layer: self.clone(),
            counted,
            local,
            client: Client::of(head),
        })
    }

    /// The refusals that still hold.
    fn refused_before(&self, counted: &[Option<Counted>], now: Monotonic) -> Option<Refused> {
        let mut refusals = Refusals::default();
        for (policy, counted) in counted.iter().enumerate() {
            let id = self.limits()[policy].id();
            let left = counted.and_then(|of| self.redis.denied().get(id, of.key, now));
            if let Some(left) = left {
                refusals.note(policy, left);
            }
        }
        refusals.refused()
    }

    pub(super) fn limits(&self) -> &[Arc<Limit>] {
        &self.local.config().limits
    }

    /// The counts that a request goes into, as Redis knows them.
    pub(super) fn asked(
        &self,
        counted: &[Option<Counted>],
        local: &Decision,
    ) -> Vec<(usize, Asked)> {
        let receipts = match local {
            Decision::Admitted(outcome) => &outcome.receipts[..],
            _ => &[],
        };
        let counts = self
            .limits()
            .iter()
            .enumerate()
            .zip(counted)
            .filter_map(|((index, limit), of)| Some((index, limit, (*of)?)));
        let asked = counts.flat_map(|(index, limit, of)| {
            limit.counts(index, of).map(move |count| {
                let policy = limit.policy();
                let mut own = receipts.iter().filter(|receipt| receipt.is_of(&count));
                let is_shared = own.any(Receipt::is_shared);
                let names = self.redis.names();
                let (tag, name) = names.of(policy.name(), policy.is_strict(), &count, is_shared);
                let asked = Asked {
                    name,
                    tag,
                    is_strict: policy.is_strict(),
                    limit: count.limit,
                    span: policy.window().as_micros() as u64,
                    cost: policy.cost(),
                    may_refuse: !policy.is_shadow(),
                };
                (index, asked)
            })
        });
        asked.collect()
    }
}

impl Question {
    /// Charges one key of one policy.
    pub(super) fn by_hand(layer: &SharedRateLimitLayer, policy: usize, key: Key) -> Self {
        let config = layer.local.config();
        let mut counted = vec![None; config.limits.len()].into_boxed_slice();
        counted[policy] = Some(Counted { key, quota: None });
        let now = config.context.monotonic();
        Self {
            local: charge_counted(&config.limits, &counted, now, false),
            layer: layer.clone(),
            counted,
            client: None,
        }
    }

    pub(super) async fn judge(self) -> Result<Granted, Rejection> {
        let layer = self.layer.clone();
        let context = &layer.local.config().context;
        let asked = layer.asked(&self.counted, &self.local);
        let charge = Charge {
            counts: asked.iter().map(|(_, count)| count.clone()).collect(),
            is_trial: !matches!(self.local, Decision::Admitted(_)),
        };
        match layer.redis.charge(charge, context).await {
            Ok(answers) => {
                let answered = asked.into_iter().zip(answers).collect();
                self.decide(answered)
            }
            Err(_) => {
                let config = layer.local.config();
                config.tell("redis_unavailable", EventKind::StoreUnavailable, None);
                self.decide_alone()
            }
        }
    }

    /// Redis has judged.
    fn decide(mut self, answered: Vec<Answered>) -> Result<Granted, Rejection> {
        let layer = self.layer.clone();
        let config = layer.local.config();
        let now = config.context.monotonic();
        let mut refusals = Refusals::default();
        let mut shadowed = false;
        let mut binding: Option<Binding> = None;
        for ((policy, count), answer) in &answered {
            let left = Left {
                units: answer.units,
                more_in: answer.more_in,
            };
            if answer.admits {
                let tightest = binding.is_none_or(|held| tightness(left) < tightness(held.left));
                if count.may_refuse && tightest {
                    binding = Some(Binding {
                        policy: *policy as u32,
                        left,
                    });
                }
            } else if count.may_refuse {
                refusals.note(*policy, left);
                self.remember(*policy, left, now);
            } else {
                shadowed = true;
                config.limits[*policy].note_shadow_refusal();
            }
        }
        let local = mem::replace(&mut self.local, Decision::NoKey);
        match local {
            Decision::Admitted(outcome) => match refusals.refused() {
                Some(refused) => {
                    give_back(&config.limits, &outcome.receipts, now);
                    Err(config.refuse(&refused))
                }
                None => Ok(Granted {
                    outcome: Outcome {
                        binding: binding.filter(|_| config.has_fields()),
                        receipts: outcome.receipts,
                        shadowed: shadowed || outcome.shadowed,
                    },
                    client: self.client,
                    answered,
                    layer: self.layer,
                }),
            },
            // What this instance admitted while Redis was away, Redis does not know.
            Decision::Refused(refused) => {
                for policy in refused.policies {
                    let left = Left {
                        more_in: refused.wait,
                        ..Left::NONE
                    };
                    refusals.note(policy, left);
                    self.remember(policy, left, now);
                }
                Err(config.refuse(&refusals.refused().expect("a policy refused")))
            }
            Decision::NoKey => Err(missing_key()),
        }
    }

    /// Redis is away: each policy goes its own way.
    fn decide_alone(self) -> Result<Granted, Rejection> {
        let config = self.layer.local.config();
        let outage = |policy: usize| config.limits[policy].policy().outage();
        let closed = (0..config.limits.len())
            .any(|policy| outage(policy) == Outage::Closed && self.counted[policy].is_some());
        if closed {
            if let Decision::Admitted(outcome) = &self.local {
                give_back(
                    &config.limits,
                    &outcome.receipts,
                    config.context.monotonic(),
                );
            }
            let rejection = Rejection::new(RejectionKind::Unavailable, GATE, "redis_unavailable");
            return Err(rejection.with_retry_after(RETRY));
        }
        let outcome = match self.local {
            Decision::Admitted(outcome) => outcome,
            Decision::Refused(mut refused) => {
                refused
                    .policies
                    .retain(|policy| outage(*policy) != Outage::Open);
                if !refused.policies.is_empty() {
                    return Err(config.refuse(&refused));
                }
                Outcome::UNCHARGED
            }
            Decision::NoKey => return Err(missing_key()),
        };
        Ok(Granted {
            outcome,
            client: self.client,
            answered: Vec::new(),
            layer: self.layer,
        })
    }

    /// Keeps a refusal that nothing but time and an operator ends.
    fn remember(&self, policy: usize, left: Left, now: Monotonic) {
        let limit = &self.layer.limits()[policy];
        if let Some(of) = self.counted[policy]
            && !limit.policy().refunds()
        {
            self.layer
                .redis
                .denied()
                .note(limit.id(), of.key, left, now);
        }
    }
}

impl SharedAdmitted {
    fn new(granted: Granted) -> Self {
        let Granted {
            layer,
            outcome,
            client,
            answered,
        } = granted;
        let refunds = |policy: usize| layer.limits()[policy].policy().refunds();
        let charges: Vec<_> = charges(answered)
            .filter(|(policy, ..)| refunds(*policy))
            .collect();
        let receipts = outcome.receipts.into_iter();
        let outcome = Outcome {
            receipts: receipts.filter(|receipt| refunds(receipt.policy)).collect(),
            ..outcome
        };
        Self {
            local: layer.local.admitted_for(outcome, client),
            layer: (!charges.is_empty()).then_some(layer),
            charges,
        }
    }

    /// Gives back what the response's status earns, and writes the fields. Once. The future is what
    /// is given back to Redis.
    pub(crate) fn finish<B>(
        self,
        response: &mut Response<B>,
    ) -> impl Future<Output = ()> + Send + use<B> {
        self.local.finish(response);
        let status = response.status();
        async move {
            let Some(layer) = self.layer else {
                return;
            };
            let earned = |policy: usize| layer.limits()[policy].policy().gives_back(status);
            let charges: Vec<_> = self
                .charges
                .into_iter()
                .filter(|(policy, ..)| earned(*policy))
                .map(|(_, asked, stamp)| (asked, stamp))
                .collect();
            if !charges.is_empty() {
                let context = &layer.local.config().context;
                layer.redis.refund(&charges, context).await;
            }
        }
    }
}

/// Refusals of several policies, of which the longest is told.
#[derive(Default)]
struct Refusals {
    binding: Option<Binding>,
    policies: Vec<usize>,
}

impl Refusals {
    fn note(&mut self, policy: usize, left: Left) {
        if !self.policies.contains(&policy) {
            self.policies.push(policy);
        }
        if self
            .binding
            .is_none_or(|held| held.left.more_in <= left.more_in)
        {
            self.binding = Some(Binding {
                policy: policy as u32,
                left,
            });
        }
    }

    fn refused(self) -> Option<Refused> {
        let binding = self.binding?;
        Some(Refused {
            wait: binding.left.more_in,
            binding,
            policies: self.policies,
        })
    }
}

impl<S> Layer<S> for SharedRateLimitLayer {
    type Service = SharedRateLimit<S>;

    fn layer(&self, inner: S) -> SharedRateLimit<S> {
        SharedRateLimit::new(inner, self.clone())
    }
}

/// What was charged, with the stamp that a refund names.
pub(super) fn charges(answered: Vec<Answered>) -> impl Iterator<Item = (usize, Asked, u64)> {
    answered
        .into_iter()
        .filter(|(_, answer)| answer.stamp > 0)
        .map(|((policy, asked), answer)| (policy, asked, answer.stamp))
}

pub(super) fn give_back(limits: &[Arc<Limit>], receipts: &[Receipt], now: Monotonic) {
    for receipt in receipts {
        limits[receipt.policy].refund(receipt, now);
    }
}

fn missing_key() -> Rejection {
    Rejection::new(RejectionKind::BadRequest, GATE, "missing_key")
}

const RETRY: Duration = Duration::from_secs(1);
