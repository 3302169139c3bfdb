//! Rate limits through the public API.
#![cfg(feature = "rate-limit")]

use std::{
    collections::BTreeMap,
    convert::Infallible,
    future::{Ready, ready},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use portcullis::{
    Client, Context, Identity, IdentityKind, Rejection,
    client::Peer,
    event::{EventKind, SecurityEvent},
    rate_limit::{FieldsVersion, Key, LegacyReset, MissingKey, Policy, RateLimitLayer},
    time::ManualClock,
};
use proptest::prelude::*;
use tower::{Layer, Service, ServiceExt};

type Body = Full<Bytes>;

const WINDOW: Duration = Duration::from_secs(900);

fn inner(_: Request<Body>) -> Ready<Result<Response<Body>, Infallible>> {
    ready(Ok(Response::new(Body::default())))
}

fn from(ip: &str) -> Request<Body> {
    let mut request = Request::new(Body::default());
    let client = Client::new(Some(ip.parse().unwrap()), false);
    request.extensions_mut().insert(client);
    request
}

/// Makes requests.
type Made<'a> = &'a dyn Fn() -> Request<Body>;

/// What the layer answers a request.
async fn answer(layer: &RateLimitLayer, request: Request<Body>) -> Response<Body> {
    let service = layer.layer(tower::service_fn(inner));
    service.oneshot(request).await.unwrap()
}

async fn status(layer: &RateLimitLayer, request: Request<Body>) -> StatusCode {
    answer(layer, request).await.status()
}

async fn admitted(layer: &RateLimitLayer, tries: u32, ip: &str) -> u32 {
    let mut admitted = 0;
    for _ in 0..tries {
        admitted += u32::from(status(layer, from(ip)).await == StatusCode::OK);
    }
    admitted
}

fn field<'a>(response: &'a Response<Body>, name: &str) -> &'a str {
    response.headers()[name].to_str().unwrap()
}

fn with_clock(layer: RateLimitLayer) -> (ManualClock, RateLimitLayer) {
    let clock = ManualClock::new();
    let context = Context::new().with_clock(clock.clone());
    (clock, layer.with_context(context))
}

#[tokio::test]
async fn five_logins_are_five_in_every_window() {
    let policy = Policy::strict("auth", 5, WINDOW).unwrap();
    let (clock, layer) = with_clock(RateLimitLayer::new([policy]));
    // One now and four at the end of the window: GCRA and fixed windows admit nine or ten.
    assert_eq!(admitted(&layer, 1, "203.0.113.7").await, 1);
    clock.advance(WINDOW - Duration::from_millis(1));
    assert_eq!(admitted(&layer, 9, "203.0.113.7").await, 4);
    clock.advance(Duration::from_millis(1));
    assert_eq!(admitted(&layer, 9, "203.0.113.7").await, 1);
    assert_eq!(admitted(&layer, 9, "203.0.113.8").await, 5);
}

