//! The example server, driven over real sockets as its contract says.
#![cfg(all(
    feature = "api-key",
    feature = "axum",
    feature = "cors",
    feature = "csrf",
    feature = "headers",
    feature = "jwt",
    feature = "login-throttle",
    feature = "password",
    feature = "postgres",
    feature = "rate-limit",
    feature = "sqlite",
    feature = "upload"
))]

mod support;

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::TcpStream,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use reqwest::{
    Client, Method, RequestBuilder, Response, StatusCode,
    header::{
        ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, COOKIE,
        HeaderMap, REFERRER_POLICY, RETRY_AFTER, SERVER, SET_COOKIE, STRICT_TRANSPORT_SECURITY,
        WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
    },
    multipart::{Form, Part},
};
use serde_json::{Value, json};
use support::{
    postgres::Postgres,
    server::{Server, refused},
};
use tempfile::TempDir;

#[tokio::test]
async fn a_user_registers_logs_in_calls_refreshes_and_logs_out() {
    let server = Server::start(&[]);
    let api = Api::new(&server);

    let created = api.post("/auth/register", &credentials("Alice")).await;
    assert_eq!(created.status(), StatusCode::CREATED);
    let user = members(created, &["id", "username"]).await;
    assert_eq!(user["username"], "alice");

    let pair = api.login("alice").await;
    assert_eq!(pair["token_type"], "Bearer");
    assert_eq!(pair["expires_in"], 900);
    assert_eq!(pair["refresh_expires_in"], 604_800);

    let me = api.get("/api/me", access(&pair)).await;
    assert_eq!(me.status(), StatusCode::OK);
    assert_eq!(me.headers()[CACHE_CONTROL], "no-store");
    let me: Value = me.json().await.unwrap();
    assert_eq!(me["id"], user["id"]);
    assert_eq!(me["username"], "alice");
    assert!(me["session_id"].is_string());

    let claims = claims(access(&pair));
    let names: BTreeSet<&str> = claims
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let expected = [
        "iss",
        "sub",
        "aud",
        "exp",
        "iat",
        "nbf",
        "jti",
        "sid",
        "auth_time",
        "scope",
        "preferred_username",
    ];
    assert_eq!(names, expected.into());
    assert_eq!(claims["sid"], me["session_id"]);

    let next = api.refresh(refresh(&pair)).await;
    assert_ne!(refresh(&next), refresh(&pair));
    assert_eq!(self::claims(access(&next))["sid"], claims["sid"]);

    let out = api
        .post("/auth/logout", &json!({"refresh_token": refresh(&next)}))
        .await;
    assert_eq!(out.status(), StatusCode::NO_CONTENT);
    for token in [access(&pair), access(&next)] {
        let gone = api.get("/api/me", token).await;
        assert_eq!(gone.status(), StatusCode::UNAUTHORIZED);
        assert!(challenge(&gone).contains("error=\"invalid_token\""));
    }
    let gone = api
        .post("/auth/refresh", &json!({"refresh_token": refresh(&next)}))
        .await;
    problem(gone, 401).await;
}

#[tokio::test]
async fn logging_out_with_an_unknown_token_is_204() {
    let server = Server::start(&[]);
    let api = Api::new(&server);
    for token in ["rubbish", "", "rt_dev_AAAA"] {
        let out = api
            .post("/auth/logout", &json!({"refresh_token": token}))
            .await;
        assert_eq!(out.status(), StatusCode::NO_CONTENT, "{token}");
    }
}

#[tokio::test]
async fn a_refresh_token_gives_one_successor_to_all_callers() {
    let server = Server::start(&[]);
    let api = Api::new(&server);
    let pair = api.enter("alice").await;
    let calls = (0..16).map(|_| api.refresh(refresh(&pair)));
    let answers = futures_util::future::join_all(calls).await;
    let successors: BTreeSet<&str> = answers.iter().map(refresh).collect();
    assert_eq!(successors.len(), 1);
    api.refresh(refresh(&answers[0])).await;
}

