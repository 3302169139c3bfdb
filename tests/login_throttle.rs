//! Failed logins: bounded for each account, and no way to lock its owner out.
#![cfg(feature = "login-throttle")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
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

const WINDOW: Duration = Duration::from_secs(900);
const DAY: Duration = Duration::from_secs(86_400);

#[test]
fn failures_are_bounded_by_account_in_any_window() {
    let (throttle, clock) = limited_to(3);
    let nobody = HeaderMap::new();
    for _ in 0..3 {
        drop(throttle.attempt("ada", &nobody).unwrap());
        clock.advance(Duration::from_secs(60));
    }
    let refused = throttle.attempt("ada", &nobody).unwrap_err();
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(throttle.attempt("bob", &nobody).is_ok());

    clock.advance(WINDOW - Duration::from_secs(180) - Duration::from_nanos(1));
    assert!(throttle.attempt("ada", &nobody).is_err());
    clock.advance(Duration::from_nanos(1));
    assert!(throttle.attempt("ada", &nobody).is_ok());
    assert!(throttle.attempt("ada", &nobody).is_err());
}

#[test]
fn what_succeeded_or_was_not_judged_does_not_count() {
    let (throttle, _clock) = limited_to(1);
    let nobody = HeaderMap::new();
    for _ in 0..20 {
        let _ = throttle.attempt("ada", &nobody).unwrap().succeed();
        throttle.attempt("ada", &nobody).unwrap().withdraw();
    }
    drop(throttle.attempt("ada", &nobody).unwrap());
    assert!(throttle.attempt("ada", &nobody).is_err());
}

