//! What the example tells of itself, over real sockets.
#![cfg(all(
    feature = "api-key",
    feature = "audit",
    feature = "axum",
    feature = "cors",
    feature = "csrf",
    feature = "headers",
    feature = "jwt",
    feature = "login-throttle",
    feature = "metrics",
    feature = "password",
    feature = "rate-limit",
    feature = "sqlite",
    feature = "upload"
))]

mod support;

use std::{collections::BTreeSet, path::Path, process::Command};

use reqwest::{
    Client, Method, Response, StatusCode,
    header::{CONTENT_TYPE, HOST},
};
use serde_json::{Value, json};
use support::server::{Server, example, refused};

#[tokio::test]
async fn what_happens_is_counted() {
    let server = Server::start(&[("AUTH_RATE_LIMIT_MAX", "6"), ("REFRESH_GRACE_SECS", "0")]);
    let api = Api::new(&server);
    let before = api.metrics().await;
    assert!(before.contains("portcullis_events_total{event=\"authn_token_reuse\"} 0\n"));

    let right = json!({"username": "alice", "password": "correct horse battery"});
    let wrong = json!({"username": "alice", "password": "battery horse correct"});
    assert_eq!(api.post("/auth/register", &right).await.status(), 201);
    let pair = api.post("/auth/login", &right).await;
    let pair: Value = pair.json().await.unwrap();
    let used = json!({"refresh_token": pair["refresh_token"]});
    assert_eq!(api.post("/auth/refresh", &used).await.status(), 200);
    assert_eq!(api.post("/auth/refresh", &used).await.status(), 401);
    for status in [401, 401, 401, 401, 429] {
        assert_eq!(api.post("/auth/login", &wrong).await.status(), status);
    }
    let bad = api.client.get(server.url("/api/me")).bearer_auth("a.b.c");
    assert_eq!(bad.send().await.unwrap().status(), 401);
    assert_eq!(
        api.client
            .get(server.url("/nowhere"))
            .send()
            .await
            .unwrap()
            .status(),
        404
    );

    let text = api.metrics().await;
    for line in [
        "portcullis_logins_total{outcome=\"success\"} 1",
        "portcullis_logins_total{outcome=\"failure\"} 4",
        "portcullis_logins_total{outcome=\"limited\"} 1",
        "portcullis_logins_total{outcome=\"error\"} 0",
        "portcullis_refreshes_total{outcome=\"success\"} 1",
        "portcullis_refreshes_total{outcome=\"reused\"} 1",
        "portcullis_events_total{event=\"authn_token_reuse\"} 1",
        "portcullis_events_total{event=\"user_created\"} 1",
        "portcullis_events_total{event=\"authn_login_fail\"} 4",
        "portcullis_rejections_total{gate=\"router\",reason=\"no_route\"} 1",
        "portcullis_rejections_total{gate=\"accounts\",reason=\"wrong_credentials\"} 4",
        "portcullis_password_hash_seconds_count 6",
        "portcullis_store_seconds_count{store=\"sessions\",op=\"rotate\"} 2",
    ] {
        assert!(text.contains(&format!("{line}\n")), "{line}\n{text}");
    }
    for secret in ["alice", "127.0.0.1", "correct horse"] {
        assert!(!text.contains(secret), "{secret}\n{text}");
    }
}

