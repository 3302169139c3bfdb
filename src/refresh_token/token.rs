//! The token itself: what it says, how it is proved, how its successor is derived.

use std::{error, fmt, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::{Zeroize as _, Zeroizing};

use super::record::{KeyId, Seed, SessionId, TokenDigest};
use crate::secret::{Secret, Secrets, random};

/// A refresh token as text: `pcrt_` and 103 characters of base64url.
///
/// `Debug` does not show it, and the memory is wiped when it is dropped.
#[derive(Clone, Eq, PartialEq)]
pub struct RefreshToken(Zeroizing<String>);

impl RefreshToken {
    /// The text for the client. What reads it must not log it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefreshToken(..)")
    }
}

/// Why a text is not a token of this server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum NotAToken {
    /// It has not the form of one.
    Malformed,
    /// It was made with a key that is not known here.
    UnknownKey,
    /// Its proof does not hold: it was changed, or made elsewhere.
    Forged,
}

impl NotAToken {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnknownKey => "unknown_key",
            Self::Forged => "forged",
        }
    }
}

impl fmt::Display for NotAToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "it has not the form of a refresh token",
            Self::UnknownKey => "it was made with a key that is not known",
            Self::Forged => "its proof does not hold",
        })
    }
}

impl error::Error for NotAToken {}

/// An authentic token, taken apart.
#[derive(Clone)]
pub(super) struct Token {
    pub(super) session: SessionId,
    pub(super) generation: u64,
    secret: Zeroizing<[u8; 32]>,
    key: KeyId,
}

impl Token {
    pub(super) fn digest(&self) -> TokenDigest {
        TokenDigest::of(&self.secret)
    }

    /// The key that it was made with.
    pub(super) fn key(&self) -> KeyId {
        self.key
    }
}

/// The keys of a server. The first one makes tokens; all of them prove and derive.
#[derive(Clone)]
pub(super) struct Keys {
    keys: Arc<[Key]>,
}

struct Key {
    id: KeyId,
    prove: Zeroizing<[u8; 32]>,
    derive: Zeroizing<[u8; 32]>,
}

impl Keys {
    pub(super) fn new(secrets: &Secrets) -> Self {
        Self {
            keys: secrets.iter().map(Key::new).collect(),
        }
    }

    /// The first token of a session.
    pub(super) fn first(&self, session: SessionId) -> Token {
        Token {
            session,
            generation: 0,
            secret: Zeroizing::new(random()),
            key: self.keys[0].id,
        }
    }

    /// The id of the key that makes tokens.
    pub(super) fn current(&self) -> KeyId {
        self.keys[0].id
    }

    /// The successor of `token` by `seed` and the key of that id, if it is known here: the same
    /// for everybody who has the three.
    pub(super) fn successor(&self, token: &Token, seed: &Seed, key: KeyId) -> Option<Token> {
        let derive = &self.find(key)?.derive;
        let generation = token.generation.checked_add(1)?;
        let mut mac = keyed(derive);
        // All parts have fixed lengths, so no two inputs read alike.
        mac.update(b"portcullis refresh token successor v1\0");
        mac.update(&*token.secret);
        mac.update(token.session.as_bytes());
        mac.update(&generation.to_be_bytes());
        mac.update(seed.as_bytes());
        Some(Token {
            session: token.session,
            generation,
            secret: Zeroizing::new(mac.finalize().into_bytes().into()),
            key,
        })
    }

    /// The text of a token.
    pub(super) fn encode(&self, token: &Token) -> Option<RefreshToken> {
        let mut bytes = Zeroizing::new([0; BYTES]);
        bytes[0] = VERSION;
        bytes[KEY].copy_from_slice(&token.key.get().to_be_bytes());
        bytes[SESSION].copy_from_slice(token.session.as_bytes());
        bytes[GENERATION].copy_from_slice(&token.generation.to_be_bytes());
        bytes[SECRET].copy_from_slice(&*token.secret);
        let mut proof = self.find(token.key)?.proof(&bytes).finalize().into_bytes();
        bytes[PROOF].copy_from_slice(&proof[..PROOF_BYTES]);
        proof.as_mut_slice().zeroize();
        let mut text = Zeroizing::new(String::with_capacity(CHARACTERS));
        text.push_str(PREFIX);
        URL_SAFE_NO_PAD.encode_string(*bytes, &mut text);
        Some(RefreshToken(text))
    }

