//! Making, checking, rotating and revoking keys.

use std::{fmt, net::IpAddr, ops::Deref, sync::Arc, time::Duration};

use super::{
    cache::{Cache, Uses},
    error::{ApiKeyError, GATE},
    format::{ApiKey, ApiKeyDigest, ApiKeyId, Format, Presented},
    record::{ApiKeyRecord, StoredKey},
    store::{ApiKeyStore, CreateOutcome, Erased, KeyRotation, RotateOutcome},
};
use crate::{
    client::Prefix,
    context::Context,
    deny_list::{DenyKeys, DenyList},
    error::ConfigError,
    event::{EventKind, SecurityEvent},
    identity::{Identity, IdentityKind},
    store_error::StoreError,
    time::UnixMillis,
};

/// The API keys of one environment. A cheap clone. See the [module](super) for the rules.
#[derive(Clone)]
#[must_use]
pub struct ApiKeys {
    format: Format,
    ttl: Duration,
    most: usize,
    fresh_login: Duration,
    cached_for: Duration,
    deny_list: Option<DenyList>,
    context: Context,
    shared: Arc<Shared>,
}

struct Shared {
    store: Box<dyn Erased>,
    cache: Cache,
    uses: Uses,
}

impl ApiKeys {
    /// Keys that begin with `pk_<environment>_`, for 90 days, at most 25 live ones a user.
    ///
    /// # Errors
    /// When the environment is not 1 to 16 of `a-z` and `0-9`.
    pub fn new(store: impl ApiKeyStore, environment: &str) -> Result<Self, ConfigError> {
        Ok(Self {
            format: Format::new("pk", environment)?,
            ttl: TTL,
            most: MOST,
            fresh_login: FRESH_LOGIN,
            cached_for: CACHED_FOR,
            deny_list: None,
            context: Context::new(),
            shared: Arc::new(Shared {
                store: Box::new(store),
                cache: Cache::default(),
                uses: Uses::default(),
            }),
        })
    }

    /// Begins keys with `brand` instead of `pk`; with a name of its own a leaked key is found by
    /// scanners and told from other firms'.
    ///
    /// # Errors
    /// When it is not 1 to 16 of `a-z` and `0-9`.
    pub fn with_brand(self, brand: &str) -> Result<Self, ConfigError> {
        let format = Format::new(brand, self.format.environment())?;
        Ok(Self { format, ..self })
    }

    /// Gives new keys another life.
    ///
    /// # Errors
    /// When it is not a minute to 366 days.
    pub fn with_ttl(self, ttl: Duration) -> Result<Self, ConfigError> {
        if !(MIN_TTL..=MAX_TTL).contains(&ttl) {
            return Err(ConfigError::new(
                "API key life",
                "must be 1 min to 366 days",
            ));
        }
        Ok(Self { ttl, ..self })
    }

    /// Lets a user have `most` live keys, and as many that were replaced and have not ended.
    ///
    /// # Errors
    /// When it is not 1 to 1,000.
    pub fn with_max_keys(self, most: usize) -> Result<Self, ConfigError> {
        if !(1..=1_000).contains(&most) {
            return Err(ConfigError::new("API keys of a user", "must be 1 to 1000"));
        }
        Ok(Self { most, ..self })
    }

    /// Makes keys only for users who logged in at most `age` ago, instead of 15 minutes.
    pub fn with_fresh_login(self, age: Duration) -> Self {
        Self {
            fresh_login: age,
            ..self
        }
    }

    /// Remembers a key that verified for `span`, instead of 30 s, so that the store is not asked
    /// for every request; zero asks it every time. A key that is revoked through this handle or a
    /// clone is forgotten at once; through another process, after `span` at the latest, or as soon
    /// as the [deny list](Self::with_deny_list) holds its id.
    ///
    /// # Errors
    /// When it is over 5 minutes.
    pub fn with_cache(self, span: Duration) -> Result<Self, ConfigError> {
        if span > MAX_CACHED_FOR {
            return Err(ConfigError::new("API key cache", "must be at most 5 min"));
        }
        Ok(Self {
            cached_for: span,
            ..self
        })
    }

    /// Puts the ids of revoked and replaced keys into a deny list, and asks the store for a key that
    /// stands in it: how a revocation reaches other instances, by
    /// [`DenyFeed`](https://docs.rs/portcullis/latest/portcullis/deny_feed/struct.DenyFeed.html).
    /// While the list does not answer, the store is asked every time.
    pub fn with_deny_list(self, deny_list: DenyList) -> Self {
        Self {
            deny_list: Some(deny_list),
            ..self
        }
    }