#[tokio::test]
async fn a_refusal_says_all_that_it_has_to() {
    let policies = [
        Policy::strict("general", 100, WINDOW).unwrap(),
        Policy::strict("auth", 5, WINDOW).unwrap(),
    ];
    let (clock, layer) = with_clock(RateLimitLayer::new(policies));
    assert_eq!(admitted(&layer, 5, "203.0.113.7").await, 5);
    clock.advance(Duration::from_millis(100_500));
    let response = answer(&layer, from("203.0.113.7")).await;
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(field(&response, "retry-after"), "800");
    assert_eq!(
        field(&response, "ratelimit-policy"),
        r#""general";q=100;w=900, "auth";q=5;w=900"#
    );
    assert_eq!(field(&response, "ratelimit"), r#""auth";r=0;t=800"#);
    assert_eq!(field(&response, "cache-control"), "no-store");
    let rejection = response.extensions().get::<Rejection>().unwrap();
    assert_eq!(rejection.gate(), "rate_limit");
    assert_eq!(rejection.event(), EventKind::ExcessRateLimitExceeded);
    assert_eq!(rejection.violated_policies().collect::<Vec<_>>(), ["auth"]);
    assert_eq!(
        rejection.problem_type(),
        "https://iana.org/assignments/http-problem-types#quota-exceeded"
    );
    // Never early: at the announced second it is admitted, and just before the true one it is not.
    clock.advance(Duration::from_millis(799_499));
    assert_eq!(admitted(&layer, 1, "203.0.113.7").await, 0);
    clock.advance(Duration::from_millis(1));
    assert_eq!(admitted(&layer, 9, "203.0.113.7").await, 5);
}

#[tokio::test]
async fn fields_stand_on_admitted_responses_when_they_are_on() {
    let policies = || {
        [
            Policy::strict("general", 100, WINDOW).unwrap(),
            Policy::smooth("model", 5, WINDOW).unwrap(),
        ]
    };
    let off = RateLimitLayer::new(policies());
    assert!(answer(&off, from("203.0.113.7")).await.headers().is_empty());
    let on = RateLimitLayer::new(policies()).with_fields(FieldsVersion::Draft10);
    let (_clock, on) = with_clock(on);
    let response = answer(&on, from("203.0.113.7")).await;
    assert_eq!(field(&response, "ratelimit"), r#""model";r=4;t=180"#);
    assert_eq!(
        field(&response, "ratelimit-policy"),
        r#""general";q=100;w=900, "model";q=5;w=900"#
    );
    // The stricter policy is reported, whichever it is.
    let general = on.only(["general"]).unwrap();
    let response = answer(&general, from("203.0.113.7")).await;
    assert_eq!(field(&response, "ratelimit"), r#""general";r=98;t=960"#);
    assert_eq!(
        field(&response, "ratelimit-policy"),
        r#""general";q=100;w=900"#
    );
}

#[tokio::test]
async fn a_window_of_900_seconds_reads_as_900_on_the_hosts_clock() {
    let policy = Policy::strict("auth", 5, WINDOW).unwrap();
    let layer = RateLimitLayer::new([policy]).with_fields(FieldsVersion::Draft10);
    for ip in 1..50 {
        let response = answer(&layer, from(&format!("203.0.113.{ip}"))).await;
        assert_eq!(field(&response, "ratelimit"), r#""auth";r=4;t=900"#);
    }
}

#[tokio::test]
async fn what_one_policy_refuses_is_charged_to_none() {
    let policies = [
        Policy::strict("general", 10, WINDOW).unwrap(),
        Policy::strict("auth", 2, WINDOW).unwrap(),
        Policy::strict("last", 10, WINDOW).unwrap(),
    ];
    let layer = RateLimitLayer::new(policies).with_fields(FieldsVersion::Draft10);
    assert_eq!(admitted(&layer, 50, "2001:db8::7").await, 2);
    for name in ["general", "last"] {
        let alone = layer.only([name]).unwrap();
        let response = answer(&alone, from("2001:db8::7")).await;
        assert!(field(&response, "ratelimit").contains(";r=7;"), "{name}");
    }
    assert!(layer.only(["general", "nope"]).is_err());
}

#[tokio::test]
async fn cost_is_charged_whole_or_not_at_all() {
    let policy = Policy::strict("upload", 10, WINDOW).unwrap();
    assert!(policy.clone().with_cost(11).is_err());
    assert!(policy.clone().with_cost(0).is_err());
    let layer = RateLimitLayer::new([policy.with_cost(4).unwrap()]);
    assert_eq!(admitted(&layer, 5, "203.0.113.7").await, 2);
    let response = answer(&layer, from("203.0.113.7")).await;
    assert!(field(&response, "ratelimit").starts_with(r#""upload";r=2;"#));
}

#[tokio::test]
async fn one_client_has_one_key_and_its_network_a_larger_one() {
    let layer = RateLimitLayer::new([Policy::strict("auth", 2, WINDOW).unwrap()]);
    for ip in ["203.0.113.7", "::ffff:203.0.113.7", "::ffff:cb00:7107"] {
        admitted(&layer, 1, ip).await;
        let key = Key::client(ip.parse().unwrap());
        assert_eq!(key, Key::client("203.0.113.7".parse().unwrap()));
    }
    let documentation = Key::client("2001:db8::1.2.3.4".parse().unwrap());
    assert_ne!(documentation, Key::client("1.2.3.4".parse().unwrap()));
    assert_eq!(admitted(&layer, 1, "203.0.113.7").await, 0);
    // Other IPv4 clients of a dual-stack listener are not in that bucket.
    assert_eq!(admitted(&layer, 3, "::ffff:203.0.113.8").await, 2);
    // A /64 is one client, whatever its lower half says.
    assert_eq!(admitted(&layer, 2, "2001:db8:0:1::1").await, 2);
    assert_eq!(admitted(&layer, 2, "2001:db8:0:1:ffff::2").await, 0);
    // A /48 gets 16 times as much, from all its /64s together.
    let mut all = 2;
    for network in 2..100 {
        all += admitted(&layer, 2, &format!("2001:db8:0:{network:x}::1")).await;
    }
    assert_eq!(all, 32);
    assert_eq!(admitted(&layer, 3, "2001:db8:1::1").await, 2);
    // A /64 for which its /48 had nothing left has no entry.
    assert_eq!(layer.handle().keys(), 2 + 16 + 1 + 2);
}

#[tokio::test]
async fn keys_come_from_where_the_policy_says() {
    let subject = RateLimitLayer::new([Policy::strict("s", 1, WINDOW).unwrap().by_subject()]);
    let as_user = |user: &str| {
        let mut request = from("203.0.113.7");
        let identity = Identity::new(IdentityKind::AccessToken, user);
        request.extensions_mut().insert(identity);
        request
    };
    assert_eq!(status(&subject, as_user("a")).await, 200);
    assert_eq!(status(&subject, as_user("b")).await, 200);
    assert_eq!(status(&subject, as_user("a")).await, 429);
    assert!(subject.policies().all(Policy::needs_identity));

    let tenant = Policy::strict("tenant", 1, WINDOW)
        .unwrap()
        .by(|head| Some(Key::of(head.headers.get("x-tenant")?).and(Key::of(head.uri.path()))));
    let tenant = RateLimitLayer::new([tenant]);
    let of = |name: &str, path: &str| {
        let request = Request::builder().uri(path).header("x-tenant", name);
        request.body(Body::default()).unwrap()
    };
    assert_eq!(status(&tenant, of("a", "/x")).await, 200);
    assert_eq!(status(&tenant, of("a", "/x")).await, 429);
    assert_eq!(status(&tenant, of("a", "/y")).await, 200);
    assert_eq!(status(&tenant, of("b", "/x")).await, 200);
}

#[tokio::test]
async fn a_missing_key_is_a_decision_and_is_told_once() {
    for (missing, expected) in [
        (MissingKey::Shared, [200, 429, 429]),
        (MissingKey::Reject, [400, 400, 400]),
        (MissingKey::Skip, [200, 200, 200]),
    ] {
        let told = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&told);
        let context = Context::new().with_events_inline(move |event: &SecurityEvent| {
            sink.lock().unwrap().push(event.kind());
        });
        let policy = Policy::strict("auth", 1, WINDOW).unwrap();
        let layer = RateLimitLayer::new([policy.with_missing_key(missing)]);
        let layer = layer.with_context(context);
        for expected in expected {
            assert_eq!(
                status(&layer, Request::new(Body::default())).await,
                expected
            );
        }
        let told = told.lock().unwrap();
        let misconfigured = told
            .iter()
            .filter(|kind| **kind == EventKind::Misconfigured);
        assert_eq!(misconfigured.count(), 1);
    }
}

#[tokio::test]
async fn a_peer_is_a_client_and_a_local_one_is_not_missing() {
    let policy = Policy::strict("auth", 1, WINDOW).unwrap();
    let layer = RateLimitLayer::new([policy.with_missing_key(MissingKey::Reject)]);
    let of = |peer: Peer| {
        let mut request = Request::new(Body::default());
        request.extensions_mut().insert(peer);
        request
    };
    let addr: SocketAddr = "[::ffff:203.0.113.7]:80".parse().unwrap();
    assert_eq!(status(&layer, of(Peer::new(addr))).await, 200);
    assert_eq!(status(&layer, from("203.0.113.7")).await, 429);
    assert_eq!(status(&layer, of(Peer::local())).await, 200);
    assert_eq!(status(&layer, of(Peer::local())).await, 429);
}

#[tokio::test]
async fn conditions_clones_and_resets() {
    let policy = Policy::strict("auth", 1, WINDOW).unwrap();
    let layer = RateLimitLayer::new([policy]).only_if(|head| head.uri.path() != "/healthz");
    let health = || {
        let mut request = from("203.0.113.7");
        *request.uri_mut() = "/healthz".parse().unwrap();
        request
    };
    assert_eq!(admitted(&layer.clone(), 2, "203.0.113.7").await, 1);
    assert_eq!(admitted(&layer, 2, "203.0.113.7").await, 0);
    assert_eq!(status(&layer, health()).await, 200);
    let ip: IpAddr = "203.0.113.7".parse().unwrap();
    layer.handle().reset("auth", Key::client(ip)).unwrap();
    assert_eq!(admitted(&layer, 2, "203.0.113.7").await, 1);
    assert!(layer.handle().reset("nope", Key::client(ip)).is_err());
}

#[tokio::test]
async fn failures_alone_are_counted() {
    let policy = Policy::strict("auth", 3, WINDOW).unwrap().failures_only();
    let (_clock, layer) = with_clock(RateLimitLayer::new([policy]));
    let with = async |status: u16| {
        let service = layer.layer(tower::service_fn(move |_: Request<Body>| {
            let response = Response::builder().status(status);
            ready(Ok::<_, Infallible>(response.body(Body::default()).unwrap()))
        }));
        service.oneshot(from("203.0.113.7")).await.unwrap().status()
    };
    for _ in 0..10 {
        assert_eq!(with(200).await, 200);
    }
    assert_eq!(with(401).await, 401);
    assert_eq!(with(401).await, 401);
    assert_eq!(with(303).await, 303);
    // A client that hangs up before the answer stays charged.
    let mut service = layer.layer(tower::service_fn(|_: Request<Body>| {
        std::future::pending::<Result<Response<Body>, Infallible>>()
    }));
    let hung = service.call(from("203.0.113.7"));
    drop(hung);
    assert_eq!(with(200).await, 429);
}

#[tokio::test]
async fn guesses_side_by_side_are_all_counted() {
    let policy = Policy::strict("account", 5, WINDOW).unwrap();
    let (clock, layer) = with_clock(RateLimitLayer::new([policy]));
    let limits = layer.handle();
    let account = Key::of("ada");
    let guesses: Vec<_> = (0..50).map(|_| limits.charge("account", account)).collect();
    let (charged, refused): (Vec<_>, Vec<_>) = guesses.into_iter().partition(Result::is_ok);
    assert_eq!((charged.len(), refused.len()), (5, 45));
    for rejection in refused.into_iter().filter_map(Result::err) {
        assert_eq!(rejection.status(), 429);
        assert_eq!(
            rejection.violated_policies().collect::<Vec<_>>(),
            ["account"]
        );
    }
    // One of them was right.
    let mut charged = charged.into_iter().filter_map(Result::ok);
    charged.next().unwrap().refund();
    let usage = limits.peek("account", account).unwrap();
    assert_eq!((usage.limit, usage.left, usage.more_in), (5, 1, WINDOW));
    assert!(limits.charge("account", Key::of("bob")).is_ok());
    // Long after its window a refund takes nothing from what came later.
    let late = charged.next().unwrap();
    clock.advance(WINDOW);
    drop(charged);
    for _ in 0..5 {
        drop(limits.charge("account", account).unwrap());
    }
    late.refund();
    assert_eq!(limits.peek("account", account).unwrap().left, 0);
    assert_eq!(limits.charge("nope", account).unwrap_err().status(), 500);
}

/// What an operator made forgotten cannot be given back as well: it would be taken from what the key
/// was charged since.
#[tokio::test]
async fn a_refund_after_a_reset_gives_nothing_back() {
    for policy in [
        Policy::strict("account", 5, WINDOW).unwrap(),
        Policy::strict("account", 40, WINDOW).unwrap(),
        Policy::smooth("account", 5, WINDOW).unwrap(),
    ] {
        let limit = policy.limit();
        let (_clock, layer) = with_clock(RateLimitLayer::new([policy]));
        let limits = layer.handle();
        let (account, other) = (Key::of("ada"), Key::of("bob"));
        let before = limits.charge("account", account).unwrap();
        let others = limits.charge("account", other).unwrap();
        limits.reset("account", account).unwrap();
        for _ in 0..limit {
            drop(limits.charge("account", account).unwrap());
        }
        before.refund();
        assert_eq!(limits.peek("account", account).unwrap().left, 0);
        assert!(limits.charge("account", account).is_err());
        // Nobody else's refund is touched, and a charge from after the reset can be given back.
        others.refund();
        assert_eq!(limits.peek("account", other).unwrap().left, limit);
        limits.reset("account", account).unwrap();
        limits.charge("account", account).unwrap().refund();
        assert_eq!(limits.peek("account", account).unwrap().left, limit);
        // More resets than are told apart: what they may have forgotten stays forgotten.
        let before = limits.charge("account", account).unwrap();
        limits.reset("account", account).unwrap();
        for stranger in 0..20_000_u32 {
            let stranger = Key::of(stranger.to_be_bytes());
            drop(limits.charge("account", stranger).unwrap());
            limits.reset("account", stranger).unwrap();
        }
        drop(limits.charge("account", account).unwrap());
        before.refund();
        assert_eq!(limits.peek("account", account).unwrap().left, limit - 1);
    }
}

/// Failures that were charged to a log are given back out of the ring that a higher limit needs.
#[tokio::test]
async fn a_refund_finds_its_charge_under_another_limit() {
    let policy = Policy::strict("account", 10, WINDOW).unwrap();
    let (clock, layer) = with_clock(RateLimitLayer::new([policy]));
    clock.advance(WINDOW * 3);
    let limits = layer.handle();
    let account = Key::of("ada");
    let charged: Vec<_> = (0..10)
        .map(|_| limits.charge("account", account).unwrap())
        .collect();
    for (limit, left) in [(12, 2), (300, 290), (70_000, 69_990), (10, 0)] {
        limits.set_limit("account", limit).unwrap();
        assert_eq!(limits.peek("account", account).unwrap().left, left);
    }
    charged.into_iter().for_each(|charge| charge.refund());
    assert_eq!(limits.peek("account", account).unwrap().left, 10);
}

#[tokio::test]
async fn a_strangers_failures_do_not_lock_a_known_device_out() {
    let limits = RateLimitLayer::new([
        Policy::strict("account", 3, WINDOW).unwrap(),
        Policy::strict("device", 3, WINDOW).unwrap(),
    ])
    .handle();
    let (account, device) = (Key::of("ada"), Key::of("ada").and(Key::of("device-1")));
    while let Ok(failed) = limits.charge("account", account) {
        drop(failed);
    }
    limits.charge("device", device).unwrap().refund();
    assert_eq!(limits.peek("device", device).unwrap().left, 3);
}

#[tokio::test]
async fn shadow_counts_and_refuses_nothing() {
    let events = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&events);
    let context = Context::new().with_events_inline(move |event: &SecurityEvent| {
        sink.lock().unwrap().push((event.reason(), event.client()));
    });
    let policies = [
        Policy::strict("general", 10, WINDOW).unwrap(),
        Policy::strict("trial", 2, WINDOW).unwrap().shadow(),
    ];
    let layer = RateLimitLayer::new(policies)
        .with_fields(FieldsVersion::Draft10)
        .with_context(context);
    for left in (5..10).rev() {
        let response = answer(&layer, from("203.0.113.7")).await;
        assert_eq!(response.status(), 200);
        assert!(field(&response, "ratelimit").starts_with(&format!(r#""general";r={left};"#)));
        assert_eq!(
            field(&response, "ratelimit-policy"),
            r#""general";q=10;w=900"#
        );
    }
    assert_eq!(layer.handle().shadow_refusals(), 3);
    let events = events.lock().unwrap().clone();
    assert_eq!(
        events,
        [(Some("shadow"), Some("203.0.113.7".parse().unwrap()))]
    );
}

#[tokio::test]
async fn limits_change_while_they_are_in_use() {
    let policy = Policy::strict("auth", 5, WINDOW).unwrap();
    let layer = RateLimitLayer::new([policy]).with_fields(FieldsVersion::Draft10);
    let (_clock, layer) = with_clock(layer);
    let shared = layer.only(["auth"]).unwrap();
    let limits = layer.handle();
    assert_eq!(admitted(&layer, 9, "203.0.113.7").await, 5);
    limits.set_limit("auth", 30).unwrap();
    assert_eq!(admitted(&shared, 99, "203.0.113.7").await, 25);
    let response = answer(&shared, from("203.0.113.8")).await;
    assert_eq!(field(&response, "ratelimit-policy"), r#""auth";q=30;w=900"#);
    assert!(field(&response, "ratelimit").starts_with(r#""auth";r=29;"#));
    limits.set_limit("auth", 2).unwrap();
    assert_eq!(admitted(&layer, 9, "203.0.113.8").await, 1);
    assert_eq!(admitted(&layer, 9, "2001:db8::1").await, 2);
    for unusable in [0, 100_000_001] {
        assert!(limits.set_limit("auth", unusable).is_err());
    }
    assert!(limits.set_limit("nope", 1).is_err());
}

#[tokio::test]
async fn some_keys_have_a_lower_limit() {
    for policy in [
        Policy::strict("general", 12, WINDOW).unwrap(),
        Policy::strict("general", 40, WINDOW).unwrap(),
        Policy::smooth("general", 40, WINDOW).unwrap(),
    ] {
        let limit = policy.limit();
        let policy = policy.with_quota(|head| {
            let quota = head.headers.get("x-quota")?;
            quota.to_str().ok()?.parse().ok()
        });
        let (_clock, layer) = with_clock(RateLimitLayer::new([policy]));
        for (ip, quota, expected) in [
            ("203.0.113.7", "5", 5),
            ("2001:db8::7", "3", 3),
            ("203.0.113.8", "1000", limit),
            ("203.0.113.9", "", limit),
            ("203.0.113.10", "0", 0),
        ] {
            let mut admitted = 0;
            for _ in 0..60 {
                let mut request = from(ip);
                let headers = request.headers_mut();
                headers.insert("x-quota", quota.parse().unwrap());
                admitted += u32::from(status(&layer, request).await == 200);
            }
            assert_eq!(admitted, expected, "{ip} of {limit}");
        }
    }
}

#[tokio::test]
async fn legacy_fields_are_a_choice() {
    let policy = || Policy::strict("auth", 1, WINDOW).unwrap();
    for (reset, expected) in [
        (LegacyReset::Delta, "900".to_owned()),
        (LegacyReset::Epoch, (1_767_225_600 + 900).to_string()),
    ] {
        let layer = RateLimitLayer::new([policy()])
            .with_fields(FieldsVersion::Draft10)
            .with_legacy_fields(reset);
        let (_clock, layer) = with_clock(layer);
        for status in [200, 429] {
            let response = answer(&layer, from("203.0.113.7")).await;
            assert_eq!(response.status(), status);
            assert_eq!(field(&response, "x-ratelimit-limit"), "1");
            assert_eq!(field(&response, "x-ratelimit-remaining"), "0");
            assert_eq!(field(&response, "x-ratelimit-reset"), expected);
        }
    }
    let layer = RateLimitLayer::new([policy()]);
    let response = answer(&layer, from("203.0.113.7")).await;
    assert!(!response.headers().contains_key("x-ratelimit-limit"));
}

#[tokio::test]
async fn a_request_is_counted_once_however_many_layers_it_passes() {
    let by_header = |head: portcullis::Head<'_>| head.headers.get("x-tenant").map(Key::of);
    let from_peer = || {
        let mut request = Request::new(Body::default());
        let peer = Peer::new("203.0.113.9:80".parse().unwrap());
        request.extensions_mut().insert(peer);
        request
    };
    let by_tenant = || {
        let request = Request::builder().header("x-tenant", "a");
        request.body(Body::default()).unwrap()
    };
    let general = || Policy::strict("general", 10, WINDOW).unwrap();
    let requests: [(&str, Policy, Made<'_>); 6] = [
        ("IPv4", general(), &|| from("203.0.113.7")),
        ("IPv6", general(), &|| from("2001:db8::7")),
        ("a peer", general(), &from_peer),
        ("a header", general().by(by_header), &by_tenant),
        ("no key", general(), &|| Request::new(Body::default())),
        ("failures", general().failures_only(), &|| {
            from("203.0.113.7")
        }),
    ];
    for (name, policy, request) in requests {
        let gives_back = name == "failures";
        let told = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&told);
        let context = Context::new().with_events_inline(move |event: &SecurityEvent| {
            sink.lock().unwrap().push((event.kind(), event.reason()));
        });
        let auth = Policy::strict("auth", 3, WINDOW)
            .unwrap()
            .by(|_| Some(Key::of("all")));
        let layer = RateLimitLayer::new([policy, auth])
            .with_fields(FieldsVersion::Draft10)
            .with_context(context);
        let around = layer.only(["general"]).unwrap();
        // Outermost a layer for all, a layer that finds the client, and the route's own two.
        let service = around.layer(
            portcullis::client::ClientLayer::new(portcullis::TrustedProxies::none())
                .layer(layer.layer(around.layer(tower::service_fn(inner)))),
        );
        for count in 1..=3 {
            let response = service.clone().oneshot(request()).await.unwrap();
            assert_eq!(response.status(), 200);
            let fields: Vec<_> = response.headers().get_all("ratelimit").iter().collect();
            let left = if gives_back { 9 } else { 10 - count };
            assert_eq!(fields.len(), 2, "{name}");
            let [auth, general] = fields[..] else {
                unreachable!()
            };
            assert!(
                auth.to_str()
                    .unwrap()
                    .starts_with(&format!(r#""auth";r={};"#, 3 - count))
            );
            assert!(
                general
                    .to_str()
                    .unwrap()
                    .starts_with(&format!(r#""general";r={left};"#)),
                "{name}: {general:?}"
            );
        }
        let twice = (EventKind::Misconfigured, Some("applied_twice"));
        let told: Vec<_> = told.lock().unwrap().drain(..).collect();
        assert_eq!(
            told.iter().filter(|event| **event == twice).count(),
            1,
            "{name}"
        );
        // What the inner one refuses stays counted by the outer one, and is refused to all.
        let refused = service.clone().oneshot(request()).await.unwrap();
        assert_eq!(refused.status(), 429);
        let response = answer(&around, request()).await;
        let left = if gives_back { 8 } else { 5 };
        assert!(
            field(&response, "ratelimit").starts_with(&format!(r#""general";r={left};"#)),
            "{name}"
        );
    }
}

#[tokio::test]
async fn clients_are_told_apart_and_so_are_their_requests() {
    let layer = RateLimitLayer::new([Policy::strict("auth", 2, WINDOW).unwrap()]);
    let other = RateLimitLayer::new([Policy::strict("auth", 2, WINDOW).unwrap()]);
    // Two layers of one name that share nothing both count.
    let service = layer.layer(other.layer(tower::service_fn(inner)));
    for expected in [200, 200, 429] {
        let response = service.clone().oneshot(from("203.0.113.7")).await.unwrap();
        assert_eq!(response.status(), expected);
    }
    assert_eq!(admitted(&other, 1, "203.0.113.7").await, 0);
    // A client that is put into another request is the same client, and the request another one.
    let seen = Arc::new(Mutex::new(None));
    let keep = Arc::clone(&seen);
    let service = layer.layer(tower::service_fn(move |request: Request<Body>| {
        *keep.lock().unwrap() = request.extensions().get::<Client>().copied();
        inner(request)
    }));
    service.oneshot(from("203.0.113.8")).await.unwrap();
    let client = seen.lock().unwrap().unwrap();
    assert_eq!(client, Client::new(client.ip(), false));
    assert_eq!(admitted(&layer, 2, "203.0.113.8").await, 1);
}

/// The whole way of a forged header: the peer is asked first, and then the configured header alone.
#[tokio::test]
async fn a_forged_header_is_no_new_client() {
    for (peer, clients) in [("198.51.100.66:4711", 1), ("10.0.0.1:443", 2)] {
        let layer = RateLimitLayer::new([Policy::strict("auth", 2, WINDOW).unwrap()]);
        let proxies = portcullis::TrustedProxies::new(["10.0.0.0/8"]).unwrap();
        let service = portcullis::client::ClientLayer::new(proxies)
            .layer(layer.layer(tower::service_fn(inner)));
        let mut admitted = 0;
        for forged in 0..40 {
            let mut request = Request::new(Body::default());
            let peer = Peer::new(peer.parse().unwrap());
            request.extensions_mut().insert(peer);
            // What the proxy appends is true; all that stands before it is the client's.
            let line = format!("6.6.6.{forged}, 10.0.0.{forged}, 203.0.113.{}", forged % 2);
            let headers = request.headers_mut();
            headers.append("x-forwarded-for", line.parse().unwrap());
            headers.append("forwarded", format!("for=6.6.6.{forged}").parse().unwrap());
            headers.append("x-real-ip", format!("6.6.6.{forged}").parse().unwrap());
            let response = service.clone().oneshot(request).await.unwrap();
            admitted += u32::from(response.status() == 200);
        }
        assert_eq!(admitted, clients * 2);
    }
}

/// A dual-stack listener sees IPv4 clients as IPv4-mapped ones: they must not share a bucket.
#[tokio::test]
async fn two_ipv4_clients_of_a_real_dual_stack_socket_are_two() {
    let listener = tokio::net::TcpListener::bind("[::]:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let layer = RateLimitLayer::new([Policy::strict("auth", 2, WINDOW).unwrap()]);
    tokio::spawn(async move {
        while let Ok((stream, addr)) = listener.accept().await {
            assert!(addr.is_ipv6(), "the listener is a dual-stack one");
            let service = layer.layer(tower::service_fn(|_: Request<hyper::body::Incoming>| {
                ready(Ok::<_, Infallible>(Response::new(Body::default())))
            }));
            let service = portcullis::client::with_peer(service, Peer::new(addr));
            let service = hyper_util::service::TowerToHyperService::new(service);
            let stream = hyper_util::rt::TokioIo::new(stream);
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(stream, service),
            );
        }
    });
    let ask = async |from: &str| {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket
            .bind(SocketAddr::new(from.parse().unwrap(), 0))
            .unwrap();
        let server = SocketAddr::from(([127, 0, 0, 1], port));
        let stream = hyper_util::rt::TokioIo::new(socket.connect(server).await.unwrap());
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let request = Request::get("/")
            .header("host", "x")
            .body(Body::default())
            .unwrap();
        sender
            .send_request(request)
            .await
            .unwrap()
            .status()
            .as_u16()
    };
    for (from, expected) in [
        ("127.0.0.1", 200),
        ("127.0.0.1", 200),
        ("127.0.0.1", 429),
        ("127.0.0.2", 200),
        ("127.0.0.2", 200),
        ("127.0.0.2", 429),
    ] {
        assert_eq!(ask(from).await, expected, "{from}");
    }
}

/// The list in a field, as a reader of RFC 9651 finds it: strings with whole numbers for parameters.
fn list(text: &str) -> Vec<(String, BTreeMap<String, i64>)> {
    let number = |(key, value): (sfv::Key, sfv::BareItem)| {
        let number = value.as_integer().expect("a whole number");
        (String::from(key), i64::from(number))
    };
    let item = |entry| match entry {
        sfv::ListEntry::Item(item) => {
            let name = item.bare_item.as_string().expect("a string").to_string();
            (name, item.params.into_iter().map(number).collect())
        }
        sfv::ListEntry::InnerList(_) => panic!("a list in the list"),
    };
    let list: sfv::List = sfv::Parser::new(text).parse().expect(text);
    list.into_iter().map(item).collect()
}

/// A whole number, as a reader of RFC 9651 finds it.
fn integer(text: &str) -> i64 {
    let item: sfv::Item = sfv::Parser::new(text).parse().expect(text);
    assert!(item.params.is_empty());
    item.bare_item.as_integer().expect("a whole number").into()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_field_is_read_back_by_a_strict_reader(
        policies in prop::collection::vec(
            ("[ -~]{1,64}", 1_u32..100_000_000, 100_u64..31_000_000_000, any::<[bool; 2]>()),
            1..7,
        ),
        epoch in any::<bool>(),
    ) {
        let made = |(name, limit, millis, [smooth, cheap]): &(String, u32, u64, [bool; 2])| {
            let window = Duration::from_millis(*millis);
            let make = if *smooth { Policy::smooth } else { Policy::strict };
            // The dearest request spends the limit at once, or in three.
            let cost = if *cheap { 1 } else { limit.div_ceil(3) };
            make(name.as_str(), *limit, window).unwrap().with_cost(cost).unwrap()
        };
        let reset = if epoch { LegacyReset::Epoch } else { LegacyReset::Delta };
        let layer = RateLimitLayer::new(policies.iter().map(made))
            .with_fields(FieldsVersion::Draft10)
            .with_legacy_fields(reset);
        let (_clock, layer) = with_clock(layer);
        let expected: Vec<_> = layer.policies().cloned().collect();
        let mut used = vec![0; expected.len()];
        for _ in 0..5 {
            let response = tokio_test::block_on(answer(&layer, from("203.0.113.7")));
            let told = list(field(&response, "ratelimit-policy"));
            prop_assert_eq!(told.len(), expected.len());
            for ((name, told), policy) in told.iter().zip(&expected) {
                prop_assert_eq!(&**name, policy.name());
                prop_assert_eq!(told["q"], i64::from(policy.limit()));
                prop_assert_eq!(told["w"] as u128, policy.window().as_millis().div_ceil(1_000));
                prop_assert_eq!(told.len(), 2);
            }
            let fits = |(policy, used): (&Policy, &u32)| used + policy.cost() <= policy.limit();
            let refused = !expected.iter().zip(&used).all(fits);
            prop_assert_eq!(response.status(), if refused { 429 } else { 200 });
            if !refused {
                let charges = used.iter_mut().zip(&expected);
                charges.for_each(|(used, policy)| *used += policy.cost());
            }
            // One policy is told of, and all that is told is of that one.
            let told = list(field(&response, "ratelimit"));
            prop_assert_eq!(told.len(), 1);
            let (name, told) = &told[0];
            prop_assert_eq!(told.len(), 2);
            let (left, wait) = (told["r"], told["t"]);
            let is_told = |(policy, used): &(&Policy, &u32)| {
                policy.name() == name && i64::from(policy.limit() - **used) == left
            };
            prop_assert!(expected.iter().zip(&used).any(|pair| is_told(&pair)));
            let least = expected.iter().zip(&used).map(|(policy, used)| policy.limit() - used);
            prop_assert!(refused || i64::from(least.min().unwrap()) == left);
            prop_assert!(wait >= 1);
            prop_assert_eq!(integer(field(&response, "x-ratelimit-remaining")), left);
            let limit = integer(field(&response, "x-ratelimit-limit"));
            let is_its = |policy: &Policy| policy.name() == name && i64::from(policy.limit()) == limit;
            prop_assert!(expected.iter().any(is_its));
            let reset = integer(field(&response, "x-ratelimit-reset"));
            prop_assert_eq!(if epoch { reset - 1_767_225_600 } else { reset }, wait);
            if refused {
                // Whole seconds, never before there is more.
                prop_assert!(integer(field(&response, "retry-after")) >= wait);
            }
        }
    }
}

#[test]
fn threads_on_one_key_admit_exactly_the_limit() {
    for (policy, exact) in [
        (Policy::strict("log", 16, WINDOW).unwrap(), 16),
        (Policy::strict("ring", 500, WINDOW).unwrap(), 500),
        (Policy::smooth("gcra", 500, WINDOW).unwrap(), 500),
    ] {
        let (_clock, layer) = with_clock(RateLimitLayer::new([
            policy.clone(),
            Policy::strict("second", 100_000, WINDOW).unwrap(),
        ]));
        let admitted = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut service = layer.layer(tower::service_fn(inner));
                    for _ in 0..400 {
                        let future = service.call(from("2001:db8::7"));
                        let status = tokio_test::block_on(future).unwrap().status();
                        admitted.fetch_add(usize::from(status == 200), Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(admitted.load(Ordering::Relaxed), exact, "{policy:?}");
    }
}

/// At no time do more threads hold a charge than the limit, whoever gives back when.
#[test]
fn charges_and_refunds_side_by_side_never_pass_the_limit() {
    for policy in [
        Policy::strict("account", 3, WINDOW).unwrap(),
        Policy::strict("account", 20, WINDOW).unwrap(),
        Policy::smooth("account", 3, WINDOW).unwrap(),
    ] {
        let limit = policy.limit() as usize;
        let (_clock, layer) = with_clock(RateLimitLayer::new([policy]));
        let (limits, account) = (layer.handle(), Key::of("ada"));
        let (held, admitted) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..300 {
                        let charges: Vec<_> = (0..limit)
                            .map_while(|_| limits.charge("account", account).ok())
                            .collect();
                        let before = held.fetch_add(charges.len(), Ordering::SeqCst);
                        assert!(before + charges.len() <= limit);
                        admitted.fetch_add(charges.len(), Ordering::SeqCst);
                        thread::yield_now();
                        held.fetch_sub(charges.len(), Ordering::SeqCst);
                        charges.into_iter().for_each(|charge| charge.refund());
                    }
                });
            }
        });
        assert!(admitted.into_inner() >= limit);
        let left = limits.peek("account", account).unwrap().left;
        assert_eq!(left as usize, limit);
    }
}

#[test]
fn unusable_policies_are_refused() {
    let second = Duration::from_secs(1);
    for name in ["", "a\nb", "é", &*"x".repeat(65)] {
        assert!(Policy::strict(name, 1, second).is_err(), "{name:?}");
    }
    for (limit, window) in [
        (0, second),
        (100_000_001, second),
        (1, Duration::ZERO),
        (1, Duration::MAX),
    ] {
        assert!(Policy::strict("x", limit, window).is_err());
        assert!(Policy::smooth("x", limit, window).is_err());
    }
    assert!(Policy::smooth("x", 2_000_000, Duration::from_millis(1)).is_err());
    assert!(
        Policy::strict("x", 1, second)
            .unwrap()
            .with_capacity(1)
            .is_err()
    );
}

#[test]
fn policies_tell_the_truth_about_themselves() {
    for (limit, smooth, bytes) in [(5, 9, 20), (10, 19, 40), (20, 39, 24), (100, 199, 24)] {
        let strict = Policy::strict("x", limit, WINDOW).unwrap();
        assert_eq!(strict.worst_case_in_window(), limit);
        assert_eq!(strict.state_bytes_per_key(), bytes);
        let policy = Policy::smooth("x", limit, WINDOW).unwrap();
        assert_eq!(policy.worst_case_in_window(), smooth);
        assert_eq!(policy.state_bytes_per_key(), 8);
    }
}
