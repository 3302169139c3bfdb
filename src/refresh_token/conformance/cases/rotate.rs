//! Replacing tokens.

use std::{sync::Arc, time::Duration};

use super::{
    super::{
        chain::{
            ABSOLUTE, Chain, DAY, HOUR, IDLE, SECOND, address, digest, name, present, rotated,
            stale, subject,
        },
        fault::{Fault, Verdict, ensure, ensure_eq},
    },
    POLLS, poll_and_drop, together,
};
use crate::{
    refresh_token::{
        EndReason, KeyId, RefreshTokenStore, RevokeOutcome, RotateOutcome, Seed, SessionId,
        TokenDigest,
    },
    time::UnixMillis,
};

pub(in super::super) async fn compares_all<S: RefreshTokenStore>(store: Arc<S>) -> Verdict {
    let now = present();
    let mut chain = Chain::begin(&*store, &subject(), now).await?;
    for _ in 0..3 {
        let at = chain.lineage.generation;
        let previous = chain.lineage.previous.unwrap_or_else(digest);
        for (generation, presented) in [
            (at, digest()),
            (at, previous),
            (at + 1, chain.lineage.current),
            (at.wrapping_sub(1), chain.lineage.current),
            (at + 1, digest()),
            (u64::MAX, chain.lineage.current),
            (i64::MAX as u64, digest()),
            (i64::MAX as u64 + 1, digest()),
        ] {
            let mut wrong = chain.rotation(now);
            (wrong.generation, wrong.presented) = (generation, presented);
            let outcome = store.rotate(wrong).await?;
            let is_stale = matches!(outcome, RotateOutcome::Stale(..));
            ensure!(
                is_stale,
                "a token that is not the current one: {}",
                name(&outcome)
            );
            chain.check(&*store, now).await?;
        }
        chain.rotate(&*store, now.saturating_add(SECOND)).await?;
    }
    Ok(())
}

pub(in super::super) async fn young_tokens_stay<S: RefreshTokenStore>(store: Arc<S>) -> Verdict {
    let mut now = present();
    let mut chain = Chain::begin(&*store, &subject(), now).await?;
    for _ in 0..3 {
        let made = chain.lineage.rotated_at;
        now = now.saturating_add(HOUR);
        let mut rotation = chain.rotation(now);
        for earlier in [1, 60_000] {
            rotation.not_made_after = made.saturating_sub(Duration::from_millis(earlier));
            let outcome = store.rotate(rotation.clone()).await?;
            let wanted = RotateOutcome::TooYoung(chain.record.clone());
            ensure_eq!(outcome, wanted, "a token that is {earlier} ms too young");
            chain.check(&*store, now).await?;
        }
        let mut other = rotation.clone();
        other.presented = digest();
        let outcome = store.rotate(other).await?;
        ensure!(
            matches!(outcome, RotateOutcome::Stale(..)),
            "another token, whatever its age: {}",
            name(&outcome)
        );
        rotation.not_made_after = made;
        rotated(store.rotate(rotation.clone()).await?)?;
        chain = chain.after(&rotation);
    }
    // An end comes before an age.
    chain.end(&*store, EndReason::Logout, now).await?;
    let mut rotation = chain.rotation(now);
    rotation.not_made_after = now.saturating_sub(HOUR);
    let outcome = store.rotate(rotation).await?;
    let wanted = RotateOutcome::Ended(chain.record.clone());
    ensure_eq!(outcome, wanted, "an ended session's young token");
    Ok(())
}

pub(in super::super) async fn moves_on<S: RefreshTokenStore>(store: Arc<S>) -> Verdict {
    let mut now = present();
    let mut chain = Chain::new(&subject(), now);
    chain.record.device.ip = address("203.0.113.7");
    chain.record.device.label = Some("phone".into());
    let mut chain = chain.add(&*store).await?;
    for client in [None, address("198.51.100.1"), None, address("2001:db8::1")] {
        now = now.saturating_add(HOUR);
        let mut rotation = chain.rotation(now);
        rotation.client = client;
        let record = rotated(store.rotate(rotation.clone()).await?)?;
        let next = chain.after(&rotation);
        ensure_eq!(record, next.record, "the session that `rotate` gives");
        let kept = store.get(chain.id()).await?;
        ensure_eq!(
            kept,
            Some(next.record.clone()),
            "the session that `get` gives"
        );
        next.check(&*store, now).await?;
        chain = next;
    }
    ensure_eq!(
        chain.lineage.generation,
        4,
        "the generation after four rotations"
    );
    Ok(())
}

