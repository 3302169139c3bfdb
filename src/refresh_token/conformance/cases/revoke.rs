//! Ending sessions.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::{
    super::{
        chain::{Chain, DAY, HOUR, IDLE, SECOND, name, present, subject},
        fault::{Fault, Verdict, ensure, ensure_eq},
    },
    POLLS, poll_and_drop, together,
};
use crate::refresh_token::{
    CreateOutcome, EndReason, Ended, RefreshTokenStore, RevokeOutcome, RotateOutcome, SessionId,
};

pub(in super::super) async fn is_final<S: RefreshTokenStore>(store: Arc<S>) -> Verdict {
    let now = present();
    let later = now.saturating_add(HOUR);
    for reason in EndReason::ALL {
        let mut chain = Chain::begin(&*store, &subject(), now).await?;
        chain.rotate(&*store, now).await?;
        chain.end(&*store, *reason, now).await?;
        let again = store.revoke(chain.id(), EndReason::Other, later).await?;
        let same = RevokeOutcome::AlreadyEnded(chain.record.clone());
        ensure_eq!(again, same, "the second `revoke`");
        let name = &chain.record.subject;
        let revoked = store
            .revoke_subject(name, None, EndReason::Other, later)
            .await?;
        ensure_eq!(revoked.ended, [], "an ended session, ended again");
        let over = chain.record.expires_at;
        for at in [now, later, over] {
            let outcome = store.rotate(chain.rotation(at)).await?;
            let same = RotateOutcome::Ended(chain.record.clone());
            ensure_eq!(outcome, same, "`rotate` of an ended session");
        }
        let kept = store.get(chain.id()).await?;
        ensure_eq!(kept, Some(chain.record.clone()), "the ended session");
    }
    Ok(())
}

pub(in super::super) async fn rotate_and_revoke_are_ordered<S: RefreshTokenStore>(
    store: Arc<S>,
) -> Verdict {
    let now = present();
    for round in 0..24 {
        let chain = Chain::begin(&*store, &subject(), now).await?;
        let id = chain.id();
        let returned = Arc::new(AtomicBool::new(false));
        together(&store, 3, |store, task| {
            let (mut chain, returned) = (chain.clone(), returned.clone());
            async move {
                if task == 0 {
                    for _ in 0..round {
                        tokio::task::yield_now().await;
                    }
                    let outcome = store.revoke(id, EndReason::Logout, now).await?;
                    let ended = matches!(outcome, RevokeOutcome::Ended(_));
                    ensure!(ended, "`revoke` of a live session: {outcome:?}");
                    returned.store(true, Ordering::SeqCst);
                    return Ok(());
                }
                // It ends soon after `revoke` did; the bound is for a `revoke` that never does.
                for _ in 0..1_000_000 {
                    tokio::task::yield_now().await;
                    let after = returned.load(Ordering::SeqCst);
                    let rotation = chain.rotation(now);
                    match store.rotate(rotation.clone()).await? {
                        RotateOutcome::Rotated(_) => {
                            ensure!(!after, "a rotation after `revoke` had returned");
                            chain = chain.after(&rotation);
                        }
                        RotateOutcome::Stale(_, lineage) => chain.lineage = lineage,
                        RotateOutcome::Ended(_) => return Ok(()),
                        other => return Err(Fault(format!("{} in a race", name(&other)))),
                    }
                }
                Err(Fault("the session did not end".into()))
            }
        })
        .await?;
        let ended = store.get(id).await?.and_then(|record| record.ended);
        let wanted = Ended {
            at: now,
            reason: EndReason::Logout,
        };
        ensure_eq!(ended, Some(wanted), "the end after a race");
    }
    Ok(())
}

