//! What is computed for a password, and how much of it.

#[cfg(feature = "argon2")]
use super::argon2id::{Argon2id, Stored};
use super::bcrypt;

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

    fn of(correct: bool, rehash_due: bool) -> Self {
        match correct {
            true => Self::Correct { rehash_due },
            false => Self::Wrong,
        }
    }
}

/// The schemes whose hashes count. At least one is there; new hashes are Argon2id where it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scheme {
    /// The cost of new hashes, and the work for stored ones of a lower cost.
    pub(super) bcrypt: Option<u32>,
    #[cfg(feature = "argon2")]
    pub(super) argon2id: Option<Argon2id>,
}

/// What a stored text turned out to be worth.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Verified {
    pub(super) verification: Verification,
    /// Something is stored that is not a usable hash.
    pub(super) unreadable: bool,
}

/// The costly steps, apart so that a test can count them.
pub(super) trait Work {
    fn bcrypt(&mut self, password: &[u8], stored: &str) -> bool;
    fn burn_bcrypt(&mut self, password: &[u8], cost: u32);
    #[cfg(feature = "argon2")]
    fn argon2id(&mut self, password: &[u8], stored: &Stored) -> bool;
    #[cfg(feature = "argon2")]
    fn burn_argon2id(&mut self, password: &[u8], work: Argon2id);
}

pub(super) struct Worker;

impl Scheme {
    /// bcrypt at `cost`.
    pub(super) const fn bcrypt(cost: u32) -> Self {
        Self {
            bcrypt: Some(cost),
            #[cfg(feature = "argon2")]
            argon2id: None,
        }
    }

    pub(super) fn hash(self, password: &[u8]) -> Option<String> {
        #[cfg(feature = "argon2")]
        if let Some(argon2id) = self.argon2id {
            return argon2id.hash(password);
        }
        bcrypt::hash(password, self.bcrypt?)
    }

    /// Compares with the same work whatever is stored, up to the costs in use: that of every scheme
    /// whose hashes count.
    pub(super) fn verify(
        self,
        password: &[u8],
        stored: Option<&str>,
        work: &mut impl Work,
    ) -> Verified {
        let found = self.verify_bcrypt(password, stored, work);
        #[cfg(feature = "argon2")]
        let found = self.verify_argon2id(password, stored, work).or(found);
        Verified {
            verification: found.unwrap_or(Verification::Wrong),
            unreadable: stored.is_some() && found.is_none(),
        }
    }

    /// The work of bcrypt; `None` when nothing is stored that it could be compared with.
    fn verify_bcrypt(
        self,
        password: &[u8],
        stored: Option<&str>,
        work: &mut impl Work,
    ) -> Option<Verification> {
        let target = self.bcrypt?;
        let stored = stored.and_then(|stored| Some((stored, bcrypt::cost(stored)?)));
        let Some((stored, cost)) = stored else {
            work.burn_bcrypt(password, target);
            return None;
        };
        let correct = work.bcrypt(password, stored);
        // 2^c + 2^c + 2^(c+1) + … + 2^(C-1) = 2^C.
        (cost..target).for_each(|cost| work.burn_bcrypt(password, cost));
        Some(Verification::of(correct, !self.makes_bcrypt(cost)))
    }

    /// The work of Argon2id; `None` when nothing is stored that it could be compared with.
    #[cfg(feature = "argon2")]
    fn verify_argon2id(
        self,
        password: &[u8],
        stored: Option<&str>,
        work: &mut impl Work,
    ) -> Option<Verification> {
        let target = self.argon2id?;
        let Some(stored) = stored.and_then(Stored::read) else {
            work.burn_argon2id(password, target);
            return None;
        };
        let correct = work.argon2id(password, &stored);
        if let Some(rest) = target.rest(stored.made_with) {
            work.burn_argon2id(password, rest);
        }
        Some(Verification::of(correct, stored.made_with != target))
    }

    fn makes_bcrypt(self, cost: u32) -> bool {
        #[cfg(feature = "argon2")]
        if self.argon2id.is_some() {
            return false;
        }
        self.bcrypt == Some(cost)
    }
}

impl Work for Worker {
    fn bcrypt(&mut self, password: &[u8], stored: &str) -> bool {
        bcrypt::compare(password, stored)
    }

