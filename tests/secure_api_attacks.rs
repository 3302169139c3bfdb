//! A day of attacks against the running example, and the events that it tells of them.
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

use std::collections::BTreeMap;

use reqwest::{
    Client, Method, RequestBuilder,
    multipart::{Form, Part},
};
use serde_json::{Value, json};
use support::server::Server;

#[tokio::test]
async fn a_day_of_attacks_is_told_in_events() {
    let server = Server::start(&[
        ("AUTH_RATE_LIMIT_MAX", "30"),
        ("AUTH_ACCOUNT_FAILURES_MAX", "3"),
        ("MODEL_RATE_LIMIT_MAX", "3"),
        ("MAX_SESSIONS_PER_USER", "2"),
        ("REFRESH_GRACE_SECS", "0"),
    ]);
    let client = Client::builder().no_proxy().build().unwrap();
    let ask = |method, path: &str| client.request(method, server.url(path));
    let post = |path: &str, body: Value| ask(Method::POST, path).json(&body);
    let right = json!({"username": "alice", "password": "correct horse battery"});
    let wrong = json!({"username": "alice", "password": "hunter2-hunter2"});

    // An honest user.
    assert_eq!(status(post("/auth/register", right.clone())).await, 201);
    let pair = answer(post("/auth/login", right.clone())).await;
    let token = pair["access_token"].as_str().unwrap().to_owned();

    // Guessing a password, until the account is closed to strangers.
    for expected in [401, 401, 401, 429] {
        assert_eq!(status(post("/auth/login", wrong.clone())).await, expected);
    }

    // A stolen refresh token, used after its owner did, and then the session that it ended.
    let stolen = json!({"refresh_token": pair["refresh_token"]});
    let next = answer(post("/auth/refresh", stolen.clone())).await;
    assert_eq!(status(post("/auth/refresh", stolen)).await, 401);
    let owners = json!({"refresh_token": next["refresh_token"]});
    assert_eq!(status(post("/auth/refresh", owners)).await, 401);
    let forged = json!({"refresh_token": "rt_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"});
    assert_eq!(status(post("/auth/refresh", forged)).await, 401);
    assert_eq!(
        status(ask(Method::GET, "/api/me").bearer_auth(&token)).await,
        401
    );

    // Forged and missing access tokens.
    let unsigned = "eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0.eyJzdWIiOiJyb290In0.";
    assert_eq!(
        status(ask(Method::GET, "/api/me").bearer_auth(unsigned)).await,
        401
    );
    assert_eq!(status(ask(Method::GET, "/api/me")).await, 401);

    // A page of another site.
    let cross = post("/auth/logout", json!({})).header("sec-fetch-site", "cross-site");
    assert_eq!(status(cross).await, 403);

    let mallory = json!({"username": "mallory", "password": "correct horse battery"});
    assert_eq!(status(post("/auth/register", mallory.clone())).await, 201);
    let mut token = String::new();
    for _ in 0..3 {
        // The third session ends the first.
        let pair = answer(post("/auth/login", mallory.clone())).await;
        pair["access_token"]
            .as_str()
            .unwrap()
            .clone_into(&mut token);
    }

    // Uploads that are not what they say.
    let liar = Part::bytes(b"MZ\x90\0 this program cannot be run".to_vec()).file_name("a.png");
    let form = Form::new().part("file", liar.mime_str("image/png").unwrap());
    let upload = ask(Method::POST, "/api/upload").bearer_auth(&token);
    assert!(status(upload.multipart(form)).await >= 400);

    // Too much of the model, a body that is too large, a body that is none.
    for expected in [200, 200, 200, 429] {
        let call = post("/api/model", json!({"prompt": "x"})).bearer_auth(&token);
        assert_eq!(status(call).await, expected);
    }
    let large = json!({"username": "x".repeat(20_000), "password": "correct horse battery"});
    assert_eq!(status(post("/auth/login", large)).await, 413);

    // API keys: made, rotated, used after that, ended, guessed.
    let made = answer(post("/api/keys", json!({"name": "job"})).bearer_auth(&token)).await;
    let path = format!("/api/keys/{}/rotate", made["id"].as_str().unwrap());
    let rotated = answer(ask(Method::POST, &path).bearer_auth(&token)).await;
    let ping =
        |key: &Value| ask(Method::GET, "/api/ping").header("x-api-key", key.as_str().unwrap());
    assert_eq!(status(ping(&made["key"])).await, 200);
    let path = format!("/api/keys/{}", rotated["id"].as_str().unwrap());
    assert_eq!(
        status(ask(Method::DELETE, &path).bearer_auth(&token)).await,
        204
    );
    assert_eq!(status(ping(&rotated["key"])).await, 401);

    // A changed password ends what a thief may hold.
    let change = json!({"current": "correct horse battery", "new": "battery horse correct"});
    assert_eq!(
        status(post("/auth/password", change).bearer_auth(&token)).await,
        204
    );

    let text = client.get(server.url("/metrics")).send().await.unwrap();
    let text = text.text().await.unwrap();
    let told: BTreeMap<&str, u64> = text
        .lines()
        .filter_map(|line| line.strip_prefix("portcullis_events_total{event=\""))
        .filter_map(|rest| rest.split_once("\"} "))
        .map(|(event, count)| (event, count.parse().unwrap()))
        .filter(|(_, count)| *count > 0)
        .collect();
    for (event, count) in &told {
        println!("{count:>3} {event}");
    }
    for event in [
        "apikey_created",
        "apikey_refused",
        "apikey_revoked",
        "apikey_rotated",
        "apikey_used_after_rotation",
        "authn_login_fail",
        "authn_login_lock",
        "authn_login_success",
        "authn_password_change",
        "authn_token_reuse",
        "authz_fail",
        "excess_rate_limit_exceeded",
        "excess_sessions_exceeded",
        "input_validation_fail",
        "malicious_csrf",
        "session_created",
        "session_renewed",
        "session_use_after_expire",
        "upload_validation",
        "user_created",
    ] {
        assert!(told.contains_key(event), "{event} is not among {told:?}");
        server.logged(&format!("event=\"{event}\""));
    }
    let log = server.log.lock().unwrap().clone();
    for secret in [
        "correct horse",
        "hunter2",
        token.as_str(),
        "pk_dev_",
        unsigned,
    ] {
        assert!(!log.contains(secret), "{secret}\n{log}");
    }
}

async fn status(request: RequestBuilder) -> u16 {
    request.send().await.unwrap().status().as_u16()
}

async fn answer(request: RequestBuilder) -> Value {
    let answer = request.send().await.unwrap();
    let status = answer.status();
    let text = answer.text().await.unwrap();
    assert!(status.is_success(), "{status}: {text}");
    serde_json::from_str(&text).unwrap()
}
