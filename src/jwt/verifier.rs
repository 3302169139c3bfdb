//! The verifier: from a text to a verified token, without HTTP.

use std::{
    any::TypeId,
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use memchr::memchr;
use serde::de::DeserializeOwned;

use super::{
    base64url,
    cache::{Cache, CacheLimits},
    claims::{self, Registered},
    error::VerifyError,
    header::{Header, TokenKind, TokenTypes},
    json::Json,
    key_set::{KeySet, Keys, Prepared, Slot},
    verified::{Token, Verified},
};
use crate::{error::ConfigError, identity::Identity, time::UnixMillis};

/// What an issuer or an audience is compared with.
///
/// A text stands for itself alone.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Expect {
    /// `None` is any.
    pub(crate) values: Option<Arc<[Box<str>]>>,
}

impl Expect {
    /// One of these, compared exactly.
    pub fn one_of<S: Into<Box<str>>>(values: impl IntoIterator<Item = S>) -> Self {
        Self {
            values: Some(values.into_iter().map(Into::into).collect()),
        }
    }

    /// Any, and none at all.
    ///
    /// For an issuer, only where one issuer alone holds the keys; for an audience, only where
    /// tokens for every service of the issuer may be used here (RFC 8725 sections 3.8 and 3.9).
    #[must_use]
    pub fn anything() -> Self {
        Self { values: None }
    }

    pub(crate) fn is_anything(&self) -> bool {
        self.values.is_none()
    }

    pub(crate) fn accepts(&self, value: &str) -> bool {
        match &self.values {
            None => true,
            Some(accepted) => accepted.iter().any(|name| **name == *value),
        }
    }

    fn check(&self, setting: &'static str) -> Result<(), ConfigError> {
        match &self.values {
            Some(values) if values.is_empty() || values.iter().any(|value| value.is_empty()) => {
                Err(ConfigError::new(setting, "is empty; name who is accepted"))
            }
            _ => Ok(()),
        }
    }
}

impl From<&str> for Expect {
    fn from(value: &str) -> Self {
        Self::one_of([value])
    }
}

impl From<String> for Expect {
    fn from(value: String) -> Self {
        Self::one_of([value])
    }
}

/// Verifies tokens by one policy. A cheap clone.
///
/// See the [module](super) for the rules and an example.
#[derive(Clone)]
#[must_use]
pub struct Verifier {
    config: Arc<Config>,
}

#[derive(Clone)]
pub(crate) struct Config {
    /// Never empty.
    trusts: Vec<Trust>,
    cache: Option<Arc<Cache>>,
    pub(crate) audience: Expect,
    pub(crate) types: TokenTypes,
    pub(crate) leeway: Duration,
    pub(crate) max_age: Option<Duration>,
    pub(crate) max_bytes: usize,
    required: Arc<[&'static str]>,
}

/// An issuer and its keys. A key never counts for another issuer's token (RFC 8725 section 3.8).
#[derive(Clone)]
pub(crate) struct Trust {
    pub(crate) issuer: Expect,
    keys: KeySet,
}

impl Verifier {
    /// Verifies tokens that `issuer` signed with one of `keys` for `audience`.
    ///
    /// # Errors
    /// When the issuer or the audience is empty; either can be opted out of by
    /// [`Expect::anything`].
    pub fn new(
        keys: KeySet,
        issuer: impl Into<Expect>,
        audience: impl Into<Expect>,
    ) -> Result<Self, ConfigError> {
        let (issuer, audience) = (issuer.into(), audience.into());
        issuer.check("issuer")?;
        audience.check("audience")?;
        Ok(Self {
            config: Arc::new(Config {
                trusts: vec![Trust { issuer, keys }],
                cache: None,
                audience,
                types: TokenTypes::default(),
                leeway: Duration::ZERO,
                max_age: None,
                max_bytes: MAX_TOKEN_BYTES,
                required: Arc::default(),
            }),
        })
    }

