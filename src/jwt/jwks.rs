//! JWK sets: each key judged alone.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use serde::Deserialize as _;

use super::{
    algorithm::{Algorithm, Family},
    json::Json,
    keys::{Material, VerifyingKey},
};
use crate::{error::ConfigError, secret::Secret};

/// The usable keys of a JWK set, and those that are passed over with the reason.
///
/// A key is used when
/// 1. it is for signatures: `use`, where it stands, is `sig`, and `key_ops` holds `verify`;
/// 2. its `alg` is one of those allowed, or, where it has none, its type and curve leave one: for an
///    RSA key the first RSA algorithm allowed, for a secret none;
/// 3. it holds the rules of its kind (as [`VerifyingKey::from_pem`] and [`VerifyingKey::secret`]),
///    and no private part;
/// 4. its `kid` is at most 256 bytes. A key without one serves every token of its algorithm whose
///    `kid` is no other key's.
///
/// Secrets are used only where the set holds no public key, and at most 64 keys are.
///
/// ```
/// use portcullis::jwt::{Algorithm, Jwks, SkipReason};
///
/// let json = br#"{"keys":[
///     {"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
///     {"kty":"OKP","crv":"Ed25519","kid":"b","x":"AAAA"}
/// ]}"#;
/// let jwks = Jwks::parse(json, Algorithm::PUBLIC)?;
/// assert_eq!(jwks.keys().count(), 1);
/// assert_eq!(jwks.skipped()[0].reason(), SkipReason::Malformed);
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Jwks {
    keys: Vec<(usize, VerifyingKey)>,
    skipped: Vec<SkippedKey>,
}

/// A key of a JWK set that is not used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SkippedKey {
    index: usize,
    id: Option<Box<str>>,
    reason: SkipReason,
}

/// Why a key of a JWK set is not used.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum SkipReason {
    /// It is no JWK, or its values break the rules of its kind.
    Malformed,
    /// Its type or curve is not known.
    UnknownType,
    /// Its `use` or `key_ops` says that it verifies no signatures.
    NotForSignatures,
    /// Its `alg` is not allowed, not one of its kind, or none where one is needed.
    AlgorithmNotAllowed,
    /// It has a private part, which everybody knows now.
    Private,
    /// It is a secret in a set with public keys.
    SecretAmongPublicKeys,
    /// Another key of the algorithm has its id.
    DuplicateId,
    /// It stands behind the first 64.
    TooMany,
}

impl Jwks {
    /// Reads a JWK set for the algorithms `allowed`, usually [`Algorithm::PUBLIC`].
    ///
    /// # Errors
    /// When the text is no JWK set: not JSON, a member twice, or no list of `keys`.
    pub fn parse(json: &[u8], allowed: &[Algorithm]) -> Result<Self, ConfigError> {
        let refuse = || ConfigError::new("jwks", "is not a JWK set");
        let text = str::from_utf8(json).map_err(|_| refuse())?;
        let set = Json::object(text).map_err(|_| refuse())?;
        let keys = set.members().find(|(name, _)| *name == "keys");
        let Some((_, Json::List(keys))) = keys else {
            return Err(refuse());
        };
        let mut jwks = Self {
            keys: Vec::new(),
            skipped: Vec::new(),
        };
        for (index, key) in keys.iter().enumerate() {
            let read = if index < MAX_KEYS {
                read(key, allowed)
            } else {
                Err(SkipReason::TooMany)
            };
            match read {
                Ok(key) => jwks.keys.push((index, key)),
                Err(reason) => jwks.skip(index, id_of(key), reason),
            }
        }
        jwks.separate();
        Ok(jwks)
    }

    /// The usable keys.
    pub fn keys(&self) -> impl Iterator<Item = &VerifyingKey> {
        self.keys.iter().map(|(_, key)| key)
    }

    /// The keys that are passed over.
    #[must_use]
    pub fn skipped(&self) -> &[SkippedKey] {
        &self.skipped
    }