#[tokio::test]
async fn in_production_strangers_do_not_find_it() {
    let mut vars = PRODUCTION.to_vec();
    vars.push(("METRICS_TOKEN", TOKEN));
    let server = Server::start(&vars);
    let api = Api::new(&server);
    let ask = |token: Option<&str>, from: Option<&str>| {
        let mut request = api.client.get(server.url("/metrics"));
        if let Some(from) = from {
            request = request
                .header("x-forwarded-for", from)
                .header("x-forwarded-proto", "https")
                .header(HOST, "example.com");
        }
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        async { request.send().await.unwrap() }
    };
    let here = ask(None, None).await;
    assert_eq!(here.status(), StatusCode::OK);
    assert_eq!(
        here.headers()[CONTENT_TYPE],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    let changed = format!("{}x", &TOKEN[..TOKEN.len() - 1]);
    for from in ["203.0.113.9", "127.0.0.1", "::1", "203.0.113.9, 127.0.0.1"] {
        for token in [None, Some(""), Some("x"), Some(changed.as_str())] {
            let hidden = ask(token, Some(from)).await;
            assert_eq!(hidden.status(), StatusCode::NOT_FOUND, "{from} {token:?}");
            assert!(hidden.text().await.unwrap().contains("Not Found"));
        }
        assert_eq!(ask(Some(TOKEN), Some(from)).await.status(), StatusCode::OK);
    }
    // What a proxy on this machine forwards is not asked from here, whatever it says.
    for (name, from) in [
        ("x-forwarded-for", "127.0.0.1"),
        ("forwarded", "for=127.0.0.1"),
        ("x-real-ip", "127.0.0.1"),
    ] {
        let request = api.client.get(server.url("/metrics")).header(name, from);
        let hidden = request.send().await.unwrap();
        assert_eq!(hidden.status(), StatusCode::NOT_FOUND, "{name}");
    }
    drop(server);

    // Without a token there is none to guess.
    let server = Server::start(&PRODUCTION);
    let api = Api::new(&server);
    for token in ["", "None", TOKEN] {
        let request = api.client.get(server.url("/metrics")).bearer_auth(token);
        let request = request
            .header("x-forwarded-for", "203.0.113.9")
            .header("x-forwarded-proto", "https")
            .header(HOST, "example.com");
        let hidden = request.send().await.unwrap();
        assert_eq!(hidden.status(), StatusCode::NOT_FOUND);
    }
}

/// Series are made by what the program knows, and lines of the log by time.
#[tokio::test]
async fn a_thousand_users_and_addresses_grow_no_labels_and_a_flood_no_log() {
    let server = Server::start(&[
        ("TRUSTED_PROXIES", "127.0.0.1/32"),
        ("DATABASE_URL", "memory:"),
    ]);
    let api = Api::new(&server);
    let visit = async |number: u32| {
        let from = format!("198.18.{}.{}", number / 250, number % 250);
        let ask = |method, path: String| {
            let request = api.client.request(method, server.url(&path));
            request.header("x-forwarded-for", &from)
        };
        let user = json!({"username": format!("user-{number}"), "password": "battery horse"});
        let key = format!("pk_dev_{number:010}");
        for (request, status) in [
            (ask(Method::POST, "/auth/login".into()).json(&user), 401),
            (ask(Method::GET, "/api/me".into()).bearer_auth(number), 401),
            (
                ask(Method::GET, "/api/ping".into()).header("x-api-key", key),
                401,
            ),
            (ask(Method::GET, format!("/nowhere-{number}")), 404),
            (
                ask(Method::POST, "/auth/logout".into()).header("sec-fetch-site", "cross-site"),
                403,
            ),
        ] {
            assert_eq!(request.send().await.unwrap().status(), status);
        }
    };
    let series = async || -> BTreeSet<String> {
        let text = api.metrics().await;
        // What the background asks of the stores begins when it does.
        let of_requests = |line: &&str| !line.starts_with('#') && !line.contains("store_seconds");
        let lines = text.lines().filter(of_requests);
        let names = lines.filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned()));
        names.collect()
    };
    visit(0).await;
    let of_one = series().await;
    for number in 1..=1_000 {
        visit(number).await;
    }
    assert_eq!(series().await, of_one);

    let begun = std::time::Instant::now();
    for _ in 0..500 {
        let request = api.client.get(server.url("/api/me")).bearer_auth("flood");
        let status = request.send().await.unwrap().status();
        assert!(matches!(status.as_u16(), 401 | 429), "{status}");
    }
    // Two lines of each rule in 10 s: the first, and one for all that came with it.
    let folds = 2 + begun.elapsed().as_secs() / 10;
    let log = server.logged("malicious_csrf");
    let lines = log.lines().filter(|line| line.contains("client=127.0.0.1"));
    let lines = lines.count() as u64;
    assert!(
        (1..=2 * 2 * folds).contains(&lines),
        "{lines} in {folds} folds"
    );
}

#[tokio::test]
async fn nobody_reading_the_log_holds_up_no_request() {
    let server = Server::start_unread(&[("RUST_LOG", "trace"), ("DATABASE_URL", "memory:")]);
    let api = Api::new(&server);
    // Far more than a pipe holds.
    for _ in 0..300 {
        let url = server.url("/healthz");
        assert_eq!(api.client.get(url).send().await.unwrap().status(), 200);
    }
}

#[test]
fn a_limit_looser_than_the_policy_keeps_production_from_starting() {
    for (variables, lines) in [
        (
            &[("RATE_LIMIT_MAX_REQUESTS", "101")][..],
            &["RATE_LIMIT_MAX_REQUESTS: checklist line limit_general fails"][..],
        ),
        (
            &[("RATE_LIMIT_WINDOW_MS", "60000")],
            &[
                "RATE_LIMIT_MAX_REQUESTS: checklist line limit_general fails",
                "AUTH_RATE_LIMIT_MAX: checklist line limit_auth fails",
            ],
        ),
        (
            &[
                ("MODEL_RATE_LIMIT_MAX", "21"),
                ("UPLOAD_RATE_LIMIT_MAX", "11"),
                ("JWT_ACCESS_TTL_SECS", "3600"),
                ("CLAMD_ADDR", "127.0.0.1:1"),
            ],
            &[
                "MODEL_RATE_LIMIT_MAX: checklist line limit_model fails",
                "UPLOAD_RATE_LIMIT_MAX: checklist line limit_upload fails",
                "CLAMD_ADDR: checklist line scanner fails",
                "JWT_ACCESS_TTL_SECS: checklist line access_tokens fails",
            ],
        ),
    ] {
        let (code, told) = refused(&[&PRODUCTION[..], variables].concat());
        assert_eq!(code, Some(2), "{told}");
        let failing: Vec<&str> = told
            .lines()
            .filter(|line| line.contains(" checklist line "))
            .collect();
        assert_eq!(failing.len(), lines.len(), "{told}");
        for (told, line) in failing.iter().zip(lines) {
            assert!(told.starts_with(line), "{told}");
        }
    }
}

