//! The issuer: access tokens.

use std::{
    error, fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::EncodingKey;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::{
    algorithm::{Algorithm, Family},
    crypto::{CryptoProvider, PrivateKey, Signer, default_provider},
    key_set::KeySet,
    keys::{self, VerifyingKey},
};
use crate::{
    error::ConfigError,
    secret::{Secret, random},
    time::UnixMillis,
};

/// A key that signs tokens by one algorithm. Its id, the `kid` of its tokens, is derived from the
/// key where none is given.
#[derive(Clone)]
#[must_use]
pub struct SigningKey {
    id: Option<Box<str>>,
    algorithm: Algorithm,
    material: Arc<Material>,
}

enum Material {
    Secret(Zeroizing<Vec<u8>>),
    Pem(EncodingKey),
}

impl SigningKey {
    /// A secret for an HMAC algorithm.
    ///
    /// # Errors
    /// As [`VerifyingKey::secret`].
    pub fn secret(algorithm: Algorithm, secret: &Secret) -> Result<Self, ConfigError> {
        let _ = VerifyingKey::secret(algorithm, secret)?;
        let bytes = Zeroizing::new(secret.expose().to_vec());
        Ok(Self {
            id: None,
            algorithm,
            material: Arc::new(Material::Secret(bytes)),
        })
    }

    /// A private key in PEM: PKCS #8, or for RSA also PKCS #1.
    ///
    /// # Errors
    /// When it is not a private key of the algorithm.
    pub fn from_pem(algorithm: Algorithm, pem: &[u8]) -> Result<Self, ConfigError> {
        let refuse = |problem| ConfigError::new("key", problem);
        let tags: [&[u8]; 2] = [
            b"-----BEGIN PRIVATE KEY-----",
            b"-----BEGIN RSA PRIVATE KEY-----",
        ];
        let start = pem.trim_ascii_start();
        if !tags.iter().any(|tag| start.starts_with(tag)) {
            return Err(refuse("is not a private key in PEM (PKCS #8)"));
        }
        let key = match algorithm.family() {
            Family::Hmac => return Err(refuse("a private key does not serve an HMAC")),
            Family::Rsa => EncodingKey::from_rsa_pem(pem),
            Family::P256 | Family::P384 => EncodingKey::from_ec_pem(pem),
            Family::Ed25519 => EncodingKey::from_ed_pem(pem),
        };
        let key = key.map_err(|_| refuse("is not a private key of that algorithm"))?;
        Ok(Self {
            id: None,
            algorithm,
            material: Arc::new(Material::Pem(key)),
        })
    }

    /// Names the key: the `kid` of its tokens.
    pub fn with_id(mut self, id: impl Into<Box<str>>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// The algorithm that the key signs by.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    fn as_private_key(&self) -> PrivateKey<'_> {
        match (&*self.material, self.algorithm.family()) {
            (Material::Secret(secret), _) => PrivateKey::Secret(secret),
            (Material::Pem(key), Family::Rsa) => PrivateKey::RsaPkcs1(key.as_bytes()),
            (Material::Pem(key), Family::Ed25519) => PrivateKey::Ed25519Pkcs8(key.as_bytes()),
            (Material::Pem(key), _) => PrivateKey::EcPkcs8(key.as_bytes()),
        }
    }

    /// The key that checks what this one signs, under the same id.
    fn verifying_key(&self, provider: &dyn CryptoProvider) -> Result<VerifyingKey, ConfigError> {
        let key = self.as_private_key();
        let material = match key {
            PrivateKey::Secret(secret) => keys::Material::Secret(Zeroizing::new(secret.to_vec())),
            _ => {
                let (first, second) = provider.public_part(self.algorithm, key)?;
                match self.algorithm.family() {
                    Family::Rsa => keys::Material::rsa(&first, &second)?,
                    Family::Ed25519 => keys::Material::ed25519(&first)?,
                    _ => keys::Material::point(self.algorithm, &first)?,
                }
            }
        };
        let verifying = VerifyingKey::of(self.algorithm, material);
        Ok(match &self.id {
            Some(id) => verifying.with_id(id.clone()),
            None => verifying,
        })
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("id", &self.id)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

/// Makes access tokens (RFC 9068: `typ` is `at+jwt`). A cheap clone.
///
/// ```
/// use portcullis::{Context, jwt::{AccessToken, Algorithm, Issuer, KeySet, SigningKey, Verifier}};
/// use portcullis::secret::{Secret, Secrets};
///
/// let secrets = Secrets::from(Secret::generate());
/// let key = SigningKey::secret(Algorithm::HS256, secrets.current())?;
/// let issuer = Issuer::new(key, "https://id.example", "api")?;
/// let keys = KeySet::from_secrets(Algorithm::HS256, &secrets)?;
/// let verifier = Verifier::new(keys, "https://id.example", "api")?;
///
/// let now = Context::new().wall();
/// let token = issuer.issue(&AccessToken::new("user-1").with_scopes(["model"]), now)?;
/// let verified = verifier.verify(token.as_str(), now)?;
/// assert_eq!(verified.identity().subject(), "user-1");
/// assert!(verified.identity().has_scope("model"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct Issuer {
    config: Arc<Config>,
}

#[derive(Clone)]
struct Config {
    provider: &'static dyn CryptoProvider,
    signing: Arc<Signing>,
    issuer: Arc<str>,
    audience: Arc<[Box<str>]>,
    ttl: Duration,
}

/// The keys, which clones of an issuer share.
struct Signing {
    /// Changed under the lock of the others alone.
    active: RwLock<Arc<Active>>,
    others: Mutex<Vec<Other>>,
    set: KeySet,
}

/// A key that is published and does not sign.
#[derive(Clone)]
struct Other {
    key: VerifyingKey,
    /// When it stopped signing; one that is announced has not begun to.
    retired: Option<UnixMillis>,
}

/// The key that signs.
struct Active {
    signer: Box<dyn Signer>,
    verifying_key: VerifyingKey,
    /// The encoded header, which is the same for every token of a key.
    header: String,
}

impl Active {
    fn prepare(provider: &dyn CryptoProvider, key: &SigningKey) -> Result<Self, ConfigError> {
        let verifying_key = key.verifying_key(provider)?;
        let header = Header {
            alg: key.algorithm.as_str(),
            typ: "at+jwt",
            kid: verifying_key.id(),
        };
        let header = serde_json::to_vec(&header)
            .map_err(|_| ConfigError::new("issuer", "the key's id does not encode"))?;
        Ok(Self {
            signer: provider.signer(key.algorithm, key.as_private_key())?,
            header: URL_SAFE_NO_PAD.encode(header),
            verifying_key,
        })
    }
}

impl Issuer {
    /// Signs with `key`, as `issuer`, for `audience`.
    ///
    /// # Errors
    /// When the issuer or the audience is empty, or the key is not usable.
    pub fn new(
        key: SigningKey,
        issuer: impl Into<Arc<str>>,
        audience: impl Into<Box<str>>,
    ) -> Result<Self, ConfigError> {
        Self::with_provider(default_provider()?, key, issuer, audience)
    }

    /// Signs with a backend that the application brings.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_provider(
        provider: &'static dyn CryptoProvider,
        key: SigningKey,
        issuer: impl Into<Arc<str>>,
        audience: impl Into<Box<str>>,
    ) -> Result<Self, ConfigError> {
        let (issuer, audience) = (issuer.into(), audience.into());
        if issuer.is_empty() || audience.is_empty() {
            return Err(ConfigError::new(
                "issuer",
                "issuer and audience have a name",
            ));
        }
        let active = Active::prepare(provider, &key)?;
        let set = KeySet::with_provider(provider, [active.verifying_key.clone()])?;
        Ok(Self {
            config: Arc::new(Config {
                provider,
                signing: Arc::new(Signing {
                    active: RwLock::new(Arc::new(active)),
                    others: Mutex::default(),
                    set,
                }),
                issuer,
                audience: Arc::new([audience]),
                ttl: DEFAULT_TTL,
            }),
        })
    }

    /// How long a token lives; 15 minutes by default.
    ///
    /// # Errors
    /// Below a second or above an hour: the deny list remembers no longer.
    pub fn with_ttl(self, ttl: Duration) -> Result<Self, ConfigError> {
        if ttl < Duration::from_secs(1) || ttl > MAX_TTL {
            return Err(ConfigError::new("access token ttl", "is 1 to 3600 s"));
        }
        Ok(self.with(|config| config.ttl = ttl))
    }

    /// Adds audiences that the tokens are also for.
    pub fn with_audiences<S: Into<Box<str>>>(self, audiences: impl IntoIterator<Item = S>) -> Self {
        self.with(|config| {
            let more = audiences.into_iter().map(Into::into);
            config.audience = config.audience.iter().cloned().chain(more).collect();
        })
    }

    /// The key that checks the tokens that are made now.
    pub fn verifying_key(&self) -> VerifyingKey {
        self.config.signing.active().verifying_key.clone()
    }

    /// The keys that check the issuer's tokens: the one that signs, those before it whose tokens
    /// may still live, and those that are [announced](Self::announce).
    #[must_use]
    pub fn key_set(&self) -> KeySet {
        self.config.signing.set.clone()
    }

    /// Publishes a key that will sign later, so that verifiers elsewhere know it by then.
    ///
    /// # Errors
    /// When the key is not usable or has another key's id.
    pub fn announce(&self, key: &SigningKey) -> Result<(), ConfigError> {
        let key = key.verifying_key(self.config.provider)?;
        let signing = &*self.config.signing;
        let mut others = signing.others();
        if signing.active().verifying_key.is(&key) {
            return Ok(());
        }
        let mut next = others.clone();
        next.retain(|other| !other.key.is(&key));
        next.push(Other { key, retired: None });
        signing.publish(&signing.active(), &next)?;
        *others = next;
        Ok(())
    }

    /// Signs with `key` from now on. The key before it stays in the [key set](Self::key_set) for as
    /// long as a token of it may live: two hours, after which the next rotation drops it.
    ///
    /// # Errors
    /// When the key is not usable or has another key's id; the key before it then signs on.
    pub fn rotate(&self, key: &SigningKey, now: UnixMillis) -> Result<(), ConfigError> {
        let active = Arc::new(Active::prepare(self.config.provider, key)?);
        let signing = &*self.config.signing;
        let mut others = signing.others();
        let before = signing.active().verifying_key.clone();
        let mut next = others.clone();
        if !before.is(&active.verifying_key) {
            next.push(Other {
                key: before,
                retired: Some(now),
            });
        }
        next.retain(|other| {
            let over = other
                .retired
                .is_some_and(|at| now > at.saturating_add(OVERLAP));
            !over && !other.key.is(&active.verifying_key)
        });
        // Verifiers know the key before it signs.
        signing.publish(&active, &next)?;
        *others = next;
        *signing
            .active
            .write()
            .unwrap_or_else(PoisonError::into_inner) = active;
        Ok(())
    }

    /// Takes back at once the keys of an id: announced ones, or ones before, as when a private key
    /// got out. Their tokens are refused from now on, elsewhere when the set is fetched again.
    /// Whether there was one.
    ///
    /// # Errors
    /// When the key signs: [rotate](Self::rotate) first.
    pub fn withdraw(&self, id: &str) -> Result<bool, ConfigError> {
        let signing = &*self.config.signing;
        let mut others = signing.others();
        let active = signing.active();
        if active.verifying_key.id() == Some(id) {
            return Err(ConfigError::new("key", "signs; rotate first"));
        }
        let mut next = others.clone();
        next.retain(|other| other.key.id() != Some(id));
        if next.len() == others.len() {
            return Ok(false);
        }
        signing.publish(&active, &next)?;
        *others = next;
        Ok(true)
    }

    pub(crate) fn published(&self) -> Vec<VerifyingKey> {
        self.config.signing.published()
    }

    /// How long a token lives.
    #[must_use]
    pub fn ttl(&self) -> Duration {
        self.config.ttl
    }

    /// Makes a token at the time `now`.
    ///
    /// # Errors
    /// [`IssueError`]; no token is made.
    pub fn issue(&self, token: &AccessToken, now: UnixMillis) -> Result<IssuedToken, IssueError> {
        let config = &*self.config;
        let issued_at = now.as_secs().max(token.not_before);
        let ttl = i64::try_from(config.ttl.as_secs()).unwrap_or(i64::MAX);
        let expires_at = now.as_secs().saturating_add(ttl);
        let expires_at = token
            .ends_at
            .map_or(expires_at, |end| expires_at.min(end.as_secs()));
        if expires_at <= issued_at {
            return Err(IssueError::Ended);
        }
        if token.subject.is_empty() {
            return Err(IssueError::NoSubject);
        }
        let id = URL_SAFE_NO_PAD.encode(random::<16>());
        let payload = serde_json::to_vec(&Payload {
            iss: &config.issuer,
            sub: &token.subject,
            aud: &config.audience,
            exp: expires_at,
            iat: issued_at,
            nbf: issued_at,
            jti: &id,
            sid: token.session.as_deref(),
            auth_time: token.auth_time.map(UnixMillis::as_secs),
            scope: (!token.scope.is_empty()).then_some(&*token.scope),
            roles: &token.roles,
            extra: &token.extra,
        })
        .map_err(|_| IssueError::Unencodable)?;
        let active = config.signing.active();
        let mut text = String::with_capacity(
            active.header.len() + 2 + payload.len().div_ceil(3) * 4 + SIGNATURE_CHARS,
        );
        text.push_str(&active.header);
        text.push('.');
        URL_SAFE_NO_PAD.encode_string(payload, &mut text);
        let signature = active
            .signer
            .sign(text.as_bytes())
            .map_err(|_| IssueError::Unsigned)?;
        text.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut text);
        Ok(IssuedToken {
            text,
            id,
            issued_at: UnixMillis::from_secs(issued_at),
            expires_at: UnixMillis::from_secs(expires_at),
        })
    }

    fn with(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(Arc::make_mut(&mut self.config));
        self
    }
}