#[tokio::test]
async fn a_used_token_ends_the_session_where_there_is_no_grace() {
    let server = Server::start(&[("REFRESH_GRACE_SECS", "0")]);
    let api = Api::new(&server);
    let first = api.enter("alice").await;
    let second = api.refresh(refresh(&first)).await;
    let replay = json!({"refresh_token": refresh(&first)});
    problem(api.post("/auth/refresh", &replay).await, 401).await;
    let heir = json!({"refresh_token": refresh(&second)});
    problem(api.post("/auth/refresh", &heir).await, 401).await;
    let me = api.get("/api/me", access(&second)).await;
    assert_eq!(me.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn sessions_and_logouts_survive_a_kill_and_a_restart() {
    let dir = Arc::new(TempDir::new().unwrap());
    survive_a_kill(&dir, &[]).await;
    use std::os::unix::fs::PermissionsExt as _;
    let file = std::fs::metadata(dir.path().join("secure_api.db")).unwrap();
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn sessions_in_postgresql_survive_it_and_its_outage() {
    let Some(mut database) = Postgres::start() else {
        return;
    };
    let url = database.url();
    let vars = [("DATABASE_URL", &*url)];
    let server = survive_a_kill(&Arc::new(TempDir::new().unwrap()), &vars).await;
    let api = Api::new(&server);
    let pair = api.login("alice").await;

    database.crash();
    let begun = Instant::now();
    let body = json!({"refresh_token": refresh(&pair)});
    for path in ["/auth/refresh", "/auth/logout", "/auth/login"] {
        let body = if path == "/auth/login" {
            &credentials("alice")
        } else {
            &body
        };
        let answer = api.post(path, body).await;
        assert!(answer.headers().contains_key("retry-after"), "{path}");
        problem(answer, 503).await;
    }
    assert!(begun.elapsed() < Duration::from_secs(45));
    // An access token needs no store.
    let me = api.get("/api/me", access(&pair)).await;
    assert_eq!(me.status(), StatusCode::OK);
    database.start_again();
    let next = api.refresh(refresh(&pair)).await;
    let me = api.get("/api/me", access(&next)).await;
    assert_eq!(me.status(), StatusCode::OK);
}

async fn survive_a_kill(dir: &Arc<TempDir>, vars: &[(&str, &str)]) -> Server {
    let mut vars = vars.to_vec();
    vars.extend([
        (
            "JWT_SECRET",
            "hex:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        ),
        (
            "JWT_REFRESH_SECRET",
            "hex:60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752",
        ),
    ]);
    let server = Server::start_in(dir.clone(), &vars);
    let api = Api::new(&server);
    let kept = api.enter("alice").await;
    let ended = api.enter("bob").await;
    api.post("/auth/logout", &json!({"refresh_token": refresh(&ended)}))
        .await;
    server.kill();

    let server = Server::start_in(dir.clone(), &vars);
    let api = Api::new(&server);
    assert_eq!(
        api.get("/api/me", access(&kept)).await.status(),
        StatusCode::OK
    );
    let gone = api.get("/api/me", access(&ended)).await;
    assert_eq!(gone.status(), StatusCode::UNAUTHORIZED);
    let next = api.refresh(refresh(&kept)).await;
    assert_eq!(
        api.get("/api/me", access(&next)).await.status(),
        StatusCode::OK
    );
    api.login("alice").await;
    server
}

#[tokio::test]
async fn sessions_in_memory_work_and_end_with_the_process() {
    for database in ["memory:", "sqlite::memory:"] {
        let vars = [
            ("DATABASE_URL", database),
            (
                "JWT_SECRET",
                "hex:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            ),
        ];
        let server = Server::start(&vars);
        let api = Api::new(&server);
        let pair = api.enter("alice").await;
        assert_eq!(
            api.get("/api/me", access(&pair)).await.status(),
            StatusCode::OK
        );
        api.refresh(refresh(&pair)).await;
        server.kill();
        let server = Server::start(&vars);
        let gone = Api::new(&server).get("/api/me", access(&pair)).await;
        assert_eq!(gone.status(), StatusCode::UNAUTHORIZED, "{database}");
    }
}

#[tokio::test]
async fn a_browser_keeps_its_refresh_token_in_a_cookie() {
    let server = Server::start(&[]);
    let api = Api::new(&server);
    api.post("/auth/register", &credentials("alice")).await;
    let mut login = credentials("alice");
    login["cookie"] = true.into();

    let first = api.post("/auth/login", &login).await;
    let first_cookie = refresh_cookie(&first).unwrap();
    let first = cookie_pair(first).await;
    let second = api.by_cookie("/auth/refresh", &first_cookie).await;
    let second_cookie = refresh_cookie(&second).unwrap();
    assert_ne!(second_cookie, first_cookie);
    let second = cookie_pair(second).await;
    let replay = api.by_cookie("/auth/refresh", &first_cookie).await;
    assert_eq!(refresh_cookie(&replay).unwrap(), second_cookie);
    // Each use sets a new one, however young the cookie is.
    let next = api.by_cookie("/auth/refresh", &second_cookie).await;
    assert!(![first_cookie, second_cookie.clone()].contains(&refresh_cookie(&next).unwrap()));

    // Another login in the same browser takes the session's place; a failed one does not.
    let again = |password: &str| {
        let mut login = login.clone();
        login["password"] = password.into();
        api.raw(Method::POST, "/auth/login")
            .header(COOKIE, format!("__Host-refresh={second_cookie}"))
            .header("sec-fetch-site", "same-origin")
            .json(&login)
            .send()
    };
    problem(again("wrong-password").await.unwrap(), 401).await;
    let me = api.get("/api/me", access(&second)).await;
    assert_eq!(me.status(), StatusCode::OK);
    let third = again(PASSWORD).await.unwrap();
    let third_cookie = refresh_cookie(&third).unwrap();
    let third = cookie_pair(third).await;
    let sid = |pair: &Value| claims(access(pair))["sid"].clone();
    assert_eq!(sid(&first), sid(&second));
    assert_ne!(sid(&third), sid(&second));
    let me = api.get("/api/me", access(&second)).await;
    assert_eq!(me.status(), StatusCode::UNAUTHORIZED);
    let late = api.by_cookie("/auth/refresh", &second_cookie).await;
    assert_eq!(refresh_cookie(&late), None);
    problem(late, 401).await;

    // What a browser would not send for another site's page.
    for (name, value) in [
        ("sec-fetch-site", "cross-site"),
        ("origin", "https://evil.example"),
        ("x-nothing", "said"),
    ] {
        for path in ["/auth/refresh", "/auth/logout"] {
            let request = api.raw(Method::POST, path).header(name, value);
            let cookie = format!("__Host-refresh={third_cookie}");
            let answer = request.header(COOKIE, cookie).send().await.unwrap();
            problem(answer, 403).await;
        }
    }
    let twice = format!("{third_cookie}; __Host-refresh={third_cookie}");
    for path in ["/auth/refresh", "/auth/logout"] {
        problem(api.by_cookie(path, &twice).await, 400).await;
        let both = api
            .raw(Method::POST, path)
            .header(COOKIE, format!("__Host-refresh={third_cookie}"))
            .header("sec-fetch-site", "same-origin")
            .json(&json!({"refresh_token": third_cookie}));
        problem(both.send().await.unwrap(), 400).await;
    }

    let out = api.by_cookie("/auth/logout", &third_cookie).await;
    assert_eq!(out.status(), StatusCode::NO_CONTENT);
    assert!(out.headers().contains_key("clear-site-data"));
    assert_eq!(refresh_cookie(&out).as_deref(), Some(""));
    let over = api.by_cookie("/auth/refresh", &third_cookie).await;
    assert_eq!(refresh_cookie(&over).as_deref(), Some(""));
    problem(over, 401).await;
    let me = api.get("/api/me", access(&third)).await;
    assert_eq!(me.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_user_sees_his_sessions_and_ends_them() {
    let server = Server::start(&[("AUTH_RATE_LIMIT_MAX", "100")]);
    let api = Api::new(&server);
    let (mine, other) = (api.enter("alice").await, api.login("alice").await);
    let foreign = api.enter("bob").await;
    let list = async |pair: &Value| {
        let answer = api.get("/auth/sessions", access(pair)).await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()[CACHE_CONTROL], "no-store");
        members(answer, &["sessions"]).await["sessions"].clone()
    };
    let end = |pair: &Value, path: &str| {
        api.raw(Method::DELETE, &format!("/auth/sessions{path}"))
            .bearer_auth(access(pair))
            .send()
    };
    let sid = |pair: &Value| claims(access(pair))["sid"].as_str().unwrap().to_owned();

    let sessions = list(&mine).await;
    let sessions = sessions.as_array().unwrap();
    assert_eq!(sessions.len(), 2);
    for session in sessions {
        let own = session["id"] == sid(&mine);
        assert!(own || session["id"] == sid(&other));
        assert_eq!(session["current"], own);
        assert_eq!(session["ip"], "127.0.0.1");
        assert!(session["created_at"].is_i64() && session["last_used_at"].is_i64());
    }
    let foreign_path = format!("/{}", sid(&foreign));
    problem(end(&mine, &foreign_path).await.unwrap(), 404).await;
    problem(end(&mine, "/nothing").await.unwrap(), 404).await;
    let other_path = format!("/{}", sid(&other));
    let ended = end(&mine, &other_path).await.unwrap();
    assert_eq!(ended.status(), StatusCode::NO_CONTENT);
    problem(end(&mine, &other_path).await.unwrap(), 404).await;
    let me = api.get("/api/me", access(&other)).await;
    assert_eq!(me.status(), StatusCode::UNAUTHORIZED);
    let replay = json!({"refresh_token": refresh(&other)});
    problem(api.post("/auth/refresh", &replay).await, 401).await;

    api.login("alice").await;
    assert_eq!(list(&mine).await.as_array().unwrap().len(), 2);
    let ended = end(&mine, "").await.unwrap();
    assert_eq!(ended.status(), StatusCode::NO_CONTENT);
    problem(api.get("/auth/sessions", access(&mine)).await, 401).await;
    assert_eq!(list(&foreign).await.as_array().unwrap().len(), 1);
    let anonymous = api.raw(Method::GET, "/auth/sessions").send().await.unwrap();
    problem(anonymous, 401).await;
    let wrong = api
        .raw(Method::PATCH, "/auth/sessions")
        .bearer_auth(access(&foreign));
    problem(wrong.send().await.unwrap(), 405).await;
}

/// Whoever stole an access token has as many guesses at the password as at the login, together.
#[tokio::test]
async fn guesses_at_the_change_of_a_password_count_as_failed_logins() {
    let server = Server::start(&[
        ("AUTH_ACCOUNT_FAILURES_MAX", "3"),
        ("AUTH_RATE_LIMIT_MAX", "100"),
    ]);
    let api = Api::new(&server);
    let created = api.post("/auth/register", &credentials("alice")).await;
    assert_eq!(created.status(), StatusCode::CREATED);
    let entered = api.post("/auth/login", &credentials("alice")).await;
    let device = entered.headers()[SET_COOKIE].to_str().unwrap();
    let device = device.split(';').next().unwrap().to_owned();
    let mine = pair(entered).await;
    let change = async |current: &str, cookie: Option<&str>| {
        let request = api
            .raw(Method::POST, "/auth/password")
            .bearer_auth(access(&mine))
            .json(&json!({"current": current, "new": "new password"}));
        let request = match cookie {
            Some(cookie) => request.header(COOKIE, cookie),
            None => request,
        };
        request.send().await.unwrap()
    };
    // What nobody looked at counts for nothing, nor does what was right.
    for _ in 0..5 {
        problem(change("short", None).await, 422).await;
    }
    problem(change("wrong-password", None).await, 403).await;
    let wrong = json!({"username": "alice", "password": "wrong-password"});
    problem(api.post("/auth/login", &wrong).await, 401).await;
    problem(change("wrong-password", None).await, 403).await;
    for current in ["wrong-password", PASSWORD] {
        let refused = change(current, None).await;
        assert!(refused.headers().contains_key(RETRY_AFTER));
        problem(refused, 429).await;
    }
    problem(api.post("/auth/login", &credentials("alice")).await, 429).await;

    // The owner's own device is not locked out.
    let changed = change(PASSWORD, Some(&device)).await;
    assert_eq!(changed.status(), StatusCode::NO_CONTENT);
    let device = changed.headers()[SET_COOKIE].to_str().unwrap();
    assert!(device.starts_with("__Host-known="));
}

#[tokio::test]
async fn a_changed_password_ends_the_other_sessions() {
    let server = Server::start(&[("AUTH_RATE_LIMIT_MAX", "100")]);
    let api = Api::new(&server);
    let (mine, other) = (api.enter("alice").await, api.login("alice").await);
    let change = |current: &str, new: &str| {
        api.raw(Method::POST, "/auth/password")
            .bearer_auth(access(&mine))
            .json(&json!({"current": current, "new": new}))
            .send()
    };
    problem(change("wrong-password", "new password").await.unwrap(), 403).await;
    problem(change(PASSWORD, "short").await.unwrap(), 422).await;
    problem(change("short", "new password").await.unwrap(), 422).await;
    let me = api.get("/api/me", access(&other)).await;
    assert_eq!(me.status(), StatusCode::OK);

    // A client whose answer was lost asks again.
    for _ in 0..2 {
        let changed = change(PASSWORD, "new password").await.unwrap();
        assert_eq!(changed.status(), StatusCode::NO_CONTENT);
    }
    let me = api.get("/api/me", access(&other)).await;
    assert_eq!(me.status(), StatusCode::UNAUTHORIZED);
    let replay = json!({"refresh_token": refresh(&other)});
    problem(api.post("/auth/refresh", &replay).await, 401).await;
    let me = api.get("/api/me", access(&mine)).await;
    assert_eq!(me.status(), StatusCode::OK);
    api.refresh(refresh(&mine)).await;

    problem(api.post("/auth/login", &credentials("alice")).await, 401).await;
    let login = json!({"username": "alice", "password": "new password"});
    pair(api.post("/auth/login", &login).await).await;
    let log = server.log.lock().unwrap().clone();
    assert!(log.contains("authn_password_change"), "{log}");
    assert!(log.contains("authn_password_change_fail"), "{log}");
    let anonymous = api.raw(Method::POST, "/auth/password");
    let body = json!({"current": PASSWORD, "new": "new password"});
    problem(anonymous.json(&body).send().await.unwrap(), 401).await;
}

#[tokio::test]
async fn every_error_has_its_shape() {
    let server = Server::start(&[("AUTH_RATE_LIMIT_MAX", "100")]);
    let api = Api::new(&server);
    let pair = api.enter("alice").await;
    let login = |body: &'static str| api.raw(Method::POST, "/auth/login").json_text(body);

    problem(login("{\"username\":").await, 400).await;
    problem(login("[1,2]").await, 422).await;
    problem(login("{\"username\":\"alice\"}").await, 422).await;
    let text = api.raw(Method::POST, "/auth/login").body("{}");
    problem(
        text.header(CONTENT_TYPE, "text/plain")
            .send()
            .await
            .unwrap(),
        415,
    )
    .await;
    let untyped = api.raw(Method::POST, "/auth/login").body("{}");
    problem(untyped.send().await.unwrap(), 415).await;

    problem(
        api.post(
            "/auth/login",
            &json!({"username": "alice", "password": "wrong-password"}),
        )
        .await,
        401,
    )
    .await;
    problem(
        api.post(
            "/auth/login",
            &json!({"username": "nobody", "password": "wrong-password"}),
        )
        .await,
        401,
    )
    .await;
    problem(
        api.post(
            "/auth/login",
            &json!({"username": "x", "password": "wrong-password"}),
        )
        .await,
        401,
    )
    .await;
    problem(api.post("/auth/register", &credentials("ALICE")).await, 409).await;
    for username in ["ab", "with space", "ünï", &"a".repeat(65)] {
        problem(
            api.post("/auth/register", &credentials(username)).await,
            422,
        )
        .await;
    }
    for password in ["short", &"p".repeat(72), "with\u{0}nul-inside"] {
        for path in ["/auth/register", "/auth/login"] {
            let body = json!({"username": "carol", "password": password});
            problem(api.post(path, &body).await, 422).await;
        }
    }

    problem(
        api.post("/auth/refresh", &json!({"refresh_token": "rubbish"}))
            .await,
        401,
    )
    .await;
    problem(api.raw(Method::GET, "/nowhere").send().await.unwrap(), 404).await;
    let wrong = api.raw(Method::DELETE, "/api/me").send().await.unwrap();
    assert_eq!(wrong.headers()[ALLOW], "GET,HEAD");
    problem(wrong, 405).await;

    let anonymous = api.raw(Method::GET, "/api/me").send().await.unwrap();
    assert!(challenge(&anonymous).starts_with("Bearer"));
    assert!(!challenge(&anonymous).contains("error"));
    problem(anonymous, 401).await;
    let token = access(&pair);
    let (head, tail) = token.split_at(token.len() - 4);
    let forged = format!("{head}{}", tail.chars().rev().collect::<String>());
    let forged = api.get("/api/me", &forged).await;
    assert!(challenge(&forged).contains("error=\"invalid_token\""));
    problem(forged, 401).await;
    for value in ["Bearer", "Bearer a b", "Bearer \u{7f}", "Bearer ä"] {
        let Ok(value) = reqwest::header::HeaderValue::from_bytes(value.as_bytes()) else {
            continue;
        };
        let malformed = api.raw(Method::GET, "/api/me").header(AUTHORIZATION, value);
        let malformed = malformed.send().await.unwrap();
        assert!(challenge(&malformed).contains("error=\"invalid_request\""));
        problem(malformed, 400).await;
    }
    let prompt = json!({"prompt": "x"});
    let twice = api
        .raw(Method::POST, "/api/model")
        .header(AUTHORIZATION, format!("Bearer {token}"))
        .header(AUTHORIZATION, format!("Bearer {token}"))
        .json(&prompt);
    problem(twice.send().await.unwrap(), 400).await;
}

#[tokio::test]
async fn bodies_have_their_bounds() {
    let server = Server::start(&[]);
    let api = Api::new(&server);
    let pair = api.enter("alice").await;
    let large = format!("{{\"username\":\"{}\"}}", "a".repeat(17 * 1024));
    problem(
        api.raw(Method::POST, "/auth/login")
            .json_text(large.clone())
            .await,
        413,
    )
    .await;
    let chunks = large
        .into_bytes()
        .chunks(1024)
        .map(<[u8]>::to_vec)
        .collect::<Vec<_>>();
    let chunked = api
        .raw(Method::POST, "/auth/login")
        .header(CONTENT_TYPE, "application/json")
        .body(reqwest::Body::wrap_stream(futures_util::stream::iter(
            chunks.into_iter().map(Ok::<_, std::io::Error>),
        )));
    problem(chunked.send().await.unwrap(), 413).await;

    let model = |kib: usize| {
        api.raw(Method::POST, "/api/model")
            .bearer_auth(access(&pair))
            .json(&json!({"prompt": "a".repeat(kib * 1024)}))
            .send()
    };
    let echo = model(200).await.unwrap();
    assert_eq!(echo.status(), StatusCode::OK);
    let echo = members(echo, &["completion"]).await;
    assert!(echo["completion"].as_str().unwrap().len() >= 200 * 1024);
    problem(model(257).await.unwrap(), 413).await;
}

#[tokio::test]
async fn logins_are_limited_by_address_and_fields_tell_so() {
    let server = Server::start(&[]);
    let api = Api::new(&server);
    let wrong = json!({"username": "nobody", "password": "wrong-password"});
    for left in (0..5).rev() {
        let answer = api.post("/auth/login", &wrong).await;
        assert_eq!(answer.headers()["ratelimit-policy"], "\"auth\";q=5;w=900");
        let limit = answer.headers()["ratelimit"].to_str().unwrap().to_owned();
        assert!(limit.starts_with(&format!("\"auth\";r={left}")), "{limit}");
        problem(answer, 401).await;
    }
    let refused = api.post("/auth/login", &wrong).await;
    let wait: u64 = refused.headers()[RETRY_AFTER]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=900).contains(&wait), "{wait}");
    assert!(refused.headers().contains_key("ratelimit"));
    problem(refused, 429).await;
    // Another header of the client's own choice changes nothing.
    let spoofed = api
        .raw(Method::POST, "/auth/login")
        .header("x-forwarded-for", "203.0.113.9")
        .json(&wrong);
    problem(spoofed.send().await.unwrap(), 429).await;
    // Another policy is not touched.
    let refresh = api
        .post("/auth/refresh", &json!({"refresh_token": "x"}))
        .await;
    problem(refresh, 401).await;
    // A path without a limit is not either.
    assert_eq!(
        api.raw(Method::GET, "/healthz")
            .send()
            .await
            .unwrap()
            .status(),
        StatusCode::OK
    );
}

#[tokio::test]
async fn parallel_calls_never_exceed_a_limit() {
    let server = Server::start(&[("RATE_LIMIT_MAX_REQUESTS", "30")]);
    let api = Api::new(&server);
    let calls = (0..90).map(|_| async {
        let answer = api.raw(Method::GET, "/api/me").send().await.unwrap();
        answer.status()
    });
    let answers = futures_util::future::join_all(calls).await;
    let admitted = answers
        .iter()
        .filter(|status| **status == StatusCode::UNAUTHORIZED);
    assert_eq!(admitted.count(), 30);
    let refused = answers
        .iter()
        .filter(|status| **status == StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.count(), 60);
}

#[tokio::test]
async fn a_botnet_cannot_guess_and_a_stranger_cannot_lock_the_owner_out() {
    let server = Server::start(&[
        ("TRUSTED_PROXIES", "127.0.0.0/8"),
        ("AUTH_ACCOUNT_FAILURES_MAX", "3"),
        ("AUTH_RATE_LIMIT_MAX", "100"),
    ]);
    let api = Api::new(&server);
    let created = api.post("/auth/register", &credentials("owner")).await;
    assert_eq!(created.status(), StatusCode::CREATED);
    let login = async |from: u8, body: &Value, cookie: &str| {
        let request = api
            .raw(Method::POST, "/auth/login")
            .header("x-forwarded-for", format!("203.0.113.{from}"))
            .json(body);
        let request = match cookie {
            "" => request,
            cookie => request.header(COOKIE, cookie),
        };
        request.send().await.unwrap()
    };
    let entered = login(1, &credentials("owner"), "").await;
    assert_eq!(entered.status(), StatusCode::OK);
    let set = entered.headers()[SET_COOKIE].to_str().unwrap().to_owned();
    assert!(set.ends_with("; Path=/; Secure; HttpOnly; SameSite=Strict"));
    let known = set.split(';').next().unwrap();

    let wrong = |name: &str| json!({"username": name, "password": "wrong-password"});
    for name in ["Owner", "nobody", "not a name"] {
        for bot in 10..13 {
            problem(login(bot, &wrong(name), "").await, 401).await;
        }
        for bot in 20..23 {
            let refused = login(bot, &wrong(name), "").await;
            assert!(refused.headers().contains_key(RETRY_AFTER));
            assert!(!refused.headers().contains_key(SET_COOKIE));
            problem(refused, 429).await;
        }
    }
    // The right password does not help a stranger, and the owner comes in.
    problem(login(30, &credentials("owner"), "").await, 429).await;
    let again = login(1, &credentials("owner"), known).await;
    assert_eq!(again.status(), StatusCode::OK);
    let device = again.headers()[SET_COOKIE].to_str().unwrap().to_owned();
    let device = device.split(';').next().unwrap();

    // Whoever stole the cookie has as many guesses, and no more.
    for _ in 0..3 {
        problem(login(40, &wrong("owner"), device).await, 401).await;
    }
    problem(login(41, &wrong("owner"), known).await, 429).await;
    assert!(server.log.lock().unwrap().contains("authn_login_lock"));
}

#[tokio::test]
async fn clients_behind_a_trusted_proxy_are_told_apart() {
    let server = Server::start(&[
        ("TRUSTED_PROXIES", "127.0.0.0/8"),
        ("AUTH_RATE_LIMIT_MAX", "1"),
    ]);
    let api = Api::new(&server);
    let wrong = json!({"username": "nobody", "password": "wrong-password"});
    let from = |forwarded: &'static str| {
        api.raw(Method::POST, "/auth/login")
            .header("x-forwarded-for", forwarded)
            .json(&wrong)
            .send()
    };
    for (forwarded, status) in [
        ("203.0.113.1", 401),
        ("203.0.113.1", 429),
        ("203.0.113.2", 401),
        ("6.6.6.6, 203.0.113.2", 429),
        ("2001:db8:1:1::1", 401),
        ("2001:db8:1:1:ffff::2", 429),
        ("2001:db8:1:2::1", 401),
        ("::ffff:203.0.113.2", 429),
    ] {
        problem(from(forwarded).await.unwrap(), status).await;
    }
}

/// A scanner that is away closes the route; a real one judges, where there is one.
#[cfg(feature = "clamd")]
#[tokio::test]
async fn uploads_are_scanned() {
    let picture = |word: &str, filler: usize| {
        let mut picture = PNG[..33].to_vec();
        let data = [word.as_bytes(), &vec![b'.'; filler]].concat();
        picture.extend((data.len() as u32).to_be_bytes());
        picture.extend(b"tEXt");
        picture.extend(data);
        picture.extend([0; 4]);
        picture.extend(&PNG[33..]);
        picture
    };
    let upload = async |addr: &str, picture: Vec<u8>| {
        let server = Server::start(&[("CLAMD_ADDR", addr)]);
        let api = Api::new(&server);
        let pair = api.enter("alice").await;
        let part = Part::bytes(picture).file_name("dot.png");
        let form = Form::new().part("file", part.mime_str("image/png").unwrap());
        let request = api.raw(Method::POST, "/api/upload");
        let request = request.bearer_auth(access(&pair)).multipart(form);
        request.send().await.unwrap()
    };
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = nobody.local_addr().unwrap().to_string();
    drop(nobody);
    let refused = upload(&addr, PNG.to_vec()).await;
    assert_eq!(refused.headers()[RETRY_AFTER], "10");
    problem(refused, 503).await;

    let Some(daemon) = support::clamd::Daemon::start().await else {
        return;
    };
    let socket = daemon.socket().display().to_string();
    for addr in [format!("127.0.0.1:{}", daemon.port), socket] {
        let accepted = upload(&addr, picture("clean", 10)).await;
        assert_eq!(accepted.status(), StatusCode::CREATED);
        problem(upload(&addr, picture("PORTCULLIS-MARKER", 10)).await, 422).await;
        // More than the daemon is set to look at.
        problem(upload(&addr, picture("clean", 700_000)).await, 413).await;
    }
}

#[tokio::test]
async fn uploads_are_what_they_say() {
    let server = Server::start(&[("UPLOAD_RATE_LIMIT_MAX", "100")]);
    let api = Api::new(&server);
    let pair = api.enter("alice").await;
    let upload = |form: Form| {
        api.raw(Method::POST, "/api/upload")
            .bearer_auth(access(&pair))
            .multipart(form)
            .send()
    };
    let file = |bytes: Vec<u8>, name: &'static str, media_type: &str| {
        Form::new().part(
            "file",
            Part::bytes(bytes)
                .file_name(name)
                .mime_str(media_type)
                .unwrap(),
        )
    };

    let form = file(PNG.to_vec(), "dot.png", "image/png").text("caption", "a dot");
    let accepted = upload(form).await.unwrap();
    assert_eq!(accepted.status(), StatusCode::CREATED);
    let accepted = members(accepted, &["files"]).await;
    let stored = &accepted["files"][0];
    assert_eq!(stored["name"], "dot.png");
    assert_eq!(stored["content_type"], "image/png");
    assert_eq!(stored["bytes"], PNG.len());
    assert_eq!(stored["sha256"], PNG_SHA256);
    assert_eq!(stored.as_object().unwrap().len(), 4);

    let program = std::fs::read("/bin/true").unwrap();
    problem(
        upload(file(program, "true.png", "image/png"))
            .await
            .unwrap(),
        422,
    )
    .await;
    problem(
        upload(file(PNG.to_vec(), "dot.gif", "image/gif"))
            .await
            .unwrap(),
        415,
    )
    .await;
    problem(
        upload(file(PNG.to_vec(), "dot.jpg", "image/png"))
            .await
            .unwrap(),
        422,
    )
    .await;
    problem(
        upload(file(PNG.to_vec(), "../dot.png", "image/png"))
            .await
            .unwrap(),
        422,
    )
    .await;
    let mut trailing = PNG.to_vec();
    trailing.extend_from_slice(b"<?php system($_GET['c']);");
    problem(
        upload(file(trailing, "dot.png", "image/png"))
            .await
            .unwrap(),
        422,
    )
    .await;

    // An image whose data goes on and on.
    let mut large = PNG[..33].to_vec();
    large.extend_from_slice(&(6_u32 * 1024 * 1024).to_be_bytes());
    large.extend_from_slice(b"IDAT");
    large.resize(5 * 1024 * 1024 + 1, 0);
    problem(
        upload(file(large.clone(), "dot.png", "image/png"))
            .await
            .unwrap(),
        413,
    )
    .await;
    let chunks = futures_util::stream::iter(
        large
            .chunks(64 * 1024)
            .map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec()))
            .collect::<Vec<_>>(),
    );
    let streamed = Part::stream(reqwest::Body::wrap_stream(chunks))
        .file_name("dot.png")
        .mime_str("image/png")
        .unwrap();
    problem(
        upload(Form::new().part("file", streamed)).await.unwrap(),
        413,
    )
    .await;

    let ambiguous = api
        .raw(Method::POST, "/api/upload")
        .bearer_auth(access(&pair))
        .header(CONTENT_TYPE, "multipart/form-data; boundary=a; boundary=b")
        .body("--a\r\n\r\n--a--\r\n");
    problem(ambiguous.send().await.unwrap(), 400).await;
    let json = api
        .raw(Method::POST, "/api/upload")
        .bearer_auth(access(&pair))
        .json(&json!({}));
    problem(json.send().await.unwrap(), 415).await;
    let anonymous =
        api.raw(Method::POST, "/api/upload")
            .multipart(file(PNG.to_vec(), "dot.png", "image/png"));
    problem(anonymous.send().await.unwrap(), 401).await;
}

