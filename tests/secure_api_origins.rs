//! What the example server makes of other origins, of hosts and of plain HTTP, over real sockets.
#![cfg(all(
    feature = "axum",
    feature = "cors",
    feature = "csrf",
    feature = "headers",
    feature = "jwt",
    feature = "login-throttle",
    feature = "password",
    feature = "rate-limit",
    feature = "sqlite",
    feature = "upload"
))]

mod support;

use std::time::{Duration, Instant};

use reqwest::{
    Client, Method, RequestBuilder, Response,
    header::{
        ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS,
        ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, CONTENT_TYPE, LOCATION,
        STRICT_TRANSPORT_SECURITY, VARY,
    },
    redirect,
};
use serde_json::{Value, json};
use support::server::Server;

const FRIEND: &str = "https://app.example.net";
const EVIL: &str = "https://evil.example";

struct Api<'a> {
    server: &'a Server,
    client: Client,
}

impl<'a> Api<'a> {
    fn new(server: &'a Server) -> Self {
        let client = Client::builder().redirect(redirect::Policy::none());
        Self {
            server,
            client: client.build().unwrap(),
        }
    }

    fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> RequestBuilder {
        let mut request = self.client.request(method, self.server.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request
    }

    async fn post(&self, path: &str, headers: &[(&str, &str)], body: Value) -> Response {
        let request = self.ask(Method::POST, path, headers);
        let request = request.header(CONTENT_TYPE, "application/json");
        request.body(body.to_string()).send().await.unwrap()
    }

    async fn login(&self, headers: &[(&str, &str)]) -> Response {
        let nobody = json!({"username": "nobody", "password": "wrong password"});
        self.post("/auth/login", headers, nobody).await
    }
}

async fn problem(answer: Response) -> (u16, String) {
    assert_eq!(answer.headers()[CONTENT_TYPE], "application/problem+json");
    assert_eq!(answer.headers()["cache-control"], "no-store");
    let status = answer.status().as_u16();
    let problem: Value = answer.json().await.unwrap();
    (
        status,
        problem["detail"].as_str().unwrap_or_default().to_owned(),
    )
}

#[tokio::test]
async fn cross_site_requests_are_refused_and_charged_to_no_limit() {
    let server = Server::start(&[("AUTH_RATE_LIMIT_MAX", "3")]);
    let api = Api::new(&server);
    for _ in 0..5 {
        for headers in [
            &[("sec-fetch-site", "cross-site")][..],
            &[("sec-fetch-site", "same-site")],
            &[("origin", EVIL)],
            &[("origin", "null")],
            &[("sec-fetch-site", "cross-site"), ("origin", EVIL)],
        ] {
            let (status, detail) = problem(api.login(headers).await).await;
            assert_eq!(
                (status, &*detail),
                (403, "The request comes from another site.")
            );
        }
    }
    // As the page itself, the page of an older browser, and a program.
    let own = format!("http://{}", server.addr);
    for headers in [
        &[("sec-fetch-site", "same-origin"), ("origin", own.as_str())][..],
        &[("origin", own.as_str())],
        &[],
    ] {
        assert_eq!(api.login(headers).await.status(), 401, "{headers:?}");
    }
    assert_eq!(api.login(&[]).await.status(), 429);
}

#[tokio::test]
async fn a_cookie_that_comes_from_nowhere_is_refused() {
    let server = Server::start(&[]);
    let api = Api::new(&server);
    let token = || json!({"refresh_token": "unknown"});
    let cookie = ("cookie", "a=b; __Host-refresh=x");
    for path in ["/auth/refresh", "/auth/logout", "/auth/login"] {
        let (status, _) = problem(api.post(path, &[cookie], token()).await).await;
        assert_eq!(status, 403, "{path}");
    }
    // The page's own, and a program without cookies.
    let own = [cookie, ("sec-fetch-site", "same-origin")];
    assert_ne!(api.post("/auth/refresh", &own, token()).await.status(), 403);
    assert_eq!(api.post("/auth/refresh", &[], token()).await.status(), 401);
}

#[tokio::test]
async fn an_allowed_origin_calls_and_reads_whatever_the_answer() {
    let allowed = format!("{FRIEND},http://localhost:8080");
    let server = Server::start(&[
        ("CORS_ALLOWED_ORIGINS", allowed.as_str()),
        ("AUTH_RATE_LIMIT_MAX", "2"),
    ]);
    let api = Api::new(&server);
    let cross = ("sec-fetch-site", "cross-site");
    let friend = [cross, ("origin", FRIEND)];
    let preflight = |origin: &'static str| {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            (
                "access-control-request-headers",
                "authorization,content-type",
            ),
        ];
        api.ask(Method::OPTIONS, "/auth/login", &headers).send()
    };
    for _ in 0..10 {
        let answer = preflight(FRIEND).await.unwrap();
        assert_eq!(answer.status(), 200);
        let headers = answer.headers();
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_ORIGIN], FRIEND);
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_CREDENTIALS], "true");
        let names = headers[ACCESS_CONTROL_ALLOW_HEADERS].to_str().unwrap();
        assert!(names.contains("authorization") && names.contains("content-type"));
    }
    for status in [401, 401, 429] {
        let answer = api.login(&friend).await;
        assert_eq!(answer.status(), status);
        let headers = answer.headers();
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_ORIGIN], FRIEND);
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_CREDENTIALS], "true");
        let exposed = headers[ACCESS_CONTROL_EXPOSE_HEADERS].to_str().unwrap();
        assert!(exposed.contains("ratelimit") && exposed.contains("retry-after"));
        assert!(headers[VARY].to_str().unwrap().contains("origin"));
    }
    let unknown = api
        .ask(Method::GET, "/nowhere", &friend)
        .send()
        .await
        .unwrap();
    assert_eq!(unknown.status(), 404);
    assert_eq!(unknown.headers()[ACCESS_CONTROL_ALLOW_ORIGIN], FRIEND);

    let answer = preflight(EVIL).await.unwrap();
    assert!(!answer.headers().contains_key(ACCESS_CONTROL_ALLOW_ORIGIN));
    let refused = api.login(&[cross, ("origin", EVIL)]).await;
    assert!(!refused.headers().contains_key(ACCESS_CONTROL_ALLOW_ORIGIN));
    assert!(refused.headers()[VARY].to_str().unwrap().contains("origin"));
    assert_eq!(problem(refused).await.0, 403);
}

