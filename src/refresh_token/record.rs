//! What is known of a session, and what a store keeps of its tokens.

use std::{error, fmt, net::IpAddr, str::FromStr};

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroize;

use crate::{secret::random, time::UnixMillis};

/// The id of a session: what access tokens carry as `sid`. Not a secret.
///
/// Its first four bytes follow from the subject, so that a store which is spread over machines can
/// keep all of a subject's sessions together; twelve are random.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SessionId([u8; 16]);

impl SessionId {
    /// A fresh id for a session of `subject`.
    #[must_use]
    pub fn generate(subject: &str) -> Self {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&Self::tag_of(subject));
        bytes[4..].copy_from_slice(&random::<12>());
        Self(bytes)
    }

    /// The id of these bytes, as a store kept them.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes for a store to keep.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The part that all sessions of one subject share.
    #[must_use]
    pub const fn tag(&self) -> [u8; 4] {
        let [a, b, c, d, ..] = self.0;
        [a, b, c, d]
    }

    /// The tag of a subject's sessions.
    #[must_use]
    pub fn tag_of(subject: &str) -> [u8; 4] {
        let mut hash = Sha256::new();
        hash.update(b"portcullis session of subject\0");
        hash.update(subject);
        let hash: [u8; 32] = hash.finalize().into();
        let [a, b, c, d, ..] = hash;
        [a, b, c, d]
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({self})")
    }
}

/// A text that is not a session's id.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NotASessionId;

impl fmt::Display for NotASessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a session id has 32 lower-case hexadecimal digits")
    }
}

impl error::Error for NotASessionId {}

impl FromStr for SessionId {
    type Err = NotASessionId;

    fn from_str(text: &str) -> Result<Self, NotASessionId> {
        let digits = <[u8; 32]>::try_from(text.as_bytes()).map_err(|_| NotASessionId)?;
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let (Some(high), Some(low)) = (hex_digit(pair[0]), hex_digit(pair[1])) else {
                return Err(NotASessionId);
            };
            *byte = high << 4 | low;
        }
        Ok(Self(bytes))
    }
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

macro_rules! bytes32 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub struct $name([u8; 32]);

        impl $name {
            /// The value of these bytes, as a store kept them.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The bytes for a store to keep.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.0.ct_eq(&other.0).into()
            }
        }

        impl Eq for $name {}

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    };
}

bytes32! {
    /// The digest of a token: what a store keeps instead. It opens nothing.
    TokenDigest
}
bytes32! {
    /// What the winner of a rotation left for the others inside the grace window. It opens nothing
    /// without the token before and the server's key.
    Seed
}

impl TokenDigest {
    /// The digest of a token's secret. It depends on no key, so a changed key leaves it valid.
    pub(super) fn of(secret: &[u8; 32]) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"portcullis refresh token digest v1\0");
        hash.update(secret);
        Self(hash.finalize().into())
    }
}

impl Zeroize for Seed {
    fn zeroize(&mut self) {
        self.0.zeroize();
    }
}

/// Which key a token was made with. Follows from the key; not a secret.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct KeyId(u32);

impl KeyId {
    /// The id of this number, as a store kept it.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number for a store to keep.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// What a user sees of the place that a session runs at. Texts are cut at 256 characters and hold
/// no control characters.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Device {
    /// A name for the device.
    pub label: Option<String>,
    /// What its `User-Agent` said.
    pub user_agent: Option<String>,
    /// Where it was last seen.
    pub ip: Option<IpAddr>,
}

impl Device {
    /// A device of which nothing is known.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            label: None,
            user_agent: None,
            ip: None,
        }
    }

    /// Adds a name.
    #[must_use]
    pub fn with_label(self, label: &str) -> Self {
        Self {
            label: Some(tidy(label)),
            ..self
        }
    }

    /// Adds what the `User-Agent` said.
    #[must_use]
    pub fn with_user_agent(self, user_agent: &str) -> Self {
        Self {
            user_agent: Some(tidy(user_agent)),
            ..self
        }
    }

    /// Adds the address of the client.
    #[must_use]
    pub fn with_ip(self, ip: impl Into<Option<IpAddr>>) -> Self {
        Self {
            ip: ip.into().map(|ip| ip.to_canonical()),
            ..self
        }
    }
}

