//! Three instances of the example on one PostgreSQL and one Redis, as processes of their own: they
//! behave as one, also while what they share is killed, stalled or restarted.
#![cfg(all(
    feature = "api-key",
    feature = "axum",
    feature = "cors",
    feature = "csrf",
    feature = "headers",
    feature = "jwt",
    feature = "login-throttle",
    feature = "password",
    feature = "postgres",
    feature = "rate-limit",
    feature = "redis",
    feature = "sqlite",
    feature = "upload"
))]

mod support;

use std::{
    collections::BTreeMap,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use reqwest::{Client, Method};
use serde_json::{Value, json};
use support::{
    daemon::binary,
    postgres::Postgres,
    redis::Redis,
    server::{Server, example, refused},
};
use tokio::task::JoinHandle;

const SECOND: Duration = Duration::from_secs(1);
const PASSWORD: &str = "correct horse battery";
const SECRETS: [&str; 4] = [
    "hex:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "hex:60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752",
    "hex:fd61a03af4f77d870fc21e05e7e80678095c92d808cfb3b5c279ee04c74aca13",
    "hex:a4e624d686e03ed2767c0abd85c14426b0b1157d2ce81d27bb4fe4f6f01d688a",
];

/// What the instances share.
struct Fleet {
    postgres: Postgres,
    redis: Option<Redis>,
    vars: BTreeMap<&'static str, String>,
}

impl Fleet {
    fn new(postgres: Postgres, redis: Option<Redis>, vars: &[(&'static str, &str)]) -> Self {
        let mut all = BTreeMap::from([
            ("DATABASE_URL", postgres.url()),
            ("JWT_SECRET", SECRETS[0].to_owned()),
            ("JWT_REFRESH_SECRET", SECRETS[1].to_owned()),
            ("TRUSTED_PROXIES", "127.0.0.1".to_owned()),
            ("RATE_LIMIT_MAX_REQUESTS", "1000000".to_owned()),
            ("AUTH_RATE_LIMIT_MAX", "1000000".to_owned()),
        ]);
        all.extend(redis.iter().map(|redis| ("REDIS_URL", redis.url())));
        all.extend(
            vars.iter()
                .map(|(name, value)| (*name, (*value).to_owned())),
        );
        Self {
            postgres,
            redis,
            vars: all,
        }
    }

    fn start(&self) -> Server {
        let vars: Vec<(&str, &str)> = self
            .vars
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        Server::start(&vars)
    }

    fn three(&self) -> Vec<Server> {
        (0..3).map(|_| self.start()).collect()
    }
}

/// A client of one instance, or of whichever the list names now.
#[derive(Clone)]
struct Api {
    client: Client,
    instances: Arc<Mutex<Vec<String>>>,
    turn: Arc<AtomicUsize>,
}

impl Api {
    fn of<'a>(servers: impl IntoIterator<Item = &'a Server>) -> Self {
        let instances = servers.into_iter().map(|server| server.url("")).collect();
        Self {
            client: Client::builder().pool_max_idle_per_host(0).build().unwrap(),
            instances: Arc::new(Mutex::new(instances)),
            turn: Arc::default(),
        }
    }

    /// The next instance in turn.
    fn next(&self) -> String {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let instances = self.instances.lock().unwrap();
        instances[turn % instances.len()].clone()
    }

    /// Status and body; an error when nobody answered.
    async fn send(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
        from: &str,
    ) -> Result<(u16, Value), reqwest::Error> {
        let url = format!("{}{path}", self.next());
        let mut request = self.client.request(method, url);
        request = request
            .header("x-forwarded-for", from)
            .header("sec-fetch-site", "none");
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await?;
        let status = response.status().as_u16();
        let text = response.text().await?;
        Ok((status, serde_json::from_str(&text).unwrap_or_default()))
    }

    async fn get(&self, path: &str, token: &str) -> u16 {
        let answer = self.send(Method::GET, path, Some(token), None, HERE);
        answer.await.unwrap().0
    }

    async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let answer = self.send(Method::POST, path, None, Some(body), HERE);
        answer.await.unwrap()
    }

    /// Registers where that is needed, and logs in: access and refresh token.
    async fn enter(&self, name: &str) -> (String, String) {
        let body = json!({"username": name, "password": PASSWORD});
        self.post("/auth/register", &body).await;
        let (status, pair) = self.post("/auth/login", &body).await;
        assert_eq!(status, 200, "{pair}");
        (text(&pair, "access_token"), text(&pair, "refresh_token"))
    }

    /// How many times, on all instances, Redis did not answer in time.
    async fn decided_alone(&self) -> u64 {
        let instances = self.instances.lock().unwrap().clone();
        let mut sum = 0;
        for instance in instances {
            let request = self.client.get(format!("{instance}/metrics"));
            let text = request.send().await.unwrap().text().await.unwrap();
            let line = text.lines().find_map(|line| line.strip_prefix(OUTAGES));
            sum += line.unwrap().trim().parse::<u64>().unwrap();
        }
        sum
    }

    async fn health(&self) -> (u16, String) {
        let answer = self.send(Method::GET, "/healthz", None, None, HERE).await;
        let (status, body) = answer.unwrap();
        (status, body["detail"].as_str().unwrap_or_default().into())
    }
}

fn text(value: &Value, member: &str) -> String {
    value[member].as_str().unwrap().to_owned()
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}: never");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    begun.elapsed()
}

