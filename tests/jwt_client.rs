//! The ready fetch, against a real server.

#![cfg(all(feature = "jwks-client", feature = "aws-lc-rs"))]

mod jwt_support;

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    body::Body,
    http::StatusCode,
    response::{IntoResponse as _, Redirect, Response},
    routing::get,
};
use portcullis::{
    Context,
    jwt::{
        AccessToken, Algorithm, Issuer, JwksClient, JwksEndpoint, RefreshPolicy, RemoteKeys,
        Verifier, VerifyError,
    },
    time::{Clock as _, ManualClock},
};
use serde_json::json;
use tokio::runtime::Runtime;

use self::jwt_support::{AUDIENCE, signing_key};

#[tokio::test]
async fn an_issuer_is_discovered_and_its_keys_fetched() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let metadata = |issuer: String, jwks: String| {
        get(move || async move { Json(json!({ "issuer": issuer, "jwks_uri": jwks })) })
    };
    let issuer = Issuer::new(signing_key(Algorithm::ES256), origin.clone(), AUDIENCE).unwrap();
    let keys = format!("{origin}/keys");
    let openid = "/.well-known/openid-configuration";
    let app = Router::new()
        .route_service("/keys", JwksEndpoint::new(issuer.clone()))
        .route(openid, metadata(origin.clone(), keys.clone()))
        .route(
            "/.well-known/oauth-authorization-server/tenant",
            metadata(format!("{origin}/tenant"), keys.clone()),
        )
        .route(
            &format!("/liar{openid}"),
            metadata(origin.clone(), keys.clone()),
        )
        .route(
            &format!("/elsewhere{openid}"),
            metadata(
                format!("{origin}/elsewhere"),
                "http://192.0.2.1/keys".to_owned(),
            ),
        )
        .route("/moved", get(|| async { Redirect::temporary("/keys") }))
        .route("/huge", get(|| async { "x".repeat(300 * 1_024) }));
    let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });

    assert!(
        JwksClient::discover(&format!("{origin}/tenant"))
            .await
            .is_ok()
    );
    for issuer in ["/liar", "/elsewhere", "/nothing"] {
        let issuer = format!("{origin}{issuer}");
        assert!(JwksClient::discover(&issuer).await.is_err(), "{issuer}");
    }
    for path in ["/moved", "/huge", "/nothing"] {
        let client = JwksClient::new(&format!("{origin}{path}")).unwrap();
        assert!(client.fetch().await.is_err(), "{path}");
    }

    let client = JwksClient::discover(&origin).await.unwrap();
    assert_eq!(client.url(), keys);
    let fetched = client.fetch().await.unwrap();
    assert!(format!("{fetched:?}").contains("max_age: Some(300s)"));
    let context = Context::new();
    let remote = RemoteKeys::new(RefreshPolicy::new(), context.clone()).unwrap();
    let verifier = Verifier::new(remote.key_set(), origin.clone(), AUDIENCE).unwrap();
    let driver = tokio::spawn(remote.run(move || {
        let client = client.clone();
        async move { client.fetch().await }
    }));
    let token = issuer
        .issue(&AccessToken::new("u"), context.wall())
        .unwrap();
    tokio::time::timeout(Duration::from_secs(20), async {
        while verifier.verify(token.as_str(), context.wall()).is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .expect("the keys arrive");
    driver.abort();
    server.abort();
}

/// What the server does with the next request.
#[derive(Clone, Debug)]
enum Act {
    Say(String),
    Fail,
    Redirect,
    /// More than anybody reads, without an end or a length.
    Flood,
    /// Nothing at all.
    Stall,
    /// Half an answer, and then nothing.
    StallInside,
}

/// A server in a runtime of its own, so that it can die with all its connections.
struct Server {
    runtime: Option<Runtime>,
    url: String,
    act: Arc<Mutex<Act>>,
    asked: Arc<AtomicUsize>,
}

impl Server {
    fn start(act: Act) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (act, asked) = (Arc::new(Mutex::new(act)), Arc::<AtomicUsize>::default());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let state = (act.clone(), asked.clone());
        let app = Router::new().route(
            "/keys",
            get(move || {
                let (act, asked) = state.clone();
                async move {
                    asked.fetch_add(1, SeqCst);
                    let act = act.lock().unwrap().clone();
                    answer(act).await
                }
            }),
        );
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, app).await.unwrap();
        });
        Self {
            runtime: Some(runtime),
            url,
            act,
            asked,
        }
    }

    fn will(&self, act: Act) {
        *self.act.lock().unwrap() = act;
    }

    fn asked(&self) -> usize {
        self.asked.load(SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn answer(act: Act) -> Response {
    let endless = |first: &'static str, then: Option<&'static str>| {
        let rest = futures_util::stream::unfold((), move |()| async move {
            match then {
                Some(more) => Some((Ok::<_, Infallible>(more), ())),
                None => std::future::pending().await,
            }
        });
        let first = futures_util::stream::iter([Ok(first)]);
        Body::from_stream(futures_util::StreamExt::chain(first, rest)).into_response()
    };
    match act {
        Act::Say(body) => body.into_response(),
        Act::Fail => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Act::Redirect => Redirect::temporary("/keys").into_response(),
        Act::Flood => endless(
            "{\"keys\":[",
            Some("{},{},{},{},{},{},{},{},{},{},{},{},{},{},"),
        ),
        Act::Stall => std::future::pending().await,
        Act::StallInside => endless("{\"keys\":[", None),
    }
}

/// Whatever the server does, tokens of known keys are verified at once, there is one fetch at a time,
/// and what the server says is believed when it makes sense again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn known_keys_never_wait_for_a_server_that_stalls_lies_or_dies() {
    let issuer = |algorithm| Issuer::new(signing_key(algorithm), "issuer", AUDIENCE).unwrap();
    let set = |issuer: &Issuer| Act::Say(JwksEndpoint::new(issuer.clone()).json());
    let known = issuer(Algorithm::ES256);
    let server = Server::start(set(&known));
    let clock = ManualClock::new();
    let context = Context::new().with_clock(clock.clone());
    let policy = RefreshPolicy::new().with_timeout(Duration::from_millis(500));
    let remote = RemoteKeys::new(policy, context.clone()).unwrap();
    let verifier = Verifier::new(remote.key_set(), "issuer", AUDIENCE).unwrap();
    let client = JwksClient::new(&server.url).unwrap();
    let driver = tokio::spawn(remote.run(move || {
        let client = client.clone();
        async move { client.fetch().await }
    }));
    let verdict = |issuer: &Issuer| {
        let token = issuer.issue(&AccessToken::new("u"), clock.wall()).unwrap();
        verifier.verify(token.as_str(), clock.wall()).map(|_| ())
    };
    // A token of an unknown key, again and again, with time going on.
    let until = async |what: &dyn Fn() -> bool| {
        let waiting = async {
            while !what() {
                clock.advance(Duration::from_secs(1));
                let _ = verdict(&issuer(Algorithm::EdDSA));
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(30), waiting).await;
        waited.expect("it happens in time");
    };
    until(&|| verdict(&known).is_ok()).await;

    for act in [
        Act::Say("<html>".to_owned()),
        Act::Say("{\"keys\":[]}".to_owned()),
        Act::Say(format!(
            "{{\"keys\":[],\"x\":\"{}\"}}",
            "x".repeat(300 * 1_024)
        )),
        Act::Fail,
        Act::Redirect,
        Act::Flood,
        Act::Stall,
        Act::StallInside,
    ] {
        let stalls = matches!(act, Act::Stall | Act::StallInside);
        server.will(act.clone());
        let before = server.asked();
        until(&|| server.asked() > before).await;
        let asked = server.asked();
        for _ in 0..50 {
            clock.advance(Duration::from_millis(10));
            assert_eq!(verdict(&known), Ok(()), "{act:?}");
            let stranger = verdict(&issuer(Algorithm::EdDSA));
            assert!(stranger.is_err(), "{act:?}");
        }
        // While one fetch is under way there is no other.
        if stalls {
            assert_eq!(server.asked(), asked, "{act:?}");
        }
        // Another one follows it.
        until(&|| server.asked() > asked).await;
        assert_eq!(verdict(&known), Ok(()), "{act:?}");
    }

    // It makes sense again, and has rotated: the new key is found, the old one is gone.
    let next = issuer(Algorithm::ES256);
    server.will(set(&next));
    until(&|| verdict(&next).is_ok()).await;
    assert_eq!(verdict(&known), Err(VerifyError::UnknownKey));

    // It dies: what is known stands for a day, and then nothing does.
    drop(server);
    for _ in 0..23 {
        clock.advance(Duration::from_secs(3_600));
        let _ = verdict(&issuer(Algorithm::EdDSA));
        assert_eq!(verdict(&next), Ok(()));
    }
    clock.advance(Duration::from_secs(2 * 3_600));
    assert_eq!(verdict(&next), Err(VerifyError::KeysUnavailable));
    driver.abort();
}