    pub(crate) fn indexed(&self) -> impl Iterator<Item = (usize, &VerifyingKey)> {
        self.keys.iter().map(|(index, key)| (*index, key))
    }

    /// Takes the secrets away where there are public keys.
    fn separate(&mut self) {
        let is_secret = |key: &VerifyingKey| key.algorithm().family() == Family::Hmac;
        if self.keys().all(is_secret) {
            return;
        }
        for (index, key) in std::mem::take(&mut self.keys) {
            if is_secret(&key) {
                let id = key.id().map(Into::into);
                self.skip(index, id, SkipReason::SecretAmongPublicKeys);
            } else {
                self.keys.push((index, key));
            }
        }
    }

    fn skip(&mut self, index: usize, id: Option<Box<str>>, reason: SkipReason) {
        self.skipped.push(SkippedKey::new(index, id, reason));
    }
}

impl VerifyingKey {
    /// A public key as one JWK (RFC 7517 section 4), by the rules of [`Jwks`].
    ///
    /// # Errors
    /// With the rule that the key breaks.
    pub fn from_jwk(json: &[u8], allowed: &[Algorithm]) -> Result<Self, ConfigError> {
        let refuse = |reason: SkipReason| ConfigError::new("jwk", reason.to_string());
        let text = str::from_utf8(json).map_err(|_| refuse(SkipReason::Malformed))?;
        let jwk = Json::object(text).map_err(|_| refuse(SkipReason::Malformed))?;
        read(&jwk, allowed).map_err(refuse)
    }
}

impl SkippedKey {
    pub(crate) fn new(index: usize, id: Option<Box<str>>, reason: SkipReason) -> Self {
        Self { index, id, reason }
    }

    /// Where the key stands in the set, from zero.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// The key's id.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Why it is not used.
    #[must_use]
    pub fn reason(&self) -> SkipReason {
        self.reason
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "is malformed, or breaks the rules of its kind",
            Self::UnknownType => "is of an unknown type or curve",
            Self::NotForSignatures => "is not for signatures",
            Self::AlgorithmNotAllowed => "is not for an allowed algorithm",
            Self::Private => "has a private part",
            Self::SecretAmongPublicKeys => "is a secret among public keys",
            Self::DuplicateId => "has the id of another key",
            Self::TooMany => "is one too many",
        })
    }
}

