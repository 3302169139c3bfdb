//! Policies with their tables, judged together and charged together or not at all.

use std::{
    cmp::Reverse,
    fmt, slice,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
};

use http::Extensions;

use super::{
    fields::item,
    key::{Key, Kind},
    policy::{MissingKey, Policy},
    store::{Address, AddressKind, Store},
    window::{Charged, Left},
};
use crate::{
    client::{Client, CountedBy},
    head::Head,
    time::Monotonic,
};

/// One policy and what its keys have used up.
pub(super) struct Limit {
    id: u64,
    policy: Policy,
    is_plain: bool,
    /// The name as it stands in the fields.
    item: Box<[u8]>,
    /// The limit in force, which may have changed since the policy was made.
    current: AtomicU32,
    changes: AtomicU64,
    v4: Store,
    v6: Store,
    /// The IPv6 /48s, at [`SITE_FACTOR`] times the limit.
    sites: Store,
    digests: Store,
    missing_told: AtomicBool,
    twice_told: AtomicBool,
    shadow_refusals: AtomicU64,
}

/// What all policies together say.
#[derive(Debug)]
pub(super) enum Decision {
    /// Every policy has been charged.
    Admitted(Outcome),
    /// No policy has been charged.
    Refused(Refused),
    /// A policy has no key for the request, and takes none without.
    NoKey,
}

#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) binding: Option<Binding>,
    /// What can be given back.
    pub(super) receipts: Vec<Receipt>,
    /// Whether a policy in shadow would have refused.
    pub(super) shadowed: bool,
}

#[cfg(feature = "redis")]
impl Outcome {
    /// Of a request that nothing was charged for.
    pub(super) const UNCHARGED: Self = Self {
        binding: None,
        receipts: Vec::new(),
        shadowed: false,
    };
}

/// The policy that leaves least, and what it leaves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Binding {
    pub(super) policy: u32,
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

/// One charge of one slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Receipt {
    pub(super) policy: usize,
    address: Address,
    quota: Option<u32>,
    charged: Charged,
    #[cfg(feature = "redis")]
    is_shared: bool,
}

/// A count that a request goes into, as other instances know it too.
#[cfg(feature = "redis")]
#[derive(Clone, Copy, Debug)]
pub(super) struct Count {
    pub(super) policy: usize,
    pub(super) key: Key,
    pub(super) is_site: bool,
    pub(super) limit: u32,
}

#[cfg(feature = "redis")]
impl Receipt {
    pub(super) fn is_of(&self, count: &Count) -> bool {
        self.policy == count.policy && (self.address.kind() == AddressKind::Site) == count.is_site
    }

    /// Whether the key had no entry of its own, for want of room.
    pub(super) fn is_shared(&self) -> bool {
        self.is_shared
    }
}