impl Signing {
    fn active(&self) -> Arc<Active> {
        Arc::clone(&self.active.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn others(&self) -> MutexGuard<'_, Vec<Other>> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn published(&self) -> Vec<VerifyingKey> {
        let others = self.others();
        published(&self.active(), &others)
    }

    fn publish(&self, active: &Active, others: &[Other]) -> Result<(), ConfigError> {
        self.set.replace(published(active, others))
    }
}

fn published(active: &Active, others: &[Other]) -> Vec<VerifyingKey> {
    let others = others.iter().map(|other| &other.key);
    std::iter::once(&active.verifying_key)
        .chain(others)
        .cloned()
        .collect()
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer")
            .field("issuer", &self.config.issuer)
            .field("audience", &self.config.audience)
            .field("ttl", &self.config.ttl)
            .finish_non_exhaustive()
    }
}

/// What a token is to say.
#[derive(Clone, Debug)]
#[must_use]
pub struct AccessToken {
    subject: Box<str>,
    session: Option<Box<str>>,
    auth_time: Option<UnixMillis>,
    scope: String,
    roles: Vec<Box<str>>,
    ends_at: Option<UnixMillis>,
    not_before: i64,
    extra: Map<String, Value>,
}

impl AccessToken {
    /// A token of `subject`.
    pub fn new(subject: impl Into<Box<str>>) -> Self {
        Self {
            subject: subject.into(),
            session: None,
            auth_time: None,
            scope: String::new(),
            roles: Vec::new(),
            ends_at: None,
            not_before: i64::MIN,
            extra: Map::new(),
        }
    }

