//! Cross-site requests, through the public API, and beside tower-http's rule.
#![cfg(feature = "csrf")]

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{Empty, Full};
use portcullis::{
    Context, Identity, IdentityKind, Origin, Rejection, Secret,
    csrf::{CsrfLayer, CsrfPolicy, CsrfTokenLayer, CsrfTokens},
    event::{EventKind, SecurityEvent},
};
use tower::{Layer, ServiceExt, service_fn};

const OWN: &str = "https://example.com";
const TRUSTED: &str = "https://app.example.net";

type Body = Full<Bytes>;

fn policy() -> CsrfPolicy {
    CsrfPolicy::new([Origin::new(OWN).unwrap()]).trust([Origin::new(TRUSTED).unwrap()])
}

/// Whether a request passes, and that the service runs exactly then.
async fn passes<L>(layer: L, request: Request<Body>) -> Result<(), Response<Body>>
where
    L: Layer<tower::util::BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>>,
    L::Service: tower::Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let service = service_fn(move |_: Request<Body>| {
        counted.fetch_add(1, Ordering::Relaxed);
        async { Ok::<_, Infallible>(Response::new(Body::default())) }
    });
    let service = tower::util::BoxCloneSyncService::new(service);
    let response = layer.layer(service).oneshot(request).await.unwrap();
    let ran = runs.load(Ordering::Relaxed) == 1;
    assert_eq!(ran, response.status() == 200);
    if ran { Ok(()) } else { Err(response) }
}

fn request(method: &str, headers: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::builder().method(method).uri("/path");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::default()).unwrap()
}

#[tokio::test]
async fn a_refusal_is_a_problem_and_an_event_and_the_service_never_runs() {
    let events = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&events);
    let context = Context::new().with_events_inline(move |event: &SecurityEvent| {
        seen.lock().unwrap().push((event.kind(), event.reason()));
    });
    let layer = CsrfLayer::new(policy()).with_context(context);
    let refused = passes(layer, request("POST", &[("sec-fetch-site", "cross-site")]))
        .await
        .unwrap_err();
    assert_eq!(refused.status(), 403);
    assert_eq!(
        refused.headers()["content-type"],
        "application/problem+json"
    );
    assert_eq!(refused.headers()["cache-control"], "no-store");
    let rejection = refused.extensions().get::<Rejection>().unwrap();
    assert_eq!(
        (rejection.gate(), rejection.reason()),
        ("csrf", "cross_site")
    );
    assert_eq!(
        *events.lock().unwrap(),
        [(EventKind::MaliciousCsrf, Some("cross_site"))]
    );
}

#[tokio::test]
async fn only_if_lets_a_webhook_through() {
    let layer = CsrfLayer::new(policy()).only_if(|head| head.uri.path() != "/path");
    let cross = || request("POST", &[("sec-fetch-site", "cross-site")]);
    assert!(passes(layer.clone(), cross()).await.is_ok());
    let mut other = cross();
    *other.uri_mut() = http::Uri::from_static("/other");
    assert!(passes(layer, other).await.is_err());
}

#[tokio::test]
async fn each_of_several_cookies_asks_where_a_request_comes_from() {
    let policy = policy()
        .cookie("refresh")
        .unwrap()
        .cookie("session")
        .unwrap();
    let layer = CsrfLayer::new(policy);
    for (cookies, passed) in [
        ("refresh=x", false),
        ("session=x", false),
        ("refresh=x; session=x", false),
        ("theme=dark", true),
    ] {
        let request = request("POST", &[("cookie", cookies)]);
        assert_eq!(
            passes(layer.clone(), request).await.is_ok(),
            passed,
            "{cookies}"
        );
    }
}

#[tokio::test]
async fn what_is_exempt_may_come_from_anywhere() {
    let layer = CsrfLayer::new(policy().strict().exempt(|head| head.uri.path() == "/path"));
    let cross = || request("POST", &[("sec-fetch-site", "cross-site")]);
    assert!(passes(layer.clone(), cross()).await.is_ok());
    let mut other = cross();
    *other.uri_mut() = http::Uri::from_static("/other");
    assert!(passes(layer, other).await.is_err());
}

/// Every combination of the fields that the two rules read.
///
/// They are to agree, but for what this crate does differently on purpose.
#[tokio::test]
async fn it_agrees_with_tower_http_but_where_it_says_so() {
    let theirs = tower_http::csrf::CsrfLayer::new()
        .add_trusted_origin(OWN)
        .unwrap()
        .add_trusted_origin(TRUSTED)
        .unwrap();
    let ours = CsrfLayer::new(policy());

    let methods = [
        "GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "CUSTOM",
    ];
    let sites = [
        None,
        Some(""),
        Some("same-origin"),
        Some("none"),
        Some("same-site"),
        Some("cross-site"),
        Some("Same-Origin"),
        Some("same-origin, cross-site"),
        Some("junk"),
    ];
    let origins = [
        None,
        Some(""),
        Some("null"),
        Some(OWN),
        Some(TRUSTED),
        Some("https://EXAMPLE.com"),
        Some("https://example.com:443"),
        Some("https://example.com/"),
        Some("http://example.com"),
        Some("https://evil.example"),
        Some("https://internal"),
        Some("not an origin"),
    ];
    let hosts = [None, Some("example.com"), Some("internal")];
    let upgrades = [None, Some("websocket")];

    let (mut compared, mut stricter) = (0, 0);
    for method in methods {
        for site in sites {
            for origin in origins {
                for host in hosts {
                    for upgrade in upgrades {
                        let fields: Vec<_> = [
                            ("sec-fetch-site", site),
                            ("origin", origin),
                            ("host", host),
                            ("upgrade", upgrade),
                        ]
                        .into_iter()
                        .filter_map(|(name, value)| Some((name, value?)))
                        .collect();
                        let we = passes(ours.clone(), request(method, &fields)).await.is_ok();
                        let they = tower_http_passes(&theirs, request(method, &fields)).await;
                        compared += 1;
                        if we == they {
                            continue;
                        }
                        // Never more lenient.
                        assert!(they && !we, "{method} {fields:?}");
                        let host_fallback = site.is_none_or(str::is_empty)
                            && origin.is_some_and(|origin| {
                                let authority = origin.split('/').nth(2);
                                authority.is_some() && authority == host
                            });
                        let safe = ["GET", "HEAD", "OPTIONS"].contains(&method);
                        assert!(
                            host_fallback || safe && upgrade.is_some(),
                            "{method} {fields:?}"
                        );
                        stricter += 1;
                    }
                }
            }
        }
    }
    assert_eq!(compared, 10 * 9 * 12 * 3 * 2);
    assert!(stricter > 0);
    println!("{compared} cases, stricter in {stricter}");
}