pub(in super::super) async fn of_a_subject_misses_none<S: RefreshTokenStore>(
    store: Arc<S>,
) -> Verdict {
    let now = present();
    for round in 0..24 {
        let name = subject();
        let epoch = store.epoch(&name).await?;
        let old = Chain::begin(&*store, &name, now).await?;
        enum Did {
            Created(SessionId),
            Refused,
            Revoked(Vec<SessionId>),
        }
        let did = together(&store, 8, |store, task| {
            let chain = Chain::new(&name, now);
            async move {
                if task == 0 {
                    for _ in 0..round {
                        tokio::task::yield_now().await;
                    }
                    let reason = EndReason::PasswordChange;
                    let subject = &chain.record.subject;
                    let revoked = store.revoke_subject(subject, None, reason, now).await?;
                    return Ok(Did::Revoked(revoked.ended));
                }
                Ok(match store.create(chain.session(epoch)).await? {
                    CreateOutcome::Created => Did::Created(chain.id()),
                    CreateOutcome::EpochMoved => Did::Refused,
                })
            }
        });
        let (mut created, mut ended) = (BTreeSet::from([old.id()]), BTreeSet::new());
        for did in did.await? {
            match did {
                Did::Created(id) => drop(created.insert(id)),
                Did::Revoked(ids) => ended.extend(ids),
                Did::Refused => {}
            }
        }
        let list = store.list_subject(&name, now, 100).await?;
        let live = list.len();
        ensure!(live == 0, "{live} sessions outlived the end of all");
        ensure_eq!(ended, created, "the sessions that were ended");
        for id in created {
            let ended = store.get(id).await?.and_then(|record| record.ended);
            ensure!(ended.is_some(), "a session that was told as ended is not");
        }
    }
    Ok(())
}

pub(in super::super) async fn of_a_subject_tells_each_once<S: RefreshTokenStore>(
    store: Arc<S>,
) -> Verdict {
    let now = present();
    for _ in 0..8 {
        let name = subject();
        let mut ids = Vec::new();
        for _ in 0..5 {
            ids.push(Chain::begin(&*store, &name, now).await?.id());
        }
        let revoked = together(&store, 8, |store, _| {
            let name = name.clone();
            async move {
                let reason = EndReason::PasswordChange;
                Ok(store.revoke_subject(&name, None, reason, now).await?)
            }
        });
        let revoked = revoked.await?;
        let mut told: Vec<_> = revoked
            .iter()
            .flat_map(|revoked| revoked.ended.clone())
            .collect();
        ids.sort_unstable();
        told.sort_unstable();
        ensure_eq!(told, ids, "the sessions that eight calls told");
        let epochs: BTreeSet<u64> = revoked.iter().map(|revoked| revoked.epoch).collect();
        ensure_eq!(epochs.len(), 8, "the epochs of eight calls");
        let last = epochs.last().copied();
        ensure_eq!(
            Some(store.epoch(&name).await?),
            last,
            "the epoch after eight calls"
        );
    }
    Ok(())
}

pub(in super::super) async fn goes_by_epoch<S: RefreshTokenStore>(store: Arc<S>) -> Verdict {
    let now = present();
    for ahead in [Duration::ZERO, Duration::from_millis(1), 5 * SECOND, HOUR] {
        let name = subject();
        let begun = store.epoch(&name).await?;
        let early = Chain::begin(&*store, &name, now.saturating_sub(HOUR)).await?;
        let fast = Chain::begin(&*store, &name, now.saturating_add(ahead)).await?;
        let reason = EndReason::PasswordChange;
        let revoked = store.revoke_subject(&name, None, reason, now).await?;
        let ended: BTreeSet<_> = revoked.ended.into_iter().collect();
        let all = BTreeSet::from([early.id(), fast.id()]);
        ensure_eq!(
            ended,
            all,
            "the ended sessions, one of a login on a fast clock"
        );
        let outcome = store.rotate(fast.rotation(now)).await?;
        let is_ended = matches!(outcome, RotateOutcome::Ended(_));
        ensure!(
            is_ended,
            "{} for the login on a fast clock",
            self::name(&outcome)
        );

        let racing = Chain::new(&name, now.saturating_add(ahead + HOUR));
        let outcome = store.create(racing.session(begun)).await?;
        ensure_eq!(
            outcome,
            CreateOutcome::EpochMoved,
            "a racing login on a fast clock"
        );
        let mut slow = Chain::begin(&*store, &name, now.saturating_sub(HOUR)).await?;
        slow.rotate(&*store, now).await?;
    }
    Ok(())
}

