//! The examples, run as a newcomer runs them. `secure_api` and `checklist` have tests of their own.
#![cfg(all(
    feature = "aws-lc-rs",
    feature = "axum",
    feature = "headers",
    feature = "jwt",
    feature = "object-store",
    feature = "rate-limit",
    feature = "test-suite",
    feature = "tonic"
))]

mod support;

use std::{
    io::{BufRead as _, BufReader, Lines},
    net::SocketAddr,
    process::{Child, ChildStdout, Command, Stdio},
};

use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use reqwest::{
    Client, Response, StatusCode,
    header::{CONTENT_SECURITY_POLICY, RETRY_AFTER, WWW_AUTHENTICATE},
    multipart::{Form, Part},
};
use serde_json::Value;
use support::server::example;
use tempfile::TempDir;

#[tokio::test]
async fn axum_answers_those_whom_it_knows_within_their_limits() {
    let mut server = Example::start("axum", &[]);
    let token = server.line("token ");

    let open = server.get("/", None).await;
    assert_eq!(open.status(), StatusCode::OK);
    assert!(open.headers().contains_key(CONTENT_SECURITY_POLICY));
    assert_eq!(field(&open, "ratelimit-policy"), "\"general\";q=100;w=900");

    let refused = server.get("/me", None).await;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(refused.headers()[WWW_AUTHENTICATE], "Bearer");
    assert!(refused.headers().contains_key(CONTENT_SECURITY_POLICY));

    let me = server.get("/me", Some(&token)).await;
    assert_eq!(me.json::<Value>().await.unwrap()["subject"], "ada");

    for left in [2, 1, 0] {
        let report = server.get("/report", Some(&token)).await;
        assert_eq!(report.status(), StatusCode::OK);
        let fields = field(&report, "ratelimit");
        assert!(
            fields.contains(&format!("\"report\";r={left};")),
            "{fields}"
        );
    }
    let refused = server.get("/report", Some(&token)).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(refused.headers().contains_key(RETRY_AFTER));

    let unknown = server.get("/nowhere", None).await;
    assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
    assert!(unknown.headers().contains_key(CONTENT_SECURITY_POLICY));
}

#[tokio::test]
async fn hyper_counts_both_versions_of_http_by_the_address() {
    let server = Example::start("hyper", &[]);
    let (mut http2, connection) = {
        let stream = tokio::net::TcpStream::connect(server.addr).await.unwrap();
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap()
    };
    tokio::spawn(connection);

    for _ in 0..2 {
        let answer = server.get("/", None).await;
        assert_eq!(answer.version(), http::Version::HTTP_11);
        assert_eq!(answer.text().await.unwrap(), "Hello, 127.0.0.1\n");
    }
    for expected in [200, 200, 200, 429] {
        let request = Request::get(server.url("/"))
            .body(Empty::<Bytes>::new())
            .unwrap();
        let answer = http2.send_request(request).await.unwrap();
        assert_eq!(answer.status(), expected);
        assert!(answer.headers().contains_key(CONTENT_SECURITY_POLICY));
    }
    assert_eq!(
        server.get("/", None).await.status(),
        StatusCode::TOO_MANY_REQUESTS
    );
}

#[test]
fn tonic_answers_refusals_with_statuses_of_grpc() {
    assert_eq!(
        output_of("tonic"),
        "without a token: Unauthenticated\n\
         without the scope: PermissionDenied\n\
         with it: Ok\n\
         the fifth call: ResourceExhausted\n"
    );
}