    /// The same for another subject.
    #[cfg(feature = "refresh-token")]
    pub(crate) fn with_subject(self, subject: &str) -> Self {
        Self {
            subject: subject.into(),
            ..self
        }
    }

    /// Adds the session's id (`sid`).
    pub fn with_session(mut self, session: impl Into<Box<str>>) -> Self {
        self.session = Some(session.into());
        self
    }

    /// Adds when the caller last proved himself afresh (`auth_time`).
    pub fn with_auth_time(mut self, at: UnixMillis) -> Self {
        self.auth_time = Some(at);
        self
    }

    /// Adds what the token allows (`scope`). A text with spaces in it is a list of scopes.
    pub fn with_scopes<S: AsRef<str>>(mut self, scopes: impl IntoIterator<Item = S>) -> Self {
        for scope in scopes {
            if !self.scope.is_empty() {
                self.scope.push(' ');
            }
            self.scope.push_str(scope.as_ref());
        }
        self
    }

    /// Adds the roles that the caller holds (`roles`).
    pub fn with_roles<S: Into<Box<str>>>(mut self, roles: impl IntoIterator<Item = S>) -> Self {
        self.roles.extend(roles.into_iter().map(Into::into));
        self
    }

    /// Ends the token no later than its session.
    pub fn ending_by(mut self, end: UnixMillis) -> Self {
        self.ends_at = Some(end);
        self
    }

