//! What a real browser makes of the example server, and what other origins' pages cannot do.
//!
//! Runs where `PORTCULLIS_TEST_CHROMIUM` names a Chromium.
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

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    process::Command,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use support::{
    chromium::{Chromium, Tab},
    server::Server,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    },
};

/// A stranger's page at another port: it has no policy of its own and does what a script tells it.
fn stranger() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut stream = stream;
                let mut head = [0; 8192];
                let _ = stream.read(&mut head);
                let page = "<!doctype html><title>a stranger</title><p>hello";
                let _ = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\
                     Connection: close\r\n\r\n{page}",
                    page.len()
                );
            });
        }
    });
    addr
}

/// The page as the browser shows it, after its script has run.
fn enter(browser: &mut Chromium, tab: &Tab, server: &Server) {
    browser.open(tab, &server.url("/"));
    let ready = browser.run(tab, "document.documentElement.dataset.ready");
    assert_eq!(ready, "true");
}

/// A call from the page itself: status, and the answer as JSON.
fn call(browser: &mut Chromium, tab: &Tab, path: &str, body: &Value) -> (u64, Value) {
    let script = format!(
        "fetch({path}, {{method: 'POST', headers: {{'content-type': 'application/json'}},
            body: {body}}})
         .then(async (answer) => [answer.status, await answer.json().catch(() => null)])",
        path = json!(path),
        body = json!(body.to_string()),
    );
    let answer = browser.run(tab, &script);
    (answer[0].as_u64().unwrap(), answer[1].clone())
}

fn visitor() -> Value {
    json!({"username": "visitor", "password": "a long password"})
}

fn wait_for_log(server: &Server, wanted: &[&str]) {
    let start = Instant::now();
    loop {
        let log = server.log.lock().unwrap().clone();
        if log
            .lines()
            .any(|line| wanted.iter().all(|part| line.contains(part)))
        {
            return;
        }
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "{wanted:?}\n{log}"
        );
        thread::sleep(Duration::from_millis(50));
    }
}

/// The page with a stranger's markup in it, under the policy that the server sent with it.
#[test]
fn the_pages_own_script_runs_and_an_injected_one_does_not() {
    let Some(mut browser) = Chromium::start() else {
        return;
    };
    let server = Server::start(&[]);
    let tab = browser.tab();
    let patterns =
        json!({"patterns": [{"urlPattern": server.url("/"), "requestStage": "Response"}]});
    browser.call(Some(&tab), "Fetch.enable", patterns);
    let navigated = json!({"expression": format!("location.href = {}", json!(server.url("/")))});
    browser.call(Some(&tab), "Runtime.evaluate", navigated);
    let paused = browser.wait_for(|event| event["method"] == "Fetch.requestPaused");
    let request = json!({"requestId": paused["params"]["requestId"]});
    let body = browser.call(Some(&tab), "Fetch.getResponseBody", request.clone());
    let page = STANDARD.decode(body["body"].as_str().unwrap()).unwrap();
    let page = String::from_utf8(page).unwrap();
    let stranger = stranger();
    let injected = format!(
        "<script>window.hits = ['inline']</script>
         <script nonce='guessed'>window.hits = ['nonce']</script>
         <script src='http://{stranger}/x.js'></script>
         <script src='data:text/javascript,window.hits=[1]'></script>
         <img src='data:,' onerror=\"window.hits = ['handler']\">
         <a id='bad' href=\"javascript:window.hits=['url']\">x</a>
         <base href='http://{stranger}/'>
         <style>body {{ --stolen: yes }}</style>"
    );
    assert!(page.contains("<main"));
    let page = page.replacen("<main", &format!("{injected}<main"), 1);
    let mut answer = request;
    answer["responseCode"] = json!(200);
    answer["responseHeaders"] = paused["params"]["responseHeaders"].clone();
    answer["body"] = json!(STANDARD.encode(page));
    browser.call(Some(&tab), "Fetch.fulfillRequest", answer);
    browser.wait_for(|event| event["method"] == "Page.loadEventFired");

    let own = "document.documentElement.dataset.ready";
    assert_eq!(browser.run(&tab, own), "true");
    browser.run(&tab, "document.getElementById('bad').click()");
    assert_eq!(browser.run(&tab, "String(window.hits)"), "undefined");
    let styled = "getComputedStyle(document.body).getPropertyValue('--stolen')";
    assert_eq!(browser.run(&tab, styled), "");
    assert_eq!(browser.run(&tab, "document.baseURI"), server.url("/"));
    // A script that the page's own would be made to add, and text that would become code.
    let added = "(() => { const script = document.createElement('script');
        try { script.text = 'window.hits = [1]' } catch { return 'refused' }
        document.body.append(script); return String(window.hits) })()";
    assert_eq!(browser.run(&tab, added), "refused");
}

