//! A handle on what keys have used up in the fleet.

use super::{
    super::{
        handle::Usage,
        key::Key,
        layer::GATE,
        limits::{Counted, Decision, Receipt},
        window::Left,
    },
    layer::{Question, SharedRateLimitLayer, charges, give_back},
    script::{Asked, Charge},
};
use crate::{
    error::ConfigError,
    event::EventKind,
    rejection::{Rejection, RejectionKind},
};

/// Looks at, and changes, what keys have used up in the fleet. A cheap clone.
#[derive(Clone, Debug)]
pub struct SharedHandle {
    layer: SharedRateLimitLayer,
}

impl SharedHandle {
    pub(super) fn new(layer: SharedRateLimitLayer) -> Self {
        Self { layer }
    }

    /// Charges a key of the named policy by hand, as
    /// [`Handle::charge`](super::super::Handle::charge) does for one instance.
    ///
    /// # Errors
    /// When the policy refuses: 429; when Redis is away and the policy is closed then: 503; when no
    /// policy has the name: 500.
    pub async fn charge(&self, policy: &str, key: Key) -> Result<SharedCharge, Rejection> {
        let Some(index) = self.layer.local().handle().index(policy) else {
            return Err(Rejection::new(
                RejectionKind::Internal,
                GATE,
                "unknown_policy",
            ));
        };
        match Question::by_hand(&self.layer, index, key).judge().await {
            Ok(granted) => Ok(SharedCharge {
                layer: granted.layer,
                receipts: granted.outcome.receipts,
                charges: charges(granted.answered)
                    .map(|(_, asked, stamp)| (asked, stamp))
                    .collect(),
            }),
            Err(rejection) => {
                let config = self.layer.local().config();
                config.tell("exceeded", EventKind::ExcessRateLimitExceeded, None);
                Err(rejection)
            }
        }
    }

    /// What is left to a key of the named policy, without charging it; while Redis is away, what
    /// this instance leaves.
    ///
    /// # Errors
    /// When no policy has the name.
    pub async fn peek(&self, policy: &str, key: Key) -> Result<Usage, ConfigError> {
        let local = self.layer.local().handle();
        let own = local.peek(policy, key)?;
        let charge = Charge {
            counts: self.asked(policy, key),
            is_trial: true,
        };
        let context = &self.layer.local().config().context;
        let answers = self.layer.redis().charge(charge, context).await;
        let of = |answer: &super::script::Answer| Left {
            units: answer.units,
            more_in: answer.more_in,
        };
        let tightest = answers
            .unwrap_or_default()
            .iter()
            .map(of)
            .min_by_key(|left| left.units);
        Ok(match tightest {
            Some(left) if left.units < own.left => Usage::new(own.limit, left),
            _ => own,
        })
    }

    /// Gives a key of the named policy its whole limit back, here and in Redis; false when Redis is
    /// away and still counts what it counted. Other instances go on to refuse the key for up to 5 s,
    /// and a key that an instance had admitted up to the limit itself is held there until its window
    /// ends.
    ///
    /// # Errors
    /// When no policy has the name.
    pub async fn reset(&self, policy: &str, key: Key) -> Result<bool, ConfigError> {
        let local = self.layer.local().handle();
        local.reset(policy, key)?;
        let index = local.index(policy).expect("the policy was found");
        self.layer
            .redis()
            .denied()
            .forget(self.layer.limits()[index].id(), key);
        let asked = self.asked(policy, key);
        // The last one is the key's own; before it comes the /48 that it shares.
        let own = &asked[asked.len() - 1..];
        let context = &self.layer.local().config().context;
        Ok(self.layer.redis().forget(own, context).await)
    }

    fn asked(&self, policy: &str, key: Key) -> Vec<Asked> {
        let named = self.layer.limits().iter();
        let counted: Vec<_> = named
            .map(|limit| (limit.policy().name() == policy).then_some(Counted { key, quota: None }))
            .collect();
        let asked = self.layer.asked(&counted, &Decision::NoKey);
        asked.into_iter().map(|(_, asked)| asked).collect()
    }
}

/// A charge that can be given back. Dropped, it stands.
#[must_use = "a charge that is dropped stands"]
#[derive(Debug)]
pub struct SharedCharge {
    layer: SharedRateLimitLayer,
    receipts: Vec<Receipt>,
    charges: Vec<(Asked, u64)>,
}

impl SharedCharge {
    /// Gives the charge back, as far as it still counts. In Redis as well, unless that is away: then
    /// it stands there.
    pub async fn refund(self) {
        let context = &self.layer.local().config().context;
        give_back(self.layer.limits(), &self.receipts, context.monotonic());
        if !self.charges.is_empty() {
            self.layer.redis().refund(&self.charges, context).await;
        }
    }
}
