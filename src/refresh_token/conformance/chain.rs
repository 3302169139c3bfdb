//! One session as the cases follow it: what they gave the store, and what it must therefore hold.

use std::{net::IpAddr, time::Duration};

use super::fault::{Fault, Verdict, ensure, ensure_eq};
use crate::{
    refresh_token::{
        CreateOutcome, Device, EndReason, Ended, KeyId, Lineage, NewSession, RefreshTokenStore,
        RevokeOutcome, RotateOutcome, Rotation, Seed, SessionId, SessionRecord, TokenDigest,
    },
    secret::random,
    time::{Clock as _, SystemClock, UnixMillis},
};

/// A session, and the token that it is at.
#[derive(Clone)]
pub(super) struct Chain {
    pub(super) record: SessionRecord,
    pub(super) lineage: Lineage,
}

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const HOUR: Duration = Duration::from_secs(60 * 60);
pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);
pub(super) const IDLE: Duration = Duration::from_secs(7 * 24 * 60 * 60);
pub(super) const ABSOLUTE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// About the present, so that only the case that asks for it finds out a store which goes by a
/// clock of its own.
pub(super) fn present() -> UnixMillis {
    SystemClock::new().wall()
}

/// A subject that no other case uses.
pub(super) fn subject() -> String {
    let tail: String = random::<8>().iter().map(|b| format!("{b:02x}")).collect();
    format!("user-{tail}")
}

pub(super) fn digest() -> TokenDigest {
    TokenDigest::from_bytes(random())
}

impl Chain {
    /// A session of `subject` from `now` on, not in the store yet.
    pub(super) fn new(subject: &str, now: UnixMillis) -> Self {
        let absolute_end = now.saturating_add(ABSOLUTE);
        let record = SessionRecord {
            id: SessionId::generate(subject),
            subject: subject.to_owned(),
            created_at: now,
            last_used_at: now,
            expires_at: now.saturating_add(IDLE),
            absolute_end,
            device: Device::new(),
            ended: None,
        };
        let lineage = Lineage {
            generation: 0,
            current: digest(),
            previous: None,
            seed: None,
            key: KeyId::new(u32::from_be_bytes(random())),
            rotated_at: now,
        };
        Self { record, lineage }
    }

    /// What adds it.
    pub(super) fn session(&self, epoch: u64) -> NewSession {
        NewSession {
            record: self.record.clone(),
            epoch,
            token: self.lineage.current,
            key: self.lineage.key,
        }
    }

    /// Adds it, with the epoch that holds.
    pub(super) async fn add(self, store: &impl RefreshTokenStore) -> Verdict<Self> {
        let epoch = store.epoch(&self.record.subject).await?;
        let outcome = store.create(self.session(epoch)).await?;
        ensure_eq!(
            outcome,
            CreateOutcome::Created,
            "`create` with the epoch that `epoch` told"
        );
        Ok(self)
    }

    /// A session of `subject`, added at `now`.
    pub(super) async fn begin(
        store: &impl RefreshTokenStore,
        subject: &str,
        now: UnixMillis,
    ) -> Verdict<Self> {
        Self::new(subject, now).add(store).await
    }

    pub(super) fn id(&self) -> SessionId {
        self.record.id
    }

    /// What replaces its token at `now`.
    pub(super) fn rotation(&self, now: UnixMillis) -> Rotation {
        Rotation {
            id: self.record.id,
            generation: self.lineage.generation,
            presented: self.lineage.current,
            next: digest(),
            seed: Seed::from_bytes(random()),
            key: KeyId::new(u32::from_be_bytes(random())),
            now,
            not_made_after: UnixMillis::MAX,
            idle_end: now.saturating_add(IDLE),
            client: None,
        }
    }

    /// What it is once `rotation` was applied.
    pub(super) fn after(&self, rotation: &Rotation) -> Self {
        let mut next = self.clone();
        next.lineage = Lineage {
            generation: rotation.generation + 1,
            current: rotation.next,
            previous: Some(rotation.presented),
            seed: Some(rotation.seed),
            key: rotation.key,
            rotated_at: rotation.now,
        };
        next.record.last_used_at = rotation.now;
        next.record.expires_at = rotation.idle_end.min(self.record.absolute_end);
        next.record.device.ip = rotation.client.or(self.record.device.ip);
        next
    }

    /// What it is once it was ended.
    pub(super) fn ended(&self, reason: EndReason, at: UnixMillis) -> Self {
        let mut ended = self.clone();
        ended.record.ended = Some(Ended { at, reason });
        ended
    }

    /// Replaces its token at `now`, which must succeed.
    pub(super) async fn rotate(
        &mut self,
        store: &impl RefreshTokenStore,
        now: UnixMillis,
    ) -> Verdict {
        let rotation = self.rotation(now);
        let record = rotated(store.rotate(rotation.clone()).await?)?;
        *self = self.after(&rotation);
        ensure_eq!(record, self.record, "the session after a rotation");
        Ok(())
    }

    /// Asks the store what the session is at, by a token that was never its own.
    pub(super) async fn check(&self, store: &impl RefreshTokenStore, now: UnixMillis) -> Verdict {
        let mut wrong = self.rotation(now);
        wrong.presented = digest();
        let (record, lineage) = stale(store.rotate(wrong).await?)?;
        ensure_eq!(record, self.record, "the session");
        self.is_at(&lineage)
    }

    /// Holds `lineage` against what was given.
    pub(super) fn is_at(&self, lineage: &Lineage) -> Verdict {
        let own = &self.lineage;
        ensure_eq!(lineage.generation, own.generation, "the generation");
        ensure!(
            lineage.current == own.current,
            "the current digest is another one"
        );
        ensure!(
            lineage.previous == own.previous,
            "the previous digest is another one"
        );
        ensure!(lineage.seed == own.seed, "the seed is another one");
        ensure_eq!(lineage.key, own.key, "the key");
        ensure_eq!(
            lineage.rotated_at,
            own.rotated_at,
            "the time of the last rotation"
        );
        Ok(())
    }

    /// Ends it, which must succeed.
    pub(super) async fn end(
        &mut self,
        store: &impl RefreshTokenStore,
        reason: EndReason,
        now: UnixMillis,
    ) -> Verdict {
        *self = self.ended(reason, now);
        match store.revoke(self.id(), reason, now).await? {
            RevokeOutcome::Ended(record) => {
                ensure_eq!(record, self.record, "the session that was ended");
                Ok(())
            }
            other => Err(Fault(format!("`revoke` of a live session: {other:?}"))),
        }
    }
}

pub(super) fn rotated(outcome: RotateOutcome) -> Verdict<SessionRecord> {
    match outcome {
        RotateOutcome::Rotated(record) => Ok(record),
        other => Err(Fault(format!("{} instead of Rotated", name(&other)))),
    }
}

pub(super) fn stale(outcome: RotateOutcome) -> Verdict<(SessionRecord, Lineage)> {
    match outcome {
        RotateOutcome::Stale(record, lineage) => Ok((record, lineage)),
        other => Err(Fault(format!("{} instead of Stale", name(&other)))),
    }
}

pub(super) const fn name(outcome: &RotateOutcome) -> &'static str {
    match outcome {
        RotateOutcome::Rotated(_) => "Rotated",
        RotateOutcome::Stale(..) => "Stale",
        RotateOutcome::TooYoung(_) => "TooYoung",
        RotateOutcome::Ended(_) => "Ended",
        RotateOutcome::Expired(_) => "Expired",
        RotateOutcome::NotFound => "NotFound",
    }
}

pub(super) fn address(text: &str) -> Option<IpAddr> {
    text.parse().ok()
}
