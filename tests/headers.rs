//! Security headers, through the public API.
#![cfg(feature = "headers")]

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode,
    header::{
        AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY,
        SET_COOKIE, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
    },
};
use http_body_util::{Empty, Full};
use portcullis::{
    Client, Context,
    event::{EventKind, SecurityEvent},
    headers::{
        Csp, CspNonce, CspReports, Directive, FrameOptions, HeadersOverride, Hsts, Profile,
        ReferrerPolicy, SecurityHeaders, SecurityHeadersLayer, Source,
    },
};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

type Body = Full<Bytes>;

fn of_type(content_type: &'static str) -> Response<Body> {
    Response::builder()
        .header(CONTENT_TYPE, content_type)
        .body(Body::default())
        .unwrap()
}

fn secure() -> Request<()> {
    let mut request = Request::new(());
    request.extensions_mut().insert(Client::new(None, true));
    request
}

async fn answer(
    headers: SecurityHeaders,
    request: Request<()>,
    handler: impl Fn(&Request<()>) -> Response<Body>,
) -> Response<Body> {
    let handler = |request| {
        let response = handler(&request);
        async { Ok::<_, Infallible>(response) }
    };
    SecurityHeadersLayer::new(headers)
        .layer(service_fn(handler))
        .oneshot(request)
        .await
        .unwrap()
}

fn csp(response: &Response<Body>) -> &str {
    response.headers()[CONTENT_SECURITY_POLICY]
        .to_str()
        .unwrap()
}

/// Every header once, by name.
fn all(headers: &HeaderMap) -> Vec<(&str, &str)> {
    let mut all: Vec<_> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
        .collect();
    all.sort_unstable();
    all
}

#[tokio::test]
async fn helmet_is_sent_value_for_value() {
    let response = answer(SecurityHeaders::helmet(), secure(), |_| {
        Response::builder()
            .header("x-powered-by", "Express")
            .body(Body::default())
            .unwrap()
    })
    .await;
    // `curl -I` of an Express server with helmet 8.3.0.
    assert_eq!(
        all(response.headers()),
        [
            (
                "content-security-policy",
                "default-src 'self';base-uri 'self';font-src 'self' https: data:;\
                 form-action 'self';frame-ancestors 'self';img-src 'self' data:;object-src 'none';\
                 script-src 'self';script-src-attr 'none';style-src 'self' https: 'unsafe-inline';\
                 upgrade-insecure-requests"
            ),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
            ("origin-agent-cluster", "?1"),
            ("referrer-policy", "no-referrer"),
            (
                "strict-transport-security",
                "max-age=31536000; includeSubDomains"
            ),
            ("x-content-type-options", "nosniff"),
            ("x-dns-prefetch-control", "off"),
            ("x-download-options", "noopen"),
            ("x-frame-options", "SAMEORIGIN"),
            ("x-permitted-cross-domain-policies", "none"),
            ("x-xss-protection", "0"),
        ]
    );
    // What helmet itself sends, where somebody asked it.
    if let Some(path) = std::env::var_os("PORTCULLIS_TEST_HELMET") {
        let sent: serde_json::Value =
            serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let sent = sent.as_object().unwrap();
        let ours = response.headers();
        assert_eq!(ours.len(), sent.len());
        for (name, value) in sent {
            assert_eq!(ours[name], value.as_str().unwrap(), "{name}");
        }
    }
}

