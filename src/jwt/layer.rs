//! The layer.

use std::{fmt, marker::PhantomData, sync::Arc};

use serde::de::DeserializeOwned;
use tower_layer::Layer;

use super::{
    authenticate::{Authenticate, Grant},
    challenge::Challenges,
    service::Jwt,
    source::{self, CredentialError, TokenSource},
    verified::Verified,
    verifier::Verifier,
};
use crate::{
    challenge::Challenge, context::Context, deny_list::DenyList, error::ConfigError, head::Head,
    identity::Identity, rejection::Rejection,
};

/// Admits requests whose access token holds. See the [module](super) for the rules.
///
/// `C` is the application's type of claims; `()`, which [`new`](Self::new) starts with, reads none.
#[must_use]
pub struct JwtLayer<C = ()> {
    config: Arc<Config>,
    claims: PhantomData<fn() -> C>,
}

#[derive(Clone)]
struct Config {
    verifier: Verifier,
    context: Context,
    deny_list: Option<DenyList>,
    mode: Mode,
    challenges: Challenges,
    sources: Arc<[TokenSource]>,
    remove_token: bool,
    only_if: Option<fn(Head<'_>) -> bool>,
}

/// What becomes of a request that is not authenticated.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Mode {
    /// It is refused.
    #[default]
    Required,
    /// Without a token it goes on; with one that does not hold it is refused.
    Optional,
    /// It goes on, with the reason as [`Failure`](super::Failure) in its extensions.
    Recorded,
}

impl JwtLayer {
    /// Requires a token that `verifier` accepts.
    pub fn new(verifier: Verifier) -> Self {
        Self {
            config: Arc::new(Config {
                verifier,
                context: Context::new(),
                deny_list: None,
                mode: Mode::default(),
                challenges: Challenges::of(Challenge::default()),
                sources: Arc::new([TokenSource::bearer()]),
                remove_token: false,
                only_if: None,
            }),
            claims: PhantomData,
        }
    }
}

impl<C> JwtLayer<C> {
    /// Reads the claims as `D`: handlers find [`Claims<D>`](super::Claims). A token whose claims
    /// do not fit is refused.
    pub fn claims<D>(self) -> JwtLayer<D>
    where
        D: DeserializeOwned + Send + Sync + 'static,
    {
        JwtLayer {
            config: self.config,
            claims: PhantomData,
        }
    }

    /// Refuses tokens that the list denies (401), and every token until the list is filled (503).
    pub fn with_deny_list(self, deny_list: DenyList) -> Self {
        self.with(|config| config.deny_list = Some(deny_list))
    }

    /// What becomes of a request that is not authenticated.
    pub fn with_mode(self, mode: Mode) -> Self {
        self.with(|config| config.mode = mode)
    }

    /// Where a request may carry its token: in one of these places and no other.
    ///
    /// # Errors
    /// When there is none.
    pub fn with_sources(
        self,
        sources: impl IntoIterator<Item = TokenSource>,
    ) -> Result<Self, ConfigError> {
        let sources: Arc<[_]> = sources.into_iter().collect();
        if sources.is_empty() {
            return Err(ConfigError::new("sources", "needs at least one place"));
        }
        Ok(self.with(|config| config.sources = sources))
    }

    /// Takes the token out of the request, so that nothing behind the gate can pass it on or log
    /// it. What a [custom](TokenSource::custom) source found stays.
    pub fn with_token_removed(self) -> Self {
        self.with(|config| config.remove_token = true)
    }

    /// Names the realm in the challenges.
    ///
    /// # Errors
    /// When it is empty or does not fit a quoted string.
    pub fn with_realm(self, realm: &str) -> Result<Self, ConfigError> {
        let common = self.config.challenges.common().with_realm(realm)?;
        Ok(self.with_challenge(common))
    }

    /// Names the scopes that a client should ask for in the challenges, separated by spaces.
    ///
    /// # Errors
    /// When it is empty or does not fit a quoted string.
    pub fn with_scope_hint(self, scope: &str) -> Result<Self, ConfigError> {
        let common = self.config.challenges.common().with("scope", scope)?;
        Ok(self.with_challenge(common))
    }

