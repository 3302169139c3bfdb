//! What is computed for a password, and how much of it.

use std::str::FromStr as _;

use bcrypt::HashParts;
use zeroize::Zeroizing;

use crate::secret::random;

/// What [`PasswordHasher::verify`](super::PasswordHasher::verify) found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use = "a password that was not looked at opens the door to everybody"]
pub enum Verification {
    /// The password is the user's.
    Correct {
        /// The stored hash is not of the scheme and cost in use: hash the password again and
        /// replace the stored hash if it is still the one that was verified. A failure to do so
        /// must not fail the login.
        rehash_due: bool,
    },
    /// It is not, or there is no such user.
    Wrong,
}

impl Verification {
    /// Whether the password is the user's.
    #[must_use]
    pub const fn is_correct(self) -> bool {
        matches!(self, Self::Correct { .. })
    }

    /// Whether the password is the user's and should be hashed again.
    #[must_use]
    pub const fn rehash_due(self) -> bool {
        matches!(self, Self::Correct { rehash_due: true })
    }
}

/// bcrypt at the cost that new hashes get.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scheme {
    pub(super) cost: u32,
}

/// What a stored text turned out to be worth.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Verified {
    pub(super) verification: Verification,
    /// Something is stored that is not a usable hash.
    pub(super) unreadable: bool,
}

/// The costly step, apart so that a test can count it.
pub(super) trait Work {
    /// Whether `password` is that of a well-formed hash: 2^cost rounds.
    fn compare(&mut self, password: &[u8], stored: &str) -> bool;

    /// 2^cost rounds for nothing.
    fn burn(&mut self, password: &[u8], cost: u32);
}

pub(super) struct Bcrypt;

impl Scheme {
    pub(super) fn hash(self, password: &[u8]) -> Option<String> {
        bcrypt::non_truncating_hash(password, self.cost).ok()
    }

    /// Compares with the same number of rounds whatever is stored, up to the cost in use.
    pub(super) fn verify(
        self,
        password: &[u8],
        stored: Option<&str>,
        work: &mut impl Work,
    ) -> Verified {
        let cost = stored
            .and_then(|stored| HashParts::from_str(stored).ok())
            .map(|parts| parts.get_cost())
            .filter(|cost| COSTS.contains(cost));
        let verification = match (stored, cost) {
            (Some(stored), Some(cost)) => {
                let correct = work.compare(password, stored);
                // 2^c + 2^c + 2^(c+1) + … + 2^(C-1) = 2^C.
                (cost..self.cost).for_each(|cost| work.burn(password, cost));
                match correct {
                    true => Verification::Correct {
                        rehash_due: cost != self.cost,
                    },
                    false => Verification::Wrong,
                }
            }
            _ => {
                work.burn(password, self.cost);
                Verification::Wrong
            }
        };
        Verified {
            verification,
            unreadable: stored.is_some() && cost.is_none(),
        }
    }
}

impl Work for Bcrypt {
    fn compare(&mut self, password: &[u8], stored: &str) -> bool {
        bcrypt::non_truncating_verify(password, stored).unwrap_or(false)
    }

    fn burn(&mut self, password: &[u8], cost: u32) {
        let mut terminated = Zeroizing::new([0; MAX_INPUT]);
        let length = password.len().min(MAX_INPUT - 1);
        terminated[..length].copy_from_slice(&password[..length]);
        let output = bcrypt::bcrypt(cost, random(), &terminated[..=length]);
        std::hint::black_box(output);
    }
}

/// Above 16 a single hash takes seconds, and a stored one is an attack or an accident.
pub(super) const COSTS: std::ops::RangeInclusive<u32> = 4..=16;
const MAX_INPUT: usize = 72;

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Counted {
        rounds: u64,
    }

    impl Work for Counted {
        fn compare(&mut self, password: &[u8], stored: &str) -> bool {
            self.rounds += 1 << HashParts::from_str(stored).unwrap().get_cost();
            Bcrypt.compare(password, stored)
        }

        fn burn(&mut self, password: &[u8], cost: u32) {
            self.rounds += 1 << cost;
            Bcrypt.burn(password, cost);
        }
    }

    #[test]
    fn everybody_costs_the_same() {
        let scheme = Scheme { cost: 7 };
        let hash = |cost| bcrypt::hash("correct horse", cost).unwrap();
        let (oldest, old, current) = (hash(4), hash(6), hash(7));
        let too_costly = current.replace("$07$", "$31$");
        for (stored, correct) in [
            (None, false),
            (Some(""), false),
            (Some("not a hash"), false),
            (Some(&*too_costly), false),
            (Some(&*oldest), true),
            (Some(&*old), true),
            (Some(&*current), true),
        ] {
            for password in ["correct horse", "battery staple"] {
                let mut work = Counted::default();
                let verified = scheme.verify(password.as_bytes(), stored, &mut work);
                assert_eq!(work.rounds, 1 << 7, "{stored:?}");
                let expected = correct && password == "correct horse";
                assert_eq!(verified.verification.is_correct(), expected, "{stored:?}");
            }
        }
    }

    #[test]
    fn other_costs_are_due_for_a_new_hash_and_unreadable_texts_are_told() {
        let verify =
            |stored: &str| Scheme { cost: 5 }.verify(b"12345678", Some(stored), &mut Bcrypt);
        for (cost, rehash_due) in [(4, true), (5, false), (6, true)] {
            let verified = verify(&bcrypt::hash("12345678", cost).unwrap());
            let verification = Verification::Correct { rehash_due };
            assert_eq!(
                (verified.verification, verified.unreadable),
                (verification, false)
            );
        }
        assert!(verify("x").unreadable);
        assert!(
            !Scheme { cost: 4 }
                .verify(b"12345678", None, &mut Bcrypt)
                .unreadable
        );
    }
}
