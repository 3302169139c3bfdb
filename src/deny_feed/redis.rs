//! What instances tell one another through a stream in Redis.

use std::{
    collections::{HashSet, VecDeque},
    fmt,
    sync::{Arc, LazyLock},
    time::Duration,
};

use redis::{RedisResult, Script};
use tokio::sync::Mutex;

use crate::{
    deny_list::{Denial, DenyList},
    error::ConfigError,
    event::{EventKind, SecurityEvent},
    redis_link::{Link, Times},
    store_error::{StoreError, StoreErrorKind},
    time::Monotonic,
};

/// A stream in Redis or Valkey (6.2 or later, alone or as a cluster) that tells ends. A cheap clone;
/// one for a service.
///
/// It holds the ids of sessions, tokens, keys and subjects that were denied, no token. Who can write
/// to it can end anything. Services that share a server take a database each
/// (`redis://host/1`), or they hear of each other's ends.
#[derive(Clone)]
pub struct RedisFeed {
    link: Link,
    reader: Arc<Mutex<Reader>>,
}

/// How far the stream was read, and what this instance put there.
#[derive(Default)]
struct Reader {
    /// The last entry that was seen.
    last: Option<String>,
    /// When all of it was read and nothing failed since.
    whole_at: Option<Monotonic>,
    unsent: VecDeque<Denial>,
    own: VecDeque<(Monotonic, Denial)>,
    is_warned: bool,
}

type Entry = (String, [String; 2]);

impl RedisFeed {
    /// Connects to one server: `redis://`, `rediss://` (TLS) or `redis+unix://`. A server that is
    /// away is no error.
    ///
    /// # Errors
    /// When the URL cannot be read, or the server refuses its credentials or may evict what it holds
    /// (`maxmemory-policy` is not `noeviction`). The same found later is an event, and the feed
    /// counts as away.
    pub async fn connect(url: &str) -> Result<Self, ConfigError> {
        Self::over(Link::to_one(url, Times::PATIENT)).await
    }

    /// Connects to a cluster, of which `urls` name some nodes. Otherwise as
    /// [`connect`](Self::connect).
    ///
    /// # Errors
    /// Those of [`connect`](Self::connect).
    pub async fn connect_cluster<'a>(
        urls: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, ConfigError> {
        Self::over(Link::to_cluster(urls, Times::PATIENT)).await
    }

    async fn over(link: RedisResult<Link>) -> Result<Self, ConfigError> {
        let link = link.map_err(|_| unusable("cannot be read"))?;
        let is_refused = |error: &StoreError| error.kind() == StoreErrorKind::Misconfigured;
        let pong = link.ask::<String>(&redis::cmd("PING")).await;
        if pong.as_ref().is_err_and(is_refused) {
            return Err(unusable("names a server that refuses its credentials"));
        }
        if pong.is_ok() && link.never_evicts().await.as_ref().is_err_and(is_refused) {
            return Err(unusable(
                "names a server that may evict what it holds: set its maxmemory-policy to noeviction",
            ));
        }
        Ok(Self {
            link,
            reader: Arc::default(),
        })
    }

    /// Tells what was denied here, and learns what was denied elsewhere; whether nothing is left to
    /// learn.
    pub(super) async fn hear(&self, deny_list: &DenyList) -> bool {
        let mut reader = self.reader.lock().await;
        let heard = reader.exchange(&self.link, deny_list).await;
        if let Err(error) = &heard {
            reader.whole_at = None;
            if !reader.is_warned {
                tell(error, deny_list);
            }
        }
        reader.is_warned = heard.is_err();
        heard.is_ok()
    }
}

impl Reader {
    async fn exchange(&mut self, link: &Link, deny_list: &DenyList) -> Result<(), StoreError> {
        let now = deny_list.context().monotonic();
        let recently = |at: Monotonic| now.saturating_since(at) < WHOLE_EVERY;
        if !self.whole_at.is_some_and(recently) || !self.read_on(link, deny_list).await? {
            self.read_whole(link, deny_list, now).await?;
        }
        self.send(link, deny_list, now).await
    }

    /// Reads what came after the last entry; `false` when that entry is not there any more.
    async fn read_on(&mut self, link: &Link, deny_list: &DenyList) -> Result<bool, StoreError> {
        loop {
            let start = self.last.as_deref().unwrap_or("-");
            let entries = range(link, start).await?;
            let first = entries.first().map(|(id, _)| id);
            if self.last.is_some() && first != self.last.as_ref() {
                return Ok(false);
            }
            self.learn(&entries, deny_list, |_| {});
            if entries.len() < CHUNK {
                return Ok(true);
            }
        }
    }