/// The OWASP Secure Headers Project's list of 2026-07-19 (`ci/headers_add.json`), and what each of
/// the two profiles sends in its place; the module's documentation explains each difference.
#[tokio::test]
async fn the_owasp_list_but_for_what_the_documentation_explains() {
    const SAME: &str = "same";
    let page = answer(SecurityHeaders::new(), secure(), |_| of_type("text/html")).await;
    let api = answer(SecurityHeaders::new(), secure(), |_| {
        of_type("application/json")
    })
    .await;
    let csp = |of: &Response<Body>| of.headers()["content-security-policy"].clone();
    let (page_csp, api_csp) = (csp(&page), csp(&api));
    let (page_csp, api_csp) = (page_csp.to_str().unwrap(), api_csp.to_str().unwrap());
    for (name, theirs, html, json) in [
        ("cache-control", "no-store, max-age=0", "", ""),
        (
            "clear-site-data",
            "\"cache\",\"cookies\",\"storage\"",
            "",
            "",
        ),
        (
            "content-security-policy",
            "default-src 'self'; form-action 'self'; base-uri 'self'; object-src 'none'; \
             frame-ancestors 'none'; upgrade-insecure-requests",
            page_csp,
            api_csp,
        ),
        ("cross-origin-embedder-policy", "require-corp", "", ""),
        ("cross-origin-opener-policy", "same-origin", SAME, SAME),
        ("cross-origin-resource-policy", "same-origin", SAME, SAME),
        ("referrer-policy", "no-referrer", "same-origin", SAME),
        (
            "strict-transport-security",
            "max-age=63072000; includeSubDomains",
            SAME,
            SAME,
        ),
        ("x-dns-prefetch-control", "off", SAME, SAME),
        ("x-content-type-options", "nosniff", SAME, SAME),
        ("x-frame-options", "deny", "DENY", "DENY"),
        ("x-permitted-cross-domain-policies", "none", SAME, SAME),
    ] {
        for (answer, ours) in [(&page, html), (&api, json)] {
            let expected = if ours == SAME { theirs } else { ours };
            let sent = answer
                .headers()
                .get(name)
                .map(|value| value.to_str().unwrap());
            assert_eq!(sent.unwrap_or_default(), expected, "{name}");
        }
    }
    // Every source of theirs is ours or narrower; what they deny is denied.
    for directive in [
        "object-src 'none'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "default-src 'none'",
    ] {
        assert!(page_csp.contains(directive) && api_csp.contains(directive));
    }
    assert!(page_csp.contains("form-action 'self'") && api_csp.contains("form-action 'none'"));

    // Of the features that they deny, as told in 2024, those that are not denied here.
    let left: Vec<_> = OWASP_FEATURES
        .iter()
        .copied()
        .filter(|feature| !PERMISSIONS.contains(&format!("{feature}=()")))
        .collect();
    assert_eq!(
        left,
        [
            "cross-origin-isolated",
            "fullscreen",
            "keyboard-map",
            "picture-in-picture",
            "publickey-credentials-get",
            "screen-wake-lock",
            "sync-xhr",
            "web-share",
            "clipboard-write",
            "gamepad",
            "interest-cohort",
            "unload",
        ]
    );

    // What they would have removed is removed where the profile is told to.
    let stripping = [
        "x-aspnet-version",
        "x-generator",
        "sourcemap",
        "x-envoy-internal",
    ]
    .into_iter()
    .map(http::HeaderName::from_static)
    .fold(Profile::api(), Profile::strip);
    let answer = answer(SecurityHeaders::pinned(stripping), secure(), |_| {
        Response::builder()
            .header("server", "x")
            .header("x-powered-by", "x")
            .header("x-aspnet-version", "x")
            .header("x-generator", "x")
            .header("sourcemap", "x")
            .header("x-envoy-internal", "x")
            .body(Body::default())
            .unwrap()
    })
    .await;
    assert!(answer.headers().values().all(|value| value != "x"));
}

const OWASP_FEATURES: [&str; 29] = [
    "accelerometer",
    "autoplay",
    "camera",
    "cross-origin-isolated",
    "display-capture",
    "encrypted-media",
    "fullscreen",
    "geolocation",
    "gyroscope",
    "keyboard-map",
    "magnetometer",
    "microphone",
    "midi",
    "payment",
    "picture-in-picture",
    "publickey-credentials-get",
    "screen-wake-lock",
    "sync-xhr",
    "usb",
    "web-share",
    "xr-spatial-tracking",
    "clipboard-read",
    "clipboard-write",
    "gamepad",
    "hid",
    "idle-detection",
    "interest-cohort",
    "serial",
    "unload",
];

const PERMISSIONS: &str = "accelerometer=(), autoplay=(), browsing-topics=(), \
    camera=(), clipboard-read=(), display-capture=(), encrypted-media=(), geolocation=(), \
    gyroscope=(), hid=(), idle-detection=(), local-fonts=(), magnetometer=(), microphone=(), \
    midi=(), payment=(), serial=(), usb=(), window-management=(), xr-spatial-tracking=()";

