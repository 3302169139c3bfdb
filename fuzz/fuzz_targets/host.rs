//! Hosts and redirects: the handler runs for its own host alone, over HTTPS alone, and a redirect
//! leads to the public origin whatever the request says. The first byte says how the client came.
#![no_main]

use std::{convert::Infallible, sync::LazyLock};

use bytes::Bytes;
use http::{Response, Uri};
use http_body_util::Full;
use libfuzzer_sys::fuzz_target;
use portcullis::{
    Client, Origin,
    https::{HttpsLayer, HttpsPolicy},
};
use portcullis_fuzz::{Ask, ask, quiet, ran, request, runs, values};
use tower::{Layer as _, service_fn};

static LAYER: LazyLock<HttpsLayer> = LazyLock::new(|| {
    let origin = Origin::new("https://example.com").unwrap();
    HttpsLayer::new(HttpsPolicy::new(origin)).with_context(quiet())
});

fuzz_target!(|text: &[u8]| {
    let Some((secure, text)) = text.split_first() else {
        return;
    };
    let Some(mut request) = request(text) else {
        return;
    };
    let secure = secure % 2 == 1;
    request
        .extensions_mut()
        .insert(Client::new(Some([192, 0, 2, 1].into()), secure));
    let hosts = values(request.headers(), "host");
    let target = request
        .uri()
        .authority()
        .map(|authority| authority.as_str().as_bytes());
    let own = |host: &[u8]| {
        host.eq_ignore_ascii_case(b"example.com") || host.eq_ignore_ascii_case(b"example.com:443")
    };
    let good = match (target, &hosts[..]) {
        (Some(target), []) => own(target),
        (None, [host]) => own(host),
        (Some(target), [host]) => own(target) && own(host),
        _ => false,
    };
    let acme = request
        .uri()
        .path()
        .starts_with("/.well-known/acme-challenge/");
    let (safe, path) = (
        matches!(request.method().as_str(), "GET" | "HEAD"),
        request.uri().path().to_owned(),
    );
    let handler = service_fn(async |_: Ask| {
        runs();
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    });
    let answer = ask(LAYER.layer(handler), request);
    assert_eq!(ran(), good && (secure || acme), "{answer:?}");
    if let Some(location) = answer.headers().get("location") {
        assert!(good && !secure && safe);
        assert_eq!(answer.status(), 308);
        let location = location.to_str().expect("visible ASCII");
        assert!(location.starts_with("https://example.com/"), "{location}");
        let uri: Uri = location.parse().expect("an address");
        assert_eq!(uri.authority().expect("a host"), "example.com");
        assert!(
            !path.is_ascii() || path == "*" || location.contains(&path),
            "{location}"
        );
    }
});
