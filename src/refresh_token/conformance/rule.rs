//! The rules, by name.

use std::fmt;

macro_rules! rules {
    ($($(#[$doc:meta])* $variant:ident = $promise:literal;)*) => {
        /// A promise of [`RefreshTokenStore`](crate::refresh_token::RefreshTokenStore), or of
        /// sessions that are kept in one.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        #[non_exhaustive]
        pub enum Rule {
            $(#[doc = $promise] $(#[$doc])* $variant,)*
        }

        impl Rule {
            /// The promise, in a sentence.
            #[must_use]
            pub const fn promise(self) -> &'static str {
                match self {
                    $(Self::$variant => $promise,)*
                }
            }
        }
    };
}

rules! {
    CreateIsKept =
        "What `create` added is there for every later step, as it was given.";
    IdsAreTakenOnce =
        "`create` refuses an id that is taken with `Conflict`, and changes nothing.";
    EpochGuardsCreate =
        "`create` adds nothing when the subject's epoch has moved.";
    TextsAreKeptApart =
        "Subjects and device texts of any script are kept as they are and never confused.";
    RotateComparesAll =
        "`rotate` changes nothing unless generation and digest are both the current ones.";
    RotateMovesOn =
        "`rotate` raises the generation by one and keeps what it was given.";
    RotateIsAtomic =
        "Of many callers with one token, `rotate` lets exactly one through.";
    YoungTokensStay =
        "`rotate` does not replace a token that was made after the time it names, and says so.";
    StaleShowsTheWinner =
        "Whoever comes second is shown the row as the winner left it, never an older one.";
    ReplacedTokensAreStale =
        "A session whose token was replaced stays: an old token is `Stale`, not `NotFound`.";
    DigestsAreKeptAsGiven =
        "Digests, seeds and keys come back byte for byte.";
    TimeIsAnArgument =
        "Whether a session lives follows from the times in the call, not from a clock or a \
         time-to-live of the store.";
    ExpiryIsExact =
        "A session is over from its end on, to the millisecond.";
    AbsoluteEndHolds =
        "No rotation moves a session's end past its absolute end, or the absolute end itself.";
    ClocksMayDiffer =
        "Instances whose clocks are five seconds apart behave as one.";
    UnknownIsNotFound =
        "Ids and subjects that were never seen are nothing, and asking leaves nothing.";
    RevokeIsFinal =
        "An ended session stays ended, with its first reason and time.";
    RevokeAndRotateAreOrdered =
        "After `revoke` has returned, no `rotate` that begins succeeds.";
    RevokeSubjectMissesNone =
        "`revoke_subject` ends every session whose `create` came before it and refuses the others, \
         and tells the ids that it ended, each once.";
    RevokeGoesByEpoch =
        "`revoke_subject` goes by the epoch: when a session says that it was created is nothing to \
         it.";
    RevokeSparesTheRest =
        "`revoke_subject` leaves the excepted session, ended ones and other subjects alone.";
    RevokedSinceTellsAll =
        "`revoked_since` tells every end at that time or later, and nothing else.";
    ListIsExact =
        "`list_subject` tells the live sessions of the subject, the latest first, to the limit.";
    DeleteIsBounded =
        "`delete_expired` clears at most what it may, says how many, and leaves nothing that is \
         over.";
    DeleteSparesTheLive =
        "`delete_expired` takes no live session, even one that is rotated meanwhile.";
    ErrorsAreTyped =
        "An error has the right kind and repeats neither digest nor seed.";
    HealthAnswers =
        "`health` succeeds while the store works.";
    DroppedFuturesLeaveWhole =
        "A future that is dropped at any point leaves its step done or not begun, and the store \
         usable.";
    HandlesAreOne =
        "Two handles on the same data are one store.";
    ReopeningKeepsAll =
        "What is opened again holds all that was there.";
    GraceHasOneSuccessor =
        "Inside the grace window every caller gets the same successor.";
    GraceKeepsACookie =
        "Inside the grace window a cookie's new token is granted again, not replaced.";
    ReplayEndsTheSession =
        "A token that was replaced and comes after the grace window ends its session.";
    LateTabsAreRefusedAlone =
        "An older token inside the grace window is refused, and the session goes on.";
    SessionsAreCapped =
        "A user's sessions beyond the cap end, the oldest first.";
    RacingLoginsAreNone =
        "A login that raced the end of all sessions is never one.";
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
