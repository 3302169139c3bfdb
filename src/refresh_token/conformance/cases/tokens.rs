//! Sessions as [`RefreshTokens`] keeps them in the store.

use std::{sync::Arc, time::Duration};

use super::{
    super::{
        chain::{SECOND, subject},
        fault::{Fault, Verdict, ensure, ensure_eq},
    },
    together,
};
use crate::{
    Context,
    event::SecurityEvent,
    refresh_token::{Device, EndReason, Granted, RefreshError, RefreshTokenStore, RefreshTokens},
    secret::Secret,
    time::ManualClock,
};

const GRACE: Duration = Duration::from_secs(30);

/// Two instances of a service on one store, whose clocks are five seconds apart.
struct Instances {
    clocks: [ManualClock; 2],
    tokens: [RefreshTokens; 2],
    subject: String,
}

impl Instances {
    fn on<S: RefreshTokenStore>(store: &Arc<S>) -> Self {
        let clocks = [ManualClock::new(), ManualClock::new()];
        clocks[1].advance(5 * SECOND);
        let secret = Secret::generate();
        let tokens = clocks.each_ref().map(|clock| {
            let quiet = |_: &SecurityEvent| {};
            let context = Context::new()
                .with_clock(clock.clone())
                .with_events_inline(quiet);
            // A slow machine is no fault of the store.
            RefreshTokens::new(store.clone(), secret.clone())
                .with_context(context)
                .with_store_timeout(Duration::from_secs(30))
        });
        Self {
            clocks,
            tokens,
            subject: subject(),
        }
    }

    fn advance(&self, span: Duration) {
        self.clocks.iter().for_each(|clock| clock.advance(span));
    }

    async fn login(&self) -> Verdict<Granted> {
        let login = self.tokens[0].begin(&self.subject).await?;
        Ok(self.tokens[0].start(login, Device::new()).await?)
    }
}

async fn refresh(tokens: &RefreshTokens, granted: &Granted) -> Result<Granted, RefreshError> {
    tokens.refresh(granted.token.expose(), None).await
}

pub(in super::super) async fn one_successor<S: RefreshTokenStore>(store: Arc<S>) -> Verdict {
    let instances = Instances::on(&store);
    let mut current = instances.login().await?;
    for _ in 0..4 {
        let granted = together(&store, 64, |_, task| {
            let (tokens, current) = (instances.tokens[task % 2].clone(), current.clone());
            async move { Ok(refresh(&tokens, &current).await?) }
        });
        let granted = granted.await?;
        let one = granted.iter().all(|grant| grant.token == granted[0].token);
        ensure!(one, "64 callers with one token got different successors");
        let first = granted.iter().filter(|grant| !grant.replayed).count();
        ensure_eq!(first, 1, "how many of 64 callers were the first");
        instances.advance(GRACE - 6 * SECOND);
        let late = refresh(&instances.tokens[0], &current).await?;
        ensure!(
            late.token == granted[0].token,
            "a late caller got another successor"
        );
        instances.advance(GRACE);
        current = late;
    }
    Ok(())
}

pub(in super::super) async fn a_cookie_is_kept<S: RefreshTokenStore>(store: Arc<S>) -> Verdict {
    let instances = Instances::on(&store);
    let first = instances.login().await?;
    let by_cookie = async |granted: &Granted| {
        let token = granted.token.expose();
        instances.tokens[0].refresh_by_cookie(token, None).await
    };
    let mut current = by_cookie(&first).await?;
    ensure!(
        !current.kept && current.token != first.token,
        "the first token of a session was kept"
    );
    for _ in 0..3 {
        instances.advance(GRACE - SECOND);
        let granted = together(&store, 16, |_, _| {
            let (tokens, current) = (instances.tokens[0].clone(), current.clone());
            async move {
                let token = current.token.expose();
                Ok(tokens.refresh_by_cookie(token, None).await?)
            }
        });
        let granted = granted.await?;
        let kept = |grant: &Granted| grant.kept && grant.token == current.token;
        ensure!(granted.iter().all(kept), "a young token was replaced");
        instances.advance(SECOND);
        let next = by_cookie(&current).await?;
        ensure!(
            !next.kept && next.token != current.token,
            "a token was kept after the window"
        );
        let late = by_cookie(&current).await?;
        ensure!(
            late.replayed && late.token == next.token,
            "a late caller got another successor"
        );
        current = next;
    }
    Ok(())
}