impl Limit {
    pub(super) fn new(policy: Policy) -> Self {
        let (limit, capacity) = (policy.limit(), policy.capacity());
        let (counter, site) = (policy.counter(limit), site_limit(limit));
        Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            current: AtomicU32::new(limit),
            changes: AtomicU64::new(0),
            v4: Store::new(AddressKind::V4, counter, limit, capacity),
            v6: Store::new(AddressKind::V6, counter, limit, capacity),
            sites: Store::new(AddressKind::Site, policy.counter(site), site, capacity),
            digests: Store::new(AddressKind::Digest, counter, limit, capacity),
            item: item(policy.name()).into(),
            is_plain: policy.is_plain(),
            policy,
            missing_told: AtomicBool::new(false),
            twice_told: AtomicBool::new(false),
            shadow_refusals: AtomicU64::new(0),
        }
    }

    pub(super) fn policy(&self) -> &Policy {
        &self.policy
    }

    pub(super) fn item(&self) -> &[u8] {
        &self.item
    }

    /// Charges a request when that is a matter of one slot, as [`Store::charge`] does; `None` says
    /// nothing but that it takes [`check`] to find out.
    #[inline]
    pub(super) fn charge(
        &self,
        extensions: &mut Extensions,
        now: Monotonic,
        want_left: bool,
        left: &mut Left,
    ) -> Option<Result<(), u64>> {
        if !self.is_plain {
            return None;
        }
        let (ip, by) = Client::at_hand(extensions)?;
        let Kind::V4(bits) = Key::of_client(ip).0 else {
            return None;
        };
        if by.has(self.mark()) {
            return None;
        }
        // Before it is known whether it is admitted: a request that is refused meets nothing more.
        by.note(self.mark());
        let (address, cost) = (Address::v4(bits), self.policy.cost());
        let now = now.as_nanos();
        Some(self.v4.charge(address, now, cost, want_left, left))
    }

    /// The limit in force.
    pub(super) fn current(&self) -> u32 {
        self.current.load(Ordering::Relaxed)
    }

    /// How often the limit has changed.
    #[inline]
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Holds all keys to another limit from now on; what they have used up stays used up.
    pub(super) fn change(&self, limit: u32) {
        self.current.store(limit, Ordering::Relaxed);
        let (counter, site) = (self.policy.counter(limit), site_limit(limit));
        for store in [&self.v4, &self.v6, &self.digests] {
            store.change(counter, limit);
        }
        self.sites.change(self.policy.counter(site), site);
        self.changes.fetch_add(1, Ordering::Release);
    }

    pub(super) fn keys(&self) -> usize {
        self.stores().map(Store::len).sum()
    }

    pub(super) fn overflowed(&self) -> u64 {
        self.stores().map(Store::overflowed).sum()
    }

    pub(super) fn shadow_refusals(&self) -> u64 {
        self.shadow_refusals.load(Ordering::Relaxed)
    }

    /// Forgets what a key has used up.
    pub(super) fn reset(&self, key: Key, now: Monotonic) {
        let (_, step) = self.steps(0, key, None);
        step.store.reset(step.address, now.as_nanos());
    }

    /// What is left to a key: of its own limit, or of its site's where that is less.
    pub(super) fn left(&self, key: Key, now: Monotonic) -> Left {
        let (site, step) = self.steps(0, key, None);
        let left = |step: Step<'_>| step.store.hold(step.address, now.as_nanos()).left(None);
        let own = left(step);
        match site.map(left) {
            Some(site) if tightness(site) < tightness(own) => site,
            _ => own,
        }
    }

    /// Gives a charge back.
    pub(super) fn refund(&self, receipt: &Receipt, now: Monotonic) {
        let store = match receipt.address.kind() {
            AddressKind::V4 => &self.v4,
            AddressKind::V6 => &self.v6,
            AddressKind::Site => &self.sites,
            AddressKind::Digest => &self.digests,
        };
        store
            .hold(receipt.address, now.as_nanos())
            .refund(receipt.charged, receipt.quota);
    }

    /// The counts that a key goes into: its /48's first, where it has one.
    #[cfg(feature = "redis")]
    pub(super) fn counts(
        &self,
        policy: usize,
        counted: Counted,
    ) -> impl Iterator<Item = Count> + use<> {
        let Counted { key, quota } = counted;
        let current = self.current();
        let limit = quota.map_or(current, |quota| quota.min(current));
        let own = Count {
            policy,
            key,
            is_site: false,
            limit,
        };
        let site = matches!(key.0, Kind::V6(_)).then_some(Count {
            is_site: true,
            limit: site_limit(limit),
            ..own
        });
        site.into_iter().chain([own])
    }

    /// What no other limit of this process has.
    #[cfg(feature = "redis")]
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// The same where there is room for 32 bits; 0, which marks nothing, past them.
    #[inline]
    fn mark(&self) -> u32 {
        u32::try_from(self.id).unwrap_or(0)
    }

    #[cfg(feature = "redis")]
    pub(super) fn note_shadow_refusal(&self) {
        self.shadow_refusals.fetch_add(1, Ordering::Relaxed);
    }

    fn stores(&self) -> impl Iterator<Item = &Store> {
        [&self.v4, &self.v6, &self.sites, &self.digests].into_iter()
    }

    /// The slots that a key is counted in, in the order in which they are locked.
    #[inline]
    fn steps(&self, policy: usize, key: Key, quota: Option<u32>) -> (Option<Step<'_>>, Step<'_>) {
        let step = |store, address, quota| Step {
            policy,
            limit: self,
            store,
            address,
            quota,
        };
        match key.0 {
            Kind::V4(bits) => (None, step(&self.v4, Address::v4(bits), quota)),
            Kind::V6(bits) => (
                Some(step(
                    &self.sites,
                    Address::site(bits),
                    quota.map(site_limit),
                )),
                step(&self.v6, Address::v6(bits), quota),
            ),
            Kind::Digest(bits) => (None, step(&self.digests, Address::digest(bits), quota)),
        }
    }
}

