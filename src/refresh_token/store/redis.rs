//! Sessions in Redis or Valkey, alone or as a cluster. Features `redis` and `refresh-token`; needs
//! Redis 6 or later.
//!
//! Sessions are spread over 256 partitions by their subject; the keys of one lie in one slot of a
//! cluster, and each step is one run of a script on one partition. No key has a time-to-live, and
//! the server's clock is not asked: what is over is cleared away by
//! [`delete_expired`](RefreshTokenStore::delete_expired).
//!
//! A server that holds nothing any more looks like one that never held anything. So the store leaves
//! a mark in each partition, and a step that does not find it is an error
//! ([`StoreErrorKind::Lost`], 503): after a flush nobody is let in, nobody is logged out, and the
//! data can still be restored. To go on without it, start every instance again; where only a part is
//! lost, delete the key `{portcullis:00}:store` before.
//!
//! Deployment caveat: what Redis promises to keep is what its settings say. Without an append-only
//! file sessions end with the server; with `appendfsync everysec`, and after a failover to a replica
//! that lags, the last rotations can be gone, which ends those sessions with an alarm. And with the
//! sessions, the ends of the last minutes are lost: before instances are started on an empty server,
//! give the [`Issuer`](crate::jwt::Issuer) another secret, or access tokens of sessions that were
//! ended count until they expire.
//!
//! ```no_run
//! use portcullis::{refresh_token::{RefreshTokens, redis::RedisStore}, secret::Secret};
//!
//! # async fn start() -> Result<(), Box<dyn std::error::Error>> {
//! let store = RedisStore::connect("redis://sessions.internal").await?;
//! let tokens = RefreshTokens::new(store, Secret::generate());
//! tokens.health().await?;
//! # Ok(())
//! # }
//! ```

