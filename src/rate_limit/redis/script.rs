//! The scripts, and what goes to and fro.

use std::sync::LazyLock;

use hmac::{Hmac, KeyInit as _, Mac as _};
use redis::{Cmd, ErrorKind, RedisResult, Script, ServerErrorKind, aio::ConnectionLike};
use sha2::Sha256;

use super::super::{key::Kind, limits::Count};

/// One count with what the script needs to judge it.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) name: Vec<u8>,
    /// Counts of one tag lie in one slot of a cluster.
    pub(super) tag: u128,
    pub(super) is_strict: bool,
    pub(super) limit: u32,
    /// Microseconds.
    pub(super) span: u64,
    pub(super) cost: u32,
    pub(super) may_refuse: bool,
}

/// The counts of one request: all of them are charged, or none when one refuses.
#[derive(Clone, Debug)]
pub(super) struct Charge {
    pub(super) counts: Vec<Asked>,
    /// Only asks.
    pub(super) is_trial: bool,
}

/// What the script says of one count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    pub(super) admits: bool,
    pub(super) units: u32,
    /// Nanoseconds until there are more; refused, until the cost fits.
    pub(super) more_in: u64,
    pub(super) stamp: u64,
}

impl Answer {
    fn read(packed: &[u8; ANSWER]) -> Self {
        let [admits, rest @ ..] = packed;
        let (numbers, _) = rest.as_chunks::<8>();
        // Numbers of Lua, whole and below 2^53.
        let [units, more_in, stamp] =
            [0, 1, 2].map(|index| f64::from_be_bytes(numbers[index]) as u64);
        Self {
            admits: *admits == 1,
            units: u32::try_from(units).unwrap_or(u32::MAX),
            more_in: more_in.saturating_mul(1000),
            stamp,
        }
    }
}

/// Makes the names of keys.
pub(super) struct Names {
    prefix: Box<str>,
    mac: Hmac<Sha256>,
}

impl Names {
    pub(super) fn new(prefix: &str, key: &[u8; 32]) -> Self {
        Self {
            prefix: prefix.into(),
            mac: Hmac::new_from_slice(key).expect("HMAC takes a key of any length"),
        }
    }

    /// The name of a count. What stands in braces decides the cluster slot: the client, or the /48
    /// of an IPv6 client. `is_shared` is the count of a whole network.
    pub(super) fn of(
        &self,
        policy: &str,
        is_strict: bool,
        count: &Count,
        is_shared: bool,
    ) -> (u128, Vec<u8>) {
        let (tag, own) = match (count.key.0, is_shared) {
            (Kind::V4(bits), false) => (self.digest(4, &bits.to_be_bytes()), None),
            (Kind::V4(bits), true) => (self.digest(14, &(bits >> 16).to_be_bytes()), None),
            (Kind::V6(bits), true) => (self.digest(16, &(bits >> 32).to_be_bytes()), None),
            (Kind::V6(bits), false) => {
                let own = (!count.is_site).then(|| self.digest(7, &bits.to_be_bytes()));
                (self.digest(6, &(bits >> 16).to_be_bytes()), own)
            }
            (Kind::Digest(_), _) => (self.digest(0, &count.key.bytes()), None),
        };
        let algorithm = if is_strict { 's' } else { 'g' };
        let mut name = format!("{}:rl:{{{tag:032x}}}", self.prefix);
        if let Some(own) = own {
            name.push_str(&format!(":{own:032x}"));
        }
        let site = if count.is_site { "site:" } else { "" };
        name.push_str(&format!(":{site}{policy}:{algorithm}"));
        (tag, name.into_bytes())
    }

    fn digest(&self, domain: u8, bytes: &[u8]) -> u128 {
        let mut mac = self.mac.clone();
        mac.update(&[domain]);
        mac.update(bytes);
        let bytes = mac.finalize().into_bytes();
        let (halves, _) = bytes.as_slice().as_chunks::<16>();
        u128::from_be_bytes(halves[0])
    }
}

/// Judges and makes charges, one after the other.
pub(super) async fn charge(
    connection: &mut impl ConnectionLike,
    charges: &[Charge],
) -> RedisResult<Vec<Vec<Answer>>> {
    let counts = || charges.iter().flat_map(|charge| &charge.counts);
    let mut terms = Vec::with_capacity(charges.len() * 3 + counts().count() * TERMS);
    for charge in charges {
        terms.push(u8::from(!charge.is_trial));
        terms.extend((charge.counts.len() as u16).to_be_bytes());
        for count in &charge.counts {
            terms.extend([u8::from(!count.is_strict), u8::from(count.may_refuse)]);
            terms.extend(count.limit.to_be_bytes());
            terms.extend((count.span as f64).to_be_bytes());
            terms.extend(count.cost.to_be_bytes());
        }
    }
    let reply: Vec<u8> = invoke(connection, &CHARGE, |command| {
        command.arg(counts().count());
        for count in counts() {
            command.arg(&count.name);
        }
        command.arg(&terms);
    })
    .await?;
    let (answers, rest) = reply.as_chunks::<ANSWER>();
    if !rest.is_empty() || answers.len() != counts().count() {
        return Err((ErrorKind::Parse, "the script answered something else").into());
    }
    let mut answers = answers.iter().map(Answer::read);
    let of_one = |charge: &Charge| answers.by_ref().take(charge.counts.len()).collect();
    Ok(charges.iter().map(of_one).collect())
}

/// Gives charges back, each with the stamp that it was answered with.
pub(super) async fn refund(
    connection: &mut impl ConnectionLike,
    charges: &[(Asked, u64)],
) -> RedisResult<()> {
    let _: u64 = invoke(connection, &REFUND, |command| {
        command.arg(charges.len());
        for (count, _) in charges {
            command.arg(&count.name);
        }
        for (count, stamp) in charges {
            let algorithm = if count.is_strict { "s" } else { "g" };
            command.arg(algorithm).arg(count.limit).arg(count.span);
            command.arg(count.cost).arg(*stamp);
        }
    })
    .await?;
    Ok(())
}

/// Runs a script by its digest, or whole where the server does not have it. Nothing else is
/// repeated: of any other failure it is not known whether the script ran.
async fn invoke<T: redis::FromRedisValue>(
    connection: &mut impl ConnectionLike,
    script: &Loaded,
    arguments: impl Fn(&mut Cmd),
) -> RedisResult<T> {
    let mut command = redis::cmd("EVALSHA");
    command.arg(script.digest.get_hash());
    arguments(&mut command);
    match command.query_async(connection).await {
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
            let mut command = redis::cmd("EVAL");
            command.arg(script.source);
            arguments(&mut command);
            command.query_async(connection).await
        }
        // A cluster's node that does not hold the slot has run nothing, and the client knows now
        // which one does.
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::Moved) => {
            command.query_async(connection).await
        }
        answer => answer,
    }
}

struct Loaded {
    source: &'static str,
    digest: Script,
}

impl Loaded {
    fn new(source: &'static str) -> Self {
        Self {
            source,
            digest: Script::new(source),
        }
    }
}

/// Bytes for each count, to the script and back.
const TERMS: usize = 18;
const ANSWER: usize = 25;

static CHARGE: LazyLock<Loaded> = LazyLock::new(|| Loaded::new(include_str!("charge.lua")));
static REFUND: LazyLock<Loaded> = LazyLock::new(|| Loaded::new(include_str!("refund.lua")));
