//! The example's API keys, over real sockets as its contract says.
#![cfg(all(
    feature = "api-key",
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

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use portcullis::{
    jwt::{AccessToken, Algorithm, Issuer, SigningKey},
    secret::Secret,
    time::{Clock as _, SystemClock},
};
use reqwest::{
    Client, Method, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE},
};
use serde_json::{Value, json};
use support::server::{Server, refused};

#[tokio::test]
async fn a_key_is_shown_once_works_and_ends_at_once() {
    let server = Server::start(&[]);
    let api = Api::enter(&server, "alice").await;

    let made = api.make("build server").await;
    let (id, key) = (text(&made, "id"), text(&made, "key"));
    assert!(key.starts_with(&format!("pk_dev_{id}_")), "{key}");
    assert_eq!(made["name"], "build server");
    let (created, expires) = (number(&made, "created_at"), number(&made, "expires_at"));
    assert!(created.abs_diff(now()) < 60);
    assert_eq!(expires - created, 90 * DAY);

    let unused = api.list().await;
    assert_eq!(
        names(&unused[0]),
        BTreeSet::from(["id", "name", "created_at", "expires_at", "last_used_at"])
    );
    assert_eq!(unused[0]["last_used_at"], Value::Null);

    for header in ["authorization", "x-api-key"] {
        let pong = api.ping(header, key).await;
        assert_eq!(pong.status(), StatusCode::OK);
        assert_eq!(pong.headers()[CACHE_CONTROL], "no-store");
        let pong: Value = pong.json().await.unwrap();
        assert_eq!(pong, json!({"pong": true}));
    }
    let used = api.list().await;
    assert!(used[0]["last_used_at"].as_u64().unwrap() >= created);
    assert!(!json!(used).to_string().contains(key));

    // Nobody but its owner sees it or ends it.
    let eve = Api::enter(&server, "eve").await;
    assert!(eve.list().await.is_empty());
    let path = format!("/api/keys/{id}");
    problem(eve.call(Method::DELETE, &path, None).await, 404).await;
    let rotate = format!("{path}/rotate");
    problem(eve.call(Method::POST, &rotate, None).await, 404).await;
    problem(
        api.call(Method::DELETE, "/api/keys/what-is-this", None)
            .await,
        404,
    )
    .await;

    let ended = api.call(Method::DELETE, &path, None).await;
    assert_eq!(ended.status(), StatusCode::NO_CONTENT);
    problem(api.ping("x-api-key", key).await, 401).await;
    assert!(api.list().await.is_empty());
    problem(api.call(Method::DELETE, &path, None).await, 404).await;
    assert!(!server.log.lock().unwrap().contains(key));
}

/// What ended long ago is cleared away at the next start, what ended lately stays.
#[tokio::test]
async fn keys_and_sessions_that_are_over_are_cleared_away() {
    let server = Server::start(&[]);
    let api = Api::enter(&server, "alice").await;
    for name in ["live", "lately over", "long over"] {
        api.make(name).await;
    }
    let dir = Arc::clone(&server.dir);
    assert!(server.stop().success());
    let url = format!("sqlite://{}", dir.path().join("secure_api.db").display());
    let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
    for (name, days) in [("lately over", 29), ("long over", 31)] {
        let over = (now() - days * DAY) as i64 * 1_000;
        sqlx::query("UPDATE portcullis_api_keys SET expires_at = ? WHERE name = ?")
            .bind(over)
            .bind(name)
            .execute(&pool)
            .await
            .unwrap();
    }
    pool.close().await;

    let server = Server::start_in(dir, &[]);
    let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
    let names = async || -> Vec<String> {
        let rows = sqlx::query_scalar("SELECT name FROM portcullis_api_keys ORDER BY name");
        rows.fetch_all(&pool).await.unwrap()
    };
    let begun = std::time::Instant::now();
    while names().await.len() > 2 && begun.elapsed() < Duration::from_secs(10) {
        tokio::task::yield_now().await;
    }
    assert_eq!(names().await, ["lately over", "live"]);
    drop(server);
}