    /// Dates the token (`iat`, `nbf`) no earlier than this second: what
    /// [`DenyList::earliest_issue`](crate::DenyList::earliest_issue) says for the subject.
    pub fn issued_after(mut self, second: i64) -> Self {
        self.not_before = second;
        self
    }

    /// Adds a claim of the application.
    ///
    /// # Errors
    /// When the name is one that the issuer or a verifier reads itself, or the value is no JSON.
    pub fn with_claim(
        mut self,
        name: impl Into<String>,
        value: impl Serialize,
    ) -> Result<Self, IssueError> {
        let name = name.into();
        if RESERVED.contains(&name.as_str()) {
            return Err(IssueError::ReservedClaim);
        }
        let value = serde_json::to_value(value).map_err(|_| IssueError::Unencodable)?;
        self.extra.insert(name, value);
        Ok(self)
    }
}

/// A token that was made. `Debug` does not show it.
#[derive(Clone)]
#[must_use]
pub struct IssuedToken {
    text: String,
    id: String,
    issued_at: UnixMillis,
    expires_at: UnixMillis,
}

impl IssuedToken {
    /// The token, as a client is to send it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The token, as a client is to send it.
    #[must_use]
    pub fn into_string(self) -> String {
        self.text
    }

    /// The token's id (`jti`).
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// When it was made (`iat`).
    #[must_use]
    pub fn issued_at(&self) -> UnixMillis {
        self.issued_at
    }