pub(in super::super) async fn spares_the_rest<S: RefreshTokenStore>(store: Arc<S>) -> Verdict {
    let now = present();
    let (name, other) = (subject(), subject());
    let mut kept = Chain::begin(&*store, &name, now).await?;
    let mut gone = Chain::begin(&*store, &name, now).await?;
    let mut before = Chain::begin(&*store, &name, now).await?;
    let mut foreign = Chain::begin(&*store, &other, now).await?;
    gone.rotate(&*store, now).await?;
    before.end(&*store, EndReason::Logout, now).await?;
    let later = now.saturating_add(HOUR);
    let reason = EndReason::LogoutElsewhere;
    let revoked = store
        .revoke_subject(&name, Some(kept.id()), reason, later)
        .await?;
    ensure_eq!(revoked.ended, [gone.id()], "the sessions that were ended");
    for chain in [&kept, &gone.ended(reason, later), &before, &foreign] {
        let record = store.get(chain.id()).await?;
        ensure_eq!(
            record,
            Some(chain.record.clone()),
            "a session after others were ended"
        );
    }
    kept.rotate(&*store, later).await?;
    foreign.rotate(&*store, later).await?;
    // An exception that is not his changes nothing.
    let revoked = store
        .revoke_subject(&name, Some(foreign.id()), reason, later)
        .await?;
    ensure_eq!(revoked.ended, [kept.id()], "the sessions that were ended");
    foreign.rotate(&*store, later).await
}

pub(in super::super) async fn since_tells_all<S: RefreshTokenStore>(store: Arc<S>) -> Verdict {
    let now = present();
    let mut wanted = Vec::new();
    for minute in 0..40_u32 {
        let at = now.saturating_add(60 * SECOND * minute);
        let mut chain = Chain::begin(&*store, &subject(), now).await?;
        let reason = EndReason::ALL[minute as usize % EndReason::ALL.len()];
        if minute % 2 == 0 {
            chain.end(&*store, reason, at).await?;
        } else {
            store
                .revoke_subject(&chain.record.subject, None, reason, at)
                .await?;
        }
        wanted.push((chain.id(), Ended { at, reason }));
    }
    // Neither a live session nor one whose time is over was ended.
    Chain::begin(&*store, &subject(), now).await?;
    Chain::begin(&*store, &subject(), now.saturating_sub(IDLE + DAY)).await?;
    let by_id = |list: &mut Vec<(SessionId, Ended)>| list.sort_unstable_by_key(|(id, _)| *id);
    for first in [0_u32, 1, 20, 39, 40] {
        let since = now.saturating_add(60 * SECOND * first);
        let mut told = store.revoked_since(since).await?;
        let mut wanted = wanted[first as usize..].to_vec();
        by_id(&mut told);
        by_id(&mut wanted);
        ensure_eq!(told, wanted, "the sessions that were ended since");
    }
    Ok(())
}

pub(in super::super) async fn dropped_futures_leave_whole<S: RefreshTokenStore>(
    store: Arc<S>,
) -> Verdict {
    let now = present();
    let mut done = [false; 4];
    for polls in 0..POLLS {
        let name = subject();
        let chain = Chain::begin(&*store, &name, now).await?;
        let other = Chain::begin(&*store, &name, now).await?;
        let fresh = Chain::new(&name, now);
        let reason = EndReason::PasswordChange;
        done[0] = poll_and_drop(store.create(fresh.session(0)), polls).await;
        done[1] = poll_and_drop(store.revoke(chain.id(), reason, now), polls).await;
        let revoke = store.revoke_subject(&name, Some(chain.id()), reason, now);
        done[2] = poll_and_drop(revoke, polls).await;
        done[3] = poll_and_drop(store.delete_expired(now, 10), polls).await;
        let seen = |what: &str| Fault(format!("{what} after {polls} polls"));
        match store.revoke(chain.id(), reason, now).await? {
            RevokeOutcome::AlreadyEnded(_) => {}
            RevokeOutcome::Ended(_) if !done[1] => {}
            _ => return Err(seen("a session that was being ended")),
        }
        let revoked = store.revoke_subject(&name, None, reason, now).await?;
        ensure!(
            !(done[2] && revoked.ended.contains(&other.id())),
            "a session that was ended is ended again after {polls} polls"
        );
        for id in [chain.id(), other.id()] {
            let record = store.get(id).await?.ok_or_else(|| seen("no session"))?;
            ensure!(
                record.ended.is_some(),
                "a session that was ended lives after {polls} polls"
            );
        }
        // Whether it was added before or not at all, it does not live now.
        let live = store.list_subject(&name, now, 10).await?;
        ensure_eq!(live, [], "the live sessions after {polls} polls");
        let mut usable = Chain::begin(&*store, &name, now).await?;
        usable.rotate(&*store, now).await?;
        if done.iter().all(|done| *done) {
            return Ok(());
        }
    }
    Ok(())
}