    /// Accepts tokens of one more issuer, by its own keys. Which issuer a token is held to is told
    /// by its `iss`; subjects of two issuers may be alike, so look at
    /// [`Identity::issuer`](crate::Identity::issuer) too.
    ///
    /// # Errors
    /// When the issuer is empty or any, or one of the verifier's issuers is any or has that name.
    pub fn with_issuer(self, issuer: impl Into<Expect>, keys: KeySet) -> Result<Self, ConfigError> {
        let issuer = issuer.into();
        issuer.check("issuer")?;
        let apart =
            self.config
                .trusts
                .iter()
                .all(|trust| match (&trust.issuer.values, &issuer.values) {
                    (Some(one), Some(other)) => !one.iter().any(|name| other.contains(name)),
                    _ => false,
                });
        if !apart {
            return Err(ConfigError::new(
                "issuer",
                "several issuers are told apart by different names",
            ));
        }
        Ok(self.with(|config| config.trusts.push(Trust { issuer, keys })))
    }

    /// Remembers tokens that were verified, so that the same token costs its signature once.
    ///
    /// A remembered token is held to everything else each time: its times, that its key still
    /// stands in the set, the deny list. Off by default. It belongs to this verifier and its
    /// clones; one that is changed after this starts with an empty one.
    pub fn with_cache(self, limits: CacheLimits) -> Self {
        self.with(|config| config.cache = Some(Arc::new(Cache::new(limits))))
    }

    /// How many tokens are remembered.
    #[must_use]
    pub fn cached(&self) -> usize {
        self.config.cache.as_ref().map_or(0, |cache| cache.len())
    }

    /// Accepts a token for this long after its `exp`. Zero by default.
    ///
    /// # Errors
    /// Above 300 s.
    pub fn with_leeway(self, leeway: Duration) -> Result<Self, ConfigError> {
        if leeway > MAX_LEEWAY {
            return Err(ConfigError::new("leeway", "is at most 300 s"));
        }
        Ok(self.with(|config| config.leeway = leeway))
    }

    /// Which tokens are accepted by their `typ`.
    pub fn with_types(self, types: TokenTypes) -> Self {
        self.with(|config| config.types = types)
    }

    /// Refuses tokens that were made longer ago than this, whatever their `exp` says; `iat` is
    /// then required.
    pub fn with_max_age(self, max_age: Duration) -> Self {
        self.with(|config| config.max_age = Some(max_age))
    }

    /// Refuses tokens without these claims, or with `null` for one. `sub` and `exp` are always
    /// required, `iss` and `aud` unless opted out of. RFC 9068 section 2.2 has issuers write
    /// `iat`, `jti` and `client_id` too.
    pub fn with_required_claims(self, names: impl IntoIterator<Item = &'static str>) -> Self {
        self.with(|config| config.required = names.into_iter().collect())
    }

    /// Reads no token longer than this. 8 KiB by default.
    pub fn with_max_token_bytes(self, bytes: usize) -> Self {
        self.with(|config| config.max_bytes = bytes)
    }

    /// Verifies a token at the time `now`.
    ///
    /// # Errors
    /// [`VerifyError`], with the rule that the token breaks.
    pub fn verify(&self, token: &str, now: UnixMillis) -> Result<Verified, VerifyError> {
        self.verify_as(token, now)
    }

    /// Verifies a token and reads its claims as `C`.
    ///
    /// # Errors
    /// As [`verify`](Self::verify), and when the claims do not fit `C`.
    pub fn verify_as<C>(&self, token: &str, now: UnixMillis) -> Result<Verified<C>, VerifyError>
    where
        C: DeserializeOwned + Send + Sync + 'static,
    {
        match self.recall(token.as_bytes(), now)? {
            Some(known) => Ok(known),
            None => self.verify_anew(token, now),
        }
    }

    /// As [`verify_as`](Self::verify_as), for what may be no text at all.
    pub(crate) fn verify_bytes<C>(
        &self,
        token: &[u8],
        now: UnixMillis,
    ) -> Result<Verified<C>, VerifyError>
    where
        C: DeserializeOwned + Send + Sync + 'static,
    {
        match self.recall(token, now)? {
            Some(known) => Ok(known),
            None => {
                let token = str::from_utf8(token).map_err(|_| VerifyError::Malformed)?;
                self.verify_anew(token, now)
            }
        }
    }