#[tokio::test]
async fn a_rotated_key_works_beside_its_successor_for_a_while() {
    let server = Server::start(&[]);
    let api = Api::enter(&server, "alice").await;
    let first = api.make("job").await;
    let rotate = |made: &Value| format!("/api/keys/{}/rotate", text(made, "id"));

    let answer = api.call(Method::POST, &rotate(&first), None).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let second: Value = answer.json().await.unwrap();
    assert_eq!(
        names(&second),
        BTreeSet::from(["id", "name", "key", "created_at", "expires_at", "replaces"])
    );
    assert_eq!(second["replaces"], first["id"]);
    assert_eq!(second["name"], "job");
    let listed = api.list().await;
    let end = |made: &Value| {
        let found = listed.iter().find(|key| key["id"] == made["id"]);
        number(found.unwrap(), "expires_at")
    };
    assert!(end(&first).abs_diff(now() + DAY) < 60);
    assert!(end(&second).abs_diff(now() + 90 * DAY) < 60);
    for made in [&first, &second] {
        let pong = api.ping("authorization", text(made, "key")).await;
        assert_eq!(pong.status(), StatusCode::OK);
    }
    // A key is rotated once.
    problem(api.call(Method::POST, &rotate(&first), None).await, 404).await;

    let none = json!({"overlap_secs": 0});
    let third = api.call(Method::POST, &rotate(&second), Some(none)).await;
    let third: Value = third.json().await.unwrap();
    problem(api.ping("authorization", text(&second, "key")).await, 401).await;

    for (body, status) in [
        (json!({"overlap_secs": 604_801}), 422),
        (json!({"overlap_secs": -1}), 422),
        (json!({"overlap_secs": "soon"}), 422),
        (json!([]), 422),
    ] {
        problem(
            api.call(Method::POST, &rotate(&third), Some(body)).await,
            status,
        )
        .await;
    }
    let week = json!({"overlap_secs": 604_800});
    let fourth = api.call(Method::POST, &rotate(&third), Some(week)).await;
    assert_eq!(fourth.status(), StatusCode::OK);
}