/// Requests that go on until it is ended: what was answered, and how long the slowest took.
struct Load {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Tally>>,
}

#[derive(Debug, Default)]
struct Tally {
    statuses: BTreeMap<u16, usize>,
    /// Connections that nobody took, after which the next instance was asked.
    refused: usize,
    slowest: Duration,
}

impl Tally {
    fn add(&mut self, other: Self) {
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        self.refused += other.refused;
        self.slowest = self.slowest.max(other.slowest);
    }

    fn of(&self, status: u16) -> usize {
        self.statuses.get(&status).copied().unwrap_or(0)
    }

    fn no_5xx_but_503(&self) {
        let other = self.statuses.keys().find(|s| **s >= 500 && **s != 503);
        assert_eq!(other, None, "{self:?}");
    }
}

impl Load {
    fn start() -> Self {
        Self {
            stop: Arc::default(),
            tasks: Vec::new(),
        }
    }

    /// Asks for `/api/me` again and again.
    fn reads(&mut self, api: &Api, access: &str) {
        let (api, access, stop) = (api.clone(), access.to_owned(), self.stop.clone());
        self.tasks.push(tokio::spawn(async move {
            let mut tally = Tally::default();
            while !stop.load(Ordering::Relaxed) {
                let ask = || api.send(Method::GET, "/api/me", Some(&access), None, HERE);
                let (status, _) = answered(ask, &mut tally).await;
                assert!(matches!(status, 200 | 503), "{status}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            tally
        }));
    }

    /// Refreshes a session again and again, each time with the latest token; it never ends.
    fn refreshes(&mut self, api: &Api, refresh: &str) {
        let (api, mut token, stop) = (api.clone(), refresh.to_owned(), self.stop.clone());
        self.tasks.push(tokio::spawn(async move {
            let mut tally = Tally::default();
            while !stop.load(Ordering::Relaxed) {
                let body = json!({"refresh_token": token});
                let ask = || api.send(Method::POST, "/auth/refresh", None, Some(&body), HERE);
                let (status, pair) = answered(ask, &mut tally).await;
                match status {
                    200 => token = text(&pair, "refresh_token"),
                    503 => {}
                    _ => panic!("a session was lost: {status} {pair}"),
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            // After all that, the session goes on.
            let body = json!({"refresh_token": token});
            let mut status = 503;
            while status == 503 {
                status = api.post("/auth/refresh", &body).await.0;
            }
            assert_eq!(status, 200);
            tally
        }));
    }

    async fn end(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut sum = Tally::default();
        for task in self.tasks {
            sum.add(task.await.unwrap());
        }
        sum
    }
}

/// Asks until someone answers, which another instance does when one has stopped listening.
async fn answered<F>(ask: impl Fn() -> F, tally: &mut Tally) -> (u16, Value)
where
    F: Future<Output = Result<(u16, Value), reqwest::Error>>,
{
    loop {
        let begun = Instant::now();
        match ask().await {
            Ok((status, body)) => {
                tally.slowest = tally.slowest.max(begun.elapsed());
                *tally.statuses.entry(status).or_default() += 1;
                return (status, body);
            }
            Err(error) => {
                assert!(was_not_taken(&error), "a request was lost: {error:?}");
                tally.refused += 1;
            }
        }
    }
}

/// Nobody listened, or whoever did closed with the connection in the kernel's queue.
fn was_not_taken(error: &reqwest::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let kind = error.downcast_ref::<std::io::Error>().map(|io| io.kind());
        if kind == Some(std::io::ErrorKind::ConnectionReset) {
            return true;
        }
        cause = error.source();
    }
    error.is_connect()
}

/// When a request was sent and answered.
type Span = (Instant, Instant);

/// Sends as fast as it goes, through all instances, for `time`: when those were sent and answered
/// that were not refused.
async fn hammer(api: &Api, from: &str, time: Duration, others: &Mutex<Tally>) -> Vec<Span> {
    let begun = Instant::now();
    let tasks = (0..12).map(|_| async {
        let (mut admitted, mut tally) = (Vec::new(), Tally::default());
        while begun.elapsed() < time {
            let sent = Instant::now();
            let ask = || api.send(Method::GET, "/auth/sessions", None, None, from);
            let (status, _) = answered(ask, &mut tally).await;
            match status {
                // The limit stands before authentication.
                401 => admitted.push((sent, Instant::now())),
                429 => tokio::time::sleep(Duration::from_millis(2)).await,
                503 => {}
                _ => panic!("{status}"),
            }
        }
        others.lock().unwrap().add(tally);
        admitted
    });
    futures_util::future::join_all(tasks).await.concat()
}

/// Hammers for `time` in which Redis answered all: an instance of a machine so busy that it did not
/// within 100 ms decided alone, and nothing can be said of the fleet.
async fn hammer_calmly(
    api: &Api,
    from: &str,
    time: Duration,
    window: Duration,
    others: &Mutex<Tally>,
) -> Vec<Span> {
    for _ in 0..10 {
        let before = api.decided_alone().await;
        let admitted = hammer(api, from, time, others).await;
        if api.decided_alone().await == before {
            return admitted;
        }
        println!("the machine is too busy: again");
        tokio::time::sleep(window).await;
    }
    panic!("Redis does not answer in time");
}

/// The most requests that were certainly admitted within one window.
fn most_within(admitted: &[Span], window: Duration) -> usize {
    let within = |start: Instant| {
        let inside = |(sent, answered): &&Span| *sent >= start && *answered < start + window;
        admitted.iter().filter(inside).count()
    };
    let starts = admitted.iter().map(|(sent, _)| *sent);
    starts.map(within).max().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn hammering_three_instances_never_exceeds_the_limit_in_any_window() {
    let (Some(postgres), Some(redis)) = (Postgres::start(), Redis::start()) else {
        return;
    };
    let limit = 20;
    let fleet = Fleet::new(
        postgres,
        Some(redis),
        &[
            ("RATE_LIMIT_MAX_REQUESTS", "20"),
            ("RATE_LIMIT_WINDOW_MS", "1000"),
        ],
    );
    let servers = fleet.three();
    let api = Api::of(&servers);
    let tally = Mutex::default();
    let admitted = hammer_calmly(&api, "198.51.100.7", SECOND * 6, SECOND, &tally).await;
    let tally = tally.into_inner().unwrap();
    let most = most_within(&admitted, SECOND);
    println!(
        "{} admitted in 6 s, at most {most} of {limit} in any second; {tally:?}",
        admitted.len()
    );
    tally.no_5xx_but_503();
    assert!(most <= limit, "{most}");
    assert!(admitted.len() >= 3 * limit, "{}", admitted.len());
    // While each instance alone would have admitted as many.
    assert!(tally.of(429) > 0 && tally.of(503) == 0, "{tally:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_logins_of_an_account_are_counted_together() {
    let (Some(postgres), Some(redis)) = (Postgres::start(), Redis::start()) else {
        return;
    };
    let fleet = Fleet::new(postgres, Some(redis), &[("AUTH_ACCOUNT_FAILURES_MAX", "5")]);
    let servers = fleet.three();
    let api = Api::of(&servers);
    for round in 0..10 {
        let name = format!("user-{round}");
        api.enter(&name).await;
        let before = api.decided_alone().await;
        let guess = json!({"username": name, "password": "a wrong password"});
        let mut answers = Vec::new();
        for _ in 0..5 {
            // Three at once, one at each: more would wait for their turn to be hashed.
            let three = (0..3).map(|_| api.post("/auth/login", &guess));
            answers.extend(futures_util::future::join_all(three).await);
        }
        if api.decided_alone().await == before {
            let of = |status| answers.iter().filter(|answer| answer.0 == status).count();
            assert_eq!((of(401), of(429)), (5, 10), "{answers:?}");
            return;
        }
        println!("the machine is too busy: again");
    }
    panic!("Redis does not answer in time");
}

async fn ends_are_felt(redis: Option<Redis>, postgres: Postgres) {
    let through = if redis.is_some() {
        "Redis"
    } else {
        "PostgreSQL"
    };
    let fleet = Fleet::new(postgres, redis, &[]);
    let servers = fleet.three();
    let each: Vec<Api> = servers.iter().map(|server| Api::of([server])).collect();
    let mut times = Vec::new();
    for here in &each {
        let (access, refresh) = here.enter("alice").await;
        let (other, _) = here.enter("alice").await;
        let body = json!({"name": "ci"});
        let key = here
            .send(Method::POST, "/api/keys", Some(&other), Some(&body), HERE)
            .await
            .unwrap()
            .1;
        let (id, key) = (text(&key, "id"), text(&key, "key"));
        for api in &each {
            assert_eq!(api.get("/api/me", &access).await, 200);
            assert_eq!(api.get("/api/ping", &key).await, 200);
        }
        let all_refuse = async |path: &str, token: &str| {
            until(path, async || {
                let asked = each.iter().map(|api| api.get(path, token));
                let answers = futures_util::future::join_all(asked).await;
                assert!(
                    answers.iter().all(|s| matches!(s, 200 | 401)),
                    "{answers:?}"
                );
                answers.iter().all(|status| *status == 401)
            })
            .await
        };
        let logout = json!({"refresh_token": refresh});
        assert_eq!(here.post("/auth/logout", &logout).await.0, 204);
        times.push(all_refuse("/api/me", &access).await);

        let path = format!("/api/keys/{id}");
        let revoked = here.send(Method::DELETE, &path, Some(&other), None, HERE);
        assert_eq!(revoked.await.unwrap().0, 204);
        times.push(all_refuse("/api/ping", &key).await);

        let ended = here.send(Method::DELETE, "/auth/sessions", Some(&other), None, HERE);
        assert_eq!(ended.await.unwrap().0, 204);
        times.push(all_refuse("/api/me", &other).await);
    }
    println!("ends of a session, a key and a user through {through}: {times:?}");
    assert!(times.iter().all(|time| *time < SECOND), "{times:?}");
}

#[test]
fn the_example_of_a_cluster_sees_what_it_should() {
    let (Some(redis), Some(postgres)) = (
        binary("PORTCULLIS_TEST_REDIS"),
        binary("PORTCULLIS_TEST_POSTGRES"),
    ) else {
        return;
    };
    let run = Command::new(example("cluster"))
        .env("REDIS_SERVER", redis)
        .env("POSTGRES_BIN", postgres)
        .output()
        .unwrap();
    let told = String::from_utf8(run.stdout).unwrap();
    print!("{told}");
    assert_eq!(run.status.code(), Some(0), "{told}");
    assert!(
        told.ends_with("\n16 of 16 are as they should be\n"),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_would_lose_ends_is_refused_and_one_that_is_away_is_not() {
    let Some(redis) = Redis::start() else {
        return;
    };
    let url = redis.url();
    let told = |change: &str| {
        assert_eq!(redis.ask(change), "+OK");
        let (code, told) = refused(&[
            ("REDIS_URL", &url),
            ("JWT_SECRET", SECRETS[0]),
            ("JWT_REFRESH_SECRET", SECRETS[1]),
        ]);
        assert_eq!(code, Some(2), "{told}");
        assert_eq!(told.lines().count(), 1, "{told}");
        assert!(told.starts_with("REDIS_URL: "), "{told}");
        told
    };
    let evicts = told("CONFIG SET maxmemory-policy volatile-lru");
    assert!(evicts.contains("noeviction"), "{evicts}");
    told("CONFIG SET requirepass sesame");

    let away = Server::start(&[("REDIS_URL", "redis+unix:///nonexistent/redis.sock")]);
    let api = Api::of([&away]);
    let (access, _) = api.enter("alice").await;
    assert_eq!(api.get("/api/me", &access).await, 200);
    until("/healthz names what Redis is for", async || {
        api.health().await == (503, "degraded: limits, deny_list".into())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_production_checklist_holds_at_each_start_of_a_fleet() {
    let (Some(postgres), Some(redis)) = (Postgres::start(), Redis::start()) else {
        return;
    };
    let fleet = Fleet::new(
        postgres,
        Some(redis),
        &[
            ("APP_ENV", "production"),
            ("PUBLIC_ORIGIN", "https://example.com"),
            ("API_KEYS_ENV", "test"),
            ("BCRYPT_COST", "10"),
            ("RATE_LIMIT_MAX_REQUESTS", "100"),
            ("AUTH_RATE_LIMIT_MAX", "5"),
        ],
    );
    for _ in 0..2 {
        let run = Command::new(example("checklist"))
            .env_clear()
            .envs(&fleet.vars)
            .output()
            .unwrap();
        let table = String::from_utf8(run.stdout).unwrap();
        let line = table.lines().find(|line| line.contains(" limits_fleet "));
        let line = line.unwrap();
        assert!(
            line.starts_with("configured ") && line.contains("together"),
            "{line}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_on_one_instance_is_felt_by_the_others_through_redis() {
    let (Some(postgres), Some(redis)) = (Postgres::start(), Redis::start()) else {
        return;
    };
    ends_are_felt(Some(redis), postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_on_one_instance_is_felt_by_the_others_through_postgresql() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    ends_are_felt(None, postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_killed_under_refresh_load_loses_no_session() {
    let (Some(postgres), Some(redis)) = (Postgres::start(), Redis::start()) else {
        return;
    };
    let mut fleet = Fleet::new(postgres, Some(redis), &[]);
    let servers = fleet.three();
    let api = Api::of(&servers);
    let mut load = Load::start();
    for user in 0..8 {
        let (access, refresh) = api.enter(&format!("user-{user}")).await;
        load.refreshes(&api, &refresh);
        load.reads(&api, &access);
    }
    for _ in 0..2 {
        tokio::time::sleep(SECOND).await;
        fleet.postgres.kill();
        until("/healthz names the sessions", async || {
            api.health().await == (503, "degraded: sessions".into())
        })
        .await;
        fleet.postgres.start_again();
        until("/healthz is well", async || api.health().await.0 == 200).await;
    }
    tokio::time::sleep(SECOND).await;
    let tally = load.end().await;
    println!("PostgreSQL killed twice: {tally:?}");
    tally.no_5xx_but_503();
    assert!(tally.of(200) > 100 && tally.of(503) > 0, "{tally:?}");
    assert_eq!(tally.refused, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_killed_emptied_and_stalled_under_load_bounds_hold() {
    let (Some(postgres), Some(redis)) = (Postgres::start(), Redis::start()) else {
        return;
    };
    let limit = 10;
    let mut fleet = Fleet::new(
        postgres,
        Some(redis),
        &[
            ("AUTH_RATE_LIMIT_MAX", "1000000"),
            ("RATE_LIMIT_MAX_REQUESTS", "10"),
            ("RATE_LIMIT_WINDOW_MS", "2000"),
        ],
    );
    let window = SECOND * 2;
    let servers = fleet.three();
    let api = Api::of(&servers);
    let (access, _) = api.enter("alice").await;
    let hammered = Mutex::<Tally>::default();
    let mut load = Load::start();
    // Every request from a client of its own, so that no limit but the attacker's is met.
    let (reader, stop) = (api.clone(), load.stop.clone());
    load.tasks.push(tokio::spawn(async move {
        let mut tally = Tally::default();
        let mut client = 0_u32;
        while !stop.load(Ordering::Relaxed) {
            client += 1;
            let from = std::net::Ipv4Addr::from(0xC633_0000 + client).to_string();
            let ask = || reader.send(Method::GET, "/api/me", Some(&access), None, &from);
            let (status, _) = answered(ask, &mut tally).await;
            assert!(matches!(status, 200 | 503), "{status}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tally
    }));

    for act in ["kill -9, restart empty", "SIGSTOP"] {
        let calm = hammer_calmly(&api, "203.0.113.7", window, window, &hammered);
        let calm = most_within(&calm.await, window);
        let redis = fleet.redis.as_mut().unwrap();
        let storm = hammer(&api, "203.0.113.7", SECOND * 6, &hammered);
        let trouble = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            match act {
                "SIGSTOP" => redis.stall(),
                _ => redis.kill(),
            }
            until("/healthz names what Redis is for", async || {
                let mut degraded = 0;
                for _ in 0..3 {
                    degraded += usize::from(
                        api.health().await == (503, "degraded: limits, deny_list".into()),
                    );
                }
                degraded == 3
            })
            .await;
            match act {
                "SIGSTOP" => redis.go_on(),
                _ => redis.start_again(),
            }
            until("/healthz is well", async || {
                let mut well = 0;
                for _ in 0..3 {
                    well += usize::from(api.health().await.0 == 200);
                }
                well == 3
            })
            .await
        };
        let (storm, back) = tokio::join!(storm, trouble);
        let most = most_within(&storm, window);
        println!(
            "{act}: at most {calm} of {limit} in a window before, {most} meanwhile; well again after {back:?}"
        );
        assert!(calm <= limit, "{calm}");
        // Each instance keeps the limit by itself, and Redis may have forgotten once.
        assert!(most <= 4 * limit, "{most}");
        let after = hammer_calmly(&api, "203.0.113.8", window, window, &hammered).await;
        let after = most_within(&after, window);
        assert!(after <= limit, "{act}: {after} after Redis was back");
    }
    let tally = load.end().await;
    let hammered = hammered.into_inner().unwrap();
    println!("users: {tally:?}\nattacker: {hammered:?}");
    for tally in [&tally, &hammered] {
        tally.no_5xx_but_503();
        assert!(tally.slowest < SECOND * 2, "{tally:?}");
    }
    assert_eq!(tally.of(503), 0, "Redis is no reason to refuse users");
    assert!(tally.of(200) > 100, "{tally:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_with_new_secrets_loses_no_request_and_no_session() {
    let (Some(postgres), Some(redis)) = (Postgres::start(), Redis::start()) else {
        return;
    };
    let mut fleet = Fleet::new(postgres, Some(redis), &[]);
    let mut servers = fleet.three();
    let api = Api::of(&servers);
    let mut load = Load::start();
    let mut readers = Vec::new();
    for user in 0..6 {
        let (access, refresh) = api.enter(&format!("user-{user}")).await;
        load.refreshes(&api, &refresh);
        load.reads(&api, &access);
        readers.push(access);
    }
    // Known to all before it signs, and known to all until nothing signed by it counts.
    let [old, old_refresh, new, new_refresh] = SECRETS;
    for (step, signs, knows) in [
        (
            "the new secrets are known",
            [old, old_refresh],
            [new, new_refresh],
        ),
        (
            "the new secrets sign",
            [new, new_refresh],
            [old, old_refresh],
        ),
    ] {
        fleet.vars.insert("JWT_SECRET", signs[0].into());
        fleet.vars.insert("JWT_REFRESH_SECRET", signs[1].into());
        fleet.vars.insert("JWT_SECRET_PREVIOUS", knows[0].into());
        fleet
            .vars
            .insert("JWT_REFRESH_SECRET_PREVIOUS", knows[1].into());
        for (place, server) in servers.iter_mut().enumerate() {
            let started = fleet.start();
            let url = started.url("");
            let leaving = std::mem::replace(server, started);
            // Clients find its port closed before they hear of the one in its place.
            let status = tokio::task::spawn_blocking(|| leaving.stop())
                .await
                .unwrap();
            assert!(status.success(), "{status}");
            tokio::time::sleep(Duration::from_millis(200)).await;
            api.instances.lock().unwrap()[place] = url;
        }
        println!("{step}");
    }
    tokio::time::sleep(SECOND).await;
    let tally = load.end().await;
    println!("six restarts and new secrets: {tally:?}");
    assert_eq!(
        tally.statuses.keys().collect::<Vec<_>>(),
        [&200],
        "{tally:?}"
    );
    assert!(tally.of(200) > 100 && tally.refused > 0, "{tally:?}");
    for access in &readers {
        assert_eq!(api.get("/api/me", access).await, 200);
    }
}

const HERE: &str = "192.0.2.1";
const OUTAGES: &str = "portcullis_events_total{event=\"store_unavailable\"}";
