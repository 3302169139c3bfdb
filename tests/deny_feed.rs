//! Ends on one instance, felt by the others: each with a deny list, a pool and connections of its
//! own, over one PostgreSQL and one Redis.
#![cfg(all(
    feature = "api-key",
    feature = "aws-lc-rs",
    feature = "jwt",
    feature = "postgres",
    feature = "redis"
))]

mod support;

use std::{
    sync::{Arc, Mutex, atomic::Ordering},
    time::{Duration, Instant},
};

use portcullis::{
    Context, DenyList, Identity, IdentityKind,
    api_key::{ApiKeyError, ApiKeyStore, ApiKeys, MemoryKeys, NewApiKey, postgres::PostgresKeys},
    deny_feed::{DenyFeed, RedisFeed},
    deny_list::{Denied, DenyKeys},
    event::{EventKind, SecurityEvent},
    jwt::{Algorithm, Issuer, SigningKey},
    refresh_token::{
        Device, EndReason, RefreshTokenStore, RefreshTokens, SessionId, postgres::PostgresStore,
    },
    secret::Secret,
    session::Sessions,
    time::{ManualClock, UnixMillis},
};
use support::{
    postgres::Postgres,
    redis::{Redis, RedisCluster},
    store::ProbeStore,
};

const TTL: Duration = Duration::from_secs(900);
const SECOND: Duration = Duration::from_secs(1);

/// One of the service's instances.
struct Instance {
    sessions: Sessions,
    keys: ApiKeys,
    feed: DenyFeed,
    context: Context,
}

impl Instance {
    fn new(
        context: Context,
        store: impl RefreshTokenStore,
        keys: impl ApiKeyStore,
        redis: Option<RedisFeed>,
    ) -> Self {
        let secret = Secret::new(*b"3v9Kq0xZr7Lw2NfYpT8uHs5JdGcBmA1e").unwrap();
        let key = SigningKey::secret(Algorithm::HS256, &secret).unwrap();
        let issuer = Issuer::new(key, "me", "api").unwrap();
        let deny_list = DenyList::pending(&context, TTL);
        let tokens = RefreshTokens::new(store, secret).with_context(context.clone());
        let sessions = Sessions::new(issuer, tokens, deny_list.clone());
        let keys = ApiKeys::new(keys, "test")
            .unwrap()
            .with_deny_list(deny_list);
        let keys = keys.with_context(context.clone());
        let mut feed = DenyFeed::new(sessions.clone()).with_api_keys(keys.clone());
        if let Some(redis) = redis {
            feed = feed.with_redis(redis);
        }
        Self {
            sessions,
            keys,
            feed,
            context,
        }
    }

    /// One that shares nothing with the others but Redis.
    async fn on(redis: &Redis, context: &Context) -> Self {
        let feed = RedisFeed::connect(&redis.url()).await.unwrap();
        Self::new(
            context.clone(),
            ProbeStore::default(),
            MemoryKeys::new(),
            Some(feed),
        )
    }

    fn deny_list(&self) -> &DenyList {
        self.sessions.deny_list()
    }

    async fn log_in(&self, subject: &str) -> SessionId {
        let pair = self.sessions.start(subject, Device::new()).await.unwrap();
        pair.session.id
    }

    async fn end(&self, id: SessionId) {
        self.sessions
            .end_session(id, EndReason::Logout)
            .await
            .unwrap();
    }

    /// A session that began and ended here.
    async fn ended(&self) -> SessionId {
        let id = self.log_in("ada").await;
        self.end(id).await;
        id
    }

    /// What a JWT route does with a token of the session that was issued now.
    fn judge(&self, id: SessionId) -> Result<(), Denied> {
        let keys = DenyKeys::new("ada").with_session(&id.to_string());
        let now = self.context.wall().as_secs();
        self.deny_list().check(&keys, now)
    }

    fn refuses(&self, id: SessionId) -> bool {
        self.judge(id) == Err(Denied::Revoked)
    }
}

fn manual() -> (ManualClock, Context) {
    let clock = ManualClock::new();
    let context = Context::new().with_clock(clock.clone());
    (clock, context)
}

/// Runs what a future does until it is told of all, and says how long that took.
async fn felt(what: &str, mut by_all: impl AsyncFnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !by_all().await {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what}: never");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    begun.elapsed()
}