#[test]
fn a_violation_of_the_pages_policy_is_an_event() {
    let Some(mut browser) = Chromium::start() else {
        return;
    };
    let server = Server::start(&[]);
    let tab = browser.tab();
    enter(&mut browser, &tab, &server);
    let loads = format!(
        "document.body.append(Object.assign(new Image(), {{src: 'http://{}/x.png'}}))",
        stranger()
    );
    browser.run(&tab, &format!("{loads}; true"));
    wait_for_log(&server, &["csp_violation", "img-src"]);
}

/// Over HTTPS the policy's `report-to` counts, not its `report-uri`.
#[test]
fn a_violation_over_https_is_an_event_by_way_of_the_reporting_api() {
    let tls = Tls::new();
    let Some(mut browser) = Chromium::start_trusting(&tls.spki) else {
        return;
    };
    let (origin, server, reports) = tls.serve();
    let tab = browser.tab();
    browser.open(&tab, &format!("{origin}/"));
    let ready = browser.run(&tab, "document.documentElement.dataset.ready");
    assert_eq!(ready, "true");
    let loads = format!(
        "document.body.append(Object.assign(new Image(), {{src: 'https://{}/x.png'}}))",
        stranger()
    );
    browser.run(&tab, &format!("{loads}; true"));
    wait_for_log(&server, &["csp_violation", "img-src"]);
    let media_types = reports.lock().unwrap();
    assert!(!media_types.is_empty());
    assert!(
        media_types
            .iter()
            .all(|one| one == "application/reports+json"),
        "{media_types:?}"
    );
}

/// A proxy that ends TLS in front of the example server.
struct Tls {
    acceptor: TlsAcceptor,
    /// The digest of the certificate's key, for a browser to trust.
    spki: String,
}

impl Tls {
    fn new() -> Self {
        let dir = tempfile::TempDir::new().unwrap();
        let file = |name: &str| dir.path().join(name);
        let openssl = |args: &[&str]| {
            let mut openssl = Command::new("openssl");
            let output = openssl.args(args).current_dir(dir.path()).output();
            let output = output.expect("openssl is there");
            assert!(output.status.success(), "{output:?}");
            output.stdout
        };
        openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-keyout",
            "key.pem",
            "-out",
            "cert.pem",
        ]);
        let public = ["pkey", "-in", "key.pem", "-pubout", "-outform", "der"];
        let spki = STANDARD.encode(Sha256::digest(openssl(&public)));
        let cert = CertificateDer::from_pem_file(file("cert.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(file("key.pem")).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert], key)
            .unwrap();
        Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            spki,
        }
    }

    /// The public origin, the server behind it, and the media types of the reports that came.
    fn serve(self) -> (String, Server, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let origin = format!("https://{}", listener.local_addr().unwrap());
        let server = Server::start(&[
            ("PUBLIC_ORIGIN", origin.as_str()),
            ("TRUSTED_PROXIES", "127.0.0.0/8"),
        ]);
        let (behind, reports) = (server.addr, Arc::default());
        let seen = Arc::clone(&reports);
        thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build().unwrap();
            runtime.block_on(relay(listener, self.acceptor, behind, seen));
        });
        (origin, server, reports)
    }
}

