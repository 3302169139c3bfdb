//! Adding sessions.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use super::{
    super::{
        chain::{Chain, HOUR, SECOND, address, present, subject},
        fault::{Fault, Verdict, ensure, ensure_eq},
    },
    together,
};
use crate::refresh_token::{
    CreateOutcome, EndReason, NewSession, RefreshTokenStore, SessionId, StoreErrorKind,
};

pub(in super::super) async fn what_was_added_is_there<S: RefreshTokenStore>(
    store: Arc<S>,
) -> Verdict {
    let now = present();
    for (label, user_agent, ip) in [
        (None, None, None),
        (Some(""), Some(""), address("203.0.113.7")),
        (Some("phone"), None, address("2001:db8::7")),
        (None, Some("Mozilla/5.0"), None),
    ] {
        let mut chain = Chain::new(&subject(), now);
        chain.record.device.label = label.map(str::to_owned);
        chain.record.device.user_agent = user_agent.map(str::to_owned);
        chain.record.device.ip = ip;
        let mut chain = chain.add(&*store).await?;
        ensure_eq!(
            store.get(chain.id()).await?,
            Some(chain.record.clone()),
            "what `get` gives"
        );
        let list = store.list_subject(&chain.record.subject, now, 10).await?;
        ensure_eq!(
            list,
            vec![chain.record.clone()],
            "what `list_subject` gives"
        );
        chain.check(&*store, now).await?;
        chain.rotate(&*store, now.saturating_add(HOUR)).await?;
    }
    Ok(())
}

pub(in super::super) async fn ids_are_taken_once<S: RefreshTokenStore>(store: Arc<S>) -> Verdict {
    let now = present();
    let name = subject();
    let mut chain = Chain::begin(&*store, &name, now).await?;
    let mut usurper = Chain::new(&name, now.saturating_add(SECOND));
    usurper.record.id = chain.id();
    for _ in 0..2 {
        conflict(&*store, usurper.session(0)).await?;
        let kept = store.get(chain.id()).await?;
        ensure_eq!(
            kept,
            Some(chain.record.clone()),
            "the session that was there"
        );
    }
    chain.check(&*store, now).await?;
    chain.rotate(&*store, now).await?;
    chain.end(&*store, EndReason::Logout, now).await?;
    conflict(&*store, usurper.session(0)).await?;
    let kept = store.get(chain.id()).await?;
    ensure_eq!(kept, Some(chain.record), "the ended session that was there");
    Ok(())
}

async fn conflict(store: &impl RefreshTokenStore, session: NewSession) -> Verdict {
    match store.create(session).await {
        Err(error) if error.kind() == StoreErrorKind::Conflict => Ok(()),
        Err(error) => Err(error.into()),
        Ok(outcome) => Err(Fault(format!("{outcome:?} for an id that is taken"))),
    }
}

pub(in super::super) async fn one_of_many_takes_an_id<S: RefreshTokenStore>(
    store: Arc<S>,
) -> Verdict {
    let now = present();
    for _ in 0..4 {
        let name = subject();
        let first = Chain::new(&name, now);
        let taken = together(&store, 16, |store, _| {
            let mut chain = Chain::new(&name, now);
            chain.record.id = first.id();
            async move {
                match store.create(chain.session(0)).await {
                    Ok(CreateOutcome::Created) => Ok(Some(chain)),
                    Err(error) if error.kind() == StoreErrorKind::Conflict => Ok(None),
                    Ok(outcome) => Err(Fault(format!("{outcome:?} for an id that is taken"))),
                    Err(error) => Err(error.into()),
                }
            }
        });
        let taken: Vec<Chain> = taken.await?.into_iter().flatten().collect();
        let [winner] = &taken[..] else {
            return Err(Fault(format!("{} of 16 took one id", taken.len())));
        };
        winner.check(&*store, now).await?;
    }
    Ok(())
}

