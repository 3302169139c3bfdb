//! The layers.

use std::{sync::Arc, time::Duration};

use tower_layer::Layer;

use super::{
    requirement::{Challenges, Requirement},
    service::Authorize,
};
use crate::{
    challenge::Challenge, context::Context, error::ConfigError, head::Head, identity::Identity,
    rejection::Rejection,
};

/// What every layer of this module holds.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    config: Arc<Config>,
}

#[derive(Clone, Debug)]
struct Config {
    requirement: Requirement,
    common: Challenge,
    challenges: Challenges,
    context: Context,
    only_if: Option<fn(Head<'_>) -> bool>,
}

impl Gate {
    fn new(requirement: Requirement) -> Self {
        Self {
            config: Arc::new(Config {
                challenges: requirement.challenges(&Challenge::default()),
                requirement,
                common: Challenge::default(),
                context: Context::new(),
                only_if: None,
            }),
        }
    }

    pub(super) fn decide(&self, head: Head<'_>) -> Result<(), Rejection> {
        let config = &*self.config;
        if config.only_if.is_some_and(|applies| !applies(head)) {
            return Ok(());
        }
        let now = config.context.wall();
        config.requirement.decide(head, now, &config.challenges)
    }

    pub(super) fn context(&self) -> &Context {
        &self.config.context
    }

    fn with_challenge(self, common: Challenge) -> Self {
        self.with(|config| {
            config.challenges = config.requirement.challenges(&common);
            config.common = common;
        })
    }

    fn with(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(Arc::make_mut(&mut self.config));
        self
    }
}

macro_rules! layer {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        #[must_use]
        pub struct $name {
            gate: Gate,
        }

        impl $name {
            /// Shares a clock, events and the look of refusals with other gates.
            pub fn with_context(self, context: Context) -> Self {
                Self {
                    gate: self.gate.with(|config| config.context = context),
                }
            }

            /// Names the realm in the challenges.
            ///
            /// # Errors
            /// When it is empty or does not fit a quoted string.
            pub fn with_realm(self, realm: &str) -> Result<Self, ConfigError> {
                let common = self.gate.config.common.with_realm(realm)?;
                Ok(self.with_challenge(common))
            }

            /// Names the URL of the protected resource's metadata in the challenges (RFC 9728
            /// section 5.1).
            ///
            /// # Errors
            /// When it is no `https` URL, or does not fit a quoted string.
            pub fn with_resource_metadata(self, url: &str) -> Result<Self, ConfigError> {
                let common = self.gate.config.common.with_resource_metadata(url)?;
                Ok(self.with_challenge(common))
            }

            /// Looks only at requests for which this holds; others go on untouched.
            pub fn only_if(self, only_if: fn(Head<'_>) -> bool) -> Self {
                Self {
                    gate: self.gate.with(|config| config.only_if = Some(only_if)),
                }
            }

            /// Names in the challenges what those of another gate name.
            pub(crate) fn with_challenge(self, common: Challenge) -> Self {
                Self {
                    gate: self.gate.with_challenge(common),
                }
            }

            /// Whether the request's caller may go on.
            #[allow(dead_code, reason = "for whoever asks several gates in turn")]
            pub(crate) fn decide(&self, head: Head<'_>) -> Result<(), Rejection> {
                self.gate.decide(head)
            }
        }

        impl<S> Layer<S> for $name {
            type Service = Authorize<S>;

            fn layer(&self, inner: S) -> Authorize<S> {
                Authorize::new(inner, self.gate.clone())
            }
        }
    };
}

layer! {
    /// Admits callers whose proof allows a scope. The refusal is 403 with
    /// `error="insufficient_scope"` and the scopes that would do (RFC 6750 section 3.1).
    RequireScopeLayer
}

impl RequireScopeLayer {
    /// Requires this scope.
    ///
    /// # Errors
    /// When it is no scope (RFC 6749 section 3.3).
    pub fn new(scope: impl Into<Box<str>>) -> Result<Self, ConfigError> {
        Self::all([scope])
    }

    /// Requires each of these scopes.
    ///
    /// # Errors
    /// When there is none, or one is no scope.
    pub fn all<T: Into<Box<str>>>(
        scopes: impl IntoIterator<Item = T>,
    ) -> Result<Self, ConfigError> {
        let requirement = Requirement::all_scopes(collect(scopes))?;
        Ok(Self {
            gate: Gate::new(requirement),
        })
    }

    /// Requires one of these scopes.
    ///
    /// # Errors
    /// When there is none, or one is no scope.
    pub fn any<T: Into<Box<str>>>(
        scopes: impl IntoIterator<Item = T>,
    ) -> Result<Self, ConfigError> {
        let requirement = Requirement::any_scope(collect(scopes))?;
        Ok(Self {
            gate: Gate::new(requirement),
        })
    }
}

layer! {
    /// Admits callers who hold a role. The refusal is 403.
    RequireRoleLayer
}

impl RequireRoleLayer {
    /// Requires this role.
    ///
    /// # Errors
    /// When it is empty.
    pub fn new(role: impl Into<Box<str>>) -> Result<Self, ConfigError> {
        Self::all([role])
    }

    /// Requires each of these roles.
    ///
    /// # Errors
    /// When there is none, or one is empty.
    pub fn all<T: Into<Box<str>>>(roles: impl IntoIterator<Item = T>) -> Result<Self, ConfigError> {
        let requirement = Requirement::roles(collect(roles), true)?;
        Ok(Self {
            gate: Gate::new(requirement),
        })
    }

    /// Requires one of these roles.
    ///
    /// # Errors
    /// When there is none, or one is empty.
    pub fn any<T: Into<Box<str>>>(roles: impl IntoIterator<Item = T>) -> Result<Self, ConfigError> {
        let requirement = Requirement::roles(collect(roles), false)?;
        Ok(Self {
            gate: Gate::new(requirement),
        })
    }
}

layer! {
    /// Admits callers who proved themselves afresh not long ago (`auth_time`): for what a stolen
    /// token must not do. The refusal is 403 with
    /// `error="insufficient_user_authentication"` and `max_age` (RFC 9470 section 3); a proof
    /// without `auth_time` is refused.
    RequireFreshLoginLayer
}

impl RequireFreshLoginLayer {
    /// Requires a login at most this long ago.
    pub fn new(max_age: Duration) -> Self {
        Self {
            gate: Gate::new(Requirement::fresh(max_age)),
        }
    }
}

layer! {
    /// Admits callers for whom a predicate of the application holds. The refusal is 403.
    RequireLayer
}

impl RequireLayer {
    /// Requires that `predicate` holds; `reason` is a short fixed name for logs and metrics.
    pub fn new(
        reason: &'static str,
        predicate: impl Fn(&Identity) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self {
            gate: Gate::new(Requirement::holds(reason, predicate)),
        }
    }
}

fn collect<T: Into<Box<str>>>(texts: impl IntoIterator<Item = T>) -> Arc<[Box<str>]> {
    texts.into_iter().map(Into::into).collect()
}
