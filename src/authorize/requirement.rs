//! What a caller must be to be let through.

use std::{fmt, sync::Arc, time::Duration};

use http::{HeaderValue, header::WWW_AUTHENTICATE};

use crate::{
    challenge::Challenge,
    error::ConfigError,
    head::Head,
    identity::{Identity, nobody_challenged},
    rejection::{Rejection, RejectionKind},
    time::UnixMillis,
};

/// A rule over the request's [`Identity`].
#[derive(Clone)]
pub(crate) struct Requirement {
    rule: Rule,
    reason: &'static str,
    /// What a caller who lacks it is told, where there is a code for that.
    error: Option<Challenge>,
}

#[derive(Clone)]
enum Rule {
    AllScopes(Arc<[Box<str>]>),
    AnyScope(Arc<[Box<str>]>),
    AllRoles(Arc<[Box<str>]>),
    AnyRole(Arc<[Box<str>]>),
    Fresh(Duration),
    Holds(Arc<dyn Fn(&Identity) -> bool + Send + Sync>),
}

impl Requirement {
    /// # Errors
    /// When there is no scope, or one is not a scope.
    pub(crate) fn all_scopes(scopes: Arc<[Box<str>]>) -> Result<Self, ConfigError> {
        Ok(Self {
            error: Some(insufficient_scope(&scopes)?),
            rule: Rule::AllScopes(scopes),
            reason: "insufficient_scope",
        })
    }

    /// # Errors
    /// As [`all_scopes`](Self::all_scopes).
    pub(crate) fn any_scope(scopes: Arc<[Box<str>]>) -> Result<Self, ConfigError> {
        Ok(Self {
            error: Some(insufficient_scope(&scopes)?),
            rule: Rule::AnyScope(scopes),
            reason: "insufficient_scope",
        })
    }

    /// # Errors
    /// When there is no role, or one is empty.
    pub(crate) fn roles(roles: Arc<[Box<str>]>, all: bool) -> Result<Self, ConfigError> {
        if roles.is_empty() || roles.iter().any(|role| role.is_empty()) {
            return Err(ConfigError::new(
                "role",
                "needs at least one, and no empty one",
            ));
        }
        Ok(Self {
            rule: if all {
                Rule::AllRoles(roles)
            } else {
                Rule::AnyRole(roles)
            },
            reason: "insufficient_role",
            error: None,
        })
    }

    pub(crate) fn fresh(max_age: Duration) -> Self {
        // RFC 9470 section 3 names the error; the status is 403, since the token itself holds.
        let error = Challenge::error("insufficient_user_authentication");
        Self {
            rule: Rule::Fresh(max_age),
            reason: "login_too_old",
            error: error.with("max_age", &max_age.as_secs().to_string()).ok(),
        }
    }

    pub(crate) fn holds(
        reason: &'static str,
        predicate: impl Fn(&Identity) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self {
            rule: Rule::Holds(Arc::new(predicate)),
            reason,
            error: None,
        }
    }

    /// What refusals are challenged with where each of them names what `common` does.
    pub(crate) fn challenges(&self, common: &Challenge) -> Challenges {
        Challenges {
            nobody: common.field(),
            lacking: self
                .error
                .as_ref()
                .map(|error| common.followed_by(error).field()),
        }
    }

    /// Whether the request's caller may go on. A request that nobody vouches for is 401.
    pub(crate) fn decide(
        &self,
        head: Head<'_>,
        now: UnixMillis,
        challenges: &Challenges,
    ) -> Result<(), Rejection> {
        let Some(identity) = head.extensions.get::<Identity>() else {
            return Err(nobody_challenged(challenges.nobody.clone()));
        };
        if self.rule.admits(identity, now) {
            return Ok(());
        }
        let rejection = Rejection::new(RejectionKind::Forbidden, "authorize", self.reason);
        Err(match &challenges.lacking {
            Some(challenge) => rejection.with_header(WWW_AUTHENTICATE, challenge.clone()),
            None => rejection,
        })
    }
}

/// The finished challenges of a requirement.
#[derive(Clone, Debug)]
pub(crate) struct Challenges {
    nobody: HeaderValue,
    lacking: Option<HeaderValue>,
}

impl Rule {
    fn admits(&self, identity: &Identity, now: UnixMillis) -> bool {
        match self {
            Self::AllScopes(scopes) => scopes.iter().all(|scope| identity.has_scope(scope)),
            Self::AnyScope(scopes) => scopes.iter().any(|scope| identity.has_scope(scope)),
            Self::AllRoles(roles) => roles.iter().all(|role| identity.has_role(role)),
            Self::AnyRole(roles) => roles.iter().any(|role| identity.has_role(role)),
            // A proof that does not say when the caller proved himself is not a fresh one.
            Self::Fresh(max_age) => identity
                .auth_time()
                .is_some_and(|at| now <= at.saturating_add(*max_age)),
            Self::Holds(predicate) => predicate(identity),
        }
    }
}

impl fmt::Debug for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.rule {
            Rule::AllScopes(scopes) => f.debug_tuple("AllScopes").field(scopes).finish(),
            Rule::AnyScope(scopes) => f.debug_tuple("AnyScope").field(scopes).finish(),
            Rule::AllRoles(roles) => f.debug_tuple("AllRoles").field(roles).finish(),
            Rule::AnyRole(roles) => f.debug_tuple("AnyRole").field(roles).finish(),
            Rule::Fresh(max_age) => f.debug_tuple("Fresh").field(max_age).finish(),
            Rule::Holds(_) => f.debug_tuple("Holds").field(&self.reason).finish(),
        }
    }
}

/// The error of RFC 6750 section 3.1, with the scopes that would do.
fn insufficient_scope(scopes: &[Box<str>]) -> Result<Challenge, ConfigError> {
    // RFC 6749 section 3.3: what a scope is made of.
    let is_scope = |scope: &str| {
        !scope.is_empty()
            && scope
                .bytes()
                .all(|byte| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e))
    };
    if scopes.is_empty() || !scopes.iter().all(|scope| is_scope(scope)) {
        return Err(ConfigError::new(
            "scope",
            "needs at least one, of visible ASCII without quotes, backslashes and spaces",
        ));
    }
    Challenge::error("insufficient_scope").with("scope", &scopes.join(" "))
}