pub(in super::super) async fn the_epoch_guards<S: RefreshTokenStore>(store: Arc<S>) -> Verdict {
    let now = present();
    let (name, other) = (subject(), subject());
    ensure_eq!(
        store.epoch(&name).await?,
        0,
        "the epoch of an unknown subject"
    );
    let mut before = 0;
    for round in 0..3 {
        let at = now.saturating_add(SECOND * round);
        let reason = EndReason::PasswordChange;
        let raised = store.revoke_subject(&name, None, reason, at).await?.epoch;
        ensure!(raised > before, "the epoch went from {before} to {raised}");
        ensure_eq!(
            store.epoch(&name).await?,
            raised,
            "the epoch after it was raised"
        );
        for wrong in [before, 0, raised + 1, raised - 1] {
            let late = Chain::new(&name, at);
            let outcome = store.create(late.session(wrong)).await?;
            ensure_eq!(
                outcome,
                CreateOutcome::EpochMoved,
                "`create` with another epoch"
            );
            ensure_eq!(
                store.get(late.id()).await?,
                None,
                "the session that was refused"
            );
        }
        let list = store.list_subject(&name, at, 10).await?;
        ensure_eq!(list, [], "the sessions after all were ended");
        let mut fresh = Chain::begin(&*store, &name, at).await?;
        fresh.rotate(&*store, at).await?;
        before = raised;
    }
    ensure_eq!(
        store.epoch(&other).await?,
        0,
        "the epoch of another subject"
    );
    Chain::begin(&*store, &other, now).await?;
    // What was raised a moment ago is not forgotten with the sessions.
    let hour = now.saturating_add(HOUR);
    store
        .revoke_subject(&name, None, EndReason::PasswordChange, hour)
        .await?;
    let raised = store.epoch(&name).await?;
    store
        .delete_expired(hour.saturating_sub(Duration::from_millis(1)), 100)
        .await?;
    ensure_eq!(
        store.epoch(&name).await?,
        raised,
        "the epoch after sessions were cleared away"
    );
    Ok(())
}

pub(in super::super) async fn texts_are_kept_apart<S: RefreshTokenStore>(store: Arc<S>) -> Verdict {
    let now = present();
    let base = subject();
    let long = "ü".repeat(127);
    let mut subjects: BTreeSet<String> = [
        "",
        " ",
        "'",
        "\"",
        "''; DROP TABLE x; --",
        "\\",
        "%",
        "_",
        "*",
        "{}",
        "}",
        "[a-z]",
        ":",
        "/",
        "\u{202e}",
        "\u{1f512}",
        "e\u{301}",
        "é",
        "E\u{301}",
        "É",
        "ß",
        "ss",
        "ı",
        "i",
        "I",
    ]
    .map(|tail| format!("{base}{tail}"))
    .into();
    subjects.extend([base.to_uppercase(), format!(" {base}"), long]);
    let mut chains = Vec::new();
    for name in &subjects {
        let mut chain = Chain::new(name, now);
        chain.record.device.label = Some(name.clone());
        chain.record.device.user_agent = Some(name.repeat(2));
        chains.push(chain.add(&*store).await?);
    }
    for chain in &chains {
        let list = store.list_subject(&chain.record.subject, now, 10).await?;
        ensure_eq!(
            list,
            vec![chain.record.clone()],
            "the sessions of one of many subjects"
        );
    }
    let gone = &chains[0];
    let reason = EndReason::Administrator;
    let ended = store.revoke_subject(&gone.record.subject, None, reason, now);
    let ended: Vec<SessionId> = ended.await?.ended;
    ensure_eq!(
        ended,
        [gone.id()],
        "the sessions of one of many subjects that were ended"
    );
    for chain in &chains[1..] {
        ensure_eq!(
            store.epoch(&chain.record.subject).await?,
            0,
            "another subject's epoch"
        );
    }
    Ok(())
}