    /// Takes time from, and sends events through, a service's [`Context`].
    pub fn with_context(self, context: Context) -> Self {
        Self { context, ..self }
    }

    /// Makes a key for `owner`, who must have logged in a short while ago; a key makes no keys.
    ///
    /// # Errors
    /// [`LoginTooOld`](ApiKeyError::LoginTooOld), [`Scope`](ApiKeyError::Scope),
    /// [`Unusable`](ApiKeyError::Unusable), [`TooMany`](ApiKeyError::TooMany) or
    /// [`Store`](ApiKeyError::Store).
    pub async fn create(&self, owner: &Identity, key: NewApiKey) -> Result<MintedKey, ApiKeyError> {
        self.check_maker(owner)?;
        let record = self.record(owner, key)?;
        let (minted, stored) = self.mint(record);
        match self.shared.store.create_(stored, self.most).await {
            Ok(CreateOutcome::Created) => {}
            Ok(CreateOutcome::TooMany) => return Err(ApiKeyError::TooMany),
            Err(error) => return Err(self.failed(error)),
        }
        self.tell(EventKind::ApiKeyCreated, owner, "created");
        Ok(minted)
    }

    /// Makes a key that takes the place of `old`, with its name, scopes, networks and limit. The
    /// old one works for `overlap` more, but never past its own end.
    ///
    /// # Errors
    /// As for [`create`](Self::create); [`NotFound`](ApiKeyError::NotFound) when the owner has no
    /// such live key or it was rotated before, [`Unusable`](ApiKeyError::Unusable) when the overlap
    /// is over 7 days.
    pub async fn rotate(
        &self,
        owner: &Identity,
        old: ApiKeyId,
        overlap: Duration,
    ) -> Result<MintedKey, ApiKeyError> {
        self.check_maker(owner)?;
        if overlap > MAX_OVERLAP {
            return Err(ApiKeyError::Unusable);
        }
        let found = self.shared.store.get_(old).await;
        let found = found.map_err(|error| self.failed(error))?;
        let found = found.filter(|key| key.record.subject == owner.subject());
        let record = found.ok_or(ApiKeyError::NotFound)?.record;
        let now = self.context.wall();
        let (minted, new) = self.mint(ApiKeyRecord {
            created_at: now,
            expires_at: now.saturating_add(self.ttl),
            last_used_at: None,
            replaces: Some(old),
            is_replaced: false,
            revoked_at: None,
            ..record
        });
        let rotation = KeyRotation {
            old,
            old_end: now.saturating_add(overlap),
            new,
            most: self.most,
        };
        match self.shared.store.rotate_(rotation).await {
            Ok(RotateOutcome::Rotated) => {}
            Ok(RotateOutcome::NotFound) => return Err(ApiKeyError::NotFound),
            Ok(RotateOutcome::TooMany) => return Err(ApiKeyError::TooMany),
            Err(error) => return Err(self.failed(error)),
        }
        // It may end sooner than what is remembered of it.
        self.forget(old);
        self.tell(EventKind::ApiKeyRotated, owner, "rotated");
        Ok(minted)
    }

    /// Ends a key of `owner` at once.
    ///
    /// # Errors
    /// [`NotFound`](ApiKeyError::NotFound) when he has no such live key, or
    /// [`Store`](ApiKeyError::Store).
    pub async fn revoke(&self, owner: &Identity, id: ApiKeyId) -> Result<(), ApiKeyError> {
        let now = self.context.wall();
        let revoked = self.shared.store.revoke_(id, owner.subject(), now).await;
        match revoked {
            // Whose key it is not must not fill the deny list.
            Ok(false) => self.shared.cache.remove(id),
            // Also where the store cannot say whether it did.
            Ok(true) | Err(_) => self.forget(id),
        }
        match revoked {
            Ok(true) => {}
            Ok(false) => return Err(ApiKeyError::NotFound),
            Err(error) => return Err(self.failed(error)),
        }
        self.tell(EventKind::ApiKeyRevoked, owner, "revoked");
        Ok(())
    }

    /// Ends all keys of a user at once, as when his account is closed; how many there were.
    ///
    /// # Errors
    /// [`Store`](ApiKeyError::Store).
    pub async fn revoke_all(&self, subject: &str) -> Result<usize, ApiKeyError> {
        let now = self.context.wall();
        let revoked = self.shared.store.revoke_subject_(subject, now).await;
        let revoked = revoked.map_err(|error| self.failed(error))?;
        for id in &revoked {
            self.forget(*id);
        }
        let event = SecurityEvent::new(EventKind::ApiKeyRevoked).with_subject(subject);
        self.context.emit(event.with_rule(GATE, "all_revoked"));
        Ok(revoked.len())
    }

