//! Several handles on the same data, at once and one after the other.

use std::sync::Arc;

use super::{
    super::{
        chain::{Chain, HOUR, present, rotated, subject},
        fault::{Fault, Verdict, ensure_eq},
    },
    together,
};
use crate::{
    refresh_token::{CreateOutcome, EndReason, RefreshTokenStore, RotateOutcome},
    time::UnixMillis,
};

pub(in super::super) async fn are_one<S: RefreshTokenStore>(one: Arc<S>, two: Arc<S>) -> Verdict {
    let now = present();
    let name = subject();
    let mut chain = Chain::begin(&*one, &name, now).await?;
    for round in 0..8 {
        let outcomes = together(&one, 64, |one, task| {
            let (rotation, two) = (chain.rotation(now), two.clone());
            async move {
                let store = if task % 2 == 0 { one } else { two };
                let outcome = store.rotate(rotation.clone()).await?;
                Ok((rotation, outcome))
            }
        });
        let outcomes = outcomes.await?;
        let won = |(_, outcome): &&(_, _)| matches!(outcome, RotateOutcome::Rotated(_));
        let winners: Vec<_> = outcomes.iter().filter(won).collect();
        let [(rotation, _)] = winners[..] else {
            let seen = format!("{} of 64 callers on two handles rotated", winners.len());
            return Err(Fault(seen));
        };
        chain = chain.after(rotation);
        for (_, outcome) in &outcomes {
            if let RotateOutcome::Stale(_, lineage) = outcome {
                chain.is_at(lineage)?;
            }
        }
        let handles = if round % 2 == 0 {
            [&one, &two]
        } else {
            [&two, &one]
        };
        for handle in handles {
            chain.check(&**handle, now).await?;
        }
        chain.rotate(&**handles[0], now).await?;
        rotated(handles[1].rotate(chain.rotation(now)).await?).map(drop)?;
        chain = Chain::begin(&**handles[1], &name, now).await?;
    }
    let epoch = one.epoch(&name).await?;
    let reason = EndReason::PasswordChange;
    two.revoke_subject(&name, None, reason, now).await?;
    ensure_eq!(
        one.list_subject(&name, now, 10).await?,
        [],
        "what the first handle lists"
    );
    let racing = one.create(Chain::new(&name, now).session(epoch)).await?;
    ensure_eq!(
        racing,
        CreateOutcome::EpochMoved,
        "`create` after the other handle ended all"
    );
    Ok(())
}

/// What a store was given before it was opened again.
pub(in super::super) struct Filled {
    live: Chain,
    ended: Chain,
    racing: (Chain, u64),
    now: UnixMillis,
}

pub(in super::super) async fn fill<S: RefreshTokenStore>(store: &S) -> Verdict<Filled> {
    let now = present();
    let name = subject();
    let mut live = Chain::begin(store, &name, now).await?;
    let mut ended = Chain::begin(store, &name, now).await?;
    for _ in 0..3 {
        live.rotate(store, now).await?;
    }
    ended.end(store, EndReason::Logout, now).await?;
    let racing = subject();
    let epoch = store.epoch(&racing).await?;
    store
        .revoke_subject(&racing, None, EndReason::PasswordChange, now)
        .await?;
    Ok(Filled {
        live,
        ended,
        racing: (Chain::new(&racing, now), epoch),
        now,
    })
}

pub(in super::super) async fn reopened<S: RefreshTokenStore>(
    store: Arc<S>,
    filled: Filled,
) -> Verdict {
    let Filled {
        mut live,
        ended,
        racing: (racing, epoch),
        now,
    } = filled;
    store.health().await?;
    live.check(&*store, now).await?;
    live.rotate(&*store, now.saturating_add(HOUR)).await?;
    let outcome = store.rotate(ended.rotation(now)).await?;
    ensure_eq!(
        outcome,
        RotateOutcome::Ended(ended.record.clone()),
        "the ended session"
    );
    let since = store.revoked_since(now).await?;
    let wanted = ended.record.ended.map(|end| (ended.id(), end));
    ensure_eq!(since.first().copied(), wanted, "the ends that are told");
    let outcome = store.create(racing.session(epoch)).await?;
    ensure_eq!(
        outcome,
        CreateOutcome::EpochMoved,
        "a login from before the end of all"
    );
    Ok(())
}
