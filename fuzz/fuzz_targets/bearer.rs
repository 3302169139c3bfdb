//! Tokens in `Authorization`, a cookie and a WebSocket's protocols: of all requests only those that
//! carry the token once reach the handler, which does not see it, and every 401 says how to ask.
//! `{token}` stands for the token, `{head}` and `{tail}` for its halves.
#![no_main]

use std::{convert::Infallible, sync::LazyLock};

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use libfuzzer_sys::fuzz_target;
use portcullis::{
    Context, Identity, Secret,
    jwt::{AccessToken, Algorithm, Issuer, JwtLayer, SigningKey, TokenSource, Verifier},
    time::{Clock as _, ManualClock},
};
use portcullis_fuzz::{Ask, ask, cookies, fill, holds, quiet, ran, request, runs, values};
use tower::{Layer as _, service_fn};

/// The layer, a token, and what its challenges say to anybody.
static SETUP: LazyLock<(JwtLayer, String, String)> = LazyLock::new(|| {
    let clock = ManualClock::new();
    let context: Context = quiet().with_clock(clock.clone());
    let key = SigningKey::secret(Algorithm::HS256, &Secret::generate()).unwrap();
    let issuer = Issuer::new(key, "issuer", "audience").unwrap();
    let token = issuer
        .issue(&AccessToken::new("ada"), clock.wall())
        .unwrap()
        .into_string();
    let verifier = Verifier::new(issuer.key_set(), "issuer", "audience").unwrap();
    let layer = JwtLayer::new(verifier)
        .with_sources([
            TokenSource::bearer(),
            TokenSource::cookie("__Host-at").unwrap(),
            TokenSource::web_socket_protocol("bearer.").unwrap(),
        ])
        .unwrap()
        .with_token_removed()
        .with_context(context);
    let wrong = "Authorization: Bearer 0\n";
    let usual = ["", wrong, &wrong.repeat(2)].map(|fields| {
        let request = request(format!("GET / HTTP/1.1\n{fields}").as_bytes()).unwrap();
        let handler = service_fn(async |_| Ok::<_, Infallible>(Response::new(Full::default())));
        challenge(&ask(layer.layer(handler), request)).to_owned()
    });
    (layer, token, usual.concat())
});

fn challenge<B>(answer: &Response<B>) -> &str {
    answer.headers()["www-authenticate"].to_str().unwrap()
}

/// What stands in the places of tokens, whatever it is.
fn presented(headers: &http::HeaderMap) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for field in values(headers, "authorization") {
        if field.len() >= 7 && field[..7].eq_ignore_ascii_case(b"bearer ") {
            found.push(field[7..].trim_ascii_start().to_vec());
        }
    }
    let cookies = cookies(headers, "__Host-at").into_iter();
    found.extend(
        cookies
            .filter(|value| !value.is_empty())
            .map(<[u8]>::to_vec),
    );
    for field in values(headers, "sec-websocket-protocol") {
        let items = field.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        found.extend(
            items
                .filter_map(|item| item.strip_prefix(b"bearer."))
                .map(<[u8]>::to_vec),
        );
    }
    found
}

fuzz_target!(|text: &[u8]| {
    let (layer, token, usual) = &*SETUP;
    let (head, tail) = token.split_at(token.len() / 2);
    let filled = fill(
        text,
        &[("{token}", token), ("{head}", head), ("{tail}", tail)],
    );
    let Some(request) = request(&filled) else {
        return;
    };
    let found = presented(request.headers());
    let good = found == [token.as_bytes()];
    let fields = values(request.headers(), "authorization").len();
    let handler = service_fn(async |request: Ask| {
        runs();
        let identity = request
            .extensions()
            .get::<Identity>()
            .expect("authenticated");
        assert_eq!(identity.subject(), "ada");
        assert!(
            presented(request.headers()).is_empty(),
            "the token was to be removed"
        );
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    });
    let answer = ask(layer.layer(handler), request);
    let ran = ran();
    assert_eq!(answer.status() == 200, ran);
    assert!(!ran || good, "without its token");
    // A field of no scheme at all is refused beside a good token.
    assert!(ran || !good || fields > 0, "with its token alone");
    assert!(
        ran || matches!(answer.status().as_u16(), 400 | 401),
        "{}",
        answer.status()
    );
    if !ran {
        let challenge = challenge(&answer);
        assert!(challenge.starts_with("Bearer"), "{challenge}");
        let repeats =
            |value: &[u8]| holds(challenge.as_bytes(), value) && !holds(usual.as_bytes(), value);
        assert!(!found.iter().any(|value| repeats(value)));
    }
});