pub(in super::super) async fn replay_ends_the_session<S: RefreshTokenStore>(
    store: Arc<S>,
) -> Verdict {
    let instances = Instances::on(&store);
    let [tokens, _] = &instances.tokens;
    for age in 1..4 {
        let stolen = instances.login().await?;
        let mut current = stolen.clone();
        for _ in 0..age {
            current = refresh(tokens, &current).await?;
        }
        instances.advance(GRACE);
        match refresh(tokens, &stolen).await {
            Err(RefreshError::Reused(_)) => {}
            Err(RefreshError::Store(error)) => return Err(error.into()),
            other => return Err(told("a token that was replaced", other)),
        }
        match refresh(tokens, &current).await {
            Err(RefreshError::Ended(_, EndReason::Reuse)) => {}
            other => return Err(told("the current token after a replay", other)),
        }
    }
    Ok(())
}

fn told(what: &str, result: Result<Granted, RefreshError>) -> Fault {
    let result = result.map(|granted| {
        if granted.replayed {
            "replayed"
        } else {
            "rotated"
        }
    });
    Fault(format!("{what}: {result:?}"))
}

pub(in super::super) async fn late_tabs<S: RefreshTokenStore>(store: Arc<S>) -> Verdict {
    let instances = Instances::on(&store);
    let [tokens, _] = &instances.tokens;
    let first = instances.login().await?;
    let second = refresh(tokens, &first).await?;
    let third = refresh(tokens, &second).await?;
    instances.advance(GRACE - SECOND);
    match refresh(tokens, &first).await {
        Err(RefreshError::Late(_)) => {}
        other => return Err(told("an older token inside the window", other)),
    }
    let replay = refresh(tokens, &second).await?;
    ensure!(
        replay.token == third.token,
        "a late caller got another successor"
    );
    let _ = refresh(tokens, &third).await?;
    Ok(())
}

pub(in super::super) async fn sessions_are_capped<S: RefreshTokenStore>(store: Arc<S>) -> Verdict {
    let instances = Instances::on(&store);
    let tokens = instances.tokens[0].clone();
    let tokens = tokens
        .with_max_sessions(3)
        .map_err(|error| Fault(error.to_string()))?;
    let mut logins = Vec::new();
    for _ in 0..5 {
        let login = tokens.begin(&instances.subject).await?;
        logins.push(tokens.start(login, Device::new()).await?);
        instances.advance(SECOND);
    }
    for (at, login) in logins.iter().enumerate() {
        let displaced = at.checked_sub(3).map(|at| logins[at].session.id);
        let wanted: Vec<_> = displaced.into_iter().collect();
        ensure_eq!(
            login.displaced,
            wanted,
            "the sessions that login {at} ended"
        );
    }
    let live = tokens.list(&instances.subject).await?;
    let live: Vec<_> = live.iter().map(|record| record.id).collect();
    let wanted: Vec<_> = logins[2..]
        .iter()
        .rev()
        .map(|login| login.session.id)
        .collect();
    ensure_eq!(live, wanted, "the sessions that are left");
    Ok(())
}

pub(in super::super) async fn clocks_may_differ<S: RefreshTokenStore>(store: Arc<S>) -> Verdict {
    let instances = Instances::on(&store);
    let [slow, fast] = &instances.tokens;
    let login = slow.begin(&instances.subject).await?;
    let mut current = fast.start(login, Device::new()).await?;
    for (one, two) in [(fast, slow), (slow, fast), (fast, slow)] {
        let next = refresh(one, &current).await?;
        let replay = refresh(two, &current).await?;
        ensure!(
            replay.token == next.token,
            "the other instance gave another successor"
        );
        current = refresh(two, &next).await?;
        let replay = refresh(one, &next).await?;
        ensure!(
            replay.token == current.token,
            "the other instance gave another successor"
        );
        instances.advance(Duration::from_secs(840));
    }
    let reason = EndReason::PasswordChange;
    let ended = slow.end_subject(&instances.subject, None, reason).await?;
    ensure_eq!(
        ended,
        [current.session.id],
        "the login on a fast clock, ended on a slow one"
    );
    let ended = refresh(fast, &current).await.is_err();
    ensure!(
        ended,
        "an ended session was refreshed on the other instance"
    );
    let login = slow.begin(&instances.subject).await?;
    let fresh = slow.start(login, Device::new()).await?;
    let _ = refresh(fast, &fresh).await?;
    Ok(())
}

pub(in super::super) async fn racing_logins<S: RefreshTokenStore>(store: Arc<S>) -> Verdict {
    let instances = Instances::on(&store);
    let [slow, fast] = &instances.tokens;
    let kept = instances.login().await?;
    let racing = fast.begin(&instances.subject).await?;
    let reason = EndReason::PasswordChange;
    slow.end_subject(&instances.subject, Some(kept.session.id), reason)
        .await?;
    match fast.start(racing, Device::new()).await {
        Err(RefreshError::LoginOutdated) => {}
        other => return Err(told("a login that raced the end of all sessions", other)),
    }
    ensure_eq!(
        slow.list(&instances.subject).await?.len(),
        1,
        "how many sessions are left"
    );
    let _ = refresh(fast, &kept).await?;
    Ok(())
}
