//! Policies with their tables, judged together and charged together or not at all.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    key::{Key, Kind},
    policy::{MissingKey, Policy},
    store::{Address, Store},
    window::Left,
};
use crate::{head::Head, time::Monotonic};

/// One policy and what its keys have used up.
pub(super) struct Limit {
    policy: Policy,
    v4: Store,
    v6: Store,
    /// The IPv6 /48s, at [`SITE_FACTOR`] times the limit.
    sites: Store,
    digests: Store,
    missing_told: AtomicBool,
}

/// What all policies together say.
#[derive(Debug)]
pub(super) enum Decision {
    /// Every policy has been charged.
    Admitted(Option<Binding>),
    /// No policy has been charged.
    Refused(Refused),
    /// A policy has no key for the request, and takes none without.
    NoKey,
}

/// The policy that leaves least, and what it leaves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Binding {
    pub(super) policy: usize,
    pub(super) left: Left,
}

#[derive(Debug)]
pub(super) struct Refused {
    /// The policy that refuses longest.
    pub(super) binding: Binding,
    /// Nanoseconds until no policy refuses any more.
    pub(super) wait: u64,
    /// The policies that refuse.
    pub(super) policies: Vec<usize>,
}

impl Limit {
    pub(super) fn new(policy: Policy) -> Self {
        let counter = policy.counter(policy.limit());
        let sites = policy.counter(site_limit(policy.limit()));
        let capacity = policy.capacity();
        Self {
            v4: Store::v4(counter, capacity),
            v6: Store::v6(counter, capacity),
            sites: Store::sites(sites, capacity),
            digests: Store::digests(counter, capacity),
            policy,
            missing_told: AtomicBool::new(false),
        }
    }

    pub(super) fn policy(&self) -> &Policy {
        &self.policy
    }

    pub(super) fn keys(&self) -> usize {
        self.stores().map(Store::len).sum()
    }

    pub(super) fn overflowed(&self) -> u64 {
        self.stores().map(Store::overflowed).sum()
    }

    /// Whether this is the first request without a key.
    pub(super) fn tell_missing(&self) -> bool {
        !self.missing_told.swap(true, Ordering::Relaxed)
    }

    /// Forgets what a key has used up.
    pub(super) fn reset(&self, key: Key, now: Monotonic) {
        let (_, step) = self.steps(0, key);
        step.store.reset(step.address, now.as_nanos());
    }

    fn stores(&self) -> impl Iterator<Item = &Store> {
        [&self.v4, &self.v6, &self.sites, &self.digests].into_iter()
    }

    /// The slots that a key is counted in, in the order in which they are locked.
    fn steps(&self, policy: usize, key: Key) -> (Option<Step<'_>>, Step<'_>) {
        let limit = self.policy.limit();
        let step = |store, address, limit| Step {
            policy,
            store,
            address,
            limit,
            cost: self.policy.cost(),
        };
        match key.0 {
            Kind::V4(bits) => (None, step(&self.v4, Address::v4(bits), limit)),
            Kind::V6(bits) => (
                Some(step(&self.sites, Address::site(bits), site_limit(limit))),
                step(&self.v6, Address::v6(bits), limit),
            ),
            Kind::Digest(bits) => (None, step(&self.digests, Address::digest(bits), limit)),
        }
    }
}

impl fmt::Debug for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.policy.fmt(f)
    }
}