    /// Reads all of it. What this instance put there and is gone will be sent again.
    async fn read_whole(
        &mut self,
        link: &Link,
        deny_list: &DenyList,
        now: Monotonic,
    ) -> Result<(), StoreError> {
        self.whole_at = None;
        link.never_evicts().await?;
        self.last = None;
        let mut seen = HashSet::new();
        loop {
            let start = self.last.as_ref().map(|last| format!("({last}"));
            let entries = range(link, start.as_deref().unwrap_or("-")).await?;
            self.learn(&entries, deny_list, |denial| {
                seen.insert(denial);
            });
            if entries.len() < CHUNK {
                break;
            }
        }
        let own = std::mem::take(&mut self.own);
        let (kept, lost): (VecDeque<_>, VecDeque<_>) = own
            .into_iter()
            .filter(|(at, _)| now.saturating_since(*at) < deny_list.keep())
            .partition(|(_, denial)| seen.contains(denial));
        self.own = kept;
        self.unsent
            .extend(lost.into_iter().map(|(_, denial)| denial));
        self.whole_at = Some(now);
        Ok(())
    }

    fn learn(&mut self, entries: &[Entry], deny_list: &DenyList, mut each: impl FnMut(Denial)) {
        for (_, [kind, text]) in entries {
            // What a later version tells, this one cannot know.
            if let Some(denial) = read(kind, text) {
                deny_list.learn(&denial);
                each(denial);
            }
        }
        if let Some((id, _)) = entries.last() {
            self.last = Some(id.clone());
        }
    }

    /// Sends what waits. What an answer that did not come was about is sent again; twice is once.
    async fn send(
        &mut self,
        link: &Link,
        deny_list: &DenyList,
        now: Monotonic,
    ) -> Result<(), StoreError> {
        loop {
            if self.unsent.is_empty() {
                self.unsent = deny_list.take().into();
            }
            if self.unsent.is_empty() {
                break;
            }
            let some = self.unsent.len().min(CHUNK);
            let mut add = ADD.prepare_invoke();
            add.key(KEY).arg(deny_list.keep().as_secs());
            for denial in self.unsent.range(..some) {
                let (kind, text) = written(denial);
                add.arg(kind).arg(text);
            }
            link.run::<()>(&add).await?;
            let sent = self.unsent.drain(..some);
            self.own.extend(sent.map(|denial| (now, denial)));
        }
        let surplus = self.own.len().saturating_sub(OWN);
        self.own.drain(..surplus);
        Ok(())
    }
}

async fn range(link: &Link, start: &str) -> Result<Vec<Entry>, StoreError> {
    let mut command = redis::cmd("XRANGE");
    command.arg(KEY).arg(start).arg("+").arg("COUNT").arg(CHUNK);
    link.ask(&command).await
}

fn tell(error: &StoreError, deny_list: &DenyList) {
    let (kind, reason) = match error.kind() {
        StoreErrorKind::Misconfigured => (EventKind::Misconfigured, "redis_refuses_or_evicts"),
        _ => (EventKind::StoreUnavailable, "redis"),
    };
    let event = SecurityEvent::new(kind).with_rule("deny_feed", reason);
    deny_list.context().emit(event);
    tracing::warn!(%error, "ends are not told and heard through Redis");
}

fn written(denial: &Denial) -> (&'static str, String) {
    match denial {
        Denial::Session(id) => ("session", id.clone()),
        Denial::Token(id) => ("token", id.clone()),
        Denial::Subject(id, until) => ("subject", format!("{until} {id}")),
        Denial::IssuedBefore(second) => ("issued_before", second.to_string()),
    }
}

fn read(kind: &str, text: &str) -> Option<Denial> {
    Some(match kind {
        "session" => Denial::Session(text.to_owned()),
        "token" => Denial::Token(text.to_owned()),
        "subject" => {
            let (until, id) = text.split_once(' ')?;
            Denial::Subject(id.to_owned(), until.parse().ok()?)
        }
        "issued_before" => Denial::IssuedBefore(text.parse().ok()?),
        _ => return None,
    })
}

fn unusable(problem: &'static str) -> ConfigError {
    ConfigError::new("REDIS_URL", problem)
}

impl fmt::Debug for RedisFeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisFeed").finish_non_exhaustive()
    }
}

/// Adds entries by the server's clock, and trims those that no token outlives.
static ADD: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local before = string.format('%d', (redis.call('TIME')[1] - ARGV[1]) * 1000)
        for i = 2, #ARGV, 2 do
            redis.call('XADD', KEYS[1], 'MINID', '~', before, '*', ARGV[i], ARGV[i + 1])
        end
        redis.call('EXPIRE', KEYS[1], ARGV[1])",
    )
});

const KEY: &str = "portcullis:denied";
const CHUNK: usize = 500;
/// What is remembered of one's own ends, for a server that loses them.
const OWN: usize = 10_000;
/// Against what neither side noticed.
const WHOLE_EVERY: Duration = Duration::from_secs(60);
