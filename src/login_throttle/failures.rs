//! Where failed logins are counted: in this process, or in Redis for a fleet.

#[cfg(feature = "redis")]
use crate::rate_limit::redis::{RedisLimits, SharedCharge, SharedRateLimitLayer};
use crate::{
    context::Context,
    rate_limit::{Charge, Key, RateLimitLayer},
    rejection::Rejection,
};

#[derive(Clone, Debug)]
pub(super) enum Failures {
    Own(RateLimitLayer),
    #[cfg(feature = "redis")]
    Fleet(SharedRateLimitLayer),
}

#[derive(Debug)]
pub(super) enum Failure {
    Own(Charge),
    #[cfg(feature = "redis")]
    Fleet(SharedCharge),
}

impl Failures {
    #[cfg(feature = "redis")]
    pub(super) fn shared(self, redis: RedisLimits) -> Self {
        Self::Fleet(self.into_own().shared(redis))
    }

    pub(super) fn with_context(self, context: Context) -> Self {
        match self {
            Self::Own(own) => Self::Own(own.with_context(context)),
            #[cfg(feature = "redis")]
            Self::Fleet(fleet) => {
                let own = fleet.local().clone().with_context(context);
                Self::Fleet(own.shared(fleet.redis().clone()))
            }
        }
    }

    pub(super) async fn charge(&self, policy: &str, key: Key) -> Result<Failure, Rejection> {
        match self {
            Self::Own(own) => own.handle().charge(policy, key).map(Failure::Own),
            #[cfg(feature = "redis")]
            Self::Fleet(fleet) => {
                let charge = fleet.handle().charge(policy, key).await?;
                Ok(Failure::Fleet(charge))
            }
        }
    }

    #[cfg(feature = "redis")]
    fn into_own(self) -> RateLimitLayer {
        match self {
            Self::Own(own) => own,
            Self::Fleet(fleet) => fleet.local().clone(),
        }
    }
}

impl Failure {
    pub(super) async fn refund(self) {
        match self {
            Self::Own(own) => own.refund(),
            #[cfg(feature = "redis")]
            Self::Fleet(fleet) => fleet.refund().await,
        }
    }
}