async fn tower_http_passes(layer: &tower_http::csrf::CsrfLayer, request: Request<Body>) -> bool {
    let service = service_fn(async |_: Request<Body>| {
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    });
    let response = layer.layer(service).oneshot(request).await.unwrap();
    response.status() == 200
}

fn of_session(session: &str, mut request: Request<Body>) -> Request<Body> {
    let identity = Identity::new(IdentityKind::AccessToken, "user").with_session(session);
    request.extensions_mut().insert(identity);
    request
}

#[tokio::test]
async fn a_token_is_demanded_of_unsafe_requests() {
    let tokens = CsrfTokens::new(&Secret::generate().into());
    let layer = CsrfTokenLayer::new(tokens.clone());
    let good = tokens.issue("s1");
    let other = tokens.issue("s2");
    for (method, headers, reason) in [
        ("GET", &[][..], None),
        ("POST", &[("x-csrf-token", &*good)], None),
        ("POST", &[], Some("no_token")),
        ("POST", &[("x-csrf-token", "")], Some("bad_token")),
        ("POST", &[("x-csrf-token", &*other)], Some("bad_token")),
        (
            "POST",
            &[("x-csrf-token", &*good), ("x-csrf-token", &*good)],
            Some("bad_token"),
        ),
        ("GET", &[("upgrade", "websocket")], Some("no_token")),
    ] {
        let request = of_session("s1", request(method, headers));
        let refused = passes(layer.clone(), request).await.err();
        let refused = refused.map(|response| {
            assert_eq!(response.status(), 403);
            response.extensions().get::<Rejection>().unwrap().reason()
        });
        assert_eq!(refused, reason, "{method} {headers:?}");
    }
    // Without a session there is nothing that a token could be bound to.
    let stranger = request("POST", &[("x-csrf-token", &*good)]);
    let refused = passes(layer, stranger).await.unwrap_err();
    let rejection = refused.extensions().get::<Rejection>().unwrap();
    assert_eq!(rejection.reason(), "no_session");
}

#[tokio::test]
async fn a_login_form_is_bound_to_its_own_cookie() {
    let tokens = CsrfTokens::new(&Secret::generate().into())
        .for_cookie("__Host-pre")
        .unwrap();
    let layer = CsrfTokenLayer::new(tokens.clone());
    let good = tokens.issue("visitor");
    let token = ("x-csrf-token", &*good);
    for (cookies, passed) in [
        (&["a=b; __Host-pre=visitor"][..], true),
        (&["__Host-pre=another"], false),
        (&[], false),
        // A cookie that was put beside the real one.
        (&["__Host-pre=visitor; __Host-pre=another"], false),
        (&["__Host-pre=visitor", "__Host-pre=another"], false),
    ] {
        let mut headers = vec![token];
        headers.extend(cookies.iter().map(|cookie| ("cookie", *cookie)));
        let request = request("POST", &headers);
        assert_eq!(
            passes(layer.clone(), request).await.is_ok(),
            passed,
            "{cookies:?}"
        );
    }
}

/// What anybody can claim binds a token to nobody, even one that was issued for it.
#[tokio::test]
async fn an_empty_session_has_no_tokens() {
    let tokens = CsrfTokens::new(&Secret::generate().into());
    let good = tokens.issue("");
    let token = ("x-csrf-token", &*good);
    let by_session = CsrfTokenLayer::new(tokens.clone());
    let request_of_none = of_session("", request("POST", &[token]));
    assert!(passes(by_session, request_of_none).await.is_err());
    let by_cookie = CsrfTokenLayer::new(tokens.for_cookie("__Host-pre").unwrap());
    let request = request("POST", &[token, ("cookie", "__Host-pre=")]);
    assert!(passes(by_cookie, request).await.is_err());
}

/// The secret may serve other uses, so a MAC of it counts only under this use's label. The tokens
/// were made by Python's `hmac`; the first keeps pages alive across an upgrade.
#[test]
fn a_token_is_a_mac_under_a_label_of_its_own() {
    let secret = "hex:2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683";
    let tokens = CsrfTokens::new(&Secret::from_text(secret).unwrap().into());
    let labelled = "AAECAwQFBgcICQoLDA0OD2eo6fJSx9vdhfyFquWfec-XrpPJ-z7Pf88Ohg2RiYVY";
    assert!(tokens.verify(labelled, "session-1"));
    let bare = "AAECAwQFBgcICQoLDA0OD4x7mrehCZySgdGqbKUcARGjq7WZ3CZi_Z4aM1QjIoJs";
    assert!(!tokens.verify(bare, "session-1"));
}