#[tokio::test]
async fn custom_key_counts_by_tenant() {
    let server = Example::start("custom_key", &[]);
    let get = async |path: &str, tenant: &str| {
        let request = Client::new()
            .get(server.url(path))
            .header("x-tenant", tenant);
        request.send().await.unwrap().status().as_u16()
    };
    // The two of one path are over before the three of the tenant.
    for (path, tenant, expected) in [
        ("/a", "acme", 200),
        ("/a", "acme", 200),
        ("/a", "acme", 429),
        ("/b", "acme", 200),
        ("/b", "acme", 429),
        ("/a", "other", 200),
        ("/a", "trial", 200),
        ("/b", "trial", 429),
    ] {
        assert_eq!(get(path, tenant).await, expected, "{path} of {tenant}");
    }
    assert_eq!(
        server.get("/a", None).await.status(),
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn scopes_admit_those_who_may() {
    let mut server = Example::start("scopes", &[]);
    let client = Client::new();
    for (caller, get, post, delete, staff) in [
        ("reader", 200, 403, 403, 200),
        ("writer", 200, 200, 403, 403),
        ("admin", 403, 403, 403, 200),
        ("fresh-admin", 403, 403, 200, 200),
    ] {
        let token = server.line(&format!("{caller} "));
        let reports = server.url("/reports");
        for (request, expected) in [
            (client.get(&reports), get),
            (client.post(&reports), post),
            (client.delete(&reports), delete),
            (client.get(server.url("/staff")), staff),
        ] {
            let answer = request.bearer_auth(&token).send().await.unwrap();
            let url = answer.url().clone();
            assert_eq!(answer.status().as_u16(), expected, "{caller} at {url}");
        }
    }
    let refused = server.get("/reports", None).await;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn scopes_tell_what_is_missing() {
    let mut server = Example::start("scopes", &[]);
    let client = Client::new();
    for (caller, request, challenge) in [
        (
            "reader",
            client.post(server.url("/reports")),
            r#"Bearer error="insufficient_scope", scope="reports:read reports:write""#,
        ),
        (
            "admin",
            client.delete(server.url("/reports")),
            r#"Bearer error="insufficient_user_authentication", max_age="300""#,
        ),
    ] {
        let token = server.line(&format!("{caller} "));
        let answer = request.bearer_auth(&token).send().await.unwrap();
        assert_eq!(answer.headers()[WWW_AUTHENTICATE], challenge);
    }
}

#[test]
fn jwks_rotation_refuses_no_request() {
    let told = output_of("jwks_rotation");
    assert_eq!(told, "1440 requests, 23 rotations, none refused\n");
}

#[test]
fn custom_store_keeps_every_rule() {
    assert_eq!(output_of("custom_store"), "the store keeps every rule\n");
}

#[tokio::test]
async fn upload_to_object_store_keeps_what_was_accepted() {
    let dir = TempDir::new().unwrap();
    let server = Example::start("upload_to_object_store", &[dir.path().to_str().unwrap()]);
    let post = async |bytes: &'static [u8]| {
        let part = Part::bytes(bytes).file_name("a.gif").mime_str("image/gif");
        let form = Form::new().part("file", part.unwrap());
        let request = Client::new().post(server.url("/")).multipart(form);
        request.send().await.unwrap()
    };

    let stored = post(GIF).await;
    assert_eq!(stored.status(), StatusCode::OK);
    let stored: Value = stored.json().await.unwrap();
    assert_eq!(stored[0]["bytes"], GIF.len());
    let location = stored[0]["location"].as_str().unwrap();
    assert_eq!(std::fs::read(dir.path().join(location)).unwrap(), GIF);

    let refused = post(b"\x7fELF\x02\x01\x01").await;
    assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let kept = std::fs::read_dir(dir.path().join("incoming")).unwrap();
    assert_eq!(kept.count(), 1, "nothing of what was refused");
}

/// A picture of one pixel.
const GIF: &[u8] = b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff,\
    \x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;";

/// A running example that serves; it is killed when this is dropped.
struct Example {
    child: Child,
    told: Lines<BufReader<ChildStdout>>,
    addr: SocketAddr,
}

impl Example {
    fn start(name: &str, arguments: &[&str]) -> Self {
        let mut child = Command::new(example(name))
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut told = BufReader::new(child.stdout.take().unwrap()).lines();
        let addr = next(&mut told, "listening on http://").parse().unwrap();
        Self { child, told, addr }
    }

    /// What follows `prefix` on a line that the example prints after what was asked for before.
    fn line(&mut self, prefix: &str) -> String {
        next(&mut self.told, prefix)
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    async fn get(&self, path: &str, token: Option<&str>) -> Response {
        let mut request = Client::new().get(self.url(path));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        request.send().await.unwrap()
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn next(told: &mut Lines<BufReader<ChildStdout>>, prefix: &str) -> String {
    told.map(Result::unwrap)
        .find_map(|line| Some(line.strip_prefix(prefix)?.to_owned()))
        .unwrap_or_else(|| panic!("no line with {prefix}"))
}

/// What an example that drives itself prints; it must succeed.
fn output_of(name: &str) -> String {
    let run = Command::new(example(name)).output().unwrap();
    let errors = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{errors}");
    String::from_utf8(run.stdout).unwrap()
}

/// All lines of a field, as one list.
fn field(response: &Response, name: &str) -> String {
    let lines = response.headers().get_all(name).iter();
    let lines: Vec<_> = lines.map(|line| line.to_str().unwrap()).collect();
    lines.join(", ")
}
