//! Looking at sessions, and clearing them away.

use std::{error::Error as _, sync::Arc, time::Duration};

use super::{
    super::{
        chain::{Chain, DAY, HOUR, IDLE, SECOND, name, present, subject},
        fault::{Fault, Verdict, ensure, ensure_eq},
    },
    together,
};
use crate::refresh_token::{EndReason, RefreshTokenStore, RotateOutcome, StoreErrorKind};

pub(in super::super) async fn list_is_exact<S: RefreshTokenStore>(store: Arc<S>) -> Verdict {
    let now = present();
    let name = subject();
    let mut chains = Vec::new();
    for second in [3, 1, 4, 2, 0] {
        let at = now.saturating_add(SECOND * second);
        chains.push(Chain::begin(&*store, &name, at).await?);
    }
    Chain::begin(&*store, &subject(), now).await?;
    chains[1].end(&*store, EndReason::Logout, now).await?;
    let later = now.saturating_add(HOUR);
    chains[4].rotate(&*store, later).await?;
    chains.sort_by_key(|chain| std::cmp::Reverse(chain.record.created_at));
    let live = |at| {
        chains
            .iter()
            .map(|chain| chain.record.clone())
            .filter(|record| record.is_live(at))
            .collect::<Vec<_>>()
    };
    for limit in [0, 1, 3, 4, 5, usize::MAX] {
        let mut wanted = live(later);
        wanted.truncate(limit);
        let list = store.list_subject(&name, later, limit).await?;
        ensure_eq!(list, wanted, "the first {limit} live sessions");
    }
    // All but the one that was refreshed are over now.
    let over = now.saturating_add(IDLE + 5 * SECOND);
    let list = store.list_subject(&name, over, 10).await?;
    ensure_eq!(list, live(over), "the live sessions a week later");
    ensure_eq!(list.len(), 1, "how many live a week later");
    Ok(())
}

pub(in super::super) async fn delete_is_bounded<S: RefreshTokenStore>(store: Arc<S>) -> Verdict {
    let now = present();
    let mut over = Vec::new();
    for index in 0..30_u32 {
        let name = subject();
        let mut chain = Chain::begin(&*store, &name, now.saturating_sub(IDLE + HOUR)).await?;
        if index % 2 == 0 {
            let ended = now.saturating_sub(IDLE + SECOND * index);
            chain.end(&*store, EndReason::Logout, ended).await?;
        }
        over.push(chain);
    }
    let before = now.saturating_sub(Duration::from_millis(1));
    let mut edge = Chain::begin(&*store, &subject(), before.saturating_sub(IDLE)).await?;
    let live = Chain::begin(&*store, &subject(), now).await?;
    let mut ended = Chain::begin(&*store, &subject(), now).await?;
    ended.end(&*store, EndReason::Logout, before).await?;

    ensure_eq!(
        store.delete_expired(before, 0).await?,
        0,
        "what a limit of 0 clears away"
    );
    let mut left = 30;
    for limit in [1, 7, 100, 100] {
        let deleted = store.delete_expired(before, limit).await?;
        let wanted = left.min(limit as u64);
        ensure_eq!(
            deleted,
            wanted,
            "what is cleared away of {left} with a limit of {limit}"
        );
        left -= deleted;
        let mut there = 0;
        for chain in &over {
            there += u64::from(store.get(chain.id()).await?.is_some());
        }
        ensure_eq!(there, left, "what is left");
    }
    for chain in &over {
        let outcome = store.rotate(chain.rotation(now)).await?;
        ensure_eq!(
            outcome,
            RotateOutcome::NotFound,
            "a session that was cleared away"
        );
    }
    let since = store.revoked_since(now.saturating_sub(2 * IDLE)).await?;
    let told = since.iter().map(|(id, _)| *id).collect::<Vec<_>>();
    ensure_eq!(told, [ended.id()], "the ended sessions that are left");
    // What ends at the very time is not over before it.
    for chain in [&edge, &live, &ended] {
        let kept = store.get(chain.id()).await?;
        ensure_eq!(
            kept,
            Some(chain.record.clone()),
            "a session that is not over"
        );
    }
    edge.rotate(&*store, before.saturating_sub(SECOND)).await?;
    ensure_eq!(
        store.delete_expired(now, 100).await?,
        1,
        "what is over a moment later"
    );
    ensure_eq!(
        store.get(ended.id()).await?,
        None,
        "the session that was ended"
    );
    // A session that was refreshed meanwhile is over when its new time is.
    let end = edge.record.expires_at;
    ensure_eq!(
        store.delete_expired(end, 100).await?,
        0,
        "what is over a week later"
    );
    let end = end.saturating_add(DAY);
    ensure_eq!(
        store.delete_expired(end, 100).await?,
        2,
        "what is over after that"
    );
    Ok(())
}

pub(in super::super) async fn delete_spares_the_live<S: RefreshTokenStore>(
    store: Arc<S>,
) -> Verdict {
    let now = present();
    for round in 0..24 {
        // It is over at `before` unless it is refreshed a moment earlier.
        let chain = Chain::begin(&*store, &subject(), now.saturating_sub(IDLE)).await?;
        let id = chain.id();
        let at = now.saturating_sub(SECOND);
        let before = now.saturating_add(SECOND);
        let alive = together(&store, 4, |store, task| {
            let rotation = chain.rotation(at);
            async move {
                if task > 0 {
                    store.delete_expired(before, 100).await?;
                    return Ok(false);
                }
                for _ in 0..round % 6 {
                    tokio::task::yield_now().await;
                }
                match store.rotate(rotation).await? {
                    RotateOutcome::Rotated(_) => Ok(true),
                    RotateOutcome::NotFound => Ok(false),
                    other => Err(Fault(format!("{} in a race", name(&other)))),
                }
            }
        });
        let alive = alive.await?.contains(&true);
        ensure_eq!(
            store.get(id).await?.is_some(),
            alive,
            "whether a refreshed session is there"
        );
    }
    Ok(())
}

pub(in super::super) async fn errors_are_typed<S: RefreshTokenStore>(store: Arc<S>) -> Verdict {
    let chain = Chain::begin(&*store, &subject(), present()).await?;
    let Err(error) = store.create(chain.session(0)).await else {
        return Err(Fault("an id was taken twice".into()));
    };
    ensure_eq!(
        error.kind(),
        StoreErrorKind::Conflict,
        "the kind of the error"
    );
    ensure!(
        !error.is_retryable(),
        "a taken id is told as worth another try"
    );
    let mut shown = format!("{error} {error:?}");
    let mut source = error.source();
    while let Some(error) = source {
        shown.push_str(&format!(" {error} {error:?}"));
        source = error.source();
    }
    let digest = chain.lineage.current;
    let hex: String = digest
        .as_bytes()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    ensure!(
        !shown.to_lowercase().contains(&hex),
        "the error repeats the token's digest"
    );
    let list = format!("{:?}", digest.as_bytes());
    let list = list.trim_matches(['[', ']']);
    ensure!(
        !shown.contains(list),
        "the error repeats the token's digest"
    );
    Ok(())
}

pub(in super::super) async fn health_answers<S: RefreshTokenStore>(store: Arc<S>) -> Verdict {
    store.health().await?;
    Chain::begin(&*store, &subject(), present()).await?;
    Ok(store.health().await?)
}