#[tokio::test]
async fn the_api_profile_in_full() {
    let response = answer(SecurityHeaders::new(), secure(), |_| {
        of_type("application/json")
    })
    .await;
    assert_eq!(
        all(response.headers()),
        [
            (
                "content-security-policy",
                "default-src 'none';object-src 'none';base-uri 'none';form-action 'none';\
                 frame-ancestors 'none'"
            ),
            ("content-type", "application/json"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
            ("origin-agent-cluster", "?1"),
            ("permissions-policy", PERMISSIONS),
            ("referrer-policy", "no-referrer"),
            (
                "strict-transport-security",
                "max-age=63072000; includeSubDomains"
            ),
            ("x-content-type-options", "nosniff"),
            ("x-dns-prefetch-control", "off"),
            ("x-frame-options", "DENY"),
            ("x-permitted-cross-domain-policies", "none"),
        ]
    );
}

#[tokio::test]
async fn the_html_profile_in_full() {
    let response = answer(SecurityHeaders::new(), secure(), |_| {
        of_type("text/html; charset=utf-8")
    })
    .await;
    assert_eq!(
        all(response.headers()),
        [
            (
                "content-security-policy",
                "default-src 'none';script-src 'none';style-src 'none';img-src 'self' data:;\
                 font-src 'self';connect-src 'self';manifest-src 'self';object-src 'none';\
                 base-uri 'none';form-action 'self';frame-ancestors 'none';\
                 require-trusted-types-for 'script';upgrade-insecure-requests"
            ),
            ("content-type", "text/html; charset=utf-8"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
            ("origin-agent-cluster", "?1"),
            ("permissions-policy", PERMISSIONS),
            ("referrer-policy", "same-origin"),
            (
                "strict-transport-security",
                "max-age=63072000; includeSubDomains"
            ),
            ("x-content-type-options", "nosniff"),
            ("x-dns-prefetch-control", "off"),
            ("x-frame-options", "DENY"),
            ("x-permitted-cross-domain-policies", "none"),
        ]
    );
}

#[tokio::test]
async fn the_profile_goes_by_the_content_type() {
    for (content_type, html) in [
        ("text/html", true),
        ("TEXT/HTML;charset=utf-8", true),
        (" text/html ; charset=utf-8", true),
        ("application/xhtml+xml", true),
        ("image/svg+xml", true),
        ("application/json", false),
        ("application/problem+json", false),
        ("text/htmlx", false),
        ("text/plain; x=text/html", false),
        ("text/xml", false),
        ("", false),
    ] {
        let chosen = answer(SecurityHeaders::new(), secure(), |_| of_type(content_type)).await;
        let policy = &chosen.headers()[REFERRER_POLICY];
        assert_eq!(policy == "same-origin", html, "{content_type}");
        assert_eq!(csp(&chosen).contains("img-src"), html, "{content_type}");

        let pinned = answer(SecurityHeaders::html(), secure(), |_| of_type(content_type)).await;
        assert!(csp(&pinned).contains("img-src"));
    }
}

#[tokio::test]
async fn https_headers_need_https() {
    let plain = || {
        // A scheme and a header are anybody's claim; only `Client` counts.
        let mut request = Request::get("https://example.com/")
            .header("x-forwarded-proto", "https")
            .body(())
            .unwrap();
        request.extensions_mut().insert(Client::new(None, false));
        request
    };
    for (request, https) in [
        (secure(), true),
        (plain(), false),
        (Request::new(()), false),
    ] {
        for headers in [SecurityHeaders::new(), SecurityHeaders::helmet()] {
            let response = answer(headers, request.clone(), |_| of_type("text/html")).await;
            let hsts = response.headers().contains_key(STRICT_TRANSPORT_SECURITY);
            assert_eq!(hsts, https);
            assert_eq!(csp(&response).contains("upgrade-insecure-requests"), https);
        }
    }
}

/// A page that shows its nonce in a header.
fn page(request: &Request<()>) -> Response<Body> {
    let nonce = request.extensions().get::<CspNonce>().unwrap();
    let mut page = of_type("text/html");
    let shown = HeaderValue::from_str(nonce.as_str()).unwrap();
    page.headers_mut().insert("x-shown", shown);
    page
}

#[tokio::test]
async fn a_nonce_that_was_read_is_in_the_policy_and_never_twice_the_same() {
    let mut seen = std::collections::HashSet::new();
    for _ in 0..1000 {
        let response = answer(SecurityHeaders::new(), secure(), page).await;
        let nonce = response.headers()["x-shown"].to_str().unwrap();
        // 128 bits are 22 characters of base64.
        assert!(nonce.len() >= 22);
        assert!(
            nonce
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"+/-_=".contains(&byte))
        );
        let csp = csp(&response);
        assert!(csp.contains(&format!("script-src 'nonce-{nonce}';")));
        assert!(csp.contains(&format!("style-src 'nonce-{nonce}';")));
        assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
        assert!(seen.insert(nonce.to_owned()));
    }
}

#[tokio::test]
async fn a_nonce_that_was_not_read_is_nowhere() {
    let response = answer(SecurityHeaders::new(), secure(), |request| {
        assert!(request.extensions().get::<CspNonce>().is_some());
        of_type("text/html")
    })
    .await;
    assert!(!csp(&response).contains("nonce"));
    assert!(!response.headers().contains_key(CACHE_CONTROL));
}

#[tokio::test]
async fn a_nonce_is_only_in_the_policies_of_pages() {
    let response = answer(SecurityHeaders::new(), secure(), |request| {
        let mut response = page(request);
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(CONTENT_TYPE, json);
        response
    })
    .await;
    assert!(!csp(&response).contains("nonce"));
    // It has nothing that a cache must not keep.
    assert!(!response.headers().contains_key(CACHE_CONTROL));
}

#[tokio::test]
async fn a_policy_without_nonces_gives_none() {
    for headers in [SecurityHeaders::api(), SecurityHeaders::helmet()] {
        answer(headers, secure(), |request| {
            assert!(request.extensions().get::<CspNonce>().is_none());
            of_type("text/html")
        })
        .await;
    }
}

#[tokio::test]
async fn a_nonce_is_given_whichever_profile_has_one() {
    let nonced = || Profile::empty().csp(Csp::html());
    for headers in [
        SecurityHeaders::by_content_type(nonced(), Profile::api()),
        SecurityHeaders::by_content_type(Profile::helmet(), nonced()),
    ] {
        answer(headers, secure(), |request| {
            assert!(request.extensions().get::<CspNonce>().is_some());
            of_type("text/html")
        })
        .await;
    }
}

#[tokio::test]
async fn a_report_only_policy_has_the_same_nonce() {
    let trial = Csp::builder()
        .set(Directive::ScriptSrc, [Source::NONCE])
        .build()
        .unwrap();
    let profile = Profile::html().csp_report_only(trial).unwrap();
    let response = answer(SecurityHeaders::pinned(profile), secure(), page).await;
    let nonce = response.headers()["x-shown"].to_str().unwrap();
    assert_eq!(
        response.headers()["content-security-policy-report-only"],
        format!("script-src 'nonce-{nonce}'")
    );
    assert!(csp(&response).contains(nonce));
}

#[tokio::test]
async fn what_the_handler_set_stays() {
    let response = answer(SecurityHeaders::new(), secure(), |_| {
        Response::builder()
            .header(X_FRAME_OPTIONS, "SAMEORIGIN")
            .header(CONTENT_SECURITY_POLICY, "default-src 'self'")
            .header(CACHE_CONTROL, "public, max-age=60")
            .header(SET_COOKIE, "a=1")
            .header("x-own", "1")
            .header(SET_COOKIE, "b=2")
            .status(StatusCode::NOT_FOUND)
            .body(Body::default())
            .unwrap()
    })
    .await;
    let headers = response.headers();
    let values = |name: HeaderName| headers.get_all(name).iter().collect::<Vec<_>>();
    assert_eq!(values(X_FRAME_OPTIONS), ["SAMEORIGIN"]);
    assert_eq!(values(CONTENT_SECURITY_POLICY), ["default-src 'self'"]);
    assert_eq!(values(CACHE_CONTROL), ["public, max-age=60"]);
    assert_eq!(values(SET_COOKIE), ["a=1", "b=2"]);
    assert_eq!(headers["x-own"], "1");
    assert_eq!(headers[X_CONTENT_TYPE_OPTIONS], "nosniff");
}

#[tokio::test]
async fn a_profile_can_override_remove_and_strip() {
    let own = HeaderName::from_static("x-own");
    let profile = Profile::api()
        .frame_options(FrameOptions::Deny)
        .overriding(X_FRAME_OPTIONS)
        // Nothing is set of this name, so the handler's stays.
        .overriding(own.clone())
        .without(REFERRER_POLICY)
        .without(CONTENT_SECURITY_POLICY)
        .without(STRICT_TRANSPORT_SECURITY)
        .strip(HeaderName::from_static("x-debug"))
        .keep(&HeaderName::from_static("server"))
        .header(
            HeaderName::from_static("x-robots-tag"),
            HeaderValue::from_static("none"),
        )
        .unwrap();
    let response = answer(SecurityHeaders::pinned(profile), secure(), |_| {
        Response::builder()
            .header(X_FRAME_OPTIONS, "SAMEORIGIN")
            .header(X_FRAME_OPTIONS, "ALLOW-FROM x")
            .header(&own, "1")
            .header("x-debug", "1")
            .header("x-debug", "2")
            .header("server", "mine")
            .body(Body::default())
            .unwrap()
    })
    .await;
    let headers = response.headers();
    let framing: Vec<_> = headers.get_all(X_FRAME_OPTIONS).iter().collect();
    assert_eq!(framing, ["DENY"]);
    assert_eq!(headers[&own], "1");
    assert_eq!(headers["server"], "mine");
    assert_eq!(headers["x-robots-tag"], "none");
    for gone in [
        "referrer-policy",
        "content-security-policy",
        "strict-transport-security",
        "x-debug",
    ] {
        assert!(!headers.contains_key(gone), "{gone}");
    }
}

#[tokio::test]
async fn server_and_powered_by_go() {
    for headers in [
        SecurityHeaders::new(),
        SecurityHeaders::html(),
        SecurityHeaders::api(),
    ] {
        let response = answer(headers, secure(), |_| {
            Response::builder()
                .header("server", "a/1.0")
                .header("server", "b/2.0")
                .header("x-powered-by", "c")
                .body(Body::default())
                .unwrap()
        })
        .await;
        assert!(!response.headers().contains_key("server"));
        assert!(!response.headers().contains_key("x-powered-by"));
    }
}

#[tokio::test]
async fn a_handler_overrides_for_its_own_answer() {
    let framed = SecurityHeaders::pinned(Profile::empty().referrer_policy(ReferrerPolicy::Origin));
    let response = answer(SecurityHeaders::new(), secure(), move |_| {
        let overrides = HeadersOverride::new().policy(framed.clone()).no_store(true);
        let mut response = of_type("text/html");
        response.extensions_mut().insert(overrides);
        response
    })
    .await;
    assert_eq!(
        all(response.headers()),
        [
            ("cache-control", "no-store"),
            ("content-type", "text/html"),
            ("referrer-policy", "origin"),
        ]
    );

    let response = answer(SecurityHeaders::new(), secure(), |_| {
        let mut response = of_type("text/html");
        response
            .extensions_mut()
            .insert(HeadersOverride::new().without(X_FRAME_OPTIONS));
        response
    })
    .await;
    assert!(!response.headers().contains_key(X_FRAME_OPTIONS));
    assert!(response.headers().contains_key(REFERRER_POLICY));
}

#[tokio::test]
async fn errors_and_answers_to_credentials_are_not_stored() {
    let with_token = || {
        let mut request = secure();
        let token = HeaderValue::from_static("Bearer x");
        request.headers_mut().insert(AUTHORIZATION, token);
        request
    };
    for (request, status, stored) in [
        (secure(), 200, true),
        (secure(), 304, true),
        (secure(), 404, false),
        (secure(), 500, false),
        (with_token(), 200, false),
    ] {
        let response = answer(SecurityHeaders::new(), request, |_| {
            let mut response = of_type("application/json");
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            response
        })
        .await;
        let said = response.headers().contains_key(CACHE_CONTROL);
        assert_eq!(!said, stored, "{status}");
    }
    // What a profile says nothing of is not said: helmet's.
    let response = answer(SecurityHeaders::helmet(), secure(), |_| {
        let mut response = of_type("text/plain");
        *response.status_mut() = StatusCode::NOT_FOUND;
        response
    })
    .await;
    assert!(!response.headers().contains_key(CACHE_CONTROL));
    let headers = SecurityHeaders::new().no_store_when(|head| head.uri.path().starts_with("/api"));
    let request = Request::get("/api/me").body(()).unwrap();
    let plain = |_: &Request<()>| of_type("text/plain");
    let response = answer(headers.clone(), request, plain).await;
    assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
    let response = answer(headers, with_token(), plain).await;
    assert!(!response.headers().contains_key(CACHE_CONTROL));
}

async fn nested(outer: Profile, inner: Profile) -> Response<Body> {
    ServiceBuilder::new()
        .layer(SecurityHeadersLayer::new(SecurityHeaders::pinned(outer)))
        .layer(SecurityHeadersLayer::new(SecurityHeaders::pinned(inner)))
        .service(service_fn(async |request: Request<()>| {
            if let Some(nonce) = request.extensions().get::<CspNonce>() {
                let _ = nonce.as_str();
            }
            Ok::<_, Infallible>(of_type("text/html"))
        }))
        .oneshot(secure())
        .await
        .unwrap()
}

#[tokio::test]
async fn an_inner_layers_choice_is_never_undone() {
    for outer in [
        Profile::html(),
        Profile::api(),
        Profile::helmet().overriding(X_FRAME_OPTIONS),
    ] {
        let inner = Profile::empty().frame_options(FrameOptions::SameOrigin);
        let response = nested(outer, inner).await;
        assert_eq!(
            all(response.headers()),
            [
                ("content-type", "text/html"),
                ("x-frame-options", "SAMEORIGIN")
            ]
        );
    }
    for outer in [Profile::html(), Profile::api()] {
        let response = nested(outer, Profile::html()).await;
        let policies = response.headers().get_all(CONTENT_SECURITY_POLICY);
        assert_eq!(policies.iter().count(), 1);
        assert!(csp(&response).contains("script-src 'nonce-"));
    }
}

/// Who stands between two layers, as a template engine does, reads the nonce that the answer has.
#[tokio::test]
async fn nested_layers_share_one_nonce() {
    let layer = || SecurityHeadersLayer::new(SecurityHeaders::html());
    let between = Arc::new(Mutex::new(String::new()));
    let seen = Arc::clone(&between);
    let response = ServiceBuilder::new()
        .layer(layer())
        .map_request(move |request: Request<()>| {
            let nonce = request.extensions().get::<CspNonce>().unwrap();
            nonce.as_str().clone_into(&mut seen.lock().unwrap());
            request
        })
        .layer(layer())
        .service(service_fn(async |_: Request<()>| {
            Ok::<_, Infallible>(of_type("text/html"))
        }))
        .oneshot(secure())
        .await
        .unwrap();
    let nonce = format!("'nonce-{}'", between.lock().unwrap());
    assert!(csp(&response).contains(&nonce), "{nonce}");
}

#[tokio::test]
async fn an_answer_that_never_reached_the_inner_layer_gets_the_outer_headers() {
    let inner = SecurityHeadersLayer::new(SecurityHeaders::pinned(Profile::empty()))
        .only_if(|head| head.uri.path() == "/inner");
    let mut service = ServiceBuilder::new()
        .layer(SecurityHeadersLayer::default())
        .layer(inner)
        .service(service_fn(async |_: Request<()>| {
            Ok::<_, Infallible>(of_type("text/plain"))
        }));
    for (path, outer) in [("/outer", true), ("/inner", false)] {
        let request = Request::get(path).body(()).unwrap();
        let response = service.ready().await.unwrap().call(request).await.unwrap();
        assert_eq!(response.headers().contains_key(X_FRAME_OPTIONS), outer);
    }
}

#[tokio::test]
async fn a_304_does_not_put_another_policy_on_a_cached_page() {
    let not_modified = |request: &Request<()>| {
        let _ = request.extensions().get::<CspNonce>().map(CspNonce::as_str);
        Response::builder()
            .status(304)
            .body(Body::default())
            .unwrap()
    };
    let response = answer(SecurityHeaders::new(), secure(), not_modified).await;
    let headers = response.headers();
    assert!(!headers.contains_key(CONTENT_SECURITY_POLICY));
    assert!(!headers.contains_key(REFERRER_POLICY));
    assert_eq!(headers[X_CONTENT_TYPE_OPTIONS], "nosniff");
    assert!(headers.contains_key(STRICT_TRANSPORT_SECURITY));

    // Nor one that has no nonce, nor what the two profiles say differently.
    let differ = SecurityHeaders::by_content_type(
        Profile::html().hsts(Hsts::days(1)),
        Profile::api().hsts(Hsts::days(2)),
    );
    let response = answer(differ, secure(), |_| {
        let response = Response::builder().status(304);
        response.body(Body::default()).unwrap()
    })
    .await;
    assert!(!response.headers().contains_key(CONTENT_SECURITY_POLICY));
    assert!(!response.headers().contains_key(STRICT_TRANSPORT_SECURITY));

    // One of them alone would replace what the handler says.
    let differ = SecurityHeaders::by_content_type(
        Profile::html().overriding(X_FRAME_OPTIONS),
        Profile::api(),
    );
    let response = answer(differ, secure(), |_| {
        let response = Response::builder().status(304);
        let response = response.header(X_FRAME_OPTIONS, "SAMEORIGIN");
        response.body(Body::default()).unwrap()
    })
    .await;
    assert_eq!(response.headers()[X_FRAME_OPTIONS], "SAMEORIGIN");

    // Its kind is known when the profile is pinned, but the nonce is that of another answer.
    let response = answer(SecurityHeaders::html(), secure(), not_modified).await;
    assert!(!response.headers().contains_key(CONTENT_SECURITY_POLICY));
    let response = answer(SecurityHeaders::api(), secure(), not_modified).await;
    assert!(response.headers().contains_key(CONTENT_SECURITY_POLICY));
}

#[tokio::test]
async fn the_answer_itself_is_untouched() {
    let service = SecurityHeadersLayer::default().layer(service_fn(async |_: Request<()>| {
        // A body that cannot hold a refusal.
        Ok::<_, Infallible>(
            Response::builder()
                .status(206)
                .header("content-length", "1234")
                .extension(7_u8)
                .body(Empty::<Bytes>::new())
                .unwrap(),
        )
    }));
    let response = service
        .oneshot(Request::head("/").body(()).unwrap())
        .await
        .unwrap();
    assert_eq!(response.status(), 206);
    assert_eq!(response.headers()["content-length"], "1234");
    assert_eq!(response.extensions().get::<u8>(), Some(&7));
    assert!(response.headers().contains_key(X_FRAME_OPTIONS));
}

#[tokio::test]
async fn a_service_error_passes() {
    let service = SecurityHeadersLayer::default().layer(service_fn(async |_: Request<()>| {
        Err::<Response<Body>, _>(std::io::Error::other("down"))
    }));
    let error = service.oneshot(Request::new(())).await.unwrap_err();
    assert_eq!(error.to_string(), "down");
}

#[tokio::test]
async fn reports_become_events_and_nothing_of_them_is_kept() {
    let events = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&events);
    let context = Context::new().with_events_inline(move |event: &SecurityEvent| {
        seen.lock().unwrap().push((event.kind(), event.reason()));
    });
    let reports = CspReports::new().with_context(context);
    let send = |method: &str, content_type: &str, body: String| {
        let request = Request::builder()
            .method(method)
            .header(CONTENT_TYPE, content_type)
            .body(Body::from(body))
            .unwrap();
        reports.clone().oneshot(request)
    };
    let report = r#"[{"type":"csp-violation","url":"https://user:pass@x/","body":
        {"effectiveDirective":"script-src-elem","blockedURL":"<script>"}}]"#;
    let json = "application/reports+json";
    let legacy = "application/csp-report; charset=utf-8";
    for (method, content_type, body, status) in [
        ("POST", json, report.to_owned(), 204),
        ("POST", legacy, r#"{"csp-report":{}}"#.to_owned(), 204),
        ("POST", "text/plain", report.to_owned(), 415),
        ("GET", json, String::new(), 405),
        ("POST", json, "[".to_owned(), 400),
        ("POST", json, " ".repeat(16 * 1024 + 1), 413),
    ] {
        let response = send(method, content_type, body).await.unwrap();
        assert_eq!(response.status(), status);
    }
    assert_eq!(
        events.lock().unwrap()[..2],
        [
            (EventKind::CspViolation, Some("script-src-elem")),
            (EventKind::CspViolation, Some("other")),
        ]
    );
}