async fn hand_on(
    request: http::Request<Incoming>,
    behind: SocketAddr,
) -> Result<http::Response<Incoming>, Box<dyn std::error::Error + Send + Sync>> {
    let stream = tokio::net::TcpStream::connect(behind).await?;
    let (mut send, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(send.send_request(request).await?)
}

/// Hands on what comes over TLS, with word of it, until the test ends.
async fn relay(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    behind: SocketAddr,
    reports: Arc<Mutex<Vec<String>>>,
) {
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, reports) = (acceptor.clone(), Arc::clone(&reports));
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let service = service_fn(move |mut request: http::Request<Incoming>| {
                if request.uri().path() == "/csp-reports" {
                    let media_type = &request.headers()["content-type"];
                    let media_type = media_type.to_str().unwrap().to_owned();
                    reports.lock().unwrap().push(media_type);
                }
                let proto = http::HeaderValue::from_static("https");
                request.headers_mut().insert("x-forwarded-proto", proto);
                hand_on(request, behind)
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

#[test]
fn what_a_login_leaves_in_the_browser_no_script_sees() {
    let Some(mut browser) = Chromium::start() else {
        return;
    };
    let server = Server::start(&[]);
    let tab = browser.tab();
    enter(&mut browser, &tab, &server);
    assert_eq!(
        call(&mut browser, &tab, "/auth/register", &visitor()).0,
        201
    );
    let mut login = visitor();
    login["cookie"] = json!(true);
    assert_eq!(call(&mut browser, &tab, "/auth/login", &login).0, 200);
    let urls = json!({"urls": [server.url("/")]});
    let cookies = browser.call(Some(&tab), "Network.getCookies", urls);
    let cookies = cookies["cookies"].as_array().unwrap();
    let has = |name: &str| cookies.iter().any(|cookie| cookie["name"] == name);
    assert!(has("__Host-refresh") && has("__Host-known"));
    for cookie in cookies {
        assert!(
            cookie["name"].as_str().unwrap().starts_with("__Host-"),
            "{cookie}"
        );
        assert_eq!(cookie["httpOnly"], true, "{cookie}");
        assert_eq!(cookie["secure"], true, "{cookie}");
        assert_eq!(cookie["path"], "/", "{cookie}");
    }
    assert_eq!(browser.run(&tab, "document.cookie"), "");
}

/// A stranger's page on another port of the same host, and on another site.
#[test]
fn another_origins_page_can_do_nothing_in_its_visitors_name() {
    let Some(mut browser) = Chromium::start() else {
        return;
    };
    let server = Server::start(&[]);
    let stranger = stranger();
    let tab = browser.tab();
    enter(&mut browser, &tab, &server);
    assert_eq!(
        call(&mut browser, &tab, "/auth/register", &visitor()).0,
        201
    );
    // The worst case: a cookie that browsers send everywhere.
    let cookie = json!({
        "name": "__Host-refresh", "value": "whatever", "url": server.url("/"), "secure": true,
        "httpOnly": true, "sameSite": "None", "path": "/",
    });
    let set = browser.call(Some(&tab), "Network.setCookie", cookie);
    assert_eq!(set["success"], true);

    for origin in [
        format!("http://127.0.0.1:{}", stranger.port()),
        format!("http://localhost:{}", stranger.port()),
    ] {
        browser.open(&tab, &origin);
        let to = |path: &str| json!(server.url(path)).to_string();
        // Reading: neither with CORS nor blindly.
        for (path, options) in [
            ("/healthz", "{}"),
            ("/api/me", "{credentials: 'include'}"),
            ("/", "{credentials: 'include', mode: 'no-cors'}"),
            (
                "/api/me",
                "{credentials: 'include', headers: {authorization: 'Bearer x'}}",
            ),
        ] {
            let script = format!(
                "fetch({}, {options}).then((answer) => answer.type, (error) => error.name)",
                to(path)
            );
            assert_eq!(
                browser.run(&tab, &script),
                "TypeError",
                "{origin} {path} {options}"
            );
        }
        // Loading it as a script or an image.
        let loaded = format!(
            "new Promise((done) => {{
                const image = new Image();
                image.onload = () => done('loaded');
                image.onerror = () => done('refused');
                image.src = {};
            }})",
            to("/")
        );
        assert_eq!(browser.run(&tab, &loaded), "refused");
        // Posting with the cookie, and logging the visitor in: what needs no preflight.
        for path in [
            "/auth/refresh",
            "/auth/logout",
            "/auth/login",
            "/auth/register",
        ] {
            for _ in 0..4 {
                let post = format!(
                    "fetch({}, {{method: 'POST', mode: 'no-cors', credentials: 'include',
                        body: '{{\"username\":\"visitor\",\"password\":\"a long password\"}}'}})
                     .then((answer) => answer.type, (error) => error.name)",
                    to(path)
                );
                browser.run(&tab, &post);
            }
            assert_eq!(
                browser.statuses(&server.url(path)),
                [403; 4],
                "{origin} {path}"
            );
        }
        let form = format!(
            "(() => {{
                const form = document.createElement('form');
                form.method = 'post';
                form.enctype = 'text/plain';
                form.action = {};
                const input = document.createElement('input');
                input.name = '{{\"username\":\"visitor\",\"password\":\"a long password\",\"x\":\"';
                input.value = '\"}}';
                form.append(input);
                document.body.append(form);
                form.submit();
            }})()",
            to("/auth/login")
        );
        browser.run(&tab, &form);
        let went = browser.wait_for(|event| {
            event["method"] == "Network.responseReceived"
                && event["params"]["type"] == "Document"
                && event["params"]["response"]["url"] == server.url("/auth/login")
        });
        assert_eq!(went["params"]["response"]["status"], 403);
        browser.wait_for(|event| event["method"] == "Page.loadEventFired");

        // Framing: another page of the stranger's own stands in a frame, this one does not.
        for (url, stands) in [(format!("{origin}/other"), true), (server.url("/"), false)] {
            browser.open(&tab, &origin);
            let frame = format!(
                "new Promise((done) => {{
                    const frame = document.createElement('iframe');
                    frame.onload = done;
                    frame.src = {};
                    document.body.append(frame);
                }}).then(() => true)",
                json!(url)
            );
            browser.run(&tab, &frame);
            let sent = browser.wait_for(|event| {
                event["method"] == "Network.requestWillBeSent"
                    && event["params"]["type"] == "Document"
                    && event["params"]["request"]["url"] == url
            });
            let end = browser.wait_for(|event| {
                let ends = ["Network.loadingFinished", "Network.loadingFailed"];
                ends.iter().any(|method| event["method"] == *method)
                    && event["params"]["requestId"] == sent["params"]["requestId"]
            });
            let error = (!stands).then_some("net::ERR_BLOCKED_BY_RESPONSE");
            assert_eq!(
                end["params"]["errorText"].as_str(),
                error,
                "{origin}: {end}"
            );
        }
    }

    // None of it logged anybody in or spent what the visitor may spend.
    let cookies = browser.call(
        Some(&tab),
        "Network.getCookies",
        json!({"urls": [server.url("/")]}),
    );
    let names = cookies["cookies"].as_array().unwrap().iter();
    let names: Vec<_> = names.map(|cookie| cookie["name"].clone()).collect();
    assert_eq!(names, ["__Host-refresh"]);
    enter(&mut browser, &tab, &server);
    // Five a window, of which the registration was one.
    for _ in 0..4 {
        assert_eq!(call(&mut browser, &tab, "/auth/login", &visitor()).0, 200);
    }
    assert_eq!(call(&mut browser, &tab, "/auth/login", &visitor()).0, 429);
}