    /// Takes a text apart if it is a token of one of these keys.
    pub(super) fn decode(&self, text: &str) -> Result<Token, NotAToken> {
        let digits = text.strip_prefix(PREFIX).ok_or(NotAToken::Malformed)?;
        let mut bytes = Zeroizing::new([0; BYTES]);
        // The decoder refuses what an encoder would not write, so a token has one text.
        match URL_SAFE_NO_PAD.decode_slice(digits, &mut *bytes) {
            Ok(BYTES) if text.len() == CHARACTERS && bytes[0] == VERSION => {}
            _ => return Err(NotAToken::Malformed),
        }
        let key = KeyId::new(u32::from_be_bytes(part(&bytes[KEY])));
        self.find(key)
            .ok_or(NotAToken::UnknownKey)?
            .proof(&bytes)
            .verify_truncated_left(&bytes[PROOF])
            .map_err(|_| NotAToken::Forged)?;
        Ok(Token {
            session: SessionId::from_bytes(part(&bytes[SESSION])),
            generation: u64::from_be_bytes(part(&bytes[GENERATION])),
            secret: Zeroizing::new(part(&bytes[SECRET])),
            key,
        })
    }

    fn find(&self, id: KeyId) -> Option<&Key> {
        self.keys.iter().find(|key| key.id == id)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.keys.iter().map(|key| key.id))
            .finish()
    }
}

impl Key {
    /// One subkey for each use (RFC 5869), so that no use can stand in for another.
    fn new(secret: &Secret) -> Self {
        let hkdf = Hkdf::<Sha256>::new(Some(b"portcullis refresh token"), secret.expose());
        let mut id = [0; 4];
        let mut prove = Zeroizing::new([0; 32]);
        let mut derive = Zeroizing::new([0; 32]);
        for (label, subkey) in [
            (&b"key id"[..], &mut id[..]),
            (b"prove", &mut prove[..]),
            (b"derive", &mut derive[..]),
        ] {
            hkdf.expand(label, subkey)
                .expect("a subkey is shorter than 255 digests");
        }
        Self {
            id: KeyId::new(u32::from_be_bytes(id)),
            prove,
            derive,
        }
    }

    fn proof(&self, bytes: &[u8; BYTES]) -> Hmac<Sha256> {
        let mut mac = keyed(&self.prove);
        mac.update(&bytes[..PROOF.start]);
        mac
    }
}

fn keyed(key: &[u8; 32]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

fn part<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut part = [0; N];
    part.copy_from_slice(bytes);
    part
}