use std::{
    fmt,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use redis::{FromRedisValue, Script, ToRedisArgs, aio::ConnectionManager};
use tokio::task::JoinSet;

use super::{
    CreateOutcome, EndReason, Ended, Lineage, NewSession, RefreshTokenStore, RevokeOutcome,
    RevokedSubject, RotateOutcome, Rotation, SessionId, SessionRecord, StoreError, StoreErrorKind,
};
use crate::{
    redis_link::{Link, Times},
    refresh_token::{Device, KeyId, Seed, TokenDigest},
    secret::random,
    store_error::redis::failed,
    time::UnixMillis,
};

/// Sessions in a Redis or Valkey, or in a cluster. A cheap clone.
///
/// A rotation is one round trip. A call waits at most 2 s for the answer, and is never repeated: the
/// step of one that timed out may have been done.
#[derive(Clone)]
pub struct RedisStore {
    link: Link,
    /// What the partitions are marked with, as long as they hold what they held.
    mark: Arc<str>,
    probed: Arc<AtomicU8>,
}

impl RedisStore {
    /// Connects to one server: `redis://`, `rediss://` (TLS) or `redis+unix://`.
    ///
    /// # Errors
    /// [`StoreErrorKind::Misconfigured`] when the URL cannot be read, credentials are refused, or
    /// the server may evict keys (`maxmemory-policy` is not `noeviction`),
    /// [`StoreErrorKind::Lost`] when a part of what it held is gone,
    /// [`StoreErrorKind::SchemaMismatch`] when another version wrote it.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        Self::over(Link::to_one(url, Times::PATIENT).map_err(failed)?).await
    }

    /// Sessions in the server behind `connection`.
    ///
    /// # Errors
    /// Those of [`connect`](Self::connect).
    pub async fn new(connection: ConnectionManager) -> Result<Self, StoreError> {
        Self::over(Link::over(connection)).await
    }

    /// Connects to a cluster, of which `urls` name some nodes. While slots move from node to node,
    /// some calls are told [`StoreErrorKind::Unavailable`].
    ///
    /// # Errors
    /// Those of [`connect`](Self::connect), for every master.
    pub async fn connect_cluster<'a>(
        urls: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, StoreError> {
        let link = Link::to_cluster(urls, Times::PATIENT).map_err(failed)?;
        Self::over(link).await
    }

    /// Finds the mark of the partitions, or makes one and marks them all. Of several instances that
    /// start at once, each marks them with what the first of them wrote.
    async fn over(link: Link) -> Result<Self, StoreError> {
        let mark = SessionId::from_bytes(random()).to_string();
        let (making, made) = (format!("{VERSION} making "), format!("{VERSION} made "));
        let mut set = redis::cmd("SET");
        set.arg(ROOT).arg(format!("{making}{mark}")).arg("NX");
        link.ask::<()>(&set).await?;
        let root: Option<String> = link.ask(redis::cmd("GET").arg(ROOT)).await?;
        let root = root.ok_or(StoreErrorKind::Lost)?;
        let (step, mark) = match (root.strip_prefix(&making), root.strip_prefix(&made)) {
            (Some(mark), _) => ("mark", mark),
            (_, Some(mark)) => ("check", mark),
            _ => return Err(StoreErrorKind::SchemaMismatch.into()),
        };
        let store = Self {
            link,
            mark: mark.into(),
            probed: Arc::default(),
        };
        store.link.never_evicts().await?;
        // The first brings the script.
        store.run::<()>(0, step, None::<i64>).await?;
        store.run_on_all::<()>(step, None).await?;
        if step == "mark" {
            let mut set = redis::cmd("SET");
            set.arg(ROOT).arg(format!("{made}{mark}")).arg("XX");
            store.link.ask::<()>(&set).await?;
        }
        Ok(store)
    }

    /// Runs a step on one partition.
    async fn run<T: FromRedisValue>(
        &self,
        partition: u8,
        step: &str,
        arguments: impl ToRedisArgs,
    ) -> Result<T, StoreError> {
        let mut invocation = SCRIPT.prepare_invoke();
        for name in KEYS {
            invocation.key(format!("{{portcullis:{partition:02x}}}:{name}"));
        }
        invocation.arg(step).arg(&*self.mark).arg(arguments);
        self.link.run(&invocation).await
    }

    /// Runs a step on every partition. Few at once, so that each is answered in its time.
    async fn run_on_all<T: FromRedisValue + Send + 'static>(
        &self,
        step: &'static str,
        argument: Option<UnixMillis>,
    ) -> Result<Vec<(u8, T)>, StoreError> {
        let mut answers = Vec::with_capacity(256);
        let mut tasks: JoinSet<Result<_, StoreError>> = JoinSet::new();
        let mut partitions = 0..=u8::MAX;
        loop {
            for partition in partitions.by_ref().take(AT_ONCE - tasks.len()) {
                let store = self.clone();
                let argument = argument.map(UnixMillis::as_millis);
                tasks.spawn(async move {
                    let answer = store.run(partition, step, argument).await?;
                    Ok((partition, answer))
                });
            }
            let Some(task) = tasks.join_next().await else {
                break;
            };
            let broken = |error| StoreError::new(StoreErrorKind::Other).with_source(error);
            answers.push(task.map_err(broken)??);
        }
        Ok(answers)
    }
}

impl RefreshTokenStore for RedisStore {
    async fn epoch(&self, subject: &str) -> Result<u64, StoreError> {
        let epoch: Vec<u8> = self.run(partition_of(subject), "epoch", subject).await?;
        number(&epoch)
    }

    async fn create(&self, session: NewSession) -> Result<CreateOutcome, StoreError> {
        let NewSession { record, epoch, .. } = &session;
        let partition = partition_of(&record.subject);
        if partition != record.id.tag()[0] {
            return Err(StoreErrorKind::Conflict.into());
        }
        let arguments = (record.id.as_bytes(), *epoch, &columns(&session));
        let done: String = self.run(partition, "create", arguments).await?;
        match &*done {
            "created" => Ok(CreateOutcome::Created),
            "moved" => Ok(CreateOutcome::EpochMoved),
            _ => Err(StoreErrorKind::Conflict.into()),
        }
    }

    async fn rotate(&self, rotation: Rotation) -> Result<RotateOutcome, StoreError> {
        let id = rotation.id;
        let ip = rotation.client.map(|ip| ip.to_string()).unwrap_or_default();
        let arguments = (
            id.as_bytes(),
            rotation.now.as_millis(),
            rotation.generation,
            rotation.presented.as_bytes(),
            rotation.generation.wrapping_add(1),
            rotation.next.as_bytes(),
            rotation.seed.as_bytes(),
            rotation.key.get(),
            rotation.idle_end.as_millis(),
            ip,
            rotation.not_made_after.as_millis(),
        );
        let answer: Vec<Vec<u8>> = self.run(id.tag()[0], "rotate", arguments).await?;
        match answer.split_first() {
            None => Ok(RotateOutcome::NotFound),
            Some((done, row)) if done == b"rotated" => Ok(RotateOutcome::Rotated(read(id, row)?.0)),
            Some((_, row)) => Ok(RotateOutcome::refused(&rotation, Some(read(id, row)?))),
        }
    }

