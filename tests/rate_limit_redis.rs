//! Limits of a fleet, on a real Redis.
#![cfg(all(feature = "rate-limit", feature = "redis"))]

use std::{
    convert::Infallible,
    future::{Ready, poll_fn, ready},
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    task::Poll,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use portcullis::{
    Client, Context, Secret,
    rate_limit::{
        FieldsVersion, Key, Policy, RateLimitLayer,
        redis::{Outage, RedisLimits, SharedRateLimitLayer},
    },
    stack::{Guard, GuardLayer, SecurityStack},
};
use support::{
    daemon::until,
    forwarder::Forwarder,
    redis::{Redis, RedisCluster},
};
use tokio::{runtime::Handle, task};
use tower::{Layer, ServiceExt};

mod support;

type Body = Full<Bytes>;

const WINDOW: Duration = Duration::from_secs(900);
const STATUS: &str = "x-status";

/// The first `N` requests of a key, in any window.
fn strict(name: &str, limit: u32) -> Policy {
    Policy::strict(name, limit, WINDOW).unwrap()
}

fn secret() -> Secret {
    Secret::new(*b"3v9Kq0xZr7Lw2NfYpT8uHs5JdGcBmA1e").unwrap()
}

/// Waits for Redis however busy the machine is, so that an instance never decides alone.
async fn on(redis: &Redis) -> RedisLimits {
    hurried(redis).await.with_budget(Duration::from_secs(60))
}

/// With the budget that it has by default.
async fn hurried(redis: &Redis) -> RedisLimits {
    RedisLimits::connect(&redis.url(), &secret()).await.unwrap()
}

/// An instance of a service with its own connection and its own counts.
async fn instance(
    redis: &Redis,
    policies: impl IntoIterator<Item = Policy>,
) -> SharedRateLimitLayer {
    RateLimitLayer::new(policies).shared(on(redis).await)
}

fn from(ip: &str) -> Request<Body> {
    let mut request = Request::new(Body::default());
    let client = Client::new(Some(ip.parse().unwrap()), false);
    request.extensions_mut().insert(client);
    request
}

/// Answers with the status that the request asks for.
fn inner(request: Request<Body>) -> Ready<Result<Response<Body>, Infallible>> {
    let status = request.headers().get(STATUS);
    let status = status.map_or(StatusCode::OK, |status| {
        StatusCode::from_bytes(status.as_bytes()).unwrap()
    });
    let mut response = Response::new(Body::default());
    *response.status_mut() = status;
    ready(Ok(response))
}

async fn answer(layer: &SharedRateLimitLayer, request: Request<Body>) -> Response<Body> {
    let service = layer.layer(tower::service_fn(inner));
    service.oneshot(request).await.unwrap()
}

async fn status(layer: &SharedRateLimitLayer, ip: &str) -> u16 {
    answer(layer, from(ip)).await.status().as_u16()
}

/// How many of `requests` are admitted, one after the other.
async fn admitted(layer: &SharedRateLimitLayer, ip: &str, requests: usize) -> usize {
    let mut admitted = 0;
    for _ in 0..requests {
        admitted += usize::from(status(layer, ip).await == 200);
    }
    admitted
}

fn retry_after(response: &Response<Body>) -> u64 {
    let value = response.headers()["retry-after"].to_str().unwrap();
    value.parse().unwrap()
}

/// How many commands instances have sent: all but what scripts call, what asks this, and what the
/// client says of itself on a new connection.
fn calls(redis: &Redis) -> u64 {
    let stats = redis.answer("INFO commandstats");
    let sent = stats.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        let others = [
            "time", "get", "mget", "set", "psetex", "del", "info", "quit",
        ];
        let is_other = others.contains(&name) || name.starts_with("client");
        (!is_other).then(|| rest.split(',').next().unwrap().parse::<u64>().unwrap())
    });
    sent.sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_instances_that_are_hammered_admit_the_limit_and_no_more() {
    let Some(redis) = Redis::start() else { return };
    for policy in [
        strict("few", 5),
        strict("many", 100),
        Policy::smooth("smooth", 20, WINDOW).unwrap(),
    ] {
        let limit = policy.limit();
        let mut tasks = Vec::new();
        for _ in 0..3 {
            let layer = instance(&redis, [policy.clone()]).await;
            for _ in 0..20 {
                let layer = layer.clone();
                tasks.push(tokio::spawn(async move {
                    admitted(&layer, "203.0.113.7", 12).await
                }));
            }
        }
        let mut total = 0;
        for task in tasks {
            total += task.await.unwrap();
        }
        assert_eq!(total, limit as usize, "{policy:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_window_of_a_short_limit_holds_more_than_the_limit() {
    let Some(redis) = Redis::start() else { return };
    const SPAN: Duration = Duration::from_millis(200);
    for limit in [4, 40] {
        let policy = Policy::strict(format!("short{limit}"), limit, SPAN).unwrap();
        let mut tasks = Vec::new();
        for _ in 0..3 {
            let layer = instance(&redis, [policy.clone()]).await;
            for _ in 0..4 {
                let layer = layer.clone();
                tasks.push(tokio::spawn(async move {
                    let mut admitted = Vec::new();
                    let begun = Instant::now();
                    while begun.elapsed() < SPAN * 6 {
                        let before = Instant::now();
                        if status(&layer, "203.0.113.7").await == 200 {
                            admitted.push((before, Instant::now()));
                        }
                    }
                    admitted
                }));
            }
        }
        let mut admitted = Vec::new();
        for task in tasks {
            admitted.extend(task.await.unwrap());
        }
        assert!(admitted.len() > limit as usize, "more than one window");
        for (start, _) in &admitted {
            // Those that surely happened in the window that begins here.
            let within = admitted
                .iter()
                .filter(|(before, after)| before >= start && *after < *start + SPAN);
            assert!(within.count() <= limit as usize);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_counted_once_however_many_layers_it_passes() {
    let Some(redis) = Redis::start() else { return };
    let layer = instance(&redis, [strict("auth", 2)]).await;
    let service = layer.layer(layer.layer(tower::service_fn(inner)));
    for expected in [200, 200, 429] {
        let response = service.clone().oneshot(from("203.0.113.7")).await.unwrap();
        assert_eq!(response.status(), expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_policy_refuses_is_charged_to_none() {
    let Some(redis) = Redis::start() else { return };
    let policies = || [strict("wide", 10), strict("narrow", 2)];
    let layer = RateLimitLayer::new(policies()).with_fields(FieldsVersion::Draft10);
    let layer = layer.shared(on(&redis).await);
    let other = instance(&redis, [strict("wide", 10)]).await;
    assert_eq!(admitted(&layer, "203.0.113.7", 6).await, 2);
    assert_eq!(admitted(&other, "203.0.113.7", 20).await, 8);
    // The same where only Redis knows that a policy is used up.
    let narrow = instance(&redis, [strict("narrow", 2)]).await;
    assert_eq!(admitted(&narrow, "203.0.113.8", 2).await, 2);
    assert_eq!(admitted(&layer, "203.0.113.8", 6).await, 0);
    assert_eq!(admitted(&other, "203.0.113.8", 20).await, 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_names_the_moment_from_which_the_fleet_admits() {
    let Some(redis) = Redis::start() else { return };
    let policy = || strict("auth", 1);
    let (one, other) = (
        instance(&redis, [policy()]).await,
        instance(&redis, [policy()]).await,
    );
    assert_eq!(status(&one, "203.0.113.7").await, 200);
    let refused = answer(&other, from("203.0.113.7")).await;
    assert_eq!(refused.status(), 429);
    assert!((899..=900).contains(&retry_after(&refused)), "{refused:?}");
    assert!(
        refused.headers()["ratelimit"]
            .to_str()
            .unwrap()
            .starts_with("\"auth\";r=0;t=")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_takes_one_round_trip_and_a_refusal_that_still_holds_none() {
    let Some(redis) = Redis::start() else { return };
    let layer = instance(&redis, [strict("auth", 2), strict("general", 9)]).await;
    let before = calls(&redis);
    assert_eq!(admitted(&layer, "203.0.113.7", 2).await, 2);
    assert_eq!(
        calls(&redis),
        before + 3,
        "one each for both policies, and one that the script had to be loaded for"
    );
    let other = instance(&redis, [strict("auth", 2)]).await;
    assert_eq!(status(&other, "203.0.113.7").await, 429);
    let before = calls(&redis);
    for _ in 0..50 {
        assert_eq!(status(&other, "203.0.113.7").await, 429);
    }
    assert_eq!(calls(&redis), before);
    assert_eq!(status(&other, "203.0.113.8").await, 200);
    assert_eq!(calls(&redis), before + 1);
}

#[tokio::test]
async fn requests_at_once_share_round_trips_and_are_judged_each_for_itself() {
    let Some(redis) = Redis::start() else { return };
    let policies = || {
        [
            strict("few", 3),
            Policy::smooth("many", 50, WINDOW).unwrap(),
        ]
    };
    let layer = instance(&redis, policies()).await;
    assert_eq!(status(&layer, "203.0.113.9").await, 200);
    let before = calls(&redis);
    let one = || status(&layer, "203.0.113.7");
    let other = || status(&layer, "203.0.113.8");
    let answers = join_all((0..48).map(|index| async move {
        match index % 8 {
            0 => one().await,
            _ => other().await,
        }
    }));
    let admitted = answers
        .await
        .iter()
        .filter(|status| **status == 200)
        .count();
    assert_eq!(admitted, 3 + 3);
    // Those that found four calls under way share the next ones.
    assert!(calls(&redis) - before <= 8, "48 requests at once");
    // What was refused was charged to none of the two.
    let many = instance(&redis, [Policy::smooth("many", 50, WINDOW).unwrap()]).await;
    assert_eq!(self::admitted(&many, "203.0.113.7", 60).await, 47);
}

/// Of ten requests four are asked for at once; the fifth leads a call for itself and the last two.
#[tokio::test]
async fn who_goes_away_takes_no_answer_with_him() {
    let Some(redis) = Redis::start() else { return };
    let layer = instance(
        &redis,
        [strict("auth", 2).on_outage(Outage::Closed).unwrap()],
    )
    .await;
    let ips: Vec<_> = (0..10).map(|host| format!("203.0.113.{host}")).collect();
    let mut asked: Vec<_> = ips.iter().map(|ip| Box::pin(status(&layer, ip))).collect();
    poll_fn(|cx| {
        assert!(
            asked
                .iter_mut()
                .all(|one| one.as_mut().poll(cx).is_pending())
        );
        Poll::Ready(())
    })
    .await;
    let mut rest = asked.split_off(4);
    assert_eq!(join_all(asked).await, [200; 4]);
    let mut leader = rest.remove(0);
    poll_fn(|cx| {
        assert!(leader.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    })
    .await;
    drop(leader);
    assert_eq!(join_all(rest).await, [200; 5]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_alone_are_counted_for_the_fleet() {
    let Some(redis) = Redis::start() else { return };
    let policy = || strict("guess", 3).failures_only();
    let instances = [
        instance(&redis, [policy()]).await,
        instance(&redis, [policy()]).await,
    ];
    let asking = |status: &str| {
        let mut request = from("203.0.113.7");
        request
            .headers_mut()
            .insert(STATUS, status.parse().unwrap());
        request
    };
    for round in 0..10 {
        let response = answer(&instances[round % 2], asking("200")).await;
        assert_eq!(response.status(), 200, "round {round}");
    }
    for round in 0..3 {
        assert_eq!(
            answer(&instances[round % 2], asking("401")).await.status(),
            401
        );
    }
    for instance in &instances {
        assert_eq!(answer(instance, asking("200")).await.status(), 429);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handle_charges_gives_back_and_resets_for_the_fleet() {
    let Some(mut redis) = Redis::start() else {
        return;
    };
    let (one, other) = (
        instance(&redis, [strict("account", 2)]).await.handle(),
        instance(&redis, [strict("account", 2)]).await.handle(),
    );
    let ada = Key::of("ada");
    one.charge("account", ada).await.unwrap().refund().await;
    let _first = one.charge("account", ada).await.unwrap();
    assert_eq!(other.peek("account", ada).await.unwrap().left, 1);
    let _second = other.charge("account", ada).await.unwrap();
    let refused = one.charge("account", ada).await.unwrap_err();
    assert_eq!(refused.status(), 429);
    assert_eq!(one.charge("nobody", ada).await.unwrap_err().status(), 500);
    assert!(one.reset("account", ada).await.unwrap());
    assert!(one.reset("nobody", ada).await.is_err());
    assert_eq!(one.peek("account", ada).await.unwrap().left, 2);
    let charge = one.charge("account", ada).await;
    assert!(charge.is_ok());
    redis.kill();
    assert!(
        !one.reset("account", ada).await.unwrap(),
        "Redis still counts"
    );
    assert_eq!(one.peek("account", ada).await.unwrap().left, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_guards_of_two_stacks_share_their_limits() {
    let Some(redis) = Redis::start() else {
        return;
    };
    let stack = async || {
        let limits = RateLimitLayer::new([strict("general", 3), strict("subject", 9).by_subject()])
            .with_fields(FieldsVersion::Draft10);
        let limits = limits.shared(on(&redis).await);
        let stack = SecurityStack::new(Context::new()).with_shared_limits(limits);
        stack
            .route(Guard::new().limit("general").limit("subject").body(8))
            .unwrap()
    };
    let (one, other) = (stack().await, stack().await);
    let ask = async |guard: &GuardLayer, body: &'static str| {
        let service = guard.layer(tower::service_fn(async |request: Request<_>| {
            let body: portcullis::guarded::GuardedBody<Body> = request.into_body();
            let read = http_body_util::BodyExt::collect(body).await.unwrap();
            Ok::<_, Infallible>(Response::new(Body::new(read.to_bytes())))
        }));
        let request = from("203.0.113.7").map(|_| Body::from(body));
        service.oneshot(request).await.unwrap()
    };
    let first = ask(&one, "read").await;
    assert_eq!(first.status(), 200);
    let fields = first.headers()["ratelimit"].to_str().unwrap();
    assert!(fields.starts_with("\"general\";r=2;t="), "{fields}");
    assert_eq!(
        ask(&other, "read").await.headers()["ratelimit"]
            .to_str()
            .unwrap()[..13],
        *"\"general\";r=1"
    );
    // A later gate refuses: the limit is charged all the same, and told.
    let large = ask(&one, "more than eight").await;
    assert_eq!(large.status(), 413);
    assert!(large.headers().contains_key("ratelimit"));
    for guard in [&one, &other] {
        let refused = ask(guard, "read").await;
        assert_eq!(refused.status(), 429);
        assert_eq!(
            refused.headers()["content-type"],
            "application/problem+json"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ipv6_clients_are_counted_by_their_networks() {
    let Some(redis) = Redis::start() else { return };
    let policy = || strict("general", 2);
    let (one, other) = (
        instance(&redis, [policy()]).await,
        instance(&redis, [policy()]).await,
    );
    assert_eq!(admitted(&one, "2001:db8:1:1::1", 2).await, 2);
    assert_eq!(
        status(&other, "2001:db8:1:1:ffff::9").await,
        429,
        "the same /64"
    );
    // 16 times the limit for the /48, of which two are used up.
    let mut total = 0;
    for network in 2..40 {
        total += admitted(&other, &format!("2001:db8:1:{network:x}::1"), 1).await;
    }
    assert_eq!(total, 30);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_in_redis_tells_a_client_and_everything_ends() {
    let Some(redis) = Redis::start() else { return };
    let layer = instance(
        &redis,
        [
            strict("general", 10),
            Policy::smooth("pace", 5, WINDOW).unwrap(),
        ],
    )
    .await;
    for ip in ["203.0.113.7", "2001:db8::1"] {
        assert_eq!(status(&layer, ip).await, 200);
    }
    let keys = redis.answer("KEYS *");
    assert_eq!(keys.matches("portcullis:rl:{").count(), 6, "{keys}");
    assert!(!keys.contains("203.0") && !keys.contains("2001:"), "{keys}");
    for key in keys.lines().filter(|line| line.starts_with("portcullis")) {
        let ttl: i64 = redis.ask(&format!("PTTL {key}"))[1..].parse().unwrap();
        assert!((1..=900_000).contains(&ttl), "{key}: {ttl}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spray_makes_no_more_keys_in_redis_than_fit_here() {
    let Some(redis) = Redis::start() else { return };
    let policy = strict("general", 50).with_capacity(64).unwrap();
    let layer = instance(&redis, [policy]).await;
    for host in 0..600_u32 {
        let ip = Ipv4Addr::from_bits(0xc0a8_0000 + host).to_string();
        status(&layer, &ip).await;
    }
    let keys: u64 = redis.ask("DBSIZE")[1..].parse().unwrap();
    // Four entries for a network of 64, and the count that its other hosts share.
    assert!(keys <= 8, "{keys}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_redis_opens_nothing_and_neither_does_its_return() {
    let Some(mut redis) = Redis::start() else {
        return;
    };
    let layer = instance(&redis, [strict("auth", 5)]).await;
    let other = instance(&redis, [strict("auth", 5)]).await;
    assert_eq!(admitted(&layer, "203.0.113.7", 3).await, 3);
    redis.kill();
    assert_eq!(
        admitted(&layer, "203.0.113.7", 10).await,
        2,
        "what is left here"
    );
    assert_eq!(admitted(&other, "203.0.113.7", 10).await, 5, "of its own");
    redis.start_again();
    // Empty. The instances still know.
    for layer in [&layer, &other] {
        used_again(layer);
        assert_eq!(admitted(layer, "203.0.113.7", 10).await, 0);
        let refused = answer(layer, from("203.0.113.7")).await;
        assert!(retry_after(&refused) >= 890);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_redis_costs_its_budget_and_then_nothing() {
    let Some(redis) = Redis::start() else { return };
    let layer = RateLimitLayer::new([strict("auth", 5)]).shared(hurried(&redis).await);
    assert_eq!(status(&layer, "203.0.113.7").await, 200);
    redis.stall();
    let mut slowest = Duration::ZERO;
    let begun = Instant::now();
    let mut total = 0;
    for _ in 0..100 {
        let asked = Instant::now();
        total += admitted(&layer, "203.0.113.7", 1).await;
        slowest = slowest.max(asked.elapsed());
    }
    let all = begun.elapsed();
    println!("stalled: {total} admitted, the slowest request {slowest:?}, 100 of them {all:?}");
    assert_eq!(total, 4);
    assert!(slowest < Duration::from_secs(2));
    assert!(layer.redis().is_degraded());
    redis.go_on();
    used_again(&layer);
    assert_eq!(status(&layer, "203.0.113.7").await, 429);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_cut_in_the_middle_is_charged_once() {
    let Some(redis) = Redis::start() else { return };
    let forwarder = Forwarder::to(redis.socket());
    let patient = Duration::from_secs(60);
    let limits = RedisLimits::connect(&forwarder.url(), &secret()).await;
    let limits = limits.unwrap().with_budget(patient);
    let layer = RateLimitLayer::new([strict("auth", 5)]).shared(limits);
    let other = instance(&redis, [strict("auth", 5)]).await;
    assert_eq!(status(&layer, "203.0.113.1").await, 200);
    let mut slowest = Duration::ZERO;
    for (round, after) in [0, 1, 5, 20, 30].into_iter().enumerate() {
        let ip = format!("203.0.114.{round}");
        assert_eq!(status(&layer, &ip).await, 200);
        let before = calls(&redis);
        forwarder.cut_next_answer(after);
        let asked = Instant::now();
        assert_eq!(status(&layer, &ip).await, 200, "this instance decides");
        slowest = slowest.max(asked.elapsed());
        assert!(forwarder.has_cut());
        assert_eq!(calls(&redis), before + 1, "the charge is not repeated");
        assert_eq!(admitted(&other, &ip, 9).await, 3, "it counts once");
        // The next request has a connection again.
        assert_eq!(status(&layer, &ip).await, 429);
    }
    println!("cut: answered after {slowest:?} at most");
    assert!(slowest < Duration::from_secs(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_has_fallen_silent_is_given_up() {
    let Some(redis) = Redis::start() else { return };
    let forwarder = Forwarder::to(redis.socket());
    let limits = RedisLimits::connect(&forwarder.url(), &secret()).await;
    let layer = RateLimitLayer::new([strict("auth", 5)]).shared(limits.unwrap());
    let other = instance(&redis, [strict("auth", 5)]).await;
    assert_eq!(status(&layer, "203.0.113.7").await, 200);
    forwarder.silence();
    let mut slowest = Duration::ZERO;
    for _ in 0..3 {
        let asked = Instant::now();
        assert_eq!(status(&layer, "203.0.113.7").await, 200);
        slowest = slowest.max(asked.elapsed());
    }
    println!("silent: answered after {slowest:?} at most");
    assert!(slowest < Duration::from_secs(2));
    assert!(
        admitted(&other, "203.0.113.7", 9).await >= 1,
        "what timed out counts once at most"
    );
    used_again(&layer);
    assert_eq!(status(&layer, "203.0.113.7").await, 429);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_fail_over_to_a_replica_keeps_the_bounds() {
    let Some([(mut primary, port), (replica, _)]) = Redis::start_with_replica() else {
        return;
    };
    const LIMIT: u32 = 20;
    const CLIENTS: usize = 250;
    let forwarder = Forwarder::to(primary.socket());
    let mut fleet = Vec::new();
    for _ in 0..3 {
        let limits = RedisLimits::connect(&forwarder.url(), &secret()).await;
        fleet.push(RateLimitLayer::new([strict("auth", LIMIT)]).shared(limits.unwrap()));
    }
    assert_eq!(admitted(&fleet[0], "203.0.113.7", 30).await, 20);
    replica.follow(port);

    let (answers, stop) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let tasks: Vec<_> = (0..12)
        .map(|task| {
            let layer = fleet[task % 3].clone();
            let (answers, stop) = (Arc::clone(&answers), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut seen = vec![0_u32; CLIENTS];
                let mut slowest = Duration::ZERO;
                for client in (0..CLIENTS).cycle() {
                    if stop.load(Relaxed) {
                        break;
                    }
                    let ip = format!("198.51.100.{client}");
                    let asked = Instant::now();
                    match status(&layer, &ip).await {
                        200 => seen[client] += 1,
                        429 => {}
                        other => panic!("{other}"),
                    }
                    slowest = slowest.max(asked.elapsed());
                    answers.fetch_add(1, Relaxed);
                    task::yield_now().await;
                }
                (seen, slowest)
            })
        })
        .collect();
    let went_on = |by: usize| {
        let from = answers.load(Relaxed);
        until("requests are answered", || {
            answers.load(Relaxed) >= from + by
        });
    };
    went_on(1500);
    primary.kill();
    went_on(300);
    replica.promote();
    forwarder.lead_to(replica.socket());
    fleet.iter().for_each(used_again);
    went_on(6000);
    stop.store(true, Relaxed);
    let mut total = vec![0; CLIENTS];
    let mut slowest = Duration::ZERO;
    for task in tasks {
        let (seen, slow) = task.await.unwrap();
        total
            .iter_mut()
            .zip(seen)
            .for_each(|(sum, seen)| *sum += seen);
        slowest = slowest.max(slow);
    }
    let most = total.iter().max().unwrap();
    let above = total.iter().filter(|admitted| **admitted > LIMIT).count();
    println!(
        "fail-over: {} requests, the slowest {slowest:?}; of {CLIENTS} clients with {LIMIT} each, \
         {above} got more, the most {most}",
        answers.load(Relaxed)
    );
    assert!(*most <= 3 * LIMIT, "the limit from each instance");
    assert!(slowest < Duration::from_secs(2));
    // What had been copied is known to an instance that starts after it, and all count as one.
    let fresh = instance(&replica, [strict("auth", LIMIT)]).await;
    assert_eq!(status(&fresh, "203.0.113.7").await, 429);
    let mut shared = 0;
    for _ in 0..10 {
        for layer in &fleet {
            shared += admitted(layer, "203.0.113.8", 1).await;
        }
    }
    assert_eq!(shared, 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_became_a_replica_is_left_for_the_new_one() {
    let Some([(old, _), (new, port)]) = Redis::start_with_replica() else {
        return;
    };
    let forwarder = Forwarder::to(old.socket());
    let limits = RedisLimits::connect(&forwarder.url(), &secret()).await;
    let layer = RateLimitLayer::new([strict("auth", 5)]).shared(limits.unwrap());
    assert_eq!(status(&layer, "203.0.113.7").await, 200);
    new.promote();
    old.follow(port);
    forwarder.lead_to(new.socket());
    for _ in 0..3 {
        assert_eq!(status(&layer, "203.0.113.7").await, 200);
    }
    used_again(&layer);
    let other = instance(&new, [strict("auth", 5)]).await;
    assert_eq!(status(&layer, "203.0.113.8").await, 200);
    assert_eq!(admitted(&other, "203.0.113.8", 9).await, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_policy_goes_its_own_way_while_redis_is_away() {
    let Some(mut redis) = Redis::start() else {
        return;
    };
    let outage = |name, outage| strict(name, 1).on_outage(outage).unwrap();
    let local = instance(&redis, [outage("local", Outage::Local)]).await;
    let open = instance(&redis, [outage("open", Outage::Open)]).await;
    let closed = instance(&redis, [outage("closed", Outage::Closed)]).await;
    redis.kill();
    assert_eq!(admitted(&local, "203.0.113.7", 5).await, 1);
    assert_eq!(admitted(&open, "203.0.113.7", 5).await, 5);
    let refused = answer(&closed, from("203.0.113.7")).await;
    assert_eq!(refused.status(), 503);
    assert_eq!(retry_after(&refused), 1);
    let guard = strict("guess", 3).failures_only().on_outage(Outage::Open);
    assert!(guard.is_err(), "a guard of credentials never opens");
    redis.start_again();
    used_again(&closed);
    assert_eq!(
        status(&closed, "203.0.113.7").await,
        200,
        "the refused were charged nothing"
    );
    assert_eq!(status(&closed, "203.0.113.7").await, 429);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_that_were_flushed_are_loaded_again() {
    let Some(redis) = Redis::start() else { return };
    let layer = instance(&redis, [strict("auth", 3)]).await;
    for _ in 0..3 {
        assert_eq!(redis.ask("SCRIPT FLUSH"), "+OK");
        assert_eq!(status(&layer, "203.0.113.7").await, 200);
    }
    assert_eq!(status(&layer, "203.0.113.7").await, 429);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_credentials_are_told_at_start_and_an_outage_is_not() {
    let Some(mut redis) = Redis::start() else {
        return;
    };
    assert_eq!(redis.ask("CONFIG SET requirepass right"), "+OK");
    let url = redis.url();
    let with = |password: &str| format!("{url}?pass={password}");
    assert!(
        RedisLimits::connect(&with("right"), &secret())
            .await
            .is_ok()
    );
    let error = RedisLimits::connect(&with("wrong"), &secret())
        .await
        .unwrap_err();
    assert!(!format!("{error} {error:?}").contains("wrong"), "{error:?}");
    assert!(
        RedisLimits::connect(&url, &secret()).await.is_err(),
        "no password at all"
    );
    assert!(
        RedisLimits::connect("nonsense://", &secret())
            .await
            .is_err()
    );
    redis.kill();
    assert!(
        RedisLimits::connect(&with("right"), &secret())
            .await
            .is_ok()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_three_keeps_the_limits() {
    let Some(cluster) = RedisCluster::start() else {
        return;
    };
    let urls = cluster.urls();
    let connect = async || {
        let urls = urls.iter().map(String::as_str);
        let redis = RedisLimits::connect_cluster(urls, &secret()).await;
        redis.unwrap().with_budget(Duration::from_secs(60))
    };
    let policies = || {
        [
            strict("general", 5),
            strict("account", 3).by(|_| Some(Key::of("ada"))),
        ]
    };
    let one = RateLimitLayer::new([strict("general", 5)]).shared(connect().await);
    let other = RateLimitLayer::new(policies()).shared(connect().await);
    for client in 0..30 {
        let ip = format!("203.0.113.{client}");
        assert_eq!(admitted(&one, &ip, 4).await, 4, "{ip}");
    }
    assert!(
        cluster.sizes().iter().all(|size| *size > 0),
        "{:?}",
        cluster.sizes()
    );
    // Counts of two slots: charged together or not at all.
    for client in 0..3 {
        assert_eq!(status(&other, &format!("203.0.113.{client}")).await, 200);
    }
    assert_eq!(
        status(&other, "203.0.113.9").await,
        429,
        "the account is used up"
    );
    assert_eq!(
        admitted(&one, "203.0.113.9", 5).await,
        1,
        "the client was not charged"
    );
    for (ip, left) in [("2001:db8:1:1::1", 5), ("203.0.113.200", 5)] {
        assert_eq!(admitted(&one, ip, 9).await, left, "{ip}");
    }
}

/// Asks as ever other clients until Redis answers again.
fn used_again(layer: &SharedRateLimitLayer) {
    let mut host = 0;
    until("Redis is used again", || {
        host += 1;
        let ip = Ipv4Addr::from_bits(0x0a00_0000 + host).to_string();
        task::block_in_place(|| Handle::current().block_on(status(layer, &ip)));
        !layer.redis().is_degraded()
    });
}