    /// Tells the deny list which keys were revoked or replaced at `since` or later, by whomever.
    #[cfg(all(feature = "jwt", feature = "refresh-token"))]
    pub(crate) async fn learn_ends(&self, since: UnixMillis) -> Result<(), StoreError> {
        let Some(deny_list) = &self.deny_list else {
            return Ok(());
        };
        for id in self.shared.store.ended_since_(since).await? {
            deny_list.learn(&crate::deny_list::Denial::Token(id.as_str().to_owned()));
        }
        Ok(())
    }

    /// The live keys of a user, the latest made first.
    ///
    /// # Errors
    /// [`Store`](ApiKeyError::Store).
    pub async fn list(&self, subject: &str) -> Result<Vec<ApiKeyRecord>, ApiKeyError> {
        let now = self.context.wall();
        let keys = self.shared.store.list_(subject, now, 2 * self.most).await;
        let mut keys = keys.map_err(|error| self.failed(error))?;
        for key in &mut keys {
            key.last_used_at = key.last_used_at.max(self.shared.uses.of(key.id));
        }
        Ok(keys)
    }

    /// Whether a text is a key that works now, from `client`. For what is no HTTP request; requests
    /// go through [`ApiKeyLayer`](super::ApiKeyLayer).
    ///
    /// # Errors
    /// Why it is not.
    pub async fn verify(&self, text: &str, client: Option<IpAddr>) -> Result<UsedKey, ApiKeyError> {
        match self.check(text.as_bytes(), client)? {
            Checked::Known(key) => Ok(key),
            Checked::Ask(presented) => self.ask(presented, client).await,
        }
    }

    /// Tells the store when keys were last used. It is told once a minute while keys are in use;
    /// before the process ends, call this.
    ///
    /// # Errors
    /// [`Store`](ApiKeyError::Store); what it was not told is kept.
    pub async fn flush(&self) -> Result<(), ApiKeyError> {
        let used = self.shared.uses.take();
        self.shared
            .touch(used)
            .await
            .map_err(|error| self.failed(error))
    }

    /// Clears away at most `limit` keys that ended `keep` ago or earlier; how many there were. To
    /// be called now and then.
    ///
    /// # Errors
    /// [`Store`](ApiKeyError::Store).
    pub async fn delete_expired(&self, keep: Duration, limit: usize) -> Result<u64, ApiKeyError> {
        let before = self.context.wall().saturating_sub(keep);
        let cleared = self.shared.store.delete_expired_(before, limit).await;
        cleared.map_err(|error| self.failed(error))
    }

    /// Whether the store answers.
    ///
    /// # Errors
    /// [`Store`](ApiKeyError::Store).
    pub async fn health(&self) -> Result<(), ApiKeyError> {
        Ok(self.shared.store.health_().await?)
    }

    /// Whether a text is for this gate, well-formed or not.
    pub(super) fn claims(&self, text: &[u8]) -> bool {
        self.format.claims(text)
    }

    /// All that can be said of a key without the store.
    pub(super) fn check(
        &self,
        text: &[u8],
        client: Option<IpAddr>,
    ) -> Result<Checked, ApiKeyError> {
        let presented = self.format.parse(text).map_err(ApiKeyError::NotAKey)?;
        let cached = self.shared.cache.get(&presented, self.context.monotonic());
        match cached.filter(|key| !self.is_denied(key)) {
            Some(key) => self.admit(key, client).map(Checked::Known),
            None => Ok(Checked::Ask(presented)),
        }
    }

    /// The rest, with the store.
    pub(super) async fn ask(
        &self,
        presented: Presented,
        client: Option<IpAddr>,
    ) -> Result<UsedKey, ApiKeyError> {
        let Shared { store, cache, uses } = &*self.shared;
        let asked = cache.asked();
        let found = store.get_(presented.id).await;
        let found = found.map_err(|error| self.failed(error))?;
        // The digest is compared with something whether or not there is a key.
        let stored = found.as_ref().map_or(NOBODYS, |key| key.digest);
        let is_right = stored == presented.digest;
        let found = found.filter(|_| is_right).ok_or(ApiKeyError::Unknown)?;
        let key = UsedKey::new(found.record);
        let admitted = self.admit(key.clone(), client)?;
        if key.is_replaced && uses.is_first_after_replacement(key.id) {
            let event = SecurityEvent::new(EventKind::ApiKeyUsedAfterRotation);
            let event = event.with_client(client).with_subject(key.subject.as_str());
            self.context.emit(event.with_rule(GATE, "replaced"));
        }
        cache.put(
            presented,
            key,
            asked,
            self.context.monotonic(),
            self.cached_for,
        );
        Ok(admitted)
    }