    fn verify_anew<C>(&self, token: &str, now: UnixMillis) -> Result<Verified<C>, VerifyError>
    where
        C: DeserializeOwned + Send + Sync + 'static,
    {
        let config = &*self.config;
        let signed = Jws::split(token, config.max_bytes)?;
        // Of several issuers, the one that is read before the signature chooses the keys and
        // nothing else.
        let only = match config.trusts.as_slice() {
            [only] => Some((only, self.signer(&signed, only, now)?)),
            _ => None,
        };
        let text = signed.payload_text()?;
        let json = Json::object(&text)?;
        let registered = Registered::read(&json)?;
        let (trust, key) = match only {
            Some(only) => only,
            None => {
                let trust = trust_of(&config.trusts, registered.issuer)?;
                (trust, self.signer(&signed, trust, now)?)
            }
        };
        registered.check(config, trust, now)?;
        claims::check_presence(&json, &config.required)?;
        let claims = fill(&json)?;
        let expires_at = registered.expires_at;
        let (issued_at, not_before) = (registered.issued_at, registered.not_before);
        let json_bytes = text.len();
        let mut parts = registered.identity_parts(&text);
        drop(json);
        let escaped = std::mem::replace(&mut parts.text, text);
        parts.text.push_str(&escaped);
        let verified = Verified::new(
            Token {
                identity: Identity::of_parts(parts),
                json_bytes,
                issued_at,
                not_before,
                expires_at,
                algorithm: key.algorithm,
                deny_keys: OnceLock::new(),
            },
            claims,
        );
        if let Some(cache) = &config.cache {
            cache.remember(token, &verified, &key);
        }
        Ok(verified)
    }

    /// The key of an issuer that signed a token of a type that is accepted.
    fn signer(
        &self,
        signed: &Jws<'_>,
        trust: &Trust,
        now: UnixMillis,
    ) -> Result<Arc<Prepared>, VerifyError> {
        let keys = trust.keys.current();
        keys.check(now)?;
        let (slot, kind) = signed.verify(&keys, &trust.keys)?;
        if !self.config.types.accept(kind) {
            return Err(VerifyError::WrongType);
        }
        slot.remember(signed.header, kind);
        Ok(Arc::clone(&slot.key))
    }

    /// A token that was verified before, held to everything but its signature.
    fn recall<C>(&self, token: &[u8], now: UnixMillis) -> Result<Option<Verified<C>>, VerifyError>
    where
        C: Send + Sync + 'static,
    {
        let config = &*self.config;
        let Some(cache) = &config.cache else {
            return Ok(None);
        };
        let still_has = |key: &Arc<Prepared>| {
            let mut trusts = config.trusts.iter();
            trusts.any(|trust| trust.keys.still_has(key, now))
        };
        let Some(verified) = cache.recall::<C>(token, still_has) else {
            return Ok(None);
        };
        let checked = claims::check_time(
            config,
            now,
            verified.expires_at(),
            verified.not_before(),
            verified.issued_at(),
        );
        if let Err(error) = checked {
            cache.forget::<C>(token);
            return Err(error);
        }
        Ok(Some(verified))
    }

    /// The payload of a token whose signature holds, whatever it is: for published vectors, whose
    /// payloads are no claims.
    #[cfg(test)]
    pub(crate) fn verify_jws(&self, token: &str) -> Result<Vec<u8>, VerifyError> {
        let set = &self.config.trusts[0].keys;
        let signed = Jws::split(token, self.config.max_bytes)?;
        signed.verify(&set.current(), set)?;
        signed.payload()
    }

