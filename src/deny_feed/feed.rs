//! What fills a deny list with the ends of others.

#[cfg(feature = "api-key")]
use std::sync::atomic::AtomicI64;
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
#[cfg(feature = "redis")]
use std::{future::poll_fn, pin::pin, task::Poll};

#[cfg(feature = "redis")]
use super::redis::RedisFeed;
#[cfg(feature = "api-key")]
use crate::{api_key::ApiKeys, time::UnixMillis};
use crate::{
    deny_list::DenyList,
    session::{SessionError, Sessions},
    time::Monotonic,
};

/// Fills the deny list of [`Sessions`] with what other instances ended. A cheap clone. See the
/// [module](super) for the rules.
#[derive(Clone)]
#[must_use = "it does nothing until it runs"]
pub struct DenyFeed {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    sessions: Sessions,
    #[cfg(feature = "api-key")]
    keys: Option<ApiKeys>,
    #[cfg(feature = "redis")]
    redis: Option<RedisFeed>,
    every: Duration,
    staleness: Duration,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    store_is_up: AtomicBool,
    #[cfg(feature = "redis")]
    redis_is_up: AtomicBool,
    /// Up to when the ends of API keys are known, in Unix milliseconds; 0 before the first time.
    #[cfg(feature = "api-key")]
    keys_read: AtomicI64,
}

impl DenyFeed {
    /// Reads the store of `sessions` every 250 ms, and trusts what it knows for 60 s.
    pub fn new(sessions: Sessions) -> Self {
        Self {
            inner: Arc::new(Inner {
                sessions,
                #[cfg(feature = "api-key")]
                keys: None,
                #[cfg(feature = "redis")]
                redis: None,
                every: EVERY,
                staleness: STALENESS,
                seen: Arc::default(),
            }),
        }
    }

    /// Reads the store of `keys` too. They must [have](ApiKeys::with_deny_list) the deny list of the
    /// sessions.
    #[cfg(feature = "api-key")]
    pub fn with_api_keys(self, keys: ApiKeys) -> Self {
        self.with(|inner| inner.keys = Some(keys))
    }

    /// Tells and hears through Redis too. From now on ends made here are kept for it, so that
    /// [`run`](Self::run) must follow.
    #[cfg(feature = "redis")]
    pub fn with_redis(self, redis: RedisFeed) -> Self {
        self.deny_list().keep_for_others();
        self.with(|inner| inner.redis = Some(redis))
    }

    /// Reads the stores again `pause` after the last time, instead of 250 ms.
    pub fn with_pause(self, pause: Duration) -> Self {
        self.with(|inner| inner.every = pause)
    }

    /// Trusts the deny list for `span` after the store was read or Redis heard, instead of 60 s:
    /// the longest that an end made elsewhere can be unknown here while requests are let in.
    pub fn with_staleness(self, span: Duration) -> Self {
        self.with(|inner| inner.staleness = span)
    }

    /// Reads the stores once and, where there is one, hears Redis once; to be called before the
    /// service answers.
    ///
    /// # Errors
    /// When a store does not answer. A Redis that does not is no error: it is tried again.
    pub async fn sync(&self) -> Result<(), SessionError> {
        let read = self.read().await;
        #[cfg(feature = "redis")]
        if let Some(redis) = &self.inner.redis {
            self.hear(redis).await;
        }
        read
    }

    /// Does so again and again, for as long as it is polled.
    pub async fn run(self) {
        let reading = async {
            loop {
                tokio::time::sleep(self.inner.every).await;
                // Its failure is an event already, and the next time makes up for it.
                let _ = self.read().await;
            }
        };
        #[cfg(feature = "redis")]
        if let Some(redis) = &self.inner.redis {
            let hearing = async {
                loop {
                    // Until then, or until something is denied here.
                    let denied = self.deny_list().denied_here();
                    let _ = tokio::time::timeout(HEAR_EVERY, denied).await;
                    self.hear(redis).await;
                }
            };
            // Neither waits for the other, and neither ends.
            let (mut reading, mut hearing) = (pin!(reading), pin!(hearing));
            poll_fn(|cx| {
                let _: Poll<()> = reading.as_mut().poll(cx);
                hearing.as_mut().poll(cx)
            })
            .await;
            return;
        }
        reading.await;
    }

    /// Whether the stores answered the last time.
    #[must_use]
    pub fn store_is_up(&self) -> bool {
        self.inner.seen.store_is_up.load(Ordering::Relaxed)
    }

    /// Whether the deny list cannot be trusted any more, or an end takes longer than it should to
    /// reach the others or this instance, because Redis does not answer.
    #[must_use]
    pub fn is_degraded(&self) -> bool {
        !self.deny_list().is_ready() || self.misses_redis()
    }

    fn misses_redis(&self) -> bool {
        #[cfg(feature = "redis")]
        if self.inner.redis.is_some() {
            return !self.inner.seen.redis_is_up.load(Ordering::Relaxed);
        }
        false
    }

    async fn read(&self) -> Result<(), SessionError> {
        let begun = self.now();
        let read = self.read_stores().await;
        let was_up = self
            .inner
            .seen
            .store_is_up
            .swap(read.is_ok(), Ordering::Relaxed);
        match &read {
            Ok(()) => self.trust_since(begun),
            Err(error) if was_up => {
                tracing::warn!(%error, "ends of sessions are not learned from the store");
            }
            Err(_) => {}
        }
        read
    }

    async fn read_stores(&self) -> Result<(), SessionError> {
        self.inner.sessions.learn_ends().await?;
        #[cfg(feature = "api-key")]
        if let Some(keys) = &self.inner.keys {
            let now = self.deny_list().context().wall();
            let read = &self.inner.seen.keys_read;
            // What was not looked at yet is in no cache.
            let since = match read.load(Ordering::Relaxed) {
                0 => now,
                known => UnixMillis::new(known),
            };
            keys.learn_ends(since.saturating_sub(OVERLAP)).await?;
            read.fetch_max(now.as_millis(), Ordering::Relaxed);
        }
        Ok(())
    }

    #[cfg(feature = "redis")]
    async fn hear(&self, redis: &RedisFeed) {
        let begun = self.now();
        let is_up = redis.hear(self.deny_list()).await;
        self.inner.seen.redis_is_up.store(is_up, Ordering::Relaxed);
        // Of a list that was silent too long, Redis alone does not know what it missed.
        if is_up && self.deny_list().is_ready() {
            self.trust_since(begun);
        }
    }

    /// What was heard is as old as the question.
    fn trust_since(&self, begun: Monotonic) {
        let passed = self.now().saturating_since(begun);
        let left = self.inner.staleness.saturating_sub(passed);
        self.deny_list().trust_for(left);
    }

    fn deny_list(&self) -> &DenyList {
        self.inner.sessions.deny_list()
    }

    fn now(&self) -> Monotonic {
        self.deny_list().context().monotonic()
    }

    fn with(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.inner));
        self
    }
}

impl fmt::Debug for DenyFeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DenyFeed")
            .field("store_is_up", &self.store_is_up())
            .field("is_degraded", &self.is_degraded())
            .finish_non_exhaustive()
    }
}

const EVERY: Duration = Duration::from_millis(250);
#[cfg(feature = "redis")]
const HEAR_EVERY: Duration = Duration::from_millis(200);
const STALENESS: Duration = Duration::from_secs(60);
/// How far the clocks of servers may differ, and how long a step of theirs may take.
#[cfg(feature = "api-key")]
const OVERLAP: Duration = Duration::from_secs(60);