    /// What is looked at on every use.
    fn admit(&self, key: UsedKey, client: Option<IpAddr>) -> Result<UsedKey, ApiKeyError> {
        let now = self.context.wall();
        if key.revoked_at.is_some() {
            return Err(ApiKeyError::Revoked);
        }
        if now >= key.expires_at {
            return Err(ApiKeyError::Expired);
        }
        let mut networks = key.networks.iter();
        let is_near = client.is_some_and(|ip| networks.any(|network| network.contains(ip)));
        if !key.networks.is_empty() && !is_near {
            return Err(ApiKeyError::Network);
        }
        let due = self.shared.uses.note(key.id, now, self.context.monotonic());
        if let (Some(used), Ok(runtime)) = (due, tokio::runtime::Handle::try_current()) {
            let shared = Arc::clone(&self.shared);
            runtime.spawn(async move {
                if shared.touch(used).await.is_err() {
                    tracing::debug!("the uses of API keys were not stored");
                }
            });
        }
        Ok(key)
    }

    fn is_denied(&self, key: &UsedKey) -> bool {
        let denied = |deny_list: &DenyList| {
            let keys = DenyKeys::new(&key.subject).with_token(key.id.as_str());
            deny_list.check(&keys, i64::MAX).is_err()
        };
        self.deny_list.as_ref().is_some_and(denied)
    }

    fn forget(&self, id: ApiKeyId) {
        self.shared.cache.remove(id);
        if let Some(deny_list) = &self.deny_list {
            deny_list.deny_token(id.as_str());
        }
    }

    fn check_maker(&self, maker: &Identity) -> Result<(), ApiKeyError> {
        let now = self.context.wall();
        let fresh = |at| now <= UnixMillis::saturating_add(at, self.fresh_login);
        match maker.kind() != IdentityKind::ApiKey && maker.auth_time().is_some_and(fresh) {
            true => Ok(()),
            false => Err(ApiKeyError::LoginTooOld),
        }
    }

    fn record(&self, owner: &Identity, key: NewApiKey) -> Result<ApiKeyRecord, ApiKeyError> {
        let is_name = (1..=MAX_NAME).contains(&key.name.chars().count())
            && !key.name.chars().any(char::is_control);
        let ttl = key.ttl.unwrap_or(self.ttl);
        let scopes = match key.scopes {
            Some(scopes) => scopes,
            None => owner.scopes().map(Into::into).collect(),
        };
        let is_scope = |scope: &String| {
            !scope.is_empty()
                && scope.len() <= MAX_SCOPE
                && scope
                    .bytes()
                    .all(|byte| matches!(byte, b'!' | b'#'..=b'[' | b']'..=b'~'))
        };
        if !is_name
            || !(MIN_TTL..=self.ttl).contains(&ttl)
            || scopes.len() > MAX_SCOPES
            || !scopes.iter().all(is_scope)
            || key.networks.len() > MAX_NETWORKS
        {
            return Err(ApiKeyError::Unusable);
        }
        if !scopes.iter().all(|scope| owner.has_scope(scope)) {
            return Err(ApiKeyError::Scope);
        }
        let now = self.context.wall();
        Ok(ApiKeyRecord {
            id: ApiKeyId::generate(),
            subject: owner.subject().into(),
            name: key.name,
            scopes,
            networks: key.networks,
            limit: key.limit,
            created_at: now,
            expires_at: now.saturating_add(ttl),
            last_used_at: None,
            replaces: None,
            is_replaced: false,
            revoked_at: None,
        })
    }

    fn mint(&self, record: ApiKeyRecord) -> (MintedKey, StoredKey) {
        let (key, Presented { id, digest }) = self.format.generate();
        let record = ApiKeyRecord { id, ..record };
        let stored = StoredKey {
            record: record.clone(),
            digest,
        };
        (MintedKey { key, record }, stored)
    }

    fn tell(&self, kind: EventKind, owner: &Identity, reason: &'static str) {
        let event = SecurityEvent::new(kind).with_subject(owner.subject());
        self.context.emit(event.with_rule(GATE, reason));
    }