#[tokio::test]
async fn making_and_rotating_take_a_fresh_login() {
    let server = Server::start(&[("JWT_SECRET", SECRET)]);
    let api = Api::enter(&server, "alice").await;
    let made = api.make("job").await;
    let me = api.call(Method::GET, "/api/me", None).await;
    let me: Value = me.json().await.unwrap();

    let tired = |minutes: u64| {
        let secret = Secret::from_text(SECRET).unwrap();
        let key = SigningKey::secret(Algorithm::HS256, &secret).unwrap();
        let issuer = Issuer::new(key, "secure_api", "secure_api").unwrap();
        let now = SystemClock::new().wall();
        let token = AccessToken::new(text(&me, "id"))
            .with_session(text(&me, "session_id"))
            .with_scopes(["api"])
            .with_auth_time(now.saturating_sub(Duration::from_secs(60 * minutes)))
            .with_claim("preferred_username", "alice")
            .unwrap();
        let token = issuer.issue(&token, now).unwrap().into_string();
        api.with_token(token)
    };
    let rotate = format!("/api/keys/{}/rotate", text(&made, "id"));
    let stale = tired(16);
    problem(
        stale
            .call(Method::POST, "/api/keys", Some(json!({"name": "late"})))
            .await,
        403,
    )
    .await;
    problem(stale.call(Method::POST, &rotate, None).await, 403).await;
    // Looking and ending are always allowed.
    assert_eq!(stale.list().await.len(), 1);

    let fresh = tired(14);
    assert_eq!(fresh.make("in time").await["name"], "in time");
    let rotated = fresh.call(Method::POST, &rotate, None).await;
    assert_eq!(rotated.status(), StatusCode::OK);
    let path = format!("/api/keys/{}", text(&made, "id"));
    let ended = stale.call(Method::DELETE, &path, None).await;
    assert_eq!(ended.status(), StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_user_has_at_most_25_live_keys_even_if_he_asks_at_once() {
    let server = Server::start(&[]);
    let api = Api::enter(&server, "alice").await;
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..30 {
        let api = api.clone();
        asked.spawn(async move {
            let body = json!({"name": "one of many"});
            let answer = api.call(Method::POST, "/api/keys", Some(body)).await;
            answer.status().as_u16()
        });
    }
    let answers = asked.join_all().await;
    let count = |status| answers.iter().filter(|seen| **seen == status).count();
    assert_eq!((count(201), count(409)), (25, 5), "{answers:?}");
    let keys = api.list().await;
    assert_eq!(keys.len(), 25);
    let path = format!("/api/keys/{}", text(&keys[0], "id"));
    api.call(Method::DELETE, &path, None).await;
    api.make("in the free place").await;
}

#[tokio::test]
async fn what_is_no_live_key_of_this_place_is_refused_alike() {
    let server = Server::start(&[]);
    let api = Api::enter(&server, "alice").await;
    let made = api.make("job").await;
    let key = text(&made, "key");

    let missing = api.client.get(server.url("/api/ping")).send().await;
    let missing = missing.unwrap();
    assert_eq!(missing.headers()[WWW_AUTHENTICATE], "Bearer");
    problem(missing, 401).await;
    for query in ["api_key", "key", "access_token", "x-api-key"] {
        let url = format!("{}?{query}={key}", server.url("/api/ping"));
        let answer = api.client.get(url).send().await.unwrap();
        problem(answer, 401).await;
    }
    let long = format!("pk_dev_{}", "A".repeat(10 * 1024 - 7));
    let last = if key.ends_with('0') { "1" } else { "0" };
    let changed = format!("{}{last}", &key[..key.len() - 1]);
    let elsewhere = key.replacen("pk_dev_", "pk_live_", 1);
    let mut answers = BTreeSet::new();
    for (text, reason) in [
        (long, "malformed"),
        (changed, "checksum"),
        (elsewhere, "checksum"),
    ] {
        for header in ["authorization", "x-api-key"] {
            let answer = api.ping(header, &text).await;
            let challenge = answer.headers()[WWW_AUTHENTICATE].to_str().unwrap();
            assert_eq!(challenge, "Bearer error=\"invalid_token\"");
            assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{header}");
            answers.insert(answer.text().await.unwrap());
        }
        let log = server.logged(&format!("reason=\"{reason}\""));
        assert!(!log.contains(&text), "{log}");
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
    // A login's token is no key, and a key is no login's token.
    problem(api.ping("authorization", &api.token).await, 401).await;
    let with_key = api.with_token(key.to_owned());
    problem(with_key.call(Method::GET, "/api/keys", None).await, 401).await;
    // Two credentials at once could be read either way.
    let both = api.client.get(server.url("/api/ping"));
    let both = both.bearer_auth(&api.token).header("x-api-key", key);
    problem(both.send().await.unwrap(), 400).await;
}

#[tokio::test]
async fn keys_survive_a_restart_and_so_does_their_last_use() {
    let dir = {
        let server = Server::start(&[("JWT_SECRET", SECRET)]);
        let api = Api::enter(&server, "alice").await;
        let made = api.make("job").await;
        let key = text(&made, "key").to_owned();
        api.ping("x-api-key", &key).await;
        let (dir, token) = (Arc::clone(&server.dir), api.token.clone());
        assert_eq!(server.stop().code(), Some(0));
        (dir, key, token)
    };
    let (dir, key, token) = dir;
    let vars = [("JWT_SECRET", SECRET)];
    let server = Server::start_in(Arc::clone(&dir), &vars);
    let api = Api::new(&server, token.clone());
    let listed = api.list().await;
    assert!(listed[0]["last_used_at"].as_u64().unwrap().abs_diff(now()) < 60);
    let pong = api.ping("x-api-key", &key).await;
    assert_eq!(pong.status(), StatusCode::OK);
    drop(server);

    // Another environment on the same store takes none of its keys.
    let live = [("JWT_SECRET", SECRET), ("API_KEYS_ENV", "live")];
    let server = Server::start_in(dir, &live);
    let api = Api::new(&server, token);
    problem(api.ping("x-api-key", &key).await, 401).await;
    server.logged("reason=\"wrong_environment\"");
    assert!(text(&api.make("job").await, "key").starts_with("pk_live_"));
}

#[tokio::test]
async fn bodies_and_methods_have_their_shape() {
    let server = Server::start(&[("DATABASE_URL", "memory:")]);
    let api = Api::enter(&server, "alice").await;
    for (body, status) in [
        (json!({}), 422),
        (json!({"name": ""}), 422),
        (json!({"name": "a\u{7}b"}), 422),
        (json!({"name": "n".repeat(65)}), 422),
        (json!({"name": 7}), 422),
    ] {
        let answer = api.call(Method::POST, "/api/keys", Some(body)).await;
        problem(answer, status).await;
    }
    let untyped = api.client.post(server.url("/api/keys"));
    let untyped = untyped.bearer_auth(&api.token).body("{\"name\":\"x\"}");
    problem(untyped.send().await.unwrap(), 415).await;
    problem(api.call(Method::PUT, "/api/keys", None).await, 405).await;
    for (method, path) in [
        (Method::GET, "/api/keys"),
        (Method::POST, "/api/keys"),
        (Method::DELETE, "/api/keys/AAAAAAAAAA"),
        (Method::POST, "/api/keys/AAAAAAAAAA/rotate"),
    ] {
        let open = api.client.request(method, server.url(path)).send().await;
        problem(open.unwrap(), 401).await;
    }
    let cross = api.client.post(server.url("/api/keys"));
    let cross = cross
        .bearer_auth(&api.token)
        .header("sec-fetch-site", "cross-site")
        .json(&json!({"name": "stolen"}));
    problem(cross.send().await.unwrap(), 403).await;
    assert!(api.list().await.is_empty());
}

#[test]
fn the_environment_of_keys_is_stated_in_production() {
    for env in ["Live", "a-b", "", "dev", "12345678901234567"] {
        let vars = [
            ("APP_ENV", "production"),
            ("PUBLIC_ORIGIN", "https://example.com"),
            ("JWT_SECRET", SECRET),
            ("JWT_REFRESH_SECRET", OTHER_SECRET),
            ("TRUSTED_PROXIES", "none"),
            ("BCRYPT_COST", "10"),
            ("API_KEYS_ENV", env),
        ];
        let (code, told) = refused(&vars);
        assert_eq!(code, Some(2), "{env}");
        assert!(told.starts_with("API_KEYS_ENV: "), "{env}: {told}");
        assert_eq!(told.lines().count(), 1, "{told}");
    }
}

#[derive(Clone)]
struct Api {
    client: Client,
    base: String,
    token: String,
}

impl Api {
    fn new(server: &Server, token: String) -> Self {
        Self {
            client: Client::builder().no_proxy().build().unwrap(),
            base: server.url(""),
            token,
        }
    }

    /// Registers and logs in.
    async fn enter(server: &Server, username: &str) -> Self {
        let mut api = Self::new(server, String::new());
        let credentials = json!({"username": username, "password": "correct horse battery"});
        for path in ["/auth/register", "/auth/login"] {
            let url = server.url(path);
            let answer = api.client.post(url).json(&credentials).send().await;
            let answer: Value = answer.unwrap().json().await.unwrap();
            if let Some(token) = answer["access_token"].as_str() {
                token.clone_into(&mut api.token);
            }
        }
        assert!(!api.token.is_empty());
        api
    }

    fn with_token(&self, token: String) -> Self {
        Self {
            token,
            ..self.clone()
        }
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Response {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        if let Some(body) = body {
            request = request.json(&body);
        }
        request.bearer_auth(&self.token).send().await.unwrap()
    }

    async fn make(&self, name: &str) -> Value {
        let body = json!({"name": name});
        let answer = self.call(Method::POST, "/api/keys", Some(body)).await;
        assert_eq!(answer.status(), StatusCode::CREATED);
        assert_eq!(answer.headers()[CACHE_CONTROL], "no-store");
        let made: Value = answer.json().await.unwrap();
        let members = ["id", "name", "key", "created_at", "expires_at"];
        assert_eq!(names(&made), BTreeSet::from(members));
        made
    }

    async fn list(&self) -> Vec<Value> {
        let answer = self.call(Method::GET, "/api/keys", None).await;
        assert_eq!(answer.status(), StatusCode::OK);
        let listed: Value = answer.json().await.unwrap();
        assert_eq!(names(&listed), BTreeSet::from(["keys"]));
        listed["keys"].as_array().unwrap().clone()
    }

    async fn ping(&self, header: &str, key: &str) -> Response {
        let value = match header {
            "authorization" => format!("Bearer {key}"),
            _ => key.to_owned(),
        };
        let ping = self.client.get(format!("{}/api/ping", self.base));
        ping.header(header, value).send().await.unwrap()
    }
}

async fn problem(answer: Response, status: u16) {
    let seen = answer.status().as_u16();
    let kind = answer.headers().get(CONTENT_TYPE).cloned();
    let text = answer.text().await.unwrap();
    assert_eq!(seen, status, "{text}");
    assert_eq!(kind.unwrap(), "application/problem+json", "{text}");
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["status"], status);
}

fn names(object: &Value) -> BTreeSet<&str> {
    let members = object.as_object().unwrap();
    members.keys().map(String::as_str).collect()
}

fn text<'a>(object: &'a Value, name: &str) -> &'a str {
    object[name].as_str().unwrap()
}

fn number(object: &Value, name: &str) -> u64 {
    object[name].as_u64().unwrap()
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap().as_secs()
}

const DAY: u64 = 86_400;
const SECRET: &str = "hex:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
const OTHER_SECRET: &str = "hex:60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752";