#[test]
fn parallel_guesses_are_all_counted() {
    let (throttle, _clock) = limited_to(10);
    let admitted = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    if throttle.attempt("ada", &HeaderMap::new()).is_ok() {
                        admitted.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(admitted.into_inner(), 10);
}

#[test]
fn strangers_do_not_lock_a_known_device_out_nor_it_them() {
    let (throttle, _clock) = limited_to(2);
    let owners = carrying(
        &throttle
            .attempt("ada", &HeaderMap::new())
            .unwrap()
            .succeed(),
    );
    for headers in [&HeaderMap::new(), &owners] {
        for _ in 0..2 {
            drop(throttle.attempt("ada", headers).unwrap());
        }
        assert!(throttle.attempt("ada", headers).is_err());
    }
    // Logging in again gives no fresh count, and no other device's.
    let (throttle, _clock) = limited_to(2);
    let first = throttle
        .attempt("ada", &HeaderMap::new())
        .unwrap()
        .succeed();
    drop(throttle.attempt("ada", &carrying(&first)).unwrap());
    let again = throttle
        .attempt("ada", &carrying(&first))
        .unwrap()
        .succeed();
    drop(throttle.attempt("ada", &carrying(&again)).unwrap());
    assert!(throttle.attempt("ada", &carrying(&again)).is_err());
    assert!(throttle.attempt("ada", &carrying(&first)).is_err());
    let other = throttle
        .attempt("ada", &HeaderMap::new())
        .unwrap()
        .succeed();
    assert!(throttle.attempt("ada", &carrying(&other)).is_ok());
}

#[test]
fn a_device_is_known_to_its_accounts_alone() {
    let (throttle, _clock) = limited_to(1);
    let mut headers = HeaderMap::new();
    for account in ["ada", "bob", "cy", "dee"] {
        headers = carrying(&throttle.attempt(account, &headers).unwrap().succeed());
    }
    let lock = |account: &str| {
        drop(throttle.attempt(account, &HeaderMap::new()));
        assert!(throttle.attempt(account, &HeaderMap::new()).is_err());
    };
    for account in ["ada", "bob", "cy", "dee", "eve"] {
        lock(account);
    }
    for account in ["ada", "bob", "cy", "dee"] {
        throttle.attempt(account, &headers).unwrap().withdraw();
    }
    assert!(throttle.attempt("eve", &headers).is_err());
    // Logging in again and again pushes nobody else out.
    for _ in 0..4 {
        headers = carrying(&throttle.attempt("dee", &headers).unwrap().succeed());
    }
    throttle.attempt("ada", &headers).unwrap().withdraw();
    // A fifth takes the place of the one that has not logged in for longest.
    let (fresh, _clock) = limited_to(2);
    let mut headers = HeaderMap::new();
    for account in ["ada", "bob", "cy", "dee", "eve"] {
        headers = carrying(&fresh.attempt(account, &headers).unwrap().succeed());
    }
    for account in ["ada", "bob"] {
        for _ in 0..2 {
            drop(fresh.attempt(account, &HeaderMap::new()).unwrap());
        }
    }
    assert!(fresh.attempt("ada", &headers).is_err());
    assert!(fresh.attempt("bob", &headers).is_ok());
}

#[test]
fn a_cookie_that_is_not_ours_is_a_strangers() {
    let (throttle, clock) = limited_to(1);
    let good = throttle
        .attempt("ada", &HeaderMap::new())
        .unwrap()
        .succeed();
    drop(throttle.attempt("ada", &HeaderMap::new()).unwrap());
    let is_known = |headers: &HeaderMap| match throttle.attempt("ada", headers) {
        Ok(attempt) => {
            attempt.withdraw();
            true
        }
        Err(_) => false,
    };
    assert!(is_known(&carrying(&good)));
    let pair = carrying(&good)[COOKIE].to_str().unwrap().to_owned();
    let (name, value) = pair.split_once('=').unwrap();
    for at in 0..value.len() {
        let mut changed = value.to_owned().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        assert!(!is_known(&cookie(&format!("{name}={changed}"))), "{at}");
    }
    for text in [
        "__Host-known=",
        "__Host-known=A",
        &format!("__host-known={value}"),
        &format!("{name}={value}{value}{value}{value}{value}"),
        &format!("{name}={value}; {name}={value}"),
    ] {
        assert!(!is_known(&cookie(text)), "{text}");
    }

    clock.advance(DAY * 180);
    drop(throttle.attempt("ada", &HeaderMap::new()).unwrap());
    assert!(is_known(&carrying(&good)));
    clock.advance(DAY);
    drop(throttle.attempt("ada", &HeaderMap::new()).unwrap());
    assert!(!is_known(&carrying(&good)));
}

#[test]
fn previous_secrets_know_a_device_and_other_ones_do_not() {
    let [old, new] = [Secret::generate(), Secret::generate()];
    let before = LoginThrottle::new(1, WINDOW, &old.clone().into()).unwrap();
    let headers = carrying(&before.attempt("ada", &HeaderMap::new()).unwrap().succeed());
    let after = LoginThrottle::new(1, WINDOW, &Secrets::new(new.clone()).with_previous([old]));
    let others = LoginThrottle::new(1, WINDOW, &new.into());
    for (throttle, is_known) in [(after.unwrap(), true), (others.unwrap(), false)] {
        drop(throttle.attempt("ada", &HeaderMap::new()).unwrap());
        assert_eq!(throttle.attempt("ada", &headers).is_ok(), is_known);
    }
}

#[test]
fn the_cookie_is_one_that_no_script_or_sibling_domain_reaches() {
    let (throttle, _clock) = limited_to(1);
    let set = throttle
        .attempt("ada", &HeaderMap::new())
        .unwrap()
        .succeed();
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

#[test]
fn a_refusal_is_an_event() {
    let events = Arc::new(std::sync::Mutex::new(Vec::new()));
    let sink = events.clone();
    let context = Context::new().with_events(move |event: &SecurityEvent| {
        sink.lock().unwrap().push(event.kind());
    });
    let throttle = LoginThrottle::new(1, WINDOW, &Secret::generate().into()).unwrap();
    let throttle = throttle.with_context(context);
    drop(throttle.attempt("ada", &HeaderMap::new()).unwrap());
    assert!(events.lock().unwrap().is_empty());
    assert!(throttle.attempt("ada", &HeaderMap::new()).is_err());
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

/// The headers of a browser that was sent this `Set-Cookie`.
fn carrying(set_cookie: &HeaderValue) -> HeaderMap {
    cookie(set_cookie.to_str().unwrap().split(';').next().unwrap())
}

fn cookie(text: &str) -> HeaderMap {
    HeaderMap::from_iter([(COOKIE, HeaderValue::from_str(text).unwrap())])
}