fn read(json: &Json<'_>, allowed: &[Algorithm]) -> Result<VerifyingKey, SkipReason> {
    let Json::Object(_) = json else {
        return Err(SkipReason::Malformed);
    };
    let member = |name: &str| json.members().find(|(member, _)| *member == name);
    let jwk = Jwk::deserialize(json).map_err(|_| SkipReason::Malformed)?;
    if matches!(&jwk.common.public_key_use, Some(usage) if *usage != PublicKeyUse::Signature) {
        return Err(SkipReason::NotForSignatures);
    }
    if matches!(&jwk.common.key_operations, Some(ops) if !ops.contains(&KeyOperations::Verify)) {
        return Err(SkipReason::NotForSignatures);
    }
    if PRIVATE_MEMBERS.iter().any(|name| member(name).is_some()) {
        return Err(SkipReason::Private);
    }
    // The name is read here and not taken from `jwk`, which does not know all of ours.
    let stated = match member("alg") {
        None => None,
        Some((_, name)) => Some(
            name.as_text()
                .and_then(Algorithm::of_name)
                .ok_or(SkipReason::AlgorithmNotAllowed)?,
        ),
    };
    let decode = |text: &str| {
        URL_SAFE_NO_PAD
            .decode(text)
            .map_err(|_| SkipReason::Malformed)
    };
    let choose = |families: &dyn Fn(Family) -> bool| {
        stated
            .or_else(|| {
                let fits = |algorithm: &&Algorithm| families(algorithm.family());
                allowed.iter().find(fits).copied()
            })
            .filter(|algorithm| families(algorithm.family()) && allowed.contains(algorithm))
            .ok_or(SkipReason::AlgorithmNotAllowed)
    };
    let malformed = |_| SkipReason::Malformed;
    let key = match &jwk.algorithm {
        AlgorithmParameters::RSA(key) => {
            let algorithm = choose(&|family| family == Family::Rsa)?;
            let material = Material::rsa(&decode(&key.n)?, &decode(&key.e)?).map_err(malformed)?;
            VerifyingKey::of(algorithm, material)
        }
        AlgorithmParameters::EllipticCurve(key) => {
            let (curve, length) = match key.curve {
                EllipticCurve::P256 => (Family::P256, 32),
                EllipticCurve::P384 => (Family::P384, 48),
                _ => return Err(SkipReason::UnknownType),
            };
            let algorithm = choose(&|family| family == curve)?;
            let (x, y) = (decode(&key.x)?, decode(&key.y)?);
            if x.len() != length || y.len() != length {
                return Err(SkipReason::Malformed);
            }
            let point = [&[4], x.as_slice(), y.as_slice()].concat();
            VerifyingKey::of(
                algorithm,
                Material::point(algorithm, &point).map_err(malformed)?,
            )
        }
        AlgorithmParameters::OctetKeyPair(key) => {
            if key.curve != EllipticCurve::Ed25519 {
                return Err(SkipReason::UnknownType);
            }
            let algorithm = choose(&|family| family == Family::Ed25519)?;
            let material = Material::ed25519(&decode(&key.x)?).map_err(malformed)?;
            VerifyingKey::of(algorithm, material)
        }
        AlgorithmParameters::OctetKey(key) => {
            let algorithm = stated
                .filter(|algorithm| allowed.contains(algorithm))
                .ok_or(SkipReason::AlgorithmNotAllowed)?;
            let secret = Secret::new(decode(&key.value)?).map_err(malformed)?;
            VerifyingKey::secret(algorithm, &secret).map_err(malformed)?
        }
        _ => {
            let known = member("kty").and_then(|(_, kty)| kty.as_text());
            return Err(match known {
                Some("RSA" | "EC" | "OKP" | "oct") if !is_unknown_curve(json) => {
                    SkipReason::Malformed
                }
                _ => SkipReason::UnknownType,
            });
        }
    };
    match jwk.common.key_id {
        None => Ok(key.without_id()),
        Some(id) if id.len() <= MAX_KEY_ID_BYTES => Ok(key.with_id(id)),
        Some(_) => Err(SkipReason::Malformed),
    }
}

/// Whether the key's curve is one that is not read at all.
fn is_unknown_curve(json: &Json<'_>) -> bool {
    json.members()
        .find(|(name, _)| *name == "crv")
        .and_then(|(_, curve)| curve.as_text())
        .is_some_and(|curve| !["P-256", "P-384", "Ed25519"].contains(&curve))
}

fn id_of(json: &Json<'_>) -> Option<Box<str>> {
    let (_, id) = json.members().find(|(name, _)| *name == "kid")?;
    id.as_text().map(Into::into)
}

