//! Sessions as the tests of the stores make them.

use std::time::Duration;

use portcullis::{
    refresh_token::{
        CreateOutcome, Device, KeyId, NewSession, RefreshTokenStore, Rotation, Seed, SessionId,
        SessionRecord, TokenDigest,
    },
    time::UnixMillis,
};

pub const NOW: UnixMillis = UnixMillis::from_secs(1_800_000_000);
pub const DAY: Duration = Duration::from_secs(86_400);

pub fn digest(byte: u8) -> TokenDigest {
    TokenDigest::from_bytes([byte; 32])
}

/// A session that begins now, in the store.
pub async fn create(store: &impl RefreshTokenStore, subject: &str) -> SessionId {
    let id = SessionId::generate(subject);
    let session = NewSession {
        record: SessionRecord {
            id,
            subject: subject.into(),
            created_at: NOW,
            last_used_at: NOW,
            expires_at: NOW.saturating_add(7 * DAY),
            absolute_end: NOW.saturating_add(30 * DAY),
            device: Device::new(),
            ended: None,
        },
        epoch: store.epoch(subject).await.unwrap(),
        token: digest(0),
        key: KeyId::new(1),
    };
    let created = store.create(session).await.unwrap();
    assert_eq!(created, CreateOutcome::Created);
    id
}

/// The rotation from a generation of it to the next.
pub fn rotation(id: SessionId, generation: u64) -> Rotation {
    Rotation {
        id,
        generation,
        presented: digest(generation as u8),
        next: digest(generation as u8 + 1),
        seed: Seed::from_bytes([9; 32]),
        key: KeyId::new(1),
        now: NOW,
        not_made_after: UnixMillis::MAX,
        idle_end: NOW.saturating_add(7 * DAY),
        client: None,
    }
}
