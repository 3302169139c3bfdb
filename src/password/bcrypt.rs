//! bcrypt.

use std::str::FromStr as _;

use ::bcrypt::HashParts;
use zeroize::Zeroizing;

use crate::secret::random;

/// The hash of a new password.
pub(super) fn hash(password: &[u8], cost: u32) -> Option<String> {
    ::bcrypt::non_truncating_hash(password, cost).ok()
}

/// The cost of a usable hash.
pub(super) fn cost(stored: &str) -> Option<u32> {
    let parts = HashParts::from_str(stored).ok()?;
    Some(parts.get_cost()).filter(|cost| COSTS.contains(cost))
}

/// Whether `password` is that of a usable hash: 2^cost rounds.
pub(super) fn compare(password: &[u8], stored: &str) -> bool {
    ::bcrypt::non_truncating_verify(password, stored).unwrap_or(false)
}

/// 2^cost rounds for nothing.
pub(super) fn burn(password: &[u8], cost: u32) {
    let mut terminated = Zeroizing::new([0; MAX_INPUT]);
    let length = password.len().min(MAX_INPUT - 1);
    terminated[..length].copy_from_slice(&password[..length]);
    let output = ::bcrypt::bcrypt(cost, random(), &terminated[..=length]);
    std::hint::black_box(output);
}

/// Above 16 a single hash takes seconds, and a stored one is an attack or an accident.
pub(super) const COSTS: std::ops::RangeInclusive<u32> = 4..=16;
const MAX_INPUT: usize = 72;