#[tokio::test]
async fn every_answer_carries_the_security_headers() {
    let server = Server::start(&[]);
    let api = Api::new(&server);
    for path in ["/", "/healthz", "/api/me", "/nowhere", "/auth/login"] {
        let answer = api.raw(Method::GET, path).send().await.unwrap();
        let headers = answer.headers();
        for name in [
            CONTENT_SECURITY_POLICY,
            X_CONTENT_TYPE_OPTIONS,
            REFERRER_POLICY,
        ] {
            assert_eq!(headers.get_all(&name).iter().count(), 1, "{path}: {name}");
        }
        assert!(!headers.contains_key(SERVER), "{path}");
        assert!(!headers.contains_key("x-powered-by"), "{path}");
        assert!(!headers.contains_key(STRICT_TRANSPORT_SECURITY), "{path}");
        let csp = headers[CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(csp.contains("default-src 'none'"), "{path}: {csp}");
        assert_eq!(csp.contains("'nonce-"), path == "/", "{path}: {csp}");
    }
    let health = api.raw(Method::GET, "/healthz").send().await.unwrap();
    assert_eq!(
        health.json::<Value>().await.unwrap(),
        json!({"status": "ok"})
    );
}

#[tokio::test]
async fn hsts_is_sent_to_clients_that_speak_https_through_a_trusted_proxy() {
    let server = Server::start(&[("TRUSTED_PROXIES", "127.0.0.1")]);
    let api = Api::new(&server);
    let secure = api
        .raw(Method::GET, "/healthz")
        .header("x-forwarded-proto", "https")
        .send();
    assert!(
        secure
            .await
            .unwrap()
            .headers()
            .contains_key(STRICT_TRANSPORT_SECURITY)
    );
}

#[tokio::test]
async fn the_page_runs_under_its_own_policy() {
    let server = Server::start(&[]);
    let api = Api::new(&server);
    let page = || async { api.raw(Method::GET, "/").send().await.unwrap() };
    let first = page().await;
    let csp = first.headers()[CONTENT_SECURITY_POLICY]
        .to_str()
        .unwrap()
        .to_owned();
    let html = first.text().await.unwrap();
    let nonce = csp
        .split("'nonce-")
        .nth(1)
        .unwrap()
        .split('\'')
        .next()
        .unwrap();
    assert!(nonce.len() >= 22);
    assert!(html.contains(&format!("nonce=\"{nonce}\"")));
    assert!(!html.contains("{{"));
    let second = page().await.headers()[CONTENT_SECURITY_POLICY]
        .to_str()
        .unwrap()
        .to_owned();
    assert_ne!(csp, second);

    let Some(chromium) = std::env::var_os("PORTCULLIS_TEST_CHROMIUM") else {
        eprintln!("skipped the browser: PORTCULLIS_TEST_CHROMIUM is not set");
        return;
    };
    let profile = TempDir::new().unwrap();
    let dom = Command::new(chromium)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
        ])
        .args([
            "--disable-background-networking",
            "--disable-component-update",
        ])
        .args(["--disable-sync", "--virtual-time-budget=5000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(server.url("/"))
        .output()
        .unwrap();
    let dom = String::from_utf8_lossy(&dom.stdout).into_owned();
    assert!(dom.contains("data-ready=\"true\""), "{dom}");
}

#[test]
fn a_slow_head_is_cut_off() {
    let server = Server::start(&[]);
    let start = Instant::now();
    let heads: [&[u8]; 4] = [
        b"",
        b"G",
        b"PRI * HT",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-A: ",
    ];
    let sockets = heads.map(|head| {
        let mut socket = TcpStream::connect(server.addr).unwrap();
        socket.write_all(head).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        socket
    });
    for (mut socket, head) in sockets.into_iter().zip(heads) {
        let mut answer = Vec::new();
        let end = socket.read_to_end(&mut answer);
        let reset = end
            .as_ref()
            .is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset);
        assert!(end.is_ok() || reset, "{head:?}: {end:?}");
        assert!(start.elapsed() < Duration::from_secs(15), "{head:?}");
    }
}

