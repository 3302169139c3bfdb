//! API keys: of all requests only those that carry the one key, whole and alone, reach the handler,
//! and no answer repeats what was presented. `{key}` stands for the key, `{head}` and `{tail}` for
//! its halves.
#![no_main]

use std::{convert::Infallible, fmt::Debug, sync::LazyLock};

use bytes::Bytes;
use http::Response;
use http_body::Body;
use http_body_util::Full;
use libfuzzer_sys::fuzz_target;
use portcullis::{
    Context, Identity, IdentityKind,
    api_key::{ApiKeyLayer, ApiKeys, MemoryKeys, NewApiKey, UsedKey},
};
use portcullis_fuzz::{Ask, ask, bytes, fill, holds, quiet, ran, request, run, runs, values};
use tower::{Layer as _, service_fn};

/// The layer, its one key, and what its answers say to anybody.
static SETUP: LazyLock<(ApiKeyLayer, String, Vec<u8>)> = LazyLock::new(|| {
    let keys = ApiKeys::new(MemoryKeys::new(), "live").unwrap();
    let ada = Identity::new(IdentityKind::AccessToken, "ada").with_auth_time(Context::new().wall());
    let key = run(keys.create(&ada, NewApiKey::new("key"))).unwrap();
    let text = key.key().expose().to_owned();
    let layer = ApiKeyLayer::new(keys)
        .with_key_removed()
        .with_context(quiet());
    let usual = ["", "X-API-Key: 0\n", "X-API-Key: 0\nX-API-Key: 0\n"].map(|fields| {
        let request = request(format!("GET / HTTP/1.1\n{fields}").as_bytes()).unwrap();
        let handler = service_fn(async |_| Ok::<_, Infallible>(Response::new(Full::default())));
        said(ask(layer.layer(handler), request))
    });
    (layer, text, usual.concat())
});

/// All of an answer.
fn said<B: Body<Data = Bytes, Error: Debug>>(answer: Response<B>) -> Vec<u8> {
    let headers = format!("{:?}", answer.headers());
    [headers.as_bytes(), &bytes(answer.into_body())].concat()
}

fuzz_target!(|text: &[u8]| {
    let (layer, key, usual) = &*SETUP;
    let (head, tail) = key.split_at(key.len() / 2);
    let filled = fill(text, &[("{key}", key), ("{head}", head), ("{tail}", tail)]);
    let Some(request) = request(&filled) else {
        return;
    };
    let (own, standard) = (
        values(request.headers(), "x-api-key"),
        values(request.headers(), "authorization"),
    );
    let bearer = |field: &[u8]| {
        field.len() > 7
            && field[..7].eq_ignore_ascii_case(b"Bearer ")
            && field[7..].trim_ascii() == key.as_bytes()
    };
    let good = match (&own[..], &standard[..]) {
        ([own], []) => *own == key.as_bytes(),
        ([], [field]) => bearer(field),
        _ => false,
    };
    let handler = service_fn(async |request: Ask| {
        runs();
        assert!(request.extensions().get::<UsedKey>().is_some());
        for name in ["x-api-key", "authorization"] {
            assert!(
                values(request.headers(), name).is_empty(),
                "the key was to be removed"
            );
        }
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    });
    let presented: Vec<_> = own
        .iter()
        .chain(&standard)
        .map(|value| value.to_vec())
        .collect();
    let answer = ask(layer.layer(handler), request);
    assert_eq!(ran(), good);
    assert_eq!(answer.status() == 200, good);
    assert!(
        good || matches!(answer.status().as_u16(), 400 | 401),
        "{}",
        answer.status()
    );
    let said = said(answer);
    for value in presented {
        assert!(!holds(&said, &value) || holds(usual, &value));
    }
});
