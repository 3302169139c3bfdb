//! Failed logins: bounded for each account, and no way to lock its owner out.
#![cfg(feature = "login-throttle")]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{HeaderMap, HeaderValue, StatusCode, header::COOKIE};
use portcullis::{
    Context, Secret,
    event::{EventKind, SecurityEvent},
    login_throttle::LoginThrottle,
    secret::Secrets,
    time::ManualClock,
};

#[cfg(feature = "redis")]
mod support;

const WINDOW: Duration = Duration::from_secs(900);
const DAY: Duration = Duration::from_secs(86_400);

#[tokio::test]
async fn failures_are_bounded_by_account_in_any_window() {
    let (throttle, clock) = limited_to(3);
    for _ in 0..3 {
        assert!(fails(&throttle, "ada", &nobody()).await);
        clock.advance(Duration::from_secs(60));
    }
    let refused = throttle.attempt("ada", &nobody()).await.unwrap_err();
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(fails(&throttle, "bob", &nobody()).await);

    clock.advance(WINDOW - Duration::from_secs(180) - Duration::from_nanos(1));
    assert!(!fails(&throttle, "ada", &nobody()).await);
    clock.advance(Duration::from_nanos(1));
    assert!(fails(&throttle, "ada", &nobody()).await);
    assert!(!fails(&throttle, "ada", &nobody()).await);
}