/// Ends sessions, a subject and an API key on one of three instances, over and over.
async fn ends_are_felt_within_a_second(instances: &[Instance; 3], through: &str) {
    let running: Vec<_> = instances
        .iter()
        .map(|instance| tokio::spawn(instance.feed.clone().run()))
        .collect();
    let mut times = Vec::new();
    for round in 0..6 {
        let here = &instances[round % 3];
        let user = format!("user-{round}");
        let [one, two, other] = [
            here.log_in(&user).await,
            here.log_in(&user).await,
            here.log_in(&user).await,
        ];
        let owner =
            Identity::new(IdentityKind::AccessToken, &user).with_auth_time(here.context.wall());
        let key = here
            .keys
            .create(&owner, NewApiKey::new("ci"))
            .await
            .unwrap();
        let key_is = |instance: &Instance| {
            let (keys, text) = (instance.keys.clone(), key.key().expose().to_owned());
            async move { keys.verify(&text, None).await.map(drop) }
        };
        for instance in instances {
            key_is(instance).await.unwrap();
            assert_eq!(instance.judge(one), Ok(()));
        }

        here.end(one).await;
        assert!(here.refuses(one));
        let session = felt("a session", async || {
            instances.iter().all(|i| i.refuses(one))
        })
        .await;

        here.sessions
            .end_others(&user, other, EndReason::PasswordChange)
            .await
            .unwrap();
        let subject = felt("a subject", async || {
            instances.iter().all(|i| i.refuses(two))
        })
        .await;
        assert!(instances.iter().all(|i| i.judge(other) == Ok(())));

        here.keys.revoke(&owner, key.record().id).await.unwrap();
        let key = felt("an API key", async || {
            let mut refused = 0;
            for instance in instances {
                let answer = key_is(instance).await;
                refused += usize::from(matches!(answer, Err(ApiKeyError::Revoked)));
            }
            refused == instances.len()
        })
        .await;
        times.extend([session, subject, key]);
    }
    times.sort();
    let (middle, worst) = (times[times.len() / 2], times[times.len() - 1]);
    println!(
        "{} ends through {through}: {middle:?} typically, {worst:?} at most",
        times.len()
    );
    assert!(worst < SECOND, "{times:?}");
    running.iter().for_each(tokio::task::JoinHandle::abort);
}