/// One round of 64 callers: the rotations, with what came of each.
async fn race<S: RefreshTokenStore>(
    store: &Arc<S>,
    chain: &Chain,
    now: UnixMillis,
) -> Verdict<Vec<(crate::refresh_token::Rotation, RotateOutcome)>> {
    together(store, 64, |store, _| {
        let rotation = chain.rotation(now);
        async move {
            let outcome = store.rotate(rotation.clone()).await?;
            Ok((rotation, outcome))
        }
    })
    .await
}

pub(in super::super) async fn one_of_many_wins<S: RefreshTokenStore>(store: Arc<S>) -> Verdict {
    let now = present();
    let mut chain = Chain::begin(&*store, &subject(), now).await?;
    for _ in 0..8 {
        let outcomes = race(&store, &chain, now).await?;
        let won = |(_, outcome): &&(_, _)| matches!(outcome, RotateOutcome::Rotated(_));
        let winners: Vec<_> = outcomes.iter().filter(won).collect();
        let [(rotation, _)] = winners[..] else {
            return Err(Fault(format!("{} of 64 callers rotated", winners.len())));
        };
        chain = chain.after(rotation);
    }
    let generation = chain.lineage.generation;
    ensure_eq!(generation, 8, "the generation after eight rounds");
    Ok(())
}

pub(in super::super) async fn losers_see_the_winner<S: RefreshTokenStore>(
    store: Arc<S>,
) -> Verdict {
    let now = present();
    let mut chain = Chain::begin(&*store, &subject(), now).await?;
    for _ in 0..8 {
        let outcomes = race(&store, &chain, now).await?;
        let won = |(_, outcome): &&(_, _)| matches!(outcome, RotateOutcome::Rotated(_));
        let Some((rotation, _)) = outcomes.iter().find(won) else {
            return Err(Fault("none of 64 callers rotated".into()));
        };
        chain = chain.after(rotation);
        for (_, outcome) in &outcomes {
            if let RotateOutcome::Stale(record, lineage) = outcome {
                chain.is_at(lineage)?;
                ensure_eq!(*record, chain.record, "the session that a loser is shown");
            }
        }
    }
    Ok(())
}

pub(in super::super) async fn replaced_tokens_are_stale<S: RefreshTokenStore>(
    store: Arc<S>,
) -> Verdict {
    let now = present();
    let mut chain = Chain::begin(&*store, &subject(), now).await?;
    let mut old = Vec::new();
    for _ in 0..4 {
        old.push(chain.clone());
        chain.rotate(&*store, now).await?;
        for token in &old {
            let outcome = store.rotate(token.rotation(now)).await?;
            let (_, lineage) = stale(outcome)?;
            let generation = chain.lineage.generation;
            ensure_eq!(lineage.generation, generation, "the generation");
        }
        let kept = store.get(chain.id()).await?;
        ensure_eq!(
            kept,
            Some(chain.record.clone()),
            "the session whose token was replaced"
        );
    }
    Ok(())
}

pub(in super::super) async fn digests_are_kept<S: RefreshTokenStore>(store: Arc<S>) -> Verdict {
    let now = present();
    let mut patterns = vec![
        [0; 32],
        [0xff; 32],
        *b"text that is 32 bytes long\0\0 '\"\\",
    ];
    patterns.push(std::array::from_fn(|at| at as u8));
    patterns.push(std::array::from_fn(|at| 0xe0 + at as u8));
    let mut chain = Chain::new(&subject(), now);
    chain.lineage.current = TokenDigest::from_bytes([0x80; 32]);
    let mut chain = chain.add(&*store).await?;
    chain.check(&*store, now).await?;
    for (pattern, key) in patterns
        .into_iter()
        .zip([0, u32::MAX, 1 << 31, 1, 0xdead_beef])
    {
        let mut rotation = chain.rotation(now);
        rotation.next = TokenDigest::from_bytes(pattern);
        rotation.seed = Seed::from_bytes(pattern.map(|byte| byte.rotate_left(1)));
        rotation.key = KeyId::new(key);
        rotated(store.rotate(rotation.clone()).await?)?;
        chain = chain.after(&rotation);
        chain.check(&*store, now).await?;
    }
    Ok(())
}