#[tokio::test]
async fn what_succeeded_or_was_not_judged_does_not_count() {
    let (throttle, _clock) = limited_to(1);
    for _ in 0..20 {
        logged_in(&throttle, "ada", &nobody()).await;
        assert!(admits(&throttle, "ada", &nobody()).await);
    }
    assert!(fails(&throttle, "ada", &nobody()).await);
    assert!(!fails(&throttle, "ada", &nobody()).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn parallel_guesses_are_all_counted() {
    let (throttle, _clock) = limited_to(10);
    assert_eq!(guessed_side_by_side(&[throttle]).await, 10);
}

#[tokio::test]
async fn strangers_do_not_lock_a_known_device_out_nor_it_them() {
    let (throttle, _clock) = limited_to(2);
    let owners = logged_in(&throttle, "ada", &nobody()).await;
    for headers in [&nobody(), &owners] {
        for _ in 0..2 {
            assert!(fails(&throttle, "ada", headers).await);
        }
        assert!(!fails(&throttle, "ada", headers).await);
    }
    // Logging in again gives no fresh count, and no other device's.
    let (throttle, _clock) = limited_to(2);
    let first = logged_in(&throttle, "ada", &nobody()).await;
    assert!(fails(&throttle, "ada", &first).await);
    let again = logged_in(&throttle, "ada", &first).await;
    assert!(fails(&throttle, "ada", &again).await);
    assert!(!fails(&throttle, "ada", &again).await);
    assert!(!fails(&throttle, "ada", &first).await);
    let other = logged_in(&throttle, "ada", &nobody()).await;
    assert!(fails(&throttle, "ada", &other).await);
}

#[tokio::test]
async fn a_device_is_known_to_its_accounts_alone() {
    let (throttle, _clock) = limited_to(1);
    let mut headers = nobody();
    for account in ["ada", "bob", "cy", "dee"] {
        headers = logged_in(&throttle, account, &headers).await;
    }
    for account in ["ada", "bob", "cy", "dee", "eve"] {
        assert!(fails(&throttle, account, &nobody()).await);
        assert!(!fails(&throttle, account, &nobody()).await);
    }
    for account in ["ada", "bob", "cy", "dee"] {
        assert!(admits(&throttle, account, &headers).await);
    }
    assert!(!admits(&throttle, "eve", &headers).await);
    // Logging in again and again pushes nobody else out.
    for _ in 0..4 {
        headers = logged_in(&throttle, "dee", &headers).await;
    }
    assert!(admits(&throttle, "ada", &headers).await);
    // A fifth takes the place of the one that has not logged in for longest.
    let (fresh, _clock) = limited_to(2);
    let mut headers = nobody();
    for account in ["ada", "bob", "cy", "dee", "eve"] {
        headers = logged_in(&fresh, account, &headers).await;
    }
    for account in ["ada", "bob"] {
        for _ in 0..2 {
            assert!(fails(&fresh, account, &nobody()).await);
        }
    }
    assert!(!admits(&fresh, "ada", &headers).await);
    assert!(admits(&fresh, "bob", &headers).await);
}

#[tokio::test]
async fn a_cookie_that_is_not_ours_is_a_strangers() {
    let (throttle, clock) = limited_to(1);
    let good = logged_in(&throttle, "ada", &nobody()).await;
    assert!(fails(&throttle, "ada", &nobody()).await);
    assert!(admits(&throttle, "ada", &good).await);
    let pair = good[COOKIE].to_str().unwrap().to_owned();
    let (name, value) = pair.split_once('=').unwrap();
    for at in 0..value.len() {
        let mut changed = value.to_owned().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = cookie(&format!("{name}={}", String::from_utf8(changed).unwrap()));
        assert!(!admits(&throttle, "ada", &changed).await, "{at}");
    }
    for text in [
        "__Host-known=",
        "__Host-known=A",
        &format!("__host-known={value}"),
        &format!("{name}={value}{value}{value}{value}{value}"),
        &format!("{name}={value}; {name}={value}"),
    ] {
        assert!(!admits(&throttle, "ada", &cookie(text)).await, "{text}");
    }

    clock.advance(DAY * 180);
    assert!(fails(&throttle, "ada", &nobody()).await);
    assert!(admits(&throttle, "ada", &good).await);
    clock.advance(DAY);
    assert!(fails(&throttle, "ada", &nobody()).await);
    assert!(!admits(&throttle, "ada", &good).await);
}

#[tokio::test]
async fn previous_secrets_know_a_device_and_other_ones_do_not() {
    let [old, new] = [Secret::generate(), Secret::generate()];
    let before = LoginThrottle::new(1, WINDOW, &old.clone().into()).unwrap();
    let headers = logged_in(&before, "ada", &nobody()).await;
    let after = LoginThrottle::new(1, WINDOW, &Secrets::new(new.clone()).with_previous([old]));
    let others = LoginThrottle::new(1, WINDOW, &new.into());
    for (throttle, is_known) in [(after.unwrap(), true), (others.unwrap(), false)] {
        assert!(fails(&throttle, "ada", &nobody()).await);
        assert_eq!(admits(&throttle, "ada", &headers).await, is_known);
    }
}

#[tokio::test]
async fn the_cookie_is_one_that_no_script_or_sibling_domain_reaches() {
    let (throttle, _clock) = limited_to(1);
    let set = throttle.attempt("ada", &nobody()).await.unwrap();
    let set = set.succeed().await;
    let mut parts = set.to_str().unwrap().split("; ");
    let value = parts.next().unwrap().strip_prefix("__Host-known=").unwrap();
    assert!(!value.contains("ada"));
    let attributes: Vec<_> = parts.collect();
    let expected = [
        "Max-Age=15552000",
        "Path=/",
        "Secure",
        "HttpOnly",
        "SameSite=Strict",
    ];
    assert_eq!(attributes, expected);
}

#[tokio::test]
async fn a_refusal_is_an_event() {
    let (throttle, _clock) = limited_to(1);
    let (context, events) = recording();
    let throttle = throttle.with_context(context);
    assert!(fails(&throttle, "ada", &nobody()).await);
    assert!(events.lock().unwrap().is_empty());
    assert!(!fails(&throttle, "ada", &nobody()).await);
    assert!(events.lock().unwrap().contains(&EventKind::AuthnLoginLock));
}

fn limited_to(failures: u32) -> (LoginThrottle, ManualClock) {
    let clock = ManualClock::new();
    let throttle = LoginThrottle::new(failures, WINDOW, &Secret::generate().into()).unwrap();
    (
        throttle.with_context(Context::new().with_clock(clock.clone())),
        clock,
    )
}

/// A context, and the kinds of the events that are sent through it.
fn recording() -> (Context, Arc<Mutex<Vec<EventKind>>>) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let sink = events.clone();
    let context = Context::new().with_events_inline(move |event: &SecurityEvent| {
        sink.lock().unwrap().push(event.kind());
    });
    (context, events)
}

/// A login with a wrong password; whether it was looked at.
async fn fails(throttle: &LoginThrottle, account: &str, headers: &HeaderMap) -> bool {
    throttle.attempt(account, headers).await.is_ok()
}

/// Whether a password would be looked at. Charges nothing.
async fn admits(throttle: &LoginThrottle, account: &str, headers: &HeaderMap) -> bool {
    match throttle.attempt(account, headers).await {
        Ok(attempt) => {
            attempt.withdraw().await;
            true
        }
        Err(_) => false,
    }
}

/// A login with the right password; the headers that the browser sends after it.
async fn logged_in(throttle: &LoginThrottle, account: &str, headers: &HeaderMap) -> HeaderMap {
    let attempt = throttle.attempt(account, headers).await.unwrap();
    let set_cookie: HeaderValue = attempt.succeed().await;
    cookie(set_cookie.to_str().unwrap().split(';').next().unwrap())
}

/// How many of 200 guesses at one account, side by side through these, were looked at.
async fn guessed_side_by_side(throttles: &[LoginThrottle]) -> usize {
    let guesses = (0..200).map(|guess| {
        let throttle = throttles[guess % throttles.len()].clone();
        tokio::spawn(async move { fails(&throttle, "ada", &nobody()).await })
    });
    let mut looked_at = 0;
    for guess in guesses.collect::<Vec<_>>() {
        looked_at += usize::from(guess.await.unwrap());
    }
    looked_at
}

fn nobody() -> HeaderMap {
    HeaderMap::new()
}

fn cookie(text: &str) -> HeaderMap {
    HeaderMap::from_iter([(COOKIE, HeaderValue::from_str(text).unwrap())])
}

/// Three instances and a real Redis.
#[cfg(feature = "redis")]
mod fleet {
    use portcullis::rate_limit::redis::RedisLimits;

    use super::{support::redis::Redis, *};

    /// Instances of a service, each with its own connection and its own counts. They wait for Redis
    /// however busy the machine is.
    async fn three(redis: &Redis, failures: u32) -> Vec<LoginThrottle> {
        let secret = Secret::generate();
        let mut instances = Vec::new();
        for _ in 0..3 {
            let limits = RedisLimits::connect(&redis.url(), &secret).await.unwrap();
            let limits = limits.with_budget(Duration::from_secs(60));
            let throttle = LoginThrottle::new(failures, WINDOW, &secret.clone().into()).unwrap();
            instances.push(throttle.shared(limits));
        }
        instances
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn failures_are_bounded_for_all_instances_together() {
        let Some(redis) = Redis::start() else { return };
        let instances = three(&redis, 10).await;
        assert_eq!(guessed_side_by_side(&instances).await, 10);
        for instance in &instances {
            let refused = instance.attempt("ada", &nobody()).await.unwrap_err();
            assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
            assert!(fails(instance, "bob", &nobody()).await);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_succeeded_or_was_not_judged_counts_nowhere() {
        let Some(redis) = Redis::start() else { return };
        let instances = three(&redis, 1).await;
        for round in 0..9 {
            logged_in(&instances[round % 3], "ada", &nobody()).await;
            assert!(admits(&instances[(round + 1) % 3], "ada", &nobody()).await);
        }
        // Somebody is refused while a login goes on: its success lets him in at once.
        let ours = instances[0].attempt("ada", &nobody()).await.unwrap();
        assert!(!admits(&instances[1], "ada", &nobody()).await);
        let _ = ours.succeed().await;
        assert!(fails(&instances[1], "ada", &nobody()).await);
        for instance in &instances {
            assert!(!fails(instance, "ada", &nobody()).await);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_device_is_known_everywhere_and_has_one_count() {
        let Some(redis) = Redis::start() else { return };
        let instances = three(&redis, 2).await;
        let owners = logged_in(&instances[0], "ada", &nobody()).await;
        for headers in [&nobody(), &owners] {
            assert!(fails(&instances[1], "ada", headers).await);
            assert!(fails(&instances[2], "ada", headers).await);
            for instance in &instances {
                assert!(!fails(instance, "ada", headers).await);
            }
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn without_redis_each_instance_keeps_the_limit_and_none_opens() {
        let Some(mut redis) = Redis::start() else {
            return;
        };
        let (context, events) = recording();
        let mut instances = three(&redis, 3).await;
        instances[0] = instances[0].clone().with_context(context);
        for _ in 0..2 {
            assert!(fails(&instances[0], "ada", &nobody()).await);
        }
        assert!(
            !events
                .lock()
                .unwrap()
                .contains(&EventKind::StoreUnavailable)
        );
        redis.kill();
        let mut looked_at = [0; 3];
        for _ in 0..10 {
            for (instance, looked_at) in instances.iter().zip(&mut looked_at) {
                *looked_at += usize::from(fails(instance, "ada", &nobody()).await);
            }
        }
        assert_eq!(looked_at, [1, 3, 3], "what was charged before still counts");
        assert!(
            events
                .lock()
                .unwrap()
                .contains(&EventKind::StoreUnavailable)
        );
        assert!(events.lock().unwrap().contains(&EventKind::AuthnLoginLock));
        // It comes back empty, and the instances still know.
        redis.start_again();
        for instance in &instances {
            assert!(!fails(instance, "ada", &nobody()).await);
        }
    }
}
