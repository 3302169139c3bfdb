//! CORS, through the public API.
#![cfg(feature = "cors")]

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use portcullis::{
    Client, Context,
    cors::CorsPolicy,
    event::{EventKind, SecurityEvent},
};
use tower::{Layer, ServiceExt, service_fn};

type Body = Full<Bytes>;

const ALLOWED: &str = "https://app.example.com";

fn policy() -> CorsPolicy {
    CorsPolicy::new([ALLOWED, "https://*.preview.example.com"])
        .unwrap()
        .credentials(true)
}

/// A service that refuses everything.
async fn answer(policy: &CorsPolicy, context: &Context, request: Request<Body>) -> Response<Body> {
    let service = service_fn(async |_: Request<Body>| {
        Ok::<_, Infallible>(
            Response::builder()
                .status(StatusCode::TOO_MANY_REQUESTS)
                .header("vary", "accept-encoding")
                .body(Body::default())
                .unwrap(),
        )
    });
    let service = policy.layer(context).layer(service);
    service.oneshot(request).await.unwrap()
}

fn from(origin: &str) -> Request<Body> {
    Request::post("/")
        .header("origin", origin)
        .body(Body::default())
        .unwrap()
}

fn preflight(origin: &str) -> Request<Body> {
    let mut request = Request::options("/")
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization")
        .body(Body::default())
        .unwrap();
    let client = Client::new(Some("192.0.2.1".parse().unwrap()), true);
    request.extensions_mut().insert(client);
    request
}

fn vary(response: &Response<Body>) -> Vec<String> {
    let lines = response.headers().get_all("vary").iter();
    lines
        .flat_map(|line| line.to_str().unwrap().split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect()
}

#[tokio::test]
async fn a_refusal_behind_it_is_readable_to_an_allowed_origin() {
    for origin in [ALLOWED, "https://pr-7.preview.example.com"] {
        let response = answer(&policy(), &Context::new(), from(origin)).await;
        assert_eq!(response.status(), 429);
        let headers = response.headers();
        assert_eq!(headers["access-control-allow-origin"], origin);
        assert_eq!(headers["access-control-allow-credentials"], "true");
        let exposed = headers["access-control-expose-headers"].to_str().unwrap();
        assert!(exposed.contains("retry-after"));
        let vary = vary(&response);
        assert_eq!(vary.iter().filter(|name| *name == "origin").count(), 1);
        assert!(vary.contains(&"accept-encoding".to_owned()));
    }
}

#[tokio::test]
async fn another_origin_is_named_nowhere_and_still_varies() {
    for origin in [
        "https://evil.example",
        "https://a.b.preview.example.com",
        "http://app.example.com",
        "https://APP.example.com",
        "https://app.example.com:443",
        "null",
        "*",
    ] {
        for request in [from(origin), preflight(origin)] {
            let response = answer(&policy(), &Context::new(), request).await;
            let headers = response.headers();
            assert!(
                !headers.contains_key("access-control-allow-origin"),
                "{origin}"
            );
            assert!(vary(&response).contains(&"origin".to_owned()));
        }
    }
    let without_origin = Request::get("/").body(Body::default()).unwrap();
    let response = answer(&policy(), &Context::new(), without_origin).await;
    assert!(
        !response
            .headers()
            .contains_key("access-control-allow-origin")
    );
    assert!(vary(&response).contains(&"origin".to_owned()));
}

#[tokio::test]
async fn a_preflight_is_answered_before_what_would_refuse_it() {
    let response = answer(&policy(), &Context::new(), preflight(ALLOWED)).await;
    assert_eq!(response.status(), 200);
    let headers = response.headers();
    assert_eq!(headers["access-control-allow-origin"], ALLOWED);
    assert_eq!(headers["access-control-max-age"], "7200");
    let methods = headers["access-control-allow-methods"].to_str().unwrap();
    assert!(methods.contains("POST"));
    let allowed = headers["access-control-allow-headers"].to_str().unwrap();
    assert!(allowed.contains("authorization"));
}

#[tokio::test]
async fn a_strange_preflight_is_an_event() {
    let events = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&events);
    let context = Context::new().with_events_inline(move |event: &SecurityEvent| {
        let client = event.client().map(|ip| ip.to_string());
        seen.lock().unwrap().push((event.kind(), client));
    });
    answer(&policy(), &context, preflight(ALLOWED)).await;
    answer(&policy(), &context, from("https://evil.example")).await;
    // Neither is a preflight: a call with the field of one, and an `OPTIONS` without it.
    let mut call = preflight("https://evil.example");
    *call.method_mut() = http::Method::POST;
    answer(&policy(), &context, call).await;
    let mut options = preflight("https://evil.example");
    options
        .headers_mut()
        .remove("access-control-request-method");
    answer(&policy(), &context, options).await;
    assert!(events.lock().unwrap().is_empty());

    answer(&policy(), &context, preflight("https://evil.example")).await;
    let event = (EventKind::MaliciousCors, Some("192.0.2.1".to_owned()));
    assert_eq!(*events.lock().unwrap(), std::slice::from_ref(&event));
    // Inside a stack it names the client too.
    let events = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&events);
    let context = Context::new().with_events_inline(move |event: &SecurityEvent| {
        let client = event.client().map(|ip| ip.to_string());
        seen.lock().unwrap().push((event.kind(), client));
    });
    let stack = portcullis::stack::SecurityStack::new(context).with_cors(policy());
    let service =
        service_fn(async |_: Request<Body>| Ok::<_, Infallible>(Response::new(Body::default())));
    let asked = preflight("https://evil.example");
    stack.around(service).oneshot(asked).await.unwrap();
    assert_eq!(*events.lock().unwrap(), [event]);
}