/// Told apart from every other credential, and found by secret scanners.
const PREFIX: &str = "pcrt_";
const VERSION: u8 = 1;
const KEY: std::ops::Range<usize> = 1..5;
const SESSION: std::ops::Range<usize> = 5..21;
const GENERATION: std::ops::Range<usize> = 21..29;
const SECRET: std::ops::Range<usize> = 29..61;
const PROOF: std::ops::Range<usize> = 61..BYTES;
const PROOF_BYTES: usize = 16;
const BYTES: usize = 61 + PROOF_BYTES;
const CHARACTERS: usize = PREFIX.len() + 103;

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        Keys::new(&Secrets::new(Secret::generate()))
    }

    #[test]
    fn a_token_reads_back() {
        let keys = keys();
        let token = keys.first(SessionId::generate("u"));
        let text = keys.encode(&token).unwrap();
        assert_eq!(text.expose().len(), CHARACTERS);
        let read = keys.decode(text.expose()).ok().unwrap();
        assert_eq!(read.session, token.session);
        assert_eq!(read.generation, 0);
        assert_eq!(read.digest(), token.digest());
        assert_eq!(keys.encode(&read).unwrap(), text);
        assert_eq!(format!("{text:?}"), "RefreshToken(..)");
    }

    #[test]
    fn every_changed_character_is_refused() {
        let keys = keys();
        let text = keys.encode(&keys.first(SessionId::generate("u"))).unwrap();
        let text = text.expose();
        for (at, _) in text.char_indices() {
            for other in ['A', 'B', '-', '_', '0', 'z', '=', ' '] {
                let mut changed = text.to_owned();
                changed.replace_range(at..=at, other.encode_utf8(&mut [0; 4]));
                assert_eq!(
                    keys.decode(&changed).is_ok(),
                    changed == text,
                    "{at} {other}"
                );
            }
            assert!(keys.decode(&text[..at]).is_err());
        }
        // The version stands in the first digits.
        let other_version = text.replacen("pcrt_A", "pcrt_B", 1);
        assert_eq!(
            keys.decode(&other_version).err(),
            Some(NotAToken::Malformed)
        );
        for extra in ["A", "=", "\n", " "] {
            assert!(keys.decode(&format!("{text}{extra}")).is_err());
            assert!(keys.decode(&format!("{extra}{text}")).is_err());
        }
    }

    #[test]
    fn other_servers_tokens_are_not_ours() {
        let (ours, theirs) = (keys(), keys());
        let text = theirs
            .encode(&theirs.first(SessionId::generate("u")))
            .unwrap();
        assert_eq!(
            ours.decode(text.expose()).err(),
            Some(NotAToken::UnknownKey)
        );
    }

    #[test]
    fn a_key_that_went_still_proves_and_derives() {
        let (old, new) = (Secret::generate(), Secret::generate());
        let before = Keys::new(&Secrets::new(old.clone()));
        let after = Keys::new(&Secrets::new(new).with_previous([old]));
        let token = before.first(SessionId::generate("u"));
        let text = before.encode(&token).unwrap();
        let read = after.decode(text.expose()).ok().unwrap();
        let seed = Seed::from_bytes(random());
        let one = before.successor(&token, &seed, token.key()).unwrap();
        let two = after.successor(&read, &seed, token.key()).unwrap();
        assert_eq!(before.encode(&one), after.encode(&two));
        assert_ne!(after.current(), before.current());
        let moved = after.successor(&read, &seed, after.current()).unwrap();
        assert_ne!(moved.digest(), two.digest());
        assert!(before.successor(&token, &seed, after.current()).is_none());
    }

    #[test]
    fn each_use_has_a_subkey_of_its_own() {
        let secret = Secret::generate();
        let key = Key::new(&secret);
        assert_ne!(*key.prove, *key.derive);
        for subkey in [&key.prove, &key.derive] {
            assert_ne!(secret.expose(), &subkey[..]);
            assert!(
                !subkey
                    .windows(4)
                    .any(|part| part == key.id.get().to_be_bytes())
            );
        }
        let again = Key::new(&secret);
        assert!(again.id == key.id && again.prove == key.prove && again.derive == key.derive);
        let other = Key::new(&Secret::generate());
        assert!(other.prove != key.prove && other.derive != key.derive);
    }

    #[test]
    fn a_successor_depends_on_every_part() {
        let keys = keys();
        let token = keys.first(SessionId::generate("u"));
        let seed = Seed::from_bytes([1; 32]);
        let key = keys.current();
        let digest =
            |token: &Token, seed: &Seed| keys.successor(token, seed, key).unwrap().digest();
        let reference = digest(&token, &seed);
        assert_eq!(reference, digest(&token, &seed));
        assert_ne!(reference, digest(&token, &Seed::from_bytes([2; 32])));
        let mut other = token.clone();
        other.secret[31] ^= 1;
        assert_ne!(reference, digest(&other, &seed));
        let mut other = token.clone();
        other.session = SessionId::generate("u");
        assert_ne!(reference, digest(&other, &seed));
        let mut other = token.clone();
        other.generation += 1;
        assert_ne!(reference, digest(&other, &seed));
        other.generation = u64::MAX;
        assert!(keys.successor(&other, &seed, key).is_none());
    }
}
