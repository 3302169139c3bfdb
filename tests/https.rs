//! Hosts and plain HTTP, through the public API.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use portcullis::{
    Client, Origin, Rejection,
    https::{HttpsLayer, HttpsPolicy},
};
use tower::{Layer, ServiceExt, service_fn};

type Body = Full<Bytes>;

fn policy() -> HttpsPolicy {
    HttpsPolicy::new(Origin::new("https://example.com").unwrap())
        .host("www.example.com")
        .unwrap()
        .exempt(|head| head.uri.path() == "/healthz")
}

/// `Ok` where the service runs, else the status with the redirect's target or the reason.
async fn outcome(policy: HttpsPolicy, request: Request<Body>) -> Result<(), (u16, String)> {
    let service =
        service_fn(async |_: Request<Body>| Ok::<_, Infallible>(Response::new(Body::from("ran"))));
    let service = HttpsLayer::new(policy).layer(service);
    let response = service.oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    if status == 200 {
        return Ok(());
    }
    let told = match response.extensions().get::<Rejection>() {
        Some(rejection) => rejection.reason().to_owned(),
        None => response.headers()["location"].to_str().unwrap().to_owned(),
    };
    Err((status, told))
}

fn request(secure: bool, method: &str, uri: &str, headers: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut request = request.body(Body::default()).unwrap();
    request.extensions_mut().insert(Client::new(None, secure));
    request
}

const HOST: (&str, &str) = ("host", "example.com");

#[tokio::test]
async fn plain_http_goes_to_the_public_origin_and_nowhere_else() {
    for (method, uri, headers, location) in [
        ("GET", "/", &[HOST][..], "https://example.com/"),
        ("HEAD", "/a?b=c", &[HOST], "https://example.com/a?b=c"),
        (
            "GET",
            "//evil.example/",
            &[HOST],
            "https://example.com//evil.example/",
        ),
        (
            "GET",
            "/a",
            &[("host", "www.example.com")],
            "https://example.com/a",
        ),
        (
            "GET",
            "/a",
            &[("host", "EXAMPLE.com")],
            "https://example.com/a",
        ),
        ("GET", "http://example.com/a", &[], "https://example.com/a"),
        // Put behind the origin as it stands, it would name another host.
        ("GET", "*", &[HOST], "https://example.com/"),
        (
            "GET",
            "/%0d%0aset-cookie:x",
            &[HOST],
            "https://example.com/%0d%0aset-cookie:x",
        ),
        // A URI is ASCII, though a target may not be.
        (
            "GET",
            "/käse?ö",
            &[HOST],
            "https://example.com/k%C3%A4se?%C3%B6",
        ),
        (
            "GET",
            "/a",
            &[
                HOST,
                ("x-forwarded-host", "evil.example"),
                ("x-forwarded-proto", "http"),
            ],
            "https://example.com/a",
        ),
    ] {
        assert_eq!(
            outcome(policy(), request(false, method, uri, headers)).await,
            Err((308, location.to_owned())),
            "{method} {uri} {headers:?}"
        );
        assert_eq!(
            outcome(policy(), request(true, method, uri, headers)).await,
            Ok(())
        );
    }
}

#[tokio::test]
async fn what_would_be_sent_twice_is_refused_and_not_redirected() {
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CUSTOM"] {
        assert_eq!(
            outcome(policy(), request(false, method, "/", &[HOST])).await,
            Err((403, "https_required".to_owned()))
        );
        assert_eq!(
            outcome(policy(), request(true, method, "/", &[HOST])).await,
            Ok(())
        );
    }
}

#[tokio::test]
async fn a_proxy_that_is_not_trusted_makes_no_loop() {
    for header in [
        ("x-forwarded-proto", "https"),
        ("x-forwarded-proto", "http, HTTPS"),
        ("forwarded", "for=1.2.3.4;Proto=https"),
        ("forwarded", "proto=\"https\""),
    ] {
        assert_eq!(
            outcome(policy(), request(false, "GET", "/", &[HOST, header])).await,
            Err((403, "untrusted_proxy".to_owned())),
            "{header:?}"
        );
    }
}

