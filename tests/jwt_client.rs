//! The ready fetch, against a real server.

#![cfg(all(feature = "jwks-client", feature = "aws-lc-rs"))]

mod jwt_support;

use std::time::Duration;

use axum::{Json, Router, response::Redirect, routing::get};
use portcullis::{
    Context,
    jwt::{
        AccessToken, Algorithm, Issuer, JwksClient, JwksEndpoint, RefreshPolicy, RemoteKeys,
        Verifier,
    },
};
use serde_json::json;

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
