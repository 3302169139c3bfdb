//! What is counted: a client's network, or 128 keyed bits of anything else.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use sha2::{Digest as _, Sha256};

use crate::{client::Client, head::Head, identity::Identity};

/// What a policy counts by.
///
/// Anything but a client's network is kept as 128 bits of its SHA-256: equal inputs are equal on all
/// instances of a service, nobody can make two that collide, and no table holds an account name or
/// an API key.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct Key(pub(super) Kind);

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum Kind {
    V4(u32),
    /// The upper half of the address: its /64.
    V6(u64),
    Digest([u64; 2]),
}

impl Key {
    /// A client's network: the IPv4 address, or the IPv6 /64.
    ///
    /// IPv4 addresses inside IPv6 ones (mapped, NAT64 `64:ff9b::/96`, 6to4 `2002::/16`) are the
    /// IPv4 address: one client has one key whatever way it came.
    ///
    /// ```
    /// use portcullis::rate_limit::Key;
    ///
    /// let key = Key::client("203.0.113.7".parse()?);
    /// assert_eq!(key, Key::client("::ffff:203.0.113.7".parse()?));
    /// assert_eq!(key, Key::client("64:ff9b::203.0.113.7".parse()?));
    /// assert_eq!(key, Key::client("2002:cb00:7107::1".parse()?));
    /// assert_ne!(key, Key::client("2001:db8::203.0.113.7".parse()?));
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    #[inline]
    #[must_use]
    pub fn client(ip: IpAddr) -> Self {
        Self(match unwrapped(ip) {
            IpAddr::V4(ip) => Kind::V4(ip.to_bits()),
            IpAddr::V6(ip) => Kind::V6((ip.to_bits() >> 64) as u64),
        })
    }

    /// Any bytes: an account's canonical name, an API key's id, a header's value.
    #[must_use]
    pub fn of(bytes: impl AsRef<[u8]>) -> Self {
        Self::digest(Domain::Custom, bytes.as_ref())
    }

    /// A subject; the key of [`Policy::by_subject`](super::Policy::by_subject).
    #[must_use]
    pub fn subject(subject: &str) -> Self {
        Self::digest(Domain::Subject, subject.as_bytes())
    }

    /// Both together: the same only when both are.
    ///
    /// ```
    /// use portcullis::rate_limit::Key;
    ///
    /// let (a, b) = (Key::of("a"), Key::of("b"));
    /// assert_ne!(a.and(b), b.and(a));
    /// ```
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let mut bytes = [0; 34];
        bytes[..17].copy_from_slice(&self.bytes());
        bytes[17..].copy_from_slice(&other.bytes());
        Self::digest(Domain::Custom, &bytes)
    }

    /// The key of a client whose address is known to be this, or to be none.
    #[inline]
    pub(super) fn of_client(ip: Option<&IpAddr>) -> Self {
        match ip {
            Some(IpAddr::V4(ip)) => Self(Kind::V4(ip.to_bits())),
            Some(ip) => Self::client(*ip),
            None => Self::LOCAL,
        }
    }

    /// The bucket of requests that have no key.
    pub(super) const MISSING: Self = Self(Kind::Digest([0, 0]));

    /// A client on this host, which has no address.
    const LOCAL: Self = Self(Kind::Digest([0, 1]));

    fn digest(domain: Domain, bytes: &[u8]) -> Self {
        let mut sha256 = Sha256::new();
        sha256.update([domain as u8]);
        sha256.update(bytes);
        let digest = sha256.finalize();
        let (halves, _) = digest.as_slice().as_chunks::<8>();
        Self(Kind::Digest([halves[0], halves[1]].map(u64::from_be_bytes)))
    }

    pub(super) fn bytes(self) -> [u8; 17] {
        let (tag, bits) = match self.0 {
            Kind::V4(bits) => (4, u128::from(bits)),
            Kind::V6(bits) => (6, u128::from(bits)),
            Kind::Digest([high, low]) => (0, u128::from(high) << 64 | u128::from(low)),
        };
        let mut bytes = [tag; 17];
        bytes[1..].copy_from_slice(&bits.to_be_bytes());
        bytes
    }
}

/// What a digest is of; equal bytes of two domains have different digests.
#[derive(Clone, Copy)]
enum Domain {
    Subject,
    Custom,
}

/// Shows which kind of key it is, not whose.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::V4(_) => "Key(IPv4)",
            Kind::V6(_) => "Key(IPv6)",
            Kind::Digest(_) => "Key(digest)",
        })
    }
}

/// Where a policy's key comes from.
#[derive(Clone)]
pub(super) enum KeySource {
    Client,
    Subject,
    Custom(Arc<dyn Fn(Head<'_>) -> Option<Key> + Send + Sync>),
}

impl KeySource {
    #[inline]
    pub(super) fn is_client(&self) -> bool {
        matches!(self, Self::Client)
    }

    #[inline]
    pub(super) fn key(&self, head: Head<'_>) -> Option<Key> {
        match self {
            Self::Client => Some(Key::of_client(Client::of(head)?.ip().as_ref())),
            Self::Subject => Some(Key::subject(head.extensions.get::<Identity>()?.subject())),
            Self::Custom(key) => key(head),
        }
    }
}

impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Subject => "subject",
            Self::Custom(_) => "custom",
        })
    }
}

/// The IPv4 address inside an IPv6 one, where a translator put one there.
#[inline]
fn unwrapped(ip: IpAddr) -> IpAddr {
    let v6 = match ip {
        IpAddr::V4(_) => return ip,
        IpAddr::V6(v6) => v6,
    };
    if let Some(v4) = v6.to_ipv4_mapped() {
        return v4.into();
    }
    let bits = v6.to_bits();
    if bits >> 32 == NAT64.to_bits() >> 32 {
        Ipv4Addr::from_bits(bits as u32).into()
    } else if v6.segments()[0] == SIX_TO_FOUR {
        Ipv4Addr::from_bits((bits >> 80) as u32).into()
    } else {
        v6.into()
    }
}

const NAT64: Ipv6Addr = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0);
const SIX_TO_FOUR: u16 = 0x2002;