    /// When it ends (`exp`).
    #[must_use]
    pub fn expires_at(&self) -> UnixMillis {
        self.expires_at
    }
}

impl fmt::Debug for IssuedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuedToken")
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// Why a token was not made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum IssueError {
    /// Its session is over, or ends before the token may begin.
    Ended,
    /// It has no subject.
    NoSubject,
    /// A claim has a name that the issuer or a verifier reads itself.
    ReservedClaim,
    /// A claim is no JSON.
    Unencodable,
    /// The backend could not sign.
    Unsigned,
}

impl fmt::Display for IssueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ended => "the token would end before it begins",
            Self::NoSubject => "the token has no subject",
            Self::ReservedClaim => "a claim has a reserved name",
            Self::Unencodable => "a claim is no JSON",
            Self::Unsigned => "the token could not be signed",
        })
    }
}

impl error::Error for IssueError {}

#[derive(Serialize)]
struct Header<'a> {
    alg: &'static str,
    typ: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<&'a str>,
}

#[derive(Serialize)]
struct Payload<'a> {
    iss: &'a str,
    sub: &'a str,
    #[serde(serialize_with = "one_or_several")]
    aud: &'a [Box<str>],
    exp: i64,
    iat: i64,
    nbf: i64,
    jti: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_time: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    roles: &'a [Box<str>],
    #[serde(flatten)]
    extra: &'a Map<String, Value>,
}

fn one_or_several<S: Serializer>(texts: &[Box<str>], serializer: S) -> Result<S::Ok, S::Error> {
    match texts {
        [one] => one.serialize(serializer),
        several => several.serialize(serializer),
    }
}

/// The claims that the issuer writes, and those that a verifier would take for something else.
const RESERVED: [&str; 13] = [
    "iss",
    "sub",
    "aud",
    "exp",
    "iat",
    "nbf",
    "jti",
    "sid",
    "auth_time",
    "scope",
    "scp",
    "roles",
    "cnf",
];
const DEFAULT_TTL: Duration = Duration::from_secs(900);
const MAX_TTL: Duration = Duration::from_secs(3_600);
/// The longest life of a token, and as much again for clocks and caches elsewhere.
const OVERLAP: Duration = Duration::from_secs(7_200);
const SIGNATURE_CHARS: usize = 88;