/// Judges a request by all of `limits`, and charges all of them when none refuses.
///
/// `want_left` asks for what is left after the charge. `on_missing` is told of the first request
/// of each policy that has no key.
pub(super) fn check(
    limits: &[Arc<Limit>],
    head: Head<'_>,
    now: Monotonic,
    want_left: bool,
    on_missing: impl Fn(),
) -> Decision {
    let mut run = Run {
        now: now.as_nanos(),
        want_left,
        binding: None,
        wait: 0,
        refusing: Vec::new(),
    };
    // Keys first: a closure of the user's must not run while a shard is locked.
    let key = |limit: &Limit| match limit.policy.source().key(head) {
        Some(key) => Ok(Some(key)),
        None => {
            if limit.tell_missing() {
                on_missing();
            }
            match limit.policy.missing() {
                MissingKey::Shared => Ok(Some(Key::MISSING)),
                MissingKey::Skip => Ok(None),
                MissingKey::Reject => Err(()),
            }
        }
    };
    if let [limit] = limits {
        match key(limit) {
            Ok(Some(key)) => match limit.steps(0, key) {
                (None, step) => run.walk(&mut [Some(step)].iter()),
                (site, step) => run.walk(&mut [site, Some(step)].iter()),
            },
            Ok(None) => true,
            Err(()) => return Decision::NoKey,
        };
        return run.decision();
    }
    let mut few = [const { None }; FEW];
    let mut many = Vec::new();
    let plan: &mut [Option<Step<'_>>] = if limits.len() * 2 <= FEW {
        &mut few
    } else {
        many.resize_with(limits.len() * 2, || None);
        &mut many
    };
    for (index, limit) in limits.iter().enumerate() {
        match key(limit) {
            Ok(Some(key)) => {
                let (site, step) = limit.steps(index, key);
                plan[index * 2] = site;
                plan[index * 2 + 1] = Some(step);
            }
            Ok(None) => {}
            Err(()) => return Decision::NoKey,
        }
    }
    run.walk(&mut plan.iter());
    run.decision()
}

/// A slot to judge and to charge.
#[derive(Clone, Copy)]
struct Step<'a> {
    policy: usize,
    store: &'a Store,
    address: Address,
    limit: u32,
    cost: u32,
}

struct Run {
    now: u64,
    want_left: bool,
    binding: Option<Binding>,
    wait: u64,
    refusing: Vec<usize>,
}

impl Run {
    /// Locks and judges one slot after the other, and charges them on the way back: at the end of
    /// the way every slot is locked and every judgement known. Returns whether it charges.
    ///
    /// Tables are locked in the order of the policies, which is one order for all layers that
    /// share them, so no two requests wait for each other.
    fn walk<'a>(&mut self, steps: &mut std::slice::Iter<'_, Option<Step<'a>>>) -> bool {
        let Some(step) = steps.by_ref().flatten().next() else {
            return self.refusing.is_empty();
        };
        let mut held = step.store.hold(step.address, self.now);
        match held.judge(step.limit, step.cost) {
            Ok(ticket) => {
                let charge = self.walk(steps);
                if charge {
                    held.commit(ticket, step.cost);
                    if self.want_left {
                        self.note(step.policy, held.left(step.limit));
                    }
                }
                charge
            }
            Err(wait) => {
                if self.refusing.last() != Some(&step.policy) {
                    self.refusing.push(step.policy);
                }
                if self.wait <= wait {
                    self.wait = wait;
                    self.binding = Some(Binding {
                        policy: step.policy,
                        left: held.left(step.limit),
                    });
                }
                self.walk(steps)
            }
        }
    }

    /// Keeps the tightest: fewest units, then the longest time to more.
    fn note(&mut self, policy: usize, left: Left) {
        let tighter = self.binding.is_none_or(|held| {
            (left.units, std::cmp::Reverse(left.more_in))
                < (held.left.units, std::cmp::Reverse(held.left.more_in))
        });
        if tighter {
            self.binding = Some(Binding { policy, left });
        }
    }

    fn decision(self) -> Decision {
        match self.binding {
            Some(binding) if !self.refusing.is_empty() => Decision::Refused(Refused {
                binding,
                wait: self.wait,
                policies: self.refusing,
            }),
            binding => Decision::Admitted(binding),
        }
    }
}

/// How much a /48 may use up.
fn site_limit(limit: u32) -> u32 {
    limit.saturating_mul(SITE_FACTOR)
}

const SITE_FACTOR: u32 = 16;
/// Slots of a plan that needs no allocation: four policies with a site each.
const FEW: usize = 8;