#[tokio::test]
async fn a_report_without_end_is_cut_off() {
    let endless = http_body_util::StreamBody::new(futures_util::stream::repeat_with(|| {
        Ok::<_, Infallible>(http_body::Frame::data(Bytes::from_static(&[b' '; 1000])))
    }));
    let request = Request::post("/")
        .header(CONTENT_TYPE, "application/csp-report")
        .body(endless)
        .unwrap();
    let response = CspReports::new().oneshot(request).await.unwrap();
    assert_eq!(response.status(), 413);
}

#[tokio::test(start_paused = true)]
async fn a_report_that_never_comes_is_given_up() {
    let stalled = http_body_util::StreamBody::new(futures_util::stream::pending::<
        Result<http_body::Frame<Bytes>, Infallible>,
    >());
    let request = Request::post("/")
        .header(CONTENT_TYPE, "application/csp-report")
        .body(stalled)
        .unwrap();
    let started = tokio::time::Instant::now();
    let response = CspReports::new().oneshot(request).await.unwrap();
    assert_eq!(response.status(), 408);
    assert!(started.elapsed() < std::time::Duration::from_secs(6));
}

/// Whatever a handler sets, and in which number, it comes out once and in its values' order.
#[tokio::test]
async fn a_handlers_headers_come_through_whatever_they_are() {
    let names = [
        "content-type",
        "content-length",
        "x-a",
        "set-cookie",
        "x-b",
        "x-c",
    ];
    for set in 0..1_u32 << names.len() {
        let given: Vec<_> = names
            .iter()
            .enumerate()
            .filter(|(index, _)| set & 1 << index != 0)
            .map(|(_, name)| *name)
            .collect();
        let response = answer(SecurityHeaders::api(), secure(), |_| {
            let mut response = Response::builder();
            for name in &given {
                response = response.header(*name, "1");
                if *name == "set-cookie" {
                    response = response.header(*name, "2");
                }
            }
            response.body(Body::default()).unwrap()
        })
        .await;
        for name in names {
            let values: Vec<_> = response.headers().get_all(name).iter().collect();
            let expected: &[&str] = match (given.contains(&name), name) {
                (false, _) => &[],
                (true, "set-cookie") => &["1", "2"],
                (true, _) => &["1"],
            };
            assert_eq!(values, expected, "{name} of {given:?}");
        }
        assert_eq!(response.headers()["x-frame-options"], "DENY");
    }
}

