//! The layer.

use std::{fmt, sync::Arc};

use http::{
    HeaderMap, HeaderName, HeaderValue, Request,
    header::{AUTHORIZATION, WWW_AUTHENTICATE},
};
use tower_layer::Layer;

use super::{
    error::GATE,
    keys::{ApiKeys, Checked, UsedKey},
    service::ApiKeyGate,
};
use crate::{
    client::Client,
    context::Context,
    head::Head,
    identity::Identity,
    rejection::{Rejection, RejectionKind},
};

/// Admits requests that carry an API key. See the [module](super) for the rules.
#[derive(Clone)]
#[must_use]
pub struct ApiKeyLayer {
    config: Arc<Config>,
}

#[derive(Clone)]
struct Config {
    keys: ApiKeys,
    context: Context,
    is_optional: bool,
    remove_key: bool,
    only_if: Option<fn(Head<'_>) -> bool>,
}

impl ApiKeyLayer {
    /// Requires one of these keys, or an [`Identity`] from a gate further out.
    pub fn new(keys: ApiKeys) -> Self {
        Self {
            config: Arc::new(Config {
                keys,
                context: Context::new(),
                is_optional: false,
                remove_key: false,
                only_if: None,
            }),
        }
    }

    /// Lets requests without a key go on, to a gate further in that wants a token, say. A key that
    /// does not hold is refused all the same.
    pub fn optional(self) -> Self {
        self.with(|config| config.is_optional = true)
    }

    /// Takes the key out of the request, so that nothing behind the gate can pass it on or log it.
    pub fn with_key_removed(self) -> Self {
        self.with(|config| config.remove_key = true)
    }

    /// Shares a clock, events and the look of refusals with other gates.
    pub fn with_context(self, context: Context) -> Self {
        self.with(|config| {
            config.keys = config.keys.clone().with_context(context.clone());
            config.context = context;
        })
    }

    /// Looks only at requests for which this holds; others go on untouched.
    pub fn only_if(self, only_if: fn(Head<'_>) -> bool) -> Self {
        self.with(|config| config.only_if = Some(only_if))
    }

    pub(super) fn context(&self) -> &Context {
        &self.config.context
    }

    pub(super) fn keys(&self) -> &ApiKeys {
        &self.config.keys
    }

    /// All that the head decides: nothing to do, a key that is known, or one to ask the store for.
    pub(super) fn decide(&self, head: Head<'_>) -> Result<Option<Checked>, Rejection> {
        let config = &*self.config;
        if config.only_if.is_some_and(|applies| !applies(head)) {
            return Ok(None);
        }
        // A gate further out has proved who it is.
        if head.extensions.get::<Identity>().is_some() {
            return Ok(None);
        }
        let Some(key) = self.key(head.headers)? else {
            if config.is_optional {
                return Ok(None);
            }
            let rejection = Rejection::new(RejectionKind::Unauthenticated, GATE, "missing");
            return Err(rejection.with_header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")));
        };
        let client = Client::of(head).and_then(|client| client.ip());
        Ok(Some(config.keys.check(key, client)?))
    }

    /// Leaves with the request what the gate found.
    pub(super) fn insert<A>(&self, key: UsedKey, request: &mut Request<A>) {
        let headers = request.headers_mut();
        if self.config.remove_key {
            headers.remove(X_API_KEY);
            if bearer(headers).any(|text| self.config.keys.claims(text)) {
                headers.remove(AUTHORIZATION);
            }
        }
        let extensions = request.extensions_mut();
        extensions.insert(key.identity().clone());
        extensions.insert(key);
    }

    /// The one key of a request. Another credential beside it makes the request ambiguous: gates
    /// and services behind this one could take either.
    fn key<'a>(&self, headers: &'a HeaderMap) -> Result<Option<&'a [u8]>, Rejection> {
        let mut own = headers.get_all(X_API_KEY).iter();
        let claimed = |text: &&[u8]| self.config.keys.claims(text);
        let (first, second) = (own.next(), own.next());
        match (first, bearer(headers).find(claimed)) {
            (None, None) => Ok(None),
            (Some(own), None) if second.is_none() && !headers.contains_key(AUTHORIZATION) => {
                Ok(Some(own.as_bytes()))
            }
            (None, Some(bearer)) if headers.get_all(AUTHORIZATION).iter().nth(1).is_none() => {
                Ok(Some(bearer))
            }
            _ => Err(
                Rejection::new(RejectionKind::BadRequest, GATE, "several_credentials")
                    .with_header(WWW_AUTHENTICATE, INVALID_REQUEST),
            ),
        }
    }

    fn with(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(Arc::make_mut(&mut self.config));
        self
    }
}

/// What stands behind `Bearer` (RFC 6750 section 2.1; the scheme's case does not matter).
fn bearer(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers
        .get_all(AUTHORIZATION)
        .into_iter()
        .filter_map(|value| {
            let (scheme, rest) = value.as_bytes().split_at_checked(BEARER.len())?;
            scheme
                .eq_ignore_ascii_case(BEARER)
                .then(|| rest.trim_ascii())
        })
}

impl fmt::Debug for ApiKeyLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKeyLayer")
            .field("keys", &self.config.keys)
            .field("is_optional", &self.config.is_optional)
            .finish_non_exhaustive()
    }
}

impl<S> Layer<S> for ApiKeyLayer {
    type Service = ApiKeyGate<S>;

    fn layer(&self, inner: S) -> ApiKeyGate<S> {
        ApiKeyGate::new(inner, self.clone())
    }
}

const BEARER: &[u8] = b"Bearer ";
const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const INVALID_REQUEST: HeaderValue = HeaderValue::from_static("Bearer error=\"invalid_request\"");