    async fn revoke(
        &self,
        id: SessionId,
        reason: EndReason,
        now: UnixMillis,
    ) -> Result<RevokeOutcome, StoreError> {
        let arguments = (id.as_bytes(), now.as_millis(), reason.as_str());
        let answer: Vec<Vec<u8>> = self.run(id.tag()[0], "revoke", arguments).await?;
        match answer.split_first() {
            None => Ok(RevokeOutcome::NotFound),
            Some((done, row)) if done == b"ended" => Ok(RevokeOutcome::Ended(read(id, row)?.0)),
            Some((_, row)) => Ok(RevokeOutcome::AlreadyEnded(read(id, row)?.0)),
        }
    }

    async fn revoke_subject(
        &self,
        subject: &str,
        except: Option<SessionId>,
        reason: EndReason,
        now: UnixMillis,
    ) -> Result<RevokedSubject, StoreError> {
        let except = except.map_or(Vec::new(), |id| id.as_bytes().to_vec());
        let least = RevokedSubject::raised(0, now);
        let arguments = (subject, except, now.as_millis(), reason.as_str(), least);
        let partition = partition_of(subject);
        let answer: Vec<Vec<u8>> = self.run(partition, "revoke_subject", arguments).await?;
        let (epoch, ended) = answer.split_first().ok_or(StoreErrorKind::Corrupt)?;
        Ok(RevokedSubject {
            epoch: number(epoch)?,
            ended: ended
                .iter()
                .map(|id| read_id(id))
                .collect::<Result<_, _>>()?,
        })
    }

    async fn get(&self, id: SessionId) -> Result<Option<SessionRecord>, StoreError> {
        let row: Vec<Vec<u8>> = self.run(id.tag()[0], "get", id.as_bytes()).await?;
        if row.is_empty() {
            return Ok(None);
        }
        Ok(Some(read(id, &row)?.0))
    }

    async fn list_subject(
        &self,
        subject: &str,
        now: UnixMillis,
        limit: usize,
    ) -> Result<Vec<SessionRecord>, StoreError> {
        let partition = partition_of(subject);
        let arguments = (subject, now.as_millis());
        let rows: Vec<Vec<Vec<u8>>> = self.run(partition, "list", arguments).await?;
        let mut records = Vec::with_capacity(rows.len());
        for row in &rows {
            let (id, row) = row.split_first().ok_or(StoreErrorKind::Corrupt)?;
            records.push(read(read_id(id)?, row)?.0);
        }
        records.sort_unstable_by_key(|record| std::cmp::Reverse((record.created_at, record.id)));
        records.truncate(limit);
        Ok(records)
    }

    async fn revoked_since(
        &self,
        since: UnixMillis,
    ) -> Result<Vec<(SessionId, Ended)>, StoreError> {
        let mut revoked = Vec::new();
        for (_, rows) in self.run_on_all("revoked_since", Some(since)).await? {
            let rows: Vec<[Vec<u8>; 3]> = rows;
            for [id, at, reason] in &rows {
                revoked.push((read_id(id)?, read_end(at, reason)?));
            }
        }
        Ok(revoked)
    }

    async fn delete_expired(&self, before: UnixMillis, limit: usize) -> Result<u64, StoreError> {
        let limit = limit as u64;
        let later = before.saturating_add(DAY).as_millis();
        let mut deleted = 0;
        for (partition, due) in self.run_on_all("count_due", Some(before)).await? {
            let mut due: u64 = due;
            while due > 0 && deleted < limit {
                // What was looked at is gone or due later, so this ends.
                let arguments = (before.as_millis(), limit - deleted, later);
                let (gone, left): (u64, u64) =
                    self.run(partition, "delete_expired", arguments).await?;
                deleted += gone;
                due = left;
            }
        }
        Ok(deleted)
    }