/// The longest age of an access token and much more, in a time long gone and in one to come.
pub(in super::super) async fn time_is_an_argument<S: RefreshTokenStore>(store: Arc<S>) -> Verdict {
    for year in [2001, 2100] {
        let now = UnixMillis::from_secs((year - 1970) * 31_556_952);
        let mut chain = Chain::begin(&*store, &subject(), now).await?;
        ensure!(
            store.get(chain.id()).await?.is_some(),
            "a session of {year} is gone"
        );
        let later = now.saturating_add(IDLE - SECOND);
        chain.rotate(&*store, later).await?;
        let list = store.list_subject(&chain.record.subject, later, 10).await?;
        ensure_eq!(
            list,
            vec![chain.record.clone()],
            "the live sessions of {year}"
        );

        let over = chain.record.expires_at;
        let outcome = store.rotate(chain.rotation(over)).await?;
        let expired = matches!(outcome, RotateOutcome::Expired(_));
        ensure!(
            expired,
            "{} for a session of {year} whose time is over",
            name(&outcome)
        );
        let kept = store.get(chain.id()).await?;
        ensure_eq!(
            kept,
            Some(chain.record.clone()),
            "the expired session of {year}"
        );

        let mut ended = Chain::begin(&*store, &subject(), now).await?;
        ended.end(&*store, EndReason::Logout, later).await?;
        let since = store.revoked_since(later).await?;
        let told = since.iter().any(|(id, _)| *id == ended.id());
        ensure!(told, "an end of {year} is not told");
        let outcome = store.rotate(ended.rotation(later)).await?;
        let is_ended = matches!(outcome, RotateOutcome::Ended(_));
        ensure!(
            is_ended,
            "{} for a session that was ended in {year}",
            name(&outcome)
        );
    }
    // A session that a clock of the store's own would let live on.
    let now = present();
    let chain = Chain::begin(&*store, &subject(), now).await?;
    let outcome = store
        .rotate(chain.rotation(now.saturating_add(IDLE)))
        .await?;
    let expired = matches!(outcome, RotateOutcome::Expired(_));
    ensure!(expired, "{} at the session's end", name(&outcome));
    Ok(())
}

pub(in super::super) async fn expiry_is_exact<S: RefreshTokenStore>(store: Arc<S>) -> Verdict {
    let now = present();
    let mut chain = Chain::begin(&*store, &subject(), now).await?;
    let moment = Duration::from_millis(1);
    for _ in 0..3 {
        let end = chain.record.expires_at;
        for over in [
            end,
            end.saturating_add(moment),
            end.saturating_add(ABSOLUTE),
        ] {
            let outcome = store.rotate(chain.rotation(over)).await?;
            let RotateOutcome::Expired(record) = outcome else {
                return Err(Fault(format!("{} at the session's end", name(&outcome))));
            };
            ensure_eq!(record, chain.record, "the expired session");
            let list = store.list_subject(&chain.record.subject, over, 10).await?;
            ensure_eq!(list, [], "the live sessions at the session's end");
        }
        chain.rotate(&*store, end.saturating_sub(moment)).await?;
    }
    Ok(())
}

pub(in super::super) async fn absolute_end_holds<S: RefreshTokenStore>(store: Arc<S>) -> Verdict {
    let mut now = present();
    let mut chain = Chain::begin(&*store, &subject(), now).await?;
    let end = chain.record.absolute_end;
    for _ in 0..4 {
        now = now.saturating_add(IDLE - HOUR);
        chain.rotate(&*store, now).await?;
        ensure_eq!(chain.record.absolute_end, end, "the absolute end");
    }
    ensure_eq!(
        chain.record.expires_at,
        end,
        "the end near the absolute end"
    );
    let mut rotation = chain.rotation(now);
    rotation.idle_end = end.saturating_add(Duration::from_millis(1));
    let record = rotated(store.rotate(rotation.clone()).await?)?;
    ensure_eq!(record.expires_at, end, "the end past the absolute end");
    let chain = chain.after(&rotation);
    let outcome = store.rotate(chain.rotation(end)).await?;
    let expired = matches!(outcome, RotateOutcome::Expired(_));
    ensure!(expired, "{} at the absolute end", name(&outcome));
    Ok(())
}