impl fmt::Debug for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.policy.fmt(f)
    }
}

/// Charges a request to all of `limits` when that is a matter of one slot of each and all of them
/// admit it, and returns the tightest with `want_left`; `None` says that nothing has been
/// charged, and that it takes [`check`] to find out more.
pub(super) fn charge_all(
    limits: &[Arc<Limit>],
    extensions: &mut Extensions,
    now: Monotonic,
    want_left: bool,
) -> Option<Option<Binding>> {
    let (ip, by) = Client::at_hand(extensions)?;
    let Kind::V4(bits) = Key::of_client(ip).0 else {
        return None;
    };
    let mut noted = *by;
    for limit in limits {
        if !limit.is_plain || noted.has(limit.mark()) {
            return None;
        }
        noted.note(limit.mark());
    }
    let mut run = Run::new(now, want_left);
    if !run.charge_each(limits, Address::v4(bits), 0) {
        return None;
    }
    *by = noted;
    Some(run.binding)
}

/// Judges a request by all of `limits`, and charges all of them when none refuses.
///
/// Policies that the request has been counted `by` leave it alone, and those that count it are noted
/// there. `want_left` asks for what is left after the charge. `tell` is told of the first
/// request of each policy that has no key, or comes a second time.
#[inline]
pub(super) fn check(
    limits: &[Arc<Limit>],
    head: Head<'_>,
    now: Monotonic,
    want_left: bool,
    by: &mut CountedBy,
    tell: impl Fn(&'static str),
) -> Decision {
    // Keys first: a closure of the user's must not run while a shard is locked.
    let mut few = [const { None }; FEW];
    let mut many = Vec::new();
    let counted: &mut [Option<Counted>] = if limits.len() <= FEW {
        &mut few[..limits.len()]
    } else {
        many.resize_with(limits.len(), || None);
        &mut many
    };
    if !count(limits, head, counted, by, tell) {
        return Decision::NoKey;
    }
    let mut run = Run::new(now, want_left);
    run.walk(limits, counted, 0);
    run.decision()
}

/// Finds out what a request is counted by; false when a policy takes none without a key.
#[inline]
fn count(
    limits: &[Arc<Limit>],
    head: Head<'_>,
    counted: &mut [Option<Counted>],
    by: &mut CountedBy,
    tell: impl Fn(&'static str),
) -> bool {
    let mut client = None;
    for (limit, counted) in limits.iter().zip(counted) {
        if by.has(limit.mark()) {
            if !limit.twice_told.swap(true, Ordering::Relaxed) {
                tell("applied_twice");
            }
            continue;
        }
        let source = limit.policy.source();
        let key = match client {
            Some(_) if source.is_client() => client,
            _ => source.key(head),
        };
        if source.is_client() {
            client = key;
        }
        let key = match (key, limit.policy.missing()) {
            (Some(key), _) => key,
            (None, missing) => {
                if !limit.missing_told.swap(true, Ordering::Relaxed) {
                    tell("missing_key");
                }
                match missing {
                    MissingKey::Shared => Key::MISSING,
                    MissingKey::Skip => continue,
                    MissingKey::Reject => return false,
                }
            }
        };
        let quota = limit.policy.quota(head);
        *counted = Some(Counted { key, quota });
        // Before it is known whether all admit it: a request that is refused meets nothing more.
        by.note(limit.mark());
    }
    true
}

/// What a request is counted by, kept beyond its head; `None` when a policy takes none without a
/// key.
#[cfg(feature = "redis")]
pub(super) fn counted(
    limits: &[Arc<Limit>],
    head: Head<'_>,
    by: &mut CountedBy,
    tell: impl Fn(&'static str),
) -> Option<Box<[Option<Counted>]>> {
    let mut counted = vec![None; limits.len()].into_boxed_slice();
    count(limits, head, &mut counted, by, tell).then_some(counted)
}

/// Judges and charges what a request is counted by, and keeps a receipt of every charge.
#[cfg(feature = "redis")]
pub(super) fn charge_counted(
    limits: &[Arc<Limit>],
    counted: &[Option<Counted>],
    now: Monotonic,
    want_left: bool,
) -> Decision {
    let mut run = Run::new(now, want_left);
    run.keep_receipts = true;
    run.walk(limits, counted, 0);
    run.decision()
}

/// Judges and charges one key of one policy, which keeps its index `policy`.
pub(super) fn charge(limit: &Arc<Limit>, key: Key, now: Monotonic) -> Decision {
    let mut run = Run::new(now, false);
    run.keep_receipts = true;
    let counted = [Some(Counted { key, quota: None })];
    run.walk(slice::from_ref(limit), &counted, 0);
    run.decision()
}

/// What a request is counted by in one policy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted {
    pub(super) key: Key,
    pub(super) quota: Option<u32>,
}

/// A slot to judge and to charge.
#[derive(Clone, Copy)]
struct Step<'a> {
    policy: usize,
    limit: &'a Limit,
    store: &'a Store,
    address: Address,
    quota: Option<u32>,
}

struct Run {
    now: u64,
    want_left: bool,
    keep_receipts: bool,
    binding: Option<Binding>,
    wait: u64,
    refusing: Vec<usize>,
    receipts: Vec<Receipt>,
    shadowed: bool,
}

impl Run {
    fn new(now: Monotonic, want_left: bool) -> Self {
        Self {
            now: now.as_nanos(),
            want_left,
            keep_receipts: false,
            binding: None,
            wait: 0,
            refusing: Vec::new(),
            receipts: Vec::new(),
            shadowed: false,
        }
    }

    /// Locks and judges one slot after the other, and charges them on the way back: at the end of
    /// the way every slot is locked and every judgement known. Returns whether it charges.
    ///
    /// Tables are locked in the order of the policies, which is one order for all layers that
    /// share them, so no two requests wait for each other.
    fn walk(&mut self, limits: &[Arc<Limit>], counted: &[Option<Counted>], policy: usize) -> bool {
        let (Some(limit), Some(by)) = (limits.get(policy), counted.get(policy)) else {
            return self.refusing.is_empty();
        };
        let next = |run: &mut Self| run.walk(limits, counted, policy + 1);
        let Some(by) = by else {
            return next(self);
        };
        match limit.steps(policy, by.key, by.quota) {
            (None, own) => self.step(own, next),
            // An entry for a /64 is made only after its /48 admits.
            (Some(site), own) => self.step(site, |run| run.step(own, next)),
        }
    }

    /// The same for one address of plain policies, up to the first that refuses.
    fn charge_each(&mut self, limits: &[Arc<Limit>], address: Address, policy: usize) -> bool {
        let Some(limit) = limits.get(policy) else {
            return true;
        };
        let cost = limit.policy.cost();
        let mut held = limit.v4.hold(address, self.now);
        let Ok(ticket) = held.judge(None, cost) else {
            return false;
        };
        let charge = self.charge_each(limits, address, policy + 1);
        if charge {
            held.commit(ticket, cost);
            if self.want_left {
                self.note(policy, held.left(None));
            }
        }
        charge
    }

    #[inline]
    fn step(&mut self, step: Step<'_>, next: impl FnOnce(&mut Self) -> bool) -> bool {
        let policy = &step.limit.policy;
        let mut held = step.store.hold(step.address, self.now);
        match held.judge(step.quota, policy.cost()) {
            Ok(ticket) => {
                let charge = next(self);
                if charge {
                    let charged = held.commit(ticket, policy.cost());
                    if self.want_left && !policy.is_shadow() {
                        self.note(step.policy, held.left(step.quota));
                    }
                    if self.keep_receipts || policy.refunds() {
                        self.receipts.push(Receipt {
                            policy: step.policy,
                            address: step.address,
                            quota: step.quota,
                            charged,
                            #[cfg(feature = "redis")]
                            is_shared: held.is_shared(),
                        });
                    }
                }
                charge
            }
            Err(_) if policy.is_shadow() => {
                self.shadowed = true;
                step.limit.shadow_refusals.fetch_add(1, Ordering::Relaxed);
                next(self)
            }
            Err(wait) => {
                self.refuse(step.policy, wait, held.left(step.quota));
                next(self)
            }
        }
    }

    #[cold]
    fn refuse(&mut self, policy: usize, wait: u64, left: Left) {
        if self.refusing.last() != Some(&policy) {
            self.refusing.push(policy);
        }
        if self.wait <= wait {
            self.wait = wait;
            self.binding = Some(Binding {
                policy: policy as u32,
                left,
            });
        }
    }

    /// Keeps the tightest.
    fn note(&mut self, policy: usize, left: Left) {
        if self
            .binding
            .is_none_or(|held| tightness(left) < tightness(held.left))
        {
            self.binding = Some(Binding {
                policy: policy as u32,
                left,
            });
        }
    }

    fn decision(self) -> Decision {
        match self.binding {
            Some(binding) if !self.refusing.is_empty() => Decision::Refused(Refused {
                binding,
                wait: self.wait,
                policies: self.refusing,
            }),
            binding => Decision::Admitted(Outcome {
                binding,
                receipts: self.receipts,
                shadowed: self.shadowed,
            }),
        }
    }
}

/// Fewest units first, then the longest time to more.
pub(super) fn tightness(left: Left) -> (u32, Reverse<u64>) {
    (left.units, Reverse(left.more_in))
}

/// How much a /48 may use up.
fn site_limit(limit: u32) -> u32 {
    limit.saturating_mul(SITE_FACTOR)
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);
const SITE_FACTOR: u32 = 16;
/// Policies that are judged without an allocation.
const FEW: usize = 4;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::Request;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// A refusal by any policy leaves every policy as it was, to the bit, and what is admitted
        /// is charged to each of them.
        #[test]
        fn what_is_refused_is_charged_nowhere(
            policies in prop::collection::vec((1_u32..30, 1_u64..100, any::<bool>(), 1_u32..3), 1..6),
            // Addresses of few networks, so that /48s refuse too.
            requests in prop::collection::vec((0_u8..8, any::<bool>(), 0_u64..5), 1..120),
        ) {
            let made = |(limit, millis, smooth, cost): &(u32, u64, bool, u32)| {
                let make = if *smooth { Policy::smooth } else { Policy::strict };
                let policy = make("p", *limit, Duration::from_millis(*millis)).unwrap();
                Arc::new(Limit::new(policy.with_cost((*cost).min(*limit)).unwrap()))
            };
            let limits: Vec<_> = policies.iter().map(made).collect();
            let mut now = 1;
            for (host, is_v6, step) in requests {
                now += step * 1_000_000;
                let ip = match is_v6 {
                    true => [0x2001, 0xdb8, 0, host.into(), 0, 0, 0, 1].into(),
                    false => [203, 0, 113, host].into(),
                };
                let mut request = Request::new(());
                request.extensions_mut().insert(Client::new(Some(ip), false));
                let (key, at) = (Key::client(ip), Monotonic::from_nanos(now));
                let left = |limit: &Arc<Limit>| limit.left(key, at).units;
                let (before, left_before) = (dump(&limits), limits.iter().map(left));
                let left_before: Vec<_> = left_before.collect();
                // The short way says nothing, and charges nothing, where it does not admit.
                let charged = charge_all(&limits, request.extensions_mut(), at, true);
                let mut by = CountedBy::of(request.extensions());
                let decision = match charged {
                    Some(binding) => Decision::Admitted(Outcome {
                        binding,
                        receipts: Vec::new(),
                        shadowed: false,
                    }),
                    None => {
                        prop_assert_eq!(dump(&limits), &before[..]);
                        check(&limits, Head::of(&request), at, true, &mut by, |_| {})
                    }
                };
                match decision {
                    Decision::Admitted(_) => {
                        for (limit, before) in limits.iter().zip(left_before) {
                            prop_assert!(left(limit) <= before - limit.policy.cost());
                            prop_assert!(by.has(limit.mark()));
                        }
                    }
                    _ => prop_assert_eq!(dump(&limits), before),
                }
            }
        }
    }

    fn dump(limits: &[Arc<Limit>]) -> Vec<Vec<u32>> {
        let stores = limits.iter().flat_map(|limit| limit.stores());
        stores.map(Store::dump).collect()
    }
}