#[test]
fn an_empty_answer_costs_two_allocations() {
    let allocations = |headers: SecurityHeaders, handler: fn(Request<()>) -> Response<Body>| {
        let inner =
            service_fn(move |request| std::future::ready(Ok::<_, Infallible>(handler(request))));
        let mut service = SecurityHeadersLayer::new(headers).layer(inner);
        let mut request = Some(secure());
        let mut response = None;
        let taken = allocation_counter::measure(|| {
            response = service.call(request.take().unwrap()).now_or_never();
        });
        assert!(response.is_some());
        taken.count_total
    };
    let empty = |_| Response::new(Body::default());
    assert_eq!(allocations(SecurityHeaders::api(), empty), 2);
    assert_eq!(allocations(SecurityHeaders::helmet(), empty), 2);
    // The nonce and its place among the request's extensions.
    assert_eq!(allocations(SecurityHeaders::new(), empty), 4);
    // Beside the handler's own three: the nonce and its place, the map, the policy.
    let page = |request: Request<()>| {
        let _ = request.extensions().get::<CspNonce>().map(CspNonce::as_str);
        of_type("text/html")
    };
    assert_eq!(allocations(SecurityHeaders::new(), page), 3 + 2 + 2 + 1);
}

#[test]
fn the_types_are_what_frameworks_ask_for() {
    fn asked<T: Clone + Send + Sync + std::fmt::Debug + 'static>(_: &T) {}
    let layer = SecurityHeadersLayer::default();
    asked(&layer);
    asked(&layer.layer(()));
    asked(&SecurityHeaders::new());
    asked(&CspNonce::new());
    asked(&HeadersOverride::new());
}

#[cfg(feature = "axum")]
#[tokio::test]
async fn axum_handlers_extract_the_nonce() {
    use axum::{Router, response::Html, routing::get};

    let app = Router::new()
        .route(
            "/",
            get(async |nonce: CspNonce| Html(nonce.as_str().to_owned())),
        )
        .layer(SecurityHeadersLayer::default());
    let request = Request::get("/").body(axum::body::Body::empty()).unwrap();
    let response = app.oneshot(request).await.unwrap();
    let policy = response.headers()[CONTENT_SECURITY_POLICY].clone();
    let body = axum::body::to_bytes(response.into_body(), 100)
        .await
        .unwrap();
    let nonce = std::str::from_utf8(&body).unwrap();
    assert!(policy.to_str().unwrap().contains(nonce));

    let without = Router::new().route("/", get(async |_: CspNonce| ()));
    let request = Request::get("/").body(axum::body::Body::empty()).unwrap();
    let response = without.oneshot(request).await.unwrap();
    assert_eq!(response.status(), 500);
    assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
}