fn tidy(text: &str) -> String {
    text.chars()
        .filter(|character| !character.is_control())
        .take(MAX_CHARACTERS)
        .collect()
}

/// A session, without anything of its tokens.
///
/// Exhaustive on purpose: a store that forgets a field does not compile.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SessionRecord {
    /// Its id.
    pub id: SessionId,
    /// Whose it is.
    pub subject: String,
    /// When it began: the login.
    pub created_at: UnixMillis,
    /// When it was last refreshed.
    pub last_used_at: UnixMillis,
    /// When it ends unless it is refreshed; never after [`absolute_end`](Self::absolute_end).
    pub expires_at: UnixMillis,
    /// When it ends however often it is refreshed.
    pub absolute_end: UnixMillis,
    /// Where it runs.
    pub device: Device,
    /// When and why it was ended before its time.
    pub ended: Option<Ended>,
}

impl SessionRecord {
    /// Whether it can still be refreshed at `now`: it was not ended, and `now` is before its end.
    #[must_use]
    pub fn is_live(&self, now: UnixMillis) -> bool {
        self.ended.is_none() && now < self.expires_at
    }
}

/// How a session was ended before its time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ended {
    /// When.
    pub at: UnixMillis,
    /// Why.
    pub reason: EndReason,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal;)*) => {
        /// Why a session was ended.
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        #[non_exhaustive]
        pub enum EndReason {
            $($(#[$doc])* $variant,)*
        }

        impl EndReason {
            /// Every reason there is.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name that stores and events carry.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// The reason of that name; a name from a later version is [`EndReason::Other`].
            #[must_use]
            pub fn from_name(name: &str) -> Self {
                match name {
                    $($name => Self::$variant,)*
                    _ => Self::Other,
                }
            }
        }
    };
}

reasons! {
    /// Its user logged out.
    Logout = "logout";
    /// Its user ended it from another session.
    LogoutElsewhere = "logout_elsewhere";
    /// One of its tokens was used again after it was rotated away: somebody has a copy.
    Reuse = "reuse";
    /// A token came that the store has never seen: the store lost writes.
    Rollback = "rollback";
    /// The password was changed.
    PasswordChange = "password_change";
    /// An administrator ended it.
    Administrator = "administrator";
    /// The user began more sessions than allowed.
    SessionLimit = "session_limit";
    /// A new login from the same browser took its place.
    Replaced = "replaced";
    /// The user may no longer log in.
    SubjectDisabled = "subject_disabled";
    /// Something that this version has no name for.
    Other = "other";
}

const MAX_CHARACTERS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_back_and_share_the_subjects_tag() {
        let id = SessionId::generate("user-1");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.tag(), SessionId::tag_of("user-1"));
        assert_ne!(id, SessionId::generate("user-1"));
        assert_ne!(id.tag(), SessionId::tag_of("user-2"));
        let upper = id.to_string().to_uppercase();
        for text in [
            "",
            "00",
            &upper,
            &format!("{id}0"),
            "+0000000000000000000000000000000",
        ] {
            assert_eq!(
                text.parse::<SessionId>().is_ok(),
                text == id.to_string(),
                "{text}"
            );
        }
    }

    #[test]
    fn reasons_read_back() {
        for reason in EndReason::ALL {
            assert_eq!(EndReason::from_name(reason.as_str()), *reason);
        }
        assert_eq!(EndReason::from_name("from the future"), EndReason::Other);
    }

    #[test]
    fn device_texts_are_tidy() {
        let device = Device::new()
            .with_label("a\nb\0c\u{9b}d")
            .with_user_agent(&"é".repeat(300))
            .with_ip("::ffff:203.0.113.7".parse::<IpAddr>().ok());
        assert_eq!(device.label.as_deref(), Some("abcd"));
        assert_eq!(
            device.user_agent.map(|text| text.chars().count()),
            Some(256)
        );
        assert_eq!(
            device.ip.map(|ip| ip.to_string()).as_deref(),
            Some("203.0.113.7")
        );
    }

    #[test]
    fn nothing_secret_is_shown() {
        let shown = format!("{:?} {:?}", TokenDigest([0xab; 32]), Seed([0xcd; 32]));
        assert_eq!(shown, "TokenDigest(..) Seed(..)");
    }
}
