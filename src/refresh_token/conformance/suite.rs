//! Runs the cases.

use std::{fmt, panic::Location, pin::Pin, sync::Arc, time::Duration};

use super::{
    cases::{create, handles, keep, revoke, rotate, tokens},
    fault::{Fault, Verdict},
    rule::Rule,
};
use crate::refresh_token::RefreshTokenStore;

/// The cases, for one kind of store.
pub struct Suite<S> {
    fresh: Box<dyn Fn() -> Opening<S>>,
    reopen: Option<Reopen<S>>,
}

type Opening<S> = Pin<Box<dyn Future<Output = S>>>;
type Reopen<S> = Box<dyn Fn(Arc<S>) -> Opening<S>>;

impl<S: RefreshTokenStore> Suite<S> {
    /// The cases for the stores that `fresh` makes: each call gives one that holds nothing.
    pub fn new<F>(fresh: impl Fn() -> F + 'static) -> Self
    where
        F: Future<Output = S> + 'static,
    {
        Self {
            fresh: Box::new(move || Box::pin(fresh())),
            reopen: None,
        }
    }

    /// Adds the cases for stores that outlive the process. `reopen` opens what a store holds once
    /// more, as another process would; it may kill and start again what lies below.
    ///
    /// It is given the last handle where the first process is gone, and one of several where the
    /// suite goes on to use both.
    #[must_use]
    pub fn with_reopen<F>(self, reopen: impl Fn(Arc<S>) -> F + 'static) -> Self
    where
        F: Future<Output = S> + 'static,
    {
        Self {
            reopen: Some(Box::new(move |store| Box::pin(reopen(store)))),
            ..self
        }
    }

    /// Runs all cases on threads of its own.
    ///
    /// # Panics
    /// With the rules that the store breaks.
    #[track_caller]
    pub fn check(self) {
        let caller = Location::caller();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(4)
            .enable_all()
            .build()
            .expect("a runtime needs threads");
        if let Err(broken) = runtime.block_on(self.run()) {
            panic!("the store that {caller} checks {broken}");
        }
    }

    /// Runs all cases on the runtime of the caller, which should have several threads: on one, the
    /// races are those of its awaits alone.
    ///
    /// # Errors
    /// The rules that the store breaks.
    pub async fn run(self) -> Result<(), BrokenRules> {
        let mut broken = Vec::new();
        macro_rules! cases {
            ($($rule:ident: $case:path;)*) => {$(
                let store = Arc::new((self.fresh)().await);
                judge(&mut broken, Rule::$rule, $case(store)).await;
            )*};
        }
        // What other cases build on comes first, so that the first rule told is the likely cause.
        cases! {
            ReplacedTokensAreStale: rotate::replaced_tokens_are_stale;
            DigestsAreKeptAsGiven: rotate::digests_are_kept;
            TimeIsAnArgument: rotate::time_is_an_argument;
            CreateIsKept: create::what_was_added_is_there;
            IdsAreTakenOnce: create::ids_are_taken_once;
            IdsAreTakenOnce: create::one_of_many_takes_an_id;
            EpochGuardsCreate: create::the_epoch_guards;
            TextsAreKeptApart: create::texts_are_kept_apart;
            RotateComparesAll: rotate::compares_all;
            RotateMovesOn: rotate::moves_on;
            YoungTokensStay: rotate::young_tokens_stay;
            RotateIsAtomic: rotate::one_of_many_wins;
            StaleShowsTheWinner: rotate::losers_see_the_winner;
            ExpiryIsExact: rotate::expiry_is_exact;
            AbsoluteEndHolds: rotate::absolute_end_holds;
            ClocksMayDiffer: rotate::clocks_may_differ;
            UnknownIsNotFound: rotate::unknown_is_not_found;
            DroppedFuturesLeaveWhole: rotate::dropped_futures_leave_whole;
            RevokeIsFinal: revoke::is_final;
            RevokeAndRotateAreOrdered: revoke::rotate_and_revoke_are_ordered;
            RevokeSubjectMissesNone: revoke::of_a_subject_misses_none;
            RevokeSubjectMissesNone: revoke::of_a_subject_tells_each_once;
            RevokeGoesByEpoch: revoke::goes_by_epoch;
            RevokeSparesTheRest: revoke::spares_the_rest;
            RevokedSinceTellsAll: revoke::since_tells_all;
            DroppedFuturesLeaveWhole: revoke::dropped_futures_leave_whole;
            ListIsExact: keep::list_is_exact;
            DeleteIsBounded: keep::delete_is_bounded;
            DeleteSparesTheLive: keep::delete_spares_the_live;
            ErrorsAreTyped: keep::errors_are_typed;
            HealthAnswers: keep::health_answers;
            GraceHasOneSuccessor: tokens::one_successor;
            GraceKeepsACookie: tokens::a_cookie_is_kept;
            ReplayEndsTheSession: tokens::replay_ends_the_session;
            LateTabsAreRefusedAlone: tokens::late_tabs;
            SessionsAreCapped: tokens::sessions_are_capped;
            ClocksMayDiffer: tokens::clocks_may_differ;
            RacingLoginsAreNone: tokens::racing_logins;
        }
        if let Some(reopen) = &self.reopen {
            let one = Arc::new((self.fresh)().await);
            let two = Arc::new(reopen(one.clone()).await);
            judge(&mut broken, Rule::HandlesAreOne, handles::are_one(one, two)).await;

            let before = Arc::new((self.fresh)().await);
            match handles::fill(&*before).await {
                Ok(filled) => {
                    let after = Arc::new(reopen(before).await);
                    let check = handles::reopened(after, filled);
                    judge(&mut broken, Rule::ReopeningKeepsAll, check).await;
                }
                Err(fault) => broken.push(BrokenRule::new(Rule::ReopeningKeepsAll, fault)),
            }
        }
        if broken.is_empty() {
            Ok(())
        } else {
            Err(BrokenRules(broken))
        }
    }
}

/// Runs one case as a task, so that a store which panics or hangs breaks a rule and not the run.
async fn judge(
    broken: &mut Vec<BrokenRule>,
    rule: Rule,
    case: impl Future<Output = Verdict> + Send + 'static,
) {
    let mut case = tokio::spawn(case);
    let verdict = match tokio::time::timeout(PATIENCE, &mut case).await {
        Ok(joined) => joined.unwrap_or_else(|error| Err(error.into())),
        Err(_) => {
            case.abort();
            Err(Fault(format!("no end after {} s", PATIENCE.as_secs())))
        }
    };
    if let Err(fault) = verdict {
        broken.push(BrokenRule::new(rule, fault));
    }
}

impl<S> fmt::Debug for Suite<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Suite")
            .field("reopens", &self.reopen.is_some())
            .finish_non_exhaustive()
    }
}

/// A rule that a store breaks, and how that was seen.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BrokenRule {
    /// The rule.
    pub rule: Rule,
    /// What was seen.
    pub seen: String,
}

impl BrokenRule {
    fn new(rule: Rule, fault: Fault) -> Self {
        Self {
            rule,
            seen: fault.0,
        }
    }
}

/// The rules that a store breaks; the first is the likeliest cause of the others.
#[derive(Clone)]
pub struct BrokenRules(Vec<BrokenRule>);

impl BrokenRules {
    /// Each with what was seen.
    pub fn iter(&self) -> impl Iterator<Item = &BrokenRule> {
        self.0.iter()
    }

    /// Whether `rule` is among them.
    #[must_use]
    pub fn contains(&self, rule: Rule) -> bool {
        self.iter().any(|broken| broken.rule == rule)
    }
}

impl fmt::Display for BrokenRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "breaks {} of the rules:", self.0.len())?;
        self.iter().try_for_each(|BrokenRule { rule, seen }| {
            write!(f, "\n- {rule}: {}\n  seen: {seen}", rule.promise())
        })
    }
}

/// As [`Display`](fmt::Display): what `unwrap` shows.
impl fmt::Debug for BrokenRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for BrokenRules {}

/// Far longer than any case takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);
