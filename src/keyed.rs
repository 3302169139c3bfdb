//! 128-bit keyed digests: what stands in a table for anything that a client chooses.

use std::sync::OnceLock;

use siphasher::sip128::SipHasher13;

use crate::secret::random;

/// A digest under a key that this process has for the domain: equal inputs are equal, and nobody
/// outside can find two that collide.
pub(crate) fn digest(domain: Domain, bytes: &[u8]) -> u128 {
    static HASHERS: OnceLock<[SipHasher13; DOMAINS]> = OnceLock::new();
    let hashers =
        HASHERS.get_or_init(|| std::array::from_fn(|_| SipHasher13::new_with_key(&random())));
    hashers[domain as usize].hash(bytes).as_u128()
}

/// What a digest is of; equal bytes of two domains have different digests.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Domain {
    Session,
    Token,
    Subject,
    Custom,
}

const DOMAINS: usize = Domain::Custom as usize + 1;