#[tokio::test]
async fn without_allowed_origins_there_is_no_cors() {
    let server = Server::start(&[]);
    let api = Api::new(&server);
    let headers = [
        ("origin", FRIEND),
        ("access-control-request-method", "POST"),
    ];
    let answer = api.ask(Method::OPTIONS, "/auth/login", &headers).send();
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), 405);
    assert!(!answer.headers().contains_key(ACCESS_CONTROL_ALLOW_ORIGIN));
}

const PRODUCTION: [(&str, &str); 7] = [
    ("APP_ENV", "production"),
    ("PUBLIC_ORIGIN", "https://example.com"),
    ("API_KEYS_ENV", "test"),
    ("BCRYPT_COST", "10"),
    (
        "JWT_SECRET",
        "hex:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    ),
    (
        "JWT_REFRESH_SECRET",
        "hex:60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752",
    ),
    ("DATABASE_URL", "sqlite::memory:"),
];

fn production(proxies: &'static str) -> Server {
    let vars = [&PRODUCTION[..], &[("TRUSTED_PROXIES", proxies)]].concat();
    Server::start(&vars)
}

#[tokio::test]
async fn production_is_one_host_over_https() {
    let server = production("127.0.0.0/8");
    let api = Api::new(&server);
    let get =
        |path: &'static str, headers: &[(&str, &str)]| api.ask(Method::GET, path, headers).send();
    let (host, tls) = (("host", "example.com"), ("x-forwarded-proto", "https"));

    let page = get("/", &[host, tls]).await.unwrap();
    assert_eq!(page.status(), 200);
    assert!(page.headers().contains_key(STRICT_TRANSPORT_SECURITY));

    let plain = get("/api/me?a=1", &[host]).await.unwrap();
    assert_eq!(plain.status(), 308);
    assert_eq!(plain.headers()[LOCATION], "https://example.com/api/me?a=1");
    assert!(!plain.headers().contains_key(STRICT_TRANSPORT_SECURITY));
    assert!(plain.headers().contains_key("x-content-type-options"));
    assert_eq!(problem(api.login(&[host]).await).await.0, 403);

    for foreign in ["evil.example", "127.0.0.1", "example.com.evil.example"] {
        let answer = get("/", &[("host", foreign), tls]).await.unwrap();
        assert_eq!(problem(answer).await.0, 421, "{foreign}");
    }
    // A load balancer asks the address itself, in the clear.
    assert_eq!(get("/healthz", &[]).await.unwrap().status(), 200);
    // The page's origin is the public one.
    let own = [host, tls, ("origin", "https://example.com")];
    assert_eq!(api.login(&own).await.status(), 401);
    let served = [host, tls, ("origin", "http://example.com")];
    assert_eq!(api.login(&served).await.status(), 403);
}

#[tokio::test]
async fn a_proxy_that_is_not_trusted_makes_no_redirect_loop() {
    let server = production("none");
    let api = Api::new(&server);
    let headers = [("host", "example.com"), ("x-forwarded-proto", "https")];
    let answer = api.ask(Method::GET, "/", &headers).send().await.unwrap();
    assert_eq!(problem(answer).await.0, 403);
}

#[tokio::test]
async fn a_report_of_a_violation_is_an_event() {
    let server = Server::start(&[]);
    let api = Api::new(&server);
    let page = api.ask(Method::GET, "/", &[]).send().await.unwrap();
    let endpoints = page.headers()["reporting-endpoints"].to_str().unwrap();
    assert_eq!(endpoints, "csp=\"/csp-reports\"");
    let policy = page.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.contains(";report-uri /csp-reports"));

    let report = json!([{"type": "csp-violation", "body": {
        "effectiveDirective": "script-src-elem", "blockedURL": "inline",
    }}]);
    let request = api.ask(Method::POST, "/csp-reports", &[]);
    let request = request.header(CONTENT_TYPE, "application/reports+json");
    let answer = request.body(report.to_string()).send().await.unwrap();
    assert_eq!(answer.status(), 204);
    let start = Instant::now();
    let told = || {
        let log = server.log.lock().unwrap();
        let mut lines = log.lines();
        lines.any(|line| line.contains("csp_violation") && line.contains("script-src-elem"))
    };
    while !told() {
        assert!(start.elapsed() < Duration::from_secs(10));
        tokio::task::yield_now().await;
    }
    let other = api.post("/csp-reports", &[], json!({})).await;
    assert_eq!(other.status(), 415);
}