#[tokio::test]
async fn the_checklist_is_a_program_for_ci() {
    let run = |variables: &[(&str, &str)], arguments: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        let run = Command::new(example("checklist"))
            .args(arguments)
            .current_dir(folder.path())
            .env_clear()
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        (run.status.code(), String::from_utf8(run.stdout).unwrap())
    };
    let (code, table) = run(&PRODUCTION, &[]);
    assert_eq!(code, Some(0), "{table}");
    assert!(table.contains("\nobserved    limit_auth "), "{table}");
    // Its strangers come from elsewhere: `/metrics` is not there for them, and over plain HTTP it
    // leads to HTTPS as the rest does.
    for line in ["hidden", "https"] {
        assert!(table.contains(&format!("\nobserved    {line} ")), "{table}");
    }
    assert!(table.ends_with(" 0 fail\n"), "{table}");
    let (code, json) = run(&PRODUCTION, &["--json"]);
    assert_eq!(code, Some(0));
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["holds"], true);

    // The upload route was asked, not the scanner, which finds the test file in its attachment.
    #[cfg(feature = "clamd")]
    if let Some(daemon) = support::clamd::Daemon::start().await {
        let socket = daemon.socket().display().to_string();
        let observed = |types: &str| {
            let scanned = [("CLAMD_ADDR", &*socket), ("UPLOAD_ALLOWED_TYPES", types)];
            let (code, table) = run(&[&PRODUCTION[..], &scanned].concat(), &[]);
            assert_eq!(code, Some(0), "{table}");
            table.contains("\nobserved    scanner ")
        };
        assert!(observed("image/png,application/pdf"));
        assert!(!observed("image/png"));
    }

    let (code, json) = run(&[], &["--json"]);
    assert_eq!(code, Some(1));
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["holds"], false);
    let lines = json["lines"].as_array().unwrap().iter();
    let failing: Vec<&str> = lines
        .filter(|line| line["verdict"] == "fails")
        .map(|line| line["id"].as_str().unwrap())
        .collect();
    assert_eq!(
        failing,
        ["https", "hidden", "secrets", "environment", "api_keys"]
    );
    assert_eq!(run(&[("BCRYPT_COST", "40")], &[]).0, Some(2));
    assert_eq!(run(&[], &["--what"]).0, Some(2));
}

#[tokio::test]
async fn the_alert_rules_are_about_metrics_that_there_are() {
    let server = Server::start(&PRODUCTION);
    let text = Api::new(&server).metrics().await;
    assert!(
        text.contains("portcullis_checklist_failing{line=\"https\"} 0\n"),
        "{text}"
    );
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/secure_api");
    let rules = std::fs::read_to_string(folder.join("alerts.yml")).unwrap();
    let names: BTreeSet<&str> = rules
        .lines()
        .filter(|line| line.trim_start().starts_with("expr:"))
        .flat_map(|line| line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')))
        .filter(|word| word.starts_with("portcullis_"))
        .collect();
    assert!(names.len() >= 3, "{names:?}");
    for name in names {
        assert!(text.contains(&format!("\n{name}")), "{name}\n{text}");
    }
    for event in rules.split("event=\"").skip(1) {
        let event = event.split('"').next().unwrap();
        assert!(text.contains(&format!("event=\"{event}\"}} 0")), "{event}");
    }
    let Some(promtool) = std::env::var_os("PORTCULLIS_TEST_PROMTOOL") else {
        eprintln!("skipped: PORTCULLIS_TEST_PROMTOOL names no promtool");
        return;
    };
    for arguments in [
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts_test.yml"],
    ] {
        let run = Command::new(&promtool)
            .args(arguments)
            .current_dir(&folder)
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&run.stdout);
        assert!(
            run.status.success(),
            "{told}{}",
            String::from_utf8_lossy(&run.stderr)
        );
    }
}

struct Api<'a> {
    server: &'a Server,
    client: Client,
}

impl<'a> Api<'a> {
    fn new(server: &'a Server) -> Self {
        let client = Client::builder().no_proxy().build().unwrap();
        Self { server, client }
    }

    async fn post(&self, path: &str, body: &Value) -> Response {
        let request = self.client.post(self.server.url(path)).json(body);
        request.send().await.unwrap()
    }

    async fn metrics(&self) -> String {
        let answer = self.client.get(self.server.url("/metrics")).send().await;
        let answer = answer.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        answer.text().await.unwrap()
    }
}

const PRODUCTION: [(&str, &str); 8] = [
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
    ("TRUSTED_PROXIES", "127.0.0.1/32"),
];
const TOKEN: &str = "kV4nT9xQ2mZ7rB1cW8yL5dH3sJ6fG0pA";