async fn three(
    postgres: &Postgres,
    each: impl AsyncFn(Context, PostgresStore, PostgresKeys) -> Instance,
) -> [Instance; 3] {
    let mut instances = Vec::new();
    for _ in 0..3 {
        let store = PostgresStore::connect(&postgres.url()).await.unwrap();
        let keys = PostgresKeys::new(store.pool().clone()).await.unwrap();
        let instance = each(Context::new(), store, keys).await;
        instance.feed.sync().await.unwrap();
        instances.push(instance);
    }
    instances.try_into().ok().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_alone_tells_ends_within_a_second() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let instances = three(&postgres, async |context, store, keys| {
        Instance::new(context, store, keys, None)
    })
    .await;
    ends_are_felt_within_a_second(&instances, "PostgreSQL").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_alone_tells_ends_within_a_second() {
    let (Some(postgres), Some(redis)) = (Postgres::start(), Redis::start()) else {
        return;
    };
    let instances = three(&postgres, async |context, store, keys| {
        let feed = RedisFeed::connect(&redis.url()).await.unwrap();
        let mut instance = Instance::new(context, store, keys, Some(feed));
        instance.feed = instance.feed.with_pause(Duration::from_secs(3_600));
        instance
    })
    .await;
    ends_are_felt_within_a_second(&instances, "Redis").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_redis_misses_postgresql_tells() {
    let (Some(postgres), Some(mut redis)) = (Postgres::start(), Redis::start()) else {
        return;
    };
    let instances = three(&postgres, async |context, store, keys| {
        let feed = RedisFeed::connect(&redis.url()).await.unwrap();
        Instance::new(context, store, keys, Some(feed))
    })
    .await;
    redis.kill();
    ends_are_felt_within_a_second(&instances, "PostgreSQL, while Redis is away").await;
    assert!(instances.iter().all(|i| i.feed.is_degraded()));
}

#[tokio::test]
async fn ends_made_while_redis_is_away_reach_it_and_what_it_lost_is_told_again() {
    let Some(mut redis) = Redis::start() else {
        return;
    };
    let (_, context) = manual();
    let here = Instance::on(&redis, &context).await;
    let there = Instance::on(&redis, &context).await;
    for instance in [&here, &there] {
        instance.feed.sync().await.unwrap();
        assert!(!instance.feed.is_degraded());
    }
    let before = here.ended().await;
    here.feed.sync().await.unwrap();

    redis.kill();
    let begun = Instant::now();
    let meanwhile = here.ended().await;
    println!("an end while Redis is away took {:?}", begun.elapsed());
    assert!(begun.elapsed() < SECOND, "an end waits for Redis");
    for instance in [&here, &there] {
        instance.feed.sync().await.unwrap();
        assert!(instance.feed.is_degraded());
    }
    assert_eq!(there.judge(before), Ok(()), "it was never told");

    // It comes back with nothing of what it held.
    redis.start_again();
    for instance in [&here, &there] {
        felt("Redis is back", async || {
            instance.feed.sync().await.unwrap();
            !instance.feed.is_degraded()
        })
        .await;
    }
    assert!(there.refuses(before), "what Redis lost was not told again");
    assert!(
        there.refuses(meanwhile),
        "what was ended meanwhile was not told"
    );

    let late = Instance::on(&redis, &context).await;
    late.feed.sync().await.unwrap();
    assert!(late.refuses(before) && late.refuses(meanwhile));
}

#[tokio::test]
async fn a_loss_is_noticed_on_a_connection_that_lives() {
    let Some(redis) = Redis::start() else {
        return;
    };
    let (_, context) = manual();
    let here = Instance::on(&redis, &context).await;
    let one = here.ended().await;
    here.feed.sync().await.unwrap();
    assert_eq!(redis.ask("XLEN portcullis:denied"), ":1");
    here.feed.sync().await.unwrap();
    assert_eq!(redis.ask("XLEN portcullis:denied"), ":1", "told twice");

    assert_eq!(redis.ask("FLUSHALL"), "+OK");
    here.feed.sync().await.unwrap();
    let late = Instance::on(&redis, &context).await;
    late.feed.sync().await.unwrap();
    assert!(late.refuses(one));

    // As after a fail-over: the last entry is gone, and another stands in its place.
    let seen = Instance::on(&redis, &context).await;
    seen.feed.sync().await.unwrap();
    let two = here.ended().await;
    assert_eq!(redis.ask("DEL portcullis:denied"), ":1");
    let three = late.ended().await;
    late.feed.sync().await.unwrap();
    here.feed.sync().await.unwrap();
    seen.feed.sync().await.unwrap();
    assert!([one, two, three].iter().all(|id| seen.refuses(*id)));
}

#[tokio::test]
async fn a_list_that_hears_of_nobody_closes_and_opens_again_by_the_store_alone() {
    let Some(mut redis) = Redis::start() else {
        return;
    };
    let (clock, context) = manual();
    let store = Arc::new(ProbeStore::default());
    let feed = RedisFeed::connect(&redis.url()).await.unwrap();
    let keys = MemoryKeys::new();
    let instance = Instance::new(context.clone(), store.clone(), keys, Some(feed));
    let id = SessionId::generate("ada");
    assert_eq!(instance.judge(id), Err(Denied::NotReady));

    // Redis does not open a list that was never filled.
    store.out.store(true, Ordering::SeqCst);
    instance.feed.sync().await.unwrap_err();
    assert_eq!(instance.judge(id), Err(Denied::NotReady));
    store.out.store(false, Ordering::SeqCst);
    instance.feed.sync().await.unwrap();
    assert_eq!(instance.judge(id), Ok(()));

    // Either of the two keeps it open.
    store.out.store(true, Ordering::SeqCst);
    for _ in 0..10 {
        clock.advance(Duration::from_secs(50));
        instance.feed.sync().await.unwrap_err();
        assert_eq!(instance.judge(id), Ok(()));
        assert!(!instance.feed.store_is_up());
    }
    store.out.store(false, Ordering::SeqCst);
    redis.kill();
    for _ in 0..3 {
        clock.advance(Duration::from_secs(50));
        instance.feed.sync().await.unwrap();
        assert_eq!(instance.judge(id), Ok(()));
        assert!(instance.feed.is_degraded() && instance.feed.store_is_up());
    }

    store.out.store(true, Ordering::SeqCst);
    clock.advance(Duration::from_secs(59));
    instance.feed.sync().await.unwrap_err();
    assert_eq!(instance.judge(id), Ok(()));
    clock.advance(Duration::from_secs(1));
    assert_eq!(instance.judge(id), Err(Denied::NotReady));
    redis.start_again();
    for _ in 0..40 {
        instance.feed.sync().await.unwrap_err();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(instance.judge(id), Err(Denied::NotReady));
    store.out.store(false, Ordering::SeqCst);
    instance.feed.sync().await.unwrap();
    assert_eq!(instance.judge(id), Ok(()));
}

#[tokio::test]
async fn a_redis_that_stalls_is_away_and_nothing_waits_for_it() {
    let Some(redis) = Redis::start() else {
        return;
    };
    let context = Context::new();
    let here = Instance::on(&redis, &context).await;
    here.feed.sync().await.unwrap();
    redis.stall();
    let feeding = tokio::spawn(here.feed.clone().run());
    let begun = Instant::now();
    let id = here.ended().await;
    assert!(here.refuses(id));
    assert!(begun.elapsed() < SECOND, "an end waits for Redis");
    felt("the stall", async || here.feed.is_degraded()).await;
    redis.go_on();
    felt("the end of the stall", async || !here.feed.is_degraded()).await;
    let late = Instance::on(&redis, &context).await;
    felt("what was ended", async || {
        late.feed.sync().await.unwrap();
        late.refuses(id)
    })
    .await;
    feeding.abort();
}

#[tokio::test]
async fn beyond_what_can_wait_all_that_is_older_is_refused() {
    let Some(mut redis) = Redis::start() else {
        return;
    };
    let (clock, context) = manual();
    let here = Instance::on(&redis, &context).await;
    let there = Instance::on(&redis, &context).await;
    for instance in [&here, &there] {
        instance.feed.sync().await.unwrap();
    }
    redis.kill();
    let issued_at = context.wall().as_secs();
    for n in 0..10_001 {
        here.deny_list().deny_session(&format!("session-{n}"));
    }
    redis.start_again();
    for instance in [&here, &there] {
        felt("Redis is back", async || {
            instance.feed.sync().await.unwrap();
            !instance.feed.is_degraded()
        })
        .await;
    }
    let old = DenyKeys::new("eve").with_session("session-0");
    assert_eq!(
        there.deny_list().check(&old, issued_at),
        Err(Denied::Revoked)
    );
    let last = DenyKeys::new("eve").with_session("session-10000");
    clock.advance(SECOND * 2);
    let later = context.wall().as_secs();
    assert_eq!(there.deny_list().check(&last, later), Err(Denied::Revoked));
    let pair = there.sessions.start("bob", Device::new()).await.unwrap();
    let keys = DenyKeys::new("bob").with_session(&pair.session.id.to_string());
    assert_eq!(there.deny_list().check(&keys, later), Ok(()));
}

#[tokio::test]
async fn what_stands_in_redis_goes_with_the_tokens_that_it_is_about() {
    let Some(redis) = Redis::start() else {
        return;
    };
    let context = Context::new();
    let here = Instance::on(&redis, &context).await;
    here.ended().await;
    here.feed.sync().await.unwrap();
    let left: i64 = redis.ask("TTL portcullis:denied")[1..].parse().unwrap();
    assert!((900..=960).contains(&left), "{left}");
    // An entry of an hour ago, with as many more as make a node of the stream.
    assert_eq!(redis.ask("DEL portcullis:denied"), ":1");
    let old = UnixMillis::from_secs(context.wall().as_secs() - 3_600).as_millis();
    for n in 0..200 {
        redis.ask(&format!("XADD portcullis:denied {old}-{n} session s{n}"));
    }
    here.ended().await;
    here.feed.sync().await.unwrap();
    here.ended().await;
    here.feed.sync().await.unwrap();
    let length: u64 = redis.ask("XLEN portcullis:denied")[1..].parse().unwrap();
    assert!(length < 200, "{length}");
}

#[tokio::test]
async fn a_server_that_evicts_or_refuses_is_refused_and_one_that_is_away_is_not() {
    for policy in ["allkeys-lru", "volatile-ttl"] {
        let evicting = Redis::start_with(&["--maxmemory-policy", policy]);
        let Some(evicting) = evicting else {
            return;
        };
        let refused = RedisFeed::connect(&evicting.url()).await.unwrap_err();
        assert!(refused.to_string().contains("noeviction"), "{refused}");
    }
    let guarded = Redis::start_with(&[]).unwrap();
    assert_eq!(guarded.ask("CONFIG SET requirepass sesame"), "+OK");
    let refused = RedisFeed::connect(&guarded.url()).await.unwrap_err();
    assert!(refused.to_string().contains("credentials"), "{refused}");
    RedisFeed::connect("redis+unix:///nonexistent/redis.sock")
        .await
        .unwrap();
    RedisFeed::connect("http://redis").await.unwrap_err();
}

#[tokio::test]
async fn a_server_that_begins_to_evict_counts_as_away() {
    let Some(redis) = Redis::start() else {
        return;
    };
    let events = Arc::<Mutex<Vec<EventKind>>>::default();
    let sink = events.clone();
    let (clock, context) = manual();
    let context = context
        .with_events_inline(move |event: &SecurityEvent| sink.lock().unwrap().push(event.kind()));
    let here = Instance::on(&redis, &context).await;
    here.feed.sync().await.unwrap();
    assert_eq!(redis.ask("CONFIG SET maxmemory-policy allkeys-lru"), "+OK");
    clock.advance(Duration::from_secs(61));
    for _ in 0..3 {
        here.feed.sync().await.unwrap();
        assert!(here.feed.is_degraded());
    }
    let told = events.lock().unwrap().clone();
    assert_eq!(told, [EventKind::Misconfigured], "once");
    assert_eq!(redis.ask("CONFIG SET maxmemory-policy noeviction"), "+OK");
    here.feed.sync().await.unwrap();
    assert!(!here.feed.is_degraded());
}

#[tokio::test]
async fn a_cluster_tells_ends_too() {
    let Some(cluster) = RedisCluster::start() else {
        return;
    };
    let (_, context) = manual();
    let urls = cluster.urls();
    let mut instances = Vec::new();
    for _ in 0..2 {
        let urls = urls.iter().map(String::as_str);
        let feed = RedisFeed::connect_cluster(urls).await.unwrap();
        let store = ProbeStore::default();
        let instance = Instance::new(context.clone(), store, MemoryKeys::new(), Some(feed));
        instance.feed.sync().await.unwrap();
        assert!(!instance.feed.is_degraded());
        instances.push(instance);
    }
    let id = instances[0].ended().await;
    for instance in &instances {
        instance.feed.sync().await.unwrap();
    }
    assert!(instances[1].refuses(id));
}

#[tokio::test]
async fn a_key_that_was_replaced_elsewhere_is_asked_for_again() {
    let (clock, context) = manual();
    let store = Arc::new(ProbeStore::default());
    let keys = Arc::new(MemoryKeys::new());
    let [here, there] =
        [(); 2].map(|()| Instance::new(context.clone(), store.clone(), keys.clone(), None));
    for instance in [&here, &there] {
        instance.feed.sync().await.unwrap();
    }
    let owner = Identity::new(IdentityKind::AccessToken, "ada").with_auth_time(context.wall());
    let key = here
        .keys
        .create(&owner, NewApiKey::new("ci"))
        .await
        .unwrap();
    there.keys.verify(key.key().expose(), None).await.unwrap();
    let id = key.record().id;
    here.keys.rotate(&owner, id, SECOND).await.unwrap();
    clock.advance(SECOND);
    there.feed.sync().await.unwrap();
    let answer = there.keys.verify(key.key().expose(), None).await;
    assert!(matches!(answer, Err(ApiKeyError::Expired)), "{answer:?}");
}

/// Clocks differ, and an end takes its time from its hour to its row.
#[tokio::test]
async fn a_key_that_ended_a_minute_before_the_last_reading_is_heard_of() {
    let store = Arc::new(MemoryKeys::new());
    let ((_, behind), (clock, ahead)) = (manual(), manual());
    clock.advance(Duration::from_secs(60));
    let [behind, ahead] = [behind, ahead]
        .map(|context| Instance::new(context, ProbeStore::default(), store.clone(), None));
    let owner = Identity::new(IdentityKind::AccessToken, "ada");
    let owner = owner.with_auth_time(behind.context.wall());
    let key = behind.keys.create(&owner, NewApiKey::new("ci")).await;
    let key = key.unwrap();
    let asked = async || ahead.keys.verify(key.key().expose(), None).await;
    assert!(asked().await.is_ok());
    ahead.feed.sync().await.unwrap();
    let id = key.record().id;
    behind.keys.revoke(&owner, id).await.unwrap();
    assert!(asked().await.is_ok(), "it is remembered");
    ahead.feed.sync().await.unwrap();
    assert!(matches!(asked().await, Err(ApiKeyError::Revoked)));
}