    /// Names the URL of the protected resource's metadata in the challenges (RFC 9728 section 5.1).
    ///
    /// # Errors
    /// When it is no `https` URL, or does not fit a quoted string.
    pub fn with_resource_metadata(self, url: &str) -> Result<Self, ConfigError> {
        let challenges = &self.config.challenges;
        let common = challenges.common().with_resource_metadata(url)?;
        Ok(self.with_challenge(common))
    }

    /// Shares a clock, events and the look of refusals with other gates.
    pub fn with_context(self, context: Context) -> Self {
        self.with(|config| config.context = context)
    }

    /// Looks only at requests for which this holds; others go on untouched.
    pub fn only_if(self, only_if: fn(Head<'_>) -> bool) -> Self {
        self.with(|config| config.only_if = Some(only_if))
    }

    fn with_challenge(self, common: Challenge) -> Self {
        self.with(|config| config.challenges = Challenges::of(common))
    }

    pub(crate) fn context(&self) -> &Context {
        &self.config.context
    }

    fn removed(&self) -> Option<Arc<[TokenSource]>> {
        self.config
            .remove_token
            .then(|| Arc::clone(&self.config.sources))
    }

    fn with(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(Arc::make_mut(&mut self.config));
        self
    }
}

impl<C> Authenticate for JwtLayer<C>
where
    C: DeserializeOwned + Send + Sync + 'static,
{
    fn authenticate(&self, head: Head<'_>) -> Result<Option<Grant>, Rejection> {
        let config = &*self.config;
        if config.only_if.is_some_and(|applies| !applies(head)) {
            return Ok(None);
        }
        // A gate further out has proved who it is.
        if head.extensions.get::<Identity>().is_some() {
            return Ok(None);
        }
        let rejection = match self.verified(head) {
            Ok(Some(verified)) => {
                let grant = Grant::verified(verified.into_inner());
                return Ok(Some(grant.removing(self.removed())));
            }
            Ok(None) if config.mode == Mode::Optional => return Ok(None),
            Ok(None) => config.challenges.missing(),
            Err(rejection) => rejection,
        };
        if config.mode == Mode::Recorded {
            config.context.report(head, &rejection);
            return Ok(Some(Grant::failed(rejection).removing(self.removed())));
        }
        Err(rejection)
    }

    fn challenge(&self) -> &Challenge {
        self.config.challenges.common()
    }

    fn cookies(&self) -> Vec<&str> {
        let sources = self.config.sources.iter();
        sources.filter_map(TokenSource::as_cookie).collect()
    }
}

impl<C> JwtLayer<C>
where
    C: DeserializeOwned + Send + Sync + 'static,
{
    /// The request's token, if one came.
    fn verified(&self, head: Head<'_>) -> Result<Option<Verified<C>>, Rejection> {
        let config = &*self.config;
        let found = source::find(&config.sources, head);
        let Some(token) = found.map_err(|error| config.challenges.credentials(error))? else {
            return Ok(None);
        };
        let verified = config
            .verifier
            .verify_bytes::<C>(&token, config.context.wall())
            .map_err(|error| {
                if source::is_b64token(&token) {
                    config.challenges.refused(error)
                } else {
                    config.challenges.credentials(CredentialError::Malformed)
                }
            })?;
        if let Some(deny_list) = &config.deny_list {
            // A token that does not say when it was made is older than any denial.
            let issued_at = verified.issued_at().map_or(i64::MIN, |at| at.as_secs());
            deny_list
                .check(verified.token().deny_keys(), issued_at)
                .map_err(|denied| config.challenges.denied(denied))?;
        }
        Ok(Some(verified))
    }
}

impl<C> Clone for JwtLayer<C> {
    fn clone(&self) -> Self {
        Self {
            config: Arc::clone(&self.config),
            claims: PhantomData,
        }
    }
}

impl<C> fmt::Debug for JwtLayer<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtLayer")
            .field("verifier", &self.config.verifier)
            .field("mode", &self.config.mode)
            .finish_non_exhaustive()
    }
}

impl<S, C> Layer<S> for JwtLayer<C> {
    type Service = Jwt<S, C>;

    fn layer(&self, inner: S) -> Jwt<S, C> {
        Jwt::new(inner, self.clone())
    }
}
