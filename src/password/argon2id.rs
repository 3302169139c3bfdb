//! Argon2id (RFC 9106).

use argon2::{
    ARGON2ID_IDENT, Algorithm, Argon2, Block, Params, Version,
    password_hash::phc::{Output, ParamsString, PasswordHash, Salt},
};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::{error::ConfigError, secret::random};

/// How much memory and work an Argon2id hash takes.
///
/// The default is the first choice of OWASP's Password Storage Cheat Sheet: 19 MiB, two iterations,
/// one lane.
///
/// Deployment caveat: as many hashes run at a time as the hasher's
/// [queue](super::PasswordHasher::with_queue) admits, and each takes this memory while it runs.
///
/// ```
/// use portcullis::password::Argon2id;
///
/// let strong = Argon2id::new(64 * 1024, 3, 1)?; // 64 MiB
/// assert!(Argon2id::new(4 * 1024, 1, 1).is_err());
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Argon2id {
    memory_kib: u32,
    iterations: u32,
    lanes: u32,
}

impl Argon2id {
    /// Hashes of `memory_kib` KiB of memory that is gone over `iterations` times, in `lanes` that
    /// an attacker can compute side by side (here they are computed one after the other).
    ///
    /// # Errors
    /// When it is less than OWASP asks for: 46 MiB at one iteration, 19 at two, 12 at three, 9 at
    /// four, 7 at five and more. Above 1 GiB, 32 iterations or 16 lanes, which take seconds.
    pub fn new(memory_kib: u32, iterations: u32, lanes: u32) -> Result<Self, ConfigError> {
        let least = match iterations {
            0 => u32::MAX,
            1 => 46 * MIB,
            2 => 19 * MIB,
            3 => 12 * MIB,
            4 => 9 * MIB,
            _ => 7 * MIB,
        };
        let chosen = Self {
            memory_kib,
            iterations,
            lanes,
        };
        match memory_kib >= least && chosen.is_bearable() {
            true => Ok(chosen),
            false => Err(ConfigError::new(
                "Argon2id parameters",
                "must be 1 to 32 iterations, 1 to 16 lanes and at most 1 GiB, and at least 46 MiB \
                 at one iteration, 19 at two, 12 at three, 9 at four, 7 at more",
            )),
        }
    }

    /// Whether a hash of these takes a bounded time and memory.
    fn is_bearable(self) -> bool {
        (1..=16).contains(&self.lanes)
            && (1..=32).contains(&self.iterations)
            && (8 * self.lanes..=1024 * MIB).contains(&self.memory_kib)
    }

    /// How many blocks of 1 KiB a hash computes.
    pub(super) fn blocks(self) -> u64 {
        u64::from(self.memory_kib) * u64::from(self.iterations)
    }

    /// The hash of a new password.
    pub(super) fn hash(self, password: &[u8]) -> Option<String> {
        let salt: [u8; SALT] = random();
        let output = self.derive(password, &salt, OUTPUT)?;
        let hash = PasswordHash {
            algorithm: ARGON2ID_IDENT,
            version: Some(Version::V0x13.into()),
            params: ParamsString::try_from(&self.params(OUTPUT)?).ok()?,
            salt: Salt::new(&salt).ok(),
            hash: Some(output),
        };
        Some(hash.to_string())
    }

    /// As much work as [`hash`](Self::hash), for nothing.
    pub(super) fn burn(self, password: &[u8]) {
        let output = self.derive(password, &random::<SALT>(), OUTPUT);
        std::hint::black_box(output);
    }

    /// What is missing of this much work once `done` was done, in blocks alike in kind.
    pub(super) fn rest(self, done: Self) -> Option<Self> {
        let blocks = self.blocks().saturating_sub(done.blocks());
        let rest = Self {
            memory_kib: u32::try_from(blocks / u64::from(self.iterations)).ok()?,
            ..self
        };
        rest.is_bearable().then_some(rest)
    }

    fn derive(self, password: &[u8], salt: &[u8], length: usize) -> Option<Output> {
        let params = self.params(length)?;
        let mut output = [0; Output::MAX_LENGTH];
        let output = &mut output[..length];
        // The first blocks follow from the password at next to no cost: they would let whoever
        // finds them in freed memory try passwords without Argon2's.
        let mut memory = Zeroizing::new(vec![Block::default(); params.block_count()]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into_with_memory(password, salt, output, &mut memory[..])
            .ok()?;
        Output::new(output).ok()
    }

    fn params(self, output: usize) -> Option<Params> {
        Params::new(self.memory_kib, self.iterations, self.lanes, Some(output)).ok()
    }
}

impl Default for Argon2id {
    fn default() -> Self {
        Self {
            memory_kib: 19 * MIB,
            iterations: 2,
            lanes: 1,
        }
    }
}

/// A stored hash, read.
pub(super) struct Stored {
    pub(super) made_with: Argon2id,
    salt: Salt,
    output: Output,
}

impl Stored {
    /// Reads a usable hash: Argon2id version 1.3 in PHC format, within bounds, of at least 16 bytes.
    pub(super) fn read(text: &str) -> Option<Self> {
        let hash = PasswordHash::new(text).ok()?;
        let params = Params::try_from(&hash).ok()?;
        let made_with = Argon2id {
            memory_kib: params.m_cost(),
            iterations: params.t_cost(),
            lanes: params.p_cost(),
        };
        let plain = params.keyid().is_empty() && params.data().is_empty();
        let usable = hash.algorithm == ARGON2ID_IDENT
            && hash.version == Some(Version::V0x13.into())
            && plain
            && made_with.is_bearable();
        let (salt, output) = (hash.salt?, hash.hash?);
        (usable && output.len() >= MIN_OUTPUT).then_some(Self {
            made_with,
            salt,
            output,
        })
    }

    /// Whether it is the hash of `password`.
    pub(super) fn compare(&self, password: &[u8]) -> bool {
        let output = self
            .made_with
            .derive(password, &self.salt, self.output.len());
        output.is_some_and(|output| output.as_bytes().ct_eq(self.output.as_bytes()).into())
    }
}

const MIB: u32 = 1024;
const SALT: usize = 16;
const OUTPUT: usize = 32;
const MIN_OUTPUT: usize = 16;
