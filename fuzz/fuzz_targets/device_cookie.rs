//! The cookie of known devices: strangers who used up an account's failures get in with an entry that
//! was signed for it, and with nothing else; what is set anew is bounded and holds. `{cookie}` stands
//! for the value that a login set, `{other}` for another account's, `{both}` for one of both.
#![no_main]

use std::{sync::LazyLock, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::HeaderMap;
use libfuzzer_sys::fuzz_target;
use portcullis::{Secret, login_throttle::LoginThrottle, time::ManualClock};
use portcullis_fuzz::{cookies, fields, fill, quiet, run};

const ENTRY: usize = 52;

struct Setup {
    throttle: LoginThrottle,
    cookie: String,
    other: String,
    both: String,
}

static SETUP: LazyLock<Setup> = LazyLock::new(|| {
    let day = Duration::from_secs(86_400);
    let throttle = LoginThrottle::new(1, day, &Secret::generate().into()).unwrap();
    let throttle = throttle.with_context(quiet().with_clock(ManualClock::new()));
    let login = |account: &str, carried: &str| {
        let headers = fields([carried.as_bytes()].into_iter());
        let attempt = run(throttle.attempt(account, &headers)).unwrap();
        value(run(attempt.succeed()).to_str().unwrap()).to_owned()
    };
    let (cookie, other) = (login("ada", ""), login("bob", ""));
    let both = login("bob", &format!("cookie: __Host-known={cookie}"));
    drop(run(throttle.attempt("ada", &HeaderMap::new())).unwrap());
    Setup {
        throttle,
        cookie,
        other,
        both,
    }
});

fn value(set_cookie: &str) -> &str {
    let pair = set_cookie.split(';').next().unwrap();
    pair.strip_prefix("__Host-known=")
        .expect("the cookie's name")
}

fn entries(value: &[u8]) -> Vec<Vec<u8>> {
    let bytes = URL_SAFE_NO_PAD.decode(value).unwrap_or_default();
    match bytes.len() % ENTRY {
        0 if bytes.len() <= 4 * ENTRY => bytes.chunks(ENTRY).map(<[u8]>::to_vec).collect(),
        _ => Vec::new(),
    }
}

fuzz_target!(|text: &[u8]| {
    let setup = &*SETUP;
    let filled = fill(
        text,
        &[
            ("{cookie}", &setup.cookie),
            ("{other}", &setup.other),
            ("{both}", &setup.both),
        ],
    );
    let headers = fields(filled.split(|byte| *byte == b'\n'));
    let own = entries(setup.cookie.as_bytes());
    let known = match &cookies(&headers, "__Host-known")[..] {
        [sole] => entries(sole).contains(&own[0]),
        _ => false,
    };
    match run(setup.throttle.attempt("ada", &headers)) {
        Ok(attempt) => {
            assert!(known, "a stranger");
            let set = run(attempt.succeed());
            let set = value(set.to_str().expect("visible ASCII"));
            assert!(set.len() <= 4 * ENTRY * 4 / 3 + 2);
            // The device's own id, signed again on the same day.
            assert_eq!(entries(set.as_bytes())[0], own[0]);
        }
        Err(rejection) => {
            assert!(!known);
            assert_eq!(rejection.status(), 429);
        }
    }
});