/// The members of RFC 7518 section 6 that only a private key has.
const PRIVATE_MEMBERS: [&str; 7] = ["d", "p", "q", "dp", "dq", "qi", "oth"];
const MAX_KEYS: usize = 64;
const MAX_KEY_ID_BYTES: usize = 256;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// RFC 8037 appendix A.2.
    const ED25519: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    /// RFC 7515 appendix A.3.
    const X: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
    const Y: &str = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";

    fn ed(changes: Value) -> Value {
        merged(
            json!({"kty": "OKP", "crv": "Ed25519", "kid": "a", "x": ED25519}),
            changes,
        )
    }

    fn ec(changes: Value) -> Value {
        merged(
            json!({"kty": "EC", "crv": "P-256", "kid": "b", "x": X, "y": Y}),
            changes,
        )
    }

    fn rsa(bits: usize, changes: Value) -> Value {
        let mut n = vec![0xff; bits / 8];
        n[0] = 0x80;
        let n = URL_SAFE_NO_PAD.encode(n);
        merged(
            json!({"kty": "RSA", "kid": "r", "n": n, "e": "AQAB"}),
            changes,
        )
    }

    fn oct(changes: Value) -> Value {
        let k = URL_SAFE_NO_PAD.encode(Secret::generate().expose());
        merged(
            json!({"kty": "oct", "kid": "s", "alg": "HS256", "k": k}),
            changes,
        )
    }

    fn merged(mut key: Value, changes: Value) -> Value {
        for (name, value) in changes.as_object().unwrap() {
            key[name] = value.clone();
        }
        key
    }

    fn parse(keys: &[Value], allowed: &[Algorithm]) -> Jwks {
        Jwks::parse(json!({ "keys": keys }).to_string().as_bytes(), allowed).unwrap()
    }

    fn judge(key: Value) -> Result<Algorithm, SkipReason> {
        let jwks = parse(&[key], Algorithm::ALL);
        match jwks.skipped() {
            [] => Ok(jwks.keys().next().unwrap().algorithm()),
            skipped => Err(skipped[0].reason()),
        }
    }

    #[test]
    fn each_key_is_judged_alone() {
        use SkipReason::{AlgorithmNotAllowed, Malformed, NotForSignatures, Private, UnknownType};

        let even = URL_SAFE_NO_PAD.encode([0xfe; 256]);
        let (shorter, longer) = ([1; 31], [1; 33]);
        let (shorter, longer) = (
            URL_SAFE_NO_PAD.encode(shorter),
            URL_SAFE_NO_PAD.encode(longer),
        );
        for (key, verdict) in [
            (ed(json!({})), Ok(Algorithm::EdDSA)),
            (ed(json!({"alg": "EdDSA"})), Ok(Algorithm::EdDSA)),
            (ed(json!({"alg": "Ed25519"})), Ok(Algorithm::EdDSA)),
            (ed(json!({"use": "sig"})), Ok(Algorithm::EdDSA)),
            (ed(json!({"key_ops": ["verify"]})), Ok(Algorithm::EdDSA)),
            (ed(json!({"extra": {"x": [1]}})), Ok(Algorithm::EdDSA)),
            (ed(json!({"use": "enc"})), Err(NotForSignatures)),
            (ed(json!({"key_ops": ["sign"]})), Err(NotForSignatures)),
            (ed(json!({"key_ops": []})), Err(NotForSignatures)),
            (ed(json!({"alg": "ES256"})), Err(AlgorithmNotAllowed)),
            (ed(json!({"alg": "none"})), Err(AlgorithmNotAllowed)),
            (ed(json!({"alg": 7})), Err(Malformed)),
            (ed(json!({"kid": 7})), Err(Malformed)),
            (ed(json!({"kid": "k".repeat(257)})), Err(Malformed)),
            (ed(json!({"x5c": "x"})), Err(Malformed)),
            (ed(json!({"d": ED25519})), Err(Private)),
            (ed(json!({"x": &ED25519[..42]})), Err(Malformed)),
            (ed(json!({"x": format!("{ED25519}AA")})), Err(Malformed)),
            (ed(json!({"x": "A".repeat(43)})), Err(Malformed)),
            (ed(json!({"crv": "Ed448"})), Err(UnknownType)),
            (ed(json!({"crv": "P-256"})), Err(UnknownType)),
            (ed(json!({"kty": "AKP"})), Err(UnknownType)),
            (ec(json!({})), Ok(Algorithm::ES256)),
            (ec(json!({"alg": "ES384"})), Err(AlgorithmNotAllowed)),
            (ec(json!({"alg": "ECDH-ES"})), Err(AlgorithmNotAllowed)),
            (ec(json!({"crv": "P-384"})), Err(Malformed)),
            (ec(json!({"crv": "P-521"})), Err(UnknownType)),
            (ec(json!({"crv": "secp256k1"})), Err(UnknownType)),
            (ec(json!({"y": "AAAA"})), Err(Malformed)),
            (ec(json!({"x": shorter, "y": longer})), Err(Malformed)),
            (rsa(2048, json!({})), Ok(Algorithm::RS256)),
            (rsa(2048, json!({"alg": "PS384"})), Ok(Algorithm::PS384)),
            (rsa(8192, json!({})), Ok(Algorithm::RS256)),
            (rsa(8200, json!({})), Err(Malformed)),
            (rsa(2040, json!({})), Err(Malformed)),
            (rsa(1024, json!({})), Err(Malformed)),
            (rsa(2048, json!({"e": "AQ"})), Err(Malformed)),
            (rsa(2048, json!({"e": "Ag"})), Err(Malformed)),
            (rsa(2048, json!({"e": ""})), Err(Malformed)),
            (rsa(2048, json!({"e": "AQAA"})), Err(Malformed)),
            (rsa(2048, json!({"e": "AgAAAAE"})), Err(Malformed)),
            (rsa(2048, json!({"e": "AQAAAAAAAAAD"})), Err(Malformed)),
            (rsa(2048, json!({"n": even})), Err(Malformed)),
            (
                rsa(2048, json!({"alg": "RSA-OAEP"})),
                Err(AlgorithmNotAllowed),
            ),
            (rsa(2048, json!({"alg": "HS256"})), Err(AlgorithmNotAllowed)),
            (oct(json!({})), Ok(Algorithm::HS256)),
            (oct(json!({"alg": "HS512"})), Err(Malformed)),
            (oct(json!({"alg": "RS256"})), Err(Malformed)),
            (oct(json!({"alg": "A256GCM"})), Err(AlgorithmNotAllowed)),
            (oct(json!({"k": "c2hvcnQ"})), Err(Malformed)),
            (json!({}), Err(UnknownType)),
            (json!("key"), Err(Malformed)),
            (json!(null), Err(Malformed)),
        ] {
            assert_eq!(judge(key.clone()), verdict, "{key}");
        }
        assert_eq!(
            parse(&[oct(json!({}))], Algorithm::PUBLIC).skipped()[0].reason(),
            AlgorithmNotAllowed
        );
    }

    #[test]
    fn one_bad_key_never_loses_the_set() {
        let keys = [
            json!({"kty": "AKP", "alg": "ML-DSA-44", "pub": "AA"}),
            json!([]),
            ed(json!({"kid": 5})),
            ed(json!({})),
            oct(json!({})),
            ec(json!({})),
        ];
        let jwks = parse(&keys, Algorithm::ALL);
        let ids: Vec<_> = jwks.keys().map(|key| key.id().unwrap()).collect();
        assert_eq!(ids, ["a", "b"]);
        let skipped: Vec<_> = jwks.skipped().iter().map(SkippedKey::index).collect();
        assert_eq!(skipped, [0, 1, 2, 4]);
        assert_eq!(
            jwks.skipped()[3].reason(),
            SkipReason::SecretAmongPublicKeys
        );
        let many: Vec<_> = (0..70).map(|n| ed(json!({"kid": n.to_string()}))).collect();
        let jwks = parse(&many, Algorithm::ALL);
        assert_eq!((jwks.keys().count(), jwks.skipped().len()), (64, 6));
    }

    #[test]
    fn what_is_no_set_is_an_error() {
        for text in [
            "",
            "[]",
            "{}",
            r#"{"keys":{}}"#,
            r#"{"keys":[],"keys":[]}"#,
            "{\"keys\":[",
        ] {
            assert!(
                Jwks::parse(text.as_bytes(), Algorithm::ALL).is_err(),
                "{text}"
            );
        }
        assert!(Jwks::parse(b"\xff", Algorithm::ALL).is_err());
    }
}