#[tokio::test]
async fn cookies_are_allowed_only_where_the_policy_says_so() {
    for credentials in [false, true] {
        let policy = policy().credentials(credentials);
        for request in [from(ALLOWED), preflight(ALLOWED)] {
            let response = answer(&policy, &Context::new(), request).await;
            let headers = response.headers();
            assert_eq!(headers["access-control-allow-origin"], ALLOWED);
            let allowed = headers.contains_key("access-control-allow-credentials");
            assert_eq!(allowed, credentials);
        }
    }
}

/// Inside a stack the answers are those of the layer that the policy makes: every combination of
/// what it reads, with and without a `Vary` of the service's own.
#[tokio::test]
async fn the_stack_answers_as_the_layer_does() {
    let context = Context::new().with_events_inline(|_: &SecurityEvent| {});
    let stack = portcullis::stack::SecurityStack::new(context.clone()).with_cors(policy());
    let service = |own: &'static str| {
        service_fn(move |_: Request<Body>| {
            let response = Response::builder().header("x-handler", "ran");
            let response = match own {
                "" => response,
                own => response.header("vary", own),
            };
            std::future::ready(Ok::<_, Infallible>(response.body(Body::default()).unwrap()))
        })
    };
    let mut compared = 0;
    for method in ["GET", "POST", "DELETE", "OPTIONS"] {
        for origin in ["", ALLOWED, "https://evil.example", "null"] {
            for asked in ["", "PUT", "TRACE"] {
                for names in ["", "authorization", "x-other"] {
                    for own in ["", "accept-encoding", "Origin, accept", "*"] {
                        let request = || {
                            let mut request = Request::builder().method(method);
                            for (name, value) in [
                                ("origin", origin),
                                ("access-control-request-method", asked),
                                ("access-control-request-headers", names),
                            ] {
                                if !value.is_empty() {
                                    request = request.header(name, value);
                                }
                            }
                            request.body(Body::default()).unwrap()
                        };
                        let ours = stack.around(service(own)).oneshot(request());
                        let theirs = policy().layer(&context).layer(service(own));
                        let (ours, theirs) = (
                            ours.await.unwrap(),
                            theirs.oneshot(request()).await.unwrap(),
                        );
                        assert_eq!(ours.status(), theirs.status());
                        let rest = |response: &Response<Body>| {
                            let mut headers = response.headers().clone();
                            headers.remove("vary");
                            headers.remove("x-content-type-options");
                            headers
                        };
                        assert_eq!(rest(&ours), rest(&theirs), "{method} {origin} {asked}");
                        // The same names, but each once, and none beside `*`.
                        let (mut own_names, mut their_names) = (vary(&ours), vary(&theirs));
                        let all = own_names.len();
                        for names in [&mut own_names, &mut their_names] {
                            names.sort_unstable();
                            names.dedup();
                        }
                        assert_eq!(own_names.len(), all, "{:?}", ours.headers());
                        if their_names.contains(&"*".to_owned()) {
                            their_names = vec!["*".to_owned()];
                        }
                        assert_eq!(own_names, their_names);
                        compared += 1;
                    }
                }
            }
        }
    }
    assert_eq!(compared, 4 * 4 * 3 * 3 * 4);
}
