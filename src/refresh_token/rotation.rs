//! What a token means that the store did not rotate.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use super::{
    record::{SessionId, TokenDigest},
    store::Lineage,
};
use crate::time::UnixMillis;

/// The verdict on an authentic token of a live session that is not its current one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// The token before, inside the window: the same successor again.
    Replay,
    /// An older token just after a rotation: refused alone.
    Late,
    /// A token that was rotated away: somebody has a copy.
    Reuse,
    /// A token that the row has never had: the store lost writes.
    Rollback,
    /// The row says that the token is the current one, so the store should have rotated it.
    Contradiction,
}

/// Judges a token of `generation` and `digest` by the row. A window of zero knows no grace.
pub(super) fn judge(
    generation: u64,
    digest: &TokenDigest,
    row: &Lineage,
    now: UnixMillis,
    grace: Duration,
) -> Verdict {
    // A rotation by a server whose clock is ahead reads as just now.
    let fresh = now.saturating_since(row.rotated_at) < grace;
    if generation > row.generation {
        return Verdict::Rollback;
    }
    match row.generation - generation {
        0 if *digest == row.current => Verdict::Contradiction,
        0 => Verdict::Rollback,
        1 if row.previous != Some(*digest) => Verdict::Rollback,
        1 if fresh => Verdict::Replay,
        1 => Verdict::Reuse,
        _ if fresh => Verdict::Late,
        _ => Verdict::Reuse,
    }
}

/// Counts sessions whose tokens are replayed from another network again and again: what a thief
/// in lockstep with the owner looks like. Bounded; the oldest is forgotten first.
#[derive(Debug, Default)]
pub(super) struct Streaks {
    streaks: HashMap<SessionId, Streak>,
    order: VecDeque<SessionId>,
}

#[derive(Clone, Copy, Debug)]
struct Streak {
    generation: u64,
    length: u32,
}

impl Streaks {
    /// Takes note of a replay from elsewhere while the row is at `generation`; `true` when that
    /// makes an alarm: the third in a row, and every third after it.
    pub(super) fn note(&mut self, session: SessionId, generation: u64) -> bool {
        let streak = self.streaks.entry(session).or_insert_with(|| {
            self.order.push_back(session);
            Streak {
                generation,
                length: 0,
            }
        });
        // Several replays of one token are one; a rotation or two without any do not end a streak.
        let step = generation.saturating_sub(streak.generation);
        if step > GAP {
            streak.length = 0;
        }
        let counts = streak.length == 0 || step > 0;
        streak.generation = generation;
        streak.length += u32::from(counts);
        let alarm = counts && streak.length.is_multiple_of(ALARM);
        if self.order.len() > CAPACITY
            && let Some(oldest) = self.order.pop_front()
        {
            self.streaks.remove(&oldest);
        }
        alarm
    }
}

const GAP: u64 = 3;
const ALARM: u32 = 3;
const CAPACITY: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refresh_token::record::KeyId;

    const GRACE: Duration = Duration::from_secs(30);

    fn digest(generation: u64) -> TokenDigest {
        TokenDigest::of(&[generation as u8; 32])
    }

    fn row() -> Lineage {
        Lineage {
            generation: 5,
            current: digest(5),
            previous: Some(digest(4)),
            seed: None,
            key: KeyId::new(1),
            rotated_at: UnixMillis::from_secs(1_000),
        }
    }

    #[test]
    fn every_generation_at_every_age() {
        use Verdict::{Contradiction, Late, Replay, Reuse, Rollback};
        for (millis, parent, ancestor) in [
            (-5_000, Replay, Late),
            (0, Replay, Late),
            (29_999, Replay, Late),
            (30_000, Reuse, Reuse),
            (600_000, Reuse, Reuse),
        ] {
            let now = UnixMillis::new(1_000_000 + millis);
            let judge = |generation, shown| judge(generation, &digest(shown), &row(), now, GRACE);
            for (generation, shown, verdict) in [
                (7, 7, Rollback),
                (6, 6, Rollback),
                (6, 5, Rollback),
                (5, 5, Contradiction),
                (5, 9, Rollback),
                (4, 4, parent),
                (4, 9, Rollback),
                (3, 3, ancestor),
                (0, 0, ancestor),
            ] {
                assert_eq!(
                    judge(generation, shown),
                    verdict,
                    "{millis} {generation} {shown}"
                );
            }
        }
    }

    #[test]
    fn no_window_knows_no_grace() {
        for generation in [4, 3] {
            let now = row().rotated_at;
            let verdict = judge(generation, &digest(generation), &row(), now, Duration::ZERO);
            assert_eq!(verdict, Verdict::Reuse);
        }
    }

    #[test]
    fn three_in_a_row_alarm_and_a_pause_starts_over() {
        let mut streaks = Streaks::default();
        let id = SessionId::generate("u");
        let alarms: Vec<bool> = [1, 1, 2, 4, 4, 5, 6, 9, 10, 14, 15, 16]
            .map(|generation| streaks.note(id, generation))
            .into();
        let at = |alarm: &[usize]| {
            (0..12)
                .map(|index| alarm.contains(&index))
                .collect::<Vec<_>>()
        };
        assert_eq!(alarms, at(&[3, 7, 11]));
        for _ in 0..2 * CAPACITY {
            streaks.note(SessionId::generate("v"), 1);
        }
        assert!(streaks.streaks.len() <= CAPACITY && streaks.order.len() <= CAPACITY);
    }
}