#[test]
fn an_oversize_head_is_refused() {
    let server = Server::start(&[]);
    let mut socket = TcpStream::connect(server.addr).unwrap();
    let head = format!(
        "GET / HTTP/1.1\r\nHost: x\r\nX-A: {}\r\n\r\n",
        "a".repeat(32 * 1024)
    );
    let _ = socket.write_all(head.as_bytes());
    let mut answer = String::new();
    let _ = socket.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[test]
fn requests_in_progress_finish_when_the_server_stops() {
    let server = Server::start(&[]);
    let mut socket = TcpStream::connect(server.addr).unwrap();
    let body = "{\"refresh_token\":\"x\"}";
    let head = format!(
        "POST /auth/logout HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all(head.as_bytes()).unwrap();
    socket.write_all(&body.as_bytes()[..5]).unwrap();
    // An answer on another connection shows that the server has had time to read the first.
    let mut other = TcpStream::connect(server.addr).unwrap();
    other
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .unwrap();
    other.read_to_end(&mut Vec::new()).unwrap();

    let start = Instant::now();
    let stopping = std::thread::spawn(move || server.stop());
    socket.write_all(&body.as_bytes()[5..]).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    assert_eq!(stopping.join().unwrap().code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn unusable_settings_end_the_program() {
    let (code, told) = refused(&[
        ("APP_ENV", "production"),
        ("JWT_SECRET", "hunter2-hunter2"),
        ("BCRYPT_COST", "3"),
        ("RATE_LIMIT_WINDOW_MS", "soon"),
        ("UPLOAD_ALLOWED_TYPES", "image/png,not a type"),
    ]);
    assert_eq!(code, Some(2));
    for name in [
        "PUBLIC_ORIGIN",
        "JWT_SECRET",
        "JWT_REFRESH_SECRET",
        "BCRYPT_COST",
        "RATE_LIMIT_WINDOW_MS",
        "TRUSTED_PROXIES",
        "UPLOAD_ALLOWED_TYPES",
        "API_KEYS_ENV",
    ] {
        let lines = told
            .lines()
            .filter(|line| line.starts_with(&format!("{name}: ")));
        assert_eq!(lines.count(), 1, "{name}: {told}");
    }
    assert_eq!(told.lines().count(), 8, "{told}");
    assert!(!told.contains("hunter2"), "{told}");
}

#[tokio::test]
async fn nothing_secret_reaches_the_log() {
    let server = Server::start(&[("REFRESH_GRACE_SECS", "0")]);
    let api = Api::new(&server);
    let pair = api.enter("alice").await;
    let next = api.refresh(refresh(&pair)).await;
    api.post("/auth/refresh", &json!({"refresh_token": refresh(&pair)}))
        .await;
    api.get("/api/me", &format!("{}x", access(&next))).await;
    // Events are written behind the requests that they tell of.
    let begun = Instant::now();
    let log = loop {
        let log = server.log.lock().unwrap().clone();
        if log.contains("authn_token_reuse") {
            break log;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{log}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    for secret in [
        PASSWORD,
        access(&pair),
        refresh(&pair),
        access(&next),
        refresh(&next),
    ] {
        assert!(!log.contains(secret), "{log}");
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

    fn raw(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, self.server.url(path))
    }

    async fn post(&self, path: &str, body: &Value) -> Response {
        self.raw(Method::POST, path)
            .json(body)
            .send()
            .await
            .unwrap()
    }

    async fn get(&self, path: &str, token: &str) -> Response {
        self.raw(Method::GET, path)
            .bearer_auth(token)
            .send()
            .await
            .unwrap()
    }

    /// Registers and logs in.
    async fn enter(&self, username: &str) -> Value {
        let created = self.post("/auth/register", &credentials(username)).await;
        assert_eq!(created.status(), StatusCode::CREATED);
        self.login(username).await
    }

    async fn login(&self, username: &str) -> Value {
        let answer = self.post("/auth/login", &credentials(username)).await;
        pair(answer).await
    }

    async fn by_cookie(&self, path: &str, token: &str) -> Response {
        self.raw(Method::POST, path)
            .header(COOKIE, format!("__Host-refresh={token}"))
            .header("sec-fetch-site", "same-origin")
            .send()
            .await
            .unwrap()
    }

    async fn refresh(&self, token: &str) -> Value {
        let answer = self
            .post("/auth/refresh", &json!({"refresh_token": token}))
            .await;
        pair(answer).await
    }
}

/// The token in the refresh cookie that an answer sets; empty where it takes the cookie away.
fn refresh_cookie(answer: &Response) -> Option<String> {
    let cookies = answer.headers().get_all(SET_COOKIE).iter();
    let mut ours = cookies.filter_map(|cookie| {
        let cookie = cookie.to_str().unwrap();
        cookie.strip_prefix("__Host-refresh=")
    });
    let cookie = ours.next()?;
    assert!(ours.next().is_none());
    let (token, attributes) = cookie.split_once("; ").unwrap();
    let attributes: BTreeSet<&str> = attributes.split("; ").collect();
    for attribute in ["HttpOnly", "Secure", "SameSite=Strict", "Path=/"] {
        assert!(attributes.contains(attribute), "{cookie}");
    }
    assert_eq!(attributes.contains("Max-Age=0"), token.is_empty());
    Some(token.to_owned())
}

/// The answer whose refresh token came in the cookie.
async fn cookie_pair(answer: Response) -> Value {
    assert_eq!(answer.status(), StatusCode::OK);
    let expected = [
        "access_token",
        "token_type",
        "expires_in",
        "refresh_expires_in",
    ];
    members(answer, &expected).await
}

trait JsonText {
    async fn json_text(self, text: impl Into<String>) -> Response;
}

impl JsonText for RequestBuilder {
    async fn json_text(self, text: impl Into<String>) -> Response {
        self.header(CONTENT_TYPE, "application/json")
            .body(text.into())
            .send()
            .await
            .unwrap()
    }
}

fn credentials(username: &str) -> Value {
    json!({"username": username, "password": PASSWORD})
}

async fn pair(answer: Response) -> Value {
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()[CACHE_CONTROL], "no-store");
    let expected = [
        "access_token",
        "token_type",
        "expires_in",
        "refresh_token",
        "refresh_expires_in",
    ];
    members(answer, &expected).await
}

/// The JSON object of an answer, which has these members and no others.
async fn members(answer: Response, expected: &[&str]) -> Value {
    let json: Value = answer.json().await.unwrap();
    let names: BTreeSet<&str> = json
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(names, expected.iter().copied().collect());
    json
}

/// An error in the one shape that errors have.
async fn problem(answer: Response, status: u16) {
    let (seen, headers, url) = (
        answer.status(),
        answer.headers().clone(),
        answer.url().clone(),
    );
    let text = answer.text().await.unwrap();
    assert_eq!(seen.as_u16(), status, "{url}: {text}");
    assert_eq!(headers[CONTENT_TYPE], "application/problem+json", "{url}");
    assert_eq!(headers[CACHE_CONTROL], "no-store", "{url}");
    assert_one_of_each(&headers);
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["status"], status);
    for name in ["type", "title"] {
        assert!(json[name].is_string(), "{url}: {text}");
    }
    for (name, value) in json.as_object().unwrap() {
        let known = ["type", "title", "status", "detail", "violated-policies"];
        assert!(known.contains(&name.as_str()), "{url}: {name}");
        assert!(!value.to_string().contains(PASSWORD));
    }
}

fn assert_one_of_each(headers: &HeaderMap) {
    for name in [
        CONTENT_SECURITY_POLICY,
        X_CONTENT_TYPE_OPTIONS,
        REFERRER_POLICY,
    ] {
        assert_eq!(headers.get_all(&name).iter().count(), 1, "{name}");
    }
}

fn access(pair: &Value) -> &str {
    pair["access_token"].as_str().unwrap()
}

fn refresh(pair: &Value) -> &str {
    pair["refresh_token"].as_str().unwrap()
}

fn challenge(answer: &Response) -> String {
    let mut values = answer.headers().get_all(WWW_AUTHENTICATE).iter();
    let challenge = values.next().unwrap().to_str().unwrap().to_owned();
    assert!(values.next().is_none());
    challenge
}

fn claims(token: &str) -> Value {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let part = |index| {
        let bytes = URL_SAFE_NO_PAD.decode(token.split('.').nth(index).unwrap());
        serde_json::from_slice::<Value>(&bytes.unwrap()).unwrap()
    };
    assert_eq!(part(0)["alg"], "HS256");
    assert_eq!(part(0)["typ"], "at+jwt");
    part(1)
}

const PASSWORD: &str = "correct horse battery";

/// One red pixel.
const PNG: &[u8] = &[
    0x89, 0x50, 0x4e, 0x47, 0xd, 0xa, 0x1a, 0xa, 0x0, 0x0, 0x0, 0xd, 0x49, 0x48, 0x44, 0x52, 0x0,
    0x0, 0x0, 0x1, 0x0, 0x0, 0x0, 0x1, 0x8, 0x2, 0x0, 0x0, 0x0, 0x90, 0x77, 0x53, 0xde, 0x0, 0x0,
    0x0, 0xc, 0x49, 0x44, 0x41, 0x54, 0x78, 0x9c, 0x63, 0xf8, 0xcf, 0xc0, 0x0, 0x0, 0x3, 0x1, 0x1,
    0x0, 0xc9, 0xfe, 0x92, 0xef, 0x0, 0x0, 0x0, 0x0, 0x49, 0x45, 0x4e, 0x44, 0xae, 0x42, 0x60,
    0x82,
];
const PNG_SHA256: &str = "b1ff9c8ea3a780bad09b346c423d2d0e46815926879b18e841d928376a946640";