    fn failed(&self, error: StoreError) -> ApiKeyError {
        let event = SecurityEvent::new(EventKind::StoreUnavailable);
        self.context.emit(event.with_rule(GATE, "store"));
        ApiKeyError::Store(error)
    }
}

impl Shared {
    async fn touch(&self, used: Vec<(ApiKeyId, UnixMillis)>) -> Result<(), StoreError> {
        if used.is_empty() {
            return Ok(());
        }
        let told = self.store.touch_(&used).await;
        if told.is_err() {
            self.uses.put_back(used);
        }
        told
    }
}

impl fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKeys")
            .field("brand", &self.format.brand())
            .field("environment", &self.format.environment())
            .finish_non_exhaustive()
    }
}

/// What is known of a key before the store is asked.
pub(super) enum Checked {
    Known(UsedKey),
    Ask(Presented),
}

/// A key to make.
#[derive(Clone, Debug)]
#[must_use]
pub struct NewApiKey {
    name: String,
    scopes: Option<Vec<String>>,
    networks: Vec<Prefix>,
    limit: Option<u32>,
    ttl: Option<Duration>,
}

impl NewApiKey {
    /// A key with a name for its owner, with all scopes of its maker.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            scopes: None,
            networks: Vec::new(),
            limit: None,
            ttl: None,
        }
    }

    /// Allows these scopes alone; its maker must hold them.
    pub fn with_scopes<S: Into<String>>(self, scopes: impl IntoIterator<Item = S>) -> Self {
        Self {
            scopes: Some(scopes.into_iter().map(Into::into).collect()),
            ..self
        }
    }

    /// Lets the key come from these networks alone. The address is that of the
    /// [`Client`](crate::Client), so trusted proxies must be stated.
    pub fn from_networks(self, networks: impl IntoIterator<Item = Prefix>) -> Self {
        Self {
            networks: networks.into_iter().collect(),
            ..self
        }
    }

    /// Gives the key a limit of its own; see [`ApiKeyRecord::limit`].
    pub fn with_limit(self, limit: u32) -> Self {
        Self {
            limit: Some(limit),
            ..self
        }
    }

    /// Gives the key a shorter life than the service's.
    pub fn with_ttl(self, ttl: Duration) -> Self {
        Self {
            ttl: Some(ttl),
            ..self
        }
    }
}

/// A key that was made: the one time that it is there to be shown.
#[derive(Clone, Debug)]
pub struct MintedKey {
    key: ApiKey,
    record: ApiKeyRecord,
}

impl MintedKey {
    /// The key itself.
    #[must_use]
    pub fn key(&self) -> &ApiKey {
        &self.key
    }

    /// What is known of it.
    #[must_use]
    pub fn record(&self) -> &ApiKeyRecord {
        &self.record
    }
}

/// The key that a request came with; [`ApiKeyLayer`](super::ApiKeyLayer) leaves it in the request's
/// extensions. A cheap clone.
#[derive(Clone, Debug)]
pub struct UsedKey {
    record: Arc<ApiKeyRecord>,
    identity: Identity,
}

impl UsedKey {
    fn new(record: ApiKeyRecord) -> Self {
        let identity = Identity::new(IdentityKind::ApiKey, record.subject.as_str())
            .with_token(record.id.as_str())
            .with_scopes(&record.scopes)
            .with_expiry(record.expires_at);
        Self {
            record: Arc::new(record),
            identity,
        }
    }

    /// Who the request comes from.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }
}

impl Deref for UsedKey {
    type Target = ApiKeyRecord;

    fn deref(&self) -> &ApiKeyRecord {
        &self.record
    }
}

/// A digest that no key has: what a key that is not known is compared with.
const NOBODYS: ApiKeyDigest = ApiKeyDigest::from_bytes([0; 32]);

const DAY: Duration = Duration::from_secs(86_400);
const TTL: Duration = DAY.saturating_mul(90);
const MIN_TTL: Duration = Duration::from_secs(60);
const MAX_TTL: Duration = DAY.saturating_mul(366);
const MAX_OVERLAP: Duration = DAY.saturating_mul(7);
const FRESH_LOGIN: Duration = Duration::from_secs(900);
const CACHED_FOR: Duration = Duration::from_secs(30);
const MAX_CACHED_FOR: Duration = Duration::from_secs(300);
const MOST: usize = 25;
const MAX_NAME: usize = 64;
const MAX_SCOPE: usize = 64;
const MAX_SCOPES: usize = 64;
const MAX_NETWORKS: usize = 32;