pub(in super::super) async fn clocks_may_differ<S: RefreshTokenStore>(store: Arc<S>) -> Verdict {
    let slow = present();
    let fast = slow.saturating_add(5 * SECOND);
    let mut chain = Chain::begin(&*store, &subject(), fast).await?;
    for now in [slow, fast, slow, fast] {
        chain.rotate(&*store, now).await?;
        chain.check(&*store, slow).await?;
        chain.check(&*store, fast).await?;
    }
    let list = store.list_subject(&chain.record.subject, slow, 10).await?;
    ensure_eq!(
        list,
        vec![chain.record.clone()],
        "the sessions of a login on a fast clock"
    );
    chain.end(&*store, EndReason::Logout, slow).await?;
    match store.revoke(chain.id(), EndReason::Reuse, fast).await? {
        RevokeOutcome::AlreadyEnded(record) => {
            ensure_eq!(record, chain.record, "the session that a slow clock ended");
        }
        other => return Err(Fault(format!("{other:?} for an ended session"))),
    }
    Ok(())
}

pub(in super::super) async fn unknown_is_not_found<S: RefreshTokenStore>(store: Arc<S>) -> Verdict {
    let now = present();
    let chain = Chain::new(&subject(), now);
    let zero = SessionId::from_bytes([0; 16]);
    for id in [chain.id(), zero, SessionId::from_bytes([0xff; 16])] {
        let mut rotation = chain.rotation(now);
        rotation.id = id;
        let outcome = store.rotate(rotation).await?;
        ensure_eq!(
            outcome,
            RotateOutcome::NotFound,
            "`rotate` of an unknown session"
        );
        let outcome = store.revoke(id, EndReason::Logout, now).await?;
        ensure_eq!(
            outcome,
            RevokeOutcome::NotFound,
            "`revoke` of an unknown session"
        );
        ensure_eq!(store.get(id).await?, None, "`get` of an unknown session");
    }
    let name = &chain.record.subject;
    ensure_eq!(
        store.list_subject(name, now, 10).await?,
        [],
        "an unknown subject's sessions"
    );
    ensure_eq!(store.epoch(name).await?, 0, "an unknown subject's epoch");
    let revoked = store
        .revoke_subject(name, None, EndReason::Administrator, now)
        .await?;
    ensure_eq!(
        revoked.ended,
        [],
        "the sessions of an unknown subject that were ended"
    );
    let since = store.revoked_since(UnixMillis::new(0)).await?;
    ensure_eq!(since, [], "the ended sessions of an empty store");
    let deleted = store.delete_expired(now.saturating_add(DAY), 10).await?;
    ensure_eq!(deleted, 0, "what is cleared away from an empty store");
    Ok(())
}

pub(in super::super) async fn dropped_futures_leave_whole<S: RefreshTokenStore>(
    store: Arc<S>,
) -> Verdict {
    let now = present();
    for polls in 0..POLLS {
        let chain = Chain::begin(&*store, &subject(), now).await?;
        let rotation = chain.rotation(now);
        let ended = poll_and_drop(store.rotate(rotation.clone()), polls).await;
        // The step may still be on its way; after this call it is decided.
        let retry = chain.rotation(now);
        let chain = match store.rotate(retry.clone()).await? {
            RotateOutcome::Rotated(_) if !ended => chain.after(&retry),
            RotateOutcome::Stale(..) => chain.after(&rotation),
            other => {
                let seen = format!("{} after {polls} polls", name(&other));
                return Err(Fault(seen));
            }
        };
        chain.check(&*store, now).await?;
        if ended {
            return Ok(());
        }
    }
    Ok(())
}