    fn burn_bcrypt(&mut self, password: &[u8], cost: u32) {
        bcrypt::burn(password, cost);
    }

    #[cfg(feature = "argon2")]
    fn argon2id(&mut self, password: &[u8], stored: &Stored) -> bool {
        stored.compare(password)
    }

    #[cfg(feature = "argon2")]
    fn burn_argon2id(&mut self, password: &[u8], work: Argon2id) {
        work.burn(password);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Counted {
        rounds: u64,
        #[cfg(feature = "argon2")]
        blocks: u64,
    }

    impl Work for Counted {
        fn bcrypt(&mut self, password: &[u8], stored: &str) -> bool {
            self.rounds += 1 << bcrypt::cost(stored).unwrap();
            Worker.bcrypt(password, stored)
        }

        fn burn_bcrypt(&mut self, password: &[u8], cost: u32) {
            self.rounds += 1 << cost;
            Worker.burn_bcrypt(password, cost);
        }

        #[cfg(feature = "argon2")]
        fn argon2id(&mut self, password: &[u8], stored: &Stored) -> bool {
            self.blocks += stored.made_with.blocks();
            Worker.argon2id(password, stored)
        }

        #[cfg(feature = "argon2")]
        fn burn_argon2id(&mut self, password: &[u8], work: Argon2id) {
            self.blocks += work.blocks();
            Worker.burn_argon2id(password, work);
        }
    }

    #[test]
    fn everybody_costs_the_same() {
        let scheme = Scheme::bcrypt(7);
        let hash = |cost| bcrypt::hash(b"correct horse", cost).unwrap();
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
            |stored: &str| Scheme::bcrypt(5).verify(b"12345678", Some(stored), &mut Worker);
        for (cost, rehash_due) in [(4, true), (5, false), (6, true)] {
            let verified = verify(&bcrypt::hash(b"12345678", cost).unwrap());
            let verification = Verification::Correct { rehash_due };
            assert_eq!(
                (verified.verification, verified.unreadable),
                (verification, false)
            );
        }
        assert!(verify("x").unreadable);
        assert!(
            !Scheme::bcrypt(4)
                .verify(b"12345678", None, &mut Worker)
                .unreadable
        );
    }

    #[cfg(feature = "argon2")]
    #[test]
    fn everybody_costs_the_same_while_two_schemes_are_in_use() {
        let weak = Argon2id::new(7 * 1024, 5, 1).unwrap();
        let strong = Argon2id::new(9 * 1024, 4, 1).unwrap();
        let scheme = Scheme {
            bcrypt: Some(5),
            argon2id: Some(strong),
        };
        let password = b"correct horse";
        let of_bcrypt = [4, 5].map(|cost| bcrypt::hash(password, cost).unwrap());
        let of_argon2id = [weak, strong].map(|params| params.hash(password).unwrap());
        let argon2i = of_argon2id[0].replace("argon2id", "argon2i");
        let endless = of_argon2id[0].replace("t=5", "t=33");
        for (stored, rehash_due) in [
            (None, None),
            (Some("not a hash"), None),
            (Some(&*argon2i), None),
            (Some(&*endless), None),
            (Some(&*of_bcrypt[0]), Some(true)),
            (Some(&*of_bcrypt[1]), Some(true)),
            (Some(&*of_argon2id[0]), Some(true)),
            (Some(&*of_argon2id[1]), Some(false)),
        ] {
            for password in [&b"correct horse"[..], b"battery staple"] {
                let mut work = Counted::default();
                let verified = scheme.verify(password, stored, &mut work);
                assert_eq!(work.rounds, 1 << 5, "{stored:?}");
                assert_eq!(work.blocks, strong.blocks(), "{stored:?}");
                let verification = match rehash_due {
                    Some(rehash_due) if password == b"correct horse" => {
                        Verification::Correct { rehash_due }
                    }
                    _ => Verification::Wrong,
                };
                assert_eq!(verified.verification, verification, "{stored:?}");
                let unreadable = stored.is_some() && rehash_due.is_none();
                assert_eq!(verified.unreadable, unreadable, "{stored:?}");
            }
        }
    }
}
