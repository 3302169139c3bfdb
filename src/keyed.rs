//! 128-bit keyed digests: what stands in a table for anything that a client chooses.

use std::{hash::Hasher as _, sync::OnceLock};

use siphasher::sip128::{Hasher128 as _, SipHasher13};

use crate::secret::random;

/// A digest under the key of this process: equal inputs are equal, and nobody outside can find two
/// that collide.
pub(crate) fn digest(domain: Domain, bytes: &[u8]) -> u128 {
    static KEY: OnceLock<[u8; 16]> = OnceLock::new();
    let mut hasher = SipHasher13::new_with_key(KEY.get_or_init(random));
    hasher.write_u8(domain as u8);
    hasher.write(bytes);
    hasher.finish128().as_u128()
}

/// What a digest is of; equal bytes of two domains have different digests.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Domain {
    Session,
    Token,
    Subject,
    Custom,
}