    fn with(mut self, change: impl FnOnce(&mut Config)) -> Self {
        let config = Arc::make_mut(&mut self.config);
        // What was verified by another policy is not known to this one.
        config.cache = config.cache.take().map(|cache| Arc::new(cache.emptied()));
        change(config);
        self
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust")
            .field("issuer", &self.issuer)
            .field("keys", &self.keys)
            .finish()
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("issuers", &self.config.trusts)
            .field("audience", &self.config.audience)
            .finish_non_exhaustive()
    }
}

/// The parts of a compact serialisation (RFC 7515 section 7.1).
struct Jws<'a> {
    header: &'a str,
    payload: &'a str,
    signature: &'a str,
    message: &'a str,
}

impl<'a> Jws<'a> {
    /// Splits a token, before anything of it is decoded.
    fn split(token: &'a str, max_bytes: usize) -> Result<Self, VerifyError> {
        if token.len() > max_bytes {
            return Err(VerifyError::TooLarge);
        }
        let (header, rest) = split_at_dot(token)?;
        // A dot in the signature is none of its characters.
        let (payload, signature) = split_at_dot(rest)?;
        Ok(Self {
            header,
            payload,
            signature,
            message: &token[..header.len() + 1 + payload.len()],
        })
    }

    /// The key whose signature it is.
    fn verify<'k>(
        &self,
        keys: &'k Keys,
        set: &KeySet,
    ) -> Result<(&'k Slot, TokenKind), VerifyError> {
        let mut buffer = [0; MAX_SIGNATURE_BYTES];
        let signature = base64url::decode_into(self.signature, &mut buffer)?;
        let known = keys.recall(self.header);
        if let Some((slot, kind)) = known
            && slot.verify(self.message, signature)
        {
            return Ok((slot, kind));
        }
        let mut header = [0; MAX_HEADER_BYTES];
        let header = base64url::decode_into(self.header, &mut header)?;
        let header = str::from_utf8(header).map_err(|_| VerifyError::Malformed)?;
        let json = Json::object(header)?;
        let header = Header::of(&json)?;
        let candidates = keys
            .candidates(&header)
            .map_err(|lack| set.look_for(&header, lack))?;
        let tried = |slot: &Slot| known.is_some_and(|(other, _)| std::ptr::eq(slot, other));
        candidates
            .iter()
            .filter(|slot| !tried(slot))
            .find(|slot| slot.verify(self.message, signature))
            .map(|slot| (slot, header.kind))
            .ok_or(VerifyError::BadSignature)
    }

    fn payload_text(&self) -> Result<String, VerifyError> {
        String::from_utf8(self.payload()?).map_err(|_| VerifyError::Malformed)
    }

    fn payload(&self) -> Result<Vec<u8>, VerifyError> {
        base64url::decode(self.payload)
    }
}

fn split_at_dot(text: &str) -> Result<(&str, &str), VerifyError> {
    let dot = memchr(b'.', text.as_bytes()).ok_or(VerifyError::Malformed)?;
    Ok((&text[..dot], &text[dot + 1..]))
}

/// Whose token it says that it is.
fn trust_of<'t>(trusts: &'t [Trust], issuer: Option<&str>) -> Result<&'t Trust, VerifyError> {
    let issuer = issuer.ok_or(VerifyError::MissingClaim("iss"))?;
    trusts
        .iter()
        .find(|trust| trust.issuer.accepts(issuer))
        .ok_or(VerifyError::WrongIssuer)
}

fn fill<C: DeserializeOwned + 'static>(json: &Json<'_>) -> Result<C, VerifyError> {
    // `()` is how no type is asked for; serde would fill it from `null` alone.
    let source = if TypeId::of::<C>() == TypeId::of::<()>() {
        &Json::Null
    } else {
        json
    };
    C::deserialize(source).map_err(|unfit| {
        tracing::debug!(target: "portcullis::jwt", %unfit, "claims do not fit their type");
        VerifyError::UnfitClaims
    })
}

const MAX_TOKEN_BYTES: usize = 8 * 1024;
const MAX_HEADER_BYTES: usize = 1024;
/// That of an RSA key of 8192 bits.
const MAX_SIGNATURE_BYTES: usize = 1024;
const MAX_LEEWAY: Duration = Duration::from_secs(300);