    /// Asks for the mark of one partition after the other, and how every master is set up.
    async fn health(&self) -> Result<(), StoreError> {
        let partition = self.probed.fetch_add(1, Ordering::Relaxed);
        self.run::<()>(partition, "check", None::<i64>).await?;
        self.link.never_evicts().await
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").finish_non_exhaustive()
    }
}

fn partition_of(subject: &str) -> u8 {
    SessionId::tag_of(subject)[0]
}

/// A row as it is kept. An empty text is none; free texts have a sign before them.
fn columns(session: &NewSession) -> [Vec<u8>; 15] {
    let NewSession {
        record, token, key, ..
    } = session;
    let free = |text: &Option<String>| match text {
        Some(text) => [b"=", text.as_bytes()].concat(),
        None => Vec::new(),
    };
    let time = |at: UnixMillis| at.as_millis().to_string().into_bytes();
    let ip = record.device.ip.map(|ip| ip.to_string());
    [
        record.subject.clone().into_bytes(),
        time(record.created_at),
        time(record.last_used_at),
        time(record.expires_at),
        time(record.absolute_end),
        Vec::new(),
        Vec::new(),
        free(&record.device.label),
        free(&record.device.user_agent),
        ip.unwrap_or_default().into_bytes(),
        b"0".to_vec(),
        token.as_bytes().to_vec(),
        Vec::new(),
        Vec::new(),
        key.get().to_string().into_bytes(),
    ]
}

/// Reads what [`columns`] and later steps wrote.
fn read(id: SessionId, row: &[Vec<u8>]) -> Result<(SessionRecord, Lineage), StoreError> {
    let row: &[Vec<u8>; 15] = row.try_into().map_err(|_| StoreErrorKind::Corrupt)?;
    let [
        subject,
        created,
        used,
        expires,
        absolute,
        ended,
        reason,
        label,
        agent,
        ip,
        rest @ ..,
    ] = row;
    let [generation, current, previous, seed, key] = rest;
    let millis = |text: &[u8]| number(text).map(UnixMillis::new);
    let free = |bytes: &[u8]| bytes.get(1..).map(text).transpose();
    let mut device = Device::new().with_ip(text(ip)?.parse().ok());
    device.label = free(label)?;
    device.user_agent = free(agent)?;
    let record = SessionRecord {
        id,
        subject: text(subject)?,
        created_at: millis(created)?,
        last_used_at: millis(used)?,
        expires_at: millis(expires)?,
        absolute_end: millis(absolute)?,
        device,
        ended: match &ended[..] {
            [] => None,
            at => Some(read_end(at, reason)?),
        },
    };
    let digest = |bytes: &[u8]| match bytes {
        [] => Ok(None),
        bytes => exact(bytes).map(Some),
    };
    let lineage = Lineage {
        generation: number(generation)?,
        current: TokenDigest::from_bytes(exact(current)?),
        previous: digest(previous)?.map(TokenDigest::from_bytes),
        seed: digest(seed)?.map(Seed::from_bytes),
        key: KeyId::new(number(key)?),
        rotated_at: record.last_used_at,
    };
    Ok((record, lineage))
}

fn read_end(at: &[u8], reason: &[u8]) -> Result<Ended, StoreError> {
    Ok(Ended {
        at: UnixMillis::new(number(at)?),
        reason: EndReason::from_name(&text(reason)?),
    })
}

fn read_id(bytes: &[u8]) -> Result<SessionId, StoreError> {
    exact(bytes).map(SessionId::from_bytes)
}

fn number<T: std::str::FromStr>(bytes: &[u8]) -> Result<T, StoreError> {
    let number = text(bytes)?.parse();
    number.map_err(|_| StoreErrorKind::Corrupt.into())
}

fn text(bytes: &[u8]) -> Result<String, StoreError> {
    let text = str::from_utf8(bytes);
    text.map(str::to_owned)
        .map_err(|_| StoreErrorKind::Corrupt.into())
}

fn exact<const N: usize>(bytes: &[u8]) -> Result<[u8; N], StoreError> {
    bytes.try_into().map_err(|_| StoreErrorKind::Corrupt.into())
}

static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("redis.lua")));

/// The keys of a partition, in the order in which the script takes them.
const KEYS: [&str; 6] = ["mark", "rows", "subjects", "epochs", "ended", "due"];
/// Where it stands what the partitions are marked with.
const ROOT: &str = "{portcullis:00}:store";
const VERSION: u32 = 1;
const AT_ONCE: usize = 16;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
