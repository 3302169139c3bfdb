//! Refresh and logout: a session goes on or ends by its own token, whole, in one place, and whatever
//! else is asked leaves it as it was. `{token}` stands for the token, `{head}` and `{tail}` for its
//! halves; a path with `logout` in it is the logout, any other the refresh.
#![no_main]

use std::{sync::LazyLock, time::Duration};

use http::Request;
use libfuzzer_sys::fuzz_target;
use portcullis::{
    DenyList, Origin, Secret,
    csrf::CsrfPolicy,
    jwt::{Algorithm, Issuer, SigningKey},
    refresh_token::{Device, MemoryStore, RefreshTokens},
    session::{SessionEndpoints, Sessions},
    time::ManualClock,
};
use portcullis_fuzz::{Script, ask, bytes, cookies, fill, quiet, request, run, values};
use serde_json::Value;

struct Setup {
    clock: ManualClock,
    sessions: Sessions,
    endpoints: SessionEndpoints,
}

static SETUP: LazyLock<Setup> = LazyLock::new(|| {
    let clock = ManualClock::new();
    let context = quiet().with_clock(clock.clone());
    let key = SigningKey::secret(Algorithm::HS256, &Secret::generate()).unwrap();
    let tokens = RefreshTokens::new(MemoryStore::new(), Secret::generate());
    let tokens = tokens.with_context(context.clone());
    let deny_list = DenyList::since_start(&context, Duration::from_secs(1));
    let sessions = Sessions::new(Issuer::new(key, "me", "api").unwrap(), tokens, deny_list);
    let own = Origin::new("https://example.com").unwrap();
    let endpoints = SessionEndpoints::new(sessions.clone()).with_cookie(CsrfPolicy::new([own]));
    Setup {
        clock,
        sessions,
        endpoints,
    }
});

/// The tokens that a request carries, as a reader of cookies and one of JSON find them.
fn presented(request: &Request<Script>) -> Vec<Vec<u8>> {
    let mut found: Vec<_> = cookies(request.headers(), "__Host-refresh")
        .into_iter()
        .map(<[u8]>::to_vec)
        .collect();
    if let Ok(Value::Object(body)) = serde_json::from_slice(&request.body().data())
        && let Some(token) = body.get("refresh_token").filter(|token| !token.is_null())
    {
        found.push(token.as_str().unwrap_or("not a text").as_bytes().to_vec());
    }
    found
}

fuzz_target!(|text: &[u8]| {
    let Setup {
        clock,
        sessions,
        endpoints,
    } = &*SETUP;
    // What the last input left is over.
    clock.advance(Duration::from_secs(31 * 86_400));
    run(sessions.delete_expired(10)).unwrap();
    let pair = run(sessions.start("ada", Device::new())).unwrap();
    let token = pair.refresh_token.expose();
    let (head, tail) = token.split_at(token.len() / 2);
    let filled = fill(
        text,
        &[("{token}", token), ("{head}", head), ("{tail}", tail)],
    );
    let Some(request) = request(&filled) else {
        return;
    };
    let request = request.map(|body| Script::read(&bytes(body)));
    let good = presented(&request) == [token.as_bytes()];
    let logout = request.uri().path().contains("logout");
    let foreign = values(request.headers(), "origin")
        .iter()
        .any(|origin| !origin.is_empty() && *origin != b"https://example.com")
        && values(request.headers(), "sec-fetch-site").is_empty();
    let endpoint = if logout {
        endpoints.logout()
    } else {
        endpoints.refresh()
    };
    let answer = ask(endpoint, request);
    let status = answer.status().as_u16();
    assert!(matches!(status, 200 | 204 | 400..=499), "{status}");
    assert_eq!(answer.headers()["cache-control"], "no-store");
    assert!(
        !foreign || status == 403 || status == 405,
        "from another site: {status}"
    );
    let set = answer
        .headers()
        .get("set-cookie")
        .map(|set| set.to_str().unwrap().to_owned());
    assert!(set.is_none_or(|set| set.starts_with("__Host-refresh=") && set.contains("; HttpOnly")));
    let body = bytes(answer.into_body());
    let alive = run(sessions.refresh(token, None)).is_ok();
    match (status, logout) {
        (200, false) => {
            assert!(good, "refreshed without its token");
            let body: Value = serde_json::from_slice(&body).expect("JSON");
            assert!(body["access_token"].is_string());
        }
        (204, true) => assert_eq!(alive, !good, "ended by something else, or not by its token"),
        _ => {
            assert!(status >= 400);
            assert!(alive, "a refusal ended the session");
        }
    }
});