#[tokio::test]
async fn hosts_that_are_not_ours() {
    for (uri, headers, status, reason) in [
        ("/", &[("host", "evil.example")][..], 421, "unknown_host"),
        (
            "/",
            &[("host", "example.com.evil.example")],
            421,
            "unknown_host",
        ),
        ("/", &[("host", "example.com:8443")], 421, "unknown_host"),
        (
            "/",
            &[("host", "example.com@evil.example")],
            421,
            "unknown_host",
        ),
        ("/", &[("host", "a.www.example.com")], 421, "unknown_host"),
        ("/", &[("host", "192.0.2.1")], 421, "unknown_host"),
        ("/", &[("host", "")], 421, "unknown_host"),
        ("/", &[], 400, "no_host"),
        ("/", &[HOST, ("host", "evil.example")], 400, "several_hosts"),
        ("/", &[HOST, HOST], 400, "several_hosts"),
        ("http://evil.example/", &[], 421, "unknown_host"),
        ("http://evil.example/", &[HOST], 400, "several_hosts"),
        (
            "http://example.com/",
            &[("host", "evil.example")],
            400,
            "several_hosts",
        ),
    ] {
        for secure in [true, false] {
            assert_eq!(
                outcome(policy(), request(secure, "GET", uri, headers)).await,
                Err((status, reason.to_owned())),
                "{uri} {headers:?}"
            );
        }
    }
    let explicit = &[("host", "example.com:443")];
    assert_eq!(
        outcome(policy(), request(true, "GET", "/", explicit)).await,
        Ok(())
    );
}

#[tokio::test]
async fn exemptions() {
    let by_address = &[("host", "10.0.0.7:3000")];
    assert_eq!(
        outcome(policy(), request(false, "GET", "/healthz", by_address)).await,
        Ok(())
    );
    let acme = "/.well-known/acme-challenge/x";
    assert_eq!(
        outcome(policy(), request(false, "GET", acme, &[HOST])).await,
        Ok(())
    );
    let elsewhere = outcome(policy(), request(false, "GET", acme, by_address)).await;
    assert_eq!(elsewhere, Err((421, "unknown_host".to_owned())));

    let any = policy().any_host().without_redirect();
    assert_eq!(
        outcome(any, request(false, "POST", "/", by_address)).await,
        Ok(())
    );
}

#[tokio::test]
async fn only_if_leaves_other_requests_alone() {
    let service =
        service_fn(async |_: Request<Body>| Ok::<_, Infallible>(Response::new(Body::from("ran"))));
    let layer = HttpsLayer::new(policy()).only_if(|head| head.uri.path() != "/other");
    for (uri, status) in [("/other", 200), ("/", 421)] {
        let request = request(false, "GET", uri, &[("host", "evil.example")]);
        let response = layer.layer(service).oneshot(request).await.unwrap();
        assert_eq!(response.status(), status, "{uri}");
    }
}

#[tokio::test]
async fn in_development_only_the_host_is_checked() {
    let policy = HttpsPolicy::new(Origin::new("http://localhost:3000").unwrap());
    let own = &[("host", "localhost:3000")];
    assert_eq!(
        outcome(policy.clone(), request(false, "POST", "/", own)).await,
        Ok(())
    );
    assert_eq!(
        outcome(policy, request(false, "GET", "/", &[HOST])).await,
        Err((421, "unknown_host".to_owned()))
    );
}

#[test]
fn a_host_that_no_browser_sends_is_refused() {
    for host in [
        "",
        "Example.com",
        "example.com:443",
        "*.example.com",
        "a/b",
        "null ",
    ] {
        let policy = HttpsPolicy::new(Origin::new("https://example.com").unwrap());
        assert!(policy.host(host).is_err(), "{host}");
    }
}
