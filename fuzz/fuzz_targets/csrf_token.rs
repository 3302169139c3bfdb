//! CSRF tokens before a login: an unsafe request reaches the handler with the session's cookie and one
//! of its tokens, each once, and not otherwise. `{token}` stands for a token, `{head}` and `{tail}` for
//! its halves, and the cookie `__Host-form=session` for the session.
#![no_main]

use std::{convert::Infallible, sync::LazyLock};

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use libfuzzer_sys::fuzz_target;
use portcullis::{
    Secret,
    csrf::{CsrfTokenLayer, CsrfTokens},
};
use portcullis_fuzz::{Ask, ask, cookies, fill, quiet, ran, request, runs, values};
use tower::{Layer as _, service_fn};

static SETUP: LazyLock<(CsrfTokens, CsrfTokenLayer, String)> = LazyLock::new(|| {
    let tokens = CsrfTokens::new(&Secret::generate().into())
        .for_cookie("__Host-form")
        .unwrap();
    let token = tokens.issue("session");
    (
        tokens.clone(),
        CsrfTokenLayer::new(tokens).with_context(quiet()),
        token,
    )
});

fuzz_target!(|text: &[u8]| {
    let (tokens, layer, token) = &*SETUP;
    let (head, tail) = token.split_at(token.len() / 2);
    let filled = fill(
        text,
        &[("{token}", token), ("{head}", head), ("{tail}", tail)],
    );
    if let Ok(text) = str::from_utf8(&filled) {
        assert_eq!(tokens.verify(text, "session"), text == token);
        assert!(!tokens.verify(token, text) || text == "session");
    }
    let Some(request) = request(&filled) else {
        return;
    };
    let headers = request.headers();
    let safe = matches!(request.method().as_str(), "GET" | "HEAD" | "OPTIONS")
        && !headers.contains_key("upgrade");
    let good = cookies(headers, "__Host-form") == [b"session"]
        && values(headers, "x-csrf-token") == [token.as_bytes()];
    let handler = service_fn(async |_: Ask| {
        runs();
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    });
    let answer = ask(layer.layer(handler), request);
    assert_eq!(ran(), safe || good);
    assert_eq!(
        answer.status().as_u16(),
        if safe || good { 200 } else { 403 }
    );
});
